//! The bounds of a node that a program or an operator may set.

use meshwork_wire::limits::{
    BIND_WITHIN, CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, GATEWAY_CONNECTIONS_MAX,
    GATEWAY_CONNECTIONS_PER_ADDRESS_MAX, IN_FLIGHT_MAX, OFFERED_LEN_MAX, SUBSCRIBED_LEN_MAX,
    UNBOUND_SESSIONS_MAX,
};
use serde::Deserialize;
use std::time::Duration;

/// The bounds of a node that a program or an operator may set, with defaults from [`limits`](meshwork_wire::limits), where the reason for each
/// value stands. Read from a file, a duration is a text such as `2s` or `500ms`, and a name that is no bound is an error.
///
/// ```
/// # use meshwork_actors::node::Limits;
/// let mut limits = Limits::default();
/// limits.in_flight_max = 1_000;
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// How long a bind may take: at a branch, how long the master has to answer it; at a master, how long a connection has to bind
    /// before it is closed with `BIND_TIMEOUT`, and a program of another protocol to say its first message. Default: [`BIND_WITHIN`].
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub bind_within: Duration,
    /// How many requests may be in flight on one connection, each way. Default: [`IN_FLIGHT_MAX`]; a branch keeps to the bound of its
    /// master if that is less.
    pub in_flight_max: usize,
    /// How many connections of a master may be accepted and not bound yet, and as many again whose token was right. When they are there, one
    /// that has said nothing makes room for the next: the oldest of the address that has the most. Each takes up to 20 KiB.
    /// Default: [`UNBOUND_SESSIONS_MAX`]; at least 1.
    pub unbound_sessions_max: usize,
    /// How many bytes the actions and shapes that one branch offers may take at its master. A branch that would offer more is refused.
    /// Default: [`OFFERED_LEN_MAX`].
    pub offered_len_max: usize,
    /// How many bytes the patterns and groups that one branch subscribes to may take at its master. A subscription above the bound is
    /// refused. Default: [`SUBSCRIBED_LEN_MAX`].
    pub subscribed_len_max: usize,
    /// How many connections a master may have, bound or not. A further one is turned away with `OVERLOADED`. Default: [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// How many connections a master may have from one address, or from one network of 64 bits with IPv6. A further one is turned away with
    /// `OVERLOADED`. Default: [`CONNECTIONS_PER_ADDRESS_MAX`].
    pub connections_per_address_max: usize,
    /// How many connections of programs of other protocols a master may have. A further one is closed.
    /// Default: [`GATEWAY_CONNECTIONS_MAX`].
    pub gateway_connections_max: usize,
    /// How many connections of programs of other protocols a master may have from one address, or from one network of 64 bits with IPv6. A
    /// further one is closed. Default: [`GATEWAY_CONNECTIONS_PER_ADDRESS_MAX`].
    pub gateway_connections_per_address_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bind_within: BIND_WITHIN,
            in_flight_max: IN_FLIGHT_MAX,
            unbound_sessions_max: UNBOUND_SESSIONS_MAX,
            offered_len_max: OFFERED_LEN_MAX,
            subscribed_len_max: SUBSCRIBED_LEN_MAX,
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            gateway_connections_max: GATEWAY_CONNECTIONS_MAX,
            gateway_connections_per_address_max: GATEWAY_CONNECTIONS_PER_ADDRESS_MAX,
        }
    }
}

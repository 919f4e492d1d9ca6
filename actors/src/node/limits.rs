//! The bounds of a node that a program or an operator may set.

use crate::answers::answering::AnsweringBounds;
use crate::answers::blocking::Blocking;
use crate::answers::doubles::DoublesBounds;
use crate::link::outbox::OutboxBounds;
use crate::node::said::LastBounds;
use meshwork_wire::limits::{
    ANSWERING_LEN_MAX, BIND_WITHIN, BLOCKING_MAX_MIN, BLOCKING_WAITING_MAX, CONNECTIONS_MAX,
    CONNECTIONS_PER_ADDRESS_MAX, CREDIT_LEN_MAX, DOUBLES_LEN_MAX, DOUBLES_MAX, DOUBLES_WITHIN,
    FAILED_IN_ROW_MAX, FRAME_LEN_MAX, GATEWAY_CONNECTIONS_MAX, GATEWAY_CONNECTIONS_PER_ADDRESS_MAX,
    HELD_LEN_MAX, IN_FLIGHT_MAX, KEPT_IN_ALL_LEN_MAX, KEPT_LEN_MAX, LAST_VALUES_LEN_MAX, LAST_VALUES_MAX,
    LENGTH_PREFIX_LEN, OFFERED_LEN_MAX, OUTBOX_ERROR_LEN_MAX, OUTBOX_REPLY_LEN_MAX, OUTBOX_REQUEST_LEN_MAX,
    OUTBOXES_LEN_MAX, PROVIDER_REPLIES_LEN_MAX, REGISTERED_IN_ALL_LEN_MAX, REST_MAX, REST_MIN,
    SUBSCRIBED_LEN_MAX, SUBSCRIPTIONS_PER_TOPIC_MAX, UNBOUND_SESSIONS_MAX,
};
use serde::Deserialize;
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
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
    /// How many requests may be in flight on one connection, each way. Of the requests to a branch, one caller has eight ninths at most, so
    /// that there is room for others. Default: [`IN_FLIGHT_MAX`]; a branch keeps to the bound of its master if that is less.
    pub in_flight_max: usize,
    /// How many bytes of requests may wait to be written to one connection; a caller has eight ninths of them at most. A request above the
    /// bound goes to another provider, or fails with `OVERLOADED`, not sent. Default: [`OUTBOX_REQUEST_LEN_MAX`].
    pub requests_len_max: usize,
    /// How many bytes of replies may wait for one branch to read them: the memory that a branch which asks and does not read may take. A reply
    /// above the bound becomes `OVERLOADED` for that branch. Used by a master. Default: [`OUTBOX_REPLY_LEN_MAX`].
    pub replies_len_max: usize,
    /// How many bytes of replies may wait at a branch to be written to its master; a caller has eight ninths of them at most, and gets
    /// `OVERLOADED` for what is above. Default: [`PROVIDER_REPLIES_LEN_MAX`].
    pub own_replies_len_max: usize,
    /// How many bytes may stand in all outboxes of a master together, besides 16 MiB of replies, or 64 KiB of events, in each: one connection
    /// may hold as much of them as it leaves. Above that its events are dropped and counted. Used by a master. Default:
    /// [`OUTBOXES_LEN_MAX`].
    pub outboxes_len_max: usize,
    /// How many bytes of arguments the requests of one connection may have that are being answered, or wait for a permit. A request above
    /// the bound is refused with `OVERLOADED`, not sent. Default: [`ANSWERING_LEN_MAX`].
    pub answering_len_max: usize,
    /// How many pieces of blocking work the node does at once, for `respond_blocking`, each on a thread of its own; at least 1. Default: one for
    /// each processor, and [`BLOCKING_MAX_MIN`] if there are less.
    pub blocking_max: usize,
    /// How many requests may wait at the node for blocking work of others to end; a caller has eight ninths of these places at most. A request
    /// above the bound goes to another provider, or fails with `OVERLOADED`, not sent. Default: [`BLOCKING_WAITING_MAX`].
    pub blocking_waiting_max: usize,
    /// How many bytes of what one connection has sent may be held by registry, router and other sessions before it is read no further. Used
    /// by a master. Default: [`CREDIT_LEN_MAX`].
    pub credit_len_max: usize,
    /// How many bytes of the requests of one connection are kept in case that another provider has to run them. Used by a master.
    /// Default: [`KEPT_LEN_MAX`].
    pub kept_len_max: usize,
    /// How many bytes of requests all connections of a master keep together: one keeps no more than the others leave. Used by a master.
    /// Default: [`KEPT_IN_ALL_LEN_MAX`].
    pub kept_in_all_len_max: usize,
    /// How many bytes of requests of one connection the layers of the master may hold: those that have not passed yet. A request above the bound
    /// is refused with `OVERLOADED`, not sent. Used by a master with layers. Default: [`HELD_LEN_MAX`].
    pub held_len_max: usize,
    /// After how many requests in a row that a provider fails it has a rest: it gets no requests for a while, as long as another provider of
    /// the action takes them, and then one at a time tries whether it works again. A panic counts, a deadline that passed while the provider had
    /// the request, an actor that has stopped, and `OVERLOADED` of a provider that has nothing else to do; not an error of the application. Zero:
    /// no provider has a rest. Used by a master. Default: [`FAILED_IN_ROW_MAX`].
    pub failed_in_row_max: usize,
    /// The first rest of a provider that failed in a row. Each further one, without a reply in between, is twice as long. Used by a master.
    /// Default: [`REST_MIN`].
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub rest_min: Duration,
    /// The longest rest of a provider. Used by a master. Default: [`REST_MAX`].
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub rest_max: Duration,
    /// How many calls with an idempotency key the node runs or remembers. When there are more, the oldest outcomes are forgotten; of a caller that has
    /// half of them, its own. While as many are running, a further one is refused with `OVERLOADED`, not sent. Default: [`DOUBLES_MAX`].
    pub doubles_max: usize,
    /// How many bytes the outcomes take that are remembered. Default: [`DOUBLES_LEN_MAX`].
    pub doubles_len_max: usize,
    /// How long an outcome is remembered, and how long a call with a key may run. Default: [`DOUBLES_WITHIN`].
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub doubles_within: Duration,
    /// How many connections of a master may be accepted and not bound yet, and as many again whose token was right. When they are there, one
    /// that has said nothing makes room for the next: the oldest of the address that has the most. Each takes up to 20 KiB.
    /// Default: [`UNBOUND_SESSIONS_MAX`]; at least 1.
    pub unbound_sessions_max: usize,
    /// How many bytes the actions and shapes that one branch offers may take at its master. A branch that would offer more is refused.
    /// Default: [`OFFERED_LEN_MAX`].
    pub offered_len_max: usize,
    /// How many bytes the actions and shapes of all branches may take at their master. One branch may have a ninth of what the others leave.
    /// Default: [`REGISTERED_IN_ALL_LEN_MAX`].
    pub offered_in_all_len_max: usize,
    /// How many bytes the patterns and groups that one branch subscribes to may take at its master. A subscription above the bound is
    /// refused. Default: [`SUBSCRIBED_LEN_MAX`].
    pub subscribed_len_max: usize,
    /// How many bytes the patterns and groups of all branches may take at their master. One branch may have a ninth of what the others leave.
    /// Default: [`REGISTERED_IN_ALL_LEN_MAX`].
    pub subscribed_in_all_len_max: usize,
    /// How many subscriptions of one branch one event may match, counted as the most that any topic could match: each costs a step with every such
    /// event. A subscription above the bound is refused. Used by a master. Default: [`SUBSCRIPTIONS_PER_TOPIC_MAX`].
    pub subscriptions_per_topic_max: usize,
    /// How many last values a master keeps, and a node of those that it published, to say them again to a master that was started again. One
    /// publisher has eight ninths of them at most. A further one is refused with `OVERLOADED`, not sent. Default: [`LAST_VALUES_MAX`].
    pub last_values_max: usize,
    /// How many bytes these may take, with their topics. Default: [`LAST_VALUES_LEN_MAX`].
    pub last_values_len_max: usize,
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
            requests_len_max: OUTBOX_REQUEST_LEN_MAX,
            replies_len_max: OUTBOX_REPLY_LEN_MAX,
            own_replies_len_max: PROVIDER_REPLIES_LEN_MAX,
            outboxes_len_max: OUTBOXES_LEN_MAX,
            answering_len_max: ANSWERING_LEN_MAX,
            blocking_max: *BLOCKING_MAX,
            blocking_waiting_max: BLOCKING_WAITING_MAX,
            credit_len_max: CREDIT_LEN_MAX,
            kept_len_max: KEPT_LEN_MAX,
            kept_in_all_len_max: KEPT_IN_ALL_LEN_MAX,
            held_len_max: HELD_LEN_MAX,
            failed_in_row_max: FAILED_IN_ROW_MAX,
            rest_min: REST_MIN,
            rest_max: REST_MAX,
            doubles_max: DOUBLES_MAX,
            doubles_len_max: DOUBLES_LEN_MAX,
            doubles_within: DOUBLES_WITHIN,
            unbound_sessions_max: UNBOUND_SESSIONS_MAX,
            offered_len_max: OFFERED_LEN_MAX,
            offered_in_all_len_max: REGISTERED_IN_ALL_LEN_MAX,
            subscribed_len_max: SUBSCRIBED_LEN_MAX,
            subscribed_in_all_len_max: REGISTERED_IN_ALL_LEN_MAX,
            subscriptions_per_topic_max: SUBSCRIPTIONS_PER_TOPIC_MAX,
            last_values_max: LAST_VALUES_MAX,
            last_values_len_max: LAST_VALUES_LEN_MAX,
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            gateway_connections_max: GATEWAY_CONNECTIONS_MAX,
            gateway_connections_per_address_max: GATEWAY_CONNECTIONS_PER_ADDRESS_MAX,
        }
    }
}

/// The default of [`Limits::blocking_max`]: asking for it reads files, and a program may have ten thousand nodes.
static BLOCKING_MAX: LazyLock<usize> = LazyLock::new(|| {
    available_parallelism().map_or(BLOCKING_MAX_MIN, |count| count.get().max(BLOCKING_MAX_MIN))
});

impl Limits {
    /// The blocking work of a node.
    pub(crate) fn blocking(&self) -> Arc<Blocking> {
        Blocking::new(self.blocking_max, self.blocking_waiting_max)
    }

    /// The bounds of the calls with an idempotency key.
    pub(crate) fn doubles_bounds(&self) -> DoublesBounds {
        let Self { doubles_max, doubles_len_max, doubles_within, .. } = *self;
        DoublesBounds { count_max: doubles_max, len_max: doubles_len_max, within: doubles_within }
    }

    /// The bounds of the requests of one connection that are being answered.
    pub(crate) fn answering_bounds(&self) -> AnsweringBounds {
        AnsweringBounds { count_max: self.in_flight_max, len_max: self.answering_len_max }
    }

    /// The bounds of the last values that are kept.
    pub(crate) fn last_bounds(&self) -> LastBounds {
        LastBounds { count_max: self.last_values_max, len_max: self.last_values_len_max }
    }

    /// The bounds of the outbox from a master to one branch.
    pub(crate) fn outbox_of_session(&self) -> OutboxBounds {
        self.outbox(self.replies_len_max)
    }

    /// The bounds of the outbox from a branch to its master.
    pub(crate) fn outbox_of_branch(&self) -> OutboxBounds {
        self.outbox(self.own_replies_len_max)
    }

    fn outbox(&self, replies_len_max: usize) -> OutboxBounds {
        OutboxBounds {
            requests_len_max: self.requests_len_max,
            // A reply that is allowed finds room in an empty outbox.
            replies_len_max: replies_len_max.max(FRAME_LEN_MAX + LENGTH_PREFIX_LEN),
            errors_len_max: self.in_flight_max.saturating_mul(OUTBOX_ERROR_LEN_MAX),
        }
    }
}

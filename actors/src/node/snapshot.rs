//! The state of a node at one moment, for people and for monitors. Taking a snapshot of a master costs one message each to the master,
//! its registry and its router, and none to its sessions.

use crate::answers::ActorSnapshot;
use meshwork_wire::{ByteString, SessionId};
use serde::Serialize;

/// The state of a node at one moment.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Snapshot {
    /// The name of the node.
    pub name: ByteString,
    /// How many calls of the node itself are in flight.
    pub calls_in_flight: usize,
    /// How many of these calls wait for a lost link.
    pub calls_waiting: usize,
    /// How many requests the node is answering itself that were not answered at once.
    pub answering: usize,
    /// How many actions the node answers itself.
    pub own_actions: usize,
    /// How many actions there are in the mesh, as far as the node knows.
    pub actions: usize,
    /// How many subscriptions the node serves: its own, and at a master also the subscriptions of its branches.
    pub subscriptions: usize,
    /// How many events were dropped since the node started: they found no room in an outbox or before their handler, or their handler was
    /// gone, or the link was lost before they left. The events of lost links, of former sessions and of former handlers count, too.
    pub events_dropped: u64,
    /// How many events went since a later one of their topic took their place in the queue of a handler that keeps the last of each topic.
    pub events_superseded: u64,
    /// How many events handlers of the node handled with an error or a panic since the node started.
    pub events_failed: u64,
    /// How many events handlers of the node could not decode since the node started, and so did not take; each handler counts its own.
    pub events_undecodable: u64,
    /// How many last values a master keeps, or a branch to say them again to a master that was started again.
    pub last_values: usize,
    /// How many bytes these take.
    pub last_values_len: usize,
    /// How many actors that answered an action or handled events had stopped, and were withdrawn.
    pub actors_lost: u64,
    /// The actors that are started again when they panic, which answered an action or handled events of the node since it started.
    pub restarting: Vec<ActorSnapshot>,
    /// How many functions are lent over the links of the node: each was passed as an argument and is not released yet.
    pub callbacks_lent: usize,
    /// How many functions the node holds that came over its links.
    pub callbacks_borrowed: usize,
    /// What a master has denied since it started; nothing at a branch.
    pub denied: Denied,
    /// The branches that are bound; none at a branch.
    pub sessions: Vec<SessionSnapshot>,
}

/// How often a master has denied what branches asked for, by the verb of the permission that they lack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Denied {
    /// Binds: with a wrong token, or none, under a name of another identity, or with an offer or a subscription that is not permitted.
    pub bind: u64,
    /// Offers of actions.
    pub offer: u64,
    /// Calls.
    pub call: u64,
    /// Events and broadcasts, as far as they came to the master: a branch refuses most itself.
    pub publish: u64,
    /// Subscriptions.
    pub subscribe: u64,
    /// Descriptions.
    pub describe: u64,
}

/// A branch connection of a master at one moment.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SessionSnapshot {
    /// The name of the branch.
    pub name: ByteString,
    /// The name of its identity; empty where the master tells branches apart by nothing.
    pub identity: ByteString,
    /// The id of the session.
    pub session: SessionId,
    /// The address that the branch came from.
    pub peer: String,
    /// How many actions the branch offers.
    pub actions: usize,
    /// How many requests to the branch are in flight.
    pub in_flight: usize,
    /// How many bytes wait in the outbox to the branch.
    pub outbox_len: usize,
    /// How many events found no room in the outbox to the branch, and were dropped.
    pub events_dropped: u64,
    /// How many functions are lent to the branch.
    pub callbacks_lent: usize,
    /// How many functions of the branch the master holds.
    pub callbacks_borrowed: usize,
    /// Whether the branch or the master drains.
    pub draining: bool,
    /// Whether the branch has a rest, since it failed in a row: see [`Limits::failed_in_row_max`](crate::node::Limits::failed_in_row_max).
    pub resting: bool,
    /// The labels of the branch, as `name=value`.
    pub labels: Vec<String>,
    /// The weight of the branch among the providers of an action.
    pub weight: u32,
}

//! What goes on at a node at one moment, for people and for monitors. Taking one costs a message to each of the master's own
//! actors, none to its sessions.

use meshwork_wire::{ByteString, SessionId};
use serde::Serialize;

/// A node at one moment.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Snapshot {
    /// What the node is called.
    pub name: ByteString,
    /// How many calls of its own are in flight.
    pub calls_in_flight: usize,
    /// How many of them wait for a lost link.
    pub calls_waiting: usize,
    /// How many requests it is answering itself that were not answered at once.
    pub answering: usize,
    /// How many actions it answers itself.
    pub own_actions: usize,
    /// How many actions there are, as far as it knows.
    pub actions: usize,
    /// How many subscriptions it serves: its own, and at a master those of its branches.
    pub subscriptions: usize,
    /// How many events found no room and were dropped.
    pub events_dropped: u64,
    /// How many functions are lent over its links: each was passed as an argument and is not released yet.
    pub callbacks_lent: usize,
    /// How many functions it holds that came over its links.
    pub callbacks_borrowed: usize,
    /// The branches that are bound, at a master.
    pub sessions: Vec<SessionSnapshot>,
}

/// A branch connection of a master at one moment.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SessionSnapshot {
    /// What the branch is called.
    pub name: ByteString,
    /// Its session.
    pub session: SessionId,
    /// Where it came from.
    pub peer: String,
    /// How many actions it offers.
    pub actions: usize,
    /// How many requests to it are in flight.
    pub in_flight: usize,
    /// How many bytes wait to be written to it.
    pub outbox_len: usize,
    /// How many events found no room on the way to it.
    pub events_dropped: u64,
    /// How many functions are lent to it.
    pub callbacks_lent: usize,
    /// How many functions of it are held.
    pub callbacks_borrowed: usize,
    /// Whether it drains.
    pub draining: bool,
}

//! Events at one node: an event, and the handlers that its topic reaches.

pub(crate) mod event;
pub(crate) mod subscribers;
pub(crate) mod trie;

pub use event::{Deliver, Dropped, Event, EventRef, HandlerCounts, SubscriberId};

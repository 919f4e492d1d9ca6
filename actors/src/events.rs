//! Events at one node: what they are, which handlers a topic reaches, who takes them.

pub(crate) mod event;
pub(crate) mod subscribers;
pub(crate) mod trie;

pub use event::{Deliver, Dropped, Event, EventRef, SubscriberId};

//! Calls that this process made: who waits for which, until when, and who tells them.
//!
//! A call is a slot among those [`in_flight`] from its first poll on. When the queue of its node is taken, the calls of it are
//! [bound](bindings) to a response actor, which settles the slots as their replies come.

pub(crate) mod bindings;
pub(crate) mod deadlines;
pub(crate) mod in_flight;
pub(crate) mod reply;
pub(crate) mod requests;
pub(crate) mod response;
pub(crate) mod slots;

pub use reply::Reply;
pub use response::{Resolve, ResponseActor};

//! The calls of a node: which waiter waits for which call, until when, and how it is told of the reply.
//!
//! From its first poll on a call has a slot in the table of calls [`in_flight`]. When the actor takes the queue of its node, it
//! [binds](bindings) a response actor to the calls in the queue, which settles their slots as the replies come.

pub(crate) mod bindings;
pub(crate) mod deadlines;
pub(crate) mod in_flight;
pub(crate) mod overdue;
pub(crate) mod reply;
pub(crate) mod requests;
pub(crate) mod response;
pub(crate) mod short;
pub(crate) mod slots;

pub use reply::Reply;
pub use response::{Resolve, ResponseActor};

//! Calls that this process made: who waits for which, until when, and who tells them.

pub(crate) mod batch;
pub(crate) mod deadlines;
pub(crate) mod load;
mod parts;
pub(crate) mod response;
pub(crate) mod slots;
pub(crate) mod table;

pub use response::ResponseActor;

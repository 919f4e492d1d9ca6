//! Streams: values that come one after the other as one reply. A stream is answered as a request is, and ends as one does: with its response,
//! a cancel, or the error of a lost link. In between its producer sends items, as many as the consumer has granted; relays count along and
//! hold nothing.

mod inbox;
mod window;

pub use inbox::{Batch, Inbox};
pub(crate) use inbox::{Inboxes, ungranted};
pub use window::{Allowance, GrantedTooMuch, Ungranted, Window};

//! A node, master or branch, as its handles see it.

pub(crate) mod change;
pub(crate) mod known;
pub(crate) mod lender;
pub(crate) mod mailboxes;
pub(crate) mod shared;
pub(crate) mod snapshot;

pub use change::{Change, Status, Watcher};
pub use known::ActionCache;
pub use mailboxes::{
    Describe, Drain, Drained, Flush, Respond, Subscribe, SubscribeTo, TakeSnapshot, Unsubscribe, Watch,
    Withdraw,
};
pub use shared::{Asked, AskedMany, Call, Node, Prepared, WhenDown};
pub use snapshot::{SessionSnapshot, Snapshot};

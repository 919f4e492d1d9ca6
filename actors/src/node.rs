//! A node, master or branch, as its handles see it: the shared state, the messages that its actor takes, its options.

mod attempt;
pub(crate) mod census;
pub(crate) mod change;
mod heads;
pub(crate) mod known;
mod layers;
pub(crate) mod lender;
pub(crate) mod limits;
pub(crate) mod mailboxes;
mod many;
pub(crate) mod options;
mod pending;
pub(crate) mod reading;
pub(crate) mod said;
pub(crate) mod shared;
pub(crate) mod snapshot;
pub(crate) mod submission;

#[cfg(feature = "testing")]
pub use census::{Census, TakeCensus};
pub use change::{Change, Status, Watcher};
pub use heads::HeadIndex;
pub use known::{ActionCache, Wanted};
pub use layers::{Attempts, CallLayer, CallThrough, LayeredCall};
pub use limits::Limits;
pub use mailboxes::{
    Describe, DescribePart, Drain, Drained, FindProviders, Flush, Provided, Respond, Subscribe, SubscribeTo,
    TakeSnapshot, Unsubscribe, Watch, Withdraw,
};
pub use many::ManyCalls;
pub use options::{ConfigureNode, NodeOptions};
pub use reading::Reading;
pub use shared::{Head, Node};
pub use snapshot::{Denied, SessionSnapshot, Snapshot};
pub use submission::{Arguments, Call, NewEvent, WhenDown};

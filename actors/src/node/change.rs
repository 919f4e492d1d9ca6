//! The status of a node in its mesh, and the news of other nodes that it passes on to its watchers.

use crate::log_line;
use crate::repeated::Repeated;
use meshwork_wire::{CallError, NodeNews};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::time::Instant;

/// The status of a node in its mesh.
#[derive(Clone, PartialEq, Debug)]
pub enum Status {
    /// The node is callable and can call. A master is bound from its start.
    Bound,
    /// The link is lost; the branch binds again.
    Rebinding,
    /// The node drains: it takes no more requests and finishes those in flight.
    Draining,
    /// The node has ended, for this reason.
    Closed(CallError),
}

/// A closure that is told of every change of other nodes, on the arbiter of its own node: it must be quick.
pub type Watcher = Box<dyn FnMut(&Change) + Send>;

/// A change of another node: it came or went, or offers more or fewer actions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The node came, or offers more actions.
    Online(NodeNews),
    /// The node went, or offers fewer actions.
    Offline(NodeNews),
}

/// Tells every watcher of a change. A watcher that panics must not end the node.
pub(crate) fn tell(watchers: &mut [Watcher], change: &Change) {
    static PANICKED: Repeated = Repeated::new();
    for watcher in watchers {
        if catch_unwind(AssertUnwindSafe(|| watcher(change))).is_err() {
            let line = PANICKED.error(Instant::now().into_std());
            log_line!(line, "a closure that is told of every change panicked");
        }
    }
}

impl Change {
    /// The node that came or went, and its actions.
    #[must_use]
    pub fn news(&self) -> &NodeNews {
        match self {
            Change::Online(news) | Change::Offline(news) => news,
        }
    }
}

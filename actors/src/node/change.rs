//! How a node stands to its mesh, and what it is told of the others.

use meshwork_wire::{CallError, NodeNews};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a node stands to its mesh.
#[derive(Clone, PartialEq, Debug)]
pub enum Status {
    /// Callable, and able to call. A master is so from its start.
    Bound,
    /// The link is lost; the branch is on its way back.
    Rebinding,
    /// It drains.
    Draining,
    /// It ended, and why.
    Closed(CallError),
}

/// Is told of every change, on the arbiter of the node: it must be quick.
pub type Watcher = Box<dyn FnMut(&Change) + Send>;

/// A node came or went, or offers more or less.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It came, or offers more.
    Online(NodeNews),
    /// It went, or offers less.
    Offline(NodeNews),
}

/// Tells every watcher. One that panics must not end the node.
pub(crate) fn tell(watchers: &mut [Watcher], change: &Change) {
    for watcher in watchers {
        if catch_unwind(AssertUnwindSafe(|| watcher(change))).is_err() {
            log::error!("a closure that is told of every change panicked");
        }
    }
}

impl Change {
    /// Who came or went, and with what.
    #[must_use]
    pub fn news(&self) -> &NodeNews {
        match self {
            Change::Online(news) | Change::Offline(news) => news,
        }
    }
}

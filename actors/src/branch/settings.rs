//! The settings of a branch before it binds. Unlike the actor they are `Send`: a program that starts the branch on another thread sends the
//! settings there.

use super::link::ended;
use crate::gateway::Dialect;
use crate::link::backoff::Backoff;
use crate::link::plain::Over;
use crate::link::{Dial, Tcp};
use crate::node::options::NodeOptions;
use crate::node::shared::Node;
use meshwork_wire::ByteString;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a branch that has not started: what was set on its [`BranchActor`](super::BranchActor), which is made from them again.
pub struct BranchSettings {
    pub(super) name: ByteString,
    pub(super) credentials: Option<ByteString>,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) over: Option<Over>,
    pub(super) dialect: Dialect,
    pub(super) incarnation: u64,
    pub(super) replaces: bool,
    pub(super) backoff: Backoff,
    pub(super) first_bind_within: Duration,
    pub(super) options: NodeOptions,
    pub(super) ends_node: EndsNode,
}

/// Ends the node for its handles when its actor is gone, for whatever reason, so that no caller waits for an actor that is gone.
pub(super) struct EndsNode(Arc<Node>);

impl BranchSettings {
    pub(super) fn new(name: ByteString) -> Self {
        let options = NodeOptions::new(name.clone());
        Self {
            name,
            credentials: None,
            dial: Arc::new(Tcp),
            over: None,
            dialect: Dialect::Native,
            incarnation: fastrand::u64(..),
            replaces: false,
            backoff: Backoff::default(),
            first_bind_within: Duration::ZERO,
            ends_node: EndsNode(Arc::clone(&options.node)),
            options,
        }
    }

    /// The node of the branch, which its handles share.
    #[doc(hidden)]
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.options.node
    }
}

impl Drop for EndsNode {
    fn drop(&mut self) {
        self.0.close_all(ended());
    }
}

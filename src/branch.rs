//! The handle on a branch.

use crate::handle::Node;
use actix::Addr;
use meshwork_actors::branch::{BindError, BranchActor};
use meshwork_actors::link::Address;
use std::ops::Deref;
use std::sync::Arc;

/// A handle on a branch that is bound, with all methods of [`Node`]. `Clone` and `Send`. The branch lives on when its handles
/// are gone, until it is drained or its master refuses it for good; it binds again by itself when it loses its link.
#[derive(Clone, Debug)]
pub struct Branch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node: Node,
    actor: Addr<BranchActor>,
}

impl Branch {
    /// The address of the branch actor.
    #[must_use]
    pub fn addr(&self) -> Addr<BranchActor> {
        self.0.actor.clone()
    }
}

impl Deref for Branch {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0.node
    }
}

/// Binds a [`BranchActor`].
pub trait BindBranch {
    /// Binds to the master at an address, `host:port`, and starts the branch on the current arbiter. The first bind is tried
    /// once. A branch that has been bound binds again by itself when it loses its link, after
    /// 50 ms to 100 ms at first and 3 s at most, as [`BranchActor::backoff`] says.
    ///
    /// # Errors
    ///
    /// When no master can be reached at the address, or the master refuses the branch.
    fn bind(self, address: impl Into<Address>) -> impl Future<Output = Result<Branch, BindError>>;
}

impl BindBranch for BranchActor {
    async fn bind(self, address: impl Into<Address>) -> Result<Branch, BindError> {
        let node = Node::of_branch(Arc::clone(self.node()));
        let actor = self.start_bound(address).await?;
        Ok(Branch(Arc::new(Shared { node, actor })))
    }
}

impl From<Branch> for Node {
    fn from(branch: Branch) -> Self {
        Node::clone(&branch)
    }
}

impl From<&Branch> for Node {
    fn from(branch: &Branch) -> Self {
        Node::clone(branch)
    }
}

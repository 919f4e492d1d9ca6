//! The handle on a branch.

use crate::handle::Node;
use crate::host;
use actix::Addr;
use futures::future::BoxFuture;
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
    fn new(node: Node, actor: Addr<BranchActor>) -> Self {
        Self(Arc::new(Shared { node, actor }))
    }

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
    /// Binds to the master at an address, `host:port`. The first bind is tried once, unless the branch is told to
    /// [wait for its master](BranchActor::wait_for_master). A branch that has been bound binds again by itself when it loses its link,
    /// after 50 ms to 100 ms at first and 3 s at most, as [`BranchActor::backoff`] says.
    ///
    /// The branch lives on the arbiter, or in the `LocalSet` of tokio, that this future is first polled in. In a program without them, as under
    /// `#[tokio::main]`, it lives on a thread of its own, which ends when the branch has ended. The future is `Send` either way; dropping it gives the bind up.
    ///
    /// ```no_run
    /// use meshwork::prelude::*;
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let branch = BranchActor::new("branch1").bind("127.0.0.1:3010").await?;
    ///     let sum: i64 = branch.call("add", (22, 22)).await?;
    ///     branch.drain(Duration::from_secs(10)).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When no master can be reached at the address, the master refuses the branch, or the branch has no thread to live on.
    fn bind(self, address: impl Into<Address>) -> BoxFuture<'static, Result<Branch, BindError>>;
}

impl BindBranch for BranchActor {
    fn bind(self, address: impl Into<Address>) -> BoxFuture<'static, Result<Branch, BindError>> {
        let address = address.into();
        // The actor stays on the thread that it starts on; its settings go there.
        let settings = self.into_settings();
        Box::pin(async move {
            let node = Arc::clone(settings.node());
            let start = move || BranchActor::from(settings).start_bound(address);
            let actor = host::start(Arc::clone(&node), start).await.map_err(BindError::NoThread)??;
            Ok(Branch::new(Node::of_branch(node), actor))
        })
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

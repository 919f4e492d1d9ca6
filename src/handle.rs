//! The handle on a node, and how it gets the state that it shares with the actor of the node.

use actix::Addr;
use meshwork_actors::master::{Attach, MasterActor};
use meshwork_actors::node::Node as ActorNode;
use meshwork_wire::{CallError, Code, Fate};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A handle on a node of the mesh, a branch or a master. Cheap to clone, and usable from any thread; calls cost least on the
/// arbiter of the node's actor.
#[derive(Clone)]
pub struct Node(Inner);

#[derive(Clone)]
enum Inner {
    Attached(Arc<ActorNode>),
    /// The handle of a master, made from its address. The handle asks the master for the shared state when it first needs it.
    Master(Arc<(Addr<MasterActor>, OnceLock<Arc<ActorNode>>)>),
}

impl Node {
    pub(crate) fn of_branch(node: Arc<ActorNode>) -> Self {
        Self(Inner::Attached(node))
    }

    pub(crate) fn of_master(master: Addr<MasterActor>) -> Self {
        Self(Inner::Master(Arc::new((master, OnceLock::new()))))
    }

    pub(crate) fn attached(&self) -> Option<&Arc<ActorNode>> {
        match &self.0 {
            Inner::Attached(node) => Some(node),
            Inner::Master(master) => master.1.get(),
        }
    }

    pub(crate) async fn attach(&self) -> Result<Arc<ActorNode>, CallError> {
        if let Some(node) = self.attached() {
            return Ok(Arc::clone(node));
        }
        let Inner::Master(master) = &self.0 else {
            unreachable!("the handle of a branch is attached from the start");
        };
        let asked = master.0.send(Attach).await;
        let node =
            asked.map_err(|_| CallError::new(Code::LINK_LOST, Fate::NotSent, "the master has ended"))?;
        Ok(Arc::clone(master.1.get_or_init(|| node)))
    }
}

impl From<&Node> for Node {
    fn from(node: &Node) -> Self {
        node.clone()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.attached().map(|node| node.name().clone());
        f.debug_struct("Node").field("name", &name).finish_non_exhaustive()
    }
}

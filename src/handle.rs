//! The handle on a node, and how it gets the state that it shares with the actor of the node.

use actix::Addr;
use meshwork_actors::answers::{Cause, NodeHandle};
use meshwork_actors::master::{Attach, MasterActor};
use meshwork_actors::node::{Call as ActorCall, Node as ActorNode};
use meshwork_wire::{CallError, Code, Fate, Headers};
use std::fmt;
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;

/// A handle on a node of the mesh, a branch or a master. Cheap to clone, and usable from any thread; calls cost least on the
/// arbiter of the node's actor.
#[derive(Clone)]
pub struct Node(Inner);

#[derive(Clone)]
enum Inner {
    Attached(Arc<ActorNode>),
    /// The handle of a master, made from its address. The handle asks the master for the shared state when it first needs it.
    Master(Arc<(Addr<MasterActor>, OnceLock<Arc<ActorNode>>)>),
    /// The handle of the node that answers a request; what is called and published through it is for the request.
    For(Arc<ForRequest>),
    /// The handle in a context that was made by hand, for no node.
    Nowhere,
}

/// A request that calls are made for, and events published.
struct ForRequest {
    node: Node,
    /// The headers of its trace, which travel on.
    trace: Headers,
    cause: Arc<Cause>,
}

impl Node {
    pub(crate) fn of_branch(node: Arc<ActorNode>) -> Self {
        Self(Inner::Attached(node))
    }

    pub(crate) fn of_master(master: Addr<MasterActor>) -> Self {
        Self(Inner::Master(Arc::new((master, OnceLock::new()))))
    }

    /// The node behind the context of a request; none if it was made by hand, for no node.
    pub(crate) fn of_context(node: Option<&NodeHandle>) -> Self {
        node.and_then(ActorNode::of_handle).map_or_else(Self::nowhere, Self::of_branch)
    }

    /// A handle on no node: every call fails as not sent.
    pub(crate) fn nowhere() -> Self {
        Self(Inner::Nowhere)
    }

    /// This handle, for calls and events that are made for a request.
    pub(crate) fn for_request(&self, trace: Headers, cause: &Arc<Cause>) -> Self {
        Self(Inner::For(Arc::new(ForRequest { node: self.clone(), trace, cause: Arc::clone(cause) })))
    }

    fn request(&self) -> Option<&ForRequest> {
        match &self.0 {
            Inner::For(request) => Some(request),
            _ => None,
        }
    }

    /// The request that calls through this handle are made for, if they are made for one.
    pub(crate) fn cause(&self) -> Option<&Arc<Cause>> {
        self.request().map(|request| &request.cause)
    }

    /// The headers of the trace that calls and events through this handle are part of.
    pub(crate) fn trace(&self) -> Headers {
        self.request().map(|request| request.trace.clone()).unwrap_or_default()
    }

    /// The call, made for the request that this handle is for: it has the deadline, the trace and the cancel of that.
    pub(crate) fn adopt(&self, mut call: ActorCall) -> ActorCall {
        if let Some(request) = self.request() {
            call.until = request.cause.until().map(Instant::into_std);
            call.headers = request.trace.clone();
            call.cause = Some(Arc::clone(&request.cause));
        }
        call
    }

    pub(crate) fn attached(&self) -> Option<&Arc<ActorNode>> {
        match &self.0 {
            Inner::For(request) => request.node.attached(),
            _ => self.direct(),
        }
    }

    /// As [`Node::attached`], where calls are made for no request: their callers may write them.
    #[inline(always)]
    pub(crate) fn direct(&self) -> Option<&Arc<ActorNode>> {
        match &self.0 {
            Inner::Attached(node) => Some(node),
            Inner::Master(master) => master.1.get(),
            Inner::For(_) | Inner::Nowhere => None,
        }
    }

    pub(crate) async fn attach(&self) -> Result<Arc<ActorNode>, CallError> {
        if let Some(node) = self.attached() {
            return Ok(Arc::clone(node));
        }
        let handle = self.request().map_or(self, |request| &request.node);
        let Inner::Master(master) = &handle.0 else {
            let none = "the context was made by hand and has no node: give it one";
            return Err(CallError::new(Code::LINK_LOST, Fate::NotSent, none));
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

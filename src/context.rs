//! The context of a call, for its responder: what the request tells, and the node that answers it, for calls and events that are made for it.

use crate::call::Calling;
use crate::handle::Node;
use crate::publishing::Publishing;
use crate::streaming::Opening;
#[cfg(feature = "tower")]
use meshwork_actors::answers::NodeHandle;
use meshwork_actors::answers::{CallContext as ActorContext, Cause, ContextRef};
use meshwork_wire::{ByteString, Headers, Payload};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The context of a request, for its responder: action, caller, deadline and headers, and the node that answers.
///
/// What is called and published through the context is made for the request:
///
/// - A call ends at the deadline of the request, or at its own ([`Calling::within`]) if that is earlier.
/// - It carries the trace of the request, its headers `traceparent` and `tracestate`, unless it sets them itself. A request without them, or with
///   a malformed `traceparent`, gives none. All other headers stay behind.
/// - It ends with [`Code::CANCELLED`](crate::Code::CANCELLED) when the request is cancelled, since its caller dropped the call, has gone, or waits
///   no longer; also in a task that the responder has started. The fate is *not sent* if the call had not begun, else *unknown*, and its
///   provider is told to cancel it.
///
/// ```
/// # use meshwork::prelude::*;
/// # let _ =
/// BranchActor::new("orders").respond("orders/place", |cents: u64, context: CallContext| async move {
///     let receipt: String = context.call("payments/charge", cents).header("tenant", "a").await?;
///     context.publish("orders/placed", &receipt).await?;
///     Ok(receipt)
/// });
/// ```
///
/// The context may be kept when the request has its reply: calls through it still have its deadline and its trace, and no cancel comes any more.
/// What is to go on by itself is called through [`CallContext::node`]. A request for a stream gives no deadline to the calls that are made for
/// it, since its deadline is that of its start; its cancel comes as long as the stream is read. An
/// [idempotent](Calling::idempotent) request runs to its end, so no cancel comes.
///
/// Every method of a [`Node`] can be called for the request, and so can every requester: `Node::from(&context)`, `MathRequester::new(&context)`.
///
/// A clone costs some counts of references. A call through the context costs a few allocations more than one through the node. A responder that
/// takes no context pays for none of this.
#[derive(Clone)]
pub struct CallContext {
    request: ActorContext,
    node: Node,
    cause: Arc<Cause>,
}

impl CallContext {
    /// The context that a responder takes along.
    pub(crate) fn taken(context: &ContextRef<'_>) -> Self {
        Self {
            request: ActorContext::clone(context),
            node: Node::of_context(context.node()),
            cause: Arc::clone(context.cause()),
        }
    }

    /// The context of a request that came over no link, to this node.
    #[cfg(feature = "testing")]
    pub(crate) fn by_hand(request: ActorContext, node: Option<Node>) -> Self {
        let cause = Cause::by_hand(request.deadline());
        Self { request, node: node.unwrap_or_else(Node::nowhere), cause }
    }

    /// Cancels a request that came over no link.
    #[cfg(feature = "testing")]
    pub(crate) fn cancel(&self) {
        self.cause.cancel();
    }

    /// Hands the context on to a responder.
    #[cfg(feature = "tower")]
    pub(crate) fn hand_on<T>(&self, to: impl FnOnce(&ContextRef<'_>) -> T) -> T {
        let node = self.node.attached().map(|node| Arc::clone(node) as NodeHandle);
        to(&ContextRef::taken(&self.request, node.as_ref(), Arc::clone(&self.cause)))
    }

    /// The action that the request is for.
    #[must_use]
    pub fn action(&self) -> &str {
        self.request.action()
    }

    /// The name of the node whose code made the call.
    #[must_use]
    pub fn caller(&self) -> &str {
        self.request.caller()
    }

    /// The headers of the request.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        self.request.headers()
    }

    /// The value of a header of the request, if the caller set it. Upper and lower case of the name are one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.request.header(name)
    }

    /// The place of the request in its trace, the header `traceparent` of W3C Trace Context: `None` if the caller set none, or a malformed one.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.headers().traceparent()
    }

    /// The key of a call that is [idempotent](Headers::IDEMPOTENCY_KEY), which all attempts at it have; `None` if the call is not.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&str> {
        self.request.idempotency_key()
    }

    /// The moment when the caller stops waiting; `None` if it never does. Of a request for a stream: for its start.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.request.deadline()
    }

    /// How long the caller still waits. `None` if it waits for ever.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.request.time_left()
    }

    /// Whether the request was cancelled before it had its reply. A responder that is a future is dropped then: this is for blocking ones, and for
    /// tasks that a responder has started.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cause.is_cancelled()
    }

    /// Waits until the request is cancelled: for ever if it has its reply before.
    pub async fn cancelled(&self) {
        self.cause.cancelled().await;
    }

    /// The node that answers the request. What is called and published through it is not made for the request: it has a deadline of its own, and
    /// goes on when the request is cancelled.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The node, for what is made for the request.
    fn for_request(&self) -> Node {
        self.node.for_request(self.headers().trace(), &self.cause)
    }

    /// Calls an action for the request: see [`CallContext`], and [`Node::call`].
    pub fn call<R: DeserializeOwned>(
        &self,
        action: impl AsRef<str> + Into<ByteString>,
        arguments: impl Serialize,
    ) -> Calling<R> {
        self.for_request().call(action, arguments)
    }

    /// Calls an action for the request, with arguments that are encoded already: see [`Node::call_raw`].
    pub fn call_raw(&self, action: impl Into<ByteString>, arguments: Payload) -> Calling<Payload> {
        self.for_request().call_raw(action, arguments)
    }

    /// Asks for a stream for the request: see [`Node::stream`]. The deadline of the request is that of its start. The stream ends when the request
    /// is cancelled, and may outlive its reply.
    pub fn stream<T: DeserializeOwned>(
        &self,
        action: impl Into<ByteString>,
        arguments: impl Serialize,
    ) -> Opening<T> {
        self.for_request().stream(action, arguments)
    }

    /// Publishes an event for the request: see [`Node::publish`]. It carries the trace of the request.
    ///
    /// # Errors
    ///
    /// As [`Node::publish`]; not sent, too, when the request was cancelled or its deadline has passed.
    pub fn publish<T: Serialize + ?Sized>(&self, topic: impl Into<ByteString>, event: &T) -> Publishing {
        self.for_request().publish(topic, event)
    }
}

/// The node that answers the request, for what is made for the request: each call and event through the handle is as one through the context.
impl From<&CallContext> for Node {
    fn from(context: &CallContext) -> Self {
        context.for_request()
    }
}

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.fmt(f)
    }
}

/// Takes the context along into the method of a trait.
pub fn taken(context: &ContextRef<'_>) -> CallContext {
    CallContext::taken(context)
}

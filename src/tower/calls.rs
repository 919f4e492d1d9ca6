//! Layers around all calls of a node.

use super::as_call::OutgoingCall;
use super::boxed;
use futures::future::BoxFuture;
use meshwork_actors::node::{CallThrough, ConfigureNode, LayeredCall};
use meshwork_wire::{CallError, Outcome, Payload};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tower::{BoxError, Layer, Service};

/// Puts layers around all calls of a [`BranchActor`](crate::BranchActor) or a [`MasterActor`](crate::MasterActor), before it starts.
pub trait LayerCalls: ConfigureNode {
    /// Puts a layer around all calls that this node makes: of [`Node::call`](crate::Node::call), of requesters, of `call_many` and of the message
    /// [`Call`](crate::Call), also of actions that the node answers itself. They stand around the opening of a
    /// [`Node::stream`](crate::Node::stream), up to the moment when it begins, and not around its items: a timeout is one of the start, a permit is
    /// given back then. Calls of functions, feeds and events go through none.
    ///
    /// The layers stand in the order in which they are added, as in a `ServiceBuilder`: a call meets the first one first. The layer wraps a
    /// [`NodeCalls`], whose request is an [`OutgoingCall`] and whose response is the reply as a [`Payload`]. It is applied once, when the node
    /// starts, on the thread that the node lives on; each call takes a clone of the service, so that what its clones share is shared by all
    /// calls, as the permits of a `ConcurrencyLimit` are. A service that is no `Clone` needs a `Buffer` around it.
    ///
    /// A call ends at its deadline wherever in the layers it is, and its fate is true: *not sent* if no attempt has left, or each has ended so.
    /// An error of a layer that is no [`CallError`] becomes one: see [`IntoCallError`](super::IntoCallError). Calls are to be polled in a runtime
    /// of tokio, whose timers the deadlines need.
    ///
    /// Without a layer a call costs what it costs without this feature. With one it costs an allocation or two for each layer.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// use meshwork::tower::{CircuitBreaker, LayerCalls, RetryNotSent};
    /// use tower::limit::GlobalConcurrencyLimitLayer;
    ///
    /// let branch = BranchActor::new("orders")
    ///     .layer_calls(RetryNotSent::budget(0.2))
    ///     .layer_calls(CircuitBreaker::new())
    ///     .layer_calls(GlobalConcurrencyLimitLayer::new(1_000));
    /// ```
    #[must_use]
    fn layer_calls<L>(mut self, layer: L) -> Self
    where
        L: Layer<NodeCalls> + Send + 'static,
        L::Service: Service<OutgoingCall, Response = Payload> + Clone + Send + 'static,
        <L::Service as Service<OutgoingCall>>::Error: Into<BoxError>,
        <L::Service as Service<OutgoingCall>>::Future: Send + 'static,
    {
        self.options().layer_calls(Box::new(move |inner| {
            let layered = layer.layer(NodeCalls(inner));
            Arc::new(Layered(Mutex::new(layered)))
        }));
        self
    }
}

impl<N: ConfigureNode> LayerCalls for N {}

/// The calls of a node, as the service that a layer around them wraps.
#[derive(Clone)]
pub struct NodeCalls(Arc<dyn CallThrough>);

impl Service<OutgoingCall> for NodeCalls {
    type Response = Payload;
    type Error = CallError;
    type Future = BoxFuture<'static, Outcome>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, OutgoingCall(call): OutgoingCall) -> BoxFuture<'static, Outcome> {
        self.0.call(call)
    }
}

impl fmt::Debug for NodeCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCalls").finish_non_exhaustive()
    }
}

/// A layer with all that stands inside it. Locked only to be cloned.
struct Layered<S>(Mutex<S>);

impl<S> CallThrough for Layered<S>
where
    S: Service<OutgoingCall, Response = Payload> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    fn call(&self, call: LayeredCall) -> BoxFuture<'static, Outcome> {
        // A clone that panicked has changed nothing.
        let mut service = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let attempts = call.attempts.clone();
        Box::pin(async move {
            let settle = |error: S::Error| OutgoingCall::settle(&attempts, boxed::read(error.into()));
            poll_fn(|context| service.poll_ready(context).map_err(settle)).await?;
            service.call(OutgoingCall(call)).await.map_err(settle)
        })
    }
}

//! Layers around the requests that pass a master.

use super::boxed::IntoCallError;
use futures::future::BoxFuture;
use meshwork_actors::master::{MasterActor, PassThrough, Passed, PassingRequest};
use meshwork_wire::CallError;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tower::{BoxError, Layer, Service};

/// Puts layers around all that passes a [`MasterActor`], before it starts.
pub trait LayerRequests {
    /// Puts a layer around the requests that branches make through this master, also those that the master answers itself: for rates, for
    /// checks that permissions cannot say, for a record of who calls what. Calls of functions and events pass without it; the calls of the
    /// master's own code have [`LayerCalls`](super::LayerCalls).
    ///
    /// The layers stand in the order in which they are added: a request meets the first one first, when its permission has been checked. A layer
    /// wraps [`Requests`], whose request is a [`PassingRequest`]: who calls what, with which headers, how long the payload is; and whose response
    /// is that the request has [`Passed`]. It may take its time: the request is held meanwhile, up to its deadline, and all that are held for one
    /// connection within [`Limits::held_len_max`](crate::Limits). It may refuse, with any error that a [`CallError`] is made of
    /// ([`IntoCallError`](super::IntoCallError)): the caller gets it at once, *not sent*. It sees the outcome, which goes to the caller meanwhile. One that ends
    /// while the request is at its provider, as a `Timeout` does, cancels the request; the caller gets its error, *unknown*. A request passes once:
    /// one that is let pass again, as by a `Retry`, gets an error.
    ///
    /// The layer is applied once, when the master starts; each request takes a clone of the service. Requests of one branch keep their order as far
    /// as the layers are ready at once.
    ///
    /// Without a layer a request costs a branch on an `Option`. With one it costs a copy of its payload, a task, and some allocations.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// use meshwork::tower::{BoxError, LayerRequests, PassingRequest};
    /// use tower::filter::FilterLayer;
    ///
    /// // Who is not known by an identity calls nothing of the stock.
    /// let known = FilterLayer::new(|request: PassingRequest| -> Result<PassingRequest, BoxError> {
    ///     if request.identity().is_none() && request.action().starts_with("stock/") {
    ///         return Err(CallError::new(Code::NOT_PERMITTED, Fate::NotSent, "the stock is for those with an identity").into());
    ///     }
    ///     Ok(request)
    /// });
    /// let master = MasterActor::new("master").layer_requests(known);
    /// ```
    #[must_use]
    fn layer_requests<L>(self, layer: L) -> Self
    where
        L: Layer<Requests> + Send + 'static,
        L::Service: Service<PassingRequest, Response = Passed> + Clone + Send + 'static,
        <L::Service as Service<PassingRequest>>::Error: Into<BoxError>,
        <L::Service as Service<PassingRequest>>::Future: Send + 'static;
}

impl LayerRequests for MasterActor {
    fn layer_requests<L>(self, layer: L) -> Self
    where
        L: Layer<Requests> + Send + 'static,
        L::Service: Service<PassingRequest, Response = Passed> + Clone + Send + 'static,
        <L::Service as Service<PassingRequest>>::Error: Into<BoxError>,
        <L::Service as Service<PassingRequest>>::Future: Send + 'static,
    {
        self.pass_layer(Box::new(move |inner| Arc::new(Layered(Mutex::new(layer.layer(Requests(inner)))))))
    }
}

/// The requests that pass a master, as the service that a layer around them wraps.
#[derive(Clone)]
pub struct Requests(Arc<dyn PassThrough>);

impl Service<PassingRequest> for Requests {
    type Response = Passed;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Passed, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: PassingRequest) -> Self::Future {
        self.0.pass(request)
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// A layer with all that stands inside it. Locked only to be cloned.
struct Layered<S>(Mutex<S>);

impl<S> PassThrough for Layered<S>
where
    S: Service<PassingRequest, Response = Passed> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    fn pass(&self, request: PassingRequest) -> BoxFuture<'static, Result<Passed, CallError>> {
        // A clone that panicked has changed nothing.
        let mut service = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            poll_fn(|context| service.poll_ready(context).map_err(IntoCallError::into_call_error)).await?;
            service.call(request).await.map_err(IntoCallError::into_call_error)
        })
    }
}

//! Layers around responders.

use super::boxed::{self, Read};
use crate::context::CallContext;
use crate::respond::Responders;
use futures::future::LocalBoxFuture;
use meshwork_actors::answers::{
    Answer, ContextRef, Outlet, Replier, Responder, Restarted, ask, ask_for_stream, poll_once,
};
use meshwork_wire::{ByteString, CallError, Code, Fate, Outcome, Payload, PayloadRef};
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tower::{BoxError, Layer, Service};

/// A request on its way to its responder, as the layers around the responder see it: see [`Responders::layer`]. A clone is the same request.
#[derive(Clone, Debug)]
pub struct IncomingRequest {
    arguments: Payload,
    context: CallContext,
    has_run: Arc<AtomicBool>,
    /// Where the items of a stream go, which is answered once. None if one value is asked for.
    outlet: Option<Arc<Mutex<Option<Outlet>>>>,
}

impl IncomingRequest {
    /// The arguments, as they came.
    #[must_use]
    pub fn arguments(&self) -> &Payload {
        &self.arguments
    }

    /// The context of the request: action, caller and deadline.
    #[must_use]
    pub fn context(&self) -> &CallContext {
        &self.context
    }
}

impl Responders {
    /// Puts a layer around the responders of all actions of this set, whether they were added before or are added later.
    ///
    /// The layers stand in the order in which they are added, as in a `ServiceBuilder`: a request meets the first one first. The layer wraps a
    /// [`ResponderService`], whose request is an [`IncomingRequest`] and whose response is the reply as a [`Payload`]. It is applied once for
    /// each action, so each has a service of its own: what all actions are to share is a layer such as tower's `GlobalConcurrencyLimitLayer`. Each
    /// request takes a clone of the service. Responders need not be `Send`, so a layer that moves them to other threads, as `Buffer` does, does
    /// not fit here.
    ///
    /// The answer of a stream is ready when the stream has ended: a timeout bounds all of it.
    ///
    /// Layers stand inside the bounds of [`Responders::permits`]. A layer that refuses says so with an [`ActionError`](crate::ActionError), or with
    /// a [`CallError`] whose fate it knows: one with [`Code::OVERLOADED`](crate::Code::OVERLOADED) and [`Fate::NotSent`] lets the master ask another
    /// provider. Any other error of a layer becomes one of these: see [`IntoCallError`](super::IntoCallError); its fate is *not sent* if the
    /// responder was not called, else *unknown*.
    ///
    /// Without a layer a request costs what it costs without this feature. With one it costs a copy of its arguments, and an allocation or two for
    /// each layer.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// use tower::timeout::TimeoutLayer;
    ///
    /// let responders = Responders::new()
    ///     .respond("image/scale", |name: String| async move { Ok(name) })
    ///     .layer(TimeoutLayer::new(Duration::from_secs(5)));
    /// ```
    #[must_use]
    pub fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<ResponderService> + Send + Sync + 'static,
        L::Service: Service<IncomingRequest, Response = Payload> + Clone + Send + 'static,
        <L::Service as Service<IncomingRequest>>::Error: Into<BoxError> + 'static,
        <L::Service as Service<IncomingRequest>>::Future: 'static,
    {
        self.add_layer(None, layer)
    }

    /// Puts a layer around the responder of one action: see [`Responders::layer`].
    ///
    /// # Panics
    ///
    /// When the action is not in the set.
    #[must_use]
    pub fn layer_action<L>(self, action: &str, layer: L) -> Self
    where
        L: Layer<ResponderService> + Send + Sync + 'static,
        L::Service: Service<IncomingRequest, Response = Payload> + Clone + Send + 'static,
        <L::Service as Service<IncomingRequest>>::Error: Into<BoxError> + 'static,
        <L::Service as Service<IncomingRequest>>::Future: 'static,
    {
        assert!(self.has(action), "{action:?} is not in the set");
        self.add_layer(Some(action.into()), layer)
    }

    fn add_layer<L>(self, action: Option<ByteString>, layer: L) -> Self
    where
        L: Layer<ResponderService> + Send + Sync + 'static,
        L::Service: Service<IncomingRequest, Response = Payload> + Clone + Send + 'static,
        <L::Service as Service<IncomingRequest>>::Error: Into<BoxError> + 'static,
        <L::Service as Service<IncomingRequest>>::Future: 'static,
    {
        self.with_layer(
            action,
            Arc::new(move |responder: Arc<dyn Responder>| {
                let service = Mutex::new(layer.layer(ResponderService(Arc::clone(&responder))));
                Arc::new(Layered { service, responder }) as Arc<dyn Responder>
            }),
        )
    }
}

/// The responder of an action, as the service that a layer around it wraps.
#[derive(Clone)]
pub struct ResponderService(Arc<dyn Responder>);

impl Service<IncomingRequest> for ResponderService {
    type Response = Payload;
    type Error = CallError;
    type Future = LocalBoxFuture<'static, Outcome>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: IncomingRequest) -> LocalBoxFuture<'static, Outcome> {
        request.has_run.store(true, Ordering::Relaxed);
        let IncomingRequest { arguments, context, outlet, .. } = &request;
        match outlet.as_ref().map(|outlet| outlet.lock().unwrap_or_else(PoisonError::into_inner).take()) {
            None => context.hand_on(|context| ask(&*self.0, arguments, context)),
            Some(Some(outlet)) => {
                context.hand_on(|context| ask_for_stream(&*self.0, arguments, context, outlet))
            }
            Some(None) => {
                let what = "a layer asked twice for the stream of one request";
                Box::pin(std::future::ready(Err(CallError::new(Code::UNKNOWN, Fate::Failed, what))))
            }
        }
    }
}

impl fmt::Debug for ResponderService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponderService").finish_non_exhaustive()
    }
}

/// A responder with its layers.
struct Layered<S> {
    /// Locked only to be cloned.
    service: Mutex<S>,
    responder: Arc<dyn Responder>,
}

impl<S> Responder for Layered<S>
where
    S: Service<IncomingRequest, Response = Payload> + Clone + Send + 'static,
    S::Error: Into<BoxError> + 'static,
    S::Future: 'static,
{
    fn respond(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, _: Replier<'_>) -> Answer {
        self.answer(arguments, context, None)
    }

    fn stream(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, outlet: Outlet) -> Answer {
        self.answer(arguments, context, Some(outlet))
    }

    fn is_running(&self) -> Option<bool> {
        self.responder.is_running()
    }

    fn restarted(&self) -> Option<&Arc<Restarted>> {
        self.responder.restarted()
    }
}

impl<S> Layered<S>
where
    S: Service<IncomingRequest, Response = Payload> + Clone + Send + 'static,
    S::Error: Into<BoxError> + 'static,
    S::Future: 'static,
{
    fn answer(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, outlet: Option<Outlet>) -> Answer {
        // A clone that panicked has changed nothing.
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has_run = Arc::new(AtomicBool::new(false));
        let PayloadRef { encoding, bytes, callbacks } = arguments;
        // Copied, since a request that waits in a layer would keep the block that it came in.
        let arguments = Payload { callbacks: callbacks.clone(), ..Payload::new(encoding, bytes.to_vec()) };
        let outlet = outlet.map(|outlet| Arc::new(Mutex::new(Some(outlet))));
        let (context, has_run_there) = (CallContext::taken(context), Arc::clone(&has_run));
        let request = IncomingRequest { arguments, context, has_run: has_run_there, outlet };
        let answer = async move {
            let ready = poll_fn(|context| service.poll_ready(context)).await;
            let outcome = match ready {
                Ok(()) => service.call(request).await,
                Err(error) => Err(error),
            };
            outcome.map_err(|error| match boxed::read(error.into()) {
                Read::Call(error) => error,
                Read::Layer(error) if has_run.load(Ordering::Relaxed) => error.with_fate(Fate::Unknown),
                Read::Layer(error) => error.with_fate(Fate::NotSent),
            })
        };
        match poll_once(answer, |outcome| outcome) {
            Ok(outcome) => Answer::Now(outcome),
            Err(later) => Answer::Later(later),
        }
    }
}

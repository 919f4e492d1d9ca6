//! Layers of [tower] around calls, behind the feature `tower`: what tower has is used as it is, and what a mesh needs besides stands here.
//!
//! | where | how | a layer sees |
//! | --- | --- | --- |
//! | around one action, at its caller | [`Node::service`](crate::Node::service) | the arguments, as their type |
//! | around all calls of a node | [`LayerCalls::layer_calls`] | an [`OutgoingCall`] |
//! | around responders | [`Responders::layer`](crate::Responders::layer) | an [`IncomingRequest`] |
//! | around all that passes a master | [`LayerRequests::layer_requests`] | a [`PassingRequest`] |
//!
//! Layers stand in the order in which they are added, as in a `ServiceBuilder`: the first one is outermost. They are composed once, when the node
//! starts. Where there are none, a call costs what it costs without this feature.
//!
//! `Timeout`, `ConcurrencyLimit`, `LoadShed`, `Retry`, `Hedge`, `Buffer`, `Filter` and others of tower fit in all of these places, but `Buffer` around
//! responders, which need not be `Send`. Those of this module know the [fates](crate::Fate) of calls: [`RetryNotSent`] makes calls again that
//! were not sent, or that are [idempotent](crate::Calling::idempotent); [`CircuitBreaker`] stops calls of what does not answer. Their errors are [`CallError`](crate::CallError)s again, which
//! [`IntoCallError`] makes of any error of layers.
//!
//! [tower]: https://docs.rs/tower

mod as_call;
mod boxed;
mod breaker;
mod budget;
mod calls;
mod circuit;
mod passing;
mod responders;
mod retry;
mod service;

pub use as_call::{ActionArguments, AsCall, Idempotent, OutgoingCall};
pub use boxed::IntoCallError;
pub use breaker::{BreakerFuture, Breaking, CircuitBreaker};
pub use calls::{LayerCalls, NodeCalls};
pub use meshwork_actors::master::{Passed, PassingRequest};
pub use passing::{LayerRequests, Requests};
pub use responders::{IncomingRequest, ResponderService};
pub use retry::{RetryFuture, RetryNotSent, Retrying};
pub use service::ActionService;
pub use tower::{BoxError, Layer, Service};

//! Answers: how a node answers the requests that come to it, by its actions and their responders.

pub(crate) mod action;
pub(crate) mod answering;
pub(crate) mod blocking;
pub(crate) mod cause;
pub(crate) mod doubles;
pub(crate) mod hops;
pub(crate) mod invoked;
pub(crate) mod keyed;
pub(crate) mod outlet;
mod poll_once;
pub(crate) mod reply_to;
pub(crate) mod responder;
pub(crate) mod restarts;

pub use action::{Action, ActionRefused, Actions};
#[cfg(feature = "testing")]
pub use blocking::simulated::work_in_place;
pub use blocking::{ask, ask_for_stream};
pub use cause::Cause;
pub use outlet::{Outlet, Source};
pub use poll_once::poll_once;
pub use responder::{Answer, CallContext, ContextRef, NodeHandle, Replier, Responder, Work, reply};
pub use restarts::{ActorSnapshot, ActorState, AfterPanic, RestartPolicy, Restarted, Restarts};

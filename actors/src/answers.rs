//! Answers: how a node answers the requests that come to it, by its actions and their responders.

pub(crate) mod action;
pub(crate) mod answering;
pub(crate) mod blocking;
pub(crate) mod doubles;
pub(crate) mod hops;
pub(crate) mod invoked;
pub(crate) mod keyed;
mod poll_once;
pub(crate) mod reply_to;
pub(crate) mod responder;
pub(crate) mod restarts;

pub use action::{Action, ActionRefused, Actions};
pub use blocking::ask;
#[cfg(feature = "testing")]
pub use blocking::simulated::work_in_place;
pub use poll_once::poll_once;
pub use responder::{Answer, CallContext, Replier, Responder, Work, reply};
pub use restarts::{ActorSnapshot, ActorState, AfterPanic, RestartPolicy, Restarted, Restarts};

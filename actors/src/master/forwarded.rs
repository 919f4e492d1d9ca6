//! Requests that a session or the master forwards to another session, and their outcomes. Values only; `handle.rs` has the messages
//! that carry them.

use super::bundles::Bundles;
use crate::link::refusal::gone;
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Fate, Headers, Outcome, Payload, SessionId, Wants,
};
use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

/// The session id under which a master speaks of itself; its sessions are counted from one.
pub(crate) const MASTER: SessionId = SessionId(0);

/// The caller of forwarded requests: the session of the branch that made them, or the master. `M` is the mailbox that takes their outcomes.
pub(crate) struct Caller<M> {
    /// The session, or [`MASTER`].
    pub(crate) id: SessionId,
    /// The name of the branch, or of the master, as the responder is told.
    pub(crate) name: ByteString,
    pub(crate) mailbox: M,
}

/// A caller, as the session of a provider knows it.
pub(crate) struct CallerHere<M> {
    pub(crate) caller: Arc<Caller<M>>,
    /// How many requests of the caller are in flight to this branch.
    pub(crate) in_flight: Cell<usize>,
}

impl<M> Deref for CallerHere<M> {
    type Target = Arc<Caller<M>>;

    fn deref(&self) -> &Self::Target {
        &self.caller
    }
}

/// One request on its way to the session of its provider.
pub(crate) struct Forwarded {
    /// The id that the branch of the calling session, or the master, gave the request.
    pub(crate) id_at_caller: CallbackId,
    /// The id that was drawn at the provider's session.
    pub(crate) id_at_provider: CallbackId,
    pub(crate) target: Target,
    pub(crate) deadline: Option<Instant>,
    pub(crate) beside: Beside,
    pub(crate) payload: Payload,
}

const _: () = assert!(
    size_of::<Forwarded>() <= 128,
    "a longer value is moved by a call of memcpy, and each request is moved some times"
);

/// The [hops](meshwork_wire::Request::hops) and the headers of a request. Most requests have neither.
pub(crate) struct Beside(Option<Box<(u8, Headers)>>);

impl Beside {
    #[inline]
    pub(crate) fn new(hops: u8, headers: Headers) -> Self {
        Self((hops > 0 || !headers.is_empty()).then(|| Box::new((hops, headers))))
    }

    pub(crate) const fn none() -> Self {
        Self(None)
    }

    #[inline]
    pub(crate) fn into_parts(self) -> (u8, Headers) {
        self.0.map_or((0, Headers::none()), |parts| *parts)
    }
}

/// The target of a forwarded request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Target {
    /// An action that the branch of the provider offers.
    Action(ByteString),
    /// A function that the branch lent. Its caller waits for a result, for the end of the call, or for nothing.
    Function(CallbackId, Wants),
}

/// The outcome of a forwarded request, on its way back.
pub(crate) struct Replied {
    pub(crate) id_at_caller: CallbackId,
    /// Tells the request from a later request under its id: a branch may use an id again when it has cancelled the request.
    pub(crate) id_at_provider: CallbackId,
    pub(crate) outcome: Outcome,
}

/// The messages to other sessions that come of one block of frames, or one message: one for each receiver.
pub(crate) struct Outgoing<P, M> {
    pub(crate) forwards: Bundles<P, Forwarded>,
    pub(crate) replies: Bundles<CallerHere<M>, Replied>,
    pub(crate) cancels: Bundles<P, CallbackId>,
}

impl<P, M> Default for Outgoing<P, M> {
    fn default() -> Self {
        Self { forwards: Vec::new(), replies: Vec::new(), cancels: Vec::new() }
    }
}

impl Forwarded {
    /// Whether the caller waits for no outcome.
    pub(crate) fn is_notification(&self) -> bool {
        self.target.is_notification()
    }
}

impl Target {
    /// Whether the caller waits for no outcome.
    pub(crate) fn is_notification(&self) -> bool {
        matches!(self, Target::Function(_, Wants::Nothing))
    }

    /// The error of a request whose session ended before it was written to the branch.
    pub(crate) fn lost(&self) -> CallError {
        match self {
            Target::Action(_) => {
                let why = "the node went away before it was asked";
                CallError::new(Code::PROVIDER_LOST, Fate::NotSent, why)
            }
            Target::Function(..) => gone("the node that lent it went away"),
        }
    }
}

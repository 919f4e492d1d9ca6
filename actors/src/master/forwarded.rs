//! Requests that a session or the master forwards to another session, and their outcomes. Values only; `handle.rs` has the messages
//! that carry them.

use super::bundles::Bundles;
use crate::link::refusal::gone;
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Fate, Grant, Granted, Headers, Outcome, Payload, SessionId,
    Wants,
};
use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
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

/// A caller, which the entries of its requests share.
pub(crate) type SharedCaller<M> = Rc<CallerHere<M>>;

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

/// What most requests have not: [hops](meshwork_wire::Request::hops), headers, and what the consumer of a stream grants at first, if the
/// request is for one.
pub(crate) struct Beside(Option<Box<(u8, Headers, Option<Grant>)>>);

impl Beside {
    #[inline]
    pub(crate) fn new(hops: u8, headers: Headers, grant: Option<Grant>) -> Self {
        let is_there = hops > 0 || !headers.is_empty() || grant.is_some();
        Self(is_there.then(|| Box::new((hops, headers, grant))))
    }

    pub(crate) const fn none() -> Self {
        Self(None)
    }

    #[inline]
    pub(crate) fn into_parts(self) -> (u8, Headers, Option<Grant>) {
        self.0.map_or((0, Headers::none(), None), |parts| *parts)
    }

    #[inline]
    fn grant(&self) -> Option<Grant> {
        self.0.as_ref().and_then(|parts| parts.2)
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

/// A part of a stream on its way to its consumer.
pub(crate) struct Flowing {
    pub(crate) id_at_caller: CallbackId,
    /// As [`Replied::id_at_provider`].
    pub(crate) id_at_provider: CallbackId,
    pub(crate) part: Part,
}

/// A part of a stream.
pub(crate) enum Part {
    /// The stream begins.
    Start,
    Item(Payload),
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
    /// What belongs to streams; none while there is nothing.
    pub(crate) streams: Option<Box<OutgoingStreams<P, M>>>,
}

/// The parts of streams, and the grants, that come of one block of frames. Parts leave before replies, since a reply ends a stream.
pub(crate) struct OutgoingStreams<P, M> {
    pub(crate) parts: Bundles<CallerHere<M>, Flowing>,
    pub(crate) grants: Bundles<P, Granted>,
}

impl<P, M> Default for OutgoingStreams<P, M> {
    fn default() -> Self {
        Self { parts: Vec::new(), grants: Vec::new() }
    }
}

impl<P, M> Default for Outgoing<P, M> {
    fn default() -> Self {
        Self { forwards: Vec::new(), replies: Vec::new(), cancels: Vec::new(), streams: None }
    }
}

impl Forwarded {
    /// Whether the caller waits for no outcome.
    pub(crate) fn is_notification(&self) -> bool {
        self.target.is_notification()
    }

    /// What the consumer grants at first, if the target answers with a stream.
    #[inline]
    pub(crate) fn grant(&self) -> Option<Grant> {
        match self.target {
            Target::Action(_) => self.beside.grant(),
            Target::Function(_, Wants::Stream(grant)) => Some(grant),
            Target::Function(..) => None,
        }
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

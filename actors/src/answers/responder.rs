//! Responders: the user code that answers requests at a node. A responder may take its time, fail or panic, and none of that may reach
//! the actor that runs it.

use super::cause::{Cancels, Cause};
use super::hops::Answered;
use super::outlet::Outlet;
use super::restarts::Restarted;
use crate::link::gathered::GatheredReplies;
use futures::future::LocalBoxFuture;
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, EncodeError, Encoding, Fate, Form, Headers, Outcome, Payload,
    PayloadRef,
};
use serde::Serialize;
use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Answers the requests for one action. A responder is called on the arbiter of the session or branch that the request came in on, and
/// its future stays there; so the responder is `Send + Sync`, and the future need not be `Send`.
pub trait Responder: Send + Sync + 'static {
    /// Answers one request: at once, or with a future, which is dropped when the caller gives up. Call
    /// [`poll_once`](super::poll_once::poll_once) on a future: it may be ready at once.
    fn respond(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, reply: Replier<'_>) -> Answer;

    /// Answers a request for a stream: the future writes the items to the outlet, and its outcome ends the stream. An action that answers with one
    /// value refuses.
    fn stream(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, outlet: Outlet) -> Answer {
        let _ = (arguments, outlet);
        let what = format!("{:?} answers with one value, and not with a stream: call it", context.action());
        Answer::Now(Err(CallError::new(Code::CANNOT_DECODE, Fate::NotSent, what)))
    }

    /// Whether the actor that answers is running; none if no actor answers. An action whose actor has stopped is withdrawn.
    fn is_running(&self) -> Option<bool> {
        None
    }

    /// The actor that answers, if it is started again when it panics: the node shows it in its snapshots.
    fn restarted(&self) -> Option<&Arc<Restarted>> {
        None
    }
}

/// The answer of a responder.
pub enum Answer {
    /// The reply that it wrote through [`Replier::say`].
    Said,
    /// This outcome, at once.
    Now(Outcome),
    /// The outcome of this future, when it is ready.
    Later(LocalBoxFuture<'static, Outcome>),
    /// The outcome of this work, which may block its thread.
    Blocking(Work),
}

/// Work that may block its thread, or takes long to compute: it runs on a thread of its own, when it is its turn.
pub type Work = Box<dyn FnOnce() -> Outcome + Send>;

/// The error of a responder that claims an answer that it did not give.
pub(crate) fn claimed() -> CallError {
    CallError::new(Code::UNKNOWN, Fate::Failed, "the responder claims an answer that it did not give")
}

/// Writes the reply of a responder that answers at once. A request is answered once: what a responder answers after it has said its reply is
/// dropped, with an error in the log.
pub struct Replier<'a> {
    callback_id: CallbackId,
    /// Whether the reply has been written.
    said: &'a Cell<bool>,
    /// None where small replies are not gathered.
    gathered: Option<&'a GatheredReplies>,
}

impl<'a> Replier<'a> {
    pub(crate) fn new(
        callback_id: CallbackId,
        said: &'a Cell<bool>,
        gathered: Option<&'a GatheredReplies>,
    ) -> Self {
        Self { callback_id, said, gathered }
    }

    /// Answers with this value. A small reply costs no allocation where the small replies of a block are gathered.
    #[inline]
    pub fn say<T: Serialize + ?Sized>(self, form: impl Into<Form>, value: &T) -> Answer {
        let form = form.into();
        let written = match self.gathered {
            Some(gathered) => Payload::encode_unless_small(form, value, |bytes| {
                gathered.push_small(self.callback_id, form.encoding(), bytes);
            }),
            None => Payload::encode(form, value).map(Some),
        };
        match written {
            Ok(None) => {
                self.said.set(true);
                Answer::Said
            }
            Ok(Some(payload)) => Answer::Now(Ok(payload)),
            Err(error) => Answer::Now(reply_instead(form, value, error)),
        }
    }
}

/// The error of a reply that could not be written. The action ran, so the fate must not be *not sent*.
fn not_written(error: EncodeError) -> CallError {
    CallError::from(error).with_fate(Fate::Failed)
}

/// Writes a reply in MessagePack that bincode has no form for.
#[cold]
#[inline(never)]
fn reply_instead<T: Serialize + ?Sized>(form: Form, value: &T, error: EncodeError) -> Outcome {
    if form.encoding() != Encoding::Bincode {
        return Err(not_written(error));
    }
    Payload::encode(Encoding::MessagePack, value).map_err(not_written)
}

/// Writes a reply as a payload; in MessagePack if bincode has no form for the value.
///
/// # Errors
///
/// When the encoding has no form for the value.
pub fn reply<T: Serialize + ?Sized>(form: impl Into<Form>, value: &T) -> Outcome {
    let form = form.into();
    Payload::encode(form, value).or_else(|error| reply_instead(form, value, error))
}

/// The context of a request, for its responder: action, caller and deadline.
#[derive(Clone, Debug)]
pub struct CallContext {
    action: ByteString,
    caller: ByteString,
    deadline: Option<Instant>,
    /// As [`Request::hops`](meshwork_wire::Request::hops).
    hops: u8,
    headers: Headers,
}

/// The context of the requests of a run, which came over no hops and without headers. Apart, since a session keeps one, and an idle session is to be small.
pub(crate) struct RunContext {
    action: ByteString,
    caller: ByteString,
    deadline: Option<Instant>,
}

impl From<CallContext> for RunContext {
    fn from(CallContext { action, caller, deadline, .. }: CallContext) -> Self {
        Self { action, caller, deadline }
    }
}

impl RunContext {
    pub(crate) fn into_context(self) -> CallContext {
        let Self { action, caller, deadline } = self;
        CallContext { action, caller, deadline, hops: 0, headers: Headers::none() }
    }
}

impl CallContext {
    pub(crate) fn new(
        action: ByteString,
        caller: ByteString,
        deadline: Option<Instant>,
        hops: u8,
        headers: Headers,
    ) -> Self {
        Self { action, caller, deadline, hops, headers }
    }

    /// The context of a call that came over no link: the caller waits so long, or for ever.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    #[must_use]
    pub fn by_hand(
        action: ByteString,
        caller: ByteString,
        within: Option<Duration>,
        headers: Headers,
    ) -> Self {
        Self::new(action, caller, within.and_then(|within| Instant::now().checked_add(within)), 0, headers)
    }

    pub(crate) fn caller_name(&self) -> &ByteString {
        &self.caller
    }

    pub(crate) fn hops(&self) -> u8 {
        self.hops
    }

    /// The action that the request is for.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The name of the node whose code made the call.
    #[must_use]
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// The headers of the request.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The value of a header of the request, if the caller set it. Upper and lower case of the name are one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The key of a call that is [idempotent](Headers::IDEMPOTENCY_KEY), which all attempts at it have; `None` if the call is not.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&str> {
        self.headers.get(Headers::IDEMPOTENCY_KEY)
    }

    /// The moment when the caller stops waiting; `None` if it never does.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller still waits, to pass on to calls that are made on its behalf. `None` if it waits for ever.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// The node that answers a request, as it is handed on to the responder: this floor does not know its type.
pub type NodeHandle = Arc<dyn Any + Send + Sync>;

/// The context of a request as its responder gets it, with the node that answers it. A responder that takes none of it along costs nothing.
pub struct ContextRef<'a> {
    context: &'a CallContext,
    node: Option<&'a NodeHandle>,
    answered: Option<Answered>,
    /// Whether a stream is asked for: its deadline is that of its start, and ends no call that is made for it later.
    is_stream: bool,
    /// Made when the context is taken along.
    cause: OnceCell<Arc<Cause>>,
}

impl<'a> ContextRef<'a> {
    #[inline(always)]
    pub(crate) fn new(
        context: &'a CallContext,
        node: &'a NodeHandle,
        answered: Answered,
        is_stream: bool,
    ) -> Self {
        let (node, answered) = (Some(node), Some(answered));
        Self { context, node, answered, is_stream, cause: OnceCell::new() }
    }

    /// The context of a request whose responder is asked in place of another one, which has taken it along.
    #[must_use]
    pub fn taken(context: &'a CallContext, node: Option<&'a NodeHandle>, cause: Arc<Cause>) -> Self {
        Self { context, node, answered: None, is_stream: false, cause: OnceCell::from(cause) }
    }

    /// The node that answers the request; none if it came to no node.
    #[must_use]
    pub fn node(&self) -> Option<&'a NodeHandle> {
        self.node
    }

    /// What the calls that are made for the request know of it. Costs an allocation when it is first asked for.
    #[must_use]
    pub fn cause(&self) -> &Arc<Cause> {
        self.cause.get_or_init(|| {
            let until = self.context.deadline.filter(|_| !self.is_stream);
            Cause::new(self.answered, until)
        })
    }

    /// Cancels what is called for the request, unless the request has its outcome before. Nothing is, if the responder took no context along.
    pub(crate) fn cancels(&self) -> Cancels {
        Cancels::of(self.cause.get().cloned())
    }
}

impl Deref for ContextRef<'_> {
    type Target = CallContext;

    #[inline(always)]
    fn deref(&self) -> &CallContext {
        self.context
    }
}

//! Answering actions: with a closure, with an actor, or with a set of responders at once.
//!
//! Which one? A closure when the action needs no state or only shared state; [`Respond::respond_blocking`] when it computes for more than a
//! millisecond, or calls what blocks its thread; [`Respond::respond_with`] when an actor should
//! handle its requests one after the other, with its own state; `#[meshwork::actions]` when callers and responders share a
//! trait. One node may use all of them.

use crate::action_error::ActionError;
use crate::context::CallContext;
use crate::record::{Record, read_record};
use crate::restart::RestartingRecipient;
use crate::streaming::{Streaming, form_by_name, produce};
use actix::{Message, Recipient};
use futures::TryFutureExt;
use futures::stream::Stream;
use log::Level;
use meshwork_actors::answers::{
    self, Action, Actions, Answer, ContextRef, Outlet, Replier, Responder, Restarted, poll_once,
};
use meshwork_actors::branch::BranchActor;
use meshwork_actors::log_line;
use meshwork_actors::master::MasterActor;
use meshwork_actors::node::ConfigureNode;
use meshwork_actors::repeated::Line;
use meshwork_wire::limits::SHAPE_LEN_MAX;
use meshwork_wire::{
    Accepts, ByteString, CallError, Code, Encoding, Fate, Form, Offer, Payload, PayloadRef, Shape,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A closure that answers an action: `|arguments| async { Ok(reply) }`, or `|arguments, context| async { Ok(reply) }` with a
/// [`CallContext`], which knows the caller and the deadline.
///
/// The arguments are one serde value: a tuple or a struct reads a caller's tuple, struct or list. The closure may be called from
/// several threads; its future stays on the thread that made it, so it need not be `Send`. The future is dropped at an `await`
/// when the caller cancels; a panic in it fails that call only. `Form` is inferred.
#[diagnostic::on_unimplemented(
    message = "this cannot answer an action",
    label = "not `|arguments| async move {{ Ok(reply) }}`, nor `|arguments, context: CallContext| async move {{ Ok(reply) }}`",
    note = "the arguments are one value, a tuple if there are several: `|(a, b): (i64, i64)| async move {{ .. }}`",
    note = "the future ends with a `Result<_, ActionError>`: write `Ok(..)` around the reply; `?` makes an `ActionError` of another error",
    note = "the type of the arguments has `Deserialize`, that of the reply `Serialize`, and neither borrows",
    note = "the closure is `Fn + Send + Sync + 'static`: it moves clones of what it uses into each future"
)]
pub trait IntoResponder<Form>: Send + Sync + 'static {
    /// The responder that the actors call.
    #[doc(hidden)]
    fn into_responder(self) -> Arc<dyn Responder>;
}

impl<F, A, Fut, R> IntoResponder<fn(A) -> R> for F
where
    F: Fn(A) -> Fut + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    Fut: Future<Output = Result<R, ActionError>> + 'static,
    R: Serialize + 'static,
{
    fn into_responder(self) -> Arc<dyn Responder> {
        Arc::new(Closure::new(move |arguments, _: &ContextRef<'_>| self(arguments)))
    }
}

impl<F, A, Fut, R> IntoResponder<fn(A, CallContext) -> R> for F
where
    F: Fn(A, CallContext) -> Fut + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    Fut: Future<Output = Result<R, ActionError>> + 'static,
    R: Serialize + 'static,
{
    fn into_responder(self) -> Arc<dyn Responder> {
        Arc::new(Closure::new(move |arguments, context: &ContextRef<'_>| {
            self(arguments, CallContext::taken(context))
        }))
    }
}

/// A closure that answers an action where it may block its thread, or takes long to compute: `|arguments| Ok(reply)`, or
/// `|arguments, context| Ok(reply)` with a [`CallContext`].
///
/// It is a plain closure, without a future: see [`Respond::respond_blocking`]. `Form` is inferred.
#[diagnostic::on_unimplemented(
    message = "this cannot answer an action where it may block",
    label = "not `|arguments| Ok(reply)`, nor `|arguments, context: CallContext| Ok(reply)`",
    note = "a blocking responder is no future: without `async`, it gives a `Result<_, ActionError>`; `?` makes an `ActionError` of another error",
    note = "the arguments are one value, a tuple if there are several: `|(a, b): (i64, i64)| ..`",
    note = "the type of the arguments has `Deserialize`, that of the reply `Serialize`, and neither borrows",
    note = "the closure is `Fn + Send + Sync + 'static`"
)]
pub trait IntoBlockingResponder<Form>: Send + Sync + 'static {
    /// The responder that the actors call.
    #[doc(hidden)]
    fn into_blocking_responder(self) -> Arc<dyn Responder>;
}

impl<F, A, R> IntoBlockingResponder<fn(A) -> R> for F
where
    F: Fn(A) -> Result<R, ActionError> + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    fn into_blocking_responder(self) -> Arc<dyn Responder> {
        Arc::new(BlockingClosure::new(move |arguments, _: &CallContext| self(arguments)))
    }
}

impl<F, A, R> IntoBlockingResponder<fn(A, CallContext) -> R> for F
where
    F: Fn(A, CallContext) -> Result<R, ActionError> + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    fn into_blocking_responder(self) -> Arc<dyn Responder> {
        Arc::new(BlockingClosure::new(move |arguments, context: &CallContext| {
            self(arguments, context.clone())
        }))
    }
}

/// A closure that answers an action on a thread of its own. It reads the arguments and writes the reply there, so neither need be `Send`.
struct BlockingClosure<F, A> {
    answer: Arc<F>,
    takes: PhantomData<fn(A)>,
}

impl<F, A> BlockingClosure<F, A> {
    fn new(answer: F) -> Self {
        Self { answer: Arc::new(answer), takes: PhantomData }
    }
}

impl<F, A, R> Responder for BlockingClosure<F, A>
where
    F: Fn(A, &CallContext) -> Result<R, ActionError> + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    fn respond(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, _: Replier<'_>) -> Answer {
        let (answer, arguments) = (Arc::clone(&self.answer), owned(arguments));
        let context = CallContext::taken(context);
        Answer::Blocking(Box::new(move || {
            let encoding = arguments.encoding;
            let read = by_name((&arguments).into())?;
            // Long arguments are not held while the closure works on what was read from them.
            drop(arguments);
            answers::reply(encoding, &answer(read, &context)?)
        }))
    }
}

/// A closure that answers a method of a trait on a thread of its own.
struct TypedBlockingClosure<F, A> {
    answer: Arc<F>,
    takes: PhantomData<fn(A)>,
}

impl<F, A> Responder for TypedBlockingClosure<F, A>
where
    F: Fn(A, &CallContext) -> Result<A::Reply, ActionError> + Send + Sync + 'static,
    A: Record<Reply: Serialize>,
{
    fn respond(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, _: Replier<'_>) -> Answer {
        let (answer, arguments) = (Arc::clone(&self.answer), owned(arguments));
        let context = CallContext::taken(context);
        Answer::Blocking(Box::new(move || {
            let (read, form) = read_typed::<A>((&arguments).into());
            drop(arguments);
            answers::reply(form, &answer(read?, &context)?)
        }))
    }
}

/// The arguments as a value of their own.
fn owned(PayloadRef { encoding, bytes, callbacks }: PayloadRef<'_>) -> Payload {
    Payload { callbacks: callbacks.clone(), ..Payload::new(encoding, bytes.to_vec()) }
}

/// A closure that answers an action, and the type of its arguments.
struct Closure<F, A> {
    answer: F,
    takes: PhantomData<fn(A)>,
}

impl<F, A> Closure<F, A> {
    fn new(answer: F) -> Self {
        Self { answer, takes: PhantomData }
    }
}

impl<F, A, Fut, R> Responder for Closure<F, A>
where
    F: Fn(A, &ContextRef<'_>) -> Fut + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    Fut: Future<Output = Result<R, ActionError>> + 'static,
    R: Serialize + 'static,
{
    fn respond(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, reply: Replier<'_>) -> Answer {
        let encoding = arguments.encoding;
        let answer = match by_name(arguments) {
            Ok(arguments) => (self.answer)(arguments, context),
            Err(error) => return Answer::Now(Err(error)),
        };
        match poll_once(answer, move |answer| answers::reply(encoding, &answer?)) {
            Ok(Ok(answer)) => reply.say(encoding, &answer),
            Ok(Err(error)) => Answer::Now(Err(error.into())),
            Err(later) => Answer::Later(later),
        }
    }
}

/// A closure that answers an action with a stream: `|arguments| async { Ok(stream) }`, or `|arguments, context| async { Ok(stream) }`. The stream is a
/// [`Streaming`](crate::Streaming), or any stream of results whose error an [`ActionError`] is made from. What is said at [`IntoResponder`] holds
/// here too; the stream stays on the thread of the closure, and need not be `Send` if it is no `Streaming`.
#[diagnostic::on_unimplemented(
    message = "this cannot answer an action with a stream",
    label = "not `|arguments| async move {{ Ok(stream) }}`, nor `|arguments, context: CallContext| async move {{ Ok(stream) }}`",
    note = "the future ends with a `Result<_, ActionError>`: write `Ok(Streaming::new(..))`; `?` makes an `ActionError` of another error",
    note = "the arguments are one value, a tuple if there are several: `|(a, b): (i64, i64)| async move {{ .. }}`",
    note = "the type of the arguments has `Deserialize`, that of the items `Serialize`, and neither borrows",
    note = "the closure is `Fn + Send + Sync + 'static`: it moves clones of what it uses into each future"
)]
pub trait IntoStreamResponder<Form>: Send + Sync + 'static {
    /// The responder that the actors call.
    #[doc(hidden)]
    fn into_responder(self) -> Arc<dyn Responder>;
}

impl<F, A, Fut, S, T, E> IntoStreamResponder<fn(A) -> S> for F
where
    F: Fn(A) -> Fut + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    Fut: Future<Output = Result<S, ActionError>> + 'static,
    S: Stream<Item = Result<T, E>> + 'static,
    T: Serialize + 'static,
    E: Into<ActionError> + 'static,
{
    fn into_responder(self) -> Arc<dyn Responder> {
        Arc::new(StreamClosure {
            answer: move |arguments, _: &ContextRef<'_>| self(arguments),
            takes: PhantomData,
        })
    }
}

impl<F, A, Fut, S, T, E> IntoStreamResponder<fn(A, CallContext) -> S> for F
where
    F: Fn(A, CallContext) -> Fut + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    Fut: Future<Output = Result<S, ActionError>> + 'static,
    S: Stream<Item = Result<T, E>> + 'static,
    T: Serialize + 'static,
    E: Into<ActionError> + 'static,
{
    fn into_responder(self) -> Arc<dyn Responder> {
        let answer = move |arguments, context: &ContextRef<'_>| self(arguments, CallContext::taken(context));
        Arc::new(StreamClosure { answer, takes: PhantomData })
    }
}

/// A closure that answers an action with a stream.
struct StreamClosure<F, A> {
    answer: F,
    takes: PhantomData<fn(A)>,
}

impl<F, A, Fut, S, T, E> Responder for StreamClosure<F, A>
where
    F: Fn(A, &ContextRef<'_>) -> Fut + Send + Sync + 'static,
    A: DeserializeOwned + 'static,
    Fut: Future<Output = Result<S, ActionError>> + 'static,
    S: Stream<Item = Result<T, E>> + 'static,
    T: Serialize + 'static,
    E: Into<ActionError> + 'static,
{
    fn respond(&self, _: PayloadRef<'_>, context: &ContextRef<'_>, _: Replier<'_>) -> Answer {
        Answer::Now(Err(is_a_stream(context)))
    }

    fn stream(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, outlet: Outlet) -> Answer {
        let form = form_by_name(arguments.encoding);
        match by_name(arguments) {
            Ok(arguments) => answer_with_stream((self.answer)(arguments, context), form, outlet),
            Err(error) => Answer::Now(Err(error)),
        }
    }
}

/// Answers with the stream that comes of this future.
fn answer_with_stream<S, T, E>(
    answer: impl Future<Output = Result<S, ActionError>> + 'static,
    form: Form,
    outlet: Outlet,
) -> Answer
where
    S: Stream<Item = Result<T, E>> + 'static,
    T: Serialize + 'static,
    E: Into<ActionError> + 'static,
{
    Answer::Later(Box::pin(async move { produce(answer.await?, form, outlet).await }))
}

/// The error of a call of an action that answers with a stream. Nothing was run.
#[cold]
fn is_a_stream(context: &ContextRef<'_>) -> CallError {
    CallError::answers_with_stream(&format_args!("{:?}", context.action()))
}

/// Reads the arguments of an action without a signature.
#[inline]
fn by_name<A: DeserializeOwned>(arguments: PayloadRef<'_>) -> Result<A, CallError> {
    match arguments.encoding {
        Encoding::Bincode => Err(other_signature()),
        _ => Ok(arguments.decode_record_or_list()?),
    }
}

/// The error of arguments in bincode for a responder without the signature of their caller, which knew another provider. Nothing was
/// read, so another provider may run the request, or the caller may call again.
#[cold]
fn other_signature() -> CallError {
    let what = "the caller wrote the arguments in bincode for another signature: call again, or build both ends with the same trait";
    CallError::new(Code::CANNOT_DECODE, Fate::NotSent, what)
}

/// A closure that answers a method of a trait.
struct TypedClosure<F, A> {
    answer: F,
    takes: PhantomData<fn(A)>,
}

impl<F, A, Fut> Responder for TypedClosure<F, A>
where
    F: Fn(A, &ContextRef<'_>) -> Fut + Send + Sync + 'static,
    A: Record<Reply: Serialize>,
    Fut: Future<Output = Result<A::Reply, ActionError>> + 'static,
{
    fn respond(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, reply: Replier<'_>) -> Answer {
        let (read, form) = read_typed(arguments);
        let answer = match read {
            Ok(arguments) => (self.answer)(arguments, context),
            Err(error) => return Answer::Now(Err(error)),
        };
        match poll_once(answer, move |answer| answers::reply(form, &answer?)) {
            Ok(Ok(answer)) => reply.say(form, &answer),
            Ok(Err(error)) => Answer::Now(Err(error.into())),
            Err(later) => Answer::Later(later),
        }
    }
}

/// Reads the arguments of a method of a trait; gives also how its reply is written.
#[inline(always)]
fn read_typed<A: Record>(arguments: PayloadRef<'_>) -> (Result<A, CallError>, Form) {
    match (arguments.encoding, A::method().signature()) {
        (Encoding::Bincode, Some(signature)) => {
            let read = arguments.decode_with(Form::arguments(signature));
            // The check says that this caller has other types: nothing was run.
            let read = read.map_err(|error| CallError::from(error).with_fate(Fate::NotSent));
            (read, Form::reply(signature))
        }
        (Encoding::Bincode, None) => (Err(other_signature()), Encoding::MessagePack.into()),
        (encoding, _) => (read_record(arguments).map_err(CallError::from), encoding.into()),
    }
}

/// A closure that answers a method of a trait with a stream.
struct TypedStreamClosure<F, A> {
    answer: F,
    takes: PhantomData<fn(A)>,
}

impl<F, A, Fut> Responder for TypedStreamClosure<F, A>
where
    F: Fn(A, &ContextRef<'_>) -> Fut + Send + Sync + 'static,
    A: Record<Reply: Serialize>,
    Fut: Future<Output = Result<Streaming<A::Reply>, ActionError>> + 'static,
{
    fn respond(&self, _: PayloadRef<'_>, context: &ContextRef<'_>, _: Replier<'_>) -> Answer {
        Answer::Now(Err(is_a_stream(context)))
    }

    fn stream(&self, arguments: PayloadRef<'_>, context: &ContextRef<'_>, outlet: Outlet) -> Answer {
        let (read, form) = read_typed::<A>(arguments);
        match read {
            Ok(arguments) => answer_with_stream((self.answer)(arguments, context), form, outlet),
            Err(error) => Answer::Now(Err(error)),
        }
    }
}

/// An actor that answers an action.
struct ByActor<M>(Recipient<M>)
where
    M: Message + Send + 'static,
    M::Result: Send;

impl<M, R, E> Responder for ByActor<M>
where
    M: Message<Result = Result<R, E>> + DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
    E: Into<ActionError> + Send + 'static,
{
    fn respond(&self, arguments: PayloadRef<'_>, _: &ContextRef<'_>, _: Replier<'_>) -> Answer {
        let encoding = arguments.encoding;
        let message: M = match by_name(arguments) {
            Ok(message) => message,
            Err(error) => return Answer::Now(Err(error)),
        };
        if !self.0.connected() {
            return Answer::Now(Err(stopped(Fate::NotSent)));
        }
        // The message stood in the mailbox, or was being handled.
        answer_later(encoding, self.0.send(message).map_err(|_| stopped(Fate::Unknown)))
    }

    fn is_running(&self) -> Option<bool> {
        Some(self.0.connected())
    }
}

/// The answer of an actor, when it comes.
fn answer_later<R, E>(
    encoding: Encoding,
    asking: impl Future<Output = Result<Result<R, E>, CallError>> + 'static,
) -> Answer
where
    R: Serialize,
    E: Into<ActionError>,
{
    Answer::Later(Box::pin(async move {
        let answer = asking.await?;
        answers::reply(encoding, &answer.map_err(Into::<ActionError>::into)?)
    }))
}

/// An actor that answers an action, and is started again when it panics.
struct ByRestarting<M>(RestartingRecipient<M>)
where
    M: Message + Send + 'static,
    M::Result: Send;

impl<M, R, E> Responder for ByRestarting<M>
where
    M: Message<Result = Result<R, E>> + DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
    E: Into<ActionError> + Send + 'static,
{
    fn respond(&self, arguments: PayloadRef<'_>, _: &ContextRef<'_>, _: Replier<'_>) -> Answer {
        let encoding = arguments.encoding;
        let message: M = match by_name(arguments) {
            Ok(message) => message,
            Err(error) => return Answer::Now(Err(error)),
        };
        answer_later(encoding, self.0.ask(message))
    }

    fn is_running(&self) -> Option<bool> {
        Some(self.0.is_running())
    }

    fn restarted(&self) -> Option<&Arc<Restarted>> {
        Some(self.0.restarted())
    }
}

/// The error of a request whose actor has stopped: before the request came, or while the request stood in its mailbox or was being handled.
fn stopped(fate: Fate) -> CallError {
    CallError::new(Code::PROVIDER_LOST, fate, "the actor that answers the action has stopped")
}

impl ActionError {
    /// The error of a call of a callback whose actor has stopped.
    pub(crate) fn callback_stopped(fate: Fate) -> Self {
        Self(CallError::new(Code::CALLBACK_GONE, fate, "the actor behind the callback has stopped"))
    }
}

/// A set of actions with their responders, registered together: see [`Respond::respond_all`].
#[derive(Clone, Default)]
pub struct Responders(Actions, #[cfg(feature = "tower")] Layers);

/// The layers around the responders of a set, in the order in which requests meet them, each around all actions or around one.
#[cfg(feature = "tower")]
type Layers = Vec<(Option<ByteString>, PutLayer)>;

/// Puts a layer around a responder.
#[cfg(feature = "tower")]
type PutLayer = Arc<dyn Fn(Arc<dyn Responder>) -> Arc<dyn Responder> + Send + Sync>;

impl Responders {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an action that a closure answers: see [`IntoResponder`].
    ///
    /// # Panics
    ///
    /// When the name is empty, longer than 255 bytes, holds a control character, or is in the set already, or when the
    /// set has 131,072 actions: mistakes in the program.
    #[must_use]
    pub fn respond<Form>(self, action: impl Into<ByteString>, responder: impl IntoResponder<Form>) -> Self {
        self.add(action.into(), Accepts::MessagePack, responder.into_responder())
    }

    /// Adds an action that a closure answers where it may block its thread, or takes long to compute: see [`Respond::respond_blocking`].
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`].
    #[must_use]
    pub fn respond_blocking<Form>(
        self,
        action: impl Into<ByteString>,
        responder: impl IntoBlockingResponder<Form>,
    ) -> Self {
        self.add(action.into(), Accepts::MessagePack, responder.into_blocking_responder())
    }

    /// Adds an action that a closure answers with a stream: see [`IntoStreamResponder`]. Callers read it with [`Node::stream`](crate::Node::stream);
    /// a plain call of it is refused.
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`].
    #[must_use]
    pub fn respond_stream<Form>(
        self,
        action: impl Into<ByteString>,
        responder: impl IntoStreamResponder<Form>,
    ) -> Self {
        self.add(action.into(), Accepts::MessagePack, responder.into_responder())
    }

    /// Adds an action that an actor answers, by a message whose result is a `Result<_, ActionError>`, or one with an error that an
    /// [`ActionError`] is made from. Requests wait in the mailbox
    /// of the actor, bounded by the requests that may be in flight on each connection; [`Responders::permits`] sets a lower bound.
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`].
    #[must_use]
    pub fn respond_with<M, R, E>(self, action: impl Into<ByteString>, recipient: Recipient<M>) -> Self
    where
        M: Message<Result = Result<R, E>> + DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        E: Into<ActionError> + Send + 'static,
    {
        self.add(action.into(), Accepts::MessagePack, Arc::new(ByActor(recipient)))
    }

    /// As [`Responders::respond_with`], by an actor that is started again when it panics: see [`Restarting`](crate::Restarting).
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`].
    #[must_use]
    pub fn respond_restarting<M, R, E>(
        self,
        action: impl Into<ByteString>,
        recipient: RestartingRecipient<M>,
    ) -> Self
    where
        M: Message<Result = Result<R, E>> + DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        E: Into<ActionError> + Send + 'static,
    {
        self.add(action.into(), Accepts::MessagePack, Arc::new(ByRestarting(recipient)))
    }

    /// [`Responders::respond`], under the name that it had when some arguments travelled without the names of their fields: a closure may
    /// take a `serde_json::Value`, or any other type that asks what the arguments are.
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`].
    #[must_use]
    pub fn respond_self_describing<Form>(
        self,
        action: impl Into<ByteString>,
        responder: impl IntoResponder<Form>,
    ) -> Self {
        self.respond(action, responder)
    }

    /// Answers at most `max` requests for an action of the set at once. A request above that goes to another provider that has room;
    /// if there is none, it fails at once with `OVERLOADED`, not sent. Default: no bound but that on the requests in flight on each
    /// connection.
    ///
    /// # Panics
    ///
    /// When the action is not in the set.
    #[must_use]
    pub fn permits(self, action: &str, max: usize) -> Self {
        self.permits_with_queue(action, max, 0)
    }

    /// As [`Responders::permits`], but up to `queue_max` requests above `max` wait here for a permit, each within its deadline. The requests of a
    /// caller get permits in the order in which they came, and callers take turns; one caller has eight ninths of the queue at most. Requests
    /// that wait are not read yet, and their bytes are bounded by [`Limits::answering_len_max`](crate::Limits). Only requests above these bounds
    /// go to another provider.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// let responders = Responders::new()
    ///     .respond("image/scale", |name: String| async move { Ok(name) })
    ///     .permits_with_queue("image/scale", 4, 100);
    /// ```
    ///
    /// # Panics
    ///
    /// When the action is not in the set.
    #[must_use]
    pub fn permits_with_queue(mut self, action: &str, max: usize, queue_max: usize) -> Self {
        let there = self.take(action).with_permits(max, queue_max);
        self.put(there)
    }

    /// Sets the shape of an action of the set, the schemas of its arguments and reply, for `describe`. `None`: no shape. A shape of more than
    /// [`SHAPE_LEN_MAX`](crate::limits::SHAPE_LEN_MAX) bytes, which no master takes, is left out, with a warning in the log.
    ///
    /// # Panics
    ///
    /// When the action is not in the set.
    #[must_use]
    pub fn shape(mut self, action: &str, shape: Option<Shape>) -> Self {
        let mut there = self.take(action);
        there.offer.shape = shape.filter(|shape| {
            let fits = shape.len() <= SHAPE_LEN_MAX;
            if !fits {
                let len = shape.len();
                log_line!(
                    Line::own(Level::Warn),
                    "the shape of {action:?} is left out: it has {len} bytes, and {SHAPE_LEN_MAX} is the most"
                );
            }
            fits
        });
        self.put(there)
    }

    /// Derives the shape of an action of the set from the types of its arguments and reply.
    ///
    /// # Panics
    ///
    /// When the action is not in the set.
    #[cfg(feature = "schema")]
    #[must_use]
    pub fn described<A: schemars::JsonSchema, R: schemars::JsonSchema>(self, action: &str) -> Self {
        self.shape(action, crate::shape::shape_of_types::<A, R>())
    }

    /// How many actions are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no action is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(not(feature = "tower"))]
    pub(crate) fn into_actions(self) -> Actions {
        self.0
    }

    #[cfg(feature = "tower")]
    pub(crate) fn into_actions(self) -> Actions {
        let Self(actions, layers) = self;
        if layers.is_empty() {
            return actions;
        }
        let layered = actions.into_iter().map(|mut action| {
            let name = &action.offer.action;
            let its = layers.iter().rev().filter(|(of, _)| of.as_ref().is_none_or(|of| of == name));
            action.responder = its.fold(action.responder, |inner, (_, layer)| layer(inner));
            action
        });
        layered.fold(Self::new(), Self::put).0
    }

    /// Adds a layer around the responders of the set, or around that of one action.
    #[cfg(feature = "tower")]
    pub(crate) fn with_layer(mut self, action: Option<ByteString>, layer: PutLayer) -> Self {
        self.1.push((action, layer));
        self
    }

    #[cfg(feature = "tower")]
    pub(crate) fn has(&self, action: &str) -> bool {
        self.0.get(action).is_some()
    }

    /// Adds a method of a trait.
    pub(crate) fn respond_typed<A, F, Fut>(self, answer: F) -> Self
    where
        F: Fn(A, &ContextRef<'_>) -> Fut + Send + Sync + 'static,
        A: Record<Reply: Serialize>,
        Fut: Future<Output = Result<A::Reply, ActionError>> + 'static,
    {
        let method = A::method();
        let accepts = method.signature().map_or(Accepts::MessagePack, Accepts::Typed);
        let action = ByteString::from_static(method.action());
        self.add(action, accepts, Arc::new(TypedClosure { answer, takes: PhantomData }))
    }

    /// Adds a method of a trait that may block its thread.
    pub(crate) fn respond_typed_blocking<A, F>(self, answer: F) -> Self
    where
        F: Fn(A, &CallContext) -> Result<A::Reply, ActionError> + Send + Sync + 'static,
        A: Record<Reply: Serialize>,
    {
        let method = A::method();
        let accepts = method.signature().map_or(Accepts::MessagePack, Accepts::Typed);
        let action = ByteString::from_static(method.action());
        let answer = TypedBlockingClosure { answer: Arc::new(answer), takes: PhantomData };
        self.add(action, accepts, Arc::new(answer))
    }

    /// Adds a method of a trait that answers with a stream.
    pub(crate) fn respond_stream_typed<A, F, Fut>(self, answer: F) -> Self
    where
        F: Fn(A, &ContextRef<'_>) -> Fut + Send + Sync + 'static,
        A: Record<Reply: Serialize>,
        Fut: Future<Output = Result<Streaming<A::Reply>, ActionError>> + 'static,
    {
        let method = A::method();
        let accepts = method.signature().map_or(Accepts::MessagePack, Accepts::Typed);
        let action = ByteString::from_static(method.action());
        self.add(action, accepts, Arc::new(TypedStreamClosure { answer, takes: PhantomData }))
    }

    fn add(self, action: ByteString, accepts: Accepts, responder: Arc<dyn Responder>) -> Self {
        self.put(Action::new(Offer { action, accepts, shape: None }, responder))
    }

    fn put(mut self, action: Action) -> Self {
        if let Err(refused) = self.0.insert(action) {
            panic!("{refused}");
        }
        self
    }

    fn take(&mut self, action: &str) -> Action {
        self.0.remove(action).unwrap_or_else(|| panic!("{action:?} is not in the set"))
    }
}

impl fmt::Debug for Responders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.offers().iter().map(|offer| offer.action.clone())).finish()
    }
}

/// Adds a method of a trait to a set.
pub fn respond_typed<A, F, Fut>(responders: Responders, answer: F) -> Responders
where
    F: Fn(A, &ContextRef<'_>) -> Fut + Send + Sync + 'static,
    A: Record,
    Fut: Future<Output = Result<A::Reply, ActionError>> + 'static,
{
    responders.respond_typed(answer)
}

/// Adds a method of a trait that may block its thread to a set.
pub fn respond_typed_blocking<A, F>(responders: Responders, answer: F) -> Responders
where
    F: Fn(A, &CallContext) -> Result<A::Reply, ActionError> + Send + Sync + 'static,
    A: Record,
{
    responders.respond_typed_blocking(answer)
}

/// Adds a method of a trait that answers with a stream to a set.
pub fn respond_stream_typed<A, F, Fut>(responders: Responders, answer: F) -> Responders
where
    F: Fn(A, &ContextRef<'_>) -> Fut + Send + Sync + 'static,
    A: Record,
    Fut: Future<Output = Result<Streaming<A::Reply>, ActionError>> + 'static,
{
    responders.respond_stream_typed(answer)
}

/// Gives a master or a branch its actions before it starts. For a node that runs, see [`Node::respond`](crate::Node::respond).
pub trait Respond: Sized {
    /// Answers all actions of a set.
    ///
    /// # Panics
    ///
    /// When one of the actions is answered already: a mistake in the program.
    #[must_use]
    fn respond_all(self, responders: Responders) -> Self;

    /// Answers an action with a closure: see [`IntoResponder`].
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`], and when the action is answered already.
    #[must_use]
    fn respond<Form>(self, action: impl Into<ByteString>, responder: impl IntoResponder<Form>) -> Self {
        self.respond_all(Responders::new().respond(action, responder))
    }

    /// Answers an action with a closure that blocks its thread or takes long to compute: see [`IntoBlockingResponder`]. It runs on a thread
    /// apart, so that the node goes on with heartbeats, replies and all other requests.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// let branch = BranchActor::new("files").respond_blocking("files/size", |name: String| Ok(std::fs::metadata(name)?.len()));
    /// ```
    ///
    /// The node does so many pieces of such work at once as there are processors, and eight if there are less
    /// ([`Limits::blocking_max`](crate::Limits::blocking_max)); 4,096 more requests wait
    /// ([`Limits::blocking_waiting_max`](crate::Limits::blocking_waiting_max)), whose callers take turns. One above that goes to another provider,
    /// or fails with `OVERLOADED`, not sent. [`Responders::permits`] bounds one action more closely.
    ///
    /// A request whose caller has gone, or whose deadline has passed, before its turn never runs. Work that has begun cannot be stopped: its caller
    /// may go, but the work keeps its place, and a drain waits for it; long work looks at [`CallContext::time_left`] now and then. A panic fails
    /// that call only. Each request costs some ten microseconds more than one that an async closure answers, for its way to another thread and back.
    ///
    /// A method of a trait is `#[action(blocking)] fn` in place of `async fn`: see [`macro@crate::actions`].
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`], and when the action is answered already.
    #[must_use]
    fn respond_blocking<Form>(
        self,
        action: impl Into<ByteString>,
        responder: impl IntoBlockingResponder<Form>,
    ) -> Self {
        self.respond_all(Responders::new().respond_blocking(action, responder))
    }

    /// Answers an action with a stream: see [`Responders::respond_stream`].
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`], and when the action is answered already.
    #[must_use]
    fn respond_stream<Form>(
        self,
        action: impl Into<ByteString>,
        responder: impl IntoStreamResponder<Form>,
    ) -> Self {
        self.respond_all(Responders::new().respond_stream(action, responder))
    }

    /// Answers an action with an actor: see [`Responders::respond_with`].
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`], and when the action is answered already.
    #[must_use]
    fn respond_with<M, R, E>(self, action: impl Into<ByteString>, recipient: Recipient<M>) -> Self
    where
        M: Message<Result = Result<R, E>> + DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        E: Into<ActionError> + Send + 'static,
    {
        self.respond_all(Responders::new().respond_with(action, recipient))
    }

    /// Answers an action with an actor that is started again when it panics: see [`Restarting`](crate::Restarting).
    ///
    /// # Panics
    ///
    /// As [`Responders::respond`], and when the action is answered already.
    #[must_use]
    fn respond_restarting<M, R, E>(
        self,
        action: impl Into<ByteString>,
        recipient: RestartingRecipient<M>,
    ) -> Self
    where
        M: Message<Result = Result<R, E>> + DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        E: Into<ActionError> + Send + 'static,
    {
        self.respond_all(Responders::new().respond_restarting(action, recipient))
    }
}

impl Respond for MasterActor {
    fn respond_all(self, responders: Responders) -> Self {
        responders.into_actions().into_iter().fold(self, MasterActor::action)
    }
}

impl Respond for BranchActor {
    fn respond_all(self, responders: Responders) -> Self {
        responders.into_actions().into_iter().fold(self, BranchActor::action)
    }
}

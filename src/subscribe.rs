//! Handling events. [`Node::subscribe`](crate::Node::subscribe) on a handle, or [`Subscribe`], [`Publish`] and [`Broadcast`]
//! as messages to the actors.
//!
//! `call` or `publish`? A call has one answer, and its caller learns the outcome. An event goes to all subscribers, to each at
//! most once, and its publisher learns only that its node took the event.

use crate::event::{Delivered, Event, Pending, PendingEvent, left_out};
use crate::event_queue::WhenFull;
use crate::handle::Node;
use crate::handler::{HandlerOptions, HandlerReturn, InTurn};
use crate::restart::RestartingRecipient;
use actix::{Handler, Message, Recipient, ResponseFuture};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use meshwork_actors::answers::Restarted;
use meshwork_actors::branch::BranchActor;
use meshwork_actors::events::{Deliver, Dropped, EventRef, SubscriberId};
use meshwork_actors::master::MasterActor;
use meshwork_actors::node::{NewEvent, Node as ActorNode, SubscribeTo};
use meshwork_actors::repeated::Repeated;
use meshwork_wire::{
    ByteString, CallError, Code, Encoding, Fate, Pattern, Payload, SubscriptionKey, check_group,
};
use serde::Serialize;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

/// A handler of events: a closure, or an actor that handles `Event<T>` (its `Recipient<Event<T>>`, or that of a
/// [`Restarting`](crate::Restarting)). `Form` is inferred.
///
/// | handler | handles |
/// | --- | --- |
/// | `\|event: Event<T>\| { .. }` | each event at once, on the node's arbiter: it must be quick |
/// | `\|event: Event<T>\| async move { .. }` | one event after the other, or as many at once as [`Subscribing::at_once`] says; the others wait |
/// | a recipient | the events in its mailbox |
///
/// A closure may return a `Result<(), E>`, or a future of one: see [`HandlerReturn`]. Handlers that take `Event<Result<T, EventError>>` get the
/// events that cannot be decoded, too, and so does a closure that takes `Result<Event<T>, EventError>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler of events",
    label = "this handler",
    note = "a handler is a closure `|event: Event<T>| ..`, async or not, or the recipient of an actor that handles `Event<T>`; T is read from the event, so it is `DeserializeOwned`"
)]
pub trait IntoSubscriber<Form>: Send + 'static {
    /// The handler that the actors call.
    #[doc(hidden)]
    fn into_subscriber(self, options: HandlerOptions) -> Arc<dyn Deliver>;

    /// The actor that handles the events, if it is started again when it panics.
    #[doc(hidden)]
    fn restarted(&self) -> Option<Arc<Restarted>> {
        None
    }
}

impl<V, Kind> IntoSubscriber<Kind> for Recipient<Event<V>>
where
    V: Send + 'static,
    Kind: 'static,
    Event<V>: Delivered<Kind>,
{
    fn into_subscriber(self, _: HandlerOptions) -> Arc<dyn Deliver> {
        Arc::new(ToActor::new(self))
    }
}

impl<F, D, Kind, R, When> IntoSubscriber<fn(D, Kind, When) -> R> for F
where
    F: Fn(D) -> R + Send + Sync + 'static,
    D: Delivered<Kind> + 'static,
    Kind: 'static,
    R: HandlerReturn<When>,
{
    fn into_subscriber(self, options: HandlerOptions) -> Arc<dyn Deliver> {
        R::handler(self, options)
    }
}

/// The forms of handlers whose events wait in a queue: closures that are async.
#[diagnostic::on_unimplemented(
    message = "this handler has no queue that could be set",
    note = "only a closure that is async has a queue: one that is not handles each event at once, and an actor has its mailbox"
)]
pub trait HasQueue {}

impl<D, Kind, R> HasQueue for fn(D, Kind, InTurn) -> R {}

/// The mailbox of an actor that handles events.
trait EventMailbox<V>: Send + Sync {
    /// Whether the actor still takes events.
    fn is_open(&self) -> bool;

    /// Hands an event over; `false` if there is no room for it.
    fn hand_over(&self, event: Event<V>) -> bool;
}

impl<V: Send + 'static> EventMailbox<V> for Recipient<Event<V>> {
    fn is_open(&self) -> bool {
        self.connected()
    }

    fn hand_over(&self, event: Event<V>) -> bool {
        #[expect(clippy::disallowed_methods, reason = "bounded by the pending events: EVENTS_PENDING_MAX")]
        self.do_send(event);
        true
    }
}

/// An event at which the actor panics is not handled again.
impl<V: Send + 'static> EventMailbox<V> for RestartingRecipient<Event<V>> {
    fn is_open(&self) -> bool {
        self.is_running()
    }

    fn hand_over(&self, event: Event<V>) -> bool {
        self.tell(event)
    }
}

struct ToActor<M, V, Kind> {
    mailbox: M,
    pending: Arc<Pending>,
    undecodable: Repeated,
    kind: PhantomData<fn(V, Kind)>,
}

impl<M, V, Kind> ToActor<M, V, Kind> {
    fn new(mailbox: M) -> Self {
        Self { mailbox, pending: Arc::default(), undecodable: Repeated::new(), kind: PhantomData }
    }
}

impl<M, V, Kind> Deliver for ToActor<M, V, Kind>
where
    M: EventMailbox<V> + 'static,
    V: Send + 'static,
    Kind: 'static,
    Event<V>: Delivered<Kind>,
{
    fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped> {
        if !self.mailbox.is_open() {
            return Err(Dropped::Gone);
        }
        let len = event.headers.len() + event.payload.bytes.len();
        let pending = PendingEvent::count(&self.pending, len).ok_or(Dropped::Full)?;
        let event = Event::read(event, Some(pending)).map_err(|error| left_out(error, &self.undecodable))?;
        self.mailbox.hand_over(event).then_some(()).ok_or(Dropped::Full)
    }

    fn is_running(&self) -> Option<bool> {
        Some(self.mailbox.is_open())
    }
}

impl<V, Kind> IntoSubscriber<Kind> for RestartingRecipient<Event<V>>
where
    V: Send + 'static,
    Kind: 'static,
    Event<V>: Delivered<Kind>,
{
    fn into_subscriber(self, _: HandlerOptions) -> Arc<dyn Deliver> {
        Arc::new(ToActor::new(self))
    }

    fn restarted(&self) -> Option<Arc<Restarted>> {
        Some(Arc::clone(RestartingRecipient::restarted(self)))
    }
}

/// Keeps a subscription alive: dropping this ends the subscription, at the master too.
#[must_use = "dropping it ends the subscription"]
pub struct Subscription {
    node: Arc<ActorNode>,
    id: SubscriberId,
}

impl Subscription {
    /// Keeps the subscription until the node ends.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.node.unsubscribe(self.id);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("node", self.node.name()).field("id", &self.id).finish()
    }
}

/// A subscription that is being made: settings of its handler, and the future of its [`Subscription`]. It is made when it is first polled.
#[must_use = "a subscription is made when it is awaited"]
pub struct Subscribing<Form> {
    state: Progress,
    form: PhantomData<fn() -> Form>,
}

enum Progress {
    Unasked(Box<Unasked>),
    Asked(BoxFuture<'static, Result<Subscription, CallError>>),
    Done,
}

struct Unasked {
    node: Node,
    /// The events that the handler gets; or why there are no such events.
    to: Result<SubscribeTo, CallError>,
    handler: MakeHandler,
    options: HandlerOptions,
}

/// A handler that is made when its settings are known.
pub(crate) struct MakeHandler {
    make: Box<dyn FnOnce(HandlerOptions) -> Arc<dyn Deliver> + Send>,
    restarted: Option<Arc<Restarted>>,
}

impl MakeHandler {
    pub(crate) fn of<Form>(handler: impl IntoSubscriber<Form>) -> Self {
        let restarted = handler.restarted();
        Self { make: Box::new(move |options| handler.into_subscriber(options)), restarted }
    }
}

impl Unasked {
    async fn subscribe(self) -> Result<Subscription, CallError> {
        let Self { node, to, handler: MakeHandler { make, restarted }, options } = self;
        let (node, to) = (node.attach().await?, to?);
        if let Some(restarted) = restarted {
            node.show_restarted(&restarted);
        }
        // A caller that drops this future while it waits for the master drops the subscription too.
        let subscription = Subscription { node: Arc::clone(&node), id: node.draw_subscriber() };
        node.subscribe(subscription.id, to, make(options)).await?;
        Ok(subscription)
    }
}

impl<Form> Subscribing<Form> {
    pub(crate) fn new(node: Node, to: Result<SubscribeTo, CallError>, handler: MakeHandler) -> Self {
        let options = HandlerOptions::default();
        Self { state: Progress::Unasked(Box::new(Unasked { node, to, handler, options })), form: PhantomData }
    }

    /// How many events an async closure handles at once. Default: 1, which keeps the order of each publisher; 0 counts as 1. Further events wait
    /// in the [queue](Self::queue) of the handler. Each event that is being handled costs a task's memory and that of its value.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn store(order: u64) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// let orders = branch.subscribe("orders/**", |event: Event<u64>| async move { store(event.value).await }).at_once(8).await?;
    /// # orders.keep();
    /// # Ok(())
    /// # }
    /// ```
    pub fn at_once(self, events: usize) -> Self
    where
        Form: HasQueue,
    {
        self.with(|options| options.at_once = events)
    }

    /// How many events may wait for an async closure, and which of them goes when one comes and they are there. Default: 16,384 events,
    /// [`WhenFull::DropNewest`]; 0 events count as 1. Events that go are counted in [`Snapshot::events_dropped`](crate::Snapshot), or in
    /// `events_superseded` if a later event of their topic took their place, and the log says so, each handler at most one line in 10 s.
    pub fn queue(self, events_max: usize, when_full: WhenFull) -> Self
    where
        Form: HasQueue,
    {
        self.with(|options| (options.queue.count_max, options.queue.when_full) = (events_max, when_full))
    }

    /// How many bytes the events that wait for an async closure may have, as they came over the link; one event waits in any case. Default:
    /// 64 MiB.
    pub fn queue_len_max(self, len: usize) -> Self
    where
        Form: HasQueue,
    {
        self.with(|options| options.queue.len_max = len)
    }

    fn with(mut self, change: impl FnOnce(&mut HandlerOptions)) -> Self {
        if let Progress::Unasked(unasked) = &mut self.state {
            change(&mut unasked.options);
        }
        self
    }
}

impl<Form> Future for Subscribing<Form> {
    type Output = Result<Subscription, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut asked = match std::mem::replace(&mut self.state, Progress::Done) {
            Progress::Unasked(unasked) => unasked.subscribe().boxed(),
            Progress::Asked(asked) => asked,
            Progress::Done => {
                let again = "a subscription was awaited again after it was made";
                return Poll::Ready(Err(CallError::new(Code::CANCELLED, Fate::Unknown, again)));
            }
        };
        let polled = asked.as_mut().poll(context);
        if polled.is_pending() {
            self.state = Progress::Asked(asked);
        }
        polled
    }
}

impl<Form> fmt::Debug for Subscribing<Form> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribing").finish_non_exhaustive()
    }
}

/// Publishes an event: [`Node::publish`] as a message, or [`Node::publish_last`].
pub struct Publish {
    event: EncodedEvent,
    is_last: bool,
}

/// Sends an event to every other node: [`Node::broadcast`] as a message.
pub struct Broadcast(EncodedEvent);

struct EncodedEvent(Result<NewEvent, CallError>);

impl EncodedEvent {
    fn new<T: Serialize + ?Sized>(topic: ByteString, event: &T) -> Self {
        let payload = Payload::encode(Encoding::MessagePack, event);
        Self(payload.map(|payload| NewEvent::new(topic, payload)).map_err(CallError::from))
    }

    fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.and_then(|mut event| {
            event.headers.insert(name, value)?;
            Ok(event)
        }))
    }
}

impl Publish {
    /// An event of a topic. It is written now.
    pub fn new<T: Serialize + ?Sized>(topic: impl Into<ByteString>, event: &T) -> Self {
        Self { event: EncodedEvent::new(topic.into(), event), is_last: false }
    }

    /// An event whose value the master keeps as the last of its topic. It is written now.
    pub fn last<T: Serialize + ?Sized>(topic: impl Into<ByteString>, value: &T) -> Self {
        Self { event: EncodedEvent::new(topic.into(), value), is_last: true }
    }

    /// See [`Publishing::header`](crate::Publishing::header).
    #[must_use]
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        Self { event: self.event.header(name.as_ref(), value.as_ref()), ..self }
    }

    fn send(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<(), CallError>> {
        let (Self { event: EncodedEvent(event), is_last }, node) = (self, Arc::clone(node));
        if is_last {
            return Box::pin(async move { node.keep_last(event?, false).await });
        }
        Box::pin(async move { node.publish(event?).await })
    }
}

impl Broadcast {
    /// An event of a topic. It is written now.
    pub fn new<T: Serialize + ?Sized>(topic: impl Into<ByteString>, event: &T) -> Self {
        Self(EncodedEvent::new(topic.into(), event))
    }

    /// See [`Publishing::header`](crate::Publishing::header).
    #[must_use]
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        Self(self.0.header(name.as_ref(), value.as_ref()))
    }

    fn send(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<(), CallError>> {
        let (EncodedEvent(event), node) = (self.0, Arc::clone(node));
        Box::pin(async move { node.broadcast(event?).await })
    }
}

/// Subscribes a handler: [`Node::subscribe`] as a message. The settings are those of a [`Subscribing`], for an async closure; other handlers have
/// no queue.
pub struct Subscribe {
    pattern: String,
    handler: MakeHandler,
    options: HandlerOptions,
}

impl Subscribe {
    /// A subscription to the topics that match the pattern.
    pub fn new<Form>(pattern: impl Into<String>, handler: impl IntoSubscriber<Form>) -> Self {
        let (pattern, handler) = (pattern.into(), MakeHandler::of(handler));
        Self { pattern, handler, options: HandlerOptions::default() }
    }

    /// How many events an async closure handles at once: see [`Subscribing::at_once`].
    #[must_use]
    pub fn at_once(mut self, events: usize) -> Self {
        self.options.at_once = events;
        self
    }

    /// How many events may wait for an async closure: see [`Subscribing::queue`].
    #[must_use]
    pub fn queue(mut self, events_max: usize, when_full: WhenFull) -> Self {
        (self.options.queue.count_max, self.options.queue.when_full) = (events_max, when_full);
        self
    }

    /// How many bytes the events that wait for an async closure may have: see [`Subscribing::queue_len_max`].
    #[must_use]
    pub fn queue_len_max(mut self, len: usize) -> Self {
        self.options.queue.len_max = len;
        self
    }

    fn subscribe(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<Subscription, CallError>> {
        let Self { pattern, handler, options } = self;
        let (node, to) = (Node::of_branch(Arc::clone(node)), topics(&pattern, None));
        Box::pin(Unasked { node, to, handler, options }.subscribe())
    }
}

/// The events of the topics that match a pattern, for a handler in this group.
pub(crate) fn topics(pattern: &str, group: Option<ByteString>) -> Result<SubscribeTo, CallError> {
    let pattern = Pattern::new(pattern)?;
    if let Some(group) = &group {
        check_group(group)?;
    }
    Ok(SubscribeTo::Topics(SubscriptionKey { pattern, group }))
}

impl Message for Publish {
    type Result = Result<(), CallError>;
}

impl Message for Broadcast {
    type Result = Result<(), CallError>;
}

impl Message for Subscribe {
    type Result = Result<Subscription, CallError>;
}

macro_rules! both_actors_take {
    ($($message:ident by $method:ident gives $result:ty;)*) => {$(
        impl Handler<$message> for BranchActor {
            type Result = ResponseFuture<$result>;

            fn handle(&mut self, message: $message, _: &mut actix::Context<Self>) -> Self::Result {
                message.$method(self.node())
            }
        }

        impl Handler<$message> for MasterActor {
            type Result = ResponseFuture<$result>;

            fn handle(&mut self, message: $message, _: &mut actix::Context<Self>) -> Self::Result {
                message.$method(self.node())
            }
        }
    )*};
}

both_actors_take! {
    Publish by send gives Result<(), CallError>;
    Broadcast by send gives Result<(), CallError>;
    Subscribe by subscribe gives Result<Subscription, CallError>;
}

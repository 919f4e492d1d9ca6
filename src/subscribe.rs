//! Handling events. [`Node::subscribe`](crate::Node::subscribe) on a handle, or [`Subscribe`], [`Publish`] and [`Broadcast`]
//! as messages to the actors.
//!
//! `call` or `publish`? A call has one answer, and its caller learns the outcome. An event goes to all subscribers, to each at
//! most once, and its publisher learns only that its node took the event.

use crate::action_error::ActionError;
use crate::handle::Node;
use crate::restart::RestartingRecipient;
use actix::{Handler, Message, Recipient, ResponseFuture};
use meshwork_actors::answers::Restarted;
use meshwork_actors::branch::BranchActor;
use meshwork_actors::events::{Deliver, Dropped, EventRef, SubscriberId};
use meshwork_actors::log_line;
use meshwork_actors::master::MasterActor;
use meshwork_actors::node::Node as ActorNode;
use meshwork_actors::repeated::Repeated;
use meshwork_wire::limits::{EVENTS_PENDING_LEN_MAX, EVENTS_PENDING_MAX};
use meshwork_wire::{ByteString, CallError, DecodeError, Encoding, Payload};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::Instant;

/// An event, as a handler gets it. An actor can subscribe when it handles `Event<T>`.
#[derive(Debug)]
pub struct Event<T> {
    /// The topic that the event was published to.
    pub topic: ByteString,
    /// The name of the node that published it.
    pub publisher: ByteString,
    /// The value that was published.
    pub value: T,
    /// Counts the event as pending until the handler drops it. None for a closure, which handles its events at once.
    _pending: Option<PendingEvent>,
}

impl<T> Message for Event<T> {
    type Result = ();
}

#[cfg(feature = "testing")]
impl<T> Event<T> {
    /// An event that came over no link.
    pub(crate) fn by_hand(topic: ByteString, publisher: ByteString, value: T) -> Self {
        Self { topic, publisher, value, _pending: None }
    }
}

/// Counts one event that stands in the mailbox of a recipient or is being handled, until it is dropped.
#[derive(Debug)]
pub struct PendingEvent {
    pending: Arc<Pending>,
    len: usize,
}

/// The events that stand in the mailbox of a recipient or are being handled: how many, and how many bytes they had on the wire.
#[derive(Default, Debug)]
struct Pending {
    count: AtomicUsize,
    len: AtomicUsize,
}

impl PendingEvent {
    /// None when [`EVENTS_PENDING_MAX`] events are pending, or others and this one have more than [`EVENTS_PENDING_LEN_MAX`] bytes.
    fn count(pending: &Arc<Pending>, len: usize) -> Option<Self> {
        let before = pending.len.fetch_add(len, Ordering::AcqRel);
        // Dropping it takes both back.
        let counted = Self { pending: Arc::clone(pending), len };
        let count = pending.count.fetch_add(1, Ordering::AcqRel);
        (count < EVENTS_PENDING_MAX && (before == 0 || before + len <= EVENTS_PENDING_LEN_MAX))
            .then_some(counted)
    }
}

impl Drop for PendingEvent {
    fn drop(&mut self) {
        self.pending.count.fetch_sub(1, Ordering::AcqRel);
        self.pending.len.fetch_sub(self.len, Ordering::AcqRel);
    }
}

/// An event that its handler cannot decode: the publisher sent another type than the handler takes.
///
/// A handler that takes `Event<T>` does not get such an event: a warning goes to the log, and the event counts in
/// [`Snapshot::events_undecodable`](crate::Snapshot::events_undecodable). A closure or an actor that takes
/// `Event<Result<T, EventError>>` gets the error as the value of the event, and a closure that takes `Result<Event<T>, EventError>`
/// gets it instead of the event; then it does not count.
///
/// ```
/// # use meshwork::prelude::*;
/// # #[actix::main]
/// # async fn main() -> Result<(), CallError> {
/// # let node = Master::from(MasterActor::new("master").start());
/// let orders = node.subscribe("orders/*", |event: Result<Event<u64>, EventError>| match event {
///     Ok(event) => println!("order {}", event.value),
///     Err(error) => eprintln!("{error}"), // an event of orders/new that shop published cannot be decoded: ..
/// });
/// # orders.await?.keep();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventError {
    /// The topic that the event was published to.
    pub topic: ByteString,
    /// The name of the node that published it.
    pub publisher: ByteString,
    /// Why the value is none of the type that the handler takes.
    pub reason: DecodeError,
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, publisher, reason } = self;
        write!(f, "an event of {topic} that {publisher} published cannot be decoded: {reason}")
    }
}

impl From<EventError> for ActionError {
    fn from(error: EventError) -> Self {
        ActionError::from_error(error)
    }
}

impl std::error::Error for EventError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// The forms in which handlers take events: `Event<T>`, `Event<Result<T, EventError>>`, `Result<Event<T>, EventError>`.
///
/// `Kind` tells the forms apart, since a `Result` may also be the value of an event.
pub trait Delivered<Kind>: Sized {
    /// Decodes an event; an error if a handler of this form does not take an event that cannot be decoded.
    fn read(event: EventRef<'_>, pending: Option<PendingEvent>) -> Result<Self, EventError>;
}

impl<T: DeserializeOwned> Delivered<()> for Event<T> {
    fn read(event: EventRef<'_>, pending: Option<PendingEvent>) -> Result<Self, EventError> {
        let EventRef { topic, publisher, payload } = event;
        // A panic of a user's type must not end the node.
        let decoded = catch_unwind(AssertUnwindSafe(|| payload.decode_arguments())).unwrap_or_else(|_| {
            let (expected, reason) = (std::any::type_name::<T>(), "decoding it panicked".to_owned());
            Err(DecodeError { encoding: payload.encoding, expected, reason })
        });
        let (topic, publisher) = (topic.clone(), publisher.clone());
        match decoded {
            Ok(value) => Ok(Event { topic, publisher, value, _pending: pending }),
            Err(reason) => Err(EventError { topic, publisher, reason }),
        }
    }
}

impl<T: DeserializeOwned> Delivered<EventError> for Event<Result<T, EventError>> {
    fn read(event: EventRef<'_>, pending: Option<PendingEvent>) -> Result<Self, EventError> {
        let (topic, publisher) = (event.topic.clone(), event.publisher.clone());
        let value = Event::<T>::read(event, None).map(|event| event.value);
        Ok(Event { topic, publisher, value, _pending: pending })
    }
}

impl<T: DeserializeOwned> Delivered<()> for Result<Event<T>, EventError> {
    fn read(event: EventRef<'_>, pending: Option<PendingEvent>) -> Result<Self, EventError> {
        Ok(Event::<T>::read(event, pending))
    }
}

/// A handler of events: a `Recipient<Event<T>>`, or a closure `|event: Event<T>|`, which runs on the node's arbiter and must be
/// quick. Handlers that take `Event<Result<T, EventError>>` get the events that cannot be decoded, too, and so does a closure
/// `|event: Result<Event<T>, EventError>|`. `Form` is inferred.
pub trait IntoSubscriber<Form> {
    /// The handler that the actors call.
    fn into_subscriber(self) -> Arc<dyn Deliver>;

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
    fn into_subscriber(self) -> Arc<dyn Deliver> {
        Arc::new(ToActor::new(self))
    }
}

impl<F, D, Kind> IntoSubscriber<fn(D) -> Kind> for F
where
    F: Fn(D) + Send + Sync + 'static,
    D: Delivered<Kind> + 'static,
    Kind: 'static,
{
    fn into_subscriber(self) -> Arc<dyn Deliver> {
        let (undecodable, panicked) = (Repeated::new(), Repeated::new());
        Arc::new(ToClosure { closure: self, undecodable, panicked, form: PhantomData })
    }
}

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
        let pending = PendingEvent::count(&self.pending, event.payload.bytes.len()).ok_or(Dropped::Full)?;
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
    fn into_subscriber(self) -> Arc<dyn Deliver> {
        Arc::new(ToActor::new(self))
    }

    fn restarted(&self) -> Option<Arc<Restarted>> {
        Some(Arc::clone(RestartingRecipient::restarted(self)))
    }
}

struct ToClosure<F, D, Kind> {
    closure: F,
    undecodable: Repeated,
    panicked: Repeated,
    form: PhantomData<fn(D) -> Kind>,
}

impl<F, D, Kind> Deliver for ToClosure<F, D, Kind>
where
    F: Fn(D) + Send + Sync + 'static,
    D: Delivered<Kind> + 'static,
    Kind: 'static,
{
    fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped> {
        let decoded = D::read(event, None).map_err(|error| left_out(error, &self.undecodable))?;
        // A panic in a handler must not end the node.
        if catch_unwind(AssertUnwindSafe(|| (self.closure)(decoded))).is_err() {
            let line = self.panicked.error(Instant::now().into_std());
            log_line!(line, "the handler of {} panicked", event.topic);
        }
        Ok(())
    }
}

/// Tells the log of an event that a handler cannot decode, and why the handler does not take it.
#[cold]
fn left_out(error: EventError, undecodable: &Repeated) -> Dropped {
    let line = undecodable.warn(Instant::now().into_std());
    log_line!(line, "{error}");
    Dropped::CannotDecode(error.reason)
}

/// Keeps a subscription alive: dropping this ends the subscription, at the master too.
#[must_use = "dropping it ends the subscription"]
pub struct Subscription {
    node: Arc<ActorNode>,
    id: SubscriberId,
}

impl Subscription {
    pub(crate) fn new(node: Arc<ActorNode>, id: SubscriberId) -> Self {
        Self { node, id }
    }

    pub(crate) fn id(&self) -> SubscriberId {
        self.id
    }

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

/// Publishes an event: [`Node::publish`] as a message.
pub struct Publish(EncodedEvent);

/// Sends an event to every other node: [`Node::broadcast`] as a message.
pub struct Broadcast(EncodedEvent);

struct EncodedEvent {
    topic: ByteString,
    payload: Result<Payload, CallError>,
}

impl EncodedEvent {
    fn new<T: Serialize + ?Sized>(topic: ByteString, event: &T) -> Self {
        Self { topic, payload: Payload::encode(Encoding::MessagePack, event).map_err(CallError::from) }
    }
}

impl Publish {
    /// An event of a topic. It is written now.
    pub fn new<T: Serialize + ?Sized>(topic: impl Into<ByteString>, event: &T) -> Self {
        Self(EncodedEvent::new(topic.into(), event))
    }

    fn send(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<(), CallError>> {
        let (EncodedEvent { topic, payload }, node) = (self.0, Arc::clone(node));
        Box::pin(async move { node.publish(topic, payload?).await })
    }
}

impl Broadcast {
    /// An event of a topic. It is written now.
    pub fn new<T: Serialize + ?Sized>(topic: impl Into<ByteString>, event: &T) -> Self {
        Self(EncodedEvent::new(topic.into(), event))
    }

    fn send(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<(), CallError>> {
        let (EncodedEvent { topic, payload }, node) = (self.0, Arc::clone(node));
        Box::pin(async move { node.broadcast(topic, payload?).await })
    }
}

/// Subscribes a handler: [`Node::subscribe`] as a message.
pub struct Subscribe {
    pattern: String,
    handler: Raw,
}

impl Subscribe {
    /// A subscription to the topics that match the pattern.
    pub fn new<Form>(pattern: impl Into<String>, handler: impl IntoSubscriber<Form>) -> Self {
        let restarted = handler.restarted();
        let handler = Raw { handler: handler.into_subscriber(), restarted };
        Self { pattern: pattern.into(), handler }
    }

    fn subscribe(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<Subscription, CallError>> {
        let node = Node::of_branch(Arc::clone(node));
        Box::pin(async move { node.subscribe(self.pattern, self.handler).await })
    }
}

/// A handler that is made already.
struct Raw {
    handler: Arc<dyn Deliver>,
    restarted: Option<Arc<Restarted>>,
}

impl IntoSubscriber<()> for Raw {
    fn into_subscriber(self) -> Arc<dyn Deliver> {
        self.handler
    }

    fn restarted(&self) -> Option<Arc<Restarted>> {
        self.restarted.clone()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_before_an_actor_are_bounded_in_number_and_in_bytes_and_one_always_fits() {
        let pending = Arc::new(Pending::default());
        let count = |len| PendingEvent::count(&pending, len);
        let longest = count(EVENTS_PENDING_LEN_MAX + 1).expect("it is the only one");
        assert!(count(1).is_none());
        drop(longest);
        let mut held: Vec<_> = (0..4).map_while(|_| count(EVENTS_PENDING_LEN_MAX / 4)).collect();
        assert_eq!(held.len(), 4);
        assert!(count(1).is_none());
        held.truncate(1);
        assert!(count(1).is_some());
        held.extend((1..EVENTS_PENDING_MAX).map_while(|_| count(0)));
        assert_eq!(held.len(), EVENTS_PENDING_MAX);
        assert!(count(0).is_none());
        drop(held);
        assert_eq!((pending.count.load(Ordering::Relaxed), pending.len.load(Ordering::Relaxed)), (0, 0));
    }
}

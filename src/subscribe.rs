//! Handling events. [`Node::subscribe`](crate::Node::subscribe) on a handle, or [`Subscribe`], [`Publish`] and [`Broadcast`]
//! as messages to the actors.
//!
//! `call` or `publish`? A call has one answer and its caller knows what became of it; an event goes to whoever listens, once
//! or not at all, and its publisher knows only that it left.

use crate::handle::Node;
use actix::{Handler, Message, Recipient, ResponseFuture};
use meshwork_actors::branch::BranchActor;
use meshwork_actors::events::{Deliver, Dropped, EventRef, SubscriberId};
use meshwork_actors::master::MasterActor;
use meshwork_actors::node::Node as ActorNode;
use meshwork_wire::limits::EVENTS_PENDING_MAX;
use meshwork_wire::{ByteString, CallError, Encoding, Payload};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An event as its handler gets it. An actor is a topic handler when it handles `Event<T>`.
#[derive(Debug)]
pub struct Event<T> {
    /// Its topic.
    pub topic: ByteString,
    /// The name of the node that published it.
    pub publisher: ByteString,
    /// What happened.
    pub value: T,
    /// It counts as not handled yet until it is dropped.
    _place: Option<Place>,
}

impl<T> Message for Event<T> {
    type Result = ();
}

/// The place of one event that was handed over and not handled yet.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(pending: &Arc<AtomicUsize>) -> Option<Self> {
        if pending.fetch_add(1, Ordering::AcqRel) < EVENTS_PENDING_MAX {
            return Some(Self(Arc::clone(pending)));
        }
        pending.fetch_sub(1, Ordering::AcqRel);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What can handle events: a `Recipient<Event<T>>`, or a closure `|event: Event<T>|`, which runs on the node's arbiter and must
/// be quick. `Form` is inferred.
pub trait IntoSubscriber<Form> {
    /// What the actors call.
    fn into_subscriber(self) -> Arc<dyn Deliver>;
}

impl<T: DeserializeOwned + Send + 'static> IntoSubscriber<T> for Recipient<Event<T>> {
    fn into_subscriber(self) -> Arc<dyn Deliver> {
        Arc::new(ToRecipient { recipient: self, pending: Arc::default() })
    }
}

impl<F, T> IntoSubscriber<fn(T)> for F
where
    F: Fn(Event<T>) + Send + Sync + 'static,
    T: DeserializeOwned + 'static,
{
    fn into_subscriber(self) -> Arc<dyn Deliver> {
        Arc::new(ToClosure { closure: self, event: PhantomData })
    }
}

struct ToRecipient<T>
where
    T: Send + 'static,
{
    recipient: Recipient<Event<T>>,
    pending: Arc<AtomicUsize>,
}

impl<T: DeserializeOwned + Send + 'static> Deliver for ToRecipient<T> {
    fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped> {
        if !self.recipient.connected() {
            return Err(Dropped::Gone);
        }
        let place = Place::take(&self.pending).ok_or(Dropped::Full)?;
        #[expect(clippy::disallowed_methods, reason = "bounded by the places: EVENTS_PENDING_MAX")]
        self.recipient.do_send(read(event, Some(place))?);
        Ok(())
    }
}

struct ToClosure<F, T> {
    closure: F,
    event: PhantomData<fn(T)>,
}

impl<F, T> Deliver for ToClosure<F, T>
where
    F: Fn(Event<T>) + Send + Sync + 'static,
    T: DeserializeOwned + 'static,
{
    fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped> {
        let said = read(event, None)?;
        // A panic in a handler must not end the node.
        if catch_unwind(AssertUnwindSafe(|| (self.closure)(said))).is_err() {
            log::error!("the handler of {} panicked", event.topic);
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(event: EventRef<'_>, place: Option<Place>) -> Result<Event<T>, Dropped> {
    let value = event.payload.decode_arguments()?;
    Ok(Event { topic: event.topic.clone(), publisher: event.publisher.clone(), value, _place: place })
}

/// Keeps a subscription alive: dropping it ends it, at the master too.
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

    /// Keeps the subscription for as long as the node lives.
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
pub struct Publish(Sending);

/// Sends an event to every other node: [`Node::broadcast`] as a message.
pub struct Broadcast(Sending);

struct Sending {
    topic: ByteString,
    payload: Result<Payload, CallError>,
}

impl Sending {
    fn new<T: Serialize + ?Sized>(topic: ByteString, event: &T) -> Self {
        Self { topic, payload: Payload::encode(Encoding::MessagePack, event).map_err(CallError::from) }
    }
}

impl Publish {
    /// An event of a topic. It is written now.
    pub fn new<T: Serialize + ?Sized>(topic: impl Into<ByteString>, event: &T) -> Self {
        Self(Sending::new(topic.into(), event))
    }

    fn send(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<(), CallError>> {
        let (Sending { topic, payload }, node) = (self.0, Arc::clone(node));
        Box::pin(async move { node.publish(topic, payload?).await })
    }
}

impl Broadcast {
    /// An event of a topic. It is written now.
    pub fn new<T: Serialize + ?Sized>(topic: impl Into<ByteString>, event: &T) -> Self {
        Self(Sending::new(topic.into(), event))
    }

    fn send(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<(), CallError>> {
        let (Sending { topic, payload }, node) = (self.0, Arc::clone(node));
        Box::pin(async move { node.broadcast(topic, payload?).await })
    }
}

/// Subscribes a handler: [`Node::subscribe`] as a message.
pub struct Subscribe {
    pattern: String,
    handler: Arc<dyn Deliver>,
}

impl Subscribe {
    /// A subscription to the topics that match.
    pub fn new<Form>(pattern: impl Into<String>, handler: impl IntoSubscriber<Form>) -> Self {
        Self { pattern: pattern.into(), handler: handler.into_subscriber() }
    }

    fn subscribe(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<Subscription, CallError>> {
        let node = Node::of_branch(Arc::clone(node));
        Box::pin(async move { node.subscribe(self.pattern, Raw(self.handler)).await })
    }
}

struct Raw(Arc<dyn Deliver>);

impl IntoSubscriber<()> for Raw {
    fn into_subscriber(self) -> Arc<dyn Deliver> {
        self.0
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

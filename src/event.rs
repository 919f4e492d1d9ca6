//! An event as its handler gets it, and the forms in which handlers take events. Handlers are subscribed in `subscribe.rs`.

use crate::action_error::ActionError;
use actix::Message;
use meshwork_actors::events::{Dropped, EventRef};
use meshwork_actors::log_line;
use meshwork_actors::repeated::Repeated;
use meshwork_wire::limits::{EVENTS_PENDING_LEN_MAX, EVENTS_PENDING_MAX};
use meshwork_wire::{ByteString, DecodeError, Headers};
use serde::de::DeserializeOwned;
use std::fmt;
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
    /// What travels beside the value: the headers that the publisher set.
    pub headers: Headers,
    /// The value that was published.
    pub value: T,
    /// See [`Event::is_last_value`].
    is_last_value: bool,
    /// Counts the event as pending until the handler drops it. None for a closure, which handles its events at once.
    _pending: Option<PendingEvent>,
}

impl<T> Event<T> {
    /// Whether the event was published before the handler subscribed, with [`Node::publish_last`](crate::Node::publish_last), and is the last
    /// value of its topic. A handler hears such events once, when it subscribes, and again when its node has bound again.
    #[must_use]
    pub fn is_last_value(&self) -> bool {
        self.is_last_value
    }
}

impl<T> Message for Event<T> {
    type Result = ();
}

impl<T> Event<T> {
    /// The value of a header of the event, if the publisher set it. Upper and lower case of the name are one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

#[cfg(feature = "testing")]
impl<T> Event<T> {
    /// An event that came over no link.
    pub(crate) fn by_hand(topic: ByteString, publisher: ByteString, value: T) -> Self {
        Self { topic, publisher, headers: Headers::none(), value, is_last_value: false, _pending: None }
    }

    /// The event with this header, for a test that makes an event by hand.
    ///
    /// # Panics
    ///
    /// When it cannot be a header: a mistake in the test.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value).unwrap_or_else(|error| panic!("{error}"));
        self
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
pub(crate) struct Pending {
    count: AtomicUsize,
    len: AtomicUsize,
}

impl PendingEvent {
    /// None when [`EVENTS_PENDING_MAX`] events are pending, or others and this one have more than [`EVENTS_PENDING_LEN_MAX`] bytes.
    pub(crate) fn count(pending: &Arc<Pending>, len: usize) -> Option<Self> {
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
    #[doc(hidden)]
    fn read(event: EventRef<'_>, pending: Option<PendingEvent>) -> Result<Self, EventError>;
}

impl<T: DeserializeOwned> Delivered<()> for Event<T> {
    fn read(event: EventRef<'_>, pending: Option<PendingEvent>) -> Result<Self, EventError> {
        let EventRef { topic, publisher, headers, payload, is_last_value } = event;
        // A panic of a user's type must not end the node.
        let decoded = catch_unwind(AssertUnwindSafe(|| payload.decode_arguments())).unwrap_or_else(|_| {
            let (expected, reason) = (std::any::type_name::<T>(), "decoding it panicked".to_owned());
            Err(DecodeError { encoding: payload.encoding, expected, reason })
        });
        let (topic, publisher) = (topic.clone(), publisher.clone());
        match decoded {
            Ok(value) => {
                let headers = headers.clone();
                Ok(Event { topic, publisher, headers, value, is_last_value, _pending: pending })
            }
            Err(reason) => Err(EventError { topic, publisher, reason }),
        }
    }
}

impl<T: DeserializeOwned> Delivered<EventError> for Event<Result<T, EventError>> {
    fn read(event: EventRef<'_>, pending: Option<PendingEvent>) -> Result<Self, EventError> {
        let EventRef { topic, publisher, headers, is_last_value, .. } = event;
        let (topic, publisher, headers) = (topic.clone(), publisher.clone(), headers.clone());
        let value = Event::<T>::read(event, None).map(|event| event.value);
        Ok(Event { topic, publisher, headers, value, is_last_value, _pending: pending })
    }
}

impl<T: DeserializeOwned> Delivered<()> for Result<Event<T>, EventError> {
    fn read(event: EventRef<'_>, pending: Option<PendingEvent>) -> Result<Self, EventError> {
        Ok(Event::<T>::read(event, pending))
    }
}

/// Tells the log of an event that a handler cannot decode, and why the handler does not take it.
#[cold]
pub(crate) fn left_out(error: EventError, undecodable: &Repeated) -> Dropped {
    let line = undecodable.warn(Instant::now().into_std());
    log_line!(line, "{error}");
    Dropped::CannotDecode(error.reason)
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

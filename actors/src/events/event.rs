//! An event, and the handler that takes it at the node where it arrives.

use futures::future::LocalBoxFuture;
use meshwork_wire::{ByteString, Headers, Payload, PayloadRef};
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of a handler at its node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SubscriberId(pub u64);

/// A handler of events. It decodes an event and hands it on at once: it runs on the arbiter of its node and must not block.
pub trait Deliver: Send + Sync + 'static {
    /// Takes one event.
    ///
    /// # Errors
    ///
    /// When too many events wait for the handler, or it is gone, or cannot decode the event: the event is dropped and counted. The handler
    /// itself writes to the log that it cannot decode an event, since only the handler knows how often it did.
    fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped>;

    /// Whether the actor that handles the events is running; none if no actor does. A handler whose actor has stopped is unsubscribed.
    fn is_running(&self) -> Option<bool> {
        None
    }

    /// What became of the events that the handler took.
    fn counts(&self) -> HandlerCounts {
        HandlerCounts::default()
    }

    /// Waits until the handler has handled all events that it took; none if it has, or cannot tell.
    fn idle(&self) -> Option<LocalBoxFuture<'static, ()>> {
        None
    }
}

/// How many events a handler took and did not handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HandlerCounts {
    /// Events that it handled with an error, or a panic.
    pub failed: u64,
    /// Events that had waited and could not be decoded.
    pub undecodable: u64,
}

impl std::ops::AddAssign for HandlerCounts {
    fn add_assign(&mut self, other: Self) {
        self.failed += other.failed;
        self.undecodable += other.undecodable;
    }
}

/// An event on its way to a handler.
#[derive(Clone, Debug)]
pub struct Event {
    /// The topic of the event.
    pub topic: ByteString,
    /// The name of the node that published the event.
    pub publisher: ByteString,
    /// What travels beside the value.
    pub headers: Headers,
    /// The value of the event.
    pub payload: Payload,
}

/// An [`Event`] that is read where it stands, without a copy of its payload.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// The topic of the event.
    pub topic: &'a ByteString,
    /// The name of the node that published the event.
    pub publisher: &'a ByteString,
    /// What travels beside the value.
    pub headers: &'a Headers,
    /// The value of the event.
    pub payload: PayloadRef<'a>,
    /// Whether it is the last value of its topic, published before the handler subscribed.
    pub is_last_value: bool,
}

impl<'a> From<&'a Event> for EventRef<'a> {
    fn from(Event { topic, publisher, headers, payload }: &'a Event) -> Self {
        Self { topic, publisher, headers, payload: payload.into(), is_last_value: false }
    }
}

/// The headers of an event that has none.
pub(crate) static NO_HEADERS: Headers = Headers::none();

/// Why a handler did not take an event, or dropped others for it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Dropped {
    /// Too many events wait for the handler.
    #[error("too many events are before it")]
    Full,
    /// The handler is gone.
    #[error("the handler is gone")]
    Gone,
    /// The event waits, and others went for it.
    #[error("{superseded} earlier events of its topic, and {dropped} that had waited longest, went for it")]
    Earlier {
        /// Events of its topic in whose place it waits.
        superseded: usize,
        /// Events that had waited longest.
        dropped: usize,
    },
    /// The handler expects another type.
    #[error(transparent)]
    CannotDecode(#[from] meshwork_wire::DecodeError),
}

/// How many events the handlers of a node did not take, handlers that are gone included.
#[derive(Default)]
pub(crate) struct Untaken {
    dropped: AtomicU64,
    superseded: AtomicU64,
    undecodable: AtomicU64,
}

impl Untaken {
    /// How many events found too many events before them, or a handler that was gone.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many events went since a later one of their topic took their place.
    pub(crate) fn superseded(&self) -> u64 {
        self.superseded.load(Ordering::Relaxed)
    }

    /// How many events their handlers could not decode.
    pub(crate) fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }

    #[cold]
    fn count(&self, topic: &ByteString, reason: &Dropped) {
        match reason {
            Dropped::CannotDecode(_) => {
                self.undecodable.fetch_add(1, Ordering::Relaxed);
            }
            Dropped::Earlier { superseded, dropped } => {
                self.superseded.fetch_add(*superseded as u64, Ordering::Relaxed);
                self.dropped.fetch_add(*dropped as u64, Ordering::Relaxed);
            }
            Dropped::Full | Dropped::Gone => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                log::debug!("an event of {topic} was dropped: {reason}");
            }
        }
    }
}

/// Hands an event to a handler of this node, and counts it if the handler does not take it. `false` if the handler is gone.
#[inline]
pub(crate) fn hand_over(subscriber: &dyn Deliver, event: EventRef<'_>, untaken: &Untaken) -> bool {
    match subscriber.deliver(event) {
        Ok(()) => true,
        Err(reason) => {
            untaken.count(event.topic, &reason);
            reason != Dropped::Gone
        }
    }
}

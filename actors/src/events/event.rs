//! An event, and who takes it at the node where it arrives.

use meshwork_wire::{ByteString, Payload, PayloadRef};
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of a handler at its node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SubscriberId(pub u64);

/// Handles events at the node where it lives: decodes them and hands them on, in no time.
pub trait Deliver: Send + Sync + 'static {
    /// Takes one event.
    ///
    /// # Errors
    ///
    /// When the handler has too many events before it, is gone, or cannot read this one: it is dropped and counted.
    fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped>;
}

/// An event on its way to a handler.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its topic.
    pub topic: ByteString,
    /// The name of the node that published it.
    pub publisher: ByteString,
    /// What happened.
    pub payload: Payload,
}

/// An [`Event`] that is read where it stands.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// Its topic.
    pub topic: &'a ByteString,
    /// The name of the node that published it.
    pub publisher: &'a ByteString,
    /// What happened.
    pub payload: PayloadRef<'a>,
}

impl<'a> From<&'a Event> for EventRef<'a> {
    fn from(Event { topic, publisher, payload }: &'a Event) -> Self {
        Self { topic, publisher, payload: payload.into() }
    }
}

/// Why a handler did not take an event.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Dropped {
    /// It has too many events before it.
    #[error("too many events are before it")]
    Full,
    /// It is gone.
    #[error("the handler is gone")]
    Gone,
    /// It expects another type.
    #[error(transparent)]
    CannotDecode(#[from] meshwork_wire::DecodeError),
}

/// Hands an event to a handler of this node; what it does not take is counted.
#[inline]
pub(crate) fn hand_over(subscriber: &dyn Deliver, event: EventRef<'_>, dropped: &AtomicU64) {
    if let Err(reason) = subscriber.deliver(event) {
        dropped.fetch_add(1, Ordering::Relaxed);
        log::debug!("an event of {} was dropped: {reason}", event.topic);
    }
}

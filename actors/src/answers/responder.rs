//! What answers requests at a node. A responder is user code: it may take its time, fail, or panic, and none of that may reach
//! the actor that runs it.

use crate::link::gathered::Gathered;
use futures::future::LocalBoxFuture;
use meshwork_wire::{
    ByteString, CallError, CallbackId, EncodeError, Encoding, Fate, Outcome, Payload, PayloadRef,
};
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// Answers the requests for one action. It is asked on the arbiter of the session or branch that the request came in on, and
/// its future stays there; so it is `Send + Sync` and its future need not be `Send`.
pub trait Responder: Send + Sync + 'static {
    /// Answers one request: at once, or with a future, which is dropped when the caller gives up. [`poll_once`](super::poll_once::poll_once) tells the one from the
    /// other.
    fn respond(&self, arguments: PayloadRef<'_>, context: &CallContext, reply: Replier<'_>) -> Answer;
}

/// How a responder answers.
pub enum Answer {
    /// With what it said through [`Replier::say`].
    Said,
    /// At once.
    Now(Outcome),
    /// When this is ready.
    Later(LocalBoxFuture<'static, Outcome>),
}

/// Where a responder that answers at once may say so.
#[derive(Clone, Copy)]
pub struct Replier<'a> {
    callback_id: CallbackId,
    /// None where replies are not gathered.
    gathered: Option<&'a Gathered>,
}

impl<'a> Replier<'a> {
    pub(crate) fn new(callback_id: CallbackId, gathered: Option<&'a Gathered>) -> Self {
        Self { callback_id, gathered }
    }

    /// Answers with this value. Where small replies of a turn are gathered this costs no allocation.
    #[inline]
    pub fn say<T: Serialize + ?Sized>(self, encoding: Encoding, value: &T) -> Answer {
        let written = match self.gathered {
            Some(gathered) => Payload::encode_unless_small(encoding, value, |bytes| {
                gathered.push_small(self.callback_id, encoding, bytes);
            }),
            None => Payload::encode(encoding, value).map(Some),
        };
        match written {
            Ok(None) => Answer::Said,
            Ok(Some(payload)) => Answer::Now(Ok(payload)),
            Err(error) => Answer::Now(Err(not_written(error))),
        }
    }
}

/// The action ran, so the error must not say that it was not sent.
fn not_written(error: EncodeError) -> CallError {
    CallError::from(error).with_fate(Fate::Failed)
}

/// A reply that is written as a payload.
///
/// # Errors
///
/// When the encoding has no form for the value.
pub fn reply<T: Serialize + ?Sized>(encoding: Encoding, value: &T) -> Outcome {
    Payload::encode(encoding, value).map_err(not_written)
}

/// What a responder may know of a request besides its arguments.
#[derive(Clone, Debug)]
pub struct CallContext {
    action: ByteString,
    caller: ByteString,
    deadline: Option<Instant>,
}

impl CallContext {
    pub(crate) fn new(action: ByteString, caller: ByteString, deadline: Option<Instant>) -> Self {
        Self { action, caller, deadline }
    }

    /// The action that was asked for.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The name of the node that asks.
    #[must_use]
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// The moment when the caller stops waiting; `None` if it never does.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller still waits: pass it on to calls that are made on its behalf. `None` if it waits for ever.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

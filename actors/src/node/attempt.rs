//! The node behind its layers: each attempt of the layers at a call is a call of the node, or opens a stream.

use super::layers::{Attempts, CallLayer, CallThrough, LayeredCall, call_through};
use super::reading::Reading;
use super::shared::Node;
use super::submission::Call;
use futures::future::BoxFuture;
use meshwork_wire::{CallError, CallbackId, Code, Fate, Outcome, Payload};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

impl Node {
    /// Makes a call through the layers of this node, or through none if it has none. Dropping the future cancels the call.
    pub fn layered(&self, call: Call) -> BoxFuture<'static, Outcome> {
        match self.layers() {
            Some(layers) => call_through(&**layers, call, None),
            None => self.unlayered(call),
        }
    }

    /// Makes a call without layers, whose deadline the node keeps by itself.
    fn unlayered(&self, call: Call) -> BoxFuture<'static, Outcome> {
        let (attempts, cause) = (Attempts::default(), call.cause.clone());
        let layered = LayeredCall { call, deadline: None, attempts: attempts.clone(), opens_stream: None };
        let outcome = Innermost(self.downgrade()).call(layered);
        match cause {
            None => outcome,
            Some(cause) => Box::pin(async move {
                cause.unless_cancelled(Fate::Unknown, outcome).await.map_err(|error| attempts.judge(error))
            }),
        }
    }

    /// Puts these layers around the calls of this node, the first one outermost. Called once, when the node starts.
    pub(crate) fn put_layers(&self, layers: Vec<CallLayer>) {
        if !layers.is_empty() {
            let innermost: Arc<dyn CallThrough> = Arc::new(Innermost(self.downgrade()));
            self.set_layers(layers.into_iter().rev().fold(innermost, |inner, layer| layer(inner)));
        }
    }
}

impl Reading {
    /// Opens the stream that answers a call, through the layers of its node, if it has any: they stand around the opening, which ends when the stream
    /// begins. Each attempt of theirs opens a stream, and the last one that begins is read.
    ///
    /// # Errors
    ///
    /// Why the stream does not begin, as the layers say it.
    pub async fn open_layered(node: &Arc<Node>, call: Call, window_len_max: u32) -> Result<Self, CallError> {
        let Some(layers) = node.layers() else {
            let mut reading = Self::open(node, call, window_len_max)?;
            poll_fn(|context| reading.poll_started(context)).await?;
            return Ok(reading);
        };
        let begun = Arc::<Mutex<Option<Self>>>::default();
        let (weak, begins) = (node.downgrade(), Arc::clone(&begun));
        let opens_stream = move |call: LayeredCall| -> BoxFuture<'static, Outcome> {
            let (node, begins) = (weak.upgrade(), Arc::clone(&begins));
            Box::pin(async move {
                let reading = begin(&node.ok_or_else(has_ended)?, call, window_len_max).await?;
                let before = begins.lock().unwrap_or_else(PoisonError::into_inner).replace(reading);
                // Another attempt is dropped, and its stream with it, when no lock is held.
                drop(before);
                Ok(Payload::default())
            })
        };
        call_through(&**layers, call, Some(Arc::new(opens_stream))).await?;
        let reading = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        reading.ok_or_else(|| {
            let what = "a layer has answered itself, and opened no stream";
            CallError::new(Code::CANNOT_DECODE, Fate::Unknown, what)
        })
    }
}

/// One attempt at a stream: waits until it begins.
async fn begin(node: &Arc<Node>, layered: LayeredCall, window_len_max: u32) -> Result<Reading, CallError> {
    let LayeredCall { mut call, deadline, attempts, .. } = layered;
    if let Some(deadline) = deadline {
        call.within = Some(left_until(deadline)?);
    }
    let mut reading = Reading::open(node, call, window_len_max)?;
    attempts.begin();
    let begins = poll_fn(|context| reading.poll_started(context)).await;
    begins.inspect_err(|error| note_end(&attempts, error))?;
    Ok(reading)
}

/// Notes that an attempt has ended with this error.
fn note_end(attempts: &Attempts, error: &CallError) {
    if error.fate() == Fate::NotSent {
        attempts.was_not_sent();
    }
}

/// How long an attempt may take.
fn left_until(deadline: Instant) -> Result<Duration, CallError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        let why = "the deadline passed in the layers of the caller, before the call was made";
        return Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::NotSent, why));
    }
    Ok(left)
}

fn has_ended() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::NotSent, "the node has ended")
}

/// The node behind its layers.
struct Innermost(Weak<Node>);

impl CallThrough for Innermost {
    fn call(&self, call: LayeredCall) -> BoxFuture<'static, Outcome> {
        if let Some(opens_stream) = call.opens_stream.clone() {
            return opens_stream(call);
        }
        let LayeredCall { call, deadline, attempts, .. } = call;
        match self.0.upgrade() {
            Some(node) => Box::pin(Attempt { node, stage: Stage::New(Box::new(call)), deadline, attempts }),
            None => Box::pin(std::future::ready(Err(has_ended()))),
        }
    }
}

/// One attempt at a call. The request leaves when the future is first polled; dropping it cancels the call.
struct Attempt {
    node: Arc<Node>,
    stage: Stage,
    deadline: Option<Instant>,
    attempts: Attempts,
}

enum Stage {
    New(Box<Call>),
    InFlight(CallbackId),
    Done,
}

impl Future for Attempt {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::New(mut call) => {
                if let Some(deadline) = self.deadline {
                    call.within = Some(left_until(deadline)?);
                }
                match self.node.ask(*call, context.waker()) {
                    Ok(callback_id) => {
                        self.attempts.begin();
                        self.stage = Stage::InFlight(callback_id);
                        Poll::Pending
                    }
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
            Stage::InFlight(callback_id) => match self.node.poll_reply(callback_id, context.waker()) {
                Poll::Ready(reply) => {
                    let outcome = reply.into_outcome();
                    Poll::Ready(outcome.inspect_err(|error| note_end(&self.attempts, error)))
                }
                Poll::Pending => {
                    self.stage = Stage::InFlight(callback_id);
                    Poll::Pending
                }
            },
            Stage::Done => {
                let again = "a call was awaited again after its reply was taken";
                Poll::Ready(Err(CallError::new(Code::CANCELLED, Fate::Unknown, again)))
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Stage::InFlight(callback_id) = self.stage {
            self.node.forget(callback_id);
        }
    }
}

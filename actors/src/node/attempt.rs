//! The node behind its layers: each attempt of the layers at a call is a call of the node.

use super::layers::{Attempts, CallLayer, CallThrough, LayeredCall, call_through};
use super::shared::Node;
use super::submission::Call;
use futures::future::BoxFuture;
use meshwork_wire::{CallError, CallbackId, Code, Fate, Outcome};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use tokio::time::Instant;

impl Node {
    /// Makes a call through the layers of this node, or through none if it has none. Dropping the future cancels the call.
    pub fn layered(&self, call: Call) -> BoxFuture<'static, Outcome> {
        match self.layers() {
            Some(layers) => call_through(&**layers, call),
            None => call_through(&Innermost(self.downgrade()), call),
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

/// The node behind its layers.
struct Innermost(Weak<Node>);

impl CallThrough for Innermost {
    fn call(&self, call: LayeredCall) -> BoxFuture<'static, Outcome> {
        let LayeredCall { call, deadline, attempts } = call;
        match self.0.upgrade() {
            Some(node) => Box::pin(Attempt { node, stage: Stage::New(Box::new(call)), deadline, attempts }),
            None => Box::pin(std::future::ready(Err(CallError::new(
                Code::LINK_LOST,
                Fate::NotSent,
                "the node has ended",
            )))),
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
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let why = "the deadline passed in the layers of the caller, before the call was made";
                        return Poll::Ready(Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::NotSent, why)));
                    }
                    call.within = Some(left);
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
                    if outcome.as_ref().is_err_and(|error| error.fate() == Fate::NotSent) {
                        self.attempts.was_not_sent();
                    }
                    Poll::Ready(outcome)
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

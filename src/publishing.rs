//! Publishing events: [`Publishing`] is the future of an event, made by [`Node::publish`](crate::Node::publish) and its like.

use crate::handle::Node;
use futures::FutureExt;
use futures::future::BoxFuture;
use meshwork_actors::answers::Cause;
use meshwork_actors::node::{NewEvent, Node as ActorNode};
use meshwork_wire::{CallError, Code, Fate};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// The future of an event that is published or broadcast. The event is written when this is made, and sent when this is first polled; ready when
/// the event is in the queue of its node, or, of a last value, when the master keeps it.
///
/// ```
/// # use meshwork::prelude::*;
/// # async fn example(branch: Branch) -> Result<(), CallError> {
/// branch.publish("orders/created", &7).header("tenant", "a").await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "an event is not published before it is awaited"]
pub struct Publishing(Stage);

enum Stage {
    /// Not polled yet.
    Written {
        node: Node,
        event: Result<NewEvent, CallError>,
        to: To,
    },
    /// Waits for the handle of a master, or for room.
    Waiting(BoxFuture<'static, Result<(), CallError>>),
    Done,
}

/// The receivers of an event.
#[derive(Clone, Copy)]
pub(crate) enum To {
    Subscribers,
    EveryNode,
    /// The master, which keeps the event as the last of its topic, and gives it to the subscribers.
    Kept,
}

impl To {
    async fn send(self, node: &ActorNode, event: NewEvent) -> Result<(), CallError> {
        match self {
            To::Subscribers => node.publish(event).await,
            To::EveryNode => node.broadcast(event).await,
            To::Kept => node.keep_last(event, false).await,
        }
    }

    /// The fate of an event that is given up while it is waited for: one that waits for room is not in the queue, but the master may have one that
    /// it was asked to keep.
    fn fate(self) -> Fate {
        match self {
            To::Subscribers | To::EveryNode => Fate::NotSent,
            To::Kept => Fate::Unknown,
        }
    }
}

impl Publishing {
    pub(crate) fn new(node: &Node, event: Result<NewEvent, CallError>, to: To) -> Self {
        let event = event.map(|event| NewEvent { headers: node.trace(), ..event });
        Self(Stage::Written { node: node.clone(), event, to })
    }

    /// Sets a header, which travels beside the value to the handlers: see [`Headers`](crate::Headers) for names and values. A handler reads it from
    /// its [`Event`](crate::Event). Nodes of a version without headers hear the event without them.
    ///
    /// A name or a value that cannot be one of a header, and more headers than there may be, fail this: not sent.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        if let Stage::Written { event, .. } = &mut self.0
            && let Ok(written) = event
            && let Err(error) = written.headers.insert(name.as_ref(), value.as_ref())
        {
            *event = Err(error.into());
        }
        self
    }
}

/// Refuses an event of a request that was cancelled, or whose deadline has passed.
fn may_begin(cause: &Cause) -> Result<(), CallError> {
    let why = match cause.until() {
        _ if cause.is_cancelled() => "the request for which the event was to be published was cancelled",
        Some(until) if until <= Instant::now() => return Err(too_late(Fate::NotSent)),
        _ => return Ok(()),
    };
    Err(CallError::new(Code::CANCELLED, Fate::NotSent, why))
}

/// Sends an event of a request, within the deadline of that.
async fn send_for(
    cause: &Cause,
    fate: Fate,
    sending: impl Future<Output = Result<(), CallError>>,
) -> Result<(), CallError> {
    let within = async {
        match cause.until() {
            Some(until) => {
                tokio::time::timeout_at(until, sending).await.unwrap_or_else(|_| Err(too_late(fate)))
            }
            None => sending.await,
        }
    };
    cause.unless_cancelled(fate, within).await
}

fn too_late(fate: Fate) -> CallError {
    let why = "the deadline of the request for which the event was to be published has passed";
    CallError::new(Code::REQUEST_TIMEOUT, fate, why)
}

impl Future for Publishing {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waiting = match std::mem::replace(&mut self.0, Stage::Done) {
            Stage::Written { node, event, to } => {
                let event = event?;
                if let Some(cause) = node.cause() {
                    may_begin(cause)?;
                }
                let event = match (node.attached(), to) {
                    (Some(attached), To::Subscribers) => attached.publish_now(event)?,
                    (Some(attached), To::EveryNode) => attached.broadcast_now(event)?,
                    (None, _) | (_, To::Kept) => Some(event),
                };
                // Nearly always there is room.
                let Some(event) = event else {
                    return Poll::Ready(Ok(()));
                };
                Box::pin(async move {
                    let sending = async { to.send(&*node.attach().await?, event).await };
                    match node.cause() {
                        Some(cause) => send_for(cause, to.fate(), sending).await,
                        None => sending.await,
                    }
                })
            }
            Stage::Waiting(waiting) => waiting,
            Stage::Done => {
                let again = "an event was awaited again after it was published";
                return Poll::Ready(Err(CallError::new(Code::UNKNOWN, Fate::Unknown, again)));
            }
        };
        let sent = waiting.poll_unpin(context);
        if sent.is_pending() {
            self.0 = Stage::Waiting(waiting);
        }
        sent
    }
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = match &self.0 {
            Stage::Written { event: Ok(event), .. } => Some(&event.topic),
            _ => None,
        };
        f.debug_struct("Publishing").field("topic", &topic).finish_non_exhaustive()
    }
}

//! Publishing events: [`Publishing`] is the future of an event, made by [`Node::publish`](crate::Node::publish) and its like.

use crate::handle::Node;
use futures::FutureExt;
use futures::future::BoxFuture;
use meshwork_actors::node::{NewEvent, Node as ActorNode};
use meshwork_wire::{CallError, Code, Fate};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The future of an event that is published or broadcast. The event is written when this is made, and sent when this is first polled; ready when
/// the event is in the queue of its node.
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
}

impl To {
    async fn send(self, node: &ActorNode, event: NewEvent) -> Result<(), CallError> {
        match self {
            To::Subscribers => node.publish(event).await,
            To::EveryNode => node.broadcast(event).await,
        }
    }
}

impl Publishing {
    pub(crate) fn new(node: &Node, event: Result<NewEvent, CallError>, to: To) -> Self {
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

impl Future for Publishing {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waiting = match std::mem::replace(&mut self.0, Stage::Done) {
            Stage::Written { node, event, to } => {
                let event = event?;
                let event = match (node.attached(), to) {
                    (Some(attached), To::Subscribers) => attached.publish_now(event)?,
                    (Some(attached), To::EveryNode) => attached.broadcast_now(event)?,
                    (None, _) => Some(event),
                };
                // Nearly always there is room.
                let Some(event) = event else {
                    return Poll::Ready(Ok(()));
                };
                Box::pin(async move { to.send(&*node.attach().await?, event).await })
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

//! A call that was submitted, to be awaited by one task.

use super::shared::{Head, Node};
use super::submission::{Arguments, Call};
use crate::calls::in_flight::Waiter;
use crate::calls::reply::Reply;
use meshwork_wire::{CallError, CallbackId, Code, Fate};
use std::sync::Arc;
use std::task::{Context, Poll};

/// A call in flight. [`PendingCall::poll`] resolves to its reply; dropping it cancels the call, at the far end too.
pub struct PendingCall {
    node: Arc<Node>,
    callback_id: CallbackId,
    settled: bool,
}

impl PendingCall {
    pub(crate) fn new(node: Arc<Node>, callback_id: CallbackId) -> Self {
        Self { node, callback_id, settled: false }
    }

    /// Submits a call whose frame is written here, behind those of other calls that have not left yet. The task of this context is woken for its
    /// reply.
    ///
    /// # Errors
    ///
    /// At once, not sent: when too much is in flight, or the node has ended.
    #[inline]
    pub fn submit(
        node: Arc<Node>,
        head: Head,
        arguments: &Arguments,
        context: &Context<'_>,
    ) -> Result<Self, CallError> {
        let callback_id = node.open(head, arguments, Waiter::Task(context.waker().clone()))?;
        Ok(Self { node, callback_id, settled: false })
    }

    /// Submits a call that the actor of the node writes, or answers itself.
    ///
    /// # Errors
    ///
    /// As [`PendingCall::submit`].
    pub fn ask(node: Arc<Node>, call: Call, context: &Context<'_>) -> Result<Self, CallError> {
        let callback_id = node.open_asked(call, Waiter::Task(context.waker().clone()))?;
        Ok(Self { node, callback_id, settled: false })
    }

    /// The reply to the call, when it is there. The task that polled it last is woken for it.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Reply> {
        let polled = self.node.poll_reply(self.callback_id, context.waker());
        polled.map(|reply| {
            self.settled = true;
            reply.unwrap_or_else(|| {
                let again = "a call was awaited again after its reply was taken";
                Reply::failed(CallError::new(Code::CANCELLED, Fate::Unknown, again))
            })
        })
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.settled {
            self.node.forget(self.callback_id);
        }
    }
}

//! A call of a function that was submitted, awaited by one task.

use super::shared::Node;
use crate::calls::reply::Reply;
use meshwork_wire::CallbackId;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A call of a function in flight. Dropping it cancels the call, at the far end too.
pub(super) struct PendingCall {
    node: Arc<Node>,
    callback_id: CallbackId,
    settled: bool,
}

impl PendingCall {
    pub(super) fn new(node: Arc<Node>, callback_id: CallbackId) -> Self {
        Self { node, callback_id, settled: false }
    }
}

impl Future for PendingCall {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let polled = self.node.poll_reply(self.callback_id, context.waker());
        self.settled |= polled.is_ready();
        polled
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.settled {
            self.node.forget(self.callback_id);
        }
    }
}

//! Functions that came over a link of this node: how their holders call and release them.

use super::pending::PendingCall;
use super::shared::Node;
use crate::calls::in_flight::Waiter;
use crate::link::borrowed::Lender;
use meshwork_wire::{CallbackId, Invocation, Invoked, Payload, Wants};
use std::any::Any;
use std::sync::Arc;
use std::task::Waker;

/// The other end of a link, as the functions that it lent over the link know it.
pub(crate) struct NodeLender {
    pub(crate) node: Arc<Node>,
    /// The number of the link: a branch counts its links, a master numbers its sessions.
    pub(crate) link: u64,
}

impl Lender for NodeLender {
    fn invoke(&self, function: CallbackId, invocation: Invocation) -> Invoked {
        let (node, link) = (&self.node, self.link);
        if invocation.wants == Wants::Nothing {
            let notified = node.notify(link, function, invocation);
            return Box::pin(async move { notified.map(|()| Payload::default()) });
        }
        let opened = node
            .open_invoke(link, function, invocation, Waiter::Task(Waker::noop().clone()))
            .map(|callback_id| PendingCall::new(Arc::clone(node), callback_id))
            .map_err(|refused| refused.error);
        Box::pin(async move { opened?.await.into_outcome() })
    }

    fn release(&self, function: CallbackId) {
        self.node.release(self.link, function);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

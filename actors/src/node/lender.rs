//! Functions that came to a node over one of its links: how the node calls them and gives them back.

use super::shared::Node;
use crate::link::borrowed::Lender;
use meshwork_wire::{CallbackId, Invocation, Invoked, Payload};
use std::any::Any;
use std::sync::Arc;

/// The far end of a link of a node, as the functions that it lent know it.
pub(crate) struct NodeLender {
    pub(crate) node: Arc<Node>,
    /// The number of the link: a branch counts its links, a master its sessions. What was borrowed over a link ends with it.
    pub(crate) link: u64,
}

impl Lender for NodeLender {
    fn invoke(&self, function: CallbackId, invocation: Invocation) -> Invoked {
        let asked = self.node.invoke(self.link, function, invocation);
        Box::pin(async move {
            match asked? {
                Some(asked) => asked.await,
                None => Ok(Payload::default()),
            }
        })
    }

    fn release(&self, function: CallbackId) {
        self.node.release(self.link, function);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

//! Functions that the master of a branch lent: how their holders call them and give them back.

use crate::link::borrowed::Lender;
use crate::node::shared::Node;
use meshwork_wire::{CallbackId, Invocation, Invoked, Payload};
use std::sync::Arc;

/// The master, over the link that was the branch's at that time, as functions that it lent know it.
pub(crate) struct MasterLender {
    pub(crate) node: Arc<Node>,
    pub(crate) epoch: u64,
}

impl Lender for MasterLender {
    fn invoke(&self, function: CallbackId, invocation: Invocation) -> Invoked {
        let asked = self.node.invoke(self.epoch, function, invocation);
        Box::pin(async move {
            match asked? {
                Some(asked) => asked.await,
                None => Ok(Payload::default()),
            }
        })
    }

    fn release(&self, function: CallbackId) {
        self.node.release(self.epoch, function);
    }
}

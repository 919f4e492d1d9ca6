//! The handle on a master.

use crate::{MasterActor, Node};
use actix::Addr;
use std::ops::Deref;

/// A handle on a master: everything a [`Node`] can do. `Clone` and `Send`; made from the address of the actor.
///
/// ```
/// # use meshwork::prelude::*;
/// # async fn example() -> Result<(), CallError> {
/// let master = Master::from(MasterActor::new("master1").start());
/// let drained = master.drain(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Master {
    node: Node,
    actor: Addr<MasterActor>,
}

impl Master {
    /// The actor behind it.
    #[must_use]
    pub fn addr(&self) -> Addr<MasterActor> {
        self.actor.clone()
    }
}

impl From<Addr<MasterActor>> for Master {
    fn from(actor: Addr<MasterActor>) -> Self {
        Self { node: Node::of_master(actor.clone()), actor }
    }
}

impl From<&Addr<MasterActor>> for Master {
    fn from(actor: &Addr<MasterActor>) -> Self {
        Self::from(actor.clone())
    }
}

impl Deref for Master {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

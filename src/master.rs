//! The handle on a master.

use crate::handle::Node;
use actix::{Addr, Arbiter};
use meshwork_actors::master::{MasterActor, SessionSpawner};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A handle on a master, with all methods of [`Node`]. `Clone` and `Send`; made from the address of the actor.
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
    /// The address of the master actor.
    #[must_use]
    pub fn addr(&self) -> Addr<MasterActor> {
        self.actor.clone()
    }
}

/// Spreads a [`MasterActor`] over several threads.
pub trait SpreadMaster {
    /// Spreads the sessions over `count` arbiters in turn, each with a thread; the master's own arbiter is one of them.
    /// Default: 1; 0 counts as 1.
    ///
    /// Useful when many connections keep one processor busy. A single request gains nothing, and a request between sessions
    /// on two arbiters waits for the second arbiter to wake. Responders of the master run on the arbiter of the session whose
    /// branch calls them.
    ///
    /// # Panics
    ///
    /// Outside an actix system, and when a thread cannot be started.
    #[must_use]
    fn arbiters(self, count: usize) -> Self;
}

impl SpreadMaster for MasterActor {
    fn arbiters(self, count: usize) -> Self {
        if count <= 1 {
            return self;
        }
        let others = (1..count).map(|_| Arbiter::new()).collect();
        self.session_spawner(Arbiters { others, next: AtomicUsize::new(0) })
    }
}

/// The master's own arbiter and `others`, in turn. `others` end when the master and its last session have ended.
struct Arbiters {
    others: Vec<Arbiter>,
    next: AtomicUsize,
}

impl SessionSpawner for Arbiters {
    fn spawn(&self, start: Box<dyn FnOnce() + Send>) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        match self.others.get(next) {
            // An arbiter that has ended drops the connection. Arbiters end before this only with the whole system.
            Some(other) => _ = other.spawn_fn(start),
            None => start(),
        }
    }
}

impl Drop for Arbiters {
    fn drop(&mut self) {
        for other in &self.others {
            other.stop();
        }
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

impl From<Master> for Node {
    fn from(master: Master) -> Self {
        Node::clone(&master)
    }
}

impl From<&Master> for Node {
    fn from(master: &Master) -> Self {
        Node::clone(master)
    }
}

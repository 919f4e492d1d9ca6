//! The handle on a master.

use crate::handle::Node;
use crate::host;
use actix::{Actor, Addr, Arbiter};
use meshwork_actors::link::Address;
use meshwork_actors::master::{Identities, Listen, ListenError, MasterActor, SessionSpawner, SetIdentities};
use meshwork_wire::{CallError, Code, Fate};
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

/// A handle on a master, with all methods of [`Node`]. `Clone` and `Send`; made from the address of the actor, or by
/// [`start_on_thread`](RunMaster::start_on_thread) in a program without actix.
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

    /// Accepts connections at an address from now on: a [`Listen`] sent to the master actor. Gives the address that is listened on, with its
    /// port if port 0 was asked for.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on, the name of the master is not valid, or the master has ended.
    pub async fn listen(&self, listen: Listen) -> Result<Address, ListenError> {
        let address = listen.address().clone();
        let ended = |_| ListenError { address, source: io::Error::other("the master has ended") };
        self.actor.send(listen).await.map_err(ended)?
    }

    /// Takes other [`Identities`], at once and for every branch: a [`SetIdentities`] sent to the master actor.
    ///
    /// # Errors
    ///
    /// When the master has ended.
    pub async fn set_identities(&self, identities: Identities) -> Result<(), CallError> {
        let ended = |_| CallError::new(Code::LINK_LOST, Fate::NotSent, "the master has ended");
        self.actor.send(SetIdentities(identities)).await.map_err(ended)
    }
}

/// Runs a [`MasterActor`] in a program without actix.
pub trait RunMaster {
    /// Starts the master on a thread of its own, which ends when the master has drained. In an actix system, `start` starts it on the
    /// current arbiter.
    ///
    /// ```
    /// use meshwork::prelude::*;
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let master = MasterActor::new("master1").start_on_thread()?;
    ///     let address = master.listen(Listen::tcp("127.0.0.1:0")).await?;
    ///     println!("listens on {address}");
    ///     master.drain(Duration::from_secs(10)).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    fn start_on_thread(self) -> io::Result<Master>;
}

impl RunMaster for MasterActor {
    fn start_on_thread(self) -> io::Result<Master> {
        let (starter, started) = mpsc::channel();
        let node = Arc::clone(self.node());
        // The actor stays on the thread that it starts on; its settings go there.
        let settings = self.into_settings();
        let start = move || async move {
            let actor = MasterActor::from(settings).start();
            // The caller waits for the address.
            starter.send(actor.clone()).ok()?;
            Some(actor)
        };
        host::on_own_thread(node, start)?;
        // Comes within a moment: the thread does nothing before.
        let actor = started.recv().map_err(|_| io::Error::other("the thread of the master has ended"))?;
        Ok(Master::from(actor))
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
    /// The threads start with the first connection.
    ///
    /// # Panics
    ///
    /// The listener, when a thread cannot be started.
    #[must_use]
    fn arbiters(self, count: usize) -> Self;
}

impl SpreadMaster for MasterActor {
    fn arbiters(self, count: usize) -> Self {
        if count <= 1 {
            return self;
        }
        self.session_spawner(Arbiters { count, others: OnceLock::new(), next: AtomicUsize::new(0) })
    }
}

/// The master's own arbiter and `others`, in turn. `others` end when the master and its last session have ended.
struct Arbiters {
    count: usize,
    /// Made by the master's own arbiter, whose system they belong to: a master may be configured where there is no system.
    others: OnceLock<Vec<Arbiter>>,
    next: AtomicUsize,
}

impl SessionSpawner for Arbiters {
    fn spawn(&self, start: Box<dyn FnOnce() + Send>) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.count;
        let others = self.others.get_or_init(|| (1..self.count).map(|_| Arbiter::new()).collect());
        match others.get(next) {
            // An arbiter that has ended drops the connection. Arbiters end before this only with the whole system.
            Some(other) => _ = other.spawn_fn(start),
            None => start(),
        }
    }
}

impl Drop for Arbiters {
    fn drop(&mut self) {
        for other in self.others.get().into_iter().flatten() {
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

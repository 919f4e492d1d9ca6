//! A mesh in memory: a master and its branches on one thread, each with tasks of its own, in time that is paused.

use super::network::{Direction, MemoryDial, Network};
use crate::branch::{BindBranch, Branch};
use crate::master::Master;
use actix::Actor;
use meshwork_actors::answers::work_in_place;
use meshwork_actors::branch::{BindError, BranchActor};
use meshwork_actors::link::Address;
use meshwork_actors::master::{Listen, MasterActor};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

/// The address of the master of a mesh in memory. No socket has it.
const ADDRESS: &str = "master:0";

/// Runs a test in a mesh of its own, whose master is named `master`: see [`Mesh`]. A [`Setup`] sets the master and the seed.
///
/// # Panics
///
/// When the test does, or when it is called from async code: the test is a plain `#[test]`.
pub fn run<T>(test: impl AsyncFnOnce(Mesh) -> T) -> T {
    Setup::new().run(test)
}

/// How a mesh in memory begins.
pub struct Setup {
    master: Rc<dyn Fn() -> MasterActor>,
    seed: u64,
}

impl Setup {
    /// A master named `master`, which answers nothing; the seed 0.
    #[must_use]
    pub fn new() -> Self {
        Self { master: Rc::new(|| MasterActor::new("master")), seed: 0 }
    }

    /// Makes the master, now and after each crash. Its listeners are those of the mesh.
    #[must_use]
    pub fn master(mut self, master: impl Fn() -> MasterActor + 'static) -> Self {
        self.master = Rc::new(master);
        self
    }

    /// What the nodes draw by chance follows from this number: which provider gets a call, how long a branch waits before it binds again. A
    /// test with one seed goes the same way each time. Default: 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs a test in the mesh.
    ///
    /// # Panics
    ///
    /// When the test does, or when it is called from async code.
    pub fn run<T>(self, test: impl AsyncFnOnce(Mesh) -> T) -> T {
        fastrand::seed(self.seed);
        work_in_place(Some(|| Duration::ZERO));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without a driver opens nothing");
        let mesh = Mesh {
            inner: Rc::new(Inner {
                network: Network::default(),
                make_master: self.master,
                starts: Cell::new(0),
                master: RefCell::new(None),
                hosts: RefCell::default(),
                begun: Cell::new(None),
            }),
        };
        let outcome = LocalSet::new().block_on(&runtime, async move {
            mesh.inner.begun.set(Some(Instant::now()));
            mesh.restart_master().await;
            test(mesh).await
        });
        work_in_place(None);
        outcome
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// A mesh in memory: a master and the branches that are [bound](Self::bind) to it, over links that are no sockets. The branches and their
/// handles are those of any program; so are the actors behind them.
///
/// Time is paused. It moves on by itself when all nodes and the test wait for it, to the next deadline, heartbeat or arrival, so a test that
/// waits for a minute takes a moment. `tokio::time` and [`Mesh::pass`] tell and wait in this time; the clocks of `std::time` do not.
///
/// Blocking work (`respond_blocking`) runs on the thread of the test and takes none of this time, so that a test goes the same way each time; work
/// that waits for the test itself would wait for ever.
///
/// The links suffer what the test asks for. As over TCP, nothing that was written is lost by a cut: it arrives after the mend, unless an end
/// has given the silent link up, after three heartbeats.
///
/// ```
/// use meshwork::prelude::*;
/// use meshwork::testing;
///
/// testing::run(async |mesh| {
///     let _payments = mesh.bind(BranchActor::new("payments").respond("charge", |cents: u64| async move { Ok(cents + 1) })).await?;
///     let shop = mesh.bind(BranchActor::new("shop")).await?;
///     assert_eq!(shop.call::<u64>("charge", 41).await?, 42);
///
///     mesh.cut("payments");
///     let error = shop.call::<u64>("charge", 41).await.expect_err("its link is given up");
///     assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })
/// # .unwrap();
/// ```
#[derive(Clone)]
pub struct Mesh {
    inner: Rc<Inner>,
}

struct Inner {
    network: Network,
    make_master: Rc<dyn Fn() -> MasterActor>,
    /// How often the master was started.
    starts: Cell<u64>,
    master: RefCell<Option<Master>>,
    /// The nodes by their names; the master has the name that no branch may have.
    hosts: RefCell<BTreeMap<String, Host>>,
    begun: Cell<Option<Instant>>,
}

/// The name of the host of the master.
const MASTER: &str = "";

/// The tasks of one node.
struct Host {
    tasks: JoinHandle<()>,
    turns: Rc<Turns>,
}

/// Whether a node gets its turns.
#[derive(Default)]
struct Turns {
    is_stalled: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// Polls the tasks of a node, unless it is stalled.
struct Polled {
    tasks: LocalSet,
    turns: Rc<Turns>,
}

impl Future for Polled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.turns.is_stalled.get() {
            self.turns.waker.set(Some(context.waker().clone()));
            return Poll::Pending;
        }
        Pin::new(&mut self.tasks).poll(context)
    }
}

impl Mesh {
    /// Binds a branch to the master, over the network of this mesh. Its tasks are those of a process of its own, which may stall and crash.
    ///
    /// # Errors
    ///
    /// As `bind` of a [`BranchActor`].
    pub async fn bind(&self, branch: BranchActor) -> Result<Branch, BindError> {
        let name = branch.node().name().to_string();
        let dial = MemoryDial { network: self.inner.network.clone(), branch: name.clone() };
        let (tell, told) = oneshot::channel();
        self.host(name, async move {
            // The test may have given the bind up.
            let _ = tell.send(branch.dial(dial).bind(ADDRESS).await);
        });
        told.await.unwrap_or_else(|_| Err(BindError::NoThread(io::Error::other("the node has crashed"))))
    }

    /// Starts the tasks of a node.
    fn host(&self, name: String, begin: impl Future<Output = ()> + 'static) {
        let (tasks, turns) = (LocalSet::new(), Rc::<Turns>::default());
        tasks.spawn_local(begin);
        let polled = Polled { tasks, turns: Rc::clone(&turns) };
        let host = Host { tasks: tokio::task::spawn_local(polled), turns };
        // An earlier node of the name goes on as it would in another process.
        self.inner.hosts.borrow_mut().insert(name, host);
    }

    /// The master.
    ///
    /// # Panics
    ///
    /// When it has crashed and was not started again.
    #[must_use]
    pub fn master(&self) -> Master {
        self.inner.master.borrow().clone().expect("the master has crashed: `restart_master` starts it again")
    }

    /// Lets this much time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// How much time has passed since the mesh began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.inner.begun.get().map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    /// Cuts the link of a branch both ways: nothing passes, and dials wait.
    pub fn cut(&self, branch: &str) {
        self.cut_to_master(branch);
        self.cut_from_master(branch);
    }

    /// Cuts the way from a branch to the master: the branch hears, and is not heard.
    pub fn cut_to_master(&self, branch: &str) {
        self.inner.network.set_cut(branch, Direction::ToMaster, true);
    }

    /// Cuts the way from the master to a branch: the branch is heard, and hears nothing.
    pub fn cut_from_master(&self, branch: &str) {
        self.inner.network.set_cut(branch, Direction::FromMaster, true);
    }

    /// Mends both ways of a branch: what was written meanwhile arrives, on links that no end has given up.
    pub fn mend(&self, branch: &str) {
        self.inner.network.set_cut(branch, Direction::ToMaster, false);
        self.inner.network.set_cut(branch, Direction::FromMaster, false);
    }

    /// Lets everything that is written from now on take so long, each way. Zero is the default.
    pub fn delay(&self, branch: &str, each_way: Duration) {
        self.inner.network.set_delay(branch, Direction::ToMaster, each_way);
        self.inner.network.set_delay(branch, Direction::FromMaster, each_way);
    }

    /// Resets the link of a branch: both ends are told at once, and what is on its way is lost. The branch binds again.
    pub fn reset(&self, branch: &str) {
        self.inner.network.reset(branch);
    }

    /// Stops a branch as SIGSTOP stops a process: its link stays, and it does nothing until it is [resumed](Self::resume).
    pub fn stall(&self, branch: &str) {
        self.set_stalled(branch, true);
    }

    /// Lets a branch that was stalled go on.
    pub fn resume(&self, branch: &str) {
        self.set_stalled(branch, false);
    }

    /// Stops the master, as [`Mesh::stall`] stops a branch.
    pub fn stall_master(&self) {
        self.set_stalled(MASTER, true);
    }

    /// Lets the master go on.
    pub fn resume_master(&self) {
        self.set_stalled(MASTER, false);
    }

    fn set_stalled(&self, name: &str, is_stalled: bool) {
        if let Some(host) = self.inner.hosts.borrow().get(name) {
            host.turns.is_stalled.set(is_stalled);
            host.turns.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Ends a branch as SIGKILL ends a process: its tasks end where they are, and its link is reset. If the link was cut before, the master is
    /// told nothing. A branch of the same name may be [bound](Self::bind) again.
    pub async fn crash(&self, branch: &str) {
        self.inner.network.reset(branch);
        self.end(branch).await;
    }

    /// Ends the master as SIGKILL ends a process. The branches bind again when it is [started](Self::restart_master) again.
    pub async fn crash_master(&self) {
        self.inner.network.reset_all();
        self.inner.master.take();
        self.end(MASTER).await;
    }

    async fn end(&self, name: &str) {
        let host = self.inner.hosts.borrow_mut().remove(name);
        if let Some(Host { tasks, .. }) = host {
            tasks.abort();
            // The task ends where it is aborted, or has ended before.
            let _ = tasks.await;
        }
    }

    /// Starts the master again after its crash, as the [`Setup`] makes it. A master that runs is not touched.
    ///
    /// # Panics
    ///
    /// When the master cannot start.
    pub async fn restart_master(&self) {
        if self.inner.master.borrow().is_some() {
            return;
        }
        let (tell, told) = oneshot::channel();
        let acceptor = self.inner.network.listen(Address::from(ADDRESS));
        let make_master = Rc::clone(&self.inner.make_master);
        self.inner.starts.set(self.inner.starts.get() + 1);
        // Later than all last values of the one before.
        let era = self.inner.starts.get() << 40;
        self.host(MASTER.to_owned(), async move {
            let actor = make_master().era(era).start();
            let listening = actor.send(Listen::on(acceptor)).await;
            let _ = tell.send(listening.map(|listening| listening.map(|_| Master::from(actor))));
        });
        let master =
            told.await.expect("its tasks run").expect("it runs").unwrap_or_else(|error| panic!("{error}"));
        *self.inner.master.borrow_mut() = Some(master);
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

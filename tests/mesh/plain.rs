//! Nodes in programs of tokio without actix: they live on threads of their own, which end with them. Beside them, the arbiter that a bind
//! in an actix system chooses.

use crate::{Mesh, OnDrop, soon, until_known};
use futures::future::BoxFuture;
use meshwork::link::{Dial, Link, Tcp};
use meshwork::prelude::*;
use meshwork::{Address, BindError};
use std::cell::RefCell;
use std::io;
use std::sync::Mutex;
use std::thread::{self, ThreadId};
use tokio::sync::oneshot;

thread_local! {
    /// Dropped when the thread ends.
    static THREAD_END: RefCell<Vec<OnDrop>> = const { RefCell::new(Vec::new()) };
}

/// Dials, and tells when the thread that it dialled on has ended.
struct EndingDial(Mutex<Option<OnDrop>>);

impl EndingDial {
    fn new() -> (Self, oneshot::Receiver<()>) {
        let (ended, end) = oneshot::channel();
        (Self(Mutex::new(Some(OnDrop(Some(ended))))), end)
    }
}

impl Dial for EndingDial {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        let told = self.0.lock().expect("no test panics in here").take();
        THREAD_END.with(|ends| ends.borrow_mut().extend(told));
        Tcp.dial(address)
    }
}

/// Dials for ever; dropping its future tells.
struct EndlessDial(Mutex<Option<(OnDrop, oneshot::Sender<()>)>>);

impl Dial for EndlessDial {
    fn dial<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let (_told, begun) =
                self.0.lock().expect("no test panics in here").take().expect("it dials once");
            let _ = begun.send(());
            std::future::pending().await
        })
    }
}

fn thread() -> ThreadId {
    thread::current().id()
}

fn where_am_i() -> Responders {
    Responders::new().respond("where", |(): ()| async { Ok(format!("{:?}", thread())) })
}

/// A master on a thread of its own, which answers `add`.
async fn master() -> (Master, Address) {
    let master = MasterActor::new("master")
        .respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) })
        .start_on_thread()
        .expect("the thread starts");
    let address = soon(master.listen(Listen::tcp("127.0.0.1:0"))).await.expect("it listens");
    (master, address)
}

/// What a program does with a branch, from whichever thread.
async fn use_it(branch: &Branch, master: &Master) {
    let sum: i64 = soon(branch.call("add", (22, 22))).await.expect("the master answers");
    assert_eq!(sum, 44);
    let sum: i64 = soon(branch.addr().send(Call::new("add", (1, 2)))).await.expect("it runs").expect("a sum");
    assert_eq!(sum, 3);
    let place: String = soon(master.call("where", ())).await.expect("the branch answers");
    assert_ne!(place, format!("{:?}", thread()), "the branch has a thread of its own");
    let (handler, mut events) = crate::ear::<String>();
    let subscription = soon(branch.subscribe("sub/*", handler)).await.expect("it subscribes");
    soon(master.publish("sub/test", "sub")).await.expect("it publishes");
    assert_eq!(soon(events.recv()).await, Some(("sub/test".to_owned(), "sub".to_owned())));
    drop(subscription);
}

async fn a_whole_life() {
    let (master, address) = master().await;
    let (dial, end) = EndingDial::new();
    let branch = BranchActor::new("one").respond_all(where_am_i()).dial(dial).bind(&address);
    let branch = soon(branch).await.expect("it binds");
    use_it(&branch, &master).await;
    let drained = soon(branch.drain(Duration::from_secs(5))).await.expect("it drains");
    assert_eq!(drained.abandoned, 0);
    assert_eq!(soon(branch.closed()).await.code(), Code::DRAINING);
    soon(end).await.expect("the thread of the branch has ended");
    soon(master.drain(Duration::from_secs(5))).await.expect("it drains");
}

/// It panicked, after the master had consented.
#[tokio::test(flavor = "multi_thread")]
async fn a_branch_lives_on_a_thread_of_its_own_in_a_program_of_many_threads() {
    a_whole_life().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_branch_lives_on_a_thread_of_its_own_in_a_program_of_one_thread() {
    a_whole_life().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bind_may_be_spawned() {
    let (master, address) = master().await;
    let binding = BranchActor::new("one").respond_all(where_am_i()).bind(address);
    let branch = soon(tokio::spawn(binding)).await.expect("no panic").expect("it binds");
    use_it(&branch, &master).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_ends_with_the_thread_of_its_branch() {
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let master = MasterActor::new("master").respond("stuck", move |(): ()| {
        let _ = came.send(());
        std::future::pending::<Result<(), ActionError>>()
    });
    let master = master.start_on_thread().expect("the thread starts");
    let address = soon(master.listen(Listen::tcp("127.0.0.1:0"))).await.expect("it listens");
    let (dial, end) = EndingDial::new();
    let branch = soon(BranchActor::new("one").dial(dial).bind(&address)).await.expect("it binds");
    let call = tokio::spawn({
        let branch = branch.clone();
        async move { branch.call::<()>("stuck", ()).within(Duration::MAX).await }
    });
    soon(coming.recv()).await.expect("the request comes");
    // Another branch takes the name over: the first one is refused for good, and ends.
    let second = soon(BranchActor::new("one").replace().bind(&address)).await.expect("it binds");
    let error = soon(call).await.expect("no panic").expect_err("its branch has ended");
    assert_eq!(error.fate(), Fate::Unknown);
    assert!(soon(branch.closed()).await.message().contains("another branch"));
    soon(end).await.expect("the thread has ended");
    assert!(soon(branch.call::<()>("stuck", ())).await.is_err());
    assert!(soon(branch.drain(Duration::ZERO)).await.is_err());
    soon(second.drain(Duration::ZERO)).await.expect("it drains");
}

#[tokio::test]
async fn a_bind_that_waits_for_its_master_ends_with_its_future() {
    let (dial, end) = EndingDial::new();
    let wait = Duration::from_millis(1);
    let patient = BranchActor::new("one").dial(dial).backoff(wait, wait).wait_for_master(Duration::MAX);
    let binding = patient.bind("127.0.0.1:0");
    let given_up = tokio::time::timeout(Duration::from_millis(50), binding).await;
    assert!(given_up.is_err(), "nobody listens");
    soon(end).await.expect("the thread has ended");
}

#[tokio::test]
async fn a_bind_that_fails_gives_its_error_and_ends_its_thread() {
    let (_master, address) = master().await;
    let (dial, end) = EndingDial::new();
    let refused = soon(BranchActor::new("master").dial(dial).bind(&address)).await;
    let refused = refused.expect_err("the name of the master is taken");
    assert!(matches!(refused, BindError::Refused { may_return: false, .. }), "{refused}");
    soon(end).await.expect("the thread has ended");
    let wrong = soon(BranchActor::new("one").bind("nowhere")).await.expect_err("it is no address");
    assert!(matches!(wrong, BindError::Address(_)), "{wrong}");
}

#[tokio::test]
async fn dropping_a_bind_gives_it_up() {
    let (dropped, drops) = oneshot::channel();
    let (begun, begins) = oneshot::channel();
    let dial = EndlessDial(Mutex::new(Some((OnDrop(Some(dropped)), begun))));
    let binding = tokio::spawn(BranchActor::new("one").dial(dial).bind("127.0.0.1:0"));
    soon(begins).await.expect("it dials");
    binding.abort();
    soon(drops).await.expect("the dial is given up");
}

#[tokio::test]
async fn a_bind_that_is_dropped_when_the_branch_is_bound_ends_the_branch() {
    let (master, address) = master().await;
    let (dial, end) = EndingDial::new();
    let mut binding = BranchActor::new("one").dial(dial).bind(&address);
    assert!(futures::poll!(&mut binding).is_pending());
    until_known(&master, "one", true).await;
    drop(binding);
    until_known(&master, "one", false).await;
    soon(end).await.expect("the thread has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_on_a_thread_spreads_its_sessions() {
    let master = MasterActor::new("master").arbiters(2).respond_all(where_am_i());
    let master = master.start_on_thread().expect("the thread starts");
    let address = soon(master.listen(Listen::tcp("127.0.0.1:0"))).await.expect("it listens");
    let mut places = Vec::new();
    for name in ["one", "two"] {
        let branch = soon(BranchActor::new(name).bind(&address)).await.expect("it binds");
        places.push(soon(branch.call::<String>("where", ())).await.expect("the master answers"));
    }
    assert_ne!(places[0], places[1]);
    soon(master.drain(Duration::from_secs(5))).await.expect("it drains");
}

#[tokio::test]
async fn a_master_that_cannot_listen_says_why() {
    let (master, _) = master().await;
    let error = soon(master.listen(Listen::tcp("nowhere"))).await.expect_err("it is no address");
    assert_eq!(error.address, Address::from("nowhere"));
    soon(master.drain(Duration::ZERO)).await.expect("it drains");
    let error = soon(master.listen(Listen::tcp("127.0.0.1:0"))).await.expect_err("it has ended");
    assert!(error.to_string().contains("has ended"), "{error}");
}

#[actix::test]
async fn a_bind_in_an_actix_system_chooses_the_current_arbiter() {
    let mesh = Mesh::start().await;
    let _branch = mesh.bind(BranchActor::new("one").respond_all(where_am_i())).await;
    let place: String = soon(mesh.master.call("where", ())).await.expect("the branch answers");
    assert_eq!(place, format!("{:?}", thread()));
}

/// It panicked: a task of `tokio::spawn` is outside the `LocalSet` of the arbiter.
#[actix::test]
async fn a_bind_that_is_spawned_in_an_actix_system_chooses_the_arbiter_too() {
    let mesh = Mesh::start().await;
    let binding = BranchActor::new("one").respond_all(where_am_i()).bind(&mesh.address);
    let _branch = soon(tokio::spawn(binding)).await.expect("no panic").expect("it binds");
    let place: String = soon(mesh.master.call("where", ())).await.expect("the branch answers");
    assert_eq!(place, format!("{:?}", thread()));
}

#[tokio::test]
async fn the_arbiter_of_a_system_that_has_ended_is_not_chosen() {
    let (master, address) = master().await;
    thread::spawn(move || {
        drop(actix::System::new());
        let binding = BranchActor::new("one").respond_all(where_am_i()).bind(address);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(binding).expect("it binds")
    })
    .join()
    .expect("no panic");
    soon(master.call::<String>("where", ())).await.expect("the branch answers");
}

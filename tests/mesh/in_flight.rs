//! Calls in flight, many of them, from many threads, and of nodes whose thread is busy or gone.

use crate::cut::CutDial;
use crate::ends::stuck;
use crate::links::{gated, quick, until};
use crate::{Mesh, OnDrop, soon};
use actix::{Arbiter, System};
use futures::future::{join_all, maybe_done, poll_fn};
use futures::poll;
use meshwork::limits::{IN_FLIGHT_MAX, OUTBOX_REQUEST_LEN_MAX, RESPONSE_POOL_MAX};
use meshwork::prelude::*;
use meshwork::{Describe, Encoding, Pattern, Payload, Status};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Binds a branch on a thread of its own.
pub(crate) async fn elsewhere(
    address: meshwork::Address,
    branch: impl FnOnce() -> BranchActor + Send + 'static,
) -> (Branch, Arbiter) {
    let arbiter = Arbiter::new();
    let (bound, binding) = oneshot::channel();
    arbiter.spawn_fn(move || {
        actix_rt::spawn(async move {
            let _ = bound.send(branch().bind(address).await.expect("it binds"));
        });
    });
    (soon(binding).await.expect("it binds"), arbiter)
}

/// An action that keeps its whole thread until it is let go.
pub(crate) fn blocking() -> (Responders, mpsc::UnboundedReceiver<()>, std::sync::mpsc::Sender<()>) {
    let (came, coming) = mpsc::unbounded_channel();
    let (let_go, going) = std::sync::mpsc::channel();
    let going = Mutex::new(going);
    let responders = Responders::new().respond("block", move |(): ()| {
        let _ = came.send(());
        let _ = going.lock().expect("no test panics in here").recv();
        async { Ok(()) }
    });
    (responders, coming, let_go)
}

#[actix::test]
async fn calls_whose_node_is_busy_end_at_their_own_deadlines() {
    let mesh = Mesh::of(MasterActor::new("master").respond("x", |(): ()| async { Ok(7) })).await;
    let (provider, _coming) = stuck("provider");
    let _provider = mesh.bind(provider).await;
    let (block, mut blocked, let_go) = blocking();
    let busy = move || BranchActor::new("busy").respond_all(block);
    let (branch, arbiter) = elsewhere(mesh.address.clone(), busy).await;
    for order in [[1, 2, 3, 4], [3, 1, 4, 2]] {
        let blocking = actix_rt::spawn(branch.call::<()>("block", ()));
        soon(blocked.recv()).await.expect("it is busy");
        let (ended, mut ending) = mpsc::unbounded_channel();
        let mut last = Instant::now();
        for number in order {
            let within = Duration::from_millis(number);
            let mut calling = Box::pin(branch.call::<()>("stuck", ()).within(within));
            let earliest = Instant::now() + within;
            assert!(poll!(&mut calling).is_pending());
            let latest = Instant::now() + within;
            last = last.max(latest);
            let ended = ended.clone();
            actix_rt::spawn(async move {
                let _ = ended.send((earliest, latest, calling.await));
            });
        }
        let answered = actix_rt::spawn(branch.call::<i32>("x", ()));
        let endless = actix_rt::spawn(branch.call::<()>("stuck", ()).within(Duration::MAX));
        while Instant::now() <= last {
            tokio::task::yield_now().await;
        }
        let mut before = None;
        for _ in order {
            let (earliest, latest, outcome) = soon(ending.recv()).await.expect("it ends");
            assert!(before.is_none_or(|before| before <= latest), "they end in the order of their deadlines");
            before = Some(earliest);
            let error = outcome.expect_err("nobody answers it");
            // The node was busy before it could send them.
            assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::NotSent), "{error}");
        }
        let_go.send(()).expect("it waits for that");
        assert_eq!(soon(answered).await.expect("it ends"), Ok(7), "a deadline is of one call alone");
        assert_eq!(soon(blocking).await.expect("it ends"), Ok(()));
        assert!(!endless.is_finished());
        endless.abort();
    }
    arbiter.stop();
}

#[actix::test]
async fn calls_that_have_left_a_link_that_is_lost_may_have_run() {
    let cut = CutDial::default();
    let mesh = Mesh::of(MasterActor::new("master").respond("x", |(): ()| async { Ok(7) })).await;
    let branch = mesh.bind(quick("one", &cut)).await;
    // The calls of a silent link are in flight and never answered.
    cut.silence();
    let mut calls: Vec<_> = (0..10).map(|_| branch.call::<i32>("x", ()).within(Duration::MAX)).collect();
    for call in &mut calls {
        assert!(poll!(call).is_pending());
    }
    assert_eq!(branch.snapshot().await.unwrap().calls_in_flight, 10, "they have left");
    cut.cut();
    for outcome in soon(join_all(calls)).await {
        let error = outcome.expect_err("the link is lost");
        assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::Unknown));
    }
    cut.mend();
    assert_eq!(soon(branch.call::<i32>("x", ())).await, Ok(7));
}

#[actix::test]
async fn a_full_outbox_refuses_each_call_and_one_that_is_read_takes_them_again() {
    let cut = CutDial::default();
    let mesh = Mesh::of(
        MasterActor::new("master")
            .respond("x", |(): ()| async { Ok(7) })
            .respond("len", |bytes: meshwork::ByteBuf| async move { Ok(bytes.len()) }),
    )
    .await;
    let branch = mesh.bind(quick("one", &cut)).await;
    cut.silence();
    // One large payload, which all calls share.
    let large = Payload::encode(Encoding::MessagePack, &meshwork::ByteBuf::from(vec![7; 15 << 20])).unwrap();
    let count = OUTBOX_REQUEST_LEN_MAX / large.len() + 1;
    let mut calls: Vec<_> =
        (0..count).map(|_| branch.call_raw("len", large.clone()).within(Duration::MAX)).collect();
    for call in &mut calls {
        assert!(poll!(call).is_pending());
    }
    assert_eq!(branch.snapshot().await.unwrap().calls_in_flight, count);
    let one_by_one = join_all((0..50).map(|_| branch.call::<i32>("x", ())));
    let (one_by_one, many) = soon(futures::future::join(one_by_one, branch.call_many("x", [(); 50]))).await;
    let (large, by_message) = (
        soon(branch.call_raw("len", large)).await.map(drop),
        soon(branch.addr().send(Call::<i32>::new("x", ()))).await.unwrap(),
    );
    for outcome in one_by_one.into_iter().chain(many).chain([large.map(|()| 0), by_message]) {
        let error = outcome.expect_err("there is no room");
        assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    }
    assert_eq!(branch.snapshot().await.unwrap().calls_in_flight, count);
    drop(calls);
    cut.mend();
    soon(async { while branch.call::<i32>("x", ()).await != Ok(7) {} }).await;
}

#[actix::test]
async fn a_call_that_is_not_polled_again_keeps_nobody_waiting_and_its_reply() {
    let (open, (came, mut coming)) = (watch::Sender::new(false), mpsc::unbounded_channel());
    let mesh = Mesh::of(
        MasterActor::new("master").respond_all(gated(&open, came)).respond("x", |(): ()| async { Ok(7) }),
    )
    .await;
    let branch = mesh.branch("one").await;
    let mut calls: Vec<_> = (0..3).map(|_| branch.call::<i32>("gated", ()).within(Duration::MAX)).collect();
    for call in &mut calls {
        assert!(poll!(call).is_pending());
        soon(coming.recv()).await.expect("it is asked");
    }
    let in_flight = async || branch.snapshot().await.unwrap().calls_in_flight;
    assert_eq!(in_flight().await, 3);
    drop(calls.pop());
    assert_eq!(in_flight().await, 2, "one that is dropped is in flight no more");
    for _ in 0..100 {
        assert_eq!(soon(branch.call::<i32>("x", ())).await, Ok(7));
    }
    open.send_replace(true);
    assert_eq!(soon(branch.call::<i32>("gated", ())).await, Ok(1));
    assert_eq!(in_flight().await, 0, "they have been answered, all the same");
    for _ in 0..100 {
        assert_eq!(soon(branch.call::<i32>("x", ())).await, Ok(7));
    }
    drop(calls.pop());
    assert_eq!(soon(calls.pop().expect("it is the first")).await, Ok(1));
}

/// An action that waits for a permit, and counts the requests that wait.
fn waiting(permits: &Arc<Semaphore>, asked: &Arc<AtomicUsize>) -> MasterActor {
    let (permits, asked) = (Arc::clone(permits), Arc::clone(asked));
    MasterActor::new("master").respond("wait", move |number: u32| {
        let permits = Arc::clone(&permits);
        asked.fetch_add(1, Ordering::Relaxed);
        async move {
            let _one = permits.acquire().await;
            Ok(number)
        }
    })
}

async fn until_count(count: &AtomicUsize, wanted: usize) {
    let reached = poll_fn(|context| {
        context.waker().wake_by_ref();
        if count.load(Ordering::Relaxed) >= wanted {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("it happens");
}

#[actix::test]
async fn of_too_many_calls_at_once_as_many_go_as_there_are_places_and_the_others_are_refused() {
    const OVER: usize = 464;
    let (permits, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let mesh = Mesh::of(waiting(&permits, &asked)).await;
    let branch = mesh.branch("one").await;
    let calling = actix_rt::spawn(async move {
        let numbers = 0..u32::try_from(IN_FLIGHT_MAX + OVER).expect("it is one");
        branch.call_many::<u32>("wait", numbers).await
    });
    until_count(&asked, IN_FLIGHT_MAX).await;
    permits.add_permits(IN_FLIGHT_MAX);
    let outcomes = tokio::time::timeout(Duration::from_secs(60), calling).await.expect("it ends").unwrap();
    assert_eq!(outcomes.len(), IN_FLIGHT_MAX + OVER);
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(same) => assert_eq!((same as usize, number < IN_FLIGHT_MAX), (number, true)),
            Err(error) => {
                assert!(number >= IN_FLIGHT_MAX, "{number}: {error}");
                assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
            }
        }
    }
}

#[actix::test]
async fn many_calls_that_are_dropped_in_the_middle_are_cancelled_at_the_far_end() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let master = MasterActor::new("master").respond("even", move |number: u32| {
        let told = told.clone();
        async move {
            if number.is_multiple_of(2) {
                return Ok(number);
            }
            let (dropped, drops) = oneshot::channel();
            let _told = OnDrop(Some(dropped));
            let _ = told.send(drops);
            std::future::pending().await
        }
    });
    let mesh = Mesh::of(master).await;
    let branch = mesh.branch("one").await;
    let (node, other) = (Node::from(&branch), branch.call::<u32>("even", 1_u32).within(Duration::MAX));
    let other = actix_rt::spawn(other);
    let others_drop = soon(tells.recv()).await.expect("it is asked");
    let many = actix_rt::spawn(async move { node.call_many::<u32>("even", 0..1_000_u32).await });
    let mut drops = Vec::new();
    for _ in 0..500 {
        drops.push(soon(tells.recv()).await.expect("it is asked"));
    }
    assert!(!many.is_finished());
    many.abort();
    for dropped in drops {
        soon(dropped).await.expect("its future is dropped");
    }
    assert_eq!(branch.snapshot().await.unwrap().calls_in_flight, 1);
    assert!(!other.is_finished(), "it is none of them");
    other.abort();
    soon(others_drop).await.expect("its future is dropped");
}

/// The pool of response actors was once indexed past its end, and the panic ended the branch.
#[actix::test]
async fn more_calls_that_left_alone_than_response_actors_are_kept_are_answered_in_reverse() {
    for count in [5_000, 20_000] {
        assert!(count > RESPONSE_POOL_MAX);
        let (asked, mut asking) = mpsc::unbounded_channel();
        let master = MasterActor::new("master").respond("later", move |number: u32| {
            let (answer, answered) = oneshot::channel();
            let _ = asked.send((number, answer));
            async move { answered.await.map_err(|_| ActionError::new("Gone", "nobody answers")) }
        });
        let mesh = Mesh::of(master).await;
        let branch = mesh.branch("one").await;
        let mut calls = Vec::new();
        for number in 0..u32::try_from(count).expect("it is one") {
            let mut call = Box::pin(branch.call::<u32>("later", number).within(Duration::MAX));
            assert!(poll!(&mut call).is_pending());
            // The branch has had its turn when it has answered this.
            assert_eq!(branch.snapshot().await.unwrap().calls_in_flight, calls.len() + 1);
            calls.push(call);
        }
        let mut asked = Vec::new();
        for _ in 0..count {
            asked.push(soon(asking.recv()).await.expect("it is asked"));
        }
        for (number, answer) in asked.into_iter().rev() {
            answer.send(number * 2).expect("somebody waits");
        }
        let answered =
            tokio::time::timeout(Duration::from_secs(60), join_all(calls)).await.expect("they are");
        for (number, outcome) in (0..).zip(answered) {
            assert_eq!(outcome, Ok(number * 2));
        }
        assert_eq!(branch.snapshot().await.unwrap().calls_in_flight, 0);
    }
}

#[actix::test]
async fn calls_of_several_threads_arrive_in_the_order_of_each_thread() {
    const THREADS: usize = 4;
    const CALLS: usize = 2_000;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let mesh =
        Mesh::of(MasterActor::new("master").respond("hear", move |(thread, number): (usize, usize)| {
            hears.lock().expect("it works").push((thread, number));
            async move { Ok(number) }
        }))
        .await;
    let branch = mesh.branch("one").await;
    let (done, mut doing) = mpsc::unbounded_channel();
    let begin = Arc::new(std::sync::Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (node, done, begin) = (Node::from(&branch), done.clone(), Arc::clone(&begin));
            std::thread::spawn(move || {
                begin.wait();
                tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
                    let mut calls = Vec::new();
                    for number in 0..CALLS {
                        // Requests are written by the caller, and now and then by the actor.
                        let call = node.call::<usize>("hear", (thread, number));
                        let call = if number % 7 == 0 { call.fail_when_down() } else { call };
                        let mut call = Box::pin(maybe_done(call));
                        // The call may have been answered at once.
                        let _ = poll!(&mut call);
                        calls.push(call);
                    }
                    join_all(&mut calls).await;
                    let outcomes = calls.iter_mut().map(|call| call.as_mut().take_output());
                    let _ =
                        done.send(outcomes.map(|outcome| outcome.expect("it is there")).collect::<Vec<_>>());
                });
            })
        })
        .collect();
    for _ in 0..THREADS {
        let outcomes = soon(doing.recv()).await.expect("it calls");
        assert!(outcomes.into_iter().eq((0..CALLS).map(Ok)));
    }
    for thread in threads {
        thread.join().expect("it ends");
    }
    let heard = std::mem::take(&mut *heard.lock().unwrap());
    for thread in 0..THREADS {
        let of_thread = heard.iter().filter(|(of, _)| *of == thread).map(|(_, number)| *number);
        assert!(of_thread.eq(0..CALLS), "each once and in order");
    }
}

#[actix::test]
async fn calls_through_the_handle_of_a_branch_end_with_its_system() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider).await;
    let (bound, binding) = oneshot::channel();
    let (end, ends) = oneshot::channel::<()>();
    let address = mesh.address.clone();
    let thread = std::thread::spawn(move || {
        System::new().block_on(async move {
            let branch = BranchActor::new("elsewhere")
                .respond("own", |(): ()| std::future::pending::<Result<(), ActionError>>());
            let _ = bound.send(branch.bind(address).await.expect("it binds"));
            let _ = ends.await;
        });
    });
    let branch = soon(binding).await.unwrap();
    let calls: Vec<_> = ["stuck", "own"]
        .map(|action| actix_rt::spawn(branch.call::<()>(action, ()).within(Duration::MAX)))
        .into();
    let node = Node::from(&branch);
    let many = actix_rt::spawn(async move { node.call_many::<()>("stuck", [(); 100]).await });
    for _ in 0..101 {
        soon(coming.recv()).await.expect("it is asked");
    }
    let mut unpolled = branch.call::<()>("stuck", ()).within(Duration::MAX);
    assert!(poll!(&mut unpolled).is_pending());
    end.send(()).expect("it waits for that");
    thread.join().expect("it ends");
    let mut outcomes = soon(many).await.unwrap();
    for call in calls {
        outcomes.push(soon(call).await.unwrap());
    }
    outcomes.push(soon(unpolled).await);
    assert_eq!(outcomes.len(), 103);
    for outcome in outcomes {
        assert_eq!(outcome.expect_err("its node is gone").code(), Code::LINK_LOST);
    }
    let error = soon(branch.call::<()>("stuck", ())).await.expect_err("its node is gone");
    assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::NotSent));
}

#[actix::test]
async fn the_longest_time_there_is_is_for_ever() {
    let mesh = Mesh::of(MasterActor::new("master").respond("x", |(): ()| async { Ok(7) })).await;
    let branch = mesh.bind(BranchActor::new("one").respond("y", |(): ()| async { Ok(8) })).await;
    // A deadline a little below `Duration::MAX` means for ever too, and is no error.
    for within in [Duration::MAX, Duration::MAX - Duration::from_nanos(1), Duration::from_secs(u64::MAX / 4)]
    {
        for node in [&branch as &Node, &mesh.master] {
            assert_eq!(soon(node.call::<i32>("x", ()).within(within)).await, Ok(7));
            assert_eq!(soon(node.call::<i32>("y", ()).within(within)).await, Ok(8));
        }
        let call = || Call::<i32>::new("x", ()).within(within);
        assert_eq!(soon(branch.addr().send(call())).await.unwrap(), Ok(7));
        assert_eq!(soon(mesh.master.addr().send(call())).await.unwrap(), Ok(7));
        let describe = || Describe { pattern: Pattern::new("x").unwrap(), within };
        assert_eq!(soon(branch.addr().send(describe())).await.unwrap().unwrap().len(), 1);
        assert_eq!(soon(mesh.master.addr().send(describe())).await.unwrap().unwrap().len(), 1);
    }
    soon(branch.drain(Duration::MAX)).await.unwrap();
    until(&branch, |status| matches!(status, Status::Closed(_))).await;
    soon(mesh.master.drain(Duration::MAX)).await.unwrap();
    until(&mesh.master, |status| matches!(status, Status::Closed(_))).await;
}

#[actix::test]
async fn calls_through_the_handle_of_a_master_end_with_its_system() {
    let (started, starting) = oneshot::channel();
    let (end, ends) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        System::new().block_on(async move {
            let master = MasterActor::new("master")
                .respond("own", |(): ()| std::future::pending::<Result<(), ActionError>>());
            let actor = master.start();
            let address = actor.send(Listen::tcp("127.0.0.1:0")).await.expect("it runs").expect("it listens");
            let _ = started.send((Master::from(actor), address));
            let _ = ends.await;
        });
    });
    let (master, address) = soon(starting).await.unwrap();
    let (provider, mut coming) = stuck("provider");
    let _provider = provider.bind(address).await.unwrap();
    crate::until_known(&master, "provider", true).await;
    let mut own = Box::pin(master.call::<()>("own", ()).within(Duration::MAX));
    assert!(poll!(&mut own).is_pending());
    let stuck = actix_rt::spawn(master.call::<()>("stuck", ()).within(Duration::MAX));
    soon(coming.recv()).await.expect("it is asked");
    end.send(()).expect("it waits for that");
    thread.join().expect("it ends");
    for outcome in [soon(own).await, soon(stuck).await.unwrap()] {
        assert_eq!(outcome.expect_err("its node is gone").code(), Code::LINK_LOST);
    }
    let error = soon(master.call::<()>("stuck", ())).await.expect_err("its node is gone");
    assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::NotSent));
}

//! Blocking work: the node goes on while it runs, so much of it runs at once as may, and each request ends with its true fate.

use crate::{Mesh, soon};
use meshwork::Limits;
use meshwork::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;
use tokio::sync::mpsc as told;

/// So many pieces of work at once, and so many that wait.
fn limits(max: usize, waiting_max: usize) -> Limits {
    let mut limits = Limits::default();
    (limits.blocking_max, limits.blocking_waiting_max) = (max, waiting_max);
    limits
}

/// Work that says when it has begun, and ends when it is told.
struct Held {
    begun: told::UnboundedReceiver<u32>,
    end: mpsc::Sender<()>,
}

impl Held {
    /// The work, as the action `hold`, which replies with its argument.
    fn work() -> (Self, Responders) {
        let ((begin, begun), (end, ended)) = (told::unbounded_channel(), mpsc::channel());
        let ended = Mutex::new(ended);
        let hold = move |number: u32| {
            begin.send(number)?;
            ended.lock().expect("no test panics while it holds this").recv()?;
            Ok(number)
        };
        (Self { begun, end }, Responders::new().respond_blocking("hold", hold))
    }

    async fn begun(&mut self) -> u32 {
        soon(self.begun.recv()).await.expect("the node runs")
    }

    fn end_one(&self) {
        self.end.send(()).expect("the node runs");
    }
}

/// What an async closure would do to its node: no heartbeat leaves while it computes, so its link is given up.
#[actix::test]
async fn a_branch_whose_responders_burn_every_processor_stays_bound_and_answers_others() {
    let heartbeat = Duration::from_millis(500);
    let mesh = Mesh::of(MasterActor::new("master").heartbeat(heartbeat)).await;
    let burn = |_: ()| {
        let begun = Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_secs(3) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        Ok(sum)
    };
    let burning = BranchActor::new("burning")
        .limits(limits(4, 4))
        .respond_blocking("burn", burn)
        .respond("quick", |number: u32| async move { Ok(number) });
    let _burning = mesh.bind(burning).await;
    let session = || async { mesh.master.snapshot().await.expect("it runs").sessions[0].session };
    let before = session().await;
    let caller = mesh.branch("caller").await;
    let burns: Vec<_> =
        (0..4).map(|_| actix_rt::spawn(caller.call::<u64>("burn", ()).into_future())).collect();
    let is_over = async {
        for burn in burns {
            assert!(burn.await.expect("no panic").expect("it is computed") > 0);
        }
    };
    let mut quick = 0;
    let answers = async {
        loop {
            assert_eq!(caller.call::<u32>("quick", quick).await, Ok(quick));
            quick += 1;
        }
    };
    soon(futures::future::select(Box::pin(is_over), Box::pin(answers))).await;
    assert!(quick > 0);
    assert_eq!(session().await, before, "its link was never given up");
}

#[actix::test]
async fn work_runs_beside_its_node_for_every_caller() {
    let here = std::thread::current().id();
    let responders = move || {
        Responders::new()
            .respond_blocking("apart", move |(): ()| Ok(std::thread::current().id() != here))
            .respond_blocking("of", |(): (), context: CallContext| {
                Ok(format!("{} {}", context.caller(), context.action()))
            })
            .respond_blocking("back", |ask: Callback<u32, u32>| {
                // It waits for what is awaited elsewhere.
                let answer = tokio::runtime::Handle::current().block_on(ask.call(20))?;
                Ok(answer + 1)
            })
    };
    let mesh = Mesh::of(MasterActor::new("master").respond_all(responders())).await;
    let caller = mesh.branch("caller").await;
    let own = mesh.bind(BranchActor::new("own").respond_all(responders())).await;
    for (name, node) in
        [("caller", Node::from(&caller)), ("own", Node::from(&own)), ("master", Node::from(&mesh.master))]
    {
        assert_eq!(soon(node.call::<bool>("apart", ())).await, Ok(true));
        assert_eq!(soon(node.call::<String>("of", ())).await, Ok(format!("{name} of")));
        assert_eq!(soon(node.call::<u32>("back", Callback::new(|number: u32| 2 * number))).await, Ok(41));
    }
}

#[actix::test]
async fn work_above_the_bounds_goes_to_another_provider_or_is_refused() {
    let mesh = Mesh::start().await;
    let caller = mesh.branch("caller").await;
    let ((mut one, of_one), (mut two, of_two)) = (Held::work(), Held::work());
    let _one = mesh.bind(BranchActor::new("one").limits(limits(1, 0)).respond_all(of_one)).await;
    let _two = mesh.bind(BranchActor::new("two").limits(limits(1, 0)).respond_all(of_two)).await;
    let call = |number: u32| actix_rt::spawn(caller.call::<u32>("hold", number).into_future());
    let (first, second) = (call(1), call(2));
    let mut begun = [one.begun().await, two.begun().await];
    begun.sort_unstable();
    assert_eq!(begun, [1, 2], "each has one");
    let refused = soon(call(3)).await.expect("no panic").expect_err("there is no room");
    assert_eq!((refused.code(), refused.fate()), (Code::OVERLOADED, Fate::NotSent));
    one.end_one();
    two.end_one();
    assert_eq!((soon(first).await.expect("no panic"), soon(second).await.expect("no panic")), (Ok(1), Ok(2)));
}

#[actix::test]
async fn work_whose_caller_goes_before_it_begins_never_runs() {
    let mesh = Mesh::start().await;
    let (mut held, responders) = Held::work();
    let provider = mesh.bind(BranchActor::new("provider").limits(limits(1, 8)).respond_all(responders)).await;
    let caller = mesh.branch("caller").await;
    let call = |number: u32| caller.call::<u32>("hold", number);
    let first = actix_rt::spawn(call(1).into_future());
    assert_eq!(held.begun().await, 1);
    let late = soon(call(2).within(Duration::from_millis(50))).await.expect_err("it waits too long");
    assert_eq!(late.code(), Code::REQUEST_TIMEOUT);
    let dropped = actix_rt::spawn(call(3).into_future());
    while provider.snapshot().await.expect("it runs").answering < 2 {}
    dropped.abort();
    while provider.snapshot().await.expect("it runs").answering > 1 {}
    held.end_one();
    assert_eq!(soon(first).await.expect("no panic"), Ok(1));
    held.end_one();
    assert_eq!(soon(call(4)).await, Ok(4));
    assert_eq!((held.begun().await, held.begun.try_recv().ok()), (4, None), "neither 2 nor 3");
}

/// The caller is freed, and the work goes on: it keeps its place and its permit, and the drain does not end the process in its middle.
#[actix::test]
async fn work_whose_caller_goes_while_it_runs_keeps_its_place_and_a_drain_waits_for_it() {
    let mesh = Mesh::start().await;
    let (mut held, responders) = Held::work();
    let provider =
        BranchActor::new("provider").limits(limits(2, 8)).respond_all(responders.permits("hold", 1));
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let call = |number: u32| caller.call::<u32>("hold", number).within(Duration::from_millis(50));
    assert_eq!(soon(call(1)).await.expect_err("it is held").fate(), Fate::Unknown);
    assert_eq!(held.begun().await, 1);
    while provider.snapshot().await.expect("it runs").answering > 0 {}
    let refused = soon(call(2)).await.expect_err("the permit is held");
    assert_eq!((refused.code(), refused.fate()), (Code::OVERLOADED, Fate::NotSent));
    let mut drain = Box::pin(provider.drain(Duration::MAX));
    let too_early = tokio::time::timeout(Duration::from_millis(200), &mut drain).await;
    assert!(too_early.is_err());
    held.end_one();
    soon(drain).await.expect("it drains");
}

#[actix::test]
async fn a_master_waits_in_its_drain_for_work_whose_caller_has_gone() {
    let (mut held, responders) = Held::work();
    let mesh = Mesh::of(MasterActor::new("master").respond_all(responders)).await;
    let caller = mesh.branch("caller").await;
    let late = soon(caller.call::<u32>("hold", 1).within(Duration::from_millis(50))).await;
    assert_eq!(late.expect_err("it is held").fate(), Fate::Unknown);
    assert_eq!(held.begun().await, 1);
    let mut drain = Box::pin(mesh.master.drain(Duration::MAX));
    let too_early = tokio::time::timeout(Duration::from_millis(200), &mut drain).await;
    assert!(too_early.is_err());
    held.end_one();
    soon(drain).await.expect("it drains");
}

#[actix::test]
async fn a_panic_of_blocking_work_is_an_error_of_that_call_only() {
    let mesh = Mesh::start().await;
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    let work = move |panics: bool| {
        count.fetch_add(1, Ordering::SeqCst);
        assert!(!panics, "it was asked to");
        Ok(())
    };
    let _provider =
        mesh.bind(BranchActor::new("provider").limits(limits(1, 64)).respond_blocking("work", work)).await;
    let caller = mesh.branch("caller").await;
    for round in 0..16 {
        let outcome = soon(caller.call::<()>("work", round % 2 == 0)).await;
        match outcome {
            Ok(()) => assert_eq!(round % 2, 1),
            Err(error) => {
                assert_eq!((error.code(), error.fate()), (Code::PANICKED, Fate::Failed));
                assert!(error.message().contains("it was asked to"), "{error}");
            }
        }
    }
    assert_eq!(ran.load(Ordering::SeqCst), 16);
}

#[actix::test]
async fn arguments_of_blocking_work_that_do_not_fit_are_named() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider").respond_blocking("half", |number: u32| Ok(number / 2));
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let error = soon(caller.call::<u32>("half", "a text")).await.expect_err("it is no number");
    assert_eq!(error.code(), Code::CANNOT_DECODE);
    let error = soon(caller.call::<u32>("half", -1)).await.expect_err("it does not fit");
    assert!(error.message().contains("-1"), "{error}");
}

/// A layer asks the responder in a future of its own: the work is done where that of the node is, within its bounds.
#[cfg(feature = "tower")]
#[actix::test]
async fn work_behind_a_layer_is_bounded_as_its_node_says() {
    let mesh = Mesh::start().await;
    let (mut held, responders) = Held::work();
    let layered = responders.layer(tower::limit::ConcurrencyLimitLayer::new(8));
    let _provider = mesh.bind(BranchActor::new("provider").limits(limits(1, 0)).respond_all(layered)).await;
    let caller = mesh.branch("caller").await;
    let first = actix_rt::spawn(caller.call::<u32>("hold", 1).into_future());
    assert_eq!(held.begun().await, 1);
    let refused = soon(caller.call::<u32>("hold", 2)).await.expect_err("there is no room");
    assert_eq!((refused.code(), refused.fate()), (Code::OVERLOADED, Fate::NotSent));
    held.end_one();
    assert_eq!(soon(first).await.expect("no panic"), Ok(1));
}

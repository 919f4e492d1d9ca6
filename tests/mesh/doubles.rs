//! Calls that are idempotent: made again, they run once at their provider, and all attempts get one outcome.

use super::{Mesh, soon};
use meshwork::Limits;
use meshwork::prelude::*;
use meshwork::tower::{Idempotent, LayerCalls, RetryNotSent};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore};
use tower::timeout::TimeoutLayer;
use tower::{ServiceBuilder, ServiceExt};

/// How often an action ran, a bell that rings when it runs, and the gate that it waits at before it replies with the number of its run.
#[derive(Clone)]
struct Counted {
    ran: Arc<AtomicUsize>,
    runs: Arc<Notify>,
    gate: Arc<Semaphore>,
}

impl Counted {
    fn new(opened: usize) -> Self {
        Self { ran: Arc::default(), runs: Arc::default(), gate: Arc::new(Semaphore::new(opened)) }
    }

    fn ran(&self) -> usize {
        self.ran.load(Ordering::Relaxed)
    }

    fn responders(&self) -> Responders {
        let this = self.clone();
        let panics = self.clone();
        Responders::new()
            .respond("count", move |(): ()| {
                let Counted { ran, runs, gate } = this.clone();
                async move {
                    let number = ran.fetch_add(1, Ordering::Relaxed) + 1;
                    runs.notify_one();
                    gate.acquire().await.expect("it is never closed").forget();
                    Ok(number)
                }
            })
            .respond("panic", move |(): ()| {
                panics.ran.fetch_add(1, Ordering::Relaxed);
                async move { if true { panic!("it does") } else { Ok(()) } }
            })
    }
}

async fn provider(mesh: &Mesh, counted: &Counted) -> Branch {
    mesh.bind(BranchActor::new("provider").respond_all(counted.responders())).await
}

fn retry() -> RetryNotSent {
    RetryNotSent::budget(1.0)
        .after(Duration::from_millis(1), Duration::from_millis(2))
        .at_most(1_000)
        .at_least(1_000)
}

#[actix_rt::test]
async fn an_idempotent_call_that_may_have_run_is_made_again_and_runs_once() {
    let mesh = Mesh::start().await;
    let counted = Counted::new(0);
    let _provider = provider(&mesh, &counted).await;
    let impatient = BranchActor::new("caller")
        .layer_calls(retry())
        .layer_calls(TimeoutLayer::new(Duration::from_millis(30)));
    let caller = mesh.bind(impatient).await;
    let error = caller.call::<usize>("count", ()).await.expect_err("it is not marked");
    assert_eq!((error.code(), error.fate(), counted.ran()), (Code::REQUEST_TIMEOUT, Fate::Unknown, 1));
    let call = actix_rt::spawn(caller.call::<usize>("count", ()).idempotent());
    soon(counted.runs.notified()).await;
    soon(counted.runs.notified()).await;
    // Long enough for some attempts.
    let _ = tokio::time::timeout(Duration::from_millis(150), std::future::pending::<()>()).await;
    counted.gate.add_permits(1);
    assert_eq!(soon(call).await.expect("it does not panic"), Ok(2));
    assert_eq!(counted.ran(), 2, "once for each call");
}

#[actix_rt::test]
async fn a_key_of_the_application_is_one_call_of_its_caller_whoever_answers_here() {
    for of_master in [false, true] {
        let counted = Counted::new(100);
        let master = MasterActor::new("master");
        let master = if of_master { master.respond_all(counted.responders()) } else { master };
        let mesh = Mesh::of(master).await;
        let provider = BranchActor::new("provider");
        let provider = if of_master { provider } else { provider.respond_all(counted.responders()) };
        let provider = mesh.bind(provider).await;
        let (one, other) = (mesh.branch("one").await, mesh.branch("other").await);
        let count = |node: &Branch| node.call::<usize>("count", ()).idempotency_key("order 17");
        assert_eq!(count(&one).await, Ok(1));
        assert_eq!(count(&one).await, Ok(1), "its outcome is remembered");
        assert_eq!(count(&other).await, Ok(2), "another caller has keys of its own");
        assert_eq!(one.call::<usize>("count", ()).idempotency_key("order 18").await, Ok(3));
        assert_eq!(one.call::<usize>("count", ()).await, Ok(4), "and no key is no double");
        assert_eq!(count(&provider).await, Ok(5), "the provider may be the caller");
        assert_eq!(count(&provider).await, Ok(5));
    }
}

#[actix_rt::test]
async fn a_call_with_a_key_runs_to_its_end_though_its_caller_gives_up_or_is_gone() {
    let mesh = Mesh::start().await;
    let counted = Counted::new(0);
    let _provider = provider(&mesh, &counted).await;
    let caller = mesh.branch("caller").await;
    let count = |node: &Branch| Box::pin(node.call::<usize>("count", ()).idempotency_key("a"));
    let mut call = count(&caller);
    assert!(futures::poll!(&mut call).is_pending());
    soon(counted.runs.notified()).await;
    drop(call);
    let mut again = count(&caller);
    assert!(futures::poll!(&mut again).is_pending());
    caller.drain(Duration::ZERO).await.expect("it runs");
    soon(again).await.expect_err("its node has ended");
    // The same caller, in another life.
    let caller = mesh.branch("caller").await;
    let mut again = count(&caller);
    assert!(futures::poll!(&mut again).is_pending());
    counted.gate.add_permits(1);
    assert_eq!((soon(again).await, counted.ran()), (Ok(1), 1));
}

#[actix_rt::test]
async fn a_panic_is_the_outcome_of_all_attempts() {
    let mesh = Mesh::start().await;
    let counted = Counted::new(0);
    let _provider = provider(&mesh, &counted).await;
    let caller = mesh.branch("caller").await;
    for _ in 0..2 {
        let error = caller.call::<()>("panic", ()).idempotency_key("a").await.expect_err("it panics");
        assert_eq!((error.code(), error.fate(), counted.ran()), (Code::PANICKED, Fate::Failed, 1));
    }
}

#[actix_rt::test]
async fn calls_with_keys_are_bounded_and_one_above_the_bound_was_not_sent() {
    let mesh = Mesh::start().await;
    let counted = Counted::new(0);
    let mut limits = Limits::default();
    limits.doubles_max = 1;
    let provider = BranchActor::new("provider").limits(limits).respond_all(counted.responders());
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let call = actix_rt::spawn(caller.call::<usize>("count", ()).idempotent());
    soon(counted.runs.notified()).await;
    let error = soon(caller.call::<usize>("count", ()).idempotent()).await.expect_err("one is running");
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    counted.gate.add_permits(2);
    assert_eq!(soon(call).await.expect("it does not panic"), Ok(1));
    assert_eq!(soon(caller.call::<usize>("count", ()).idempotent()).await, Ok(2), "the first is forgotten");
}

#[actix_rt::test]
async fn an_idempotent_request_of_the_service_of_an_action_has_one_key_for_all_attempts() {
    let mesh = Mesh::start().await;
    let counted = Counted::new(0);
    let _provider = provider(&mesh, &counted).await;
    let caller = mesh.branch("caller").await;
    let count = ServiceBuilder::new()
        .layer(retry())
        .timeout(Duration::from_millis(30))
        .service(caller.service::<_, usize>("count"));
    let call = actix_rt::spawn(count.oneshot(Idempotent::new(())));
    soon(counted.runs.notified()).await;
    let _ = tokio::time::timeout(Duration::from_millis(150), std::future::pending::<()>()).await;
    counted.gate.add_permits(1);
    assert_eq!(soon(call).await.expect("it does not panic"), Ok(1));
    assert_eq!(counted.ran(), 1);
}

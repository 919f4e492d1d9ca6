//! Layers of tower around calls and responders, over live links: each layer that tower has, and those of `meshwork::tower`.

use super::{Mesh, OnDrop, soon};
use meshwork::prelude::*;
use meshwork::tower::{
    AsCall, BoxError, CircuitBreaker, IncomingRequest, IntoCallError, LayerCalls, OutgoingCall, RetryNotSent,
};
use std::collections::VecDeque;
use std::future::{pending, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, oneshot};
use tower::buffer::BufferLayer;
use tower::filter::{AsyncFilterLayer, FilterLayer};
use tower::hedge::{Hedge, Policy as HedgePolicy};
use tower::limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer, RateLimitLayer};
use tower::load_shed::LoadShedLayer;
use tower::retry::budget::TpsBudget;
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;
use tower::{Service, ServiceBuilder, ServiceExt, layer, service_fn};

/// A provider of `add`, which answers, and of `hang`, which never does.
async fn provider(mesh: &Mesh) -> Branch {
    let provider = BranchActor::new("provider")
        .respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) })
        .respond("hang", |(): ()| async { pending::<Result<(), ActionError>>().await });
    mesh.bind(provider).await
}

/// A provider whose next outcomes are these: an error with a code and a fate, or, at the end, a reply. Counts its requests.
async fn scripted(mesh: &Mesh, errors: impl IntoIterator<Item = (Code, Fate)>) -> (Branch, Arc<AtomicUsize>) {
    let (errors, asked) = (Arc::new(Mutex::new(VecDeque::from_iter(errors))), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&asked);
    let script = layer::layer_fn(move |inner| {
        let (errors, counted) = (Arc::clone(&errors), Arc::clone(&counted));
        service_fn(move |request: IncomingRequest| {
            counted.fetch_add(1, Ordering::Relaxed);
            let next = errors.lock().expect("nobody panics").pop_front();
            let mut inner = meshwork::tower::ResponderService::clone(&inner);
            async move {
                match next {
                    Some((code, fate)) => Err(CallError::new(code, fate, "as written")),
                    None => inner.call(request).await,
                }
            }
        })
    });
    let responders = Responders::new().respond("do", |(): ()| async { Ok("done".to_owned()) }).layer(script);
    (mesh.bind(BranchActor::new("provider").respond_all(responders)).await, asked)
}

fn retry() -> RetryNotSent {
    RetryNotSent::budget(0.2).after(Duration::from_millis(1), Duration::from_millis(2))
}

/// Counts the calls that pass, and lets them pass.
fn counting(
    count: Arc<AtomicUsize>,
) -> impl tower::Layer<
    meshwork::tower::NodeCalls,
    Service = impl Service<OutgoingCall, Response = meshwork::Payload, Error = CallError, Future: Send>
              + Clone
              + Send,
> + Send
+ 'static {
    layer::layer_fn(move |inner: meshwork::tower::NodeCalls| {
        let count = Arc::clone(&count);
        service_fn(move |call: OutgoingCall| {
            count.fetch_add(1, Ordering::Relaxed);
            inner.clone().call(call)
        })
    })
}

#[actix_rt::test]
async fn an_action_is_a_service() {
    let mesh = Mesh::start().await;
    let _provider = provider(&mesh).await;
    let branch = mesh.branch("caller").await;
    let mut add = branch.service("add");
    let sum: i64 = add.ready().await.expect("always").call((1, 2)).await.expect("a sum");
    assert_eq!(sum, 3);
    let error = branch.service::<_, i64>("nothing").oneshot((1, 2)).await.expect_err("nobody offers it");
    assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
    let hung = branch.service::<(), ()>("hang").within(Duration::from_millis(10)).on("provider");
    assert_eq!(hung.oneshot(()).await.expect_err("it hangs").code(), Code::REQUEST_TIMEOUT);
}

#[meshwork::actions]
trait Math {
    async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError>;
}

#[actix_rt::test]
async fn a_method_of_a_typed_requester_is_a_service() {
    let mesh = Mesh::start().await;
    let _provider = provider(&mesh).await;
    let math = MathRequester::new(mesh.branch("caller").await);
    let math = Arc::new(math);
    let mut add = ServiceBuilder::new()
        .layer(retry())
        .timeout(Duration::from_secs(5))
        .service(service_fn(move |(a, b): (i64, i64)| math.add(a, b)));
    assert_eq!(add.ready().await.expect("always").call((20, 22)).await, Ok(42));
}

#[actix_rt::test]
async fn a_timeout_of_tower_ends_the_call_and_drops_the_future_of_the_responder() {
    let mesh = Mesh::start().await;
    let (dropped, is_dropped) = oneshot::channel();
    let dropped = Arc::new(Mutex::new(Some(dropped)));
    let provider = BranchActor::new("provider").respond("hang", move |(): ()| {
        let _dropped = OnDrop(dropped.lock().expect("nobody panics").take());
        async move {
            let _held = _dropped;
            pending::<Result<(), ActionError>>().await
        }
    });
    let _provider = mesh.bind(provider).await;
    let branch = mesh.branch("caller").await;
    let hang = TimeoutLayer::new(Duration::from_millis(50)).layer_on(branch.service::<(), ()>("hang"));
    let error: BoxError = hang.oneshot(()).await.expect_err("it hangs");
    let error = error.into_call_error();
    assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
    soon(is_dropped).await.expect("it was held");
}

/// `Layer::layer` as a method whose name does not clash with that of a builder.
trait LayerOn<S>: tower::Layer<S> {
    fn layer_on(&self, service: S) -> Self::Service {
        self.layer(service)
    }
}

impl<S, L: tower::Layer<S>> LayerOn<S> for L {}

#[actix_rt::test]
async fn a_concurrency_limit_lets_so_many_calls_go_at_once() {
    let mesh = Mesh::start().await;
    let (gate, most) = (Arc::new(Semaphore::new(0)), Arc::new((AtomicUsize::new(0), AtomicUsize::new(0))));
    let (opened, seen) = (Arc::clone(&gate), Arc::clone(&most));
    let provider = BranchActor::new("provider").respond("wait", move |(): ()| {
        let (gate, most) = (Arc::clone(&opened), Arc::clone(&seen));
        async move {
            let now = most.0.fetch_add(1, Ordering::SeqCst) + 1;
            most.1.fetch_max(now, Ordering::SeqCst);
            gate.acquire().await.expect("it is open").forget();
            most.0.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let _provider = mesh.bind(provider).await;
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(ConcurrencyLimitLayer::new(3))).await;
    gate.add_permits(20);
    let calls = (0..20).map(|_| branch.call::<()>("wait", ()));
    assert!(soon(futures::future::join_all(calls)).await.iter().all(Result::is_ok));
    assert!((1..=3).contains(&most.1.load(Ordering::SeqCst)));
}

#[actix_rt::test]
async fn a_call_that_is_shed_was_not_sent() {
    let mesh = Mesh::start().await;
    let _provider = provider(&mesh).await;
    let layers = ServiceBuilder::new().layer(LoadShedLayer::new()).layer(GlobalConcurrencyLimitLayer::new(1));
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(layers)).await;
    let mut hung = Box::pin(branch.call::<()>("hang", ()));
    assert!(futures::poll!(&mut hung).is_pending());
    let error = branch.call::<i64>("add", (1, 2)).await.expect_err("one is in flight");
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    drop(hung);
    assert_eq!(branch.call::<i64>("add", (1, 2)).await, Ok(3), "its permit came back");
}

/// Retries any error, so many times.
#[derive(Clone)]
struct Times(usize, Arc<TpsBudget>);

impl<Q: Clone, R, E> Policy<Q, R, E> for Times {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Q, outcome: &mut Result<R, E>) -> Option<Self::Future> {
        use tower::retry::budget::Budget;
        if outcome.is_ok() {
            self.1.deposit();
            return None;
        }
        self.0 = self.0.checked_sub(1)?;
        self.1.withdraw().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Q) -> Option<Q> {
        Some(request.clone())
    }
}

#[actix_rt::test]
async fn the_retry_of_tower_with_its_budget_makes_calls_again() {
    let mesh = Mesh::start().await;
    let (_provider, asked) = scripted(&mesh, [(Code::UNKNOWN, Fate::Failed); 2]).await;
    let budget = Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2));
    let layer = RetryLayer::new(Times(5, budget));
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(layer)).await;
    assert_eq!(branch.call::<String>("do", ()).await.as_deref(), Ok("done"));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[derive(Clone)]
struct Always;

impl<Q: Clone> HedgePolicy<Q> for Always {
    fn clone_request(&self, request: &Q) -> Option<Q> {
        Some(request.clone())
    }

    fn can_retry(&self, _: &Q) -> bool {
        true
    }
}

#[actix_rt::test]
async fn a_hedge_asks_again_when_the_first_is_slow_and_takes_the_first_reply() {
    let mesh = Mesh::start().await;
    let asked = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&asked);
    // The first of all requests hangs.
    let provider = BranchActor::new("provider").respond("do", move |(): ()| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move { if number == 0 { pending().await } else { Ok(number) } }
    });
    let _provider = mesh.bind(provider).await;
    let branch = mesh.branch("caller").await;
    let latencies = [1, 1, 1].map(|_| 1);
    let hedge = Hedge::new_with_mock_latencies(
        branch.service::<(), usize>("do"),
        Always,
        1,
        0.5,
        Duration::from_secs(60),
        &latencies,
    );
    assert_eq!(soon(hedge.oneshot(())).await.map_err(BoxError::into_call_error), Ok(1));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

/// `RateLimit` is no `Clone`: a buffer lets many calls have it.
#[actix_rt::test]
async fn a_buffer_lets_a_layer_that_is_no_clone_stand_around_the_calls_of_a_node() {
    let mesh = Mesh::start().await;
    let _provider = provider(&mesh).await;
    let layers = ServiceBuilder::new()
        .layer(BufferLayer::<OutgoingCall>::new(16))
        .layer(RateLimitLayer::new(2, Duration::from_millis(200)));
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(layers)).await;
    let start = std::time::Instant::now();
    let calls = (0..5).map(|number| branch.call::<i64>("add", (number, 1)));
    let sums = soon(futures::future::join_all(calls)).await;
    assert_eq!(sums, (0..5).map(|number| Ok(number + 1)).collect::<Vec<_>>());
    assert!(start.elapsed() >= Duration::from_millis(400), "five calls are two of a span, twice, and one");
    let error = branch.call::<i64>("nothing", ()).await.expect_err("nobody offers it");
    assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
}

#[actix_rt::test]
async fn a_rate_of_governor_refuses_calls_above_it() {
    let mesh = Mesh::start().await;
    let _provider = provider(&mesh).await;
    let quota = governor::Quota::per_hour(std::num::NonZeroU32::new(2).expect("two"));
    let rate = Arc::new(governor::RateLimiter::direct(quota));
    let refuse = move |call: OutgoingCall| match rate.check() {
        Ok(()) => Ok(call),
        Err(_) => Err(CallError::new(Code::OVERLOADED, Fate::NotSent, "two calls an hour")),
    };
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(FilterLayer::new(refuse))).await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(branch.call::<i64>("add", (1, 2)).await.map_err(|error| (error.code(), error.fate())));
    }
    assert_eq!(codes, [Ok(3), Ok(3), Err((Code::OVERLOADED, Fate::NotSent))]);
}

#[actix_rt::test]
async fn layers_stand_in_the_order_in_which_they_are_added_around_calls_and_responders() {
    let mesh = Mesh::start().await;
    let met = Arc::<Mutex<Vec<&str>>>::default();
    let note = |name: &'static str| {
        let met = Arc::clone(&met);
        layer::layer_fn(move |inner: meshwork::tower::ResponderService| {
            let met = Arc::clone(&met);
            inner.map_request(move |request: IncomingRequest| {
                met.lock().expect("nobody panics").push(name);
                request
            })
        })
    };
    let responders = Responders::new()
        .layer(note("third"))
        .respond("a", |(): ()| async { Ok(()) })
        .respond("b", |(): ()| async { Ok(()) })
        .layer_action("a", note("of a"))
        .layer(note("last"));
    let _provider = mesh.bind(BranchActor::new("provider").respond_all(responders)).await;
    let out = |name: &'static str| {
        let met = Arc::clone(&met);
        layer::layer_fn(move |inner: meshwork::tower::NodeCalls| {
            let met = Arc::clone(&met);
            inner.map_request(move |call: OutgoingCall| {
                met.lock().expect("nobody panics").push(name);
                call
            })
        })
    };
    let caller = BranchActor::new("caller").layer_calls(out("first")).layer_calls(out("second"));
    let branch = mesh.bind(caller).await;
    branch.call::<()>("a", ()).await.expect("it answers");
    let met_by_a = std::mem::take(&mut *met.lock().expect("nobody panics"));
    assert_eq!(met_by_a, ["first", "second", "third", "of a", "last"]);
    branch.call::<()>("b", ()).await.expect("it answers");
    assert_eq!(*met.lock().expect("nobody panics"), ["first", "second", "third", "last"]);
}

#[actix_rt::test]
async fn every_call_of_a_node_goes_through_its_layers_also_those_that_it_answers_itself() {
    let mesh = Mesh::start().await;
    let _provider = provider(&mesh).await;
    let count = Arc::<AtomicUsize>::default();
    let caller = BranchActor::new("caller")
        .respond("own", |(): ()| async { Ok(()) })
        .layer_calls(counting(Arc::clone(&count)));
    let branch = mesh.bind(caller).await;
    assert_eq!(branch.call::<i64>("add", (1, 2)).await, Ok(3));
    assert_eq!(branch.call::<()>("own", ()).await, Ok(()));
    assert_eq!(MathRequester::new(&branch).add(1, 2).await, Ok(3));
    assert_eq!(branch.addr().send(Call::new("add", (1, 2))).await.expect("it runs"), Ok(3));
    assert_eq!(branch.call_many("add", [(1, 2), (3, 4)]).await, [Ok(3), Ok(7)]);
    assert_eq!(branch.call::<i64>("add", (1, 2)).within(Duration::from_secs(5)).on("provider").await, Ok(3));
    assert_eq!(count.load(Ordering::Relaxed), 7);
}

#[actix_rt::test]
async fn a_master_has_layers_around_its_own_calls() {
    let count = Arc::<AtomicUsize>::default();
    let mesh = Mesh::of(MasterActor::new("master").layer_calls(counting(Arc::clone(&count)))).await;
    let _provider = provider(&mesh).await;
    assert_eq!(mesh.master.call::<i64>("add", (1, 2)).await, Ok(3));
    let caller = mesh.branch("caller").await;
    assert_eq!(caller.call::<i64>("add", (1, 2)).await, Ok(3));
    assert_eq!(count.load(Ordering::Relaxed), 1, "those of a branch are not its own");
}

#[actix_rt::test]
async fn a_typed_call_whose_provider_has_other_types_is_made_again_by_name_through_layers() {
    let mesh = Mesh::start().await;
    let count = Arc::<AtomicUsize>::default();
    struct Adds;
    impl Math for Adds {
        async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError> {
            Ok(a + b)
        }
    }
    let typed = mesh.bind(BranchActor::new("typed").respond_all(Adds.into_responders())).await;
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(counting(Arc::clone(&count)))).await;
    assert_eq!(MathRequester::new(&branch).add(1, 2).await, Ok(3));
    // A provider without the signature takes the place of the other one. The caller may not have heard of it yet.
    typed.drain(Duration::from_secs(5)).await.expect("it runs");
    let _other = provider(&mesh).await;
    assert_eq!(MathRequester::new(&branch).add(1, 2).await, Ok(3));
    assert!((2..=3).contains(&count.load(Ordering::Relaxed)));
}

#[actix_rt::test]
async fn a_call_ends_at_its_deadline_in_a_layer_and_was_not_sent() {
    let mesh = Mesh::start().await;
    let _provider = provider(&mesh).await;
    // It asks somebody who never answers.
    let waits = AsyncFilterLayer::new(|_: OutgoingCall| pending::<Result<OutgoingCall, BoxError>>());
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(waits)).await;
    let error =
        branch.call::<i64>("add", (1, 2)).within(Duration::from_millis(20)).await.expect_err("it waits");
    assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::NotSent));
}

#[actix_rt::test]
async fn a_call_that_was_not_sent_is_made_again_and_one_that_failed_is_not() {
    let mesh = Mesh::start().await;
    let passing = [(Code::OVERLOADED, Fate::NotSent), (Code::DRAINING, Fate::NotSent)];
    let (_provider, asked) = scripted(&mesh, passing).await;
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(retry())).await;
    assert_eq!(branch.call::<String>("do", ()).await.as_deref(), Ok("done"));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    for last in
        [(Code::UNKNOWN, Fate::Failed), (Code::PROVIDER_LOST, Fate::Unknown), (Code::BAD_NAME, Fate::NotSent)]
    {
        let mesh = Mesh::start().await;
        let (_provider, asked) = scripted(&mesh, [last]).await;
        let branch = mesh.bind(BranchActor::new("caller").layer_calls(retry())).await;
        let error = branch.call::<String>("do", ()).await.expect_err("it is written so");
        assert_eq!(((error.code(), error.fate()), asked.load(Ordering::Relaxed)), (last, 1));
    }
}

#[actix_rt::test]
async fn a_call_is_made_again_until_its_provider_is_there() {
    let mesh = Mesh::start().await;
    let branch =
        mesh.bind(BranchActor::new("caller").layer_calls(retry().at_most(1_000).at_least(1_000))).await;
    let calling = actix_rt::spawn(branch.call::<i64>("add", (1, 2)));
    let _provider = provider(&mesh).await;
    assert_eq!(soon(calling).await.expect("it does not panic"), Ok(3));
}

#[actix_rt::test]
async fn retries_end_with_the_budget_and_the_last_error_is_that_of_the_call() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("caller").await;
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    let nothing = branch.service::<(), ()>("nothing").map_request(move |arguments: ()| {
        counted.fetch_add(1, Ordering::Relaxed);
        arguments
    });
    let mut nothing = retry().at_most(1_000).at_least(0).layer_on(nothing);
    let error = nothing.ready().await.expect("always").call(()).await.expect_err("nobody offers it");
    assert_eq!(
        (error.code(), error.fate(), count.load(Ordering::Relaxed)),
        (Code::ACTION_NOT_FOUND, Fate::NotSent, 1)
    );
    for _ in 0..20 {
        nothing.ready().await.expect("always").call(()).await.expect_err("nobody offers it");
    }
    // 21 calls have paid for four retries.
    assert_eq!(count.load(Ordering::Relaxed), 25);
}

#[actix_rt::test]
async fn no_retry_begins_behind_the_deadline_of_its_call() {
    let mesh = Mesh::start().await;
    let late = RetryNotSent::budget(1.0).after(Duration::from_secs(60), Duration::from_secs(60));
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(late)).await;
    let calling = branch.call::<()>("nothing", ()).within(Duration::from_secs(30));
    let error = soon(calling).await.expect_err("nobody offers it");
    assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
}

#[actix_rt::test]
async fn a_circuit_opens_when_nobody_answers_and_closes_when_somebody_does() {
    let mesh = Mesh::start().await;
    let count = Arc::<AtomicUsize>::default();
    let breaker = CircuitBreaker::new().of_calls(4).calls_min(4).rest(Duration::from_millis(100));
    let branch = mesh
        .bind(BranchActor::new("caller").layer_calls(breaker).layer_calls(counting(Arc::clone(&count))))
        .await;
    for _ in 0..4 {
        let error = branch.call::<i64>("add", (1, 2)).await.expect_err("nobody offers it");
        assert_eq!(error.code(), Code::ACTION_NOT_FOUND);
    }
    let error = branch.call::<i64>("add", (1, 2)).await.expect_err("the circuit is open");
    assert_eq!((error.code(), error.fate()), (Code::CIRCUIT_OPEN, Fate::NotSent));
    assert_eq!(count.load(Ordering::Relaxed), 4, "the last one was not made");
    let error = branch.call::<()>("another", ()).await.expect_err("nobody offers it");
    assert_eq!(error.code(), Code::ACTION_NOT_FOUND, "another action has a circuit of its own");
    let _provider = provider(&mesh).await;
    soon(async {
        while branch.call::<i64>("add", (1, 2)).await != Ok(3) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(branch.call::<i64>("add", (1, 2)).await, Ok(3));
}

#[actix_rt::test]
async fn the_error_of_an_application_opens_no_circuit() {
    let mesh = Mesh::start().await;
    let fails = |(): ()| async { Err::<(), _>(ActionError::new("OutOfStock", "none left")) };
    let _provider = mesh.bind(BranchActor::new("provider").respond("take", fails)).await;
    let breaker = CircuitBreaker::new().of_calls(4).calls_min(1);
    let branch = mesh.bind(BranchActor::new("caller").layer_calls(breaker)).await;
    for _ in 0..10 {
        let error = branch.call::<()>("take", ()).await.expect_err("none are left");
        assert_eq!((error.name(), error.fate()), ("OutOfStock", Fate::Failed));
    }
}

#[actix_rt::test]
async fn a_layer_around_a_responder_that_refuses_lets_another_provider_run_the_request() {
    let mesh = Mesh::start().await;
    let refuse = FilterLayer::new(|_: IncomingRequest| -> Result<IncomingRequest, BoxError> {
        Err(CallError::new(Code::OVERLOADED, Fate::NotSent, "not here").into())
    });
    let full = Responders::new().respond("who", |(): ()| async { Ok("full".to_owned()) }).layer(refuse);
    let free = Responders::new().respond("who", |(): ()| async { Ok("free".to_owned()) });
    let _full = mesh.bind(BranchActor::new("full").respond_all(full)).await;
    let _free = mesh.bind(BranchActor::new("free").respond_all(free)).await;
    let branch = mesh.branch("caller").await;
    for _ in 0..4 {
        assert_eq!(branch.call::<String>("who", ()).await.as_deref(), Ok("free"));
    }
}

#[actix_rt::test]
async fn the_fate_of_a_request_that_a_layer_ends_says_whether_the_responder_was_called() {
    let mesh = Mesh::start().await;
    let hang = |(): ()| async { pending::<Result<(), ActionError>>().await };
    let responders = Responders::new()
        .respond("called", hang)
        .respond("refused", hang)
        .respond("said", hang)
        .layer_action("called", TimeoutLayer::new(Duration::from_millis(10)))
        .layer_action("refused", FilterLayer::new(|_| Err::<IncomingRequest, BoxError>("no".into())))
        .layer_action(
            "said",
            FilterLayer::new(|request: IncomingRequest| -> Result<IncomingRequest, BoxError> {
                Err(ActionError::new("Forbidden", request.context().caller().to_owned()).into())
            }),
        );
    let _provider = mesh.bind(BranchActor::new("provider").respond_all(responders)).await;
    let branch = mesh.branch("caller").await;
    let mut ends = Vec::new();
    for action in ["called", "refused", "said"] {
        let error = branch.call::<()>(action, ()).await.expect_err("a layer ends it");
        ends.push((error.code(), error.fate()));
        if action == "said" {
            assert_eq!((error.name(), error.message()), ("Forbidden", "caller"));
        }
    }
    let expected = [
        (Code::REQUEST_TIMEOUT, Fate::Unknown),
        (Code::UNKNOWN, Fate::NotSent),
        (Code::UNKNOWN, Fate::Failed),
    ];
    assert_eq!(ends, expected);
}

#[test]
fn what_a_layer_sees_of_the_arguments_of_one_action_is_the_arguments() {
    assert_eq!((7.action(), 7.node(), 7.deadline()), ("", "", None));
}

#[actix::test]
async fn the_layers_of_a_node_stand_around_the_opening_of_a_stream() {
    let mesh = Mesh::start().await;
    let tried = Arc::new(AtomicUsize::new(0));
    let trying = Arc::clone(&tried);
    let refuse = layer::layer_fn(move |inner| {
        let trying = Arc::clone(&trying);
        service_fn(move |request: IncomingRequest| {
            let is_third = trying.fetch_add(1, Ordering::Relaxed) >= 2;
            let mut inner = meshwork::tower::ResponderService::clone(&inner);
            async move {
                match is_third {
                    true => inner.call(request).await,
                    false => Err(CallError::new(Code::OVERLOADED, Fate::NotSent, "it takes no more")),
                }
            }
        })
    });
    let counting = Responders::new()
        .respond_stream("count", |to: u32| async move { Ok(Streaming::new(futures::stream::iter(1..=to))) })
        .layer(refuse);
    let provider =
        BranchActor::new("provider").respond_all(counting).respond_stream("late", |(): ()| async {
            std::future::pending::<()>().await;
            Ok(Streaming::new(futures::stream::empty::<u8>()))
        });
    let provider = mesh.bind(provider).await;
    let seen = Arc::new(AtomicUsize::new(0));
    let seeing = Arc::clone(&seen);
    let look = tower::util::MapRequestLayer::new(move |call: OutgoingCall| {
        seeing.fetch_add(usize::from(call.opens_stream()), Ordering::Relaxed);
        call
    });
    let caller = BranchActor::new("caller")
        .layer_calls(look)
        .layer_calls(GlobalConcurrencyLimitLayer::new(1))
        .layer_calls(retry());
    let caller = mesh.bind(caller).await;
    // An opening that was not sent is made again, and the permit is given back when the stream begins.
    let mut first = soon(caller.stream::<u32>("count", 3).into_future()).await.expect("it begins");
    let mut second = soon(caller.stream::<u32>("count", 2).into_future()).await.expect("it begins");
    assert_eq!((tried.load(Ordering::Relaxed), seen.load(Ordering::Relaxed)), (4, 2));
    for (stream, to) in [(&mut first, 3), (&mut second, 2)] {
        for number in 1..=to {
            assert_eq!(soon(stream.next()).await, Some(Ok(number)));
        }
        assert_eq!(soon(stream.next()).await, None);
    }
    let late = caller.stream::<u8>("late", ()).within(Duration::from_millis(50)).await;
    let error = late.expect_err("it does not begin in time");
    assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
    soon(async {
        while provider.snapshot().await.expect("it runs").answering > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

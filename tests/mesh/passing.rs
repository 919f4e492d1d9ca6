//! Layers around the requests that pass a master: what they see, how they refuse, and that every request ends once whatever they do.

use super::{Mesh, soon, until_asked};
use futures::StreamExt as _;
use meshwork::prelude::*;
use meshwork::tower::{BoxError, LayerRequests, Passed, PassingRequest, Requests};
use meshwork::{Identities, Limits, token_digest};
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tower::buffer::BufferLayer;
use tower::filter::{AsyncFilterLayer, FilterLayer};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer;
use tower::{Layer, Service, ServiceBuilder, service_fn};

async fn provider(mesh: &Mesh) -> Branch {
    let provider = BranchActor::new("provider")
        .respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) })
        .respond("fail", |(): ()| async { Err::<(), _>(ActionError::new("OutOfStock", "none left")) })
        .respond("hang", |(): ()| async { pending::<Result<(), ActionError>>().await });
    mesh.bind(provider).await
}

/// A master with an action of its own, and this layer around what passes.
async fn mesh_with<L>(layer: L) -> Mesh
where
    L: Layer<Requests> + Send + 'static,
    L::Service: Service<PassingRequest, Response = Passed> + Clone + Send + 'static,
    <L::Service as Service<PassingRequest>>::Error: Into<BoxError>,
    <L::Service as Service<PassingRequest>>::Future: Send + 'static,
{
    Mesh::of(MasterActor::new("master").respond("own", |(): ()| async { Ok("own") }).layer_requests(layer))
        .await
}

/// What a layer saw of a request, and of its outcome.
type Seen = (String, String, String, usize, Result<(String, usize), (Code, String)>);

/// Tells a channel what it sees.
fn watching(
    told: mpsc::UnboundedSender<Seen>,
) -> impl Layer<
    Requests,
    Service = impl Service<PassingRequest, Response = Passed, Error = CallError, Future: Send> + Clone + Send,
> + Send
+ 'static {
    tower::layer::layer_fn(move |inner: Requests| {
        let told = told.clone();
        service_fn(move |request: PassingRequest| {
            let (told, mut inner, seen) = (told.clone(), inner.clone(), request.clone());
            async move {
                assert!(!seen.has_passed());
                let outcome = inner.call(request).await;
                assert!(seen.has_passed() && seen.deadline().is_some());
                let (action, caller, node) = (seen.action(), seen.caller(), seen.node());
                let ended = match &outcome {
                    Ok(passed) => Ok((passed.provider().to_owned(), passed.payload_len())),
                    Err(error) => Err((error.code(), error.name().to_owned())),
                };
                // The test may have ended.
                let _ = told.send((action.into(), caller.into(), node.into(), seen.payload_len(), ended));
                outcome
            }
        })
    })
}

#[actix_rt::test]
async fn layers_of_a_master_see_who_calls_what_and_the_outcome() {
    let (told, mut seen) = mpsc::unbounded_channel();
    let mesh = mesh_with(watching(told)).await;
    let _provider = provider(&mesh).await;
    let caller = mesh.branch("caller").await;
    assert_eq!(caller.call::<i64>("add", (1, 2)).await, Ok(3));
    let (action, who, node, len, ended) = soon(seen.recv()).await.expect("it was told");
    assert_eq!((&*action, &*who, &*node, len > 0), ("add", "caller", "", true));
    let (provider, len) = ended.expect("it passed");
    assert_eq!((&*provider, len > 0), ("provider", true));
    assert_eq!(caller.call::<i64>("add", (1, 2)).on("provider").await, Ok(3));
    assert_eq!(soon(seen.recv()).await.expect("it was told").2, "provider");
    assert_eq!(caller.call::<String>("own", ()).await.as_deref(), Ok("own"));
    assert_eq!(soon(seen.recv()).await.expect("it was told").4.map(|ended| ended.0), Ok("master".to_owned()));
    caller.call::<()>("fail", ()).await.expect_err("none are left");
    let failed = Err((Code::UNKNOWN, "OutOfStock".to_owned()));
    assert_eq!(soon(seen.recv()).await.expect("it was told").4, failed);
    caller.call::<()>("nothing", ()).await.expect_err("nobody offers it");
    let nowhere = Err((Code::ACTION_NOT_FOUND, "ACTION_NOT_FOUND".to_owned()));
    assert_eq!(soon(seen.recv()).await.expect("it was told").4, nowhere);
}

#[actix_rt::test]
async fn layers_of_a_master_know_the_identity_of_the_caller() {
    let token = "token of the shop";
    let identities = format!("[identities.shop]\ntokens = [\"{}\"]\ncall = [\"**\"]\n", token_digest(token));
    let (told, mut seen) = mpsc::unbounded_channel();
    let note = FilterLayer::new(move |request: PassingRequest| -> Result<PassingRequest, BoxError> {
        // The test may have ended.
        let _ = told.send(request.identity().map(str::to_owned));
        Ok(request)
    });
    let master = MasterActor::new("master").layer_requests(note);
    let identities = Identities::from_toml(&identities).expect("they are right");
    let mesh = Mesh::of(master.identities(identities)).await;
    let caller = mesh.bind(BranchActor::new("shop").token(token)).await;
    caller.call::<()>("nothing", ()).await.expect_err("nobody offers it");
    assert_eq!(soon(seen.recv()).await, Some(Some("shop".to_owned())));
}

#[actix_rt::test]
async fn a_layer_of_a_master_refuses_at_once_and_the_request_was_not_sent() {
    let refuse = FilterLayer::new(|request: PassingRequest| -> Result<PassingRequest, BoxError> {
        match request.action() {
            "add" => Err(CallError::new(Code::NOT_PERMITTED, Fate::Failed, "not today").into()),
            "hang" => Err("no".into()),
            "own" => Err(ActionError::new("Closed", "come back tomorrow").into()),
            _ => Ok(request),
        }
    });
    let mesh = mesh_with(refuse).await;
    let _provider = provider(&mesh).await;
    let caller = mesh.branch("caller").await;
    for (action, code, name, message) in [
        ("add", Code::NOT_PERMITTED, "NOT_PERMITTED", "not today"),
        ("hang", Code::UNKNOWN, "UNKNOWN", "no"),
        ("own", Code::UNKNOWN, "Closed", "come back tomorrow"),
    ] {
        let error = caller.call::<()>(action, (1, 2)).await.expect_err("it is refused");
        assert_eq!((error.code(), error.fate()), (code, Fate::NotSent));
        assert_eq!((error.name(), error.message()), (name, message));
    }
    caller.call::<()>("fail", ()).await.expect_err("it fails by itself");
}

#[actix_rt::test]
async fn a_layer_of_a_master_may_ask_somebody_before_it_decides() {
    let (gate, entered) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (opened, enters) = (Arc::clone(&gate), Arc::clone(&entered));
    let ask = AsyncFilterLayer::new(move |request: PassingRequest| {
        let gate = Arc::clone(&opened);
        enters.notify_one();
        async move {
            gate.acquire().await.expect("it is open").forget();
            Ok::<_, BoxError>(request)
        }
    });
    let mesh = mesh_with(ask).await;
    let _provider = provider(&mesh).await;
    let caller = mesh.branch("caller").await;
    let calls: Vec<_> =
        (0..50).map(|number| actix_rt::spawn(caller.call::<i64>("add", (number, 1)))).collect();
    soon(entered.notified()).await;
    gate.add_permits(50);
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(soon(call).await.expect("it does not panic"), Ok(number as i64 + 1));
    }
}

#[actix_rt::test]
async fn a_request_that_a_layer_holds_ends_at_its_deadline_and_was_not_sent() {
    let mesh =
        mesh_with(AsyncFilterLayer::new(|_: PassingRequest| pending::<Result<PassingRequest, BoxError>>()))
            .await;
    let _provider = provider(&mesh).await;
    let caller = mesh.branch("caller").await;
    let call = caller.call::<i64>("add", (1, 2)).within(Duration::from_millis(50));
    assert_eq!(soon(call).await.expect_err("it is held").code(), Code::REQUEST_TIMEOUT);
}

/// Tells when it is dropped.
#[derive(Clone)]
struct Dropped(Arc<Mutex<Option<oneshot::Sender<()>>>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 2
            && let Some(told) = self.0.lock().expect("nobody panics").take()
        {
            let _ = told.send(());
        }
    }
}

#[actix_rt::test]
async fn a_caller_that_gives_up_drops_the_layers_of_its_request() {
    for drops_branch in [false, true] {
        let (told, dropped) = oneshot::channel();
        let held = Dropped(Arc::new(Mutex::new(Some(told))));
        let entered = Arc::new(Notify::new());
        let enters = Arc::clone(&entered);
        let mesh = mesh_with(AsyncFilterLayer::new(move |_: PassingRequest| {
            let held = held.clone();
            enters.notify_one();
            async move {
                let _held = held;
                pending::<Result<PassingRequest, BoxError>>().await
            }
        }))
        .await;
        let caller = mesh.branch("caller").await;
        let mut call = Box::pin(caller.call::<()>("add", (1, 2)));
        assert!(futures::poll!(&mut call).is_pending());
        soon(entered.notified()).await;
        if drops_branch {
            let drained =
                actix_rt::spawn(async move { caller.drain(Duration::ZERO).await.expect("it runs") });
            soon(call).await.expect_err("its branch has gone");
            soon(drained).await.expect("it does not panic");
        } else {
            drop(call);
        }
        soon(dropped).await.expect("it was held");
    }
}

#[actix_rt::test]
async fn a_timeout_of_a_master_cancels_the_request_at_its_provider() {
    let mesh = mesh_with(TimeoutLayer::new(Duration::from_millis(50))).await;
    let provider = provider(&mesh).await;
    let caller = mesh.branch("caller").await;
    let error = soon(caller.call::<()>("hang", ())).await.expect_err("it hangs");
    assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
    soon(async {
        while provider.snapshot().await.expect("it runs").answering > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(caller.call::<i64>("add", (1, 2)).await, Ok(3));
}

#[actix_rt::test]
async fn limits_of_tower_hold_at_a_master_and_a_buffer_stands_there_too() {
    let layers = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(BufferLayer::<PassingRequest>::new(1))
        .layer(GlobalConcurrencyLimitLayer::new(1));
    let mesh = mesh_with(layers).await;
    let _provider = provider(&mesh).await;
    let caller = mesh.branch("caller").await;
    let hung = actix_rt::spawn(caller.call::<()>("hang", ()));
    until_asked(&mesh.master).await;
    let calls = (0..20).map(|_| caller.call::<i64>("add", (1, 2)));
    let mut calls = calls.collect::<futures::stream::FuturesUnordered<_>>();
    // One has the permit, some stand in the buffer, and the others are shed.
    for _ in 0..17 {
        let error = soon(calls.next()).await.expect("there are more").expect_err("there is no room");
        assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    }
    hung.abort();
    while let Some(outcome) = soon(calls.next()).await {
        assert!(outcome.is_ok() || outcome.is_err_and(|error| error.code() == Code::OVERLOADED));
    }
}

#[actix_rt::test]
async fn a_request_passes_once_whatever_a_layer_does() {
    let asked = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&asked);
    let twice = tower::layer::layer_fn(|inner: Requests| {
        service_fn(move |request: PassingRequest| {
            let mut inner = inner.clone();
            async move {
                let outcome = inner.call(request.clone()).await;
                inner.call(request).await.expect_err("it has passed");
                outcome
            }
        })
    });
    let mesh = mesh_with(twice).await;
    let provider = BranchActor::new("provider").respond("count", move |(): ()| {
        let count = counted.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok(count) }
    });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    for number in 1..5 {
        assert_eq!(soon(caller.call::<usize>("count", ())).await, Ok(number));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[actix_rt::test]
async fn a_layer_of_a_master_that_panics_ends_its_request_only() {
    let mesh = mesh_with(FilterLayer::new(|request: PassingRequest| -> Result<PassingRequest, BoxError> {
        assert!(request.action() != "hang", "this one panics");
        Ok(request)
    }))
    .await;
    let _provider = provider(&mesh).await;
    let caller = mesh.branch("caller").await;
    let error = soon(caller.call::<()>("hang", ())).await.expect_err("its layer panics");
    assert_eq!((error.code(), error.fate()), (Code::PANICKED, Fate::NotSent));
    assert_eq!(caller.call::<i64>("add", (1, 2)).await, Ok(3));
}

#[actix_rt::test]
async fn what_the_layers_of_a_master_hold_for_a_branch_is_bounded_in_bytes() {
    let mut limits = Limits::default();
    limits.held_len_max = 10_000;
    let hold = AsyncFilterLayer::new(|_: PassingRequest| pending::<Result<PassingRequest, BoxError>>());
    let mesh = Mesh::of(MasterActor::new("master").limits(limits).layer_requests(hold)).await;
    let caller = mesh.branch("caller").await;
    let call = || Box::pin(caller.call::<()>("add", "x".repeat(4_000)));
    let (mut one, mut other) = (call(), call());
    assert!(futures::poll!(&mut one).is_pending() && futures::poll!(&mut other).is_pending());
    let error = soon(call()).await.expect_err("there is no room");
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    // What a caller gives up leaves its room to the next one.
    drop((one, other));
    let mut next = call();
    assert!(futures::poll!(&mut next).is_pending());
    let error = soon(caller.call::<()>("add", "x".repeat(8_000))).await.expect_err("there is no room");
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
}

#[actix_rt::test]
async fn requests_keep_their_order_through_layers_that_are_ready_at_once() {
    let mesh = mesh_with(FilterLayer::new(Ok::<PassingRequest, BoxError>)).await;
    let (told, mut heard) = mpsc::unbounded_channel();
    let provider = BranchActor::new("provider").respond("note", move |number: u32| {
        // The test may have ended.
        let _ = told.send(number);
        async { Ok(()) }
    });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let calls = (0..200_u32).map(|number| caller.call::<()>("note", number));
    assert!(soon(futures::future::join_all(calls)).await.iter().all(Result::is_ok));
    for number in 0..200 {
        assert_eq!(heard.recv().await, Some(number));
    }
    poll_fn(|context| {
        assert!(heard.poll_recv(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
}

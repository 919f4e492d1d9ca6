//! The context of a request: a responder reaches its node through it, and what it calls and publishes there has the deadline, the trace and the
//! cancel of the request.

use super::{Mesh, OnDrop, soon};
use futures::stream;
use meshwork::prelude::*;
use meshwork::{Headers, Opening};
use std::future::IntoFuture;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER_TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-b9c7c989f97918e1-01";

/// What a request said: its headers, and how many milliseconds were left.
type Told = (Vec<(String, String)>, Option<u128>);

fn told(context: &CallContext) -> Told {
    let headers = context.headers().of_application().map(|(name, value)| (name.to_owned(), value.to_owned()));
    (headers.collect(), context.time_left().map(|left| left.as_millis()))
}

async fn tell((): (), context: CallContext) -> Result<Told, ActionError> {
    Ok(told(&context))
}

/// Responders that call on to `tell`: as they were called, with a header, a trace and a deadline of their own, and by their node.
fn relays(prefix: &str) -> Responders {
    let name = |name: &str| format!("{prefix}/{name}");
    Responders::new()
        .respond(name("plain"), |(): (), context: CallContext| async move {
            Ok(context.call::<Told>("tell", ()).await?)
        })
        .respond(name("own"), |(): (), context: CallContext| async move {
            let call = context.call::<Told>("tell", ()).header("traceparent", OTHER_TRACE).header("b", "2");
            Ok(call.within(Duration::from_millis(900)).await?)
        })
        .respond(name("for ever"), |(): (), context: CallContext| async move {
            Ok(context.call::<Told>("tell", ()).within(Duration::MAX).await?)
        })
        .respond(name("node"), |(): (), context: CallContext| async move {
            Ok(context.node().call::<Told>("tell", ()).await?)
        })
        .respond_blocking(name("blocking"), |(): (), context: CallContext| {
            Ok(Handle::current().block_on(context.call::<Told>("tell", ()))?)
        })
        .respond(name("all"), |(): (), context: CallContext| async move {
            let mut told = Node::from(&context).call_all::<Told>("tell", ());
            let answered = told.next().await.expect("the one provider");
            assert!(told.next().await.is_none());
            Ok(answered.outcome?)
        })
        .respond(name("many"), |(): (), context: CallContext| async move {
            let node = Node::from(&context);
            let own = Headers::of([("b", "2")]).expect("a header");
            let mut with_own = node.call_many_with::<Told>("tell", own, [()]).await;
            assert!(with_own.remove(0)?.0.contains(&("b".to_owned(), "2".to_owned())));
            let mut told = node.call_many::<Told>("tell", [(), ()]).await;
            assert_eq!(told.len(), 2);
            Ok(told.remove(0)?)
        })
}

fn sorted(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Calls `action` through the node with a trace, a tenant and a deadline.
async fn ask(node: &Node, action: &str, traceparent: &str, within: Duration) -> Told {
    let call = node.call::<Told>(action.to_owned(), ()).within(within);
    let call = call.header("tenant", "a").header("tracestate", "x=1").header("traceparent", traceparent);
    soon(call).await.expect("it answers")
}

#[actix::test]
async fn a_call_through_a_context_has_the_deadline_and_the_trace_of_its_request() {
    let mesh = Mesh::of(MasterActor::new("master").respond_all(relays("master"))).await;
    let teller = BranchActor::new("teller").respond("tell", tell).respond_all(relays("teller"));
    let teller = mesh.bind(teller).await;
    let middle = mesh.bind(BranchActor::new("middle").respond_all(relays("middle"))).await;
    let caller = mesh.branch("caller").await;
    let (minute, trace) = (Duration::from_secs(60), sorted(&[("traceparent", TRACE), ("tracestate", "x=1")]));
    let left = |told: &Told| told.1.expect("there is a deadline");
    // Over the wire and in one process, at branches and at a master.
    for node in [&*caller, &teller, &middle, &mesh.master] {
        for at in ["master", "teller", "middle"] {
            let asked = async |what: &str| ask(node, &format!("{at}/{what}"), TRACE, minute).await;
            for what in ["plain", "for ever", "blocking", "many", "all"] {
                let heard = asked(what).await;
                assert_eq!(heard.0, trace, "{at}/{what}: the tenant stays behind");
                let wants = if what == "for ever" { 50_000..=60_000 } else { 9_000..=10_000 };
                assert!(wants.contains(&left(&heard)), "{at}/{what}: {heard:?}");
            }
            let own = asked("own").await;
            assert_eq!(own.0, sorted(&[("b", "2"), ("traceparent", OTHER_TRACE), ("tracestate", "x=1")]));
            assert!(left(&own) <= 900, "its own deadline is earlier");
            assert_eq!(asked("node").await.0, [], "the node calls for itself");
            let short = ask(node, &format!("{at}/plain"), TRACE, Duration::from_secs(5)).await;
            assert!(left(&short) <= 5_000, "the deadline of the request is earlier");
            let bad = ask(node, &format!("{at}/plain"), &TRACE.to_uppercase(), minute).await;
            assert_eq!(bad.0, [], "a malformed trace ends there, with all that belongs to it");
        }
    }
}

#[actix::test]
async fn a_responder_reaches_its_node_from_its_first_request_on() {
    let mesh = Mesh::of(MasterActor::new("master").respond("answer", |(): ()| async { Ok(42) })).await;
    let calls = |(): (), context: CallContext| async move { Ok(context.call::<i32>("answer", ()).await?) };
    for number in 0..20 {
        // The request leaves when the master knows the action: the branch hears it with the answer to its bind.
        let action = format!("first/{number}");
        let (master, waited) = (mesh.master.clone(), action.clone());
        let first = actix_rt::spawn(async move {
            master.wait_for(&waited, Duration::from_secs(10)).await?;
            master.call::<i32>(waited, ()).await
        });
        let binding = mesh.bind(BranchActor::new(format!("branch{number}")).respond(action, calls));
        let (_branch, answer) = futures::future::join(binding, soon(first)).await;
        assert_eq!(answer.expect("no panic"), Ok(42));
    }
}

/// An action that is being answered, until the test ends it: it says when a request has come, and when the request was cancelled.
struct Held {
    responders: Responders,
    began: mpsc::UnboundedReceiver<oneshot::Receiver<()>>,
}

fn held(action: &'static str) -> Held {
    let (say, began) = mpsc::unbounded_channel();
    let responders = Responders::new().respond(action, move |(): ()| {
        let (tell, cancelled) = oneshot::channel();
        say.send(cancelled).expect("the test listens");
        async move {
            let _cancelled = OnDrop(Some(tell));
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    Held { responders, began }
}

/// A responder that spawns a call through its context and never answers; and how these calls end.
fn spawns(action: &'static str) -> (Responders, mpsc::UnboundedReceiver<Result<(), CallError>>) {
    let (say, ended) = mpsc::unbounded_channel();
    let responders = Responders::new().respond(action, move |(): (), context: CallContext| {
        let say = say.clone();
        async move {
            let call = context.call::<()>("hold", ()).within(Duration::MAX);
            tokio::spawn(async move { say.send(call.await) });
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    (responders, ended)
}

fn was_cancelled(ended: &Result<(), CallError>, fate: Fate) {
    let error = ended.as_ref().expect_err("it was cancelled");
    assert_eq!((error.code(), error.fate()), (Code::CANCELLED, fate), "{error}");
}

#[actix::test]
async fn a_call_that_was_spawned_through_a_context_ends_with_its_request() {
    let mut hold = held("hold");
    let (spawn, mut ended) = spawns("spawn");
    let mesh = Mesh::start().await;
    let _holder = mesh.bind(BranchActor::new("holder").respond_all(hold.responders)).await;
    let middle = mesh.bind(BranchActor::new("middle").respond_all(spawn)).await;
    let caller = mesh.branch("caller").await;
    // Its caller drops it, at another node and at the same one, or waits no longer, or goes.
    for node in [&*caller, &*middle] {
        let call = actix_rt::spawn(node.call::<()>("spawn", ()).into_future());
        let cancelled = soon(hold.began.recv()).await.expect("it begins");
        call.abort();
        was_cancelled(&soon(ended.recv()).await.expect("it ends"), Fate::Unknown);
        soon(cancelled).await.expect("the far end hears of it");
    }
    let call = caller.call::<()>("spawn", ()).within(Duration::from_millis(300));
    let call = actix_rt::spawn(call.into_future());
    let cancelled = soon(hold.began.recv()).await.expect("it begins");
    assert_eq!(soon(call).await.expect("no panic").unwrap_err().code(), Code::REQUEST_TIMEOUT);
    let error = soon(ended.recv()).await.expect("it ends").expect_err("the request is over");
    assert!([Code::CANCELLED, Code::REQUEST_TIMEOUT].contains(&error.code()), "{error}");
    soon(cancelled).await.expect("the far end hears of it");

    let _call = actix_rt::spawn(caller.call::<()>("spawn", ()).within(Duration::MAX).into_future());
    let cancelled = soon(hold.began.recv()).await.expect("it begins");
    caller.drain(Duration::ZERO).await.expect("it ends");
    was_cancelled(&soon(ended.recv()).await.expect("it ends"), Fate::Unknown);
    soon(cancelled).await.expect("the far end hears of it");
    assert_eq!(middle.snapshot().await.expect("it runs").calls_in_flight, 0);
}

#[actix::test]
async fn nothing_is_sent_for_a_request_that_was_cancelled() {
    let mesh = Mesh::start().await;
    let (say, mut contexts) = mpsc::unbounded_channel();
    let middle = BranchActor::new("middle").respond("hold", move |(): (), context: CallContext| {
        say.send(context).expect("the test listens");
        std::future::pending::<Result<(), ActionError>>()
    });
    let middle = mesh.bind(middle).await;
    let (heard, mut events) = super::ear::<u32>();
    middle.subscribe("t", heard).await.expect("it subscribes").keep();
    let call = actix_rt::spawn(middle.call::<()>("hold", ()).into_future());
    let context = soon(contexts.recv()).await.expect("it begins");
    assert!(!context.is_cancelled());
    call.abort();
    soon(context.cancelled()).await;
    assert!(context.is_cancelled());
    was_cancelled(&soon(context.call::<()>("hold", ())).await, Fate::NotSent);
    was_cancelled(&soon(context.stream::<()>("hold", ()).into_future()).await.map(drop), Fate::NotSent);
    was_cancelled(&soon(context.publish("t", &1)).await, Fate::NotSent);
    middle.publish("t", &2).await.expect("the node publishes on");
    assert_eq!(soon(events.recv()).await, Some(("t".to_owned(), 2)));
}

#[actix::test]
async fn an_event_through_a_context_has_the_trace_of_its_request() {
    let publishes = |(): (), context: CallContext| async move {
        context.publish("t/a", &1).await?;
        context.publish("t/b", &2).header("tenant", "b").header("traceparent", OTHER_TRACE).await?;
        Ok(Node::from(&context).broadcast("t/c", &3).await?)
    };
    let mesh = Mesh::start().await;
    let _publisher = mesh.bind(BranchActor::new("publisher").respond("publish", publishes)).await;
    let caller = mesh.branch("caller").await;
    let (say, mut events) = mpsc::unbounded_channel();
    let listen = move |event: Event<u32>| say.send((event.value, event.headers)).expect("the test listens");
    caller.subscribe("t/*", listen.clone()).await.expect("it subscribes").keep();
    caller.on_broadcast("t/*", listen).await.expect("it subscribes").keep();
    let call = caller.call::<()>("publish", ()).header("tenant", "a").header("traceparent", TRACE);
    soon(call).await.expect("it publishes");
    let headers =
        |pairs: &[(&'static str, &'static str)]| Headers::of(pairs.iter().copied()).expect("headers");
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(soon(events.recv()).await.expect("it comes"));
    }
    heard.sort_by_key(|(value, _)| *value);
    let trace = headers(&[("traceparent", TRACE)]);
    let own = headers(&[("tenant", "b"), ("traceparent", OTHER_TRACE)]);
    assert_eq!(heard, [(1, trace.clone()), (2, own), (3, trace)]);
}

#[meshwork::actions(prefix = "teller")]
trait Teller {
    async fn tell(&self, number: u32, context: CallContext) -> Result<(u32, Told), ActionError>;
    #[action(blocking)]
    fn tell_blocking(&self, number: u32, context: CallContext) -> Result<(u32, Told), ActionError>;
    async fn count(&self, to: u32, context: CallContext) -> Result<meshwork::Streaming<Told>, ActionError>;
}

/// Asks its own kind, as long as there is a number.
struct Asker;

impl Teller for Asker {
    async fn tell(&self, number: u32, context: CallContext) -> Result<(u32, Told), ActionError> {
        match number.checked_sub(1) {
            None => Ok((0, told(&context))),
            Some(less) => {
                let (number, told) = TellerRequester::new(&context).tell_blocking(less).await?;
                Ok((number + 1, told))
            }
        }
    }

    fn tell_blocking(&self, number: u32, context: CallContext) -> Result<(u32, Told), ActionError> {
        let call = TellerRequester::new(&context).tell(number);
        Ok(Handle::current().block_on(call)?)
    }

    async fn count(&self, to: u32, context: CallContext) -> Result<Streaming<Told>, ActionError> {
        let Some(less) = to.checked_sub(1) else {
            return Ok(Streaming::new(stream::iter([told(&context)])));
        };
        Ok(Streaming::of_results(TellerRequester::new(&context).count(less).await?))
    }
}

#[actix::test]
async fn a_requester_and_a_method_of_a_trait_call_for_the_request() {
    let mesh = Mesh::of(MasterActor::new("master").respond_all(Asker.into_responders())).await;
    let caller = mesh.branch("caller").await;
    let call = caller.call::<(u32, Told)>("teller/tell", 4).header("traceparent", TRACE);
    let (hops, told) = soon(call.within(Duration::from_secs(5))).await.expect("it answers");
    assert_eq!((hops, told.0), (4, sorted(&[("traceparent", TRACE)])));
    assert!(told.1.expect("there is a deadline") <= 5_000);
    let opening: Opening<Told> = caller.stream("teller/count", 3).header("traceparent", TRACE);
    let mut items = soon(opening.into_future()).await.expect("it begins");
    assert_eq!(soon(items.next()).await.expect("one").expect("an item").0, sorted(&[("traceparent", TRACE)]));
    assert!(soon(items.next()).await.is_none());
}

/// Streams that are answered through streams of another node; and when these are dropped.
#[actix::test]
async fn a_stream_that_is_read_for_a_request_ends_with_it() {
    let mesh = Mesh::start().await;
    let (say, mut dropped) = mpsc::unbounded_channel();
    let numbers = move |(): ()| {
        let (tell, told) = oneshot::channel();
        say.send(told).expect("the test listens");
        let guard = OnDrop(Some(tell));
        let items = stream::unfold((0, guard), |(number, guard)| async move {
            if number == 3 {
                std::future::pending::<()>().await;
            }
            Some((number, (number + 1, guard)))
        });
        async move { Ok(Streaming::new(items)) }
    };
    let _source = mesh.bind(BranchActor::new("source").respond_stream("numbers", numbers)).await;
    let (say, mut ended) = mpsc::unbounded_channel();
    let responders = Responders::new()
        .respond_stream("relayed", |(): (), context: CallContext| async move {
            Ok(context.stream::<u32>("numbers", ()).await?)
        })
        .respond("spawned", move |(): (), context: CallContext| {
            let say = say.clone();
            async move {
                let mut numbers = context.stream::<u32>("numbers", ()).await?;
                tokio::spawn(async move {
                    while let Some(item) = numbers.next().await {
                        say.send(item).expect("the test listens");
                    }
                });
                std::future::pending::<Result<(), ActionError>>().await
            }
        });
    let _middle = mesh.bind(BranchActor::new("middle").respond_all(responders)).await;
    let caller = mesh.branch("caller").await;

    let mut relayed = soon(caller.stream::<u32>("relayed", ()).into_future()).await.expect("it begins");
    let source_dropped = soon(dropped.recv()).await.expect("it began");
    for number in 0..3 {
        assert_eq!(soon(relayed.next()).await, Some(Ok(number)));
    }
    drop(relayed);
    soon(source_dropped).await.expect("the stream behind it ends too");

    let call = actix_rt::spawn(caller.call::<()>("spawned", ()).into_future());
    let source_dropped = soon(dropped.recv()).await.expect("it began");
    for number in 0..3 {
        assert_eq!(soon(ended.recv()).await, Some(Ok(number)));
    }
    call.abort();
    was_cancelled(&soon(ended.recv()).await.expect("it ends").map(drop), Fate::Unknown);
    soon(source_dropped).await.expect("its producer hears of it");
}

#[actix::test]
async fn what_a_request_with_a_key_calls_goes_on_when_its_caller_gives_up() {
    let mut hold = held("hold");
    let (spawn, mut ended) = spawns("spawn");
    let mesh = Mesh::start().await;
    let _holder = mesh.bind(BranchActor::new("holder").respond_all(hold.responders)).await;
    let _middle = mesh.bind(BranchActor::new("middle").respond_all(spawn)).await;
    let caller = mesh.branch("caller").await;
    let call = caller.call::<()>("spawn", ()).within(Duration::from_millis(300)).idempotent();
    let call = actix_rt::spawn(call.into_future());
    let cancelled = soon(hold.began.recv()).await.expect("it begins");
    call.abort();
    let error = soon(ended.recv()).await.expect("it ends").expect_err("nothing answers it");
    assert_eq!(error.code(), Code::REQUEST_TIMEOUT, "the deadline ends it, and no cancel");
    soon(cancelled).await.expect("the far end hears of it");
}

#[actix::test]
async fn blocking_work_sees_that_its_caller_has_gone() {
    let mesh = Mesh::start().await;
    let (begin, mut begun) = mpsc::unbounded_channel();
    let (say, mut seen) = mpsc::unbounded_channel();
    let work = move |(): (), context: CallContext| {
        begin.send(()).expect("the test listens");
        Handle::current().block_on(context.cancelled());
        say.send(context.is_cancelled()).expect("the test listens");
        Ok(())
    };
    let _worker = mesh.bind(BranchActor::new("worker").respond_blocking("work", work)).await;
    let caller = mesh.branch("caller").await;
    let call = actix_rt::spawn(caller.call::<()>("work", ()).into_future());
    soon(begun.recv()).await.expect("it begins");
    call.abort();
    assert_eq!(soon(seen.recv()).await, Some(true));
}

#[actix::test]
async fn a_request_that_waited_for_a_permit_has_a_context_as_any() {
    let mut hold = held("hold");
    let (spawn, mut ended) = spawns("spawn");
    let mesh = Mesh::start().await;
    let _holder = mesh.bind(BranchActor::new("holder").respond_all(hold.responders)).await;
    let middle = BranchActor::new("middle").respond_all(spawn.permits_with_queue("spawn", 1, 8));
    let _middle = mesh.bind(middle).await;
    let caller = mesh.branch("caller").await;
    let call = || actix_rt::spawn(caller.call::<()>("spawn", ()).into_future());
    let first = call();
    soon(hold.began.recv()).await.expect("it begins");
    let second = call();
    first.abort();
    was_cancelled(&soon(ended.recv()).await.expect("it ends"), Fate::Unknown);
    soon(hold.began.recv()).await.expect("the next one begins");
    second.abort();
    was_cancelled(&soon(ended.recv()).await.expect("it ends"), Fate::Unknown);
}

#[cfg(feature = "tower")]
#[actix::test]
async fn layers_at_both_ends_leave_the_context_as_it_is() {
    use meshwork::tower::LayerCalls;
    use tower::timeout::TimeoutLayer;

    let mut hold = held("hold");
    let (spawn, mut ended) = spawns("spawn");
    let mesh = Mesh::of(MasterActor::new("master").respond("tell", tell)).await;
    let _holder = mesh.bind(BranchActor::new("holder").respond_all(hold.responders)).await;
    let layer = || TimeoutLayer::new(Duration::from_secs(60));
    let middle = BranchActor::new("middle").layer_calls(layer());
    let _middle = mesh.bind(middle.respond_all(relays("middle").layer(layer())).respond_all(spawn)).await;
    let caller = mesh.branch("caller").await;
    for what in ["plain", "blocking", "many"] {
        let heard = ask(&caller, &format!("middle/{what}"), TRACE, Duration::from_secs(5)).await;
        assert_eq!(heard.0, sorted(&[("traceparent", TRACE), ("tracestate", "x=1")]), "{what}");
        assert!(heard.1.expect("there is a deadline") <= 5_000);
    }
    let call = actix_rt::spawn(caller.call::<()>("spawn", ()).into_future());
    let cancelled = soon(hold.began.recv()).await.expect("it begins");
    call.abort();
    was_cancelled(&soon(ended.recv()).await.expect("it ends"), Fate::Unknown);
    soon(cancelled).await.expect("the far end hears of it");
}

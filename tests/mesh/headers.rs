//! Headers of calls and events: they arrive as they were set, over every hop, and the bounds hold at both ends.

use crate::raw::{RawBranch, bind, request};
use crate::{Mesh, ear, soon};
use meshwork::prelude::*;
use meshwork::{Headers, limits};
use meshwork_wire::{ExtendedBind, Features, Frame, Request, Response};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

type Heard = BTreeMap<String, String>;

/// The headers of a request.
fn told(context: &CallContext) -> Heard {
    context.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn heard(pairs: &[(&str, &str)]) -> Heard {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn echo((): (), context: CallContext) -> Result<Heard, ActionError> {
    Ok(told(&context))
}

#[actix::test]
async fn a_header_of_a_call_reaches_its_responder_wherever_that_is() {
    let mesh = Mesh::of(MasterActor::new("master").respond("at/master", echo)).await;
    let provider = mesh.bind(BranchActor::new("provider").respond("at/branch", echo)).await;
    let caller = mesh.branch("caller").await;
    let sent = heard(&[("tenant", "a"), ("user", "grün: 7")]);
    for (node, action) in [
        (&*caller, "at/branch"),
        (&caller, "at/master"),
        (&provider, "at/branch"),
        (&mesh.master, "at/branch"),
        (&mesh.master, "at/master"),
    ] {
        let call = || node.call::<Heard>(action, ());
        assert_eq!(soon(call().header("user", "grün: 7").header("Tenant", "a")).await.as_ref(), Ok(&sent));
        assert_eq!(soon(call()).await, Ok(Heard::new()), "a call behind it has none");
    }
    let by_message = Call::<Heard>::new("at/branch", ()).header("tenant", "a").header("user", "grün: 7");
    assert_eq!(soon(caller.addr().send(by_message)).await.expect("it runs"), Ok(sent.clone()));
    // The first call of a handle that was made from an address.
    let master = Master::from(mesh.master.addr());
    let first = master.call("at/branch", ()).header("tenant", "a").header("user", "grün: 7");
    assert_eq!(soon(first).await, Ok(sent));
}

#[actix::test]
async fn calls_with_and_without_headers_that_leave_together_keep_theirs() {
    let mesh = Mesh::start().await;
    let _provider = mesh.bind(BranchActor::new("provider").respond("echo", echo)).await;
    let caller = mesh.branch("caller").await;
    caller.wait_for("echo", Duration::from_secs(5)).await.expect("it is there");
    let calls = (0..60).map(|number| {
        let call = caller.call::<Heard>("echo", ());
        if number % 3 == 0 { call.header("number", number.to_string()) } else { call }
    });
    for (number, outcome) in soon(futures::future::join_all(calls)).await.into_iter().enumerate() {
        let sent = if number % 3 == 0 { heard(&[("number", &number.to_string())]) } else { Heard::new() };
        assert_eq!(outcome, Ok(sent), "{number}");
    }
}

#[actix::test]
async fn a_header_of_an_event_reaches_its_handlers() {
    let mesh = Mesh::start().await;
    let (publisher, subscriber) = (mesh.branch("publisher").await, mesh.branch("subscriber").await);
    let (say, mut events) = mpsc::unbounded_channel();
    let listen = |place: &'static str| {
        let say = say.clone();
        move |event: Event<u64>| {
            let tenant = event.header("Tenant").map(str::to_owned);
            say.send((place, event.value, tenant, event.headers.count())).expect("the test listens");
        }
    };
    for (node, place) in [(&*publisher, "own"), (&subscriber, "other"), (&mesh.master, "master")] {
        node.subscribe("t/*", listen(place)).await.expect("it subscribes").keep();
        node.on_broadcast("t/*", listen(place)).await.expect("it subscribes").keep();
    }
    subscriber.subscribe_group("g", "t/*", listen("group")).await.expect("it subscribes").keep();
    let mut hear = async |count: usize| {
        let mut heard = Vec::new();
        for _ in 0..count {
            heard.push(soon(events.recv()).await.expect("it is told"));
        }
        heard.sort();
        heard
    };
    let all = |value, tenant: Option<&str>, count| {
        let event = |place| (place, value, tenant.map(str::to_owned), count);
        ["group", "master", "other", "own"].map(event).to_vec()
    };
    for node in [&*publisher, &mesh.master] {
        node.publish("t/a", &1).header("tenant", "a").header("b", "").await.expect("it is sent");
        assert_eq!(hear(4).await, all(1, Some("a"), 2));
        // In one run, with events without headers before and behind it.
        let run = [
            node.publish("t/a", &2),
            node.publish("t/a", &3),
            node.publish("t/a", &4).header("tenant", "c"),
            node.publish("t/a", &5),
        ];
        futures::future::try_join_all(run).await.expect("they are sent");
        let mut sent = [all(2, None, 0), all(3, None, 0), all(4, Some("c"), 1), all(5, None, 0)].concat();
        sent.sort();
        assert_eq!(hear(16).await, sent);
    }
    publisher.broadcast("t/a", &6).header("tenant", "d").await.expect("it is sent");
    let heard = |place| (place, 6, Some("d".to_owned()), 1);
    assert_eq!(hear(2).await, [heard("master"), heard("other")]);
    publisher
        .addr()
        .send(Publish::new("t/a", &7).header("tenant", "e"))
        .await
        .expect("it runs")
        .expect("sent");
    assert_eq!(hear(4).await, all(7, Some("e"), 1));
    mesh.master
        .addr()
        .send(Broadcast::new("t/a", &8).header("x", "y"))
        .await
        .expect("it runs")
        .expect("sent");
    assert_eq!(hear(2).await, [("other", 8, None, 1), ("own", 8, None, 1)]);
}

#[actix::test]
async fn what_is_no_header_fails_the_call_or_the_event_and_nothing_is_sent() {
    let mesh = Mesh::start().await;
    let _provider = mesh.bind(BranchActor::new("provider").respond("echo", echo)).await;
    let caller = mesh.branch("caller").await;
    let (handler, mut events) = ear::<u64>();
    mesh.master.subscribe("t", handler).await.expect("it subscribes").keep();
    let call = || caller.call::<Heard>("echo", ());
    for (name, value, code, why) in [
        ("a b", "1", Code::BAD_NAME, "no name of a header"),
        ("", "1", Code::BAD_NAME, "no name of a header"),
        ("Mesh-Key", "1", Code::BAD_NAME, "meshwork itself"),
        ("a", "1\n2", Code::CANNOT_ENCODE, "line breaks"),
    ] {
        // Later headers do not hide the error of an earlier one.
        let error = soon(call().header(name, value).header("good", "1")).await.expect_err("it is none");
        assert_eq!((error.code(), error.fate()), (code, Fate::NotSent));
        assert!(error.message().contains(why), "{error}");
        let by_message = Call::<Heard>::new("echo", ()).header(name, value).header("good", "1");
        assert_eq!(soon(caller.addr().send(by_message)).await.expect("it runs").as_ref(), Err(&error));
        let event = caller.publish("t", &1).header(name, value).header("good", "1");
        assert_eq!(soon(event).await.as_ref(), Err(&error));
        let event = Publish::new("t", &1).header(name, value).header("good", "1");
        assert_eq!(soon(caller.addr().send(event)).await.expect("it runs"), Err(error));
    }
    let names = (0..=limits::HEADERS_MAX).map(|number| format!("n{number}"));
    let error = soon(names.fold(call(), |call, name| call.header(name, "1"))).await.expect_err("too many");
    assert!(error.message().contains("32 headers"), "{error}");
    let long = "v".repeat(limits::HEADER_VALUE_LEN_MAX);
    let error = soon(["a", "b"].into_iter().fold(call(), |call, name| call.header(name, &long))).await;
    assert!(error.expect_err("too long").message().contains("8192 is the most"));
    caller.publish("t", &2).await.expect("it is sent");
    assert_eq!(soon(events.recv()).await, Some(("t".to_owned(), 2)), "nothing was published before");
}

/// A frame with headers is none for a node of a version without them.
#[actix::test]
async fn headers_are_told_to_nodes_that_know_them_and_kept_from_others() {
    let mesh = Mesh::start().await;
    let sent = Headers::of([("tenant", "a")]).expect("a header");
    for (name, features, told) in
        [("knows", Features::HEADERS, sent.clone()), ("of before", Features::default(), Headers::none())]
    {
        let mut provider = RawBranch::connect(&mesh).await;
        let Frame::Bind(bind) = bind(name, &[name]) else { unreachable!("it is a bind") };
        let incarnation = 1 + told.len() as u64;
        provider
            .say(&Frame::ExtendedBind(ExtendedBind { bind, features, incarnation, replaces: false }))
            .await;
        while !matches!(provider.hear().await, Some(Frame::ExtendedBound(_))) {}
        let mut caller = RawBranch::bound(&mesh, "caller", &[]).await;
        let Frame::Request(asked) = request(1, name) else { unreachable!("it is a request") };
        caller.say(&Frame::Request(Request { headers: sent.clone(), ..asked })).await;
        let asked = provider.hear_request().await;
        assert_eq!((&*asked.action, asked.headers), (name, told.clone()));
        provider.reply(asked.callback_id, 1).await;
        assert!(matches!(caller.hear_answer().await, Some(Frame::Response(Response { outcome: Ok(_), .. }))));
        mesh.master.broadcast("t", &1).header("tenant", "a").await.expect("it is sent");
        let heard = loop {
            match soon(provider.hear()).await.expect("it is bound") {
                Frame::Broadcast(broadcast) => break broadcast.headers,
                _ => continue,
            }
        };
        assert_eq!(heard, told);
        drop(caller);
        crate::until_known(&mesh.master, "caller", false).await;
    }
}

#[actix::test]
async fn headers_pass_the_dialects_that_have_a_place_for_them() {
    let gateway = async |mesh: &Mesh, listen: Listen| {
        mesh.master.addr().send(listen).await.expect("it runs").expect("it listens")
    };
    let sent = heard(&[("tenant", "a"), ("user", "grün: 7")]);
    let ask = async |node: &Node, action: &'static str| {
        node.wait_for(action, Duration::from_secs(10)).await.expect("it is offered");
        let call = node.call::<Heard>(action, ()).header("user", "grün: 7").header("Tenant", "a");
        soon(call.idempotent()).await
    };
    // Over a branch of ours that speaks node-mesh, both ways.
    let mesh = Mesh::start().await;
    let at = gateway(&mesh, Listen::node_mesh("127.0.0.1:0")).await;
    let spoken = BranchActor::new("spoken").dialect(Dialect::NodeMesh).respond("old/echo", echo);
    let spoken = spoken.bind(&at).await.expect("it binds");
    let caller = mesh.bind(BranchActor::new("caller").respond("new/echo", echo)).await;
    assert_eq!(ask(&caller, "old/echo").await.as_ref(), Ok(&sent));
    let call = spoken.call::<Heard>("new/echo", ()).header("user", "grün: 7").header("tenant", "a");
    assert_eq!(soon(call).await.as_ref(), Ok(&sent));
    let (say, mut events) = mpsc::unbounded_channel();
    let hear = move |event: Event<u64>| {
        say.send((event.value, event.header("tenant").map(str::to_owned))).expect("the test listens");
    };
    spoken.subscribe("t", hear.clone()).await.expect("it subscribes").keep();
    caller.publish("t", &1).header("tenant", "a").await.expect("it is sent");
    assert_eq!(soon(events.recv()).await, Some((1, Some("a".to_owned()))));
    caller.subscribe("u", hear).await.expect("it subscribes").keep();
    spoken.publish("u", &2).header("tenant", "b").await.expect("it is sent");
    assert_eq!(soon(events.recv()).await, Some((2, Some("b".to_owned()))));

    // Over a bridge of light_rpc, into a mesh behind a gateway.
    let behind = Mesh::of(MasterActor::new("behind").respond("echo", echo)).await;
    let at = gateway(&behind, Listen::light_rpc("127.0.0.1:0")).await;
    let bridge = meshwork::Bridge::light_rpc(at).name("bridge");
    let bridge = actix_rt::spawn(bridge.run(&mesh.address));
    assert_eq!(ask(&caller, "echo").await, Ok(sent));
    bridge.abort();
}

#[actix::test]
async fn all_calls_of_a_batch_have_its_headers() {
    let mesh = Mesh::of(MasterActor::new("master").respond("at/master", echo)).await;
    let _provider = mesh.bind(BranchActor::new("provider").respond("at/branch", echo)).await;
    let caller = mesh.branch("caller").await;
    let sent = Headers::of([("tenant", "a")]).expect("a header");
    for node in [&*caller, &mesh.master] {
        for action in ["at/branch", "at/master"] {
            let outcomes = soon(node.call_many_with::<Heard>(action, sent.clone(), vec![(); 400])).await;
            assert_eq!(outcomes, vec![Ok(heard(&[("tenant", "a")])); 400]);
            assert_eq!(soon(node.call_many::<Heard>(action, [()])).await, [Ok(Heard::new())]);
        }
    }
}

//! Branch to branch through the master: the promises of a call hold over two links as over one.

use crate::cut::CutDial;
use crate::ends::stuck;
use crate::links::{quick, until};
use crate::{Mesh, soon};
use meshwork::prelude::*;
use meshwork::{Balance, ByteBuf, Status};
use std::collections::BTreeMap;
use tokio::sync::watch;

#[test]
fn the_first_four_codes_are_the_numbers_of_node_mesh_and_all_have_names() {
    let codes = [Code::SUCCESS, Code::UNKNOWN, Code::REQUEST_TIMEOUT, Code::BIND_ERROR];
    assert_eq!(codes.map(|code| code.0), [0, 1, 2, 3]);
    let names = ["SUCCESS", "UNKNOWN", "REQUEST_TIMEOUT", "BIND_ERROR"];
    assert_eq!(codes.map(|code| code.name().expect("it is ours")), names);
}

/// A branch whose action answers when the gate is open.
fn gated(name: &'static str, open: &watch::Sender<bool>) -> (BranchActor, watch::Receiver<usize>) {
    let (came, coming) = watch::channel(0);
    let opened = open.subscribe();
    let branch = BranchActor::new(name).respond("gated", move |(): ()| {
        came.send_modify(|came| *came += 1);
        let mut opened = opened.clone();
        async move {
            let _ = opened.wait_for(|open| *open).await;
            Ok(name.to_owned())
        }
    });
    (branch, coming)
}

/// More requests once got through when they came at one time.
#[actix::test]
async fn a_provider_gets_no_more_requests_than_may_be_in_flight_whoever_asks() {
    let mesh = Mesh::of(MasterActor::new("master").in_flight_max(3)).await;
    let open = watch::Sender::new(false);
    let (provider, mut coming) = gated("provider", &open);
    let _provider = mesh.bind(provider).await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    let calls: Vec<_> = [&one, &two, &one, &two, &one, &two]
        .map(|node| actix_rt::spawn(node.call::<String>("gated", ()).within(Duration::MAX)))
        .into_iter()
        .collect();
    soon(coming.wait_for(|came| *came == 3)).await.unwrap();
    // Calls that found no room fail at once, with the gate still shut.
    let (mut done, mut refused) = (0, 0);
    let mut waiting = futures::stream::FuturesUnordered::from_iter(calls);
    while let Some(outcome) = soon(futures::StreamExt::next(&mut waiting)).await {
        match outcome.unwrap() {
            Ok(_) => done += 1,
            Err(error) => {
                assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
                refused += 1;
                if refused == 3 {
                    open.send(true).unwrap();
                }
            }
        }
    }
    assert_eq!((done, refused, *coming.borrow()), (3, 3, 3));
}

#[actix::test]
async fn requests_go_round_among_all_who_answer_and_past_one_that_drains() {
    let mesh = Mesh::of(MasterActor::new("master").balance(Balance::RoundRobin)).await;
    let shut = watch::Sender::new(true);
    let (one, _) = gated("one", &shut);
    let (two, _) = gated("two", &shut);
    let (one, _two) = (mesh.bind(one).await, mesh.bind(two).await);
    let caller = mesh.branch("caller").await;
    let mut heard = BTreeMap::<String, usize>::new();
    for _ in 0..10 {
        *heard.entry(caller.call("gated", ()).await.unwrap()).or_default() += 1;
    }
    assert_eq!(heard, BTreeMap::from([("one".to_owned(), 5), ("two".to_owned(), 5)]));
    one.drain(Duration::from_secs(1)).await.unwrap();
    for _ in 0..5 {
        assert_eq!(caller.call::<String>("gated", ()).await.as_deref(), Ok("two"));
    }
}

#[actix::test]
async fn permits_of_a_branch_hold_over_all_its_callers() {
    let mesh = Mesh::start().await;
    let open = watch::Sender::new(false);
    let (came, mut coming) = watch::channel(0);
    let opened = open.subscribe();
    let responders = Responders::new().respond("one-at-a-time", move |(): ()| {
        came.send_modify(|came| *came += 1);
        let mut opened = opened.clone();
        async move {
            let _ = opened.wait_for(|open| *open).await;
            Ok(())
        }
    });
    let provider = BranchActor::new("provider").respond_all(responders.permits("one-at-a-time", 1));
    let provider = mesh.bind(provider).await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    let first = actix_rt::spawn(one.call::<()>("one-at-a-time", ()));
    soon(coming.wait_for(|came| *came == 1)).await.unwrap();
    for node in [Node::from(&one), Node::from(&two), Node::from(&mesh.master), Node::from(&provider)] {
        let error = soon(node.call::<()>("one-at-a-time", ())).await.expect_err("it is taken");
        assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    }
    open.send(true).unwrap();
    assert_eq!(soon(first).await.unwrap(), Ok(()));
    assert_eq!(two.call::<()>("one-at-a-time", ()).await, Ok(()));
}

#[actix::test]
async fn frames_longer_than_the_master_reads_are_refused_where_they_are_made() {
    let mesh = Mesh::of(MasterActor::new("master").frame_len_max(10_000)).await;
    let provider = BranchActor::new("provider")
        .respond("take", |bytes: ByteBuf| async move { Ok(bytes.len()) })
        .respond("give", |len: usize| async move { Ok(ByteBuf::from(vec![7; len])) });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let bytes = |len| ByteBuf::from(vec![1; len]);
    assert_eq!(caller.call::<usize>("take", bytes(9_000)).await, Ok(9_000));
    let error = caller.call::<usize>("take", bytes(11_000)).await.expect_err("it is too long");
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::NotSent));
    assert_eq!(caller.call::<ByteBuf>("give", 9_000_usize).await.map(|bytes| bytes.len()), Ok(9_000));
    let error = caller.call::<ByteBuf>("give", 11_000_usize).await.expect_err("it is too long");
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::Failed));
    let error = caller.publish("t", &bytes(11_000)).await.expect_err("it is too long");
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::NotSent));
    assert_eq!(mesh.master.snapshot().await.unwrap().sessions.len(), 2, "nobody was closed for it");
}

#[actix::test]
async fn a_panic_and_a_wrong_argument_at_a_branch_are_errors_of_those_calls_only() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider").respond("halve", |(n, later): (u32, bool)| async move {
        if later {
            tokio::task::yield_now().await;
        }
        assert!(n % 2 == 0, "{n} is odd");
        Ok(n / 2)
    });
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    for node in [Node::from(&caller), Node::from(&mesh.master), Node::from(&provider)] {
        for later in [false, true] {
            let error = node.call::<u32>("halve", (3_u32, later)).await.expect_err("it panics");
            assert_eq!((error.code(), error.fate()), (Code::PANICKED, Fate::Failed));
            assert!(error.message().contains("3 is odd"), "{error}");
            assert_eq!(node.call::<u32>("halve", (4_u32, later)).await, Ok(2));
        }
        let error = node.call::<u32>("halve", "text").await.expect_err("it is no number");
        assert_eq!(error.code(), Code::CANNOT_DECODE);
    }
}

#[actix::test]
async fn a_call_of_a_nodes_own_ends_at_its_deadline_too() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let provider = mesh.bind(provider).await;
    for within in [Duration::from_millis(30), Duration::ZERO] {
        let error = soon(provider.call::<()>("stuck", ()).within(within)).await.expect_err("it is stuck");
        assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
        let dropped = soon(coming.recv()).await.expect("it ran");
        soon(dropped).await.expect("its future was dropped");
    }
    assert_eq!(provider.snapshot().await.unwrap().answering, 0);
}

#[actix::test]
async fn many_calls_over_a_relay_have_each_their_own_outcome() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider").respond("even", |n: u32| async move {
        match n % 2 {
            0 => Ok(n),
            _ => Err(ActionError::new("Odd", n.to_string()).with_code(1000 + n)),
        }
    });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.bind(BranchActor::new("caller").in_flight_max(100)).await;
    let outcomes = caller.call_many::<u32>("even", 0..150_u32).await;
    for (n, outcome) in (0..).zip(&outcomes) {
        match outcome {
            Ok(even) => assert!(n < 100 && n % 2 == 0 && *even == n, "{n}: {even}"),
            Err(error) if n < 100 => {
                assert_eq!((error.application_code(), n % 2), (Some(&(1000 + n).into()), 1));
            }
            Err(error) => assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent)),
        }
    }
    assert_eq!(outcomes.len(), 150);
    assert_eq!(caller.call::<u32>("even", 2_u32).await, Ok(2), "there is room again");
}

#[actix::test]
async fn a_responder_passes_the_time_left_on_to_the_calls_that_it_makes() {
    let mesh = Mesh::start().await;
    let last = BranchActor::new("last")
        .respond("last", |(): (), context: CallContext| async move { Ok(context.time_left().is_some()) });
    let _last = mesh.bind(last).await;
    let middle = mesh.branch("middle").await;
    let (node, within) = (Node::from(&middle), Duration::from_secs(5));
    let responders = Responders::new().respond("middle", move |(): (), context: CallContext| {
        let node = node.clone();
        async move {
            let left = context.time_left().expect("its caller waits so long");
            assert!(left <= within && left > Duration::ZERO, "{left:?}");
            Ok(node.call::<bool>("last", ()).within(left).await?)
        }
    });
    middle.respond(responders).await.unwrap();
    assert_eq!(mesh.branch("first").await.call::<bool>("middle", ()).within(within).await, Ok(true));
}

/// Such calls were once written in bincode, since a branch without a link had forgotten which encodings the providers read.
#[actix::test]
async fn calls_that_wait_for_a_lost_link_are_written_as_their_provider_reads() {
    let (mesh, cut) = (Mesh::start().await, CutDial::default());
    let responders = Responders::new()
        .respond_self_describing("keys", |value: serde_json::Value| async move { Ok(value["key"].clone()) });
    let _provider = mesh.bind(BranchActor::new("provider").respond_all(responders)).await;
    let caller = mesh.bind(quick("caller", &cut)).await;
    let arguments = BTreeMap::from([("key", 7)]);
    assert_eq!(caller.call::<i32>("keys", &arguments).await, Ok(7));
    cut.cut();
    until(&caller, |status| *status == Status::Rebinding).await;
    let waiting = actix_rt::spawn(caller.call::<i32>("keys", &arguments));
    tokio::task::yield_now().await;
    cut.mend();
    assert_eq!(soon(waiting).await.unwrap(), Ok(7));
}

#[actix::test]
async fn what_a_set_takes_and_gives_is_described_by_its_types() {
    let mesh = Mesh::start().await;
    let responders = Responders::new()
        .respond("len", |text: String| async move { Ok(text.len() as u64) })
        .respond("secret", |(): ()| async { Ok(()) })
        .described::<String, u64>("len");
    let _provider = mesh.bind(BranchActor::new("provider").respond_all(responders)).await;
    let described = mesh.branch("caller").await.describe("**").await.unwrap();
    let [len, secret] = &described[..] else { panic!("two: {described:?}") };
    assert_eq!((&*len.action, &*secret.action, &len.nodes[..]), ("len", "secret", &["provider".into()][..]));
    let shape = len.shape.as_ref().expect("it was said");
    assert!(shape.arguments.contains("string") && shape.reply.contains("uint64"), "{shape:?}");
    assert_eq!(secret.shape, None);
}

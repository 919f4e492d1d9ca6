//! Every call ends, with a reply or with an error that tells its fate.

use crate::{Mesh, OnDrop, soon};
use meshwork::limits::FRAME_LEN_MAX;
use meshwork::prelude::*;
use std::future::pending;
use tokio::sync::{mpsc, oneshot};

/// A branch with an action that never answers; it tells when a request came and when its future was dropped.
pub(crate) fn stuck(name: &'static str) -> (BranchActor, mpsc::UnboundedReceiver<oneshot::Receiver<()>>) {
    let (came, coming) = mpsc::unbounded_channel();
    let branch = BranchActor::new(name).respond("stuck", move |(): ()| {
        let came = came.clone();
        async move {
            let (dropped, drops) = oneshot::channel();
            let _told = OnDrop(Some(dropped));
            let _ = came.send(drops);
            pending::<()>().await;
            Ok(())
        }
    });
    (branch, coming)
}

#[actix::test]
async fn a_deadline_ends_the_call_and_drops_the_responders_future_at_the_far_end() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    for node in [Node::from(&mesh.master), Node::from(&caller)] {
        let error =
            node.call::<()>("stuck", ()).within(Duration::from_millis(100)).await.expect_err("it is stuck");
        assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
        assert_eq!(error.code().0, 2);
        let dropped = soon(coming.recv()).await.expect("it ran");
        soon(dropped).await.expect("its future was dropped");
    }
}

#[actix::test]
async fn dropping_a_call_drops_the_responders_future_at_the_far_end() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    // In the last round, the branch calls itself.
    for node in [Node::from(&mesh.master), Node::from(&caller), Node::from(&provider)] {
        let call = actix_rt::spawn({
            let node = node.clone();
            async move { node.call::<()>("stuck", ()).within(Duration::MAX).await }
        });
        let dropped = soon(coming.recv()).await.expect("it ran");
        call.abort();
        soon(dropped).await.expect("its future was dropped");
    }
    assert_eq!(caller.snapshot().await.unwrap().calls_in_flight, 0);
}

#[actix::test]
async fn the_time_left_and_the_caller_reach_the_responder() {
    let mesh = Mesh::start().await;
    let provider =
        BranchActor::new("provider").respond("context", |(): (), context: CallContext| async move {
            let left = context.time_left().map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            Ok((context.caller().to_owned(), context.action().to_owned(), left))
        });
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    type Told = (String, String, Option<u64>);
    let call = caller.call::<Told>("context", ()).within(Duration::from_secs(5));
    let (who, action, left) = call.await.unwrap();
    assert_eq!((&*who, &*action), ("caller", "context"));
    assert!(matches!(left, Some(1..=5000)), "{left:?}");
    let (who, _, left) = mesh.master.call::<Told>("context", ()).within(Duration::MAX).await.unwrap();
    assert_eq!((&*who, left), ("master", None));
}

#[actix::test]
async fn calls_in_flight_to_a_branch_that_goes_offline_end_at_once() {
    let cut = crate::cut::CutDial::default();
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let provider = mesh.bind(provider.dial(cut.clone())).await;
    let caller = mesh.branch("caller").await;
    let calling = caller.call::<()>("stuck", ()).within(Duration::MAX);
    let cutting = async {
        coming.recv().await.expect("it ran");
        cut.cut();
    };
    let (outcome, ()) = soon(async { tokio::join!(calling, cutting) }).await;
    let error = outcome.expect_err("its provider is lost");
    assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
    assert_eq!(caller.call::<()>("stuck", ()).await.expect_err("gone").code(), Code::ACTION_NOT_FOUND);
    drop(provider);
}

#[actix::test]
async fn an_error_comes_through_unchanged_and_so_does_one_that_is_passed_on() {
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider").respond("fail", |(): ()| async {
        Err::<(), _>(ActionError::new("OutOfStock", "none left").with_code(1200).with_data(&("blue", 3)))
    });
    let _provider = mesh.bind(provider).await;
    let middle = mesh.branch("middle").await;
    let node = Node::from(&middle);
    let pass_on = Responders::new().respond("pass-on", move |(): ()| {
        let call = node.call::<()>("fail", ());
        async move { Ok(call.await?) }
    });
    middle.respond(pass_on).await.unwrap();
    let caller = mesh.branch("caller").await;
    for action in ["fail", "pass-on"] {
        let error = caller.call::<()>(action, ()).await.expect_err("it fails");
        assert_eq!((error.code(), error.fate()), (Code::UNKNOWN, Fate::Failed));
        assert_eq!(error.application_code(), Some(&1200.into()));
        assert_eq!((error.name(), error.message()), ("OutOfStock", "none left"));
        assert_eq!(error.data().unwrap().decode::<(String, i32)>().unwrap(), ("blue".to_owned(), 3));
    }
}

#[actix::test]
async fn a_panic_is_an_error_of_that_call_only() {
    let provider = MasterActor::new("master")
        .respond("now", |explode: bool| async move {
            assert!(!explode, "boom");
            Ok(1)
        })
        .respond("later", |explode: bool| async move {
            tokio::task::yield_now().await;
            assert!(!explode, "boom");
            Ok(2)
        });
    let mesh = Mesh::of(provider).await;
    let branch = mesh.branch("one").await;
    for (action, value) in [("now", 1), ("later", 2)] {
        let error = branch.call::<i32>(action, true).await.expect_err("it panics");
        assert_eq!((error.code(), error.fate()), (Code::PANICKED, Fate::Failed));
        assert!(error.message().contains("boom"), "{error}");
        assert_eq!(branch.call::<i32>(action, false).await, Ok(value));
    }
}

#[actix::test]
async fn arguments_and_replies_of_another_shape_are_named() {
    let mesh =
        Mesh::of(MasterActor::new("master").respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) }))
            .await;
    let branch = mesh.branch("one").await;
    let error = branch.call::<i64>("add", "text that is no pair of numbers").await.expect_err("no numbers");
    assert_eq!(error.code(), Code::CANNOT_DECODE);
    let error = branch.call::<String>("add", (1, 2)).await.expect_err("no text");
    assert_eq!(error.code(), Code::CANNOT_DECODE);
}

#[actix::test]
async fn what_has_no_permit_left_is_refused_at_once() {
    let (came, mut coming) = mpsc::unbounded_channel();
    let (open, opened) = tokio::sync::watch::channel(false);
    let responders = Responders::new()
        .respond("slow", move |(): ()| {
            let (came, mut opened) = (came.clone(), opened.clone());
            async move {
                let _ = came.send(());
                let _ = opened.wait_for(|open| *open).await;
                Ok(())
            }
        })
        .permits("slow", 2);
    let mesh = Mesh::of(MasterActor::new("master").respond_all(responders)).await;
    let branch = mesh.branch("one").await;
    let running: Vec<_> = (0..2)
        .map(|_| {
            let branch = branch.clone();
            actix_rt::spawn(async move { branch.call::<()>("slow", ()).await })
        })
        .collect();
    for _ in 0..2 {
        soon(coming.recv()).await;
    }
    let error = branch.call::<()>("slow", ()).await.expect_err("no permit is left");
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    open.send(true).unwrap();
    for call in running {
        assert_eq!(soon(call).await.unwrap(), Ok(()));
    }
    assert_eq!(branch.call::<()>("slow", ()).await, Ok(()));
}

#[actix::test]
async fn more_calls_than_may_be_in_flight_are_refused_at_once() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider).await;
    let caller = mesh.bind(BranchActor::new("caller").in_flight_max(1)).await;
    let first = actix_rt::spawn({
        let caller = caller.clone();
        async move { caller.call::<()>("stuck", ()).within(Duration::MAX).await }
    });
    soon(coming.recv()).await;
    let error = caller.call::<()>("stuck", ()).await.expect_err("one is in flight");
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    first.abort();
}

#[actix::test]
async fn what_fits_into_no_frame_is_refused_and_says_so() {
    let master = MasterActor::new("master")
        .respond("take", |bytes: meshwork::ByteBuf| async move { Ok(bytes.len()) })
        .respond("give", |len: usize| async move { Ok(meshwork::ByteBuf::from(vec![7; len])) });
    let mesh = Mesh::of(master).await;
    let branch = mesh.branch("one").await;
    let fits = FRAME_LEN_MAX - 1000;
    assert_eq!(branch.call::<usize>("take", meshwork::ByteBuf::from(vec![1; fits])).await, Ok(fits));
    let error =
        branch.call::<usize>("take", meshwork::ByteBuf::from(vec![1; FRAME_LEN_MAX])).await.expect_err("no");
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::NotSent));
    let given = branch.call::<meshwork::ByteBuf>("give", fits).await.unwrap();
    assert_eq!(given.len(), fits);
    let error = branch.call::<meshwork::ByteBuf>("give", FRAME_LEN_MAX).await.expect_err("no");
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::Failed));
    let error = branch.publish("t", &vec![1_u8; FRAME_LEN_MAX]).await.expect_err("no");
    assert_eq!(error.code(), Code::FRAME_TOO_LARGE);
}

#[actix::test]
async fn an_action_whose_shape_fits_into_no_frame_is_refused_at_once_and_may_be_added_again() {
    let mesh = Mesh::of(MasterActor::new("master").frame_len_max(50_000)).await;
    let branch = mesh.branch("one").await;
    let long = meshwork::Shape { arguments: "x".repeat(60_000).into(), reply: "{}".into() };
    let action = || Responders::new().respond("late", |(): ()| async { Ok(1) });
    let error = soon(branch.respond(action().shape("late", Some(long)))).await.expect_err("it is too long");
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::NotSent));
    assert_eq!(branch.respond(action()).await, Ok(()));
    assert_eq!(mesh.master.call::<i32>("late", ()).await, Ok(1));
}

#[actix::test]
async fn many_calls_that_are_given_up_are_cancelled_where_they_run() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let many = actix_rt::spawn({
        let caller = caller.clone();
        // More calls than leave at once, so that some are dropped after they have left in parts.
        async move { caller.call_many::<()>("stuck", std::iter::repeat_n((), 300)).await }
    });
    let mut dropped = Vec::new();
    for _ in 0..300 {
        dropped.push(soon(coming.recv()).await.expect("it ran"));
    }
    many.abort();
    for drops in dropped {
        soon(drops).await.expect("its future was dropped");
    }
    assert_eq!(caller.snapshot().await.unwrap().calls_in_flight, 0);
}

#[actix::test]
async fn many_calls_end_one_by_one_with_their_own_fates() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let provider = mesh.bind(provider.respond("quick", |(): ()| async { Ok(()) })).await;
    let caller = mesh.branch("caller").await;
    let stuck = actix_rt::spawn({
        let caller = caller.clone();
        async move { caller.call_many::<()>("stuck", [(), (), ()]).await }
    });
    for _ in 0..3 {
        soon(coming.recv()).await.expect("it ran");
    }
    assert!(soon(caller.call_many::<()>("quick", [(), ()])).await.iter().all(Result::is_ok));
    let nobody = soon(caller.call_many::<()>("nobody", [(), ()])).await;
    for outcome in nobody {
        assert_eq!(outcome.unwrap_err().code(), Code::ACTION_NOT_FOUND);
    }
    soon(provider.drain(Duration::from_millis(20))).await.unwrap();
    for outcome in soon(stuck).await.unwrap() {
        let error = outcome.unwrap_err();
        assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
    }
}

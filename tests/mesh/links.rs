//! Links that are lost, silent, drained, and how a mesh comes back.

use crate::cut::CutDial;
use crate::{Mesh, OnDrop, ear, soon, until_known};
use meshwork::Status;
use meshwork::prelude::*;
use tokio::sync::{mpsc, watch};

pub(crate) async fn until(node: &Node, wanted: fn(&Status) -> bool) {
    let mut status = node.status().await.expect("it runs");
    soon(status.wait_for(wanted)).await.expect("it runs");
}

pub(crate) fn quick(name: &'static str, cut: &CutDial) -> BranchActor {
    BranchActor::new(name).dial(cut.clone()).backoff(Duration::from_millis(5), Duration::from_millis(20))
}

#[actix::test]
async fn a_branch_that_lost_its_link_binds_again_with_all_it_had() {
    let cut = CutDial::default();
    let mesh = Mesh::start().await;
    let branch = mesh.bind(quick("one", &cut).respond("first", |(): ()| async { Ok(1) })).await;
    branch.respond(Responders::new().respond("second", |(): ()| async { Ok(2) })).await.unwrap();
    let (handler, mut events) = ear::<i32>();
    let _kept = branch.subscribe("t/*", handler).await.unwrap();
    for round in 0..3 {
        cut.cut();
        until_known(&mesh.master, "one", false).await;
        cut.mend();
        until_known(&mesh.master, "one", true).await;
        assert_eq!(mesh.master.call::<i32>("first", ()).await, Ok(1));
        assert_eq!(mesh.master.call::<i32>("second", ()).await, Ok(2));
        until(&branch, |status| *status == Status::Bound).await;
        mesh.master.publish("t/x", &round).await.unwrap();
        assert_eq!(soon(events.recv()).await, Some(("t/x".to_owned(), round)));
    }
}

#[actix::test]
async fn calls_made_while_the_link_is_down_wait_for_it_within_their_deadline() {
    let cut = CutDial::default();
    let mesh =
        Mesh::of(MasterActor::new("master").respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) }))
            .await;
    let branch = mesh.bind(quick("one", &cut)).await;
    cut.cut();
    until(&branch, |status| *status == Status::Rebinding).await;
    let error = branch.call::<i64>("add", (1, 2)).fail_when_down().await.expect_err("it is down");
    assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::NotSent));
    let error =
        branch.call::<i64>("add", (1, 2)).within(Duration::from_millis(30)).await.expect_err("it is down");
    assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::NotSent));
    // The function that such a call would have passed is dropped with the call.
    let (dropped, gone) = tokio::sync::oneshot::channel();
    let held = OnDrop(Some(dropped));
    let function = Callback::new(move |_: u8| _ = &held);
    let error = branch.call::<()>("add", function).within(Duration::from_millis(30)).await;
    assert_eq!(error.expect_err("it is down").code(), Code::REQUEST_TIMEOUT);
    soon(gone).await.expect("it is dropped");
    assert_eq!(branch.publish("t", &1).await.expect_err("it is down").code(), Code::LINK_LOST);
    let waiting = actix_rt::spawn({
        let branch = branch.clone();
        async move { branch.call::<i64>("add", (2, 3)).await }
    });
    tokio::task::yield_now().await;
    cut.mend();
    assert_eq!(soon(waiting).await.unwrap(), Ok(5));
}

#[actix::test]
async fn calls_in_flight_over_a_lost_link_end_at_once() {
    let cut = CutDial::default();
    let (came, mut coming) = mpsc::unbounded_channel();
    let master = MasterActor::new("master").respond("stuck", move |(): ()| {
        let _ = came.send(());
        std::future::pending::<Result<(), ActionError>>()
    });
    let mesh = Mesh::of(master).await;
    let branch = mesh.bind(quick("one", &cut)).await;
    let calling = branch.call::<()>("stuck", ()).within(Duration::MAX);
    let cutting = async {
        coming.recv().await;
        cut.cut();
    };
    let (outcome, ()) = soon(async { tokio::join!(calling, cutting) }).await;
    let error = outcome.expect_err("the link is lost");
    assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::Unknown));
}

#[actix::test]
async fn a_link_that_goes_silent_is_found_by_both_ends() {
    let cut = CutDial::default();
    let mesh = Mesh::of(MasterActor::new("master").heartbeat(Duration::from_millis(20))).await;
    let branch = mesh.bind(quick("one", &cut)).await;
    until_known(&mesh.master, "one", true).await;
    cut.silence();
    until_known(&mesh.master, "one", false).await;
    until(&branch, |status| *status == Status::Rebinding).await;
    cut.mend();
    until_known(&mesh.master, "one", true).await;
}

#[actix::test]
async fn a_quiet_link_that_is_well_is_kept() {
    // Long enough for a busy machine to keep up with.
    let mesh = Mesh::of(MasterActor::new("master").heartbeat(Duration::from_millis(150))).await;
    let branch = mesh.branch("one").await;
    let mut status = branch.status().await.unwrap();
    status.mark_unchanged();
    // Five heartbeats and more: a link that is silent for three is given up.
    let changed = tokio::time::timeout(Duration::from_millis(800), status.changed()).await;
    assert!(changed.is_err(), "its status has not changed");
    assert_eq!(mesh.master.snapshot().await.unwrap().sessions.len(), 1);
}

/// An action that waits until the test lets it go on.
pub(crate) fn gated(open: &watch::Sender<bool>, came: mpsc::UnboundedSender<()>) -> Responders {
    let opened = open.subscribe();
    Responders::new().respond("gated", move |(): ()| {
        let (came, mut opened) = (came.clone(), opened.clone());
        async move {
            let _ = came.send(());
            let _ = opened.wait_for(|open| *open).await;
            Ok(1)
        }
    })
}

#[actix::test]
async fn a_branch_that_drains_finishes_what_is_in_flight_and_takes_no_more() {
    let (open, (came, mut coming)) = (watch::Sender::new(false), mpsc::unbounded_channel());
    let mesh = Mesh::start().await;
    let branch = mesh.bind(BranchActor::new("one").respond_all(gated(&open, came))).await;
    let calling = actix_rt::spawn({
        let master = mesh.master.clone();
        async move { master.call::<i32>("gated", ()).await }
    });
    soon(coming.recv()).await;
    let draining = actix_rt::spawn({
        let branch = branch.clone();
        async move { branch.drain(Duration::from_secs(5)).await }
    });
    until(&branch, |status| *status == Status::Draining).await;
    assert_eq!(branch.call::<i32>("any", ()).await.expect_err("it drains").code(), Code::DRAINING);
    let error = mesh.master.call::<i32>("gated", ()).await.expect_err("it drains");
    assert_eq!((error.code(), error.fate()), (Code::DRAINING, Fate::NotSent));
    open.send(true).unwrap();
    assert_eq!(soon(calling).await.unwrap(), Ok(1));
    let drained = soon(draining).await.unwrap().unwrap();
    assert_eq!((drained.finished, drained.abandoned), (1, 0));
    assert_eq!(soon(branch.closed()).await.code(), Code::DRAINING);
}

#[actix::test]
async fn a_master_that_drains_finishes_what_is_in_flight_and_tells_who_waits_too_long() {
    for in_time in [true, false] {
        let (open, (came, mut coming)) = (watch::Sender::new(false), mpsc::unbounded_channel());
        let mesh = Mesh::start().await;
        let _provider = mesh.bind(BranchActor::new("one").respond_all(gated(&open, came))).await;
        let caller = mesh.branch("two").await;
        let calling =
            actix_rt::spawn(async move { caller.call::<i32>("gated", ()).within(Duration::MAX).await });
        soon(coming.recv()).await;
        let within = if in_time { Duration::from_secs(5) } else { Duration::from_millis(50) };
        let draining = actix_rt::spawn({
            let master = mesh.master.clone();
            async move { master.drain(within).await }
        });
        until(&mesh.master, |status| *status == Status::Draining).await;
        if in_time {
            open.send(true).unwrap();
            assert_eq!(soon(calling).await.unwrap(), Ok(1));
        } else {
            let error = soon(calling).await.unwrap().expect_err("it is abandoned");
            assert_eq!(error.fate(), Fate::Unknown, "{error}");
        }
        let drained = soon(draining).await.unwrap().unwrap();
        assert_eq!((drained.finished, drained.abandoned), if in_time { (1, 0) } else { (0, 1) });
    }
}

#[actix::test]
async fn branches_come_back_to_a_master_that_was_started_again() {
    let mesh = Mesh::start().await;
    let cut = CutDial::default();
    let branch = mesh.bind(quick("one", &cut).respond("x", |(): ()| async { Ok(1) })).await;
    mesh.master.drain(Duration::from_secs(1)).await.unwrap();
    until(&branch, |status| *status == Status::Rebinding).await;
    let again = MasterActor::new("master").start();
    again.send(Listen::tcp(&mesh.address)).await.unwrap().unwrap();
    let again = Master::from(again);
    until_known(&again, "one", true).await;
    assert_eq!(again.call::<i32>("x", ()).await, Ok(1));
}

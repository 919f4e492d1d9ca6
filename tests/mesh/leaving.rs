//! Nodes that leave, are replaced, drain or lose their master: the fates of the calls that are in flight then.

use crate::cut::CutDial;
use crate::ends::stuck;
use crate::links::{quick, until};
use crate::{Mesh, ear, soon, until_known};
use meshwork::limits::WAITING_MAX;
use meshwork::prelude::*;
use meshwork::{Change, Status};
use tokio::sync::{mpsc, oneshot};

/// Makes a call that is never answered.
fn call_forever(
    node: impl Into<Node>,
    action: &'static str,
) -> tokio::task::JoinHandle<Result<(), CallError>> {
    let call = node.into().call::<()>(action, ()).within(Duration::MAX);
    actix_rt::spawn(call)
}

#[actix::test]
async fn a_branch_that_is_cut_off_is_out_of_everything() {
    let (mesh, cut) = (Mesh::start().await, CutDial::default());
    let (handler, _events) = ear::<i32>();
    let gone = mesh.bind(quick("gone", &cut).respond("x", |(): ()| async { Ok(1) })).await;
    gone.subscribe("t", handler).await.unwrap().keep();
    let other = mesh.branch("other").await;
    until_known(&other, "gone", true).await;
    assert_eq!(mesh.master.snapshot().await.unwrap().subscriptions, 1);
    cut.cut();
    until_known(&mesh.master, "gone", false).await;
    until_known(&other, "gone", false).await;
    assert!(other.describe("**").await.unwrap().is_empty());
    for node in [Node::from(&mesh.master), Node::from(&other)] {
        let error = node.call::<i32>("x", ()).await.expect_err("it is gone");
        assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
    }
    let snapshot = mesh.master.snapshot().await.unwrap();
    let names: Vec<_> = snapshot.sessions.iter().map(|session| &*session.name).collect();
    assert_eq!((names, snapshot.subscriptions, snapshot.actions), (vec!["other"], 0, 0));
}

#[actix::test]
async fn a_caller_that_is_cut_off_has_its_requests_cancelled_where_they_run() {
    let (mesh, cut) = (Mesh::start().await, CutDial::default());
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider).await;
    let caller = mesh.bind(quick("caller", &cut)).await;
    let calling = call_forever(&caller, "stuck");
    let dropped = soon(coming.recv()).await.expect("it ran");
    cut.cut();
    soon(dropped).await.expect("its future was dropped");
    let error = soon(calling).await.unwrap().expect_err("the link is lost");
    assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::Unknown));
}

#[actix::test]
async fn a_provider_that_is_cut_off_drops_the_futures_of_its_responders() {
    let (mesh, cut) = (Mesh::start().await, CutDial::default());
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider.dial(cut.clone())).await;
    let calling = call_forever(&mesh.master, "stuck");
    let dropped = soon(coming.recv()).await.expect("it ran");
    cut.cut();
    soon(dropped).await.expect("its future was dropped");
    let error = soon(calling).await.unwrap().expect_err("its provider is lost");
    assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
}

/// Their callers were told once that such calls had not been sent, and so were safe to repeat.
#[actix::test]
async fn calls_in_flight_of_a_branch_that_is_replaced_may_have_run() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider).await;
    let old = mesh.branch("twin").await;
    let calling = call_forever(&old, "stuck");
    soon(coming.recv()).await.expect("it ran");
    let _new = mesh.bind(BranchActor::new("twin").replace()).await;
    let error = soon(calling).await.unwrap().expect_err("it is replaced");
    assert_eq!((error.code(), error.fate()), (Code::BIND_ERROR, Fate::Unknown));
    let error = old.call::<()>("stuck", ()).await.expect_err("it stays away");
    assert_eq!((error.code(), error.fate()), (Code::BIND_ERROR, Fate::NotSent));
}

#[actix::test]
async fn calls_that_a_drain_abandons_may_have_run() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let calling = call_forever(&caller, "stuck");
    let dropped = soon(coming.recv()).await.expect("it ran");
    let drained = soon(caller.drain(Duration::from_millis(50))).await.unwrap();
    assert_eq!((drained.finished, drained.abandoned), (0, 1));
    let error = soon(calling).await.unwrap().expect_err("it is abandoned");
    assert_eq!((error.code(), error.fate()), (Code::DRAINING, Fate::Unknown));
    soon(dropped).await.expect("and its future was dropped");
}

#[actix::test]
async fn requests_that_a_draining_provider_abandons_may_have_run() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let calling = call_forever(&caller, "stuck");
    let dropped = soon(coming.recv()).await.expect("it ran");
    let drained = soon(provider.drain(Duration::from_millis(50))).await.unwrap();
    assert_eq!((drained.finished, drained.abandoned), (0, 1));
    soon(dropped).await.expect("its future was dropped");
    let error = soon(calling).await.unwrap().expect_err("it is abandoned");
    assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
}

#[actix::test]
async fn a_branch_with_nothing_in_flight_drains_at_once_and_only_once() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    let drained = soon(branch.drain(Duration::MAX)).await.unwrap();
    assert_eq!((drained.finished, drained.abandoned), (0, 0));
    assert_eq!(branch.drain(Duration::MAX).await.expect_err("it has drained").code(), Code::DRAINING);
    until_known(&mesh.master, "one", false).await;
}

/// A publisher that found the link closing asked again and again for room, and kept its arbiter from everything else.
#[actix::test]
async fn whoever_publishes_while_a_branch_drains_is_told_that_the_link_closes() {
    let mesh = Mesh::start().await;
    for _ in 0..10 {
        let branch = mesh.branch("one").await;
        let publishers: Vec<_> = (0..4)
            .map(|_| {
                let branch = branch.clone();
                actix_rt::spawn(async move {
                    loop {
                        if let Err(error) = branch.publish("t", &1).await {
                            return error;
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        soon(branch.drain(Duration::MAX)).await.unwrap();
        for publisher in publishers {
            let error = soon(publisher).await.unwrap();
            assert!([Code::LINK_LOST, Code::DRAINING].contains(&error.code()), "{error}");
        }
        until_known(&mesh.master, "one", false).await;
    }
}

#[actix::test]
async fn a_drain_ends_when_the_link_is_lost_meanwhile() {
    let (mesh, cut) = (Mesh::start().await, CutDial::default());
    let (provider, mut coming) = stuck("provider");
    let provider = mesh.bind(provider.dial(cut.clone())).await;
    let _calling = call_forever(&mesh.master, "stuck");
    soon(coming.recv()).await.expect("it ran");
    let draining = actix_rt::spawn({
        let provider = provider.clone();
        async move { provider.drain(Duration::MAX).await }
    });
    until(&provider, |status| *status == Status::Draining).await;
    cut.cut();
    let drained = soon(draining).await.unwrap().expect("it says what became of it");
    assert_eq!((drained.finished, drained.abandoned), (0, 1));
    assert_eq!(soon(provider.closed()).await.code(), Code::DRAINING);
}

/// Such a branch once went on taking calls, and came back to its master in the middle of its drain.
#[actix::test]
async fn a_branch_whose_link_is_down_drains_as_well() {
    let (mesh, cut) = (Mesh::start().await, CutDial::default());
    let (branch, mut coming) = stuck("one");
    let branch = branch.dial(cut.clone()).backoff(Duration::from_millis(5), Duration::from_millis(20));
    let branch = mesh.bind(branch).await;
    let own = call_forever(&branch, "stuck");
    let dropped = soon(coming.recv()).await.expect("it ran");
    cut.cut();
    until(&branch, |status| *status == Status::Rebinding).await;
    let waiting = call_forever(&branch, "any");
    soon(async {
        while branch.snapshot().await.unwrap().calls_waiting == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let draining = actix_rt::spawn({
        let branch = branch.clone();
        async move { branch.drain(Duration::from_millis(100)).await }
    });
    until(&branch, |status| *status == Status::Draining).await;
    let error = branch.call::<()>("any", ()).await.expect_err("it drains");
    assert_eq!((error.code(), error.fate()), (Code::DRAINING, Fate::NotSent));
    let error = soon(waiting).await.unwrap().expect_err("it never left");
    assert_eq!((error.code(), error.fate()), (Code::DRAINING, Fate::NotSent));
    // The branch does not bind again, though the master can be reached now.
    cut.mend();
    let drained = soon(draining).await.unwrap().unwrap();
    assert_eq!((drained.finished, drained.abandoned), (0, 2));
    let error = soon(own).await.unwrap().expect_err("it is abandoned");
    assert_eq!((error.code(), error.fate()), (Code::DRAINING, Fate::Unknown));
    soon(dropped).await.expect("and its future was dropped");
    assert!(mesh.master.snapshot().await.unwrap().sessions.is_empty());
}

#[actix::test]
async fn a_branch_calls_itself_while_its_master_is_gone() {
    let mesh = Mesh::start().await;
    let branch = mesh.bind(BranchActor::new("one").respond("own", |(): ()| async { Ok(1) })).await;
    mesh.master.drain(Duration::from_secs(1)).await.unwrap();
    until(&branch, |status| *status == Status::Rebinding).await;
    assert_eq!(branch.call::<i32>("own", ()).fail_when_down().await, Ok(1));
    let error = mesh.master.call::<i32>("own", ()).await.expect_err("it has drained");
    assert_eq!((error.code(), error.fate()), (Code::DRAINING, Fate::NotSent));
}

#[actix::test]
async fn a_branch_whose_arbiter_ends_is_offline_and_calls_through_its_handle_end() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider).await;
    let arbiter = actix::Arbiter::new();
    let (bound, binding) = oneshot::channel();
    let address = mesh.address.clone();
    arbiter.spawn_fn(move || {
        actix_rt::spawn(async move {
            let branch = BranchActor::new("elsewhere").respond("x", |(): ()| async { Ok(1) });
            let _ = bound.send(branch.bind(address).await.expect("it binds"));
        });
    });
    let elsewhere = soon(binding).await.unwrap();
    assert_eq!(mesh.master.call::<i32>("x", ()).await, Ok(1));
    let calling = call_forever(&elsewhere, "stuck");
    let dropped = soon(coming.recv()).await.expect("it ran");
    arbiter.stop();
    arbiter.join().expect("it ends");
    let error = soon(calling).await.unwrap().expect_err("its node is gone");
    assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::Unknown));
    let error = soon(elsewhere.call::<()>("stuck", ())).await.expect_err("its node is gone");
    assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::NotSent));
    assert_eq!(elsewhere.publish("t", &1).await.expect_err("its node is gone").code(), Code::LINK_LOST);
    assert_eq!(soon(elsewhere.closed()).await.code(), Code::LINK_LOST);
    soon(dropped).await.expect("its request was cancelled");
    until_known(&mesh.master, "elsewhere", false).await;
}

#[actix::test]
async fn handles_work_from_any_thread() {
    let mesh =
        Mesh::of(MasterActor::new("master").respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) }))
            .await;
    let branch = mesh.branch("one").await;
    let nodes = [Node::from(&branch), Node::from(&mesh.master)];
    let (done, mut sums) = mpsc::unbounded_channel();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (node, done) = (nodes[thread % 2].clone(), done.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                for n in 0..100_i64 {
                    let sum = runtime.block_on(node.call::<i64>("add", (n, 1)));
                    let _ = done.send((n, sum));
                }
            })
        })
        .collect();
    for _ in 0..400 {
        let (n, sum) = soon(sums.recv()).await.expect("a thread calls");
        assert_eq!(sum, Ok(n + 1));
    }
    for thread in threads {
        thread.join().expect("it ends");
    }
}

#[actix::test]
async fn so_many_calls_wait_for_a_lost_link_and_no_more() {
    let (mesh, cut) = (Mesh::start().await, CutDial::default());
    let branch = mesh.bind(quick("one", &cut)).await;
    cut.cut();
    until(&branch, |status| *status == Status::Rebinding).await;
    let calls = (0..=WAITING_MAX).map(|_| branch.call::<()>("x", ()).within(Duration::from_millis(200)));
    let outcomes = soon(futures::future::join_all(calls)).await;
    let (last, waited) = outcomes.split_last().expect("many");
    let error = last.as_ref().expect_err("no room");
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    for outcome in waited {
        let error = outcome.as_ref().expect_err("the link did not come back");
        assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::NotSent));
    }
    assert_eq!(branch.snapshot().await.unwrap().calls_waiting, 0, "nobody waits any more");
}

#[actix::test]
async fn a_watcher_hears_of_every_change_in_order() {
    let mesh = Mesh::start().await;
    let watching = mesh.branch("watching").await;
    let mut heard = Vec::new();
    for node in [Node::from(&mesh.master), Node::from(&watching)] {
        let (tell, told) = mpsc::unbounded_channel();
        let watch = move |change: &Change| {
            let actions: Vec<_> = change.news().actions.iter().map(|(name, _)| name.to_string()).collect();
            let came = matches!(change, Change::Online(_));
            let _ = tell.send((came, change.news().node.to_string(), change.news().whole, actions.join(" ")));
        };
        node.on_change(watch).await.unwrap();
        heard.push(told);
    }
    let coming = mesh.bind(BranchActor::new("coming").respond("first", |(): ()| async { Ok(1) })).await;
    coming.respond(Responders::new().respond("second", |(): ()| async { Ok(2) })).await.unwrap();
    coming.withdraw(["first"]).await.unwrap();
    coming.drain(Duration::from_secs(1)).await.unwrap();
    for told in &mut heard {
        for (came, whole, actions) in
            [(true, true, "first"), (true, false, "second"), (false, false, "first"), (false, true, "")]
        {
            let expected = (came, "coming".to_owned(), whole, actions.to_owned());
            let change = loop {
                // The master's watcher is told of `watching` too, if it is registered before that news is out.
                let change = soon(told.recv()).await.expect("it runs");
                if change.1 == "coming" {
                    break change;
                }
            };
            assert_eq!(change, expected);
        }
    }
}

/// Such a panic once ended the whole node.
#[actix::test]
async fn a_watcher_that_panics_harms_nobody() {
    let mesh = Mesh::of(MasterActor::new("master").respond("x", |(): ()| async { Ok(1) })).await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&mesh.master), Node::from(&branch)] {
        node.on_change(|_: &Change| panic!("boom")).await.unwrap();
    }
    let _two = mesh.bind(BranchActor::new("two").respond("y", |(): ()| async { Ok(2) })).await;
    until_known(&branch, "two", true).await;
    for node in [Node::from(&mesh.master), Node::from(&branch)] {
        assert_eq!(soon(node.call::<i32>("x", ())).await, Ok(1));
        assert_eq!(soon(node.call::<i32>("y", ())).await, Ok(2));
    }
}

/// Such a drain lasted for as long as it was allowed to: the calls waited for a link that never comes.
#[actix::test]
async fn a_branch_that_drains_under_a_draining_master_ends_the_calls_that_wait_for_the_next_link() {
    let (mesh, (provider, mut coming)) = (Mesh::start().await, stuck("provider"));
    let _provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    let _calling = call_forever(&caller, "stuck");
    let _running = soon(coming.recv()).await.expect("it runs, so the drain of the master lasts");
    let branch = mesh.branch("one").await;
    let master = mesh.master.clone();
    let _draining = actix_rt::spawn(async move { master.drain(Duration::MAX).await });
    soon(async {
        // Until the branch knows of the drain, the master refuses the call.
        while branch.call::<()>("any", ()).fail_when_down().await.map_err(|it| it.code())
            != Err(Code::LINK_LOST)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let waiting = call_forever(&branch, "any");
    soon(async {
        while branch.snapshot().await.unwrap().calls_waiting == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(branch.drain(Duration::MAX)).await.expect("it drains");
    let error = soon(waiting).await.unwrap().expect_err("it never left");
    assert_eq!((error.code(), error.fate()), (Code::DRAINING, Fate::NotSent));
}

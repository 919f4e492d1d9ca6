//! Waiting for an action: until a node answers it, and no longer.

use crate::cut::CutDial;
use crate::{Mesh, soon};
use futures::poll;
use meshwork::prelude::*;
use std::pin::pin;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

fn responders(action: &'static str) -> Responders {
    Responders::new().respond(action, |(): ()| async { Ok(7_u8) })
}

/// Waits for an action, and calls it.
async fn wait_and_call(node: &Node, action: &str) {
    soon(node.wait_for(action, LONG)).await.expect("a node answers it");
    assert_eq!(soon(node.call::<u8>(action, ())).await, Ok(7), "{action}");
}

#[actix::test]
async fn an_action_is_there_when_any_node_answers_it() {
    let mesh = Mesh::of(MasterActor::new("master").respond_all(responders("of/master"))).await;
    let one = mesh.bind(BranchActor::new("one").respond_all(responders("of/one"))).await;
    let two = mesh.bind(BranchActor::new("two").respond_all(responders("below/two/**"))).await;
    for node in [Node::from(&mesh.master), Node::from(&one), Node::from(&two)] {
        for action in ["of/master", "of/one", "below/two/a", "below/two/a/b"] {
            wait_and_call(&node, action).await;
        }
    }
}

#[actix::test]
async fn an_action_is_waited_for_until_a_node_offers_it() {
    let mesh = Mesh::start().await;
    let one = mesh.branch("one").await;
    for node in [Node::from(&mesh.master), Node::from(&one)] {
        let mut by_name = pin!(node.wait_for("late", LONG));
        let mut below = pin!(node.wait_for("below/late", LONG));
        assert!(poll!(&mut by_name).is_pending() && poll!(&mut below).is_pending());
        let (late, wide) = (responders("late"), responders("below/**"));
        let late = mesh.bind(BranchActor::new("late").respond_all(late).respond_all(wide)).await;
        soon(by_name).await.expect("it is offered");
        soon(below).await.expect("it is offered");
        assert_eq!(soon(node.call::<u8>("late", ())).await, Ok(7));
        assert_eq!(soon(node.call::<u8>("below/late", ())).await, Ok(7));
        soon(late.drain(Duration::ZERO)).await.expect("it drains");
        // The next node begins without the action, too.
        for node in [Node::from(&mesh.master), Node::from(&one)] {
            crate::until_known(&node, "late", false).await;
        }
    }
}

#[actix::test]
async fn a_node_waits_for_an_action_that_it_answers_itself_later() {
    let mesh = Mesh::start().await;
    let one = mesh.branch("one").await;
    for node in [Node::from(&mesh.master), Node::from(&one)] {
        let mut waiting = pin!(node.wait_for("own", LONG));
        assert!(poll!(&mut waiting).is_pending());
        node.respond(responders("own")).await.expect("it answers it");
        soon(waiting).await.expect("it answers it");
        node.withdraw(["own"]).await.expect("it is withdrawn");
        let error = node.wait_for("own", Duration::ZERO).await.expect_err("it is withdrawn");
        assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
    }
}

/// News travel a moment behind offers and withdrawals, and a wait must not trust news that are out of date.
#[actix::test]
async fn a_call_after_a_wait_finds_its_action_however_often_it_comes_and_goes() {
    let mesh = Mesh::start().await;
    let provider = mesh.branch("provider").await;
    let caller = mesh.branch("caller").await;
    for round in 0..100 {
        provider.respond(responders("fickle")).await.expect("it is offered");
        wait_and_call(&caller, "fickle").await;
        wait_and_call(&mesh.master, "fickle").await;
        provider.withdraw(["fickle"]).await.expect("it is withdrawn");
        let mut waiting = pin!(caller.wait_for("fickle", LONG));
        assert!(poll!(&mut waiting).is_pending());
        if round % 2 == 0 {
            // The answer of the master has come, and says that there is no provider.
            let error = caller.call::<u8>("fickle", ()).await.expect_err("it is withdrawn");
            assert_eq!(error.code(), Code::ACTION_NOT_FOUND);
        }
        provider.respond(responders("fickle")).await.expect("it is offered");
        soon(waiting).await.expect("it is offered");
        assert_eq!(soon(caller.call::<u8>("fickle", ())).await, Ok(7));
        provider.withdraw(["fickle"]).await.expect("it is withdrawn");
    }
}

#[actix::test]
async fn a_wait_ends_with_its_time() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&mesh.master), Node::from(&branch)] {
        let error =
            soon(node.wait_for("none", Duration::from_millis(20))).await.expect_err("nobody offers it");
        assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
        let error = soon(node.wait_for("no//name", LONG)).await.expect_err("it is no name");
        assert_eq!((error.code(), error.fate()), (Code::BAD_NAME, Fate::NotSent));
    }
}

#[actix::test]
async fn a_wait_ends_with_its_node() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&branch), Node::from(&mesh.master)] {
        let waiting = actix_rt::spawn({
            let node = node.clone();
            async move { node.wait_for("none", LONG).await }
        });
        tokio::task::yield_now().await;
        soon(node.drain(Duration::ZERO)).await.expect("it drains");
        let error = soon(waiting).await.expect("no panic").expect_err("its node has ended");
        assert_eq!((error.code(), error.fate()), (Code::DRAINING, Fate::NotSent));
        assert!(soon(node.wait_for("none", LONG)).await.is_err());
    }
}

#[actix::test]
async fn a_wait_outlives_a_lost_link() {
    let mesh = Mesh::start().await;
    let dial = CutDial::default();
    let wait = Duration::from_millis(1);
    let branch = mesh.bind(BranchActor::new("one").dial(dial.clone()).backoff(wait, wait)).await;
    let mut waiting = pin!(branch.wait_for("late", LONG));
    assert!(poll!(&mut waiting).is_pending());
    dial.cut();
    let mut status = branch.status().await.expect("it runs");
    soon(status.wait_for(|status| *status == meshwork::Status::Rebinding)).await.expect("it runs");
    let mut asked_meanwhile = pin!(branch.wait_for("late", LONG));
    assert!(poll!(&mut waiting).is_pending() && poll!(&mut asked_meanwhile).is_pending());
    let _late = mesh.bind(BranchActor::new("late").respond_all(responders("late"))).await;
    assert!(poll!(&mut waiting).is_pending() && poll!(&mut asked_meanwhile).is_pending());
    dial.mend();
    soon(waiting).await.expect("it is offered");
    soon(asked_meanwhile).await.expect("it is offered");
    assert_eq!(soon(branch.call::<u8>("late", ())).await, Ok(7));
}

#[actix::test]
async fn a_wait_in_a_node_mesh_which_does_not_tell_its_actions_ends_at_once() {
    let mesh = Mesh::of(MasterActor::new("master").respond_all(responders("there"))).await;
    let gateway = mesh.master.listen(Listen::node_mesh("127.0.0.1:0")).await.expect("it listens");
    let branch = BranchActor::new("one").dialect(Dialect::NodeMesh).bind(gateway).await.expect("it binds");
    let error = soon(branch.wait_for("there", LONG)).await.expect_err("it cannot be known");
    assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
}

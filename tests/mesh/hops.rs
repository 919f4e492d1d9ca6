//! Requests that would go round between meshes, by bridges, by programs of other protocols and by responders, end.

use crate::{Mesh, soon};
use meshwork::prelude::*;
use meshwork::{Address, Bridge};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

async fn listen(mesh: &Mesh, gateway: Listen) -> Address {
    mesh.master.addr().send(gateway).await.expect("it runs").expect("it listens")
}

async fn until_offered(mesh: &Mesh, action: &'static str, by: usize) {
    soon(async {
        loop {
            let described = mesh.master.describe(action).await.expect("it runs");
            if described.iter().map(|action| action.nodes.len()).sum::<usize>() == by {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[actix::test]
async fn a_call_ends_though_two_meshes_are_bridged_in_a_circle() {
    type Ways = [(fn(&'static str) -> Listen, fn(Address) -> Bridge); 2];
    let ways: Ways = [
        (|address| Listen::light_rpc(address), |server| Bridge::light_rpc(server)),
        (|address| Listen::dnode(address), |server| Bridge::dnode(server)),
    ];
    for (gateway, bridge) in ways {
        let (one, other) = (Mesh::start().await, Mesh::start().await);
        let provider = other.bind(BranchActor::new("provider").respond("f", |(): ()| async { Ok(1) })).await;
        let to_other = bridge(listen(&other, gateway("127.0.0.1:0")).await).name("to other");
        let to_other = actix_rt::spawn(to_other.run(&one.address));
        until_offered(&one, "f", 1).await;
        let to_one = bridge(listen(&one, gateway("127.0.0.1:0")).await).name("to one");
        let to_one = actix_rt::spawn(to_one.run(&other.address));
        until_offered(&other, "f", 2).await;
        provider.drain(Duration::from_secs(1)).await.expect("it runs");
        until_offered(&other, "f", 1).await;
        // Each mesh now knows the action from the other one alone.
        for mesh in [&one, &other] {
            let ended = soon(mesh.master.call::<meshwork::Value>("f", ())).await;
            assert!(format!("{ended:?}").contains("goes round"), "{ended:?}");
        }
        to_other.abort();
        to_one.abort();
    }
}

#[actix::test]
async fn a_call_ends_though_responders_send_it_from_mesh_to_mesh() {
    let (one, other) = (Mesh::start().await, Mesh::start().await);
    let asked = Arc::new(AtomicUsize::new(0));
    let (in_one, in_other) = (one.branch("caller").await, other.branch("caller").await);
    let send_on = |to: &Branch, at_once: bool| {
        let (to, asked) = (to.clone(), Arc::clone(&asked));
        move |number: i64| {
            let (to, asked) = (to.clone(), Arc::clone(&asked));
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                if !at_once {
                    tokio::task::yield_now().await;
                }
                Ok::<i64, ActionError>(to.call("round", number + 1).await?)
            }
        }
    };
    let _one = one.bind(BranchActor::new("one").respond("round", send_on(&in_other, false))).await;
    let _other = other.bind(BranchActor::new("other").respond("round", send_on(&in_one, true))).await;
    let error = soon(in_one.call::<i64>("round", 0_i64)).await.unwrap_err();
    assert!(error.message().contains("goes round"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 65, "the first call came over no hop");
    let many = soon(in_one.call_many::<i64>("round", [1_i64, 2])).await;
    assert!(
        many.iter()
            .all(|outcome| outcome.as_ref().is_err_and(|error| error.message().contains("goes round")))
    );
}

#[actix::test]
async fn an_action_may_call_itself_in_its_mesh_as_deep_as_it_likes() {
    let mesh = Mesh::start().await;
    let caller = mesh.branch("caller").await;
    let this: Arc<std::sync::OnceLock<Branch>> = Arc::default();
    let of = Arc::clone(&this);
    let sum = move |number: i64| {
        let of = Arc::clone(&of);
        async move {
            let this = of.get().expect("it is bound");
            Ok::<i64, ActionError>(if number == 0 {
                0
            } else {
                number + this.call::<i64>("sum", number - 1).await?
            })
        }
    };
    let provider = mesh.bind(BranchActor::new("provider").respond("sum", sum)).await;
    assert!(this.set(provider).is_ok());
    assert_eq!(soon(caller.call("sum", 300_i64)).await, Ok(45_150_i64));
}

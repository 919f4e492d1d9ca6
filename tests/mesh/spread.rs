//! A master whose sessions live on several arbiters: the promises of a call hold across threads.

use crate::{Mesh, soon};
use meshwork::prelude::*;
use std::collections::BTreeSet;

const ARBITERS: usize = 3;

async fn spread() -> Mesh {
    let master = MasterActor::new("master")
        .arbiters(ARBITERS)
        .respond("where", |(): ()| async { Ok(format!("{:?}", std::thread::current().id())) });
    Mesh::of(master).await
}

#[actix::test]
async fn sessions_take_turns_on_the_arbiters() {
    let mesh = spread().await;
    let mut threads = Vec::new();
    for number in 0..2 * ARBITERS {
        let branch = mesh.bind(BranchActor::new(format!("branch{number}"))).await;
        threads.push(soon(branch.call::<String>("where", ())).await.unwrap());
    }
    assert_eq!(threads.iter().collect::<BTreeSet<_>>().len(), ARBITERS);
    assert_eq!(threads[..ARBITERS], threads[ARBITERS..]);
}

#[actix::test]
async fn everyone_calls_everyone_across_arbiters() {
    let mesh = spread().await;
    let mut branches = Vec::new();
    for number in 0..2 * ARBITERS {
        let branch = BranchActor::new(format!("branch{number}"))
            .respond(format!("twice/{number}"), |it: u64| async move { Ok(2 * it) });
        branches.push(mesh.bind(branch).await);
    }
    for (one, caller) in branches.iter().enumerate() {
        for other in 0..branches.len() {
            let calls = caller.call_many::<u64>(format!("twice/{other}"), 0..100_u64);
            for (number, twice) in soon(calls).await.into_iter().enumerate() {
                assert_eq!(twice.unwrap(), 2 * number as u64, "{one} calls {other}");
            }
        }
    }
}

#[actix::test]
async fn a_provider_that_is_lost_on_another_arbiter_ends_its_calls() {
    let mesh = spread().await;
    let (caller, provider) = (mesh.branch("caller").await, BranchActor::new("provider"));
    let provider = mesh
        .bind(provider.respond("never", |(): ()| async {
            std::future::pending::<()>().await;
            Ok(())
        }))
        .await;
    let call = actix_rt::spawn(caller.call::<()>("never", ()).within(Duration::MAX));
    let other = actix_rt::spawn(caller.call::<()>("never", ()).within(Duration::from_millis(50)));
    let late = soon(other).await.unwrap().unwrap_err();
    assert_eq!((late.code(), late.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
    // A drained provider gives up the request that never ends.
    soon(provider.drain(Duration::from_millis(50))).await.unwrap();
    let lost = soon(call).await.unwrap().unwrap_err();
    assert_eq!((lost.code(), lost.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
}

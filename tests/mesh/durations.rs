//! Durations that a user may write, or a peer may send: none causes a panic, the longest means for ever.

use crate::ends::stuck;
use crate::{Mesh, soon};
use meshwork::prelude::*;
use meshwork::{Describe, Drain, Pattern};

const EXTREMES: [Duration; 4] =
    [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX];

/// A heartbeat that is as long ended both ends with a panic.
#[actix::test]
async fn nodes_with_any_durations_bind_call_and_drain() {
    for extreme in EXTREMES {
        let master = MasterActor::new("master").heartbeat(extreme).busy_poll(extreme);
        let master = if extreme > Duration::from_secs(1) { master.bind_within(extreme) } else { master };
        let mesh = Mesh::of(master.respond("x", |(): ()| async { Ok(1) })).await;
        let branch = BranchActor::new("one").backoff(extreme, extreme).busy_poll(extreme);
        let branch = if extreme > Duration::from_secs(1) { branch.bind_within(extreme) } else { branch };
        let branch = mesh.bind(branch).await;
        assert_eq!(soon(branch.call::<i32>("x", ())).await, Ok(1));
        soon(branch.drain(extreme)).await.expect("it drains");
        soon(mesh.master.drain(extreme)).await.expect("it drains");
    }
}

#[actix::test]
async fn calls_and_questions_with_any_durations_end() {
    let mesh = Mesh::start().await;
    let (provider, mut coming) = stuck("provider");
    let _provider = mesh.bind(provider.respond("x", |(): ()| async { Ok(1) })).await;
    let one = mesh.bind(BranchActor::new("one").respond("feed", feed)).await;
    for node in [Node::from(&mesh.master), Node::from(&one)] {
        for extreme in EXTREMES {
            let outcome = soon(node.call::<i32>("x", ()).within(extreme)).await;
            let is_short = extreme < Duration::from_secs(1);
            assert!(outcome == Ok(1) || is_short && outcome.is_err(), "{extreme:?}");
            let called = Callback::new(move |()| 7_u8);
            let outcome = soon(node.call::<bool>("feed", (called, extreme))).await;
            assert!(outcome == Ok(true) || is_short && outcome == Ok(false), "{extreme:?} and {outcome:?}");
            let stuck = actix_rt::spawn(node.call::<()>("stuck", ()).within(extreme));
            if is_short {
                assert!(soon(stuck).await.expect("no panic").is_err());
            } else {
                let dropped = soon(coming.recv()).await.expect("it runs");
                assert!(!stuck.is_finished());
                stuck.abort();
                soon(dropped).await.expect("it is cancelled");
            }
        }
    }
    let pattern = Pattern::new("**").expect("a pattern");
    for within in EXTREMES {
        let asked = soon(one.addr().send(Describe { pattern: pattern.clone(), within })).await;
        let asked_master = soon(mesh.master.addr().send(Describe { pattern: pattern.clone(), within })).await;
        let is_short = within < Duration::from_secs(1);
        for described in [asked, asked_master] {
            let described = described.expect("no panic");
            assert!(is_short || described.expect("there is time").len() == 3);
        }
    }
    let drained = soon(one.addr().send(Drain { within: Duration::MAX })).await.expect("no panic");
    assert_eq!(drained.abandoned, 0);
}

async fn feed((callback, within): (Callback<(), u8>, Duration)) -> Result<bool, ActionError> {
    Ok(callback.call(()).within(within).await == Ok(7))
}

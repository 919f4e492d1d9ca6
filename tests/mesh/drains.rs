//! Drains: nothing that was taken is lost, at the node that drains and at its peers.

use crate::ends::stuck;
use crate::in_flight::elsewhere;
use crate::links::until;
use crate::{Mesh, ear, soon};
use meshwork::prelude::*;
use meshwork::{Drained, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The branch closed its link in front of events that the master had sent: none of 200 was heard.
#[actix::test]
async fn a_subscriber_that_drains_hears_the_events_that_were_published_before() {
    let mesh = Mesh::start().await;
    let publisher = mesh.branch("publisher").await;
    for node in [Node::from(&mesh.master), Node::from(&publisher)] {
        let subscriber = mesh.branch("subscriber").await;
        let (handler, mut heard) = ear::<u32>();
        subscriber.subscribe("t", handler).await.unwrap().keep();
        for number in 0..200 {
            node.publish("t", &number).await.unwrap();
        }
        // The events of the branch are on their way to the master: the answer to a question comes behind them.
        node.describe("**").await.unwrap();
        mesh.master.snapshot().await.unwrap();
        let drained = soon(subscriber.drain(Duration::MAX)).await.unwrap();
        assert_eq!(drained, Drained::default());
        let heard: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).map(|(_, number)| number).collect();
        assert_eq!(heard, (0..200).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn a_member_that_drains_costs_its_group_no_event() {
    let mesh = Mesh::start().await;
    let publisher = mesh.branch("publisher").await;
    let (handler, mut heard) = ear::<u32>();
    let mut members = Vec::new();
    for name in ["one", "two", "three"] {
        let (member, arbiter) = elsewhere(mesh.address.clone(), move || BranchActor::new(name)).await;
        member.subscribe_group("workers", "t", handler.clone()).await.unwrap().keep();
        members.push((member, arbiter));
    }
    let publishing = actix_rt::spawn(async move {
        for number in 0..3_000_u32 {
            publisher.publish("t", &number).await.unwrap();
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let mut numbers = Vec::new();
    while numbers.len() < 500 {
        numbers.push(soon(heard.recv()).await.unwrap().1);
    }
    for (member, arbiter) in members.drain(..2) {
        soon(member.drain(Duration::MAX)).await.unwrap();
        arbiter.stop();
    }
    soon(publishing).await.unwrap();
    while numbers.len() < 3_000 {
        numbers.push(soon(heard.recv()).await.unwrap().1);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..3_000).collect::<Vec<_>>(), "each event once");
    members.into_iter().for_each(|(_, arbiter)| _ = arbiter.stop());
}

/// Such calls failed with PROVIDER_LOST, may have run, or with DRAINING, though another provider stayed.
#[actix::test]
async fn calls_go_to_the_provider_that_stays_and_their_callers_notice_nothing() {
    let mesh = Mesh::start().await;
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    let responders = Responders::new().respond("count", move |pause: bool| {
        let count = Arc::clone(&count);
        async move {
            if pause {
                tokio::task::yield_now().await;
            }
            Ok(count.fetch_add(1, Ordering::Relaxed))
        }
    });
    let of = responders.clone();
    let (_stays, stays) = elsewhere(mesh.address.clone(), || BranchActor::new("stays").respond_all(of)).await;
    let caller = mesh.branch("caller").await;
    let mut made = 0;
    for round in 0..20 {
        let of = responders.clone();
        let (leaves, arbiter) =
            elsewhere(mesh.address.clone(), || BranchActor::new("leaves").respond_all(of)).await;
        let nodes = [Node::from(&caller), Node::from(&mesh.master)];
        let calls = (0..400).map(|n| nodes[n % 2].call::<usize>("count", n % 3 == 0));
        let calls: Vec<_> = calls.map(actix_rt::spawn).collect();
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let draining = actix_rt::spawn(async move { leaves.drain(Duration::MAX).await });
        for call in calls {
            let outcome = soon(call).await.unwrap();
            assert!(outcome.is_ok(), "{outcome:?} in round {round}");
            made += 1;
        }
        assert_eq!(soon(draining).await.unwrap().unwrap().abandoned, 0);
        arbiter.stop();
    }
    assert_eq!(ran.load(Ordering::Relaxed), made, "each ran once");
    stays.stop();
}

#[actix::test]
async fn what_was_published_while_a_master_drains_is_heard_or_refused() {
    for round in 0..10 {
        let mesh = Mesh::start().await;
        let (subscriber, ears) = elsewhere(mesh.address.clone(), || BranchActor::new("subscriber")).await;
        let (publisher, mouth) = elsewhere(mesh.address.clone(), || BranchActor::new("publisher")).await;
        let (handler, mut heard) = ear::<u32>();
        subscriber.subscribe("t", handler).await.unwrap().keep();
        let nodes = [Node::from(&publisher), Node::from(&mesh.master)];
        let publishing = nodes.map(|node| {
            actix_rt::spawn(async move {
                for number in 0.. {
                    if let Err(error) = node.publish("t", &number).await {
                        assert_eq!(error.fate(), Fate::NotSent);
                        return number;
                    }
                    if number % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                0
            })
        });
        for _ in 0..round {
            soon(heard.recv()).await.expect("it is published to");
        }
        soon(mesh.master.drain(Duration::from_secs(8))).await.unwrap();
        let mut published = 0;
        for publisher in publishing {
            published += soon(publisher).await.unwrap();
        }
        for number in round..published {
            assert!(soon(heard.recv()).await.is_some(), "{number} of {published}");
        }
        [ears, mouth].iter().for_each(|arbiter| _ = arbiter.stop());
    }
}

/// A branch that had been accepted before the drain, and bound in it, was left without a master.
#[actix::test]
async fn a_master_that_drains_lets_nobody_in() {
    let mesh = Mesh::of(MasterActor::new("master").arbiters(3)).await;
    let (provider, mut coming) = stuck("provider");
    let provider = mesh.bind(provider).await;
    let calling = actix_rt::spawn(mesh.master.call::<()>("stuck", ()).within(Duration::MAX));
    soon(coming.recv()).await.expect("it runs");
    let binding: Vec<_> = (0..30)
        .map(|n| actix_rt::spawn(BranchActor::new(format!("late {n}")).bind(mesh.address.clone())))
        .collect();
    let listening: Vec<_> =
        (0..3).map(|_| mesh.master.addr().send(Listen::tcp("127.0.0.1:0"))).map(actix_rt::spawn).collect();
    let (master, actor) = (mesh.master.clone(), mesh.master.addr());
    let draining = actix_rt::spawn(async move { master.drain(Duration::MAX).await });
    until(&mesh.master, |status| *status == Status::Draining).await;
    let late = soon(actor.send(Listen::tcp("127.0.0.1:0"))).await.expect("it runs");
    assert!(late.expect_err("it drains").to_string().contains("draining"));
    for listening in listening {
        // One that was open before is closed.
        let _ = soon(listening).await.unwrap();
    }
    let mut bound = Vec::new();
    for binding in binding {
        bound.extend(soon(binding).await.unwrap());
    }
    calling.abort();
    provider.drain(Duration::from_millis(10)).await.unwrap();
    soon(draining).await.unwrap().unwrap();
    for branch in bound {
        until(&branch, |status| *status == Status::Rebinding).await;
    }
}

/// Whatever did not fit into the outbox was lost, and each publish was a success.
#[actix::test]
async fn events_of_any_length_leave_or_their_publisher_is_told() {
    let mesh = Mesh::start().await;
    let publisher = mesh.branch("publisher").await;
    let event = meshwork::ByteBuf::from(vec![7; 1 << 20]);
    let mut dropped = 0;
    for (node, name) in [(Node::from(&mesh.master), "one"), (Node::from(&publisher), "two")] {
        let (subscriber, arbiter) = elsewhere(mesh.address.clone(), move || BranchActor::new(name)).await;
        let (handler, mut heard) = ear::<meshwork::ByteBuf>();
        let _kept = subscriber.subscribe("t", handler).await.unwrap();
        for _ in 0..100 {
            node.publish("t", &event).await.expect("it is taken");
        }
        // All have left. The master drops, and counts, those for which a slow subscriber leaves no room.
        soon(async {
            let (mut count, before) = (0, dropped);
            loop {
                while let Ok((_, value)) = heard.try_recv() {
                    assert_eq!(value.len(), event.len());
                    count += 1;
                }
                dropped = mesh.master.snapshot().await.expect("it runs").events_dropped;
                if count + dropped - before == 100 {
                    return;
                }
            }
        })
        .await;
        arbiter.stop();
        soon(subscriber.closed()).await;
        assert_eq!(publisher.snapshot().await.unwrap().events_dropped, 0, "{name}");
    }
}

/// Such a publisher asked again and again in one poll, and nothing else ran on its thread: for ever, if that was the thread of the branch.
#[actix::test]
async fn a_long_event_behind_a_short_one_waits_for_room_and_not_for_ever() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    soon(async {
        for len in [3, 14, 9, 15, 1, 15, 8, 8, 15] {
            let event = meshwork::ByteBuf::from(vec![7; len << 20]);
            branch.publish("t", &event).await.expect("there is room in the end");
        }
    })
    .await;
    // The queue is full of cancels, and no event is in it.
    let mut calls: Vec<_> = (0..17_000).map(|_| Box::pin(branch.call::<()>("x", ()).into_future())).collect();
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    drop(calls);
    soon(branch.publish("t", &1)).await.expect("there is room in the end");
}

/// The events that waited for the router when the drain ended were dropped.
#[actix::test]
async fn a_master_that_drains_is_heard_to_its_last_event() {
    for on_thread in [false, true] {
        let (master, address) = if on_thread {
            let master = MasterActor::new("master").start_on_thread().unwrap();
            let address = master.listen(Listen::tcp("127.0.0.1:0")).await.unwrap();
            (master, address)
        } else {
            let mesh = Mesh::start().await;
            (mesh.master, mesh.address)
        };
        let (subscriber, arbiter) = elsewhere(address, || BranchActor::new("subscriber")).await;
        let ((of_branch, mut at_branch), (of_master, mut at_master)) = (ear::<u32>(), ear::<u32>());
        subscriber.subscribe("t", of_branch).await.unwrap().keep();
        master.subscribe("t", of_master).await.unwrap().keep();
        for number in 0..10_u32 {
            master.publish("t", &number).await.unwrap();
            master.broadcast("b", &number).await.unwrap();
        }
        let long = meshwork::ByteBuf::from(vec![7; 1 << 20]);
        for _ in 0..30 {
            master.publish("long", &long).await.unwrap();
        }
        master.publish("t", &10).await.unwrap();
        let (one, other) = (master.drain(Duration::from_secs(5)), master.drain(Duration::from_secs(5)));
        let (one, other) = futures::join!(soon(one), soon(other));
        assert!(one.is_ok() && (other == one || other.is_err_and(|error| error.code() == Code::DRAINING)));
        for number in 0..=10 {
            assert_eq!(soon(at_branch.recv()).await.map(|(_, heard)| heard), Some(number));
            assert_eq!(soon(at_master.recv()).await.map(|(_, heard)| heard), Some(number));
        }
        arbiter.stop();
    }
}

/// What was on its way to such a member came back behind its drain, and was lost without a count.
#[actix::test]
async fn a_member_that_unsubscribes_and_may_drain_costs_its_group_no_event() {
    const EVENTS: usize = 20_000;
    for round in 0..6 {
        let mesh = Mesh::start().await;
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let handler = move |_: Event<u32>| _ = counted.fetch_add(1, Ordering::Relaxed);
        let (one, of_one) = elsewhere(mesh.address.clone(), || BranchActor::new("one")).await;
        let (two, of_two) = elsewhere(mesh.address.clone(), || BranchActor::new("two")).await;
        let subscription = one.subscribe_group("workers", "t", handler.clone()).await.unwrap();
        two.subscribe_group("workers", "t", handler).await.unwrap().keep();
        let publisher = mesh.branch("publisher").await;
        let publishing = actix_rt::spawn(async move {
            for number in 0..u32::try_from(EVENTS).expect("it is small") {
                publisher.publish("t", &number).await.unwrap();
                if number % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        while count.load(Ordering::Relaxed) < 500 + 50 * round {
            tokio::task::yield_now().await;
        }
        drop(subscription);
        if round % 2 == 0 {
            soon(one.drain(Duration::MAX)).await.unwrap();
        }
        soon(publishing).await.unwrap();
        soon(async {
            let dropped = async || mesh.master.snapshot().await.expect("it runs").events_dropped;
            while count.load(Ordering::Relaxed) + usize::try_from(dropped().await).expect("few") < EVENTS {}
        })
        .await;
        assert_eq!(mesh.master.snapshot().await.unwrap().events_dropped, 0, "in round {round}");
        [of_one, of_two].iter().for_each(|arbiter| _ = arbiter.stop());
    }
}

#[actix::test]
async fn a_second_drain_waits_for_the_first() {
    let mesh = Mesh::start().await;
    let (open, opened) = tokio::sync::watch::channel(false);
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let waits = move |(): ()| {
        let (mut opened, came) = (opened.clone(), came.clone());
        async move {
            came.send(())?;
            opened.wait_for(|open| *open).await?;
            Ok(7)
        }
    };
    let branch = mesh.bind(BranchActor::new("one").respond("waits", waits)).await;
    let calling = actix_rt::spawn(mesh.master.call::<i32>("waits", ()));
    soon(coming.recv()).await.expect("it runs");
    for node in [Node::from(&branch), Node::from(&mesh.master)] {
        let drains = [(); 3].map(|()| {
            let node = node.clone();
            actix_rt::spawn(async move { node.drain(Duration::from_secs(9)).await })
        });
        until(&node, |status| *status != Status::Bound).await;
        // All three have been handled when a later message has.
        for _ in 0..3 {
            let _ = node.snapshot().await;
        }
        open.send_replace(true);
        let mut counts = Vec::new();
        for drain in drains {
            counts.push(soon(drain).await.unwrap().expect("it was asked before the end"));
        }
        assert!(counts.iter().all(|count| *count == counts[0] && count.abandoned == 0), "{counts:?}");
    }
    assert_eq!(soon(calling).await.unwrap(), Ok(7));
}

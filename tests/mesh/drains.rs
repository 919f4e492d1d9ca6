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

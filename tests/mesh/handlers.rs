//! Handlers of events that are async: how many run at once, which wait, and which go when there is no room.

use crate::{Mesh, soon};
use meshwork::prelude::*;
use meshwork::{ByteBuf, Snapshot};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Semaphore, mpsc};

/// The handles of a branch and of the master, which hand events to their handlers in different actors.
async fn both(mesh: &Mesh) -> [Node; 2] {
    [Node::from(&mesh.branch("one").await), Node::from(&mesh.master)]
}

/// A handler that tells which events it begins, and ends each when it gets a permit.
fn held<T: Clone + Send + 'static>() -> (
    impl Fn(Event<T>) -> futures::future::LocalBoxFuture<'static, ()> + Clone + Send + Sync,
    mpsc::UnboundedReceiver<T>,
    Arc<Semaphore>,
) {
    let (begun, begins) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new(0));
    let free = Arc::clone(&permits);
    let handler = move |event: Event<T>| {
        let (begun, permits) = (begun.clone(), Arc::clone(&permits));
        let handling = async move {
            let _ = begun.send(event.value);
            permits.acquire().await.expect("it is open").forget();
        };
        Box::pin(handling) as futures::future::LocalBoxFuture<'static, ()>
    };
    (handler, begins, free)
}

async fn next<T>(begins: &mut mpsc::UnboundedReceiver<T>) -> T {
    soon(begins.recv()).await.expect("the handler is there")
}

/// Waits until the snapshot of a node is so.
async fn until(node: &Node, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
    soon(async {
        loop {
            let snapshot = node.snapshot().await.expect("it runs");
            if is_so(&snapshot) {
                return snapshot;
            }
        }
    })
    .await
}

/// A round trip of events: what was published before has been handed to the handlers of the node.
async fn settle(node: &Node) {
    let (heard, mut events) = mpsc::unbounded_channel();
    let handler = move |_: Event<()>| {
        let _ = heard.send(());
    };
    let _kept = node.subscribe("settle", handler).await.expect("it runs");
    node.publish("settle", &()).await.expect("it runs");
    soon(events.recv()).await.expect("it is heard");
}

#[actix::test]
async fn an_async_handler_takes_one_event_after_the_other_in_their_order() {
    let mesh = Mesh::start().await;
    for node in both(&mesh).await {
        let (heard, mut events) = mpsc::unbounded_channel();
        let running = Arc::new(AtomicUsize::new(0));
        let handler = move |event: Event<u32>| {
            let (heard, running) = (heard.clone(), Arc::clone(&running));
            async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "alone");
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                let _ = heard.send(event.value);
            }
        };
        let _kept = node.subscribe("n/*", handler).await.unwrap();
        for number in 0..1_000_u32 {
            node.publish("n/a", &number).await.unwrap();
        }
        for number in 0..1_000 {
            assert_eq!(next(&mut events).await, number);
        }
    }
}

#[actix::test]
async fn as_many_events_are_handled_at_once_as_were_asked_for_and_the_others_wait() {
    let mesh = Mesh::start().await;
    for node in both(&mesh).await {
        let (handler, mut begins, permits) = held::<u32>();
        let _kept = node.subscribe("n", handler).at_once(3).await.unwrap();
        for number in 0..10_u32 {
            node.publish("n", &number).await.unwrap();
        }
        for number in 0..3 {
            assert_eq!(next(&mut begins).await, number);
        }
        settle(&node).await;
        assert!(begins.try_recv().is_err(), "three at once");
        for number in 3..10 {
            permits.add_permits(1);
            assert_eq!(next(&mut begins).await, number);
        }
        permits.add_permits(3);
    }
}

#[actix::test]
async fn a_full_queue_lets_go_of_the_events_that_its_handler_can_do_without() {
    use WhenFull::{DropNewest, DropOldest, KeepLast};
    let mesh = Mesh::start().await;
    let topics = ["a", "a", "b", "a", "c", "d", "b"];
    // The first event is being handled, and three wait; two values more are dropped and superseded.
    for (when_full, handled, dropped, superseded) in
        [(DropNewest, [0, 1, 2, 3], 3, 0), (DropOldest, [0, 4, 5, 6], 3, 0), (KeepLast, [0, 6, 4, 5], 1, 2)]
    {
        for node in both(&mesh).await {
            let before = node.snapshot().await.unwrap();
            let (handler, mut begins, permits) = held::<u32>();
            let kept = node.subscribe("t/*", handler).queue(3, when_full).await.unwrap();
            for (number, topic) in (0..).zip(topics) {
                node.publish(format!("t/{topic}"), &number).await.unwrap();
            }
            settle(&node).await;
            permits.add_permits(topics.len());
            for number in handled {
                assert_eq!(next(&mut begins).await, number, "{when_full:?}");
            }
            let after = node.snapshot().await.unwrap();
            let went = (
                after.events_dropped - before.events_dropped,
                after.events_superseded - before.events_superseded,
            );
            assert_eq!(went, (dropped, superseded), "{when_full:?}");
            drop(kept);
            node.drain_if_branch().await;
        }
    }
}

trait DrainIfBranch {
    async fn drain_if_branch(&self);
}

impl DrainIfBranch for Node {
    /// The next branch of the name may bind then.
    async fn drain_if_branch(&self) {
        let is_branch = self.snapshot().await.expect("it runs").name == "one";
        if is_branch {
            self.drain(Duration::from_secs(5)).await.expect("it runs");
        }
    }
}

#[actix::test]
async fn events_that_wait_for_a_handler_are_counted_in_bytes_too() {
    let mesh = Mesh::start().await;
    for node in both(&mesh).await {
        let before = node.snapshot().await.unwrap().events_dropped;
        let (handler, mut begins, permits) = held::<(u32, ByteBuf)>();
        let _kept = node.subscribe("n", handler).queue_len_max(10_000).await.unwrap();
        for number in 0..6_u32 {
            node.publish("n", &(number, ByteBuf::from(vec![7; 4_000]))).await.unwrap();
        }
        settle(&node).await;
        assert_eq!(node.snapshot().await.unwrap().events_dropped - before, 3, "one runs, two wait");
        permits.add_permits(3);
        for number in 0..3 {
            assert_eq!(next(&mut begins).await.0, number);
        }
    }
}

#[actix::test]
async fn errors_and_panics_of_handlers_are_counted_and_the_next_event_is_handled() {
    let mesh = Mesh::start().await;
    for node in both(&mesh).await {
        let (heard, mut events) = mpsc::unbounded_channel();
        let handler = move |event: Event<u32>| {
            let heard = heard.clone();
            async move {
                assert_ne!(event.value, 1, "an expected panic");
                if event.value == 2 {
                    return Err("two is no good");
                }
                let _ = heard.send(event.value);
                Ok(())
            }
        };
        let at_once = |event: Event<u32>| -> Result<(), String> {
            if event.value == 3 { Err("three is no good".to_owned()) } else { Ok(()) }
        };
        let _kept = (
            node.subscribe("n", handler).await.unwrap(),
            node.subscribe("n", at_once).await.unwrap(),
            node.subscribe("n", async |event: Event<String>| drop(event)).await.unwrap(),
        );
        for number in 0..5_u32 {
            node.publish("n", &number).await.unwrap();
        }
        for number in [0, 3, 4] {
            assert_eq!(next(&mut events).await, number);
        }
        let after = until(&node, |snapshot| snapshot.events_failed == 3).await;
        assert_eq!((after.events_undecodable, after.events_dropped), (5, 0));
    }
}

/// They are decoded only when it is their turn.
#[actix::test]
async fn events_that_have_waited_and_cannot_be_decoded_are_counted_as_others_are() {
    let mesh = Mesh::start().await;
    for node in both(&mesh).await {
        let (handler, mut begins, permits) = held::<u32>();
        let _kept = node.subscribe("n", handler).await.unwrap();
        node.publish("n", &1).await.unwrap();
        node.publish("n", "no number").await.unwrap();
        node.publish("n", &3).await.unwrap();
        assert_eq!(next(&mut begins).await, 1);
        permits.add_permits(2);
        assert_eq!(next(&mut begins).await, 3);
        assert_eq!(node.snapshot().await.unwrap().events_undecodable, 1);
    }
}

#[actix::test]
async fn a_subscription_that_ends_drops_what_waits_and_finishes_what_runs() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new(0));
    let free = Arc::clone(&permits);
    let handler = move |event: Event<u32>| {
        let (begun, ended, permits) = (begun.clone(), ended.clone(), Arc::clone(&permits));
        async move {
            let _ = begun.send(event.value);
            permits.acquire().await.expect("it is open").forget();
            let _ = ended.send(event.value);
        }
    };
    let kept = branch.subscribe("n", handler).await.unwrap();
    for number in 0..3_u32 {
        branch.publish("n", &number).await.unwrap();
    }
    assert_eq!(next(&mut begins).await, 0);
    settle(&Node::from(&branch)).await;
    drop(kept);
    settle(&Node::from(&branch)).await;
    free.add_permits(3);
    assert_eq!(next(&mut ends).await, 0);
    assert_eq!(soon(ends.recv()).await, None, "the closure is dropped with the last event");
    assert_eq!(begins.recv().await, None);
}

#[actix::test]
async fn a_drain_waits_for_the_events_that_its_handlers_took() {
    let mesh = Mesh::start().await;
    let publisher = mesh.branch("publisher").await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&branch), Node::from(&mesh.master)] {
        let (handler, mut begins, permits) = held::<u32>();
        node.subscribe("n", handler).await.unwrap().keep();
        for number in 0..3_u32 {
            publisher.publish("n", &number).await.unwrap();
        }
        assert_eq!(next(&mut begins).await, 0);
        let mut draining = std::pin::pin!(node.drain(Duration::from_secs(10)));
        assert!(futures::poll!(draining.as_mut()).is_pending());
        let free = async {
            permits.add_permits(2);
            assert_eq!((next(&mut begins).await, next(&mut begins).await), (1, 2));
            permits.add_permits(1);
        };
        let (drained, ()) = soon(async { futures::join!(draining, free) }).await;
        drained.unwrap();
    }
}

#[actix::test]
async fn a_handler_may_call_and_publish_through_its_own_node() {
    let mesh = Mesh::of(MasterActor::new("master").respond("twice", |n: u64| async move { Ok(n * 2) })).await;
    let branch = mesh.branch("one").await;
    let (heard, mut events) = mpsc::unbounded_channel();
    let caller = branch.clone();
    let handler = move |event: Event<u64>| {
        let caller = caller.clone();
        async move {
            let twice: u64 = caller.call("twice", event.value).await?;
            caller.publish("twice", &twice).await
        }
    };
    let _kept = (
        branch.subscribe("once", handler).at_once(8).await.unwrap(),
        branch.subscribe("twice", move |event: Event<u64>| heard.send(event.value)).await.unwrap(),
    );
    for number in 0..100_u64 {
        branch.publish("once", &number).await.unwrap();
    }
    let mut got = Vec::new();
    for _ in 0..100 {
        got.push(next(&mut events).await);
    }
    got.sort_unstable();
    assert_eq!(got, (0..100).map(|number| number * 2).collect::<Vec<_>>());
    assert_eq!(branch.snapshot().await.unwrap().events_failed, 0);
}

#[actix::test]
async fn a_handler_is_subscribed_with_its_settings_by_a_message_too() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    let (handler, mut begins, permits) = held::<u32>();
    let message = Subscribe::new("n", handler).at_once(2).queue(1, WhenFull::DropOldest);
    let _kept = soon(branch.addr().send(message)).await.unwrap().unwrap();
    for number in 0..5_u32 {
        branch.publish("n", &number).await.unwrap();
    }
    assert_eq!((next(&mut begins).await, next(&mut begins).await), (0, 1));
    permits.add_permits(3);
    assert_eq!(next(&mut begins).await, 4);
    assert_eq!(branch.snapshot().await.unwrap().events_dropped, 2);
}

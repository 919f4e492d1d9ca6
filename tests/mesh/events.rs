//! Events: their subscribers, their number and their order.

use crate::{Mesh, ear, soon};
use meshwork::prelude::*;
use tokio::sync::mpsc;

#[actix::test]
async fn an_event_reaches_exactly_its_subscribers() {
    let mesh = Mesh::start().await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    let (of_master, mut at_master) = ear::<i32>();
    let (of_one, mut at_one) = ear::<i32>();
    let (of_two, mut at_two) = ear::<i32>();
    let _kept = (
        mesh.master.subscribe("a/*", of_master).await.unwrap(),
        one.subscribe("a/**", of_one.clone()).await.unwrap(),
        one.subscribe("other", of_one).await.unwrap(),
        two.subscribe("a/b", of_two).await.unwrap(),
    );
    one.publish("a/b", &1).await.unwrap();
    one.publish("a/b/c", &2).await.unwrap();
    mesh.master.publish("a/x", &3).await.unwrap();
    two.publish("none", &4).await.unwrap();
    two.publish("a/b", &5).await.unwrap();
    one.publish("other", &6).await.unwrap();
    // The events of two publishers may meet in any order.
    let mut by_two = [soon(at_two.recv()).await.unwrap(), soon(at_two.recv()).await.unwrap()];
    by_two.sort_unstable();
    assert_eq!(by_two, [("a/b".to_owned(), 1), ("a/b".to_owned(), 5)]);
    let mut by_one = Vec::new();
    for _ in 0..5 {
        by_one.push(soon(at_one.recv()).await.unwrap().1);
    }
    by_one.sort_unstable();
    assert_eq!(by_one, [1, 2, 3, 5, 6], "its own too, each once");
    let mut by_master = Vec::new();
    for _ in 0..3 {
        by_master.push(soon(at_master.recv()).await.unwrap().1);
    }
    by_master.sort_unstable();
    assert_eq!(by_master, [1, 3, 5]);
    assert!(at_one.try_recv().is_err() && at_two.try_recv().is_err() && at_master.try_recv().is_err());
}

#[actix::test]
async fn dropping_the_subscription_reaches_the_master() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    let (handler, mut events) = ear::<i32>();
    let subscription = branch.subscribe("t", handler.clone()).await.unwrap();
    assert_eq!(mesh.master.snapshot().await.unwrap().subscriptions, 1);
    drop(subscription);
    // The answer comes after the master has read the unsubscribe.
    let _other = branch.subscribe("other", handler).await.unwrap();
    assert_eq!(mesh.master.snapshot().await.unwrap().subscriptions, 1);
    mesh.master.publish("t", &1).await.unwrap();
    mesh.master.publish("other", &2).await.unwrap();
    assert_eq!(soon(events.recv()).await, Some(("other".to_owned(), 2)));
}

#[actix::test]
async fn a_broadcast_reaches_every_other_node() {
    let mesh = Mesh::start().await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    let (handler, mut events) = mpsc::unbounded_channel();
    let mut kept = Vec::new();
    for (name, node) in [("master", Node::from(&mesh.master)), ("one", (&one).into()), ("two", (&two).into())]
    {
        let handler = handler.clone();
        let heard = move |event: Event<i32>| {
            let _ = handler.send((name, event.publisher.to_string(), event.value));
        };
        kept.push(node.on_broadcast("config/*", heard).await.unwrap());
    }
    let mut senders = [("master", Node::from(&mesh.master)), ("one", (&one).into()), ("two", (&two).into())];
    for (number, (sender, node)) in senders.iter_mut().enumerate() {
        node.broadcast("config/new", &number).await.unwrap();
        node.broadcast("unheard", &number).await.unwrap();
        let mut heard = [soon(events.recv()).await.unwrap(), soon(events.recv()).await.unwrap()];
        heard.sort_unstable();
        for (name, publisher, value) in heard {
            assert_ne!(name, *sender, "not the sender itself");
            assert_eq!((&*publisher, value as usize), (*sender, number));
        }
    }
    assert!(events.try_recv().is_err());
}

struct Audit(mpsc::UnboundedSender<String>);

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    id: u64,
}

impl Actor for Audit {
    type Context = Context<Self>;
}

impl Handler<Event<OrderCreated>> for Audit {
    type Result = ();

    fn handle(&mut self, event: Event<OrderCreated>, _: &mut Context<Self>) {
        let _ = self.0.send(format!("{} {} {}", event.publisher, event.topic, event.value.id));
    }
}

#[actix::test]
async fn an_actor_is_a_topic_handler() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("shop").await;
    let (heard, mut events) = mpsc::unbounded_channel();
    let audit = Audit(heard).start();
    let _orders = mesh.master.subscribe("orders/*", audit.recipient::<Event<OrderCreated>>()).await.unwrap();
    branch.publish("orders/created", &OrderCreated { id: 7 }).await.unwrap();
    assert_eq!(soon(events.recv()).await.as_deref(), Some("shop orders/created 7"));
}

#[actix::test]
async fn a_group_gets_each_event_once_among_its_members() {
    let mesh = Mesh::start().await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    let (handler, mut events) = ear::<i32>();
    let _kept = (
        one.subscribe_group("workers", "jobs/*", handler.clone()).await.unwrap(),
        one.subscribe_group("workers", "jobs/*", handler.clone()).await.unwrap(),
        two.subscribe_group("workers", "jobs/*", handler.clone()).await.unwrap(),
        mesh.master.subscribe_group("workers", "jobs/*", handler).await.unwrap(),
    );
    for number in 0..30 {
        one.publish("jobs/new", &number).await.unwrap();
    }
    let mut seen = Vec::new();
    for _ in 0..30 {
        seen.push(soon(events.recv()).await.unwrap().1);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..30).collect::<Vec<_>>());
    assert!(events.try_recv().is_err());
}

#[actix::test]
async fn events_of_one_publisher_come_in_its_order_and_none_is_lost() {
    let mesh = Mesh::start().await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    let (handler, mut events) = ear::<u32>();
    let _kept = two.subscribe("n", handler).await.unwrap();
    for number in 0..50_000_u32 {
        one.publish("n", &number).await.unwrap();
    }
    for number in 0..50_000 {
        assert_eq!(soon(events.recv()).await.unwrap().1, number);
    }
}

#[actix::test]
async fn a_group_is_served_by_those_of_its_members_that_are_there() {
    let mesh = Mesh::start().await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    let (of_one, mut at_one) = ear::<i32>();
    let (of_two, mut at_two) = ear::<i32>();
    let (of_all, mut at_all) = ear::<i32>();
    let _kept = (
        one.subscribe_group("workers", "jobs", of_one).await.unwrap(),
        two.subscribe_group("workers", "jobs", of_two).await.unwrap(),
        // A second group, and a subscriber in no group, get every event too.
        two.subscribe_group("archive", "**", of_all.clone()).await.unwrap(),
        two.subscribe("jobs", of_all).await.unwrap(),
    );
    for number in 0..10 {
        mesh.master.publish("jobs", &number).await.unwrap();
    }
    for number in 0..10 {
        let of_both = [soon(at_all.recv()).await.unwrap().1, soon(at_all.recv()).await.unwrap().1];
        assert_eq!(of_both, [number, number]);
    }
    // Events for `one` may still be on their way; `one` gets each of them once.
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(soon(at_one.recv()).await.unwrap().1);
        seen.push(soon(at_two.recv()).await.unwrap().1);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    one.drain(Duration::from_secs(1)).await.unwrap();
    crate::until_known(&mesh.master, "one", false).await;
    mesh.master.publish("jobs", &10).await.unwrap();
    mesh.master.publish("jobs", &11).await.unwrap();
    assert_eq!(soon(at_two.recv()).await.unwrap().1, 10);
    assert_eq!(soon(at_two.recv()).await.unwrap().1, 11);
}

#[actix::test]
async fn each_handler_of_a_topic_is_one_of_its_own() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    for (node, subscriptions) in [(Node::from(&branch), 1), (Node::from(&mesh.master), 2)] {
        let (first, mut at_first) = ear::<i32>();
        let (second, mut at_second) = ear::<i32>();
        let first = node.subscribe("t", first).await.unwrap();
        let second = node.subscribe("t", second).await.unwrap();
        // A branch tells its master of a pattern once, however many handlers share the pattern.
        assert_eq!(mesh.master.snapshot().await.unwrap().subscriptions, subscriptions);
        mesh.master.publish("t", &1).await.unwrap();
        branch.publish("t", &2).await.unwrap();
        for heard in [&mut at_first, &mut at_second] {
            let mut values = [soon(heard.recv()).await.unwrap().1, soon(heard.recv()).await.unwrap().1];
            values.sort_unstable();
            assert_eq!(values, [1, 2]);
        }
        drop(first);
        mesh.master.publish("t", &3).await.unwrap();
        assert_eq!(soon(at_second.recv()).await.unwrap().1, 3);
        // The handler of the dropped subscription is gone, and its end of the channel too.
        assert_eq!(soon(at_first.recv()).await, None);
        drop(second);
        assert_eq!(soon(at_second.recv()).await, None);
    }
}

#[actix::test]
async fn a_handler_that_panics_or_cannot_read_an_event_hears_the_next_one() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&branch), Node::from(&mesh.master)] {
        let (heard, mut events) = mpsc::unbounded_channel();
        let handler = move |event: Event<i32>| {
            assert!(event.value != 13, "boom");
            let _ = heard.send(event.value);
        };
        let _kept = node.subscribe("t", handler).await.unwrap();
        let before = node.snapshot().await.unwrap().events_dropped;
        mesh.master.publish("t", &13).await.unwrap();
        mesh.master.publish("t", "no number").await.unwrap();
        mesh.master.publish("t", &14).await.unwrap();
        assert_eq!(soon(events.recv()).await, Some(14));
        assert_eq!(
            node.snapshot().await.unwrap().events_dropped,
            before + 1,
            "what cannot be read is counted"
        );
    }
}

/// The handler of such a subscription once stayed for as long as the node: there was no guard to drop.
#[actix::test]
async fn a_subscription_that_is_given_up_before_it_is_answered_ends() {
    let cut = crate::cut::CutDial::default();
    let mesh = Mesh::start().await;
    let branch = mesh.bind(BranchActor::new("one").dial(cut.clone())).await;
    cut.silence();
    let (handler, mut events) = ear::<i32>();
    let mut subscribing = Box::pin(branch.subscribe("t", handler));
    assert!(futures::poll!(subscribing.as_mut()).is_pending(), "the master cannot answer");
    assert_eq!(branch.snapshot().await.unwrap().subscriptions, 1);
    drop(subscribing);
    assert_eq!(soon(events.recv()).await, None, "its handler is dropped");
    cut.mend();
    let (handler, _events) = ear::<i32>();
    let _behind = branch.subscribe("other", handler).await.unwrap();
    assert_eq!(mesh.master.snapshot().await.unwrap().subscriptions, 1);
}

#[actix::test]
async fn wrong_topics_and_patterns_are_refused_with_what_is_wrong() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    assert_eq!(branch.publish("a/*", &1).await.expect_err("a pattern").code(), Code::BAD_NAME);
    assert_eq!(branch.publish("", &1).await.expect_err("empty").code(), Code::BAD_NAME);
    let error = branch.subscribe("a**", |_: Event<i32>| {}).await.expect_err("no pattern");
    assert!(error.message().contains("whole segment"), "{error}");
}

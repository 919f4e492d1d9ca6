//! Events: their subscribers, their number and their order.

use crate::{Mesh, ear, soon};
use meshwork::limits::EVENTS_PENDING_MAX;
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
async fn a_handler_that_panics_or_cannot_decode_an_event_hears_the_next_one() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&branch), Node::from(&mesh.master)] {
        let (heard, mut events) = mpsc::unbounded_channel();
        let handler = move |event: Event<i32>| {
            assert!(event.value != 13, "boom");
            let _ = heard.send(event.value);
        };
        let _kept = node.subscribe("t", handler).await.unwrap();
        mesh.master.publish("t", &13).await.unwrap();
        mesh.master.publish("t", "no number").await.unwrap();
        mesh.master.publish("t", &14).await.unwrap();
        assert_eq!(soon(events.recv()).await, Some(14));
        assert_eq!(untaken(&node).await, (0, 1), "the event that cannot be decoded is counted");
    }
}

/// How many events were dropped at a node, and how many its handlers could not decode.
async fn untaken(node: &Node) -> (u64, u64) {
    let snapshot = node.snapshot().await.expect("it runs");
    (snapshot.events_dropped, snapshot.events_undecodable)
}

/// Puts numbers and errors of the events that it gets into a channel.
struct Strict(mpsc::UnboundedSender<Result<i32, EventError>>);

impl Actor for Strict {
    type Context = Context<Self>;
}

impl Handler<Event<Result<i32, EventError>>> for Strict {
    type Result = ();

    fn handle(&mut self, event: Event<Result<i32, EventError>>, _: &mut Context<Self>) {
        let _ = self.0.send(event.value);
    }
}

impl Handler<Event<i32>> for Strict {
    type Result = ();

    fn handle(&mut self, event: Event<i32>, _: &mut Context<Self>) {
        let _ = self.0.send(Ok(event.value));
    }
}

/// Such an event vanished with a line in the debug log, and was counted with the events that found no room.
#[actix::test]
async fn an_event_that_an_actor_cannot_decode_is_counted_and_the_next_one_comes() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&branch), Node::from(&mesh.master)] {
        let (heard, mut events) = mpsc::unbounded_channel();
        let actor = Strict(heard).start();
        let _kept = node.subscribe("t", actor.recipient::<Event<i32>>()).await.unwrap();
        for _ in 0..3 {
            branch.publish("t", "no number").await.unwrap();
        }
        branch.publish("t", &1).await.unwrap();
        assert_eq!(soon(events.recv()).await, Some(Ok(1)));
        assert_eq!(untaken(&node).await, (0, 3));
    }
}

#[actix::test]
async fn a_handler_that_takes_a_result_gets_the_events_that_it_cannot_decode() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&branch), Node::from(&mesh.master)] {
        let (heard, mut at_closure) = mpsc::unbounded_channel();
        let closure = move |event: Result<Event<i32>, EventError>| {
            let _ = heard.send(event.map(|event| event.value));
        };
        let (heard, mut at_other) = mpsc::unbounded_channel();
        let other = move |event: Event<Result<i32, EventError>>| {
            let _ = heard.send(event.value);
        };
        let (heard, mut at_actor) = mpsc::unbounded_channel();
        let actor = Strict(heard).start();
        let _kept = (
            node.subscribe("t/*", other).await.unwrap(),
            node.subscribe("t/*", closure).await.unwrap(),
            node.subscribe("t/*", actor.recipient::<Event<Result<i32, EventError>>>()).await.unwrap(),
        );
        // Published by the node itself, and by another one.
        for publisher in [Node::from(&branch), Node::from(&mesh.master)] {
            publisher.publish("t/wrong", "no number").await.unwrap();
            publisher.publish("t/right", &1).await.unwrap();
            for events in [&mut at_closure, &mut at_other, &mut at_actor] {
                let error = soon(events.recv()).await.unwrap().expect_err("it is no number");
                let name = publisher.snapshot().await.unwrap().name;
                assert_eq!((&*error.topic, &error.publisher), ("t/wrong", &name));
                assert_eq!(error.reason.expected, "i32");
                let text = error.to_string();
                assert!(text.contains("t/wrong") && text.contains(&*name) && text.contains("i32"), "{text}");
                assert!(std::error::Error::source(&error).is_some());
                assert_eq!(soon(events.recv()).await, Some(Ok(1)));
            }
        }
        assert_eq!(untaken(&node).await, (0, 0), "its handlers took all events");
    }
}

/// A message that has nothing to do with events.
struct Other;

impl actix::Message for Other {
    type Result = ();
}

impl Handler<Other> for Audit {
    type Result = ();

    fn handle(&mut self, _: Other, _: &mut Context<Self>) {}
}

#[actix::test]
async fn the_forms_of_handlers_are_told_apart_without_being_named() {
    fn of_numbers(_: Event<i32>) {}
    async fn of_any<T: serde::de::DeserializeOwned + Send + 'static>(
        node: &Node,
        handler: impl Fn(Event<T>) + Send + Sync + 'static,
    ) -> Subscription {
        node.subscribe("t", handler).await.unwrap()
    }
    let mesh = Mesh::start().await;
    let (heard, _audited) = mpsc::unbounded_channel();
    let audit = Audit(heard).start();
    // The value may be a `Result` of its own.
    let (of_results, mut results) = ear::<Result<i32, String>>();
    let _kept = (
        mesh.master.subscribe("t", audit.recipient()).await.unwrap(),
        mesh.master.subscribe("t", of_numbers).await.unwrap(),
        mesh.master.subscribe("t", of_numbers as fn(Event<i32>)).await.unwrap(),
        mesh.master
            .subscribe("t", |event: Event<_>| {
                let _: i32 = event.value;
            })
            .await
            .unwrap(),
        of_any::<String>(&mesh.master, |_| {}).await,
        mesh.master.subscribe("t", of_results).await.unwrap(),
    );
    mesh.master.publish("t", &1).await.unwrap();
    mesh.master.publish("t", &Err::<i32, _>("none")).await.unwrap();
    assert_eq!(soon(results.recv()).await.unwrap().1, Err("none".to_owned()));
    // The number is none of an order, a text or a `Result`, and the `Result` is no order, number or text.
    assert_eq!(untaken(&mesh.master).await, (0, 3 + 5));
}

#[actix::test]
async fn events_that_cannot_be_decoded_are_counted_in_groups_and_broadcasts_too_and_stay_counted() {
    let cut = crate::cut::CutDial::default();
    let mesh = Mesh::start().await;
    let branch = mesh.bind(crate::links::quick("one", &cut)).await;
    for (node, other) in
        [(Node::from(&branch), Node::from(&mesh.master)), ((&mesh.master).into(), (&branch).into())]
    {
        let (handler, mut events) = ear::<i32>();
        let kept = (
            node.subscribe_group("g", "jobs", handler.clone()).await.unwrap(),
            node.on_broadcast("told", handler).await.unwrap(),
        );
        for round in 0..2 {
            // The first time by another node, the second time by the node itself, which gets no broadcast of its own.
            let publisher = if round == 0 { &other } else { &node };
            publisher.publish("jobs", "no number").await.unwrap();
            publisher.publish("jobs", &round).await.unwrap();
            assert_eq!(soon(events.recv()).await, Some(("jobs".to_owned(), round)));
        }
        other.broadcast("told", "no number").await.unwrap();
        other.broadcast("told", &7).await.unwrap();
        assert_eq!(soon(events.recv()).await, Some(("told".to_owned(), 7)));
        assert_eq!(untaken(&node).await, (0, 3));
        drop(kept);
        assert_eq!(soon(events.recv()).await, None, "both handlers are gone");
        assert_eq!(untaken(&node).await, (0, 3));
    }
    cut.cut();
    crate::until_known(&mesh.master, "one", false).await;
    cut.mend();
    crate::until_known(&mesh.master, "one", true).await;
    assert_eq!((untaken(&branch).await, untaken(&mesh.master).await), ((0, 3), (0, 3)));
}

/// Its decoding panics.
#[derive(Debug)]
struct Panics;

impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("boom")
    }
}

/// The panic ended the node.
#[actix::test]
async fn an_event_whose_decoding_panics_cannot_be_decoded() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    let (heard, mut events) = mpsc::unbounded_channel();
    let handler = move |event: Result<Event<Panics>, EventError>| {
        let _ = heard.send(event.expect_err("it panics").reason.reason);
    };
    let _kept =
        (branch.subscribe("t", handler).await.unwrap(), branch.subscribe("t", |_: Event<Panics>| {}).await);
    branch.publish("t", &1).await.unwrap();
    assert!(soon(events.recv()).await.unwrap().contains("panicked"));
    assert_eq!(untaken(&branch).await, (0, 1));
}

/// The events of an actor that cannot be decoded stand in its mailbox, too.
#[actix::test]
async fn events_that_cannot_be_decoded_are_bounded_before_an_actor() {
    let mesh = Mesh::start().await;
    let (heard, mut events) = mpsc::unbounded_channel();
    let arbiter = actix::Arbiter::new();
    let (let_go, waiting) = std::sync::mpsc::channel::<()>();
    arbiter.spawn_fn(move || waiting.recv().unwrap_or_default());
    let actor = Strict::start_in_arbiter(&arbiter.handle(), |_| Strict(heard));
    let _kept =
        mesh.master.subscribe("t", actor.recipient::<Event<Result<i32, EventError>>>()).await.unwrap();
    for _ in 0..EVENTS_PENDING_MAX + 10 {
        mesh.master.publish("t", "no number").await.unwrap();
    }
    let (last, mut at_last) = ear::<i32>();
    let _last = mesh.master.subscribe("last", last).await.unwrap();
    mesh.master.publish("last", &1).await.unwrap();
    soon(at_last.recv()).await.unwrap();
    assert_eq!(untaken(&mesh.master).await, (10, 0));
    let_go.send(()).unwrap();
    for _ in 0..EVENTS_PENDING_MAX {
        assert!(soon(events.recv()).await.unwrap().is_err());
    }
    arbiter.stop();
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

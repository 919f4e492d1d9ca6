//! Last values of topics: who hears them, in which order, how many are kept, and what becomes of them when links and masters go.

use crate::cut::CutDial;
use crate::links::{quick, until};
use crate::raw::{RawBranch, bind, bound_branch};
use crate::{Mesh, ear, soon, until_known};
use meshwork::prelude::*;
use meshwork::{ByteBuf, Encoding, Identities, Limits, Pattern, Payload, Snapshot, Status, token_digest};
use meshwork_wire::{Bind, Frame, Response, SubscriptionKey};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Heard = (String, u64, bool);

/// A handler that tells which values it hears, and whether each is marked as a last value.
fn hears() -> (impl Fn(Event<u64>) + Clone + Send + Sync, mpsc::UnboundedReceiver<Heard>) {
    let (heard, events) = mpsc::unbounded_channel();
    let handler = move |event: Event<u64>| {
        let _ = heard.send((event.topic.to_string(), event.value, event.is_last_value()));
    };
    (handler, events)
}

async fn next(events: &mut mpsc::UnboundedReceiver<Heard>) -> Heard {
    soon(events.recv()).await.expect("the handler is there")
}

fn last(topic: &str, value: u64) -> Heard {
    (topic.to_owned(), value, true)
}

fn live(topic: &str, value: u64) -> Heard {
    (topic.to_owned(), value, false)
}

/// The next value that a handler hears at a node which subscribes now.
async fn fresh(node: &Node, topic: &str) -> Heard {
    let (handler, mut events) = hears();
    let _kept = node.subscribe(topic, handler).await.expect("it runs");
    next(&mut events).await
}

async fn until_snapshot(node: &Node, is_so: impl Fn(&Snapshot) -> bool) {
    soon(async { while !is_so(&node.snapshot().await.expect("it runs")) {} }).await;
}

#[actix::test]
async fn a_handler_that_subscribes_hears_the_last_value_first_and_marked() {
    let mesh = Mesh::start().await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    one.publish_last("state/a", &1_u64).await.unwrap();
    one.publish_last("state/a", &2_u64).await.unwrap();
    mesh.master.publish_last("state/b", &3_u64).await.unwrap();
    soon(two.addr().send(Publish::last("state/c", &4_u64))).await.unwrap().unwrap();
    for node in [Node::from(&mesh.master), Node::from(&one), Node::from(&two)] {
        assert_eq!(fresh(&node, "state/a").await, last("state/a", 2));
        assert_eq!(fresh(&node, "state/b").await, last("state/b", 3));
        let (handler, mut events) = hears();
        let _kept = node.subscribe("state/*", handler).await.unwrap();
        for expected in [last("state/a", 2), last("state/b", 3), last("state/c", 4)] {
            assert_eq!(next(&mut events).await, expected);
        }
        one.publish("state/a", &5_u64).await.unwrap();
        assert_eq!(next(&mut events).await, live("state/a", 5));
        assert!(events.try_recv().is_err());
    }
    let snapshot = mesh.master.snapshot().await.unwrap();
    assert_eq!(snapshot.last_values, 3);
    assert!((600..3_000).contains(&snapshot.last_values_len), "{}", snapshot.last_values_len);
    assert_eq!(one.snapshot().await.unwrap().last_values, 1);
}

#[actix::test]
async fn only_the_handler_that_is_new_hears_the_last_values_and_an_async_one_sees_the_mark_too() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&mesh.master), Node::from(&branch)] {
        let (handler, mut of_first) = hears();
        let _first = node.subscribe("state/*", handler).await.unwrap();
        node.publish_last("state/a", &1_u64).await.unwrap();
        assert!(!next(&mut of_first).await.2, "an event as others are");
        node.publish_last("state/b", &2_u64).await.unwrap();
        assert_eq!(next(&mut of_first).await, live("state/b", 2));
        let (heard, mut of_second) = mpsc::unbounded_channel();
        let handler = move |event: Event<u64>| {
            let heard = heard.clone();
            async move { heard.send((event.topic.to_string(), event.value, event.is_last_value())) }
        };
        let _second = node.subscribe("state/*", handler).await.unwrap();
        assert_eq!(next(&mut of_second).await, last("state/a", 1));
        assert_eq!(next(&mut of_second).await, last("state/b", 2));
        node.publish("state/c", &3_u64).await.unwrap();
        assert_eq!(next(&mut of_first).await, live("state/c", 3));
        assert_eq!(next(&mut of_second).await, live("state/c", 3));
        node.forget_last("state/a").await.unwrap();
        node.forget_last("state/b").await.unwrap();
    }
}

#[actix::test]
async fn all_nodes_hear_the_values_of_a_topic_in_one_order_and_the_last_of_them_is_kept() {
    let mesh = Mesh::start().await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    let nodes = [Node::from(&mesh.master), Node::from(&one), Node::from(&two)];
    let mut ears = Vec::new();
    for node in &nodes {
        let (handler, events) = hears();
        node.subscribe("t", handler).await.unwrap().keep();
        ears.push(events);
    }
    const EACH: u64 = 200;
    let publishing = nodes.iter().zip(1..).map(|(node, name): (_, u64)| async move {
        for number in 0..EACH {
            node.publish_last("t", &(name * 1_000 + number)).await.unwrap();
        }
    });
    soon(futures::future::join_all(publishing)).await;
    let mut orders = Vec::new();
    for events in &mut ears {
        let mut order = Vec::new();
        for _ in 0..3 * EACH {
            order.push(next(events).await.1);
        }
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "one order at all nodes");
    let kept = *orders[0].last().expect("there were some");
    for node in &nodes {
        assert_eq!(fresh(node, "t").await, last("t", kept));
    }
}

#[actix::test]
async fn a_group_hears_no_last_value_and_broadcasts_are_kept_nowhere() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    branch.publish_last("t", &1_u64).await.unwrap();
    mesh.master.broadcast("t", &2_u64).await.unwrap();
    for node in [Node::from(&branch), Node::from(&mesh.master)] {
        let (handler, mut events) = hears();
        let _kept = node.subscribe_group("workers", "t", handler).await.unwrap();
        mesh.master.publish_last("t", &3_u64).await.unwrap();
        assert_eq!(next(&mut events).await, live("t", 3));
        assert!(events.try_recv().is_err());
    }
    assert_eq!(fresh(&branch, "t").await, last("t", 3));
}

#[actix::test]
async fn a_last_value_that_is_forgotten_is_heard_by_nobody() {
    let mesh = Mesh::start().await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    for (publisher, forgetter) in [(&one, Node::from(&two)), (&two, Node::from(&mesh.master))] {
        publisher.publish_last("t", &1_u64).await.unwrap();
        forgetter.forget_last("t").await.unwrap();
        forgetter.forget_last("never/there").await.unwrap();
        let (handler, mut events) = hears();
        let _kept = one.subscribe("**", handler).await.unwrap();
        mesh.master.publish("t", &2_u64).await.unwrap();
        assert_eq!(next(&mut events).await, live("t", 2));
    }
    assert_eq!(mesh.master.snapshot().await.unwrap().last_values, 0);
}

#[actix::test]
async fn a_value_that_has_no_room_at_its_master_or_its_publisher_is_an_error_there() {
    let mut limits = Limits::default();
    (limits.last_values_max, limits.last_values_len_max) = (9, 100_000);
    let mesh = Mesh::of(MasterActor::new("master").limits(limits)).await;
    let (greedy, other) = (mesh.branch("greedy").await, mesh.branch("other").await);
    let refused = loop {
        let topic = format!("t/{}", mesh.master.snapshot().await.unwrap().last_values);
        if let Err(error) = greedy.publish_last(topic, &1_u64).await {
            break error;
        }
    };
    assert_eq!((refused.code(), refused.fate()), (Code::OVERLOADED, Fate::NotSent), "{refused}");
    assert!(refused.message().contains("9 topics"), "{refused}");
    assert_eq!(mesh.master.snapshot().await.unwrap().last_values, 8, "a publisher has its share");
    other.publish_last("other", &1_u64).await.expect("another one has its own");
    greedy.publish_last("t/0", &2_u64).await.expect("a value in place of another has room");
    let long = ByteBuf::from(vec![7; 100_000]);
    let refused = greedy.publish_last("t/0", &long).await.expect_err("it is too long");
    assert!(refused.code() == Code::OVERLOADED && refused.message().contains("100000 bytes"), "{refused}");
    assert_eq!(fresh(&other, "t/0").await, last("t/0", 2), "the one before is kept");
    greedy.forget_last("t/1").await.unwrap();
    greedy.publish_last("t/9", &1_u64).await.expect("there is room again");

    let mut limits = Limits::default();
    limits.last_values_max = 1;
    let small = mesh.bind(BranchActor::new("small").limits(limits)).await;
    greedy.forget_last("t/2").await.unwrap();
    small.publish_last("small/1", &1_u64).await.unwrap();
    let refused = small.publish_last("small/2", &1_u64).await.expect_err("the node keeps one");
    assert_eq!((refused.code(), refused.fate()), (Code::OVERLOADED, Fate::NotSent), "{refused}");
    assert!(refused.message().contains("1 topics"), "{refused}");
}

#[actix::test]
async fn who_may_publish_to_a_topic_may_set_and_forget_its_last_value_and_nobody_else() {
    let entry = |name: &str, publish: &str| {
        let digest = token_digest(&format!("{name} token"));
        format!(
            "[identities.{name}]\ntokens = [\"{digest}\"]\nbind = [\"**\"]\nsubscribe = [\"**\"]\n{publish}\n"
        )
    };
    let identities =
        [entry("writer", "publish = [\"state/*\"]"), entry("reader", "publish = [\"other\"]")].concat();
    let identities = Identities::from_toml(&identities).expect("they are right");
    let mesh = Mesh::of(MasterActor::new("master").identities(identities)).await;
    let of = |name: &'static str| mesh.bind(BranchActor::new(name).token(format!("{name} token")));
    let (writer, reader) = (of("writer").await, of("reader").await);
    writer.publish_last("state/a", &1_u64).await.unwrap();
    for refused in [reader.publish_last("state/a", &2_u64).await, reader.forget_last("state/a").await] {
        let error = refused.expect_err("it may not");
        assert_eq!((error.code(), error.fate()), (Code::NOT_PERMITTED, Fate::NotSent), "{error}");
    }
    assert_eq!(fresh(&reader, "state/*").await, last("state/a", 1));
    let wrong = writer.publish_last("state/*", &1_u64).await.expect_err("it is a pattern");
    assert_eq!((wrong.code(), wrong.fate()), (Code::BAD_NAME, Fate::NotSent));
}

#[actix::test]
async fn a_node_that_has_bound_again_hears_the_last_values_again_as_they_are_now() {
    let mesh = Mesh::start().await;
    let cut = CutDial::default();
    let branch = mesh.bind(quick("one", &cut)).await;
    let (handler, mut events) = hears();
    let _kept = (
        branch.subscribe("state/*", handler.clone()).await.unwrap(),
        branch.subscribe("state/**", |_: Event<u64>| {}).await.unwrap(),
    );
    mesh.master.publish_last("state/a", &1_u64).await.unwrap();
    mesh.master.publish_last("state/b", &2_u64).await.unwrap();
    assert_eq!((next(&mut events).await, next(&mut events).await), (live("state/a", 1), live("state/b", 2)));
    cut.cut();
    until_known(&mesh.master, "one", false).await;
    mesh.master.publish_last("state/a", &3_u64).await.unwrap();
    cut.mend();
    assert_eq!(next(&mut events).await, last("state/a", 3));
    assert_eq!(next(&mut events).await, last("state/b", 2));
    mesh.master.publish("state/c", &4_u64).await.unwrap();
    assert_eq!(next(&mut events).await, live("state/c", 4), "each handler once");
}

/// Ends a master, and starts another one at its address.
async fn start_again(mesh: Mesh, branches: &[&Branch]) -> Mesh {
    mesh.master.drain(Duration::from_secs(1)).await.expect("it runs");
    for branch in branches {
        until(branch, |status| *status != Status::Bound).await;
    }
    let again = MasterActor::new("master").start();
    again.send(Listen::tcp(&mesh.address)).await.expect("it runs").expect("it listens");
    let mesh = Mesh { master: Master::from(again), address: mesh.address };
    for branch in branches {
        until(branch, |status| *status == Status::Bound).await;
    }
    mesh
}

#[actix::test]
async fn publishers_say_their_last_values_again_to_a_master_that_was_started_again_and_later_ones_stay() {
    let mesh = Mesh::start().await;
    let cut = CutDial::default();
    let (one, two) = (mesh.bind(quick("one", &cut)).await, mesh.bind(quick("two", &cut)).await);
    one.publish_last("t", &1_u64).await.unwrap();
    two.publish_last("t", &2_u64).await.unwrap();
    one.publish_last("of/one", &3_u64).await.unwrap();
    one.publish_last("gone", &4_u64).await.unwrap();
    two.forget_last("gone").await.unwrap();
    let (handler, mut events) = hears();
    let _kept = two.subscribe("of/one", handler).await.unwrap();
    assert_eq!(next(&mut events).await, last("of/one", 3));
    let mesh = start_again(mesh, &[&one, &two]).await;
    until_snapshot(&mesh.master, |snapshot| snapshot.last_values == 2).await;
    // Both have said all that they have to say: what is later, is there.
    assert_eq!(next(&mut events).await.1, 3, "it comes as an event, or as a last value");
    soon(async { while fresh(&mesh.master, "t").await != last("t", 2) {} }).await;
    assert_eq!(fresh(&one, "of/one").await, last("of/one", 3));
    two.publish_last("t", &5_u64).await.unwrap();
    let mesh = start_again(mesh, &[&one, &two]).await;
    until_snapshot(&mesh.master, |snapshot| snapshot.last_values == 2).await;
    soon(async { while fresh(&mesh.master, "t").await != last("t", 5) {} }).await;
    drop(one);
    drop(two);
}

/// A link that was lost is no reason to say again what another node has overwritten since.
#[actix::test]
async fn a_publisher_that_lost_its_link_does_not_bring_back_what_was_overwritten_or_forgotten() {
    let mesh = Mesh::start().await;
    let cut = CutDial::default();
    let branch = mesh.bind(quick("one", &cut)).await;
    branch.publish_last("t", &1_u64).await.unwrap();
    branch.publish_last("u", &2_u64).await.unwrap();
    cut.cut();
    until_known(&mesh.master, "one", false).await;
    mesh.master.publish_last("t", &3_u64).await.unwrap();
    mesh.master.forget_last("u").await.unwrap();
    cut.mend();
    until(&branch, |status| *status == Status::Bound).await;
    // Behind all that the branch says when it has bound.
    branch.publish_last("v", &4_u64).await.unwrap();
    assert_eq!(fresh(&mesh.master, "t").await, last("t", 3));
    assert_eq!(mesh.master.snapshot().await.unwrap().last_values, 2);
}

#[actix::test]
async fn a_branch_of_an_earlier_version_hears_the_last_value_as_an_event() {
    let mesh = Mesh::start().await;
    mesh.master.publish_last("state/a", &1_u64).await.unwrap();
    let Frame::Bind(before) = bind("before", &[]) else { unreachable!("it is a bind") };
    let key = SubscriptionKey { pattern: Pattern::new("state/*").expect("a pattern"), group: None };
    let mut branch = RawBranch::connect(&mesh).await;
    branch.say(&Frame::Bind(Bind { subscriptions: vec![key], ..before })).await;
    let Some(Frame::Bound(_)) = branch.hear_answer().await else { panic!("the consent comes first") };
    let Some(Frame::Publish(event)) = branch.hear_answer().await else { panic!("then the value") };
    assert!(event.topic == "state/a" && event.publisher == "master" && event.for_all, "{event:?}");
    mesh.master.publish_last("t", &2_u64).await.unwrap();
    let mut late = RawBranch::bound(&mesh, "late", &[]).await;
    late.subscribe("t").await;
    let Some(Frame::Publish(event)) = late.hear_answer().await else { panic!("before the answer") };
    assert_eq!(event.topic, "t");
    assert!(matches!(late.hear_answer().await, Some(Frame::Response(_))));
}

#[actix::test]
async fn a_master_of_an_earlier_version_keeps_no_last_values_and_its_branches_say_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    let (mut link, branch) = tokio::join!(bound_branch(&listener), BranchActor::new("new").bind(address));
    let branch = branch.expect("it is bound");
    let error = branch.publish_last("t", &1_u64).await.expect_err("it is of an earlier version");
    assert_eq!((error.code(), error.fate()), (Code::CANNOT_ENCODE, Fate::NotSent), "{error}");
    assert!(error.message().contains("earlier version"), "{error}");
    let subscribing = actix_rt::spawn(branch.subscribe("t", |_: Event<u64>| {}));
    let Some(Frame::Subscribe(subscribe)) = link.hear_answer().await else { panic!("a plain subscribe") };
    let (callback_id, outcome) = (subscribe.callback_id, Ok(Payload::default()));
    link.say(&Frame::Response(Response { callback_id, outcome })).await;
    soon(subscribing).await.unwrap().expect("it is subscribed").keep();
}

#[actix::test]
async fn a_program_of_another_protocol_hears_the_last_value_as_an_event() {
    let mesh = Mesh::start().await;
    let gateway = mesh.master.listen(Listen::node_mesh("127.0.0.1:0")).await.expect("it listens");
    mesh.master.publish_last("state/a", &1_u64).await.unwrap();
    let foreign = BranchActor::new("foreign").dialect(Dialect::NodeMesh).bind(gateway).await.unwrap();
    let (handler, mut events) = hears();
    let _kept = foreign.subscribe("state/a", handler).await.unwrap();
    assert_eq!(next(&mut events).await, live("state/a", 1));
    let error = foreign.publish_last("state/a", &2_u64).await.expect_err("node-mesh keeps none");
    assert_eq!((error.code(), error.fate()), (Code::CANNOT_ENCODE, Fate::NotSent), "{error}");
}

/// The values have several times the bytes that an outbox holds.
#[actix::test]
async fn many_last_values_come_as_they_are_read_each_before_the_next_event_of_its_topic() {
    let mut limits = Limits::default();
    limits.last_values_len_max = 256 << 20;
    let mesh = Mesh::of(MasterActor::new("master").limits(limits)).await;
    const COUNT: usize = 96;
    let value = |byte: u8| Payload::new(Encoding::Json, vec![byte; 512 * 1024]);
    for number in 0..COUNT {
        mesh.master.publish_last_raw(format!("t/{number:02}"), value(b'0')).await.unwrap();
    }
    let mut branch = RawBranch::bound(&mesh, "slow", &[]).await;
    branch.subscribe("t/*").await;
    until_snapshot(&mesh.master, |snapshot| snapshot.subscriptions == 1).await;
    // One that is far behind in the order, and one that is new.
    mesh.master.publish_raw("t/90", value(b'1')).await.unwrap();
    mesh.master.publish_last_raw("t/91", value(b'2')).await.unwrap();
    let standing = mesh.master.snapshot().await.unwrap().sessions[0].outbox_len;
    assert!(standing <= 16 << 20, "{standing} bytes at a time");
    let mut heard: Vec<(String, u8)> = Vec::new();
    while heard.len() < COUNT + 1 {
        match branch.hear_answer().await {
            Some(Frame::Publish(event)) => heard.push((event.topic.to_string(), event.payload.bytes[0])),
            Some(Frame::Response(_)) => {}
            other => panic!("an event, not {other:?}"),
        }
    }
    for number in 0..COUNT {
        let topic = format!("t/{number:02}");
        let of_topic = heard.iter().filter(|(other, _)| *other == topic);
        let of_topic: Vec<_> = of_topic.map(|(_, byte)| char::from(*byte)).collect();
        let expected = match number {
            90 => vec!['0', '1'],
            91 => vec!['2'],
            _ => vec!['0'],
        };
        assert_eq!(of_topic, expected, "{topic}");
    }
    assert_eq!(mesh.master.snapshot().await.unwrap().sessions[0].events_dropped, 0);
}

#[actix::test]
async fn a_subscriber_whose_outbox_was_full_hears_the_last_value_when_it_reads() {
    let mesh = Mesh::start().await;
    let mut branch = RawBranch::subscribed(&mesh, "late", "t").await;
    let value = |number: u8| Payload::new(Encoding::Json, vec![number; 1 << 20]);
    const COUNT: u8 = 60;
    for number in 0..COUNT {
        soon(mesh.master.publish_last_raw("t", value(number))).await.unwrap();
    }
    let dropped = mesh.master.snapshot().await.unwrap().events_dropped;
    assert!(dropped > 0, "they do not fit");
    let mut numbers = Vec::new();
    while numbers.last() != Some(&(COUNT - 1)) {
        let Some(Frame::Publish(event)) = branch.hear_answer().await else { panic!("an event") };
        numbers.push(event.payload.bytes[0]);
    }
    assert!(numbers.is_sorted() && numbers.len() < COUNT.into(), "{numbers:?}");
    mesh.master.publish("t", &1).await.unwrap();
    let Some(Frame::Publish(event)) = branch.hear_answer().await else { panic!("an event") };
    assert!(event.payload.len() < 10, "and nothing more");
}

#[actix::test]
async fn a_subscriber_that_goes_in_the_middle_of_its_last_values_leaves_nothing() {
    let mesh = Mesh::start().await;
    let value = Payload::new(Encoding::Json, vec![b'1'; 1 << 20]);
    for number in 0..40 {
        mesh.master.publish_last_raw(format!("t/{number}"), value.clone()).await.unwrap();
    }
    for _ in 0..3 {
        let mut branch = RawBranch::bound(&mesh, "slow", &[]).await;
        branch.subscribe("t/*").await;
        until_snapshot(&mesh.master, |snapshot| snapshot.subscriptions == 1).await;
        drop(branch);
        until_known(&mesh.master, "slow", false).await;
    }
    let (handler, mut events) = ear::<u64>();
    let branch = mesh.branch("well").await;
    let _kept = branch.subscribe("u", handler).await.unwrap();
    mesh.master.publish("u", &1_u64).await.unwrap();
    assert_eq!(soon(events.recv()).await, Some(("u".to_owned(), 1)));
}

#[actix::test]
async fn a_last_value_keeps_its_headers() {
    let mesh = Mesh::start().await;
    let (publisher, subscriber) = (mesh.branch("publisher").await, mesh.branch("subscriber").await);
    for node in [&*publisher, &mesh.master] {
        soon(node.publish_last("t", &1).header("tenant", "a")).await.expect("it is kept");
        let (say, mut events) = mpsc::unbounded_channel();
        let listen = move |event: Event<u32>| {
            let tenant = event.header("tenant").map(str::to_owned);
            say.send((event.value, tenant, event.is_last_value())).expect("the test listens");
        };
        let subscription = subscriber.subscribe("t", listen).await.expect("it subscribes");
        assert_eq!(soon(events.recv()).await, Some((1, Some("a".to_owned()), true)));
        drop(subscription);
        let refused = node.publish_last("t", &1).header("a b", "c").await.expect_err("that is no header");
        assert_eq!(refused.fate(), Fate::NotSent);
    }
}

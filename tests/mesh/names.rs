//! Names that could be taken for others, or that cost more than they say; and the bounds of what a branch may have at its master.

use crate::raw::{RawBranch, bind, request};
use crate::{Mesh, soon};
use meshwork::limits::{DESCRIBED_PART_MAX, OUTBOX_LEN_MAX, SHAPE_LEN_MAX, SUBSCRIPTIONS_PER_TOPIC_MAX};
use meshwork::prelude::*;
use meshwork::{Limits, Pattern, Shape};
use meshwork_wire::{
    Accepts, Bind, CallbackId, Describe, DescribeAfter, Frame, Offer, Publish, Register, Request, Response,
    Subscribe, SubscriptionKey,
};

/// The error of the next response.
async fn refusal(branch: &mut RawBranch) -> CallError {
    match branch.hear_answer().await {
        Some(Frame::Response(Response { outcome: Err(error), .. })) => error,
        other => panic!("an error, not {other:?}"),
    }
}

async fn is_accepted(branch: &mut RawBranch) {
    match branch.hear_answer().await {
        Some(Frame::Response(Response { outcome: Ok(_), .. })) => {}
        other => panic!("no error, not {other:?}"),
    }
}

fn offer(action: impl Into<meshwork::ByteString>, shape_len: usize) -> Offer {
    let shape = Shape { arguments: "x".repeat(shape_len).into(), reply: "{}".into() };
    Offer { action: action.into(), accepts: Accepts::MessagePack, shape: (shape_len > 0).then_some(shape) }
}

fn register(offers: Vec<Offer>) -> Frame {
    Frame::Register(Register { callback_id: CallbackId(1), offers })
}

fn subscribe(pattern: &str, group: Option<String>) -> Frame {
    let key = SubscriptionKey {
        pattern: Pattern::new(pattern).expect("a pattern"),
        group: group.map(meshwork::ByteString::from),
    };
    Frame::Subscribe(Subscribe { callback_id: CallbackId(1), key })
}

/// A request for an action of a million slashes took a master 20 s while a branch offered `x/**`.
#[actix::test]
async fn a_request_for_a_name_that_is_none_is_refused_and_the_next_is_answered() {
    let mesh =
        Mesh::of(MasterActor::new("master").respond("add", |(a, b): (i32, i32)| async move { Ok(a + b) }))
            .await;
    let _wide = RawBranch::bound(&mesh, "wide", &["x/**"]).await;
    let mut branch = RawBranch::bound(&mesh, "branch", &[]).await;
    let Frame::Request(usual) = request(1, "add") else { unreachable!("it is a request") };
    let long = "/".repeat(1_000_000);
    for (action, node) in
        [(&*long, ""), (&*"x/".repeat(100), ""), ("pay\u{202e}ments", ""), ("", ""), ("add", &*long)]
    {
        branch
            .say(&Frame::Request(Request { action: action.into(), node: node.into(), ..usual.clone() }))
            .await;
        let error = refusal(&mut branch).await;
        assert_eq!((error.code(), error.fate()), (Code::BAD_NAME, Fate::NotSent), "{error}");
        assert!(error.message().len() < 1_000 && !error.message().contains('\u{202e}'), "{error}");
    }
    let caller = mesh.branch("caller").await;
    assert_eq!(soon(caller.call::<i32>("add", (1, 2))).await, Ok(3));
}

#[actix::test]
async fn a_node_refuses_to_send_what_its_master_would_refuse() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("branch").await;
    for node in [&branch as &Node, &mesh.master] {
        for action in ["a\u{200b}b", "", &"a/".repeat(32)] {
            let error = node.call::<()>(action, ()).await.expect_err("it is no name");
            assert_eq!((error.code(), error.fate()), (Code::BAD_NAME, Fate::NotSent));
        }
        let error = node.call::<()>("a", ()).on("b\u{2066}").await.expect_err("it is no name");
        assert!(error.code() == Code::BAD_NAME && error.message().contains("\\u{2066}"), "{error}");
        assert_eq!(node.publish("a\u{feff}", &1).await.expect_err("no name").code(), Code::BAD_NAME);
        let subscribed = node.subscribe_group("g\u{ad}", "a", |_: Event<i32>| {}).await;
        assert_eq!(subscribed.expect_err("no name").code(), Code::BAD_NAME);
    }
}

#[actix::test]
async fn a_bind_with_a_name_that_could_look_like_another_is_refused() {
    let mesh = Mesh::start().await;
    let Frame::Bind(usual) = bind("branch", &[]) else { unreachable!("it is a bind") };
    let key =
        SubscriptionKey { pattern: Pattern::new("a").expect("a pattern"), group: Some("g\u{61c}".into()) };
    for (bind, escape) in [
        (Bind { name: "bran\u{202e}ch".into(), ..usual.clone() }, "\\u{202e}"),
        (Bind { offers: vec![offer("a\u{2060}", 0)], ..usual.clone() }, "\\u{2060}"),
        (Bind { subscriptions: vec![key], ..usual.clone() }, "\\u{61c}"),
    ] {
        let mut branch = RawBranch::connect(&mesh).await;
        branch.say(&Frame::Bind(bind)).await;
        let refused = branch.is_refused().await;
        assert!(refused.message.contains(escape), "{}", refused.message);
    }
}

/// 64 frames with a group or a shape of 15 MB each took 1 GB.
#[actix::test]
async fn a_long_group_or_shape_is_refused() {
    let mesh = Mesh::start().await;
    let mut branch = RawBranch::bound(&mesh, "branch", &[]).await;
    branch.say(&subscribe("a", Some("g".repeat(15_000_000)))).await;
    assert_eq!(refusal(&mut branch).await.code(), Code::BAD_NAME);
    branch.say(&register(vec![offer("a", 15_000_000)])).await;
    let error = refusal(&mut branch).await;
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::NotSent), "{error}");
    branch.say(&register(vec![offer("a", SHAPE_LEN_MAX - 2)])).await;
    is_accepted(&mut branch).await;
    branch.say(&register((0..1_025).map(|number| offer(number.to_string(), 0)).collect())).await;
    assert_eq!(refusal(&mut branch).await.code(), Code::FRAME_TOO_LARGE, "more actions than a frame carries");
    assert_eq!(mesh.master.describe("**").await.expect("it runs").len(), 1);
}

#[actix::test]
async fn a_shape_that_no_master_takes_is_left_out_and_the_action_is_answered() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("branch").await;
    let set = Responders::new().respond("a", |(): ()| async { Ok(1) });
    let shape = Shape { arguments: "x".repeat(SHAPE_LEN_MAX).into(), reply: "{}".into() };
    branch.respond(set.shape("a", Some(shape))).await.expect("it is bound");
    assert_eq!(mesh.master.describe("a").await.expect("it runs")[0].shape, None);
    assert_eq!(soon(mesh.master.call::<i32>("a", ())).await, Ok(1));
}

#[actix::test]
async fn what_a_branch_has_at_its_master_is_bounded_in_bytes() {
    let mut limits = Limits::default();
    (limits.offered_len_max, limits.subscribed_len_max) = (100_000, 10_000);
    let mesh = Mesh::of(MasterActor::new("master").limits(limits)).await;
    let branch = mesh.branch("branch").await;
    let one = |number: usize| {
        let shape = Shape { arguments: "x".repeat(10_000).into(), reply: "{}".into() };
        let action = number.to_string();
        let set = Responders::new().respond(action.clone(), |(): ()| async { Ok(()) });
        set.shape(&action, Some(shape))
    };
    for number in 0..9 {
        branch.respond(one(number)).await.expect("there is room");
    }
    let error = branch.respond(one(9)).await.expect_err("there is no room");
    assert!(error.message().contains("100000 bytes"), "{error}");
    branch.withdraw(["0"]).await.expect("it is bound");
    branch.respond(one(9)).await.expect("there is room again");
    let mut kept = Vec::new();
    let refused = loop {
        match branch.subscribe(format!("t/{}/*", kept.len()), |_: Event<i32>| {}).await {
            Ok(subscription) => kept.push(subscription),
            Err(error) => break error,
        }
    };
    assert!((5..20).contains(&kept.len()), "{}", kept.len());
    assert_eq!(refused.code(), Code::OVERLOADED);
    assert!(refused.message().contains("10000 bytes"), "{refused}");
    let other = mesh.branch("other").await;
    let _kept =
        other.subscribe("t", |_: Event<i32>| {}).await.expect("another branch has a count of its own");
}

/// The bounds of one branch do not bound a thousand branches.
#[actix::test]
async fn what_all_branches_have_at_their_master_is_bounded_in_bytes() {
    let mut limits = Limits::default();
    (limits.offered_in_all_len_max, limits.subscribed_in_all_len_max) = (900_000, 900_000);
    let mesh = Mesh::of(MasterActor::new("master").limits(limits)).await;
    let mut branches = Vec::new();
    let mut offered = Vec::new();
    for number in 0..4 {
        let branch = mesh.bind(BranchActor::new(format!("branch{number}"))).await;
        let mut len = 0;
        let error = loop {
            let shape = Shape { arguments: "x".repeat(10_000).into(), reply: "{}".into() };
            let action = format!("{number}/{len}");
            let set = Responders::new().respond(action.clone(), |(): ()| async { Ok(()) });
            match branch.respond(set.shape(&action, Some(shape))).await {
                Ok(()) => len += 1,
                Err(error) => break error,
            }
        };
        assert!(error.message().contains("bytes at its master now"), "{error}");
        offered.push(len);
        let mut kept = Vec::new();
        let error = loop {
            match branch.subscribe(format!("t/{}/*", kept.len()), |_: Event<i32>| {}).await {
                Ok(subscription) => kept.push(subscription),
                Err(error) => break error,
            }
        };
        assert!(error.message().contains("bytes at its master now"), "{error}");
        branches.push((branch, kept));
    }
    assert!(offered.is_sorted_by(|one, other| one >= other), "each has a ninth of what is left: {offered:?}");
    assert!((7..=9).contains(&offered[0]) && offered[3] >= 5, "{offered:?}");
    branches.truncate(1);
    let late = mesh.branch("late").await;
    let shape = Shape { arguments: "x".repeat(60_000).into(), reply: "{}".into() };
    let one =
        || Responders::new().respond("late", |(): ()| async { Ok(()) }).shape("late", Some(shape.clone()));
    // What the others had is free when they have left.
    soon(async { while late.respond(one()).await.is_err() {} }).await;
}

/// 65,536 patterns of `a` and `*`, all of which one topic matched, and 112 KB of events stalled a mesh for 26 s.
#[actix::test]
async fn one_topic_matches_no_more_subscriptions_of_a_node_than_it_may() {
    let mesh = Mesh::start().await;
    let mut branch = RawBranch::bound(&mesh, "branch", &[]).await;
    let mut accepted = 0;
    for bits in 0..2 * SUBSCRIPTIONS_PER_TOPIC_MAX {
        let words: Vec<_> = (0..16).map(|at| if bits >> at & 1 == 1 { "*" } else { "a" }).collect();
        branch.say(&subscribe(&words.join("/"), None)).await;
        match branch.hear_answer().await {
            Some(Frame::Response(Response { outcome: Ok(_), .. })) => accepted += 1,
            Some(Frame::Response(Response { outcome: Err(error), .. })) => {
                assert_eq!(error.code(), Code::OVERLOADED);
            }
            other => panic!("an answer, not {other:?}"),
        }
    }
    assert_eq!(accepted, SUBSCRIPTIONS_PER_TOPIC_MAX);
    mesh.master.publish(["a"; 16].join("/"), &1).await.expect("it runs");
    assert!(
        matches!(branch.hear_answer().await, Some(Frame::Publish(Publish { for_all: true, .. }))),
        "once"
    );
}

#[actix::test]
async fn the_subscriptions_that_one_topic_matches_are_those_that_the_limits_say() {
    let mut limits = Limits::default();
    limits.subscriptions_per_topic_max = 2;
    let mesh = Mesh::of(MasterActor::new("master").limits(limits)).await;
    let branch = mesh.branch("branch").await;
    let _kept = (
        branch.subscribe("a/*", |_: Event<i32>| {}).await.expect("one"),
        branch.subscribe("*/b", |_: Event<i32>| {}).await.expect("two"),
    );
    let refused = branch.subscribe("*/*", |_: Event<i32>| {}).await.expect_err("three");
    assert_eq!(refused.code(), Code::OVERLOADED);
    assert!(refused.message().contains("at most 2 subscriptions"), "{refused}");
    let _kept =
        branch.subscribe("a/c", |_: Event<i32>| {}).await.expect_err("a/c matches a/* too, in another form");
}

/// 1,024 questions for all of 10,000 actions took 1.7 GB.
#[actix::test]
async fn a_branch_that_asks_for_descriptions_and_reads_none_costs_little() {
    let mesh =
        Mesh::of(MasterActor::new("master").respond("add", |(a, b): (i32, i32)| async move { Ok(a + b) }))
            .await;
    let mut provider = RawBranch::bound(&mesh, "provider", &[]).await;
    for frame in 0..10 {
        let offers = (0..500).map(|number| offer(format!("many/{frame}/{number:03}"), 2_000)).collect();
        provider.say(&register(offers)).await;
        is_accepted(&mut provider).await;
    }
    let mut asking = RawBranch::bound(&mesh, "asking", &[]).await;
    let pattern = || Pattern::new("**").expect("a pattern");
    for id in 0..1_000 {
        asking.say(&Frame::Describe(Describe { callback_id: CallbackId(id), pattern: pattern() })).await;
    }
    let caller = mesh.branch("caller").await;
    for _ in 0..100 {
        assert_eq!(soon(caller.call::<i32>("add", (1, 2))).await, Ok(3));
        let sessions = mesh.master.snapshot().await.expect("it runs").sessions;
        let asking = sessions.iter().find(|session| session.name == "asking").expect("it is bound");
        assert!(asking.outbox_len <= OUTBOX_LEN_MAX, "{}", asking.outbox_len);
    }
    for id in 0..4 {
        let Some(Frame::Described(described)) = asking.hear_answer().await else { panic!("an answer") };
        assert_eq!(described.callback_id, CallbackId(id), "one after the other");
        assert_eq!(described.actions[0].action, "add");
        assert!(described.actions.len() > 1_000, "{}", described.actions.len());
    }
    let after = "x".repeat(1_000_000).into();
    let mut other = RawBranch::bound(&mesh, "other", &[]).await;
    other
        .say(&Frame::DescribeAfter(DescribeAfter { callback_id: CallbackId(1), pattern: pattern(), after }))
        .await;
    assert_eq!(refusal(&mut other).await.code(), Code::BAD_NAME);
    let all = soon(caller.describe("**")).await.expect("it is bound");
    assert_eq!(all.len(), 5_001, "in parts of {DESCRIBED_PART_MAX} at most");
}

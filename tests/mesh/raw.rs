//! A master with a branch that keeps to no rules, and a branch with such a master: frames written by hand, over a plain socket.

use crate::in_flight::{blocking, elsewhere};
use crate::{Mesh, ear, soon, until_known};
use bytes::{Bytes, BytesMut};
use meshwork::limits::{BIND_FRAME_LEN_MAX, OUTBOX_LEN_MAX, PROTOCOL_VERSION};
use meshwork::prelude::*;
use meshwork::{ByteBuf, Encoding, Limits, Pattern, Payload};
use meshwork_wire::{
    Accepts, Bind, Bound, CallbackId, ExtendedBind, Features, Frame, Headers, NodeNews, Offer, Refused,
    Request, Response, SessionId, SubscriptionKey,
};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A branch that sends the frames that a test gives it.
pub(crate) struct RawBranch(pub(crate) TcpStream);

impl RawBranch {
    pub(crate) async fn connect(mesh: &Mesh) -> Self {
        Self(TcpStream::connect(mesh.address.as_str()).await.expect("the master listens"))
    }

    /// A branch that is bound, and offers these actions.
    pub(crate) async fn bound(mesh: &Mesh, name: &'static str, offers: &[&'static str]) -> Self {
        let mut branch = Self::connect(mesh).await;
        branch.say(&bind(name, offers)).await;
        while !matches!(branch.hear().await.expect("it is bound"), Frame::Bound(_)) {}
        branch
    }

    /// A branch that is bound, and subscribed to a pattern.
    pub(crate) async fn subscribed(mesh: &Mesh, name: &'static str, pattern: &str) -> Self {
        let mut branch = Self::bound(mesh, name, &[]).await;
        branch.subscribe(pattern).await;
        while !matches!(branch.hear_answer().await, Some(Frame::Response(_))) {}
        branch
    }

    /// Asks for a subscription, and reads no answer.
    pub(crate) async fn subscribe(&mut self, pattern: &str) {
        let key = SubscriptionKey { pattern: Pattern::new(pattern).expect("a pattern"), group: None };
        let subscribe = meshwork_wire::Subscribe { callback_id: CallbackId(1), key };
        self.say(&Frame::Subscribe(subscribe)).await;
    }

    pub(crate) async fn say(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.write(&bytes).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // A master that has closed takes no more frames; frames that it sent before can still be read.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame; none when the master has closed.
    pub(crate) async fn hear(&mut self) -> Option<Frame> {
        let mut prefix = [0; 4];
        soon(self.0.read_exact(&mut prefix)).await.ok()?;
        let mut bytes = vec![0; u32::from_le_bytes(prefix) as usize];
        soon(self.0.read_exact(&mut bytes)).await.ok()?;
        Some(Frame::decode(&Bytes::from(bytes)).expect("a master says nothing but frames"))
    }

    /// The next frame, without news and heartbeats, which come at any time.
    pub(crate) async fn hear_answer(&mut self) -> Option<Frame> {
        loop {
            match self.hear().await? {
                Frame::Online(_) | Frame::Offline(_) | Frame::Ping | Frame::Pong => {}
                frame => return Some(frame),
            }
        }
    }

    /// Checks that the master refuses this branch, and closes the link.
    pub(crate) async fn is_refused(&mut self) -> Refused {
        let Some(Frame::Refused(refused)) = self.hear_answer().await else {
            panic!("the master must say why");
        };
        assert_eq!(self.hear_answer().await, None, "and close behind it");
        refused
    }

    pub(crate) async fn hear_request(&mut self) -> Request {
        match self.hear_answer().await {
            Some(Frame::Request(request)) => request,
            other => panic!("a request, not {other:?}"),
        }
    }

    pub(crate) async fn reply(&mut self, callback_id: CallbackId, value: i32) {
        let payload = Payload::encode(Encoding::PlainBincode, &value).expect("a number");
        self.say(&Frame::Response(Response { callback_id, outcome: Ok(payload) })).await;
    }
}

pub(crate) fn bind(name: &'static str, offers: &[&'static str]) -> Frame {
    let offer = |action: &&'static str| Offer {
        action: (*action).into(),
        accepts: Accepts::PlainBincode,
        shape: None,
    };
    Frame::Bind(Bind {
        version: PROTOCOL_VERSION,
        name: name.into(),
        credentials: None,
        offers: offers.iter().map(offer).collect(),
        subscriptions: Vec::new(),
    })
}

pub(crate) fn request(id: u64, action: &'static str) -> Frame {
    request_with(id, action, &())
}

pub(crate) fn request_with<T: Serialize>(id: u64, action: &'static str, arguments: &T) -> Frame {
    Frame::Request(Request {
        callback_id: CallbackId(id),
        action: action.into(),
        node: "".into(),
        caller: "boss".into(),
        time_left: None,
        hops: 0,
        headers: Headers::none(),
        payload: Payload::encode(Encoding::PlainBincode, arguments).expect("the test has it so"),
    })
}

fn publish(topic: &'static str) -> Frame {
    Frame::Publish(meshwork_wire::Publish {
        topic: topic.into(),
        publisher: "boss".into(),
        for_all: true,
        groups: Vec::new(),
        headers: Headers::none(),
        payload: Payload::encode(Encoding::CompactMessagePack, &1).expect("a number"),
    })
}

fn who_calls() -> MasterActor {
    MasterActor::new("master")
        .respond("who-calls", |(): (), context: CallContext| async move { Ok(context.caller().to_owned()) })
}

#[actix::test]
async fn a_connection_that_does_not_bind_in_time_is_told_so_by_code() {
    let mesh = Mesh::of(MasterActor::new("master").bind_within(Duration::from_millis(50))).await;
    let refused = RawBranch::connect(&mesh).await.is_refused().await;
    assert_eq!((refused.code, refused.may_return), (Code::BIND_TIMEOUT, true));
}

#[actix::test]
async fn no_frame_but_a_bind_is_heard_before_the_bind() {
    let mesh = Mesh::of(who_calls()).await;
    let (handler, mut events) = ear::<i32>();
    let _kept = mesh.master.subscribe("**", handler).await.unwrap();
    for frame in [request(1, "who-calls"), publish("t"), Frame::Ping, Frame::Drain] {
        let mut branch = RawBranch::connect(&mesh).await;
        branch.say(&frame).await;
        assert_eq!(branch.is_refused().await.code, Code::BIND_ERROR, "{frame:?}");
    }
    mesh.master.publish("last", &0).await.unwrap();
    assert_eq!(soon(events.recv()).await, Some(("last".to_owned(), 0)), "no event came through before it");
}

#[actix::test]
async fn a_branch_of_another_version_is_refused() {
    let mesh = Mesh::start().await;
    let mut branch = RawBranch::connect(&mesh).await;
    let Frame::Bind(of_ours) = bind("old", &[]) else { unreachable!("it is a bind") };
    branch.say(&Frame::Bind(Bind { version: PROTOCOL_VERSION + 1, ..of_ours })).await;
    let refused = branch.is_refused().await;
    assert_eq!((refused.code, refused.may_return), (Code::BIND_ERROR, false));
    assert!(refused.message.contains("version"), "{refused:?}");
}

#[actix::test]
async fn a_frame_that_claims_more_than_is_allowed_closes_before_it_comes() {
    let frame_len_max = 10_000;
    let mesh = Mesh::of(MasterActor::new("master").frame_len_max(frame_len_max)).await;
    let claim = |len: usize| u32::try_from(len).expect("it fits").to_le_bytes();
    let mut unbound = RawBranch::connect(&mesh).await;
    unbound.write(&claim(BIND_FRAME_LEN_MAX + 1)).await;
    unbound.is_refused().await;
    let mut bound = RawBranch::bound(&mesh, "bound", &[]).await;
    bound.write(&claim(frame_len_max + 1)).await;
    bound.is_refused().await;
    until_known(&mesh.master, "bound", false).await;
}

#[actix::test]
async fn a_bound_branch_that_breaks_the_protocol_is_closed_and_the_others_go_on() {
    let mesh = Mesh::of(who_calls()).await;
    let good = mesh.branch("good").await;
    let news = NodeNews { node: "x".into(), session: SessionId(1), whole: true, actions: Vec::new() };
    let bound = Bound {
        session: SessionId(1),
        master: "x".into(),
        heartbeat_ms: 1,
        frame_len_max: 1,
        in_flight_max: 1,
    };
    for frame in [bind("bad", &[]), Frame::Online(news.clone()), Frame::Offline(news), Frame::Bound(bound)] {
        let mut branch = RawBranch::bound(&mesh, "bad", &["x"]).await;
        branch.say(&frame).await;
        branch.is_refused().await;
    }
    for noise in [&[0_u8; 4][..], &[3, 0, 0, 0, 255, 255, 255], &[5, 0, 0, 0, 9, 1, 250, 1, 1]] {
        let mut branch = RawBranch::bound(&mesh, "bad", &["x"]).await;
        branch.write(noise).await;
        branch.is_refused().await;
    }
    until_known(&mesh.master, "bad", false).await;
    assert_eq!(good.call::<()>("x", ()).await.expect_err("it is out").code(), Code::ACTION_NOT_FOUND);
    assert_eq!(good.call::<String>("who-calls", ()).await.as_deref(), Ok("good"));
}

#[actix::test]
async fn a_callback_id_in_flight_may_not_be_used_again() {
    let mesh = Mesh::start().await;
    let mut provider = RawBranch::bound(&mesh, "provider", &["slow"]).await;
    let mut caller = RawBranch::bound(&mesh, "caller", &[]).await;
    caller.say(&request(7, "slow")).await;
    let asked = provider.hear_request().await;
    caller.say(&request(7, "slow")).await;
    caller.is_refused().await;
    // The request of the branch that left is cancelled at its provider.
    assert_eq!(provider.hear_answer().await, Some(Frame::Cancel(asked.callback_id)));
}

#[actix::test]
async fn what_a_refused_branch_asked_last_is_run_by_nobody() {
    let mesh = Mesh::start().await;
    let mut provider = RawBranch::bound(&mesh, "provider", &["last"]).await;
    let mut branch = RawBranch::bound(&mesh, "branch", &[]).await;
    // From now on its session knows the way.
    branch.say(&request(1, "last")).await;
    let first = provider.hear_request().await;
    provider.reply(first.callback_id, 1).await;
    assert!(matches!(branch.hear_answer().await, Some(Frame::Response(_))));
    let mut bytes = BytesMut::new();
    [request(2, "last"), request(2, "last")].iter().for_each(|frame| frame.encode(&mut bytes));
    branch.write(&bytes).await;
    branch.is_refused().await;
    let mut other = RawBranch::bound(&mesh, "other", &[]).await;
    other.say(&request(1, "last")).await;
    assert_eq!(provider.hear_request().await.caller, "other");
}

/// The requests come in one block and are a run: all but the first take a shorter path.
#[actix::test]
async fn requests_that_are_alike_are_answered_each_and_held_to_the_rules_each() {
    let half = |number: u64| async move {
        match number {
            0 => std::future::pending().await,
            1 => panic!("there is no half of it"),
            2 => Err(ActionError::new("TooSmall", "2 is too small")),
            // Longer than the replies that are gathered.
            3 => Ok("long".repeat(100)),
            _ => Ok((number / 2).to_string()),
        }
    };
    let mesh = Mesh::of(MasterActor::new("master").in_flight_max(3).respond("half", half)).await;
    let mut branch = RawBranch::bound(&mesh, "branch", &[]).await;
    // From now on its session knows the way.
    branch.say(&request_with(1, "half", &8_u64)).await;
    assert!(matches!(branch.hear_answer().await, Some(Frame::Response(_))));
    let mut bytes = BytesMut::new();
    let numbers = [10_u64, 0, 12, 1, 0, 2, 14, 3, 0, 16, 18, 20];
    for (id, number) in (10..).zip(&numbers) {
        request_with(id, "half", number).encode(&mut bytes);
    }
    branch.write(&bytes).await;
    let mut outcomes = std::collections::BTreeMap::new();
    while outcomes.len() < numbers.len() - 3 {
        let Some(Frame::Response(Response { callback_id, outcome })) = branch.hear_answer().await else {
            panic!("it is an outcome");
        };
        let outcome = outcome.map(|payload| payload.decode::<String>().expect("a text"));
        outcomes.insert(callback_id.0, outcome.map_err(|error| error.code()));
    }
    let overloaded = || Err(Code::OVERLOADED);
    let half_of = |number: u64| Ok((number / 2).to_string());
    let expected = [
        (10, half_of(10)),
        (12, half_of(12)),
        (13, Err(Code::PANICKED)),
        (15, Err(Code::UNKNOWN)),
        (16, half_of(14)),
        (17, Ok("long".repeat(100))),
        // Three are in flight.
        (19, overloaded()),
        (20, overloaded()),
        (21, overloaded()),
    ];
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), expected);
    let mut bytes = BytesMut::new();
    [30, 18].iter().for_each(|id| request_with(*id, "half", &22_u64).encode(&mut bytes));
    branch.write(&bytes).await;
    assert!(matches!(branch.hear_answer().await, Some(Frame::Response(_))), "30 is one too many");
    branch.is_refused().await;
}

#[actix::test]
async fn nobody_speaks_in_the_name_of_another() {
    let mesh = Mesh::of(who_calls()).await;
    let (heard, mut publishers) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |event: Event<i32>| {
        let _ = heard.send(event.publisher.to_string());
    };
    let _kept = mesh.master.subscribe("t", handler).await.unwrap();
    let mut branch = RawBranch::bound(&mesh, "clerk", &[]).await;
    branch.say(&request(1, "who-calls")).await;
    let Some(Frame::Response(Response { outcome: Ok(reply), .. })) = branch.hear_answer().await else {
        panic!("a reply");
    };
    assert_eq!(reply.decode::<String>().as_deref(), Ok("clerk"));
    branch.say(&publish("t")).await;
    assert_eq!(soon(publishers.recv()).await.as_deref(), Some("clerk"));
}

#[actix::test]
async fn a_request_tells_its_caller_and_the_time_left() {
    let mesh = Mesh::start().await;
    let mut provider = RawBranch::bound(&mesh, "provider", &["ask"]).await;
    let caller = mesh.branch("caller").await;
    let calling = caller.call::<i32>("ask", ()).within(Duration::from_secs(5));
    let answering = async {
        let asked = provider.hear_request().await;
        provider.reply(asked.callback_id, 3).await;
        asked
    };
    let (outcome, asked) = tokio::join!(calling, answering);
    assert_eq!(outcome, Ok(3));
    assert_eq!(asked.caller, "caller");
    assert!(asked.time_left.is_some_and(|left| left <= Duration::from_secs(5)), "{asked:?}");
}

#[actix::test]
async fn a_late_reply_and_one_that_nobody_asked_for_miss() {
    let mesh = Mesh::start().await;
    let mut provider = RawBranch::bound(&mesh, "provider", &["ask"]).await;
    let caller = mesh.branch("caller").await;
    let calling = caller.call::<i32>("ask", ()).within(Duration::from_millis(200));
    let (outcome, late) = tokio::join!(calling, provider.hear_request());
    assert_eq!(outcome.expect_err("it is late").code(), Code::REQUEST_TIMEOUT);
    assert_eq!(provider.hear_answer().await, Some(Frame::Cancel(late.callback_id)));
    provider.reply(late.callback_id, 1).await;
    provider.reply(CallbackId(12_345), 2).await;
    let answering = async {
        let asked = provider.hear_request().await;
        assert_ne!(asked.callback_id, late.callback_id, "an id is never used twice");
        provider.reply(asked.callback_id, 3).await;
        provider.reply(asked.callback_id, 4).await;
    };
    let (outcome, ()) = tokio::join!(caller.call::<i32>("ask", ()), answering);
    assert_eq!(outcome, Ok(3));
    assert_eq!(mesh.master.snapshot().await.unwrap().sessions.len(), 2, "nobody was closed for it");
}

/// The entry of such a request once stayed in the tables of both sessions until a link was lost, and the request ran on.
#[actix::test]
async fn a_request_whose_caller_neither_cancels_nor_leaves_ends_with_its_deadline() {
    let mesh = Mesh::of(MasterActor::new("master").heartbeat(Duration::from_millis(700))).await;
    let mut provider = RawBranch::bound(&mesh, "provider", &["ask"]).await;
    let mut caller = RawBranch::bound(&mesh, "caller", &[]).await;
    let Frame::Request(ask) = request(1, "ask") else { unreachable!("it is a request") };
    caller.say(&Frame::Request(Request { time_left: Some(Duration::from_millis(20)), ..ask })).await;
    let asked = provider.hear_request().await;
    assert_eq!(provider.hear_answer().await, Some(Frame::Cancel(asked.callback_id)));
    let Some(Frame::Response(Response { callback_id, outcome })) = caller.hear_answer().await else {
        panic!("it is told");
    };
    let error = outcome.expect_err("nobody has answered it");
    assert_eq!((callback_id.0, error.code(), error.fate()), (1, Code::REQUEST_TIMEOUT, Fate::Unknown));
}

#[actix::test]
async fn a_drain_turns_away_connections_that_have_not_bound() {
    let mesh = Mesh::start().await;
    let mut unbound = RawBranch::connect(&mesh).await;
    // Connections are taken in one after the other.
    let _bound = RawBranch::bound(&mesh, "bound", &[]).await;
    mesh.master.drain(Duration::from_secs(1)).await.unwrap();
    let refused = unbound.is_refused().await;
    assert_eq!((refused.code, refused.may_return), (Code::DRAINING, true));
}

#[actix::test]
async fn a_reply_that_comes_in_pieces_is_one_reply() {
    let mesh = Mesh::start().await;
    let mut provider = RawBranch::bound(&mesh, "provider", &["ask"]).await;
    let calling = mesh.master.call::<i32>("ask", ());
    let answering = async {
        let callback_id = provider.hear_request().await.callback_id;
        let payload = Payload::encode(Encoding::PlainBincode, &9).expect("a number");
        let mut bytes = BytesMut::new();
        Frame::Response(Response { callback_id, outcome: Ok(payload) }).encode(&mut bytes);
        for byte in bytes {
            provider.write(&[byte]).await;
            tokio::task::yield_now().await;
        }
    };
    let (outcome, ()) = tokio::join!(calling, answering);
    assert_eq!(outcome, Ok(9));
}

#[actix::test]
async fn a_subscriber_that_does_not_read_loses_events_and_slows_nobody() {
    let mesh = Mesh::start().await;
    let reading = mesh.branch("reading").await;
    let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |event: Event<(u32, ByteBuf)>| {
        let _ = heard.send(event.value.0);
    };
    let _kept = reading.subscribe("t", handler).await.unwrap();
    let Frame::Bind(deaf) = bind("deaf", &[]) else { unreachable!("it is a bind") };
    let key = SubscriptionKey { pattern: Pattern::new("t").expect("a pattern"), group: None };
    let mut branch = RawBranch::connect(&mesh).await;
    branch.say(&Frame::Bind(Bind { subscriptions: vec![key], ..deaf })).await;
    until_known(&mesh.master, "deaf", true).await;
    // Four times the bytes that an outbox holds; the sockets take far fewer besides.
    let (count, event) = (64, ByteBuf::from(vec![7; OUTBOX_LEN_MAX / 16]));
    for number in 0..count {
        mesh.master.publish("t", &(number, &event)).await.unwrap();
        assert_eq!(soon(events.recv()).await, Some(number));
    }
    let sessions = mesh.master.snapshot().await.unwrap().sessions;
    let dropped = |name| sessions.iter().find(|it| it.name == name).expect("it is bound").events_dropped;
    assert_eq!(dropped("reading"), 0);
    let dropped = dropped("deaf");
    assert!((1..u64::from(count)).contains(&dropped), "{sessions:?}");
    // The count vanished with the session.
    drop(branch);
    until_known(&mesh.master, "deaf", false).await;
    assert!(mesh.master.snapshot().await.unwrap().events_dropped >= dropped);
}

#[actix::test]
async fn a_branch_that_asks_and_never_reads_is_given_up() {
    let large = |(): ()| async { Ok(ByteBuf::from(vec![7; OUTBOX_LEN_MAX - 1024])) };
    let mut limits = Limits::default();
    (limits.in_flight_max, limits.replies_len_max) = (4_000, 4 * OUTBOX_LEN_MAX);
    let master = MasterActor::new("master").limits(limits).respond("large", large);
    let mesh = Mesh::of(master).await;
    let mut branch = RawBranch::bound(&mesh, "deaf", &[]).await;
    // As many large replies as the outbox may hold, and then errors.
    let unknown: &'static str = Box::leak("unknown".repeat(30).into_boxed_str());
    let count = 4 + 2;
    for id in 0..count {
        branch.say(&request(id, "large")).await;
    }
    let asking = async {
        for id in (count..).step_by(1000) {
            let mut bytes = BytesMut::new();
            (id..id + 1000).for_each(|id| request(id, unknown).encode(&mut bytes));
            if branch.0.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    soon(asking).await;
    until_known(&mesh.master, "deaf", false).await;
}

#[actix::test]
async fn a_branch_that_says_nothing_is_given_up_and_one_that_pings_is_answered() {
    let mesh = Mesh::of(MasterActor::new("master").heartbeat(Duration::from_millis(150))).await;
    let mut branch = RawBranch::bound(&mesh, "mute", &["x"]).await;
    branch.say(&Frame::Ping).await;
    while branch.hear().await.expect("it is answered first") != Frame::Pong {}
    until_known(&mesh.master, "mute", false).await;
    assert_eq!(branch.hear_answer().await, None);
}

/// The link of a branch to a master that sends the frames that a test gives it.
pub(crate) async fn bound_branch(listener: &TcpListener) -> RawBranch {
    let (stream, _) = soon(listener.accept()).await.expect("a branch comes");
    let mut link = RawBranch(stream);
    assert!(matches!(link.hear().await, Some(Frame::ExtendedBind(_))));
    link.say(&consent()).await;
    link
}

/// The consent of a master to a bind.
fn consent() -> Frame {
    Frame::Bound(Bound {
        session: SessionId(1),
        master: "boss".into(),
        heartbeat_ms: 60_000,
        frame_len_max: 1 << 20,
        in_flight_max: 65_536,
    })
}

#[actix::test]
async fn calls_that_have_not_left_when_the_link_is_lost_leave_over_the_next_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = meshwork::Address::from(listener.local_addr().unwrap().to_string());
    let (block, mut blocked, let_go) = blocking();
    let branch = move || {
        let quick = BranchActor::new("one").backoff(Duration::from_millis(5), Duration::from_millis(20));
        quick.respond_all(block)
    };
    let (mut link, (branch, arbiter)) = tokio::join!(bound_branch(&listener), elsewhere(address, branch));
    let left = actix_rt::spawn(branch.call::<i32>("left", ()).within(Duration::MAX));
    assert_eq!(&*link.hear_request().await.action, "left");

    // The master sends a request and closes at once. The branch is busy when both arrive.
    let mut bytes = BytesMut::new();
    request(1, "block").encode(&mut bytes);
    let refused = Refused { code: Code::LINK_LOST, message: "come again".into(), may_return: true };
    Frame::Refused(refused).encode(&mut bytes);
    link.write(&bytes).await;
    soon(blocked.recv()).await.expect("it is busy");
    let mut calls: Vec<_> = (0..10).map(|_| branch.call::<i32>("waits", ()).within(Duration::MAX)).collect();
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    let mut fails: Vec<_> = (0..10).map(|_| branch.call::<i32>("fails", ()).fail_when_down()).collect();
    for call in &mut fails {
        assert!(futures::poll!(call).is_pending());
    }
    let mut dropped = branch.call::<i32>("dropped", ()).within(Duration::MAX);
    assert!(futures::poll!(&mut dropped).is_pending());
    let too_short = branch.call::<i32>("too-short", ()).within(Duration::from_millis(1));
    let mut too_short = Box::pin(too_short);
    assert!(futures::poll!(&mut too_short).is_pending());
    drop(dropped);
    let_go.send(()).expect("it waits for that");

    let error = soon(left).await.unwrap().expect_err("the link is lost");
    assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::Unknown));
    for outcome in soon(futures::future::join_all(fails)).await {
        let error = outcome.expect_err("the link is lost");
        assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::NotSent));
    }
    let error = soon(too_short).await.expect_err("no link came in time");
    assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::NotSent));
    assert_eq!(branch.snapshot().await.unwrap().calls_waiting, 10);
    let mut link = bound_branch(&listener).await;
    let answering = async {
        for number in 0..10 {
            let request = link.hear_request().await;
            assert_eq!(&*request.action, "waits");
            link.reply(request.callback_id, number).await;
        }
    };
    let (outcomes, ()) = soon(async { tokio::join!(futures::future::join_all(calls), answering) }).await;
    assert!(outcomes.into_iter().eq((0..10).map(Ok)), "in their order");
    arbiter.stop();
}

/// A master of before knows no extended bind: it refuses the frame as no frame of its protocol, and the branch binds as it would have before.
#[actix::test]
async fn a_master_of_before_is_sent_a_bind_that_it_knows() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    let new = BranchActor::new("new").respond("echo", |value: i64| async move { Ok(value) });
    let binding = actix_rt::spawn(new.replace().bind(address));
    let (stream, _) = soon(listener.accept()).await.expect("a branch comes");
    let mut link = RawBranch(stream);
    assert!(matches!(link.hear().await, Some(Frame::ExtendedBind(_))));
    let message = "the head is malformed".into();
    link.say(&Frame::Refused(Refused { code: Code::UNKNOWN, message, may_return: false })).await;
    let (stream, _) = soon(listener.accept()).await.expect("it comes again");
    let mut link = RawBranch(stream);
    let Some(Frame::ExtendedBind(bind)) = link.hear().await else { panic!("without signatures") };
    assert!(bind.bind.offers.iter().all(|offer| offer.accepts == Accepts::CompactMessagePack));
    let message = "the head is malformed".into();
    link.say(&Frame::Refused(Refused { code: Code::UNKNOWN, message, may_return: false })).await;
    let (stream, _) = soon(listener.accept()).await.expect("it comes a third time");
    let mut link = RawBranch(stream);
    assert!(matches!(link.hear().await, Some(Frame::Bind(_))));
    link.say(&consent()).await;
    let branch = soon(binding).await.expect("no panic").expect("it is bound");
    branch.publish("any/topic", &1).await.expect("a master of before says nothing of permissions");
    assert!(matches!(link.hear_answer().await, Some(Frame::Publish(_))));
}

/// The news found no room among the events, and were lost: the branch knew of nodes that were gone, for good.
#[actix::test]
async fn a_branch_that_reads_late_is_told_who_came_and_went() {
    let mesh = Mesh::start().await;
    let Frame::Bind(deaf) = bind("deaf", &[]) else { unreachable!("it is a bind") };
    let key = SubscriptionKey { pattern: Pattern::new("t").expect("a pattern"), group: None };
    let mut branch = RawBranch::connect(&mesh).await;
    branch.say(&Frame::Bind(Bind { subscriptions: vec![key], ..deaf })).await;
    until_known(&mesh.master, "deaf", true).await;
    let event = ByteBuf::from(vec![7; OUTBOX_LEN_MAX / 16]);
    let dropped = async || mesh.master.snapshot().await.expect("it runs").events_dropped;
    while dropped().await == 0 {
        mesh.master.publish("t", &event).await.unwrap();
    }
    let late = mesh.branch("late").await;
    until_known(&mesh.master, "late", true).await;
    // Further events find no room still, and neither came nor went is one of them.
    let before = dropped().await;
    mesh.master.publish("t", &event).await.unwrap();
    soon(async { while dropped().await == before {} }).await;
    late.drain(Duration::MAX).await.unwrap();
    let mut news = Vec::new();
    while news.len() < 2 {
        match soon(branch.hear()).await.expect("it is bound") {
            Frame::Online(online) if online.node == "late" => news.push(true),
            Frame::Offline(offline) if offline.node == "late" => news.push(false),
            _ => {}
        }
    }
    assert_eq!(news, [true, false]);
}

/// Links that end in the turn in which they are bound, with all that a master may say before: a call made in that turn once waited for ever.
#[actix::test]
async fn calls_made_at_the_moment_of_a_bind_end_whatever_becomes_of_the_link() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    let moment = Duration::from_millis(1);
    let binding = actix_rt::spawn(BranchActor::new("one").backoff(moment, moment).bind(address));
    let link = bound_branch(&listener).await;
    let branch = soon(binding).await.expect("no panic").expect("it is bound");
    // Calls at each change of the status, and without a pause.
    let (made, mut making) = mpsc::unbounded_channel();
    let mut status = branch.status().await.unwrap();
    let caller = branch.clone();
    let calling = actix_rt::spawn(async move {
        while status.changed().await.is_ok() {
            for _ in 0..3 {
                let call = caller.call::<i32>("x", ()).within(Duration::MAX);
                let _ = made.send(actix_rt::spawn(call));
            }
        }
    });
    let steady = branch.clone();
    let steadily = actix_rt::spawn(async move {
        loop {
            let outcome = steady.call::<i32>("x", ()).within(Duration::MAX).await;
            assert!(matches!(&outcome, Ok(5)) || outcome.is_err_and(|error| error.code() == Code::LINK_LOST));
        }
    });
    drop(link);
    for round in 0..60 {
        let (stream, _) = soon(listener.accept()).await.expect("a branch comes");
        let mut link = RawBranch(stream);
        assert!(matches!(soon(link.hear()).await, Some(Frame::ExtendedBind(_))));
        let again = Refused { code: Code::DRAINING, message: "it ends".into(), may_return: true };
        let mut bytes = BytesMut::new();
        consent().encode(&mut bytes);
        match round % 4 {
            0 => {}
            1 => Frame::Drain.encode(&mut bytes),
            2 => Frame::Refused(again).encode(&mut bytes),
            _ => Frame::Bind(Bind {
                version: 1,
                name: "no".into(),
                credentials: None,
                offers: Vec::new(),
                subscriptions: Vec::new(),
            })
            .encode(&mut bytes),
        }
        link.0.write_all(&bytes).await.expect("it reads");
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // A master that stays answers all that is left.
    let mut link = bound_branch(&listener).await;
    calling.abort();
    let answering = actix_rt::spawn(async move {
        while let Some(frame) = link.hear().await {
            if let Frame::Request(request) = frame {
                link.reply(request.callback_id, 5).await;
            }
        }
    });
    let mut answered = 0;
    while let Some(call) = soon(making.recv()).await {
        match soon(call).await.expect("no panic") {
            Ok(number) => answered += usize::from(number == 5),
            Err(error) => assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::Unknown)),
        }
    }
    assert!(answered > 0);
    assert!(!steadily.is_finished(), "it goes on");
    steadily.abort();
    answering.abort();
}

/// A heartbeat of the master that no clock can add ended the branch with a panic.
#[actix::test]
async fn a_master_with_any_heartbeat_and_bounds_is_bound_to() {
    for extreme in [0, 1, u64::MAX] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it listens");
        let binding = actix_rt::spawn(BranchActor::new("one").bind(address));
        let (stream, _) = soon(listener.accept()).await.expect("a branch comes");
        let mut link = RawBranch(stream);
        assert!(matches!(soon(link.hear()).await, Some(Frame::ExtendedBind(_))));
        let Frame::Bound(consent) = consent() else { unreachable!("it is a bound") };
        let bound =
            Bound { heartbeat_ms: extreme, frame_len_max: extreme, in_flight_max: extreme, ..consent };
        link.say(&Frame::Bound(bound)).await;
        let branch = soon(binding).await.expect("no panic").expect("it is bound");
        let outcome = soon(branch.call::<i32>("x", ()).within(Duration::from_millis(50))).await;
        assert!(outcome.is_err());
        assert!(branch.snapshot().await.is_ok());
    }
}

/// Binds as a member of a group, and gives back an event that it did not get.
pub(crate) async fn gives_back_what_it_did_not_get(mesh: &Mesh, topic: &'static str, group: &'static str) {
    let Frame::Bind(bind) = bind("forger", &[]) else { unreachable!("it is a bind") };
    let pattern = Pattern::new(topic).expect("a pattern");
    let key = SubscriptionKey { pattern, group: Some(group.into()) };
    let mut branch = RawBranch::connect(mesh).await;
    branch.say(&Frame::Bind(Bind { subscriptions: vec![key.clone()], ..bind })).await;
    until_known(&mesh.master, "forger", true).await;
    branch.say(&Frame::Unsubscribe(key)).await;
    let payload = Payload::encode(Encoding::CompactMessagePack, &1_u32).expect("a number");
    let (topic, publisher, groups) = (topic.into(), "master".into(), vec![group.into()]);
    branch
        .say(&Frame::GiveBack(meshwork_wire::Publish {
            topic,
            publisher,
            for_all: false,
            groups,
            headers: Headers::none(),
            payload,
        }))
        .await;
    branch.say(&Frame::Ping).await;
    while soon(branch.hear()).await.expect("it is bound") != Frame::Pong {}
}

/// An action that fails with the code of its argument.
fn fails(name: &'static str) -> BranchActor {
    BranchActor::new(name).respond("fail", |(code,): (serde_json::Value,)| async move {
        let error = ActionError::new("Mine", "it is mine").with_data(std::slice::from_ref(&code));
        Err::<(), _>(match code {
            serde_json::Value::String(text) => error.with_code(text),
            number => error.with_code(number.as_i64().expect("the test has no other codes")),
        })
    })
}

/// A call of this action.
fn fail(id: u64, code: &serde_json::Value) -> Frame {
    let Frame::Request(request) = request(id, "fail") else { unreachable!("it is a request") };
    let payload = Payload::encode(Encoding::Json, &(code,)).expect("JSON");
    Frame::Request(Request { payload, ..request })
}

fn error_of(frame: Option<Frame>) -> CallError {
    match frame {
        Some(Frame::Response(Response { outcome: Err(error), .. })) => error,
        other => panic!("an error, not {other:?}"),
    }
}

fn codes() -> [serde_json::Value; 5] {
    [2.into(), (-2).into(), 999.into(), 1200.into(), "ENOENT".into()]
}

/// Checks that a node of an earlier version reads this error, and takes the code for none of meshwork.
fn assert_is_of_an_earlier_version(error: &CallError, code: &serde_json::Value) {
    assert_eq!((error.name(), error.message(), error.fate()), ("Mine", "it is mine", Fate::Failed));
    let known = (code == 1200).then(|| ApplicationCode::from(1200));
    assert_eq!((error.code(), error.application_code()), (Code::UNKNOWN, known.as_ref()));
}

fn data(error: &CallError) -> serde_json::Value {
    error.data_as().expect("JSON")
}

#[actix::test]
async fn a_branch_of_an_earlier_version_gets_errors_that_it_knows() {
    let mesh = Mesh::start().await;
    let _provider = mesh.bind(fails("provider")).await;
    let mut earlier = RawBranch::bound(&mesh, "earlier", &[]).await;
    let mut later = RawBranch::connect(&mesh).await;
    let Frame::Bind(bound) = bind("later", &[]) else { unreachable!("it is a bind") };
    let features = Features::APPLICATION_CODES;
    later
        .say(&Frame::ExtendedBind(ExtendedBind { bind: bound, features, incarnation: 7, replaces: false }))
        .await;
    while !matches!(later.hear().await.expect("it is bound"), Frame::ExtendedBound(_)) {}
    for (code, id) in codes().iter().zip(1..) {
        earlier.say(&fail(id, code)).await;
        let error = error_of(earlier.hear_answer().await);
        assert_is_of_an_earlier_version(&error, code);
        assert_eq!(data(&error), serde_json::json!([code]));
        later.say(&fail(id, code)).await;
        let error = error_of(later.hear_answer().await);
        assert_eq!(serde_json::to_value(error.application_code()).unwrap(), *code);
        assert_eq!((error.name(), error.code()), ("Mine", Code::UNKNOWN));
    }
}

#[actix::test]
async fn a_master_of_an_earlier_version_gets_errors_that_it_knows() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = meshwork::Address::from(listener.local_addr().expect("it listens").to_string());
    let (branch, mut master) = tokio::join!(fails("branch").bind(address), bound_branch(&listener));
    let _branch = branch.expect("it binds");
    for (code, id) in codes().iter().zip(1..) {
        master.say(&fail(id, code)).await;
        assert_is_of_an_earlier_version(&error_of(master.hear_answer().await), code);
    }
}

#[actix::test]
async fn a_bridge_at_a_master_of_an_earlier_version_sends_a_bind_and_errors_that_it_knows() {
    let mesh = Mesh::start().await;
    let _provider = mesh.bind(fails("provider")).await;
    let gateway = mesh.master.addr().send(Listen::light_rpc("127.0.0.1:0")).await.unwrap().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = meshwork::Address::from(listener.local_addr().expect("it listens").to_string());
    let bridging = actix_rt::spawn(meshwork::Bridge::light_rpc(gateway).run(address));
    let mut refused = RawBranch(soon(listener.accept()).await.expect("it comes").0);
    assert!(matches!(refused.hear().await, Some(Frame::ExtendedBind(_))));
    let unknown = Refused { code: Code::UNKNOWN, message: "no frame".into(), may_return: false };
    refused.say(&Frame::Refused(unknown)).await;
    drop(refused);
    let mut master = RawBranch(soon(listener.accept()).await.expect("it comes again").0);
    let Some(Frame::Bind(bind)) = master.hear().await else { panic!("a bind that is not extended") };
    assert_eq!(bind.offers.len(), 1);
    master.say(&consent()).await;
    for (code, id) in codes().iter().zip(1..) {
        master.say(&fail(id, code)).await;
        let error = error_of(master.hear_answer().await);
        assert_is_of_an_earlier_version(&error, code);
        // All that was thrown, as a bridge of an earlier version sends it.
        assert_eq!((&data(&error)["code"], &data(&error)["data"]), (code, &serde_json::json!([code])));
    }
    bridging.abort();
}

#[actix::test]
async fn the_error_of_a_provider_of_an_earlier_version_has_its_code_apart_from_those_of_meshwork() {
    let mesh = Mesh::start().await;
    let mut earlier = RawBranch::bound(&mesh, "earlier", &["old"]).await;
    let caller = mesh.branch("caller").await;
    for (number, code, own) in [
        (1200, Code::UNKNOWN, Some(1200.into())),
        (1, Code::UNKNOWN, None),
        (5, Code::ACTION_NOT_FOUND, None),
    ] {
        let calling = actix_rt::spawn(caller.call::<()>("old", ()));
        let callback_id = earlier.hear_request().await.callback_id;
        let outcome = Err(CallError::named(Code(number), Fate::Failed, "Old", "an old one"));
        earlier.say(&Frame::Response(Response { callback_id, outcome })).await;
        let error = soon(calling).await.expect("it ran").expect_err("it fails");
        assert_eq!((error.code(), error.application_code()), (code, own.as_ref()));
    }
}

/// Both ends of a link must know hops: a branch of before would take a request with hops for no frame.
#[actix::test]
async fn hops_are_told_to_nodes_that_count_them_and_kept_from_others() {
    let mesh = Mesh::start().await;
    for (name, features, told) in [("counts", Features::HOPS, 5), ("of before", Features::default(), 0)] {
        let mut provider = RawBranch::connect(&mesh).await;
        let Frame::Bind(bind) = bind(name, &[name]) else { unreachable!("it is a bind") };
        let incarnation = u64::from(told);
        provider
            .say(&Frame::ExtendedBind(ExtendedBind { bind, features, incarnation, replaces: false }))
            .await;
        while !matches!(provider.hear().await, Some(Frame::ExtendedBound(_))) {}
        let mut caller = RawBranch::bound(&mesh, "caller", &[]).await;
        let Frame::Request(asked) = request(1, name) else { unreachable!("it is a request") };
        caller.say(&Frame::Request(Request { hops: 5, ..asked })).await;
        let asked = provider.hear_request().await;
        assert_eq!((&*asked.action, asked.hops), (name, told));
        provider.reply(asked.callback_id, 1).await;
        assert!(matches!(caller.hear_answer().await, Some(Frame::Response(_))));
        drop(caller);
        crate::until_known(&mesh.master, "caller", false).await;
    }
}

#[actix::test]
async fn a_bridge_binds_to_a_master_of_before_as_it_would_have_before() {
    let old = Mesh::start().await;
    let server =
        old.master.addr().send(Listen::node_mesh("127.0.0.1:0")).await.expect("it runs").expect("a port");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    let bridging = actix_rt::spawn(meshwork::Bridge::node_mesh(&server).prefix("old").run(address));
    let (stream, _) = soon(listener.accept()).await.expect("a bridge comes");
    let mut link = RawBranch(stream);
    let Some(Frame::ExtendedBind(bind)) = link.hear().await else { panic!("it is extended") };
    assert!(bind.features.contains(Features::HOPS));
    let message = "the head is malformed".into();
    link.say(&Frame::Refused(Refused { code: Code::UNKNOWN, message, may_return: false })).await;
    drop(link);
    let (stream, _) = soon(listener.accept()).await.expect("it comes again");
    let mut link = RawBranch(stream);
    assert!(matches!(link.hear().await, Some(Frame::Bind(_))));
    link.say(&consent()).await;
    link.say(&request(1, "old/none")).await;
    assert!(matches!(link.hear_answer().await, Some(Frame::Response(Response { outcome: Err(_), .. }))));
    bridging.abort();
}

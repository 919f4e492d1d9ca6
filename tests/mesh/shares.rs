//! The shares of those who share a mesh: a branch that asks too much, does not read, or sends more than is taken costs itself, and the calls
//! of the others go on.

use crate::in_flight::{blocking, elsewhere};
use crate::raw::{RawBranch, request, request_with};
use crate::{Mesh, soon, until_known};
use bytes::BytesMut;
use futures::future::join_all;
use meshwork::limits::FRAME_LEN_MAX;
use meshwork::prelude::*;
use meshwork::{ByteBuf, Limits};
use meshwork_wire::{CallbackId, Encoding, Frame, Headers, Payload, Publish, Request, Response};
use std::io::Write as _;
use std::time::Instant;
use tokio::sync::mpsc;

const MIB: usize = 1024 * 1024;

const REPLIES_LEN_MAX: usize = 32 * MIB;

/// How long a call may take beside all that others do, on a busy machine.
const SMALL_DELAY: Duration = Duration::from_secs(5);

async fn is_answered_soon(caller: &Branch, action: &'static str) {
    let begun = Instant::now();
    let answered = caller.call::<u64>(action, 20_u64).within(SMALL_DELAY).await;
    assert_eq!(answered, Ok(40), "after {:?}", begun.elapsed());
}

fn twice() -> Responders {
    Responders::new().respond("twice", |it: u64| async move { Ok(2 * it) })
}

fn blobs() -> Responders {
    twice()
        .respond("blob", |len: usize| async move { Ok(ByteBuf::from(vec![7; len])) })
        .respond("later", |len: usize| async move {
            tokio::task::yield_now().await;
            Ok(ByteBuf::from(vec![7; len]))
        })
        .respond("never", |_: ByteBuf| std::future::pending::<Result<(), ActionError>>())
        .respond("hangs", |(): ()| std::future::pending::<Result<(), ActionError>>())
}

/// Many frames, in one write.
fn frames(frames: impl IntoIterator<Item = Frame>) -> BytesMut {
    let mut bytes = BytesMut::new();
    frames.into_iter().for_each(|frame| frame.encode(&mut bytes));
    bytes
}

/// The outbox of the provider was overfull after 257 MiB, since the last reply that fits may be longer than what was left: its link was cut.
#[actix::test]
async fn long_replies_that_nobody_reads_cost_their_caller_and_not_the_link_of_the_provider() {
    let mut limits = Limits::default();
    (limits.replies_len_max, limits.own_replies_len_max) = (REPLIES_LEN_MAX, REPLIES_LEN_MAX);
    let mesh = Mesh::of(MasterActor::new("master").limits(limits.clone())).await;
    for action in ["blob", "later"] {
        let name = if action == "blob" { "provider" } else { "other provider" };
        let provider = BranchActor::new(name).limits(limits.clone()).respond_all(blobs()).into_settings();
        let (provider, arbiter) = elsewhere(mesh.address.clone(), move || BranchActor::from(provider)).await;
        let healthy = mesh.branch("healthy").await;
        let mut deaf = RawBranch::bound(&mesh, "deaf", &[]).await;
        let count = REPLIES_LEN_MAX as u64 / (2 * MIB as u64) + 22;
        deaf.write(&frames((0..count).map(|id| request_with(id, action, &(2 * MIB))))).await;
        for _ in 0..20 {
            is_answered_soon(&healthy, "twice").await;
        }
        let snapshot = mesh.master.snapshot().await.unwrap();
        let there = |name| snapshot.sessions.iter().find(|it| it.name == name).map(|it| it.outbox_len);
        assert!(there(name).is_some(), "the provider is bound");
        assert!(there("deaf").is_some_and(|len| len <= REPLIES_LEN_MAX + MIB), "{snapshot:?}");
        drop(deaf);
        healthy.drain(Duration::ZERO).await.unwrap();
        provider.drain(Duration::ZERO).await.unwrap();
        arbiter.stop();
        until_known(&mesh.master, name, false).await;
        until_known(&mesh.master, "deaf", false).await;
        until_known(&mesh.master, "healthy", false).await;
    }
}

#[actix::test]
async fn long_replies_that_many_callers_read_all_arrive() {
    let mesh = Mesh::start().await;
    let (_provider, arbiter) =
        elsewhere(mesh.address.clone(), || BranchActor::new("provider").respond_all(blobs())).await;
    let callers = join_all(["a", "b", "c", "d", "e"].map(|name| mesh.branch(name))).await;
    for action in ["blob", "later"] {
        let calls =
            callers.iter().flat_map(|caller| (0..12).map(|_| caller.call::<ByteBuf>(action, 2 * MIB)));
        for reply in join_all(calls).await {
            assert_eq!(reply.expect("it arrives").len(), 2 * MIB);
        }
    }
    arbiter.stop();
}

#[actix::test]
async fn requests_that_never_end_leave_places_for_other_callers_of_their_provider() {
    let mut limits = Limits::default();
    limits.in_flight_max = 900;
    let mesh = Mesh::of(MasterActor::new("master").limits(limits)).await;
    let _provider = mesh.bind(BranchActor::new("provider").respond_all(blobs())).await;
    let mut hogs = Vec::new();
    for name in ["hog", "pig"] {
        let mut hog = RawBranch::bound(&mesh, name, &[]).await;
        hog.write(&frames((0..900).map(|id| request(id, "hangs")))).await;
        let (mut refused, mut last) = (0, 0);
        // The share of the first is eight ninths, and that of the second as much of what is left.
        let share = if name == "hog" { 800 } else { 89 };
        while refused < 900 - share {
            let Some(Frame::Response(Response { callback_id, outcome: Err(error) })) =
                hog.hear_answer().await
            else {
                panic!("those above its share are refused");
            };
            assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent), "{error}");
            (refused, last) = (refused + 1, callback_id.0.max(last));
        }
        assert_eq!((refused, last), (900 - share, 899));
        hogs.push(hog);
    }
    let healthy = mesh.branch("healthy").await;
    let calls = join_all((0..5_u64).map(|it| healthy.call::<u64>("twice", it))).await;
    assert_eq!(calls, (0..5).map(|it| Ok(2 * it)).collect::<Vec<_>>());
    is_answered_soon(&healthy, "twice").await;
}

/// All requests of the others stood in one queue before the request of a caller that makes few.
#[actix::test]
async fn a_call_passes_the_many_bytes_of_another_caller_to_the_same_provider() {
    let mesh = Mesh::start().await;
    let mut provider = RawBranch::bound(&mesh, "provider", &["take"]).await;
    let mut hog = RawBranch::bound(&mesh, "hog", &[]).await;
    let (len, count) = (MIB, 64);
    hog.write(&frames((0..count).map(|id| request_with(id, "take", &ByteBuf::from(vec![1; len]))))).await;
    // Nothing of it is read before all of it has come to the master.
    soon(async {
        loop {
            let sessions = mesh.master.snapshot().await.expect("it runs").sessions;
            if sessions.iter().any(|it| it.name == "provider" && it.in_flight == 64) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let healthy = mesh.branch("healthy").await;
    let call = actix_rt::spawn(healthy.call::<i32>("take", 5).within(Duration::MAX));
    until_asked(&mesh, 65).await;
    let mut before = 0;
    let asked = loop {
        let asked = provider.hear_request().await;
        if &*asked.caller == "healthy" {
            break asked;
        }
        before += 1;
    };
    // What the socket takes, what stands in order, and a turn.
    assert!(before <= 20, "{before} requests were before it");
    provider.reply(asked.callback_id, 9).await;
    assert_eq!(soon(call).await.unwrap(), Ok(9));
    // The others come too, each once, in their order.
    let mut ids = Vec::new();
    for _ in before..count {
        ids.push(provider.hear_request().await.callback_id);
    }
    assert!(ids.is_sorted());
}

async fn until_asked(mesh: &Mesh, count: usize) {
    soon(async {
        loop {
            let sessions = mesh.master.snapshot().await.expect("it runs").sessions;
            if sessions.iter().any(|it| it.name == "provider" && it.in_flight == count) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[actix::test]
async fn requests_that_have_not_left_are_not_sent_when_their_provider_goes_and_not_run_when_cancelled() {
    let mesh = Mesh::start().await;
    let mut provider = RawBranch::bound(&mesh, "provider", &["take"]).await;
    let mut hog = RawBranch::bound(&mesh, "hog", &[]).await;
    let count = 64;
    hog.write(&frames((0..count).map(|id| request_with(id, "take", &ByteBuf::from(vec![1; MIB]))))).await;
    until_asked(&mesh, 64).await;
    hog.write(&frames((32..count).map(|id| Frame::Cancel(CallbackId(id))))).await;
    until_asked(&mesh, 32).await;
    let first = provider.hear_request().await;
    drop(provider);
    let mut fates = std::collections::BTreeMap::new();
    for _ in 0..32 {
        let Some(Frame::Response(Response { callback_id, outcome: Err(error) })) = hog.hear_answer().await
        else {
            panic!("each has an error");
        };
        assert_eq!(error.code(), Code::PROVIDER_LOST);
        fates.insert(callback_id.0, error.fate());
    }
    assert_eq!(fates[&0], Fate::Unknown, "{:?} was read", first.callback_id);
    assert_eq!(fates[&31], Fate::NotSent);
    let written = fates.values().take_while(|fate| **fate == Fate::Unknown).count();
    assert!(fates.values().skip(written).all(|fate| *fate == Fate::NotSent), "{fates:?}");
}

/// All arguments that a caller sent were read into values, however many were read already.
#[actix::test]
async fn arguments_of_requests_that_are_being_answered_have_a_bound_and_each_caller_a_share() {
    let mut limits = Limits::default();
    limits.answering_len_max = 9 * MIB;
    for of_master in [true, false] {
        let master = MasterActor::new("master").limits(limits.clone());
        let mesh = Mesh::of(if of_master { master.respond_all(blobs()) } else { master }).await;
        let _provider = match of_master {
            true => None,
            false => {
                let provider = BranchActor::new("provider").limits(limits.clone()).respond_all(blobs());
                Some(mesh.bind(provider).await)
            }
        };
        let mut hog = RawBranch::bound(&mesh, "hog", &[]).await;
        let (len, count) = (MIB - 100, 20);
        hog.write(&frames((0..count).map(|id| request_with(id, "never", &ByteBuf::from(vec![1; len])))))
            .await;
        for id in 8..count {
            let Some(Frame::Response(Response { callback_id, outcome: Err(error) })) =
                hog.hear_answer().await
            else {
                panic!("there is no room for more");
            };
            assert_eq!((callback_id.0, error.code(), error.fate()), (id, Code::OVERLOADED, Fate::NotSent));
        }
        let healthy = mesh.branch("healthy").await;
        let long =
            healthy.call::<()>("never", ByteBuf::from(vec![1; MIB / 2])).within(Duration::from_millis(300));
        let error = long.await.expect_err("it never ends");
        assert_eq!(error.code(), Code::REQUEST_TIMEOUT, "it has a place: {error}");
        is_answered_soon(&healthy, "twice").await;
        // A cancel gives the place back.
        let again = request_with(count + 1, "never", &ByteBuf::from(vec![1; len]));
        let answered = async |hog: &mut RawBranch, id| {
            assert!(matches!(hog.hear_answer().await, Some(Frame::Response(it)) if it.callback_id.0 == id));
        };
        hog.write(&frames([Frame::Cancel(CallbackId(0)), request(count, "none")])).await;
        answered(&mut hog, count).await;
        hog.write(&frames([again, request_with(count + 2, "twice", &4_u64)])).await;
        answered(&mut hog, count + 2).await;
    }
}

#[actix::test]
async fn requests_wait_for_a_permit_as_bytes_and_within_a_bound() {
    let mut limits = Limits::default();
    limits.answering_len_max = 4 * MIB;
    let mesh = Mesh::start().await;
    let (read, mut reads) = mpsc::unbounded_channel();
    let responders = Responders::new()
        .respond("one by one", move |it: Noted| {
            let _ = read.send(it.0.len());
            std::future::pending::<Result<(), ActionError>>()
        })
        .permits_with_queue("one by one", 1, 1_000);
    let _provider = mesh.bind(BranchActor::new("provider").limits(limits).respond_all(responders)).await;
    let mut hog = RawBranch::bound(&mesh, "hog", &[]).await;
    hog.write(&frames((0..40).map(|id| {
        let payload = Payload::encode(Encoding::MessagePack, &ByteBuf::from(vec![1; MIB - 100])).unwrap();
        let Frame::Request(request) = request(id, "one by one") else { unreachable!("it is a request") };
        Frame::Request(Request { payload, ..request })
    })))
    .await;
    for _ in 4..40 {
        assert!(matches!(hog.hear_answer().await, Some(Frame::Response(it)) if it.outcome.is_err()));
    }
    assert_eq!(reads.recv().await, Some(MIB - 100));
    assert!(reads.try_recv().is_err(), "those that wait are not read");
}

struct Noted(ByteBuf);

impl<'de> serde::Deserialize<'de> for Noted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ByteBuf::deserialize(deserializer).map(Self)
    }
}

/// The master writes the publisher in, which made the frame longer than any link reads.
#[actix::test]
async fn an_event_that_becomes_too_long_on_its_way_is_dropped_and_cuts_no_link() {
    let mesh = Mesh::start().await;
    let listener = mesh.branch("listener").await;
    let (ear, mut heard) = crate::ear::<ByteBuf>();
    let member = ear.clone();
    let _kept = listener.subscribe("t", ear).await.unwrap();
    let _grouped = listener.subscribe_group("g", "t", member).await.unwrap();
    let name: &'static str = Box::leak("n".repeat(255).into_boxed_str());
    let mut publisher = RawBranch::bound(&mesh, name, &[]).await;
    let event = |payload: Payload| Publish {
        topic: "t".into(),
        publisher: "".into(),
        for_all: true,
        groups: Vec::new(),
        headers: Headers::none(),
        payload,
    };
    for broadcast in [false, true] {
        let payload = |len| Payload::encode(Encoding::MessagePack, &ByteBuf::from(vec![1; len])).unwrap();
        let frame = |len| {
            let Publish { topic, publisher, payload, .. } = event(payload(len));
            match broadcast {
                true => Frame::Broadcast(meshwork_wire::Broadcast {
                    topic,
                    publisher,
                    headers: Headers::none(),
                    payload,
                }),
                false => Frame::Publish(event(payload)),
            }
        };
        let mut len = FRAME_LEN_MAX;
        while frames([frame(len)]).len() - 4 > FRAME_LEN_MAX {
            len -= 1;
        }
        publisher.write(&frames([frame(len), request(1, "none")])).await;
        assert!(matches!(publisher.hear_answer().await, Some(Frame::Response(_))));
    }
    publisher
        .write(&frames([Frame::Publish(event(
            Payload::encode(Encoding::MessagePack, &ByteBuf::from(vec![1])).unwrap(),
        ))]))
        .await;
    for _ in 0..2 {
        assert_eq!(soon(heard.recv()).await.map(|(_, value)| value.len()), Some(1));
    }
    assert!(mesh.master.snapshot().await.unwrap().events_dropped >= 2);
}

/// Mailboxes of actors on other threads have no bound: all that a publisher sent stood there.
#[actix::test]
async fn a_publisher_whose_master_is_busy_is_read_no_further_than_its_credit() {
    let mut limits = Limits::default();
    let usual = read_of_a_publisher_while_the_master_is_busy(&limits).await;
    // What the sockets take, and the credit.
    assert!(usual < 300, "{usual} events of 100 kB were read");
    limits.credit_len_max = 1_000 * MIB;
    let all = read_of_a_publisher_while_the_master_is_busy(&limits).await;
    assert_eq!(all, 1_000, "with credit for all of them, {usual} without");
}

/// How many of 1,000 events of 100 kB the master reads while its own thread, which is that of its router, has no turn: the most of two
/// publishers, of which one has its session on another thread.
async fn read_of_a_publisher_while_the_master_is_busy(limits: &Limits) -> usize {
    let mesh = Mesh::of(MasterActor::new("master").limits(limits.clone()).arbiters(2)).await;
    let listener = mesh.branch("listener").await;
    let (ear, mut heard) = crate::ear::<ByteBuf>();
    let _kept = listener.subscribe("t", ear).await.expect("it is bound");
    let mut most = 0;
    for name in ["one", "other"] {
        let publisher = RawBranch::bound(&mesh, name, &[]).await;
        let payload =
            Payload::encode(Encoding::MessagePack, &ByteBuf::from(vec![1; 100_000])).expect("bytes");
        let (topic, publishes, groups) = ("t".into(), "".into(), Vec::new());
        let event = Frame::Publish(Publish {
            topic,
            publisher: publishes,
            for_all: true,
            groups,
            headers: Headers::none(),
            payload,
        });
        let (event, count) = (frames([event]), 1_000);
        let mut link = publisher.0.into_std().expect("it is open");
        link.set_nonblocking(false).expect("it may block");
        link.set_write_timeout(Some(Duration::from_millis(300))).expect("a time");
        let mut written = 0;
        while written < count && link.write_all(&event).is_ok() {
            written += 1;
        }
        most = most.max(written);
        drop(link);
        until_known(&mesh.master, name, false).await;
        while heard.try_recv().is_ok() {}
    }
    most
}

#[actix::test]
async fn the_bytes_of_requests_that_wait_for_a_provider_are_those_that_the_limits_say() {
    let mut limits = Limits::default();
    for (len_max, all_wait) in [(8 * MIB, false), (limits.requests_len_max, true)] {
        limits.requests_len_max = len_max;
        let mesh = Mesh::of(MasterActor::new("master").limits(limits.clone())).await;
        let _deaf = RawBranch::bound(&mesh, "deaf", &["take"]).await;
        let caller = mesh.branch("caller").await;
        let calls = (0..64).map(|_| {
            let take = caller.call::<()>("take", ByteBuf::from(vec![1; MIB]));
            actix_rt::spawn(take.within(Duration::from_secs(2)))
        });
        let errors: Vec<_> = join_all(calls).await.into_iter().map(|it| it.unwrap().unwrap_err()).collect();
        let refused = errors.iter().filter(|error| error.code() == Code::OVERLOADED);
        assert!(refused.clone().all(|error| error.fate() == Fate::NotSent));
        let refused = refused.count();
        assert_eq!(refused == 0, all_wait, "{refused} of 64 MiB were refused where {len_max} bytes may wait");
    }
}

#[actix::test]
async fn the_bytes_of_all_outboxes_are_those_that_the_limits_say() {
    let mut limits = Limits::default();
    for (len_max, all_fit) in [(24 * MIB, false), (limits.outboxes_len_max, true)] {
        limits.outboxes_len_max = len_max;
        let mesh = Mesh::of(MasterActor::new("master").limits(limits.clone()).respond_all(blobs())).await;
        let mut deaf = Vec::new();
        for name in ["one", "two", "three"] {
            let mut branch = RawBranch::bound(&mesh, name, &[]).await;
            branch.write(&frames((0..24).map(|id| request_with(id, "blob", &(2 * MIB))))).await;
            deaf.push(branch);
        }
        // A call of the last one is answered behind them.
        let healthy = mesh.branch("healthy").await;
        for _ in 0..20 {
            is_answered_soon(&healthy, "twice").await;
        }
        let sessions = mesh.master.snapshot().await.expect("it runs").sessions;
        let held: usize = sessions.iter().map(|it| it.outbox_len).sum();
        // Each has 16 MiB besides.
        assert!(held > 100 * MIB || held <= len_max + 3 * 17 * MIB, "{held}");
        assert_eq!(held > 100 * MIB, all_fit, "{held} of 144 MiB");
    }
}

/// Each subscriber that did not read took 16 MiB, however many there were.
#[actix::test]
async fn events_for_those_that_do_not_read_share_the_bytes_of_all_outboxes_and_those_that_read_lose_none() {
    let mut limits = Limits::default();
    limits.outboxes_len_max = 8 * MIB;
    let mesh = Mesh::of(MasterActor::new("master").limits(limits)).await;
    let reading = mesh.branch("reading").await;
    let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |event: Event<(u32, ByteBuf)>| {
        let _ = heard.send(event.value.0);
    };
    let _kept = reading.subscribe("t", handler).await.unwrap();
    let mut deaf = Vec::new();
    for name in ["one", "two", "three", "four", "five", "six", "seven", "eight"] {
        deaf.push(RawBranch::subscribed(&mesh, name, "t").await);
    }
    let event = ByteBuf::from(vec![7; 128 * 1024]);
    for number in 0..200 {
        mesh.master.publish("t", &(number, &event)).await.unwrap();
        assert_eq!(soon(events.recv()).await, Some(number));
    }
    let sessions = mesh.master.snapshot().await.unwrap().sessions;
    let (read, unread): (Vec<_>, Vec<_>) = sessions.iter().partition(|it| it.name == "reading");
    assert_eq!(read[0].events_dropped, 0);
    let held: usize = unread.iter().map(|it| it.outbox_len).sum();
    assert!(held <= 8 * MIB + 8 * MIB / 2, "{held}");
    assert!(unread.iter().all(|it| it.events_dropped > 0 && it.outbox_len < 3 * MIB), "{unread:?}");
}

#[actix::test]
async fn the_requests_that_are_kept_for_another_provider_are_those_that_the_limits_say() {
    let mut limits = Limits::default();
    for (len_max, is_kept) in [(0, false), (limits.kept_len_max, true)] {
        limits.kept_len_max = len_max;
        let mesh = Mesh::of(MasterActor::new("master").limits(limits.clone())).await;
        let full = mesh.bind(BranchActor::new("full").respond_all(twice().permits("twice", 0))).await;
        let free = mesh.bind(BranchActor::new("free").respond_all(twice())).await;
        let caller = mesh.branch("caller").await;
        let calls = (0..20).map(|_| caller.call::<u64>("twice", 20_u64));
        let outcomes = join_all(calls).await;
        let refused = outcomes.iter().filter_map(|it| it.as_ref().err());
        assert!(
            refused.clone().all(|error| (error.code(), error.fate()) == (Code::OVERLOADED, Fate::NotSent))
        );
        assert_eq!(refused.count() == 0, is_kept, "{outcomes:?}");
        drop((full, free));
    }
}

#[actix::test]
async fn a_call_ends_at_its_deadline_though_its_node_is_busy() {
    let mesh = Mesh::of(MasterActor::new("master").respond_all(twice())).await;
    let (block, mut blocked, let_go) = blocking();
    let (branch, arbiter) =
        elsewhere(mesh.address.clone(), move || BranchActor::new("busy").respond_all(block)).await;
    let hangs = mesh.bind(BranchActor::new("hangs").respond_all(blobs())).await;
    branch.wait_for("hangs", Duration::from_secs(5)).await.unwrap();
    let left = actix_rt::spawn(branch.call::<()>("hangs", ()).within(Duration::from_millis(400)));
    soon(async { while hangs.snapshot().await.unwrap().answering == 0 {} }).await;
    let blocking = actix_rt::spawn(branch.call::<()>("block", ()).within(Duration::MAX));
    soon(blocked.recv()).await.expect("it is busy");
    let within = Duration::from_millis(50);
    let begun = Instant::now();
    let error = branch.call::<u64>("twice", 1_u64).within(within).await.expect_err("the node is busy");
    assert!((within..Duration::from_secs(2)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::NotSent), "{error}");
    let error = soon(left).await.unwrap().expect_err("it hangs");
    assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown), "{error}");
    let later = actix_rt::spawn(branch.call::<u64>("twice", 4_u64));
    tokio::task::yield_now().await;
    let_go.send(()).expect("it waits for that");
    assert_eq!(soon(later).await.unwrap(), Ok(8), "the others go on");
    assert_eq!(soon(blocking).await.unwrap(), Ok(()));
    soon(branch.drain(Duration::from_secs(5))).await.unwrap();
    arbiter.stop();
}

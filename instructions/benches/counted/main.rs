//! The benchmarks: the instructions of each function below are counted, without those of its setup. `limits.toml` has a limit for
//! each.
//!
//! Everything runs in one thread and over links in memory. Buffers and tables have grown before the count begins.
#![expect(missing_docs, reason = "what the macros of gungraun make is public and has no documentation")]

mod raw;

use actix_rt::{System, SystemRunner};
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use gungraun::prelude::*;
use meshwork::prelude::*;
use meshwork::{Encoding, Payload};
use meshwork_wire::limits::{BLOCK_FRAMES_MAX, LENGTH_PREFIX_LEN};
use meshwork_wire::{CallbackId, Frame, FrameCodec, Frames, HeadTemplate, Headers, Next, Request, Response};
use raw::{Memory, RawEnd, kind_of, written};
use std::hint::black_box;
use std::ops::Range;
use tokio_util::codec::Decoder;

/// How many requests, or events, are on their way at once.
const BURST: usize = 1_000;

/// How many patterns there are besides the three that match.
const CROWD: usize = 9_997;

/// Bursts before the count begins.
const WARM_UP: usize = 3;

fn request(id: u64) -> Frame {
    Frame::Request(Request {
        callback_id: CallbackId(id),
        action: "math/add".into(),
        node: "".into(),
        caller: "".into(),
        time_left: Some(Duration::from_secs(10)),
        hops: 0,
        headers: Headers::none(),
        payload: Payload::encode(Encoding::MessagePack, &(22, 33)).expect("two numbers"),
    })
}

fn reply(id: u64) -> Frame {
    let payload = Payload::encode(Encoding::MessagePack, &55).expect("a number");
    Frame::Response(Response { callback_id: CallbackId(id), outcome: Ok(payload) })
}

async fn add((a, b): (i32, i32)) -> Result<i32, ActionError> {
    Ok(a.wrapping_add(b))
}

fn frame_and_room() -> (Frame, BytesMut) {
    let (frame, mut buffer) = (request(1_000), BytesMut::with_capacity(4 * 1024));
    frame.encode(&mut buffer);
    buffer.clear();
    (frame, buffer)
}

#[library_benchmark]
#[bench::once(args = (), setup = frame_and_room)]
fn encode_request((frame, mut buffer): (Frame, BytesMut)) -> (Frame, BytesMut) {
    black_box(&frame).encode(black_box(&mut buffer));
    (frame, buffer)
}

fn body() -> Bytes {
    let body = written([request(1_000)]).slice(LENGTH_PREFIX_LEN..);
    // Shared from the first time on, as the body of one frame of many is.
    drop(Frame::decode(&body));
    body
}

#[library_benchmark]
#[bench::once(args = (), setup = body)]
fn decode_request(body: Bytes) -> (Bytes, Frame) {
    let frame = Frame::decode(black_box(&body)).expect("it is one");
    (body, frame)
}

fn template_and_room() -> (HeadTemplate, BytesMut) {
    let Frame::Request(request) = request(0) else {
        unreachable!("it is a request");
    };
    let template = HeadTemplate::of_request(&request).expect("its names are short");
    (template, BytesMut::with_capacity(64 * BURST))
}

#[library_benchmark]
#[bench::thousand(args = (), setup = template_and_room)]
fn write_run((template, mut buffer): (HeadTemplate, BytesMut)) -> (HeadTemplate, BytesMut) {
    for id in 0..BURST as u64 {
        template.write_request(CallbackId(id), black_box(&[44, 66]), &mut buffer);
    }
    (template, buffer)
}

fn block_of(frame: impl Fn(u64) -> Frame) -> Frames {
    let mut bytes = BytesMut::from(written((0..BLOCK_FRAMES_MAX as u64).map(frame)));
    FrameCodec::unbound().decode(&mut bytes).expect("they are frames").expect("they are whole").frames()
}

#[library_benchmark]
#[bench::block(args = (reply), setup = block_of)]
fn read_replies(mut frames: Frames) -> Frames {
    while let Some(Next::Reply { callback_id, payload }) = frames.read_next() {
        black_box((callback_id, payload.by_ref()));
    }
    frames
}

#[library_benchmark]
#[bench::block(args = (request), setup = block_of)]
fn read_run(mut frames: Frames) -> Frames {
    black_box(frames.read_next());
    while let Some((callback_id, payload)) = frames.next_request_of_run() {
        black_box((callback_id, payload.by_ref()));
    }
    frames
}

/// A master between two raw ends, and the bytes of the next burst.
struct Relay {
    system: SystemRunner,
    caller: RawEnd,
    provider: RawEnd,
    requests: Bytes,
    replies: Bytes,
}

impl Relay {
    fn warm() -> Self {
        let system = System::new();
        let (provider, caller) = system.block_on(async {
            let memory = Memory::listen(MasterActor::new("master")).await;
            let provider = RawEnd::bound(&memory, "provider", &["math/add"], []).await;
            (provider, RawEnd::bound(&memory, "caller", &[], []).await)
        });
        let mut relay = Self { system, caller, provider, requests: Bytes::new(), replies: Bytes::new() };
        for burst in 0..WARM_UP {
            relay.prepare(burst);
            relay.run();
        }
        relay.prepare(WARM_UP);
        relay
    }

    /// The master draws its ids for a provider in order, from zero on, as the caller here does: so the id of a request is equal on both
    /// links.
    fn prepare(&mut self, burst: usize) {
        let ids = ids(burst);
        self.requests = written(ids.clone().map(request));
        self.replies = written(ids.map(reply));
    }

    fn run(&mut self) {
        let Self { system, caller, provider, requests, replies } = self;
        system.block_on(async {
            caller.say(requests).await;
            provider.hear(BURST, kind_of(requests)).await;
            provider.say(replies).await;
            caller.hear(BURST, kind_of(replies)).await;
        });
    }
}

fn ids(burst: usize) -> Range<u64> {
    (burst * BURST) as u64..((burst + 1) * BURST) as u64
}

#[library_benchmark]
#[bench::thousand(args = (), setup = Relay::warm)]
fn relay(mut relay: Relay) -> Relay {
    relay.run();
    relay
}

/// A branch that calls, and its provider.
struct Calls {
    system: SystemRunner,
    caller: Branch,
    /// Held here, since the provider must not end before the calls have.
    _provider: Option<Branch>,
}

impl Calls {
    fn of_master() -> Self {
        let system = System::new();
        let caller = system.block_on(async {
            let memory = Memory::listen(MasterActor::new("master").respond("math/add", add)).await;
            memory.bind(BranchActor::new("caller")).await
        });
        Self { system, caller, _provider: None }.warm()
    }

    fn of_branch() -> Self {
        let system = System::new();
        let (caller, provider) = system.block_on(async {
            let memory = Memory::listen(MasterActor::new("master")).await;
            let provider = memory.bind(BranchActor::new("provider").respond("math/add", add)).await;
            (memory.bind(BranchActor::new("caller")).await, provider)
        });
        Self { system, caller, _provider: Some(provider) }.warm()
    }

    fn warm(self) -> Self {
        for _ in 0..WARM_UP {
            self.run();
        }
        self
    }

    fn run(&self) {
        let calls = (0..BURST as i32).map(|number| self.caller.call::<i32>("math/add", (number, 1)));
        let sums = self.system.block_on(join_all(calls));
        assert!((1..).zip(sums).all(|(expected, sum)| sum == Ok(expected)), "each call has its own sum");
    }
}

#[library_benchmark]
#[bench::thousand(args = (), setup = Calls::of_master)]
fn resolve(calls: Calls) -> Calls {
    calls.run();
    calls
}

#[library_benchmark]
#[bench::thousand(args = (), setup = Calls::of_branch)]
fn relay_between_branches(calls: Calls) -> Calls {
    calls.run();
    calls
}

#[meshwork::actions(prefix = "math")]
trait Math {
    async fn add(&self, a: i32, b: i32) -> Result<i32, ActionError>;
}

struct Adder;

impl Math for Adder {
    async fn add(&self, a: i32, b: i32) -> Result<i32, ActionError> {
        Ok(a.wrapping_add(b))
    }
}

/// A branch that calls a method of a trait at its master.
struct TypedCalls {
    system: SystemRunner,
    caller: MathRequester,
}

impl TypedCalls {
    fn warm() -> Self {
        let system = System::new();
        let caller = system.block_on(async {
            let master = MasterActor::new("master").respond_all(Adder.into_responders());
            let memory = Memory::listen(master).await;
            MathRequester::new(&memory.bind(BranchActor::new("caller")).await)
        });
        let calls = Self { system, caller };
        (0..WARM_UP).for_each(|_| calls.run());
        calls
    }

    fn run(&self) {
        let calls = (0..BURST as i32).map(|number| self.caller.add(number, 1));
        let sums = self.system.block_on(join_all(calls));
        assert!((1..).zip(sums).all(|(expected, sum)| sum == Ok(expected)), "each call has its own sum");
    }
}

#[library_benchmark]
#[bench::thousand(args = (), setup = TypedCalls::warm)]
fn resolve_typed(calls: TypedCalls) -> TypedCalls {
    calls.run();
    calls
}

fn numbers() -> Vec<(i32, i32)> {
    (0..BURST as i32).map(|number| (number, 1)).collect()
}

fn write_all(encoding: Encoding, numbers: &[(i32, i32)]) {
    for pair in numbers {
        let written = Payload::encode_unless_small(encoding, black_box(pair), |bytes| _ = black_box(bytes));
        assert!(written.is_ok_and(|written| written.is_none()));
    }
}

#[library_benchmark]
#[bench::thousand(args = (), setup = numbers)]
fn write_by_name(numbers: Vec<(i32, i32)>) -> Vec<(i32, i32)> {
    write_all(Encoding::MessagePack, &numbers);
    numbers
}

#[library_benchmark]
#[bench::thousand(args = (), setup = numbers)]
fn write_typed(numbers: Vec<(i32, i32)>) -> Vec<(i32, i32)> {
    write_all(Encoding::Bincode, &numbers);
    numbers
}

#[library_benchmark]
#[bench::thousand(args = (), setup = numbers)]
fn write_unchecked(numbers: Vec<(i32, i32)>) -> Vec<(i32, i32)> {
    write_all(Encoding::PlainBincode, &numbers);
    numbers
}

fn payloads(encoding: Encoding) -> Vec<Payload> {
    numbers().iter().map(|pair| Payload::encode(encoding, pair).expect("two numbers")).collect()
}

fn read_all(payloads: &[Payload]) {
    for payload in payloads {
        black_box(black_box(payload).decode::<(i32, i32)>().expect("two numbers"));
    }
}

#[library_benchmark]
#[bench::thousand(args = (Encoding::MessagePack), setup = payloads)]
fn read_by_name(payloads: Vec<Payload>) -> Vec<Payload> {
    read_all(&payloads);
    payloads
}

#[library_benchmark]
#[bench::thousand(args = (Encoding::Bincode), setup = payloads)]
fn read_typed(payloads: Vec<Payload>) -> Vec<Payload> {
    read_all(&payloads);
    payloads
}

#[library_benchmark]
#[bench::thousand(args = (Encoding::PlainBincode), setup = payloads)]
fn read_unchecked(payloads: Vec<Payload>) -> Vec<Payload> {
    read_all(&payloads);
    payloads
}

/// A publisher, three subscribers whose patterns match, and a crowd of patterns that do not match.
struct Events {
    system: SystemRunner,
    publisher: RawEnd,
    listeners: [RawEnd; 3],
    _crowd: RawEnd,
    events: Bytes,
}

impl Events {
    fn warm() -> Self {
        let system = System::new();
        let crowd = (0..CROWD).map(|number| match number % 3 {
            0 => format!("house/{number}/room/hall"),
            1 => format!("house/{number}/*/cellar"),
            _ => format!("house/{number}/garden/**"),
        });
        let (publisher, listeners, crowd) = system.block_on(async {
            let memory = Memory::listen(MasterActor::new("master")).await;
            let crowd = RawEnd::bound(&memory, "crowd", &[], crowd).await;
            let one = |name, pattern: &str| RawEnd::bound(&memory, name, &[], [pattern.to_owned()]);
            let listeners = [
                one("literal", "house/1000/room/kitchen").await,
                one("star", "house/*/room/kitchen").await,
                one("rest", "house/1000/**").await,
            ];
            (RawEnd::bound(&memory, "publisher", &[], []).await, listeners, crowd)
        });
        let event = Frame::Publish(meshwork_wire::Publish {
            topic: "house/1000/room/kitchen".into(),
            publisher: "".into(),
            for_all: true,
            groups: Vec::new(),
            headers: Headers::none(),
            payload: Payload::encode(Encoding::MessagePack, &21.5).expect("a number"),
        });
        let events = written(std::iter::repeat_n(event, BURST));
        let mut events = Self { system, publisher, listeners, _crowd: crowd, events };
        for _ in 0..WARM_UP {
            events.run();
        }
        events
    }

    fn run(&mut self) {
        let Self { system, publisher, listeners, events, .. } = self;
        system.block_on(async {
            publisher.say(events).await;
            for listener in listeners {
                listener.hear(BURST, kind_of(events)).await;
            }
        });
    }
}

#[library_benchmark]
#[bench::thousand(args = (), setup = Events::warm)]
fn publish_match(mut events: Events) -> Events {
    events.run();
    events
}

library_benchmark_group!(
    name = counted,
    benchmarks = [
        encode_request,
        decode_request,
        write_run,
        read_run,
        read_replies,
        relay,
        relay_between_branches,
        resolve,
        resolve_typed,
        write_by_name,
        write_typed,
        write_unchecked,
        read_by_name,
        read_typed,
        read_unchecked,
        publish_match
    ]
);

main!(library_benchmark_groups = counted);

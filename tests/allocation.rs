//! The allocations of a master that relays, counted: none for a small frame, a few for each block of frames. And the memory of a long stream, which
//! stays flat at its producer, its master and its reader.
//!
//! Both ends of the relay write prepared frames over links in memory, and all their bytes are made before the counting starts. So
//! the allocations that are counted are those of the master, and everything runs in the one thread that is counted.

use actix_rt::{System, SystemRunner};
use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use meshwork::link::{Accept, Accepted};
use meshwork::prelude::*;
use meshwork::{Address, Encoding, Payload};
use meshwork_wire::limits::{LENGTH_PREFIX_LEN, PROTOCOL_VERSION};
use meshwork_wire::{Bind, CallbackId, Frame, Headers, Offer, Request, Response};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// The room of a link in memory, in bytes: a whole burst fits, so that no write waits.
const LINK_LEN: usize = 1024 * 1024;

/// The bursts that are compared, in requests: the difference of their allocations is the cost of the additional frames.
const FEW: u64 = 200;
const MANY: u64 = 1_200;

/// Bursts before the counting starts: until then buffers and tables grow.
const WARM_UP: usize = 8;

/// Hands the master the links that a test opens.
struct MemoryAccept(mpsc::UnboundedReceiver<DuplexStream>);

impl Accept for MemoryAccept {
    fn address(&self) -> Address {
        Address::from("memory:0")
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            match self.0.recv().await {
                Some(link) => Ok(Accepted::new(Box::new(link), "memory")),
                None => std::future::pending().await,
            }
        })
    }
}

/// A branch that writes frames which were prepared for it.
struct RawEnd {
    link: DuplexStream,
    heard: Vec<u8>,
}

impl RawEnd {
    async fn bound(links: &mpsc::UnboundedSender<DuplexStream>, name: &'static str, action: &str) -> Self {
        let (near, far) = tokio::io::duplex(LINK_LEN);
        links.send(far).expect("the master listens");
        let mut end = Self { link: near, heard: Vec::with_capacity(LINK_LEN) };
        let offer =
            Offer { action: action.into(), accepts: meshwork_wire::Accepts::MessagePack, shape: None };
        let bind = Frame::Bind(Bind {
            version: PROTOCOL_VERSION,
            name: name.into(),
            credentials: None,
            offers: vec![offer],
            subscriptions: Vec::new(),
        });
        end.say(&written([bind])).await;
        while !end.frames().iter().any(|frame| matches!(frame, Frame::Bound(_))) {
            end.link.read_buf(&mut end.heard).await.expect("the master says something");
        }
        end
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.link.write_all(bytes).await.expect("the master reads");
    }

    /// Reads until `count` frames of this kind have come, and allocates nothing.
    async fn hear(&mut self, mut count: u64, kind: u8) {
        self.heard.clear();
        let mut at = 0;
        while count > 0 {
            let rest = &self.heard[at..];
            match rest.first_chunk().map(|prefix| LENGTH_PREFIX_LEN + u32::from_le_bytes(*prefix) as usize) {
                Some(len) if rest.len() >= len => {
                    count -= u64::from(kind_of(rest) == kind);
                    at += len;
                }
                _ => {
                    let read = self.link.read_buf(&mut self.heard).await.expect("the master says something");
                    assert!(read > 0, "the master must not close");
                }
            }
        }
    }

    /// The frames of the bytes that were heard last.
    fn frames(&self) -> Vec<Frame> {
        let (mut rest, mut frames) = (Bytes::copy_from_slice(&self.heard), Vec::new());
        while let Some(prefix) = rest.first_chunk() {
            let len = LENGTH_PREFIX_LEN + u32::from_le_bytes(*prefix) as usize;
            if rest.len() < len {
                break;
            }
            let frame = rest.split_to(len).slice(LENGTH_PREFIX_LEN..);
            frames.push(Frame::decode(&frame).expect("a master says nothing but frames"));
        }
        frames
    }
}

/// Requests that are in flight together, and the replies of the provider.
struct Burst {
    ids: std::ops::Range<u64>,
    requests: Bytes,
    replies: Bytes,
}

impl Burst {
    /// The master draws its ids for a provider in order, from zero on, as the caller here does: so the id of a request is equal on both
    /// links.
    fn new(ids: std::ops::Range<u64>) -> Self {
        let payload = Payload::encode(Encoding::PlainBincode, &(2, 3)).expect("two numbers");
        let request = |id| {
            Frame::Request(Request {
                callback_id: CallbackId(id),
                action: "math/add".into(),
                node: "".into(),
                caller: "".into(),
                time_left: Some(Duration::from_secs(10)),
                hops: 0,
                headers: Headers::none(),
                payload: payload.clone(),
            })
        };
        let (requests, replies) = (written(ids.clone().map(request)), written(ids.clone().map(reply)));
        Self { ids, requests, replies }
    }

    fn len(&self) -> u64 {
        self.ids.end - self.ids.start
    }

    /// From the caller to the provider and back.
    async fn relay(&self, caller: &mut RawEnd, provider: &mut RawEnd) {
        caller.say(&self.requests).await;
        provider.hear(self.len(), kind_of(&self.requests)).await;
        provider.say(&self.replies).await;
        caller.hear(self.len(), kind_of(&self.replies)).await;
    }
}

fn reply(id: u64) -> Frame {
    let payload = Payload::encode(Encoding::PlainBincode, &5).expect("a number");
    Frame::Response(Response { callback_id: CallbackId(id), outcome: Ok(payload) })
}

fn written(frames: impl IntoIterator<Item = Frame>) -> Bytes {
    let mut bytes = BytesMut::new();
    frames.into_iter().for_each(|frame| frame.encode(&mut bytes));
    bytes.freeze()
}

/// A head begins with the number of its variant, whatever the frame.
fn kind_of(frame: &[u8]) -> u8 {
    frame[LENGTH_PREFIX_LEN]
}

/// A master with two raw ends, in a system that runs only inside `block_on`.
struct Relay {
    system: SystemRunner,
    caller: RawEnd,
    provider: RawEnd,
    /// How many requests have been relayed.
    relayed: u64,
}

impl Relay {
    fn start() -> Self {
        let system = System::new();
        let (provider, caller) = system.block_on(async {
            let (links, taken) = mpsc::unbounded_channel();
            let master = MasterActor::new("master").start();
            master.send(Listen::on(MemoryAccept(taken))).await.expect("it runs").expect("it listens");
            (
                RawEnd::bound(&links, "provider", "math/add").await,
                RawEnd::bound(&links, "caller", "none").await,
            )
        });
        Self { system, caller, provider, relayed: 0 }
    }

    /// How often memory is allocated while a burst is relayed.
    fn allocations(&mut self, len: u64) -> u64 {
        let burst = Burst::new(self.relayed..self.relayed + len);
        self.relayed += len;
        let Self { system, caller, provider, .. } = self;
        let cost = measure(|| system.block_on(burst.relay(caller, provider)));
        let mut replies = caller.frames();
        replies.retain(|frame| matches!(frame, Frame::Response(_)));
        assert!(replies.into_iter().eq(burst.ids.map(reply)), "each request has its reply, and in order");
        cost.count_total
    }
}

#[test]
fn a_small_frame_is_relayed_without_an_allocation() {
    let mut relay = Relay::start();
    for _ in 0..WARM_UP {
        relay.allocations(FEW);
        relay.allocations(MANY);
    }
    let (few, many) = (relay.allocations(FEW), relay.allocations(MANY));
    println!("{FEW} requests: {few} allocations; {MANY} requests: {many}");
    // A request and its reply are two frames. The remaining allocations are for blocks and messages: one for many frames.
    let frames = 2 * (MANY - FEW);
    let more = many.saturating_sub(few);
    assert!(more < frames / 40, "{frames} more frames cost {more} allocations: {few}, then {many}");
}

#[test]
fn a_long_stream_leaves_all_memory_flat() {
    const ITEM_LEN: usize = 32 * 1024;
    const ITEMS: usize = 256 * 1024 * 1024 / ITEM_LEN;
    /// The window of the reader, the outboxes of producer and master, what their sockets are given at once, and the nodes themselves.
    const MEMORY_MAX: u64 = 12 * 1024 * 1024;
    let system = System::new();
    // All nodes live on this thread, whose memory is counted.
    let memory = measure(|| {
        system.block_on(async {
            let master = MasterActor::new("master").start();
            let address =
                master.send(Listen::tcp("127.0.0.1:0")).await.expect("it runs").expect("it listens");
            let producer = BranchActor::new("producer").respond_stream("long", |(): ()| async move {
                let item = || meshwork::ByteBuf::from(vec![7_u8; ITEM_LEN]);
                Ok(Streaming::new(futures::stream::iter((0..ITEMS).map(move |_| item()))))
            });
            let _producer = producer.bind(&address).await.expect("it binds");
            let reader = BranchActor::new("reader").bind(&address).await.expect("it binds");
            let mut items = reader.stream::<meshwork::ByteBuf>("long", ()).await.expect("it begins");
            let mut count = 0;
            while let Some(item) = items.next().await {
                assert_eq!(item.expect("it goes on").len(), ITEM_LEN);
                count += 1;
            }
            assert_eq!(count, ITEMS);
        });
    });
    println!("{} bytes at most, {} in all", memory.bytes_max, memory.bytes_total);
    assert!(memory.bytes_total > (ITEMS * ITEM_LEN) as u64, "the items were counted");
    assert!(memory.bytes_max < MEMORY_MAX, "{} bytes", memory.bytes_max);
}

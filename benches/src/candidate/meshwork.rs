//! meshwork, as its users set it up: with the defaults, nothing switched off. The time of busy polling is set each time, also to zero,
//! so that the meaning of a row does not depend on a default.

use crate::client::{Client, different_bytes};
use crate::drive::figures;
use crate::events::{Counted, CountedLink, Delivered, EVENT_LEN, Publisher, TOPIC, WrittenLink};
use crate::items::{Consume, Consumer, consume_through};
use crate::job::{Form, Work};
use crate::load::Load;
use crate::measure::Figures;
use crate::process::{ready, until_stdin_ends};
use crate::runtime::Actix;
use anyhow::{Context as _, bail, ensure};
use bytes::{Bytes, BytesMut};
use meshwork::prelude::*;
use meshwork_wire::limits::{HEARTBEAT_EVERY, LENGTH_PREFIX_LEN, PROTOCOL_VERSION};
use meshwork_wire::{Bind, Encoding, Frame, Headers, NodeNews, Pattern, Payload, SessionId, SubscriptionKey};
use serde::{Serialize, Serializer};
use serde_bytes::ByteBuf;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The name of the branch that publishes.
const PUBLISHER: &str = "publisher";

async fn add((a, b): (i32, i32)) -> Result<i32, ActionError> {
    Ok(a.wrapping_add(b))
}

async fn echo(bytes: ByteBuf) -> Result<ByteBuf, ActionError> {
    Ok(bytes)
}

/// An item of a stream, written as bytes. Clones share them, as those of the peers do.
#[derive(Clone)]
struct Item(Bytes);

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

async fn stream(item_len: u32) -> Result<Streaming<Item>, ActionError> {
    Ok(Streaming::new(futures::stream::repeat(Item(different_bytes(item_len)))))
}

/// Runs a master with responders.
pub(crate) async fn serve(arbiters: usize, busy_poll: Duration) -> anyhow::Result<()> {
    let master = master(arbiters, busy_poll);
    listen(master.respond("add", add).respond("echo", echo).respond_stream("stream", stream)).await
}

/// Runs a master without responders, which relays the calls of its branches.
pub(crate) async fn relay(arbiters: usize, busy_poll: Duration) -> anyhow::Result<()> {
    listen(master(arbiters, busy_poll)).await
}

/// Runs a branch with responders.
pub(crate) async fn provide(at: SocketAddr, busy_poll: Duration) -> anyhow::Result<()> {
    let branch = BranchActor::new("provider").busy_poll(busy_poll);
    let branch = branch.respond("add", add).respond("echo", echo).respond_stream("stream", stream);
    let _branch = branch.bind(at).await?;
    ready(at);
    until_stdin_ends().await
}

fn master(arbiters: usize, busy_poll: Duration) -> MasterActor {
    MasterActor::new("bench").arbiters(arbiters).busy_poll(busy_poll)
}

async fn listen(master: MasterActor) -> anyhow::Result<()> {
    let master = master.start();
    ready(master.send(Listen::tcp("127.0.0.1:0")).await??);
    until_stdin_ends().await
}

/// A branch that is bound, provides nothing and does not poll.
pub(crate) async fn bind(address: SocketAddr, name: String) -> anyhow::Result<Branch> {
    Ok(BranchActor::new(name).busy_poll(Duration::ZERO).bind(address).await?)
}

#[derive(Clone)]
struct Short(Branch);

#[derive(Clone)]
struct Messages(Branch);

impl Client for Short {
    async fn add(&self, a: i32, b: i32) -> anyhow::Result<i32> {
        Ok(self.0.call("add", (a, b)).await?)
    }

    async fn echo(&self, bytes: Bytes) -> anyhow::Result<usize> {
        let back: ByteBuf = self.0.call("echo", serde_bytes::Bytes::new(&bytes)).await?;
        Ok(back.len())
    }

    async fn many(&self, work: Work, count: usize, bytes: &Bytes) -> anyhow::Result<usize> {
        Ok(match work {
            Work::Add => {
                let calls = (0..count).map(|number| (number as i32, 1));
                let sums: Vec<Result<i32, CallError>> = self.0.call_many("add", calls).await;
                sums.iter()
                    .zip(1..)
                    .filter(|(sum, expected)| sum.as_ref().is_ok_and(|sum| sum == expected))
                    .count()
            }
            Work::Echo1K | Work::Echo64K => {
                let calls = std::iter::repeat_n(serde_bytes::Bytes::new(bytes), count);
                let back: Vec<Result<ByteBuf, CallError>> = self.0.call_many("echo", calls).await;
                back.iter().filter(|back| back.as_ref().is_ok_and(|back| back.len() == bytes.len())).count()
            }
        })
    }
}

impl Client for Messages {
    async fn add(&self, a: i32, b: i32) -> anyhow::Result<i32> {
        Ok(self.0.addr().send(Call::new("add", (a, b))).await??)
    }

    async fn echo(&self, bytes: Bytes) -> anyhow::Result<usize> {
        let back: ByteBuf = self.0.addr().send(Call::new("echo", serde_bytes::Bytes::new(&bytes))).await??;
        Ok(back.len())
    }
}

/// Drives one branch, or several.
pub(crate) async fn drive(load: &Load) -> anyhow::Result<Figures> {
    let mut branches = Vec::new();
    for number in 0..load.connections {
        let branch = BranchActor::new(format!("caller-{number}")).busy_poll(load.candidate.busy_poll());
        branches.push(branch.bind(load.at).await?);
    }
    match load.form {
        Form::Single | Form::Many => {
            figures::<_, Actix>(branches.into_iter().map(Short).collect(), load).await
        }
        Form::Message => figures::<_, Actix>(branches.into_iter().map(Messages).collect(), load).await,
    }
}

/// The consumer of a stream.
struct Items {
    items: Streaming<ByteBuf>,
    item_len: usize,
}

impl Consumer for Items {
    async fn read(&mut self) -> anyhow::Result<u64> {
        let item = self.items.next().await.context("the stream ended")??;
        ensure!(item.len() == self.item_len, "an item of {} bytes", item.len());
        Ok(1)
    }
}

/// Reads a stream.
pub(crate) async fn consume(options: &Consume) -> anyhow::Result<Figures> {
    let branch = bind(options.load.at, "consumer".to_owned()).await?;
    let items = branch.stream("stream", options.item.len()).await?;
    let items = Items { items, item_len: options.item.len() as usize };
    consume_through::<_, Actix>(items, &options.load).await
}

/// Subscribers, each a branch of its own. The subscriptions end when the returned value is dropped.
pub(crate) async fn subscribe(
    at: SocketAddr,
    delivered: &Delivered,
) -> anyhow::Result<Vec<(Branch, Subscription)>> {
    let mut kept = Vec::new();
    for subscriber in 0..delivered.subscribers() {
        let branch = bind(at, format!("subscriber-{subscriber}")).await?;
        let delivered = delivered.clone();
        let count = move |_: Event<ByteBuf>| delivered.add(subscriber, 1);
        let subscription = branch.subscribe(TOPIC, count).await?;
        kept.push((branch, subscription));
    }
    Ok(kept)
}

/// A branch that publishes.
pub(crate) struct EventPublisher(Branch);

/// Binds a branch that publishes.
pub(crate) async fn publisher(at: SocketAddr) -> anyhow::Result<EventPublisher> {
    Ok(EventPublisher(bind(at, PUBLISHER.to_owned()).await?))
}

impl Publisher for EventPublisher {
    async fn publish(&mut self, event: &Bytes) -> anyhow::Result<()> {
        Ok(self.0.publish(TOPIC, serde_bytes::Bytes::new(event)).await?)
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        // A branch flushes by itself whenever its arbiter has nothing else to do.
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// The event as a frame, byte for byte as a branch writes it.
fn event_frame(publisher: &'static str) -> anyhow::Result<BytesMut> {
    let event = serde_bytes::ByteBuf::from(vec![b'e'; EVENT_LEN]);
    let payload = Payload::encode(Encoding::MessagePack, &event)?;
    let mut bytes = BytesMut::new();
    let publish = meshwork_wire::Publish {
        topic: TOPIC.into(),
        publisher: publisher.into(),
        for_all: true,
        groups: Vec::new(),
        headers: Headers::none(),
        payload,
    };
    Frame::Publish(publish).encode(&mut bytes);
    Ok(bytes)
}

/// Binds by hand, with the frames of the native protocol.
async fn bind_by_hand(
    at: SocketAddr,
    name: String,
    subscriptions: Vec<SubscriptionKey>,
) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let bind = Bind {
        version: PROTOCOL_VERSION,
        name: name.into(),
        credentials: None,
        offers: Vec::new(),
        subscriptions,
    };
    let mut bytes = BytesMut::new();
    Frame::Bind(bind).encode(&mut bytes);
    stream.write_all(&bytes).await?;
    Ok(stream)
}

/// Waits for the `Bound` of the master; news of other nodes may come before it.
async fn read_bound(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<()> {
    let news = NodeNews { node: "any".into(), session: SessionId(0), whole: true, actions: Vec::new() };
    let mut online = BytesMut::new();
    Frame::Online(news).encode(&mut online);
    loop {
        let mut frame = vec![0; stream.read_u32_le().await? as usize];
        stream.read_exact(&mut frame).await?;
        // A head begins with the number of its variant. The content of news does not matter here.
        if frame.first() == online.get(LENGTH_PREFIX_LEN) {
            continue;
        }
        match Frame::decode(&frame.into())? {
            Frame::Bound(_) => return Ok(()),
            other => bail!("the master answered a bind with {other:?}"),
        }
    }
}

/// A subscriber that only counts frames.
pub(crate) async fn counted_link(at: SocketAddr, subscriber: usize) -> anyhow::Result<CountedLink> {
    let key = SubscriptionKey { pattern: Pattern::new(TOPIC)?, group: None };
    let mut stream = bind_by_hand(at, format!("subscriber-{subscriber}"), vec![key]).await?;
    read_bound(&mut stream).await?;
    // The master writes the name of the publisher into each event.
    let event_len = event_frame(PUBLISHER)?.len();
    Ok(CountedLink { stream, event: Counted::Frames(event_len) })
}

/// A publisher that only writes bytes.
pub(crate) async fn written_link(at: SocketAddr) -> anyhow::Result<WrittenLink> {
    let mut stream = bind_by_hand(at, PUBLISHER.to_owned(), Vec::new()).await?;
    read_bound(&mut stream).await?;
    Ok(WrittenLink { stream, event: event_frame("")?.freeze() })
}

/// Holds a link that is bound and sends only heartbeats. The frames are written by hand, so that ten thousand links fit into one process.
pub(crate) async fn hold(at: SocketAddr, name: String) -> anyhow::Result<()> {
    let mut stream = bind_by_hand(at, name, Vec::new()).await?;
    // Bytes that are read too much are news, which are not needed here.
    read_bound(&mut BufReader::with_capacity(64 * 1024, &mut stream)).await?;
    let mut ping = BytesMut::new();
    Frame::Ping.encode(&mut ping);
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(HEARTBEAT_EVERY);
        beat.tick().await;
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    if stream.write_all(&ping).await.is_err() {
                        return;
                    }
                }
                readable = stream.readable() => {
                    // On the stack between two waits, so that ten thousand links share this buffer.
                    let mut heard = [0; 64 * 1024];
                    match stream.try_read(&mut heard) {
                        Ok(0) => return,
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                    if readable.is_err() {
                        return;
                    }
                }
            }
        }
    });
    Ok(())
}

//! async-nats through a real nats-server: requests and replies, and events.

use crate::client::{Client, different_bytes};
use crate::drive::figures;
use crate::events::{Counted, CountedLink, Delivered, EVENT_LEN, Publisher, TOPIC, WrittenLink};
use crate::items::{Consume, Consumer, consume_through};
use crate::load::Load;
use crate::measure::Figures;
use crate::process::{ready, until_stdin_ends};
use crate::runtime::Tokio;
use anyhow::{Context as _, ensure};
use async_nats::ConnectOptions;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Room for everything that is in flight, so that nothing is dropped.
const CAPACITY: usize = 128 * 1024;

/// How many bytes of items a publisher may be ahead of the subscriber that reads them: the window of a meshwork stream. NATS lets publishers
/// be ahead as far as they like, and drops what is too much; so the subscriber tells how much it has read.
const AHEAD_LEN_MAX: u64 = 4 * 1024 * 1024;

/// How often the subscriber tells so, in each of these windows.
const TOLD_IN_A_WINDOW: u64 = 4;

/// How many commands may wait for the connection.
const COMMANDS: usize = 8 * 1024;

#[derive(Clone)]
struct NatsClient(async_nats::Client);

impl Client for NatsClient {
    async fn add(&self, a: i32, b: i32) -> anyhow::Result<i32> {
        let mut numbers = BytesMut::with_capacity(8);
        numbers.put_i32_le(a);
        numbers.put_i32_le(b);
        let mut reply = self.0.request("bench.add", numbers.freeze()).await?.payload;
        ensure!(reply.len() == 4, "a sum has four bytes");
        Ok(reply.get_i32_le())
    }

    async fn echo(&self, bytes: Bytes) -> anyhow::Result<usize> {
        Ok(self.0.request("bench.echo", bytes).await?.payload.len())
    }
}

async fn connect(at: SocketAddr) -> anyhow::Result<async_nats::Client> {
    let options = ConnectOptions::new().client_capacity(COMMANDS).subscription_capacity(CAPACITY);
    options.connect(at.to_string()).await.context("no connection to the nats-server")
}

/// Answers requests, one task for each action.
pub(crate) async fn provide(at: SocketAddr) -> anyhow::Result<()> {
    let client = connect(at).await?;
    let mut adding = client.subscribe("bench.add").await?;
    let mut echoing = client.subscribe("bench.echo").await?;
    client.flush().await?;
    let adder = client.clone();
    tokio::spawn(async move {
        while let Some(mut message) = adding.next().await {
            if let Some(reply) = message.reply.filter(|_| message.payload.len() == 8) {
                let sum = message.payload.get_i32_le().wrapping_add(message.payload.get_i32_le());
                let sum = Bytes::copy_from_slice(&sum.to_le_bytes());
                if adder.publish(reply, sum).await.is_err() {
                    return;
                }
            }
        }
    });
    tokio::spawn(async move {
        while let Some(message) = echoing.next().await {
            if let Some(reply) = message.reply
                && client.publish(reply, message.payload).await.is_err()
            {
                return;
            }
        }
    });
    let client = connect(at).await?;
    let asked = client.subscribe("bench.stream").await?;
    let told = client.subscribe("bench.read").await?;
    client.flush().await?;
    tokio::spawn(produce(client, asked, told));
    ready(at);
    until_stdin_ends().await
}

/// Publishes items to whoever asks for them first, as fast as they are read.
async fn produce(
    client: async_nats::Client,
    mut asked: async_nats::Subscriber,
    mut told: async_nats::Subscriber,
) -> anyhow::Result<()> {
    let mut request = asked.next().await.context("the nats-server is gone")?;
    let to = request.reply.context("the items have no receiver")?;
    let item = different_bytes(request.payload.try_get_u32_le()?);
    let ahead_max = AHEAD_LEN_MAX / item.len() as u64;
    let (mut published, mut read) = (0, 0);
    loop {
        while published - read >= ahead_max {
            read = told.next().await.context("the nats-server is gone")?.payload.try_get_u64_le()?;
        }
        client.publish(to.clone(), item.clone()).await?;
        published += 1;
    }
}

/// The consumer of a stream.
struct Items {
    client: async_nats::Client,
    items: async_nats::Subscriber,
    item_len: usize,
    read: u64,
}

impl Consumer for Items {
    async fn read(&mut self) -> anyhow::Result<u64> {
        let item = self.items.next().await.context("the nats-server is gone")?;
        ensure!(item.payload.len() == self.item_len, "an item of {} bytes", item.payload.len());
        self.read += 1;
        if self.read.is_multiple_of(AHEAD_LEN_MAX / TOLD_IN_A_WINDOW / self.item_len as u64) {
            self.client.publish("bench.read", Bytes::copy_from_slice(&self.read.to_le_bytes())).await?;
        }
        Ok(1)
    }
}

/// Reads what one publisher publishes for this subscriber.
pub(crate) async fn consume(options: &Consume) -> anyhow::Result<Figures> {
    let client = connect(options.load.at).await?;
    let inbox = client.new_inbox();
    let items = client.subscribe(inbox.clone()).await?;
    let len = options.item.len();
    let asked = Bytes::copy_from_slice(&len.to_le_bytes());
    client.publish_with_reply("bench.stream", inbox, asked).await?;
    let items = Items { client, items, item_len: len as usize, read: 0 };
    consume_through::<_, Tokio>(items, &options.load).await
}

/// Drives the client's requests.
pub(crate) async fn drive(load: &Load) -> anyhow::Result<Figures> {
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        clients.push(NatsClient(connect(load.at).await?));
    }
    figures::<_, Tokio>(clients, load).await
}

/// The topic as NATS separates it.
fn subject() -> String {
    TOPIC.replace('/', ".")
}

/// Subscribers, each with a connection of its own.
pub(crate) async fn subscribe(
    at: SocketAddr,
    delivered: &Delivered,
) -> anyhow::Result<Vec<async_nats::Client>> {
    let mut clients = Vec::new();
    for number in 0..delivered.subscribers() {
        let client = connect(at).await?;
        let mut events = client.subscribe(subject()).await?;
        client.flush().await?;
        let delivered = delivered.clone();
        tokio::spawn(async move {
            while events.next().await.is_some() {
                delivered.add(number, 1);
            }
        });
        clients.push(client);
    }
    Ok(clients)
}

/// A client that publishes.
pub(crate) struct EventPublisher {
    client: async_nats::Client,
    subject: async_nats::Subject,
}

/// Connects a client that publishes.
pub(crate) async fn publisher(at: SocketAddr) -> anyhow::Result<EventPublisher> {
    Ok(EventPublisher { client: connect(at).await?, subject: subject().into() })
}

impl Publisher for EventPublisher {
    async fn publish(&mut self, event: &Bytes) -> anyhow::Result<()> {
        Ok(self.client.publish(self.subject.clone(), event.clone()).await?)
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.client.flush().await?)
    }
}

/// A connection by hand: the server has said INFO, and has answered our PING with PONG.
async fn connect_by_hand(at: SocketAddr) -> anyhow::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let mut link = BufReader::new(stream);
    let mut info = String::new();
    link.read_line(&mut info).await?;
    ensure!(info.starts_with("INFO "), "not a nats-server: {info:?}");
    let connect = concat!(
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false,\"name\":\"counter\",",
        "\"lang\":\"hand\",\"version\":\"0\",\"protocol\":1}\r\n"
    );
    link.write_all(connect.as_bytes()).await?;
    ping(&mut link).await?;
    Ok(link)
}

/// Sends PING and waits for PONG. PINGs of the server are answered meanwhile.
async fn ping(link: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    link.write_all(b"PING\r\n").await?;
    loop {
        let mut line = String::new();
        ensure!(link.read_line(&mut line).await? > 0, "the nats-server closed the connection");
        match line.trim_end() {
            "PONG" => return Ok(()),
            "PING" => link.write_all(b"PONG\r\n").await?,
            info if info.starts_with("INFO ") => {}
            other => anyhow::bail!("the nats-server said {other:?}"),
        }
    }
}

/// A subscriber that only counts bytes.
///
/// The first PING of the server comes two seconds after the connection was opened, whatever was sent before. The subscriber does not
/// expect it: its six bytes among the events are less than one event, so they are never counted as an event.
pub(crate) async fn counted_link(at: SocketAddr) -> anyhow::Result<CountedLink> {
    let mut link = connect_by_hand(at).await?;
    link.write_all(format!("SUB {} 1\r\n", subject()).as_bytes()).await?;
    ping(&mut link).await?;
    ensure!(link.buffer().is_empty(), "something came before the first event");
    let head = format!("MSG {} 1 {EVENT_LEN}\r\n", subject());
    Ok(CountedLink { stream: link.into_inner(), event: Counted::Bytes(head.len() + EVENT_LEN + 2) })
}

/// A publisher that only writes bytes.
pub(crate) async fn written_link(at: SocketAddr) -> anyhow::Result<WrittenLink> {
    let link = connect_by_hand(at).await?;
    let mut event = format!("PUB {} {EVENT_LEN}\r\n", subject()).into_bytes();
    event.extend_from_slice(&[b'e'; EVENT_LEN]);
    event.extend_from_slice(b"\r\n");
    Ok(WrittenLink { stream: link.into_inner(), event: event.into() })
}

/// Holds a connection that sends only the PONGs which keep it alive.
pub(crate) async fn hold(at: SocketAddr) -> anyhow::Result<()> {
    let mut stream = connect_by_hand(at).await?.into_inner();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok(1..) = stream.read(&mut buffer).await {
            if stream.write_all(b"PONG\r\n").await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

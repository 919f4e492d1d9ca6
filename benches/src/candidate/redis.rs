//! Redis and its publish and subscribe, through its Rust client.

use crate::events::{Counted, CountedLink, Delivered, EVENT_LEN, Publisher, TOPIC, WrittenLink};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::StreamExt;
use redis::aio::MultiplexedConnection;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How many commands travel as one pipeline, which is what the client's documentation advises for speed.
const PIPELINE: usize = 64;

fn client(at: SocketAddr) -> anyhow::Result<redis::Client> {
    redis::Client::open(format!("redis://{at}/")).context("not an address of a redis-server")
}

/// Subscribers, each with a connection of its own.
pub(crate) async fn subscribe(at: SocketAddr, delivered: &Delivered) -> anyhow::Result<()> {
    for number in 0..delivered.subscribers() {
        let mut events = client(at)?.get_async_pubsub().await?;
        events.subscribe(TOPIC).await?;
        let delivered = delivered.clone();
        tokio::spawn(async move {
            let mut events = events.into_on_message();
            while events.next().await.is_some() {
                delivered.add(number, 1);
            }
        });
    }
    Ok(())
}

/// A client that publishes.
pub(crate) struct EventPublisher {
    connection: MultiplexedConnection,
    pipeline: redis::Pipeline,
    waiting: usize,
}

/// Connects a client that publishes.
pub(crate) async fn publisher(at: SocketAddr) -> anyhow::Result<EventPublisher> {
    let connection = client(at)?.get_multiplexed_async_connection().await?;
    Ok(EventPublisher { connection, pipeline: redis::pipe(), waiting: 0 })
}

impl Publisher for EventPublisher {
    async fn publish(&mut self, event: &Bytes) -> anyhow::Result<()> {
        self.pipeline.publish(TOPIC, &event[..]).ignore();
        self.waiting += 1;
        if self.waiting >= PIPELINE {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if self.waiting > 0 {
            self.pipeline.exec_async(&mut self.connection).await?;
            self.pipeline.clear();
            self.waiting = 0;
        }
        Ok(())
    }
}

/// A list of byte strings, as the protocol writes one.
fn list(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A subscriber that only counts bytes.
pub(crate) async fn counted_link(at: SocketAddr) -> anyhow::Result<CountedLink> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&list(&[b"SUBSCRIBE", TOPIC.as_bytes()])).await?;
    // The confirmation: a list whose last part is the number of subscriptions of this connection.
    let mut expected = list(&[b"subscribe", TOPIC.as_bytes()]);
    expected.splice(..4, *b"*3\r\n");
    expected.extend_from_slice(b":1\r\n");
    let mut confirmation = vec![0; expected.len()];
    stream.read_exact(&mut confirmation).await?;
    ensure!(confirmation == expected, "not a redis-server");
    let event = list(&[b"message", TOPIC.as_bytes(), &[b'e'; EVENT_LEN]]);
    Ok(CountedLink { stream, event: Counted::Bytes(event.len()) })
}

/// A publisher that only writes bytes.
pub(crate) async fn written_link(at: SocketAddr) -> anyhow::Result<WrittenLink> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let event = list(&[b"PUBLISH", TOPIC.as_bytes(), &[b'e'; EVENT_LEN]]);
    Ok(WrittenLink { stream, event: event.into() })
}

//! Events to many subscribers: how many are delivered a second while none is dropped.
//!
//! The publisher may be [`WINDOW`] events ahead of the slowest subscriber, no more: the process of the subscribers tells the
//! publisher over a connection of its own how many events the slowest has had. So no buffer overflows, and every event must arrive.
//! `publish.rs` chooses the candidate whose publisher and subscribers these are.

use crate::job::Ends;
use crate::load::{Load, Phase};
use crate::measure::Figures;
use crate::process::{ready, until_stdin_ends};
use anyhow::{Context as _, ensure};
use bytes::{Buf, Bytes, BytesMut};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How far the publisher may be ahead of the slowest subscriber, in events.
const WINDOW: u64 = 8192;

/// How many bytes an event has.
pub(crate) const EVENT_LEN: usize = 128;

/// The topic of all events, with dots for brokers that separate segments by dots.
pub(crate) const TOPIC: &str = "bench/events";

/// The options of the publisher.
#[derive(clap::Args, Debug)]
pub(crate) struct Publish {
    #[command(flatten)]
    pub(crate) load: Load,
    /// The kind of the publisher.
    #[arg(long)]
    pub(crate) ends: Ends,
    /// How many subscribers there are.
    #[arg(long)]
    subscribers: usize,
    /// The address at which the process of the subscribers tells how many events they have had.
    #[arg(long)]
    subscribers_at: SocketAddr,
}

/// How many events each subscriber has had.
#[derive(Clone)]
pub(crate) struct Delivered(Arc<[AtomicU64]>);

impl Delivered {
    pub(crate) fn new(subscribers: usize) -> Self {
        Self((0..subscribers).map(|_| AtomicU64::new(0)).collect())
    }

    /// How many subscribers there are.
    pub(crate) fn subscribers(&self) -> usize {
        self.0.len()
    }

    /// Counts more events of this subscriber.
    pub(crate) fn add(&self, subscriber: usize, events: u64) {
        self.0[subscriber].fetch_add(events, Ordering::Relaxed);
    }

    fn slowest(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}

/// A publisher.
pub(crate) trait Publisher {
    /// Publishes one event of [`EVENT_LEN`] bytes to [`TOPIC`], in the way that keeps this client busiest.
    fn publish(&mut self, event: &Bytes) -> impl Future<Output = anyhow::Result<()>>;

    /// Flushes, so that all events published so far are on their way.
    fn flush(&mut self) -> impl Future<Output = anyhow::Result<()>>;
}

/// A connection on which events come, and the way of counting them.
pub(crate) struct CountedLink {
    pub(crate) stream: TcpStream,
    pub(crate) event: Counted,
}

impl CountedLink {
    /// Counts the events on this link as delivered to one of the subscribers, in a task of its own.
    pub(crate) fn count(mut self, subscriber: usize, delivered: Delivered) {
        tokio::spawn(async move {
            let mut read = BytesMut::new();
            loop {
                read.reserve(64 * 1024);
                let Ok(1..) = self.stream.read_buf(&mut read).await else { return };
                delivered.add(subscriber, self.event.take(&mut read));
            }
        });
    }
}

/// How events are counted without being read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// Only events come, each of this many bytes.
    Bytes(usize),
    /// Frames come, each behind its length in four bytes; frames of this total length are the events.
    Frames(usize),
}

impl Counted {
    /// Takes the whole events out of the bytes that were read, and gives their number.
    fn take(self, read: &mut BytesMut) -> u64 {
        match self {
            Counted::Bytes(len) => {
                let count = read.len() / len;
                read.advance(count * len);
                count as u64
            }
            Counted::Frames(event_len) => {
                let (mut at, mut count) = (0, 0);
                while let Some(prefix) = read[at..].first_chunk::<4>() {
                    let len = 4 + u32::from_le_bytes(*prefix) as usize;
                    if at + len > read.len() {
                        break;
                    }
                    count += u64::from(len == event_len);
                    at += len;
                }
                read.advance(at);
                count
            }
        }
    }
}

/// A connection to publish on, and the bytes that publish one event.
pub(crate) struct WrittenLink {
    pub(crate) stream: TcpStream,
    pub(crate) event: Bytes,
}

/// Tells the publisher how many events the slowest subscriber has had, until stdin ends.
pub(crate) async fn tell_publisher(delivered: &Delivered) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready(listener.local_addr()?);
    let tell = async {
        let (mut publisher, _) = listener.accept().await?;
        publisher.set_nodelay(true)?;
        let mut told = 0;
        loop {
            let slowest = delivered.slowest();
            if slowest > told {
                publisher.write_u64_le(slowest).await?;
                told = slowest;
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    };
    tokio::select! { ended = tell => ended, ended = until_stdin_ends() => ended }
}

/// A publisher that writes the bytes of one event again and again. Answers of the broker are read and thrown away.
pub(crate) struct Written {
    link: tokio::net::tcp::OwnedWriteHalf,
    event: Bytes,
    out: Vec<u8>,
}

impl Written {
    pub(crate) fn new(link: WrittenLink) -> Self {
        let (mut reader, writer) = link.stream.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
        Self { link: writer, event: link.event, out: Vec::new() }
    }
}

impl Publisher for Written {
    async fn publish(&mut self, _: &Bytes) -> anyhow::Result<()> {
        self.out.extend_from_slice(&self.event);
        if self.out.len() >= 32 * 1024 {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.link.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }
}

/// Publishes through this publisher, and counts the events that arrive.
pub(crate) async fn publish_through(
    mut publisher: impl Publisher,
    options: &Publish,
) -> anyhow::Result<Figures> {
    let mut progress = TcpStream::connect(options.subscribers_at).await?;
    let slowest = Arc::new(AtomicU64::new(0));
    let told = Arc::new(tokio::sync::Notify::new());
    tokio::spawn({
        let (slowest, told) = (slowest.clone(), told.clone());
        async move {
            while let Ok(count) = progress.read_u64_le().await {
                slowest.store(count, Ordering::Relaxed);
                told.notify_one();
            }
        }
    });
    let phase = Phase::default();
    let event = Bytes::from(vec![b'e'; EVENT_LEN]);
    let publish = async {
        let mut published = 0u64;
        while !phase.is_over() {
            while published - slowest.load(Ordering::Relaxed) >= WINDOW && !phase.is_over() {
                publisher.flush().await?;
                // A timeout, since neither a dropped event nor the end of the phase is told.
                let _ = tokio::time::timeout(Duration::from_millis(20), told.notified()).await;
            }
            for _ in 0..16 {
                publisher.publish(&event).await?;
                published += 1;
            }
            tokio::task::consume_budget().await;
        }
        publisher.flush().await?;
        anyhow::Ok(published)
    };
    let count = async {
        tokio::time::sleep(Duration::from_secs_f64(options.load.warm_up_seconds)).await;
        let before = slowest.load(Ordering::Relaxed);
        let rest = Load { warm_up_seconds: 0.0, ..options.load.clone() };
        let spent = phase.lead(&rest).await;
        (slowest.load(Ordering::Relaxed) - before, spent)
    };
    let (published, (delivered, spent)) = tokio::join!(publish, count);
    let published = published.context("the publisher failed")?;
    let started = Instant::now();
    while slowest.load(Ordering::Relaxed) < published {
        ensure!(
            started.elapsed() < Duration::from_secs(10),
            "{published} events were published and {} arrived at the slowest subscriber",
            slowest.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    ensure!(delivered > 0, "nothing was delivered");
    Ok(spent.on_events(delivered * options.subscribers as u64))
}

//! Events to many subscribers: how many are delivered a second while none is dropped.
//!
//! The publisher is allowed to be [`WINDOW`] events ahead of the slowest subscriber, no more: the subscribers' process tells
//! it over a connection of their own how far they are. So nobody's buffer overflows, and every event must arrive.

use crate::candidate::{self, Candidate, meshwork, nats, raw, redis};
use crate::drive::{self, Phase, finish};
use crate::measure::Figures;
use anyhow::{Context as _, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::any::Any;
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

/// The topic of all events, with dots where the broker separates its segments so.
pub(crate) const TOPIC: &str = "bench/events";

/// Who is at the ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ends {
    /// The candidate's own client library.
    Own,
    /// A publisher that writes bytes made before, and subscribers that count bytes: what is left is the broker.
    Bytes,
}

/// What the subscribers' process is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Subscribe {
    /// Whose subscribers.
    candidate: Candidate,
    /// Where the broker is.
    #[arg(long)]
    at: SocketAddr,
    /// How many subscribers, each with a connection of its own.
    #[arg(long)]
    subscribers: usize,
    /// Of which kind.
    #[arg(long)]
    ends: Ends,
}

/// What the publisher is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Publish {
    #[command(flatten)]
    load: drive::Options,
    /// Of which kind it is.
    #[arg(long)]
    ends: Ends,
    /// How many subscribers there are.
    #[arg(long)]
    subscribers: usize,
    /// Where the subscribers' process tells how far it is.
    #[arg(long)]
    subscribers_at: SocketAddr,
}

/// How many events each subscriber has had.
#[derive(Clone)]
pub(crate) struct Delivered(Arc<[AtomicU64]>);

impl Delivered {
    fn new(subscribers: usize) -> Self {
        Self((0..subscribers).map(|_| AtomicU64::new(0)).collect())
    }

    /// How many subscribers there are.
    pub(crate) fn subscribers(&self) -> usize {
        self.0.len()
    }

    /// This subscriber has had so many more.
    pub(crate) fn add(&self, subscriber: usize, events: u64) {
        self.0[subscriber].fetch_add(events, Ordering::Relaxed);
    }

    fn slowest(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}

/// One who publishes.
pub(crate) trait Publisher {
    /// Publishes one event of [`EVENT_LEN`] bytes to [`TOPIC`], in whatever way keeps this client busiest.
    fn publish(&mut self, event: &Bytes) -> impl Future<Output = anyhow::Result<()>>;

    /// Sees to it that everything published so far is on its way.
    fn flush(&mut self) -> impl Future<Output = anyhow::Result<()>>;
}

/// A connection on which events come, and how they are counted there.
pub(crate) struct CountedLink {
    pub(crate) stream: TcpStream,
    pub(crate) event: Counted,
}

/// How events are counted without being read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    /// Nothing else comes, and each takes so many bytes.
    Bytes(usize),
    /// Frames come, each behind its length in four bytes, and those of so many bytes together are the events.
    Frames(usize),
}

impl Counted {
    /// Takes the whole events out of what was read, and gives how many they were.
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

/// Runs the subscribers until stdin ends.
pub(crate) fn subscribe(options: &Subscribe) -> anyhow::Result<()> {
    match options.candidate {
        Candidate::Meshwork => candidate::on_actix(subscribe_all(options)),
        Candidate::Raw => candidate::on_one_thread(subscribe_all(options)),
        _ if options.ends == Ends::Bytes => candidate::on_one_thread(subscribe_all(options)),
        _ => candidate::as_documented(subscribe_all(options)),
    }
}

async fn subscribe_all(options: &Subscribe) -> anyhow::Result<()> {
    let delivered = Delivered::new(options.subscribers);
    let at = options.at;
    let _kept: Box<dyn Any> = match (options.ends, options.candidate) {
        (Ends::Bytes, _) => Box::new(count_bytes(options, &delivered).await?),
        (Ends::Own, Candidate::Meshwork) => Box::new(meshwork::subscribe(at, &delivered).await?),
        (Ends::Own, Candidate::Nats) => Box::new(nats::subscribe(at, &delivered).await?),
        (Ends::Own, Candidate::Redis) => Box::new(redis::subscribe(at, &delivered).await?),
        (Ends::Own, candidate) => bail!("{candidate} has no subscribers of its own in this program"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    candidate::ready(listener.local_addr()?);
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
    tokio::select! { ended = tell => ended, ended = candidate::until_stdin_ends() => ended }
}

async fn count_bytes(options: &Subscribe, delivered: &Delivered) -> anyhow::Result<()> {
    for subscriber in 0..options.subscribers {
        let mut link = match options.candidate {
            Candidate::Raw => raw::counted_link(options.at).await?,
            Candidate::Meshwork => meshwork::counted_link(options.at, subscriber).await?,
            Candidate::Nats => nats::counted_link(options.at).await?,
            Candidate::Redis => redis::counted_link(options.at).await?,
            candidate => bail!("{candidate} has no events"),
        };
        let delivered = delivered.clone();
        tokio::spawn(async move {
            let mut read = BytesMut::new();
            loop {
                read.reserve(64 * 1024);
                let Ok(1..) = link.stream.read_buf(&mut read).await else { return };
                delivered.add(subscriber, link.event.take(&mut read));
            }
        });
    }
    Ok(())
}

/// Publishes for a while and prints the figures.
pub(crate) fn publish(options: &Publish) -> anyhow::Result<()> {
    let figures = match options.load.candidate {
        Candidate::Meshwork => candidate::on_actix(publish_all(options))?,
        Candidate::Raw => candidate::on_one_thread(publish_all(options))?,
        _ if options.ends == Ends::Bytes => candidate::on_one_thread(publish_all(options))?,
        _ => candidate::as_documented(publish_all(options))?,
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

async fn publish_all(options: &Publish) -> anyhow::Result<Figures> {
    let at = options.load.at;
    match (options.ends, options.load.candidate) {
        (Ends::Bytes, Candidate::Raw) => {
            publish_through(Written::new(raw::written_link(at).await?), options).await
        }
        (Ends::Bytes, Candidate::Meshwork) => {
            publish_through(Written::new(meshwork::written_link(at).await?), options).await
        }
        (Ends::Bytes, Candidate::Nats) => {
            publish_through(Written::new(nats::written_link(at).await?), options).await
        }
        (Ends::Bytes, Candidate::Redis) => {
            publish_through(Written::new(redis::written_link(at).await?), options).await
        }
        (Ends::Own, Candidate::Meshwork) => publish_through(meshwork::publisher(at).await?, options).await,
        (Ends::Own, Candidate::Nats) => publish_through(nats::publisher(at).await?, options).await,
        (Ends::Own, Candidate::Redis) => publish_through(redis::publisher(at).await?, options).await,
        (_, candidate) => bail!("{candidate} has no publisher in this program"),
    }
}

/// A publisher that writes the same bytes again and again. What the broker answers is read and thrown away.
struct Written {
    link: tokio::net::tcp::OwnedWriteHalf,
    event: Bytes,
    out: Vec<u8>,
}

impl Written {
    fn new(link: WrittenLink) -> Self {
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

async fn publish_through<P: Publisher>(mut publisher: P, options: &Publish) -> anyhow::Result<Figures> {
    let mut subscribers = TcpStream::connect(options.subscribers_at).await?;
    let slowest = Arc::new(AtomicU64::new(0));
    let told = Arc::new(tokio::sync::Notify::new());
    tokio::spawn({
        let (slowest, told) = (slowest.clone(), told.clone());
        async move {
            while let Ok(count) = subscribers.read_u64_le().await {
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
                // A timeout, since a dropped event would never be told and the end of the phase is not either.
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
        let rest = drive::Options { warm_up_seconds: 0.0, ..options.load.clone() };
        let (elapsed, client, servers) = phase.lead(&rest).await;
        (slowest.load(Ordering::Relaxed) - before, elapsed, client, servers)
    };
    let (published, (delivered, elapsed, client, servers)) = tokio::join!(publish, count);
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
    Ok(finish(delivered * options.subscribers as u64, elapsed, client, servers, Vec::new()))
}

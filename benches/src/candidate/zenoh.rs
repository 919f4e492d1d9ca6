//! zenoh: queryables as responders, between two peers or through a router, and its events through a router.
//!
//! Sessions do not look for each other by multicast or gossip: each is told where to listen or to connect. The set-up is that which the
//! documentation of zenoh advises where a call has one answer: a querier is declared once, replies are not consolidated, and a queryable
//! answers in its callback. zenoh brings runtimes of its own, with several threads, so there is no set-up with one thread.

use crate::client::Client;
use crate::drive::figures;
use crate::events::{Delivered, Publisher, TOPIC};
use crate::job::Route;
use crate::load::Load;
use crate::measure::Figures;
use crate::process::{free_address, ready, until_stdin_ends};
use crate::runtime::Tokio;
use anyhow::{Context as _, anyhow, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zenoh::Wait;
use zenoh::bytes::ZBytes;
use zenoh::pubsub::Subscriber;
use zenoh::qos::CongestionControl;
use zenoh::query::{ConsolidationMode, Querier, Query, Queryable};

const ADD: &str = "bench/add";
const ECHO: &str = "bench/echo";

/// How long the declarations of the far side may take to arrive here.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// The mode of a session.
#[derive(Clone, Copy)]
enum Mode {
    /// Talks to the peers that it connects to, or that connect to it.
    Peer(Endpoint),
    /// Passes on the messages of other sessions.
    Router(Endpoint),
    /// Talks to a router.
    Client(SocketAddr),
}

#[derive(Clone, Copy)]
enum Endpoint {
    Listen(SocketAddr),
    Connect(SocketAddr),
}

async fn open(mode: Mode) -> anyhow::Result<zenoh::Session> {
    let (mode, endpoint) = match mode {
        Mode::Peer(endpoint) => ("peer", endpoint),
        Mode::Router(endpoint) => ("router", endpoint),
        Mode::Client(at) => ("client", Endpoint::Connect(at)),
    };
    let (listen, connect) = match endpoint {
        Endpoint::Listen(at) => (format!("[\"tcp/{at}\"]"), "[]".to_owned()),
        Endpoint::Connect(at) => ("[]".to_owned(), format!("[\"tcp/{at}\"]")),
    };
    let mut config = zenoh::Config::default();
    for (key, value) in [
        ("mode", format!("{mode:?}").as_str()),
        ("listen/endpoints", &listen),
        ("connect/endpoints", &connect),
        ("scouting/multicast/enabled", "false"),
        ("scouting/gossip/enabled", "false"),
    ] {
        config.insert_json5(key, value).map_err(failed)?;
    }
    zenoh::open(config).await.map_err(failed)
}

/// An error of zenoh as an error of anyhow.
fn failed(error: zenoh::Error) -> anyhow::Error {
    anyhow!("zenoh: {error}")
}

/// The payload of an answer.
fn answer(query: &Query) -> Option<ZBytes> {
    let payload = query.payload()?;
    if query.key_expr().as_str() == ECHO {
        return Some(payload.clone());
    }
    let numbers = payload.to_bytes();
    let mut numbers = (numbers.len() == 8).then_some(&numbers[..])?;
    let sum = numbers.get_i32_le().wrapping_add(numbers.get_i32_le());
    Some(Bytes::copy_from_slice(&sum.to_le_bytes()).into())
}

async fn declare(session: &zenoh::Session) -> anyhow::Result<Vec<Queryable<()>>> {
    let mut kept = Vec::new();
    for key in [ADD, ECHO] {
        let queryable = session.declare_queryable(key).complete(true).callback(|query| {
            if let Some(payload) = answer(&query) {
                // A reply fails when the caller is gone, and no caller waits then.
                let _ = query.reply(query.key_expr().clone(), payload).wait();
            }
        });
        kept.push(queryable.await.map_err(failed)?);
    }
    Ok(kept)
}

/// Runs a peer that answers.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let at = free_address()?;
    let session = open(Mode::Peer(Endpoint::Listen(at))).await?;
    let _kept = declare(&session).await?;
    ready(at);
    until_stdin_ends().await
}

/// Runs a router.
pub(crate) async fn route() -> anyhow::Result<()> {
    let at = free_address()?;
    let _session = open(Mode::Router(Endpoint::Listen(at))).await?;
    ready(at);
    until_stdin_ends().await
}

/// Runs a client of a router that answers.
pub(crate) async fn provide(at: SocketAddr) -> anyhow::Result<()> {
    let session = open(Mode::Client(at)).await?;
    let _kept = declare(&session).await?;
    round_trip(&session).await?;
    ready(at);
    until_stdin_ends().await
}

/// Waits until the router has read all declarations of this session. The router reads the messages of a link in order, and answers a
/// query for a key that no session has by saying that no more replies come.
async fn round_trip(session: &zenoh::Session) -> anyhow::Result<()> {
    let replies = session.get("bench/nobody").await.map_err(failed)?;
    while replies.recv_async().await.is_ok() {}
    Ok(())
}

#[derive(Clone)]
struct ZenohClient(Arc<Queriers>);

struct Queriers {
    add: Querier<'static>,
    echo: Querier<'static>,
    _session: zenoh::Session,
}

impl Queriers {
    async fn new(session: zenoh::Session) -> anyhow::Result<Self> {
        let querier = |key| session.declare_querier(key).consolidation(ConsolidationMode::None);
        let add = querier(ADD).await.map_err(failed)?;
        let echo = querier(ECHO).await.map_err(failed)?;
        let began = Instant::now();
        for querier in [&add, &echo] {
            while !querier.matching_status().await.map_err(failed)?.matching() {
                ensure!(began.elapsed() < KNOWN_WITHIN, "nobody answers {}", querier.key_expr());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(Self { add, echo, _session: session })
    }
}

/// Queries, and takes the one reply that comes.
async fn ask(querier: &Querier<'static>, payload: Bytes) -> anyhow::Result<ZBytes> {
    let replies = querier.get().payload(payload).await.map_err(failed)?;
    let reply = replies.recv_async().await.ok().context("nobody replied")?;
    let sample = reply.into_result().map_err(|error| anyhow!("the reply is an error: {error:?}"))?;
    Ok(sample.payload().clone())
}

impl Client for ZenohClient {
    async fn add(&self, a: i32, b: i32) -> anyhow::Result<i32> {
        let mut numbers = BytesMut::with_capacity(8);
        numbers.put_i32_le(a);
        numbers.put_i32_le(b);
        let sum = ask(&self.0.add, numbers.freeze()).await?;
        let sum = sum.to_bytes();
        ensure!(sum.len() == 4, "a sum has four bytes");
        Ok((&sum[..]).get_i32_le())
    }

    async fn echo(&self, bytes: Bytes) -> anyhow::Result<usize> {
        Ok(ask(&self.0.echo, bytes).await?.len())
    }
}

/// Drives queriers, each of a session of its own.
pub(crate) async fn drive(load: &Load) -> anyhow::Result<Figures> {
    let mode = match load.route {
        Route::Direct => Mode::Peer(Endpoint::Connect(load.at)),
        Route::Relayed => Mode::Client(load.at),
    };
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        clients.push(ZenohClient(Arc::new(Queriers::new(open(mode).await?).await?)));
    }
    figures::<_, Tokio>(clients, load).await
}

/// Subscribers, each with a session of its own.
pub(crate) async fn subscribe(
    at: SocketAddr,
    delivered: &Delivered,
) -> anyhow::Result<Vec<(Subscriber<()>, zenoh::Session)>> {
    let mut kept = Vec::new();
    for number in 0..delivered.subscribers() {
        let session = open(Mode::Client(at)).await?;
        let delivered = delivered.clone();
        let subscriber = session.declare_subscriber(TOPIC).callback(move |_| delivered.add(number, 1));
        let subscriber = subscriber.await.map_err(failed)?;
        round_trip(&session).await?;
        kept.push((subscriber, session));
    }
    Ok(kept)
}

/// A client that publishes.
pub(crate) struct EventPublisher {
    publisher: zenoh::pubsub::Publisher<'static>,
    _session: zenoh::Session,
}

/// Connects a client that publishes. Where there is no room for an event it waits: by default zenoh would drop the event.
pub(crate) async fn publisher(at: SocketAddr) -> anyhow::Result<EventPublisher> {
    let session = open(Mode::Client(at)).await?;
    let publisher = session.declare_publisher(TOPIC).congestion_control(CongestionControl::Block);
    let publisher = publisher.await.map_err(failed)?;
    let began = Instant::now();
    while !publisher.matching_status().await.map_err(failed)?.matching() {
        ensure!(began.elapsed() < KNOWN_WITHIN, "nobody has subscribed to {TOPIC}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(EventPublisher { publisher, _session: session })
}

impl Publisher for EventPublisher {
    async fn publish(&mut self, event: &Bytes) -> anyhow::Result<()> {
        self.publisher.put(event.clone()).await.map_err(failed)
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        // zenoh writes by itself, on threads of its own.
        tokio::task::yield_now().await;
        Ok(())
    }
}

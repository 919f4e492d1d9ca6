//! The candidates and their jobs, in words that the command line, JSON and the table share.

use crate::measure::grouped;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A candidate: a library, broker or set-up that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Candidate {
    /// Frames over tokio, all frames in one task at each end: the rate that the sockets of the machine allow.
    Raw,
    /// The raw echo, whose threads poll for [`Candidate::busy_poll`] before they sleep.
    RawPolling,
    /// The frames of the raw echo, with a task, a oneshot and a slab entry for each call: the ceiling of any `call().await`.
    Rawtask,
    /// meshwork with its defaults.
    Meshwork,
    /// meshwork with busy polling switched on.
    MeshworkPolling,
    /// tarpc with bincode over TCP.
    Tarpc,
    /// tarpc on a runtime of one thread, which its documentation does not set up.
    TarpcOneThread,
    /// gRPC.
    Tonic,
    /// tonic on a runtime of one thread.
    TonicOneThread,
    /// JSON-RPC over WebSocket.
    Jsonrpsee,
    /// async-nats through a nats-server.
    Nats,
    /// async-nats on a runtime of one thread, through a nats-server.
    NatsOneThread,
    /// zenoh, from peer to peer or through its router.
    Zenoh,
    /// Redis and its publish and subscribe.
    Redis,
    /// dnode, on Node.js.
    Dnode,
    /// moleculer with its TCP transporter, on Node.js.
    Moleculer,
}

/// How long a candidate that polls does so before it sleeps.
const BUSY_POLL: Duration = Duration::from_micros(200);

impl Candidate {
    /// How long this candidate polls for the next frame instead of sleeping. Only two candidates poll, and they are compared only with
    /// each other: the gain of polling alone is several times the difference between any two peers.
    pub(crate) fn busy_poll(self) -> Duration {
        match self {
            Candidate::RawPolling | Candidate::MeshworkPolling => BUSY_POLL,
            _ => Duration::ZERO,
        }
    }

    /// Whether this candidate is meshwork, in one of its set-ups.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Candidate::Meshwork | Candidate::MeshworkPolling)
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Candidate::Raw => "raw echo",
            Candidate::RawPolling => "raw echo, polling",
            Candidate::Rawtask => "rawtask",
            Candidate::Meshwork => "meshwork",
            Candidate::MeshworkPolling => "meshwork, polling",
            Candidate::Tarpc => "tarpc",
            Candidate::TarpcOneThread => "tarpc (one thread)",
            Candidate::Tonic => "tonic",
            Candidate::TonicOneThread => "tonic (one thread)",
            Candidate::Jsonrpsee => "jsonrpsee",
            Candidate::Nats => "nats",
            Candidate::NatsOneThread => "nats (one thread)",
            Candidate::Zenoh => "zenoh",
            Candidate::Redis => "redis",
            Candidate::Dnode => "dnode",
            Candidate::Moleculer => "moleculer",
        })
    }
}

/// The part of a process of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Part {
    /// The process that clients connect to, and that answers.
    Server,
    /// The process that clients connect to, and that passes calls on.
    Broker,
    /// A process that connects to a broker, and answers.
    Provider,
}

/// The work of a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// `add(i32, i32)`.
    Add,
    /// 1,024 bytes, to the provider and back.
    #[value(name = "echo-1k")]
    #[serde(rename = "echo-1k")]
    Echo1K,
    /// 65,536 bytes, to the provider and back.
    #[value(name = "echo-64k")]
    #[serde(rename = "echo-64k")]
    Echo64K,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Work::Add => "add",
            Work::Echo1K => "echo 1 KiB",
            Work::Echo64K => "echo 64 KiB",
        })
    }
}

/// The route of a call to its provider.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Route {
    /// The process that the client connects to answers itself.
    Direct,
    /// A third process answers; the process that the client connects to passes the call on.
    Relayed,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Route::Direct => "direct",
            Route::Relayed => "relayed",
        })
    }
}

/// The form of a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// One call, one await, as users write it.
    Single,
    /// Many calls, one await: `call_many`.
    Many,
    /// A message to the branch's actor: `addr.send(Call)`.
    Message,
}

/// The publisher and the subscribers of events.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ends {
    /// The candidate's own client library.
    Own,
    /// A publisher that writes prepared bytes, and subscribers that count bytes, which leaves the cost of the broker.
    Bytes,
}

/// The items of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Item {
    /// 128 bytes.
    #[value(name = "bytes-128")]
    #[serde(rename = "bytes-128")]
    Bytes128,
    /// 65,536 bytes.
    #[value(name = "piece-64k")]
    #[serde(rename = "piece-64k")]
    Piece64K,
}

impl Item {
    /// How many bytes an item has.
    pub(crate) fn len(self) -> u32 {
        match self {
            Item::Bytes128 => 128,
            Item::Piece64K => 65_536,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Item::Bytes128 => "128 B",
            Item::Piece64K => "64 KiB",
        })
    }
}

/// The job of a cell of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Job {
    /// Calls, a number of them awaited at once on each of a number of connections.
    Call { work: Work, route: Route, form: Form, in_flight: usize, connections: usize, arbiters: usize },
    /// Single calls of `add` on one connection that come by chance, at this average rate a second.
    Open { rate_per_second: u32, route: Route },
    /// Events to a number of subscribers.
    Publish { subscribers: usize, ends: Ends },
    /// One stream without an end.
    Stream { item: Item, route: Route },
}

/// The rates of calls that come by chance, in calls a second, in the jobs that are measured.
pub(crate) const RATES_PER_SECOND: [u32; 3] = [1_000, 5_000, 20_000];

impl Job {
    /// Single calls on one connection.
    pub(crate) fn call(work: Work, route: Route, in_flight: usize) -> Self {
        Job::Call { work, route, form: Form::Single, in_flight, connections: 1, arbiters: 1 }
    }

    /// Direct calls of `add` on one connection, in this form.
    pub(crate) fn add_in_form(form: Form, in_flight: usize) -> Self {
        Job::Call { work: Work::Add, route: Route::Direct, form, in_flight, connections: 1, arbiters: 1 }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Job::Call { work, route, form, in_flight, connections, arbiters } => {
                write!(f, "{work}, {route}")?;
                match form {
                    Form::Single => {}
                    Form::Many => f.write_str(", call_many")?,
                    Form::Message => f.write_str(", addr.send")?,
                }
                if connections > 1 {
                    write!(f, ", {connections} branches")?;
                }
                if arbiters > 1 {
                    write!(f, ", {arbiters} arbiters")?;
                }
                write!(f, ", {in_flight} in flight")
            }
            Job::Open { rate_per_second, route } => {
                write!(
                    f,
                    "{}, {route}, {} a second by chance",
                    Work::Add,
                    grouped(f64::from(rate_per_second))
                )
            }
            Job::Publish { subscribers, ends } => {
                let ends = match ends {
                    Ends::Own => "own clients",
                    Ends::Bytes => "bytes",
                };
                write!(f, "publish 128 B to {subscribers}, {ends}")
            }
            Job::Stream { item, route } => write!(f, "stream of {item}, {route}"),
        }
    }
}

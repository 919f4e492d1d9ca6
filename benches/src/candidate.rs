//! The candidates: who they are, and how each of their processes is started.

mod jsonrpsee;
pub(crate) mod meshwork;
pub(crate) mod nats;
pub(crate) mod raw;
pub(crate) mod rawtask;
pub(crate) mod redis;
mod tarpc;
mod tonic;

use crate::client::{Form, Route};
use crate::drive::{Latencies, Options, Task};
use crate::measure::Figures;
use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Candidate {
    /// Frames over tokio, all of them in one task at each end: what the sockets of the machine allow.
    Raw,
    /// The same frames, with a task, a oneshot and a slab entry for each call: the ceiling of any `call().await`.
    Rawtask,
    /// This project.
    Meshwork,
    /// tarpc with bincode over TCP.
    Tarpc,
    /// The same on a runtime of one thread, which its documentation does not set up.
    TarpcOneThread,
    /// gRPC.
    Tonic,
    /// The same on a runtime of one thread.
    TonicOneThread,
    /// JSON-RPC over WebSocket.
    Jsonrpsee,
    /// async-nats through a nats-server.
    Nats,
    /// The same with clients on a runtime of one thread.
    NatsOneThread,
    /// Redis and its publish and subscribe.
    Redis,
    /// dnode, on Node.js.
    Dnode,
    /// moleculer with its TCP transporter, on Node.js.
    Moleculer,
}

/// What a process of a candidate is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Part {
    /// Is connected to, and answers.
    Server,
    /// Is connected to, and passes on.
    Broker,
    /// Connects to a broker, and answers.
    Provider,
}

/// What a server is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Serve {
    /// Whose server.
    pub(crate) candidate: Candidate,
    /// Which part.
    #[arg(long, default_value = "server")]
    pub(crate) part: Part,
    /// Where the broker is: for a provider.
    #[arg(long)]
    pub(crate) at: Option<SocketAddr>,
    /// Over how many arbiters meshwork's master spreads its sessions.
    #[arg(long, default_value_t = 1)]
    pub(crate) arbiters: usize,
}

impl Serve {
    /// Where the broker is.
    pub(crate) fn broker(&self) -> anyhow::Result<SocketAddr> {
        self.at.context("a provider needs --at, the address of its broker")
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Candidate::Raw => "raw echo",
            Candidate::Rawtask => "rawtask",
            Candidate::Meshwork => "meshwork",
            Candidate::Tarpc => "tarpc",
            Candidate::TarpcOneThread => "tarpc (one thread)",
            Candidate::Tonic => "tonic",
            Candidate::TonicOneThread => "tonic (one thread)",
            Candidate::Jsonrpsee => "jsonrpsee",
            Candidate::Nats => "nats",
            Candidate::NatsOneThread => "nats (one thread)",
            Candidate::Redis => "redis",
            Candidate::Dnode => "dnode",
            Candidate::Moleculer => "moleculer",
        })
    }
}

/// Runs the server, broker or provider of a candidate until stdin ends.
pub(crate) fn serve(options: &Serve) -> anyhow::Result<()> {
    match (options.candidate, options.part) {
        (Candidate::Raw | Candidate::Rawtask, Part::Server) => on_one_thread(raw::serve()),
        (Candidate::Raw, Part::Broker) => on_one_thread(raw::fan_out()),
        (Candidate::Meshwork, _) => on_actix(meshwork::serve(options)),
        (Candidate::Tarpc, Part::Server) => as_documented(tarpc::serve()),
        (Candidate::TarpcOneThread, Part::Server) => on_one_thread(tarpc::serve()),
        (Candidate::Tonic, Part::Server) => as_documented(tonic::serve()),
        (Candidate::TonicOneThread, Part::Server) => on_one_thread(tonic::serve()),
        (Candidate::Jsonrpsee, Part::Server) => as_documented(jsonrpsee::serve()),
        (Candidate::Nats, Part::Provider) => as_documented(nats::provide(options.broker()?)),
        (Candidate::NatsOneThread, Part::Provider) => on_one_thread(nats::provide(options.broker()?)),
        (candidate, part) => bail!("{candidate} has no {part:?} in this program"),
    }
}

/// Connects the clients of a candidate and drives them.
pub(crate) fn drive(options: &Options) -> anyhow::Result<Figures> {
    if options.form != Form::Single && options.candidate != Candidate::Meshwork {
        bail!("only meshwork has {:?}", options.form);
    }
    match (options.candidate, options.route) {
        (Candidate::Raw, Route::Direct) => on_one_thread(raw::drive(options)),
        (Candidate::Rawtask, Route::Direct) => on_one_thread(rawtask::drive(options)),
        (Candidate::Meshwork, _) => on_actix(meshwork::drive(options)),
        (Candidate::Tarpc, Route::Direct) => as_documented(tarpc::drive(options)),
        (Candidate::TarpcOneThread, Route::Direct) => on_one_thread(tarpc::drive(options)),
        (Candidate::Tonic, Route::Direct) => as_documented(tonic::drive(options)),
        (Candidate::TonicOneThread, Route::Direct) => on_one_thread(tonic::drive(options)),
        (Candidate::Jsonrpsee, Route::Direct) => as_documented(jsonrpsee::drive(options)),
        (Candidate::Nats, Route::Relayed) => as_documented(nats::drive(options)),
        (Candidate::NatsOneThread, Route::Relayed) => on_one_thread(nats::drive(options)),
        (candidate, route) => bail!("{candidate} has no {route:?} client in this program"),
    }
}

/// What `#[tokio::main]` makes: a runtime with a thread for each processor. So the documentation of every peer sets it up.
pub(crate) fn as_documented<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(work)
}

/// A runtime with one thread. With one connection and two processors most are faster on it than as documented.
pub(crate) fn on_one_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// An actix system, as the users of meshwork have it.
pub(crate) fn on_actix<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    actix::System::new().block_on(work)
}

/// Tells whoever started this process that it is ready, and where.
pub(crate) fn ready(address: impl fmt::Display) {
    println!("ready {address}");
}

/// Waits until whoever started this process lets go of it.
pub(crate) async fn until_stdin_ends() -> anyhow::Result<()> {
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    Ok(())
}

/// How users of tokio start a task.
pub(crate) fn on_tokio(task: Task) -> JoinHandle<Latencies> {
    tokio::spawn(task)
}

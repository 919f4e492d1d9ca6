//! The candidates: how the processes of each are started. Each candidate has a file of its own below; the code that candidates share
//! stands further below, in `load.rs`, `drive.rs`, `events.rs` and `items.rs`.

mod jsonrpsee;
pub(crate) mod meshwork;
pub(crate) mod nats;
pub(crate) mod raw;
pub(crate) mod raw_broker;
mod raw_frame;
mod rawtask;
pub(crate) mod redis;
mod tarpc;
pub(crate) mod tonic;
pub(crate) mod zenoh;

use crate::job::{Candidate, Form, Part, Route};
use crate::load::Load;
use crate::runtime::{as_documented, on_actix, on_one_thread};
use anyhow::{Context as _, bail};
use std::net::SocketAddr;

/// The options of a server.
#[derive(clap::Args, Debug)]
pub(crate) struct Serve {
    /// The candidate.
    candidate: Candidate,
    /// The part of this process.
    #[arg(long, default_value = "server")]
    part: Part,
    /// The address of the broker, for a provider.
    #[arg(long)]
    at: Option<SocketAddr>,
    /// The number of arbiters that the meshwork master spreads its sessions over.
    #[arg(long, default_value_t = 1)]
    arbiters: usize,
}

/// Runs the server, broker or provider of a candidate until stdin ends.
pub(crate) fn serve(options: &Serve) -> anyhow::Result<()> {
    let broker = || options.at.context("a provider needs --at, the address of its broker");
    let (arbiters, busy_poll) = (options.arbiters, options.candidate.busy_poll());
    match (options.candidate, options.part) {
        (Candidate::Raw | Candidate::RawPolling | Candidate::Rawtask, Part::Server) => {
            on_one_thread(raw::serve(busy_poll))
        }
        (Candidate::Raw | Candidate::RawPolling, Part::Broker) => on_one_thread(raw_broker::serve(busy_poll)),
        (Candidate::Raw | Candidate::RawPolling, Part::Provider) => {
            on_one_thread(raw::provide(broker()?, busy_poll))
        }
        (Candidate::Meshwork | Candidate::MeshworkPolling, Part::Server) => {
            on_actix(meshwork::serve(arbiters, busy_poll))
        }
        (Candidate::Meshwork | Candidate::MeshworkPolling, Part::Broker) => {
            on_actix(meshwork::relay(arbiters, busy_poll))
        }
        (Candidate::Meshwork | Candidate::MeshworkPolling, Part::Provider) => {
            on_actix(meshwork::provide(broker()?, busy_poll))
        }
        (Candidate::Tarpc, Part::Server) => as_documented(tarpc::serve()),
        (Candidate::TarpcOneThread, Part::Server) => on_one_thread(tarpc::serve()),
        (Candidate::Tonic, Part::Server) => as_documented(tonic::serve()),
        (Candidate::TonicOneThread, Part::Server) => on_one_thread(tonic::serve()),
        (Candidate::Jsonrpsee, Part::Server) => as_documented(jsonrpsee::serve()),
        (Candidate::Nats, Part::Provider) => as_documented(nats::provide(broker()?)),
        (Candidate::NatsOneThread, Part::Provider) => on_one_thread(nats::provide(broker()?)),
        (Candidate::Zenoh, Part::Server) => as_documented(zenoh::serve()),
        (Candidate::Zenoh, Part::Broker) => as_documented(zenoh::route()),
        (Candidate::Zenoh, Part::Provider) => as_documented(zenoh::provide(broker()?)),
        (candidate, part) => bail!("{candidate} has no {part:?} in this program"),
    }
}

/// Connects the clients of a candidate, drives them and prints their figures.
pub(crate) fn drive(load: &Load) -> anyhow::Result<()> {
    if load.form != Form::Single && !load.candidate.is_ours() {
        bail!("only meshwork has {:?}", load.form);
    }
    let figures = match (load.candidate, load.route) {
        (Candidate::Raw | Candidate::RawPolling, _) => on_one_thread(raw::drive(load)),
        (Candidate::Rawtask, Route::Direct) => on_one_thread(rawtask::drive(load)),
        (Candidate::Meshwork | Candidate::MeshworkPolling, _) => on_actix(meshwork::drive(load)),
        (Candidate::Tarpc, Route::Direct) => as_documented(tarpc::drive(load)),
        (Candidate::TarpcOneThread, Route::Direct) => on_one_thread(tarpc::drive(load)),
        (Candidate::Tonic, Route::Direct) => as_documented(tonic::drive(load)),
        (Candidate::TonicOneThread, Route::Direct) => on_one_thread(tonic::drive(load)),
        (Candidate::Jsonrpsee, Route::Direct) => as_documented(jsonrpsee::drive(load)),
        (Candidate::Nats, Route::Relayed) => as_documented(nats::drive(load)),
        (Candidate::NatsOneThread, Route::Relayed) => on_one_thread(nats::drive(load)),
        (Candidate::Zenoh, _) => as_documented(zenoh::drive(load)),
        (candidate, route) => bail!("{candidate} has no {route:?} client in this program"),
    }?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

//! `meshwork master`: runs a master until it is asked to end, then drains it.

use super::{Done, Failure, Output, Signals, drain, read_duration, read_token};
use clap::{Args, ValueEnum};
use meshwork::prelude::*;
use meshwork::{Balance, OnNameTaken};
use serde_json::json;
use std::io::ErrorKind;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Options {
    /// Where to listen; port 0 takes a free one. May be given several times.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3010")]
    listen: Vec<String>,
    /// What the master is called.
    #[arg(long, default_value = "master")]
    name: String,
    /// Lets in only who shows the token in this file. Without it, MESHWORK_TOKEN is looked at.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What happens when a name is bound twice.
    #[arg(long, value_enum, default_value = "replace")]
    on_name_taken: Taken,
    /// Which of several providers of an action gets a request.
    #[arg(long, value_enum, default_value = "round-robin")]
    balance: Choice,
    /// Over how many arbiters, each with a thread, its sessions are spread.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    arbiters: u16,
    /// How often a branch must say something; after three silent beats it is given up.
    #[arg(long, value_parser = read_duration, default_value = "5s")]
    heartbeat: Duration,
    /// How long to finish what is in flight when asked to end. A second signal ends at once.
    #[arg(long, value_parser = read_duration, default_value = "10s")]
    drain_within: Duration,
}

#[derive(Clone, Copy, ValueEnum)]
enum Taken {
    /// The old one is told and stays away.
    Replace,
    /// The new one is refused.
    Refuse,
    /// Both stay, and share their calls.
    Share,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    RoundRobin,
    LeastInFlight,
    Random,
}

pub(super) async fn run(options: Options, output: &Output) -> Done {
    let mut signals = Signals::new()?;
    let mut master = MasterActor::new(options.name)
        .arbiters(usize::from(options.arbiters))
        .heartbeat(options.heartbeat)
        .on_name_taken(match options.on_name_taken {
            Taken::Replace => OnNameTaken::Replace,
            Taken::Refuse => OnNameTaken::Refuse,
            Taken::Share => OnNameTaken::Share,
        })
        .balance(match options.balance {
            Choice::RoundRobin => Balance::RoundRobin,
            Choice::LeastInFlight => Balance::LeastInFlight,
            Choice::Random => Balance::Random,
        });
    if let Some(token) = read_token(options.token_file.as_deref())? {
        master = master.token(token);
    }
    let actor = master.start();
    for address in options.listen {
        let listening = actor.send(Listen::tcp(address)).await;
        let address = listening
            .map_err(|_| Failure::Bind("the master ended before it listened".to_owned()))?
            .map_err(|error| match error.source.kind() {
                ErrorKind::AddrInUse => {
                    Failure::Use(format!("{error}; name another with --listen, port 0 takes a free one"))
                }
                _ => Failure::Use(error.to_string()),
            })?;
        let line = if output.json {
            json!({ "listening": address.as_str() }).to_string()
        } else {
            format!("listening on {address}")
        };
        output.line(&line)?;
    }
    signals.next().await;
    drain(&Master::from(actor), options.drain_within, &mut signals).await
}

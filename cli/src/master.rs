//! `meshwork master`: runs a master until it is asked to end, then drains it.

use crate::bridge::{Foreign, Protocol, Results};
use crate::failure::{Done, Failure};
use crate::input::{read_duration, read_token};
use crate::outlet::Printer;
use crate::output::{Output, unprinted};
use crate::signals::{Signals, drain};
use crate::tls::{ListenFlags, Reloaded, reload_at_hangup};
use clap::{Args, ValueEnum};
use log::Level;
use meshwork::limits::BUSY_POLL_WITHIN_MAX;
use meshwork::link::Transport;
use meshwork::prelude::*;
use meshwork::repeated::Line;
use meshwork::{Allowed, Balance, OnNameTaken, Pattern, log_line};
use serde_json::json;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Args)]
pub(super) struct Options {
    /// The address to listen on for branches; port 0 takes a free port. May be given several times.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3010")]
    listen: Vec<String>,
    /// The address to listen on for programs of another protocol: light-rpc, dnode or node-mesh, as in `dnode=127.0.0.1:5555`.
    /// May be given several times. Programs of node-mesh show the token, as branches do. light-rpc and dnode have no
    /// authentication: any program that reaches the address may call the actions that --gateway-allow allows.
    #[arg(long, value_name = "PROTOCOL=HOST:PORT")]
    gateway: Vec<Foreign>,
    /// The arguments that the result callbacks of dnode clients are called with.
    #[arg(long, value_enum, default_value = "result")]
    dnode_results: Results,
    /// The actions that programs of other protocols may see and call, as a pattern such as `public/**`. May be given several times.
    /// Default: all actions.
    #[arg(long, value_name = "PATTERN")]
    gateway_allow: Vec<Allow>,
    /// The name of the master in the mesh.
    #[arg(long, default_value = "master")]
    name: String,
    /// A file with the token that branches must show. Default: the token in MESHWORK_TOKEN; if that is not set either, branches need
    /// no token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: ListenFlags,
    /// What happens when a branch binds under a name that another branch has.
    #[arg(long, value_enum, default_value = "refuse")]
    on_name_taken: Taken,
    /// How a request is given to one of several providers of its action.
    #[arg(long, value_enum, default_value = "round-robin")]
    balance: Choice,
    /// The number of arbiters, each with a thread, that the sessions of the master are spread over.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    arbiters: u16,
    /// How long a thread polls for the next frame before it sleeps, where frames have nearly always come that soon. 200us is
    /// worth it where calls follow each other without a pause. At most 10ms; 0s never polls.
    #[arg(long, value_parser = read_busy_poll, default_value = "0s")]
    busy_poll: Duration,
    /// How often a branch sends a heartbeat. After three heartbeats without a word from a branch, its link is given up.
    #[arg(long, value_parser = read_duration, default_value = "5s")]
    heartbeat: Duration,
    /// How long requests in flight may take to finish when the master is asked to end. A second signal ends the master at once.
    #[arg(long, value_parser = read_duration, default_value = "10s")]
    drain_within: Duration,
}

fn read_busy_poll(text: &str) -> Result<Duration, String> {
    let longest = BUSY_POLL_WITHIN_MAX;
    match read_duration(text)? {
        within if within <= longest => Ok(within),
        _ => Err(format!("a thread stays awake for at most {longest:?}")),
    }
}

#[derive(Clone)]
struct Allow(Pattern);

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Pattern::new(text).map(Self).map_err(|error| error.to_string())
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Taken {
    /// The old branch is told so, and ends.
    Replace,
    /// The new branch is refused, unless it asks to replace the old one.
    Refuse,
    /// Both branches stay, and share their calls.
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
    let printer = Printer::start().map_err(unprinted)?;
    let mut master = MasterActor::new(options.name)
        .arbiters(usize::from(options.arbiters))
        .busy_poll(options.busy_poll)
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
    let tls = options.tls.read()?;
    reload_at_hangup(tls.clone().map(Reloaded::Listen).into_iter().collect())?;
    let actor = master.start();
    let allowed = match options.gateway_allow {
        none if none.is_empty() => Allowed::all(),
        patterns => Allowed::only(patterns.into_iter().map(|Allow(pattern)| pattern)),
    };
    let native = options.listen.into_iter().map(|address| (Listen::tcp(address), "meshwork"));
    let style = options.dnode_results.into();
    let gateways = options.gateway.into_iter().map(|Foreign { protocol, address }| match protocol {
        Protocol::LightRpc => (Listen::light_rpc(address).allow(allowed.clone()), "light-rpc"),
        Protocol::Dnode => (Listen::dnode(address).allow(allowed.clone()).results(style), "dnode"),
        Protocol::NodeMesh => (Listen::node_mesh(address).allow(allowed.clone()), "node-mesh"),
    });
    for (listen, protocol) in native.chain(gateways) {
        let tls = tls.as_ref().filter(|_| listen.address().transport() != Transport::Plain);
        let listen = match tls {
            Some(tls) => listen.tls(tls),
            None => listen,
        };
        let listening = actor.send(listen).await;
        let address = listening
            .map_err(|_| Failure::Bind("the master ended before it listened".to_owned()))?
            .map_err(|error| match error.source.kind() {
                ErrorKind::AddrInUse => {
                    Failure::Use(format!("{error}; name another with --listen, port 0 takes a free one"))
                }
                _ if error.address.transport() == Transport::Tls && tls.is_none() => {
                    Failure::Use(format!("{error}, with --tls-cert and --tls-key"))
                }
                _ => Failure::Use(error.to_string()),
            })?;
        let line = if output.json {
            json!({ "listening": address.as_str(), "protocol": protocol, "tls": tls.is_some() }).to_string()
        } else {
            let protocol = if protocol == "meshwork" { String::new() } else { format!(" for {protocol}") };
            let tls = if tls.is_some() { " with TLS" } else { "" };
            format!("listening on {address}{protocol}{tls}")
        };
        let printed = printer.print(line + "\n");
        // A mesh does not depend on the reader of a line.
        actix::spawn(async move {
            if let Err(error) = printed.await {
                log_line!(Line::own(Level::Warn), "stdout cannot be written: {error}");
            }
        });
    }
    signals.next().await;
    drain(&Master::from(actor), options.drain_within, &mut signals).await
}

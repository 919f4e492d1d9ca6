//! `meshwork master`: runs a master until it is asked to end, then drains it.

use crate::bridge::{Foreign, Protocol, Results};
use crate::config::{Allow, Arbiters, BusyPoll, Choice, Config, Long, Taken};
use crate::failure::{Done, Failure};
use crate::input::{TOKEN, read_identities, read_token};
use crate::outlet::Printer;
use crate::output::{Output, unprinted};
use crate::signals::{Reload, Signals, drain};
use crate::tls::{ListenFlags, Reloaded, add_to};
use clap::Args;
use log::Level;
use meshwork::limits::{BUSY_POLL_WITHIN, DRAIN_WITHIN, HEARTBEAT_EVERY};
use meshwork::link::Transport;
use meshwork::prelude::*;
use meshwork::repeated::Line;
use meshwork::{Allowed, Balance, OnNameTaken, log_line};
use serde_json::json;
use std::io::ErrorKind;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Options {
    /// A TOML file that says what these flags say, with `_` for `-`, as in `listen = ["0.0.0.0:3010"]`, and in its table `[limits]` the bounds of
    /// the master. A flag counts before the file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Reads the files that the master is given, says whether they are right, and ends.
    #[arg(long)]
    check: bool,
    /// The address to listen on for branches; port 0 takes a free port. May be given several times. Default: 127.0.0.1:3010.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<Vec<String>>,
    /// The address to listen on for programs of another protocol: light-rpc, dnode or node-mesh, as in `dnode=127.0.0.1:5555`.
    /// May be given several times. Programs of node-mesh show the token, as branches do. light-rpc and dnode have no
    /// authentication: any program that reaches the address may call the actions that --gateway-allow allows.
    #[arg(long, value_name = "PROTOCOL=HOST:PORT")]
    gateway: Option<Vec<Foreign>>,
    /// The arguments that the result callbacks of dnode clients are called with. Default: result.
    #[arg(long, value_enum)]
    dnode_results: Option<Results>,
    /// The actions that programs of other protocols may see and call, as a pattern such as `public/**`. May be given several times.
    /// Default: all actions.
    #[arg(long, value_name = "PATTERN")]
    gateway_allow: Option<Vec<Allow>>,
    /// The identity of the programs of light-rpc and dnode, where the master has identities. Default: anonymous.
    #[arg(long, value_name = "NAME")]
    gateway_identity: Option<String>,
    /// The name of the master in the mesh. Default: master.
    #[arg(long)]
    name: Option<String>,
    /// A file with the token that all branches must show. Default: the token in MESHWORK_TOKEN; if that is not set either, branches need
    /// no token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: ListenFlags,
    /// A TOML file with the identities of the mesh: their tokens, names and permissions. Then each branch shows the token of its identity, and
    /// nothing is permitted that the file does not permit. SIGHUP reads the file again. `meshwork token` makes a token.
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    identities: Option<PathBuf>,
    /// What happens when a branch binds under a name that another branch has. Default: refuse.
    #[arg(long, value_enum)]
    on_name_taken: Option<Taken>,
    /// How a request is given to one of several providers of its action. Default: least-of-two.
    #[arg(long, value_enum)]
    balance: Option<Choice>,
    /// The number of arbiters, each with a thread, that the sessions of the master are spread over. Default: 1.
    #[arg(long, value_name = "N")]
    arbiters: Option<Arbiters>,
    /// How long a thread polls for the next frame before it sleeps, where frames have nearly always come that soon. 200us is
    /// worth it where calls follow each other without a pause. At most 10ms; 0s never polls. Default: 0s.
    #[arg(long)]
    busy_poll: Option<BusyPoll>,
    /// How often a branch sends a heartbeat. After three heartbeats without a word from a branch, its link is given up. Default: 5s.
    #[arg(long)]
    heartbeat: Option<Long>,
    /// How long requests in flight may take to finish when the master is asked to end. A second signal ends the master at once. Default: 10s.
    #[arg(long)]
    drain_within: Option<Long>,
}

pub(super) async fn run(options: Options, output: &Output) -> Done {
    let mut signals = Signals::new()?;
    let printer = Printer::start().map_err(unprinted)?;
    let config = options.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let busy_poll =
        options.busy_poll.or(config.busy_poll).map_or(BUSY_POLL_WITHIN, |BusyPoll(within)| within);
    let heartbeat = options.heartbeat.or(config.heartbeat).map_or(HEARTBEAT_EVERY, |Long(every)| every);
    let drain_within =
        options.drain_within.or(config.drain_within).map_or(DRAIN_WITHIN, |Long(within)| within);
    let arbiters = options.arbiters.or(config.arbiters).map_or(1, |Arbiters(count)| count);
    let mut master = MasterActor::new(options.name.or(config.name).unwrap_or_else(|| "master".to_owned()))
        .limits(config.limits)
        .arbiters(usize::from(arbiters))
        .busy_poll(busy_poll)
        .heartbeat(heartbeat)
        .on_name_taken(match options.on_name_taken.or(config.on_name_taken).unwrap_or(Taken::Refuse) {
            Taken::Replace => OnNameTaken::Replace,
            Taken::Refuse => OnNameTaken::Refuse,
            Taken::Share => OnNameTaken::Share,
        })
        .balance(match options.balance.or(config.balance).unwrap_or(Choice::LeastOfTwo) {
            Choice::RoundRobin => Balance::RoundRobin,
            Choice::LeastOfTwo => Balance::LeastOfTwo,
            Choice::LeastLatency => Balance::LeastLatency,
            Choice::LeastInFlight => Balance::LeastInFlight,
            Choice::Random => Balance::Random,
        });
    let (token_file, identities) = match (options.token_file, options.identities) {
        // What a flag says about tokens takes the place of all that the file says about them.
        (None, None) => (config.token_file, config.identities),
        of_flags => of_flags,
    };
    if token_file.is_some() && identities.is_some() {
        let why = "each identity has tokens of its own: name token_file or identities, not both";
        return Err(Failure::Use(why.to_owned()));
    }
    if let Some(file) = &identities {
        // The token of the environment is that of the clients that run here.
        master = master.identities(read_identities(file)?);
    } else if let Some(token) = read_token(token_file.as_deref(), TOKEN)? {
        master = master.token(token);
    }
    let tls = options.tls.or([config.tls_cert, config.tls_key, config.tls_client_ca]).read()?;
    if options.check {
        let line = if output.json {
            json!({ "checked": true }).to_string()
        } else {
            "the files are right".to_owned()
        };
        return output.line(&line);
    }
    let actor = master.start();
    let mut reload = Reload::default();
    add_to(&mut reload, tls.clone().map(Reloaded::Listen).into_iter().collect());
    if let Some(file) = identities {
        let running = Master::from(&actor);
        reload.add(format!("the identities of {}", file.display()), move || {
            let (running, file) = (running.clone(), file.clone());
            async move {
                // A disk that hangs holds up no call.
                let read = tokio::task::spawn_blocking(move || read_identities(&file)).await;
                let read = read.map_err(|error| error.to_string())?;
                let identities = read.map_err(|failure| failure.to_string())?;
                running.set_identities(identities).await.map_err(|error| error.to_string())
            }
        });
    }
    reload.start()?;
    let allowed = match options.gateway_allow.or(config.gateway_allow) {
        None => Allowed::all(),
        Some(patterns) => Allowed::only(patterns.into_iter().map(|Allow(pattern)| pattern)),
    };
    let listen = options.listen.or(config.listen).unwrap_or_else(|| vec!["127.0.0.1:3010".to_owned()]);
    let native = listen.into_iter().map(|address| (Listen::tcp(address), "meshwork"));
    let style = options.dnode_results.or(config.dnode_results).unwrap_or(Results::Result).into();
    let identity = options.gateway_identity.or(config.gateway_identity);
    let gateways = options.gateway.or(config.gateway).unwrap_or_default();
    let gateways = gateways.into_iter().map(|Foreign { protocol, address }| {
        let (listen, protocol) = match protocol {
            Protocol::LightRpc => (Listen::light_rpc(address), "light-rpc"),
            Protocol::Dnode => (Listen::dnode(address).results(style), "dnode"),
            Protocol::NodeMesh => (Listen::node_mesh(address), "node-mesh"),
        };
        let listen = listen.allow(allowed.clone());
        (identity.clone().into_iter().fold(listen, Listen::identity), protocol)
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
    drain(&Master::from(actor), drain_within, &mut signals).await
}

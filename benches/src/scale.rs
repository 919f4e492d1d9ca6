//! The cost of many idle connections, actions, subscriptions, and binds one after another.

use crate::candidate::meshwork::{self, bind};
use crate::candidate::nats;
use crate::measure::{cpu_time, grouped, memory_kib};
use crate::process::{Process, myself, output, ready, until_stdin_ends};
use crate::programs::nats_server;
use crate::runtime::{on_actix, on_one_thread};
use ::meshwork::prelude::*;
use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many idle connections are held.
const IDLE: usize = 10_000;

/// How many idle connections are opened at a time.
const OPENING: usize = 64;

/// How long the idle connections are watched.
const IDLE_FOR: Duration = Duration::from_secs(20);

/// How many actions and how many subscriptions there are.
const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];

/// How many branches bind one after another.
const BINDS: usize = 1_000;

/// The options of a process of this part.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The part of the process.
    what: What,
    /// The address of the master or the nats-server.
    #[arg(long)]
    at: SocketAddr,
    /// How many connections, actions or subscriptions.
    #[arg(long, default_value_t = IDLE)]
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum What {
    /// Hold idle branches.
    Branches,
    /// Hold idle connections to a nats-server.
    NatsConnections,
    /// Call actions of which there are more and more, and print how many calls a second that were.
    Actions,
    /// Publish to subscribers of which there are more and more, and print how many events a second that were.
    Subscriptions,
    /// Bind one branch after another, and print the time that each bind took.
    Binds,
}

/// The results.
#[derive(Serialize)]
pub(crate) struct Report {
    idle_branches: Idle,
    idle_nats_connections: Idle,
    curves: Curves,
}

/// The cost of idle connections.
#[derive(Serialize)]
struct Idle {
    count: usize,
    /// Memory of the server for each idle connection, in KiB.
    kib_each: f64,
    /// Processor time of the server for all idle connections together, in thousandths of one processor.
    cpu_permille: f64,
}

#[derive(Serialize)]
struct Curves {
    /// For each number of actions at one branch: relayed calls of random actions a second, 64 in flight.
    calls_by_actions: Vec<(usize, f64)>,
    /// For each number of subscriptions with patterns: events a second to topics that one subscription matches.
    events_by_subscriptions: Vec<(usize, f64)>,
    /// Branches that bind one after another: microseconds each, the mean of each hundred.
    bind_us_by_hundred: Vec<f64>,
}

impl Report {
    /// Memory of the master for each of its idle branches, in KiB.
    pub(crate) fn idle_branch_kib(&self) -> f64 {
        self.idle_branches.kib_each
    }
}

/// Runs a process of this part.
pub(crate) fn scale(options: &Options) -> anyhow::Result<()> {
    match options.what {
        What::Branches => on_one_thread(async {
            let opened = futures::stream::iter(0..options.count)
                .map(|number| meshwork::hold(options.at, format!("idle-{number}")))
                .buffer_unordered(OPENING);
            opened.try_collect::<()>().await?;
            ready(options.at);
            until_stdin_ends().await
        }),
        What::NatsConnections => on_one_thread(async {
            for _ in 0..options.count {
                nats::hold(options.at).await?;
            }
            ready(options.at);
            until_stdin_ends().await
        }),
        What::Actions => print(&on_actix(async {
            let mut rates = Vec::new();
            for size in SIZES {
                let rate = calls(options.at, size).await.with_context(|| format!("{size} actions"))?;
                rates.push((size, rate));
            }
            Ok(rates)
        })?),
        What::Subscriptions => print(&on_actix(async {
            let mut rates = Vec::new();
            for size in SIZES {
                let rate = events(options.at, size).await.with_context(|| format!("{size} subscriptions"))?;
                rates.push((size, rate));
            }
            Ok(rates)
        })?),
        What::Binds => print(&on_one_thread(binds(options.at))?),
    }
}

/// Measures all of it.
pub(crate) fn measure() -> anyhow::Result<Report> {
    let master = || {
        let mut command = with_many_files(myself()?);
        command.args(["serve", "meshwork", "--part", "broker"]);
        Process::start(command)
    };
    eprintln!("{IDLE} idle branches");
    let idle_branches = idle(&master()?, "branches")?;
    eprintln!("{IDLE} idle connections to nats-server");
    let idle_nats_connections = idle(&nats_server()?, "nats-connections")?;
    let curve = |what: &str| {
        eprintln!("more and more {what}");
        let master = master()?;
        let mut command = with_many_files(myself()?);
        command.args(["scale", what, "--at", &master.address.to_string()]);
        output(command, Duration::from_secs(120)).with_context(|| format!("no curve of {what}"))
    };
    let curves = Curves {
        calls_by_actions: serde_json::from_str(&curve("actions")?)?,
        events_by_subscriptions: serde_json::from_str(&curve("subscriptions")?)?,
        bind_us_by_hundred: serde_json::from_str(&curve("binds")?)?,
    };
    Ok(Report { idle_branches, idle_nats_connections, curves })
}

fn print(curve: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(curve)?);
    Ok(())
}

fn idle(server: &Process, what: &str) -> anyhow::Result<Idle> {
    let before = memory_kib(server.pid(), "VmRSS");
    let mut command = with_many_files(myself()?);
    command.args(["scale", what, "--at", &server.address.to_string(), "--count", &IDLE.to_string()]);
    let holding = Process::start(command)?;
    let cpu = cpu_time(server.pid());
    std::thread::sleep(IDLE_FOR);
    let cpu = cpu_time(server.pid()).saturating_sub(cpu);
    let after = memory_kib(server.pid(), "VmRSS");
    drop(holding);
    Ok(Idle {
        count: IDLE,
        kib_each: after.saturating_sub(before) as f64 / IDLE as f64,
        cpu_permille: cpu.as_secs_f64() / IDLE_FOR.as_secs_f64() * 1000.0,
    })
}

/// The command, with a higher limit of open files for all its connections: a shell raises the limit and executes the command.
fn with_many_files(command: Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 65536 2>/dev/null || ulimit -n $(ulimit -H -n); exec \"$0\" \"$@\""]);
    shell.arg(command.get_program());
    shell
}

/// Links that are bound one after another, and stay. Their frames are written by hand: a thousand branches in one process would show the
/// cost of a thousand action caches, and not the cost of a bind for the mesh.
async fn binds(at: SocketAddr) -> anyhow::Result<Vec<f64>> {
    let mut us_by_hundred = Vec::new();
    for hundred in 0..BINDS / 100 {
        let start = Instant::now();
        for number in 0..100 {
            meshwork::hold(at, format!("newcomer-{hundred}-{number}")).await?;
        }
        us_by_hundred.push(start.elapsed().as_secs_f64() * 1e6 / 100.0);
    }
    Ok(us_by_hundred)
}

/// One branch offers a number of actions, and another branch calls them at random for a second.
async fn calls(at: SocketAddr, actions: usize) -> anyhow::Result<f64> {
    let mut provider = BranchActor::new(format!("provider-{actions}")).busy_poll(Duration::ZERO);
    for number in 0..actions {
        provider =
            provider.respond(format!("of-{actions}/{number}"), |number: u64| async move { Ok(number) });
    }
    let _provider = provider.bind(at).await?;
    let caller = bind(at, format!("caller-{actions}")).await?;
    let end = Instant::now() + Duration::from_secs(1);
    let tasks: Vec<_> = (0..64_u64)
        .map(|task| {
            let caller = caller.clone();
            actix_rt::spawn(async move {
                let (mut random, mut count) = (task.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, 0_u64);
                while Instant::now() < end {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let action = format!("of-{actions}/{}", random % actions as u64);
                    let back: u64 = caller.call(action, random).await?;
                    ensure!(back == random, "another number came back");
                    count += 1;
                }
                Ok(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(count as f64)
}

/// One branch has a number of subscriptions, and another branch publishes, for a second, to topics that one subscription matches.
async fn events(at: SocketAddr, subscriptions: usize) -> anyhow::Result<f64> {
    let subscriber = bind(at, format!("subscriber-{subscriptions}")).await?;
    let heard = Arc::new(AtomicU64::new(0));
    let mut kept = Vec::new();
    for chunk in (0..subscriptions).collect::<Vec<_>>().chunks(512) {
        let mut subscribing = FuturesUnordered::new();
        for number in chunk {
            let heard = heard.clone();
            let count = move |_: Event<u64>| {
                heard.fetch_add(1, Ordering::Relaxed);
            };
            subscribing.push(subscriber.subscribe(format!("at-{subscriptions}/{number}/*"), count));
        }
        while let Some(subscription) = subscribing.next().await {
            kept.push(subscription?);
        }
    }
    let publisher = bind(at, format!("publisher-{subscriptions}")).await?;
    let start = Instant::now();
    let (mut published, mut random) = (0_u64, 88_172_645_463_325_252_u64);
    while start.elapsed() < Duration::from_secs(1) {
        for _ in 0..256 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let topic = format!("at-{subscriptions}/{}/event", random % subscriptions as u64);
            publisher.publish(topic, &published).await?;
            published += 1;
        }
        // No more events than this are on their way, so that none is dropped.
        while published - heard.load(Ordering::Relaxed) > 2048 {
            tokio::task::yield_now().await;
            ensure!(start.elapsed() < Duration::from_secs(20), "events were lost");
        }
    }
    Ok(heard.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (whose, idle) in
            [("branches", &self.idle_branches), ("connections to nats-server", &self.idle_nats_connections)]
        {
            writeln!(
                f,
                "{} idle {whose}: {:.1} KiB each, {:.1} thousandths of a processor together",
                grouped(idle.count as f64),
                idle.kib_each,
                idle.cpu_permille
            )?;
        }
        for (size, rate) in &self.curves.calls_by_actions {
            let (size, rate) = (grouped(*size as f64), grouped(*rate));
            writeln!(f, "{size:>8} actions: {rate} calls a second, relayed, of random ones")?;
        }
        for (size, rate) in &self.curves.events_by_subscriptions {
            let (size, rate) = (grouped(*size as f64), grouped(*rate));
            writeln!(f, "{size:>8} subscriptions: {rate} events a second that one of them matches")?;
        }
        let binds: Vec<_> = self.curves.bind_us_by_hundred.iter().map(|us| format!("{us:.0}")).collect();
        write!(f, "{BINDS} binds one after another, us each, by hundreds: {}", binds.join(" "))
    }
}

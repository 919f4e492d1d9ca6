//! The closed loop that every client runs: so many tasks, each calling, awaiting and calling again.

use crate::candidate::{self, Candidate};
use crate::client::{Client, Form, Route, Work};
use crate::measure::{Figures, cpu_time, percentiles_us};
use anyhow::{Context as _, ensure};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// What a client is told.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Whose client.
    pub(crate) candidate: Candidate,
    /// Where the server is.
    #[arg(long)]
    pub(crate) at: SocketAddr,
    /// What to ask.
    #[arg(long, default_value = "add")]
    pub(crate) work: Work,
    /// Whom.
    #[arg(long, default_value = "direct")]
    pub(crate) route: Route,
    /// How.
    #[arg(long, default_value = "single")]
    pub(crate) form: Form,
    /// How many calls are awaited at once, on each connection.
    #[arg(long, default_value_t = 1)]
    pub(crate) in_flight: usize,
    /// How many connections.
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// How long calls are made before anything is counted.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) warm_up_seconds: f64,
    /// How long is counted.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// The processes of the other side, whose time is counted too.
    #[arg(long, value_delimiter = ',')]
    pub(crate) watch: Vec<u32>,
}

/// The phases after the warm-up, which is 0.
const COUNTING: u8 = 1;
const OVER: u8 = 2;

/// What all tasks of a client look at: whether calls count by now, and when to end.
#[derive(Clone, Default)]
pub(crate) struct Phase(Arc<AtomicU8>);

impl Phase {
    pub(crate) fn is_counting(&self) -> bool {
        self.0.load(Ordering::Relaxed) == COUNTING
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OVER
    }

    /// Lets the loops warm up, count and end. Gives how long they counted, and the processor times of client and servers.
    pub(crate) async fn lead(&self, options: &Options) -> (Duration, Duration, Duration) {
        let times = || {
            let servers: Duration = options.watch.iter().map(|pid| cpu_time(*pid)).sum();
            (Instant::now(), cpu_time(std::process::id()), servers)
        };
        tokio::time::sleep(Duration::from_secs_f64(options.warm_up_seconds)).await;
        self.0.store(COUNTING, Ordering::Relaxed);
        let before = times();
        tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
        self.0.store(OVER, Ordering::Relaxed);
        let after = times();
        (after.0 - before.0, after.1.saturating_sub(before.1), after.2.saturating_sub(before.2))
    }
}

/// Connects the candidate's client, drives it and prints its figures.
pub(crate) fn drive(options: &Options) -> anyhow::Result<()> {
    let figures = candidate::drive(options)?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// What one loop measured, in nanoseconds.
pub(crate) type Latencies = anyhow::Result<Vec<u32>>;

/// One loop, to be started as a task.
pub(crate) type Task = Pin<Box<dyn Future<Output = Latencies> + Send>>;

/// Drives these clients, one for each connection. `spawn` is how the candidate's users start a task.
pub(crate) async fn figures<C: Client>(
    clients: Vec<C>,
    options: &Options,
    spawn: fn(Task) -> JoinHandle<Latencies>,
) -> anyhow::Result<Figures> {
    let phase = Phase::default();
    let mut tasks = Vec::new();
    for client in clients {
        match options.form {
            Form::Many => {
                let (phase, options) = (phase.clone(), options.clone());
                tasks.push(spawn(Box::pin(async move { many(&client, &options, &phase).await })));
            }
            Form::Single | Form::Message => {
                for _ in 0..options.in_flight {
                    let (client, phase, work) = (client.clone(), phase.clone(), options.work);
                    tasks.push(spawn(Box::pin(async move { single(&client, work, &phase).await })));
                }
            }
        }
    }
    let (elapsed, client, servers) = phase.lead(options).await;
    let mut latencies = Vec::new();
    for task in tasks {
        let ended = tokio::time::timeout(Duration::from_secs(15), task).await;
        latencies.extend(ended.context("a call never ended")?.context("a task panicked")??);
    }
    ensure!(!latencies.is_empty(), "no call ended within {elapsed:?}");
    let count = latencies.len() as u64;
    Ok(finish(count, elapsed, client, servers, percentiles_us(latencies)))
}

/// Puts the figures of a client together.
pub(crate) fn finish(
    count: u64,
    elapsed: Duration,
    client: Duration,
    servers: Duration,
    latencies_us: Vec<f64>,
) -> Figures {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    Figures {
        count,
        seconds: elapsed.as_secs_f64(),
        client_cpu_us: each(client),
        server_cpu_us: each(servers),
        latencies_us,
        server_memory_kib: 0,
    }
}

/// Nanoseconds, for which four bytes last four seconds; what took longer counts as that.
pub(crate) fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

async fn single<C: Client>(client: &C, work: Work, phase: &Phase) -> anyhow::Result<Vec<u32>> {
    let bytes = work.bytes();
    let mut latencies = Vec::new();
    let mut number = 0i32;
    let mut start = Instant::now();
    while !phase.is_over() {
        match work {
            Work::Add => {
                number = number.wrapping_add(1) & 0xFFFF;
                let sum = client.add(number, 1).await?;
                ensure!(sum == number + 1, "{number} + 1 is not {sum}");
            }
            Work::Echo1K | Work::Echo64K => {
                let len = client.echo(bytes.clone()).await?;
                ensure!(len == bytes.len(), "{len} bytes came back");
            }
        }
        let end = Instant::now();
        if phase.is_counting() {
            latencies.push(nanoseconds(end - start));
        }
        start = end;
    }
    Ok(latencies)
}

async fn many<C: Client>(client: &C, options: &Options, phase: &Phase) -> anyhow::Result<Vec<u32>> {
    let bytes = options.work.bytes();
    let mut latencies = Vec::new();
    let mut start = Instant::now();
    while !phase.is_over() {
        let right = client.many(options.work, options.in_flight, &bytes).await?;
        ensure!(right == options.in_flight, "{right} of {} calls were right", options.in_flight);
        let end = Instant::now();
        if phase.is_counting() {
            latencies.extend(std::iter::repeat_n(nanoseconds(end - start), right));
        }
        start = end;
    }
    Ok(latencies)
}

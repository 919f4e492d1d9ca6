//! The load of a client: what it is told to do, its phases, and how its figures come together. The loops that put the load on
//! a candidate stand above: `closed_loop.rs`, `open_loop.rs`, `events.rs`, and the raw echo's own.

use crate::job::{Candidate, Form, Route, Work};
use crate::measure::{Figures, cpu_time, percentiles_us};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// What a client is told.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Load {
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
    /// Calls come by chance, so many a second on average, whatever is in flight.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "in_flight")]
    pub(crate) rate_per_second: Option<u32>,
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

/// How long the counting phase took, and the processor time that was spent in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    /// Of this process.
    pub(crate) client: Duration,
    /// Of the processes on the other side together.
    pub(crate) servers: Duration,
}

impl Phase {
    pub(crate) fn is_counting(&self) -> bool {
        self.0.load(Ordering::Relaxed) == COUNTING
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OVER
    }

    /// Lets the loops warm up, count and end.
    pub(crate) async fn lead(&self, load: &Load) -> Spent {
        let times = || {
            let servers: Duration = load.watch.iter().map(|pid| cpu_time(*pid)).sum();
            (Instant::now(), cpu_time(std::process::id()), servers)
        };
        tokio::time::sleep(Duration::from_secs_f64(load.warm_up_seconds)).await;
        self.0.store(COUNTING, Ordering::Relaxed);
        let before = times();
        tokio::time::sleep(Duration::from_secs_f64(load.seconds)).await;
        self.0.store(OVER, Ordering::Relaxed);
        let after = times();
        Spent {
            elapsed: after.0 - before.0,
            client: after.1.saturating_sub(before.1),
            servers: after.2.saturating_sub(before.2),
        }
    }
}

impl Spent {
    /// The figures of a client that made calls, one latency each, in nanoseconds.
    pub(crate) fn on_calls(self, latencies: Vec<u32>) -> Figures {
        let count = latencies.len() as u64;
        Figures { latencies_us: percentiles_us(latencies), ..self.on_events(count) }
    }

    /// The figures of a client whose events were delivered so many times.
    pub(crate) fn on_events(self, count: u64) -> Figures {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        Figures {
            count,
            seconds: self.elapsed.as_secs_f64(),
            client_cpu_us: each(self.client),
            server_cpu_us: each(self.servers),
            latencies_us: Vec::new(),
            server_memory_kib: 0,
        }
    }
}

/// Nanoseconds, for which four bytes last four seconds; what took longer counts as that.
pub(crate) fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

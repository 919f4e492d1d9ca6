//! The load of a client: its options, its phases, and how its figures come together. The loops that put the load on a candidate
//! stand above: `closed_loop.rs`, `open_loop.rs`, `events.rs`, `items.rs`, and the loop of the raw echo.

use crate::job::{Candidate, Form, Route, Work};
use crate::measure::{Figures, cpu_time, percentiles_us};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// The options of a client.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Load {
    /// The candidate.
    pub(crate) candidate: Candidate,
    /// The address of the server.
    #[arg(long)]
    pub(crate) at: SocketAddr,
    /// The work of each call.
    #[arg(long, default_value = "add")]
    pub(crate) work: Work,
    /// The route of each call.
    #[arg(long, default_value = "direct")]
    pub(crate) route: Route,
    /// The form of the calls.
    #[arg(long, default_value = "single")]
    pub(crate) form: Form,
    /// Calls come by chance, at this average rate a second, however many are in flight.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "in_flight")]
    pub(crate) rate_per_second: Option<u32>,
    /// How many calls are awaited at once, on each connection.
    #[arg(long, default_value_t = 1)]
    pub(crate) in_flight: usize,
    /// The number of connections.
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// How long calls are made before anything is counted.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) warm_up_seconds: f64,
    /// How long calls are counted.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// The processes of the server side, whose processor time is counted too.
    #[arg(long, value_delimiter = ',')]
    pub(crate) watch: Vec<u32>,
}

/// The phases after the warm-up, which is 0.
const COUNTING: u8 = 1;
const OVER: u8 = 2;

/// The phase, which all tasks of a client look at: whether calls count, and when to end.
#[derive(Clone, Default)]
pub(crate) struct Phase(Arc<AtomicU8>);

/// How long the counting phase took, and the processor time that was spent in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    /// Processor time of this process.
    pub(crate) client: Duration,
    /// Processor time of all processes of the server side together.
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

    /// The figures of a publisher whose events were delivered `count` times, or of a consumer that read so many items.
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

/// Nanoseconds in four bytes, which last four seconds; a longer time counts as four seconds.
pub(crate) fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

//! The open loop: calls that come by chance, at exponentially distributed gaps, however long the answers take. The calls of many
//! independent users come in this way, and neither end can tell when the next call comes.
//!
//! The latency of a call counts from the moment that the call was due: a delay of the loop itself, whose thread had other work, is a wait
//! of the caller too. All candidates get equal moments, from one seed.
//!
//! tokio's timers fire on whole milliseconds, and twenty calls are due in one. So the loop waits for a timer of the kernel with a file
//! descriptor (timerfd), through the epoll of its sockets: the timer fires on time, as the kernel allows such a timer no slack, and the
//! thread sleeps until then. Its cost in processor time of the client, one system call to set the timer and one wake-up, is in the
//! figures of every candidate, the raw echo too: a caller whose calls come from outside is woken for each call as well. A thread of its
//! own for the timer would keep the cost out of the figures, but would need a processor of a machine that has two, and both are taken.

use crate::client::{Client, ask, bytes};
use crate::job::Work;
use crate::load::{Load, Phase, nanoseconds};
use crate::measure::Figures;
use crate::runtime::Spawn;
use anyhow::{Context as _, ensure};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::task::TaskTracker;

/// Any number; the moments follow from it.
const SEED: u64 = 20_251_125;

/// How long the calls in flight may take to end when the loop is over.
const END_WITHIN: Duration = Duration::from_secs(15);

/// The moments at which calls are due.
pub(crate) struct Arrivals {
    gaps: Gaps,
    next: Instant,
    timer: AsyncFd<OwnedFd>,
    /// The moment that the timer is set to.
    set_to: Option<Instant>,
}

impl Arrivals {
    /// The first call is due one gap from now.
    pub(crate) fn new(rate_per_second: u32) -> anyhow::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("no timer")?;
        #[expect(
            deprecated,
            reason = "what took its place is unsafe, for types that may lie about their descriptor: an OwnedFd cannot"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        let mut gaps = Gaps::new(rate_per_second);
        let next = Instant::now() + gaps.next();
        Ok(Self { gaps, next, timer, set_to: None })
    }

    /// Waits until a call may be due; [`Arrivals::due`] says whether one is. May be dropped and called again.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<()> {
        if self.set_to != Some(self.next) {
            // A timer that is set to zero is switched off, so what is due already is due in a nanosecond.
            let left = self.next.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
            let time = Itimerspec { it_interval: Timespec::default(), it_value: left.try_into()? };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
            self.set_to = Some(self.next);
        }
        // The timer is never read: setting it anew takes back that it fired.
        self.timer.readable().await?.clear_ready();
        Ok(())
    }

    /// Takes the moment of the next call, if it was due by now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Instant> {
        if self.next > now {
            return None;
        }
        let due = self.next;
        self.next += self.gaps.next();
        Some(due)
    }
}

/// The gaps between calls that come by chance.
struct Gaps {
    random: fastrand::Rng,
    mean_seconds: f64,
}

impl Gaps {
    fn new(rate_per_second: u32) -> Self {
        Self { random: fastrand::Rng::with_seed(SEED), mean_seconds: f64::from(rate_per_second).recip() }
    }

    fn next(&mut self) -> Duration {
        // The random number may be 0 and is never 1, so its difference to 1 has a logarithm.
        let chance = 1.0 - self.random.f64();
        Duration::from_secs_f64(-chance.ln() * self.mean_seconds)
    }
}

/// The outcomes of the calls of a loop so far.
#[derive(Default)]
struct Outcomes {
    /// The latencies of the calls that were due while calls counted, in nanoseconds.
    latencies: Vec<u32>,
    /// The error of the first call that failed.
    failure: Option<anyhow::Error>,
}

/// Drives this client. The number of calls in flight is bounded only by the calls of the run.
pub(crate) async fn figures<C: Client, S: Spawn>(
    client: C,
    rate_per_second: u32,
    load: &Load,
) -> anyhow::Result<Figures> {
    let phase = Phase::default();
    let outcomes = Arc::<Mutex<Outcomes>>::default();
    let calling = S::spawn(call_by_chance::<C, S>(
        client,
        load.work,
        Arrivals::new(rate_per_second)?,
        phase.clone(),
        outcomes.clone(),
    ));
    let spent = phase.lead(load).await;
    let calls = calling.await.context("the loop panicked")??;
    calls.tracker.close();
    tokio::time::timeout(END_WITHIN, calls.tracker.wait()).await.context("a call never ended")?;
    let outcomes = std::mem::take(&mut *outcomes.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(failure) = outcomes.failure {
        return Err(failure);
    }
    let answered = outcomes.latencies.len();
    ensure!(answered == calls.counted, "{answered} of {} calls were answered", calls.counted);
    ensure!(answered > 0, "no call was due within {:?}", spent.elapsed);
    Ok(spent.on_calls(outcomes.latencies))
}

/// The calls that a loop has started.
struct Calls {
    tracker: TaskTracker,
    /// How many calls were due while calls counted.
    counted: usize,
}

/// Starts a task for each call when it is due, until the phases are over.
async fn call_by_chance<C: Client, S: Spawn>(
    client: C,
    work: Work,
    mut arrivals: Arrivals,
    phase: Phase,
    outcomes: Arc<Mutex<Outcomes>>,
) -> anyhow::Result<Calls> {
    let bytes = bytes(work);
    let mut calls = Calls { tracker: TaskTracker::new(), counted: 0 };
    let mut number = 0i32;
    while !phase.is_over() {
        arrivals.wait().await?;
        let now = Instant::now();
        while let Some(due) = arrivals.due(now) {
            number = number.wrapping_add(1);
            let counts = phase.is_counting();
            calls.counted += usize::from(counts);
            let (client, bytes, outcomes) = (client.clone(), bytes.clone(), outcomes.clone());
            S::spawn(calls.tracker.track_future(async move {
                let answered = ask(&client, work, number, &bytes).await;
                let latency = nanoseconds(due.elapsed());
                let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                match answered {
                    Ok(()) if counts => outcomes.latencies.push(latency),
                    Ok(()) => {}
                    Err(error) => {
                        outcomes.failure.get_or_insert(error);
                    }
                }
            }));
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_as_often_as_asked_and_by_chance() {
        let mut gaps = Gaps::new(1_000);
        let gaps: Vec<_> = std::iter::repeat_with(|| gaps.next().as_secs_f64()).take(100_000).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.001).abs() < 0.000_02, "{mean}");
        // Of exponentially distributed gaps, the share that is longer than the mean is 1 / e.
        let longer = gaps.iter().filter(|gap| **gap > 0.001).count() as f64 / gaps.len() as f64;
        assert!((longer - 0.368).abs() < 0.01, "{longer}");
        let again: Vec<_> = {
            let mut gaps = Gaps::new(1_000);
            std::iter::repeat_with(|| gaps.next().as_secs_f64()).take(100).collect()
        };
        assert_eq!(again, gaps[..100], "every candidate gets the same moments");
    }

    #[tokio::test]
    async fn a_call_is_due_once_and_not_before_its_moment() {
        let mut arrivals = Arrivals::new(10_000).expect("a timer");
        let (began, mut last, mut count) = (Instant::now(), None, 0);
        while count < 100 {
            arrivals.wait().await.expect("the timer fires");
            let now = Instant::now();
            while let Some(due) = arrivals.due(now) {
                assert!(due <= now && last.is_none_or(|last| last <= due));
                (last, count) = (Some(due), count + 1);
            }
        }
        assert!(began.elapsed() >= Duration::from_millis(5), "a hundred calls take ten milliseconds");
    }
}

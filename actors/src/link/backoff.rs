//! How long a branch waits before it binds again: twice as long each time, with jitter, so that the branches of a lost master do not
//! all come back at once.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use meshwork_wire::limits::{BACKOFF_MAX, BACKOFF_MIN};
use std::time::Duration;

/// The waits between binds, without an end.
#[derive(Debug)]
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    waits: ExponentialBackoff,
    max: Duration,
}

impl Backoff {
    /// Waits from `min` on, doubled up to `max`. By chance, each wait is up to twice as long.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(min)
            .with_max_delay(max)
            .without_max_times()
            .with_jitter()
            // Without a seed of its own, every branch would wait equally long.
            .with_jitter_seed(fastrand::u64(..));
        Self { builder, waits: builder.build(), max }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        self.waits.next().unwrap_or(self.max)
    }

    /// Lets the next wait be the shortest again, after a bind.
    pub(crate) fn reset(&mut self) {
        self.waits = self.builder.build();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(BACKOFF_MIN, BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
        let waits: Vec<_> = (0..50).map(|_| backoff.next()).collect();
        assert!(waits[0] >= Duration::from_millis(10) && waits[0] <= Duration::from_millis(20));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(200)));
        assert!(waits[49] >= Duration::from_millis(100));
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(20));
    }

    #[test]
    fn two_branches_do_not_wait_equally_long() {
        let (mut one, mut other) = (Backoff::default(), Backoff::default());
        assert!((0..10).any(|_| one.next() != other.next()));
    }
}

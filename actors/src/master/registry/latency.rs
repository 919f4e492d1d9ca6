//! How long a provider takes for a request, on the average of the last seconds. It is measured without a clock for each request: by the law
//! of Little, requests that are in flight for so long in all, divided by those that were answered, is what each took. A provider that stalls
//! answers none, so its latency rises as long as it has requests, without an answer that would tell.
//!
//! A failure is no answer: a provider that fails at once does not look fast. A stream is answered when it begins, and counts as in flight until then.

use meshwork_wire::limits::LATENCY_OVER;
use std::time::{Duration, Instant};

/// The requests of a provider, over the last [`LATENCY_OVER`].
#[derive(Debug)]
pub(crate) struct Latency {
    /// When the requests were last looked at.
    seen: Instant,
    /// How many were in flight since.
    in_flight: usize,
    /// For how long requests were in flight, all together, in seconds.
    waited: f64,
    /// How many were answered.
    answered: f64,
}

impl Latency {
    pub(crate) fn new(now: Instant) -> Self {
        Self { seen: now, in_flight: 0, waited: 0.0, answered: 0.0 }
    }

    /// Notes that so many requests were answered since the last look, and so many are in flight from now on. Gives the latency; none before a
    /// request came.
    #[expect(clippy::cast_precision_loss, reason = "there are not so many requests")]
    pub(crate) fn look(&mut self, now: Instant, answered: usize, in_flight: usize) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        let left = (-passed / LATENCY_OVER.as_secs_f64()).exp();
        self.waited = self.waited * left + self.in_flight as f64 * passed;
        self.answered = self.answered * left + answered as f64;
        (self.seen, self.in_flight) = (self.seen.max(now), in_flight);
        if self.waited <= 0.0 && self.answered <= 0.0 {
            return None;
        }
        // Fewer than one were answered: those in flight have taken so long already.
        Some(Duration::try_from_secs_f64(self.waited / self.answered.max(1.0)).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Lets a provider answer one request after the other, each in so long, with so many in flight.
    fn answer(
        latency: &mut Latency,
        now: &mut Instant,
        each: Duration,
        at_once: usize,
        count: usize,
    ) -> Duration {
        latency.look(*now, 0, at_once);
        let mut last = None;
        for _ in 0..count {
            *now += each;
            last = latency.look(*now, at_once, at_once);
        }
        latency.look(*now, 0, 0);
        last.expect("it has answered")
    }

    #[track_caller]
    fn about(latency: Duration, expected: Duration) {
        let ratio = latency.as_secs_f64() / expected.as_secs_f64();
        assert!((0.8..1.25).contains(&ratio), "{latency:?}, not {expected:?}");
    }

    #[test]
    fn the_latency_is_what_a_request_takes_however_many_are_in_flight() {
        for at_once in [1, 7, 64] {
            let mut now = Instant::now();
            let mut latency = Latency::new(now);
            assert_eq!(latency.look(now, 0, 0), None);
            about(answer(&mut latency, &mut now, ms(20), at_once, 200), ms(20));
        }
    }

    #[test]
    fn the_latency_follows_a_change_within_seconds() {
        let mut now = Instant::now();
        let mut latency = Latency::new(now);
        about(answer(&mut latency, &mut now, ms(5), 4, 2_000), ms(5));
        about(answer(&mut latency, &mut now, ms(100), 4, 200), ms(100));
        let faster = answer(&mut latency, &mut now, ms(5), 4, 6_000);
        assert!(faster < ms(7), "{faster:?}");
    }

    #[test]
    fn a_provider_that_stalls_becomes_slower_without_an_answer() {
        let mut now = Instant::now();
        let mut latency = Latency::new(now);
        answer(&mut latency, &mut now, ms(5), 1, 100);
        latency.look(now, 0, 10);
        let mut before = ms(6);
        for _ in 0..10 {
            now += ms(500);
            let latency = latency.look(now, 0, 10).expect("it has answered before");
            assert!(latency > before, "{latency:?}, not more than {before:?}");
            before = latency;
        }
        assert!(before > ms(400), "{before:?}");
    }

    #[test]
    fn times_that_repeat_or_go_back_do_no_harm() {
        let now = Instant::now();
        let mut latency = Latency::new(now);
        for _ in 0..3 {
            assert!(latency.look(now, 1, 5).is_some_and(|it| it == Duration::ZERO));
            latency.look(now.checked_sub(ms(1)).unwrap_or(now), usize::MAX, usize::MAX);
        }
        assert!(latency.look(now + Duration::from_secs(1_000_000), 0, 0).is_some());
    }
}

//! The rest of a provider that fails in a row. A provider whose requests fail one after the other, without a reply in between, gets no
//! requests for a while, as long as another provider of the action takes them; then one request at a time tries whether it works again.
//! Only failures that are the provider's own count: a panic, a deadline that passed while it had the request, a lost actor, and a refusal
//! for want of room where it has nothing else to do. An error of the application is a reply, and so is a stream that begins.
//!
//! This decides; `handle.rs` holds it beside the session of the provider, and `session.rs` tells it the outcomes. Time comes in.

use meshwork_wire::Code;
use meshwork_wire::limits::FAILING_FOR_MIN;
use std::time::{Duration, Instant};

/// When a provider has a rest, and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RestBounds {
    /// After so many failures in a row; zero: never.
    pub(crate) failed_in_row_max: usize,
    /// The first rest.
    pub(crate) min: Duration,
    /// The longest rest.
    pub(crate) max: Duration,
}

/// The failures of a provider since its last reply.
#[derive(Default, Debug)]
pub(crate) struct Row {
    failed: usize,
    /// When the first of these failures came.
    since: Option<Instant>,
    /// How many rests it had since its last reply.
    rests: u32,
    /// When its rest is over.
    until: Option<Instant>,
}

/// What an outcome says about its provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It works.
    Works,
    /// It has failed.
    Failed,
    /// Nothing.
    Nothing,
}

impl Verdict {
    /// What an error that the branch of a provider said tells about it. `is_busy` says whether it has other requests.
    pub(crate) fn of(code: Code, is_busy: bool) -> Self {
        match code {
            Code::PANICKED | Code::PROVIDER_LOST => Verdict::Failed,
            // One that is full gives place soon; one that is idle and takes nothing does not work.
            Code::OVERLOADED if !is_busy => Verdict::Failed,
            Code::OVERLOADED | Code::DRAINING | Code::ACTION_NOT_FOUND | Code::CANNOT_DECODE => {
                Verdict::Nothing
            }
            // The error of an application, or of what it called.
            _ => Verdict::Works,
        }
    }
}

impl Row {
    /// Takes a failure; gives how long the provider has a rest from now on, if it does.
    pub(crate) fn failed(&mut self, bounds: RestBounds, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        self.failed = self.failed.saturating_add(1);
        // Outcomes of requests that were sent before the rest, or while all others rest too, make it no longer.
        if bounds.failed_in_row_max == 0 || self.until.is_some_and(|until| now < until) {
            return None;
        }
        let is_long = self.failed >= bounds.failed_in_row_max
            && now.saturating_duration_since(since) >= FAILING_FOR_MIN;
        if self.rests == 0 && !is_long {
            return None;
        }
        let factor = 1_u32.checked_shl(self.rests).unwrap_or(u32::MAX);
        let rest = bounds.min.saturating_mul(factor).min(bounds.max.max(bounds.min));
        self.rests = self.rests.saturating_add(1);
        self.until = now.checked_add(rest);
        Some(rest)
    }

    /// Takes a reply: the row is over. Says whether the provider had rests in it.
    pub(crate) fn replied(&mut self) -> bool {
        std::mem::take(self).rests > 0
    }

    /// Whether the provider has not failed since its last reply.
    pub(crate) fn is_empty(&self) -> bool {
        self.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::limits::{FAILED_IN_ROW_MAX, REST_MAX, REST_MIN};
    use proptest::prelude::*;

    const BOUNDS: RestBounds =
        RestBounds { failed_in_row_max: FAILED_IN_ROW_MAX, min: REST_MIN, max: REST_MAX };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_provider_rests_after_so_many_failures_in_a_row_and_twice_as_long_each_time() {
        let (mut row, mut now) = (Row::default(), Instant::now());
        for _ in 1..FAILED_IN_ROW_MAX {
            now += ms(50);
            assert_eq!(row.failed(BOUNDS, now), None);
        }
        let mut rests = Vec::new();
        for _ in 0..8 {
            now += ms(50);
            let rest = row.failed(BOUNDS, now).expect("it has failed once more");
            assert_eq!(row.failed(BOUNDS, now + rest / 2), None, "it rests already");
            now += rest;
            rests.push(rest.as_secs());
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert!(row.replied() && row.is_empty());
        assert_eq!(row.failed(BOUNDS, now), None, "a reply begins a new row");
    }

    #[test]
    fn failures_that_come_at_once_are_no_row() {
        let (mut row, now) = (Row::default(), Instant::now());
        for _ in 0..10 * FAILED_IN_ROW_MAX {
            assert_eq!(row.failed(BOUNDS, now), None);
        }
        assert!(row.failed(BOUNDS, now + FAILING_FOR_MIN).is_some());
    }

    #[test]
    fn no_provider_rests_where_none_is_to() {
        let (mut row, now) = (Row::default(), Instant::now());
        let never = RestBounds { failed_in_row_max: 0, ..BOUNDS };
        assert!((0..1_000).all(|at| row.failed(never, now + ms(at)).is_none()));
    }

    #[test]
    fn an_error_of_the_application_is_a_reply() {
        for code in [Code::NOT_PERMITTED, Code::REQUEST_TIMEOUT, Code::UNKNOWN, Code::CANCELLED] {
            assert_eq!(Verdict::of(code, false), Verdict::Works, "{code}");
        }
        for (is_busy, verdict) in [(true, Verdict::Nothing), (false, Verdict::Failed)] {
            assert_eq!(Verdict::of(Code::OVERLOADED, is_busy), verdict);
            assert_eq!(Verdict::of(Code::PANICKED, is_busy), Verdict::Failed);
            assert_eq!(Verdict::of(Code::DRAINING, is_busy), Verdict::Nothing);
        }
    }

    proptest! {
        /// Whatever comes: no rest without a row of failures, none that is longer than it may be, none within another one.
        #[test]
        fn rests_are_bounded_and_follow_rows(steps in prop::collection::vec((any::<bool>(), 0_u64..400), 0..200)) {
            let (mut row, mut now) = (Row::default(), Instant::now());
            let (mut in_row, mut until) = (0, None);
            for (fails, pause) in steps {
                now += ms(pause);
                if !fails {
                    row.replied();
                    prop_assert!(row.is_empty());
                    (in_row, until) = (0, None);
                    continue;
                }
                in_row += 1;
                if let Some(rest) = row.failed(BOUNDS, now) {
                    prop_assert!(in_row >= FAILED_IN_ROW_MAX && rest >= REST_MIN && rest <= REST_MAX);
                    prop_assert!(until.is_none_or(|until| now >= until));
                    until = Some(now + rest);
                }
            }
        }
    }
}

//! The budget of retries: how many calls may be made again, so that retries cannot grow into a storm when everything fails. Each call pays a
//! part of a retry in, each retry takes a whole one out. Pure: time comes in as an argument.

use meshwork_wire::limits::{RETRIES_HELD_MAX, RETRIES_PER_SECOND};
use std::time::{Duration, Instant};

/// The parts of one retry: a budget counts whole numbers.
const RETRY: u64 = 1_000_000;

/// The retries that may be made.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    /// How many parts a call pays in.
    of_call: u64,
    /// How many parts a second pays in.
    of_second: u64,
    held: u64,
    held_max: u64,
    /// When the time was last paid in.
    paid_at: Option<Instant>,
}

impl Budget {
    /// A budget of this many retries for each call, and [`RETRIES_PER_SECOND`] besides. It holds [`RETRIES_HELD_MAX`] at most.
    ///
    /// # Panics
    ///
    /// When the number is negative or not finite: a mistake in the program.
    pub(crate) fn new(of_call: f64) -> Self {
        assert!(
            of_call.is_finite() && of_call >= 0.0,
            "a budget is a part of the calls, such as 0.2, and not {of_call}"
        );
        let held_max = u64::from(RETRIES_HELD_MAX) * RETRY;
        Self {
            // More than all that is held makes no difference.
            of_call: (of_call.min(f64::from(RETRIES_HELD_MAX)) * RETRY as f64) as u64,
            of_second: u64::from(RETRIES_PER_SECOND) * RETRY,
            held: u64::from(RETRIES_PER_SECOND) * RETRY,
            held_max,
            paid_at: None,
        }
    }

    /// The same budget with so many retries a second besides those of calls.
    pub(crate) fn at_least(mut self, per_second: u32) -> Self {
        self.of_second = u64::from(per_second) * RETRY;
        self.held = self.of_second.min(self.held_max);
        self
    }

    /// Pays a call in.
    pub(crate) fn call(&mut self) {
        self.held = (self.held + self.of_call).min(self.held_max);
    }

    /// Takes a retry out. `false` if there is none left.
    #[must_use]
    pub(crate) fn retry(&mut self, now: Instant) -> bool {
        self.pay_time(now);
        match self.held.checked_sub(RETRY) {
            Some(left) => {
                self.held = left;
                true
            }
            None => false,
        }
    }

    fn pay_time(&mut self, now: Instant) {
        let since = self.paid_at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let paid = u128::from(self.of_second) * since.as_micros() / 1_000_000;
        let paid = u64::try_from(paid).unwrap_or(u64::MAX);
        self.held = self.held.saturating_add(paid).min(self.held_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn five_calls_pay_for_a_retry_when_a_fifth_may_be_retried() {
        let (mut budget, now) = (Budget::new(0.2).at_least(0), Instant::now());
        assert!(!budget.retry(now), "nobody has paid");
        for _ in 0..3 {
            (0..4).for_each(|_| budget.call());
            assert!(!budget.retry(now));
            budget.call();
            assert!(budget.retry(now) && !budget.retry(now));
        }
    }

    #[test]
    fn a_caller_that_calls_seldom_may_retry_too() {
        let (mut budget, now) = (Budget::new(0.0), Instant::now());
        let taken = |budget: &mut Budget, now| (0..1_000).take_while(|_| budget.retry(now)).count();
        assert_eq!(taken(&mut budget, now), 10);
        assert_eq!(taken(&mut budget, now + Duration::from_millis(500)), 5);
        assert_eq!(taken(&mut budget, now + Duration::from_secs(3_600)), 100, "and a burst has a bound");
    }

    #[test]
    #[should_panic(expected = "such as 0.2")]
    fn a_budget_that_is_no_part_of_the_calls_is_a_mistake() {
        let _ = Budget::new(f64::NAN);
    }

    proptest! {
        /// However calls, retries and time come, and in whichever span of them.
        #[test]
        fn no_span_has_more_retries_than_its_calls_and_its_time_pay_for(
            ratio in 0.0..3.0_f64,
            per_second in 0..20_u32,
            steps in prop::collection::vec((0..20_u32, 0..5_000_u64, 0..50_u32), 1..60),
        ) {
            let mut budget = Budget::new(ratio).at_least(per_second);
            let (start, mut now) = (Instant::now(), Instant::now());
            let mut told = Vec::new();
            for (calls, millis, tries) in steps {
                now += Duration::from_millis(millis);
                (0..calls).for_each(|_| budget.call());
                let retries = (0..tries).filter(|_| budget.retry(now)).count();
                told.push((now - start, f64::from(calls), retries as f64));
            }
            for first in 0..told.len() {
                let (mut calls, mut retries) = (0.0, 0.0);
                let since = if first == 0 { Duration::ZERO } else { told[first - 1].0 };
                for (at, more, retried) in &told[first..] {
                    (calls, retries) = (calls + more, retries + retried);
                    let time = (*at - since).as_secs_f64() * f64::from(per_second);
                    let most = f64::from(RETRIES_HELD_MAX) + calls * ratio + time;
                    prop_assert!(retries <= most + 0.001, "{retries} retries, and {most} were paid for");
                }
            }
        }
    }
}

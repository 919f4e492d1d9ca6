//! How long a branch waits before it binds again: twice as long each time until a link has held, and by chance, so that the branches of a
//! lost master do not all come back at once. Pure: the caller says how long a link has held.

use meshwork_wire::limits::{BACKOFF_FLOOR, BACKOFF_MAX, BACKOFF_MIN};
use std::time::Duration;

/// The waits between binds, or between attempts at a call, without an end.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    /// The next wait is at most so long, and at least half of it.
    bound: Duration,
}

impl Backoff {
    /// Waits between `min` and twice `min` at first, and up to twice as long each time; in the end between half of `max` and `max`. No wait is
    /// shorter than `min` or longer than `max`. `min` is at least [`BACKOFF_FLOOR`], and `max` at least `min`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(BACKOFF_FLOOR);
        let max = max.max(min);
        Self { min, max, bound: first_bound(min, max) }
    }

    /// The next wait.
    #[expect(clippy::should_implement_trait, reason = "waits have no end, so an `Option` would say nothing")]
    pub fn next(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(self.max);
        let least = (bound / 2).max(self.min);
        // Chance covers half of the longest wait, too: there the branches of a master that was down for long meet.
        least + Duration::from_secs_f64((bound - least).as_secs_f64() * fastrand::f64()).min(bound - least)
    }

    /// Notes that a link is lost which had been bound for so long. After a link that held for the longest wait, the next wait is the shortest
    /// again: so links that are lost soon after each bind are not dialled more often than a master that is down.
    pub(crate) fn lost(&mut self, held: Duration) {
        if held >= self.max {
            self.bound = first_bound(self.min, self.max);
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(BACKOFF_MIN, BACKOFF_MAX)
    }
}

fn first_bound(min: Duration, max: Duration) -> Duration {
    min.saturating_mul(2).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIN: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(100);

    /// The longest waits were nearly twice `max`: chance came on top of it.
    #[test]
    fn waits_grow_from_the_shortest_to_the_longest_and_no_further() {
        for _ in 0..100 {
            let mut backoff = Backoff::new(MIN, MAX);
            for (least, most) in [(10, 20), (20, 40), (40, 80), (50, 100), (50, 100), (50, 100)] {
                let wait = backoff.next();
                let bounds = Duration::from_millis(least)..=Duration::from_millis(most);
                assert!(bounds.contains(&wait), "{wait:?} is not in {bounds:?}");
            }
        }
    }

    #[test]
    fn the_longest_waits_differ_by_half_of_the_longest() {
        let mut backoff = Backoff::new(MIN, MAX);
        let waits: Vec<_> = (0..1_000).map(|_| backoff.next()).skip(10).collect();
        assert!(waits.iter().any(|wait| *wait < MAX.mul_f64(0.6)));
        assert!(waits.iter().any(|wait| *wait > MAX.mul_f64(0.9)));
    }

    /// Each bind made the next wait the shortest again, so a link that was lost after each bind was dialled without a pause.
    #[test]
    fn only_a_link_that_held_for_the_longest_wait_makes_the_next_wait_the_shortest() {
        let mut backoff = Backoff::new(MIN, MAX);
        for _ in 0..10 {
            backoff.next();
            backoff.lost(MAX - Duration::from_millis(1));
        }
        assert!(backoff.next() >= MAX / 2);
        backoff.lost(MAX);
        assert!(backoff.next() <= 2 * MIN);
    }

    #[test]
    fn two_branches_do_not_wait_equally_long() {
        let (mut one, mut other) = (Backoff::default(), Backoff::default());
        assert!((0..10).any(|_| one.next() != other.next()));
    }

    proptest! {
        #[test]
        fn a_wait_is_within_its_bounds_whatever_they_are(min: Duration, max: Duration, waits in 0..200) {
            let mut backoff = Backoff::new(min, max);
            let min = min.max(BACKOFF_FLOOR);
            for _ in 0..waits {
                let wait = backoff.next();
                prop_assert!(wait >= min && wait <= max.max(min), "{wait:?}");
            }
        }
    }

    #[test]
    fn bounds_that_make_no_sense_still_leave_a_pause() {
        assert!(Backoff::new(Duration::ZERO, Duration::ZERO).next() >= BACKOFF_FLOOR);
        assert_eq!(Backoff::new(MAX, MIN).next(), MAX);
        let mut longest = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!((longest.next(), longest.next()), (Duration::MAX, Duration::MAX));
    }
}

//! When an actor that panicked is started again, and when no more; and what a node says of such actors in its snapshot. Pure: the task that runs
//! the actor brings the time, and waits.

use meshwork_wire::limits::{RESTART_AFTER_MAX, RESTART_AFTER_MIN, RESTARTS_MAX, RESTARTS_WITHIN};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often an actor that panics is started again, and after how long.
///
/// ```
/// # use meshwork_actors::answers::RestartPolicy;
/// # use std::time::Duration;
/// let policy = RestartPolicy::default().at_most(3, Duration::from_secs(10)).after(Duration::ZERO, Duration::from_secs(1));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestartPolicy {
    restarts_max: usize,
    within: Duration,
    after_min: Duration,
    after_max: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            restarts_max: RESTARTS_MAX,
            within: RESTARTS_WITHIN,
            after_min: RESTART_AFTER_MIN,
            after_max: RESTART_AFTER_MAX,
        }
    }
}

impl RestartPolicy {
    /// Starts the actor again so many times within this time; one panic more, and the actor is given up. Default: [`RESTARTS_MAX`] within
    /// [`RESTARTS_WITHIN`].
    #[must_use]
    pub fn at_most(self, restarts_max: usize, within: Duration) -> Self {
        Self { restarts_max, within, ..self }
    }

    /// The shortest wait before the actor is started again, and the longest: each panic within the time of [`RestartPolicy::at_most`] doubles
    /// the wait. Default: from [`RESTART_AFTER_MIN`] to [`RESTART_AFTER_MAX`].
    #[must_use]
    pub fn after(self, shortest: Duration, longest: Duration) -> Self {
        Self { after_min: shortest, after_max: longest.max(shortest), ..self }
    }
}

/// The panics of one actor.
#[derive(Debug)]
pub struct Restarts {
    policy: RestartPolicy,
    /// The moments of the panics that count, in order. As many as restarts are allowed.
    panics: VecDeque<Instant>,
}

/// What becomes of an actor that panicked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterPanic {
    /// It is started again after this time.
    StartAfter(Duration),
    /// It panicked too often.
    GiveUp,
}

impl Restarts {
    /// No panic yet.
    #[must_use]
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, panics: VecDeque::new() }
    }

    /// The actor panicked.
    pub fn panicked(&mut self, now: Instant) -> AfterPanic {
        let within = self.policy.within;
        while self.panics.front().is_some_and(|panic| now.saturating_duration_since(*panic) >= within) {
            self.panics.pop_front();
        }
        if self.panics.len() >= self.policy.restarts_max {
            return AfterPanic::GiveUp;
        }
        let doubled = u32::try_from(self.panics.len()).ok().and_then(|times| 1_u32.checked_shl(times));
        self.panics.push_back(now);
        let after =
            doubled.map_or(self.policy.after_max, |times| self.policy.after_min.saturating_mul(times));
        AfterPanic::StartAfter(after.min(self.policy.after_max))
    }
}

/// The state of an actor that is started again when it panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorState {
    /// It runs.
    Running,
    /// It panicked, and will be started again.
    Waiting,
    /// It has stopped, as it wanted or since nobody needs it any more.
    Stopped,
    /// It panicked too often, and is not started again.
    GivenUp,
}

/// An actor that is started again when it panics, for the snapshots of the nodes that it answers or handles events for.
#[derive(Debug)]
pub struct Restarted {
    actor: &'static str,
    restarts: AtomicU64,
    state: AtomicU8,
}

/// An actor that is started again when it panics, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ActorSnapshot {
    /// The type of the actor.
    pub actor: &'static str,
    /// How often it was started again.
    pub restarts: u64,
    /// What it is doing.
    pub state: ActorState,
}

impl Restarted {
    /// An actor of this type, which runs.
    #[must_use]
    pub fn new(actor: &'static str) -> Self {
        Self { actor, restarts: AtomicU64::new(0), state: AtomicU8::new(ActorState::Running as u8) }
    }

    /// The type of the actor.
    #[must_use]
    pub fn actor(&self) -> &'static str {
        self.actor
    }

    /// Notes another state. From waiting to running, the actor was started again.
    pub fn set(&self, state: ActorState) {
        let before = self.state.swap(state as u8, Ordering::AcqRel);
        if (before, state) == (ActorState::Waiting as u8, ActorState::Running) {
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> ActorState {
        let states = [ActorState::Running, ActorState::Waiting, ActorState::Stopped];
        let state = self.state.load(Ordering::Acquire);
        states.into_iter().find(|it| *it as u8 == state).unwrap_or(ActorState::GivenUp)
    }

    /// The actor at this moment.
    #[must_use]
    pub fn snapshot(&self) -> ActorSnapshot {
        let restarts = self.restarts.load(Ordering::Relaxed);
        ActorSnapshot { actor: self.actor, restarts, state: self.state() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_panic_doubles_the_wait_and_one_too_many_ends_it() {
        let policy = RestartPolicy::default().at_most(4, 60 * SECOND).after(SECOND, 5 * SECOND);
        let (mut restarts, start) = (Restarts::new(policy), Instant::now());
        let waits = [1, 2, 4, 5].map(|seconds| AfterPanic::StartAfter(seconds * SECOND));
        assert_eq!([0, 1, 2, 3].map(|second| restarts.panicked(start + second * SECOND)), waits);
        assert_eq!(restarts.panicked(start + 59 * SECOND), AfterPanic::GiveUp);
        assert_eq!(
            restarts.panicked(start + 60 * SECOND),
            AfterPanic::StartAfter(5 * SECOND),
            "the first is long ago"
        );
    }

    #[test]
    fn a_panic_now_and_then_is_no_reason_to_give_up() {
        let (mut restarts, start) = (Restarts::new(RestartPolicy::default()), Instant::now());
        for time in 0..1_000 {
            let after = restarts.panicked(start + RESTARTS_WITHIN * time);
            assert_eq!(after, AfterPanic::StartAfter(RESTART_AFTER_MIN));
        }
    }

    #[test]
    fn what_happened_is_counted() {
        let restarted = Restarted::new("a");
        for state in [ActorState::Waiting, ActorState::Running, ActorState::Waiting, ActorState::GivenUp] {
            restarted.set(state);
            assert_eq!(restarted.state(), state);
        }
        let snapshot = ActorSnapshot { actor: "a", restarts: 1, state: ActorState::GivenUp };
        assert_eq!(restarted.snapshot(), snapshot);
    }

    proptest! {
        #[test]
        fn within_any_time_there_are_no_more_restarts_than_allowed(
            max in 0..5_usize,
            within in 1..20_u32,
            pauses in prop::collection::vec(0..10_u32, 0..100),
        ) {
            let policy = RestartPolicy::default().at_most(max, within * SECOND).after(Duration::ZERO, 100 * SECOND);
            let (mut restarts, mut now, mut started) = (Restarts::new(policy), Instant::now(), Vec::new());
            for pause in pauses {
                now += pause * SECOND;
                match restarts.panicked(now) {
                    AfterPanic::StartAfter(_) => started.push(now),
                    AfterPanic::GiveUp => {
                        let lately = started.iter().filter(|it| now - **it < within * SECOND).count();
                        prop_assert_eq!(lately, max);
                    }
                }
                let lately = started.iter().filter(|it| now - **it < within * SECOND).count();
                prop_assert!(lately <= max);
            }
        }
    }
}

//! One circuit: whether the calls of an action, or of an action of one node, are made, as their last outcomes tell. A *closed* circuit lets all
//! calls pass; when too many of the last ones failed it *opens*, and refuses all until it has rested; then it lets a few calls pass as trials,
//! *half-open*: when all of them succeed it closes, when one fails it opens again. Pure: time comes in as an argument.

use meshwork_wire::limits::CIRCUIT_CALLS_MAX;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When a circuit opens and closes.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) window: Window,
    /// The part of the calls in the window that must have failed for the circuit to open.
    pub(crate) failed: f64,
    /// How many calls the window must have before the circuit may open.
    pub(crate) calls_min: u32,
    /// How long an open circuit rests.
    pub(crate) rest: Duration,
    /// How many calls are made as trials.
    pub(crate) trials: u32,
}

/// The calls whose outcomes count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Window {
    /// The last so many.
    Calls(usize),
    /// Those that ended in the last so long, to a tenth of it.
    Time(Duration),
}

/// How a call ended, for its circuit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Succeeded,
    Failed,
    /// Its caller dropped it, or its outcome says nothing.
    Untold,
}

/// A call that was let pass: the time of the circuit that it belongs to. Its end in another time counts for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pass(u64);

/// A circuit.
#[derive(Debug)]
pub(crate) struct Circuit {
    state: State,
    /// Rises with each change of the state.
    time: u64,
    /// When the circuit was last asked.
    asked: Instant,
}

#[derive(Debug)]
enum State {
    Closed(Tally),
    Open { until: Instant },
    HalfOpen { in_flight: u32, succeeded: u32 },
}

/// The outcomes in a window.
#[derive(Debug)]
enum Tally {
    Calls {
        /// Whether each of the last calls failed.
        last: VecDeque<bool>,
        failed: usize,
        max: usize,
    },
    Time {
        /// The numbers of calls and of failed calls in each tenth of the window, the newest last.
        parts: VecDeque<Part>,
        part: Duration,
    },
}

#[derive(Clone, Copy, Debug)]
struct Part {
    begin: Instant,
    calls: u64,
    failed: u64,
}

/// How many parts a window of time has.
const PARTS: u32 = 10;

impl Circuit {
    /// A closed circuit.
    pub(crate) fn new(rules: &Rules, now: Instant) -> Self {
        Self { state: State::Closed(Tally::new(rules.window)), time: 0, asked: now }
    }

    /// Asks whether a call is to be made.
    ///
    /// # Errors
    ///
    /// How long the circuit rests still, or zero while its trials are in flight.
    pub(crate) fn ask(&mut self, rules: &Rules, now: Instant) -> Result<Pass, Duration> {
        self.asked = now;
        if let State::Open { until } = self.state
            && now >= until
        {
            self.change(State::HalfOpen { in_flight: 0, succeeded: 0 });
        }
        match &mut self.state {
            State::Closed(_) => Ok(Pass(self.time)),
            State::Open { until } => Err(until.saturating_duration_since(now)),
            State::HalfOpen { in_flight, succeeded } if *in_flight + *succeeded < rules.trials.max(1) => {
                *in_flight += 1;
                Ok(Pass(self.time))
            }
            State::HalfOpen { .. } => Err(Duration::ZERO),
        }
    }

    /// Takes the end of a call that was let pass. Gives the new state in a word, if it has changed.
    pub(crate) fn ended(
        &mut self,
        rules: &Rules,
        pass: Pass,
        ended: Ended,
        now: Instant,
    ) -> Option<&'static str> {
        if pass.0 != self.time {
            return None;
        }
        match (&mut self.state, ended) {
            (State::Closed(_), Ended::Untold) | (State::Open { .. }, _) => None,
            (State::Closed(tally), ended) => {
                tally.add(ended == Ended::Failed, now);
                let (calls, failed) = tally.count(now);
                let opens = failed > 0
                    && calls >= u64::from(rules.calls_min)
                    && failed as f64 >= rules.failed * calls as f64;
                opens.then(|| self.open(rules, now))
            }
            (State::HalfOpen { in_flight, .. }, Ended::Untold) => {
                *in_flight -= 1;
                None
            }
            (State::HalfOpen { .. }, Ended::Failed) => Some(self.open(rules, now)),
            (State::HalfOpen { in_flight, succeeded }, Ended::Succeeded) => {
                (*in_flight, *succeeded) = (*in_flight - 1, *succeeded + 1);
                (*succeeded >= rules.trials.max(1)).then(|| {
                    self.change(State::Closed(Tally::new(rules.window)));
                    "closed"
                })
            }
        }
    }

    /// Whether the circuit tells nothing that a new one would not, since nobody has asked it for so long.
    pub(crate) fn is_idle(&self, rules: &Rules, now: Instant) -> bool {
        let silent = now.saturating_duration_since(self.asked);
        match (&self.state, rules.window) {
            (State::Closed(tally), _) if tally.is_empty() => true,
            (State::Closed(_), Window::Time(window)) => silent > window,
            (State::Closed(_), Window::Calls(_)) => false,
            (State::Open { .. } | State::HalfOpen { .. }, _) => false,
        }
    }

    fn open(&mut self, rules: &Rules, now: Instant) -> &'static str {
        // A rest that is too long for a clock lasts as long as the clock does.
        let until = now.checked_add(rules.rest).unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        self.change(State::Open { until });
        "open"
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.time += 1;
    }
}

impl Tally {
    fn new(window: Window) -> Self {
        match window {
            Window::Calls(max) => {
                Tally::Calls { last: VecDeque::new(), failed: 0, max: max.clamp(1, CIRCUIT_CALLS_MAX) }
            }
            Window::Time(window) => Tally::Time { parts: VecDeque::new(), part: window / PARTS },
        }
    }

    fn add(&mut self, has_failed: bool, now: Instant) {
        match self {
            Tally::Calls { last, failed, max } => {
                if last.len() == *max {
                    *failed -= usize::from(last.pop_front() == Some(true));
                }
                last.push_back(has_failed);
                *failed += usize::from(has_failed);
            }
            Tally::Time { parts, part } => {
                if parts.back().is_none_or(|last| now.saturating_duration_since(last.begin) >= *part) {
                    parts.push_back(Part { begin: now, calls: 0, failed: 0 });
                }
                if let Some(last) = parts.back_mut() {
                    (last.calls, last.failed) = (last.calls + 1, last.failed + u64::from(has_failed));
                }
            }
        }
    }

    /// The calls of the window, and those that failed.
    fn count(&mut self, now: Instant) -> (u64, u64) {
        match self {
            Tally::Calls { last, failed, .. } => (last.len() as u64, *failed as u64),
            Tally::Time { parts, part } => {
                let window = part.saturating_mul(PARTS);
                while parts.front().is_some_and(|first| now.saturating_duration_since(first.begin) >= window)
                {
                    parts.pop_front();
                }
                parts.iter().fold((0, 0), |(calls, failed), part| (calls + part.calls, failed + part.failed))
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Tally::Calls { failed, .. } => *failed == 0,
            Tally::Time { parts, .. } => parts.iter().all(|part| part.failed == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(window: Window) -> Rules {
        Rules { window, failed: 0.5, calls_min: 4, rest: 5 * SECOND, trials: 2 }
    }

    fn run(circuit: &mut Circuit, rules: &Rules, now: Instant, ends: &[Ended]) -> Option<&'static str> {
        ends.iter().fold(None, |_, ended| {
            let pass = circuit.ask(rules, now).expect("it passes");
            circuit.ended(rules, pass, *ended, now)
        })
    }

    use Ended::{Failed, Succeeded, Untold};

    #[test]
    fn a_circuit_opens_when_half_of_its_calls_failed_and_there_were_enough() {
        let (rules, now) = (rules(Window::Calls(8)), Instant::now());
        let mut circuit = Circuit::new(&rules, now);
        assert_eq!(run(&mut circuit, &rules, now, &[Failed, Failed, Failed]), None, "three are too few");
        let mut circuit = Circuit::new(&rules, now);
        assert_eq!(
            run(&mut circuit, &rules, now, &[Succeeded, Succeeded, Succeeded, Failed, Untold, Failed]),
            None
        );
        assert_eq!(run(&mut circuit, &rules, now, &[Failed]), Some("open"));
        assert_eq!(circuit.ask(&rules, now + SECOND), Err(4 * SECOND));
    }

    #[test]
    fn a_circuit_that_has_rested_lets_a_few_calls_try_and_closes_when_all_succeed() {
        let (rules, start) = (rules(Window::Calls(4)), Instant::now());
        let mut circuit = Circuit::new(&rules, start);
        assert_eq!(run(&mut circuit, &rules, start, &[Failed; 4]), Some("open"));
        let now = start + 5 * SECOND;
        let trials = [circuit.ask(&rules, now), circuit.ask(&rules, now)].map(|pass| pass.expect("a trial"));
        assert_eq!(circuit.ask(&rules, now), Err(Duration::ZERO), "two are in flight");
        // One that tells nothing gives its place to another.
        assert_eq!(circuit.ended(&rules, trials[0], Untold, now), None);
        let third = circuit.ask(&rules, now).expect("a trial");
        assert_eq!(circuit.ended(&rules, trials[1], Succeeded, now), None);
        assert_eq!(circuit.ended(&rules, third, Succeeded, now), Some("closed"));
        assert_eq!(run(&mut circuit, &rules, now, &[Succeeded, Failed, Succeeded]), None, "it begins anew");
    }

    #[test]
    fn a_trial_that_fails_opens_the_circuit_again_and_late_ends_count_for_nothing() {
        let (rules, start) = (rules(Window::Calls(4)), Instant::now());
        let mut circuit = Circuit::new(&rules, start);
        let early = circuit.ask(&rules, start).expect("it is closed");
        run(&mut circuit, &rules, start, &[Failed; 4]);
        let now = start + 5 * SECOND;
        let trial = circuit.ask(&rules, now).expect("a trial");
        assert_eq!(circuit.ended(&rules, early, Succeeded, now), None);
        assert_eq!(circuit.ended(&rules, trial, Failed, now), Some("open"));
        assert_eq!(circuit.ask(&rules, now + SECOND), Err(4 * SECOND));
    }

    #[test]
    fn calls_of_long_ago_leave_a_window_of_time() {
        let (rules, start) = (rules(Window::Time(10 * SECOND)), Instant::now());
        let mut circuit = Circuit::new(&rules, start);
        run(&mut circuit, &rules, start, &[Failed; 3]);
        assert_eq!(run(&mut circuit, &rules, start + 10 * SECOND, &[Failed]), None, "only one is left");
        assert_eq!(
            run(&mut circuit, &rules, start + 11 * SECOND, &[Succeeded, Succeeded, Failed]),
            Some("open")
        );
    }

    #[test]
    fn a_circuit_that_nobody_asks_is_idle_when_its_window_is_empty() {
        let (rules, start) = (rules(Window::Time(10 * SECOND)), Instant::now());
        let mut circuit = Circuit::new(&rules, start);
        run(&mut circuit, &rules, start, &[Failed]);
        assert!(!circuit.is_idle(&rules, start + 9 * SECOND));
        assert!(circuit.is_idle(&rules, start + 11 * SECOND));
        let mut circuit = Circuit::new(&rules, start);
        run(&mut circuit, &rules, start, &[Failed; 4]);
        assert!(!circuit.is_idle(&rules, start + 99 * SECOND), "an open circuit is never forgotten");
    }

    proptest! {
        /// Beside a plain list of all outcomes.
        #[test]
        fn a_circuit_refuses_while_it_rests_and_opens_only_for_its_reason(
            max in 1..12_usize,
            calls_min in 0..8_u32,
            trials in 0..4_u32,
            steps in prop::collection::vec((0..4_u8, 0..3_000_u64), 1..120),
        ) {
            let rules = Rules { window: Window::Calls(max), failed: 0.5, calls_min, rest: 2 * SECOND, trials };
            let mut now = Instant::now();
            let mut circuit = Circuit::new(&rules, now);
            let (mut last, mut opened, mut in_flight) = (Vec::new(), None::<Instant>, Vec::new());
            for (what, millis) in steps {
                now += Duration::from_millis(millis);
                let has_rested = opened.is_none_or(|at| now >= at + rules.rest);
                if what == 0 {
                    match circuit.ask(&rules, now) {
                        Ok(pass) => {
                            prop_assert!(has_rested, "a call passed an open circuit");
                            in_flight.push(pass);
                        }
                        Err(left) => {
                            prop_assert!(opened.is_some(), "a closed circuit refused a call");
                            prop_assert_eq!(left.is_zero(), has_rested);
                            prop_assert!(left <= rules.rest);
                        }
                    }
                } else if let Some(pass) = in_flight.pop() {
                    let ended = [Ended::Succeeded, Ended::Failed, Ended::Untold][usize::from(what) - 1];
                    let counts = pass.0 == circuit.time && opened.is_none() && ended != Ended::Untold;
                    if counts {
                        last.push(ended == Ended::Failed);
                    }
                    let window = &last[last.len().saturating_sub(max)..];
                    let failed = window.iter().filter(|it| **it).count();
                    let is_bad = failed > 0 && 2 * failed >= window.len() && window.len() >= calls_min as usize;
                    match circuit.ended(&rules, pass, ended, now) {
                        Some("open") => {
                            prop_assert!(opened.is_some() || is_bad, "it opened for no reason");
                            (opened, last) = (Some(now), Vec::new());
                        }
                        Some(_) => {
                            prop_assert!(opened.is_some());
                            (opened, last) = (None, Vec::new());
                        }
                        None => prop_assert!(!counts || !is_bad, "it stayed closed"),
                    }
                }
            }
        }
    }
}

//! Doubles: requests that are one call, made again. A request with an idempotency key that came before, from the same caller for the same action,
//! gets the outcome of the first, or waits for it while the first still runs. Outcomes are remembered for a time, and within bounds in number and
//! bytes; when there is no room, the oldest ones are forgotten. Pure: time comes in as an argument, and the waiting requests are values.

use crate::hashed::HashMap;
use crate::link::lanes::fits_share;
use bytes::Bytes;
use meshwork_wire::limits::{DOUBLES_LEN_MAX, DOUBLES_MAX, DOUBLES_WITHIN};
use meshwork_wire::{ByteString, CallError, Code, Fate, Outcome, Payload};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The bounds of what is remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoublesBounds {
    /// How many calls, running or remembered.
    pub(crate) count_max: usize,
    /// How many bytes the outcomes that are remembered take.
    pub(crate) len_max: usize,
    /// How long an outcome is remembered.
    pub(crate) within: Duration,
}

impl DoublesBounds {
    pub(crate) const DEFAULT: Self =
        Self { count_max: DOUBLES_MAX, len_max: DOUBLES_LEN_MAX, within: DOUBLES_WITHIN };
}

/// A request that waits for the outcome of the one that runs.
pub(crate) trait Waits {
    /// Whether its caller waits no longer.
    fn is_gone(&self) -> bool;
}

/// The calls with keys that a node runs or remembers.
pub(crate) struct Doubles<W> {
    bounds: DoublesBounds,
    callers: HashMap<ByteString, OfCaller<W>>,
    /// The outcomes that are remembered, the oldest first.
    finished: BTreeMap<u64, Finished>,
    running: usize,
    len: usize,
    next: u64,
}

/// The calls of one caller; there is none without a call.
struct OfCaller<W> {
    by_name: HashMap<String, Entry<W>>,
    /// The numbers of its outcomes in `finished`, in order.
    finished: BTreeMap<u64, ()>,
    running: usize,
    len: usize,
}

impl<W> Default for OfCaller<W> {
    fn default() -> Self {
        Self { by_name: HashMap::default(), finished: BTreeMap::new(), running: 0, len: 0 }
    }
}

enum Entry<W> {
    Running { number: u64, waiting: Vec<W>, pruned_at: usize },
    Finished(u64),
}

struct Finished {
    caller: ByteString,
    name: String,
    outcome: Outcome,
    len: usize,
    until: Instant,
}

/// A call that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    caller: ByteString,
    name: String,
    number: u64,
}

impl Ticket {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

/// What becomes of a request with a key.
pub(crate) enum Seen {
    /// It is the first: it is to run, and [`Doubles::finish`] follows.
    First(Ticket),
    /// The first still runs: the request waits among the others.
    Waits,
    /// The first had this outcome.
    Had(Outcome),
    /// There is no room for one more that runs.
    Full,
}

/// How many bytes an outcome takes besides its payload and its names, about.
const ENTRY_LEN: usize = 256;

/// So many waiting requests are looked through for those whose callers wait no longer.
const PRUNED_AT: usize = 16;

impl<W: Waits> Doubles<W> {
    pub(crate) fn new(bounds: DoublesBounds) -> Self {
        Self { bounds, callers: HashMap::default(), finished: BTreeMap::new(), running: 0, len: 0, next: 0 }
    }

    /// Takes a request; `waiter` is asked for if it has to wait.
    pub(crate) fn begin(
        &mut self,
        caller: &str,
        action: &str,
        key: &str,
        now: Instant,
        waiter: impl FnOnce() -> W,
    ) -> Seen {
        self.forget_old(now);
        // Neither names nor values of headers have line breaks.
        let name = format!("{action}\n{key}");
        let of_caller = self.callers.get_mut(caller);
        match of_caller.and_then(|of_caller| of_caller.by_name.get_mut(&name)) {
            Some(Entry::Running { waiting, pruned_at, .. }) => {
                if waiting.len() >= *pruned_at {
                    waiting.retain(|waiting| !waiting.is_gone());
                    *pruned_at = (2 * waiting.len()).max(PRUNED_AT);
                }
                waiting.push(waiter());
                return Seen::Waits;
            }
            Some(Entry::Finished(number)) => {
                if let Some(finished) = self.finished.get(number) {
                    return Seen::Had(finished.outcome.clone());
                }
            }
            None => {}
        }
        let mine = self.callers.get(caller).map_or(0, |of_caller| of_caller.running);
        if !fits_share(mine, 1, self.running, self.bounds.count_max) {
            return Seen::Full;
        }
        self.make_room(caller, 0, self.bounds.count_max - 1);
        let number = self.draw();
        let caller = match self.callers.get_key_value(caller) {
            Some((caller, _)) => caller.clone(),
            None => ByteString::from(caller),
        };
        let of_caller = self.callers.entry(caller.clone()).or_default();
        let entry = Entry::Running { number, waiting: Vec::new(), pruned_at: PRUNED_AT };
        of_caller.by_name.insert(name.clone(), entry);
        of_caller.running += 1;
        self.running += 1;
        Seen::First(Ticket { caller, name, number })
    }

    /// Takes the outcome of a call that ran; gives the requests that waited for it. An outcome that was *not sent* is not remembered: the next
    /// request with the key runs. One that is too long is remembered as such.
    pub(crate) fn finish(&mut self, ticket: &Ticket, outcome: &Outcome, now: Instant) -> Vec<W> {
        let Some(waiting) = self.end(ticket) else {
            return Vec::new();
        };
        let until = now.checked_add(self.bounds.within);
        let was_sent = outcome.as_ref().err().is_none_or(|error| error.fate() != Fate::NotSent);
        let (true, Some(until)) = (was_sent, until) else {
            self.drop_caller(&ticket.caller);
            return waiting;
        };
        let mut outcome = alone(outcome);
        let mut len = len_of(ticket, &outcome);
        if len > self.bounds.len_max {
            outcome = Err(too_long(len));
            len = len_of(ticket, &outcome);
        }
        self.make_room(&ticket.caller, len, self.bounds.count_max.saturating_sub(1));
        let number = self.draw();
        // The last call of a caller may just have been forgotten, and the caller with it.
        let of_caller = self.callers.entry(ticket.caller.clone()).or_default();
        of_caller.by_name.insert(ticket.name.clone(), Entry::Finished(number));
        of_caller.finished.insert(number, ());
        of_caller.len += len;
        self.len += len;
        let (caller, name) = (ticket.caller.clone(), ticket.name.clone());
        self.finished.insert(number, Finished { caller, name, outcome, len, until });
        waiting
    }

    /// How many calls are running or remembered, and how many bytes the outcomes take.
    #[cfg(test)]
    fn held(&self) -> (usize, usize) {
        (self.running + self.finished.len(), self.len)
    }

    fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes a call out of those that run. None if it does not.
    fn end(&mut self, ticket: &Ticket) -> Option<Vec<W>> {
        let of_caller = self.callers.get_mut(&ticket.caller)?;
        match of_caller.by_name.get(&ticket.name) {
            Some(Entry::Running { number, .. }) if *number == ticket.number => {}
            _ => return None,
        }
        let Some(Entry::Running { waiting, .. }) = of_caller.by_name.remove(&ticket.name) else {
            return None;
        };
        of_caller.running -= 1;
        self.running -= 1;
        Some(waiting)
    }

    /// Forgets the oldest outcomes until `len` more bytes fit, and no more than `count` calls are there: those of this caller if it has half of
    /// what there is, else those of anybody. So one that makes many calls forgets its own.
    fn make_room(&mut self, caller: &str, len: usize, count: usize) {
        while self.running + self.finished.len() > count || self.len + len > self.bounds.len_max {
            let of_caller = self.callers.get(caller);
            let has_much = of_caller.filter(|it| {
                2 * it.by_name.len() >= self.running + self.finished.len()
                    || 2 * it.len >= self.bounds.len_max
            });
            let oldest = has_much.and_then(|it| it.finished.keys().next());
            let Some(oldest) = oldest.or_else(|| self.finished.keys().next()).copied() else {
                return;
            };
            self.forget(oldest);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((number, _)) = self.finished.first_key_value().filter(|(_, it)| it.until <= now) {
            let number = *number;
            self.forget(number);
        }
    }

    fn forget(&mut self, number: u64) {
        let Some(Finished { caller, name, len, .. }) = self.finished.remove(&number) else {
            return;
        };
        self.len -= len;
        if let Some(of_caller) = self.callers.get_mut(&caller) {
            of_caller.by_name.remove(&name);
            of_caller.finished.remove(&number);
            of_caller.len -= len;
        }
        self.drop_caller(&caller);
    }

    /// Forgets a caller that has no call here any more.
    fn drop_caller(&mut self, caller: &str) {
        if self.callers.get(caller).is_some_and(|of_caller| of_caller.by_name.is_empty()) {
            self.callers.remove(caller);
        }
    }
}

/// An outcome as it is remembered: a reply may be a part of a buffer that is much longer.
fn alone(outcome: &Outcome) -> Outcome {
    let Payload { encoding, bytes, callbacks } = outcome.as_ref().map_err(CallError::clone)?;
    let bytes = Bytes::copy_from_slice(bytes);
    Ok(Payload { encoding: *encoding, bytes, callbacks: callbacks.clone() })
}

fn len_of(ticket: &Ticket, outcome: &Outcome) -> usize {
    let outcome_len = match outcome {
        Ok(payload) => payload.len(),
        Err(error) => error.name().len() + error.message().len() + error.data().map_or(0, Payload::len),
    };
    ENTRY_LEN + ticket.caller.len() + 2 * ticket.name.len() + outcome_len
}

/// What a double gets whose first had an outcome that is too long to be remembered.
fn too_long(len: usize) -> CallError {
    let what =
        format!("the call with this key has run; its outcome, of {len} bytes, was too long to be remembered");
    CallError::new(Code::UNKNOWN, Fate::Unknown, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::Encoding;
    use proptest::prelude::*;

    const BOUNDS: DoublesBounds =
        DoublesBounds { count_max: 8, len_max: 4_000, within: Duration::from_secs(60) };

    #[derive(Debug, PartialEq)]
    struct Waiter(u32, bool);

    impl Waits for Waiter {
        fn is_gone(&self) -> bool {
            self.1
        }
    }

    fn reply(number: u8, len: usize) -> Outcome {
        Ok(Payload::new(Encoding::Json, vec![number; len]))
    }

    fn first(seen: Seen) -> Ticket {
        match seen {
            Seen::First(ticket) => ticket,
            _ => panic!("it is the first"),
        }
    }

    fn begin(doubles: &mut Doubles<Waiter>, caller: &str, key: &str, now: Instant) -> Seen {
        doubles.begin(caller, "add", key, now, || Waiter(0, false))
    }

    #[test]
    fn a_double_waits_while_the_first_runs_and_then_has_its_outcome() {
        let (mut doubles, now) = (Doubles::new(BOUNDS), Instant::now());
        let ticket = first(begin(&mut doubles, "a", "1", now));
        let waits = doubles.begin("a", "add", "1", now, || Waiter(7, false));
        assert!(matches!(waits, Seen::Waits));
        assert_eq!(doubles.finish(&ticket, &reply(1, 3), now), [Waiter(7, false)]);
        let later = now + Duration::from_secs(59);
        assert!(matches!(begin(&mut doubles, "a", "1", later), Seen::Had(outcome) if outcome == reply(1, 3)));
        assert!(
            matches!(begin(&mut doubles, "a", "1", now + BOUNDS.within), Seen::First(_)),
            "it was forgotten"
        );
    }

    #[test]
    fn a_key_is_that_of_its_caller_and_its_action() {
        let (mut doubles, now) = (Doubles::new(BOUNDS), Instant::now());
        let ticket = first(begin(&mut doubles, "a", "1", now));
        doubles.finish(&ticket, &reply(1, 1), now);
        assert!(matches!(begin(&mut doubles, "b", "1", now), Seen::First(_)));
        assert!(matches!(doubles.begin("a", "sub", "1", now, || Waiter(0, false)), Seen::First(_)));
    }

    #[test]
    fn what_was_not_sent_is_not_remembered_and_what_may_have_run_is() {
        let (mut doubles, now) = (Doubles::new(BOUNDS), Instant::now());
        for (fate, is_first) in [(Fate::NotSent, true), (Fate::Unknown, false), (Fate::Failed, false)] {
            let key = fate.to_string();
            let ticket = first(begin(&mut doubles, "a", &key, now));
            doubles.finish(&ticket, &Err(CallError::new(Code::OVERLOADED, fate, "no")), now);
            assert_eq!(matches!(begin(&mut doubles, "a", &key, now), Seen::First(_)), is_first);
        }
    }

    #[test]
    fn an_outcome_that_is_too_long_is_remembered_as_such() {
        let (mut doubles, now) = (Doubles::new(BOUNDS), Instant::now());
        let ticket = first(begin(&mut doubles, "a", "1", now));
        doubles.finish(&ticket, &reply(1, 5_000), now);
        let Seen::Had(Err(error)) = begin(&mut doubles, "a", "1", now) else { panic!("it has run") };
        assert_eq!(error.fate(), Fate::Unknown);
        assert!(error.message().contains("too long"));
    }

    #[test]
    fn a_caller_that_makes_many_calls_forgets_its_own() {
        let (mut doubles, now) = (Doubles::new(BOUNDS), Instant::now());
        let of_other = first(begin(&mut doubles, "other", "1", now));
        doubles.finish(&of_other, &reply(1, 1), now);
        for key in 0..100 {
            let ticket = first(begin(&mut doubles, "hog", &key.to_string(), now));
            doubles.finish(&ticket, &reply(1, 1), now);
        }
        assert!(matches!(begin(&mut doubles, "other", "1", now), Seen::Had(_)));
        assert!(matches!(begin(&mut doubles, "hog", "99", now), Seen::Had(_)));
        assert!(doubles.held().0 <= BOUNDS.count_max);
    }

    #[test]
    fn calls_that_run_are_never_forgotten_and_leave_room_for_other_callers() {
        let bounds = DoublesBounds { count_max: 18, ..BOUNDS };
        let (mut doubles, now) = (Doubles::new(bounds), Instant::now());
        let running: Vec<_> = (0..20)
            .map_while(|key| match begin(&mut doubles, "hog", &key.to_string(), now) {
                Seen::First(ticket) => Some(ticket),
                _ => None,
            })
            .collect();
        assert_eq!(running.len(), 16, "eight ninths");
        assert!(matches!(begin(&mut doubles, "other", "1", now), Seen::First(_)));
        assert!(matches!(begin(&mut doubles, "hog", "0", now + 2 * BOUNDS.within), Seen::Waits));
        assert_eq!(doubles.finish(&running[0], &reply(1, 1), now).len(), 1);
        assert!(doubles.finish(&running[0], &reply(1, 1), now).is_empty(), "it has ended once");
    }

    #[test]
    fn waiting_requests_whose_callers_are_gone_do_not_pile_up() {
        let (mut doubles, now) = (Doubles::new(BOUNDS), Instant::now());
        let ticket = first(begin(&mut doubles, "a", "1", now));
        for number in 0..10_000 {
            doubles.begin("a", "add", "1", now, || Waiter(number, true));
        }
        assert!(doubles.finish(&ticket, &reply(1, 1), now).len() <= PRUNED_AT);
    }

    proptest! {
        /// Beside a list of all calls that ever ran.
        #[test]
        fn no_call_runs_twice_while_it_runs_or_is_remembered_and_the_bounds_hold(
            steps in prop::collection::vec((0..3_u8, 0..6_u8, any::<bool>(), 0..30_u64, 0..900_usize), 1..200),
        ) {
            let (mut doubles, mut now) = (Doubles::<Waiter>::new(BOUNDS), Instant::now());
            let mut running: Vec<(u8, u8, Ticket)> = Vec::new();
            let mut last = std::collections::HashMap::new();
            for (caller, key, ends, seconds, len) in steps {
                now += Duration::from_secs(seconds);
                if ends {
                    if let Some((caller, key, ticket)) = running.pop() {
                        let outcome = reply(key, len);
                        doubles.finish(&ticket, &outcome, now);
                        last.insert((caller, key), (outcome, now));
                    }
                } else {
                    let runs = running.iter().any(|(a, b, _)| (*a, *b) == (caller, key));
                    match begin(&mut doubles, &caller.to_string(), &key.to_string(), now) {
                        Seen::First(ticket) => {
                            prop_assert!(!runs);
                            running.push((caller, key, ticket));
                        }
                        Seen::Waits => prop_assert!(runs),
                        Seen::Had(outcome) => {
                            let (had, at) = &last[&(caller, key)];
                            prop_assert!(!runs && outcome == *had && now < *at + BOUNDS.within);
                        }
                        Seen::Full => prop_assert!(!running.is_empty()),
                    }
                }
                let (count, len) = doubles.held();
                prop_assert!(count <= BOUNDS.count_max && len <= BOUNDS.len_max, "{count} calls, {len} bytes");
            }
            for (_, _, ticket) in running {
                doubles.finish(&ticket, &reply(0, 0), now);
            }
            doubles.forget_old(now + BOUNDS.within);
            prop_assert_eq!(doubles.held(), (0, 0));
            prop_assert!(doubles.callers.is_empty());
        }
    }
}

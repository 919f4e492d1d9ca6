//! What happened in one run, and whether it may have happened: every call, every event, every function, from the start to the end. The
//! programs of a run tell it here, from the one thread of the run; [`Journal::judge`] has the last word.

use crate::programs::QUIET_FROM;
use meshwork::{CallError, Code, Fate};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How much later than its deadline a call may end: the simulated hosts are polled in ticks.
const LATE_MAX: Duration = Duration::from_millis(60);

/// How much longer than its caller a responder may believe that the caller waits: the time that the request was on its way does not count.
const LONGER_MAX: Duration = Duration::from_secs(2);

/// How the description of a call of a function begins.
pub(crate) const FUNCTION: &str = "the function of call";

/// A life of a node: from one start of its actor to its end.
pub(crate) type Life = u32;

/// How an action ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Finish {
    Replied,
    Failed,
}

/// A call, or the call of a function.
struct CallEntry {
    by: Life,
    what: String,
    asked: Duration,
    within: Option<Duration>,
    /// How often it ended.
    ended: u32,
    outcome: Option<Result<(), (Fate, String)>>,
    is_lost: bool,
    is_dropped: bool,
    ran: u32,
    finished: Option<Finish>,
}

/// A life of a node.
struct LifeEntry {
    host: &'static str,
    is_crashed: bool,
}

/// All that happened in one run.
#[derive(Default)]
pub(crate) struct Journal {
    is_told: bool,
    now: Duration,
    /// Whether a process is crashing: what its end tells has no simulated time, and gets the last one.
    stands_still: bool,
    trace: DefaultHasher,
    lines: Vec<String>,
    calls: Vec<CallEntry>,
    lives: Vec<LifeEntry>,
    handlers: u32,
    /// The last event of each publisher that a handler heard.
    heard: BTreeMap<(u32, Life, &'static str), u64>,
    /// How often a group heard an event.
    grouped: BTreeMap<(&'static str, Life, u64), u32>,
    /// All events that anyone heard, and those of which the publisher was told that they were not sent.
    heard_at_all: BTreeSet<(Life, &'static str, u64)>,
    unsent: BTreeSet<(Life, &'static str, u64)>,
    /// How many events of each publisher a handler, and a group, heard since all is quiet.
    late: BTreeMap<(u32, Life, &'static str), usize>,
    late_of_groups: BTreeMap<(&'static str, Life), usize>,
    is_healthy: bool,
    /// Whether a branch has ended while it bound again: it drops a link over which its master may have sent requests already.
    has_unbound_end: bool,
    /// The functions that were passed: each is gone when its last holder is.
    functions: Vec<(u64, Weak<()>)>,
    wrong: Vec<String>,
}

thread_local! {
    static JOURNAL: RefCell<Journal> = RefCell::default();
}

fn with<T>(change: impl FnOnce(&mut Journal) -> T) -> T {
    JOURNAL.with_borrow_mut(|journal| {
        if let Some(now) = turmoil::sim_elapsed().filter(|_| !journal.stands_still) {
            journal.now = now;
        }
        change(journal)
    })
}

/// Begins the journal of a run on this thread; `is_told` keeps a line for each thing that happens.
pub(crate) fn begin(is_told: bool) {
    JOURNAL.set(Journal { is_told, ..Journal::default() });
}

/// The journal of the run that has ended on this thread.
pub(crate) fn take() -> Journal {
    JOURNAL.take()
}

/// Puts bytes into the trace.
pub(crate) fn trace(bytes: &[u8]) {
    with(|journal| {
        journal.trace.write_u128(journal.now.as_micros());
        journal.trace.write(bytes);
    });
}

/// Notes what happened.
pub(crate) fn note(what: fmt::Arguments<'_>) {
    with(|journal| journal.note(what));
}

/// Notes a line of the log, which is no part of the trace: some lines of one process are gathered from several runs.
pub(crate) fn log(line: fmt::Arguments<'_>) {
    // Lines come also while the journal is being written.
    let _ = JOURNAL.try_with(|journal| {
        if let Ok(mut journal) = journal.try_borrow_mut()
            && journal.is_told
        {
            let now = turmoil::sim_elapsed().filter(|_| !journal.stands_still).unwrap_or(journal.now);
            journal.lines.push(format!("{:>9.3}    {line}", now.as_secs_f64()));
        }
    });
}

/// Notes that something happened that must not.
pub(crate) fn wrong(what: impl Into<String>) {
    with(|journal| journal.wrong(what.into()));
}

/// Begins a life of a node.
pub(crate) fn live(host: &'static str) -> Life {
    with(|journal| {
        journal.lives.push(LifeEntry { host, is_crashed: false });
        let life = journal.lives.len() as Life - 1;
        journal.note(format_args!("{host} begins life {life}"));
        life
    })
}

/// The host of a life.
pub(crate) fn host_of(life: Life) -> &'static str {
    with(|journal| journal.lives[life as usize].host)
}

/// Ends all lives of a host, whose process crashes in `crash`.
pub(crate) fn crashes(host: &'static str, crash: impl FnOnce()) {
    // First, since the end of the process ends its calls in its own way.
    with(|journal| {
        journal.note(format_args!("{host} crashes"));
        journal.lives.iter_mut().filter(|life| life.host == host).for_each(|life| life.is_crashed = true);
        journal.stands_still = true;
    });
    crash();
    with(|journal| journal.stands_still = false);
}

/// Begins a call; gives its number, which its arguments carry.
pub(crate) fn asked(by: Life, what: impl fmt::Display, within: Duration) -> u64 {
    with(|journal| {
        let call = journal.calls.len() as u64;
        journal.note(format_args!("call {call} of life {by}: {what} within {within:?}"));
        journal.calls.push(CallEntry {
            by,
            what: what.to_string(),
            asked: journal.now,
            within: (within != Duration::MAX).then_some(within),
            ended: 0,
            outcome: None,
            is_lost: false,
            is_dropped: false,
            ran: 0,
            finished: None,
        });
        call
    })
}

/// The reply to a call, which no other call has.
pub(crate) fn reply_to(call: u64) -> u64 {
    call.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17)
}

/// Notes that a call ended, with this reply or error.
pub(crate) fn ended(call: u64, outcome: Result<u64, CallError>) {
    with(|journal| {
        match &outcome {
            Ok(_) => journal.note(format_args!("call {call} ends with its reply")),
            Err(error) => {
                journal.note(format_args!("call {call} ends: {} {:?} {error}", error.code(), error.fate()));
            }
        }
        let now = journal.now;
        let entry = &mut journal.calls[call as usize];
        entry.ended += 1;
        // An actor that panics loses the calls in its mailbox, in a healthy run too, and a master that drains waits for no call of a function
        // whose request has been answered.
        entry.is_lost = !entry.what.starts_with(FUNCTION)
            && matches!(&outcome, Err(error) if error.fate() == Fate::Unknown
            && matches!(error.code(), Code::LINK_LOST | Code::PROVIDER_LOST)
            && !error.to_string().contains("the actor that answers"));
        let is_late = entry.within.is_some_and(|within| now > entry.asked + within + LATE_MAX);
        let (asked, within) = (entry.asked, entry.within);
        entry.outcome = Some(match &outcome {
            Ok(_) => Ok(()),
            Err(error) => Err((error.fate(), error.to_string())),
        });
        if is_late {
            journal.wrong(format!("call {call} of {asked:?} within {within:?} ended at {now:?}"));
        }
        if let Ok(value) = outcome
            && value != reply_to(call)
        {
            journal.wrong(format!("call {call} got the reply of another call"));
        }
    });
}

/// Notes that the caller dropped a call.
pub(crate) fn dropped(call: u64) {
    with(|journal| {
        journal.note(format_args!("call {call} is dropped"));
        journal.calls[call as usize].is_dropped = true;
    });
}

/// Notes that a call runs, in this life.
pub(crate) fn ran(call: u64, by: Life) {
    with(|journal| {
        journal.note(format_args!("call {call} runs in life {by}"));
        match journal.calls.get_mut(call as usize) {
            Some(entry) => entry.ran += 1,
            None => journal.wrong(format!("call {call}, which was never made, ran")),
        }
    });
}

/// Notes what a responder was told of its call.
pub(crate) fn came(call: u64, caller: &str, time_left: Option<Duration>) {
    with(|journal| {
        let Some(entry) = journal.calls.get(call as usize) else { return };
        let (host, asked, within) = (journal.lives[entry.by as usize].host, entry.asked, entry.within);
        if host != caller {
            journal.wrong(format!("call {call} of {host} came as one of {caller}"));
        }
        let is_longer = match (within, time_left) {
            (Some(within), Some(left)) => journal.now + left > asked + within + LONGER_MAX,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_longer {
            journal.wrong(format!(
                "call {call} of {asked:?} within {within:?} has {time_left:?} at {:?}",
                journal.now
            ));
        }
    });
}

/// Notes how the action of a call ended.
pub(crate) fn finished(call: u64, finish: Finish) {
    with(|journal| {
        journal.note(format_args!("call {call} {finish:?}"));
        if let Some(entry) = journal.calls.get_mut(call as usize) {
            entry.finished = Some(finish);
        }
    });
}

/// Draws the number of a handler of events.
pub(crate) fn handler() -> u32 {
    with(|journal| {
        journal.handlers += 1;
        journal.handlers
    })
}

/// Notes that a handler heard an event, perhaps as a member of a group.
pub(crate) fn heard(
    handler: u32,
    group: Option<&'static str>,
    kind: &'static str,
    publisher: &str,
    (by, number): (Life, u64),
) {
    with(|journal| {
        if journal.lives.get(by as usize).is_none_or(|life| life.host != publisher) {
            journal.wrong(format!("{kind} {number} of life {by} came as one of {publisher}"));
        }
        if journal.now >= QUIET_FROM {
            *journal.late.entry((handler, by, kind)).or_default() += 1;
            if let Some(group) = group {
                *journal.late_of_groups.entry((group, by)).or_default() += 1;
            }
        }
        journal.note(format_args!("handler {handler} {group:?} hears {kind} {number} of life {by}"));
        // An event that a member of a group gave back, since it had stopped, comes late to another member.
        let is_in_order = group.is_none() || journal.now >= QUIET_FROM;
        let last = journal.heard.get(&(handler, by, kind)).copied();
        journal.heard.insert((handler, by, kind), last.unwrap_or_default().max(number));
        if let Some(last) = last.filter(|last| *last >= number && is_in_order) {
            journal.wrong(format!("handler {handler} heard {kind} {number} of life {by} after {last}"));
        }
        journal.heard_at_all.insert((by, kind, number));
        if let Some(group) = group {
            let count = journal.grouped.entry((group, by, number)).or_default();
            *count += 1;
            if *count > 1 {
                journal.wrong(format!("group {group} heard {kind} {number} of life {by} twice"));
            }
        }
    });
}

/// Notes that a publisher was told that an event was not sent.
pub(crate) fn unsent(kind: &'static str, by: Life, number: u64, why: &CallError) {
    with(|journal| {
        journal.note(format_args!("{kind} {number} of life {by} is not published: {why}"));
        if why.fate() == Fate::NotSent {
            journal.unsent.insert((by, kind, number));
        }
    });
}

/// How many events of a publisher a handler has heard since all is quiet.
pub(crate) fn heard_late(handler: u32, kind: &'static str, by: Life) -> usize {
    with(|journal| journal.late.get(&(handler, by, kind)).copied().unwrap_or_default())
}

/// How many events of a publisher a group has heard since all is quiet.
pub(crate) fn heard_late_by(group: &'static str, by: Life) -> usize {
    with(|journal| journal.late_of_groups.get(&(group, by)).copied().unwrap_or_default())
}

/// Whether this run has no faults: then nothing excuses a call that is lost.
pub(crate) fn is_healthy() -> bool {
    with(|journal| journal.is_healthy)
}

/// Notes that a branch drains while it binds again.
pub(crate) fn note_unbound_end() {
    with(|journal| journal.has_unbound_end = true);
}

/// Notes whether this run has no faults.
pub(crate) fn set_healthy(is_healthy: bool) {
    with(|journal| journal.is_healthy = is_healthy);
}

/// Passes a function, which holds what this gives.
pub(crate) fn function(call: u64) -> Arc<()> {
    with(|journal| {
        let token = Arc::new(());
        journal.functions.push((call, Arc::downgrade(&token)));
        token
    })
}

impl Journal {
    fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.write_u128(self.now.as_micros());
        let _ = Hashed(&mut self.trace).write_fmt(what);
        if self.is_told {
            self.lines.push(format!("{:>9.3} {what}", self.now.as_secs_f64()));
        }
    }

    fn wrong(&mut self, what: String) {
        self.note(format_args!("WRONG: {what}"));
        self.wrong.push(what);
    }

    /// The number of all that happened: equal for two runs that went the same way.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// What happened, line by line.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// How many calls, and how many events that somebody heard, the run had.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.calls.len(), self.heard_at_all.len())
    }

    /// How many calls ended in each way.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, usize> {
        let mut outcomes = BTreeMap::new();
        for call in &self.calls {
            let outcome = match &call.outcome {
                Some(Ok(())) => "replied".to_owned(),
                // The code and the fate, as an error begins.
                Some(Err((_, why))) => why.split(':').next().unwrap_or_default().to_owned(),
                None if call.is_dropped => "dropped".to_owned(),
                None => "crashed".to_owned(),
            };
            *outcomes.entry(outcome).or_default() += 1;
        }
        outcomes
    }

    /// All that was wrong in the run, the calls judged by what ran.
    pub(crate) fn judge(&mut self) -> Vec<String> {
        let mut wrong = std::mem::take(&mut self.wrong);
        for (call, entry) in self.calls.iter().enumerate() {
            let CallEntry { ended, outcome, ran, finished, what, by, .. } = entry;
            let is_excused = entry.is_dropped || self.lives[*by as usize].is_crashed;
            let lie = match (ended, outcome) {
                (0, _) if is_excused => None,
                (0, _) => Some("never ended"),
                _ if entry.is_lost && self.is_healthy && !self.has_unbound_end => {
                    Some("was lost where no link and no node was")
                }
                (2.., _) => Some("ended more than once"),
                (_, _) if *ran > 1 => Some("ran more than once"),
                (_, Some(Ok(()))) if *ran != 1 || *finished != Some(Finish::Replied) => {
                    Some("replied and did not run to its end")
                }
                (_, Some(Err((Fate::NotSent, _)))) if *ran > 0 => Some("was not sent and ran"),
                (_, Some(Err((Fate::Failed, _)))) if *ran != 1 || *finished != Some(Finish::Failed) => {
                    Some("failed and did not run to its failure")
                }
                _ => None,
            };
            if let Some(lie) = lie {
                wrong.push(format!("call {call} ({what}) {lie}: {outcome:?}, ran {ran} times, {finished:?}"));
            } else if *ran > 1 {
                wrong.push(format!("call {call} ({what}) ran {ran} times"));
            }
        }
        for (by, kind, number) in self.unsent.intersection(&self.heard_at_all) {
            wrong.push(format!("{kind} {number} of life {by} was not sent, and was heard"));
        }
        for (call, function) in &self.functions {
            if function.strong_count() > 0 {
                wrong.push(format!("the function that call {call} passed is still held"));
            }
        }
        wrong
    }
}

/// Hashes what is formatted.
struct Hashed<'a>(&'a mut DefaultHasher);

impl fmt::Write for Hashed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

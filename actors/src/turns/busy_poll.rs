//! Busy polling: a thread to which frames nearly always come within a moment stays awake for the next ones. To put a processor to sleep
//! and to wake it costs more than all that either end of a call does, so a call that finds both ends awake takes a small part of the
//! time, and less processor time as well. [`Waits`] decides by the waits so far whether polling is worth it; a polling task that gives
//! way to all other tasks keeps the runtime from parking.

use meshwork_wire::limits::BUSY_POLL_WITHIN_MAX;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// Keeps the thread of the actor that owns it awake for up to `within` after each frame, where that has been worth it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BusyPoll {
    within: Duration,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            waits: RefCell::new(Waits { score: 0, since: None, asked: false, gave_up: false, not_before: None }),
            within: Cell::new(Duration::ZERO),
            is_polling: Cell::new(false),
            has_moved: Cell::new(false),
        }
    };
}

struct Thread {
    waits: RefCell<Waits>,
    /// How long the thread may stay awake, by the actor that last heard or asked something.
    within: Cell<Duration>,
    is_polling: Cell<bool>,
    /// Whether an actor heard or asked something since the polling task looked last.
    has_moved: Cell<bool>,
}

/// How long a thread has waited for frames so far.
#[derive(Default)]
struct Waits {
    score: u8,
    /// Since when the thread waits: since the last frames came, or since it asked the first thing after them.
    since: Option<Instant>,
    /// Whether the thread has asked something since the last frames came.
    asked: bool,
    /// Whether the thread has polled since `since`, in vain.
    gave_up: bool,
    /// Other threads need the processor: no polling before this moment.
    not_before: Option<Instant>,
}

/// A short wait adds one to the score, up to this.
const SCORE_MAX: u8 = 16;

/// From this score on a thread stays awake.
const SCORE_ENOUGH: u8 = 8;

/// A long wait takes so much from the score: one in nine is too many.
const LONG_COSTS: u8 = 8;

/// How many times as long a wait takes when both ends sleep. Polling spares the difference.
const ASLEEP: u32 = 2;

/// Other threads that take the processor for more than this many times the polling time have work of their own.
const TAKEN_MAX: u32 = 5;

/// Then there is no polling for this many times as long as they took the processor.
const LEFT_ALONE: u32 = 100;

/// A longer absence was no work of other threads: the process was stopped, or the machine.
const TAKEN_LONGEST: Duration = Duration::from_millis(100);

impl BusyPoll {
    /// Polls for `within` after each frame, at most [`BUSY_POLL_WITHIN_MAX`]; zero does not poll at all.
    pub(crate) fn new(within: Duration) -> Self {
        Self { within: within.min(BUSY_POLL_WITHIN_MAX) }
    }

    /// Notes that frames have come.
    pub(crate) fn heard(self) {
        self.note(Waits::heard);
    }

    /// Notes that the node has asked something that another process answers.
    pub(crate) fn asked(self) {
        self.note(|waits, now, _| waits.asked(now));
    }

    fn note(self, note: impl FnOnce(&mut Waits, Instant, Duration)) {
        if self.within.is_zero() {
            return;
        }
        THREAD.with(|thread| {
            let now = Instant::now();
            let mut waits = thread.waits.borrow_mut();
            note(&mut waits, now, self.within);
            thread.within.set(self.within);
            thread.has_moved.set(true);
            if waits.are_short(now) && !thread.is_polling.replace(true) {
                actix_rt::spawn(poll(End));
            }
        });
    }
}

/// Polls as long as frames come in time.
async fn poll(_end: End) {
    loop {
        // All other tasks have their turns first, then the events of the operating system.
        tokio::task::yield_now().await;
        if !THREAD.with(Thread::goes_on) {
            return;
        }
    }
}

/// Marks the end of polling, also when the task is dropped with its runtime, before its first turn or later: the thread may run another
/// runtime.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        // A thread that ends has no thread-local state any more.
        let _ = THREAD.try_with(|thread| thread.is_polling.set(false));
    }
}

impl Thread {
    fn goes_on(&self) -> bool {
        if self.has_moved.take() {
            return true;
        }
        let (before, within) = (Instant::now(), self.within.get());
        let mut waits = self.waits.borrow_mut();
        if waits.since.is_none_or(|since| before.saturating_duration_since(since) > within) {
            waits.give_up();
            return false;
        }
        // The thread that is to answer may need this very processor.
        std::thread::yield_now();
        waits.gave_way(before, Instant::now(), within)
    }
}

impl Waits {
    fn heard(&mut self, now: Instant, within: Duration) {
        if let Some(since) = self.since
            && !self.gave_up
        {
            if now.saturating_duration_since(since) <= within * ASLEEP {
                self.score = (self.score + 1).min(SCORE_MAX);
            } else {
                self.score = self.score.saturating_sub(LONG_COSTS);
            }
        }
        (self.since, self.asked, self.gave_up) = (Some(now), false, false);
    }

    /// Begins a wait, unless one has begun since the last frames: a later question does not make the wait for an answer begin anew.
    fn asked(&mut self, now: Instant) {
        if !self.asked {
            (self.since, self.asked, self.gave_up) = (Some(now), true, false);
        }
    }

    fn give_up(&mut self) {
        self.score = self.score.saturating_sub(LONG_COSTS);
        self.gave_up = true;
    }

    /// Other threads had the processor from `before` to `now`; says whether to go on polling.
    fn gave_way(&mut self, before: Instant, now: Instant, within: Duration) -> bool {
        let taken = now.saturating_duration_since(before);
        if taken <= within * TAKEN_MAX {
            return true;
        }
        self.not_before = now.checked_add(taken.min(TAKEN_LONGEST) * LEFT_ALONE);
        self.give_up();
        false
    }

    fn are_short(&self, now: Instant) -> bool {
        self.score >= SCORE_ENOUGH && self.not_before.is_none_or(|not_before| now >= not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_micros(100);

    /// Whether polling is worth it after each of these waits, in microseconds, for a thread that polls as long as it may.
    fn waits(us: impl IntoIterator<Item = u64>) -> Vec<bool> {
        let (mut waits, mut now) = (Waits::default(), Instant::now());
        waits.heard(now, WITHIN);
        us.into_iter()
            .map(|us| {
                let polls = waits.are_short(now);
                let wait = Duration::from_micros(us);
                if polls && wait > WITHIN {
                    waits.give_up();
                }
                now += wait;
                waits.heard(now, WITHIN);
                waits.are_short(now)
            })
            .collect()
    }

    #[test]
    fn a_thread_stays_awake_when_its_waits_have_been_short() {
        assert_eq!(waits([150; 8]), [[false; 7].as_slice(), &[true]].concat(), "both ends slept");
        assert_eq!(waits([50; 100])[8..], [true; 92]);
        assert!(!waits([250; 100]).contains(&true), "frames that come seldom are not polled for");
    }

    #[test]
    fn a_thread_sleeps_again_after_few_long_waits() {
        let idle = waits([[10; 100].as_slice(), &[5_000_000; 3]].concat());
        assert_eq!(idle[99..], [true, true, false, false]);
        assert!(!waits([10, 10, 10, 10, 250].repeat(20)).contains(&true), "one in five is too many");
        let rare = waits([[10; 30].as_slice(), &[150]].concat().repeat(20));
        assert!(!rare[20..].contains(&false), "one in thirty is not");
    }

    #[test]
    fn frames_that_always_come_too_late_are_polled_for_seldom() {
        let polls = waits([150; 900]).into_iter().filter(|polls| *polls).count();
        assert_eq!(polls, 100, "once in nine times");
    }

    #[test]
    fn a_thread_that_asks_and_hears_nothing_sleeps() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        (0..20).for_each(|_| waits.heard(start, WITHIN));
        waits.asked(start);
        waits.asked(start + WITHIN);
        assert_eq!(waits.since, Some(start), "the answer to the first question is waited for");
        (0..2).for_each(|_| waits.give_up());
        waits.asked(start + 2 * WITHIN);
        assert!(!waits.are_short(start + 2 * WITHIN));
        waits.heard(start + 3 * WITHIN, WITHIN);
        waits.asked(start + 4 * WITHIN);
        assert_eq!(waits.since, Some(start + 4 * WITHIN));
    }

    #[test]
    fn threads_that_need_the_processor_are_left_alone() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        (0..20).for_each(|_| waits.heard(start, WITHIN));
        assert!(waits.gave_way(start, start + WITHIN, WITHIN) && waits.are_short(start));
        let back = start + Duration::from_millis(3);
        assert!(!waits.gave_way(start, back, WITHIN));
        (0..20).for_each(|_| waits.heard(back, WITHIN));
        assert!(!waits.are_short(back + Duration::from_millis(299)));
        assert!(waits.are_short(back + Duration::from_millis(300)));
        waits.gave_way(back, back + Duration::from_secs(3600), WITHIN);
        assert!(waits.not_before < Some(back + Duration::from_secs(3611)), "it was the machine that stopped");
    }

    fn is_polling() -> bool {
        THREAD.with(|thread| thread.is_polling.get())
    }

    #[test]
    fn a_thread_polls_for_as_long_as_it_was_told_and_begins_anew() {
        for _ in 0..2 {
            actix_rt::System::new().block_on(async {
                let poll = BusyPoll::new(Duration::from_secs(3600));
                assert_eq!(poll.within, BUSY_POLL_WITHIN_MAX);
                (0..20).for_each(|_| poll.heard());
                assert!(is_polling());
                let began = Instant::now();
                while is_polling() {
                    tokio::task::yield_now().await;
                }
                assert!(began.elapsed() >= BUSY_POLL_WITHIN_MAX);
                // The task is dropped with its runtime while it polls.
                (0..20).for_each(|_| poll.heard());
                assert!(is_polling());
            });
            assert!(!is_polling());
        }
    }

    #[actix_rt::test]
    async fn zero_lets_a_thread_sleep() {
        let poll = BusyPoll::new(Duration::ZERO);
        (0..20).for_each(|_| poll.heard());
        poll.asked();
        assert!(!is_polling());
    }
}

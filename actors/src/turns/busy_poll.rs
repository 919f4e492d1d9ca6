//! Busy polling: a thread on which something nearly always comes within a moment stays awake for it. To put a processor to sleep and
//! to wake it costs more than what either end of a call does, so a call that finds both ends awake takes a small part of the time,
//! and less processor time as well. [`Waits`] decides by what has come so far whether it is worth it; a task that gives way to
//! everything else keeps the runtime from parking.

use meshwork_wire::limits::BUSY_POLL_WITHIN_MAX;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// Keeps the thread of whoever has it awake for so long, where that has been worth it.
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
    /// How long whoever heard or asked something last lets it stay awake.
    within: Cell<Duration>,
    is_polling: Cell<bool>,
    /// Whether something was heard or asked since the task looked last.
    has_moved: Cell<bool>,
}

/// How long a thread has waited so far.
#[derive(Default)]
struct Waits {
    score: u8,
    /// Since when it waits: since it heard something, or asked the first thing after that.
    since: Option<Instant>,
    /// Whether it has asked something and heard nothing since.
    asked: bool,
    /// Whether it was polled for since then, in vain.
    gave_up: bool,
    /// Others need the processor: until then they have it.
    not_before: Option<Instant>,
}

/// A short wait adds one to the score, up to this.
const SCORE_MAX: u8 = 16;

/// From this score on a thread stays awake.
const SCORE_ENOUGH: u8 = 8;

/// What a long wait takes from the score: one in nine is too many.
const LONG_COSTS: u8 = 8;

/// How much longer a wait takes when both ends sleep: that is what polling spares.
const ASLEEP: u32 = 2;

/// When others take the processor for so many times as long as one would poll, they have work of their own.
const TAKEN_MAX: u32 = 5;

/// And are left alone for so many times as long as they took it.
const LEFT_ALONE: u32 = 100;

/// What was longer was no other's work: the process was stopped, or the machine.
const TAKEN_LONGEST: Duration = Duration::from_millis(100);

impl BusyPoll {
    /// At most [`BUSY_POLL_WITHIN_MAX`]; zero does not poll at all.
    pub(crate) fn new(within: Duration) -> Self {
        Self { within: within.min(BUSY_POLL_WITHIN_MAX) }
    }

    /// Frames have come.
    pub(crate) fn heard(self) {
        self.note(Waits::heard);
    }

    /// Something was asked that others answer.
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

/// Goes on as long as something comes in time.
async fn poll(_end: End) {
    loop {
        // Everything else has its turn first, then whatever the operating system has for us.
        tokio::task::yield_now().await;
        if !THREAD.with(Thread::goes_on) {
            return;
        }
    }
}

/// Also when the task is dropped with its runtime, before its first turn or later: the thread may have another one.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        // At the end of the thread there is none.
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
        // Whoever is to answer may need this very processor.
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

    /// What is asked later does not make the wait for an answer begin anew.
    fn asked(&mut self, now: Instant) {
        if !self.asked {
            (self.since, self.asked, self.gave_up) = (Some(now), true, false);
        }
    }

    fn give_up(&mut self) {
        self.score = self.score.saturating_sub(LONG_COSTS);
        self.gave_up = true;
    }

    /// Others had the processor meanwhile; says whether to go on.
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

    /// What a thread makes of these waits, in microseconds, if it polls as long as it may: whether it is worth it after each.
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
        assert!(!waits([250; 100]).contains(&true), "what comes seldom is not waited for");
    }

    #[test]
    fn it_sleeps_again_after_few_long_waits() {
        let idle = waits([[10; 100].as_slice(), &[5_000_000; 3]].concat());
        assert_eq!(idle[99..], [true, true, false, false]);
        assert!(!waits([10, 10, 10, 10, 250].repeat(20)).contains(&true), "one in five is too many");
        let rare = waits([[10; 30].as_slice(), &[150]].concat().repeat(20));
        assert!(!rare[20..].contains(&false), "one in thirty is not");
    }

    #[test]
    fn what_always_comes_too_late_is_polled_for_seldom() {
        let polls = waits([150; 900]).into_iter().filter(|polls| *polls).count();
        assert_eq!(polls, 100, "once in nine times");
    }

    #[test]
    fn whoever_asks_and_hears_nothing_sleeps() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        (0..20).for_each(|_| waits.heard(start, WITHIN));
        waits.asked(start);
        waits.asked(start + WITHIN);
        assert_eq!(waits.since, Some(start), "the first one is waited for");
        (0..2).for_each(|_| waits.give_up());
        waits.asked(start + 2 * WITHIN);
        assert!(!waits.are_short(start + 2 * WITHIN));
        waits.heard(start + 3 * WITHIN, WITHIN);
        waits.asked(start + 4 * WITHIN);
        assert_eq!(waits.since, Some(start + 4 * WITHIN));
    }

    #[test]
    fn whoever_needs_the_processor_is_left_alone() {
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
    fn it_polls_for_as_long_as_it_was_told_and_begins_anew() {
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
                // Dropped with its runtime in the middle of it.
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

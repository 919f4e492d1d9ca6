//! The callback table: which id resolves what, and until when. It decides who is first, the reply, the deadline or the end
//! of the link; an id that was settled is gone, so whatever comes later can only miss. No runtime, no clock: `now` comes in.

use super::deadlines::Deadlines;
use super::slots::Slots;
use meshwork_wire::CallbackId;
use std::time::Instant;

/// What waits for ids, each with a deadline or without.
pub(crate) struct CallbackTable<W> {
    waiters: Slots<W>,
    deadlines: Deadlines,
}

impl<W> CallbackTable<W> {
    pub(crate) fn new() -> Self {
        Self { waiters: Slots::new(), deadlines: Deadlines::default() }
    }

    /// Lets `waiter` wait for `id`. Gives back what waited for it already, which is the caller's mistake or an attack.
    pub(crate) fn insert(&mut self, id: CallbackId, waiter: W, deadline: Option<Instant>) -> Option<W> {
        if let Some(deadline) = deadline {
            self.deadlines.push(deadline, id);
        }
        self.waiters.insert(id, waiter)
    }

    /// Whoever waits for `id`, to be told; nobody from now on.
    pub(crate) fn settle(&mut self, id: CallbackId) -> Option<W> {
        let waiter = self.waiters.remove(id)?;
        self.deadlines.settled(id, |id| self.waiters.contains(id), self.waiters.len());
        Some(waiter)
    }

    pub(crate) fn get_mut(&mut self, id: CallbackId) -> Option<&mut W> {
        self.waiters.get_mut(id)
    }

    pub(crate) fn contains(&self, id: CallbackId) -> bool {
        self.waiters.contains(id)
    }

    /// The next of those whose deadline has passed.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(CallbackId, W)> {
        loop {
            let id = self.deadlines.pop(now)?;
            if let Some(waiter) = self.waiters.remove(id) {
                return Some((id, waiter));
            }
        }
    }

    /// When to look for expired ones again.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        self.deadlines.drop_settled(|id| self.waiters.contains(id));
        self.deadlines.first()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Everyone for whom `gone` holds, to be told.
    pub(crate) fn take_if(&mut self, mut gone: impl FnMut(&W) -> bool) -> Vec<(CallbackId, W)> {
        let taken = self.waiters.take_if(|waiter| gone(waiter));
        self.deadlines.sweep(|id| self.waiters.contains(id));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(start: Instant, ms: u64) -> Option<Instant> {
        Some(start + Duration::from_millis(ms))
    }

    #[test]
    fn whoever_settles_first_wins_and_the_second_misses() {
        let start = Instant::now();
        let mut table = CallbackTable::new();
        assert_eq!(table.insert(CallbackId(1), "one", at(start, 5)), None);
        assert_eq!(table.settle(CallbackId(1)), Some("one"));
        assert_eq!(table.settle(CallbackId(1)), None);
        assert_eq!(table.expired(start + Duration::from_secs(1)), None);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn deadlines_expire_in_their_order_whatever_order_they_came_in() {
        let start = Instant::now();
        let mut table = CallbackTable::new();
        for (id, ms) in [(1, 30), (2, 10), (3, 40), (4, 20)] {
            table.insert(CallbackId(id), id, at(start, ms));
        }
        table.insert(CallbackId(5), 5, None);
        assert_eq!(table.next_deadline(), at(start, 10));
        let now = start + Duration::from_millis(30);
        let mut expired = Vec::new();
        while let Some((_, waiter)) = table.expired(now) {
            expired.push(waiter);
        }
        assert_eq!(expired, [2, 4, 1]);
        assert_eq!(table.next_deadline(), at(start, 40));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_call_that_never_ends_does_not_keep_the_deadlines_of_the_settled_ones() {
        let start = Instant::now();
        let mut table = CallbackTable::new();
        table.insert(CallbackId(0), (), at(start, 1_000_000));
        for id in 1..100_000 {
            table.insert(CallbackId(id), (), at(start, 1000 + id % 7));
            table.settle(CallbackId(id)).expect("it waits");
        }
        assert!(table.deadlines.len() <= 68);
        assert_eq!(table.next_deadline(), at(start, 1_000_000));
    }

    #[test]
    fn those_who_wait_for_a_lost_link_are_taken_and_the_others_stay() {
        let mut table = CallbackTable::new();
        table.insert(CallbackId(1), "link", None);
        table.insert(CallbackId(2), "here", None);
        assert_eq!(table.take_if(|waiter| *waiter == "link"), [(CallbackId(1), "link")]);
        assert!(table.contains(CallbackId(2)));
        assert_eq!(table.take_if(|_| true), [(CallbackId(2), "here")]);
    }
}

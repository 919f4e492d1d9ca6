//! The callback table: which id resolves what, and until when. It decides who is first, the reply, the deadline or the end
//! of the link; an id that was settled is gone, so whatever comes later can only miss. No runtime, no clock: `now` comes in.

mod slots;

pub(crate) use slots::Slots;

use meshwork_wire::CallbackId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

/// What waits for ids, each with a deadline or without.
pub(crate) struct CallbackTable<W> {
    waiters: Slots<W>,
    deadlines: Deadlines,
}

/// Deadlines in order. Most calls of a connection have the same time, so their deadlines come in order already and go into a
/// queue; the others go into a heap. Settled ids are swept out when they are the majority.
#[derive(Default)]
pub(crate) struct Deadlines {
    in_order: VecDeque<(Instant, CallbackId)>,
    others: BinaryHeap<Reverse<(Instant, CallbackId)>>,
}

/// Below this many deadlines a sweep is not worth it.
const SWEEP_LEN_MIN: usize = 64;

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

    /// Everyone, to be told.
    pub(crate) fn take_all(&mut self) -> Vec<(CallbackId, W)> {
        self.deadlines = Deadlines::default();
        self.waiters.take_all()
    }
}

impl Deadlines {
    pub(crate) fn push(&mut self, deadline: Instant, id: CallbackId) {
        match self.in_order.back() {
            Some((last, _)) if *last > deadline => self.others.push(Reverse((deadline, id))),
            _ => self.in_order.push_back((deadline, id)),
        }
    }

    pub(crate) fn settled(&mut self, id: CallbackId, waits: impl Fn(CallbackId) -> bool, waiting: usize) {
        // Replies come in order more often than not.
        if self.in_order.front().is_some_and(|(_, first)| *first == id) {
            self.in_order.pop_front();
        } else if self.in_order.len() + self.others.len() > SWEEP_LEN_MIN + 2 * waiting {
            self.sweep(waits);
        }
    }

    pub(crate) fn sweep(&mut self, waits: impl Fn(CallbackId) -> bool) {
        self.in_order.retain(|(_, id)| waits(*id));
        self.others.retain(|Reverse((_, id))| waits(*id));
    }

    pub(crate) fn drop_settled(&mut self, waits: impl Fn(CallbackId) -> bool) {
        while self.in_order.front().is_some_and(|(_, id)| !waits(*id)) {
            self.in_order.pop_front();
        }
        while self.others.peek().is_some_and(|Reverse((_, id))| !waits(*id)) {
            self.others.pop();
        }
    }

    pub(crate) fn first(&self) -> Option<Instant> {
        let in_order = self.in_order.front().map(|(deadline, _)| *deadline);
        let others = self.others.peek().map(|Reverse((deadline, _))| *deadline);
        match (in_order, others) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.in_order.len() + self.others.len()
    }

    /// Whose deadline is the first one.
    pub(crate) fn first_id(&self) -> Option<CallbackId> {
        let others = self.others.peek().map(|Reverse(first)| first);
        self.in_order.front().into_iter().chain(others).min().map(|(_, id)| *id)
    }

    fn pop(&mut self, now: Instant) -> Option<CallbackId> {
        let first = self.first().filter(|first| *first <= now)?;
        if self.in_order.front().is_some_and(|(deadline, _)| *deadline == first) {
            self.in_order.pop_front().map(|(_, id)| id)
        } else {
            self.others.pop().map(|Reverse((_, id))| id)
        }
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
        assert!(table.deadlines.in_order.len() + table.deadlines.others.len() <= SWEEP_LEN_MIN + 4);
        assert_eq!(table.next_deadline(), at(start, 1_000_000));
    }

    #[test]
    fn those_who_wait_for_a_lost_link_are_taken_and_the_others_stay() {
        let mut table = CallbackTable::new();
        table.insert(CallbackId(1), "link", None);
        table.insert(CallbackId(2), "here", None);
        assert_eq!(table.take_if(|waiter| *waiter == "link"), [(CallbackId(1), "link")]);
        assert!(table.contains(CallbackId(2)));
        assert_eq!(table.take_all(), [(CallbackId(2), "here")]);
    }
}

//! The deadlines of calls, in order.

use meshwork_wire::CallbackId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

/// The deadlines of calls, in order. Most calls of a connection may take equally long, so their deadlines come in order already and go into a
/// queue; any other deadline goes into a heap. The deadlines of settled calls are swept out when they are the majority.
#[derive(Default)]
pub(crate) struct Deadlines {
    in_order: VecDeque<(Instant, CallbackId)>,
    others: BinaryHeap<Reverse<(Instant, CallbackId)>>,
}

/// Below this many deadlines a sweep is not worth it.
const SWEEP_LEN_MIN: usize = 64;

impl Deadlines {
    pub(crate) fn push(&mut self, deadline: Instant, id: CallbackId) {
        match self.in_order.back() {
            Some((last, _)) if *last > deadline => self.others.push(Reverse((deadline, id))),
            _ => self.in_order.push_back((deadline, id)),
        }
    }

    /// Notes that the call of this id is settled, with at most `waiting` calls that still wait.
    pub(crate) fn settled(&mut self, id: CallbackId, waits: impl Fn(CallbackId) -> bool, waiting: usize) {
        // Replies come in order more often than not.
        if self.in_order.front().is_some_and(|(_, first)| *first == id) {
            self.in_order.pop_front();
        } else {
            self.sweep_if_long(waits, waiting);
        }
    }

    /// Sweeps if most deadlines are of settled calls; at most `waiting` calls still wait. Each sweep drops more than half of the deadlines, so
    /// it costs no more than putting them in did.
    #[inline]
    pub(crate) fn sweep_if_long(&mut self, waits: impl Fn(CallbackId) -> bool, waiting: usize) {
        if self.len() > SWEEP_LEN_MIN + 2 * waiting {
            self.sweep(waits);
        }
    }

    /// Drops the deadlines of all settled calls.
    pub(crate) fn sweep(&mut self, waits: impl Fn(CallbackId) -> bool) {
        self.in_order.retain(|(_, id)| waits(*id));
        self.others.retain(|Reverse((_, id))| waits(*id));
    }

    /// Drops the deadlines of settled calls at the front, so that the first deadline is one of a call that waits.
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

    pub(crate) fn len(&self) -> usize {
        self.in_order.len() + self.others.len()
    }

    /// Takes the id of the first deadline, if it has passed.
    pub(super) fn pop(&mut self, now: Instant) -> Option<CallbackId> {
        let first = self.first().filter(|first| *first <= now)?;
        if self.in_order.front().is_some_and(|(deadline, _)| *deadline == first) {
            self.in_order.pop_front().map(|(_, id)| id)
        } else {
            self.others.pop().map(|Reverse((_, id))| id)
        }
    }
}

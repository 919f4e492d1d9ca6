//! Which response actor resolves which callback ids: each is bound to the calls that left together, and is free again when the last
//! of them is settled. Pure, and generic over what a response actor is.
//!
//! Calls leave in the order of their ids, so the ids of one binding lie between those of the one before it and the one behind it.

use super::in_flight::Departure;
use meshwork_wire::CallbackId;
use std::collections::VecDeque;

/// The response actors that are bound, in the order in which their calls left.
pub(crate) struct Bindings<R> {
    bound: VecDeque<Binding<R>>,
    /// How many of them have calls that are not settled. The others are let go when they are at the front, or the majority.
    open: usize,
    /// How many calls are not settled.
    left: usize,
    /// Where an id was found last: replies to calls that left together come together.
    last: usize,
}

/// A response actor, and the calls that it is bound to.
pub(crate) struct Binding<R> {
    pub(crate) departure: Departure,
    /// How many of them are not settled.
    left: usize,
    /// The calls before this one have no deadline, or one that has passed. Of use to a departure whose deadlines are in order.
    pub(crate) unexpired: CallbackId,
    /// None when all are settled: it is free again then.
    pub(crate) response: Option<R>,
}

/// Below this many bindings a sweep is not worth it.
const SWEEP_LEN_MIN: usize = 16;

impl<R> Bindings<R> {
    pub(crate) fn new() -> Self {
        Self { bound: VecDeque::new(), open: 0, left: 0, last: 0 }
    }

    /// Binds a response actor to the calls of a departure, which left behind all that are bound already.
    pub(crate) fn bind(&mut self, departure: Departure, response: R) {
        self.open += 1;
        self.left += departure.count;
        let binding = Binding {
            departure,
            left: departure.count,
            unexpired: departure.first,
            response: Some(response),
        };
        self.bound.push_back(binding);
    }

    /// Where the binding of an id stands, until one is [settled](Self::settled).
    #[inline]
    pub(crate) fn find(&mut self, id: CallbackId) -> Option<usize> {
        if self.bound.get(self.last).is_some_and(|binding| binding.has(id)) {
            return Some(self.last);
        }
        let at = self.bound.partition_point(|binding| binding.departure.first <= id).checked_sub(1)?;
        if !self.bound[at].has(id) {
            return None;
        }
        self.last = at;
        Some(at)
    }

    /// Whether a deadline under this id may still pass: it is that of a departure in order which has calls that are not settled, or of a call of
    /// another departure that waits.
    pub(crate) fn may_expire(&self, id: CallbackId, waits: impl FnOnce() -> bool) -> bool {
        let at = self.bound.partition_point(|binding| binding.departure.first <= id).checked_sub(1);
        let binding = at.and_then(|at| self.bound.get(at)).filter(|it| it.has(id) && it.left > 0);
        binding.is_some_and(|binding| binding.departure.in_order || waits())
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Binding<R>> {
        self.bound.get_mut(at)
    }

    /// So many calls of a binding are settled; gives its response actor if they were the last ones.
    pub(crate) fn settled(&mut self, at: usize, count: usize) -> Option<R> {
        let binding = self.bound.get_mut(at)?;
        let count = count.min(binding.left);
        binding.left -= count;
        self.left -= count;
        if binding.left > 0 {
            return None;
        }
        let response = binding.response.take()?;
        self.open -= 1;
        self.sweep();
        Some(response)
    }

    /// The ids of all runs that have calls which are not settled.
    pub(crate) fn open_departures(&self) -> Vec<Departure> {
        self.bound.iter().filter(|binding| binding.left > 0).map(|binding| binding.departure).collect()
    }

    /// How many calls are not settled.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.bound.len()
    }

    fn sweep(&mut self) {
        while self.bound.front().is_some_and(|front| front.left == 0) {
            self.bound.pop_front();
            self.last = self.last.saturating_sub(1);
        }
        if self.bound.len() > SWEEP_LEN_MIN + 2 * self.open {
            self.bound.retain(|binding| binding.left > 0);
        }
    }
}

impl<R> Binding<R> {
    #[inline]
    fn has(&self, id: CallbackId) -> bool {
        self.departure.first <= id && id <= self.departure.last
    }
}

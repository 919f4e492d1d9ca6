//! Which response actor resolves which callback ids. A response actor is bound to the calls of one departure, and is free again when the
//! last of these calls is settled. Pure, and generic over the type of a response actor.
//!
//! Calls leave in the order of their ids, so the ids of a binding lie between the ids of the bindings before and behind it.

use super::in_flight::Departure;
use meshwork_wire::CallbackId;
use std::collections::VecDeque;

/// The bindings of a node, in the order in which their calls left.
pub(crate) struct Bindings<R> {
    bound: VecDeque<Binding<R>>,
    /// How many bindings have calls that are not settled. The other bindings are dropped when they are at the front, or the majority.
    open: usize,
    /// How many calls are not settled.
    unsettled: usize,
    /// The index of the binding of the last id: replies to calls of one departure come together.
    last: usize,
}

/// A binding: a response actor with the departure whose calls it resolves.
pub(crate) struct Binding<R> {
    pub(crate) departure: Departure,
    /// How many of its calls are not settled.
    unsettled: usize,
    /// The calls before this id have no deadline, or a deadline that has passed. Used only for a departure whose deadlines are in order.
    pub(crate) unexpired: CallbackId,
    /// None when all calls are settled: the response actor is free again then.
    pub(crate) response: Option<R>,
}

/// Below this many bindings a sweep is not worth it.
const SWEEP_LEN_MIN: usize = 16;

impl<R> Bindings<R> {
    pub(crate) fn new() -> Self {
        Self { bound: VecDeque::new(), open: 0, unsettled: 0, last: 0 }
    }

    /// Binds a response actor to the calls of a departure, which leaves behind all departures that are bound already.
    pub(crate) fn bind(&mut self, departure: Departure, response: R) {
        self.open += 1;
        self.unsettled += departure.count;
        let binding = Binding {
            departure,
            unsettled: departure.count,
            unexpired: departure.first,
            response: Some(response),
        };
        self.bound.push_back(binding);
    }

    /// The index of the binding of an id, valid until a binding is [settled](Self::settled).
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

    /// Whether a deadline under this id may still pass. A departure whose deadlines are in order has one deadline, under its first id, until
    /// all its calls are settled; in any other departure each call has its own, as long as it waits.
    pub(crate) fn may_expire(&self, id: CallbackId, waits: impl FnOnce() -> bool) -> bool {
        let at = self.bound.partition_point(|binding| binding.departure.first <= id).checked_sub(1);
        let binding = at.and_then(|at| self.bound.get(at)).filter(|it| it.has(id) && it.unsettled > 0);
        binding.is_some_and(|binding| binding.departure.in_order || waits())
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Binding<R>> {
        self.bound.get_mut(at)
    }

    /// Notes that `count` calls of a binding are settled; gives its response actor if these were the last.
    pub(crate) fn settled(&mut self, at: usize, count: usize) -> Option<R> {
        let binding = self.bound.get_mut(at)?;
        let count = count.min(binding.unsettled);
        binding.unsettled -= count;
        self.unsettled -= count;
        if binding.unsettled > 0 {
            return None;
        }
        let response = binding.response.take()?;
        self.open -= 1;
        self.sweep();
        Some(response)
    }

    /// The departures that have calls which are not settled.
    pub(crate) fn open_departures(&self) -> Vec<Departure> {
        self.bound.iter().filter(|binding| binding.unsettled > 0).map(|binding| binding.departure).collect()
    }

    /// How many calls are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.bound.len()
    }

    fn sweep(&mut self) {
        while self.bound.front().is_some_and(|front| front.unsettled == 0) {
            self.bound.pop_front();
            self.last = self.last.saturating_sub(1);
        }
        if self.bound.len() > SWEEP_LEN_MIN + 2 * self.open {
            self.bound.retain(|binding| binding.unsettled > 0);
        }
    }
}

impl<R> Binding<R> {
    #[inline]
    fn has(&self, id: CallbackId) -> bool {
        self.departure.first <= id && id <= self.departure.last
    }
}

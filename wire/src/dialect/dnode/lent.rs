//! The functions of the mesh that foreign programs hold. A program of today's Node.js never gives one back, so the one that was used
//! longest ago makes room. The bound is one for all connections of a gateway: the functions may all be those of one node.

use crate::id::CallbackId;
use crate::limits::FOREIGN_FUNCTIONS_MAX;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bound of the functions that the programs at all connections of one gateway hold. Clones share the bound.
#[derive(Clone, Debug)]
pub struct LentFunctions(Arc<Mutex<Uses>>);

/// The functions that the program at one connection holds.
#[derive(Debug)]
pub(super) struct Lent {
    all: LentFunctions,
    connection: u64,
    /// The numbers of the functions on this connection.
    numbers: HashMap<CallbackId, u64>,
    /// The functions by their numbers, each with its last use.
    functions: HashMap<u64, (CallbackId, u64)>,
}

/// The uses of all functions, the last use of each.
#[derive(Debug)]
struct Uses {
    max: usize,
    /// The connection and the number of each function, in the order of their uses.
    in_order: BTreeMap<u64, (u64, u64)>,
    /// The numbers that connections are to take back. Each connection does so when it is used, and about once a second.
    to_take_back: HashMap<u64, Vec<u64>>,
    next_use: u64,
    next_connection: u64,
}

impl Default for LentFunctions {
    fn default() -> Self {
        Self::at_most(FOREIGN_FUNCTIONS_MAX)
    }
}

impl LentFunctions {
    fn at_most(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Uses {
            max,
            in_order: BTreeMap::new(),
            to_take_back: HashMap::new(),
            next_use: 0,
            next_connection: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Uses> {
        // Nothing in here leaves the uses half-changed when it panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uses {
    fn note(&mut self, connection: u64, number: u64) -> u64 {
        let this = self.next_use;
        self.next_use += 1;
        self.in_order.insert(this, (connection, number));
        this
    }
}

impl Lent {
    pub(super) fn new(all: LentFunctions) -> Self {
        let connection = {
            let mut uses = all.lock();
            uses.next_connection += 1;
            uses.next_connection
        };
        Self { all, connection, numbers: HashMap::new(), functions: HashMap::new() }
    }

    /// The number of a function that the program has already.
    pub(super) fn number(&self, id: CallbackId) -> Option<u64> {
        self.numbers.get(&id).copied()
    }

    /// Notes that a function is passed under a number. Functions that were used longest ago are to be taken back for it.
    pub(super) fn pass(&mut self, id: CallbackId, number: u64) {
        let mut uses = self.all.lock();
        let last = uses.note(self.connection, number);
        while uses.in_order.len() > uses.max {
            let Some((_, (connection, oldest))) = uses.in_order.pop_first() else { break };
            uses.to_take_back.entry(connection).or_default().push(oldest);
        }
        drop(uses);
        self.numbers.insert(id, number);
        self.functions.insert(number, (id, last));
    }

    /// Notes that the program has used the function of this number.
    pub(super) fn used(&mut self, number: u64) {
        if let Some((_, last)) = self.functions.get_mut(&number) {
            let mut uses = self.all.lock();
            // A function that is to be taken back stays so.
            if uses.in_order.remove(last).is_some() {
                *last = uses.note(self.connection, number);
            }
        }
    }

    /// Takes a function out that the program holds no more.
    pub(super) fn release(&mut self, number: u64) -> Option<CallbackId> {
        let (id, last) = self.functions.remove(&number)?;
        self.numbers.remove(&id);
        self.all.lock().in_order.remove(&last);
        Some(id)
    }

    /// The numbers of the functions that are to be taken back.
    pub(super) fn to_take_back(&self) -> Vec<u64> {
        self.all.lock().to_take_back.remove(&self.connection).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut uses = self.all.lock();
        for (_, last) in self.functions.values() {
            uses.in_order.remove(last);
        }
        uses.to_take_back.remove(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_that_was_used_longest_ago_makes_room_at_whichever_connection() {
        let all = LentFunctions::at_most(3);
        let (mut one, mut other) = (Lent::new(all.clone()), Lent::new(all.clone()));
        for number in [0, 1] {
            one.pass(CallbackId(10 + number), number);
        }
        other.pass(CallbackId(20), 0);
        one.used(0);
        assert!(one.to_take_back().is_empty() && other.to_take_back().is_empty());
        other.pass(CallbackId(21), 1);
        assert_eq!((one.to_take_back(), other.to_take_back()), (vec![1], vec![]));
        assert_eq!((one.release(1), one.release(1)), (Some(CallbackId(11)), None));
        // What has gone makes room, one by one or with its connection.
        assert_eq!(other.release(0), Some(CallbackId(20)));
        other.pass(CallbackId(22), 2);
        assert!(one.to_take_back().is_empty() && other.to_take_back().is_empty());
        drop(other);
        for number in [5, 6] {
            one.pass(CallbackId(30 + number), number);
        }
        assert!(one.to_take_back().is_empty());
        one.pass(CallbackId(40), 7);
        assert_eq!(one.to_take_back(), [0]);
        drop(one);
        assert!(all.lock().in_order.is_empty() && all.lock().to_take_back.is_empty());
    }
}

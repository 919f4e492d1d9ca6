//! The functions that are lent over one link: a number for each, until the other end releases it.

use crate::hashed::HashMap;
use meshwork_wire::limits::CALLBACKS_PER_CONNECTION_MAX;
use meshwork_wire::{CallbackId, Callbacks, Function, Passed};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The functions that are lent over one link, and the number of functions that are borrowed over it.
#[derive(Default)]
pub(crate) struct Lent {
    table: Mutex<Functions>,
    borrowed: AtomicUsize,
}

/// The lent functions by their numbers.
#[derive(Default)]
struct Functions {
    functions: HashMap<CallbackId, Function>,
    next_id: u64,
}

/// [`CALLBACKS_PER_CONNECTION_MAX`] functions are lent over the link already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooMuchLent;

impl Lent {
    /// Draws a number for each function of this process among these; functions that have a number keep it.
    pub(crate) fn lend(&self, callbacks: &Callbacks) -> Result<Callbacks, TooMuchLent> {
        let mut table = self.lock();
        if table.functions.len() + callbacks.len() > CALLBACKS_PER_CONNECTION_MAX {
            return Err(TooMuchLent);
        }
        Ok(Callbacks::new(callbacks.iter().map(|passed| match passed {
            Passed::Here(function) => {
                let id = CallbackId(table.next_id);
                table.next_id += 1;
                table.functions.insert(id, function.clone());
                Passed::Lent(id)
            }
            Passed::Lent(id) => Passed::Lent(*id),
        })))
    }

    /// Releases the functions of a frame that did not leave.
    pub(crate) fn take_back(&self, callbacks: &Callbacks) {
        for id in callbacks.ids() {
            self.release(id);
        }
    }

    /// The function that is lent under this number.
    pub(crate) fn get(&self, id: CallbackId) -> Option<Function> {
        self.lock().functions.get(&id).cloned()
    }

    /// Takes out a function that the other end has released.
    pub(crate) fn take(&self, id: CallbackId) -> Option<Function> {
        self.lock().functions.remove(&id)
    }

    /// Drops a function that the other end has released.
    pub(crate) fn release(&self, id: CallbackId) {
        // Dropped when the lock is free: the end of a value that the function holds may take the lock.
        let released = self.lock().functions.remove(&id);
        drop(released);
    }

    /// Drops all functions, at the end of the link.
    pub(crate) fn release_all(&self) {
        let released = std::mem::take(&mut self.lock().functions);
        drop(released);
    }

    /// How many functions are lent.
    pub(crate) fn len(&self) -> usize {
        self.lock().functions.len()
    }

    /// How many functions are borrowed.
    pub(crate) fn borrowed(&self) -> usize {
        self.borrowed.load(Ordering::Relaxed)
    }

    /// Counts functions that the other end lends to this one; `false`, without counting them, if they would be more than
    /// [`CALLBACKS_PER_CONNECTION_MAX`].
    pub(crate) fn borrow(&self, count: usize) -> bool {
        let fit = self.borrowed.fetch_add(count, Ordering::Relaxed) + count <= CALLBACKS_PER_CONNECTION_MAX;
        if !fit {
            self.give_back(count);
        }
        fit
    }

    /// Uncounts functions of the other end that this end has released.
    pub(crate) fn give_back(&self, count: usize) {
        self.borrowed.fetch_sub(count, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Functions> {
        // Nothing in here leaves the table half-changed when it panics.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The functions that are lent over one link: a number for each, until the other end releases it.

use hashbrown::HashMap;
use meshwork_wire::limits::CALLBACKS_PER_CONNECTION_MAX;
use meshwork_wire::{CallbackId, Callbacks, Function, Passed};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is lent over one link, and how much is borrowed over it.
#[derive(Default)]
pub(crate) struct Lent {
    table: Mutex<Functions>,
    borrowed: AtomicUsize,
}

#[derive(Default)]
struct Functions {
    functions: HashMap<CallbackId, Function>,
    next_id: u64,
}

/// As much is lent over the link as may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooMuchLent;

impl Lent {
    /// Draws numbers for those that are at hand.
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

    /// Those were lent by a frame that did not leave.
    pub(crate) fn take_back(&self, callbacks: &Callbacks) {
        for id in callbacks.ids() {
            self.release(id);
        }
    }

    /// What is lent under this number.
    pub(crate) fn get(&self, id: CallbackId) -> Option<Function> {
        self.lock().functions.get(&id).cloned()
    }

    /// Takes out a function that the other end needs no more.
    pub(crate) fn take(&self, id: CallbackId) -> Option<Function> {
        self.lock().functions.remove(&id)
    }

    /// The other end needs it no more.
    pub(crate) fn release(&self, id: CallbackId) {
        // Dropped when the lock is free: what a closure holds may do anything then.
        let released = self.lock().functions.remove(&id);
        drop(released);
    }

    /// The link is gone.
    pub(crate) fn release_all(&self) {
        let released = std::mem::take(&mut self.lock().functions);
        drop(released);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().functions.len()
    }

    pub(crate) fn borrowed(&self) -> usize {
        self.borrowed.load(Ordering::Relaxed)
    }

    /// Counts functions that the other end lends to this one, unless they were too many then.
    pub(crate) fn borrow(&self, count: usize) -> bool {
        let fit = self.borrowed.fetch_add(count, Ordering::Relaxed) + count <= CALLBACKS_PER_CONNECTION_MAX;
        if !fit {
            self.give_back(count);
        }
        fit
    }

    /// Functions of the other end are held no more.
    pub(crate) fn give_back(&self, count: usize) {
        self.borrowed.fetch_sub(count, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Functions> {
        // Nothing in here leaves the table half-changed when it panics.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

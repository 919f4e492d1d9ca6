//! How many calls of one node are in flight, counted by every handle and by the actor.

use meshwork_wire::limits::IN_FLIGHT_MAX;
use meshwork_wire::{CallError, Code, Fate};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The calls of one node that are in flight, and how many may be.
pub(crate) struct Load {
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    /// Told when nothing is in flight any more.
    idle: Notify,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(IN_FLIGHT_MAX),
            idle: Notify::new(),
        }
    }
}

impl Load {
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn set_in_flight_max(&self, max: usize) {
        self.in_flight_max.store(max, Ordering::Relaxed);
    }

    /// Takes the place of one call in flight; [`Node::settled`] gives it back.
    pub(crate) fn take_place(&self) -> Result<(), CallError> {
        let max = self.in_flight_max.load(Ordering::Relaxed);
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < max {
            return Ok(());
        }
        self.settled();
        Err(CallError::new(Code::OVERLOADED, Fate::NotSent, format!("{max} calls are in flight already")))
    }

    /// Takes the places of so many, or none.
    pub(crate) fn take_places(&self, count: usize) -> bool {
        let max = self.in_flight_max.load(Ordering::Relaxed);
        let fit = self.in_flight.fetch_add(count, Ordering::Relaxed) + count <= max;
        if !fit {
            self.settled_many(count);
        }
        fit
    }

    pub(crate) fn settled(&self) {
        self.settled_many(1);
    }

    pub(crate) fn settled_many(&self, count: usize) {
        if count > 0 && self.in_flight.fetch_sub(count, Ordering::AcqRel) == count {
            self.idle.notify_waiters();
        }
    }

    /// Waits until none of its calls is in flight.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

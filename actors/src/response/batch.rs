//! Many calls that are awaited as one. They share one response actor and one place where their outcomes gather; each has its
//! own entry in the callback table, its own deadline and its own outcome.

use super::ResponseActor;
use crate::responder::Outcome;
use actix::{Actor, Addr, Message};
use futures::task::AtomicWaker;
use meshwork_wire::{CallError, Code, Fate};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

/// Where the outcomes of many calls gather.
#[derive(Default)]
pub(crate) struct Batch {
    /// What the caller is told, and has not taken yet.
    told: Mutex<Vec<(usize, Outcome)>>,
    caller: AtomicWaker,
    response: OnceLock<Addr<ResponseActor>>,
    /// Calls that are resolved, for the response actor: it is told of the first and takes all that are there by then.
    resolved: Mutex<Vec<(usize, Outcome)>>,
}

/// The place of one call in its batch. Whatever becomes of it, the call has an outcome when it is gone.
pub(crate) struct Seat {
    batch: Arc<Batch>,
    place: usize,
    told: bool,
}

/// Calls of a batch are resolved. Sent by the branch or master that made them, for all that one block of frames resolved; the
/// receiver hands their outcomes to the caller, if that still waits.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ResolveMany(Arc<Batch>);

impl Batch {
    /// The place of one call. Each is given once.
    pub(crate) fn seat(self: &Arc<Self>, place: usize) -> Seat {
        Seat { batch: Arc::clone(self), place, told: false }
    }

    /// Some outcomes, each with its place, as soon as there are any.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Vec<(usize, Outcome)>> {
        self.caller.register(context.waker());
        let told = std::mem::take(&mut *self.told());
        if told.is_empty() { Poll::Pending } else { Poll::Ready(told) }
    }

    /// The places of the calls that have an outcome which the caller has not taken.
    pub(crate) fn settled(&self) -> Vec<usize> {
        let (resolved, told) = (self.resolved(), self.told());
        resolved.iter().chain(told.iter()).map(|(place, _)| *place).collect()
    }

    /// Tells the caller.
    pub(crate) fn tell(&self, place: usize, outcome: Outcome) {
        self.told().push((place, outcome));
        self.caller.wake();
    }

    fn told(&self) -> MutexGuard<'_, Vec<(usize, Outcome)>> {
        // Nothing in here leaves the outcomes half-changed when it panics.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolved(&self) -> MutexGuard<'_, Vec<(usize, Outcome)>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolveMany {
    /// Gives the calls that are resolved by now their outcomes; gives their number.
    pub(crate) fn settle(&self) -> usize {
        let mut waiting = self.0.resolved();
        let count = waiting.len();
        if count == 0 {
            return 0;
        }
        // As many may follow.
        let mut resolved = std::mem::replace(&mut *waiting, Vec::with_capacity(count));
        let mut told = self.0.told();
        drop(waiting);
        if told.is_empty() {
            *told = resolved;
        } else {
            told.append(&mut resolved);
        }
        drop(told);
        self.0.caller.wake();
        count
    }
}

impl Drop for ResolveMany {
    fn drop(&mut self) {
        // An actor that ended before it was told leaves nobody waiting.
        self.settle();
    }
}

impl Seat {
    /// Which place it is.
    pub(crate) fn place(&self) -> usize {
        self.place
    }

    /// Lets the actor that resolves the calls of this batch hand the outcome over. It is started on the arbiter that asks
    /// first: that of the node.
    pub(crate) fn resolve(mut self, outcome: Outcome) {
        let mut resolved = self.batch.resolved();
        resolved.push((self.place, outcome));
        let first = resolved.len() == 1;
        drop(resolved);
        self.told = true;
        if first {
            let response = self.batch.response.get_or_init(|| ResponseActor::default().start());
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded to one: sent only when nothing was there"
            )]
            response.do_send(ResolveMany(Arc::clone(&self.batch)));
        }
    }

    pub(crate) fn tell(mut self, outcome: Outcome) {
        self.told = true;
        self.batch.tell(self.place, outcome);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.told {
            self.batch.tell(self.place, Err(lost()));
        }
    }
}

fn lost() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::Unknown, "the node ended before the reply came")
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.place).finish()
    }
}

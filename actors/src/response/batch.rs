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
    outcomes: Mutex<Outcomes>,
    caller: AtomicWaker,
    response: OnceLock<Addr<ResponseActor>>,
    /// Calls that are resolved, for the response actor: it is told of the first and takes all that are there by then.
    resolved: Mutex<Vec<(Seat, Outcome)>>,
}

#[derive(Default)]
struct Outcomes {
    of_calls: Vec<Option<Outcome>>,
    left: usize,
}

/// The place of one call in its batch. Whatever becomes of it, the call has an outcome when it is gone.
pub(crate) struct Seat {
    batch: Arc<Batch>,
    index: usize,
    told: bool,
}

/// Calls of a batch are resolved. Sent by the branch or master that made them, for all that one block of frames resolved; the
/// receiver hands their outcomes to the caller, if that still waits.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ResolveMany(Arc<Batch>);

impl Batch {
    /// Makes room for so many places more.
    pub(crate) fn reserve(&self, more: usize) {
        self.lock().of_calls.reserve(more);
    }

    /// Makes a place for one more call.
    pub(crate) fn seat(self: &Arc<Self>) -> Seat {
        let mut outcomes = self.lock();
        outcomes.of_calls.push(None);
        outcomes.left += 1;
        Seat { batch: Arc::clone(self), index: outcomes.of_calls.len() - 1, told: false }
    }

    /// Whether the call at this place has its outcome.
    pub(crate) fn is_settled(&self, place: usize) -> bool {
        self.lock().of_calls.get(place).is_none_or(Option::is_some)
    }

    /// All outcomes, in the order of the places, when all are there.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Vec<Outcome>> {
        self.caller.register(context.waker());
        let mut outcomes = self.lock();
        if outcomes.left > 0 {
            return Poll::Pending;
        }
        Poll::Ready(
            outcomes.of_calls.drain(..).map(|outcome| outcome.unwrap_or_else(|| Err(lost()))).collect(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Outcomes> {
        // Nothing in here leaves the outcomes half-changed when it panics.
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolved(&self) -> MutexGuard<'_, Vec<(Seat, Outcome)>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts outcomes in their places.
    fn settle(&self, settled: impl Iterator<Item = (usize, Outcome)>) {
        let mut outcomes = self.lock();
        for (place, outcome) in settled {
            if let Some(empty) = outcomes.of_calls.get_mut(place) {
                *empty = Some(outcome);
                outcomes.left -= 1;
            }
        }
        let all = outcomes.left == 0;
        drop(outcomes);
        if all {
            self.caller.wake();
        }
    }
}

impl ResolveMany {
    /// Gives the calls that are resolved by now their outcomes; gives their number.
    pub(crate) fn settle(&self) -> usize {
        let mut waiting = self.0.resolved();
        let count = waiting.len();
        // As many may follow.
        let resolved = std::mem::replace(&mut *waiting, Vec::with_capacity(count));
        drop(waiting);
        self.0.settle(resolved.into_iter().map(|(mut seat, outcome)| {
            seat.told = true;
            (seat.index, outcome)
        }));
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
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Lets the actor that resolves the calls of this batch hand the outcome over. It is started on the arbiter that asks
    /// first: that of the node.
    pub(crate) fn resolve(self, outcome: Outcome) {
        let batch = Arc::clone(&self.batch);
        let mut resolved = batch.resolved();
        resolved.push((self, outcome));
        let first = resolved.len() == 1;
        drop(resolved);
        if first {
            let response = batch.response.get_or_init(|| ResponseActor::default().start());
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded to one: sent only when nothing was there"
            )]
            response.do_send(ResolveMany(Arc::clone(&batch)));
        }
    }

    pub(crate) fn tell(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        self.told = true;
        self.batch.settle(std::iter::once((self.index, outcome)));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.told {
            self.settle(Err(lost()));
        }
    }
}

fn lost() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::Unknown, "the node ended before the reply came")
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.index).finish()
    }
}

//! Many calls that are awaited as one. They share one response actor and one place where their outcomes gather; each has its
//! own entry in the callback table, its own deadline and its own outcome.

use super::ResponseActor;
use crate::responder::Outcome;
use actix::{Actor, Addr};
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

impl Batch {
    /// Makes a place for one more call.
    pub(crate) fn seat(self: &Arc<Self>) -> Seat {
        let mut outcomes = self.lock();
        outcomes.of_calls.push(None);
        outcomes.left += 1;
        Seat { batch: Arc::clone(self), index: outcomes.of_calls.len() - 1, told: false }
    }

    /// Whether the call at this place has its outcome.
    pub(crate) fn is_settled(&self, index: usize) -> bool {
        self.lock().of_calls.get(index).is_none_or(Option::is_some)
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
}

impl Seat {
    /// The actor that resolves the calls of this batch. It is started on the arbiter that asks first: that of the node.
    pub(crate) fn response(&self) -> Addr<ResponseActor> {
        self.batch.response.get_or_init(|| ResponseActor::default().start()).clone()
    }

    /// Which place it is.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn tell(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        self.told = true;
        let mut outcomes = self.batch.lock();
        if let Some(place) = outcomes.of_calls.get_mut(self.index) {
            *place = Some(outcome);
            outcomes.left -= 1;
        }
        let all = outcomes.left == 0;
        drop(outcomes);
        if all {
            self.batch.caller.wake();
        }
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

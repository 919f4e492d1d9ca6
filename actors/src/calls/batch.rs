//! Many calls that are awaited as one. They share one response actor and one place where their outcomes gather; each has its
//! own entry in the callback table, its own deadline and its own outcome.

use super::response::ResponseActor;
use actix::{Actor, Addr, Message};
use futures::task::AtomicWaker;
use meshwork_wire::{CallError, Code, Fate, Outcome};
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

/// The places of calls of a batch that follow each other. Each is taken once, by whoever tells its caller what became of it; whatever becomes
/// of them, each call has an outcome when they are gone.
pub(crate) struct Seats {
    batch: Arc<Batch>,
    place: usize,
    count: usize,
    left: usize,
    /// A bit for each.
    taken: Vec<u64>,
}

const SEATS_PER_WORD: usize = u64::BITS as usize;

/// Calls of a batch are resolved. Sent by the branch or master that made them, for all that one block of frames resolved; the
/// receiver hands their outcomes to the caller, if that still waits.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ResolveMany(Arc<Batch>);

impl Batch {
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

    /// Lets the actor that resolves the calls of this batch hand these outcomes over. It is started on the arbiter that asks
    /// first: that of the node.
    pub(crate) fn resolve(self: &Arc<Self>, mut outcomes: Vec<(usize, Outcome)>) {
        let mut resolved = self.resolved();
        let first = resolved.is_empty();
        if first {
            *resolved = outcomes;
        } else {
            resolved.append(&mut outcomes);
        }
        drop(resolved);
        if first {
            let response = self.response.get_or_init(|| ResponseActor::default().start());
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded to one: sent only when nothing was there"
            )]
            response.do_send(ResolveMany(Arc::clone(self)));
        }
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
        let mut resolved = std::mem::take(&mut *waiting);
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

impl Seats {
    /// No seats yet, the first of which is at `place`.
    pub(crate) fn new(batch: Arc<Batch>, place: usize) -> Self {
        Self { batch, place, count: 0, left: 0, taken: Vec::new() }
    }

    /// One more.
    #[inline]
    pub(crate) fn push(&mut self) {
        if self.count.is_multiple_of(SEATS_PER_WORD) {
            self.taken.push(0);
        }
        self.count += 1;
        self.left += 1;
    }

    /// The place of the first.
    pub(crate) fn place(&self) -> usize {
        self.place
    }

    /// How many there are.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many are not taken.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    pub(crate) fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    pub(crate) fn is_taken(&self, number: usize) -> bool {
        self.taken[number / SEATS_PER_WORD] & (1 << (number % SEATS_PER_WORD)) != 0
    }

    /// Takes one; gives its place. None if it is taken. Whoever takes it tells the caller.
    #[inline]
    pub(crate) fn take(&mut self, number: usize) -> Option<usize> {
        let (word, bit) = (self.taken.get_mut(number / SEATS_PER_WORD)?, 1 << (number % SEATS_PER_WORD));
        if *word & bit != 0 {
            return None;
        }
        *word |= bit;
        self.left -= 1;
        Some(self.place + number)
    }

    /// Takes one, to be handed on by itself.
    pub(crate) fn take_seat(&mut self, number: usize) -> Option<Seat> {
        let place = self.take(number)?;
        Some(Seat { batch: Arc::clone(&self.batch), place, told: false })
    }

    /// Those that are not taken.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = usize> {
        (0..self.count).filter(|number| !self.is_taken(*number))
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        if self.left > 0 {
            self.waiting().for_each(|number| self.batch.tell(self.place + number, Err(lost())));
        }
    }
}

impl Seat {
    pub(crate) fn resolve(mut self, outcome: Outcome) {
        self.told = true;
        self.batch.resolve(vec![(self.place, outcome)]);
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

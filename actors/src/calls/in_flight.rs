//! The calls of one node that are in flight, one slot each: who waits for which callback id, and until when. It decides who
//! settles a call: its reply, its deadline, the end of its link, or a caller that drops it; an id that was settled is gone, so
//! what comes later can only miss. No runtime, no clock: moments come in. The node keeps it under its lock.
//!
//! A call stands in the slot of the last digits of its id. Ids are drawn in order, and an id whose slot is still taken is passed
//! over, so no two calls ever share a slot, and none has to be searched for.

use super::reply::Reply;
use meshwork_wire::CallbackId;
use meshwork_wire::limits::IN_FLIGHT_MAX;
use std::task::{Poll, Waker};
use std::time::Instant;

/// The calls of one node that are in flight.
pub(crate) struct InFlight {
    /// As many as a power of two. At least half of them are free.
    slots: Vec<Slot>,
    next_id: u64,
    /// How many slots are not free.
    taken: usize,
    /// How many calls are not settled.
    waiting: usize,
    waiting_max: usize,
    /// The calls that were opened since the queue was last taken.
    run: Option<Run>,
    batches: Vec<Option<BatchState>>,
}

struct Slot {
    id: u64,
    deadline: Option<Instant>,
    state: State,
}

enum State {
    Free,
    Waiting(Waiter),
    Settled(Reply),
}

/// Who is told of the reply to a call.
pub(crate) enum Waiter {
    /// The task that polls the call.
    Task(Waker),
    /// The batch of calls that are awaited as one, and the number of this call there.
    Batch { batch: BatchId, number: u32 },
    /// A function that is called with the reply.
    Hook(Hook),
}

/// A function that is called with the reply to a call, on the arbiter of the node, when no lock is held.
pub(crate) type Hook = Box<dyn FnOnce(Reply) + Send>;

/// The number of a batch of calls at its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchId(u32);

/// Calls that are awaited as one.
#[derive(Default)]
struct BatchState {
    waker: Option<Waker>,
    /// The replies that the caller has not taken yet, each with the number of its call.
    replies: Vec<(u32, Reply)>,
}

/// Calls that were opened one after the other and leave their node together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) first: CallbackId,
    pub(crate) last: CallbackId,
    pub(crate) count: usize,
    /// The earliest deadline of them.
    pub(crate) earliest: Option<Instant>,
    /// The latest, while no call has an earlier deadline than one before it.
    latest: Option<Instant>,
    pub(crate) in_order: bool,
}

/// What a settled call asks to be done when the lock is let go.
pub(crate) enum Wake {
    /// Nobody waited for the id: it is settled already, or was never drawn.
    Late,
    Nobody,
    Task(Waker),
    Hook(Hook, Reply),
}

/// As many calls are in flight as may be. Gives back the waiter of the one that is refused.
pub(crate) struct Full {
    pub(crate) max: usize,
    pub(crate) waiter: Waiter,
}

const SLOTS_MIN: usize = 16;

/// More slots than this are given back when they are all free.
const SLOTS_IDLE_MAX: usize = 4096;

impl InFlight {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            next_id: 0,
            taken: 0,
            waiting: 0,
            waiting_max: IN_FLIGHT_MAX,
            run: None,
            batches: Vec::new(),
        }
    }

    /// How many calls are not settled.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn set_waiting_max(&mut self, max: usize) {
        self.waiting_max = max;
    }

    /// Draws an id that no call has and none will have.
    pub(crate) fn draw(&mut self) -> CallbackId {
        let id = self.next_id;
        self.next_id += 1;
        CallbackId(id)
    }

    /// Opens a call: from now on its waiter waits for the id that is given. It joins the run of those that leave together.
    #[inline]
    pub(crate) fn open(&mut self, deadline: Option<Instant>, waiter: Waiter) -> Result<CallbackId, Full> {
        if self.waiting >= self.waiting_max {
            return Err(Full { max: self.waiting_max, waiter });
        }
        if self.taken * 2 >= self.slots.len() {
            self.grow();
        }
        let mut id = self.next_id;
        // Half of the slots are free, so one is found.
        while !matches!(self.slot(id).state, State::Free) {
            id += 1;
        }
        self.next_id = id + 1;
        *self.slot(id) = Slot { id, deadline, state: State::Waiting(waiter) };
        self.taken += 1;
        self.waiting += 1;
        let id = CallbackId(id);
        match &mut self.run {
            Some(run) => run.add(id, deadline),
            run => *run = Some(Run::new(id, deadline)),
        }
        Ok(id)
    }

    /// The calls that were opened since this was asked last: they leave now, and nothing that is opened later has an id among theirs.
    pub(crate) fn take_run(&mut self) -> Option<Run> {
        self.run.take()
    }

    /// A run that was taken does not leave after all, and nothing was opened meanwhile.
    pub(crate) fn put_back(&mut self, run: Option<Run>) {
        self.run = run;
    }

    /// Settles a call with its reply. The slot keeps it for the task that polls the call; a batch gathers it.
    #[inline]
    pub(crate) fn settle(&mut self, id: CallbackId, reply: Reply) -> Wake {
        let Some(slot) = self.waiting_slot(id) else {
            return Wake::Late;
        };
        let wake = match std::mem::replace(&mut slot.state, State::Free) {
            State::Waiting(Waiter::Task(waker)) => {
                slot.state = State::Settled(reply);
                self.waiting -= 1;
                return Wake::Task(waker);
            }
            State::Waiting(Waiter::Batch { batch, number }) => self.tell_batch(batch, number, reply),
            State::Waiting(Waiter::Hook(hook)) => Wake::Hook(hook, reply),
            State::Free | State::Settled(_) => Wake::Late,
        };
        self.waiting -= 1;
        self.freed();
        wake
    }

    /// Settles every call.
    pub(crate) fn settle_all(&mut self, reply: impl Fn() -> Reply, wakes: &mut Vec<Wake>) {
        let ids = self.slots.iter().filter(|slot| matches!(slot.state, State::Waiting(_)));
        let ids: Vec<_> = ids.map(|slot| CallbackId(slot.id)).collect();
        wakes.extend(ids.into_iter().map(|id| self.settle(id, reply())));
    }

    /// The reply to a call, if it is there; else its task is woken when it is.
    #[inline]
    pub(crate) fn poll(&mut self, id: CallbackId, waker: &Waker) -> Poll<Option<Reply>> {
        let Some(slot) = self.slot_of(id) else {
            return Poll::Ready(None);
        };
        match &mut slot.state {
            State::Waiting(Waiter::Task(kept)) => {
                kept.clone_from(waker);
                Poll::Pending
            }
            State::Settled(_) => {
                let state = std::mem::replace(&mut slot.state, State::Free);
                self.freed();
                match state {
                    State::Settled(reply) => Poll::Ready(Some(reply)),
                    State::Free | State::Waiting(_) => Poll::Ready(None),
                }
            }
            State::Waiting(_) | State::Free => Poll::Ready(None),
        }
    }

    /// The caller dropped its call; `true` if it was not settled, and has to be cancelled.
    pub(crate) fn forget(&mut self, id: CallbackId) -> bool {
        let Some(slot) = self.slot_of(id) else {
            return false;
        };
        let waited = matches!(slot.state, State::Waiting(_));
        slot.state = State::Free;
        self.waiting -= usize::from(waited);
        self.freed();
        waited
    }

    pub(crate) fn is_waiting(&self, id: CallbackId) -> bool {
        self.slots
            .get(self.index(id.0))
            .is_some_and(|slot| slot.id == id.0 && matches!(slot.state, State::Waiting(_)))
    }

    /// Until when a call is waited for; none if it is settled, or has no deadline.
    pub(crate) fn deadline(&self, id: CallbackId) -> Option<Instant> {
        let slot = self.slots.get(self.index(id.0))?;
        if slot.id == id.0 && matches!(slot.state, State::Waiting(_)) { slot.deadline } else { None }
    }

    /// A batch without calls; it ends with [`InFlight::end_batch`].
    pub(crate) fn begin_batch(&mut self) -> BatchId {
        let free = self.batches.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.batches.push(None);
            self.batches.len() - 1
        });
        self.batches[index] = Some(BatchState::default());
        // There are at most as many batches as handles that make calls.
        BatchId(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The replies that have come for a batch; if there are none, its task is woken when one comes.
    pub(crate) fn poll_batch(&mut self, batch: BatchId, waker: &Waker) -> Poll<Vec<(u32, Reply)>> {
        let Some(state) = self.batch(batch) else {
            return Poll::Ready(Vec::new());
        };
        if state.replies.is_empty() {
            match &mut state.waker {
                Some(kept) => kept.clone_from(waker),
                kept => *kept = Some(waker.clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut state.replies))
    }

    /// Gives a call of a batch its reply that never got a slot.
    pub(crate) fn tell_batch(&mut self, batch: BatchId, number: u32, reply: Reply) -> Wake {
        let Some(state) = self.batch(batch) else {
            return Wake::Nobody;
        };
        state.replies.push((number, reply));
        state.waker.take().map_or(Wake::Nobody, Wake::Task)
    }

    /// Nobody waits for the batch any more; gives those of these ids that are not settled, and have to be cancelled.
    pub(crate) fn end_batch(&mut self, batch: BatchId, runs: &[(CallbackId, CallbackId)]) -> Vec<CallbackId> {
        let mut cancelled = Vec::new();
        for (first, last) in runs {
            for id in (first.0..=last.0).map(CallbackId) {
                let is_of_batch = self.slot_of(id).is_some_and(
                    |slot| matches!(&slot.state, State::Waiting(Waiter::Batch { batch: of, .. }) if *of == batch),
                );
                if is_of_batch && self.forget(id) {
                    cancelled.push(id);
                }
            }
        }
        if let Some(state) = self.batches.get_mut(batch.0 as usize) {
            *state = None;
        }
        cancelled
    }

    fn batch(&mut self, batch: BatchId) -> Option<&mut BatchState> {
        self.batches.get_mut(batch.0 as usize)?.as_mut()
    }

    fn waiting_slot(&mut self, id: CallbackId) -> Option<&mut Slot> {
        self.slot_of(id).filter(|slot| matches!(slot.state, State::Waiting(_)))
    }

    fn slot_of(&mut self, id: CallbackId) -> Option<&mut Slot> {
        let index = self.index(id.0);
        self.slots.get_mut(index).filter(|slot| slot.id == id.0 && !matches!(slot.state, State::Free))
    }

    fn slot(&mut self, id: u64) -> &mut Slot {
        let index = self.index(id);
        &mut self.slots[index]
    }

    /// With no slots at all it is past their end.
    #[inline]
    fn index(&self, id: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the last digits are what is wanted")]
        let digits = id as usize;
        digits & self.slots.len().wrapping_sub(1)
    }

    fn freed(&mut self) {
        self.taken -= 1;
        if self.taken == 0 && self.slots.len() > SLOTS_IDLE_MAX {
            self.slots = Vec::new();
        }
    }

    /// Twice as many slots. Ids that had slots of their own have them among twice as many, too.
    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(SLOTS_MIN);
        let free = || Slot { id: 0, deadline: None, state: State::Free };
        let slots = std::mem::take(&mut self.slots);
        self.slots.resize_with(len, free);
        for slot in slots {
            if !matches!(slot.state, State::Free) {
                let index = self.index(slot.id);
                self.slots[index] = slot;
            }
        }
    }
}

impl Run {
    fn new(id: CallbackId, deadline: Option<Instant>) -> Self {
        Self { first: id, last: id, count: 1, earliest: deadline, latest: deadline, in_order: true }
    }

    #[inline]
    fn add(&mut self, id: CallbackId, deadline: Option<Instant>) {
        self.last = id;
        self.count += 1;
        if let Some(deadline) = deadline {
            match self.latest {
                Some(latest) if deadline < latest => {
                    self.in_order = false;
                    self.earliest = self.earliest.map(|earliest| earliest.min(deadline));
                }
                Some(_) => self.latest = Some(deadline),
                None => (self.earliest, self.latest) = (Some(deadline), Some(deadline)),
            }
        }
    }
}

impl Wake {
    /// Tells the caller. To be called when the lock is let go: a caller may do anything then.
    #[inline]
    pub(crate) fn wake(self) {
        match self {
            Wake::Late | Wake::Nobody => {}
            Wake::Task(waker) => waker.wake(),
            Wake::Hook(hook, reply) => hook(reply),
        }
    }
}

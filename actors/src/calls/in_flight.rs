//! The calls of one node that are in flight, one slot each: which waiter waits for which callback id, and until when. A call is settled
//! once: by its reply, its deadline, the end of its link, or a caller that drops it. A settled id is gone, so a later reply can only
//! miss. No runtime, no clock: moments come in. The node keeps this table under its lock. The end of a waker, reply or function of a
//! caller may take that lock again, so the table drops none of them but gives them back.
//!
//! A call stands in the slot of the last digits of its id. Ids are drawn in order, and an id whose slot is still taken is passed
//! over, so no two calls ever share a slot, and no call has to be searched for.

use super::reply::Reply;
use crate::answers::reply_to::waiter_panicked;
use meshwork_wire::CallbackId;
use meshwork_wire::limits::IN_FLIGHT_MAX;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Poll, Waker};
use std::time::Instant;

/// The calls of one node that are in flight.
pub(crate) struct InFlight {
    /// Their number is a power of two. At least half of the slots are free.
    slots: Vec<Slot>,
    next_id: u64,
    /// How many slots hold a call or a reply.
    taken: usize,
    /// How many calls are not settled.
    waiting: usize,
    waiting_max: usize,
    /// The calls that were opened since the queue of the node was last taken.
    departure: Option<Departure>,
    /// By the number of their [`BatchId`]; none for a number that is free.
    batches: Vec<Option<BatchState>>,
}

/// Holds one call, from its opening until its reply is taken.
struct Slot {
    id: u64,
    deadline: Option<Instant>,
    state: State,
}

/// The state of a slot.
enum State {
    Free,
    Waiting(Waiter),
    Settled(Reply),
}

/// The waiter of a call: it is told of the reply.
pub(crate) enum Waiter {
    /// The task that polls the call.
    Task(Waker),
    /// A batch of calls that are awaited as one, and the number of this call in the batch.
    Batch { batch: BatchId, number: u32 },
    /// A function that is called with the reply.
    Hook(Hook),
}

/// A function that is called with the reply to a call, on the arbiter of the node, when no lock is held.
pub(crate) type Hook = Box<dyn FnOnce(Reply) + Send>;

/// The number of a batch of calls at its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchId(u32);

/// A batch: calls that are awaited as one.
#[derive(Default)]
struct BatchState {
    /// The task that waits for replies, if one does.
    waker: Option<Waker>,
    /// The replies that the caller has not taken yet, each with the number of its call.
    replies: Vec<(u32, Reply)>,
}

/// A departure: the calls that leave their node together, in one flush. No other call has an id between `first` and `last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Departure {
    pub(crate) first: CallbackId,
    pub(crate) last: CallbackId,
    pub(crate) count: usize,
    /// The earliest deadline of its calls.
    pub(crate) earliest: Option<Instant>,
    /// The latest deadline of its calls, as long as they are in order.
    latest: Option<Instant>,
    /// Whether no call has an earlier deadline than a call before it.
    pub(crate) in_order: bool,
}

/// The wake-up of the waiter of a settled call, to be done when the lock is let go.
#[must_use = "it is done, or dropped, when the lock is let go"]
pub(crate) enum Wake {
    /// The id has no waiter: its call is settled already, or it was never drawn. Gives the reply back.
    Late(#[expect(dead_code, reason = "it is dropped later than it comes back")] Reply),
    /// The call was settled, but its batch has ended. Gives the reply back.
    Unheard(#[expect(dead_code, reason = "it is dropped later than it comes back")] Reply),
    /// The batch of the call keeps the reply, and no task waits for the batch.
    Nobody,
    Task(Waker),
    Hook(Hook, Reply),
}

/// The waiter or the reply in the slot of a call that its caller dropped.
#[must_use = "it is dropped when the lock is let go"]
pub(crate) struct Forgotten(State);

/// The remains of a batch that its caller dropped.
#[must_use = "it is dropped when the lock is let go"]
pub(crate) struct EndedBatch {
    /// The calls of the batch that were not settled, and have to be cancelled.
    pub(crate) cancelled: Vec<CallbackId>,
    _kept: Option<BatchState>,
}

/// A call was refused, since `max` calls are in flight, or in the next departure. Gives its waiter back.
pub(crate) struct Full {
    pub(crate) max: usize,
    pub(crate) waiter: Waiter,
}

const SLOTS_MIN: usize = 16;

/// A table of more slots than this is given back when all its slots are free.
const SLOTS_IDLE_MAX: usize = 4096;

impl InFlight {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            next_id: 0,
            taken: 0,
            waiting: 0,
            waiting_max: IN_FLIGHT_MAX,
            departure: None,
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

    /// Draws an id that no call has and no call will have.
    pub(crate) fn draw(&mut self) -> CallbackId {
        let id = self.next_id;
        self.next_id += 1;
        CallbackId(id)
    }

    /// Opens a call, and gives the id that its waiter waits for from now on. The call joins the next departure.
    #[inline]
    pub(crate) fn open(&mut self, deadline: Option<Instant>, waiter: Waiter) -> Result<CallbackId, Full> {
        // Calls that were dropped before they left are still in the queue: the departure counts them.
        let departing = self.departure.map_or(0, |departure| departure.count);
        if self.waiting.max(departing) >= self.waiting_max {
            return Err(Full { max: self.waiting_max, waiter });
        }
        if self.taken * 2 >= self.slots.len() {
            self.grow();
        }
        let mut id = self.next_id;
        // At least half of the slots are free, so a free one is found.
        while !matches!(self.slot(id).state, State::Free) {
            id += 1;
        }
        self.next_id = id + 1;
        *self.slot(id) = Slot { id, deadline, state: State::Waiting(waiter) };
        self.taken += 1;
        self.waiting += 1;
        let id = CallbackId(id);
        match &mut self.departure {
            Some(departure) => departure.add(id, deadline),
            departure => *departure = Some(Departure::new(id, deadline)),
        }
        Ok(id)
    }

    /// Takes the calls that were opened since the last departure was taken. They leave now; no call that is opened later has an id between
    /// theirs.
    pub(crate) fn take_departure(&mut self) -> Option<Departure> {
        self.departure.take()
    }

    /// Puts back a departure that does not leave after all. No call may have been opened meanwhile.
    pub(crate) fn put_back(&mut self, departure: Option<Departure>) {
        self.departure = departure;
    }

    /// Settles a call with its reply. The slot keeps the reply for the task that polls the call; a batch gathers it.
    #[inline]
    pub(crate) fn settle(&mut self, id: CallbackId, reply: Reply) -> Wake {
        let Some(slot) = self.waiting_slot(id) else {
            return Wake::Late(reply);
        };
        let wake = match std::mem::replace(&mut slot.state, State::Free) {
            State::Waiting(Waiter::Task(waker)) => {
                slot.state = State::Settled(reply);
                self.waiting -= 1;
                return Wake::Task(waker);
            }
            State::Waiting(Waiter::Batch { batch, number }) => self.tell_batch(batch, number, reply),
            State::Waiting(Waiter::Hook(hook)) => Wake::Hook(hook, reply),
            State::Free | State::Settled(_) => Wake::Late(reply),
        };
        self.waiting -= 1;
        self.freed();
        wake
    }

    /// Settles every call that is not settled, each with a reply of its own.
    pub(crate) fn settle_all(&mut self, reply: impl Fn() -> Reply, wakes: &mut Vec<Wake>) {
        let ids = self.slots.iter().filter(|slot| matches!(slot.state, State::Waiting(_)));
        let ids: Vec<_> = ids.map(|slot| CallbackId(slot.id)).collect();
        wakes.extend(ids.into_iter().map(|id| self.settle(id, reply())));
    }

    /// The first call that has not left the queue of the node.
    pub(crate) fn first_in_queue(&self) -> Option<CallbackId> {
        self.departure.map(|departure| departure.first)
    }

    /// Settles the calls whose deadlines have passed and that tasks wait for; `reply` is told whether a call has left its queue. Gives their ids,
    /// and the next deadline of such a call.
    pub(crate) fn settle_overdue(
        &mut self,
        now: Instant,
        reply: impl Fn(CallbackId, bool) -> Reply,
        wakes: &mut Vec<Wake>,
    ) -> (Vec<CallbackId>, Option<Instant>) {
        let (mut overdue, mut next) = (Vec::new(), None);
        for slot in &self.slots {
            // A function is called on the arbiter of the node, which ends its call.
            let State::Waiting(Waiter::Task(_) | Waiter::Batch { .. }) = &slot.state else {
                continue;
            };
            match slot.deadline {
                Some(deadline) if deadline <= now => overdue.push((deadline, CallbackId(slot.id))),
                Some(deadline) => next = Some(next.map_or(deadline, |next: Instant| next.min(deadline))),
                None => {}
            }
        }
        // They end in the order of their deadlines.
        overdue.sort_unstable();
        let overdue: Vec<_> = overdue.into_iter().map(|(_, id)| id).collect();
        let first_in_queue = self.first_in_queue();
        for id in &overdue {
            let has_left = first_in_queue.is_none_or(|first| *id < first);
            wakes.push(self.settle(*id, reply(*id, has_left)));
        }
        (overdue, next)
    }

    /// Takes the reply to a call, or lets this waker be woken when the reply comes; none if no reply will come. Gives back a waker that is no
    /// longer used.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        id: CallbackId,
        waker: &Waker,
        unused: &mut Option<Waker>,
    ) -> Poll<Option<Reply>> {
        let Some(slot) = self.slot_of(id) else {
            return Poll::Ready(None);
        };
        match &mut slot.state {
            State::Waiting(Waiter::Task(kept)) => {
                *unused = replaced(kept, waker);
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

    /// Frees the slot of a call that its caller dropped.
    pub(crate) fn forget(&mut self, id: CallbackId) -> Forgotten {
        let Some(slot) = self.slot_of(id) else {
            return Forgotten(State::Free);
        };
        let forgotten = Forgotten(std::mem::replace(&mut slot.state, State::Free));
        self.waiting -= usize::from(forgotten.waited());
        self.freed();
        forgotten
    }

    /// Whether a call is not settled.
    pub(crate) fn is_waiting(&self, id: CallbackId) -> bool {
        self.slots
            .get(self.index(id.0))
            .is_some_and(|slot| slot.id == id.0 && matches!(slot.state, State::Waiting(_)))
    }

    /// The deadline of a call; none if the call is settled, or has no deadline.
    pub(crate) fn deadline(&self, id: CallbackId) -> Option<Instant> {
        let slot = self.slots.get(self.index(id.0))?;
        if slot.id == id.0 && matches!(slot.state, State::Waiting(_)) { slot.deadline } else { None }
    }

    /// Takes the deadline of a call away: its stream has begun.
    pub(crate) fn clear_deadline(&mut self, id: CallbackId) {
        if let Some(slot) = self.waiting_slot(id) {
            slot.deadline = None;
        }
    }

    /// The deadline that a call had whose reply was taken; none if another call has taken its slot.
    pub(crate) fn last_deadline(&self, id: CallbackId) -> Option<Option<Instant>> {
        self.slots.get(self.index(id.0)).filter(|slot| slot.id == id.0).map(|slot| slot.deadline)
    }

    /// Begins a batch without calls; [`InFlight::end_batch`] ends it.
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

    /// Takes the replies that have come for a batch; if there are none, this waker is woken when one comes. Gives back a waker that is no
    /// longer used.
    pub(crate) fn poll_batch(
        &mut self,
        batch: BatchId,
        waker: &Waker,
        unused: &mut Option<Waker>,
    ) -> Poll<Vec<(u32, Reply)>> {
        let Some(state) = self.batch(batch) else {
            return Poll::Ready(Vec::new());
        };
        if state.replies.is_empty() {
            match &mut state.waker {
                Some(kept) => *unused = replaced(kept, waker),
                kept => *kept = Some(waker.clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut state.replies))
    }

    /// Gives a batch the reply to one of its calls, which has no slot any more or never had one.
    pub(crate) fn tell_batch(&mut self, batch: BatchId, number: u32, reply: Reply) -> Wake {
        let Some(state) = self.batch(batch) else {
            return Wake::Unheard(reply);
        };
        state.replies.push((number, reply));
        state.waker.take().map_or(Wake::Nobody, Wake::Task)
    }

    /// Ends a batch that its caller dropped, and forgets its calls. `id_ranges` has the first and the last id of each range that their ids are in.
    pub(crate) fn end_batch(&mut self, batch: BatchId, id_ranges: &[(CallbackId, CallbackId)]) -> EndedBatch {
        let mut cancelled = Vec::new();
        for (first, last) in id_ranges {
            for id in (first.0..=last.0).map(CallbackId) {
                let is_of_batch = self.slot_of(id).is_some_and(
                    |slot| matches!(&slot.state, State::Waiting(Waiter::Batch { batch: of, .. }) if *of == batch),
                );
                if is_of_batch && self.forget(id).waited() {
                    cancelled.push(id);
                }
            }
        }
        let kept = self.batches.get_mut(batch.0 as usize).and_then(Option::take);
        while self.batches.pop_if(|state| state.is_none()).is_some() {}
        EndedBatch { cancelled, _kept: kept }
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

    /// The index of the slot of an id: its last digits. With no slots at all it is past their end.
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

    /// Doubles the slots. Ids that had different slots have different slots among twice as many, too.
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

impl Departure {
    /// The departure of one call that leaves alone.
    pub(crate) fn new(id: CallbackId, deadline: Option<Instant>) -> Self {
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

impl Forgotten {
    /// Whether the call was not settled, and has to be cancelled.
    pub(crate) fn waited(&self) -> bool {
        matches!(self.0, State::Waiting(_))
    }
}

impl Wake {
    /// Wakes the waiter. To be called when the lock is let go: the code of a caller may do anything then.
    #[inline]
    pub(crate) fn wake(self) {
        match self {
            Wake::Late(_) | Wake::Unheard(_) | Wake::Nobody => {}
            Wake::Task(waker) => waker.wake(),
            // The waiters after this one are told, even if the function panics.
            Wake::Hook(hook, reply) => {
                if catch_unwind(AssertUnwindSafe(|| hook(reply))).is_err() {
                    waiter_panicked();
                }
            }
        }
    }
}

/// Keeps this waker instead of the kept one, and gives that one back; does nothing if both wake one task.
#[inline]
fn replaced(kept: &mut Waker, waker: &Waker) -> Option<Waker> {
    (!kept.will_wake(waker)).then(|| std::mem::replace(kept, waker.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::{Encoding, Payload};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// How often a task was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn reply(number: u32) -> Reply {
        Reply::from(Ok(Payload::new(Encoding::MessagePack, number.to_le_bytes().to_vec())))
    }

    fn number(reply: Reply) -> u32 {
        let payload = reply.into_outcome().expect("it is no error");
        u32::from_le_bytes(payload.bytes.as_ref().try_into().expect("it is a number"))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open(Kind, Option<u64>),
        Settle(usize),
        /// Settles an id that was never drawn, or not yet.
        SettleUnknown(u64),
        /// The task of a call polls it; or, if `true`, another task polls it from now on.
        Poll(usize, bool),
        Forget(usize),
        BeginBatch,
        PollBatch(usize),
        TellBatch(usize),
        EndBatch(usize),
        TakeDeparture,
        TakeDepartureAndPutItBack,
        SettleAll,
        SetMax(usize),
        Draw,
    }

    #[derive(Clone, Copy, Debug)]
    enum Kind {
        Task,
        Hook,
        Batch(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let kind = prop_oneof![Just(Kind::Task), Just(Kind::Hook), (0..8_usize).prop_map(Kind::Batch)];
        let step = prop_oneof![
            30 => (kind, proptest::option::of(0..20_u64)).prop_map(|(kind, ms)| Step::Open(kind, ms)),
            20 => any::<usize>().prop_map(Step::Settle),
            2 => any::<u64>().prop_map(Step::SettleUnknown),
            15 => (any::<usize>(), any::<bool>()).prop_map(|(at, other)| Step::Poll(at, other)),
            8 => any::<usize>().prop_map(Step::Forget),
            3 => Just(Step::BeginBatch),
            6 => any::<usize>().prop_map(Step::PollBatch),
            2 => any::<usize>().prop_map(Step::TellBatch),
            2 => any::<usize>().prop_map(Step::EndBatch),
            4 => Just(Step::TakeDeparture),
            2 => Just(Step::TakeDepartureAndPutItBack),
            1 => Just(Step::SettleAll),
            1 => (0..80_usize).prop_map(Step::SetMax),
            2 => Just(Step::Draw),
        ];
        proptest::collection::vec(step, 0..400)
    }

    /// A call, as the model knows it.
    struct Call {
        waiter: Told,
        deadline: Option<Instant>,
        waits: bool,
        /// The reply that stands in its slot.
        settled: Option<u32>,
        forgotten: bool,
    }

    enum Told {
        /// The tasks that polled the call, in their order.
        Tasks(Vec<Arc<Woken>>),
        Hook(Arc<Mutex<Vec<u32>>>),
        Batch(usize, u32),
    }

    /// A batch, as the model knows it.
    struct Batch {
        id: BatchId,
        open: bool,
        /// Whether the task of the batch was told to wait, and was not woken since.
        pending: bool,
        woken: Arc<Woken>,
        wakes: usize,
        told: Vec<(u32, u32)>,
        count: u32,
    }

    struct Model {
        real: InFlight,
        start: Instant,
        max: usize,
        calls: BTreeMap<u64, Call>,
        batches: Vec<Batch>,
        opened: Vec<(CallbackId, Option<Instant>)>,
        last_id: Option<u64>,
        taken_max: usize,
        replies: u32,
    }

    impl Model {
        fn new() -> Self {
            Self {
                real: InFlight::new(),
                start: Instant::now(),
                max: IN_FLIGHT_MAX,
                calls: BTreeMap::new(),
                batches: Vec::new(),
                opened: Vec::new(),
                last_id: None,
                taken_max: 0,
                replies: 0,
            }
        }

        fn waiting(&self) -> usize {
            self.calls.values().filter(|call| call.waits).count()
        }

        fn taken(&self) -> usize {
            self.calls.values().filter(|call| call.waits || call.settled.is_some()).count()
        }

        fn pick(&self, at: usize) -> Option<u64> {
            let count = self.calls.len();
            self.calls.keys().nth(at.checked_rem(count)?).copied()
        }

        fn drew(&mut self, id: CallbackId) {
            assert!(self.last_id.is_none_or(|last| last < id.0), "ids rise, so none is drawn twice");
            assert!(id.0 < 1 << 52, "JavaScript counts so far");
            self.last_id = Some(id.0);
        }

        fn open(&mut self, kind: Kind, deadline: Option<Instant>) {
            let (waiter, told) = match kind {
                Kind::Task => {
                    let woken = Arc::new(Woken::default());
                    (Waiter::Task(Arc::clone(&woken).into()), Told::Tasks(vec![woken]))
                }
                Kind::Hook => {
                    let told = Arc::new(Mutex::new(Vec::new()));
                    let hears = Arc::clone(&told);
                    let hook = move |reply| hears.lock().expect("it works").push(number(reply));
                    (Waiter::Hook(Box::new(hook)), Told::Hook(told))
                }
                Kind::Batch(at) => {
                    let open: Vec<_> = (0..self.batches.len()).filter(|at| self.batches[*at].open).collect();
                    let Some(at) = at.checked_rem(open.len()).map(|at| open[at]) else {
                        return;
                    };
                    let batch = &mut self.batches[at];
                    let number = batch.count;
                    batch.count += 1;
                    (Waiter::Batch { batch: batch.id, number }, Told::Batch(at, number))
                }
            };
            let waiting = self.waiting();
            match self.real.open(deadline, waiter) {
                Ok(id) => {
                    assert!(waiting.max(self.opened.len()) < self.max, "the bound holds");
                    self.drew(id);
                    self.opened.push((id, deadline));
                    let call = Call { waiter: told, deadline, waits: true, settled: None, forgotten: false };
                    self.calls.insert(id.0, call);
                }
                Err(full) => {
                    assert_eq!(full.max, self.max);
                    assert!(waiting.max(self.opened.len()) >= self.max, "there was room");
                }
            }
        }

        fn settle(&mut self, id: u64) {
            self.replies += 1;
            let number = self.replies;
            let wake = self.real.settle(CallbackId(id), reply(number));
            self.settled(id, number, wake);
        }

        /// Checks the wake-up of a call that was settled with this reply; a call that did not wait must miss.
        fn settled(&mut self, id: u64, reply: u32, wake: Wake) {
            let Some(call) = self.calls.get_mut(&id).filter(|call| call.waits) else {
                assert!(matches!(wake, Wake::Late(_)), "{id} has no waiter");
                return;
            };
            call.waits = false;
            match &call.waiter {
                Told::Tasks(tasks) => {
                    assert!(matches!(wake, Wake::Task(_)));
                    let last = tasks.last().expect("it has one");
                    let before = last.count();
                    wake.wake();
                    assert_eq!(last.count(), before + 1, "the task that polled last is woken");
                    call.settled = Some(reply);
                }
                Told::Hook(told) => {
                    assert_eq!(told.lock().expect("it works").len(), 0);
                    wake.wake();
                    assert_eq!(*told.lock().expect("it works"), [reply]);
                }
                Told::Batch(at, number) => {
                    let (at, number) = (*at, *number);
                    self.told(at, number, reply, wake);
                }
            }
        }

        fn told(&mut self, at: usize, number: u32, reply: u32, wake: Wake) {
            let batch = &mut self.batches[at];
            if !batch.open {
                assert!(matches!(wake, Wake::Unheard(_)));
                return;
            }
            batch.told.push((number, reply));
            wake.wake();
            batch.wakes += usize::from(std::mem::take(&mut batch.pending));
            assert_eq!(batch.woken.count(), batch.wakes, "a batch that waits is woken once");
        }

        fn poll(&mut self, id: u64, by_another: bool) {
            let Some(call) = self.calls.get_mut(&id) else {
                return;
            };
            let Told::Tasks(tasks) = &mut call.waiter else {
                // Calls of hooks and batches are never polled; a poll would find no reply.
                let polled = self.real.poll(CallbackId(id), Waker::noop(), &mut None);
                assert!(matches!(polled, Poll::Ready(None)));
                return;
            };
            if by_another && call.waits {
                tasks.push(Arc::new(Woken::default()));
            }
            let waker = Waker::from(Arc::clone(tasks.last().expect("it has one")));
            let mut unused = None;
            let polled = self.real.poll(CallbackId(id), &waker, &mut unused);
            assert_eq!(unused.is_some(), by_another && call.waits, "only another waker is kept");
            match (polled, call.settled.take(), call.waits) {
                (Poll::Pending, None, true) | (Poll::Ready(None), None, false) => {}
                (Poll::Ready(Some(reply)), Some(expected), false) => assert_eq!(number(reply), expected),
                (polled, ..) => panic!("{polled:?}"),
            }
        }

        fn forget(&mut self, id: u64) {
            let forgotten = self.real.forget(CallbackId(id));
            if let Some(call) = self.calls.get_mut(&id) {
                assert_eq!(forgotten.waited(), call.waits);
                (call.waits, call.settled, call.forgotten) = (false, None, call.forgotten || call.waits);
            }
        }

        fn poll_batch(&mut self, at: usize) {
            let batch = &mut self.batches[at];
            let waker = Waker::from(Arc::clone(&batch.woken));
            match self.real.poll_batch(batch.id, &waker, &mut None) {
                Poll::Pending => {
                    assert!(batch.told.is_empty());
                    batch.pending = true;
                }
                Poll::Ready(replies) => {
                    let replies: Vec<_> =
                        replies.into_iter().map(|(at, reply)| (at, number(reply))).collect();
                    assert_eq!(replies, std::mem::take(&mut batch.told));
                    assert!(!replies.is_empty());
                }
            }
        }

        fn end_batch(&mut self, at: usize) {
            let batch = &mut self.batches[at];
            (batch.open, batch.pending) = (false, false);
            batch.told.clear();
            let of_batch = |call: &Call| matches!(call.waiter, Told::Batch(of, _) if of == at);
            let ids: Vec<_> =
                self.calls.iter().filter(|(_, call)| of_batch(call)).map(|(id, _)| *id).collect();
            // One range, which holds ids of other calls too.
            let id_ranges: Vec<_> = ids
                .first()
                .zip(ids.last())
                .map(|(first, last)| (CallbackId(*first), CallbackId(*last)))
                .into_iter()
                .collect();
            let ended = self.real.end_batch(batch.id, &id_ranges);
            let mut cancelled = Vec::new();
            for id in ids {
                let call = self.calls.get_mut(&id).expect("it is there");
                if std::mem::take(&mut call.waits) {
                    call.forgotten = true;
                    cancelled.push(CallbackId(id));
                }
            }
            assert_eq!(ended.cancelled, cancelled);
        }

        fn take_departure(&mut self) -> Option<Departure> {
            let departure = self.real.take_departure();
            let opened = &self.opened;
            let deadlines: Vec<_> = opened.iter().filter_map(|(_, deadline)| *deadline).collect();
            assert_eq!(
                departure.map(|departure| (departure.first, departure.last, departure.count)),
                opened.first().zip(opened.last()).map(|(first, last)| (first.0, last.0, opened.len()))
            );
            if let Some(departure) = departure {
                assert_eq!(departure.earliest, deadlines.iter().min().copied());
                assert_eq!(departure.in_order, deadlines.is_sorted());
            }
            departure
        }

        fn step(&mut self, step: Step) {
            let open_batch = |this: &Self, at: usize| {
                let open: Vec<_> = (0..this.batches.len()).filter(|at| this.batches[*at].open).collect();
                at.checked_rem(open.len()).map(|at| open[at])
            };
            match step {
                Step::Open(kind, ms) => {
                    let deadline = ms.map(|ms| self.start + Duration::from_millis(ms));
                    self.open(kind, deadline);
                }
                Step::Settle(at) => {
                    if let Some(id) = self.pick(at) {
                        self.settle(id);
                    }
                }
                Step::SettleUnknown(id) => {
                    if !self.calls.contains_key(&id) {
                        self.settle(id);
                    }
                }
                Step::Poll(at, by_another) => {
                    if let Some(id) = self.pick(at) {
                        self.poll(id, by_another);
                    }
                }
                Step::Forget(at) => {
                    if let Some(id) = self.pick(at) {
                        self.forget(id);
                    }
                }
                Step::BeginBatch => {
                    let id = self.real.begin_batch();
                    assert!(self.batches.iter().all(|batch| !batch.open || batch.id != id));
                    self.batches.push(Batch {
                        id,
                        open: true,
                        pending: false,
                        woken: Arc::default(),
                        wakes: 0,
                        told: Vec::new(),
                        count: 0,
                    });
                }
                Step::PollBatch(at) => {
                    if let Some(at) = open_batch(self, at) {
                        self.poll_batch(at);
                    }
                }
                Step::TellBatch(at) => {
                    if let Some(at) = open_batch(self, at) {
                        self.replies += 1;
                        let (batch, told) = (&mut self.batches[at], self.replies);
                        let (id, number) = (batch.id, batch.count);
                        batch.count += 1;
                        let wake = self.real.tell_batch(id, number, reply(told));
                        self.told(at, number, told, wake);
                    }
                }
                Step::EndBatch(at) => {
                    if let Some(at) = open_batch(self, at) {
                        self.end_batch(at);
                    }
                }
                Step::TakeDeparture => {
                    self.take_departure();
                    self.opened.clear();
                }
                Step::TakeDepartureAndPutItBack => {
                    let departure = self.take_departure();
                    self.real.put_back(departure);
                }
                Step::SettleAll => {
                    self.replies += 1;
                    let (mut wakes, told) = (Vec::new(), self.replies);
                    self.real.settle_all(|| reply(told), &mut wakes);
                    assert_eq!(wakes.len(), self.waiting());
                    // The wake-ups come in the order of the slots.
                    let mask = self.real.slots.len() as u64 - u64::from(!self.real.slots.is_empty());
                    let mut ids: Vec<_> =
                        self.calls.iter().filter(|(_, call)| call.waits).map(|(id, _)| *id).collect();
                    ids.sort_by_key(|id| id & mask);
                    for (id, wake) in ids.into_iter().zip(wakes) {
                        self.settled(id, told, wake);
                    }
                }
                Step::SetMax(max) => {
                    self.max = max;
                    self.real.set_waiting_max(max);
                }
                Step::Draw => {
                    let id = self.real.draw();
                    self.drew(id);
                }
            }
            self.check();
        }

        fn check(&mut self) {
            let taken = self.taken();
            assert_eq!(self.real.waiting(), self.waiting());
            assert_eq!(self.real.taken, taken);
            self.taken_max = self.taken_max.max(taken);
            assert!(
                self.real.slots.len() <= SLOTS_MIN.max(4 * self.taken_max),
                "the ring is as long as is needed"
            );
            let open = self.batches.iter().rposition(|batch| batch.open);
            assert!(self.real.batches.len() <= open.map_or(0, |last| last + 1));
            for (id, call) in &self.calls {
                let id = CallbackId(*id);
                assert_eq!(self.real.is_waiting(id), call.waits);
                assert_eq!(self.real.deadline(id), call.deadline.filter(|_| call.waits));
            }
        }

        /// Settles every call, and lets its caller take the reply.
        fn end(mut self) {
            for id in self.calls.keys().copied().collect::<Vec<_>>() {
                if self.calls[&id].waits {
                    self.settle(id);
                }
                self.poll(id, false);
            }
            self.check();
            assert_eq!(self.real.taken, 0);
            for call in self.calls.values() {
                let told = match &call.waiter {
                    Told::Tasks(tasks) => tasks.iter().map(|task| task.count()).sum(),
                    Told::Hook(told) => told.lock().expect("it works").len(),
                    Told::Batch(..) => continue,
                };
                assert_eq!(
                    told,
                    usize::from(!call.forgotten),
                    "each is told once, or never when it was forgotten"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn each_call_is_told_once_and_never_after_it_was_forgotten(steps in steps()) {
            let mut model = Model::new();
            for step in steps {
                model.step(step);
            }
            model.end();
        }
    }

    fn open(in_flight: &mut InFlight) -> CallbackId {
        in_flight.open(None, Waiter::Task(Waker::noop().clone())).ok().expect("there is room")
    }

    fn take(in_flight: &mut InFlight, id: CallbackId) -> Option<u32> {
        match in_flight.poll(id, Waker::noop(), &mut None) {
            Poll::Ready(reply) => reply.map(number),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_ring_that_grew_for_a_burst_is_given_back() {
        let mut in_flight = InFlight::new();
        let ids: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| open(&mut in_flight)).collect();
        assert_eq!(in_flight.slots.len(), 2 * IN_FLIGHT_MAX);
        assert_eq!(in_flight.take_departure().map(|departure| departure.count), Some(IN_FLIGHT_MAX));
        for id in ids.iter().rev() {
            in_flight.settle(*id, reply(7)).wake();
        }
        assert_eq!(ids.iter().filter_map(|id| take(&mut in_flight, *id)).count(), IN_FLIGHT_MAX);
        assert_eq!((in_flight.waiting(), in_flight.slots.len()), (0, 0));
        assert!(open(&mut in_flight) > ids[IN_FLIGHT_MAX - 1], "ids rise all the same");
    }

    #[test]
    fn a_call_that_is_never_polled_again_keeps_its_slot_and_no_more() {
        let mut in_flight = InFlight::new();
        let (settled, waiting) = (open(&mut in_flight), open(&mut in_flight));
        in_flight.settle(settled, reply(1)).wake();
        for _ in 0..10_000 {
            let id = open(&mut in_flight);
            assert_ne!(in_flight.index(id.0), in_flight.index(settled.0));
            in_flight.settle(id, reply(2)).wake();
            assert_eq!(take(&mut in_flight, id), Some(2));
        }
        assert_eq!((in_flight.slots.len(), in_flight.taken, in_flight.waiting()), (SLOTS_MIN, 2, 1));
        assert_eq!(take(&mut in_flight, settled), Some(1), "its reply is still there");
        assert!(in_flight.forget(waiting).waited());
        assert_eq!((in_flight.taken, in_flight.waiting()), (0, 0));
    }
}

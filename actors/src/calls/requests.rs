//! The calls of one node that have left it, as its actor knows them: which response actor is bound to which calls, where each call went,
//! and when the next deadline passes. Generic over the type of a destination; a call without one has gone to the usual destination.

use super::bindings::Bindings;
use super::deadlines::Deadlines;
use super::in_flight::Departure;
use super::reply::Reply;
use super::response::{Calls, Pooled};
use crate::answers::outlet::To;
use crate::answers::reply_to::ReplyTo;
use crate::hashed::HashMap;
use crate::streams::Inbox;
use meshwork_wire::limits::RESPONSE_POOL_MAX;
use meshwork_wire::{CallError, CallbackId, Outcome};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The calls of one node that have left it.
pub(crate) struct Requests<D> {
    calls: Arc<dyn Calls>,
    bindings: Bindings<Pooled>,
    pool: Vec<Pooled>,
    /// The destinations of the calls that did not go to the usual one.
    destinations: HashMap<CallbackId, D>,
    /// One deadline for each departure whose deadlines are in order, under its first id; one for each call of any other departure.
    deadlines: Deadlines,
    /// A row: replies of one block to calls of one binding.
    row: Vec<(CallbackId, Reply)>,
    /// The index of the binding of the row.
    row_binding: usize,
}

impl<D> Requests<D> {
    pub(crate) fn new(calls: Arc<dyn Calls>) -> Self {
        Self {
            calls,
            bindings: Bindings::new(),
            pool: Vec::new(),
            destinations: HashMap::default(),
            deadlines: Deadlines::default(),
            row: Vec::new(),
            row_binding: 0,
        }
    }

    /// Binds a response actor to the calls of a departure, which leave now.
    pub(crate) fn bind(&mut self, departure: Departure) {
        let response = self.pool.pop().unwrap_or_else(|| Pooled::new(Arc::clone(&self.calls)));
        // Before the bindings change, since `row_binding` is an index into them.
        self.end_row();
        self.bindings.bind(departure, response);
        if departure.in_order {
            if let Some(earliest) = departure.earliest {
                self.deadlines.push(earliest, departure.first);
            }
            return;
        }
        let deadlines = &mut self.deadlines;
        self.calls.with(&mut |in_flight| {
            for id in (departure.first.0..=departure.last.0).map(CallbackId) {
                if let Some(deadline) = in_flight.deadline(id) {
                    deadlines.push(deadline, id);
                }
            }
        });
    }

    /// Resolves a call with its reply. A late reply, or one to an unknown id, misses.
    pub(crate) fn resolve(&mut self, id: CallbackId, reply: impl Into<Reply>) {
        self.resolve_in_row(id, reply.into());
        self.end_row();
    }

    /// Resolves a call with a reply of a block in which more replies may follow. [`Requests::end_row`] must be called after the last.
    #[inline]
    pub(crate) fn resolve_in_row(&mut self, id: CallbackId, reply: Reply) {
        if !self.destinations.is_empty() {
            self.destinations.remove(&id);
        }
        let before = self.row_binding;
        let Some(at) = self.bindings.find(id) else {
            return log::debug!("a reply to {id} came too late");
        };
        if at != before && !self.row.is_empty() {
            self.end_row();
            // The end of the row may have dropped bindings before this one.
            match self.bindings.find(id) {
                Some(at) => self.row_binding = at,
                None => return,
            }
        } else {
            self.row_binding = at;
        }
        self.row.push((id, reply));
    }

    /// Hands the row to the response actor that is bound to its calls.
    #[inline]
    pub(crate) fn end_row(&mut self) {
        if !self.row.is_empty() {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let at = self.row_binding;
        let response = self.bindings.get_mut(at).and_then(|binding| binding.response.as_mut());
        let Some(response) = response else {
            // All calls of the binding are settled.
            return self.row.clear();
        };
        let settled = response.resolve(&*self.calls, &mut self.row);
        self.settled(at, settled);
    }

    /// Notes that `count` calls of the binding at this index are settled.
    fn settled(&mut self, at: usize, count: usize) {
        let Some(departure) = self.bindings.get_mut(at).map(|binding| binding.departure) else {
            return;
        };
        let ended = self.bindings.settled(at, count);
        let (calls, bindings) = (&*self.calls, &self.bindings);
        let waits = |id| bindings.may_expire(id, || is_waiting(calls, id));
        if let Some(response) = ended {
            self.deadlines.settled(departure.first, waits, bindings.unsettled());
            if self.pool.len() < RESPONSE_POOL_MAX {
                self.pool.push(response);
            }
        }
        self.deadlines.sweep_if_long(waits, bindings.unsettled());
    }

    /// Notes that a caller dropped its call before it was settled; gives the destination of the call, if that was not the usual one.
    pub(crate) fn cancel(&mut self, id: CallbackId) -> Option<D> {
        self.end_row();
        if let Some(at) = self.bindings.find(id) {
            self.settled(at, 1);
        }
        self.destinations.remove(&id)
    }

    /// Notes that a call goes to another destination than the usual one.
    pub(crate) fn set_destination(&mut self, id: CallbackId, destination: D) {
        self.destinations.insert(id, destination);
    }

    /// The destination of a call that has not gone to the usual one.
    pub(crate) fn destination(&self, id: CallbackId) -> Option<&D> {
        self.destinations.get(&id)
    }

    /// Notes that a call goes to the usual destination after all.
    pub(crate) fn clear_destination(&mut self, id: CallbackId) {
        self.destinations.remove(&id);
    }

    /// Ends the calls whose deadline has passed, each with the error for its destination; gives the calls and their destinations.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        error: impl Fn(Option<&D>) -> CallError,
    ) -> Vec<(CallbackId, Option<D>)> {
        let mut expired = Vec::new();
        while let Some(id) = self.deadlines.pop(now) {
            let Some(at) = self.bindings.find(id) else {
                continue;
            };
            let Some((departure, unexpired)) =
                self.bindings.get_mut(at).map(|it| (it.departure, it.unexpired))
            else {
                continue;
            };
            if !departure.in_order {
                expired.push(id);
                continue;
            }
            let mut next = None;
            self.calls.with(&mut |in_flight| {
                for id in (unexpired.0..=departure.last.0).map(CallbackId) {
                    match in_flight.deadline(id) {
                        Some(deadline) if deadline <= now => expired.push(id),
                        Some(deadline) => {
                            next = Some((deadline, id));
                            break;
                        }
                        None => {}
                    }
                }
            });
            if let Some((deadline, id)) = next {
                if let Some(binding) = self.bindings.get_mut(at) {
                    binding.unexpired = id;
                }
                self.deadlines.push(deadline, departure.first);
            }
        }
        let calls = Arc::clone(&self.calls);
        // A stream that has begun has no deadline any more.
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        calls.with(&mut |in_flight| expired.retain(|id| is_over(in_flight.deadline(*id))));
        let expired = expired.into_iter().map(|id| {
            let destination = self.destinations.remove(&id);
            self.resolve_in_row(id, Reply::failed(error(destination.as_ref())));
            (id, destination)
        });
        let expired = expired.collect();
        self.end_row();
        expired
    }

    /// When to look for expired calls again.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        let (calls, bindings) = (&*self.calls, &self.bindings);
        self.deadlines.drop_settled(|id| bindings.may_expire(id, || is_waiting(calls, id)));
        self.deadlines.first()
    }

    /// Ends every call that has left for a destination for which `gone` holds; gives how many.
    pub(crate) fn fail_if(&mut self, gone: impl Fn(Option<&D>) -> bool, error: &CallError) -> usize {
        self.end_row();
        let mut lost = Vec::new();
        for departure in self.bindings.open_departures() {
            let destinations = &self.destinations;
            self.calls.with(&mut |in_flight| {
                let ids = (departure.first.0..=departure.last.0).map(CallbackId);
                lost.extend(ids.filter(|id| in_flight.is_waiting(*id) && gone(destinations.get(id))));
            });
        }
        for id in &lost {
            self.resolve_in_row(*id, Reply::failed(error.clone()));
        }
        self.end_row();
        lost.len()
    }

    /// Whether a call is not settled.
    pub(crate) fn is_waiting(&self, id: CallbackId) -> bool {
        is_waiting(&*self.calls, id)
    }

    /// The deadline of a call that is not settled.
    pub(crate) fn deadline(&self, id: CallbackId) -> Option<Instant> {
        let mut deadline = None;
        self.calls.with(&mut |in_flight| deadline = in_flight.deadline(id));
        deadline
    }

    /// How many calls have a destination of their own.
    #[cfg(feature = "testing")]
    pub(crate) fn with_destination(&self) -> usize {
        self.destinations.len()
    }

    /// How many calls that have left are not settled.
    pub(crate) fn len(&self) -> usize {
        self.bindings.unsettled()
    }
}

fn is_waiting(calls: &dyn Calls, id: CallbackId) -> bool {
    let mut is_waiting = false;
    calls.with(&mut |in_flight| is_waiting = in_flight.is_waiting(id));
    is_waiting
}

impl<D> Requests<D> {
    /// Notes that the stream begins that answers a call.
    pub(crate) fn started(&self, id: CallbackId) {
        if let Some(inbox) = self.calls.inbox(id) {
            self.calls.with(&mut |in_flight| in_flight.clear_deadline(id));
            inbox.start();
        }
    }

    /// The inbox of a call whose reply is a stream.
    pub(crate) fn inbox(&self, id: CallbackId) -> Option<Arc<Inbox>> {
        self.calls.inbox(id)
    }
}

impl<D: 'static> ReplyTo for Rc<RefCell<Requests<D>>> {
    type Later = Self;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        self.borrow_mut().resolve(callback_id, outcome);
    }

    fn later(&self) -> Self {
        Rc::clone(self)
    }

    fn to(&self, callback_id: CallbackId) -> Option<To> {
        let calls = Arc::clone(&self.borrow().calls);
        let inbox = calls.inbox(callback_id)?;
        let on_start = move || calls.with(&mut |in_flight| in_flight.clear_deadline(callback_id));
        Some(To::Here { inbox, on_start: Some(Box::new(on_start)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::in_flight::{InFlight, Waiter};
    use meshwork_wire::{
        Callable, Callbacks, Code, Encoding, Fate, Function, Invocation, Invoked, Passed, Payload,
    };
    use proptest::prelude::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::task::{Poll, Wake, Waker};
    use std::time::Duration;

    /// The lock of a node, without the node.
    struct Lock {
        in_flight: Mutex<InFlight>,
        /// How often the lock was taken.
        taken: AtomicUsize,
    }

    impl Lock {
        fn new() -> Arc<Self> {
            Arc::new(Self { in_flight: Mutex::new(InFlight::new()), taken: AtomicUsize::new(0) })
        }

        fn lock<T>(&self, change: impl FnOnce(&mut InFlight) -> T) -> T {
            change(&mut self.in_flight.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    impl Calls for Lock {
        fn with(&self, change: &mut dyn FnMut(&mut InFlight)) {
            self.taken.fetch_add(1, Ordering::Relaxed);
            self.lock(change);
        }
    }

    /// The outcomes that the hook of a call was told.
    type Heard = Arc<Mutex<Vec<Result<u32, CallError>>>>;

    fn reply(number: u32) -> Reply {
        Reply::from(Ok(Payload::new(Encoding::MessagePack, number.to_le_bytes().to_vec())))
    }

    fn read(reply: Reply) -> Result<u32, CallError> {
        let payload = reply.into_outcome()?;
        Ok(u32::from_le_bytes(payload.bytes.as_ref().try_into().expect("it is a number")))
    }

    fn open(lock: &Lock, deadline: Option<Instant>) -> (CallbackId, Heard) {
        let heard = Heard::default();
        let hears = Arc::clone(&heard);
        let hook = move |reply| hears.lock().expect("it works").push(read(reply));
        let id = lock.lock(|in_flight| in_flight.open(deadline, Waiter::Hook(Box::new(hook))));
        (id.ok().expect("there is room"), heard)
    }

    fn leave(lock: &Lock, requests: &mut Requests<u8>) {
        if let Some(departure) = lock.lock(InFlight::take_departure) {
            requests.bind(departure);
        }
    }

    fn timed_out(destination: Option<&u8>) -> CallError {
        CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, format!("{destination:?}"))
    }

    fn lost(destination: Option<u8>) -> CallError {
        CallError::new(Code::LINK_LOST, Fate::Unknown, format!("{destination:?}"))
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Opens a call with a deadline after so many milliseconds, or none.
        Open(Option<u64>),
        /// The calls that were opened leave, and the calls that were forgotten are cancelled.
        Flush,
        /// Replies that come in one block.
        Row(Vec<usize>),
        Reply(usize),
        Unknown(u64),
        Forget(usize),
        SetDestination(usize, u8),
        Wait(u64),
        Fail(Option<u8>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let within = prop_oneof![
            // In order more often than not.
            4 => Just(Some(50)),
            3 => (0..200_u64).prop_map(Some),
            2 => Just(None),
        ];
        let step = prop_oneof![
            40 => within.prop_map(Step::Open),
            12 => Just(Step::Flush),
            8 => proptest::collection::vec(any::<usize>(), 0..20).prop_map(Step::Row),
            15 => any::<usize>().prop_map(Step::Reply),
            2 => any::<u64>().prop_map(Step::Unknown),
            8 => any::<usize>().prop_map(Step::Forget),
            5 => (any::<usize>(), 0..2_u8).prop_map(|(at, destination)| Step::SetDestination(at, destination)),
            8 => (0..40_u64).prop_map(Step::Wait),
            1 => proptest::option::of(0..2_u8).prop_map(Step::Fail),
        ];
        proptest::collection::vec(step, 0..300)
    }

    /// A call, as the model knows it.
    struct Call {
        id: CallbackId,
        deadline: Option<Instant>,
        heard: Heard,
        /// The outcome that it must have heard.
        told: Option<Result<u32, CallError>>,
        destination: Option<u8>,
        departed: bool,
        forgotten: bool,
        cancelled: bool,
    }

    impl Call {
        fn waits(&self) -> bool {
            self.told.is_none() && !self.forgotten
        }

        /// Whether the actor counts the call as one that has left and is not settled.
        fn counts(&self) -> bool {
            self.departed && self.told.is_none() && !self.cancelled
        }
    }

    struct Model {
        lock: Arc<Lock>,
        requests: Requests<u8>,
        now: Instant,
        calls: Vec<Call>,
        replies: u32,
        /// How many response actors were bound at once at most.
        open_max: usize,
    }

    impl Model {
        fn new() -> Self {
            let lock = Lock::new();
            let requests = Requests::new(Arc::clone(&lock) as Arc<dyn Calls>);
            Self { lock, requests, now: Instant::now(), calls: Vec::new(), replies: 0, open_max: 0 }
        }

        fn pick(&mut self, at: usize) -> Option<&mut Call> {
            let count = self.calls.len();
            self.calls.get_mut(at.checked_rem(count)?)
        }

        /// Makes a reply to one of the calls.
        fn replied(&mut self, at: usize) -> Option<(CallbackId, Reply)> {
            self.replies += 1;
            let number = self.replies;
            let call = self.pick(at)?;
            if call.departed && call.waits() {
                call.told = Some(Ok(number));
                call.destination = None;
            }
            Some((call.id, reply(number)))
        }

        fn flush(&mut self) {
            leave(&self.lock, &mut self.requests);
            self.open_max = self.open_max.max(self.requests.bindings.open_departures().len());
            for call in &mut self.calls {
                call.departed = true;
                if call.forgotten && !call.cancelled {
                    call.cancelled = true;
                    // A reply that came after the caller had forgotten the call has removed the destination.
                    let destination = self.requests.cancel(call.id);
                    assert!(destination.is_none() || destination == call.destination);
                }
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Open(within) => {
                    let deadline = within.map(|ms| self.now + Duration::from_millis(ms));
                    let (id, heard) = open(&self.lock, deadline);
                    self.calls.push(Call {
                        id,
                        deadline,
                        heard,
                        told: None,
                        destination: None,
                        departed: false,
                        forgotten: false,
                        cancelled: false,
                    });
                }
                Step::Flush => self.flush(),
                Step::Row(row) => {
                    for at in row {
                        if let Some((id, reply)) = self.replied(at) {
                            self.requests.resolve_in_row(id, reply);
                        }
                    }
                    self.requests.end_row();
                }
                Step::Reply(at) => {
                    if let Some((id, reply)) = self.replied(at) {
                        self.requests.resolve(id, reply);
                    }
                }
                Step::Unknown(id) => {
                    if self.calls.iter().all(|call| call.id.0 != id) {
                        self.requests.resolve(CallbackId(id), reply(0));
                    }
                }
                Step::Forget(at) => {
                    let lock = Arc::clone(&self.lock);
                    if let Some(call) = self.pick(at) {
                        let forgotten = lock.lock(|in_flight| in_flight.forget(call.id));
                        assert_eq!(forgotten.waited(), call.waits());
                        call.forgotten |= call.waits();
                    }
                }
                Step::SetDestination(at, destination) => {
                    if let Some(call) = self.pick(at).filter(|call| call.departed && call.waits()) {
                        call.destination = Some(destination);
                        let id = call.id;
                        self.requests.set_destination(id, destination);
                    }
                }
                Step::Wait(ms) => self.wait(Duration::from_millis(ms)),
                Step::Fail(destination) => {
                    let mut count = 0;
                    for call in self.calls.iter_mut().filter(|call| call.departed && call.waits()) {
                        if call.destination == destination {
                            call.told = Some(Err(lost(destination)));
                            call.destination = None;
                            count += 1;
                        }
                    }
                    assert_eq!(
                        self.requests.fail_if(|of| of.copied() == destination, &lost(destination)),
                        count
                    );
                }
            }
            self.check();
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
            let now = self.now;
            let mut expected = Vec::new();
            for call in self.calls.iter_mut().filter(|call| call.departed && call.waits()) {
                if call.deadline.is_some_and(|deadline| deadline <= now) {
                    call.told = Some(Err(timed_out(call.destination.as_ref())));
                    expected.push((call.id, call.destination.take()));
                }
            }
            let mut expired = self.requests.expire(now, timed_out);
            expired.sort();
            assert_eq!(expired, expected);
        }

        fn check(&mut self) {
            for call in &self.calls {
                let heard = call.heard.lock().expect("it works");
                assert_eq!(heard.as_slice(), call.told.as_slice(), "{}", call.id);
                assert_eq!(self.requests.is_waiting(call.id), call.waits());
            }
            let requests = &mut self.requests;
            let unsettled = self.calls.iter().filter(|call| call.counts()).count();
            assert_eq!(requests.len(), unsettled);
            let waiting = self.calls.iter().filter(|call| call.departed && call.waits());
            let earliest = waiting.filter_map(|call| call.deadline).min();
            let next = requests.next_deadline();
            assert!(earliest.is_none_or(|earliest| next.is_some_and(|next| next <= earliest)));
            // Each response actor is either bound or in the pool.
            let open = requests.bindings.open_departures().len();
            assert_eq!(requests.pool.len() + open, self.open_max);
            assert!(requests.deadlines.len() <= 64 + 2 * unsettled);
            assert!(requests.bindings.len() <= 16 + 2 * open);
            assert!(
                requests.destinations.len()
                    <= self.calls.iter().filter(|call| call.destination.is_some()).count()
            );
        }

        fn end(mut self) {
            self.flush();
            for at in 0..self.calls.len() {
                let (id, reply) = self.replied(at).expect("it is there");
                self.requests.resolve(id, reply);
            }
            self.check();
            assert_eq!((self.requests.len(), self.requests.destinations.len()), (0, 0));
            assert_eq!((self.requests.next_deadline(), self.requests.bindings.len()), (None, 0));
            assert_eq!(self.lock.lock(|in_flight| in_flight.waiting()), 0);
            for call in self.calls {
                assert_eq!(call.heard.lock().expect("it works").len(), usize::from(!call.forgotten));
            }
        }
    }

    proptest! {
        #[test]
        fn each_call_is_answered_once_with_its_own_reply_or_error(steps in steps()) {
            let mut model = Model::new();
            for step in steps {
                model.step(step);
            }
            model.end();
        }
    }

    fn new() -> (Arc<Lock>, Requests<u8>) {
        let lock = Lock::new();
        let requests = Requests::new(Arc::clone(&lock) as Arc<dyn Calls>);
        (lock, requests)
    }

    fn open_quietly(lock: &Lock, deadline: Option<Instant>) -> CallbackId {
        let opened = lock.lock(|in_flight| in_flight.open(deadline, Waiter::Hook(Box::new(drop))));
        opened.ok().expect("there is room")
    }

    /// The pool was indexed by more than it holds.
    #[test]
    fn more_calls_may_leave_alone_than_response_actors_are_kept() {
        let (lock, mut requests) = new();
        let mut calls = Vec::new();
        for _ in 0..RESPONSE_POOL_MAX + 904 {
            calls.push(open(&lock, None));
            leave(&lock, &mut requests);
        }
        assert_eq!(requests.len(), calls.len());
        for (number, (id, _)) in (0..5_000).zip(&calls).rev() {
            requests.resolve(*id, reply(number));
        }
        for (number, (_, heard)) in (0..5_000).zip(&calls) {
            assert_eq!(*heard.lock().unwrap(), [Ok(number)]);
        }
        assert_eq!((requests.len(), requests.pool.len()), (0, RESPONSE_POOL_MAX));
    }

    #[test]
    fn a_reply_between_the_end_of_a_caller_and_its_cancel_tells_nobody() {
        let (lock, mut requests) = new();
        let (id, heard) = open(&lock, None);
        leave(&lock, &mut requests);
        assert!(lock.lock(|in_flight| in_flight.forget(id)).waited());
        requests.resolve(id, reply(1));
        assert_eq!(requests.len(), 1, "its cancel is on the way");
        requests.cancel(id);
        requests.resolve(id, reply(2));
        assert_eq!((requests.len(), requests.pool.len()), (0, 1));
        assert_eq!(*heard.lock().unwrap(), []);
    }

    #[test]
    fn a_call_that_never_ends_does_not_keep_the_deadlines_of_the_settled_ones() {
        let (lock, mut requests) = new();
        let start = Instant::now();
        // Each departure has one slow call; its deadlines are in no order.
        for round in 0..50_u64 {
            let ids: Vec<_> = (0..200_u64)
                .map(|number| {
                    open_quietly(&lock, Some(start + Duration::from_secs(3_600 + (number * 7 + round) % 11)))
                })
                .collect();
            leave(&lock, &mut requests);
            for id in &ids[1..] {
                requests.resolve(*id, reply(1));
            }
        }
        assert_eq!(requests.len(), 50);
        assert!(requests.deadlines.len() <= 64 + 2 * 50, "{}", requests.deadlines.len());
        for _ in 0..10_000 {
            let id = open_quietly(&lock, Some(start + Duration::from_secs(10)));
            leave(&lock, &mut requests);
            requests.resolve(id, reply(1));
        }
        assert!(requests.deadlines.len() <= 64 + 2 * 50 && requests.bindings.len() <= 16 + 2 * 50);
    }

    /// Every reply to a call with a short deadline swept the deadlines of all calls.
    #[test]
    fn many_slow_calls_in_no_order_cost_the_others_nothing() {
        let (lock, mut requests) = new();
        let start = Instant::now();
        let slow: Vec<_> = (0..20_000_u64)
            .map(|number| open_quietly(&lock, Some(start + Duration::from_secs(60 - number % 2))))
            .collect();
        leave(&lock, &mut requests);
        for _ in 0..20_000 {
            let id = open_quietly(&lock, Some(start + Duration::from_secs(10)));
            leave(&lock, &mut requests);
            requests.next_deadline();
            requests.resolve(id, reply(1));
        }
        // Otherwise all slow calls would have been looked at for each other call.
        let taken = lock.taken.load(Ordering::Relaxed);
        assert!(taken < 6 * 20_000 && start.elapsed() < Duration::from_secs(20), "{taken}");
        assert_eq!(requests.len(), slow.len());
    }

    #[test]
    fn calls_whose_deadlines_are_in_no_order_expire_one_by_one_in_time_that_is_not_the_square() {
        let (lock, mut requests) = new();
        let (start, count) = (Instant::now(), 50_000_u64);
        // Each call has a deadline of its own: 7 and the count have no divisor in common.
        for number in 0..count {
            open_quietly(&lock, Some(start + Duration::from_millis(1 + number * 7 % count)));
        }
        leave(&lock, &mut requests);
        for ms in 1..=count {
            let now = start + Duration::from_millis(ms);
            assert_eq!(requests.next_deadline(), Some(now));
            assert_eq!(requests.expire(now, timed_out).len(), 1);
        }
        assert_eq!((requests.len(), requests.next_deadline(), requests.pool.len()), (0, None, 1));
        assert!(lock.taken.load(Ordering::Relaxed) < 8 * 50_000);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }

    #[test]
    fn calls_whose_deadlines_are_in_order_expire_one_by_one_in_time_that_is_not_the_square() {
        let (lock, mut requests) = new();
        let (start, count) = (Instant::now(), 50_000_u64);
        for ms in 1..=count {
            open_quietly(&lock, Some(start + Duration::from_millis(ms)));
        }
        leave(&lock, &mut requests);
        for ms in 1..=count {
            let now = start + Duration::from_millis(ms);
            assert_eq!(requests.next_deadline(), Some(now));
            assert_eq!(requests.expire(now, timed_out).len(), 1);
        }
        assert_eq!((requests.len(), requests.next_deadline(), requests.pool.len()), (0, None, 1));
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }

    /// The callers of the other replies in the row were not told.
    #[test]
    fn a_function_that_panics_does_not_keep_the_others_from_being_told() {
        let (lock, mut requests) = new();
        let before = open(&lock, None);
        let panics = Waiter::Hook(Box::new(|_| panic!("this is what it does")));
        let panics = lock.lock(|in_flight| in_flight.open(None, panics)).ok().expect("there is room");
        let behind = open(&lock, None);
        leave(&lock, &mut requests);
        let row = AssertUnwindSafe(|| {
            for (number, id) in [(1, before.0), (2, panics), (3, behind.0)] {
                requests.resolve_in_row(id, reply(number));
            }
            requests.end_row();
        });
        catch_unwind(row).expect("it goes no further");
        assert_eq!((&*before.1.lock().unwrap(), &*behind.1.lock().unwrap()), (&vec![Ok(1)], &vec![Ok(3)]));
        assert_eq!((requests.len(), requests.pool.len()), (0, 1));
    }

    /// Notes whether it was dropped while the lock was held.
    struct Ends(Arc<Lock>, Arc<AtomicBool>);

    impl Drop for Ends {
        fn drop(&mut self) {
            let is_held = self.0.in_flight.try_lock().is_err();
            self.1.fetch_or(is_held, Ordering::Relaxed);
        }
    }

    impl Callable for Ends {
        fn invoke(&self, _: Invocation) -> Invoked {
            Box::pin(async { Ok(Payload::default()) })
        }

        fn encoding(&self) -> Encoding {
            Encoding::MessagePack
        }
    }

    impl Wake for Ends {
        fn wake(self: Arc<Self>) {}
    }

    /// A function that was dropped under the lock took the lock again, and the thread stood for ever.
    #[test]
    fn wakers_and_functions_of_callers_end_when_no_lock_is_held() {
        let (lock, mut requests) = new();
        let in_lock = Arc::new(AtomicBool::new(false));
        let ends = || Ends(Arc::clone(&lock), Arc::clone(&in_lock));
        let with_function = || {
            let mut payload = Payload::new(Encoding::MessagePack, vec![0]);
            payload.callbacks = Callbacks::new([Passed::Here(Function::new(ends()))]);
            Reply::from(Ok(payload))
        };
        let task = || Waiter::Task(Waker::from(Arc::new(ends())));
        let open = |waiter| lock.lock(|in_flight| in_flight.open(None, waiter)).ok().expect("there is room");

        // A reply that comes too late, and one that comes twice.
        let (late, twice) = (open(task()), open(Waiter::Hook(Box::new(drop))));
        leave(&lock, &mut requests);
        let forgotten = lock.lock(|in_flight| in_flight.forget(late));
        drop(forgotten);
        for id in [late, twice, twice] {
            requests.resolve_in_row(id, with_function());
        }
        requests.end_row();
        assert!(!in_lock.load(Ordering::Relaxed));

        // A reply to a caller that was woken, and drops the call without reading it.
        let unread = open(task());
        leave(&lock, &mut requests);
        requests.resolve(unread, with_function());
        let forgotten = lock.lock(|in_flight| in_flight.forget(unread));
        drop(forgotten);
        assert!(!in_lock.load(Ordering::Relaxed));

        // The waker of a task that another task takes the call from.
        let moved = open(task());
        let mut unused = None;
        let polled = lock.lock(|in_flight| in_flight.poll(moved, Waker::noop(), &mut unused));
        assert!(matches!(polled, Poll::Pending) && unused.is_some());
        drop(unused);
        assert!(!in_lock.load(Ordering::Relaxed));
    }
}

//! Calls that wait for their end. Each request in flight has a [`ResponseActor`] that resolves its callback id, as each call
//! of light_rpc has an entry in the callback table. The actors are taken from a pool, so a call costs one message, not one
//! actor; who settles first is decided in `callbacks.rs`.

use super::batch::{Batch, ResolveMany, Seat, Seats};
use super::load::Load;
use super::parts::Parts;
use super::table::CallbackTable;
use crate::answers::reply_to::ReplyTo;
use actix::dev::ContextFut;
use actix::{Actor, AsyncContext, Context, Handler, StreamHandler};
use futures::{FutureExt, Stream};
use meshwork_wire::limits::RESPONSE_POOL_MAX;
use meshwork_wire::{ActionDescription, CallError, CallbackId, Code, Fate, Outcome};
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Instant;
use tokio::sync::oneshot;

/// Hands the outcome of one request to its caller. It lives on the arbiter of the branch or master that made the request, which
/// also gives it its turn: right after it has sent it something, and not as a task of its own, whose way through the queue of
/// the arbiter cost more than all that the actor does.
#[derive(Debug, Default)]
pub struct ResponseActor {
    resolved: u64,
}

/// The callback of a request is resolved. Put by the branch or master that made it into the stream of the response actor, once;
/// the actor hands the outcome to the caller, if that still waits.
pub(crate) struct Resolve {
    callback_id: CallbackId,
    outcome: Outcome,
    reply: Reply,
}

/// Where a caller waits.
#[derive(Debug)]
pub(crate) enum Reply {
    Call(oneshot::Sender<Outcome>),
    /// With others of its batch.
    Batch(Seat),
    Describe(oneshot::Sender<Result<Vec<ActionDescription>, CallError>>),
    /// Nowhere: the caller has been handed over to an entry of the callback table.
    Nobody,
}

impl Actor for ResponseActor {
    type Context = Context<Self>;
}

impl StreamHandler<Resolve> for ResponseActor {
    fn handle(&mut self, Resolve { callback_id, outcome, reply }: Resolve, _: &mut Context<Self>) {
        self.resolved += 1;
        log::trace!("{callback_id} is resolved; {} by this actor", self.resolved);
        reply.send(outcome);
    }
}

impl Handler<ResolveMany> for ResponseActor {
    type Result = ();

    fn handle(&mut self, resolve: ResolveMany, _: &mut Context<Self>) {
        let count = resolve.settle();
        self.resolved += count as u64;
        log::trace!("{count} calls of a batch are resolved; {} by this actor", self.resolved);
    }
}

impl Reply {
    pub(crate) fn send(self, outcome: Outcome) {
        // A caller that gave up meanwhile has dropped its end.
        match self {
            Reply::Call(caller) => {
                let _ = caller.send(outcome);
            }
            Reply::Batch(seat) => seat.tell(outcome),
            Reply::Describe(caller) => {
                let _ = caller.send(outcome.map(|_| Vec::new()));
            }
            Reply::Nobody => {}
        }
    }
}

/// The way that a request has gone: it decides what a lost link means to it, and whom a cancel reaches.
#[derive(Clone)]
pub(crate) enum Way<S> {
    /// Not gone yet: it waits for the link.
    Waiting,
    /// To a responder of this node.
    Here,
    /// Over the link to the master.
    Link,
    /// Over a session of this master, by the id that was drawn there.
    Session(S, CallbackId),
}

/// A request in flight.
pub(crate) struct InFlight<S> {
    pub(crate) way: Way<S>,
    reply: Reply,
    /// Its response actor in the pool; none when its batch has one.
    response: Option<u32>,
    deadline: Option<Instant>,
}

/// The requests of one node that are in flight.
pub(crate) struct Requests<S> {
    load: Arc<Load>,
    table: CallbackTable<InFlight<S>>,
    /// Response actors, each free or with one request; `free` holds the indexes of the free ones.
    responses: Vec<Pooled>,
    free: Vec<u32>,
    /// Those that are awaited as one and go over the link.
    parts: Parts,
    turn: Turn,
}

/// Calls of one batch that are resolved in this turn.
#[derive(Default)]
struct Turn {
    batch: Option<Arc<Batch>>,
    outcomes: Vec<(usize, Outcome)>,
}

/// A response actor in the context that it runs in, and the way to it.
struct Pooled {
    inbox: Inbox,
    actor: ContextFut<ResponseActor, Context<ResponseActor>>,
}

/// What a response actor is told: one thing at a time. Nobody else tells it anything, so this is all that a mailbox is for.
#[derive(Clone, Default)]
struct Inbox(Rc<Cell<Option<Resolve>>>);

impl Pooled {
    fn new() -> Self {
        let inbox = Inbox::default();
        let mut context = Context::new();
        context.add_stream(inbox.clone());
        Self { inbox, actor: context.into_future(ResponseActor::default()) }
    }

    /// Tells the actor, and gives it its turn.
    fn resolve(&mut self, resolve: Resolve) {
        self.inbox.0.set(Some(resolve));
        // It has nothing else to wait for, so nobody needs to wake it.
        let _ = self.actor.poll_unpin(&mut task::Context::from_waker(task::Waker::noop()));
        // An actor does not end while its stream does not. If one did, its caller would still hear.
        if let Some(Resolve { outcome, reply, .. }) = self.inbox.0.take() {
            reply.send(outcome);
        }
    }
}

impl Stream for Inbox {
    type Item = Resolve;

    fn poll_next(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<Resolve>> {
        self.0.take().map_or(Poll::Pending, |resolve| Poll::Ready(Some(resolve)))
    }
}

impl<S: Clone> Requests<S> {
    pub(crate) fn new(load: Arc<Load>) -> Self {
        Self {
            load,
            table: CallbackTable::new(),
            responses: Vec::new(),
            free: Vec::new(),
            parts: Parts::default(),
            turn: Turn::default(),
        }
    }

    /// Opens a request: from now on `callback_id` has a response actor that waits for it.
    pub(crate) fn open(
        &mut self,
        callback_id: CallbackId,
        way: Way<S>,
        reply: Reply,
        deadline: Option<Instant>,
    ) {
        let response = (!matches!(reply, Reply::Batch(_))).then(|| {
            self.free.pop().unwrap_or_else(|| {
                self.responses.push(Pooled::new());
                u32::try_from(self.responses.len() - 1).expect("what is in flight is bounded far below")
            })
        });
        if let Some(previous) =
            self.table.insert(callback_id, InFlight { way, reply, response, deadline }, deadline)
        {
            // Ids are drawn here and never twice, so this is our own mistake; whoever waited must still hear.
            let lost = CallError::new(Code::UNKNOWN, Fate::Unknown, "a callback id was drawn twice");
            self.hand_over(callback_id, previous, Err(lost));
        }
    }

    /// Opens requests that go over the link and are awaited as one, with the ids from `first` on.
    pub(crate) fn open_part(&mut self, first: CallbackId, seats: Seats, deadline: Option<Instant>) {
        self.parts.insert(first, seats, deadline);
    }

    /// Resolves a request. A late or unknown reply misses.
    pub(crate) fn resolve(&mut self, callback_id: CallbackId, outcome: Outcome) {
        self.resolve_in_turn(callback_id, outcome, 0);
        self.end_turn();
    }

    /// Resolves a request of a turn in which so many more may follow; [`Requests::end_turn`] must.
    #[inline]
    pub(crate) fn resolve_in_turn(&mut self, callback_id: CallbackId, outcome: Outcome, left: usize) {
        if !self.parts.is_empty()
            && let Some((batch, place)) = self.parts.settle(callback_id)
        {
            if !self.turn.batch.as_ref().is_some_and(|same| Arc::ptr_eq(same, batch)) {
                let batch = Arc::clone(batch);
                self.turn.leave(&self.load);
                self.turn.batch = Some(batch);
                self.turn.outcomes.reserve(1 + left);
            }
            return self.turn.outcomes.push((place, outcome));
        }
        match self.table.settle(callback_id) {
            Some(in_flight) => self.hand_over(callback_id, in_flight, outcome),
            None => log::debug!("a reply to {callback_id} came too late"),
        }
    }

    /// Hands over what was resolved in this turn.
    pub(crate) fn end_turn(&mut self) {
        if self.turn.batch.is_some() {
            self.turn.leave(&self.load);
            self.parts.sweep();
        }
    }

    /// Resolves a describe.
    pub(crate) fn resolve_describe(&mut self, callback_id: CallbackId, actions: Vec<ActionDescription>) {
        let Some(in_flight) = self.table.settle(callback_id) else {
            return;
        };
        self.release(in_flight.response);
        match in_flight.reply {
            Reply::Describe(caller) => {
                let _ = caller.send(Ok(actions));
            }
            reply @ (Reply::Call(_) | Reply::Batch(_) | Reply::Nobody) => reply.send(Err(CallError::new(
                Code::CANNOT_DECODE,
                Fate::Unknown,
                "the master answered a request with a description",
            ))),
        }
    }

    /// Forgets a request whose caller gave up; gives the way that it went.
    pub(crate) fn cancel(&mut self, callback_id: CallbackId) -> Option<Way<S>> {
        if self.parts.settle(callback_id).is_some() {
            self.parts.sweep();
            self.load.settled();
            return Some(Way::Link);
        }
        let in_flight = self.table.settle(callback_id)?;
        self.release(in_flight.response);
        Some(in_flight.way)
    }

    /// Ends the next request whose deadline has passed; gives the way that it went.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(CallbackId, Way<S>)> {
        const NO_REPLY: (Fate, &str) = (Fate::Unknown, "no reply came before the deadline");
        if let Some(callback_id) = self.parts.expired(now) {
            let (fate, what) = NO_REPLY;
            self.resolve(callback_id, Err(CallError::new(Code::REQUEST_TIMEOUT, fate, what)));
            return Some((callback_id, Way::Link));
        }
        let (callback_id, in_flight) = self.table.expired(now)?;
        let way = in_flight.way.clone();
        let (fate, what) = match way {
            Way::Waiting => (Fate::NotSent, "the link did not come back before the deadline"),
            Way::Here | Way::Link | Way::Session(..) => NO_REPLY,
        };
        self.hand_over(callback_id, in_flight, Err(CallError::new(Code::REQUEST_TIMEOUT, fate, what)));
        Some((callback_id, way))
    }

    /// Ends every request that went a certain way.
    pub(crate) fn fail_if(&mut self, mut gone: impl FnMut(&Way<S>) -> bool, error: &CallError) -> usize {
        let of_parts = if gone(&Way::Link) { self.parts.ids() } else { Vec::new() };
        let lost = self.table.take_if(|in_flight| gone(&in_flight.way));
        let count = lost.len() + of_parts.len();
        for callback_id in of_parts {
            self.resolve_in_turn(callback_id, Err(error.clone()), 0);
        }
        self.end_turn();
        for (callback_id, in_flight) in lost {
            self.hand_over(callback_id, in_flight, Err(error.clone()));
        }
        count
    }

    pub(crate) fn fail_all(&mut self, error: &CallError) -> usize {
        self.fail_if(|_| true, error)
    }

    /// A request that waited goes on its way; gives until when it is waited for, unless nobody waits any more.
    pub(crate) fn goes(&mut self, callback_id: CallbackId, way: Way<S>) -> Option<Option<Instant>> {
        let in_flight = self.table.get_mut(callback_id)?;
        in_flight.way = way;
        Some(in_flight.deadline)
    }

    pub(crate) fn contains(&self, callback_id: CallbackId) -> bool {
        self.table.contains(callback_id) || self.parts.contains(callback_id)
    }

    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        let (single, parts) = (self.table.next_deadline(), self.parts.next_deadline());
        single.into_iter().chain(parts).min()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len() + self.parts.len()
    }

    fn hand_over(&mut self, callback_id: CallbackId, in_flight: InFlight<S>, outcome: Outcome) {
        let InFlight { reply, response, .. } = in_flight;
        match (response, reply) {
            (Some(response), reply) => {
                self.responses[response as usize].resolve(Resolve { callback_id, outcome, reply });
            }
            (None, Reply::Batch(seat)) => seat.resolve(outcome),
            (None, reply) => reply.send(outcome),
        }
        self.release(response);
    }

    fn release(&mut self, response: Option<u32>) {
        self.free.extend(response);
        self.load.settled();
        if self.table.len() == 0 && self.responses.len() > RESPONSE_POOL_MAX {
            self.responses.truncate(RESPONSE_POOL_MAX);
            self.free.retain(|free| (*free as usize) < RESPONSE_POOL_MAX);
        }
    }
}

impl Turn {
    fn leave(&mut self, load: &Load) {
        let outcomes = std::mem::take(&mut self.outcomes);
        let count = outcomes.len();
        if let Some(batch) = self.batch.take() {
            batch.resolve(outcomes);
            load.settled_many(count);
        }
    }
}

impl<S: Clone + 'static> ReplyTo for Rc<RefCell<Requests<S>>> {
    type Later = Self;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        self.borrow_mut().resolve(callback_id, outcome);
    }

    fn later(&self) -> Self {
        Rc::clone(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::ActorContext;
    use meshwork_wire::Payload;

    fn resolved_by(pooled: &mut Pooled) -> Option<Result<Outcome, oneshot::error::RecvError>> {
        let (reply, outcome) = oneshot::channel();
        let reply = Reply::Call(reply);
        pooled.resolve(Resolve { callback_id: CallbackId(1), outcome: Ok(Payload::default()), reply });
        outcome.now_or_never()
    }

    #[actix_rt::test]
    async fn a_caller_hears_at_once_and_even_of_an_actor_that_has_ended() {
        let mut pooled = Pooled::new();
        for _ in 0..40 {
            assert_eq!(resolved_by(&mut pooled), Some(Ok(Ok(Payload::default()))));
        }
        pooled.actor.ctx().terminate();
        assert_eq!(resolved_by(&mut pooled), Some(Ok(Ok(Payload::default()))));
    }

    #[actix_rt::test]
    async fn calls_of_a_batch_end_with_their_reply_their_deadline_or_their_link() {
        let node = Arc::new(Load::default());
        let batch = Arc::<Batch>::default();
        let mut requests = Requests::<()>::new(Arc::clone(&node));
        let part = |place| {
            let mut seats = Seats::new(Arc::clone(&batch), place);
            (0..3).for_each(|_| {
                seats.push();
                node.take_place().expect("a place");
            });
            seats
        };
        let now = Instant::now();
        requests.open_part(CallbackId(10), part(0), Some(now));
        requests.open_part(CallbackId(20), part(3), None);
        requests.resolve(CallbackId(11), Ok(Payload::default()));
        requests.resolve(CallbackId(11), Ok(Payload::default()));
        assert_eq!((requests.len(), node.in_flight()), (5, 5));
        assert!(matches!(requests.cancel(CallbackId(20)), Some(Way::Link)));
        assert_eq!(requests.next_deadline(), Some(now));
        let mut expired = Vec::new();
        while let Some((callback_id, way)) = requests.expire(now) {
            assert!(matches!(way, Way::Link));
            expired.push(callback_id.0);
        }
        assert_eq!((expired, requests.next_deadline()), (vec![10, 12], None));
        let lost = CallError::new(Code::LINK_LOST, Fate::Unknown, "lost");
        assert_eq!(requests.fail_if(|way| matches!(way, Way::Here), &lost), 0);
        assert_eq!(requests.fail_if(|way| matches!(way, Way::Link), &lost), 2);
        assert_eq!((requests.len(), node.in_flight()), (0, 0));
        let mut told = Vec::new();
        while told.len() < 5 {
            told.extend(std::future::poll_fn(|context| batch.poll(context)).await);
        }
        let told: Vec<_> = told
            .into_iter()
            .map(|(place, outcome)| (place, outcome.err().map(|error| error.code())))
            .collect();
        let (late, lost) = (Some(Code::REQUEST_TIMEOUT), Some(Code::LINK_LOST));
        assert_eq!(told, [(1, None), (0, late), (2, late), (4, lost), (5, lost)]);
    }
}

//! What a handle on a node shares with the node's actor: a queue of what the handle asks for, drained by one message however
//! much stands in it; the ids; the count of calls in flight; what is known of the others. And the messages that master and
//! branch both take.
//!
//! The queue, and not a message a call, is what makes a call cheap: the handle may be on any thread, and the actor sees a
//! burst as one [`Flush`].

use crate::branch::ActionCache;
use crate::outbox::Outbox;
use crate::responder::{Actions, Outcome};
use crate::response::{Batch, Reply, Seats};
use crate::router::Deliver;
use crate::snapshot::Snapshot;
use actix::{Actor, Addr, Handler, Message, Recipient};
use bytes::{Bytes, BytesMut};
use meshwork_wire::limits::{
    CALL_WITHIN, EVENTS_PENDING_MAX, FRAME_LEN_MAX, IN_FLIGHT_MAX, LENGTH_PREFIX_LEN, NAME_LEN_MAX,
    PAYLOAD_SHARED_LEN_MIN, SOME_FRAMES,
};
use meshwork_wire::{
    ActionDescription, ByteString, CallError, CallbackId, Code, Encoding, Fate, Frame, FrameCodec,
    HeadTemplate, Invocation, NodeNews, Pattern, Payload, Request, SubscriptionKey, Wants, check_topic,
};
use serde::Serialize;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::codec::Decoder;

/// What handles on a node and its actor share.
pub struct Node {
    name: ByteString,
    queue: Mutex<Queue>,
    next_subscriber: AtomicU64,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    door: OnceLock<Door>,
    known: RwLock<ActionCache>,
    status: watch::Sender<Status>,
    /// Told when there may be room for events again.
    room: Notify,
    /// Told when nothing is in flight any more.
    idle: Notify,
    way_out: RwLock<WayOut>,
}

/// What events of this node leave through.
#[derive(Default)]
pub(crate) enum WayOut {
    /// There is no link at the moment.
    #[default]
    Down,
    /// The outbox of the link to the master.
    Link(Outbox),
    /// The router of this very process, which is bounded behind it.
    Router,
}

#[derive(Default)]
struct Queue {
    next_id: u64,
    submissions: Vec<Submission>,
    closed: Option<CallError>,
}

/// Something that a handle asks of its node.
pub(crate) enum Submission {
    Ask(Box<Ask>),
    AskMany(Box<AskMany>),
    Cancel(CallbackId),
    /// Call a function that came over the link of that epoch.
    Invoke(Box<Invoking>),
    /// It is needed no more.
    Release {
        epoch: u64,
        function: CallbackId,
    },
    Publish {
        topic: ByteString,
        payload: Payload,
    },
    Broadcast {
        topic: ByteString,
        payload: Payload,
    },
}

/// A call on its way to the actor.
#[derive(Debug)]
pub(crate) struct Ask {
    /// What is sent, as it is. Until then `time_left` is how long the caller waits in all.
    pub(crate) request: Request,
    pub(crate) when_down: WhenDown,
    pub(crate) reply: Reply,
}

/// Calls that differ in their arguments alone, on their way to the actor: a part of those that are awaited as one. Each has a place
/// among those in flight.
pub(crate) struct AskMany {
    /// Without its arguments.
    pub(crate) call: Call,
    /// The id of the first; those of the others follow it.
    pub(crate) first: CallbackId,
    /// Where the caller of each waits.
    pub(crate) seats: Seats,
    /// The frames of most of them.
    pub(crate) frames: Bytes,
    /// How long the longest of these is.
    pub(crate) frame_len: usize,
    /// Those that are long, or pass functions: their arguments.
    pub(crate) others: Vec<(CallbackId, Payload)>,
}

/// A call of a function on its way to the actor.
pub(crate) struct Invoking {
    pub(crate) epoch: u64,
    pub(crate) function: CallbackId,
    /// None when nobody waits.
    pub(crate) waiter: Option<(CallbackId, Reply)>,
    pub(crate) invocation: Invocation,
}

/// A call that can be submitted. It moves to the actor as it is: a pointer, not the 200 bytes behind it.
#[derive(Debug)]
pub struct Prepared(Box<Ask>);

/// A call: which action, with what, how long, by whom.
#[derive(Clone, Debug)]
pub struct Call {
    /// The action.
    pub action: ByteString,
    /// The node that is to run it; empty for any.
    pub node: ByteString,
    /// The arguments.
    pub arguments: Payload,
    /// How long the caller waits; `None` for ever.
    pub within: Option<Duration>,
    /// What happens while the link is down.
    pub when_down: WhenDown,
}

/// What a call does while the link is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenDown {
    /// It waits for the link, within its deadline.
    #[default]
    Wait,
    /// It fails at once.
    Fail,
}

/// How a node stands to its mesh.
#[derive(Clone, PartialEq, Debug)]
pub enum Status {
    /// Callable, and able to call. A master is so from its start.
    Bound,
    /// The link is lost; the branch is on its way back.
    Rebinding,
    /// It drains.
    Draining,
    /// It ended, and why.
    Closed(CallError),
}

/// The mailboxes that a handle reaches.
pub(crate) struct Door {
    pub(crate) flush: Recipient<Flush>,
    pub(crate) subscribe: Recipient<Subscribe>,
    pub(crate) unsubscribe: Recipient<Unsubscribe>,
    pub(crate) respond: Recipient<Respond>,
    pub(crate) withdraw: Recipient<Withdraw>,
    pub(crate) describe: Recipient<Describe>,
    pub(crate) watch: Recipient<Watch>,
    pub(crate) drain: Recipient<Drain>,
    pub(crate) snapshot: Recipient<TakeSnapshot>,
}

/// There is something in the queue. Sent by a handle when the queue was empty; the receiver takes all of it.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Flush;

/// Delivers the events of a pattern to a handler of this node. Sent by a handle; answered when the master knows of it.
#[derive(Message)]
#[rtype(result = "Result<(), CallError>")]
pub struct Subscribe {
    /// The number of the handler, drawn by [`Node::draw_subscriber`].
    pub id: SubscriberId,
    /// Which events.
    pub to: SubscribeTo,
    /// Who handles them.
    pub subscriber: Arc<dyn Deliver>,
}

/// Which events a handler gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SubscribeTo {
    /// Those published to a topic that matches.
    Topics(SubscriptionKey),
    /// Those broadcast by others under a topic that matches. No master needs to know of it.
    Broadcasts(Pattern),
}

/// The number of a handler at its node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SubscriberId(pub u64);

/// Ends a subscription. Sent by a handle.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Unsubscribe(pub SubscriberId);

/// Answers more actions from now on. Sent by a handle; answered when they are callable from everywhere. All are taken or
/// none.
#[derive(Message)]
#[rtype(result = "Result<(), CallError>")]
pub struct Respond(pub Actions);

/// Answers actions no longer. Sent by a handle; answered when the master knows.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<(), CallError>")]
pub struct Withdraw(pub Vec<ByteString>);

/// Which actions are there? Sent by a handle.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<Vec<ActionDescription>, CallError>")]
pub struct Describe {
    /// Which actions: their names are matched as topics are.
    pub pattern: Pattern,
    /// How long the answer is waited for.
    pub within: Duration,
}

/// Tells who comes and goes from now on. Sent by a handle.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Watch(pub Watcher);

/// Is told of every change, on the arbiter of the node: it must be quick.
pub type Watcher = Box<dyn FnMut(&Change) + Send>;

/// A node came or went, or offers more or less.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It came, or offers more.
    Online(NodeNews),
    /// It went, or offers less.
    Offline(NodeNews),
}

/// Takes no more, finishes what is in flight, closes. Sent by a handle.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "Drained")]
pub struct Drain {
    /// How long to wait for what is in flight.
    pub within: Duration,
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// How many requests ended in time.
    pub finished: u64,
    /// How many did not: their callers have been told.
    pub abandoned: u64,
}

/// Shows what goes on. Sent by a handle.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "Snapshot")]
pub struct TakeSnapshot;

/// A call that was submitted. Resolves to its outcome; dropping it cancels the call, at the far end too.
pub struct Asked {
    outcome: oneshot::Receiver<Outcome>,
    callback_id: CallbackId,
    node: Arc<Node>,
    settled: bool,
}

/// Many calls that are awaited as one: [`AskedMany::add`] them, [`AskedMany::submit`] them a part at a time, then take their
/// outcomes as they come with [`AskedMany::next`]. Dropping it cancels those that have no outcome yet.
pub struct AskedMany {
    node: Arc<Node>,
    batch: Arc<Batch>,
    /// What all of them have in common.
    call: Call,
    /// The same as their frames have it, unless their names are too long.
    head: Option<HeadTemplate>,
    /// Those that are not submitted yet.
    writing: Option<Writing>,
    /// The first ids and places of the parts that were submitted, and how many calls each has.
    parts: Vec<(CallbackId, usize, usize)>,
    /// Which of those that were added have been given their outcomes, and how many that are.
    given: Vec<bool>,
    given_count: usize,
}

/// A part that is being written.
struct Writing {
    first: CallbackId,
    seats: Seats,
    frames: BytesMut,
    frame_len: usize,
    others: Vec<(CallbackId, Payload)>,
}

impl Node {
    /// The beginning of many calls that are awaited as one. They are all like this one, but for their arguments.
    #[must_use]
    pub fn ask_many(self: &Arc<Self>, call: Call) -> AskedMany {
        let Ask { request, .. } = Ask::new(CallbackId(0), call.clone(), Reply::Nobody);
        AskedMany {
            node: Arc::clone(self),
            batch: Arc::default(),
            head: HeadTemplate::of_request(&request),
            call,
            writing: None,
            parts: Vec::new(),
            given: Vec::new(),
            given_count: 0,
        }
    }

    pub(crate) fn new(name: ByteString) -> Arc<Self> {
        Arc::new(Self {
            name,
            queue: Mutex::default(),
            next_subscriber: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(IN_FLIGHT_MAX),
            door: OnceLock::new(),
            known: RwLock::default(),
            status: watch::Sender::new(Status::Rebinding),
            room: Notify::new(),
            idle: Notify::new(),
            way_out: RwLock::default(),
        })
    }

    /// What the node is called.
    #[must_use]
    pub fn name(&self) -> &ByteString {
        &self.name
    }

    /// Submits a call. Costs no message when another one is on its way to the actor already.
    ///
    /// # Errors
    ///
    /// At once, not sent: when too much is in flight, or the node has ended.
    pub fn ask(self: Arc<Self>, Prepared(mut ask): Prepared) -> Result<Asked, CallError> {
        self.take_place()?;
        let (reply, outcome) = oneshot::channel();
        ask.reply = Reply::Call(reply);
        let mut queue = self.lock();
        if let Some(error) = queue.closed.clone() {
            drop(queue);
            self.settled();
            return Err(error);
        }
        let callback_id = queue.next_id();
        ask.request.callback_id = callback_id;
        queue.submissions.push(Submission::Ask(ask));
        let was_empty = queue.submissions.len() == 1;
        drop(queue);
        if was_empty {
            self.flush();
        }
        Ok(Asked { outcome, callback_id, node: self, settled: false })
    }

    /// Calls a function that came over the link of that epoch. Gives nothing to wait for if nobody wants to.
    pub(crate) fn invoke(
        self: &Arc<Self>,
        epoch: u64,
        function: CallbackId,
        invocation: Invocation,
    ) -> Result<Option<Asked>, CallError> {
        if invocation.wants == Wants::Nothing {
            if self.lock().submissions.len() >= EVENTS_PENDING_MAX {
                let what = format!("{EVENTS_PENDING_MAX} callbacks and events wait to be sent already");
                return Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what));
            }
            let invoking = Invoking { epoch, function, waiter: None, invocation };
            self.submit(Submission::Invoke(Box::new(invoking)))?;
            return Ok(None);
        }
        self.take_place()?;
        let (reply, outcome) = oneshot::channel();
        let callback_id = self.next_id();
        let waiter = Some((callback_id, Reply::Call(reply)));
        let invoking = Invoking { epoch, function, waiter, invocation };
        if let Err(error) = self.submit(Submission::Invoke(Box::new(invoking))) {
            self.settled();
            return Err(error);
        }
        Ok(Some(Asked { outcome, callback_id, node: Arc::clone(self), settled: false }))
    }

    /// A function that came over the link of that epoch is needed no more.
    pub(crate) fn release(&self, epoch: u64, function: CallbackId) {
        // A node that has ended has nobody to tell.
        let _ = self.submit(Submission::Release { epoch, function });
    }

    /// Publishes an event: to the matching handlers of this node, then over the link. Waits for room in the outbox, and for
    /// nothing else.
    ///
    /// # Errors
    ///
    /// Not sent: when the link is down or closing, or the outbox stays full.
    pub async fn publish(&self, topic: ByteString, payload: Payload) -> Result<(), CallError> {
        self.check_event(&topic, &payload)?;
        self.wait_for_room().await?;
        self.submit(Submission::Publish { topic, payload })
    }

    /// Sends an event to every other node.
    ///
    /// # Errors
    ///
    /// As [`Node::publish`].
    pub async fn broadcast(&self, topic: ByteString, payload: Payload) -> Result<(), CallError> {
        self.check_event(&topic, &payload)?;
        self.wait_for_room().await?;
        self.submit(Submission::Broadcast { topic, payload })
    }

    /// The encoding that the providers of an action read best, as far as this node knows.
    #[must_use]
    pub fn encoding_for(&self, action: &str) -> Encoding {
        self.known.read().unwrap_or_else(PoisonError::into_inner).encoding_for(action)
    }

    /// The other nodes, as far as this one was told, sorted by name: each with its actions.
    #[must_use]
    pub fn known_nodes(&self) -> Vec<NodeNews> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).nodes()
    }

    /// Whether some other node is known to offer the action.
    #[must_use]
    pub fn knows(&self, action: &str) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).knows(action)
    }

    /// How the node stands to its mesh, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// How many calls of this node are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Draws the number of a handler, never twice. It is drawn before the handler is subscribed, so that whoever gives up
    /// on the answer can still unsubscribe.
    #[must_use]
    pub fn draw_subscriber(&self) -> SubscriberId {
        SubscriberId(self.next_subscriber.fetch_add(1, Ordering::Relaxed))
    }

    /// See [`Subscribe`].
    ///
    /// # Errors
    ///
    /// When the master refuses, or cannot be reached in time.
    pub async fn subscribe(
        &self,
        id: SubscriberId,
        to: SubscribeTo,
        subscriber: Arc<dyn Deliver>,
    ) -> Result<(), CallError> {
        self.door()?.subscribe.send(Subscribe { id, to, subscriber }).await.map_err(|_| self.ended())?
    }

    /// See [`Unsubscribe`]. Does not wait.
    pub fn unsubscribe(&self, subscriber: SubscriberId) {
        if let Ok(door) = self.door() {
            #[expect(clippy::disallowed_methods, reason = "bounded by the subscriptions: one message each")]
            door.unsubscribe.do_send(Unsubscribe(subscriber));
        }
    }

    /// See [`Respond`].
    ///
    /// # Errors
    ///
    /// When one of them cannot be added here, or the master refuses it.
    pub async fn respond(&self, actions: Actions) -> Result<(), CallError> {
        self.door()?.respond.send(Respond(actions)).await.map_err(|_| self.ended())?
    }

    /// See [`Withdraw`].
    ///
    /// # Errors
    ///
    /// When the master cannot be told.
    pub async fn withdraw(&self, actions: Vec<ByteString>) -> Result<(), CallError> {
        self.door()?.withdraw.send(Withdraw(actions)).await.map_err(|_| self.ended())?
    }

    /// See [`Describe`].
    ///
    /// # Errors
    ///
    /// When the master does not answer.
    pub async fn describe(&self, pattern: Pattern) -> Result<Vec<ActionDescription>, CallError> {
        let describe = Describe { pattern, within: CALL_WITHIN };
        self.door()?.describe.send(describe).await.map_err(|_| self.ended())?
    }

    /// See [`Watch`].
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn watch(&self, watcher: Watcher) -> Result<(), CallError> {
        self.door()?.watch.send(Watch(watcher)).await.map_err(|_| self.ended())
    }

    /// See [`Drain`].
    ///
    /// # Errors
    ///
    /// When the node has ended already.
    pub async fn drain(&self, within: Duration) -> Result<Drained, CallError> {
        self.door()?.drain.send(Drain { within }).await.map_err(|_| self.ended())
    }

    /// See [`TakeSnapshot`].
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn snapshot(&self) -> Result<Snapshot, CallError> {
        self.door()?.snapshot.send(TakeSnapshot).await.map_err(|_| self.ended())
    }

    pub(crate) fn open_door(&self, door: Door) {
        // A node has one actor, started once.
        let _ = self.door.set(door);
        // What was submitted before the actor started waits in the queue.
        if !self.lock().submissions.is_empty() {
            self.flush();
        }
    }

    pub(crate) fn next_id(&self) -> CallbackId {
        self.lock().next_id()
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
    fn take_places(&self, count: usize) -> bool {
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

    pub(crate) fn take_submissions(&self, into: &mut Vec<Submission>) {
        std::mem::swap(&mut self.lock().submissions, into);
        self.room.notify_waiters();
    }

    pub(crate) fn with_known<T>(&self, change: impl FnOnce(&mut ActionCache) -> T) -> T {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut known)
    }

    pub(crate) fn set_status(&self, status: Status) {
        self.status.send_if_modified(|now| {
            let changed = *now != status;
            *now = status;
            changed
        });
        self.room.notify_waiters();
    }

    /// Ends the node for its handles: nothing is submitted any more, and what was is given back its end.
    pub(crate) fn close(&self, error: CallError) {
        let left = {
            let mut queue = self.lock();
            if queue.closed.is_none() {
                queue.closed = Some(error.clone());
            }
            std::mem::take(&mut queue.submissions)
        };
        for submission in left {
            submission.refuse(self, &error);
        }
        if !matches!(*self.status.borrow(), Status::Closed(_)) {
            self.set_status(Status::Closed(error));
        }
        self.room.notify_waiters();
    }

    fn submit(&self, submission: Submission) -> Result<(), CallError> {
        self.push(submission).map_err(|(_, error)| error)
    }

    /// The same; gives back what a node that has ended does not take.
    fn push(&self, submission: Submission) -> Result<(), (Submission, CallError)> {
        let was_empty = {
            let mut queue = self.lock();
            if let Some(error) = &queue.closed {
                return Err((submission, error.clone()));
            }
            queue.submissions.push(submission);
            queue.submissions.len() == 1
        };
        if was_empty {
            self.flush();
        }
        Ok(())
    }

    /// Submits a part of the calls that are awaited as one: together, or, if there are not places for all, as many as there are.
    fn ask_part(&self, many: AskMany) {
        let single = |ask: Ask| match self.take_place() {
            Ok(()) => self.submit_ask(Submission::Ask(Box::new(ask))),
            Err(error) => ask.reply.send(Err(error)),
        };
        if self.take_places(many.seats.left()) {
            self.submit_ask(Submission::AskMany(Box::new(many)));
        } else {
            many.into_single().for_each(single);
        }
    }

    fn submit_ask(&self, submission: Submission) {
        if let Err((submission, error)) = self.push(submission) {
            submission.refuse(self, &error);
        }
    }

    fn flush(&self) {
        if let Some(door) = self.door.get() {
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded to one: sent only when the queue was empty"
            )]
            door.flush.do_send(Flush);
        }
    }

    pub(crate) fn set_way_out(&self, way_out: WayOut) {
        *self.way_out.write().unwrap_or_else(PoisonError::into_inner) = way_out;
    }

    fn check_event(&self, topic: &str, payload: &Payload) -> Result<(), CallError> {
        check_topic(topic)
            .map_err(|error| CallError::new(Code::BAD_NAME, Fate::NotSent, error.to_string()))?;
        let frame_len_max = match &*self.way_out.read().unwrap_or_else(PoisonError::into_inner) {
            WayOut::Link(outbox) => outbox.frame_len_max(),
            WayOut::Down | WayOut::Router => FRAME_LEN_MAX,
        };
        if !payload.callbacks.is_empty() {
            let what = "an event goes to whoever listens, so it carries no callbacks";
            return Err(CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, what));
        }
        if payload.len() + EVENT_HEAD_LEN_MAX <= frame_len_max {
            return Ok(());
        }
        let what = format!("the event takes {} bytes, and a frame may have {frame_len_max}", payload.len());
        Err(CallError::new(Code::FRAME_TOO_LARGE, Fate::NotSent, what))
    }

    /// Waits until an event would find room, at most as long as a call would. Nearly always it does, and no timer is made.
    async fn wait_for_room(&self) -> Result<(), CallError> {
        let mut waiting = std::pin::pin!(self.room());
        if let Poll::Ready(room) = futures::poll!(waiting.as_mut()) {
            return room;
        }
        tokio::time::timeout(CALL_WITHIN, waiting).await.unwrap_or_else(|_| {
            Err(CallError::new(
                Code::OVERLOADED,
                Fate::NotSent,
                "the link takes events more slowly than they come",
            ))
        })
    }

    async fn room(&self) -> Result<(), CallError> {
        loop {
            let notified = self.room.notified();
            let has_room = {
                let queue = self.lock();
                if let Some(error) = &queue.closed {
                    return Err(error.clone());
                }
                queue.submissions.len() < EVENTS_PENDING_MAX
            };
            if !has_room {
                notified.await;
                continue;
            }
            let full = match &*self.way_out.read().unwrap_or_else(PoisonError::into_inner) {
                WayOut::Down => {
                    return Err(CallError::new(
                        Code::LINK_LOST,
                        Fate::NotSent,
                        "the link to the master is down",
                    ));
                }
                WayOut::Router => return Ok(()),
                WayOut::Link(outbox) if outbox.has_room() => return Ok(()),
                // It never has room again; the node is told what follows it, if anything does.
                WayOut::Link(outbox) if !outbox.is_open() => {
                    return Err(CallError::new(Code::LINK_LOST, Fate::NotSent, "the link is closing"));
                }
                WayOut::Link(outbox) => outbox.clone(),
            };
            full.room().await;
        }
    }

    fn door(&self) -> Result<&Door, CallError> {
        self.door.get().ok_or_else(|| self.ended())
    }

    fn ended(&self) -> CallError {
        let closed = self.lock().closed.clone();
        closed.unwrap_or_else(|| {
            CallError::new(Code::LINK_LOST, Fate::NotSent, "the node has no running actor")
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        // Nothing in here leaves the queue half-changed when it panics.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many calls that are awaited as one are submitted together at most. The far end takes as many in one turn: it takes fewer in parts, so
/// that their caller need not wait for all, and this caller has more to write.
const CALLS_PER_PART_MAX: usize = SOME_FRAMES + 64;

/// A part that is as long is submitted as it is.
const PART_LEN_MAX: usize = 64 * 1024;

/// About as much room do the first part and one of the others take.
const FIRST_PART_LEN: usize = 1024;
const PART_LEN: usize = 32 * CALLS_PER_PART_MAX;

/// What the head of an event takes at most, its names and that of one group included.
const EVENT_HEAD_LEN_MAX: usize = 4 * NAME_LEN_MAX;

/// Tells every watcher. One that panics must not end the node.
pub(crate) fn tell(watchers: &mut [Watcher], change: &Change) {
    for watcher in watchers {
        if catch_unwind(AssertUnwindSafe(|| watcher(change))).is_err() {
            log::error!("a closure that is told of every change panicked");
        }
    }
}

impl Change {
    /// Who came or went, and with what.
    #[must_use]
    pub fn news(&self) -> &NodeNews {
        match self {
            Change::Online(news) | Change::Offline(news) => news,
        }
    }
}

impl Queue {
    fn next_id(&mut self) -> CallbackId {
        self.next_ids(1)
    }

    /// The first of so many.
    fn next_ids(&mut self, count: usize) -> CallbackId {
        let id = CallbackId(self.next_id);
        self.next_id += count as u64;
        id
    }
}

impl Prepared {
    /// Makes room for a call and for whoever waits for it.
    #[must_use]
    pub fn new(call: Call) -> Self {
        Self(Box::new(Ask::new(CallbackId(0), call, Reply::Nobody)))
    }

    /// The action.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.0.request.action
    }

    /// Writes other arguments.
    pub fn set_arguments(&mut self, arguments: Payload) {
        self.0.request.payload = arguments;
    }

    /// How long the caller waits; `None` for ever.
    pub fn set_within(&mut self, within: Option<Duration>) {
        self.0.request.time_left = within;
    }

    /// The node that is to run it.
    pub fn set_node(&mut self, node: ByteString) {
        self.0.request.node = node;
    }

    /// What happens while the link is down.
    pub fn set_when_down(&mut self, when_down: WhenDown) {
        self.0.when_down = when_down;
    }
}

impl Submission {
    /// Whether it is answered.
    pub(crate) fn asks(&self) -> bool {
        match self {
            Submission::Ask(_) | Submission::AskMany(_) => true,
            Submission::Invoke(invoking) => invoking.waiter.is_some(),
            Submission::Cancel(_)
            | Submission::Release { .. }
            | Submission::Publish { .. }
            | Submission::Broadcast { .. } => false,
        }
    }

    /// Ends what did not get as far as the actor.
    fn refuse(self, node: &Node, error: &CallError) {
        match self {
            Submission::Ask(ask) => ask.refuse(node, error.clone()),
            Submission::AskMany(many) => many.into_single().for_each(|ask| ask.refuse(node, error.clone())),
            Submission::Invoke(invoking) => invoking.refuse(node, error.clone()),
            Submission::Cancel(_)
            | Submission::Release { .. }
            | Submission::Publish { .. }
            | Submission::Broadcast { .. } => {}
        }
    }
}

impl AskMany {
    /// The same calls one by one, for whatever is not the straight way.
    pub(crate) fn into_single(self) -> impl Iterator<Item = Ask> {
        let Self { call, first, mut seats, frames, mut others, .. } = self;
        let mut frames = BytesMut::from(frames);
        let mut codec = FrameCodec::new(usize::MAX);
        // They were written here, so they can be read.
        while let Ok(Some(block)) = codec.decode(&mut frames) {
            let requests = block.frames().filter_map(|frame| match frame {
                Ok(Frame::Request(request)) => Some((request.callback_id, request.payload)),
                _ => None,
            });
            others.extend(requests);
        }
        others.sort_unstable_by_key(|(callback_id, _)| *callback_id);
        others.into_iter().filter_map(move |(callback_id, arguments)| {
            let number = usize::try_from(callback_id.0 - first.0).ok()?;
            let seat = seats.take_seat(number)?;
            Some(Ask::new(callback_id, Call { arguments, ..call.clone() }, Reply::Batch(seat)))
        })
    }
}

impl Invoking {
    /// Ends a call of a function that did not get as far as a response actor.
    pub(crate) fn refuse(self, node: &Node, error: CallError) {
        if let Some((_, reply)) = self.waiter {
            node.settled();
            reply.send(Err(error));
        }
    }
}

impl Ask {
    fn new(callback_id: CallbackId, call: Call, reply: Reply) -> Self {
        let Call { action, node, arguments: payload, within: time_left, when_down } = call;
        let caller = ByteString::new();
        Self { request: Request { callback_id, action, node, caller, time_left, payload }, when_down, reply }
    }

    pub(crate) fn callback_id(&self) -> CallbackId {
        self.request.callback_id
    }

    /// Takes out where the caller waits.
    pub(crate) fn take_reply(&mut self) -> Reply {
        std::mem::replace(&mut self.reply, Reply::Nobody)
    }

    /// Ends a call that did not get as far as a response actor.
    pub(crate) fn refuse(self, node: &Node, error: CallError) {
        node.settled();
        self.reply.send(Err(error));
    }
}

impl Door {
    pub(crate) fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Actor<Context = actix::Context<A>>
            + Handler<Flush>
            + Handler<Subscribe>
            + Handler<Unsubscribe>
            + Handler<Respond>
            + Handler<Withdraw>
            + Handler<Describe>
            + Handler<Watch>
            + Handler<Drain>
            + Handler<TakeSnapshot>,
    {
        Self {
            flush: actor.clone().recipient(),
            subscribe: actor.clone().recipient(),
            unsubscribe: actor.clone().recipient(),
            respond: actor.clone().recipient(),
            withdraw: actor.clone().recipient(),
            describe: actor.clone().recipient(),
            watch: actor.clone().recipient(),
            drain: actor.clone().recipient(),
            snapshot: actor.clone().recipient(),
        }
    }
}

impl Call {
    /// A call of any provider of an action, with the default deadline.
    #[must_use]
    pub fn new(action: impl Into<ByteString>, arguments: Payload) -> Self {
        Self {
            action: action.into(),
            node: ByteString::new(),
            arguments,
            within: Some(CALL_WITHIN),
            when_down: WhenDown::Wait,
        }
    }
}

impl Future for Asked {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.outcome).poll(context).map(|outcome| {
            self.settled = true;
            outcome.unwrap_or_else(|_| {
                Err(CallError::new(Code::LINK_LOST, Fate::Unknown, "the node ended before the reply came"))
            })
        })
    }
}

impl AskedMany {
    /// Makes room for about so many calls more.
    pub fn reserve(&mut self, more: usize) {
        // A count that comes from outside makes us hold little before there is anything.
        self.given.reserve(more.min(IN_FLIGHT_MAX));
    }

    /// Adds a call with these arguments. One that cannot be written has that as its outcome. Submits those before it if they are as many
    /// as go together.
    #[inline]
    pub fn add<T: Serialize + ?Sized>(&mut self, arguments: &T) {
        if self.is_full() {
            self.submit();
        }
        let place = self.given.len();
        self.given.push(false);
        let writing = self.writing.get_or_insert_with(|| Writing {
            first: self.node.lock().next_ids(CALLS_PER_PART_MAX),
            seats: Seats::new(Arc::clone(&self.batch), place),
            frames: BytesMut::with_capacity(if self.parts.is_empty() { FIRST_PART_LEN } else { PART_LEN }),
            frame_len: 0,
            others: Vec::new(),
        });
        let number = writing.seats.count();
        writing.seats.push();
        let callback_id = CallbackId(writing.first.0 + number as u64);
        let (head, frames) = (self.head.as_ref(), &mut writing.frames);
        let start = frames.len();
        let mut write = |bytes: &[u8]| {
            if let Some(head) = head {
                head.write_request(callback_id, bytes, frames);
            }
        };
        let encoding = self.call.arguments.encoding;
        let written = match head {
            Some(_) => Payload::encode_unless_small(encoding, arguments, &mut write),
            None => Payload::encode(encoding, arguments).map(Some),
        };
        match written {
            Ok(None) => {}
            Ok(Some(payload))
                if head.is_some()
                    && payload.callbacks.is_empty()
                    && payload.len() < PAYLOAD_SHARED_LEN_MIN =>
            {
                write(&payload.bytes);
            }
            Ok(Some(payload)) => writing.others.push((callback_id, payload)),
            Err(error) => {
                writing.seats.take(number);
                self.batch.tell(place, Err(error.into()));
            }
        }
        writing.frame_len = writing.frame_len.max(frames.len().saturating_sub(start + LENGTH_PREFIX_LEN));
    }

    /// How many were added and not submitted yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.writing.as_ref().map_or(0, |writing| writing.seats.count())
    }

    /// Whether what was added and not submitted yet is as much as goes together.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| {
            writing.seats.count() >= CALLS_PER_PART_MAX || writing.frames.len() >= PART_LEN_MAX
        })
    }

    /// Submits what was added.
    pub fn submit(&mut self) {
        let Some(Writing { first, seats, frames, frame_len, others }) = self.writing.take() else {
            return;
        };
        self.parts.push((first, seats.place(), seats.count()));
        let (call, frames) = (self.call.clone(), frames.freeze());
        self.node.ask_part(AskMany { call, first, seats, frames, frame_len, others });
    }

    /// How many were added.
    #[must_use]
    pub fn count(&self) -> usize {
        self.given.len()
    }

    /// Waits for some of those that were submitted; gives their outcomes, each with the place at which its call was added. None
    /// when all have been given.
    pub async fn next(&mut self) -> Option<Vec<(usize, Outcome)>> {
        let waiting = self.writing.as_ref().map_or(0, |writing| writing.seats.left());
        if self.given_count >= self.given.len() - waiting {
            return None;
        }
        let outcomes = std::future::poll_fn(|context| self.batch.poll(context)).await;
        for (place, _) in &outcomes {
            self.given[*place] = true;
        }
        self.given_count += outcomes.len();
        Some(outcomes)
    }
}

impl Drop for AskedMany {
    fn drop(&mut self) {
        if self.given_count == self.given.len() {
            return;
        }
        for place in self.batch.settled() {
            self.given[place] = true;
        }
        for (first, place, count) in std::mem::take(&mut self.parts) {
            for number in (0..count).filter(|number| !self.given[place + number]) {
                // A node that has ended has nothing to cancel.
                let _ = self.node.submit(Submission::Cancel(CallbackId(first.0 + number as u64)));
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.settled {
            // A node that has ended has nothing to cancel.
            let _ = self.node.submit(Submission::Cancel(self.callback_id));
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("callback_id", &self.callback_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Refusal;
    use futures::poll;
    use meshwork_wire::Frame;
    use meshwork_wire::limits::OUTBOX_LEN_MAX;

    async fn publish(node: &Node) -> Result<(), CallError> {
        node.publish("topic".into(), Payload::default()).await
    }

    fn node_with(outbox: &Outbox) -> Arc<Node> {
        let node = Node::new("node".into());
        node.set_way_out(WayOut::Link(outbox.clone()));
        node
    }

    #[test]
    fn many_calls_have_each_an_id_of_their_own_however_they_are_submitted() {
        let node = Node::new("node".into());
        let mut one = node.ask_many(Call::new("add", Payload::default()));
        let mut other = node.ask_many(Call::new("add", Payload::default()));
        for number in 0..1000_u32 {
            one.add(&number);
            if number % 7 == 0 {
                other.add(&number);
                other.submit();
            }
        }
        one.submit();
        let mut submissions = Vec::new();
        node.take_submissions(&mut submissions);
        let mut ids = std::collections::HashSet::new();
        let mut count = 0;
        for submission in submissions {
            let Submission::AskMany(many) = submission else { panic!("all go together") };
            assert!(many.seats.count() <= CALLS_PER_PART_MAX);
            for ask in many.into_single() {
                count += 1;
                ids.insert(ask.callback_id());
            }
        }
        assert_eq!((count, ids.len()), (1143, 1143));
    }

    #[actix_rt::test]
    async fn an_event_is_refused_when_the_link_closes_and_is_never_waited_for() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let node = node_with(&outbox);
        outbox.close();
        let error = publish(&node).await.expect_err("it takes no more");
        assert_eq!((error.code(), error.fate()), (Code::LINK_LOST, Fate::NotSent));
    }

    #[actix_rt::test]
    async fn an_event_that_waits_for_room_is_refused_when_the_link_is_lost() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let node = node_with(&outbox);
        let large = Payload::new(Encoding::Json, vec![b'1'; OUTBOX_LEN_MAX / 4]);
        let large = Frame::Publish(meshwork_wire::Publish {
            topic: "topic".into(),
            publisher: ByteString::new(),
            for_all: true,
            groups: Vec::new(),
            payload: large,
        });
        while outbox.push_event(&large).is_ok() {}
        assert_eq!(outbox.push_event(&large), Err(Refusal::Full));
        let mut waits = std::pin::pin!(publish(&node));
        assert!(poll!(waits.as_mut()).is_pending());
        outbox.close_now();
        assert_eq!(waits.await.expect_err("nothing leaves any more").code(), Code::LINK_LOST);
    }
}

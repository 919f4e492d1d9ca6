//! The state that the handles of a node share with its actor, under one lock: the queue of submissions, which one message drains however
//! long it is; the slots of the calls in flight; the heads that their frames begin with. Besides, the other nodes and their actions, as
//! far as this node knows of them.
//!
//! A call is cheap since it costs no message of its own: the handle, on whichever thread, writes the frame into the queue, and the actor
//! sees a burst of calls as one [`Flush`].

use super::change::{Status, Watcher};
use super::heads::{HeadIndex, Heads, Spec, check_called, remember, remembered};
use super::known::{ActionCache, Wanted};
use super::layers::CallThrough;
use super::limits::Limits;
use super::mailboxes::{
    DescribePart, Drain, Drained, FindProviders, Flush, Mailboxes, Provided, Respond, Subscribe, SubscribeTo,
    TakeSnapshot, Unsubscribe, Watch, Withdraw,
};
use super::said::SaidLast;
use super::snapshot::Snapshot;
use super::submission::{Arguments, Ask, Call, Frames, Invoking, Keeping, NewEvent, Submission};
use crate::answers::doubles::DoublesBounds;
use crate::answers::hops;
use crate::answers::keyed::Keyed;
use crate::answers::{Actions, ActorSnapshot, Cause, NodeHandle, Restarted};
use crate::calls::in_flight::{BatchId, Departure, Full, InFlight, Waiter, Wake};
use crate::calls::overdue::{Overdue, Watch as WatchDeadlines};
use crate::calls::reply::Reply;
use crate::calls::response::Calls;
use crate::events::{Deliver, SubscriberId};
use crate::hashed::{HashMap, HashSet};
use crate::link::outbox::Outbox;
use crate::link::refusal::{link_down, not_permitted};
use crate::streams::{Inbox, Inboxes};
use bytes::BytesMut;
use meshwork_wire::limits::{
    CALL_WITHIN, DESCRIBED_IN_ALL_MAX, EVENTS_PENDING_MAX, FRAME_LEN_MAX, LENGTH_PREFIX_LEN, NAME_LEN_MAX,
    OUTBOX_LEN_MAX, RESTARTING_SHOWN_MAX,
};
use meshwork_wire::{
    Accepts, ActionDescription, ByteString, CallError, CallbackId, Code, Fate, Features, Grant, Granted,
    Invocation, Label, NodeNews, Pattern, Request, Signature, check_action, check_topic, everything_above,
};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

/// A node, master or branch: the state that its handles and its actor share.
pub struct Node {
    name: ByteString,
    /// The number of the node in this process.
    number: u64,
    locked: Mutex<Locked>,
    /// [`Locked::version`], for handles that do not take the lock.
    version: AtomicU64,
    next_subscriber: AtomicU64,
    mailboxes: OnceLock<Mailboxes>,
    me: Weak<Node>,
    deadlines: WatchDeadlines,
    known: RwLock<ActionCache>,
    /// The last values that the node has published.
    said: Mutex<SaidLast>,
    /// Notified when the known actions or the node's own may have changed, and when its status has.
    changed: Notify,
    status: watch::Sender<Status>,
    /// Notified when there may be room for events again.
    room: Notify,
    /// The streams that the node reads.
    inboxes: Inboxes,
    /// Notified when no call is in flight any more, if a task waits for that.
    idle: Notify,
    /// At most [`RESTARTING_SHOWN_MAX`].
    restarting: Mutex<Vec<Arc<Restarted>>>,
    /// The layers around the calls of this node; none at most nodes. Set before the first call.
    layers: OnceLock<Arc<dyn CallThrough>>,
    /// The requests with idempotency keys that this node answers.
    keyed: Arc<Keyed>,
}

/// Where the events of this node go.
#[derive(Default)]
pub(crate) enum EventPath {
    /// There is no link at the moment.
    #[default]
    Down,
    /// The link closes: its outbox takes no more events.
    Closing,
    /// The outbox of the link to the master, and the topics that the master lets the node publish to; none: all topics.
    Link { outbox: Outbox, publish: Option<Vec<Pattern>> },
    /// The router of this process, a master. Only the queue is bounded: full outboxes behind the router drop events.
    Router,
}

/// The state that handles and actor change under the lock.
struct Locked {
    in_flight: InFlight,
    submissions: Vec<Submission>,
    /// Calls in the queue whose deadlines have passed while the actor was busy: they are not to leave.
    withdrawn: HashSet<CallbackId>,
    /// Calls that wait for a link, as the actor says. At most [`WAITING_MAX`](meshwork_wire::limits::WAITING_MAX).
    waiting_for_link: HashSet<CallbackId>,
    /// How many bytes the events take that have been submitted and are in no outbox yet: see [`Submission::event_len`].
    events_len: usize,
    /// Changed under the lock, so that no event is submitted to a link that takes none.
    event_path: EventPath,
    /// An empty buffer for the next frames, which keeps the capacity of earlier ones.
    spare: BytesMut,
    /// The most bytes of frames that left at once since the last heartbeat.
    spare_needed: usize,
    heads: Heads,
    /// Rises when a head may no longer fit: when the known nodes, the node's own actions or its link change.
    version: u64,
    /// Whether calls leave over a link, as frames that their callers write.
    writes_frames: bool,
    /// The actions that the node answers itself.
    own: HashMap<ByteString, Accepts>,
    /// Whether a task waits until no call is in flight.
    idle_wanted: bool,
    /// The error of every submission after the node has ended.
    closed: Option<CallError>,
}

/// The head that requests for an action begin with, valid for one version of the node.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    index: HeadIndex,
    version: u64,
    within: Option<Duration>,
}

impl Head {
    /// The index of the head, which is valid as long as its node.
    #[inline]
    #[must_use]
    pub fn index(&self) -> HeadIndex {
        self.index
    }
}

/// The number of the next node of this process.
static NODES: AtomicU64 = AtomicU64::new(0);

/// A spare buffer of up to four times this length is kept, however few bytes of frames left since the last heartbeat.
const SPARE_LEN_MIN: usize = 64;

/// How many bytes the head of an event takes at most, with all its names and the name of one group.
const EVENT_HEAD_LEN_MAX: usize = 4 * NAME_LEN_MAX;

impl Calls for Node {
    fn with(&self, change: &mut dyn FnMut(&mut InFlight)) {
        let mut locked = self.lock();
        change(&mut locked.in_flight);
        self.tell_if_idle(locked);
    }

    fn inbox(&self, callback_id: CallbackId) -> Option<Arc<Inbox>> {
        self.inboxes.find(callback_id)
    }
}

/// The waiter of a call that is answered with a stream: its response ends the stream.
fn ends(inbox: &Arc<Inbox>) -> Waiter {
    let inbox = Arc::clone(inbox);
    Waiter::Hook(Box::new(move |reply: Reply| inbox.end(reply.into_end())))
}

impl Overdue for Node {
    fn end_overdue(&self, now: std::time::Instant) -> Option<std::time::Instant> {
        let mut locked = self.lock();
        let Locked { in_flight, submissions, withdrawn, waiting_for_link, closed, .. } = &mut *locked;
        let (mut wakes, was_empty) = (Vec::new(), submissions.is_empty());
        let reply = |id, has_left: bool| {
            let (fate, what) = if has_left && !waiting_for_link.contains(&id) {
                (Fate::Unknown, "no reply came before the deadline, and the node was too busy to take one")
            } else {
                (Fate::NotSent, "the deadline passed before the node, which was busy, could send the call")
            };
            Reply::failed(CallError::new(Code::REQUEST_TIMEOUT, fate, what))
        };
        let first_in_queue = in_flight.first_in_queue();
        let (overdue, next) = in_flight.settle_overdue(now, reply, &mut wakes);
        if closed.is_none() {
            withdrawn.extend(
                overdue.iter().copied().filter(|id| first_in_queue.is_some_and(|first| *id >= first)),
            );
            submissions.extend(overdue.iter().copied().map(Submission::Cancel));
        }
        self.let_go(locked, was_empty);
        wakes.into_iter().for_each(Wake::wake);
        next
    }

    fn watch(&self) -> &WatchDeadlines {
        &self.deadlines
    }
}

impl Node {
    pub(crate) fn new(name: ByteString) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            deadlines: WatchDeadlines::default(),
            name,
            number: NODES.fetch_add(1, Ordering::Relaxed),
            locked: Mutex::new(Locked {
                in_flight: InFlight::new(),
                submissions: Vec::new(),
                withdrawn: HashSet::default(),
                waiting_for_link: HashSet::default(),
                events_len: 0,
                event_path: EventPath::default(),
                spare: BytesMut::new(),
                spare_needed: 0,
                heads: Heads::default(),
                version: 0,
                writes_frames: false,
                own: HashMap::default(),
                idle_wanted: false,
                closed: None,
            }),
            version: AtomicU64::new(0),
            next_subscriber: AtomicU64::new(0),
            mailboxes: OnceLock::new(),
            known: RwLock::default(),
            said: Mutex::new(SaidLast::new(Limits::default().last_bounds())),
            changed: Notify::new(),
            status: watch::Sender::new(Status::Rebinding),
            room: Notify::new(),
            inboxes: Inboxes::default(),
            idle: Notify::new(),
            restarting: Mutex::default(),
            layers: OnceLock::new(),
            keyed: Keyed::new(DoublesBounds::DEFAULT),
        })
    }

    /// The number of the node, and the node as its responders are handed it: see [`Node::of_handle`].
    pub(crate) fn handle(&self) -> (u64, NodeHandle) {
        // Whoever asks holds the node.
        let node = self.me.upgrade().map_or_else(|| Arc::new(()) as NodeHandle, |node| node as NodeHandle);
        (self.number, node)
    }

    /// The node that a responder was handed.
    #[must_use]
    pub fn of_handle(node: &NodeHandle) -> Option<Arc<Self>> {
        Arc::clone(node).downcast().ok()
    }

    /// The name of the node.
    #[must_use]
    pub fn name(&self) -> &ByteString {
        &self.name
    }

    /// The head that requests for an action by name begin with; none if callers do not write such requests: the action is the node's own, or
    /// there is no link, or the name is long. A thread that has asked for the action before is answered without a lock.
    #[inline(always)]
    pub fn head(&self, action: &str) -> Option<(Head, Wanted)> {
        let version = self.version.load(Ordering::Acquire);
        match remembered(self.number, version, action, None) {
            Some((index, wanted)) => Some((Head { index, version, within: Some(CALL_WITHIN) }, wanted)),
            None => self.find_head((action, None), None),
        }
    }

    /// As [`head`](Self::head), from callers with this signature.
    #[inline(always)]
    pub fn head_of_method(
        &self,
        action: &'static str,
        signature: Option<Signature>,
    ) -> Option<(Head, Wanted)> {
        let version = self.version.load(Ordering::Acquire);
        match remembered(self.number, version, action, signature) {
            Some((index, wanted)) => Some((Head { index, version, within: Some(CALL_WITHIN) }, wanted)),
            None => self.find_head((action, Some(action)), signature),
        }
    }

    #[cold]
    fn find_head(
        &self,
        (action, literal): (&str, Option<&'static str>),
        signature: Option<Signature>,
    ) -> Option<(Head, Wanted)> {
        // Before the encoding is looked up: a head of news that came meanwhile is out of date, and the actor writes the call.
        let version = self.version.load(Ordering::Acquire);
        let wanted = self.wanted(action, signature);
        let mut locked = self.lock();
        // Calls that go through layers are written behind these.
        if !locked.writes_frames || locked.own.contains_key(action) || self.has_layers() {
            return None;
        }
        let action = ByteString::from(action);
        let node = ByteString::new();
        let encoding = wanted.form.encoding();
        let spec = Spec { action, node, within: Some(CALL_WITHIN), encoding };
        let index = locked.heads.find(&spec)?;
        drop(locked);
        remember(self.number, version, (&spec.action, literal), signature, index, wanted);
        Some((Head { index, version, within: Some(CALL_WITHIN) }, wanted))
    }

    /// Whether the calls of this node go through layers: see [`Node::layered`].
    #[must_use]
    pub fn has_layers(&self) -> bool {
        self.layers.get().is_some()
    }

    pub(crate) fn keyed(&self) -> &Arc<Keyed> {
        &self.keyed
    }

    /// The layers around the calls of this node.
    pub(super) fn layers(&self) -> Option<&Arc<dyn CallThrough>> {
        self.layers.get()
    }

    /// Puts layers around the calls of this node: once, when it starts.
    pub(super) fn set_layers(&self, layers: Arc<dyn CallThrough>) {
        let _ = self.layers.set(layers);
    }

    pub(super) fn downgrade(&self) -> Weak<Self> {
        Weak::clone(&self.me)
    }

    /// The head of calls with another deadline, or with a node that is to answer them; none if callers do not write such requests.
    #[must_use]
    pub fn other_head(
        &self,
        head: Head,
        within: Option<Option<Duration>>,
        node: Option<&ByteString>,
    ) -> Option<Head> {
        let mut locked = self.lock();
        let mut spec = locked.heads.spec(head.index)?.clone();
        spec.within = within.unwrap_or(spec.within);
        if let Some(node) = node {
            spec.node.clone_from(node);
        }
        Some(Head { index: locked.heads.find(&spec)?, within: spec.within, ..head })
    }

    /// The call that a request with this head and these arguments makes.
    #[must_use]
    pub fn call_of(&self, head: HeadIndex, arguments: Arguments) -> Option<Call> {
        let locked = self.lock();
        let Spec { action, node, within, .. } = locked.heads.spec(head)?.clone();
        drop(locked);
        Some(Call { node, within, ..Call::new(action, arguments.into_payload()) })
    }

    /// Submits a call; `told` is called once, in any case, with its reply: on the arbiter of the node, or here and at once if the call cannot
    /// be submitted. Only its deadline cancels the call.
    pub fn call_with(&self, head: Head, arguments: &Arguments, told: impl FnOnce(Reply) + Send + 'static) {
        let opened = self.open(head, arguments, Waiter::Hook(Box::new(told)));
        if let Err(refused) = opened {
            refused.tell();
        }
    }

    /// [`Node::call_with`] for a call that the actor writes, or answers itself.
    pub fn ask_with(&self, call: Call, told: impl FnOnce(Reply) + Send + 'static) {
        let opened = self.open_ask(call, Waiter::Hook(Box::new(told)));
        if let Err(refused) = opened {
            refused.tell();
        }
    }

    /// Submits a call: writes its frame behind the frames that have not left yet. Costs no message if other submissions are in the queue.
    ///
    /// # Errors
    ///
    /// At once, not sent: when too many calls are in flight, or the node has ended.
    #[inline]
    pub(crate) fn open(
        &self,
        head: Head,
        arguments: &Arguments,
        waiter: Waiter,
    ) -> Result<CallbackId, Refused> {
        let now = Instant::now();
        let is_first = hops::of_call(self.number) == 0;
        let mut locked = self.lock();
        let usual = arguments.inline().filter(|_| locked.version == head.version && is_first);
        let Some(bytes) = usual else {
            drop(locked);
            return match self.call_of(head.index, arguments.clone()) {
                Some(call) => self.open_ask(call, waiter),
                None => {
                    let error = CallError::new(Code::UNKNOWN, Fate::NotSent, "the call has no head");
                    Err(Refused { error, waiter })
                }
            };
        };
        if let Some(error) = &locked.closed {
            return Err(Refused { error: error.clone(), waiter });
        }
        let deadline = deadline_of(now, head.within);
        let callback_id = locked.in_flight.open(deadline, waiter).map_err(full)?;
        let was_empty = locked.submissions.is_empty();
        locked.write(head.index, callback_id, bytes);
        drop(locked);
        self.keep(deadline);
        if was_empty {
            self.flush();
        }
        Ok(callback_id)
    }

    /// Submits a call that the actor writes, or answers itself.
    ///
    /// # Errors
    ///
    /// As [`Node::open`].
    pub(crate) fn open_ask(&self, call: Call, waiter: Waiter) -> Result<CallbackId, Refused> {
        match self.checked(call, None) {
            Ok(ask) => self.open_with(ask.deadline, waiter, |callback_id| ask.submission(callback_id)),
            Err(error) => Err(Refused { error, waiter }),
        }
    }

    /// The submission of a call that the actor writes, or answers itself, under an id that is not drawn yet. One that is answered with a stream
    /// grants so much of it at first.
    ///
    /// # Errors
    ///
    /// Not sent: when the names are none, the call goes round, or its time has passed.
    fn checked(&self, call: Call, grant: Option<Grant>) -> Result<Ask, CallError> {
        let now = Instant::now();
        let Call { action, node, arguments: payload, within: time_left, until, headers, when_down, cause } =
            call;
        let deadline = deadline_of(now, time_left);
        let deadline = until.map_or(deadline, |until| Some(deadline.map_or(until, |at| at.min(until))));
        let hops = self.hops_of(cause.as_deref());
        check_called(&action, &node)?;
        hops::check(hops, &action)?;
        check_time(now, until)?;
        let (callback_id, caller) = (CallbackId(0), ByteString::new());
        let request = Request { callback_id, action, node, caller, time_left, hops, headers, payload };
        Ok(Ask { request, deadline, when_down, grant })
    }

    /// Submits a call that is answered with a stream; gives its id. Its items go into the inbox, and so does its end.
    ///
    /// # Errors
    ///
    /// As [`Node::open`].
    pub(super) fn open_stream(
        &self,
        call: Call,
        first: Grant,
        inbox: &Arc<Inbox>,
    ) -> Result<CallbackId, CallError> {
        let ask = self.checked(call, Some(first))?;
        let opened = self.open_with(ask.deadline, ends(inbox), |callback_id| {
            // Before the call is submitted, since its first item may come at once.
            self.inboxes.insert(callback_id, Arc::clone(inbox));
            ask.submission(callback_id)
        });
        Ok(opened?)
    }

    /// Opens the stream of a function that came over the link of this number; gives the id of the call.
    ///
    /// # Errors
    ///
    /// As [`Node::open`].
    pub(super) fn open_function(
        &self,
        link: u64,
        function: CallbackId,
        invocation: Invocation,
        inbox: &Arc<Inbox>,
    ) -> Result<CallbackId, CallError> {
        let opened = self.open_with(None, ends(inbox), |callback_id| {
            self.inboxes.insert(callback_id, Arc::clone(inbox));
            let callback_id = Some(callback_id);
            Submission::Invoke(Box::new(Invoking { link, function, callback_id, deadline: None, invocation }))
        });
        Ok(opened?)
    }

    /// Grants more items of a stream.
    pub(super) fn grant(&self, callback_id: CallbackId, grant: Grant) {
        // A node that has ended has ended its streams.
        let _ = self.submit(Submission::Grant(Granted { callback_id, grant }));
    }

    /// Forgets a stream that its consumer reads no further. If it has not ended, its producer is told.
    pub(super) fn close_stream(&self, callback_id: CallbackId) {
        let inbox = self.inboxes.remove(callback_id);
        self.forget(callback_id);
        drop(inbox);
    }

    /// How many streams the node reads.
    #[cfg(feature = "testing")]
    pub(crate) fn streams(&self) -> usize {
        self.inboxes.len()
    }

    /// The hops of a call that is made now, and for this request if it is made for one.
    fn hops_of(&self, cause: Option<&Cause>) -> u8 {
        cause.map_or_else(|| hops::of_call(self.number), |cause| cause.hops(self.number))
    }

    fn open_with(
        &self,
        deadline: Option<std::time::Instant>,
        waiter: Waiter,
        submission: impl FnOnce(CallbackId) -> Submission,
    ) -> Result<CallbackId, Refused> {
        let mut locked = self.lock();
        if let Some(error) = &locked.closed {
            return Err(Refused { error: error.clone(), waiter });
        }
        let callback_id = locked.in_flight.open(deadline, waiter).map_err(full)?;
        self.push(locked, submission(callback_id));
        self.keep(deadline);
        Ok(callback_id)
    }

    /// Has this deadline kept though the node may be busy, if the caller lives on another thread.
    #[inline]
    pub(super) fn keep(&self, deadline: Option<std::time::Instant>) {
        self.deadlines.keep(deadline, || Weak::clone(&self.me) as Weak<dyn Overdue>);
    }

    /// Notes that a call waits for a link.
    pub(crate) fn waits_for_link(&self, callback_id: CallbackId) {
        self.lock().waiting_for_link.insert(callback_id);
    }

    /// Notes that these calls wait for a link no longer; without an id, that none does.
    pub(crate) fn waits_no_longer(&self, callback_id: Option<CallbackId>) {
        let mut locked = self.lock();
        match callback_id {
            Some(callback_id) => _ = locked.waiting_for_link.remove(&callback_id),
            None => locked.waiting_for_link = HashSet::default(),
        }
    }

    /// Submits a call of a function that came over the link of this number; gives the id of the call.
    ///
    /// # Errors
    ///
    /// As [`Node::open`].
    pub(crate) fn open_invoke(
        &self,
        link: u64,
        function: CallbackId,
        invocation: Invocation,
        waiter: Waiter,
    ) -> Result<CallbackId, Refused> {
        let now = Instant::now();
        let deadline = deadline_of(now, invocation.within);
        self.open_with(deadline, waiter, |callback_id| {
            let callback_id = Some(callback_id);
            Submission::Invoke(Box::new(Invoking { link, function, callback_id, deadline, invocation }))
        })
    }

    /// Submits a call of a function that came over the link of this number, without waiting for an outcome.
    ///
    /// # Errors
    ///
    /// Not sent: when too many submissions stand in the queue, or the node has ended.
    pub(crate) fn notify(
        &self,
        link: u64,
        function: CallbackId,
        invocation: Invocation,
    ) -> Result<(), CallError> {
        let invoking = Invoking { link, function, callback_id: None, deadline: None, invocation };
        let submission = Submission::Invoke(Box::new(invoking));
        let mut locked = self.lock();
        if let Some(error) = &locked.closed {
            return Err(error.clone());
        }
        if !locked.has_room(&submission) {
            let what = "too many callbacks and events wait to be sent already";
            return Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what));
        }
        locked.events_len += submission.event_len();
        self.push(locked, submission);
        Ok(())
    }

    /// Submits the release of a function that came over the link of this number.
    pub(crate) fn release(&self, link: u64, function: CallbackId) {
        // A node that has ended has no link to send the release over.
        let _ = self.submit(Submission::Release { link, function });
    }

    /// Forgets a call that its caller dropped. If the call is not settled, the node that answers it is told to cancel it.
    pub fn forget(&self, callback_id: CallbackId) {
        // Dropped when the lock is let go: the end of a waker, or of a function in a reply, may take the lock.
        let forgotten;
        let mut locked = self.lock();
        forgotten = locked.in_flight.forget(callback_id);
        if !forgotten.waited() {
            return;
        }
        let was_empty = locked.submissions.is_empty();
        // A node that has ended has nothing to cancel.
        if locked.closed.is_none() {
            locked.submissions.push(Submission::Cancel(callback_id));
        }
        self.let_go(locked, was_empty);
    }

    /// Submits a call: writes its frame behind the frames that have not left yet. The waker is woken for the reply, which
    /// [`Node::poll_reply`] gives; a caller that waits no longer must [`Node::forget`] the call.
    ///
    /// # Errors
    ///
    /// At once, not sent: when too many calls are in flight, or the node has ended.
    #[inline]
    pub fn call(&self, head: Head, arguments: &Arguments, waker: &Waker) -> Result<CallbackId, CallError> {
        Ok(self.open(head, arguments, Waiter::Task(waker.clone()))?)
    }

    /// [`Node::call`] for a call that the actor writes, or answers itself.
    ///
    /// # Errors
    ///
    /// As [`Node::call`].
    pub fn ask(&self, call: Call, waker: &Waker) -> Result<CallbackId, CallError> {
        Ok(self.open_ask(call, Waiter::Task(waker.clone()))?)
    }

    /// Takes the reply to a call when it has come. The task that polled last is woken for the reply.
    #[inline]
    pub fn poll_reply(&self, callback_id: CallbackId, waker: &Waker) -> Poll<Reply> {
        // Dropped when the lock is let go: the waker may be the last handle on a task, whose end may take the lock.
        let mut unused = None;
        let polled = self.lock().in_flight.poll(callback_id, waker, &mut unused);
        match polled {
            Poll::Ready(Some(reply)) => Poll::Ready(reply),
            Poll::Ready(None) => {
                let again = "a call was awaited again after its reply was taken";
                Poll::Ready(Reply::failed(CallError::new(Code::CANCELLED, Fate::Unknown, again)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The time that was left of a call when its reply was taken, if that was just now: `Some(None)` for ever. None if the time is over, or the
    /// place of the call has been taken by another one since.
    pub fn time_left(&self, callback_id: CallbackId) -> Option<Option<Duration>> {
        let deadline = self.lock().in_flight.last_deadline(callback_id)?;
        match deadline {
            Some(deadline) => deadline.checked_duration_since(Instant::now().into_std()).map(Some),
            None => Some(None),
        }
    }

    pub(super) fn begin_batch(&self) -> BatchId {
        self.lock().in_flight.begin_batch()
    }

    pub(super) fn poll_batch(&self, batch: BatchId, waker: &Waker) -> Poll<Vec<(u32, Reply)>> {
        let mut unused = None;
        self.lock().in_flight.poll_batch(batch, waker, &mut unused)
    }

    /// Gives these calls of a batch, which were not submitted, an error as their reply.
    pub(super) fn tell_batch(&self, batch: BatchId, numbers: Range<usize>, error: &CallError) {
        let mut locked = self.lock();
        let mut wakes = Vec::new();
        for number in numbers {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            wakes.push(locked.in_flight.tell_batch(batch, number, Reply::failed(error.clone())));
        }
        drop(locked);
        wakes.into_iter().for_each(Wake::wake);
    }

    /// Ends a batch that its caller dropped, and cancels its calls that are not settled. `id_ranges` has the first and the last id of each
    /// range that their ids are in.
    pub(super) fn end_batch(&self, batch: BatchId, id_ranges: &[(CallbackId, CallbackId)]) {
        // Dropped when the lock is let go, with the replies that the caller did not take.
        let ended;
        let mut locked = self.lock();
        let was_empty = locked.submissions.is_empty();
        ended = locked.in_flight.end_batch(batch, id_ranges);
        if locked.closed.is_none() {
            locked.submissions.extend(ended.cancelled.iter().copied().map(Submission::Cancel));
        }
        self.let_go(locked, was_empty);
    }

    /// Lets the lock go, and tells the actor of a queue that is no longer empty.
    fn let_go(&self, locked: MutexGuard<'_, Locked>, was_empty: bool) {
        let is_empty = locked.submissions.is_empty();
        self.tell_if_idle(locked);
        if was_empty && !is_empty {
            self.flush();
        }
    }

    /// Changes the queue and the calls in flight, under the lock.
    pub(super) fn with_queue<T>(&self, change: impl FnOnce(&mut Queue<'_>) -> T) -> Result<T, CallError> {
        let hops = hops::of_call(self.number);
        let mut locked = self.lock();
        if let Some(error) = &locked.closed {
            return Err(error.clone());
        }
        let was_empty = locked.submissions.is_empty();
        let changed = change(&mut Queue { locked: &mut locked, hops });
        self.let_go(locked, was_empty);
        Ok(changed)
    }

    /// Publishes an event: to the matching handlers of this node, then over the link. Waits for room in the queue and in the outbox, and for
    /// nothing else.
    ///
    /// # Errors
    ///
    /// Not sent: when the link is down or closing, or the outbox stays full.
    pub async fn publish(&self, event: NewEvent) -> Result<(), CallError> {
        self.submit_event(Submission::Publish(event)).await
    }

    /// Publishes an event at once; gives it back if there is no room for it yet.
    ///
    /// # Errors
    ///
    /// As [`Node::publish`].
    pub fn publish_now(&self, event: NewEvent) -> Result<Option<NewEvent>, CallError> {
        self.submit_event_now(Submission::Publish(event))
    }

    /// Sends an event to every other node at once; gives it back if there is no room for it yet.
    ///
    /// # Errors
    ///
    /// As [`Node::publish`].
    pub fn broadcast_now(&self, event: NewEvent) -> Result<Option<NewEvent>, CallError> {
        self.submit_event_now(Submission::Broadcast(event))
    }

    /// Publishes an event whose value the master keeps as the last of its topic; or takes the last value of the topic away, and publishes nothing.
    /// Waits for the answer of the master, for at most [`CALL_WITHIN`].
    ///
    /// # Errors
    ///
    /// Not sent: as [`Node::publish`], and when too many calls are in flight, there is no room for the value at this node or its master, or the
    /// master keeps no last values. *Unknown*: when the link is lost, or the master does not answer.
    pub async fn keep_last(&self, event: NewEvent, forgets: bool) -> Result<(), CallError> {
        {
            let locked = self.lock();
            locked.event_path.check("publish to", &event)?;
            if let EventPath::Link { outbox, .. } = &locked.event_path
                && !outbox.features().contains(Features::LAST)
            {
                let what =
                    "the master is of an earlier version or of another protocol, and keeps no last values";
                return Err(CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, what));
            }
        }
        if !forgets {
            self.with_said(|said| said.check(&event))
                .map_err(|many| CallError::new(Code::OVERLOADED, Fate::NotSent, many.to_string()))?;
        }
        let (tell, told) = oneshot::channel();
        let (me, kept) = (Weak::clone(&self.me), event.clone());
        let hook = move |reply: Reply| {
            let number = reply.into_kept();
            if let (Some(node), Ok(Some(number))) = (me.upgrade(), &number) {
                node.with_said(|said| match forgets {
                    true => said.forgets(&kept.topic, *number),
                    false => said.keeps(kept, *number),
                });
            }
            // The caller may wait no longer: the value is kept.
            let _ = tell.send(number.map(drop));
        };
        let deadline = deadline_of(Instant::now(), Some(CALL_WITHIN));
        self.open_with(deadline, Waiter::Hook(Box::new(hook)), |callback_id| {
            Submission::KeepLast(Box::new(Keeping { callback_id, event, forgets }))
        })?;
        told.await.unwrap_or_else(|_| Err(self.ended().with_fate(Fate::Unknown)))
    }

    /// Reads or changes the last values that the node has published.
    pub(crate) fn with_said<T>(&self, change: impl FnOnce(&mut SaidLast) -> T) -> T {
        change(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends an event to every other node.
    ///
    /// # Errors
    ///
    /// As [`Node::publish`].
    pub async fn broadcast(&self, event: NewEvent) -> Result<(), CallError> {
        self.submit_event(Submission::Broadcast(event)).await
    }

    /// How the arguments of a call are written by a caller with this signature, or none: so that all providers read them, as far as this node
    /// knows.
    #[must_use]
    pub fn wanted(&self, action: &str, signature: Option<Signature>) -> Wanted {
        let own = self.lock().own.get(action).copied();
        self.known.read().unwrap_or_else(PoisonError::into_inner).wanted(action, signature, own)
    }

    /// The other nodes with their actions, sorted by name, as far as this node was told of them.
    #[must_use]
    pub fn known_nodes(&self) -> Vec<NodeNews> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).nodes()
    }

    /// Waits until a call of an action finds a provider: this node, or another one.
    ///
    /// # Errors
    ///
    /// Not sent: when the name is not valid, no provider is there before the time is over, the node drains or has ended, or the master does
    /// not say which actions there are.
    pub async fn wait_for(&self, action: &str, within: Duration) -> Result<(), CallError> {
        check_action(action)?;
        tokio::time::timeout(within, self.provided(action)).await.unwrap_or_else(|_| {
            let what = format!("no node has offered {action:?} within {within:?}");
            Err(CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, what))
        })
    }

    /// News travel a moment behind offers and withdrawals. So the master has the last word: it is asked first, and again when news of a
    /// provider come. Between that, only changes are waited for.
    async fn provided(&self, action: &str) -> Result<(), CallError> {
        let pattern = Pattern::new(action)?;
        let mut is_asked = false;
        loop {
            // Made before anything is looked at, so that no change is missed.
            let changed = self.changed.notified();
            match self.status.borrow().clone() {
                Status::Bound | Status::Rebinding => {}
                Status::Draining => {
                    return Err(CallError::new(Code::DRAINING, Fate::NotSent, "this node is draining"));
                }
                Status::Closed(why) => return Err(why.with_fate(Fate::NotSent)),
            }
            let (is_known, is_known_above) = {
                let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
                (known.knows(action), known.knows_above(action))
            };
            if is_known_above || self.is_own(action) {
                return Ok(());
            }
            if is_known || !is_asked {
                match self.describe(pattern.clone(), CALL_WITHIN).await {
                    Ok(actions) if actions.is_empty() => is_asked = true,
                    Ok(_) => return Ok(()),
                    // The next bind brings news.
                    Err(error) if [Code::LINK_LOST, Code::REQUEST_TIMEOUT].contains(&error.code()) => {}
                    Err(error) => return Err(error),
                }
            }
            changed.await;
        }
    }

    /// Whether the node answers the action itself.
    fn is_own(&self, action: &str) -> bool {
        let own = &self.lock().own;
        own.contains_key(action) || everything_above(action).any(|above| own.contains_key(&above))
    }

    /// The status of the node in its mesh, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// How many calls of this node are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight.waiting()
    }

    /// Draws the number of a handler, never twice. The number is drawn before the handler is subscribed, so that a caller that gives up
    /// on the answer can still unsubscribe.
    #[must_use]
    pub fn draw_subscriber(&self) -> SubscriberId {
        SubscriberId(self.next_subscriber.fetch_add(1, Ordering::Relaxed))
    }

    /// Subscribes a handler: see [`Subscribe`].
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
        self.mailboxes()?.subscribe.send(Subscribe { id, to, subscriber }).await.map_err(|_| self.ended())?
    }

    /// Unsubscribes a handler, without waiting: see [`Unsubscribe`].
    pub fn unsubscribe(&self, subscriber: SubscriberId) {
        if let Ok(mailboxes) = self.mailboxes() {
            #[expect(clippy::disallowed_methods, reason = "bounded by the subscriptions: one message each")]
            mailboxes.unsubscribe.do_send(Unsubscribe(subscriber));
        }
    }

    /// Answers more actions: see [`Respond`].
    ///
    /// # Errors
    ///
    /// When an action cannot be added here, or the master refuses it.
    pub async fn respond(&self, actions: Actions) -> Result<(), CallError> {
        self.mailboxes()?.respond.send(Respond(actions)).await.map_err(|_| self.ended())?
    }

    /// Answers actions no longer: see [`Withdraw`].
    ///
    /// # Errors
    ///
    /// When the master cannot be told.
    pub async fn withdraw(&self, actions: Vec<ByteString>) -> Result<(), CallError> {
        self.mailboxes()?.withdraw.send(Withdraw(actions)).await.map_err(|_| self.ended())?
    }

    /// Asks which actions there are, part by part, and waits for so long.
    ///
    /// # Errors
    ///
    /// When the master does not answer, or more than [`DESCRIBED_IN_ALL_MAX`] actions match.
    pub async fn describe(
        &self,
        pattern: Pattern,
        within: Duration,
    ) -> Result<Vec<ActionDescription>, CallError> {
        tokio::time::timeout(within, self.describe_in_parts(pattern, within)).await.unwrap_or_else(|_| {
            let what = "no answer came before the deadline";
            Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, what))
        })
    }

    async fn describe_in_parts(
        &self,
        pattern: Pattern,
        within: Duration,
    ) -> Result<Vec<ActionDescription>, CallError> {
        let mut described: Vec<ActionDescription> = Vec::new();
        loop {
            let after = described.last().map(|last| last.action.clone()).unwrap_or_default();
            let describe = DescribePart { pattern: pattern.clone(), after: after.clone(), within };
            let part = self.mailboxes()?.describe.send(describe).await.map_err(|_| self.ended())??;
            let is_last = part.is_empty() || pattern.is_literal();
            if part.first().is_some_and(|first| first.action <= after) {
                let what = "the master tells the same actions again";
                return Err(CallError::new(Code::UNKNOWN, Fate::Failed, what));
            }
            described.extend(part);
            if is_last {
                return Ok(described);
            }
            if described.len() > DESCRIBED_IN_ALL_MAX {
                let what = format!("more than {DESCRIBED_IN_ALL_MAX} actions match: narrow the pattern");
                return Err(CallError::new(Code::OVERLOADED, Fate::Failed, what));
            }
        }
    }

    /// The nodes that provide an action now, and have these labels; waits while the node binds again.
    ///
    /// # Errors
    ///
    /// Not sent: when no node provides the action with these labels, too many do, the master chooses no providers or does not answer within this
    /// time, or the node has ended.
    pub async fn find_providers(
        &self,
        action: &ByteString,
        labels: &[Label],
        within: Duration,
    ) -> Result<Vec<Provided>, CallError> {
        check_action(action)?;
        let mut status = self.status();
        let asking = async {
            loop {
                // The sender lives as long as this node.
                let _ = status.wait_for(|status| *status != Status::Rebinding).await;
                let find = FindProviders { action: action.clone(), labels: labels.to_vec(), within };
                match self.mailboxes()?.find_providers.send(find).await.map_err(|_| self.ended())? {
                    // The link was lost on the way.
                    Err(error)
                        if error.code() == Code::LINK_LOST && *self.status.borrow() == Status::Rebinding => {}
                    found => return found.map_err(|error| error.with_fate(Fate::NotSent)),
                }
            }
        };
        tokio::time::timeout(within, asking).await.unwrap_or_else(|_| {
            let what = "the master did not say before the deadline who provides the action";
            Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::NotSent, what))
        })
    }

    /// Adds a watcher of other nodes: see [`Watch`].
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn watch(&self, watcher: Watcher) -> Result<(), CallError> {
        self.mailboxes()?.watch.send(Watch(watcher)).await.map_err(|_| self.ended())
    }

    /// Drains the node: see [`Drain`].
    ///
    /// # Errors
    ///
    /// When the node has ended already.
    pub async fn drain(&self, within: Duration) -> Result<Drained, CallError> {
        self.mailboxes()?.drain.send(Drain { within }).await.map_err(|_| self.ended())
    }

    /// Takes a snapshot of the node: see [`TakeSnapshot`].
    ///
    /// # Errors
    ///
    /// When the node has ended.
    pub async fn snapshot(&self) -> Result<Snapshot, CallError> {
        self.mailboxes()?.snapshot.send(TakeSnapshot).await.map_err(|_| self.ended())
    }

    /// Lets the handles reach the actor.
    pub(crate) fn open_mailboxes(&self, mailboxes: Mailboxes) {
        self.deadlines.set_home();
        // A node has one actor, started once.
        let _ = self.mailboxes.set(mailboxes);
        // Submissions made before the actor started wait in the queue.
        if !self.lock().submissions.is_empty() {
            self.flush();
        }
    }

    /// Draws an id that no call has and no call will have.
    pub(crate) fn draw(&self) -> CallbackId {
        self.lock().in_flight.draw()
    }

    pub(crate) fn set_in_flight_max(&self, max: usize) {
        self.lock().in_flight.set_waiting_max(max);
    }

    /// Waits until no call of the node is in flight.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            {
                let mut locked = self.lock();
                if locked.in_flight.waiting() == 0 {
                    return;
                }
                locked.idle_wanted = true;
            }
            notified.await;
        }
    }

    /// Takes all submissions, and the departure of the calls among them. `into` must be empty: its capacity is used for the next ones.
    pub(crate) fn take_submissions(&self, into: &mut Vec<Submission>) -> Option<Departure> {
        // Dropped when the lock is let go: arguments may hold functions, whose end may take the lock.
        let _withdrawn;
        let mut locked = self.lock();
        _withdrawn = (!locked.withdrawn.is_empty()).then(|| locked.withdraw());
        std::mem::swap(&mut locked.submissions, into);
        let departure = locked.in_flight.take_departure();
        drop(locked);
        self.taken(into);
        departure
    }

    /// Notes that the actor has sent events of so many bytes on, which makes room for as many.
    pub(crate) fn events_left(&self, len: usize) {
        if len > 0 {
            self.lock().events_len -= len;
            self.room.notify_waiters();
        }
    }

    /// Notifies the publishers that wait for room in the queue, from which these submissions were taken. No publisher waits for a queue
    /// shorter than [`EVENTS_PENDING_MAX`].
    fn taken(&self, submissions: &[Submission]) {
        if submissions.len() >= EVENTS_PENDING_MAX {
            self.room.notify_waiters();
        }
    }

    /// Opens a call of the actor's own, which leaves at once. Gives the departure of the submissions before it, which are swapped into
    /// `before` and must leave first, and the departure of the call itself.
    pub(crate) fn open_alone(
        &self,
        deadline: Option<std::time::Instant>,
        waiter: Waiter,
        before: &mut Vec<Submission>,
    ) -> Result<(Option<Departure>, Departure), Refused> {
        // Dropped when the lock is let go: arguments may hold functions, whose end may take the lock.
        let _withdrawn;
        let mut locked = self.lock();
        _withdrawn = (!locked.withdrawn.is_empty()).then(|| locked.withdraw());
        std::mem::swap(&mut locked.submissions, before);
        let departure_before = locked.in_flight.take_departure();
        match locked.in_flight.open(deadline, waiter).map_err(full) {
            Ok(callback_id) => {
                locked.in_flight.take_departure();
                drop(locked);
                self.taken(before);
                Ok((departure_before, Departure::new(callback_id, deadline)))
            }
            Err(refused) => {
                // The submissions before the refused call stay in the queue, with their departure.
                std::mem::swap(&mut locked.submissions, before);
                locked.in_flight.put_back(departure_before);
                Err(refused)
            }
        }
    }

    /// Gives back a buffer whose `frames_len` bytes of frames have left, for the next frames.
    pub(crate) fn give_back(&self, mut buffer: BytesMut, frames_len: usize) {
        buffer.clear();
        let mut locked = self.lock();
        locked.spare_needed = locked.spare_needed.max(frames_len);
        if buffer.capacity() > locked.spare.capacity() {
            locked.spare = buffer;
        }
    }

    /// Gives back a spare buffer that is more than four times as long as the most bytes of frames that left at once since the last heartbeat.
    pub(crate) fn shrink(&self) {
        let mut locked = self.lock();
        let needed = std::mem::take(&mut locked.spare_needed).max(SPARE_LEN_MIN);
        if locked.spare.capacity() > 4 * needed {
            locked.spare = BytesMut::new();
        }
    }

    /// Changes the cache of other nodes and their actions.
    pub(crate) fn with_known<T>(&self, change: impl FnOnce(&mut ActionCache) -> T) -> T {
        let changed = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut known)
        };
        self.raise_version(|_| {});
        changed
    }

    /// Sets whether calls leave over a link at the moment, as frames that their callers write.
    pub(crate) fn set_writes_frames(&self, writes: bool) {
        self.raise_version(|locked| locked.writes_frames = writes);
    }

    /// Shows an actor that is started again when it panics in the snapshots of the node, from now on.
    pub fn show_restarted(&self, restarted: &Arc<Restarted>) {
        let mut shown = self.restarting.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() < RESTARTING_SHOWN_MAX && !shown.iter().any(|it| Arc::ptr_eq(it, restarted)) {
            shown.push(Arc::clone(restarted));
        }
    }

    /// The actors that are started again when they panic.
    pub(crate) fn restarting(&self) -> Vec<ActorSnapshot> {
        let shown = self.restarting.lock().unwrap_or_else(PoisonError::into_inner);
        shown.iter().map(|restarted| restarted.snapshot()).collect()
    }

    /// Sets the actions that the node answers itself.
    pub(crate) fn set_own(&self, actions: &Actions) {
        actions.restarted().for_each(|restarted| self.show_restarted(restarted));
        let own = actions.offers().into_iter().map(|offer| (offer.action, offer.accepts)).collect();
        self.raise_version(|locked| locked.own = own);
    }

    fn raise_version(&self, change: impl FnOnce(&mut Locked)) {
        let mut locked = self.lock();
        change(&mut locked);
        locked.version += 1;
        self.version.store(locked.version, Ordering::Release);
        drop(locked);
        self.changed.notify_waiters();
    }

    pub(crate) fn set_status(&self, status: Status) {
        self.status.send_if_modified(|now| {
            let changed = *now != status;
            *now = status;
            changed
        });
        self.room.notify_waiters();
        self.changed.notify_waiters();
    }

    /// Ends the node for its handles: every later submission fails with this error, and so does every call that the actor has not taken.
    pub(crate) fn close(&self, error: CallError) {
        let mut locked = self.lock();
        if locked.closed.is_none() {
            locked.closed = Some(error.clone());
        }
        let untaken = std::mem::take(&mut locked.submissions);
        let mut wakes = Vec::new();
        if let Some(departure) = locked.in_flight.take_departure() {
            for id in (departure.first.0..=departure.last.0).map(CallbackId) {
                wakes.push(locked.in_flight.settle(id, Reply::failed(error.clone())));
            }
        }
        self.tell_if_idle(locked);
        wakes.into_iter().for_each(Wake::wake);
        // Dropped when the lock is let go: arguments and events may hold functions, whose end may take the lock.
        drop(untaken);
        if !matches!(*self.status.borrow(), Status::Closed(_)) {
            self.set_status(Status::Closed(error));
        }
        self.room.notify_waiters();
    }

    /// [`Node::close`], and ends the calls that have left and are not settled, with the fate *unknown*.
    pub(crate) fn close_all(&self, error: CallError) {
        let mut wakes = Vec::new();
        let ended = "the node ended before the reply came";
        let unknown = CallError::new(Code::LINK_LOST, Fate::Unknown, ended);
        self.close(error);
        self.keyed.end();
        self.with(&mut |in_flight| in_flight.settle_all(|| Reply::failed(unknown.clone()), &mut wakes));
        wakes.into_iter().for_each(Wake::wake);
    }

    fn submit(&self, submission: Submission) -> Result<(), CallError> {
        let locked = self.lock();
        if let Some(error) = &locked.closed {
            return Err(error.clone());
        }
        self.push(locked, submission);
        Ok(())
    }

    fn push(&self, mut locked: MutexGuard<'_, Locked>, submission: Submission) {
        let was_empty = locked.submissions.is_empty();
        locked.submissions.push(submission);
        drop(locked);
        if was_empty {
            self.flush();
        }
    }

    fn tell_if_idle(&self, mut locked: MutexGuard<'_, Locked>) {
        let tell = locked.idle_wanted && locked.in_flight.waiting() == 0;
        if tell {
            locked.idle_wanted = false;
        }
        drop(locked);
        if tell {
            self.idle.notify_waiters();
        }
    }

    fn flush(&self) {
        if let Some(mailboxes) = self.mailboxes.get() {
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded to one: sent only when the queue was empty"
            )]
            mailboxes.flush.do_send(Flush);
        }
    }

    pub(crate) fn set_event_path(&self, event_path: EventPath) {
        let mut locked = self.lock();
        let before = std::mem::replace(&mut locked.event_path, event_path);
        drop(locked);
        self.room.notify_waiters();
        // Dropped without the lock: functions that were lent over the link may end with its outbox, and do anything then.
        drop(before);
    }

    /// Submits an event. Waits for room, for at most [`CALL_WITHIN`]. Nearly always there is room, and no timer is made.
    async fn submit_event(&self, event: Submission) -> Result<(), CallError> {
        let mut submitting = std::pin::pin!(self.submit_when_there_is_room(event));
        if let Poll::Ready(submitted) = futures::poll!(submitting.as_mut()) {
            return submitted;
        }
        tokio::time::timeout(CALL_WITHIN, submitting).await.unwrap_or_else(|_| {
            Err(CallError::new(
                Code::OVERLOADED,
                Fate::NotSent,
                "the link takes events more slowly than they come",
            ))
        })
    }

    /// Submits an event if there is room for it, else gives it back.
    fn submit_event_now(&self, event: Submission) -> Result<Option<NewEvent>, CallError> {
        let mut event = Some(event);
        self.try_submit_event(&mut event)?;
        Ok(match event {
            Some(Submission::Publish(event) | Submission::Broadcast(event)) => Some(event),
            _ => None,
        })
    }

    async fn submit_when_there_is_room(&self, event: Submission) -> Result<(), CallError> {
        let mut event = Some(event);
        loop {
            let notified = self.room.notified();
            match self.try_submit_event(&mut event)? {
                None => return Ok(()),
                Some(NoRoom::Queue) => notified.await,
                Some(NoRoom::Outbox(outbox, len)) => outbox.room_for(len).await,
            }
        }
    }

    /// Submits an event, and takes it out of `event`; gives the queue that has no room for it.
    fn try_submit_event(&self, event: &mut Option<Submission>) -> Result<Option<NoRoom>, CallError> {
        let Some(submission) = event else {
            return Ok(None);
        };
        let mut locked = self.lock();
        if let Some(error) = &locked.closed {
            return Err(error.clone());
        }
        if let (Submission::Publish(event) | Submission::Broadcast(event), verb) =
            (&*submission, submission.verb())
        {
            locked.event_path.check(verb, event)?;
        }
        if !locked.has_room(submission) {
            return Ok(Some(match &locked.event_path {
                // The queue holds nothing that would leave and make room.
                EventPath::Link { outbox, .. }
                    if locked.events_len == 0 && locked.submissions.len() < EVENTS_PENDING_MAX =>
                {
                    NoRoom::Outbox(outbox.clone(), submission.event_len())
                }
                _ => NoRoom::Queue,
            }));
        }
        locked.events_len += submission.event_len();
        if let Some(submission) = event.take() {
            self.push(locked, submission);
        }
        Ok(None)
    }

    fn mailboxes(&self) -> Result<&Mailboxes, CallError> {
        self.mailboxes.get().ok_or_else(|| self.ended())
    }

    fn ended(&self) -> CallError {
        let closed = self.lock().closed.clone();
        closed.unwrap_or_else(|| {
            CallError::new(Code::LINK_LOST, Fate::NotSent, "the node has no running actor")
        })
    }

    /// Whether any thread holds the lock.
    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self.locked.try_lock(), Err(std::sync::TryLockError::WouldBlock))
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        // Nothing in here leaves the lock half-changed when it panics.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue that has no room for an event.
enum NoRoom {
    /// The queue to the actor.
    Queue,
    /// The outbox of the link.
    Outbox(Outbox, usize),
}

impl EventPath {
    /// Checks whether an event may leave on this path, apart from the room that it needs.
    fn check(&self, verb: &str, NewEvent { topic, headers, payload }: &NewEvent) -> Result<(), CallError> {
        check_topic(topic)?;
        if !payload.callbacks.is_empty() {
            let what = "an event goes to its subscribers, who cannot be known, so it carries no callbacks";
            return Err(CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, what));
        }
        let frame_len_max = match self {
            EventPath::Down => return Err(link_down()),
            EventPath::Closing => {
                return Err(CallError::new(Code::LINK_LOST, Fate::NotSent, "the link is closing"));
            }
            // A closing outbox never has room again; the next link has an outbox of its own.
            EventPath::Link { outbox, .. } if !outbox.is_open() => {
                return Err(CallError::new(Code::LINK_LOST, Fate::NotSent, "the link is closing"));
            }
            EventPath::Link { publish: Some(allowed), .. }
                if !allowed.iter().any(|pattern| pattern.matches(topic)) =>
            {
                return Err(not_permitted(verb, topic, allowed));
            }
            EventPath::Link { outbox, .. } => outbox.frame_len_max(),
            EventPath::Router => FRAME_LEN_MAX,
        };
        if payload.len() + headers.len() + EVENT_HEAD_LEN_MAX <= frame_len_max {
            return Ok(());
        }
        let what = format!("the event takes {} bytes, and a frame may have {frame_len_max}", payload.len());
        Err(CallError::new(Code::FRAME_TOO_LARGE, Fate::NotSent, what))
    }
}

impl Locked {
    /// Takes the calls out of the queue whose deadlines have passed in it. Their cancels stay, by which the actor knows that they are settled.
    #[cold]
    fn withdraw(&mut self) -> Vec<Submission> {
        let (withdrawn, mut taken) = (std::mem::take(&mut self.withdrawn), Vec::new());
        for submission in std::mem::take(&mut self.submissions) {
            match submission {
                Submission::Frames(frames) => {
                    self.submissions.push(Submission::Frames(frames.without(&withdrawn)))
                }
                Submission::Ask(ask) if withdrawn.contains(&ask.request.callback_id) => {
                    taken.push(Submission::Ask(ask));
                }
                Submission::Invoke(invoking)
                    if invoking.callback_id.is_some_and(|callback_id| withdrawn.contains(&callback_id)) =>
                {
                    taken.push(Submission::Invoke(invoking));
                }
                submission => self.submissions.push(submission),
            }
        }
        taken
    }

    /// Whether an event, or a call of a function that nobody waits for, finds room: in the queue, and in the outbox of the link behind it.
    fn has_room(&self, submission: &Submission) -> bool {
        let standing = match &self.event_path {
            EventPath::Link { outbox, .. } if outbox.is_open() => outbox.standing(),
            EventPath::Link { .. } | EventPath::Down | EventPath::Closing | EventPath::Router => 0,
        };
        let before = standing.saturating_add(self.events_len);
        // An event that is longer than the bound leaves alone.
        let fits = before == 0 || before.saturating_add(submission.event_len()) <= OUTBOX_LEN_MAX;
        fits && self.submissions.len() < EVENTS_PENDING_MAX
    }
}

/// The queue and the calls in flight, while the lock is held.
pub(super) struct Queue<'a> {
    locked: &'a mut Locked,
    /// The hops of the calls that are made now.
    hops: u8,
}

impl Queue<'_> {
    pub(super) fn in_flight(&mut self) -> &mut InFlight {
        &mut self.locked.in_flight
    }

    /// Whether a head is still valid: calls with it are written by their callers.
    pub(super) fn takes(&self, head: Head) -> bool {
        self.locked.version == head.version && self.hops == 0
    }

    /// Opens a call and writes its frame.
    pub(super) fn write(
        &mut self,
        head: Head,
        deadline: Option<std::time::Instant>,
        arguments: &[u8],
        waiter: Waiter,
    ) -> Result<CallbackId, CallError> {
        let callback_id = self.locked.in_flight.open(deadline, waiter).map_err(full)?;
        self.locked.write(head.index, callback_id, arguments);
        Ok(callback_id)
    }

    /// Opens a call that the actor writes. The arguments of a refused call stay in `call`, to be dropped when the lock is let go.
    pub(super) fn ask(
        &mut self,
        call: &mut Call,
        deadline: Option<std::time::Instant>,
        waiter: Waiter,
    ) -> Result<CallbackId, CallError> {
        hops::check(self.hops, &call.action)?;
        let callback_id = self.locked.in_flight.open(deadline, waiter).map_err(full)?;
        let (action, node, hops) = (call.action.clone(), call.node.clone(), self.hops);
        let (headers, payload) = (std::mem::take(&mut call.headers), std::mem::take(&mut call.arguments));
        let (time_left, when_down) = (call.within, call.when_down);
        let caller = ByteString::new();
        let request = Request { callback_id, action, node, caller, time_left, hops, headers, payload };
        self.locked.submissions.push(Submission::Ask(Box::new(Ask {
            request,
            deadline,
            when_down,
            grant: None,
        })));
        Ok(callback_id)
    }
}

impl Locked {
    /// Writes the frame of an open call behind the frames that have not left.
    #[inline]
    fn write(&mut self, index: HeadIndex, callback_id: CallbackId, arguments: &[u8]) {
        if !matches!(self.submissions.last(), Some(Submission::Frames(_))) {
            let bytes = std::mem::take(&mut self.spare);
            self.submissions.push(Submission::Frames(Frames { bytes, count: 0, longest: 0 }));
        }
        if let Some(Submission::Frames(frames)) = self.submissions.last_mut() {
            let start = frames.bytes.len();
            self.heads.write(index, callback_id, arguments, &mut frames.bytes);
            frames.count += 1;
            frames.longest = frames.longest.max(frames.bytes.len() - start - LENGTH_PREFIX_LEN);
        }
    }
}

/// A call that was not submitted.
pub(crate) struct Refused {
    pub(crate) error: CallError,
    waiter: Waiter,
}

impl Refused {
    /// Tells the hook of the call, if it has one, of the error.
    fn tell(self) {
        if let Waiter::Hook(hook) = self.waiter {
            hook(Reply::failed(self.error));
        }
    }
}

impl From<Refused> for CallError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

fn full(Full { max, waiter }: Full) -> Refused {
    let what = format!("{max} calls are in flight already");
    Refused { error: CallError::new(Code::OVERLOADED, Fate::NotSent, what), waiter }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// Refuses a call for a request whose time is over.
fn check_time(now: Instant, until: Option<std::time::Instant>) -> Result<(), CallError> {
    if until.is_none_or(|until| now.into_std() < until) {
        return Ok(());
    }
    let what = "the deadline of the request for which the call was to be made has passed";
    Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::NotSent, what))
}

/// When a call ends that has so much time; none if it has no deadline, or one beyond the clock.
#[inline]
fn deadline_of(now: Instant, within: Option<Duration>) -> Option<std::time::Instant> {
    within.and_then(|within| now.checked_add(within)).map(Instant::into_std)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::Payload;

    /// The event waited for ten seconds and failed: only a queue with events in it notified publishers of room.
    #[tokio::test(start_paused = true)]
    async fn an_event_that_waits_behind_calls_leaves_when_they_have_left() {
        let node = Node::new("one".into());
        node.set_event_path(EventPath::Router);
        for _ in 0..EVENTS_PENDING_MAX {
            node.ask_with(Call::new("x", Payload::default()), drop);
        }
        let mut publishing = std::pin::pin!(node.publish(NewEvent::new("topic", Payload::default())));
        assert_eq!(futures::poll!(publishing.as_mut()), Poll::Pending);
        let mut taken = Vec::new();
        assert_eq!(
            node.take_submissions(&mut taken).map(|departure| departure.count),
            Some(EVENTS_PENDING_MAX)
        );
        assert_eq!(taken.len(), EVENTS_PENDING_MAX);
        assert_eq!(publishing.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_waits_behind_calls_leaves_when_the_actor_takes_them_to_make_a_call_itself() {
        let node = Node::new("one".into());
        node.set_event_path(EventPath::Router);
        for _ in 0..EVENTS_PENDING_MAX {
            node.ask_with(Call::new("x", Payload::default()), drop);
        }
        let mut publishing = std::pin::pin!(node.publish(NewEvent::new("topic", Payload::default())));
        assert_eq!(futures::poll!(publishing.as_mut()), Poll::Pending);
        let mut before = Vec::new();
        let hook = || Waiter::Hook(Box::new(drop));
        assert!(node.open_alone(None, hook(), &mut before).is_ok());
        assert_eq!(before.len(), EVENTS_PENDING_MAX);
        assert_eq!(publishing.await, Ok(()));
    }

    #[test]
    fn a_call_of_the_actor_that_finds_no_room_leaves_the_calls_before_it_in_the_queue() {
        let node = Node::new("one".into());
        node.set_in_flight_max(2);
        for _ in 0..2 {
            node.ask_with(Call::new("x", Payload::default()), drop);
        }
        let mut before = Vec::new();
        let refused = node.open_alone(None, Waiter::Hook(Box::new(drop)), &mut before);
        assert_eq!(refused.map_err(|refused| refused.error.code()), Err(Code::OVERLOADED));
        assert!(before.is_empty());
        assert_eq!(node.take_submissions(&mut before).map(|departure| departure.count), Some(2));
        assert_eq!(before.len(), 2);
    }

    /// They left the queue to grow without end: only calls that somebody waits for were counted.
    #[test]
    fn calls_that_are_dropped_before_they_leave_are_bounded_too() {
        let node = Node::new("one".into());
        node.set_in_flight_max(2);
        let call = || node.ask(Call::new("x", Payload::default()), Waker::noop());
        for _ in 0..2 {
            node.forget(call().expect("there is room"));
        }
        assert_eq!(call().map_err(|error| error.code()), Err(Code::OVERLOADED));
        let mut taken = Vec::new();
        node.take_submissions(&mut taken);
        assert!(call().is_ok());
    }
}

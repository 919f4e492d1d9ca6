//! Sessions of one master, wired to each other without sockets, actors or a clock, and driven by bytes: requests, calls of functions,
//! cancels, replies, binds, drains, losses and deadlines in any order, messages delivered late and ids used again. It holds the
//! [`Relay`] to its promises: each request of a branch is answered once, unless it is cancelled or its branch is lost; an error says
//! truly whether the request was written to its provider; a cancelled request does not go on; no id is drawn twice; no bound
//! is exceeded; and when all sessions have ended, no entry is left.
//!
//! Property tests and a fuzz target feed it.

use super::relay::{Cancelled, Decision, Heard, InUse, Invoking, OwnRequest, Relay};
use super::state::Phase;
use crate::answers::action::Action;
use crate::answers::responder::{Answer, ContextRef, Replier, Responder};
use crate::hashed::{HashMap, HashSet};
use crate::link::outbox::Pool;
use crate::master::dispatch::KeptLen;
use crate::master::forwarded::{Caller, Flowing, Forwarded, Part, Replied, Target};
use crate::master::registry::route::{Balance, Found, Provider, Rest, Route};
use meshwork_wire::limits::{HELD_LEN_MAX, KEPT_IN_ALL_LEN_MAX, KEPT_LEN_MAX};
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Encoding, Fate, Grant, Granted, Headers, Labels, Offer, Outcome,
    Payload, PayloadRef, Request, SessionId, Wants,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many sessions there are at a time. One that ends is followed by a new one in its place.
const SESSIONS: usize = 3;

/// How many requests may be in flight, each way.
const IN_FLIGHT_MAX: usize = 4;

/// How many requests an outbox takes before its branch reads.
const OUTBOX_MAX: usize = 6;

/// The actions, each with its providers: all branches, some of them, the master itself, all branches by a wide offer, none.
const ACTIONS: [&str; 5] = ["all", "some", "own", "wide", "none"];

/// Drives the sessions: three bytes a step.
///
/// # Panics
///
/// When a promise is broken.
pub fn run(bytes: &[u8]) {
    run_to_end(bytes, bytes.first().copied().unwrap_or_default());
}

fn run_to_end(bytes: &[u8], how: u8) {
    let mut world = World::new();
    for step in bytes.chunks_exact(3) {
        world.step(step[0], usize::from(step[1]), usize::from(step[2]));
        world.check_bounds();
    }
    world.end(how);
}

/// What the model is asked to do by the first byte of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Request,
    Invoke,
    Cancel,
    Reply,
    Decline,
    AnswerOwn,
    Deliver,
    LookUp,
    Bind,
    Offer,
    Read,
    Pass,
    Expire,
    BranchDrains,
    Drain,
    Abandon,
    Lose,
    /// A request for a stream.
    Stream,
    Start,
    Item,
    Grant,
}

/// Usual steps come up more often than steps that end a session.
pub(crate) const OPS: [Op; 41] = [
    Op::Request,
    Op::Request,
    Op::Request,
    Op::Request,
    Op::Request,
    Op::Request,
    Op::Invoke,
    Op::Invoke,
    Op::Cancel,
    Op::Cancel,
    Op::Reply,
    Op::Reply,
    Op::Reply,
    Op::Decline,
    Op::Decline,
    Op::AnswerOwn,
    Op::Deliver,
    Op::Deliver,
    Op::Deliver,
    Op::Deliver,
    Op::Deliver,
    Op::LookUp,
    Op::LookUp,
    Op::Bind,
    Op::Bind,
    Op::Offer,
    Op::Offer,
    Op::Read,
    Op::Pass,
    Op::Expire,
    Op::BranchDrains,
    Op::Drain,
    Op::Abandon,
    Op::Lose,
    Op::Stream,
    Op::Stream,
    Op::Start,
    Op::Item,
    Op::Item,
    Op::Item,
    Op::Grant,
];

struct World {
    now: Instant,
    registry: HashMap<&'static str, Arc<Route<Fake>>>,
    sessions: Vec<Session>,
    /// Messages on their way, by sender and receiver: the messages of one sender to one receiver keep their order.
    mail: BTreeMap<(SessionId, SessionId), VecDeque<Mail>>,
    calls: Vec<Call>,
    next_session: u64,
    /// The last call that a session forwarded to the branch of another session, by target.
    last_written: HashMap<(SessionId, SessionId, String), usize>,
}

/// A session, and its branch as the session sees it.
struct Session {
    fake: Fake,
    relay: Relay<Fake, SessionId>,
    caller: Arc<Caller<SessionId>>,
    /// How far the bind is: bind, registration, end.
    bind: usize,
    offers_some: bool,
    /// The requests that the branch waits for, by the ids that it gave them.
    waits: BTreeMap<CallbackId, usize>,
    next_id: u64,
    /// The requests that the master answers itself, and that are not answered yet.
    own: Own,
    /// How many requests stand in the outbox.
    unread: usize,
    /// The requests that the branch is answering, by the ids that were drawn for them.
    serves: BTreeMap<CallbackId, usize>,
    drawn: HashSet<CallbackId>,
    /// Actions that the registry has been asked for.
    asked: VecDeque<ByteString>,
}

#[derive(Default)]
struct Own(BTreeMap<CallbackId, usize>);

/// A request or a call of a function by a branch.
struct Call {
    caller: SessionId,
    waited_for: bool,
    /// Whether the branch cancelled it, or was lost.
    given_up: bool,
    /// Whether it left the session of its caller.
    forwarded: bool,
    written: bool,
    /// Whether the branch that it was written to has answered it, was told that it is cancelled, or was lost.
    over: bool,
    /// Whether it was sent to another provider: then it may come behind later ones.
    moved: bool,
    told: usize,
    /// How far its stream is; none if one value is asked for.
    stream: Option<Stream>,
}

/// How far a stream is.
#[derive(Clone, Copy, Default)]
struct Stream {
    /// How many items were granted, as far as the session of its producer has heard.
    granted: u32,
    /// How many the producer has sent.
    sent: u32,
    /// How many have come to the consumer.
    come: u32,
    has_begun: bool,
}

/// How many items a consumer of the model grants at a time.
const GRANT: Grant = Grant { items: 2, bytes: 1_000 };

enum Mail {
    Forward(Arc<Caller<SessionId>>, Vec<Forwarded>),
    Replies(Vec<Replied>),
    Cancel(Vec<CallbackId>),
    Flow(Vec<Flowing>),
    Grants(Vec<Granted>),
}

/// A session as other sessions see it.
#[derive(Clone)]
struct Fake(Arc<FakeShared>);

struct FakeShared {
    id: SessionId,
    name: String,
    next_id: AtomicU64,
    in_flight: AtomicUsize,
    notifications: AtomicUsize,
    coming: AtomicUsize,
    taking: AtomicBool,
}

impl Provider for Fake {
    fn id(&self) -> SessionId {
        self.0.id
    }
    fn name(&self) -> &str {
        &self.0.name
    }
    fn name_number(&self) -> u64 {
        0
    }
    fn labels(&self) -> Option<&Labels> {
        None
    }
    fn latency(&self) -> Option<Duration> {
        None
    }
    fn rest(&self) -> Rest {
        Rest::No
    }
    fn is_resting(&self) -> bool {
        false
    }
    fn next_id(&self) -> CallbackId {
        CallbackId(self.0.next_id.fetch_add(1, Ordering::Relaxed))
    }
    fn begin_notification(&self) -> bool {
        let fits = self.0.notifications.load(Ordering::Relaxed) < IN_FLIGHT_MAX;
        if fits {
            self.0.notifications.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }
    fn end_notification(&self) {
        let before = self.0.notifications.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a notification ends once");
    }
    fn begin_request(&self) {
        self.0.coming.fetch_add(1, Ordering::Relaxed);
    }
    fn end_requests(&self, count: usize) {
        let before = self.0.coming.fetch_sub(count, Ordering::Relaxed);
        assert!(before >= count, "a request comes once");
    }
    fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }
    fn is_taking(&self) -> bool {
        self.0.taking.load(Ordering::Relaxed)
    }
    fn has_room(&self) -> bool {
        // A session publishes its count at the end of each message, so this is as old.
        self.in_flight() < IN_FLIGHT_MAX
    }
    fn is_leaving(&self) -> bool {
        false
    }
}

impl InUse for Own {
    fn contains(&self, callback_id: CallbackId) -> bool {
        self.0.contains_key(&callback_id)
    }
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Never asked: the model answers for the master.
struct Silent;

impl Responder for Silent {
    fn respond(&self, _: PayloadRef<'_>, _: &ContextRef<'_>, _: Replier<'_>) -> Answer {
        Answer::Said
    }
}

impl Session {
    fn new(id: SessionId, index: usize) -> Self {
        let name = format!("branch {index}");
        let shared = FakeShared {
            id,
            name: name.clone(),
            next_id: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            notifications: AtomicUsize::new(0),
            coming: AtomicUsize::new(0),
            taking: AtomicBool::new(true),
        };
        Self {
            fake: Fake(Arc::new(shared)),
            relay: Relay::new(
                "master",
                Balance::default(),
                IN_FLIGHT_MAX,
                KeptLen::new(KEPT_LEN_MAX, Pool::new(KEPT_IN_ALL_LEN_MAX)),
                KeptLen::new(HELD_LEN_MAX, Pool::new(KEPT_IN_ALL_LEN_MAX)),
            ),
            caller: Arc::new(Caller { id, name: name.into(), mailbox: id }),
            bind: 0,
            offers_some: false,
            waits: BTreeMap::new(),
            next_id: 0,
            own: Own::default(),
            unread: 0,
            serves: BTreeMap::new(),
            drawn: HashSet::default(),
            asked: VecDeque::new(),
        }
    }

    fn id(&self) -> SessionId {
        self.fake.id()
    }
}

impl World {
    fn new() -> Self {
        let registry = ACTIONS.map(|action| (action, Arc::new(Route::new())));
        let mut world = Self {
            now: Instant::now(),
            registry: registry.into_iter().collect(),
            sessions: Vec::new(),
            mail: BTreeMap::new(),
            calls: Vec::new(),
            next_session: 1,
            last_written: HashMap::default(),
        };
        let offer = Offer { action: "own".into(), accepts: meshwork_wire::Accepts::MessagePack, shape: None };
        world.registry["own"].set_own(Some(Action::new(offer, Arc::new(Silent))));
        for index in 0..SESSIONS {
            let session = world.new_session(index);
            world.sessions.push(session);
            // Most steps matter only between branches that are bound.
            if index > 0 {
                (0..3).for_each(|_| world.bind(index));
            }
        }
        world
    }

    fn new_session(&mut self, index: usize) -> Session {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        Session::new(id, index)
    }

    fn step(&mut self, op: u8, one: usize, other: usize) {
        let index = one % SESSIONS;
        let op = OPS[usize::from(op) % OPS.len()];
        let is_frame = matches!(
            op,
            Op::Request
                | Op::Invoke
                | Op::Cancel
                | Op::Reply
                | Op::Decline
                | Op::Stream
                | Op::Start
                | Op::Item
                | Op::Grant
        );
        // Several frames of one branch may be one block, and the link may be lost in the middle of it.
        if !is_frame && op != Op::Lose {
            self.end_message(index);
        }
        let seldom = matches!(op, Op::BranchDrains | Op::Drain | Op::Abandon | Op::Lose);
        match op {
            _ if seldom && other >= 64 => {}
            // Frames of a branch that is not bound are never taken.
            _ if is_frame && !self.sessions[index].relay.phase().is_calling() => {}
            Op::Request => self.request(index, one / SESSIONS, other, None),
            Op::Stream => self.request(index, one / SESSIONS, other, Some(GRANT)),
            Op::Start => self.start(index, other),
            Op::Item => self.item(index, other),
            Op::Grant => self.grant(index, other),
            Op::Invoke => self.invoke(index, one / SESSIONS, other),
            Op::Cancel => self.cancel(index, other),
            Op::Reply => self.reply(index, other),
            Op::Decline => self.decline(index, other),
            Op::AnswerOwn => self.answer_own(index, other),
            Op::Deliver => self.deliver(one),
            Op::LookUp => self.look_up(index),
            Op::Bind => self.bind(index),
            Op::Offer => self.offer(index),
            Op::Read => self.sessions[index].unread = 0,
            Op::Pass => self.now += Duration::from_millis(other as u64),
            Op::Expire => self.expire(index),
            Op::BranchDrains if self.sessions[index].relay.phase().is_calling() => {
                self.sessions[index].relay.branch_drains();
                self.sessions[index].fake.0.taking.store(false, Ordering::Relaxed);
            }
            Op::BranchDrains => {}
            Op::Drain => {
                let session = &mut self.sessions[index];
                session.fake.0.taking.store(false, Ordering::Relaxed);
                session.relay.drain();
            }
            Op::Abandon => self.abandon(index),
            Op::Lose => self.lose(index),
        }
        if !is_frame || other < 128 {
            self.end_message(index);
        }
        for other in 0..SESSIONS {
            if other != index {
                self.end_message(other);
            }
        }
    }

    // Steps of a branch.

    fn new_call(&mut self, index: usize, waited_for: bool) -> usize {
        let caller = self.sessions[index].id();
        let given_up = false;
        self.calls.push(Call {
            caller,
            waited_for,
            given_up,
            forwarded: false,
            written: false,
            over: false,
            moved: false,
            told: 0,
            stream: None,
        });
        self.calls.len() - 1
    }

    /// A new id; or one that is in use; or the last one again, if that is free.
    fn draw_id(&mut self, index: usize, how: usize) -> CallbackId {
        let session = &mut self.sessions[index];
        let last = CallbackId(session.next_id);
        match how {
            0 => session.waits.keys().next().copied().unwrap_or(last),
            1..20 if !session.waits.contains_key(&last) => last,
            _ => {
                session.next_id += 1;
                CallbackId(session.next_id)
            }
        }
    }

    fn request(&mut self, index: usize, id: usize, other: usize, grant: Option<Grant>) {
        let callback_id = self.draw_id(index, id);
        let action = ACTIONS[other / 16 % ACTIONS.len()];
        let deadline = other.is_multiple_of(3).then(|| self.now + Duration::from_millis(other as u64));
        let node =
            if other.is_multiple_of(7) { format!("branch {}", other % SESSIONS) } else { String::new() };
        let allowed = match other % 11 {
            0 => Err(CallError::new(Code::NOT_PERMITTED, Fate::NotSent, "not allowed")),
            _ => Ok(()),
        };
        let call = self.new_call(index, true);
        let mut request = Request {
            callback_id,
            action: action.into(),
            node: node.into(),
            caller: ByteString::new(),
            time_left: None,
            hops: 0,
            headers: Headers::none(),
            payload: payload_of(call),
        };
        let session = &mut self.sessions[index];
        let in_use = session.waits.contains_key(&callback_id);
        let decision = match grant {
            None => session.relay.request(&mut request, deadline, allowed, &session.own),
            Some(grant) => session.relay.open_stream((&mut request, grant), deadline, allowed, &session.own),
        };
        self.calls[call].stream = grant.map(|_| Stream::default());
        assert_eq!(matches!(decision, Decision::Close(_)), in_use, "{callback_id} and {decision:?}");
        if !in_use {
            session.waits.insert(callback_id, call);
        }
        if let Decision::Answer(_) | Decision::AnswerStream(_) = &decision {
            assert!(session.relay.own().is_some(), "the master has an answer");
        }
        self.carry_out(index, decision, call);
    }

    fn invoke(&mut self, index: usize, id: usize, other: usize) {
        let to = self.sessions[other % SESSIONS].fake.clone();
        let wants = match other / 16 % 4 {
            0 => Wants::Nothing,
            3 => Wants::Stream(GRANT),
            _ => Wants::Result,
        };
        let callback_id = (wants != Wants::Nothing).then(|| self.draw_id(index, id));
        let call = self.new_call(index, callback_id.is_some());
        self.calls[call].stream = matches!(wants, Wants::Stream(_)).then(Stream::default);
        let session = &mut self.sessions[index];
        let in_use = callback_id.is_some_and(|id| session.waits.contains_key(&id));
        let deadline = other.is_multiple_of(3).then(|| self.now + Duration::from_millis(other as u64));
        let (function, payload) = (CallbackId(other as u64), payload_of(call));
        let invoking = Invoking { callback_id, to: &to, function, wants, deadline, payload };
        let decision = session.relay.invoke(invoking, &session.own);
        assert_eq!(matches!(decision, Decision::Close(_)), in_use, "{callback_id:?} and {decision:?}");
        if let (Some(callback_id), false) = (callback_id, in_use) {
            session.waits.insert(callback_id, call);
        }
        self.carry_out(index, decision, call);
    }

    fn carry_out(&mut self, index: usize, decision: Decision, call: usize) {
        match decision {
            Decision::Relay => {}
            Decision::AnswerStream(own) => {
                assert!(self.calls[call].stream.is_some(), "one value was asked for");
                self.carry_out(index, Decision::Answer(own.0), call);
            }
            Decision::Answer(OwnRequest { callback_id, action, payload, .. }) => {
                assert_eq!((&*action, call_of(&payload)), ("own", call));
                self.calls[call].written = true;
                self.sessions[index].own.0.insert(callback_id, call);
            }
            Decision::Refuse(Some(callback_id), error) => self.tell(index, callback_id, Err(error)),
            Decision::Refuse(None, _) => {}
            Decision::Close(_) => {
                // The frame was never taken.
                self.calls[call].waited_for = false;
                self.lose(index);
            }
        }
    }

    fn cancel(&mut self, index: usize, other: usize) {
        let session = &mut self.sessions[index];
        let id = pick(&session.waits, other).unwrap_or(CallbackId(other as u64));
        let was_relayed = session.relay.cancel(id);
        let was_own = !was_relayed && session.own.0.remove(&id).is_some();
        match session.waits.remove(&id) {
            Some(call) => {
                assert!(was_relayed || was_own, "{id} is in flight");
                self.calls[call].given_up = true;
                self.calls[call].over |= was_own;
            }
            None => assert!(!was_relayed && !was_own, "{id} is not in flight"),
        }
    }

    fn reply(&mut self, index: usize, other: usize) {
        let session = &mut self.sessions[index];
        // Some replies answer nothing.
        let id = pick(&session.serves, other).unwrap_or(CallbackId(other as u64));
        let call = session.serves.remove(&id);
        let payload = payload_of(call.unwrap_or(usize::MAX));
        let taken = session.relay.response(id, Ok(payload));
        if let Some(call) = call {
            assert!(taken, "{id} was waited for");
            self.calls[call].over = true;
        }
        assert!(
            !self.sessions[index].relay.response(id, Ok(payload_of(usize::MAX))),
            "{id} is answered once"
        );
    }

    /// Lets the branch begin a stream that answers a request; one that asks for one value, too.
    fn start(&mut self, index: usize, other: usize) {
        let session = &mut self.sessions[index];
        let id = pick(&session.serves, other).unwrap_or(CallbackId(other as u64));
        session.relay.started(id);
    }

    /// Lets the branch send an item, whether or not one was granted.
    fn item(&mut self, index: usize, other: usize) {
        let session = &mut self.sessions[index];
        let id = pick(&session.serves, other).unwrap_or(CallbackId(other as u64));
        let Some(number) = session.serves.get(&id).copied() else {
            assert!(!session.relay.item(id, Ok(Payload::default())), "{id} is answered by nobody");
            return;
        };
        let call = &mut self.calls[number];
        let granted = call.stream.as_mut().filter(|stream| stream.sent < stream.granted);
        let sent = granted.map(|stream| {
            stream.sent += 1;
            stream.sent
        });
        let payload = Payload::new(Encoding::Json, format!("{number}.{}", sent.unwrap_or(0)).into_bytes());
        let ends = session.relay.item(id, Ok(payload));
        assert_eq!(ends, sent.is_none(), "{number} is ended when an item was not granted, and only then");
        if ends {
            session.serves.remove(&id);
            call.over = true;
        }
    }

    /// Lets the branch grant more of a stream that it reads, or does not read.
    fn grant(&mut self, index: usize, other: usize) {
        let session = &mut self.sessions[index];
        let id = pick(&session.waits, other).unwrap_or(CallbackId(other as u64));
        let is_relayed = session.relay.grant(Granted { callback_id: id, grant: GRANT });
        let is_here = session.own.contains(id) || !session.waits.contains_key(&id);
        assert_eq!(is_relayed, !is_here, "{id}");
    }

    /// Lets the branch answer that it does not run a request, which another branch may run.
    fn decline(&mut self, index: usize, other: usize) {
        let session = &mut self.sessions[index];
        let Some(id) = pick(&session.serves, other) else {
            return;
        };
        if let Some(call) = session.serves.remove(&id) {
            self.calls[call].written = false;
            let declined = CallError::new(Code::OVERLOADED, Fate::NotSent, "it has no permit");
            assert!(session.relay.response(id, Err(declined)), "{id} was waited for");
        }
    }

    /// Lets the master answer a request itself.
    fn answer_own(&mut self, index: usize, other: usize) {
        if let Some(id) = pick(&self.sessions[index].own.0, other)
            && let Some(call) = self.sessions[index].own.0.remove(&id)
        {
            self.calls[call].over = true;
            self.tell(index, id, Ok(payload_of(call)));
        }
    }

    // Steps of a session.

    /// Tells the branch the outcome of its request.
    fn tell(&mut self, index: usize, id: CallbackId, outcome: Outcome) {
        let Some(number) = self.sessions[index].waits.remove(&id) else {
            panic!("nobody waits for {id}, and it is told {outcome:?}");
        };
        let call = &mut self.calls[number];
        call.told += 1;
        match outcome {
            Ok(payload) => assert_eq!(call_of(&payload), number, "{id} has the reply of another request"),
            Err(error) => match error.fate() {
                Fate::NotSent => assert!(!call.written, "{number} was written: {error}"),
                // A master that ends does not wait to hear how far a request came.
                Fate::Unknown if error.code() == Code::DRAINING => {
                    assert!(call.forwarded, "{number} never left")
                }
                Fate::Unknown => assert!(call.written, "{number} was never written: {error}"),
                Fate::Failed => panic!("{number} did not fail: {error}"),
            },
        }
    }

    fn look_up(&mut self, index: usize) {
        let Some(action) = self.sessions[index].asked.pop_front() else {
            return;
        };
        let found = match ACTIONS.iter().find(|known| **known == &*action) {
            Some(&"wide") if self.registry["all"].has_providers() => {
                Found::Wide(Arc::clone(&self.registry["all"]))
            }
            Some(known @ (&"all" | &"some")) if self.registry[*known].has_providers() => {
                Found::Named(Arc::clone(&self.registry[*known]))
            }
            Some(&"own") => Found::Named(Arc::clone(&self.registry["own"])),
            _ => Found::Nowhere,
        };
        let mut decisions = Vec::new();
        self.sessions[index].relay.looked_up(action, found, |decision, own| {
            assert_eq!(matches!(decision, Decision::Answer(_) | Decision::AnswerStream(_)), own.is_some());
            decisions.push(decision);
        });
        for decision in decisions {
            let call = match &decision {
                Decision::Answer(own) => call_of(&own.payload),
                Decision::AnswerStream(own) => call_of(&own.0.payload),
                _ => usize::MAX,
            };
            self.carry_out(index, decision, call);
        }
    }

    fn bind(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        match session.bind {
            0 => session.relay.bind(session.caller.name.clone()),
            1 => {
                self.registry["all"].add(session.fake.clone());
                session.offers_some = index == 0;
                if session.offers_some {
                    self.registry["some"].add(session.fake.clone());
                }
            }
            2 => self.relayed(index, |relay, now, branch| {
                relay.bound(now, |caller, forwarded, time_left| branch.write(caller, forwarded, time_left));
            }),
            _ => return,
        }
        self.sessions[index].bind += 1;
    }

    /// Lets a branch offer one action more, or one less.
    fn offer(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        if session.bind > 1 {
            session.offers_some = !session.offers_some;
            match session.offers_some {
                true => self.registry["some"].add(session.fake.clone()),
                false => self.registry["some"].remove(session.fake.id()),
            }
        }
    }

    /// Runs a step of a session that writes requests to its branch.
    fn relayed(
        &mut self,
        index: usize,
        run: impl FnOnce(&mut Relay<Fake, SessionId>, Instant, &mut Branch<'_>),
    ) {
        let World { sessions, calls, last_written, now, .. } = self;
        let Session { relay, unread, serves, drawn, fake, .. } = &mut sessions[index];
        run(relay, *now, &mut Branch { id: fake.id(), unread, serves, drawn, calls, last_written });
    }

    fn expire(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        for id in session.relay.expire(self.now, |_| false) {
            let call = session.serves.remove(&id).expect("it was written");
            self.calls[call].over = true;
        }
    }

    fn abandon(&mut self, index: usize) {
        let mut told = Vec::new();
        if self.sessions[index].bind == 3 {
            self.sessions[index].relay.abandon(|id, error| told.push((id, error)));
        }
        for (id, error) in told {
            self.tell(index, id, Err(error));
        }
        self.lose(index);
    }

    /// Loses the link of a session; a new session comes in its place.
    fn lose(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        session.relay.leave(&HashSet::default());
        session.fake.0.taking.store(false, Ordering::Relaxed);
        assert!(session.relay.is_empty() && session.relay.phase() == Phase::Closing);
        for route in self.registry.values() {
            route.remove(session.fake.id());
        }
        for call in std::mem::take(&mut session.waits).into_values() {
            self.calls[call].given_up = true;
        }
        for call in std::mem::take(&mut session.serves).into_values() {
            self.calls[call].over = true;
        }
        for call in std::mem::take(&mut session.own.0).into_values() {
            self.calls[call].over = true;
        }
        self.end_message(index);
        let session = self.new_session(index);
        self.sessions[index] = session;
    }

    /// Sends the messages of a session to other sessions.
    fn end_message(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        let id = session.id();
        session.asked.extend(session.relay.take_lookups());
        session.relay.end_message();
        session.fake.0.in_flight.store(session.relay.to_branch(), Ordering::Relaxed);
        let outgoing = &mut session.relay.outgoing;
        for (to, requests) in outgoing.forwards.drain(..) {
            for forwarded in &requests {
                self.calls[call_of(&forwarded.payload)].forwarded = true;
            }
            let forward = Mail::Forward(Arc::clone(&session.caller), requests);
            self.mail.entry((id, to.id())).or_default().push_back(forward);
        }
        if let Some(streams) = outgoing.streams.take() {
            for (to, parts) in streams.parts {
                self.mail.entry((id, to.mailbox)).or_default().push_back(Mail::Flow(parts));
            }
            for (to, granted) in streams.grants {
                self.mail.entry((id, to.id())).or_default().push_back(Mail::Grants(granted));
            }
        }
        for (to, replies) in outgoing.replies.drain(..) {
            self.mail.entry((id, to.mailbox)).or_default().push_back(Mail::Replies(replies));
        }
        for (to, cancelled) in outgoing.cancels.drain(..) {
            self.mail.entry((id, to.id())).or_default().push_back(Mail::Cancel(cancelled));
        }
    }

    /// Delivers one message.
    fn deliver(&mut self, which: usize) {
        self.mail.retain(|_, mail| !mail.is_empty());
        let keys: Vec<_> = self.mail.keys().copied().collect();
        let Some(key) = keys.get(which % keys.len().max(1)) else {
            return;
        };
        let (from, to) = *key;
        let Some(mail) = self.mail.get_mut(key).and_then(VecDeque::pop_front) else {
            return;
        };
        let index = self.sessions.iter().position(|session| session.id() == to);
        match (index, mail) {
            (Some(index), Mail::Forward(caller, requests)) => {
                let caller = self.sessions[index].relay.caller(&caller);
                for forwarded in requests {
                    match &forwarded.target {
                        Target::Action(_) => self.sessions[index].fake.end_requests(1),
                        Target::Function(_, Wants::Nothing) => self.sessions[index].fake.end_notification(),
                        Target::Function(..) => {}
                    }
                    self.relayed(index, |relay, now, branch| {
                        relay.forwarded(&caller, forwarded, now, |caller, forwarded, time_left| {
                            branch.write(caller, forwarded, time_left)
                        });
                    });
                }
                self.end_message(index);
            }
            (Some(index), Mail::Replies(replies)) => {
                for Replied { id_at_caller, id_at_provider, outcome } in replies {
                    let relay = &mut self.sessions[index].relay;
                    match relay.replied(from, id_at_caller, id_at_provider, &outcome) {
                        Heard::Late => {}
                        Heard::Outcome => {
                            let number = self.sessions[index].waits[&id_at_caller];
                            assert!(self.calls[number].stream.is_none_or(|it| !it.has_begun), "{number}");
                            self.tell(index, id_at_caller, outcome);
                        }
                        Heard::End => {
                            let number = self.sessions[index].waits[&id_at_caller];
                            assert!(self.calls[number].stream.is_some_and(|it| it.has_begun), "{number}");
                            self.tell(index, id_at_caller, outcome);
                        }
                        Heard::Elsewhere(waiting) => {
                            let call = call_of(&waiting.request.payload);
                            assert!(!self.calls[call].written, "{call} was run");
                            self.calls[call].moved = true;
                            let error = outcome.expect_err("it was not run");
                            let decision = self.sessions[index].relay.send_elsewhere(*waiting, error);
                            self.carry_out(index, decision, call);
                        }
                    }
                }
                self.end_message(index);
            }
            (Some(index), Mail::Flow(parts)) => {
                for flowing in parts {
                    if self.sessions[index].relay.flows(from, &flowing) {
                        self.flows(index, flowing);
                    }
                }
                self.end_message(index);
            }
            (Some(index), Mail::Grants(granted)) => {
                for granted in granted {
                    let Session { relay, serves, .. } = &mut self.sessions[index];
                    let number = serves.get(&granted.callback_id).copied();
                    let mut written = false;
                    let ends = relay.granted(granted, |_| {
                        written = true;
                        Ok(())
                    });
                    let stream = number.and_then(|number| self.calls[number].stream.as_mut());
                    assert_eq!(written, stream.is_some(), "a grant goes to streams that live");
                    assert!(!ends, "so little may be granted");
                    if let Some(stream) = stream {
                        stream.granted += granted.grant.items;
                    }
                }
                self.end_message(index);
            }
            (Some(index), Mail::Cancel(cancelled)) => {
                for id in cancelled {
                    let session = &mut self.sessions[index];
                    if session.relay.cancelled(id, self.now) != Cancelled::Unknown {
                        let call = session.serves.remove(&id).expect("it was written");
                        self.calls[call].over = true;
                    }
                }
            }
            // The session ended before it handled the message: the requests answer themselves.
            (None, Mail::Forward(caller, requests)) => {
                let lost = requests.into_iter().filter(|request| !request.is_notification());
                let lost = lost.map(|Forwarded { id_at_caller, id_at_provider, target, .. }| Replied {
                    id_at_caller,
                    id_at_provider,
                    outcome: Err(target.lost()),
                });
                let replies = Mail::Replies(lost.collect());
                self.mail.entry((to, caller.id)).or_default().push_back(replies);
            }
            (None, Mail::Replies(_) | Mail::Cancel(_) | Mail::Flow(_) | Mail::Grants(_)) => {}
        }
    }

    /// Writes a part of a stream to the branch that reads it.
    fn flows(&mut self, index: usize, Flowing { id_at_caller, part, .. }: Flowing) {
        let number = self.sessions[index].waits[&id_at_caller];
        let call = &mut self.calls[number];
        let stream = call.stream.as_mut().expect("nobody is sent a stream who asked for one value");
        assert_eq!(call.told, 0, "nothing comes behind the end of {number}");
        match part {
            Part::Start => {
                assert!(!stream.has_begun, "{number} begins once");
                stream.has_begun = true;
            }
            Part::Item(payload) => {
                stream.come += 1;
                let expected = format!("{number}.{}", stream.come);
                assert!(stream.has_begun, "{number} begins with its start");
                assert_eq!(&payload.bytes[..], expected.as_bytes(), "its items come in order");
            }
        }
    }

    // Invariants that always hold.

    fn check_bounds(&self) {
        for session in &self.sessions {
            let (relay, own) = (&session.relay, session.own.len());
            assert!(relay.of_branch() + own <= IN_FLIGHT_MAX, "too much of a branch is in flight");
            assert!(relay.to_branch() <= IN_FLIGHT_MAX, "too much to a branch is in flight");
            assert!(relay.waiting() <= IN_FLIGHT_MAX, "too much waits for the registry");
            assert_eq!(relay.of_branch() + own, session.waits.len(), "what is waited for is in flight");
            let counted = session.fake.0.notifications.load(Ordering::Relaxed);
            assert_eq!(counted, self.notifications_to(session.id()), "notifications to {}", session.id());
            assert!(counted <= IN_FLIGHT_MAX, "too many notifications to a branch");
            assert!(relay.streams() <= 2 * IN_FLIGHT_MAX, "a stream is a request in flight");
        }
    }

    /// How many notifications are on their way to a session: calls of functions of its branch whose callers wait for no outcome.
    fn notifications_to(&self, id: SessionId) -> usize {
        let sent = self.mail.iter().filter(|((_, to), _)| *to == id).flat_map(|(_, mail)| mail);
        let sent = sent.filter_map(|mail| match mail {
            Mail::Forward(_, requests) => Some(requests),
            _ => None,
        });
        let unsent = self.sessions.iter().flat_map(|session| &session.relay.outgoing.forwards);
        let unsent = unsent.filter(|(to, _)| to.id() == id).map(|(_, requests)| requests);
        sent.chain(unsent).flatten().filter(|request| request.is_notification()).count()
    }

    /// Lets all sessions end, in one of several ways, and checks that nothing is left.
    fn end(&mut self, how: u8) {
        self.settle();
        for (number, call) in self.calls.iter().enumerate() {
            let goes_on = call.written && !call.over && call.waited_for;
            assert!(!goes_on || !call.given_up, "{number} goes on though nobody waits for it");
        }
        for index in 0..SESSIONS {
            match how % 3 {
                0 => {}
                1 => self.lose(index),
                _ => self.abandon(index),
            }
            self.settle();
            while !self.sessions[index].serves.is_empty() {
                self.reply(index, 0);
            }
            while !self.sessions[index].own.0.is_empty() {
                self.answer_own(index, 0);
            }
        }
        self.settle();
        for (number, call) in self.calls.iter().enumerate() {
            let answers = usize::from(call.waited_for && !call.given_up);
            assert_eq!(call.told, answers, "how often {number} of {} was answered", call.caller);
        }
        for session in &self.sessions {
            assert!(session.relay.is_empty(), "something is left of {}", session.id());
            assert!(session.waits.is_empty());
            assert_eq!(session.fake.0.notifications.load(Ordering::Relaxed), 0);
            assert_eq!(session.fake.0.coming.load(Ordering::Relaxed), 0);
        }
    }

    /// Ends binds, look-ups and messages; no branch answers anything.
    fn settle(&mut self) {
        loop {
            for index in 0..SESSIONS {
                self.end_message(index);
                while !self.sessions[index].asked.is_empty() {
                    self.look_up(index);
                    self.end_message(index);
                }
                (self.sessions[index].bind..3).for_each(|_| self.bind(index));
                self.end_message(index);
            }
            if self.mail.values().all(VecDeque::is_empty) {
                return;
            }
            self.deliver(0);
        }
    }
}

/// A branch that a session writes requests to.
struct Branch<'a> {
    id: SessionId,
    unread: &'a mut usize,
    serves: &'a mut BTreeMap<CallbackId, usize>,
    drawn: &'a mut HashSet<CallbackId>,
    calls: &'a mut Vec<Call>,
    last_written: &'a mut HashMap<(SessionId, SessionId, String), usize>,
}

impl Branch<'_> {
    fn write(
        &mut self,
        caller: &Caller<SessionId>,
        forwarded: Forwarded,
        time_left: Option<Duration>,
    ) -> Result<(), CallError> {
        assert!(time_left.is_none_or(|time_left| !time_left.is_zero()), "its time is over");
        if *self.unread >= OUTBOX_MAX {
            return Err(CallError::new(Code::OVERLOADED, Fate::NotSent, "the outbox is full"));
        }
        *self.unread += 1;
        let number = call_of(&forwarded.payload);
        let call = &mut self.calls[number];
        assert_eq!(call.caller, caller.id);
        assert!(!call.written, "{number} is written twice");
        call.written = true;
        let id = forwarded.id_at_provider;
        assert!(self.drawn.insert(id), "{id} is drawn twice");
        if !forwarded.is_notification() {
            self.serves.insert(id, number);
        }
        let target = match forwarded.target {
            Target::Action(action) => action.to_string(),
            Target::Function(function, _) => function.to_string(),
        };
        if let Some(stream) = &mut call.stream {
            *stream = Stream { granted: GRANT.items, ..Stream::default() };
        }
        if call.moved {
            return Ok(());
        }
        let before = self.last_written.insert((caller.id, self.id, target), number);
        assert!(before.is_none_or(|before| before < number), "{number} comes after {before:?}");
        Ok(())
    }
}

fn payload_of(call: usize) -> Payload {
    Payload::new(Encoding::Json, call.to_string().into_bytes())
}

fn call_of(payload: &Payload) -> usize {
    let text = std::str::from_utf8(&payload.bytes).expect("it was written here");
    text.parse().expect("it was written here")
}

fn pick(from: &BTreeMap<CallbackId, usize>, which: usize) -> Option<CallbackId> {
    from.keys().nth(which % (from.len() + 1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{fs, path::PathBuf};

    /// The variable that has the seeds of the fuzz target written anew.
    const WRITE_SEEDS: &str = "MESHWORK_WRITE_SEEDS";

    /// Ids that are drawn anew, and the last one again if it is free.
    const NEW: usize = 30;
    const AGAIN: usize = 5;
    const IN_USE: usize = 0;

    /// The second number of a step that chooses an action, or a function, without a deadline, a named node or a missing permission.
    const ALL: usize = 1;
    const SOME: usize = 17;
    const OWN: usize = 34;
    const WIDE: usize = 50;
    const NONE: usize = 64;
    const OF_TWO: usize = 17;
    const OF_TWO_UNHEARD: usize = 2;
    /// Added to a step whose frame has more frames behind it in its block.
    const OF_TWO_UNHEARD_WITH_MORE: usize = 131;

    fn step(op: Op, index: usize, id: usize, other: usize) -> [u8; 3] {
        let op = OPS.iter().position(|other| *other == op).expect("each comes up");
        [op, id * SESSIONS + index, other].map(|part| u8::try_from(part).expect("it is a byte"))
    }

    fn request(index: usize, action: usize) -> [u8; 3] {
        step(Op::Request, index, NEW, action)
    }

    fn plain(op: Op, index: usize) -> [u8; 3] {
        step(op, index, 0, 0)
    }

    /// The first message of the mail.
    fn deliver() -> [u8; 3] {
        plain(Op::Deliver, 0)
    }

    /// Steps that once went wrong, or easily would. Branches 1 and 2 are bound from the beginning.
    fn scenarios() -> Vec<(&'static str, Vec<[u8; 3]>)> {
        let bind = || plain(Op::Bind, 0);
        let look_up = || plain(Op::LookUp, 1);
        let cancel = || plain(Op::Cancel, 1);
        vec![
            (
                "relayed_there_and_back",
                vec![
                    request(1, ALL),
                    look_up(),
                    deliver(),
                    plain(Op::Reply, 1),
                    plain(Op::Reply, 2),
                    deliver(),
                ],
            ),
            (
                "answered_by_the_master",
                vec![
                    request(1, OWN),
                    look_up(),
                    plain(Op::AnswerOwn, 1),
                    request(1, OWN),
                    cancel(),
                    request(1, OWN),
                ],
            ),
            (
                "a_cancel_meets_a_request_before_the_bind_is_answered",
                vec![bind(), bind(), request(1, SOME), look_up(), cancel(), deliver(), deliver(), bind()],
            ),
            (
                "requests_before_the_bind_is_answered_keep_their_order",
                vec![
                    bind(),
                    bind(),
                    request(1, SOME),
                    look_up(),
                    request(1, SOME),
                    deliver(),
                    deliver(),
                    bind(),
                ],
            ),
            (
                "a_session_ends_before_its_bind_is_answered",
                vec![bind(), bind(), request(1, SOME), look_up(), deliver(), plain(Op::Lose, 0)],
            ),
            (
                "a_cancelled_request_waits_for_its_route_and_its_id_is_used_again",
                vec![request(1, ALL), cancel(), step(Op::Request, 1, AGAIN, WIDE), look_up(), look_up()],
            ),
            (
                "more_are_cancelled_while_they_wait_than_may_be_in_flight",
                (0..2 * IN_FLIGHT_MAX).flat_map(|_| [request(1, NONE), cancel()]).collect(),
            ),
            (
                "a_reply_is_late_and_its_id_is_used_again",
                vec![
                    request(1, ALL),
                    look_up(),
                    deliver(),
                    plain(Op::Reply, 1),
                    plain(Op::Reply, 2),
                    cancel(),
                    step(Op::Request, 1, AGAIN, ALL),
                    deliver(),
                    deliver(),
                ],
            ),
            ("an_id_is_used_twice", vec![request(1, ALL), step(Op::Request, 1, IN_USE, ALL)]),
            (
                "requests_do_not_overtake_those_that_wait",
                vec![
                    bind(),
                    bind(),
                    bind(),
                    request(1, SOME),
                    look_up(),
                    deliver(),
                    plain(Op::Offer, 0),
                    request(1, SOME),
                    plain(Op::Offer, 0),
                    request(1, SOME),
                    look_up(),
                    deliver(),
                    deliver(),
                ],
            ),
            (
                "a_branch_drains_while_requests_are_on_their_way",
                vec![
                    request(1, ALL),
                    look_up(),
                    request(1, ALL),
                    plain(Op::BranchDrains, 1),
                    plain(Op::BranchDrains, 2),
                    deliver(),
                    deliver(),
                    deliver(),
                    deliver(),
                ],
            ),
            (
                "a_request_meets_a_draining_branch_and_goes_to_another",
                vec![
                    request(1, ALL),
                    look_up(),
                    request(1, ALL),
                    plain(Op::BranchDrains, 2),
                    deliver(),
                    deliver(),
                    deliver(),
                    deliver(),
                    plain(Op::Reply, 1),
                ],
            ),
            (
                "a_request_that_each_branch_declines_comes_back",
                (0..2)
                    .flat_map(|_| [request(1, ALL), look_up(), deliver()])
                    .chain(
                        (0..4).flat_map(|_| {
                            [plain(Op::Decline, 1), plain(Op::Decline, 2), deliver(), deliver()]
                        }),
                    )
                    .collect(),
            ),
            (
                "a_drain_is_over_while_requests_wait",
                vec![
                    request(1, ALL),
                    look_up(),
                    request(1, WIDE),
                    plain(Op::Drain, 1),
                    plain(Op::Abandon, 1),
                ],
            ),
            (
                "a_function_of_another_branch_is_called",
                vec![
                    step(Op::Invoke, 1, NEW, OF_TWO),
                    deliver(),
                    plain(Op::Reply, 2),
                    deliver(),
                    step(Op::Invoke, 1, NEW, OF_TWO),
                    cancel(),
                    deliver(),
                    deliver(),
                ],
            ),
            (
                "a_stream_goes_on_as_long_as_its_reader_grants",
                vec![
                    step(Op::Stream, 1, NEW, ALL),
                    look_up(),
                    deliver(),
                    plain(Op::Start, 1),
                    plain(Op::Start, 2),
                    plain(Op::Item, 1),
                    plain(Op::Item, 2),
                    deliver(),
                    deliver(),
                    plain(Op::Grant, 1),
                    deliver(),
                    plain(Op::Item, 1),
                    plain(Op::Item, 2),
                    deliver(),
                    plain(Op::Reply, 1),
                    plain(Op::Reply, 2),
                    deliver(),
                ],
            ),
            (
                "a_flood_ends_its_stream",
                vec![step(Op::Stream, 1, NEW, ALL), look_up(), deliver()]
                    .into_iter()
                    .chain((0..4).flat_map(|_| [plain(Op::Item, 1), plain(Op::Item, 2)]))
                    .chain([deliver(), deliver(), deliver()])
                    .collect(),
            ),
            (
                "items_of_a_stream_that_was_dropped_come_late",
                vec![
                    step(Op::Stream, 1, NEW, ALL),
                    look_up(),
                    deliver(),
                    plain(Op::Item, 1),
                    plain(Op::Item, 2),
                    cancel(),
                    step(Op::Stream, 1, AGAIN, ALL),
                    deliver(),
                    deliver(),
                    deliver(),
                ],
            ),
            (
                "nobody_waits_for_a_function_whose_caller_is_lost",
                vec![
                    step(Op::Invoke, 1, NEW, OF_TWO_UNHEARD),
                    deliver(),
                    step(Op::Invoke, 1, NEW, OF_TWO_UNHEARD_WITH_MORE),
                    plain(Op::Lose, 1),
                ],
            ),
            (
                "a_deadline_passes_at_each_place",
                vec![
                    bind(),
                    bind(),
                    request(1, SOME + 1),
                    look_up(),
                    request(1, ALL + 2),
                    look_up(),
                    deliver(),
                    step(Op::Pass, 0, 0, 255),
                    plain(Op::Expire, 0),
                    plain(Op::Expire, 1),
                    plain(Op::Expire, 2),
                ],
            ),
            (
                "more_is_asked_of_a_branch_than_may_be_in_flight",
                (0..3 * IN_FLIGHT_MAX)
                    .flat_map(|number| [step(Op::Invoke, number % SESSIONS, NEW, OF_TWO), deliver()])
                    .collect(),
            ),
        ]
    }

    fn corpus() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/session"))
    }

    #[test]
    fn every_scenario_is_a_seed_of_the_fuzz_target() {
        for (name, steps) in scenarios() {
            let (seed, bytes) = (corpus().join(name).with_extension("seed"), steps.as_flattened());
            if std::env::var_os(WRITE_SEEDS).is_some() {
                fs::create_dir_all(corpus()).expect("there is room");
                fs::write(&seed, bytes).expect("there is room");
            }
            let kept = fs::read(&seed).ok();
            assert!(
                kept.as_deref() == Some(bytes),
                "session/{name} is missing or old: run `{WRITE_SEEDS}=1 cargo test -p meshwork-actors model`"
            );
        }
    }

    #[test]
    fn sessions_keep_their_promises_over_the_seeds_of_the_fuzz_target() {
        for file in fs::read_dir(corpus()).expect("the seeds are kept beside the targets") {
            let path = file.expect("a directory can be listed").path();
            println!("{}", path.display());
            let steps = fs::read(path).expect("a seed can be read");
            // Each way in which all sessions may end.
            (0..3).for_each(|how| run_to_end(&steps, how));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn each_request_is_answered_once_and_truly_and_nothing_is_left(
            steps in proptest::collection::vec(any::<[u8; 3]>(), 0..300)
        ) {
            run(steps.as_flattened());
        }
    }
}

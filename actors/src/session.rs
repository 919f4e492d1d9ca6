//! The master's end of one link. It checks the bind, then relays: requests of its branch to whoever answers them, requests of
//! others to its branch, events to the router. A relay reads heads only; it never opens a payload.
//!
//! It takes blocks of frames from its link, [`Forward`] and [`Cancel`] from the sessions (and the master) whose requests it
//! relays, [`Replies`] from the sessions that it relayed to, [`Evict`] from the registry, [`Drain`] and [`Close`] from
//! the master. It
//! waits for no other session; what it asks of registry and router is answered past it, straight into its outbox.

mod state;

use crate::callbacks::{CallbackTable, Slots};
use crate::functions::{Lender, borrow, borrow_outcome, gone, invoked};
use crate::link::{Link, Paced};
use crate::master::{HeardBroadcasts, MasterActor, MasterShared};
use crate::node::Drained;
use crate::on_wake::{OnWake, run_interval};
use crate::outbox::{Gathered, Held, Outbox, Refusal, too_much_lent};
use crate::registry::{self, Found, NoProvider, Provider, Route, Ways};
use crate::responder::{Answering, Context as RequestContext, Outcome};
use crate::router::{self, Event};
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, ResponseActFuture,
    SpawnHandle, StreamHandler, WrapFuture,
};
use bytes::BytesMut;
use hashbrown::HashMap;
use meshwork_wire::limits::{
    ACTIONS_PER_FRAME_MAX, CREDENTIALS_LEN_MAX, FRAME_LEN_MAX, HEARTBEATS_MISSED_MAX, LINGER,
    PROTOCOL_VERSION, READ_BUFFER_LEN_START, ROUTE_CACHE_MAX,
};
use meshwork_wire::{
    Bind, Block, Bound, ByteString, CallError, CallbackId, Callbacks, Code, Describe, Described, Fate, Frame,
    FrameCodec, FrameError, Frames, Invocation, Next, Pattern, Payload, Refused, Request, Response,
    SessionId, check_action, check_node, check_topic,
};
use state::{Phase, Verdict};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::codec::{Decoder, FramedRead};

/// The master's end of one link.
pub struct SessionActor {
    master: Arc<MasterShared>,
    link: Option<Box<dyn Link>>,
    handle: Option<SessionHandle>,
    peer: String,
    /// What the branch may do, if its listener lets everyone in.
    admitted: Option<Permit>,
    phase: Phase,
    name: ByteString,
    permit: Permit,
    /// Tells the reader that longer frames are allowed from now on.
    raise_frame_len: Rc<Cell<bool>>,
    heard: Instant,
    /// Ends what does not bind in time.
    bind_alarm: SpawnHandle,
    routes: HashMap<ByteString, Arc<Route>>,
    /// Requests of this branch that someone else answers.
    asked: Slots<Asked>,
    /// Requests of this branch for actions of which the registry is asked where they go. Bounded by what it has in flight.
    routing: HashMap<ByteString, Vec<(Request, Option<Instant>)>>,
    /// Requests of others that this branch answers.
    relayed: CallbackTable<Asker>,
    /// Requests of others that came between the registration and the end of the bind. Bounded by what they have in flight.
    early: Vec<Forward>,
    /// Requests of this branch that the master itself answers.
    answering: Answering,
    /// Requests of this branch that registry and router answer straight into the outbox.
    pending: Rc<Cell<usize>>,
    load: Rc<Load>,
    writer: Option<JoinHandle<()>>,
    turn: Turn,
}

/// What one block of frames makes this session say to others: one message each when the block has been read.
#[derive(Default)]
struct Turn {
    forwards: Batches<SessionHandle, Forwarded>,
    replies: Batches<AskerAddr, (CallbackId, Outcome)>,
    cancels: Batches<SessionHandle, CallbackId>,
    /// Replies of the master's own actions.
    own_replies: Gathered,
    unknown: Vec<ByteString>,
    events: Vec<Event>,
    /// What the last request said, if the master itself was asked.
    answered: Option<RequestContext>,
    /// Who answers the action of the last request.
    last_route: Option<(ByteString, arc_swap::Guard<Arc<Ways>>)>,
    /// How many frames of the block are not taken yet: the most that a batch may still grow by.
    left: usize,
}

/// What is said to others, each with a batch. Those who are told of them share their handles.
pub(crate) type Batches<To, T> = Vec<(Rc<To>, Vec<T>)>;

enum Asked {
    /// The registry is asked where it goes.
    Routing,
    /// Relayed, under the id that was drawn at the other session.
    Relayed { to: Rc<SessionHandle>, callback_id: CallbackId },
}

/// Whoever waits for the branch.
enum Asker {
    /// Another session, or the master, with its own id of a relayed request.
    There(AskerOf),
    /// Whoever called a function of the branch.
    Here(oneshot::Sender<Outcome>),
}

struct AskerOf {
    address: Rc<AskerAddr>,
    callback_id: CallbackId,
}

/// Who made a request that a session relays.
#[derive(Clone)]
pub(crate) enum AskerAddr {
    Session(SessionHandle),
    Master(Addr<MasterActor>),
}

/// How much of a session is in flight, for whoever drains it.
#[derive(Default)]
struct Load {
    count: Cell<usize>,
    idle: Notify,
}

/// A session as the others see it. Clones share it.
#[derive(Clone)]
pub(crate) struct SessionHandle(Arc<Shared>);

struct Shared {
    id: SessionId,
    name: OnceLock<ByteString>,
    peer: String,
    address: Addr<SessionActor>,
    outbox: Outbox,
    next_id: AtomicU64,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    /// How many calls of its functions are in its mailbox.
    invoking: AtomicUsize,
    taking: AtomicBool,
    gone: AtomicBool,
}

/// Requests for the branch of the receiver. Sent by the session, or master, that they came in at: one message a block. One
/// that the receiver does not live to handle answers itself: not sent.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Forward {
    pub(crate) asker: AskerAddr,
    /// The name of the node that asks.
    pub(crate) caller: ByteString,
    pub(crate) requests: Vec<Forwarded>,
}

/// One relayed request.
pub(crate) struct Forwarded {
    /// The id that the asker knows it by.
    pub(crate) asked_as: CallbackId,
    /// The id that was drawn at the receiver.
    pub(crate) callback_id: CallbackId,
    pub(crate) action: ByteString,
    pub(crate) deadline: Option<Instant>,
    pub(crate) payload: Payload,
}

/// What became of requests that were forwarded. Sent by the session that relayed them, one message a block.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Replies(pub(crate) Vec<(CallbackId, Outcome)>);

/// The callers of these gave up. Sent by whoever forwarded them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Cancel(pub(crate) Vec<CallbackId>);

/// Calls a function of the branch. Sent by whoever holds it; answered through `reply`, if there is one.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Invoke {
    pub(crate) function: CallbackId,
    /// Drawn at the receiver.
    pub(crate) callback_id: CallbackId,
    pub(crate) invocation: Invocation,
    pub(crate) reply: Option<oneshot::Sender<Outcome>>,
}

/// A function of the branch is needed no more. Sent by its last handle.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Release(pub(crate) CallbackId);

/// Another branch has taken the name over. Sent by the registry, which has forgotten this session already.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Evict;

/// The drain is over: what is still in flight is told so, and the link closes. Sent by the master, when every session has
/// had its time: one that closed earlier would end what others wait for.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close;

/// Takes no more and finishes what is in flight. Sent by the master.
#[derive(Message)]
#[rtype(result = "Drained")]
pub(crate) struct Drain {
    pub(crate) within: Duration,
}

/// May this branch bind? Sent to the recipient that the master was given; its answer says what the branch may do.
#[derive(Message, Clone)]
#[rtype(result = "Result<Permit, String>")]
pub struct Authenticate {
    /// The name that the branch wants.
    pub name: ByteString,
    /// What it shows.
    pub credentials: Option<ByteString>,
    /// Where it comes from.
    pub peer: String,
}

/// What a branch may do. `None` is everything, the default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Permit {
    /// The actions that it may call.
    pub call: Option<Vec<Pattern>>,
    /// The actions that it may offer.
    pub respond: Option<Vec<Pattern>>,
    /// The topics that it may publish and broadcast to.
    pub publish: Option<Vec<Pattern>>,
    /// The patterns that it may subscribe to, each as it is written.
    pub subscribe: Option<Vec<Pattern>>,
}

/// The frame limit of a session rises when it is bound.
struct SessionCodec {
    codec: FrameCodec,
    raise: Rc<Cell<bool>>,
    frame_len_max: usize,
}

/// How many requests of one branch to registry and router may be unanswered.
const PENDING_MAX: usize = 1024;

impl SessionActor {
    pub(crate) fn new(
        master: Arc<MasterShared>,
        link: Box<dyn Link>,
        peer: String,
        admitted: Option<Permit>,
    ) -> Self {
        master.unbound.fetch_add(1, Ordering::Relaxed);
        Self {
            master,
            link: Some(link),
            handle: None,
            peer,
            admitted,
            phase: Phase::Unbound,
            name: ByteString::new(),
            permit: Permit::default(),
            raise_frame_len: Rc::default(),
            heard: Instant::now(),
            bind_alarm: SpawnHandle::default(),
            routes: HashMap::new(),
            asked: Slots::new(),
            routing: HashMap::new(),
            relayed: CallbackTable::new(),
            early: Vec::new(),
            answering: Answering::new(),
            pending: Rc::default(),
            load: Rc::default(),
            writer: None,
            turn: Turn::default(),
        }
    }

    fn me(&self) -> &SessionHandle {
        self.handle.as_ref().expect("it is made in `started`, before anything else")
    }

    fn outbox(&self) -> &Outbox {
        &self.me().0.outbox
    }

    fn inbound(&mut self, block: Block, context: &mut Context<Self>) {
        let now = Instant::now();
        self.heard = now;
        if !block.is_beat() {
            self.master.config.busy_poll.heard();
        }
        let mut frames = block.frames();
        loop {
            self.turn.left = frames.left().saturating_sub(1);
            match frames.read_next() {
                None => break,
                Some(Next::Request(request)) if self.phase.is_calling() => {
                    self.turn.answered = None;
                    self.request(request, now, context);
                    if let Some(like) = self.turn.answered.take() {
                        self.answer_alike(&like, &mut frames, context);
                    }
                }
                Some(Next::Reply { callback_id, payload }) if self.phase.is_calling() => {
                    self.response(callback_id, Ok(payload.share()));
                }
                Some(Next::Event(event)) if self.phase.is_calling() => self.publish(event, Some(&mut frames)),
                Some(next) => match next.into_frame() {
                    Ok(frame) => match self.phase.judge(&frame) {
                        Verdict::Take => self.take(frame, now, context),
                        Verdict::Ignore => break,
                        Verdict::Refuse(why) => {
                            self.refuse(Code::BIND_ERROR, why, false, context);
                            break;
                        }
                    },
                    Err(error) => {
                        self.broken(&error, context);
                        break;
                    }
                },
            }
        }
        self.end_turn(context);
    }

    fn take(&mut self, frame: Frame, now: Instant, context: &mut Context<Self>) {
        match frame {
            Frame::Bind(bind) => self.bind(bind, context),
            Frame::Request(request) => self.request(request, now, context),
            Frame::Response(Response { callback_id, outcome }) => {
                let lender = || Lender::Branch(self.me().clone());
                let outcome = borrow_outcome(outcome, self.outbox(), lender);
                self.response(callback_id, outcome);
            }
            Frame::Invoke(invoke) => self.invoked(invoke, context),
            Frame::Release(function) => self.outbox().lent().release(function),
            Frame::Cancel(callback_id) => self.cancel(callback_id),
            Frame::Publish(publish) => self.publish(publish, None),
            Frame::Broadcast(broadcast) => self.broadcast(broadcast),
            Frame::Subscribe(subscribe) => {
                let allowed = self.may_subscribe(&subscribe.key.pattern);
                let router = &self.master.router;
                let message = router::Subscribe {
                    subscriber: router::Subscriber::Session(self.me().clone()),
                    keys: vec![subscribe.key],
                };
                let asked = allowed.map(|()| router.send(message));
                self.answer_later(subscribe.callback_id, asked, |answer| answer);
            }
            Frame::Unsubscribe(key) => {
                #[expect(clippy::disallowed_methods, reason = "bounded by what the link brings")]
                self.master.router.do_send(router::Unsubscribe { session: self.me().id(), key });
            }
            Frame::Register(register) => {
                let allowed = self.check_offers(&register.offers);
                let message = registry::Offer { session: self.me().id(), offers: register.offers };
                let asked = allowed.map(|()| self.master.registry.send(message));
                self.answer_later(register.callback_id, asked, |answer| {
                    answer.map_err(|denied| {
                        CallError::new(Code::NOT_PERMITTED, Fate::Failed, denied.to_string())
                    })
                });
            }
            Frame::Unregister(unregister) => {
                let message = registry::Withdraw { session: self.me().id(), actions: unregister.actions };
                let asked = Ok(self.master.registry.send(message));
                self.answer_later(unregister.callback_id, asked, Ok);
            }
            Frame::Describe(describe) => self.describe(describe),
            Frame::Pong => {}
            Frame::Ping => self.outbox().push_always(&Frame::Pong),
            Frame::Drain => self.me().0.taking.store(false, Ordering::Release),
            Frame::Bound(_)
            | Frame::Refused(_)
            | Frame::Online(_)
            | Frame::Offline(_)
            | Frame::Described(_) => {
                unreachable!("the phase has refused it")
            }
        }
    }

    fn bind(&mut self, bind: Bind, context: &mut Context<Self>) {
        if let Err((code, why)) = self.check_bind(&bind) {
            return self.refuse(code, &why, false, context);
        }
        self.phase = Phase::Binding;
        // Names from a frame share its buffer, and the buffer holds the credentials: what is kept is copied.
        self.name = ByteString::from(&*bind.name);
        let _ = self.me().0.name.set(self.name.clone());
        let Bind { credentials, offers, subscriptions, .. } = bind;
        let authenticating = match self.admitted.take() {
            Some(permit) => Box::pin(async { Ok(permit) }),
            None => self.master.authenticate(Authenticate {
                name: self.name.clone(),
                credentials,
                peer: self.peer.clone(),
            }),
        };
        let master = Arc::clone(&self.master);
        let session = self.me().clone();
        let name = self.name.clone();
        let binding = async move {
            let permit = authenticating.await.map_err(|why| (Code::BIND_ERROR, why, false))?;
            check_permit(&permit, &offers, &subscriptions).map_err(|why| (Code::BIND_ERROR, why, false))?;
            let register = registry::Register {
                session: session.clone(),
                name,
                offers,
                on_taken: master.config.on_taken,
            };
            match master.registry.send(register).await {
                Ok(Ok(())) => {}
                // The old session may be one that is dead and does not know it yet.
                Ok(Err(denied @ registry::Denied::NameTaken(_))) => {
                    return Err((Code::BIND_ERROR, denied.to_string(), true));
                }
                Ok(Err(denied)) => return Err((Code::BIND_ERROR, denied.to_string(), false)),
                Err(_) => return Err((Code::BIND_ERROR, "the master ends".to_owned(), true)),
            }
            let subscriber = router::Subscriber::Session(session);
            match master.router.send(router::Subscribe { subscriber, keys: subscriptions }).await {
                Ok(Ok(())) => Ok(permit),
                Ok(Err(error)) => Err((Code::BIND_ERROR, error.message().to_owned(), false)),
                Err(_) => Err((Code::BIND_ERROR, "the master ends".to_owned(), true)),
            }
        };
        context.spawn(binding.into_actor(self).map(|bound, this, context| match bound {
            // The bind deadline may have passed meanwhile.
            _ if this.phase != Phase::Binding => {}
            Ok(permit) => this.bound(permit, context),
            Err((code, why, may_return)) => this.refuse(code, &why, may_return, context),
        }));
    }

    fn check_bind(&self, bind: &Bind) -> Result<(), (Code, String)> {
        let wrong = |why: String| (Code::BIND_ERROR, why);
        if bind.version != PROTOCOL_VERSION {
            return Err(wrong(format!(
                "this master speaks version {PROTOCOL_VERSION} of the protocol, the branch version {}",
                bind.version
            )));
        }
        check_node(&bind.name).map_err(|error| wrong(format!("a node cannot be named so: {error}")))?;
        if bind.credentials.as_ref().is_some_and(|credentials| credentials.len() > CREDENTIALS_LEN_MAX) {
            return Err(wrong(format!("credentials may have {CREDENTIALS_LEN_MAX} bytes")));
        }
        if bind.offers.len() > ACTIONS_PER_FRAME_MAX {
            return Err(wrong(format!(
                "a bind carries at most {ACTIONS_PER_FRAME_MAX} actions; register the others"
            )));
        }
        for offer in &bind.offers {
            check_action(&offer.action).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(())
    }

    fn check_offers(&self, offers: &[meshwork_wire::Offer]) -> Result<(), CallError> {
        for offer in offers {
            check_action(&offer.action)
                .map_err(|error| CallError::new(Code::BAD_NAME, Fate::NotSent, error.to_string()))?;
            if !allows(self.permit.respond.as_deref(), &offer.action) {
                return Err(not_permitted("offer", &offer.action));
            }
        }
        Ok(())
    }

    fn may_subscribe(&self, pattern: &Pattern) -> Result<(), CallError> {
        match &self.permit.subscribe {
            Some(allowed) if !allowed.contains(pattern) => {
                Err(not_permitted("subscribe to", pattern.as_str()))
            }
            _ => Ok(()),
        }
    }

    fn bound(&mut self, permit: Permit, context: &mut Context<Self>) {
        self.phase = Phase::Bound;
        context.cancel_future(self.bind_alarm);
        self.permit = permit;
        self.master.unbound.fetch_sub(1, Ordering::Relaxed);
        self.raise_frame_len.set(true);
        let config = &self.master.config;
        self.outbox().push_always(&Frame::Bound(Bound {
            session: self.me().id(),
            master: self.master.name.clone(),
            heartbeat_ms: u64::try_from(config.heartbeat.as_millis()).unwrap_or(u64::MAX),
            frame_len_max: config.frame_len_max as u64,
            in_flight_max: config.in_flight_max as u64,
        }));
        for forward in std::mem::take(&mut self.early) {
            self.forward(forward);
        }
    }

    fn request(&mut self, mut request: Request, now: Instant, context: &mut Context<Self>) {
        let callback_id = request.callback_id;
        if self.is_used(callback_id) {
            return self.refuse_used(context);
        }
        // Also when it is refused: what came with it is given back.
        if let Err(error) = borrow(&mut request.payload, self.outbox(), || Lender::Branch(self.me().clone()))
        {
            return self.reply(callback_id, Err(error));
        }
        if self.phase == Phase::Draining {
            let error = CallError::new(Code::DRAINING, Fate::NotSent, "the master is draining");
            return self.reply(callback_id, Err(error));
        }
        if self.is_full() {
            return self.reply(callback_id, Err(self.full()));
        }
        if !allows(self.permit.call.as_deref(), &request.action) {
            return self.reply(callback_id, Err(not_permitted("call", &request.action)));
        }
        let deadline = request.time_left.and_then(|time_left| now.checked_add(time_left));
        if !self.routing.is_empty()
            && let Some(waiting) = self.routing.get_mut(&request.action)
        {
            self.asked.insert(callback_id, Asked::Routing);
            return waiting.push((request, deadline));
        }
        // Requests that come together are of one action more often than not.
        let last = self.turn.last_route.take().filter(|(action, _)| *action == request.action);
        let route = last.or_else(|| {
            self.routes.get_key_value(&request.action).map(|(action, route)| (action.clone(), route.now()))
        });
        if let Some((action, ways)) = route
            && !ways.is_empty()
        {
            self.dispatch(request, deadline, &ways);
            self.turn.last_route = Some((action, ways));
            return;
        }
        // Names from a frame share its buffer: what is kept in the route cache must not keep that.
        let action = ByteString::from(&*request.action);
        self.asked.insert(callback_id, Asked::Routing);
        self.turn.unknown.push(action.clone());
        self.routing.insert(action, vec![(request, deadline)]);
    }

    /// Answers the requests that follow and are like the last one, which the master itself was asked: what that one was asked for and may do
    /// has been looked up.
    fn answer_alike(&mut self, like: &RequestContext, frames: &mut Frames, context: &mut Context<Self>) {
        let Some((action, ways)) = self.turn.last_route.take() else {
            return;
        };
        while let Some(own) = ways.own() {
            let left = frames.left().saturating_sub(1);
            let Some((callback_id, arguments)) = frames.next_request_of_run() else {
                break;
            };
            if self.is_used(callback_id) {
                return self.refuse_used(context);
            }
            if self.is_full() {
                self.reply(callback_id, Err(self.full()));
                continue;
            }
            let replies = self.turn.own_replies.to(self.outbox(), left);
            self.answering.start(own, arguments.by_ref(), like, callback_id, &replies);
        }
        self.turn.last_route = Some((action, ways));
    }

    fn is_used(&self, callback_id: CallbackId) -> bool {
        self.asked.contains(callback_id) || self.answering.contains(callback_id)
    }

    fn refuse_used(&mut self, context: &mut Context<Self>) {
        self.refuse(Code::UNKNOWN, "a callback id was used twice", false, context);
    }

    fn is_full(&self) -> bool {
        self.asked.len() + self.answering.len() >= self.master.config.in_flight_max
    }

    fn full(&self) -> CallError {
        let max = self.master.config.in_flight_max;
        let what = format!("{max} requests of this branch are in flight already");
        CallError::new(Code::OVERLOADED, Fate::NotSent, what)
    }

    /// Sends a request on its way: to the master itself, which wins, or to the session of a branch.
    fn dispatch(&mut self, request: Request, deadline: Option<Instant>, ways: &Ways) {
        let Request { callback_id, action, node, payload, .. } = request;
        if (node.is_empty() || node == self.master.name)
            && let Some(own) = ways.own()
        {
            let context = RequestContext::new(action, self.name.clone(), deadline);
            let replies = self.turn.own_replies.to(self.outbox(), self.turn.left);
            self.answering.start(own, (&payload).into(), &context, callback_id, &replies);
            self.turn.answered = Some(context);
            return;
        }
        match ways.pick(self.master.config.balance, &node) {
            Ok(provider) => {
                let drawn = provider.next_id();
                let forwarded =
                    Forwarded { asked_as: callback_id, callback_id: drawn, action, deadline, payload };
                let is = |to: &SessionHandle| to.id() == provider.id();
                let share = || Rc::new(provider.clone());
                let to = push_to(&mut self.turn.forwards, is, share, forwarded, self.turn.left);
                self.asked.insert(callback_id, Asked::Relayed { to: Rc::clone(to), callback_id: drawn });
            }
            Err(reason) => self.reply(callback_id, Err(no_provider(reason, &action, &node))),
        }
    }

    /// Asks the registry about all new actions of the turn, then sends on their way the requests that came until it answered: in
    /// the order in which they came, and before any that come later.
    fn look_up(&mut self, actions: Vec<ByteString>, context: &mut Context<Self>) {
        let asking = self.master.registry.send(registry::Lookup { actions: actions.clone() });
        context.spawn(asking.into_actor(self).map(move |found, this, context| {
            let found = found.unwrap_or_default().into_iter().chain(std::iter::repeat(Found::Nowhere));
            for (action, found) in actions.into_iter().zip(found) {
                for (request, deadline) in this.routing.remove(&action).unwrap_or_default() {
                    // The caller may have given up, or the session closed, meanwhile.
                    if this.asked.remove(request.callback_id).is_none() || this.phase == Phase::Closing {
                        continue;
                    }
                    match found.route() {
                        Some(route) => this.dispatch(request, deadline, &route.now()),
                        None => {
                            let error = no_provider(NoProvider::None, &request.action, &request.node);
                            this.reply(request.callback_id, Err(error));
                        }
                    }
                }
                if let Found::Named(route) = found {
                    this.remember(action, route);
                }
            }
            this.end_turn(context);
        }));
    }

    fn remember(&mut self, action: ByteString, route: Arc<Route>) {
        if self.routes.len() >= ROUTE_CACHE_MAX {
            self.routes.clear();
        }
        self.routes.insert(action, route);
    }

    fn response(&mut self, callback_id: CallbackId, outcome: Outcome) {
        match self.relayed.settle(callback_id) {
            Some(Asker::Here(reply)) => {
                // Whoever called may have given up meanwhile.
                let _ = reply.send(outcome);
            }
            Some(Asker::There(asker)) => {
                let reply = (asker.callback_id, outcome);
                let is = |address: &AskerAddr| address.is(&asker.address);
                let share = || Rc::clone(&asker.address);
                push_to(&mut self.turn.replies, is, share, reply, self.turn.left);
            }
            None => log::debug!("{}: a reply to {callback_id} came too late", self.name),
        }
    }

    /// The branch calls a function that was lent to it.
    fn invoked(&mut self, invoke: meshwork_wire::Invoke, context: &mut Context<Self>) {
        if let Some(callback_id) = invoke.callback_id
            && self.is_used(callback_id)
        {
            return self.refuse_used(context);
        }
        let lender = || Lender::Branch(self.me().clone());
        invoked(invoke, self.outbox(), lender, &self.answering, self.master.config.in_flight_max);
    }

    fn cancel(&mut self, callback_id: CallbackId) {
        match self.asked.remove(callback_id) {
            Some(Asked::Relayed { to, callback_id }) => {
                let is = |other: &SessionHandle| other.id() == to.id();
                push_to(&mut self.turn.cancels, is, || Rc::clone(&to), callback_id, 0);
            }
            Some(Asked::Routing) => {}
            None => {
                self.answering.cancel(callback_id);
            }
        }
    }

    /// Takes an event, and those of the same turn that follow it and are like it.
    fn publish(&mut self, publish: meshwork_wire::Publish, frames: Option<&mut Frames>) {
        if check_topic(&publish.topic).is_err() || !allows(self.permit.publish.as_deref(), &publish.topic) {
            log::debug!("{} may not publish to {:?}", self.name, publish.topic);
            return;
        }
        let (topic, payload) = (publish.topic, without_callbacks(publish.payload));
        if self.turn.events.is_empty() {
            self.turn.events.reserve(1 + self.turn.left);
        }
        let publisher = &self.name;
        let event = |payload| Event { topic: topic.clone(), publisher: publisher.clone(), payload };
        self.turn.events.push(event(payload));
        if let Some(frames) = frames {
            self.turn.events.extend(std::iter::from_fn(|| Some(event(frames.next_event_of_run()?.share()))));
        }
    }

    fn broadcast(&mut self, mut broadcast: meshwork_wire::Broadcast) {
        broadcast.payload = without_callbacks(broadcast.payload);
        if check_topic(&broadcast.topic).is_err() || !allows(self.permit.publish.as_deref(), &broadcast.topic)
        {
            log::debug!("{} may not broadcast {:?}", self.name, broadcast.topic);
            return;
        }
        let event = Event {
            topic: broadcast.topic.clone(),
            publisher: self.name.clone(),
            payload: broadcast.payload.clone(),
        };
        let frame = Frame::Broadcast(meshwork_wire::Broadcast { publisher: self.name.clone(), ..broadcast });
        #[expect(clippy::disallowed_methods, reason = "bounded by what the link brings")]
        {
            self.master.registry.do_send(registry::Broadcast { from: Some(self.me().id()), frame });
            self.master.address.do_send(HeardBroadcasts(vec![event]));
        }
    }

    fn describe(&mut self, describe: Describe) {
        let Some(place) = self.take_pending() else {
            return self.reply(describe.callback_id, Err(too_much_pending()));
        };
        let asking = self.master.registry.send(registry::Describe(describe.pattern));
        let outbox = self.outbox().clone();
        actix_rt::spawn(async move {
            let actions = asking.await.unwrap_or_default();
            let callback_id = describe.callback_id;
            if let Err(refusal) = outbox.push(&Frame::Described(Described { callback_id, actions })) {
                let (code, what) = match refusal {
                    Refusal::TooLong { .. } => {
                        (Code::FRAME_TOO_LARGE, "the shapes do not fit into a frame: ask for less")
                    }
                    Refusal::Full | Refusal::Closed | Refusal::TooMuchLent => {
                        (Code::OVERLOADED, "the outbox is full")
                    }
                };
                let outcome = Err(CallError::new(code, Fate::Failed, what));
                outbox.push_always(&Frame::Response(Response { callback_id, outcome }));
            }
            drop(place);
        });
    }

    /// Answers a request of the branch when registry or router has, straight into the outbox.
    fn answer_later<F, T, E>(
        &self,
        callback_id: CallbackId,
        asked: Result<F, CallError>,
        answer: impl FnOnce(T) -> Result<(), CallError> + 'static,
    ) where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => return self.reply(callback_id, Err(error)),
        };
        let Some(place) = self.take_pending() else {
            return self.reply(callback_id, Err(too_much_pending()));
        };
        let outbox = self.outbox().clone();
        actix_rt::spawn(async move {
            let outcome = match asked.await {
                Ok(answered) => answer(answered).map(|()| Payload::default()),
                Err(_) => Err(CallError::new(Code::LINK_LOST, Fate::Unknown, "the master ends")),
            };
            outbox.push_always(&Frame::Response(Response { callback_id, outcome }));
            drop(place);
        });
    }

    fn take_pending(&self) -> Option<PendingPlace> {
        (self.pending.get() < PENDING_MAX).then(|| {
            self.pending.set(self.pending.get() + 1);
            PendingPlace(Rc::clone(&self.pending))
        })
    }

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        self.outbox().push_response(&Response { callback_id, outcome });
    }

    /// Says to the others what the turn made: one message each.
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by what is in flight: one message a block and receiver"
    )]
    fn end_turn(&mut self, context: &mut Context<Self>) {
        self.turn.own_replies.leave(self.outbox());
        if self.outbox().is_overfull() {
            log::warn!("{} asks and does not read: the link is given up", self.title());
            self.outbox().close_now();
            context.stop();
        }
        // It is looked at anew in the next turn.
        self.turn.last_route = None;
        // It was read out of a block, which it would keep.
        self.turn.answered = None;
        let unknown = std::mem::take(&mut self.turn.unknown);
        if !unknown.is_empty() {
            self.look_up(unknown, context);
        }
        let asker = self.me().clone();
        for (to, requests) in self.turn.forwards.drain(..) {
            let caller = self.name.clone();
            to.addr().do_send(Forward { asker: AskerAddr::Session(asker.clone()), caller, requests });
        }
        for (to, replies) in self.turn.replies.drain(..) {
            to.send(replies);
        }
        for (to, cancelled) in self.turn.cancels.drain(..) {
            to.addr().do_send(Cancel(cancelled));
        }
        if !self.turn.events.is_empty() {
            let events = std::mem::take(&mut self.turn.events);
            self.master.router.do_send(router::Publish { from: Some(asker.id()), events });
        }
        self.note_load();
    }

    fn note_load(&self) {
        let shared = &self.me().0;
        shared.in_flight.store(self.relayed.len(), Ordering::Relaxed);
        let load = self.asked.len() + self.relayed.len();
        self.load.count.set(load);
        if load == 0 {
            self.load.idle.notify_waiters();
        }
    }

    /// Tells the branch that it is out, and why, and closes behind it.
    fn refuse(&mut self, code: Code, why: &str, may_return: bool, context: &mut Context<Self>) {
        if self.phase == Phase::Closing {
            return;
        }
        log::warn!("{} is refused: {why}", self.title());
        self.turn.own_replies.leave(self.outbox());
        self.outbox().push_always(&Frame::Refused(Refused { code, message: why.into(), may_return }));
        self.close(context);
    }

    fn broken(&mut self, error: &FrameError, context: &mut Context<Self>) {
        match error {
            FrameError::Io(_) | FrameError::Cut => {
                log::debug!("{}: the link failed: {error}", self.title());
                self.outbox().close_now();
                context.stop();
            }
            FrameError::TooLong { .. } | FrameError::Malformed(_) | FrameError::TooManyCallbacks(_) => {
                self.refuse(Code::UNKNOWN, &error.to_string(), false, context);
            }
        }
    }

    /// Writes what stands in the outbox, hears nothing more, and stops when the branch has gone or has had its time.
    fn close(&mut self, context: &mut Context<Self>) {
        self.leave();
        self.phase = Phase::Closing;
        self.outbox().close();
        context.run_later(LINGER, |_, context| context.stop());
    }

    /// Out of the registry, out of the router, and everyone who waits is told. Done once, whatever ends the session.
    fn leave(&mut self) {
        if self.me().0.gone.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.phase.is_before_bound() {
            self.master.unbound.fetch_sub(1, Ordering::Relaxed);
        }
        self.me().0.taking.store(false, Ordering::Release);
        let id = self.me().id();
        #[expect(clippy::disallowed_methods, reason = "bounded to one: a session leaves once")]
        {
            self.master.registry.do_send(registry::Leave(id));
            self.master.router.do_send(router::Leave(id));
        }
        let lost = CallError::new(
            Code::PROVIDER_LOST,
            Fate::Unknown,
            format!("{} went away before it replied", self.name),
        );
        self.early.clear();
        // Nobody waits for what has not left yet.
        self.turn.forwards.clear();
        for (_, asker) in self.relayed.take_all() {
            match asker {
                Asker::There(asker) => asker.address.send(vec![(asker.callback_id, Err(lost.clone()))]),
                Asker::Here(reply) => {
                    let _ = reply.send(Err(lost.clone()));
                }
            }
        }
        self.outbox().lent().release_all();
        for (_, asked) in self.asked.take_all() {
            if let Asked::Relayed { to, callback_id } = asked {
                #[expect(clippy::disallowed_methods, reason = "bounded by the requests in flight")]
                to.addr().do_send(Cancel(vec![callback_id]));
            }
        }
        self.answering.cancel_all();
        self.note_load();
    }

    fn title(&self) -> String {
        if self.name.is_empty() { self.peer.clone() } else { format!("{} ({})", self.name, self.peer) }
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let config = &self.master.config;
        // A branch reads whatever the protocol allows.
        let outbox = Outbox::new(FRAME_LEN_MAX);
        self.handle = Some(SessionHandle(Arc::new(Shared {
            id: self.master.next_session(),
            name: OnceLock::new(),
            peer: self.peer.clone(),
            address: context.address(),
            outbox: outbox.clone(),
            next_id: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            in_flight_max: config.in_flight_max,
            invoking: AtomicUsize::new(0),
            taking: AtomicBool::new(true),
            gone: AtomicBool::new(false),
        })));
        let Some(link) = self.link.take() else {
            return context.stop();
        };
        let (read, write) = tokio::io::split(link);
        let codec = SessionCodec {
            codec: FrameCodec::unbound(),
            raise: Rc::clone(&self.raise_frame_len),
            frame_len_max: config.frame_len_max,
        };
        // One turn: other sessions copy what is forwarded to them into their outboxes.
        let blocks = FramedRead::with_capacity(read, codec, READ_BUFFER_LEN_START);
        context.add_stream(OnWake::new(Paced::new(blocks, 1)));
        self.writer = Some(actix_rt::spawn(async move {
            if let Err(error) = outbox.write_to(write).await {
                log::debug!("a link cannot be written to: {error}");
            }
        }));
        self.bind_alarm = context.run_later(config.bind_within, |this, context| {
            if this.phase.is_before_bound() {
                this.refuse(Code::BIND_TIMEOUT, "the connection did not bind in time", true, context);
            }
        });
        let heartbeat = config.heartbeat;
        run_interval(context, heartbeat, move |this: &mut Self, context| {
            if this.heard.elapsed() >= heartbeat * HEARTBEATS_MISSED_MAX && this.phase != Phase::Closing {
                log::warn!("{} is silent: the link is given up", this.title());
                this.outbox().close_now();
                context.stop();
            }
            this.outbox().shrink();
        });
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.leave();
        self.outbox().close();
        if let Some(mut writer) = self.writer.take() {
            // At the end of a process there is nothing left to write with.
            if tokio::runtime::Handle::try_current().is_err() {
                return writer.abort();
            }
            // What stands in the outbox may still leave, as long as the peer takes it.
            actix_rt::spawn(async move {
                if tokio::time::timeout(LINGER, &mut writer).await.is_err() {
                    writer.abort();
                }
            });
        }
    }
}

impl StreamHandler<Result<Block, FrameError>> for SessionActor {
    fn handle(&mut self, block: Result<Block, FrameError>, context: &mut Context<Self>) {
        match block {
            Ok(block) => self.inbound(block, context),
            Err(error) => self.broken(&error, context),
        }
    }

    fn finished(&mut self, context: &mut Context<Self>) {
        // A broken stream ends too, and its refusal is still on its way out.
        if self.phase != Phase::Closing {
            self.outbox().close_now();
            context.stop();
        }
    }
}

impl Handler<Forward> for SessionActor {
    type Result = ();

    fn handle(&mut self, forward: Forward, _: &mut Context<Self>) {
        if self.phase == Phase::Binding {
            self.early.push(forward);
        } else {
            self.forward(forward);
        }
    }
}

impl SessionActor {
    fn forward(&mut self, mut forward: Forward) {
        let now = Instant::now();
        let mut refused = Vec::new();
        let outbox = self.outbox().clone();
        let mut held = outbox.hold();
        let asker = Rc::new(forward.asker.clone());
        // What each of them changes, and what they have in common.
        let mut request = Request {
            callback_id: CallbackId(0),
            action: ByteString::new(),
            node: ByteString::new(),
            caller: forward.caller.clone(),
            time_left: None,
            payload: Payload::default(),
        };
        for forwarded in std::mem::take(&mut forward.requests) {
            let asked_as = forwarded.asked_as;
            if let Err(error) = self.relay(forwarded, &asker, &mut request, &mut held, now) {
                refused.push((asked_as, Err(error)));
            }
        }
        drop(held);
        if !refused.is_empty() {
            forward.asker.send(refused);
        }
        self.note_load();
    }

    fn relay(
        &mut self,
        forwarded: Forwarded,
        asker: &Rc<AskerAddr>,
        request: &mut Request,
        held: &mut Held<'_>,
        now: Instant,
    ) -> Result<(), CallError> {
        let Forwarded { asked_as, callback_id, action, deadline, payload } = forwarded;
        let not_sent = |code, why: String| Err(CallError::new(code, Fate::NotSent, why));
        if self.phase != Phase::Bound {
            return match self.phase {
                Phase::Draining => not_sent(Code::DRAINING, format!("{} is draining", self.name)),
                _ => not_sent(Code::PROVIDER_LOST, format!("{} went away", self.name)),
            };
        }
        let time_left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        if time_left.is_some_and(|time_left| time_left.is_zero()) {
            return not_sent(Code::REQUEST_TIMEOUT, "the deadline passed on the way".to_owned());
        }
        // Whoever sent it has looked already, and so has everyone else whose request came at the same time.
        let max = self.master.config.in_flight_max;
        if self.relayed.len() >= max {
            let what = format!("{max} requests to {} are in flight already", self.name);
            return not_sent(Code::OVERLOADED, what);
        }
        (request.callback_id, request.action) = (callback_id, action);
        (request.time_left, request.payload) = (time_left, payload);
        match held.push(&*request) {
            Ok(()) => {
                self.relayed.insert(
                    callback_id,
                    Asker::There(AskerOf { address: Rc::clone(asker), callback_id: asked_as }),
                    None,
                );
                Ok(())
            }
            Err(Refusal::Full) => not_sent(Code::OVERLOADED, format!("the outbox of {} is full", self.name)),
            Err(Refusal::Closed) => not_sent(Code::PROVIDER_LOST, format!("{} went away", self.name)),
            Err(Refusal::TooMuchLent) => not_sent(Code::OVERLOADED, too_much_lent()),
            Err(Refusal::TooLong { len, max }) => not_sent(Code::FRAME_TOO_LARGE, too_long(len, max)),
        }
    }
}

impl Handler<Replies> for SessionActor {
    type Result = ();

    fn handle(&mut self, Replies(replies): Replies, _: &mut Context<Self>) {
        let outbox = self.outbox().clone();
        let mut held = outbox.hold();
        for (callback_id, outcome) in replies {
            if self.asked.remove(callback_id).is_some() {
                held.push_response(&Response { callback_id, outcome });
            }
        }
        drop(held);
        self.note_load();
    }
}

impl Handler<Cancel> for SessionActor {
    type Result = ();

    fn handle(&mut self, Cancel(cancelled): Cancel, _: &mut Context<Self>) {
        for callback_id in cancelled {
            if self.relayed.settle(callback_id).is_some() {
                self.outbox().push_always(&Frame::Cancel(callback_id));
            }
        }
        self.note_load();
    }
}

impl Handler<Invoke> for SessionActor {
    type Result = ();

    fn handle(&mut self, invoke: Invoke, _: &mut Context<Self>) {
        self.me().0.invoking.fetch_sub(1, Ordering::Relaxed);
        let Invoke { function, callback_id, invocation, reply } = invoke;
        let Invocation { arguments: payload, within: time_left, wants } = invocation;
        let max = self.master.config.in_flight_max;
        let refused = if matches!(self.phase, Phase::Closing) || self.me().is_gone() {
            Some(gone("the branch that lent it went away"))
        } else if self.relayed.len() >= max {
            let what = format!("{max} requests to {} are in flight already", self.name);
            Some(CallError::new(Code::OVERLOADED, Fate::NotSent, what))
        } else {
            let waits = reply.is_some().then_some(callback_id);
            let frame = meshwork_wire::Invoke { function, callback_id: waits, time_left, wants, payload };
            let not_said = |refusal| match refusal {
                Refusal::Full => CallError::new(Code::OVERLOADED, Fate::NotSent, "the outbox is full"),
                Refusal::Closed => gone("the branch that lent it went away"),
                Refusal::TooMuchLent => CallError::new(Code::OVERLOADED, Fate::NotSent, too_much_lent()),
                Refusal::TooLong { len, max } => {
                    CallError::new(Code::FRAME_TOO_LARGE, Fate::NotSent, too_long(len, max))
                }
            };
            self.outbox().push(&Frame::Invoke(frame)).err().map(not_said)
        };
        match (refused, reply) {
            (Some(error), Some(reply)) => {
                let _ = reply.send(Err(error));
            }
            (Some(error), None) => log::debug!("a callback was not called: {error}"),
            (None, Some(reply)) => {
                self.relayed.insert(callback_id, Asker::Here(reply), None);
            }
            (None, None) => {}
        }
        self.note_load();
    }
}

impl Handler<Release> for SessionActor {
    type Result = ();

    fn handle(&mut self, Release(function): Release, _: &mut Context<Self>) {
        if self.phase != Phase::Closing {
            self.outbox().push_always(&Frame::Release(function));
        }
    }
}

impl Handler<Evict> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: Evict, context: &mut Context<Self>) {
        self.refuse(Code::BIND_ERROR, "another branch has bound under this name", false, context);
    }
}

impl Handler<Drain> for SessionActor {
    type Result = ResponseActFuture<Self, Drained>;

    fn handle(&mut self, Drain { within }: Drain, _: &mut Context<Self>) -> Self::Result {
        let handle = self.me();
        handle.0.taking.store(false, Ordering::Release);
        if self.phase == Phase::Bound {
            self.phase = Phase::Draining;
            self.outbox().push_always(&Frame::Drain);
        }
        self.note_load();
        let before = (self.asked.len() + self.answering.len()) as u64;
        let (load, answered) = (Rc::clone(&self.load), self.answering.idle());
        let settled = async move {
            loop {
                let notified = load.idle.notified();
                if load.count.get() == 0 {
                    break;
                }
                notified.await;
            }
            answered.await;
        };
        let waiting = async move {
            // Whether they settled in time shows in what is left.
            let _ = tokio::time::timeout(within, settled).await;
        };
        Box::pin(waiting.into_actor(self).map(move |(), this, _| {
            let abandoned = (this.asked.len() + this.answering.len()) as u64;
            Drained { finished: before.saturating_sub(abandoned), abandoned }
        }))
    }
}

impl Handler<Close> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: Close, context: &mut Context<Self>) {
        if self.phase == Phase::Closing {
            return;
        }
        let error = CallError::new(Code::DRAINING, Fate::Unknown, "the master ended before the reply came");
        for callback_id in self.asked.ids() {
            self.reply(callback_id, Err(error.clone()));
        }
        self.close(context);
    }
}

impl SessionHandle {
    pub(crate) fn id(&self) -> SessionId {
        self.0.id
    }

    pub(crate) fn peer(&self) -> &str {
        &self.0.peer
    }

    pub(crate) fn addr(&self) -> &Addr<SessionActor> {
        &self.0.address
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// Draws an id for a request to this session, never twice.
    pub(crate) fn next_id(&self) -> CallbackId {
        CallbackId(self.0.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes the place of one call of a function in the mailbox; whoever handles it gives it back.
    pub(crate) fn begin_invoke(&self) -> Result<(), CallError> {
        let max = self.0.in_flight_max;
        if self.0.invoking.fetch_add(1, Ordering::Relaxed) < max {
            return Ok(());
        }
        self.0.invoking.fetch_sub(1, Ordering::Relaxed);
        let what = format!("{max} calls of callbacks are before it already");
        Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Acquire)
    }
}

impl Provider for SessionHandle {
    fn id(&self) -> SessionId {
        self.0.id
    }

    fn name(&self) -> &str {
        self.0.name.get().map_or("", |name| name)
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    fn is_taking(&self) -> bool {
        !self.is_gone() && self.0.taking.load(Ordering::Acquire)
    }

    fn has_room(&self) -> bool {
        self.in_flight() < self.0.in_flight_max && self.0.outbox.has_room_for_requests()
    }

    fn is_leaving(&self) -> bool {
        !self.0.outbox.is_open()
    }
}

impl AskerAddr {
    /// Tells the asker. If it is gone, nobody waits.
    #[expect(clippy::disallowed_methods, reason = "bounded by the requests that the asker has in flight")]
    pub(crate) fn send(&self, replies: Vec<(CallbackId, Outcome)>) {
        match self {
            AskerAddr::Session(session) => session.addr().do_send(Replies(replies)),
            AskerAddr::Master(master) => master.do_send(Replies(replies)),
        }
    }

    fn is(&self, other: &AskerAddr) -> bool {
        match (self, other) {
            (AskerAddr::Session(one), AskerAddr::Session(other)) => one.id() == other.id(),
            (AskerAddr::Master(_), AskerAddr::Master(_)) => true,
            _ => false,
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let gone =
            CallError::new(Code::PROVIDER_LOST, Fate::NotSent, "the node went away before it was asked");
        self.asker
            .send(self.requests.drain(..).map(|request| (request.asked_as, Err(gone.clone()))).collect());
    }
}

impl Decoder for SessionCodec {
    type Item = Block;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        if self.raise.take() {
            self.codec.set_frame_len_max(self.frame_len_max);
        }
        self.codec.decode(buffer)
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        self.codec.decode_eof(buffer)
    }
}

/// The place of one request to registry or router; dropping it gives it back.
struct PendingPlace(Rc<Cell<usize>>);

impl Drop for PendingPlace {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Adds to the batch of whoever `is` it, which begins with the handle that `share` gives; gives that handle. A batch that
/// begins makes room for as many items as may follow, so that it never grows.
pub(crate) fn push_to<To, T>(
    batches: &mut Batches<To, T>,
    is: impl Fn(&To) -> bool,
    share: impl FnOnce() -> Rc<To>,
    item: T,
    may_follow: usize,
) -> &Rc<To> {
    let there = batches.iter().position(|(to, _)| is(to));
    let index = there.unwrap_or_else(|| {
        let batch = Vec::with_capacity(1 + may_follow / (1 + batches.len()));
        batches.push((share(), batch));
        batches.len() - 1
    });
    let (to, batch) = &mut batches[index];
    batch.push(item);
    to
}

/// An event: nobody could say who holds a function that came with one, so whoever writes one refuses functions.
fn without_callbacks(payload: Payload) -> Payload {
    Payload { callbacks: Callbacks::none(), ..payload }
}

fn allows(patterns: Option<&[Pattern]>, name: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(name)))
}

fn check_permit(
    permit: &Permit,
    offers: &[meshwork_wire::Offer],
    subscriptions: &[meshwork_wire::SubscriptionKey],
) -> Result<(), String> {
    for offer in offers {
        if !allows(permit.respond.as_deref(), &offer.action) {
            return Err(format!("it may not offer {:?}", offer.action));
        }
    }
    if let Some(allowed) = &permit.subscribe
        && let Some(key) = subscriptions.iter().find(|key| !allowed.contains(&key.pattern))
    {
        return Err(format!("it may not subscribe to {:?}", key.pattern.as_str()));
    }
    Ok(())
}

fn not_permitted(what: &str, name: &str) -> CallError {
    CallError::new(Code::NOT_PERMITTED, Fate::NotSent, format!("this branch may not {what} {name:?}"))
}

fn too_much_pending() -> CallError {
    CallError::new(
        Code::OVERLOADED,
        Fate::NotSent,
        format!("{PENDING_MAX} requests to the registry are unanswered"),
    )
}

/// Why a request is too long, as the caller is told.
pub(crate) fn too_long(len: usize, max: usize) -> String {
    format!("the request takes a frame of {len} bytes, and the link allows {max}")
}

/// Why nobody answers, as the caller is told.
pub(crate) fn no_provider(reason: NoProvider, action: &str, node: &str) -> CallError {
    let whose = if node.is_empty() { String::new() } else { format!(" at {node:?}") };
    match reason {
        NoProvider::None => {
            CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, format!("nobody offers {action:?}{whose}"))
        }
        NoProvider::Draining => CallError::new(
            Code::DRAINING,
            Fate::NotSent,
            format!("whoever offers {action:?}{whose} is draining"),
        ),
        NoProvider::Overloaded => {
            let what = format!("whoever offers {action:?}{whose} has no room for another request");
            CallError::new(Code::OVERLOADED, Fate::NotSent, what)
        }
    }
}

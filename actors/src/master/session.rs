//! The master's end of one link. It checks the bind, then relays: requests of its branch to whoever answers them, requests of
//! others to its branch, events to the router. A relay reads heads only; it never opens a payload.
//!
//! It takes blocks of frames from its link, [`Forward`] and [`Cancel`] from the sessions (and the master) whose requests it
//! relays, [`Replies`] from the sessions that it relayed to, [`Evict`] from the registry, [`Drain`] and [`Close`] from
//! the master. It
//! waits for no other session; what it asks of registry and router is answered past it, straight into its outbox.

mod lender;
mod state;

use super::admission::authenticate;
use super::batches::{Batches, push_to};
use super::handle::{
    Asker, Cancel, Close, Drain, Evict, Forward, Forwarded, Invoke, Release, Replies, SessionHandle,
    SessionMailboxes,
};
use super::permissions::{Authenticate, Permissions, allows, check_permissions, not_permitted};
use super::registry::route::{NoProvider, no_provider};
use super::registry::{self, Found, Providers, Route};
use super::router;
use super::surroundings::MasterShared;
use crate::answers::answering::Answering;
use crate::answers::invoked::invoked;
use crate::answers::reply_to::Replies as BlockReplies;
use crate::answers::responder::CallContext;
use crate::calls::slots::Slots;
use crate::calls::table::CallbackTable;
use crate::events::event::Event;
use crate::link::borrowed::{borrow, borrow_outcome};
use crate::link::codec::SessionCodec;
use crate::link::gathered::Gathered;
use crate::link::outbox::{Kind, Outbox, OutboxGuard};
use crate::link::refusal::{Receiver, gone};
use crate::link::{Link, writer};
use crate::node::mailboxes::Drained;
use crate::turns::on_wake::{OnWake, run_interval};
use crate::turns::paced::Paced;
use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, SpawnHandle,
    StreamHandler, WrapFuture,
};
use hashbrown::HashMap;
use lender::BranchLender;
use meshwork_wire::limits::{
    ACTIONS_PER_FRAME_MAX, CREDENTIALS_LEN_MAX, FRAME_LEN_MAX, HEARTBEATS_MISSED_MAX, LINGER,
    PROTOCOL_VERSION, READ_BUFFER_LEN_START, ROUTE_CACHE_MAX,
};
use meshwork_wire::{
    Bind, Block, Bound, ByteString, CallError, CallbackId, Callbacks, Code, Describe, Described, Fate, Frame,
    FrameError, Frames, Invocation, Next, Outcome, Pattern, Payload, Refused, Request, Response,
    check_action, check_node, check_topic,
};
use state::{Phase, Verdict};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::codec::FramedRead;

/// The master's end of one link.
pub struct SessionActor {
    master: Arc<MasterShared>,
    link: Option<Box<dyn Link>>,
    handle: Option<SessionHandle>,
    peer: String,
    /// What the branch may do, if its listener lets everyone in.
    admitted: Option<Permissions>,
    phase: Phase,
    name: ByteString,
    permissions: Permissions,
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
    relayed: CallbackTable<Waiting>,
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
    replies: Batches<Asker, (CallbackId, Outcome)>,
    cancels: Batches<SessionHandle, CallbackId>,
    /// Replies of the master's own actions.
    own_replies: Gathered,
    unknown: Vec<ByteString>,
    events: Vec<Event>,
    /// What the last request said, if the master itself was asked.
    answered: Option<CallContext>,
    /// Who answers the action of the last request.
    last_route: Option<(ByteString, arc_swap::Guard<Arc<Providers>>)>,
    /// How many frames of the block are not taken yet: the most that a batch may still grow by.
    left: usize,
}

enum Asked {
    /// The registry is asked where it goes.
    Routing,
    /// Relayed, under the id that was drawn at the other session.
    Relayed { to: Rc<SessionHandle>, callback_id: CallbackId },
}

/// Whoever waits for the branch.
enum Waiting {
    /// Another session, or the master, with its own id of a relayed request.
    There(AskerOf),
    /// Whoever called a function of the branch.
    Here(oneshot::Sender<Outcome>),
}

struct AskerOf {
    asker: Rc<Asker>,
    callback_id: CallbackId,
}

/// How much of a session is in flight, for whoever drains it.
#[derive(Default)]
struct Load {
    count: Cell<usize>,
    idle: Notify,
}

/// How many requests of one branch to registry and router may be unanswered.
const PENDING_MAX: usize = 1024;

impl SessionActor {
    pub(crate) fn new(
        master: Arc<MasterShared>,
        link: Box<dyn Link>,
        peer: String,
        admitted: Option<Permissions>,
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
            permissions: Permissions::default(),
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
        self.me().outbox()
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
                let lender = || BranchLender(self.me().clone());
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
                let message = router::Subscribe { session: self.me().clone(), keys: vec![subscribe.key] };
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
            Frame::Ping => self.outbox().say(&Frame::Pong),
            Frame::Drain => self.me().stop_taking(),
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
        self.me().set_name(self.name.clone());
        let Bind { credentials, offers, subscriptions, .. } = bind;
        let authenticating = match self.admitted.take() {
            Some(permissions) => Box::pin(async { Ok(permissions) }),
            None => {
                let (name, peer) = (self.name.clone(), self.peer.clone());
                authenticate(&self.master.config, Authenticate { name, credentials, peer })
            }
        };
        let master = Arc::clone(&self.master);
        let session = self.me().clone();
        let name = self.name.clone();
        let binding = async move {
            let permissions = authenticating.await.map_err(|why| (Code::BIND_ERROR, why, false))?;
            check_permissions(&permissions, &offers, &subscriptions)
                .map_err(|why| (Code::BIND_ERROR, why, false))?;
            let register = registry::Register {
                session: session.clone(),
                name,
                offers,
                on_taken: master.config.on_taken,
            };
            match master.registry.send(register).await {
                Ok(Ok(())) => {}
                // The old session may be one that is dead and does not know it yet.
                Ok(Err(denied @ registry::table::Denied::NameTaken(_))) => {
                    return Err((Code::BIND_ERROR, denied.to_string(), true));
                }
                Ok(Err(denied)) => return Err((Code::BIND_ERROR, denied.to_string(), false)),
                Err(_) => return Err((Code::BIND_ERROR, "the master ends".to_owned(), true)),
            }
            match master.router.send(router::Subscribe { session, keys: subscriptions }).await {
                Ok(Ok(())) => Ok(permissions),
                Ok(Err(error)) => Err((Code::BIND_ERROR, error.message().to_owned(), false)),
                Err(_) => Err((Code::BIND_ERROR, "the master ends".to_owned(), true)),
            }
        };
        context.spawn(binding.into_actor(self).map(|bound, this, context| match bound {
            // The bind deadline may have passed meanwhile.
            _ if this.phase != Phase::Binding => {}
            Ok(permissions) => this.bound(permissions, context),
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
            if !allows(self.permissions.respond.as_deref(), &offer.action) {
                return Err(not_permitted("offer", &offer.action));
            }
        }
        Ok(())
    }

    fn may_subscribe(&self, pattern: &Pattern) -> Result<(), CallError> {
        match &self.permissions.subscribe {
            Some(allowed) if !allowed.contains(pattern) => {
                Err(not_permitted("subscribe to", pattern.as_str()))
            }
            _ => Ok(()),
        }
    }

    fn bound(&mut self, permissions: Permissions, context: &mut Context<Self>) {
        self.phase = Phase::Bound;
        context.cancel_future(self.bind_alarm);
        self.permissions = permissions;
        self.master.unbound.fetch_sub(1, Ordering::Relaxed);
        self.raise_frame_len.set(true);
        let config = &self.master.config;
        self.outbox().say(&Frame::Bound(Bound {
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
        if let Err(error) = borrow(&mut request.payload, self.outbox(), || BranchLender(self.me().clone())) {
            return self.reply(callback_id, Err(error));
        }
        if self.phase == Phase::Draining {
            let error = CallError::new(Code::DRAINING, Fate::NotSent, "the master is draining");
            return self.reply(callback_id, Err(error));
        }
        if self.is_full() {
            return self.reply(callback_id, Err(self.full()));
        }
        if !allows(self.permissions.call.as_deref(), &request.action) {
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
        if let Some((action, providers)) = route
            && !providers.is_empty()
        {
            self.dispatch(request, deadline, &providers);
            self.turn.last_route = Some((action, providers));
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
    fn answer_alike(&mut self, like: &CallContext, frames: &mut Frames, context: &mut Context<Self>) {
        let Some((action, providers)) = self.turn.last_route.take() else {
            return;
        };
        while let Some(own) = providers.own() {
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
            let replies = BlockReplies::new(self.outbox(), &self.turn.own_replies, left);
            self.answering.start(own, arguments.by_ref(), like, callback_id, &replies);
        }
        self.turn.last_route = Some((action, providers));
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
    fn dispatch(&mut self, request: Request, deadline: Option<Instant>, providers: &Providers) {
        let Request { callback_id, action, node, payload, .. } = request;
        if (node.is_empty() || node == self.master.name)
            && let Some(own) = providers.own()
        {
            let context = CallContext::new(action, self.name.clone(), deadline);
            let replies = BlockReplies::new(self.outbox(), &self.turn.own_replies, self.turn.left);
            self.answering.start(own, (&payload).into(), &context, callback_id, &replies);
            self.turn.answered = Some(context);
            return;
        }
        match providers.pick(self.master.config.balance, &node) {
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
            Some(Waiting::Here(reply)) => {
                // Whoever called may have given up meanwhile.
                let _ = reply.send(outcome);
            }
            Some(Waiting::There(asker)) => {
                let reply = (asker.callback_id, outcome);
                let is = |other: &Asker| other.id == asker.asker.id;
                let share = || Rc::clone(&asker.asker);
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
        let lender = || BranchLender(self.me().clone());
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
        if check_topic(&publish.topic).is_err()
            || !allows(self.permissions.publish.as_deref(), &publish.topic)
        {
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
        if check_topic(&broadcast.topic).is_err()
            || !allows(self.permissions.publish.as_deref(), &broadcast.topic)
        {
            log::debug!("{} may not broadcast {:?}", self.name, broadcast.topic);
            return;
        }
        let meshwork_wire::Broadcast { topic, payload, .. } = broadcast;
        let event = Event { topic, publisher: self.name.clone(), payload };
        #[expect(clippy::disallowed_methods, reason = "bounded by what the link brings")]
        self.master.router.do_send(router::Broadcast { from: Some(self.me().id()), event });
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
            let described = Frame::Described(Described { callback_id, actions });
            if let Err(refusal) = outbox.push(&described, Kind::Request) {
                outbox.respond(callback_id, Err(refusal.into_error(Receiver::Caller)));
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
            outbox.respond(callback_id, outcome);
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
        self.outbox().respond(callback_id, outcome);
    }

    /// Says to the others what the turn made: one message each.
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by what is in flight: one message a block and receiver"
    )]
    fn end_turn(&mut self, context: &mut Context<Self>) {
        self.outbox().push_gathered(&self.turn.own_replies);
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
        let me = self.me().clone();
        for (to, requests) in self.turn.forwards.drain(..) {
            to.mailboxes().forward.do_send(Forward { asker: me.asker(), requests });
        }
        for (to, replies) in self.turn.replies.drain(..) {
            to.tell(replies);
        }
        for (to, cancelled) in self.turn.cancels.drain(..) {
            to.mailboxes().cancel.do_send(Cancel(cancelled));
        }
        if !self.turn.events.is_empty() {
            let events = std::mem::take(&mut self.turn.events);
            self.master.router.do_send(router::Publish { from: Some(me.id()), events });
        }
        self.note_load();
    }

    fn note_load(&self) {
        self.me().set_in_flight(self.relayed.len());
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
        self.outbox().push_gathered(&self.turn.own_replies);
        self.outbox().say(&Frame::Refused(Refused { code, message: why.into(), may_return }));
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
        if !self.me().set_gone() {
            return;
        }
        if self.phase.is_before_bound() {
            self.master.unbound.fetch_sub(1, Ordering::Relaxed);
        }
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
                Waiting::There(waiting) => {
                    waiting.asker.tell(vec![(waiting.callback_id, Err(lost.clone()))]);
                }
                Waiting::Here(reply) => {
                    let _ = reply.send(Err(lost.clone()));
                }
            }
        }
        self.outbox().lent().release_all();
        for (_, asked) in self.asked.take_all() {
            if let Asked::Relayed { to, callback_id } = asked {
                #[expect(clippy::disallowed_methods, reason = "bounded by the requests in flight")]
                to.mailboxes().cancel.do_send(Cancel(vec![callback_id]));
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
        self.handle = Some(SessionHandle::new(
            self.master.next_session(),
            self.peer.clone(),
            SessionMailboxes::of(&context.address()),
            outbox.clone(),
            config.in_flight_max,
        ));
        let Some(link) = self.link.take() else {
            return context.stop();
        };
        let (read, write) = tokio::io::split(link);
        let codec = SessionCodec::new(Rc::clone(&self.raise_frame_len), config.frame_len_max);
        // One turn: other sessions copy what is forwarded to them into their outboxes.
        let blocks = FramedRead::with_capacity(read, codec, READ_BUFFER_LEN_START);
        context.add_stream(OnWake::new(Paced::new(blocks, 1)));
        self.writer = Some(actix_rt::spawn(async move {
            if let Err(error) = writer::write_all(outbox, write).await {
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
            caller: forward.asker.name.clone(),
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
            forward.asker.tell(refused);
        }
        self.note_load();
    }

    fn relay(
        &mut self,
        forwarded: Forwarded,
        asker: &Rc<Asker>,
        request: &mut Request,
        held: &mut OutboxGuard<'_>,
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
        held.push(&*request, Kind::Request)
            .map_err(|refusal| refusal.into_error(Receiver::Provider(&self.name)))?;
        let asker = AskerOf { asker: Rc::clone(asker), callback_id: asked_as };
        self.relayed.insert(callback_id, Waiting::There(asker), None);
        Ok(())
    }
}

impl Handler<Replies> for SessionActor {
    type Result = ();

    fn handle(&mut self, Replies(replies): Replies, _: &mut Context<Self>) {
        let outbox = self.outbox().clone();
        let mut held = outbox.hold();
        for (callback_id, outcome) in replies {
            if self.asked.remove(callback_id).is_some() {
                let _ = held.push(&Response { callback_id, outcome }, Kind::Protocol);
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
                self.outbox().say(&Frame::Cancel(callback_id));
            }
        }
        self.note_load();
    }
}

impl Handler<Invoke> for SessionActor {
    type Result = ();

    fn handle(&mut self, invoke: Invoke, _: &mut Context<Self>) {
        self.me().end_invoke();
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
            let pushed = self.outbox().push(&Frame::Invoke(frame), Kind::Request);
            pushed.err().map(|refusal| refusal.into_error(Receiver::Lender))
        };
        match (refused, reply) {
            (Some(error), Some(reply)) => {
                let _ = reply.send(Err(error));
            }
            (Some(error), None) => log::debug!("a callback was not called: {error}"),
            (None, Some(reply)) => {
                self.relayed.insert(callback_id, Waiting::Here(reply), None);
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
            self.outbox().say(&Frame::Release(function));
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
        self.me().stop_taking();
        if self.phase == Phase::Bound {
            self.phase = Phase::Draining;
            self.outbox().say(&Frame::Drain);
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

/// The place of one request to registry or router; dropping it gives it back.
struct PendingPlace(Rc<Cell<usize>>);

impl Drop for PendingPlace {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// An event: nobody could say who holds a function that came with one, so whoever writes one refuses functions.
fn without_callbacks(payload: Payload) -> Payload {
    Payload { callbacks: Callbacks::none(), ..payload }
}

fn too_much_pending() -> CallError {
    CallError::new(
        Code::OVERLOADED,
        Fate::NotSent,
        format!("{PENDING_MAX} requests to the registry are unanswered"),
    )
}

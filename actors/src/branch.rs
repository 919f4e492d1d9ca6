//! A process that binds to a master. It calls, responds, subscribes and publishes over one link, and when it loses that, it
//! binds again by itself. It takes [`Flush`] and the other messages of [`crate::node`], and blocks of
//! frames from its link.
//!
//! ```text
//!            bind() ok                    link lost
//!   ───────────────────────▶  Bound  ────────────────▶  Rebinding
//!                               ▲  ◀────────────────────   │   │ refused for good
//!                               └────── bound again ───────┘   ▼
//!                                                            Closed   (also: drained, by way of Leaving without a link)
//! ```

mod establish;
mod lender;

pub use establish::BindError;

use crate::answers::answering::Answering;
use crate::answers::invoked::invoked;
use crate::answers::reply_to::{Replies, ReplyTo as _};
use crate::answers::{Action, Actions, CallContext};
use crate::calls::response::{Reply, Requests};
use crate::events::event::{Event, EventRef};
use crate::events::subscribers::Subscribers;
use crate::gateway::Dialect;
use crate::gateway::dialled::DialectDial;
use crate::link::backoff::Backoff;
use crate::link::borrowed::{borrow, borrow_outcome};
use crate::link::gathered::Gathered;
use crate::link::outbox::{Encoded, Kind, Outbox, OutboxGuard};
use crate::link::refusal::{Receiver, Refusal, gone};
use crate::link::{Address, Dial, Tcp, writer};
use crate::node::change::{Change, Status, Watcher, tell};
use crate::node::mailboxes::{
    Describe, Drain, Drained, Flush, Mailboxes, Respond, Subscribe, SubscribeTo, TakeSnapshot, Unsubscribe,
    Watch, Withdraw,
};
use crate::node::shared::{Ask, AskMany, EventPath, Invoking, Node, Submission, WhenDown};
use crate::node::snapshot::Snapshot;
use crate::turns::busy_poll::BusyPoll;
use crate::turns::on_wake::{OnWake, run_interval, run_later};
use crate::turns::paced::Paced;
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, MessageResult,
    ResponseActFuture, ResponseFuture, SpawnHandle, StreamHandler, WrapFuture,
};
use establish::{Entry, Established, establish, registers};
use futures::StreamExt;
use lender::MasterLender;
use meshwork_wire::limits::{
    BIND_WITHIN, BUSY_POLL_WITHIN, CALL_WITHIN, DIAL_WITHIN, FRAME_LEN_MAX, HEARTBEAT_EVERY_MIN,
    HEARTBEATS_MISSED_MAX, IN_FLIGHT_MAX, LINGER, PROTOCOL_VERSION, WAITING_MAX,
};
use meshwork_wire::{
    ActionDescription, Bind, Block, Broadcast, ByteString, CallError, CallbackId, Code, Fate, Frame,
    FrameError, FrameRef, Frames, Invocation, Invoke, Next, Payload, Publish, Refused, Request, Response,
    SubscriptionKey, Unregister,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A process that binds to a master. Build it, then bind it: [`BranchActor::start_bound`], or the `bind` of
/// the `meshwork` crate, which gives a handle.
pub struct BranchActor {
    name: ByteString,
    credentials: Option<ByteString>,
    dial: Arc<dyn Dial>,
    dialect: Dialect,
    address: Address,
    bind_within: Duration,
    frame_len_max: usize,
    in_flight_max: usize,
    backoff: Backoff,
    node: Arc<Node>,
    actions: Actions,
    state: State,
    /// Which link a block came over: what a lost one still brings is not heard.
    epoch: u64,
    requests: Rc<RefCell<Requests<Infallible>>>,
    /// Calls of this branch to itself that were not answered at once. They outlive the link.
    own_answering: Answering,
    /// Calls that wait for the link, at most [`WAITING_MAX`].
    waiting: VecDeque<Box<Ask>>,
    subscribers: Subscribers,
    broadcasts: Subscribers,
    watchers: Vec<Watcher>,
    submissions: Vec<Submission>,
    alarm: Option<(Instant, SpawnHandle)>,
    busy_poll: BusyPoll,
}

/// Which way a request of this branch went.
type Way = crate::calls::response::Way<Infallible>;

enum State {
    /// Not bound yet.
    New,
    /// On the way back. What changed since the bind was written is said when it is answered.
    Rebinding {
        unsaid: Vec<Frame>,
    },
    Bound(Box<BoundLink>),
    /// Drained without a link: its calls to itself are finished, and it does not bind again.
    Leaving {
        /// How many requests were answered over the link that was lost meanwhile, and how many were not.
        answered: u64,
        unanswered: u64,
        /// How many calls ended with it.
        failed: u64,
    },
    /// Ended: drained, or refused for good.
    Closed,
}

/// A link that is bound.
struct BoundLink {
    outbox: Outbox,
    heard: Instant,
    heartbeat: Duration,
    beat: SpawnHandle,
    writer: JoinHandle<()>,
    /// Requests of the master that were not answered at once.
    answering: Answering,
    /// Replies of one turn.
    replies: Gathered,
    /// The master takes no more: calls wait for the next link.
    master_drains: bool,
    /// We take no more.
    draining: bool,
}

/// What a link brings.
enum Inbound {
    Block(Block),
    /// It ended, and why.
    Lost(Option<FrameError>),
}

/// What a link of a certain epoch brings.
struct FromLink {
    epoch: u64,
    inbound: Inbound,
}

impl BranchActor {
    /// A branch that answers nothing yet and reaches its master over TCP.
    #[must_use]
    pub fn new(name: impl Into<ByteString>) -> Self {
        let name = name.into();
        let node = Node::new(name.clone());
        Self {
            requests: Rc::new(RefCell::new(Requests::new(Arc::clone(node.load())))),
            node,
            name,
            credentials: None,
            dial: Arc::new(Tcp),
            dialect: Dialect::Native,
            address: Address::from(""),
            bind_within: BIND_WITHIN,
            frame_len_max: FRAME_LEN_MAX,
            in_flight_max: IN_FLIGHT_MAX,
            backoff: Backoff::default(),
            actions: Actions::default(),
            state: State::New,
            epoch: 0,
            own_answering: Answering::new(),
            waiting: VecDeque::new(),
            subscribers: Subscribers::new(),
            broadcasts: Subscribers::new(),
            watchers: Vec::new(),
            submissions: Vec::new(),
            alarm: None,
            busy_poll: BusyPoll::new(BUSY_POLL_WITHIN),
        }
    }

    /// What it shows the master: a token, or whatever the master's check understands.
    #[must_use]
    pub fn token(mut self, token: impl Into<ByteString>) -> Self {
        self.credentials = Some(token.into());
        self
    }

    /// How it reaches its master. Default: TCP.
    #[must_use]
    pub fn dial(mut self, dial: impl Dial) -> Self {
        self.dial = Arc::new(dial);
        self
    }

    /// What its master speaks. Default: frames, as masters of meshwork do.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// How long the master has to answer a bind. Default: 2 s.
    #[must_use]
    pub fn bind_within(mut self, within: Duration) -> Self {
        self.bind_within = within;
        self
    }

    /// How long it waits before it binds again: `min` at first, doubled each time up to `max`, each longer by chance by up
    /// to as much again. Default: 50 ms and 3 s.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Backoff::new(min, max);
        self
    }

    /// How many of its calls may be in flight. Default: 65,536, or what the master allows if that is less. The next one
    /// fails at once with `OVERLOADED`.
    #[must_use]
    pub fn in_flight_max(mut self, max: usize) -> Self {
        self.in_flight_max = max;
        self.node.load().set_in_flight_max(max);
        self
    }

    /// How long the thread of this branch stays awake for what comes next, where something nearly always has come that soon.
    /// It gives way to whatever else the thread has to do, and once a round to whoever wants its processor. Default: 200 us; at most
    /// 10 ms; zero lets it sleep whenever there is nothing to do.
    #[must_use]
    pub fn busy_poll(mut self, within: Duration) -> Self {
        self.busy_poll = BusyPoll::new(within);
        self
    }

    /// Answers an action.
    ///
    /// # Panics
    ///
    /// When the name is none, or is taken: that is a mistake in the program.
    #[must_use]
    pub fn action(mut self, action: Action) -> Self {
        if let Err(refused) = self.actions.insert(action) {
            panic!("{refused}");
        }
        self
    }

    /// What handles on it share with it.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Binds to a master and starts. From then on the branch is callable, and binds again by itself when it loses its link.
    ///
    /// # Errors
    ///
    /// When the master cannot be reached, or does not let it in. It is tried once.
    pub async fn start_bound(mut self, address: impl Into<Address>) -> Result<Addr<Self>, BindError> {
        self.address = address.into();
        self.dial = Arc::new(DialectDial { dial: self.dial, dialect: self.dialect });
        let entry = self.entry();
        let established = establish(&*self.dial, &self.address, entry, DIAL_WITHIN, self.bind_within).await?;
        // The link is taken over before anyone has the address, so whoever has it finds a branch that is bound.
        Ok(Self::create(|context| {
            self.node.open(Mailboxes::of(&context.address()));
            self.bound(established, Vec::new(), context);
            self
        }))
    }

    /// What it brings into a bind, as it is now.
    fn entry(&self) -> Entry {
        let bind = Bind {
            version: PROTOCOL_VERSION,
            name: self.name.clone(),
            credentials: self.credentials.clone(),
            offers: self.actions.offers(),
            subscriptions: self.subscribers.keys().cloned().collect(),
        };
        let node = Arc::clone(&self.node);
        Entry::new(bind, self.frame_len_max, move || node.next_id())
    }

    fn bound(&mut self, established: Established, unsaid: Vec<Frame>, context: &mut Context<Self>) {
        let Established { reader, writer: write, bound, early } = established;
        self.epoch += 1;
        let epoch = self.epoch;
        // Two turns: one for the response actors, one for the callers, who read their replies.
        let inbound = OnWake::new(Paced::new(reader, 2))
            .map(|block| match block {
                Ok(block) => Inbound::Block(block),
                Err(error) => Inbound::Lost(Some(error)),
            })
            .chain(futures::stream::once(async { Inbound::Lost(None) }))
            .map(move |inbound| FromLink { epoch, inbound });
        context.add_stream(inbound);
        let outbox = Outbox::new(
            usize::try_from(bound.frame_len_max).map_or(FRAME_LEN_MAX, |max| max.min(FRAME_LEN_MAX)),
        );
        let writing = writer::write_all(outbox.clone(), write);
        let writer = actix_rt::spawn(async move {
            if let Err(error) = writing.await {
                log::debug!("the link cannot be written to: {error}");
            }
        });
        let heartbeat = Duration::from_millis(bound.heartbeat_ms).max(HEARTBEAT_EVERY_MIN);
        let beat =
            run_interval(context, heartbeat, move |this: &mut Self, context| this.beat(epoch, context));
        log::info!("{} is bound to {} at {} as {}", self.name, bound.master, self.address, bound.session);
        let in_flight_max = usize::try_from(bound.in_flight_max).unwrap_or(usize::MAX);
        self.node.load().set_in_flight_max(self.in_flight_max.min(in_flight_max));
        self.backoff.reset();
        for frame in unsaid {
            outbox.say(&frame);
        }
        self.node.set_event_path(EventPath::Link(outbox.clone()));
        self.state = State::Bound(Box::new(BoundLink {
            outbox,
            heard: Instant::now(),
            heartbeat,
            beat,
            writer,
            answering: Answering::new(),
            replies: Gathered::default(),
            master_drains: false,
            draining: false,
        }));
        let now = Instant::now();
        for frame in early {
            self.take(frame, now, context);
        }
        self.subscribers.end_run();
        for mut ask in std::mem::take(&mut self.waiting) {
            // Those whose deadline passed have been told.
            let Some(deadline) = self.requests.borrow_mut().goes(ask.callback_id(), Way::Link) else {
                continue;
            };
            ask.request.time_left =
                deadline.map(|deadline| Instant::from_std(deadline).saturating_duration_since(now));
            self.send(&ask.request);
        }
        if matches!(self.state, State::Bound(_)) {
            self.node.set_status(Status::Bound);
        }
    }

    fn beat(&mut self, epoch: u64, context: &mut Context<Self>) {
        let State::Bound(link) = &self.state else {
            return;
        };
        if epoch != self.epoch {
            return;
        }
        let silent = link.heard.elapsed();
        if silent >= link.heartbeat * HEARTBEATS_MISSED_MAX {
            log::warn!("{}: the master is silent, the link is given up", self.name);
            self.lost("the master was silent for three heartbeats", context);
        } else {
            link.outbox.shrink();
            link.outbox.say(&Frame::Ping);
        }
    }

    /// The link is lost: what went over it ends, and the branch is on its way back.
    fn lost(&mut self, why: &str, context: &mut Context<Self>) {
        let State::Bound(link) = &mut self.state else {
            return;
        };
        log::info!("{} lost its link: {why}", self.name);
        context.cancel_future(link.beat);
        link.outbox.close_now();
        link.writer.abort();
        let (draining, answered) = (link.draining, link.answering.finished());
        let unanswered = link.answering.len() as u64;
        link.answering.cancel_all();
        let gone = CallError::new(
            Code::LINK_LOST,
            Fate::Unknown,
            format!("the link was lost before the reply came: {why}"),
        );
        let failed = self.requests.borrow_mut().fail_if(|way| matches!(way, Way::Link), &gone) as u64;
        self.node.set_event_path(EventPath::Down);
        self.forget_others();
        if draining {
            // Whoever drains it hears what became of it, so it ends when that has been said.
            self.state = State::Leaving { answered, unanswered, failed };
            return;
        }
        self.state = State::Rebinding { unsaid: Vec::new() };
        self.node.set_status(Status::Rebinding);
        self.rebind_later(context);
    }

    fn rebind_later(&mut self, context: &mut Context<Self>) {
        let wait = self.backoff.next();
        log::debug!("{} binds again in {wait:?}", self.name);
        context.run_later(wait, |this, context| this.rebind(context));
    }

    fn rebind(&mut self, context: &mut Context<Self>) {
        let State::Rebinding { unsaid } = &mut self.state else {
            return;
        };
        // The bind says all there is to say now.
        unsaid.clear();
        let (dial, address, within) = (Arc::clone(&self.dial), self.address.clone(), self.bind_within);
        let entry = self.entry();
        let binding = async move { establish(&*dial, &address, entry, DIAL_WITHIN, within).await };
        context.spawn(binding.into_actor(self).map(|bound, this, context| {
            let State::Rebinding { unsaid } = &mut this.state else {
                return;
            };
            match bound {
                Ok(established) => {
                    let unsaid = std::mem::take(unsaid);
                    this.bound(established, unsaid, context);
                }
                Err(error) if error.may_return() => {
                    log::debug!("{} is not back yet: {error}", this.name);
                    this.rebind_later(context);
                }
                Err(error) => {
                    this.end(CallError::new(error.code(), Fate::NotSent, error.to_string()), context);
                }
            }
        }));
    }

    /// Ended for good: every call that waits is told, every later one too.
    fn end(&mut self, why: CallError, context: &mut Context<Self>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        log::info!("{} has ended: {why}", self.name);
        if let State::Bound(link) = &mut self.state {
            context.cancel_future(link.beat);
            link.outbox.close_now();
            link.writer.abort();
        }
        self.state = State::Closed;
        self.waiting.clear();
        {
            let mut requests = self.requests.borrow_mut();
            requests.fail_if(|way| matches!(way, Way::Waiting), &why);
            // The others had left, whatever it is that ends the branch.
            requests.fail_all(&why.clone().with_fate(Fate::Unknown));
        }
        self.own_answering.cancel_all();
        self.node.set_event_path(EventPath::Down);
        self.forget_others();
        self.node.close(why);
        context.stop();
    }

    fn forget_others(&mut self) {
        let gone = self.node.with_known(|known| {
            let nodes = known.nodes();
            known.clear();
            nodes
        });
        for news in gone {
            self.tell_watchers(&Change::Offline(news));
        }
    }

    fn tell_watchers(&mut self, change: &Change) {
        tell(&mut self.watchers, change);
    }

    fn take(&mut self, frame: Frame, now: Instant, context: &mut Context<Self>) {
        let State::Bound(link) = &mut self.state else {
            return;
        };
        match frame {
            Frame::Request(request) => self.request(request, now, None),
            Frame::Response(Response { callback_id, outcome }) => {
                let lender = || MasterLender { node: Arc::clone(&self.node), epoch: self.epoch };
                let outcome = borrow_outcome(outcome, &link.outbox, lender);
                self.requests.borrow_mut().resolve(callback_id, outcome);
            }
            Frame::Described(described) => {
                self.requests.borrow_mut().resolve_describe(described.callback_id, described.actions);
            }
            Frame::Cancel(callback_id) => {
                link.answering.cancel(callback_id);
            }
            Frame::Publish(publish) => self.event(publish, None),
            Frame::Broadcast(Broadcast { topic, publisher, payload }) => {
                self.broadcasts.deliver(&Event { topic, publisher, payload });
            }
            Frame::Online(news) => self.news(Change::Online(news)),
            Frame::Offline(news) => self.news(Change::Offline(news)),
            Frame::Ping => link.outbox.say(&Frame::Pong),
            Frame::Pong => {}
            Frame::Release(function) => link.outbox.lent().release(function),
            Frame::Invoke(invoke) => {
                let lender = || MasterLender { node: Arc::clone(&self.node), epoch: self.epoch };
                invoked(invoke, &link.outbox, lender, &link.answering, self.in_flight_max);
            }
            Frame::Drain => {
                log::info!("{}: the master drains", self.name);
                link.master_drains = true;
            }
            Frame::Refused(Refused { code, message, may_return: false }) => {
                self.end(CallError::new(code, Fate::NotSent, message), context);
            }
            Frame::Refused(Refused { message, .. }) => self.lost(&message, context),
            Frame::Bind(_)
            | Frame::Bound(_)
            | Frame::Register(_)
            | Frame::Unregister(_)
            | Frame::Describe(_)
            | Frame::Subscribe(_)
            | Frame::Unsubscribe(_) => self.lost("the master sent what only a branch may", context),
        }
    }

    /// Hands an event to its handlers, and those of the same turn that follow it and are like it.
    fn event(&mut self, publish: Publish, frames: Option<&mut Frames>) {
        let Publish { topic, publisher, for_all, groups, payload } = publish;
        let event = Event { topic, publisher, payload };
        if for_all {
            self.subscribers.deliver_next((&event).into());
        }
        for group in &groups {
            self.subscribers.deliver_to_group(group, &event);
        }
        if let Some(frames) = frames
            && for_all
            && groups.is_empty()
        {
            while let Some(payload) = frames.next_event_of_run() {
                let (topic, publisher, payload) = (&event.topic, &event.publisher, payload.by_ref());
                self.subscribers.deliver_alike(EventRef { topic, publisher, payload });
            }
        }
    }

    fn news(&mut self, change: Change) {
        self.node.with_known(|known| known.follow(&change));
        self.tell_watchers(&change);
    }

    /// Answers a request, and those of the same turn that follow it and are like it.
    fn request(&mut self, request: Request, now: Instant, frames: Option<&mut Frames>) {
        let State::Bound(link) = &self.state else {
            return;
        };
        let Request { callback_id, action, caller, time_left, mut payload, .. } = request;
        let lender = || MasterLender { node: Arc::clone(&self.node), epoch: self.epoch };
        // Also when it is refused: what came with it is given back.
        if let Err(error) = borrow(&mut payload, &link.outbox, lender) {
            return link.outbox.reply(callback_id, Err(error));
        }
        if link.draining {
            let error = CallError::new(Code::DRAINING, Fate::NotSent, format!("{} is draining", self.name));
            return link.outbox.reply(callback_id, Err(error));
        }
        let Some(own) = self.actions.find(&action) else {
            let what = format!("{} does not offer {action:?}", self.name);
            let error = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, what);
            return link.outbox.reply(callback_id, Err(error));
        };
        let deadline = time_left.and_then(|time_left| now.checked_add(time_left));
        let context = CallContext::new(action, caller, deadline);
        let replies = |left| Replies::new(&link.outbox, &link.replies, left);
        let left = frames.as_ref().map_or(0, |frames| frames.left());
        link.answering.start(own, (&payload).into(), &context, callback_id, &replies(left));
        let Some(frames) = frames else {
            return;
        };
        // Requests that come together are alike more often than not.
        loop {
            let left = frames.left().saturating_sub(1);
            let Some((callback_id, arguments)) = frames.next_request_of_run() else {
                return;
            };
            link.answering.start(own, arguments.by_ref(), &context, callback_id, &replies(left));
        }
    }

    /// What answers a request of its own at this node.
    fn own(&self, request: &Request) -> Option<&Action> {
        let is_here = request.node.is_empty() || request.node == self.name;
        self.actions.get(&request.action).filter(|_| is_here)
    }

    /// What calls over the link leave through, while they can.
    fn way_for_calls(&self) -> Option<&Outbox> {
        match &self.state {
            State::Bound(link) if !link.draining && !link.master_drains => Some(&link.outbox),
            _ => None,
        }
    }

    /// Sends a call over the link.
    fn ask_over(&self, mut ask: Box<Ask>, held: &mut OutboxGuard<'_>, now: Instant) {
        let until = ask.request.time_left.and_then(|within| now.checked_add(within)).map(Instant::into_std);
        let mut requests = self.requests.borrow_mut();
        requests.open(ask.callback_id(), Way::Link, ask.take_reply(), until);
        if let Err(refusal) = held.push(&ask.request, Kind::Request) {
            requests.resolve(ask.callback_id(), Err(not_said(refusal)));
        }
    }

    /// Sends a call on its way: own responders first, then the link.
    fn ask(&mut self, ask: Box<Ask>, now: Instant) {
        let draining = match &self.state {
            State::Bound(link) => link.draining,
            State::Leaving { .. } => true,
            State::New | State::Rebinding { .. } | State::Closed => false,
        };
        if draining {
            let error = CallError::new(Code::DRAINING, Fate::NotSent, "this branch is draining");
            return ask.refuse(&self.node, error);
        }
        let deadline = ask.request.time_left.and_then(|within| now.checked_add(within));
        let until = deadline.map(Instant::into_std);
        if let Some(own) = self.own(&ask.request) {
            let Ask { request: Request { callback_id, action, payload, .. }, reply, .. } = *ask;
            self.requests.borrow_mut().open(callback_id, Way::Here, reply, until);
            let context = CallContext::new(action, self.name.clone(), deadline);
            return self.own_answering.start(own, (&payload).into(), &context, callback_id, &self.requests);
        }
        match &self.state {
            State::Bound(link) if !link.master_drains => self.ask_over(ask, &mut link.outbox.hold(), now),
            State::Closed => {
                ask.refuse(
                    &self.node,
                    CallError::new(Code::LINK_LOST, Fate::NotSent, "the branch has ended"),
                );
            }
            State::New | State::Rebinding { .. } | State::Bound(_) | State::Leaving { .. } => {
                self.wait(ask, until)
            }
        }
    }

    /// Sends calls on their way that differ in their arguments alone: all at once if they go over the link.
    fn ask_many(&mut self, many: AskMany, now: Instant) {
        let here = self.actions.get(&many.call.action).is_some();
        let fits = |outbox: &&Outbox| !here && many.frame_len <= outbox.frame_len_max();
        let Some(outbox) = self.way_for_calls().filter(fits) else {
            return many.into_single().for_each(|ask| self.ask(Box::new(ask), now));
        };
        let AskMany { call, first, seats, frames, others, .. } = many;
        let until = call.within.and_then(|within| now.checked_add(within)).map(Instant::into_std);
        let mut requests = self.requests.borrow_mut();
        let count = seats.count() as u64;
        requests.open_part(first, seats, until);
        let mut held = outbox.hold();
        if let Err(refusal) = held.push_encoded(Encoded::copied(&frames, 0, 0), Kind::Request) {
            drop(held);
            let error = not_said(refusal);
            (0..count).for_each(|number| {
                requests.resolve_in_turn(CallbackId(first.0 + number), Err(error.clone()), 0);
            });
            return requests.end_turn();
        }
        let mut request = Request {
            callback_id: first,
            action: call.action,
            node: call.node,
            caller: ByteString::new(),
            time_left: call.within,
            payload: Payload::default(),
        };
        for (callback_id, payload) in others {
            (request.callback_id, request.payload) = (callback_id, payload);
            if let Err(refusal) = held.push(&request, Kind::Request) {
                requests.resolve(callback_id, Err(not_said(refusal)));
            }
        }
    }

    /// Calls a function at the other end of the link that it came over.
    fn invoke(&mut self, invoking: Invoking, now: Instant) {
        let link = match &self.state {
            State::Bound(link) if invoking.epoch == self.epoch => link,
            _ => return invoking.refuse(&self.node, gone("the link that it came over is lost")),
        };
        let Invoking { function, waiter, invocation: Invocation { arguments, within, wants }, .. } = invoking;
        let until = within.and_then(|within| now.checked_add(within)).map(Instant::into_std);
        let callback_id = waiter.map(|(callback_id, reply)| {
            self.requests.borrow_mut().open(callback_id, Way::Link, reply, until);
            callback_id
        });
        let frame =
            Frame::Invoke(Invoke { function, callback_id, time_left: within, wants, payload: arguments });
        if let (Err(refusal), Some(callback_id)) = (link.outbox.push(&frame, Kind::Request), callback_id) {
            self.requests.borrow_mut().resolve(callback_id, Err(not_said(refusal)));
        }
    }

    /// Gives a function back.
    fn release(&self, epoch: u64, function: CallbackId) {
        if let State::Bound(link) = &self.state
            && epoch == self.epoch
        {
            link.outbox.say(&Frame::Release(function));
        }
    }

    /// Lets a call wait for the link.
    fn wait(&mut self, mut ask: Box<Ask>, until: Option<std::time::Instant>) {
        if ask.when_down == WhenDown::Fail {
            let error = CallError::new(Code::LINK_LOST, Fate::NotSent, "the link to the master is down");
            return ask.refuse(&self.node, error);
        }
        let requests = Rc::clone(&self.requests);
        // Those whose callers gave up or were told meanwhile make room.
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.retain(|ask| requests.borrow().contains(ask.callback_id()));
        }
        if self.waiting.len() >= WAITING_MAX {
            let what = format!("{WAITING_MAX} calls wait for the link already");
            return ask.refuse(&self.node, CallError::new(Code::OVERLOADED, Fate::NotSent, what));
        }
        // The entry takes the caller over; what is kept is what to send.
        let reply = ask.take_reply();
        self.requests.borrow_mut().open(ask.callback_id(), Way::Waiting, reply, until);
        self.waiting.push_back(ask);
    }

    /// Writes a request whose entry is open.
    fn send(&mut self, request: &Request) {
        let State::Bound(link) = &self.state else {
            return;
        };
        if let Err(refusal) = link.outbox.push(request, Kind::Request) {
            self.requests.borrow_mut().resolve(request.callback_id, Err(not_said(refusal)));
        }
    }

    fn cancel(&mut self, callback_id: CallbackId) {
        let way = self.requests.borrow_mut().cancel(callback_id);
        if let Some(way) = way {
            self.stop_request(callback_id, &way);
        }
    }

    /// Nobody waits for it any more: whoever runs it is told.
    fn stop_request(&mut self, callback_id: CallbackId, way: &Way) {
        match (way, &self.state) {
            (Way::Here, _) => {
                self.own_answering.cancel(callback_id);
            }
            (Way::Link, State::Bound(link)) => link.outbox.say(&Frame::Cancel(callback_id)),
            // What it would have sent is let go, and the functions in it.
            (Way::Waiting, _) => self.waiting.retain(|ask| ask.callback_id() != callback_id),
            _ => {}
        }
    }

    fn publish(&mut self, topic: ByteString, payload: Payload) {
        let event = Event { topic, publisher: self.name.clone(), payload };
        self.subscribers.deliver(&event);
        let Event { topic, payload, .. } = event;
        let (publisher, groups) = (ByteString::new(), Vec::new());
        self.push_event(&Publish { topic, publisher, for_all: true, groups, payload });
    }

    fn push_event<'a>(&self, frame: impl Into<FrameRef<'a>>) {
        if let State::Bound(link) = &self.state {
            // What finds no room is counted; the handle waits for room before it comes here.
            let _ = link.outbox.push(frame, Kind::Event);
        }
    }

    /// Says something that the master answers: now, or with the next bind.
    fn tell_master(
        &mut self,
        frame: impl FnOnce(CallbackId) -> Frame,
        context: &mut Context<Self>,
    ) -> ResponseFuture<Result<(), CallError>> {
        let callback_id = self.node.next_id();
        match &mut self.state {
            State::Bound(link) => {
                if let Err(error) = self.node.load().take_place() {
                    return Box::pin(async move { Err(error) });
                }
                let (caller, answer) = oneshot::channel();
                let deadline = Instant::now() + CALL_WITHIN;
                if let Err(refusal) = link.outbox.push(&frame(callback_id), Kind::Request) {
                    self.node.load().settled();
                    return Box::pin(async move { Err(not_said(refusal)) });
                }
                let mut requests = self.requests.borrow_mut();
                requests.open(callback_id, Way::Link, Reply::Call(caller), Some(deadline.into_std()));
                drop(requests);
                self.set_alarm(context);
                Box::pin(async move { answer.await.unwrap_or_else(|_| Err(ended())).map(drop) })
            }
            State::Rebinding { unsaid } => {
                // Bounded by the actions and patterns that a node may have.
                unsaid.push(frame(callback_id));
                Box::pin(async { Ok(()) })
            }
            State::New | State::Leaving { .. } | State::Closed => Box::pin(async { Err(ended()) }),
        }
    }

    /// One timer for all deadlines: it is set for the first, and for the next one when it has rung.
    fn set_alarm(&mut self, context: &mut Context<Self>) {
        let Some(next) = self.requests.borrow_mut().next_deadline().map(Instant::from_std) else {
            return;
        };
        if let Some((set_for, alarm)) = &self.alarm {
            if *set_for <= next {
                return;
            }
            context.cancel_future(*alarm);
        }
        let after = next.saturating_duration_since(Instant::now());
        let alarm = run_later(context, after, |this: &mut Self, context| {
            this.alarm = None;
            let now = Instant::now().into_std();
            loop {
                let expired = this.requests.borrow_mut().expire(now);
                let Some((callback_id, way)) = expired else {
                    break;
                };
                this.stop_request(callback_id, &way);
            }
            this.set_alarm(context);
        });
        self.alarm = Some((next, alarm));
    }
}

/// Why a request did not go over the link.
fn not_said(refusal: Refusal) -> CallError {
    refusal.into_error(Receiver::Master)
}

fn ended() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::NotSent, "the branch has ended")
}

impl Actor for BranchActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if matches!(self.state, State::New) {
            // Started without a bind: there is no master to look for.
            self.end(
                CallError::new(Code::BIND_ERROR, Fate::NotSent, "a branch is started by binding it"),
                context,
            );
        }
    }

    fn stopped(&mut self, context: &mut Context<Self>) {
        self.end(ended(), context);
    }
}

impl StreamHandler<FromLink> for BranchActor {
    fn handle(&mut self, FromLink { epoch, inbound }: FromLink, context: &mut Context<Self>) {
        if epoch != self.epoch {
            return;
        }
        let State::Bound(link) = &mut self.state else {
            return;
        };
        match inbound {
            Inbound::Block(block) => {
                let now = Instant::now();
                link.heard = now;
                if !block.is_beat() {
                    self.busy_poll.heard();
                }
                let mut frames = block.frames();
                while matches!(self.state, State::Bound(_)) {
                    let left = frames.left().saturating_sub(1);
                    match frames.read_next() {
                        Some(Next::Reply { callback_id, payload }) => {
                            let mut requests = self.requests.borrow_mut();
                            requests.resolve_in_turn(callback_id, Ok(payload.share()), left);
                        }
                        Some(Next::Request(request)) => self.request(request, now, Some(&mut frames)),
                        Some(Next::Event(event)) => self.event(event, Some(&mut frames)),
                        Some(Next::Other(frame)) => self.take(frame, now, context),
                        Some(Next::Broken(error)) => self.lost(&error.to_string(), context),
                        None => break,
                    }
                }
                self.requests.borrow_mut().end_turn();
                self.subscribers.end_run();
                if let State::Bound(link) = &self.state {
                    link.outbox.push_gathered(&link.replies);
                    if link.outbox.is_overfull() {
                        self.lost("the master asks and does not read", context);
                    }
                }
            }
            Inbound::Lost(Some(error)) => self.lost(&error.to_string(), context),
            Inbound::Lost(None) => self.lost("the master closed it", context),
        }
    }

    fn finished(&mut self, _: &mut Context<Self>) {
        // A link that ended has said so; the actor outlives it.
    }
}

impl Handler<Flush> for BranchActor {
    type Result = ();

    fn handle(&mut self, _: Flush, context: &mut Context<Self>) {
        let now = Instant::now();
        let mut submissions = std::mem::take(&mut self.submissions);
        self.node.take_submissions(&mut submissions);
        let asks = submissions.iter().any(Submission::asks);
        let outbox = self.way_for_calls().cloned();
        // Most of what is submitted are calls over the link: its outbox is held for as many as follow each other.
        let mut held = None;
        for submission in submissions.drain(..) {
            let submission = match (submission, &outbox) {
                (Submission::Ask(ask), Some(outbox)) if self.own(&ask.request).is_none() => {
                    self.ask_over(ask, held.get_or_insert_with(|| outbox.hold()), now);
                    continue;
                }
                (submission, _) => submission,
            };
            held = None;
            match submission {
                Submission::Ask(ask) => self.ask(ask, now),
                Submission::AskMany(many) => self.ask_many(*many, now),
                Submission::Cancel(callback_id) => self.cancel(callback_id),
                Submission::Invoke(invoking) => self.invoke(*invoking, now),
                Submission::Release { epoch, function } => self.release(epoch, function),
                Submission::Publish { topic, payload } => self.publish(topic, payload),
                Submission::Broadcast { topic, payload } => {
                    self.push_event(&Frame::Broadcast(Broadcast {
                        topic,
                        publisher: ByteString::new(),
                        payload,
                    }));
                }
            }
        }
        drop(held);
        if asks {
            self.busy_poll.asked();
        }
        self.submissions = submissions;
        self.set_alarm(context);
    }
}

impl Handler<Subscribe> for BranchActor {
    type Result = ResponseActFuture<Self, Result<(), CallError>>;

    fn handle(
        &mut self,
        Subscribe { id, to, subscriber }: Subscribe,
        context: &mut Context<Self>,
    ) -> Self::Result {
        let telling = match to {
            SubscribeTo::Broadcasts(pattern) => {
                self.broadcasts.insert(id, SubscriptionKey { pattern, group: None }, subscriber);
                None
            }
            SubscribeTo::Topics(key) => {
                // Told each time, not only for the first handler of a key: the answer says that the master has it now.
                self.subscribers.insert(id, key.clone(), subscriber);
                let say = |callback_id| Frame::Subscribe(meshwork_wire::Subscribe { callback_id, key });
                Some(self.tell_master(say, context))
            }
        };
        let told = async move {
            match telling {
                Some(telling) => telling.await,
                None => Ok(()),
            }
        };
        Box::pin(told.into_actor(self).map(move |told, this, _| match told {
            // A link that was lost meanwhile carries the subscription into the next bind.
            Ok(()) => Ok(()),
            Err(error) if error.code() == Code::LINK_LOST && this.may_return() => Ok(()),
            Err(error) => {
                this.subscribers.remove(id);
                Err(error)
            }
        }))
    }
}

impl Handler<Unsubscribe> for BranchActor {
    type Result = ();

    fn handle(&mut self, Unsubscribe(id): Unsubscribe, _: &mut Context<Self>) {
        self.broadcasts.remove(id);
        if let Some(key) = self.subscribers.remove(id) {
            let frame = Frame::Unsubscribe(key);
            match &mut self.state {
                State::Bound(link) => link.outbox.say(&frame),
                State::Rebinding { unsaid } => unsaid.push(frame),
                State::New | State::Leaving { .. } | State::Closed => {}
            }
        }
    }
}

impl Handler<Respond> for BranchActor {
    type Result = ResponseActFuture<Self, Result<(), CallError>>;

    fn handle(&mut self, Respond(actions): Respond, context: &mut Context<Self>) -> Self::Result {
        let offers = actions.offers();
        let names: Vec<_> = offers.iter().map(|offer| offer.action.clone()).collect();
        let mut telling = Vec::new();
        let extended = self.actions.extend(actions);
        if extended.is_ok() {
            let node = Arc::clone(&self.node);
            for register in registers(offers, &|| node.next_id()) {
                let offers = register.offers;
                let say = |callback_id| Frame::Register(meshwork_wire::Register { callback_id, offers });
                telling.push(self.tell_master(say, context));
            }
        }
        let told = async move {
            extended?;
            for told in futures::future::join_all(telling).await {
                told?;
            }
            Ok(())
        };
        Box::pin(told.into_actor(self).map(move |told: Result<(), CallError>, this, _| match told {
            // A link that was lost meanwhile carries the actions into the next bind.
            Err(error) if error.code() == Code::LINK_LOST && this.may_return() => Ok(()),
            Err(error)
                if [Code::NOT_PERMITTED, Code::OVERLOADED, Code::FRAME_TOO_LARGE].contains(&error.code()) =>
            {
                for name in names {
                    this.actions.remove(&name);
                }
                Err(error)
            }
            told => told,
        }))
    }
}

impl Handler<Withdraw> for BranchActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, Withdraw(actions): Withdraw, context: &mut Context<Self>) -> Self::Result {
        for action in &actions {
            self.actions.remove(action);
        }
        self.tell_master(|callback_id| Frame::Unregister(Unregister { callback_id, actions }), context)
    }
}

impl Handler<Describe> for BranchActor {
    type Result = ResponseFuture<Result<Vec<ActionDescription>, CallError>>;

    fn handle(
        &mut self,
        Describe { pattern, within }: Describe,
        context: &mut Context<Self>,
    ) -> Self::Result {
        let State::Bound(link) = &self.state else {
            let down = CallError::new(Code::LINK_LOST, Fate::NotSent, "the link to the master is down");
            return Box::pin(async move { Err(down) });
        };
        if let Err(error) = self.node.load().take_place() {
            return Box::pin(async move { Err(error) });
        }
        let callback_id = self.node.next_id();
        let (caller, answer) = oneshot::channel();
        let deadline = Instant::now() + within;
        link.outbox.say(&Frame::Describe(meshwork_wire::Describe { callback_id, pattern }));
        let mut requests = self.requests.borrow_mut();
        requests.open(callback_id, Way::Link, Reply::Describe(caller), Some(deadline.into_std()));
        drop(requests);
        self.set_alarm(context);
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(ended())) })
    }
}

impl Handler<Watch> for BranchActor {
    type Result = ();

    fn handle(&mut self, Watch(watcher): Watch, _: &mut Context<Self>) {
        self.watchers.push(watcher);
    }
}

impl Handler<TakeSnapshot> for BranchActor {
    type Result = MessageResult<TakeSnapshot>;

    fn handle(&mut self, _: TakeSnapshot, _: &mut Context<Self>) -> Self::Result {
        let (answering, dropped, lent, borrowed) = match &self.state {
            State::Bound(link) => {
                let lent = link.outbox.lent();
                (link.answering.len(), link.outbox.dropped(), lent.len(), lent.borrowed())
            }
            _ => (0, 0, 0, 0),
        };
        MessageResult(Snapshot {
            name: self.name.clone(),
            calls_in_flight: self.requests.borrow().len(),
            calls_waiting: self
                .waiting
                .iter()
                .filter(|ask| self.requests.borrow().contains(ask.callback_id()))
                .count(),
            answering: answering + self.own_answering.len(),
            own_actions: self.actions.len(),
            actions: self.node.with_known(|known| known.action_count()),
            subscriptions: self.subscribers.len() + self.broadcasts.len(),
            events_dropped: dropped + self.subscribers.dropped() + self.broadcasts.dropped(),
            callbacks_lent: lent,
            callbacks_borrowed: borrowed,
            sessions: Vec::new(),
        })
    }
}

impl Handler<Drain> for BranchActor {
    type Result = ResponseActFuture<Self, Drained>;

    fn handle(&mut self, Drain { within }: Drain, _: &mut Context<Self>) -> Self::Result {
        self.node.set_status(Status::Draining);
        let mut never_left = 0;
        if let State::Rebinding { .. } = &self.state {
            self.state = State::Leaving { answered: 0, unanswered: 0, failed: 0 };
            self.waiting.clear();
            let why =
                CallError::new(Code::DRAINING, Fate::NotSent, "this branch drains, and its link is down");
            never_left = self.requests.borrow_mut().fail_if(|way| matches!(way, Way::Waiting), &why) as u64;
        }
        let finished_before = self.answered();
        let own = self.requests.borrow().len() as u64;
        let requested = match &mut self.state {
            State::Bound(link) => {
                link.draining = true;
                link.outbox.say(&Frame::Drain);
                Some(link.answering.idle())
            }
            _ => None,
        };
        let node = Arc::clone(&self.node);
        let settled = async move {
            if let Some(requested) = requested {
                requested.await;
            }
            node.load().idle().await;
        };
        let waiting = async move {
            // Whether they settled in time shows in what is left.
            let _ = tokio::time::timeout(within, settled).await;
        };
        Box::pin(waiting.into_actor(self).then(move |(), this, _| {
            let finished = this.answered() - finished_before;
            let (unanswered, failed) = match &this.state {
                State::Bound(link) => (link.answering.len() as u64, 0),
                State::Leaving { unanswered, failed, .. } => (*unanswered, *failed),
                _ => (0, 0),
            };
            let unsettled = this.requests.borrow().len() as u64;
            let drained = Drained {
                finished: finished + own.saturating_sub(unsettled + failed),
                abandoned: never_left + unanswered + unsettled + failed,
            };
            // The last replies leave before the link closes.
            let last = match &mut this.state {
                State::Bound(link) => {
                    link.answering.cancel_all();
                    link.outbox.close();
                    let writer = std::mem::replace(&mut link.writer, actix_rt::spawn(async {}));
                    Some(writer)
                }
                _ => None,
            };
            let flushed = async move {
                if let Some(writer) = last {
                    let _ = tokio::time::timeout(LINGER, writer).await;
                }
            };
            flushed.into_actor(this).map(move |(), this, context| {
                this.end(CallError::new(Code::DRAINING, Fate::NotSent, "the branch has drained"), context);
                drained
            })
        }))
    }
}

impl BranchActor {
    /// Whether it is bound, or on its way back.
    fn may_return(&self) -> bool {
        matches!(self.state, State::Bound(_) | State::Rebinding { .. })
    }

    /// How many requests that were not answered at once have been answered over this link.
    fn answered(&self) -> u64 {
        match &self.state {
            State::Bound(link) => link.answering.finished(),
            State::Leaving { answered, .. } => *answered,
            _ => 0,
        }
    }
}

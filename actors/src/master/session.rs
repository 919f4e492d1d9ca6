//! A session: the master's end of one link. It checks the bind, then relays: requests of its branch to the nodes that answer them,
//! requests of other nodes to its branch, events to the router. It reads heads only, and never opens a payload. The [`Relay`] decides,
//! without an actor or a clock; the session actor carries out its decisions.
//!
//! It takes blocks of frames from its link, [`Forward`] and [`Cancel`] from the sessions (and the master) whose requests it
//! relays, [`Replies`] from the sessions that it relayed to, [`Evict`] from the registry, [`Release`], [`Drain`] and [`Close`] from
//! the master. It waits for no other session; the answers of registry and router to its branch go straight into its outbox.

mod admission;
mod held;
#[cfg(any(test, fuzzing))]
pub mod model;
mod pending;
mod relay;
mod state;
mod streams;

use super::dispatch::KeptLen;
use super::forwarded::{Caller, Forwarded, Part, Replied, Target};
use super::handle::{
    Cancel, Close, Drain, Evict, Flow, Forward, Grants, Reconsider, Release, Replies, ReplyMailbox,
    SessionHandle, Turned,
};
use super::passing::Passed;
use super::permissions::{LetsIn, Permissions, Verb};
use super::registry::route::Provider as _;
use super::registry::{self, Found};
use super::rest::{RestBounds, Verdict};
use super::router;
use super::standing::{Standing, Unsettled, reconsider};
use super::surroundings::MasterShared;
use crate::answers::Action;
use crate::answers::answering::Answering;
use crate::answers::invoked::{LentCall, answer_call, find_lent};
use crate::answers::reply_to::{BlockReplies, ReplyTo};
use crate::answers::responder::{CallContext, RunContext};
use crate::events::event::Event;
use crate::link::borrowed::{borrow, borrow_outcome, borrowed_over};
use crate::link::codec::SessionCodec;
use crate::link::door::{Entered, Place};
use crate::link::gathered::GatheredReplies;
use crate::link::outbox::{Kind, Outbox, OutboxGuard, Turn};
use crate::link::pulse::Pulse;
use crate::link::refusal::{Receiver, Refusal};
use crate::link::{Accepted, Handshake, Link, TlsFault, writer};
use crate::log_line;
#[cfg(feature = "testing")]
use crate::node::census::{Census, TakeCensus};
use crate::node::lender::NodeLender;
use crate::node::mailboxes::Drained;
use crate::node::reading::source_of;
use crate::turns::credit::{Charge, Credit};
use crate::turns::on_wake::{OnWake, run_interval};
use crate::turns::paced::Paced;
use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, ResponseFuture,
    SpawnHandle, StreamHandler, WrapFuture,
};
use admission::{BindRefused, Extension, admit, check_bind, check_count, check_key, check_offers, say_bound};
use futures::FutureExt as _;
use held::{InLayers, LeaveLayers, LetPass, Visit};
use meshwork_wire::limits::{
    BIND_FRAME_LEN_MAX, FRAME_LEN_MAX, HEARTBEATS_MISSED_MAX, LINGER, NAME_LEN_MAX, PARTING_WITHIN,
    READ_BUFFER_LEN_START,
};
use meshwork_wire::{
    Bind, Block, ByteString, CallError, CallbackId, Callbacks, Code, ExtendedBind, Fate, Features,
    FindProviders, Frame, FrameError, Frames, Function, Grant, Headers, Invocation, Invoke, Item, Kept,
    NameError, Next, OpenStream, Outcome, Pattern, Payload, Refused, Request, Response, SessionId,
    SubscribeToLast, Wants, check_action, check_labels, check_topic,
};
use pending::Pending;
use relay::{Cancelled, Decision, Heard, InUse, Invoking, OwnRequest, Relay};
use state::{Legality, Phase};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::codec::FramedRead;

/// A session: the master's end of one link.
pub struct SessionActor {
    master: Arc<MasterShared>,
    /// None when the branch is bound.
    arrival: Option<Box<Arrival>>,
    handle: Option<SessionHandle>,
    /// The identity of the branch, which its handle has too; none where the master tells branches apart by nothing: they may do everything.
    standing: Option<Arc<Standing>>,
    /// When the link last brought a block, or another sign of life.
    heard: Instant,
    relay: Relay<SessionHandle, ReplyMailbox>,
    /// Requests of this branch that the master itself answers.
    answering: Answering,
    /// Requests of this branch that registry and router answer.
    pending: Pending,
    in_flight: Rc<InFlight>,
    /// Requests of this branch that are in the layers of the master; none where it has no layers.
    in_layers: Option<Box<InLayers>>,
    writer: Option<JoinHandle<()>>,
    block: BlockState,
}

/// The state of a session that is needed until its branch is bound. Apart, since a session stands in one allocation with its context, and an
/// idle branch costs little more than that.
struct Arrival {
    link: Option<Box<dyn Link>>,
    peer: String,
    place: Arc<Place>,
    /// Resolves when the connection must make room for another one.
    makes_room: Option<oneshot::Receiver<()>>,
    handshake: Option<Arc<Handshake>>,
    /// How the listener lets its clients in; none when the bind is being checked, or was.
    lets_in: Option<LetsIn>,
    /// Tells the reader that longer frames are allowed from now on.
    raise_frame_len: Rc<Cell<bool>>,
    /// Ends a connection that does not bind in time.
    bind_alarm: SpawnHandle,
}

/// The state of the block that is being read, besides the messages that the relay gathers.
#[derive(Default)]
struct BlockState {
    /// Small replies of the actions of the master.
    own_replies: GatheredReplies,
    events: Vec<Event>,
    /// The context of the last request, if the master itself answered it, for the rest of its run.
    run: Option<RunContext>,
    /// None until the branch passes functions, which most branches never do.
    functions: Option<Box<BlockFunctions>>,
}

/// The functions of the block that is being read.
#[derive(Default)]
struct BlockFunctions {
    /// Functions that the branch has released. Their calls may not have left yet, so they are dropped at the end of the block.
    released: Vec<Function>,
    /// The session whose branch lent the function that was called last.
    lender: Option<SessionHandle>,
}

/// How many requests a session has in flight, for its drain.
#[derive(Default)]
struct InFlight {
    count: Cell<usize>,
    /// Whether the branch knows [`Features::DRAINED`].
    answers_drains: Cell<bool>,
    /// Whether the branch has been told that the master drains, and has not answered yet.
    awaits_drained: Cell<bool>,
    idle: Notify,
}

impl InFlight {
    /// Notes that the branch sends nothing more, or is lost.
    fn branch_drained(&self) {
        self.awaits_drained.set(false);
        self.idle.notify_waiters();
    }

    fn is_idle(&self) -> bool {
        self.count.get() == 0 && !self.awaits_drained.get()
    }
}

/// Writes requests of other nodes to the branch.
struct ToBranch<'a> {
    guard: OutboxGuard<'a>,
    name: &'a str,
    /// The lane of the caller.
    lane: u64,
    /// Filled anew for each request. Its caller stays, since all requests of a message have one caller.
    request: Request,
}

impl SessionActor {
    pub(crate) fn new(
        master: Arc<MasterShared>,
        accepted: Accepted,
        entered: Entered,
        lets_in: LetsIn,
    ) -> Self {
        let Accepted { link, peer, handshake } = accepted;
        let config = &master.config;
        let limits = &master.limits;
        let relay = Relay::new(
            &master.name,
            config.balance,
            limits.in_flight_max,
            KeptLen::new(limits.kept_len_max, Arc::clone(&master.kept_pool)),
            KeptLen::new(limits.held_len_max, Arc::clone(&master.kept_pool)),
        );
        let in_layers = master.layers.as_ref().map(|_| Box::default());
        let (blocking, node) = (Arc::clone(&master.blocking), &master.node);
        let answering = Answering::new(node.handle(), limits.answering_bounds(), blocking, node.keyed());
        Self {
            master,
            arrival: Some(Box::new(Arrival {
                link: Some(link),
                peer,
                place: entered.place,
                makes_room: Some(entered.makes_room),
                handshake,
                lets_in: Some(lets_in),
                raise_frame_len: Rc::default(),
                bind_alarm: SpawnHandle::default(),
            })),
            handle: None,
            standing: None,
            heard: Instant::now(),
            relay,
            answering,
            pending: Pending::default(),
            in_flight: Rc::default(),
            in_layers,
            writer: None,
            block: BlockState::default(),
        }
    }

    fn me(&self) -> &SessionHandle {
        self.handle.as_ref().expect("it is made in `started`, before anything else")
    }

    fn outbox(&self) -> &Outbox {
        self.me().outbox()
    }

    /// Whether the branch may do this; else the denial is counted, and this is its error.
    #[inline]
    fn may(&self, verb: Verb, name: &str) -> Result<(), CallError> {
        match &self.standing {
            None => Ok(()),
            Some(standing) if standing.identity.permissions().allows(verb, name) => Ok(()),
            Some(standing) => Err(self.denied(verb, name, standing.identity.permissions())),
        }
    }

    #[cold]
    fn denied(&self, verb: Verb, name: &str, permissions: &Permissions) -> CallError {
        let error = permissions.denial(verb, name);
        self.master.denials.add(verb, self.title(), error.message(), Instant::now().into_std());
        error
    }

    fn lender(&self) -> NodeLender {
        self.master.lender(self.me().id())
    }

    fn inbound(&mut self, block: Block, context: &mut Context<Self>) {
        let now = Instant::now();
        self.heard = now;
        if !block.is_beat() {
            self.master.busy_poll.heard();
        }
        self.relay.block_len = u32::try_from(block.len()).unwrap_or(u32::MAX);
        let mut frames = block.frames();
        loop {
            // A block has at most `BLOCK_FRAMES_MAX` frames.
            self.relay.may_follow = u16::try_from(frames.left().saturating_sub(1)).unwrap_or(u16::MAX);
            let Some(next) = (if self.relay.phase().is_calling() {
                // The result is bound to no variable, since that would copy the whole value.
                match frames.read_next() {
                    Some(Next::Request(ref mut request)) => {
                        self.request(request, now, context);
                        if self.block.run.is_some() {
                            self.answer_run(&mut frames, context);
                        }
                        continue;
                    }
                    Some(Next::Reply { callback_id, payload }) => {
                        self.response(callback_id, Ok(payload.share()));
                        continue;
                    }
                    Some(Next::Event(event)) => {
                        self.publish(event, Some(&mut frames));
                        continue;
                    }
                    Some(Next::Item { callback_id, payload }) => {
                        self.item(callback_id, Ok(payload.share()));
                        continue;
                    }
                    Some(Next::Other(frame)) => Some(Ok(frame)),
                    Some(Next::Broken(error)) => Some(Err(error)),
                    None => None,
                }
            } else {
                frames.read_next().map(Next::into_frame)
            }) else {
                break;
            };
            match next {
                Ok(frame) => match self.relay.judge(&frame) {
                    Legality::Legal => self.take(frame, now, context),
                    Legality::Ignored => break,
                    Legality::Illegal(why) => {
                        self.refuse(Code::BIND_ERROR, why, false, context);
                        break;
                    }
                },
                Err(error) => {
                    self.broken(&error, context);
                    break;
                }
            }
        }
        self.end_message(context);
        self.relay.block_len = 0;
    }

    /// Charges the branch for the block that is being read, or for a message that came of none of its blocks with nothing.
    fn charge(&self) -> Charge {
        self.me().credit().charge(self.relay.block_len as usize)
    }

    fn take(&mut self, frame: Frame, now: Instant, context: &mut Context<Self>) {
        match frame {
            Frame::Bind(bind) => self.bind(bind, Extension::default(), context),
            Frame::ExtendedBind(ExtendedBind { bind, features, incarnation, replaces }) => {
                let features = Some(features);
                let incarnation = (incarnation != 0).then_some(incarnation);
                let extension = Extension { features, incarnation, replaces };
                self.bind(bind, extension, context);
            }
            Frame::Request(mut request) => {
                self.request(&mut request, now, context);
                // With functions, hops or headers it begins no run.
                self.block.run = None;
            }
            Frame::OpenStream(open) => {
                self.open_stream(open, now, context);
                self.block.run = None;
            }
            Frame::Started(callback_id) => {
                self.relay.started(callback_id);
                self.note_beginning(callback_id);
            }
            Frame::Item(Item { callback_id, mut payload }) => {
                let borrowed = borrow(&mut payload, self.outbox(), || self.lender());
                self.item(callback_id, borrowed.map(|()| payload));
            }
            Frame::Granted(granted) => {
                if !self.relay.grant(granted) {
                    self.answering.grant(granted.callback_id, granted.grant);
                }
            }
            Frame::Response(Response { callback_id, outcome }) => {
                let outcome = borrow_outcome(outcome, self.outbox(), || self.lender());
                self.response(callback_id, outcome);
            }
            Frame::Invoke(invoke) => self.invoke(invoke, now, context),
            Frame::Release(function) => {
                let released = self.outbox().lent().take(function);
                if let Some(released) = released {
                    self.block.functions.get_or_insert_default().released.push(released);
                }
            }
            Frame::Cancel(callback_id) => {
                if !self.relay.cancel(callback_id) {
                    self.answering.cancel(callback_id);
                }
                if let Some(in_layers) = &mut self.in_layers {
                    in_layers.remove(callback_id);
                }
            }
            Frame::Publish(publish) => self.publish(publish, None),
            Frame::GiveBack(publish) => self.give_back(publish),
            Frame::Broadcast(broadcast) => self.broadcast(broadcast),
            Frame::KeepLast(keep) => self.keep_last(keep),
            Frame::AskEra(callback_id) => {
                let number = self.master.era;
                self.outbox().say(&Frame::Kept(Kept { callback_id, number }));
            }
            Frame::Subscribe(subscribe) => self.subscribe(subscribe, None),
            Frame::SubscribeToLast(SubscribeToLast { subscribe, handler }) => {
                self.subscribe(subscribe, Some(handler));
            }
            Frame::Unsubscribe(key) => {
                let charge = Some(self.charge());
                #[expect(clippy::disallowed_methods, reason = "bounded by the credit of the connection")]
                self.master.router.do_send(router::Unsubscribe { session: self.me().id(), key, charge });
            }
            Frame::Labels(labels) => {
                let why = match labels.check() {
                    Ok(()) if self.me().set_labels(labels) => return,
                    Ok(()) => "a branch tells its labels once, and before its first offer".to_owned(),
                    Err(error) => error.to_string(),
                };
                self.refuse(Code::BIND_ERROR, &why, false, context);
            }
            Frame::FindProviders(FindProviders { callback_id, action, labels }) => {
                let allowed = check_action(&action)
                    .map_err(CallError::from)
                    .and_then(|()| Ok(check_labels(&labels)?))
                    .and_then(|()| self.may(Verb::Call, &action));
                let find = allowed.map(|()| registry::FindProviders { action, labels });
                self.pending.provide(self.outbox(), callback_id, &self.master.registry, find);
            }
            Frame::Register(register) => {
                self.me().offers();
                let mut actions = register.offers.iter().map(|offer| &offer.action);
                let allowed = check_offers(&register.offers)
                    .and_then(|()| actions.try_for_each(|action| self.may(Verb::Offer, action)));
                let message = registry::Offer { session: self.me().id(), offers: register.offers };
                let asked = allowed.map(|()| self.master.registry.send(message));
                self.pending.answer(self.outbox(), register.callback_id, asked, self.charge(), |answer| {
                    answer.map_err(|denied| {
                        CallError::new(Code::NOT_PERMITTED, Fate::Failed, denied.to_string())
                    })
                });
            }
            Frame::Unregister(unregister) => {
                let allowed = check_count(unregister.actions.len());
                let message = registry::Withdraw { session: self.me().id(), actions: unregister.actions };
                let asked = allowed.map(|()| self.master.registry.send(message));
                self.pending.answer(self.outbox(), unregister.callback_id, asked, self.charge(), Ok);
            }
            Frame::Describe(describe) => {
                let meshwork_wire::Describe { callback_id, pattern } = describe;
                self.describe(callback_id, pattern, ByteString::new());
            }
            Frame::DescribeAfter(describe) => {
                let meshwork_wire::DescribeAfter { callback_id, pattern, after } = describe;
                self.describe(callback_id, pattern, after);
            }
            Frame::Pong => {}
            Frame::Ping => self.outbox().say(&Frame::Pong),
            Frame::Drain => self.branch_drains(context),
            Frame::Drained => self.in_flight.branch_drained(),
            Frame::Bound(_)
            | Frame::ExtendedBound(_)
            | Frame::Refused(_)
            | Frame::Online(_)
            | Frame::Offline(_)
            | Frame::Described(_)
            | Frame::Kept(_)
            | Frame::LastValue(_) => {
                unreachable!("the phase has refused it")
            }
        }
    }

    /// Subscribes the branch, and lets a handler hear the last values first; none: every handler of a subscription that is new.
    fn subscribe(&mut self, subscribe: meshwork_wire::Subscribe, hearer: Option<u64>) {
        let meshwork_wire::Subscribe { callback_id, key } = subscribe;
        let allowed = check_key(&key).and_then(|()| self.may(Verb::Subscribe, key.pattern.as_str()));
        let session = self.me().clone();
        let message = router::Subscribe { session, keys: vec![key], hearer, is_bound: true };
        let asked = allowed.map(|()| self.master.router.send(message));
        self.pending.answer(self.outbox(), callback_id, asked, self.charge(), |answer| answer);
    }

    /// Hands the router an event whose value is to be the last of its topic, behind the events of the block that came before it.
    fn keep_last(&mut self, keep: meshwork_wire::KeepLast) {
        let meshwork_wire::KeepLast { callback_id, number, forgets, event } = keep;
        let allowed = check_topic(&event.topic).map_err(CallError::from);
        if let Err(error) = allowed.and_then(|()| self.may(Verb::Publish, &event.topic)) {
            return self.reply(callback_id, Err(error.with_fate(Fate::NotSent)));
        }
        self.hand_over_events();
        let meshwork_wire::Publish { topic, headers, payload, .. } = event;
        let (publisher, payload) = (self.relay.name.clone(), without_callbacks(payload));
        let event = Event { topic, publisher, headers, payload };
        let kept = router::KeptLast { event, forgets, number };
        let (session, charge) = (self.me().clone(), Some(self.charge()));
        #[expect(clippy::disallowed_methods, reason = "bounded by the credit of the connection")]
        self.master.router.do_send(router::KeepLast { session, callback_id, kept, charge });
    }

    /// Hands the router the events of the block so far.
    fn hand_over_events(&mut self) {
        if self.block.events.is_empty() {
            return;
        }
        let (from, events) = (Some(self.me().id()), std::mem::take(&mut self.block.events));
        let charge = Some(self.charge());
        #[expect(clippy::disallowed_methods, reason = "bounded by the credit of the connection")]
        self.master.router.do_send(router::Publish { from, events, charge });
    }

    fn describe(&mut self, callback_id: CallbackId, pattern: Pattern, after: ByteString) {
        // It waits until the answers before have left, so it must be short.
        if after.len() > NAME_LEN_MAX {
            return self.reply(callback_id, Err(NameError::TooLong(after.len()).into()));
        }
        let standing = self.standing.clone();
        let permissions = standing.as_ref().map(|standing| standing.identity.permissions());
        if let Some(permissions) =
            permissions.filter(|permissions| !permissions.allows_some_description(&pattern))
        {
            let error = self.denied(Verb::Describe, pattern.as_str(), permissions);
            return self.reply(callback_id, Err(error));
        }
        let sees_all = permissions.is_none_or(Permissions::sees_everything);
        let standing = standing.filter(|_| !sees_all);
        let describe = registry::Describe { pattern, after, standing };
        self.pending.describe(self.outbox(), callback_id, &self.master.registry, describe);
    }

    fn bind(&mut self, bind: Bind, extension: Extension, context: &mut Context<Self>) {
        if let Err(refused) = check_bind(&bind) {
            return self.refuse(refused.code, &refused.why, refused.may_return, context);
        }
        // The name is copied: it shares the buffer of the frame, which holds the credentials.
        let name = ByteString::from(&*bind.name);
        self.relay.bind(name.clone());
        self.me().set_name(name.clone());
        if !bind.offers.is_empty() {
            self.me().offers();
        }
        let Some(arrival) = &mut self.arrival else {
            return;
        };
        let (place, lets_in, handshake) =
            (Arc::clone(&arrival.place), arrival.lets_in.take(), arrival.handshake.take());
        let (master, session) = (Arc::clone(&self.master), self.me().clone());
        let identities = master.identities();
        let features = extension.features;
        let has_subscriptions = !bind.subscriptions.is_empty();
        // Before the branch is told anything.
        self.outbox().set_features(features.unwrap_or_default());
        let bind = (bind, extension);
        let lets_in = lets_in.unwrap_or(LetsIn::Checked);
        // A program that needs no bind is nobody until its link has heard its first message.
        let is_checked = !matches!(lets_in, LetsIn::Everyone { .. });
        if is_checked {
            place.checked();
        }
        let binding = admit(master, session, name, bind, lets_in, (place, handshake));
        context.spawn(binding.into_actor(self).map(move |bound, this, context| match bound {
            // The bind deadline may have passed meanwhile.
            _ if this.relay.phase() != Phase::Binding => {}
            Ok(standing) => {
                if is_checked && let Some(arrival) = &this.arrival {
                    arrival.place.bound();
                }
                this.bound(standing, features, has_subscriptions, context);
                // They may have changed while the bind was checked.
                if this.master.identities().map(|now| Arc::as_ptr(&now))
                    != identities.map(|then| Arc::as_ptr(&then))
                {
                    this.reconsider(context);
                }
            }
            Err(BindRefused { code, why, may_return, denied }) => {
                if denied {
                    this.master.denials.add_bind();
                }
                this.refuse(code, &why, may_return, context);
            }
        }));
    }

    fn bound(
        &mut self,
        standing: Option<Arc<Standing>>,
        features: Option<Features>,
        has_subscriptions: bool,
        context: &mut Context<Self>,
    ) {
        if let Some(arrival) = self.arrival.take() {
            context.cancel_future(arrival.bind_alarm);
            arrival.raise_frame_len.set(true);
        }
        let known = features.unwrap_or_default();
        self.outbox().set_features(known);
        self.in_flight.answers_drains.set(known.contains(Features::DRAINED));
        let (outbox, name) = (self.outbox().clone(), self.relay.name.clone());
        let publish = standing.as_ref().and_then(|standing| standing.identity.permissions().publish.clone());
        say_bound(&self.master, self.me(), features.is_some(), publish, &outbox);
        if has_subscriptions {
            #[expect(clippy::disallowed_methods, reason = "bounded to one: at the bind")]
            self.master.router.do_send(router::Feed(self.me().id()));
        }
        self.standing = standing;
        let now = Instant::now().into_std();
        let mut branch = ToBranch::new(&outbox, &name, ByteString::new());
        self.relay.bound(now, |caller, forwarded, time_left| {
            (branch.lane, branch.request.caller) = (caller.id.0, caller.name.clone());
            branch.write(forwarded, time_left)
        });
        drop(branch);
        self.send();
    }

    /// Takes an item of a stream that the branch produces; an error if its functions could not be taken over.
    fn item(&mut self, callback_id: CallbackId, item: Result<Payload, CallError>) {
        if self.relay.item(callback_id, item) {
            self.outbox().say(&Frame::Cancel(callback_id));
        }
        self.note_beginning(callback_id);
    }

    /// Notes that the branch works, if it has begun a stream and is watched: what its consumer waited for is there.
    fn note_beginning(&mut self, callback_id: CallbackId) {
        if self.me().is_watched() && self.relay.begins(callback_id) {
            self.answered(None);
        }
    }

    /// Takes a request of the branch, out of its place in the frame: each move of a whole request is a call of memcpy.
    #[inline]
    fn request(&mut self, request: &mut Request, now: Instant, context: &mut Context<Self>) {
        let (allowed, deadline) = self.admit(request, now);
        if self.in_layers.is_some() {
            return self.hold((std::mem::take(request), None), deadline, allowed, context);
        }
        match self.relay.request(request, deadline, allowed, &self.answering) {
            // It holds nothing, which the compiler does not see: it would look at each variant again to drop it.
            decision @ Decision::Relay => std::mem::forget(decision),
            decision => self.carry_out(decision, context),
        }
    }

    /// Takes a request of the branch for a stream.
    #[inline(never)]
    fn open_stream(&mut self, open: OpenStream, now: Instant, context: &mut Context<Self>) {
        let OpenStream { grant, mut request } = open;
        let (allowed, deadline) = self.admit(&mut request, now);
        if self.in_layers.is_some() {
            return self.hold((request, Some(grant)), deadline, allowed, context);
        }
        let decision = self.relay.open_stream((&mut request, grant), deadline, allowed, &self.answering);
        self.carry_out(decision, context);
    }

    /// Borrows what a request of the branch passes, and says whether the branch may make it and until when it waits.
    #[inline(always)]
    fn admit(
        &mut self,
        request: &mut Request,
        now: Instant,
    ) -> (Result<(), CallError>, Option<std::time::Instant>) {
        // Before the request may be refused: then the functions that came with it are dropped, which releases them.
        let borrowed = borrow(&mut request.payload, self.outbox(), || self.lender());
        let allowed = borrowed.and_then(|()| {
            // Before the names are matched or told: a frame may bring one of any length.
            let longest = request.action.len().max(request.node.len());
            if longest > NAME_LEN_MAX {
                return Err(NameError::TooLong(longest).into());
            }
            self.may(Verb::Call, &request.action)
        });
        let deadline = request.time_left.and_then(|time_left| now.checked_add(time_left));
        (allowed, deadline.map(Instant::into_std))
    }

    /// Lets the layers of the master decide about a request.
    #[cold]
    fn hold(
        &mut self,
        (request, grant): (Request, Option<Grant>),
        deadline: Option<std::time::Instant>,
        allowed: Result<(), CallError>,
        context: &mut Context<Self>,
    ) {
        let (max, caller) = (self.master.limits.in_flight_max, self.relay.name.clone());
        let identity = self.standing.as_ref().map(|standing| standing.identity.name().clone());
        let (Some(layers), Some(in_layers)) = (self.master.layers.clone(), &mut self.in_layers) else {
            return;
        };
        let allowed = allowed.and_then(|()| {
            let what =
                || CallError::new(Code::OVERLOADED, Fate::NotSent, "the layers of the master are busy");
            if in_layers.has_room(max) { Ok(()) } else { Err(what()) }
        });
        match self.relay.hold((&request, grant), deadline, allowed, &self.answering) {
            Ok(()) => {
                let (deadline, address) = (deadline.map(Instant::from_std), context.address());
                let mailboxes = (address.clone().recipient(), address.recipient());
                in_layers.enter(layers, &request, (caller, identity), deadline, mailboxes);
            }
            Err(unfit) => self.carry_out(unfit.decide(request.callback_id), context),
        }
    }

    /// Tells the layers of a request the outcome that came from the session `from`.
    #[cold]
    fn tell_layers(&self, from: SessionId, callback_id: CallbackId, outcome: &Outcome) {
        let provider = || self.master.session(from).map(|it| ByteString::from(it.name()));
        if let Some(in_layers) = &self.in_layers {
            in_layers.tell(callback_id, outcome, || provider().unwrap_or_default());
        }
    }

    /// Sends a request on that the layers have let pass.
    fn let_pass(&mut self, visit: Visit, context: &mut Context<Self>) {
        let callback_id = visit.callback_id;
        let Some(in_layers) = self.in_layers.as_ref().filter(|in_layers| in_layers.has(visit)) else {
            return;
        };
        match self.relay.pass(callback_id) {
            Some(Decision::Answer(request)) => {
                if let Some(own) = self.relay.own() {
                    let replies = in_layers.reply_to(callback_id, self.outbox(), &self.master.name);
                    answer(&self.answering, own, request, &self.relay.name, &replies);
                }
            }
            Some(decision) => self.carry_out(decision, context),
            None => {}
        }
        self.end_message(context);
    }

    /// Takes the end of a request in the layers. One that has no outcome yet ends with their error: they have refused it, or given it up.
    fn leave_layers(&mut self, visit: Visit, ended: Result<Passed, CallError>, context: &mut Context<Self>) {
        let callback_id = visit.callback_id;
        match &mut self.in_layers {
            Some(in_layers) if in_layers.has(visit) => in_layers.remove(callback_id),
            _ => return,
        }
        let is_held = self.relay.is_held(callback_id);
        if !self.relay.cancel(callback_id) && !self.answering.cancel(callback_id) {
            return;
        }
        let error = ended.err().unwrap_or_else(|| {
            let why = "a layer of the master ended a request that it had not let pass";
            CallError::new(Code::UNKNOWN, Fate::NotSent, why)
        });
        // What a layer says of the fate it can only guess.
        let fate = if is_held { Fate::NotSent } else { Fate::Unknown };
        self.reply(callback_id, Err(error.with_fate(fate)));
        self.end_message(context);
    }

    fn carry_out(&mut self, decision: Decision, context: &mut Context<Self>) {
        match decision {
            Decision::Relay => {}
            Decision::Answer(request) => {
                let Some(own) = self.relay.own() else {
                    return;
                };
                let replies = BlockReplies::new(self.outbox(), &self.block.own_replies);
                let run = answer(&self.answering, own, request, &self.relay.name, &replies);
                self.block.run = Some(run.into());
            }
            Decision::AnswerStream(request) => {
                let Some(own) = self.relay.own() else {
                    return;
                };
                if let Some(in_layers) = &mut self.in_layers {
                    in_layers.stream_begins(request.0.callback_id, || self.master.name.clone());
                }
                let replies = BlockReplies::new(self.outbox(), &self.block.own_replies);
                answer_stream(&self.answering, own, *request, &self.relay.name, &replies);
            }
            Decision::Refuse(Some(callback_id), error) => self.reply(callback_id, Err(error)),
            Decision::Refuse(None, error) => log::debug!("{}: {error}", self.relay.name),
            Decision::Close(why) => self.refuse(Code::UNKNOWN, why, false, context),
        }
    }

    /// Answers the rest of a run of requests that the master itself answers. Action, permission, caller and deadline are those of the first
    /// request of the run.
    fn answer_run(&mut self, frames: &mut Frames, context: &mut Context<Self>) {
        let Some(run) = self.block.run.take().map(RunContext::into_context) else {
            return;
        };
        while let Some(own) = self.relay.own() {
            let Some((callback_id, arguments)) = frames.next_request_of_run() else {
                return;
            };
            match self.relay.continue_run(callback_id, &self.answering) {
                Ok(()) => {
                    let replies = BlockReplies::new(self.outbox(), &self.block.own_replies);
                    self.answering.start(own, arguments.by_ref(), &run, callback_id, &replies);
                }
                Err(decision) => self.carry_out(decision, context),
            }
        }
    }

    /// Takes the drain of the branch: no further request is written to it. When the router sends it no further event either, it is told so.
    fn branch_drains(&mut self, context: &mut Context<Self>) {
        self.me().stop_taking();
        if !self.relay.branch_drains() || !self.in_flight.answers_drains.get() {
            return;
        }
        let leaving = self.master.router.send(router::StopSending(self.me().id()));
        context.spawn(leaving.into_actor(self).map(|_, this, _| {
            // Requests that have not left go to other providers: the branch is sent nothing more.
            let why = "the provider drains, and the request has not left yet";
            for callback_id in this.outbox().close_lanes() {
                let error = CallError::new(Code::DRAINING, Fate::NotSent, why);
                this.relay.response(callback_id, Err(error));
            }
            this.send();
            this.outbox().say(&Frame::Drained);
        }));
    }

    /// Asks the registry about all new actions of a block.
    fn look_up(&mut self, actions: Vec<ByteString>, context: &mut Context<Self>) {
        let asking = self.master.registry.send(registry::Lookup { actions: actions.clone() });
        // The requests of the block wait until the registry has answered.
        let charge = self.charge();
        context.spawn(asking.into_actor(self).map(move |found, this, context| {
            let found = found.unwrap_or_default().into_iter().chain(std::iter::repeat(Found::Nowhere));
            let (outbox, name) = (this.outbox().clone(), this.relay.name.clone());
            let replies = BlockReplies::new(&outbox, &this.block.own_replies);
            for (action, found) in actions.into_iter().zip(found) {
                this.relay.looked_up(action, found, |decision, own| match (decision, own) {
                    (Decision::Answer(request), Some(own)) => match &this.in_layers {
                        None => _ = answer(&this.answering, own, request, &name, &replies),
                        Some(in_layers) => {
                            let master = &this.master.name;
                            let replies = in_layers.reply_to(request.callback_id, &outbox, master);
                            answer(&this.answering, own, request, &name, &replies);
                        }
                    },
                    (Decision::AnswerStream(request), Some(own)) => {
                        if let Some(in_layers) = &mut this.in_layers {
                            in_layers.stream_begins(request.0.callback_id, || this.master.name.clone());
                        }
                        answer_stream(&this.answering, own, *request, &name, &replies);
                    }
                    (Decision::Refuse(Some(callback_id), error), _) => {
                        let outcome = Err(error);
                        if let Some(in_layers) = &this.in_layers {
                            in_layers.tell(callback_id, &outcome, ByteString::new);
                        }
                        outbox.respond(callback_id, outcome);
                    }
                    _ => {}
                });
            }
            this.end_message(context);
            drop(charge);
        }));
    }

    #[inline]
    fn response(&mut self, callback_id: CallbackId, outcome: Outcome) {
        let failed = outcome.as_ref().err().map(CallError::code);
        let is_watched = failed.is_some() || self.me().is_watched();
        // The beginning of a stream was its answer.
        let had_begun = is_watched && self.relay.has_begun(callback_id);
        if !self.relay.response(callback_id, outcome) {
            log::debug!("{}: a reply to {callback_id} came too late", self.relay.name);
        } else if is_watched && !(had_begun && failed.is_none()) {
            self.answered(failed);
        }
    }

    /// Notes what an outcome says about the branch, if it is an error or the branch is watched.
    #[cold]
    fn answered(&self, failed: Option<Code>) {
        match failed.map_or(Verdict::Works, |code| Verdict::of(code, self.relay.to_branch() > 0)) {
            Verdict::Works => {
                self.me().answered();
                if self.me().ails() {
                    self.note(true);
                }
            }
            Verdict::Failed => self.note(false),
            Verdict::Nothing => {}
        }
    }

    /// Notes that the branch works, or that it has failed to answer a request.
    #[cold]
    fn note(&self, works: bool) {
        let limits = &self.master.limits;
        let bounds = RestBounds {
            failed_in_row_max: limits.failed_in_row_max,
            min: limits.rest_min,
            max: limits.rest_max,
        };
        let warnings = &self.master.warnings;
        match self.me().note(works, bounds) {
            Some(Turned::Rests(rest)) => {
                let line = warnings.rests.warn(Instant::now().into_std());
                log_line!(line, "{} fails in a row: it has a rest for {rest:?}", self.title());
            }
            Some(Turned::Works) => {
                let line = warnings.works_again.info(Instant::now().into_std());
                log_line!(line, "{} works again", self.title());
            }
            None => {}
        }
    }

    /// Takes a call of a function that was lent to the branch: a function of another branch is called by relay, a function of this process here.
    fn invoke(&mut self, invoke: Invoke, now: Instant, context: &mut Context<Self>) {
        let callback_id = invoke.callback_id;
        let mut call = match find_lent(invoke, self.outbox(), || self.lender()) {
            Ok(call) => call,
            Err(error) => return self.carry_out(Decision::Refuse(callback_id, error), context),
        };
        let Some(function) = self.find_lender(&call.function) else {
            if let Some(callback_id) = callback_id
                && let Err(decision) = self.relay.continue_run(callback_id, &self.answering)
            {
                return self.carry_out(decision, context);
            }
            if let Wants::Stream(_) = call.invocation.wants {
                call.function = source_of(call.function);
            }
            return answer_call(call, self.outbox(), &self.answering, self.master.limits.in_flight_max);
        };
        let Some(to) = self.block.functions.as_ref().and_then(|functions| functions.lender.as_ref()) else {
            let error = Target::Function(function, call.invocation.wants).lost();
            return self.carry_out(Decision::Refuse(callback_id, error), context);
        };
        let LentCall { invocation: Invocation { arguments: payload, within, wants }, .. } = call;
        let deadline = within.and_then(|within| now.checked_add(within)).map(Instant::into_std);
        let invoking = Invoking { callback_id, to, function, wants, deadline, payload };
        let decision = self.relay.invoke(invoking, &self.answering);
        self.carry_out(decision, context);
    }

    /// The number of a function that was borrowed over a session of this master; none for any other function. The session becomes the `lender`
    /// of this block; a session that has ended leaves none.
    fn find_lender(&mut self, function: &Function) -> Option<CallbackId> {
        let (lender, number) = borrowed_over(function)?;
        let NodeLender { node, link } = lender.as_any().downcast_ref()?;
        if !Arc::ptr_eq(node, &self.master.node) {
            return None;
        }
        let session = SessionId(*link);
        let functions = self.block.functions.get_or_insert_default();
        if functions.lender.as_ref().is_none_or(|lender| lender.id() != session) {
            functions.lender = self.master.session(session);
        }
        Some(number)
    }

    /// Publishes an event, and the rest of its run in the block.
    fn publish(&mut self, publish: meshwork_wire::Publish, frames: Option<&mut Frames>) {
        if let Err(error) = check_topic(&publish.topic) {
            log::debug!("{} publishes to no topic: {error}", self.relay.name);
            return;
        }
        // A branch of this version has refused the event itself. The denial is counted.
        if self.may(Verb::Publish, &publish.topic).is_err() {
            return;
        }
        let (topic, headers, payload) = (publish.topic, publish.headers, without_callbacks(publish.payload));
        if self.block.events.is_empty() {
            self.block.events.reserve(1 + usize::from(self.relay.may_follow));
        }
        let publisher = &self.relay.name;
        let event = |headers, payload| {
            let (topic, publisher) = (topic.clone(), publisher.clone());
            Event { topic, publisher, headers, payload }
        };
        self.block.events.push(event(headers, payload));
        if let Some(frames) = frames {
            let of_run = || Some(event(Headers::none(), frames.next_event_of_run()?.share()));
            self.block.events.extend(std::iter::from_fn(of_run));
        }
    }

    /// Hands the router an event that the branch gives back. The router knows whether the branch got it.
    fn give_back(&mut self, publish: meshwork_wire::Publish) {
        let meshwork_wire::Publish { topic, publisher, groups, headers, payload, .. } = publish;
        let Some(group) = groups.into_iter().next() else {
            return;
        };
        let event = Event { topic, publisher, headers, payload: without_callbacks(payload) };
        let charge = Some(self.charge());
        #[expect(clippy::disallowed_methods, reason = "bounded by the credit of the connection")]
        self.master.router.do_send(router::GiveBack { from: self.me().id(), group, event, charge });
    }

    fn broadcast(&mut self, mut broadcast: meshwork_wire::Broadcast) {
        broadcast.payload = without_callbacks(broadcast.payload);
        if let Err(error) = check_topic(&broadcast.topic) {
            log::debug!("{} broadcasts to no topic: {error}", self.relay.name);
            return;
        }
        if self.may(Verb::Publish, &broadcast.topic).is_err() {
            return;
        }
        let meshwork_wire::Broadcast { topic, headers, payload, .. } = broadcast;
        let event = Event { topic, publisher: self.relay.name.clone(), headers, payload };
        let charge = Some(self.charge());
        #[expect(clippy::disallowed_methods, reason = "bounded by the credit of the connection")]
        self.master.router.do_send(router::Broadcast { from: Some(self.me().id()), event, charge });
    }

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        if let Some(in_layers) = &self.in_layers {
            in_layers.tell(callback_id, &outcome, ByteString::new);
        }
        self.outbox().respond(callback_id, outcome);
    }

    /// Ends the handling of a block, or another message: sends the messages that it made, one for each receiver.
    fn end_message(&mut self, context: &mut Context<Self>) {
        self.outbox().push_gathered(&self.block.own_replies);
        if self.outbox().is_overfull() {
            let line = self.master.warnings.unread.warn(Instant::now().into_std());
            log_line!(line, "{} asks and does not read: the link is given up", self.title());
            self.outbox().close_now();
            context.stop();
        }
        // The context of the run shares the buffer of the block, and would keep it.
        self.block.run = None;
        if let Some(functions) = &mut self.block.functions {
            functions.lender = None;
        }
        let lookups = self.relay.take_lookups();
        if !lookups.is_empty() {
            self.look_up(lookups, context);
        }
        self.send();
        if let Some(functions) = &mut self.block.functions {
            functions.released.clear();
        }
        self.hand_over_events();
    }

    /// Sends the messages of the relay, and publishes how many requests are in flight.
    fn send(&mut self) {
        self.relay.end_message();
        if let Some(me) = &self.handle {
            let len = self.relay.block_len as usize;
            let charge = || (len > 0).then(|| me.credit().charge(len));
            self.relay.outgoing.send(me.id(), me.caller(), charge);
            me.set_in_flight(self.relay.to_branch(), || self.relay.begun());
        }
        let in_flight = self.relay.in_flight();
        self.in_flight.count.set(in_flight);
        if in_flight == 0 {
            self.in_flight.idle.notify_waiters();
        }
    }

    /// Takes the signs of life since the last heartbeat. A branch whose heartbeat cannot be heard yet is told that this end lives.
    fn look_for_signs(&mut self, pulse: &Pulse) {
        let signs = pulse.take();
        if signs.any() {
            self.heard = Instant::now();
        }
        if signs.are_answered() && self.relay.phase().is_calling() {
            self.outbox().say(&Frame::Pong);
        }
    }

    /// Looks at the identity of the branch again, since the identities of the master have changed: the branch stays, with the permissions that
    /// it has now, or is told to bind again, or is refused. What it offers and is subscribed to is looked at by registry and router, which have
    /// all of it when they are asked here, since the session has asked before for each with the earlier permissions.
    fn reconsider(&mut self, context: &mut Context<Self>) {
        let Some(identities) = self.master.identities().filter(|_| self.relay.phase().is_calling()) else {
            return;
        };
        let standing = match reconsider(self.standing.as_deref(), &identities, &self.relay.name) {
            Ok(None) => return,
            Ok(Some(standing)) => Arc::new(standing),
            Err(Unsettled { why, may_return }) => {
                return self.refuse(Code::NOT_PERMITTED, &why, may_return, context);
            }
        };
        self.standing = Some(Arc::clone(&standing));
        self.me().set_standing(self.standing.clone());
        let session = self.me().id();
        let offers = registry::FindDenied { session, standing: Arc::clone(&standing) };
        let subscriptions = router::FindDenied { session, standing: Arc::clone(&standing) };
        let asking =
            futures::future::join(self.master.registry.send(offers), self.master.router.send(subscriptions));
        context.spawn(asking.into_actor(self).map(move |(offer, subscription), this, context| {
            // Identities that have changed once more meanwhile are asked about on their own.
            if !this.standing.as_ref().is_some_and(|now| Arc::ptr_eq(now, &standing)) {
                return;
            }
            let permissions = standing.identity.permissions();
            let offer = offer.ok().flatten().map(|action| (Verb::Offer, action));
            let subscription = subscription.ok().flatten();
            let subscription = subscription.map(|key| (Verb::Subscribe, key.pattern.name().clone()));
            if let Some((verb, name)) = offer.or(subscription) {
                let error = this.denied(verb, &name, permissions);
                this.refuse(error.code(), error.message(), false, context);
            }
        }));
    }

    /// Tells the branch that it is refused, and why, then closes the link.
    fn refuse(&mut self, code: Code, why: &str, may_return: bool, context: &mut Context<Self>) {
        if self.relay.phase() == Phase::Closing {
            return;
        }
        let line = self.master.warnings.refused.warn(Instant::now().into_std());
        log_line!(line, "{} is refused: {why}", self.title());
        self.outbox().push_gathered(&self.block.own_replies);
        self.outbox().say(&Frame::Refused(Refused { code, message: why.into(), may_return }));
        self.close(context);
    }

    fn broken(&mut self, error: &FrameError, context: &mut Context<Self>) {
        match error {
            FrameError::Io(_) | FrameError::Cut => {
                match error {
                    FrameError::Io(error) if TlsFault::of(error).is_some() => {
                        let line = self.master.warnings.insecure.warn(Instant::now().into_std());
                        log_line!(line, "no TLS with {}: {error}", self.title());
                    }
                    error => log::debug!("{}: the link failed: {error}", self.title()),
                }
                self.outbox().close_now();
                context.stop();
            }
            FrameError::TooLong { claimed, .. }
                if self.arrival.is_some() && *claimed <= BIND_FRAME_LEN_MAX =>
            {
                let why = format!(
                    "the first frame has {claimed} bytes, and there is no room for another long one; try again later, or put fewer actions into the bind and register the others"
                );
                self.refuse(Code::OVERLOADED, &why, true, context);
            }
            FrameError::TooLong { .. } | FrameError::Malformed(_) | FrameError::TooManyCallbacks(_) => {
                self.refuse(Code::UNKNOWN, &error.to_string(), false, context);
            }
        }
    }

    /// Closes the link: the rest of the outbox is written, no frame is heard, and the actor stops when the branch has closed the link, or after
    /// [`LINGER`].
    fn close(&mut self, context: &mut Context<Self>) {
        self.leave();
        self.outbox().close();
        if let Some(arrival) = &self.arrival {
            arrival.place.refused();
        }
        context.run_later(LINGER, |this, context| {
            // The last words of a bound session may take longer; a connection that was never bound is closed whatever its peer does.
            if this.arrival.is_some()
                && let Some(writer) = this.writer.take()
            {
                writer.abort();
            }
            context.stop();
        });
    }

    /// Closes a connection that has not bound, whose place another one gets. It is told so, as far as its socket takes the words at once.
    fn make_room(&mut self, context: &mut Context<Self>) {
        if self.relay.phase() != Phase::Closing {
            let line = self.master.warnings.makes_room.warn(Instant::now().into_std());
            log_line!(line, "{} has not bound, and makes room for another connection", self.title());
            let message =
                "the master is full, and another connection had to have this place; try again later";
            let refused = Refused { code: Code::OVERLOADED, message: message.into(), may_return: true };
            self.outbox().say(&Frame::Refused(refused));
            self.leave();
            self.outbox().close();
        }
        if let Some(writer) = self.writer.take() {
            actix_rt::spawn(end_writing(writer, PARTING_WITHIN));
        }
        context.stop();
    }

    /// Takes the session out of registry and router, and ends all requests in flight. Happens once, however the session ends.
    fn leave(&mut self) {
        if !self.me().set_gone() {
            return;
        }
        let id = self.me().id();
        self.master.session_ended(id);
        #[expect(clippy::disallowed_methods, reason = "bounded to one: a session leaves once")]
        // Registry and router hear nothing of a flood of connections that say nothing.
        if self.relay.phase() != Phase::Unbound {
            self.master.registry.do_send(registry::Leave(id));
            self.master.router.do_send(router::Leave(id));
        }
        // Requests in the lanes of the outbox go no further.
        let unsent = self.outbox().close_lanes();
        self.relay.leave(&unsent.into_iter().collect());
        self.send();
        self.in_flight.branch_drained();
        self.in_layers = None;
        self.outbox().lent().release_all();
        self.answering.cancel_all();
    }

    fn title(&self) -> String {
        let (name, peer) = (&self.relay.name, self.me().peer());
        if name.is_empty() { peer.to_owned() } else { format!("{name} ({peer})") }
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let config = &self.master.config;
        // A branch reads every frame that the protocol allows.
        let pool = Some(Arc::clone(&self.master.pool));
        let outbox = Outbox::with_pool(FRAME_LEN_MAX, self.master.limits.outbox_of_session(), pool);
        let credit = Credit::new(self.master.limits.credit_len_max);
        let arrival = self.arrival.as_mut().expect("it is there until the branch is bound");
        let handle = SessionHandle::new(
            self.master.next_session(),
            std::mem::take(&mut arrival.peer),
            context.address(),
            outbox.clone(),
            credit.clone(),
            self.master.limits.in_flight_max,
            config.balance,
        );
        let is_late = !self.master.session_started(handle.clone());
        self.handle = Some(handle);
        let Some(link) = arrival.link.take() else {
            return context.stop();
        };
        let (read, write) = tokio::io::split(link);
        let pulse = Pulse::default();
        let raise = Rc::clone(&arrival.raise_frame_len);
        let place = Arc::clone(&arrival.place);
        let codec = SessionCodec::new(raise, config.frame_len_max, Arc::clone(&place), pulse.clone());
        let blocks = FramedRead::with_capacity(read, codec, READ_BUFFER_LEN_START);
        context.add_stream(OnWake::new(Paced::new(blocks).within(credit)));
        let (makes_room, its_place) = (arrival.makes_room.take(), Arc::clone(&place));
        // The place is given back when neither half of the link is left.
        let writing = writer::write_all(outbox, write, pulse.clone()).map(move |written| {
            if let Err(error) = written {
                log::debug!("a link cannot be written to: {error}");
            }
            drop(place);
        });
        self.writer = Some(actix_rt::spawn(writing));
        arrival.bind_alarm = context.run_later(self.master.limits.bind_within, |this, context| {
            if !this.relay.phase().is_before_bound() {
                return;
            }
            let handshake = this.arrival.as_ref().and_then(|arrival| arrival.handshake.as_ref());
            if handshake.is_some_and(|handshake| !handshake.is_done()) {
                // Nothing can be said to the peer.
                let line = this.master.warnings.insecure.warn(Instant::now().into_std());
                let (title, within) = (this.title(), this.master.limits.bind_within);
                log_line!(line, "no TLS with {title}: its handshake was not done within {within:?}");
                this.outbox().close_now();
                return context.stop();
            }
            this.refuse(Code::BIND_TIMEOUT, "the connection did not bind in time", true, context);
        });
        if let Some(makes_room) = makes_room {
            context.spawn(makes_room.into_actor(self).map(move |told, this, context| {
                // It may have bound since it was told.
                if told.is_ok() && its_place.is_unbound() {
                    this.make_room(context);
                }
            }));
        }
        if is_late {
            return self.refuse(Code::DRAINING, "the master is draining", true, context);
        }
        let heartbeat = config.heartbeat;
        run_interval(context, heartbeat, move |this: &mut Self, context| {
            // The link of a reader that stops may have brought more: it is not read, and its branch is told that this end lives.
            pulse.set_paused(this.me().credit().is_spent());
            this.look_for_signs(&pulse);
            if this.heard.elapsed() >= this.master.config.heartbeat.saturating_mul(HEARTBEATS_MISSED_MAX)
                && this.relay.phase() != Phase::Closing
            {
                let line = this.master.warnings.silent.warn(Instant::now().into_std());
                log_line!(line, "{} is silent: the link is given up", this.title());
                this.outbox().close_now();
                context.stop();
            }
            this.outbox().shrink();
            let outbox = this.outbox().clone();
            for callback_id in this.relay.expire(Instant::now().into_std(), |id| outbox.withdraw(id)) {
                this.outbox().say(&Frame::Cancel(callback_id));
                this.note(false);
            }
            this.send();
        });
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.leave();
        self.outbox().close();
        if let Some(writer) = self.writer.take() {
            // At the end of a process there is no runtime left to write with.
            if tokio::runtime::Handle::try_current().is_err() {
                return writer.abort();
            }
            // The rest of the outbox may still leave, as long as the peer reads.
            actix_rt::spawn(end_writing(writer, LINGER));
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
        // After a broken frame the session is closing already, and its refusal must still be written.
        if self.relay.phase() != Phase::Closing {
            self.outbox().close_now();
            context.stop();
        }
    }
}

impl Handler<Forward> for SessionActor {
    type Result = ();

    fn handle(&mut self, mut forward: Forward, _: &mut Context<Self>) {
        let now = Instant::now().into_std();
        let me = self.me().clone();
        let mut branch = ToBranch::new(me.outbox(), me.name(), forward.caller.name.clone());
        branch.lane = forward.caller.id.0;
        let caller = self.relay.caller(&forward.caller);
        let mut came = 0;
        for forwarded in std::mem::take(&mut forward.requests) {
            match &forwarded.target {
                Target::Action(_) => came += 1,
                Target::Function(_, Wants::Nothing) => self.me().end_notification(),
                Target::Function(..) => {}
            }
            let write = |_: &Caller<_>, forwarded, time_left| branch.write(forwarded, time_left);
            self.relay.forwarded(&caller, forwarded, now, write);
        }
        drop(branch);
        self.send();
        // Behind the count of the session, so that no request is missing in between.
        self.me().end_requests(came);
    }
}

impl<'a> ToBranch<'a> {
    fn new(outbox: &'a Outbox, name: &'a str, caller: ByteString) -> Self {
        let request = Request {
            callback_id: CallbackId(0),
            action: ByteString::new(),
            node: ByteString::new(),
            caller,
            time_left: None,
            hops: 0,
            headers: Headers::none(),
            payload: Payload::default(),
        };
        Self { guard: outbox.hold(), name, lane: 0, request }
    }

    /// Appends a request, or a call of a function, with the time that its caller still waits.
    #[inline(always)]
    fn write(&mut self, forwarded: Forwarded, time_left: Option<Duration>) -> Result<(), CallError> {
        let Forwarded { id_at_provider, target, beside, payload, .. } = forwarded;
        let action = match target {
            Target::Action(action) => action,
            Target::Function(_, Wants::Stream(_)) if !self.guard.features().contains(Features::STREAMS) => {
                return Err(Refusal::NoStreams.into_error(Receiver::Provider(self.name)));
            }
            Target::Function(function, wants) => {
                let callback_id = (wants != Wants::Nothing).then_some(id_at_provider);
                return self.invoke(Invoke { function, callback_id, time_left, wants, payload });
            }
        };
        let (hops, headers, grant) = beside.into_parts();
        if let Some(grant) = grant {
            return self.open_stream((id_at_provider, action, grant), (time_left, hops, headers, payload));
        }
        let request = &mut self.request;
        (request.callback_id, request.action) = (id_at_provider, action);
        (request.time_left, request.payload) = (time_left, payload);
        (request.hops, request.headers) = (hops, headers);
        let turn = Turn { caller: self.lane, id: Some(id_at_provider) };
        let pushed = self.guard.push_in_turn(turn, &*request, Kind::Request);
        pushed.map_err(|refusal| refusal.into_error(Receiver::Provider(self.name)))
    }

    #[inline(never)]
    fn open_stream(
        &mut self,
        (callback_id, action, grant): (CallbackId, ByteString, Grant),
        (time_left, hops, headers, payload): (Option<Duration>, u8, Headers, Payload),
    ) -> Result<(), CallError> {
        if !self.guard.features().contains(Features::STREAMS) {
            return Err(Refusal::NoStreams.into_error(Receiver::Provider(self.name)));
        }
        let (node, caller) = (ByteString::new(), self.request.caller.clone());
        let request = Request { callback_id, action, node, caller, time_left, hops, headers, payload };
        let turn = Turn { caller: self.lane, id: Some(callback_id) };
        let pushed = self.guard.push_in_turn(turn, &OpenStream { grant, request }, Kind::Request);
        pushed.map_err(|refusal| refusal.into_error(Receiver::Provider(self.name)))
    }

    #[inline(never)]
    fn invoke(&mut self, invoke: Invoke) -> Result<(), CallError> {
        let pushed = self.guard.push(&Frame::Invoke(invoke), Kind::Request);
        pushed.map_err(|refusal| refusal.into_error(Receiver::Lender))
    }
}

impl Handler<Replies> for SessionActor {
    type Result = ();

    fn handle(&mut self, Replies { from, replies, charge }: Replies, context: &mut Context<Self>) {
        let _held_until_the_replies_are_handled = charge;
        let outbox = self.outbox().clone();
        let mut guard = outbox.hold();
        let mut elsewhere = Vec::new();
        for Replied { id_at_caller, id_at_provider, outcome } in replies {
            match (self.relay.replied(from, id_at_caller, id_at_provider, &outcome), outcome) {
                (Heard::Elsewhere(waiting), Err(error)) => elsewhere.push((waiting, error)),
                (Heard::Outcome | Heard::Elsewhere(_), outcome) => {
                    if self.in_layers.is_some() {
                        self.tell_layers(from, id_at_caller, &outcome);
                    }
                    let _ = guard.push(&Response { callback_id: id_at_caller, outcome }, Kind::Protocol);
                }
                (Heard::End, outcome) => {
                    let response = Response { callback_id: id_at_caller, outcome };
                    let _ = guard.push_in_turn(turn_of_stream(id_at_caller), &response, Kind::Protocol);
                }
                (Heard::Late, _) => {}
            }
        }
        drop(guard);
        if elsewhere.is_empty() {
            return self.send();
        }
        for (waiting, error) in elsewhere {
            let decision = self.relay.send_elsewhere(*waiting, error);
            self.carry_out(decision, context);
        }
        self.end_message(context);
    }
}

impl Handler<LetPass> for SessionActor {
    type Result = ();

    fn handle(&mut self, LetPass(visit): LetPass, context: &mut Context<Self>) {
        self.let_pass(visit, context);
    }
}

impl Handler<LeaveLayers> for SessionActor {
    type Result = ();

    fn handle(&mut self, LeaveLayers { visit, ended }: LeaveLayers, context: &mut Context<Self>) {
        self.leave_layers(visit, ended, context);
    }
}

/// The lane of a stream that a branch reads: each stream has one of its own, apart from those of callers, which are the numbers of sessions.
fn turn_of_stream(callback_id: CallbackId) -> Turn {
    Turn { caller: callback_id.0 | 1 << 63, id: None }
}

impl Handler<Flow> for SessionActor {
    type Result = ();

    fn handle(&mut self, Flow { from, parts, charge }: Flow, _: &mut Context<Self>) {
        let _held_until_the_parts_are_handled = charge;
        let outbox = self.outbox().clone();
        let mut guard = outbox.hold();
        let mut refused = Vec::new();
        for flowing in parts {
            if !self.relay.flows(from, &flowing) {
                continue;
            }
            let callback_id = flowing.id_at_caller;
            if let (Some(in_layers), Part::Start) = (&mut self.in_layers, &flowing.part) {
                let provider = || self.master.session(from).map(|it| ByteString::from(it.name()));
                in_layers.stream_begins(callback_id, || provider().unwrap_or_default());
            }
            let turn = turn_of_stream(callback_id);
            let pushed = match flowing.part {
                Part::Start => guard.push_in_turn(turn, &Frame::Started(callback_id), Kind::Protocol),
                Part::Item(payload) => {
                    guard.push_in_turn(turn, &Item { callback_id, payload }, Kind::Protocol)
                }
            };
            if let Err(refusal) = pushed {
                // The branch does not read what it has granted, or not such long items. Its producer is told to stop.
                self.relay.cancel(callback_id);
                refused.push((callback_id, refusal));
            }
        }
        drop(guard);
        for (callback_id, refusal) in refused {
            // An error that finds no room either is one of a link that closes.
            outbox.respond(callback_id, Err(refusal.into_error(Receiver::Reader)));
        }
        self.send();
    }
}

impl Handler<Grants> for SessionActor {
    type Result = ();

    fn handle(&mut self, grants: Grants, _: &mut Context<Self>) {
        let outbox = self.outbox().clone();
        for granted in grants.granted {
            let write = |granted| {
                let pushed = outbox.push(&Frame::Granted(granted), Kind::Request);
                pushed.map_err(|refusal| refusal.into_error(Receiver::Reader))
            };
            if self.relay.granted(granted, write) {
                outbox.say(&Frame::Cancel(granted.callback_id));
            }
        }
        self.send();
    }
}

impl Handler<Cancel> for SessionActor {
    type Result = ();

    fn handle(&mut self, Cancel(cancelled): Cancel, _: &mut Context<Self>) {
        let now = Instant::now().into_std();
        for callback_id in cancelled {
            let cancelled = self.relay.cancelled(callback_id, now);
            if cancelled != Cancelled::Unknown && !self.outbox().withdraw(callback_id) {
                self.outbox().say(&Frame::Cancel(callback_id));
                if cancelled == Cancelled::Late {
                    self.note(false);
                }
            }
        }
        self.send();
    }
}

impl Handler<Release> for SessionActor {
    type Result = ();

    fn handle(&mut self, Release(function): Release, _: &mut Context<Self>) {
        if self.relay.phase() != Phase::Closing {
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

impl Handler<Reconsider> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: Reconsider, context: &mut Context<Self>) {
        // While the bind is checked, its end looks at the identity again.
        self.reconsider(context);
    }
}

impl Handler<Drain> for SessionActor {
    type Result = ResponseActFuture<Self, Drained>;

    fn handle(&mut self, Drain { within }: Drain, context: &mut Context<Self>) -> Self::Result {
        self.me().stop_taking();
        if self.relay.phase().is_before_bound() {
            self.refuse(Code::DRAINING, "the master is draining", true, context);
        }
        if self.relay.drain() {
            self.in_flight.awaits_drained.set(self.in_flight.answers_drains.get());
            // A branch that hangs is not waited for: only what it publishes now would be lost.
            context.run_later(LINGER, |this, _| this.in_flight.branch_drained());
            self.outbox().say(&Frame::Drain);
        }
        self.send();
        let before = self.of_branch();
        let (in_flight, answered) = (Rc::clone(&self.in_flight), self.answering.idle());
        let settled = async move {
            loop {
                let notified = in_flight.idle.notified();
                if in_flight.is_idle() {
                    break;
                }
                notified.await;
            }
            answered.await;
        };
        let waiting = async move {
            // The requests that are still in flight show whether all settled in time.
            let _ = tokio::time::timeout(within, settled).await;
        };
        Box::pin(waiting.into_actor(self).map(move |(), this, _| {
            let abandoned = this.of_branch();
            Drained { finished: before.saturating_sub(abandoned), abandoned }
        }))
    }
}

impl SessionActor {
    /// How many requests of the branch are in flight.
    fn of_branch(&self) -> u64 {
        (self.relay.of_branch() + self.answering.len()) as u64
    }
}

impl Handler<Close> for SessionActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Close, context: &mut Context<Self>) -> Self::Result {
        if self.relay.phase() == Phase::Closing {
            return Box::pin(async {});
        }
        let outbox = self.outbox().clone();
        self.relay.abandon(|callback_id, error| outbox.respond(callback_id, Err(error)));
        let why = "the master ended before it had answered";
        for callback_id in self.answering.ids() {
            let error = CallError::new(Code::DRAINING, Fate::Unknown, why);
            outbox.respond(callback_id, Err(error));
        }
        self.close(context);
        // The master ends when what its sessions have to say has left.
        let writer = self.writer.take();
        Box::pin(async move {
            if let Some(writer) = writer {
                let _ = tokio::time::timeout(LINGER, writer).await;
            }
        })
    }
}

#[cfg(feature = "testing")]
impl Handler<TakeCensus> for SessionActor {
    type Result = actix::MessageResult<TakeCensus>;

    fn handle(&mut self, _: TakeCensus, _: &mut Context<Self>) -> Self::Result {
        let lent = self.outbox().lent();
        let functions = self.block.functions.as_ref().map_or(0, |functions| functions.released.len());
        actix::MessageResult(Census::of(
            &[
                ("requests of the branch", self.relay.of_branch()),
                ("requests to the branch", self.relay.to_branch()),
                ("requests that wait for the registry", self.relay.waiting()),
                ("bytes of requests that are kept", self.relay.kept_len(self.master.limits.kept_len_max)),
                ("bundles that have not left", self.relay.bundled()),
                ("requests that the master is answering", self.answering.len()),
                ("requests in the layers of the master", self.in_layers.as_ref().map_or(0, |it| it.len())),
                ("questions to registry and router", self.pending.len()),
                ("requests that its drain would wait for", self.in_flight.count.get()),
                ("streams", self.relay.streams() + self.answering.streams()),
                ("requests to the branch, as callers see it", self.me().in_flight()),
                ("functions lent", lent.len()),
                ("functions borrowed", lent.borrowed()),
                ("functions released in this block", functions),
                ("bytes in the outbox", self.outbox().len()),
            ],
            &[("bound", usize::from(!self.relay.phase().is_before_bound()))],
        ))
    }
}

impl InUse for Answering {
    fn contains(&self, callback_id: CallbackId) -> bool {
        self.contains(callback_id)
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// Answers a request with an action of the master; gives the context of the request, for the rest of its run.
fn answer(
    answering: &Answering,
    own: &Action,
    request: OwnRequest,
    caller: &ByteString,
    replies: &impl ReplyTo,
) -> CallContext {
    let OwnRequest { callback_id, action, deadline, hops, headers, payload } = request;
    let action = own.called(&action);
    let deadline = deadline.map(Instant::from_std);
    let context = CallContext::new(action, caller.clone(), deadline, hops, headers);
    answering.start(own, (&payload).into(), &context, callback_id, replies);
    context
}

/// Answers a request for a stream with an action of the master.
fn answer_stream(
    answering: &Answering,
    own: &Action,
    (request, grant): (OwnRequest, Grant),
    caller: &ByteString,
    replies: &BlockReplies<'_>,
) {
    let OwnRequest { callback_id, action, deadline, hops, headers, payload } = request;
    let action = own.called(&action);
    let deadline = deadline.map(Instant::from_std);
    let context = CallContext::new(action, caller.clone(), deadline, hops, headers);
    answering.stream(own, (&payload).into(), &context, (callback_id, grant), replies);
}

/// Waits until the rest of an outbox has left, and no longer than this.
async fn end_writing(mut writer: JoinHandle<()>, within: Duration) {
    if tokio::time::timeout(within, &mut writer).await.is_err() {
        writer.abort();
    }
}

/// Drops the functions of an event: many nodes would hold each function, and no node could tell when to release it. Branches of meshwork refuse
/// to publish functions.
fn without_callbacks(payload: Payload) -> Payload {
    Payload { callbacks: Callbacks::none(), ..payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task stands on a boundary of 128 bytes, and mimalloc takes 127 bytes more for it if its length is no power of two: a session that is a
    /// little longer takes 1,280 bytes for each idle branch, and soon 1,792, as it once did.
    #[test]
    fn a_session_its_context_and_its_task_take_one_kibibyte() {
        let around = size_of::<Context<SessionActor>>() + 248;
        assert!(around + size_of::<SessionActor>() <= 1024, "{} and {around}", size_of::<SessionActor>());
    }
}

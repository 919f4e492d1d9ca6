//! A branch: a process that binds to a master. It calls, responds, subscribes and publishes over one link, and binds again by itself
//! when the link is lost. It takes [`Flush`] and the other messages of `node/mailboxes.rs`, and blocks of frames from its link.
//! `branch/link.rs` decides about the link, `branch/calls.rs` where calls go.

mod calls;
mod establish;
mod link;
mod settings;

pub use establish::BindError;
pub use settings::BranchSettings;

use crate::answers::CallContext;
use crate::answers::answering::Answering;
use crate::answers::blocking::Blocking;
use crate::answers::invoked::invoked;
use crate::answers::reply_to::BlockReplies;
use crate::calls::in_flight::Waiter;
use crate::calls::reply::Reply;
use crate::events::event::{Event, EventRef, NO_HEADERS, SubscriberId};
use crate::events::subscribers::Subscribers;
use crate::gateway::Dialect;
use crate::gateway::dialled::DialectDial;
use crate::hashed::Hashing;
use crate::link::backoff::Backoff;
use crate::link::borrowed::{borrow, borrow_outcome};
use crate::link::gathered::GatheredReplies;
use crate::link::outbox::{Kind, Outbox};
use crate::link::plain::{Over, secured};
use crate::link::refusal::{Receiver, Refusal, link_down};
use crate::link::{Address, Dial, writer};
use crate::log_line;
#[cfg(feature = "testing")]
use crate::node::census::{Census, TakeCensus};
use crate::node::change::{Change, Status, Watcher, tell};
use crate::node::lender::NodeLender;
use crate::node::mailboxes::{
    Describe, DescribePart, Drain, Drained, FindProviders, Flush, Mailboxes, Provided, Respond, Subscribe,
    SubscribeTo, TakeSnapshot, Unsubscribe, Watch, Withdraw,
};
use crate::node::options::{ConfigureNode, NodeOptions};
use crate::node::reading::source_of;
use crate::node::said::SayAgain;
use crate::node::shared::{EventPath, Node};
use crate::node::snapshot::{Denied, Snapshot};
use crate::node::submission::{NewEvent, Submission};
use crate::repeated::{Line, Repeated};
use crate::turns::alarm::Alarm;
use crate::turns::on_wake::{OnWake, run_interval};
use crate::turns::paced::Paced;
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, MessageResult,
    ResponseActFuture, ResponseFuture, SpawnHandle, StreamHandler, WrapFuture,
};
use calls::{BranchCalls, Path};
use establish::{BindContent, Established, establish, establish_first, registers};
use futures::StreamExt;
use futures::future::{Either, LocalBoxFuture};
use link::{Beat, Course, LinkState, Lost, Say, draining, ended};
use log::Level;
use meshwork_wire::limits::{
    ACTIONS_PER_FRAME_MAX, ACTORS_CHECKED_EVERY, CALL_WITHIN, DIAL_WITHIN, FRAME_LEN_MAX,
    HEARTBEAT_EVERY_MIN, LINGER, PROTOCOL_VERSION,
};
use meshwork_wire::{
    Accepts, ActionDescription, Bind, Block, Broadcast, ByteString, CallError, CallbackId, Code,
    ExtendedBind, ExtendedBound, Fate, Features, Frame, FrameError, FrameRef, Frames, Grant, Granted, Item,
    KeepLast, Kept, LastValue, Next, OpenStream, Publish, Refused, Request, Response, SessionId,
    SubscribeToLast, SubscriptionKey, Unregister,
};
use settings::EndsNode;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A process that binds to a master. Build it, then bind it: [`BranchActor::start_bound`], or the `bind` of
/// the `meshwork` crate, which gives a handle.
pub struct BranchActor {
    name: ByteString,
    credentials: Option<ByteString>,
    dial: Arc<dyn Dial>,
    /// TLS, for what is dialled.
    over: Option<Over>,
    dialect: Dialect,
    address: Address,
    frame_len_max: usize,
    /// Drawn by chance: see [`ExtendedBind::incarnation`].
    incarnation: u64,
    replaces: bool,
    backoff: Backoff,
    first_bind_within: Duration,
    /// The warnings about a master that is silent.
    silent: Repeated,
    /// Lines of the log: the branch is bound, or lost its link, or its master drains.
    news: Repeated,
    /// Lines of the log: an actor of the branch has stopped.
    stopped: Repeated,
    /// The warnings about a master whose certificate, or which the certificate of the branch, does not satisfy.
    insecure: Repeated,
    options: NodeOptions,
    link: LinkState,
    /// The bound link; there as long as [`LinkState::is_bound`].
    wires: Option<Wires>,
    /// The counts for the answer to a drain during which the link was lost.
    drain_tally: DrainTally,
    calls: BranchCalls,
    /// The blocking work of the responders.
    blocking: Arc<Blocking>,
    subscribers: Subscribers,
    broadcasts: Subscribers,
    watchers: Vec<Watcher>,
    submissions: Vec<Submission>,
    /// Those who wait for the drain to end; empty if the branch does not drain. Bounded by the callers that asked for it.
    drains: Vec<oneshot::Sender<Drained>>,
    /// How many actors that answered an action or handled events had stopped.
    actors_lost: u64,
    /// Whether a timer looks at the actors.
    checks_actors: bool,
    /// The caller of the last request of the master.
    last_caller: ByteString,
    /// The lane of its replies: a number of its name. Callers whose numbers were the same would share a lane.
    last_lane: u64,
    lanes: Hashing,
    /// How many events of this branch did not leave, since the link was lost before, or were refused by the outboxes of lost links.
    events_dropped: u64,
    alarm: Alarm,
    _ended: EndsNode,
}

/// A bound link: its outbox, its tasks, and the requests that came over it.
struct Wires {
    outbox: Outbox,
    /// The session of this link.
    session: SessionId,
    /// The features that the master knows.
    features: Features,
    /// Whether the master has answered a drain of this branch. Dropped with the link.
    drained: watch::Sender<bool>,
    beat: SpawnHandle,
    writer: JoinHandle<()>,
    /// Whether this end closes the link: the last of it has been said.
    closes: bool,
    /// Requests of the master that were not answered at once.
    answering: Answering,
    /// The small replies to the requests of one block.
    gathered: GatheredReplies,
}

/// How many requests of the master were answered and not answered, and how many calls failed, when a link was lost during a drain.
#[derive(Clone, Copy, Default)]
struct DrainTally {
    answered: u64,
    unanswered: u64,
    failed: u64,
}

/// An item from a link.
enum Inbound {
    Block(Block),
    /// The link has ended; with an error, if it failed.
    Lost(Option<FrameError>),
}

/// An item from the link of this epoch.
struct FromLink {
    epoch: u64,
    inbound: Inbound,
}

impl BranchActor {
    /// A branch without actions, which reaches its master over TCP.
    #[must_use]
    pub fn new(name: impl Into<ByteString>) -> Self {
        BranchSettings::new(name.into()).into()
    }

    /// The settings of this branch, which may be sent to another thread: [`BranchActor::from`] makes the branch of them there.
    #[must_use]
    pub fn into_settings(self) -> BranchSettings {
        BranchSettings {
            name: self.name,
            credentials: self.credentials,
            dial: self.dial,
            over: self.over,
            dialect: self.dialect,
            incarnation: self.incarnation,
            replaces: self.replaces,
            backoff: self.backoff,
            first_bind_within: self.first_bind_within,
            options: self.options,
            ends_node: self._ended,
        }
    }

    /// The credentials that the branch shows the master: a token, or any text that the check of the master understands. Default: none. A text
    /// that [is no token](meshwork_wire::check_token) fails the bind.
    #[must_use]
    pub fn token(mut self, token: impl Into<ByteString>) -> Self {
        self.credentials = Some(token.into());
        self
    }

    /// How the branch reaches its master. Default: TCP.
    #[must_use]
    pub fn dial(mut self, dial: impl Dial) -> Self {
        self.dial = Arc::new(dial);
        self
    }

    /// Speaks TLS to the master: checks its certificate against the CA, and against the host of the address. Default: no TLS, and an address
    /// that begins with `tls://` is not dialled. A first bind that fails since the certificate of either end is not accepted ends at once,
    /// even if the branch [waits for its master](Self::wait_for_master); a branch that was bound goes on and says so in its log, since
    /// certificates are renewed.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: &crate::link::DialTls) -> Self {
        let tls = tls.clone();
        self.over = Some(Arc::new(move |dial| tls.over(dial)));
        self
    }

    /// The protocol that the master speaks. Default: the frames of meshwork.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Replaces the branch that is bound under the name, if there is one: that branch ends, and says so in its log. Default: a name that is
    /// taken is refused, unless the master says otherwise ([`OnNameTaken`](crate::master::OnNameTaken)). A branch that binds again after it
    /// lost its link needs no permission for its own name.
    #[must_use]
    pub fn replace(mut self) -> Self {
        self.replaces = true;
        self
    }

    /// How long the branch waits before it binds again: between `min` and twice `min` at first, by chance, and up to twice as long each time;
    /// in the end between half of `max` and `max`. A link that held for `max` makes the next wait the shortest again. No wait is shorter than
    /// `min` or longer than `max`; a `min` below 1 ms counts as 1 ms, and a `max` below `min` as `min`. Default: 50 ms and 3 s.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Backoff::new(min, max);
        self
    }

    /// Tries the first bind again, with the [backoff](Self::backoff), until the master is up or this time is over: then the last error is
    /// given. `Duration::MAX` waits for ever. A bind that can never succeed fails at once: its address or name is not valid, its token is
    /// wrong, another branch has its name, or the master refuses it for good. Says once in the log why it waits, at WARN.
    /// Default: zero, so the first bind is tried once, unless the master is full for the moment and asks the branch to come again: then it is
    /// tried for 30 s. Dropping the future of the bind gives it up.
    #[must_use]
    pub fn wait_for_master(mut self, within: Duration) -> Self {
        self.first_bind_within = within;
        self
    }

    /// The node of this branch, which its handles share.
    #[doc(hidden)]
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.options.node
    }

    /// Binds to a master and starts. From then on the branch is callable, and binds again by itself when it loses its link.
    ///
    /// # Errors
    ///
    /// When the master cannot be reached, or refuses the bind. The first bind is tried once, unless [`BranchActor::wait_for_master`] is set, or
    /// the master is full for the moment.
    pub async fn start_bound(mut self, address: impl Into<Address>) -> Result<Addr<Self>, BindError> {
        self.address = address.into();
        if self.dialect != Dialect::Native {
            // A master of another protocol takes lists of arguments, and does not always say which actions there are.
            self.options.node.with_known(|known| known.set_unknown(Accepts::List));
        }
        let dial = secured(self.dial, self.over.as_ref());
        self.dial = Arc::new(DialectDial { dial, dialect: self.dialect });
        let content = self.bind_content();
        let within = self.options.limits.bind_within;
        let establish = || establish(&*self.dial, &self.address, content.clone(), DIAL_WITHIN, within);
        let established =
            establish_first(&self.name, self.first_bind_within, &mut self.backoff, establish).await?;
        // The link is taken over before the address is given away, so its holder finds a branch that is bound.
        Ok(Self::create(|context| {
            self.options.set_layers();
            self.options.node.open_mailboxes(Mailboxes::of(&context.address()));
            self.options.node.set_own(&self.options.actions);
            self.bound(established, context);
            self.check_actors_later(context);
            self
        }))
    }

    /// The content of a bind: the actions and subscriptions of the branch as they are now.
    fn bind_content(&self) -> BindContent {
        let bind = Bind {
            version: PROTOCOL_VERSION,
            name: self.name.clone(),
            credentials: self.credentials.clone(),
            offers: self.options.actions.offers(),
            subscriptions: self.subscribers.keys().cloned().collect(),
        };
        // A branch that was replaced has ended, so only its first bind replaces another branch.
        let (incarnation, replaces) = (self.incarnation, self.replaces && self.link.is_new());
        let bind = ExtendedBind { bind, features: Features::ALL, incarnation, replaces };
        let node = Arc::clone(&self.options.node);
        // Programs of other protocols know no labels.
        let labels = self.options.labels.clone().filter(|_| self.dialect == Dialect::Native);
        BindContent::new(bind, labels, self.frame_len_max, move || node.draw())
    }

    /// Takes over a link that is bound.
    fn bound(&mut self, established: Established, context: &mut Context<Self>) {
        let Established { reader, writer: write, bound: consent, early } = established;
        let ExtendedBound { bound, features, publish } = consent;
        let now = Instant::now();
        let heartbeat = Duration::from_millis(bound.heartbeat_ms).max(HEARTBEAT_EVERY_MIN);
        let Some(unsaid) = self.link.bound(now.into_std(), heartbeat) else {
            return;
        };
        let epoch = self.link.epoch();
        let pulse = reader.decoder().pulse().clone();
        let inbound = OnWake::new(Paced::new(reader))
            .map(|block| match block {
                Ok(block) => Inbound::Block(block),
                Err(error) => Inbound::Lost(Some(error)),
            })
            .chain(futures::stream::once(async { Inbound::Lost(None) }))
            .map(move |inbound| FromLink { epoch, inbound });
        context.add_stream(inbound);
        let frame_len_max =
            usize::try_from(bound.frame_len_max).map_or(FRAME_LEN_MAX, |max| max.min(FRAME_LEN_MAX));
        let outbox = Outbox::with_bounds(frame_len_max, self.options.limits.outbox_of_branch());
        outbox.set_features(features);
        let writing = writer::write_all(outbox.clone(), write, pulse.clone());
        let writer = actix_rt::spawn(async move {
            if let Err(error) = writing.await {
                log::debug!("the link cannot be written to: {error}");
            }
        });
        let beat = run_interval(context, heartbeat, move |this: &mut Self, context| {
            if pulse.take().any() && this.link.is_link(epoch) {
                this.link.heard(Instant::now().into_std());
            }
            this.beat(epoch, context);
        });
        let line = self.news.info(Instant::now().into_std());
        log_line!(
            line,
            "{} is bound to {} at {} as {}",
            self.name,
            bound.master,
            self.address,
            bound.session
        );
        if self.options.labels.is_some() && !features.contains(Features::LABELS) {
            let line = self.news.warn(Instant::now().into_std());
            log_line!(
                line,
                "{}: {} knows no labels and weights, and gives it requests as to any branch",
                self.name,
                bound.master
            );
        }
        let in_flight_max = usize::try_from(bound.in_flight_max).unwrap_or(usize::MAX);
        self.options.node.set_in_flight_max(self.options.limits.in_flight_max.min(in_flight_max));
        for frame in unsaid {
            outbox.say(&frame.for_features(features));
        }
        self.options.node.set_event_path(EventPath::Link { outbox: outbox.clone(), publish });
        let bounds = self.options.limits.answering_bounds();
        let (blocking, node) = (Arc::clone(&self.blocking), &self.options.node);
        let answering = Answering::new(node.handle(), bounds, blocking, node.keyed());
        let gathered = GatheredReplies::default();
        let drained = watch::Sender::new(false);
        self.wires = Some(Wires {
            outbox: outbox.clone(),
            session: bound.session,
            features,
            drained,
            beat,
            writer,
            closes: false,
            answering,
            gathered,
        });
        for frame in early {
            self.take(frame, now, context);
        }
        self.subscribers.end_run();
        self.say_last_values_again(context);
        // Among the early frames may be a drain or a refusal of the master: then the waiting calls wait for the next link.
        if self.link.course() == Course::Leaves {
            self.calls.send_waiting(&outbox, now);
            self.options.node.set_writes_frames(true);
        }
        if self.link.is_bound() {
            self.options.node.set_status(Status::Bound);
        }
    }

    fn beat(&mut self, epoch: u64, context: &mut Context<Self>) {
        match (self.link.beat(epoch, Instant::now().into_std()), &self.wires) {
            (Beat::GiveUp, _) => {
                let line = self.silent.warn(Instant::now().into_std());
                log_line!(line, "{}: the master is silent, the link is given up", self.name);
                self.lost("the master was silent for three heartbeats", context);
            }
            (Beat::Ping, Some(wires)) => {
                wires.outbox.shrink();
                self.options.node.shrink();
                wires.outbox.say(&Frame::Ping);
            }
            (Beat::Ping, None) | (Beat::Stale, _) => {}
        }
    }

    /// Handles the loss of the link: the calls that went over it end, and the branch binds again, unless it drains.
    fn lost(&mut self, why: &str, context: &mut Context<Self>) {
        let lost = self.link.lost(Instant::now().into_std());
        if lost == Lost::Nothing {
            return;
        }
        let closes = self.wires.as_ref().is_some_and(|wires| wires.closes);
        let line = if closes { Line::DEBUG } else { self.news.info(Instant::now().into_std()) };
        log_line!(line, "{} lost its link: {why}", self.name);
        self.options.node.set_writes_frames(false);
        let mut tally = self.cut(context);
        let gone = if closes {
            CallError::new(Code::DRAINING, Fate::Unknown, "the branch has drained before the reply came")
        } else {
            let why = format!("the link was lost before the reply came: {why}");
            CallError::new(Code::LINK_LOST, Fate::Unknown, why)
        };
        tally.failed = self.calls.lost(&gone) as u64;
        self.options.node.set_event_path(EventPath::Down);
        self.forget_others();
        let Lost::Rebinds { held } = lost else {
            // The branch ends when the drain has been answered, with these counts.
            self.drain_tally = tally;
            return;
        };
        self.backoff.lost(held);
        self.options.node.set_status(Status::Rebinding);
        self.rebind_later(context);
    }

    /// Closes the link; gives the counts of the requests of the master.
    fn cut(&mut self, context: &mut Context<Self>) -> DrainTally {
        let Some(wires) = self.wires.take() else {
            return self.drain_tally;
        };
        context.cancel_future(wires.beat);
        wires.outbox.close_now();
        self.events_dropped += wires.outbox.dropped();
        wires.writer.abort();
        let (answered, unanswered) = (wires.answering.finished(), wires.answering.len() as u64);
        wires.answering.cancel_all();
        DrainTally { answered, unanswered, failed: 0 }
    }

    fn rebind_later(&mut self, context: &mut Context<Self>) {
        let wait = self.backoff.next();
        log::debug!("{} binds again in {wait:?}", self.name);
        context.run_later(wait, |this, context| this.rebind(context));
    }

    fn rebind(&mut self, context: &mut Context<Self>) {
        if !self.link.rebinds() {
            return;
        }
        let (dial, address, within) =
            (Arc::clone(&self.dial), self.address.clone(), self.options.limits.bind_within);
        let content = self.bind_content();
        let binding = async move { establish(&*dial, &address, content, DIAL_WITHIN, within).await };
        context.spawn(binding.into_actor(self).map(|bound, this, context| {
            if !this.link.is_rebinding() {
                return;
            }
            match bound {
                Ok(established) => this.bound(established, context),
                Err(error) if error.may_return() => {
                    let line = match error {
                        // It lasts until somebody renews a certificate.
                        BindError::Tls { .. } => this.insecure.warn(Instant::now().into_std()),
                        _ => Line::DEBUG,
                    };
                    log_line!(line, "{} is not back yet: {error}", this.name);
                    this.rebind_later(context);
                }
                Err(error) => {
                    this.end(CallError::new(error.code(), Fate::NotSent, error.to_string()), context);
                }
            }
        }));
    }

    /// Ends the branch for good: every call ends with this error, and so does every later call.
    fn end(&mut self, why: CallError, context: &mut Context<Self>) {
        if !self.link.close() {
            return;
        }
        log_line!(Line::own(Level::Info), "{} has ended: {why}", self.name);
        self.options.node.set_writes_frames(false);
        self.cut(context);
        self.calls.end(&why);
        self.options.node.set_event_path(EventPath::Down);
        self.forget_others();
        self.options.node.close(why);
        context.stop();
    }

    /// Forgets the other nodes, and tells the watchers that they are offline.
    fn forget_others(&mut self) {
        let gone = self.options.node.with_known(|known| {
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

    /// The master, as the functions that it lends over this link know it.
    fn lender(&self) -> NodeLender {
        NodeLender { node: Arc::clone(&self.options.node), link: self.link.epoch() }
    }

    fn take(&mut self, frame: Frame, now: Instant, context: &mut Context<Self>) {
        let Some(wires) = &self.wires else {
            return;
        };
        match frame {
            Frame::Request(request) => self.request(request, None, now, None, context),
            Frame::OpenStream(OpenStream { grant, request }) => {
                self.request(request, Some(grant), now, None, context);
            }
            Frame::Started(callback_id) => self.calls.requests.borrow().started(callback_id),
            Frame::Item(Item { callback_id, mut payload }) => {
                let inbox = self.calls.requests.borrow().inbox(callback_id);
                match (borrow(&mut payload, &wires.outbox, || self.lender()), inbox) {
                    (Ok(()), Some(inbox)) => inbox.push((&payload).into(), || payload.clone()),
                    (Err(error), Some(inbox)) => inbox.end(Err(error.with_fate(Fate::Failed))),
                    // Its consumer has gone. The functions that came with the item are released.
                    (_, None) => {}
                }
            }
            Frame::Granted(Granted { callback_id, grant }) => wires.answering.grant(callback_id, grant),
            Frame::Response(Response { callback_id, outcome }) => {
                let outcome = borrow_outcome(outcome, &wires.outbox, || self.lender());
                self.calls.requests.borrow_mut().resolve(callback_id, outcome);
            }
            Frame::Described(described) => {
                let reply = Reply::described(described.actions);
                self.calls.requests.borrow_mut().resolve(described.callback_id, reply);
            }
            Frame::Cancel(callback_id) => {
                wires.answering.cancel(callback_id);
            }
            Frame::Publish(publish) => self.event(publish, None, context),
            Frame::LastValue(LastValue { handler, event }) => {
                let Publish { topic, publisher, headers, payload, .. } = event;
                self.subscribers.deliver_last(handler, &Event { topic, publisher, headers, payload });
            }
            Frame::Kept(Kept { callback_id, number }) => {
                self.calls.requests.borrow_mut().resolve(callback_id, Reply::kept(number));
            }
            Frame::Broadcast(Broadcast { topic, publisher, headers, payload }) => {
                self.broadcasts.deliver(&Event { topic, publisher, headers, payload });
            }
            Frame::Online(news) => self.news(Change::Online(news)),
            Frame::Offline(news) => self.news(Change::Offline(news)),
            Frame::Ping => wires.outbox.say(&Frame::Pong),
            Frame::Pong => {}
            Frame::Release(function) => wires.outbox.lent().release(function),
            Frame::Invoke(invoke) => {
                let lender = || self.lender();
                let in_flight_max = self.options.limits.in_flight_max;
                invoked(invoke, &wires.outbox, lender, &wires.answering, (in_flight_max, source_of));
            }
            Frame::Drain => self.master_drains(),
            Frame::Drained => {
                wires.drained.send_replace(true);
                self.link.drained();
            }
            Frame::Refused(Refused { code, message, may_return: false }) => {
                let line = Line::own(Level::Warn);
                log_line!(line, "{} ends: its master refuses it from now on ({code}): {message}", self.name);
                self.end(CallError::new(code, Fate::NotSent, message), context);
            }
            Frame::Refused(Refused { message, .. }) => self.lost(&message, context),
            Frame::Bind(_)
            | Frame::ExtendedBind(_)
            | Frame::Bound(_)
            | Frame::ExtendedBound(_)
            | Frame::Register(_)
            | Frame::Unregister(_)
            | Frame::Describe(_)
            | Frame::DescribeAfter(_)
            | Frame::Labels(_)
            | Frame::FindProviders(_)
            | Frame::Subscribe(_)
            | Frame::GiveBack(_)
            | Frame::KeepLast(_)
            | Frame::AskEra(_)
            | Frame::SubscribeToLast(_)
            | Frame::Unsubscribe(_) => self.lost("the master sent what only a branch may", context),
        }
    }

    /// Hands an event to its handlers, and then the events of its run that follow in the block.
    fn event(&mut self, publish: Publish, frames: Option<&mut Frames>, context: &mut Context<Self>) {
        let Publish { topic, publisher, for_all, groups, headers, payload } = publish;
        let event = Event { topic, publisher, headers, payload };
        if for_all {
            self.subscribers.deliver_next((&event).into());
        }
        for group in &groups {
            if !self.subscribers.deliver_to_group(group, &event) {
                self.give_back(group, &event, context);
            }
        }
        if let Some(frames) = frames
            && for_all
            && groups.is_empty()
        {
            while let Some(payload) = frames.next_event_of_run() {
                let (payload, headers) = (payload.by_ref(), &NO_HEADERS);
                self.subscribers.deliver_in_run(EventRef { payload, headers, ..(&event).into() });
            }
        }
    }

    /// Gives an event back that no handler of its group takes any more.
    fn give_back(&mut self, group: &ByteString, event: &Event, context: &mut Context<Self>) {
        // The master hears first that the branch is no member any more.
        self.withdraw_stopped(context);
        let knows_it = |wires: &&Wires| wires.features.contains(Features::GIVE_BACK);
        match self.wires.as_ref().filter(knows_it) {
            Some(wires) => {
                let Event { topic, publisher, headers, payload } = event.clone();
                let groups = vec![group.clone()];
                let publish = Publish { topic, publisher, for_all: false, groups, headers, payload };
                let _ = wires.outbox.push(&Frame::GiveBack(publish), Kind::Event);
            }
            None => self.events_dropped += 1,
        }
    }

    fn news(&mut self, change: Change) {
        self.options.node.with_known(|known| known.follow(&change));
        self.tell_watchers(&change);
    }

    /// Answers a request of the master, and then the requests of its run that follow in the block. A request for a stream comes with what its consumer
    /// grants at first.
    fn request(
        &mut self,
        request: Request,
        grant: Option<Grant>,
        now: Instant,
        frames: Option<&mut Frames>,
        context: &mut Context<Self>,
    ) {
        let Some(wires) = &self.wires else {
            return;
        };
        let Request { callback_id, action, caller, time_left, hops, headers, mut payload, .. } = request;
        // Before the request may be refused: then the functions that came with it are dropped, which releases them.
        if let Err(error) = borrow(&mut payload, &wires.outbox, || self.lender()) {
            return wires.outbox.respond(callback_id, Err(error));
        }
        if self.link.is_refusing() {
            let error = CallError::new(Code::DRAINING, Fate::NotSent, format!("{} is draining", self.name));
            return wires.outbox.respond(callback_id, Err(error));
        }
        let Some(own) = self.options.actions.find(&action) else {
            let what = format!("{} does not offer {action:?}", self.name);
            let error = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, what);
            return wires.outbox.respond(callback_id, Err(error));
        };
        if own.has_stopped() {
            let what = format!("the actor that answers {action:?} has stopped");
            wires.outbox.respond(callback_id, Err(CallError::new(Code::PROVIDER_LOST, Fate::NotSent, what)));
            return self.withdraw_stopped(context);
        }
        let deadline = time_left.and_then(|time_left| now.checked_add(time_left));
        // Names from a frame share the buffer of its block, which a responder that keeps its context would keep.
        if self.last_caller != caller {
            self.last_caller = ByteString::from(&*caller);
            self.last_lane = self.lanes.hash_one(&*caller);
        }
        let action = own.called(&action);
        let call = CallContext::new(action, self.last_caller.clone(), deadline, hops, headers);
        let replies = BlockReplies::new(&wires.outbox, &wires.gathered).in_lane(self.last_lane);
        if let Some(grant) = grant {
            return wires.answering.stream(own, (&payload).into(), &call, (callback_id, grant), &replies);
        }
        wires.answering.start(own, (&payload).into(), &call, callback_id, &replies);
        let Some(frames) = frames else {
            return;
        };
        // Requests that come together are of one run more often than not.
        while let Some((callback_id, arguments)) = frames.next_request_of_run() {
            wires.answering.start(own, arguments.by_ref(), &call, callback_id, &replies);
        }
    }

    /// Withdraws the actions, and unsubscribes the handlers, whose actors have stopped.
    fn withdraw_stopped(&mut self, context: &mut Context<Self>) {
        let handlers = [self.subscribers.stopped(), self.broadcasts.stopped()].concat();
        for (id, pattern) in handlers {
            let line = self.stopped.warn(Instant::now().into_std());
            log_line!(
                line,
                "{}: the actor that handles {pattern} has stopped: it is unsubscribed",
                self.name
            );
            self.actors_lost += 1;
            self.unsubscribe(id);
        }
        let stopped = self.options.actions.stopped();
        if stopped.is_empty() {
            return;
        }
        for action in &stopped {
            let line = self.stopped.warn(Instant::now().into_std());
            log_line!(line, "{}: the actor that answers {action:?} has stopped: it is withdrawn", self.name);
        }
        self.actors_lost += stopped.len() as u64;
        // The answer of the master is of no use: it withdraws the actions, or the link is lost.
        drop(self.withdraw(stopped, context));
    }

    /// Answers these actions no longer, and tells the master.
    fn withdraw(
        &mut self,
        actions: Vec<ByteString>,
        context: &mut Context<Self>,
    ) -> ResponseFuture<Result<(), CallError>> {
        for action in &actions {
            self.options.actions.remove(action);
        }
        self.options.node.set_own(&self.options.actions);
        let telling: Vec<_> = actions
            .chunks(ACTIONS_PER_FRAME_MAX)
            .map(|actions| {
                let actions = actions.to_vec();
                let say = |callback_id| Frame::Unregister(Unregister { callback_id, actions });
                self.tell_master(say, context)
            })
            .collect();
        Box::pin(async move { futures::future::join_all(telling).await.into_iter().collect() })
    }

    /// Looks at the actors from time to time, as long as there are any.
    fn check_actors_later(&mut self, context: &mut Context<Self>) {
        let needs_actors = self.options.actions.need_actors()
            || self.subscribers.need_actors()
            || self.broadcasts.need_actors();
        if self.checks_actors || !needs_actors {
            return;
        }
        self.checks_actors = true;
        context.run_later(ACTORS_CHECKED_EVERY, |this, context| {
            this.checks_actors = false;
            this.withdraw_stopped(context);
            this.check_actors_later(context);
        });
    }

    fn publish(&mut self, NewEvent { topic, headers, payload }: NewEvent) {
        let event = Event { topic, publisher: self.name.clone(), headers, payload };
        self.subscribers.deliver(&event);
        let Event { topic, headers, payload, .. } = event;
        let (publisher, groups) = (ByteString::new(), Vec::new());
        self.push_event(&Publish { topic, publisher, for_all: true, groups, headers, payload });
    }

    /// Says to a master that was started again what the node said to earlier ones. A master that was not has heard all.
    fn say_last_values_again(&mut self, context: &mut Context<Self>) {
        let knows_them = self.wires.as_ref().is_some_and(|wires| wires.features.contains(Features::LAST));
        if !knows_them || self.options.node.with_said(|said| said.is_empty()) {
            return;
        }
        let asking = self.ask_master(Frame::AskEra, Some(CALL_WITHIN), context);
        let epoch = self.link.epoch();
        context.spawn(asking.into_actor(self).map(move |era, this, _| {
            let era = era.and_then(Reply::into_kept).ok().flatten();
            let (Some(era), Some(wires)) = (era, this.wires.as_ref().filter(|_| this.link.is_link(epoch)))
            else {
                // The next bind asks again.
                return;
            };
            let (outbox, node) = (wires.outbox.clone(), Arc::clone(&this.options.node));
            actix_rt::spawn(async move {
                for SayAgain { topic, value, headers, number } in node.with_said(|said| said.before(era)) {
                    outbox.room().await;
                    let (publisher, groups, forgets) = (ByteString::new(), Vec::new(), value.is_none());
                    let payload = value.unwrap_or_default();
                    let event = Publish { topic, publisher, for_all: true, groups, headers, payload };
                    // The answer is not waited for: a master that has no room for the value keeps others.
                    let callback_id = node.draw();
                    let keep = KeepLast { callback_id, number: Some(number), forgets, event };
                    if outbox.push(&Frame::KeepLast(keep), Kind::Request) == Err(Refusal::Closed) {
                        return;
                    }
                }
            });
        }));
    }

    fn push_event<'a>(&mut self, frame: impl Into<FrameRef<'a>>) {
        match &self.wires {
            // A link that closes counts the event.
            Some(wires) => _ = wires.outbox.push(frame, Kind::OwnEvent),
            None => self.events_dropped += 1,
        }
    }

    /// Takes the notice of the master that it drains: what was published leaves, and nothing more, which the master is told.
    fn master_drains(&mut self) {
        let line = self.news.info(Instant::now().into_std());
        log_line!(line, "{}: the master drains", self.name);
        self.link.master_drains();
        self.options.node.set_writes_frames(false);
        self.options.node.set_event_path(EventPath::Closing);
        self.flush();
        if let Some(wires) = self.wires.as_ref().filter(|wires| wires.features.contains(Features::DRAINED)) {
            wires.outbox.say(&Frame::Drained);
        }
    }

    /// Takes the submissions of the handles, and carries them out.
    fn flush(&mut self) {
        let mut submissions = std::mem::take(&mut self.submissions);
        let departure = self.options.node.take_submissions(&mut submissions);
        self.calls.bind(departure);
        if submissions.iter().any(Submission::asks) {
            self.options.busy_poll.asked();
        }
        self.send_on(&mut submissions);
        self.submissions = submissions;
    }

    /// Carries out submissions, in their order.
    fn send_on(&mut self, submissions: &mut Vec<Submission>) {
        let now = Instant::now();
        let events_len = submissions.iter().map(Submission::event_len).sum();
        let mut submissions = submissions.drain(..).peekable();
        loop {
            let outbox = self.wires.as_ref().map(|wires| &wires.outbox);
            let path = match (self.link.course(), outbox) {
                (Course::Leaves, Some(outbox)) => Path::Link(outbox),
                (Course::Leaves | Course::Waits, _) => Path::Wait,
                (Course::Draining, _) => Path::Draining,
                (Course::Ended, _) => Path::Ended,
            };
            self.calls.send_calls(&mut submissions, &self.options.actions, path, now);
            let Some(submission) = submissions.next() else {
                break;
            };
            match submission {
                Submission::Cancel(callback_id) => self.calls.cancel(callback_id, outbox),
                Submission::Grant(granted) => self.calls.grant(granted, outbox),
                Submission::Invoke(invoking) => {
                    let outbox = outbox.filter(|_| self.link.is_link(invoking.link));
                    self.calls.invoke(*invoking, outbox);
                }
                Submission::Release { link, function } => {
                    if let Some(outbox) = outbox.filter(|_| self.link.is_link(link)) {
                        outbox.say(&Frame::Release(function));
                    }
                }
                Submission::Publish(event) => self.publish(event),
                Submission::KeepLast(keeping) => self.calls.keep_last(*keeping, outbox),
                Submission::Broadcast(NewEvent { topic, headers, payload }) => {
                    let publisher = ByteString::new();
                    self.push_event(&Frame::Broadcast(Broadcast { topic, publisher, headers, payload }));
                }
                Submission::Frames(_) | Submission::Ask(_) => {}
            }
        }
        self.options.node.events_left(events_len);
    }

    /// Tells the master of a change of the actions or subscriptions: now, or with the next bind. Waits for its answer if the link is bound.
    fn tell_master(
        &mut self,
        frame: impl FnOnce(CallbackId) -> Frame,
        context: &mut Context<Self>,
    ) -> ResponseFuture<Result<(), CallError>> {
        if !self.link.is_bound() {
            let said = self.link.say(frame(self.options.node.draw()));
            return Box::pin(async move { if said == Say::Never { Err(ended()) } else { Ok(()) } });
        }
        let reply = self.ask_master(frame, Some(CALL_WITHIN), context);
        Box::pin(async move { reply.await.and_then(Reply::into_outcome).map(drop) })
    }

    /// Sends the master a request over the link, and gives its reply.
    fn ask_master(
        &mut self,
        frame: impl FnOnce(CallbackId) -> Frame,
        within: Option<Duration>,
        context: &mut Context<Self>,
    ) -> LocalBoxFuture<'static, Result<Reply, CallError>> {
        let (caller, answer) = oneshot::channel();
        let hook = Waiter::Hook(Box::new(move |reply| drop(caller.send(reply))));
        let deadline = within.and_then(|within| Instant::now().checked_add(within)).map(Instant::into_std);
        let mut before = Vec::new();
        let opened = match self.options.node.open_alone(deadline, hook, &mut before) {
            Ok((departure_before, departure)) => {
                // Submissions of the handles leave before the request that the actor makes after them.
                self.calls.bind(departure_before);
                self.send_on(&mut before);
                self.calls.bind(Some(departure));
                let refused = match &self.wires {
                    Some(wires) => wires.outbox.push(&frame(departure.first), Kind::Request).err(),
                    None => Some(Refusal::Closed),
                };
                if let Some(refusal) = refused {
                    let error = refusal.into_error(Receiver::Master);
                    self.calls.requests.borrow_mut().resolve(departure.first, Err(error));
                }
                self.set_alarm(context);
                Ok(())
            }
            Err(refused) => Err(CallError::from(refused)),
        };
        Box::pin(async move {
            opened?;
            answer.await.map_err(|_| ended())
        })
    }

    fn set_alarm(&mut self, context: &mut Context<Self>) {
        if let Some(next) = self.calls.next_deadline() {
            self.alarm.set(next, context, |this: &mut Self, context| {
                this.alarm.rang();
                let outbox = this.wires.as_ref().map(|wires| &wires.outbox);
                this.calls.expire(Instant::now(), outbox);
                this.set_alarm(context);
            });
        }
    }
}

impl From<BranchSettings> for BranchActor {
    fn from(settings: BranchSettings) -> Self {
        let blocking = settings.options.limits.blocking();
        Self {
            calls: BranchCalls::new(&settings.options.node, &blocking),
            blocking,
            _ended: settings.ends_node,
            options: settings.options,
            name: settings.name,
            credentials: settings.credentials,
            dial: settings.dial,
            over: settings.over,
            dialect: settings.dialect,
            address: Address::from(""),
            frame_len_max: FRAME_LEN_MAX,
            incarnation: settings.incarnation,
            replaces: settings.replaces,
            backoff: settings.backoff,
            first_bind_within: settings.first_bind_within,
            silent: Repeated::new(),
            news: Repeated::news(),
            stopped: Repeated::news(),
            insecure: Repeated::new(),
            link: LinkState::new(),
            wires: None,
            drain_tally: DrainTally::default(),
            subscribers: Subscribers::new(),
            broadcasts: Subscribers::new(),
            watchers: Vec::new(),
            submissions: Vec::new(),
            drains: Vec::new(),
            actors_lost: 0,
            checks_actors: false,
            last_caller: ByteString::new(),
            last_lane: 0,
            lanes: Hashing::default(),
            events_dropped: 0,
            alarm: Alarm::default(),
        }
    }
}

impl ConfigureNode for BranchActor {
    fn options(&mut self) -> &mut NodeOptions {
        &mut self.options
    }
}

impl Actor for BranchActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if self.link.is_new() {
            // The actor was started without a bind, so there is no master to bind to.
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
        if !self.link.is_link(epoch) {
            return;
        }
        match inbound {
            Inbound::Block(block) => self.read(block, context),
            Inbound::Lost(Some(error)) => self.lost(&error.to_string(), context),
            Inbound::Lost(None) => self.lost("the master closed it", context),
        }
    }

    fn finished(&mut self, _: &mut Context<Self>) {
        // The end of a link came as `Inbound::Lost`; the actor outlives its links.
    }
}

impl BranchActor {
    fn read(&mut self, block: Block, context: &mut Context<Self>) {
        let now = Instant::now();
        self.link.heard(now.into_std());
        if !block.is_beat() {
            self.options.busy_poll.heard();
        }
        let mut frames = block.frames();
        // Items that come together are of one stream more often than not.
        let mut inlet = None;
        while self.link.is_bound() {
            match frames.read_next() {
                Some(Next::Reply { callback_id, payload }) => {
                    let reply = Reply::read(payload.by_ref(), || payload.share());
                    self.calls.requests.borrow_mut().resolve_in_row(callback_id, reply);
                }
                Some(Next::Request(request)) => self.request(request, None, now, Some(&mut frames), context),
                Some(Next::Event(event)) => self.event(event, Some(&mut frames), context),
                Some(Next::Item { callback_id, payload }) => {
                    if inlet.as_ref().is_none_or(|(id, _)| *id != callback_id) {
                        let inbox = self.calls.requests.borrow().inbox(callback_id);
                        inlet = inbox.map(|inbox| (callback_id, inbox));
                    }
                    if let Some((_, inbox)) = &inlet {
                        inbox.push(payload.by_ref(), || payload.share());
                    }
                }
                Some(Next::Other(frame)) => self.take(frame, now, context),
                Some(Next::Broken(error)) => self.lost(&error.to_string(), context),
                None => break,
            }
        }
        self.calls.requests.borrow_mut().end_row();
        self.subscribers.end_run();
        if self.subscribers.met_stopped() || self.broadcasts.met_stopped() {
            self.withdraw_stopped(context);
        }
        if let Some(wires) = &self.wires {
            wires.outbox.push_gathered(&wires.gathered);
            if wires.outbox.is_overfull() {
                self.lost("the master asks and does not read", context);
            }
        }
    }
}

impl Handler<Flush> for BranchActor {
    type Result = ();

    fn handle(&mut self, _: Flush, context: &mut Context<Self>) {
        self.flush();
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
                // Sent for each handler, not only for the first of its key: the answer says that the master knows of the key.
                self.subscribers.insert(id, key.clone(), subscriber);
                let features = self.wires.as_ref().map_or(Features::ALL, |wires| wires.features);
                let say = |callback_id| {
                    let subscribe = meshwork_wire::Subscribe { callback_id, key };
                    let frame = Frame::SubscribeToLast(SubscribeToLast { subscribe, handler: id.0 });
                    frame.for_features(features)
                };
                Some(self.tell_master(say, context))
            }
        };
        self.check_actors_later(context);
        let told = async move {
            match telling {
                Some(telling) => telling.await,
                None => Ok(()),
            }
        };
        Box::pin(told.into_actor(self).map(move |told, this, _| match told {
            // A link that was lost meanwhile carries the subscription into the next bind.
            Ok(()) => Ok(()),
            Err(error) if error.code() == Code::LINK_LOST && this.link.may_return() => Ok(()),
            Err(error) => {
                // The master may have subscribed the branch, and its answer was late.
                this.unsubscribe(id);
                Err(error)
            }
        }))
    }
}

impl Handler<Unsubscribe> for BranchActor {
    type Result = ();

    fn handle(&mut self, Unsubscribe(id): Unsubscribe, _: &mut Context<Self>) {
        self.unsubscribe(id);
    }
}

impl BranchActor {
    /// Takes a handler out, and tells the master if it was the last of its pattern and group.
    fn unsubscribe(&mut self, id: SubscriberId) {
        self.broadcasts.remove(id);
        if let Some(key) = self.subscribers.remove(id) {
            let frame = Frame::Unsubscribe(key);
            if let (Say::Now(frame), Some(wires)) = (self.link.say(frame), &self.wires) {
                wires.outbox.say(&frame);
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
        // The actor of an action that is taken may have stopped.
        self.withdraw_stopped(context);
        let extended = self.options.actions.extend(actions);
        if extended.is_ok() {
            self.options.node.set_own(&self.options.actions);
            let node = Arc::clone(&self.options.node);
            let frame_len_max =
                self.wires.as_ref().map_or(FRAME_LEN_MAX, |wires| wires.outbox.frame_len_max());
            for register in registers(offers, frame_len_max, &|| node.draw()) {
                let offers = register.offers;
                let say = |callback_id| Frame::Register(meshwork_wire::Register { callback_id, offers });
                telling.push(self.tell_master(say, context));
            }
        }
        self.check_actors_later(context);
        let told = async move {
            extended?;
            Ok(futures::future::join_all(telling).await)
        };
        Box::pin(told.into_actor(self).then(move |told: Result<Vec<_>, CallError>, this, context| {
            let errors = match told {
                Ok(told) => told.into_iter().filter_map(Result::err).collect(),
                // None of the actions was added.
                Err(error) => return Either::Left(futures::future::ready(Err(error))).into_actor(this),
            };
            let (refusal, silence) = this.link.refusal_of(errors);
            let Some(refusal) = refusal else {
                let outcome = silence.map_or(Ok(()), Err);
                return Either::Left(futures::future::ready(outcome)).into_actor(this);
            };
            // All or none: the master may have accepted the other frames.
            let withdrawing = this.withdraw(names, context);
            let withdrawn = async move {
                // A link that is lost meanwhile withdraws the actions too.
                let _ = withdrawing.await;
                Err(refusal)
            };
            Either::Right(withdrawn).into_actor(this)
        }))
    }
}

impl Handler<Withdraw> for BranchActor {
    type Result = ResponseActFuture<Self, Result<(), CallError>>;

    fn handle(&mut self, Withdraw(actions): Withdraw, context: &mut Context<Self>) -> Self::Result {
        let told = self.withdraw(actions, context).into_actor(self);
        Box::pin(told.map(|told, this, _| match told {
            // The next bind does not offer the actions.
            Err(error) if error.code() == Code::LINK_LOST && this.link.may_return() => Ok(()),
            told => told,
        }))
    }
}

impl Handler<Describe> for BranchActor {
    type Result = ResponseFuture<Result<Vec<ActionDescription>, CallError>>;

    fn handle(&mut self, Describe { pattern, within }: Describe, _: &mut Context<Self>) -> Self::Result {
        let node = Arc::clone(&self.options.node);
        Box::pin(async move { node.describe(pattern, within).await })
    }
}

impl Handler<DescribePart> for BranchActor {
    type Result = ResponseFuture<Result<Vec<ActionDescription>, CallError>>;

    fn handle(
        &mut self,
        DescribePart { pattern, after, within }: DescribePart,
        context: &mut Context<Self>,
    ) -> Self::Result {
        let Some(wires) = &self.wires else {
            return Box::pin(async { Err(link_down()) });
        };
        if !after.is_empty() && !wires.features.contains(Features::DESCRIBE_AFTER) {
            // Such a master cuts its answer at the same count, and does not say so.
            return Box::pin(async { Ok(Vec::new()) });
        }
        let say = |callback_id| {
            if after.is_empty() {
                Frame::Describe(meshwork_wire::Describe { callback_id, pattern })
            } else {
                Frame::DescribeAfter(meshwork_wire::DescribeAfter { callback_id, pattern, after })
            }
        };
        let reply = self.ask_master(say, Some(within), context);
        Box::pin(async move { reply.await?.into_described() })
    }
}

impl Handler<FindProviders> for BranchActor {
    type Result = ResponseFuture<Result<Vec<Provided>, CallError>>;

    fn handle(&mut self, find: FindProviders, context: &mut Context<Self>) -> Self::Result {
        let FindProviders { action, labels, within } = find;
        let Some(wires) = &self.wires else {
            return Box::pin(async { Err(link_down()) });
        };
        if !wires.features.contains(Features::LABELS) {
            return Box::pin(async { Err(Refusal::NoChoice.into_error(Receiver::Master)) });
        }
        let me = wires.session;
        let say =
            |callback_id| Frame::FindProviders(meshwork_wire::FindProviders { callback_id, action, labels });
        let reply = self.ask_master(say, Some(within), context);
        Box::pin(async move {
            let found: Vec<(SessionId, ByteString)> = reply.await?.decode()?;
            Ok(found.into_iter().map(|(id, node)| Provided::of(id, node, me)).collect())
        })
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
        let (answering, dropped, lent, borrowed) = match &self.wires {
            Some(wires) => {
                let lent = wires.outbox.lent();
                (wires.answering.len(), wires.outbox.dropped(), lent.len(), lent.borrowed())
            }
            None => (0, 0, 0, 0),
        };
        let events = self.subscribers.counts() + self.broadcasts.counts();
        let (last_values, last_values_len) = self.options.node.with_said(|said| (said.len(), said.bytes()));
        MessageResult(Snapshot {
            name: self.name.clone(),
            calls_in_flight: self.calls.len(),
            calls_waiting: self.calls.waiting(),
            answering: answering + self.calls.own_answering.len(),
            own_actions: self.options.actions.len(),
            actions: self.options.node.with_known(|known| known.action_count()),
            subscriptions: self.subscribers.len() + self.broadcasts.len(),
            events_dropped: self.events_dropped + dropped + events.dropped,
            events_superseded: events.superseded,
            events_undecodable: events.undecodable,
            events_failed: events.failed,
            last_values,
            last_values_len,
            actors_lost: self.actors_lost,
            restarting: self.options.node.restarting(),
            denied: Denied::default(),
            callbacks_lent: lent,
            callbacks_borrowed: borrowed,
            sessions: Vec::new(),
        })
    }
}

#[cfg(feature = "testing")]
impl Handler<TakeCensus> for BranchActor {
    type Result = MessageResult<TakeCensus>;

    fn handle(&mut self, _: TakeCensus, _: &mut Context<Self>) -> Self::Result {
        let mut census = Census::of(
            &[
                ("calls of its handles", self.options.node.in_flight()),
                ("streams that are read", self.options.node.streams()),
                ("streams that it produces for itself", self.calls.own_answering.streams()),
                ("calls that have left", self.calls.len()),
                ("calls that wait for a link", self.calls.waiting()),
                ("calls with a destination", self.calls.requests.borrow().with_destination()),
                ("calls that it answers itself", self.calls.own_answering.len()),
                ("drains", self.drains.len()),
                ("submissions", self.submissions.len()),
            ],
            &[
                ("actions", self.options.actions.len()),
                ("subscriptions", self.subscribers.len()),
                ("subscription keys", self.subscribers.keys().count()),
                ("subscriptions to broadcasts", self.broadcasts.len()),
                ("known actions", self.options.node.with_known(|known| known.action_count())),
                ("links", usize::from(self.wires.is_some())),
            ],
        );
        if let Some(wires) = &self.wires {
            let lent = wires.outbox.lent();
            let link = Census::of(
                &[
                    ("requests that are being answered", wires.answering.len()),
                    ("streams that are produced", wires.answering.streams()),
                    ("functions lent", lent.len()),
                    ("functions borrowed", lent.borrowed()),
                    ("bytes in the outbox", wires.outbox.len()),
                ],
                &[],
            );
            census.add("link", link);
        }
        MessageResult(census)
    }
}

impl Handler<Drain> for BranchActor {
    type Result = ResponseFuture<Drained>;

    fn handle(&mut self, Drain { within }: Drain, context: &mut Context<Self>) -> Self::Result {
        let (tell, told) = oneshot::channel();
        let is_first = self.drains.is_empty();
        self.drains.push(tell);
        // A second drain waits for the first.
        if is_first {
            self.drain(within, context);
        }
        Box::pin(async move { told.await.unwrap_or_default() })
    }
}

impl BranchActor {
    fn drain(&mut self, within: Duration, context: &mut Context<Self>) {
        self.options.node.set_status(Status::Draining);
        // Submissions before the drain may still leave.
        self.flush();
        let own = self.calls.len() as u64;
        let is_answered = self.wires.as_ref().is_some_and(|wires| wires.features.contains(Features::DRAINED));
        self.link.drain(is_answered);
        self.options.node.set_writes_frames(false);
        // A branch that drains never binds again. Calls wait without a link, and while the master drains.
        let never_left = self.calls.wait_no_longer(&draining()) as u64;
        let finished_before = self.answered();
        let requested = self.wires.as_ref().map(|wires| {
            wires.outbox.say(&Frame::Drain);
            (wires.drained.subscribe(), wires.answering.idle())
        });
        let (node, blocking) = (Arc::clone(&self.options.node), Arc::clone(&self.blocking));
        let settled = async move {
            if let Some((mut drained, requested)) = requested {
                if is_answered {
                    // A link that is lost meanwhile brings no more requests either.
                    let _ = drained.wait_for(|drained| *drained).await;
                }
                requested.await;
            }
            node.idle().await;
            // Also work whose caller has gone.
            blocking.idle().await;
        };
        let waiting = async move {
            // The counts of unanswered requests and unsettled calls show whether all settled in time.
            let _ = tokio::time::timeout(within, settled).await;
        };
        let begun = Instant::now();
        let handled = waiting.into_actor(self).then(move |(), this, _| {
            // The handlers that are at work, or have events before them, finish within the same time.
            let idle = futures::future::join(this.subscribers.idle(), this.broadcasts.idle());
            let left = within.saturating_sub(begun.elapsed());
            async move { drop(tokio::time::timeout(left, idle).await) }.into_actor(this)
        });
        let draining = handled.then(move |(), this, _| {
            let finished = this.answered() - finished_before;
            let (unanswered, failed) = match &this.wires {
                Some(wires) => (wires.answering.len() as u64, 0),
                None => (this.drain_tally.unanswered, this.drain_tally.failed),
            };
            let unsettled = this.calls.len() as u64;
            let drained = Drained {
                finished: finished + own.saturating_sub(never_left + unsettled + failed),
                abandoned: never_left + unanswered + unsettled + failed,
            };
            // The last replies, and what was published until now, leave before the link closes.
            this.options.node.set_event_path(EventPath::Closing);
            this.flush();
            let last = this.wires.as_mut().map(|wires| {
                wires.answering.cancel_all();
                wires.closes = true;
                wires.outbox.close();
                let writer = std::mem::replace(&mut wires.writer, actix_rt::spawn(async {}));
                (writer, wires.drained.subscribe())
            });
            let flushed = async move {
                if let Some((writer, mut link)) = last {
                    // A socket that is closed while it has unread bytes takes back what its far end has not read: so the link is read until the
                    // master has closed it, too, or is lost.
                    let closed = async {
                        let _ = writer.await;
                        while link.changed().await.is_ok() {}
                    };
                    let _ = tokio::time::timeout(LINGER, closed).await;
                }
            };
            flushed.into_actor(this).map(move |(), this, context| {
                for tell in this.drains.drain(..) {
                    // Whoever asked may wait no longer.
                    let _ = tell.send(drained);
                }
                this.end(CallError::new(Code::DRAINING, Fate::NotSent, "the branch has drained"), context);
            })
        });
        context.spawn(draining);
    }
}

impl BranchActor {
    /// How many requests that were not answered at once have been answered over this link.
    fn answered(&self) -> u64 {
        self.wires.as_ref().map_or(self.drain_tally.answered, |wires| wires.answering.finished())
    }
}

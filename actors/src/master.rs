//! The master: the process that branches bind to. It listens, starts a session for each connection, and is itself a node: it calls,
//! responds, subscribes, publishes. It takes [`Listen`], [`Flush`] and the other messages of `node/mailboxes.rs`, among them [`Drain`],
//! and [`Replies`] from the sessions that it forwarded requests to.

mod accept;
mod admission;
mod bundles;
mod calls;
mod denials;
mod dispatch;
mod feeds;
mod file_error;
mod forwarded;
pub(crate) mod handle;
mod identities;
mod in_all;
mod last_values;
mod listen;
mod passing;
mod permissions;
pub(crate) mod registry;
pub(crate) mod rest;
mod router;
mod session;
mod standing;
mod subscribed;
mod surroundings;
pub(crate) mod wishes;

pub use file_error::FileError;
pub use identities::{Identities, token_digest};
pub use listen::{Listen, ListenError};
pub use passing::{PassLayer, PassThrough, Passed, PassingRequest};
pub use permissions::{Authenticate, Identity, Permissions, Verb};
pub use registry::RegistryActor;
pub use registry::route::Balance;
pub use registry::table::OnNameTaken;
pub use router::RouterActor;
pub use session::SessionActor;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use session::model as session_model;
pub use surroundings::SessionSpawner;

use crate::answers::Actions;
use crate::events::Event;
use crate::link::Address;
use crate::link::outbox::Outbox;
use crate::log_line;
#[cfg(feature = "testing")]
use crate::node::census::{Census, TakeCensus};
use crate::node::mailboxes::{
    Describe, DescribePart, Drain, Drained, FindProviders, Flush, Mailboxes, Provided, Respond, Subscribe,
    TakeSnapshot, Unsubscribe, Watch, Withdraw,
};
use crate::node::options::{ConfigureNode, NodeOptions};
use crate::node::shared::{EventPath, Node};
use crate::node::submission::{Keeping, NewEvent, Submission};
use crate::node::{Change, Snapshot, Status};
use crate::repeated::{Line, Repeated};
use crate::turns::alarm::Alarm;
use accept::accept;
use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, MessageResult, Recipient,
    ResponseActFuture, ResponseFuture, WrapFuture,
};
use calls::MasterCalls;
use forwarded::MASTER;
use futures::future::LocalBoxFuture;
use handle::Replies;
use in_all::InAll;
use log::Level;
use meshwork_wire::limits::{
    ACTORS_CHECKED_EVERY, FRAME_LEN_MAX, HEARTBEAT_EVERY, HEARTBEAT_EVERY_MIN, SUBSCRIBER_WAIT_MAX,
};
use meshwork_wire::{ByteString, CallError, CallbackId, Code, Fate, check_node, check_token};
#[cfg(feature = "testing")]
use registry::route::Provider as _;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use surroundings::{Config, MasterShared};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The process that branches bind to. Build it, `start()` it in an actix system, send it [`Listen`].
pub struct MasterActor {
    name: ByteString,
    config: Config,
    options: NodeOptions,
    /// The layers around the requests that pass, in the order in which requests meet them.
    pass_layers: Vec<PassLayer>,
    running: Option<Master>,
}

/// The settings of a master that has not started: what was set on its [`MasterActor`], which is made from them again. Unlike the actor they
/// are `Send`: a program that starts the master on another thread sends the settings there.
pub struct MasterSettings {
    name: ByteString,
    config: Config,
    options: NodeOptions,
    pass_layers: Vec<PassLayer>,
}

/// The state of a master that has started.
struct Master {
    shared: Arc<MasterShared>,
    calls: MasterCalls,
    listeners: Vec<AbortHandle>,
    submissions: Vec<Submission>,
    /// Events of the master that wait for the router, in their order. Bounded as the queue of the node is, which counts them.
    events: VecDeque<OwnEvent>,
    /// Whether the router is handling events of the master.
    is_publishing: bool,
    alarm: Alarm,
    /// Those who wait for the drain to end; empty if the master does not drain. Bounded by the callers that asked for it.
    drains: Vec<oneshot::Sender<Drained>>,
    /// How many actors that answered an action had stopped.
    actors_lost: u64,
    /// Whether a timer looks at the actors.
    checks_actors: bool,
}

/// An event that the master publishes, or broadcasts.
struct OwnEvent {
    event: Event,
    kind: OwnKind,
    /// See [`Submission::event_len`].
    len: usize,
}

/// What a master does with an event of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnKind {
    Publish,
    Broadcast,
    /// The answer goes to the call of this id.
    KeepLast {
        callback_id: CallbackId,
        forgets: bool,
    },
}

/// Gives the node of this master, which its handles share. Sent by a handle that was made from its address.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "Arc<Node>")]
pub struct Attach;

impl MasterActor {
    /// A master without actions, which lets every branch bind and listens on no address yet.
    #[must_use]
    pub fn new(name: impl Into<ByteString>) -> Self {
        let name = name.into();
        Self {
            options: NodeOptions::new(name.clone()),
            name,
            config: Config {
                heartbeat: HEARTBEAT_EVERY,
                frame_len_max: FRAME_LEN_MAX,
                on_taken: OnNameTaken::default(),
                balance: Balance::default(),
                token: None,
                identities: None,
                authenticate: None,
                spawner: None,
                era: None,
            },
            pass_layers: Vec::new(),
            running: None,
        }
    }

    /// Lets in only branches that show this token, which is compared in constant time. Default: every branch.
    #[must_use]
    pub fn token(mut self, token: impl Into<ByteString>) -> Self {
        self.config.token = Some(token.into());
        self
    }

    /// Lets in the branches that these identities know, each as its identity and with its permissions; nothing is permitted that they do not
    /// permit. Default: none, and every branch that is let in may do everything. With identities, the [token](Self::token) of the master is not
    /// asked for. A running master takes other identities by [`SetIdentities`].
    #[must_use]
    pub fn identities(mut self, identities: Identities) -> Self {
        self.config.identities = Some(Arc::new(identities));
        self
    }

    /// Lets in the branches that this recipient lets in, each as the [`Identity`] that it answers. The recipient has the rest of the bind
    /// deadline to answer. If the master has a [token](Self::token) or [identities](Self::identities) too, these are checked first; the recipient is
    /// told the identity, and its answer takes the place of that identity, with its permissions.
    #[must_use]
    pub fn authenticate(mut self, recipient: Recipient<Authenticate>) -> Self {
        self.config.authenticate = Some(recipient);
        self
    }

    /// Starts the sessions through this spawner, on other arbiters. Default: on the arbiter of the master.
    #[must_use]
    pub fn session_spawner(mut self, spawner: impl SessionSpawner) -> Self {
        self.config.spawner = Some(Arc::new(spawner));
        self
    }

    /// What happens when a branch binds under a name that another branch has. Default: [`OnNameTaken::Refuse`]. A branch that binds again after
    /// its link was lost replaces its own earlier session in any case.
    #[must_use]
    pub fn on_name_taken(mut self, on_taken: OnNameTaken) -> Self {
        self.config.on_taken = on_taken;
        self
    }

    /// Which of several providers of an action gets a request. Default: [`Balance::LeastOfTwo`].
    #[must_use]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.config.balance = balance;
        self
    }

    /// How often a branch must send something; after three silent heartbeats its link is given up. Default: 5 s; at least 10 ms.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.config.heartbeat = every.max(HEARTBEAT_EVERY_MIN);
        self
    }

    /// The longest frame that a bound branch may send, in bytes. Default and most: 16 MiB. A longer frame ends the link.
    #[must_use]
    pub fn frame_len_max(mut self, len: usize) -> Self {
        self.config.frame_len_max = len.min(FRAME_LEN_MAX);
        self
    }

    /// The number with which the numbers of last values begin: see [`Kept`](meshwork_wire::Kept). A master that was started again must have a later
    /// one than before. Default: the microseconds of the machine's clock. For simulations, whose time is their own.
    #[doc(hidden)]
    #[must_use]
    pub fn era(mut self, era: u64) -> Self {
        self.config.era = Some(era);
        self
    }

    /// The settings of this master, which may be sent to another thread: [`MasterActor::from`] makes the master of them there.
    #[must_use]
    pub fn into_settings(self) -> MasterSettings {
        let Self { name, config, options, pass_layers, .. } = self;
        MasterSettings { name, config, options, pass_layers }
    }

    /// Adds a layer around the requests that pass, inside the layers that were added before.
    #[doc(hidden)]
    #[must_use]
    pub fn pass_layer(mut self, layer: PassLayer) -> Self {
        self.pass_layers.push(layer);
        self
    }

    /// The node of this master, which its handles share.
    #[doc(hidden)]
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.options.node
    }

    /// Hands the router the events that wait for it, unless it is handling earlier ones. The next ones wait until the router has handled these,
    /// and for a moment until the subscribers whose outboxes these have filled have read them.
    fn publish(&mut self, context: &mut Context<Self>) {
        let running = self.running();
        if running.is_publishing {
            return;
        }
        let Some((asking, len)) = running.next_events() else {
            return;
        };
        running.is_publishing = true;
        let publishing = async move {
            let filled = asking.await;
            let waiting = filled.iter().map(|outbox| outbox.room_within(SUBSCRIBER_WAIT_MAX));
            futures::future::join_all(waiting).await;
        };
        context.spawn(publishing.into_actor(self).map(move |(), this, context| {
            this.options.node.events_left(len);
            this.running().is_publishing = false;
            this.publish(context);
        }));
    }

    /// Actions with the labels of this master.
    fn labelled(&self, actions: Actions) -> Actions {
        match self.options.labels.clone() {
            None => actions,
            Some(labels) => actions.with_labels(&Arc::new(labels)),
        }
    }

    fn running(&mut self) -> &mut Master {
        self.running.as_mut().expect("it is made in `started`, before anything else")
    }

    /// Ends the handling of a message: asks the registry about all new actions, and sends the messages to the sessions.
    fn end_message(&mut self, context: &mut Context<Self>) {
        let this = self.running();
        let lookups = this.calls.take_lookups();
        this.calls.send();
        if !lookups.is_empty() {
            let asking = this.shared.registry.send(registry::Lookup { actions: lookups.clone() });
            context.spawn(asking.into_actor(self).map(move |found, this, context| {
                this.running().calls.looked_up(lookups, found.unwrap_or_default());
                this.end_message(context);
            }));
        }
        self.set_alarm(context);
    }

    /// Looks from time to time whether the actors that answer actions are running, as long as there are any. Requests pass one that has stopped
    /// over at once.
    fn check_actors_later(&mut self, context: &mut Context<Self>) {
        if self.running().checks_actors || !self.options.actions.need_actors() {
            return;
        }
        self.running().checks_actors = true;
        context.run_later(ACTORS_CHECKED_EVERY, |this, context| {
            this.running().checks_actors = false;
            this.withdraw_stopped();
            this.check_actors_later(context);
        });
    }

    /// Withdraws the actions whose actors have stopped.
    fn withdraw_stopped(&mut self) {
        let stopped = self.options.actions.stopped();
        for action in &stopped {
            static STOPPED: Repeated = Repeated::news();
            let line = STOPPED.warn(Instant::now().into_std());
            log_line!(line, "{}: the actor that answers {action:?} has stopped: it is withdrawn", self.name);
            self.options.actions.remove(action);
        }
        if !stopped.is_empty() {
            self.options.node.set_own(&self.options.actions);
        }
        let running = self.running();
        running.actors_lost += stopped.len() as u64;
        if !stopped.is_empty() {
            #[expect(clippy::disallowed_methods, reason = "bounded by the actions: each stops once")]
            running.shared.registry.do_send(registry::WithdrawOwn(stopped));
        }
    }

    fn set_alarm(&mut self, context: &mut Context<Self>) {
        let running = self.running();
        if let Some(next) = running.calls.next_deadline() {
            running.alarm.set(Instant::from_std(next), context, |this: &mut Self, context| {
                let running = this.running();
                running.alarm.rang();
                running.calls.expire(Instant::now().into_std());
                this.end_message(context);
            });
        }
    }
}

impl Master {
    /// Sends the router the next events: all up to the next one that is not published alone, or that one. Gives its answer, which names the
    /// outboxes that were filled, and how many bytes the events take.
    fn next_events(&mut self) -> Option<(LocalBoxFuture<'static, Vec<Outbox>>, usize)> {
        let router = self.shared.router.clone();
        let mut events = Vec::new();
        let mut sum = 0;
        while let Some(OwnEvent { event, len, .. }) = self.next_event(OwnKind::Publish) {
            sum += len;
            events.push(event);
        }
        if !events.is_empty() {
            let asking = router.send(router::Publish { from: None, events, charge: None });
            return Some((Box::pin(async move { asking.await.unwrap_or_default() }), sum));
        }
        let OwnEvent { event, kind, len } = self.events.pop_front()?;
        match kind {
            OwnKind::Publish | OwnKind::Broadcast => {
                let asking = router.send(router::Broadcast { from: None, event, charge: None });
                Some((Box::pin(async move { asking.await.unwrap_or_default() }), len))
            }
            OwnKind::KeepLast { callback_id, forgets } => {
                let kept = router::KeptLast { event, forgets, number: None };
                let (asking, answer) =
                    (router.send(router::KeepOwnLast(kept)), self.calls.answer(callback_id));
                let keeping = async move {
                    answer(asking.await.unwrap_or_else(|_| Err(ending())));
                    Vec::new()
                };
                Some((Box::pin(keeping), len))
            }
        }
    }

    /// Takes the next event, if it is of this kind.
    fn next_event(&mut self, kind: OwnKind) -> Option<OwnEvent> {
        self.events.front().is_some_and(|event| event.kind == kind).then_some(())?;
        self.events.pop_front()
    }
}

impl From<MasterSettings> for MasterActor {
    fn from(settings: MasterSettings) -> Self {
        let MasterSettings { name, config, options, pass_layers } = settings;
        Self { name, config, options, pass_layers, running: None }
    }
}

impl ConfigureNode for MasterActor {
    fn options(&mut self) -> &mut NodeOptions {
        &mut self.options
    }
}

impl Actor for MasterActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if let Err(error) = check_node(&self.name) {
            log_line!(Line::own(Level::Error), "a master cannot be named so: {error}");
        }
        if let Some(Err(error)) = self.config.token.as_deref().map(check_token) {
            log_line!(Line::own(Level::Error), "a master cannot have this token: {error}");
        }
        self.options.set_layers();
        let address = context.address();
        let limits = &self.options.limits;
        let offered = InAll::new(limits.offered_len_max, limits.offered_in_all_len_max);
        let registry = RegistryActor::new(self.name.clone(), offered).start();
        let era = self.config.era.unwrap_or_else(era);
        let router = RouterActor::new(limits, era).start();
        #[expect(clippy::disallowed_methods, reason = "bounded to one: at the start")]
        registry.do_send(registry::OfferOwn(self.labelled(self.options.actions.clone())));
        let node = Arc::clone(&self.options.node);
        let shared = Arc::new(MasterShared::new(
            node,
            self.config.clone(),
            self.options.limits.clone(),
            self.options.busy_poll,
            (registry, router),
            era,
            passing::compose(std::mem::take(&mut self.pass_layers)),
        ));
        self.running = Some(Master {
            calls: MasterCalls::new(Arc::clone(&shared), Arc::new(address.clone())),
            shared,
            listeners: Vec::new(),
            submissions: Vec::new(),
            events: VecDeque::new(),
            is_publishing: false,
            alarm: Alarm::default(),
            drains: Vec::new(),
            actors_lost: 0,
            checks_actors: false,
        });
        self.check_actors_later(context);
        // The master keeps the cache of other nodes that a branch keeps.
        let node = Arc::clone(&self.options.node);
        let follow = move |change: &Change| {
            if change.news().session != MASTER {
                node.with_known(|known| known.follow(change));
            }
        };
        #[expect(clippy::disallowed_methods, reason = "bounded to one: at the start")]
        self.running().shared.registry.do_send(registry::Watch(Box::new(follow)));
        self.options.node.set_own(&self.options.actions);
        self.options.node.set_event_path(EventPath::Router);
        self.options.node.set_status(Status::Bound);
        self.options.node.open_mailboxes(Mailboxes::of(&address));
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        let ended = CallError::new(Code::LINK_LOST, Fate::Unknown, "the master has ended");
        self.options.node.close(ended.clone().with_fate(Fate::NotSent));
        if let Some(mut running) = self.running.take() {
            running.calls.fail_all(&ended);
            for listener in running.listeners {
                listener.abort();
            }
        }
    }
}

/// Takes other identities while the master runs. Sent by your code. Each branch that is bound is looked at again: calls, and what it offers or
/// subscribes to from now on, need the new permissions at once. A branch that the new identities do not know, or whose name, offers or
/// subscriptions they do not permit, is refused with `NOT_PERMITTED` and the reason. A branch that may publish or describe something else than
/// before is told to bind again, which it does by itself. A branch for which nothing changes notices nothing.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetIdentities(pub Identities);

impl Handler<SetIdentities> for MasterActor {
    type Result = ();

    fn handle(&mut self, SetIdentities(identities): SetIdentities, _: &mut Context<Self>) {
        for session in self.running().shared.set_identities(Arc::new(identities)) {
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded by the changes, which the operator makes: one message each"
            )]
            session.mailboxes().reconsider().do_send(handle::Reconsider);
        }
    }
}

impl Handler<Listen> for MasterActor {
    type Result = ResponseActFuture<Self, Result<Address, ListenError>>;

    fn handle(&mut self, listen: Listen, _: &mut Context<Self>) -> Self::Result {
        let (requested, lets_in) = (listen.requested.clone(), listen.lets_in());
        let name = check_node(&self.name).map_err(|error| error.to_string());
        let token = self.config.token.as_deref().map_or(Ok(()), check_token);
        let right = name.and(token.map_err(|error| error.to_string()));
        let shared = &self.running().shared;
        let checks_binds = shared.config.token.is_some()
            || shared.config.authenticate.is_some()
            || shared.identities().is_some();
        let opening = async move {
            right.map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
            listen.open(checks_binds).await
        };
        Box::pin(opening.into_actor(self).map(move |opened, this, _| match opened {
            // Nobody would tell the branches that bind here that the master ends.
            Ok(_) if this.running().shared.is_draining() => {
                let source = io::Error::other("the master is draining");
                Err(ListenError { address: requested, source })
            }
            Ok(listening) => {
                let address = listening.accept.address();
                log_line!(Line::own(Level::Info), "{} listens on {address}", this.name);
                let running = this.running();
                let task = actix_rt::spawn(accept(listening, Arc::clone(&running.shared), lets_in));
                running.listeners.push(task.abort_handle());
                Ok(address)
            }
            Err(source) => Err(ListenError { address: requested, source }),
        }))
    }
}

impl Handler<Attach> for MasterActor {
    type Result = MessageResult<Attach>;

    fn handle(&mut self, _: Attach, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Arc::clone(&self.options.node))
    }
}

impl Handler<Flush> for MasterActor {
    type Result = ();

    fn handle(&mut self, _: Flush, context: &mut Context<Self>) {
        self.flush(context);
    }
}

impl MasterActor {
    /// Takes the submissions of the handles, and carries them out.
    fn flush(&mut self, context: &mut Context<Self>) {
        let mut submissions = std::mem::take(&mut self.running().submissions);
        let departure = self.options.node.take_submissions(&mut submissions);
        let asks = submissions.iter().any(Submission::asks);
        let mut left = 0;
        let publisher = self.name.clone();
        let Master { calls, events, .. } = self.running();
        calls.bind(departure);
        for submission in submissions.drain(..) {
            let len = submission.event_len();
            match submission {
                Submission::Ask(ask) => calls.ask(*ask),
                // A master has no link of its own, so callers write no frames.
                Submission::Frames(_) => {}
                Submission::Cancel(callback_id) => calls.cancel(callback_id),
                Submission::Grant(granted) => calls.grant(granted),
                Submission::Invoke(invoking) => {
                    left += len;
                    calls.invoke(*invoking);
                }
                Submission::Release { link, function } => calls.release(link, function),
                Submission::Publish(NewEvent { topic, headers, payload }) => {
                    let event = Event { topic, publisher: publisher.clone(), headers, payload };
                    events.push_back(OwnEvent { event, kind: OwnKind::Publish, len });
                }
                Submission::Broadcast(NewEvent { topic, headers, payload }) => {
                    let event = Event { topic, publisher: publisher.clone(), headers, payload };
                    events.push_back(OwnEvent { event, kind: OwnKind::Broadcast, len });
                }
                Submission::KeepLast(keeping) => {
                    let Keeping { callback_id, event: NewEvent { topic, headers, payload }, forgets } =
                        *keeping;
                    let event = Event { topic, publisher: publisher.clone(), headers, payload };
                    let kind = OwnKind::KeepLast { callback_id, forgets };
                    events.push_back(OwnEvent { event, kind, len });
                }
            }
        }
        self.running().submissions = submissions;
        self.options.node.events_left(left);
        self.publish(context);
        if asks {
            self.options.busy_poll.asked();
        }
        self.end_message(context);
    }
}

impl Handler<Replies> for MasterActor {
    type Result = ();

    fn handle(&mut self, Replies { from, replies, .. }: Replies, context: &mut Context<Self>) {
        if self.running().calls.replied(from, replies) {
            self.end_message(context);
        }
    }
}

impl Handler<handle::Flow> for MasterActor {
    type Result = ();

    fn handle(&mut self, handle::Flow { parts, .. }: handle::Flow, _: &mut Context<Self>) {
        self.running().calls.flow(parts);
    }
}

impl Handler<Subscribe> for MasterActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, Subscribe { id, to, subscriber }: Subscribe, _: &mut Context<Self>) -> Self::Result {
        let asking = self.running().shared.router.send(router::SubscribeOwn { id, to, subscriber });
        Box::pin(async move { asking.await.map_err(|_| ending()) })
    }
}

impl Handler<Unsubscribe> for MasterActor {
    type Result = ();

    fn handle(&mut self, Unsubscribe(id): Unsubscribe, _: &mut Context<Self>) {
        #[expect(clippy::disallowed_methods, reason = "bounded by the subscriptions: one message each")]
        self.running().shared.router.do_send(router::UnsubscribeOwn(id));
    }
}

impl Handler<Respond> for MasterActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, Respond(actions): Respond, context: &mut Context<Self>) -> Self::Result {
        // The actor of an action that is taken may have stopped.
        self.withdraw_stopped();
        if let Err(refused) = self.options.actions.extend(actions.clone()) {
            return Box::pin(async move { Err(refused.into()) });
        }
        self.check_actors_later(context);
        let labelled = self.labelled(actions);
        let asking = self.running().shared.registry.send(registry::OfferOwn(labelled));
        self.options.node.set_own(&self.options.actions);
        Box::pin(async move { asking.await.map_err(|_| ending()) })
    }
}

impl Handler<Withdraw> for MasterActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, Withdraw(actions): Withdraw, _: &mut Context<Self>) -> Self::Result {
        for action in &actions {
            self.options.actions.remove(action);
        }
        self.options.node.set_own(&self.options.actions);
        let asking = self.running().shared.registry.send(registry::WithdrawOwn(actions));
        Box::pin(async move { asking.await.map_err(|_| ending()) })
    }
}

impl Handler<Describe> for MasterActor {
    type Result = ResponseFuture<Result<Vec<meshwork_wire::ActionDescription>, CallError>>;

    fn handle(&mut self, Describe { pattern, within }: Describe, _: &mut Context<Self>) -> Self::Result {
        let node = Arc::clone(&self.options.node);
        Box::pin(async move { node.describe(pattern, within).await })
    }
}

impl Handler<FindProviders> for MasterActor {
    type Result = ResponseFuture<Result<Vec<Provided>, CallError>>;

    fn handle(&mut self, find: FindProviders, _: &mut Context<Self>) -> Self::Result {
        let FindProviders { action, labels, .. } = find;
        let asking = self.running().shared.registry.send(registry::FindProviders { action, labels });
        Box::pin(async move {
            let found = asking.await.map_err(|_| ending())??;
            Ok(found.into_iter().map(|(id, node)| Provided::of(id, node, MASTER)).collect())
        })
    }
}

impl Handler<DescribePart> for MasterActor {
    type Result = ResponseFuture<Result<Vec<meshwork_wire::ActionDescription>, CallError>>;

    fn handle(
        &mut self,
        DescribePart { pattern, after, within }: DescribePart,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let registry = self.running().shared.registry.clone();
        let asking = async move {
            let mut after = after;
            loop {
                let describe = registry::Describe { pattern: pattern.clone(), after, standing: None };
                match registry.send(describe).await.map_err(|_| ending())? {
                    registry::Answer::NoneUntil(last) => after = last,
                    registry::Answer::Part(part) => {
                        return part.read().map_err(|error| {
                            CallError::new(Code::CANNOT_DECODE, Fate::Failed, error.to_string())
                        });
                    }
                }
            }
        };
        Box::pin(async move {
            let answered = tokio::time::timeout(within, asking).await;
            answered.unwrap_or_else(|_| Err(ending()))
        })
    }
}

impl Handler<Watch> for MasterActor {
    type Result = ();

    fn handle(&mut self, Watch(watcher): Watch, _: &mut Context<Self>) {
        #[expect(clippy::disallowed_methods, reason = "bounded by the watchers: one message each")]
        self.running().shared.registry.do_send(registry::Watch(watcher));
    }
}

impl Handler<TakeSnapshot> for MasterActor {
    type Result = ResponseActFuture<Self, Snapshot>;

    fn handle(&mut self, _: TakeSnapshot, _: &mut Context<Self>) -> Self::Result {
        let shared = Arc::clone(&self.running().shared);
        let asking = async move {
            let listing = shared.registry.send(registry::List).await;
            (listing, shared.router.send(router::Count).await)
        };
        Box::pin(asking.into_actor(self).map(|(listing, counted), this, _| {
            let (actions, sessions) =
                listing.map_or((0, Vec::new()), |listing| (listing.actions, listing.snapshots));
            let counted = counted.unwrap_or_default();
            let (own_actions, name) = (this.options.actions.len(), this.name.clone());
            let restarting = this.options.node.restarting();
            let running = this.running();
            let (calls_in_flight, actors_lost) = (running.calls.in_flight(), running.actors_lost);
            Snapshot {
                calls_in_flight,
                actors_lost: actors_lost + counted.actors_lost,
                restarting,
                denied: running.shared.denials.snapshot(),
                calls_waiting: 0,
                answering: running.calls.answering(),
                subscriptions: counted.subscriptions,
                events_dropped: counted.events.dropped,
                events_superseded: counted.events.superseded,
                events_undecodable: counted.events.undecodable,
                events_failed: counted.events.failed,
                last_values: counted.last_values,
                last_values_len: counted.last_values_len,
                callbacks_lent: sessions.iter().map(|session| session.callbacks_lent).sum(),
                callbacks_borrowed: sessions.iter().map(|session| session.callbacks_borrowed).sum(),
                actions,
                sessions,
                own_actions,
                name,
            }
        }))
    }
}

#[cfg(feature = "testing")]
impl Handler<TakeCensus> for MasterActor {
    type Result = ResponseActFuture<Self, Census>;

    fn handle(&mut self, take: TakeCensus, _: &mut Context<Self>) -> Self::Result {
        let shared = Arc::clone(&self.running().shared);
        let asking = async move {
            let mut parts = vec![
                ("registry".to_owned(), shared.registry.send(take).await),
                ("router".to_owned(), shared.router.send(take).await),
            ];
            for session in shared.sessions() {
                let census = session.mailboxes().census().send(take).await;
                parts.push((format!("session of {}", session.name()), census));
            }
            (parts, shared.sessions().len(), shared.door.unbound())
        };
        Box::pin(asking.into_actor(self).map(|(parts, sessions, unbound), this, _| {
            let calls = this.options.node.in_flight();
            let streams = this.options.node.streams();
            let (actions, known) =
                (this.options.actions.len(), this.options.node.with_known(|known| known.action_count()));
            let running = this.running();
            let mut census = Census::of(
                &[
                    ("calls of its handles", calls),
                    ("streams that are read", streams),
                    ("events for the router", running.events.len()),
                    ("submissions", running.submissions.len()),
                    ("drains", running.drains.len()),
                    ("connections that are not bound", unbound),
                ],
                &[("sessions", sessions), ("actions", actions), ("known actions", known)],
            );
            census.add("calls", running.calls.census());
            for (part, told) in parts {
                census.add(&part, told.unwrap_or_default());
            }
            census
        }))
    }
}

impl Handler<Drain> for MasterActor {
    type Result = ResponseFuture<Drained>;

    fn handle(&mut self, Drain { within }: Drain, context: &mut Context<Self>) -> Self::Result {
        let (tell, told) = oneshot::channel();
        let drains = &mut self.running().drains;
        let is_first = drains.is_empty();
        drains.push(tell);
        // A second drain waits for the first.
        if is_first {
            self.drain(within, context);
        }
        Box::pin(async move { told.await.unwrap_or_default() })
    }
}

impl MasterActor {
    fn drain(&mut self, within: Duration, context: &mut Context<Self>) {
        let node = Arc::clone(&self.options.node);
        node.set_status(Status::Draining);
        let this = self.running();
        this.calls.drain();
        for listener in this.listeners.drain(..) {
            listener.abort();
        }
        let own = this.calls.in_flight() as u64;
        let shared = Arc::clone(&this.shared);
        let begun = Instant::now();
        // From now on no session starts without being told.
        let sessions = shared.drain();
        let draining = async move {
            let draining =
                sessions.iter().map(|session| session.mailboxes().drain().send(handle::Drain { within }));
            let mut drained = Drained::default();
            // The calls of the master and the calls of its branches are waited for together.
            let own_calls = tokio::time::timeout(within, node.idle());
            let (of_sessions, _) = futures::join!(futures::future::join_all(draining), own_calls);
            // Handlers of the master that are at work, or have events before them, finish within the same time.
            let left = within.saturating_sub(begun.elapsed());
            let _ = tokio::time::timeout(left, shared.router.send(router::Idle)).await;
            // So does blocking work, also that whose caller has gone.
            let left = within.saturating_sub(begun.elapsed());
            let _ = tokio::time::timeout(left, shared.blocking.idle()).await;
            for of_session in of_sessions.into_iter().flatten() {
                drained.finished += of_session.finished;
                drained.abandoned += of_session.abandoned;
            }
            (drained, sessions)
        };
        let closing = draining.into_actor(self).then(move |(drained, sessions), this, context| {
            // What the master published until now leaves.
            this.options.node.set_event_path(EventPath::Closing);
            this.flush(context);
            // A question that is dropped before the router takes it is not taken: actix passes over it.
            let last: Vec<_> = std::iter::from_fn(|| this.running().next_events()).collect();
            let router = this.running().shared.router.clone();
            let closing = async move {
                futures::future::join_all(last.into_iter().map(|(asking, _)| asking)).await;
                // The events that the router was given before this question are in the outboxes when it is answered.
                let _ = router.send(router::Count).await;
                let closing = sessions.iter().map(|session| session.mailboxes().close().send(handle::Close));
                futures::future::join_all(closing).await;
                drained
            };
            closing.into_actor(this)
        });
        context.spawn(closing.map(move |mut drained, this, context| {
            let ended =
                CallError::new(Code::DRAINING, Fate::Unknown, "the master ended before the reply came");
            let abandoned = this.running().calls.fail_all(&ended) as u64;
            drained.abandoned += abandoned;
            drained.finished += own.saturating_sub(abandoned);
            for tell in this.running().drains.drain(..) {
                // Whoever asked may wait no longer.
                let _ = tell.send(drained);
            }
            this.options.node.close(CallError::new(Code::DRAINING, Fate::NotSent, "the master has drained"));
            context.stop();
        }));
    }
}

/// The number with which the numbers of last values begin: those of a master that was started again are later than those of the one before, as
/// far as the clock of the machine goes forward. No master keeps a million values in a second.
fn era() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2)
}

fn ending() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::NotSent, "the master ends")
}

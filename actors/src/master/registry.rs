//! The registry: the bound branches and the actions that each offers. It takes [`Register`], [`Offer`], [`Withdraw`] and [`Leave`] from
//! sessions, [`OfferOwn`] and [`WithdrawOwn`] from the master, [`Lookup`] from both, and tells every node which other nodes came and
//! went. `registry/table.rs` decides; the routes that the registry gives out stay true by themselves (`registry/route.rs`); the news
//! for the other nodes gather in `registry/news.rs`.

mod catalogue;
mod described;
pub(crate) mod latency;
pub(crate) mod news;
pub(crate) mod rendezvous;
pub(crate) mod route;
pub(crate) mod table;

pub(crate) use described::Answer;

use super::forwarded::MASTER;
use super::handle::{Close, Evict, SessionHandle};
use super::in_all::InAll;
use super::permissions::Verb;
use super::standing::Standing;
use super::wishes::{Sought, Wishes};
use crate::answers::Actions;
use crate::hashed::HashMap;
use crate::link::outbox::{Encoded, Kind};
use crate::link::refusal::Refusal;
use crate::log_line;
#[cfg(feature = "testing")]
use crate::node::census::{Census, TakeCensus};
use crate::node::change::{Change, Watcher, tell};
use crate::node::snapshot::SessionSnapshot;
use crate::repeated::Repeated;
use actix::{Actor, AsyncContext, Context, Handler, Message, MessageResult};
use described::Described;
use meshwork_wire::limits::{
    ASKED_IN_ALL_MAX, GATHERED_NEWS_EVERY_PER_KIB, GATHERED_NEWS_WITHIN, NEWS_AT_ONCE_MAX, NEWS_EVERY,
    NEWS_EVERY_PER_NODE,
};
use meshwork_wire::{
    ByteString, CallError, Code, Fate, Label, NodeNews, Offer as Offered, Pattern, SessionId,
};
use news::News;
use route::{NoProvider, Provider as _, no_provider};
use std::sync::Arc;
use std::time::Duration;
use table::{Denied, OnNameTaken, Removed, Table};
use tokio::time::Instant;

pub(crate) type Found = route::Found<SessionHandle>;

/// The registry of one master: the bound branches and the actions that each offers.
pub struct RegistryActor {
    master: ByteString,
    table: Table<SessionHandle>,
    /// The actions of the master.
    own: Actions,
    watchers: Vec<Watcher>,
    news: News,
    /// When the branches were last told the news.
    told: Option<Instant>,
    /// Whether a timer will tell the branches the news that have gathered.
    will_tell: bool,
    /// How often news of each session were told at once since this moment. Bounded by the sessions.
    at_once: (Option<Instant>, HashMap<SessionId, usize>),
    described: Described,
    /// How long the news of nodes that change all the time wait, and whether a timer will add them to the others.
    floods_every: Duration,
    will_end_floods: bool,
    /// Lines of the log: a branch is online, is offline, does not read the news.
    online: Repeated,
    offline: Repeated,
    unread: Repeated,
}

/// Takes in a branch that binds, with its actions; tells it of the nodes that are there, and the other nodes of it. Sent by its session, which
/// may send `Bound` when this is answered.
#[derive(Message)]
#[rtype(result = "Result<(), Denied>")]
pub(crate) struct Register {
    pub(crate) session: SessionHandle,
    pub(crate) name: ByteString,
    pub(crate) offers: Vec<Offered>,
    pub(crate) on_taken: OnNameTaken,
    pub(crate) incarnation: Option<u64>,
}

/// Adds actions that a bound branch offers. Sent by its session.
#[derive(Message)]
#[rtype(result = "Result<(), Denied>")]
pub(crate) struct Offer {
    pub(crate) session: SessionId,
    pub(crate) offers: Vec<Offered>,
}

/// Takes out actions that a bound branch offers no longer. Sent by its session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Withdraw {
    pub(crate) session: SessionId,
    pub(crate) actions: Vec<ByteString>,
}

/// Takes out a session that has ended. Sent by the session, as its last message.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Leave(pub(crate) SessionId);

/// Adds actions that the master answers itself. Sent by the master.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OfferOwn(pub(crate) Actions);

/// Takes out actions that the master answers no longer. Sent by the master.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WithdrawOwn(pub(crate) Vec<ByteString>);

/// Asks for the routes of these actions. Sent by a session for all new actions of one block, and by the master.
#[derive(Message)]
#[rtype(result = "Vec<Found>")]
pub(crate) struct Lookup {
    pub(crate) actions: Vec<ByteString>,
}

/// Asks for the next part of the actions behind a name, or from the first one on if it is empty. Sent by a session for its branch, and by the
/// master.
#[derive(Message)]
#[rtype(result = "Answer")]
pub(crate) struct Describe {
    pub(crate) pattern: Pattern,
    pub(crate) after: ByteString,
    /// Who asks, and sees only what it may see; none for the master.
    pub(crate) standing: Option<Arc<Standing>>,
}

/// Asks for the providers of an action that take requests, and have these labels: the sessions of branches, and the master. Sent by a session for
/// its branch, and by the master.
#[derive(Message)]
#[rtype(result = "Result<Providers, CallError>")]
pub(crate) struct FindProviders {
    pub(crate) action: ByteString,
    pub(crate) labels: Vec<Label>,
}

/// The providers of an action: the session and the name of each.
pub(crate) type Providers = Vec<(SessionId, ByteString)>;

/// Asks for an action of a bound branch that its new identity does not permit to offer. Sent by its session when the identity has changed.
#[derive(Message)]
#[rtype(result = "Option<ByteString>")]
pub(crate) struct FindDenied {
    pub(crate) session: SessionId,
    pub(crate) standing: Arc<Standing>,
}

/// Tells a watcher which nodes come and go from now on. Sent by the master.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Watch(pub(crate) Watcher);

/// Asks for the bound sessions and the number of actions. Sent by the master, for a snapshot.
#[derive(Message)]
#[rtype(result = "Listing")]
pub(crate) struct List;

/// The answer to a [`List`].
pub(crate) struct Listing {
    pub(crate) snapshots: Vec<SessionSnapshot>,
    pub(crate) actions: usize,
}

impl RegistryActor {
    pub(crate) fn new(master: ByteString, offered: InAll) -> Self {
        Self {
            master,
            table: Table::new(offered),
            at_once: Default::default(),
            described: Described::default(),
            floods_every: Duration::ZERO,
            will_end_floods: false,
            own: Actions::default(),
            watchers: Vec::new(),
            news: News::default(),
            told: None,
            will_tell: false,
            online: Repeated::news(),
            offline: Repeated::news(),
            unread: Repeated::new(),
        }
    }

    fn tell_watchers(&mut self, change: &Change) {
        tell(&mut self.watchers, change);
    }

    /// Spreads the news that a node came, or offers more actions.
    fn came(&mut self, news: NodeNews, context: &mut Context<Self>) {
        self.news.came(&news);
        let is_pressing =
            news.actions.iter().any(|(action, accepts)| self.table.is_pressing(action, *accepts));
        if is_pressing && self.may_tell_at_once(news.session) {
            // Every branch is told before it can know of the actions in another way.
            self.tell_others();
        } else {
            self.tell_others_soon(context);
        }
        self.end_floods_soon(news.session, context);
        self.tell_watchers(&Change::Online(news));
    }

    /// Whether the news of this session may be told at once: telling all branches costs far more than the offer of the session. A session that
    /// offers more often has news that come a moment late: a call meanwhile may be refused by its branch, and by no other.
    fn may_tell_at_once(&mut self, session: SessionId) -> bool {
        let every = self.news_every();
        let (since, told) = &mut self.at_once;
        if since.is_none_or(|since| since.elapsed() >= every) {
            (*since, *told) = (Some(Instant::now()), HashMap::default());
        }
        let count = told.entry(session).or_default();
        *count += 1;
        *count <= NEWS_AT_ONCE_MAX
    }

    /// The shortest time between two news.
    fn news_every(&self) -> Duration {
        let members = u32::try_from(self.table.member_count()).unwrap_or(u32::MAX);
        NEWS_EVERY + NEWS_EVERY_PER_NODE.saturating_mul(members)
    }

    /// Spreads the news that a node went, or offers fewer actions.
    fn went(&mut self, news: NodeNews, context: &mut Context<Self>) {
        self.news.went(&news);
        self.tell_others_soon(context);
        self.end_floods_soon(news.session, context);
        self.tell_watchers(&Change::Offline(news));
    }

    /// Adds the news of nodes that change all the time to those of the others when they have gathered for long enough; or now, if a node has
    /// changed more than may be kept.
    fn end_floods_soon(&mut self, session: SessionId, context: &mut Context<Self>) {
        if self.news.is_flooded_by(session) {
            return self.end_floods(context);
        }
        if self.will_end_floods || !self.news.has_floods() {
            return;
        }
        self.will_end_floods = true;
        context.run_later(self.news_every() + self.floods_every, |this, context| {
            this.will_end_floods = false;
            this.end_floods(context);
        });
    }

    fn end_floods(&mut self, context: &mut Context<Self>) {
        let kib = u32::try_from(self.news.end_floods() / 1024).unwrap_or(u32::MAX);
        let nodes = u32::try_from(self.table.member_count()).unwrap_or(u32::MAX);
        let every = GATHERED_NEWS_EVERY_PER_KIB.saturating_mul(kib).saturating_mul(nodes);
        self.floods_every = every.min(GATHERED_NEWS_WITHIN);
        self.tell_others_soon(context);
    }

    /// Spreads the news that a session was taken out.
    fn removed(&mut self, removed: &Removed<SessionHandle>, context: &mut Context<Self>) {
        self.news.leave(removed.id);
        let line = self.offline.info(Instant::now().into_std());
        log_line!(line, "{} is offline ({})", removed.name, removed.id);
        let (node, session) = (removed.name.clone(), removed.id);
        self.went(NodeNews { node, session, whole: true, actions: Vec::new() }, context);
    }

    /// Tells the branches the news at once; or, if they have just been told news, a moment later, together with the news that come meanwhile.
    fn tell_others_soon(&mut self, context: &mut Context<Self>) {
        if self.will_tell {
            return;
        }
        let every = self.news_every();
        let since = self.told.map_or(every, |told| told.elapsed());
        self.will_tell = true;
        context.run_later(every.saturating_sub(since), |this, _| this.tell_others());
    }

    /// Tells each branch the news that have gathered, except the news of itself.
    fn tell_others(&mut self) {
        self.will_tell = false;
        self.told = Some(Instant::now());
        let gathered = self.news.take();
        for (id, _, session, _) in self.table.members() {
            for (frames, count) in self.news.parts_for(&gathered, id) {
                let news = Encoded::for_crowd(&frames, count, 0);
                if session.outbox().push_encoded(news, Kind::Protocol) == Err(Refusal::Full) {
                    // The branch would know of nodes that are gone, for good. When it binds again, it is told of all nodes.
                    let line = self.unread.warn(Instant::now().into_std());
                    log_line!(line, "{} does not read the news: its link is given up", session.name());
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "bounded to one: no news are pushed to a closed outbox"
                    )]
                    session.mailboxes().close().do_send(Close);
                    break;
                }
            }
        }
    }

    /// Tells a newcomer of all nodes that are there.
    fn tell_all(&mut self, newcomer: &SessionHandle) {
        let own = self.own.offers().into_iter().map(|offer| (offer.action, offer.accepts)).collect();
        let master = NodeNews { node: self.master.clone(), session: MASTER, whole: true, actions: own };
        let others =
            self.table.members().filter(|(id, ..)| *id != newcomer.id()).map(|(id, name, _, actions)| {
                let actions =
                    actions.iter().map(|(action, offered)| (action.clone(), offered.accepts)).collect();
                NodeNews { node: name.clone(), session: id, whole: true, actions }
            });
        let everyone = std::iter::once(master).chain(others);
        let standing = newcomer.standing();
        let seen =
            standing.as_ref().and_then(|standing| standing.identity.permissions().patterns(Verb::Describe));
        for (frames, count) in self.news.join(newcomer.id(), seen, everyone) {
            // The newcomer waits for the answer to its bind, so its outbox has room.
            let _ = newcomer.outbox().push_encoded(Encoded::for_crowd(&frames, count, 0), Kind::Protocol);
        }
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // Unbounded, so that messages keep their order, whether they are sent by `send` or `do_send`; the credit of each sender bounds its
        // messages.
        context.set_mailbox_capacity(0);
    }
}

impl Handler<Register> for RegistryActor {
    type Result = Result<(), Denied>;

    fn handle(&mut self, register: Register, context: &mut Context<Self>) -> Self::Result {
        let Register { session, name, offers, on_taken, incarnation } = register;
        if session.is_gone() {
            return Err(Denied::Gone);
        }
        let id = session.id();
        let identity =
            session.standing().map(|standing| standing.identity.name().clone()).unwrap_or_default();
        for replaced in self.table.bind(id, (&name, &identity), session.clone(), on_taken, incarnation)? {
            #[expect(clippy::disallowed_methods, reason = "bounded to one: a session is replaced once")]
            replaced.session.mailboxes().evict().do_send(Evict);
            self.removed(&replaced, context);
        }
        let actions = match self.table.offer(id, offers) {
            Ok(actions) => actions,
            Err(denied) => {
                self.table.leave(id);
                return Err(denied);
            }
        };
        let line = self.online.info(Instant::now().into_std());
        log_line!(line, "{name} is online ({id}), with {} actions", actions.len());
        self.tell_all(&session);
        self.came(NodeNews { node: name, session: id, whole: true, actions }, context);
        Ok(())
    }
}

impl Handler<Offer> for RegistryActor {
    type Result = Result<(), Denied>;

    fn handle(&mut self, Offer { session, offers }: Offer, context: &mut Context<Self>) -> Self::Result {
        let actions = self.table.offer(session, offers)?;
        if let Some(node) = self.name(session) {
            self.came(NodeNews { node, session, whole: false, actions }, context);
        }
        Ok(())
    }
}

impl Handler<Withdraw> for RegistryActor {
    type Result = ();

    fn handle(&mut self, Withdraw { session, actions }: Withdraw, context: &mut Context<Self>) {
        let actions = self.table.withdraw(session, &actions);
        if let Some(node) = self.name(session) {
            self.went(NodeNews { node, session, whole: false, actions }, context);
        }
    }
}

impl Handler<Leave> for RegistryActor {
    type Result = ();

    fn handle(&mut self, Leave(session): Leave, context: &mut Context<Self>) {
        if let Some(removed) = self.table.leave(session) {
            self.removed(&removed, context);
        }
    }
}

impl Handler<OfferOwn> for RegistryActor {
    type Result = ();

    fn handle(&mut self, OfferOwn(actions): OfferOwn, context: &mut Context<Self>) {
        let mut new = Vec::new();
        for action in actions {
            self.table.offer_own(&self.master, &action.offer).set_own(Some(action.clone()));
            new.push((action.offer.action.clone(), action.offer.accepts));
            if let Err(refused) = self.own.insert(action) {
                log::debug!("the registry knows of it already: {refused}");
            }
        }
        let node = self.master.clone();
        self.came(NodeNews { node, session: MASTER, whole: false, actions: new }, context);
    }
}

impl Handler<WithdrawOwn> for RegistryActor {
    type Result = ();

    fn handle(&mut self, WithdrawOwn(actions): WithdrawOwn, context: &mut Context<Self>) {
        let mut gone = Vec::new();
        for action in actions {
            if let Some(own) = self.own.remove(&action) {
                if let Some(route) = self.table.route(&action) {
                    route.set_own(None);
                }
                self.table.withdraw_own(&action);
                gone.push((action, own.offer.accepts));
            }
        }
        let node = self.master.clone();
        self.went(NodeNews { node, session: MASTER, whole: false, actions: gone }, context);
    }
}

impl Handler<Lookup> for RegistryActor {
    type Result = MessageResult<Lookup>;

    fn handle(&mut self, Lookup { actions }: Lookup, _: &mut Context<Self>) -> Self::Result {
        let found = actions.iter().map(|action| match self.table.route(action) {
            Some(route) => Found::Named(route),
            None => self.table.wide_route(action).map_or(Found::Nowhere, Found::Wide),
        });
        MessageResult(found.collect())
    }
}

impl Handler<Describe> for RegistryActor {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, describe: Describe, _: &mut Context<Self>) -> Self::Result {
        let Describe { pattern, after, standing } = describe;
        MessageResult(match standing {
            None => self.described.answer(&self.table, pattern, after),
            Some(standing) => {
                let permissions = standing.identity.permissions();
                let may_see = |action: &str| permissions.allows(Verb::Describe, action);
                self.table.describe(&pattern, &after, may_see).into()
            }
        })
    }
}

impl Handler<FindProviders> for RegistryActor {
    type Result = Result<Providers, CallError>;

    fn handle(&mut self, find: FindProviders, _: &mut Context<Self>) -> Self::Result {
        let FindProviders { action, labels } = find;
        let route = self.table.route(&action).or_else(|| self.table.wide_route(&action));
        let wishes = Wishes { labels, ..Wishes::default() };
        let asked = Sought { wishes: Some(&wishes), ..Sought::default() };
        let Some(route) = route else {
            return Err(no_provider(NoProvider::None, &action, asked, None));
        };
        let now = route.now();
        let own = now.own().filter(|own| !own.has_stopped() && wishes.fit_own(own.labels()));
        let own = own.map(|_| (MASTER, self.master.clone()));
        let of_branches = now.taking(asked).map(|session| (session.id(), ByteString::from(session.name())));
        let found: Providers = own.into_iter().chain(of_branches).take(ASKED_IN_ALL_MAX + 1).collect();
        match found.len() {
            0 => {
                let reason = now.why_none(asked);
                Err(no_provider(reason, &action, asked, now.labels_there(reason, asked)))
            }
            1..=ASKED_IN_ALL_MAX => Ok(found),
            _ => {
                let what =
                    format!("{action:?} has more than {ASKED_IN_ALL_MAX} providers: ask those with a label");
                Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what))
            }
        }
    }
}

impl Handler<FindDenied> for RegistryActor {
    type Result = Option<ByteString>;

    fn handle(
        &mut self,
        FindDenied { session, standing }: FindDenied,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let permissions = standing.identity.permissions();
        self.table.find_offer(session, |action| permissions.allows(Verb::Offer, action)).cloned()
    }
}

impl Handler<Watch> for RegistryActor {
    type Result = ();

    fn handle(&mut self, Watch(watcher): Watch, _: &mut Context<Self>) {
        self.watchers.push(watcher);
    }
}

impl Handler<List> for RegistryActor {
    type Result = MessageResult<List>;

    fn handle(&mut self, _: List, _: &mut Context<Self>) -> Self::Result {
        let mut listed: Vec<_> = self.table.members().collect();
        listed.sort_unstable_by(|(one, one_name, ..), (other, other_name, ..)| {
            (one_name, one).cmp(&(other_name, other))
        });
        let snapshots = listed
            .iter()
            .map(|(id, name, session, actions)| SessionSnapshot {
                name: (*name).clone(),
                identity: session.standing().map(|is| is.identity.name().clone()).unwrap_or_default(),
                session: *id,
                peer: session.peer().to_owned(),
                actions: actions.len(),
                in_flight: session.in_flight(),
                outbox_len: session.outbox().len(),
                events_dropped: session.outbox().dropped(),
                callbacks_lent: session.outbox().lent().len(),
                callbacks_borrowed: session.outbox().lent().borrowed(),
                draining: !session.is_taking(),
                resting: session.is_resting(),
                labels: session.labels().iter().flat_map(|it| &it.labels).map(ToString::to_string).collect(),
                weight: session.weight(),
            })
            .collect();
        MessageResult(Listing { snapshots, actions: self.table.action_count() })
    }
}

#[cfg(feature = "testing")]
impl Handler<TakeCensus> for RegistryActor {
    type Result = MessageResult<TakeCensus>;

    fn handle(&mut self, _: TakeCensus, _: &mut Context<Self>) -> Self::Result {
        let [nodes, names, actions, providers] = self.table.census();
        MessageResult(Census::of(
            &[],
            &[("nodes", nodes), ("names", names), ("actions", actions), ("providers", providers)],
        ))
    }
}

impl RegistryActor {
    fn name(&self, session: SessionId) -> Option<ByteString> {
        self.table.name(session).cloned()
    }
}

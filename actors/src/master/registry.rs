//! The registry: the bound branches and the actions that each offers. It takes [`Register`], [`Offer`], [`Withdraw`] and [`Leave`] from
//! sessions, [`OfferOwn`] and [`WithdrawOwn`] from the master, [`Lookup`] from both, and tells every node which other nodes came and
//! went. `registry/table.rs` decides; the routes that the registry gives out stay true by themselves (`registry/route.rs`); the news
//! for the other nodes gather in `registry/news.rs`.

pub(crate) mod news;
pub(crate) mod route;
pub(crate) mod table;

use super::forwarded::MASTER;
use super::handle::{Close, Evict, SessionHandle};
use crate::answers::Actions;
use crate::link::outbox::{Encoded, Kind};
use crate::link::refusal::Refusal;
use crate::node::change::{Change, Watcher, tell};
use crate::node::snapshot::SessionSnapshot;
use actix::{Actor, AsyncContext, Context, Handler, Message, MessageResult};
use meshwork_wire::limits::{NEWS_EVERY, NEWS_EVERY_PER_NODE};
use meshwork_wire::{ActionDescription, ByteString, NodeNews, Offer as Offered, Pattern, SessionId};
use news::News;
use route::Provider as _;
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

/// Asks which actions there are behind a name, or from the first one on if it is empty. Sent by a session for its branch, and by the master.
#[derive(Message)]
#[rtype(result = "Vec<ActionDescription>")]
pub(crate) struct Describe {
    pub(crate) pattern: Pattern,
    pub(crate) after: ByteString,
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
    pub(crate) fn new(master: ByteString) -> Self {
        Self {
            master,
            table: Table::new(),
            own: Actions::default(),
            watchers: Vec::new(),
            news: News::default(),
            told: None,
            will_tell: false,
        }
    }

    fn tell_watchers(&mut self, change: &Change) {
        tell(&mut self.watchers, change);
    }

    /// Spreads the news that a node came, or offers more actions.
    fn came(&mut self, news: NodeNews, context: &mut Context<Self>) {
        self.news.came(&news);
        if news.actions.iter().any(|(action, accepts)| self.table.is_pressing(action, *accepts)) {
            // Every branch is told before it can know of the actions in another way.
            self.tell_others();
        } else {
            self.tell_others_soon(context);
        }
        self.tell_watchers(&Change::Online(news));
    }

    /// Spreads the news that a node went, or offers fewer actions.
    fn went(&mut self, news: NodeNews, context: &mut Context<Self>) {
        self.news.went(&news);
        self.tell_others_soon(context);
        self.tell_watchers(&Change::Offline(news));
    }

    /// Spreads the news that a session was taken out.
    fn removed(&mut self, removed: &Removed<SessionHandle>, context: &mut Context<Self>) {
        log::info!("{} is offline ({})", removed.name, removed.id);
        let (node, session) = (removed.name.clone(), removed.id);
        self.went(NodeNews { node, session, whole: true, actions: Vec::new() }, context);
    }

    /// Tells the branches the news at once; or, if they have just been told news, a moment later, together with the news that come meanwhile.
    fn tell_others_soon(&mut self, context: &mut Context<Self>) {
        if self.will_tell {
            return;
        }
        let members = u32::try_from(self.table.member_count()).unwrap_or(u32::MAX);
        let every = NEWS_EVERY + NEWS_EVERY_PER_NODE.saturating_mul(members);
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
            for (frames, count) in gathered.parts_for(id) {
                let news = Encoded::for_crowd(&frames, count, 0);
                if session.outbox().push_encoded(news, Kind::Protocol) == Err(Refusal::Full) {
                    // The branch would know of nodes that are gone, for good. When it binds again, it is told of all nodes.
                    log::warn!("{} does not read the news: its link is given up", session.name());
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
                let actions = actions.iter().map(|(action, accepts)| (action.clone(), *accepts)).collect();
                NodeNews { node: name.clone(), session: id, whole: true, actions }
            });
        let everyone = std::iter::once(master).chain(others);
        for (frames, count) in self.news.everyone(everyone) {
            // The newcomer waits for the answer to its bind, so its outbox has room.
            let _ = newcomer.outbox().push_encoded(Encoded::for_crowd(&frames, count, 0), Kind::Protocol);
        }
        self.news.joined(newcomer.id());
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
        for replaced in self.table.bind(id, &name, session.clone(), on_taken, incarnation)? {
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
        log::info!("{name} is online ({id}), with {} actions", actions.len());
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

    fn handle(&mut self, Describe { pattern, after }: Describe, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.table.describe(&pattern, &after))
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
                session: *id,
                peer: session.peer().to_owned(),
                actions: actions.len(),
                in_flight: session.in_flight(),
                outbox_len: session.outbox().len(),
                events_dropped: session.outbox().dropped(),
                callbacks_lent: session.outbox().lent().len(),
                callbacks_borrowed: session.outbox().lent().borrowed(),
                draining: !session.is_taking(),
            })
            .collect();
        MessageResult(Listing { snapshots, actions: self.table.action_count() })
    }
}

impl RegistryActor {
    fn name(&self, session: SessionId) -> Option<ByteString> {
        self.table.name(session).cloned()
    }
}

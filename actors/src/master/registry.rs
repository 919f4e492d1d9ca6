//! The registry: who is bound, who offers what. It takes [`Register`], [`Offer`], [`Withdraw`] and [`Leave`] from sessions,
//! [`OfferOwn`] and [`WithdrawOwn`] from the master, [`Lookup`] from both, and tells every other node who came and went.
//! What it decides is in `registry/table.rs`; the routes that it gives out stay true by themselves (`registry/route.rs`); what
//! the others are told gathers in `registry/news.rs`.

pub(crate) mod news;
pub(crate) mod route;
pub(crate) mod table;

use super::forwarded::MASTER;
use super::handle::{Evict, SessionHandle};
use crate::answers::Actions;
use crate::link::outbox::{Encoded, Kind};
use crate::node::change::{Change, Watcher, tell};
use crate::node::snapshot::SessionSnapshot;
use actix::{Actor, AsyncContext, Context, Handler, Message, MessageResult};
use meshwork_wire::limits::{NEWS_EVERY, NEWS_EVERY_PER_NODE};
use meshwork_wire::{ActionDescription, ByteString, NodeNews, Offer as Offered, Pattern, SessionId};
use news::News;
use route::Provider as _;
use table::{Denied, Departed, OnNameTaken, Table};
use tokio::time::Instant;

pub(crate) type Found = route::Found<SessionHandle>;

/// The registry of one master.
pub struct RegistryActor {
    master: ByteString,
    table: Table<SessionHandle>,
    own: Actions,
    watchers: Vec<Watcher>,
    news: News,
    /// When the others were told last.
    told: Option<Instant>,
    /// Whether they will be told what has gathered.
    will_tell: bool,
}

/// A branch binds: takes it in with its actions, tells it who is there, and the others that it came. Sent by its session,
/// which may say `Bound` once it is answered.
#[derive(Message)]
#[rtype(result = "Result<(), Denied>")]
pub(crate) struct Register {
    pub(crate) session: SessionHandle,
    pub(crate) name: ByteString,
    pub(crate) offers: Vec<Offered>,
    pub(crate) on_taken: OnNameTaken,
}

/// A bound branch offers more. Sent by its session.
#[derive(Message)]
#[rtype(result = "Result<(), Denied>")]
pub(crate) struct Offer {
    pub(crate) session: SessionId,
    pub(crate) offers: Vec<Offered>,
}

/// A bound branch offers less. Sent by its session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Withdraw {
    pub(crate) session: SessionId,
    pub(crate) actions: Vec<ByteString>,
}

/// The session ended. Sent by it, last of all.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Leave(pub(crate) SessionId);

/// The master answers these itself. Sent by it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OfferOwn(pub(crate) Actions);

/// The master answers these no longer. Sent by it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WithdrawOwn(pub(crate) Vec<ByteString>);

/// Where do requests for these actions go? Sent by a session for all new actions of one socket read, and by the master.
#[derive(Message)]
#[rtype(result = "Vec<Found>")]
pub(crate) struct Lookup {
    pub(crate) actions: Vec<ByteString>,
}

/// Which actions are there? Sent by a session for its branch, and by the master.
#[derive(Message)]
#[rtype(result = "Vec<ActionDescription>")]
pub(crate) struct Describe(pub(crate) Pattern);

/// Tells who comes and goes from now on. Sent by the master.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Watch(pub(crate) Watcher);

/// The sessions that are bound, and the number of actions. Sent by the master, for a snapshot.
#[derive(Message)]
#[rtype(result = "Listing")]
pub(crate) struct List;

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

    fn came(&mut self, news: NodeNews, context: &mut Context<Self>) {
        self.news.came(&news);
        if news.actions.iter().any(|(_, encoding)| encoding.is_self_describing()) {
            // Who calls these must write them so: the others hear of it before anyone else could have told them.
            self.tell_others();
        } else {
            self.tell_others_soon(context);
        }
        self.tell_watchers(&Change::Online(news));
    }

    fn went(&mut self, news: NodeNews, context: &mut Context<Self>) {
        self.news.went(&news);
        self.tell_others_soon(context);
        self.tell_watchers(&Change::Offline(news));
    }

    fn left(&mut self, departed: &Departed<SessionHandle>, context: &mut Context<Self>) {
        log::info!("{} is offline ({})", departed.name, departed.id);
        let (node, session) = (departed.name.clone(), departed.id);
        self.went(NodeNews { node, session, whole: true, actions: Vec::new() }, context);
    }

    /// Tells the others at once, or, when they have just been told something, together with what comes meanwhile.
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

    fn tell_others(&mut self) {
        self.will_tell = false;
        self.told = Some(Instant::now());
        let gathered = self.news.gathered();
        for (id, _, session, _) in self.table.members() {
            for (frames, count) in gathered.parts_for(id) {
                // What does not fit is news that a full link will not miss: the cache is never asked whether an action exists.
                let _ = session.outbox().push_encoded(Encoded::for_crowd(&frames, count, 0), Kind::Event);
            }
        }
    }

    /// The news that a newcomer needs: everyone who is there.
    fn tell_all(&mut self, newcomer: &SessionHandle) {
        let own = self.own.offers().into_iter().map(|offer| (offer.action, offer.encoding)).collect();
        let master = NodeNews { node: self.master.clone(), session: MASTER, whole: true, actions: own };
        let others =
            self.table.members().filter(|(id, ..)| *id != newcomer.id()).map(|(id, name, _, actions)| {
                let actions = actions.iter().map(|(action, encoding)| (action.clone(), *encoding)).collect();
                NodeNews { node: name.clone(), session: id, whole: true, actions }
            });
        let everyone = std::iter::once(master).chain(others);
        for (frames, count) in self.news.everyone(everyone) {
            // It asked, so it has room: this is no flood of ours.
            let _ = newcomer.outbox().push_encoded(Encoded::for_crowd(&frames, count, 0), Kind::Protocol);
        }
        self.news.joined(newcomer.id());
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // Unbounded, so that messages keep their order whichever way they are sent; each sender is bounded by its own link.
        context.set_mailbox_capacity(0);
    }
}

impl Handler<Register> for RegistryActor {
    type Result = Result<(), Denied>;

    fn handle(&mut self, register: Register, context: &mut Context<Self>) -> Self::Result {
        let Register { session, name, offers, on_taken } = register;
        if session.is_gone() {
            return Err(Denied::Gone);
        }
        let id = session.id();
        for replaced in self.table.bind(id, &name, session.clone(), on_taken)? {
            #[expect(clippy::disallowed_methods, reason = "bounded to one: a session is replaced once")]
            replaced.session.mailboxes().evict.do_send(Evict);
            self.left(&replaced, context);
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
        if let Some(departed) = self.table.leave(session) {
            self.left(&departed, context);
        }
    }
}

impl Handler<OfferOwn> for RegistryActor {
    type Result = ();

    fn handle(&mut self, OfferOwn(actions): OfferOwn, context: &mut Context<Self>) {
        let mut new = Vec::new();
        for action in actions {
            self.table.offer_own(&self.master, &action.offer).set_own(Some(action.clone()));
            new.push((action.offer.action.clone(), action.offer.encoding));
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
                gone.push((action, own.offer.encoding));
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

    fn handle(&mut self, Describe(pattern): Describe, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.table.describe(&pattern))
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

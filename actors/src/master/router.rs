//! The router: it sends each event to the nodes that subscribe to its topic. It takes [`Subscribe`], [`Unsubscribe`] and [`Leave`] from
//! sessions, [`SubscribeOwn`] and [`UnsubscribeOwn`] from the master, and from both [`Broadcast`], and [`Publish`] with all events of one
//! block. It encodes each event once and writes it straight into the outboxes, past the mailboxes of the sessions. A full outbox drops and
//! counts the event, so a slow subscriber slows no other node.
//!
//! It keeps the last values of topics, which [`KeepLast`] and [`KeepOwnLast`] bring, and feeds them to those that subscribe.

use super::feeds::{Feeds, Hearer, Step, TooManyFeeds};
use super::handle::SessionHandle;
use super::in_all::InAll;
use super::last_values::{LastValues, Said};
use super::permissions::Verb;
use super::standing::Standing;
use super::subscribed::{Subscribed, SubscribedBounds};
use crate::events::event::{Deliver, Event, SubscriberId};
use crate::events::subscribers::{EventCounts, Subscribers};
use crate::events::trie::Trie;
use crate::hashed::{Entry, HashMap, Hashing};
use crate::link::outbox::{Encoded, Kind, Outbox};
use crate::link::refusal::Refusal;
use crate::log_line;
#[cfg(feature = "testing")]
use crate::node::census::{Census, TakeCensus};
use crate::node::limits::Limits;
use crate::node::mailboxes::SubscribeTo;
use crate::node::said::TooMany;
use crate::repeated::Repeated;
use crate::turns::credit::Charge;
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture, WrapFuture,
};
use bytes::BytesMut;
use futures::FutureExt as _;
use meshwork_wire::limits::{
    ACTORS_CHECKED_EVERY, GIVEN_BACK_AMISS_MAX, GROUP_EVENTS_REMEMBERED_MAX, LAST_VALUES_IN_A_ROW_MAX,
    LENGTH_PREFIX_LEN,
};
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Encoding, Fate, Features, Frame, FrameRef, HeadTemplate, Kept,
    LastValue, Payload, SessionId, SubscriptionKey,
};
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use tokio::time::Instant;

/// The router of one master, which sends events to the subscribed nodes.
pub struct RouterActor {
    subscribed_bounds: SubscribedBounds,
    trie: Trie<Subscription>,
    /// The groups that have members.
    groups: HashMap<ByteString, Group>,
    sessions: HashMap<SessionId, Subscriber>,
    /// Makes a number of an event that a member of a group got. No branch can make up an event with the number of another.
    hasher: Hashing,
    /// How many events no member of their group took.
    untaken: u64,
    /// How many actors that handled events of the master had stopped.
    actors_lost: u64,
    /// Whether a timer looks at the actors.
    checks_actors: bool,
    /// The handlers of the master. The trie has one subscription of the master for each key, as of a branch.
    own: Subscribers,
    /// The handlers of the master for broadcasts of branches.
    own_broadcasts: Subscribers,
    /// How many events found no room in the outboxes of former sessions.
    dropped: u64,
    /// The outboxes that the events of the master have filled so far that it is worth waiting for them.
    filled: Vec<Outbox>,
    last: LastValues,
    /// The feeds of the handlers of the master; none if there are none.
    own_feeds: Option<Box<Feeds>>,
    /// How many nodes have feeds: most of the time none, and events need not look.
    feeding: usize,
    /// Nodes that are to be fed when the message is handled, since they missed a value.
    to_feed: Vec<SubscribedNode>,
}

/// A subscribed branch.
struct Subscriber {
    session: SessionHandle,
    keys: Subscribed,
    given: Given,
    /// Whether the branch drains: it is sent nothing more, and may still give back.
    drains: bool,
    /// The subscriptions that have not heard all last values; none if all have.
    feeds: Option<Box<Feeds>>,
}

/// The numbers of the last events that a branch got as a member of groups.
#[derive(Default)]
struct Given {
    /// At most [`GROUP_EVENTS_REMEMBERED_MAX`]; none instead of an event that was given back.
    numbers: VecDeque<Option<u64>>,
    /// Where the event stood that was given back last: the next one that comes back stands behind it more often than not.
    last: usize,
    /// How many events the branch gave back that it did not get, or that are forgotten: each costs a search.
    misses: usize,
}

/// A group of subscribers.
#[derive(Default)]
struct Group {
    /// How many subscriptions are in the group.
    subscriptions: usize,
    /// Counts up: chooses the member that gets the next event.
    next: usize,
}

/// One subscription of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Subscription {
    node: SubscribedNode,
    group: Option<ByteString>,
}

/// A node that is subscribed. It hands an event to its handlers itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum SubscribedNode {
    /// The master of this router.
    Own,
    Branch(SessionId),
}

/// Sends the matching events to a branch from now on, and the last values of the topics first. Sent by its session.
#[derive(Message)]
#[rtype(result = "Result<(), CallError>")]
pub(crate) struct Subscribe {
    pub(crate) session: SessionHandle,
    pub(crate) keys: Vec<SubscriptionKey>,
    /// Who hears the last values: a handler that is new, or every handler, if the subscription is.
    pub(crate) hearer: Hearer,
    /// Whether the branch is bound. Another one is fed when its session sends [`Feed`], so that no value delays the answer to its bind.
    pub(crate) is_bound: bool,
}

/// Lets a branch that has been told that it is bound hear the last values. Sent by its session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Feed(pub(crate) SessionId);

/// Publishes an event and keeps its value as the last of its topic, or takes that away. Sent by the session of the publisher, whose outbox gets
/// the answer behind the event.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct KeepLast {
    pub(crate) session: SessionHandle,
    pub(crate) callback_id: CallbackId,
    pub(crate) kept: KeptLast,
    /// Charges the branch for what it has sent, until that is handled.
    #[expect(dead_code, reason = "it is held")]
    pub(crate) charge: Option<Charge>,
}

/// As [`KeepLast`]. Sent by the master.
#[derive(Message)]
#[rtype(result = "Result<(), CallError>")]
pub(crate) struct KeepOwnLast(pub(crate) KeptLast);

/// A value that is to be the last of its topic.
pub(crate) struct KeptLast {
    pub(crate) event: Event,
    /// Whether the topic is to have none.
    pub(crate) forgets: bool,
    /// The number under which an earlier master kept it, or forgot.
    pub(crate) number: Option<u64>,
}

/// Asks for a subscription of a bound branch that its new identity does not permit. Sent by its session when the identity has changed.
#[derive(Message)]
#[rtype(result = "Option<SubscriptionKey>")]
pub(crate) struct FindDenied {
    pub(crate) session: SessionId,
    pub(crate) standing: Arc<Standing>,
}

/// Ends a subscription of a branch. Sent by its session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Unsubscribe {
    pub(crate) session: SessionId,
    pub(crate) key: SubscriptionKey,
    /// Charges the branch for what it has sent, until that is handled.
    #[expect(dead_code, reason = "it is held")]
    pub(crate) charge: Option<Charge>,
}

/// Hands the matching events to a handler of the master from now on. Sent by the master.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SubscribeOwn {
    pub(crate) id: SubscriberId,
    pub(crate) to: SubscribeTo,
    pub(crate) subscriber: Arc<dyn Deliver>,
}

/// Ends the subscription of a handler of the master. Sent by the master.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct UnsubscribeOwn(pub(crate) SubscriberId);

/// Takes out a session that has ended. Sent by the session, as its last message.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Leave(pub(crate) SessionId);

/// Sends a session that drains nothing more. What it gives back is still taken.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StopSending(pub(crate) SessionId);

/// Publishes events, in the order in which one node published them. Sent by the session of that node, once for each block, or by the master,
/// which is answered with the outboxes that it is worth waiting for.
#[derive(Message)]
#[rtype(result = "Vec<Outbox>")]
pub(crate) struct Publish {
    /// The session of the publisher, a branch which has served its own handlers already; `None` for the master.
    pub(crate) from: Option<SessionId>,
    pub(crate) events: Vec<Event>,
    /// Charges the branch for what it has sent, until that is handled.
    #[expect(dead_code, reason = "it is held")]
    pub(crate) charge: Option<Charge>,
}

/// Sends an event to every node but its own. Sent and answered as [`Publish`].
#[derive(Message)]
#[rtype(result = "Vec<Outbox>")]
pub(crate) struct Broadcast {
    /// The session of the node that broadcasts the event, which does not get it; `None` for the master.
    pub(crate) from: Option<SessionId>,
    pub(crate) event: Event,
    /// Charges the branch for what it has sent, until that is handled.
    #[expect(dead_code, reason = "it is held")]
    pub(crate) charge: Option<Charge>,
}

/// Gives an event of a group to another member than the branch of this session, which got it and has no handler for it any more. Sent by that
/// session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct GiveBack {
    pub(crate) from: SessionId,
    pub(crate) group: ByteString,
    pub(crate) event: Event,
    /// Charges the branch for what it has sent, until that is handled.
    #[expect(dead_code, reason = "it is held")]
    pub(crate) charge: Option<Charge>,
}

/// Waits until the handlers of the master have handled the events that they took. Sent by the master, when it drains.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Idle;

/// Counts subscriptions and events. Sent by the master, for a snapshot.
#[derive(Message)]
#[rtype(result = "Counts")]
pub(crate) struct Count;

/// The subscriptions and events of a router at one moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) subscriptions: usize,
    /// The events of the master's handlers; those that outboxes of present and former sessions had no room for were dropped, too.
    pub(crate) events: EventCounts,
    /// How many actors that handled events of the master had stopped.
    pub(crate) actors_lost: u64,
    /// How many last values are kept.
    pub(crate) last_values: usize,
    /// How many bytes they take.
    pub(crate) last_values_len: usize,
}

/// The publisher of events, as far as the nodes that hear them are concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The master, which waits for those that read.
    Master,
    /// A branch, which has served its own handlers.
    Branch(SessionId),
    /// Any node, of an event that is kept: all nodes hear it in one order, and those that miss it hear it later.
    Kept,
}

impl RouterActor {
    /// A router whose numbers of last values begin with those of this era.
    pub(crate) fn new(limits: &Limits, era: u64) -> Self {
        Self {
            last: LastValues::new(limits.last_bounds(), era),
            own_feeds: None,
            feeding: 0,
            to_feed: Vec::new(),
            subscribed_bounds: SubscribedBounds {
                in_all: InAll::new(limits.subscribed_len_max, limits.subscribed_in_all_len_max),
                per_topic_max: limits.subscriptions_per_topic_max,
            },
            trie: Trie::new(),
            groups: HashMap::default(),
            sessions: HashMap::default(),
            own: Subscribers::new(),
            own_broadcasts: Subscribers::new(),
            dropped: 0,
            filled: Vec::new(),
            hasher: Hashing::default(),
            untaken: 0,
            actors_lost: 0,
            checks_actors: false,
        }
    }

    /// Publishes a run of events, of one topic and publisher, in their order. The subscribed nodes are found once, and each outbox takes all
    /// events at once.
    fn publish(&mut self, from: Source, events: &[Event], encoded: &mut BytesMut) {
        let Some(first) = events.first() else {
            return;
        };
        let mut plain: Vec<SubscribedNode> = Vec::new();
        // The groups borrow from the tree; one that has members of this topic is copied once for the run.
        let mut grouped: HashMap<&ByteString, Vec<SubscribedNode>> = HashMap::default();
        self.trie.for_each_match(&first.topic, &mut |member| match &member.group {
            None => plain.push(member.node),
            Some(group) => grouped.entry(group).or_default().push(member.node),
        });
        plain.sort_unstable();
        plain.dedup();
        // The publisher has served its own handlers, but not its groups: the member that gets an event is chosen here, for all nodes.
        if let Source::Branch(publisher) = from {
            plain.retain(|node| *node != SubscribedNode::Branch(publisher));
        }
        let mut groups: Vec<_> =
            grouped.into_iter().map(|(group, members)| (group.clone(), members)).collect();
        if self.feeding > 0 {
            plain.iter().for_each(|node| self.feed_before(*node, &first.topic));
        }
        if groups.is_empty() {
            return self.publish_to_all(from, &plain, events, encoded);
        }
        for (_, members) in &mut groups {
            members.sort_unstable();
            members.dedup();
        }
        for event in events {
            // A node that is subscribed both by itself and in a group gets the events one by one, in their order.
            self.publish_to_all(from, &plain, std::slice::from_ref(event), encoded);
            for (group, members) in &groups {
                let next = &mut self.groups.entry_ref(group).or_default().next;
                *next = next.wrapping_add(1);
                let choice = *next;
                self.publish_to_group(from, choice, group, members, event);
            }
        }
    }

    /// Sends a run of events to these nodes, each of which is subscribed by itself.
    fn publish_to_all(
        &mut self,
        from: Source,
        nodes: &[SubscribedNode],
        events: &[Event],
        encoded: &mut BytesMut,
    ) {
        let mut once = None;
        for node in nodes {
            match node {
                SubscribedNode::Own => {
                    events.iter().for_each(|event| self.own.deliver_next(event.into()));
                    self.own.end_run();
                }
                SubscribedNode::Branch(id) => {
                    let (bytes, longest) = once.get_or_insert_with(|| {
                        let longest = encode_run(events, encoded);
                        (encoded.split().freeze(), longest)
                    });
                    if let Some(Subscriber { session, .. }) = self.sessions.get(id) {
                        let frames = Encoded::shared(bytes, events.len(), *longest);
                        // A full outbox counts the events that it drops.
                        let pushed = session.outbox().push_encoded(frames, Kind::Event);
                        if from == Source::Kept && pushed == Err(Refusal::Full) {
                            self.to_feed.push(*node);
                        }
                        note_filled(&mut self.filled, from, session);
                    }
                }
            }
        }
    }

    /// Sends an event to one member of a group: the member that `choice` counts to, or the next member that has room.
    fn publish_to_group(
        &mut self,
        from: Source,
        choice: usize,
        group: &ByteString,
        members: &[SubscribedNode],
        event: &Event,
    ) {
        // A member that has no room is passed over: the group is served as long as one member has room.
        for step in 0..members.len() {
            match members[choice.wrapping_add(step) % members.len()] {
                SubscribedNode::Own if self.own.deliver_to_group(group, event) => return,
                // The actors of its handlers have stopped.
                SubscribedNode::Own => {}
                SubscribedNode::Branch(id) => {
                    let last = step + 1 == members.len();
                    let fits = |there: &&mut Subscriber| last || there.session.outbox().has_room(Kind::Event);
                    if let Some(there) = self.sessions.get_mut(&id).filter(fits) {
                        let frame = published(event, false, vec![group.clone()]);
                        if there.session.outbox().push(&frame, Kind::Event).is_ok() {
                            let knows_headers = knows_headers(&there.session);
                            there.given.remember(number_of(&self.hasher, group, event, knows_headers));
                        }
                        return note_filled(&mut self.filled, from, &there.session);
                    }
                }
            }
        }
        self.untaken += 1;
    }
}

/// Notes an outbox that the events of the master have filled. Others publish through their links, which do not wait for subscribers.
fn note_filled(filled: &mut Vec<Outbox>, from: Source, session: &SessionHandle) {
    if from == Source::Master && session.outbox().is_worth_waiting_for() {
        filled.push(session.outbox().clone());
    }
}

impl Given {
    /// Remembers the number of an event that the branch got.
    fn remember(&mut self, number: u64) {
        if self.numbers.len() == GROUP_EVENTS_REMEMBERED_MAX {
            self.numbers.pop_front();
            self.last = self.last.saturating_sub(1);
        }
        self.numbers.push_back(Some(number));
    }

    /// Whether the branch got an event of this number and has not given it back.
    fn forget(&mut self, number: u64) -> bool {
        if self.misses > GIVEN_BACK_AMISS_MAX {
            return false;
        }
        let places = (self.last..self.numbers.len()).chain(0..self.last.min(self.numbers.len()));
        for at in places {
            if self.numbers[at] == Some(number) {
                (self.numbers[at], self.last) = (None, at);
                return true;
            }
        }
        self.misses += 1;
        false
    }
}

/// The number of an event of a group, as a member gives it back that knows headers or not.
fn number_of(hasher: &Hashing, group: &ByteString, event: &Event, knows_headers: bool) -> u64 {
    let Event { topic, publisher, headers, payload } = event;
    let event = (&**group, &**topic, &**publisher, payload.encoding as u8, &*payload.bytes);
    match headers.text() {
        text if knows_headers && !text.is_empty() => hasher.hash_one((event, text)),
        _ => hasher.hash_one(event),
    }
}

fn knows_headers(session: &SessionHandle) -> bool {
    session.outbox().features().contains(Features::HEADERS)
}

/// Adds a subscription of a node.
fn insert(
    trie: &mut Trie<Subscription>,
    groups: &mut HashMap<ByteString, Group>,
    node: SubscribedNode,
    key: &SubscriptionKey,
) {
    if let Some(group) = &key.group {
        groups.entry(group.clone()).or_default().subscriptions += 1;
    }
    trie.insert(&key.pattern, Subscription { node, group: key.group.clone() });
}

/// Takes a subscription of a node out. A group without subscriptions is forgotten.
fn remove(
    trie: &mut Trie<Subscription>,
    groups: &mut HashMap<ByteString, Group>,
    node: SubscribedNode,
    key: &SubscriptionKey,
) {
    let member = Subscription { node, group: key.group.clone() };
    if trie.remove(&key.pattern, &member)
        && let Some(group) = member.group
        && let Entry::Occupied(mut there) = groups.entry(group)
    {
        there.get_mut().subscriptions -= 1;
        if there.get().subscriptions == 0 {
            there.remove();
        }
    }
}

/// Encodes a run of events; gives the length of the longest frame, its prefix not counted.
fn encode_run(events: &[Event], encoded: &mut BytesMut) -> usize {
    // Reserves about as many bytes as the frames take, so that the buffer grows once.
    let frame_len = |event: &Event| {
        32 + event.topic.len() + event.publisher.len() + event.headers.len() + event.payload.len()
    };
    encoded.reserve(events.iter().map(frame_len).sum());
    let mut common: Option<(Encoding, HeadTemplate)> = None;
    let mut longest = 0;
    for event in events {
        let start = encoded.len();
        let Payload { encoding, bytes, callbacks } = &event.payload;
        let is_usual = callbacks.is_empty() && event.headers.is_empty();
        if is_usual && !common.as_ref().is_some_and(|(written, _)| written == encoding) {
            let head = HeadTemplate::of_event(&published(event, true, Vec::new()));
            common = head.map(|head| (*encoding, head));
        }
        match &common {
            Some((_, head)) if is_usual => head.write_event(bytes, encoded),
            _ => FrameRef::from(&published(event, true, Vec::new())).encode(encoded),
        }
        longest = longest.max(encoded.len() - start - LENGTH_PREFIX_LEN);
    }
    longest
}

fn published(event: &Event, for_all: bool, groups: Vec<ByteString>) -> meshwork_wire::Publish {
    let Event { topic, publisher, headers, payload } = event.clone();
    meshwork_wire::Publish { topic, publisher, for_all, groups, headers, payload }
}

impl Actor for RouterActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // Unbounded, so that messages keep their order, whether they are sent by `send` or `do_send`; the credit of each sender bounds its
        // messages.
        context.set_mailbox_capacity(0);
    }
}

impl Handler<Subscribe> for RouterActor {
    type Result = Result<(), CallError>;

    fn handle(
        &mut self,
        Subscribe { session, keys, hearer, is_bound }: Subscribe,
        context: &mut Context<Self>,
    ) -> Self::Result {
        if session.is_gone() {
            return Err(CallError::new(Code::LINK_LOST, Fate::NotSent, "the session is gone"));
        }
        let id = session.id();
        let (keys_of_none, given) = (Subscribed::default(), Given::default());
        let new = || Subscriber { session, keys: keys_of_none, given, drains: false, feeds: None };
        let there = self.sessions.entry(id).or_insert_with(new);
        for key in keys {
            let inserted = there.keys.insert(key.clone(), &mut self.subscribed_bounds).map_err(too_much)?;
            if inserted {
                insert(&mut self.trie, &mut self.groups, SubscribedNode::Branch(id), &key);
            }
            // A group shares its events: a value that each new member heard would be handled again and again.
            if key.group.is_none() && self.last.len() > 0 && (inserted || hearer.is_some()) {
                let feeds = there.feeds.get_or_insert_with(|| {
                    self.feeding += 1;
                    Box::new(Feeds::new())
                });
                feeds.join(&key.pattern, hearer, &self.last).map_err(too_much)?;
            }
        }
        if is_bound {
            self.feed(SubscribedNode::Branch(id), context);
        }
        Ok(())
    }
}

fn too_much(much: impl std::fmt::Display) -> CallError {
    CallError::new(Code::OVERLOADED, Fate::Failed, much.to_string())
}

impl Handler<Feed> for RouterActor {
    type Result = ();

    fn handle(&mut self, Feed(session): Feed, context: &mut Context<Self>) {
        self.feed(SubscribedNode::Branch(session), context);
    }
}

impl Handler<KeepLast> for RouterActor {
    type Result = ();

    fn handle(&mut self, KeepLast { session, callback_id, kept, .. }: KeepLast, context: &mut Context<Self>) {
        match self.keep_last(kept, context) {
            Ok(number) => session.outbox().say(&Frame::Kept(Kept { callback_id, number })),
            Err(error) => session.outbox().respond(callback_id, Err(error)),
        }
    }
}

impl Handler<KeepOwnLast> for RouterActor {
    type Result = Result<(), CallError>;

    fn handle(&mut self, KeepOwnLast(kept): KeepOwnLast, context: &mut Context<Self>) -> Self::Result {
        self.keep_last(kept, context).map(drop)
    }
}

impl RouterActor {
    /// Keeps a last value, or takes it away, and tells the subscribers; gives its number.
    fn keep_last(&mut self, kept: KeptLast, context: &mut Context<Self>) -> Result<u64, CallError> {
        let KeptLast { event, forgets, number } = kept;
        let said = match (forgets, number) {
            (false, None) => self.last.keep(&event),
            (false, Some(number)) => self.last.keep_again(&event, number),
            (true, None) => Ok(self.last.forget(&event.topic)),
            (true, Some(number)) => Ok(self.last.forget_again(&event.topic, number)),
        };
        let number = match said {
            Ok(Said::Kept(number)) => number,
            Ok(Said::Forgotten(number)) => return Ok(number),
            Ok(Said::Outdated) => return Ok(self.last.era()),
            Err(many @ (TooMany::Values(_) | TooMany::Bytes(_))) => {
                return Err(CallError::new(Code::OVERLOADED, Fate::NotSent, many.to_string()));
            }
        };
        self.publish(Source::Kept, std::slice::from_ref(&event), &mut BytesMut::new());
        for node in std::mem::take(&mut self.to_feed) {
            if let SubscribedNode::Branch(id) = node
                && let Some(there) = self.sessions.get_mut(&id)
            {
                let feeds = there.feeds.get_or_insert_with(|| {
                    self.feeding += 1;
                    Box::new(Feeds::new())
                });
                feeds.miss(&event.topic, &self.last);
                self.feed(node, context);
            }
        }
        Ok(number)
    }

    /// Lets a node hear the last value of a topic before another event of the topic, if some of its subscriptions have not.
    fn feed_before(&mut self, node: SubscribedNode, topic: &ByteString) {
        match node {
            SubscribedNode::Own => {
                if let Some(feeds) = &mut self.own_feeds {
                    let hearers = feeds.before_event(topic, &self.last);
                    tell_own(&mut self.own, topic, &hearers, &self.last);
                }
            }
            SubscribedNode::Branch(id) => {
                if let Some(Subscriber { session, feeds: Some(feeds), .. }) = self.sessions.get_mut(&id)
                    // The event will find no room either.
                    && session.outbox().has_room(Kind::Event)
                {
                    let hearers = feeds.before_event(topic, &self.last);
                    tell(session.outbox(), topic, &hearers, &self.last);
                }
            }
        }
    }

    /// Lets a node hear last values, as many as its outbox has room for, and some in a row: then the router takes other messages.
    fn feed(&mut self, node: SubscribedNode, context: &mut Context<Self>) {
        let mut steps = 0;
        let outbox = match node {
            SubscribedNode::Own => None,
            SubscribedNode::Branch(id) => match self.sessions.get(&id) {
                Some(there) if !there.drains => Some(there.session.outbox().clone()),
                _ => return,
            },
        };
        let feeds = match node {
            SubscribedNode::Own => &mut self.own_feeds,
            SubscribedNode::Branch(id) => match self.sessions.get_mut(&id) {
                Some(there) => &mut there.feeds,
                None => return,
            },
        };
        let Some(there) = feeds.as_deref_mut().filter(|there| !there.is_fed) else {
            return;
        };
        while steps < LAST_VALUES_IN_A_ROW_MAX && outbox.as_ref().is_none_or(Outbox::is_half_free_for_events)
        {
            match there.step(&self.last) {
                Step::Topic(topic, hearers) => {
                    steps += 1 + hearers.len();
                    match &outbox {
                        None => tell_own(&mut self.own, &topic, &hearers, &self.last),
                        Some(outbox) => tell(outbox, &topic, &hearers, &self.last),
                    }
                }
                Step::Round => steps += 1,
                Step::Done => {
                    *feeds = None;
                    self.feeding -= 1;
                    return;
                }
            }
        }
        there.is_fed = true;
        let room = async move {
            if let Some(outbox) = &outbox {
                outbox.room_for_events().await;
            }
            // Other messages have their turns.
            tokio::task::yield_now().await;
        };
        context.spawn(room.into_actor(self).map(move |(), this, context| {
            let feeds = match node {
                SubscribedNode::Own => &mut this.own_feeds,
                SubscribedNode::Branch(id) => match this.sessions.get_mut(&id) {
                    // A session that has ended is gone, or goes.
                    Some(there) if there.session.outbox().is_open() => &mut there.feeds,
                    _ => return,
                },
            };
            if let Some(feeds) = feeds {
                feeds.is_fed = false;
                this.feed(node, context);
            }
        }));
    }

    /// Notes that a node hears nothing more.
    fn stop_feeding(feeding: &mut usize, feeds: &mut Option<Box<Feeds>>) {
        *feeding -= usize::from(feeds.take().is_some());
    }
}

/// Lets handlers of the master hear the last value of a topic.
fn tell_own(own: &mut Subscribers, topic: &ByteString, hearers: &[Hearer], last: &LastValues) {
    if let Some(value) = last.get(topic) {
        hearers.iter().for_each(|hearer| own.deliver_last(*hearer, &value.event));
    }
}

/// Lets handlers of a branch hear the last value of a topic.
fn tell(outbox: &Outbox, topic: &ByteString, hearers: &[Hearer], last: &LastValues) {
    let Some(value) = last.get(topic) else {
        return;
    };
    let features = outbox.features();
    for handler in hearers {
        let event = published(&value.event, true, Vec::new());
        let frame = Frame::LastValue(LastValue { handler: *handler, event });
        // A full outbox counts it.
        let _ = outbox.push(&frame.for_features(features), Kind::Event);
    }
}

impl Handler<FindDenied> for RouterActor {
    type Result = MessageResult<FindDenied>;

    fn handle(
        &mut self,
        FindDenied { session, standing }: FindDenied,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let permissions = standing.identity.permissions();
        let keys = self.sessions.get(&session).into_iter().flat_map(|there| there.keys.iter());
        let mut denied = keys.filter(|key| !permissions.allows_subscription(&key.pattern));
        MessageResult(denied.next().cloned())
    }
}

impl Handler<Unsubscribe> for RouterActor {
    type Result = ();

    fn handle(&mut self, Unsubscribe { session, key, .. }: Unsubscribe, _: &mut Context<Self>) {
        let Some(there) = self.sessions.get_mut(&session) else {
            return;
        };
        if there.keys.remove(&key, &mut self.subscribed_bounds) {
            remove(&mut self.trie, &mut self.groups, SubscribedNode::Branch(session), &key);
        }
    }
}

impl Handler<SubscribeOwn> for RouterActor {
    type Result = ();

    fn handle(&mut self, SubscribeOwn { id, to, subscriber }: SubscribeOwn, context: &mut Context<Self>) {
        match to {
            SubscribeTo::Broadcasts(pattern) => {
                self.own_broadcasts.insert(id, SubscriptionKey { pattern, group: None }, subscriber);
            }
            SubscribeTo::Topics(key) => {
                if self.own.insert(id, key.clone(), subscriber) {
                    insert(&mut self.trie, &mut self.groups, SubscribedNode::Own, &key);
                }
                if key.group.is_none() && self.last.len() > 0 {
                    let feeds = self.own_feeds.get_or_insert_with(|| {
                        self.feeding += 1;
                        Box::new(Feeds::new())
                    });
                    // Bounded by the handlers of the master's own code.
                    if let Err(many @ TooManyFeeds) = feeds.join(&key.pattern, Some(id.0), &self.last) {
                        log::debug!("a handler of the master hears no last values: {many}");
                    }
                    self.feed(SubscribedNode::Own, context);
                }
            }
        }
        self.check_actors_later(context);
    }
}

impl Handler<GiveBack> for RouterActor {
    type Result = ();

    fn handle(&mut self, GiveBack { from, group, event, .. }: GiveBack, _: &mut Context<Self>) {
        let hasher = &self.hasher;
        let was_given = self.sessions.get_mut(&from).is_some_and(|there| {
            there.given.forget(number_of(hasher, &group, &event, knows_headers(&there.session)))
        });
        if !was_given {
            log::debug!("{from} gives back an event of {} that it did not get, or long ago", event.topic);
            self.untaken += 1;
            return;
        }
        let mut members = Vec::new();
        self.trie.for_each_match(&event.topic, &mut |member| {
            if member.group.as_ref() == Some(&group) && member.node != SubscribedNode::Branch(from) {
                members.push(member.node);
            }
        });
        members.sort_unstable();
        members.dedup();
        let choice = self.groups.get(&group).map_or(0, |group| group.next);
        self.publish_to_group(Source::Branch(from), choice, &group, &members, &event);
    }
}

impl RouterActor {
    /// Takes out the handlers of the master whose actors have stopped.
    fn unsubscribe_stopped(&mut self) {
        let stopped = [self.own.stopped(), self.own_broadcasts.stopped()].concat();
        for (id, pattern) in stopped {
            static STOPPED: Repeated = Repeated::new();
            let line = STOPPED.warn(Instant::now().into_std());
            log_line!(line, "the actor of the master that handles {pattern} has stopped: it is unsubscribed");
            self.actors_lost += 1;
            self.unsubscribe_own(id);
        }
    }

    /// Looks at the actors of the master from time to time, as long as there are any.
    fn check_actors_later(&mut self, context: &mut Context<Self>) {
        if self.checks_actors || !(self.own.need_actors() || self.own_broadcasts.need_actors()) {
            return;
        }
        self.checks_actors = true;
        context.run_later(ACTORS_CHECKED_EVERY, |this, context| {
            this.checks_actors = false;
            this.unsubscribe_stopped();
            this.check_actors_later(context);
        });
    }

    fn unsubscribe_own(&mut self, id: SubscriberId) {
        self.own_broadcasts.remove(id);
        if let Some(key) = self.own.remove(id) {
            remove(&mut self.trie, &mut self.groups, SubscribedNode::Own, &key);
        }
    }
}

impl Handler<UnsubscribeOwn> for RouterActor {
    type Result = ();

    fn handle(&mut self, UnsubscribeOwn(id): UnsubscribeOwn, _: &mut Context<Self>) {
        self.unsubscribe_own(id);
    }
}

impl Handler<StopSending> for RouterActor {
    type Result = ();

    fn handle(&mut self, StopSending(session): StopSending, _: &mut Context<Self>) {
        let Some(there) = self.sessions.get_mut(&session) else {
            return;
        };
        there.drains = true;
        Self::stop_feeding(&mut self.feeding, &mut there.feeds);
        for key in there.keys.take(&mut self.subscribed_bounds) {
            remove(&mut self.trie, &mut self.groups, SubscribedNode::Branch(session), &key);
        }
    }
}

impl Handler<Leave> for RouterActor {
    type Result = ();

    fn handle(&mut self, Leave(session): Leave, _: &mut Context<Self>) {
        let Some(Subscriber { session: handle, mut keys, mut feeds, .. }) = self.sessions.remove(&session)
        else {
            return;
        };
        Self::stop_feeding(&mut self.feeding, &mut feeds);
        self.dropped += handle.outbox().dropped();
        for key in keys.take(&mut self.subscribed_bounds) {
            remove(&mut self.trie, &mut self.groups, SubscribedNode::Branch(session), &key);
        }
    }
}

impl Handler<Publish> for RouterActor {
    type Result = MessageResult<Publish>;

    fn handle(&mut self, Publish { from, events, .. }: Publish, _: &mut Context<Self>) -> Self::Result {
        let mut encoded = BytesMut::new();
        for run in events.chunk_by(|one, other| one.topic == other.topic && one.publisher == other.publisher)
        {
            self.publish(from.map_or(Source::Master, Source::Branch), run, &mut encoded);
        }
        MessageResult(std::mem::take(&mut self.filled))
    }
}

impl Handler<Broadcast> for RouterActor {
    type Result = MessageResult<Broadcast>;

    fn handle(&mut self, Broadcast { from, event, .. }: Broadcast, _: &mut Context<Self>) -> Self::Result {
        if from.is_some() {
            self.own_broadcasts.deliver(&event);
        }
        let Event { topic, publisher, headers, payload } = event;
        let heard = topic.clone();
        let mut buffer = BytesMut::new();
        let broadcast = meshwork_wire::Broadcast { topic, publisher, headers, payload };
        Frame::Broadcast(broadcast).encode(&mut buffer);
        let encoded = buffer.freeze();
        let source = from.map_or(Source::Master, Source::Branch);
        for (id, Subscriber { session, drains, .. }) in &self.sessions {
            if Some(*id) != from
                && !drains
                && session.may(|permissions| permissions.allows(Verb::Subscribe, &heard))
            {
                let frame = Encoded::for_crowd(&encoded, 1, encoded.len() - LENGTH_PREFIX_LEN);
                let _ = session.outbox().push_encoded(frame, Kind::Event);
                note_filled(&mut self.filled, source, session);
            }
        }
        MessageResult(std::mem::take(&mut self.filled))
    }
}

impl Handler<Idle> for RouterActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Idle, _: &mut Context<Self>) -> Self::Result {
        let idle = futures::future::join(self.own.idle(), self.own_broadcasts.idle());
        Box::pin(idle.map(drop))
    }
}

#[cfg(feature = "testing")]
impl Handler<TakeCensus> for RouterActor {
    type Result = MessageResult<TakeCensus>;

    fn handle(&mut self, _: TakeCensus, _: &mut Context<Self>) -> Self::Result {
        let of_branches = self.sessions.values().map(|there| there.keys.len()).sum();
        let draining = self.sessions.values().filter(|there| there.drains).count();
        let feeds = self.sessions.values().filter_map(|there| there.feeds.as_ref()).chain(&self.own_feeds);
        MessageResult(Census::of(
            &[
                ("outboxes that were filled", self.filled.len()),
                ("branches that drain", draining),
                ("nodes that are fed", self.feeding),
                ("subscriptions that are fed", feeds.map(|feeds| feeds.len()).sum()),
            ],
            &[
                ("last values", self.last.len()),
                ("branches", self.sessions.len()),
                ("subscriptions of branches", of_branches),
                ("subscriptions in all", self.trie.len()),
                ("groups", self.groups.len()),
                ("handlers of the master", self.own.len()),
                ("keys of the master", self.own.keys().count()),
                ("handlers of broadcasts of the master", self.own_broadcasts.len()),
            ],
        ))
    }
}

impl Handler<Count> for RouterActor {
    type Result = MessageResult<Count>;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Self::Result {
        let of_branches: usize = self.sessions.values().map(|there| there.keys.len()).sum();
        let dropped: u64 = self.sessions.values().map(|there| there.session.outbox().dropped()).sum();
        let mut events = self.own.counts() + self.own_broadcasts.counts();
        events.dropped += self.dropped + self.untaken + dropped;
        MessageResult(Counts {
            subscriptions: of_branches + self.own.len() + self.own_broadcasts.len(),
            events,
            actors_lost: self.actors_lost,
            last_values: self.last.len(),
            last_values_len: self.last.bytes(),
        })
    }
}

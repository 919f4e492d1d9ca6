//! The router: which events go to whom. It takes [`Subscribe`], [`Unsubscribe`] and [`Leave`] from sessions and the master,
//! and [`Publish`] with all events of one socket read. It writes straight into the outboxes, past the sessions' mailboxes,
//! each event encoded once; a full outbox drops it and counts, so a slow subscriber slows nobody.

mod trie;

pub(crate) use trie::Trie;

use crate::node::SubscriberId;
use crate::session::SessionHandle;
use actix::{Actor, Context, Handler, Message};
use bytes::BytesMut;
use hashbrown::{HashMap, HashSet};
use meshwork_wire::limits::PATTERNS_PER_NODE_MAX;
use meshwork_wire::{
    ByteString, CallError, Code, Encoding, Fate, FrameRef, HeadTemplate, Payload, PayloadRef, SessionId,
    SubscriptionKey,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Handles events at the node where it lives: decodes them and hands them on, in no time.
pub trait Deliver: Send + Sync + 'static {
    /// Takes one event.
    ///
    /// # Errors
    ///
    /// When the handler has too many events before it, is gone, or cannot read this one: it is dropped and counted.
    fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped>;
}

/// An event on its way to a handler.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its topic.
    pub topic: ByteString,
    /// The name of the node that published it.
    pub publisher: ByteString,
    /// What happened.
    pub payload: Payload,
}

/// An [`Event`] that is read where it stands.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// Its topic.
    pub topic: &'a ByteString,
    /// The name of the node that published it.
    pub publisher: &'a ByteString,
    /// What happened.
    pub payload: PayloadRef<'a>,
}

impl<'a> From<&'a Event> for EventRef<'a> {
    fn from(Event { topic, publisher, payload }: &'a Event) -> Self {
        Self { topic, publisher, payload: payload.into() }
    }
}

/// Why a handler did not take an event.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Dropped {
    /// It has too many events before it.
    #[error("too many events are before it")]
    Full,
    /// It is gone.
    #[error("the handler is gone")]
    Gone,
    /// It expects another type.
    #[error(transparent)]
    CannotDecode(#[from] meshwork_wire::DecodeError),
}

/// The router of one master.
pub struct RouterActor {
    trie: Trie<Member>,
    groups: HashMap<ByteString, usize>,
    sessions: HashMap<SessionId, (SessionHandle, HashSet<SubscriptionKey>)>,
    local: HashMap<SubscriberId, (Arc<dyn Deliver>, SubscriptionKey)>,
    dropped: Arc<AtomicU64>,
}

/// One subscription of someone.
#[derive(Clone, PartialEq, Debug)]
struct Member {
    who: Who,
    group: Option<ByteString>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Who {
    Session(SessionId),
    Local(SubscriberId),
}

/// Who subscribes.
pub(crate) enum Subscriber {
    Session(SessionHandle),
    Local(SubscriberId, Arc<dyn Deliver>),
}

/// Sends the matching events to someone from now on. Sent by a session for its branch, and by the master for itself.
#[derive(Message)]
#[rtype(result = "Result<(), CallError>")]
pub(crate) struct Subscribe {
    pub(crate) subscriber: Subscriber,
    pub(crate) keys: Vec<SubscriptionKey>,
}

/// No longer. Sent by a session for its branch.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Unsubscribe {
    pub(crate) session: SessionId,
    pub(crate) key: SubscriptionKey,
}

/// No longer. Sent by the master for itself.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct UnsubscribeLocal(pub(crate) SubscriberId);

/// The session ended. Sent by it, last of all.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Leave(pub(crate) SessionId);

/// Events, in the order in which one node published them. Sent by its session, a read at a time, or by the master.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Publish {
    /// The session of the publisher, which has served its own handlers already; `None` for the master.
    pub(crate) from: Option<SessionId>,
    pub(crate) events: Vec<Event>,
}

/// How many subscriptions there are, and how many events were dropped here.
#[derive(Message)]
#[rtype(result = "(usize, u64)")]
pub(crate) struct Count;

impl RouterActor {
    pub(crate) fn new() -> Self {
        Self {
            trie: Trie::new(),
            groups: HashMap::new(),
            sessions: HashMap::new(),
            local: HashMap::new(),
            dropped: Arc::default(),
        }
    }

    /// Publishes events of one topic and publisher, in their order. Who gets them is found once, and each outbox takes them all
    /// at once.
    fn publish(&mut self, from: Option<SessionId>, events: &[Event], encoded: &mut BytesMut) {
        let Some(first) = events.first() else {
            return;
        };
        let mut plain: Vec<Who> = Vec::new();
        let mut grouped: HashMap<&ByteString, Vec<Who>> = HashMap::new();
        self.trie.for_each_match(&first.topic, &mut |member| match &member.group {
            None => plain.push(member.who),
            Some(group) => grouped.entry(group).or_default().push(member.who),
        });
        if events.len() > 1 && !grouped.is_empty() {
            drop(grouped);
            // A node that is served for itself and for a group hears of one event after the other.
            return events.iter().for_each(|event| self.publish(from, std::slice::from_ref(event), encoded));
        }
        plain.sort_unstable();
        plain.dedup();
        // Whoever published them has served its own handlers, but not its groups: those are chosen here, once for all nodes.
        plain.retain(|who| from.is_none_or(|from| *who != Who::Session(from)));
        let mut once = None;
        for who in plain {
            match who {
                Who::Local(id) => {
                    events.iter().for_each(|event| deliver(&self.local, id, event, &self.dropped));
                }
                Who::Session(id) => {
                    let bytes = once.get_or_insert_with(|| {
                        encode_for_all(events, encoded);
                        encoded.split().freeze()
                    });
                    if let Some((session, _)) = self.sessions.get(&id) {
                        // A full outbox has counted them.
                        let _ = session.outbox().push_encoded(bytes, events.len());
                    }
                }
            }
        }
        let mut turns = Vec::new();
        for (group, mut members) in grouped {
            members.sort_unstable();
            members.dedup();
            let turn = self.groups.entry(group.clone()).or_default();
            let first_turn = turn.wrapping_add(1);
            *turn = turn.wrapping_add(events.len());
            turns.push((group.clone(), members, first_turn));
        }
        for (group, members, first_turn) in turns {
            for (number, event) in events.iter().enumerate() {
                self.publish_to_group(first_turn.wrapping_add(number), &group, &members, event);
            }
        }
    }
}

impl RouterActor {
    /// One member of a group gets the event: whose turn it is, or the next one that has room.
    fn publish_to_group(&self, turn: usize, group: &ByteString, members: &[Who], event: &Event) {
        // A member that has no room is passed over: the group is served as long as one of it can be.
        for step in 0..members.len() {
            match members[turn.wrapping_add(step) % members.len()] {
                Who::Local(id) => return deliver(&self.local, id, event, &self.dropped),
                Who::Session(id) => {
                    let session = self.sessions.get(&id).map(|(session, _)| session);
                    let last = step + 1 == members.len();
                    let fits = session.filter(|session| last || session.outbox().has_room());
                    if let Some(session) = fits {
                        let _ = session.outbox().push_event(&published(event, false, vec![group.clone()]));
                        return;
                    }
                }
            }
        }
    }
}

/// Writes events of one topic and publisher.
fn encode_for_all(events: &[Event], encoded: &mut BytesMut) {
    // About as much as they take, so that it grows once.
    let frame_len = |event: &Event| 32 + event.topic.len() + event.publisher.len() + event.payload.len();
    encoded.reserve(events.iter().map(frame_len).sum());
    let mut common: Option<(Encoding, HeadTemplate)> = None;
    for event in events {
        let Payload { encoding, bytes, callbacks } = &event.payload;
        if !common.as_ref().is_some_and(|(written, _)| written == encoding) {
            let head = HeadTemplate::of_event(&published(event, true, Vec::new()));
            common = head.map(|head| (*encoding, head));
        }
        match &common {
            Some((_, head)) if callbacks.is_empty() => head.write_event(bytes, encoded),
            _ => FrameRef::from(&published(event, true, Vec::new())).encode(encoded),
        }
    }
}

fn published(event: &Event, for_all: bool, groups: Vec<ByteString>) -> meshwork_wire::Publish {
    let Event { topic, publisher, payload } = event.clone();
    meshwork_wire::Publish { topic, publisher, for_all, groups, payload }
}

fn deliver(
    local: &HashMap<SubscriberId, (Arc<dyn Deliver>, SubscriptionKey)>,
    id: SubscriberId,
    event: &Event,
    dropped: &AtomicU64,
) {
    if let Some((subscriber, _)) = local.get(&id) {
        hand_over(&**subscriber, event.into(), dropped);
    }
}

/// Hands an event to a handler of this node; what it does not take is counted.
#[inline]
pub(crate) fn hand_over(subscriber: &dyn Deliver, event: EventRef<'_>, dropped: &AtomicU64) {
    if let Err(reason) = subscriber.deliver(event) {
        dropped.fetch_add(1, Ordering::Relaxed);
        log::debug!("an event of {} was dropped: {reason}", event.topic);
    }
}

impl Actor for RouterActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // Unbounded, so that messages keep their order whichever way they are sent; each sender is bounded by its own link.
        context.set_mailbox_capacity(0);
    }
}

impl Handler<Subscribe> for RouterActor {
    type Result = Result<(), CallError>;

    fn handle(&mut self, Subscribe { subscriber, keys }: Subscribe, _: &mut Context<Self>) -> Self::Result {
        match subscriber {
            Subscriber::Session(session) => {
                if session.is_gone() {
                    return Err(CallError::new(Code::LINK_LOST, Fate::NotSent, "the session is gone"));
                }
                let id = session.id();
                let (_, there) = self.sessions.entry(id).or_insert_with(|| (session, HashSet::new()));
                if there.len() + keys.len() > PATTERNS_PER_NODE_MAX {
                    let what = format!("a node has at most {PATTERNS_PER_NODE_MAX} subscriptions");
                    return Err(CallError::new(Code::OVERLOADED, Fate::Failed, what));
                }
                for key in keys {
                    if !there.contains(&key) {
                        let member = Member { who: Who::Session(id), group: key.group.clone() };
                        self.trie.insert(&key.pattern, member);
                        there.insert(key);
                    }
                }
            }
            Subscriber::Local(id, subscriber) => {
                for key in keys {
                    let member = Member { who: Who::Local(id), group: key.group.clone() };
                    self.trie.insert(&key.pattern, member);
                    self.local.insert(id, (Arc::clone(&subscriber), key));
                }
            }
        }
        Ok(())
    }
}

impl Handler<Unsubscribe> for RouterActor {
    type Result = ();

    fn handle(&mut self, Unsubscribe { session, key }: Unsubscribe, _: &mut Context<Self>) {
        let Some((_, there)) = self.sessions.get_mut(&session) else {
            return;
        };
        if there.remove(&key) {
            self.trie.remove(&key.pattern, &Member { who: Who::Session(session), group: key.group });
        }
    }
}

impl Handler<UnsubscribeLocal> for RouterActor {
    type Result = ();

    fn handle(&mut self, UnsubscribeLocal(id): UnsubscribeLocal, _: &mut Context<Self>) {
        if let Some((_, key)) = self.local.remove(&id) {
            self.trie.remove(&key.pattern, &Member { who: Who::Local(id), group: key.group });
        }
    }
}

impl Handler<Leave> for RouterActor {
    type Result = ();

    fn handle(&mut self, Leave(session): Leave, _: &mut Context<Self>) {
        let Some((_, keys)) = self.sessions.remove(&session) else {
            return;
        };
        for key in keys {
            self.trie.remove(&key.pattern, &Member { who: Who::Session(session), group: key.group });
        }
    }
}

impl Handler<Publish> for RouterActor {
    type Result = ();

    fn handle(&mut self, Publish { from, events }: Publish, _: &mut Context<Self>) {
        let mut encoded = BytesMut::new();
        for run in events.chunk_by(|one, other| one.topic == other.topic && one.publisher == other.publisher)
        {
            self.publish(from, run, &mut encoded);
        }
    }
}

impl Handler<Count> for RouterActor {
    type Result = actix::MessageResult<Count>;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult((self.trie.len(), self.dropped.load(Ordering::Relaxed)))
    }
}

//! The master's end of the connection of a node-mesh branch. Such a branch takes part in the mesh as any branch: it binds with its
//! credentials, registers actions and topics, calls and is called, publishes and broadcasts.

use super::batch::{Batches, malformed};

use super::talk::{BIND, DISCONNECT, HEARTBEAT, Kind, Message, REGISTER, State, Talk, Waiter, topic_of};
use super::values::{names, read};
use crate::accepts::Accepts;
use crate::dialect::peer::{Allowed, bind, registers};
use crate::dialect::said::{Dialect, DialectError, Said};
use crate::encoding::Encoding;
use crate::error::{Code, Fate};
use crate::frame::{Bound, Frame, NodeNews, Offer, Refused, Subscribe, SubscriptionKey};
use crate::id::SessionId;
use crate::limits::{ACTIONS_PER_FRAME_MAX, ACTIONS_PER_NODE_MAX, PATTERNS_PER_NODE_MAX};
use crate::name::{check_action, literal_action, meant_action};
use crate::pattern::Pattern;
use crate::payload::{CallError, Payload};
use crate::value::Value;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

/// The session under which a meshwork master tells of itself; the others are counted from one.
const MASTER: SessionId = SessionId(0);

/// A node-mesh master at the connection of one branch.
#[derive(Debug)]
pub struct NodeMeshServer {
    talk: Talk,
    state: State,
    batches: Batches,
    /// The name of the meshwork master, and the actions that it answers itself.
    master: ByteString,
    of_master: BTreeSet<ByteString>,
    allowed: Allowed,
    /// The actions and topics that the branch registered, without those that the meshwork master refused. A branch registers them
    /// again with every heartbeat.
    actions: HashSet<ByteString>,
    topics: HashSet<ByteString>,
    /// The offers for which the bind has no room: registered once the branch is bound.
    more_offers: Vec<Offer>,
    more_topics: Vec<ByteString>,
}

impl NodeMeshServer {
    /// For a branch at the address `peer`, with the actions that it may call.
    #[must_use]
    pub fn new(peer: &str, allowed: Allowed) -> Self {
        Self {
            allowed,
            talk: Talk::new(peer, ByteString::new()),
            state: State::Unbound,
            batches: Batches::new(),
            master: ByteString::new(),
            of_master: BTreeSet::new(),
            actions: HashSet::new(),
            topics: HashSet::new(),
            more_offers: Vec::new(),
            more_topics: Vec::new(),
        }
    }

    fn hear_message(&mut self, message: &Bytes, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        let message = self.talk.read(message, now);
        match (&self.state, message) {
            (State::Bound, None) => {}
            (State::Bound, Some(message)) if message.system => self.system(message, now, said),
            (State::Bound, Some(message))
                if message.kind == Kind::Request
                    && !self.allowed.allows(&literal_action(&message.action)) =>
            {
                let what = format!("nobody offers {:?}", message.action);
                let nobody = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, what);
                self.talk.answer(message.id, message.action, Err(nobody), now, said);
            }
            (State::Bound, Some(message)) => self.talk.hear(message, now, said),
            (State::Unbound, Some(message))
                if message.system && message.kind == Kind::Request && *message.action == *BIND =>
            {
                self.bind(message, said);
            }
            // Nothing runs before the bind was checked.
            _ => return Err(malformed("the first message is a request to bind".to_owned())),
        }
        Ok(())
    }

    fn bind(&mut self, message: Message, said: &mut Said) {
        let mut params = read(&message.params).into_list().into_iter();
        let mut next = || params.next().unwrap_or(Value::Nil);
        self.talk.name = next().into_text().into();
        let credentials = match next() {
            Value::Nil => None,
            Value::Text(text) => Some(text.into()),
            // Credentials that are no text go as JSON to the meshwork master, which checks them.
            other => Payload::encode(Encoding::Json, &other)
                .ok()
                .map(|json| String::from_utf8_lossy(&json.bytes).into_owned().into()),
        };
        let (actions, topics) = (next(), next());
        let offers = self.new_offers(actions, said);
        let mut topics = self.new_topics(topics, said);
        self.more_topics = topics.split_off(topics.len().min(ACTIONS_PER_FRAME_MAX));
        let subscriptions = topics.into_iter().filter_map(key).collect();
        let (bind, more) = bind(self.talk.name.clone(), credentials, offers, subscriptions);
        self.more_offers = more;
        self.state = State::Binding(message.id);
        said.frames.push(bind);
    }

    /// The offers of actions that the branch did not offer before. node-mesh knows no answer for one name of several, so one that the mesh
    /// cannot have is left out.
    fn new_offers(&mut self, actions: Value, said: &mut Said) -> Vec<Offer> {
        names(actions)
            .map(|action| literal_action(&action))
            .filter(|action| match check_action(action) {
                Ok(()) => true,
                Err(error) => {
                    said.note(|| format!("an action of the branch is left out: {error}"));
                    false
                }
            })
            .filter(|action| self.actions.len() < ACTIONS_PER_NODE_MAX && self.actions.insert(action.clone()))
            .map(offer)
            .collect()
    }

    /// The topics that the branch did not subscribe to before; those that the mesh cannot have are left out, and not kept.
    fn new_topics(&mut self, topics: Value, said: &mut Said) -> Vec<ByteString> {
        names(topics)
            .filter(|topic| match Pattern::new(topic_of(topic.clone())) {
                Ok(_) => true,
                Err(error) => {
                    said.note(|| format!("a topic of the branch is left out: {error}"));
                    false
                }
            })
            .filter(|topic| self.topics.len() < PATTERNS_PER_NODE_MAX && self.topics.insert(topic.clone()))
            .collect()
    }

    fn register(&mut self, offers: Vec<Offer>, topics: Vec<ByteString>, now: Instant, said: &mut Said) {
        let calls = &mut self.talk.calls;
        said.frames.extend(registers(offers, |offers| {
            let names = offers.iter().map(|offer| offer.action.clone()).collect();
            calls.open(Waiter::Offers(names), now)
        }));
        for topic in topics {
            if let Some(key) = key(topic.clone()) {
                let callback_id = self.talk.calls.open(Waiter::Topic(topic), now);
                said.frames.push(Frame::Subscribe(Subscribe { callback_id, key }));
            }
        }
    }

    /// Forgets actions or a topic that the meshwork master refused, so that the branch may register them again.
    fn denied(&mut self, waiter: Waiter, now: Instant, said: &mut Said) {
        match waiter {
            // One invalid offer makes the master refuse all, so each is tried alone.
            Waiter::Offers(names) if names.len() > 1 => {
                for name in names {
                    self.register(vec![offer(name)], Vec::new(), now, said);
                }
            }
            Waiter::Offers(names) => names.iter().for_each(|name| _ = self.actions.remove(name)),
            Waiter::Topic(topic) => _ = self.topics.remove(&topic),
            Waiter::Request(..) => {}
        }
    }

    fn system(&mut self, message: Message, now: Instant, said: &mut Said) {
        let mut params = read(&message.params).into_list().into_iter();
        match &*message.action {
            REGISTER => {
                let mut next = || params.next().unwrap_or(Value::Nil);
                let (actions, topics) = (self.new_offers(next(), said), self.new_topics(next(), said));
                self.register(actions, topics, now, said);
            }
            HEARTBEAT => {
                // The heartbeat names the address of the branch, which does not matter here: the connection tells which branch it is.
                let mut registered = params.next().unwrap_or(Value::Nil);
                let actions = self.new_offers(registered.take("responderEvents"), said);
                let topics = self.new_topics(registered.take("subscribeEvents"), said);
                self.register(actions, topics, now, said);
                // A branch of the original that finds no state of its master in the answer stops its heartbeats.
                let state = self.talk.state(&self.master, &self.of_master, []);
                let answer = Message::system_answer(message.id, HEARTBEAT).with_body(&state);
                self.talk.write(answer, now, said);
            }
            _ => {}
        }
    }

    fn master_offers(&mut self, news: NodeNews) {
        for (action, _) in news.actions {
            if self.of_master.len() < ACTIONS_PER_NODE_MAX && self.allowed.allows(&action) {
                self.of_master.insert(meant_action(&action));
            }
        }
    }

    fn refused(&mut self, refused: Refused, now: Instant, said: &mut Said) -> DialectError {
        let told = match &self.state {
            State::Binding(id) => Some((Message::system_answer(id.clone(), BIND), &*refused.message)),
            State::Bound if !refused.may_return => {
                // With this message, the original tells a branch that another branch took over its name; the branch must not bind again.
                let id = self.talk.draw();
                Some((Message::system(Kind::Notification, id, DISCONNECT, Vec::new()), "ERR_NAME_EXIST"))
            }
            State::Unbound | State::Bound => None,
        };
        if let Some((message, why)) = told {
            let (code, name) = (Value::text("BIND_ERROR"), Value::text("Error"));
            let error = Value::map([("code", code), ("name", name), ("message", Value::text(why))]);
            self.talk.write(message.with_error(&error), now, said);
        }
        refused.into()
    }
}

fn offer(action: ByteString) -> Offer {
    Offer { action, accepts: Accepts::List, shape: None }
}

fn key(topic: ByteString) -> Option<SubscriptionKey> {
    Some(SubscriptionKey { pattern: Pattern::new(&*topic_of(topic)).ok()?, group: None })
}

impl Dialect for NodeMeshServer {
    fn begin(&mut self, _: Instant, _: &mut Said) {
        // A branch speaks first.
    }

    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        // While the bind is being checked, further messages wait.
        while !matches!(self.state, State::Binding(_))
            && !said.is_enough()
            && let Some(message) = self.batches.next(bytes)?
        {
            match message {
                Ok(message) => self.hear_message(&message, now, said)?,
                Err(unreadable) if self.state == State::Bound => {
                    self.talk.hear_unreadable(unreadable, now, said);
                }
                Err(unreadable) => return Err(malformed(unreadable.why)),
            }
        }
        Ok(())
    }

    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        match frame {
            Frame::Bound(Bound { master, .. }) => {
                self.master = master;
                if let State::Binding(id) = std::mem::replace(&mut self.state, State::Bound) {
                    self.talk.write(Message::system_answer(id, BIND), now, said);
                    let offers = std::mem::take(&mut self.more_offers);
                    let topics = std::mem::take(&mut self.more_topics);
                    self.register(offers, topics, now, said);
                }
            }
            Frame::Response(response) => {
                if let Some(waiter) = self.talk.settle(response, now, said) {
                    self.denied(waiter, now, said);
                }
            }
            Frame::Online(news) if news.session == MASTER => self.master_offers(news),
            Frame::Offline(news) if news.session == MASTER => {
                for (action, _) in &news.actions {
                    self.of_master.remove(&meant_action(action));
                }
            }
            Frame::Refused(refused) => return Err(self.refused(refused, now, said)),
            frame => self.talk.say(frame, now, said),
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant, said: &mut Said) {
        self.talk.expire(now, said);
    }
}

//! The branch's end of a connection to a node-mesh master: a meshwork branch that binds to that master, or a bridge that offers the actions of
//! that master's mesh.
//!
//! Such a master tells no branch which nodes come and go, which actions there are, or that an action is gone; it knows no patterns and no
//! groups. No heartbeat is sent: a heartbeat must hold the address of the branch as the master sees it, and a wrong address ends the original
//! master.

use super::batch::{Batches, DIALECT};
use super::talk::{BIND, DISCONNECT, HEARTBEAT, Kind, Message, REGISTER, State, Talk, topic_for};
use super::values::read;
use crate::accepts::Accepts;
use crate::dialect::peer::bind;
use crate::dialect::said::{Dialect, DialectError, Said};
use crate::error::{Code, Fate};
use crate::frame::{
    Bind, Bound, Describe, Frame, Offer, Refused, Register, Request, Subscribe, SubscriptionKey, Unregister,
};
use crate::id::SessionId;
use crate::limits::{
    ACTIONS_PER_NODE_MAX, FRAME_LEN_MAX, HEARTBEAT_EVERY, IN_FLIGHT_MAX, PATTERNS_PER_NODE_MAX,
};
use crate::name::{everything_below, meant_action};
use crate::payload::{CallError, Payload};
use crate::value::Value;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use std::collections::BTreeSet;
use std::time::Instant;

/// A branch of a node-mesh master.
#[derive(Debug)]
pub struct NodeMeshClient {
    peer: ByteString,
    talk: Talk,
    role: Role,
    state: State,
    batches: Batches,
    /// The actions and topics that the node-mesh master was told.
    actions: BTreeSet<ByteString>,
    topics: BTreeSet<ByteString>,
}

#[derive(Debug)]
enum Role {
    /// This end is a meshwork branch. It gets a `Bound`, as from a meshwork master.
    Branch,
    /// This end is a meshwork master, to which the dialect binds as a branch.
    Bridge {
        /// The credentials for the node-mesh master.
        shown: Option<ByteString>,
        /// The credentials for the meshwork master.
        credentials: Option<ByteString>,
        prefix: ByteString,
    },
}

impl NodeMeshClient {
    /// For a meshwork branch, to a node-mesh master at the address `peer`.
    #[must_use]
    pub fn branch(peer: &str) -> Self {
        Self::new(peer, ByteString::new(), Role::Branch)
    }

    /// For a bridge named `name` to a node-mesh master at the address `peer`. `shown` are the credentials for that master, `credentials`
    /// those for the meshwork master. The bridge offers everything below `prefix`, since a node-mesh master does not say which actions
    /// there are.
    #[must_use]
    pub fn bridge(
        peer: &str,
        name: ByteString,
        shown: Option<ByteString>,
        credentials: Option<ByteString>,
        prefix: ByteString,
    ) -> Self {
        Self::new(peer, name, Role::Bridge { shown, credentials, prefix })
    }

    fn new(peer: &str, name: ByteString, role: Role) -> Self {
        Self {
            peer: peer.into(),
            talk: Talk::new(peer, name),
            role,
            state: State::Unbound,
            batches: Batches::new(),
            actions: BTreeSet::new(),
            topics: BTreeSet::new(),
        }
    }

    /// Sends the bind to the node-mesh master.
    fn bind(&mut self, shown: Option<ByteString>, now: Instant, said: &mut Said) {
        let id = self.talk.draw();
        self.state = State::Binding(id.clone());
        let shown = shown.map_or(Value::Nil, |shown| Value::text(&*shown));
        let name = Value::text(&*self.talk.name);
        let (actions, topics) = self.told();
        let params = vec![name, shown, actions, topics];
        self.talk.write(Message::system(Kind::Request, id, BIND, params), now, said);
    }

    /// Takes the bind of the meshwork branch.
    fn asked_to_bind(&mut self, asked: Bind, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        let topics: Result<Vec<_>, _> = asked.subscriptions.iter().map(topic).collect();
        match topics {
            Ok(topics) => self.topics.extend(topics),
            Err(error) => return Err(self.refuse(error.code(), error.message(), false, said)),
        }
        self.actions.extend(asked.offers.iter().map(|offer| meant_action(&offer.action)));
        self.talk.name = asked.name;
        self.bind(asked.credentials, now, said);
        Ok(())
    }

    /// The actions and topics that the node-mesh master was told, or is told now.
    fn told(&self) -> (Value, Value) {
        let list = |names: &BTreeSet<ByteString>| {
            Value::List(names.iter().map(|name| Value::text(&**name)).collect())
        };
        (list(&self.actions), list(&self.topics))
    }

    /// Takes the answer of the node-mesh master to the bind.
    fn bound(&mut self, message: &Message, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        if message.is_failure() {
            let mut error = read(&message.error);
            let code = error.take("code").into_text();
            let why = error.take("message").into_text();
            let message = format!("the node-mesh master at {} refuses the bind: {why} ({code})", self.peer);
            let (code, may_return) = match &*code {
                "BIND_TIMEOUT" => (Code::BIND_TIMEOUT, true),
                _ => (Code::BIND_ERROR, false),
            };
            return Err(self.refuse(code, &message, may_return, said));
        }
        self.state = State::Bound;
        match &self.role {
            Role::Branch => {
                said.frames.push(Frame::Bound(Bound {
                    session: SessionId(1),
                    master: "a node-mesh master".into(),
                    heartbeat_ms: u64::try_from(HEARTBEAT_EVERY.as_millis()).unwrap_or(u64::MAX),
                    frame_len_max: FRAME_LEN_MAX as u64,
                    in_flight_max: IN_FLIGHT_MAX as u64,
                }));
            }
            Role::Bridge { credentials, prefix, .. } => {
                let action = everything_below(prefix);
                let offer = Offer { action, accepts: Accepts::List, shape: None };
                let name = self.talk.name.clone();
                said.frames.push(bind(name, credentials.clone(), vec![offer], Vec::new()).0);
            }
        }
        // The original branch registers its actions and topics once more after the bind, so this does too.
        let told = self.told();
        self.register(told, now, said);
        Ok(())
    }

    fn register(&mut self, (actions, topics): (Value, Value), now: Instant, said: &mut Said) {
        let id = self.talk.draw();
        let params = vec![actions, topics];
        self.talk.write(Message::system(Kind::Notification, id, REGISTER, params), now, said);
    }

    /// Ends the connection, and tells the meshwork branch why.
    fn refuse(&self, code: Code, message: &str, may_return: bool, said: &mut Said) -> DialectError {
        let refused = Refused { code, message: message.into(), may_return };
        if matches!(self.role, Role::Branch) {
            said.frames.push(Frame::Refused(refused.clone()));
        }
        refused.into()
    }

    fn hear_message(&mut self, message: &Bytes, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        let Some(message) = self.talk.read(message, now) else {
            return Ok(());
        };
        match (&self.state, message.kind, message.system) {
            (State::Binding(id), Kind::Callback, true) if *id == message.id => {
                self.bound(&message, now, said)?;
            }
            (_, Kind::Notification, true) if *message.action == *DISCONNECT => {
                let why = read(&message.error).take("message").into_text();
                let message = format!("the node-mesh master at {} ends the bind: {why}", self.peer);
                return Err(self.refuse(Code::BIND_ERROR, &message, false, said));
            }
            (State::Bound, Kind::Request, true) if *message.action == *HEARTBEAT => {
                let state = self.talk.state(&self.talk.name, &self.actions, &self.topics);
                let answer = Message::system_answer(message.id, HEARTBEAT).with_body(&state);
                self.talk.write(answer, now, said);
            }
            (State::Bound, _, false) => match (&self.role, message.kind) {
                // A bridge carries no events, and offers no actions to the node-mesh master.
                (Role::Bridge { .. }, Kind::Publish | Kind::Notification) => {}
                (Role::Bridge { .. }, Kind::Request) => {
                    let what = format!("a bridge does not offer {:?}", message.action);
                    let nobody = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, what);
                    self.talk.answer(message.id, message.action, Err(nobody), now, said);
                }
                _ => self.talk.hear(message, now, said),
            },
            _ => {}
        }
        Ok(())
    }
}

/// The node-mesh topic of a subscription.
fn topic(key: &SubscriptionKey) -> Result<ByteString, CallError> {
    let wrong = |what: String| Err(CallError::new(Code::BAD_NAME, Fate::NotSent, what));
    match &key.group {
        Some(group) => wrong(format!("node-mesh knows no groups, as {group:?} would be")),
        None if !key.pattern.is_literal() => wrong(format!(
            "node-mesh knows no patterns: {:?} is one, and a topic is a whole name",
            key.pattern.as_str()
        )),
        None => Ok(topic_for(key.pattern.as_str()).into()),
    }
}

impl Dialect for NodeMeshClient {
    fn begin(&mut self, now: Instant, said: &mut Said) {
        if let Role::Bridge { shown, .. } = &self.role {
            self.bind(shown.clone(), now, said);
        }
    }

    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        while let Some(message) = self.batches.next(bytes)? {
            match message {
                Ok(message) => self.hear_message(&message, now, said)?,
                Err(unreadable) => self.talk.hear_unreadable(unreadable, now, said),
            }
        }
        Ok(())
    }

    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        match (frame, &self.role) {
            (Frame::Bind(bind), Role::Branch) => self.asked_to_bind(bind, now, said)?,
            (Frame::Refused(refused), Role::Bridge { .. }) => return Err(refused.into()),
            (Frame::Request(mut request), Role::Bridge { prefix, .. }) => {
                let below = request.action.strip_prefix(&**prefix).and_then(|rest| rest.strip_prefix('/'));
                request.action = below.unwrap_or(&request.action).into();
                self.talk.say(Frame::Request(request), now, said);
            }
            (Frame::Request(Request { node, callback_id, payload, .. }), _) if !node.is_empty() => {
                _ = said.without_functions(&payload, DIALECT);
                let what = "node-mesh does not let a caller choose who answers";
                said.answer(callback_id, Err(CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, what)));
            }
            (Frame::Register(Register { callback_id, offers }), _) => {
                let actions: Vec<_> = offers.iter().map(|offer| meant_action(&offer.action)).collect();
                let told = Value::List(actions.iter().map(|action| Value::text(&**action)).collect());
                self.register((told, Value::List(Vec::new())), now, said);
                let room = ACTIONS_PER_NODE_MAX.saturating_sub(self.actions.len());
                self.actions.extend(actions.into_iter().take(room));
                said.answer(callback_id, Ok(Payload::default()));
            }
            (Frame::Subscribe(Subscribe { callback_id, key }), _) => match topic(&key) {
                Ok(topic) => {
                    let told = Value::List(vec![Value::text(&*topic)]);
                    self.register((Value::List(Vec::new()), told), now, said);
                    if self.topics.len() < PATTERNS_PER_NODE_MAX {
                        self.topics.insert(topic);
                    }
                    said.answer(callback_id, Ok(Payload::default()));
                }
                Err(error) => said.answer(callback_id, Err(error)),
            },
            // node-mesh has no message that withdraws an action: the meshwork branch answers later requests with an error.
            (Frame::Unregister(Unregister { callback_id, actions }), _) => {
                for action in actions {
                    self.actions.remove(&meant_action(&action));
                }
                said.answer(callback_id, Ok(Payload::default()));
            }
            (Frame::Describe(Describe { callback_id, .. }), _) => {
                let what = "node-mesh does not say which actions there are";
                said.answer(callback_id, Err(CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, what)));
            }
            (frame, _) => self.talk.say(frame, now, said),
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant, said: &mut Said) {
        self.talk.expire(now, said);
    }
}

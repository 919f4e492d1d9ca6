//! The branch's end of a connection to a node-mesh master: a meshwork branch that binds to that master, or a bridge that offers the actions of
//! that master's mesh.
//!
//! Such a master tells no branch which nodes come and go, which actions there are, or that an action is gone; it knows no patterns and no
//! groups. No heartbeat is sent: a heartbeat must hold the address of the branch as the master sees it, and a wrong address ends the original
//! master.

use super::batch::{DIALECT, next_batch};
use super::talk::{BIND, DISCONNECT, Kind, Message, REGISTER, State, Talk, topic_for};
use crate::accepts::Accepts;
use crate::dialect::peer::bind;
use crate::dialect::said::{Dialect, DialectError, Said};
use crate::error::{Code, Fate};
use crate::frame::{
    Bind, Bound, Describe, Frame, Offer, Refused, Register, Request, Subscribe, SubscriptionKey, Unregister,
};
use crate::id::SessionId;
use crate::limits::{FRAME_LEN_MAX, HEARTBEAT_EVERY, IN_FLIGHT_MAX};
use crate::name::everything_below;
use crate::payload::{CallError, Payload};
use crate::value::Value;
use bytes::BytesMut;
use bytestring::ByteString;
use std::time::Instant;

/// A branch of a node-mesh master.
#[derive(Debug)]
pub struct NodeMeshClient {
    talk: Talk,
    role: Role,
    state: State,
}

#[derive(Debug)]
enum Role {
    /// This end is a meshwork branch. It gets a `Bound`, as from a meshwork master.
    Branch {
        /// The actions and topics of the bind, until they are registered once more.
        registered: (Vec<Value>, Vec<Value>),
    },
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
        Self::new(peer, ByteString::new(), Role::Branch { registered: Default::default() })
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
        Self { talk: Talk::new(peer, name), role, state: State::Unbound }
    }

    /// Sends the bind to the node-mesh master.
    fn bind(
        &mut self,
        shown: Option<ByteString>,
        (actions, topics): (Vec<Value>, Vec<Value>),
        now: Instant,
        said: &mut Said,
    ) {
        let id = self.talk.draw();
        self.state = State::Binding(id.clone());
        let shown = shown.map_or(Value::Nil, |shown| Value::text(&*shown));
        let name = Value::text(&*self.talk.name);
        let params = vec![name, shown, Value::List(actions), Value::List(topics)];
        self.talk.write(Message::system(Kind::Request, id, BIND, params), now, said);
    }

    /// Takes the bind of the meshwork branch.
    fn asked_to_bind(&mut self, asked: Bind, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        let topics: Result<Vec<_>, _> = asked.subscriptions.iter().map(topic).collect();
        let topics = match topics {
            Ok(topics) => topics,
            Err(error) => return Err(refuse(error.code(), error.message(), false, said)),
        };
        let actions: Vec<_> = asked.offers.iter().map(|offer| Value::text(&*offer.action)).collect();
        self.talk.name = asked.name;
        if let Role::Branch { registered } = &mut self.role {
            *registered = (actions.clone(), topics.clone());
        }
        self.bind(asked.credentials, (actions, topics), now, said);
        Ok(())
    }

    /// Takes the answer of the node-mesh master to the bind.
    fn bound(&mut self, mut error: Value, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        if error != Value::Nil {
            let code = error.take("code").into_text();
            let message = format!("{} ({code})", error.take("message").into_text());
            let (code, may_return) = match &*code {
                "BIND_TIMEOUT" => (Code::BIND_TIMEOUT, true),
                _ => (Code::BIND_ERROR, false),
            };
            return Err(refuse(code, &message, may_return, said));
        }
        self.state = State::Bound;
        let registered = match &mut self.role {
            Role::Branch { registered } => {
                said.frames.push(Frame::Bound(Bound {
                    session: SessionId(1),
                    master: "a node-mesh master".into(),
                    heartbeat_ms: u64::try_from(HEARTBEAT_EVERY.as_millis()).unwrap_or(u64::MAX),
                    frame_len_max: FRAME_LEN_MAX as u64,
                    in_flight_max: IN_FLIGHT_MAX as u64,
                }));
                std::mem::take(registered)
            }
            Role::Bridge { credentials, prefix, .. } => {
                let action = everything_below(prefix);
                let offer = Offer { action, accepts: Accepts::List, shape: None };
                let name = self.talk.name.clone();
                said.frames.push(bind(name, credentials.clone(), vec![offer], Vec::new()).0);
                Default::default()
            }
        };
        // The original branch registers its actions and topics once more after the bind, so this does too.
        self.register(registered, now, said);
        Ok(())
    }

    fn register(&mut self, (actions, topics): (Vec<Value>, Vec<Value>), now: Instant, said: &mut Said) {
        let id = self.talk.draw();
        let params = vec![Value::List(actions), Value::List(topics)];
        self.talk.write(Message::system(Kind::Notification, id, REGISTER, params), now, said);
    }

    fn hear_message(&mut self, message: Value, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        let Some(message) = self.talk.read(message, now) else {
            return Ok(());
        };
        match (&self.state, message.kind, message.system) {
            (State::Binding(id), Kind::Callback, true) if *id == message.id => {
                self.bound(message.error, now, said)?;
            }
            (_, Kind::Notification, true) if *message.action == *DISCONNECT => {
                let mut error = message.error;
                let message = error.take("message").into_text();
                return Err(refuse(Code::BIND_ERROR, &message, false, said));
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
fn topic(key: &SubscriptionKey) -> Result<Value, CallError> {
    let wrong = |what: String| Err(CallError::new(Code::BAD_NAME, Fate::NotSent, what));
    match &key.group {
        Some(group) => wrong(format!("node-mesh knows no groups, as {group:?} would be")),
        None if !key.pattern.is_literal() => wrong(format!(
            "node-mesh knows no patterns: {:?} is one, and a topic is a whole name",
            key.pattern.as_str()
        )),
        None => Ok(Value::text(topic_for(key.pattern.as_str()))),
    }
}

/// Ends the connection, and tells the meshwork branch or master why.
fn refuse(code: Code, message: &str, may_return: bool, said: &mut Said) -> DialectError {
    let refused = Refused { code, message: message.into(), may_return };
    said.frames.push(Frame::Refused(refused.clone()));
    refused.into()
}

impl Dialect for NodeMeshClient {
    fn begin(&mut self, now: Instant, said: &mut Said) {
        if let Role::Bridge { shown, .. } = &self.role {
            self.bind(shown.clone(), Default::default(), now, said);
        }
    }

    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        while let Some(messages) = next_batch(bytes)? {
            for message in messages {
                match message {
                    Ok(message) => self.hear_message(message, now, said)?,
                    Err(unreadable) => self.talk.hear_unreadable(unreadable, now, said),
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        match (frame, &self.role) {
            (Frame::Bind(bind), Role::Branch { .. }) => self.asked_to_bind(bind, now, said)?,
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
                let actions = offers.iter().map(|offer| Value::text(&*offer.action)).collect();
                self.register((actions, Vec::new()), now, said);
                said.answer(callback_id, Ok(Payload::default()));
            }
            (Frame::Subscribe(Subscribe { callback_id, key }), _) => match topic(&key) {
                Ok(topic) => {
                    self.register((Vec::new(), vec![topic]), now, said);
                    said.answer(callback_id, Ok(Payload::default()));
                }
                Err(error) => said.answer(callback_id, Err(error)),
            },
            // node-mesh has no message that withdraws an action: the meshwork branch answers later requests with an error.
            (Frame::Unregister(Unregister { callback_id, .. }), _) => {
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

//! The master's end. Whoever is at the other one is a branch of the mesh as any: it binds with what it shows, registers actions and
//! topics, calls and is called, publishes and broadcasts.

use super::{BIND, DISCONNECT, HEARTBEAT, Kind, Message, REGISTER, State, Talk, malformed, names};
use super::{next_batch, pack, write_bin};
use crate::dialect::{Dialect, DialectError, Said, bind};
use crate::{
    ByteString, Encoding, Frame, Offer, Pattern, Refused, Register, Subscribe, SubscriptionKey, Value,
    check_action,
};
use bytes::BytesMut;
use std::collections::HashSet;
use std::time::Instant;

/// What a node-mesh master is to one of its branches.
#[derive(Debug)]
pub struct NodeMeshServer {
    talk: Talk,
    state: State,
    actions: HashSet<ByteString>,
    topics: HashSet<ByteString>,
}

impl NodeMeshServer {
    /// For a branch that came from there.
    #[must_use]
    pub fn new(peer: &str) -> Self {
        Self {
            talk: Talk::new(peer, ByteString::new()),
            state: State::Unbound,
            actions: HashSet::new(),
            topics: HashSet::new(),
        }
    }

    fn hear_message(&mut self, message: Value, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        let message = self.talk.read(message, now);
        match (&self.state, message) {
            (State::Bound, None) => {}
            (State::Bound, Some(message)) if message.system => self.system(message, now, said),
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
        let mut params = message.params.into_iter();
        let mut next = || params.next().unwrap_or(Value::Nil);
        self.talk.name = next().into_text().into();
        let credentials = match next() {
            Value::Nil => None,
            Value::Text(text) => Some(text.into()),
            // Whatever it shows instead of a text is for the master's own check: as JSON.
            other => pack(&other)
                .transcode(Encoding::Json)
                .ok()
                .map(|json| String::from_utf8_lossy(&json.bytes).into_owned().into()),
        };
        let (actions, topics) = (next(), next());
        let offers = self.new_offers(actions);
        let subscriptions = self.new_keys(topics);
        self.state = State::Binding(message.id);
        said.frames.push(bind(self.talk.name.clone(), credentials, offers, subscriptions));
    }

    /// Those that it did not offer before.
    fn new_offers(&mut self, actions: Value) -> Vec<Offer> {
        names(actions)
            .filter(|action| check_action(action).is_ok() && self.actions.insert(action.clone()))
            .map(|action| Offer { action, encoding: Encoding::MessagePack, shape: None })
            .collect()
    }

    fn new_keys(&mut self, topics: Value) -> Vec<SubscriptionKey> {
        names(topics)
            .filter(|topic| self.topics.insert(topic.clone()))
            .filter_map(|topic| Some(SubscriptionKey { pattern: Pattern::new(&*topic).ok()?, group: None }))
            .collect()
    }

    fn register(&mut self, actions: Value, topics: Value, now: Instant, said: &mut Said) {
        let offers = self.new_offers(actions);
        if !offers.is_empty() {
            let callback_id = self.talk.calls.open(None, now);
            said.frames.push(Frame::Register(Register { callback_id, offers }));
        }
        for key in self.new_keys(topics) {
            let callback_id = self.talk.calls.open(None, now);
            said.frames.push(Frame::Subscribe(Subscribe { callback_id, key }));
        }
    }

    fn system(&mut self, message: Message, now: Instant, said: &mut Said) {
        let mut params = message.params.into_iter();
        match &*message.action {
            REGISTER => {
                let mut next = || params.next().unwrap_or(Value::Nil);
                let (actions, topics) = (next(), next());
                self.register(actions, topics, now, said);
            }
            HEARTBEAT => {
                // What it believes its address to be does not matter: it is whoever is on this connection.
                let state = params.next().unwrap_or(Value::Nil);
                let mut registered = state.clone();
                let (actions, topics) =
                    (registered.take("responderEvents"), registered.take("subscribeEvents"));
                self.register(actions, topics, now, said);
                let answer = Message::system(Kind::Callback, message.id, HEARTBEAT, vec![state]);
                self.talk.write(answer, now, said);
            }
            _ => {}
        }
    }

    fn refused(&mut self, refused: Refused, now: Instant, said: &mut Said) -> DialectError {
        let told = match &self.state {
            State::Binding(id) => {
                Some((Message::system(Kind::Callback, id.clone(), BIND, Vec::new()), &*refused.message))
            }
            State::Bound if !refused.may_return => {
                // The original says so when another one has taken the name over; it must not come back.
                let id = self.talk.draw();
                Some((Message::system(Kind::Notification, id, DISCONNECT, Vec::new()), "ERR_NAME_EXIST"))
            }
            State::Unbound | State::Bound => None,
        };
        if let Some((message, why)) = told {
            let (code, name) = (Value::text("BIND_ERROR"), Value::text("Error"));
            let error = Value::map([("code", code), ("name", name), ("message", Value::text(why))]);
            self.talk.write(Message { error, ..message }, now, said);
        }
        refused.into()
    }
}

impl Dialect for NodeMeshServer {
    fn begin(&mut self, _: Instant, _: &mut Said) {
        // A branch speaks first.
    }

    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        // While it is being checked, what it says waits.
        while !matches!(self.state, State::Binding(_))
            && let Some(messages) = next_batch(bytes)?
        {
            let mut messages = messages.into_iter();
            while let Some(message) = messages.next() {
                self.hear_message(message, now, said)?;
                if matches!(self.state, State::Binding(_)) && messages.len() > 0 {
                    // The others of the batch wait, too.
                    let mut rest = BytesMut::new();
                    write_bin(&pack(&Value::List(messages.collect())).bytes, &mut rest);
                    rest.unsplit(bytes.split());
                    *bytes = rest;
                    break;
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        match frame {
            Frame::Bound(_) => {
                if let State::Binding(id) = std::mem::replace(&mut self.state, State::Bound) {
                    self.talk.write(Message::system(Kind::Callback, id, BIND, Vec::new()), now, said);
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

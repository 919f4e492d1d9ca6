//! node-mesh, as the npm package `node-mesh` 2.0 speaks it: MessagePack `bin` values one behind the other, each of which holds an array of
//! messages. A message is a map: `id`, `type` (request, callback, publish, notification), `source` (custom, system), `fromId`, `fromName`,
//! `targetId`, `time`, `content` (`action`, `params`) and `data` (`body`, `error`).
//!
//! This is the master's end. Whoever is at the other one is a branch of the mesh as any: it binds with what it shows, registers
//! actions and topics, calls and is called, publishes and broadcasts. The lists of arguments of its events and broadcasts are
//! the values of ours.

use super::{Calls, Dialect, DialectError, Said, too_late};
use crate::limits::{FRAME_LEN_MAX, HEAD_RESERVE_LEN, PROTOCOL_VERSION};
use crate::payload::transcode::Value;
use crate::{
    Bind, Broadcast, ByteString, CallError, CallbackId, Code, Encoding, Fate, Frame, Invoke, Offer, Passed,
    Pattern, Payload, Publish, Refused, Register, Request, Response, Subscribe, SubscriptionKey,
    check_action,
};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

const DIALECT: &str = "node-mesh";

/// The longest `bin`, in bytes: what fits into a frame of ours.
const BIN_LEN_MAX: usize = FRAME_LEN_MAX - HEAD_RESERVE_LEN;

const BIND: &str = "action:bindAuth";
const REGISTER: &str = "action:register";
const HEARTBEAT: &str = "action:heartbeat";
const DISCONNECT: &str = "action:disconnect";

/// What a node-mesh master is to one of its branches.
#[derive(Debug)]
pub struct NodeMeshServer {
    peer: String,
    state: State,
    name: ByteString,
    actions: HashSet<ByteString>,
    topics: HashSet<ByteString>,
    /// The branch's requests, by our id: its own id and the action.
    calls: Calls<(String, ByteString)>,
    /// What registers and subscribes: nobody waits for the answers.
    housekeeping: HashSet<CallbackId>,
    /// Requests to the branch, by the id that it knows.
    asked: HashMap<String, CallbackId>,
    next_id: u64,
    /// When the branch said what time it is, and what it said: milliseconds since the epoch.
    clock: Option<(Instant, f64)>,
}

#[derive(Clone, PartialEq, Debug)]
enum State {
    Unbound,
    /// Its bind is asked for under this id.
    Binding(String),
    Bound,
}

/// The parts of a message that matter.
struct Message {
    id: String,
    kind: String,
    system: bool,
    action: ByteString,
    params: Vec<Value>,
    body: Value,
    error: Value,
}

impl Value {
    fn take(&mut self, key: &str) -> Value {
        let Value::Map(entries) = self else { return Value::Nil };
        let found = entries.iter_mut().find(|(name, _)| matches!(name, Value::Text(name) if name == key));
        found.map_or(Value::Nil, |(_, value)| std::mem::replace(value, Value::Nil))
    }

    fn into_text(self) -> String {
        match self {
            Value::Text(text) => text,
            _ => String::new(),
        }
    }

    fn into_list(self) -> Vec<Value> {
        match self {
            Value::List(values) => values,
            _ => Vec::new(),
        }
    }

    fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
        Value::Map(entries.into_iter().map(|(key, value)| (Value::text(key), value)).collect())
    }
}

/// The content of the next `bin`, if all of it is there.
fn next_bin(bytes: &mut BytesMut) -> Result<Option<Bytes>, DialectError> {
    let claimed = match bytes[..] {
        [0xC4, len, ..] => Some((2, usize::from(len))),
        [0xC5, a, b, ..] => Some((3, usize::from(u16::from_be_bytes([a, b])))),
        [0xC6, a, b, c, d, ..] => Some((5, u32::from_be_bytes([a, b, c, d]) as usize)),
        [] | [0xC4..=0xC6, ..] => None,
        [first, ..] => {
            let what = format!("it begins with {first:#04x}, and a bin with 0xc4 to 0xc6");
            return Err(DialectError::Malformed { dialect: DIALECT, what });
        }
    };
    let Some((head, claimed)) = claimed else { return Ok(None) };
    if claimed > BIN_LEN_MAX {
        return Err(DialectError::TooLong { dialect: DIALECT, claimed, max: BIN_LEN_MAX });
    }
    if bytes.len() < head + claimed {
        return Ok(None);
    }
    bytes.advance(head);
    Ok(Some(bytes.split_to(claimed).freeze()))
}

fn write_bin(content: &[u8], bytes: &mut BytesMut) {
    match content.len() {
        len @ 0..=0xFF => bytes.extend_from_slice(&[0xC4, len as u8]),
        len @ 0x100..=0xFFFF => {
            bytes.extend_from_slice(&[0xC5]);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.extend_from_slice(&[0xC6]);
            // Whoever makes a message checks it against the frame limit.
            bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    bytes.extend_from_slice(content);
}

fn pack(value: &Value) -> Payload {
    // Every value has a form in MessagePack.
    Payload::encode(Encoding::MessagePack, value).unwrap_or_default()
}

/// A value of ours as the list of arguments of theirs: a list is one already, nothing is an empty one.
fn as_params(payload: &Payload) -> Result<Vec<Value>, CallError> {
    Ok(match payload.transcode(Encoding::MessagePack)?.decode()? {
        Value::List(values) => values,
        Value::Nil => Vec::new(),
        value => vec![value],
    })
}

/// An error of ours as theirs: codes are texts there, and what one of them threw comes out as it went in.
fn error_object(error: &CallError) -> Value {
    if let Some(thrown @ Value::Map(_)) = error.data().and_then(|data| data.decode::<Value>().ok())
        && error.code() == Code::UNKNOWN
    {
        return thrown;
    }
    let code = match error.code() {
        Code::UNKNOWN => Value::text("NONE"),
        Code::ACTION_NOT_FOUND => Value::text("ACTION_NOT_EXIST"),
        Code::PROVIDER_LOST | Code::LINK_LOST => Value::text("ACTION_SOCKET_NOT_ACTIVE"),
        Code::CANNOT_DECODE => Value::text("REQUEST_PARAM_ERROR"),
        code => code.name().map_or(Value::Unsigned(u64::from(code.0)), Value::text),
    };
    let name = if error.name().is_empty() { "Error" } else { error.name() };
    Value::map([("code", code), ("name", Value::text(name)), ("message", Value::text(error.message()))])
}

/// What a Node.js action threw, as an error of ours: a code that is a text travels in its data.
fn thrown(mut error: Value) -> CallError {
    let whole = error.clone();
    let (name, message) = (error.take("name").into_text(), error.take("message").into_text());
    let code = match error.take("code") {
        Value::Unsigned(code) => u32::try_from(code).ok(),
        Value::Text(code) if code == "REQUEST_TIMEOUT" => Some(Code::REQUEST_TIMEOUT.0),
        Value::Text(code) if code == "ACTION_NOT_EXIST" => Some(Code::ACTION_NOT_FOUND.0),
        _ => None,
    };
    let name = if name.is_empty() { "Error".to_owned() } else { name };
    let error = CallError::named(code.map_or(Code::UNKNOWN, Code), Fate::Failed, name, message);
    match Payload::encode(Encoding::MessagePack, &whole) {
        Ok(data) => error.with_data(data),
        Err(_) => error,
    }
}

fn names(list: Value) -> impl Iterator<Item = ByteString> {
    list.into_list().into_iter().filter_map(|name| match name {
        Value::Text(name) => Some(ByteString::from(name)),
        _ => None,
    })
}

impl NodeMeshServer {
    /// For a branch that came from there.
    #[must_use]
    pub fn new(peer: &str) -> Self {
        Self {
            peer: peer.to_owned(),
            state: State::Unbound,
            name: ByteString::new(),
            actions: HashSet::new(),
            topics: HashSet::new(),
            calls: Calls::new(),
            housekeeping: HashSet::new(),
            asked: HashMap::new(),
            next_id: 0,
            clock: None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a message has so many parts")]
    fn message(
        &self,
        id: &str,
        kind: &str,
        system: bool,
        action: &str,
        params: Vec<Value>,
        (body, error): (Value, Value),
        now: Instant,
        said: &mut Said,
    ) {
        let time =
            self.clock.map_or(0.0, |(since, time)| time + now.duration_since(since).as_secs_f64() * 1e3);
        let message = Value::map([
            ("id", Value::text(id)),
            ("type", Value::text(kind)),
            ("source", Value::text(if system { "system" } else { "custom" })),
            ("fromId", Value::text("IPv4://meshwork")),
            ("fromName", Value::text(&*self.name)),
            ("targetId", Value::text(format!("IPv4://{}", self.peer))),
            ("content", Value::map([("action", Value::text(action)), ("params", Value::List(params))])),
            ("time", Value::Float64(time)),
            ("data", Value::map([("body", body), ("error", error)])),
        ]);
        write_bin(&pack(&Value::List(vec![message])).bytes, &mut said.bytes);
    }

    fn draw(&mut self) -> String {
        self.next_id += 1;
        format!("{:016x}", self.next_id)
    }

    fn hear_message(
        &mut self,
        mut message: Value,
        now: Instant,
        said: &mut Said,
    ) -> Result<(), DialectError> {
        if let Value::Float64(time) = message.take("time")
            && self.clock.is_none()
        {
            self.clock = Some((now, time));
        }
        let (mut content, mut data) = (message.take("content"), message.take("data"));
        let message = Message {
            id: message.take("id").into_text(),
            kind: message.take("type").into_text(),
            system: message.take("source").into_text() == "system",
            action: content.take("action").into_text().into(),
            params: content.take("params").into_list(),
            body: data.take("body"),
            error: data.take("error"),
        };
        match (&self.state, &*message.kind, message.system) {
            (State::Unbound, "request", true) if *message.action == *BIND => self.bind(message, said),
            // Nothing runs before the bind was checked.
            (State::Unbound | State::Binding(_), ..) => {
                let what = "the first message is a request to bind".to_owned();
                return Err(DialectError::Malformed { dialect: DIALECT, what });
            }
            (State::Bound, _, true) => self.system(message, now, said),
            (State::Bound, "request", false) => {
                let callback_id = self.calls.open((message.id, message.action.clone()), now);
                said.frames.push(Frame::Request(Request {
                    callback_id,
                    action: message.action,
                    node: ByteString::new(),
                    caller: ByteString::new(),
                    time_left: Some(self.calls.within()),
                    payload: pack(&Value::List(message.params)),
                }));
            }
            (State::Bound, "callback", false) => {
                if let Some(callback_id) = self.asked.remove(&message.id) {
                    let outcome = match message.error {
                        Value::Nil => Ok(pack(&message.body)),
                        error => Err(thrown(error)),
                    };
                    said.frames.push(Frame::Response(Response { callback_id, outcome }));
                }
            }
            (State::Bound, "publish", false) => said.frames.push(Frame::Publish(Publish {
                topic: message.action,
                publisher: ByteString::new(),
                for_all: true,
                groups: Vec::new(),
                payload: pack(&Value::List(message.params)),
            })),
            (State::Bound, "notification", false) => said.frames.push(Frame::Broadcast(Broadcast {
                topic: message.action,
                publisher: ByteString::new(),
                payload: pack(&Value::List(message.params)),
            })),
            (State::Bound, ..) => {}
        }
        Ok(())
    }

    fn bind(&mut self, message: Message, said: &mut Said) {
        let mut params = message.params.into_iter();
        let mut next = || params.next().unwrap_or(Value::Nil);
        self.name = next().into_text().into();
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
        let name = self.name.clone();
        said.frames.push(Frame::Bind(Bind {
            version: PROTOCOL_VERSION,
            name,
            credentials,
            offers,
            subscriptions,
        }));
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
            let callback_id = self.calls.open((String::new(), ByteString::new()), now);
            self.housekeeping.insert(callback_id);
            said.frames.push(Frame::Register(Register { callback_id, offers }));
        }
        for key in self.new_keys(topics) {
            let callback_id = self.calls.open((String::new(), ByteString::new()), now);
            self.housekeeping.insert(callback_id);
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
                let data = (Value::Nil, Value::Nil);
                self.message(&message.id, "callback", true, HEARTBEAT, vec![state], data, now, said);
            }
            _ => {}
        }
    }

    /// Answers a request of the branch.
    fn answer(
        &self,
        id: &str,
        action: &str,
        outcome: Result<Payload, CallError>,
        now: Instant,
        said: &mut Said,
    ) {
        let read =
            outcome.and_then(|payload| Ok(payload.transcode(Encoding::MessagePack)?.decode::<Value>()?));
        let data = match read {
            Ok(body) => (body, Value::Nil),
            Err(error) => (Value::Nil, error_object(&error)),
        };
        self.message(id, "callback", false, action, Vec::new(), data, now, said);
    }

    fn refused(&mut self, refused: Refused, now: Instant, said: &mut Said) -> DialectError {
        let error = |code: &str, message: &str| {
            let (name, message) = (Value::text("Error"), Value::text(message));
            (Value::Nil, Value::map([("code", Value::text(code)), ("name", name), ("message", message)]))
        };
        match &self.state {
            State::Binding(id) => {
                let data = error("BIND_ERROR", &refused.message);
                self.message(&id.clone(), "callback", true, BIND, Vec::new(), data, now, said);
            }
            State::Bound if !refused.may_return => {
                // The original says so when another one has taken the name over; it must not come back.
                let id = self.draw();
                let data = error("BIND_ERROR", "ERR_NAME_EXIST");
                self.message(&id, "notification", true, DISCONNECT, Vec::new(), data, now, said);
            }
            State::Unbound | State::Bound => {}
        }
        refused.into()
    }
}

/// Functions have no form in this protocol: they are given back.
fn give_back(payload: &Payload, said: &mut Said) {
    for passed in &payload.callbacks {
        if let Passed::Lent(id) = passed {
            said.frames.push(Frame::Release(*id));
        }
    }
}

impl Dialect for NodeMeshServer {
    fn begin(&mut self, _: &mut Said) {
        // A branch speaks first.
    }

    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        // While it is being checked, what it says waits.
        while !matches!(self.state, State::Binding(_))
            && let Some(content) = next_bin(bytes)?
        {
            let malformed = |what: String| DialectError::Malformed { dialect: DIALECT, what };
            let messages = Payload::new(Encoding::MessagePack, content).decode::<Value>();
            let Value::List(messages) = messages.map_err(|error| malformed(error.reason))? else {
                return Err(malformed("a bin holds a list of messages".to_owned()));
            };
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
                    let data = (Value::Nil, Value::Nil);
                    self.message(&id, "callback", true, BIND, Vec::new(), data, now, said);
                }
            }
            Frame::Refused(refused) => return Err(self.refused(refused, now, said)),
            Frame::Ping => said.frames.push(Frame::Pong),
            Frame::Request(Request { callback_id, action, payload, .. }) => {
                give_back(&payload, said);
                match as_params(&payload) {
                    Ok(params) => {
                        let id = self.draw();
                        self.message(
                            &id,
                            "request",
                            false,
                            &action,
                            params,
                            (Value::Nil, Value::Nil),
                            now,
                            said,
                        );
                        self.asked.insert(id, callback_id);
                    }
                    Err(error) => {
                        let outcome = Err(error.with_fate(Fate::NotSent));
                        said.frames.push(Frame::Response(Response { callback_id, outcome }));
                    }
                }
            }
            Frame::Response(Response { callback_id, outcome }) => {
                if let Ok(payload) = &outcome {
                    give_back(payload, said);
                }
                let settled = self.calls.settle(callback_id);
                if self.housekeeping.remove(&callback_id) {
                    return Ok(());
                }
                if let Some((id, action)) = settled {
                    self.answer(&id, &action, outcome, now, said);
                }
            }
            Frame::Publish(Publish { topic, payload, .. }) => {
                if let Ok(params) = as_params(&payload) {
                    let id = self.draw();
                    self.message(&id, "publish", false, &topic, params, (Value::Nil, Value::Nil), now, said);
                }
            }
            Frame::Broadcast(Broadcast { topic, payload, .. }) => {
                if let Ok(params) = as_params(&payload) {
                    let id = self.draw();
                    self.message(
                        &id,
                        "notification",
                        false,
                        &topic,
                        params,
                        (Value::Nil, Value::Nil),
                        now,
                        said,
                    );
                }
            }
            Frame::Cancel(cancelled) => self.asked.retain(|_, callback_id| *callback_id != cancelled),
            Frame::Invoke(Invoke { callback_id, payload, .. }) => {
                give_back(&payload, said);
                if let Some(callback_id) = callback_id {
                    let gone =
                        CallError::new(Code::CALLBACK_GONE, Fate::NotSent, "node-mesh passes no functions");
                    said.frames.push(Frame::Response(Response { callback_id, outcome: Err(gone) }));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant, said: &mut Said) {
        while let Some((callback_id, (id, action))) = self.calls.expired(now) {
            if !self.housekeeping.remove(&callback_id) {
                said.frames.push(Frame::Cancel(callback_id));
                self.answer(&id, &action, Err(too_late(self.calls.within())), now, said);
            }
        }
    }
}

//! The talk of either end once the bind is done, and the forms that both ends use before: messages, topics, errors.
//!
//! Below, the *peer* is the node-mesh program at the far end of the connection.

use super::batch::{DIALECT, Unreadable, write_bin};
use super::values::{
    NIL, NOTHING, arguments_to_node, event_from_node, event_to_node, from_node, pack, part, to_node,
};
use crate::dialect::peer::{Calls, too_late};
use crate::dialect::said::Said;
use crate::encoding::Encoding;
use crate::error::{ApplicationCode, Code, Fate};
use crate::frame::{Broadcast, Frame, Publish, Request, Response};
use crate::headers::Headers;
use crate::id::CallbackId;
use crate::limits::{HEADERS_LEN_MAX, HEADERS_MAX};
use crate::name::{check_topic, literal_action, meant_action};
use crate::payload::{CallError, Payload};
use crate::value::Value;
use crate::value::packed::{UNDEFINED, each_token, entries, text};
use bytes::Bytes;
use bytestring::ByteString;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Instant;

/// The longest id of a message, in bytes: the id is kept as long as the call takes.
const ID_LEN_MAX: usize = 256;

pub(super) const BIND: &str = "action:bindAuth";
pub(super) const REGISTER: &str = "action:register";
pub(super) const HEARTBEAT: &str = "action:heartbeat";
pub(super) const DISCONNECT: &str = "action:disconnect";

/// The state of a connection once the bind is done, at either end.
#[derive(Debug)]
pub(super) struct Talk {
    peer: String,
    /// The name of the branch.
    pub(super) name: ByteString,
    /// Requests and registrations of the peer that are in flight in the mesh.
    pub(super) calls: Calls<Waiter>,
    /// Requests from the mesh that are in flight at the peer.
    asked: HashMap<CallbackId, Asked>,
    /// The requests among them, by their digests.
    alike: HashMap<u64, Alike>,
    digests: RandomState,
    next_id: u64,
    /// The peer's time in its first message, in milliseconds since the epoch, and when that message came.
    clock: Option<(Instant, f64)>,
}

/// A request from the mesh that is in flight at the peer.
#[derive(Debug)]
struct Asked {
    /// The action, as the peer knows it.
    action: ByteString,
    /// The digest of action and arguments.
    digest: u64,
}

/// The requests of one action with equal arguments that are in flight at the peer. A peer that has not the action any more, and asks its
/// master for it, sends such a request back as one of its own.
#[derive(Default, Debug)]
struct Alike {
    asked: usize,
    /// How many of them the peer has sent back.
    came_back: usize,
    /// The most hops of any of them.
    hops: u8,
}

/// The purpose of a request or registration of the peer: who waits for its outcome.
#[derive(Debug)]
pub(super) enum Waiter {
    /// The peer, which sent a request with this id for this action.
    Request(String, ByteString),
    /// The registration of these actions.
    Offers(Vec<ByteString>),
    /// The subscription to this topic.
    Topic(ByteString),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum State {
    Unbound,
    /// The bind was sent, in a message with this id.
    Binding(String),
    Bound,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Request,
    Callback,
    Publish,
    Notification,
}

/// The address that this end gives as its own.
pub(super) const FROM_ID: &str = "IPv4://meshwork";

const KINDS: [(Kind, &str); 4] = [
    (Kind::Request, "request"),
    (Kind::Callback, "callback"),
    (Kind::Publish, "publish"),
    (Kind::Notification, "notification"),
];

/// The parts of a message that matter.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) system: bool,
    pub(super) action: ByteString,
    /// Over how many hops a request came: said by an end of ours, as the original ignores it.
    hops: u8,
    /// The headers of a request or an event, said and ignored by the same.
    headers: Headers,
    /// A list in MessagePack, as the peer writes values.
    pub(super) params: Bytes,
    /// A value in MessagePack, as the peer writes it, as is the error.
    pub(super) body: Bytes,
    pub(super) error: Bytes,
}

impl Message {
    /// A message of a program: a call, a reply, an event.
    fn custom(kind: Kind, id: String, action: impl Into<ByteString>, params: impl Into<Bytes>) -> Self {
        let (action, params, nil) = (action.into(), params.into(), Bytes::from_static(NIL));
        let headers = Headers::none();
        Self { id, kind, system: false, action, hops: 0, headers, params, body: nil.clone(), error: nil }
    }

    /// A message of the protocol itself: a bind, a registration, a heartbeat.
    pub(super) fn system(kind: Kind, id: String, action: &'static str, params: Vec<Value>) -> Self {
        let params = pack(&Value::List(params)).bytes;
        Self { system: true, ..Self::custom(kind, id, ByteString::from_static(action), params) }
    }

    /// The answer of the protocol itself to a message with this id.
    pub(super) fn system_answer(id: String, action: &'static str) -> Self {
        Self::system(Kind::Callback, id, action, Vec::new())
    }

    pub(super) fn with_body(self, body: &Value) -> Self {
        Self { body: pack(body).bytes, ..self }
    }

    pub(super) fn with_error(self, error: &Value) -> Self {
        Self { error: pack(error).bytes, ..self }
    }

    /// Whether the message says that something failed.
    pub(super) fn is_failure(&self) -> bool {
        self.error != NIL
    }
}

/// The meshwork topic of a node-mesh topic. A node-mesh topic is any text, a meshwork topic has segments and no `*`: characters that a
/// topic may not have are escaped.
pub(super) fn topic_of(theirs: ByteString) -> ByteString {
    if check_topic(&theirs).is_ok() && !theirs.contains('%') {
        return theirs;
    }
    let mut ours = String::new();
    for (at, character) in theirs.char_indices() {
        let rest = &theirs[at..];
        match character {
            '*' => ours.push_str("%2A"),
            '%' if ESCAPED.iter().any(|(escape, _)| rest.starts_with(escape)) => ours.push_str("%25"),
            '/' if rest.len() == 1 || ours.is_empty() || ours.ends_with('/') => ours.push_str("%2F"),
            other => ours.push(other),
        }
    }
    ours.into()
}

/// The node-mesh topic of a meshwork topic, with the escapes of [`topic_of`] undone.
pub(super) fn topic_for(ours: &str) -> String {
    let mut theirs = String::new();
    let mut rest = ours;
    while let Some(character) = rest.chars().next() {
        match ESCAPED.iter().find(|(escape, _)| rest.starts_with(escape)) {
            Some((escape, meant)) => {
                theirs.push(*meant);
                rest = &rest[escape.len()..];
            }
            None => {
                theirs.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
    }
    theirs
}

const ESCAPED: [(&str, char); 3] = [("%2F", '/'), ("%2A", '*'), ("%25", '%')];

/// A float of 64 bits.
fn float(value: &[u8]) -> Option<f64> {
    let bits = value.strip_prefix(&[0xCB])?.try_into().ok()?;
    Some(f64::from_be_bytes(bits))
}

/// Reads the headers of a message, a map of texts. Where one of them is no header, the message has none: who said them is no end of ours.
fn read_headers(map: &Bytes) -> Headers {
    // A text has a prefix of five bytes at most.
    if map.len() > HEADERS_LEN_MAX + 10 * HEADERS_MAX + 5 {
        return Headers::none();
    }
    let pairs: Vec<_> = entries(map).map(|(key, value)| (text(&map[key]), text(&map[value]))).collect();
    Headers::of(pairs.iter().map(|(name, value)| (&**name, &**value))).unwrap_or_default()
}

/// The headers of a message as a map; none if there are none.
fn write_headers(headers: &Headers) -> Option<Bytes> {
    let pairs = headers.of_application().map(|(name, value)| (Value::text(name), Value::text(value)));
    let map: Vec<_> = pairs.collect();
    (!map.is_empty()).then(|| pack(&Value::Map(map)).bytes)
}

/// The bytes of a payload in MessagePack.
fn as_packed(payload: &Payload) -> Result<Bytes, CallError> {
    match payload.encoding {
        // As it came, also where it went over a link of an earlier version: see `values.rs`.
        Encoding::MessagePack | Encoding::CompactMessagePack => Ok(payload.bytes.clone()),
        _ => Ok(payload.transcode(Encoding::MessagePack)?.bytes),
    }
}

/// The error of a value that cannot be written for the peer.
fn unwritable(why: String) -> CallError {
    CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, format!("node-mesh cannot be told the value: {why}"))
}

/// The code that an error object of node-mesh has where its program gave none.
const NO_CODE: &str = "NONE";

/// The code of node-mesh for an action that there is not.
const MISSING: &str = "ACTION_NOT_EXIST";

/// A [`CallError`] as an error object of node-mesh, whose codes are texts; or just what another program threw.
fn error_value(error: &CallError) -> Vec<u8> {
    // Where an error is expected, nil says that there is none.
    if let Some(thrown) = error.thrown()
        && let Ok(packed) = as_packed(thrown)
        && let Ok(thrown) = to_node(&packed)
        && thrown != NIL
        && thrown != UNDEFINED
    {
        return thrown;
    }
    let object = error.to_thrown(|code| {
        Some(match code {
            Code::UNKNOWN => Value::text(NO_CODE),
            Code::ACTION_NOT_FOUND => Value::text(MISSING),
            Code::PROVIDER_LOST | Code::LINK_LOST => Value::text("ACTION_SOCKET_NOT_ACTIVE"),
            Code::CANNOT_DECODE => Value::text("REQUEST_PARAM_ERROR"),
            code => code.name().map_or(Value::Unsigned(u64::from(code.0)), Value::text),
        })
    });
    let packed = pack(&object).bytes;
    to_node(&packed).unwrap_or_else(|_| {
        // The original stops reading where such an integer stands, and would hear of no error at all.
        let packed = pack(&narrow(object)).bytes;
        to_node(&packed).unwrap_or_else(|_| packed.to_vec())
    })
}

/// The value with each integer of more than 64 bits as its text.
fn narrow(value: Value) -> Value {
    match value {
        Value::Unsigned128(integer) => Value::text(integer.to_string()),
        Value::Signed128(integer) => Value::text(integer.to_string()),
        Value::List(values) => Value::List(values.into_iter().map(narrow).collect()),
        Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (narrow(key), narrow(value))).collect())
        }
        value => value,
    }
}

/// The error that a Node.js action threw, or that its node made, as a [`CallError`].
fn thrown(error: &Bytes, action: &str) -> CallError {
    let whole = match from_node(error) {
        Ok(bytes) => Payload::new(Encoding::MessagePack, bytes),
        Err(why) => {
            let what = format!("the error cannot be read: {why}");
            return CallError::new(Code::CANNOT_DECODE, Fate::Failed, what);
        }
    };
    if let Ok(error) = whole.decode::<Value>()
        && let Some(error) = made_by_node(&error, action)
    {
        return error.with_thrown(whole);
    }
    let error = CallError::of_thrown(whole);
    let is_none = error.application_code().and_then(ApplicationCode::as_text) == Some(NO_CODE);
    if is_none { error.without_application_code() } else { error }
}

/// The error of meshwork for one that a node of node-mesh itself made, or a gateway of meshwork in its place. It is told from the errors of
/// applications by all of its fields: an application may use the same codes, and then they are its own.
fn made_by_node(error: &Value, action: &str) -> Option<CallError> {
    let Value::Map(fields) = error else { return None };
    let is_known = |(key, value): &(Value, Value)| match (key, value) {
        (Value::Text(key), Value::Text(_)) => ["name", "message", "code", "stack"].contains(&&**key),
        (Value::Text(key), Value::Nil) => key == "cause",
        (Value::Text(key), undefined) if pack(undefined).bytes == UNDEFINED => key == "cause",
        _ => false,
    };
    if !fields.iter().all(is_known) {
        return None;
    }
    let text = |key| match error.get(key) {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    Some(match (text("code")?, text("name")?, text("message")?) {
        // The action may still be running.
        ("REQUEST_TIMEOUT", "Error", "" | "Request Timeout") => {
            let what = format!("the node-mesh program got no reply in time to {action:?}");
            CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, what)
        }
        // The missing action may be one that the called action called in turn.
        (MISSING, "Error", "") => {
            let what = format!("the node-mesh program finds no action {action:?}");
            CallError::new(Code::ACTION_NOT_FOUND, Fate::Failed, what)
        }
        (MISSING, name, what) if Code::ACTION_NOT_FOUND.name() == Some(name) => {
            CallError::new(Code::ACTION_NOT_FOUND, Fate::Failed, what.to_owned())
        }
        _ => return None,
    })
}

impl Talk {
    pub(super) fn new(peer: &str, name: ByteString) -> Self {
        Self {
            peer: peer.to_owned(),
            name,
            calls: Calls::new(),
            asked: HashMap::new(),
            alike: HashMap::new(),
            digests: RandomState::new(),
            next_id: 0,
            clock: None,
        }
    }

    /// Draws an id that no request to the peer has: ids of requests are hexadecimal callback ids, without the `m`.
    pub(super) fn draw(&mut self) -> String {
        self.next_id += 1;
        format!("m{:015x}", self.next_id)
    }

    pub(super) fn write(&self, message: Message, now: Instant, said: &mut Said) {
        let time =
            self.clock.map_or(0.0, |(since, time)| time + now.duration_since(since).as_secs_f64() * 1e3);
        let Message { id, kind, system, action, hops, headers, params, body, error } = message;
        let kind = KINDS.iter().find(|(other, _)| *other == kind).map_or("", |(_, text)| text);
        let headers = write_headers(&headers);
        let mut written = vec![0x91, 0x89 + u8::from(hops > 0) + u8::from(headers.is_some())];
        let text = |text: &str| pack(&Value::text(text)).bytes;
        let map = |entries: [(&str, &[u8]); 2]| {
            let mut map = vec![0x80 | entries.len() as u8];
            for (key, value) in entries {
                map.extend_from_slice(&text(key));
                map.extend_from_slice(value);
            }
            Bytes::from(map)
        };
        let mut put = |key: &str, value: &[u8]| {
            written.extend_from_slice(&text(key));
            written.extend_from_slice(value);
        };
        put("id", &text(&id));
        put("type", &text(kind));
        put("source", &text(if system { "system" } else { "custom" }));
        put("fromId", &text(FROM_ID));
        put("fromName", &text(&self.name));
        put("targetId", &text(&format!("IPv4://{}", self.peer)));
        put("content", &map([("action", &text(&action)), ("params", &params)]));
        put("time", &pack(&Value::Float64(time)).bytes);
        put("data", &map([("body", &body), ("error", &error)]));
        if hops > 0 {
            put("hops", &pack(&Value::Unsigned(hops.into())).bytes);
        }
        if let Some(headers) = headers {
            put("headers", &headers);
        }
        write_bin(&written, &mut said.bytes);
    }

    /// The parts of a message; none if its type is unknown or its id too long.
    pub(super) fn read(&mut self, message: &Bytes, now: Instant) -> Option<Message> {
        let (mut id, mut kind, mut source, mut time) = (String::new(), String::new(), String::new(), None);
        let (mut content, mut data, mut hops, mut headers) = (None, None, 0, Headers::none());
        for (key, value) in entries(message) {
            match &*text(&message[key]) {
                "id" => id = text(&message[value]),
                "type" => kind = text(&message[value]),
                "source" => source = text(&message[value]),
                "content" => content = Some(value),
                "data" => data = Some(value),
                "time" => time = float(&message[value]),
                "hops" => {
                    if let [said @ 0..=0x7F] = message[value] {
                        hops = said;
                    }
                }
                "headers" => headers = read_headers(&message.slice(value)),
                _ => {}
            }
        }
        if let Some(time) = time
            && self.clock.is_none()
        {
            self.clock = Some((now, time));
        }
        let (kind, _) = KINDS.into_iter().find(|(_, text)| *text == kind)?;
        if id.len() > ID_LEN_MAX {
            return None;
        }
        let (content, data) = (part(message, content.as_ref()), part(message, data.as_ref()));
        let under = |map: &Bytes, wanted: &str| {
            entries(map).find(|(key, _)| text(&map[key.clone()]) == wanted).map(|(_, value)| value)
        };
        let action = under(&content, "action").map_or_else(String::new, |action| text(&content[action]));
        let mut params = part(&content, under(&content, "params").as_ref());
        if !matches!(params.first(), Some(0x90..=0x9F | 0xDC | 0xDD)) {
            params = Bytes::from_static(NOTHING);
        }
        let error = part(&data, under(&data, "error").as_ref());
        Some(Message {
            id,
            kind,
            system: source == "system",
            action: action.into(),
            hops,
            headers,
            params,
            body: part(&data, under(&data, "body").as_ref()),
            error: if error == UNDEFINED { Bytes::from_static(NIL) } else { error },
        })
    }

    /// The state of this end, as the original tells it with each heartbeat: its address, name, actions and topics, and its memory, which is not
    /// told.
    pub(super) fn state<'a>(
        &self,
        name: &str,
        actions: impl IntoIterator<Item = &'a ByteString>,
        topics: impl IntoIterator<Item = &'a ByteString>,
    ) -> Value {
        let names = |list: &mut dyn Iterator<Item = &ByteString>| {
            Value::List(list.map(|name| Value::text(&**name)).collect())
        };
        let memory = ["rss", "heapTotal", "heapUsed", "external", "arrayBuffers"];
        Value::map([
            ("id", Value::text(FROM_ID)),
            ("name", Value::text(name)),
            ("responderEvents", names(&mut actions.into_iter())),
            ("subscribeEvents", names(&mut topics.into_iter())),
            ("memory", Value::map(memory.map(|part| (part, Value::Unsigned(0))))),
        ])
    }

    /// Ends the call that an unreadable message belongs to, a request or an answer, with an error.
    pub(super) fn hear_unreadable(
        &mut self,
        Unreadable { id, kind, code, why }: Unreadable,
        now: Instant,
        said: &mut Said,
    ) {
        let what = format!("a message cannot be read: {why}");
        let error = CallError::new(code, Fate::NotSent, what);
        match &*kind {
            "request" if id.len() <= ID_LEN_MAX => self.answer(id, ByteString::new(), Err(error), now, said),
            "callback" => {
                if let Some((callback_id, _)) = self.take_asked(&id) {
                    said.answer(callback_id, Err(error.with_fate(Fate::Failed)));
                }
            }
            _ => {}
        }
    }

    /// Takes the request from the mesh that the peer answers under this id, and its action.
    fn take_asked(&mut self, id: &str) -> Option<(CallbackId, ByteString)> {
        let asked = u64::from_str_radix(id, 16).ok().map(CallbackId)?;
        Some((asked, self.forget_asked(asked)?))
    }

    fn forget_asked(&mut self, asked: CallbackId) -> Option<ByteString> {
        let Asked { action, digest } = self.asked.remove(&asked)?;
        if let Some(alike) = self.alike.get_mut(&digest) {
            alike.asked -= 1;
            alike.came_back = alike.came_back.min(alike.asked);
            if alike.asked == 0 {
                self.alike.remove(&digest);
            }
        }
        Some(action)
    }

    /// A digest of an action and its arguments, equal for all forms that they may have.
    fn digest(&self, action: &str, params: &[u8]) -> u64 {
        let mut hasher = self.digests.build_hasher();
        hasher.write(action.as_bytes());
        // Arguments that are no value have been refused.
        let _ = each_token(params, |token, item| {
            hasher.write_usize(item.within);
            if item.within == 0 {
                hasher.write(&token[item.head..]);
            }
        });
        hasher.finish()
    }

    /// Hears a message of a program.
    pub(super) fn hear(&mut self, message: Message, now: Instant, said: &mut Said) {
        let Message { id, kind, action, mut hops, headers, params, body, error, .. } = message;
        let packed = |bytes| Payload::new(Encoding::MessagePack, bytes);
        let unreadable =
            |why| CallError::new(Code::CANNOT_DECODE, Fate::NotSent, format!("it cannot be read: {why}"));
        match kind {
            Kind::Request => {
                let payload = match from_node(&params) {
                    Ok(bytes) => packed(bytes),
                    Err(why) => return self.answer(id, action, Err(unreadable(why)), now, said),
                };
                if !self.alike.is_empty() {
                    let digest = self.digest(&action, &params);
                    if let Some(alike) = self.alike.get_mut(&digest)
                        && alike.came_back < alike.asked
                    {
                        alike.came_back += 1;
                        hops = hops.max(alike.hops);
                    }
                }
                let ours = literal_action(&action);
                let (waiter, beside) = (Waiter::Request(id, action), (hops, headers));
                said.frames.push(self.calls.request(waiter, ours, beside, payload, now));
            }
            Kind::Callback => {
                if let Some((callback_id, action)) = self.take_asked(&id) {
                    let outcome = match from_node(&body) {
                        _ if error != NIL => Err(thrown(&error, &action)),
                        Ok(bytes) => Ok(packed(bytes)),
                        Err(why) => Err(unreadable(why).with_fate(Fate::Failed)),
                    };
                    said.answer(callback_id, outcome);
                }
            }
            Kind::Publish | Kind::Notification => {
                let (topic, publisher) = (topic_of(action), ByteString::new());
                // An event has nobody to be told.
                let Ok(payload) = event_from_node(&params).map(packed) else { return };
                said.frames.push(match kind {
                    Kind::Publish => Frame::Publish(Publish {
                        topic,
                        publisher,
                        for_all: true,
                        groups: Vec::new(),
                        headers,
                        payload,
                    }),
                    _ => Frame::Broadcast(Broadcast { topic, publisher, headers, payload }),
                });
            }
        }
    }

    /// Says a frame to the peer.
    pub(super) fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) {
        match frame {
            Frame::Ping => said.frames.push(Frame::Pong),
            Frame::Request(Request { callback_id, action, hops, headers, payload, .. }) => {
                let params = said
                    .without_functions(&payload, DIALECT)
                    .and_then(|()| arguments_to_node(&as_packed(&payload)?).map_err(unwritable));
                match params {
                    Ok(params) => {
                        let (id, action) = (format!("{:016x}", callback_id.0), meant_action(&action));
                        let digest = self.digest(&action, &params);
                        self.forget_asked(callback_id);
                        let alike = self.alike.entry(digest).or_default();
                        (alike.asked, alike.hops) = (alike.asked + 1, alike.hops.max(hops));
                        let message = Message::custom(Kind::Request, id, action.clone(), params);
                        self.write(Message { hops, headers, ..message }, now, said);
                        self.asked.insert(callback_id, Asked { action, digest });
                    }
                    Err(error) => said.answer(callback_id, Err(error.with_fate(Fate::NotSent))),
                }
            }
            Frame::Response(response) => {
                self.settle(response, now, said);
            }
            Frame::Publish(Publish { topic, headers, payload, .. }) => {
                self.event(Kind::Publish, topic, headers, &payload, now, said);
            }
            Frame::Broadcast(Broadcast { topic, headers, payload, .. }) => {
                self.event(Kind::Notification, topic, headers, &payload, now, said);
            }
            Frame::Cancel(cancelled) => {
                self.forget_asked(cancelled);
            }
            Frame::Invoke(invoke) => said.nobody_lent(&invoke, DIALECT),
            _ => {}
        }
    }

    /// Takes a response from the mesh, and answers the peer if it waits for one. Gives the registration, if the mesh refused one.
    pub(super) fn settle(
        &mut self,
        Response { callback_id, outcome }: Response,
        now: Instant,
        said: &mut Said,
    ) -> Option<Waiter> {
        let outcome = said.plain(outcome, DIALECT);
        match self.calls.settle(callback_id)? {
            Waiter::Request(id, action) => {
                self.answer(id, action, outcome, now, said);
                None
            }
            waiter => outcome.is_err().then_some(waiter),
        }
    }

    fn event(
        &mut self,
        kind: Kind,
        topic: ByteString,
        headers: Headers,
        payload: &Payload,
        now: Instant,
        said: &mut Said,
    ) {
        if let Ok(params) = as_packed(payload).and_then(|value| event_to_node(&value).map_err(unwritable)) {
            let id = self.draw();
            let message = Message::custom(kind, id, topic_for(&topic), params);
            self.write(Message { headers, ..message }, now, said);
        }
    }

    /// Answers a request of the peer.
    pub(super) fn answer(
        &self,
        id: String,
        action: ByteString,
        outcome: Result<Payload, CallError>,
        now: Instant,
        said: &mut Said,
    ) {
        let body = outcome.and_then(|payload| {
            let written = to_node(&as_packed(&payload)?).map_err(unwritable);
            written.map_err(|error| error.with_fate(Fate::Failed))
        });
        let mut answer = Message::custom(Kind::Callback, id, action, NOTHING.to_vec());
        match body {
            Ok(body) => answer.body = body.into(),
            Err(error) => answer.error = error_value(&error).into(),
        }
        self.write(answer, now, said);
    }

    pub(super) fn expire(&mut self, now: Instant, said: &mut Said) {
        while let Some((callback_id, waiter)) = self.calls.expired(now) {
            if let Waiter::Request(id, action) = waiter {
                said.frames.push(Frame::Cancel(callback_id));
                self.answer(id, action, Err(too_late(self.calls.within())), now, said);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_of_theirs_is_one_of_ours_and_finds_its_way_back() {
        for (theirs, ours) in [
            ("sub/test", "sub/test"),
            ("/user/login", "%2Fuser/login"),
            ("a//b", "a/%2Fb"),
            ("a/", "a%2F"),
            ("/", "%2F"),
            ("//", "%2F%2F"),
            ("a/*", "a/%2A"),
            ("100%", "100%"),
            ("%2F", "%252F"),
            ("é*😀//", "é%2A😀/%2F"),
        ] {
            let topic = topic_of(theirs.into());
            assert_eq!(topic, ours);
            assert!(check_topic(&topic).is_ok(), "{topic}");
            assert_eq!(topic_for(&topic), theirs);
        }
    }
}

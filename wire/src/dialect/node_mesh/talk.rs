//! The talk of either end once the bind is done, and the forms that both ends use before: messages, topics, errors.
//!
//! Below, the *peer* is the node-mesh program at the far end of the connection.

use super::batch::{DIALECT, Unreadable, write_bin};
use super::values::{check_integers, from_node, pack, to_node};
use crate::dialect::peer::{Calls, too_late};
use crate::dialect::said::Said;
use crate::encoding::Encoding;
use crate::error::{ApplicationCode, Code, Fate};
use crate::frame::{Broadcast, Frame, Publish, Request, Response};
use crate::id::CallbackId;
use crate::name::check_topic;
use crate::payload::{CallError, Payload};
use crate::value::Value;
use bytestring::ByteString;
use std::collections::HashSet;
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
    asked: HashSet<CallbackId>,
    next_id: u64,
    /// The peer's time in its first message, in milliseconds since the epoch, and when that message came.
    clock: Option<(Instant, f64)>,
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

const KINDS: [(Kind, &str); 4] = [
    (Kind::Request, "request"),
    (Kind::Callback, "callback"),
    (Kind::Publish, "publish"),
    (Kind::Notification, "notification"),
];

/// The parts of a message that matter.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) system: bool,
    pub(super) action: ByteString,
    pub(super) params: Vec<Value>,
    pub(super) body: Value,
    pub(super) error: Value,
}

impl Message {
    /// A message of a program: a call, a reply, an event.
    fn custom(kind: Kind, id: String, action: impl Into<ByteString>, params: Vec<Value>) -> Self {
        let action = action.into();
        Self { id, kind, system: false, action, params, body: Value::Nil, error: Value::Nil }
    }

    /// A message of the protocol itself: a bind, a registration, a heartbeat.
    pub(super) fn system(kind: Kind, id: String, action: &'static str, params: Vec<Value>) -> Self {
        Self { system: true, ..Self::custom(kind, id, ByteString::from_static(action), params) }
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

/// The value, if node-mesh has a form for it.
fn read(payload: &Payload) -> Result<Value, CallError> {
    let value = payload.transcode(Encoding::MessagePack)?.decode()?;
    check_integers(&value)?;
    Ok(value)
}

/// A value as a list of arguments: a list stays as it is, nil is an empty list, any other value is a list of one.
fn as_params(payload: &Payload) -> Result<Vec<Value>, CallError> {
    Ok(match read(payload)? {
        Value::List(values) => values,
        Value::Nil => Vec::new(),
        value => vec![value],
    })
}

/// The code that an error object of node-mesh has where its program gave none.
const NO_CODE: &str = "NONE";

/// The code of node-mesh for an action that there is not.
const MISSING: &str = "ACTION_NOT_EXIST";

/// A [`CallError`] as an error object of node-mesh, whose codes are texts; or just what another program threw.
fn error_object(error: &CallError) -> Value {
    error.to_thrown(|code| {
        Some(match code {
            Code::UNKNOWN => Value::text(NO_CODE),
            Code::ACTION_NOT_FOUND => Value::text(MISSING),
            Code::PROVIDER_LOST | Code::LINK_LOST => Value::text("ACTION_SOCKET_NOT_ACTIVE"),
            Code::CANNOT_DECODE => Value::text("REQUEST_PARAM_ERROR"),
            code => code.name().map_or(Value::Unsigned(u64::from(code.0)), Value::text),
        })
    })
}

/// The error that a Node.js action threw, or that its node made, as a [`CallError`].
fn thrown(error: &Value) -> CallError {
    let whole = pack(error);
    if let Some(error) = made_by_node(error) {
        return error.with_thrown(whole);
    }
    let error = CallError::of_thrown_value(error, whole);
    let is_none = error.application_code().and_then(ApplicationCode::as_text) == Some(NO_CODE);
    if is_none { error.without_application_code() } else { error }
}

/// The error of meshwork for one that a node of node-mesh itself made, or a gateway of meshwork in its place. It is told from the errors of
/// applications by all of its fields: an application may use the same codes, and then they are its own.
fn made_by_node(error: &Value) -> Option<CallError> {
    let Value::Map(fields) = error else { return None };
    let is_known = |(key, value): &(Value, Value)| match (key, value) {
        (Value::Text(key), Value::Text(_)) => ["name", "message", "code", "stack"].contains(&&**key),
        (Value::Text(key), Value::Nil) => key == "cause",
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
            let what = "no answer came to the node-mesh program in time";
            CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, what)
        }
        // The missing action may be one that the called action called in turn.
        (MISSING, "Error", "") => {
            let what = "the mesh of node-mesh has no such action";
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
            asked: HashSet::new(),
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
        let Message { id, kind, system, action, params, body, error } = message;
        let kind = KINDS.iter().find(|(other, _)| *other == kind).map_or("", |(_, text)| text);
        let mut message = Value::map([
            ("id", Value::text(id)),
            ("type", Value::text(kind)),
            ("source", Value::text(if system { "system" } else { "custom" })),
            ("fromId", Value::text("IPv4://meshwork")),
            ("fromName", Value::text(&*self.name)),
            ("targetId", Value::text(format!("IPv4://{}", self.peer))),
            ("content", Value::map([("action", Value::text(&*action)), ("params", Value::List(params))])),
            ("time", Value::Float64(time)),
            ("data", Value::map([("body", body), ("error", error)])),
        ]);
        message.each(&to_node);
        write_bin(&pack(&Value::List(vec![message])).bytes, &mut said.bytes);
    }

    /// The parts of a message; none if its type is unknown or its id too long.
    pub(super) fn read(&mut self, mut message: Value, now: Instant) -> Option<Message> {
        if let Value::Float64(time) = message.take("time")
            && self.clock.is_none()
        {
            self.clock = Some((now, time));
        }
        message.each(&from_node);
        let (mut content, mut data) = (message.take("content"), message.take("data"));
        let kind = message.take("type").into_text();
        let (kind, _) = KINDS.into_iter().find(|(_, text)| *text == kind)?;
        let id = message.take("id").into_text();
        if id.len() > ID_LEN_MAX {
            return None;
        }
        Some(Message {
            id,
            kind,
            system: message.take("source").into_text() == "system",
            action: content.take("action").into_text().into(),
            params: content.take("params").into_list(),
            body: data.take("body"),
            error: data.take("error"),
        })
    }

    /// Ends the call that an unreadable message belongs to, a request or an answer, with an error.
    pub(super) fn hear_unreadable(
        &mut self,
        Unreadable { id, kind, why }: Unreadable,
        now: Instant,
        said: &mut Said,
    ) {
        let what = format!("a message cannot be read: {why}");
        let error = CallError::new(Code::CANNOT_DECODE, Fate::NotSent, what);
        match &*kind {
            "request" => self.answer(id, ByteString::new(), Err(error), now, said),
            "callback" => {
                if let Some(callback_id) = self.take_asked(&id) {
                    said.answer(callback_id, Err(error.with_fate(Fate::Failed)));
                }
            }
            _ => {}
        }
    }

    /// Takes the request from the mesh that the peer answers under this id.
    fn take_asked(&mut self, id: &str) -> Option<CallbackId> {
        let asked = u64::from_str_radix(id, 16).ok().map(CallbackId);
        asked.filter(|asked| self.asked.remove(asked))
    }

    /// Hears a message of a program.
    pub(super) fn hear(&mut self, message: Message, now: Instant, said: &mut Said) {
        let Message { id, kind, action, params, body, error, .. } = message;
        let payload = || pack(&Value::List(params));
        match kind {
            Kind::Request => {
                let waiter = Waiter::Request(id, action.clone());
                let request = self.calls.request(waiter, action, payload(), now);
                said.frames.push(request);
            }
            Kind::Callback => {
                if let Some(callback_id) = self.take_asked(&id) {
                    said.answer(
                        callback_id,
                        if error == Value::Nil { Ok(pack(&body)) } else { Err(thrown(&error)) },
                    );
                }
            }
            Kind::Publish => said.frames.push(Frame::Publish(Publish {
                topic: topic_of(action),
                publisher: ByteString::new(),
                for_all: true,
                groups: Vec::new(),
                payload: payload(),
            })),
            Kind::Notification => said.frames.push(Frame::Broadcast(Broadcast {
                topic: topic_of(action),
                publisher: ByteString::new(),
                payload: payload(),
            })),
        }
    }

    /// Says a frame to the peer.
    pub(super) fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) {
        match frame {
            Frame::Ping => said.frames.push(Frame::Pong),
            Frame::Request(Request { callback_id, action, payload, .. }) => {
                let params = said.without_functions(&payload, DIALECT).and_then(|()| as_params(&payload));
                match params {
                    Ok(params) => {
                        let id = format!("{:016x}", callback_id.0);
                        self.write(Message::custom(Kind::Request, id, action, params), now, said);
                        self.asked.insert(callback_id);
                    }
                    Err(error) => said.answer(callback_id, Err(error.with_fate(Fate::NotSent))),
                }
            }
            Frame::Response(response) => {
                self.settle(response, now, said);
            }
            Frame::Publish(Publish { topic, payload, .. }) => {
                self.event(Kind::Publish, topic, &payload, now, said);
            }
            Frame::Broadcast(Broadcast { topic, payload, .. }) => {
                self.event(Kind::Notification, topic, &payload, now, said);
            }
            Frame::Cancel(cancelled) => {
                self.asked.remove(&cancelled);
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

    fn event(&mut self, kind: Kind, topic: ByteString, payload: &Payload, now: Instant, said: &mut Said) {
        if let Ok(params) = as_params(payload) {
            let id = self.draw();
            self.write(Message::custom(kind, id, topic_for(&topic), params), now, said);
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
        let (body, error) = match outcome.and_then(|payload| read(&payload)) {
            Ok(body) => (body, Value::Nil),
            Err(error) => (Value::Nil, error_object(&error)),
        };
        let answer = Message::custom(Kind::Callback, id, action, Vec::new());
        self.write(Message { body, error, ..answer }, now, said);
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

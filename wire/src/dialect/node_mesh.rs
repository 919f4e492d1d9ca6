//! node-mesh, as the npm package `node-mesh` 2.0 speaks it: MessagePack `bin` values one behind the other, each of which holds an array of
//! messages. A message is a map: `id`, `type` (request, callback, publish, notification), `source` (custom, system), `fromId`, `fromName`,
//! `targetId`, `time`, `content` (`action`, `params`) and `data` (`body`, `error`).
//!
//! `node_mesh/server.rs` is a master's end of it, `node_mesh/client.rs` a branch's. What both have in common is here: messages, values, and
//! what is said once the bind is done. The lists of arguments of requests, events and broadcasts are the values of ours.

mod client;
mod server;

pub use client::NodeMeshClient;
pub use server::NodeMeshServer;

use super::{Calls, DialectError, Said, too_late};
use crate::limits::{FRAME_LEN_MAX, HEAD_RESERVE_LEN};
use crate::{
    Broadcast, ByteString, CallError, CallbackId, Code, Encoding, Fate, Frame, Payload, Publish, Request,
    Response, Value, check_topic,
};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::HashSet;
use std::ops::Range;
use std::time::Instant;

const DIALECT: &str = "node-mesh";

/// The longest `bin`, in bytes: what fits into a frame of ours.
const BIN_LEN_MAX: usize = FRAME_LEN_MAX - HEAD_RESERVE_LEN;

/// The longest id of a message, in bytes: it is kept as long as the call takes.
const ID_LEN_MAX: usize = 256;

const BIND: &str = "action:bindAuth";
const REGISTER: &str = "action:register";
const HEARTBEAT: &str = "action:heartbeat";
const DISCONNECT: &str = "action:disconnect";

/// What is said once the bind is done, by either end.
#[derive(Debug)]
struct Talk {
    peer: String,
    /// The name of the branch.
    name: ByteString,
    /// What is asked of ours.
    calls: Calls<Waiter>,
    /// Requests to the other end.
    asked: HashSet<CallbackId>,
    next_id: u64,
    /// When the other end said what time it is, and what it said: milliseconds since the epoch.
    clock: Option<(Instant, f64)>,
}

/// Whom an answer of ours concerns.
#[derive(Debug)]
enum Waiter {
    /// The other end asked, under this id, for this action.
    Request(String, ByteString),
    /// It offers these.
    Offers(Vec<ByteString>),
    /// It listens to this.
    Topic(ByteString),
}

#[derive(Clone, PartialEq, Debug)]
enum State {
    Unbound,
    /// A bind is asked for under this id.
    Binding(String),
    Bound,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
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
struct Message {
    id: String,
    kind: Kind,
    system: bool,
    action: ByteString,
    params: Vec<Value>,
    body: Value,
    error: Value,
}

impl Message {
    /// Of a user's.
    fn custom(kind: Kind, id: String, action: impl Into<ByteString>, params: Vec<Value>) -> Self {
        let action = action.into();
        Self { id, kind, system: false, action, params, body: Value::Nil, error: Value::Nil }
    }

    /// Of the protocol's own.
    fn system(kind: Kind, id: String, action: &'static str, params: Vec<Value>) -> Self {
        Self { system: true, ..Self::custom(kind, id, ByteString::from_static(action), params) }
    }
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

    /// Each value within, from the inside out.
    fn each(&mut self, change: &impl Fn(&mut Value)) {
        match self {
            Value::List(values) => values.iter_mut().for_each(|value| value.each(change)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.each(change)),
            _ => {}
        }
        change(self);
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
            return Err(malformed(format!("it begins with {first:#04x}, and a bin with 0xc4 to 0xc6")));
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

/// A message that cannot be read: what is known of it, and why not.
struct Unreadable {
    id: String,
    kind: String,
    why: String,
}

/// The messages of the next `bin`, if all of it is there.
fn next_batch(bytes: &mut BytesMut) -> Result<Option<Vec<Result<Value, Unreadable>>>, DialectError> {
    let Some(content) = next_bin(bytes)? else { return Ok(None) };
    let content = mend_text(content);
    match Payload::new(Encoding::MessagePack, content.clone()).decode() {
        Ok(Value::List(messages)) => Ok(Some(messages.into_iter().map(Ok).collect())),
        Ok(_) => Err(malformed("a bin holds a list of messages".to_owned())),
        // One of them may hold something that is no reason to give the others up.
        Err(error) => one_by_one(&content).map(Some).ok_or_else(|| malformed(error.reason)),
    }
}

/// The messages of a batch of which one cannot be read. None if it is not known where they begin and end.
fn one_by_one(content: &Bytes) -> Option<Vec<Result<Value, Unreadable>>> {
    let read = |part: Range<usize>| {
        Payload::new(Encoding::MessagePack, content.slice(part))
            .decode::<Value>()
            .map_err(|error| error.reason)
    };
    let list = item(content, 0).filter(|_| matches!(content[0], 0x90..=0x9F | 0xDC | 0xDD))?;
    let mut messages = Vec::new();
    let mut at = list.head;
    for _ in 0..list.within {
        let end = skip(content, at)?;
        messages.push(read(at..end).map_err(|why| {
            let mut unreadable = Unreadable { id: String::new(), kind: String::new(), why };
            let map = item(content, at)?;
            let mut at = at + map.head;
            for _ in 0..map.within / 2 {
                let value = skip(content, at)?;
                let end = skip(content, value)?;
                let place = match read(at..value).ok()?.into_text().as_str() {
                    "id" => &mut unreadable.id,
                    "type" => &mut unreadable.kind,
                    _ => {
                        at = end;
                        continue;
                    }
                };
                *place = read(value..end).ok()?.into_text();
                at = end;
            }
            Some(unreadable)
        }));
        at = end;
    }
    if at != content.len() {
        return None;
    }
    let known = |message: Result<Value, Option<Unreadable>>| match message {
        Ok(message) => Some(Ok(message)),
        Err(unreadable) => Some(Err(unreadable?)),
    };
    messages.into_iter().map(known).collect()
}

/// How a value of MessagePack lies in the bytes.
struct Item {
    /// How long its head is.
    head: usize,
    /// How many bytes follow that are no values.
    len: usize,
    /// How many values follow.
    within: usize,
    is_text: bool,
}

fn item(bytes: &[u8], at: usize) -> Option<Item> {
    let marker = *bytes.get(at)?;
    let number = |len: usize| {
        let digits = bytes.get(at + 1..at + 1 + len)?;
        Some(digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
    };
    let plain = |head, len| Item { head, len, within: 0, is_text: false };
    Some(match marker {
        0x80..=0x8F => Item { within: 2 * usize::from(marker & 0x0F), ..plain(1, 0) },
        0x90..=0x9F => Item { within: usize::from(marker & 0x0F), ..plain(1, 0) },
        0xA0..=0xBF => Item { is_text: true, ..plain(1, usize::from(marker & 0x1F)) },
        0xC1 => return None,
        0xC4..=0xC6 => {
            let digits = 1 << (marker - 0xC4);
            plain(1 + digits, number(digits)?)
        }
        0xC7..=0xC9 => {
            let digits = 1 << (marker - 0xC7);
            plain(2 + digits, number(digits)?)
        }
        0xCA => plain(1, 4),
        0xCB => plain(1, 8),
        0xCC..=0xCF => plain(1, 1 << (marker - 0xCC)),
        0xD0..=0xD3 => plain(1, 1 << (marker - 0xD0)),
        0xD4..=0xD8 => plain(2, 1 << (marker - 0xD4)),
        0xD9..=0xDB => {
            let digits = 1 << (marker - 0xD9);
            Item { is_text: true, ..plain(1 + digits, number(digits)?) }
        }
        0xDC | 0xDE => Item { within: number(2)? << (marker == 0xDE) as u8, ..plain(3, 0) },
        0xDD | 0xDF => Item { within: number(4)? << (marker == 0xDF) as u8, ..plain(5, 0) },
        _ => plain(1, 0),
    })
}

/// Where a value ends, however deep it is.
fn skip(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut left = 1_usize;
    while left > 0 {
        let Item { head, len, within, .. } = item(bytes, at)?;
        at = at.checked_add(head)?.checked_add(len).filter(|end| *end <= bytes.len())?;
        left = (left - 1).checked_add(within)?;
    }
    Some(at)
}

/// Texts of JavaScript may hold halves of characters, which no other text can and which msgpackr writes all the same: each becomes
/// U+FFFD, which is as long.
fn mend_text(content: Bytes) -> Bytes {
    // A half begins so, and little else does.
    if !content.windows(2).any(|pair| pair[0] == 0xED && pair[1] >= 0xA0) {
        return content;
    }
    let mut mended = BytesMut::from(&content[..]);
    let mut at = 0;
    // What is cut short is for whoever reads it to say.
    while let Some(Item { head, len, is_text, .. }) = item(&mended, at) {
        let (start, end) = (at + head, (at + head).saturating_add(len));
        if let Some(text) = mended.get_mut(start..end).filter(|_| is_text) {
            mend_halves(text);
        }
        at = end;
    }
    mended.freeze()
}

fn mend_halves(text: &mut [u8]) {
    if std::str::from_utf8(text).is_ok() {
        return;
    }
    let mut at = 0;
    while at + 3 <= text.len() {
        at += match text[at..at + 3] {
            [0xED, 0xA0..=0xBF, 0x80..=0xBF] => {
                text[at..at + 3].copy_from_slice("\u{FFFD}".as_bytes());
                3
            }
            _ => 1,
        };
    }
}

/// Theirs are texts of any form, and ours have segments and no `*`: what would be none of ours is escaped.
fn topic_of(theirs: ByteString) -> ByteString {
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

/// The topic that was escaped.
fn topic_for(ours: &str) -> String {
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

fn malformed(what: String) -> DialectError {
    DialectError::Malformed { dialect: DIALECT, what }
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

/// The largest integers that a number of JavaScript tells apart from their neighbours.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// What msgpackr writes for `undefined`.
const UNDEFINED: (i8, [u8; 1]) = (0, [0]);

/// A value as Node.js writes it, as the one that is meant: its integers of more than 32 bits are floats, and nothing has a kind of
/// its own.
fn from_node(value: &mut Value) {
    match *value {
        Value::Extension(kind, ref bytes) if kind == UNDEFINED.0 && bytes[..] == UNDEFINED.1 => {
            *value = Value::Nil;
        }
        Value::Float64(number)
            if number.fract() == 0.0
                && number.abs() > f64::from(i32::MAX)
                && number.abs() <= SAFE_INTEGER_MAX as f64 =>
        {
            // Casts of such numbers are exact.
            *value = if number > 0.0 { Value::Unsigned(number as u64) } else { Value::Signed(number as i64) };
        }
        _ => {}
    }
}

/// A value as Node.js reads it: an integer of 64 bits would be a `BigInt`, which does not add up with its other numbers. What no number
/// of it can hold stays one.
fn to_node(value: &mut Value) {
    let number = match *value {
        Value::Unsigned(number) if number > u64::from(u32::MAX) && number <= SAFE_INTEGER_MAX => {
            number as f64
        }
        Value::Signed(number)
            if !(i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(&number)
                && number.unsigned_abs() <= SAFE_INTEGER_MAX =>
        {
            number as f64
        }
        _ => return,
    };
    *value = Value::Float64(number);
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
    // Others have data as well, which are not the error itself.
    if let Some(thrown @ Value::Map(_)) = error.data().and_then(|data| data.decode::<Value>().ok())
        && thrown.clone().take("message") == Value::text(error.message())
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
    if let Value::Text(message) = error {
        return CallError::named(Code::UNKNOWN, Fate::Failed, "Error", message);
    }
    let (name, message) = (error.take("name").into_text(), error.take("message").into_text());
    let (code, fate) = match error.take("code") {
        Value::Unsigned(code) => (u32::try_from(code).map_or(Code::UNKNOWN, Code), Fate::Failed),
        Value::Text(code) => match &*code {
            // Its action may be running.
            "REQUEST_TIMEOUT" => (Code::REQUEST_TIMEOUT, Fate::Unknown),
            // It may be one that it called itself.
            "ACTION_NOT_EXIST" => (Code::ACTION_NOT_FOUND, Fate::Failed),
            _ => (Code::UNKNOWN, Fate::Failed),
        },
        _ => (Code::UNKNOWN, Fate::Failed),
    };
    let name = if name.is_empty() { "Error".to_owned() } else { name };
    let error = CallError::named(code, fate, name, message);
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

impl Talk {
    fn new(peer: &str, name: ByteString) -> Self {
        Self {
            peer: peer.to_owned(),
            name,
            calls: Calls::new(),
            asked: HashSet::new(),
            next_id: 0,
            clock: None,
        }
    }

    /// An id that is none of a request's to the other end: those are numbers of ours.
    fn draw(&mut self) -> String {
        self.next_id += 1;
        format!("m{:015x}", self.next_id)
    }

    fn write(&self, message: Message, now: Instant, said: &mut Said) {
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

    /// A message, if it is of a kind that is known and its id is one.
    fn read(&mut self, mut message: Value, now: Instant) -> Option<Message> {
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

    /// Hears that something was said, and not what: whoever waits is told.
    fn hear_unreadable(&mut self, Unreadable { id, kind, why }: Unreadable, now: Instant, said: &mut Said) {
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

    /// The request of ours that is known there by this id.
    fn take_asked(&mut self, id: &str) -> Option<CallbackId> {
        let asked = u64::from_str_radix(id, 16).ok().map(CallbackId);
        asked.filter(|asked| self.asked.remove(asked))
    }

    /// Hears what a user said.
    fn hear(&mut self, message: Message, now: Instant, said: &mut Said) {
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
                        if error == Value::Nil { Ok(pack(&body)) } else { Err(thrown(error)) },
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

    /// Says what ours say.
    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) {
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

    /// An answer of ours: the other end is told, if it is one that it waits for. Gives whom else a no concerns.
    fn settle(
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

    /// Answers a request of the other end.
    fn answer(
        &self,
        id: String,
        action: ByteString,
        outcome: Result<Payload, CallError>,
        now: Instant,
        said: &mut Said,
    ) {
        let read =
            outcome.and_then(|payload| Ok(payload.transcode(Encoding::MessagePack)?.decode::<Value>()?));
        let (body, error) = match read {
            Ok(body) => (body, Value::Nil),
            Err(error) => (Value::Nil, error_object(&error)),
        };
        let answer = Message::custom(Kind::Callback, id, action, Vec::new());
        self.write(Message { body, error, ..answer }, now, said);
    }

    fn expire(&mut self, now: Instant, said: &mut Said) {
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

    #[test]
    fn half_a_character_is_mended_in_text_and_nowhere_else() {
        let half = [0xED, 0xA0, 0xBD];
        let bin = [&[0xC4, 3][..], &half].concat();
        let before = [&[0x93, 0xA3][..], &half, &bin, b"\xA5ab\xED\xBF\x80"].concat();
        let mended = mend_text(before.into());
        let value = Payload::new(Encoding::MessagePack, mended).decode::<Value>().unwrap();
        let text = |text: &str| Value::text(text);
        assert_eq!(
            value,
            Value::List(vec![text("\u{FFFD}"), Value::Bytes(half.to_vec()), text("ab\u{FFFD}")])
        );
        // What is cut short, or lies, ends nothing.
        for cut in [&b"\xDB\xFF\xFF\xFF\xFF\xED\xA0"[..], b"\xD9\xED\xA0", b"\xED\xA0", b"\xC7\xED\xA0"] {
            assert_eq!(mend_text(Bytes::from_static(cut)), cut);
        }
    }
}

//! light_rpc, as `nodejs-light_rpc` 0.2 speaks it: `<length of the JSON in bytes, decimal>\n<JSON>`, where the JSON is
//! `{"command": .., "data": ..}`. `__D` describes the functions, the name of a function calls it with `{"id": .., "args": [..]}`, `__R` and
//! `__E` resolve the id with results or an error. The protocol has no bind and no heartbeat. Version 0.1 has longer commands; a client that
//! begins with these is answered with these.
//!
//! The original lacks, and this has: bounds for length and depth, an end for every call, an answer with an id to an unknown
//! command; and bad JSON ends no other call. Values pass as their JSON text: nothing rounds a number.

use super::json::{Skim, as_json, exact_numbers, failure, marked_numbers};
use super::peer::{Allowed, Calls, Visible, bind, foreign_name, registers, too_late};
use super::said::{Dialect, DialectError, Said};
use crate::accepts::Accepts;
use crate::encoding::Encoding;
use crate::error::{Code, Fate};
use crate::frame::{Frame, Offer, Request, Response};
use crate::headers::Headers;
use crate::id::CallbackId;
use crate::limits::{FOREIGN_UNREAD_LEN_MAX, FRAME_LEN_MAX, HEAD_RESERVE_LEN, HEADERS_LEN_MAX};
use crate::name::{check_action, literal_action, meant_action};
use crate::payload::{CallError, Payload};
use crate::spoken::spoken;
use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Instant;

const DIALECT: &str = "light_rpc";

/// The longest JSON, in bytes: it fits into a frame.
const PACKET_LEN_MAX: usize = FRAME_LEN_MAX - HEAD_RESERVE_LEN;

/// How many digits a length may have: as many as [`FOREIGN_UNREAD_LEN_MAX`] has.
const LENGTH_DIGITS_MAX: usize = 10;

/// The parts of a packet that is not read which are needed to answer it.
const OF_UNREAD: &[&[&str]] = &[&["command"], &["data", "id"]];

/// The longest id of a call, in bytes of JSON: the id is kept as long as the call takes.
const ID_LEN_MAX: usize = 256;

const _: () = assert!(FOREIGN_UNREAD_LEN_MAX < 10_000_000_000, "a length has ten digits");

/// The commands that are not names of functions.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Words {
    describe: &'static str,
    result: &'static str,
    error: &'static str,
}

/// The commands of 0.2, and of 0.1.
const WORDS: [Words; 2] = [
    Words { describe: "__D", result: "__R", error: "__E" },
    Words { describe: "__DESCR", result: "__RESULT", error: "__ERROR_CMD" },
];

/// The command that says that a command or a packet was refused.
const ERROR: &str = "error";

/// The kinds of commands.
enum Command {
    Describe(Words),
    Result,
    Failure,
    Error,
    Function,
}

impl Command {
    fn of(command: &str) -> Self {
        for words in WORDS {
            match command {
                _ if command == words.describe => return Self::Describe(words),
                _ if command == words.result => return Self::Result,
                _ if command == words.error => return Self::Failure,
                _ => {}
            }
        }
        if command == ERROR { Self::Error } else { Self::Function }
    }
}

/// A light_rpc server at the connection of one client, which looks like a branch of the mesh that only calls.
#[derive(Debug)]
pub struct LightRpcServer {
    name: ByteString,
    bound: bool,
    packets: Packets,
    visible: Visible,
    words: Words,
    /// The client's calls in flight, with the ids that the client wrote, as JSON.
    calls: Calls<Box<RawValue>>,
}

/// A light_rpc client of an old server, whose functions look like the actions of a branch.
#[derive(Debug)]
pub struct LightRpcClient {
    name: ByteString,
    credentials: Option<ByteString>,
    prefix: String,
    packets: Packets,
    /// Whether the server has described its functions.
    is_described: bool,
    /// Whether the server was asked in the commands of 0.1 too, or has answered already.
    asked_again: bool,
    /// The offers for which the bind has no room: registered once the branch is bound.
    more: Vec<Offer>,
    /// Calls from the mesh that are in flight at the server, with their deadlines.
    calls: HashMap<CallbackId, Option<Instant>>,
}

#[derive(Deserialize)]
struct Packet<'a> {
    #[serde(borrow)]
    command: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallData<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    /// Over how many hops the call came: said by a bridge of ours, as the originals ignore it.
    #[serde(borrow)]
    hops: Option<&'a RawValue>,
    /// The headers of the call, said and ignored by the same.
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Results<'a> {
    id: String,
    #[serde(borrow, default)]
    args: Vec<&'a RawValue>,
    #[serde(borrow)]
    err: Option<&'a RawValue>,
}

/// Takes packets out of the received bytes.
#[derive(Default, Debug)]
struct Packets {
    /// The packet that passes by unread, since it is too long.
    unread: Option<Unread>,
}

/// A packet that passes by unread.
#[derive(Debug)]
struct Unread {
    skim: Skim,
    len: usize,
    left: usize,
}

/// The next packet of a connection.
enum Heard {
    /// The JSON of a packet.
    Packet(Bytes),
    /// A packet that was too long has passed by.
    TooLong(Unread),
}

impl Packets {
    /// The next packet, if all of it is there.
    fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Heard>, DialectError> {
        loop {
            if let Some(mut unread) = self.unread.take() {
                let passing = bytes.split_to(unread.left.min(bytes.len()));
                unread.skim.pass(&passing);
                unread.left -= passing.len();
                if unread.left == 0 {
                    return Ok(Some(Heard::TooLong(unread)));
                }
                self.unread = Some(unread);
                return Ok(None);
            }
            let Some((digits, claimed)) = claimed(bytes)? else { return Ok(None) };
            if claimed > PACKET_LEN_MAX {
                bytes.advance(digits + 1);
                self.unread = Some(Unread { skim: Skim::new(OF_UNREAD), len: claimed, left: claimed });
                continue;
            }
            if bytes.len() < digits + 1 + claimed {
                return Ok(None);
            }
            bytes.advance(digits + 1);
            return Ok(Some(Heard::Packet(bytes.split_to(claimed).freeze())));
        }
    }
}

impl Unread {
    fn error(&self, fate: Fate) -> CallError {
        let what = format!("a packet of {} bytes, and {PACKET_LEN_MAX} are read", self.len);
        CallError::new(Code::FRAME_TOO_LARGE, fate, what)
    }
}

/// How many digits the length of the next packet has, and the length, if all of it is there.
fn claimed(bytes: &[u8]) -> Result<Option<(usize, usize)>, DialectError> {
    let malformed = |what: String| {
        let spoken = spoken(bytes).filter(|spoken| *spoken != DIALECT);
        let what = spoken.map_or(what, |spoken| format!("it looks like {spoken}"));
        DialectError::Malformed { dialect: DIALECT, what }
    };
    let start = &bytes[..bytes.len().min(LENGTH_DIGITS_MAX + 1)];
    let Some(digits) = start.iter().position(|byte| *byte == b'\n') else {
        return match start.iter().find(|byte| !byte.is_ascii_digit()) {
            Some(byte) => Err(malformed(format!("a length has digits, and byte {byte:#04x} is none"))),
            None if start.len() > LENGTH_DIGITS_MAX => {
                Err(malformed(format!("a length of more than {LENGTH_DIGITS_MAX} digits")))
            }
            None => Ok(None),
        };
    };
    let length = std::str::from_utf8(&start[..digits]).ok().and_then(|digits| digits.parse::<usize>().ok());
    let Some(claimed) = length.filter(|_| start[..digits].iter().all(u8::is_ascii_digit)) else {
        return Err(malformed("a length is a decimal number and a line feed".to_owned()));
    };
    if claimed > FOREIGN_UNREAD_LEN_MAX {
        return Err(DialectError::TooLong { dialect: DIALECT, claimed, max: FOREIGN_UNREAD_LEN_MAX });
    }
    Ok(Some((digits, claimed)))
}

/// Writes a packet; `data` is JSON.
fn packet(command: &str, data: Option<&str>, bytes: &mut BytesMut) {
    let command = serde_json::Value::from(command);
    let json = match data {
        Some(data) => format!(r#"{{"command":{command},"data":{data}}}"#),
        None => format!(r#"{{"command":{command}}}"#),
    };
    write!(bytes, "{}\n{json}", json.len()).expect("a buffer that grows takes all");
}

impl LightRpcServer {
    /// For a client at the address `peer`, with the actions that it may call.
    #[must_use]
    pub fn new(peer: &str, allowed: Allowed) -> Self {
        Self {
            name: foreign_name(DIALECT, peer),
            bound: false,
            packets: Packets::default(),
            visible: Visible::new(allowed),
            words: WORDS[0],
            calls: Calls::new(),
        }
    }

    fn packet(&mut self, json: &Bytes, now: Instant, said: &mut Said) {
        let Ok(Packet { command, data }) = serde_json::from_slice::<Packet<'_>>(json) else {
            // The length of the bad packet is known, so the packets behind it can still be read.
            return packet(ERROR, Some(r#"{"code":"BAD_JSON"}"#), &mut said.bytes);
        };
        match Command::of(&command) {
            Command::Describe(words) => {
                self.words = words;
                let names: Vec<_> = self
                    .visible
                    .actions()
                    // To the original, this name is the prototype of the object, and no function.
                    .filter(|action| **action != "__proto__")
                    .map(|action| format!("{}:{{}}", serde_json::Value::from(&*meant_action(action))))
                    .collect();
                packet(words.describe, Some(&format!("{{{}}}", names.join(","))), &mut said.bytes);
            }
            // Only a server answers. A client may call a function that has such a name, as the original does; what is no call is no answer
            // that anybody waits for either.
            Command::Result | Command::Failure | Command::Error if !is_call(data) => {}
            Command::Result | Command::Failure | Command::Error | Command::Function => {
                self.call(&command, data, json, now, said);
            }
        }
    }

    /// Answers a packet that has passed by unread.
    fn not_read(&mut self, unread: &Unread, said: &mut Said) {
        let error = unread.error(Fate::NotSent);
        let id = unread.skim.found(1).and_then(|id| serde_json::from_str::<&RawValue>(id).ok());
        match id.filter(|id| id.get().len() <= ID_LEN_MAX) {
            Some(id) => failed(self.words, id, &error, said),
            None => {
                packet(ERROR, Some(r#"{"code":"TOO_LONG"}"#), &mut said.bytes);
                said.note(|| format!("a packet without an id is dropped: {}", error.message()));
            }
        }
    }

    fn call(&mut self, function: &str, data: Option<&RawValue>, json: &Bytes, now: Instant, said: &mut Said) {
        let call = data.and_then(|data| serde_json::from_str::<CallData<'_>>(data.get()).ok());
        let Some(CallData { id, args, hops, headers }) =
            call.filter(|call| call.id.get().len() <= ID_LEN_MAX)
        else {
            return packet(ERROR, Some(r#"{"code":"BAD_CALL"}"#), &mut said.bytes);
        };
        let action = literal_action(function);
        if !self.visible.allows(&action) || check_action(&action).is_err() {
            return unknown_command(self.words, id, said);
        }
        let args = args.map_or("[]", RawValue::get);
        if !args.starts_with('[') {
            let error = CallError::new(Code::CANNOT_DECODE, Fate::NotSent, "args is a list");
            return failed(self.words, id, &error, said);
        }
        // A part of the packet, unless the client left `args` out, or wrote long numbers.
        let bytes = match exact_numbers(args) {
            Cow::Owned(exact) => Bytes::from(exact),
            Cow::Borrowed("[]") => Bytes::from_static(b"[]"),
            Cow::Borrowed(args) => json.slice_ref(args.as_bytes()),
        };
        let payload = Payload::new(Encoding::Json, bytes);
        let hops = hops.and_then(|hops| hops.get().parse().ok()).unwrap_or_default();
        let headers = headers.map_or_else(Headers::none, read_headers);
        said.frames.push(self.calls.request(id.to_owned(), action, (hops, headers), payload, now));
    }
}

/// Reads the headers of a call. Where one of them is no header, the call has none: who said them is no end of ours.
fn read_headers(said: &RawValue) -> Headers {
    // Each byte of a header takes six bytes of JSON at most.
    if said.get().len() > 8 * HEADERS_LEN_MAX {
        return Headers::none();
    }
    let pairs: BTreeMap<Cow<'_, str>, Cow<'_, str>> = serde_json::from_str(said.get()).unwrap_or_default();
    Headers::of(pairs.iter().map(|(name, value)| (&**name, &**value))).unwrap_or_default()
}

/// Writes the headers of a call behind its other parts, if it has any.
fn write_headers(headers: &Headers, data: &mut String) {
    if headers.of_application().next().is_none() {
        return;
    }
    let pairs = headers.of_application().map(|(name, value)| (name.to_owned(), value.into()));
    let pairs = serde_json::Value::Object(pairs.collect());
    data.push_str(&format!(r#","headers":{pairs}"#));
}

/// Whether these data are those of a call: they have an id and a list of arguments.
fn is_call(data: Option<&RawValue>) -> bool {
    let call = data.and_then(|data| serde_json::from_str::<CallData<'_>>(data.get()).ok());
    call.and_then(|call| call.args).is_some_and(|args| args.get().starts_with('['))
}

fn unknown_command(words: Words, id: &RawValue, said: &mut Said) {
    let data = format!(r#"{{"code":"UNKNOWN_COMMAND","id":{}}}"#, id.get());
    packet(ERROR, Some(&data), &mut said.bytes);
    let data = format!(r#"{{"id":{},"err":{{"code":"UNKNOWN_COMMAND"}}}}"#, id.get());
    packet(words.error, Some(&data), &mut said.bytes);
}

fn failed(words: Words, id: &RawValue, error: &CallError, said: &mut Said) {
    let failure = failure(error);
    let data = format!(r#"{{"id":{},"err":{}}}"#, id.get(), marked_numbers(&failure));
    packet(words.error, Some(&data), &mut said.bytes);
}

impl Dialect for LightRpcServer {
    fn begin(&mut self, _: Instant, said: &mut Said) {
        said.frames.push(bind(self.name.clone(), None, Vec::new(), Vec::new()).0);
    }

    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        // Nothing runs before the bind is answered: until then the bytes wait, and the reader stops reading.
        while self.bound && !said.is_enough() {
            let heard = self.packets.next(bytes).inspect_err(|_| {
                // The last that the client hears. A program of another protocol sees by it what it has dialled.
                packet(ERROR, Some(r#"{"code":"BAD_PACKET"}"#), &mut said.bytes);
            });
            let Some(heard) = heard? else { break };
            match heard {
                Heard::Packet(json) => self.packet(&json, now, said),
                Heard::TooLong(unread) => self.not_read(&unread, said),
            }
        }
        Ok(())
    }

    fn say(&mut self, frame: Frame, _: Instant, said: &mut Said) -> Result<(), DialectError> {
        match frame {
            Frame::Bound(_) => self.bound = true,
            Frame::Refused(refused) => return Err(refused.into()),
            Frame::Online(news) => self.visible.online(news),
            Frame::Offline(news) => self.visible.offline(&news),
            Frame::Ping => said.frames.push(Frame::Pong),
            Frame::Response(Response { callback_id, outcome }) => {
                let outcome = said.plain(outcome, DIALECT);
                let Some(id) = self.calls.settle(callback_id) else {
                    return Ok(());
                };
                let replied = outcome.and_then(|payload| Ok(as_json(&payload)?.into_owned()));
                match replied {
                    Ok(result) => {
                        let data = format!(r#"{{"id":{},"args":[{}]}}"#, id.get(), marked_numbers(&result));
                        packet(self.words.result, Some(&data), &mut said.bytes);
                    }
                    Err(error) if error.code() == Code::ACTION_NOT_FOUND && error.fate() == Fate::NotSent => {
                        unknown_command(self.words, &id, said);
                    }
                    Err(error) => failed(self.words, &id, &error, said),
                }
            }
            Frame::Request(Request { callback_id, payload, .. }) => {
                said.give_back(&payload);
                let nobody = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, "a client offers nothing");
                said.answer(callback_id, Err(nobody));
            }
            Frame::Invoke(invoke) => said.nobody_lent(&invoke, DIALECT),
            _ => {}
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant, said: &mut Said) {
        while let Some((callback_id, id)) = self.calls.expired(now) {
            failed(self.words, &id, &too_late(self.calls.within()), said);
            said.frames.push(Frame::Cancel(callback_id));
        }
    }
}

impl LightRpcClient {
    /// For an old server, whose functions become actions under `prefix`, offered by a branch named `name`.
    #[must_use]
    pub fn new(name: ByteString, credentials: Option<ByteString>, prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self {
            name,
            credentials,
            prefix,
            packets: Packets::default(),
            is_described: false,
            asked_again: false,
            more: Vec::new(),
            calls: HashMap::new(),
        }
    }

    fn described(&mut self, data: Option<&RawValue>, said: &mut Said) -> Result<(), DialectError> {
        self.asked_again = true;
        if self.is_described {
            return Ok(());
        }
        let names = data.and_then(|data| serde_json::from_str::<HashMap<String, &RawValue>>(data.get()).ok());
        let Some(names) = names else {
            let what = "the functions are an object".to_owned();
            return Err(DialectError::Malformed { dialect: DIALECT, what });
        };
        let mut actions = Vec::new();
        for name in names.into_keys() {
            let action = literal_action(&format!("{}{name}", self.prefix));
            match check_action(&action) {
                Ok(()) => actions.push(action),
                Err(error) => said.note(|| format!("a function of the server is left out: {error}")),
            }
        }
        actions.sort_unstable();
        self.is_described = true;
        let offer = |action| Offer { action, accepts: Accepts::List, shape: None };
        let offers = actions.into_iter().map(offer).collect();
        let (bind, more) = bind(self.name.clone(), self.credentials.clone(), offers, Vec::new());
        self.more = more;
        said.frames.push(bind);
        Ok(())
    }

    /// Ends the call whose answer has passed by unread.
    fn not_read(&mut self, unread: &Unread, said: &mut Said) {
        let error = unread.error(Fate::Failed);
        let id = unread.skim.found(1).and_then(|id| serde_json::from_str::<String>(id).ok());
        match id.and_then(|id| of_uuid(&id)).filter(|id| self.calls.remove(id).is_some()) {
            Some(callback_id) => said.answer(callback_id, Err(error)),
            None => said.note(|| format!("a packet of no known call is dropped: {}", error.message())),
        }
    }

    fn resolved(&mut self, command: &Command, data: &RawValue, said: &mut Said) {
        let Ok(results) = serde_json::from_str::<Results<'_>>(data.get()) else {
            return;
        };
        let Some(callback_id) = of_uuid(&results.id).filter(|id| self.calls.remove(id).is_some()) else {
            return;
        };
        let outcome = match command {
            Command::Result => {
                let json = match &results.args[..] {
                    [] => "null".to_owned(),
                    [one] => one.get().to_owned(),
                    several => {
                        let several: Vec<_> = several.iter().map(|one| one.get()).collect();
                        format!("[{}]", several.join(","))
                    }
                };
                Ok(Payload::new(Encoding::Json, exact_numbers(&json).into_owned()))
            }
            Command::Failure => Err(thrown(results.err)),
            _ => {
                Err(CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, "the server has no such function"))
            }
        };
        said.answer(callback_id, outcome);
    }
}

/// An id in the form of the original's ids, a UUID, since programs may look at it.
fn as_uuid(CallbackId(id): CallbackId) -> String {
    format!("{:08x}-0000-4000-8000-{:012x}", id >> 48, id & 0xFFFF_FFFF_FFFF)
}

fn of_uuid(id: &str) -> Option<CallbackId> {
    let (high, low) = id.split_once("-0000-4000-8000-")?;
    let (high, low) = (u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?);
    (high <= 0xFFFF && low <= 0xFFFF_FFFF_FFFF).then_some(CallbackId(high << 48 | low))
}

/// The error that a Node.js function threw, as a [`CallError`].
fn thrown(error: Option<&RawValue>) -> CallError {
    let error = exact_numbers(error.map_or("null", RawValue::get)).into_owned();
    CallError::of_thrown(Payload::new(Encoding::Json, error))
}

impl Dialect for LightRpcClient {
    fn begin(&mut self, _: Instant, said: &mut Said) {
        packet(WORDS[0].describe, None, &mut said.bytes);
    }

    fn hear(&mut self, bytes: &mut BytesMut, _: Instant, said: &mut Said) -> Result<(), DialectError> {
        while let Some(heard) = self.packets.next(bytes)? {
            let json = match heard {
                Heard::Packet(json) => json,
                Heard::TooLong(unread) => {
                    self.not_read(&unread, said);
                    continue;
                }
            };
            let Ok(Packet { command, data }) = serde_json::from_slice::<Packet<'_>>(&json) else {
                continue;
            };
            match (Command::of(&command), data) {
                (Command::Describe(_), data) => self.described(data, said)?,
                // A server of 0.1 does not know the command.
                (Command::Error, _) if !std::mem::replace(&mut self.asked_again, true) => {
                    packet(WORDS[1].describe, None, &mut said.bytes);
                }
                (Command::Function, _) | (_, None) => {}
                (command, Some(data)) => self.resolved(&command, data, said),
            }
        }
        Ok(())
    }

    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        match frame {
            Frame::Bound(_) => {
                // Only these registrations are asked, and their answers are ignored, so all may have one id.
                said.frames.extend(registers(std::mem::take(&mut self.more), |_| CallbackId(0)));
            }
            Frame::Refused(refused) => return Err(refused.into()),
            Frame::Ping => said.frames.push(Frame::Pong),
            Frame::Request(Request { callback_id, action, time_left, hops, headers, payload, .. }) => {
                let action = meant_action(&action);
                let function = action.strip_prefix(&self.prefix).unwrap_or(&action);
                let arguments = said.without_functions(&payload, DIALECT).and_then(|()| as_json(&payload));
                match arguments {
                    Ok(arguments) => {
                        let id = as_uuid(callback_id);
                        let arguments = as_list(&arguments);
                        let arguments = marked_numbers(&arguments);
                        let mut data = format!(r#"{{"id":"{id}","args":{arguments}"#);
                        if hops > 0 {
                            data.push_str(&format!(r#","hops":{hops}"#));
                        }
                        write_headers(&headers, &mut data);
                        data.push('}');
                        packet(function, Some(&data), &mut said.bytes);
                        let until = time_left.and_then(|time_left| now.checked_add(time_left));
                        self.calls.insert(callback_id, until);
                    }
                    Err(error) => said.answer(callback_id, Err(error.with_fate(Fate::NotSent))),
                }
            }
            Frame::Cancel(cancelled) => {
                self.calls.remove(&cancelled);
            }
            Frame::Invoke(invoke) => said.nobody_lent(&invoke, DIALECT),
            _ => {}
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant, _: &mut Said) {
        // The caller's own node has ended the call at its deadline. A call without a deadline stays.
        self.calls.retain(|_, until| until.is_none_or(|until| until > now));
    }
}

/// The arguments of a call from the mesh as the list that a function takes: a list stays as it is, null is an empty list, any other
/// value is a list of one.
fn as_list(arguments: &str) -> Cow<'_, str> {
    let arguments = arguments.trim();
    if arguments.starts_with('[') {
        Cow::Borrowed(arguments)
    } else if arguments == "null" {
        Cow::Borrowed("[]")
    } else {
        Cow::Owned(format!("[{arguments}]"))
    }
}

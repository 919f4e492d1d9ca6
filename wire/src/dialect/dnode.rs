//! dnode, as the npm package `dnode` 1.2.2 speaks it: one JSON object a line, `{"method": .., "arguments": [..], "callbacks": {id: path},
//! "links": [..]}`. Both ends begin with `methods`: the functions of an object, each under a number. A method that is a text is called by name,
//! one that is a number is a function of the end that is called, and functions stand anywhere in the arguments as placeholders whose
//! paths `callbacks` lists.
//!
//! By custom the last argument, if it is a function, takes the result. The protocol has no other reply: a call without it has no
//! caller that waits.

mod line;

use super::peer::{Allowed, Calls, Visible, bind, foreign_name, registers, too_late};
use super::said::{Dialect, DialectError, Said};
use crate::encoding::Encoding;
use crate::error::{Code, Fate};
use crate::frame::{Frame, Invoke, Offer, Request, Response};
use crate::id::CallbackId;
use crate::name::check_action;
use crate::payload::{CallError, Callbacks, Passed, Payload, Wants};
use bytes::BytesMut;
use bytestring::ByteString;
use line::{DIALECT, LINE_LEN_MAX, Line, follow, placeholder, put, read_line, write_line};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How many functions that the mesh passed the other end may hold. It says when it needs one no more, or, as the original does on the
/// Node.js of today, never: then the oldest is taken back for the newest.
const FUNCTIONS_MAX: usize = 131_072;

/// How long a function of theirs without a holder is kept before they are told: they use its number again when they pass it again,
/// and that may be on its way.
const CULL_AFTER: Duration = Duration::from_secs(10);

/// The arguments of the function that takes a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ResultStyle {
    /// `(result)`, and `(null, error)` when the call failed.
    #[default]
    Result,
    /// `(error, result)`, as is usual in Node.js: one of the two is null.
    ErrorFirst,
}

/// One end of a dnode connection: the server of a foreign client, or the client of an old server.
#[derive(Debug)]
pub struct Dnode {
    role: Role,
    style: ResultStyle,
    /// How many of the bytes heard are known to hold no end of a line.
    scanned: usize,
    /// Our functions that the other end may call, by the number that it knows.
    ours: HashMap<u64, Ours>,
    next_ours: u64,
    /// The number under which a function of the mesh is passed.
    lent: HashMap<CallbackId, u64>,
    /// Functions of theirs.
    theirs: HashMap<u64, Held>,
    /// Functions of theirs without a holder, and since when.
    unheld: VecDeque<(Instant, u64)>,
    /// The numbers of functions that the mesh passed, the oldest first.
    passed: VecDeque<u64>,
    /// Calls of theirs that are in flight: the function that takes the result, if there is one.
    calls: Calls<Option<u64>>,
    /// Calls of ours that are in flight: the function that takes the result.
    results: HashMap<CallbackId, u64>,
}

/// How many holders a function of theirs has, and since when it has none.
#[derive(Default, Debug)]
struct Held {
    count: usize,
    since: Option<Instant>,
}

#[derive(Debug)]
enum Role {
    Server {
        name: ByteString,
        bound: bool,
        visible: Visible,
        numbers: BTreeMap<ByteString, u64>,
    },
    Client {
        name: ByteString,
        credentials: Option<ByteString>,
        prefix: String,
        /// Their functions by the name of the action; none before they said.
        functions: Option<HashMap<ByteString, u64>>,
        /// The offers for which the bind has no room: registered once it is bound.
        more: Vec<Offer>,
    },
}

/// A function of ours.
#[derive(Clone, Debug)]
enum Ours {
    Action(ByteString),
    /// One that the mesh passed.
    Function(CallbackId),
    /// It takes the result of a call of ours.
    Result(CallbackId),
}

impl Dnode {
    /// For a client that came from this address, with the actions that it may call.
    #[must_use]
    pub fn server(peer: &str, allowed: Allowed, style: ResultStyle) -> Self {
        let (name, visible) = (foreign_name(DIALECT, peer), Visible::new(allowed));
        Self::new(Role::Server { name, bound: false, visible, numbers: BTreeMap::new() }, style)
    }

    /// For an old server, whose functions become actions under this prefix, of a branch of this name.
    #[must_use]
    pub fn client(
        name: ByteString,
        credentials: Option<ByteString>,
        prefix: &str,
        style: ResultStyle,
    ) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self::new(Role::Client { name, credentials, prefix, functions: None, more: Vec::new() }, style)
    }

    fn new(role: Role, style: ResultStyle) -> Self {
        Self {
            role,
            style,
            scanned: 0,
            ours: HashMap::new(),
            next_ours: 0,
            lent: HashMap::new(),
            theirs: HashMap::new(),
            unheld: VecDeque::new(),
            passed: VecDeque::new(),
            calls: Calls::new(),
            results: HashMap::new(),
        }
    }

    fn draw(&mut self, ours: Ours) -> u64 {
        let number = self.next_ours;
        self.next_ours += 1;
        self.ours.insert(number, ours);
        number
    }

    fn hold(&mut self, theirs: u64) {
        self.theirs.entry(theirs).or_default().count += 1;
    }

    fn let_go(&mut self, theirs: u64, now: Instant) {
        if let Some(held) = self.theirs.get_mut(&theirs).filter(|held| held.count > 0) {
            held.count -= 1;
            if held.count == 0 {
                held.since = Some(now);
                self.unheld.push_back((now, theirs));
            }
        }
    }

    /// Says a line: the functions in the arguments are listed with their paths.
    fn line(
        &mut self,
        method: Value,
        mut arguments: Vec<Value>,
        callbacks: &Callbacks,
        result: Option<u64>,
        said: &mut Said,
    ) {
        let mut listed = Map::new();
        if !callbacks.is_empty() {
            let ids = callbacks.ids();
            for (at, argument) in arguments.iter_mut().enumerate() {
                self.list(argument, &mut vec![at.to_string()], &ids, &mut listed);
            }
        }
        if let Some(result) = result {
            listed.insert(result.to_string(), json!([arguments.len().to_string()]));
            arguments.push(json!("[Function]"));
        }
        write_line(&method, &Value::Array(arguments), &listed, said);
        while self.lent.len() > FUNCTIONS_MAX {
            let Some(oldest) = self.passed.pop_front() else { break };
            self.forget(oldest, said);
        }
    }

    /// A function that the mesh passed is given back to it.
    fn forget(&mut self, number: u64, said: &mut Said) {
        if let Some(Ours::Function(id)) = self.ours.get(&number).cloned() {
            self.ours.remove(&number);
            self.lent.remove(&id);
            said.frames.push(Frame::Release(id));
        }
    }

    /// Puts numbers of ours in the places of the functions that the mesh passes.
    fn list(
        &mut self,
        value: &mut Value,
        path: &mut Vec<String>,
        ids: &[CallbackId],
        listed: &mut Map<String, Value>,
    ) {
        if let Some(id) = placeholder(value).and_then(|index| ids.get(index)) {
            let number = match self.lent.get(id) {
                Some(number) => *number,
                None => {
                    let number = self.draw(Ours::Function(*id));
                    self.lent.insert(*id, number);
                    self.passed.push_back(number);
                    number
                }
            };
            listed.insert(number.to_string(), json!(path));
            *value = json!("[Function]");
            return;
        }
        match value {
            Value::Array(values) => {
                for (at, value) in values.iter_mut().enumerate() {
                    path.push(at.to_string());
                    self.list(value, path, ids, listed);
                    path.pop();
                }
            }
            Value::Object(entries) => {
                for (key, value) in entries {
                    path.push(key.clone());
                    self.list(value, path, ids, listed);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    fn hear_line(&mut self, line: &[u8], now: Instant, said: &mut Said) -> Result<(), DialectError> {
        let Line { method, mut arguments, mut functions, links, unreadable } = read_line(line)?;
        if method == "methods" {
            return self.methods(&functions, said);
        }
        if method == "cull" {
            for number in arguments.iter().filter_map(Value::as_u64) {
                self.forget(number, said);
            }
            if self.passed.len() > 2 * (self.lent.len() + 1) {
                let ours = &self.ours;
                self.passed.retain(|number| ours.contains_key(number));
            }
            return Ok(());
        }
        let target = match &method {
            Value::String(name) => Some(Ours::Action(ByteString::from(&**name))),
            number => number.as_u64().and_then(|number| self.ours.get(&number).cloned()),
        };
        // By custom the last argument takes the result; the last that is a function, since some pass more behind it. A call that
        // brings a result waits for none.
        let takes_result = !matches!(target, Some(Ours::Result(_)));
        let argument = |path: &[String]| match path {
            [at] => at.parse::<usize>().ok().filter(|at| *at < arguments.len()),
            _ => None,
        };
        let result = functions
            .iter()
            .enumerate()
            .filter_map(|(index, (_, path))| Some((argument(path)?, index)))
            .filter(|_| takes_result)
            .max();
        let result = result.map(|(at, index)| (at, functions.remove(index).0));
        for (index, (_, path)) in functions.iter().enumerate() {
            put(&mut arguments, path, json!({ "$callback": index }));
        }
        follow(&mut arguments, links)?;
        let result = result.map(|(at, number)| {
            arguments.remove(at);
            number
        });
        if let Some(error) = unreadable {
            let what = format!("an argument cannot be read: {error}");
            let error = CallError::new(Code::CANNOT_DECODE, Fate::NotSent, what);
            return self.unreadable(target, &method, result, &functions, error, now, said);
        }
        if let Some(Ours::Result(callback_id)) = target {
            return self.result_came(callback_id, &method, arguments, &functions, said);
        }
        let payload = self.payload(&Value::Array(arguments), &functions);
        if let Some(result) = result {
            self.hold(result);
        }
        match target {
            Some(Ours::Action(action)) => self.called(action, payload, result, now, said),
            Some(Ours::Function(function)) => {
                let callback_id = result.map(|result| self.calls.open(Some(result), now));
                let wants = if callback_id.is_some() { Wants::Result } else { Wants::Nothing };
                let time_left = Some(self.calls.within());
                said.frames.push(Frame::Invoke(Invoke { function, callback_id, time_left, wants, payload }));
            }
            _ => {
                let gone = CallError::new(
                    Code::CALLBACK_GONE,
                    Fate::NotSent,
                    format!("there is no function {method}"),
                );
                self.refused(payload, result, Err(gone), now, said);
            }
        }
        Ok(())
    }

    fn payload(&mut self, value: &Value, functions: &[(u64, Vec<String>)]) -> Payload {
        functions.iter().for_each(|(number, _)| self.hold(*number));
        let mut payload = Payload::new(Encoding::Json, value.to_string());
        payload.callbacks =
            Callbacks::new(functions.iter().map(|(number, _)| Passed::Lent(CallbackId(*number))));
        payload
    }

    /// Refuses a call: lets its functions go, and tells the function that takes its result.
    fn refused(
        &mut self,
        payload: Payload,
        result: Option<u64>,
        outcome: Result<Payload, CallError>,
        now: Instant,
        said: &mut Said,
    ) {
        for id in payload.callbacks.ids() {
            self.let_go(id.0, now);
        }
        if let Some(result) = result {
            self.tell(result, outcome, now, said);
        }
    }

    /// Refuses a line that cannot be read to its end: tells the function that takes its result.
    #[expect(clippy::too_many_arguments, reason = "these are the parts of the line that are known")]
    fn unreadable(
        &mut self,
        target: Option<Ours>,
        method: &Value,
        result: Option<u64>,
        functions: &[(u64, Vec<String>)],
        error: CallError,
        now: Instant,
        said: &mut Said,
    ) -> Result<(), DialectError> {
        for (number, _) in functions {
            self.hold(*number);
            self.let_go(*number, now);
        }
        if let Some(Ours::Result(callback_id)) = target {
            if let Some(number) = method.as_u64() {
                self.ours.remove(&number);
            }
            if self.results.remove(&callback_id).is_some() {
                said.answer(callback_id, Err(error.with_fate(Fate::Failed)));
            }
        } else if let Some(result) = result {
            self.hold(result);
            self.tell(result, Err(error), now, said);
        }
        Ok(())
    }

    fn called(
        &mut self,
        action: ByteString,
        payload: Payload,
        result: Option<u64>,
        now: Instant,
        said: &mut Said,
    ) {
        // A bridged server is called, and calls nothing but the functions that it was passed.
        let allowed = match &self.role {
            Role::Server { visible, .. } => visible.allows(&action),
            Role::Client { .. } => false,
        };
        if !allowed {
            let nobody = format!("there is no function {action:?}");
            let error = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, nobody);
            return self.refused(payload, result, Err(error), now, said);
        }
        said.frames.push(self.calls.request(result, action, payload, now));
    }

    /// Calls the function that takes a result.
    fn tell(&mut self, result: u64, outcome: Result<Payload, CallError>, now: Instant, said: &mut Said) {
        let read = outcome.and_then(|payload| {
            let value: Value = payload.transcode(Encoding::Json)?.decode()?;
            Ok((value, payload.callbacks))
        });
        let (arguments, callbacks) = match (read, self.style) {
            (Ok((value, callbacks)), ResultStyle::Result) => (vec![value], callbacks),
            (Ok((value, callbacks)), ResultStyle::ErrorFirst) => (vec![Value::Null, value], callbacks),
            (Err(error), ResultStyle::Result) => (vec![Value::Null, failure(&error)], Callbacks::none()),
            (Err(error), ResultStyle::ErrorFirst) => (vec![failure(&error)], Callbacks::none()),
        };
        self.line(json!(result), arguments, &callbacks, None, said);
        self.let_go(result, now);
    }

    /// The other end calls the function that takes the result of a call of ours: once, by custom.
    fn result_came(
        &mut self,
        callback_id: CallbackId,
        method: &Value,
        mut arguments: Vec<Value>,
        functions: &[(u64, Vec<String>)],
        said: &mut Said,
    ) -> Result<(), DialectError> {
        if let Some(number) = method.as_u64() {
            self.ours.remove(&number);
        }
        if self.results.remove(&callback_id).is_none() {
            return Ok(());
        }
        let error = match self.style {
            ResultStyle::ErrorFirst if arguments.first().is_some_and(|error| !error.is_null()) => {
                Some(arguments.swap_remove(0))
            }
            ResultStyle::ErrorFirst if !arguments.is_empty() => {
                arguments.remove(0);
                None
            }
            _ => None,
        };
        let outcome = match error {
            Some(error) => Err(thrown(&error)),
            None => {
                let value = match arguments.len() {
                    0 => Value::Null,
                    1 => arguments.swap_remove(0),
                    _ => Value::Array(arguments),
                };
                Ok(self.payload(&value, functions))
            }
        };
        said.answer(callback_id, outcome);
        Ok(())
    }

    /// The other end says which functions it has.
    fn methods(&mut self, functions: &[(u64, Vec<String>)], said: &mut Said) -> Result<(), DialectError> {
        let Role::Client { name, credentials, prefix, functions: known, more } = &mut self.role else {
            // The functions that a client offers have no names in the mesh.
            return Ok(());
        };
        let first = known.is_none();
        let named = functions.iter().filter_map(|(number, path)| {
            let action = ByteString::from(format!("{prefix}{}", path.get(1..)?.join("/")));
            check_action(&action).is_ok().then_some((action, *number))
        });
        let named: HashMap<_, _> = named.collect();
        // Held for ever: they pass them under these numbers, too, and none of them may be culled.
        for number in named.values() {
            self.theirs.entry(*number).or_default().count += 1;
        }
        let mut actions: Vec<_> = named.keys().cloned().collect();
        actions.sort_unstable();
        *known = Some(named);
        if first {
            let offer = |action| Offer { action, encoding: Encoding::Json, shape: None };
            let offers = actions.into_iter().map(offer).collect();
            let (bind, rest) = bind(name.clone(), credentials.clone(), offers, Vec::new());
            *more = rest;
            said.frames.push(bind);
        }
        Ok(())
    }

    /// Calls a function of theirs.
    fn call(
        &mut self,
        function: u64,
        callback_id: Option<CallbackId>,
        wants: Wants,
        payload: &Payload,
        said: &mut Said,
    ) {
        let read = payload.transcode(Encoding::Json).and_then(|json| Ok(json.decode::<Value>()?));
        let arguments = match read {
            Ok(Value::Array(arguments)) => arguments,
            Ok(Value::Null) => Vec::new(),
            Ok(only) => vec![only],
            Err(error) => {
                said.give_back(payload);
                if let Some(callback_id) = callback_id {
                    let outcome = Err(error.with_fate(Fate::NotSent));
                    said.answer(callback_id, outcome);
                }
                return;
            }
        };
        let result = callback_id.map(|callback_id| {
            let number = self.draw(Ours::Result(callback_id));
            if wants == Wants::End {
                // A function that gives nothing back need not say that it is done, and most do not: its end is not waited for.
                self.ours.remove(&number);
            } else {
                self.results.insert(callback_id, number);
            }
            number
        });
        self.line(json!(function), arguments, &payload.callbacks, result, said);
        if let (Wants::End, Some(callback_id)) = (wants, callback_id) {
            let outcome = Ok(Payload::new(Encoding::Json, "null"));
            said.answer(callback_id, outcome);
        }
    }

    /// Forgets the function that takes the result of a call whose caller waits no more.
    fn forget_result(&mut self, callback_id: CallbackId) {
        if let Some(number) = self.results.remove(&callback_id) {
            self.ours.remove(&number);
        }
    }

    /// Says which functions there are.
    fn offer(&mut self, said: &mut Said) {
        let actions: Vec<_> = match &self.role {
            Role::Server { visible, .. } => visible.actions().cloned().collect(),
            Role::Client { .. } => Vec::new(),
        };
        let (mut object, mut listed) = (Map::new(), Map::new());
        for action in actions {
            let number = self.draw(Ours::Action(action.clone()));
            object.insert(action.to_string(), json!("[Function]"));
            listed.insert(number.to_string(), json!(["0", &*action]));
            if let Role::Server { numbers, .. } = &mut self.role {
                numbers.insert(action, number);
            }
        }
        write_line(&json!("methods"), &json!([object]), &listed, said);
    }
}

fn failure(error: &CallError) -> Value {
    json!({ "name": error.name(), "message": error.message(), "code": error.code().0 })
}

/// The error of a Node.js function, as one of ours.
fn thrown(error: &Value) -> CallError {
    let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
    let code = error.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
    let message = text("message").or_else(|| error.as_str().map(str::to_owned));
    CallError::named(
        code.map_or(Code::UNKNOWN, Code),
        Fate::Failed,
        text("name").unwrap_or_else(|| "Error".to_owned()),
        message.unwrap_or_else(|| error.to_string()),
    )
}

impl Dialect for Dnode {
    fn begin(&mut self, _: Instant, said: &mut Said) {
        match &self.role {
            Role::Server { name, .. } => {
                said.frames.push(bind(name.clone(), None, Vec::new(), Vec::new()).0);
            }
            Role::Client { .. } => self.offer(said),
        }
    }

    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        // Nothing runs before it is bound: the bytes wait, and the reader stops reading.
        while !matches!(self.role, Role::Server { bound: false, .. }) {
            let Some(end) = bytes[self.scanned..].iter().position(|byte| *byte == b'\n') else {
                self.scanned = bytes.len();
                break;
            };
            let line = bytes.split_to(std::mem::take(&mut self.scanned) + end + 1);
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.hear_line(&line, now, said)?;
            if said.is_enough() {
                return Ok(());
            }
        }
        if bytes.len() > LINE_LEN_MAX {
            return Err(DialectError::TooLong { dialect: DIALECT, claimed: bytes.len(), max: LINE_LEN_MAX });
        }
        Ok(())
    }

    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) -> Result<(), DialectError> {
        match frame {
            Frame::Bound(_) => match &mut self.role {
                Role::Server { bound, .. } => {
                    *bound = true;
                    self.offer(said);
                }
                Role::Client { more, .. } => {
                    let (more, calls) = (std::mem::take(more), &mut self.calls);
                    said.frames.extend(registers(more, |_| calls.open(None, now)));
                }
            },
            Frame::Refused(refused) => return Err(refused.into()),
            Frame::Online(news) => {
                if let Role::Server { visible, .. } = &mut self.role {
                    visible.online(news);
                }
            }
            Frame::Offline(news) => {
                if let Role::Server { visible, .. } = &mut self.role {
                    visible.offline(&news);
                }
            }
            Frame::Ping => said.frames.push(Frame::Pong),
            Frame::Response(Response { callback_id, outcome }) => match self.calls.settle(callback_id) {
                Some(Some(result)) => self.tell(result, outcome, now, said),
                _ => {
                    if let Ok(payload) = &outcome {
                        said.give_back(payload);
                    }
                }
            },
            Frame::Request(Request { callback_id, action, payload, .. }) => {
                let function = match &self.role {
                    Role::Client { functions, .. } => {
                        functions.as_ref().and_then(|known| known.get(&action).copied())
                    }
                    Role::Server { .. } => None,
                };
                match function {
                    Some(function) => self.call(function, Some(callback_id), Wants::Result, &payload, said),
                    None => {
                        said.give_back(&payload);
                        let nobody = format!("the server has no function {action:?} any more");
                        let outcome = Err(CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, nobody));
                        said.answer(callback_id, outcome);
                    }
                }
            }
            Frame::Invoke(Invoke { function, callback_id, wants, payload, .. }) => {
                self.call(function.0, callback_id, wants, &payload, said);
            }
            Frame::Cancel(callback_id) => self.forget_result(callback_id),
            Frame::Release(function) => self.let_go(function.0, now),
            _ => {}
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant, said: &mut Said) {
        while let Some((callback_id, result)) = self.calls.expired(now) {
            said.frames.push(Frame::Cancel(callback_id));
            if let Some(result) = result {
                let within = self.calls.within();
                self.tell(result, Err(too_late(within)), now, said);
            }
        }
        let due = |since: &Instant| now.saturating_duration_since(*since) >= CULL_AFTER;
        while self.unheld.front().is_some_and(|(since, _)| due(since)) {
            let Some((_, theirs)) = self.unheld.pop_front() else { break };
            // It may have been passed again meanwhile, and let go later than this.
            if self
                .theirs
                .get(&theirs)
                .is_some_and(|held| held.count == 0 && held.since.is_none_or(|since| due(&since)))
            {
                self.theirs.remove(&theirs);
                self.line(json!("cull"), vec![json!(theirs)], &Callbacks::none(), None, said);
            }
        }
    }
}

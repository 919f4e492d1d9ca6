//! dnode, as the npm package `dnode` 1.2.2 speaks it: one JSON object a line, `{"method": .., "arguments": [..], "callbacks": {id: path},
//! "links": [..]}`. Both ends begin with `methods`: the functions of an object, each under a number. A `method` that is a text calls a
//! function by name; a number calls a function that the receiver passed under that number. Functions stand anywhere in the arguments as
//! placeholders, whose paths `callbacks` lists.
//!
//! By custom the last argument, if it is a function, takes the result. The protocol has no other reply: a caller that passes no such
//! function waits for nothing.
//!
//! Below, the *peer* is the foreign program at the far end of the connection.

mod line;

use super::peer::{Allowed, Calls, Visible, bind, foreign_name, registers, too_late};
use super::said::{Dialect, DialectError, Said};
use crate::encoding::Encoding;
use crate::error::{Code, Fate};
use crate::frame::{Frame, Invoke, Offer, Request, Response};
use crate::id::CallbackId;
use crate::name::{check_action, literal_action, meant_action};
use crate::payload::{CallError, Callbacks, Passed, Payload, Wants};
use bytes::BytesMut;
use bytestring::ByteString;
use line::{DIALECT, LINE_LEN_MAX, Line, follow, placeholder, put, read_line, write_line};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How many functions of the mesh the peer may hold. A peer culls the functions that it needs no more; the original on the Node.js of
/// today never does, so above this bound the oldest function is released.
const FUNCTIONS_MAX: usize = 131_072;

/// How long after a function of the peer lost its last holder the peer is told to cull it: the peer passes a function again under the
/// number that it has, and a line that does so may be on its way.
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
    /// How many of the received bytes are known to hold no end of a line.
    scanned: usize,
    /// The targets of the peer's calls, by the numbers that this end drew.
    targets: HashMap<u64, Target>,
    next_number: u64,
    /// The numbers of the functions of the mesh that the peer holds.
    lent: HashMap<CallbackId, u64>,
    /// The functions that the peer passed, by the numbers that the peer drew.
    peer_functions: HashMap<u64, Holders>,
    /// The functions of the peer that have lost their last holder, and when.
    unheld: VecDeque<(Instant, u64)>,
    /// The numbers in `lent`, the oldest first; numbers that were released meanwhile may still be among them.
    lent_in_order: VecDeque<u64>,
    /// The peer's calls in flight: the function of the peer that takes the result, if there is one.
    calls: Calls<Option<u64>>,
    /// Calls from the mesh that are in flight: the number of the target that takes the result.
    results: HashMap<CallbackId, u64>,
    /// Over how many hops the call came that is being heard or said.
    hops: u8,
}

/// How many holders a function of the peer has in the mesh, and since when it has none.
#[derive(Default, Debug)]
struct Holders {
    count: usize,
    none_since: Option<Instant>,
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
        /// The server's functions by the names of their actions; none before the server has said its `methods`.
        functions: Option<HashMap<ByteString, u64>>,
        /// The offers for which the bind has no room: registered once the branch is bound.
        more: Vec<Offer>,
    },
}

/// The target of a call by the peer: it stands behind a number that this end drew.
#[derive(Clone, Debug)]
enum Target {
    Action(ByteString),
    /// A function that the mesh passed to the peer.
    Function(CallbackId),
    /// The function that takes the result of a call from the mesh.
    Result(CallbackId),
}

impl Dnode {
    /// For a client at the address `peer`, with the actions that it may call.
    #[must_use]
    pub fn server(peer: &str, allowed: Allowed, style: ResultStyle) -> Self {
        let (name, visible) = (foreign_name(DIALECT, peer), Visible::new(allowed));
        Self::new(Role::Server { name, bound: false, visible, numbers: BTreeMap::new() }, style)
    }

    /// For an old server, whose functions become actions under `prefix`, offered by a branch named `name`.
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
            targets: HashMap::new(),
            next_number: 0,
            lent: HashMap::new(),
            peer_functions: HashMap::new(),
            unheld: VecDeque::new(),
            lent_in_order: VecDeque::new(),
            calls: Calls::new(),
            results: HashMap::new(),
            hops: 0,
        }
    }

    /// Draws a number for a target.
    fn draw(&mut self, target: Target) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.targets.insert(number, target);
        number
    }

    /// Adds a holder to a function of the peer.
    fn hold(&mut self, function: u64) {
        self.peer_functions.entry(function).or_default().count += 1;
    }

    /// Takes a holder from a function of the peer.
    fn let_go(&mut self, function: u64, now: Instant) {
        if let Some(holders) = self.peer_functions.get_mut(&function).filter(|holders| holders.count > 0) {
            holders.count -= 1;
            if holders.count == 0 {
                holders.none_since = Some(now);
                self.unheld.push_back((now, function));
            }
        }
    }

    /// Says a line, with the paths of the functions in its arguments.
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
        write_line(&method, &Value::Array(arguments), &listed, std::mem::take(&mut self.hops), said);
        while self.lent.len() > FUNCTIONS_MAX {
            let Some(oldest) = self.lent_in_order.pop_front() else { break };
            self.release(oldest, said);
        }
    }

    /// Releases a function that the mesh passed to the peer.
    fn release(&mut self, number: u64, said: &mut Said) {
        if let Some(Target::Function(id)) = self.targets.get(&number).cloned() {
            self.targets.remove(&number);
            self.lent.remove(&id);
            said.frames.push(Frame::Release(id));
        }
    }

    /// Lists the functions that the mesh passes in a value, under their numbers, with their paths.
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
                    let number = self.draw(Target::Function(*id));
                    self.lent.insert(*id, number);
                    self.lent_in_order.push_back(number);
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
        let Line { method, mut arguments, mut functions, links, unreadable, hops } = read_line(line)?;
        self.hops = hops;
        if method == "methods" {
            return self.methods(&functions, said);
        }
        if method == "cull" {
            for number in arguments.iter().filter_map(Value::as_u64) {
                self.release(number, said);
            }
            if self.lent_in_order.len() > 2 * (self.lent.len() + 1) {
                let targets = &self.targets;
                self.lent_in_order.retain(|number| targets.contains_key(number));
            }
            return Ok(());
        }
        let target = match &method {
            Value::String(name) => Some(Target::Action(literal_action(name))),
            number => number.as_u64().and_then(|number| self.targets.get(&number).cloned()),
        };
        // The last argument that is a function takes the result: some programs pass more arguments behind it. A call that brings a
        // result waits for none.
        let takes_result = !matches!(target, Some(Target::Result(_)));
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
        if let Some(Target::Result(callback_id)) = target {
            return self.result_came(callback_id, &method, arguments, &functions, said);
        }
        let payload = self.payload(&Value::Array(arguments), &functions);
        if let Some(result) = result {
            self.hold(result);
        }
        match target {
            Some(Target::Action(action)) => self.called(action, payload, result, now, said),
            Some(Target::Function(function)) => {
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

    /// Refuses a call of the peer: lets its functions go, and calls the function that takes its result.
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

    /// Refuses a line that cannot be read to its end: calls the function that takes its result.
    #[expect(clippy::too_many_arguments, reason = "these are the parts of the line that are known")]
    fn unreadable(
        &mut self,
        target: Option<Target>,
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
        if let Some(Target::Result(callback_id)) = target {
            if let Some(number) = method.as_u64() {
                self.targets.remove(&number);
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
        // A bridged server may call the functions that it was passed, and no actions.
        let allowed = match &self.role {
            Role::Server { visible, .. } => visible.allows(&action),
            Role::Client { .. } => false,
        };
        if !allowed {
            let nobody = format!("there is no function {action:?}");
            let error = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, nobody);
            return self.refused(payload, result, Err(error), now, said);
        }
        said.frames.push(self.calls.request(result, action, std::mem::take(&mut self.hops), payload, now));
    }

    /// Calls the function of the peer that takes a result.
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

    /// The peer calls the function that takes the result of a call from the mesh: once, by custom.
    fn result_came(
        &mut self,
        callback_id: CallbackId,
        method: &Value,
        mut arguments: Vec<Value>,
        functions: &[(u64, Vec<String>)],
        said: &mut Said,
    ) -> Result<(), DialectError> {
        if let Some(number) = method.as_u64() {
            self.targets.remove(&number);
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

    /// Takes the `methods` of the peer: a server's functions become actions.
    fn methods(&mut self, functions: &[(u64, Vec<String>)], said: &mut Said) -> Result<(), DialectError> {
        let Role::Client { name, credentials, prefix, functions: known, more } = &mut self.role else {
            // The functions that a client offers have no names in the mesh.
            return Ok(());
        };
        let first = known.is_none();
        let named = functions.iter().filter_map(|(number, path)| {
            let action = literal_action(&format!("{prefix}{}", path.get(1..)?.join("/")));
            check_action(&action).is_ok().then_some((action, *number))
        });
        let named: HashMap<_, _> = named.collect();
        // These functions are held for ever: the server may pass them as arguments under the numbers of its `methods`, and they
        // must not be culled then.
        for number in named.values() {
            self.peer_functions.entry(*number).or_default().count += 1;
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

    /// Calls a function of the peer for a call from the mesh.
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
            let number = self.draw(Target::Result(callback_id));
            if wants == Wants::End {
                // Most functions without a result never say that they are done, so the call ends when it has been sent.
                self.targets.remove(&number);
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

    /// Forgets the function that takes the result of a call, since its caller waits no more.
    fn forget_result(&mut self, callback_id: CallbackId) {
        if let Some(number) = self.results.remove(&callback_id) {
            self.targets.remove(&number);
        }
    }

    /// Says the `methods` of this end: the actions that a client may see, and none to a server.
    fn offer(&mut self, said: &mut Said) {
        let actions: Vec<_> = match &self.role {
            Role::Server { visible, .. } => visible.actions().cloned().collect(),
            Role::Client { .. } => Vec::new(),
        };
        let (mut object, mut listed) = (Map::new(), Map::new());
        for action in actions {
            let number = self.draw(Target::Action(action.clone()));
            let meant = meant_action(&action);
            listed.insert(number.to_string(), json!(["0", &*meant]));
            object.insert(meant.to_string(), json!("[Function]"));
            if let Role::Server { numbers, .. } = &mut self.role {
                numbers.insert(action, number);
            }
        }
        write_line(&json!("methods"), &json!([object]), &listed, 0, said);
    }
}

fn failure(error: &CallError) -> Value {
    json!({ "name": error.name(), "message": error.message(), "code": error.code().0 })
}

/// The error of a Node.js function, as a [`CallError`].
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
        // Nothing runs before the bind is answered: until then the bytes wait, and the reader stops reading.
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
            Frame::Request(Request { callback_id, action, hops, payload, .. }) => {
                let function = match &self.role {
                    Role::Client { functions, .. } => {
                        functions.as_ref().and_then(|known| known.get(&action).copied())
                    }
                    Role::Server { .. } => None,
                };
                match function {
                    Some(function) => {
                        self.hops = hops;
                        self.call(function, Some(callback_id), Wants::Result, &payload, said);
                        self.hops = 0;
                    }
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
            let Some((_, function)) = self.unheld.pop_front() else { break };
            // The peer may have passed the function again meanwhile, and its new holder may have gone later.
            if self.peer_functions.get(&function).is_some_and(|holders| {
                holders.count == 0 && holders.none_since.is_none_or(|since| due(&since))
            }) {
                self.peer_functions.remove(&function);
                self.line(json!("cull"), vec![json!(function)], &Callbacks::none(), None, said);
            }
        }
    }
}

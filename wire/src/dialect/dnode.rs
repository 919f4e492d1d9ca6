//! dnode, as the npm package `dnode` 1.2.2 speaks it: one JSON object a line, `{"method": .., "arguments": [..], "callbacks": {id: path},
//! "links": [..]}`. Both ends begin with `methods`: the functions of an object, each under a number. A `method` that is a text calls a
//! function by name; a number calls a function that the receiver passed under that number. Functions stand anywhere in the arguments as
//! placeholders, whose paths `callbacks` lists.
//!
//! By custom the last argument, if it is a function, takes the result. The protocol has no other reply: a caller that passes no such
//! function waits for nothing.
//!
//! A stream has two functions: one is called with each item, and the last one takes the end, as it takes a result. A call that passes a function
//! before the one that takes the result reads a stream, if the action answers with one. Its items come as calls of `each(item, stop)`; calling
//! `stop` drops the stream. The other way round, a function of the peer that is read as a stream gets `each` and the function for the end behind its
//! arguments. It may call `each(item, ready)`: `ready` is called when the item has left.
//!
//! Below, the *peer* is the foreign program at the far end of the connection.

mod lent;
mod line;
mod streams;
mod tree;

pub use lent::LentFunctions;

use super::json::{Skim, as_json, exact_numbers, failure};
use super::peer::{Allowed, Calls, Visible, bind, foreign_name, registers, too_late};
use super::said::{Dialect, DialectError, Said};
use crate::accepts::Accepts;
use crate::encoding::Encoding;
use crate::error::{Code, Fate};
use crate::frame::{
    Features, Frame, Granted, Invoke, Item as ItemFrame, Offer, OpenStream, Request, Response,
};
use crate::headers::Headers;
use crate::id::CallbackId;
use crate::limits::{CALLBACKS_PER_REQUEST_MAX, FOREIGN_UNREAD_LEN_MAX, KEPT_LEN_MAX};
use crate::name::{check_action, is_everything_below, literal_action, meant_action};
use crate::payload::{CallError, Callbacks, Passed, Payload, Wants};
use crate::spoken::spoken;
use bytes::BytesMut;
use bytestring::ByteString;
use lent::Lent;
use line::{DIALECT, LINE_LEN_MAX, Line, NotRead, list_of, malformed, read_line, skim, skimmed, write_line};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;
use streams::{Item, Makes, Next, Read, Reads, WINDOW};
use tree::{FUNCTION, Tree};

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
    /// The line that passes by unread, since it is too long.
    unread: Option<Unread>,
    /// The targets of the peer's calls, by the numbers that this end drew.
    targets: HashMap<u64, Target>,
    next_number: u64,
    /// The functions of the mesh that the peer holds.
    lent: Lent,
    /// The peer's calls in flight.
    calls: Calls<Waiter>,
    /// How many bytes the arguments of these calls have that are kept.
    kept_len: usize,
    /// Calls from the mesh that are in flight: the number of the target that takes the result.
    results: HashMap<CallbackId, u64>,
    /// The streams of the mesh that the peer reads, by the ids of its calls.
    reads: Reads,
    /// The streams that the peer makes, by the ids of the requests from the mesh.
    makes: Makes,
    /// Whether the near end may be asked for streams.
    near_has_streams: bool,
}

/// The arguments of a line to the peer, as JSON, and the functions in them: under their numbers, with their paths.
type ForPeer<'v> = (Vec<Cow<'v, str>>, Map<String, Value>);

/// A line that passes by unread.
#[derive(Debug)]
struct Unread {
    skim: Skim,
    len: usize,
}

/// What the peer waits for after a call.
#[derive(Debug)]
enum Waiter {
    /// Nothing: it passed no function.
    Nobody,
    /// A call of its function with the result.
    Result { function: u64, again: Option<Box<Again>> },
    /// Nothing: its function is an argument. If the action does not take it as one, the function gets this error.
    Argument { function: u64, error: CallError },
    /// The beginning of a stream, whose items one function takes and whose end the other.
    Stream { each: u64, done: u64 },
}

/// A call of the peer, kept in case that its target does not take the arguments without the function that takes the result: then this
/// function is an argument itself. Only the target knows.
#[derive(Debug)]
struct Again {
    target: Target,
    payload: Payload,
    /// The place of the function among the arguments.
    at: usize,
    /// Over how many hops the call came.
    hops: u8,
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
    /// The function that takes the items of a stream that the mesh reads.
    Each(CallbackId),
    /// The function that drops a stream that the peer reads.
    Stop(CallbackId),
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
            unread: None,
            targets: HashMap::new(),
            next_number: 0,
            lent: Lent::new(LentFunctions::default()),
            calls: Calls::new(),
            kept_len: 0,
            results: HashMap::new(),
            reads: Reads::default(),
            makes: Makes::default(),
            near_has_streams: false,
        }
    }

    /// Draws a number for a target.
    fn draw(&mut self, target: Target) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.targets.insert(number, target);
        number
    }

    /// Shares the bound of the functions that the peers hold with other connections. Default: the connection has a bound of its own.
    #[must_use]
    pub fn lending(mut self, functions: &LentFunctions) -> Self {
        self.lent = Lent::new(functions.clone());
        self
    }

    /// Says a line. The arguments are JSON, in which no function of the mesh stands any more.
    fn line(
        &mut self,
        method: &str,
        mut arguments: Vec<Cow<'_, str>>,
        mut listed: Map<String, Value>,
        result: Option<u64>,
        hops: u8,
        said: &mut Said,
    ) {
        if let Some(result) = result {
            listed.insert(result.to_string(), json!([arguments.len().to_string()]));
            arguments.push(Cow::Borrowed(FUNCTION));
        }
        write_line(method, &arguments, &listed, hops, said);
        self.take_back(said);
    }

    /// Releases the functions of the mesh that the peer may hold no longer.
    fn take_back(&mut self, said: &mut Said) {
        for number in self.lent.to_take_back() {
            self.release(number, said);
        }
    }

    /// Releases a function that the mesh passed to the peer.
    fn release(&mut self, number: u64, said: &mut Said) {
        if let Some(id) = self.lent.release(number) {
            self.targets.remove(&number);
            said.frames.push(Frame::Release(id));
        }
    }

    /// Puts the functions that the mesh passes in these values into the form of the protocol, and lists them: under their numbers, with
    /// their paths.
    fn pass<'v>(
        &mut self,
        values: Vec<&'v str>,
        callbacks: &Callbacks,
        said: &mut Said,
    ) -> Result<ForPeer<'v>, CallError> {
        let mut listed = Map::new();
        if callbacks.is_empty() {
            return Ok((values.into_iter().map(Cow::Borrowed).collect(), listed));
        }
        let cannot_be_written =
            |what: &str| CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, what.to_owned());
        let ids = callbacks.ids();
        let read = values.into_iter().map(Tree::read).collect::<Result<Vec<_>, _>>();
        let mut trees = read.map_err(|_| cannot_be_written("the value nests too deeply for dnode"))?;
        let mut found = vec![0_usize; ids.len()];
        let mut whole = Tree::List(std::mem::take(&mut trees));
        whole.functions(&mut Vec::new(), &mut |index, _| {
            if let Some(count) = found.get_mut(index) {
                *count += 1;
            }
            None
        });
        // Only the types of the two ends tell a function from an object that looks like its placeholder.
        if found.iter().any(|count| *count > 1) {
            let what = "an object whose only key is $callback, beside a function, cannot be told from the function in dnode";
            return Err(cannot_be_written(what));
        }
        whole.functions(&mut Vec::new(), &mut |index, path| {
            let id = *ids.get(index)?;
            let number = self.lent.number(id).unwrap_or_else(|| {
                let number = self.draw(Target::Function(id));
                self.lent.pass(id, number);
                number
            });
            listed.insert(number.to_string(), json!(path));
            Some(Tree::Leaf(Cow::Borrowed(FUNCTION)))
        });
        for (id, _) in ids.iter().zip(found).filter(|(_, count)| *count == 0) {
            said.frames.push(Frame::Release(*id));
        }
        let Tree::List(trees) = whole else { return Ok((Vec::new(), listed)) };
        let written = trees.into_iter().map(|tree| {
            let mut json = String::new();
            tree.write(&mut json);
            Cow::Owned(json)
        });
        Ok((written.collect(), listed))
    }

    fn hear_line(&mut self, line: &[u8], now: Instant, said: &mut Said) -> Result<(), DialectError> {
        let Line { method, arguments, mut functions, links, hops } = match read_line(line) {
            Ok(line) => line,
            Err(NotRead::NoLine(error)) => return Err(error),
            Err(NotRead::TooMuch(what)) => {
                let mut skim = skim();
                skim.pass(line);
                self.not_read(&skim, &CallError::new(Code::FRAME_TOO_LARGE, Fate::NotSent, what), said);
                return Ok(());
            }
        };
        if method == "methods" {
            return self.methods(&functions, said);
        }
        if method == "cull" {
            for number in arguments.iter().filter_map(|number| number.parse().ok()) {
                self.release(number, said);
            }
            return Ok(());
        }
        let target = self.target(&method);
        // The last argument that is a function takes the result: some programs pass more arguments behind it. A call that brings a
        // result waits for none.
        let result = match target {
            Some(Target::Result(_)) => None,
            // The only argument is the item.
            Some(Target::Each(_)) if arguments.len() < 2 => None,
            _ => {
                last_function(&functions, arguments.len()).map(|(at, index)| (at, functions.remove(index).0))
            }
        };
        let without = result.map(|(at, _)| at);
        // An error passes no functions: it keeps what the program wrote in their places.
        let written = match target {
            Some(Target::Result(_)) if !functions.is_empty() => {
                list_of(&arguments, &[], links.clone(), None).ok().map(|(list, _)| list)
            }
            _ => None,
        };
        let (list, numbers) = match list_of(&arguments, &functions, links, without) {
            Ok((list, numbers)) => (exact_numbers(&list).into_owned(), numbers),
            Err(error) => {
                self.refuse_line(&method, result.map(|(_, number)| number), &error, said);
                return Ok(());
            }
        };
        match target {
            Some(Target::Result(callback_id)) => {
                let written = written.as_deref().map(exact_numbers);
                self.result_came(callback_id, &method, (&list, &numbers), written.as_deref(), said);
            }
            Some(Target::Each(callback_id)) => {
                let item =
                    Item { payload: one_of(&list, &numbers), on_left: result.map(|(_, number)| number) };
                self.makes.came(callback_id, item);
                self.flow(callback_id, said);
            }
            Some(Target::Stop(callback_id)) => self.stop(callback_id, said),
            Some(target) => {
                if let Some(number) = method.as_u64() {
                    self.lent.used(number);
                }
                self.called(target, payload(list, &numbers), hops, result, now, said);
            }
            None => {
                let what = format!("there is no function {method}");
                let gone = CallError::new(Code::CALLBACK_GONE, Fate::NotSent, what);
                self.refused(result, gone, said);
            }
        }
        Ok(())
    }

    /// The target of a call by the peer.
    fn target(&self, method: &Value) -> Option<Target> {
        match method {
            Value::String(name) => Some(Target::Action(literal_action(name))),
            number => number.as_u64().and_then(|number| self.targets.get(&number).cloned()),
        }
    }

    /// Answers a line that has passed by unread.
    fn not_read(&mut self, passed: &Skim, error: &CallError, said: &mut Said) {
        let (method, functions) = skimmed(passed);
        let result = last_function(&functions, usize::MAX).map(|(_, index)| functions[index].0);
        self.refuse_line(&method.unwrap_or(Value::Null), result, error, said);
    }

    /// Refuses a line whose arguments cannot be read: the function that takes its result gets the error.
    fn refuse_line(&mut self, method: &Value, result: Option<u64>, error: &CallError, said: &mut Said) {
        let target = self.target(method);
        if let Some(Target::Each(callback_id)) = target {
            self.makes.ended(callback_id, Err(error.clone().with_fate(Fate::Failed)));
            self.flow(callback_id, said);
        } else if let Some(Target::Result(callback_id)) = target {
            if let Some(number) = method.as_u64() {
                self.targets.remove(&number);
            }
            if self.results.remove(&callback_id).is_some() {
                self.came_to_its_end(callback_id, Err(error.clone().with_fate(Fate::Failed)), said);
            }
        } else if let Some(result) = result {
            self.tell(result, Err(error.clone()), said);
        } else {
            said.note(|| format!("a line is dropped, and no function takes its result: {}", error.message()));
        }
    }

    /// Refuses a call of the peer: the function that takes its result gets the error.
    fn refused(&mut self, result: Option<(usize, u64)>, error: CallError, said: &mut Said) {
        match result {
            Some((_, function)) => self.tell(function, Err(error), said),
            None => said
                .note(|| format!("a call is refused, and no function takes its result: {}", error.message())),
        }
    }

    /// The peer calls an action or a function of the mesh.
    fn called(
        &mut self,
        target: Target,
        payload: Payload,
        hops: u8,
        result: Option<(usize, u64)>,
        now: Instant,
        said: &mut Said,
    ) {
        if let Target::Action(action) = &target {
            // A bridged server may call the functions that it was passed, and no actions.
            let allowed = match &self.role {
                Role::Server { visible, .. } => visible.allows(action) && check_action(action).is_ok(),
                Role::Client { .. } => false,
            };
            if !allowed {
                let nobody = format!("there is no function {action:?}");
                let error = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, nobody);
                return self.refused(result, error, said);
            }
        }
        let waiter = match result {
            None => Waiter::Nobody,
            Some((at, function)) => {
                let has_room = self.kept_len + payload.len() <= KEPT_LEN_MAX
                    && payload.callbacks.len() < CALLBACKS_PER_REQUEST_MAX;
                let again = has_room.then(|| {
                    self.kept_len += payload.len();
                    Box::new(Again { target: target.clone(), payload: payload.clone(), at, hops })
                });
                Waiter::Result { function, again }
            }
        };
        self.ask(target, payload, hops, waiter, now, said);
    }

    /// Sends a call of the peer into the mesh.
    fn ask(
        &mut self,
        target: Target,
        payload: Payload,
        hops: u8,
        waiter: Waiter,
        now: Instant,
        said: &mut Said,
    ) {
        match target {
            Target::Action(action) => {
                said.frames.push(self.calls.request(waiter, action, (hops, Headers::none()), payload, now));
            }
            Target::Function(function) => {
                let waits = !matches!(waiter, Waiter::Nobody);
                let callback_id = waits.then(|| self.calls.open(waiter, now));
                let wants = if waits { Wants::Result } else { Wants::Nothing };
                let time_left = Some(self.calls.within());
                said.frames.push(Frame::Invoke(Invoke { function, callback_id, time_left, wants, payload }));
            }
            // Results and items are taken before.
            Target::Result(_) | Target::Each(_) | Target::Stop(_) => {}
        }
    }

    /// Asks for the stream that the target of a call answers with: the function before the one that takes the result takes the items.
    fn open_stream(&mut self, again: Again, done: u64, error: CallError, now: Instant, said: &mut Said) {
        let Again { target, payload, at, hops } = again;
        let Some((payload, each)) = without_function(&payload, at).filter(|_| self.near_has_streams) else {
            let what =
                format!("{}; pass a function that takes its items, before the last one", error.message());
            return self.tell(done, Err(CallError::new(error.code(), Fate::NotSent, what)), said);
        };
        let waiter = Waiter::Stream { each, done };
        let frame = match target {
            Target::Action(action) => {
                match self.calls.request(waiter, action, (hops, Headers::none()), payload, now) {
                    Frame::Request(request) => Frame::OpenStream(OpenStream { grant: WINDOW, request }),
                    other => other,
                }
            }
            Target::Function(function) => {
                let (callback_id, time_left) =
                    (Some(self.calls.open(waiter, now)), Some(self.calls.within()));
                let wants = Wants::Stream(WINDOW);
                Frame::Invoke(Invoke { function, callback_id, time_left, wants, payload })
            }
            Target::Result(_) | Target::Each(_) | Target::Stop(_) => return,
        };
        said.frames.push(frame);
    }

    /// A stream of the mesh begins, which the peer reads. From now on it has no deadline.
    fn begins(&mut self, callback_id: CallbackId) {
        if let Some(Waiter::Stream { each, done }) = self.calls.settle(callback_id) {
            let stop = self.draw(Target::Stop(callback_id));
            self.reads.begin(callback_id, each, done, stop);
        }
    }

    /// An item of a stream that the peer reads.
    fn item(&mut self, callback_id: CallbackId, payload: &Payload, said: &mut Said) {
        let Some(Read { each, stop, .. }) = self.reads.find(callback_id) else {
            return said.give_back(payload);
        };
        let json = as_json(payload);
        let passed = json.as_ref().map_err(Clone::clone).and_then(|json| {
            let (values, listed) = self.pass(vec![json], &payload.callbacks, said)?;
            Ok((values.into_iter().map(|value| Cow::Owned(value.into_owned())).collect(), listed))
        });
        match passed {
            Ok((arguments, listed)) => {
                self.line(&each.to_string(), arguments, listed, Some(stop), 0, said);
                self.reads.said(callback_id, payload.len());
            }
            Err(error) => {
                said.give_back(payload);
                said.frames.push(Frame::Cancel(callback_id));
                self.read_to_its_end(callback_id, Err(error.with_fate(Fate::Failed)), said);
            }
        }
    }

    /// The peer reads a stream no further.
    fn stop(&mut self, callback_id: CallbackId, said: &mut Said) {
        said.frames.push(Frame::Cancel(callback_id));
        self.read_to_its_end(callback_id, Ok(Payload::default()), said);
    }

    /// A stream that the peer reads has ended: its last function is told. `false` if this is no stream.
    fn read_to_its_end(
        &mut self,
        callback_id: CallbackId,
        end: Result<Payload, CallError>,
        said: &mut Said,
    ) -> bool {
        let Some(Read { done, stop, .. }) = self.reads.end(callback_id) else { return false };
        self.targets.remove(&stop);
        self.tell(done, end.map(|_| Payload::new(Encoding::Json, "null")), said);
        true
    }

    /// Sends what may leave of a stream that the peer makes.
    fn flow(&mut self, callback_id: CallbackId, said: &mut Said) {
        while let Some(next) = self.makes.next(callback_id) {
            match next {
                Next::Item(Item { payload, on_left }) => {
                    said.frames.push(Frame::Item(ItemFrame { callback_id, payload }));
                    if let Some(function) = on_left {
                        self.line(&function.to_string(), Vec::new(), Map::new(), None, 0, said);
                    }
                }
                Next::End(end, each) => {
                    self.targets.remove(&each);
                    self.forget_result(callback_id);
                    said.answer(callback_id, end);
                }
            }
        }
    }

    /// The peer has answered a call from the mesh, which may have been one for a stream.
    fn came_to_its_end(
        &mut self,
        callback_id: CallbackId,
        outcome: Result<Payload, CallError>,
        said: &mut Said,
    ) {
        // The payload shares its bytes.
        if self.makes.ended(callback_id, outcome.clone()) {
            self.flow(callback_id, said);
        } else {
            said.answer(callback_id, outcome);
        }
    }

    /// The outcome of a call of the peer.
    fn answered(
        &mut self,
        waiter: Option<Waiter>,
        outcome: Result<Payload, CallError>,
        now: Instant,
        said: &mut Said,
    ) {
        if let Some(Waiter::Result { again: Some(again), .. }) = &waiter {
            self.kept_len -= again.payload.len();
        }
        let refused = outcome
            .as_ref()
            .is_err_and(|error| error.code() == Code::CANNOT_DECODE || error.fate() == Fate::NotSent);
        match (waiter, outcome) {
            (Some(Waiter::Result { function, again: Some(again) }), Err(error)) if error.is_of_stream() => {
                self.open_stream(*again, function, error, now, said);
            }
            // It ended before it began.
            (Some(Waiter::Stream { done, .. }), outcome) => {
                self.tell(done, outcome.map(|_| Payload::new(Encoding::Json, "null")), said);
            }
            (Some(Waiter::Result { function, again: Some(again) }), Err(error))
                if error.fate() == Fate::Failed && is_of_json(&error) =>
            {
                let Again { target, payload, at, hops } = *again;
                match with_argument(&payload, at, function) {
                    Some(payload) => {
                        self.ask(target, payload, hops, Waiter::Argument { function, error }, now, said);
                    }
                    None => self.tell(function, Err(error), said),
                }
            }
            (Some(Waiter::Result { function, .. }), outcome) => self.tell(function, outcome, said),
            (Some(Waiter::Argument { function, error }), Err(_)) if refused => {
                self.tell(function, Err(error), said);
            }
            (_, Ok(payload)) => said.give_back(&payload),
            (_, Err(_)) => {}
        }
    }

    /// Calls the function of the peer that takes a result.
    fn tell(&mut self, result: u64, outcome: Result<Payload, CallError>, said: &mut Said) {
        let first = match self.style {
            ResultStyle::Result => &[][..],
            ResultStyle::ErrorFirst => &["null"],
        };
        let told = outcome.and_then(|payload| {
            let passed = as_json(&payload)
                .and_then(|json| {
                    let (values, listed) = self.pass([first, &[&json]].concat(), &payload.callbacks, said)?;
                    let values = values.into_iter().map(|value| Cow::Owned(value.into_owned())).collect();
                    Ok((values, listed))
                })
                .inspect_err(|_| said.give_back(&payload));
            passed.map_err(|error| error.with_fate(Fate::Failed))
        });
        let (arguments, listed) = told.unwrap_or_else(|error| {
            let failure = Cow::Owned(failure(&error).into_owned());
            let arguments = match self.style {
                ResultStyle::Result => vec![Cow::Borrowed("null"), failure],
                ResultStyle::ErrorFirst => vec![failure],
            };
            (arguments, Map::new())
        });
        self.line(&result.to_string(), arguments, listed, None, 0, said);
    }

    /// The peer calls the function that takes the result of a call from the mesh: once, by custom.
    fn result_came(
        &mut self,
        callback_id: CallbackId,
        method: &Value,
        (list, numbers): (&str, &[u64]),
        written: Option<&str>,
        said: &mut Said,
    ) {
        if let Some(number) = method.as_u64() {
            self.targets.remove(&number);
        }
        if self.results.remove(&callback_id).is_none() {
            return;
        }
        let values_of = |list| -> Vec<&str> {
            let values: Vec<&RawValue> = serde_json::from_str(list).unwrap_or_default();
            values.into_iter().map(RawValue::get).collect()
        };
        let values = values_of(list);
        let (error, results) = match (self.style, &values[..]) {
            (ResultStyle::ErrorFirst, ["null", results @ ..]) => (None, results),
            (ResultStyle::ErrorFirst, [_, ..]) => (Some(0), &[][..]),
            (ResultStyle::Result, ["null", error]) if is_failure(error) => (Some(1), &[][..]),
            (_, results) => (None, results),
        };
        let outcome = match (error, results) {
            (Some(at), _) => Err(thrown(written.map_or(values, values_of).get(at).unwrap_or(&"null"))),
            (None, []) => Ok(payload("null".to_owned(), &[])),
            (None, [one]) => Ok(payload((*one).to_owned(), numbers)),
            (None, several) => Ok(payload(format!("[{}]", several.join(",")), numbers)),
        };
        self.came_to_its_end(callback_id, outcome, said);
    }

    /// Takes the `methods` of the peer: a server's functions become actions.
    fn methods(&mut self, functions: &[(u64, Vec<String>)], said: &mut Said) -> Result<(), DialectError> {
        let Role::Client { name, credentials, prefix, functions: known, more } = &mut self.role else {
            // The functions that a client offers have no names in the mesh.
            return Ok(());
        };
        let first = known.is_none();
        let mut named = HashMap::new();
        for (number, path) in functions {
            let action = literal_action(&format!("{prefix}{}", path.get(1..).unwrap_or_default().join("/")));
            match check_action(&action) {
                Ok(()) => _ = named.insert(action, *number),
                Err(error) => said.note(|| format!("a function of the server is left out: {error}")),
            }
        }
        let mut actions: Vec<_> = named.keys().cloned().collect();
        actions.sort_unstable();
        *known = Some(named);
        if first {
            let offer = |action| Offer { action, accepts: Accepts::List, shape: None };
            let offers = actions.into_iter().map(offer).collect();
            let (bind, rest) = bind(name.clone(), credentials.clone(), offers, Vec::new());
            *more = rest;
            said.frames.push(bind);
        }
        Ok(())
    }

    /// A request from the mesh, for a function of the server.
    fn request(&mut self, request: Request, wants: Wants, said: &mut Said) {
        let Request { callback_id, action, hops, payload, .. } = request;
        let function = match &self.role {
            Role::Client { functions, .. } => {
                // A caller may name the action as the server does.
                let literal = is_everything_below(&action).then(|| literal_action(&action));
                functions.as_ref().and_then(|known| known.get(literal.as_ref().unwrap_or(&action)).copied())
            }
            Role::Server { .. } => None,
        };
        match function {
            Some(function) => self.call(function, Some(callback_id), wants, &payload, hops, said),
            None => {
                said.give_back(&payload);
                let nobody = format!("the server has no function {action:?} any more");
                let outcome = Err(CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, nobody));
                said.answer(callback_id, outcome);
            }
        }
    }

    /// Calls a function of the peer for a call from the mesh.
    fn call(
        &mut self,
        function: u64,
        callback_id: Option<CallbackId>,
        wants: Wants,
        payload: &Payload,
        hops: u8,
        said: &mut Said,
    ) {
        // A call that wants no result passes no function for it: a function without a result never says that it is done, so its call
        // ends when it has been sent.
        let stream = match wants {
            Wants::Stream(grant) => callback_id.map(|callback_id| (callback_id, grant)),
            Wants::Result | Wants::End | Wants::Nothing => None,
        };
        let waits = callback_id.filter(|_| wants == Wants::Result || stream.is_some());
        let json = as_json(payload);
        let passed = json.as_ref().map_err(Clone::clone).and_then(|json| {
            let values: Vec<&RawValue> = match &**json {
                "null" => Vec::new(),
                list if list.starts_with('[') => serde_json::from_str(list).unwrap_or_default(),
                only => serde_json::from_str(only).into_iter().collect(),
            };
            self.pass(values.into_iter().map(RawValue::get).collect(), &payload.callbacks, said)
        });
        let (mut arguments, mut listed) = match passed {
            Ok(passed) => passed,
            Err(error) => {
                said.give_back(payload);
                if let Some(callback_id) = callback_id {
                    let outcome = Err(error.with_fate(Fate::NotSent));
                    said.answer(callback_id, outcome);
                }
                return;
            }
        };
        if let Some((callback_id, grant)) = stream {
            let each = self.draw(Target::Each(callback_id));
            listed.insert(each.to_string(), json!([arguments.len().to_string()]));
            arguments.push(Cow::Borrowed(FUNCTION));
            self.makes.begin(callback_id, each, grant);
            said.frames.push(Frame::Started(callback_id));
        }
        let result = waits.map(|callback_id| {
            let number = self.draw(Target::Result(callback_id));
            self.results.insert(callback_id, number);
            number
        });
        self.line(&function.to_string(), arguments, listed, result, hops, said);
        if let (None, Some(callback_id)) = (waits, callback_id) {
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
        // To the original, this name is the prototype of the object, and no function.
        for action in actions.into_iter().filter(|action| *action != "__proto__") {
            let number = self.draw(Target::Action(action.clone()));
            let meant = meant_action(&action);
            listed.insert(number.to_string(), json!(["0", &*meant]));
            object.insert(meant.to_string(), json!("[Function]"));
            if let Role::Server { numbers, .. } = &mut self.role {
                numbers.insert(action, number);
            }
        }
        let object = Value::Object(object).to_string();
        write_line("\"methods\"", &[Cow::Owned(object)], &listed, 0, said);
    }
}

/// The one argument of a call, or the list of several; nothing is null.
fn one_of(list: &str, numbers: &[u64]) -> Payload {
    let values: Vec<&RawValue> = serde_json::from_str(list).unwrap_or_default();
    let one = match &values[..] {
        [] => "null",
        [one] => one.get(),
        _ => list,
    };
    payload(one.to_owned(), numbers)
}

/// The arguments of a call without the function that stands before this place, and its number. None if there is no function.
fn without_function(arguments: &Payload, at: usize) -> Option<(Payload, u64)> {
    let json = std::str::from_utf8(&arguments.bytes).ok()?;
    let mut values: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    let at = at.checked_sub(1).filter(|at| *at < values.len())?;
    let function = values.remove(at).get();
    let ids = arguments.callbacks.ids();
    let (_, CallbackId(number)) = ids.iter().enumerate().find(|(index, _)| {
        let mut placeholder = String::new();
        Tree::placeholder(*index).write(&mut placeholder);
        placeholder == function
    })?;
    let values: Vec<_> = values.into_iter().map(RawValue::get).collect();
    // The function stays in the list of functions, as one that stands nowhere: the others keep their places.
    let payload = Payload { bytes: format!("[{}]", values.join(",")).into(), ..arguments.clone() };
    Some((payload, *number))
}

/// A payload with functions of the peer.
fn payload(json: String, numbers: &[u64]) -> Payload {
    let mut payload = Payload::new(Encoding::Json, json);
    payload.callbacks = Callbacks::new(numbers.iter().map(|number| Passed::Lent(CallbackId(*number))));
    payload
}

/// The arguments of a call, with one more: a function of the peer, at its place. None if they are no list.
fn with_argument(arguments: &Payload, at: usize, function: u64) -> Option<Payload> {
    let json = std::str::from_utf8(&arguments.bytes).ok()?;
    let values: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    let mut values: Vec<_> = values.into_iter().map(|value| Cow::Borrowed(value.get())).collect();
    let mut numbers: Vec<_> =
        arguments.callbacks.ids().into_iter().map(|CallbackId(number)| number).collect();
    let mut placeholder = String::new();
    Tree::placeholder(numbers.len()).write(&mut placeholder);
    values.insert(at.min(values.len()), Cow::Owned(placeholder));
    numbers.push(function);
    Some(payload(format!("[{}]", values.join(",")), &numbers))
}

/// The place of the last argument that is a function, and the index of the function.
fn last_function(functions: &[(u64, Vec<String>)], arguments: usize) -> Option<(usize, usize)> {
    let place = |path: &[String]| match path {
        [at] => at.parse::<usize>().ok().filter(|at| *at < arguments),
        _ => None,
    };
    functions.iter().enumerate().filter_map(|(index, (_, path))| Some((place(path)?, index))).max()
}

/// Whether the second result is an error, when the first one is null: an object with a message, and with a name or a code, or with nothing
/// else, which is all that the original keeps of an `Error`.
fn is_failure(error: &str) -> bool {
    let Ok(error) = serde_json::from_str::<HashMap<String, &RawValue>>(error) else { return false };
    let is_text = |key: &str| error.get(key).is_some_and(|value| value.get().starts_with('"'));
    is_text("message") && (error.len() == 1 || is_text("name") || error.contains_key("code"))
}

/// Whether JSON could not be read, as the arguments of a call of dnode are. An action that passes on the error of a call of its own has read
/// its arguments, and is not to run again.
fn is_of_json(error: &CallError) -> bool {
    error.code() == Code::CANNOT_DECODE
        && error.message().starts_with(&format!("not the {} of", Encoding::Json))
}

/// The error of a Node.js function, as a [`CallError`].
fn thrown(error: &str) -> CallError {
    CallError::of_thrown(Payload::new(Encoding::Json, error.to_owned()))
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
        self.take_back(said);
        // Nothing runs before the bind is answered: until then the bytes wait, and the reader stops reading.
        while !matches!(self.role, Role::Server { bound: false, .. }) {
            let end = bytes[self.scanned..].iter().position(|byte| *byte == b'\n');
            let end = end.map(|end| std::mem::take(&mut self.scanned) + end + 1);
            if let Some(unread) = &mut self.unread {
                let passing = bytes.split_to(end.unwrap_or(bytes.len()));
                unread.len += passing.len();
                unread.skim.pass(&passing);
                if unread.len > FOREIGN_UNREAD_LEN_MAX {
                    return Err(too_long(unread.len, FOREIGN_UNREAD_LEN_MAX));
                }
                if end.is_none() {
                    self.scanned = 0;
                    return Ok(());
                }
                if let Some(Unread { skim, len }) = self.unread.take() {
                    let what = format!("a line of {len} bytes, and {LINE_LEN_MAX} are read");
                    let error = CallError::new(Code::FRAME_TOO_LARGE, Fate::NotSent, what);
                    self.not_read(&skim, &error, said);
                }
            } else {
                // A line is an object. Bytes of another protocol may never end a line.
                let mut start = bytes.iter().take(START_LEN).skip_while(|byte| byte.is_ascii_whitespace());
                if start.next().is_some_and(|byte| *byte != b'{') {
                    let what = spoken(bytes).map(|spoken| format!("it looks like {spoken}"));
                    return Err(malformed(what.unwrap_or_else(|| "a line is an object".to_owned())));
                }
                if end.unwrap_or(bytes.len()) > LINE_LEN_MAX {
                    self.scanned = 0;
                    self.unread = Some(Unread { skim: skim(), len: 0 });
                    continue;
                }
                let Some(end) = end else {
                    self.scanned = bytes.len();
                    return Ok(());
                };
                let line = bytes.split_to(end);
                if !line.iter().all(u8::is_ascii_whitespace) {
                    self.hear_line(&line, now, said)?;
                }
            }
            if said.is_enough() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn features(&self) -> Features {
        Features::STREAMS
    }

    fn near_knows(&mut self, features: Features) {
        self.near_has_streams = features.contains(Features::STREAMS);
    }

    fn left(&mut self, said: &mut Said) {
        for (callback_id, grant) in self.reads.left() {
            said.frames.push(Frame::Granted(Granted { callback_id, grant }));
        }
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
                    said.frames.extend(registers(more, |_| calls.open(Waiter::Nobody, now)));
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
            Frame::Response(Response { callback_id, outcome }) => {
                if self.reads.find(callback_id).is_some() {
                    self.read_to_its_end(callback_id, outcome, said);
                } else {
                    let waiter = self.calls.settle(callback_id);
                    self.answered(waiter, outcome, now, said);
                }
            }
            Frame::Started(callback_id) => self.begins(callback_id),
            Frame::Item(ItemFrame { callback_id, payload }) => self.item(callback_id, &payload, said),
            Frame::Granted(Granted { callback_id, grant }) => {
                self.makes.granted(callback_id, grant);
                self.flow(callback_id, said);
            }
            Frame::OpenStream(OpenStream { grant, request }) => {
                self.request(request, Wants::Stream(grant), said);
            }
            Frame::Request(request) => self.request(request, Wants::Result, said),
            Frame::Invoke(Invoke { function, callback_id, wants, payload, .. }) => {
                self.call(function.0, callback_id, wants, &payload, 0, said);
            }
            Frame::Cancel(callback_id) => {
                if let Some(each) = self.makes.drop(callback_id) {
                    self.targets.remove(&each);
                }
                self.forget_result(callback_id);
            }
            // A function of the peer that the mesh holds no more stays with the peer, as with the original on the Node.js of today: the
            // peer may pass it again at any moment, under the number that it has, and a `cull` on its way would lose that call.
            _ => {}
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant, said: &mut Said) {
        while let Some((callback_id, waiter)) = self.calls.expired(now) {
            said.frames.push(Frame::Cancel(callback_id));
            let late = too_late(self.calls.within());
            // The function that is an argument was taken as one: the action is running.
            let waiter = Some(waiter).filter(|waiter| !matches!(waiter, Waiter::Argument { .. }));
            self.answered(waiter, Err(late), now, said);
        }
        self.take_back(said);
    }
}

/// How many of its first bytes tell that a line is none.
const START_LEN: usize = 64;

fn too_long(claimed: usize, max: usize) -> DialectError {
    DialectError::TooLong { dialect: DIALECT, claimed, max }
}

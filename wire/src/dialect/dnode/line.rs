//! The lines of dnode: their parts, and the paths and links in them. The cost of a line is bounded here.

use super::tree::{Steps, TooMuch, Tree, at, put, put_or_add};
use crate::dialect::json::{Skim, depth, marked_numbers};
use crate::dialect::said::{DialectError, Said};
use crate::error::{Code, Fate};
use crate::limits::{CALLBACKS_PER_REQUEST_MAX, DEPTH_MAX, FRAME_LEN_MAX, HEAD_RESERVE_LEN};
use crate::payload::CallError;
use bytes::BufMut;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;

pub(super) const DIALECT: &str = "dnode";

/// The longest line that is read, in bytes: it fits into a frame.
pub(super) const LINE_LEN_MAX: usize = FRAME_LEN_MAX - HEAD_RESERVE_LEN;

/// How many values a line may repeat by links: a link takes a few bytes and may name a value of any size. The bytes of all repeated
/// values together are bounded by [`LINE_LEN_MAX`].
const LINKS_MAX: usize = 1_024;

/// How much memory the values of a line may take, in units of about 32 bytes. A value in a list takes one unit.
const COST_MAX: usize = 4 * 1024 * 1024;
/// The cost of an object, in the units of [`COST_MAX`]: each entry of a list of objects takes more memory than bytes.
const OBJECT_COST: usize = 20;

/// The parts of a line that is not read which are needed to answer it.
const OF_UNREAD: &[&[&str]] = &[&["method"], &["callbacks"]];

/// A line, as far as it can be read.
pub(super) struct Line<'a> {
    pub(super) method: Value,
    /// The arguments, as JSON.
    pub(super) arguments: Vec<&'a str>,
    /// The functions in the arguments: the number and the path of each.
    pub(super) functions: Vec<(u64, Vec<String>)>,
    pub(super) links: Vec<Link>,
    /// Over how many hops a call came: said by a dialect of ours, as the original ignores it.
    pub(super) hops: u8,
}

/// Why a line is not read.
pub(super) enum NotRead {
    /// It is no line of dnode.
    NoLine(DialectError),
    /// It has too many values.
    TooMuch(String),
}

#[derive(Deserialize)]
struct Parts<'a> {
    method: Value,
    /// Each argument stays as it was written.
    #[serde(borrow, default)]
    arguments: Vec<&'a RawValue>,
    #[serde(default)]
    callbacks: Option<Map<String, Value>>,
    #[serde(default)]
    links: Option<Vec<Link>>,
    #[serde(default)]
    hops: Option<Value>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Link {
    from: Vec<Value>,
    to: Vec<Value>,
}

/// Reads a line.
pub(super) fn read_line(line: &[u8]) -> Result<Line<'_>, NotRead> {
    if cost(line) > COST_MAX {
        return Err(NotRead::TooMuch("the line has too many values".to_owned()));
    }
    let no_line = |what| NotRead::NoLine(malformed(what));
    let Parts { method, arguments, callbacks, links, hops } =
        serde_json::from_slice(line).map_err(|error| no_line(error.to_string()))?;
    let functions = functions_of(callbacks.into_iter().flatten()).map_err(no_line)?;
    let arguments = arguments.into_iter().map(RawValue::get).collect();
    let links = links.unwrap_or_default();
    let hops = hops.and_then(|hops| u8::try_from(hops.as_u64()?).ok()).unwrap_or_default();
    Ok(Line { method, arguments, functions, links, hops })
}

fn functions_of(callbacks: impl Iterator<Item = (String, Value)>) -> Result<Vec<(u64, Vec<String>)>, String> {
    let mut functions = Vec::new();
    for (number, path) in callbacks {
        let number = number.parse().map_err(|_| format!("a function has number {number:?}"))?;
        functions.push((number, path_of(&path).ok_or("a path is a list")?));
    }
    functions.sort_unstable();
    Ok(functions)
}

pub(super) fn malformed(what: String) -> DialectError {
    DialectError::Malformed { dialect: DIALECT, what }
}

/// Looks for the parts of a line that is not read.
pub(super) fn skim() -> Skim {
    Skim::new(OF_UNREAD)
}

/// The method and the functions of a line that is not read, as far as they are known.
pub(super) fn skimmed(skim: &Skim) -> (Option<Value>, Vec<(u64, Vec<String>)>) {
    let method = skim.found(0).and_then(|method| serde_json::from_str(method).ok());
    let callbacks = skim.found(1).and_then(|callbacks| serde_json::from_str::<Map<_, _>>(callbacks).ok());
    let functions = functions_of(callbacks.into_iter().flatten()).unwrap_or_default();
    (method, functions)
}

/// Writes a line; `method` and the arguments are JSON. All is ASCII: the original decodes each chunk that it reads by itself, and loses a
/// character that is cut in two.
pub(super) fn write_line(
    method: &str,
    arguments: &[Cow<'_, str>],
    callbacks: &Map<String, Value>,
    hops: u8,
    said: &mut Said,
) {
    let mut put = |json: &str| {
        for character in json.chars() {
            if character.is_ascii() {
                said.bytes.put_u8(character as u8);
                continue;
            }
            for half in character.encode_utf16(&mut [0; 2]) {
                said.bytes.extend_from_slice(format!("\\u{half:04x}").as_bytes());
            }
        }
    };
    put(r#"{"method":"#);
    put(method);
    put(r#","arguments":["#);
    for (at, argument) in arguments.iter().enumerate() {
        if at > 0 {
            put(",");
        }
        put(&marked_numbers(argument));
    }
    put(r#"],"callbacks":"#);
    put(&Value::from_iter(callbacks.iter().map(|(number, path)| (number.clone(), path.clone()))).to_string());
    put(",\"links\":[]");
    if hops > 0 {
        put(&format!(",\"hops\":{hops}"));
    }
    put("}\n");
}

fn path_of(path: &Value) -> Option<Vec<String>> {
    let step = |step: &Value| match step {
        Value::String(step) => Some(step.clone()),
        Value::Number(step) => Some(step.to_string()),
        _ => None,
    };
    path.as_array()?.iter().map(step).collect()
}

/// The arguments of a line as one list of JSON, in which the functions stand as their placeholders, and the numbers of these functions.
/// The argument at the place `without` is left out.
///
/// # Errors
///
/// When functions or links are too many, or the values nest too deeply.
pub(super) fn list_of(
    arguments: &[&str],
    functions: &[(u64, Vec<String>)],
    links: Vec<Link>,
    without: Option<usize>,
) -> Result<(String, Vec<u64>), CallError> {
    if functions.len() > CALLBACKS_PER_REQUEST_MAX {
        let what =
            format!("{} functions are passed, and {CALLBACKS_PER_REQUEST_MAX} may be", functions.len());
        return Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what));
    }
    let cannot_be_read = |what| CallError::new(Code::CANNOT_DECODE, Fate::NotSent, what);
    let too_deep = || format!("the arguments nest deeper than {DEPTH_MAX} levels");
    if arguments.iter().any(|argument| depth(argument) >= DEPTH_MAX) {
        return Err(cannot_be_read(too_deep()));
    }
    if functions.is_empty() && links.is_empty() {
        let kept = arguments.iter().enumerate().filter(|(at, _)| Some(*at) != without);
        let kept: Vec<_> = kept.map(|(_, argument)| *argument).collect();
        return Ok((format!("[{}]", kept.join(",")), Vec::new()));
    }
    let too_much = |why| {
        cannot_be_read(match why {
            TooMuch::Steps => "the paths of functions and links take too many steps".to_owned(),
            TooMuch::Depth => too_deep(),
        })
    };
    let read = arguments.iter().map(|argument| Tree::read(argument)).collect::<Result<Vec<_>, _>>();
    let mut trees = read.map_err(too_much)?;
    let (mut numbers, mut steps) = (Vec::new(), Steps::default());
    for (number, path) in functions {
        let placeholder = Tree::placeholder(numbers.len());
        // A path that leads nowhere passes no function.
        if put(&mut trees, path, placeholder, &mut steps).map_err(too_much)? {
            numbers.push(*number);
        }
    }
    follow(&mut trees, links, &mut steps).map_err(cannot_be_read)?;
    if let Some(without) = without.filter(|without| *without < trees.len()) {
        trees.remove(without);
    }
    let mut json = String::new();
    Tree::List(trees).write(&mut json);
    Ok((json, numbers))
}

/// Copies the values that stand in several places of the arguments. A cycle has no form in JSON, and is refused.
fn follow(arguments: &mut [Tree<'_>], links: Vec<Link>, steps: &mut Steps) -> Result<(), String> {
    if links.len() > LINKS_MAX {
        return Err(format!("{} links, and {LINKS_MAX} are allowed", links.len()));
    }
    let too_much = |_| "the paths of links take too many steps".to_owned();
    let mut left = LINE_LEN_MAX;
    for Link { from, to } in links {
        let (from, to) = (path_of(&Value::Array(from)), path_of(&Value::Array(to)));
        let (Some(from), Some(to)) = (from, to) else {
            return Err("a path is a list of names".to_owned());
        };
        if to.starts_with(&from) {
            return Err(format!("the value at {} holds itself, which only JavaScript can", from.join(".")));
        }
        let Some(value) = at(arguments, &from, steps).map_err(too_much)? else { continue };
        let size = value.size();
        left = left.checked_sub(size.bytes).ok_or("links repeat too much")?;
        if to.len() + size.depth > DEPTH_MAX {
            return Err(format!("links nest deeper than {DEPTH_MAX} levels"));
        }
        let value = value.clone();
        put_or_add(arguments, &to, value, steps).map_err(too_much)?;
    }
    Ok(())
}

/// The memory that the values of a line will take, in the units of [`COST_MAX`], counted before any is made.
fn cost(json: &[u8]) -> usize {
    let (mut cost, mut in_text, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' if !in_text => cost += OBJECT_COST,
            b',' | b'[' if !in_text => cost += 1,
            _ => {}
        }
    }
    cost
}

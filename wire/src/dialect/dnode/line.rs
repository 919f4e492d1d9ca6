//! The lines of dnode: their paths, links and placeholders. The cost of a line is bounded here.

use crate::dialect::said::{DialectError, Said};
use crate::limits::{DEPTH_MAX, FRAME_LEN_MAX, HEAD_RESERVE_LEN};
use crate::value::mend_json;
use bytes::BufMut;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

pub(super) const DIALECT: &str = "dnode";

/// The longest line, in bytes: it fits into a frame.
pub(super) const LINE_LEN_MAX: usize = FRAME_LEN_MAX - HEAD_RESERVE_LEN;

/// How many values a line may repeat by links: a link takes a few bytes and may name a value of any size. The bytes of all repeated
/// values together are bounded by [`LINE_LEN_MAX`].
const LINKS_MAX: usize = 1_024;

/// How much memory the values of a line may take, in units of about 32 bytes. A value in a list takes one unit.
const COST_MAX: usize = 4 * 1024 * 1024;
/// The cost of an object, in the units of [`COST_MAX`]: its map has room for more entries than it holds.
const OBJECT_COST: usize = 20;

/// A line, as far as it can be read.
pub(super) struct Line {
    pub(super) method: Value,
    pub(super) arguments: Vec<Value>,
    /// The functions in the arguments: the number and the path of each.
    pub(super) functions: Vec<(u64, Vec<String>)>,
    pub(super) links: Vec<Link>,
    /// Why an argument could not be read; it stands as null among the arguments.
    pub(super) unreadable: Option<serde_json::Error>,
    /// Over how many hops a call came: said by a dialect of ours, as the original ignores it.
    pub(super) hops: u8,
}

#[derive(Deserialize)]
struct Parts<'a> {
    method: Value,
    /// Each argument is read by itself: a fault in one does not make the line unreadable.
    #[serde(borrow, default)]
    arguments: Vec<&'a RawValue>,
    #[serde(default)]
    callbacks: Option<Map<String, Value>>,
    #[serde(default)]
    links: Option<Vec<Link>>,
    #[serde(default)]
    hops: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct Link {
    from: Vec<Value>,
    to: Vec<Value>,
}

/// Reads a line.
pub(super) fn read_line(line: &[u8]) -> Result<Line, DialectError> {
    if cost(line) > COST_MAX {
        return Err(malformed("a line has too many values".to_owned()));
    }
    let Parts { method, arguments, callbacks, links, hops } =
        serde_json::from_slice(line).map_err(|error| malformed(error.to_string()))?;
    let mut unreadable = None;
    let read = |argument: &RawValue| {
        read_argument(argument.get()).unwrap_or_else(|error| {
            unreadable = Some(error);
            Value::Null
        })
    };
    let arguments = arguments.into_iter().map(read).collect();
    let mut functions = Vec::new();
    for (number, path) in callbacks.into_iter().flatten() {
        let number = number.parse().map_err(|_| malformed(format!("a function has number {number:?}")))?;
        functions.push((number, path_of(&path).ok_or_else(|| malformed("a path is a list".to_owned()))?));
    }
    functions.sort_unstable();
    let hops = hops.and_then(|hops| u8::try_from(hops.as_u64()?).ok()).unwrap_or_default();
    let links = links.unwrap_or_default();
    Ok(Line { method, arguments, functions, links, unreadable, hops })
}

fn malformed(what: String) -> DialectError {
    DialectError::Malformed { dialect: DIALECT, what }
}

fn read_argument(json: &str) -> serde_json::Result<Value> {
    serde_json::from_str(json).or_else(|error| {
        let mended = mend_json(json.as_bytes()).ok_or(error)?;
        serde_json::from_slice(&mended)
    })
}

/// Writes a line in ASCII: the original decodes each chunk that it reads by itself, and loses a character that is cut in two.
pub(super) fn write_line(
    method: &Value,
    arguments: &Value,
    callbacks: &Map<String, Value>,
    hops: u8,
    said: &mut Said,
) {
    let mut line = json!({ "method": method, "arguments": arguments, "callbacks": callbacks, "links": [] });
    if hops > 0 {
        line["hops"] = json!(hops);
    }
    for character in line.to_string().chars() {
        if character.is_ascii() {
            said.bytes.put_u8(character as u8);
            continue;
        }
        for half in character.encode_utf16(&mut [0; 2]) {
            said.bytes.extend_from_slice(format!("\\u{half:04x}").as_bytes());
        }
    }
    said.bytes.put_u8(b'\n');
}

/// The index of a function, if the value is the placeholder of one.
pub(super) fn placeholder(value: &Value) -> Option<usize> {
    let entries = value.as_object().filter(|entries| entries.len() == 1)?;
    usize::try_from(entries.get("$callback")?.as_u64()?).ok()
}

fn path_of(path: &Value) -> Option<Vec<String>> {
    let step = |step: &Value| match step {
        Value::String(step) => Some(step.clone()),
        Value::Number(step) => Some(step.to_string()),
        _ => None,
    };
    path.as_array()?.iter().map(step).collect()
}

fn at<'v>(arguments: &'v mut [Value], path: &[String]) -> Option<&'v mut Value> {
    let (first, rest) = path.split_first()?;
    let first = arguments.get_mut(first.parse::<usize>().ok()?)?;
    rest.iter().try_fold(first, |value, step| match value {
        Value::Array(values) => values.get_mut(step.parse::<usize>().ok()?),
        Value::Object(entries) => entries.get_mut(step),
        _ => None,
    })
}

/// Replaces the value that a path leads to, if there is one.
pub(super) fn put(arguments: &mut [Value], path: &[String], value: Value) {
    if let Some(place) = at(arguments, path) {
        *place = value;
    }
}

/// Copies the values that stand in several places of the arguments. A cycle has no form in JSON: the link that would close it becomes
/// null.
pub(super) fn follow(arguments: &mut [Value], links: Vec<Link>) -> Result<(), DialectError> {
    if links.len() > LINKS_MAX {
        return Err(malformed(format!("{} links, and {LINKS_MAX} are allowed", links.len())));
    }
    let mut left = LINE_LEN_MAX;
    for Link { from, to } in links {
        let (from, to) = (path_of(&Value::Array(from)), path_of(&Value::Array(to)));
        let (Some(from), Some(to)) = (from, to) else {
            return Err(malformed("a path is a list of names".to_owned()));
        };
        if to.starts_with(&from) {
            put(arguments, &to, Value::Null);
            continue;
        }
        let Some(value) = at(arguments, &from) else { continue };
        let Size { bytes, depth } = size(value);
        left = left.checked_sub(bytes).ok_or_else(|| malformed("links repeat too much".to_owned()))?;
        if to.len() + depth > DEPTH_MAX {
            return Err(malformed(format!("links nest deeper than {DEPTH_MAX} levels")));
        }
        let value = value.clone();
        match to.split_last() {
            // The last step of a path may be a key that the object has not yet.
            Some((last, parent)) if !parent.is_empty() => match at(arguments, parent) {
                Some(Value::Object(entries)) => _ = entries.insert(last.clone(), value),
                Some(Value::Array(values)) => match last.parse::<usize>() {
                    Ok(index) if index < values.len() => values[index] = value,
                    _ => {}
                },
                _ => {}
            },
            _ => put(arguments, &to, value),
        }
    }
    Ok(())
}

/// The size of a value and of all values within it.
#[derive(Default)]
struct Size {
    /// An estimate: the bytes of all texts, and 32 for each value.
    bytes: usize,
    depth: usize,
}

fn size(value: &Value) -> Size {
    const EACH: usize = 32;
    let add = |sum: Size, (key, value): (usize, &Value)| {
        let Size { bytes, depth } = size(value);
        Size { bytes: sum.bytes + key + bytes, depth: sum.depth.max(depth + 1) }
    };
    let within = match value {
        Value::Array(values) => values.iter().map(|value| (0, value)).fold(Size::default(), add),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (OBJECT_COST + key.len(), value)).fold(Size::default(), add)
        }
        Value::String(text) => Size { bytes: text.len(), depth: 0 },
        _ => Size::default(),
    };
    Size { bytes: within.bytes + EACH, ..within }
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

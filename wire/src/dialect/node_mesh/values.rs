//! The values of node-mesh: access to their parts, and the conversion between the values of Node.js and those of the mesh, both as MessagePack.
//!
//! A number of Node.js has up to 32 bits as an integer, or is a float, also if it is whole; a `BigInt` is an integer of 64 bits, however small.
//! In the mesh, a whole number of more than 32 bits is an integer too, so that integers of Rust and other programs are numbers of Node.js and
//! back. A `BigInt` keeps its 64 bits, which no other program writes for a number that needs fewer. Only a negative one that a number of Node.js
//! could hold looks like that number: in the mesh it is the extension that msgpackr writes for a longer `BigInt`, an integer to every reader.

use crate::encoding::Encoding;
use crate::payload::Payload;
use crate::value::Value;
use crate::value::packed::{Item, Kind, each_token, item};
use crate::value::{INTEGER, Integer};
use bytes::Bytes;
use bytestring::ByteString;
use std::ops::Range;

impl Value {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let Value::Map(entries) = self else { return None };
        let found = entries.iter().find(|(name, _)| matches!(name, Value::Text(name) if name == key));
        found.map(|(_, value)| value)
    }

    pub(super) fn take(&mut self, key: &str) -> Value {
        let Value::Map(entries) = self else { return Value::Nil };
        let found = entries.iter_mut().find(|(name, _)| matches!(name, Value::Text(name) if name == key));
        found.map_or(Value::Nil, |(_, value)| std::mem::replace(value, Value::Nil))
    }

    pub(super) fn into_text(self) -> String {
        match self {
            Value::Text(text) => text,
            _ => String::new(),
        }
    }

    pub(super) fn into_list(self) -> Vec<Value> {
        match self {
            Value::List(values) => values,
            _ => Vec::new(),
        }
    }

    pub(super) fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    pub(super) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
        Value::Map(entries.into_iter().map(|(key, value)| (Value::text(key), value)).collect())
    }
}

/// Nil in MessagePack.
pub(super) const NIL: &[u8] = &[0xC0];

/// An empty list in MessagePack.
pub(super) const NOTHING: &[u8] = &[0x90];

/// The largest integers that a number of JavaScript tells apart from their neighbours.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// How many elements or entries a list or map has at most whose head can be longer than it needs to be.
const LENGTHENED_MAX: usize = 0xFFFF;

/// The marker of an extension of eight bytes.
const EXTENSION_OF_8: u8 = 0xD7;

/// How many elements or entries a list or map has at most whose head takes one byte.
const SHORT_MAX: usize = 15;

/// The numbers that a value may hold, and that look different in Node.js and in the mesh.
enum Number {
    /// A whole number that Node.js writes as a float and the mesh as an integer.
    Whole(f64),
    /// An integer of more than 32 bits, none of which a float loses.
    Integer { is_negative: bool, value: f64 },
    /// An integer of 64 bits that needs no more than 32 of them, or that no float holds: a `BigInt` wherever it stands.
    Big,
}

fn number(token: &[u8]) -> Option<Number> {
    let (marker, digits) = token.split_first()?;
    let digits: [u8; 8] = digits.try_into().ok()?;
    let is_large = |value: f64| value < f64::from(i32::MIN) || value > f64::from(u32::MAX);
    match marker {
        0xCB => {
            let value = f64::from_be_bytes(digits);
            let is_whole = value.fract() == 0.0 && value.abs() <= SAFE_INTEGER_MAX as f64;
            (is_whole && (value > f64::from(i32::MAX) || value < f64::from(i32::MIN)))
                .then_some(Number::Whole(value))
        }
        0xCF => Some(match u64::from_be_bytes(digits) {
            // Exact, as all casts of integers in this range are.
            value if value <= SAFE_INTEGER_MAX && is_large(value as f64) => {
                Number::Integer { is_negative: false, value: value as f64 }
            }
            _ => Number::Big,
        }),
        0xD3 => Some(match i64::from_be_bytes(digits) {
            value if value < 0 && value.unsigned_abs() <= SAFE_INTEGER_MAX && is_large(value as f64) => {
                Number::Integer { is_negative: true, value: value as f64 }
            }
            _ => Number::Big,
        }),
        _ => None,
    }
}

/// Turns a value as Node.js writes it into the value of the mesh that is meant.
///
/// # Errors
///
/// When the bytes are no value, or nested too deep.
pub(super) fn from_node(value: &[u8]) -> Result<Bytes, String> {
    from_node_as(value, false)
}

/// The value of an event with these arguments: the one argument, or else the list of all. A list that is the one argument is told from a list of
/// all by a head that is longer than it needs to be.
///
/// # Errors
///
/// As [`from_node`].
pub(super) fn event_from_node(arguments: &[u8]) -> Result<Bytes, String> {
    match item(arguments, 0) {
        Some(Item { kind: Kind::List, head, within: 1, .. }) => {
            let only = &arguments[head..];
            match item(only, 0) {
                Some(Item { kind: Kind::List, within, .. }) if within > LENGTHENED_MAX => {
                    from_node_as(arguments, false)
                }
                Some(Item { kind: Kind::List, .. }) => from_node_as(only, true),
                _ => from_node_as(only, false),
            }
        }
        _ => from_node_as(arguments, false),
    }
}

/// The value of the mesh. That of a list which is the only argument of an event has a longer head.
fn from_node_as(value: &[u8], is_only_argument: bool) -> Result<Bytes, String> {
    let mut ours = Vec::with_capacity(value.len() + 8);
    let mut at_start = true;
    each_token(value, |token, item| {
        if std::mem::take(&mut at_start) && matches!(item.kind, Kind::List | Kind::Map) {
            return put_head(token, item, is_only_argument, &mut ours);
        }
        match number(token) {
            Some(Number::Whole(value)) if value > 0.0 => put_unsigned(value as u64, &mut ours),
            Some(Number::Whole(value)) => {
                ours.push(0xD3);
                ours.extend_from_slice(&(value as i64).to_be_bytes());
            }
            // A `BigInt` that is not negative: its own form tells it from an integer, which is unsigned.
            Some(Number::Integer { is_negative: false, value }) => {
                ours.push(0xD3);
                ours.extend_from_slice(&(value as i64).to_be_bytes());
            }
            Some(Number::Integer { is_negative: true, value }) => {
                ours.extend_from_slice(&[EXTENSION_OF_8, INTEGER as u8]);
                ours.extend_from_slice(&(value as i64).to_be_bytes());
            }
            _ => ours.extend_from_slice(token),
        }
    })?;
    Ok(ours.into())
}

/// Turns a value of the mesh into one that Node.js reads as it is meant: it would read an integer of 64 bits as a `BigInt`, which it cannot add to
/// other numbers. Integers beyond the exact range of a JavaScript number stay as they are.
///
/// # Errors
///
/// When the bytes are no value, or nested too deep.
pub(super) fn to_node(value: &[u8]) -> Result<Vec<u8>, String> {
    let mut theirs = Vec::with_capacity(value.len() + 8);
    let (mut at_start, mut is_too_wide) = (true, false);
    each_token(value, |token, item| {
        let is_head = matches!(item.kind, Kind::List | Kind::Map);
        if std::mem::take(&mut at_start) && is_head {
            return put_head(token, item, false, &mut theirs);
        }
        if let Some(bytes) = long_integer(token) {
            match Integer::of_bytes(bytes) {
                Some(integer) => is_too_wide |= !put_big(integer, &mut theirs),
                None => is_too_wide = true,
            }
            return;
        }
        match number(token) {
            Some(Number::Integer { value, .. }) => {
                theirs.push(0xCB);
                theirs.extend_from_slice(&value.to_be_bytes());
            }
            _ => theirs.extend_from_slice(token),
        }
    })?;
    if is_too_wide {
        return Err("programs of node-mesh read no integer of more than 64 bits: send it as text".to_owned());
    }
    Ok(theirs)
}

/// The bytes of an integer that is an extension in MessagePack. The original stops reading at an extension that it does not know.
fn long_integer(token: &[u8]) -> Option<&[u8]> {
    let (kind, bytes) = match token {
        [0xD4..=0xD8, kind, bytes @ ..]
        | [0xC7, _, kind, bytes @ ..]
        | [0xC8, _, _, kind, bytes @ ..]
        | [0xC9, _, _, _, _, kind, bytes @ ..] => (*kind, bytes),
        _ => return None,
    };
    (kind == INTEGER as u8).then_some(bytes)
}

/// Writes a `BigInt` of 64 bits; `false` if the integer needs more.
fn put_big(integer: Integer, bytes: &mut Vec<u8>) -> bool {
    let (marker, digits) = match integer {
        Integer::Unsigned(value) => (0xCF, u64::try_from(value).ok().map(u64::to_be_bytes)),
        Integer::Negative(value) => (0xD3, i64::try_from(value).ok().map(i64::to_be_bytes)),
    };
    let Some(digits) = digits else { return false };
    bytes.push(marker);
    bytes.extend_from_slice(&digits);
    true
}

/// The list of arguments that a value of the mesh is in a request: a list stays as it is, nil is an empty list, any other value is a list of one.
///
/// # Errors
///
/// As [`to_node`].
pub(super) fn arguments_to_node(value: &[u8]) -> Result<Vec<u8>, String> {
    match item(value, 0) {
        Some(Item { kind: Kind::List, .. }) => to_node(value),
        _ if value == NIL => Ok(NOTHING.to_vec()),
        _ => Ok([&[0x91], &to_node(value)?[..]].concat()),
    }
}

/// The list of arguments that a value of the mesh is in an event: a list stays as it is unless it is the only argument, any other value is a list
/// of one.
///
/// # Errors
///
/// As [`to_node`].
pub(super) fn event_to_node(value: &[u8]) -> Result<Vec<u8>, String> {
    let is_all = match item(value, 0) {
        Some(Item { kind: Kind::List, head, within, .. }) => head == head_len(within),
        _ => false,
    };
    if is_all { to_node(value) } else { Ok([&[0x91], &to_node(value)?[..]].concat()) }
}

/// How many elements a list has, or entries a map.
fn count(item: &Item) -> usize {
    if item.kind == Kind::Map { item.within / 2 } else { item.within }
}

/// How long the head of a list or a map of so many elements or entries need be.
fn head_len(count: usize) -> usize {
    match count {
        _ if count <= SHORT_MAX => 1,
        _ if count <= LENGTHENED_MAX => 3,
        _ => 5,
    }
}

/// Writes the head of a list or a map: as short as it can be, or longer. That of a map stays as it is: msgpackr writes longer ones than it
/// needs.
fn put_head(token: &[u8], item: &Item, longer: bool, bytes: &mut Vec<u8>) {
    let (count, is_map) = (count(item), item.kind == Kind::Map);
    if is_map && item.head < 5 {
        return bytes.extend_from_slice(token);
    }
    let len = match head_len(count) {
        len if !longer => len,
        1 => 3,
        _ => 5,
    };
    match len {
        1 => bytes.push(if is_map { 0x80 } else { 0x90 } | count as u8),
        3 => {
            bytes.push(if is_map { 0xDE } else { 0xDC });
            bytes.extend_from_slice(&(count as u16).to_be_bytes());
        }
        _ => {
            bytes.push(if is_map { 0xDF } else { 0xDD });
            // A count has been read from four bytes at most.
            bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

fn put_unsigned(value: u64, bytes: &mut Vec<u8>) {
    match u32::try_from(value) {
        Ok(value) => {
            bytes.push(0xCE);
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0xCF);
            bytes.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// The part of a map that stands under a key; nil if there is none.
pub(super) fn part(map: &Bytes, found: Option<&Range<usize>>) -> Bytes {
    found.map_or(Bytes::from_static(NIL), |range| map.slice(range.clone()))
}

/// A value, to be looked into.
pub(super) fn read(value: &Bytes) -> Value {
    Payload::new(Encoding::MessagePack, value.clone()).decode().unwrap_or(Value::Nil)
}

/// A value of few parts, as MessagePack.
pub(super) fn pack(value: &Value) -> Payload {
    // Every value has a form in MessagePack.
    Payload::encode(Encoding::MessagePack, value).unwrap_or_default()
}

pub(super) fn names(list: Value) -> impl Iterator<Item = ByteString> {
    list.into_list().into_iter().filter_map(|name| match name {
        Value::Text(name) => Some(ByteString::from(name)),
        _ => None,
    })
}

//! The values of node-mesh: access to their parts, and the conversion between the values of Node.js and [`Value`].

use crate::encoding::Encoding;
use crate::error::{Code, Fate};
use crate::payload::{CallError, Payload};
use crate::value::Value;
use bytestring::ByteString;

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

    /// Changes this value and each value within, from the inside out.
    pub(super) fn each(&mut self, change: &impl Fn(&mut Value)) {
        match self {
            Value::List(values) => values.iter_mut().for_each(|value| value.each(change)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.each(change)),
            _ => {}
        }
        change(self);
    }

    pub(super) fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    pub(super) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
        Value::Map(entries.into_iter().map(|(key, value)| (Value::text(key), value)).collect())
    }
}

/// The largest integers that a number of JavaScript tells apart from their neighbours.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// The bytes that msgpackr writes for `undefined`.
const UNDEFINED: (i8, [u8; 1]) = (0, [0]);

/// Turns a value as Node.js writes it into the value that is meant: Node.js writes integers of more than 32 bits as floats, and
/// `undefined` as an extension.
pub(super) fn from_node(value: &mut Value) {
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

/// Turns a value into one that Node.js reads as a number: it would read an integer of 64 bits as a `BigInt`, which it cannot add to
/// other numbers. Integers beyond the exact range of a JavaScript number stay as they are.
pub(super) fn to_node(value: &mut Value) {
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

/// An integer of more than 64 bits is an extension in MessagePack, and the original stops reading at an extension that it does not know.
pub(super) fn check_integers(value: &Value) -> Result<(), CallError> {
    match value {
        Value::Unsigned128(_) | Value::Signed128(_) => {
            let why = "programs of node-mesh read no integer of more than 64 bits: send it as text";
            Err(CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, why))
        }
        Value::List(values) => values.iter().try_for_each(check_integers),
        Value::Map(entries) => entries
            .iter()
            .try_for_each(|(key, value)| check_integers(key).and_then(|()| check_integers(value))),
        _ => Ok(()),
    }
}

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

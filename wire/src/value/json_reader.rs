//! Reads JSON. serde_json reads a number as a float where 64 bits do not hold it, unless a feature of it is on that changes it for the
//! whole program; it also takes the last of two equal keys. So JSON is read here:
//!
//! - an integer has all its digits, or is an error;
//! - a float may be one of the texts `"NaN"`, `"Infinity"` and `"-Infinity"`, where a float is expected;
//! - the key of an object is read as the type that the map has for its keys: see `json_writer.rs` for their texts;
//! - a key that comes twice is an error;
//! - half of a character, as a text of JavaScript may have, becomes U+FFFD, as Node.js makes of it when it writes text as bytes.
//!
//! How deep values are nested is bounded by the caller, through the seed. Every byte is looked at once.

use crate::value::any::Value;
use crate::value::distinct::Distinct;
use crate::value::extension::{Integer, visit_integer};
use crate::value::json_writer::{JsonError, JsonWriter, RAW};
use crate::value::number::{Float, float_of, float_of_decimal, float_of_integer, no_float_of_integer, shown};
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use std::borrow::Cow;
use std::marker::PhantomData;

/// Reads all of the bytes. An error says where it was found.
pub(super) fn read_json<'de, S: DeserializeSeed<'de>>(bytes: &[u8], seed: S) -> Result<S::Value, String> {
    let bytes = without_byte_order_mark(bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("JSON is text in UTF-8, and byte {} is none", error.valid_up_to() + 1))?;
    let mut reader = JsonReader::new(text);
    let read = seed.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| {
        let before = &text[..reader.at.min(text.len())];
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
        format!("{error} at line {line} column {column}")
    })
}

/// Some editors write this mark, which is no part of JSON, at the start of a file.
pub(super) fn without_byte_order_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

struct JsonReader<'t> {
    text: &'t str,
    /// How many bytes have been read: always the start of a character.
    at: usize,
}

/// A number as it stands in the text.
enum Number<'t> {
    Integer(&'t str),
    Decimal(&'t str),
}

impl<'t> JsonReader<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn end(&mut self) -> Result<(), JsonError> {
        if self.peek().is_none() { Ok(()) } else { Err(JsonError::custom("more follows the value")) }
    }

    /// What stands here, where `expected` should.
    #[cold]
    fn unexpected(&self, expected: &str) -> JsonError {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) => Error::custom(format_args!("found {found:?}, expected {expected}")),
            None => Error::custom(format_args!("the end was found, expected {expected}")),
        }
    }

    fn expect(&mut self, byte: u8, expected: &str) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.unexpected(expected));
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected("a value of JSON, where text has quotes"));
        }
        self.at += word.len();
        Ok(())
    }

    /// A text, from its first quote on.
    fn string(&mut self) -> Result<Cow<'t, str>, JsonError> {
        self.expect(b'"', "a text in quotes")?;
        let mut start = self.at;
        let mut text = Cow::Borrowed("");
        loop {
            match self.byte() {
                None => return Err(Error::custom("a text has no end: its last quote is missing")),
                Some(b'"') => {
                    let rest = &self.text[start..self.at];
                    self.at += 1;
                    if text.is_empty() {
                        return Ok(Cow::Borrowed(rest));
                    }
                    text.to_mut().push_str(rest);
                    return Ok(text);
                }
                Some(b'\\') => {
                    let text = text.to_mut();
                    text.push_str(&self.text[start..self.at]);
                    text.push(self.escape()?);
                    start = self.at;
                }
                Some(0..=0x1F) => {
                    return Err(Error::custom(
                        "a text has a control character: write it as an escape such as \\n",
                    ));
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let escape = self.text.as_bytes().get(self.at + 1).copied();
        let character = match escape {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let half = self.unit().ok_or_else(|| JsonError::custom("four hex digits follow \\u"))?;
                let Some(character) = char::from_u32(u32::from(half)) else {
                    let at = self.at;
                    if (0xD800..=0xDBFF).contains(&half)
                        && let Some(low @ 0xDC00..=0xDFFF) = self.unit()
                    {
                        let both = 0x1_0000 + (u32::from(half & 0x3FF) << 10) + u32::from(low & 0x3FF);
                        return Ok(char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.at = at;
                    return Ok(char::REPLACEMENT_CHARACTER);
                };
                return Ok(character);
            }
            _ => return Err(Error::custom("a text has an unknown escape: a backslash is written as \\\\")),
        };
        self.at += 2;
        Ok(character)
    }

    /// The unit of UTF-16 that an escape writes, such as `\u00e9`.
    fn unit(&mut self) -> Option<u16> {
        let escape = self.text.get(self.at..self.at + 6)?;
        let digits =
            escape.strip_prefix("\\u").filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()))?;
        self.at += 6;
        u16::from_str_radix(digits, 16).ok()
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Number<'t>, JsonError> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let first = self.at;
        self.digits()?;
        if self.at > first + 1 && self.text.as_bytes()[first] == b'0' {
            return Err(Error::custom("a number begins with a 0 that does not count"));
        }
        let mut is_integer = true;
        if self.byte() == Some(b'.') {
            is_integer = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            is_integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        let number = &self.text[start..self.at];
        // The zero that is less than zero is a float.
        Ok(if is_integer && number != "-0" { Number::Integer(number) } else { Number::Decimal(number) })
    }

    fn visit_number<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        match self.number()? {
            Number::Integer(digits) => visit_integer(integer(digits)?, visitor),
            Number::Decimal(number) => {
                visitor.visit_f64(float_of_decimal(number).map_err(JsonError::custom)?)
            }
        }
    }

    fn float<F: Float>(&mut self) -> Result<F, JsonError> {
        match self.number()? {
            Number::Integer(digits) => {
                float_of_integer(digits).ok_or_else(|| Error::custom(no_float_of_integer(&shown(digits))))
            }
            Number::Decimal(number) => float_of_decimal(number).map_err(Error::custom),
        }
    }

    /// The JSON of the value that stands here.
    fn raw(&mut self) -> Result<&'t str, JsonError> {
        self.peek();
        let mut reader = serde_json::Deserializer::from_str(&self.text[self.at..]);
        let raw = <&serde_json::value::RawValue>::deserialize(&mut reader)?.get();
        self.at += raw.len();
        Ok(raw)
    }
}

/// The integer with these digits.
fn integer(digits: &str) -> Result<Integer, JsonError> {
    let parsed = match digits.parse() {
        Ok(value) => Some(Integer::Unsigned(value)),
        Err(_) => digits.parse().ok().map(Integer::signed),
    };
    parsed.ok_or_else(|| {
        Error::custom(format_args!("no integer type holds {}: the largest have 128 bits", shown(digits)))
    })
}

macro_rules! deserialize_float {
    ($($method:ident $visit:ident: $float:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            match self.peek() {
                Some(b'-' | b'0'..=b'9') => visitor.$visit(self.float::<$float>()?),
                Some(b'"') => {
                    let text = self.string()?;
                    match float_of(&text) {
                        Some(float) => visitor.visit_f64(float),
                        None => visitor.visit_str(&text),
                    }
                }
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut JsonReader<'_> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.peek() {
            Some(b'n') => {
                self.word("null")?;
                visitor.visit_unit()
            }
            Some(b't') => {
                self.word("true")?;
                visitor.visit_bool(true)
            }
            Some(b'f') => {
                self.word("false")?;
                visitor.visit_bool(false)
            }
            Some(b'"') => match self.string()? {
                Cow::Borrowed(text) => visitor.visit_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            Some(b'-' | b'0'..=b'9') => self.visit_number(visitor),
            Some(b'[') => {
                self.at += 1;
                let value = visitor.visit_seq(Elements { reader: self, is_first: true })?;
                self.expect(b']', "the end of the list, which has more elements than the type takes")?;
                Ok(value)
            }
            Some(b'{') => {
                self.at += 1;
                let entries = Entries { reader: self, keys: Distinct::new(), is_first: true };
                let value = visitor.visit_map(entries)?;
                self.expect(b'}', "the end of the object, which has more entries than the type takes")?;
                Ok(value)
            }
            _ => Err(self.unexpected("a value of JSON, where text has quotes")),
        }
    }

    deserialize_float! {
        deserialize_f32 visit_f32: f32;
        deserialize_f64 visit_f64: f64;
    }

    /// A text is its bytes, where bytes are expected.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.peek() == Some(b'"') {
            return visitor.visit_bytes(self.string()?.as_bytes());
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.peek() == Some(b'n') {
            self.word("null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        if name == RAW {
            let raw = self.raw()?;
            return visitor.visit_map(RawValue::new(raw));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self.peek() {
            Some(b'"') => visitor.visit_enum(unit_variant(&self.string()?)),
            Some(b'{') => {
                self.at += 1;
                self.peek();
                let value = visitor.visit_enum(Variant { reader: self })?;
                self.expect(b'}', "the end of the object: a variant is its only entry")?;
                Ok(value)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}

fn unit_variant(name: &str) -> StrDeserializer<'_, JsonError> {
    name.into_deserializer()
}

struct Elements<'r, 't> {
    reader: &'r mut JsonReader<'t>,
    is_first: bool,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = JsonError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, JsonError> {
        match self.reader.peek() {
            Some(b']') => return Ok(None),
            Some(b',') if !self.is_first => {
                self.reader.at += 1;
                if self.reader.peek() == Some(b']') {
                    return Err(self.reader.unexpected("an element after the comma"));
                }
            }
            _ if self.is_first => {}
            _ => return Err(self.reader.unexpected("a comma or the end of the list")),
        }
        self.is_first = false;
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

struct Entries<'r, 't> {
    reader: &'r mut JsonReader<'t>,
    keys: Distinct<Cow<'t, str>>,
    is_first: bool,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = JsonError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, JsonError> {
        match self.reader.peek() {
            Some(b'}') => return Ok(None),
            Some(b',') if !self.is_first => {
                self.reader.at += 1;
                if self.reader.peek() == Some(b'}') {
                    return Err(self.reader.unexpected("a key after the comma"));
                }
            }
            _ if self.is_first => {}
            _ => return Err(self.reader.unexpected("a comma or the end of the object")),
        }
        self.is_first = false;
        if self.reader.peek() != Some(b'"') {
            return Err(self.reader.unexpected("a key in quotes"));
        }
        let key = self.reader.string()?;
        if !self.keys.insert(key.clone()) {
            return Err(Error::custom(format_args!("the key {:?} comes twice in one object", shown(&key))));
        }
        seed.deserialize(Key(&key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, JsonError> {
        self.reader.expect(b':', "a colon after the key")?;
        seed.deserialize(&mut *self.reader)
    }
}

/// An object with one entry, whose key is the name of a variant.
struct Variant<'r, 't> {
    reader: &'r mut JsonReader<'t>,
}

impl<'de> EnumAccess<'de> for Variant<'_, '_> {
    type Error = JsonError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), JsonError> {
        if self.reader.peek() != Some(b'"') {
            return Err(self.reader.unexpected("the name of a variant in quotes"));
        }
        let name = self.reader.string()?;
        let variant = seed.deserialize(Key(&name))?;
        self.reader.expect(b':', "a colon after the key")?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, '_> {
    type Error = JsonError;

    fn unit_variant(self) -> Result<(), JsonError> {
        Deserialize::deserialize(self.reader)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, JsonError> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.reader.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.reader.deserialize_any(visitor)
    }
}

/// The JSON of a value, for a type of serde_json that keeps it as it is.
pub(super) struct RawValue<'t, E> {
    raw: Option<&'t str>,
    error: PhantomData<E>,
}

impl<'t, E> RawValue<'t, E> {
    pub(super) fn new(raw: &'t str) -> Self {
        Self { raw: Some(raw), error: PhantomData }
    }
}

impl<'de, E: Error> MapAccess<'de> for RawValue<'_, E> {
    type Error = E;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, E> {
        if self.raw.is_none() {
            return Ok(None);
        }
        seed.deserialize(RAW.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, E> {
        seed.deserialize(self.raw.take().unwrap_or("null").into_deserializer())
    }
}

/// The key of an object, as the type that the map has for its keys: a text is itself, anything else is read from its text.
pub(super) struct Key<'k>(pub(super) &'k str);

impl<'k> Key<'k> {
    /// Reads the key as JSON, which all of it must be.
    fn read<T>(
        &self,
        read: impl FnOnce(&mut JsonReader<'k>) -> Result<T, JsonError>,
    ) -> Result<T, JsonError> {
        let mut reader = JsonReader::new(self.0);
        let value = read(&mut reader)?;
        if reader.at < self.0.len() {
            return Err(reader.unexpected("the end of the key"));
        }
        Ok(value)
    }

    /// Reads the key as the JSON of several values. It must be the JSON that is written here: two keys with other blanks or digits would
    /// be one to the type, and one of the two entries would be lost.
    fn read_compound<T>(
        &self,
        read: impl FnOnce(&mut JsonReader<'k>) -> Result<T, JsonError>,
    ) -> Result<T, JsonError> {
        let value = self.read(read)?;
        // The type has bounded how deep it is.
        let again: Value = self.read(|reader| Value::deserialize(reader))?;
        let mut right = Vec::new();
        again.serialize(&mut JsonWriter::new(&mut right))?;
        if right != self.0.as_bytes() {
            let right = String::from_utf8_lossy(&right);
            return Err(Error::custom(format_args!("the key {:?} must be written {right:?}", self.0)));
        }
        Ok(value)
    }

    fn begins_as(&self, bytes: &[u8]) -> bool {
        self.0.as_bytes().first().is_some_and(|first| bytes.contains(first))
    }

    fn visit_compound<'de, V: Visitor<'de>>(self, visitor: V, open: u8) -> Result<V::Value, JsonError> {
        if self.begins_as(&[open]) {
            return self.read_compound(|reader| reader.deserialize_any(visitor));
        }
        visitor.visit_str(self.0)
    }

    /// The float whose text the key is, and no other text of the float, for the reason of `read_compound`.
    fn float<F: Float + Serialize>(&self) -> Option<F> {
        let float: F = self.begins_as(b"-0123456789").then(|| self.read(JsonReader::float).ok()).flatten()?;
        serde_json::to_string(&float).is_ok_and(|right| right == self.0).then_some(float)
    }
}

macro_rules! deserialize_integer_key {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            match self.begins_as(b"-0123456789").then(|| self.read(JsonReader::number)) {
                Some(Ok(Number::Integer(digits))) => visit_integer(integer(digits)?, visitor),
                _ => visitor.visit_str(self.0),
            }
        }
    )*};
}

macro_rules! deserialize_compound_key {
    ($($method:ident($($arg:ident: $type:ty),*) $open:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, JsonError> {
            self.visit_compound(visitor, $open)
        }
    )*};
}

impl<'de> Deserializer<'de> for Key<'_> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_str(self.0)
    }

    deserialize_integer_key! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    deserialize_compound_key! {
        deserialize_bytes() b'[';
        deserialize_byte_buf() b'[';
        deserialize_seq() b'[';
        deserialize_tuple(_len: usize) b'[';
        deserialize_tuple_struct(_name: &'static str, _len: usize) b'[';
        deserialize_map() b'{';
        deserialize_struct(_name: &'static str, _fields: &'static [&'static str]) b'{';
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            text => visitor.visit_str(text),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match (float_of(self.0), self.float()) {
            (Some(float), _) => visitor.visit_f64(float),
            (None, Some(float)) => visitor.visit_f32(float),
            (None, None) => visitor.visit_str(self.0),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match float_of(self.0).or_else(|| self.float()) {
            Some(float) => visitor.visit_f64(float),
            None => visitor.visit_str(self.0),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.0 == "null" { visitor.visit_unit() } else { visitor.visit_str(self.0) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_unit(visitor)
    }

    /// `None` is the key `null`, and `Some` of a text that is `null` is not written.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.0 == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        if name == RAW {
            return Err(Error::invalid_type(Unexpected::Str(self.0), &visitor));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        if self.begins_as(b"{") && !variants.contains(&self.0) {
            return self.read_compound(|reader| reader.deserialize_enum(name, variants, visitor));
        }
        visitor.visit_enum(unit_variant(self.0))
    }

    forward_to_deserialize_any! { char str string identifier ignored_any }
}

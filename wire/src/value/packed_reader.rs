//! MessagePack, read: structs and variants by their names or by their places, and values that another type, another language or JSON wrote.
//! Read here and not by a library for the reason of `packed_writer.rs`. What is read is what rmp-serde reads, which the tests hold it
//! against, but for:
//!
//! - An integer of 128 bits is read from any integer that it holds, with its sign: see `packed_writer.rs` for its form. Versions before
//!   wrote 16 bytes, which are read too.
//! - An integer of 64 bits or more is read from a whole float that has more than 32 bits, too.
//! - An integer is read as a float that holds it exactly, or not at all; a float of 64 bits is no infinity of 32 bits.
//! - A date is its text, and an integer of more than 64 bits an integer, to every type but [`Value`](super::Value), which keeps both.
//! - What came from JSON has texts in place of floats that are no numbers, and of keys that are no texts: such texts are read where a
//!   number or a key is expected, but only when the bytes are no value of the type otherwise. So they cost other values nothing.

use crate::copy::copy_of;
use crate::limits::{DEPTH_MAX, EMPTY_ELEMENTS_MAX};
use crate::value::any::Value;
use crate::value::extension::{EXTENSION, INTEGER, Integer, TIMESTAMP, VALUE, date, visit_integer};
use crate::value::json_reader::{Key, RawValue};
use crate::value::json_writer::{JsonError, JsonWriter, RAW};
use crate::value::number::text_of;
use crate::value::packed_visitors::{FloatVisitor, KeyVisitor, LongVisitor, Wide, WideVisitor};
use crate::value::writer::{CodecError, too_deep, too_many_elements};
use serde::de::value::SeqDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use std::marker::PhantomData;

/// The bytes of MessagePack that are still to be read, and the bounds of the value. The bounds are those of [`super::bounded`]: no type
/// recurses deeper, none is given more elements, and none makes more room, than the bytes are good for.
pub(super) struct PackedBytes<'de> {
    rest: &'de [u8],
    /// How many lists, maps, newtypes, enums, `Some`s and extensions may still begin within each other.
    depth_left: usize,
    /// How many elements and entries lists and maps may still claim.
    elements_left: usize,
    elements_max: usize,
    /// Whether types that know two forms are read from the one for people.
    is_readable: bool,
    /// Whether texts stand for floats and keys, as JSON has them.
    texts: bool,
    /// Whether a byte string is handed over as a list of numbers, and whether there was one.
    bytes_as_lists: bool,
    met_bytes: bool,
}

impl<'de> PackedBytes<'de> {
    #[inline]
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        // An element takes a byte at least, so an honest value has fewer than these.
        let elements_max = bytes.len() + EMPTY_ELEMENTS_MAX;
        Self {
            rest: bytes,
            depth_left: DEPTH_MAX,
            elements_left: elements_max,
            elements_max,
            is_readable: true,
            texts: false,
            bytes_as_lists: false,
            met_bytes: false,
        }
    }

    /// Bytes that a version before wrote.
    pub(super) fn compact(bytes: &'de [u8]) -> Self {
        Self { is_readable: false, ..Self::new(bytes) }
    }

    /// Texts stand for floats and keys, as JSON has them.
    pub(super) fn with_texts(self) -> Self {
        Self { texts: true, ..self }
    }

    /// Byte strings are handed over as lists of numbers, to types that know no bytes.
    pub(super) fn with_bytes_as_lists(self) -> Self {
        Self { bytes_as_lists: true, ..self }
    }

    /// Whether a byte string was handed over.
    pub(super) fn met_bytes(&self) -> bool {
        self.met_bytes
    }

    /// How many bytes have not been read.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Reads a value.
    #[inline]
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Result<T, CodecError> {
        T::deserialize(PackedReader { input: self, how: How::Usual })
    }

    /// The marker of the next value, which is not taken.
    #[inline(always)]
    fn marker(&self) -> Result<u8, CodecError> {
        self.rest.first().copied().ok_or_else(cut)
    }

    /// Takes bytes whose number the marker tells.
    #[inline(always)]
    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], CodecError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(cut)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline(always)]
    fn byte(&mut self) -> Result<u8, CodecError> {
        let [byte] = self.take()?;
        Ok(byte)
    }

    #[inline(always)]
    fn slice(&mut self, len: usize) -> Result<&'de [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(cut)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes a length of one, two or four bytes: `width` is 0, 1 or 2.
    fn len(&mut self, width: u8) -> Result<usize, CodecError> {
        Ok(match width {
            0 => usize::from(self.byte()?),
            1 => usize::from(u16::from_be_bytes(self.take()?)),
            _ => u32::from_be_bytes(self.take()?) as usize,
        })
    }

    /// Runs `read` one level deeper.
    #[inline(always)]
    fn inside<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, CodecError>) -> Result<T, CodecError> {
        let Some(left) = self.depth_left.checked_sub(1) else { return Err(too_deep()) };
        self.depth_left = left;
        let value = read(self);
        self.depth_left = left + 1;
        value
    }

    /// Takes so many elements from those that are left: a false claim fails before a type makes room for its elements.
    #[inline]
    fn pay(&mut self, elements: usize) -> Result<(), CodecError> {
        let Some(left) = self.elements_left.checked_sub(elements) else {
            return Err(too_many_elements(self.elements_max));
        };
        self.elements_left = left;
        Ok(())
    }

    /// Takes a number, a bool or nil.
    #[inline(always)]
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, CodecError> {
        match self.byte()? {
            marker @ 0..0x80 => visitor.visit_u8(marker),
            marker => self.other_number(marker, visitor),
        }
    }

    #[inline(never)]
    fn other_number<V: Visitor<'de>>(&mut self, marker: u8, visitor: V) -> Result<V::Value, CodecError> {
        match marker {
            0..0x80 => visitor.visit_u8(marker),
            0xE0.. => visitor.visit_i8(marker as i8),
            0xC0 => visitor.visit_unit(),
            0xC2 | 0xC3 => visitor.visit_bool(marker == 0xC3),
            0xCA => visitor.visit_f32(f32::from_be_bytes(self.take()?)),
            0xCB => visitor.visit_f64(f64::from_be_bytes(self.take()?)),
            0xCC => visitor.visit_u8(self.byte()?),
            0xCD => visitor.visit_u16(u16::from_be_bytes(self.take()?)),
            0xCE => visitor.visit_u32(u32::from_be_bytes(self.take()?)),
            0xCF => visitor.visit_u64(u64::from_be_bytes(self.take()?)),
            0xD0 => visitor.visit_i8(i8::from_be_bytes(self.take()?)),
            0xD1 => visitor.visit_i16(i16::from_be_bytes(self.take()?)),
            0xD2 => visitor.visit_i32(i32::from_be_bytes(self.take()?)),
            0xD3 => visitor.visit_i64(i64::from_be_bytes(self.take()?)),
            0x80..0xC0 | 0xC1 | 0xC4..0xCA | 0xD4..0xE0 => self.integer_as_extension(marker, visitor),
        }
    }

    /// Takes an integer that is an extension, however many bytes it needs.
    #[cold]
    #[inline(never)]
    fn integer_as_extension<V: Visitor<'de>>(
        &mut self,
        marker: u8,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let Some(len) = self.extension_len(marker)? else { return Err(unexpected(marker, &visitor)) };
        let extension = self.extension(len)?;
        match Integer::of_bytes(extension.bytes).filter(|_| extension.kind == INTEGER) {
            Some(integer) => visit_integer(integer, visitor),
            None => Err(unexpected(marker, &visitor)),
        }
    }

    /// Takes a text. A text that is not UTF-8 is read by types that take bytes.
    #[inline]
    fn text<V: Visitor<'de>>(
        &mut self,
        len: usize,
        asked: Asked,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let bytes = self.slice(len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err(_) => self.no_text(bytes, asked, visitor),
        }
    }

    #[cold]
    #[inline(never)]
    fn no_text<V: Visitor<'de>>(
        &mut self,
        bytes: &'de [u8],
        asked: Asked,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let asked = if asked == Asked::Tuple { Asked::Any } else { asked };
        self.bytes(bytes, asked, visitor).map_err(|_| Error::custom("a text is not UTF-8"))
    }

    /// Hands over a byte string.
    #[inline(never)]
    fn bytes<V: Visitor<'de>>(
        &mut self,
        bytes: &'de [u8],
        asked: Asked,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let as_list = match asked {
            Asked::List | Asked::Tuple => true,
            Asked::Any | Asked::OwnedBytes => {
                self.met_bytes = true;
                self.bytes_as_lists
            }
        };
        if as_list {
            self.pay(bytes.len())?;
            return numbers(bytes, self.depth_left, visitor);
        }
        match asked {
            Asked::OwnedBytes => visitor.visit_byte_buf(copy_of(bytes)),
            Asked::Any | Asked::List | Asked::Tuple => visitor.visit_borrowed_bytes(bytes),
        }
    }

    /// The length of the extension of this marker, which has been taken; none if the marker is no extension's.
    fn extension_len(&mut self, marker: u8) -> Result<Option<usize>, CodecError> {
        match marker {
            0xC7..=0xC9 => self.len(marker - 0xC7).map(Some),
            0xD4..=0xD8 => Ok(Some(1 << (marker - 0xD4))),
            _ => Ok(None),
        }
    }

    /// Hands over the elements of a list whose head has been taken.
    #[inline]
    fn elements<V: Visitor<'de>>(
        &mut self,
        len: usize,
        asked: Asked,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if asked != Asked::Tuple {
            self.pay(len)?;
        }
        self.inside(|input| {
            let mut parts = Parts { input, left: len };
            let value = visitor.visit_seq(&mut parts)?;
            if parts.left > 0 { Err(too_long(parts.left)) } else { Ok(value) }
        })
    }

    /// Hands over the entries of a map whose head has been taken.
    #[inline]
    fn entries<V: Visitor<'de>>(
        &mut self,
        len: usize,
        asked: Asked,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if asked != Asked::Tuple {
            self.pay(len)?;
        }
        self.inside(|input| {
            let mut parts = Parts { input, left: len };
            let value = visitor.visit_map(&mut parts)?;
            if parts.left > 0 { Err(too_many(parts.left)) } else { Ok(value) }
        })
    }

    fn extension(&mut self, len: usize) -> Result<Extension<'de>, CodecError> {
        Ok(Extension { kind: i8::from_be_bytes(self.take()?), bytes: self.slice(len)? })
    }
}

#[cold]
fn cut() -> CodecError {
    Error::custom("the bytes end before the value does")
}

#[cold]
fn unexpected<'de, V: Visitor<'de>>(marker: u8, visitor: &V) -> CodecError {
    let found = match marker {
        0x80..=0x8F | 0xDE | 0xDF => "a map",
        0x90..=0x9F | 0xDC | 0xDD => "a list",
        0xA0..=0xBF | 0xD9..=0xDB => "a text",
        0xC4..=0xC6 => "bytes",
        0xC7..=0xC9 | 0xD4..=0xD8 => "an extension",
        0xC1 => "the byte 0xc1, with which no value begins",
        0xC0 => "nil",
        0xC2 | 0xC3 => "a bool",
        0xCA | 0xCB => "a float",
        0x00..=0x7F | 0xCC..=0xD3 | 0xE0..=0xFF => "an integer",
    };
    Error::invalid_type(Unexpected::Other(found), visitor)
}

/// A deserializer that reads the next value.
pub(super) struct PackedReader<'i, 'de> {
    input: &'i mut PackedBytes<'de>,
    how: How,
}

/// How a value is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Usual,
    /// It is the key of a map.
    Key,
    /// Extensions are kept as they are.
    Extensions,
}

/// What a type asks for, as far as this tells byte strings from lists, and who says how many elements there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Any,
    OwnedBytes,
    /// A list, which a byte string may be. The bytes say how long it is, and each element counts against the bounds, as it does in what is
    /// asked for as [`Asked::Any`].
    List,
    /// A tuple or a struct: the type says how many elements it has.
    Tuple,
}

impl<'i, 'de> PackedReader<'i, 'de> {
    /// Hands over the next value, whatever it is.
    #[inline]
    fn any<V: Visitor<'de>>(self, asked: Asked, visitor: V) -> Result<V::Value, CodecError> {
        let Self { input, how } = self;
        match input.byte()? {
            marker @ 0x90..=0x9F => input.elements(usize::from(marker & 0x0F), asked, visitor),
            marker @ 0x80..=0x8F => input.entries(usize::from(marker & 0x0F), asked, visitor),
            marker @ 0xA0..=0xBF => input.text(usize::from(marker & 0x1F), asked, visitor),
            marker => Self { input, how }.rarer(marker, asked, visitor),
        }
    }

    /// Hands over a value that is no short list, map or text, and whose marker has been taken.
    #[inline(never)]
    fn rarer<V: Visitor<'de>>(self, marker: u8, asked: Asked, visitor: V) -> Result<V::Value, CodecError> {
        let Self { input, how } = self;
        match marker {
            0xD9..=0xDB => {
                let len = input.len(marker - 0xD9)?;
                input.text(len, asked, visitor)
            }
            0xDC | 0xDD => {
                let len = input.len(marker - 0xDB)?;
                input.elements(len, asked, visitor)
            }
            0xDE | 0xDF => {
                let len = input.len(marker - 0xDD)?;
                input.entries(len, asked, visitor)
            }
            0xC4..=0xC6 => {
                let len = input.len(marker - 0xC4)?;
                let bytes = input.slice(len)?;
                input.bytes(bytes, asked, visitor)
            }
            0xCA => float32(f32::from_be_bytes(input.take()?), visitor),
            0xCB => float64(f64::from_be_bytes(input.take()?), visitor),
            _ => match input.extension_len(marker)? {
                Some(len) => Self { input, how }.converted(len, visitor),
                None => input.other_number(marker, visitor),
            },
        }
    }

    /// Hands over the next value; an extension as it is.
    #[inline]
    fn any_raw<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        Self { how: How::Extensions, ..self }.any(Asked::Any, visitor)
    }

    /// Whether this is a key, and is read from a text.
    #[inline(always)]
    fn is_text_key(&self) -> bool {
        self.how == How::Key && self.input.texts
    }

    /// An extension as what it stands for: a date as its text, an integer as an integer.
    #[cold]
    #[inline(never)]
    fn converted<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        let extension = self.input.extension(len)?;
        if self.how == How::Extensions {
            return visitor.visit_newtype_struct(extension);
        }
        match (extension.kind, Integer::of_bytes(extension.bytes)) {
            (TIMESTAMP, _) => match date(extension.bytes) {
                Some(text) => visitor.visit_string(text),
                // An invalid date, which Node.js writes in JSON as null.
                None => visitor.visit_unit(),
            },
            (INTEGER, Some(integer)) => visit_integer(integer, visitor),
            (INTEGER, None) => Err(Error::custom("no integer type holds an integer of more than 128 bits")),
            _ => visitor.visit_newtype_struct(extension),
        }
    }

    /// Reads a key that is what its text says.
    #[cold]
    fn key<V: Visitor<'de>>(
        self,
        visitor: V,
        read: impl FnOnce(Key<'_>, V) -> Result<V::Value, JsonError>,
    ) -> Result<V::Value, CodecError> {
        self.any_raw(KeyVisitor { inner: visitor, read })
    }
}

/// Whether a type is the value of serde_json, which makes null of a float that JSON lacks, without a word.
fn is_json<T>() -> bool {
    std::any::type_name::<T>() == std::any::type_name::<serde_json::Value>()
}

fn float32<'de, V: Visitor<'de>>(value: f32, visitor: V) -> Result<V::Value, CodecError> {
    match text_of(f64::from(value)) {
        Some(text) if is_json::<V::Value>() => visitor.visit_str(text),
        _ => visitor.visit_f32(value),
    }
}

fn float64<'de, V: Visitor<'de>>(value: f64, visitor: V) -> Result<V::Value, CodecError> {
    match text_of(value) {
        Some(text) if is_json::<V::Value>() => visitor.visit_str(text),
        _ => visitor.visit_f64(value),
    }
}

/// A byte string, to a type that asks for a list.
#[cold]
#[inline(never)]
fn numbers<'de, V: Visitor<'de>>(
    bytes: &[u8],
    depth_left: usize,
    visitor: V,
) -> Result<V::Value, CodecError> {
    let mut numbers = SeqDeserializer::new(bytes.iter().map(|byte| ByteOfList { byte: *byte, depth_left }));
    let value = visitor.visit_seq(&mut numbers)?;
    match SeqAccess::size_hint(&numbers) {
        None | Some(0) => Ok(value),
        Some(more) => Err(too_long(more)),
    }
}

/// The error of a list with so many elements more than the type takes.
#[cold]
fn too_long(more: usize) -> CodecError {
    Error::custom(format_args!("the list has {more} elements more than the type takes"))
}

/// The error of a map with so many entries more than the type takes.
#[cold]
fn too_many(more: usize) -> CodecError {
    Error::custom(format_args!("the map has {more} entries more than the type takes"))
}

/// Methods that ask for a number or a bool, whose visitors see nothing else.
macro_rules! deserialize_plain {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            if self.is_text_key() {
                return self.key(visitor, |key, visitor| key.$method(visitor));
            }
            self.input.number(visitor)
        }
    )*};
}

macro_rules! deserialize_long {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            if self.is_text_key() {
                return self.key(visitor, |key, visitor| key.$method(visitor));
            }
            self.input.number(LongVisitor(visitor))
        }
    )*};
}

macro_rules! deserialize_float {
    ($($method:ident: $float:ty;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            if self.is_text_key() {
                return self.key(visitor, |key, visitor| key.$method(visitor));
            }
            let visitor = FloatVisitor { inner: visitor, float: PhantomData::<$float> };
            if self.input.texts {
                return self.any_raw(visitor);
            }
            self.input.number(visitor)
        }
    )*};
}

macro_rules! deserialize_wide {
    ($($method:ident $kind:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            if self.is_text_key() {
                return self.key(visitor, |key, visitor| key.$method(visitor));
            }
            self.any_raw(WideVisitor { inner: visitor, kind: Wide::$kind })
        }
    )*};
}

/// Methods that ask for any value, or for a text.
macro_rules! deserialize_text {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            self.any(Asked::Any, visitor)
        }
    )*};
}

/// Methods that ask for bytes, or for several values, which a key may be too.
macro_rules! deserialize_compound {
    ($($method:ident($($arg:ident: $type:ty),*) => |$reader:ident, $visitor:ident| $read:expr;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, CodecError> {
            if self.is_text_key() {
                return self.key(visitor, |key, visitor| key.$method($($arg,)* visitor));
            }
            let ($reader, $visitor) = (self, visitor);
            $read
        }
    )*};
}

impl<'de> Deserializer<'de> for PackedReader<'_, 'de> {
    type Error = CodecError;

    deserialize_plain! {
        deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_u8 deserialize_u16 deserialize_u32
    }

    deserialize_long! {
        deserialize_i64
        deserialize_u64
    }

    deserialize_float! {
        deserialize_f32: f32;
        deserialize_f64: f64;
    }

    deserialize_wide! {
        deserialize_i128 Signed;
        deserialize_u128 Unsigned;
    }

    deserialize_text! {
        deserialize_any
        deserialize_char
        deserialize_str
        deserialize_string
        deserialize_ignored_any
    }

    deserialize_compound! {
        deserialize_unit() => |reader, visitor| reader.any(Asked::Any, visitor);
        deserialize_bytes() => |reader, visitor| reader.any(Asked::Any, visitor);
        deserialize_byte_buf() => |reader, visitor| reader.any(Asked::OwnedBytes, visitor);
        deserialize_seq() => |reader, visitor| reader.any(Asked::List, visitor);
        deserialize_tuple(len: usize) => |reader, visitor| reader.any(Asked::Tuple, visitor);
        deserialize_tuple_struct(name: &'static str, len: usize) => |reader, visitor| reader.any(Asked::Tuple, visitor);
        deserialize_map() => |reader, visitor| reader.any(Asked::Any, visitor);
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) => |reader, visitor| {
            reader.any(Asked::Tuple, visitor)
        };
        // Written as an empty list, so that it is no `None`.
        deserialize_unit_struct(name: &'static str) => |reader, visitor| match reader.input.rest {
            [0xC0 | 0x90, rest @ ..] => {
                reader.input.rest = rest;
                visitor.visit_unit()
            }
            _ => reader.any(Asked::Any, visitor),
        };
    }

    /// The name of a field or a variant is never an extension.
    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.input.rest {
            [marker @ 0xA0..=0xBF, rest @ ..] => {
                self.input.rest = rest;
                self.input.text(usize::from(marker & 0x1F), Asked::Any, visitor)
            }
            _ => self.any_raw(visitor),
        }
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if self.is_text_key() {
            return self.key(visitor, |key, visitor| key.deserialize_option(visitor));
        }
        if self.input.marker()? == 0xC0 {
            self.input.byte()?;
            return visitor.visit_none();
        }
        let Self { input, how } = self;
        input.inside(|input| visitor.visit_some(PackedReader { input, how }))
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        match name {
            // A type that knows extensions.
            EXTENSION => {
                let marker = self.input.byte()?;
                match self.input.extension_len(marker)? {
                    Some(len) => visitor.visit_newtype_struct(self.input.extension(len)?),
                    None => Err(unexpected(marker, &visitor)),
                }
            }
            // The name by which a `Value` is asked for is no level of its own.
            VALUE => visitor.visit_newtype_struct(Self { how: How::Extensions, ..self }),
            RAW => {
                let value = Value::deserialize(self)?;
                let mut json = Vec::new();
                value.serialize(&mut JsonWriter::new(&mut json)).map_err(CodecError::custom)?;
                visitor.visit_map(RawValue::new(&String::from_utf8(json).map_err(CodecError::custom)?))
            }
            _ => {
                let Self { input, how } = self;
                input.inside(|input| visitor.visit_newtype_struct(PackedReader { input, how }))
            }
        }
    }

    /// An enum is the name of a variant, or a map of one entry: the name, and the content of the variant.
    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if self.is_text_key() {
            return self.key(visitor, |key, visitor| key.deserialize_enum(name, variants, visitor));
        }
        let Self { input, how: _ } = self;
        let len = match input.marker()? {
            marker @ 0x80..=0x8F => {
                input.byte()?;
                Some(usize::from(marker & 0x0F))
            }
            marker @ (0xDE | 0xDF) => {
                input.byte()?;
                Some(input.len(marker - 0xDD)?)
            }
            _ => None,
        };
        match len {
            None | Some(1) => visitor.visit_enum(Variant { input, has_content: len.is_some() }),
            Some(len) => Err(no_variant(len)),
        }
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.input.is_readable
    }
}

#[cold]
fn no_variant(len: usize) -> CodecError {
    Error::custom(format_args!("found a map of {len} entries, expected an enum, which is a map of one entry"))
}

/// The elements of a list, or the entries of a map.
struct Parts<'i, 'de> {
    input: &'i mut PackedBytes<'de>,
    /// How many have not been read.
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(PackedReader { input: self.input, how: How::Usual }).map(Some)
    }

    /// Every element takes a byte at least.
    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.input.left()))
    }
}

impl<'de> MapAccess<'de> for Parts<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, CodecError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(PackedReader { input: self.input, how: How::Key }).map(Some)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, CodecError> {
        seed.deserialize(PackedReader { input: self.input, how: How::Usual })
    }

    /// Every element takes a byte at least.
    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.input.left()))
    }
}

/// The name of a variant, with its content or without.
struct Variant<'i, 'de> {
    input: &'i mut PackedBytes<'de>,
    has_content: bool,
}

impl<'i, 'de> Variant<'i, 'de> {
    #[inline]
    fn content(self) -> PackedReader<'i, 'de> {
        PackedReader { input: self.input, how: How::Usual }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = CodecError;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), CodecError> {
        let name = self.input.inside(|input| seed.deserialize(PackedReader { input, how: How::Usual }))?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn unit_variant(self) -> Result<(), CodecError> {
        if !self.has_content {
            return Ok(());
        }
        match self.input.byte()? {
            0xC0 => Ok(()),
            _ => Err(Error::custom("a variant without content has some")),
        }
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, CodecError> {
        if !self.has_content {
            return Err(Error::invalid_type(Unexpected::UnitVariant, &"newtype variant"));
        }
        self.input.inside(|input| seed.deserialize(PackedReader { input, how: How::Usual }))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, CodecError> {
        if !self.has_content {
            return Err(Error::invalid_type(Unexpected::UnitVariant, &"tuple variant"));
        }
        self.content().any(Asked::Tuple, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if !self.has_content {
            return Err(Error::invalid_type(Unexpected::UnitVariant, &"struct variant"));
        }
        self.content().any(Asked::Tuple, visitor)
    }
}

/// An extension: a pair of its kind and its bytes.
struct Extension<'de> {
    kind: i8,
    bytes: &'de [u8],
}

impl<'de> Deserializer<'de> for Extension<'de> {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let mut parts = SeqDeserializer::new([Part::Kind(self.kind), Part::Bytes(self.bytes)].into_iter());
        let value = visitor.visit_seq(&mut parts)?;
        parts.end()?;
        Ok(value)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

enum Part<'de> {
    Kind(i8),
    Bytes(&'de [u8]),
}

impl<'de> IntoDeserializer<'de, CodecError> for Part<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Part<'de> {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self {
            Part::Kind(kind) => visitor.visit_i8(kind),
            Part::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A byte of a byte string that is read as a list of numbers.
struct ByteOfList {
    byte: u8,
    /// How many newtypes may begin within each other.
    depth_left: usize,
}

impl<'de> IntoDeserializer<'de, CodecError> for ByteOfList {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for ByteOfList {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_u8(self.byte)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(too_deep)?;
        visitor.visit_newtype_struct(Self { depth_left, ..self })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

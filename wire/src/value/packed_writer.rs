//! MessagePack, written: structs and variants by their names, with what is written for other languages. It is written here and not by a
//! library since the arguments and the reply of every call by name are, and a few instructions do what a stream of bytes takes ten times as
//! many for. The bytes are those of rmp-serde, which the tests below hold it against, but for:
//!
//! - Integers of 128 bits. rmp-serde writes them as 16 bytes, which a reader without a type takes for bytes, and which a reader of the other
//!   sign takes for another number. Here they are integers like all others where 64 bits hold them, else the extension that msgpackr has for
//!   them.
//! - The extensions of a [`Value`](super::Value), and what serde_json keeps as JSON.

use crate::limits::DEPTH_MAX;
use crate::value::any::Value;
use crate::value::extension::{EXTENSION, INTEGER, Integer, READABLE_EXTENSION};
use crate::value::json_reader::read_json;
use crate::value::json_writer::{NUMBER, RAW};
use crate::value::writer::{CodecError, Writer};
use serde::ser::{
    self, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::marker::PhantomData;

/// A serializer that writes MessagePack.
pub(super) struct PackedWriter<'w> {
    writer: &'w mut Writer,
    form: Form,
}

/// How MessagePack is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Types that know two forms write the one for people.
    Readable,
    /// As versions before wrote it: not for people, and integers of 128 bits as 16 bytes.
    Compact,
}

type Written = Result<(), CodecError>;

impl<'w> PackedWriter<'w> {
    #[inline]
    pub(super) fn new(writer: &'w mut Writer) -> Self {
        Self { writer, form: Form::Readable }
    }

    /// Writes as versions before did.
    pub(super) fn compact(writer: &'w mut Writer) -> Self {
        Self { writer, form: Form::Compact }
    }

    /// The writer of a part of this value.
    #[inline(always)]
    fn part(&mut self) -> PackedWriter<'_> {
        PackedWriter { writer: self.writer, form: self.form }
    }

    #[inline(always)]
    fn unsigned(self, value: u64) -> Written {
        match value {
            0..0x80 => self.writer.put_array([value as u8]),
            _ => long_unsigned(self.writer, value),
        }
        Ok(())
    }

    #[inline(always)]
    fn signed(self, value: i64) -> Written {
        match value {
            -0x20..0x80 => self.writer.put_array([value as u8]),
            0x80.. => long_unsigned(self.writer, value.unsigned_abs()),
            _ => long_negative(self.writer, value),
        }
        Ok(())
    }

    fn wide(self, integer: Integer) -> Written {
        let (unsigned, signed) = match integer {
            Integer::Unsigned(value) => (u64::try_from(value).ok(), None),
            Integer::Negative(value) => (None, i64::try_from(value).ok()),
        };
        match (unsigned, signed) {
            (Some(value), _) => self.unsigned(value),
            (None, Some(value)) => self.signed(value),
            (None, None) => put_extension(self.writer, INTEGER, integer.bytes(&mut [0; 17])),
        }
    }

    /// The head of a map of one entry, and its key, which stands before the content of a variant.
    #[inline]
    fn variant(&mut self, variant: &'static str) -> Written {
        self.writer.put_array([0x81]);
        put_text(self.writer, variant)
    }

    /// A list or a map of so many elements; without a number, they are counted as they come.
    #[inline]
    fn elements(self, kind: &Kind, len: Option<usize>) -> Result<Elements<'w>, CodecError> {
        let Self { writer, form } = self;
        let before = match len {
            Some(len) => {
                put_len(writer, kind, len)?;
                None
            }
            None => Some(Box::new(Uncounted { writer: std::mem::take(writer), count: 0 })),
        };
        Ok(Elements { part: PackedWriter { writer, form }, before })
    }

    #[inline]
    fn fields(self, kind: &Kind, len: usize) -> Result<Fields<'w>, CodecError> {
        put_len(self.writer, kind, len)?;
        Ok(Fields(self))
    }
}

#[inline(never)]
fn long_unsigned(writer: &mut Writer, value: u64) {
    // The casts keep all digits.
    match value {
        0..0x100 => writer.put_array([0xCC, value as u8]),
        0x100..0x1_0000 => {
            let [a, b] = (value as u16).to_be_bytes();
            writer.put_array([0xCD, a, b]);
        }
        0x1_0000..0x1_0000_0000 => {
            let [a, b, c, d] = (value as u32).to_be_bytes();
            writer.put_array([0xCE, a, b, c, d]);
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
            writer.put_array([0xCF, a, b, c, d, e, f, g, h]);
        }
    }
}

#[inline(never)]
fn long_negative(writer: &mut Writer, value: i64) {
    if let Ok(value) = i8::try_from(value) {
        writer.put_array([0xD0, value as u8]);
    } else if let Ok(value) = i16::try_from(value) {
        let [a, b] = value.to_be_bytes();
        writer.put_array([0xD1, a, b]);
    } else if let Ok(value) = i32::try_from(value) {
        let [a, b, c, d] = value.to_be_bytes();
        writer.put_array([0xD2, a, b, c, d]);
    } else {
        let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
        writer.put_array([0xD3, a, b, c, d, e, f, g, h]);
    }
}

/// The markers of values that have a length: shorter than a number, with the length in the marker; and with a length of one, two or four
/// bytes behind the marker.
struct Kind {
    short: u8,
    short_max: usize,
    /// None where MessagePack has no length of one byte.
    one_byte: Option<u8>,
    two_bytes: u8,
    four_bytes: u8,
}

const TEXT: Kind =
    Kind { short: 0xA0, short_max: 31, one_byte: Some(0xD9), two_bytes: 0xDA, four_bytes: 0xDB };
const LIST: Kind = Kind { short: 0x90, short_max: 15, one_byte: None, two_bytes: 0xDC, four_bytes: 0xDD };
const MAP: Kind = Kind { short: 0x80, short_max: 15, one_byte: None, two_bytes: 0xDE, four_bytes: 0xDF };

#[inline(always)]
fn put_len(writer: &mut Writer, kind: &Kind, len: usize) -> Written {
    if len <= kind.short_max {
        writer.put_array([kind.short | len as u8]);
        return Ok(());
    }
    let Kind { one_byte, two_bytes, four_bytes, .. } = *kind;
    put_long_len(writer, one_byte, two_bytes, four_bytes, len)
}

#[inline(never)]
fn put_long_len(
    writer: &mut Writer,
    one_byte: Option<u8>,
    two_bytes: u8,
    four_bytes: u8,
    len: usize,
) -> Written {
    if let (Ok(len), Some(one_byte)) = (u8::try_from(len), one_byte) {
        writer.put_array([one_byte, len]);
    } else if let Ok(len) = u16::try_from(len) {
        let [a, b] = len.to_be_bytes();
        writer.put_array([two_bytes, a, b]);
    } else if let Ok(len) = u32::try_from(len) {
        let [a, b, c, d] = len.to_be_bytes();
        writer.put_array([four_bytes, a, b, c, d]);
    } else {
        return Err(ser::Error::custom(format_args!("MessagePack counts to {} and not to {len}", u32::MAX)));
    }
    Ok(())
}

#[inline]
fn put_text(writer: &mut Writer, text: &str) -> Written {
    put_len(writer, &TEXT, text.len())?;
    writer.put(text.as_bytes());
    Ok(())
}

fn put_bytes(writer: &mut Writer, bytes: &[u8]) -> Written {
    put_long_len(writer, Some(0xC4), 0xC5, 0xC6, bytes.len())?;
    writer.put(bytes);
    Ok(())
}

fn put_extension(writer: &mut Writer, kind: i8, bytes: &[u8]) -> Written {
    match bytes.len() {
        1 => writer.put_array([0xD4]),
        2 => writer.put_array([0xD5]),
        4 => writer.put_array([0xD6]),
        8 => writer.put_array([0xD7]),
        16 => writer.put_array([0xD8]),
        len => put_long_len(writer, Some(0xC7), 0xC8, 0xC9, len)?,
    }
    writer.put_array([kind as u8]);
    writer.put(bytes);
    Ok(())
}

macro_rules! serialize_integers {
    ($($method:ident: $type:ty => $kind:ident;)*) => {$(
        #[inline(always)]
        fn $method(self, value: $type) -> Written {
            self.$kind(value.into())
        }
    )*};
}

impl<'w> Serializer for PackedWriter<'w> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Elements<'w>;
    type SerializeTuple = Fields<'w>;
    type SerializeTupleStruct = Fields<'w>;
    type SerializeTupleVariant = Fields<'w>;
    type SerializeMap = Elements<'w>;
    type SerializeStruct = Record<'w>;
    type SerializeStructVariant = Fields<'w>;

    serialize_integers! {
        serialize_i8: i8 => signed;
        serialize_i16: i16 => signed;
        serialize_i32: i32 => signed;
        serialize_i64: i64 => signed;
        serialize_u8: u8 => unsigned;
        serialize_u16: u16 => unsigned;
        serialize_u32: u32 => unsigned;
        serialize_u64: u64 => unsigned;
    }

    fn serialize_i128(self, value: i128) -> Written {
        match self.form {
            Form::Readable => self.wide(Integer::signed(value)),
            // Old nodes read an integer of 128 bits as 16 bytes, and refuse the extension.
            Form::Compact => put_bytes(self.writer, &value.to_be_bytes()),
        }
    }

    fn serialize_u128(self, value: u128) -> Written {
        match self.form {
            Form::Readable => self.wide(Integer::Unsigned(value)),
            Form::Compact => put_bytes(self.writer, &value.to_be_bytes()),
        }
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Written {
        self.writer.put_array([0xC2 | u8::from(value)]);
        Ok(())
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Written {
        let [a, b, c, d] = value.to_be_bytes();
        self.writer.put_array([0xCA, a, b, c, d]);
        Ok(())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Written {
        let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
        self.writer.put_array([0xCB, a, b, c, d, e, f, g, h]);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Written {
        put_text(self.writer, value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Written {
        put_text(self.writer, value)
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Written {
        put_bytes(self.writer, value)
    }

    #[inline]
    fn serialize_none(self) -> Written {
        self.serialize_unit()
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Written {
        self.writer.put_array([0xC0]);
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.writer.put_array([LIST.short]);
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        put_text(self.writer, variant)
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Written {
        match name {
            EXTENSION | READABLE_EXTENSION => {
                // The parts of an extension are a number and bytes, and no text for people.
                let is_readable = name == EXTENSION;
                let mut extension =
                    ExtensionWriter { writer: self.writer, is_readable, kind: None, is_whole: false };
                value.serialize(&mut extension)?;
                if extension.is_whole { Ok(()) } else { Err(no_extension()) }
            }
            _ => value.serialize(self),
        }
    }

    #[inline(always)]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        self.variant(variant)?;
        value.serialize(self)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'w>, CodecError> {
        self.elements(&LIST, len)
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Fields<'w>, CodecError> {
        self.fields(&LIST, len)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Fields<'w>, CodecError> {
        self.fields(&LIST, len)
    }

    #[inline]
    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Fields<'w>, CodecError> {
        self.variant(variant)?;
        self.fields(&LIST, len)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Elements<'w>, CodecError> {
        self.elements(&MAP, len)
    }

    #[inline(always)]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Record<'w>, CodecError> {
        if self.form == Form::Readable && [RAW, NUMBER].contains(&name) {
            return Ok(Record::Json { part: self, is_written: false });
        }
        self.fields(&MAP, len).map(Record::Fields)
    }

    #[inline]
    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Fields<'w>, CodecError> {
        self.variant(variant)?;
        self.fields(&MAP, len)
    }

    #[inline(always)]
    fn is_human_readable(&self) -> bool {
        self.form == Form::Readable
    }
}

/// The elements of a tuple or the fields of a struct, whose number has been written.
pub(super) struct Fields<'w>(PackedWriter<'w>);

macro_rules! serialize_elements {
    ($($trait:ident $method:ident;)*) => {$(
        impl $trait for Fields<'_> {
            type Ok = ();
            type Error = CodecError;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
                value.serialize(self.0.part())
            }

            #[inline(always)]
            fn end(self) -> Written {
                Ok(())
            }
        }
    )*};
}

serialize_elements! {
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

impl Fields<'_> {
    #[inline(always)]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        put_text(self.0.writer, name)?;
        value.serialize(self.0.part())
    }
}

impl SerializeStructVariant for Fields<'_> {
    type Ok = ();
    type Error = CodecError;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        self.field(name, value)
    }

    #[inline(always)]
    fn end(self) -> Written {
        Ok(())
    }
}

/// The elements of a list, or the keys and values of a map.
pub(super) struct Elements<'w> {
    part: PackedWriter<'w>,
    /// For elements that are counted as they come: they have a writer of their own, since their number stands before them.
    before: Option<Box<Uncounted>>,
}

/// The bytes before elements that are counted as they come, and how many of these there are.
struct Uncounted {
    writer: Writer,
    count: usize,
}

impl Elements<'_> {
    #[inline(always)]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        if let Some(before) = &mut self.before {
            before.count += 1;
        }
        value.serialize(self.part.part())
    }

    /// Puts the elements that were counted behind their number; `in_each` of them are one element of the list or the map.
    #[inline]
    fn finish(self, kind: &Kind, in_each: usize) -> Written {
        match self.before {
            None => Ok(()),
            Some(before) => {
                let elements = std::mem::replace(self.part.writer, before.writer);
                put_len(self.part.writer, kind, before.count / in_each)?;
                self.part.writer.put_all(&elements);
                Ok(())
            }
        }
    }
}

impl SerializeSeq for Elements<'_> {
    type Ok = ();
    type Error = CodecError;

    #[inline(always)]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.element(value)
    }

    #[inline(always)]
    fn end(self) -> Written {
        self.finish(&LIST, 1)
    }
}

impl SerializeMap for Elements<'_> {
    type Ok = ();
    type Error = CodecError;

    #[inline(always)]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        self.element(key)
    }

    #[inline(always)]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.element(value)
    }

    #[inline(always)]
    fn end(self) -> Written {
        self.finish(&MAP, 2)
    }
}

/// A struct, or a value or a number of serde_json that is JSON already: then its only field is the text of it.
pub(super) enum Record<'w> {
    Fields(Fields<'w>),
    Json { part: PackedWriter<'w>, is_written: bool },
}

impl SerializeStruct for Record<'_> {
    type Ok = ();
    type Error = CodecError;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        match self {
            Record::Fields(fields) => fields.field(name, value),
            Record::Json { is_written: true, .. } => Err(ser::Error::custom("a value has one text")),
            Record::Json { part, is_written } => {
                *is_written = true;
                let json = serde_json::to_value(value).map_err(ser::Error::custom)?;
                put_json(part.part(), json.as_str().unwrap_or_default())
            }
        }
    }

    #[inline(always)]
    fn end(self) -> Written {
        match self {
            Record::Fields(_) | Record::Json { is_written: true, .. } => Ok(()),
            Record::Json { is_written: false, .. } => Err(ser::Error::custom("a value has a text")),
        }
    }
}

/// Writes the value that a text of JSON is.
fn put_json(writer: PackedWriter<'_>, json: &str) -> Written {
    if depth(json) > DEPTH_MAX {
        return Err(ser::Error::custom(format_args!("nested deeper than {DEPTH_MAX} levels")));
    }
    let value: Value = read_json(json.as_bytes(), PhantomData).map_err(ser::Error::custom)?;
    value.serialize(writer)
}

/// How many lists and objects of JSON stand within each other. serde_json keeps JSON however deep it is.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A serializer that writes an extension, which is a pair of its kind and its bytes.
struct ExtensionWriter<'w> {
    writer: &'w mut Writer,
    is_readable: bool,
    kind: Option<i8>,
    is_whole: bool,
}

#[cold]
fn no_extension() -> CodecError {
    ser::Error::custom("an extension of MessagePack is a pair of its kind, an i8, and its bytes")
}

macro_rules! no_extension {
    ($($method:ident($($argument:ty),*) -> $result:ty;)*) => {$(
        fn $method(self, $(_: $argument),*) -> Result<$result, CodecError> {
            Err(no_extension())
        }
    )*};
}

type Never = Impossible<(), CodecError>;

impl Serializer for &mut ExtensionWriter<'_> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Never;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    fn serialize_tuple(self, _: usize) -> Result<Self, CodecError> {
        Ok(self)
    }

    fn serialize_i8(self, value: i8) -> Written {
        if self.kind.replace(value).is_some() { Err(no_extension()) } else { Ok(()) }
    }

    fn serialize_bytes(self, value: &[u8]) -> Written {
        match self.kind {
            Some(kind) if !self.is_whole => {
                self.is_whole = true;
                put_extension(self.writer, kind, value)
            }
            _ => Err(no_extension()),
        }
    }

    no_extension! {
        serialize_bool(bool) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Written {
        Err(no_extension())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Written {
        Err(no_extension())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Written {
        Err(no_extension())
    }

    fn is_human_readable(&self) -> bool {
        self.is_readable
    }
}

impl SerializeTuple for &mut ExtensionWriter<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        value.serialize(&mut **self)
    }

    fn end(self) -> Written {
        Ok(())
    }
}

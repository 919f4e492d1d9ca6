//! Writes a value as JSON. serde_json writes the text of each number and each string; what it would write as something else, or refuse,
//! is written here:
//!
//! - a float that is no number of JSON is its name as text: `"NaN"`, `"Infinity"`, `"-Infinity"`;
//! - a key of a map that is no text is its text: `1`, `true`, `[1,2]`; two keys of one map with one text are an error;
//! - `Some` of nothing, which would be read as `None`, is an error.

use crate::value::distinct::Distinct;
use crate::value::number::text_of;
use serde::ser::{
    Error, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::fmt::{self, Display};
use std::io;

/// The name of the struct, and of the newtype, that serde_json has for a value that is JSON already.
pub(super) const RAW: &str = "$serde_json::private::RawValue";

/// The name of the struct that a number of serde_json calls itself if the program keeps the digits of its numbers, by a feature of
/// serde_json.
pub(super) const NUMBER: &str = "$serde_json::private::Number";

/// Why a value has no JSON, or JSON is not the value that was expected.
#[derive(Debug)]
pub(super) struct JsonError {
    pub(super) reason: String,
    /// The key of a map is made of several values.
    is_compound_key: bool,
}

impl Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for JsonError {}

impl Error for JsonError {
    fn custom<T: Display>(reason: T) -> Self {
        Self { reason: reason.to_string(), is_compound_key: false }
    }
}

impl serde::de::Error for JsonError {
    fn custom<T: Display>(reason: T) -> Self {
        Error::custom(reason)
    }
}

impl From<io::Error> for JsonError {
    fn from(error: io::Error) -> Self {
        Error::custom(error)
    }
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Error::custom(error)
    }
}

/// Writes JSON to `out`.
pub(super) struct JsonWriter<W> {
    out: W,
    /// How many bytes have been written, and where the last `null` ended.
    len: usize,
    null_end: usize,
    /// Whether this is the text of a key. The key of a map within a key is no such text: each level would double the escapes.
    within_key: bool,
}

impl<W: io::Write> JsonWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, len: 0, null_end: 0, within_key: false }
    }

    fn put(&mut self, text: &str) -> Result<(), JsonError> {
        self.len += text.len();
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Writes a number or a text as serde_json does.
    fn plain<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        Ok(serde_json::to_writer(self, value)?)
    }

    fn begin<'w>(&'w mut self, open: &str, close: &'static str) -> Result<List<'w, W>, JsonError> {
        self.put(open)?;
        Ok(List { writer: self, is_empty: true, close })
    }

    fn begin_variant<'w>(
        &'w mut self,
        variant: &str,
        open: &str,
        close: &'static str,
    ) -> Result<List<'w, W>, JsonError> {
        self.put("{")?;
        self.plain(variant)?;
        self.put(":")?;
        self.begin(open, close)
    }

    /// The text of the key of a map.
    fn key<T: Serialize + ?Sized>(&self, key: &T) -> Result<String, JsonError> {
        match key.serialize(KeyWriter) {
            Err(error) if error.is_compound_key && self.within_key => Err(error),
            Err(error) if error.is_compound_key => {
                let mut text = Vec::new();
                key.serialize(&mut JsonWriter { within_key: true, ..JsonWriter::new(&mut text) })?;
                String::from_utf8(text).map_err(Error::custom)
            }
            text => text,
        }
    }
}

impl<W: io::Write> io::Write for JsonWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.len += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

macro_rules! serialize_plain {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<(), JsonError> {
            self.plain(&value)
        }
    )*};
}

impl<'w, W: io::Write> Serializer for &'w mut JsonWriter<W> {
    type Ok = ();
    type Error = JsonError;
    type SerializeSeq = List<'w, W>;
    type SerializeTuple = List<'w, W>;
    type SerializeTupleStruct = List<'w, W>;
    type SerializeTupleVariant = List<'w, W>;
    type SerializeMap = Map<'w, W>;
    type SerializeStruct = Record<'w, W>;
    type SerializeStructVariant = List<'w, W>;

    serialize_plain! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str,
    }

    fn serialize_f32(self, value: f32) -> Result<(), JsonError> {
        match text_of(f64::from(value)) {
            Some(text) => self.plain(text),
            None => self.plain(&value),
        }
    }

    fn serialize_f64(self, value: f64) -> Result<(), JsonError> {
        match text_of(value) {
            Some(text) => self.plain(text),
            None => self.plain(&value),
        }
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), JsonError> {
        let mut list = self.begin("[", "]")?;
        for byte in bytes {
            list.element(byte)?;
        }
        list.finish()
    }

    fn serialize_none(self) -> Result<(), JsonError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), JsonError> {
        let before = self.len;
        value.serialize(&mut *self)?;
        if self.len == before + "null".len() && self.null_end == self.len {
            return Err(Error::custom(SOME_OF_NOTHING));
        }
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), JsonError> {
        self.put("null")?;
        self.null_end = self.len;
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), JsonError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), JsonError> {
        self.plain(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        let list = self.begin_variant(variant, "", "}")?;
        value.serialize(&mut *list.writer)?;
        list.finish()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'w, W>, JsonError> {
        self.begin("[", "]")
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'w, W>, JsonError> {
        self.begin("[", "]")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List<'w, W>, JsonError> {
        self.begin("[", "]")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List<'w, W>, JsonError> {
        self.begin_variant(variant, "[", "]}")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Map<'w, W>, JsonError> {
        Ok(Map { entries: self.begin("{", "}")?, keys: Distinct::new() })
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Record<'w, W>, JsonError> {
        if [RAW, NUMBER].contains(&name) {
            return Ok(Record::AsItIs(self));
        }
        Ok(Record::Fields(self.begin("{", "}")?))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List<'w, W>, JsonError> {
        self.begin_variant(variant, "{", "}}")
    }
}

/// Why `Some` of a value that is written as nothing is refused.
pub(super) const SOME_OF_NOTHING: &str = "`Some` of nothing, such as `Some(())` or `Some(None)`, would be read as `None`; use an enum of your own for it";

/// The elements of a list, or the fields of a struct.
pub(super) struct List<'w, W> {
    writer: &'w mut JsonWriter<W>,
    is_empty: bool,
    close: &'static str,
}

impl<W: io::Write> List<'_, W> {
    fn next(&mut self) -> Result<(), JsonError> {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.writer.put(",")?;
        }
        Ok(())
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        self.next()?;
        value.serialize(&mut *self.writer)
    }

    fn name(&mut self, name: &str) -> Result<(), JsonError> {
        self.next()?;
        self.writer.plain(name)?;
        self.writer.put(":")
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), JsonError> {
        self.name(name)?;
        value.serialize(&mut *self.writer)
    }

    fn finish(self) -> Result<(), JsonError> {
        self.writer.put(self.close)
    }
}

macro_rules! serialize_elements {
    ($($trait:ident $method:ident;)*) => {$(
        impl<W: io::Write> $trait for List<'_, W> {
            type Ok = ();
            type Error = JsonError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
                self.element(value)
            }

            fn end(self) -> Result<(), JsonError> {
                self.finish()
            }
        }
    )*};
}

serialize_elements! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

impl<W: io::Write> SerializeStructVariant for List<'_, W> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        self.field(name, value)
    }

    fn end(self) -> Result<(), JsonError> {
        self.finish()
    }
}

/// A struct, or a value that is JSON already.
pub(super) enum Record<'w, W> {
    Fields(List<'w, W>),
    AsItIs(&'w mut JsonWriter<W>),
}

impl<W: io::Write> SerializeStruct for Record<'_, W> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        match self {
            Record::Fields(fields) => fields.field(name, value),
            Record::AsItIs(writer) => {
                let json = value.serialize(KeyWriter)?;
                writer.put(&json)?;
                if json == "null" {
                    writer.null_end = writer.len;
                }
                Ok(())
            }
        }
    }

    fn end(self) -> Result<(), JsonError> {
        match self {
            Record::Fields(fields) => fields.finish(),
            Record::AsItIs(_) => Ok(()),
        }
    }
}

/// The entries of a map.
pub(super) struct Map<'w, W> {
    entries: List<'w, W>,
    keys: Distinct<String>,
}

impl<W: io::Write> SerializeMap for Map<'_, W> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), JsonError> {
        let text = self.entries.writer.key(key)?;
        self.entries.name(&text)?;
        if !self.keys.insert(text.clone()) {
            return Err(Error::custom(format_args!(
                "two keys of a map have the text {text:?}, and an object of JSON has each key once"
            )));
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        value.serialize(&mut *self.entries.writer)
    }

    fn end(self) -> Result<(), JsonError> {
        self.entries.finish()
    }
}

/// Writes the key of a map as its text. A key that is made of several values is an error that says so: then the text is its JSON.
struct KeyWriter;

fn compound<T>() -> Result<T, JsonError> {
    let reason = "a key of a map within a key has no text in JSON if it is made of several values".to_owned();
    Err(JsonError { reason, is_compound_key: true })
}

macro_rules! serialize_key {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<String, JsonError> {
            Ok(value.to_string())
        }
    )*};
}

impl Serializer for KeyWriter {
    type Ok = String;
    type Error = JsonError;
    type SerializeSeq = Impossible<String, JsonError>;
    type SerializeTuple = Impossible<String, JsonError>;
    type SerializeTupleStruct = Impossible<String, JsonError>;
    type SerializeTupleVariant = Impossible<String, JsonError>;
    type SerializeMap = Impossible<String, JsonError>;
    type SerializeStruct = Impossible<String, JsonError>;
    type SerializeStructVariant = Impossible<String, JsonError>;

    serialize_key! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str,
    }

    fn serialize_f32(self, value: f32) -> Result<String, JsonError> {
        text_of(f64::from(value))
            .map_or_else(|| Ok(serde_json::to_string(&value)?), |text| Ok(text.to_owned()))
    }

    fn serialize_f64(self, value: f64) -> Result<String, JsonError> {
        text_of(value).map_or_else(|| Ok(serde_json::to_string(&value)?), |text| Ok(text.to_owned()))
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<String, JsonError> {
        compound()
    }

    fn serialize_none(self) -> Result<String, JsonError> {
        Ok("null".to_owned())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, JsonError> {
        let text = value.serialize(self)?;
        if text == "null" {
            return Err(Error::custom("the key `Some(\"null\")` of a map would be read as `None` from JSON"));
        }
        Ok(text)
    }

    fn serialize_unit(self) -> Result<String, JsonError> {
        self.serialize_none()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<String, JsonError> {
        self.serialize_none()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<String, JsonError> {
        Ok(variant.to_owned())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<String, JsonError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String, JsonError> {
        compound()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, JsonError> {
        compound()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, JsonError> {
        compound()
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, JsonError> {
        compound()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, JsonError> {
        compound()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, JsonError> {
        compound()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, JsonError> {
        compound()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, JsonError> {
        compound()
    }
}

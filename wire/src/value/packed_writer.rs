//! What rmp-serde writes differently: integers of 128 bits. rmp-serde writes them as 16 bytes, which a reader without a type takes for
//! bytes, and which a reader of the other sign takes for another number. Here they are integers like all others where 64 bits hold them,
//! else the extension that msgpackr has for them. Also the extensions of a [`Value`](super::Value), and what serde_json keeps as JSON.

use crate::limits::DEPTH_MAX;
use crate::value::any::Value;
use crate::value::extension::{EXTENSION, INTEGER, Integer, READABLE_EXTENSION};
use crate::value::json_reader::read_json;
use crate::value::json_writer::{NUMBER, RAW};
use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_bytes::Bytes;
use std::fmt::Display;
use std::marker::PhantomData;

/// A serializer of rmp-serde, with what is written differently.
pub(super) struct PackedWriter<S> {
    inner: S,
    /// Whether this is within an extension, whose parts are a number and bytes and no text for people.
    within_extension: bool,
}

impl<S> PackedWriter<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, within_extension: false }
    }
}

impl<S: Serializer> PackedWriter<S> {
    fn integer(self, integer: Integer) -> Result<S::Ok, S::Error> {
        let (unsigned, signed) = match integer {
            Integer::Unsigned(value) => (u64::try_from(value).ok(), None),
            Integer::Negative(value) => (None, i64::try_from(value).ok()),
        };
        match (unsigned, signed) {
            (Some(value), _) => self.inner.serialize_u64(value),
            (None, Some(value)) => self.inner.serialize_i64(value),
            (None, None) => {
                let room = &mut [0; 17];
                let parts = (INTEGER, Bytes::new(integer.bytes(room)));
                self.inner.serialize_newtype_struct(EXTENSION, &parts)
            }
        }
    }
}

/// A value within a value.
struct Within<'v, T: ?Sized> {
    value: &'v T,
    within_extension: bool,
}

impl<'v, T: ?Sized> Within<'v, T> {
    fn new(value: &'v T) -> Self {
        Self { value, within_extension: false }
    }
}

impl<T: Serialize + ?Sized> Serialize for Within<'_, T> {
    #[inline(always)]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { value, within_extension } = *self;
        value.serialize(PackedWriter { inner: serializer, within_extension })
    }
}

macro_rules! serialize_same {
    ($($method:ident($($arg:ident: $type:ty),*);)*) => {$(
        #[inline(always)]
        fn $method(self, $($arg: $type),*) -> Result<S::Ok, S::Error> {
            self.inner.$method($($arg),*)
        }
    )*};
}

macro_rules! serialize_compound {
    ($($method:ident($($arg:ident: $type:ty),*) -> $compound:ident;)*) => {$(
        #[inline(always)]
        fn $method(self, $($arg: $type),*) -> Result<Self::$compound, S::Error> {
            self.inner.$method($($arg),*).map(Compound)
        }
    )*};
}

impl<S: Serializer> Serializer for PackedWriter<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Compound<S::SerializeSeq>;
    type SerializeTuple = Compound<S::SerializeTuple>;
    type SerializeTupleStruct = Compound<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Compound<S::SerializeTupleVariant>;
    type SerializeMap = Compound<S::SerializeMap>;
    type SerializeStruct = Record<S>;
    type SerializeStructVariant = Compound<S::SerializeStructVariant>;

    serialize_same! {
        serialize_bool(value: bool);
        serialize_i8(value: i8);
        serialize_i16(value: i16);
        serialize_i32(value: i32);
        serialize_i64(value: i64);
        serialize_u8(value: u8);
        serialize_u16(value: u16);
        serialize_u32(value: u32);
        serialize_u64(value: u64);
        serialize_f32(value: f32);
        serialize_f64(value: f64);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_bytes(value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    serialize_compound! {
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(
            name: &'static str,
            index: u32,
            variant: &'static str,
            len: usize
        ) -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct_variant(
            name: &'static str,
            index: u32,
            variant: &'static str,
            len: usize
        ) -> SerializeStructVariant;
    }

    fn serialize_i128(self, value: i128) -> Result<S::Ok, S::Error> {
        self.integer(Integer::signed(value))
    }

    fn serialize_u128(self, value: u128) -> Result<S::Ok, S::Error> {
        self.integer(Integer::Unsigned(value))
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Within::new(value))
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let (name, within_extension) = match name {
            READABLE_EXTENSION => (EXTENSION, true),
            name => (name, false),
        };
        self.inner.serialize_newtype_struct(name, &Within { value, within_extension })
    }

    #[inline(always)]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_variant(name, index, variant, &Within::new(value))
    }

    #[inline(always)]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Record<S>, S::Error> {
        if [RAW, NUMBER].contains(&name) {
            return Ok(Record::Json { serializer: Some(self), written: None });
        }
        self.inner.serialize_struct(name, len).map(Record::Fields)
    }

    #[inline(always)]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    #[inline(always)]
    fn is_human_readable(&self) -> bool {
        !self.within_extension && self.inner.is_human_readable()
    }
}

/// A list, map or struct of rmp-serde, whose values are written as here.
pub(super) struct Compound<C>(C);

macro_rules! serialize_elements {
    ($($trait:ident $method:ident;)*) => {$(
        impl<C: $trait> $trait for Compound<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.0.$method(&Within::new(value))
            }

            #[inline(always)]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
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

impl<C: SerializeMap> SerializeMap for Compound<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline(always)]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.0.serialize_key(&Within::new(key))
    }

    #[inline(always)]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_value(&Within::new(value))
    }

    #[inline(always)]
    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}

impl<C: SerializeStructVariant> SerializeStructVariant for Compound<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), C::Error> {
        self.0.serialize_field(name, &Within::new(value))
    }

    #[inline(always)]
    fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
        self.0.skip_field(name)
    }

    #[inline(always)]
    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}

/// A struct, or a value or a number of serde_json that is JSON already: then its only field is the text of it.
pub(super) enum Record<S: Serializer> {
    Fields(S::SerializeStruct),
    Json { serializer: Option<PackedWriter<S>>, written: Option<S::Ok> },
}

impl<S: Serializer> SerializeStruct for Record<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), S::Error> {
        match self {
            Record::Fields(fields) => fields.serialize_field(name, &Within::new(value)),
            Record::Json { serializer, written } => {
                let json = serde_json::to_value(value).map_err(S::Error::custom)?;
                let json = json.as_str().unwrap_or_default();
                if depth(json) > DEPTH_MAX {
                    return Err(S::Error::custom(format_args!("nested deeper than {DEPTH_MAX} levels")));
                }
                let value: Value = read_json(json.as_bytes(), PhantomData).map_err(S::Error::custom)?;
                let serializer = serializer.take().ok_or_else(|| S::Error::custom("a value has one text"))?;
                *written = Some(value.serialize(serializer)?);
                Ok(())
            }
        }
    }

    #[inline(always)]
    fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
        match self {
            Record::Fields(fields) => fields.skip_field(name),
            Record::Json { .. } => Ok(()),
        }
    }

    #[inline(always)]
    fn end(self) -> Result<S::Ok, S::Error> {
        match self {
            Record::Fields(fields) => fields.end(),
            Record::Json { written, .. } => written.ok_or_else(|| S::Error::custom("a value has a text")),
        }
    }
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

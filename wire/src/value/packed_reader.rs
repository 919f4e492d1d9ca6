//! What rmp-serde reads differently: values that another type, another language or JSON wrote.
//!
//! - An integer of 128 bits is read from any integer that it holds, with its sign: see `packed_writer.rs` for its form. Versions before
//!   wrote 16 bytes, which are read too.
//! - An integer of 64 bits or more is read from a whole float that has more than 32 bits, too.
//! - An integer is read as a float that holds it exactly, or not at all; a float of 64 bits is no infinity of 32 bits.
//! - A date is its text, and an integer of more than 64 bits an integer, to every type but [`Value`](super::Value), which keeps both.
//! - What came from JSON has texts in place of floats that are no numbers, and of keys that are no texts: such texts are read where a
//!   number or a key is expected, but only when the bytes are no value of the type otherwise. So they cost other values nothing.

use crate::value::any::Value;
use crate::value::extension::{EXTENSION, INTEGER, Integer, TIMESTAMP, VALUE, date, visit_integer};
use crate::value::json_reader::{Key, RawValue};
use crate::value::json_writer::{JsonError, JsonWriter, RAW};
use crate::value::number::{Float, float_of, float_of_integer, no_float_of_integer, text_of};
use serde::de::value::SeqDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use serde_bytes::ByteBuf;
use std::fmt;
use std::marker::PhantomData;

/// How values are read.
#[derive(Clone, Copy, Default)]
pub(super) struct How {
    /// Texts stand for floats and keys, as JSON has them.
    texts: bool,
    /// This is the key of a map.
    is_key: bool,
    /// Extensions are kept as they are.
    keeps_extensions: bool,
}

impl How {
    /// Texts stand for floats and keys, as JSON has them.
    pub(super) fn with_texts() -> Self {
        Self { texts: true, ..Self::default() }
    }

    /// How a value within is read.
    fn within(self) -> Self {
        Self { texts: self.texts, ..Self::default() }
    }

    fn has_text_keys(self) -> bool {
        self.texts && self.is_key
    }
}

/// A deserializer of rmp-serde, with what is read differently.
pub(super) struct PackedReader<D> {
    inner: D,
    how: How,
}

impl<D> PackedReader<D> {
    pub(super) fn new(inner: D, how: How) -> Self {
        Self { inner, how }
    }
}

/// The seed `inner`, through a [`PackedReader`].
struct Seed<S> {
    inner: S,
    how: How,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(PackedReader { inner: deserializer, how: self.how })
    }
}

/// Methods that ask for a number or a bool, whose visitors see nothing else: these are handed over as they are, unless it is a key.
macro_rules! deserialize_plain {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            if self.how.has_text_keys() {
                return self.key(visitor, |key, visitor| key.$method(visitor));
            }
            self.inner.$method(visitor)
        }
    )*};
}

macro_rules! deserialize_long {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            if self.how.has_text_keys() {
                return self.key(visitor, |key, visitor| key.$method(visitor));
            }
            self.inner.$method(LongVisitor(visitor))
        }
    )*};
}

macro_rules! deserialize_float {
    ($($method:ident: $float:ty;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            if self.how.has_text_keys() {
                return self.key(visitor, |key, visitor| key.$method(visitor));
            }
            let visitor = FloatVisitor { inner: visitor, float: PhantomData::<$float> };
            if self.how.texts {
                return self.inner.deserialize_any(visitor);
            }
            self.inner.$method(visitor)
        }
    )*};
}

macro_rules! deserialize_wide {
    ($($method:ident $kind:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            if self.how.has_text_keys() {
                return self.key(visitor, |key, visitor| key.$method(visitor));
            }
            self.inner.deserialize_any(WideVisitor { inner: visitor, kind: Wide::$kind })
        }
    )*};
}

/// Methods whose visitors may be given elements, values or extensions to visit, so the visitors are wrapped.
macro_rules! deserialize_nested {
    ($($method:ident($($arg:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = PackedVisitor { inner: visitor, how: self.how };
            self.inner.$method($($arg,)* visitor)
        }
    )*};
}

/// Methods that ask for several values, which a key may be too.
macro_rules! deserialize_compound {
    ($($method:ident($($arg:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            if self.how.has_text_keys() {
                return self.key(visitor, |key, visitor| key.$method($($arg,)* visitor));
            }
            let visitor = PackedVisitor { inner: visitor, how: self.how };
            self.inner.$method($($arg,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> PackedReader<D> {
    /// Reads a key that is what its text says.
    #[cold]
    fn key<V: Visitor<'de>>(
        self,
        visitor: V,
        read: impl FnOnce(Key<'_>, V) -> Result<V::Value, JsonError>,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(KeyVisitor { inner: visitor, read })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for PackedReader<D> {
    type Error = D::Error;

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

    deserialize_nested! {
        deserialize_any();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_ignored_any();
    }

    deserialize_compound! {
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
    }

    /// The name of a field or a variant is never an extension.
    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        if self.how.has_text_keys() {
            return self.key(visitor, |key, visitor| key.deserialize_option(visitor));
        }
        let visitor = PackedVisitor { inner: visitor, how: self.how };
        self.inner.deserialize_option(visitor)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        match name {
            // A type that knows extensions.
            EXTENSION => self.inner.deserialize_newtype_struct(name, visitor),
            VALUE => {
                let how = How { keeps_extensions: true, ..self.how };
                visitor.visit_newtype_struct(PackedReader { inner: self.inner, how })
            }
            RAW => {
                // The codec bounds how deep the value is.
                let value = Value::deserialize(self)?;
                let mut json = Vec::new();
                value.serialize(&mut JsonWriter::new(&mut json)).map_err(D::Error::custom)?;
                visitor.visit_map(RawValue::new(&String::from_utf8(json).map_err(D::Error::custom)?))
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        if self.how.has_text_keys() {
            return self.key(visitor, |key, visitor| key.deserialize_enum(name, variants, visitor));
        }
        let visitor = PackedVisitor { inner: visitor, how: self.how };
        self.inner.deserialize_enum(name, variants, visitor)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Whether a type is the value of serde_json, which makes null of a float that JSON lacks, without a word.
fn is_json<T>() -> bool {
    std::any::type_name::<T>() == std::any::type_name::<serde_json::Value>()
}

struct PackedVisitor<V> {
    inner: V,
    how: How,
}

macro_rules! visit_same {
    ($($method:ident: $value:ty),* $(,)?) => {$(
        #[inline]
        fn $method<E: Error>(self, value: $value) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for PackedVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit_same! {
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    #[inline]
    fn visit_f32<E: Error>(self, value: f32) -> Result<V::Value, E> {
        match text_of(f64::from(value)) {
            Some(text) if is_json::<V::Value>() => self.inner.visit_str(text),
            _ => self.inner.visit_f32(value),
        }
    }

    #[inline]
    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        match text_of(value) {
            Some(text) if is_json::<V::Value>() => self.inner.visit_str(text),
            _ => self.inner.visit_f64(value),
        }
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(PackedReader { inner: deserializer, how: self.how })
    }

    /// An extension: rmp-serde hands over no other newtype that nobody asked for.
    #[cold]
    #[inline(never)]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        if self.how.keeps_extensions {
            return self.inner.visit_newtype_struct(deserializer);
        }
        let (kind, bytes) = <(i8, ByteBuf)>::deserialize(deserializer)?;
        match (kind, Integer::of_bytes(&bytes)) {
            (TIMESTAMP, _) => match date(&bytes) {
                Some(text) => self.inner.visit_string(text),
                // An invalid date, which Node.js writes in JSON as null.
                None => self.inner.visit_unit(),
            },
            (INTEGER, Some(integer)) => visit_integer(integer, self.inner),
            (INTEGER, None) => Err(Error::custom("no integer type holds an integer of more than 128 bits")),
            _ => self.inner.visit_newtype_struct(Extension { kind, bytes, error: PhantomData }),
        }
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<V::Value, A::Error> {
        let value = self.inner.visit_seq(Parts { inner: &mut seq, how: self.how.within() })?;
        // A tuple takes only as many as it has: rmp-serde looks for more in a list, and not in a byte string that it delivers as a list.
        match seq.size_hint() {
            None | Some(0) => Ok(value),
            Some(more) => Err(too_long(more)),
        }
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Parts { inner: map, how: self.how.within() })
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Parts { inner: access, how: self.how.within() })
    }
}

/// The elements of a list, the entries of a map, or the body of a variant.
struct Parts<A> {
    inner: A,
    how: How,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Parts<A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Seed { inner: seed, how: self.how })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Parts<A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Seed { inner: seed, how: How { is_key: true, ..self.how } })
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Seed { inner: seed, how: self.how })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Parts<A> {
    type Error = A::Error;
    type Variant = Parts<A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let Self { inner, how } = self;
        let (name, variant) = inner.variant_seed(Seed { inner: seed, how })?;
        Ok((name, Parts { inner: variant, how }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Parts<A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Seed { inner: seed, how: self.how })
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, PackedVisitor { inner: visitor, how: self.how })
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, PackedVisitor { inner: visitor, how: self.how })
    }
}

/// An extension that has been read already.
struct Extension<E> {
    kind: i8,
    bytes: ByteBuf,
    error: PhantomData<E>,
}

impl<'de, E: Error> Deserializer<'de> for Extension<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        let parts = [Part::Kind(self.kind), Part::Bytes(self.bytes.into_vec())];
        visitor.visit_seq(SeqDeserializer::new(parts.into_iter()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

enum Part {
    Kind(i8),
    Bytes(Vec<u8>),
}

/// A [`Part`], for an error of the type `E`.
struct ReadPart<E>(Part, PhantomData<E>);

impl<'de, E: Error> IntoDeserializer<'de, E> for Part {
    type Deserializer = ReadPart<E>;

    fn into_deserializer(self) -> ReadPart<E> {
        ReadPart(self, PhantomData)
    }
}

impl<'de, E: Error> Deserializer<'de> for ReadPart<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.0 {
            Part::Kind(kind) => visitor.visit_i8(kind),
            Part::Bytes(bytes) => visitor.visit_byte_buf(bytes),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The visitor of a float of the type `F`.
struct FloatVisitor<V, F> {
    inner: V,
    float: PhantomData<F>,
}

impl<V, F: Float> FloatVisitor<V, F> {
    #[cold]
    fn integer<'de, E: Error>(self, digits: &str) -> Result<V::Value, E>
    where
        V: Visitor<'de>,
    {
        match float_of_integer::<F>(digits) {
            Some(float) => self.inner.visit_f64(float.widened()),
            None => Err(Error::custom(no_float_of_integer(digits))),
        }
    }
}

impl<'de, V: Visitor<'de>, F: Float> Visitor<'de> for FloatVisitor<V, F> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.expecting(f)
    }

    #[inline]
    fn visit_f32<E: Error>(self, value: f32) -> Result<V::Value, E> {
        self.inner.visit_f32(value)
    }

    #[inline]
    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        if size_of::<F>() == size_of::<f32>() && value.is_finite() && (value as f32).is_infinite() {
            return Err(Error::custom(format_args!("{value:e} is beyond the range of a float of 32 bits")));
        }
        self.inner.visit_f64(value)
    }

    /// An integer of 16 bits is held by every float.
    #[inline]
    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        if value <= u64::from(u16::MAX) {
            return self.inner.visit_u64(value);
        }
        self.integer(&value.to_string())
    }

    #[inline]
    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        if value.unsigned_abs() <= u64::from(u16::MAX) {
            return self.inner.visit_i64(value);
        }
        self.integer(&value.to_string())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.inner.visit_bool(value)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<V::Value, E> {
        self.inner.visit_bytes(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        match float_of(value) {
            Some(float) => self.inner.visit_f64(float),
            None => self.inner.visit_str(value),
        }
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        match read_integer(deserializer)? {
            Integer::Unsigned(value) => self.integer(&value.to_string()),
            Integer::Negative(value) => self.integer(&value.to_string()),
        }
    }
}

/// The integer that an extension holds.
fn read_integer<'de, D: Deserializer<'de>>(extension: D) -> Result<Integer, D::Error> {
    let (kind, bytes) = <(i8, ByteBuf)>::deserialize(extension)?;
    if kind != INTEGER {
        return Err(Error::custom(format_args!("found an extension of kind {kind}, expected a number")));
    }
    Integer::of_bytes(&bytes)
        .ok_or_else(|| Error::custom("no integer type holds an integer of more than 128 bits"))
}

/// The integer that a float is, if the float is whole and has more than 32 bits: programs of Node.js have no other form for such an integer.
fn long_of(float: f64) -> Option<Integer> {
    const TWO_TO_127: f64 = (1_u128 << 127) as f64;
    let is_long = float > f64::from(u32::MAX) || float < f64::from(i32::MIN);
    // The casts are exact: a float that is whole and in the range is one of the integers.
    match float {
        _ if !is_long || float.fract() != 0.0 => None,
        _ if float > 0.0 && float < 2.0 * TWO_TO_127 => Some(Integer::Unsigned(float as u128)),
        _ if (-TWO_TO_127..0.0).contains(&float) => Some(Integer::Negative(float as i128)),
        _ => None,
    }
}

/// The visitor of an integer of 64 bits. A float with a fraction, or out of the range of the type, is an error of the type.
struct LongVisitor<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for LongVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.expecting(f)
    }

    #[inline]
    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.0.visit_u64(value)
    }

    #[inline]
    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.0.visit_i64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        match long_of(value) {
            Some(integer) => visit_integer(integer, self.0),
            None => self.0.visit_f64(value),
        }
    }

    fn visit_f32<E: Error>(self, value: f32) -> Result<V::Value, E> {
        self.0.visit_f32(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.0.visit_bool(value)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        self.0.visit_str(value)
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<V::Value, E> {
        self.0.visit_bytes(value)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(map)
    }
}

#[derive(Clone, Copy)]
enum Wide {
    Signed,
    Unsigned,
}

/// The visitor of an integer of 128 bits.
struct WideVisitor<V> {
    inner: V,
    kind: Wide,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for WideVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit_same! {
        visit_bool: bool,
        visit_i64: i64,
        visit_u64: u64,
        visit_f32: f32,
        visit_str: &str,
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        match long_of(value) {
            Some(integer) => visit_integer(integer, self.inner),
            None => self.inner.visit_f64(value),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    /// As rmp-serde writes an integer of 128 bits.
    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<V::Value, E> {
        match (value.try_into(), self.kind) {
            (Ok(bytes), Wide::Signed) => self.inner.visit_i128(i128::from_be_bytes(bytes)),
            (Ok(bytes), Wide::Unsigned) => self.inner.visit_u128(u128::from_be_bytes(bytes)),
            (Err(_), _) => self.inner.visit_bytes(value),
        }
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        visit_integer(read_integer(deserializer)?, self.inner)
    }
}

/// The visitor of a key that is a text, which `read` reads. Another key is an error: a number beside its own text would be the same key.
struct KeyVisitor<V, F> {
    inner: V,
    read: F,
}

impl<'de, V, F> Visitor<'de> for KeyVisitor<V, F>
where
    V: Visitor<'de>,
    F: FnOnce(Key<'_>, V) -> Result<V::Value, JsonError>,
{
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        (self.read)(Key(value), self.inner).map_err(E::custom)
    }
}
/// The error of a list with so many elements more than the type takes.
#[cold]
fn too_long<E: Error>(more: usize) -> E {
    E::custom(format_args!("the list has {more} elements more than the type takes"))
}

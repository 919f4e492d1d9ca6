//! The visitors of numbers and keys in MessagePack, for the forms that other types, other languages and JSON give to them.

use crate::value::extension::{INTEGER, Integer, visit_integer};
use crate::value::json_reader::Key;
use crate::value::json_writer::JsonError;
use crate::value::number::{Float, float_of, float_of_integer, no_float_of_integer};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_bytes::ByteBuf;
use std::fmt;
use std::marker::PhantomData;

macro_rules! visit_same {
    ($($method:ident: $value:ty),* $(,)?) => {$(
        #[inline]
        fn $method<E: Error>(self, value: $value) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

/// The visitor of a float of the type `F`.
pub(super) struct FloatVisitor<V, F> {
    pub(super) inner: V,
    pub(super) float: PhantomData<F>,
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
pub(super) struct LongVisitor<V>(pub(super) V);

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
pub(super) enum Wide {
    Signed,
    Unsigned,
}

/// The visitor of an integer of 128 bits.
pub(super) struct WideVisitor<V> {
    pub(super) inner: V,
    pub(super) kind: Wide,
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
pub(super) struct KeyVisitor<V, F> {
    pub(super) inner: V,
    pub(super) read: F,
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

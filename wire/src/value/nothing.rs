//! Whether a value is written as nothing, as `None` and `()` are, and whether it may be left out. It writes the value for a serializer that stops at anything else.

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{Impossible, Serialize, Serializer};
use std::fmt;

/// Whether MessagePack, or JSON, writes the value as nothing. JSON does so with unit structs too. Costs no more than the first step of writing the value.
#[inline]
pub(crate) fn is_nothing<T: Serialize + ?Sized>(value: &T, unit_structs: bool) -> bool {
    value.serialize(Nothing { within_some: true, unit_structs }).is_ok()
}

/// Whether the value is a `None` that a field of its type need not be there for: serde reads a field that is absent as `None` where its type
/// is an `Option`, and refuses it where a type of its own has the `None` within.
#[inline]
#[must_use]
pub fn is_absent<T: Serialize + DeserializeOwned>(value: &T) -> bool {
    value.serialize(Nothing { within_some: false, unit_structs: false }).is_ok()
        && T::deserialize(Absent).is_ok()
}

/// A field that is absent, as derived types read it.
struct Absent;

impl<'de> Deserializer<'de> for Absent {
    type Error = Something;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Something> {
        Err(Something)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Something> {
        visitor.visit_none()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Takes nothing, and refuses anything else.
struct Nothing {
    /// Whether a unit counts too.
    within_some: bool,
    /// Whether a unit struct counts.
    unit_structs: bool,
}

/// The value is something.
#[derive(Debug)]
struct Something;

impl fmt::Display for Something {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
}

impl std::error::Error for Something {}

impl serde::ser::Error for Something {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Something
    }
}

impl serde::de::Error for Something {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Something
    }
}

macro_rules! something {
    ($($method:ident($($argument:ty),*) -> $result:ty;)*) => {$(
        #[inline]
        fn $method(self, $(_: $argument),*) -> Result<$result, Something> {
            Err(Something)
        }
    )*};
}

type Never = Impossible<(), Something>;

impl Serializer for Nothing {
    type Ok = ();
    type Error = Something;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    something! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_i128(i128) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_u128(u128) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Something> {
        Ok(())
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Something> {
        if self.within_some { Ok(()) } else { Err(Something) }
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Something> {
        if self.unit_structs { Ok(()) } else { Err(Something) }
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Something> {
        // The encodings write a `Some` as its content.
        if self.within_some { value.serialize(self) } else { Err(Something) }
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Something> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Something> {
        Err(Something)
    }

    #[inline]
    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<(), Something> {
        Err(Something)
    }
}

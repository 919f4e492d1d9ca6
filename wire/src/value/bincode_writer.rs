//! Bincode, written: version 2 with its standard configuration, byte for byte. Written here and not by the library for the reason of
//! `packed_writer.rs`; the tests hold it against the library, which writes the heads of frames. What a value tells while it is written is summed up
//! by [`super::told`].

use crate::value::writer::{CodecError, Writer};
use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// The marks of integers of 2, 4, 8 and 16 bytes, little end first. Smaller integers are one byte.
pub(super) const TWO_BYTES: u8 = 251;
pub(super) const FOUR_BYTES: u8 = 252;
pub(super) const EIGHT_BYTES: u8 = 253;
pub(super) const SIXTEEN_BYTES: u8 = 254;

/// A serializer that writes bincode.
pub(super) struct BincodeWriter<'w>(pub(super) &'w mut Writer);

type Written = Result<(), CodecError>;

impl BincodeWriter<'_> {
    /// The writer of a part of this value.
    #[inline(always)]
    fn part(&mut self) -> BincodeWriter<'_> {
        BincodeWriter(self.0)
    }

    #[inline(always)]
    fn unsigned(&mut self, value: u64) {
        match value {
            0..251 => self.0.put_array([value as u8]),
            _ => long_unsigned(self.0, value),
        }
    }

    /// The number of elements that follow.
    #[inline(always)]
    fn len(&mut self, len: usize) {
        self.unsigned(len as u64);
    }
}

#[inline(never)]
fn long_unsigned(writer: &mut Writer, value: u64) {
    // The casts keep all digits.
    match value {
        0..0x1_0000 => {
            let [a, b] = (value as u16).to_le_bytes();
            writer.put_array([TWO_BYTES, a, b]);
        }
        0x1_0000..0x1_0000_0000 => {
            let [a, b, c, d] = (value as u32).to_le_bytes();
            writer.put_array([FOUR_BYTES, a, b, c, d]);
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
            writer.put_array([EIGHT_BYTES, a, b, c, d, e, f, g, h]);
        }
    }
}

/// An unsigned integer that is small where the integer is near zero: its lowest bit says whether it is negative.
#[inline(always)]
fn folded(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

macro_rules! serialize_integers {
    ($($method:ident($value:ident: $type:ty) => $written:expr;)*) => {$(
        #[inline(always)]
        fn $method(mut self, $value: $type) -> Written {
            self.unsigned($written);
            Ok(())
        }
    )*};
}

impl<'w> Serializer for BincodeWriter<'w> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    serialize_integers! {
        serialize_i16(value: i16) => folded(value.into());
        serialize_i32(value: i32) => folded(value.into());
        serialize_i64(value: i64) => folded(value);
        serialize_u16(value: u16) => value.into();
        serialize_u32(value: u32) => value.into();
        serialize_u64(value: u64) => value;
    }

    fn serialize_i128(self, value: i128) -> Written {
        self.serialize_u128((value << 1 ^ value >> 127) as u128)
    }

    fn serialize_u128(mut self, value: u128) -> Written {
        match u64::try_from(value) {
            Ok(value) => self.unsigned(value),
            Err(_) => {
                self.0.put_array([SIXTEEN_BYTES]);
                self.0.put_array(value.to_le_bytes());
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn serialize_bool(self, value: bool) -> Written {
        self.serialize_u8(value.into())
    }

    #[inline(always)]
    fn serialize_i8(self, value: i8) -> Written {
        self.serialize_u8(value as u8)
    }

    #[inline(always)]
    fn serialize_u8(self, value: u8) -> Written {
        self.0.put_array([value]);
        Ok(())
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Written {
        self.0.put_array(value.to_le_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Written {
        self.0.put_array(value.to_le_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Written {
        self.0.put(value.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Written {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(mut self, value: &[u8]) -> Written {
        self.len(value.len());
        self.0.put(value);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Written {
        self.serialize_u8(0)
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        self.0.put_array([1]);
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_unit(self) -> Written {
        Ok(())
    }

    #[inline(always)]
    fn serialize_unit_struct(self, _: &'static str) -> Written {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Written {
        self.serialize_u32(index)
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Written {
        self.unsigned(index.into());
        value.serialize(self)
    }

    #[inline]
    fn serialize_seq(mut self, len: Option<usize>) -> Result<Self, CodecError> {
        self.len(len.ok_or_else(uncounted)?);
        Ok(self)
    }

    #[inline(always)]
    fn serialize_tuple(self, _: usize) -> Result<Self, CodecError> {
        Ok(self)
    }

    #[inline(always)]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, CodecError> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, CodecError> {
        self.unsigned(index.into());
        Ok(self)
    }

    #[inline]
    fn serialize_map(mut self, len: Option<usize>) -> Result<Self, CodecError> {
        self.len(len.ok_or_else(uncounted)?);
        Ok(self)
    }

    #[inline(always)]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, CodecError> {
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, CodecError> {
        self.unsigned(index.into());
        Ok(self)
    }

    #[inline(always)]
    fn is_human_readable(&self) -> bool {
        false
    }
}

#[cold]
fn uncounted() -> CodecError {
    Error::custom("bincode writes a list or a map only if it knows before how many elements there are")
}

macro_rules! serialize_parts {
    ($($trait:ident $method:ident;)*) => {$(
        impl $trait for BincodeWriter<'_> {
            type Ok = ();
            type Error = CodecError;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
                value.serialize(self.part())
            }

            #[inline(always)]
            fn end(self) -> Written {
                Ok(())
            }
        }
    )*};
}

serialize_parts! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! serialize_fields {
    ($($trait:ident;)*) => {$(
        impl $trait for BincodeWriter<'_> {
            type Ok = ();
            type Error = CodecError;

            #[inline(always)]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Written {
                value.serialize(self.part())
            }

            #[inline(always)]
            fn end(self) -> Written {
                Ok(())
            }
        }
    )*};
}

serialize_fields! {
    SerializeStruct;
    SerializeStructVariant;
}

impl SerializeMap for BincodeWriter<'_> {
    type Ok = ();
    type Error = CodecError;

    #[inline(always)]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        key.serialize(self.part())
    }

    #[inline(always)]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        value.serialize(self.part())
    }

    #[inline(always)]
    fn end(self) -> Written {
        Ok(())
    }
}

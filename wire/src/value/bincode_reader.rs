//! Bincode, read: see `bincode_writer.rs`. What the type asks for is summed up meanwhile, and held within the bounds of [`super::bounded`]: no type
//! recurses deeper, and none is given more elements, than the bytes are good for.

use super::sum::event::{self, Kind};
use super::told::Teller;
use crate::copy::copy_of;
use crate::limits::{DEPTH_MAX, EMPTY_ELEMENTS_MAX};
use crate::value::bincode_writer::{EIGHT_BYTES, FOUR_BYTES, SIXTEEN_BYTES, TWO_BYTES};
use crate::value::writer::{CodecError, too_deep, too_many_elements};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

/// The bytes of bincode that are still to be read, the bounds of the value, and what is done with what its type asks for.
pub(super) struct BincodeBytes<'de, T> {
    rest: &'de [u8],
    /// How many lists, maps, tuples, structs, newtypes, enums and `Some`s may still begin within each other.
    depth_left: usize,
    /// How many elements and entries lists and maps may still claim. The elements of tuples and structs are not counted: how many there
    /// are is up to the type.
    elements_left: usize,
    elements_max: usize,
    teller: T,
}

impl<'de, T: Teller> BincodeBytes<'de, T> {
    #[inline]
    pub(super) fn new(bytes: &'de [u8], teller: T) -> Self {
        // An honest value has no more elements that take a byte or more than bytes.
        let elements_max = bytes.len() + EMPTY_ELEMENTS_MAX;
        Self { rest: bytes, depth_left: DEPTH_MAX, elements_left: elements_max, elements_max, teller }
    }

    /// What was told.
    #[inline]
    pub(super) fn teller(&self) -> &T {
        &self.teller
    }

    /// How many bytes have not been read.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(super) fn reader(&mut self) -> BincodeReader<'_, 'de, T> {
        BincodeReader(self)
    }

    #[inline(always)]
    fn tell(&self, event: u64) {
        self.teller.tell(|| event);
    }

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

    /// An integer of at most `MAX` bytes.
    #[inline(always)]
    fn unsigned<const MAX: u8>(&mut self) -> Result<u64, CodecError> {
        match self.byte()? {
            byte @ 0..TWO_BYTES => Ok(byte.into()),
            TWO_BYTES => Ok(u16::from_le_bytes(self.take()?).into()),
            mark => self.long_unsigned(mark, MAX),
        }
    }

    #[inline(never)]
    fn long_unsigned(&mut self, mark: u8, max: u8) -> Result<u64, CodecError> {
        match mark {
            FOUR_BYTES if max >= 4 => Ok(u32::from_le_bytes(self.take()?).into()),
            EIGHT_BYTES if max >= 8 => Ok(u64::from_le_bytes(self.take()?)),
            mark => Err(too_wide(mark, max)),
        }
    }

    fn wide(&mut self) -> Result<u128, CodecError> {
        match self.rest {
            [SIXTEEN_BYTES, rest @ ..] => {
                self.rest = rest;
                Ok(u128::from_le_bytes(self.take()?))
            }
            _ => self.unsigned::<8>().map(u128::from),
        }
    }

    /// The number of elements that follow.
    #[inline]
    fn len(&mut self) -> Result<usize, CodecError> {
        // A number that no memory holds is more than the bytes that are left.
        Ok(usize::try_from(self.unsigned::<8>()?).unwrap_or(usize::MAX))
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8], CodecError> {
        let len = self.len()?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn char(&mut self) -> Result<char, CodecError> {
        let len = match self.rest.first().ok_or_else(cut)? {
            0..0x80 => 1,
            0xC2..0xE0 => 2,
            0xE0..0xF0 => 3,
            0xF0..0xF5 => 4,
            _ => return Err(no_char()),
        };
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(cut)?;
        self.rest = rest;
        std::str::from_utf8(taken).ok().and_then(|text| text.chars().next()).ok_or_else(no_char)
    }

    /// Runs `read` one level deeper.
    #[inline(always)]
    fn inside<R>(&mut self, read: impl FnOnce(&mut Self) -> Result<R, CodecError>) -> Result<R, CodecError> {
        let Some(left) = self.depth_left.checked_sub(1) else { return Err(too_deep()) };
        self.depth_left = left;
        let value = read(self);
        self.depth_left = left + 1;
        value
    }

    /// The number of elements of a list or a map. A false claim fails before a type makes room for its elements.
    #[inline]
    fn paid_len(&mut self) -> Result<usize, CodecError> {
        let len = self.len()?;
        let Some(left) = self.elements_left.checked_sub(len) else {
            return Err(too_many_elements(self.elements_max));
        };
        self.elements_left = left;
        Ok(len)
    }

    /// Hands over this many elements; `end` is the event of their end.
    #[inline(always)]
    fn elements<V: Visitor<'de>>(
        &mut self,
        len: usize,
        end: impl FnOnce(usize) -> u64,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.inside(|input| {
            let mut parts = Parts { input, left: len };
            let value = visitor.visit_seq(&mut parts)?;
            let count = len - parts.left;
            parts.input.teller.tell(|| end(count));
            Ok(value)
        })
    }
}

#[cold]
fn cut() -> CodecError {
    Error::custom("the bytes end before the value does")
}

#[cold]
fn too_wide(mark: u8, max: u8) -> CodecError {
    let len = match mark {
        FOUR_BYTES => 4,
        EIGHT_BYTES => 8,
        SIXTEEN_BYTES => 16,
        _ => return Error::custom(format_args!("found the byte {mark}, with which no integer begins")),
    };
    Error::custom(format_args!("found an integer of {len} bytes, expected one of {max} at most"))
}

#[cold]
fn no_char() -> CodecError {
    Error::custom("found bytes that are no character in UTF-8")
}

#[cold]
fn neither(byte: u8, what: &str) -> CodecError {
    Error::custom(format_args!("found the byte {byte}, expected {what}, which is 0 or 1"))
}

#[cold]
fn undescribed() -> CodecError {
    Error::custom("bincode does not describe its values: a type must say what it expects")
}

/// The integer of which [`super::bincode_writer`] made this one.
#[inline(always)]
fn unfolded(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A deserializer that reads the next value.
pub(super) struct BincodeReader<'i, 'de, T>(&'i mut BincodeBytes<'de, T>);

macro_rules! deserialize_flat {
    ($($method:ident $visit:ident $event:ident |$input:ident| $read:expr;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            let $input = self.0;
            let value = $read;
            $input.tell(event::$event);
            visitor.$visit(value)
        }
    )*};
}

impl<'de, T: Teller> Deserializer<'de> for BincodeReader<'_, 'de, T> {
    type Error = CodecError;

    // The casts keep all digits of integers of so many bytes.
    deserialize_flat! {
        deserialize_bool visit_bool BOOL |input| match input.byte()? {
            byte @ (0 | 1) => byte == 1,
            byte => return Err(neither(byte, "a bool")),
        };
        deserialize_i8 visit_i8 I8 |input| input.byte()? as i8;
        deserialize_i16 visit_i16 INT |input| unfolded(input.unsigned::<2>()?) as i16;
        deserialize_i32 visit_i32 INT |input| unfolded(input.unsigned::<4>()?) as i32;
        deserialize_i64 visit_i64 INT |input| unfolded(input.unsigned::<8>()?);
        deserialize_i128 visit_i128 INT |input| {
            let value = input.wide()?;
            (value >> 1) as i128 ^ -((value & 1) as i128)
        };
        deserialize_u8 visit_u8 U8 |input| input.byte()?;
        deserialize_u16 visit_u16 UINT |input| input.unsigned::<2>()? as u16;
        deserialize_u32 visit_u32 UINT |input| input.unsigned::<4>()? as u32;
        deserialize_u64 visit_u64 UINT |input| input.unsigned::<8>()?;
        deserialize_u128 visit_u128 UINT |input| input.wide()?;
        deserialize_f32 visit_f32 F32 |input| f32::from_le_bytes(input.take()?);
        deserialize_f64 visit_f64 F64 |input| f64::from_le_bytes(input.take()?);
        deserialize_char visit_char CHAR |input| input.char()?;
        deserialize_str visit_borrowed_str BYTES |input| {
            std::str::from_utf8(input.bytes()?).map_err(CodecError::custom)?
        };
        deserialize_string visit_borrowed_str BYTES |input| {
            std::str::from_utf8(input.bytes()?).map_err(CodecError::custom)?
        };
        deserialize_bytes visit_borrowed_bytes BYTES |input| input.bytes()?;
        deserialize_byte_buf visit_byte_buf BYTES |input| copy_of(input.bytes()?);
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.0.byte()? {
            0 => {
                self.0.tell(event::NONE);
                visitor.visit_none()
            }
            1 => {
                self.0.tell(event::SOME);
                self.0.inside(|input| visitor.visit_some(input.reader()))
            }
            byte => Err(neither(byte, "an option")),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.0.inside(|input| visitor.visit_newtype_struct(input.reader()))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let len = self.0.paid_len()?;
        self.0.elements(len, event::list, visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.0.elements(len, event::record, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.0.elements(len, event::record, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let len = self.0.paid_len()?;
        self.0.inside(|input| {
            let mut parts = Parts { input, left: len };
            let value = visitor.visit_map(&mut parts)?;
            let count = len - parts.left;
            parts.input.teller.tell(|| event::map(count));
            Ok(value)
        })
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.0.teller.fields(fields);
        self.0.elements(fields.len(), event::record, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_enum(Enum { input: self.0, variants })
    }

    #[cold]
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(undescribed())
    }

    #[cold]
    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(undescribed())
    }

    #[cold]
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(undescribed())
    }

    #[inline(always)]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a list, a tuple or a struct, or the entries of a map.
struct Parts<'i, 'de, T> {
    input: &'i mut BincodeBytes<'de, T>,
    /// How many have not been read.
    left: usize,
}

impl<'de, T: Teller> SeqAccess<'de> for Parts<'_, 'de, T> {
    type Error = CodecError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.input.reader()).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de, T: Teller> MapAccess<'de> for Parts<'_, 'de, T> {
    type Error = CodecError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, CodecError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.input.reader()).map(Some)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, CodecError> {
        seed.deserialize(self.input.reader())
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// An enum whose variant is not known yet.
struct Enum<'i, 'de, T> {
    input: &'i mut BincodeBytes<'de, T>,
    variants: &'static [&'static str],
}

/// The content of a variant.
struct Variant<'i, 'de, T> {
    input: &'i mut BincodeBytes<'de, T>,
    /// The name of the variant; empty if the type has no variant of this number.
    name: &'static str,
}

impl<'i, 'de, T: Teller> EnumAccess<'de> for Enum<'i, 'de, T> {
    type Error = CodecError;
    type Variant = Variant<'i, 'de, T>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), CodecError> {
        let Self { input, variants } = self;
        let number = input.unsigned::<4>()? as u32;
        let value = input.inside(|_| seed.deserialize(number.into_deserializer()))?;
        let name = variants.get(number as usize).copied().unwrap_or_default();
        Ok((value, Variant { input, name }))
    }
}

impl<T: Teller> Variant<'_, '_, T> {
    #[inline(always)]
    fn tell(&self, kind: Kind) {
        self.input.teller.tell(|| event::variant(self.name, kind));
    }
}

impl<'de, T: Teller> VariantAccess<'de> for Variant<'_, 'de, T> {
    type Error = CodecError;

    #[inline]
    fn unit_variant(self) -> Result<(), CodecError> {
        self.tell(Kind::Unit);
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, CodecError> {
        self.tell(Kind::Newtype);
        self.input.inside(|input| seed.deserialize(input.reader()))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.tell(Kind::Tuple);
        self.input.elements(len, event::record, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.tell(Kind::Struct);
        self.input.teller.fields(fields);
        self.input.elements(fields.len(), event::record, visitor)
    }
}

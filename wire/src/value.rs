//! The codecs that write and read a user's values: another codec would be added here, and `value/` has what is written and read
//! differently from them. The heads of frames are bincode too and are read and written here.

mod any;
mod bincode_reader;
mod bincode_writer;
mod bounded;
mod distinct;
mod explain;
mod extension;
mod json_reader;
mod json_writer;
mod nothing;
mod number;
pub(crate) mod packed;
mod packed_reader;
mod packed_visitors;
mod packed_writer;
mod position;
mod sum;
mod told;
mod trace;
mod writer;

pub use any::Value;
pub(crate) use extension::{INTEGER, Integer};
pub use nothing::is_absent;
pub(crate) use sum::SUM_LEN;
pub use trace::{Obstacle, Traced, TypeShape, Untraceable, trace};
pub use writer::SMALL_VALUE_LEN_MAX;

use self::sum::Sum;
use self::told::{Described, Named, Teller, ToldValue};
use crate::accepts::Form;
use crate::encoding::Encoding;
use crate::error::{Code, Fate, cut_at};
use crate::limits::{DEPTH_MAX, EMPTY_ELEMENTS_MAX, FRAME_LEN_MAX, HEAD_ELEMENTS_MAX, REASON_LEN_MAX};
use crate::payload::{CallError, Callbacks, Payload, PayloadRef};
use crate::value::bincode_reader::BincodeBytes;
use crate::value::bincode_writer::BincodeWriter;
use crate::value::json_reader::{read_json, without_byte_order_mark};
use crate::value::json_writer::JsonWriter;
use crate::value::packed_reader::PackedBytes;
use crate::value::packed_writer::PackedWriter;
use crate::value::writer::Writer;
use bytes::{BufMut, BytesMut};
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize, Deserializer, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A value cannot be written in the encoding.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a {written} cannot be written as {encoding}: {reason}")]
pub struct EncodeError {
    /// The encoding that was asked for.
    pub encoding: Encoding,
    /// The type of the value.
    pub written: &'static str,
    /// The place in the value, what stands there, and the way out.
    pub reason: String,
}

/// The bytes are not the value that was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the {encoding} of a {expected}: {reason}")]
pub struct DecodeError {
    /// The encoding that the bytes claim.
    pub encoding: Encoding,
    /// The type that was expected.
    pub expected: &'static str,
    /// The place in the value, what was found there, what was expected, and the way out.
    pub reason: String,
}

impl From<EncodeError> for CallError {
    fn from(error: EncodeError) -> Self {
        CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, error.to_string())
    }
}

impl From<DecodeError> for CallError {
    fn from(error: DecodeError) -> Self {
        CallError::new(Code::CANNOT_DECODE, Fate::Failed, error.to_string())
    }
}

impl Payload {
    /// Writes a value. Costs a pass over the value, and one allocation if the payload is small; larger payloads share a buffer.
    ///
    /// # Errors
    ///
    /// When the encoding has no form for the value, such as a map in JSON whose keys have equal texts.
    #[inline]
    pub fn encode<T: Serialize + ?Sized>(form: impl Into<Form>, value: &T) -> Result<Self, EncodeError> {
        let form = form.into();
        let mut writer = Writer::default();
        let callbacks = written(form, value, &mut writer)?;
        Ok(Self { encoding: form.encoding(), bytes: writer.finish(), callbacks })
    }

    /// Writes a value, as [`Payload::encode`] does. A value of at most 64 bytes without functions becomes no payload: its bytes are handed
    /// to `small`, which spares the allocation.
    ///
    /// # Errors
    ///
    /// As [`Payload::encode`].
    #[doc(hidden)]
    #[inline]
    pub fn encode_unless_small<T: Serialize + ?Sized>(
        form: impl Into<Form>,
        value: &T,
        small: impl FnOnce(&[u8]),
    ) -> Result<Option<Self>, EncodeError> {
        let form = form.into();
        let mut writer = Writer::default();
        let callbacks = written(form, value, &mut writer)?;
        match writer.small() {
            Some(bytes) if callbacks.is_empty() => {
                small(bytes);
                Ok(None)
            }
            _ => Ok(Some(Self { encoding: form.encoding(), bytes: writer.finish(), callbacks })),
        }
    }

    /// As [`Payload::encode_unless_small`], but `small` gets the whole array that the bytes stand in and their number: a copy of the whole
    /// array is cheaper than a copy of a variable length. `other` gets the payload of a value that is not small.
    ///
    /// # Errors
    ///
    /// As [`Payload::encode`].
    #[doc(hidden)]
    #[inline]
    pub fn encode_in_room<T: Serialize + ?Sized, R>(
        form: impl Into<Form>,
        value: &T,
        small: impl FnOnce(&[u8; SMALL_VALUE_LEN_MAX], usize) -> R,
        other: impl FnOnce(Self) -> R,
    ) -> Result<R, EncodeError> {
        let form = form.into();
        let mut writer = Writer::default();
        let callbacks = written(form, value, &mut writer)?;
        Ok(match writer.small_in_room() {
            Some((room, len)) if callbacks.is_empty() => small(room, len),
            _ => other(Self { encoding: form.encoding(), bytes: writer.finish(), callbacks }),
        })
    }

    /// Reads the value. Bytes left over are an error. Nesting and claimed lengths are bounded.
    ///
    /// # Errors
    ///
    /// When the bytes are not a `T`.
    #[inline]
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        PayloadRef::from(self).decode()
    }

    /// Reads the arguments of a call: see [`PayloadRef::decode_arguments`].
    ///
    /// # Errors
    ///
    /// As [`PayloadRef::decode_arguments`].
    pub fn decode_arguments<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        PayloadRef::from(self).decode_arguments()
    }

    /// The value in another encoding. Both encodings must describe themselves: bincode cannot be read without its type. In JSON, byte
    /// strings become lists of numbers, dates their text, floats that are no number `"NaN"`, `"Infinity"` or `"-Infinity"`, and keys of
    /// maps their text.
    ///
    /// # Errors
    ///
    /// When the bytes are not of their encoding, or the wanted encoding has no form for the value: JSON has none for a map whose keys
    /// have equal texts, and no encoding has one for a number that no type holds.
    pub fn transcode(&self, encoding: Encoding) -> Result<Self, CallError> {
        if encoding == self.encoding {
            return Ok(self.clone());
        }
        if !self.encoding.is_self_describing() || !encoding.is_self_describing() {
            let what = format!("{} cannot be read as {encoding} without its type", self.encoding);
            return Err(CallError::new(Code::CANNOT_DECODE, Fate::Failed, what));
        }
        let value: Value = self.decode()?;
        let written =
            Self::encode(encoding, &value).map_err(|error| CallError::from(error).with_fate(Fate::Failed))?;
        Ok(Self { callbacks: self.callbacks.clone(), ..written })
    }
}

impl PayloadRef<'_> {
    /// Reads the value. Bytes left over are an error. Nesting and claimed lengths are bounded.
    ///
    /// # Errors
    ///
    /// When the bytes are not a `T`.
    #[inline]
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, DecodeError> {
        self.decode_with(self.encoding)
    }

    /// Reads the value; one in bincode has the check of this form. Other encodings have no check.
    ///
    /// # Errors
    ///
    /// As [`PayloadRef::decode`], and when a check is not that of the form.
    #[inline]
    pub fn decode_with<T: DeserializeOwned>(self, form: impl Into<Form>) -> Result<T, DecodeError> {
        let Self { encoding, bytes, callbacks } = self;
        let form = form.into();
        callbacks.hand_out(|| {
            read(encoding, form, bytes)
                .map_err(|reason| not_read(encoding, explain::read::<T>(encoding, bytes, reason)))
        })
    }

    /// Reads the value, and does not say why it cannot be read.
    fn decode_unexplained<T: DeserializeOwned>(self) -> Option<T> {
        read(self.encoding, self.encoding.into(), self.bytes).ok()
    }

    /// Reads the arguments of a call. Callers that write lists of arguments send a list even for one argument or none: where `T` is
    /// no list, the only element of the list is read, and an empty list is read as nil.
    ///
    /// # Errors
    ///
    /// When neither the bytes nor the only element of a list are a `T`.
    #[inline]
    pub fn decode_arguments<T: DeserializeOwned>(self) -> Result<T, DecodeError> {
        self.decode().or_else(|error| self.decode_only_argument(error))
    }

    #[cold]
    fn decode_only_argument<T: DeserializeOwned>(self, error: DecodeError) -> Result<T, DecodeError> {
        match self.only_argument() {
            Some(only) => only.decode().map_err(|_| error),
            None => Err(error),
        }
    }

    /// Reads the arguments of a call, as [`PayloadRef::decode_arguments`] does; a record of arguments also by position, where `T` is a tuple or a
    /// single value, and so has no names that could be others: callers of methods of a trait send records, and a closure may answer them.
    ///
    /// # Errors
    ///
    /// As [`PayloadRef::decode_arguments`].
    #[inline]
    pub fn decode_record_or_list<T: DeserializeOwned>(self) -> Result<T, DecodeError> {
        self.decode_arguments().or_else(|error| self.decode_by_position(error))
    }

    #[cold]
    fn decode_by_position<T: DeserializeOwned>(self, error: DecodeError) -> Result<T, DecodeError> {
        let list = match self.encoding.is_self_describing().then(|| self.decode_unexplained::<Value>()) {
            Some(Some(Value::Map(entries))) if position::takes_in_order::<T>(entries.len()) => {
                Value::List(entries.into_iter().map(|(_, value)| value).collect())
            }
            _ => return Err(error),
        };
        match Payload::encode(self.encoding, &list) {
            Ok(list) => PayloadRef { bytes: &list.bytes, ..self }.decode_arguments(),
            Err(_) => Err(error),
        }
    }

    /// The only element of a list; nil for an empty list.
    fn only_argument(self) -> Option<Self> {
        let bytes = match self.encoding {
            Encoding::Bincode | Encoding::PlainBincode => return None,
            Encoding::MessagePack | Encoding::CompactMessagePack => match self.bytes {
                [0x90] | [0xDC, 0, 0] | [0xDD, 0, 0, 0, 0] => &[0xC0],
                [0x91, only @ ..] | [0xDC, 0, 1, only @ ..] | [0xDD, 0, 0, 0, 1, only @ ..] => only,
                _ => return None,
            },
            Encoding::Json => {
                let list: Vec<&serde_json::value::RawValue> =
                    serde_json::from_slice(without_byte_order_mark(self.bytes)).ok()?;
                match list[..] {
                    [] => b"null",
                    [only] => only.get().as_bytes(),
                    _ => return None,
                }
            }
        };
        Some(Self { bytes, ..self })
    }
}

#[cold]
fn not_read(encoding: Encoding, explained: explain::Explained) -> DecodeError {
    let explain::Explained { of, mut reason } = explained;
    // Codecs quote text that they cannot read, however long it is.
    reason.truncate(cut_at(&reason, REASON_LEN_MAX));
    reason.shrink_to_fit();
    DecodeError { encoding, expected: of, reason }
}

/// Writes a value into an empty writer, and notes its functions.
#[inline]
fn written<T: Serialize + ?Sized>(
    form: Form,
    value: &T,
    writer: &mut Writer,
) -> Result<Callbacks, EncodeError> {
    let (written, callbacks) = Callbacks::noted(|| write(form, value, writer));
    match written.and(callbacks) {
        Ok(callbacks) => Ok(callbacks),
        Err(reason) => {
            // Gives the shared buffer back.
            std::mem::take(writer).finish();
            Err(not_written(form, value, reason))
        }
    }
}

#[cold]
fn not_written<T: Serialize + ?Sized>(form: Form, value: &T, reason: String) -> EncodeError {
    let (explained, _) = Callbacks::noted(|| explain::write(form.encoding(), value, reason));
    let explain::Explained { of, mut reason } = explained;
    reason.truncate(cut_at(&reason, REASON_LEN_MAX));
    EncodeError { encoding: form.encoding(), written: of, reason }
}

#[inline]
fn write<T: Serialize + ?Sized>(form: Form, value: &T, writer: &mut Writer) -> Result<(), String> {
    match form.encoding() {
        Encoding::Bincode => {
            let sum = Sum::of(form.seed());
            write_bincode(&ToldValue { value, teller: &sum }, writer)?;
            writer.put_array(sum.bytes());
            Ok(())
        }
        Encoding::MessagePack => {
            let value = ToldValue { value, teller: &Described::MESSAGE_PACK };
            value.serialize(PackedWriter::new(writer)).map_err(|error| error.to_string())
        }
        other => write_rarer(other, value, writer),
    }
}

/// Apart from the usual encodings, so that these are written where their values are.
#[inline(never)]
fn write_rarer<T: Serialize + ?Sized>(
    encoding: Encoding,
    value: &T,
    writer: &mut Writer,
) -> Result<(), String> {
    match encoding {
        Encoding::Json => {
            let value = ToldValue { value, teller: &Described::JSON };
            value.serialize(&mut JsonWriter::new(writer)).map_err(|error| error.reason)
        }
        Encoding::CompactMessagePack => {
            let value = ToldValue { value, teller: &Described::MESSAGE_PACK };
            value.serialize(PackedWriter::compact(writer)).map_err(|error| error.to_string())
        }
        Encoding::PlainBincode | Encoding::Bincode | Encoding::MessagePack => write_bincode(value, writer),
    }
}

#[inline]
fn write_bincode<T: Serialize + ?Sized>(value: &T, writer: &mut Writer) -> Result<(), String> {
    value.serialize(BincodeWriter(writer)).map_err(|error| error.to_string())
}

#[inline]
fn read<T: DeserializeOwned>(encoding: Encoding, form: Form, bytes: &[u8]) -> Result<T, String> {
    match encoding {
        Encoding::Bincode => {
            let Some((value, sum)) = bytes.split_last_chunk::<SUM_LEN>() else {
                return Err("the check is missing".to_owned());
            };
            // A value whose check was begun with another signature would be read as it is not, so its reading is worth nothing.
            let mut bincode = BincodeBytes::new(value, Sum::of(form.seed()));
            let value = read_bincode(&mut bincode)?;
            if bincode.teller().bytes() == *sum { Ok(value) } else { Err(explain::OTHER_SUM.to_owned()) }
        }
        Encoding::MessagePack => {
            let mut packed = PackedBytes::new(bytes);
            read_packed(&mut packed)
                .or_else(|error| read_packed_again(encoding, form, bytes, packed.met_bytes(), error))
        }
        other => read_rarer(other, form, bytes),
    }
}

/// The self-describing encodings need bounds too: a type that holds only itself, in newtypes and options, recurses without reading a byte.
#[inline]
fn bounds(bytes: &[u8]) -> bounded::Bounds {
    bounded::Bounds::new(DEPTH_MAX, bytes.len() + EMPTY_ELEMENTS_MAX)
}

/// Apart from the usual encodings, so that these are read where their values are.
#[inline(never)]
fn read_rarer<T: DeserializeOwned>(encoding: Encoding, form: Form, bytes: &[u8]) -> Result<T, String> {
    match encoding {
        Encoding::Json => read_json(bytes, bounded::BoundedSeed::new(&bounds(bytes))),
        Encoding::CompactMessagePack => {
            let mut packed = PackedBytes::compact(bytes);
            read_packed(&mut packed)
                .or_else(|error| read_packed_again(encoding, form, bytes, packed.met_bytes(), error))
        }
        Encoding::PlainBincode | Encoding::Bincode | Encoding::MessagePack => {
            read_bincode(&mut BincodeBytes::new(bytes, Described::MESSAGE_PACK))
        }
    }
}

/// Reads a value once more that was not read as it stands. A type without byte strings, such as a type made for JSON, takes a byte string as a
/// list of numbers. What was JSON has no byte strings, and has texts that stand for keys and floats.
#[cold]
#[inline(never)]
fn read_packed_again<T: DeserializeOwned>(
    encoding: Encoding,
    form: Form,
    bytes: &[u8],
    met_bytes: bool,
    error: String,
) -> Result<T, String> {
    let packed = match encoding {
        Encoding::CompactMessagePack => PackedBytes::compact(bytes),
        _ => PackedBytes::new(bytes),
    };
    let mut packed = if met_bytes { packed.with_bytes_as_lists() } else { packed.with_texts() };
    read_packed(&mut packed)
        .ok()
        // To all types, `undefined` of Node.js is nil.
        .or_else(|| self::read(encoding, form, &packed::without_undefined(bytes)?).ok())
        .ok_or(error)
}

#[inline]
fn read_packed<T: DeserializeOwned>(packed: &mut PackedBytes<'_>) -> Result<T, String> {
    let value = packed.read().map_err(|error| error.to_string())?;
    check_all_read(packed.left())?;
    Ok(value)
}

#[inline]
fn read_bincode<T: DeserializeOwned, S: Teller>(bincode: &mut BincodeBytes<'_, S>) -> Result<T, String> {
    let value = T::deserialize(bincode.reader()).map_err(|error| error.to_string())?;
    check_all_read(bincode.left())?;
    Ok(value)
}

/// Whether a sample of a type is read from bincode as it was written there: as many values of the same kinds, in fields of the same names,
/// which come to as many bytes when they are written again.
///
/// # Errors
///
/// When the `Serialize` and the `Deserialize` of the type disagree.
pub fn try_sample<T: Serialize + DeserializeOwned>(sample: &T) -> Result<(), String> {
    // A type may panic at a value that only its own `Deserialize` makes.
    let tried = catch_unwind(AssertUnwindSafe(|| try_written_sample(sample)));
    tried.unwrap_or_else(|panic| Err(format!("a sample makes it panic: {}", trace::message(&*panic))))
}

fn try_written_sample<T: Serialize + DeserializeOwned>(sample: &T) -> Result<(), String> {
    let write = |value: &T| {
        let (mut writer, told) = (Writer::default(), Named::default());
        let (written, callbacks) =
            Callbacks::noted(|| write_bincode(&ToldValue { value, teller: &told }, &mut writer));
        let bytes = writer.finish();
        written.and(callbacks).map(|callbacks| (bytes, callbacks, told))
    };
    let (bytes, callbacks, told) = write(sample)?;
    let mut bincode = BincodeBytes::new(&bytes, Named::default());
    let read = callbacks.hand_out(|| read_bincode::<T, _>(&mut bincode))?;
    told.agree(bincode.teller())?;
    // Sets and maps have no order, so the bytes may come in another one.
    if write(&read)?.0.len() == bytes.len() {
        Ok(())
    } else {
        Err("a value that is read and written again differs".to_owned())
    }
}

#[inline]
fn check_all_read(left: usize) -> Result<(), String> {
    if left == 0 { Ok(()) } else { Err(format!("{left} bytes are left over")) }
}

/// Writes the head of a frame.
///
/// Cannot fail: heads hold only numbers, text and lists of known length, and the buffer grows.
pub(crate) fn write_head<T: Serialize>(head: &T, buffer: &mut BytesMut) {
    bincode::serde::encode_into_std_write(head, &mut buffer.writer(), bincode::config::standard())
        .expect("a head has only shapes that bincode writes");
}

/// Reads the head of a frame; gives the head and its length in bytes.
pub(crate) fn read_head<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<(T, usize), String> {
    // The head is not read through `Bounded` as a whole: that costs a request 30 ns, one sixth of its reading. The parts of a head
    // that own memory are, by `read_bounded`.
    let config = bincode::config::standard().with_limit::<FRAME_LEN_MAX>();
    bincode::serde::borrow_decode_from_slice(bytes, config).map_err(|error| error.to_string())
}

/// Reads a part of a head that owns a text or a list, within bounds. Without them, bincode makes room for a text before it looks
/// whether its bytes are there, and serde makes room for all elements of a list, which may take far more memory than their bytes.
pub(crate) fn read_bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(reader: D) -> Result<T, D::Error> {
    let bounds = bounded::Bounds::new(DEPTH_MAX, HEAD_ELEMENTS_MAX);
    bounded::BoundedSeed::new(&bounds).deserialize(reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Serializer, ser::Error};
    use serde_bytes::ByteBuf;
    use std::{cell::RefCell, sync::mpsc, thread};

    /// A value whose `Serialize` writes a payload of its own.
    struct Letter(&'static str);

    impl Serialize for Letter {
        fn serialize<S: Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
            let inner = Payload::encode(Encoding::Json, self.0).map_err(S::Error::custom)?;
            serde_bytes::serialize(&inner.bytes[..], writer)
        }
    }

    /// A byte string was read as a tuple of fewer numbers, which were its first ones.
    #[test]
    fn a_byte_string_is_no_shorter_list_than_it_is() {
        let bytes = |bytes: &[u8]| Payload::encode(Encoding::MessagePack, &ByteBuf::from(bytes)).unwrap();
        assert_eq!(bytes(&[1, 2]).decode::<[u8; 2]>(), Ok([1, 2]));
        for longer in [&[1, 2, 3][..], &[0; 70_000]] {
            assert_eq!(bytes(longer).decode::<[u8; 2]>().ok(), None, "{}", longer.len());
            assert!(bytes(longer).decode::<(u8, i64)>().is_err());
            assert!(bytes(longer).decode_arguments::<(i64,)>().is_err());
            let only = Payload::encode(Encoding::MessagePack, &(ByteBuf::from(longer),)).unwrap();
            assert!(only.decode_arguments::<(i64,)>().is_err());
        }
    }

    #[test]
    fn a_payload_may_be_written_while_another_one_is() {
        let outer = Payload::encode(Encoding::MessagePack, &(Letter("one"), Letter("two"))).unwrap();
        assert_eq!(&outer.bytes[..], b"\x92\xC4\x05\"one\"\xC4\x05\"two\"");
        assert_eq!(&Payload::encode(Encoding::Json, &3).unwrap().bytes[..], b"3");
    }

    #[test]
    fn a_payload_is_read_to_its_end() {
        for encoding in [Encoding::Bincode, Encoding::MessagePack, Encoding::Json] {
            let written = Payload::encode(encoding, &(Some("text"), vec![1_u8, 2], None::<i32>)).unwrap();
            let read = |bytes: Vec<u8>| {
                Payload::new(encoding, bytes).decode::<(Option<String>, Vec<u8>, Option<i32>)>()
            };
            assert_eq!(read(written.bytes.to_vec()).unwrap(), (Some("text".to_owned()), vec![1, 2], None));
            for byte in 0..=u8::MAX {
                let more = [&written.bytes[..], &[byte]].concat();
                let blank = encoding == Encoding::Json && byte.is_ascii_whitespace() && byte != b'\x0c';
                assert_eq!(read(more).is_ok(), blank, "{encoding:?} and {byte:#x}");
            }
            for len in 0..written.len() {
                assert!(read(written.bytes[..len].to_vec()).is_err(), "{encoding:?} cut after {len}");
            }
        }
    }

    /// A number that its type may refuse.
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "u8")]
    struct Even(#[expect(dead_code, reason = "it is read, and that is all")] u8);

    impl TryFrom<u8> for Even {
        type Error = String;

        fn try_from(number: u8) -> Result<Self, String> {
            if number.is_multiple_of(2) { Ok(Self(number)) } else { Err(format!("{number} is odd")) }
        }
    }

    #[test]
    fn an_error_in_bincode_has_its_place_and_the_words_of_the_type() {
        for encoding in [Encoding::Bincode, Encoding::PlainBincode] {
            let written = Payload::encode(encoding, &("numbers", vec![2_u8, 4, 5])).unwrap();
            let error = written.decode::<(String, Vec<Even>)>().unwrap_err();
            assert!(error.reason.starts_with("5 is odd at `[1][2]`;"), "{error}");
        }
    }

    /// Writes a payload when its thread ends.
    struct Farewell(mpsc::Sender<bool>);

    impl Drop for Farewell {
        fn drop(&mut self) {
            let written = Payload::encode(Encoding::Json, "bye").is_ok_and(|payload| payload.len() == 5);
            self.0.send(written).expect("the test waits for it");
        }
    }

    #[test]
    fn bytes_are_read_by_types_that_know_none() {
        let packed = |bytes: &'static [u8]| Payload::new(Encoding::MessagePack, bytes);
        let bytes = packed(b"\xC4\x03\x00\x80\xFF");
        assert_eq!(bytes.decode::<Vec<u8>>(), Ok(vec![0, 0x80, 0xFF]));
        assert_eq!(bytes.decode::<serde_bytes::ByteBuf>().unwrap().into_vec(), [0, 0x80, 0xFF]);
        assert_eq!(bytes.decode::<serde_json::Value>().unwrap(), serde_json::json!([0, 0x80, 0xFF]));
        assert_eq!(bytes.decode::<Value>(), Ok(Value::Bytes(vec![0, 0x80, 0xFF])));
        let within = packed(b"\x92\xC4\x01\x07\x05").decode::<(serde_json::Value, u8)>();
        assert_eq!(within.unwrap(), (serde_json::json!([7]), 5));
        assert!(bytes.decode::<String>().is_err() && bytes.decode::<u8>().is_err());
    }

    #[test]
    fn halves_of_characters_are_read_as_what_stands_for_them() {
        let json = |text: &'static str| Payload::new(Encoding::Json, text).decode::<String>();
        assert_eq!(json(r#""\ud83d\ude00\ud83d\\ud83d\udc00""#).unwrap(), "😀\u{FFFD}\\ud83d\u{FFFD}");
        assert!(json(r#""\ud83d"#).is_err() && json(r#""\ud83"#).is_err() && json(r#""\"#).is_err());
    }

    #[test]
    fn the_only_element_of_a_list_of_arguments_is_the_argument() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let list = |value: &dyn Fn() -> Result<Payload, EncodeError>| value().unwrap();
            let one = list(&|| Payload::encode(encoding, &[21]));
            assert_eq!(one.decode_arguments::<u8>(), Ok(21), "{encoding}");
            assert_eq!(one.decode_arguments::<(u8,)>(), Ok((21,)));
            assert_eq!(one.decode_arguments::<Vec<u8>>(), Ok(vec![21]));
            let nested = list(&|| Payload::encode(encoding, &[[1, 2]]));
            assert_eq!(nested.decode_arguments::<Vec<u8>>(), Ok(vec![1, 2]));
            let none = list(&|| Payload::encode::<[u8; 0]>(encoding, &[]));
            assert_eq!(none.decode_arguments::<()>(), Ok(()));
            assert_eq!(none.decode_arguments::<Option<u8>>(), Ok(None));
            let two = list(&|| Payload::encode(encoding, &[1, 2]));
            assert!(two.decode_arguments::<u8>().is_err());
            assert_eq!(two.decode_arguments::<(u8, u8)>(), Ok((1, 2)));
        }
        assert!(Payload::encode(Encoding::Bincode, &vec![1_u8]).unwrap().decode_arguments::<()>().is_err());
    }

    /// The shared buffer was gone by then for one of the two, and a panic at that point aborts the process.
    #[test]
    fn a_payload_may_be_written_while_its_thread_ends() {
        thread_local! {
            static BEFORE: RefCell<Option<Farewell>> = const { RefCell::new(None) };
            static AFTER: RefCell<Option<Farewell>> = const { RefCell::new(None) };
        }
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            BEFORE.set(Some(Farewell(sender.clone())));
            drop(Payload::encode(Encoding::Json, "hello"));
            AFTER.set(Some(Farewell(sender)));
        })
        .join()
        .unwrap();
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [true, true]);
    }
}

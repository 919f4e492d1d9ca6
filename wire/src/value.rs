//! The codecs that write and read a user's values. This is the only file that names bincode, rmp-serde and serde_json: another
//! codec would be added here. The heads of frames are bincode too and are read and written here.

mod any;
mod bounded;
pub(crate) mod packed;

pub use any::Value;

use crate::copy::append;
use crate::encoding::Encoding;
use crate::error::{Code, Fate, cut_len};
use crate::limits::{DEPTH_MAX, EMPTY_ELEMENTS_MAX, FRAME_LEN_MAX, HEAD_ELEMENTS_MAX};
use crate::payload::{CallError, Callbacks, Payload, PayloadRef};
use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize, Deserializer, Serialize};
use std::{cell::Cell, io};

/// A value cannot be written in the encoding.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot be written as {encoding}: {reason}")]
pub struct EncodeError {
    /// The encoding that was asked for.
    pub encoding: Encoding,
    /// The codec's reason.
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
    /// The codec's reason.
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

thread_local! {
    /// The buffer that payloads which are not small share: they are written into it one after another, so that most cost no
    /// allocation.
    static SCRATCH: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// How much of the shared buffer is allocated at once, in bytes. A payload that is kept keeps this much memory, or twice as much if
/// it made the buffer grow.
const SCRATCH_LEN: usize = 4 * 1024;

/// Payloads of at most this many bytes are small: they are written on the stack and do not use the shared buffer.
pub const SMALL_VALUE_LEN_MAX: usize = 64;

impl Payload {
    /// Writes a value. Costs a pass over the value, and one allocation if the payload is small; larger payloads share a buffer.
    ///
    /// # Errors
    ///
    /// When the encoding has no form for the value, such as a map with keys that are not text in JSON.
    #[inline]
    pub fn encode<T: Serialize + ?Sized>(encoding: Encoding, value: &T) -> Result<Self, EncodeError> {
        let (writer, callbacks) = written(encoding, value)?;
        Ok(Self { encoding, bytes: writer.finish(), callbacks })
    }

    /// Writes a value, as [`Payload::encode`] does. A value of at most 64 bytes without functions becomes no payload: its bytes are handed
    /// to `small`, which spares the allocation.
    ///
    /// # Errors
    ///
    /// As [`Payload::encode`].
    #[inline]
    pub fn encode_unless_small<T: Serialize + ?Sized>(
        encoding: Encoding,
        value: &T,
        small: impl FnOnce(&[u8]),
    ) -> Result<Option<Self>, EncodeError> {
        let (writer, callbacks) = written(encoding, value)?;
        match writer.small() {
            Some(bytes) if callbacks.is_empty() => {
                small(bytes);
                Ok(None)
            }
            _ => Ok(Some(Self { encoding, bytes: writer.finish(), callbacks })),
        }
    }

    /// As [`Payload::encode_unless_small`], but `small` gets the whole array that the bytes stand in and their number. A copy of the
    /// whole array is cheaper than a copy of a variable length.
    ///
    /// # Errors
    ///
    /// As [`Payload::encode`].
    #[inline]
    pub fn encode_unless_small_in_room<T: Serialize + ?Sized>(
        encoding: Encoding,
        value: &T,
        small: impl FnOnce(&[u8; SMALL_VALUE_LEN_MAX], usize),
    ) -> Result<Option<Self>, EncodeError> {
        let (writer, callbacks) = written(encoding, value)?;
        if writer.buffer.is_none() && callbacks.is_empty() {
            small(&writer.gathered, writer.len);
            return Ok(None);
        }
        Ok(Some(Self { encoding, bytes: writer.finish(), callbacks }))
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
    /// strings become lists of numbers, and floats that are no number become null.
    ///
    /// # Errors
    ///
    /// When the bytes are not of their encoding, or the wanted encoding has no form for the value.
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
        let Self { encoding, bytes, callbacks } = self;
        callbacks.hand_out(|| read(encoding, bytes)).map_err(|reason| not_read::<T>(encoding, reason))
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

    /// The only element of a list; nil for an empty list.
    fn only_argument(self) -> Option<Self> {
        let bytes = match self.encoding {
            Encoding::Bincode => return None,
            Encoding::MessagePack => match self.bytes {
                [0x90] | [0xDC, 0, 0] | [0xDD, 0, 0, 0, 0] => &[0xC0],
                [0x91, only @ ..] | [0xDC, 0, 1, only @ ..] | [0xDD, 0, 0, 0, 1, only @ ..] => only,
                _ => return None,
            },
            Encoding::Json => {
                let list: Vec<&serde_json::value::RawValue> = serde_json::from_slice(self.bytes).ok()?;
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
fn not_read<T>(encoding: Encoding, mut reason: String) -> DecodeError {
    // Codecs quote text that they cannot read, however long it is.
    reason.truncate(cut_len(&reason));
    reason.shrink_to_fit();
    DecodeError { encoding, expected: std::any::type_name::<T>(), reason }
}

/// Writes a value, and notes its functions.
#[inline]
fn written<T: Serialize + ?Sized>(encoding: Encoding, value: &T) -> Result<(Writer, Callbacks), EncodeError> {
    let mut writer = Writer::default();
    let (written, callbacks) = Callbacks::noted(|| write(encoding, value, &mut writer));
    match written.and(callbacks) {
        Ok(callbacks) => Ok((writer, callbacks)),
        Err(reason) => {
            // Gives the shared buffer back.
            writer.finish();
            Err(EncodeError { encoding, reason })
        }
    }
}

#[inline]
fn write<T: Serialize + ?Sized>(encoding: Encoding, value: &T, writer: &mut Writer) -> Result<(), String> {
    match encoding {
        Encoding::Bincode => bincode::serde::encode_into_writer(value, writer, bincode::config::standard())
            .map_err(|error| error.to_string()),
        Encoding::MessagePack => {
            let mut writer = rmp_serde::Serializer::new(writer).with_struct_map();
            value.serialize(&mut writer).map_err(|error| error.to_string())
        }
        Encoding::Json => serde_json::to_writer(writer, value).map_err(|error| error.to_string()),
    }
}

/// A payload that is being written. Codecs write byte after byte, so bytes are gathered in an array before they go into the shared
/// buffer. A small payload needs no buffer.
struct Writer {
    gathered: [u8; SMALL_VALUE_LEN_MAX],
    len: usize,
    /// The shared buffer with the first bytes of the payload; none for a small payload.
    buffer: Option<BytesMut>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { gathered: [0; SMALL_VALUE_LEN_MAX], len: 0, buffer: None }
    }
}

impl Writer {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.gathered[self.len..].get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        } else {
            self.spill(bytes);
        }
    }

    #[inline(never)]
    fn spill(&mut self, bytes: &[u8]) {
        let buffer = self.buffer.get_or_insert_with(|| {
            // Taken, not borrowed: a `Serialize` that itself encodes a payload finds an empty buffer instead of a panic. While
            // the thread ends, the shared buffer may be gone: a payload that is written then has a buffer of its own.
            let mut buffer = SCRATCH.try_with(Cell::take).unwrap_or_default();
            buffer.reserve(SCRATCH_LEN / 8);
            if buffer.capacity() < SCRATCH_LEN / 4 {
                buffer.reserve(SCRATCH_LEN);
            }
            buffer
        });
        buffer.extend_from_slice(&self.gathered[..self.len]);
        append(buffer, bytes);
        self.len = 0;
    }

    /// The payload, if it is small.
    #[inline]
    fn small(&self) -> Option<&[u8]> {
        if self.buffer.is_none() { Some(&self.gathered[..self.len]) } else { None }
    }

    #[inline]
    fn finish(mut self) -> Bytes {
        let gathered = &self.gathered[..self.len];
        let Some(mut buffer) = self.buffer.take() else {
            return Bytes::copy_from_slice(gathered);
        };
        buffer.extend_from_slice(gathered);
        let bytes = buffer.split().freeze();
        // A buffer that grew is not shared on: the next payload would keep the whole long allocation.
        if bytes.len() <= SCRATCH_LEN {
            _ = SCRATCH.try_with(|scratch| scratch.set(buffer));
        }
        bytes
    }
}

impl bincode::enc::write::Writer for &mut Writer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.put(bytes);
        Ok(())
    }
}

impl io::Write for Writer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[inline]
fn read<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<T, String> {
    // The self-describing encodings need bounds too: a type that holds only itself, in newtypes and options, recurses without reading
    // a byte.
    let bounds = bounded::Bounds::new(DEPTH_MAX, bytes.len() + EMPTY_ELEMENTS_MAX);
    let again = || bounded::Bounds::new(DEPTH_MAX, bytes.len() + EMPTY_ELEMENTS_MAX);
    match encoding {
        Encoding::Bincode => read_bincode(bytes, &bounds),
        Encoding::MessagePack => read_packed(bytes, &bounds).or_else(|error| {
            // A type without byte strings, such as a type made for JSON, takes a byte string as a list of numbers.
            let as_lists = bounds.met_bytes().then(|| read_packed(bytes, &again().with_bytes_as_lists()));
            as_lists
                .and_then(Result::ok)
                // To all types, `undefined` of Node.js is nil.
                .or_else(|| read(encoding, &packed::without_undefined(bytes)?).ok())
                .ok_or(error)
        }),
        Encoding::Json => read_json(bytes, &bounds).or_else(|error| {
            let mended = mend_json(bytes).map(|mended| read_json(&mended, &again()));
            mended.and_then(Result::ok).ok_or(error)
        }),
    }
}

/// Replaces each half of a character in JSON by U+FFFD, as Node.js does when it writes text as bytes. A text of JavaScript may hold
/// such halves, lone surrogates; Rust's text cannot. None if the JSON holds no such half.
pub(crate) fn mend_json(json: &[u8]) -> Option<Vec<u8>> {
    let escaped = |at: usize| {
        let digits = json.get(at..at + 6).filter(|escape| escape.starts_with(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(&digits[2..]).ok()?, 16).ok()
    };
    let (mut mended, mut found, mut at) = (json.to_vec(), false, 0);
    while at < json.len() {
        at += match (json[at], escaped(at)) {
            (b'\\', Some(0xD800..=0xDBFF)) if matches!(escaped(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            (b'\\', Some(0xD800..=0xDFFF)) => {
                mended[at + 2..at + 6].copy_from_slice(b"fffd");
                found = true;
                6
            }
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    found.then_some(mended)
}

fn read_packed<T: DeserializeOwned>(bytes: &[u8], bounds: &bounded::Bounds) -> Result<T, String> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(DEPTH_MAX);
    let value =
        bounded::BoundedSeed::new(bounds).deserialize(&mut reader).map_err(|error| error.to_string())?;
    // The codec does not tell where the value ended. One more read tells: only without a byte left can it not read a marker.
    match bool::deserialize(&mut reader) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err("bytes are left over".to_owned()),
    }
}

fn read_json<T: DeserializeOwned>(bytes: &[u8], bounds: &bounded::Bounds) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value =
        bounded::BoundedSeed::new(bounds).deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

#[inline]
fn read_bincode<T: DeserializeOwned>(bytes: &[u8], bounds: &bounded::Bounds) -> Result<T, String> {
    let config = bincode::config::standard().with_limit::<FRAME_LEN_MAX>();
    let seed = bounded::BoundedSeed::new(bounds);
    match bincode::serde::seed_decode_from_slice(seed, bytes, config) {
        Ok((value, read)) => {
            check_all_read(read, bytes.len())?;
            Ok(value)
        }
        Err(error) => Err(error.to_string()),
    }
}

#[inline]
fn check_all_read(read: usize, len: usize) -> Result<(), String> {
    if read == len { Ok(()) } else { Err(format!("{} bytes are left over", len - read)) }
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
    use std::{cell::RefCell, sync::mpsc, thread};

    /// A value whose `Serialize` writes a payload of its own.
    struct Letter(&'static str);

    impl Serialize for Letter {
        fn serialize<S: Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
            let inner = Payload::encode(Encoding::Json, self.0).map_err(S::Error::custom)?;
            serde_bytes::serialize(&inner.bytes[..], writer)
        }
    }

    #[test]
    fn a_payload_may_be_written_while_another_one_is() {
        let outer = Payload::encode(Encoding::Bincode, &(Letter("one"), Letter("two"))).unwrap();
        assert_eq!(&outer.bytes[..], b"\x05\"one\"\x05\"two\"");
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

//! A user's bytes and the codec they were written with. This is the one file that names bincode, rmp-serde and serde_json:
//! whoever wants another codec changes it here. The heads of frames are bincode too and are read and written here.

mod bounded;

use crate::limits::{DEPTH_MAX, EMPTY_ELEMENTS_MAX, FRAME_LEN_MAX};
use crate::{CallError, CallbackId, Code, Fate};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{cell::Cell, fmt};

/// How a payload was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Encoding {
    /// Bincode 2, standard configuration: small and fast, both ends know the type. The default for calls.
    #[default]
    Bincode,
    /// MessagePack with the names of fields: the default for events, whose readers may be of other versions and languages.
    MessagePack,
    /// JSON: the command line, and dialects that speak it.
    Json,
}

impl Encoding {
    /// Whether a reader needs no type to read it.
    #[must_use]
    pub fn is_self_describing(self) -> bool {
        !matches!(self, Encoding::Bincode)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::Bincode => "bincode",
            Encoding::MessagePack => "MessagePack",
            Encoding::Json => "JSON",
        })
    }
}

/// A user's value as bytes, with the encoding that they were written in. Whoever relays it does not open it. Cloning it
/// shares the bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Payload {
    /// How the bytes were written.
    pub encoding: Encoding,
    /// The bytes.
    pub bytes: Bytes,
    /// The functions among the arguments: the bytes hold indexes into this list, so a relay can rewrite ids unopened.
    pub callbacks: Vec<CallbackId>,
}

/// A value cannot be written in the encoding.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot be written as {encoding}: {reason}")]
pub struct EncodeError {
    /// The encoding that was asked for.
    pub encoding: Encoding,
    /// What the codec says.
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
    /// What the codec says.
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
    /// Payloads are written one behind the other into one buffer and share it, so that a small one costs no allocation.
    static SCRATCH: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// How much of the shared buffer is made at once. A payload that is kept keeps this much.
const SCRATCH_LEN: usize = 4 * 1024;

impl Payload {
    /// Bytes that were written elsewhere.
    #[must_use]
    pub fn new(encoding: Encoding, bytes: impl Into<Bytes>) -> Self {
        Self { encoding, bytes: bytes.into(), callbacks: Vec::new() }
    }

    /// Writes a value. Costs a pass over the value; small ones share a buffer and allocate nothing.
    ///
    /// # Errors
    ///
    /// When the encoding has no form for the value, such as a map with keys that are not text in JSON.
    pub fn encode<T: Serialize + ?Sized>(encoding: Encoding, value: &T) -> Result<Self, EncodeError> {
        // Taken, not borrowed: a `Serialize` that itself encodes a payload finds an empty buffer instead of a panic.
        let mut buffer = SCRATCH.take();
        buffer.reserve(SCRATCH_LEN / 8);
        if buffer.capacity() < SCRATCH_LEN / 4 {
            buffer.reserve(SCRATCH_LEN);
        }
        let written = write(encoding, value, &mut buffer);
        let bytes = buffer.split().freeze();
        SCRATCH.set(buffer);
        match written {
            Ok(()) => Ok(Self { encoding, bytes, callbacks: Vec::new() }),
            Err(reason) => Err(EncodeError { encoding, reason }),
        }
    }

    /// Reads the value, all of it: bytes left over are an error. Nesting and claimed lengths are bounded.
    ///
    /// # Errors
    ///
    /// When the bytes are not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        read(self.encoding, &self.bytes).map_err(|reason| DecodeError {
            encoding: self.encoding,
            expected: std::any::type_name::<T>(),
            reason,
        })
    }

    /// How many bytes it takes in a frame, the head not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no bytes, as that of a `()` in bincode.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn write<T: Serialize + ?Sized>(encoding: Encoding, value: &T, buffer: &mut BytesMut) -> Result<(), String> {
    let mut writer = buffer.writer();
    match encoding {
        Encoding::Bincode => bincode::serde::encode_into_std_write(value, &mut writer, bincode::config::standard())
            .map(drop)
            .map_err(|error| error.to_string()),
        Encoding::MessagePack => {
            let mut writer = rmp_serde::Serializer::new(writer).with_struct_map();
            value.serialize(&mut writer).map_err(|error| error.to_string())
        }
        Encoding::Json => serde_json::to_writer(writer, value).map_err(|error| error.to_string()),
    }
}

fn read<T: DeserializeOwned>(encoding: Encoding, bytes: &[u8]) -> Result<T, String> {
    match encoding {
        Encoding::Bincode => {
            let bounds = bounded::Bounds::new(DEPTH_MAX, bytes.len() + EMPTY_ELEMENTS_MAX);
            let seed = bounded::BoundedSeed::new(&bounds);
            let config = bincode::config::standard().with_limit::<FRAME_LEN_MAX>();
            let (value, read) = bincode::serde::seed_decode_from_slice(seed, bytes, config)
                .map_err(|error| error.to_string())?;
            check_all_read(read, bytes.len())?;
            Ok(value)
        }
        Encoding::MessagePack => {
            let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
            reader.set_max_depth(DEPTH_MAX);
            let value = T::deserialize(&mut reader).map_err(|error| error.to_string())?;
            check_all_read(bytes.len() - reader.get_ref().len(), bytes.len())?;
            Ok(value)
        }
        Encoding::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
    }
}

fn check_all_read(read: usize, len: usize) -> Result<(), String> {
    if read == len { Ok(()) } else { Err(format!("{} bytes are left over", len - read)) }
}

/// Writes the head of a frame.
///
/// It cannot fail: heads hold nothing but numbers, text and lists of known length, and the buffer grows.
pub(crate) fn write_head<T: Serialize>(head: &T, buffer: &mut BytesMut) {
    bincode::serde::encode_into_std_write(head, &mut buffer.writer(), bincode::config::standard())
        .expect("a head has only shapes that bincode writes");
}

/// Reads the head of a frame; gives it and its length.
pub(crate) fn read_head<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<(T, usize), String> {
    let config = bincode::config::standard().with_limit::<FRAME_LEN_MAX>();
    bincode::serde::borrow_decode_from_slice(bytes, config).map_err(|error| error.to_string())
}

//! [`Writer`]: where the codecs write a payload. A small payload is gathered on the stack, larger ones share a buffer. And [`CodecError`], why it
//! is not written, or not read.

use crate::copy::append;
use crate::limits::DEPTH_MAX;
use bytes::{Bytes, BytesMut};
use serde::{de, ser};
use std::fmt::{self, Display};
use std::{cell::Cell, io};

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

/// A payload that is being written. Codecs write byte after byte, so bytes are gathered in an array before they go into the shared
/// buffer. A small payload needs no buffer.
pub(super) struct Writer {
    gathered: [u8; SMALL_VALUE_LEN_MAX],
    /// How many bytes are gathered. One byte, so that no sum with it overflows and a write looks at its room once.
    len: u8,
    /// The shared buffer with the first bytes of the payload; none for a small payload.
    buffer: Option<BytesMut>,
}

const _: () = assert!(SMALL_VALUE_LEN_MAX <= u8::MAX as usize, "the number of gathered bytes is one byte");

impl Default for Writer {
    fn default() -> Self {
        Self { gathered: [0; SMALL_VALUE_LEN_MAX], len: 0, buffer: None }
    }
}

impl Writer {
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let len = usize::from(self.len);
        match self.gathered[len..].get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.set_len(len + bytes.len());
            }
            None => self.spill(bytes),
        }
    }

    /// Writes a few bytes, whose number the codec knows: a copy without a call.
    #[inline(always)]
    pub(super) fn put_array<const LEN: usize>(&mut self, bytes: [u8; LEN]) {
        let (start, end) = (usize::from(self.len), usize::from(self.len) + LEN);
        match self.gathered.get_mut(start..end) {
            Some(room) => {
                room.copy_from_slice(&bytes);
                self.set_len(end);
            }
            None => self.spill(&bytes),
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is at most SMALL_VALUE_LEN_MAX")]
    fn set_len(&mut self, len: usize) {
        self.len = len as u8;
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
        buffer.extend_from_slice(&self.gathered[..usize::from(self.len)]);
        append(buffer, bytes);
        self.len = 0;
    }

    /// Writes what another writer has.
    pub(super) fn put_all(&mut self, other: &Self) {
        self.put(other.buffer.as_deref().unwrap_or_default());
        self.put(&other.gathered[..usize::from(other.len)]);
    }

    /// The payload, if it is small.
    #[inline]
    pub(super) fn small(&self) -> Option<&[u8]> {
        self.small_in_room().map(|(room, len)| &room[..len])
    }

    /// The payload, if it is small: the array that its bytes stand in, and their number.
    #[inline]
    pub(super) fn small_in_room(&self) -> Option<(&[u8; SMALL_VALUE_LEN_MAX], usize)> {
        self.buffer.is_none().then_some((&self.gathered, usize::from(self.len)))
    }

    #[inline]
    pub(super) fn finish(mut self) -> Bytes {
        let gathered = &self.gathered[..usize::from(self.len)];
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

/// Why a value is not written, or not read. One pointer wide, so that what may fail is handed on in registers.
#[derive(Debug)]
pub(super) struct CodecError(Box<Reason>);

#[derive(Debug)]
struct Reason(String);

impl Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.0)
    }
}

impl std::error::Error for CodecError {}

impl ser::Error for CodecError {
    #[cold]
    fn custom<T: Display>(reason: T) -> Self {
        Self(Box::new(Reason(reason.to_string())))
    }
}

impl de::Error for CodecError {
    #[cold]
    fn custom<T: Display>(reason: T) -> Self {
        Self(Box::new(Reason(reason.to_string())))
    }
}

#[cold]
pub(super) fn too_deep() -> CodecError {
    de::Error::custom(format_args!("nested deeper than {DEPTH_MAX} levels"))
}

#[cold]
pub(super) fn too_many_elements(max: usize) -> CodecError {
    de::Error::custom(format_args!("more than {max} elements"))
}

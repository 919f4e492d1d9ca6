//! Bytes into blocks of whole frames, and blocks into frames. A reader hands on one [`Block`] a read, not one message a
//! frame: that is what keeps the cost of a frame low under load.

use crate::Frame;
use crate::limits::{BIND_FRAME_LEN_MAX, LENGTH_PREFIX_LEN, READ_BUFFER_LEN_MAX, READ_BUFFER_LEN_START};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use tokio_util::codec::{Decoder, Encoder};

/// Cuts a byte stream into [`Block`]s and writes [`Frame`]s.
#[derive(Debug)]
pub struct FrameCodec {
    frame_len_max: usize,
    read_len: usize,
}

/// One or more whole frames, as one read brought them. The lengths have been checked, the frames have not been read.
#[derive(Clone, Debug)]
pub struct Block(Bytes);

/// The frames of a [`Block`], read one by one. It ends after the first that is none.
#[derive(Debug)]
pub struct Frames(Bytes);

/// Why bytes are not frames. The link that brought them is closed: what follows cannot be told apart.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame claims more than the connection allows.
    #[error("a frame claims {claimed} bytes, and {max} are allowed; is the other end a meshwork node?")]
    TooLong {
        /// The claimed length, in bytes.
        claimed: usize,
        /// The allowed one.
        max: usize,
    },
    /// A frame is not what the protocol says.
    #[error("a frame cannot be read: {0}")]
    Malformed(String),
    /// A frame passes more functions than a request may.
    #[error("a frame passes {0} functions, and {max} are allowed", max = crate::limits::CALLBACKS_PER_REQUEST_MAX)]
    TooManyCallbacks(usize),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Cut,
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FrameCodec {
    /// For a connection that is not bound yet: its frames may be [`BIND_FRAME_LEN_MAX`] bytes long.
    #[must_use]
    pub fn unbound() -> Self {
        Self::new(BIND_FRAME_LEN_MAX)
    }

    /// For frames of at most so many bytes, the length prefix not counted.
    #[must_use]
    pub fn new(frame_len_max: usize) -> Self {
        Self { frame_len_max, read_len: READ_BUFFER_LEN_START }
    }

    /// Allows longer or shorter frames from now on.
    pub fn set_frame_len_max(&mut self, frame_len_max: usize) {
        self.frame_len_max = frame_len_max;
    }
}

impl Decoder for FrameCodec {
    type Item = Block;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        // A read that filled the buffer says that more waits: read more at once next time.
        if buffer.len() >= self.read_len {
            self.read_len = (self.read_len * 2).min(READ_BUFFER_LEN_MAX);
        }
        let mut whole = 0;
        let missing = loop {
            let rest = &buffer[whole..];
            let Some(prefix) = rest.first_chunk::<LENGTH_PREFIX_LEN>() else {
                break 0;
            };
            let claimed = u32::from_le_bytes(*prefix) as usize;
            if claimed > self.frame_len_max {
                if whole > 0 {
                    // What came before it was said in good order. The next call finds this one at the start.
                    break 0;
                }
                return Err(FrameError::TooLong { claimed, max: self.frame_len_max });
            }
            let len = LENGTH_PREFIX_LEN + claimed;
            if rest.len() < len {
                break len - rest.len();
            }
            whole += len;
        };
        if whole > 0 {
            return Ok(Some(Block(buffer.split_to(whole).freeze())));
        }
        // At most one read more than what has come: a claimed length alone makes us hold nothing.
        buffer.reserve(missing.clamp(1, self.read_len));
        Ok(None)
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        match self.decode(buffer)? {
            Some(block) => Ok(Some(block)),
            None if buffer.is_empty() => Ok(None),
            None => Err(FrameError::Cut),
        }
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: &Frame, buffer: &mut BytesMut) -> Result<(), FrameError> {
        frame.encode(buffer);
        Ok(())
    }
}

impl Block {
    /// Reads its frames.
    #[must_use]
    pub fn frames(self) -> Frames {
        Frames(self.0)
    }

    /// How many bytes it has, prefixes counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none. A decoder makes no empty blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Frames {
    /// What has not been read yet, for whoever goes on with it.
    #[must_use]
    pub fn rest(self) -> Option<Block> {
        if self.0.is_empty() { None } else { Some(Block(self.0)) }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        // The decoder has checked the lengths; a block of another origin ends here.
        let whole =
            self.0.first_chunk::<LENGTH_PREFIX_LEN>().map(|prefix| u32::from_le_bytes(*prefix) as usize);
        let frame = match whole {
            Some(len) if self.0.len() >= LENGTH_PREFIX_LEN + len => {
                self.0.advance(LENGTH_PREFIX_LEN);
                Frame::decode(&self.0.split_to(len))
            }
            _ => Err(FrameError::Cut),
        };
        if frame.is_err() {
            self.0.clear();
        }
        Some(frame)
    }
}

//! The codec of the link of a session: the longest frame that it reads rises when the branch is bound.

use bytes::BytesMut;
use meshwork_wire::{Block, FrameCodec, FrameError, is_tls};
use std::cell::Cell;
use std::rc::Rc;
use tokio_util::codec::Decoder;

/// Cuts the bytes from the link of a session into blocks of frames.
pub(crate) struct SessionCodec {
    codec: FrameCodec,
    /// Set when the branch is bound, to allow frames of `frame_len_max` bytes.
    raise: Rc<Cell<bool>>,
    frame_len_max: usize,
    /// Whether bytes have come that are no handshake of TLS.
    has_begun: bool,
}

impl SessionCodec {
    /// Allows frames as long as a bind until `raise` is set, then frames of `frame_len_max` bytes.
    pub(crate) fn new(raise: Rc<Cell<bool>>, frame_len_max: usize) -> Self {
        Self { codec: FrameCodec::unbound(), raise, frame_len_max, has_begun: false }
    }
}

/// How many bytes tell a handshake of TLS from a frame.
const FIRST_LEN: usize = 5;

impl Decoder for SessionCodec {
    type Item = Block;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        if self.raise.take() {
            self.codec.set_frame_len_max(self.frame_len_max);
        }
        if !self.has_begun && buffer.len() >= FIRST_LEN {
            // Read as frames, a short handshake would be the beginning of a frame that never comes.
            if is_tls(buffer) {
                let what = "the other end speaks TLS, and this address does not: dial it without a CA, or give its listener a certificate";
                return Err(FrameError::Malformed(what.to_owned()));
            }
            self.has_begun = true;
        }
        self.codec.decode(buffer)
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        self.codec.decode_eof(buffer)
    }
}

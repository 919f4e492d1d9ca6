//! The codec of the link of a session: the longest frame that it reads rises when the branch is bound.

use bytes::BytesMut;
use meshwork_wire::{Block, FrameCodec, FrameError};
use std::cell::Cell;
use std::rc::Rc;
use tokio_util::codec::Decoder;

/// Cuts the bytes from the link of a session into blocks of frames.
pub(crate) struct SessionCodec {
    codec: FrameCodec,
    /// Set when the branch is bound, to allow frames of `frame_len_max` bytes.
    raise: Rc<Cell<bool>>,
    frame_len_max: usize,
}

impl SessionCodec {
    /// Allows frames as long as a bind until `raise` is set, then frames of `frame_len_max` bytes.
    pub(crate) fn new(raise: Rc<Cell<bool>>, frame_len_max: usize) -> Self {
        Self { codec: FrameCodec::unbound(), raise, frame_len_max }
    }
}

impl Decoder for SessionCodec {
    type Item = Block;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        if self.raise.take() {
            self.codec.set_frame_len_max(self.frame_len_max);
        }
        self.codec.decode(buffer)
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        self.codec.decode_eof(buffer)
    }
}

//! The codecs of links: they cut the bytes into blocks of frames, and note each sign of life. The longest frame that a session reads rises
//! when the branch is bound.

use super::door::Place;
use super::pulse::Pulse;
use bytes::BytesMut;
use meshwork_wire::limits::{BIND_FRAME_LEN_MAX, FIRST_FRAME_LEN_MAX};
use meshwork_wire::{Block, FrameCodec, FrameError, is_tls};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use tokio_util::codec::Decoder;

/// Cuts the bytes from a link into blocks of frames, and notes bytes of a frame that is not whole yet.
pub(crate) struct LinkCodec {
    codec: FrameCodec,
    pulse: Pulse,
    /// How many bytes of a frame that is not whole yet were there last.
    begun: usize,
}

impl LinkCodec {
    pub(crate) fn new(codec: FrameCodec, pulse: Pulse) -> Self {
        Self { codec, pulse, begun: 0 }
    }

    /// The signs of life of the link.
    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }
}

impl Decoder for LinkCodec {
    type Item = Block;
    type Error = FrameError;

    #[inline]
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        let block = self.codec.decode(buffer)?;
        if block.is_none() && buffer.len() != self.begun {
            if buffer.len() > self.begun {
                self.pulse.read();
            }
            self.begun = buffer.len();
        }
        Ok(block)
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        self.codec.decode_eof(buffer)
    }
}

/// The codec of the link of a session.
pub(crate) struct SessionCodec {
    link: LinkCodec,
    /// Set when the branch is bound, to allow frames of `frame_len_max` bytes.
    raise: Rc<Cell<bool>>,
    is_bound: bool,
    frame_len_max: usize,
    /// The place of the connection, which is taken until the descriptor is closed.
    place: Arc<Place>,
    /// Whether bytes have come that are no handshake of TLS.
    has_begun: bool,
}

impl SessionCodec {
    /// Allows frames as long as a first frame until `raise` is set, then frames of `frame_len_max` bytes.
    pub(crate) fn new(raise: Rc<Cell<bool>>, frame_len_max: usize, place: Arc<Place>, pulse: Pulse) -> Self {
        let link = LinkCodec::new(FrameCodec::new(FIRST_FRAME_LEN_MAX), pulse);
        Self { link, raise, is_bound: false, frame_len_max, place, has_begun: false }
    }

    /// Reads a first frame that is longer than others, if there is room for it: branches of earlier versions put all their actions into it.
    #[cold]
    fn decode_long(&mut self, claimed: usize, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        if claimed > BIND_FRAME_LEN_MAX {
            return Err(FrameError::TooLong { claimed, max: BIND_FRAME_LEN_MAX });
        }
        if !self.place.lengthen(claimed) {
            return Err(FrameError::TooLong { claimed, max: FIRST_FRAME_LEN_MAX });
        }
        self.link.codec.set_frame_len_max(claimed);
        self.link.decode(buffer)
    }
}

/// How many bytes tell a handshake of TLS from a frame.
const FIRST_LEN: usize = 5;

impl Decoder for SessionCodec {
    type Item = Block;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        if self.raise.take() {
            self.link.codec.set_frame_len_max(self.frame_len_max);
            self.is_bound = true;
        }
        if !self.has_begun && buffer.len() >= FIRST_LEN {
            // Read as frames, a short handshake would be the beginning of a frame that never comes.
            if is_tls(buffer) {
                let what = "the other end speaks TLS, and this address does not: dial it without a CA, or give its listener a certificate";
                return Err(FrameError::Malformed(what.to_owned()));
            }
            self.has_begun = true;
        }
        match self.link.decode(buffer) {
            Err(FrameError::TooLong { claimed, .. }) if !self.is_bound => self.decode_long(claimed, buffer),
            decoded => decoded,
        }
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        self.link.decode_eof(buffer)
    }
}

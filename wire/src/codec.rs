//! Bytes into blocks of whole frames, and blocks into frames. A reader hands on one [`Block`] a read, not one message a
//! frame: that is what keeps the cost of a frame low under load.

use crate::frame::{
    EventHead, NO_CALLBACKS, PUBLISH, SharedHead, read_event, read_reply, read_request, read_same_event,
    read_same_request,
};
use crate::limits::{
    BIND_FRAME_LEN_MAX, BLOCK_FRAMES_MAX, BLOCK_OF_FEW, BLOCK_OF_SOME, FEW_FRAMES, LENGTH_PREFIX_LEN,
    READ_BUFFER_LEN_MAX, READ_BUFFER_LEN_START, SOME_FRAMES,
};
use crate::{CallbackId, Encoding, Frame, Payload, PayloadRef, Publish, Request};
use bytes::{Buf, Bytes, BytesMut};
use std::{io, ops::Range};
use tokio_util::codec::{Decoder, Encoder};

/// Cuts a byte stream into [`Block`]s and writes [`Frame`]s.
#[derive(Debug)]
pub struct FrameCodec {
    frame_len_max: usize,
    /// How much is read at once at the moment, and whether something has been read since room was made for it.
    read_len: usize,
    has_read: bool,
    /// Whether what is left of a read is the rest of many: that is no few.
    is_rest: bool,
}

/// One or more whole frames, as one read brought them. The lengths have been checked, the frames have not been read.
#[derive(Clone, Debug)]
pub struct Block {
    bytes: Bytes,
    count: usize,
}

/// The frames of a [`Block`], read one by one. It ends after the first that is none.
#[derive(Debug)]
pub struct Frames {
    block: Bytes,
    at: usize,
    left: usize,
    /// Of the last event that had one of its own: events that follow each other are of one topic more often than not.
    event_head: Option<EventHead>,
    /// The same of the last request: those that follow each other are of one action.
    request_head: Option<SharedHead>,
}

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
        Self { frame_len_max, read_len: READ_BUFFER_LEN_START, has_read: false, is_rest: false }
    }

    /// A read that filled its room says that more waits: the next one reads twice as much at once. One that filled little of
    /// it says that less is enough, so that a connection which falls idle soon keeps little.
    fn follow_load(&mut self, come: usize) {
        if come >= self.read_len {
            self.read_len = (self.read_len * 2).min(READ_BUFFER_LEN_MAX);
        } else if come < self.read_len / 4 {
            self.read_len = (self.read_len / 2).max(READ_BUFFER_LEN_START);
        }
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
        if std::mem::take(&mut self.has_read) {
            self.follow_load(buffer.len());
            self.is_rest = false;
        }
        let (mut whole, mut count) = (0, 0);
        // Where a block of few would end, and one of some.
        let (mut few, mut some) = (0, 0);
        loop {
            // What is left over is the next block: the decoder is asked again before anything is read.
            if count == BLOCK_FRAMES_MAX {
                break;
            }
            let rest = &buffer[whole..];
            let Some(prefix) = rest.first_chunk::<LENGTH_PREFIX_LEN>() else {
                break;
            };
            let claimed = u32::from_le_bytes(*prefix) as usize;
            if claimed > self.frame_len_max {
                if whole > 0 {
                    // What came before it was said in good order. The next call finds this one at the start.
                    break;
                }
                return Err(FrameError::TooLong { claimed, max: self.frame_len_max });
            }
            let len = LENGTH_PREFIX_LEN + claimed;
            if rest.len() < len {
                break;
            }
            whole += len;
            count += 1;
            match count {
                BLOCK_OF_FEW => few = whole,
                BLOCK_OF_SOME => some = whole,
                _ => {}
            }
        }
        // Nobody waits for an answer to an event.
        let in_parts = !self.is_rest && buffer.get(LENGTH_PREFIX_LEN) != Some(&PUBLISH);
        self.is_rest |= count > SOME_FRAMES;
        if in_parts && count > BLOCK_OF_FEW && count <= FEW_FRAMES {
            (whole, count) = (few, BLOCK_OF_FEW);
        } else if in_parts && count > FEW_FRAMES && count <= SOME_FRAMES {
            (whole, count) = (some, BLOCK_OF_SOME);
        }
        if whole > 0 {
            return Ok(Some(Block { bytes: buffer.split_to(whole).freeze(), count }));
        }
        // At most one read more than what has come: a claimed length alone makes us hold nothing.
        if buffer.is_empty() && buffer.capacity() > 2 * self.read_len {
            // A burst made it long. A connection that falls idle gives that back.
            *buffer = BytesMut::with_capacity(self.read_len);
        }
        buffer.reserve(self.read_len);
        self.has_read = true;
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
        Frames { block: self.bytes, at: 0, left: self.count, event_head: None, request_head: None }
    }

    /// How many bytes it has, prefixes counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many frames it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether it is one frame that says nothing but what it is, as a heartbeat does.
    #[must_use]
    pub fn is_beat(&self) -> bool {
        self.count == 1 && self.bytes.len() == LENGTH_PREFIX_LEN + 1
    }

    /// Whether it has none. A decoder makes no empty blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Frames {
    /// The next frame, if it is a usual request; any other is left to the iterator. This spares the way through a [`Frame`].
    pub fn next_request(&mut self) -> Option<Request> {
        let (part, is_last) = (self.part()?, self.left <= 1);
        let end = part.end;
        let request = read_request(&self.block, part, &mut self.request_head, is_last)?;
        self.step_to(end);
        Some(request)
    }

    /// What differs in the next frame, if it is a request that says the same as the last one of [`Frames::next_request`], but for its id and its
    /// payload.
    #[inline]
    pub fn next_same_request(&mut self) -> Option<(CallbackId, PayloadRef<'_>)> {
        let kept = self.request_head.as_ref()?;
        let part = self.part()?;
        let end = part.end;
        let same = read_same_request(&self.block, part, kept)?;
        self.at = end;
        self.left = self.left.saturating_sub(1);
        Some(same)
    }

    /// The next frame, if it is a usual reply, likewise.
    pub fn next_reply(&mut self) -> Option<(CallbackId, Payload)> {
        let part = self.part()?;
        let end = part.end;
        let reply = read_reply(&self.block, part)?;
        self.step_to(end);
        Some(reply)
    }

    /// The next frame, if it is a usual event, likewise.
    pub fn next_event(&mut self) -> Option<Publish> {
        let (part, is_last) = (self.part()?, self.left <= 1);
        let end = part.end;
        let event = read_event(&self.block, part, &mut self.event_head, is_last)?;
        self.step_to(end);
        Some(event)
    }

    /// The payload of the next frame, if it is an event that says the same as the last one of [`Frames::next_event`], but for its payload.
    #[inline]
    pub fn next_same_event(&mut self) -> Option<PayloadRef<'_>> {
        let (at, encoding) = self.same_event()?;
        Some(PayloadRef { encoding, bytes: &self.block[at], callbacks: &NO_CALLBACKS })
    }

    /// The same, for whoever keeps it: it shares the block.
    #[inline]
    pub fn next_same_payload(&mut self) -> Option<Payload> {
        let (at, encoding) = self.same_event()?;
        Some(Payload::new(encoding, self.block.slice(at)))
    }

    #[inline]
    fn same_event(&mut self) -> Option<(Range<usize>, Encoding)> {
        let part = self.part()?;
        let end = part.end;
        let same = read_same_event(&self.block, part, self.event_head.as_ref()?)?;
        self.step_to(end);
        Some(same)
    }

    /// How many frames are left: as many as the decoder counted, less those that were read.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Where the next frame stands, its prefix taken off. None if there is none: the decoder has checked the lengths, but a block
    /// may be of another origin.
    #[inline]
    fn part(&self) -> Option<Range<usize>> {
        let rest = &self.block[self.at..];
        let len = u32::from_le_bytes(*rest.first_chunk::<LENGTH_PREFIX_LEN>()?) as usize;
        let start = self.at + LENGTH_PREFIX_LEN;
        (rest.len() - LENGTH_PREFIX_LEN >= len).then_some(start..start + len)
    }

    #[inline]
    fn step_to(&mut self, at: usize) {
        self.at = at;
        self.left = self.left.saturating_sub(1);
    }

    /// What has not been read yet, for whoever goes on with it.
    #[must_use]
    pub fn rest(mut self) -> Option<Block> {
        self.block.advance(self.at);
        if self.block.is_empty() { None } else { Some(Block { bytes: self.block, count: self.left }) }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.block.len() {
            return None;
        }
        let frame = match self.part() {
            Some(part) => {
                self.step_to(part.end);
                Frame::decode_part(&self.block, part)
            }
            None => Err(FrameError::Cut),
        };
        if frame.is_err() {
            self.at = self.block.len();
        }
        Some(frame)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many frames each block of a read has.
    fn blocks(frames: usize) -> Vec<usize> {
        blocks_of(&Frame::Ping, frames)
    }

    fn blocks_of(frame: &Frame, frames: usize) -> Vec<usize> {
        let mut buffer = BytesMut::new();
        (0..frames).for_each(|_| frame.encode(&mut buffer));
        let mut codec = FrameCodec::unbound();
        std::iter::from_fn(|| codec.decode(&mut buffer).unwrap().map(|block| block.frames().count()))
            .collect()
    }

    #[test]
    fn the_fewer_frames_wait_the_fewer_are_taken_at_once() {
        assert_eq!(blocks(23), [23]);
        assert_eq!(blocks(64), [24, 24, 16]);
        assert_eq!(blocks(200), [64, 64, 24, 24, 24]);
        assert_eq!(blocks(300), [300]);
        assert_eq!(blocks(1_100), [512, 512, 76], "the rest of many");
        let event = crate::Publish {
            topic: "t".into(),
            publisher: "".into(),
            for_all: true,
            groups: Vec::new(),
            payload: crate::Payload::default(),
        };
        assert_eq!(blocks_of(&Frame::Publish(event), 64), [64]);
        let is_beat = |frames: &[Frame]| {
            let mut buffer = BytesMut::new();
            frames.iter().for_each(|frame| frame.encode(&mut buffer));
            FrameCodec::unbound().decode(&mut buffer).unwrap().unwrap().is_beat()
        };
        assert!(is_beat(&[Frame::Ping]) && is_beat(&[Frame::Pong]));
        assert!(!is_beat(&[Frame::Ping, Frame::Ping]) && !is_beat(&[Frame::Cancel(CallbackId(1))]));
        for frames in 0..600 {
            assert_eq!(blocks(frames).iter().sum::<usize>(), frames);
        }
    }
}

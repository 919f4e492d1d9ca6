//! The next frame of a block: requests, replies and events are handed on without copying them out of the block.

use super::error::FrameError;
use super::kinds::{Frame, Item, Publish, Request, Response};
use crate::encoding::Encoding;
use crate::id::CallbackId;
use crate::payload::{Callbacks, Payload, PayloadRef};
use bytes::Bytes;

/// The next frame of a block. Nearly all frames are requests, replies and events, and no [`Frame`] is made of these, since a
/// `Frame` is as large as its largest variant.
#[derive(Debug)]
pub enum Next<'a> {
    /// A request. [`Frames::next_request_of_run`](crate::Frames::next_request_of_run) reads the rest of its run.
    Request(Request),
    /// A reply without functions.
    Reply {
        /// The request that the reply settles.
        callback_id: CallbackId,
        /// The value, in the block.
        payload: BlockPayload<'a>,
    },
    /// An event. [`Frames::next_event_of_run`](crate::Frames::next_event_of_run) reads the rest of its run.
    Event(Publish),
    /// An item of a stream, without functions.
    Item {
        /// The request, or the call of a function, that the stream answers.
        callback_id: CallbackId,
        /// The value, in the block.
        payload: BlockPayload<'a>,
    },
    /// Any other frame: also a response that is an error or passes functions.
    Other(Frame),
    /// Bytes that are no frame. They end the block: where the next frame begins cannot be told.
    Broken(FrameError),
}

/// A payload without functions that stands in a block. Reading it there needs no copy; sharing it keeps the block alive.
#[derive(Clone, Copy, Debug)]
pub struct BlockPayload<'a> {
    pub(super) block: &'a Bytes,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) encoding: Encoding,
}

/// The functions of a payload that passes none.
static NO_CALLBACKS: Callbacks = Callbacks::none();

impl Next<'_> {
    /// The frame itself, whose payload shares the block.
    ///
    /// # Errors
    ///
    /// The error of [`Next::Broken`].
    pub fn into_frame(self) -> Result<Frame, FrameError> {
        match self {
            Next::Request(request) => Ok(Frame::Request(request)),
            Next::Reply { callback_id, payload } => {
                Ok(Frame::Response(Response { callback_id, outcome: Ok(payload.share()) }))
            }
            Next::Event(event) => Ok(Frame::Publish(event)),
            Next::Item { callback_id, payload } => {
                Ok(Frame::Item(Item { callback_id, payload: payload.share() }))
            }
            Next::Other(frame) => Ok(frame),
            Next::Broken(error) => Err(error),
        }
    }
}

impl<'a> BlockPayload<'a> {
    /// The payload, borrowed from the block.
    #[must_use]
    #[inline]
    pub fn by_ref(self) -> PayloadRef<'a> {
        let bytes = &self.block[self.start..self.end];
        PayloadRef { encoding: self.encoding, bytes, callbacks: &NO_CALLBACKS }
    }

    /// The payload, to be kept. It keeps the whole block alive, however long that is.
    #[must_use]
    #[inline]
    pub fn share(self) -> Payload {
        Payload::new(self.encoding, self.block.slice(self.start..self.end))
    }
}

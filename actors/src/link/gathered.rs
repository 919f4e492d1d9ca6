//! The small replies to the requests of one block, which leave in one go. They gather in a buffer of their own, since responders run
//! meanwhile, and may need the outbox themselves.

use bytes::BytesMut;
use meshwork_wire::{CallbackId, Encoding, FrameRef, Response, SMALL_REPLY_LEN_MAX, write_small_reply};
use std::cell::{Cell, RefCell, RefMut};

/// A reply of at most so many bytes is small: about as long as the error that would replace a reply that found no room.
pub(crate) const GATHERED_LEN_MAX: usize = SMALL_REPLY_LEN_MAX;

/// How long the frame of a small reply is at most. Replies for a link that reads shorter frames only are not gathered, but checked one by
/// one.
pub(crate) const GATHERED_FRAME_LEN_MAX: usize = 128;

/// A longer buffer is not kept for the next block.
const KEPT_LEN_MAX: usize = 128 * 1024;

/// The frames of small replies to the requests of one block.
#[derive(Default)]
pub(crate) struct GatheredReplies(RefCell<BytesMut>);

thread_local! {
    /// The buffer for the replies of the next block: a block takes it, and gives it back.
    static KEPT: Cell<BytesMut> = Cell::new(BytesMut::new());
}

impl GatheredReplies {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Adds a response whose payload has at most [`GATHERED_LEN_MAX`] bytes.
    pub(crate) fn push(&self, response: &Response) {
        FrameRef::from(response).encode(&mut self.begun());
    }

    /// Adds a reply of at most [`GATHERED_LEN_MAX`] bytes.
    #[inline]
    pub(crate) fn push_small(&self, callback_id: CallbackId, encoding: Encoding, bytes: &[u8]) {
        write_small_reply(callback_id, encoding, bytes, &mut self.begun());
    }

    /// Takes the frames out. [`GatheredReplies::give_back`] takes their buffer when they have left.
    pub(crate) fn take(&self) -> BytesMut {
        self.0.take()
    }

    /// Keeps a buffer whose replies have left, for the next block of this thread.
    pub(crate) fn give_back(mut bytes: BytesMut) {
        bytes.clear();
        if bytes.capacity() <= KEPT_LEN_MAX {
            // A thread that ends reads no further block.
            _ = KEPT.try_with(|kept| kept.set(bytes));
        }
    }

    /// The buffer, taken from the thread if this is the first reply of the block.
    #[inline]
    fn begun(&self) -> RefMut<'_, BytesMut> {
        let mut bytes = self.0.borrow_mut();
        if bytes.capacity() == 0 {
            *bytes = KEPT.try_with(Cell::take).unwrap_or_default();
        }
        bytes
    }
}

//! Small replies of one block, which leave in one go. The outbox is not held for them: responders run meanwhile, and may have
//! something to say themselves.

use bytes::BytesMut;
use meshwork_wire::{CallbackId, Encoding, FrameRef, Response, SMALL_REPLY_LEN_MAX, write_small_reply};
use std::cell::{Cell, RefCell, RefMut};

/// A reply of so many bytes is small: about as long as the error that would replace it if there were no room.
pub(crate) const GATHERED_LEN_MAX: usize = SMALL_REPLY_LEN_MAX;

/// How long the frame of a small reply may be. Links that allow less have each reply checked.
pub(crate) const GATHERED_FRAME_LEN_MAX: usize = 128;

/// A buffer that is longer is not kept for the next block.
const KEPT_LEN_MAX: usize = 128 * 1024;

/// The frames of small replies.
#[derive(Default)]
pub(crate) struct Gathered(RefCell<BytesMut>);

thread_local! {
    /// The buffer that the replies of the next block are gathered in: a block takes it, and gives it back.
    static KEPT: Cell<BytesMut> = Cell::new(BytesMut::new());
}

impl Gathered {
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

    /// Takes the frames out; [`Gathered::give_back`] their buffer when they have left.
    pub(crate) fn take(&self) -> BytesMut {
        self.0.take()
    }

    /// Keeps the buffer of replies that have left for the next block of this thread.
    pub(crate) fn give_back(mut bytes: BytesMut) {
        bytes.clear();
        if bytes.capacity() <= KEPT_LEN_MAX {
            // At the end of the thread there is no next block.
            _ = KEPT.try_with(|kept| kept.set(bytes));
        }
    }

    #[inline]
    fn begun(&self) -> RefMut<'_, BytesMut> {
        let mut bytes = self.0.borrow_mut();
        if bytes.capacity() == 0 {
            *bytes = KEPT.try_with(Cell::take).unwrap_or_default();
        }
        bytes
    }
}

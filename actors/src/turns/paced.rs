//! Turns for the other tasks of an arbiter between two blocks of frames.

use futures::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Lets the other tasks of the arbiter have their turns after each item: what one block of frames made others say leaves, and
/// is worked on at the far end, while the next block is read. Whoever holds a part of the block lets go of it meanwhile, so
/// that its buffer is read into again: making a new one for each read took more than half of what a call of 1 KiB cost.
pub(crate) struct Paced<S> {
    stream: S,
    turns: u8,
    left: u8,
}

impl<S> Paced<S> {
    /// With so many turns for the others after each item.
    pub(crate) fn new(stream: S, turns: u8) -> Self {
        Self { stream, turns, left: 0 }
    }
}

impl<S: Stream + Unpin> Stream for Paced<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.left > 0 {
            self.left -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let item = Pin::new(&mut self.stream).poll_next(context);
        if item.is_ready() {
            self.left = self.turns;
        }
        item
    }
}

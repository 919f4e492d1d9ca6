//! The pace at which an actor takes the blocks that its link brings.

use super::parts::Parts;
use futures::Stream;
use meshwork_wire::{Block, FrameError};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Lets the other tasks of the arbiter have their turns after each block, or part of one: the frames that it made others write leave, and
/// are worked on at the far end, while the next block is read. Tasks that hold a part of the block let go of it meanwhile, so
/// that its buffer is read into again: making a new one for each read took more than half of what a call of 1 KiB cost.
pub(crate) struct Paced<S> {
    blocks: S,
    turns: u8,
    left: u8,
    parts: Parts,
    /// The rest of a block that is taken in parts, and how many frames of it are taken at once.
    rest: Option<(Block, usize)>,
}

impl<S> Paced<S> {
    /// With so many turns for the others after each block.
    pub(crate) fn new(blocks: S, turns: u8) -> Self {
        Self { blocks, turns, left: 0, parts: Parts::default(), rest: None }
    }

    fn part_of(&mut self, mut block: Block, len: usize) -> Block {
        match block.split_off(len) {
            Some(rest) => {
                self.rest = Some((rest, len));
                block
            }
            None => block,
        }
    }
}

impl<S: Stream<Item = Result<Block, FrameError>> + Unpin> Stream for Paced<S> {
    type Item = Result<Block, FrameError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.left > 0 {
            this.left -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some((rest, len)) = this.rest.take() {
            this.left = this.turns;
            return Poll::Ready(Some(Ok(this.part_of(rest, len))));
        }
        let block = match Pin::new(&mut this.blocks).poll_next(context) {
            Poll::Ready(block) => block,
            Poll::Pending => return Poll::Pending,
        };
        this.left = this.turns;
        let block = match block {
            // An event has no answer that its publisher could work on meanwhile.
            Some(Ok(block)) if !block.is_of_events() => {
                let len = this.parts.part_len(block.count(), Instant::now().into_std());
                Some(Ok(this.part_of(block, len)))
            }
            block => block,
        };
        Poll::Ready(block)
    }
}

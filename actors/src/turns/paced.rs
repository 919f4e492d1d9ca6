//! The pace at which an actor takes the blocks that its link brings.

use super::credit::Credit;
use super::parts::{Parts, WHOLE_MAX};
use futures::Stream;
use meshwork_wire::{Block, FrameError};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// Lets the other tasks of the arbiter have their turns after each block, or part of a block: the frames that the block made them write
/// leave, and are worked on at the far end, while the next block is read. Tasks that hold a part of the block drop it meanwhile, so
/// that its buffer is read into again: a new buffer for each read took more than half of the cost of a call of 1 KiB.
pub(crate) struct Paced<S> {
    blocks: S,
    /// The reader stops while this is spent. None at a branch: what it holds for its master has bounds of its own.
    credit: Option<Credit>,
    /// Whether the other tasks have their turns before the next block.
    is_their_turn: bool,
    /// Whether the last block had to be waited for.
    waited: bool,
    /// Made when a block comes that may be taken in parts: most links never bring one.
    parts: Option<Box<Parts>>,
    /// The rest of a block that is taken in parts, and how many frames of it are taken at once.
    rest: Option<(Block, usize)>,
}

/// A block of one frame, no longer than this, delays no other task, and is copied by a task that keeps a part of it. When the reader had
/// to wait for it, it most likely waits for the next block too: then the other tasks have their turns anyway, and a turn in between would
/// cost as much as the frame.
const ALONE_LEN_MAX: usize = 1024;

impl<S> Paced<S> {
    pub(crate) fn new(blocks: S) -> Self {
        Self { blocks, credit: None, is_their_turn: false, waited: false, parts: None, rest: None }
    }

    /// Stops reading while the credit is spent.
    pub(crate) fn within(self, credit: Credit) -> Self {
        Self { credit: Some(credit), ..self }
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
        if std::mem::take(&mut this.is_their_turn) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(credit) = &this.credit {
            ready!(credit.poll_unspent(context));
        }
        if let Some((rest, len)) = this.rest.take() {
            this.is_their_turn = true;
            return Poll::Ready(Some(Ok(this.part_of(rest, len))));
        }
        let block = match Pin::new(&mut this.blocks).poll_next(context) {
            Poll::Ready(block) => block,
            Poll::Pending => {
                this.waited = true;
                return Poll::Pending;
            }
        };
        let waited = std::mem::take(&mut this.waited);
        let is_alone = |block: &Block| waited && block.count() == 1 && block.len() <= ALONE_LEN_MAX;
        this.is_their_turn = !matches!(&block, Some(Ok(block)) if is_alone(block));
        let block = match block {
            // Events are not taken in parts: they have no answers that the publisher could work on meanwhile.
            Some(Ok(block)) if !block.is_of_events() => {
                let len = match &mut this.parts {
                    None if block.count() <= WHOLE_MAX => block.count(),
                    parts => {
                        parts.get_or_insert_default().part_len(block.count(), || Instant::now().into_std())
                    }
                };
                Some(Ok(this.part_of(block, len)))
            }
            block => block,
        };
        Poll::Ready(block)
    }
}

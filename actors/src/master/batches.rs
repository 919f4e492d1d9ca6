//! Items for others, gathered while a block is read: each receiver gets one message with all of its items.

use std::rc::Rc;

/// A batch of items for each receiver. Entries of requests share the receiver.
pub(crate) type Batches<To, T> = Vec<(Rc<To>, Vec<T>)>;

/// Adds an item to the batch of the receiver for which `is` holds, and gives that receiver. `share` makes the receiver of a batch that
/// begins; that batch has room for its part of the `may_follow` items to come, so that it seldom grows.
#[inline(always)]
pub(crate) fn push_to<To, T>(
    batches: &mut Batches<To, T>,
    is: impl Fn(&To) -> bool,
    share: impl FnOnce() -> Rc<To>,
    item: T,
    may_follow: usize,
) -> &Rc<To> {
    let there = batches.iter().position(|(to, _)| is(to));
    let index = there.unwrap_or_else(|| {
        let batch = Vec::with_capacity(1 + may_follow / (1 + batches.len()));
        batches.push((share(), batch));
        batches.len() - 1
    });
    let (to, batch) = &mut batches[index];
    batch.push(item);
    to
}

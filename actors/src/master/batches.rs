//! What one block makes a session, or the master, say to others: one message for each of them.

use std::rc::Rc;

/// What is said to others, each with a batch. The receivers are shared with what else knows of them.
pub(crate) type Batches<To, T> = Vec<(Rc<To>, Vec<T>)>;

/// Adds to the batch of the receiver that `is` it, which begins with the handle that `share` gives; gives that handle. A batch that
/// begins makes room for as many items as may follow, so that it never grows.
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

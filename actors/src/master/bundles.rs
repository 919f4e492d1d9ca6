//! Bundles: items for other actors, gathered while a block is read, so that each receiver gets one message with all its items.

use std::rc::Rc;

/// A bundle of items for each receiver. The entries of requests in a relay share the receiver.
pub(crate) type Bundles<To, T> = Vec<(Rc<To>, Vec<T>)>;

/// Adds an item to the bundle of the receiver for which `is` holds, and gives that receiver. `share` makes the receiver of a new bundle. A new
/// bundle has room for its part of the `may_follow` items to come, so that it seldom grows.
#[inline(always)]
pub(crate) fn push_to<To, T>(
    bundles: &mut Bundles<To, T>,
    is: impl Fn(&To) -> bool,
    share: impl FnOnce() -> Rc<To>,
    item: T,
    may_follow: usize,
) -> &Rc<To> {
    let there = bundles.iter().position(|(to, _)| is(to));
    let index = there.unwrap_or_else(|| {
        let bundle = Vec::with_capacity(1 + may_follow / (1 + bundles.len()));
        bundles.push((share(), bundle));
        bundles.len() - 1
    });
    let (to, bundle) = &mut bundles[index];
    bundle.push(item);
    to
}

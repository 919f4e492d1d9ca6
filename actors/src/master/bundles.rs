//! Bundles: items for other actors, gathered while a block is read, so that each receiver gets one message with all its items.

use std::rc::Rc;

/// A bundle of items for each receiver. The entries of requests in a relay share the receiver.
pub(crate) type Bundles<To, T> = Vec<(Rc<To>, Vec<T>)>;

/// How many bundles are looked at for a receiver, the last ones: one that has an earlier bundle gets a further one behind it. So a session with
/// requests of thousands of others takes a few steps for each item.
const LOOKED_AT_MAX: usize = 64;

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
    // Most items are for the receiver of the item before, or for one of few.
    let index = match bundles.last() {
        Some((to, _)) if is(to) => bundles.len() - 1,
        _ => {
            let from = bundles.len().saturating_sub(LOOKED_AT_MAX);
            let there = bundles[from..].iter().position(|(to, _)| is(to));
            there.map(|at| from + at).unwrap_or_else(|| {
                let bundle = Vec::with_capacity(1 + may_follow / (1 + bundles.len()));
                bundles.push((share(), bundle));
                bundles.len() - 1
            })
        }
    };
    let (to, bundle) = &mut bundles[index];
    bundle.push(item);
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session with requests to thousands of others looked through all of them for each.
    #[test]
    fn an_item_looks_at_few_receivers_and_those_of_one_receiver_stay_in_order() {
        let mut bundles: Bundles<u32, u32> = Vec::new();
        let looked = std::cell::Cell::new(0);
        for item in 0..10_000 {
            let to = if item % 5_000 == 7 { 7 } else { 10 + item % 5_000 };
            let is = |there: &u32| {
                looked.set(looked.get() + 1);
                *there == to
            };
            push_to(&mut bundles, is, || Rc::new(to), item, 0);
        }
        assert!(looked.get() <= 10_000 * (1 + LOOKED_AT_MAX));
        let of_one: Vec<_> =
            bundles.iter().filter(|(to, _)| **to == 7).flat_map(|(_, items)| items).collect();
        assert_eq!(of_one, [&7, &5_007]);
    }
}

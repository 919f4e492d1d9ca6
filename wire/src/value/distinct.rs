//! The keys of one map, so that a key that comes twice is found: of the two entries a map of Rust keeps one, and nobody would notice that
//! the other one is gone.

use std::collections::HashSet;
use std::hash::Hash;

/// How many keys are compared one by one. Most maps have no more, and need no hash.
const FEW: usize = 8;

/// The keys that a map has so far. Their number is bounded by the length of the map.
pub(super) struct Distinct<K> {
    /// The first keys. They need no allocation.
    few: [Option<K>; FEW],
    /// The keys beyond these. Their hashes are seeded: keys that a peer chose cannot collide on purpose.
    many: HashSet<K>,
}

impl<K: Eq + Hash> Distinct<K> {
    pub(super) fn new() -> Self {
        Self { few: [const { None }; FEW], many: HashSet::new() }
    }

    /// Adds a key. False if the map has it already.
    pub(super) fn insert(&mut self, key: K) -> bool {
        for place in &mut self.few {
            match place {
                Some(other) if *other == key => return false,
                Some(_) => {}
                None => {
                    *place = Some(key);
                    return true;
                }
            }
        }
        self.many.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_twice_is_found_among_few_and_among_many() {
        for len in [1, FEW, FEW + 1, 10 * FEW] {
            let mut keys = Distinct::new();
            assert!((0..len).all(|key| keys.insert(key)), "{len}");
            assert!((0..len).all(|key| !keys.insert(key)), "{len}");
            assert!(keys.insert(len), "{len}");
        }
    }
}

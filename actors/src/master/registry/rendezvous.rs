//! Which provider the calls of a key get: rendezvous hashing. Every provider has a rank for every key, and the highest rank gets the key. So
//! nothing is kept for a key; when a provider goes, only its keys move, to all others alike, and a provider that comes takes its part from
//! all others alike. The hashes are fixed: a master that starts again gives each key to the node that had it.
//!
//! A pick costs one multiplication or two for each provider: with a thousand providers some microseconds.

/// A number of a text, equal in every process: of a key, or of the name of a node.
pub(crate) fn hash_of(text: &[u8]) -> u64 {
    // FNV-1a, whose bits the mixing spreads.
    let hash = text.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    mixed(hash)
}

/// The rank of a provider for a key; the highest rank gets the key. Nodes are told apart by name, since a node that comes back has it again;
/// the sessions of one name by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank {
    of_name: u64,
    of_session: u64,
}

impl Rank {
    /// The rank where all providers have one weight.
    pub(crate) fn new(key: u64, name: u64, session: u64) -> Self {
        Self { of_name: mixed(key ^ name.rotate_left(32)), of_session: mixed(key ^ mixed(session)) }
    }

    /// The rank where the weights differ: a provider gets keys in proportion to its weight. Ranks of equal weights keep their order, so a
    /// provider of another weight takes keys, and moves none among the others.
    pub(crate) fn weighted(self, weight: u32) -> Self {
        if weight == 0 {
            // Below all ranks with a weight, as bits: these are of numbers that are not that near to zero.
            return Self { of_name: self.of_name >> 12, ..self };
        }
        // A number between 0 and 1, both excluded.
        #[expect(clippy::cast_precision_loss, reason = "the number has as many bits as fit")]
        let chance = ((self.of_name >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        let score = f64::from(weight) / -chance.ln();
        // The bits of numbers that are not negative have the order of the numbers.
        Self { of_name: score.to_bits(), ..self }
    }
}

/// Spreads each bit of a number over all bits of another one: the end of SplitMix64.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const KEYS: u64 = 20_000;

    /// The provider of each key, among nodes of these names and weights.
    fn owners(nodes: &[(String, u32)]) -> Vec<&str> {
        let equal = nodes.iter().all(|(_, weight)| *weight == nodes[0].1);
        let owner = |key: u64| {
            let key = hash_of(format!("customer-{key}").as_bytes());
            let rank = |(name, weight): &&(String, u32)| {
                let rank = Rank::new(key, hash_of(name.as_bytes()), 1);
                if equal { rank } else { rank.weighted(*weight) }
            };
            nodes.iter().max_by_key(rank).map(|(name, _)| &**name).expect("there are nodes")
        };
        (0..KEYS).map(owner).collect()
    }

    fn nodes(count: usize) -> Vec<(String, u32)> {
        (0..count).map(|number| (format!("node-{number}"), 100)).collect()
    }

    fn shares<'n>(owners: &[&'n str]) -> BTreeMap<&'n str, usize> {
        let mut shares = BTreeMap::new();
        owners.iter().for_each(|owner| *shares.entry(*owner).or_default() += 1);
        shares
    }

    #[test]
    fn each_of_equal_providers_gets_its_part_of_the_keys() {
        for count in [2, 3, 10, 50] {
            let (nodes, fair) = (nodes(count), KEYS as usize / count);
            let owners = owners(&nodes);
            let shares = shares(&owners);
            assert_eq!(shares.len(), count);
            for (name, share) in shares {
                assert!(share.abs_diff(fair) < fair / 4, "{name} of {count} has {share} keys, not {fair}");
            }
        }
    }

    #[test]
    fn only_the_keys_of_a_provider_that_goes_move() {
        let all = nodes(10);
        let before = owners(&all);
        for gone in 0..all.len() {
            let mut left = all.clone();
            let (gone, _) = left.remove(gone);
            let after = owners(&left);
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
            assert!(moved.clone().all(|(before, _)| *before == gone));
            assert_eq!(moved.count(), before.iter().filter(|owner| **owner == gone).count());
        }
    }

    #[test]
    fn a_provider_that_comes_takes_its_part_and_moves_no_other_key() {
        let (before, with) = (nodes(9), nodes(10));
        let (before, after) = (owners(&before), owners(&with));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| **after == "node-9"));
        assert!(moved.len().abs_diff(KEYS as usize / 10) < KEYS as usize / 40, "{}", moved.len());
    }

    #[test]
    fn keys_are_shared_by_weight_and_a_new_weight_moves_only_its_own() {
        let mut nodes = nodes(5);
        nodes.push(("canary".to_owned(), 100));
        let equal: Vec<_> = owners(&nodes).into_iter().map(str::to_owned).collect();
        nodes[5].1 = 10;
        let weighted = owners(&nodes);
        let canary = weighted.iter().filter(|owner| **owner == "canary").count();
        let fair = KEYS as usize * 10 / 510;
        assert!(canary.abs_diff(fair) < fair / 4, "{canary}, not {fair}");
        for (equal, weighted) in equal.iter().zip(weighted) {
            assert!(equal == weighted || equal == "canary", "a key moved from {equal} to {weighted}");
        }
        nodes[5].1 = 0;
        assert!(!shares(&owners(&nodes)).contains_key("canary"));
    }

    /// They all had the rank zero, and moved when the last provider with a weight went.
    #[test]
    fn providers_without_weight_share_keys_as_if_they_were_alone() {
        for key in (0..1_000).map(|key: u64| hash_of(&key.to_le_bytes())) {
            let ranks = [1, 2, 3].map(|node| Rank::new(key, hash_of(&[node]), 0));
            let order = |ranks: [Rank; 3]| (ranks[0] > ranks[1], ranks[1] > ranks[2], ranks[0] > ranks[2]);
            assert_eq!(order(ranks.map(|rank| rank.weighted(0))), order(ranks));
            assert!(ranks.iter().all(|rank| ranks.iter().all(|other| rank.weighted(0) < other.weighted(1))));
        }
    }

    #[test]
    fn the_sessions_of_one_name_share_its_keys() {
        let name = hash_of(b"worker");
        let owner =
            |key: u64| (1..=4).max_by_key(|session| Rank::new(key, name, *session)).expect("one of four");
        let mut shares = [0; 5];
        (0..KEYS).for_each(|key| shares[owner(hash_of(&key.to_le_bytes())) as usize] += 1);
        let fair = KEYS as usize / 4;
        assert!(shares[1..].iter().all(|share: &usize| share.abs_diff(fair) < fair / 10), "{shares:?}");
    }

    /// Masters of one mesh, and a master before and after its restart, must agree.
    #[test]
    fn the_hashes_are_those_of_every_version() {
        assert_eq!(hash_of(b""), 0xF52A_15E9_A9B5_E89B);
        assert_eq!(hash_of(b"customer-7"), 0x9749_585E_A136_30D6);
        let rank = Rank { of_name: 0xC72C_0D73_624B_3F8E, of_session: 0xB29A_3BD0_6EED_AFE8 };
        assert_eq!(Rank::new(1, 2, 3), rank);
    }
}

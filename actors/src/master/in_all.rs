//! How many bytes of one kind a branch may have, where all branches of the master have a bound together: offers, or subscriptions. Pure.

use meshwork_wire::limits::IN_ALL_OWN_LEN_MIN;

/// The bytes that all branches of a master have of one kind.
#[derive(Debug)]
pub(crate) struct InAll {
    len: usize,
    len_max: usize,
    /// What one branch may have, however little the others have.
    own_len_max: usize,
}

/// Why a branch may not have more bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NoRoom {
    /// One branch has so many at most.
    #[error("take at most {0} bytes at its master")]
    Own(usize),
    /// The other branches leave it so many.
    #[error("take at most {0} bytes at its master now, since those of all its branches take {1}")]
    Left(usize, usize),
}

/// What the branches leave is shared by so many.
const SHARES: usize = 9;

impl InAll {
    pub(crate) fn new(own_len_max: usize, len_max: usize) -> Self {
        Self { len: 0, len_max, own_len_max }
    }

    #[cfg(test)]
    pub(crate) fn of_each(own_len_max: usize) -> Self {
        Self::new(own_len_max, meshwork_wire::limits::REGISTERED_IN_ALL_LEN_MAX)
    }

    /// Whether a branch that has `before` bytes may have `after`: a ninth of what the other branches leave, so that those that come later find
    /// room, and a few in any case.
    pub(crate) fn check(&self, before: usize, after: usize) -> Result<(), NoRoom> {
        let others = self.len - before;
        let share = (self.len_max.saturating_sub(others) / SHARES).max(IN_ALL_OWN_LEN_MIN);
        // A branch may always change what it has for less.
        if after <= before || after <= share.min(self.own_len_max) {
            return Ok(());
        }
        Err(if share < self.own_len_max {
            NoRoom::Left(share, self.len)
        } else {
            NoRoom::Own(self.own_len_max)
        })
    }

    /// Notes that a branch has `after` bytes now, and no longer `before`.
    pub(crate) fn note(&mut self, before: usize, after: usize) {
        self.len = self.len - before + after;
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn one_branch_is_held_to_its_own_bound_and_many_to_what_they_leave() {
        let mut all = InAll::new(128 * MIB, 2048 * MIB);
        assert_eq!(all.check(0, 128 * MIB), Ok(()));
        assert_eq!(all.check(0, 128 * MIB + 1), Err(NoRoom::Own(128 * MIB)));
        for _ in 0..7 {
            assert_eq!(all.check(0, 128 * MIB), Ok(()));
            all.note(0, 128 * MIB);
        }
        assert_eq!(all.check(0, 128 * MIB), Ok(()), "the seven leave nine times as much");
        all.note(0, 128 * MIB);
        assert_eq!(all.check(0, 128 * MIB), Err(NoRoom::Left(1024 * MIB / 9, 1024 * MIB)));
        assert_eq!(all.check(128 * MIB, 127 * MIB), Ok(()), "less is always allowed");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However many branches take all that they may, the sum stays below the bound and a few bytes for each of them, and those that come next
        /// find room.
        #[test]
        fn branches_that_take_all_they_may_leave_room(branches in 1..60_usize, steps in 1..4_usize) {
            let mut all = InAll::new(128 * MIB, 1024 * MIB);
            for _ in 0..branches {
                let mut own = 0;
                for _ in 0..steps {
                    let after = (own..own + 64 * MIB).rev().step_by(MIB).find(|after| all.check(own, *after).is_ok()).unwrap_or(own);
                    all.note(own, after);
                    own = after;
                }
            }
            prop_assert!(all.len() <= 1024 * MIB + branches * IN_ALL_OWN_LEN_MIN);
            prop_assert_eq!(all.check(0, IN_ALL_OWN_LEN_MIN), Ok(()));
        }
    }
}

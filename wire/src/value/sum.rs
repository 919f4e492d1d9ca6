//! [`Sum`]: what a value tells its codec while it is written, or is asked for while it is read, summed up in four bytes. Two derives of one
//! type that disagree about its bytes come to different sums. The bytes of the value itself are not summed up: the links keep them.

use std::cell::Cell;

/// A sum that begins with the signature of an action, and grows with each event.
#[derive(Default)]
pub(crate) struct Sum {
    state: Cell<u64>,
    last: Cell<u64>,
    count: Cell<u64>,
}

/// How many bytes a sum has behind a value.
pub(crate) const SUM_LEN: usize = 4;

/// What may be told of a value, as far as its bytes depend on it. Integers of 16 to 128 bits have one form, as texts and bytes have.
pub(crate) mod event {
    pub(crate) const BOOL: u64 = 1;
    pub(crate) const I8: u64 = 2;
    pub(crate) const U8: u64 = 3;
    pub(crate) const INT: u64 = 4;
    pub(crate) const UINT: u64 = 5;
    pub(crate) const F32: u64 = 6;
    pub(crate) const F64: u64 = 7;
    pub(crate) const CHAR: u64 = 8;
    pub(crate) const BYTES: u64 = 9;
    pub(crate) const NONE: u64 = 10;
    pub(crate) const SOME: u64 = 11;
    const RECORD: u64 = 12;
    const LIST: u64 = 13;
    const MAP: u64 = 14;
    const VARIANT: u64 = 1 << 63;

    /// The end of a tuple or a struct, with the count of the elements that it really had.
    #[inline]
    pub(crate) const fn record(count: usize) -> u64 {
        RECORD | (count as u64) << 8
    }

    /// The end of a sequence.
    #[inline]
    pub(crate) const fn list(count: usize) -> u64 {
        LIST | (count as u64) << 8
    }

    /// The end of a map.
    #[inline]
    pub(crate) const fn map(count: usize) -> u64 {
        MAP | (count as u64) << 8
    }

    /// A variant of an enum, by its name and the kind of its content.
    #[inline]
    pub(crate) fn variant(name: &str, kind: Kind) -> u64 {
        let mut hash = 0xCBF2_9CE4_8422_2325 ^ kind as u64;
        for byte in name.as_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
        hash | VARIANT
    }

    /// The kind of the content of a variant.
    #[derive(Clone, Copy)]
    pub(crate) enum Kind {
        Unit,
        Newtype,
        Tuple,
        Struct,
    }
}

impl Sum {
    /// A sum that begins with this number.
    #[inline]
    pub(crate) fn of(seed: u64) -> Self {
        Self { state: Cell::new(seed), last: Cell::new(0), count: Cell::new(0) }
    }

    /// Adds an event. An event that repeats, as in a list of numbers, is only counted.
    #[inline(always)]
    pub(crate) fn tell(&self, event: u64) {
        if self.last.get() == event {
            self.count.set(self.count.get() + 1);
        } else {
            self.state.set(self.mixed());
            self.last.set(event);
            self.count.set(1);
        }
    }

    #[inline(always)]
    fn mixed(&self) -> u64 {
        let told = self.last.get() ^ self.count.get() << 40;
        (self.state.get().rotate_left(5) ^ told).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// The sum, as it stands behind the value.
    #[inline]
    pub(crate) fn bytes(&self) -> [u8; SUM_LEN] {
        let mixed = self.mixed();
        ((mixed ^ mixed >> 32) as u32).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn sum(seed: u64, events: &[u64]) -> [u8; SUM_LEN] {
        let sum = Sum::of(seed);
        events.iter().for_each(|event| sum.tell(*event));
        sum.bytes()
    }

    #[test]
    fn what_differs_in_seed_kind_order_or_count_differs_in_its_sum() {
        let events = [
            event::BOOL,
            event::I8,
            event::INT,
            event::BYTES,
            event::NONE,
            event::SOME,
            event::list(1),
            event::record(1),
            event::variant("Paid", event::Kind::Unit),
            event::variant("Paid", event::Kind::Newtype),
            event::variant("Open", event::Kind::Unit),
        ];
        let mut sums = HashSet::new();
        let mut count = 0;
        let mut add = |seed, told: &[u64]| {
            sums.insert(sum(seed, told));
            count += 1;
        };
        for seed in [0, 1, u64::MAX] {
            add(seed, &[]);
            for one in events {
                add(seed, &[one]);
                add(seed, &[one, one]);
                for other in events.into_iter().filter(|other| *other != one) {
                    add(seed, &[one, other]);
                    add(seed, &[one, one, other]);
                    add(seed, &[one, other, other]);
                }
            }
        }
        assert_eq!(sums.len(), count);
    }

    #[test]
    fn sums_are_the_same_in_every_version() {
        assert_eq!(sum(0, &[]), [0, 0, 0, 0]);
        let paid = event::variant("Paid", event::Kind::Tuple);
        assert_eq!(
            sum(7, &[event::INT, event::INT, event::record(2), paid]),
            sum(7, &[4, 4, 12 | 2 << 8, paid])
        );
    }
}

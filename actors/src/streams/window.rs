//! The grants of a stream: how much its consumer lets come, and when more. One [`Allowance`] stands wherever items pass: at the producer, which
//! waits for it, and at each relay and the consumer, which trust no one and count along. Pure.
//!
//! A grant counts items and bytes. An item may leave while something of both is left, so the last item may be longer than what is left: an
//! item of any length fits into any window, and at most a window and one item are on their way.

use meshwork_wire::Grant;
use meshwork_wire::limits::{STREAM_GRANTED_ITEMS_MAX, STREAM_GRANTED_LEN_MAX};
use meshwork_wire::limits::{STREAM_WINDOW_ITEMS_MAX, STREAM_WINDOW_ITEMS_START, STREAM_WINDOW_LEN_START};

/// How much of a stream may still come, or leave, before its consumer grants more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allowance {
    items: u64,
    /// Below zero, the last item was longer than what was left.
    bytes: i64,
}

/// More was granted than any consumer may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrantedTooMuch;

/// An item for which no grant is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ungranted;

impl Allowance {
    /// An allowance of what was granted first; as much of it as may be granted.
    #[must_use]
    pub fn new(first: Grant) -> Self {
        let mut this = Self::default();
        let items = first.items.min(STREAM_GRANTED_ITEMS_MAX);
        let bytes = first.bytes.min(STREAM_GRANTED_LEN_MAX);
        // Not more than the bounds, so it is taken.
        let _ = this.grant(Grant { items, bytes });
        this
    }

    /// Adds what the consumer has granted.
    ///
    /// # Errors
    ///
    /// When more would be left then than may be granted at a time. Nothing is added.
    pub fn grant(&mut self, Grant { items, bytes }: Grant) -> Result<(), GrantedTooMuch> {
        let items = self.items + u64::from(items);
        let bytes = self.bytes + i64::from(bytes);
        if items > u64::from(STREAM_GRANTED_ITEMS_MAX) || bytes > i64::from(STREAM_GRANTED_LEN_MAX) {
            return Err(GrantedTooMuch);
        }
        *self = Self { items, bytes };
        Ok(())
    }

    /// Takes all that is left.
    #[must_use]
    pub fn take_all(&mut self) -> Grant {
        let Self { items, bytes } = std::mem::take(self);
        // Both are within the bounds, which are numbers of 32 bits.
        Grant {
            items: u32::try_from(items).unwrap_or(u32::MAX),
            bytes: u32::try_from(bytes).unwrap_or_default(),
        }
    }

    /// Whether a further item may leave, of any length.
    #[inline]
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.items > 0 && self.bytes > 0
    }

    /// Takes what an item of this length needs.
    ///
    /// # Errors
    ///
    /// When nothing is left.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<(), Ungranted> {
        if !self.is_left() {
            return Err(Ungranted);
        }
        self.items -= 1;
        // The longest frame fits by far.
        self.bytes -= i64::try_from(len).unwrap_or(i64::MAX / 2);
        Ok(())
    }
}

/// The window of a consumer: how much may be on its way to the code that reads the stream, or wait there. It begins small, and doubles each
/// time that the code has taken half of it and nothing waits: so a stream that flows gets what its path needs, and one whose items wait keeps
/// little.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    items: u32,
    bytes: u32,
    items_max: u32,
    bytes_max: u32,
    /// What was taken since the last grant.
    taken_items: u32,
    taken_bytes: u64,
}

impl Window {
    /// A window that grows to so many bytes; gives what it grants first.
    #[must_use]
    pub fn new(bytes_max: u32) -> (Self, Grant) {
        let bytes_max = bytes_max.clamp(1, STREAM_GRANTED_LEN_MAX / 2);
        let bytes = STREAM_WINDOW_LEN_START.min(bytes_max);
        let items = STREAM_WINDOW_ITEMS_START;
        let items_max = STREAM_WINDOW_ITEMS_MAX;
        let this = Self { items, bytes, items_max, bytes_max, taken_items: 0, taken_bytes: 0 };
        (this, Grant { items, bytes })
    }

    /// Notes that the reading code has taken an item of this length.
    #[inline]
    pub fn taken(&mut self, len: usize) {
        self.taken_items += 1;
        self.taken_bytes += len as u64;
    }

    /// Whether half of the window has been taken, so that more is granted.
    #[inline]
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.taken_items >= self.items.div_ceil(2) || self.taken_bytes * 2 >= u64::from(self.bytes)
    }

    /// What is granted now: what was taken, and more if nothing waits to be taken.
    #[must_use]
    pub fn next(&mut self, nothing_waits: bool) -> Grant {
        let (mut items, mut bytes) = (self.taken_items, self.taken_bytes);
        if nothing_waits {
            // What made the grant due is what the stream needs more of.
            if self.taken_items >= self.items.div_ceil(2) {
                let more = self.items.min(self.items_max - self.items);
                (self.items, items) = (self.items + more, items + more);
            }
            if self.taken_bytes * 2 >= u64::from(self.bytes) {
                let more = self.bytes.min(self.bytes_max - self.bytes);
                (self.bytes, bytes) = (self.bytes + more, bytes + u64::from(more));
            }
        }
        (self.taken_items, self.taken_bytes) = (0, 0);
        Grant { items, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::limits::STREAM_WINDOW_LEN_MAX;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// A producer and a consumer, with relays between them: what each sends arrives when the test says so, in order.
    struct Path {
        producer: Allowance,
        relays: Vec<Allowance>,
        consumer: Allowance,
        window: Window,
        /// Between two ends each: items towards the consumer, grants towards the producer.
        items: Vec<VecDeque<usize>>,
        grants: Vec<VecDeque<Grant>>,
        waiting: VecDeque<usize>,
    }

    impl Path {
        fn new(relays: usize, bytes_max: u32) -> Self {
            let (window, first) = Window::new(bytes_max);
            let allowance = Allowance::new(first);
            Self {
                producer: allowance,
                relays: vec![allowance; relays],
                consumer: allowance,
                window,
                items: vec![VecDeque::new(); relays + 1],
                grants: vec![VecDeque::new(); relays + 1],
                waiting: VecDeque::new(),
            }
        }

        fn produce(&mut self, len: usize) -> bool {
            let left = self.producer.is_left();
            assert_eq!(self.producer.take(len).is_ok(), left);
            if left {
                self.items[0].push_back(len);
            }
            left
        }

        /// Lets the first item between two ends arrive.
        fn arrive(&mut self, hop: usize) -> bool {
            let Some(len) = self.items[hop].pop_front() else {
                return false;
            };
            if hop == self.relays.len() {
                self.consumer.take(len).expect("the producer has waited");
                self.waiting.push_back(len);
            } else {
                self.relays[hop].take(len).expect("the producer has waited");
                self.items[hop + 1].push_back(len);
            }
            true
        }

        /// Lets the first grant between two ends arrive, each at the end nearer to the producer.
        fn arrive_grant(&mut self, hop: usize) -> bool {
            let Some(grant) = self.grants[hop].pop_front() else {
                return false;
            };
            if hop == 0 {
                self.producer.grant(grant).expect("it is of a window");
            } else {
                self.relays[hop - 1].grant(grant).expect("it is of a window");
                self.grants[hop - 1].push_back(grant);
            }
            true
        }

        fn consume(&mut self) -> bool {
            let Some(len) = self.waiting.pop_front() else {
                return false;
            };
            self.window.taken(len);
            if self.window.is_due() {
                let grant = self.window.next(self.waiting.is_empty());
                self.consumer.grant(grant).expect("it is of a window");
                let last = self.grants.len() - 1;
                self.grants[last].push_back(grant);
            }
            true
        }

        fn on_its_way(&self) -> usize {
            self.items.iter().flatten().chain(&self.waiting).sum()
        }

        /// Lets everything arrive, and be consumed.
        fn settle(&mut self) {
            loop {
                let hops = 0..self.items.len();
                let items = hops.clone().filter(|hop| self.arrive(*hop)).count();
                let consumed = usize::from(self.consume());
                let grants = hops.rev().filter(|hop| self.arrive_grant(*hop)).count();
                if items + consumed + grants == 0 {
                    return;
                }
            }
        }
    }

    proptest! {
        /// Whatever arrives when: nothing comes that was not granted, at most a window and an item are on their way, and when all that was
        /// sent has been taken a further item may leave.
        #[test]
        fn no_end_is_sent_more_than_it_granted_and_none_waits_for_ever(
            relays in 0..3_usize,
            bytes_max in prop_oneof![1..200_u32, 1_000..5_000_000_u32],
            steps in prop::collection::vec((0..8_u8, 0..4_usize, prop_oneof![0..100_usize, 0..200_000_usize]), 0..400),
        ) {
            let mut path = Path::new(relays, bytes_max);
            let mut longest = 0;
            for (step, hop, len) in steps {
                let hop = hop % (relays + 1);
                match step {
                    0..4 => {
                        if path.produce(len) {
                            longest = longest.max(len);
                        }
                    }
                    4 => _ = path.arrive(hop),
                    5 => _ = path.arrive_grant(hop),
                    _ => _ = path.consume(),
                }
                prop_assert!(path.on_its_way() <= path.window.bytes as usize + longest);
                prop_assert!(path.window.bytes <= bytes_max.max(1) && path.window.items <= STREAM_WINDOW_ITEMS_MAX);
            }
            path.settle();
            prop_assert!(path.producer.is_left(), "all was taken, and nothing was granted: {:?}", path.window);
            prop_assert!(path.relays.iter().all(|relay| *relay == path.producer));
            prop_assert_eq!(path.consumer, path.producer);
        }

        #[test]
        fn no_allowance_is_above_its_bound_whatever_is_granted(
            first in (any::<u32>(), any::<u32>()),
            steps in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u32>()), 0..100),
        ) {
            let mut allowance = Allowance::new(Grant { items: first.0, bytes: first.1 });
            for (grants, items, bytes) in steps {
                let before = allowance;
                if grants {
                    if allowance.grant(Grant { items, bytes }).is_err() {
                        prop_assert_eq!(allowance, before);
                    }
                } else if allowance.take(bytes as usize).is_err() {
                    prop_assert_eq!(allowance, before);
                }
                prop_assert!(allowance.items <= u64::from(STREAM_GRANTED_ITEMS_MAX));
                prop_assert!(allowance.bytes <= i64::from(STREAM_GRANTED_LEN_MAX));
            }
        }
    }

    #[test]
    fn a_window_grows_while_the_stream_flows_and_stays_small_while_items_wait() {
        let grow = |waits: bool| {
            let (mut window, _) = Window::new(STREAM_WINDOW_LEN_MAX);
            for _ in 0..100_000 {
                window.taken(1_000);
                if window.is_due() {
                    let _ = window.next(!waits);
                }
            }
            (window.items, window.bytes)
        };
        let (items, bytes) = grow(false);
        assert_eq!(bytes, STREAM_WINDOW_LEN_MAX);
        assert!(items >= STREAM_WINDOW_ITEMS_START);
        assert_eq!(grow(true), (STREAM_WINDOW_ITEMS_START, STREAM_WINDOW_LEN_START));
    }

    #[test]
    fn an_item_longer_than_any_window_leaves_and_the_next_one_waits_for_its_grant() {
        let mut path = Path::new(1, 1_000);
        assert!(path.produce(10_000_000) && !path.produce(1));
        path.settle();
        assert!(path.produce(1));
    }
}

//! Lanes: what waits to leave through one outbox, apart for each caller. Callers take turns, so a caller waits for the bytes of its own
//! lane and for its share of the bytes of the others, and not for all that another caller has put there before. Pure.

use crate::hashed::HashMap;
use meshwork_wire::CallbackId;
use std::collections::VecDeque;

/// Items that wait, in one lane for each caller.
pub(crate) struct Lanes<T> {
    lanes: HashMap<u64, Lane<T>>,
    /// The lanes that hold items, in the order of their turns.
    turns: VecDeque<u64>,
    /// The cost of all items.
    cost: usize,
    /// Where the items stand that may be withdrawn: their lanes, and their numbers there.
    places: HashMap<CallbackId, (u64, u64)>,
}

struct Lane<T> {
    items: VecDeque<Item<T>>,
    /// The number of the first item.
    first: u64,
    cost: usize,
    /// How many of the items were withdrawn.
    withdrawn: usize,
    /// How many bytes of the lane may leave before the next lane has its turn.
    due: usize,
}

struct Item<T> {
    cost: usize,
    /// None if the item was withdrawn.
    item: Option<T>,
    id: Option<CallbackId>,
}

/// How many bytes of a lane leave before the next lane has its turn.
pub(crate) const TURN_LEN: usize = 64 * 1024;

/// How many bytes an item takes besides its frame.
pub(crate) const ITEM_LEN: usize = 128;

/// How many times as much as what is free one caller may hold: alone it gets eight ninths of all there is, two callers eight seventeenths
/// each, and there is always something left for the next one.
const SHARE: usize = 8;

/// Whether a caller that holds `mine` of the `total` that all callers hold may take so much more. At most `max` is held, and what the last
/// caller took that held nothing.
#[inline]
pub(crate) fn fits_share(mine: usize, more: usize, total: usize, max: usize) -> bool {
    let free = max.saturating_sub(total);
    // The first of a caller always fits while there is room: a small bound has shares of less than one.
    free > 0 && (mine == 0 || (more <= free && mine + more <= SHARE.saturating_mul(free)))
}

impl<T> Lanes<T> {
    pub(crate) fn new() -> Self {
        Self { lanes: HashMap::default(), turns: VecDeque::new(), cost: 0, places: HashMap::default() }
    }

    /// Adds an item of so many bytes to the lane of a caller, unless the caller has its share of `cost_max` there already: then the item
    /// comes back. An item with an id may be withdrawn.
    pub(crate) fn push(
        &mut self,
        caller: u64,
        id: Option<CallbackId>,
        len: usize,
        cost_max: usize,
        item: T,
    ) -> Result<(), T> {
        let cost = len + ITEM_LEN;
        let mine = self.lanes.get(&caller).map_or(0, |lane| lane.cost);
        if !fits_share(mine, cost, self.cost, cost_max) {
            return Err(item);
        }
        let turns = &mut self.turns;
        let lane = self.lanes.entry(caller).or_insert_with(|| {
            turns.push_back(caller);
            Lane { items: VecDeque::new(), first: 0, cost: 0, withdrawn: 0, due: TURN_LEN }
        });
        if let Some(id) = id {
            self.places.insert(id, (caller, lane.first + lane.items.len() as u64));
        }
        lane.items.push_back(Item { cost, item: Some(item), id });
        lane.cost += cost;
        self.cost += cost;
        Ok(())
    }

    /// Takes the next item, of the lane whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        loop {
            let caller = *self.turns.front()?;
            let lane = self.lanes.get_mut(&caller)?;
            let Some(next) = lane.items.front() else {
                self.lanes.remove(&caller);
                self.turns.pop_front();
                continue;
            };
            let is_due = next.item.is_none() || next.cost <= lane.due || self.turns.len() == 1;
            if !is_due {
                lane.due += TURN_LEN;
                self.turns.rotate_left(1);
                continue;
            }
            let Item { cost, item, id } = lane.items.pop_front()?;
            lane.first += 1;
            lane.cost -= cost;
            self.cost -= cost;
            lane.withdrawn -= usize::from(item.is_none());
            if let Some(id) = id.filter(|_| item.is_some()) {
                self.places.remove(&id);
            }
            if lane.items.is_empty() {
                self.lanes.remove(&caller);
                self.turns.pop_front();
            } else if item.is_some() {
                lane.due = lane.due.saturating_sub(cost);
            }
            if item.is_some() {
                return item;
            }
        }
    }

    /// Takes an item out before it has had its turn.
    pub(crate) fn withdraw(&mut self, id: CallbackId) -> Option<T> {
        let (caller, number) = self.places.remove(&id)?;
        let lane = self.lanes.get_mut(&caller)?;
        let index = usize::try_from(number - lane.first).ok()?;
        let there = lane.items.get_mut(index)?;
        let item = there.item.take();
        lane.cost -= there.cost;
        self.cost -= there.cost;
        there.cost = 0;
        lane.withdrawn += 1;
        if lane.withdrawn > lane.items.len() / 2 {
            lane.sweep(caller, &mut self.places);
        }
        item
    }

    /// Takes the ids of all items that may be withdrawn, in no order, and drops the items.
    pub(crate) fn into_ids(self) -> Vec<CallbackId> {
        self.places.into_keys().collect()
    }

    /// Takes all items with their ids, in no order.
    pub(crate) fn into_items(self) -> impl Iterator<Item = (Option<CallbackId>, T)> {
        let items = self.lanes.into_values().flat_map(|lane| lane.items);
        items.filter_map(|Item { item, id, .. }| Some((id, item?)))
    }

    /// How many bytes the items take, with what they take besides.
    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

impl<T> Lane<T> {
    /// Drops the places of the items that were withdrawn, when they are the majority: so a sweep costs no more than the withdrawals did.
    fn sweep(&mut self, caller: u64, places: &mut HashMap<CallbackId, (u64, u64)>) {
        self.items.retain(|item| item.item.is_some());
        (self.first, self.withdrawn) = (0, 0);
        for (number, item) in (0..).zip(&self.items) {
            if let Some(id) = item.id {
                places.insert(id, (caller, number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const MAX: usize = 16 * 1024 * 1024;

    fn push(lanes: &mut Lanes<(u64, u64)>, caller: u64, number: u64, len: usize) -> bool {
        lanes.push(caller, Some(CallbackId(number)), len, MAX, (caller, number)).is_ok()
    }

    #[test]
    fn a_single_item_waits_for_no_more_than_a_turn_of_each_other_caller() {
        let mut lanes = Lanes::new();
        for number in 0..10_000 {
            assert!(push(&mut lanes, 1 + number % 3, number, 1000));
        }
        assert!(push(&mut lanes, 9, 10_000, 1000));
        let before = std::iter::from_fn(|| lanes.pop()).position(|(caller, _)| caller == 9);
        let before = before.expect("it leaves") * (1000 + ITEM_LEN);
        assert!(before <= 3 * (TURN_LEN + 2000), "{before}");
    }

    #[test]
    fn a_caller_with_long_items_gets_as_many_bytes_as_one_with_short_items() {
        let mut lanes = Lanes::new();
        (0..20).for_each(|number| assert!(push(&mut lanes, 1, number, 300_000)));
        (20..6_000).for_each(|number| assert!(push(&mut lanes, 2, number, 1000)));
        let mut left = [0; 3];
        for _ in 0..3_000 {
            let (caller, number) = lanes.pop().expect("there is more");
            left[usize::try_from(caller).unwrap()] += if number < 20 { 300_000 } else { 1000 } + ITEM_LEN;
        }
        assert!(left[1].abs_diff(left[2]) <= 300_000 + 2 * TURN_LEN, "{left:?}");
    }

    #[test]
    fn a_lone_caller_gets_nearly_all_and_leaves_room_for_the_next_ones() {
        let mut lanes = Lanes::new();
        let mut filled = Vec::new();
        for caller in 0..4 {
            let before = lanes.cost();
            let mut numbers = caller * 100_000..;
            while push(&mut lanes, caller, numbers.next().unwrap(), 10_000) {}
            filled.push(lanes.cost() - before);
        }
        assert!(filled[0] > MAX * 85 / 100 && lanes.cost() < MAX, "{filled:?}");
        assert!(filled.iter().all(|filled| *filled > 10_000), "{filled:?}");
    }

    #[test]
    fn the_first_item_of_a_caller_fits_however_long_it_is() {
        let mut lanes = Lanes::new();
        let mut numbers = 1..;
        while push(&mut lanes, 1, numbers.next().unwrap(), 100_000) {}
        assert!(push(&mut lanes, 2, 0, MAX));
        assert!(!push(&mut lanes, 3, 0, 1), "nothing is free");
    }

    #[test]
    fn shares_of_small_bounds_are_one_at_least() {
        for max in 1..9 {
            for taken in 0..max {
                assert!(fits_share(taken, 1, taken, max), "a lone caller may take {max} of {max}");
                assert!(fits_share(0, 1, taken, max));
            }
            assert!(!fits_share(0, 1, max, max) && !fits_share(max, 1, max, max));
        }
    }

    proptest! {
        /// Whatever is pushed, withdrawn and popped: an item leaves once or is withdrawn, items of a caller keep their order, and the
        /// costs add up.
        #[test]
        fn items_leave_once_and_in_the_order_of_their_caller(
            steps in prop::collection::vec((0u8..8, 0u64..5, 0usize..200_000), 0..400),
        ) {
            let mut lanes = Lanes::new();
            let mut there: BTreeMap<u64, u64> = BTreeMap::new();
            let mut last: HashMap<u64, u64> = HashMap::default();
            let mut next = 0;
            let mut leave = |left: Option<(u64, u64)>, there: &mut BTreeMap<u64, u64>| {
                if let Some((caller, number)) = left {
                    assert_eq!(there.remove(&number), Some(caller));
                    assert!(last.insert(caller, number).is_none_or(|before| before < number));
                }
                left.is_some()
            };
            for (step, caller, len) in steps {
                match step {
                    0..5 => {
                        if push(&mut lanes, caller, next, len) {
                            there.insert(next, caller);
                        }
                        next += 1;
                    }
                    5 => {
                        let number = there.keys().nth(len % there.len().max(1)).copied();
                        if let Some(number) = number {
                            let caller = there.remove(&number).unwrap();
                            prop_assert_eq!(lanes.withdraw(CallbackId(number)), Some((caller, number)));
                            prop_assert_eq!(lanes.withdraw(CallbackId(number)), None);
                        }
                    }
                    _ => _ = leave(lanes.pop(), &mut there),
                }
                prop_assert!(lanes.cost() <= MAX + 200_000 + ITEM_LEN);
                prop_assert_eq!(lanes.places.len(), there.len());
            }
            while leave(lanes.pop(), &mut there) {}
            prop_assert!(there.is_empty() && lanes.is_empty() && lanes.lanes.is_empty() && lanes.places.is_empty());
            prop_assert_eq!(lanes.cost(), 0);
        }
    }
}

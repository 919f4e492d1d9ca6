//! The callback table of calls that are awaited as one. They are submitted in parts, and the ids of a part follow each other, so it has
//! one entry and one deadline; in it each call is settled by itself, by whoever comes first.

use super::batch::{Batch, Seats};
use super::deadlines::Deadlines;
use meshwork_wire::CallbackId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Parts by the ids of their calls.
#[derive(Default)]
pub(crate) struct Parts {
    /// By their first ids. Those that are settled stay until they are the first ones, or the majority.
    parts: VecDeque<Part>,
    /// How many of them are not settled.
    open: usize,
    /// How many calls are not.
    left: usize,
    /// Where the last one was found: replies of one part come together.
    last: usize,
    /// By first ids.
    deadlines: Deadlines,
}

struct Part {
    first: CallbackId,
    seats: Seats,
}

/// Below this many parts a sweep is not worth it.
const SWEEP_LEN_MIN: usize = 16;

impl Parts {
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// How many calls wait.
    pub(crate) fn len(&self) -> usize {
        self.left
    }

    /// Lets the calls with the ids from `first` on wait, each for its own.
    pub(crate) fn insert(&mut self, first: CallbackId, seats: Seats, deadline: Option<Instant>) {
        if seats.left() == 0 {
            return;
        }
        if let Some(deadline) = deadline {
            self.deadlines.push(deadline, first);
        }
        self.open += 1;
        self.left += seats.left();
        let part = Part { first, seats };
        match self.parts.back() {
            Some(back) if back.first > first => {
                let at = self.parts.partition_point(|part| part.first < first);
                self.parts.insert(at, part);
            }
            _ => self.parts.push_back(part),
        }
    }

    /// The batch of whoever waits for `id`, and its place there; nobody waits for it from now on.
    #[inline]
    pub(crate) fn settle(&mut self, id: CallbackId) -> Option<(&Arc<Batch>, usize)> {
        let at = self.find(id)?;
        self.last = at;
        let part = &mut self.parts[at];
        let place = part.seats.take(part.offset(id)?)?;
        self.left -= 1;
        if part.seats.left() == 0 {
            self.open -= 1;
        }
        Some((part.seats.batch(), place))
    }

    /// Forgets parts that are settled.
    pub(crate) fn sweep(&mut self) {
        while let Some(front) = self.parts.front()
            && front.seats.left() == 0
        {
            let first = front.first;
            self.parts.pop_front();
            let parts = &self.parts;
            self.deadlines.settled(first, |first| waits(parts, first), self.open);
            self.last = self.last.saturating_sub(1);
        }
        if self.parts.len() > SWEEP_LEN_MIN + 2 * self.open {
            self.parts.retain(|part| part.seats.left() > 0);
            let parts = &self.parts;
            self.deadlines.sweep(|first| waits(parts, first));
        }
    }

    pub(crate) fn contains(&self, id: CallbackId) -> bool {
        self.find(id).is_some_and(|at| {
            let part = &self.parts[at];
            part.offset(id).is_some_and(|offset| !part.seats.is_taken(offset))
        })
    }

    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        let parts = &self.parts;
        self.deadlines.drop_settled(|first| waits(parts, first));
        self.deadlines.first()
    }

    /// The next call whose deadline has passed.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<CallbackId> {
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        let first = self.deadlines.first_id()?;
        let at = self.parts.partition_point(|part| part.first < first);
        let part = self.parts.get(at)?;
        part.seats.waiting().next().map(|offset| part.id(offset))
    }

    /// All calls that wait.
    pub(crate) fn ids(&self) -> Vec<CallbackId> {
        self.parts.iter().flat_map(|part| part.seats.waiting().map(|offset| part.id(offset))).collect()
    }

    #[inline]
    fn find(&self, id: CallbackId) -> Option<usize> {
        if self.parts.get(self.last).is_some_and(|part| part.offset(id).is_some()) {
            return Some(self.last);
        }
        let at = self.parts.partition_point(|part| part.first <= id).checked_sub(1)?;
        self.parts[at].offset(id).map(|_| at)
    }
}

/// Whether a call of the part that begins so waits.
fn waits(parts: &VecDeque<Part>, first: CallbackId) -> bool {
    let at = parts.partition_point(|part| part.first < first);
    parts.get(at).is_some_and(|part| part.first == first && part.seats.left() > 0)
}

impl Part {
    /// Which call of the part has the id.
    #[inline]
    fn offset(&self, id: CallbackId) -> Option<usize> {
        let offset = usize::try_from(id.0.checked_sub(self.first.0)?).ok()?;
        (offset < self.seats.count()).then_some(offset)
    }

    fn id(&self, offset: usize) -> CallbackId {
        CallbackId(self.first.0 + offset as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn seats(batch: &Arc<Batch>, place: usize, count: usize) -> Seats {
        let mut seats = Seats::new(Arc::clone(batch), place);
        (0..count).for_each(|_| seats.push());
        seats
    }

    proptest! {
        /// Each call with its place and its deadline, beside a map of them.
        #[test]
        fn they_are_a_map(
            counts in proptest::collection::vec((0..200_usize, 0..50_u64, 0..4_u64, any::<bool>()), 1..12),
            steps in proptest::collection::vec((any::<prop::sample::Index>(), 0..20_u64), 0..400),
        ) {
            let start = Instant::now();
            let at = |ms| start + Duration::from_millis(ms);
            let batch = Arc::<Batch>::default();
            let (mut parts, mut plain, mut next, mut place) = (Parts::default(), BTreeMap::new(), 0, 0);
            let mut opened = Vec::new();
            for (count, gap, ms, has_deadline) in counts {
                next += gap;
                opened.push((CallbackId(next), place, count, has_deadline.then(|| at(100 * ms))));
                next += count as u64;
                place += count;
            }
            // They need not come in the order of their ids.
            opened.sort_by_key(|(_, place, count, _)| (count % 3, *place));
            for (first, place, count, deadline) in opened {
                parts.insert(first, seats(&batch, place, count), deadline);
                plain.extend((0..count).map(|number| (CallbackId(first.0 + number as u64), (place + number, deadline))));
            }
            for (id, step) in steps {
                let id = CallbackId(id.index(next as usize + 2) as u64);
                prop_assert_eq!(parts.contains(id), plain.contains_key(&id));
                let settled = parts.settle(id).map(|(_, place)| place);
                prop_assert_eq!(settled, plain.remove(&id).map(|(place, _)| place));
                prop_assert_eq!(parts.settle(id).map(|(_, place)| place), None, "once");
                if step % 3 == 0 {
                    parts.sweep();
                }
                let first = plain.values().filter_map(|(_, deadline)| *deadline).min();
                prop_assert_eq!(parts.next_deadline(), first);
                if step == 7 && let Some(first) = first {
                    prop_assert_eq!(parts.expired(first.checked_sub(Duration::from_millis(1)).unwrap()), None);
                    let late = parts.expired(first).expect("its deadline has passed");
                    prop_assert_eq!(plain[&late].1, Some(first));
                }
                prop_assert_eq!((parts.len(), parts.is_empty()), (plain.len(), plain.is_empty()));
            }
            let mut ids = parts.ids();
            ids.sort_unstable();
            prop_assert_eq!(&ids, &plain.keys().copied().collect::<Vec<_>>());
            for id in ids {
                parts.settle(id).expect("it waits");
            }
            parts.sweep();
            prop_assert_eq!((parts.parts.len(), parts.next_deadline()), (0, None));
        }
    }

    #[test]
    fn a_part_that_never_ends_does_not_keep_the_settled_ones_behind_it() {
        let (mut parts, batch) = (Parts::default(), Arc::default());
        let deadline = Some(Instant::now());
        parts.insert(CallbackId(0), seats(&batch, 0, 1), deadline);
        for number in 1..10_000 {
            parts.insert(CallbackId(number), seats(&batch, 0, 1), deadline);
            parts.settle(CallbackId(number)).expect("it waits");
            parts.sweep();
        }
        assert!(parts.parts.len() <= SWEEP_LEN_MIN + 2);
        assert!(parts.deadlines.len() <= 4 * SWEEP_LEN_MIN + 8, "{}", parts.deadlines.len());
        assert_eq!(parts.ids(), [CallbackId(0)]);
    }

    #[test]
    fn whoever_is_dropped_unsettled_is_told() {
        let (mut parts, batch) = (Parts::default(), Arc::<Batch>::default());
        parts.insert(CallbackId(5), seats(&batch, 10, 3), None);
        parts.settle(CallbackId(6)).expect("it waits");
        drop(parts);
        assert_eq!(batch.settled(), [10, 12]);
    }
}

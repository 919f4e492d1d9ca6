//! The events that wait for a handler: how many there may be, and which of them go when there is no room for the next one. Pure:
//! `handler.rs` hands them to the handler.

use meshwork_wire::ByteString;
use meshwork_wire::limits::{EVENTS_PENDING_LEN_MAX, EVENTS_PENDING_MAX};
use std::collections::{HashMap, VecDeque};

/// Which event goes when one comes and the queue of its handler is full.
///
/// ```
/// # use meshwork::prelude::*;
/// # async fn draw(price: f64) {}
/// # async fn example(branch: Branch) -> Result<(), CallError> {
/// let prices = branch
///     .subscribe("prices/**", |event: Event<f64>| async move { draw(event.value).await })
///     .queue(1_000, WhenFull::KeepLast)
///     .await?;
/// # prices.keep();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// The event that has come: the handler hears what waits already, without a gap.
    #[default]
    DropNewest,
    /// The event that has waited longest: the handler hears the last events.
    DropOldest,
    /// For topics whose last event says all. Only the last event of each topic waits, whether the queue is full or not: it takes the place of
    /// the one before it, so that no topic waits for ever, and topics may come in another order than they were published in. When the queue
    /// is full of other topics, the event that has waited longest goes.
    KeepLast,
}

/// The bounds of the queue of one handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueBounds {
    pub(crate) count_max: usize,
    /// How many bytes the events may have, as they came over the link; one event waits in any case.
    pub(crate) len_max: usize,
    pub(crate) when_full: WhenFull,
}

impl Default for QueueBounds {
    fn default() -> Self {
        Self {
            count_max: EVENTS_PENDING_MAX,
            len_max: EVENTS_PENDING_LEN_MAX,
            when_full: WhenFull::default(),
        }
    }
}

/// The events that wait for one handler, in the order in which they are handled.
pub(crate) struct EventQueue<T> {
    bounds: QueueBounds,
    /// None where an event stood whose topic has a later one behind it. At most as many as have been there at once.
    slots: VecDeque<Option<Slot<T>>>,
    /// The number of the first slot.
    first: u64,
    count: usize,
    len: usize,
    /// The number of the slot in which each topic waits; empty unless only the last event of each topic does.
    places: HashMap<ByteString, u64>,
}

struct Slot<T> {
    topic: ByteString,
    len: usize,
    item: T,
}

/// What became of an event, and of those that waited before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pushed {
    /// It waits, and so many others went: earlier ones of its topic, and those that had waited longest.
    Waits { superseded: usize, dropped: usize },
    /// There is no room for it.
    Refused,
}

impl<T> EventQueue<T> {
    pub(crate) fn new(bounds: QueueBounds) -> Self {
        Self {
            bounds: QueueBounds { count_max: bounds.count_max.max(1), ..bounds },
            slots: VecDeque::new(),
            first: 0,
            count: 0,
            len: 0,
            places: HashMap::new(),
        }
    }

    /// Adds an event of so many bytes, which is made only if it waits.
    pub(crate) fn push(&mut self, topic: &ByteString, len: usize, item: impl FnOnce() -> T) -> Pushed {
        let mut superseded = 0;
        if self.bounds.when_full == WhenFull::KeepLast
            && let Some(at) = self.places.get(topic).map(|number| self.place(*number))
            && let Some(Some(slot)) = self.slots.get_mut(at)
        {
            superseded = 1;
            let others = self.len - slot.len;
            if self.count == 1 || others + len <= self.bounds.len_max {
                (slot.len, slot.item) = (len, item());
                self.len = others + len;
                return Pushed::Waits { superseded, dropped: 0 };
            }
            // It is too long for its place, and waits behind all others.
            self.slots[at] = None;
            (self.len, self.count) = (others, self.count - 1);
            self.places.remove(topic);
        }
        let mut dropped = 0;
        while !self.has_room(len) {
            if self.bounds.when_full == WhenFull::DropNewest {
                return Pushed::Refused;
            }
            drop(self.pop());
            dropped += 1;
        }
        if self.bounds.when_full == WhenFull::KeepLast {
            self.places.insert(topic.clone(), self.first + self.slots.len() as u64);
        }
        self.slots.push_back(Some(Slot { topic: topic.clone(), len, item: item() }));
        (self.count, self.len) = (self.count + 1, self.len + len);
        Pushed::Waits { superseded, dropped }
    }

    /// Takes the event that is handled next.
    pub(crate) fn pop(&mut self) -> Option<T> {
        loop {
            let slot = self.slots.pop_front()?;
            self.first += 1;
            if let Some(Slot { topic, len, item }) = slot {
                (self.count, self.len) = (self.count - 1, self.len - len);
                self.places.remove(&topic);
                if self.slots.is_empty() {
                    // A burst takes no memory when it is over.
                    self.slots = VecDeque::new();
                }
                return Some(item);
            }
        }
    }

    fn has_room(&self, len: usize) -> bool {
        self.count < self.bounds.count_max && (self.count == 0 || self.len + len <= self.bounds.len_max)
    }

    fn place(&self, number: u64) -> usize {
        usize::try_from(number - self.first).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICIES: [WhenFull; 3] = [WhenFull::DropNewest, WhenFull::DropOldest, WhenFull::KeepLast];

    fn queue(count_max: usize, len_max: usize, when_full: WhenFull) -> EventQueue<u32> {
        EventQueue::new(QueueBounds { count_max, len_max, when_full })
    }

    fn push(queue: &mut EventQueue<u32>, topic: &'static str, item: u32) -> Pushed {
        queue.push(&ByteString::from_static(topic), 1, || item)
    }

    fn rest(mut queue: EventQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn a_full_queue_drops_the_newest_or_the_oldest_or_keeps_the_last_of_each_topic() {
        let after = |when_full, topics: [&'static str; 5]| {
            let mut queue = queue(3, usize::MAX, when_full);
            let pushed: Vec<_> =
                topics.into_iter().zip(0..).map(|(topic, item)| push(&mut queue, topic, item)).collect();
            (pushed[4], rest(queue))
        };
        let waits = |superseded, dropped| Pushed::Waits { superseded, dropped };
        assert_eq!(after(WhenFull::DropNewest, ["a"; 5]), (Pushed::Refused, vec![0, 1, 2]));
        assert_eq!(after(WhenFull::DropOldest, ["a"; 5]), (waits(0, 1), vec![2, 3, 4]));
        assert_eq!(after(WhenFull::KeepLast, ["a"; 5]), (waits(1, 0), vec![4]));
        assert_eq!(after(WhenFull::KeepLast, ["a", "b", "c", "b", "a"]), (waits(1, 0), vec![4, 3, 2]));
        assert_eq!(after(WhenFull::KeepLast, ["a", "b", "c", "d", "b"]), (waits(1, 0), vec![4, 2, 3]));
    }

    #[test]
    fn events_are_counted_in_bytes_too_and_one_always_fits() {
        for when_full in POLICIES {
            let mut queue = queue(10, 100, when_full);
            let long = queue.push(&"a".into(), 1_000, || 0);
            assert_eq!(long, Pushed::Waits { superseded: 0, dropped: 0 }, "it is the only one");
            let next = queue.push(&"b".into(), 60, || 1);
            let is_new_first = when_full == WhenFull::DropNewest;
            assert_eq!(next == Pushed::Refused, is_new_first, "{when_full:?}");
            assert_eq!(queue.pop(), Some(u32::from(!is_new_first)));
            assert_eq!((queue.count, queue.len), (0, 0));
        }
        let mut queue = queue(10, 100, WhenFull::KeepLast);
        for (topic, len) in [("a", 40), ("b", 40), ("a", 90)] {
            queue.push(&topic.into(), len, || len as u32);
        }
        assert_eq!(rest(queue), [90], "an event that grew makes room as any other does");
    }

    proptest! {
        /// Whatever comes, the bounds hold, the counts are those of what waits, and the order is that of the policy.
        #[test]
        fn the_queue_keeps_to_its_bounds_and_its_order(
            policy in 0..3_usize,
            count_max in 1..6_usize,
            len_max in 1..40_usize,
            steps in prop::collection::vec((0..5_u8, 0..30_usize), 0..200),
        ) {
            let when_full = POLICIES[policy];
            let mut queue = EventQueue::new(QueueBounds { count_max, len_max, when_full });
            // The topic, the length and the number of each event that waits, as a list.
            let mut model: Vec<(u8, usize, usize)> = Vec::new();
            let most = |model: &[(u8, usize, usize)]| model.iter().map(|(_, len, _)| len).sum::<usize>();
            for (number, (topic, len)) in steps.into_iter().enumerate() {
                if topic == 4 {
                    prop_assert_eq!(queue.pop(), (!model.is_empty()).then(|| model.remove(0).2));
                } else {
                    let pushed = queue.push(&topic.to_string().into(), len, || number);
                    let at = model.iter().position(|(other, ..)| *other == topic && when_full == WhenFull::KeepLast);
                    let mut expected = (usize::from(at.is_some()), 0);
                    let fits_its_place = at.filter(|at| model.len() == 1 || most(&model) - model[*at].1 + len <= len_max);
                    if let Some(at) = fits_its_place {
                        model[at] = (topic, len, number);
                    } else {
                        at.map(|at| model.remove(at));
                        let fits = |model: &[(u8, usize, usize)]| {
                            model.len() < count_max && (model.is_empty() || most(model) + len <= len_max)
                        };
                        while !fits(&model) && when_full != WhenFull::DropNewest {
                            model.remove(0);
                            expected.1 += 1;
                        }
                        if !fits(&model) {
                            prop_assert_eq!(pushed, Pushed::Refused);
                            continue;
                        }
                        model.push((topic, len, number));
                    }
                    prop_assert_eq!(pushed, Pushed::Waits { superseded: expected.0, dropped: expected.1 });
                }
                prop_assert_eq!((queue.count, queue.len), (model.len(), most(&model)));
                prop_assert!(queue.count <= count_max && (queue.count <= 1 || queue.len <= len_max));
                prop_assert!(queue.places.len() <= queue.count && queue.slots.len() <= 200);
            }
            prop_assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), model.iter().map(|it| it.2).collect::<Vec<_>>());
        }
    }
}

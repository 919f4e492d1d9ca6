//! The last values that a master keeps, by topic: which of two values of a topic is the later one, how much they take, and whose they are.
//! `feeds.rs` decides who has heard them, `router.rs` sends them. Pure.

use crate::events::event::Event;
use crate::hashed::{Entry, HashMap};
use crate::link::lanes::fits_share;
use crate::node::said::{Forgotten, LAST_VALUE_LEN, LastBounds, TooMany};
use meshwork_wire::{ByteString, Payload};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The last values of a master.
pub(crate) struct LastValues {
    bounds: LastBounds,
    /// The number with which this master began: later than all numbers of an earlier one.
    era: u64,
    /// The number of the last value that was published, or taken away.
    drawn: u64,
    /// How often a value has come so far: see [`LastValue::came`].
    comings: u64,
    by_topic: BTreeMap<ByteString, LastValue>,
    /// How many bytes the values take.
    len: usize,
    of_publishers: HashMap<ByteString, OfPublisher>,
    forgotten: Forgotten,
}

/// The last value of a topic.
pub(crate) struct LastValue {
    pub(crate) event: Event,
    /// The number under which it is kept, here or at an earlier master.
    number: u64,
    /// Rises with each value that comes, whatever its number.
    pub(crate) came: u64,
}

/// The last values of one publisher.
#[derive(Default)]
struct OfPublisher {
    count: usize,
    len: usize,
}

/// What became of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// It is the last of its topic from now on, under this number: subscribers are to hear it.
    Kept(u64),
    /// The topic has none any more, under this number.
    Forgotten(u64),
    /// It is said again, and there is a later one, or the topic has none any more.
    Outdated,
}

impl LastValues {
    pub(crate) fn new(bounds: LastBounds, era: u64) -> Self {
        Self {
            bounds,
            era,
            drawn: era,
            comings: 0,
            by_topic: BTreeMap::new(),
            len: 0,
            of_publishers: HashMap::default(),
            forgotten: Forgotten::default(),
        }
    }

    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    pub(crate) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// How many bytes the values take.
    pub(crate) fn bytes(&self) -> usize {
        self.len
    }

    /// How often a value has come so far.
    pub(crate) fn comings(&self) -> u64 {
        self.comings
    }

    pub(crate) fn get(&self, topic: &str) -> Option<&LastValue> {
        self.by_topic.get(topic)
    }

    /// The first value whose topic sorts behind this one.
    pub(crate) fn behind(&self, topic: &ByteString) -> Option<(&ByteString, &LastValue)> {
        self.by_topic.range::<ByteString, _>((Bound::Excluded(topic), Bound::Unbounded)).next()
    }

    /// All topics, with when their values came.
    #[cfg(test)]
    pub(crate) fn by_topic(&self) -> impl Iterator<Item = (&str, u64)> {
        self.by_topic.iter().map(|(topic, last)| (&**topic, last.came))
    }

    /// Keeps a value that is published now, and copies it: its payload may be a part of a long block.
    pub(crate) fn keep(&mut self, event: &Event) -> Result<Said, TooMany> {
        self.check(event)?;
        self.drawn += 1;
        Ok(self.put(event, self.drawn))
    }

    /// Takes the value of a topic away.
    pub(crate) fn forget(&mut self, topic: &ByteString) -> Said {
        self.drawn += 1;
        self.take(topic);
        self.forgotten.note(topic, self.drawn);
        Said::Forgotten(self.drawn)
    }

    /// Keeps a value that an earlier master kept under this number, unless there is a later one.
    pub(crate) fn keep_again(&mut self, event: &Event, number: u64) -> Result<Said, TooMany> {
        if self.is_outdated(&event.topic, number) {
            return Ok(Said::Outdated);
        }
        self.check(event)?;
        Ok(self.put(event, number))
    }

    /// Takes the value of a topic away that an earlier master forgot under this number, unless there is a later one.
    pub(crate) fn forget_again(&mut self, topic: &ByteString, number: u64) -> Said {
        if self.is_outdated(topic, number) {
            return Said::Outdated;
        }
        self.take(topic);
        self.forgotten.note(topic, number);
        Said::Forgotten(number)
    }

    /// Whether this master has a word on the topic that is later than what is said again under this number.
    fn is_outdated(&self, topic: &ByteString, number: u64) -> bool {
        let kept = self.by_topic.get(topic).map(|last| last.number);
        // What was said to this master itself it has kept, or something later.
        number >= self.era || kept.max(self.forgotten.number(topic)).is_some_and(|there| there >= number)
    }

    /// Whether a value finds room, in place of the one that its topic has.
    fn check(&self, event: &Event) -> Result<(), TooMany> {
        let before = self.by_topic.get(&event.topic);
        let of_before = |last: &LastValue| (1, len_of(&last.event));
        let (count, len) = before.map_or((0, 0), of_before);
        let (mut mine_count, mut mine_len) =
            self.of_publishers.get(&event.publisher).map_or((0, 0), |mine| (mine.count, mine.len));
        if before.is_some_and(|last| last.event.publisher == event.publisher) {
            (mine_count, mine_len) = (mine_count - count, mine_len - len);
        }
        let LastBounds { count_max, len_max } = self.bounds;
        if !fits_share(mine_count, 1, self.by_topic.len() - count, count_max) {
            return Err(TooMany::Values(count_max));
        }
        let (more, others) = (len_of(event), self.len - len);
        if others + more > len_max || !fits_share(mine_len, more, others, len_max) {
            return Err(TooMany::Bytes(len_max));
        }
        Ok(())
    }

    fn put(&mut self, event: &Event, number: u64) -> Said {
        self.take(&event.topic);
        self.forgotten.forget(&event.topic);
        let event = Event {
            topic: ByteString::from(&*event.topic),
            publisher: ByteString::from(&*event.publisher),
            headers: event.headers.clone(),
            payload: Payload::new(event.payload.encoding, event.payload.bytes.to_vec()),
        };
        let len = len_of(&event);
        self.len += len;
        let mine = self.of_publishers.entry(event.publisher.clone()).or_default();
        (mine.count, mine.len) = (mine.count + 1, mine.len + len);
        self.comings += 1;
        self.by_topic.insert(event.topic.clone(), LastValue { event, number, came: self.comings });
        Said::Kept(number)
    }

    fn take(&mut self, topic: &ByteString) {
        let Some(LastValue { event, .. }) = self.by_topic.remove(topic) else {
            return;
        };
        let len = len_of(&event);
        self.len -= len;
        if let Entry::Occupied(mut mine) = self.of_publishers.entry(event.publisher) {
            let there = mine.get_mut();
            (there.count, there.len) = (there.count - 1, there.len - len);
            if there.count == 0 {
                mine.remove();
            }
        }
    }
}

/// How many bytes a value takes.
fn len_of(event: &Event) -> usize {
    let names = 2 * event.topic.len() + event.publisher.len();
    LAST_VALUE_LEN + names + event.headers.len() + event.payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::{Encoding, Headers};
    use proptest::prelude::*;

    const BOUNDS: LastBounds = LastBounds { count_max: 1_000, len_max: 1 << 20 };
    const ERA: u64 = 1_000_000;

    fn event(publisher: &str, topic: &str, value: &str) -> Event {
        let payload = Payload::new(Encoding::Json, value.as_bytes().to_vec());
        Event { topic: topic.into(), publisher: publisher.into(), headers: Headers::none(), payload }
    }

    fn value<'a>(last: &'a LastValues, topic: &str) -> Option<&'a [u8]> {
        last.get(topic).map(|last| &*last.event.payload.bytes)
    }

    #[test]
    fn the_last_value_of_a_topic_is_the_one_that_was_published_last_however_often_others_are_said_again() {
        let mut last = LastValues::new(BOUNDS, ERA);
        assert_eq!(last.keep_again(&event("late", "t", "2"), 20), Ok(Said::Kept(20)));
        assert_eq!(last.keep_again(&event("later", "t", "1"), 10), Ok(Said::Outdated));
        assert_eq!(value(&last, "t"), Some(&b"2"[..]));
        assert_eq!(last.keep_again(&event("last", "t", "3"), 30), Ok(Said::Kept(30)));
        let Ok(Said::Kept(number)) = last.keep(&event("now", "t", "4")) else { panic!("there is room") };
        assert!(number > ERA);
        assert_eq!(last.keep_again(&event("back", "t", "5"), 40), Ok(Said::Outdated), "this one is later");
        assert_eq!(last.keep_again(&event("now", "t", "4"), number), Ok(Said::Outdated), "it is kept");
        assert_eq!(value(&last, "t"), Some(&b"4"[..]));
    }

    #[test]
    fn a_value_that_was_taken_away_does_not_come_back_when_it_is_said_again() {
        let mut last = LastValues::new(BOUNDS, ERA);
        last.keep(&event("one", "t", "1")).expect("there is room");
        assert!(matches!(last.forget(&"t".into()), Said::Forgotten(number) if number > ERA));
        assert_eq!(last.keep_again(&event("two", "t", "2"), 20), Ok(Said::Outdated));
        assert_eq!((value(&last, "t"), last.len(), last.bytes()), (None, 0, 0));
        assert_eq!(last.forget_again(&"u".into(), 30), Said::Forgotten(30));
        assert_eq!(last.keep_again(&event("two", "u", "2"), 20), Ok(Said::Outdated));
        assert_eq!(last.keep_again(&event("two", "u", "2"), 40), Ok(Said::Kept(40)));
        assert_eq!(last.forget_again(&"u".into(), 30), Said::Outdated);
        assert!(last.keep(&event("one", "t", "3")).is_ok() && value(&last, "t") == Some(b"3"));
    }

    #[test]
    fn values_are_bounded_in_number_and_in_bytes_and_a_publisher_by_its_share() {
        let mut last = LastValues::new(LastBounds { count_max: 9, ..BOUNDS }, ERA);
        let mut fill = |publisher: &str| {
            (0..20)
                .take_while(|at| last.keep(&event(publisher, &format!("{publisher}/{at}"), "")).is_ok())
                .count()
        };
        assert_eq!((fill("greedy"), fill("other"), fill("third")), (8, 1, 0));
        assert_eq!(last.keep(&event("other", "t", "")), Err(TooMany::Values(9)));
        assert!(last.keep(&event("other", "other/0", "again")).is_ok(), "a value in place of another fits");
        last.forget(&"greedy/3".into());
        assert!(last.keep(&event("third", "t", "")).is_ok());
        let mut last = LastValues::new(LastBounds { count_max: 9, len_max: 10_000 }, ERA);
        assert_eq!(last.keep(&event("one", "t", &"x".repeat(10_000))), Err(TooMany::Bytes(10_000)));
        assert!(last.keep(&event("one", "t", &"x".repeat(8_000))).is_ok());
        assert!(last.keep(&event("two", "u", &"x".repeat(3_000))).is_err());
        assert!(last.keep(&event("one", "t", "")).is_ok(), "a shorter value makes room");
        assert!(last.keep(&event("two", "u", &"x".repeat(3_000))).is_ok());
    }

    proptest! {
        /// Whatever comes, the counts are those of the values that are there, and nothing is left of those that went.
        #[test]
        fn the_counts_are_those_of_the_values(
            steps in prop::collection::vec((0..4_u8, "[ab]", "[t-w]", 0..600_usize, 0..2 * ERA), 0..60),
        ) {
            let mut last = LastValues::new(LastBounds { count_max: 4, len_max: 2_000 }, ERA);
            let mut topics = Vec::new();
            for (step, publisher, topic, len, number) in steps {
                let event = event(&publisher, &topic, &"x".repeat(len));
                let said = match step {
                    0 => last.keep(&event),
                    1 => last.keep_again(&event, number),
                    2 => Ok(last.forget(&event.topic)),
                    _ => Ok(last.forget_again(&event.topic, number)),
                };
                if let Ok(Said::Kept(_)) = said {
                    prop_assert_eq!(value(&last, &topic).map(<[u8]>::len), Some(len));
                }
                prop_assert!(last.len() <= 4 && last.bytes() <= 2_000);
                let values = || last.by_topic.values().map(|last| &last.event);
                prop_assert_eq!(last.bytes(), values().map(len_of).sum::<usize>());
                for (publisher, mine) in &last.of_publishers {
                    let of_publisher: Vec<_> = values().filter(|event| event.publisher == *publisher).collect();
                    prop_assert_eq!(mine.count, of_publisher.len());
                    prop_assert_eq!(mine.len, of_publisher.iter().map(|event| len_of(event)).sum::<usize>());
                    prop_assert!(mine.count > 0);
                }
                topics.push(event.topic);
            }
            topics.iter().for_each(|topic| _ = last.forget(topic));
            prop_assert_eq!((last.len(), last.bytes(), last.of_publishers.len()), (0, 0, 0));
        }
    }
}

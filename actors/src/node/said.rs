//! The last values that a node has published, and topics that it let forget: what it says again to a master that was started again. Pure.

use super::submission::NewEvent;
use crate::hashed::HashMap;
use meshwork_wire::limits::FORGOTTEN_MAX;
use meshwork_wire::{ByteString, Headers, Payload};
use std::collections::VecDeque;

/// The bounds of the last values of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastBounds {
    pub(crate) count_max: usize,
    pub(crate) len_max: usize,
}

/// The last values that a node has published.
pub(crate) struct SaidLast {
    pub(crate) bounds: LastBounds,
    by_topic: HashMap<ByteString, Said>,
    /// How many bytes they take.
    len: usize,
    forgotten: Forgotten,
}

/// A value, and the number under which a master kept it.
struct Said {
    event: NewEvent,
    number: u64,
}

/// A word on the last value of a topic: the value, or that there is none.
pub(crate) struct SayAgain {
    pub(crate) topic: ByteString,
    pub(crate) value: Option<Payload>,
    pub(crate) headers: Headers,
    pub(crate) number: u64,
}

/// Topics whose last value was taken away, with the number of that: the last [`FORGOTTEN_MAX`].
#[derive(Default)]
pub(crate) struct Forgotten {
    numbers: HashMap<ByteString, u64>,
    /// The topics in the order in which they were forgotten; one that was forgotten again, or has a value again, may stand here still.
    order: VecDeque<(ByteString, u64)>,
}

/// Why a value is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TooMany {
    #[error(
        "the last values of {0} topics are kept at most, and one publisher has its share of them: forget some"
    )]
    Values(usize),
    #[error(
        "last values take {0} bytes at most, and those of one publisher their share of them: publish shorter ones, or forget some"
    )]
    Bytes(usize),
}

/// How many bytes a value takes beside its text.
pub(crate) const LAST_VALUE_LEN: usize = 256;

impl SaidLast {
    pub(crate) fn new(bounds: LastBounds) -> Self {
        Self { bounds, by_topic: HashMap::default(), len: 0, forgotten: Forgotten::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// How many bytes the values take.
    pub(crate) fn bytes(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty() && self.forgotten.numbers.is_empty()
    }

    /// Whether there is room for a value.
    pub(crate) fn check(&self, event: &NewEvent) -> Result<(), TooMany> {
        let before = self.by_topic.get(&event.topic).map_or(0, |said| len_of(&said.event));
        let LastBounds { count_max, len_max } = self.bounds;
        if before == 0 && self.by_topic.len() >= count_max {
            return Err(TooMany::Values(count_max));
        }
        if self.len - before + len_of(event) > len_max {
            return Err(TooMany::Bytes(len_max));
        }
        Ok(())
    }

    /// Notes that a master keeps a value under this number. Answers may come in any order, so an earlier number changes nothing.
    pub(crate) fn keeps(&mut self, event: NewEvent, number: u64) {
        // Where there is no room any more, since other values came meanwhile, it is not said again.
        if self.is_later(&event.topic, number) && self.check(&event).is_ok() {
            self.take(&event.topic);
            self.forgotten.forget(&event.topic);
            self.len += len_of(&event);
            self.by_topic.insert(event.topic.clone(), Said { event, number });
        }
    }

    /// Notes that a master has forgotten the value of a topic under this number.
    pub(crate) fn forgets(&mut self, topic: &ByteString, number: u64) {
        if self.is_later(topic, number) {
            self.take(topic);
            self.forgotten.note(topic, number);
        }
    }

    /// What a master of this era has not heard.
    pub(crate) fn before(&self, era: u64) -> Vec<SayAgain> {
        let values = self.by_topic.iter().map(|(topic, said)| SayAgain {
            topic: topic.clone(),
            value: Some(said.event.payload.clone()),
            headers: said.event.headers.clone(),
            number: said.number,
        });
        let forgotten = self.forgotten.numbers.iter().map(|(topic, number)| SayAgain {
            topic: topic.clone(),
            value: None,
            headers: Headers::none(),
            number: *number,
        });
        let mut unheard: Vec<_> = values.chain(forgotten).filter(|again| again.number < era).collect();
        // In the order in which they were said first.
        unheard.sort_unstable_by_key(|again| again.number);
        unheard
    }

    fn is_later(&self, topic: &ByteString, number: u64) -> bool {
        let said = self.by_topic.get(topic).map(|said| said.number);
        said.max(self.forgotten.number(topic)).is_none_or(|there| there < number)
    }

    fn take(&mut self, topic: &ByteString) {
        if let Some(said) = self.by_topic.remove(topic) {
            self.len -= len_of(&said.event);
        }
    }
}

impl Forgotten {
    pub(crate) fn number(&self, topic: &ByteString) -> Option<u64> {
        self.numbers.get(topic).copied()
    }

    pub(crate) fn note(&mut self, topic: &ByteString, number: u64) {
        let topic = ByteString::from(&**topic);
        self.numbers.insert(topic.clone(), number);
        self.order.push_back((topic, number));
        if self.order.len() > FORGOTTEN_MAX
            && let Some((topic, number)) = self.order.pop_front()
            && self.numbers.get(&topic) == Some(&number)
        {
            self.numbers.remove(&topic);
        }
    }

    /// The topic has a value again.
    pub(crate) fn forget(&mut self, topic: &ByteString) {
        if !self.numbers.is_empty() {
            self.numbers.remove(topic);
        }
    }
}

fn len_of(event: &NewEvent) -> usize {
    LAST_VALUE_LEN + event.topic.len() + event.headers.len() + event.payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::Encoding;

    fn value(topic: &'static str, len: usize) -> NewEvent {
        NewEvent::new(topic, Payload::new(Encoding::Json, vec![b'x'; len]))
    }

    fn again(said: &SaidLast, era: u64) -> Vec<(String, Option<usize>, u64)> {
        let again = said.before(era).into_iter();
        again.map(|it| (it.topic.to_string(), it.value.map(|value| value.len()), it.number)).collect()
    }

    #[test]
    fn what_an_earlier_master_heard_is_said_again_in_its_order_and_nothing_else() {
        let mut said = SaidLast::new(LastBounds { count_max: 10, len_max: 10_000 });
        assert!(said.is_empty());
        said.keeps(value("a", 1), 10);
        said.keeps(value("b", 2), 12);
        said.keeps(value("b", 3), 11);
        said.keeps(value("c", 4), 13);
        said.forgets(&"a".into(), 14);
        said.keeps(value("d", 5), 100);
        let expected = [("b", Some(2), 12), ("c", Some(4), 13), ("a", None, 14)];
        let expected = expected.map(|(topic, value, number)| (topic.to_owned(), value, number));
        assert_eq!(again(&said, 100), expected);
        assert_eq!(again(&said, 10), []);
        said.keeps(value("a", 6), 101);
        assert_eq!(again(&said, 1_000).last(), Some(&("a".to_owned(), Some(6), 101)));
    }

    #[test]
    fn no_more_is_kept_than_has_room() {
        let mut said = SaidLast::new(LastBounds { count_max: 2, len_max: 2_000 });
        said.keeps(value("a", 10), 1);
        said.keeps(value("b", 10), 2);
        assert_eq!(said.check(&value("c", 0)), Err(TooMany::Values(2)));
        assert_eq!(said.check(&value("a", 2_000)), Err(TooMany::Bytes(2_000)));
        assert_eq!(said.check(&value("a", 1_000)), Ok(()), "in place of the one before");
        said.keeps(value("c", 0), 3);
        assert_eq!(said.len(), 2);
        said.forgets(&"a".into(), 4);
        said.forgets(&"b".into(), 5);
        assert_eq!((said.len(), said.bytes()), (0, 0));
        for number in 0..2 * FORGOTTEN_MAX {
            said.forgets(&number.to_string().into(), 6 + number as u64);
        }
        assert_eq!(
            (said.forgotten.numbers.len(), said.forgotten.order.len()),
            (FORGOTTEN_MAX, FORGOTTEN_MAX)
        );
    }
}

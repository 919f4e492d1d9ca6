//! The feeds of one node: its subscriptions that have not heard all last values yet, and who is to hear which value next. Those to one topic
//! each go first. All others share one way through the topics, in their order and round again: a feed that comes joins the way where it is, and
//! leaves when it has come round. A value goes before its turn if another event of its topic comes, so that a subscriber hears it first.
//! `router.rs` sends the values. Pure.

use super::last_values::LastValues;
use crate::events::trie::Trie;
use crate::hashed::HashMap;
use meshwork_wire::limits::FEEDS_PER_NODE_MAX;
use meshwork_wire::{ByteString, Pattern};
use std::collections::{BTreeMap, VecDeque};

/// The feeds of one node.
pub(crate) struct Feeds {
    /// The feeds that have not come round, by pattern and number.
    trie: Trie<u64>,
    /// In the order in which they came, and so in that in which they come round.
    feeds: VecDeque<Feed>,
    /// The number of the first of them; their numbers follow each other.
    first: u64,
    /// The topic that was looked at last; empty at the beginning of a round.
    at: ByteString,
    /// Topics whose value went before its turn, with the number of the next feed then: that one, and those behind it, have not heard it. At most
    /// as many as there are values.
    early: HashMap<ByteString, u64>,
    /// Who is to hear the value of one topic: each pattern of these feeds is a topic.
    topics: BTreeMap<ByteString, Vec<Waiting>>,
    /// How many they are.
    waiting: usize,
    /// Whether a step is under way.
    pub(crate) is_fed: bool,
}

/// A subscription that has not heard all last values yet.
struct Feed {
    hearer: Hearer,
    pattern: Pattern,
    /// Where the way was when it came.
    from: ByteString,
    /// Whether the way has begun again since.
    is_round: bool,
    /// How often values had come: see [`LastValue::came`](super::last_values::LastValue::came). Later ones the subscription hears as events.
    comings: u64,
}

/// A subscription to one topic that has not heard its last value yet.
struct Waiting {
    hearer: Hearer,
    /// See [`Feed::comings`].
    comings: u64,
}

/// Who hears the values of a feed: the handler of this number, or every handler of the topic.
pub(crate) type Hearer = Option<u64>;

/// A step of the way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The value of this topic goes to these hearers, of which there may be none.
    Topic(ByteString, Vec<Hearer>),
    /// The way begins again.
    Round,
    /// All feeds have come round.
    Done,
}

/// Too many subscriptions of a node have not heard the last values yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{FEEDS_PER_NODE_MAX} subscriptions of this node have not heard the last values yet: read, or subscribe to fewer patterns"
)]
pub(crate) struct TooManyFeeds;

impl Feeds {
    pub(crate) fn new() -> Self {
        Self {
            trie: Trie::new(),
            feeds: VecDeque::new(),
            first: 0,
            at: ByteString::new(),
            early: HashMap::default(),
            topics: BTreeMap::new(),
            waiting: 0,
            is_fed: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.feeds.len() + self.waiting
    }

    /// Adds a subscription, which is to hear the values that are there now.
    pub(crate) fn join(
        &mut self,
        pattern: &Pattern,
        hearer: Hearer,
        last: &LastValues,
    ) -> Result<(), TooManyFeeds> {
        if pattern.is_literal() && last.get(pattern.as_str()).is_none() {
            return Ok(());
        }
        if self.len() >= FEEDS_PER_NODE_MAX {
            return Err(TooManyFeeds);
        }
        let comings = last.comings();
        if pattern.is_literal() {
            let topic = ByteString::from(pattern.as_str());
            self.topics.entry(topic).or_default().push(Waiting { hearer, comings });
            self.waiting += 1;
            return Ok(());
        }
        let number = self.first + self.feeds.len() as u64;
        self.trie.insert(pattern, number);
        let (pattern, from) = (pattern.copied(), self.at.clone());
        self.feeds.push_back(Feed { hearer, pattern, from, is_round: false, comings });
        Ok(())
    }

    /// Lets every handler of the node hear the value of a topic again that its outbox had no room for, or the one that is there then.
    pub(crate) fn miss(&mut self, topic: &ByteString, last: &LastValues) {
        let waiting = self.topics.get_mut(topic);
        if let Some(missed) = waiting.and_then(|there| there.iter_mut().find(|it| it.hearer.is_none())) {
            missed.comings = last.comings();
            return;
        }
        // Where there are too many feeds, the node hears the next value.
        if self.len() < FEEDS_PER_NODE_MAX {
            let waiting = Waiting { hearer: None, comings: last.comings() };
            self.topics.entry(ByteString::from(&**topic)).or_default().push(waiting);
            self.waiting += 1;
        }
    }

    /// Goes on by one topic.
    pub(crate) fn step(&mut self, last: &LastValues) -> Step {
        if let Some(topic) = self.topics.keys().next().cloned() {
            let hearers = self.before_event(&topic, last);
            self.take_waiting(&topic);
            return Step::Topic(topic, hearers);
        }
        if self.feeds.is_empty() {
            return Step::Done;
        }
        let Some((topic, value)) = last.behind(&self.at) else {
            self.leave(None);
            self.at = ByteString::new();
            self.feeds.iter_mut().for_each(|feed| feed.is_round = true);
            return if self.feeds.is_empty() { Step::Done } else { Step::Round };
        };
        self.leave(Some(topic));
        if self.feeds.is_empty() {
            return Step::Done;
        }
        let hearers = self.hearers(topic, value.came);
        self.at = topic.clone();
        self.early.remove(topic);
        Step::Topic(topic.clone(), hearers)
    }

    /// The hearers that are to hear the value of a topic now, since another event of the topic comes.
    pub(crate) fn before_event(&mut self, topic: &ByteString, last: &LastValues) -> Vec<Hearer> {
        let Some(value) = last.get(topic) else {
            return Vec::new();
        };
        let hearers = self.hearers(topic, value.came);
        self.take_waiting(topic);
        if !hearers.is_empty() && !self.feeds.is_empty() {
            self.early.insert(value.event.topic.clone(), self.first + self.feeds.len() as u64);
        }
        hearers
    }

    /// Who has not heard the value of a topic that came as the so-manieth.
    fn hearers(&self, topic: &ByteString, came: u64) -> Vec<Hearer> {
        let waiting = self.topics.get(topic).into_iter().flatten().filter(|waiting| came <= waiting.comings);
        let mut hearers: Vec<_> = waiting.map(|waiting| waiting.hearer).collect();
        let heard_before = self.early.get(topic).copied().unwrap_or(0);
        self.trie.for_each_match(topic, &mut |number| {
            let feed = usize::try_from(number - self.first).ok().and_then(|at| self.feeds.get(at));
            if let Some(feed) = feed
                && *number >= heard_before
                && came <= feed.comings
                && !feed.has_passed(topic, &self.at)
            {
                hearers.push(feed.hearer);
            }
        });
        // Those for which every handler hears the value are one, and no value is heard twice by a handler.
        hearers.sort_unstable();
        hearers.dedup();
        hearers
    }

    fn take_waiting(&mut self, topic: &ByteString) {
        self.waiting -= self.topics.remove(topic).map_or(0, |taken| taken.len());
    }

    /// Takes out the feeds that have come round when the way goes on to a topic, or has come to its end.
    fn leave(&mut self, next: Option<&ByteString>) {
        while self.feeds.front().is_some_and(|feed| feed.has_come_round(next)) {
            if let Some(feed) = self.feeds.pop_front() {
                self.trie.remove(&feed.pattern, &self.first);
                self.first += 1;
            }
        }
        if self.feeds.is_empty() {
            self.at = ByteString::new();
            self.early = HashMap::default();
        }
    }
}

impl Feed {
    /// Whether the way has led over all topics since the feed came, when it goes on to this one, or has come to its end.
    fn has_come_round(&self, next: Option<&ByteString>) -> bool {
        match next {
            Some(next) => self.is_round && self.from < *next,
            None => self.is_round || self.from.is_empty(),
        }
    }

    /// Whether the way has led over a topic since the feed came.
    fn has_passed(&self, topic: &ByteString, at: &ByteString) -> bool {
        if self.is_round { *topic > self.from || topic <= at } else { *topic > self.from && topic <= at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::Event;
    use crate::node::said::LastBounds;
    use meshwork_wire::{Headers, Payload};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn event(topic: &str) -> Event {
        Event {
            topic: topic.into(),
            publisher: "p".into(),
            headers: Headers::none(),
            payload: Payload::default(),
        }
    }

    fn last(topics: &[&str]) -> LastValues {
        let mut last = LastValues::new(LastBounds { count_max: 1_000, len_max: 1 << 20 }, 1);
        topics.iter().for_each(|topic| _ = last.keep(&event(topic)));
        last
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect("a pattern")
    }

    /// What the feeds hear from now on, to the end.
    fn rest(feeds: &mut Feeds, last: &LastValues) -> Vec<(String, Vec<Hearer>)> {
        let mut heard = Vec::new();
        loop {
            match feeds.step(last) {
                Step::Topic(topic, hearers) if !hearers.is_empty() => {
                    heard.push((topic.to_string(), hearers))
                }
                Step::Topic(..) | Step::Round => {}
                Step::Done => return heard,
            }
        }
    }

    #[test]
    fn a_feed_hears_each_value_of_its_pattern_once_and_one_that_comes_later_joins_it_on_the_way() {
        let last = last(&["a/1", "a/2", "b/1", "c"]);
        let mut feeds = Feeds::new();
        feeds.join(&pattern("**"), Some(1), &last).expect("there is room");
        let heard = |step: Step| match step {
            Step::Topic(topic, hearers) => (topic.to_string(), hearers),
            other => panic!("{other:?}"),
        };
        assert_eq!(heard(feeds.step(&last)), ("a/1".to_owned(), vec![Some(1)]));
        feeds.join(&pattern("a/*"), Some(2), &last).expect("there is room");
        assert_eq!(heard(feeds.step(&last)), ("a/2".to_owned(), vec![Some(1), Some(2)]));
        let all = |topic: &str, hearers: &[Hearer]| (topic.to_owned(), hearers.to_vec());
        let expected = [all("b/1", &[Some(1)]), all("c", &[Some(1)]), all("a/1", &[Some(2)])];
        assert_eq!(rest(&mut feeds, &last), expected);
        assert!(feeds.is_empty() && feeds.topics.is_empty() && feeds.trie.len() == 0);
    }

    #[test]
    fn a_value_goes_before_its_turn_when_an_event_of_its_topic_comes_and_not_again() {
        let mut last = last(&["a", "b", "c"]);
        let mut feeds = Feeds::new();
        feeds.join(&pattern("*"), Some(1), &last).expect("there is room");
        assert_eq!(feeds.before_event(&"c".into(), &last), [Some(1)]);
        assert_eq!(feeds.before_event(&"c".into(), &last), []);
        assert_eq!(feeds.before_event(&"d".into(), &last), []);
        // It comes as an event.
        last.keep(&event("b")).expect("there is room");
        assert_eq!(feeds.before_event(&"b".into(), &last), []);
        feeds.join(&pattern("c"), Some(2), &last).expect("there is room");
        assert_eq!(
            rest(&mut feeds, &last),
            [("c".to_owned(), vec![Some(2)]), ("a".to_owned(), vec![Some(1)])],
        );
    }

    #[test]
    fn a_value_that_was_missed_is_heard_as_it_is_then() {
        let mut last = last(&["a", "b"]);
        let mut feeds = Feeds::new();
        feeds.miss(&"b".into(), &last);
        feeds.miss(&"b".into(), &last);
        assert_eq!(feeds.len(), 1);
        assert_eq!(rest(&mut feeds, &last), [("b".to_owned(), vec![None])]);
        feeds.miss(&"b".into(), &last);
        last.forget(&"b".into());
        assert_eq!(rest(&mut feeds, &last), []);
    }

    #[derive(Clone, Debug)]
    enum Does {
        Join(&'static str),
        Step,
        Event(&'static str),
        Keep(&'static str),
        Forget(&'static str),
    }

    fn does() -> impl Strategy<Value = Does> {
        let topic = || prop::sample::select(vec!["a", "b", "c/a", "c/b", "d"]);
        prop_oneof![
            2 => prop::sample::select(vec!["**", "*", "c/*", "a", "d", "*/b"]).prop_map(Does::Join),
            6 => Just(Does::Step),
            2 => topic().prop_map(Does::Event),
            2 => topic().prop_map(Does::Keep),
            1 => topic().prop_map(Does::Forget),
        ]
    }

    proptest! {
        /// Each handler hears, of each topic, the value that was there when it came, once, and before any event of the topic; unless a later
        /// value came first, or the value was taken away.
        #[test]
        fn every_subscription_hears_first_what_was_published_last(steps in prop::collection::vec(does(), 0..80)) {
            let mut last = last(&["a", "c/a", "d"]);
            let mut feeds = Feeds::new();
            // The topics that each hearer has not heard of yet, with what it is to hear.
            let mut owed: BTreeMap<u64, (Pattern, BTreeMap<String, u64>)> = BTreeMap::new();
            let mut joined = 0;
            let hear = |owed: &mut BTreeMap<u64, (Pattern, BTreeMap<String, u64>)>, topic: &str, hearers: &[Hearer], came: u64| {
                for hearer in hearers {
                    let owed = owed.get_mut(&hearer.expect("all have numbers")).expect("it has come");
                    assert_eq!(owed.1.remove(topic), Some(came), "{topic} once, as it was");
                }
            };
            for step in steps {
                match step {
                    Does::Join(text) => {
                        joined += 1;
                        feeds.join(&pattern(text), Some(joined), &last).expect("there is room");
                        let pattern = pattern(text);
                        let there = last.by_topic().filter(|(topic, _)| pattern.matches(topic));
                        let there = there.map(|(topic, came)| (topic.to_owned(), came)).collect();
                        owed.insert(joined, (pattern, there));
                    }
                    Does::Step => if let Step::Topic(topic, hearers) = feeds.step(&last) {
                        // The value may have been taken away since it was owed: then nobody hears it.
                        let came = last.get(&topic).map_or(0, |value| value.came);
                        hear(&mut owed, &topic, &hearers, came);
                    },
                    Does::Event(topic) => {
                        let hearers = feeds.before_event(&topic.into(), &last);
                        hear(&mut owed, topic, &hearers, last.get(topic).map_or(0, |value| value.came));
                        for (_, owed) in owed.values() {
                            prop_assert!(!owed.contains_key(topic), "{topic} before its value");
                        }
                    }
                    Does::Keep(topic) => {
                        last.keep(&event(topic)).expect("there is room");
                        prop_assert!(feeds.before_event(&topic.into(), &last).is_empty());
                        owed.values_mut().for_each(|(_, owed)| _ = owed.remove(topic));
                    }
                    Does::Forget(topic) => {
                        last.forget(&topic.into());
                        owed.values_mut().for_each(|(_, owed)| _ = owed.remove(topic));
                    }
                }
            }
            for (topic, hearers) in rest(&mut feeds, &last) {
                let came = last.get(&topic).expect("it was looked at").came;
                hear(&mut owed, &topic, &hearers, came);
            }
            for (hearer, (pattern, owed)) in owed {
                prop_assert!(owed.is_empty(), "{hearer} with {pattern:?} did not hear {owed:?}");
            }
            prop_assert!(feeds.is_empty() && feeds.topics.is_empty() && feeds.trie.len() == 0 && feeds.early.is_empty());
        }
    }
}

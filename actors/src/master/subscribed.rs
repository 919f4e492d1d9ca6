//! The subscriptions of one branch: their keys, how much memory they take at the master, and how many of them one event may match. It
//! decides whether the branch may have one more; `router.rs` keeps the tree in which events find the subscriptions. Pure.

use super::in_all::{InAll, NoRoom};
use crate::hashed::HashMap;
use meshwork_wire::limits::PATTERNS_PER_NODE_MAX;
use meshwork_wire::{Pattern, SubscriptionKey};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// What the subscriptions of branches may come to.
#[derive(Debug)]
pub(crate) struct SubscribedBounds {
    /// How many bytes they may take, of one branch and of all.
    pub(crate) in_all: InAll,
    /// How many of them one event may match.
    pub(crate) per_topic_max: usize,
}

/// The subscriptions of one branch.
#[derive(Default)]
pub(crate) struct Subscribed {
    /// Sorted by segments, so that the patterns beside a new one share the most levels of the tree with it.
    keys: BTreeSet<Key>,
    forms: HashMap<Form, OfForm>,
    /// How many bytes the subscriptions take.
    len: usize,
    /// The sum of the widest patterns of all forms: no topic matches more subscriptions.
    per_topic: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Key(SubscriptionKey);

/// The form of a pattern: its length, and where its stars stand. A topic matches at most one pattern of each form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Form {
    segments: usize,
    /// One bit for each segment that is a `*`.
    stars: u64,
    has_rest: bool,
}

/// The patterns of one form.
#[derive(Default)]
struct OfForm {
    subscriptions: usize,
    /// The most subscriptions, in different groups, that one pattern of the form has had.
    widest: usize,
}

/// Why a branch may not have one more subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TooMuch {
    #[error("a node has at most {PATTERNS_PER_NODE_MAX} subscriptions")]
    Subscriptions,
    #[error("the patterns and groups of a node {0}: subscribe to shorter or fewer patterns")]
    Bytes(#[from] NoRoom),
    #[error(
        "an event matches at most {0} subscriptions of a node: subscribe to fewer patterns that differ in where their stars stand, or to one \
         pattern in fewer groups"
    )]
    PerTopic(usize),
}

/// How many bytes a subscription takes beside its text: its key, its entry in the tree and that of its group.
const SUBSCRIPTION_LEN: usize = 256;

/// How many bytes a level of the tree takes beside its text.
const LEVEL_LEN: usize = 256;

impl Subscribed {
    /// Adds a subscription; `false` if it is there already.
    ///
    /// # Errors
    ///
    /// When the branch would have more than it may.
    pub(crate) fn insert(
        &mut self,
        key: SubscriptionKey,
        bounds: &mut SubscribedBounds,
    ) -> Result<bool, TooMuch> {
        let key = Key(key);
        let beside = self.beside(&key);
        if beside.contains(&Some(&key)) {
            return Ok(false);
        }
        if self.keys.len() >= PATTERNS_PER_NODE_MAX {
            return Err(TooMuch::Subscriptions);
        }
        let len = len_of(&key, beside);
        bounds.in_all.check(self.len, self.len + len)?;
        let form = Form::of(&key.0.pattern);
        let is_shared = beside.iter().flatten().any(|other| other.0.pattern == key.0.pattern);
        let width = if is_shared { 1 + self.of_pattern(&key.0.pattern) } else { 1 };
        let widest = self.forms.get(&form).map_or(0, |of_form| of_form.widest);
        let per_topic = self.per_topic - widest + width.max(widest);
        if per_topic > bounds.per_topic_max {
            return Err(TooMuch::PerTopic(bounds.per_topic_max));
        }
        let of_form = self.forms.entry(form).or_default();
        of_form.subscriptions += 1;
        of_form.widest = width.max(widest);
        bounds.in_all.note(self.len, self.len + len);
        (self.per_topic, self.len) = (per_topic, self.len + len);
        self.keys.insert(key);
        Ok(true)
    }

    /// Takes a subscription out; `false` if it is not there.
    pub(crate) fn remove(&mut self, key: &SubscriptionKey, bounds: &mut SubscribedBounds) -> bool {
        let key = Key(key.clone());
        if !self.keys.remove(&key) {
            return false;
        }
        let len = len_of(&key, self.beside(&key));
        bounds.in_all.note(len, 0);
        self.len -= len;
        let form = Form::of(&key.0.pattern);
        if let Some(of_form) = self.forms.get_mut(&form) {
            of_form.subscriptions -= 1;
            // The widest pattern of a form is searched for never: that would cost a step for each pattern.
            if of_form.subscriptions == 0 {
                self.per_topic -= of_form.widest;
                self.forms.remove(&form);
            }
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The subscriptions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SubscriptionKey> {
        self.keys.iter().map(|Key(key)| key)
    }

    /// Takes all subscriptions out.
    pub(crate) fn take(
        &mut self,
        bounds: &mut SubscribedBounds,
    ) -> impl Iterator<Item = SubscriptionKey> + use<> {
        bounds.in_all.note(self.len, 0);
        std::mem::take(self).keys.into_iter().map(|key| key.0)
    }

    /// The subscription before this one, and this one itself or the one behind it.
    fn beside(&self, key: &Key) -> [Option<&Key>; 2] {
        [self.keys.range(..key).next_back(), self.keys.range(key..).next()]
    }

    /// How many subscriptions there are to a pattern, each in another group: at most [`SubscribedBounds::per_topic_max`].
    fn of_pattern(&self, pattern: &Pattern) -> usize {
        let first = Key(SubscriptionKey { pattern: pattern.clone(), group: None });
        self.keys.range(first..).take_while(|key| key.0.pattern == *pattern).count()
    }
}

/// How many bytes a subscription takes beside the others: only the levels of the tree count that it does not share with them.
fn len_of(key: &Key, beside: [Option<&Key>; 2]) -> usize {
    let SubscriptionKey { pattern, group } = &key.0;
    let shared = beside.into_iter().flatten().map(|other| common(pattern, &other.0.pattern)).max();
    let levels = pattern.segments().count() - shared.unwrap_or(0);
    let text = pattern.as_str().len() + group.as_ref().map_or(0, |group| group.len());
    SUBSCRIPTION_LEN + LEVEL_LEN * levels + 2 * text
}

/// How many segments two patterns have in common, from the left.
fn common(one: &Pattern, other: &Pattern) -> usize {
    one.segments().zip(other.segments()).take_while(|(one, other)| one == other).count()
}

impl Form {
    fn of(pattern: &Pattern) -> Self {
        let mut form = Self { segments: 0, stars: 0, has_rest: false };
        for segment in pattern.segments() {
            // A pattern has at most `SEGMENTS_MAX` segments, which are fewer than the bits.
            form.stars |= u64::from(segment == "*") << form.segments;
            form.has_rest |= segment == "**";
            form.segments += 1;
        }
        form
    }
}

const _: () = assert!(meshwork_wire::limits::SEGMENTS_MAX < 64, "a form has a bit for each segment");

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, other_pattern) = (self.0.pattern.as_str().as_bytes(), other.0.pattern.as_str().as_bytes());
        // As the lists of segments compare: what parts them comes before all that a segment may hold.
        let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
        let differs = one.iter().zip(other_pattern).find(|(one, other)| one != other);
        let by_pattern = match differs {
            Some((one, other)) => rank(*one).cmp(&rank(*other)),
            None => one.len().cmp(&other_pattern.len()),
        };
        by_pattern.then_with(|| self.0.group.cmp(&other.0.group))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::trie::Trie;
    use meshwork_wire::ByteString;
    use meshwork_wire::limits::{SUBSCRIBED_LEN_MAX, SUBSCRIPTIONS_PER_TOPIC_MAX};
    use proptest::prelude::*;

    /// The subscriptions of the only branch.
    struct Alone(Subscribed, SubscribedBounds);

    impl Alone {
        fn new() -> Self {
            let in_all = InAll::of_each(SUBSCRIBED_LEN_MAX);
            Self(
                Subscribed::default(),
                SubscribedBounds { in_all, per_topic_max: SUBSCRIPTIONS_PER_TOPIC_MAX },
            )
        }

        fn insert(&mut self, key: SubscriptionKey) -> Result<bool, TooMuch> {
            self.0.insert(key, &mut self.1)
        }

        fn remove(&mut self, key: &SubscriptionKey) -> bool {
            self.0.remove(key, &mut self.1)
        }
    }

    fn key(pattern: &str, group: Option<&str>) -> SubscriptionKey {
        SubscriptionKey { pattern: Pattern::new(pattern).unwrap(), group: group.map(ByteString::from) }
    }

    fn insert(subscribed: &mut Alone, pattern: &str) -> Result<bool, TooMuch> {
        subscribed.insert(key(pattern, None))
    }

    /// 65,536 patterns of `a` and `*`, all of which one topic matched, and 112 KB of events stalled a mesh for 26 s.
    #[test]
    fn patterns_that_one_topic_matches_are_bounded_however_they_are_written() {
        let mut subscribed = Alone::new();
        let patterns = (0..1_u32 << 16).map(|bits| {
            let words: Vec<_> = (0..16).map(|at| if bits >> at & 1 == 1 { "*" } else { "a" }).collect();
            words.join("/")
        });
        let (mut trie, mut refused) = (Trie::new(), 0);
        for pattern in patterns {
            match insert(&mut subscribed, &pattern) {
                Ok(_) => trie.insert(&Pattern::new(pattern).unwrap(), ()),
                Err(error) => {
                    assert_eq!(error, TooMuch::PerTopic(SUBSCRIPTIONS_PER_TOPIC_MAX));
                    refused += 1;
                }
            }
        }
        assert_eq!(subscribed.0.len(), SUBSCRIPTIONS_PER_TOPIC_MAX);
        assert_eq!(refused, (1 << 16) - SUBSCRIPTIONS_PER_TOPIC_MAX);
        assert!(trie.steps(&["a"; 16].join("/")) <= 17 * SUBSCRIPTIONS_PER_TOPIC_MAX);
    }

    #[test]
    fn groups_on_one_pattern_are_bounded_and_groups_on_different_topics_are_not() {
        let mut subscribed = Alone::new();
        for number in 0..2 * SUBSCRIPTIONS_PER_TOPIC_MAX {
            let group = number.to_string();
            let too_much = Err(TooMuch::PerTopic(SUBSCRIPTIONS_PER_TOPIC_MAX));
            let expected = if number < SUBSCRIPTIONS_PER_TOPIC_MAX { Ok(true) } else { too_much };
            assert_eq!(subscribed.insert(key("t", Some(&group))), expected);
        }
        let mut subscribed = Alone::new();
        for number in 0..10_000 {
            let key = key(&format!("jobs/{number}"), Some(&number.to_string()));
            assert_eq!(subscribed.insert(key), Ok(true));
        }
    }

    #[test]
    fn as_many_usual_patterns_as_a_node_may_have_fit() {
        let mut subscribed = Alone::new();
        for number in 0..PATTERNS_PER_NODE_MAX {
            assert_eq!(insert(&mut subscribed, &format!("users/{number}/*")), Ok(true));
        }
        assert_eq!(insert(&mut subscribed, "users/1/*"), Ok(false), "it is there");
        assert_eq!(insert(&mut subscribed, "one/more"), Err(TooMuch::Subscriptions));
    }

    /// A path of 32 segments of one letter takes 63 bytes in a frame, and kilobytes in the tree.
    #[test]
    fn a_pattern_costs_the_levels_that_it_does_not_share() {
        let mut subscribed = Alone::new();
        let deep = |first: usize| format!("{first}/{}", ["x"; 31].join("/"));
        let refused = (0..).find(|first| insert(&mut subscribed, &deep(*first)).is_err()).unwrap();
        assert!(refused < SUBSCRIBED_LEN_MAX / (32 * LEVEL_LEN), "{refused}");
        let mut subscribed = Alone::new();
        let shared = ["x"; 31].join("/");
        for last in 0..2_000 {
            assert_eq!(insert(&mut subscribed, &format!("{shared}/{last}")), Ok(true));
        }
    }

    fn pattern() -> impl Strategy<Value = SubscriptionKey> {
        let segment = prop_oneof![3 => "[ab.-]{1,2}", 1 => Just("*".to_owned())];
        let segments = prop::collection::vec(segment, 1..5);
        (segments, any::<bool>(), prop::option::of("[gh]")).prop_map(|(mut segments, rest, group)| {
            if rest {
                segments.push("**".to_owned());
            }
            key(&segments.join("/"), group.as_deref())
        })
    }

    proptest! {
        #[test]
        fn keys_are_in_the_order_of_their_segments(keys in prop::collection::vec(pattern(), 2)) {
            let segments = |key: &SubscriptionKey| key.pattern.segments().map(str::to_owned).collect::<Vec<_>>();
            let expected = segments(&keys[0]).cmp(&segments(&keys[1])).then(keys[0].group.cmp(&keys[1].group));
            prop_assert_eq!(Key(keys[0].clone()).cmp(&Key(keys[1].clone())), expected);
        }

        /// Whatever came and went, the bytes are those of the levels that are left, and no topic matches more than was counted.
        #[test]
        fn the_counts_are_those_of_the_tree(
            keys in prop::collection::vec((pattern(), any::<bool>()), 0..40),
            topics in prop::collection::vec("[ab]{1,2}(/[ab]{1,2}){0,4}", 1..10),
        ) {
            let (mut subscribed, mut trie) = (Alone::new(), Trie::new());
            for (key, stays) in &keys {
                if subscribed.insert(key.clone()) == Ok(true) {
                    trie.insert(&key.pattern, key.group.clone());
                    if !stays {
                        prop_assert!(subscribed.remove(key) && !subscribed.remove(key));
                        trie.remove(&key.pattern, &key.group);
                    }
                }
            }
            prop_assert_eq!(subscribed.0.len(), trie.len());
            for topic in topics {
                let mut matches = 0;
                trie.for_each_match(&topic, &mut |_| matches += 1);
                prop_assert!(matches <= subscribed.0.per_topic);
            }
            let levels: std::collections::HashSet<Vec<String>> = subscribed.0.keys.iter().flat_map(|key| {
                let segments: Vec<String> = key.0.pattern.segments().map(str::to_owned).collect();
                (1..=segments.len()).map(move |len| segments[..len].to_vec())
            }).collect();
            let texts: usize = subscribed.0.keys.iter().map(|key| {
                key.0.pattern.as_str().len() + key.0.group.as_ref().map_or(0, |group| group.len())
            }).sum();
            prop_assert_eq!(subscribed.0.len, SUBSCRIPTION_LEN * subscribed.0.len() + LEVEL_LEN * levels.len() + 2 * texts);
            let keys: Vec<_> = subscribed.0.keys.iter().map(|key| key.0.clone()).collect();
            keys.iter().for_each(|key| _ = subscribed.remove(key));
            prop_assert_eq!(subscribed.1.in_all.len(), 0);
            prop_assert_eq!((subscribed.0.len, subscribed.0.per_topic, subscribed.0.forms.len()), (0, 0, 0));
        }
    }
}

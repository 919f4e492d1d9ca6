//! Patterns in a tree of segments. An event visits each level of the tree at most once, and only those that its topic may match: one for each
//! segment and for each path that `*` opens, however many other patterns there are. The tree finds the subscribers of an event; `router.rs`
//! and `subscribers.rs` hand the event over.

use crate::hashed::HashMap;
use meshwork_wire::Pattern;
use std::hash::Hash;

/// Subscribers by pattern.
#[derive(Debug)]
pub(crate) struct Trie<S> {
    root: Level<S>,
    len: usize,
}

#[derive(Debug)]
struct Level<S> {
    /// The subscribers whose pattern ends here.
    here: Members<S>,
    /// The subscribers whose pattern ends here with `**`.
    rest: Members<S>,
    literal: HashMap<Box<str>, Box<Level<S>>>,
    star: Option<Box<Level<S>>>,
}

/// The subscribers of one pattern. Adding one and taking one out costs the same however many there are.
#[derive(Debug)]
struct Members<S> {
    list: Vec<S>,
    /// The place of each subscriber in the list; none for a list that is quick to search.
    places: Option<Box<HashMap<S, usize>>>,
}

/// A list of subscribers of up to this length is searched.
const SEARCHED_MAX: usize = 16;

impl<S> Default for Members<S> {
    fn default() -> Self {
        Self { list: Vec::new(), places: None }
    }
}

impl<S> Default for Level<S> {
    fn default() -> Self {
        let (here, rest) = (Members::default(), Members::default());
        Self { here, rest, literal: HashMap::default(), star: None }
    }
}

impl<S: Eq + Hash + Clone> Trie<S> {
    pub(crate) fn new() -> Self {
        Self { root: Level::default(), len: 0 }
    }

    /// Adds a subscriber to a pattern. It must not be there yet.
    pub(crate) fn insert(&mut self, pattern: &Pattern, subscriber: S) {
        let mut level = &mut self.root;
        let mut segments = pattern.segments();
        let members = loop {
            match segments.next() {
                None => break &mut level.here,
                Some("**") => break &mut level.rest,
                Some("*") => level = level.star.get_or_insert_default(),
                Some(literal) => level = level.literal.entry(Box::from(literal)).or_default(),
            }
        };
        members.insert(subscriber);
        self.len += 1;
    }

    /// Takes a subscriber from a pattern; `false` if it is not subscribed to the pattern.
    pub(crate) fn remove(&mut self, pattern: &Pattern, subscriber: &S) -> bool {
        let removed = self.root.remove(&mut pattern.segments(), subscriber);
        self.len -= usize::from(removed);
        removed
    }

    /// Calls `found` with each subscriber whose pattern matches, once for each matching pattern.
    pub(crate) fn for_each_match<'t>(&'t self, topic: &str, found: &mut impl FnMut(&'t S)) {
        self.root.visit(Some(topic), &mut |members| members.list.iter().for_each(&mut *found));
    }

    /// How many subscriptions there are.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many steps it takes to find the subscribers of a topic: one for each level that is visited, and one for each subscriber.
    #[cfg(test)]
    pub(crate) fn steps(&self, topic: &str) -> usize {
        let mut steps = 0;
        self.root.visit(Some(topic), &mut |members| steps += 1 + members.list.len());
        steps
    }
}

impl<S: Eq + Hash + Clone> Level<S> {
    /// Calls `matching` once for each level below this one that the topic leads to, with the subscribers there whose patterns match.
    fn visit<'t>(&'t self, topic: Option<&str>, matching: &mut impl FnMut(&'t Members<S>)) {
        let Some(topic) = topic else {
            return matching(&self.here);
        };
        matching(&self.rest);
        let (segment, behind) = match topic.split_once('/') {
            Some((segment, behind)) => (segment, Some(behind)),
            None => (topic, None),
        };
        if let Some(level) = self.literal.get(segment) {
            level.visit(behind, matching);
        }
        if let Some(level) = &self.star {
            level.visit(behind, matching);
        }
    }

    fn remove<'p>(&mut self, segments: &mut impl Iterator<Item = &'p str>, subscriber: &S) -> bool {
        match segments.next() {
            None => self.here.remove(subscriber),
            Some("**") => self.rest.remove(subscriber),
            Some("*") => {
                let Some(level) = &mut self.star else {
                    return false;
                };
                let removed = level.remove(segments, subscriber);
                if level.is_empty() {
                    self.star = None;
                }
                removed
            }
            Some(literal) => {
                let Some(level) = self.literal.get_mut(literal) else {
                    return false;
                };
                let removed = level.remove(segments, subscriber);
                if level.is_empty() {
                    self.literal.remove(literal);
                }
                if self.literal.is_empty() {
                    self.literal = HashMap::default();
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        let is_end = self.here.list.is_empty() && self.rest.list.is_empty();
        is_end && self.literal.is_empty() && self.star.is_none()
    }
}

impl<S: Eq + Hash + Clone> Members<S> {
    fn insert(&mut self, subscriber: S) {
        if self.list.is_empty() {
            // Most patterns have one subscriber.
            self.list.reserve_exact(1);
        }
        if let Some(places) = &mut self.places {
            places.insert(subscriber.clone(), self.list.len());
        }
        self.list.push(subscriber);
        if self.places.is_none() && self.list.len() > SEARCHED_MAX {
            let places = self.list.iter().cloned().enumerate().map(|(at, subscriber)| (subscriber, at));
            self.places = Some(Box::new(places.collect()));
        }
    }

    fn remove(&mut self, subscriber: &S) -> bool {
        let at = match &mut self.places {
            Some(places) => places.remove(subscriber),
            None => self.list.iter().position(|other| other == subscriber),
        };
        let Some(at) = at else {
            return false;
        };
        self.list.swap_remove(at);
        if let (Some(places), Some(moved)) = (&mut self.places, self.list.get(at))
            && let Some(place) = places.get_mut(moved)
        {
            *place = at;
        }
        if self.list.is_empty() {
            *self = Self::default();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(trie: &Trie<u32>, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        trie.for_each_match(topic, &mut |subscriber| found.push(*subscriber));
        found.sort_unstable();
        found
    }

    #[test]
    fn literal_star_and_rest_all_match() {
        let mut trie = Trie::new();
        for (id, pattern) in ["sub/test", "sub/*", "sub/**", "**", "*/test", "other"].iter().enumerate() {
            trie.insert(&Pattern::new(*pattern).unwrap(), u32::try_from(id).unwrap());
        }
        assert_eq!(found(&trie, "sub/test"), [0, 1, 2, 3, 4]);
        assert_eq!(found(&trie, "sub/a/b"), [2, 3]);
        assert_eq!(found(&trie, "sub"), [3]);
    }

    #[test]
    fn a_removed_pattern_leaves_nothing_behind() {
        let mut trie = Trie::new();
        let patterns = ["a/b/c", "a/*/c", "a/**"].map(|pattern| Pattern::new(pattern).unwrap());
        for pattern in &patterns {
            trie.insert(pattern, 1);
        }
        for pattern in &patterns {
            assert!(!trie.remove(pattern, &2));
            assert!(trie.remove(pattern, &1));
            assert!(!trie.remove(pattern, &1));
        }
        assert!(trie.root.is_empty());
        assert_eq!(trie.len(), 0);
    }

    /// One connection with 131,000 groups on one pattern took 49 s to leave, since each was searched for among all others.
    #[test]
    fn a_subscriber_of_a_crowded_pattern_is_found_without_a_search() {
        let mut trie = Trie::new();
        let pattern = Pattern::new("t").unwrap();
        let all = 0..100_000;
        all.clone().for_each(|id| trie.insert(&pattern, id));
        // In an order that meets the front, the back and the middle.
        let removed = |id: &u32| id % 7 != 3;
        for id in all.clone().rev().filter(|id| id % 2 == 0).chain(all.clone().filter(|id| id % 2 == 1)) {
            if removed(&id) {
                assert!(trie.remove(&pattern, &id) && !trie.remove(&pattern, &id));
            }
        }
        let members = &trie.root.literal["t"].here;
        assert_eq!(members.list.len(), members.places.as_ref().unwrap().len());
        assert_eq!(found(&trie, "t"), all.filter(|id| !removed(id)).collect::<Vec<_>>());
    }

    /// An event visits each level of the tree at most once: there is no way back.
    #[test]
    fn a_topic_takes_no_more_steps_than_there_are_levels_that_it_may_match() {
        let mut trie = Trie::new();
        let words = |bits: u32, len: u32| -> Vec<_> {
            (0..len).map(|at| if bits >> at & 1 == 1 { "*" } else { "a" }).collect()
        };
        for bits in 0..1 << 10 {
            trie.insert(&Pattern::new(words(bits, 10).join("/")).unwrap(), bits);
            trie.insert(&Pattern::new(format!("b/{}/**", words(bits, 10).join("/"))).unwrap(), bits);
        }
        let levels = (1 << 11) - 1;
        assert_eq!(trie.steps(&["a"; 10].join("/")), levels + (1 << 10));
        assert_eq!(trie.steps(&["a"; 9].join("/")), (1 << 10) - 1, "those that match nothing");
        assert_eq!(trie.steps(&["c"; 10].join("/")), 11 + 1);
        assert_eq!(trie.steps(&["c"; 200].join("/")), 11);
        assert_eq!(trie.steps("b"), 3, "the tree is no deeper than its patterns");
        assert_eq!(trie.steps(&"/".repeat(1_000_000)), 11);
    }

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof!["a", "b", "c"].prop_map(String::from)
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        let segments = prop::collection::vec(prop_oneof![3 => segment(), 1 => Just("*".to_owned())], 1..4);
        (segments, any::<bool>()).prop_map(|(mut segments, rest)| {
            if rest {
                segments.push("**".to_owned());
            }
            Pattern::new(segments.join("/")).expect("a pattern")
        })
    }

    proptest! {
        #[test]
        fn the_trie_finds_what_a_plain_list_of_patterns_finds(
            patterns in prop::collection::vec(pattern(), 0..30),
            removed in prop::collection::vec(any::<bool>(), 30),
            topics in prop::collection::vec(prop::collection::vec(segment(), 1..5), 1..20),
        ) {
            let mut trie = Trie::new();
            let mut plain = Vec::new();
            for (id, pattern) in patterns.iter().enumerate() {
                trie.insert(pattern, u32::try_from(id).unwrap());
            }
            for (id, pattern) in patterns.iter().enumerate() {
                let id = u32::try_from(id).unwrap();
                if removed[id as usize] {
                    trie.remove(pattern, &id);
                } else {
                    plain.push((id, pattern));
                }
            }
            prop_assert_eq!(trie.len(), plain.len());
            for topic in topics {
                let topic = topic.join("/");
                let expected: Vec<_> =
                    plain.iter().filter(|(_, pattern)| pattern.matches(&topic)).map(|(id, _)| *id).collect();
                prop_assert_eq!(found(&trie, &topic), expected);
            }
        }
    }
}

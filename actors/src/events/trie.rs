//! Patterns in a tree of segments. An event costs a step for each segment of its topic and for each path that `*` opens, however many
//! other patterns there are. The tree finds the subscribers of an event; `router.rs` and `subscribers.rs` hand the event over.

use crate::hashed::{Entry, HashMap};
use meshwork_wire::{ByteString, Pattern};

/// Subscribers by pattern.
#[derive(Debug)]
pub(crate) struct Trie<S> {
    root: Level<S>,
    len: usize,
}

#[derive(Debug)]
struct Level<S> {
    /// The subscribers whose pattern ends here.
    here: Vec<S>,
    /// The subscribers whose pattern ends here with `**`.
    rest: Vec<S>,
    literal: HashMap<ByteString, Level<S>>,
    star: Option<Box<Level<S>>>,
}

impl<S> Default for Level<S> {
    fn default() -> Self {
        Self { here: Vec::new(), rest: Vec::new(), literal: HashMap::default(), star: None }
    }
}

impl<S: PartialEq> Trie<S> {
    pub(crate) fn new() -> Self {
        Self { root: Level::default(), len: 0 }
    }

    /// Adds a subscriber to a pattern. It must not be there yet: a search among the subscribers of the pattern would make each further one
    /// dearer to add.
    pub(crate) fn insert(&mut self, pattern: &Pattern, subscriber: S) {
        let mut level = &mut self.root;
        let mut segments = pattern.segments().peekable();
        let list = loop {
            match segments.next() {
                None => break &mut level.here,
                Some("**") => break &mut level.rest,
                Some("*") => level = level.star.get_or_insert_default(),
                Some(literal) => level = level.literal.entry(ByteString::from(literal)).or_default(),
            }
        };
        list.push(subscriber);
        self.len += 1;
    }

    /// Takes a subscriber from a pattern; `false` if it is not subscribed to the pattern.
    pub(crate) fn remove(&mut self, pattern: &Pattern, subscriber: &S) -> bool {
        let segments: Vec<_> = pattern.segments().collect();
        let removed = self.root.remove(&segments, subscriber);
        self.len -= usize::from(removed);
        removed
    }

    /// Calls `found` with each subscriber whose pattern matches, once for each matching pattern.
    pub(crate) fn for_each_match<'t>(&'t self, topic: &str, found: &mut impl FnMut(&'t S)) {
        self.root.matching(Some(topic), found);
    }

    /// How many subscriptions there are.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl<S: PartialEq> Level<S> {
    fn matching<'t>(&'t self, topic: Option<&str>, found: &mut impl FnMut(&'t S)) {
        let Some(topic) = topic else {
            self.here.iter().for_each(found);
            return;
        };
        self.rest.iter().for_each(&mut *found);
        let (segment, behind) = match topic.split_once('/') {
            Some((segment, behind)) => (segment, Some(behind)),
            None => (topic, None),
        };
        if let Some(level) = self.literal.get(segment) {
            level.matching(behind, found);
        }
        if let Some(level) = &self.star {
            level.matching(behind, found);
        }
    }

    fn remove(&mut self, segments: &[&str], subscriber: &S) -> bool {
        let list = match segments {
            [] => &mut self.here,
            ["**", ..] => &mut self.rest,
            ["*", behind @ ..] => {
                let Some(level) = &mut self.star else {
                    return false;
                };
                let removed = level.remove(behind, subscriber);
                if level.is_empty() {
                    self.star = None;
                }
                return removed;
            }
            [literal, behind @ ..] => {
                let Entry::Occupied(mut level) = self.literal.entry(ByteString::from(*literal)) else {
                    return false;
                };
                let removed = level.get_mut().remove(behind, subscriber);
                if level.get().is_empty() {
                    level.remove();
                }
                return removed;
            }
        };
        let before = list.len();
        list.retain(|other| other != subscriber);
        list.len() < before
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.rest.is_empty() && self.literal.is_empty() && self.star.is_none()
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

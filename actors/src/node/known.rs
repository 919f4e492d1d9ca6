//! The other nodes and their actions, as far as a node knows of them, with the encoding that each action reads. The cache follows the
//! `Online` and `Offline` frames of the master. It never refuses a call: the news of a newcomer travel behind its bind, so only the master
//! can say no.

use super::change::Change;
use hashbrown::HashMap;
use meshwork_wire::{ByteString, Encoding, NodeNews, SessionId, everything_above};

/// The cache of the other nodes and their actions.
#[derive(Default, Debug)]
pub struct ActionCache {
    nodes: HashMap<SessionId, KnownNode>,
    /// The providers of each action, counted.
    actions: HashMap<ByteString, Providers>,
}

/// A node that is online, with its actions.
#[derive(Debug)]
struct KnownNode {
    node: ByteString,
    actions: HashMap<ByteString, Encoding>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Providers {
    count: usize,
    /// How many of the providers do not read bincode.
    foreign: usize,
}

impl ActionCache {
    /// Takes in the news of a node.
    pub(crate) fn follow(&mut self, change: &Change) {
        match change {
            Change::Online(news) => self.online(news),
            Change::Offline(news) => self.offline(news),
        }
    }

    /// Takes in a node that came, or offers more actions.
    pub(crate) fn online(&mut self, news: &NodeNews) {
        if news.whole {
            self.remove_node(news.session);
        }
        let known = self
            .nodes
            .entry(news.session)
            .or_insert_with(|| KnownNode { node: news.node.clone(), actions: HashMap::new() });
        for (action, encoding) in &news.actions {
            // A name from a frame shares the buffer of the frame, which a name that is kept must not keep.
            let action = ByteString::from(&**action);
            if known.actions.insert(action.clone(), *encoding).is_none() {
                let providers = self.actions.entry(action).or_default();
                providers.count += 1;
                if encoding.is_self_describing() {
                    providers.foreign += 1;
                }
            }
        }
    }

    /// Takes out a node that went, or the actions that it offers no longer.
    pub(crate) fn offline(&mut self, news: &NodeNews) {
        if news.whole {
            self.remove_node(news.session);
            return;
        }
        for (action, _) in &news.actions {
            let gone = self.nodes.get_mut(&news.session).and_then(|known| known.actions.remove(action));
            if let Some(encoding) = gone {
                self.forget(action, encoding);
            }
        }
    }

    /// Takes out all nodes, when the link is lost.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a known node offers the action by its name.
    pub(crate) fn knows(&self, action: &str) -> bool {
        self.actions.contains_key(action)
    }

    /// Whether a known node answers everything below a part of the name of the action.
    pub(crate) fn knows_above(&self, action: &str) -> bool {
        everything_above(action).any(|above| self.knows(&above))
    }

    pub(crate) fn action_count(&self) -> usize {
        self.actions.len()
    }

    /// The encoding for requests of an action: bincode if all its providers read it. A provider that is not known yet reads MessagePack in any
    /// case.
    pub(crate) fn encoding_for(&self, action: &str) -> Encoding {
        match self.actions.get(action) {
            Some(providers) if providers.foreign == 0 => Encoding::Bincode,
            _ => Encoding::MessagePack,
        }
    }

    pub(crate) fn nodes(&self) -> Vec<NodeNews> {
        let mut nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|(session, known)| {
                let mut actions: Vec<_> =
                    known.actions.iter().map(|(action, encoding)| (action.clone(), *encoding)).collect();
                actions.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                NodeNews { node: known.node.clone(), session: *session, whole: true, actions }
            })
            .collect();
        nodes.sort_unstable_by(|one, other| (&one.node, one.session).cmp(&(&other.node, other.session)));
        nodes
    }

    fn remove_node(&mut self, session: SessionId) {
        if let Some(known) = self.nodes.remove(&session) {
            for (action, encoding) in known.actions {
                self.forget(&action, encoding);
            }
        }
    }

    fn forget(&mut self, action: &str, encoding: Encoding) {
        let Some(providers) = self.actions.get_mut(action) else {
            return;
        };
        providers.count -= 1;
        if encoding.is_self_describing() {
            providers.foreign -= 1;
        }
        if providers.count == 0 {
            self.actions.remove(action);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(session: u64, whole: bool, actions: &[(&'static str, Encoding)]) -> NodeNews {
        NodeNews {
            node: ByteString::from(format!("node{session}")),
            session: SessionId(session),
            whole,
            actions: actions
                .iter()
                .map(|(name, encoding)| (ByteString::from_static(name), *encoding))
                .collect(),
        }
    }

    #[test]
    fn an_action_is_known_as_long_as_a_node_offers_it() {
        let mut cache = ActionCache::default();
        cache.online(&news(1, true, &[("add", Encoding::Bincode)]));
        cache.online(&news(2, true, &[("add", Encoding::Bincode)]));
        cache.online(&news(2, false, &[("sub", Encoding::Bincode)]));
        cache.offline(&news(1, true, &[]));
        assert!(cache.knows("add") && cache.knows("sub"));
        cache.offline(&news(2, false, &[("add", Encoding::Bincode)]));
        assert!(!cache.knows("add") && cache.knows("sub"));
        cache.offline(&news(2, true, &[]));
        assert!(!cache.knows("sub") && cache.nodes().is_empty());
    }

    #[test]
    fn an_action_of_a_foreign_node_is_called_in_an_encoding_that_describes_itself() {
        let mut cache = ActionCache::default();
        cache.online(&news(1, true, &[("add", Encoding::Bincode)]));
        cache.online(&news(2, true, &[("add", Encoding::Json)]));
        assert_eq!(cache.encoding_for("add"), Encoding::MessagePack);
        cache.offline(&news(2, true, &[]));
        assert_eq!(cache.encoding_for("add"), Encoding::Bincode);
    }

    #[test]
    fn an_action_of_no_known_provider_is_called_in_an_encoding_that_describes_itself() {
        let mut cache = ActionCache::default();
        assert_eq!(cache.encoding_for("add"), Encoding::MessagePack);
        cache.online(&news(1, true, &[("add", Encoding::Bincode)]));
        assert_eq!(cache.encoding_for("add"), Encoding::Bincode);
        cache.clear();
        assert!(!cache.knows("add") && cache.nodes().is_empty());
        assert_eq!(cache.encoding_for("add"), Encoding::MessagePack);
    }

    #[test]
    fn news_that_repeat_or_contradict_do_no_harm() {
        let mut cache = ActionCache::default();
        cache.offline(&news(9, true, &[]));
        cache.offline(&news(9, false, &[("add", Encoding::Json)]));
        for _ in 0..3 {
            cache.online(&news(1, true, &[("add", Encoding::Json), ("add", Encoding::Json)]));
        }
        cache.offline(&news(1, true, &[]));
        assert!(!cache.knows("add"));
        cache.online(&news(2, true, &[("add", Encoding::Bincode)]));
        assert_eq!(cache.encoding_for("add"), Encoding::Bincode);
    }
}

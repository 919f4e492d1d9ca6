//! The other nodes and their actions, as far as a node knows of them, with what each provider accepts. The cache follows the
//! `Online` and `Offline` frames of the master. It never refuses a call: the news of a newcomer travel behind its bind, so only the master
//! can say no.

use super::change::Change;
use crate::hashed::HashMap;
use meshwork_wire::{Accepts, ByteString, Encoding, Form, NodeNews, SessionId, Signature, everything_above};

/// The cache of the other nodes and their actions.
#[derive(Debug)]
pub struct ActionCache {
    /// What a provider that is not known yet accepts.
    unknown: Accepts,
    nodes: HashMap<SessionId, KnownNode>,
    /// The providers of each action, counted.
    actions: HashMap<ByteString, Providers>,
}

/// A node that is online, with its actions.
#[derive(Debug)]
struct KnownNode {
    node: ByteString,
    actions: HashMap<ByteString, Accepts>,
}

/// What the providers of an action accept, counted. Few differ: a list is short.
#[derive(Default, Debug)]
struct Providers(Vec<(Accepts, usize)>);

impl Providers {
    fn add(&mut self, accepts: Accepts) {
        match self.0.iter_mut().find(|(known, _)| *known == accepts) {
            Some((_, count)) => *count += 1,
            None => self.0.push((accepts, 1)),
        }
    }

    fn remove(&mut self, accepts: Accepts) {
        if let Some(at) = self.0.iter().position(|(known, _)| *known == accepts) {
            self.0[at].1 -= 1;
            if self.0[at].1 == 0 {
                self.0.swap_remove(at);
            }
        }
    }
}

/// How the arguments of a call are written, so that all providers read them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Wanted {
    /// The form of the arguments. It is bincode only for a typed caller.
    pub form: Form,
    /// Whether a record of arguments is written as the list of its values, without names.
    pub as_list: bool,
}

impl Wanted {
    /// Arguments of a caller of this signature in this encoding.
    #[inline]
    pub(crate) fn written(encoding: Encoding, as_list: bool, signature: Option<Signature>) -> Self {
        let form = match (encoding, signature) {
            (Encoding::Bincode, Some(signature)) => Form::arguments(signature),
            (encoding, _) => encoding.into(),
        };
        Self { form, as_list }
    }

    /// What a caller of this signature writes for providers that accept this. Where providers differ, an encoding that describes itself.
    fn of(all: impl Iterator<Item = Accepts>, signature: Option<Signature>) -> Self {
        let (mut typed, mut as_list, mut of_before, mut some) = (signature, false, false, false);
        for accepts in all {
            some = true;
            of_before |= accepts.is_of_before();
            // Typed providers of earlier versions know no records.
            as_list |= of_before || accepts == Accepts::List;
            if accepts.signature() != typed {
                typed = None;
            }
        }
        let form = match typed {
            Some(signature) if some => Form::arguments(signature),
            _ if of_before => Encoding::CompactMessagePack.into(),
            _ => Encoding::MessagePack.into(),
        };
        Self { form, as_list }
    }
}

impl Default for ActionCache {
    fn default() -> Self {
        Self { unknown: Accepts::MessagePack, nodes: HashMap::default(), actions: HashMap::default() }
    }
}

impl ActionCache {
    /// Sets what a provider accepts that is not known yet: a master of another protocol takes lists.
    pub(crate) fn set_unknown(&mut self, unknown: Accepts) {
        self.unknown = unknown;
    }

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
            .or_insert_with(|| KnownNode { node: news.node.clone(), actions: HashMap::default() });
        for (action, accepts) in &news.actions {
            // A name from a frame shares the buffer of the frame, which a name that is kept must not keep.
            let action = ByteString::from(&**action);
            let before = known.actions.insert(action.clone(), *accepts);
            let providers = self.actions.entry(action).or_default();
            if let Some(before) = before {
                providers.remove(before);
            }
            providers.add(*accepts);
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
            if let Some(accepts) = gone {
                self.forget(action, accepts);
            }
        }
    }

    /// Takes out all nodes, when the link is lost.
    pub(crate) fn clear(&mut self) {
        (self.nodes, self.actions) = Default::default();
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

    /// How the arguments of a call are written: in bincode if all known providers, and this node itself, have the signature of the caller.
    /// A provider that is not known yet reads MessagePack in any case.
    pub(crate) fn wanted(&self, action: &str, signature: Option<Signature>, own: Option<Accepts>) -> Wanted {
        let of = |providers: &Providers| {
            let all = providers.0.iter().map(|(accepts, _)| *accepts);
            Wanted::of(all.chain(own), signature)
        };
        match self.actions.get(action) {
            Some(providers) => of(providers),
            None if own.is_some() => Wanted::of(own.into_iter(), signature),
            // A provider of everything below a part of the name offers no signature for it.
            None => {
                let above = everything_above(action).find_map(|above| self.actions.get(&*above));
                above.map_or_else(|| Wanted::of(std::iter::once(self.unknown), None), of)
            }
        }
    }

    pub(crate) fn nodes(&self) -> Vec<NodeNews> {
        let mut nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|(session, known)| {
                let mut actions: Vec<_> =
                    known.actions.iter().map(|(action, accepts)| (action.clone(), *accepts)).collect();
                actions.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                NodeNews { node: known.node.clone(), session: *session, whole: true, actions }
            })
            .collect();
        nodes.sort_unstable_by(|one, other| (&one.node, one.session).cmp(&(&other.node, other.session)));
        nodes
    }

    fn remove_node(&mut self, session: SessionId) {
        if let Some(known) = self.nodes.remove(&session) {
            for (action, accepts) in known.actions {
                self.forget(&action, accepts);
            }
        }
    }

    fn forget(&mut self, action: &str, accepts: Accepts) {
        if let Some(providers) = self.actions.get_mut(action) {
            providers.remove(accepts);
            if providers.0.is_empty() {
                self.actions.remove(action);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(session: u64, whole: bool, actions: &[(&'static str, Accepts)]) -> NodeNews {
        NodeNews {
            node: format!("node-{session}").into(),
            session: SessionId(session),
            whole,
            actions: actions
                .iter()
                .map(|(name, accepts)| (ByteString::from_static(name), *accepts))
                .collect(),
        }
    }

    const TYPED: Accepts = Accepts::Typed(Signature(1));

    fn wanted(cache: &ActionCache, signature: Option<u64>) -> (Encoding, bool) {
        let Wanted { form, as_list } = cache.wanted("add", signature.map(Signature), None);
        (form.encoding(), as_list)
    }

    #[test]
    fn an_action_is_known_as_long_as_a_node_offers_it() {
        let mut cache = ActionCache::default();
        cache.online(&news(1, true, &[("add", TYPED)]));
        cache.online(&news(2, true, &[("add", TYPED)]));
        cache.online(&news(2, false, &[("sub", TYPED)]));
        cache.offline(&news(1, true, &[]));
        assert!(cache.knows("add") && cache.knows("sub"));
        cache.offline(&news(2, false, &[("add", TYPED)]));
        assert!(!cache.knows("add") && cache.knows("sub"));
        cache.offline(&news(2, true, &[]));
        assert!(!cache.knows("sub") && cache.nodes().is_empty());
    }

    #[test]
    fn bincode_is_written_only_where_all_providers_have_the_signature() {
        let mut cache = ActionCache::default();
        assert_eq!(wanted(&cache, Some(1)), (Encoding::MessagePack, false), "nobody is known");
        cache.online(&news(1, true, &[("add", TYPED)]));
        assert_eq!(wanted(&cache, Some(1)), (Encoding::Bincode, false));
        assert_eq!(wanted(&cache, Some(2)), (Encoding::MessagePack, false));
        assert_eq!(wanted(&cache, None), (Encoding::MessagePack, false));
        for other in [Accepts::Typed(Signature(2)), Accepts::MessagePack] {
            cache.online(&news(2, true, &[("add", other)]));
            for signature in [None, Some(1), Some(2)] {
                assert_eq!(wanted(&cache, signature), (Encoding::MessagePack, false));
            }
            cache.offline(&news(2, true, &[]));
            assert_eq!(wanted(&cache, Some(1)), (Encoding::Bincode, false));
        }
        let own = |own| cache.wanted("add", Some(Signature(1)), Some(own)).form.encoding();
        assert_eq!(own(TYPED), Encoding::Bincode);
        assert_eq!(own(Accepts::MessagePack), Encoding::MessagePack, "a permit may be missing here");
        cache.clear();
        assert!(!cache.knows("add") && cache.nodes().is_empty());
        assert_eq!(wanted(&cache, Some(1)), (Encoding::MessagePack, false));
    }

    #[test]
    fn a_program_of_another_protocol_gets_lists() {
        let mut cache = ActionCache::default();
        cache.online(&news(1, true, &[("add", TYPED)]));
        cache.online(&news(2, true, &[("add", Accepts::List)]));
        assert_eq!(wanted(&cache, Some(1)), (Encoding::MessagePack, true));
        cache.offline(&news(2, true, &[]));
        assert_eq!(wanted(&cache, Some(1)), (Encoding::Bincode, false));
        cache.online(&news(3, true, &[("old/**", Accepts::List)]));
        assert!(cache.wanted("old/add", None, None).as_list);
    }

    #[test]
    fn a_provider_of_an_earlier_version_gets_what_it_reads() {
        let mut cache = ActionCache::default();
        cache.online(&news(1, true, &[("add", TYPED)]));
        for before in [Accepts::PlainBincode, Accepts::CompactMessagePack] {
            cache.online(&news(2, true, &[("add", before)]));
            assert_eq!(wanted(&cache, Some(1)), (Encoding::CompactMessagePack, true));
        }
    }

    #[test]
    fn news_that_repeat_or_contradict_do_no_harm() {
        let mut cache = ActionCache::default();
        cache.offline(&news(9, true, &[]));
        cache.offline(&news(9, false, &[("add", Accepts::List)]));
        for _ in 0..3 {
            cache.online(&news(1, true, &[("add", Accepts::List), ("add", Accepts::List)]));
        }
        cache.online(&news(1, false, &[("add", TYPED)]));
        assert_eq!(wanted(&cache, Some(1)), (Encoding::Bincode, false), "the last offer counts");
        cache.offline(&news(1, true, &[]));
        assert!(!cache.knows("add"));
    }
}

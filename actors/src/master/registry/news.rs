//! The news of nodes that came and went, as encoded frames for the branches. News gather for a moment, so that many branches that bind at
//! once cost each other branch one write and not one for each newcomer. The news of a node that changes its actions all the time gather by
//! action, and for longer: only the last change of each action is told. The news of all nodes, which a newcomer is told, are kept as bytes,
//! so that they are not encoded again for each newcomer. The registry decides when; this file knows no clock and no outbox.

use crate::hashed::{HashMap, HashSet};
use bytes::{Bytes, BytesMut};
use meshwork_wire::limits::{
    ACTIONS_PER_FRAME_MAX, ACTIONS_PER_NODE_MAX, NEWS_PER_NODE_LEN_MAX, NEWS_PER_NODE_MAX,
};
use meshwork_wire::{Accepts, ByteString, Frame, NodeNews, Pattern, SessionId};
use std::sync::Arc;

/// The news that no branch was told yet, and the news of all nodes.
///
/// A branch that may see only some actions hears only of these, and only of nodes that offer one of them. All branches that may see the same
/// actions share one feed: the work for an action that comes or goes grows with the feeds, which the operator's permissions bound, and not with
/// the branches.
#[derive(Default)]
pub(crate) struct News {
    whole: Feed,
    /// The feeds of the branches that may not see every action, by the patterns of what they may see.
    narrow: HashMap<Seen, Narrow>,
    /// The feeds of these branches.
    narrowed: HashMap<SessionId, Seen>,
}

/// The patterns of the actions that a branch may see.
type Seen = Arc<[Pattern]>;

/// A feed for branches that may not see every action.
#[derive(Default)]
struct Narrow {
    feed: Feed,
    /// The nodes that a branch of this feed was told of: only of these it is told that they are gone.
    told: HashSet<SessionId>,
    /// How many branches have this feed.
    members: usize,
}

/// The news for branches that may see the same.
#[derive(Default)]
struct Feed {
    /// The frames of `entries`.
    buffer: BytesMut,
    entries: Vec<Entry>,
    /// The news of each session among `entries`: how many, and how many bytes.
    counts: HashMap<SessionId, (usize, usize)>,
    /// The sessions whose further news gather by action.
    floods: HashMap<SessionId, Flood>,
    /// The sessions that joined since the news were last taken, each with the number of entries that it knows.
    joined: HashMap<SessionId, usize>,
    /// None if the news of all nodes must be encoded anew.
    everyone: Option<Everyone>,
}

/// One change of a node: its session, and the end of its frames in the buffer.
struct Entry {
    about: SessionId,
    end: usize,
    /// How many frames there are, with those of the entries before.
    frames: usize,
}

/// The changes of a node by action.
struct Flood {
    node: ByteString,
    /// What the node accepts now for each action that it has offered or withdrawn; none for one that it does not offer now.
    actions: HashMap<ByteString, Option<Accepts>>,
}

/// The news of all nodes, in pieces of bytes that the outboxes of newcomers share.
#[derive(Default)]
struct Everyone {
    /// Each piece with its number of frames.
    pieces: Vec<(Bytes, usize)>,
    /// The frames of changes since a newcomer was last told.
    last: BytesMut,
    last_frames: usize,
    /// How many bytes tell of nodes that came, and how many of other changes: a newcomer is told of nodes that went, too, unless these are
    /// many.
    came_len: usize,
    changes_len: usize,
}

/// Pieces of this length are not joined any more.
const PIECE_LEN_MAX: usize = 256 * 1024;

/// The news that have gathered, taken out for the branches.
pub(crate) struct GatheredNews {
    whole: Gathered,
    narrow: HashMap<Seen, Gathered>,
}

/// The news of one feed.
struct Gathered {
    bytes: Bytes,
    entries: Vec<Entry>,
    joined: HashMap<SessionId, usize>,
    /// The sessions that the news are about, each with its entries.
    about: HashMap<SessionId, Vec<usize>>,
}

impl News {
    /// Adds the news of a node that came, or offers more actions.
    pub(crate) fn came(&mut self, news: &NodeNews) {
        for (seen, narrow) in &mut self.narrow {
            if let Some(mut news) = seen_of(news, seen) {
                // A node that offered nothing to be seen until now comes with all that may be seen of it.
                news.whole |= narrow.told.insert(news.session);
                narrow.feed.came(&news);
            }
        }
        self.whole.came(news);
    }

    /// Adds the news of a node that went, or offers fewer actions.
    pub(crate) fn went(&mut self, news: &NodeNews) {
        for (seen, narrow) in &mut self.narrow {
            if news.whole && narrow.told.remove(&news.session) {
                narrow.feed.went(news);
            } else if !news.whole
                && narrow.told.contains(&news.session)
                && let Some(news) = seen_of(news, seen)
            {
                narrow.feed.went(&news);
            }
        }
        self.whole.went(news);
    }

    /// Whether news of nodes that change their actions all the time have gathered.
    pub(crate) fn has_floods(&self) -> bool {
        self.feeds().any(|feed| !feed.floods.is_empty())
    }

    /// Whether so many changes of one node have gathered that they must be told now.
    pub(crate) fn is_flooded_by(&self, session: SessionId) -> bool {
        self.feeds().any(|feed| feed.is_flooded_by(session))
    }

    /// Adds the last change of each action of the nodes that change theirs all the time; gives how many bytes they take.
    pub(crate) fn end_floods(&mut self) -> usize {
        let narrow = self.narrow.values_mut().map(|narrow| narrow.feed.end_floods()).max().unwrap_or(0);
        self.whole.end_floods().max(narrow)
    }

    fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.narrow.values().map(|narrow| &narrow.feed).chain([&self.whole])
    }

    /// The news of all nodes as encoded frames, for a newcomer that may see the actions of these patterns, or all: each piece with its number
    /// of frames. `there` is read only if the changes since the last time take more bytes than the nodes. The newcomer knows the news that have
    /// gathered so far.
    pub(crate) fn join(
        &mut self,
        id: SessionId,
        seen: Option<&[Pattern]>,
        there: impl Iterator<Item = NodeNews>,
    ) -> impl Iterator<Item = (Bytes, usize)> + '_ {
        let Some(seen) = seen else {
            return self.whole.join(id, there);
        };
        let seen = match self.narrow.get_key_value(seen) {
            Some((seen, _)) => Arc::clone(seen),
            None => Seen::from(seen),
        };
        self.narrowed.insert(id, Arc::clone(&seen));
        let Narrow { feed, told, members } = self.narrow.entry(Arc::clone(&seen)).or_default();
        *members += 1;
        let there = there.filter_map(|news| seen_of(&news, &seen));
        feed.join(id, there.inspect(|news| _ = told.insert(news.session)))
    }

    /// Forgets a branch that has gone.
    pub(crate) fn leave(&mut self, id: SessionId) {
        if let Some(seen) = self.narrowed.remove(&id)
            && let Some(narrow) = self.narrow.get_mut(&seen)
        {
            narrow.members -= 1;
            narrow.feed.joined.remove(&id);
            if narrow.members == 0 {
                self.narrow.remove(&seen);
            }
        }
    }

    /// Takes the news that have gathered.
    pub(crate) fn take(&mut self) -> GatheredNews {
        let narrow = self.narrow.iter_mut().map(|(seen, narrow)| (Arc::clone(seen), narrow.feed.take()));
        GatheredNews { narrow: narrow.collect(), whole: self.whole.take() }
    }

    /// The gathered news for one branch: all but those that it may not see, those that it knows and those about itself. Each piece with its
    /// number of frames.
    pub(crate) fn parts_for(&self, gathered: &GatheredNews, id: SessionId) -> Vec<(Bytes, usize)> {
        if self.narrowed.is_empty() {
            return gathered.whole.parts_for(id);
        }
        match self.narrowed.get(&id) {
            None => gathered.whole.parts_for(id),
            Some(seen) => gathered.narrow.get(seen).map(|narrow| narrow.parts_for(id)).unwrap_or_default(),
        }
    }
}

/// What may be seen of the news of a node; none if nothing may.
fn seen_of(news: &NodeNews, seen: &[Pattern]) -> Option<NodeNews> {
    let may_see = |action: &str| seen.iter().any(|pattern| pattern.matches(action));
    let actions: Vec<_> = news.actions.iter().filter(|(action, _)| may_see(action)).cloned().collect();
    (!actions.is_empty()).then(|| NodeNews { actions, node: news.node.clone(), ..*news })
}

impl Feed {
    /// Adds the news of a node that came, or offers more actions.
    fn came(&mut self, news: &NodeNews) {
        self.change(news, Frame::Online, news.whole);
        if !self.gather(news, Some) {
            self.add(news, Frame::Online);
        }
    }

    /// Adds the news of a node that went, or offers fewer actions.
    fn went(&mut self, news: &NodeNews) {
        self.change(news, Frame::Offline, false);
        if !self.gather(news, |_| None) {
            self.add(news, Frame::Offline);
        }
    }

    /// Whether so many changes of one node have gathered that they must be told now.
    fn is_flooded_by(&self, session: SessionId) -> bool {
        self.floods.get(&session).is_some_and(|flood| flood.actions.len() > 2 * ACTIONS_PER_NODE_MAX)
    }

    /// Adds the last change of each action of the nodes that change theirs all the time; gives how many bytes they take.
    fn end_floods(&mut self) -> usize {
        let before = self.buffer.len();
        for (session, Flood { node, actions }) in std::mem::take(&mut self.floods) {
            // The frame of an action that is gone has any word on what was accepted.
            let (came, went): (Vec<_>, Vec<_>) = actions.into_iter().partition(|(_, now)| now.is_some());
            let list = |actions: Vec<(ByteString, Option<Accepts>)>| NodeNews {
                node: node.clone(),
                session,
                whole: false,
                actions: actions
                    .into_iter()
                    .map(|(action, now)| (action, now.unwrap_or(Accepts::MessagePack)))
                    .collect(),
            };
            for (actions, frame) in [(went, Frame::Offline as fn(_) -> _), (came, Frame::Online)] {
                if !actions.is_empty() {
                    self.add(&list(actions), frame);
                }
            }
        }
        self.buffer.len() - before
    }

    /// See [`News::join`].
    fn join(
        &mut self,
        id: SessionId,
        there: impl Iterator<Item = NodeNews>,
    ) -> std::iter::Cloned<std::slice::Iter<'_, (Bytes, usize)>> {
        self.joined.insert(id, self.entries.len());
        let everyone = self.everyone.get_or_insert_with(|| {
            let mut everyone = Everyone::default();
            there.for_each(|news| everyone.add(&news, Frame::Online, true));
            everyone
        });
        everyone.join();
        everyone.pieces.iter().cloned()
    }

    /// Takes the news that have gathered.
    fn take(&mut self) -> Gathered {
        let entries = std::mem::take(&mut self.entries);
        let mut about: HashMap<SessionId, Vec<usize>> = HashMap::default();
        for (number, entry) in entries.iter().enumerate() {
            about.entry(entry.about).or_default().push(number);
        }
        self.counts.clear();
        let (bytes, joined) = (self.buffer.split().freeze(), std::mem::take(&mut self.joined));
        Gathered { bytes, entries, joined, about }
    }

    fn add(&mut self, news: &NodeNews, frame: fn(NodeNews) -> Frame) {
        let start = self.buffer.len();
        let before = self.entries.last().map_or(0, |last| last.frames);
        let frames = before + encode(news, frame, &mut self.buffer);
        let (count, len) = self.counts.entry(news.session).or_default();
        (*count, *len) = (*count + 1, *len + self.buffer.len() - start);
        self.entries.push(Entry { about: news.session, end: self.buffer.len(), frames });
    }

    /// Gathers the news of a node by action if it has had more than its share; `false` if it has not.
    fn gather(&mut self, news: &NodeNews, now: impl Fn(Accepts) -> Option<Accepts>) -> bool {
        if news.whole {
            // With the node itself, all its actions come or go.
            self.floods.remove(&news.session);
            return false;
        }
        let floods = self.floods.contains_key(&news.session)
            || self
                .counts
                .get(&news.session)
                .is_some_and(|(count, len)| *count >= NEWS_PER_NODE_MAX || *len >= NEWS_PER_NODE_LEN_MAX);
        if floods {
            let new = || Flood { node: news.node.clone(), actions: HashMap::default() };
            let flood = self.floods.entry(news.session).or_insert_with(new);
            flood
                .actions
                .extend(news.actions.iter().map(|(action, accepts)| (action.clone(), now(*accepts))));
        }
        floods
    }

    /// Notes a change for the newcomers.
    fn change(&mut self, news: &NodeNews, frame: fn(NodeNews) -> Frame, is_arrival: bool) {
        if let Some(everyone) = &mut self.everyone {
            everyone.add(news, frame, is_arrival);
            if everyone.changes_len > everyone.came_len + PIECE_LEN_MAX {
                self.everyone = None;
            }
        }
    }
}

impl Everyone {
    fn add(&mut self, news: &NodeNews, frame: fn(NodeNews) -> Frame, is_arrival: bool) {
        let start = self.last.len();
        self.last_frames += encode(news, frame, &mut self.last);
        let len = self.last.len() - start;
        *(if is_arrival { &mut self.came_len } else { &mut self.changes_len }) += len;
    }

    /// Makes a piece of the last frames, and joins pieces as digits carry in a number that is counted up: so there are few pieces, and no byte
    /// is copied often.
    fn join(&mut self) {
        if self.last.is_empty() {
            return;
        }
        let mut last = (std::mem::take(&mut self.last).freeze(), std::mem::take(&mut self.last_frames));
        while let Some((before, frames)) =
            self.pieces.pop_if(|(before, _)| before.len() < PIECE_LEN_MAX && before.len() <= 2 * last.0.len())
        {
            let mut joined = BytesMut::with_capacity(before.len() + last.0.len());
            joined.extend_from_slice(&before);
            joined.extend_from_slice(&last.0);
            last = (joined.freeze(), frames + last.1);
        }
        self.pieces.push(last);
    }
}

impl Gathered {
    /// The news for one branch: all but those that it knows and those about itself. Each piece with its number of frames. Costs a step for each
    /// of the news about the branch itself, and not for those of others.
    fn parts_for(&self, id: SessionId) -> Vec<(Bytes, usize)> {
        let known = self.joined.get(&id).copied().unwrap_or(0);
        let up_to = |count: usize| {
            count.checked_sub(1).map_or((0, 0), |last| (self.entries[last].end, self.entries[last].frames))
        };
        let mut parts = Vec::with_capacity(1);
        let mut part = |from: usize, to: usize| {
            let ((start, before), (end, frames)) = (up_to(from), up_to(to));
            if frames > before {
                parts.push((self.bytes.slice(start..end), frames - before));
            }
        };
        let mut from = known;
        for own in self.about.get(&id).into_iter().flatten().copied().filter(|own| *own >= known) {
            part(from, own);
            from = own + 1;
        }
        part(from, self.entries.len());
        parts
    }
}

/// Encodes the news of a node; gives the number of frames. A long list of actions takes several frames, of which only the first may be about
/// the whole node.
fn encode(news: &NodeNews, frame: fn(NodeNews) -> Frame, buffer: &mut BytesMut) -> usize {
    let lists = news.actions.chunks(ACTIONS_PER_FRAME_MAX);
    let lists = lists.chain(news.actions.is_empty().then_some(&[][..]));
    let mut frames = 0;
    for list in lists {
        let whole = news.whole && frames == 0;
        let (node, session) = (news.node.clone(), news.session);
        frame(NodeNews { node, session, whole, actions: list.to_vec() }).encode(buffer);
        frames += 1;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::known::ActionCache;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn news(session: u64, actions: usize) -> NodeNews {
        let actions = (0..actions)
            .map(|number| (ByteString::from(format!("{session}/{number}")), Accepts::MessagePack))
            .collect();
        NodeNews { node: format!("node-{session}").into(), session: SessionId(session), whole: true, actions }
    }

    /// The session that each frame is about, and the number of its actions.
    fn read(parts: impl IntoIterator<Item = (Bytes, usize)>) -> Vec<(u64, usize)> {
        let mut read = Vec::new();
        for (mut bytes, frames) in parts {
            for _ in 0..frames {
                let len = u32::from_le_bytes(bytes.split_to(4)[..].try_into().unwrap());
                let frame = Frame::decode(&bytes.split_to(len as usize)).unwrap();
                let (Frame::Online(news) | Frame::Offline(news)) = frame else { panic!("no news") };
                read.push((news.session.0, news.actions.len()));
            }
            assert!(bytes.is_empty(), "more frames than were counted");
        }
        read
    }

    fn parts_for(gathering: &mut News, id: u64) -> Vec<(Bytes, usize)> {
        let gathered = gathering.take();
        gathering.parts_for(&gathered, SessionId(id))
    }

    #[test]
    fn a_branch_hears_all_news_but_those_that_it_knows_and_those_about_itself() {
        let mut gathering = News::default();
        gathering.came(&news(1, 0));
        drop(gathering.join(SessionId(2), None, std::iter::empty()));
        gathering.came(&news(2, 1));
        gathering.came(&news(3, 0));
        gathering.went(&news(2, 0));
        gathering.came(&news(4, 2));
        let gathered = gathering.take();
        assert_eq!(
            read(gathering.parts_for(&gathered, SessionId(9))),
            [(1, 0), (2, 1), (3, 0), (2, 0), (4, 2)]
        );
        assert_eq!(read(gathering.parts_for(&gathered, SessionId(1))), [(2, 1), (3, 0), (2, 0), (4, 2)]);
        assert_eq!(read(gathering.parts_for(&gathered, SessionId(2))), [(3, 0), (4, 2)]);
        assert_eq!(read(gathering.parts_for(&gathered, SessionId(4))), [(1, 0), (2, 1), (3, 0), (2, 0)]);
        assert_eq!(read(parts_for(&mut gathering, 9)), []);
    }

    /// What a node knows that has read these frames.
    fn known(parts: impl IntoIterator<Item = (Bytes, usize)>) -> ActionCache {
        let mut cache = ActionCache::default();
        follow(&mut cache, parts);
        cache
    }

    fn follow(cache: &mut ActionCache, parts: impl IntoIterator<Item = (Bytes, usize)>) {
        for (mut bytes, frames) in parts {
            for _ in 0..frames {
                let len = u32::from_le_bytes(bytes.split_to(4)[..].try_into().unwrap());
                match Frame::decode(&bytes.split_to(len as usize)).unwrap() {
                    Frame::Online(news) => cache.online(&news),
                    Frame::Offline(news) => cache.offline(&news),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn the_news_of_all_nodes_stay_true_as_nodes_come_and_go() {
        let mut gathering = News::default();
        assert_eq!(read(gathering.join(SessionId(99_999), None, [news(0, 1)].into_iter())), [(0, 1)]);
        gathering.came(&news(1, 2));
        let asked = || std::iter::from_fn(|| panic!("it is known"));
        assert_eq!(read(gathering.join(SessionId(99_999), None, asked())), [(0, 1), (1, 2)]);
        gathering.went(&NodeNews { whole: false, ..news(1, 1) });
        gathering.came(&NodeNews { whole: false, ..news(0, 3) });
        let there = known(gathering.join(SessionId(99_999), None, asked()).collect::<Vec<_>>()).nodes();
        let lens: Vec<_> = there.iter().map(|node| (node.session.0, node.actions.len())).collect();
        assert_eq!(lens, [(0, 3), (1, 1)]);
        gathering.went(&news(1, 0));
        assert_eq!(
            known(gathering.join(SessionId(99_999), None, asked()).collect::<Vec<_>>()).nodes().len(),
            1
        );
    }

    /// One branch that offered and withdrew an action had the news of all nodes encoded anew for each newcomer.
    #[test]
    fn changes_cost_a_newcomer_no_more_than_the_nodes_that_are_there() {
        let mut gathering = News::default();
        let all: Vec<_> = (0..1_000).map(|session| news(session, 10)).collect();
        let mut built = 0;
        let len_of = |gathering: &mut News, built: &mut usize| {
            let there = all.iter().cloned().inspect(|_| *built += 1);
            let pieces: Vec<_> = gathering.join(SessionId(99_999), None, there).collect();
            pieces.iter().map(|(bytes, _)| bytes.len()).sum::<usize>()
        };
        let len = len_of(&mut gathering, &mut built);
        for _ in 0..10_000 {
            gathering.went(&NodeNews { whole: false, ..news(7, 1) });
            gathering.came(&NodeNews { whole: false, ..news(7, 1) });
            assert!(len_of(&mut gathering, &mut built) <= 2 * len + 2 * PIECE_LEN_MAX);
        }
        assert!(built <= 4 * all.len(), "{built} nodes were encoded for 10,000 newcomers");
    }

    #[test]
    fn a_node_that_changes_all_the_time_is_told_of_by_its_last_change() {
        let mut gathering = News::default();
        gathering.came(&news(1, 3));
        gathering.came(&news(2, 1));
        let mut cache = known(parts_for(&mut gathering, 9));
        let all = news(1, 3).actions;
        let one = |at: usize| NodeNews { whole: false, actions: vec![all[at].clone()], ..news(1, 0) };
        for _ in 0..100_000 {
            gathering.went(&one(0));
            gathering.came(&one(0));
            gathering.went(&one(1));
        }
        assert!(gathering.has_floods() && !gathering.is_flooded_by(SessionId(1)));
        gathering.went(&NodeNews { whole: false, ..news(2, 1) });
        let gathered = gathering.take();
        assert!(gathered.whole.bytes.len() < 100 * NEWS_PER_NODE_MAX, "{}", gathered.whole.bytes.len());
        follow(&mut cache, gathering.parts_for(&gathered, SessionId(9)));
        assert!(!cache.knows("2/0"), "another node is not held up");
        assert!(gathering.end_floods() < 200 && !gathering.has_floods());
        follow(&mut cache, parts_for(&mut gathering, 9));
        assert_eq!(cache.nodes()[0].actions, [all[0].clone(), all[2].clone()]);
        // A node that goes takes its changes along.
        (0..1_000).for_each(|_| gathering.went(&one(0)));
        gathering.went(&news(1, 0));
        assert!(!gathering.has_floods());
        follow(&mut cache, parts_for(&mut gathering, 9));
        assert_eq!(cache.nodes().len(), 1);
    }

    #[test]
    fn so_many_changes_as_a_node_may_have_actions_are_told_at_once() {
        let mut gathering = News::default();
        gathering.came(&news(1, 0));
        for round in 0..NEWS_PER_NODE_MAX + 2 * ACTIONS_PER_NODE_MAX / 1_000 + 1 {
            let actions = (0..1_000)
                .map(|number| (ByteString::from(format!("{round}/{number}")), Accepts::MessagePack))
                .collect();
            gathering.came(&NodeNews { whole: false, actions, ..news(1, 0) });
        }
        assert!(gathering.is_flooded_by(SessionId(1)));
    }

    #[test]
    fn the_news_of_all_nodes_are_shared_in_few_pieces() {
        let mut gathering = News::default();
        let all: Vec<_> = (0..2_000).map(|session| news(session, 1)).collect();
        let pieces: Vec<_> = gathering.join(SessionId(99_999), None, all.into_iter()).collect();
        let expected: Vec<_> = (0..2_000).map(|session| (session, 1)).collect();
        assert_eq!(read(pieces), expected);
        for newcomer in 2_000..4_000 {
            gathering.came(&news(newcomer, 1));
            let asked = std::iter::from_fn(|| panic!("it is known"));
            let pieces: Vec<_> = gathering.join(SessionId(99_999), None, asked).collect();
            assert!(pieces.len() < 20, "{} pieces", pieces.len());
            assert_eq!(pieces.iter().map(|(_, frames)| frames).sum::<usize>() as u64, newcomer + 1);
        }
        let expected: Vec<_> = (0..4_000).map(|session| (session, 1)).collect();
        let asked = std::iter::from_fn(|| panic!("it is known"));
        assert_eq!(read(gathering.join(SessionId(99_999), None, asked).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn a_long_list_of_actions_travels_as_several_frames() {
        let mut gathering = News::default();
        gathering.came(&news(1, ACTIONS_PER_FRAME_MAX * 2 + 1));
        let all = read(parts_for(&mut gathering, 2));
        assert_eq!(all, [(1, ACTIONS_PER_FRAME_MAX), (1, ACTIONS_PER_FRAME_MAX), (1, 1)]);
    }

    fn seen(pattern: &'static str) -> Vec<Pattern> {
        vec![Pattern::new(pattern).unwrap()]
    }

    #[test]
    fn a_branch_hears_only_of_what_it_may_see() {
        let mut gathering = News::default();
        let seen = seen("1/*");
        let there = [news(1, 2), news(2, 2)].into_iter();
        assert_eq!(read(gathering.join(SessionId(9), Some(&seen), there).collect::<Vec<_>>()), [(1, 2)]);
        gathering.came(&news(3, 1));
        gathering.came(&NodeNews { whole: false, ..news(2, 3) });
        gathering.went(&news(3, 0));
        gathering.went(&NodeNews { whole: false, ..news(1, 1) });
        gathering.went(&news(1, 0));
        gathering.went(&news(1, 0));
        let gathered = gathering.take();
        assert_eq!(
            read(gathering.parts_for(&gathered, SessionId(9))),
            [(1, 1), (1, 0)],
            "and it is gone once"
        );
        assert_eq!(read(gathering.parts_for(&gathered, SessionId(8))).len(), 6);
    }

    #[test]
    fn a_node_that_shows_itself_later_comes_whole() {
        let mut gathering = News::default();
        let seen = seen("1/*");
        drop(gathering.join(SessionId(9), Some(&seen), std::iter::empty()));
        gathering.came(&NodeNews { whole: false, ..news(1, 1) });
        let (mut bytes, _) = parts_for(&mut gathering, 9).remove(0);
        let _ = bytes.split_to(4);
        assert!(matches!(Frame::decode(&bytes), Ok(Frame::Online(NodeNews { whole: true, .. }))));
    }

    #[test]
    fn branches_that_may_see_the_same_share_a_feed_which_goes_with_the_last_of_them() {
        let mut gathering = News::default();
        for id in 1..=3 {
            drop(gathering.join(SessionId(id), Some(&seen("1/*")), [news(1, 1)].into_iter()));
        }
        drop(gathering.join(SessionId(4), Some(&seen("2/*")), std::iter::empty()));
        assert_eq!(gathering.narrow.len(), 2);
        (1..=3).for_each(|id| gathering.leave(SessionId(id)));
        assert_eq!((gathering.narrow.len(), gathering.narrowed.len()), (1, 1));
        gathering.leave(SessionId(4));
        gathering.leave(SessionId(4));
        assert!(gathering.narrow.is_empty() && gathering.narrowed.is_empty());
    }

    /// What happens in a mesh of four nodes and a few branches that hear of them.
    #[derive(Clone, Debug)]
    enum Op {
        /// A node comes with these actions, or offers them too.
        Offer(u64, Vec<u8>),
        Withdraw(u64, Vec<u8>),
        Leave(u64),
        /// A branch joins that may see the actions of this feed.
        Join(usize),
        Tell,
    }

    fn op() -> impl Strategy<Value = Op> {
        let actions = || prop::collection::vec(0..4_u8, 0..4);
        prop_oneof![
            3 => (0..4_u64, actions()).prop_map(|(node, actions)| Op::Offer(node, actions)),
            2 => (0..4_u64, actions()).prop_map(|(node, actions)| Op::Withdraw(node, actions)),
            1 => (0..4_u64).prop_map(Op::Leave),
            2 => (0..3_usize).prop_map(Op::Join),
            2 => Just(Op::Tell),
        ]
    }

    /// A branch, with what it knows of each node.
    struct Heard {
        id: SessionId,
        seen: Option<Vec<Pattern>>,
        known: BTreeMap<u64, BTreeSet<ByteString>>,
    }

    impl Heard {
        fn hear(&mut self, parts: impl IntoIterator<Item = (Bytes, usize)>) {
            for (mut bytes, _) in parts {
                while !bytes.is_empty() {
                    let len = u32::from_le_bytes(bytes.split_to(4)[..].try_into().unwrap());
                    let frame = Frame::decode(&bytes.split_to(len as usize)).unwrap();
                    let (came, news) = match frame {
                        Frame::Online(news) => (true, news),
                        Frame::Offline(news) => (false, news),
                        other => panic!("no news: {other:?}"),
                    };
                    let actions: Vec<_> = news.actions.into_iter().map(|(action, _)| action).collect();
                    assert!(actions.iter().all(|action| self.sees(action)), "{actions:?}");
                    if news.whole {
                        self.known.remove(&news.session.0);
                    }
                    match came {
                        true => self.known.entry(news.session.0).or_default().extend(actions),
                        false if news.whole => {}
                        false => {
                            let known = self.known.entry(news.session.0).or_default();
                            actions.iter().for_each(|action| _ = known.remove(action));
                        }
                    }
                }
            }
        }

        fn sees(&self, action: &str) -> bool {
            self.seen.as_ref().is_none_or(|seen| seen.iter().any(|pattern| pattern.matches(action)))
        }
    }

    proptest! {
        #[test]
        fn each_branch_knows_what_it_may_see_of_the_nodes_that_are_there(ops in prop::collection::vec(op(), 1..60)) {
            let name = |number: &u8| ByteString::from(format!("{}/{number}", number % 2));
            let feeds = [None, Some(vec![Pattern::new("0/*").unwrap()]), Some(vec![Pattern::new("1/1").unwrap()])];
            let mut gathering = News::default();
            let mut nodes: BTreeMap<u64, BTreeSet<ByteString>> = BTreeMap::new();
            let mut branches: Vec<Heard> = Vec::new();
            let news = |node: u64, whole, actions: &BTreeSet<ByteString>| NodeNews {
                node: format!("node-{node}").into(),
                session: SessionId(node),
                whole,
                actions: actions.iter().map(|action| (action.clone(), Accepts::MessagePack)).collect(),
            };
            for op in ops.into_iter().chain([Op::Tell]) {
                match op {
                    Op::Offer(node, actions) => {
                        let whole = !nodes.contains_key(&node);
                        let there = nodes.entry(node).or_default();
                        let new: BTreeSet<_> = actions.iter().map(name).filter(|one| !there.contains(one)).collect();
                        there.extend(new.iter().cloned());
                        gathering.came(&news(node, whole, &new));
                    }
                    Op::Withdraw(node, actions) => {
                        let Some(there) = nodes.get_mut(&node) else { continue };
                        let gone: BTreeSet<_> = actions.iter().map(name).filter(|one| there.remove(one)).collect();
                        gathering.went(&news(node, false, &gone));
                    }
                    Op::Leave(node) => {
                        if nodes.remove(&node).is_some() {
                            gathering.went(&news(node, true, &BTreeSet::new()));
                        }
                    }
                    Op::Join(feed) => {
                        let id = SessionId(100 + branches.len() as u64);
                        let mut heard = Heard { id, seen: feeds[feed].clone(), known: BTreeMap::new() };
                        let there = nodes.iter().map(|(node, actions)| news(*node, true, actions));
                        heard.hear(gathering.join(id, feeds[feed].as_deref(), there));
                        branches.push(heard);
                    }
                    Op::Tell => {
                        let gathered = gathering.take();
                        for branch in &mut branches {
                            branch.hear(gathering.parts_for(&gathered, branch.id));
                        }
                    }
                }
            }
            for branch in &branches {
                let shown = |nodes: &BTreeMap<u64, BTreeSet<ByteString>>| -> BTreeMap<u64, BTreeSet<ByteString>> {
                    let seen = nodes.iter().map(|(node, actions)| {
                        (*node, actions.iter().filter(|action| branch.sees(action)).cloned().collect::<BTreeSet<_>>())
                    });
                    seen.filter(|(_, actions)| !actions.is_empty() || branch.seen.is_none()).collect()
                };
                prop_assert_eq!(shown(&branch.known), shown(&nodes));
                prop_assert!(branch.known.keys().all(|node| nodes.contains_key(node)), "a node that is gone stays known");
            }
        }
    }
}

//! The news of nodes that came and went, as encoded frames for the branches. News gather for a moment, so that many branches that bind at
//! once cost each other branch one write and not one for each newcomer. The news of all nodes, which a newcomer is told, are kept as
//! bytes, so that they are not encoded again for each newcomer. The registry decides when; this file knows no clock and no outbox.

use crate::hashed::{HashMap, HashSet};
use bytes::{Bytes, BytesMut};
use meshwork_wire::limits::ACTIONS_PER_FRAME_MAX;
use meshwork_wire::{Frame, NodeNews, SessionId};

/// The news that no branch was told yet, and the news of all nodes.
#[derive(Default)]
pub(crate) struct News {
    /// The frames of `entries`.
    buffer: BytesMut,
    entries: Vec<Entry>,
    /// The sessions that joined since the news were last taken, each with the number of entries that it knows.
    joined: HashMap<SessionId, usize>,
    /// None if the news of all nodes must be encoded anew.
    everyone: Option<Everyone>,
}

/// One change of a node: its session, and the end of its frames in the buffer.
struct Entry {
    about: SessionId,
    end: usize,
    frames: usize,
}

/// The news of all nodes, in pieces of bytes that the outboxes of newcomers share.
#[derive(Default)]
struct Everyone {
    /// Each piece with its number of frames.
    pieces: Vec<(Bytes, usize)>,
    /// The frames of nodes that came since a newcomer was last told.
    last: BytesMut,
    last_frames: usize,
}

/// Pieces of this length are not joined any more.
const PIECE_LEN_MAX: usize = 256 * 1024;

/// The news that have gathered, taken out for the branches.
pub(crate) struct GatheredNews {
    bytes: Bytes,
    entries: Vec<Entry>,
    joined: HashMap<SessionId, usize>,
    /// The sessions that the news are about.
    about: HashSet<SessionId>,
}

impl News {
    /// Adds the news of a node that came, or offers more actions.
    pub(crate) fn came(&mut self, news: &NodeNews) {
        self.add(news, Frame::Online);
        match &mut self.everyone {
            Some(everyone) if news.whole => everyone.add(news),
            _ => self.everyone = None,
        }
    }

    /// Adds the news of a node that went, or offers fewer actions.
    pub(crate) fn went(&mut self, news: &NodeNews) {
        self.add(news, Frame::Offline);
        self.everyone = None;
    }

    /// Notes that a newcomer was told of all nodes: it knows the news that have gathered so far.
    pub(crate) fn joined(&mut self, id: SessionId) {
        self.joined.insert(id, self.entries.len());
    }

    /// The news of all nodes as encoded frames, each piece with its number of frames. `there` is read only if a node has gone, or has changed
    /// its actions, since the last time.
    pub(crate) fn everyone(
        &mut self,
        there: impl Iterator<Item = NodeNews>,
    ) -> impl Iterator<Item = (Bytes, usize)> + '_ {
        let everyone = self.everyone.get_or_insert_with(|| {
            let mut everyone = Everyone::default();
            there.for_each(|news| everyone.add(&news));
            everyone
        });
        everyone.join();
        everyone.pieces.iter().cloned()
    }

    /// Takes the news that have gathered.
    pub(crate) fn take(&mut self) -> GatheredNews {
        let entries = std::mem::take(&mut self.entries);
        GatheredNews {
            bytes: self.buffer.split().freeze(),
            about: entries.iter().map(|entry| entry.about).collect(),
            entries,
            joined: std::mem::take(&mut self.joined),
        }
    }

    fn add(&mut self, news: &NodeNews, frame: fn(NodeNews) -> Frame) {
        let frames = encode(news, frame, &mut self.buffer);
        self.entries.push(Entry { about: news.session, end: self.buffer.len(), frames });
    }
}

impl Everyone {
    fn add(&mut self, news: &NodeNews) {
        self.last_frames += encode(news, Frame::Online, &mut self.last);
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

impl GatheredNews {
    /// The news for one branch: all but those that it knows and those about itself. Each piece with its number of frames.
    pub(crate) fn parts_for(&self, id: SessionId) -> Vec<(Bytes, usize)> {
        let known = self.joined.get(&id).copied().unwrap_or(0);
        let unknown = &self.entries[known..];
        let mut start = known.checked_sub(1).map_or(0, |before| self.entries[before].end);
        let mut parts = Vec::with_capacity(1);
        if !self.about.contains(&id) {
            let frames = unknown.iter().map(|entry| entry.frames).sum();
            parts.push((self.bytes.slice(start..), frames));
        } else {
            let (mut end, mut frames) = (start, 0);
            for entry in unknown {
                if entry.about == id {
                    parts.push((self.bytes.slice(start..end), frames));
                    (start, frames) = (entry.end, 0);
                } else {
                    frames += entry.frames;
                }
                end = entry.end;
            }
            parts.push((self.bytes.slice(start..end), frames));
        }
        parts.retain(|(_, frames)| *frames > 0);
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
    use meshwork_wire::{Accepts, ByteString};

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

    #[test]
    fn a_branch_hears_all_news_but_those_that_it_knows_and_those_about_itself() {
        let mut gathering = News::default();
        gathering.came(&news(1, 0));
        gathering.joined(SessionId(2));
        gathering.came(&news(2, 1));
        gathering.came(&news(3, 0));
        gathering.went(&news(2, 0));
        gathering.came(&news(4, 2));
        let gathered = gathering.take();
        assert_eq!(read(gathered.parts_for(SessionId(9))), [(1, 0), (2, 1), (3, 0), (2, 0), (4, 2)]);
        assert_eq!(read(gathered.parts_for(SessionId(1))), [(2, 1), (3, 0), (2, 0), (4, 2)]);
        assert_eq!(read(gathered.parts_for(SessionId(2))), [(3, 0), (4, 2)]);
        assert_eq!(read(gathered.parts_for(SessionId(4))), [(1, 0), (2, 1), (3, 0), (2, 0)]);
        assert_eq!(read(gathering.take().parts_for(SessionId(9))), []);
    }

    #[test]
    fn the_news_of_all_nodes_stay_true_as_nodes_come_and_go() {
        let mut gathering = News::default();
        assert_eq!(read(gathering.everyone([news(0, 1)].into_iter())), [(0, 1)]);
        gathering.came(&news(1, 2));
        let asked = std::iter::from_fn(|| panic!("it is known"));
        assert_eq!(read(gathering.everyone(asked)), [(0, 1), (1, 2)]);
        gathering.went(&news(1, 0));
        assert_eq!(read(gathering.everyone([news(0, 1)].into_iter())), [(0, 1)]);
        gathering.came(&NodeNews { whole: false, ..news(0, 3) });
        assert_eq!(read(gathering.everyone([news(0, 4)].into_iter())), [(0, 4)]);
    }

    #[test]
    fn the_news_of_all_nodes_are_shared_in_few_pieces() {
        let mut gathering = News::default();
        let all: Vec<_> = (0..2_000).map(|session| news(session, 1)).collect();
        let pieces: Vec<_> = gathering.everyone(all.into_iter()).collect();
        let expected: Vec<_> = (0..2_000).map(|session| (session, 1)).collect();
        assert_eq!(read(pieces), expected);
        for newcomer in 2_000..4_000 {
            gathering.came(&news(newcomer, 1));
            let asked = std::iter::from_fn(|| panic!("it is known"));
            let pieces: Vec<_> = gathering.everyone(asked).collect();
            assert!(pieces.len() < 20, "{} pieces", pieces.len());
            assert_eq!(pieces.iter().map(|(_, frames)| frames).sum::<usize>() as u64, newcomer + 1);
        }
        let expected: Vec<_> = (0..4_000).map(|session| (session, 1)).collect();
        let asked = std::iter::from_fn(|| panic!("it is known"));
        assert_eq!(read(gathering.everyone(asked).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn a_long_list_of_actions_travels_as_several_frames() {
        let mut gathering = News::default();
        gathering.came(&news(1, ACTIONS_PER_FRAME_MAX * 2 + 1));
        let all = read(gathering.take().parts_for(SessionId(2)));
        assert_eq!(all, [(1, ACTIONS_PER_FRAME_MAX), (1, ACTIONS_PER_FRAME_MAX), (1, 1)]);
    }
}

//! Bytes into blocks of whole frames, and blocks into frames. A reader hands on one [`Block`] for each read, not one message for
//! each frame, which keeps the cost of a frame low under load.

use crate::frame::{BlockPayload, Frame, FrameError, KeptHead, Next, PUBLISH, read_next};
use crate::id::CallbackId;
use crate::limits::{
    BIND_FRAME_LEN_MAX, BLOCK_FRAMES_MAX, LENGTH_PREFIX_LEN, READ_BUFFER_LEN_MAX, READ_BUFFER_LEN_SHORT,
    READ_BUFFER_LEN_START, READ_BUFFERS_LEN_MAX,
};
use bytes::{Buf, Bytes, BytesMut};
use std::cell::Cell;
use std::ops::Range;
use tokio_util::codec::{Decoder, Encoder};

/// Cuts a byte stream into [`Block`]s and writes [`Frame`]s.
#[derive(Debug)]
pub struct FrameCodec {
    frame_len_max: usize,
    /// How many bytes the next read takes at most.
    read_len: usize,
    /// Whether a read came since the buffer got room for one.
    has_read: bool,
}

/// One or more whole frames of one read. Their lengths have been checked; the frames have not been read.
#[derive(Clone, Debug)]
pub struct Block {
    bytes: Bytes,
    count: usize,
}

/// The frames of a [`Block`], read one by one: by the actors with [`Frames::read_next`], which copies and shares least, else as an
/// iterator of [`Frame`]s. Both end after the first frame that cannot be read.
#[derive(Debug)]
pub struct Frames {
    block: Bytes,
    at: usize,
    left: usize,
    /// The head of the last request or event: consecutive requests are for one action more often than not, consecutive events of one
    /// topic.
    kept: Option<KeptHead>,
}

impl FrameCodec {
    /// For a connection that is not bound yet: its frames may be [`BIND_FRAME_LEN_MAX`] bytes long.
    #[must_use]
    pub fn unbound() -> Self {
        Self::new(BIND_FRAME_LEN_MAX)
    }

    /// For frames of at most `frame_len_max` bytes, the length prefix not counted.
    #[must_use]
    pub fn new(frame_len_max: usize) -> Self {
        Self { frame_len_max, read_len: READ_BUFFER_LEN_START, has_read: false }
    }

    /// Adapts the length of the next read. A read that filled the buffer doubles the length, since more bytes wait; a read that filled
    /// less than a quarter halves it, so that a connection which falls idle soon keeps little memory.
    fn follow_load(&mut self, come: usize) {
        let before = self.read_len;
        if come >= self.read_len {
            // Where only short frames are read, as before a bind, a long buffer would be of no use but to its sender.
            self.read_len = (self.read_len * 2).min((self.frame_len_max / 4).max(READ_BUFFER_LEN_START));
        } else if come < self.read_len / 4 {
            self.read_len = (self.read_len / 2).max(READ_BUFFER_LEN_START);
        }
        if self.read_len > READ_BUFFER_LEN_SHORT || before > READ_BUFFER_LEN_SHORT {
            self.share_out(before);
        }
    }

    /// Bounds the length of the next read by the share of this connection: all long buffers of a thread together are to stay in the cache of its
    /// processor.
    fn share_out(&mut self, before: usize) {
        let is_long = |len| usize::from(len > READ_BUFFER_LEN_SHORT);
        LONG_BUFFERS.with(|count| {
            let others = count.get().saturating_sub(is_long(before));
            let share =
                (READ_BUFFERS_LEN_MAX / (others + 1)).clamp(READ_BUFFER_LEN_SHORT + 1, READ_BUFFER_LEN_MAX);
            self.read_len = self.read_len.min(share);
            count.set(others + is_long(self.read_len));
        });
    }

    /// Allows longer or shorter frames from now on.
    pub fn set_frame_len_max(&mut self, frame_len_max: usize) {
        self.frame_len_max = frame_len_max;
    }
}

thread_local! {
    /// How many connections of this thread read more than [`READ_BUFFER_LEN_SHORT`] at once.
    static LONG_BUFFERS: Cell<usize> = const { Cell::new(0) };
}

impl Drop for FrameCodec {
    fn drop(&mut self) {
        if self.read_len > READ_BUFFER_LEN_SHORT {
            // The thread may be ending.
            let _ = LONG_BUFFERS.try_with(|count| count.set(count.get().saturating_sub(1)));
        }
    }
}

impl Decoder for FrameCodec {
    type Item = Block;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        if std::mem::take(&mut self.has_read) {
            self.follow_load(buffer.len());
        }
        let (mut whole, mut count) = (0, 0);
        loop {
            // The frames left over are the next block: the decoder is asked again before anything is read.
            if count == BLOCK_FRAMES_MAX {
                break;
            }
            let rest = &buffer[whole..];
            let Some(prefix) = rest.first_chunk::<LENGTH_PREFIX_LEN>() else {
                break;
            };
            let claimed = u32::from_le_bytes(*prefix) as usize;
            if claimed > self.frame_len_max {
                if whole > 0 {
                    // The frames before the long one are well-formed and come first. The next call finds the long frame at the start.
                    break;
                }
                return Err(FrameError::TooLong { claimed, max: self.frame_len_max });
            }
            let len = LENGTH_PREFIX_LEN + claimed;
            // A long frame is a block of its own, so that no short frame which is kept keeps its buffer.
            if rest.len() < len || (len > READ_BUFFER_LEN_MAX && count > 0) {
                break;
            }
            whole += len;
            count += 1;
            if len > READ_BUFFER_LEN_MAX {
                break;
            }
        }
        if whole > 0 {
            let bytes = buffer.split_to(whole).freeze();
            if whole > READ_BUFFER_LEN_MAX {
                // The bytes behind it, which are of one read, go on in a buffer of their own.
                *buffer = BytesMut::from(&buffer[..]);
            }
            return Ok(Some(Block { bytes, count }));
        }
        // Room for one read, however long the next frame claims to be: a claimed length alone takes no memory.
        if buffer.is_empty() && buffer.capacity() > 2 * self.read_len {
            // A burst made the buffer long. A connection that falls idle gives it back.
            *buffer = BytesMut::with_capacity(self.read_len);
        }
        buffer.reserve(self.read_len);
        self.has_read = true;
        Ok(None)
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Block>, FrameError> {
        match self.decode(buffer)? {
            Some(block) => Ok(Some(block)),
            None if buffer.is_empty() => Ok(None),
            None => Err(FrameError::Cut),
        }
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: &Frame, buffer: &mut BytesMut) -> Result<(), FrameError> {
        frame.encode(buffer);
        Ok(())
    }
}

impl Block {
    /// The frames of the block, to be read.
    #[must_use]
    pub fn frames(self) -> Frames {
        Frames { block: self.bytes, at: 0, left: self.count, kept: None }
    }

    /// Leaves the first `count` frames in this block, and gives a block of the rest; none if there is no rest.
    #[must_use]
    pub fn split_off(&mut self, count: usize) -> Option<Self> {
        if count == 0 || count >= self.count {
            return None;
        }
        let mut whole = 0;
        for _ in 0..count {
            // The decoder has checked the lengths, but a block may be of another origin.
            let prefix = self.bytes.get(whole..)?.first_chunk::<LENGTH_PREFIX_LEN>()?;
            whole += LENGTH_PREFIX_LEN + u32::from_le_bytes(*prefix) as usize;
        }
        if whole > self.bytes.len() {
            return None;
        }
        let rest = Self { bytes: self.bytes.split_off(whole), count: self.count - count };
        self.count = count;
        Some(rest)
    }

    /// Whether the first frame is an event.
    #[must_use]
    pub fn is_of_events(&self) -> bool {
        self.bytes.get(LENGTH_PREFIX_LEN) == Some(&PUBLISH)
    }

    /// How many bytes the block has, prefixes counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many frames the block has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether the block is one frame without fields, as a heartbeat is.
    #[must_use]
    pub fn is_beat(&self) -> bool {
        self.count == 1 && self.bytes.len() == LENGTH_PREFIX_LEN + 1
    }

    /// Whether the block has no frames. A decoder makes no empty blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Frames {
    /// Reads the next frame. The head of a request, a reply or an event is read byte by byte, at a fifth of the cost of serde.
    #[inline]
    pub fn read_next(&mut self) -> Option<Next<'_>> {
        let Some(part) = self.part() else {
            return self.cut().map(Next::Broken);
        };
        self.at = part.end;
        self.left = self.left.saturating_sub(1);
        if let Some(next) = read_next(&self.block, part.clone(), &mut self.kept, self.left == 0) {
            return Some(next);
        }
        // The head is not kept, so no run begins with this frame.
        self.kept = None;
        Some(match Frame::decode_unusual(&self.block, part) {
            Ok(Frame::Request(request)) => Next::Request(request),
            Ok(Frame::Publish(event)) => Next::Event(event),
            Ok(frame) => Next::Other(frame),
            Err(error) => {
                self.at = self.block.len();
                Next::Broken(error)
            }
        })
    }

    /// Reads the next frame if it is a request of the run: its head is that of the last request of [`Frames::read_next`], but for
    /// the id, and nothing but replies came between.
    #[inline]
    pub fn next_request_of_run(&mut self) -> Option<(CallbackId, BlockPayload<'_>)> {
        let kept = self.kept.as_ref()?;
        let part = self.part()?;
        let end = part.end;
        let request = kept.request_of_run(&self.block, part)?;
        self.at = end;
        self.left = self.left.saturating_sub(1);
        Some(request)
    }

    /// Reads the next frame if it is an event of the run: its head is that of the last event of [`Frames::read_next`], and nothing
    /// but replies came between.
    #[inline]
    pub fn next_event_of_run(&mut self) -> Option<BlockPayload<'_>> {
        let kept = self.kept.as_ref()?;
        let part = self.part()?;
        let end = part.end;
        let payload = kept.event_of_run(&self.block, part)?;
        self.at = end;
        self.left = self.left.saturating_sub(1);
        Some(payload)
    }

    /// How many frames are left: as many as the decoder counted, less the frames that were read.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// The place of the next frame, without its length prefix. None at the end, or if the frame is cut: the decoder has checked the
    /// lengths, but a block may be of another origin.
    #[inline]
    fn part(&self) -> Option<Range<usize>> {
        let rest = &self.block[self.at..];
        let len = u32::from_le_bytes(*rest.first_chunk::<LENGTH_PREFIX_LEN>()?) as usize;
        let start = self.at + LENGTH_PREFIX_LEN;
        (rest.len() - LENGTH_PREFIX_LEN >= len).then_some(start..start + len)
    }

    /// Ends the block, which has no whole frame left; says whether bytes of one are.
    #[cold]
    fn cut(&mut self) -> Option<FrameError> {
        let at = std::mem::replace(&mut self.at, self.block.len());
        (at < self.block.len()).then_some(FrameError::Cut)
    }

    /// The frames that have not been read yet.
    #[must_use]
    pub fn rest(mut self) -> Option<Block> {
        self.block.advance(self.at);
        if self.block.is_empty() { None } else { Some(Block { bytes: self.block, count: self.left }) }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_next().map(Next::into_frame)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ByteString, CallError, Code, Encoding, Fate, Headers, Payload, Publish, Request, Response};

    /// A hundred connections of a thread once read 25 MiB in turn, and none of it stayed in the cache.
    #[test]
    fn many_busy_connections_of_a_thread_share_what_they_read_at_once() {
        let mut codecs: Vec<_> = (0..100).map(|_| FrameCodec::unbound()).collect();
        let mut follow = |range: std::ops::Range<usize>, come: Option<usize>| {
            for codec in &mut codecs[range] {
                (0..20).for_each(|_| codec.follow_load(come.unwrap_or(codec.read_len)));
            }
            codecs.iter().map(|codec| codec.read_len).collect::<Vec<_>>()
        };
        assert_eq!(follow(0..10, None)[..10], [READ_BUFFER_LEN_MAX; 10]);
        follow(10..100, None);
        // Those that were there first give way with their next reads.
        let all: usize = follow(0..100, None).iter().sum();
        assert!((READ_BUFFERS_LEN_MAX / 2..=READ_BUFFERS_LEN_MAX).contains(&all), "{all}");
        // Those that fall idle leave their share to the others.
        assert_eq!(follow(10..100, Some(0))[10..], [READ_BUFFER_LEN_START; 90]);
        assert_eq!(follow(0..10, None)[..10], [READ_BUFFER_LEN_MAX; 10]);
        drop(codecs);
        assert_eq!(LONG_BUFFERS.get(), 0, "and so do those that end");
    }

    /// A short payload that was kept kept the buffer of the long frame before it.
    #[test]
    fn a_long_frame_is_a_block_of_its_own_and_leaves_no_buffer_to_the_next() {
        let mut buffer = BytesMut::new();
        Frame::Ping.encode(&mut buffer);
        let long = (READ_BUFFER_LEN_MAX as u32).to_le_bytes();
        buffer.extend_from_slice(&long);
        buffer.resize(buffer.len() + READ_BUFFER_LEN_MAX, 0);
        Frame::Ping.encode(&mut buffer);
        let mut codec = FrameCodec::new(2 * READ_BUFFER_LEN_MAX);
        let mut lens = Vec::new();
        while let Some(block) = codec.decode(&mut buffer).unwrap() {
            lens.push(block.len());
        }
        let short = lens[0];
        assert_eq!(lens, [short, LENGTH_PREFIX_LEN + READ_BUFFER_LEN_MAX, short]);
        assert!(buffer.capacity() < READ_BUFFER_LEN_MAX, "{}", buffer.capacity());
    }

    /// How many frames each block of a read has.
    fn blocks(frames: usize) -> Vec<usize> {
        blocks_of(&Frame::Ping, frames)
    }

    fn blocks_of(frame: &Frame, frames: usize) -> Vec<usize> {
        let mut buffer = BytesMut::new();
        (0..frames).for_each(|_| frame.encode(&mut buffer));
        let mut codec = FrameCodec::unbound();
        std::iter::from_fn(|| codec.decode(&mut buffer).unwrap().map(|block| block.frames().count()))
            .collect()
    }

    fn request(id: u64, action: &'static str, functions: u64) -> Frame {
        let (node, caller) = (ByteString::new(), ByteString::new());
        let payload = Payload {
            callbacks: (0..functions).map(CallbackId).collect(),
            ..Payload::new(Encoding::Bincode, vec![id as u8])
        };
        let (callback_id, action) = (CallbackId(id), ByteString::from_static(action));
        Frame::Request(Request {
            callback_id,
            action,
            node,
            caller,
            time_left: None,
            hops: 0,
            headers: Headers::none(),
            payload,
        })
    }

    fn event(topic: &'static str, groups: &[&'static str]) -> Frame {
        let groups = groups.iter().copied().map(ByteString::from_static).collect();
        let (topic, publisher) = (ByteString::from_static(topic), ByteString::new());
        Frame::Publish(Publish {
            topic,
            publisher,
            for_all: true,
            groups,
            headers: Headers::none(),
            payload: Payload::default(),
        })
    }

    fn reply(id: u64) -> Frame {
        Frame::Response(Response { callback_id: CallbackId(id), outcome: Ok(Payload::default()) })
    }

    fn frames(frames: &[Frame]) -> Frames {
        let mut buffer = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut buffer));
        FrameCodec::unbound().decode(&mut buffer).unwrap().unwrap().frames()
    }

    /// The lengths of the runs: a frame that [`Frames::read_next`] reads, and the frames of its run.
    fn runs(mut frames: Frames) -> Vec<usize> {
        let mut runs = Vec::new();
        while frames.read_next().is_some() {
            let mut len = 1;
            while frames.next_request_of_run().is_some() || frames.next_event_of_run().is_some() {
                len += 1;
            }
            runs.push(len);
        }
        runs
    }

    #[test]
    fn requests_that_differ_in_id_and_payload_only_are_a_run() {
        let requests = |actions: &[&'static str]| {
            let requests = actions.iter().zip(0..).map(|(action, id)| request(id, action, 0));
            frames(&requests.collect::<Vec<_>>())
        };
        assert_eq!(runs(requests(&["a"])), [1]);
        assert_eq!(runs(requests(&["a", "a", "a", "b", "a", "a"])), [3, 1, 2]);
        let mut run = requests(&["a", "a"]);
        let first = run.read_next();
        assert!(matches!(first, Some(Next::Request(request)) if request.callback_id == CallbackId(0)));
        let (callback_id, payload) = run.next_request_of_run().unwrap();
        assert_eq!((callback_id, payload.by_ref().bytes), (CallbackId(1), &[1][..]));
        assert_eq!(run.left(), 0);
        assert!(run.read_next().is_none());
    }

    #[test]
    fn events_of_one_topic_are_a_run() {
        let events = frames(&[event("t", &[]), event("t", &[]), event("u", &[]), event("u", &[])]);
        assert_eq!(runs(events), [2, 2]);
    }

    #[test]
    fn a_run_ends_with_a_frame_that_may_change_what_its_requests_mean() {
        let (first, second) = (request(1, "a", 0), request(2, "a", 0));
        for between in [request(3, "a", 1), event("a", &[]), event("a", &["g"]), Frame::Ping] {
            let mut frames = frames(&[first.clone(), between.clone(), second.clone()]);
            assert!(matches!(frames.read_next(), Some(Next::Request(_))));
            assert!(frames.next_request_of_run().is_none(), "{between:?} is not of the run");
            assert!(frames.read_next().is_some());
            assert!(frames.next_request_of_run().is_none(), "{between:?} ended the run");
            assert!(matches!(frames.read_next(), Some(Next::Request(_))));
        }
        assert_eq!(runs(frames(&[event("t", &["g"]), event("t", &[]), event("t", &[])])), [1, 2]);
    }

    #[test]
    fn each_frame_is_read_as_what_it_is() {
        let error = CallError::new(Code::OVERLOADED, Fate::NotSent, "full");
        let refused = Frame::Response(Response { callback_id: CallbackId(4), outcome: Err(error) });
        let all =
            [request(1, "a", 0), request(2, "a", 2), reply(3), refused, event("t", &["g"]), Frame::Drain];
        let mut frames = frames(&all);
        assert!(matches!(frames.read_next(), Some(Next::Request(_))));
        assert!(
            matches!(frames.read_next(), Some(Next::Request(request)) if request.payload.callbacks.len() == 2)
        );
        assert!(matches!(frames.read_next(), Some(Next::Reply { callback_id: CallbackId(3), .. })));
        assert!(matches!(frames.read_next(), Some(Next::Other(Frame::Response(_)))));
        assert!(matches!(frames.read_next(), Some(Next::Event(event)) if event.groups.len() == 1));
        assert!(matches!(frames.read_next(), Some(Next::Other(Frame::Drain))));
        assert!(frames.read_next().is_none());
    }

    #[test]
    fn nothing_is_read_behind_bytes_that_are_no_frame() {
        let bytes = [&[1, 0, 0, 0, 19][..], &[1, 0, 0, 0, 99], &[1, 0, 0, 0, 19]].concat();
        let mut frames = Block { bytes: bytes.into(), count: 3 }.frames();
        assert!(matches!(frames.read_next(), Some(Next::Other(Frame::Pong))));
        assert!(matches!(frames.read_next(), Some(Next::Broken(FrameError::Malformed(_)))));
        assert!(frames.read_next().is_none());
        let mut cut = Block { bytes: Bytes::from_static(&[9, 0, 0]), count: 1 }.frames();
        assert!(matches!(cut.read_next(), Some(Next::Broken(FrameError::Cut))));
        assert!(cut.read_next().is_none());
    }

    #[test]
    fn a_read_of_many_frames_is_several_blocks() {
        assert_eq!(blocks(23), [23]);
        assert_eq!(blocks(1_100), [512, 512, 76]);
        for frames in 0..600 {
            assert_eq!(blocks(frames).iter().sum::<usize>(), frames);
        }
    }

    #[test]
    fn a_block_is_split_where_it_is_asked_for_and_keeps_its_frames() {
        let block = || {
            let mut buffer = BytesMut::new();
            (0..9).for_each(|id| reply(id).encode(&mut buffer));
            FrameCodec::unbound().decode(&mut buffer).unwrap().unwrap()
        };
        let read = |block: Block| block.frames().map(Result::unwrap).collect::<Vec<_>>();
        for count in [0, 9, 10] {
            assert!(block().split_off(count).is_none(), "{count}");
        }
        for count in 1..9 {
            let mut first = block();
            let rest = first.split_off(count).unwrap();
            assert_eq!((first.count(), rest.count()), (count, 9 - count));
            assert_eq!([read(first), read(rest)].concat(), read(block()));
        }
    }

    #[test]
    fn a_heartbeat_and_an_event_are_known_by_their_first_bytes() {
        let block = |frames: &[Frame]| {
            let mut buffer = BytesMut::new();
            frames.iter().for_each(|frame| frame.encode(&mut buffer));
            FrameCodec::unbound().decode(&mut buffer).unwrap().unwrap()
        };
        assert!(block(&[Frame::Ping]).is_beat() && block(&[Frame::Pong]).is_beat());
        assert!(!block(&[Frame::Ping, Frame::Ping]).is_beat());
        assert!(!block(&[Frame::Cancel(CallbackId(1))]).is_beat());
        assert!(block(&[event("t", &[])]).is_of_events() && !block(&[reply(1)]).is_of_events());
    }
}

//! The heads that calls and events are made of, read and written byte by byte. They are what [`super::Head`] says, in the
//! same bincode, and the tests below hold the two against each other; but a request is read in a fifth of the time, and
//! reading and writing heads was a third of what a relayed call cost.
//!
//! Only what is well-formed and usual is read here. Anything else (functions among the arguments, an error, a number in an
//! unusual form, bytes that are no head) is left to the reader that knows everything and explains what is wrong.

use super::{Borrowed, Frame, Publish, Request, Response, as_micros};
use crate::limits::LENGTH_PREFIX_LEN;
use crate::{CallbackId, Callbacks, Encoding, Payload, PayloadRef, append};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use std::ops::Range;
use std::time::Duration;

/// The places of variants in [`super::Head`] and its parts. `tests/golden.rs` freezes them.
const REQUEST: u8 = 9;
const RESPONSE: u8 = 10;
pub(crate) const PUBLISH: u8 = 16;
const REPLY: u8 = 0;

/// Integers of bincode's standard configuration: below this one byte, else this and two, the next and four, or eight bytes.
const TWO_BYTES: u8 = 251;
const FOUR_BYTES: u8 = 252;
const EIGHT_BYTES: u8 = 253;

/// A number takes so many bytes at most.
const NUMBER_LEN_MAX: usize = 9;

/// What a head takes at most, its prefix counted and its texts not: a number takes nine bytes.
const HEAD_LEN_MAX: usize = 64;

/// Texts that are longer together, which only long names make, are left to the writer that knows everything.
const TEXTS_LEN_MAX: usize = 128;

/// A payload of so many bytes is gathered with its head, so that both go into the buffer in one piece.
const SMALL_PAYLOAD_LEN_MAX: usize = 64;

/// What [`write_small_reply`] takes.
pub const SMALL_REPLY_LEN_MAX: usize = SMALL_PAYLOAD_LEN_MAX;

/// No functions.
pub(crate) static NO_CALLBACKS: Callbacks = Callbacks::none();

/// What requests that are written one behind the other have in common, found once.
#[derive(Debug, Default)]
pub struct LikeBefore {
    /// Whether there was one before.
    is_second: bool,
    head: Option<WrittenHead>,
}

/// What stands between the id and the payload of requests that are alike: written once, it stands in each of them.
#[derive(Debug)]
pub struct CommonHead {
    bytes: [u8; HEAD_LEN_MAX + TEXTS_LEN_MAX],
    len: usize,
}

/// The head of a request that was written, and what it says.
#[derive(Debug)]
struct WrittenHead {
    head: CommonHead,
    action: ByteString,
    node: ByteString,
    caller: ByteString,
    time_left: Option<Duration>,
    encoding: Encoding,
}

/// A frame in the making.
struct Writer {
    bytes: [u8; HEAD_LEN_MAX + TEXTS_LEN_MAX + SMALL_PAYLOAD_LEN_MAX],
    at: usize,
}

/// What is left of a head to read.
struct Reader<'a> {
    block: &'a Bytes,
    /// The block up to the end of the frame.
    bytes: &'a [u8],
    at: usize,
}

/// Writes a frame that it knows, and behind its head this, which is its payload or nothing; says whether it did.
pub(super) fn write(frame: Borrowed<'_>, behind: &[u8], buffer: &mut BytesMut) -> bool {
    let (payload, texts_len) = match frame {
        Borrowed::Request(Request { action, node, caller, payload, .. }) => {
            (payload, action.len() + node.len() + caller.len())
        }
        Borrowed::Response(Response { outcome: Ok(payload), .. }) => (payload, 0),
        Borrowed::Publish(Publish { topic, publisher, groups, payload, .. }) if groups.is_empty() => {
            (payload, topic.len() + publisher.len())
        }
        _ => return false,
    };
    if texts_len > TEXTS_LEN_MAX || !payload.callbacks.is_empty() {
        return false;
    }
    let mut head = Writer::new();
    match frame {
        Borrowed::Request(request) => head.request(request),
        Borrowed::Response(Response { callback_id, .. }) => head.reply(*callback_id),
        Borrowed::Publish(publish) => head.publish(publish),
        Borrowed::Other(_) => return false,
    }
    head.encoding(payload.encoding);
    let Ok(claimed) = u32::try_from(head.at - LENGTH_PREFIX_LEN + payload.len()) else {
        return false;
    };
    head.bytes[..LENGTH_PREFIX_LEN].copy_from_slice(&claimed.to_le_bytes());
    let is_small = behind.len() <= SMALL_PAYLOAD_LEN_MAX;
    if is_small {
        head.slice(behind);
    } else {
        buffer.reserve(head.at + behind.len());
    }
    buffer.extend_from_slice(&head.bytes[..head.at]);
    if !is_small {
        append(buffer, behind);
    }
    true
}

/// Appends the whole frame of a reply to a request whose value is small and has no functions: as that of a [`Response`] with a [`Payload`]
/// of these bytes.
///
/// # Panics
///
/// When there are more than [`SMALL_REPLY_LEN_MAX`].
#[inline]
pub fn write_small_reply(callback_id: CallbackId, encoding: Encoding, bytes: &[u8], buffer: &mut BytesMut) {
    const LEN_MAX: usize = LENGTH_PREFIX_LEN + 1 + NUMBER_LEN_MAX + 3 + SMALL_REPLY_LEN_MAX;
    let mut frame = [0; LEN_MAX];
    let mut at = LENGTH_PREFIX_LEN;
    frame[at] = RESPONSE;
    at += 1;
    at += put_number(&mut frame[at..], callback_id.0);
    frame[at..at + 3].copy_from_slice(&[REPLY, number_of(encoding), 0]);
    at += 3;
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    at += bytes.len();
    #[expect(clippy::cast_possible_truncation, reason = "it is bounded by the length of the array")]
    let claimed = (at - LENGTH_PREFIX_LEN) as u32;
    frame[..LENGTH_PREFIX_LEN].copy_from_slice(&claimed.to_le_bytes());
    buffer.extend_from_slice(&frame[..at]);
}

impl LikeBefore {
    /// Writes a request, and behind its head this, if one like it was written before; says whether it did.
    pub(super) fn write(&mut self, request: &Request, behind: &[u8], buffer: &mut BytesMut) -> bool {
        if !request.payload.callbacks.is_empty() {
            return false;
        }
        let head = match &mut self.head {
            Some(head) if head.is_of(request) => head,
            kept => {
                // One that has none behind it is not worth it.
                if !std::mem::replace(&mut self.is_second, true) {
                    return false;
                }
                let Some(head) = WrittenHead::of(request) else {
                    return false;
                };
                kept.insert(head)
            }
        };
        head.head.write(request.callback_id, request.payload.len(), behind, buffer)
    }
}

impl CommonHead {
    /// That of this request; none if its names are too long to be worth it.
    #[must_use]
    pub fn of(request: &Request) -> Option<Self> {
        let Request { action, node, caller, payload, .. } = request;
        if action.len() + node.len() + caller.len() > TEXTS_LEN_MAX {
            return None;
        }
        let mut head = Writer::new();
        let start = head.at;
        head.behind_id(request);
        head.encoding(payload.encoding);
        let len = head.at - start;
        let mut bytes = [0; HEAD_LEN_MAX + TEXTS_LEN_MAX];
        bytes[..len].copy_from_slice(&head.bytes[start..head.at]);
        Some(Self { bytes, len })
    }

    /// Appends the whole frame of a request that is like it, with this id and a payload of these bytes, without functions.
    ///
    /// # Panics
    ///
    /// When it has 4 GiB or more.
    #[inline]
    pub fn encode(&self, callback_id: CallbackId, payload: &[u8], buffer: &mut BytesMut) {
        assert!(self.write(callback_id, payload.len(), payload, buffer), "a frame has less than 4 GiB");
    }

    /// Appends a frame whose payload is so long, and this behind its head; says whether it did.
    #[inline]
    fn write(
        &self,
        callback_id: CallbackId,
        payload_len: usize,
        behind: &[u8],
        buffer: &mut BytesMut,
    ) -> bool {
        let mut start = [0; LENGTH_PREFIX_LEN + 1 + NUMBER_LEN_MAX];
        start[LENGTH_PREFIX_LEN] = REQUEST;
        let at = LENGTH_PREFIX_LEN + 1 + put_number(&mut start[LENGTH_PREFIX_LEN + 1..], callback_id.0);
        let Ok(claimed) = u32::try_from(at - LENGTH_PREFIX_LEN + self.len + payload_len) else {
            return false;
        };
        start[..LENGTH_PREFIX_LEN].copy_from_slice(&claimed.to_le_bytes());
        buffer.reserve(at + self.len + behind.len());
        buffer.extend_from_slice(&start[..at]);
        buffer.extend_from_slice(&self.bytes[..self.len]);
        append(buffer, behind);
        true
    }
}

/// What stands before the payload of events that are alike: written once, it stands in each of them.
#[derive(Debug)]
pub struct CommonEventHead {
    /// With room for the prefix.
    bytes: [u8; HEAD_LEN_MAX + TEXTS_LEN_MAX],
    len: usize,
}

impl CommonEventHead {
    /// That of this event; none if its names are too long to be worth it, or it is for groups or has functions.
    #[must_use]
    pub fn of(publish: &Publish) -> Option<Self> {
        let Publish { topic, publisher, groups, payload, .. } = publish;
        if topic.len() + publisher.len() > TEXTS_LEN_MAX
            || !groups.is_empty()
            || !payload.callbacks.is_empty()
        {
            return None;
        }
        let mut head = Writer::new();
        head.publish(publish);
        head.encoding(payload.encoding);
        let mut bytes = [0; HEAD_LEN_MAX + TEXTS_LEN_MAX];
        bytes[..head.at].copy_from_slice(&head.bytes[..head.at]);
        Some(Self { bytes, len: head.at })
    }

    /// Appends the whole frame of an event that is like it, with a payload of these bytes.
    ///
    /// # Panics
    ///
    /// When it has 4 GiB or more.
    #[inline]
    pub fn encode(&self, payload: &[u8], buffer: &mut BytesMut) {
        let claimed = u32::try_from(self.len - LENGTH_PREFIX_LEN + payload.len());
        let claimed = claimed.expect("a frame has less than 4 GiB");
        buffer.reserve(self.len + payload.len());
        buffer.extend_from_slice(&claimed.to_le_bytes());
        buffer.extend_from_slice(&self.bytes[LENGTH_PREFIX_LEN..self.len]);
        append(buffer, payload);
    }
}

impl WrittenHead {
    fn of(request: &Request) -> Option<Self> {
        let head = CommonHead::of(request)?;
        let Request { action, node, caller, time_left, payload, .. } = request;
        let (action, node, caller) = (action.clone(), node.clone(), caller.clone());
        Some(Self { head, action, node, caller, time_left: *time_left, encoding: payload.encoding })
    }

    fn is_of(&self, request: &Request) -> bool {
        self.action == request.action
            && self.time_left == request.time_left
            && self.encoding == request.payload.encoding
            && is_same(&self.node, &request.node)
            && is_same(&self.caller, &request.caller)
    }
}

/// Most of them are empty.
#[inline]
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// The place of an encoding among its like.
#[inline]
fn number_of(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Bincode => 0,
        Encoding::MessagePack => 1,
        Encoding::Json => 2,
    }
}

/// Writes a number at the start of this; gives its length.
#[inline]
fn put_number(room: &mut [u8], number: u64) -> usize {
    let mut put = |first: u8, rest: &[u8]| {
        room[0] = first;
        room[1..=rest.len()].copy_from_slice(rest);
        1 + rest.len()
    };
    match number {
        0..=250 => put(number as u8, &[]),
        251..=0xFFFF => put(TWO_BYTES, &(number as u16).to_le_bytes()),
        0x1_0000..=0xFFFF_FFFF => put(FOUR_BYTES, &(number as u32).to_le_bytes()),
        _ => put(EIGHT_BYTES, &number.to_le_bytes()),
    }
}

impl Writer {
    fn new() -> Self {
        Self { bytes: [0; HEAD_LEN_MAX + TEXTS_LEN_MAX + SMALL_PAYLOAD_LEN_MAX], at: LENGTH_PREFIX_LEN }
    }

    fn request(&mut self, request: &Request) {
        self.byte(REQUEST);
        self.number(request.callback_id.0);
        self.behind_id(request);
    }

    fn behind_id(&mut self, request: &Request) {
        self.text(&request.action);
        self.text(&request.node);
        self.text(&request.caller);
        match request.time_left {
            Some(time_left) => {
                self.byte(1);
                self.number(as_micros(time_left));
            }
            None => self.byte(0),
        }
    }

    fn reply(&mut self, callback_id: CallbackId) {
        self.byte(RESPONSE);
        self.number(callback_id.0);
        self.byte(REPLY);
    }

    fn publish(&mut self, publish: &Publish) {
        self.byte(PUBLISH);
        self.text(&publish.topic);
        self.text(&publish.publisher);
        self.byte(u8::from(publish.for_all));
        self.byte(0);
    }

    /// The head's last part: what the payload is, and that no functions are in it.
    fn encoding(&mut self, encoding: Encoding) {
        self.byte(number_of(encoding));
        self.byte(0);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        if !text.is_empty() {
            self.slice(text.as_bytes());
        }
    }

    #[inline]
    fn number(&mut self, number: u64) {
        match number {
            0..=250 => self.byte(number as u8),
            _ => self.long_number(number),
        }
    }

    fn long_number(&mut self, number: u64) {
        self.at += put_number(&mut self.bytes[self.at..], number);
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes[self.at] = byte;
        self.at += 1;
    }

    #[inline]
    fn slice(&mut self, slice: &[u8]) {
        self.bytes[self.at..][..slice.len()].copy_from_slice(slice);
        self.at += slice.len();
    }
}

/// Reads the frame that stands in this part of a block, if it is one of those that are read here.
pub(super) fn read(block: &Bytes, part: Range<usize>) -> Option<Frame> {
    let mut reader = Reader::new(block, part)?;
    match reader.byte()? {
        REQUEST => {
            let callback_id = CallbackId(reader.number()?);
            reader.request(callback_id).map(Frame::Request)
        }
        RESPONSE => {
            let (callback_id, payload) = reader.reply()?;
            Some(Frame::Response(Response { callback_id, outcome: Ok(payload) }))
        }
        PUBLISH => reader.publish().map(Frame::Publish),
        _ => None,
    }
}

/// The head of a request as it was read, its id taken off, for those behind it that have the same one.
#[derive(Debug)]
pub(crate) struct SharedHead {
    bytes: Range<usize>,
    action: ByteString,
    node: ByteString,
    caller: ByteString,
    time_left: Option<Duration>,
    encoding: Encoding,
}

/// The same for a request alone. The head is kept if others are behind it.
pub(crate) fn read_request(
    block: &Bytes,
    part: Range<usize>,
    kept: &mut Option<SharedHead>,
    is_last: bool,
) -> Option<Request> {
    let mut reader = Reader::new(block, part)?;
    if reader.byte()? != REQUEST {
        return None;
    }
    let callback_id = CallbackId(reader.number()?);
    if let Some(head) = kept
        && let Some(request) = head.read_same(callback_id, &reader)
    {
        return Some(request);
    }
    let start = reader.at;
    let request = reader.request(callback_id)?;
    *kept = (!is_last).then(|| SharedHead {
        bytes: start..reader.at,
        action: request.action.clone(),
        node: request.node.clone(),
        caller: request.caller.clone(),
        time_left: request.time_left,
        encoding: request.payload.encoding,
    });
    Some(request)
}

/// A request alone whose head is the one that was kept: what differs.
#[inline]
pub(crate) fn read_same_request<'a>(
    block: &'a Bytes,
    part: Range<usize>,
    kept: &SharedHead,
) -> Option<(CallbackId, PayloadRef<'a>)> {
    let mut reader = Reader::new(block, part)?;
    if reader.byte()? != REQUEST {
        return None;
    }
    let callback_id = CallbackId(reader.number()?);
    let bytes = reader.bytes.get(reader.at..)?.strip_prefix(block.get(kept.bytes.clone())?)?;
    Some((callback_id, PayloadRef { encoding: kept.encoding, bytes, callbacks: &NO_CALLBACKS }))
}

impl SharedHead {
    /// Reads a request whose head has the same bytes behind its id: then it says the same.
    fn read_same(&self, callback_id: CallbackId, reader: &Reader<'_>) -> Option<Request> {
        let bytes = reader.bytes.get(reader.at..)?.strip_prefix(reader.block.get(self.bytes.clone())?)?;
        let end = reader.bytes.len();
        let payload = Payload {
            encoding: self.encoding,
            bytes: reader.block.slice(end - bytes.len()..end),
            callbacks: Callbacks::none(),
        };
        let (action, node, caller) = (self.action.clone(), self.node.clone(), self.caller.clone());
        Some(Request { callback_id, action, node, caller, time_left: self.time_left, payload })
    }
}

/// The same for a reply alone.
pub(crate) fn read_reply(block: &Bytes, part: Range<usize>) -> Option<(CallbackId, Payload)> {
    let mut reader = Reader::new(block, part)?;
    if reader.byte()? == RESPONSE { reader.reply() } else { None }
}

/// The head of an event as it was read, for those behind it that have the same one.
#[derive(Debug)]
pub(crate) struct EventHead {
    bytes: Range<usize>,
    topic: ByteString,
    publisher: ByteString,
    for_all: bool,
    encoding: Encoding,
}

/// The same for an event alone. The head is kept if others are behind it.
pub(crate) fn read_event(
    block: &Bytes,
    part: Range<usize>,
    kept: &mut Option<EventHead>,
    is_last: bool,
) -> Option<Publish> {
    if let Some(head) = kept
        && let Some(event) = head.read_same(block, &part)
    {
        return Some(event);
    }
    let start = part.start;
    let mut reader = Reader::new(block, part)?;
    if reader.byte()? != PUBLISH {
        return None;
    }
    let event = reader.publish()?;
    *kept = (!is_last).then(|| EventHead {
        bytes: start..reader.at,
        topic: event.topic.clone(),
        publisher: event.publisher.clone(),
        for_all: event.for_all,
        encoding: event.payload.encoding,
    });
    Some(event)
}

/// An event alone whose head is the one that was kept: where its payload stands in the block, and its encoding.
#[inline]
pub(crate) fn read_same_event(
    block: &Bytes,
    part: Range<usize>,
    kept: &EventHead,
) -> Option<(Range<usize>, Encoding)> {
    let end = part.end;
    let bytes = block.get(part)?.strip_prefix(block.get(kept.bytes.clone())?)?;
    Some((end - bytes.len()..end, kept.encoding))
}

impl EventHead {
    /// Reads an event whose head has the same bytes: then it says the same.
    fn read_same(&self, block: &Bytes, part: &Range<usize>) -> Option<Publish> {
        let bytes = block.get(part.clone())?.strip_prefix(block.get(self.bytes.clone())?)?;
        let payload = Payload {
            encoding: self.encoding,
            bytes: block.slice(part.end - bytes.len()..part.end),
            callbacks: Callbacks::none(),
        };
        let (topic, publisher) = (self.topic.clone(), self.publisher.clone());
        Some(Publish { topic, publisher, for_all: self.for_all, groups: Vec::new(), payload })
    }
}

impl<'a> Reader<'a> {
    fn new(block: &'a Bytes, part: Range<usize>) -> Option<Self> {
        Some(Self { block, bytes: block.get(..part.end)?, at: part.start })
    }

    /// What follows the id of a request.
    fn request(&mut self, callback_id: CallbackId) -> Option<Request> {
        let action = self.text()?;
        let node = self.text()?;
        let caller = self.text()?;
        let time_left = match self.byte()? {
            0 => None,
            1 => Some(Duration::from_micros(self.number()?)),
            _ => return None,
        };
        Some(Request { callback_id, action, node, caller, time_left, payload: self.payload()? })
    }

    fn reply(&mut self) -> Option<(CallbackId, Payload)> {
        let callback_id = CallbackId(self.number()?);
        if self.byte()? != REPLY {
            return None;
        }
        Some((callback_id, self.payload()?))
    }

    fn publish(&mut self) -> Option<Publish> {
        let topic = self.text()?;
        let publisher = self.text()?;
        let for_all = match self.byte()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        if self.byte()? != 0 {
            return None;
        }
        Some(Publish { topic, publisher, for_all, groups: Vec::new(), payload: self.payload()? })
    }

    /// The head's last part, and all that follows it.
    fn payload(&mut self) -> Option<Payload> {
        let encoding = match self.byte()? {
            0 => Encoding::Bincode,
            1 => Encoding::MessagePack,
            2 => Encoding::Json,
            _ => return None,
        };
        if self.byte()? != 0 {
            return None;
        }
        Some(Payload {
            encoding,
            bytes: self.block.slice(self.at..self.bytes.len()),
            callbacks: Callbacks::none(),
        })
    }

    fn text(&mut self) -> Option<ByteString> {
        let len = usize::try_from(self.number()?).ok()?;
        if len == 0 {
            return Some(ByteString::new());
        }
        let start = self.at;
        self.at = start.checked_add(len).filter(|at| *at <= self.bytes.len())?;
        ByteString::try_from(self.block.slice(start..self.at)).ok()
    }

    #[inline]
    fn number(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            TWO_BYTES => u64::from(u16::from_le_bytes(self.array()?)),
            FOUR_BYTES => u64::from(u32::from_le_bytes(self.array()?)),
            EIGHT_BYTES => u64::from_le_bytes(self.array()?),
            byte @ 0..TWO_BYTES => u64::from(byte),
            _ => return None,
        })
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn array<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let array = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += LEN;
        Some(array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FrameRef;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = ByteString> {
        prop_oneof![8 => "[a-zß/€]{0,12}", 1 => "[a-z]{80,260}"].prop_map(ByteString::from)
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..300_u64, 0xFFF0..0x1_0010_u64, 0xFFFF_FFF0..0x1_0000_0010_u64, any::<u64>()]
    }

    fn payload() -> impl Strategy<Value = Payload> {
        let encoding =
            prop_oneof![Just(Encoding::Bincode), Just(Encoding::MessagePack), Just(Encoding::Json)];
        let callbacks = prop_oneof![4 => vec(number(), 0..1), 1 => vec(number(), 1..4)];
        (encoding, prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 60..70)], callbacks).prop_map(
            |(encoding, bytes, callbacks)| Payload {
                callbacks: callbacks.into_iter().map(CallbackId).collect(),
                ..Payload::new(encoding, bytes)
            },
        )
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let time_left = proptest::option::of(number().prop_map(Duration::from_micros));
        let request = (number(), text(), text(), text(), time_left, payload());
        let groups = prop_oneof![4 => vec(text(), 0..1), 1 => vec(text(), 1..3)];
        let publish = (text(), text(), any::<bool>(), groups, payload());
        prop_oneof![
            request.prop_map(|(callback_id, action, node, caller, time_left, payload)| {
                let callback_id = CallbackId(callback_id);
                Frame::Request(Request { callback_id, action, node, caller, time_left, payload })
            }),
            (number(), payload()).prop_map(|(callback_id, payload)| {
                Frame::Response(Response { callback_id: CallbackId(callback_id), outcome: Ok(payload) })
            }),
            publish.prop_map(|(topic, publisher, for_all, groups, payload)| {
                Frame::Publish(Publish { topic, publisher, for_all, groups, payload })
            }),
        ]
    }

    /// What the writer that knows everything writes, the length prefix taken off.
    fn written_slowly(frame: &Frame) -> BytesMut {
        let mut bytes = BytesMut::new();
        crate::payload::write_head(&FrameRef::from(frame).head(), &mut bytes);
        bytes.extend_from_slice(frame.payload().map_or(&[][..], |payload| &payload.bytes));
        bytes
    }

    /// These frames one behind the other, and where each stands.
    fn block_of(frames: impl Iterator<Item = Frame>) -> (Bytes, Vec<Range<usize>>) {
        let mut block = BytesMut::new();
        let parts = frames.map(|frame| {
            let start = block.len();
            block.extend_from_slice(&written_slowly(&frame));
            start..block.len()
        });
        let parts = parts.collect();
        (block.freeze(), parts)
    }

    proptest! {
        #[test]
        fn what_is_written_here_is_what_the_other_writer_writes(frame in frame()) {
            let slowly = written_slowly(&frame);
            let payload = frame.payload().map_or(&[][..], |payload| &payload.bytes);
            // With its payload, and without: then it follows.
            for behind in [payload, &[]] {
                let mut bytes = BytesMut::new();
                if write(FrameRef::from(&frame).0, behind, &mut bytes) {
                    bytes.extend_from_slice(&payload[behind.len()..]);
                    prop_assert_eq!(&bytes[..4], &(slowly.len() as u32).to_le_bytes()[..]);
                    prop_assert_eq!(&bytes[4..], &slowly[..]);
                }
            }
        }

        #[test]
        fn a_small_reply_is_written_as_any_other(callback_id in number(), payload in payload()) {
            let (mut small, mut usual) = (BytesMut::new(), BytesMut::new());
            let bytes = payload.bytes.slice(..payload.len().min(SMALL_REPLY_LEN_MAX));
            let callback_id = CallbackId(callback_id);
            write_small_reply(callback_id, payload.encoding, &bytes, &mut small);
            let outcome = Ok(Payload::new(payload.encoding, bytes));
            Frame::Response(Response { callback_id, outcome }).encode(&mut usual);
            prop_assert_eq!(small, usual);
        }

        #[test]
        fn events_are_written_alike(like in frame(), payloads in vec(vec(any::<u8>(), 0..200), 1..5)) {
            let Frame::Publish(mut publish) = like else { return Ok(()) };
            let Some(head) = CommonEventHead::of(&publish) else {
                let texts_len = publish.topic.len() + publish.publisher.len();
                prop_assert!(texts_len > TEXTS_LEN_MAX || !publish.groups.is_empty() || !publish.payload.callbacks.is_empty());
                return Ok(());
            };
            for payload in payloads {
                let (mut alike, mut alone) = (BytesMut::new(), BytesMut::new());
                head.encode(&payload, &mut alike);
                publish.payload.bytes = payload.into();
                FrameRef::from(&publish).encode(&mut alone);
                prop_assert_eq!(alike, alone);
            }
        }

        #[test]
        fn requests_are_written_alike_whatever_was_before_them(frames in vec((0..3_usize, number(), payload()), 1..9), like in vec(frame(), 3)) {
            let mut before = LikeBefore::default();
            for (which, callback_id, payload) in frames {
                let mut frame = like[which].clone();
                if let Frame::Request(request) = &mut frame {
                    (request.callback_id, request.payload) = (CallbackId(callback_id), payload);
                }
                let (mut after, mut alone) = (BytesMut::new(), BytesMut::new());
                FrameRef::from(&frame).encode_after(&mut before, &mut after);
                frame.encode(&mut alone);
                prop_assert_eq!(after, alone);
            }
        }

        #[test]
        fn what_is_read_here_is_what_the_other_reader_reads(frame in frame()) {
            let mut bytes = written_slowly(&frame);
            let usual = frame.payload().is_some_and(|payload| payload.callbacks.is_empty())
                && !matches!(&frame, Frame::Publish(publish) if !publish.groups.is_empty());
            // Read out of the middle of a block.
            bytes.extend_from_slice(b"next");
            let block = Bytes::from([b"prev", &bytes[..]].concat());
            let part = 4..block.len() - 4;
            let request = read_request(&block, part.clone(), &mut None, true).map(Frame::Request);
            let reply = read_reply(&block, part.clone())
                .map(|(callback_id, payload)| Frame::Response(Response { callback_id, outcome: Ok(payload) }));
            let event = read_event(&block, part.clone(), &mut None, true).map(Frame::Publish);
            let read = read(&block, part);
            prop_assert_eq!(event, read.clone().filter(|frame| matches!(frame, Frame::Publish(_))));
            prop_assert_eq!(request, read.clone().filter(|frame| matches!(frame, Frame::Request(_))));
            prop_assert_eq!(reply, read.clone().filter(|frame| matches!(frame, Frame::Response(_))));
            prop_assert_eq!(read, usual.then_some(frame));
        }

        #[test]
        fn requests_are_read_alike_whatever_is_before_them(
            requests in vec((number(), prop_oneof!["a", "b"], prop_oneof!["", "n"], any::<bool>(), vec(any::<u8>(), 0..9)), 1..9),
        ) {
            let requests = requests.into_iter().map(|(callback_id, action, node, waits, bytes)| {
                let payload = Payload::new(if waits { Encoding::Json } else { Encoding::Bincode }, bytes);
                let time_left = waits.then(|| Duration::from_micros(callback_id / 2));
                let (action, node, caller) = (action.into(), node.into(), ByteString::from_static("c"));
                Request { callback_id: CallbackId(callback_id), action, node, caller, time_left, payload }
            });
            let requests: Vec<_> = requests.collect();
            let (block, parts) = block_of(requests.iter().cloned().map(Frame::Request));
            let mut kept = None;
            for (number, part) in parts.iter().enumerate() {
                let same = kept.as_ref().and_then(|kept| read_same_request(&block, part.clone(), kept));
                let is_same = number > 0 && {
                    let (one, other) = (&requests[number - 1], &requests[number]);
                    one.action == other.action
                        && one.node == other.node
                        && one.time_left == other.time_left
                        && one.payload.encoding == other.payload.encoding
                };
                let expected = is_same.then(|| (requests[number].callback_id, &requests[number].payload.bytes[..]));
                prop_assert_eq!(same.map(|(callback_id, payload)| (callback_id, payload.bytes)), expected);
                prop_assert!(same.is_none_or(|(_, payload)| payload.encoding == requests[number].payload.encoding));
                let request = read_request(&block, part.clone(), &mut kept, number + 1 == parts.len());
                prop_assert_eq!(request.as_ref(), Some(&requests[number]));
                let mut cut = part.clone();
                cut.end -= requests[number].payload.len() + 1;
                prop_assert!(kept.as_ref().and_then(|kept| read_same_request(&block, cut.clone(), kept)).is_none());
                let read = read_request(&block, cut, &mut kept, true);
                prop_assert!(read.is_none(), "a head that is cut is none, whatever was before it");
            }
        }

        #[test]
        fn events_are_read_alike_whatever_is_before_them(
            events in vec((prop_oneof!["a", "b"], prop_oneof!["", "p"], any::<bool>(), vec(any::<u8>(), 0..9)), 1..9),
        ) {
            let frames = events.into_iter().map(|(topic, publisher, for_all, bytes)| {
                let payload = Payload::new(if for_all { Encoding::Json } else { Encoding::MessagePack }, bytes);
                let (topic, publisher) = (topic.into(), publisher.into());
                Publish { topic, publisher, for_all, groups: Vec::new(), payload }
            });
            let frames: Vec<_> = frames.collect();
            let (block, parts) = block_of(frames.iter().cloned().map(Frame::Publish));
            let mut kept = None;
            for (number, part) in parts.iter().enumerate() {
                let same = kept.as_ref().and_then(|kept| read_same_event(&block, part.clone(), kept));
                let is_same = number > 0 && {
                    let (one, other) = (&frames[number - 1], &frames[number]);
                    one.topic == other.topic && one.publisher == other.publisher && one.for_all == other.for_all
                };
                let same = same.map(|(at, encoding)| Payload::new(encoding, block.slice(at)));
                prop_assert_eq!(same.as_ref(), is_same.then_some(&frames[number].payload));
                let event = read_event(&block, part.clone(), &mut kept, number + 1 == parts.len());
                prop_assert_eq!(event.as_ref(), Some(&frames[number]));
                let mut cut = part.clone();
                cut.end -= frames[number].payload.len() + 1;
                prop_assert!(kept.as_ref().and_then(|kept| read_same_event(&block, cut.clone(), kept)).is_none());
                let read = read_event(&block, cut, &mut kept, true);
                prop_assert!(read.is_none(), "a head that is cut is none, whatever was before it");
            }
        }

        #[test]
        fn bytes_that_are_no_frame_are_none_here_either(
            frame in frame(),
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
            len in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = written_slowly(&frame);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(len.index(bytes.len() + 1));
            let bytes = bytes.freeze();
            if let Some(frame) = read(&bytes, 0..bytes.len()) {
                prop_assert_eq!(frame, Frame::decode_any(&bytes).expect("the other reader reads it too"));
            }
        }
    }
}

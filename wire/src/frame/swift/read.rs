//! Reads the heads of frames in a block, without copying them.

use super::parts::{
    EIGHT_BYTES, EventParts, FOUR_BYTES, ITEM, PUBLISH, REPLY, REQUEST, RESPONSE, RequestParts, TWO_BYTES,
};
use crate::encoding::Encoding;
use crate::frame::kinds::{Frame, Item, Publish, Request, Response};
use crate::frame::next::{BlockPayload, Next};
use crate::headers::Headers;
use crate::id::CallbackId;
use crate::payload::Payload;
use bytes::Bytes;
use bytestring::ByteString;
use std::ops::Range;
use std::time::Duration;

/// The head of the last request or event of a block. A head with equal bytes need not be read again.
#[derive(Debug)]
pub(crate) struct KeptHead {
    /// Its place in the block: behind the id of a request, behind the variant of an event.
    place: Range<usize>,
    parts: Parts,
}

/// The values of a head.
#[derive(Debug)]
enum Parts {
    Request(RequestParts),
    Event(EventParts),
}

/// A cursor in the head of one frame.
struct Reader<'a> {
    block: &'a Bytes,
    /// The block up to the end of the frame.
    bytes: &'a [u8],
    at: usize,
}

/// Reads the frame in this part of a block if its head is usual; keeps the head of a request or event if frames follow it.
#[inline]
pub(crate) fn read_next<'a>(
    block: &'a Bytes,
    part: Range<usize>,
    kept: &mut Option<KeptHead>,
    is_last: bool,
) -> Option<Next<'a>> {
    let mut reader = Reader::new(block, part)?;
    match reader.byte()? {
        REQUEST => reader.next_request(kept, is_last).map(Next::Request),
        RESPONSE => reader.reply().map(|(callback_id, payload)| Next::Reply { callback_id, payload }),
        PUBLISH => reader.next_event(kept, is_last).map(Next::Event),
        ITEM => reader.item().map(|(callback_id, payload)| Next::Item { callback_id, payload }),
        _ => None,
    }
}

/// Reads the frame in this part of a block if its head is usual.
pub(crate) fn read(block: &Bytes, part: Range<usize>) -> Option<Frame> {
    let mut reader = Reader::new(block, part)?;
    match reader.byte()? {
        REQUEST => {
            let callback_id = CallbackId(reader.number()?);
            reader.request(callback_id).map(Frame::Request)
        }
        RESPONSE => {
            let (callback_id, payload) = reader.reply()?;
            Some(Frame::Response(Response { callback_id, outcome: Ok(payload.share()) }))
        }
        PUBLISH => reader.event().map(Frame::Publish),
        ITEM => {
            let (callback_id, payload) = reader.item()?;
            Some(Frame::Item(Item { callback_id, payload: payload.share() }))
        }
        _ => None,
    }
}

impl KeptHead {
    /// Id and payload of the request in this part of a block, if it has this head.
    #[inline]
    pub(crate) fn request_of_run<'a>(
        &self,
        block: &'a Bytes,
        part: Range<usize>,
    ) -> Option<(CallbackId, BlockPayload<'a>)> {
        let Parts::Request(parts) = &self.parts else {
            return None;
        };
        let mut reader = Reader::new(block, part)?;
        if reader.byte()? != REQUEST {
            return None;
        }
        let callback_id = CallbackId(reader.number()?);
        Some((callback_id, self.strip(&reader, parts.encoding)?))
    }

    /// The payload of the event in this part of a block, if it has this head.
    #[inline]
    pub(crate) fn event_of_run<'a>(&self, block: &'a Bytes, part: Range<usize>) -> Option<BlockPayload<'a>> {
        let Parts::Event(parts) = &self.parts else {
            return None;
        };
        let mut reader = Reader::new(block, part)?;
        if reader.byte()? != PUBLISH {
            return None;
        }
        self.strip(&reader, parts.encoding)
    }

    /// The payload behind this head, if its bytes are the next ones.
    #[inline]
    fn strip<'a>(&self, reader: &Reader<'a>, encoding: Encoding) -> Option<BlockPayload<'a>> {
        let rest = reader.bytes.get(reader.at..)?;
        let bytes = rest.strip_prefix(reader.block.get(self.place.clone())?)?;
        let end = reader.bytes.len();
        Some(BlockPayload { block: reader.block, start: end - bytes.len(), end, encoding })
    }
}

impl<'a> Reader<'a> {
    #[inline]
    fn new(block: &'a Bytes, part: Range<usize>) -> Option<Self> {
        Some(Self { block, bytes: block.get(..part.end)?, at: part.start })
    }

    /// A request, from its id on, by the kept head if it is equal.
    #[inline]
    fn next_request(mut self, kept: &mut Option<KeptHead>, is_last: bool) -> Option<Request> {
        let callback_id = CallbackId(self.number()?);
        if let Some(head) = kept
            && let Parts::Request(parts) = &head.parts
            && let Some(payload) = head.strip(&self, parts.encoding)
        {
            return Some(parts.with(callback_id, payload.share()));
        }
        let start = self.at;
        let request = self.request(callback_id)?;
        let parts = || Parts::Request(RequestParts::of(&request));
        *kept = (!is_last).then(|| KeptHead { place: start..self.at, parts: parts() });
        Some(request)
    }

    /// An event, from its topic on, by the kept head if it is equal.
    #[inline]
    fn next_event(mut self, kept: &mut Option<KeptHead>, is_last: bool) -> Option<Publish> {
        if let Some(head) = kept
            && let Parts::Event(parts) = &head.parts
            && let Some(payload) = head.strip(&self, parts.encoding)
        {
            return Some(parts.with(payload.share()));
        }
        let start = self.at;
        let event = self.event()?;
        let parts = || Parts::Event(EventParts::of(&event));
        *kept = (!is_last).then(|| KeptHead { place: start..self.at, parts: parts() });
        Some(event)
    }

    /// A request, from its action on.
    fn request(&mut self, callback_id: CallbackId) -> Option<Request> {
        let action = self.text()?;
        let node = self.text()?;
        let caller = self.text()?;
        let time_left = match self.byte()? {
            0 => None,
            1 => Some(Duration::from_micros(self.number()?)),
            _ => return None,
        };
        let (headers, payload) = (Headers::none(), self.payload()?);
        Some(Request { callback_id, action, node, caller, time_left, hops: 0, headers, payload })
    }

    /// A reply, from its id on.
    #[inline]
    fn reply(&mut self) -> Option<(CallbackId, BlockPayload<'a>)> {
        let callback_id = CallbackId(self.number()?);
        if self.byte()? != REPLY {
            return None;
        }
        let encoding = self.encoding()?;
        Some((callback_id, self.rest(encoding)))
    }

    /// An item of a stream, from its id on.
    #[inline]
    fn item(&mut self) -> Option<(CallbackId, BlockPayload<'a>)> {
        let callback_id = CallbackId(self.number()?);
        let encoding = self.encoding()?;
        Some((callback_id, self.rest(encoding)))
    }

    /// An event, from its topic on.
    fn event(&mut self) -> Option<Publish> {
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
        let (headers, payload) = (Headers::none(), self.payload()?);
        Some(Publish { topic, publisher, for_all, groups: Vec::new(), headers, payload })
    }

    /// The last part of the head, and the bytes behind it.
    fn payload(&mut self) -> Option<Payload> {
        let encoding = self.encoding()?;
        Some(self.rest(encoding).share())
    }

    /// The last part of the head: the encoding of a payload without functions.
    #[inline]
    fn encoding(&mut self) -> Option<Encoding> {
        let encoding = Encoding::of_number(self.byte()?)?;
        (self.byte()? == 0).then_some(encoding)
    }

    /// The bytes behind the head.
    #[inline]
    fn rest(&self, encoding: Encoding) -> BlockPayload<'a> {
        BlockPayload { block: self.block, start: self.at, end: self.bytes.len(), encoding }
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

//! Writes heads: one by one, or once for a run of frames.

use super::parts::{
    EIGHT_BYTES, FOUR_BYTES, ITEM, NUMBER_LEN_MAX, PUBLISH, REPLY, REQUEST, RESPONSE, RequestParts, TWO_BYTES,
};
use crate::copy::append;
use crate::encoding::Encoding;
use crate::frame::kinds::{Borrowed, Item, Publish, Request, Response, as_micros};
use crate::id::CallbackId;
use crate::limits::{FRAME_LEN_MAX, LENGTH_PREFIX_LEN};
use bytes::BytesMut;

/// The most bytes of a head, its length prefix counted and its texts not counted.
const HEAD_LEN_MAX: usize = 64;

/// Heads whose texts are longer together, which only long names make, are left to the writer through serde.
const TEXTS_LEN_MAX: usize = 128;

/// A payload of so many bytes is gathered with its head, so that one copy takes both into the buffer.
const SMALL_PAYLOAD_LEN_MAX: usize = 64;

/// The longest payload of [`write_small_reply`], in bytes.
pub const SMALL_REPLY_LEN_MAX: usize = SMALL_PAYLOAD_LEN_MAX;

/// The most bytes before the head of a template: length prefix, variant, id.
const START_LEN_MAX: usize = LENGTH_PREFIX_LEN + 1 + NUMBER_LEN_MAX;

/// Heads of so many bytes stand in the template itself: nearly all do, and 1,024 templates take 72 KiB.
const SHORT_HEAD_LEN_MAX: usize = 62;

/// The head of a request or an event, written once, that stands in each frame of a run: in a request behind its id, in an event
/// behind its variant. Its frames pass no functions.
///
/// Takes 72 bytes, and an allocation if the head is longer than 62.
#[derive(Clone, Debug)]
pub struct HeadTemplate {
    variant: u8,
    head: TemplateHead,
}

#[derive(Clone, Debug)]
enum TemplateHead {
    Short { len: u8, bytes: [u8; SHORT_HEAD_LEN_MAX] },
    Long(Box<[u8]>),
}

/// Requests that are written one after another. From its second request on, a run, whose heads differ in the id only, is written by a
/// template.
#[derive(Debug, Default)]
pub struct RequestRun {
    /// Whether a request was written. A template for one request would cost more than it spares.
    has_begun: bool,
    head: Option<(RequestParts, HeadTemplate)>,
}

/// A frame that is being written.
struct Writer {
    bytes: [u8; HEAD_LEN_MAX + TEXTS_LEN_MAX + SMALL_PAYLOAD_LEN_MAX],
    at: usize,
}

/// Writes a frame with a usual head, and `behind` after it: the whole payload or nothing. Returns false for an unusual head,
/// and writes nothing then.
pub(in crate::frame) fn write(frame: Borrowed<'_>, behind: &[u8], buffer: &mut BytesMut) -> bool {
    let (payload, texts_len) = match frame {
        Borrowed::Request(Request { action, node, caller, hops: 0, headers, payload, .. })
            if headers.is_empty() =>
        {
            (payload, action.len() + node.len() + caller.len())
        }
        Borrowed::Response(Response { outcome: Ok(payload), .. }) => (payload, 0),
        Borrowed::Item(Item { payload, .. }) => (payload, 0),
        Borrowed::Publish(Publish { topic, publisher, groups, headers, payload, .. })
            if groups.is_empty() && headers.is_empty() =>
        {
            (payload, topic.len() + publisher.len())
        }
        _ => return false,
    };
    if texts_len > TEXTS_LEN_MAX || !payload.callbacks.is_empty() {
        return false;
    }
    let mut head = Writer::new();
    match frame {
        Borrowed::Request(request) => {
            head.byte(REQUEST);
            head.number(request.callback_id.0);
            head.request(request);
        }
        Borrowed::Response(Response { callback_id, .. }) => {
            head.byte(RESPONSE);
            head.number(callback_id.0);
            head.byte(REPLY);
        }
        Borrowed::Publish(event) => {
            head.byte(PUBLISH);
            head.event(event);
        }
        Borrowed::Item(item) => {
            head.byte(ITEM);
            head.number(item.callback_id.0);
        }
        Borrowed::OpenStream(_) | Borrowed::Other(_) => return false,
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

/// Appends the whole frame of a reply that is small and passes no functions: the bytes of a [`Response`] with this payload.
///
/// # Panics
///
/// When the payload is longer than [`SMALL_REPLY_LEN_MAX`].
#[inline]
pub fn write_small_reply(callback_id: CallbackId, encoding: Encoding, payload: &[u8], buffer: &mut BytesMut) {
    let mut frame = [0; START_LEN_MAX + 3 + SMALL_REPLY_LEN_MAX];
    let start_len = put_start(&mut frame, RESPONSE, Some(callback_id));
    let head_end = start_len + 3;
    frame[start_len..head_end].copy_from_slice(&[REPLY, encoding.number(), 0]);
    let end = head_end + payload.len();
    frame[head_end..end].copy_from_slice(payload);
    put_len(&mut frame, end);
    buffer.extend_from_slice(&frame[..end]);
}

/// Appends the whole frame of an [`Item`] without functions, which has less than 4 GiB.
#[inline]
pub fn write_item(callback_id: CallbackId, encoding: Encoding, payload: &[u8], buffer: &mut BytesMut) {
    let mut head = [0; START_LEN_MAX + 2];
    let start_len = put_start(&mut head, ITEM, Some(callback_id));
    let head_end = start_len + 2;
    head[start_len..head_end].copy_from_slice(&[encoding.number(), 0]);
    put_len(&mut head, head_end + payload.len());
    buffer.reserve(head_end + payload.len());
    buffer.extend_from_slice(&head[..head_end]);
    append(buffer, payload);
}

impl HeadTemplate {
    /// The head of this request. None if its names are too long to be worth it, or if it passes functions, came over hops or has headers.
    #[must_use]
    pub fn of_request(request: &Request) -> Option<Self> {
        let Request { action, node, caller, hops, headers, payload, .. } = request;
        if *hops > 0
            || !headers.is_empty()
            || action.len() + node.len() + caller.len() > TEXTS_LEN_MAX
            || !payload.callbacks.is_empty()
        {
            return None;
        }
        let mut head = Writer::new();
        head.request(request);
        head.encoding(payload.encoding);
        Some(Self::new(REQUEST, &head))
    }

    /// The head of this event. None if its names are too long to be worth it, or if it is for groups, has headers or passes
    /// functions.
    #[must_use]
    pub fn of_event(event: &Publish) -> Option<Self> {
        let Publish { topic, publisher, groups, headers, payload, .. } = event;
        let is_usual = groups.is_empty() && headers.is_empty() && payload.callbacks.is_empty();
        if topic.len() + publisher.len() > TEXTS_LEN_MAX || !is_usual {
            return None;
        }
        let mut head = Writer::new();
        head.event(event);
        head.encoding(payload.encoding);
        Some(Self::new(PUBLISH, &head))
    }

    fn new(variant: u8, written: &Writer) -> Self {
        let head = &written.bytes[LENGTH_PREFIX_LEN..written.at];
        let head = match u8::try_from(head.len()) {
            Ok(len) if head.len() <= SHORT_HEAD_LEN_MAX => {
                let mut bytes = [0; SHORT_HEAD_LEN_MAX];
                bytes[..head.len()].copy_from_slice(head);
                TemplateHead::Short { len, bytes }
            }
            _ => TemplateHead::Long(head.into()),
        };
        Self { variant, head }
    }

    /// Appends the whole frame of a request with this head, this id and this payload.
    ///
    /// # Panics
    ///
    /// When the template is the head of an event, or the frame has 4 GiB or more.
    #[inline]
    pub fn write_request(&self, callback_id: CallbackId, payload: &[u8], buffer: &mut BytesMut) {
        assert!(self.variant == REQUEST, "the head is of a request");
        self.write(Some(callback_id), payload, buffer);
    }

    /// Appends the whole frame of an event with this head and this payload.
    ///
    /// # Panics
    ///
    /// When the template is the head of a request, or the frame has 4 GiB or more.
    #[inline]
    pub fn write_event(&self, payload: &[u8], buffer: &mut BytesMut) {
        assert!(self.variant == PUBLISH, "the head is of an event");
        self.write(None, payload, buffer);
    }

    fn head(&self) -> &[u8] {
        match &self.head {
            TemplateHead::Short { len, bytes } => &bytes[..usize::from(*len)],
            TemplateHead::Long(bytes) => bytes,
        }
    }

    #[inline(always)]
    fn write(&self, callback_id: Option<CallbackId>, payload: &[u8], buffer: &mut BytesMut) {
        let TemplateHead::Short { len, bytes } = &self.head else {
            return self.write_in_pieces(callback_id, payload, buffer);
        };
        if payload.len() > SMALL_PAYLOAD_LEN_MAX {
            return self.write_in_pieces(callback_id, payload, buffer);
        }
        // Gathered here, it goes into the buffer with one copy. All of the head's room is copied: a fixed number of bytes takes a
        // few instructions, any number takes a call of the C library.
        let mut frame = [0; START_LEN_MAX + SHORT_HEAD_LEN_MAX + SMALL_PAYLOAD_LEN_MAX];
        let start_len = put_start(&mut frame, self.variant, callback_id);
        let head_end = start_len + usize::from(*len);
        let end = head_end + payload.len();
        frame[start_len..start_len + SHORT_HEAD_LEN_MAX].copy_from_slice(bytes);
        frame[head_end..end].copy_from_slice(payload);
        put_len(&mut frame, end);
        buffer.extend_from_slice(&frame[..end]);
    }

    #[inline(never)]
    fn write_in_pieces(&self, callback_id: Option<CallbackId>, payload: &[u8], buffer: &mut BytesMut) {
        let head = self.head();
        let mut start = [0; START_LEN_MAX];
        let start_len = put_start(&mut start, self.variant, callback_id);
        let len = start_len + head.len() + payload.len();
        put_len(&mut start, len);
        buffer.reserve(len);
        buffer.extend_from_slice(&start[..start_len]);
        buffer.extend_from_slice(head);
        append(buffer, payload);
    }
}

impl RequestRun {
    /// Writes a request by the template of its run. Returns whether there was one.
    pub(in crate::frame) fn write(&mut self, request: &Request, buffer: &mut BytesMut) -> bool {
        let Request { callback_id, payload, .. } = request;
        if !payload.callbacks.is_empty() || payload.len() > FRAME_LEN_MAX {
            return false;
        }
        let template = match &mut self.head {
            Some((parts, template)) if parts.is_of(request) => template,
            head => {
                if !std::mem::replace(&mut self.has_begun, true) {
                    return false;
                }
                let Some(template) = HeadTemplate::of_request(request) else {
                    return false;
                };
                &mut head.insert((RequestParts::of(request), template)).1
            }
        };
        template.write_request(*callback_id, &payload.bytes, buffer);
        true
    }
}

impl Writer {
    /// Begins behind the length prefix.
    fn new() -> Self {
        Self { bytes: [0; HEAD_LEN_MAX + TEXTS_LEN_MAX + SMALL_PAYLOAD_LEN_MAX], at: LENGTH_PREFIX_LEN }
    }

    /// The head of a request, from its action to its time left.
    fn request(&mut self, request: &Request) {
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

    /// The head of an event without groups, from its topic on.
    fn event(&mut self, event: &Publish) {
        self.text(&event.topic);
        self.text(&event.publisher);
        self.byte(u8::from(event.for_all));
        self.byte(0);
    }

    /// The last part of a head: the encoding of a payload without functions.
    fn encoding(&mut self, encoding: Encoding) {
        self.byte(encoding.number());
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

    #[inline(always)]
    fn slice(&mut self, slice: &[u8]) {
        self.bytes[self.at..][..slice.len()].copy_from_slice(slice);
        self.at += slice.len();
    }
}

/// Writes the variant and the id of a frame, with room for its length before them; gives where its head begins.
#[inline]
fn put_start(frame: &mut [u8], variant: u8, callback_id: Option<CallbackId>) -> usize {
    const ID_AT: usize = LENGTH_PREFIX_LEN + 1;
    frame[LENGTH_PREFIX_LEN] = variant;
    ID_AT + callback_id.map_or(0, |callback_id| put_number(&mut frame[ID_AT..], callback_id.0))
}

/// Writes the length prefix of a frame that ends there.
#[inline]
fn put_len(frame: &mut [u8], end: usize) {
    let claimed = u32::try_from(end - LENGTH_PREFIX_LEN).expect("a frame has less than 4 GiB");
    frame[..LENGTH_PREFIX_LEN].copy_from_slice(&claimed.to_le_bytes());
}

/// Writes a number at the start of this room, which has nine bytes; gives how many it took.
#[inline]
fn put_number(room: &mut [u8], number: u64) -> usize {
    let room: &mut [u8; NUMBER_LEN_MAX] = room.first_chunk_mut().expect("there is room for any number");
    let (first, len) = match number {
        0..=250 => (number as u8, 1),
        251..=0xFFFF => (TWO_BYTES, 3),
        0x1_0000..=0xFFFF_FFFF => (FOUR_BYTES, 5),
        _ => (EIGHT_BYTES, 9),
    };
    room[0] = first;
    if len > 1 {
        // The bytes behind a shorter number are written over by what follows it.
        room[1..NUMBER_LEN_MAX].copy_from_slice(&number.to_le_bytes());
    }
    len
}

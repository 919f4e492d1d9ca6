//! The bytes of node-mesh: `bin` values, each with a list of messages. They are read message by message as they come, so that no more than
//! one message is held, however many a program packs together; and a message that cannot be read, or is too long, is given up alone.

use crate::dialect::said::DialectError;
use crate::error::Code;
use crate::limits::{FOREIGN_BATCH_LEN_MAX, FRAME_LEN_MAX, HEAD_RESERVE_LEN};
use crate::value::packed::{Item, Kind, NoValue, Scan, item, mend_text, text};
use bytes::{Buf, Bytes, BytesMut};

pub(super) const DIALECT: &str = "node-mesh";

/// The longest message, in bytes: its arguments fit into a frame.
const MESSAGE_LEN_MAX: usize = FRAME_LEN_MAX - HEAD_RESERVE_LEN;

/// A message that cannot be read: its id and type as far as they are known, and the reason.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) code: Code,
    pub(super) why: String,
}

/// The messages of a connection, as their bytes come.
#[derive(Debug)]
pub(super) struct Batches(Place);

/// The place of the next byte.
#[derive(Debug)]
enum Place {
    Between,
    /// Before the list in a `bin` of which this many bytes are left.
    InBin {
        len_left: usize,
    },
    InList {
        len_left: usize,
        messages_left: usize,
        scan: Scan,
        /// The message that is being passed over, since it is too long.
        too_long: Option<Box<PassedOver>>,
    },
}

/// A message that is too long to be held: its parts are looked at one after another, for its id and type.
#[derive(Debug)]
struct PassedOver {
    unreadable: Unreadable,
    /// How many keys and values are still to come.
    left: usize,
    /// The key of the value that comes next; none if a key comes next.
    key: Option<String>,
    scan: Scan,
    /// Whether the first bytes of the part are gone already.
    is_cut: bool,
}

/// The longest part of a message that is passed over and whose bytes are waited for.
const PART_LEN_MAX: usize = 1_024;

impl PassedOver {
    /// Begins with the first bytes of the message; gives how many of them its head takes.
    fn begin(message: &[u8]) -> (Self, usize) {
        let why = format!("it is longer than {MESSAGE_LEN_MAX} bytes");
        let unreadable =
            Unreadable { id: String::new(), kind: String::new(), code: Code::FRAME_TOO_LARGE, why };
        // A message that is no map has no id.
        let (head, left) = match item(message, 0) {
            Some(Item { kind: Kind::Map, head, within, .. }) => (head, within),
            _ => (0, 1),
        };
        (Self { unreadable, left, key: None, scan: Scan::new(), is_cut: false }, head)
    }

    /// Goes on with these bytes; gives how many of them are done with, and whether all parts have come.
    fn go_on(&mut self, bytes: &[u8]) -> Result<(usize, bool), NoValue> {
        let mut at = 0;
        while self.left > 0 {
            let Some(end) = self.scan.go_on(&bytes[at..])? else {
                if self.scan.len_min() > PART_LEN_MAX {
                    self.is_cut = true;
                    at += self.scan.let_go(bytes.len() - at);
                }
                return Ok((at, false));
            };
            let part = if self.is_cut || end > PART_LEN_MAX { "" } else { &text(&bytes[at..at + end]) };
            self.key = match self.key.take().as_deref() {
                None => Some(part.to_owned()),
                Some(key) => {
                    match key {
                        "id" => part.clone_into(&mut self.unreadable.id),
                        "type" => part.clone_into(&mut self.unreadable.kind),
                        _ => {}
                    }
                    None
                }
            };
            at += end;
            (self.left, self.scan, self.is_cut) = (self.left - 1, Scan::new(), false);
        }
        Ok((at, true))
    }
}

impl Batches {
    pub(super) fn new() -> Self {
        Self(Place::Between)
    }

    /// The next message; none while its bytes are incomplete.
    pub(super) fn next(
        &mut self,
        bytes: &mut BytesMut,
    ) -> Result<Option<Result<Bytes, Unreadable>>, DialectError> {
        loop {
            match &mut self.0 {
                Place::Between => {
                    let Some((head, claimed)) = bin(bytes)? else { return Ok(None) };
                    if claimed > FOREIGN_BATCH_LEN_MAX {
                        let max = FOREIGN_BATCH_LEN_MAX;
                        return Err(DialectError::TooLong { dialect: DIALECT, claimed, max });
                    }
                    bytes.advance(head);
                    self.0 = Place::InBin { len_left: claimed };
                }
                Place::InBin { len_left } => {
                    let len_left = *len_left;
                    let there = &bytes[..bytes.len().min(len_left)];
                    let no_list = || malformed("a bin holds a list of messages".to_owned());
                    match (item(there, 0), there.first()) {
                        (Some(Item { kind: Kind::List, head, within, .. }), _) => {
                            bytes.advance(head);
                            self.0 = Place::InList {
                                len_left: len_left - head,
                                messages_left: within,
                                scan: Scan::new(),
                                too_long: None,
                            };
                        }
                        (None, None | Some(0xDC | 0xDD)) if there.len() < len_left => return Ok(None),
                        _ => return Err(no_list()),
                    }
                }
                Place::InList { len_left: 0, messages_left: 0, .. } => self.0 = Place::Between,
                Place::InList { messages_left: 0, len_left, .. } => {
                    return Err(malformed(format!(
                        "{len_left} bytes are left over behind the messages of a bin"
                    )));
                }
                Place::InList { len_left, messages_left, scan, too_long } => {
                    let no_value =
                        |NoValue| malformed("a bin holds bytes that are no MessagePack".to_owned());
                    let cut = || malformed("a message is longer than its bin".to_owned());
                    let there = &bytes[..bytes.len().min(*len_left)];
                    let Some(passed_over) = too_long else {
                        let end = scan.go_on(there).map_err(no_value)?;
                        if scan.len_min() > *len_left || (end.is_none() && there.len() == *len_left) {
                            return Err(cut());
                        }
                        if scan.len_min() > MESSAGE_LEN_MAX {
                            let (passed_over, head) = PassedOver::begin(there);
                            *too_long = Some(Box::new(passed_over));
                            *len_left -= head;
                            bytes.advance(head);
                            continue;
                        }
                        let Some(end) = end else { return Ok(None) };
                        *len_left -= end;
                        *messages_left -= 1;
                        *scan = Scan::new();
                        return Ok(Some(Ok(mend_text(bytes.split_to(end).freeze()))));
                    };
                    let (gone, is_over) = passed_over.go_on(there).map_err(no_value)?;
                    if !is_over && there.len() == *len_left {
                        return Err(cut());
                    }
                    *len_left -= gone;
                    bytes.advance(gone);
                    if !is_over {
                        return Ok(None);
                    }
                    *messages_left -= 1;
                    *scan = Scan::new();
                    return Ok(too_long.take().map(|passed_over| Err(passed_over.unreadable)));
                }
            }
        }
    }
}

/// The head of a `bin`, and how many bytes it claims; none while the bytes of the head are incomplete.
fn bin(bytes: &[u8]) -> Result<Option<(usize, usize)>, DialectError> {
    match bytes {
        [0xC4, ..] | [0xC5, ..] | [0xC6, ..] => Ok(item(bytes, 0).map(|Item { head, len, .. }| (head, len))),
        [] => Ok(None),
        [first, ..] => Err(malformed(format!("it begins with {first:#04x}, and a bin with 0xc4 to 0xc6"))),
    }
}

pub(super) fn write_bin(content: &[u8], bytes: &mut BytesMut) {
    match content.len() {
        len @ 0..=0xFF => bytes.extend_from_slice(&[0xC4, len as u8]),
        len @ 0x100..=0xFFFF => {
            bytes.extend_from_slice(&[0xC5]);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.extend_from_slice(&[0xC6]);
            // The caller has checked the length of the message against the frame limit.
            bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    bytes.extend_from_slice(content);
}

pub(super) fn malformed(what: String) -> DialectError {
    DialectError::Malformed { dialect: DIALECT, what }
}

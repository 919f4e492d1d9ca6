//! The bytes of node-mesh: `bin` values, and the layout of the MessagePack values in them. A message with invalid bytes is found
//! here, so that only this message is given up and not the connection.

use crate::dialect::said::DialectError;
use crate::encoding::Encoding;
use crate::limits::{FRAME_LEN_MAX, HEAD_RESERVE_LEN};
use crate::payload::Payload;
use crate::value::Value;
use bytes::{Buf, Bytes, BytesMut};
use std::ops::Range;

pub(super) const DIALECT: &str = "node-mesh";

/// The longest `bin`, in bytes: it fits into a frame.
const BIN_LEN_MAX: usize = FRAME_LEN_MAX - HEAD_RESERVE_LEN;

/// The content of the next `bin`; none while its bytes are incomplete.
fn next_bin(bytes: &mut BytesMut) -> Result<Option<Bytes>, DialectError> {
    let claimed = match bytes[..] {
        [0xC4, len, ..] => Some((2, usize::from(len))),
        [0xC5, a, b, ..] => Some((3, usize::from(u16::from_be_bytes([a, b])))),
        [0xC6, a, b, c, d, ..] => Some((5, u32::from_be_bytes([a, b, c, d]) as usize)),
        [] | [0xC4..=0xC6, ..] => None,
        [first, ..] => {
            return Err(malformed(format!("it begins with {first:#04x}, and a bin with 0xc4 to 0xc6")));
        }
    };
    let Some((head, claimed)) = claimed else { return Ok(None) };
    if claimed > BIN_LEN_MAX {
        return Err(DialectError::TooLong { dialect: DIALECT, claimed, max: BIN_LEN_MAX });
    }
    if bytes.len() < head + claimed {
        return Ok(None);
    }
    bytes.advance(head);
    Ok(Some(bytes.split_to(claimed).freeze()))
}

/// A message that cannot be read: its id and type as far as they are known, and the reason.
pub(super) struct Unreadable {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) why: String,
}

/// The messages of the next `bin`; none while its bytes are incomplete.
pub(super) fn next_batch(
    bytes: &mut BytesMut,
) -> Result<Option<Vec<Result<Value, Unreadable>>>, DialectError> {
    let Some(content) = next_bin(bytes)? else { return Ok(None) };
    let content = mend_text(content);
    match Payload::new(Encoding::MessagePack, content.clone()).decode() {
        Ok(Value::List(messages)) => Ok(Some(messages.into_iter().map(Ok).collect())),
        Ok(_) => Err(malformed("a bin holds a list of messages".to_owned())),
        // A fault in one message does not make the other messages unreadable.
        Err(error) => one_by_one(&content).map(Some).ok_or_else(|| malformed(error.reason)),
    }
}

/// Reads a batch message by message, since one of its messages is invalid. None if the ends of the messages cannot be found.
fn one_by_one(content: &Bytes) -> Option<Vec<Result<Value, Unreadable>>> {
    let read = |part: Range<usize>| {
        Payload::new(Encoding::MessagePack, content.slice(part))
            .decode::<Value>()
            .map_err(|error| error.reason)
    };
    let list = item(content, 0).filter(|_| matches!(content[0], 0x90..=0x9F | 0xDC | 0xDD))?;
    let mut messages = Vec::new();
    let mut at = list.head;
    for _ in 0..list.within {
        let end = skip(content, at)?;
        messages.push(read(at..end).map_err(|why| {
            let mut unreadable = Unreadable { id: String::new(), kind: String::new(), why };
            let map = item(content, at)?;
            let mut at = at + map.head;
            for _ in 0..map.within / 2 {
                let value = skip(content, at)?;
                let end = skip(content, value)?;
                let place = match read(at..value).ok()?.into_text().as_str() {
                    "id" => &mut unreadable.id,
                    "type" => &mut unreadable.kind,
                    _ => {
                        at = end;
                        continue;
                    }
                };
                *place = read(value..end).ok()?.into_text();
                at = end;
            }
            Some(unreadable)
        }));
        at = end;
    }
    if at != content.len() {
        return None;
    }
    let known = |message: Result<Value, Option<Unreadable>>| match message {
        Ok(message) => Some(Ok(message)),
        Err(unreadable) => Some(Err(unreadable?)),
    };
    messages.into_iter().map(known).collect()
}

/// The layout of one MessagePack value.
struct Item {
    /// The length of the head, in bytes.
    head: usize,
    /// How many bytes of content follow the head: of a text, a number, an extension.
    len: usize,
    /// How many values follow the head: the elements of a list, the keys and values of a map.
    within: usize,
    is_text: bool,
}

fn item(bytes: &[u8], at: usize) -> Option<Item> {
    let marker = *bytes.get(at)?;
    let number = |len: usize| {
        let digits = bytes.get(at + 1..at + 1 + len)?;
        Some(digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
    };
    let plain = |head, len| Item { head, len, within: 0, is_text: false };
    Some(match marker {
        0x80..=0x8F => Item { within: 2 * usize::from(marker & 0x0F), ..plain(1, 0) },
        0x90..=0x9F => Item { within: usize::from(marker & 0x0F), ..plain(1, 0) },
        0xA0..=0xBF => Item { is_text: true, ..plain(1, usize::from(marker & 0x1F)) },
        0xC1 => return None,
        0xC4..=0xC6 => {
            let digits = 1 << (marker - 0xC4);
            plain(1 + digits, number(digits)?)
        }
        0xC7..=0xC9 => {
            let digits = 1 << (marker - 0xC7);
            plain(2 + digits, number(digits)?)
        }
        0xCA => plain(1, 4),
        0xCB => plain(1, 8),
        0xCC..=0xCF => plain(1, 1 << (marker - 0xCC)),
        0xD0..=0xD3 => plain(1, 1 << (marker - 0xD0)),
        0xD4..=0xD8 => plain(2, 1 << (marker - 0xD4)),
        0xD9..=0xDB => {
            let digits = 1 << (marker - 0xD9);
            Item { is_text: true, ..plain(1 + digits, number(digits)?) }
        }
        0xDC | 0xDE => Item { within: number(2)? << (marker == 0xDE) as u8, ..plain(3, 0) },
        0xDD | 0xDF => Item { within: number(4)? << (marker == 0xDF) as u8, ..plain(5, 0) },
        _ => plain(1, 0),
    })
}

/// Where a value ends. Costs no stack, however deep the value is.
fn skip(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut left = 1_usize;
    while left > 0 {
        let Item { head, len, within, .. } = item(bytes, at)?;
        at = at.checked_add(head)?.checked_add(len).filter(|end| *end <= bytes.len())?;
        left = (left - 1).checked_add(within)?;
    }
    Some(at)
}

/// Replaces each half of a character in a text by U+FFFD, which is as long. A text of JavaScript may hold such halves, lone
/// surrogates, which UTF-8 does not allow and msgpackr writes all the same.
fn mend_text(content: Bytes) -> Bytes {
    // Every half begins with such a pair of bytes, and little else does.
    if !content.windows(2).any(|pair| pair[0] == 0xED && pair[1] >= 0xA0) {
        return content;
    }
    let mut mended = BytesMut::from(&content[..]);
    let mut at = 0;
    // Bytes that are cut short stay as they are, and decoding refuses them.
    while let Some(Item { head, len, is_text, .. }) = item(&mended, at) {
        let (start, end) = (at + head, (at + head).saturating_add(len));
        if let Some(text) = mended.get_mut(start..end).filter(|_| is_text) {
            mend_halves(text);
        }
        at = end;
    }
    mended.freeze()
}

fn mend_halves(text: &mut [u8]) {
    if std::str::from_utf8(text).is_ok() {
        return;
    }
    let mut at = 0;
    while at + 3 <= text.len() {
        at += match text[at..at + 3] {
            [0xED, 0xA0..=0xBF, 0x80..=0xBF] => {
                text[at..at + 3].copy_from_slice("\u{FFFD}".as_bytes());
                3
            }
            _ => 1,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_mended_in_text_and_nowhere_else() {
        let half = [0xED, 0xA0, 0xBD];
        let bin = [&[0xC4, 3][..], &half].concat();
        let before = [&[0x93, 0xA3][..], &half, &bin, b"\xA5ab\xED\xBF\x80"].concat();
        let mended = mend_text(before.into());
        let value = Payload::new(Encoding::MessagePack, mended).decode::<Value>().unwrap();
        let text = |text: &str| Value::text(text);
        assert_eq!(
            value,
            Value::List(vec![text("\u{FFFD}"), Value::Bytes(half.to_vec()), text("ab\u{FFFD}")])
        );
        // Bytes that are cut short, or claim too much, have no end.
        for cut in [&b"\xDB\xFF\xFF\xFF\xFF\xED\xA0"[..], b"\xD9\xED\xA0", b"\xED\xA0", b"\xC7\xED\xA0"] {
            assert_eq!(mend_text(Bytes::from_static(cut)), cut);
        }
    }
}

//! The layout of MessagePack: where a value ends, which parts it has, and its tokens, one after another. No value is made here, so a value
//! keeps the form that its program gave it.

use crate::limits::DEPTH_MAX;
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// The head of one MessagePack value.
pub(crate) struct Item {
    /// The length of the head, in bytes.
    pub(crate) head: usize,
    /// How many bytes of content follow the head: of a text, a number, an extension.
    pub(crate) len: usize,
    /// How many values follow the head: the elements of a list, the keys and values of a map.
    pub(crate) within: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    List,
    Map,
    Other,
}

/// No value of MessagePack begins with this byte.
const NO_MARKER: u8 = 0xC1;

/// The head of the value that begins there. None if its bytes are not all there, or no value begins so.
pub(crate) fn item(bytes: &[u8], at: usize) -> Option<Item> {
    let marker = *bytes.get(at)?;
    let number = |len: usize| {
        let digits = bytes.get(at + 1..at + 1 + len)?;
        Some(digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
    };
    let plain = |head, len| Item { head, len, within: 0, kind: Kind::Other };
    let holding = |kind, head, within| Item { head, len: 0, within, kind };
    Some(match marker {
        0x80..=0x8F => holding(Kind::Map, 1, 2 * usize::from(marker & 0x0F)),
        0x90..=0x9F => holding(Kind::List, 1, usize::from(marker & 0x0F)),
        0xA0..=0xBF => Item { kind: Kind::Text, ..plain(1, usize::from(marker & 0x1F)) },
        NO_MARKER => return None,
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
            Item { kind: Kind::Text, ..plain(1 + digits, number(digits)?) }
        }
        0xDC => holding(Kind::List, 3, number(2)?),
        0xDD => holding(Kind::List, 5, number(4)?),
        0xDE => holding(Kind::Map, 3, 2 * number(2)?),
        0xDF => holding(Kind::Map, 5, 2 * number(4)?),
        _ => plain(1, 0),
    })
}

/// Looks for the end of a value whose bytes come in pieces: each byte is looked at once. Costs no stack, however deep the value is.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Where the next value within begins: behind all bytes that have come, if the content of a value is still to come.
    at: usize,
    /// How many values are still to come.
    left: usize,
}

/// The bytes are no MessagePack.
pub(crate) struct NoValue;

impl Scan {
    pub(crate) fn new() -> Self {
        Self { at: 0, left: 1 }
    }

    /// Goes on, with all bytes from the start of the value on; gives where the value ends, if its end has come.
    pub(crate) fn go_on(&mut self, bytes: &[u8]) -> Result<Option<usize>, NoValue> {
        while self.left > 0 && self.at < bytes.len() {
            if bytes[self.at] == NO_MARKER {
                return Err(NoValue);
            }
            let Some(Item { head, len, within, .. }) = item(bytes, self.at) else { return Ok(None) };
            let end = self.at.checked_add(head).and_then(|at| at.checked_add(len)).ok_or(NoValue)?;
            (self.at, self.left) = (end, (self.left - 1).checked_add(within).ok_or(NoValue)?);
        }
        Ok((self.left == 0 && self.at <= bytes.len()).then_some(self.at))
    }

    /// How many bytes the value takes at least.
    pub(crate) fn len_min(&self) -> usize {
        self.at
    }

    /// Lets go of the bytes that have been looked at; gives how many there are.
    pub(crate) fn let_go(&mut self, len: usize) -> usize {
        let gone = self.at.min(len);
        self.at -= gone;
        gone
    }
}

/// Where the value that begins there ends. None if its end has not come, or the bytes are no MessagePack.
pub(crate) fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    Scan::new().go_on(bytes.get(at..)?).ok().flatten().map(|len| at + len)
}

/// The keys and values of a map, as far as their bytes are there.
pub(crate) fn entries(map: &[u8]) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let head = item(map, 0).filter(|item| item.kind == Kind::Map);
    let (mut at, mut left) = head.map_or((0, 0), |item| (item.head, item.within / 2));
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let value = skip(map, at)?;
        let end = skip(map, value)?;
        let entry = (at..value, value..end);
        at = end;
        Some(entry)
    })
}

/// A short text; empty if the value is none.
pub(crate) fn text(value: &[u8]) -> String {
    let text = item(value, 0).filter(|item| item.kind == Kind::Text).and_then(|item| value.get(item.head..));
    text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default().to_owned()
}

/// Hands out the tokens of a value in their order: lists and maps as their heads, all other values whole.
///
/// # Errors
///
/// When the bytes are not one value of MessagePack, a text is not UTF-8, or the value is nested deeper than [`DEPTH_MAX`] levels.
pub(crate) fn each_token(value: &[u8], mut take: impl FnMut(&[u8], &Item)) -> Result<(), String> {
    let cut = || "its bytes are cut short".to_owned();
    // How many values are still to come in each list and map around the next token.
    let mut around: Vec<usize> = Vec::new();
    let mut at = 0;
    loop {
        let item = item(value, at).ok_or_else(cut)?;
        let end = (at + item.head).checked_add(item.len).ok_or_else(cut)?;
        let token = value.get(at..end).ok_or_else(cut)?;
        if item.kind == Kind::Text && std::str::from_utf8(&token[item.head..]).is_err() {
            return Err("a text is not UTF-8".to_owned());
        }
        take(token, &item);
        at = end;
        if item.within > 0 {
            around.push(item.within);
            if around.len() > DEPTH_MAX {
                return Err(format!("nested deeper than {DEPTH_MAX} levels"));
            }
            continue;
        }
        loop {
            match around.last_mut() {
                None if at == value.len() => return Ok(()),
                None => return Err("bytes are left over".to_owned()),
                Some(left) => {
                    *left -= 1;
                    if *left > 0 {
                        break;
                    }
                    around.pop();
                }
            }
        }
    }
}

/// The bytes that msgpackr, the codec of Node.js, writes for `undefined`.
pub(crate) const UNDEFINED: &[u8] = &[0xD4, 0, 0];

/// The value with nil in place of each `undefined`; none if it holds none.
pub(crate) fn without_undefined(value: &[u8]) -> Option<Vec<u8>> {
    if !value.windows(UNDEFINED.len()).any(|part| part == UNDEFINED) {
        return None;
    }
    let mut without = Vec::with_capacity(value.len());
    each_token(value, |token, _| {
        without.extend_from_slice(if token == UNDEFINED { &[0xC0] } else { token });
    })
    .ok()?;
    (without.len() < value.len()).then_some(without)
}

/// Replaces each half of a character in a text by U+FFFD, which is as long. A text of JavaScript may hold such halves, lone
/// surrogates, which UTF-8 does not allow and msgpackr writes all the same.
pub(crate) fn mend_text(content: Bytes) -> Bytes {
    // Every half begins with such a pair of bytes, and little else does.
    if !content.windows(2).any(|pair| pair[0] == 0xED && pair[1] >= 0xA0) {
        return content;
    }
    let mut mended = BytesMut::from(&content[..]);
    let mut at = 0;
    // Bytes that are cut short stay as they are, and reading refuses them.
    while let Some(Item { head, len, kind, .. }) = item(&mended, at) {
        let (start, end) = (at + head, (at + head).saturating_add(len));
        if let Some(text) = mended.get_mut(start..end).filter(|_| kind == Kind::Text) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoding, Payload, Value};

    #[test]
    fn half_a_character_is_mended_in_text_and_nowhere_else() {
        let half = [0xED, 0xA0, 0xBD];
        let bin = [&[0xC4, 3][..], &half].concat();
        let before = [&[0x93, 0xA3][..], &half, &bin, b"\xA5ab\xED\xBF\x80"].concat();
        let mended = mend_text(before.into());
        let value = Payload::new(Encoding::MessagePack, mended).decode::<Value>().unwrap();
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(
            value,
            Value::List(vec![text("\u{FFFD}"), Value::Bytes(half.to_vec()), text("ab\u{FFFD}")])
        );
        // Bytes that are cut short, or claim too much, have no end.
        for cut in [&b"\xDB\xFF\xFF\xFF\xFF\xED\xA0"[..], b"\xD9\xED\xA0", b"\xED\xA0", b"\xC7\xED\xA0"] {
            assert_eq!(mend_text(Bytes::from_static(cut)), cut);
        }
    }

    #[test]
    fn the_end_of_a_value_is_found_in_any_pieces() {
        let value = b"\x82\xA1a\x92\xDC\x00\x01\xC0\xCB\0\0\0\0\0\0\0\0\xA1b\xC4\x03abc";
        for piece in 1..value.len() {
            let (mut scan, mut came) = (Scan::new(), 0);
            let end = loop {
                came = (came + piece).min(value.len() + 1);
                let bytes = [&value[..], b"\xC1"].concat();
                if let Ok(Some(end)) = scan.go_on(&bytes[..came]) {
                    break end;
                }
            };
            assert_eq!(end, value.len(), "{piece}");
        }
        assert!(Scan::new().go_on(b"\x91\xC1").is_err());
    }
}

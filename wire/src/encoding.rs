//! The encodings of a payload, and the use of each. The codecs that write and read them are in `value.rs`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a payload was written. The order of the variants is the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Encoding {
    /// Bincode 2 without a check, as earlier versions wrote it: read, and never written but for a reply to such a node. Also the
    /// encoding of a payload without a value, which has no bytes.
    #[default]
    PlainBincode,
    /// MessagePack whose types are not human-readable, as earlier versions wrote it: a UUID is 16 bytes. Written to such nodes only.
    CompactMessagePack,
    /// JSON: for the command line, and for dialects of JSON.
    Json,
    /// MessagePack with the names of fields, and with types in their human-readable form: a UUID is its text. All that is called,
    /// published or passed by name.
    MessagePack,
    /// Bincode 2, standard configuration, with four bytes of a check behind it: small and fast, between typed ends whose signatures
    /// are equal.
    Bincode,
}

impl Encoding {
    /// Whether a reader can read the encoding without knowing the type.
    #[must_use]
    pub fn is_self_describing(self) -> bool {
        !matches!(self, Encoding::PlainBincode | Encoding::Bincode)
    }

    /// The number of the encoding in a frame.
    #[inline]
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// The encoding of this number.
    #[inline]
    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Encoding::PlainBincode,
            1 => Encoding::CompactMessagePack,
            2 => Encoding::Json,
            3 => Encoding::MessagePack,
            4 => Encoding::Bincode,
            _ => return None,
        })
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::PlainBincode => "plain bincode",
            Encoding::CompactMessagePack => "compact MessagePack",
            Encoding::Json => "JSON",
            Encoding::MessagePack => "MessagePack",
            Encoding::Bincode => "bincode",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_encoding_is_its_place() {
        for number in 0..=u8::MAX {
            let encoding = Encoding::of_number(number);
            assert_eq!(encoding.map(Encoding::number), (number < 5).then_some(number));
        }
    }
}

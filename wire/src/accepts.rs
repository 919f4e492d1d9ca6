//! What a provider reads, as its offer says: [`Accepts`], with the [`Signature`] of a typed action. The tracing of types is in `value/trace.rs`.

use crate::encoding::Encoding;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The shape of the arguments and the reply of a typed action, as a number: two ends write and read the same bytes if their
/// signatures are equal. Nothing but equality is asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(pub u64);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:016x})", self.0)
    }
}

/// What a provider reads. The order of the variants is the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Accepts {
    /// A provider of an earlier version, which reads plain bincode.
    PlainBincode,
    /// A provider of an earlier version, which reads compact MessagePack.
    CompactMessagePack,
    /// A program of another protocol, which reads any encoding that describes itself, and takes its arguments as a list.
    List,
    /// Any encoding that describes itself.
    MessagePack,
    /// Any encoding that describes itself, and bincode from ends with this signature.
    Typed(Signature),
}

impl Accepts {
    /// What a node of an earlier version is told instead, so that it writes what this provider reads.
    #[must_use]
    pub fn as_before(self) -> Self {
        match self {
            Accepts::MessagePack | Accepts::Typed(_) => Accepts::CompactMessagePack,
            other => other,
        }
    }

    /// Whether the provider is of an earlier version, and knows neither signatures nor human-readable MessagePack.
    #[must_use]
    pub fn is_of_before(self) -> bool {
        matches!(self, Accepts::PlainBincode | Accepts::CompactMessagePack)
    }

    /// The signature of a typed action.
    #[must_use]
    pub fn signature(self) -> Option<Signature> {
        match self {
            Accepts::Typed(signature) => Some(signature),
            _ => None,
        }
    }
}

/// How a value is written: in an encoding; if that is bincode, with a check that begins with the signature of an action. Without
/// a signature, the check begins with zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Form {
    encoding: Encoding,
    seed: u64,
}

/// What the check of a reply adds to the signature, so that arguments are no reply.
const OF_REPLY: u64 = 0x9E37_79B9_7F4A_7C15;

impl Form {
    /// Bincode, for the arguments of an action with this signature.
    #[inline]
    #[must_use]
    pub fn arguments(signature: Signature) -> Self {
        Self { encoding: Encoding::Bincode, seed: signature.0 }
    }

    /// Bincode, for the reply of an action with this signature.
    #[inline]
    #[must_use]
    pub fn reply(signature: Signature) -> Self {
        Self { encoding: Encoding::Bincode, seed: signature.0 ^ OF_REPLY }
    }

    /// The encoding.
    #[inline]
    #[must_use]
    pub fn encoding(self) -> Encoding {
        self.encoding
    }

    /// The number that the check of bincode begins with.
    #[inline]
    pub(crate) fn seed(self) -> u64 {
        self.seed
    }
}

impl From<Encoding> for Form {
    #[inline]
    fn from(encoding: Encoding) -> Self {
        Self { encoding, seed: 0 }
    }
}

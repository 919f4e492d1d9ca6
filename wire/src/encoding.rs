//! The encodings of a payload, and the use of each. The codecs that write and read them are in `value.rs`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a payload was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Encoding {
    /// Bincode 2, standard configuration: small and fast, both ends know the type. The default for calls.
    #[default]
    Bincode,
    /// MessagePack with the names of fields: the default for events, whose readers may be of other versions and languages.
    MessagePack,
    /// JSON: for the command line, and for dialects of JSON.
    Json,
}

impl Encoding {
    /// Whether a reader can read the encoding without knowing the type.
    #[must_use]
    pub fn is_self_describing(self) -> bool {
        !matches!(self, Encoding::Bincode)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::Bincode => "bincode",
            Encoding::MessagePack => "MessagePack",
            Encoding::Json => "JSON",
        })
    }
}

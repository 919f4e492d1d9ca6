//! The two numbers of a failed call: a stable [`Code`], and the [`Fate`] of the action. `CallError`, which carries both, may hold a payload,
//! so it is in `payload.rs`.

use crate::limits::ERROR_MESSAGE_LEN_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What happened to the action of a call that failed. It decides whether the call may be made again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Fate {
    /// The action did not run and will not: calling again is safe.
    NotSent,
    /// The request was sent, and its answer did not come: the action may have run, or may still run.
    Unknown,
    /// The action ran and failed, or its provider refused the call and says so. Calling again is a second call.
    Failed,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::NotSent => "not sent",
            Fate::Unknown => "may have run",
            Fate::Failed => "failed",
        })
    }
}

/// The number of an error. Numbers below 1,000 belong to meshwork; 0 to 3 are those of node-mesh. An application chooses numbers
/// from 1,000 on, or uses [`Code::UNKNOWN`] and a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Code = Code($number);)*

            /// The stable upper-case name, for the codes of meshwork.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Success. No error has this code.
    SUCCESS = 0;
    /// The action failed and gave no code of its own.
    UNKNOWN = 1;
    /// The deadline passed before the reply came.
    REQUEST_TIMEOUT = 2;
    /// The bind was refused: wrong credentials, a name that is taken, another version.
    BIND_ERROR = 3;
    /// The connection did not bind, or its bind was not answered, within the bind deadline.
    BIND_TIMEOUT = 4;
    /// No node offers the action.
    ACTION_NOT_FOUND = 5;
    /// There is no room: too much in flight, a full outbox, no permit left.
    OVERLOADED = 6;
    /// The caller dropped the call.
    CANCELLED = 7;
    /// The provider went away before it answered.
    PROVIDER_LOST = 8;
    /// The caller's own link went away.
    LINK_LOST = 9;
    /// The permit of the caller does not cover this.
    NOT_PERMITTED = 10;
    /// The arguments or the reply are not of the expected shape.
    CANNOT_DECODE = 11;
    /// The arguments or the reply cannot be written in the encoding.
    CANNOT_ENCODE = 12;
    /// The responder panicked.
    PANICKED = 13;
    /// The node finishes the requests in flight and takes no more.
    DRAINING = 14;
    /// The arguments or the reply do not fit into a frame.
    FRAME_TOO_LARGE = 15;
    /// The name of an action, a topic, a pattern or a node is not one.
    BAD_NAME = 16;
    /// The callback that was called is gone.
    CALLBACK_GONE = 17;
    /// The request was relayed between meshes too often: it goes round.
    TOO_MANY_HOPS = 18;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// How much of a text fits into an error, in bytes: whole characters only.
pub(crate) fn cut_len(text: &str) -> usize {
    let mut len = text.len().min(ERROR_MESSAGE_LEN_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_seed_are_kept() {
        assert_eq!(Code::SUCCESS.0, 0);
        assert_eq!(Code::UNKNOWN.0, 1);
        assert_eq!(Code::REQUEST_TIMEOUT.0, 2);
        assert_eq!(Code::BIND_ERROR.0, 3);
    }
}

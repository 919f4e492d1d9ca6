//! The numbers that frames carry: ids of callbacks and sessions.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of a request, a registration or a lent function, to which a response, a cancel or an invoke refers. The waiting end, or
/// the lender, draws it, and never uses it twice on a connection, so a late reply resolves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallbackId(pub u64);

/// The number of one session of a master, never used twice by that master.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

impl fmt::Display for CallbackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}

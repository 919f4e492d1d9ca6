//! How a command ends. `main.rs` decides the exit code and the message of each failure.

use meshwork::{CallError, Code};
use std::fmt;

/// Why a command failed.
pub(super) enum Failure {
    /// The call failed.
    Call(CallError),
    /// The command was used in a wrong way.
    Use(String),
    /// The bind failed, or the master refused the branch later.
    Bind(String),
    /// The reader of stdout has gone, which is no failure of the command.
    BrokenPipe,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Call(error) => error.fmt(f),
            Failure::Use(message) | Failure::Bind(message) => f.write_str(message),
            Failure::BrokenPipe => f.write_str("the reader of stdout has gone"),
        }
    }
}

/// The end of a command. All its output has been written.
pub(super) type Done = Result<(), Failure>;

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        if error.code() == Code::BAD_NAME {
            return Failure::Use(error.message().to_owned());
        }
        Failure::Call(error)
    }
}

//! How a command ends. `main.rs` decides the exit code and the message of each failure.

use meshwork::{CallError, Code};

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

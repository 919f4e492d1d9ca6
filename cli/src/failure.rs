//! How a command ends. Which exit code a failure has, and what is said of it, is decided in `main.rs`.

use meshwork::{CallError, Code};

/// How a command ends when it does not work.
pub(super) enum Failure {
    /// The call failed.
    Call(CallError),
    /// It was used in a wrong way.
    Use(String),
    /// The bind failed.
    Bind(String),
    /// Whoever reads stdout has gone.
    BrokenPipe,
}

/// The end of a command: all it has to say has been said.
pub(super) type Done = Result<(), Failure>;

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        if error.code() == Code::BAD_NAME {
            return Failure::Use(error.message().to_owned());
        }
        Failure::Call(error)
    }
}

//! Why bytes are not frames.

use crate::limits::CALLBACKS_PER_REQUEST_MAX;
use std::io;

/// Why bytes are not frames. The link is closed: where the next frame begins cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame claims more than the connection allows.
    #[error("a frame claims {claimed} bytes, and {max} are allowed; is the other end a meshwork node?")]
    TooLong {
        /// The claimed length, in bytes.
        claimed: usize,
        /// The longest allowed length, in bytes.
        max: usize,
    },
    /// The bytes are no frame of the protocol.
    #[error("a frame cannot be read: {0}")]
    Malformed(String),
    /// A frame passes more functions than a request may.
    #[error("a frame passes {0} functions, and {max} are allowed", max = CALLBACKS_PER_REQUEST_MAX)]
    TooManyCallbacks(usize),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Cut,
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

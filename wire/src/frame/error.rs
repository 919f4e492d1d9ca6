//! Why bytes are not frames.

use crate::limits::CALLBACKS_PER_REQUEST_MAX;
use crate::spoken::spoken;
use std::io;

/// Why bytes are not frames. The link is closed: where the next frame begins cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame claims more than the connection allows.
    #[error("a frame claims {claimed} bytes, and {max} are allowed; is the other end a meshwork node?{}", looks_like(*claimed))]
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

/// What the other end may be. The length of a frame is the first that it sends: a program of another protocol begins otherwise.
fn looks_like(claimed: usize) -> String {
    let first = u32::try_from(claimed).map(u32::to_le_bytes).unwrap_or_default();
    spoken(&first).map(|spoken| format!(" It looks like {spoken}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_another_protocol_is_named() {
        for (first, named) in [
            (b"{\"me", "node? It looks like dnode"),
            (b"GET ", "node? It looks like HTTP"),
            (b"17\n{", "node? It looks like light_rpc"),
        ] {
            let claimed = u32::from_le_bytes(*first) as usize;
            let error = FrameError::TooLong { claimed, max: 7 }.to_string();
            assert!(error.ends_with(named), "{error}");
        }
        let long = FrameError::TooLong { claimed: 17 * 1024 * 1024, max: 16 * 1024 * 1024 }.to_string();
        assert!(long.ends_with("is the other end a meshwork node?"), "{long}");
    }
}

//! Any bytes are a stream: its frames are read, written and read again, and are the same however the stream is cut.

use bytes::BytesMut;
use meshwork_wire::limits::BIND_FRAME_LEN_MAX;
use meshwork_wire::{Frame, FrameCodec};
use tokio_util::codec::Decoder;

/// Reads the stream in one piece and in small ones, and what was read once more.
pub(crate) fn run(stream: &[u8]) {
    let frames = read(stream, stream.len().max(1));
    let chunk_len = stream.first().map_or(1, |byte| usize::from(byte % 16) + 1);
    assert_eq!(read(stream, chunk_len), frames, "in chunks of {chunk_len}");

    let mut written = BytesMut::new();
    for frame in &frames {
        let start = written.len();
        frame.encode(&mut written);
        assert!(written.len() - start <= BIND_FRAME_LEN_MAX + 4, "it was read from less: {frame:?}");
    }
    assert_eq!(read(&written, written.len().max(1)), frames, "written and read again");
}

/// The frames until the first error, from a stream that comes in chunks.
fn read(stream: &[u8], chunk_len: usize) -> Vec<Frame> {
    let (mut codec, mut buffer, mut frames) = (FrameCodec::unbound(), BytesMut::new(), Vec::new());
    for chunk in stream.chunks(chunk_len) {
        buffer.extend_from_slice(chunk);
        loop {
            let Ok(block) = codec.decode(&mut buffer) else { return frames };
            let Some(block) = block else { break };
            for frame in block.frames() {
                let Ok(frame) = frame else { return frames };
                frames.push(frame);
            }
        }
    }
    frames
}

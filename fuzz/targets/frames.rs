//! Any bytes are a stream: its frames are read, written and read again, and are equal however the stream is cut.

use bytes::BytesMut;
use meshwork_wire::limits::BIND_FRAME_LEN_MAX;
use meshwork_wire::{Block, Frame, FrameCodec, Next, Publish, Request};
use tokio_util::codec::Decoder;

/// Reads the stream in one piece and in small pieces, then writes its frames and reads them again.
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
            let before = frames.len();
            let in_runs = read_in_runs(block.clone());
            for frame in block.frames() {
                let Ok(frame) = frame else { return frames };
                frames.push(frame);
            }
            assert_eq!(in_runs, frames[before..], "read in runs");
        }
    }
    frames
}

/// The frames of a block until the first error, read in runs of requests and of events.
fn read_in_runs(block: Block) -> Vec<Frame> {
    let (mut frames, mut read) = (block.frames(), Vec::new());
    while let Some(next) = frames.read_next() {
        match next {
            Next::Request(first) => {
                read.push(Frame::Request(first.clone()));
                while let Some((callback_id, payload)) = frames.next_request_of_run() {
                    let payload = payload.share();
                    read.push(Frame::Request(Request { callback_id, payload, ..first.clone() }));
                }
            }
            Next::Event(first) => {
                read.push(Frame::Publish(first.clone()));
                while let Some(payload) = frames.next_event_of_run() {
                    read.push(Frame::Publish(Publish { payload: payload.share(), ..first.clone() }));
                }
            }
            next => read.extend(next.into_frame()),
        }
    }
    read
}

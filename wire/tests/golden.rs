//! The bytes of every frame, frozen: nodes of different versions talk to each other, so the bytes are the protocol.

mod samples;

use bytes::{Bytes, BytesMut};
use meshwork_wire::{Broadcast, Frame, FrameCodec, FrameRef, Invoke, Publish, Request, Wants};
use samples::every_golden;
use tokio_util::codec::Decoder;

const FROZEN: &str =
    "the bytes are the protocol: variants and fields may only be appended, never changed or moved";

/// The number of each variant. The match has no wildcard: a new variant does not compile until it is here, and the test does not pass
/// until the variant has a golden frame.
fn number(frame: &Frame) -> u8 {
    match frame {
        Frame::Bind(_) => 0,
        Frame::Bound(_) => 1,
        Frame::Refused(_) => 2,
        Frame::Register(_) => 3,
        Frame::Unregister(_) => 4,
        Frame::Online(_) => 5,
        Frame::Offline(_) => 6,
        Frame::Describe(_) => 7,
        Frame::Described(_) => 8,
        Frame::Request(Request { headers, .. }) if !headers.is_empty() => 28,
        Frame::Request(Request { hops: 1.., .. }) => 27,
        Frame::Request(_) => 9,
        Frame::Response(_) => 10,
        Frame::Cancel(_) => 11,
        Frame::Invoke(Invoke { wants: Wants::End, .. }) => 21,
        Frame::Invoke(Invoke { wants: Wants::Stream(_), .. }) => 41,
        Frame::Invoke(_) => 12,
        Frame::Release(_) => 13,
        Frame::Subscribe(_) => 14,
        Frame::Unsubscribe(_) => 15,
        Frame::Publish(Publish { headers, .. }) if !headers.is_empty() => 29,
        Frame::Publish(_) => 16,
        Frame::Broadcast(Broadcast { headers, .. }) if !headers.is_empty() => 30,
        Frame::Broadcast(_) => 17,
        Frame::Ping => 18,
        Frame::Pong => 19,
        Frame::Drain => 20,
        Frame::ExtendedBind(_) => 22,
        Frame::ExtendedBound(_) => 23,
        Frame::Drained => 24,
        Frame::GiveBack(Publish { headers, .. }) if !headers.is_empty() => 31,
        Frame::GiveBack(_) => 25,
        Frame::DescribeAfter(_) => 26,
        Frame::KeepLast(_) => 32,
        Frame::Kept(_) => 33,
        Frame::AskEra(_) => 34,
        Frame::SubscribeToLast(_) => 35,
        Frame::LastValue(_) => 36,
        Frame::OpenStream(_) => 37,
        Frame::Started(_) => 38,
        Frame::Item(_) => 39,
        Frame::Granted(_) => 40,
        Frame::Labels(_) => 42,
        Frame::FindProviders(_) => 43,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut buffer = BytesMut::new();
    frame.encode(&mut buffer);
    buffer
}

#[test]
fn every_frame_is_written_as_its_golden_bytes() {
    for golden in every_golden() {
        assert_eq!(hex(&encoded(&golden.frame)), hex(&golden.bytes()), "{}: {FROZEN}", golden.name);
    }
}

#[test]
fn golden_bytes_are_read_as_their_frame() {
    for golden in every_golden() {
        let body = Bytes::from(golden.bytes()).slice(4..);
        let frame = Frame::decode(&body).unwrap_or_else(|error| panic!("{}: {error}; {FROZEN}", golden.name));
        assert_eq!(frame, golden.frame, "{}: {FROZEN}", golden.name);
    }
}

#[test]
fn a_head_without_its_payload_is_the_beginning_of_the_same_bytes() {
    for golden in every_golden() {
        let mut buffer = BytesMut::new();
        FrameRef::from(&golden.frame).encode_without_payload(&mut buffer);
        if let Some(payload) = golden.frame.payload() {
            buffer.extend_from_slice(&payload.bytes);
        }
        assert_eq!(hex(&buffer), hex(&golden.bytes()), "{}: {FROZEN}", golden.name);
    }
}

#[test]
fn a_stream_of_all_golden_bytes_is_read_as_all_frames() {
    let mut stream: BytesMut = every_golden().iter().flat_map(|golden| golden.bytes()).collect();
    let mut codec = FrameCodec::unbound();
    let mut frames = Vec::new();
    while let Some(block) = codec.decode(&mut stream).unwrap() {
        frames.extend(block.frames().map(Result::unwrap));
    }
    assert_eq!(frames, every_golden().into_iter().map(|golden| golden.frame).collect::<Vec<_>>());
}

#[test]
fn a_length_is_that_of_head_and_payload_with_the_lowest_byte_first() {
    for golden in every_golden() {
        let bytes = golden.bytes();
        let len = u32::try_from(bytes.len() - 4).unwrap().to_le_bytes();
        assert_eq!(bytes[..4], len, "{}: {FROZEN}", golden.name);
    }
}

#[test]
fn a_variant_has_the_number_that_it_was_given_first() {
    for golden in every_golden() {
        assert_eq!(golden.bytes()[4], number(&golden.frame), "{}: {FROZEN}", golden.name);
    }
}

#[test]
fn every_variant_has_a_golden_frame() {
    let golden: Vec<u8> = every_golden().iter().map(|golden| golden.bytes()[4]).collect();
    for number in 0..=250 {
        // The error for an unknown number names the number of variants. Any other error, or none, says that the number is known.
        let read = Frame::decode(&Bytes::from(vec![number]));
        let unknown = read.err().is_some_and(|error| error.to_string().contains("expected variant index"));
        assert_ne!(
            golden.contains(&number),
            unknown,
            "variant {number} has no golden frame, or is gone; {FROZEN}"
        );
    }
}

//! The memory that a stranger's bytes may cause to be allocated, counted. The counter replaces the allocator of this binary and counts per thread; a
//! buffer that grows counts twice while it is copied, so that no figure here is too small.

use allocation_counter::{AllocationInfo, measure};
use bytes::{Bytes, BytesMut};
use meshwork_wire::limits::{
    BIND_FRAME_LEN_MAX, BLOCK_FRAMES_MAX, FRAME_LEN_MAX, HEAD_ELEMENTS_MAX, READ_BUFFER_LEN_MAX,
};
use meshwork_wire::{
    CallbackId, Encoding, Frame, FrameCodec, FrameError, Headers, Payload, Publish, Request, Response,
};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, hint::black_box, time::Duration};
use tokio_util::codec::Decoder;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A number of eight bytes, as bincode writes lengths that do not fit into less.
fn long(number: u64) -> Vec<u8> {
    let mut bytes = vec![253];
    bytes.extend(number.to_le_bytes());
    bytes
}

/// The cost of reading a frame, and whether the bytes are one.
fn decoding(body: Vec<u8>) -> (AllocationInfo, Result<(), FrameError>) {
    let body = Bytes::from(body);
    let mut read = Ok(());
    let cost = measure(|| read = Frame::decode(&body).map(drop));
    (cost, read)
}

fn request(callback_id: u64) -> Frame {
    Frame::Request(Request {
        callback_id: CallbackId(callback_id),
        action: "math/add".into(),
        node: "".into(),
        caller: "alice".into(),
        time_left: Some(Duration::from_secs(10)),
        hops: 0,
        headers: Headers::none(),
        payload: Payload::new(Encoding::PlainBincode, &[2, 3][..]),
    })
}

fn stream(frames: impl IntoIterator<Item = Frame>) -> BytesMut {
    let mut buffer = BytesMut::new();
    for frame in frames {
        frame.encode(&mut buffer);
    }
    buffer
}

/// The cost of cutting and reading a stream, and the number of its frames.
fn reading(mut stream: BytesMut) -> (AllocationInfo, usize) {
    let mut frames = 0;
    let cost = measure(|| {
        let block =
            FrameCodec::new(FRAME_LEN_MAX).decode(&mut stream).expect("whole frames").expect("at least one");
        for frame in block.frames() {
            drop(black_box(frame.expect("a frame")));
            frames += 1;
        }
    });
    (cost, frames)
}

#[test]
fn a_head_that_lies_about_a_list_costs_little() {
    let lists: [&[u8]; 9] = [
        &[0, 1, 1, b'a', 0],
        &[0, 1, 1, b'a', 0, 0],
        &[3, 1],
        &[4, 1],
        &[5, 1, b'a', 1, 1],
        &[8, 1],
        &[8, 1, 1, 1, b'a'],
        &[9, 1, 1, b'a', 0, 0, 0, 0],
        &[16, 1, b'a', 0, 1],
    ];
    for list in lists {
        for claim in [3, 70_000, HEAD_ELEMENTS_MAX as u64, 1 << 24, 1 << 32, 1 << 60, u64::MAX] {
            let (cost, read) = decoding([list, &long(claim)].concat());
            assert!(read.is_err(), "{list:?}");
            // Serde makes room for at most 1 MiB before it has seen an element.
            assert!(cost.bytes_total <= MIB + 4 * KIB, "{list:?} claims {claim}: {cost:?}");
        }
    }
}

/// Eighteen bytes before the bind once made the reader clear 16 MiB, for a name that was not there.
#[test]
fn a_head_that_lies_about_a_text_costs_nothing() {
    let texts: [&[u8]; 7] =
        [&[0, 1], &[3, 1, 1], &[7, 1], &[9, 1], &[10, 1, 1, 1, 0], &[16], &[16, 1, b'a', 0, 1, 1]];
    for text in texts {
        for claim in [3, 70_000, 16_000_000, 1 << 32, 1 << 60, u64::MAX] {
            let (cost, read) = decoding([text, &long(claim), b"ab"].concat());
            assert!(read.is_err(), "{text:?}");
            assert!(cost.bytes_total <= 4 * KIB, "{text:?} claims {claim}: {cost:?}");
        }
    }
}

/// Such a frame once became half a gigabyte: an element takes one to three bytes of the frame, and 32 to 120 when it has been read.
#[test]
fn the_longest_frames_of_the_shortest_elements_cost_less_than_a_frame() {
    let many = |head: &[u8], element: &[u8]| {
        let elements = (FRAME_LEN_MAX - head.len() - 9) / element.len();
        [head, &long(elements as u64), &element.repeat(elements)].concat()
    };
    let frames = [
        many(&[0, 1, 1, b'a', 0], &[0, 0, 0]),
        many(&[0, 1, 1, b'a', 0, 0], &[1, b'a', 0]),
        many(&[3, 1], &[0, 0, 0]),
        many(&[4, 1], &[0]),
        many(&[5, 1, b'a', 1, 1], &[0, 0]),
        many(&[8, 1], &[0, 0, 0]),
        many(&[8, 1], &[0, 3, 0, 0, 0, 0]),
        many(&[9, 1, 1, b'a', 0, 0, 0, 0], &[1]),
        many(&[16, 1, b'a', 0, 1], &[0]),
    ];
    for frame in frames {
        let variant = frame[0];
        let (cost, read) = decoding(frame);
        assert!(read.is_err(), "variant {variant}");
        assert!(cost.bytes_max <= FRAME_LEN_MAX as u64, "variant {variant}: {cost:?}");
    }
}

#[test]
fn as_many_elements_as_a_head_may_have_cost_less_than_two_frames() {
    // Empty descriptions, the largest elements in memory, as many as are allowed. The list is copied while it grows, and counts twice
    // then.
    let elements = [0, 0, 0].repeat(HEAD_ELEMENTS_MAX);
    let (cost, read) = decoding([&[8, 1][..], &long(HEAD_ELEMENTS_MAX as u64), &elements].concat());
    assert!(read.is_ok());
    assert!(cost.bytes_max <= 2 * FRAME_LEN_MAX as u64, "{cost:?}");
}

#[test]
fn a_length_prefix_alone_costs_one_read() {
    for (mut codec, limit) in
        [(FrameCodec::unbound(), BIND_FRAME_LEN_MAX), (FrameCodec::new(FRAME_LEN_MAX), FRAME_LEN_MAX)]
    {
        let prefix = u32::try_from(limit).unwrap().to_le_bytes();
        let cost = measure(|| {
            let mut buffer = BytesMut::from(&prefix[..]);
            assert!(matches!(codec.decode(&mut buffer), Ok(None)));
        });
        assert!(cost.bytes_total <= 8 * KIB, "{cost:?}");
    }
}

#[test]
fn a_frame_on_its_way_costs_what_has_come_and_not_what_is_claimed() {
    let mut codec = FrameCodec::new(FRAME_LEN_MAX);
    let come = 1_000_000;
    let cost = measure(|| {
        let mut buffer = BytesMut::from(&u32::try_from(FRAME_LEN_MAX).unwrap().to_le_bytes()[..]);
        for _ in 0..come / 1_000 {
            assert!(matches!(codec.decode(&mut buffer), Ok(None)));
            buffer.extend_from_slice(&[0; 1_000]);
        }
    });
    // The buffer doubles, and while it is copied, its old half counts too.
    assert!(cost.bytes_max <= 3 * (come + READ_BUFFER_LEN_MAX as u64), "{cost:?}");
}

#[test]
fn an_endless_error_message_costs_no_more_than_its_frame() {
    let message = vec![b'x'; FRAME_LEN_MAX - 100];
    let (cost, read) =
        decoding([&[10, 1, 1, 1, 0, 0][..], &long(message.len() as u64), &message, &[0]].concat());
    assert!(read.is_ok());
    assert!(cost.bytes_max <= FRAME_LEN_MAX as u64 + 8 * KIB, "{cost:?}");
}

#[test]
fn a_block_of_requests_costs_as_many_allocations_as_one() {
    let (one, _) = reading(stream([request(1)]));
    let (block, frames) = reading(stream((0..BLOCK_FRAMES_MAX as u64).map(request)));
    assert_eq!(frames, BLOCK_FRAMES_MAX);
    assert_eq!(block.count_total, one.count_total, "{block:?}");
    assert!(block.count_total <= 2, "{block:?}");
}

#[test]
fn a_block_of_replies_or_of_events_costs_as_many_allocations_as_one() {
    let payload = Payload::new(Encoding::MessagePack, &[0x92, 2, 3][..]);
    let reply = Frame::Response(Response { callback_id: CallbackId(1), outcome: Ok(payload.clone()) });
    let event = Frame::Publish(Publish {
        topic: "sub/test".into(),
        publisher: "alice".into(),
        for_all: true,
        groups: Vec::new(),
        headers: Headers::none(),
        payload,
    });
    for frame in [reply, event] {
        let (one, _) = reading(stream([frame.clone()]));
        let (block, frames) = reading(stream(vec![frame; BLOCK_FRAMES_MAX]));
        assert_eq!(frames, BLOCK_FRAMES_MAX);
        assert_eq!(block.count_total, one.count_total, "{block:?}");
    }
}

#[test]
fn a_frame_is_written_into_an_outbox_with_room_without_an_allocation() {
    let (request, mut outbox) = (request(1), BytesMut::with_capacity(1_024));
    let cost = measure(|| request.encode(&mut outbox));
    assert_eq!(cost.count_total, 0, "{cost:?}");
}

#[test]
fn a_small_payload_takes_one_allocation_of_its_length_and_a_larger_one_shares() {
    for encoding in [Encoding::Bincode, Encoding::MessagePack, Encoding::Json] {
        let keep = |value: &str| {
            let mut kept = Vec::with_capacity(1_000);
            let cost = measure(|| {
                kept.extend((0..1_000).map(|_| Payload::encode(encoding, value).expect("an encoding")));
            });
            (cost, kept[0].len())
        };
        let (cost, len) = keep("small");
        assert!(cost.count_total <= 1_000, "{encoding}: {cost:?}");
        assert!(cost.bytes_current <= i64::try_from(1_000 * len).expect("few"), "{encoding}: {cost:?}");
        let (cost, _) = keep(&"x".repeat(100));
        assert!(cost.count_total <= 100, "{encoding}: {cost:?}");
    }
}

/// The rest of the buffer of a large payload was once kept, and the next small payload kept all of that buffer.
#[test]
fn a_large_payload_leaves_nothing_behind() {
    let large = vec![0x55_u8; 3_000_000];
    for encoding in [Encoding::Bincode, Encoding::MessagePack, Encoding::Json] {
        drop(Payload::encode(encoding, &2));
        let mut small = None;
        let cost = measure(|| {
            drop(Payload::encode(encoding, &large));
            small = Some(Payload::encode(encoding, &2));
        });
        assert!(cost.bytes_current <= 16 * 1024, "{encoding}: {cost:?}");
        assert!(small.is_some());
    }
}

/// A value whose first part can be written, and whose second part cannot.
#[derive(Serialize)]
struct Unwritable<'a>(&'a [u8], Option<()>);

#[test]
fn a_payload_that_cannot_be_written_leaves_nothing_behind() {
    let large = vec![0x55_u8; 300_000];
    drop(Payload::encode(Encoding::Json, &2));
    let value = Unwritable(&large, Some(()));
    let cost = measure(|| assert!(Payload::encode(Encoding::Json, &value).is_err()));
    assert!(cost.bytes_current <= 16 * 1024, "{cost:?}");
    assert_eq!(&Payload::encode(Encoding::Json, &2).unwrap().bytes[..], b"2");
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "nobody reads what is never made")]
struct Large {
    name: String,
    rows: Vec<[u64; 32]>,
    index: HashMap<u64, [u64; 32]>,
}

#[test]
fn a_payload_that_lies_costs_little() {
    let lies = [
        (Encoding::PlainBincode, long(1 << 60)),
        (Encoding::PlainBincode, long(16_000_000)),
        (Encoding::PlainBincode, [&[0][..], &long(70_000)].concat()),
        (Encoding::PlainBincode, [&[0, 0][..], &long(70_000)].concat()),
        // An array, a map, a text and bytes of four billion.
        (Encoding::MessagePack, vec![0xdd, 0xff, 0xff, 0xff, 0xff]),
        (Encoding::MessagePack, vec![0x93, 0xa0, 0xdd, 0xff, 0xff, 0xff, 0xff]),
        (Encoding::MessagePack, vec![0x93, 0xa0, 0x90, 0xdf, 0xff, 0xff, 0xff, 0xff]),
        (Encoding::MessagePack, vec![0x93, 0xdb, 0xff, 0xff, 0xff, 0xff]),
        (Encoding::MessagePack, vec![0x93, 0xc6, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (encoding, bytes) in lies {
        let payload = Payload::new(encoding, bytes);
        let cost = measure(|| assert!(payload.decode::<Large>().is_err()));
        assert!(cost.bytes_max <= 2 * MIB + 64 * KIB, "{payload:?}: {cost:?}");
    }
}

//! The bytes of strangers: frames that are cut or lie, other protocols, noise. All end in errors or frames. The memory that they may
//! take is tested in `allocation.rs`.

mod samples;

use bytes::{Bytes, BytesMut};
use meshwork_wire::limits::{
    BIND_FRAME_LEN_MAX, CALLBACKS_PER_REQUEST_MAX, ERROR_MESSAGE_LEN_MAX, ERROR_NAME_LEN_MAX, FRAME_LEN_MAX,
    HEAD_ELEMENTS_MAX, REASON_LEN_MAX,
};
use meshwork_wire::{
    CallbackId, Encoding, Frame, FrameCodec, FrameError, Headers, Pattern, Payload, Request, Response,
    SubscriptionKey,
};
use samples::every_golden;
use tokio_util::codec::Decoder;

const BIND: u8 = 0;
const REGISTER: u8 = 3;
const UNREGISTER: u8 = 4;
const ONLINE: u8 = 5;
const DESCRIBE: u8 = 7;
const DESCRIBED: u8 = 8;
const REQUEST: u8 = 9;
const RESPONSE: u8 = 10;
const UNSUBSCRIBE: u8 = 15;
const PUBLISH: u8 = 16;
const DRAIN: u8 = 20;

/// A number of eight bytes, as bincode writes lengths that do not fit into less.
fn long(number: u64) -> Vec<u8> {
    let mut bytes = vec![253];
    bytes.extend(number.to_le_bytes());
    bytes
}

fn decode(bytes: impl Into<Bytes>) -> Result<Frame, FrameError> {
    Frame::decode(&bytes.into())
}

#[track_caller]
fn malformed(bytes: impl Into<Bytes>) -> String {
    match decode(bytes) {
        Err(FrameError::Malformed(reason)) => reason,
        other => panic!("it should be malformed, and is {other:?}"),
    }
}

#[track_caller]
fn too_long(codec: &mut FrameCodec, bytes: &[u8]) -> String {
    match codec.decode(&mut BytesMut::from(bytes)) {
        Err(error @ FrameError::TooLong { .. }) => error.to_string(),
        other => panic!("it should be too long, and is {other:?}"),
    }
}

/// All frames that a codec finds until the first error, and whether there was one.
fn frames(codec: &mut FrameCodec, buffer: &mut BytesMut) -> (Vec<Frame>, Option<FrameError>) {
    let mut frames = Vec::new();
    loop {
        match codec.decode(buffer) {
            Ok(Some(block)) => {
                for frame in block.frames() {
                    match frame {
                        Ok(frame) => frames.push(frame),
                        Err(error) => return (frames, Some(error)),
                    }
                }
            }
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// Noise that is equal in each run of the test.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // Xorshift, as in Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).expect("it fits")).expect("it is smaller")
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

#[test]
fn a_head_that_is_cut_anywhere_is_an_error() {
    for golden in every_golden() {
        let body = Bytes::from(golden.bytes()).slice(4..);
        let head_len = body.len() - golden.frame.payload().map_or(0, Payload::len);
        for end in 0..head_len {
            let read = Frame::decode(&body.slice(..end));
            assert!(matches!(read, Err(FrameError::Malformed(_))), "{} cut at {end}: {read:?}", golden.name);
        }
    }
}

#[test]
fn a_payload_that_is_cut_is_a_shorter_payload_since_nobody_opens_it_here() {
    for golden in every_golden() {
        let body = Bytes::from(golden.bytes()).slice(4..);
        let Some(payload) = golden.frame.payload() else { continue };
        for cut in 0..=payload.len() {
            let read = Frame::decode(&body.slice(..body.len() - cut)).unwrap();
            assert_eq!(read.payload().unwrap().bytes, payload.bytes[..payload.len() - cut]);
        }
    }
}

#[test]
fn a_stream_that_ends_inside_a_frame_gives_the_frames_before_it_and_an_error() {
    let goldens = every_golden();
    let stream: Vec<u8> = goldens.iter().flat_map(|golden| golden.bytes()).collect();
    let ends: Vec<usize> = goldens
        .iter()
        .scan(0, |end, golden| {
            *end += golden.bytes().len();
            Some(*end)
        })
        .collect();
    for end in 0..=stream.len() {
        let mut buffer = BytesMut::from(&stream[..end]);
        let mut codec = FrameCodec::unbound();
        let mut whole = 0;
        let last = loop {
            match codec.decode_eof(&mut buffer) {
                Ok(Some(block)) => whole += block.frames().map(Result::unwrap).count(),
                last => break last,
            }
        };
        assert_eq!(whole, ends.iter().filter(|frame_end| **frame_end <= end).count(), "cut at {end}");
        if end == 0 || ends.contains(&end) {
            assert!(matches!(last, Ok(None)), "cut at {end}: {last:?}");
        } else {
            assert!(matches!(last, Err(FrameError::Cut)), "cut at {end}: {last:?}");
        }
    }
}

#[test]
fn a_claim_beyond_the_limit_is_refused_from_its_four_bytes() {
    for (mut codec, limit) in
        [(FrameCodec::unbound(), BIND_FRAME_LEN_MAX), (FrameCodec::new(FRAME_LEN_MAX), FRAME_LEN_MAX)]
    {
        let limit = u32::try_from(limit).unwrap();
        assert!(matches!(codec.decode(&mut BytesMut::from(&limit.to_le_bytes()[..])), Ok(None)));
        for claim in [limit + 1, 1 << 31, u32::MAX] {
            let reason = too_long(&mut codec, &claim.to_le_bytes());
            assert!(reason.contains(&format!("claims {claim} bytes, and {limit} are allowed")), "{reason}");
        }
    }
}

#[test]
fn a_connection_that_is_bound_may_claim_more() {
    let mut codec = FrameCodec::unbound();
    let claim = u32::try_from(BIND_FRAME_LEN_MAX + 1).unwrap().to_le_bytes();
    too_long(&mut codec, &claim);
    codec.set_frame_len_max(FRAME_LEN_MAX);
    assert!(matches!(codec.decode(&mut BytesMut::from(&claim[..])), Ok(None)));
}

/// Frames before a frame that is too long were once lost if one read brought both.
#[test]
fn frames_before_one_that_is_too_long_are_read() {
    let mut stream = BytesMut::new();
    Frame::Ping.encode(&mut stream);
    Frame::Pong.encode(&mut stream);
    stream.extend_from_slice(&u32::MAX.to_le_bytes());
    let (read, error) = frames(&mut FrameCodec::unbound(), &mut stream);
    assert_eq!(read, [Frame::Ping, Frame::Pong]);
    assert!(matches!(error, Some(FrameError::TooLong { .. })));
}

#[test]
fn frames_before_one_that_is_malformed_are_read_and_those_behind_it_are_not() {
    let mut stream = BytesMut::new();
    Frame::Ping.encode(&mut stream);
    stream.extend_from_slice(&[1, 0, 0, 0, DRAIN + 1]);
    Frame::Pong.encode(&mut stream);
    let (read, error) = frames(&mut FrameCodec::unbound(), &mut stream);
    assert_eq!(read, [Frame::Ping]);
    assert!(matches!(error, Some(FrameError::Malformed(_))));
}

#[test]
fn a_block_ends_after_its_first_error() {
    let mut stream = BytesMut::from(&[1, 0, 0, 0, 0xff][..]);
    Frame::Pong.encode(&mut stream);
    let mut frames = FrameCodec::unbound().decode(&mut stream).unwrap().unwrap().frames();
    assert!(frames.next().unwrap().is_err());
    assert!(frames.next().is_none());
    assert!(frames.rest().is_none());
}

#[test]
fn other_protocols_are_told_that_this_is_meshwork() {
    let hello: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /call HTTP/1.1\r\n\r\n{}",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"{\"method\":\"methods\",\"arguments\":[]}\n",
    ];
    for bytes in hello {
        for mut codec in [FrameCodec::unbound(), FrameCodec::new(FRAME_LEN_MAX)] {
            assert!(too_long(&mut codec, bytes).contains("is the other end a meshwork node?"));
        }
    }
    // The first bytes of TLS: handshake, version 1.0, 512 bytes.
    too_long(&mut FrameCodec::new(FRAME_LEN_MAX), &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
}

#[test]
fn a_frame_without_a_head_is_malformed() {
    malformed(&[][..]);
    let mut stream = BytesMut::zeroed(4_096);
    let (read, error) = frames(&mut FrameCodec::unbound(), &mut stream);
    assert!(read.is_empty());
    assert!(matches!(error, Some(FrameError::Malformed(_))));
}

#[test]
fn an_unknown_variant_is_refused_with_its_number() {
    // Behind the drain stand twenty-three later variants.
    for number in DRAIN + 24..=250 {
        assert!(malformed(vec![number]).contains(&number.to_string()));
    }
    // The markers of longer numbers, with and without the bytes that should follow.
    for marker in 251..=255_u8 {
        malformed(vec![marker]);
        malformed([vec![marker], vec![0xff; 16]].concat());
    }
}

#[test]
fn unknown_variants_inside_a_head_are_refused() {
    // What an offer accepts, the outcome of a response, the fate of an error, and the encoding of a payload.
    malformed(vec![REGISTER, 1, 1, 1, b'a', 5, 0]);
    malformed(vec![RESPONSE, 1, 2]);
    malformed(vec![RESPONSE, 1, 1, 5, 3, 0, 0, 0]);
    malformed(vec![RESPONSE, 1, 0, 5, 0]);
    // Neither a bool nor an option is anything but 0 or 1.
    malformed(vec![ONLINE, 1, b'a', 1, 2, 0]);
    malformed(vec![REQUEST, 1, 1, b'a', 0, 0, 2, 0, 0]);
}

#[test]
fn bytes_behind_a_frame_without_payload_are_refused() {
    for golden in every_golden().into_iter().filter(|golden| golden.frame.payload().is_none()) {
        let mut body = golden.bytes().split_off(4);
        body.push(0);
        assert!(malformed(body).contains("1 bytes are left over"), "{}", golden.name);
    }
}

#[test]
fn a_list_that_claims_more_than_there_is_is_refused() {
    for claim in [3, 251, 70_000, 1 << 32, 1 << 60, u64::MAX] {
        let lists: [&[u8]; 8] = [
            &[BIND, 1, 1, b'a', 0],
            &[BIND, 1, 1, b'a', 0, 0],
            &[REGISTER, 1],
            &[UNREGISTER, 1],
            &[ONLINE, 1, b'a', 1, 1],
            &[DESCRIBED, 1],
            &[DESCRIBED, 1, 1, 1, b'a'],
            &[PUBLISH, 1, b'a', 0, 1],
        ];
        for list in lists {
            malformed([list, &long(claim)].concat());
        }
        malformed([&[REQUEST, 1, 1, b'a', 0, 0, 0, 0][..], &long(claim)].concat());
    }
}

#[test]
fn a_text_that_claims_more_than_there_is_is_refused() {
    for claim in [3, 70_000, 1 << 23, 1 << 32, 1 << 60, u64::MAX] {
        let texts: [&[u8]; 8] = [
            &[BIND, 1],
            &[REGISTER, 1, 1],
            &[DESCRIBE, 1],
            &[REQUEST, 1],
            &[RESPONSE, 1, 1, 1, 0],
            &[RESPONSE, 1, 1, 1, 0, 0],
            &[PUBLISH],
            &[PUBLISH, 1, b'a', 0, 1, 1],
        ];
        for text in texts {
            malformed([text, &long(claim), b"ab"].concat());
        }
    }
}

/// A frame of 400 KB with empty offers once became 14 MB in memory, and a frame of 16 MB half a gigabyte.
#[test]
fn the_lists_of_a_head_are_bounded_together() {
    let list = |len: usize| [&[UNREGISTER, 1][..], &long(len.try_into().unwrap()), &vec![0; len]].concat();
    assert!(decode(list(HEAD_ELEMENTS_MAX)).is_ok());
    assert!(
        malformed(list(HEAD_ELEMENTS_MAX + 1)).contains(&format!("more than {HEAD_ELEMENTS_MAX} elements"))
    );

    // Two descriptions: no list of nodes is too long, but both together are.
    let half = HEAD_ELEMENTS_MAX / 2;
    let description = [&[0][..], &long(half.try_into().unwrap()), &vec![0; half], &[0]].concat();
    assert!(decode([&[DESCRIBED, 1, 1][..], &description].concat()).is_ok());
    let reason = malformed([&[DESCRIBED, 1, 2][..], &description, &description].concat());
    assert!(reason.contains(&format!("more than {HEAD_ELEMENTS_MAX} elements")), "{reason}");
}

#[test]
fn a_text_that_is_no_utf_8_is_refused() {
    let texts: [&[u8]; 7] = [
        &[BIND, 1, 2, b'a', 0xff, 0, 0, 0],
        &[REGISTER, 1, 1, 2, 0xc3, 0x28, 0, 0],
        &[DESCRIBE, 1, 1, 0x80],
        &[REQUEST, 1, 2, 0xed, 0xa0, 0, 0, 0, 0, 0],
        &[RESPONSE, 1, 1, 1, 0, 0, 1, 0xff, 0],
        &[PUBLISH, 1, 0xff, 0, 1, 0, 0, 0],
        &[PUBLISH, 1, b'a', 0, 1, 1, 1, 0xff, 0, 0],
    ];
    for text in texts {
        malformed(text);
    }
}

#[test]
fn a_pattern_that_is_none_is_refused_inside_a_head() {
    for pattern in ["a**b", "**/a", "a*", "", "/", "a//b", "a\nb", &"x".repeat(256), &vec!["a"; 33].join("/")]
    {
        let len = long(pattern.len().try_into().unwrap());
        let reason = Pattern::new(pattern).unwrap_err().to_string();
        let describe = malformed([&[DESCRIBE, 1][..], &len, pattern.as_bytes()].concat());
        assert!(describe.contains(&format!("{reason:?}")) || describe.contains(&reason), "{describe}");
        malformed([&[UNSUBSCRIBE][..], &len, pattern.as_bytes(), &[0]].concat());
        malformed([&[BIND, 1, 1, b'a', 0, 0, 1][..], &len, pattern.as_bytes(), &[0]].concat());
    }
    let pattern = Pattern::new("a/b").unwrap();
    let read = decode(&[UNSUBSCRIBE, 3, b'a', b'/', b'b', 0][..]).unwrap();
    assert_eq!(read, Frame::Unsubscribe(SubscriptionKey { pattern, group: None }));
}

#[test]
fn more_functions_than_a_request_may_pass_are_refused() {
    let with = |callbacks: usize| {
        let callbacks = std::iter::repeat_n(CallbackId(1), callbacks).collect();
        let payload = Payload { callbacks, ..Payload::default() };
        let request = Request {
            callback_id: CallbackId(1),
            action: "each".into(),
            node: "".into(),
            caller: "".into(),
            time_left: None,
            hops: 0,
            headers: Headers::none(),
            payload,
        };
        let mut buffer = BytesMut::new();
        Frame::Request(request).encode(&mut buffer);
        decode(buffer.split_off(4))
    };
    assert!(with(CALLBACKS_PER_REQUEST_MAX).is_ok());
    let refused = with(CALLBACKS_PER_REQUEST_MAX + 1);
    assert!(matches!(refused, Err(FrameError::TooManyCallbacks(65))), "{refused:?}");
    assert!(matches!(with(HEAD_ELEMENTS_MAX + 1), Err(FrameError::Malformed(_))));
}

#[test]
fn an_error_that_says_too_much_is_cut() {
    let message = "x".repeat(100_000);
    let len = long(message.len().try_into().unwrap());
    let read = decode(
        [&[RESPONSE, 1, 1, 1, 0][..], &len, message.as_bytes(), &len, message.as_bytes(), &[0]].concat(),
    );
    let Ok(Frame::Response(Response { outcome: Err(error), .. })) = read else {
        panic!("an error: {read:?}")
    };
    assert_eq!(error.name().len(), ERROR_NAME_LEN_MAX);
    assert_eq!(error.message().len(), ERROR_MESSAGE_LEN_MAX);
}

/// The codecs quote text that they cannot read: a text of 1 MB once came back as an error message of 1 MB, ready for the log.
#[test]
fn a_payload_that_cannot_be_read_is_not_quoted_at_length() {
    let text = "ü".repeat(500_000);
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let payload = Payload::encode(encoding, &text).unwrap();
        let error = payload.decode::<u32>().unwrap_err();
        assert!(error.reason.len() <= REASON_LEN_MAX, "{} bytes", error.reason.len());
        assert!(!error.reason.is_empty());
    }
}

#[test]
fn a_megabyte_of_noise_ends_in_errors_and_never_in_a_panic() {
    let mut noise = Noise(0x6d65_7368_776f_726b);
    let bytes = noise.bytes(1024 * 1024);
    let mut rest = &bytes[..];
    let (mut codec, mut buffer) = (FrameCodec::new(FRAME_LEN_MAX), BytesMut::new());
    let mut refused = 0;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(noise.below(1_500).min(rest.len()));
        rest = behind;
        buffer.extend_from_slice(chunk);
        let (_, error) = frames(&mut codec, &mut buffer);
        if error.is_some() {
            // The link of this stranger would be closed here. The rest of the noise is read as that of the next stranger.
            refused += 1;
            (codec, buffer) = (FrameCodec::unbound(), BytesMut::new());
        }
    }
    assert!(refused > 100, "{refused} errors");
}

#[test]
fn noise_inside_frames_ends_in_errors_or_frames_and_never_in_a_panic() {
    let mut noise = Noise(0x7769_7265);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..50_000 {
        let len = noise.below(48);
        let mut body = noise.bytes(len);
        // Small numbers are lengths that may be true and variants that exist, so that the noise gets further in.
        for byte in &mut body {
            *byte %= [4, 21, 255][noise.below(3)];
        }
        match decode(body) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(read > 100 && refused > 1_000, "{read} frames, {refused} errors");
}

#[test]
fn a_golden_frame_with_any_one_byte_changed_ends_in_an_error_or_a_frame() {
    for golden in every_golden() {
        let body = golden.bytes().split_off(4);
        for at in 0..body.len() {
            for byte in [0, 1, 2, 127, 128, 250, 251, 252, 253, 254, 255] {
                let mut changed = body.clone();
                changed[at] = byte;
                _ = decode(changed);
            }
        }
    }
}

//! The heads of requests, replies and events, read and written byte by byte: the bincode of `heads.rs` again, at a fifth of
//! its cost, since heads were a third of the cost of a relayed call. The tests below hold the two ways against each other.
//!
//! Only usual and well-formed heads are read here. All others (functions among the arguments, groups of an event, an error, a
//! number in an unusual form, bytes that are no head) are left to the reader through serde, which explains what is wrong.

mod parts;
mod read;
mod write;

pub(crate) use parts::PUBLISH;
pub(crate) use read::{KeptHead, read, read_next};
pub(super) use write::write;
pub use write::{HeadTemplate, RequestRun, SMALL_REPLY_LEN_MAX, write_item, write_small_reply};

#[cfg(test)]
mod tests {
    use super::parts::RequestParts;
    use super::*;
    use crate::limits::LENGTH_PREFIX_LEN;
    use crate::{
        BlockPayload, ByteString, CallbackId, Encoding, Frame, FrameRef, Headers, Item, Next, Payload,
        Publish, Request, Response,
    };
    use bytes::{Bytes, BytesMut};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::ops::Range;
    use std::time::Duration;

    fn text() -> impl Strategy<Value = ByteString> {
        prop_oneof![8 => "[a-zß/€]{0,12}", 2 => "[a-z]{30,70}", 1 => "[a-z]{80,260}"]
            .prop_map(ByteString::from)
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..300_u64, 0xFFF0..0x1_0010_u64, 0xFFFF_FFF0..0x1_0000_0010_u64, any::<u64>()]
    }

    fn payload() -> impl Strategy<Value = Payload> {
        let encoding =
            prop_oneof![Just(Encoding::Bincode), Just(Encoding::MessagePack), Just(Encoding::Json)];
        let callbacks = prop_oneof![4 => vec(number(), 0..1), 1 => vec(number(), 1..4)];
        (encoding, prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 60..70)], callbacks).prop_map(
            |(encoding, bytes, callbacks)| Payload {
                callbacks: callbacks.into_iter().map(CallbackId).collect(),
                ..Payload::new(encoding, bytes)
            },
        )
    }

    fn request() -> impl Strategy<Value = Request> {
        let time_left = proptest::option::of(number().prop_map(Duration::from_micros));
        (number(), text(), text(), text(), time_left, payload()).prop_map(
            |(callback_id, action, node, caller, time_left, payload)| {
                let callback_id = CallbackId(callback_id);
                Request {
                    callback_id,
                    action,
                    node,
                    caller,
                    time_left,
                    hops: 0,
                    headers: Headers::none(),
                    payload,
                }
            },
        )
    }

    fn event() -> impl Strategy<Value = Publish> {
        let groups = prop_oneof![4 => vec(text(), 0..1), 1 => vec(text(), 1..3)];
        (text(), text(), any::<bool>(), groups, payload()).prop_map(
            |(topic, publisher, for_all, groups, payload)| Publish {
                topic,
                publisher,
                for_all,
                groups,
                headers: Headers::none(),
                payload,
            },
        )
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            request().prop_map(Frame::Request),
            (number(), payload()).prop_map(|(callback_id, payload)| {
                Frame::Response(Response { callback_id: CallbackId(callback_id), outcome: Ok(payload) })
            }),
            event().prop_map(Frame::Publish),
            (number(), payload()).prop_map(|(callback_id, payload)| {
                Frame::Item(Item { callback_id: CallbackId(callback_id), payload })
            }),
        ]
    }

    /// Requests of few kinds, so that runs are among them.
    fn requests() -> impl Strategy<Value = Vec<Request>> {
        let names = (prop_oneof!["a", "b"], prop_oneof!["", "n"]);
        let request = (number(), names, any::<bool>(), vec(any::<u8>(), 0..9)).prop_map(
            |(callback_id, (action, node), waits, bytes)| {
                let payload = Payload::new(if waits { Encoding::Json } else { Encoding::Bincode }, bytes);
                let time_left = waits.then_some(Duration::from_secs(10));
                let (action, node, caller) = (action.into(), node.into(), ByteString::from_static("c"));
                Request {
                    callback_id: CallbackId(callback_id),
                    action,
                    node,
                    caller,
                    time_left,
                    hops: 0,
                    headers: Headers::none(),
                    payload,
                }
            },
        );
        vec(request, 1..9)
    }

    /// Events of few kinds, so that runs are among them.
    fn events() -> impl Strategy<Value = Vec<Publish>> {
        let names = (prop_oneof!["a", "b"], prop_oneof!["", "p"]);
        let event = (names, any::<bool>(), vec(any::<u8>(), 0..9)).prop_map(
            |((topic, publisher), for_all, bytes)| {
                let payload =
                    Payload::new(if for_all { Encoding::Json } else { Encoding::MessagePack }, bytes);
                let (topic, publisher) = (topic.into(), publisher.into());
                Publish { topic, publisher, for_all, groups: Vec::new(), headers: Headers::none(), payload }
            },
        );
        vec(event, 1..9)
    }

    /// The frame as serde writes it, the length prefix taken off.
    fn written_by_serde(frame: &Frame) -> BytesMut {
        let payload = frame.payload().map_or(&[][..], |payload| &payload.bytes);
        let mut bytes = BytesMut::new();
        FrameRef::from(frame).write_unusual(payload, &mut bytes);
        bytes.split_off(LENGTH_PREFIX_LEN)
    }

    /// The bytes of a whole frame.
    fn encoded(frame: FrameRef<'_>) -> BytesMut {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        bytes
    }

    /// Frames one behind the other, without prefixes, and the place of each.
    fn block_of(frames: impl Iterator<Item = Frame>) -> (Bytes, Vec<Range<usize>>) {
        let mut block = BytesMut::new();
        let parts = frames.map(|frame| {
            let start = block.len();
            block.extend_from_slice(&written_by_serde(&frame));
            start..block.len()
        });
        let parts = parts.collect();
        (block.freeze(), parts)
    }

    proptest! {
        #[test]
        fn a_frame_is_written_as_serde_writes_it(frame in frame()) {
            let by_serde = written_by_serde(&frame);
            let payload = frame.payload().map_or(&[][..], |payload| &payload.bytes);
            // With its payload, and without: then it follows.
            for behind in [payload, &[]] {
                let mut bytes = BytesMut::new();
                if write(FrameRef::from(&frame).0, behind, &mut bytes) {
                    bytes.extend_from_slice(&payload[behind.len()..]);
                    prop_assert_eq!(&bytes[..4], &(by_serde.len() as u32).to_le_bytes()[..]);
                    prop_assert_eq!(&bytes[4..], &by_serde[..]);
                }
            }
        }

        #[test]
        fn a_small_reply_is_written_as_any_other(callback_id in number(), payload in payload()) {
            let mut small = BytesMut::new();
            let bytes = payload.bytes.slice(..payload.len().min(SMALL_REPLY_LEN_MAX));
            let callback_id = CallbackId(callback_id);
            write_small_reply(callback_id, payload.encoding, &bytes, &mut small);
            let outcome = Ok(Payload::new(payload.encoding, bytes));
            prop_assert_eq!(small, encoded((&Response { callback_id, outcome }).into()));
        }

        #[test]
        fn an_item_is_written_as_any_other_frame(callback_id in number(), payload in payload()) {
            let (mut item, callback_id) = (BytesMut::new(), CallbackId(callback_id));
            write_item(callback_id, payload.encoding, &payload.bytes, &mut item);
            let payload = Payload::new(payload.encoding, payload.bytes);
            prop_assert_eq!(item, encoded((&Item { callback_id, payload }).into()));
        }

        #[test]
        fn a_template_writes_each_request_as_if_it_were_alone(
            mut request in request(),
            calls in vec((number(), prop_oneof![vec(any::<u8>(), 0..100), vec(any::<u8>(), 5_000)]), 1..5),
        ) {
            let Some(head) = HeadTemplate::of_request(&request) else {
                let texts_len = request.action.len() + request.node.len() + request.caller.len();
                prop_assert!(texts_len > 128 || !request.payload.callbacks.is_empty());
                return Ok(());
            };
            for (callback_id, payload) in calls {
                let mut by_template = BytesMut::new();
                head.write_request(CallbackId(callback_id), &payload, &mut by_template);
                (request.callback_id, request.payload.bytes) = (CallbackId(callback_id), payload.into());
                prop_assert_eq!(&by_template[4..], &written_by_serde(&Frame::Request(request.clone()))[..]);
                prop_assert_eq!(by_template, encoded((&request).into()));
            }
        }

        #[test]
        fn a_template_writes_each_event_as_if_it_were_alone(
            mut event in event(),
            payloads in vec(vec(any::<u8>(), 0..200), 1..5),
        ) {
            let Some(head) = HeadTemplate::of_event(&event) else {
                let texts_len = event.topic.len() + event.publisher.len();
                let is_usual = event.groups.is_empty() && event.payload.callbacks.is_empty();
                prop_assert!(texts_len > 128 || !is_usual);
                return Ok(());
            };
            for payload in payloads {
                let mut by_template = BytesMut::new();
                head.write_event(&payload, &mut by_template);
                event.payload.bytes = payload.into();
                prop_assert_eq!(&by_template[4..], &written_by_serde(&Frame::Publish(event.clone()))[..]);
                prop_assert_eq!(by_template, encoded((&event).into()));
            }
        }

        #[test]
        fn a_request_is_written_in_a_run_as_it_is_alone(
            frames in vec((0..3_usize, number(), payload()), 1..9),
            kinds in vec(frame(), 3),
        ) {
            let mut run = RequestRun::default();
            for (kind, callback_id, payload) in frames {
                let mut frame = kinds[kind].clone();
                if let Frame::Request(request) = &mut frame {
                    (request.callback_id, request.payload) = (CallbackId(callback_id), payload);
                }
                let mut in_run = BytesMut::new();
                FrameRef::from(&frame).encode_in_run(&mut run, &mut in_run);
                prop_assert_eq!(in_run, encoded((&frame).into()));
            }
        }

        #[test]
        fn a_frame_is_read_as_serde_reads_it(frame in frame()) {
            let bytes = written_by_serde(&frame);
            let is_usual = frame.payload().is_some_and(|payload| payload.callbacks.is_empty())
                && !matches!(&frame, Frame::Publish(event) if !event.groups.is_empty());
            // In the middle of a block.
            let block = Bytes::from([b"prev", &bytes[..], b"next"].concat());
            let part = 4..block.len() - 4;
            let next = read_next(&block, part.clone(), &mut None, true);
            prop_assert_eq!(next.map(|next| next.into_frame().expect("it is whole")), is_usual.then(|| frame.clone()));
            prop_assert_eq!(read(&block, part.clone()), is_usual.then(|| frame.clone()));
            prop_assert_eq!(Frame::decode_unusual(&block, part).expect("it is a frame"), frame);
        }

        #[test]
        fn a_request_is_read_alike_whatever_precedes_it(requests in requests()) {
            let (block, parts) = block_of(requests.iter().cloned().map(Frame::Request));
            let mut kept = None;
            for (number, part) in parts.iter().enumerate() {
                let of_run = |part| kept.as_ref().and_then(|kept: &KeptHead| kept.request_of_run(&block, part));
                let request = &requests[number];
                let is_of_run = number > 0 && RequestParts::of(&requests[number - 1]).is_of(request);
                let expected = is_of_run.then(|| (request.callback_id, request.payload.clone()));
                prop_assert_eq!(of_run(part.clone()).map(|(id, payload)| (id, payload.share())), expected);
                prop_assert!(kept.as_ref().is_none_or(|kept: &KeptHead| kept.event_of_run(&block, part.clone()).is_none()));
                let mut cut = part.clone();
                cut.end -= request.payload.len() + 1;
                prop_assert!(of_run(cut.clone()).is_none());
                let next = read_next(&block, part.clone(), &mut kept, number + 1 == parts.len());
                prop_assert!(matches!(&next, Some(Next::Request(read)) if read == request), "{:?}", next);
                let next = read_next(&block, cut, &mut kept, true);
                prop_assert!(next.is_none(), "a head that is cut is none, whatever precedes it");
            }
            prop_assert!(kept.is_none() || parts.len() > 1, "no head is kept for nothing");
        }

        #[test]
        fn an_event_is_read_alike_whatever_precedes_it(events in events()) {
            let (block, parts) = block_of(events.iter().cloned().map(Frame::Publish));
            let mut kept = None;
            for (number, part) in parts.iter().enumerate() {
                let of_run = |part| kept.as_ref().and_then(|kept: &KeptHead| kept.event_of_run(&block, part));
                let event = &events[number];
                let is_of_run = number > 0 && {
                    let before = &events[number - 1];
                    (&before.topic, &before.publisher, before.for_all) == (&event.topic, &event.publisher, event.for_all)
                };
                let expected = is_of_run.then(|| event.payload.clone());
                prop_assert_eq!(of_run(part.clone()).map(BlockPayload::share), expected);
                prop_assert!(kept.as_ref().is_none_or(|kept: &KeptHead| kept.request_of_run(&block, part.clone()).is_none()));
                let mut cut = part.clone();
                cut.end -= event.payload.len() + 1;
                prop_assert!(of_run(cut.clone()).is_none());
                let next = read_next(&block, part.clone(), &mut kept, number + 1 == parts.len());
                prop_assert!(matches!(&next, Some(Next::Event(read)) if read == event), "{:?}", next);
                let next = read_next(&block, cut, &mut kept, true);
                prop_assert!(next.is_none(), "a head that is cut is none, whatever precedes it");
            }
        }

        #[test]
        fn bytes_that_serde_cannot_read_are_no_frame_here(
            frame in frame(),
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
            len in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = written_by_serde(&frame);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(len.index(bytes.len() + 1));
            let bytes = bytes.freeze();
            if let Some(frame) = read(&bytes, 0..bytes.len()) {
                let by_serde = Frame::decode_unusual(&bytes, 0..bytes.len());
                prop_assert_eq!(frame, by_serde.expect("serde reads it too"));
            }
        }
    }
}

//! Properties of every frame, every payload and every pattern. A property that random values refute is shown with the smallest value
//! that refutes it.

use bytes::{Bytes, BytesMut};
use meshwork_wire::{
    Accepts, ActionDescription, ApplicationCode, Bind, Bound, Broadcast, ByteString, CallError, CallbackId,
    Code, Describe, DescribeAfter, Described, Encoding, ExtendedBind, ExtendedBound, Fate, Features,
    FindProviders, Frame, FrameCodec, FrameRef, Grant, Granted, Headers, Invoke, Item, KeepLast, Kept, Label,
    Labels, LastValue, NodeNews, Offer, OpenStream, Pattern, Payload, Publish, Refused, Register, Request,
    Response, SessionId, Shape, Signature, Subscribe, SubscribeToLast, SubscriptionKey, Unregister, Wants,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::codec::Decoder;

const ENCODINGS: [Encoding; 5] = [
    Encoding::PlainBincode,
    Encoding::CompactMessagePack,
    Encoding::Json,
    Encoding::MessagePack,
    Encoding::Bincode,
];

fn text() -> impl Strategy<Value = ByteString> {
    // Texts that are empty, that have characters of several bytes, and whose length takes more than a byte.
    prop_oneof![8 => "[a-zß/*:€\u{1F600}]{0,12}", 1 => "[a-z]{249,260}"].prop_map(ByteString::from)
}

fn segment() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("größe")]
}

fn topic() -> impl Strategy<Value = String> {
    vec(segment(), 1..5).prop_map(|segments| segments.join("/"))
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let segments = vec(prop_oneof![2 => segment(), 1 => Just("*")], 0..4);
    (segments, prop_oneof![segment(), Just("*"), Just("**")]).prop_map(|(mut segments, last)| {
        segments.push(last);
        Pattern::new(segments.join("/")).expect("only the last segment is **")
    })
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, any::<u64>()]
}

fn callback_id() -> impl Strategy<Value = CallbackId> {
    number().prop_map(CallbackId)
}

fn encoding() -> impl Strategy<Value = Encoding> {
    proptest::sample::select(&ENCODINGS[..])
}

fn accepts() -> impl Strategy<Value = Accepts> {
    prop_oneof![
        proptest::sample::select(
            &[Accepts::PlainBincode, Accepts::CompactMessagePack, Accepts::List, Accepts::MessagePack,][..]
        ),
        any::<u64>().prop_map(|number| Accepts::Typed(Signature(number))),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    (encoding(), vec(any::<u8>(), 0..40), vec(callback_id(), 0..4)).prop_map(
        |(encoding, bytes, callbacks)| Payload {
            callbacks: callbacks.into_iter().collect(),
            ..Payload::new(encoding, bytes)
        },
    )
}

fn time_left() -> impl Strategy<Value = Option<Duration>> {
    // The wire carries microseconds.
    proptest::option::of(number().prop_map(Duration::from_micros))
}

fn shape() -> impl Strategy<Value = Option<Shape>> {
    proptest::option::of((text(), text()).prop_map(|(arguments, reply)| Shape { arguments, reply }))
}

fn offers() -> impl Strategy<Value = Vec<Offer>> {
    let offer = (text(), accepts(), shape());
    vec(offer.prop_map(|(action, accepts, shape)| Offer { action, accepts, shape }), 0..4)
}

fn key() -> impl Strategy<Value = SubscriptionKey> {
    (pattern(), proptest::option::of(text())).prop_map(|(pattern, group)| SubscriptionKey { pattern, group })
}

fn application_code() -> impl Strategy<Value = ApplicationCode> {
    prop_oneof![
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i128>().prop_map(ApplicationCode::Integer),
        (-1e300..1e300).prop_map(|number: f64| number.into()),
        "[^\u{0}]{0,20}".prop_map(Into::into),
    ]
}

fn error() -> impl Strategy<Value = CallError> {
    let fate = || prop_oneof![Just(Fate::NotSent), Just(Fate::Unknown), Just(Fate::Failed)];
    let data = proptest::option::of(payload());
    let made = (any::<u32>(), fate(), text(), text(), data, proptest::option::of(application_code()));
    let made = made.prop_map(|(code, fate, name, message, data, application_code)| {
        let mut error = CallError::named(Code(code), fate, name, message);
        if let Some(data) = data {
            error = error.with_data(data);
        }
        match application_code {
            Some(code) => error.with_application_code(code),
            None => error,
        }
    });
    let thrown = (payload(), fate()).prop_map(|(whole, fate)| CallError::of_thrown(whole).with_fate(fate));
    prop_oneof![3 => made, 1 => thrown]
}

fn news() -> impl Strategy<Value = NodeNews> {
    (text(), number(), any::<bool>(), vec((text(), accepts()), 0..4)).prop_map(
        |(node, session, whole, actions)| NodeNews { node, session: SessionId(session), whole, actions },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        // In boxes, since the stack of a test thread is too small for all of them.
        binding().boxed(),
        offering().boxed(),
        calling().boxed(),
        streaming().boxed(),
        telling().boxed(),
        prop_oneof![Just(Frame::Ping), Just(Frame::Pong), Just(Frame::Drain), Just(Frame::Drained)]
    ]
}

fn binding() -> impl Strategy<Value = Frame> {
    let bind = (any::<u16>(), text(), proptest::option::of(text()), offers(), vec(key(), 0..4));
    let bound = (number(), text(), number(), number(), number());
    let refused = (any::<u32>(), text(), any::<bool>());
    prop_oneof![
        bind.prop_map(|(version, name, credentials, offers, subscriptions)| {
            Frame::Bind(Bind { version, name, credentials, offers, subscriptions })
        }),
        bound.prop_map(|(session, master, heartbeat_ms, frame_len_max, in_flight_max)| {
            let session = SessionId(session);
            Frame::Bound(Bound { session, master, heartbeat_ms, frame_len_max, in_flight_max })
        }),
        (number(), number(), any::<bool>(), offers()).prop_map(
            |(features, incarnation, replaces, offers)| {
                let (name, subscriptions) = ("b".into(), Vec::new());
                let bind = Bind { version: 1, name, credentials: None, offers, subscriptions };
                Frame::ExtendedBind(ExtendedBind {
                    bind,
                    features: Features(features),
                    incarnation,
                    replaces,
                })
            }
        ),
        (number(), proptest::option::of(vec(key(), 0..4))).prop_map(|(features, publish)| {
            let publish = publish.map(|keys| keys.into_iter().map(|key| key.pattern).collect());
            let (session, master) = (SessionId(1), "m".into());
            let bound = Bound { session, master, heartbeat_ms: 1, frame_len_max: 2, in_flight_max: 3 };
            Frame::ExtendedBound(ExtendedBound { bound, features: Features(features), publish })
        }),
        refused.prop_map(|(code, message, may_return)| {
            Frame::Refused(Refused { code: Code(code), message, may_return })
        }),
    ]
}

fn offering() -> impl Strategy<Value = Frame> {
    let description = (text(), vec(text(), 0..3), shape())
        .prop_map(|(action, nodes, shape)| ActionDescription { action, nodes, shape });
    prop_oneof![
        (callback_id(), offers())
            .prop_map(|(callback_id, offers)| Frame::Register(Register { callback_id, offers })),
        (callback_id(), vec(text(), 0..4))
            .prop_map(|(callback_id, actions)| Frame::Unregister(Unregister { callback_id, actions })),
        news().prop_map(Frame::Online),
        news().prop_map(Frame::Offline),
        (callback_id(), pattern())
            .prop_map(|(callback_id, pattern)| Frame::Describe(Describe { callback_id, pattern })),
        (callback_id(), pattern(), text()).prop_map(|(callback_id, pattern, after)| {
            Frame::DescribeAfter(DescribeAfter { callback_id, pattern, after })
        }),
        (callback_id(), text(), vec(label(), 0..3)).prop_map(|(callback_id, action, labels)| {
            Frame::FindProviders(FindProviders { callback_id, action, labels })
        }),
        (vec(label(), 0..4), any::<u32>())
            .prop_map(|(labels, weight)| Frame::Labels(Labels { labels, weight })),
        (callback_id(), vec(description, 0..4))
            .prop_map(|(callback_id, actions)| Frame::Described(Described { callback_id, actions })),
    ]
}

fn label() -> impl Strategy<Value = Label> {
    (text(), text()).prop_map(|(name, value)| Label { name, value })
}

/// The hops and the headers of a frame: most have none.
fn any_headers() -> impl Strategy<Value = (u8, Headers)> {
    let pairs = prop_oneof![
        4 => vec(("[a-z]{1,5}", "[ -~]{0,9}"), 0..1),
        2 => vec(("[A-Za-z!-]{1,5}", "[ -~\t\\PC]{0,9}"), 1..5),
    ];
    (prop_oneof![4 => Just(0), 1 => any::<u8>()], pairs).prop_map(|(hops, pairs)| {
        let pairs = pairs.iter().map(|(name, value)| (&**name, &**value));
        // Two of the names may be one.
        (hops, Headers::of(pairs).unwrap_or_default())
    })
}

fn calling() -> impl Strategy<Value = Frame> {
    let request = (callback_id(), text(), text(), text(), time_left(), any_headers(), payload());
    let outcome = prop_oneof![payload().prop_map(Ok), error().prop_map(Err)];
    let invoke = (callback_id(), proptest::option::of(callback_id()), time_left(), payload());
    prop_oneof![
        request.prop_map(|(callback_id, action, node, caller, time_left, (hops, headers), payload)| {
            Frame::Request(Request { callback_id, action, node, caller, time_left, hops, headers, payload })
        }),
        (callback_id(), outcome)
            .prop_map(|(callback_id, outcome)| Frame::Response(Response { callback_id, outcome })),
        callback_id().prop_map(Frame::Cancel),
        (invoke, any::<bool>()).prop_map(|((function, callback_id, time_left, payload), for_end)| {
            let wants = match callback_id {
                None => Wants::Nothing,
                Some(_) if for_end => Wants::End,
                Some(_) => Wants::Result,
            };
            Frame::Invoke(Invoke { function, callback_id, time_left, wants, payload })
        }),
        callback_id().prop_map(Frame::Release),
    ]
}

fn streaming() -> impl Strategy<Value = Frame> {
    let grant = || (any::<u32>(), any::<u32>()).prop_map(|(items, bytes)| Grant { items, bytes });
    let request = (callback_id(), text(), text(), text(), time_left(), any_headers(), payload());
    prop_oneof![
        (grant(), request).prop_map(
            |(grant, (callback_id, action, node, caller, time_left, (hops, headers), payload))| {
                let request =
                    Request { callback_id, action, node, caller, time_left, hops, headers, payload };
                Frame::OpenStream(OpenStream { grant, request })
            }
        ),
        (callback_id(), callback_id(), time_left(), grant(), payload()).prop_map(
            |(function, callback_id, time_left, grant, payload)| {
                let (callback_id, wants) = (Some(callback_id), Wants::Stream(grant));
                Frame::Invoke(Invoke { function, callback_id, time_left, wants, payload })
            }
        ),
        callback_id().prop_map(Frame::Started),
        (callback_id(), payload())
            .prop_map(|(callback_id, payload)| Frame::Item(Item { callback_id, payload })),
        (callback_id(), grant())
            .prop_map(|(callback_id, grant)| Frame::Granted(Granted { callback_id, grant })),
    ]
}

fn telling() -> impl Strategy<Value = Frame> {
    let publish = || (text(), text(), any::<bool>(), vec(text(), 0..4), any_headers(), payload());
    prop_oneof![
        (callback_id(), key())
            .prop_map(|(callback_id, key)| Frame::Subscribe(Subscribe { callback_id, key })),
        key().prop_map(Frame::Unsubscribe),
        publish().prop_map(|(topic, publisher, for_all, groups, (_, headers), payload)| {
            Frame::GiveBack(Publish { topic, publisher, for_all, groups, headers, payload })
        }),
        publish().prop_map(|(topic, publisher, for_all, groups, (_, headers), payload)| {
            Frame::Publish(Publish { topic, publisher, for_all, groups, headers, payload })
        }),
        (text(), text(), any_headers(), payload()).prop_map(|(topic, publisher, (_, headers), payload)| {
            Frame::Broadcast(Broadcast { topic, publisher, headers, payload })
        }),
        keeping(),
    ]
}

/// In a box, as the strategies of its frames would take too much of the stack beside the others.
fn keeping() -> BoxedStrategy<Frame> {
    prop_oneof![
        (callback_id(), proptest::option::of(number()), any::<bool>(), last()).prop_map(
            |(callback_id, number, forgets, event)| {
                Frame::KeepLast(KeepLast { callback_id, number, forgets, event })
            }
        ),
        (callback_id(), number()).prop_map(|(callback_id, number)| Frame::Kept(Kept { callback_id, number })),
        callback_id().prop_map(Frame::AskEra),
        (callback_id(), key(), number()).prop_map(|(callback_id, key, handler)| {
            Frame::SubscribeToLast(SubscribeToLast { subscribe: Subscribe { callback_id, key }, handler })
        }),
        (proptest::option::of(number()), last())
            .prop_map(|(handler, event)| Frame::LastValue(LastValue { handler, event })),
    ]
    .boxed()
}

fn last() -> BoxedStrategy<Publish> {
    (text(), text(), any_headers(), payload())
        .prop_map(|(topic, publisher, (_, headers), payload)| Publish {
            topic,
            publisher,
            for_all: true,
            groups: Vec::new(),
            headers,
            payload,
        })
        .boxed()
}

/// A type with every shape that serde has, but no floats: JSON reads some floats as their neighbours.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    balance: i64,
    letter: char,
    paid: Option<bool>,
    address: Option<Address>,
    lines: Vec<Line>,
    notes: BTreeMap<String, Option<String>>,
    counts: BTreeMap<u32, (u8, i16)>,
    #[serde(with = "serde_bytes")]
    seal: Vec<u8>,
    unit: (),
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Address(String, [u16; 2]);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Line {
    Nothing,
    Text(String),
    Item(u32, Option<u8>),
    Group { name: String, lines: Vec<Line>, first: Option<Box<Line>> },
}

#[derive(PartialEq, Debug, Serialize, Deserialize)]
struct Add {
    a: i64,
    b: i64,
}

fn line() -> impl Strategy<Value = Line> {
    let flat = prop_oneof![
        Just(Line::Nothing),
        ".{0,8}".prop_map(Line::Text),
        any::<(u32, Option<u8>)>().prop_map(|(item, count)| Line::Item(item, count)),
    ];
    flat.prop_recursive(4, 16, 3, |line| {
        let first = proptest::option::of(line.clone().prop_map(Box::new));
        (".{0,4}", vec(line, 0..3), first).prop_map(|(name, lines, first)| Line::Group { name, lines, first })
    })
}

fn order() -> impl Strategy<Value = Order> {
    let numbers = (any::<u64>(), any::<i64>(), any::<char>(), any::<Option<bool>>());
    let address =
        proptest::option::of((".{0,8}", any::<[u16; 2]>()).prop_map(|(street, at)| Address(street, at)));
    let notes = btree_map(".{0,4}", proptest::option::of(".{0,8}"), 0..3);
    let counts = btree_map(any::<u32>(), any::<(u8, i16)>(), 0..3);
    (numbers, address, vec(line(), 0..3), notes, counts, vec(any::<u8>(), 0..16)).prop_map(
        |((id, balance, letter, paid), address, lines, notes, counts, seal)| Order {
            id,
            balance,
            letter,
            paid,
            address,
            lines,
            notes,
            counts,
            seal,
            unit: (),
        },
    )
}

fn written(frames: &[Frame]) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    for frame in frames {
        frame.encode(&mut buffer);
    }
    buffer.to_vec()
}

/// The frames of a stream that comes in chunks of these lengths, over and over, and whether it ended in an error.
fn read_in_chunks(stream: &[u8], lengths: &[usize]) -> (Vec<Frame>, bool) {
    let (mut codec, mut buffer) = (FrameCodec::unbound(), BytesMut::new());
    let mut frames = Vec::new();
    let mut rest = stream;
    for len in lengths.iter().cycle() {
        let (chunk, behind) = rest.split_at((*len).min(rest.len()));
        rest = behind;
        buffer.extend_from_slice(chunk);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(block)) => {
                    for frame in block.frames() {
                        match frame {
                            Ok(frame) => frames.push(frame),
                            Err(_) => return (frames, true),
                        }
                    }
                }
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    (frames, false)
}

/// The meaning of a pattern, by recursion over the rest of both.
fn reference(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern.split_first(), topic.split_first()) {
        (None, None) => true,
        (Some((&"**", after)), Some((_, rest))) => reference(after, rest) || reference(pattern, rest),
        (Some((segment, after)), Some((there, rest))) => {
            (*segment == "*" || segment == there) && reference(after, rest)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_frame_is_read_as_it_was_written(frame in frame()) {
        let body = Bytes::from(written(std::slice::from_ref(&frame)).split_off(4));
        prop_assert_eq!(Frame::decode(&body).unwrap(), frame);
    }

    #[test]
    fn a_stream_gives_the_same_frames_however_it_is_cut(
        sent in vec(frame(), 0..8),
        lengths in vec(1..40_usize, 1..8),
    ) {
        let stream = written(&sent);
        let (frames, failed) = read_in_chunks(&stream, &lengths);
        prop_assert!(!failed);
        prop_assert_eq!(frames, sent);
    }

    #[test]
    fn a_broken_stream_gives_the_same_frames_and_the_same_end_however_it_is_cut(
        sent in vec(frame(), 1..6),
        (at, byte) in any::<(prop::sample::Index, u8)>(),
        lengths in vec(1..40_usize, 1..8),
    ) {
        let mut stream = written(&sent);
        let at = at.index(stream.len());
        stream[at] = byte;
        prop_assert_eq!(read_in_chunks(&stream, &lengths), read_in_chunks(&stream, &[stream.len()]));
    }

    #[test]
    fn a_value_is_read_as_it_was_written_in_every_encoding(order in order()) {
        for encoding in ENCODINGS {
            let payload = Payload::encode(encoding, &order).unwrap();
            prop_assert_eq!(&payload.decode::<Order>().unwrap(), &order, "{}", encoding);
        }
    }

    #[test]
    fn a_struct_is_read_from_a_tuple_and_from_an_array(a: i64, b: i64) {
        for encoding in ENCODINGS {
            let payload = Payload::encode(encoding, &(a, b)).unwrap();
            prop_assert_eq!(payload.decode::<Add>().unwrap(), Add { a, b }, "{}", encoding);
        }
        let json = Payload::new(Encoding::Json, format!("[{a}, {b}]"));
        prop_assert_eq!(json.decode::<Add>().unwrap(), Add { a, b });
    }

    #[test]
    fn a_struct_in_bincode_is_a_tuple(a: i64, b: i64) {
        let payload = Payload::encode(Encoding::Bincode, &Add { a, b }).unwrap();
        prop_assert_eq!(payload.decode::<(i64, i64)>().unwrap(), (a, b));
        prop_assert_eq!(payload, Payload::encode(Encoding::Bincode, &(a, b)).unwrap());
    }

    #[test]
    fn bytes_behind_a_value_are_refused_in_every_encoding(a: i64, b: i64) {
        for encoding in ENCODINGS {
            let payload = Payload::encode(encoding, &Add { a, b }).unwrap();
            let longer = Payload::new(encoding, [&payload.bytes[..], b"1"].concat());
            prop_assert!(longer.decode::<Add>().is_err(), "{}", encoding);
        }
    }

    #[test]
    fn a_pattern_matches_what_the_reference_matches(pattern in pattern(), topic in topic()) {
        let (segments, there): (Vec<_>, Vec<_>) = (pattern.segments().collect(), topic.split('/').collect());
        prop_assert_eq!(pattern.matches(&topic), reference(&segments, &there), "{} on {}", pattern, topic);
    }

    #[test]
    fn a_topic_matches_itself_and_the_patterns_that_it_is_made_into(topic in topic()) {
        prop_assert!(Pattern::new(&*topic).unwrap().matches(&topic));
        prop_assert!(Pattern::new("**").unwrap().matches(&topic));
        let stars = topic.split('/').map(|_| "*").collect::<Vec<_>>().join("/");
        prop_assert!(Pattern::new(stars).unwrap().matches(&topic));
    }

    #[test]
    fn random_bytes_are_a_frame_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        _ = Frame::decode(&Bytes::from(bytes));
    }

    #[test]
    fn random_bytes_are_a_value_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        for encoding in ENCODINGS {
            let payload = Payload::new(encoding, bytes.clone());
            _ = payload.decode::<Order>();
            _ = payload.decode::<Line>();
            _ = payload.decode::<serde_json::Value>();
            _ = payload.decode::<BTreeMap<String, Vec<Option<Add>>>>();
        }
    }

    #[test]
    fn a_value_with_a_byte_changed_is_a_value_or_an_error(
        order in order(),
        (at, byte) in any::<(prop::sample::Index, u8)>(),
    ) {
        for encoding in ENCODINGS {
            let mut bytes = Payload::encode(encoding, &order).unwrap().bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            _ = Payload::new(encoding, bytes).decode::<Order>();
        }
    }
}

proptest! {
    /// A node of an earlier version reads every error, with its name, message and fate, and no code of an application as one of meshwork.
    #[test]
    fn every_error_has_a_form_for_earlier_versions(error in error()) {
        let response = Response { callback_id: CallbackId(1), outcome: Err(error.clone()) };
        let earlier = FrameRef::from(&response).without_application_codes();
        let frame = earlier.unwrap_or_else(|| Frame::Response(response));
        let mut buffer = BytesMut::new();
        frame.encode(&mut buffer);
        prop_assert_eq!(buffer[6], 1, "the variant that all versions know");
        let Ok(Frame::Response(Response { outcome: Err(read), .. })) =
            Frame::decode(&buffer.freeze().slice(4..))
        else {
            panic!("an error")
        };
        prop_assert_eq!((read.fate(), read.message()), (error.fate(), error.message()));
        prop_assert_eq!(read.code(), error.code());
        match error.application_code() {
            Some(code @ ApplicationCode::Integer(1_000..=0xFFFF_FFFF)) => {
                prop_assert_eq!(read.application_code(), Some(code));
            }
            _ => prop_assert_eq!(read.application_code(), None),
        }
        if !["", "Error"].contains(&error.name()) {
            prop_assert_eq!(read.name(), error.name());
        }
    }
}

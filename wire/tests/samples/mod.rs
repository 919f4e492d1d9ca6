//! One frame of every kind, with its bytes. The bytes are the protocol: new frames are appended, and the bytes of the frames here
//! never change.

use meshwork_wire::{
    Accepts, ActionDescription, Bind, Bound, Broadcast, ByteString, CallError, CallbackId, Code, Describe,
    DescribeAfter, Described, Encoding, ExtendedBind, ExtendedBound, Fate, Features, FindProviders, Frame,
    Grant, Granted, Headers, Invoke, Item, KeepLast, Kept, Label, Labels, LastValue, NodeNews, Offer,
    OpenStream, Pattern, Payload, Publish, Refused, Register, Request, Response, SessionId, Shape, Subscribe,
    SubscribeToLast, SubscriptionKey, Unregister, Wants,
};
use std::time::Duration;

/// A frame and the bytes that it has always had, with the length prefix.
pub(crate) struct Golden {
    pub(crate) name: &'static str,
    pub(crate) frame: Frame,
    pub(crate) hex: &'static str,
}

impl Golden {
    /// The frozen bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let digits: Vec<u8> = self.hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| {
            let pair = str::from_utf8(pair).expect("hex digits are ASCII");
            u8::from_str_radix(pair, 16).expect("only hex digits were kept")
        };
        digits.chunks(2).map(byte).collect()
    }
}

fn golden(name: &'static str, frame: Frame, hex: &'static str) -> Golden {
    Golden { name, frame, hex }
}

fn key(pattern: &str, group: Option<&'static str>) -> SubscriptionKey {
    let pattern = Pattern::new(pattern).expect("a pattern");
    SubscriptionKey { pattern, group: group.map(ByteString::from_static) }
}

fn shape() -> Shape {
    Shape { arguments: "{}".into(), reply: "true".into() }
}

fn payload(encoding: Encoding, bytes: &'static [u8]) -> Payload {
    Payload::new(encoding, bytes)
}

fn headers() -> Headers {
    Headers::of([("tenant", "a"), ("user", "7")]).expect("they are headers")
}

fn refused(error: CallError) -> Frame {
    Frame::Response(Response { callback_id: CallbackId(9), outcome: Err(error) })
}

/// In the order of the protocol. A new frame is a line at the end of its kind, with the hex that the test names.
pub(crate) fn every_golden() -> Vec<Golden> {
    let bincode = payload(Encoding::PlainBincode, &[2, 3]);
    let message_pack = payload(Encoding::CompactMessagePack, &[0x92, 2, 3]);
    let json = payload(Encoding::Json, b"[2,3]");
    let with_callbacks = Payload {
        callbacks: [CallbackId(1), CallbackId(300), CallbackId(u64::MAX)].into_iter().collect(),
        ..message_pack.clone()
    };
    vec![
        golden(
            "bind",
            Frame::Bind(Bind {
                version: 1,
                name: "alice".into(),
                credentials: Some("secret".into()),
                offers: vec![
                    Offer { action: "math/add".into(), accepts: Accepts::PlainBincode, shape: None },
                    Offer {
                        action: "größe".into(),
                        accepts: Accepts::CompactMessagePack,
                        shape: Some(shape()),
                    },
                    Offer { action: "echo".into(), accepts: Accepts::List, shape: None },
                ],
                subscriptions: vec![key("sub/*", None), key("jobs/**", Some("workers"))],
            }),
            "4e000000 00 0105616c696365010673656372657403086d6174682f6164640000076772c3b6c39f650101027b \
                7d0474727565046563686f020002057375622f2a00076a6f62732f2a2a0107776f726b657273",
        ),
        golden(
            "bind_with_nothing",
            Frame::Bind(Bind {
                version: u16::MAX,
                name: "b".into(),
                credentials: None,
                offers: Vec::new(),
                subscriptions: Vec::new(),
            }),
            "09000000 00 fbffff0162000000",
        ),
        golden(
            "bound",
            Frame::Bound(Bound {
                session: SessionId(7),
                master: "master".into(),
                heartbeat_ms: 5_000,
                frame_len_max: 16 * 1024 * 1024,
                in_flight_max: 65_536,
            }),
            "16000000 01 07066d6173746572fb8813fc00000001fc00000100",
        ),
        golden(
            "refused",
            Frame::Refused(Refused {
                code: Code::BIND_ERROR,
                message: "the name is taken".into(),
                may_return: false,
            }),
            "15000000 02 0311746865206e616d652069732074616b656e00",
        ),
        golden(
            "register",
            Frame::Register(Register {
                callback_id: CallbackId(250),
                offers: vec![Offer {
                    action: "add".into(),
                    accepts: Accepts::PlainBincode,
                    shape: Some(shape()),
                }],
            }),
            "11000000 03 fa01036164640001027b7d0474727565",
        ),
        golden(
            "unregister",
            Frame::Unregister(Unregister {
                callback_id: CallbackId(251),
                actions: vec!["add".into(), "sub".into()],
            }),
            "0d000000 04 fbfb00020361646403737562",
        ),
        golden(
            "online",
            Frame::Online(NodeNews {
                node: "bob".into(),
                session: SessionId(65_536),
                whole: true,
                actions: vec![
                    ("add".into(), Accepts::PlainBincode),
                    ("log".into(), Accepts::CompactMessagePack),
                ],
            }),
            "16000000 05 03626f62fc0000010001020361646400036c6f6701",
        ),
        golden(
            "offline",
            Frame::Offline(NodeNews {
                node: "bob".into(),
                session: SessionId(1 << 32),
                whole: false,
                actions: Vec::new(),
            }),
            "10000000 06 03626f62fd00000000010000000000",
        ),
        golden(
            "describe",
            Frame::Describe(Describe {
                callback_id: CallbackId(3),
                pattern: Pattern::new("math/**").expect("a pattern"),
            }),
            "0a000000 07 03076d6174682f2a2a",
        ),
        golden(
            "described",
            Frame::Described(Described {
                callback_id: CallbackId(3),
                actions: vec![
                    ActionDescription {
                        action: "math/add".into(),
                        nodes: vec!["a".into(), "b".into()],
                        shape: Some(shape()),
                    },
                    ActionDescription { action: "math/sub".into(), nodes: Vec::new(), shape: None },
                ],
            }),
            "25000000 08 0302086d6174682f616464020161016201027b7d0474727565086d6174682f7375620000",
        ),
        golden(
            "request_with_deadline",
            Frame::Request(Request {
                callback_id: CallbackId(9),
                action: "math/add".into(),
                node: ByteString::new(),
                caller: "alice".into(),
                time_left: Some(Duration::from_secs(10)),
                hops: 0,
                headers: Headers::none(),
                payload: bincode.clone(),
            }),
            "1c000000 09 09086d6174682f6164640005616c69636501fc8096980000000203",
        ),
        golden(
            "request_without_deadline",
            Frame::Request(Request {
                callback_id: CallbackId(u64::MAX),
                action: "math/add".into(),
                node: "bob".into(),
                caller: ByteString::new(),
                time_left: None,
                hops: 0,
                headers: Headers::none(),
                payload: json.clone(),
            }),
            "20000000 09 fdffffffffffffffff086d6174682f61646403626f62000002005b322c335d",
        ),
        golden(
            "request_with_callbacks",
            Frame::Request(Request {
                callback_id: CallbackId(0),
                action: "each".into(),
                node: ByteString::new(),
                caller: ByteString::new(),
                time_left: Some(Duration::ZERO),
                hops: 0,
                headers: Headers::none(),
                payload: with_callbacks.clone(),
            }),
            "1d000000 09 00046561636800000100010301fb2c01fdffffffffffffffff920203",
        ),
        golden(
            "request_without_arguments",
            Frame::Request(Request {
                callback_id: CallbackId(1),
                action: "now".into(),
                node: ByteString::new(),
                caller: ByteString::new(),
                time_left: None,
                hops: 0,
                headers: Headers::none(),
                payload: Payload::default(),
            }),
            "0b000000 09 01036e6f770000000000",
        ),
        golden(
            "response_with_reply",
            Frame::Response(Response { callback_id: CallbackId(9), outcome: Ok(bincode) }),
            "07000000 0a 090000000203",
        ),
        golden(
            "response_with_callbacks",
            Frame::Response(Response { callback_id: CallbackId(9), outcome: Ok(with_callbacks.clone()) }),
            "15000000 0a 0900010301fb2c01fdffffffffffffffff920203",
        ),
        golden(
            "response_with_error",
            Frame::Response(Response {
                callback_id: CallbackId(9),
                outcome: Err(CallError::new(Code::PROVIDER_LOST, Fate::Unknown, "bob went away")),
            }),
            "22000000 0a 090108010d50524f56494445525f4c4f53540d626f622077656e74206177617900",
        ),
        golden(
            "response_with_error_not_sent",
            Frame::Response(Response {
                callback_id: CallbackId(9),
                outcome: Err(CallError::new(Code::OVERLOADED, Fate::NotSent, "")),
            }),
            "12000000 0a 090106000a4f5645524c4f414445440000",
        ),
        golden(
            "response_with_error_and_data",
            Frame::Response(Response {
                callback_id: CallbackId(9),
                outcome: Err(CallError::named(Code(1_200), Fate::Failed, "OutOfStock", "none left")
                    .with_data(json.clone())),
            }),
            "24000000 0a 0901fbb004020a4f75744f6653746f636b096e6f6e65206c6566740102005b322c335d",
        ),
        golden(
            "response_with_small_application_code",
            refused(CallError::named(Code::UNKNOWN, Fate::Failed, "Odd", "no").with_application_code(2)),
            "11000000 0a 09020101000402034f6464026e6f0000",
        ),
        golden(
            "response_with_negative_application_code",
            refused(CallError::named(Code::UNKNOWN, Fate::Failed, "Odd", "no").with_application_code(-2)),
            "11000000 0a 09020101000302034f6464026e6f0000",
        ),
        golden(
            "response_with_application_code_that_has_a_fraction",
            refused(CallError::named(Code::UNKNOWN, Fate::Failed, "Odd", "no").with_application_code(1.5)),
            "18000000 0a 0902010101000000000000f83f02034f6464026e6f0000",
        ),
        golden(
            "response_with_text_as_application_code_and_data",
            refused(
                CallError::named(Code::UNKNOWN, Fate::Failed, "Odd", "no")
                    .with_application_code("ENOENT")
                    .with_data(json.clone()),
            ),
            "1e000000 0a 090201010206454e4f454e5402034f6464026e6f000102005b322c335d",
        ),
        golden(
            "response_with_thrown_value",
            refused(CallError::of_thrown(payload(Encoding::Json, br#"{"code":7}"#))),
            "27000000 0a 09020101000e02054572726f720a7b22636f6465223a377d010102007b22636f6465223a377d",
        ),
        golden("cancel", Frame::Cancel(CallbackId(9)), "02000000 0b 09"),
        golden(
            "invoke",
            Frame::Invoke(Invoke {
                function: CallbackId(300),
                callback_id: Some(CallbackId(4)),
                time_left: Some(Duration::from_micros(70_000)),
                wants: Wants::Result,
                payload: message_pack.clone(),
            }),
            "11000000 0c fb2c01010401fc701101000100920203",
        ),
        golden(
            "invoke_without_answer",
            Frame::Invoke(Invoke {
                function: CallbackId(300),
                callback_id: None,
                time_left: None,
                wants: Wants::Nothing,
                payload: with_callbacks.clone(),
            }),
            "18000000 0c fb2c010000010301fb2c01fdffffffffffffffff920203",
        ),
        golden(
            "invoke_for_its_end",
            Frame::Invoke(Invoke {
                function: CallbackId(300),
                callback_id: Some(CallbackId(4)),
                time_left: Some(Duration::from_micros(70_000)),
                wants: Wants::End,
                payload: message_pack.clone(),
            }),
            "11000000 15 fb2c01010401fc701101000100920203",
        ),
        golden("release", Frame::Release(CallbackId(300)), "04000000 0d fb2c01"),
        golden(
            "subscribe",
            Frame::Subscribe(Subscribe { callback_id: CallbackId(5), key: key("sub/test", None) }),
            "0c000000 0e 05087375622f7465737400",
        ),
        golden(
            "subscribe_in_group",
            Frame::Subscribe(Subscribe { callback_id: CallbackId(6), key: key("jobs/*", Some("workers")) }),
            "12000000 0e 06066a6f62732f2a0107776f726b657273",
        ),
        golden(
            "unsubscribe",
            Frame::Unsubscribe(key("jobs/*", Some("workers"))),
            "11000000 0f 066a6f62732f2a0107776f726b657273",
        ),
        golden(
            "publish_for_all",
            Frame::Publish(Publish {
                topic: "sub/test".into(),
                publisher: "alice".into(),
                for_all: true,
                groups: Vec::new(),
                headers: Headers::none(),
                payload: message_pack.clone(),
            }),
            "17000000 10 087375622f7465737405616c69636501000100920203",
        ),
        golden(
            "publish_for_groups",
            Frame::Publish(Publish {
                topic: "jobs/new".into(),
                publisher: ByteString::new(),
                for_all: false,
                groups: vec!["workers".into(), "auditors".into()],
                headers: Headers::none(),
                payload: with_callbacks,
            }),
            "30000000 10 086a6f62732f6e657700000207776f726b6572730861756469746f7273010301fb2c01fdffffff \
                ffffffffff920203",
        ),
        golden(
            "broadcast",
            Frame::Broadcast(Broadcast {
                topic: "config".into(),
                publisher: "alice".into(),
                headers: Headers::none(),
                payload: json.clone(),
            }),
            "15000000 11 06636f6e66696705616c69636502005b322c335d",
        ),
        golden("ping", Frame::Ping, "01000000 12"),
        golden("pong", Frame::Pong, "01000000 13"),
        golden("drain", Frame::Drain, "01000000 14"),
        golden(
            "extended_bind",
            Frame::ExtendedBind(ExtendedBind {
                bind: Bind {
                    version: 1,
                    name: "b".into(),
                    credentials: None,
                    offers: Vec::new(),
                    subscriptions: Vec::new(),
                },
                features: Features(1),
                incarnation: u64::MAX,
                replaces: true,
            }),
            "12000000 16 01016200000001fdffffffffffffffff01",
        ),
        golden(
            "extended_bound",
            Frame::ExtendedBound(ExtendedBound {
                bound: Bound {
                    session: SessionId(7),
                    master: "m".into(),
                    heartbeat_ms: 5_000,
                    frame_len_max: 1,
                    in_flight_max: 2,
                },
                features: Features(1),
                publish: Some(vec![Pattern::new("orders/*").expect("a pattern")]),
            }),
            "15000000 17 07016dfb88130102010101086f72646572732f2a",
        ),
        golden("drained", Frame::Drained, "01000000 18"),
        golden(
            "give_back",
            Frame::GiveBack(Publish {
                topic: "jobs/new".into(),
                publisher: "alice".into(),
                for_all: false,
                groups: vec!["workers".into()],
                headers: Headers::none(),
                payload: payload(Encoding::CompactMessagePack, &[0x92, 2, 3]),
            }),
            "1f000000 19 086a6f62732f6e657705616c696365000107776f726b6572730100920203",
        ),
        golden(
            "describe_after",
            Frame::DescribeAfter(DescribeAfter {
                callback_id: CallbackId(9),
                pattern: Pattern::new("m/*").expect("a pattern"),
                after: "m/b".into(),
            }),
            "0a000000 1a 09036d2f2a036d2f62",
        ),
        golden(
            "request_with_hops",
            Frame::Request(Request {
                callback_id: CallbackId(9),
                action: "math/add".into(),
                node: ByteString::new(),
                caller: "alice".into(),
                time_left: Some(Duration::from_secs(10)),
                hops: 3,
                headers: Headers::none(),
                payload: payload(Encoding::PlainBincode, &[2, 3]),
            }),
            "1d000000 1b 09086d6174682f6164640005616c69636501fc809698000000030203",
        ),
        golden(
            "request_with_headers",
            Frame::Request(Request {
                callback_id: CallbackId(9),
                action: "math/add".into(),
                node: ByteString::new(),
                caller: "alice".into(),
                time_left: Some(Duration::from_secs(10)),
                hops: 3,
                headers: headers(),
                payload: payload(Encoding::PlainBincode, &[2, 3]),
            }),
            "2e000000 1c 09086d6174682f6164640005616c69636501fc80969800000003\
                1074656e616e743a610a757365723a370a0203",
        ),
        golden(
            "publish_with_headers",
            Frame::Publish(Publish {
                topic: "sub/test".into(),
                publisher: "alice".into(),
                for_all: true,
                groups: Vec::new(),
                headers: headers(),
                payload: message_pack.clone(),
            }),
            "28000000 1d 087375622f7465737405616c6963650100010010\
                74656e616e743a610a757365723a370a920203",
        ),
        golden(
            "broadcast_with_headers",
            Frame::Broadcast(Broadcast {
                topic: "config".into(),
                publisher: "alice".into(),
                headers: headers(),
                payload: json,
            }),
            "26000000 1e 06636f6e66696705616c696365020010\
                74656e616e743a610a757365723a370a5b322c335d",
        ),
        golden(
            "give_back_with_headers",
            Frame::GiveBack(Publish {
                topic: "jobs/new".into(),
                publisher: "alice".into(),
                for_all: false,
                groups: vec!["workers".into()],
                headers: headers(),
                payload: payload(Encoding::CompactMessagePack, &[0x92, 2, 3]),
            }),
            "30000000 1f 086a6f62732f6e657705616c696365000107776f726b657273010010\
                74656e616e743a610a757365723a370a920203",
        ),
        golden(
            "keep_last",
            Frame::KeepLast(KeepLast {
                callback_id: CallbackId(9),
                number: Some(300),
                forgets: false,
                event: last("", payload(Encoding::MessagePack, &[5])),
            }),
            "16000000 20 0901fb2c01000773746174652f6100010003000005",
        ),
        golden("kept", Frame::Kept(Kept { callback_id: CallbackId(9), number: 300 }), "05000000 21 09fb2c01"),
        golden("ask_era", Frame::AskEra(CallbackId(9)), "02000000 22 09"),
        golden(
            "subscribe_to_last",
            Frame::SubscribeToLast(SubscribeToLast {
                subscribe: Subscribe {
                    callback_id: CallbackId(9),
                    key: SubscriptionKey {
                        pattern: Pattern::new("state/*").expect("a pattern"),
                        group: None,
                    },
                },
                handler: 3,
            }),
            "0c000000 23 090773746174652f2a0003",
        ),
        golden(
            "last_value",
            Frame::LastValue(LastValue {
                handler: Some(3),
                event: last("alice", payload(Encoding::MessagePack, &[5])),
            }),
            "17000000 24 01030773746174652f6105616c696365010003000005",
        ),
        golden(
            "open_stream",
            Frame::OpenStream(OpenStream {
                grant: Grant { items: 128, bytes: 32_768 },
                request: Request {
                    callback_id: CallbackId(9),
                    action: "math/add".into(),
                    node: ByteString::new(),
                    caller: "alice".into(),
                    time_left: Some(Duration::from_secs(10)),
                    hops: 0,
                    headers: Headers::none(),
                    payload: payload(Encoding::PlainBincode, &[2, 3]),
                },
            }),
            "22000000 25 80fb0080 09086d6174682f6164640005616c69636501fc8096980000000000 0203",
        ),
        golden("started", Frame::Started(CallbackId(9)), "02000000 26 09"),
        golden(
            "item",
            Frame::Item(Item { callback_id: CallbackId(300), payload: message_pack.clone() }),
            "09000000 27 fb2c01 0100 920203",
        ),
        golden(
            "granted",
            Frame::Granted(Granted { callback_id: CallbackId(9), grant: Grant { items: 64, bytes: 70_000 } }),
            "08000000 28 0940fc70110100",
        ),
        golden(
            "invoke_for_stream",
            Frame::Invoke(Invoke {
                function: CallbackId(300),
                callback_id: Some(CallbackId(4)),
                time_left: Some(Duration::from_micros(70_000)),
                wants: Wants::Stream(Grant { items: 128, bytes: 32_768 }),
                payload: message_pack,
            }),
            "15000000 29 fb2c01010401fc701101000100 80fb0080 920203",
        ),
        golden(
            "labels",
            Frame::Labels(Labels { labels: vec![version_2()], weight: 10 }),
            "0d000000 2a 010776657273696f6e01320a",
        ),
        golden(
            "find_providers",
            Frame::FindProviders(FindProviders {
                callback_id: CallbackId(9),
                action: "math/add".into(),
                labels: vec![version_2()],
            }),
            "16000000 2b 09086d6174682f616464010776657273696f6e0132",
        ),
    ]
}

fn version_2() -> Label {
    Label { name: "version".into(), value: "2".into() }
}

/// An event that is the last of its topic.
fn last(publisher: &'static str, payload: Payload) -> Publish {
    Publish {
        topic: "state/a".into(),
        publisher: publisher.into(),
        for_all: true,
        groups: Vec::new(),
        headers: Headers::none(),
        payload,
    }
}

//! node-mesh against the recorded messages of its original programs, and against messages that no program should send.

use super::{bound, request};
use bytes::BytesMut;
use meshwork_wire::{
    Accepts, Allowed, Bind, Broadcast, CallError, CallbackId, Code, Describe, Dialect, DialectError,
    Encoding, Fate, Frame, Headers, NodeMeshClient, NodeMeshServer, Offer, Pattern, Payload, Publish,
    Refused, Register, Request, Response, Said, Subscribe, SubscriptionKey,
};
use serde_json::{Value, json};
use std::time::Instant;

const TRANSCRIPT: &str = include_str!("../recorded/node_mesh.jsonl");

/// A line of the transcript: the bytes, and the messages in them.
fn line(number: usize) -> (Vec<u8>, Vec<Value>) {
    let line: Value = serde_json::from_str(TRANSCRIPT.lines().nth(number).expect("a line")).expect("JSON");
    let hex = line["hex"].as_str().expect("bytes");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    let bytes = (0..hex.len()).step_by(2).map(byte).collect();
    (bytes, line["messages"].as_array().expect("messages").clone())
}

fn messages(mut bytes: &[u8]) -> Vec<Value> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (head, len) = match bytes[0] {
            0xC4 => (2, usize::from(bytes[1])),
            0xC5 => (3, usize::from(u16::from_be_bytes([bytes[1], bytes[2]]))),
            _ => (5, u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize),
        };
        let content = Payload::new(Encoding::MessagePack, bytes[head..head + len].to_vec());
        messages.extend(content.decode::<Vec<Value>>().expect("messages"));
        bytes = &bytes[head + len..];
    }
    messages
}

/// The parts of a message that do not depend on time and addresses.
fn matters(message: &Value) -> Value {
    let mut data = message["data"].clone();
    if let Some(error) = data["error"].as_object_mut() {
        error.remove("stack");
    }
    json!([message["id"], message["type"], message["source"], message["content"], data])
}

fn batch(messages: &Value) -> Vec<u8> {
    let content = Payload::encode(Encoding::MessagePack, messages).expect("MessagePack").bytes;
    let len = u16::try_from(content.len()).expect("it is short").to_be_bytes();
    [&[0xC5, len[0], len[1]], &content[..]].concat()
}

fn said_by_branch(id: &str, kind: &str, source: &str, action: &str, params: &Value) -> Value {
    json!({
        "id": id, "type": kind, "source": source, "fromId": "IPv4://1.1.1.1:1", "fromName": "b", "targetId": "IPv4://2.2.2.2:2",
        "content": { "action": action, "params": params }, "time": 1.5, "data": { "body": null, "error": null },
    })
}

/// The bind of a branch that offers these actions.
pub(super) fn bind_with(actions: &[String]) -> Vec<u8> {
    let params = json!(["b", null, actions, []]);
    batch(&json!([said_by_branch("1", "request", "system", "action:bindAuth", &params)]))
}

/// An end of a connection, which hears the messages of its peer.
struct End<D> {
    dialect: D,
    now: Instant,
}

impl<D: Dialect> End<D> {
    fn of(dialect: D) -> Self {
        Self { dialect, now: Instant::now() }
    }

    fn hear(&mut self, bytes: &[u8]) -> (Vec<Frame>, Vec<Value>) {
        let mut said = Said::default();
        self.dialect.hear(&mut BytesMut::from(bytes), self.now, &mut said).expect("it is understood");
        (said.frames, messages(&said.bytes))
    }

    fn say(&mut self, frame: Frame) -> (Vec<Frame>, Vec<Value>) {
        let mut said = Said::default();
        self.dialect.say(frame, self.now, &mut said).expect("it goes on");
        (said.frames, messages(&said.bytes))
    }
}

/// A master's end.
type Server = End<NodeMeshServer>;

impl Server {
    fn new() -> Self {
        Self::of(NodeMeshServer::new("peer", Allowed::all()))
    }

    /// A server whose branch is bound, as in the transcript.
    fn bound() -> Self {
        let mut server = Self::new();
        server.hear(&line(0).0);
        server.say(bound());
        server.hear(&line(2).0);
        server
    }
}

fn packed(value: &Value) -> Payload {
    Payload::encode(Encoding::MessagePack, value).expect("MessagePack")
}

fn value(payload: &Payload) -> Value {
    payload.decode().expect("a value")
}

/// A message with arguments that are MessagePack already, as msgpackr writes them.
fn raw_request(id: &str, params: &[u8]) -> Vec<u8> {
    let mut message = batch(&json!([said_by_branch(id, "request", "custom", "echo", &json!(["(here)"]))]));
    let placeholder = b"\x91\xA6(here)";
    let at =
        message.windows(placeholder.len()).position(|window| window == placeholder).expect("it is there");
    message.splice(at..at + placeholder.len(), params.iter().copied());
    let len = u16::try_from(message.len() - 3).expect("it is short");
    message[1..3].copy_from_slice(&len.to_be_bytes());
    message
}

/// A reply whose `body` or `error` is MessagePack already, as msgpackr writes it.
fn raw_reply(id: &str, what: &str, value: &[u8]) -> Vec<u8> {
    let mut message = batch(&json!([said_by_branch(id, "callback", "custom", "echo", &json!([]))]));
    let head = [&[0xA0 | what.len() as u8], what.as_bytes()].concat();
    let at = message.windows(head.len() + 1).position(|window| window == [&head[..], &[0xC0]].concat());
    let at = at.expect("it is there");
    let at = at + head.len();
    message.splice(at..at + 1, value.iter().copied());
    let len = u16::try_from(message.len() - 3).expect("it is short");
    message[1..3].copy_from_slice(&len.to_be_bytes());
    message
}

#[test]
fn a_value_of_node_js_is_the_same_here_and_there() {
    let float = |value: f64| [&[0xCB][..], &value.to_be_bytes()].concat();
    let same = |bytes: &[u8]| bytes.to_vec();
    for (from_node, ours, to_node) in [
        // Integers of more than 32 bits are floats in Node.js, and integers in the mesh.
        (float(9_007_199_254_740_991.0), same(b"\xCF\x00\x1F\xFF\xFF\xFF\xFF\xFF\xFF"), None),
        (float(-5_000_000_000.0), same(b"\xD3\xFF\xFF\xFF\xFE\xD5\xFA\x0E\x00"), None),
        (float(1e300), float(1e300), None),
        (float(2.5), float(2.5), None),
        (float(-0.0), float(-0.0), None),
        // A BigInt that no number of JavaScript can hold.
        (same(b"\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), same(b"\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), None),
        // `undefined`.
        (same(b"\xD4\x00\x00"), same(b"\xD4\x00\x00"), None),
        // A Buffer, and a Date.
        (same(b"\xC4\x03\x00\x80\xFF"), same(b"\xC4\x03\x00\x80\xFF"), None),
        (same(b"\xD6\xFF\x64\x93\x1C\x00"), same(b"\xD6\xFF\x64\x93\x1C\x00"), None),
        (same("\u{A9}h\u{1F600}".as_bytes()), Vec::new(), None),
    ] {
        let (from_node, ours) = match ours.is_empty() {
            true => {
                let text = [&[0xA0 | from_node.len() as u8][..], &from_node].concat();
                (text.clone(), text)
            }
            false => (from_node, ours),
        };
        let mut server = Server::bound();
        let list = |value: &[u8]| [&[0x91][..], value].concat();
        let heard = request(&server.hear(&raw_request("1", &list(&from_node))).0);
        assert_eq!(heard.payload.bytes, list(&ours), "{from_node:x?}");
        let mut said = Said::default();
        let outcome = Ok(Payload::new(Encoding::MessagePack, ours));
        let response = Frame::Response(Response { callback_id: heard.callback_id, outcome });
        server.dialect.say(response, server.now, &mut said).expect("it goes on");
        let body = [&b"\xA4body"[..], &to_node.unwrap_or(from_node)].concat();
        assert!(said.bytes.windows(body.len()).any(|window| window == body), "{:x?}", &said.bytes[..]);
    }
}

/// The original stops reading at an extension that it does not know, and forgets its call.
#[test]
fn an_integer_that_node_mesh_has_no_form_for_is_an_error() {
    for large in [u128::from(u64::MAX) + 1, u128::MAX] {
        let payload = Payload::encode(Encoding::MessagePack, &(large, 1)).unwrap();
        let mut server = Server::bound();
        let heard = request(&server.hear(&raw_request("1", &[0x90])).0);
        let outcome = Ok(payload.clone());
        let (_, said) = server.say(Frame::Response(Response { callback_id: heard.callback_id, outcome }));
        assert!(said[0]["data"]["error"]["message"].as_str().unwrap().contains("64 bits"), "{said:?}");
        let call = Request { callback_id: CallbackId(4), payload, ..heard };
        let (frames, said) = server.say(Frame::Request(call));
        let [Frame::Response(Response { callback_id: CallbackId(4), outcome: Err(error) })] = &frames[..]
        else {
            panic!("{frames:?}")
        };
        assert_eq!((error.code(), said.len()), (Code::CANNOT_ENCODE, 0));
    }
}

#[test]
fn undefined_is_nil_to_every_type() {
    type Nested = (Option<u8>, Vec<Option<String>>, std::collections::BTreeMap<String, Option<u8>>);
    let undefined = b"\xD4\x00\x00";
    let params = [&b"\x93"[..], undefined, b"\x92", undefined, b"\xA1a\x81\xA1k", undefined].concat();
    let heard = request(&Server::bound().hear(&raw_request("1", &params)).0);
    let (none, texts, map) = heard.payload.decode::<Nested>().expect("it is one");
    assert_eq!((none, texts, map.get("k")), (None, vec![None, Some("a".to_owned())], Some(&None)));
    let nested = json!([null, [null, "a"], { "k": null }]);
    assert_eq!(heard.payload.decode(), Ok(nested.clone()));
    let in_json = heard.payload.transcode(Encoding::Json).expect("JSON has a form for it");
    assert_eq!(in_json.decode(), Ok(nested));
    let alone = request(&Server::bound().hear(&raw_request("1", &[&b"\x91"[..], undefined].concat())).0);
    assert_eq!(alone.payload.decode_arguments(), Ok(()));
    assert!(alone.payload.decode::<(u8,)>().is_err());
}

#[test]
fn an_action_that_gives_nothing_back_gives_nothing() {
    let mut server = Server::bound();
    let call = request(&server.hear(&raw_request("1", &[0x90])).0);
    let (_, said) = server.say(Frame::Request(Request { callback_id: CallbackId(4), ..call }));
    let id = said[0]["id"].as_str().unwrap().to_owned();
    let mut reply = said_by_branch(&id, "callback", "custom", "echo", &json!([]));
    reply["data"]["body"] = json!("(undefined)");
    let mut bytes = batch(&json!([reply]));
    let at = bytes.windows(12).position(|window| window == b"\xAB(undefined)").unwrap();
    bytes.splice(at..at + 12, [0xD4, 0, 0]);
    let len = u16::try_from(bytes.len() - 3).unwrap();
    bytes[1..3].copy_from_slice(&len.to_be_bytes());
    let (frames, _) = server.hear(&bytes);
    let [Frame::Response(Response { callback_id: CallbackId(4), outcome: Ok(payload) })] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!(payload.decode::<()>(), Ok(()));
}

#[test]
fn a_recorded_branch_is_understood_and_gets_what_the_recorded_master_said() {
    let mut server = Server::new();
    let (frames, said) = server.hear(&line(0).0);
    let [Frame::Bind(bind)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&*bind.name, bind.credentials.as_deref(), said.len()), ("branch1", Some("k"), 0));
    assert_eq!((&*bind.offers[0].action, bind.subscriptions[0].pattern.as_str()), ("add", "t/x"));
    let (frames, said) = server.say(bound());
    assert_eq!((frames, matters(&said[0])), (vec![], matters(&line(1).1[0])));
    let keys: Vec<_> = said[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, line(1).1[0].as_object().unwrap().keys().cloned().collect::<Vec<_>>());
    assert_eq!(server.hear(&line(2).0), (vec![], vec![]), "it says again what it has said");

    let add2 = request(&server.hear(&line(3).0).0);
    assert_eq!((&*add2.action, value(&add2.payload)), ("add2", json!([1, 2])));
    let response = Response { callback_id: add2.callback_id, outcome: Ok(packed(&json!(4))) };
    assert_eq!(matters(&server.say(Frame::Response(response)).1[0]), matters(&line(4).1[0]));

    // The master calls the branch.
    let call =
        Request { callback_id: CallbackId(9), action: "add".into(), payload: packed(&json!([5, 6])), ..add2 };
    let (_, said) = server.say(Frame::Request(call));
    let id = said[0]["id"].as_str().unwrap().to_owned();
    assert_eq!((id.len(), &matters(&said[0])[3]), (16, &line(7).1[0]["content"]));
    let mut reply = line(8).1[0].clone();
    reply["id"] = json!(id);
    let (frames, _) = server.hear(&batch(&json!([reply])));
    let [Frame::Response(Response { callback_id: CallbackId(9), outcome: Ok(payload) })] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!(value(payload), json!(11));

    let event = Publish {
        topic: "t/x".into(),
        publisher: "master".into(),
        for_all: true,
        groups: vec![],
        headers: Headers::none(),
        payload: packed(&json!(["hey", 1.5, [1, 2]])),
    };
    let said = server.say(Frame::Publish(event)).1;
    let all_but_its_id = |message: &Value| matters(message).as_array().unwrap()[1..].to_vec();
    assert_eq!(all_but_its_id(&said[0]), all_but_its_id(&line(9).1[0]));
    // Two messages in one batch.
    let (frames, _) = server.hear(&line(10).0);
    let [Frame::Publish(publish), Frame::Broadcast(broadcast)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&*publish.topic, value(&publish.payload)), ("sub/test", json!(["sub", { "a": 1 }])));
    assert_eq!((&*broadcast.topic, value(&broadcast.payload)), ("note", json!({ "x": 1 })));
    let (frames, said) = server.hear(&line(11).0);
    let beat = &line(11).1[0];
    assert_eq!((frames, &said[0]["id"], &said[0]["type"]), (vec![], &beat["id"], &json!("callback")));
}

#[test]
fn errors_and_refusals_are_those_of_the_original() {
    let refused = |may_return| Refused { code: Code::BIND_ERROR, message: "校验失败".into(), may_return };
    let mut server = Server::new();
    server.hear(&line(12).0);
    let mut said = Said::default();
    let ended = server.dialect.say(Frame::Refused(refused(false)), server.now, &mut said);
    assert!(matches!(ended, Err(DialectError::Refused(_))));
    assert_eq!(matters(&messages(&said.bytes)[0]), matters(&line(13).1[0]));

    let mut server = Server::bound();
    let nope = request(&server.hear(&line(18).0).0);
    let nobody = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, "nobody offers it");
    let response = Response { callback_id: nope.callback_id, outcome: Err(nobody) };
    let error = &server.say(Frame::Response(response)).1[0]["data"]["error"];
    assert_eq!(error["code"], line(19).1[0]["data"]["error"]["code"]);

    // An error that one branch throws reaches another branch unchanged, with its code, which is a text.
    let thrown = line(21).1[0]["data"].clone();
    let mut thrower = Server::bound();
    let call = Request { callback_id: CallbackId(3), ..nope };
    let id = thrower.say(Frame::Request(call)).1[0]["id"].clone();
    let mut reply = line(8).1[0].clone();
    (reply["id"], reply["data"]) = (id, thrown.clone());
    let (frames, _) = thrower.hear(&batch(&json!([reply])));
    let [Frame::Response(Response { outcome: Err(error), .. })] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((error.name(), error.message(), error.fate()), ("AppError", "bad", Fate::Failed));
    let boom = request(&server.hear(&line(20).0).0);
    let response = Response { callback_id: boom.callback_id, outcome: Err(error.clone()) };
    assert_eq!(server.say(Frame::Response(response)).1[0]["data"], thrown);

    // Another branch has taken the name over.
    let mut said = Said::default();
    let ended = server.dialect.say(Frame::Refused(refused(false)), server.now, &mut said);
    assert!(matches!(ended, Err(DialectError::Refused(_))));
    let told = &messages(&said.bytes)[0];
    let expected = &line(24).1[0];
    assert_eq!(
        (&told["content"], &told["data"]["error"]["message"]),
        (&expected["content"], &expected["data"]["error"]["message"])
    );
}

#[test]
fn what_is_registered_later_is_offered_and_subscribed_once() {
    let mut server = Server::bound();
    let again = |id: &str| {
        let params = json!([["add", "sub", "", 7], ["t/x", "t/y"]]);
        batch(&json!([said_by_branch(id, "notification", "system", "action:register", &params)]))
    };
    let (frames, _) = server.hear(&again("1"));
    let [Frame::Register(register), Frame::Subscribe(subscribe)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(
        (register.offers.len(), &*register.offers[0].action, subscribe.key.pattern.as_str()),
        (1, "sub", "t/y")
    );
    let answer = Response { callback_id: register.callback_id, outcome: Ok(Payload::default()) };
    assert_eq!(server.say(Frame::Response(answer)), (vec![], vec![]));
    assert_eq!(server.hear(&again("2")), (vec![], vec![]));
    let state =
        json!([{ "id": "IPv4://behind.a.proxy:1", "responderEvents": ["mul"], "subscribeEvents": [] }]);
    let beat = batch(&json!([said_by_branch("3", "request", "system", "action:heartbeat", &state)]));
    let (frames, said) = server.hear(&beat);
    assert!(matches!(&frames[..], [Frame::Register(_)]));
    assert_eq!((&said[0]["id"], &said[0]["content"]["params"]), (&json!("3"), &json!([])));
}

#[test]
fn nothing_runs_before_the_bind_was_checked() {
    let mut server = Server::new();
    let heard = server.dialect.hear(&mut BytesMut::from(&line(3).0[..]), server.now, &mut Said::default());
    assert!(matches!(heard, Err(DialectError::Malformed { .. })));
    // Messages in the batch of the bind, and behind it, wait.
    let mut server = Server::new();
    let bind = said_by_branch("1", "request", "system", "action:bindAuth", &json!(["b", null, [], []]));
    let call = |id: &str| said_by_branch(id, "request", "custom", "a", &json!([id]));
    let mut bytes = BytesMut::from(
        &[batch(&json!([bind, call("2"), call("3")])), batch(&json!([call("4")]))].concat()[..],
    );
    let mut said = Said::default();
    server.dialect.hear(&mut bytes, server.now, &mut said).unwrap();
    assert!(matches!(&said.frames[..], [Frame::Bind(_)]));
    said.frames.clear();
    server.dialect.say(bound(), server.now, &mut said).unwrap();
    server.dialect.hear(&mut bytes, server.now, &mut said).unwrap();
    let called: Vec<_> =
        said.frames.iter().map(|frame| value(&request(std::slice::from_ref(frame)).payload)).collect();
    assert_eq!(called, [json!(["2"]), json!(["3"]), json!(["4"])]);
}

/// The end of a meshwork branch, or of a bridge.
type Client = End<NodeMeshClient>;

impl Client {
    /// A branch, and the first messages that it says.
    fn branch(bind: Bind) -> (Self, Vec<Value>) {
        let mut client = Self::of(NodeMeshClient::branch("peer"));
        let mut said = Said::default();
        client.dialect.begin(client.now, &mut said);
        assert_eq!((said.frames.len(), said.bytes.len()), (0, 0), "it has nothing to say by itself");
        let (_, said) = client.say(Frame::Bind(bind));
        (client, said)
    }

    /// Hears a recorded message of a master, with this id in place of the recorded id.
    fn hear_recorded(&mut self, number: usize, id: &Value) -> (Vec<Frame>, Vec<Value>) {
        let mut message = line(number).1[0].clone();
        message["id"] = id.clone();
        self.hear(&batch(&json!([message])))
    }
}

fn topic(pattern: &str, group: Option<&str>) -> SubscriptionKey {
    SubscriptionKey { pattern: Pattern::new(pattern).expect("a pattern"), group: group.map(Into::into) }
}

fn bind(name: &str, token: &str, actions: &[&str], subscriptions: Vec<SubscriptionKey>) -> Bind {
    let offer =
        |action: &&str| Offer { action: (*action).into(), accepts: Accepts::MessagePack, shape: None };
    Bind {
        version: 1,
        name: name.into(),
        credentials: Some(token.into()),
        offers: actions.iter().map(offer).collect(),
        subscriptions,
    }
}

#[test]
fn a_branch_of_ours_says_to_a_recorded_master_what_the_recorded_branch_said() {
    let all_but_its_id = |message: &Value| matters(message).as_array().unwrap()[1..].to_vec();
    let (mut client, said) = Client::branch(bind("branch1", "k", &["add"], vec![topic("t/x", None)]));
    assert_eq!(all_but_its_id(&said[0]), all_but_its_id(&line(0).1[0]));
    let (frames, registered) = client.hear_recorded(1, &said[0]["id"]);
    assert!(matches!(&frames[..], [Frame::Bound(_)]), "{frames:?}");
    assert_eq!(all_but_its_id(&registered[0]), all_but_its_id(&line(2).1[0]));

    let call = |id: u64, action: &str, arguments: &Value| Request {
        callback_id: CallbackId(id),
        action: action.into(),
        node: "".into(),
        caller: "".into(),
        time_left: None,
        hops: 0,
        headers: Headers::none(),
        payload: packed(arguments),
    };
    let (_, said) = client.say(Frame::Request(call(1, "add2", &json!([1, 2]))));
    assert_eq!(all_but_its_id(&said[0]), all_but_its_id(&line(3).1[0]));
    let (frames, _) = client.hear_recorded(4, &said[0]["id"]);
    let [Frame::Response(Response { callback_id: CallbackId(1), outcome: Ok(payload) })] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!(value(payload), json!(4));
    assert_eq!(client.hear_recorded(4, &said[0]["id"]).0, [], "an answer is one");
    for (number, action, fate, code) in
        [(19, "nope", Fate::Failed, Code::ACTION_NOT_FOUND), (21, "boom", Fate::Failed, Code::UNKNOWN)]
    {
        let (_, said) = client.say(Frame::Request(call(number, action, &json!([1]))));
        let (frames, _) = client.hear_recorded(usize::try_from(number).unwrap(), &said[0]["id"]);
        let [Frame::Response(Response { outcome: Err(error), .. })] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!((error.fate(), error.code()), (fate, code));
    }

    // The master calls the branch, publishes to it, and is answered.
    let asked = request(&client.hear(&line(7).0).0);
    assert_eq!((&*asked.action, value(&asked.payload)), ("add", json!([5, 6])));
    let response = Response { callback_id: asked.callback_id, outcome: Ok(packed(&json!(11))) };
    assert_eq!(matters(&client.say(Frame::Response(response)).1[0]), matters(&line(8).1[0]));
    let (frames, _) = client.hear(&line(9).0);
    let [Frame::Publish(event)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&*event.topic, value(&event.payload)), ("t/x", json!(["hey", 1.5, [1, 2]])));
    let event =
        Publish { topic: "sub/test".into(), payload: packed(&json!(["sub", { "a": 1 }])), ..event.clone() };
    let news = Broadcast {
        topic: "note".into(),
        publisher: "".into(),
        headers: Headers::none(),
        payload: packed(&json!([{ "x": 1 }])),
    };
    for (frame, recorded) in [Frame::Publish(event), Frame::Broadcast(news)].into_iter().zip(&line(10).1) {
        assert_eq!(all_but_its_id(&client.say(frame).1[0]), all_but_its_id(recorded));
    }
    assert_eq!(client.say(Frame::Ping), (vec![Frame::Pong], vec![]));
}

#[test]
fn a_master_that_says_no_is_not_asked_again() {
    let (mut client, said) = Client::branch(bind("branch9", "wrong", &[], vec![]));
    for number in [13, 24] {
        let mut message = line(number).1[0].clone();
        message["id"] = said[0]["id"].clone();
        let mut said = Said::default();
        let bytes = batch(&json!([message]));
        let ended = client.dialect.hear(&mut BytesMut::from(&bytes[..]), client.now, &mut said);
        assert!(matches!(ended, Err(DialectError::Refused(_))), "{ended:?}");
        let [Frame::Refused(refused)] = &said.frames[..] else { panic!("{:?}", said.frames) };
        assert_eq!((refused.code, refused.may_return), (Code::BIND_ERROR, false));
    }
}

#[test]
fn what_node_mesh_cannot_do_is_said_at_once() {
    for key in [topic("a/*", None), topic("a", Some("group"))] {
        let mut client = NodeMeshClient::branch("peer");
        let mut said = Said::default();
        let bind = Frame::Bind(bind("b", "k", &[], vec![key]));
        assert!(matches!(client.say(bind, Instant::now(), &mut said), Err(DialectError::Refused(_))));
        assert!(matches!(&said.frames[..], [Frame::Refused(Refused { may_return: false, .. })]));
    }
    let (mut client, said) = Client::branch(bind("b", "k", &[], vec![]));
    client.hear_recorded(1, &said[0]["id"]);
    let callback_id = CallbackId(5);
    let to_one = Request {
        callback_id,
        action: "a".into(),
        node: "n".into(),
        caller: "".into(),
        time_left: None,
        hops: 0,
        headers: Headers::none(),
        payload: Payload::default(),
    };
    let bincode = Request {
        node: "".into(),
        payload: Payload::encode(Encoding::Bincode, &1).unwrap(),
        ..to_one.clone()
    };
    for frame in [
        Frame::Subscribe(Subscribe { callback_id, key: topic("a/*", None) }),
        Frame::Describe(Describe { callback_id, pattern: Pattern::new("**").unwrap() }),
        Frame::Request(to_one),
        Frame::Request(bincode),
    ] {
        let (frames, said) = client.say(frame);
        let [Frame::Response(Response { callback_id: CallbackId(5), outcome: Err(error) })] = &frames[..]
        else {
            panic!("{frames:?}")
        };
        assert_eq!((error.fate(), said.len()), (Fate::NotSent, 0));
    }
    // Actions and topics that node-mesh knows are registered.
    let register = Register { callback_id, offers: bind("b", "k", &["later"], vec![]).offers };
    let subscribe = Subscribe { callback_id, key: topic("t/y", None) };
    for (frame, params) in [
        (Frame::Register(register), json!([["later"], []])),
        (Frame::Subscribe(subscribe), json!([[], ["t/y"]])),
    ] {
        let (frames, said) = client.say(frame);
        assert!(matches!(&frames[..], [Frame::Response(Response { outcome: Ok(_), .. })]));
        assert_eq!(said[0]["content"], json!({ "action": "action:register", "params": params }));
    }
}

#[test]
fn a_bridge_asks_an_old_master_for_everything_under_its_prefix() {
    let (name, shown, token) = ("bridge".into(), Some("k".into()), Some("secret".into()));
    let mut client = Client::of(NodeMeshClient::bridge("peer", name, shown, token, "old".into()));
    let mut said = Said::default();
    client.dialect.begin(client.now, &mut said);
    let asked = &messages(&said.bytes)[0];
    assert_eq!(asked["content"]["params"], json!(["bridge", "k", [], []]));
    let (frames, _) = client.hear_recorded(1, &asked["id"]);
    let [Frame::Bind(bind)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&*bind.offers[0].action, bind.credentials.as_deref()), ("old/**", Some("secret")));
    client.say(bound());
    let call = Request {
        callback_id: CallbackId(1),
        action: "old/math/add".into(),
        node: "".into(),
        caller: "b".into(),
        time_left: None,
        hops: 0,
        headers: Headers::none(),
        payload: packed(&json!([1, 2])),
    };
    let (_, said) = client.say(Frame::Request(call));
    assert_eq!(said[0]["content"], json!({ "action": "math/add", "params": [1, 2] }));
    assert_eq!(client.hear(&line(9).0).0, [], "what happens there is not told here");
}

#[test]
fn what_is_refused_is_offered_again_and_what_may_be_is_offered_alone() {
    let mut server = Server::bound();
    let register = batch(&json!([said_by_branch(
        "1",
        "notification",
        "system",
        "action:register",
        &json!([["good", "bad"], ["t/z"]])
    )]));
    let no = |callback_id| {
        let outcome = Err(CallError::new(Code::NOT_PERMITTED, Fate::NotSent, "no"));
        Frame::Response(Response { callback_id, outcome })
    };
    let (frames, _) = server.hear(&register);
    let [Frame::Register(both), Frame::Subscribe(topic)] = &frames[..] else { panic!("{frames:?}") };
    let (frames, _) = server.say(no(both.callback_id));
    let [Frame::Register(good), Frame::Register(bad)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&*good.offers[0].action, &*bad.offers[0].action), ("good", "bad"));
    let yes = Response { callback_id: good.callback_id, outcome: Ok(Payload::default()) };
    assert_eq!(server.say(Frame::Response(yes)), (vec![], vec![]));
    assert_eq!(server.say(no(bad.callback_id)), (vec![], vec![]));
    assert_eq!(server.say(no(topic.callback_id)), (vec![], vec![]));
    let (frames, _) = server.hear(&register);
    let [Frame::Register(again), Frame::Subscribe(_)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((again.offers.len(), &*again.offers[0].action), (1, "bad"));
}

#[test]
fn an_error_with_data_of_its_own_keeps_what_it_says() {
    let mut server = Server::bound();
    let call = request(&server.hear(&line(3).0).0);
    let data = packed(&json!({ "sku": 5 }));
    let error = CallError::named(Code::UNKNOWN, Fate::Failed, "OutOfStock", "none left").with_data(data);
    let response = Response { callback_id: call.callback_id, outcome: Err(error) };
    let said = &server.say(Frame::Response(response)).1[0]["data"]["error"];
    let expected = json!({ "code": "NONE", "name": "OutOfStock", "message": "none left", "sku": 5 });
    assert_eq!(*said, expected);
}

/// The original stops reading at such an integer, and its caller never heard of the error.
#[test]
fn an_error_with_an_integer_that_node_mesh_has_no_form_for_is_told() {
    let wide = Payload::encode(Encoding::MessagePack, &[(u128::MAX, i128::MIN)]).unwrap();
    let error = || CallError::named(Code::UNKNOWN, Fate::Failed, "N", "m");
    for error in [
        error().with_data(wide).with_application_code(i128::MAX),
        CallError::of_thrown(Payload::new(
            Encoding::Json,
            format!(
                r#"{{"code":{},"name":"N","message":"m","data":[[{},{}]]}}"#,
                i128::MAX,
                u128::MAX,
                i128::MIN
            ),
        )),
    ] {
        let mut server = Server::bound();
        let callback_id = request(&server.hear(&line(3).0).0).callback_id;
        let said = &server.say(Frame::Response(Response { callback_id, outcome: Err(error) })).1[0];
        let data = json!([[u128::MAX.to_string(), i128::MIN.to_string()]]);
        let expected = json!({ "code": i128::MAX.to_string(), "name": "N", "message": "m", "data": data });
        assert_eq!(said["data"]["error"], expected);
    }
}

#[test]
fn a_value_that_cannot_be_read_ends_its_request_alone() {
    let mut server = Server::bound();
    let deep = [&[0x91; 300][..], &[0xC0]].concat();
    let (frames, said) = server.hear(&raw_request("deep", &deep));
    assert_eq!((frames.len(), &said[0]["id"]), (0, &json!("deep")));
    assert_eq!(said[0]["data"]["error"]["code"], "REQUEST_PARAM_ERROR");
    // An unreadable value in the reply to a request from the mesh.
    let call = request(&server.hear(&raw_request("1", &[0x90])).0);
    let (_, said) = server.say(Frame::Request(Request { callback_id: CallbackId(4), ..call }));
    let id = said[0]["id"].as_str().unwrap().to_owned();
    let (frames, _) = server.hear(&raw_reply(&id, "body", &deep));
    let [Frame::Response(Response { callback_id: CallbackId(4), outcome: Err(error) })] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!((error.code(), error.fate()), (Code::CANNOT_DECODE, Fate::Failed));
    assert_eq!(server.hear(&line(3).0).0.len(), 1, "the connection is as good as before");
}

#[test]
fn what_is_not_allowed_does_not_exist() {
    let allowed = Allowed::only([Pattern::new("public/*").unwrap()]);
    let mut server = Server::of(NodeMeshServer::new("peer", allowed));
    server.hear(&line(0).0);
    server.say(bound());
    let (frames, said) = server.hear(&line(3).0);
    assert_eq!((frames.len(), &said[0]["data"]["error"]["code"]), (0, &json!("ACTION_NOT_EXIST")));
    let call = said_by_branch("1", "request", "custom", "public/a", &json!([]));
    request(&server.hear(&batch(&json!([call]))).0);
}

const MORE: &str = include_str!("../recorded/node_mesh_more.jsonl");

/// The lines of the second transcript in a scenario: the direction, the bytes and the first message of each.
fn recorded(scenario: &str) -> Vec<(String, Vec<u8>, Value)> {
    let lines = MORE.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let lines = lines.filter(|line| line["scenario"] == scenario && line.get("hex").is_some());
    let custom = lines.filter(|line| line["messages"][0]["source"] == "custom");
    let parts = custom.map(|line| {
        let hex = line["hex"].as_str().expect("bytes");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let bytes = (0..hex.len()).step_by(2).map(byte).collect();
        (line["direction"].as_str().expect("a direction").to_owned(), bytes, line["messages"][0].clone())
    });
    parts.collect()
}

/// The bytes between two keys of a message.
fn between<'b>(bytes: &'b [u8], key: &[u8], next: &[u8]) -> &'b [u8] {
    let place = |wanted: &[u8]| bytes.windows(wanted.len()).position(|window| window == wanted);
    let start = place(key).expect("the key is there") + key.len();
    &bytes[start..place(next).expect("the next key is there")]
}

fn params_of(bytes: &[u8]) -> &[u8] {
    between(bytes, b"\xA6params", b"\xA4time")
}

/// The bytes with another id of the same length in place of the id.
fn with_id(bytes: &[u8], id: &str, other: &str) -> Vec<u8> {
    let at = bytes.windows(id.len()).position(|window| window == id.as_bytes()).expect("the id is there");
    let mut bytes = bytes.to_vec();
    bytes[at..at + id.len()].copy_from_slice(other.as_bytes());
    bytes
}

fn said_by(server: &mut Server, frame: Frame) -> Vec<u8> {
    let mut said = Said::default();
    server.dialect.say(frame, server.now, &mut said).expect("it goes on");
    said.bytes.to_vec()
}

#[test]
fn a_value_between_two_branches_is_what_the_original_master_makes_of_it() {
    for what in [
        "BigInt small",
        "BigInt 5e9",
        "BigInt 2^60",
        "2^40",
        "2^53+2",
        "date",
        "bytes",
        "NaN",
        "-0",
        "undefined",
        "nested",
    ] {
        let lines = recorded(&format!("value between two branches: {what}"));
        let [asked, told, replied, answered] = &lines[..] else { panic!("{what}: {}", lines.len()) };
        let (mut caller, mut provider) = (Server::bound(), Server::bound());
        let call = request(&caller.hear(&asked.1).0);
        let callback_id = call.callback_id;
        let said = said_by(&mut provider, Frame::Request(call));
        assert_eq!(params_of(&said), params_of(&told.1), "{what}");
        let id = messages_id(&said);
        let (frames, _) = provider.hear(&with_id(&replied.1, replied.2["id"].as_str().unwrap(), &id));
        let [Frame::Response(Response { outcome, .. })] = &frames[..] else { panic!("{frames:?}") };
        let response = Response { callback_id, outcome: outcome.clone() };
        let said = said_by(&mut caller, Frame::Response(response));
        let body = |bytes: &[u8]| between(bytes, b"\xA4body", b"\xA5error").to_vec();
        assert_eq!(body(&said), body(&answered.1), "{what}");
    }
}

/// A value goes from one branch to another and comes back, as msgpackr writes it.
fn there_and_back(value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut caller, mut provider) = (Server::bound(), Server::bound());
    let call = request(&caller.hear(&raw_request("1", &[&[0x91], value].concat())).0);
    let callback_id = call.callback_id;
    let said = said_by(&mut provider, Frame::Request(call));
    let there = params_of(&said)[1..].to_vec();
    let id = messages_id(&said);
    let (frames, _) = provider.hear(&raw_reply(&id, "body", value));
    let [Frame::Response(Response { outcome, .. })] = &frames[..] else { panic!("{frames:?}") };
    let response = Response { callback_id, outcome: outcome.clone() };
    let said = said_by(&mut caller, Frame::Response(response));
    (there, between(&said, b"\xA4body", b"\xA5error").to_vec())
}

/// The id of the first message, whose values need not be JSON.
fn messages_id(bytes: &[u8]) -> String {
    String::from_utf8(between(bytes, b"\xA2id", b"\xA4type")[1..].to_vec()).expect("text")
}

#[test]
fn numbers_stay_numbers_and_big_integers_big_between_two_branches() {
    let number = |value: f64| [&[0xCB][..], &value.to_be_bytes()].concat();
    let big = |value: i64| [&[0xD3][..], &value.to_be_bytes()].concat();
    let list = |values: &[Vec<u8>]| [&[0x90 | values.len() as u8][..], &values.concat()].concat();
    let mut values = vec![
        list(&[]),
        b"\x05".to_vec(),
        b"\xFF".to_vec(),
        b"\xCE\xFF\xFF\xFF\xFF".to_vec(),
        [&[0xCF][..], &u64::MAX.to_be_bytes()].concat(),
        [&[0xCF][..], &(1_u64 << 63).to_be_bytes()].concat(),
        list(&[number(-5e9), big(-5_000_000_000), number(5e9), big(5_000_000_000)]),
        list(&[list(&[big(-5_000_000_000)]), number(-5e9)]),
        [&b"\x82\xA1n"[..], &number(-5e9), b"\xA1b", &big(-5_000_000_000)].concat(),
        [&b"\x81\xA1n"[..], &number(-5e9)].concat(),
        list(&[list(&[number(-5e9), number(5e9)]), b"\xC0".to_vec()]),
    ];
    for value in [5e9, -5e9, 4_294_967_296.0, 9_007_199_254_740_991.0, -9_007_199_254_740_991.0] {
        values.push(number(value));
    }
    for value in [9_007_199_254_740_992.0, 9_007_199_254_740_994.0, -1e18, 1e18, 9.3e18, 1e21, 0.5, -0.0] {
        values.push(number(value));
    }
    for value in
        [0, 1, -1, 200, -200, i64::from(i32::MIN), 1 << 40, (1 << 53) - 1, 1 << 53, i64::MAX, i64::MIN]
    {
        values.push(big(value));
    }
    values.push(big(-(1 << 53)));
    for value in values {
        assert_eq!(there_and_back(&value), (value.clone(), value.clone()), "{value:02x?}");
    }
    // A number could hold it, so its width does not tell.
    let (there, back) = there_and_back(&big(-5_000_000_000));
    assert_eq!((there, back), (big(-5_000_000_000), big(-5_000_000_000)));
}

#[test]
fn integers_of_node_js_are_read_by_every_type_that_holds_them() {
    let list = |value: f64| [&[0x91, 0xCB][..], &value.to_be_bytes()].concat();
    for value in [5e9, -5e9, 9_007_199_254_740_994.0, 1e18, -1e18, -9_223_372_036_854_775_808.0] {
        let heard = request(&Server::bound().hear(&raw_request("1", &list(value))).0);
        assert_eq!(heard.payload.decode::<(i64,)>().map(|(read,)| read as f64), Ok(value));
        assert_eq!(heard.payload.decode_arguments::<f64>(), Ok(value));
    }
    let heard = request(&Server::bound().hear(&raw_request("1", &list(1.2e19))).0);
    assert_eq!(heard.payload.decode::<(u64,)>(), Ok((12_000_000_000_000_000_000,)));
    assert!(heard.payload.decode::<(i64,)>().is_err());
    // Also beside a `BigInt`.
    let both = [&b"\x92\xCB"[..], &(-5e9_f64).to_be_bytes(), b"\xD3", &(-5_000_000_000_i64).to_be_bytes()];
    let heard = request(&Server::bound().hear(&raw_request("1", &both.concat())).0);
    assert_eq!(heard.payload.decode::<(i64, i64)>(), Ok((-5_000_000_000, -5_000_000_000)));
    for fraction in [1.5, 5_000_000_000.5, f64::NAN, f64::INFINITY] {
        let heard = request(&Server::bound().hear(&raw_request("1", &list(fraction))).0);
        assert!(heard.payload.decode::<(i64,)>().is_err(), "{fraction}");
    }
}

#[test]
fn what_was_thrown_arrives_whole_at_another_branch() {
    let mut thrown: Vec<Vec<u8>> = Vec::new();
    for action in ["err", "errn", "errt", "erro"] {
        let lines = recorded(&format!("error: a/{action}"));
        let (_, bytes, _) =
            lines.iter().find(|(_, _, message)| message["data"]["error"] != json!(null)).unwrap();
        let at = bytes.windows(6).position(|window| window == b"\xA5error").expect("it is the last") + 6;
        thrown.push(bytes[at..].to_vec());
    }
    for value in [json!(5), json!(-1.5), json!(true), json!([1, "two", null]), json!(""), json!([])] {
        thrown.push(packed(&value).bytes.to_vec());
    }
    thrown.push(packed(&json!({})).bytes.to_vec());
    thrown.push(packed(&json!({ "message": 7, "deep": { "er": [1] } })).bytes.to_vec());
    thrown.push(packed(&json!({ "name": "X", "cause": { "message": "inner" } })).bytes.to_vec());
    thrown.push(b"\xD3\0\0\0\0\0\0\0\x07".to_vec());
    for error in thrown {
        let (mut caller, mut provider) = (Server::bound(), Server::bound());
        let call = request(&caller.hear(&raw_request("1", &[0x90])).0);
        let callback_id = call.callback_id;
        let id = messages_id(&said_by(&mut provider, Frame::Request(call)));
        let (frames, _) = provider.hear(&raw_reply(&id, "error", &error));
        let [Frame::Response(Response { outcome: Err(heard), .. })] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!(heard.fate(), Fate::Failed);
        let response = Response { callback_id, outcome: Err(heard.clone()) };
        let said = said_by(&mut caller, Frame::Response(response));
        let at = said.windows(6).position(|window| window == b"\xA5error").expect("it is there") + 6;
        let value = |bytes: &[u8]| {
            Payload::new(Encoding::MessagePack, bytes.to_vec()).decode::<Value>().expect("a value")
        };
        assert_eq!(value(&said[at..]), value(&error), "{error:02x?}");
    }
}

#[test]
fn a_heartbeat_is_answered_with_the_state_of_the_master() {
    let mut server = Server::new();
    server.hear(&line(0).0);
    let Frame::Bound(consent) = bound() else { panic!("it is one") };
    let news = |actions: &[&str]| meshwork_wire::NodeNews {
        node: consent.master.clone(),
        session: meshwork_wire::SessionId(0),
        whole: false,
        actions: actions.iter().map(|action| ((*action).into(), Accepts::List)).collect(),
    };
    // A master tells of itself before it consents to a bind.
    server.say(Frame::Online(news(&["m/first", "m/second"])));
    server.say(bound());
    server.say(Frame::Offline(news(&["m/second"])));
    let beat = |message: &Value| message["content"]["action"] == "action:heartbeat";
    let lines = MORE.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let beats: Vec<_> = lines.filter(|line| beat(&line["messages"][0])).take(2).collect();
    let (frames, said) = server.hear(&batch(&beats[0]["messages"]));
    assert_eq!(frames, []);
    let recorded = &beats[1]["messages"][0];
    assert_eq!(said[0]["content"], recorded["content"]);
    assert_eq!(said[0]["id"], beats[0]["messages"][0]["id"]);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let body = |message: &Value| message["data"]["body"].clone();
    assert_eq!(keys(&body(&said[0])), keys(&body(recorded)));
    assert_eq!(keys(&body(&said[0])["memory"]), keys(&body(recorded)["memory"]));
    let state = body(&said[0]);
    assert_eq!(
        (&state["name"], &state["responderEvents"], &state["subscribeEvents"]),
        (&json!(&*consent.master), &json!(["m/first"]), &json!([]))
    );
}

#[test]
fn a_heartbeat_of_a_master_is_answered_with_the_state_of_the_branch() {
    let (mut client, said) = Client::branch(bind("b", "k", &["one", "all/%2A%2A"], vec![topic("t/y", None)]));
    client.hear_recorded(1, &said[0]["id"]);
    let beat = said_by_branch("h", "request", "system", "action:heartbeat", &json!([]));
    let (_, said) = client.hear(&batch(&json!([beat])));
    let state = &said[0]["data"]["body"];
    assert_eq!(
        (&said[0]["id"], &said[0]["type"], &state["name"]),
        (&json!("h"), &json!("callback"), &json!("b"))
    );
    assert_eq!(
        (&state["responderEvents"], &state["subscribeEvents"]),
        (&json!(["all/**", "one"]), &json!(["t/y"]))
    );
}

#[test]
fn an_event_with_one_argument_is_that_argument() {
    let mut server = Server::bound();
    for (arguments, ours) in [
        (json!([7]), json!(7)),
        (json!([]), json!([])),
        (json!([[1, 2]]), json!([1, 2])),
        (json!([[]]), json!([])),
        (json!([null]), json!(null)),
        (json!([1, 2]), json!([1, 2])),
        (json!([[1], [2]]), json!([[1], [2]])),
        (json!(["é"]), json!("é")),
        (json!([{ "a": 1 }]), json!({ "a": 1 })),
        (json!([vec![1; 16]]), json!(vec![1; 16])),
        (json!([vec![1; 40_000]]), json!(vec![1; 40_000])),
        (json!(vec![1; 20]), json!(vec![1; 20])),
    ] {
        for kind in ["publish", "notification"] {
            let message = said_by_branch("1", kind, "custom", "t", &arguments);
            let content = packed(&json!([message])).bytes;
            let len = u32::try_from(content.len()).unwrap().to_be_bytes();
            let (mut frames, _) = server.hear(&[&[0xC6][..], &len, &content].concat());
            let payload = frames[0].payload().expect("an event has one");
            assert_eq!(value(payload), ours, "{arguments}");
            let (_, said) = server.say(frames.remove(0));
            assert_eq!(said[0]["content"]["params"], arguments, "it is as it was for another branch");
        }
    }
    // What other programs publish.
    for (ours, params) in
        [(json!([1, [2]]), json!([1, [2]])), (json!("a"), json!(["a"])), (json!({}), json!([{}]))]
    {
        let event = Publish {
            topic: "t".into(),
            publisher: "".into(),
            for_all: true,
            groups: vec![],
            headers: Headers::none(),
            payload: packed(&ours),
        };
        assert_eq!(server.say(Frame::Publish(event)).1[0]["content"]["params"], params);
    }
}

#[test]
fn a_map_that_looks_like_a_function_stays_data() {
    let mut server = Server::bound();
    let data = json!([{ "$callback": 0 }, { "$callback": "x" }, [{ "$callback": 1, "a": 2 }]]);
    let heard =
        request(&server.hear(&batch(&json!([said_by_branch("1", "request", "custom", "a", &data)]))).0);
    assert_eq!((value(&heard.payload), heard.payload.callbacks.len()), (data.clone(), 0));
    let (frames, said) = server.say(Frame::Request(heard));
    assert_eq!((frames, &said[0]["content"]["params"]), (vec![], &data));
}

#[test]
fn an_action_that_looks_like_a_pattern_is_text() {
    let mut server = Server::new();
    let params = json!(["b", null, ["all/**", "all/%2A%2A"], []]);
    let bind = said_by_branch("1", "request", "system", "action:bindAuth", &params);
    let (frames, _) = server.hear(&batch(&json!([bind])));
    let [Frame::Bind(bind)] = &frames[..] else { panic!("{frames:?}") };
    let offers: Vec<_> = bind.offers.iter().map(|offer| &*offer.action).collect();
    assert_eq!(offers, ["all/%2A%2A", "all/%252A%2A"]);
    server.say(bound());
    for action in ["all/**", "all/%2A%2A", "all/foo", "**"] {
        let call = said_by_branch("2", "request", "custom", action, &json!([]));
        let call = request(&server.hear(&batch(&json!([call]))).0);
        assert!(!meshwork_wire::is_everything_below(&call.action));
        assert_eq!(server.say(Frame::Request(call)).1[0]["content"]["action"], action);
    }
}

/// A `bin` with so many requests, each with a text of this length.
fn long_batch(count: usize, len: usize) -> Vec<u8> {
    let text = "x".repeat(len);
    let messages: Vec<_> = (0..count)
        .map(|number| said_by_branch(&number.to_string(), "request", "custom", "a", &json!([text])))
        .collect();
    let content = packed(&json!(messages)).bytes;
    [&[0xC6][..], &u32::try_from(content.len()).expect("it fits").to_be_bytes(), &content].concat()
}

#[test]
fn a_batch_that_is_longer_than_a_frame_is_heard_message_by_message() {
    let mut server = Server::bound();
    let batch = long_batch(50, 400_000);
    assert!(batch.len() > 17 * 1024 * 1024);
    let (mut bytes, mut requests, mut most) = (BytesMut::new(), 0, 0);
    for piece in batch.chunks(100_000) {
        bytes.extend_from_slice(piece);
        let mut said = Said::default();
        server.dialect.hear(&mut bytes, server.now, &mut said).expect("it is understood");
        requests += said.frames.len();
        most = most.max(bytes.len());
    }
    assert_eq!((requests, bytes.len()), (50, 0));
    assert!(most < 500_000, "{most} bytes are held");
}

#[test]
fn a_message_that_is_too_long_is_refused_alone() {
    let mut server = Server::bound();
    let long = long_batch(1, 17 * 1024 * 1024);
    let (mut bytes, mut said, mut most) = (BytesMut::new(), Said::default(), 0);
    for piece in [&long, &long_batch(1, 5)[..]].concat().chunks(1_000_000) {
        bytes.extend_from_slice(piece);
        server.dialect.hear(&mut bytes, server.now, &mut said).expect("it is understood");
        most = most.max(bytes.len());
    }
    assert_eq!((said.frames.len(), bytes.len()), (1, 0));
    assert!(most < 17 * 1024 * 1024);
    let answers = messages(&said.bytes);
    assert_eq!((answers.len(), &answers[0]["id"]), (1, &json!("0")));
    assert_eq!(answers[0]["data"]["error"]["code"], "FRAME_TOO_LARGE");
}

#[test]
fn hops_are_told_only_where_there_are_any() {
    let mut server = Server::bound();
    let call = request(&server.hear(&line(3).0).0);
    assert_eq!(call.hops, 0);
    let (_, said) = server.say(Frame::Request(call.clone()));
    assert_eq!(said[0].as_object().unwrap().len(), 9);
    let mut elsewhere = Server::bound();
    let (_, said) = elsewhere.say(Frame::Request(Request { hops: 7, ..call }));
    assert_eq!(said[0]["hops"], 7);
    assert_eq!(request(&Server::bound().hear(&batch(&json!(said))).0).hops, 7);
}

#[test]
fn headers_of_the_application_are_told_where_there_are_any() {
    let headers = Headers::of([("tenant", "grün \"a\""), ("traceparent", "x")]).unwrap();
    let mut server = Server::bound();
    let call = request(&server.hear(&line(3).0).0);
    assert_eq!(call.headers, Headers::none());
    let mut with_own = headers.clone();
    with_own.insert_own(Headers::IDEMPOTENCY_KEY, "7").unwrap();
    let (_, said) = server.say(Frame::Request(Request { headers: with_own, hops: 7, ..call }));
    assert_eq!(said[0]["headers"], json!({ "tenant": "grün \"a\"", "traceparent": "x" }));
    let heard = request(&Server::bound().hear(&batch(&json!(said))).0);
    assert_eq!((&heard.headers, heard.hops), (&headers, 7));
    let (_, said) = server.say(Frame::Broadcast(Broadcast {
        topic: "t".into(),
        publisher: "p".into(),
        headers: headers.clone(),
        payload: Payload::encode(Encoding::MessagePack, &1).unwrap(),
    }));
    let heard = Server::bound().hear(&batch(&json!(said))).0;
    assert!(matches!(&heard[..], [Frame::Broadcast(heard)] if heard.headers == headers), "{heard:?}");
    for bad in [
        json!({ "a b": "1" }),
        json!({ "mesh-key": "1" }),
        json!({ "a": "1\n2" }),
        json!({ "a": "x".repeat(5_000) }),
        json!([1, 2]),
        json!(7),
    ] {
        let mut message = said_by_branch("own", "request", "custom", "add2", &json!([9, 9]));
        message["headers"] = bad;
        let heard = request(&Server::bound().hear(&batch(&json!([message]))).0);
        assert_eq!(heard.headers, Headers::none(), "{message}");
    }
}

/// A branch that has not the action any more asks its master for it.
#[test]
fn a_request_that_a_branch_sends_back_has_its_hops() {
    let mut server = Server::bound();
    let call = request(&server.hear(&line(3).0).0);
    for hops in 1..5 {
        let (_, said) = server.say(Frame::Request(Request {
            callback_id: CallbackId(hops),
            hops: hops as u8,
            ..call.clone()
        }));
        let mut back = said[0].clone();
        back.as_object_mut().unwrap().remove("hops");
        back["id"] = json!(format!("back{hops}"));
        assert_eq!(u64::from(request(&server.hear(&batch(&json!([back]))).0).hops), hops);
    }
    let own = said_by_branch("own", "request", "custom", "add2", &json!([9, 9]));
    assert_eq!(request(&server.hear(&batch(&json!([own]))).0).hops, 0, "another request is its own");
}

//! light_rpc against the recorded packets of its original programs, and against packets that no program should send.

use super::{bound, request};
use bytes::BytesMut;
use meshwork_wire::{
    Accepts, Allowed, ByteString, CallError, CallbackId, Code, Dialect, Encoding, Fate, Frame, Headers,
    LightRpcClient, LightRpcServer, NodeNews, Pattern, Payload, Request, Response, Said, SessionId,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TRANSCRIPT: &str = include_str!("../recorded/light_rpc.jsonl");

/// The recorded packets, each with whether the client said it.
fn transcript() -> Vec<(bool, String)> {
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("the test has it so");
        let text = line["utf8"].as_str().expect("the test has it so").to_owned();
        (line["direction"] == "client->server", text)
    };
    TRANSCRIPT.lines().map(line).collect()
}

/// The JSON of every packet; the lengths must be right.
fn packets(mut text: &str) -> Vec<Value> {
    let mut packets = Vec::new();
    while let Some((length, rest)) = text.split_once('\n') {
        let (json, behind) = rest.split_at(length.parse().expect("the test has it so"));
        packets.push(serde_json::from_str(json).expect("the test has it so"));
        text = behind;
    }
    assert_eq!(text, "");
    packets
}

fn packet(value: &Value) -> String {
    let json = value.to_string();
    format!("{}\n{json}", json.len())
}

fn news(actions: &[&'static str]) -> NodeNews {
    let actions = actions.iter().map(|action| (ByteString::from_static(action), Accepts::List)).collect();
    NodeNews { node: "node".into(), session: SessionId(1), whole: true, actions }
}

/// A server that is bound and sees these actions.
struct Server {
    dialect: LightRpcServer,
    now: Instant,
}

impl Server {
    fn new(actions: &[&'static str], allowed: Allowed) -> Self {
        let mut server = Self { dialect: LightRpcServer::new("1.2.3.4:5", allowed), now: Instant::now() };
        let mut said = Said::default();
        server.dialect.begin(Instant::now(), &mut said);
        assert!(matches!(&said.frames[..], [Frame::Bind(bind)] if bind.name == "light_rpc/1.2.3.4:5"));
        for frame in [Frame::Online(news(actions)), bound()] {
            assert_eq!(server.say(frame), (vec![], vec![]));
        }
        server
    }

    fn hear(&mut self, text: &str) -> (Vec<Frame>, Vec<Value>) {
        let mut said = Said::default();
        let mut bytes = BytesMut::from(text);
        self.dialect.hear(&mut bytes, self.now, &mut said).expect("the test has it so");
        assert!(bytes.is_empty(), "{bytes:?} is left over");
        (said.frames, packets(std::str::from_utf8(&said.bytes).expect("the test has it so")))
    }

    fn say(&mut self, frame: Frame) -> (Vec<Frame>, Vec<Value>) {
        let mut said = Said::default();
        self.dialect.say(frame, self.now, &mut said).expect("the test has it so");
        (said.frames, packets(std::str::from_utf8(&said.bytes).expect("the test has it so")))
    }
}

/// The replies of the recorded server's functions.
fn answer(request: &Request) -> Result<Payload, CallError> {
    let arguments: Value = request.payload.decode().expect("the test has it so");
    let value = match &*request.action {
        "combine" => json!(
            arguments[0].as_i64().expect("the test has it so")
                + arguments[1].as_i64().expect("the test has it so")
        ),
        "multiply" => json!(arguments[0].as_i64().expect("the test has it so") * 2),
        "boom" => return Err(CallError::named(Code(1_200), Fate::Failed, "Boom", "it went off")),
        other => {
            let nobody = format!("nobody offers {other}");
            return Err(CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, nobody));
        }
    };
    Ok(Payload::encode(Encoding::Json, &value).expect("the test has it so"))
}

#[test]
fn a_recorded_client_gets_what_the_recorded_server_said() {
    let mut server = Server::new(&["combine", "multiply", "pair", "boom"], Allowed::all());
    let mut lines = transcript().into_iter().peekable();
    while let Some((from_client, text)) = lines.next() {
        assert!(from_client, "each answer follows its question");
        let expected = packets(&lines.next().unwrap().1);
        let (frames, mut answered) = server.hear(&text);
        for frame in frames {
            let Frame::Request(request) = frame else { panic!("a client only asks: {frame:?}") };
            if request.action == "pair" {
                // `pair` has two results, and an action has one reply.
                continue;
            }
            let outcome = answer(&request);
            answered.extend(
                server.say(Frame::Response(Response { callback_id: request.callback_id, outcome })).1,
            );
        }
        match expected[0]["command"].as_str().unwrap() {
            "__D" => assert_eq!(answered, expected),
            // The original writes an error as `{}`; this server writes name, message and code, under the id of the call.
            "__E" => {
                assert_eq!(answered[0]["data"]["id"], expected[0]["data"]["id"]);
                let error = json!({ "name": "Boom", "message": "it went off", "code": 1200 });
                assert_eq!(answered[0]["data"]["err"], error);
            }
            // The original sends this error without an id, so no caller hears of it.
            "error" => {
                let id = packets(&text)[0]["data"]["id"].clone();
                let unknown = json!({ "command": "error", "data": { "code": "UNKNOWN_COMMAND", "id": id } });
                let thrown =
                    json!({ "command": "__E", "data": { "id": id, "err": { "code": "UNKNOWN_COMMAND" } } });
                assert_eq!(answered, [unknown, thrown]);
            }
            _ if answered.is_empty() => {}
            _ => assert_eq!(answered, expected),
        }
    }
}

#[test]
fn a_recorded_server_is_called_as_the_recorded_client_called_it() {
    let mut client = LightRpcClient::new("bridge".into(), None, "old");
    let now = Instant::now();
    let mut said = Said::default();
    client.begin(Instant::now(), &mut said);
    let mut ids = Vec::new();
    for (from_client, text) in transcript() {
        if from_client {
            let asked = &packets(&text)[0];
            if asked["command"] == "__D" {
                assert_eq!(said.bytes.split(), text.as_bytes());
                continue;
            }
            let request = Request {
                callback_id: CallbackId(ids.len() as u64),
                action: format!("old/{}", asked["command"].as_str().unwrap()).into(),
                node: ByteString::new(),
                caller: ByteString::new(),
                time_left: Some(Duration::from_secs(1)),
                hops: 0,
                headers: Headers::none(),
                payload: Payload::encode(Encoding::MessagePack, &asked["data"]["args"]).unwrap(),
            };
            client.say(Frame::Request(request), now, &mut said).unwrap();
            let mut calls = packets(std::str::from_utf8(&said.bytes.split()).unwrap());
            ids.push((calls[0]["data"]["id"].take(), asked["data"]["id"].clone()));
            calls[0]["data"]["id"] = asked["data"]["id"].clone();
            assert_eq!(calls, packets(&text));
            continue;
        }
        let mut text = text;
        for (ours, theirs) in &ids {
            text = text.replace(theirs.as_str().unwrap(), ours.as_str().unwrap());
        }
        client.hear(&mut BytesMut::from(&text[..]), now, &mut said).unwrap();
        let said_now: Vec<_> = said.frames.drain(..).collect();
        match (&packets(&text)[0]["data"], &said_now[..]) {
            (_, [Frame::Bind(bind)]) => {
                let offered: Vec<_> = bind.offers.iter().map(|offer| &*offer.action).collect();
                assert_eq!(offered, ["old/boom", "old/combine", "old/multiply", "old/pair"]);
            }
            (data, [Frame::Response(Response { outcome: Ok(payload), .. })]) => {
                let results = data["args"].as_array().unwrap();
                let expected = if results.len() == 1 { results[0].clone() } else { data["args"].clone() };
                assert_eq!(payload.decode::<Value>().unwrap(), expected);
            }
            (data, [Frame::Response(Response { outcome: Err(error), .. })]) => {
                assert_eq!(
                    (&data["err"], error.fate(), error.code()),
                    (&json!({}), Fate::Failed, Code::UNKNOWN)
                );
            }
            // An error without an id belongs to no known call.
            (data, []) => assert_eq!(*data, json!({ "code": "UNKNOWN_COMMAND" })),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_may_be_called_follows_what_comes_and_goes_and_is_allowed() {
    let allowed = Allowed::only([Pattern::new("public/**").unwrap()]);
    let mut server = Server::new(&["public/a", "secret"], allowed);
    let described = |server: &mut Server| {
        let (_, answered) = server.hear("17\n{\"command\":\"__D\"}");
        answered[0]["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(described(&mut server), ["public/a"]);
    let more = NodeNews { session: SessionId(7), ..news(&["public/a", "public/b"]) };
    server.say(Frame::Online(more.clone()));
    assert_eq!(described(&mut server), ["public/a", "public/b"]);
    server.say(Frame::Offline(NodeNews { whole: false, ..news(&["public/a"]) }));
    assert_eq!(described(&mut server), ["public/a", "public/b"], "the other one still offers it");
    server.say(Frame::Offline(NodeNews { actions: vec![], ..more }));
    assert_eq!(described(&mut server), Vec::<String>::new());
    let (frames, answered) =
        server.hear(&packet(&json!({ "command": "secret", "data": { "id": 1, "args": [] } })));
    assert_eq!(frames, []);
    assert_eq!(
        answered[1],
        json!({ "command": "__E", "data": { "id": 1, "err": { "code": "UNKNOWN_COMMAND" } } })
    );
}

#[test]
fn nothing_runs_before_it_is_bound() {
    let mut server = LightRpcServer::new("peer", Allowed::all());
    let (mut said, now) = (Said::default(), Instant::now());
    server.begin(Instant::now(), &mut said);
    said.frames.clear();
    let mut bytes =
        BytesMut::from(&packet(&json!({ "command": "a", "data": { "id": "x", "args": [] } }))[..]);
    server.hear(&mut bytes, now, &mut said).unwrap();
    assert!(said.frames.is_empty() && said.bytes.is_empty() && !bytes.is_empty());
    server.say(bound(), now, &mut said).unwrap();
    server.hear(&mut bytes, now, &mut said).unwrap();
    assert!(matches!(&said.frames[..], [Frame::Request(_)]) && bytes.is_empty());
}

#[test]
fn values_pass_as_they_were_written() {
    let mut server = Server::new(&["echo"], Allowed::all());
    let values =
        r#"[18446744073709551617,1e400,-0.0,1.10,"\u00e9\ud83d\ude00 é😀",[[[null]]],{"b":1,"a":2}]"#;
    let json = format!(r#"{{"command":"echo","data":{{"id":"i","args":{values}}}}}"#);
    let mut said = Said::default();
    let mut bytes = BytesMut::from(&format!("{}\n{json}", json.len())[..]);
    server.dialect.hear(&mut bytes, server.now, &mut said).unwrap();
    let Some(Frame::Request(request)) = said.frames.pop() else { panic!("no request") };
    assert_eq!(&request.payload.bytes[..], values.as_bytes());
    let response = Response { callback_id: request.callback_id, outcome: Ok(request.payload) };
    server.dialect.say(Frame::Response(response), server.now, &mut said).unwrap();
    let expected = format!(r#"{{"command":"__R","data":{{"id":"i","args":[{values}]}}}}"#);
    assert_eq!(&said.bytes[..], format!("{}\n{expected}", expected.len()).as_bytes());
}

#[test]
fn a_call_that_takes_too_long_ends() {
    let mut server = Server::new(&["slow"], Allowed::all());
    let (frames, _) = server.hear(&packet(&json!({ "command": "slow", "data": { "id": "s", "args": [] } })));
    let [Frame::Request(request)] = &frames[..] else { panic!("no request") };
    let mut said = Said::default();
    server.dialect.expire(server.now + Duration::from_secs(59), &mut said);
    assert!(said.bytes.is_empty());
    server.dialect.expire(server.now + Duration::from_secs(61), &mut said);
    let answered = packets(std::str::from_utf8(&said.bytes).unwrap());
    assert_eq!(answered[0]["data"]["err"]["name"], "REQUEST_TIMEOUT");
    assert_eq!(said.frames, [Frame::Cancel(request.callback_id)]);
    let late = Response { callback_id: request.callback_id, outcome: Ok(Payload::new(Encoding::Json, "1")) };
    assert_eq!(server.say(Frame::Response(late)), (vec![], vec![]));
}

#[test]
fn bad_json_ends_nobody_elses_call() {
    let mut server = Server::new(&["a"], Allowed::all());
    let good = packet(&json!({ "command": "a", "data": { "id": "g", "args": [1] } }));
    for bad in [
        "{",
        "[]",
        "\"text\"",
        "{\"command\":1}",
        "nonsense",
        "{\"command\":\"a\"}",
        "{\"command\":\"a\",\"data\":7}",
    ] {
        let (frames, answered) = server.hear(&format!("{}\n{bad}{good}", bad.len()));
        assert_eq!(answered.len(), 1, "{bad}: {answered:?}");
        assert_eq!(answered[0]["command"], "error");
        assert!(matches!(&frames[..], [Frame::Request(_)]), "{bad}");
    }
    let no_list = packet(&json!({ "command": "a", "data": { "id": "n", "args": { "a": 1 } } }));
    let (frames, answered) = server.hear(&no_list);
    assert_eq!((frames.len(), &answered[0]["data"]["id"]), (0, &json!("n")));
}

#[test]
fn functions_are_given_back() {
    let mut server = Server::new(&["a"], Allowed::all());
    let (frames, _) = server.hear(&packet(&json!({ "command": "a", "data": { "id": "f", "args": [] } })));
    let [Frame::Request(request)] = &frames[..] else { panic!("no request") };
    let mut payload = Payload::new(Encoding::Json, r#"{"$callback":0}"#);
    payload.callbacks = [CallbackId(9)].into_iter().collect();
    let (frames, _) =
        server.say(Frame::Response(Response { callback_id: request.callback_id, outcome: Ok(payload) }));
    assert_eq!(frames, [Frame::Release(CallbackId(9))]);
}

#[test]
fn whoever_has_the_words_of_0_1_is_answered_in_them() {
    let mut server = Server::new(&["a"], Allowed::all());
    let (_, said) = server.hear(&packet(&json!({ "command": "__DESCR" })));
    assert_eq!(said, [json!({ "command": "__DESCR", "data": { "a": {} } })]);
    let call = |id: &str| packet(&json!({ "command": "a", "data": { "id": id, "args": [] } }));
    for (id, outcome, command) in [
        ("1", Ok(Payload::new(Encoding::Json, "1")), "__RESULT"),
        ("2", Err(CallError::new(Code::PANICKED, Fate::Failed, "it broke")), "__ERROR_CMD"),
    ] {
        let (frames, _) = server.hear(&call(id));
        let [Frame::Request(request)] = &frames[..] else { panic!("no request") };
        let (_, said) = server.say(Frame::Response(Response { callback_id: request.callback_id, outcome }));
        assert_eq!((&said[0]["command"], &said[0]["data"]["id"]), (&json!(command), &json!(id)));
    }
}

#[test]
fn a_server_that_does_not_know_the_word_is_asked_with_the_other_one_once() {
    let mut client = LightRpcClient::new("b".into(), None, "");
    let (mut said, now) = (Said::default(), Instant::now());
    client.begin(now, &mut said);
    let unknown = packet(&json!({ "command": "error", "data": { "code": "UNKNOWN_COMMAND" } }));
    for _ in 0..3 {
        client.hear(&mut BytesMut::from(&unknown[..]), now, &mut said).unwrap();
    }
    let asked = packets(std::str::from_utf8(&said.bytes).unwrap());
    assert_eq!(asked, [json!({ "command": "__D" }), json!({ "command": "__DESCR" })]);
    let described = packet(&json!({ "command": "__DESCR", "data": { "a": {} } }));
    client.hear(&mut BytesMut::from(&described[..]), now, &mut said).unwrap();
    assert!(matches!(&said.frames[..], [Frame::Bind(bind)] if bind.offers[0].action == "a"));
}

/// Such a packet ended the connection, and no caller was told.
#[test]
fn a_packet_that_is_too_long_ends_its_own_call_and_no_other() {
    let mut server = Server::new(&["a"], Allowed::all());
    let text = "x".repeat(40_000_000);
    let good = packet(&json!({ "command": "a", "data": { "id": "g", "args": [1] } }));
    for (json, id) in [
        (format!(r#"{{"command":"a","data":{{"id":"long","args":["{text}"]}}}}"#), Some("long")),
        (format!(r#"{{"data":{{"args":[{{"id":7}},"{text}"],"id":"long"}},"command":"a"}}"#), Some("long")),
        (format!(r#"{{"command":"a","data":"{text}"}}"#), None),
    ] {
        let (mut said, mut bytes) = (Said::default(), BytesMut::new());
        for piece in format!("{}\n{json}{good}", json.len()).as_bytes().chunks(1 << 20) {
            bytes.extend_from_slice(piece);
            server.dialect.hear(&mut bytes, server.now, &mut said).expect("the connection lives");
            assert!(bytes.len() < 1 << 20, "{} bytes are kept", bytes.len());
        }
        assert!(matches!(&said.frames[..], [Frame::Request(_)]), "the next packet is heard");
        let answered = packets(std::str::from_utf8(&said.bytes).unwrap());
        match id {
            Some(id) => {
                assert_eq!(
                    (&answered[0]["command"], &answered[0]["data"]["id"]),
                    (&json!("__E"), &json!(id))
                );
                assert_eq!(answered[0]["data"]["err"]["name"], "FRAME_TOO_LARGE");
            }
            None => assert_eq!(answered, [json!({ "command": "error", "data": { "code": "TOO_LONG" } })]),
        }
    }
}

/// A client that is described these functions, and the frames and bytes that it said.
fn described(functions: &Value) -> (LightRpcClient, Said) {
    let mut client = LightRpcClient::new("b".into(), None, "old");
    let mut said = Said::default();
    client.begin(Instant::now(), &mut said);
    let packet = packet(&json!({ "command": "__D", "data": functions }));
    client.hear(&mut BytesMut::from(&packet[..]), Instant::now(), &mut said).expect("it is a packet");
    said.bytes.clear();
    (client, said)
}

fn asked(action: &'static str, payload: Payload) -> Frame {
    Frame::Request(Request {
        callback_id: CallbackId(9),
        action: action.into(),
        node: ByteString::new(),
        caller: ByteString::new(),
        time_left: None,
        hops: 0,
        headers: Headers::none(),
        payload,
    })
}

#[test]
fn a_result_that_is_too_long_ends_the_call_that_waits_for_it() {
    let (mut client, mut said) = described(&json!({ "a": {} }));
    said.frames.clear();
    client.say(asked("old/a", Payload::new(Encoding::Json, "[1]")), Instant::now(), &mut said).unwrap();
    let calls = packets(std::str::from_utf8(&said.bytes).unwrap());
    let id = &calls[0]["data"]["id"];
    let json = format!(r#"{{"command":"__R","data":{{"args":["{}"],"id":{id}}}}}"#, "x".repeat(20_000_000));
    let mut bytes = BytesMut::from(&format!("{}\n{json}", json.len())[..]);
    client.hear(&mut bytes, Instant::now(), &mut said).unwrap();
    let [Frame::Response(Response { callback_id: CallbackId(9), outcome: Err(error) })] = &said.frames[..]
    else {
        panic!("{:?}", said.frames)
    };
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::Failed));
}

#[test]
fn integers_of_javascript_are_the_numbers_that_it_meant() {
    let mut server = Server::new(&["a"], Allowed::all());
    let json = r#"{"command":"a","data":{"id":"n","args":[1152921504606847000,-9223372036854776000]}}"#;
    let (frames, _) = server.hear(&format!("{}\n{json}", json.len()));
    let [Frame::Request(request)] = &frames[..] else { panic!("no request") };
    assert_eq!(request.payload.decode::<(i64, i64)>(), Ok((1 << 60, i64::MIN)));
}

#[test]
fn the_name_of_a_function_stands_for_itself_alone() {
    let long = "x".repeat(300);
    let (mut client, mut said) = described(&json!({ "a/**": {}, "": {}, long: {}, "__proto__": {} }));
    let [Frame::Bind(bind)] = &said.frames[..] else { panic!("{:?}", said.frames) };
    let offered: Vec<_> = bind.offers.iter().map(|offer| &*offer.action).collect();
    assert_eq!((offered, said.notes.len()), (vec!["old/", "old/__proto__", "old/a/%2A%2A"], 1));
    for ours in ["old/a/**", "old/a/%2A%2A"] {
        said.bytes.clear();
        client.say(asked(ours, Payload::new(Encoding::Json, "[]")), Instant::now(), &mut said).unwrap();
        assert_eq!(packets(std::str::from_utf8(&said.bytes).unwrap())[0]["command"], "a/**", "{ours}");
    }
}

/// A client that called a function of such a name never heard of it again.
#[test]
fn a_function_may_be_called_as_a_word_of_the_protocol_is() {
    for name in ["error", "__R", "__E", "__RESULT", "__ERROR_CMD"] {
        let mut server = Server::new(&[], Allowed::all());
        let call = packet(&json!({ "command": name, "data": { "id": "n", "args": [1] } }));
        let asked = request(&server.hear(&call).0);
        assert_eq!((&*asked.action, asked.payload.bytes), (name, "[1]".into()));
        // What no client says is answered by nothing, so that two servers would not talk for ever.
        for data in [json!({ "code": "BAD_CALL" }), json!({ "id": "n", "err": {} })] {
            let (frames, said) = server.hear(&packet(&json!({ "command": name, "data": data })));
            assert!(frames.is_empty() && said.is_empty(), "{said:?}");
        }
    }
}

/// The numbers in an error were those that JavaScript wrote, and not those that it meant.
#[test]
fn the_integers_of_an_error_are_those_that_javascript_meant() {
    let (mut client, mut said) = described(&json!({ "a": {} }));
    client.say(asked("old/a", Payload::new(Encoding::Json, "[]")), Instant::now(), &mut said).unwrap();
    let id = packets(std::str::from_utf8(&said.bytes).unwrap())[0]["data"]["id"].clone();
    let ours = 1_152_921_504_606_847_000_u64;
    let error = format!(r#"{{"code":{ours},"exact":{ours}e0}}"#);
    let answer = format!(r#"{{"command":"__E","data":{{"id":{id},"err":{error}}}}}"#);
    let answer = format!("{}\n{answer}", answer.len());
    client.hear(&mut BytesMut::from(&answer[..]), Instant::now(), &mut said).unwrap();
    let Some(Frame::Response(Response { outcome: Err(error), .. })) = said.frames.pop() else {
        panic!("no error")
    };
    assert_eq!(error.application_code(), Some(&(1_u64 << 60).into()));
    assert_eq!(error.data_as::<Value>(), Ok(json!({ "exact": ours })));
    // And written so that it is found again.
    let mut server = Server::new(&["a"], Allowed::all());
    let call = packet(&json!({ "command": "a", "data": { "id": "n", "args": [] } }));
    let callback_id = request(&server.hear(&call).0).callback_id;
    let mut said = Said::default();
    let response = Frame::Response(Response { callback_id, outcome: Err(error) });
    server.dialect.say(response, server.now, &mut said).unwrap();
    let packet = String::from_utf8(said.bytes.to_vec()).unwrap();
    assert!(packet.contains(&format!(r#"{{"code":{},"exact":{ours}e0}}"#, 1_u64 << 60)), "{packet}");
}

#[test]
fn headers_of_the_application_are_told_where_there_are_any() {
    let headers = Headers::of([("tenant", "grün \"a\""), ("traceparent", "x")]).unwrap();
    let (mut client, mut said) = described(&json!({ "a": {} }));
    let mut with_own = headers.clone();
    with_own.insert_own(Headers::IDEMPOTENCY_KEY, "7").unwrap();
    let Frame::Request(call) = asked("old/a", Payload::new(Encoding::Json, "[1]")) else {
        panic!("a request")
    };
    client
        .say(Frame::Request(Request { headers: with_own, hops: 3, ..call }), Instant::now(), &mut said)
        .unwrap();
    let packet = std::str::from_utf8(&said.bytes).unwrap().to_owned();
    assert_eq!(packets(&packet)[0]["data"]["headers"], json!({ "tenant": "grün \"a\"", "traceparent": "x" }));
    let (frames, _) = Server::new(&["a"], Allowed::all()).hear(&packet);
    let [Frame::Request(heard)] = &frames[..] else { panic!("no request: {frames:?}") };
    assert_eq!((&heard.headers, heard.hops), (&headers, 3));
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000));
    for bad in [r#"{"a b":"1"}"#, r#"{"mesh-key":"1"}"#, r#"{"a":"1\n2"}"#, r#"{"a":1}"#, "[1]", "7", &*long]
    {
        let json = format!(r#"{{"command":"a","data":{{"id":"n","args":[1],"headers":{bad}}}}}"#);
        let (frames, _) = Server::new(&["a"], Allowed::all()).hear(&format!("{}\n{json}", json.len()));
        let [Frame::Request(heard)] = &frames[..] else { panic!("no request: {frames:?}") };
        assert_eq!(heard.headers, Headers::none(), "{bad}");
    }
}

//! dnode against the recorded lines of its original programs, and against lines that no program should send.

use super::{bound, request};
use bytes::BytesMut;
use meshwork_wire::limits::FOREIGN_FUNCTIONS_MAX;
use meshwork_wire::{
    Accepts, Allowed, ByteString, CallError, CallbackId, Callbacks, Code, Dialect, DialectError, Dnode,
    Encoding, Fate, Features, Frame, Grant, Granted, Headers, Invoke, Item, NodeNews, OpenStream, Payload,
    Request, Response, ResultStyle, Said, SessionId, Wants,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TRANSCRIPT: &str = include_str!("../recorded/dnode.jsonl");

/// The recorded lines, each with whether the client said it.
fn transcript() -> Vec<(bool, Value)> {
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a transcript is JSON");
        let said = line["utf8"].as_str().expect("a text");
        (line["direction"] == "client->server", serde_json::from_str(said).expect("a line is JSON"))
    };
    TRANSCRIPT.lines().map(line).collect()
}

/// One end of a dnode connection.
struct End {
    dialect: Dnode,
    now: Instant,
}

impl End {
    /// A server that is bound and sees these actions, and the first lines that it says.
    fn server(actions: &[&'static str], style: ResultStyle) -> (Self, Vec<Value>) {
        let mut end =
            Self { dialect: Dnode::server("1.2.3.4:5", Allowed::all(), style), now: Instant::now() };
        let mut said = Said::default();
        end.dialect.begin(Instant::now(), &mut said);
        assert!(matches!(&said.frames[..], [Frame::Bind(bind)] if bind.name == "dnode/1.2.3.4:5"));
        let actions = actions.iter().map(|action| (ByteString::from_static(action), Accepts::List)).collect();
        let news = NodeNews { node: "node".into(), session: SessionId(1), whole: true, actions };
        assert_eq!(end.say(Frame::Online(news)), (vec![], vec![]));
        let (frames, lines) = end.say(bound());
        assert_eq!(frames, []);
        (end, lines)
    }

    fn hear(&mut self, line: &Value) -> (Vec<Frame>, Vec<Value>) {
        let mut said = Said::default();
        let mut bytes = BytesMut::from(&format!("{line}\n")[..]);
        self.dialect.hear(&mut bytes, self.now, &mut said).expect("it is a line");
        assert!(bytes.is_empty());
        let lines = lines(&said);
        (said.frames, lines)
    }

    fn say(&mut self, frame: Frame) -> (Vec<Frame>, Vec<Value>) {
        let mut said = Said::default();
        self.dialect.say(frame, self.now, &mut said).expect("it goes on");
        let lines = lines(&said);
        (said.frames, lines)
    }

    fn expire(&mut self, after: Duration) -> (Vec<Frame>, Vec<Value>) {
        let mut said = Said::default();
        self.now += after;
        self.dialect.expire(self.now, &mut said);
        let lines = lines(&said);
        (said.frames, lines)
    }
}

fn lines(said: &Said) -> Vec<Value> {
    let text = std::str::from_utf8(&said.bytes).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn reply(callback_id: CallbackId, value: &Value) -> Frame {
    let outcome = Ok(Payload::encode(Encoding::Json, value).expect("JSON"));
    Frame::Response(Response { callback_id, outcome })
}

fn invoke(function: u64, callback_id: Option<u64>, wants: Wants, arguments: &Value) -> Frame {
    Frame::Invoke(Invoke {
        function: CallbackId(function),
        callback_id: callback_id.map(CallbackId),
        time_left: None,
        wants,
        payload: Payload::encode(Encoding::MessagePack, arguments).expect("MessagePack"),
    })
}

fn arguments(payload: &Payload) -> (Value, Vec<CallbackId>) {
    (payload.decode().expect("JSON"), payload.callbacks.ids())
}

/// The recorded server says its functions in an order of its own, so their names here put them into that order.
const ACTIONS: [&str; 3] = ["a-timesTen", "b-each", "c-deep"];

#[test]
fn a_recorded_client_gets_what_the_recorded_server_said() {
    let (mut server, methods) = End::server(&ACTIONS, ResultStyle::Result);
    let said: Vec<_> = transcript().into_iter().map(|(_, line)| line).collect();
    let expected = json!({ "0": ["0", ACTIONS[0]], "1": ["0", ACTIONS[1]], "2": ["0", ACTIONS[2]] });
    assert_eq!(
        (methods.len(), &methods[0]["method"], &methods[0]["callbacks"]),
        (1, &json!("methods"), &expected)
    );
    assert_eq!(
        server.hear(&said[0]),
        (vec![], vec![]),
        "its own function is nothing that the mesh could name"
    );

    let times_ten = request(&server.hear(&said[2]).0);
    assert_eq!((&*times_ten.action, arguments(&times_ten.payload)), (ACTIONS[0], (json!([5]), vec![])));
    assert_eq!(server.say(reply(times_ten.callback_id, &json!(50))).1, [said[3].clone()]);

    let each = request(&server.hear(&said[4]).0);
    let expected = (json!([[1, 2], { "$callback": 0 }]), vec![CallbackId(2)]);
    assert_eq!((&*each.action, arguments(&each.payload)), (ACTIONS[1], expected));
    for (number, line) in [(1, 5), (2, 6)] {
        assert_eq!(
            server.say(invoke(2, None, Wants::Nothing, &json!([number]))),
            (vec![], vec![said[line].clone()])
        );
    }
    // This call was answered in the style of Node.js, the error first.
    let (mut error_first, _) = End::server(&ACTIONS, ResultStyle::ErrorFirst);
    let again = request(&error_first.hear(&said[4]).0);
    assert_eq!(error_first.say(reply(again.callback_id, &json!(2))).1, [said[7].clone()]);

    let deep = request(&server.hear(&said[8]).0);
    let expected = (json!([{ "on": { "fn": { "$callback": 0 } } }]), vec![CallbackId(4)]);
    assert_eq!((&*deep.action, arguments(&deep.payload)), (ACTIONS[2], expected));
    assert_eq!(server.say(invoke(4, Some(77), Wants::Result, &json!([7]))), (vec![], vec![said[9].clone()]));
    let (frames, answered) = server.hear(&said[10]);
    assert_eq!((frames, answered), (vec![reply(CallbackId(77), &json!(8))], vec![]));
    assert_eq!(server.say(reply(deep.callback_id, &json!(8))).1, [said[11].clone()]);

    let more = request(&server.hear(&said[12]).0);
    assert_eq!(arguments(&more.payload), (json!([4, { "k": 1 }, { "k": 1 }]), vec![]));
    assert_eq!(server.say(reply(more.callback_id, &json!(40))).1, [said[13].clone()]);
}

#[test]
fn a_recorded_server_is_called_by_its_numbers() {
    let mut end = End {
        dialect: Dnode::client("bridge".into(), Some("token".into()), "old", ResultStyle::Result),
        now: Instant::now(),
    };
    let mut said = Said::default();
    end.dialect.begin(Instant::now(), &mut said);
    assert_eq!(lines(&said)[0]["method"], "methods");
    let recorded = transcript();
    let (frames, _) = end.hear(&recorded[1].1);
    let [Frame::Bind(bind)] = &frames[..] else { panic!("{frames:?}") };
    let offered: Vec<_> = bind.offers.iter().map(|offer| &*offer.action).collect();
    assert_eq!(
        (offered, bind.credentials.as_deref()),
        (vec!["old/deep", "old/each", "old/timesTen"], Some("token"))
    );
    let request = |action: &'static str, arguments: &Value, callbacks: Callbacks| {
        let mut payload = Payload::encode(Encoding::MessagePack, arguments).expect("MessagePack");
        payload.callbacks = callbacks;
        Frame::Request(Request {
            callback_id: CallbackId(9),
            action: action.into(),
            node: "".into(),
            caller: "".into(),
            time_left: None,
            hops: 0,
            headers: Headers::none(),
            payload,
        })
    };
    let (_, lines) = end.say(request("old/timesTen", &json!([5]), Callbacks::none()));
    assert_eq!((&lines[0]["method"], &lines[0]["arguments"]), (&json!(0), &json!([5, "[Function]"])));
    let number = lines[0]["callbacks"].as_object().unwrap().keys().next().unwrap().parse::<u64>().unwrap();
    let answer = json!({ "method": number, "arguments": [50], "callbacks": {}, "links": [] });
    assert_eq!(end.hear(&answer), (vec![reply(CallbackId(9), &json!(50))], vec![]));
    assert_eq!(end.hear(&answer), (vec![], vec![]), "it counts once");
    // A function of the mesh is passed under a number that this end draws, and called by that number.
    let passed = [CallbackId(31)].into_iter().collect();
    let (_, lines) = end.say(request("old/each", &json!([[1], { "$callback": 0 }]), passed));
    let listed = lines[0]["callbacks"].as_object().unwrap();
    let (number, _) = listed.iter().find(|(_, path)| **path == json!(["1"])).unwrap();
    let called = json!({ "method": number.parse::<u64>().unwrap(), "arguments": [7] });
    let (frames, _) = end.hear(&called);
    let [Frame::Invoke(invoke)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((invoke.function, invoke.callback_id, invoke.wants), (CallbackId(31), None, Wants::Nothing));
    let (frames, _) = end.hear(&json!({ "method": "cull", "arguments": [number.parse::<u64>().unwrap()] }));
    assert_eq!(frames, [Frame::Release(CallbackId(31))]);
    let (frames, _) = end.say(request("old/none", &json!([]), [CallbackId(32)].into_iter().collect()));
    assert!(matches!(&frames[..], [Frame::Release(CallbackId(32)), Frame::Response(_)]), "{frames:?}");
}

#[test]
fn results_and_errors_come_in_the_style_of_the_gateway() {
    let error = CallError::named(Code(1_200), Fate::Failed, "Boom", "it went off");
    let failure = json!({ "name": "Boom", "message": "it went off", "code": 1200 });
    for (style, result, failed) in [
        (ResultStyle::Result, json!([1]), json!([null, failure])),
        (ResultStyle::ErrorFirst, json!([null, 1]), json!([failure])),
    ] {
        let (mut server, _) = End::server(&["a"], style);
        let call = json!({ "method": "a", "arguments": ["[Function]"], "callbacks": { "3": ["0"] } });
        let asked = request(&server.hear(&call).0);
        assert_eq!(server.say(reply(asked.callback_id, &json!(1))).1[0]["arguments"], result);
        let asked = request(&server.hear(&call).0);
        let response = Response { callback_id: asked.callback_id, outcome: Err(error.clone()) };
        assert_eq!(server.say(Frame::Response(response)).1[0]["arguments"], failed);
    }
}

#[test]
fn a_function_that_gives_nothing_is_over_when_it_was_called() {
    let (mut server, _) = End::server(&[], ResultStyle::Result);
    for _ in 0..10 {
        let (frames, lines) = server.say(invoke(5, Some(1), Wants::End, &json!([50])));
        assert_eq!(frames, [reply(CallbackId(1), &json!(null))]);
        // It gets its own arguments and no function for a result.
        assert_eq!((&lines[0]["arguments"], &lines[0]["callbacks"]), (&json!([50]), &json!({})));
    }
}

/// A `cull` that crossed a call with the function took its answer with it.
#[test]
fn a_function_of_the_peer_is_the_peers_for_ever() {
    let (mut server, _) = End::server(&["keep"], ResultStyle::Result);
    let call = json!({
        "method": "keep",
        "arguments": [{ "f": "[Function]" }, "[Function]"],
        "callbacks": { "8": ["0", "f"], "9": ["1"] },
    });
    for _ in 0..3 {
        let asked = request(&server.hear(&call).0);
        assert_eq!(server.say(reply(asked.callback_id, &json!(1))).1[0]["method"], 9);
        assert_eq!(server.say(Frame::Release(CallbackId(8))), (vec![], vec![]));
        assert_eq!(server.expire(Duration::from_secs(100)).1, Vec::<Value>::new());
    }
}

#[test]
fn values_that_stand_twice_are_followed_and_cycles_refused() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    let line = json!({
        "method": "a",
        "arguments": [{ "x": [1, 2] }, { "y": "[Circular]" }],
        "links": [{ "from": ["0", "x"], "to": ["1", "y"] }, { "from": [0, "x"], "to": [1, "z"] }],
    });
    let asked = request(&server.hear(&line).0);
    let expected = json!([{ "x": [1, 2] }, { "y": [1, 2], "z": [1, 2] }]);
    assert_eq!(arguments(&asked.payload).0, expected);
    let cycle = json!({
        "method": "a",
        "arguments": [{ "self": "[Circular]" }, "[Function]"],
        "callbacks": { "3": ["1"] },
        "links": [{ "from": ["0"], "to": ["0", "self"] }],
    });
    let (frames, said) = server.hear(&cycle);
    assert_eq!((frames.len(), &said[0]["arguments"][1]["name"]), (0, &json!("CANNOT_DECODE")));
    let mut doubling = vec![];
    for step in 0..60 {
        doubling
            .push(json!({ "from": ["0", format!("v{step}")], "to": ["0", format!("v{}", step + 1), "a"] }));
    }
    let object: serde_json::Map<_, _> =
        (0..=60).map(|step| (format!("v{step}"), json!({ "a": 0 }))).collect();
    let line = json!({ "method": "a", "arguments": [object], "links": doubling });
    let heard =
        server.dialect.hear(&mut BytesMut::from(&format!("{line}\n")[..]), server.now, &mut Said::default());
    assert!(heard.is_ok(), "deep, and not many: {heard:?}");
    let many: Vec<_> = (0..2_000).map(|_| json!({ "from": ["0"], "to": ["1"] })).collect();
    let line = json!({ "method": "a", "arguments": [1, 2], "links": many });
    let mut said = Said::default();
    let heard = server.dialect.hear(&mut BytesMut::from(&format!("{line}\n")[..]), server.now, &mut said);
    assert!(heard.is_ok() && said.frames.is_empty() && said.notes.len() == 1, "{heard:?}");
}

#[test]
fn a_call_that_takes_too_long_and_one_of_nobody_end() {
    let (mut server, _) = End::server(&["slow"], ResultStyle::ErrorFirst);
    let call = json!({ "method": 0, "arguments": ["[Function]"], "callbacks": { "4": ["0"] } });
    let asked = request(&server.hear(&call).0);
    let (frames, lines) = server.expire(Duration::from_secs(61));
    assert_eq!(frames, [Frame::Cancel(asked.callback_id)]);
    assert_eq!(lines[0]["arguments"][0]["name"], "REQUEST_TIMEOUT");
    let call = json!({ "method": 99, "arguments": ["[Function]"], "callbacks": { "4": ["0"] } });
    let (frames, lines) = server.hear(&call);
    assert_eq!((frames, &lines[0]["method"]), (vec![], &json!(4)));
    assert_eq!(lines[0]["arguments"][0]["name"], "CALLBACK_GONE");
}

#[test]
fn what_is_no_line_ends_the_connection() {
    for bad in [
        "nonsense\n",
        "{}\n",
        "[]\n",
        "{\"method\":1,\"callbacks\":{\"x\":[]}}\n",
        "{\"method\":1,\"callbacks\":{\"1\":7}}\n",
    ] {
        let (mut server, _) = End::server(&[], ResultStyle::Result);
        let heard = server.dialect.hear(&mut BytesMut::from(bad), server.now, &mut Said::default());
        assert!(matches!(heard, Err(DialectError::Malformed { .. })), "{bad}: {heard:?}");
    }
    let (mut server, _) = End::server(&[], ResultStyle::Result);
    let mut endless = BytesMut::from(&vec![b'x'; 17 * 1024 * 1024][..]);
    let heard = server.dialect.hear(&mut endless, server.now, &mut Said::default());
    assert!(matches!(heard, Err(DialectError::Malformed { .. })), "{heard:?}");
}

#[test]
fn links_repeat_no_more_than_a_line_may_hold_and_nest_no_deeper_than_it_may() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    // Each link copies the value that the link before it made, so the values grow by each other.
    let chain = |depth: usize| (0..depth).fold(json!(0), |inner, _| json!([inner]));
    let (mut depths, mut links) = ([100, 100], Vec::new());
    for step in 0..12 {
        let (from, to) = (step % 2, 1 - step % 2);
        let path: Vec<_> = std::iter::once(to).chain(std::iter::repeat_n(0, depths[to])).collect();
        links.push(json!({ "from": [from], "to": path }));
        depths[to] += depths[from];
    }
    let deep = json!({ "method": "a", "arguments": [chain(100), chain(100)], "links": links });
    // A long text, a thousand times.
    let places: Vec<_> = (0..1_000).map(|at| json!({ "from": [0], "to": [1, at] })).collect();
    let long =
        json!({ "method": "a", "arguments": ["x".repeat(2_000_000), vec![0; 1_000]], "links": places });
    let many = format!("{{\"method\":\"a\",\"arguments\":[{}0]}}", "{\"\":0},".repeat(300_000));
    for line in [deep.to_string(), long.to_string(), many] {
        let mut said = Said::default();
        let heard = server.dialect.hear(&mut BytesMut::from(&format!("{line}\n")[..]), server.now, &mut said);
        assert!(
            heard.is_ok() && said.frames.is_empty(),
            "the line is refused, and the next one is heard: {heard:?}"
        );
        assert_eq!(said.notes.len(), 1, "nobody waits for it");
    }
}

#[test]
fn a_function_that_is_a_result_is_one() {
    for (style, arguments) in
        [(ResultStyle::Result, json!(["[Function]"])), (ResultStyle::ErrorFirst, json!([null, "[Function]"]))]
    {
        let (mut server, _) = End::server(&["a"], style);
        let call = json!({ "method": "a", "arguments": ["[Function]"], "callbacks": { "3": ["0"] } });
        request(&server.hear(&call).0);
        let (_, said) = server.say(invoke(3, Some(77), Wants::Result, &json!([7])));
        let taker: u64 = said[0]["callbacks"].as_object().unwrap().keys().next().unwrap().parse().unwrap();
        let at = (arguments.as_array().unwrap().len() - 1).to_string();
        let result = json!({ "method": taker, "arguments": arguments, "callbacks": { "9": [at] } });
        let (frames, _) = server.hear(&result);
        let [Frame::Response(Response { callback_id: CallbackId(77), outcome: Ok(payload) })] = &frames[..]
        else {
            panic!("{frames:?}")
        };
        assert_eq!(self::arguments(payload), (json!({ "$callback": 0 }), vec![CallbackId(9)]));
    }
}

#[test]
fn a_function_that_an_old_server_offers_is_never_culled() {
    let mut end = End {
        dialect: Dnode::client("bridge".into(), None, "old", ResultStyle::Result),
        now: Instant::now(),
    };
    end.hear(&transcript()[1].1);
    end.say(bound());
    let call = Request {
        callback_id: CallbackId(9),
        action: "old/each".into(),
        node: "".into(),
        caller: "".into(),
        time_left: None,
        hops: 0,
        headers: Headers::none(),
        payload: Payload::new(Encoding::Json, "[]"),
    };
    let (_, said) = end.say(Frame::Request(call));
    let taker: u64 = said[0]["callbacks"].as_object().unwrap().keys().next().unwrap().parse().unwrap();
    // The server passes a function of its own as an argument, under the number of its `methods`.
    end.hear(&json!({ "method": taker, "arguments": ["[Function]"], "callbacks": { "0": ["0"] } }));
    end.say(Frame::Release(CallbackId(0)));
    assert_eq!(end.expire(Duration::from_secs(100)).1, Vec::<Value>::new());
}

#[test]
fn text_is_ascii_and_halves_of_characters_are_mended() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    let mut said = Said::default();
    let line = r#"{"method":"a","arguments":["\ud83d","\\ud83d\ude00\udc00x","\ud83d\ude00"]}"#;
    server.dialect.hear(&mut BytesMut::from(&format!("{line}\n")[..]), server.now, &mut said).unwrap();
    let asked = request(&said.frames);
    let mended = json!(["\u{FFFD}", "\\ud83d\u{FFFD}\u{FFFD}x", "😀"]);
    assert_eq!(arguments(&asked.payload).0, mended);
    let call = json!({ "method": "a", "arguments": ["[Function]"], "callbacks": { "3": ["0"] } });
    let asked = request(&server.hear(&call).0);
    said.bytes.clear();
    server.dialect.say(reply(asked.callback_id, &json!("é☃😀 中文")), server.now, &mut said).unwrap();
    assert!(said.bytes.is_ascii());
    assert_eq!(lines(&said)[0]["arguments"], json!(["é☃😀 中文"]));
}

#[test]
fn the_oldest_function_is_taken_back_for_one_too_many() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    let call =
        json!({ "method": "a", "arguments": [{ "f": "[Function]" }], "callbacks": { "3": ["0", "f"] } });
    server.hear(&call);
    let mut released = Vec::new();
    let calls = FOREIGN_FUNCTIONS_MAX as u64 / 64;
    for call in 0..=calls {
        let count = if call < calls { 64 } else { 2 };
        let placeholders: Vec<_> = (0..count).map(|at| json!({ "$callback": at })).collect();
        let Frame::Invoke(mut invoke) = invoke(3, None, Wants::Nothing, &json!([placeholders])) else {
            unreachable!()
        };
        invoke.payload.callbacks = (0..count).map(|number| CallbackId(64 * call + number)).collect();
        released.extend(server.say(Frame::Invoke(invoke)).0);
    }
    assert_eq!(released, [Frame::Release(CallbackId(0)), Frame::Release(CallbackId(1))]);
    // What is called is used: it stays, and the next one makes room.
    let called = server.hear(&json!({ "method": 3, "arguments": [] })).0;
    assert!(matches!(&called[..], [Frame::Invoke(invoke)] if invoke.function == CallbackId(2)), "{called:?}");
    let Frame::Invoke(mut invoke) = invoke(3, None, Wants::Nothing, &json!([{ "$callback": 0 }])) else {
        unreachable!()
    };
    invoke.payload.callbacks = std::iter::once(CallbackId(1 << 40)).collect();
    assert_eq!(server.say(Frame::Invoke(invoke)).0, [Frame::Release(CallbackId(3))]);
}

#[test]
fn an_argument_that_cannot_be_read_ends_its_call_alone() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    let deep = ["[".repeat(300), "]".repeat(300)].concat();
    let line = format!(r#"{{"method":"a","arguments":[{deep},"[Function]"],"callbacks":{{"3":["1"]}}}}"#);
    let mut said = Said::default();
    server.dialect.hear(&mut BytesMut::from(&format!("{line}\n")[..]), server.now, &mut said).unwrap();
    assert!(said.frames.is_empty());
    assert_eq!(lines(&said)[0]["arguments"][1]["name"], "CANNOT_DECODE");
    // An unreadable argument in the result of a call from the mesh.
    let call = json!({ "method": "a", "arguments": ["[Function]"], "callbacks": { "3": ["0"] } });
    request(&server.hear(&call).0);
    let (_, told) = server.say(invoke(3, Some(77), Wants::Result, &json!([7])));
    let taker = told[0]["callbacks"].as_object().unwrap().keys().next().unwrap();
    let line = format!("{{\"method\":{taker},\"arguments\":[{deep}]}}\n");
    said = Said::default();
    server.dialect.hear(&mut BytesMut::from(&line[..]), server.now, &mut said).unwrap();
    let [Frame::Response(Response { callback_id: CallbackId(77), outcome: Err(error) })] = &said.frames[..]
    else {
        panic!("{:?}", said.frames)
    };
    assert_eq!((error.code(), error.fate()), (Code::CANNOT_DECODE, Fate::Failed));
}

/// Hears a line in pieces; gives what was said when it was over. Nothing of the line is kept meanwhile.
fn hear_in_pieces(end: &mut End, line: &[u8]) -> (Vec<Frame>, Vec<Value>) {
    let (mut said, mut bytes) = (Said::default(), BytesMut::new());
    for piece in line.chunks(1 << 20) {
        bytes.extend_from_slice(piece);
        end.dialect.hear(&mut bytes, end.now, &mut said).expect("the connection lives");
        assert!(bytes.len() <= 17 << 20, "{} bytes are kept", bytes.len());
    }
    assert!(bytes.is_empty());
    let lines = lines(&said);
    (said.frames, lines)
}

/// Such a line ended the connection, and no caller was told.
#[test]
fn a_line_that_is_too_long_ends_its_own_call_and_no_other() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    let call = json!({ "method": "a", "arguments": ["[Function]"], "callbacks": { "3": ["0"] } });
    let asked = request(&server.hear(&call).0);
    let text = "x".repeat(40_000_000);
    for line in [
        format!(
            r#"{{"method":"a","arguments":["{text}","[Function]"],"callbacks":{{"7":["1"]}},"links":[]}}"#
        ),
        format!(
            r#"{{"callbacks":{{"7":["1"],"9":["0","f"]}},"arguments":[{{"f":0,"t":"{text}"}},0],"method":0}}"#
        ),
    ] {
        let (frames, said) = hear_in_pieces(&mut server, format!("{line}\n").as_bytes());
        assert_eq!((frames.len(), said.len(), &said[0]["method"]), (0, 1, &json!(7)));
        assert_eq!(said[0]["arguments"][1]["name"], "FRAME_TOO_LARGE");
    }
    assert_eq!(server.say(reply(asked.callback_id, &json!(1))).1[0]["arguments"], json!([1]));
    request(&server.hear(&call).0);

    // A result that is too long ends the call that waits for it.
    let (_, said) = server.say(invoke(3, Some(77), Wants::Result, &json!([7])));
    let taker = said[0]["callbacks"].as_object().unwrap().keys().next().unwrap();
    let line = format!("{{\"method\":{taker},\"arguments\":[\"{text}\"]}}\n");
    let (frames, _) = hear_in_pieces(&mut server, line.as_bytes());
    let [Frame::Response(Response { callback_id: CallbackId(77), outcome: Err(error) })] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::Failed));
}

#[test]
fn digits_and_the_order_of_keys_stay() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    for functions in [r#""9":["1"]"#, r#""9":["1"],"4":["0","f"]"#] {
        let value = r#"{"z":1,"a":{"y":18446744073709551617,"b":[1e400,-0.0,1.10]},"f":"[Function]","é":"\ud83d\ude00"}"#;
        let line =
            format!(r#"{{"method":"a","arguments":[{value},"[Function]"],"callbacks":{{{functions}}}}}"#);
        let mut said = Said::default();
        server.dialect.hear(&mut BytesMut::from(&format!("{line}\n")[..]), server.now, &mut said).unwrap();
        let asked = request(&said.frames);
        let passed = asked.payload.callbacks.len() == 1;
        let expected =
            value.replace("\"[Function]\"", if passed { r#"{"$callback":0}"# } else { "\"[Function]\"" });
        assert_eq!(asked.payload.bytes, format!("[{expected}]"));
        if passed {
            continue;
        }
        let payload = Payload::new(Encoding::Json, asked.payload.bytes.slice(1..asked.payload.len() - 1));
        said.bytes.clear();
        let response = Response { callback_id: asked.callback_id, outcome: Ok(payload) };
        server.dialect.say(Frame::Response(response), server.now, &mut said).unwrap();
        let line = std::str::from_utf8(&said.bytes).unwrap();
        assert!(line.contains(&value.replace('é', "\\u00e9")), "{line}");
    }
}

#[test]
fn an_integer_of_javascript_is_the_number_that_it_meant() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    let call =
        json!({ "method": "a", "arguments": [0, "[Function]"], "callbacks": { "3": ["1"] } }).to_string();
    // As `JSON.stringify` writes 2 to the power of 60, and the negative of 2 to the power of 63.
    let call = call.replace("[0,", "[[1152921504606847000,-9223372036854776000],");
    let mut said = Said::default();
    server.dialect.hear(&mut BytesMut::from(&format!("{call}\n")[..]), server.now, &mut said).unwrap();
    let asked = request(&said.frames);
    assert_eq!(asked.payload.decode::<((i64, i64),)>(), Ok(((1 << 60, i64::MIN),)));
    // An integer of ours that looks like such a one is told from it at the other end.
    let ours = 1_152_921_504_606_847_000_i64;
    said.bytes.clear();
    let outcome = Ok(Payload::encode(Encoding::Json, &ours).unwrap());
    server
        .dialect
        .say(Frame::Response(Response { callback_id: asked.callback_id, outcome }), server.now, &mut said)
        .unwrap();
    let line = String::from_utf8(said.bytes.to_vec()).unwrap();
    assert_eq!(lines(&said)[0]["arguments"][0].as_f64(), Some(ours as f64), "to JavaScript");
    let value = line.split_once("\"arguments\":[").unwrap().1.split_once(']').unwrap().0;
    let (mut client, _) = End::server(&["a"], ResultStyle::Result);
    said = Said::default();
    let back = format!("{{\"method\":\"a\",\"arguments\":[{value}]}}\n");
    client.dialect.hear(&mut BytesMut::from(&back[..]), client.now, &mut said).unwrap();
    assert_eq!(request(&said.frames).payload.decode_arguments::<i64>(), Ok(ours));
}

/// In the style of one result, a failure is a second argument, which was taken for a second result.
#[test]
fn a_failure_behind_a_null_is_an_error_and_other_results_are_values() {
    for (arguments, name) in [
        (json!([null, { "name": "Boom", "message": "it went off", "code": 1200 }]), Some("Boom")),
        (json!([null, { "message": "as the original writes an Error" }]), Some("Error")),
        (json!([null, { "message": "no entry", "code": "ENOENT", "errno": -2 }]), None),
    ] {
        let outcome = result_of(&arguments);
        let error = outcome.expect_err("it failed");
        assert_eq!(error.fate(), Fate::Failed);
        assert!(name.is_none_or(|name| name == error.name()), "{error}");
    }
    for arguments in [
        json!([null, { "message": "hi", "from": "bob" }]),
        json!([null, { "name": "bob" }]),
        json!([null, null]),
        json!([null, "text"]),
        json!([1, { "name": "a", "message": "b", "code": 1 }]),
        json!([null, { "name": "a", "message": "b", "code": 1 }, 3]),
    ] {
        assert_eq!(result_of(&arguments).expect("a value").decode::<Value>(), Ok(arguments));
    }
}

/// The outcome of a call from the mesh whose result comes with these arguments.
fn result_of(arguments: &Value) -> Result<Payload, CallError> {
    let (mut server, _) = End::server(&[], ResultStyle::Result);
    let (_, said) = server.say(invoke(3, Some(77), Wants::Result, &json!([7])));
    let taker = said[0]["callbacks"].as_object().and_then(|listed| listed.keys().next());
    let taker: u64 = taker.and_then(|taker| taker.parse().ok()).expect("a number");
    let (mut frames, _) = server.hear(&json!({ "method": taker, "arguments": arguments }));
    let Some(Frame::Response(Response { outcome, .. })) = frames.pop() else { panic!("no response") };
    outcome
}

/// Only the action knows whether its last argument is a function: it was always taken for the function that takes the result.
#[test]
fn the_last_function_is_an_argument_where_the_action_takes_one() {
    let refused = || {
        let arguments = Payload::new(Encoding::Json, "[1,2]");
        Err(CallError::from(arguments.decode::<[String; 3]>().expect_err("they are other arguments")))
    };
    let respond =
        |asked: &Request, outcome| Frame::Response(Response { callback_id: asked.callback_id, outcome });
    let (mut server, _) = End::server(&["on"], ResultStyle::Result);
    let call = json!({ "method": "on", "arguments": [1, "[Function]", 2], "callbacks": { "5": ["1"] } });
    let first = request(&server.hear(&call).0);
    assert_eq!(arguments(&first.payload), (json!([1, 2]), vec![]));
    let again = request(&server.say(respond(&first, refused())).0);
    assert_eq!(
        (&*again.action, arguments(&again.payload)),
        ("on", (json!([1, { "$callback": 0 }, 2]), vec![CallbackId(5)]))
    );
    // The program has passed no function for a result.
    assert_eq!(server.say(reply(again.callback_id, &json!("done"))), (vec![], vec![]));
    assert_eq!(server.say(invoke(5, None, Wants::Nothing, &json!([7]))).1[0]["arguments"], json!([7]));

    // The action takes it in neither place: the program hears of it once.
    let first = request(&server.hear(&call).0);
    let again = request(&server.say(respond(&first, refused())).0);
    let (frames, said) = server.say(respond(&again, refused()));
    assert_eq!((frames.len(), said.len(), &said[0]["arguments"][1]["name"]), (0, 1, &json!("CANNOT_DECODE")));
    // It took it, and failed later.
    let first = request(&server.hear(&call).0);
    let again = request(&server.say(respond(&first, refused())).0);
    let boom = CallError::named(Code(1_200), Fate::Failed, "Boom", "it went off");
    assert_eq!(server.say(respond(&again, Err(boom))), (vec![], vec![]));
}

/// An action that took its arguments once ran a second time when a call of its own had a reply that could not be read.
#[test]
fn an_action_that_passes_on_the_error_of_its_own_call_runs_once() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    let call = json!({ "method": "a", "arguments": [1, "[Function]"], "callbacks": { "5": ["1"] } });
    let asked = request(&server.hear(&call).0);
    let reply = Payload::encode(Encoding::MessagePack, "text").unwrap();
    let error = CallError::from(reply.decode::<u64>().expect_err("it is a text"));
    let response = Response { callback_id: asked.callback_id, outcome: Err(error) };
    let (frames, said) = server.say(Frame::Response(response));
    assert_eq!((frames.len(), &said[0]["arguments"][1]["name"]), (0, &json!("CANNOT_DECODE")));
}

/// The keys of an error were sorted, its numbers rounded, and all its data left out for a number that is too long.
#[test]
fn an_error_has_its_digits_and_the_order_of_its_keys() {
    let thrown = r#"{"z":18446744073709551617,"name":"N","message":"m","a":[1e400,-0.0,1.10],"code":36893488147419103232}"#;
    let (mut client, _) = End::server(&[], ResultStyle::ErrorFirst);
    let (_, said) = client.say(invoke(3, Some(77), Wants::Result, &json!([7])));
    let taker =
        said[0]["callbacks"].as_object().and_then(|listed| listed.keys().next()).expect("one").clone();
    let line = format!("{{\"method\":{taker},\"arguments\":[{thrown}]}}\n");
    let mut said = Said::default();
    client.dialect.hear(&mut BytesMut::from(&line[..]), client.now, &mut said).unwrap();
    let Some(Frame::Response(Response { outcome: Err(error), .. })) = said.frames.pop() else {
        panic!("no error")
    };
    let (mut server, _) = End::server(&["a"], ResultStyle::ErrorFirst);
    let call = json!({ "method": "a", "arguments": ["[Function]"], "callbacks": { "5": ["0"] } });
    let mut tell = |error| {
        let callback_id = request(&server.hear(&call).0).callback_id;
        let mut said = Said::default();
        let response = Frame::Response(Response { callback_id, outcome: Err(error) });
        server.dialect.say(response, server.now, &mut said).unwrap();
        String::from_utf8(said.bytes.to_vec()).unwrap()
    };
    let line = tell(error);
    assert!(line.contains(&format!("[{thrown}]")), "{line}");
    let data = Payload::encode(Encoding::MessagePack, &(("wide", u128::MAX),)).unwrap();
    let wide = CallError::named(Code::UNKNOWN, Fate::Failed, "N", "m").with_application_code(i128::MIN);
    let line = tell(wide.with_data(data));
    let expected = format!(r#""code":{},"data":[["wide",{}]]"#, i128::MIN, u128::MAX);
    assert!(line.contains(&expected), "{line}");
}

/// A function in an error was taken for an object of the error.
#[test]
fn a_function_in_an_error_is_what_its_program_wrote_for_it() {
    let (mut server, _) = End::server(&[], ResultStyle::Result);
    let (_, said) = server.say(invoke(3, Some(77), Wants::Result, &json!([7])));
    let taker: u64 = said[0]["callbacks"].as_object().unwrap().keys().next().unwrap().parse().unwrap();
    let error = json!({ "name": "N", "message": "m", "retry": "[Function]", "data": { "$callback": 0 } });
    let line = json!({ "method": taker, "arguments": [null, error], "callbacks": { "4": ["1", "retry"] } });
    let (mut frames, _) = server.hear(&line);
    let Some(Frame::Response(Response { outcome: Err(error), .. })) = frames.pop() else {
        panic!("no error")
    };
    let expected = json!({ "retry": "[Function]", "data": { "$callback": 0 } });
    assert_eq!(error.data_as::<Value>(), Ok(expected));
}

#[test]
fn what_looks_like_a_placeholder_is_a_value_where_no_function_is() {
    let (mut server, _) = End::server(&["a"], ResultStyle::Result);
    let data = json!({ "$callback": 0 });
    let call =
        json!({ "method": "a", "arguments": [data, [data], "[Function]"], "callbacks": { "3": ["2"] } });
    let asked = request(&server.hear(&call).0);
    assert_eq!(arguments(&asked.payload), (json!([data, [data]]), vec![]));
    assert_eq!(server.say(reply(asked.callback_id, &data)).1[0]["arguments"], json!([data]));
    // Beside a function, it is the function that has its index; one of another index is a value.
    let passing = |value: Value| {
        let Frame::Invoke(mut invoke) = invoke(3, Some(7), Wants::Result, &value) else { unreachable!() };
        invoke.payload.callbacks = std::iter::once(CallbackId(40)).collect();
        Frame::Invoke(invoke)
    };
    let (_, said) = server.say(passing(json!([{ "$callback": 0 }, { "$callback": 1 }])));
    assert_eq!(said[0]["arguments"], json!(["[Function]", { "$callback": 1 }, "[Function]"]));
    // Which of two it is cannot be told: the call fails, and passes neither.
    let (frames, said) = server.say(passing(json!([{ "$callback": 0 }, { "$callback": 0 }])));
    assert_eq!(said, Vec::<Value>::new());
    let [Frame::Release(CallbackId(40)), Frame::Response(Response { outcome: Err(error), .. })] = &frames[..]
    else {
        panic!("{frames:?}")
    };
    assert_eq!((error.code(), error.fate()), (Code::CANNOT_ENCODE, Fate::NotSent));
}

#[test]
fn a_name_that_is_none_is_refused_before_it_is_asked_for() {
    let (mut server, methods) = End::server(&["__proto__", "a"], ResultStyle::Result);
    assert_eq!(methods[0]["arguments"], json!([{ "a": "[Function]" }]));
    for name in [String::new(), "x".repeat(100_000), "a\nb".to_owned()] {
        let call = json!({ "method": name, "arguments": ["[Function]"], "callbacks": { "3": ["0"] } });
        let (frames, said) = server.hear(&call);
        assert_eq!((frames, &said[0]["arguments"][1]["name"]), (vec![], &json!("ACTION_NOT_FOUND")));
    }
}

fn respond(callback_id: CallbackId, outcome: Result<Payload, CallError>) -> Frame {
    Frame::Response(Response { callback_id, outcome })
}

fn item(callback_id: CallbackId, value: &Value) -> Frame {
    let payload = Payload::encode(Encoding::MessagePack, value).expect("MessagePack");
    Frame::Item(Item { callback_id, payload })
}

/// A server whose client has asked for a stream with the functions 5 and 6, one for the items and one for the end.
fn reading(style: ResultStyle) -> (End, OpenStream) {
    let (mut server, _) = End::server(&["tail"], style);
    server.dialect.near_knows(Features::ALL);
    let functions = json!({ "5": ["1"], "6": ["2"], "7": ["0", "f"] });
    let call = json!({ "method": "tail", "arguments": [{ "f": 0 }, "[Function]", "[Function]"], "callbacks": functions });
    let asked = request(&server.hear(&call).0);
    let refused = CallError::answers_with_stream(&"tail");
    let (frames, said) = server.say(respond(asked.callback_id, Err(refused)));
    let ([Frame::OpenStream(open)], []) = (&frames[..], &said[..]) else { panic!("{frames:?} {said:?}") };
    let placeholder = arguments(&open.request.payload).0[0]["f"]["$callback"].as_u64().expect("a number");
    let ids = open.request.payload.callbacks.ids();
    assert_eq!(
        ids[usize::try_from(placeholder).expect("it is small")],
        CallbackId(7),
        "other functions are arguments"
    );
    assert_eq!(arguments(&open.request.payload).0.as_array().map(Vec::len), Some(1));
    (server, open.clone())
}

#[test]
fn the_items_of_a_stream_are_calls_of_a_function_and_its_end_is_a_result() {
    for (style, ends) in [
        (ResultStyle::Result, [json!([null]), json!("Boom")]),
        (ResultStyle::ErrorFirst, [json!([null, null]), json!("Boom")]),
    ] {
        for (fails, end) in [false, true].into_iter().zip(ends) {
            let (mut server, open) = reading(style);
            let id = open.request.callback_id;
            assert_eq!(server.say(Frame::Started(id)), (vec![], vec![]));
            assert_eq!(server.expire(Duration::from_secs(3_600)), (vec![], vec![]), "it may last for ever");
            let (frames, said) = server.say(item(id, &json!({ "line": 1 })));
            assert_eq!((frames, said.len(), &said[0]["method"]), (vec![], 1, &json!(5)));
            assert_eq!(said[0]["arguments"], json!([{ "line": 1 }, "[Function]"]));
            let boom = CallError::named(Code(1_200), Fate::Failed, "Boom", "it went off");
            let outcome = if fails { Err(boom) } else { Ok(Payload::default()) };
            let (frames, said) = server.say(respond(id, outcome));
            assert_eq!((frames, said.len(), &said[0]["method"]), (vec![], 1, &json!(6)));
            let error = said[0]["arguments"].as_array().unwrap().iter().find(|one| one.is_object());
            assert_eq!(error.map_or(&said[0]["arguments"], |error| &error["name"]), &end);
            assert_eq!(server.say(item(id, &json!(2))), (vec![], vec![]), "it is over");
        }
    }
}

#[test]
fn a_stream_that_is_stopped_is_cancelled_and_ends_once() {
    let (mut server, open) = reading(ResultStyle::Result);
    let id = open.request.callback_id;
    server.say(Frame::Started(id));
    let (_, said) = server.say(item(id, &json!(1)));
    let stop: u64 = said[0]["callbacks"].as_object().unwrap().keys().next().unwrap().parse().unwrap();
    let (_, said) = server.say(item(id, &json!(2)));
    assert_eq!(said[0]["callbacks"], json!({ stop.to_string(): ["1"] }), "it is one function");
    let (frames, said) = server.hear(&json!({ "method": stop, "arguments": [] }));
    assert_eq!((frames, &said[0]["method"]), (vec![Frame::Cancel(id)], &json!(6)));
    assert_eq!(server.say(respond(id, Ok(Payload::default()))), (vec![], vec![]));
    assert_eq!(server.hear(&json!({ "method": stop, "arguments": [] })).0, []);
}

#[test]
fn a_stream_that_does_not_begin_in_time_or_is_refused_ends() {
    let (mut server, open) = reading(ResultStyle::Result);
    let (frames, said) = server.expire(Duration::from_secs(3_600));
    assert_eq!(frames, [Frame::Cancel(open.request.callback_id)]);
    assert_eq!(said[0]["arguments"][1]["name"], "REQUEST_TIMEOUT");
    let (mut server, open) = reading(ResultStyle::Result);
    let nobody = CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, "nobody");
    let (_, said) = server.say(respond(open.request.callback_id, Err(nobody)));
    assert_eq!(
        (&said[0]["method"], &said[0]["arguments"][1]["name"]),
        (&json!(6), &json!("ACTION_NOT_FOUND"))
    );
    // A call without a function for the items, and a master that knows no streams.
    for (arguments, knows) in
        [(json!([1, "[Function]"]), Features::ALL), (json!(["[Function]", "[Function]"]), Features::FORMS)]
    {
        let (mut server, _) = End::server(&["tail"], ResultStyle::Result);
        server.dialect.near_knows(knows);
        let callbacks =
            if arguments[0] == 1 { json!({ "6": ["1"] }) } else { json!({ "5": ["0"], "6": ["1"] }) };
        let call = json!({ "method": "tail", "arguments": arguments, "callbacks": callbacks });
        let asked = request(&server.hear(&call).0);
        let (frames, said) =
            server.say(respond(asked.callback_id, Err(CallError::answers_with_stream(&"tail"))));
        assert_eq!((frames, &said[0]["arguments"][1]["name"]), (vec![], &json!("CANNOT_DECODE")));
    }
}

#[test]
fn more_of_a_stream_is_granted_when_what_was_said_has_left() {
    let (mut server, open) = reading(ResultStyle::Result);
    let id = open.request.callback_id;
    server.say(Frame::Started(id));
    let left = |server: &mut End| {
        let mut said = Said::default();
        server.dialect.left(&mut said);
        said.frames
    };
    for _ in 0..open.grant.items {
        assert_eq!(server.say(item(id, &json!(1))).0, []);
    }
    let frames = left(&mut server);
    let [Frame::Granted(granted)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((granted.callback_id, granted.grant.items), (id, open.grant.items));
    assert_eq!(left(&mut server), []);
}

#[test]
fn a_function_of_the_peer_that_is_read_as_a_stream_sends_no_more_than_was_granted() {
    let (mut server, _) = End::server(&[], ResultStyle::Result);
    let grant = Grant { items: 1, bytes: 100 };
    let (frames, said) = server.say(invoke(3, Some(77), Wants::Stream(grant), &json!([7])));
    assert_eq!(frames, [Frame::Started(CallbackId(77))]);
    assert_eq!(
        (&said[0]["method"], &said[0]["arguments"]),
        (&json!(3), &json!([7, "[Function]", "[Function]"]))
    );
    let number = |at: &str| {
        let callbacks = said[0]["callbacks"].as_object().unwrap();
        let found = callbacks.iter().find(|(_, path)| path[0] == at);
        found.unwrap().0.parse::<u64>().unwrap()
    };
    let (each, done) = (number("1"), number("2"));
    let items = |frames: &[Frame]| -> Vec<Value> {
        let of = |frame: &Frame| match frame {
            Frame::Item(Item { callback_id: CallbackId(77), payload }) => payload.decode().unwrap(),
            other => panic!("{other:?}"),
        };
        frames.iter().map(of).collect()
    };
    let ready = json!({ "method": each, "arguments": [1, "[Function]"], "callbacks": { "9": ["1"] } });
    let (frames, said) = server.hear(&ready);
    assert_eq!((items(&frames), &said[0]["method"]), (vec![json!(1)], &json!(9)));
    assert_eq!(server.hear(&ready), (vec![], vec![]), "nothing is granted");
    assert_eq!(server.hear(&json!({ "method": each, "arguments": [2, 3] })), (vec![], vec![]));
    assert_eq!(server.hear(&json!({ "method": done, "arguments": [null] })), (vec![], vec![]));
    let more =
        |items| Frame::Granted(Granted { callback_id: CallbackId(77), grant: Grant { items, bytes: 9 } });
    let (frames, said) = server.say(more(1));
    assert_eq!((items(&frames), said.len()), (vec![json!(1)], 1));
    let (frames, _) = server.say(more(5));
    assert_eq!(items(&frames[..1]), [json!([2, 3])]);
    assert_eq!(frames[1..], [respond(CallbackId(77), Ok(Payload::default()))]);
    assert_eq!(server.hear(&ready).0, []);

    // A reader that goes is forgotten, and an item that cannot be read ends its stream.
    server.say(invoke(3, Some(78), Wants::Stream(grant), &json!([7])));
    assert_eq!(server.say(Frame::Cancel(CallbackId(78))), (vec![], vec![]));
    let (_, said) = server.say(invoke(3, Some(79), Wants::Stream(grant), &json!(null)));
    let each = said[0]["callbacks"].as_object().unwrap().iter().find(|(_, path)| path[0] == "0").unwrap().0;
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let mut bytes = BytesMut::from(&format!("{{\"method\":{each},\"arguments\":[{deep}]}}\n")[..]);
    let mut said = Said::default();
    server.dialect.hear(&mut bytes, server.now, &mut said).expect("the line alone is wrong");
    assert!(
        matches!(
            &said.frames[..],
            [Frame::Response(Response { callback_id: CallbackId(79), outcome: Err(_) })]
        ),
        "{said:?}"
    );
}

//! Other protocols: one suite that every end of each protocol passes. Tests of one protocol alone are in a file of their own.

#[path = "../../../fuzz/targets/dialects.rs"]
mod dialects;
mod dnode;
mod light_rpc;
mod node_mesh;
#[path = "../recorded/mod.rs"]
mod recorded;
#[path = "../samples/mod.rs"]
mod samples;

use dialects::{Connection, ENDS, asked};
use meshwork_wire::{
    Bound, CallError, CallbackId, Callbacks, Code, DialectError, Encoding, Fate, Frame, Headers, Payload,
    Refused, Request, Response, SessionId,
};
use proptest::prelude::*;
use recorded::{broken_for, heard_by};
use samples::every_golden;
use std::time::Duration;

/// The `Bound` of a master.
fn bound() -> Frame {
    Frame::Bound(Bound {
        session: SessionId(2),
        master: "master".into(),
        frame_len_max: 1 << 24,
        in_flight_max: 1 << 16,
        heartbeat_ms: 5_000,
    })
}

/// The only frame is a request.
fn request(frames: &[Frame]) -> Request {
    let [Frame::Request(request)] = frames else { panic!("no request: {frames:?}") };
    request.clone()
}

fn json(value: &'static str) -> Payload {
    Payload::new(Encoding::Json, value)
}

/// A connection that has heard all recorded bytes, in pieces of these lengths.
fn heard_in(end: dialects::End, pieces: impl Iterator<Item = usize>) -> Connection {
    let mut connection = Connection::open(end);
    let whole = heard_by(end).concat();
    let mut rest = &whole[..];
    for piece in pieces {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        connection.hear(now).unwrap_or_else(|error| panic!("{}: {error}", end.name));
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    connection.check();
    connection
}

fn whole(end: dialects::End) -> Connection {
    heard_in(end, std::iter::once(usize::MAX))
}

#[test]
fn what_was_recorded_is_understood() {
    for end in ENDS {
        let connection = whole(end);
        let requests =
            connection.said.frames.iter().filter(|frame| matches!(frame, Frame::Request(_))).count();
        let (_, role) = end.name.split_once(' ').unwrap();
        match role {
            "server" => assert!(requests > 0, "{}", end.name),
            // A bridged server calls nothing.
            "client" | "bridge" => assert_eq!(requests, 0, "{}", end.name),
            _ => assert!(connection.said.frames.len() > 1, "{}", end.name),
        }
    }
}

#[test]
fn every_request_is_answered_once() {
    for end in ENDS {
        let mut connection = whole(end);
        let all: Vec<_> = connection.said.frames.iter().filter_map(asked).collect();
        for (number, callback_id) in all.into_iter().enumerate() {
            let outcome = match number % 2 {
                0 => Ok(json("[1,null,\"é\"]")),
                _ => Err(CallError::new(Code::PANICKED, Fate::Failed, "it broke")),
            };
            connection.say(Frame::Response(Response { callback_id, outcome: outcome.clone() })).unwrap();
            let said = connection.said.bytes.len();
            connection.say(Frame::Response(Response { callback_id, outcome })).unwrap();
            assert_eq!(connection.said.bytes.len(), said, "{}: it is answered twice", end.name);
        }
        connection.check();
        // No call is left that could end later.
        let frames = connection.said.frames.len();
        connection.after(Duration::from_secs(100));
        assert_eq!(connection.said.frames.len(), frames, "{}", end.name);
    }
}

#[test]
fn a_request_that_takes_too_long_ends() {
    for end in ENDS {
        let mut connection = whole(end);
        let mut left: Vec<_> = connection
            .said
            .frames
            .iter()
            .filter_map(|frame| match frame {
                Frame::Request(request) => Some(request.callback_id),
                _ => None,
            })
            .collect();
        connection.said.frames.clear();
        connection.after(Duration::from_secs(30));
        assert!(
            !connection.said.frames.iter().any(|frame| matches!(frame, Frame::Cancel(_))),
            "{}",
            end.name
        );
        connection.after(Duration::from_secs(31));
        for frame in &connection.said.frames {
            if let Frame::Cancel(callback_id) = frame {
                left.retain(|other| other != callback_id);
            }
        }
        assert_eq!(left, [], "{}", end.name);
        connection.check();
    }
}

#[test]
fn what_no_program_says_ends_the_connection_and_asks_nothing() {
    for end in ENDS {
        for broken in broken_for(end) {
            let mut connection = Connection::open(end);
            connection.said.frames.clear();
            let heard = connection.hear(&broken);
            assert!(
                matches!(heard, Err(DialectError::Malformed { .. } | DialectError::TooLong { .. })),
                "{}: {:?}: {heard:?}",
                end.name,
                String::from_utf8_lossy(&broken)
            );
            assert_eq!(connection.said.frames, [], "{}", end.name);
            connection.check();
        }
    }
}

#[test]
fn a_refusal_ends_the_connection_and_says_whether_to_come_back() {
    for end in ENDS.into_iter().filter(|end| end.name != "node-mesh branch") {
        for may_return in [true, false] {
            let mut connection = whole(end);
            let refused = Refused { code: Code::BIND_ERROR, message: "no".into(), may_return };
            let ended = connection.say(Frame::Refused(refused)).unwrap_err();
            assert_eq!(matches!(ended, DialectError::Closed(_)), may_return, "{}: {ended}", end.name);
            connection.check();
        }
    }
}

#[test]
fn functions_are_passed_or_refused_and_never_lost() {
    for end in ENDS {
        let mut connection = whole(end);
        connection.said.frames.clear();
        let mut payload = json(r#"[{"$callback":0},{"$callback":1}]"#);
        payload.callbacks = Callbacks::from_iter([CallbackId(7), CallbackId(8)]);
        let action = heard_by(end)[0].windows(3).any(|window| window == b"add").then_some("old/add");
        let request = Request {
            callback_id: CallbackId(99),
            action: action.unwrap_or("old/any").into(),
            node: "".into(),
            caller: "c".into(),
            time_left: None,
            hops: 0,
            headers: Headers::none(),
            payload,
        };
        connection.say(Frame::Request(request)).unwrap();
        let released =
            connection.said.frames.iter().filter(|frame| matches!(frame, Frame::Release(_))).count();
        let refused = connection.said.frames.iter().any(
            |frame| matches!(frame, Frame::Response(response) if response.outcome.is_err() && response.callback_id.0 == 99),
        );
        // A dialect that is a server offers no actions: light_rpc says so to the caller.
        match end.name {
            "light_rpc server" => assert_eq!((released, refused), (2, true), "{}", end.name),
            _ => assert_eq!(
                released,
                if refused { 2 } else { 0 },
                "{}: {:?}",
                end.name,
                connection.said.frames
            ),
        }
        connection.check();
    }
}

#[test]
fn offers_that_a_bind_has_no_room_for_follow_it() {
    let names: Vec<_> = (0..3_000).map(|number| format!("action{number}")).collect();
    let described: serde_json::Map<_, _> =
        names.iter().map(|name| (name.clone(), serde_json::json!({}))).collect();
    let functions: serde_json::Map<_, _> = names
        .iter()
        .enumerate()
        .map(|(number, name)| (number.to_string(), serde_json::json!(["0", name])))
        .collect();
    let packet = serde_json::json!({ "command": "__D", "data": described }).to_string();
    let methods = serde_json::json!({ "method": "methods", "arguments": [{}], "callbacks": functions });
    for (name, bytes) in [
        ("light_rpc client", format!("{}\n{packet}", packet.len()).into_bytes()),
        ("dnode client", format!("{methods}\n").into_bytes()),
        ("node-mesh server", node_mesh::bind_with(&names)),
    ] {
        let end = ENDS.into_iter().find(|end| end.name == name).unwrap();
        let mut connection = Connection::open(end);
        connection.hear(&bytes).unwrap();
        let offered: Vec<_> = connection
            .said
            .frames
            .iter()
            .filter_map(|frame| match frame {
                Frame::Bind(bind) => Some(bind.offers.len()),
                Frame::Register(register) => Some(register.offers.len()),
                _ => None,
            })
            .collect();
        assert_eq!(offered, [1_024, 1_024, 952], "{name}");
    }
}

#[test]
fn whoever_asks_much_in_few_bytes_is_heard_as_far_as_the_answers_leave() {
    let end = ENDS[0];
    let mut connection = whole(end);
    connection.said.bytes.clear();
    connection.hear(&b"17\n{\"command\":\"__D\"}".repeat(100_000)).unwrap();
    assert!(connection.said.enough && connection.said.bytes.len() < 2_000_000);
    while connection.said.enough {
        connection.said.bytes.clear();
        connection.said.enough = false;
        connection.hear(b"").unwrap();
    }
    assert_eq!(connection.left(), 0);
}

proptest! {
    /// However a stream is cut, the frames and the bytes that are said are equal.
    #[test]
    fn a_stream_is_heard_in_any_pieces(
        end in proptest::sample::select(ENDS.to_vec()),
        cuts in proptest::collection::vec(1_usize..90, 1..30),
    ) {
        let (pieces, at_once) = (heard_in(end, cuts.into_iter().cycle()), whole(end));
        prop_assert_eq!(&pieces.said.frames, &at_once.said.frames);
        if !end.name.starts_with("node-mesh") {
            // Messages of node-mesh hold the time, so their bytes differ.
            prop_assert_eq!(&pieces.said.bytes, &at_once.said.bytes);
        }
    }

    /// Garbage never causes a panic, alone or behind valid messages, and all answers are whole messages.
    #[test]
    fn garbage_is_survived(
        end in proptest::sample::select(ENDS.to_vec()),
        before in any::<bool>(),
        garbage in proptest::collection::vec(any::<u8>(), 0..250),
        header in 0..3_u8,
    ) {
        let mut connection = if before { whole(end) } else { Connection::open(end) };
        let head = match header {
            0 => Vec::new(),
            1 => format!("{}\n", garbage.len()).into_bytes(),
            _ => vec![0xC4, garbage.len() as u8],
        };
        let _ = connection.hear(&[head, garbage].concat());
        connection.check();
    }

    /// A byte that was changed on the way never causes a panic.
    #[test]
    fn a_changed_byte_is_survived(
        end in proptest::sample::select(ENDS.to_vec()),
        at in any::<proptest::sample::Index>(),
        to in any::<u8>(),
    ) {
        let chosen = ENDS.iter().position(|other| other.name == end.name).expect("it is one of them");
        let mut bytes = heard_by(end).concat();
        let at = at.index(bytes.len());
        bytes[at] = to;
        bytes.insert(0, chosen as u8);
        dialects::run(&bytes);
    }

    /// Whichever frames a dialect is given, in any order, it says whole messages to the foreign program.
    #[test]
    fn every_frame_of_ours_is_survived(
        end in proptest::sample::select(ENDS.to_vec()),
        numbers in proptest::collection::vec(any::<proptest::sample::Index>(), 1..20),
    ) {
        let golden = every_golden();
        let mut connection = whole(end);
        for number in numbers {
            let golden = &golden[number.index(golden.len())];
            let frame = Frame::decode(&golden.bytes().split_off(4).into());
            prop_assert_eq!(frame.as_ref().ok(), Some(&golden.frame), "{}", golden.name);
            let _ = connection.say(golden.frame.clone());
        }
        connection.after(Duration::from_secs(100));
        connection.check();
    }
}

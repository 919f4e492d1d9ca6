//! The binary, as scripts use it. Every process listens on port 0 and is waited for by what it says, never by the clock; a wait
//! that would not end fails.
#![cfg(unix)]

#[path = "commands/contained.rs"]
mod contained;
#[path = "commands/faults.rs"]
mod faults;
#[path = "commands/identities.rs"]
mod identities;
#[path = "commands/log.rs"]
mod log;
#[path = "commands/streams.rs"]
mod streams;

use meshwork::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

/// Nothing here takes longer.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_command_answers_a_call() {
    let master = Master::start(&[]);
    let _responder = master.respond("echo", "cat", &[]);
    for arguments in ["[2,3]", r#"{"a":[1.5,null,"ü"]}"#, "-7", "null", "\"text\"", "12345678901234567890"] {
        let output = master.run(&["call", "echo", arguments]);
        assert_eq!((stdout(&output).trim_end(), output.status.code()), (arguments, Some(0)));
    }
    assert_eq!(stdout(&master.run(&["call", "echo"])), "null\n");
}

#[test]
fn a_typed_responder_takes_a_list_or_an_object() {
    #[derive(Deserialize)]
    struct Add {
        a: i64,
        b: i64,
    }

    let master = Master::start(&[]);
    let address = master.address.clone();
    let (bound, is_bound) = mpsc::channel();
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let branch = thread::spawn(move || {
        actix::System::new().block_on(async move {
            let branch = BranchActor::new("adder").respond("add", |Add { a, b }| async move { Ok(a + b) });
            let _branch = branch.bind(address).await.unwrap();
            bound.send(()).unwrap();
            // It ends with its sender.
            let _ = end.await;
        });
    });
    is_bound.recv_timeout(SOON).unwrap();
    assert_eq!(stdout(&master.run(&["call", "add", "[2,3]"])), "5\n");
    assert_eq!(stdout(&master.run(&["call", "add", r#"{"b":4,"a":3}"#])), "7\n");
    assert_eq!(stdout(&master.run(&["call", "add", "[2,3]", "--on", "adder"])), "5\n");
    let output = master.run(&["call", "add", "\"two\""]);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).starts_with("CANNOT_DECODE "), "{}", one_line(&output));
    drop(ended);
    branch.join().unwrap();
}

#[test]
fn a_call_chooses_its_provider_by_key_and_label_or_asks_all() {
    let master = Master::start(&[]);
    let respond = |name: &str, more: &[&str]| {
        let more = [&["--name", name], more].concat();
        master.respond("who", &format!("echo '\"{name}\"'"), &more)
    };
    let _nodes = [
        respond("old", &["--label", "version=1", "--label", "region=eu"]),
        respond("new", &["--label", "version=2", "--weight", "0"]),
    ];
    let call = |more: &[&str]| stdout(&master.run(&[&["call", "who"], more].concat()));
    for _ in 0..3 {
        assert_eq!(call(&["--label", "version=2"]), "\"new\"\n");
        assert_eq!(call(&["--label", "version=1", "--label", "region=eu", "--key", "ann"]), "\"old\"\n");
        assert_eq!(call(&["--key", "ann"]), "\"old\"\n", "no key goes to a provider without weight");
    }
    let all = call(&["--all"]);
    let mut lines: Vec<Value> =
        all.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    lines.sort_by_key(|line| line["node"].to_string());
    assert_eq!(lines, ["new", "old"].map(|name| json!({ "node": name, "reply": name })));
    let labelled = call(&["--all", "--label", "version=1"]);
    assert_eq!(labelled, "{\"node\":\"old\",\"reply\":\"old\"}\n");

    let _fails = master.respond("who", "echo no >&2; exit 1", &["--name", "worse", "--label", "version=0"]);
    let output = master.run(&["call", "who", "--all"]);
    assert_eq!((output.status.code(), stdout(&output).lines().count()), (Some(1), 3));
    assert!(stdout(&output).contains(r#"{"node":"worse","error":{"code":"#), "{}", stdout(&output));
    let line = one_line(&output);
    assert!(line.contains("(may have run)") && line.contains("1 of 3 providers"), "{line}");
    let line = one_line(&master.run(&["call", "who", "--all", "--label", "version=0"]));
    assert!(line.contains("(failed)") && line.contains("1 of 1 providers"), "{line}");

    let output = master.run(&["call", "who", "--label", "version=3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("its providers have region=eu, version=0, version=1, version=2"));
    let output = master.run(&["call", "who", "--all", "--label", "version=3"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()));
    for wrong in [
        &["call", "who", "--label", "version"][..],
        &["call", "who", "--key", ""],
        &["call", "who", "--all", "--key", "ann"],
        &["respond", "x", "--command", "cat", "--label", "a=1", "--label", "a=2"],
        &["respond", "x", "--command", "cat", "--weight", "10001"],
    ] {
        let output = master.run(wrong);
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), String::new()), "{wrong:?}");
    }
}

/// A master that had no descriptor left took nobody in, and did not say so to those who waited.
#[test]
fn a_master_without_descriptors_goes_on_says_so_once_and_takes_in_again() {
    let master = Master::with_descriptors(48);
    let first = bound(BranchActor::new("first").respond("one", |(): ()| async { Ok(1) }), &master);
    let connect = || std::net::TcpStream::connect(&*master.address).expect("it listens");
    // Connections that say nothing give their descriptors to a branch.
    let idle: Vec<_> = (0..200).map(|_| connect()).collect();
    let second = bound(BranchActor::new("second"), &master);
    assert_eq!(waits(second.call::<i32>("one", ())), Ok(1));
    drop(idle);
    // Branches that are bound keep theirs.
    let mut kept = Vec::new();
    let told = loop {
        let name = format!("kept-{}", kept.len());
        let binding = BranchActor::new(name).bind(master.address.as_str());
        match waits(async { tokio::time::timeout(Duration::from_secs(1), binding).await }) {
            Ok(branch) => kept.push(branch.expect("there is a descriptor, or it tries again")),
            Err(_) => {
                let mut told = String::new();
                let mut link = connect();
                link.set_read_timeout(Some(SOON)).expect("it is no zero");
                link.read_to_string(&mut told).expect("it is closed, after these words");
                // The bind that was given up a moment ago may have left a descriptor.
                if told.contains("no descriptors left") {
                    break told;
                }
            }
        }
        assert!(kept.len() < 48, "there are no more descriptors");
    };
    assert!(told.contains("try again later"), "{told:?}");
    assert_eq!(waits(second.call::<i32>("one", ())), Ok(1), "those who are bound go on");
    for branch in kept {
        waits(branch.drain(Duration::ZERO)).expect("it drains");
    }
    let third = bound(BranchActor::new("third"), &master);
    assert_eq!(waits(third.call::<i32>("one", ())), Ok(1));
    drop(first);
    master.running.signal("-TERM");
    let (_, said) = master.running.end_and_say();
    let lines = |what: &str| said.iter().filter(|line| line.contains(what)).count();
    assert!((1..=4).contains(&lines("could not be taken in")), "{said:?}");
    assert!(lines("taken in again") >= 1, "{said:?}");
}

/// A branch on a thread of its own, as long as this is kept.
fn bound(branch: BranchActor, master: &Master) -> Branch {
    waits(branch.bind(master.address.as_str())).expect("it binds")
}

fn waits<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(future)
}

/// Integers above 64 bits were floats, and keys came back in the order of the alphabet.
#[test]
fn json_comes_back_as_it_was_sent() {
    let master = Master::start(&[]);
    let _responder = master.respond("echo", "cat", &[]);
    let (_subscriber, printed) = master.subscribe(&["echo"]);
    for json in [
        "18446744073709551616",
        "[340282366920938463463374607431768211455,-170141183460469231731687303715884105728]",
        r#"{"b":1,"a":{"z":0,"y":-0.0},"10":1.0,"9":0.1}"#,
        r#""NaN""#,
        "1.7976931348623157e+308",
        "5e-324",
    ] {
        let output = master.run(&["call", "echo", json]);
        assert_eq!(
            (stdout(&output).trim_end(), output.status.code()),
            (json, Some(0)),
            "{}",
            stderr(&output)
        );
        assert!(master.run(&["publish", "echo", json, "--name", "me"]).status.success());
        let line = format!(r#"{{"topic":"echo","publisher":"me","value":{json}}}"#);
        assert_eq!(printed.recv_timeout(SOON).unwrap(), line);
    }
}

#[test]
fn a_number_that_no_type_holds_is_refused_at_either_end() {
    let master = Master::start(&[]);
    let digits = "1".repeat(60);
    for number in [&*digits, "1e400", "[-1e-400]"] {
        for command in ["call", "publish", "broadcast"] {
            let output = master.run(&[command, "echo", number]);
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(one_line(&output).contains("line 1 column"), "{output:?}");
        }
    }
    let _responder = master.respond("huge", &format!("echo {digits}"), &[]);
    let output = master.run(&["call", "huge"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("no integer type holds"), "{output:?}");
}

#[test]
fn what_rust_replies_is_written_in_full() {
    type Maps = (BTreeMap<u64, bool>, BTreeMap<(i8, char), u128>, BTreeMap<Option<bool>, f32>);
    let maps = || -> Maps {
        let by_none = BTreeMap::from([(None, f32::INFINITY), (Some(true), 0.1)]);
        (BTreeMap::from([(7, true)]), BTreeMap::from([((-1, 'x'), u128::MAX)]), by_none)
    };
    let written = r#"[{"7":true},{"[-1,\"x\"]":340282366920938463463374607431768211455},{"null":"Infinity","true":0.1}]"#;
    let master = Master::start(&[]);
    let branch = BranchActor::new("rust")
        .respond("maps", move |(): ()| async move { Ok(maps()) })
        .respond("same", move |given: Maps| async move { Ok(given == maps()) })
        .respond("floats", |(): ()| async { Ok((f64::NAN, f64::NEG_INFINITY, i128::MIN)) })
        .respond("is_nan", |float: f64| async move { Ok(float.is_nan()) });
    let branch = bound(branch, &master);
    assert_eq!(stdout(&master.run(&["call", "maps"])), format!("{written}\n"));
    assert_eq!(stdout(&master.run(&["call", "same", &format!("[{written}]")])), "true\n");
    assert_eq!(stdout(&master.run(&["call", "same", written])), "true\n");
    let floats = "[\"NaN\",\"-Infinity\",-170141183460469231731687303715884105728]\n";
    assert_eq!(stdout(&master.run(&["call", "floats"])), floats);
    assert_eq!(stdout(&master.run(&["call", "is_nan", "\"NaN\""])), "true\n");

    // And the other way: what a command replies, and what a publisher publishes, is read by Rust.
    let _responder = master.respond("cat", "cat", &[]);
    let _other = master.respond("print", &format!("echo '{written}'"), &[]);
    waits(async {
        branch.wait_for("cat", SOON).await.unwrap();
        branch.wait_for("print", SOON).await.unwrap();
        assert_eq!(branch.call::<Maps>("print", ()).await.unwrap(), maps());
        assert_eq!(branch.call::<Maps>("cat", maps()).await.unwrap(), maps());
        assert!(branch.call::<f32>("cat", f32::NAN).await.unwrap().is_nan());
        assert_eq!(branch.call::<u128>("cat", u128::MAX).await.unwrap(), u128::MAX);
        assert_eq!(branch.call::<i128>("cat", i128::MIN).await.unwrap(), i128::MIN);
    });
    let (heard, events) = mpsc::channel();
    let subscription = branch.subscribe("maps", move |event: Event<Maps>| heard.send(event.value).unwrap());
    let _subscription = waits(subscription).unwrap();
    let (_subscriber, printed) = master.subscribe(&["maps"]);
    assert!(master.run(&["publish", "maps", written]).status.success());
    assert_eq!(events.recv_timeout(SOON).unwrap(), maps());
    assert!(printed.recv_timeout(SOON).unwrap().contains(written));
    waits(branch.publish("maps", &maps())).unwrap();
    assert!(printed.recv_timeout(SOON).unwrap().contains(written));
}

/// It was left out of the lines, without a word of why.
#[test]
fn an_event_that_has_no_json_is_told() {
    let master = Master::start(&[]);
    let branch = bound(BranchActor::new("rust"), &master);
    let (mut subscriber, printed) = master.subscribe(&["maps"]);
    let colliding = meshwork::Value::Map(vec![
        (meshwork::Value::Unsigned(1), meshwork::Value::Nil),
        (meshwork::Value::Text("1".to_owned()), meshwork::Value::Nil),
    ]);
    waits(branch.publish("maps", &colliding)).unwrap();
    subscriber.until_said("two keys of a map have the text \"1\"");
    waits(branch.publish("maps", &1)).unwrap();
    assert!(printed.recv_timeout(SOON).unwrap().contains("\"value\":1"));
}

#[test]
fn arguments_are_an_object_a_list_or_the_only_argument_itself() {
    #[derive(Deserialize)]
    struct Place {
        item: String,
        #[serde(default)]
        count: Option<u8>,
    }
    let master = Master::start(&[]);
    let branch = BranchActor::new("rust")
        .respond("place", |Place { item, count }| async move { Ok(format!("{item} {count:?}")) })
        .respond("double", |number: i64| async move { Ok(number * 2) });
    let _branch = bound(branch, &master);
    for (arguments, reply) in [
        (r#"{"item":"tea","count":2}"#, "\"tea Some(2)\"\n"),
        (r#"{"count":2,"item":"tea"}"#, "\"tea Some(2)\"\n"),
        (r#"{"item":"tea"}"#, "\"tea None\"\n"),
        (r#"["tea",2]"#, "\"tea Some(2)\"\n"),
        (r#"[{"item":"tea","count":null}]"#, "\"tea None\"\n"),
    ] {
        assert_eq!(stdout(&master.run(&["call", "place", arguments])), reply, "{arguments}");
    }
    for arguments in ["21", "[21]"] {
        assert_eq!(stdout(&master.run(&["call", "double", arguments])), "42\n", "{arguments}");
    }
    let output = master.run(&["call", "place", r#"{"count":2}"#]);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("item"), "{output:?}");
}

#[test]
fn a_byte_order_mark_is_read_over() {
    let master = Master::start(&[]);
    let _responder = master.respond("echo", "printf '\\357\\273\\277'; cat", &[]);
    let file = Written::new("\u{FEFF}[1, 2]\r\n");
    assert_eq!(stdout(&master.run(&["call", "echo", &format!("@{}", file.path())])), "[1,2]\n");
    let mut child = master.command(&["call", "echo", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all("\u{FEFF}{}".as_bytes()).unwrap();
    assert_eq!(stdout(&output_of(child)), "{}\n");
}

/// The call waited until the child had ended too.
#[test]
fn a_command_that_leaves_a_child_behind_is_done_when_it_ends_itself() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let folder = gate.folder.path().display();
    // The child holds all three pipes until the test is over.
    let wait = format!("dd bs=1 count=1 < {folder}/open > /dev/null 2>&1");
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    let file = Written::new(&large);
    let left_behind = [
        ("leave", format!("({wait}; echo 2) & echo 1")),
        ("fail", format!("({wait}) & echo no ink >&2; exit 3")),
        ("deaf", format!("({wait}) <&0 & echo 1")),
        ("large", format!("({wait}) & cat {}", file.path())),
    ];
    let _responders = left_behind.map(|(action, command)| master.respond(action, &command, &[]));
    assert_eq!(stdout(&master.run(&["call", "leave"])), "1\n");
    assert!(one_line(&master.run(&["call", "fail"])).contains("no ink"));
    assert_eq!(stdout(&master.run(&["call", "deaf", &format!("@{}", file.path())])), "1\n");
    assert_eq!(stdout(&master.run(&["call", "large"])), format!("{large}\n"));
    (0..4).for_each(|_| gate.open());
}

#[test]
fn the_signature_of_an_action_is_listed() {
    let master = Master::start(&[]);
    let shape = meshwork::Shape {
        arguments: r##"{"$defs":{"Order":{"properties":{"item":{"type":"string"},"count":{"type":"integer"}},"required":["item","count"]}},
            "properties":{"order":{"$ref":"#/$defs/Order"}},"required":["order"]}"##
            .into(),
        reply: r#"{"type":"object","properties":{"id":{"type":"integer","maximum":18446744073709551616}},"required":["id"]}"#.into(),
    };
    let place = Responders::new()
        .respond("orders/place", |(): ()| async { Ok(()) })
        .shape("orders/place", Some(shape));
    let _branch = bound(BranchActor::new("shop").respond_all(place), &master);
    let line = stdout(&master.run(&["actions"]));
    let listed: Value = serde_json::from_str(&line).unwrap();
    let signature = "orders/place(order: {item: string, count: integer}) -> {id: integer}";
    assert_eq!((&listed["signature"], &listed["nodes"]), (&json!(signature), &json!(["shop"])));
    assert!(
        line.contains("18446744073709551616") && line.find("\"item\"") < line.find("\"count\""),
        "{line}"
    );
}

#[test]
fn an_old_mesh_is_bridged_into_a_new_one_through_its_gateway() {
    for protocol in ["light-rpc", "dnode", "node-mesh"] {
        let gateway = format!("{protocol}=127.0.0.1:0");
        let arguments =
            ["master", "--listen", "127.0.0.1:0", "--gateway", &gateway, "--gateway-allow", "public/*"];
        let mut old = Running::of(meshwork(&arguments).spawn().unwrap());
        let printed = lines_of(old.child.stdout.take().unwrap());
        let listens = || -> Value { serde_json::from_str(&printed.recv_timeout(SOON).unwrap()).unwrap() };
        let (native, foreign) = (listens(), listens());
        assert_eq!((&native["protocol"], &foreign["protocol"]), (&json!("meshwork"), &json!(protocol)));
        let respond = |action: &str| {
            let mut command = meshwork(&["respond", action, "--command", "cat"]);
            command.env("MESHWORK_MASTER", native["listening"].as_str().unwrap());
            let mut running = Running::of(command.spawn().unwrap());
            running.until_said("bound to ");
            running
        };
        let _responders = [respond("public/echo"), respond("secret")];
        let new = Master::start(&[]);
        let server = format!("{protocol}={}", foreign["listening"].as_str().unwrap());
        let _bridge = Running::of(new.command(&["bridge", &server, "--prefix", "old"]).spawn().unwrap());
        let listed = || stdout(&new.run(&["actions", "--json"]));
        let mut actions = listed();
        // A master of node-mesh does not say what there is.
        let offered = if protocol == "node-mesh" { "old/**" } else { "old/public/echo" };
        while !actions.contains(offered) {
            actions = listed();
        }
        assert!(!actions.contains("secret"), "{actions}");
        let output = new.run(&["call", "old/public/echo", r#"[[1,null,"é"]]"#]);
        assert_eq!((stdout(&output).as_str(), output.status.code()), ("[[1,null,\"é\"]]\n", Some(0)));
    }
}

#[test]
fn a_protocol_that_there_is_not_is_named_with_those_that_there_are() {
    for arguments in [
        &["master", "--gateway", "http=127.0.0.1:0"][..],
        &["master", "--gateway", "127.0.0.1:0"],
        &["master", "--gateway", "dnode=nowhere"],
        &["master", "--gateway", "dnode=127.0.0.1:0", "--gateway-allow", "a//b"],
        &["bridge", "http=127.0.0.1:0"],
        &["bridge", "node-mesh=127.0.0.1:0"],
        &["bridge", "light-rpc=127.0.0.1:0", "--prefix", "a\nb"],
    ] {
        let output = run(&mut meshwork(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

#[test]
fn arguments_come_from_stdin_or_a_file_too() {
    let master = Master::start(&[]);
    let _responder = master.respond("echo", "cat", &[]);
    let mut child = master.command(&["call", "echo", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"[1, 2]\n").unwrap();
    assert_eq!(stdout(&output_of(child)), "[1,2]\n");
    let file = Written::new("[3]");
    assert_eq!(stdout(&master.run(&["call", "echo", &format!("@{}", file.path())])), "[3]\n");
}

#[test]
fn a_command_that_fails_is_the_error_of_its_call() {
    let master = Master::start(&[]);
    let _failing = master.respond("fail", "printf 'no ink\\nout of paper\\n' >&2; exit 3", &[]);
    let output = master.run(&["call", "fail"]);
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("", Some(1)));
    let line = one_line(&output);
    assert!(line.starts_with("COMMAND_FAILED (failed): "), "{line}");
    assert!(line.contains('3') && line.contains("out of paper"), "{line}");
    let output = master.run(&["call", "fail", "--json"]);
    let error: Value = serde_json::from_str(&one_line(&output)).unwrap();
    let error = &error["error"];
    assert_eq!(
        (&error["code"], &error["name"], &error["fate"]),
        (&json!(1), &json!("COMMAND_FAILED"), &json!("failed"))
    );
    assert!(error["message"].as_str().unwrap().contains("out of paper"));
    assert!(error["data"].is_null());

    let _noise = master.respond("noise", "echo this is no json", &[]);
    assert!(one_line(&master.run(&["call", "noise"])).contains("not JSON"));
    let _silence = master.respond("silence", "true", &[]);
    assert_eq!(stdout(&master.run(&["call", "silence", "[1]"])), "null\n");
}

#[test]
fn a_command_that_does_not_read_its_arguments_still_replies() {
    let master = Master::start(&[]);
    let _responder = master.respond("deaf", "exec <&-; echo 1", &[]);
    // More than a pipe holds.
    let file = Written::new(&format!("\"{}\"", "x".repeat(1 << 20)));
    assert_eq!(stdout(&master.run(&["call", "deaf", &format!("@{}", file.path())])), "1\n");
}

#[test]
fn an_action_that_nobody_offers_is_a_failed_call() {
    let master = Master::start(&[]);
    let output = master.run(&["call", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).starts_with("ACTION_NOT_FOUND (not sent): "));
}

#[test]
fn wrong_use_ends_with_2_and_one_line_that_says_what_is_wrong() {
    let empty = Written::new("\n");
    let cases = [
        (&["call", "add", "[2,"][..], "is not JSON"),
        (&["call", "add", "text"], "needs quotes"),
        (&["call", "add", "@/does/not/exist"], "/does/not/exist"),
        (&["call", "add", "@"], "names no file: write @FILE"),
        (&["call", "add", ""], "is empty: write null"),
        (&["publish", "add", " "], "is empty: write null"),
        (&["call", "add", &format!("@{}", empty.path())], "is empty: write null"),
        (&["call", "add", "-"], "stdin is empty: write null"),
        (&["call", "add", "@/"], "/ cannot be read"),
        (&["call", "add", r#"{"a":1,"a":2}"#], "the key \"a\" comes twice"),
        (&["call", "add", "[NaN]"], "line 1 column 2"),
        (&["call", ""], "must not be empty"),
        (&["call", "add", "--master", "nowhere"], "HOST:PORT"),
        (&["call", "add", "--token-file", "/does/not/exist"], "/does/not/exist"),
        (&["call", "add", "--token-file", empty.path()], "is empty"),
        (&["publish", "a/*", "1"], "pattern"),
        (&["broadcast", "a//b", "1"], "empty segment"),
        (&["respond", "", "--command", "cat"], "must not be empty"),
        (&["respond", "add", "--command", " "], "the command is empty"),
        (&["actions", "a//"], "empty segment"),
        (&["master", "--listen", "nowhere"], "HOST:PORT"),
        (&["master", "--token-file", "/does/not/exist"], "/does/not/exist"),
    ];
    for (arguments, what) in cases {
        let output = run(&mut meshwork(arguments));
        assert_eq!((stdout(&output).as_str(), output.status.code()), ("", Some(2)), "{arguments:?}");
        assert!(one_line(&output).contains(what), "{arguments:?}: {}", one_line(&output));
    }
    let output = run(meshwork(&["master", "--listen", "127.0.0.1:0"]).env("MESHWORK_TOKEN", ""));
    assert_eq!(output.status.code(), Some(2), "an empty token lets nobody in, rather than everybody");

    let master = Master::start(&[]);
    for (arguments, what) in [
        (&["subscribe", "a**"][..], "whole segment"),
        (&["actions", "a//"], "empty segment"),
        (&["master", "--listen", &master.address], "in use"),
    ] {
        let output = master.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.lines().last().unwrap().contains(what), "{arguments:?}: {said}");
    }
    // What clap itself refuses: a flag that is misspelt is not taken for arguments.
    for arguments in [
        &["call", "add", "--wthin", "1s"][..],
        &["call", "add", "--within", "5"],
        &["subscribe", "a", "--count", "x"],
        &["sing"],
    ] {
        assert_eq!(run(&mut meshwork(arguments)).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn what_cannot_bind_ends_with_3_and_one_line_that_says_why() {
    // Nobody listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for command in ["call", "publish", "broadcast", "actions", "branches"] {
        let name = if command == "branches" { &[][..] } else { &["add"] };
        let output = run(meshwork(&[command, "--master", &free]).args(name));
        assert_eq!((stdout(&output).as_str(), output.status.code()), ("", Some(3)), "{command}");
        assert!(one_line(&output).contains("meshwork master"), "{command}");
    }

    let file = Written::new("secret\n");
    let master = Master::start(&["--token-file", file.path()]);
    let output = master.run(&["call", "add"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(one_line(&output).contains("--token-file"));
    let output = run(master.command(&["call", "add"]).env("MESHWORK_TOKEN", "guess"));
    assert_eq!(output.status.code(), Some(3));
    assert!(one_line(&output).contains("token") && !one_line(&output).contains("guess"));
    // With the right one the call is made, and fails for its own reason.
    assert_eq!(master.run(&["call", "add", "--token-file", file.path()]).status.code(), Some(1));
    let output = run(master.command(&["call", "add"]).env("MESHWORK_TOKEN", "secret"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn events_are_published_and_printed() {
    let master = Master::start(&[]);
    let (subscriber, printed) = master.subscribe(&["sub/*", "--count", "2"]);
    assert!(master.run(&["publish", "sub/test", "\"sub\"", "--name", "me"]).status.success());
    assert!(master.run(&["publish", "unheard", "1"]).status.success());
    assert!(master.run(&["publish", "sub/other", "{\"a\":1}"]).status.success());
    let first: Value = serde_json::from_str(&printed.recv_timeout(SOON).unwrap()).unwrap();
    assert_eq!(first, json!({"topic": "sub/test", "publisher": "me", "value": "sub"}));
    let second: Value = serde_json::from_str(&printed.recv_timeout(SOON).unwrap()).unwrap();
    assert_eq!((&second["topic"], &second["value"]), (&json!("sub/other"), &json!({"a": 1})));
    assert_eq!(subscriber.end(), Some(0));
    assert_eq!(printed.recv_timeout(SOON), Err(mpsc::RecvTimeoutError::Disconnected), "two, as was said");
}

#[test]
fn a_large_event_has_left_before_its_publisher_ends() {
    let master = Master::start(&[]);
    let (subscriber, printed) = master.subscribe(&["big/*", "--count", "1"]);
    let value = "x".repeat(4 << 20);
    let file = Written::new(&format!("\"{value}\""));
    assert!(master.run(&["publish", "big/one", &format!("@{}", file.path())]).status.success());
    let event: Value = serde_json::from_str(&printed.recv_timeout(SOON).unwrap()).unwrap();
    assert_eq!(event["value"].as_str().map(str::len), Some(value.len()));
    assert_eq!(subscriber.end(), Some(0));
}

#[test]
fn an_event_goes_to_one_member_of_a_group() {
    let master = Master::start(&[]);
    let (_one, first) = master.subscribe(&["jobs", "--group", "workers"]);
    let (_other, second) = master.subscribe(&["jobs", "--group", "workers"]);
    for job in ["1", "2", "3", "4"] {
        assert!(master.run(&["publish", "jobs", job]).status.success());
    }
    // Each of them gets its half; whichever gets more than that would show it here.
    let mut values = Vec::new();
    for printed in [&first, &second] {
        for _ in 0..2 {
            let event: Value = serde_json::from_str(&printed.recv_timeout(SOON).unwrap()).unwrap();
            values.push(event["value"].as_u64().unwrap());
        }
    }
    values.sort_unstable();
    assert_eq!(values, [1, 2, 3, 4]);
}

#[test]
fn a_broadcast_ends_when_it_has_left() {
    let master = Master::start(&[]);
    let output = master.run(&["broadcast", "config/reloaded", "{\"by\":\"me\"}"]);
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str(), output.status.code()), ("", "", Some(0)));
}

#[test]
fn a_subscriber_whose_reader_has_gone_ends_quietly() {
    let master = Master::start(&[]);
    let child = master.command(&["subscribe", "sub/*"]).spawn();
    let mut subscriber = Running::of(child.unwrap());
    subscriber.until_said("subscribed");
    drop(subscriber.child.stdout.take());
    assert!(master.run(&["publish", "sub/test", "1"]).status.success());
    let (code, said) = subscriber.end_and_say();
    assert_eq!((code, said), (Some(0), Vec::new()));
}

#[test]
fn actions_and_branches_are_listed() {
    let master = Master::start(&[]);
    let _responder = master.respond("math/add", "cat", &["--name", "adder"]);
    let listed: Value = serde_json::from_str(&stdout(&master.run(&["actions"]))).unwrap();
    let expected = json!({"action": "math/add", "nodes": ["adder"], "arguments": null, "reply": null});
    assert_eq!(listed, expected);
    assert_eq!(stdout(&master.run(&["actions", "other/*"])), "");
    // Neither the master nor the branch that asks is one of them.
    let listed: Value = serde_json::from_str(&stdout(&master.run(&["branches"]))).unwrap();
    assert_eq!((&listed["branch"], &listed["actions"]), (&json!("adder"), &json!(["math/add"])));
    assert!(listed["session"].as_u64().is_some());
}

/// They stopped at 10,000, without a word.
#[test]
fn all_actions_are_listed_however_many_there_are() {
    let master = Master::start(&[]);
    let count = meshwork::limits::DESCRIBED_MAX + 1;
    let many = (0..count).fold(Responders::new(), |responders, number| {
        responders.respond(format!("many/{number}"), |(): ()| async { Ok(()) })
    });
    // The branch lives on a thread of its own, as long as this test.
    let binding = BranchActor::new("many").respond_all(many).bind(master.address.as_str());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _branch = runtime.block_on(binding).unwrap();
    let output = master.run(&["actions"]);
    assert_eq!((stdout(&output).lines().count(), output.status.code()), (count, Some(0)));
}

#[test]
fn a_master_that_is_asked_to_end_lets_a_command_finish() {
    let mut master = Master::start(&[]);
    let gate = Gate::new();
    let _responder = master.respond("slow", &gate.command(), &[]);
    let call = master.command(&["call", "slow"]).spawn().unwrap();
    gate.until_came();
    master.running.signal("-TERM");
    master.running.until_said("draining");
    gate.open();
    let output = output_of(call);
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("1\n", Some(0)), "{}", stderr(&output));
    let (code, said) = master.running.end_and_say();
    assert_eq!(code, Some(0));
    assert!(said.iter().any(|line| line == "drained: 1 finished, 0 abandoned"), "{said:?}");
}

#[test]
fn a_responder_that_is_asked_to_end_finishes_its_command() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let mut responder = master.respond("slow", &gate.command(), &[]);
    let call = master.command(&["call", "slow"]).spawn().unwrap();
    gate.until_came();
    responder.signal("-INT");
    responder.until_said("draining");
    gate.open();
    assert_eq!(stdout(&output_of(call)), "1\n");
    let (code, said) = responder.end_and_say();
    assert_eq!((code, said.last().map(String::as_str)), (Some(0), Some("drained: 1 finished, 0 abandoned")));
}

#[test]
fn a_second_signal_ends_a_responder_and_its_command_at_once() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let alive = gate.alive();
    let mut responder = master.respond("slow", &gate.command_with_a_child(), &[]);
    let call = master.command(&["call", "slow", "--within", "10m"]).spawn().unwrap();
    gate.until_came();
    responder.signal("-TERM");
    responder.until_said("draining");
    responder.signal("-TERM");
    assert_eq!(responder.end(), Some(0));
    alive.recv_timeout(SOON).expect("nothing that the command started is left");
    assert_eq!(output_of(call).status.code(), Some(1));
}

#[test]
fn a_command_ends_with_its_caller() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let alive = gate.alive();
    let _responder = master.respond("slow", &gate.command_with_a_child(), &[]);
    let mut call = master.command(&["call", "slow", "--within", "10m"]).spawn().unwrap();
    gate.until_came();
    call.kill().unwrap();
    alive.recv_timeout(SOON).expect("nothing that the command started is left");
    call.wait().unwrap();
}

#[test]
fn a_responder_that_is_killed_in_the_middle_of_a_call_ends_it_at_once() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let responder = master.respond("slow", &gate.command(), &[]);
    let call = master.command(&["call", "slow", "--within", "10m"]).spawn().unwrap();
    gate.until_came();
    responder.signal("-KILL");
    let output = output_of(call);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).starts_with("PROVIDER_LOST (may have run): "));
}

#[test]
fn a_name_that_is_taken_is_refused_and_who_is_replaced_ends_with_3() {
    let master = Master::start(&[]);
    let first = master.respond("echo", "cat", &["--name", "echo"]);
    let refused = master.run(&["call", "echo", "[1]", "--name", "echo"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(one_line(&refused).contains("--replace"), "{refused:?}");
    // One that waits for its master does not wait for a name.
    let refused = master.run(&["respond", "echo", "--command", "cat", "--name", "echo"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("--replace"), "{refused:?}");
    let _second = master.respond("echo", "cat", &["--name", "echo", "--replace"]);
    let (code, said) = first.end_and_say();
    assert_eq!(code, Some(3));
    assert!(
        said.last().unwrap().starts_with("meshwork: another branch has bound under this name"),
        "{said:?}"
    );
    assert_eq!(stdout(&master.run(&["call", "echo", "[1]"])), "[1]\n");
}

#[test]
fn commands_run_in_parallel_up_to_the_number_of_jobs() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let _responder = master.respond("slow", &gate.command(), &["--jobs", "2"]);
    let calls = [(); 2].map(|()| master.command(&["call", "slow"]).spawn().unwrap());
    // Both run at once: neither waits for the other.
    gate.until_came();
    gate.until_came();
    // A third one gets no place; another one gets one as soon as there is one.
    let output = master.run(&["call", "slow", "--within", "300ms"]);
    assert!(one_line(&output).starts_with("REQUEST_TIMEOUT "));
    assert!(!gate.has_come(), "a third command runs");
    let waiting = master.command(&["call", "slow"]).spawn().unwrap();
    gate.open();
    gate.until_came();
    gate.open();
    gate.open();
    for call in calls.into_iter().chain([waiting]) {
        assert_eq!(stdout(&output_of(call)), "1\n");
    }
}

#[test]
fn a_responder_comes_back_to_a_master_that_was_killed_and_started_again() {
    let master = Master::start(&[]);
    let _responder = master.respond("echo", "cat", &[]);
    let address = master.address.clone();
    master.running.signal("-KILL");
    drop(master);
    let mut again = Master::listen(&address, &[]);
    // Its log says when the responder is back.
    again.running.until_said("with 1 actions");
    assert_eq!(stdout(&again.run(&["call", "echo", "[1]"])), "[1]\n");
}

#[test]
fn commands_that_run_until_they_are_asked_to_end_wait_for_their_master() {
    // Nobody listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let old = Master::listen("127.0.0.1:0", &["--gateway", "light-rpc=127.0.0.1:0"]);
    let server = format!("light-rpc={}", old.gateway());
    let start = |arguments: &[&str]| {
        let mut running = Running::of(meshwork(arguments).args(["--master", &free]).spawn().unwrap());
        running.until_said(" waits");
        running
    };
    let mut responder = start(&["respond", "echo", "--command", "cat"]);
    let mut subscriber = start(&["subscribe", "orders/**", "--count", "1"]);
    let _bridge = start(&["bridge", &server]);
    let given_up = start(&["respond", "echo", "--command", "cat"]);
    given_up.signal("-TERM");
    assert_eq!(given_up.end(), Some(0));

    let mut master = Master::listen(&free, &[]);
    responder.until_said("bound to ");
    subscriber.until_said("subscribed to ");
    master.running.until_said("bridge/light_rpc/");
    assert_eq!(stdout(&master.run(&["call", "echo", "[1]"])), "[1]\n");
    assert_eq!(master.run(&["publish", "orders/created"]).status.code(), Some(0));
    assert_eq!(subscriber.end(), Some(0));
}

#[test]
fn a_bridge_says_what_is_wrong_with_its_server() {
    let master = Master::listen("127.0.0.1:0", &["--gateway", "light-rpc=127.0.0.1:0"]);
    let gateway = master.gateway();
    for server in [
        format!("dnode={}", master.address),
        format!("light-rpc={}", master.address),
        format!("dnode={gateway}"),
    ] {
        let output = run(&mut master.command(&["bridge", &server, "--prefix", "old"]));
        assert_eq!(output.status.code(), Some(3), "{server}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("does not speak ") && said.contains("it looks like "), "{server}: {said}");
    }
    // A server that says nothing is waited for, and said to be silent.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bridges = ["dnode", "light-rpc", "node-mesh"].map(|protocol| {
        let server = format!("{protocol}={}", silent.local_addr().unwrap());
        Running::of(master.command(&["bridge", &server, "--prefix", "old"]).spawn().unwrap())
    });
    // So is a master.
    let server = format!("light-rpc={gateway}");
    let address = silent.local_addr().unwrap().to_string();
    let bridge = meshwork(&["bridge", &server, "--prefix", "old", "--master", &address]).spawn().unwrap();
    let mut to_a_silent_master = Running::of(bridge);
    for mut bridge in bridges {
        bridge.until_said("it has said nothing for 5s; does it speak ");
    }
    to_a_silent_master.until_said("it has not answered the bind for 5s; is it a meshwork master?");
}

#[test]
fn a_command_does_not_wait_for_what_can_never_be() {
    let file = Written::new("secret\n");
    let master = Master::start(&["--token-file", file.path()]);
    for arguments in [&["respond", "echo", "--command", "cat"][..], &["subscribe", "orders/**"]] {
        let output = run(master.command(arguments).env("MESHWORK_TOKEN", "guess"));
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(one_line(&output).contains("the token is wrong"), "{arguments:?}");
        for wrong in [["--master", "nowhere"], ["--name", "a b\n"]] {
            let output = run(meshwork(arguments).args(wrong));
            assert_eq!(output.status.code(), Some(2), "{arguments:?} {wrong:?}: {output:?}");
        }
    }
    let output = run(&mut meshwork(&["subscribe", "a*"]));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

// How processes are started and waited for.

fn meshwork(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwork"));
    command.args(arguments).env_remove("MESHWORK_MASTER").env_remove("MESHWORK_TOKEN").env_remove("RUST_LOG");
    command.env_remove("MESHWORK_SERVER_TOKEN");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for what could take for ever.
fn soon<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(what()));
    is_done.recv_timeout(SOON).expect("it happens soon")
}

fn output_of(child: Child) -> Output {
    soon(move || child.wait_with_output().expect("it ends"))
}

fn run(command: &mut Command) -> Output {
    output_of(command.spawn().expect("it starts"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What it said on stderr, which must be one line.
fn one_line(output: &Output) -> String {
    let said = stderr(output);
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// The lines of a pipe, read as they come, so that nobody waits for a reader.
fn lines_of(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (heard, lines) = mpsc::channel();
    thread::spawn(move || {
        // A test that has heard enough reads on, and forgets.
        BufReader::new(pipe).lines().map_while(Result::ok).for_each(|line| drop(heard.send(line)));
    });
    lines
}

/// A process that is ended with the test.
struct Running {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Running {
    fn of(mut child: Child) -> Self {
        let said = lines_of(child.stderr.take().expect("it is piped"));
        Self { child, said }
    }

    /// Waits for a line on stderr.
    fn until_said(&mut self, what: &str) {
        while !self
            .said
            .recv_timeout(SOON)
            .unwrap_or_else(|_| panic!("it never says {what:?}"))
            .contains(what)
        {}
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(done.expect("there is a kill").success());
    }

    fn end(self) -> Option<i32> {
        self.end_and_say().0
    }

    /// Waits until it has ended; gives its exit code and what else it said.
    fn end_and_say(self) -> (Option<i32>, Vec<String>) {
        soon(move || {
            let mut this = self;
            let status = this.child.wait().expect("it ends");
            (status.code(), this.said.iter().collect())
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Master {
    running: Running,
    address: String,
    /// What else it prints on stdout: its gateways.
    printed: mpsc::Receiver<String>,
}

impl Master {
    fn start(more: &[&str]) -> Self {
        Self::listen("127.0.0.1:0", more)
    }

    fn listen(address: &str, more: &[&str]) -> Self {
        Self::of(meshwork(&["master", "--listen", address]).args(more))
    }

    /// A master that may have so many files and sockets open.
    fn with_descriptors(max: usize) -> Self {
        let master = meshwork(&["master", "--listen", "127.0.0.1:0"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {max}; exec \"$0\" \"$@\"")]);
        shell.arg(master.get_program()).args(master.get_args());
        master.get_envs().for_each(|(name, value)| {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        });
        Self::of(shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    fn of(command: &mut Command) -> Self {
        let mut running = Running::of(command.spawn().expect("it starts"));
        let printed = lines_of(running.child.stdout.take().expect("it is piped"));
        let line = printed.recv_timeout(SOON).expect("it listens");
        let told: Value = serde_json::from_str(&line).expect("a line of JSON");
        Self { running, address: told["listening"].as_str().expect("an address").to_owned(), printed }
    }

    /// The address of its next gateway.
    fn gateway(&self) -> String {
        let line = self.printed.recv_timeout(SOON).expect("it listens");
        let told: Value = serde_json::from_str(&line).expect("a line of JSON");
        told["listening"].as_str().expect("an address").to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = meshwork(arguments);
        command.env("MESHWORK_MASTER", &self.address);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// A responder that is bound.
    fn respond(&self, action: &str, command: &str, more: &[&str]) -> Running {
        let child = self.command(&["respond", action, "--command", command]).args(more).spawn();
        let mut running = Running::of(child.expect("it starts"));
        running.until_said("bound to ");
        running
    }

    /// A subscriber that the master knows of, and what it prints.
    fn subscribe(&self, arguments: &[&str]) -> (Running, mpsc::Receiver<String>) {
        let child = self.command(&["subscribe"]).args(arguments).spawn();
        let mut running = Running::of(child.expect("it starts"));
        running.until_said("subscribed to ");
        let printed = lines_of(running.child.stdout.take().expect("it is piped"));
        (running, printed)
    }
}

/// A file that is deleted with the test.
struct Written(tempfile::NamedTempFile);

impl Written {
    fn new(text: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("there is room");
        file.write_all(text.as_bytes()).expect("there is room");
        Self(file)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().expect("its path is text")
    }
}

/// A place where commands say that they run, and wait until they may go on.
struct Gate {
    folder: tempfile::TempDir,
    came: mpsc::Receiver<String>,
    /// One byte lets one command go on.
    open: File,
}

impl Gate {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        // A pipe that one process has open for both reading and writing never ends and never blocks who opens it.
        let pipe = |name: &str| {
            let path = make_pipe(folder.path().join(name));
            OpenOptions::new().read(true).write(true).open(path).expect("it is a pipe")
        };
        let (came, open) = (lines_of(pipe("came")), pipe("open"));
        Self { folder, came, open }
    }

    /// A command that says that it runs, then waits, then replies 1.
    fn command(&self) -> String {
        let folder = self.folder.path().display();
        format!("echo x > {folder}/came; dd bs=1 count=1 < {folder}/open > /dev/null 2>&1; echo 1")
    }

    /// A command that says that it runs, waits in a child process, then replies 1.
    fn command_with_a_child(&self) -> String {
        let folder = self.folder.path().display();
        format!("exec 9> {folder}/alive; ({}) & wait", self.command())
    }

    /// Tells when nothing that [`Gate::command_with_a_child`] started runs any more.
    fn alive(&self) -> mpsc::Receiver<()> {
        let path = make_pipe(self.folder.path().join("alive"));
        let (ended, is_ended) = mpsc::channel();
        thread::spawn(move || {
            fs::read(path).expect("it is a pipe");
            // The test may have failed meanwhile.
            let _ = ended.send(());
        });
        is_ended
    }

    fn until_came(&self) {
        self.came.recv_timeout(SOON).expect("the command runs");
    }

    fn has_come(&self) -> bool {
        self.came.try_recv().is_ok()
    }

    fn open(&self) {
        (&self.open).write_all(b"x").expect("it is open");
    }
}

fn make_pipe(path: PathBuf) -> PathBuf {
    assert!(Command::new("mkfifo").arg(&path).status().expect("there is a mkfifo").success());
    path
}

#[test]
fn a_typed_action_takes_an_object_a_list_or_its_only_argument() {
    #[meshwork::actions(prefix = "shop")]
    trait Shop {
        async fn place(&self, item: String, count: Option<u8>) -> Result<String, ActionError>;
        async fn double(&self, number: i64) -> Result<i64, ActionError>;
        async fn huge(&self) -> Result<u128, ActionError>;
    }
    struct Keeper;
    impl Shop for Keeper {
        async fn place(&self, item: String, count: Option<u8>) -> Result<String, ActionError> {
            Ok(format!("{item} {count:?}"))
        }
        async fn double(&self, number: i64) -> Result<i64, ActionError> {
            Ok(number * 2)
        }
        async fn huge(&self) -> Result<u128, ActionError> {
            Ok(u128::MAX)
        }
    }
    let master = Master::start(&[]);
    let _branch = bound(BranchActor::new("shop").respond_all(Keeper.into_responders()), &master);
    for (arguments, reply) in [
        (r#"{"item":"tea","count":2}"#, "\"tea Some(2)\"\n"),
        (r#"{"count":2,"item":"tea"}"#, "\"tea Some(2)\"\n"),
        (r#"{"item":"tea"}"#, "\"tea None\"\n"),
        (r#"["tea",2]"#, "\"tea Some(2)\"\n"),
    ] {
        let output = master.run(&["call", "shop/place", arguments]);
        assert_eq!(stdout(&output), reply, "{arguments} {output:?}");
    }
    for arguments in ["21", "[21]", r#"{"number":21}"#] {
        assert_eq!(stdout(&master.run(&["call", "shop/double", arguments])), "42\n", "{arguments}");
    }
    for arguments in ["null", "[]", "{}"] {
        assert_eq!(
            stdout(&master.run(&["call", "shop/huge", arguments])),
            format!("{}\n", u128::MAX),
            "{arguments}"
        );
    }
    assert_eq!(stdout(&master.run(&["call", "shop/huge"])), format!("{}\n", u128::MAX));
    for wrong in
        [r#"{"item":"tea","cuont":2}"#, r#"{"count":2}"#, r#"["tea",2,3]"#, r#"{"item":"tea","count":256}"#]
    {
        let output = master.run(&["call", "shop/place", wrong]);
        assert_eq!(output.status.code(), Some(1), "{wrong} {output:?}");
        assert!(one_line(&output).starts_with("CANNOT_DECODE"), "{output:?}");
    }
    let listed = stdout(&master.run(&["actions"]));
    assert!(listed.contains("shop/place(item: string, count?: integer | null) -> string"), "{listed}");
}

#[test]
fn headers_reach_commands_as_variables_and_subscribers_on_request() {
    let master = Master::start(&[]);
    let command =
        r#"printf '{"tenant":"%s","id":"%s"}' "$MESHWORK_HEADER_TENANT" "$MESHWORK_HEADER_REQUEST_ID""#;
    let responder = master.respond("who", command, &[]);
    let output = master.run(&["call", "who", "--header", "tenant=acme", "--header", "request-id=a=7; $(id)"]);
    assert_eq!(stdout(&output), "{\"tenant\":\"acme\",\"id\":\"a=7; $(id)\"}\n", "{}", stderr(&output));
    // A request without them finds none, whatever the environment of the responder has.
    assert_eq!(stdout(&master.run(&["call", "who"])), "{\"tenant\":\"\",\"id\":\"\"}\n");
    drop(responder);
    let (subscriber, printed) = master.subscribe(&["t", "--headers", "--count", "3"]);
    let (_plain, plain) = master.subscribe(&["t"]);
    let publish = |command: &str, more: &[&str]| {
        let mut arguments = vec![command, "t", "1", "--name", "me"];
        arguments.extend(more);
        let output = master.run(&arguments);
        assert!(output.status.success(), "{}", stderr(&output));
    };
    publish("publish", &["--header", "Tenant=acme", "--header", "a="]);
    publish("publish", &["--last", "--header", "tenant=other"]);
    publish("publish", &[]);
    let next = || printed.recv_timeout(SOON).unwrap();
    assert_eq!(next(), r#"{"topic":"t","publisher":"me","value":1,"headers":{"a":"","tenant":"acme"}}"#);
    assert_eq!(next(), r#"{"topic":"t","publisher":"me","value":1,"headers":{"tenant":"other"}}"#);
    assert_eq!(next(), r#"{"topic":"t","publisher":"me","value":1}"#);
    for _ in 0..3 {
        assert_eq!(plain.recv_timeout(SOON).unwrap(), r#"{"topic":"t","publisher":"me","value":1}"#);
    }
    assert_eq!(subscriber.end(), Some(0));
    for header in ["tenant", "a b=1", "mesh-key=1"] {
        for command in ["call", "publish", "broadcast"] {
            let output = run(&mut meshwork(&[command, "t", "--header", header]));
            assert_eq!(output.status.code(), Some(2), "{header}: {}", one_line(&output));
        }
    }
}

//! light_rpc on live sockets: clients at a gateway, and an old server behind a bridge.

use crate::dialects::Foreign;
use crate::{Mesh, node, soon, until_asked};
use meshwork::prelude::*;
use meshwork::{Address, Allowed, Bridge, BridgeError, Pattern};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

async fn read_packet(reader: &mut BufReader<OwnedReadHalf>) -> Option<Value> {
    let mut length = String::new();
    if reader.read_line(&mut length).await.ok()? == 0 {
        return None;
    }
    let mut json = vec![0; length.trim().parse().expect("a length")];
    reader.read_exact(&mut json).await.ok()?;
    Some(serde_json::from_slice(&json).expect("JSON"))
}

async fn write_packet(writer: &mut OwnedWriteHalf, value: &Value) {
    let json = value.to_string();
    // The far end may have closed.
    let _ = writer.write_all(format!("{}\n{json}", json.len()).as_bytes()).await;
}

/// A client like the original: it asks for the functions, then calls by name.
pub(crate) struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    calls: usize,
}

impl Client {
    async fn connect(address: &Address) -> Self {
        let (reader, writer) = TcpStream::connect(address.as_str()).await.expect("it listens").into_split();
        Self { reader: BufReader::new(reader), writer, calls: 0 }
    }

    async fn functions(&mut self) -> Vec<String> {
        write_packet(&mut self.writer, &json!({ "command": "__D" })).await;
        let described = soon(read_packet(&mut self.reader)).await.expect("an answer");
        assert_eq!(described["command"], "__D");
        described["data"].as_object().expect("an object").keys().cloned().collect()
    }

    async fn send(&mut self, function: &str, arguments: Value) -> String {
        let id = format!("call-{}", self.calls);
        self.calls += 1;
        let call = json!({ "command": function, "data": { "id": id, "args": arguments } });
        write_packet(&mut self.writer, &call).await;
        id
    }

    /// The results, or the error.
    async fn call(&mut self, function: &str, arguments: Value) -> Result<Value, Value> {
        let id = self.send(function, arguments).await;
        loop {
            let mut packet = soon(read_packet(&mut self.reader)).await.expect("an answer");
            if packet["command"] == "error" {
                continue;
            }
            assert_eq!(packet["data"]["id"], id);
            return match packet["command"].as_str() {
                Some("__R") => Ok(packet["data"]["args"].take()),
                _ => Err(packet["data"]["err"].take()),
            };
        }
    }
}

impl Foreign for Client {
    const GARBAGE: &[&[u8]] =
        &[b"garbage", b"99999999\n", b"5\nabcde", b"\xff\xfe\x00", b"17\n{\"command\":\"__D\""];

    async fn gateway(mesh: &Mesh) -> Address {
        gateway(mesh, Allowed::all()).await
    }

    async fn join(address: &Address, _: &str) -> Self {
        Self::connect(address).await
    }

    async fn ask(&mut self, action: &str, arguments: Value) -> String {
        self.send(action, arguments).await
    }

    async fn outcome(&mut self) -> Option<(String, Result<Value, Value>)> {
        loop {
            let mut packet = read_packet(&mut self.reader).await?;
            let outcome = match packet["command"].as_str() {
                Some("__R") => Ok(packet["data"]["args"][0].take()),
                Some("__E") => Err(packet["data"]["err"].take()),
                _ => continue,
            };
            return Some((packet["data"]["id"].as_str().expect("an id").to_owned(), outcome));
        }
    }
}

async fn gateway(mesh: &Mesh, allowed: Allowed) -> Address {
    mesh.master
        .addr()
        .send(Listen::light_rpc("127.0.0.1:0").allow(allowed))
        .await
        .expect("the test has it so")
        .expect("the test has it so")
}

fn calculator(name: &'static str) -> BranchActor {
    BranchActor::new(name)
        .respond("combine", |(a, b): (i64, i64)| async move { Ok(a + b) })
        .respond("multiply", |number: i64| async move { Ok(2 * number) })
        .respond("nothing", |(): ()| async move { Ok(()) })
        .respond_all(
            Responders::new().respond_self_describing("echo", |value: Vec<Value>| async move { Ok(value) }),
        )
        .respond("boom", |(): ()| async move {
            Err::<(), _>(ActionError::new("Boom", "it went off").with_code(1200))
        })
}

#[actix::test]
async fn a_client_calls_the_actions_of_the_mesh() {
    let mesh = Mesh::of(MasterActor::new("master").respond("own", |(): ()| async { Ok("master") })).await;
    let address = gateway(&mesh, Allowed::all()).await;
    let mut client = Client::connect(&address).await;
    assert_eq!(client.functions().await, ["own"]);
    let calculator = mesh.bind(calculator("calculator")).await;
    // A new action is callable at once, and described soon.
    assert_eq!(client.call("combine", json!([1, 2])).await, Ok(json!([3])));
    soon(async { while client.functions().await.len() < 6 {} }).await;
    assert_eq!(client.functions().await, ["boom", "combine", "echo", "multiply", "nothing", "own"]);
    assert_eq!(client.call("multiply", json!([21])).await, Ok(json!([42])));
    assert_eq!(client.call("own", json!([])).await, Ok(json!(["master"])));
    assert_eq!(client.call("nothing", json!([])).await, Ok(json!([null])));
    let values = json!(["é☃😀", 9_007_199_254_740_993_i64, -1.5e-7, null, [[[]]], { "k": { "l": [true] } }]);
    assert_eq!(client.call("echo", values.clone()).await, Ok(json!([values])));
    let boom = client.call("boom", json!([])).await;
    assert_eq!(boom, Err(json!({ "name": "Boom", "message": "it went off", "code": 1200 })));
    assert_eq!(client.call("none", json!([])).await, Err(json!({ "code": "UNKNOWN_COMMAND" })));
    let wrong = client.call("combine", json!(["a", "b"])).await.unwrap_err();
    assert_eq!(wrong["name"], "CANNOT_DECODE");
    soon(calculator.drain(Duration::from_secs(1))).await.unwrap();
    soon(async { while client.functions().await.len() > 1 {} }).await;
}

#[actix::test]
async fn a_client_needs_no_token_and_may_call_what_is_allowed() {
    let mesh = Mesh::of(MasterActor::new("master").token("secret")).await;
    let _calculator = mesh.bind(calculator("calculator").token("secret")).await;
    let allowed = Allowed::only([Pattern::new("combine").unwrap()]);
    let address = gateway(&mesh, allowed).await;
    let mut client = Client::connect(&address).await;
    assert_eq!(client.functions().await, ["combine"]);
    assert_eq!(client.call("combine", json!([1, 1])).await, Ok(json!([2])));
    assert_eq!(client.call("multiply", json!([1])).await, Err(json!({ "code": "UNKNOWN_COMMAND" })));
    let refused = BranchActor::new("other").bind(&mesh.address).await.expect_err("it needs a token");
    assert!(refused.to_string().contains("token"), "{refused}");
}

/// An old server: it answers `pair` with two results, `boom` with an error as Node.js writes it, and `silent` never.
async fn old_server(listener: TcpListener) {
    // The connections end with the server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("it listens");
        connections.spawn(async move {
            let (reader, mut writer) = stream.into_split();
            let mut reader = BufReader::new(reader);
            while let Some(packet) = read_packet(&mut reader).await {
                let (id, arguments) = (&packet["data"]["id"], &packet["data"]["args"]);
                let answer = match packet["command"].as_str() {
                    Some("__D") => {
                        json!({ "command": "__D", "data": { "add": {}, "pair": {}, "boom": {}, "silent": {}, "none": {} } })
                    }
                    Some("add") => {
                        let sum = arguments[0].as_i64().expect("the test has it so") + arguments[1].as_i64().expect("the test has it so");
                        json!({ "command": "__R", "data": { "id": id, "args": [sum] } })
                    }
                    Some("pair") => {
                        json!({ "command": "__R", "data": { "id": id, "args": ["é", arguments] } })
                    }
                    Some("none") => json!({ "command": "__R", "data": { "id": id, "args": [] } }),
                    Some("boom") => json!({ "command": "__E", "data": { "id": id, "err": {} } }),
                    _ => continue,
                };
                write_packet(&mut writer, &answer).await;
            }
        });
    }
}

#[actix::test]
async fn the_functions_of_an_old_server_are_actions_while_it_is_there() {
    let mesh = Mesh::of(MasterActor::new("master").token("secret")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let running = actix_rt::spawn(old_server(listener));
    let bridge = Bridge::light_rpc(server).prefix("legacy").name("bridge").token("secret");
    let bridging = actix_rt::spawn(bridge.run(&mesh.address));
    let there = |expected: usize| {
        let master = mesh.master.clone();
        async move {
            soon(async {
                while master.describe("legacy/*").await.unwrap().len() != expected {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    };
    there(5).await;
    let caller = mesh.bind(BranchActor::new("caller").token("secret")).await;
    assert_eq!(soon(caller.call("legacy/add", (2_i64, 3_i64))).await, Ok(5_i64));
    assert_eq!(soon(mesh.master.call("legacy/add", [40_i64, 2])).await, Ok(42_i64));
    let pair: (String, (u8, Option<u8>)) =
        soon(caller.call("legacy/pair", (1_u8, None::<u8>))).await.unwrap();
    assert_eq!(pair, ("é".to_owned(), (1, None)));
    assert_eq!(soon(caller.call("legacy/none", ())).await, Ok(()));
    let boom = soon(caller.call::<()>("legacy/boom", ())).await.unwrap_err();
    assert_eq!((boom.fate(), boom.name()), (Fate::Failed, "Error"));
    let silent = soon(caller.call::<()>("legacy/silent", ()).within(Duration::from_millis(50))).await;
    assert_eq!(silent.unwrap_err().code(), Code::REQUEST_TIMEOUT);
    let sums = soon(caller.call_many::<i64>("legacy/add", (0..1_000_i64).map(|n| (n, 1_i64)))).await;
    for (sum, number) in sums.into_iter().zip(0..) {
        assert_eq!(sum, Ok(number + 1));
    }
    // The server goes in the middle of a call, and comes back.
    let waiting = actix_rt::spawn(caller.call::<()>("legacy/silent", ()));
    until_asked(&mesh.master).await;
    running.abort();
    let lost = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!((lost.code(), lost.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
    there(0).await;
    let running = actix_rt::spawn(old_server(TcpListener::bind(server).await.unwrap()));
    there(5).await;
    assert_eq!(soon(caller.call("legacy/add", (2_i64, 3_i64))).await, Ok(5_i64));
    running.abort();
    bridging.abort();
    there(0).await;
}

#[actix::test]
async fn a_bridge_ends_when_it_is_refused_for_good_and_says_why() {
    let mesh = Mesh::of(MasterActor::new("master").token("secret")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let _running = actix_rt::spawn(old_server(listener));
    let refused = soon(Bridge::light_rpc(server).run(&mesh.address)).await;
    let says = format!("{} says: ", mesh.address);
    let BridgeError::Refused(why) = &refused else { panic!("{refused}") };
    assert!(why.message().starts_with(&says) && why.message().contains("token"), "{refused}");
    let wrong = soon(Bridge::light_rpc("nowhere").run(&mesh.address)).await;
    assert!(matches!(wrong, BridgeError::Address(_)), "{wrong}");
}

/// Such a bridge dialled for ever, and said nothing.
#[actix::test]
async fn a_bridge_to_a_port_of_another_protocol_ends_and_names_it() {
    let mesh = Mesh::start().await;
    let light = gateway(&mesh, Allowed::all()).await;
    let dnode = mesh.master.addr().send(Listen::dnode("127.0.0.1:0")).await.unwrap().unwrap();
    let native = &mesh.address;
    for (bridge, master, at, looks_like) in [
        (Bridge::light_rpc(native), native, native, "the native protocol of meshwork"),
        (Bridge::dnode(native), native, native, "the native protocol of meshwork"),
        (Bridge::light_rpc(&dnode), native, &dnode, "dnode"),
        (Bridge::dnode(&light), native, &light, "light_rpc"),
        // The master is none.
        (Bridge::light_rpc(&light), &dnode, &dnode, "dnode"),
    ] {
        let ended = soon(bridge.run(master)).await;
        let BridgeError::OtherProtocol { address, reason, .. } = &ended else { panic!("{ended}") };
        assert_eq!(address, at, "{ended}");
        assert!(reason.to_lowercase().ends_with(&format!("it looks like {looks_like}")), "{ended}");
    }
    let ended = soon(Bridge::dnode(&dnode).run(&light)).await;
    assert!(
        matches!(&ended, BridgeError::Refused(why) if why.message().contains("programs of light_rpc")),
        "{ended}"
    );
}

/// A branch is told the same of a port that is no master's.
#[actix::test]
async fn a_branch_at_a_port_of_another_protocol_is_told_which_one() {
    let mesh = Mesh::start().await;
    let light = gateway(&mesh, Allowed::all()).await;
    let dnode = mesh.master.addr().send(Listen::dnode("127.0.0.1:0")).await.unwrap().unwrap();
    let node_mesh = mesh.master.addr().send(Listen::node_mesh("127.0.0.1:0")).await.unwrap().unwrap();
    for (address, named) in [
        (light, "this port is for programs of light_rpc"),
        (node_mesh, "this port is for programs of node-mesh"),
        // A gateway of dnode speaks first.
        (dnode, "It looks like dnode"),
    ] {
        let refused = soon(BranchActor::new("branch").bind(&address)).await.expect_err("it is no master");
        assert!(refused.to_string().contains(named), "{refused}");
    }
    let of_node_mesh = BranchActor::new("branch").dialect(Dialect::NodeMesh).bind(&mesh.address);
    let refused = soon(of_node_mesh).await.expect_err("it is no master of node-mesh");
    assert!(refused.to_string().contains("it looks like the native protocol of meshwork"), "{refused}");
}

#[actix::test]
async fn two_meshes_are_joined_by_a_gateway_and_a_bridge() {
    let (old, new) = (Mesh::start().await, Mesh::start().await);
    let _calculator = old.bind(calculator("calculator")).await;
    let gateway = gateway(&old, Allowed::all()).await;
    let bridging = actix_rt::spawn(Bridge::light_rpc(gateway).prefix("old").run(&new.address));
    soon(async {
        while new.master.describe("old/combine").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(soon(new.master.call("old/combine", (20_i64, 22_i64))).await, Ok(42_i64));
    let boom = soon(new.master.call::<()>("old/boom", ())).await.unwrap_err();
    assert_eq!((boom.name(), boom.message()), ("Boom", "it went off"));
    assert_eq!(boom.application_code(), Some(&1200.into()));
    bridging.abort();
}

#[actix::test]
async fn what_is_longer_than_the_master_reads_ends_that_call_and_no_other() {
    let mesh = Mesh::of(MasterActor::new("master").frame_len_max(100_000)).await;
    let _calculator = mesh.bind(calculator("calculator")).await;
    let mut client = Client::connect(&gateway(&mesh, Allowed::all()).await).await;
    let long = client.call("echo", json!(["x".repeat(200_000)])).await.unwrap_err();
    assert_eq!(long["name"], "FRAME_TOO_LARGE");
    assert_eq!(client.call("combine", json!([1, 2])).await, Ok(json!([3])));
}

#[actix::test]
async fn a_quiet_client_is_kept_however_often_the_master_wants_a_sign_of_life() {
    let mesh = Mesh::of(MasterActor::new("master").heartbeat(Duration::from_millis(150))).await;
    let mut client = Client::connect(&gateway(&mesh, Allowed::all()).await).await;
    assert!(client.functions().await.is_empty());
    // Five heartbeats: a link that is silent for three is given up.
    let said = tokio::time::timeout(Duration::from_millis(800), read_packet(&mut client.reader)).await;
    assert!(said.is_err(), "it is neither told anything nor closed: {said:?}");
    assert_eq!(mesh.master.snapshot().await.expect("it runs").sessions.len(), 1);
}

#[actix::test]
async fn the_original_of_npm_is_served() {
    let mesh = Mesh::start().await;
    let integers = |(a, b): (i64, i64)| async move { Ok(a == 1 << 60 && b == i64::MIN) };
    let _calculator = mesh.bind(calculator("calculator").respond("integers", integers)).await;
    let address = gateway(&mesh, Allowed::all()).await;
    let port = address.as_str().rsplit(':').next().expect("a port").to_owned();
    let mut client = node("light_rpc.js", &["client", &port]);
    let mut lines = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let mut said = std::collections::HashMap::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            let (what, value): (String, Value) = serde_json::from_str(&line).expect("JSON");
            said.insert(what, value);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("it ends");
    assert_eq!(said["functions"], json!(["boom", "combine", "echo", "integers", "multiply", "nothing"]));
    assert_eq!((&said["long"], &said["integers"]), (&json!("FRAME_TOO_LARGE"), &json!([true])));
    assert_eq!(said["data"], json!([[{ "$callback": 0 }]]));
    assert_eq!(said["boom"], json!([{ "name": "Boom", "message": "it went off", "code": 1200 }]));
    assert_eq!((&said["echo"], &said["right"]), (&json!(true), &json!(10_000)));
    assert_eq!(said["half"], json!([["a\u{FFFD}"]]), "no text of ours has half a character");
}

#[actix::test]
async fn the_functions_of_the_original_of_npm_are_actions_while_it_is_there() {
    let mesh = Mesh::start().await;
    let mut server = node("light_rpc.js", &["server"]);
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("it is piped")).read_line(&mut line).await.expect("a port");
    let bridge = Bridge::light_rpc(format!("127.0.0.1:{}", line.trim())).prefix("old");
    let bridging = actix_rt::spawn(bridge.run(&mesh.address));
    let caller = mesh.branch("caller").await;
    soon(async { while caller.describe("old/*").await.unwrap().len() != 5 {} }).await;
    assert_eq!(soon(caller.call("old/add", (2_i64, 3_i64))).await, Ok(5_i64));
    let values = json!({ "é": ["☃😀", null, [[]], 9_007_199_254_740_991_i64, -0.001] });
    assert_eq!(soon(caller.call("old/echo", (values.clone(),))).await, Ok(values));
    assert_eq!(soon(caller.call("old/pair", (7,))).await, Ok((7, "second".to_owned())));
    assert_eq!(soon(caller.call::<()>("old/boom", ())).await.unwrap_err().fate(), Fate::Failed);
    let sums = soon(caller.call_many::<i64>("old/add", (0..10_000_i64).map(|number| (number, 1_i64)))).await;
    assert!(sums.into_iter().zip(1..).all(|(sum, number)| sum == Ok(number)));
    let waiting = actix_rt::spawn(caller.call::<()>("old/silent", ()));
    until_asked(&mesh.master).await;
    server.kill().await.expect("it runs");
    assert_eq!(soon(waiting).await.unwrap().unwrap_err().code(), Code::PROVIDER_LOST);
    soon(async { while !caller.describe("old/*").await.unwrap().is_empty() {} }).await;
    bridging.abort();
}

//! node-mesh on live sockets: branches that send the bytes of the original branches.

use crate::dialects::Foreign;
use crate::{Mesh, ear, node, soon, until_asked};
use meshwork::prelude::*;
use meshwork::{Address, BindError, Bridge, BridgeError, ByteBuf, Encoding, Payload};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout};

/// A branch of node-mesh.
pub(crate) struct NodeBranch {
    stream: TcpStream,
    heard: VecDeque<Value>,
    drawn: usize,
}

impl NodeBranch {
    async fn connect(address: &Address) -> Self {
        let stream = TcpStream::connect(address.as_str()).await.expect("it listens");
        Self { stream, heard: VecDeque::new(), drawn: 0 }
    }

    /// A branch that is bound.
    async fn bound(address: &Address, name: &str, auth: Value, actions: &[&str], topics: &[&str]) -> Self {
        let mut branch = Self::connect(address).await;
        let id =
            branch.say("request", "system", "action:bindAuth", json!([name, auth, actions, topics])).await;
        let answer = branch.hear().await;
        assert_eq!((&answer["id"], &answer["data"]["error"]), (&json!(id), &Value::Null));
        branch.say("notification", "system", "action:register", json!([actions, topics])).await;
        branch
    }

    async fn say(&mut self, kind: &str, source: &str, action: &str, params: Value) -> String {
        self.drawn += 1;
        let id = format!("{:016}", self.drawn);
        self.message(&id, kind, source, (action, params), (Value::Null, Value::Null)).await;
        id
    }

    async fn message(
        &mut self,
        id: &str,
        kind: &str,
        source: &str,
        (action, params): (&str, Value),
        (body, error): (Value, Value),
    ) {
        let message = json!([{
            "id": id, "type": kind, "source": source, "fromId": "IPv4://node", "fromName": "node",
            "targetId": "IPv4://master", "content": { "action": action, "params": params },
            "time": 1_795_217_600_337.0, "data": { "body": body, "error": error },
        }]);
        let content = Payload::encode(Encoding::MessagePack, &message).expect("MessagePack").bytes;
        let mut bytes = vec![0xC6];
        bytes.extend(u32::try_from(content.len()).expect("it is short").to_be_bytes());
        bytes.extend(&content[..]);
        // The master may have closed.
        let _ = self.stream.write_all(&bytes).await;
    }

    /// The next message; none when the master has closed.
    async fn next(&mut self) -> Option<Value> {
        while self.heard.is_empty() {
            let len = match self.stream.read_u8().await.ok()? {
                0xC4 => usize::from(self.stream.read_u8().await.ok()?),
                0xC5 => usize::from(self.stream.read_u16().await.ok()?),
                _ => self.stream.read_u32().await.ok()? as usize,
            };
            let mut content = vec![0; len];
            self.stream.read_exact(&mut content).await.ok()?;
            let content = Payload::new(Encoding::MessagePack, content);
            self.heard.extend(content.decode::<Vec<Value>>().expect("messages"));
        }
        self.heard.pop_front()
    }

    async fn hear(&mut self) -> Value {
        soon(self.next()).await.expect("the master says something")
    }

    /// The body of the answer, or its error.
    async fn call(&mut self, action: &str, params: Value) -> Result<Value, Value> {
        let id = self.say("request", "custom", action, params).await;
        let mut answer = self.hear().await;
        assert_eq!((&answer["id"], &answer["type"]), (&json!(id), &json!("callback")));
        let data = answer["data"].take();
        if data["error"].is_null() { Ok(data["body"].clone()) } else { Err(data["error"].clone()) }
    }

    /// Answers requests with the sum of their arguments, or with an error, until the master closes.
    async fn answer(mut self) {
        while let Some(request) = self.next().await {
            if request["type"] != "request" {
                continue;
            }
            let params = request["content"]["params"].as_array().expect("a list").clone();
            let (body, error) = match request["content"]["action"].as_str() {
                Some("node/add") => {
                    (json!(params.iter().filter_map(Value::as_i64).sum::<i64>()), Value::Null)
                }
                Some("node/echo") => (params[0].clone(), Value::Null),
                Some("node/silent") => continue,
                _ => (Value::Null, json!({ "name": "AppError", "message": "bad", "code": "E42" })),
            };
            let id = request["id"].as_str().expect("an id").to_owned();
            self.message(&id, "callback", "custom", ("node/add", json!([])), (body, error)).await;
        }
    }
}

impl NodeBranch {
    /// A branch that offers an action.
    pub(crate) async fn offering(address: &Address, name: &str, action: &str) -> Self {
        Self::bound(address, name, Value::Null, &[action], &[]).await
    }

    /// Answers each request with an error, until the master closes.
    pub(crate) async fn throw(mut self, error: Value) {
        while let Some(request) = self.next().await {
            if let (Some("request"), Some(id)) = (request["type"].as_str(), request["id"].as_str()) {
                self.message(id, "callback", "custom", ("", json!([])), (Value::Null, error.clone())).await;
            }
        }
    }
}

impl Foreign for NodeBranch {
    const GARBAGE: &[&[u8]] =
        &[b"garbage", b"\xc4\x01\xc1", b"\xc6\xff\xff\xff\xff", b"\xc4\x01", b"\xc4\x05\xdd\xff\xff\xff\xff"];

    async fn gateway(mesh: &Mesh) -> Address {
        gateway(mesh).await
    }

    async fn join(address: &Address, name: &str) -> Self {
        Self::bound(address, name, Value::Null, &[], &[]).await
    }

    async fn ask(&mut self, action: &str, arguments: Value) -> String {
        self.say("request", "custom", action, arguments).await
    }

    async fn outcome(&mut self) -> Option<(String, Result<Value, Value>)> {
        loop {
            let mut message = self.next().await?;
            if message["type"] == "callback" {
                let (id, mut data) =
                    (message["id"].as_str().expect("an id").to_owned(), message["data"].take());
                let outcome =
                    if data["error"].is_null() { Ok(data["body"].take()) } else { Err(data["error"].take()) };
                return Some((id, outcome));
            }
        }
    }
}

async fn gateway(mesh: &Mesh) -> Address {
    mesh.master.addr().send(Listen::node_mesh("127.0.0.1:0")).await.expect("it runs").expect("it listens")
}

/// One trait whose responder is a branch of Node.js.
#[meshwork::actions(prefix = "node")]
trait Node {
    async fn add(&self, one: i64, other: i64) -> Result<i64, ActionError>;
    async fn echo(&self, value: Value) -> Result<Value, ActionError>;
    async fn boom(&self) -> Result<(), ActionError>;
    async fn silent(&self) -> Result<(), ActionError>;
}

const ACTIONS: [&str; 4] = ["node/add", "node/echo", "node/boom", "node/silent"];

#[actix::test]
async fn requests_go_both_ways() {
    let mesh = Mesh::of(MasterActor::new("master").token("secret")).await;
    let address = gateway(&mesh).await;
    let answering = NodeBranch::bound(&address, "answering", json!("secret"), &ACTIONS, &[]).await;
    actix_rt::spawn(answering.answer());
    let caller = BranchActor::new("caller")
        .token("secret")
        .respond("rust/sub", |(one, other): (f64, f64)| async move { Ok(one - other) })
        .respond("rust/boom", |(): ()| async {
            Err::<(), _>(ActionError::new("Boom", "it went off").with_code(1200))
        });
    let caller = mesh.bind(caller).await;
    let node = NodeRequester::new(&caller);
    assert_eq!(soon(node.add(20, 22)).await, Ok(42));
    let values = json!({ "é☃😀": [null, true, -1.5e-7, 9_007_199_254_740_993_i64, [[[]]], { "k": "" }] });
    assert_eq!(soon(node.echo(values.clone())).await, Ok(values));
    let boom = soon(node.boom()).await.unwrap_err();
    assert_eq!((boom.name(), boom.message(), boom.fate()), ("AppError", "bad", Fate::Failed));
    for (sum, number) in soon(caller.call_many::<i64>("node/add", (0..10_000_i64).map(|n| (n, 1_i64))))
        .await
        .into_iter()
        .zip(1..)
    {
        assert_eq!(sum, Ok(number));
    }

    let mut other = NodeBranch::bound(&address, "other", json!("secret"), &[], &[]).await;
    assert_eq!(other.call("rust/sub", json!([1, 0.5])).await, Ok(json!(0.5)));
    assert_eq!(other.call("node/add", json!([1, 2, 3])).await, Ok(json!(6)), "from one of them to another");
    let thrown = json!({ "name": "AppError", "message": "bad", "code": "E42" });
    assert_eq!(other.call("node/boom", json!([])).await, Err(thrown));
    let boom = other.call("rust/boom", json!([])).await.unwrap_err();
    assert_eq!(
        (&boom["name"], &boom["message"], &boom["code"]),
        (&json!("Boom"), &json!("it went off"), &json!(1200))
    );
    assert_eq!(other.call("none", json!([1])).await.unwrap_err()["code"], "ACTION_NOT_EXIST");
}

#[actix::test]
async fn events_and_broadcasts_go_both_ways() {
    let mesh = Mesh::start().await;
    let address = gateway(&mesh).await;
    let rust = mesh.branch("rust").await;
    let (handler, mut heard) = ear::<(String, u8)>();
    let _several = rust.subscribe("from/node", handler).await.unwrap();
    let (handler, mut heard_one) = ear::<String>();
    let _one = rust.subscribe("one/*", handler).await.unwrap();
    let (handler, mut heard_broadcast) = ear::<HashMap<String, u8>>();
    let _broadcasts = rust.on_broadcast("news", handler).await.unwrap();
    let mut node = NodeBranch::bound(&address, "node", Value::Null, &[], &["from/rust"]).await;
    let mut other = NodeBranch::bound(&address, "other", Value::Null, &[], &["from/node"]).await;
    node.say("publish", "custom", "from/node", json!(["é", 7])).await;
    node.say("publish", "custom", "one/x", json!(["alone"])).await;
    node.say("notification", "custom", "news", json!([{ "x": 1 }])).await;
    assert_eq!(soon(heard.recv()).await, Some(("from/node".to_owned(), ("é".to_owned(), 7))));
    assert_eq!(soon(heard_one.recv()).await, Some(("one/x".to_owned(), "alone".to_owned())));
    assert_eq!(
        soon(heard_broadcast.recv()).await,
        Some(("news".to_owned(), HashMap::from([("x".to_owned(), 1)])))
    );
    // Events and broadcasts go different ways, so either may be first.
    let mut said = [other.hear().await, other.hear().await];
    said.sort_unstable_by_key(|message| message["type"].to_string());
    let expected = [("notification", "news", json!([{ "x": 1 }])), ("publish", "from/node", json!(["é", 7]))];
    for (message, (kind, action, params)) in said.iter().zip(expected) {
        assert_eq!((&message["type"], &message["source"]), (&json!(kind), &json!("custom")));
        assert_eq!(message["content"], json!({ "action": action, "params": params }));
    }
    // Topics of node-mesh that are no meshwork topics, each under its escaped name.
    let (handler, mut heard) = ear::<u8>();
    let _escaped = rust.subscribe("%2Fuser/%2A", handler).await.unwrap();
    node.say("publish", "custom", "/user/*", json!([7])).await;
    assert_eq!(soon(heard.recv()).await, Some(("%2Fuser/%2A".to_owned(), 7)));
    let mut slash = NodeBranch::bound(&address, "slash", Value::Null, &[], &["/user/*"]).await;
    node.say("publish", "custom", "/user/login", json!([8])).await;
    node.say("publish", "custom", "/user/*", json!([9])).await;
    assert_eq!(
        slash.hear().await["content"],
        json!({ "action": "/user/*", "params": [9] }),
        "a text is a text"
    );
    rust.publish("from/rust", &("two", [1, 2])).await.unwrap();
    rust.publish("from/rust", &json!({ "one": null })).await.unwrap();
    for params in [json!(["two", [1, 2]]), json!([{ "one": null }])] {
        assert_eq!(node.hear().await["content"], json!({ "action": "from/rust", "params": params }));
    }
    rust.broadcast("news", &1.5).await.unwrap();
    assert_eq!(node.hear().await["content"], json!({ "action": "news", "params": [1.5] }));
}

#[actix::test]
async fn a_bind_is_checked_and_a_name_that_is_bound_twice_belongs_to_the_newer_one() {
    let mesh = Mesh::of(MasterActor::new("master").token("secret")).await;
    let address = gateway(&mesh).await;
    let mut wrong = NodeBranch::connect(&address).await;
    wrong.say("request", "system", "action:bindAuth", json!(["wrong", "guess", [], []])).await;
    assert_eq!(wrong.hear().await["data"]["error"]["code"], "BIND_ERROR");
    assert_eq!(soon(wrong.next()).await, None);
    let mut early = NodeBranch::connect(&address).await;
    early.say("request", "custom", "anything", json!([])).await;
    assert_eq!(soon(early.next()).await, None);

    let mut old = NodeBranch::bound(&address, "same", json!("secret"), &["same/a"], &[]).await;
    let mut new = NodeBranch::bound(&address, "same", json!("secret"), &["same/b"], &[]).await;
    let told = old.hear().await;
    assert_eq!(
        (&told["content"]["action"], &told["data"]["error"]["message"]),
        (&json!("action:disconnect"), &json!("ERR_NAME_EXIST"))
    );
    assert_eq!(soon(old.next()).await, None);
    assert_eq!(new.call("same/a", json!([])).await.unwrap_err()["code"], "ACTION_NOT_EXIST");
}

#[actix::test]
async fn a_branch_that_goes_ends_what_it_was_asked() {
    let mesh = Mesh::start().await;
    let address = gateway(&mesh).await;
    let answering = NodeBranch::bound(&address, "answering", Value::Null, &ACTIONS, &[]).await;
    let answering = actix_rt::spawn(answering.answer());
    let caller = mesh.branch("caller").await;
    assert_eq!(soon(NodeRequester::new(&caller).add(1, 2)).await, Ok(3));
    let waiting = actix_rt::spawn(caller.call::<()>("node/silent", ()));
    until_asked(&mesh.master).await;
    answering.abort();
    let lost = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!((lost.code(), lost.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
    let gone = soon(caller.call::<i64>("node/add", (1, 2))).await.unwrap_err();
    assert_eq!(gone.code(), Code::ACTION_NOT_FOUND);
}

/// Binds a meshwork branch to a node-mesh master.
async fn join(branch: BranchActor, address: &Address) -> Result<Branch, BindError> {
    soon(branch.dialect(Dialect::NodeMesh).bind(address)).await
}

#[actix::test]
async fn a_branch_of_ours_joins_a_mesh_of_theirs() {
    let theirs = Mesh::of(
        MasterActor::new("theirs")
            .token("k")
            .respond("add2", |(a, b): (i64, i64)| async move { Ok(a + b + 1) }),
    )
    .await;
    let address = gateway(&theirs).await;
    let node = NodeBranch::bound(&address, "node", json!("k"), &ACTIONS, &["from/ours"]).await;
    let node = actix_rt::spawn(node.answer());
    let calculator =
        BranchActor::new("ours").token("k").respond("sub", |(a, b): (i64, i64)| async move { Ok(a - b) });
    let ours = join(calculator, &address).await.expect("it binds");
    assert_eq!(soon(ours.call("add2", (22_i64, 22_i64))).await, Ok(45_i64));
    assert_eq!(soon(NodeRequester::new(&ours).add(2, 3)).await, Ok(5));
    assert_eq!(soon(ours.call("sub", (5_i64, 3_i64))).await, Ok(2_i64), "its own come first");
    assert_eq!(soon(theirs.master.call("sub", (5_i64, 3_i64))).await, Ok(2_i64));
    let boom = soon(ours.call::<()>("node/boom", ())).await.unwrap_err();
    assert_eq!((boom.name(), boom.message(), boom.fate()), ("AppError", "bad", Fate::Failed));
    let none = soon(ours.call::<()>("none", ())).await.unwrap_err();
    // The missing action may be one that the called action called in turn.
    assert_eq!((none.code(), none.fate()), (Code::ACTION_NOT_FOUND, Fate::Failed));
    let late = soon(ours.call::<()>("node/silent", ()).within(Duration::from_millis(30))).await.unwrap_err();
    assert_eq!(late.code(), Code::REQUEST_TIMEOUT);
    let function = Callback::new(|_: u8| ());
    let passed = soon(ours.call::<()>("add2", function)).await.unwrap_err();
    assert_eq!((passed.code(), passed.fate()), (Code::CANNOT_ENCODE, Fate::NotSent));
    let sums = soon(ours.call_many::<i64>("add2", (0..10_000_i64).map(|n| (n, 1_i64)))).await;
    for (sum, number) in sums.into_iter().zip(0..) {
        assert_eq!(sum, Ok(number + 2));
    }

    let (handler, mut heard) = ear::<(String, u8)>();
    let _subscription = ours.subscribe("to/ours", handler).await.expect("a topic");
    let (handler, mut news) = ear::<u8>();
    let _broadcasts = ours.on_broadcast("news", handler).await.expect("it runs");
    theirs.master.publish("to/ours", &("é", 7)).await.unwrap();
    theirs.master.broadcast("news", &8).await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(("to/ours".to_owned(), ("é".to_owned(), 7))));
    assert_eq!(soon(news.recv()).await, Some(("news".to_owned(), 8)));
    let (handler, mut heard) = ear::<String>();
    let _theirs = theirs.master.subscribe("from/*", handler).await.unwrap();
    ours.publish("from/ours", "hello").await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(("from/ours".to_owned(), "hello".to_owned())));
    let pattern = ours.subscribe("to/*", |_: Event<u8>| ()).await.unwrap_err();
    assert!(pattern.message().contains("patterns"), "{pattern}");
    assert!(ours.describe("**").await.is_err());
    let drained = ours.drain(Duration::from_secs(1)).await.expect("it runs");
    assert_eq!(drained.abandoned, 0);
    soon(async { while theirs.master.call::<i64>("sub", (1, 1)).await.is_ok() {} }).await;
    node.abort();
}

#[actix::test]
async fn a_branch_of_ours_is_checked_by_a_master_of_theirs_and_comes_back() {
    let theirs = Mesh::of(MasterActor::new("theirs").token("k")).await;
    let address = gateway(&theirs).await;
    let wrong = join(BranchActor::new("wrong").token("guess"), &address).await.unwrap_err();
    assert!(matches!(&wrong, BindError::Refused { may_return: false, .. }), "{wrong}");
    let pattern = BranchActor::new("pattern").token("k");
    let bound = join(pattern, &address).await.expect("it binds");
    // The branch is replaced, is told so, and does not come back.
    let newer =
        join(BranchActor::new("pattern").token("k").respond("newer", |(): ()| async { Ok(()) }), &address)
            .await
            .expect("it binds");
    soon(async { while bound.call::<()>("newer", ()).await.is_ok() {} }).await;
    let ended = soon(bound.call::<()>("newer", ())).await.unwrap_err();
    assert_eq!(ended.fate(), Fate::NotSent, "{ended}");
    assert_eq!(soon(newer.call("newer", ())).await, Ok(()));
    // A master of another protocol.
    let native = join(BranchActor::new("native").token("k"), &theirs.address).await.unwrap_err();
    assert!(native.may_return(), "{native}");
}

#[actix::test]
async fn a_master_of_theirs_that_goes_and_comes_is_joined_again() {
    let listen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::from(listen.local_addr().unwrap());
    let first = actix_rt::spawn(old_master(listen));
    let ours = BranchActor::new("ours").backoff(Duration::from_millis(5), Duration::from_millis(20));
    let ours =
        join(ours.respond("sub", |(a, b): (i64, i64)| async move { Ok(a - b) }), &address).await.unwrap();
    assert_eq!(soon(ours.call("who", ())).await, Ok(json!(["ours", null, ["sub"], []])));
    let waiting = actix_rt::spawn(ours.call::<()>("silent", ()));
    assert_eq!(soon(ours.call("back", (7_i64, 3_i64))).await, Ok(4_i64), "it calls back before it answers");
    first.abort();
    let lost = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!((lost.code(), lost.fate()), (Code::LINK_LOST, Fate::Unknown));
    let second = actix_rt::spawn(old_master(TcpListener::bind(address.as_str()).await.unwrap()));
    assert_eq!(soon(ours.call("who", ())).await, Ok(json!(["ours", null, ["sub"], []])));
    second.abort();
}

/// A master like the original, of one branch at a time: `who` returns the parameters of the bind, `back` returns the result of the
/// branch's own `sub`, and `silent` never answers.
async fn old_master(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut branch = NodeBranch { stream, heard: VecDeque::new(), drawn: 0 };
        let Some(bind) = branch.next().await else { continue };
        assert_eq!(bind["content"]["action"], "action:bindAuth");
        let id = bind["id"].as_str().expect("an id").to_owned();
        branch
            .message(&id, "callback", "system", ("action:bindAuth", json!([])), (Value::Null, Value::Null))
            .await;
        while let Some(said) = branch.next().await {
            let id = said["id"].as_str().expect("an id").to_owned();
            let body = match said["content"]["action"].as_str() {
                Some("who") => bind["content"]["params"].clone(),
                Some("back") => {
                    let asked =
                        branch.say("request", "custom", "sub", said["content"]["params"].clone()).await;
                    loop {
                        let answer = branch.next().await.expect("an answer");
                        if answer["id"] == json!(asked) {
                            break answer["data"]["body"].clone();
                        }
                    }
                }
                _ => continue,
            };
            branch.message(&id, "callback", "custom", ("who", json!([])), (body, Value::Null)).await;
        }
    }
}

#[actix::test]
async fn an_old_mesh_is_bridged_under_a_prefix_without_saying_what_it_has() {
    let (old, new) = (Mesh::of(MasterActor::new("old").token("k")).await, Mesh::start().await);
    let address = gateway(&old).await;
    let node = NodeBranch::bound(&address, "node", json!("k"), &ACTIONS, &[]).await;
    let node = actix_rt::spawn(node.answer());
    let bridge = || Bridge::node_mesh(&address);
    assert!(matches!(soon(bridge().server_token("k").run(&new.address)).await, BridgeError::NoPrefix));
    let refused = soon(bridge().prefix("old").run(&new.address)).await;
    assert!(matches!(refused, BridgeError::Refused(_)), "{refused}");
    let bridging = actix_rt::spawn(bridge().prefix("old").server_token("k").run(&new.address));
    let caller = new.branch("caller").await;
    soon(async { while caller.describe("old/**").await.unwrap().is_empty() {} }).await;
    assert_eq!(soon(caller.call("old/node/add", (2_i64, 3_i64))).await, Ok(5_i64));
    assert_eq!(soon(new.master.call("old/node/add", (2_i64, 3_i64))).await, Ok(5_i64));
    let none = soon(caller.call::<()>("old/none", ())).await.unwrap_err();
    assert_eq!((none.code(), none.fate()), (Code::ACTION_NOT_FOUND, Fate::Failed));
    let boom = soon(caller.call::<()>("old/node/boom", ())).await.unwrap_err();
    assert_eq!((boom.name(), boom.message()), ("AppError", "bad"));
    // A branch of the new mesh offers one of the bridged actions by name, and gets its calls while it is bound.
    let named = BranchActor::new("named").respond("old/node/add", |_: Value| async { Ok(0) });
    let named = new.bind(named).await;
    soon(async { while caller.call("old/node/add", (2_i64, 3_i64)).await != Ok(0_i64) {} }).await;
    named.drain(Duration::from_secs(1)).await.expect("it runs");
    soon(async { while caller.call("old/node/add", (2_i64, 3_i64)).await != Ok(5_i64) {} }).await;
    bridging.abort();
    soon(async { while !caller.describe("old/**").await.unwrap().is_empty() {} }).await;
    let gone = soon(caller.call::<i64>("old/node/add", (2, 3))).await.unwrap_err();
    assert_eq!(gone.code(), Code::ACTION_NOT_FOUND);
    node.abort();
}

/// A script of Node.js, and the lines that it prints.
struct Script {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn run(arguments: &[&str]) -> Self {
        let mut child = node("node_mesh.js", arguments);
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { _child: child, lines }
    }

    async fn says(&mut self, what: &str) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line()).await;
        let line = line.expect("it says so soon").expect("text").expect("it has more to say");
        let (said, value): (String, Value) = serde_json::from_str(&line).expect("JSON");
        assert_eq!(said, what, "{line}");
        value
    }
}

fn rust() -> BranchActor {
    type Arguments = (i64, u8, String, ByteBuf, Vec<u64>);
    BranchActor::new("rust")
        .respond_all(
            Responders::new()
                .respond_self_describing("rust/echo", |(value,): (meshwork::Value,)| async { Ok(value) }),
        )
        .respond("rust/typed", |(large, small, text, bytes, list): Arguments| async move {
            Ok((large + i64::from(small), text, bytes, list[0] + 1))
        })
        .respond("rust/add", |(a, b): (i64, i64)| async move { Ok(a + b) })
        .respond("rust/boom", |(): ()| async {
            Err::<(), _>(ActionError::new("Boom", "it went off").with_code(1200))
        })
}

#[actix::test]
async fn values_of_the_original_codec_are_the_same_when_they_come_back() {
    let mesh = Mesh::of(MasterActor::new("master").token("k")).await;
    let rust = mesh.bind(rust().token("k")).await;
    let (handler, mut heard) = ear::<(String, u64, (f64, Option<u8>))>();
    let _subscription = rust.subscribe("to/rust", handler).await.unwrap();
    let address = gateway(&mesh).await;
    let port = address.as_str().rsplit(':').next().unwrap().to_owned();
    let mut node = Script::run(&["branch", &port, "k"]);
    assert_eq!(node.says("bound").await, Value::Null);
    assert_eq!(node.says("same").await, 36);
    assert_eq!(node.says("undefined").await, Value::Null);
    let typed = node.says("typed").await;
    assert_eq!(
        typed,
        json!([9_007_199_254_740_991_i64, "é", { "type": "Buffer", "data": [1, 2] }, 5_000_000_001_i64])
    );
    assert_eq!(node.says("boom").await, json!({ "code": 1200, "name": "Boom", "message": "it went off" }));
    assert_eq!(node.says("none").await, "ACTION_NOT_EXIST");
    // While the script calls, its own actions are called.
    let (sums, right) = tokio::join!(
        rust.call_many::<i64>("node/add", (0..10_000_i64).map(|number| (number, 5_000_000_000_i64))),
        node.says("right")
    );
    assert_eq!(right, 10_000);
    for (sum, number) in sums.into_iter().zip(5_000_000_000_i64..) {
        assert_eq!(sum, Ok(number));
    }
    assert_eq!(soon(rust.call("node/nothing", ())).await, Ok(()));
    assert_eq!(soon(rust.call("node/echo", ByteBuf::from([0, 255]))).await, Ok(ByteBuf::from([0, 255])));
    assert_eq!(soon(rust.call::<Vec<u8>>("node/echo", ByteBuf::from([0, 255]))).await, Ok(vec![0, 255]));
    for integer in [u64::MAX, 1 << 53, (1 << 53) - 1, 1 << 40, 1 << 32, (1 << 32) - 1, 0] {
        assert_eq!(soon(rust.call("node/echo", integer)).await, Ok(integer));
    }
    for integer in [i64::MIN, -(1 << 53), 1 - (1 << 53), -(1 << 40), i64::from(i32::MIN) - 1, -1] {
        assert_eq!(soon(rust.call("node/echo", integer)).await, Ok(integer));
    }
    let boom = soon(rust.call::<()>("node/boom", ())).await.unwrap_err();
    assert_eq!((boom.name(), boom.message(), boom.fate()), ("AppError", "bad", Fate::Failed));
    assert_eq!(
        soon(heard.recv()).await,
        Some(("to/rust".to_owned(), ("é".to_owned(), 5_000_000_000, (1.5, None))))
    );
    rust.publish("to/node", &(u64::MAX >> 12, "ü")).await.unwrap();
    rust.broadcast("news", &1.5).await.unwrap();
    assert_eq!(
        node.says("heard").await,
        json!([
            ["notification", "custom", "news", [1.5]],
            ["publish", "custom", "to/node", [(1_u64 << 52) - 1, "ü"]]
        ])
    );
}

#[actix::test]
async fn two_branches_with_the_original_codec_tell_each_other_what_they_mean() {
    let mesh = Mesh::start().await;
    let address = gateway(&mesh).await;
    let mut pair = Script::run(&["pair", address.as_str().rsplit(':').next().unwrap()]);
    for (what, least) in [("same", 60), ("thrown", 13), ("heard", 12)] {
        assert!(pair.says(what).await.as_u64() >= Some(least), "{what}");
    }
}

#[actix::test]
async fn a_branch_of_ours_at_a_master_with_the_original_codec() {
    let mut theirs = Script::run(&["master"]);
    let address = Address::from(format!("127.0.0.1:{}", theirs.says("port").await));
    let wrong = join(rust().token("wrong"), &address).await.unwrap_err();
    assert!(wrong.to_string().contains("校验失败"), "{wrong}");
    let actions = json!(["rust/add", "rust/boom", "rust/echo", "rust/typed"]);
    assert_eq!(theirs.says("bind").await, json!(["rust", "wrong", actions, []]));
    let rust = join(rust().token("k"), &address).await.expect("it binds");
    assert_eq!(theirs.says("bind").await, json!(["rust", "k", actions, []]));
    assert_eq!(theirs.says("register").await, json!([actions, []]));
    let (handler, mut heard) = ear::<(String, u64, (f64, Option<u8>))>();
    let _subscription = rust.subscribe("to/rust", handler).await.unwrap();
    assert_eq!(theirs.says("register").await, json!([[], ["to/rust"]]));
    let (handler, mut news) = ear::<HashMap<String, u8>>();
    let _broadcasts = rust.on_broadcast("news", handler).await.unwrap();
    assert_eq!(soon(rust.call("ours", ())).await, Ok(36));
    assert_eq!(soon(news.recv()).await.map(|(_, news)| news["x"]), Some(1));
    assert_eq!(soon(heard.recv()).await.map(|(_, event)| event.1), Some(5_000_000_000));
    let sums = soon(rust.call_many::<i64>("node/add", (0..10_000_i64).map(|number| (number, 1_i64)))).await;
    for (sum, number) in sums.into_iter().zip(1..) {
        assert_eq!(sum, Ok(number));
    }
    rust.publish("to/node", &("é", [1, 2])).await.unwrap();
    assert_eq!(theirs.says("publish").await, json!(["custom", "to/node", ["é", [1, 2]]]));
    rust.broadcast("news", &json!({ "y": null })).await.unwrap();
    assert_eq!(theirs.says("notification").await, json!(["custom", "news", [{ "y": null }]]));
}

/// An action of a branch of node-mesh that looks like a pattern once went round for ever between gateway and branch.
#[actix::test]
async fn an_action_of_node_js_that_looks_like_a_pattern_is_text() {
    let mesh = Mesh::start().await;
    let address = gateway(&mesh).await;
    let mut provider =
        NodeBranch::bound(&address, "provider", json!("k"), &["all/**", "node/add"], &[]).await;
    let mut asker = NodeBranch::bound(&address, "asker", json!("k"), &[], &[]).await;
    let caller = mesh.branch("caller").await;
    assert_eq!(asker.call("all/foo", json!([])).await.unwrap_err()["code"], "ACTION_NOT_EXIST");
    let none = soon(caller.call::<()>("all/foo", ())).await.unwrap_err();
    assert_eq!((none.code(), none.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
    let answering = actix_rt::spawn(async move {
        for _ in 0..2 {
            let request = provider.hear().await;
            assert_eq!(request["content"]["action"], "all/**");
            let id = request["id"].as_str().expect("an id").to_owned();
            provider.message(&id, "callback", "custom", ("all/**", json!([])), (json!(1), Value::Null)).await;
        }
        provider
    });
    assert_eq!(asker.call("all/**", json!([])).await, Ok(json!(1)));
    assert_eq!(soon(caller.call("all/**", ())).await, Ok(1_i64));
    drop(soon(answering).await);
}

/// A branch of the original that has not the action any more asks its master for it.
#[actix::test]
async fn a_request_that_a_branch_sends_back_to_its_master_ends() {
    let mesh = Mesh::start().await;
    let mut branch = NodeBranch::bound(&gateway(&mesh).await, "node", json!("k"), &["gone"], &[]).await;
    let caller = mesh.branch("caller").await;
    let forwarding = actix_rt::spawn(async move {
        let mut sent_on: HashMap<String, String> = HashMap::new();
        while let Some(message) = branch.next().await {
            let id = message["id"].as_str().expect("an id").to_owned();
            if message["type"] == "request" {
                let own = branch.say("request", "custom", "gone", message["content"]["params"].clone()).await;
                sent_on.insert(own, id);
            } else if let Some(asked) = sent_on.remove(&id) {
                let (body, error) = (message["data"]["body"].clone(), message["data"]["error"].clone());
                branch.message(&asked, "callback", "custom", ("gone", json!([])), (body, error)).await;
            }
        }
    });
    let ended = soon(caller.call::<()>("gone", ("é", 5_000_000_000_u64, 1.0))).await.unwrap_err();
    assert!(ended.message().contains("goes round"), "{ended}");
    forwarding.abort();
}

/// Such a batch, longer than a frame, once cut the connection, and the callers of the original were never told.
#[actix::test]
async fn fifty_long_messages_at_once_are_fifty_requests() {
    let mesh = Mesh::start().await;
    let _measuring =
        mesh.bind(BranchActor::new("m").respond("len", |text: String| async move { Ok(text.len()) })).await;
    let mut branch = NodeBranch::bound(&gateway(&mesh).await, "node", json!("k"), &[], &[]).await;
    let text = "x".repeat(400_000);
    let long = "x".repeat(17 * 1024 * 1024);
    let message = |id: usize, text: &str| {
        json!({
            "id": id.to_string(), "type": "request", "source": "custom", "fromId": "IPv4://node", "fromName": "node",
            "targetId": "IPv4://master", "content": { "action": "len", "params": [text] },
            "time": 1_795_217_600_337.0, "data": { "body": null, "error": null },
        })
    };
    let mut messages: Vec<_> = (0..50).map(|id| message(id, &text)).collect();
    messages[7] = message(7, &long);
    let content = Payload::encode(Encoding::MessagePack, &messages).expect("MessagePack").bytes;
    let head = [&[0xC6][..], &u32::try_from(content.len()).expect("it fits").to_be_bytes()].concat();
    branch.stream.write_all(&[&head[..], &content].concat()).await.expect("it is open");
    let mut answers = HashMap::new();
    while answers.len() < 50 {
        let answer = branch.hear().await;
        let data = answer["data"].clone();
        answers.insert(answer["id"].as_str().expect("an id").to_owned(), data);
    }
    for id in 0..50 {
        let data = &answers[&id.to_string()];
        if id == 7 {
            assert_eq!(data["error"]["code"], "FRAME_TOO_LARGE", "{data}");
        } else {
            assert_eq!(data["body"], 400_000, "{data}");
        }
    }
    assert_eq!(branch.call("len", json!(["abc"])).await, Ok(json!(3)), "the connection is as good as before");
}

#[actix::test]
async fn an_event_of_node_js_with_one_argument_is_that_argument() {
    let mesh = Mesh::start().await;
    let address = gateway(&mesh).await;
    let (handler, mut values) = ear::<Value>();
    let _values = mesh.master.subscribe("t", handler).await.unwrap();
    let (handler, mut numbers) = ear::<i64>();
    let _numbers = mesh.master.subscribe("t", handler).await.unwrap();
    let mut node = NodeBranch::bound(&address, "node", json!("k"), &[], &[]).await;
    let mut other = NodeBranch::bound(&address, "other", json!("k"), &[], &["t"]).await;
    for arguments in [json!([7]), json!([[1, 2]]), json!([1, 2]), json!([null]), json!([{ "$callback": 0 }])]
    {
        node.say("publish", "custom", "t", arguments.clone()).await;
        let heard = soon(values.recv()).await.expect("an event").1;
        let expected = match arguments.as_array().map(Vec::as_slice) {
            Some([only]) => only.clone(),
            _ => arguments.clone(),
        };
        assert_eq!(heard, expected);
        assert_eq!(other.hear().await["content"]["params"], arguments);
    }
    assert_eq!(soon(numbers.recv()).await, Some(("t".to_owned(), 7)));
    mesh.master.publish("t", &7).await.unwrap();
    assert_eq!(other.hear().await["content"]["params"], json!([7]));
}

/// A branch of the original that finds no state of its master in the answer stops its heartbeats.
#[actix::test]
async fn a_heartbeat_is_answered_with_what_the_master_is_and_offers() {
    let mesh = Mesh::of(MasterActor::new("here").respond("own", |(): ()| async { Ok(()) })).await;
    let _other = mesh.bind(BranchActor::new("other").respond("theirs", |(): ()| async { Ok(()) })).await;
    let mut branch = NodeBranch::bound(&gateway(&mesh).await, "node", json!("k"), &["a"], &[]).await;
    let state = json!([{ "id": "IPv4://1.1.1.1:1", "name": "node", "responderEvents": ["a"], "subscribeEvents": [] }]);
    let id = branch.say("request", "system", "action:heartbeat", state).await;
    let answer = branch.hear().await;
    assert_eq!(
        (&answer["id"], &answer["type"], &answer["source"]),
        (&json!(id), &json!("callback"), &json!("system"))
    );
    let body = &answer["data"]["body"];
    assert_eq!(
        (&body["name"], &body["responderEvents"], &body["subscribeEvents"]),
        (&json!("here"), &json!(["own"]), &json!([]))
    );
    assert!(body["id"].is_string() && body["memory"].is_object(), "{body}");
}

#[actix::test]
async fn a_bridge_says_who_refuses_it_and_why() {
    let (old, new) = (Mesh::of(MasterActor::new("old").token("k")).await, Mesh::start().await);
    let address = gateway(&old).await;
    let refused =
        soon(Bridge::node_mesh(&address).prefix("old").server_token("wrong").run(&new.address)).await;
    let refused = refused.to_string();
    assert!(refused.contains(address.as_str()) && refused.contains("BIND_ERROR"), "{refused}");
    let bridging =
        actix_rt::spawn(Bridge::node_mesh(&address).prefix("old").server_token("k").run(&new.address));
    soon(async { while new.master.describe("old/**").await.unwrap().is_empty() {} }).await;
    let none = soon(new.master.call::<()>("old/none", ())).await.unwrap_err();
    assert!(none.message().contains("none"), "{none}");
    bridging.abort();
}

//! The errors of applications: name, message, code and data arrive as they were, over every hop and through every dialect.

use crate::dialects::Foreign;
use crate::node_mesh::NodeBranch;
use crate::{Mesh, dnode, light_rpc, node, soon};
use meshwork::prelude::*;
use meshwork::{Address, ApplicationCode, Bridge, ResultStyle, Value as Any};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Codes of applications. Many of the numbers are codes of meshwork too, which they must never be taken for.
fn codes() -> Vec<Option<ApplicationCode>> {
    let numbers = (0..=20).chain([999, 1000, 1200, -1, -2, i64::MIN, i64::MAX, 1 << 53]).map(Into::into);
    let floats = [0.5, -1.5, 1e21, 1e-7, f64::MAX].map(Into::into);
    let texts = ["ENOENT", "REQUEST_TIMEOUT", "ACTION_NOT_EXIST", "7", "", "é☃😀"].map(Into::into);
    let large = [u64::MAX.into(), (i64::MAX as u64 + 1).into()];
    let all = numbers.chain(floats).chain(texts).chain(large);
    std::iter::once(None).chain(all.map(Some)).collect()
}

/// Data of applications. Some have fields as every error has.
fn data() -> Vec<Option<Value>> {
    let some = [
        json!({ "errno": -2, "path": "/x", "nested": { "a": [1, { "b": null }] } }),
        json!({ "code": 2, "name": "inner", "message": "another" }),
        json!({ "data": [1, 2] }),
        json!({ "data": { "x": 1 } }),
        json!(["blue", 3]),
        json!({}),
        json!(null),
        json!("text"),
        json!(1.5),
    ];
    std::iter::once(None).chain(some.map(Some)).collect()
}

/// The error of this number; each has another code, and each of some numbers other data.
fn error(number: usize) -> ActionError {
    let (codes, data) = (codes(), data());
    let mut error = ActionError::new(format!("Error{number}"), format!("it is error {number}"));
    if let Some(code) = codes[number % codes.len()].clone() {
        error = error.with_code(code);
    }
    match &data[number % data.len()] {
        Some(data) => error.with_data(data),
        None => error,
    }
}

fn count() -> usize {
    codes().len().max(data().len())
}

/// Compares what the caller got with what the responder made. JavaScript has one kind of number, so only the values of numbers count.
fn assert_is(number: usize, got: &CallError) {
    let made = CallError::from(error(number));
    let parts = |error: &CallError| (error.name().to_owned(), error.message().to_owned(), error.fate());
    assert_eq!(parts(got), parts(&made));
    assert_eq!((got.code(), got.application_code()), (Code::UNKNOWN, made.application_code()), "{made}");
    assert_eq!(got.data().map(|data| data.decode::<Value>().expect("JSON")), data()[number % data().len()]);
}

fn failing(name: &'static str) -> BranchActor {
    BranchActor::new(name).respond_all(responders())
}

fn responders() -> Responders {
    Responders::new()
        .respond("fail", |(number,): (usize,)| async move { Err::<(), _>(error(number)) })
        .respond("callback", |(number, callback): (usize, Callback<usize, bool>)| async move {
            Ok(callback.call(number).await?)
        })
}

#[actix::test]
async fn the_error_of_an_application_is_its_own_at_every_node() {
    let mesh = Mesh::of(
        MasterActor::new("master")
            .respond("master/fail", |number: usize| async move { Err::<(), _>(error(number)) }),
    )
    .await;
    let provider = mesh.bind(failing("provider")).await;
    let node = Node::from(&provider);
    let passing = Responders::new().respond("pass-on", move |number: usize| {
        let call = node.call::<()>("fail", (number,));
        async move { Ok(call.await?) }
    });
    provider.respond(passing).await.unwrap();
    let caller = mesh.branch("caller").await;
    let callback: Callback<usize, bool> =
        Callback::new_async(|number: usize| async move { Err::<bool, _>(error(number)) });
    for number in 0..count() {
        let over_the_relay = caller.call::<()>("fail", (number,)).await;
        let from_the_master = caller.call::<()>("master/fail", number).await;
        let at_the_node_itself = provider.call::<()>("fail", (number,)).await;
        let to_the_master = mesh.master.call::<()>("fail", (number,)).await;
        let passed_on = caller.call::<()>("pass-on", number).await;
        let of_a_function = caller.call::<bool>("callback", (number, callback.clone())).await.map(drop);
        for outcome in
            [over_the_relay, from_the_master, at_the_node_itself, to_the_master, passed_on, of_a_function]
        {
            assert_is(number, &outcome.expect_err("it fails"));
        }
    }
}

/// A mesh with a provider, and a caller in another mesh, joined by a gateway and a bridge.
struct Joined {
    caller: Branch,
    bridging: actix_rt::task::JoinHandle<meshwork::BridgeError>,
    _meshes: [Mesh; 2],
    _provider: Branch,
}

impl Joined {
    async fn by(listen: Listen, bridge: fn(Address) -> Bridge) -> Self {
        let (old, new) = (Mesh::start().await, Mesh::start().await);
        let provider = old.bind(failing("provider")).await;
        let address = old.master.addr().send(listen).await.expect("it runs").expect("it listens");
        let bridging = actix_rt::spawn(bridge(address).prefix("old").run(&new.address));
        let caller = new.branch("caller").await;
        soon(async { while caller.describe("old/**").await.expect("it runs").is_empty() {} }).await;
        Self { caller, bridging, _meshes: [old, new], _provider: provider }
    }

    async fn by_dnode() -> Self {
        let listen = Listen::dnode("127.0.0.1:0").results(ResultStyle::ErrorFirst);
        Self::by(listen, |address| Bridge::dnode(address).results(ResultStyle::ErrorFirst)).await
    }

    /// An error that came over a bridge once had the codes of meshwork, and neither text codes nor fields.
    async fn keeps_the_errors_of_actions(self) {
        for number in 0..count() {
            let outcome = soon(self.caller.call::<()>("old/fail", (number,))).await;
            assert_is(number, &outcome.expect_err("it fails"));
        }
        self.bridging.abort();
    }
}

#[actix::test]
async fn an_error_crosses_two_meshes_through_light_rpc() {
    Joined::by(Listen::light_rpc("127.0.0.1:0"), Bridge::light_rpc).await.keeps_the_errors_of_actions().await;
}

#[actix::test]
async fn an_error_crosses_two_meshes_through_dnode() {
    Joined::by_dnode().await.keeps_the_errors_of_actions().await;
}

#[actix::test]
async fn an_error_crosses_two_meshes_through_node_mesh() {
    Joined::by(Listen::node_mesh("127.0.0.1:0"), Bridge::node_mesh).await.keeps_the_errors_of_actions().await;
}

/// The function is called in the old mesh and fails in the new one; the responder passes the error on to its caller.
#[actix::test]
async fn the_error_of_a_function_crosses_two_meshes_both_ways() {
    let joined = Joined::by_dnode().await;
    let callback: Callback<usize, bool> =
        Callback::new_async(|number: usize| async move { Err::<bool, _>(error(number)) });
    for number in 0..count() {
        let outcome = soon(joined.caller.call::<bool>("old/callback", (number, callback.clone()))).await;
        assert_is(number, &outcome.expect_err("it fails"));
    }
    joined.bridging.abort();
}

/// What programs of Node.js throw: errors as they are written, and values that are none. The second is as a gateway of meshwork writes an
/// error of meshwork, which a program may throw again.
fn thrown() -> Vec<Value> {
    vec![
        json!({ "name": "SystemError", "message": "gone", "code": "ENOENT", "errno": -2, "path": "/x", "stack": "at x" }),
        json!({ "name": "REQUEST_TIMEOUT", "message": "no reply came", "code": 2 }),
        json!({ "code": 5 }),
        json!({ "code": 7, "message": "cancelled" }),
        json!({ "code": 14, "name": "DRAINING", "message": "" }),
        json!({ "code": "REQUEST_TIMEOUT", "name": "Mine", "message": "late" }),
        json!({ "code": "ACTION_NOT_EXIST", "name": "Error", "message": "of mine" }),
        json!({ "code": -1.5, "name": 7, "message": ["no", "text"], "data": { "x": 1 } }),
        json!({ "code": { "deep": [1] }, "cause": { "message": "inner", "code": 1 } }),
        json!({}),
        json!("bad"),
        json!(["bad", 1, null]),
        json!(42),
        json!(true),
    ]
}

/// What was thrown at a node of node-mesh, at programs of all dialects.
#[actix::test]
async fn what_a_program_throws_arrives_whole_at_programs_of_every_dialect() {
    let mesh = Mesh::start().await;
    let address = NodeBranch::gateway(&mesh).await;
    for (number, value) in thrown().into_iter().enumerate() {
        let action = format!("throws/{number}");
        let throwing = NodeBranch::offering(&address, &format!("throwing{number}"), &action).await;
        actix_rt::spawn(throwing.throw(value.clone()));
        let error = soon(async {
            loop {
                let error = mesh.master.call::<()>(&*action, ()).await.expect_err("it throws");
                if error.code() != Code::ACTION_NOT_FOUND {
                    break error;
                }
            }
        })
        .await;
        assert_eq!((error.code(), error.fate()), (Code::UNKNOWN, Fate::Failed), "{value}");
        assert_eq!(error.thrown().expect("it was thrown").decode::<Value>().unwrap(), value);
        assert_eq!(error.message(), value["message"].as_str().unwrap_or(&text(&value)));
        let code = match &value["code"] {
            Value::String(code) => Some(code.as_str().into()),
            Value::Number(code) if code.is_i64() => code.as_i64().map(Into::into),
            Value::Number(code) => code.as_f64().map(Into::into),
            _ => None,
        };
        assert_eq!(error.application_code(), code.as_ref(), "{value}");
        let mut node_mesh = NodeBranch::join(&address, "node-mesh").await;
        let mut light_rpc = light_rpc::Client::join(&light_rpc::Client::gateway(&mesh).await, "").await;
        let mut dnode = dnode::Client::join(&dnode::Client::gateway(&mesh).await, "").await;
        assert_eq!(node_mesh.call(&action, json!([])).await, Err(value.clone()));
        assert_eq!(light_rpc.call(&action, json!([])).await, Err(value.clone()));
        assert_eq!(dnode.call(&action, json!([])).await, Err(value));
    }
}

/// What stands in for the message of a value that has none.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An error of an action, at a program of each dialect.
pub(crate) async fn the_error_of_an_action_has_its_own_code_and_the_fields_of_its_data<F: Foreign>() {
    let mesh = Mesh::start().await;
    let _provider = mesh.bind(failing("provider")).await;
    let mut program = F::join(&F::gateway(&mesh).await, "program").await;
    for number in 0..count() {
        let error = error(number);
        let got = program.call("fail", json!([number])).await.expect_err("it fails");
        assert_eq!(
            (got["name"].as_str(), got["message"].as_str()),
            (Some(error.name()), Some(error.message()))
        );
        if let Some(code) = error.code() {
            let expected = serde_json::to_value(code).expect("a number or a text");
            let is_same = got["code"] == expected || got["code"].as_f64() == expected.as_f64();
            assert!(is_same, "{got} has the code {expected}");
        } else {
            assert!([Value::Null, json!("NONE")].contains(&got["code"]), "{got}");
        }
        match &data()[number % data().len()] {
            Some(Value::Object(fields)) if fields.contains_key("errno") => {
                for (key, value) in fields {
                    assert_eq!(&got[key], value);
                }
            }
            Some(_) => assert!(got.get("data").is_some(), "{got}"),
            None => assert!(got.as_object().is_some_and(|got| got.len() <= 3), "{got}"),
        }
    }
}

/// The original programs, which throw what [`thrown`] lists: at the mesh, and through it at an original program of the other protocol.
#[actix::test]
async fn what_the_original_programs_throw_arrives_whole() {
    let mesh = Mesh::start().await;
    let mut servers = Vec::new();
    let mut bridging = Vec::new();
    for protocol in ["dnode", "light_rpc"] {
        let mut server = node("errors.js", &["server", protocol]);
        let mut port = String::new();
        let stdout = server.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut port).await.expect("a port");
        let address = format!("127.0.0.1:{}", port.trim());
        let bridge = match protocol {
            "dnode" => Bridge::dnode(address.as_str()).results(ResultStyle::ErrorFirst),
            _ => Bridge::light_rpc(address.as_str()),
        };
        bridging.push(actix_rt::spawn(bridge.prefix(protocol).run(&mesh.address)));
        servers.push(server);
    }
    let caller = mesh.branch("caller").await;
    for protocol in ["dnode", "light_rpc"] {
        let action = format!("{protocol}/fail");
        soon(async { while caller.describe(&action).await.expect("it runs").is_empty() {} }).await;
        let error = soon(caller.call::<()>(action, (0,))).await.expect_err("it throws");
        assert_eq!((error.code(), error.fate()), (Code::UNKNOWN, Fate::Failed));
        assert_eq!(error.application_code(), Some(&"ENOENT".into()), "{protocol}");
        assert_eq!(error.data_as::<Any>().expect("fields"), fields(&[("errno", -2), ("left", 3)]));
    }
    for (protocol, other) in [("dnode", "light_rpc"), ("light_rpc", "dnode")] {
        let listen = match protocol {
            "dnode" => Listen::dnode("127.0.0.1:0").results(ResultStyle::ErrorFirst),
            _ => Listen::light_rpc("127.0.0.1:0"),
        };
        let address = mesh.master.addr().send(listen).await.expect("it runs").expect("it listens");
        let port = address.as_str().rsplit(':').next().expect("a port").to_owned();
        let mut client = node("errors.js", &["client", protocol, &port, &format!("{other}/fail")]);
        let stdout = client.stdout.take().expect("it is piped");
        let mut said = String::new();
        let mut reader = BufReader::new(stdout);
        tokio::time::timeout(Duration::from_secs(30), reader.read_line(&mut said))
            .await
            .expect("it says so soon")
            .expect("text");
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said, json!({ "same": 9 }), "{protocol} heard {other}");
    }
    bridging.iter().for_each(|bridging| bridging.abort());
}

fn fields(fields: &[(&str, i64)]) -> Any {
    let field = |(key, value): &(&str, i64)| {
        let value = u64::try_from(*value).map_or(Any::Signed(*value), Any::Unsigned);
        (Any::Text((*key).to_owned()), value)
    };
    Any::Map(fields.iter().map(field).collect())
}

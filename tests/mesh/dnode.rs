//! The original dnode, from npm, on live sockets: as a client of a gateway, and as an old server behind a bridge.

use crate::dialects::Foreign;
use crate::{Mesh, node, soon, until_asked};
use futures::stream::{self, StreamExt as _};
use meshwork::limits::{CALLBACKS_PER_CONNECTION_MAX, CALLBACKS_PER_REQUEST_MAX};
use meshwork::prelude::*;
use meshwork::{Address, Bridge, ResultStyle};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

fn responders() -> BranchActor {
    #[derive(Serialize, Deserialize)]
    struct Deep {
        on: On,
    }
    #[derive(Serialize, Deserialize)]
    struct On {
        #[serde(rename = "fn")]
        function: Callback<u64, u64>,
    }
    BranchActor::new("responders")
        .respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) })
        .respond_all(
            Responders::new().respond_self_describing("echo", |(value,): (Value,)| async { Ok(value) }),
        )
        .respond("boom", |(): ()| async {
            Err::<(), _>(ActionError::new("Boom", "it went off").with_code(1200))
        })
        .respond("three", |callback: Callback<u64, ()>| async move {
            for number in 1..=3 {
                callback.call(number).await?;
            }
            Ok("done")
        })
        .respond("deep", |deep: Deep| async move { Ok(deep.on.function.call(7).await?) })
        .respond("counter", |(): ()| async {
            let count = Arc::new(AtomicU64::new(0));
            Ok(Callback::new(move |by: u64| count.fetch_add(by, Ordering::Relaxed) + by))
        })
}

/// A dnode client without the original library, for lines that the original does not send.
pub(crate) struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    calls: usize,
}

impl Foreign for Client {
    const GARBAGE: &[&[u8]] = &[b"garbage\n", b"{\"method\":", b"\xff\xfe\n", b"17\n{}\n", b"[[[[[[[["];

    async fn gateway(mesh: &Mesh) -> Address {
        let listen = Listen::dnode("127.0.0.1:0");
        mesh.master.addr().send(listen).await.expect("it runs").expect("it listens")
    }

    async fn join(address: &Address, _: &str) -> Self {
        let (reader, mut writer) =
            TcpStream::connect(address.as_str()).await.expect("it listens").into_split();
        // As the original does at once: a connection that says nothing is closed.
        let methods = json!({ "method": "methods", "arguments": [{}], "callbacks": {}, "links": [] });
        writer.write_all(format!("{methods}\n").as_bytes()).await.expect("it is open");
        Self { reader: BufReader::new(reader), writer, calls: 0 }
    }

    async fn ask(&mut self, action: &str, arguments: Value) -> String {
        let result = self.calls.to_string();
        self.calls += 1;
        let mut arguments = arguments.as_array().expect("a list").clone();
        let callbacks = json!({ &result: [arguments.len().to_string()] });
        arguments.push(json!("[Function]"));
        let line = json!({ "method": action, "arguments": arguments, "callbacks": callbacks, "links": [] });
        // The gateway may have closed.
        let _ = self.writer.write_all(format!("{line}\n").as_bytes()).await;
        result
    }

    async fn outcome(&mut self) -> Option<(String, Result<Value, Value>)> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let mut said: Value = serde_json::from_str(&line).expect("JSON");
            let Some(result) = said["method"].as_u64() else { continue };
            let outcome = match said["arguments"].as_array_mut().map(Vec::as_mut_slice) {
                Some([result]) => Ok(result.take()),
                Some([_, error]) => Err(error.take()),
                _ => panic!("{said}"),
            };
            return Some((result.to_string(), outcome));
        }
    }
}

async fn a_client_is_served(style: ResultStyle, name: &str) {
    let mesh = Mesh::start().await;
    let responders = mesh.bind(responders()).await;
    let listen = Listen::dnode("127.0.0.1:0").results(style);
    let address = mesh.master.addr().send(listen).await.expect("it runs").expect("it listens");
    let port = address.as_str().rsplit(':').next().expect("a port").to_owned();
    let mut client = node("client.js", &[&port, name]);
    let stdout = client.stdout.take().expect("it is piped");
    let mut said = HashMap::new();
    let mut lines = BufReader::new(stdout).lines();
    let reading = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            let (what, value): (String, Value) = serde_json::from_str(&line).expect("JSON");
            said.insert(what, value);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("it ends");
    assert!(client.wait().await.expect("it ran").success(), "{said:?}");
    let values =
        json!(["é☃😀", 9_007_199_254_740_991_i64, -1.5e-7, null, [[[]]], { "k": { "l": [true, false] } }]);
    assert_eq!(said["functions"], json!(["add", "boom", "counter", "deep", "echo", "three"]));
    assert_eq!(said["add"], json!([null, 42]));
    assert_eq!(said["echo"], json!([null, values]));
    assert_eq!(said["boom"][0], json!({ "name": "Boom", "message": "it went off", "code": 1200 }));
    assert_eq!(said["three"], json!([null, "done"]));
    assert_eq!(said["heard"], json!([1, 2, 3]));
    assert_eq!(said["deep"], json!([null, 8]));
    assert_eq!(said["counter"], json!([2, 5]));
    assert_eq!(said["right"], json!(10_000));
    assert_eq!(said.get("fail").or(said.get("error")), None);
    // The original never culls a function; the end of its link releases all.
    soon(async {
        loop {
            let (master, branch) = (
                mesh.master.snapshot().await.expect("it runs"),
                responders.snapshot().await.expect("it runs"),
            );
            if master.callbacks_lent + master.callbacks_borrowed + branch.callbacks_lent == 0 {
                break;
            }
        }
    })
    .await;
}

#[actix::test]
async fn a_client_whose_callbacks_take_a_result_is_served() {
    a_client_is_served(ResultStyle::Result, "result").await;
}

#[actix::test]
async fn a_client_whose_callbacks_take_an_error_first_is_served() {
    a_client_is_served(ResultStyle::ErrorFirst, "error-first").await;
}

#[actix::test]
async fn the_functions_of_an_old_server_are_actions_while_it_is_there() {
    let mesh = Mesh::start().await;
    let mut server = node("server.js", &[]);
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("it is piped")).read_line(&mut line).await.expect("a port");
    let address = format!("127.0.0.1:{}", line.trim());
    let bridge = Bridge::dnode(address.as_str()).prefix("old");
    let bridging = actix_rt::spawn(bridge.run(&mesh.address));
    let there = |expected: usize| {
        let master = mesh.master.clone();
        async move {
            soon(async {
                while master.describe("old/**").await.expect("it runs").len() != expected {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    };
    there(18).await;
    let caller = mesh.branch("caller").await;
    assert_eq!(soon(caller.call("old/timesTen", 5_u64)).await, Ok(50_u64));
    assert_eq!(soon(caller.call("old/math/add", (2.5_f64, 3_u64))).await, Ok(5.5_f64));
    let values = json!({ "é": ["☃😀", null, [[]], 9_007_199_254_740_991_i64, -0.001] });
    assert_eq!(soon(caller.call("old/echo", (values.clone(),))).await, Ok(values));
    let heard = Arc::new(AtomicU64::new(0));
    let hearing = Arc::clone(&heard);
    let each: Callback<u64, ()> = Callback::new(move |number: u64| {
        hearing.fetch_add(number, Ordering::Relaxed);
    });
    assert_eq!(soon(caller.call("old/each", ([1, 2, 3], each))).await, Ok(3_u64));
    soon(async {
        while heard.load(Ordering::Relaxed) < 6 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ask: Callback<u64, u64> = Callback::new(|number: u64| number + 1);
    assert_eq!(soon(caller.call("old/ask", (41, ask))).await, Ok(42_u64));
    let tens = soon(caller.call_many::<u64>("old/timesTen", 0..10_000_u64)).await;
    assert!(tens.into_iter().zip(0..).all(|(ten, number)| ten == Ok(10 * number)));
    let silent = soon(caller.call::<()>("old/silent", ()).within(Duration::from_millis(50))).await;
    assert_eq!(silent.unwrap_err().code(), Code::REQUEST_TIMEOUT);
    let waiting = actix_rt::spawn(caller.call::<()>("old/silent", ()));
    until_asked(&mesh.master).await;
    server.kill().await.expect("it runs");
    let lost = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!((lost.code(), lost.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
    there(0).await;
    bridging.abort();
}

#[actix::test]
async fn too_many_functions_at_once_end_that_call_and_no_other() {
    let mesh = Mesh::start().await;
    let _responders = mesh.bind(responders()).await;
    let mut client = Client::join(&Client::gateway(&mesh).await, "client").await;
    let many: serde_json::Map<_, _> =
        (1_000..1_065).map(|number| (number.to_string(), json!(["0", number.to_string()]))).collect();
    let object: serde_json::Map<_, _> =
        (1_000..1_065).map(|number| (number.to_string(), json!("[Function]"))).collect();
    let mut callbacks = many.clone();
    callbacks.insert("7".to_owned(), json!(["1"]));
    let line = json!({ "method": "echo", "arguments": [object, "[Function]"], "callbacks": callbacks });
    client.writer.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    let (id, outcome) = soon(client.outcome()).await.expect("it is open");
    assert_eq!((&*id, &outcome.expect_err("they are too many")["name"]), ("7", &json!("OVERLOADED")));
    assert_eq!(client.call("add", json!([1, 2])).await, Ok(json!(3)));
}

/// What a client of the original finds, by its name.
async fn found_by(script: &str, arguments: &[&str]) -> HashMap<String, Value> {
    let mut client = node(script, arguments);
    let mut lines = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let mut said = HashMap::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            let (what, value): (String, Value) = serde_json::from_str(&line).expect("JSON");
            said.insert(what, value);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("it ends");
    assert!(client.wait().await.expect("it ran").success(), "{said:?}");
    said
}

#[actix::test]
async fn the_values_of_the_original_arrive_as_they_were_sent_or_are_errors() {
    let mesh = Mesh::start().await;
    let integers =
        |(a, b, c): (i64, i64, i64)| async move { Ok((a == 1 << 60, b == i64::MIN, c == (1 << 53) + 2)) };
    let edges = responders()
        .respond("integers", integers)
        .respond_all(
            Responders::new()
                .respond_self_describing("in_order", |(value,): (meshwork::Value,)| async { Ok(value) }),
        )
        .respond("taker", |(): ()| async {
            Ok(Callback::new_async(|taken: Callback<u64, ()>| async move { Ok(taken.call(5).await?) }))
        })
        .respond("len", |text: String| async move { Ok(text.len()) })
        .respond("beside", |(_function, value): (Callback<(), ()>, Value)| async { Ok(value) });
    let _edges = mesh.bind(edges).await;
    let address = Client::gateway(&mesh).await;
    let port = address.as_str().rsplit(':').next().expect("a port").to_owned();
    let said = found_by("edges.js", &[&port]).await;
    assert_eq!(said["integers"], json!([true, true, true]));
    assert_eq!(said["keys"], json!(r#"{"10":4,"z":1,"a":{"y":2,"b":3}}"#));
    assert_eq!(
        (&said["data"], &said["data beside a function"]),
        (&json!({ "$callback": 0 }), &json!({ "$callback": 0 }))
    );
    assert_eq!(said["changed"], json!([]));
    assert_eq!(said["heard"], json!([[1], [2], [3]]), "without a further argument");
    assert_eq!(said["taken"], json!([5]));
    assert_eq!((&said["long"], &said["many"]), (&json!("FRAME_TOO_LARGE"), &json!("FRAME_TOO_LARGE")));
    assert_eq!((&said["many of them"], &said["after"]), (&json!(50), &json!("here")));
    assert_eq!(said.get("fail").or(said.get("error")).or(said.get("late")), None);
}

/// The original dnode as a server, its address, and a bridge to it under `old` that runs.
async fn bridged(mesh: &Mesh) -> (tokio::process::Child, actix_rt::task::JoinHandle<meshwork::BridgeError>) {
    let mut server = node("server.js", &[]);
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("it is piped")).read_line(&mut line).await.expect("a port");
    let bridge = Bridge::dnode(format!("127.0.0.1:{}", line.trim())).prefix("old");
    let bridging = actix_rt::spawn(bridge.run(&mesh.address));
    let master = mesh.master.clone();
    soon(async { while master.describe("old/**").await.expect("it runs").is_empty() {} }).await;
    (server, bridging)
}

#[actix::test]
async fn an_old_server_fails_calls_with_a_second_result_and_its_functions_are_called_as_it_has_them() {
    let mesh = Mesh::start().await;
    let (_server, bridging) = bridged(&mesh).await;
    let caller = mesh.branch("caller").await;
    let failed = soon(caller.call::<Value>("old/fail", ())).await.expect_err("it fails");
    assert_eq!((failed.name(), failed.message(), failed.fate()), ("Boom", "it went off", Fate::Failed));
    let thrown = soon(caller.call::<Value>("old/throwing", ())).await.expect_err("it fails");
    assert_eq!((thrown.message(), thrown.fate()), ("bad", Fate::Failed));
    assert_eq!(
        soon(caller.call("old/pair", ())).await,
        Ok(json!([null, { "message": "hi", "from": "bob" }]))
    );
    // A name is no pattern.
    assert_eq!(soon(caller.call("old/a/**", ())).await, Ok(json!("itself")));
    let none = soon(caller.call::<Value>("old/a/b", ())).await.expect_err("there is none");
    assert_eq!(none.code(), Code::ACTION_NOT_FOUND);
    // A function without a result gets its own arguments alone, with or without an end that is waited for.
    let counter: Callback<(u8, u8), ()> = soon(caller.call("old/counter", ())).await.expect("a function");
    soon(counter.call((1, 2))).await.expect("it is sent");
    soon(counter.notify((1, 2))).await.expect("it is sent");
    assert_eq!(soon(caller.call("old/counted", ())).await, Ok(json!([2, 2])));
    bridging.abort();
}

/// An action that keeps more functions than there may be is refused the next ones, and those that it has stay.
#[actix::test]
async fn the_functions_of_a_program_stay_where_they_are_kept_and_one_too_many_is_refused() {
    let mesh = Mesh::start().await;
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keeping = Arc::clone(&kept);
    let taking = responders().respond("keep", move |functions: Vec<Callback<u64, ()>>| {
        let mut kept = keeping.lock().expect("no test panics");
        kept.extend(functions);
        let count = kept.len();
        async move { Ok(count) }
    });
    let _taking = mesh.bind(taking).await;
    let mut client = Client::join(&Client::gateway(&mesh).await, "client").await;
    let mut first = 1_000_000;
    let mut passing = async |client: &mut Client| {
        let numbers = first..first + CALLBACKS_PER_REQUEST_MAX;
        first = numbers.end;
        let functions = vec!["[Function]"; CALLBACKS_PER_REQUEST_MAX];
        let paths =
            numbers.enumerate().map(|(at, number)| (number.to_string(), json!(["0", at.to_string()])));
        let mut callbacks: serde_json::Map<_, _> = paths.collect();
        callbacks.insert("7".to_owned(), json!(["1"]));
        let line =
            json!({ "method": "keep", "arguments": [functions, "[Function]"], "callbacks": callbacks });
        client.writer.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
        soon(client.outcome()).await.expect("it is open").1
    };
    for call in 1..=CALLBACKS_PER_CONNECTION_MAX / CALLBACKS_PER_REQUEST_MAX {
        assert_eq!(passing(&mut client).await, Ok(json!(call * CALLBACKS_PER_REQUEST_MAX)));
    }
    let refused = passing(&mut client).await.expect_err("they are too many");
    assert_eq!(refused["name"], "OVERLOADED");
    let first = kept.lock().expect("no test panics")[0].clone();
    soon(first.notify(5)).await.expect("it is there");
    assert_eq!(soon(client.outcome()).await, Some(("1000000".to_owned(), Ok(json!(5)))), "it is called");
    assert_eq!(client.call("add", json!([1, 2])).await, Ok(json!(3)));
    kept.lock().expect("no test panics").clear();
    soon(async { while passing(&mut client).await.is_err() {} }).await;
}

/// After so many functions over one link, no function could be passed over it any more, to anybody.
#[actix::test]
async fn more_functions_than_a_connection_may_lend_are_passed_to_programs_that_keep_them_all() {
    const CALLS: usize = CALLBACKS_PER_CONNECTION_MAX / CALLBACKS_PER_REQUEST_MAX + 50;
    let mesh = Mesh::start().await;
    let counting = || Callback::new(|number: u64| number + 1);
    let many = responders()
        .respond("many", move |_: (u64, u64)| async move { Ok(vec![counting(); CALLBACKS_PER_REQUEST_MAX]) });
    let _many = mesh.bind(many).await;
    let gateway = Client::gateway(&mesh).await;
    let (mut client, mut other) =
        (Client::join(&gateway, "client").await, Client::join(&gateway, "other").await);
    for (client, calls) in [(&mut client, CALLS), (&mut other, 50)] {
        for (number, outcome) in client.call_all("many", calls, 8).await {
            assert_eq!(outcome.map(|list| list.as_array().map(Vec::len)), Ok(Some(64)), "{number}");
        }
    }
    // Both can go on, in both directions.
    for client in [&mut client, &mut other] {
        assert!(client.call("many", json!([0, 0])).await.is_ok());
        assert_eq!(client.call("add", json!([1, 2])).await, Ok(json!(3)));
    }

    let (_server, bridging) = bridged(&mesh).await;
    let caller = mesh.branch("caller").await;
    for call in 1..=CALLS {
        let kept = soon(caller.call("old/keep", (vec![counting(); CALLBACKS_PER_REQUEST_MAX],))).await;
        assert_eq!(kept, Ok(call * CALLBACKS_PER_REQUEST_MAX));
    }
    assert_eq!(soon(caller.call("old/ask", (41, counting()))).await, Ok(42_u64));
    bridging.abort();
}

/// Answers with streams, and counts those that are there.
fn streaming(there: &Arc<AtomicU64>) -> BranchActor {
    let there = Arc::clone(there);
    BranchActor::new("streaming")
        .respond_stream("count", |to: u64| async move { Ok(Streaming::new(stream::iter(1..=to))) })
        .respond_stream("fails", |(count,): (usize,)| async move {
            let words = stream::repeat("word").take(count).map(Ok);
            let error = ActionError::new("Boom", "it went off").with_code(1200);
            Ok(words.chain(stream::iter([Err(error)])))
        })
        .respond_stream("forever", move |(): ()| {
            there.fetch_add(1, Ordering::Relaxed);
            let there = Leaving(Arc::clone(&there));
            async move { Ok(stream::iter(0..).map(move |number: u64| Ok::<_, ActionError>((&there, number).1))) }
        })
        .respond("sum", |(mut numbers,): (Feed<u64>,)| async move {
            let mut sum = 0;
            while let Some(number) = numbers.next().await {
                sum += number?;
            }
            Ok(sum)
        })
}

/// Counts down when its stream is dropped.
struct Leaving(Arc<AtomicU64>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn until_zero(there: &AtomicU64) {
    soon(async {
        while there.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[actix::test]
async fn a_program_of_dnode_reads_streams_with_a_function_for_the_items_and_one_for_the_end() {
    let mesh = Mesh::start().await;
    let there = Arc::new(AtomicU64::new(0));
    let _streaming = mesh.bind(streaming(&there)).await;
    let address = Client::gateway(&mesh).await;
    let port = address.as_str().rsplit(':').next().expect("a port").to_owned();
    let said = found_by("streams.js", &[&port]).await;
    assert_eq!(said["count"], json!([[1, 2, 3, 4, 5], [null]]));
    assert_eq!(said["many"], json!([20_000, true, [null]]));
    let boom = json!({ "name": "Boom", "message": "it went off", "code": 1200 });
    assert_eq!(said["fails"], json!([["word", "word"], boom]));
    assert_eq!((&said["alone"][0], &said["alone"][1]["name"]), (&Value::Null, &json!("CANNOT_DECODE")));
    assert_eq!(said["stopped"], json!([[0, 1, 2], [null]]));
    assert_eq!(said["sum"], json!(500_500));
    assert_eq!(said.get("fail").or(said.get("error")).or(said.get("late")), None);
    until_zero(&there).await;
}

#[actix::test]
async fn a_program_of_dnode_that_reads_nothing_stops_its_producer_and_its_end_drops_the_stream() {
    let mesh = Mesh::start().await;
    let (there, made) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (counted, making) = (Arc::clone(&there), Arc::clone(&made));
    let long = BranchActor::new("long").respond_stream("long", move |(): ()| {
        counted.fetch_add(1, Ordering::Relaxed);
        let (leaving, making) = (Leaving(Arc::clone(&counted)), Arc::clone(&making));
        let line = "x".repeat(10_000);
        async move {
            Ok(stream::repeat(line).map(move |line| {
                making.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ActionError>((&leaving, line).1)
            }))
        }
    });
    let _long = mesh.bind(long.respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) })).await;
    let gateway = Client::gateway(&mesh).await;
    let (mut client, mut other) = (Client::join(&gateway, "a").await, Client::join(&gateway, "b").await);
    let line = json!({ "method": "long", "arguments": ["[Function]", "[Function]"], "callbacks": { "1": ["0"], "2": ["1"] } });
    client.writer.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    // The sockets take some megabytes, the program takes none, and then nothing is made.
    soon(async {
        let (mut last, mut rounds) = (0, 0);
        while rounds < 50 || last == 0 {
            for number in 0..10 {
                assert_eq!(other.call("add", json!([number, 1])).await, Ok(json!(number + 1)));
            }
            let now = made.load(Ordering::Relaxed);
            rounds = if now == last { rounds + 1 } else { 0 };
            last = now;
        }
        assert!(last < 4_000, "{last} items of 10 kB");
    })
    .await;
    drop(client);
    until_zero(&there).await;
}

#[actix::test]
async fn the_functions_of_an_old_server_are_read_as_streams_and_read_streams() {
    let mesh = Mesh::start().await;
    let (_server, bridging) = bridged(&mesh).await;
    let caller = mesh.branch("caller").await;
    let mut numbers =
        soon(caller.stream::<u64>("old/numbers", 3_000).into_future()).await.expect("it begins");
    for expected in 1..=3_000 {
        assert_eq!(soon(numbers.next()).await, Some(Ok(expected)));
    }
    assert_eq!(soon(numbers.next()).await, None);

    let mut paced = soon(caller.stream::<Value>("old/paced", 1_000).into_future()).await.expect("it begins");
    for expected in 1..=1_000 {
        assert_eq!(soon(paced.next()).await, Some(Ok(json!({ "number": expected }))));
    }
    let over = soon(paced.next()).await.expect("an end").expect_err("an error");
    assert_eq!((over.message(), over.fate()), ("over", Fate::Failed));

    // One that takes no notice is held up to a bound, and then ended.
    let quick = caller.stream::<u64>("old/numbers", 100_000).window(1_024);
    let mut quick = soon(quick.into_future()).await.expect("it begins");
    let error = soon(async {
        loop {
            if let Err(error) = quick.next().await.expect("it does not end well") {
                break error;
            }
        }
    });
    // Nothing is read before the program has sent more than is held.
    assert_eq!(soon(caller.call("old/timesTen", 5_u64)).await, Ok(50_u64));
    assert_eq!(error.await.code(), Code::OVERLOADED);

    let feed = Feed::new(stream::iter(1..=2_000_u64));
    assert_eq!(soon(caller.call("old/sum", (feed,))).await, Ok(2_001_000_u64));
    let there = Arc::new(AtomicU64::new(1));
    let leaving = Leaving(Arc::clone(&there));
    let feed = Feed::new(stream::iter(0..).map(move |number: u64| (&leaving, number).1));
    assert_eq!(soon(caller.call("old/first", (4, feed))).await, Ok(json!([0, 1, 2, 3])));
    until_zero(&there).await;
    bridging.abort();
}

//! One suite that the gateways of all dialects pass, on live sockets; and all dialects in one mesh.

use crate::failing::the_error_of_an_action_has_its_own_code_and_the_fields_of_its_data;
use crate::{Mesh, dnode, light_rpc, node_mesh, soon};
use meshwork::prelude::*;
use meshwork::{Address, Bridge};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A program of another protocol, at a gateway.
pub(crate) trait Foreign: Sized + 'static {
    /// Bytes that no program of this protocol sends.
    const GARBAGE: &[&[u8]];

    /// A listener for programs of this protocol.
    async fn gateway(mesh: &Mesh) -> Address;

    async fn join(address: &Address, name: &str) -> Self;

    /// Calls an action with a list of arguments; gives the id of the call.
    async fn ask(&mut self, action: &str, arguments: Value) -> String;

    /// The id and the outcome of the next call that ends; none when the gateway has closed.
    async fn outcome(&mut self) -> Option<(String, Result<Value, Value>)>;

    async fn call(&mut self, action: &str, arguments: Value) -> Result<Value, Value> {
        let asked = self.ask(action, arguments).await;
        let (id, outcome) = soon(self.outcome()).await.expect("it is open");
        assert_eq!(id, asked);
        outcome
    }

    /// Makes calls, a bounded number at once; gives the outcome of each.
    async fn call_all(
        &mut self,
        action: &str,
        calls: usize,
        at_once: usize,
    ) -> Vec<(usize, Result<Value, Value>)> {
        let (mut waiting, mut ended) = (HashMap::new(), Vec::new());
        let mut asked = 0;
        while ended.len() < calls {
            while asked < calls && waiting.len() < at_once {
                waiting.insert(self.ask(action, json!([asked, 1])).await, asked);
                asked += 1;
            }
            let (id, outcome) = soon(self.outcome()).await.expect("it is open");
            ended.push((waiting.remove(&id).expect("one that waits"), outcome));
        }
        ended
    }
}

/// A test for each dialect.
macro_rules! every_dialect {
    ($($test:ident)*) => {
        mod of_light_rpc {
            $(#[actix::test] async fn $test() { super::$test::<crate::light_rpc::Client>().await })*
        }
        mod of_dnode {
            $(#[actix::test] async fn $test() { super::$test::<crate::dnode::Client>().await })*
        }
        mod of_node_mesh {
            $(#[actix::test] async fn $test() { super::$test::<crate::node_mesh::NodeBranch>().await })*
        }
    };
}

every_dialect! {
    values_are_the_same_when_they_come_back
    the_error_of_an_action_has_its_own_code_and_the_fields_of_its_data
    ten_thousand_calls_with_a_thousand_in_flight_each_get_their_own_result
    a_provider_that_is_lost_ends_the_calls_that_it_has_and_no_others
    garbage_of_others_ends_nothing
    who_asks_and_does_not_read_slows_nobody
    whoever_goes_leaves_nothing_running
}

fn calculator(name: &'static str) -> BranchActor {
    BranchActor::new(name)
        .respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) })
        .respond("boom", |(): ()| async {
            Err::<(), _>(ActionError::new("Boom", "it went off").with_code(1200))
        })
        .respond_all(
            Responders::new().respond_self_describing("echo", |(value,): (Value,)| async { Ok(value) }),
        )
}

/// A branch whose action never answers, and the number of requests that it works at.
fn silent(name: &'static str) -> (BranchActor, Arc<AtomicUsize>) {
    struct Working(Arc<AtomicUsize>);
    impl Drop for Working {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let working = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&working);
    let silent = BranchActor::new(name).respond("silent", move |_: Value| {
        counted.fetch_add(1, Ordering::Relaxed);
        let working = Working(Arc::clone(&counted));
        async move {
            let _working = working;
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    (silent, working)
}

/// Compares values as JavaScript does, which has one kind of number.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        _ => one == other,
    }
}

async fn until(what: impl Fn() -> bool) {
    soon(async {
        while !what() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn values_are_the_same_when_they_come_back<F: Foreign>() {
    let mesh = Mesh::start().await;
    let _calculator = mesh.bind(calculator("calculator")).await;
    let mut program = F::join(&F::gateway(&mesh).await, "program").await;
    for value in [
        json!(null),
        json!(false),
        json!([0, -1, 127, 128, 255, 256, 65_535, 65_536, i32::MIN, u32::MAX]),
        json!([9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64, i64::MIN, u64::MAX]),
        json!([0.5, -1.5e-7, 1e300, 5e-324, f64::MAX]),
        json!(["", "é☃😀", "\u{0} \u{7f} \u{2028} \"\\/", "中文", "x".repeat(70_000)]),
        json!([[], [[[]]], {}, { "": { "a b": [null, { "é": [[1], [2, [3]]] }] } }]),
    ] {
        let back = program.call("echo", json!([value])).await.expect("it comes back");
        assert!(is_same(&back, &value), "{back} was {value}");
    }
    let boom = program.call("boom", json!([])).await.expect_err("it fails");
    assert_eq!(boom, json!({ "name": "Boom", "message": "it went off", "code": 1200 }));
    assert!(program.call("none", json!([])).await.is_err());
    assert!(program.call("add", json!(["a", null])).await.is_err());
    assert_eq!(program.call("add", json!([20, 22])).await, Ok(json!(42)));
}

async fn ten_thousand_calls_with_a_thousand_in_flight_each_get_their_own_result<F: Foreign>() {
    let mesh = Mesh::start().await;
    let _calculator = mesh.bind(calculator("calculator")).await;
    let mut program = F::join(&F::gateway(&mesh).await, "program").await;
    for (number, outcome) in program.call_all("add", 10_000, 1_000).await {
        assert_eq!(outcome, Ok(json!(number + 1)));
    }
}

async fn a_provider_that_is_lost_ends_the_calls_that_it_has_and_no_others<F: Foreign>() {
    let mesh = Mesh::start().await;
    let _calculator = mesh.bind(calculator("calculator")).await;
    let (silent, working) = silent("silent");
    let silent = mesh.bind(silent).await;
    let mut program = F::join(&F::gateway(&mesh).await, "program").await;
    let mut asked = Vec::new();
    for number in 0..100 {
        asked.push(program.ask("silent", json!([number])).await);
    }
    until(|| working.load(Ordering::Relaxed) == 100).await;
    assert_eq!(program.call("add", json!([1, 2])).await, Ok(json!(3)));
    soon(silent.drain(Duration::ZERO)).await.expect("it runs");
    for _ in 0..100 {
        let (id, outcome) = soon(program.outcome()).await.expect("it is open");
        assert!(outcome.is_err(), "{outcome:?}");
        asked.retain(|other| *other != id);
    }
    assert!(asked.is_empty(), "{asked:?}");
    assert!(program.call("silent", json!([1])).await.is_err(), "nobody offers it any more");
    assert_eq!(program.call("add", json!([1, 2])).await, Ok(json!(3)));
}

async fn garbage_of_others_ends_nothing<F: Foreign>() {
    let mesh = Mesh::start().await;
    let address = F::gateway(&mesh).await;
    let _calculator = mesh.bind(calculator("calculator")).await;
    let mut program = F::join(&address, "program").await;
    for garbage in F::GARBAGE.iter().cycle().take(100) {
        let mut other = TcpStream::connect(address.as_str()).await.expect("it listens");
        other.write_all(garbage).await.expect("it reads");
        assert_eq!(program.call("add", json!([1, 2])).await, Ok(json!(3)));
    }
    // The gateway serves the next client as before.
    assert_eq!(F::join(&address, "other").await.call("add", json!([2, 2])).await, Ok(json!(4)));
}

async fn who_asks_and_does_not_read_slows_nobody<F: Foreign>() {
    let mesh = Mesh::start().await;
    let address = F::gateway(&mesh).await;
    let _calculator = mesh.bind(calculator("calculator")).await;
    let (mut deaf, mut program) = (F::join(&address, "deaf").await, F::join(&address, "program").await);
    let mut asked = 0;
    let long = json!(["x".repeat(50_000)]);
    let flood = async {
        loop {
            deaf.ask("echo", long.clone()).await;
            asked += 1;
        }
    };
    let calls = async {
        for number in 0..1_000 {
            assert_eq!(program.call("add", json!([number, 1])).await, Ok(json!(number + 1)));
        }
    };
    tokio::select! {
        () = flood => unreachable!("it has no end"),
        () = calls => {}
    }
    // The client that did not read gets the answers to all its requests as soon as it reads.
    for _ in 0..asked {
        let (_, outcome) = soon(deaf.outcome()).await.expect("it is open");
        assert_eq!(outcome.as_ref(), Ok(&long[0]));
    }
}

async fn whoever_goes_leaves_nothing_running<F: Foreign>() {
    let mesh = Mesh::start().await;
    let address = F::gateway(&mesh).await;
    let (silent, working) = silent("silent");
    let _silent = mesh.bind(silent).await;
    let mut program = F::join(&address, "program").await;
    for number in 0..100 {
        program.ask("silent", json!([number])).await;
    }
    until(|| working.load(Ordering::Relaxed) == 100).await;
    drop(program);
    until(|| working.load(Ordering::Relaxed) == 0).await;
    soon(async { while mesh.master.snapshot().await.expect("it runs").sessions.len() > 1 {} }).await;
}

/// Calls an action of a mesh until told to stop; every call must end, with a reply or an error. Gives how many had the expected reply.
async fn call_on(node: &Node, action: &str, stop: &AtomicUsize) -> (usize, usize) {
    let (mut good, mut ended) = (0, 0);
    while stop.load(Ordering::Relaxed) == 0 {
        let calls = (0..100_i64).map(|number| (number, 1_i64));
        for (outcome, number) in soon(node.call_many::<i64>(action, calls)).await.into_iter().zip(1..) {
            ended += 1;
            match outcome {
                Ok(sum) => {
                    assert_eq!(sum, number);
                    good += 1;
                }
                Err(error) => {
                    let why = [Code::PROVIDER_LOST, Code::ACTION_NOT_FOUND, Code::DRAINING];
                    assert!(why.contains(&error.code()), "{error}");
                }
            }
        }
    }
    (good, ended)
}

/// Each dialect has a gateway, one mesh is bridged into another by each dialect, and meshwork branches are among them; all call each
/// other at once. A branch that all call is killed in the middle, and garbage comes to every port.
#[actix::test]
async fn all_of_them_in_one_mesh_while_a_branch_is_killed_and_garbage_comes() {
    let (mesh, old) = (Mesh::start().await, Mesh::start().await);
    let _calculator = mesh.bind(calculator("calculator")).await;
    let add = |(a, b): (i64, i64)| async move { Ok(a + b) };
    let dying = mesh.bind(BranchActor::new("dying").respond("dying", add)).await;
    let _old = old.bind(calculator("old")).await;
    let addresses = (
        light_rpc::Client::gateway(&mesh).await,
        dnode::Client::gateway(&mesh).await,
        node_mesh::NodeBranch::gateway(&mesh).await,
    );
    let old_addresses = (
        light_rpc::Client::gateway(&old).await,
        dnode::Client::gateway(&old).await,
        node_mesh::NodeBranch::gateway(&old).await,
    );
    // The old mesh, three times over.
    let bridges = [
        Bridge::light_rpc(&old_addresses.0).prefix("light"),
        Bridge::dnode(&old_addresses.1).prefix("dnode"),
        Bridge::node_mesh(&old_addresses.2).prefix("node"),
    ]
    .map(|bridge| actix_rt::spawn(bridge.run(&mesh.address)));
    let caller = mesh.branch("caller").await;
    for action in ["light/add", "dnode/add", "node/add"] {
        soon(async { while caller.call("light/add", (1_i64, 2_i64)).await != Ok(3_i64) {} }).await;
        soon(async { while caller.call(action, (1_i64, 2_i64)).await != Ok(3_i64) {} }).await;
    }
    // A meshwork branch in the node-mesh mesh.
    let joined = BranchActor::new("joined").dialect(Dialect::NodeMesh).respond("joined/add", add);
    let joined = joined.bind(&addresses.2).await.expect("it binds");

    let mut light = light_rpc::Client::join(&addresses.0, "light").await;
    let mut dnode = dnode::Client::join(&addresses.1, "dnode").await;
    let mut node = node_mesh::NodeBranch::join(&addresses.2, "node").await;
    let stop = AtomicUsize::new(0);
    let foreign = async {
        let (one, two, three) = tokio::join!(
            light.call_all("dying", 10_000, 1_000),
            dnode.call_all("dying", 10_000, 1_000),
            node.call_all("dying", 10_000, 1_000),
        );
        for outcomes in [one, two, three] {
            assert_eq!(outcomes.len(), 10_000);
            for (number, outcome) in outcomes {
                assert!(outcome.is_err() || outcome == Ok(json!(number + 1)), "{outcome:?}");
            }
        }
        let (one, two, three) = tokio::join!(
            light.call_all("dnode/add", 1_000, 100),
            dnode.call_all("node/add", 1_000, 100),
            node.call_all("light/add", 1_000, 100),
        );
        for (number, outcome) in one.into_iter().chain(two).chain(three) {
            assert_eq!(outcome, Ok(json!(number + 1)));
        }
        stop.store(1, Ordering::Relaxed);
    };
    let killing = async {
        // Kills the branch in the middle of the calls.
        soon(async { while caller.call_many::<i64>("dying", vec![(1_i64, 2_i64); 100]).await.is_empty() {} })
            .await;
        dying.drain(Duration::ZERO).await.expect("it runs");
        let all = [
            (&addresses.0, light_rpc::Client::GARBAGE),
            (&addresses.1, dnode::Client::GARBAGE),
            (&addresses.2, node_mesh::NodeBranch::GARBAGE),
            (&mesh.address, node_mesh::NodeBranch::GARBAGE),
        ];
        for (address, garbage) in all.into_iter().cycle().take(40) {
            for garbage in garbage {
                let mut other = TcpStream::connect(address.as_str()).await.expect("it listens");
                other.write_all(garbage).await.expect("it reads");
            }
        }
    };
    let (_, _, ours, theirs, bridged, lost) = tokio::join!(
        foreign,
        killing,
        call_on(&joined, "add", &stop),
        call_on(&caller, "joined/add", &stop),
        call_on(&caller, "node/add", &stop),
        call_on(&caller, "dying", &stop),
    );
    for (good, ended) in [ours, theirs, bridged] {
        assert!(good == ended && good > 0, "{good} of {ended}");
    }
    assert!(lost.1 > lost.0, "it was killed in the middle");
    // No request is left in flight.
    soon(async {
        loop {
            let snapshots = [
                mesh.master.snapshot().await.expect("it runs"),
                old.master.snapshot().await.expect("it runs"),
            ];
            let sessions = snapshots.iter().flat_map(|snapshot| &snapshot.sessions);
            let left: usize = sessions
                .map(|session| session.in_flight + session.callbacks_lent + session.callbacks_borrowed)
                .sum();
            if left + snapshots[0].calls_in_flight + snapshots[1].calls_in_flight == 0 {
                break;
            }
        }
    })
    .await;
    bridges.into_iter().for_each(|bridge| bridge.abort());
}

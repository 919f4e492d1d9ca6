//! Enums as errors: a responder fails with one, and its caller gets it back, over every way, from every version and in every dialect.

use crate::dialects::Foreign;
use crate::node_mesh::NodeBranch;
use crate::{Mesh, soon};
use meshwork::prelude::*;
use meshwork::{Address, Bridge, ResultStyle};
use serde_json::json;
use std::fmt;

macro_rules! shown {
    ($($error:ty),*) => {
        $(impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "it is {self:?}")
            }
        })*
    };
}

/// The enum as it was.
mod before {
    use super::*;

    #[derive(Debug, PartialEq, MeshError)]
    pub(crate) enum StockError {
        OutOfStock {
            sku: String,
            left: u32,
        },
        Closed,
        #[mesh(code = 7)]
        Reserved(String),
        Call(CallError),
    }

    #[meshwork::actions(prefix = "stock")]
    pub(crate) trait Stock {
        async fn take(&self, how: u8) -> Result<u32, StockError>;
    }
}

/// The enum with a variant and a field more, and another field renamed.
mod after {
    use super::*;

    #[derive(Debug, PartialEq, MeshError)]
    pub(crate) enum StockError {
        Sold {
            to: String,
        },
        OutOfStock {
            sku: String,
            left: u32,
            #[serde(default)]
            expected_in_days: Option<u32>,
        },
        Closed {
            #[serde(default)]
            until: u32,
        },
        #[mesh(code = 7)]
        Reserved {
            by: String,
        },
        Call(CallError),
    }

    #[meshwork::actions(prefix = "stock")]
    pub(crate) trait Stock {
        async fn take(&self, how: u8) -> Result<u32, StockError>;
    }
}

shown! { before::StockError, after::StockError }

struct Shelf;

fn out_of_stock() -> before::StockError {
    before::StockError::OutOfStock { sku: "a7".to_owned(), left: 3 }
}

impl before::Stock for Shelf {
    async fn take(&self, how: u8) -> Result<u32, before::StockError> {
        Err(match how {
            0 => out_of_stock(),
            1 => before::StockError::Closed,
            2 => before::StockError::Reserved("b".to_owned()),
            _ => return Ok(how.into()),
        })
    }
}

impl after::Stock for Shelf {
    async fn take(&self, how: u8) -> Result<u32, after::StockError> {
        Err(match how {
            0 => after::StockError::OutOfStock { sku: "a7".to_owned(), left: 3, expected_in_days: Some(2) },
            1 => after::StockError::Closed { until: 5 },
            2 => after::StockError::Reserved { by: "b".to_owned() },
            3 => after::StockError::Sold { to: "b".to_owned() },
            _ => return Ok(how.into()),
        })
    }
}

#[actix::test]
async fn an_enum_comes_back_from_a_method_and_from_a_call() {
    use before::{Stock as _, StockError, StockRequester};
    let mesh = Mesh::start().await;
    let provider = BranchActor::new("provider")
        .respond_all(Shelf.into_responders())
        .respond("closure", |(): ()| async move { Err::<(), _>(out_of_stock().into()) })
        .respond_blocking("blocking", |(): ()| Err::<(), ActionError>(out_of_stock().into()));
    let provider = mesh.bind(provider).await;
    let caller = mesh.branch("caller").await;
    for node in [Node::from(&caller), Node::from(&mesh.master), Node::from(&provider)] {
        let stock = StockRequester::new(node.clone());
        assert_eq!(soon(stock.take(0)).await, Err(out_of_stock()));
        assert_eq!(soon(stock.take(1)).await, Err(StockError::Closed));
        assert_eq!(soon(stock.take(2)).await, Err(StockError::Reserved("b".to_owned())));
        assert_eq!(soon(stock.take(9)).await, Ok(9));
        for action in ["closure", "blocking"] {
            assert_eq!(soon(node.call::<()>(action, ()).failing_as()).await, Err(out_of_stock()));
        }
        // As any caller has it.
        let error = soon(node.call::<()>("stock/take", 0)).await.expect_err("it fails");
        assert_eq!((error.name(), error.application_code()), ("StockError", Some(&"OutOfStock".into())));
        assert_eq!(error.message(), "it is OutOfStock { sku: \"a7\", left: 3 }");
        assert_eq!(error.data_as::<serde_json::Value>(), Ok(json!({ "sku": "a7", "left": 3 })));
    }
}

#[actix::test]
async fn all_other_failures_are_the_error_of_the_call() {
    use before::{StockError, StockRequester};
    let mesh = Mesh::start().await;
    let caller = mesh.branch("caller").await;
    let stock = StockRequester::new(&caller);
    let Err(StockError::Call(nobody)) = soon(stock.take(0)).await else { panic!("nobody offers it") };
    assert_eq!((nobody.code(), nobody.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
    let waiting = BranchActor::new("provider").respond("stock/take", |_: u8| async move {
        std::future::pending::<Result<u32, ActionError>>().await
    });
    let provider = mesh.bind(waiting).await;
    let late = soon(stock.take(0).within(Duration::from_millis(50))).await;
    assert!(matches!(late, Err(StockError::Call(late)) if late.fate() == Fate::Unknown));
    soon(provider.drain(Duration::ZERO)).await.expect("it runs");
}

#[actix::test]
async fn a_variant_that_a_version_does_not_know_is_the_error_of_the_call_and_never_another_variant() {
    let mesh = Mesh::start().await;
    let caller = mesh.branch("caller").await;
    {
        use after::Stock as _;
        use before::{StockError, StockRequester};
        let provider = mesh.bind(BranchActor::new("newer").respond_all(Shelf.into_responders())).await;
        let stock = StockRequester::new(&caller);
        assert_eq!(soon(stock.take(0)).await, Err(out_of_stock()), "a field more");
        assert_eq!(soon(stock.take(1)).await, Err(StockError::Closed), "a field where there was none");
        for (how, code) in [(2, 7.into()), (3, "Sold".into())] {
            let Err(StockError::Call(error)) = soon(stock.take(how)).await else { panic!("it is unknown") };
            assert_eq!((error.name(), error.application_code()), ("StockError", Some(&code)));
            assert_eq!(error.fate(), Fate::Failed);
        }
        soon(provider.drain(Duration::ZERO)).await.expect("it runs");
    }
    {
        use after::{StockError, StockRequester};
        use before::Stock as _;
        let _provider = mesh.bind(BranchActor::new("older").respond_all(Shelf.into_responders())).await;
        let stock = StockRequester::new(&caller);
        let expected = StockError::OutOfStock { sku: "a7".to_owned(), left: 3, expected_in_days: None };
        assert_eq!(soon(stock.take(0)).await, Err(expected));
        assert_eq!(soon(stock.take(1)).await, Err(StockError::Closed { until: 0 }));
        assert!(matches!(soon(stock.take(2)).await, Err(StockError::Call(_))));
    }
}

/// A responder that asks another one, and fails with the error of that call, under an enum of its own.
#[actix::test]
async fn the_error_of_a_call_within_is_passed_on_and_is_no_variant_of_the_enum_around_it() {
    use before::Stock as _;

    #[derive(Debug, MeshError)]
    enum OrderError {
        Closed,
        OutOfStock { sku: String, left: u32 },
        Call(CallError),
    }
    shown! { OrderError }

    let mesh = Mesh::start().await;
    let stock = mesh.bind(BranchActor::new("stock").respond_all(Shelf.into_responders())).await;
    let node = Node::from(&stock);
    let order = move |how: u8| {
        let taken = node.call::<u32>("stock/take", how).failing_as::<OrderError>();
        async move { Ok(taken.await?) }
    };
    let _orders = mesh.bind(BranchActor::new("orders").respond("order", order)).await;
    let caller = mesh.branch("caller").await;
    for (how, expected) in [(0, out_of_stock()), (1, before::StockError::Closed)] {
        let passed = soon(caller.call::<u32>("order", how).failing_as()).await;
        assert!(matches!(passed, Err(OrderError::Call(_))), "{passed:?}");
        assert_eq!(soon(caller.call::<u32>("order", how).failing_as()).await, Err(expected));
    }
}

#[actix::test]
async fn an_enum_crosses_two_meshes_through_every_dialect() {
    use before::{Stock as _, StockError};
    type Way = (fn() -> Listen, fn(Address) -> Bridge);
    let ways: [Way; 3] = [
        (|| Listen::light_rpc("127.0.0.1:0"), Bridge::light_rpc),
        (
            || Listen::dnode("127.0.0.1:0").results(ResultStyle::ErrorFirst),
            |address| Bridge::dnode(address).results(ResultStyle::ErrorFirst),
        ),
        (|| Listen::node_mesh("127.0.0.1:0"), Bridge::node_mesh),
    ];
    for (listen, bridge) in ways {
        let (old, new) = (Mesh::start().await, Mesh::start().await);
        let _provider = old.bind(BranchActor::new("provider").respond_all(Shelf.into_responders())).await;
        let address = old.master.addr().send(listen()).await.expect("it runs").expect("it listens");
        let bridging = actix_rt::spawn(bridge(address).prefix("old").run(&new.address));
        let caller = new.branch("caller").await;
        soon(async { while caller.describe("old/**").await.expect("it runs").is_empty() {} }).await;
        let take = |how: u8| caller.call::<u32>("old/stock/take", (how,)).failing_as::<StockError>();
        assert_eq!(soon(take(0)).await, Err(out_of_stock()));
        assert_eq!(soon(take(1)).await, Err(StockError::Closed));
        assert_eq!(soon(take(2)).await, Err(StockError::Reserved("b".to_owned())));
        bridging.abort();
    }
}

#[actix::test]
async fn what_a_program_of_another_language_throws_is_a_variant() {
    use before::StockError;
    let mesh = Mesh::start().await;
    let address = NodeBranch::gateway(&mesh).await;
    let thrown = [
        (
            json!({ "name": "StockError", "message": "m", "code": "OutOfStock", "sku": "a7", "left": 3 }),
            Some(out_of_stock()),
        ),
        (
            json!({ "name": "StockError", "message": "m", "code": "Closed", "stack": "at x" }),
            Some(StockError::Closed),
        ),
        (json!({ "name": "StockError", "message": "m", "code": "OutOfStock", "sku": "a7" }), None),
        (json!({ "name": "Error", "message": "m", "code": "Closed" }), None),
    ];
    for (number, (value, expected)) in thrown.into_iter().enumerate() {
        let action = format!("throws/{number}");
        let throwing = NodeBranch::offering(&address, &format!("throwing{number}"), &action).await;
        actix_rt::spawn(throwing.throw(value));
        mesh.master.wait_for(&*action, Duration::from_secs(10)).await.expect("it is offered");
        let error = soon(mesh.master.call::<()>(&*action, ()).failing_as::<StockError>()).await;
        match (error.expect_err("it throws"), expected) {
            (StockError::Call(error), None) => assert_eq!(error.message(), "m"),
            (error, expected) => assert_eq!(Some(error), expected),
        }
    }
}

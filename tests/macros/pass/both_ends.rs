//! The trait of the documentation: its implementation, its responders and its requester.

#![deny(warnings, dead_code, missing_docs)]

use meshwork::{ActionError, Branch, CallContext, Calling, Responders};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Arithmetic.
#[meshwork::actions(prefix = "math")]
pub trait Math {
    /// Adds.
    async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError>;

    /// Multiplies.
    #[action(name = "mul")]
    async fn multiply(&self, a: i64, b: i64) -> Result<i64, ActionError>;

    /// Who asks.
    async fn who(&self, context: CallContext) -> Result<String, ActionError>;

    /// One argument, and a context before it.
    async fn greet(&self, context: meshwork::CallContext, greeting: String) -> Result<String, ActionError>;

    /// A default, which answers through another action.
    async fn version(&self) -> Result<String, ActionError> {
        let number = self.add(1, 1).await?;
        if number == 2 {
            return Ok(number.to_string());
        }
        Ok(String::new())
    }
}

struct Calculator;

impl Math for Calculator {
    async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError> {
        // A future that is not `Send` is fine: it stays where the request came in.
        let sum = std::rc::Rc::new(a + b);
        std::future::ready(()).await;
        Ok(*sum)
    }

    async fn multiply(&self, a: i64, b: i64) -> Result<i64, ActionError> {
        Ok(a * b)
    }

    async fn who(&self, context: CallContext) -> Result<String, ActionError> {
        Ok(context.caller().to_string())
    }

    async fn greet(&self, context: CallContext, greeting: String) -> Result<String, ActionError> {
        Ok(format!("{greeting}, {}", context.caller()))
    }
}

/// Nobody runs it: what counts is that the types fit.
pub async fn call(branch: Branch) {
    let math = MathRequester::new(&branch);
    let calling: Calling<i64> = math.clone().add(2, 3);
    let _: Option<i64> = calling.within(Duration::from_secs(1)).await.ok();
    let _: Option<i64> = math.multiply(2, 3).await.ok();
    let _: Option<String> = math.who().await.ok();
    let _: Option<String> = math.greet(String::from("hello")).await.ok();
    let _: Option<String> = math.version().await.ok();
}

fn now<T>(future: impl Future<Output = Result<T, ActionError>>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.ok(),
        Poll::Pending => None,
    }
}

fn main() {
    assert_eq!(MathRequester::ACTIONS, ["math/add", "math/mul", "math/who", "math/greet", "math/version"]);
    assert_eq!(now(Calculator.add(2, 3)), Some(5));
    assert_eq!(now(Calculator.version()), Some(String::from("2")));
    let _: Responders = Calculator.into_responders();
    let _ = call;
}

//! One trait, both ends: a set of actions that a branch answers, and a typed requester that calls them.
//!
//! Run it: `cargo run --example typed_requester`. It prints the sum, the name of the caller, and the actions of the mesh.

use meshwork::prelude::*;

/// Sums, made at another node.
#[meshwork::actions(prefix = "math")]
pub trait Math {
    /// Adds.
    async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError>;
    /// Returns the name of the calling node.
    async fn who(&self, context: CallContext) -> Result<String, ActionError>;
}

struct Calculator;

impl Math for Calculator {
    async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError> {
        a.checked_add(b).ok_or_else(|| ActionError::new("Overflow", "the sum does not fit"))
    }

    async fn who(&self, context: CallContext) -> Result<String, ActionError> {
        Ok(context.caller().to_owned())
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let master = MasterActor::new("master").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
    let _math = BranchActor::new("math").respond_all(Calculator.into_responders()).bind(&address).await?;
    let branch = BranchActor::new("caller").bind(&address).await?;

    let math = MathRequester::new(&branch);
    let sum = math.add(2, 3).within(Duration::from_secs(1)).await?;
    let who = math.who().await?;
    println!("2 + 3 = {sum}, asked by {who}");
    assert_eq!((sum, &*who), (5, "caller"));
    let overflow = math.add(i64::MAX, 1).await;
    assert!(matches!(&overflow, Err(error) if error.name() == "Overflow"), "{overflow:?}");

    let actions = branch.describe("math/**").await?;
    for action in &actions {
        let shape = action.shape.as_ref().ok_or("its types tell their shape")?;
        println!("{} takes {} and gives {}", action.action, shape.arguments, shape.reply);
    }
    assert_eq!(actions.len(), MathRequester::ACTIONS.len());
    Ok(())
}

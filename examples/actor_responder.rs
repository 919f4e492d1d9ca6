//! An actor with state answers an action: a counter that any node of the mesh can increment.
//!
//! Run it: `cargo run --example actor_responder`. It prints `the counter stands at 10`.

use meshwork::prelude::*;

#[derive(Default)]
struct Counter(u64);

/// The arguments of a call, which the actor gets as an ordinary message.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, ActionError>")]
struct Increment {
    by: u64,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Increment> for Counter {
    type Result = Result<u64, ActionError>;

    fn handle(&mut self, Increment { by }: Increment, _: &mut Context<Self>) -> Self::Result {
        if by == 0 {
            return Err(ActionError::new("Nothing", "an increment by nothing").with_code(1000));
        }
        self.0 += by;
        Ok(self.0)
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counter = Counter::default().start();
    let master = MasterActor::new("master").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
    let _counting = BranchActor::new("counting")
        .respond_with("counter/increment", counter.recipient::<Increment>())
        .bind(&address)
        .await?;
    let branch = BranchActor::new("caller").bind(&address).await?;

    // An actor handles one message after the other, so no increment is lost.
    let outcomes: Vec<Result<u64, CallError>> =
        branch.call_many("counter/increment", (0..10).map(|_| Increment { by: 1 })).await;
    let last = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().max();
    assert_eq!(last, Some(10));

    // The errors of the actor reach the caller unchanged.
    let outcome = branch.call::<u64>("counter/increment", Increment { by: 0 }).await;
    let Err(error) = outcome else { return Err("nothing is no increment".into()) };
    assert_eq!((error.name(), error.fate()), ("Nothing", Fate::Failed));
    assert_eq!(error.application_code(), Some(&1000.into()));
    println!("the counter stands at 10");
    Ok(())
}

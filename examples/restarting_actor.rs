//! An actor that is started again when it panics: the call at which it panicked fails, the others go to the next actor.
//!
//! Run it: `cargo run --example restarting_actor`. It prints `shop was started again 1 time, and has sold 3 of 10`; the panic is on stderr.

use meshwork::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What lives longer than the actor: in a program, a database.
struct Shelf(AtomicU64);

struct Shop(Arc<Shelf>);

impl Actor for Shop {
    type Context = Context<Self>;
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, ActionError>")]
struct Sell {
    count: u64,
}

impl Handler<Sell> for Shop {
    type Result = Result<u64, ActionError>;

    fn handle(&mut self, Sell { count }: Sell, _: &mut Context<Self>) -> Self::Result {
        let left = self.0.0.load(Ordering::Acquire);
        let left = left.checked_sub(count).expect("nobody sells more than there is");
        self.0.0.store(left, Ordering::Release);
        Ok(left)
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shelf = Arc::new(Shelf(AtomicU64::new(10)));
    let shop = Restarting::start(move || Shop(Arc::clone(&shelf)));
    let master = MasterActor::new("master").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
    let branch =
        BranchActor::new("shop").respond_restarting("sell", shop.recipient::<Sell>()).bind(&address).await?;
    let caller = BranchActor::new("caller").bind(&address).await?;

    assert_eq!(caller.call::<u64>("sell", Sell { count: 2 }).await?, 8);
    let Err(error) = caller.call::<u64>("sell", Sell { count: 100 }).await else {
        return Err("too many".into());
    };
    assert_eq!((error.code(), error.fate()), (Code::PANICKED, Fate::Failed));
    // This call waits a tenth of a second for the next actor.
    let left = caller.call::<u64>("sell", Sell { count: 1 }).await?;
    assert_eq!(left, 7);

    let restarts = branch.snapshot().await?.restarting[0].restarts;
    assert_eq!(restarts, 1);
    println!("shop was started again {restarts} time, and has sold {} of 10", 10 - left);
    Ok(())
}

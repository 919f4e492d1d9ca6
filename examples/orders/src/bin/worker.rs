//! A worker: makes one order at a time, and tells its progress through the function that came with the call.
//!
//! Run it: `cargo run -p meshwork-example-orders --bin orders-worker -- worker-1`. `MAKING_MS` is how long a fifth of an order takes, by
//! default 200.

use meshwork::prelude::*;
use orders::{Made, Order, Step, Workshop, join, run_until_asked_to_end};
use std::env;
use std::error::Error;

struct Worker {
    name: String,
    fifth_takes: Duration,
}

impl Workshop for Worker {
    async fn make(&self, order: Order, progress: Callback<Step, ()>) -> Result<Made, ActionError> {
        log::info!("makes {} of {}", order.count, order.item);
        for percent in [0, 20, 40, 60, 80] {
            // Awaited, so no worker is further than the desk knows. Ends with an error when the desk is gone, and this work with it.
            progress.call(Step::Progress { worker: self.name.clone(), percent }).await?;
            tokio::time::sleep(self.fifth_takes).await;
        }
        Ok(Made { worker: self.name.clone() })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let name = env::args().nth(1).ok_or("name the worker, as in: orders-worker worker-1")?;
    let fifth_takes = Duration::from_millis(env::var("MAKING_MS").map_or(Ok(200), |text| text.parse())?);
    let worker = Worker { name: name.clone(), fifth_takes };
    // A worker that is busy is passed over: the order goes to another one, or comes again.
    let actions = worker.into_responders().permits("workshop/make", 1);
    let branch = join(BranchActor::new(name).respond_all(actions)).await?;
    run_until_asked_to_end(&branch).await
}

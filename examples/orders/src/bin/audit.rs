//! The audit: an actor that hears every step of every order. It writes each as a line of JSON, and answers `audit/history`.
//!
//! Run it: `cargo run -p meshwork-example-orders --bin orders-audit >> audit.log`.

use meshwork::prelude::*;
use orders::{History, Step, join, run_until_asked_to_end};
use std::collections::BTreeMap;
use std::error::Error;

/// How many orders the audit remembers. The lines that it has written stay.
const ORDERS_MAX: usize = 10_000;

/// How many steps of one order it remembers.
const STEPS_MAX: usize = 1_000;

#[derive(Default)]
struct Audit {
    steps: BTreeMap<u64, Vec<Step>>,
}

impl Actor for Audit {
    type Context = Context<Self>;
}

impl Handler<Event<Step>> for Audit {
    type Result = ();

    fn handle(&mut self, event: Event<Step>, _: &mut Context<Self>) {
        let line =
            serde_json::json!({ "topic": &*event.topic, "from": &*event.publisher, "step": event.value });
        println!("{line}");
        let Some(Ok(order)) = event.topic.split('/').nth(1).map(str::parse::<u64>) else { return };
        let steps = self.steps.entry(order).or_default();
        if steps.len() < STEPS_MAX {
            steps.push(event.value);
        }
        if self.steps.len() > ORDERS_MAX {
            self.steps.pop_first();
        }
    }
}

impl Handler<History> for Audit {
    type Result = Result<Vec<Step>, ActionError>;

    fn handle(&mut self, History { id }: History, _: &mut Context<Self>) -> Self::Result {
        Ok(self.steps.get(&id).cloned().unwrap_or_default())
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let audit = Audit::default().start();
    let branch = join(BranchActor::new("audit")).await?;
    let _hearing = branch.subscribe("orders/*/*", audit.clone().recipient::<Event<Step>>()).await?;
    // Offered last: once there is an `audit/history`, the audit hears.
    branch.respond(Responders::new().respond_with("audit/history", audit.recipient::<History>())).await?;
    run_until_asked_to_end(&branch).await
}

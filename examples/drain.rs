//! A branch that ends without losing requests: requests in flight are finished, and no more are taken.
//!
//! Run it: `cargo run --example drain`. It prints the reply of the call that was in flight, and the counts of the drain.

use meshwork::prelude::*;
use tokio::sync::{mpsc, watch};

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let master = MasterActor::new("master").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
    let master = Master::from(master);

    // An action that waits until the example lets it go on.
    let (open, opened) = watch::channel(false);
    let (came, mut coming) = mpsc::unbounded_channel();
    let printer = BranchActor::new("printer")
        .respond("print", move |pages: u32| {
            let (came, mut opened) = (came.clone(), opened.clone());
            async move {
                came.send(())?;
                opened.wait_for(|open| *open).await?;
                Ok(format!("{pages} pages"))
            }
        })
        .bind(address)
        .await?;

    let job = actix_rt::spawn({
        let master = master.clone();
        async move { master.call::<String>("print", 3_u32).await }
    });
    coming.recv().await.ok_or("the printer has gone")?;

    let draining = actix_rt::spawn({
        let printer = printer.clone();
        async move { printer.drain(Duration::from_secs(10)).await }
    });
    let mut status = printer.status().await?;
    status.wait_for(|status| *status == meshwork::Status::Draining).await?;
    let refused = master.call::<String>("print", 1_u32).await;
    assert!(matches!(&refused, Err(error) if error.code() == Code::DRAINING), "{refused:?}");

    open.send(true)?;
    let reply = job.await??;
    let drained = draining.await??;
    println!("printed {reply}; {} finished, {} abandoned", drained.finished, drained.abandoned);
    assert_eq!((&*reply, drained.finished, drained.abandoned), ("3 pages", 1, 0));
    Ok(())
}

//! The smallest mesh: a master and a branch that call each other and themselves, and an event.
//!
//! Run it: `cargo run --example quickstart`. It prints `22`, `45`, `66`, `89`, one per line, and `sub/test: sub`.

use meshwork::prelude::*;

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let actor = MasterActor::new("master1")
        .respond("add2", |(a, b): (i64, i64)| async move { Ok(a + b + 1) })
        .start();
    let address = actor.send(Listen::tcp("127.0.0.1:0")).await??;
    let master = Master::from(actor);

    let branch = BranchActor::new("branch1")
        .respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) })
        .bind(address)
        .await?;

    // The branch calls itself, without touching the network, and the master.
    let own: i64 = branch.call("add", (11, 11)).await?;
    let of_master: i64 = branch.call("add2", (22, 22)).await?;
    // The master calls the branch and itself.
    let of_branch: i64 = master.call("add", (33, 33)).await?;
    let masters_own: i64 = master.call("add2", (44, 44)).await?;
    for sum in [own, of_master, of_branch, masters_own] {
        println!("{sum}");
    }
    assert_eq!([own, of_master, of_branch, masters_own], [22, 45, 66, 89]);

    let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
    let subscription = branch
        .subscribe("sub/*", move |event: Event<String>| {
            // The receiver may have gone, and the event is not needed then.
            let _ = heard.send(format!("{}: {}", event.topic, event.value));
        })
        .await?;
    master.publish("sub/test", "sub").await?;
    let event = events.recv().await.ok_or("the event did not come")?;
    println!("{event}");
    assert_eq!(event, "sub/test: sub");

    drop(subscription);
    branch.drain(Duration::from_secs(1)).await?;
    master.drain(Duration::from_secs(1)).await?;
    Ok(())
}

//! A mesh in a program of tokio without actix: the master and the branch live on threads of their own, and any task may use their handles.
//!
//! Run it: `cargo run --example plain_tokio`. It prints `20`, then `all is drained`.

use meshwork::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let master = MasterActor::new("master1").start_on_thread()?;
    let address = master.listen(Listen::tcp("127.0.0.1:0")).await?;

    let branch = BranchActor::new("branch1")
        .respond("double", |n: u64| async move { Ok(2 * n) })
        .bind(address)
        .await?;

    // A handle is `Send`: the tasks run on all threads of the runtime.
    let tasks: Vec<_> = (0..5_u64)
        .map(|n| {
            let master = master.clone();
            tokio::spawn(async move { master.call::<u64>("double", n).await })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await??;
    }
    println!("{sum}");
    assert_eq!(sum, 20);

    // With a node, its thread ends.
    branch.drain(Duration::from_secs(1)).await?;
    master.drain(Duration::from_secs(1)).await?;
    assert_eq!(branch.closed().await.code(), Code::DRAINING);
    println!("all is drained");
    Ok(())
}

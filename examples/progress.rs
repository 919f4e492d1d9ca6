//! Functions as arguments: a provider tells its caller the progress of the work, and asks whether to go on.
//!
//! Run it: `cargo run --example progress`. It prints the progress of an import.

use meshwork::prelude::*;

#[derive(Serialize, Deserialize)]
struct Import {
    path: String,
    /// Called with the progress, in percent.
    progress: Callback<u8, ()>,
    /// Called with a row that cannot be read. Returns whether to go on.
    on_error: Option<Callback<(u64, String), bool>>,
}

async fn import(import: Import) -> Result<u64, ActionError> {
    let mut rows = 0;
    for row in 1..=4 {
        if row == 3 {
            let go_on = match &import.on_error {
                Some(ask) => ask.call((row, format!("{}: no number", import.path))).await?,
                None => false,
            };
            if !go_on {
                return Err(ActionError::new("Unreadable", format!("row {row} cannot be read")));
            }
        } else {
            rows += 1;
        }
        // Awaited, so that the caller's display never lags behind the import.
        import.progress.call(row as u8 * 25).await?;
    }
    Ok(rows)
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let master = MasterActor::new("master").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
    let _files = BranchActor::new("files").respond("files/import", import).bind(&address).await?;
    let shell = BranchActor::new("shell").bind(&address).await?;

    // A closure, which lives until the request is done, since the responder keeps no handle on it.
    let progress = Callback::new(|percent: u8| println!("{percent} %"));
    let on_error = Callback::new(|(row, why): (u64, String)| {
        println!("row {row}: {why}");
        true
    });
    let rows: u64 = shell
        .call(
            "files/import",
            Import { path: "a.csv".into(), progress: progress.clone(), on_error: Some(on_error) },
        )
        .await?;
    println!("{rows} rows");
    assert_eq!(rows, 3);

    // This import ends at the first row that cannot be read: the error reaches the caller.
    let error = shell
        .call::<u64>("files/import", Import { path: "b.csv".into(), progress, on_error: None })
        .await
        .err()
        .ok_or("it must fail")?;
    println!("{error}");
    assert_eq!(error.name(), "Unreadable");
    Ok(())
}

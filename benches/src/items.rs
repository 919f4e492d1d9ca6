//! Items of a stream: how many are read a second. The producer makes them as fast as it may: it gives clones of one item again and again, and
//! all clones share their bytes. `consume.rs` chooses the candidate whose consumer reads them.

use crate::job::Item;
use crate::load::{Load, Phase};
use crate::measure::Figures;
use crate::runtime::Spawn;
use anyhow::{Context as _, ensure};
use std::future::Future;
use std::time::Duration;

/// How long the last item may take to come when the loop is over.
const END_WITHIN: Duration = Duration::from_secs(15);

/// The options of the consumer.
#[derive(clap::Args, Debug)]
pub(crate) struct Consume {
    #[command(flatten)]
    pub(crate) load: Load,
    /// The items of the stream.
    #[arg(long)]
    pub(crate) item: Item,
}

/// The consumer of a stream that has no end.
pub(crate) trait Consumer: Send + 'static {
    /// Waits until more has come, and gives how many items are whole now that were not before.
    fn read(&mut self) -> impl Future<Output = anyhow::Result<u64>> + Send;
}

/// Reads through this consumer, in a task of its own, and counts the items.
pub(crate) async fn consume_through<C: Consumer, S: Spawn>(
    mut consumer: C,
    load: &Load,
) -> anyhow::Result<Figures> {
    let phase = Phase::default();
    let reading = S::spawn({
        let phase = phase.clone();
        async move {
            let mut count = 0;
            while !phase.is_over() {
                let came = consumer.read().await?;
                if phase.is_counting() {
                    count += came;
                }
                // Not every consumer lets other tasks have their turns while items are there.
                tokio::task::consume_budget().await;
            }
            anyhow::Ok(count)
        }
    });
    let spent = phase.lead(load).await;
    let ended = tokio::time::timeout(END_WITHIN, reading).await;
    let count = ended.context("the stream stands still")?.context("the consumer panicked")??;
    ensure!(count > 0, "no item came within {:?}", spent.elapsed);
    Ok(spent.on_events(count))
}

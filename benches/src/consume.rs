//! The process at the reading end of a stream: the consumer of each candidate.

use crate::candidate::{meshwork, nats, raw, tonic};
use crate::items::Consume;
use crate::job::{Candidate, Route};
use crate::runtime::{as_documented, on_actix, on_one_thread};
use anyhow::bail;

/// Reads a stream for a while and prints the figures.
pub(crate) fn consume(options: &Consume) -> anyhow::Result<()> {
    let figures = match (options.load.candidate, options.load.route) {
        (Candidate::Raw, _) => on_one_thread(raw::consume(options)),
        (Candidate::Meshwork, _) => on_actix(meshwork::consume(options)),
        (Candidate::Tonic, Route::Direct) => as_documented(tonic::consume(options)),
        (Candidate::TonicOneThread, Route::Direct) => on_one_thread(tonic::consume(options)),
        (Candidate::Nats, Route::Relayed) => as_documented(nats::consume(options)),
        (Candidate::NatsOneThread, Route::Relayed) => on_one_thread(nats::consume(options)),
        (candidate, route) => bail!("{candidate} has no {route:?} consumer in this program"),
    }?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

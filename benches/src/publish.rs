//! The processes at the ends of events: the publishers and subscribers of each candidate.

use crate::candidate::{meshwork, nats, raw_broker, redis, zenoh};
use crate::events::{Delivered, Publish, Written, publish_through, tell_publisher};
use crate::job::{Candidate, Ends};
use crate::measure::Figures;
use crate::runtime::{as_documented, on_actix, on_one_thread};
use anyhow::bail;
use std::any::Any;
use std::future::Future;
use std::net::SocketAddr;

/// The options of the process of the subscribers.
#[derive(clap::Args, Debug)]
pub(crate) struct Subscribe {
    /// The candidate.
    candidate: Candidate,
    /// The address of the broker.
    #[arg(long)]
    at: SocketAddr,
    /// The number of subscribers, each with a connection of its own.
    #[arg(long)]
    subscribers: usize,
    /// The kind of the subscribers.
    #[arg(long)]
    ends: Ends,
}

/// Runs the subscribers until stdin ends.
pub(crate) fn subscribe(options: &Subscribe) -> anyhow::Result<()> {
    on_runtime(options.candidate, options.ends, subscribe_all(options))
}

/// Publishes for a while and prints the figures.
pub(crate) fn publish(options: &Publish) -> anyhow::Result<()> {
    let figures = on_runtime(options.load.candidate, options.ends, publish_all(options))?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// Bytes are written and counted on one thread for every candidate: its clients have no part in it.
fn on_runtime<T>(
    candidate: Candidate,
    ends: Ends,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match (candidate, ends) {
        (Candidate::Meshwork, _) => on_actix(work),
        (Candidate::NatsOneThread, _) | (_, Ends::Bytes) => on_one_thread(work),
        (_, Ends::Own) => as_documented(work),
    }
}

async fn subscribe_all(options: &Subscribe) -> anyhow::Result<()> {
    let delivered = Delivered::new(options.subscribers);
    let at = options.at;
    let _kept: Box<dyn Any> = match (options.ends, options.candidate) {
        (Ends::Bytes, _) => Box::new(count_bytes(options, &delivered).await?),
        (Ends::Own, Candidate::Meshwork) => Box::new(meshwork::subscribe(at, &delivered).await?),
        (Ends::Own, Candidate::Nats | Candidate::NatsOneThread) => {
            Box::new(nats::subscribe(at, &delivered).await?)
        }
        (Ends::Own, Candidate::Zenoh) => Box::new(zenoh::subscribe(at, &delivered).await?),
        (Ends::Own, Candidate::Redis) => Box::new(redis::subscribe(at, &delivered).await?),
        (Ends::Own, candidate) => bail!("{candidate} has no subscribers of its own in this program"),
    };
    tell_publisher(&delivered).await
}

async fn count_bytes(options: &Subscribe, delivered: &Delivered) -> anyhow::Result<()> {
    for subscriber in 0..options.subscribers {
        let link = match options.candidate {
            Candidate::Raw => raw_broker::counted_link(options.at).await?,
            Candidate::Meshwork => meshwork::counted_link(options.at, subscriber).await?,
            Candidate::Nats => nats::counted_link(options.at).await?,
            Candidate::Redis => redis::counted_link(options.at).await?,
            candidate => bail!("{candidate} has no events"),
        };
        link.count(subscriber, delivered.clone());
    }
    Ok(())
}

async fn publish_all(options: &Publish) -> anyhow::Result<Figures> {
    let at = options.load.at;
    match (options.ends, options.load.candidate) {
        (Ends::Bytes, Candidate::Raw) => {
            publish_through(Written::new(raw_broker::written_link(at).await?), options).await
        }
        (Ends::Bytes, Candidate::Meshwork) => {
            publish_through(Written::new(meshwork::written_link(at).await?), options).await
        }
        (Ends::Bytes, Candidate::Nats) => {
            publish_through(Written::new(nats::written_link(at).await?), options).await
        }
        (Ends::Bytes, Candidate::Redis) => {
            publish_through(Written::new(redis::written_link(at).await?), options).await
        }
        (Ends::Own, Candidate::Meshwork) => publish_through(meshwork::publisher(at).await?, options).await,
        (Ends::Own, Candidate::Nats | Candidate::NatsOneThread) => {
            publish_through(nats::publisher(at).await?, options).await
        }
        (Ends::Own, Candidate::Zenoh) => publish_through(zenoh::publisher(at).await?, options).await,
        (Ends::Own, Candidate::Redis) => publish_through(redis::publisher(at).await?, options).await,
        (_, candidate) => bail!("{candidate} has no publisher in this program"),
    }
}

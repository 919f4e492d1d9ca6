//! The closed loop: a number of tasks, each of which calls, awaits the reply and calls again. So a candidate gets as many calls as it
//! answers.

use crate::client::{Client, ask, bytes};
use crate::job::{Form, Work};
use crate::load::{Load, Phase, nanoseconds};
use crate::measure::Figures;
use crate::runtime::Spawn;
use anyhow::{Context as _, ensure};
use std::time::{Duration, Instant};

/// How long the calls in flight may take to end when the loop is over.
const END_WITHIN: Duration = Duration::from_secs(15);

/// Drives these clients, one for each connection.
pub(crate) async fn figures<C: Client, S: Spawn>(clients: Vec<C>, load: &Load) -> anyhow::Result<Figures> {
    let phase = Phase::default();
    let mut tasks = Vec::new();
    for client in clients {
        match load.form {
            Form::Many => tasks.push(S::spawn(many(client, load.work, load.in_flight, phase.clone()))),
            Form::Single | Form::Message => {
                for _ in 0..load.in_flight {
                    tasks.push(S::spawn(single(client.clone(), load.work, phase.clone())));
                }
            }
        }
    }
    let spent = phase.lead(load).await;
    let mut latencies = Vec::new();
    for task in tasks {
        let ended = tokio::time::timeout(END_WITHIN, task).await;
        latencies.extend(ended.context("a call never ended")?.context("a task panicked")??);
    }
    ensure!(!latencies.is_empty(), "no call ended within {:?}", spent.elapsed);
    Ok(spent.on_calls(latencies))
}

/// Makes single calls, one after another; gives their latencies in nanoseconds.
async fn single<C: Client>(client: C, work: Work, phase: Phase) -> anyhow::Result<Vec<u32>> {
    let bytes = bytes(work);
    let mut latencies = Vec::new();
    let mut number = 0i32;
    let mut start = Instant::now();
    while !phase.is_over() {
        number = number.wrapping_add(1);
        ask(&client, work, number, &bytes).await?;
        let end = Instant::now();
        if phase.is_counting() {
            latencies.push(nanoseconds(end - start));
        }
        start = end;
    }
    Ok(latencies)
}

/// Makes batches of calls, one batch after another; gives the latency of its batch for each call.
async fn many<C: Client>(client: C, work: Work, in_flight: usize, phase: Phase) -> anyhow::Result<Vec<u32>> {
    let bytes = bytes(work);
    let mut latencies = Vec::new();
    let mut start = Instant::now();
    while !phase.is_over() {
        let right = client.many(work, in_flight, &bytes).await?;
        ensure!(right == in_flight, "{right} of {in_flight} calls were right");
        let end = Instant::now();
        if phase.is_counting() {
            latencies.extend(std::iter::repeat_n(nanoseconds(end - start), right));
        }
        start = end;
    }
    Ok(latencies)
}

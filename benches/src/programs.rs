//! The programs of the candidates: their servers, brokers, providers and clients, as processes.

use crate::job::Candidate;
use crate::process::{Process, myself, node};
use anyhow::bail;
use serde::Serialize;
use std::process::Command;

/// Starts the processes that the client needs; the client connects to the first.
pub(crate) fn start(
    candidate: Candidate,
    is_broker: bool,
    has_provider: bool,
    arbiters: usize,
) -> anyhow::Result<Vec<Process>> {
    let first = match candidate {
        Candidate::Nats | Candidate::NatsOneThread => nats_server()?,
        Candidate::Redis => redis_server()?,
        Candidate::Dnode | Candidate::Moleculer => {
            let mut command = client(candidate, "serve")?;
            command.env("NODE_ENV", "production");
            Process::start(command)?
        }
        _ => {
            let part = if is_broker { "broker" } else { "server" };
            let mut command = myself()?;
            command.args(["serve", &word(candidate)?, "--part", part]);
            command.args(["--arbiters", &arbiters.to_string()]);
            Process::start(command)?
        }
    };
    let mut processes = vec![first];
    if is_broker && has_provider {
        let mut command = myself()?;
        command.args(["serve", &word(candidate)?, "--part", "provider"]);
        command.args(["--at", &processes[0].address.to_string()]);
        processes.push(Process::start(command)?);
    }
    Ok(processes)
}

/// A nats-server on a port of its own.
pub(crate) fn nats_server() -> anyhow::Result<Process> {
    Process::start_on_free_port(|port| {
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        command
    })
}

/// A redis-server that keeps nothing, on a port of its own.
fn redis_server() -> anyhow::Result<Process> {
    Process::start_on_free_port(|port| {
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command
    })
}

/// The client program of a candidate.
pub(crate) fn client(candidate: Candidate, part: &str) -> anyhow::Result<Command> {
    let mut command = match candidate {
        Candidate::Dnode => node("dnode.js"),
        Candidate::Moleculer => node("moleculer.js"),
        _ => myself()?,
    };
    command.arg(part);
    if !matches!(candidate, Candidate::Dnode | Candidate::Moleculer) {
        command.arg(word(candidate)?);
    }
    Ok(command)
}

/// How an option is written on the command line of a part: with the word that JSON has.
pub(crate) fn word<T: Serialize>(value: T) -> anyhow::Result<String> {
    match serde_json::to_value(value)? {
        serde_json::Value::String(name) => Ok(name),
        other => bail!("{other} is no word"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Ends, Form, Item, Route, Work};
    use clap::ValueEnum;

    fn same_words<T: ValueEnum + Serialize>() {
        for value in T::value_variants() {
            let possible = value.to_possible_value().expect("no variant is skipped");
            assert_eq!(word(value).expect("a word"), possible.get_name());
        }
    }

    #[test]
    fn the_parts_understand_the_words_that_a_run_says() {
        same_words::<Candidate>();
        same_words::<Work>();
        same_words::<Route>();
        same_words::<Form>();
        same_words::<Ends>();
        same_words::<Item>();
    }
}

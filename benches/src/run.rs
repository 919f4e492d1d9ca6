//! A whole run: each round goes through all cells, and in each cell through its candidates in turn, so that other work of the machine
//! meets all candidates alike.

use crate::budget;
use crate::job::{Candidate, Job, Route, Work};
use crate::measure::{Figures, memory_kib};
use crate::plan::{Cell, cells};
use crate::plot;
use crate::process::{Process, myself, output};
use crate::programs::{client, start, word};
use crate::scale;
use crate::table::{Row, compare, table};
use anyhow::{Context as _, ensure};
use serde::Serialize;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The options of a run.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Measure only the cells that the budgets need, in three minutes once everything is built.
    #[arg(long)]
    quick: bool,
    /// Print JSON for machines instead of the table.
    #[arg(long)]
    json: bool,
    /// Write diagrams into this folder: the distribution of latencies, and calls a second against calls in flight.
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Measure the cost of many connections, actions and subscriptions too.
    #[arg(long)]
    scale: bool,
    /// The number of rounds; the figures of a cell are the medians of all rounds. Default: 5, or 3 with --quick.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long each measurement counts, in seconds. Default: 1, or 0.5 with --quick.
    #[arg(long)]
    seconds: Option<f64>,
    /// Measure only the cells whose description contains this text, such as "relayed".
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// The results of a run, for machines.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    rounds: u32,
    seconds: f64,
    rows: Vec<Row>,
    budgets: Vec<budget::Verdict>,
    scale: Option<scale::Report>,
}

#[derive(Serialize)]
struct Machine {
    processor: String,
    processors: usize,
    kernel: String,
    memory_mib: u64,
}

/// Runs everything and prints the table, or JSON. Progress goes to stderr.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let started = Instant::now();
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 5 });
    let seconds = options.seconds.unwrap_or(if options.quick { 0.5 } else { 1.0 });
    ensure!(seconds > 0.0, "--seconds must be more than 0");
    let mut cells = cells(options.quick);
    if let Some(only) = &options.only {
        cells.retain(|cell| cell.job.to_string().contains(only.as_str()));
        ensure!(!cells.is_empty(), "no cell is described by {only:?}; \"add, direct\" describes some");
    }
    let (figures, mut failures) = measure(&cells, rounds, seconds);
    let mut rows = Vec::new();
    for (cell, of_candidates) in cells.iter().zip(figures) {
        for (candidate, rounds) in cell.candidates.iter().zip(of_candidates).filter(|(_, it)| !it.is_empty())
        {
            rows.push(Row::new(cell.job, *candidate, &rounds));
        }
    }
    compare(&mut rows);
    let mut budgets = budget::verdicts(&rows);
    if let Some(folder) = &options.plot {
        plot::write(folder, &rows)?;
    }
    let scale = if options.scale {
        scale::measure().map_err(|error| failures.push(format!("scale: {error:#}"))).ok()
    } else {
        None
    };
    budgets.extend(scale.as_ref().map(|scale| budget::idle_branch(scale.idle_branch_kib())));
    let report = Report { machine: Machine::this(), rounds, seconds, rows, budgets, scale };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print(options.only.is_none());
    }
    eprintln!("took {:.0} s", started.elapsed().as_secs_f64());
    // Failures were printed when they happened, and are printed again here, so that they are not lost above the table.
    ensure!(failures.is_empty(), "{} measurements failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

impl Report {
    fn print(&self, with_budgets: bool) {
        let Machine { processor, processors, kernel, memory_mib } = &self.machine;
        println!("{processors} x {processor}, {memory_mib} MiB, Linux {kernel}");
        println!("medians of {} rounds of {} s\n\n{}", self.rounds, self.seconds, table(&self.rows));
        if let Some(scale) = &self.scale {
            println!("\n{scale}");
        }
        if with_budgets {
            println!();
            for verdict in &self.budgets {
                println!("{verdict}");
            }
            let missed = self.budgets.iter().filter(|budget| !budget.met).count();
            println!("{} budgets, {missed} not met", self.budgets.len());
        }
    }
}

impl Machine {
    fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1.to_owned()));
        let memory = read("/proc/meminfo")
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            processor: processor.unwrap_or_else(|| "unknown processor".to_owned()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: memory.unwrap_or(0) / 1024,
        }
    }
}

/// All rounds of all candidates of all cells, and the failures. A candidate that fails twice in a cell is left out. One failure may be due
/// to the machine: a stall of the network that is as long as the measurement.
fn measure(cells: &[Cell], rounds: u32, seconds: f64) -> (Vec<Vec<Vec<Figures>>>, Vec<String>) {
    let mut failures = Vec::new();
    let mut all: Vec<Vec<Vec<Figures>>> =
        cells.iter().map(|cell| vec![Vec::new(); cell.candidates.len()]).collect();
    for round in 1..=rounds {
        for (cell, of_candidates) in cells.iter().zip(&mut all) {
            eprintln!("round {round} of {rounds}: {}", cell.job);
            for (candidate, figures) in cell.candidates.iter().zip(of_candidates) {
                let failure =
                    |error: &anyhow::Error| format!("round {round}: {}: {candidate}: {error:#}", cell.job);
                let measured = one(*candidate, cell.job, seconds).or_else(|error| {
                    eprintln!("{}\nround {round}: it is tried once more", failure(&error));
                    one(*candidate, cell.job, seconds)
                });
                match measured {
                    Ok(measured) => figures.push(measured),
                    Err(error) => {
                        eprintln!("{}", failure(&error));
                        failures.push(failure(&error));
                    }
                }
            }
        }
    }
    (all, failures)
}

fn one(candidate: Candidate, job: Job, seconds: f64) -> anyhow::Result<Figures> {
    match job {
        Job::Call { work, route, form, in_flight, connections, arbiters } => {
            let others = start(candidate, route == Route::Relayed, true, arbiters)?;
            let mut command = client(candidate, "drive")?;
            command.args(["--work", &word(work)?, "--route", &word(route)?, "--form", &word(form)?]).args([
                "--in-flight",
                &in_flight.to_string(),
                "--connections",
                &connections.to_string(),
            ]);
            finish(command, others, seconds, (seconds / 4.0).clamp(0.1, 0.3))
        }
        Job::Open { rate_per_second, route } => {
            let others = start(candidate, route == Route::Relayed, true, 1)?;
            let mut command = client(candidate, "drive")?;
            command.args(["--work", &word(Work::Add)?, "--route", &word(route)?]);
            command.args(["--rate-per-second", &rate_per_second.to_string()]);
            finish(command, others, seconds, (seconds / 4.0).clamp(0.1, 0.3))
        }
        Job::Publish { subscribers, ends } => {
            let mut others = start(candidate, true, false, 1)?;
            let broker = others[0].address;
            let mut command = myself()?;
            command.args(["subscribe", &word(candidate)?, "--at", &broker.to_string()]).args([
                "--subscribers",
                &subscribers.to_string(),
                "--ends",
                &word(ends)?,
            ]);
            let subscribing = Process::start(command)?;
            let mut command = myself()?;
            command
                .args(["publish", &word(candidate)?, "--ends", &word(ends)?])
                .args(["--subscribers", &subscribers.to_string()])
                .args(["--subscribers-at", &subscribing.address.to_string()]);
            // Only the broker is watched; the subscribers are clients, as the publisher is.
            let figures = finish(command, std::mem::take(&mut others), seconds, EVENTS_WARM_UP_SECONDS);
            drop(subscribing);
            figures
        }
        Job::Stream { item, route } => {
            let others = start(candidate, route == Route::Relayed, true, 1)?;
            let mut command = client(candidate, "consume")?;
            command.args(["--item", &word(item)?, "--route", &word(route)?]);
            finish(command, others, seconds, (seconds / 4.0).clamp(0.1, 0.3))
        }
    }
}

/// Events need longer until they flow evenly: at first a whole window stands in the buffers of every subscriber.
const EVENTS_WARM_UP_SECONDS: f64 = 1.0;

/// Runs the client against the started processes, which end with this call.
fn finish(mut command: Command, others: Vec<Process>, seconds: f64, warm_up: f64) -> anyhow::Result<Figures> {
    let watched: Vec<_> = others.iter().map(|process| process.pid().to_string()).collect();
    command.args(["--at", &others[0].address.to_string(), "--watch", &watched.join(",")]).args([
        "--seconds",
        &seconds.to_string(),
        "--warm-up-seconds",
        &warm_up.to_string(),
    ]);
    let printed = output(command, Duration::from_secs_f64(seconds + 60.0))?;
    let mut figures: Figures =
        serde_json::from_str(printed.trim()).with_context(|| format!("no figures: {printed:?}"))?;
    figures.server_memory_kib = others.iter().map(|process| memory_kib(process.pid(), "VmHWM")).sum();
    Ok(figures)
}

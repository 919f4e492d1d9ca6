//! meshwork beside its peers. One program with several parts: `run` starts the other parts as processes of their own, since parts of
//! one process would share caches, allocator and scheduler.
//!
//! A file imports only from files further below:
//!
//! ```text
//! run                                        rounds of all cells, and the report
//! plan, plot                                 what is measured; diagrams
//! budget, scale                              what is promised; many connections, actions and subscriptions
//! table                                      medians and ratios
//! candidate, publish      programs           whose part a process is; the processes of a candidate
//! consume
//! candidate/*                                one file for each candidate, three for the raw echo and its broker
//! drive                                      which loop drives a client
//! closed_loop, open_loop  events, items      the loops; publishers and subscribers; consumers of streams
//! load, client            runtime, process   the options of a client, and its calls; its runtime and process
//! job                                        candidates and their jobs, in words
//! measure                                    the clock, and what the kernel says of a process
//! ```

mod budget;
mod candidate;
mod client;
mod closed_loop;
mod consume;
mod drive;
mod events;
mod items;
mod job;
mod load;
mod measure;
mod open_loop;
mod plan;
mod plot;
mod process;
mod programs;
mod publish;
mod run;
mod runtime;
mod scale;
mod table;

use clap::Parser;
use std::process::ExitCode;

/// The allocator of every Rust candidate is that of meshwork's own binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line.
#[derive(Parser)]
#[command(about = "meshwork beside its peers, in one run on one machine.")]
enum Part {
    /// Measure the candidates in turn and print one table of medians, then the budgets.
    Run(run::Options),
    /// Be the server, the broker or the provider of a candidate until stdin ends.
    Serve(candidate::Serve),
    /// Be the client of a candidate: call for a while and print one line of figures.
    Drive(load::Load),
    /// Be the subscribers of a candidate until stdin ends.
    Subscribe(publish::Subscribe),
    /// Be the publisher of a candidate: publish for a while and print one line of figures.
    Publish(events::Publish),
    /// Be the consumer of a candidate: read a stream for a while and print one line of figures.
    Consume(items::Consume),
    /// Hold, bind or register many at once: the processes behind `run --scale`.
    Scale(scale::Options),
}

fn main() -> ExitCode {
    let done = match Part::parse() {
        Part::Run(options) => run::run(&options),
        Part::Serve(options) => candidate::serve(&options),
        Part::Drive(options) => candidate::drive(&options),
        Part::Subscribe(options) => publish::subscribe(&options),
        Part::Publish(options) => publish::publish(&options),
        Part::Consume(options) => consume::consume(&options),
        Part::Scale(options) => scale::scale(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

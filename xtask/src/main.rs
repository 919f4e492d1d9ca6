//! The project's own tasks, called as `cargo xtask <task>`.
//!
//! [`mod@test`] is the one test command: a change that passes it may be merged. [`fuzz`] looks for bytes that break the decoders,
//! for as long as you like; [`simulate`] looks for a run of a
//! whole mesh that breaks a promise. Every task is a list of [`step`]s, and a step is a command line that you could type yourself.

mod api;
mod bench;
mod debian;
mod fuzz;
mod instructions;
mod node;
mod simulate;
mod step;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// The command line.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The project's own tasks.")]
enum Task {
    /// Check everything: format, lints, builds, docs, examples, licences, advisories and all tests.
    ///
    /// Installs cargo-deny and cargo-hack if they are missing. The output ends with the test runner's own summary.
    Test,
    /// Measure meshwork beside its peers and print the table and the budgets. Installs missing programs first.
    #[command(disable_help_flag = true)]
    Bench {
        /// The options of the bench: --quick, --json, --plot DIR, --scale, --rounds N, --seconds S, --only TEXT, --help.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Count the instructions of the hot paths under callgrind and compare the counts with their limits.
    Instructions {
        /// Record the counts as the new limits.
        #[arg(long)]
        record: bool,
    },
    /// Print the public API of the library, as it is in the sources.
    Api {
        /// Write it down in docs/public-api.txt, with which the tests compare it.
        #[arg(long)]
        record: bool,
    },
    /// Run every fuzz target in turn, each for a while.
    Fuzz {
        /// How long each target runs, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Run whole meshes under faults, each from a seed, and print the seeds that break a promise. The tests run the first thousand seeds.
    Simulate {
        /// How many seeds are run.
        #[arg(long, default_value_t = 10_000, conflicts_with = "seed")]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 0, conflicts_with = "seed")]
        from: u64,
        /// Runs this one seed, twice, and prints all that happened.
        #[arg(long)]
        seed: Option<u64>,
        /// Builds with optimizations: takes longer to build, and a fraction of the time for each seed.
        #[arg(long)]
        release: bool,
    },
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Printed here, since the runtime would add a backtrace: a command has failed, not a line of this program.
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    // Paths and cargo's choice of packages depend on the folder, so every task runs in the folder of the project that cargo runs. That
    // need not be the folder that this program was built in: two clones may share a target folder.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    std::env::set_current_dir(std::path::Path::new(&xtask).join(".."))?;
    match task {
        Task::Test => test::run(),
        Task::Bench { options } => bench::run(&options),
        Task::Instructions { record } => instructions::run(record),
        Task::Api { record } => api::run(record),
        Task::Fuzz { seconds } => fuzz::run(seconds),
        Task::Simulate { seed: Some(seed), release, .. } => simulate::run(seed, 1, release),
        Task::Simulate { seed: None, seeds, from, release } => simulate::run(from, seeds, release),
    }
}

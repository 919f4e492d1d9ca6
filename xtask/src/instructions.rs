//! Counting instructions, `cargo xtask instructions`: callgrind counts the instructions of the hot paths, and
//! `instructions/limits.toml` has their limits.
//!
//! This file installs valgrind and the runner of gungraun where they are missing. The package in `instructions/` counts and
//! compares.

use crate::debian;
use crate::step::Step;

/// The library that the benchmarks are linked with asks for a runner of exactly its own version.
const RUNNER_VERSION: &str = "0.20.0";

/// Counts, and compares the counts with the limits, or records the counts as the limits.
pub(crate) fn run(record: bool) -> anyhow::Result<()> {
    // The limits are for x86-64: another processor has other instructions.
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        eprintln!("\n!!! SKIPPED: instructions are counted on x86_64 Linux only.");
        return Ok(());
    }
    debian::need(&[("valgrind", "valgrind")])?;
    runner()?;
    Step::cargo(count(record)).run()
}

fn count(record: bool) -> String {
    let record = if record { " -- --record" } else { "" };
    format!("run --quiet --package meshwork-instructions{record}")
}

fn runner() -> anyhow::Result<()> {
    if debian::version("gungraun-runner").is_some_and(|text| is_runner(&text)) {
        return Ok(());
    }
    eprintln!("\ngungraun-runner {RUNNER_VERSION} is missing. Building it takes some minutes, once.");
    Step::cargo(format!("install gungraun-runner --locked --version {RUNNER_VERSION}")).run()
}

fn is_runner(version: &str) -> bool {
    version.split_whitespace().any(|word| word == RUNNER_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_runner_of_this_very_version_will_do() {
        assert!(is_runner("gungraun-runner 0.20.0\n"));
        assert!(!is_runner("gungraun-runner 0.20.1\n"));
        assert!(!is_runner(""));
    }

    #[test]
    fn the_runner_is_of_the_version_that_the_benchmarks_are_linked_with() {
        let manifest = include_str!("../../instructions/Cargo.toml");
        assert!(manifest.contains(&format!("gungraun = \"={RUNNER_VERSION}\"")), "{manifest}");
    }

    #[test]
    fn recording_is_said_to_the_program_and_not_to_cargo() {
        assert!(count(true).ends_with("meshwork-instructions -- --record"));
        assert!(count(false).ends_with("meshwork-instructions"));
    }

    #[test]
    fn what_is_not_there_has_no_version() {
        assert_eq!(debian::version("no-such-program-of-ours"), None);
    }
}

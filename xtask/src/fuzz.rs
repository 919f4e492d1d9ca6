//! Fuzzing, `cargo xtask fuzz`: every target in `fuzz/`, each for a while, through cargo-fuzz.
//!
//! Fuzzing is no part of the test command: on most days it finds nothing, and it never ends by itself. An input that breaks a
//! target becomes a test in the module of the fault.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::step::{Step, cargo_has};

/// Runs each fuzz target for this many seconds. The first crash ends the run; its input is kept in `fuzz/artifacts/`.
pub(crate) fn run(seconds: u64) -> anyhow::Result<()> {
    ensure!(
        Path::new("fuzz/Cargo.toml").is_file(),
        "there are no fuzz targets: fuzz/Cargo.toml does not exist"
    );
    ensure!(
        cargo_has("fuzz"),
        "cargo-fuzz is missing; install it with\n\n    cargo install cargo-fuzz --locked\n"
    );
    let targets = Step::cargo("fuzz list").output().context("cannot list the fuzz targets")?;
    for target in targets.lines() {
        step(target, seconds).run()?;
    }
    Ok(())
}

/// The command for one target.
fn step(target: &str, seconds: u64) -> Step {
    // The sanitizers are unstable options. Allowing them is enough; a second toolchain is not needed.
    Step::cargo(format!("fuzz run {target} -- -max_total_time={seconds}")).env("RUSTC_BOOTSTRAP", "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_runs_for_the_time_that_was_asked_for() {
        let line = step("frames", 7).to_string();
        assert_eq!(line, "RUSTC_BOOTSTRAP=\"1\" cargo fuzz run frames -- -max_total_time=7");
    }
}

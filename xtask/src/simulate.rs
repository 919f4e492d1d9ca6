//! The simulation, `cargo xtask simulate`: whole meshes under faults, each from a seed.
//!
//! The runs are an ignored test of `tests/simulation/seeds.rs`, which shares them among the processors, says which seeds failed, and writes
//! all that happened in each of them to a file.

use anyhow::{Context as _, ensure};

use crate::step::Step;

/// Runs so many seeds from this one on; a single seed tells all that happens. Fails if any seed does.
pub(crate) fn run(from: u64, seeds: u64, release: bool) -> anyhow::Result<()> {
    ensure!(seeds > 0, "no seed is to be run: --seeds is 1 or more");
    let to = from
        .checked_add(seeds)
        .context("a seed is at most 2^64 - 1: --from and --seeds are too large together")?;
    step(from, to, release).run()
}

/// The command for these seeds, the last one not among them.
fn step(from: u64, to: u64, release: bool) -> Step {
    let profile = if release { " --release" } else { "" };
    let test = "--test simulation -- seeds::the_seeds_that_were_asked_for --exact --ignored --nocapture";
    let step = Step::cargo(format!("test --quiet --package meshwork --all-features{profile} {test}"));
    // A backtrace would tell where the test counts its seeds.
    step.env("RUST_BACKTRACE", "0").env("MESHWORK_SEEDS", format!("{from}..{to}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_named_and_the_profile_is_asked_for() {
        let line = step(5, 9, true).to_string();
        assert!(
            line.starts_with("RUST_BACKTRACE=\"0\" MESHWORK_SEEDS=\"5..9\" cargo test --quiet"),
            "{line}"
        );
        assert!(
            line.contains(" --release --test simulation -- seeds::the_seeds_that_were_asked_for"),
            "{line}"
        );
        assert!(!step(5, 9, false).to_string().contains("--release"));
    }

    #[test]
    fn no_seeds_and_too_many_are_refused() {
        assert!(run(0, 0, false).is_err());
        let error = run(u64::MAX, 2, false).expect_err("there is no such seed");
        assert!(error.to_string().contains("--from and --seeds"), "{error}");
    }
}

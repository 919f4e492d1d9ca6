//! The bench, `cargo xtask bench`: installs the peers that are missing, builds everything in release mode, and runs the program in
//! `benches/`, which starts meshwork and its peers in turn.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::debian;
use crate::node;
use crate::step::Step;

/// Programs that the bench starts, and the Debian packages that they come in.
const PROGRAMS: [(&str, &str); 2] = [("nats-server", "nats-server"), ("redis-server", "redis-server")];

/// The peers on Node.js.
const NODE: &str = "benches/node";

/// Runs the bench with options of the bench.
pub(crate) fn run(options: &[String]) -> anyhow::Result<()> {
    let only_asks = options.iter().any(|option| option == "--help" || option == "-h");
    if !only_asks {
        debian::need(&PROGRAMS)?;
        debian::need(&node::PROGRAMS)?;
        node::packages(NODE)?;
    }
    Step::cargo("build --release --package meshwork-benches").run()?;
    let metadata = Step::cargo("metadata --format-version 1 --no-deps").output()?;
    let mut bench = Command::new(program(&metadata)?);
    bench.arg("run").args(options).stdin(Stdio::null());
    let status = bench.status().context("cannot run the bench")?;
    ensure!(status.success(), "the bench failed: {status}");
    Ok(())
}

/// The path of the built program, from the metadata of cargo.
fn program(metadata: &str) -> anyhow::Result<String> {
    let (_, rest) = metadata.split_once("\"target_directory\":\"").context("cargo names no target folder")?;
    let (folder, _) = rest.split_once('"').context("cargo's metadata is cut")?;
    Ok(format!("{folder}/release/meshwork-benches"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_where_cargo_says() {
        let metadata = r#"{"packages":[],"target_directory":"/tmp/target","version":1}"#;
        assert_eq!(program(metadata).unwrap(), "/tmp/target/release/meshwork-benches");
        assert!(program("{}").is_err());
    }
}

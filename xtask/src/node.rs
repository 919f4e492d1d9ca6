//! Packages of Node.js, as a lock file names them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// The programs that Node.js takes, and the Debian packages that they come in.
pub(crate) const PROGRAMS: [(&str, &str); 2] = [("node", "nodejs"), ("npm", "npm")];

/// Installs the packages of a folder, once.
pub(crate) fn packages(folder: &str) -> anyhow::Result<()> {
    if Path::new(folder).join("node_modules").is_dir() {
        return Ok(());
    }
    eprintln!("\n==> npm ci, in {folder}");
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]).current_dir(folder);
    // What it prints is progress, and stdout is for results.
    npm.stdin(Stdio::null()).stdout(Stdio::null());
    ensure!(npm.status().context("cannot run npm")?.success(), "npm ci failed in {folder}");
    Ok(())
}

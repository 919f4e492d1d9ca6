//! Packages of Node.js, as a lock file names them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// The programs that Node.js takes, and the Debian packages that they come in.
pub(crate) const PROGRAMS: [(&str, &str); 2] = [("node", "nodejs"), ("npm", "npm")];

/// Installs the packages of a folder, unless the packages of its lock file are installed.
pub(crate) fn packages(folder: &str) -> anyhow::Result<()> {
    let changed = |file: &str| Path::new(folder).join(file).metadata()?.modified();
    // npm lists the installed packages in a lock file of its own.
    if let Ok(installed) = changed("node_modules/.package-lock.json")
        && installed >= changed("package-lock.json")?
    {
        return Ok(());
    }
    eprintln!("\n==> npm ci, in {folder}");
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]).current_dir(folder);
    // npm prints progress, and stdout is for results.
    npm.stdin(Stdio::null()).stdout(Stdio::null());
    ensure!(npm.status().context("cannot run npm")?.success(), "npm ci failed in {folder}");
    Ok(())
}

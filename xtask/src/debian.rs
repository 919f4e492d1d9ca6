//! Programs that come as Debian packages: installed when they are missing.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// Installs the programs that are missing. Each is listed with its package.
pub(crate) fn need(programs: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(program, _)| version(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("\ninstalling through apt-get: {}", missing.join(" "));
    let status = Command::new("sh").args(["-c", &install(&missing)]).stdin(Stdio::null()).status();
    let installed = status.context("cannot run sh")?.success();
    let missing = missing.join(", ");
    ensure!(installed, "{missing} cannot be installed; do so by hand, with whatever installs your packages");
    Ok(())
}

/// The lines for a shell that install packages on Debian and its kin.
fn install(packages: &[&str]) -> String {
    format!(
        "if [ \"$(id -u)\" -eq 0 ]; then as_root=; else as_root=sudo; fi
        $as_root apt-get update >&2 &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {} >&2",
        packages.join(" ")
    )
}

/// The answer of a program to `--version`; none when the program is missing.
pub(crate) fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed_again() {
        need(&[("cargo", "no-such-package")]).expect("cargo runs this test");
        assert_eq!(version("no-such-program"), None);
    }

    #[test]
    fn packages_are_installed_by_name_and_without_a_question() {
        assert!(install(&["one", "two"]).contains("install --yes --no-install-recommends one two >&2"));
    }
}

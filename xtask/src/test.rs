//! The one test command, `cargo xtask test`: cheap checks first, the whole test suite last.
//!
//! The first step that fails ends the run. The suite comes last so that the output ends with the runner's own summary.
//! All steps build with all features, so each step uses the crates that an earlier step compiled.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::step::{Step, cargo_has};

/// How long an example may run. An example that is still running then waits for an event that never comes.
const EXAMPLE_TIME_MAX: Duration = Duration::from_secs(60);

/// How long fetching the advisories may take: seconds, unless the connection hangs, which counts as no network.
const ADVISORIES_FETCH_TIME_MAX: Duration = Duration::from_secs(120);

/// The original programs of other protocols, which tests drive.
const NODE: &str = "tests/node";

/// Runs every check of the project.
pub(crate) fn run() -> anyhow::Result<()> {
    for step in checks() {
        step.run()?;
    }
    examples()?;
    Step::cargo("doc --workspace --all-features --no-deps").env("RUSTDOCFLAGS", "-D warnings").run()?;
    dependencies()?;
    features()?;
    // Each crate is built as its users get it, from the files that are published.
    forget_packages().context("cannot remove what cargo has kept of earlier packages")?;
    let packages = format!("--target-dir {PACKAGES} --all-features --allow-dirty");
    Step::cargo(format!("package --workspace {UNPUBLISHED} {packages}")).run()?;
    crate::instructions::run(false)?;
    crate::debian::need(&crate::node::PROGRAMS)?;
    // An end of TLS that is not ours, and the maker of the certificates in docs/tls.md.
    crate::debian::need(&[("openssl", "openssl")])?;
    crate::node::packages(NODE)?;
    suite(cargo_has("nextest")).run_last()
}

/// The folder where cargo keeps what it has fetched and unpacked.
fn cargo_home() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

/// The folder in which packages are built. It is theirs, so that crates can be forgotten in it that are built for the other steps too.
const PACKAGES: &str = "target/packages";

/// Removes what cargo keeps of the crates of this project that were packaged before: what it has unpacked, and what it has built. It knows them by
/// name, version and folder, and would build the next packages with the earlier ones.
fn forget_packages() -> io::Result<()> {
    for registry in entries(&cargo_home().unwrap_or_default().join("registry/src")) {
        // The registry that holds packages before they are published has no name, only a number.
        let registry = registry?;
        if registry.file_name().to_string_lossy().starts_with('-') {
            forget_crates(&registry.path())?;
        }
    }
    forget_crates(&Path::new(PACKAGES).join("debug/.fingerprint"))
}

/// Removes the folders of the crates of this project.
fn forget_crates(folder: &Path) -> io::Result<()> {
    for entry in entries(folder) {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("meshwork") {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// What is in a folder: nothing if there is no such folder.
fn entries(folder: &Path) -> impl Iterator<Item = io::Result<std::fs::DirEntry>> {
    folder.read_dir().into_iter().flatten()
}

/// The steps that do not depend on the machine.
fn checks() -> Vec<Step> {
    vec![
        Step::cargo("fmt --all --check"),
        // The bench and its peers are linted, but built only by `cargo xtask bench`.
        Step::cargo("clippy --workspace --all-targets --all-features -- -D warnings"),
        Step::cargo("test --doc --workspace --all-features"),
    ]
}

/// Runs each example alone. Examples assert what they show, so an exit code of zero is a passed test.
fn examples() -> anyhow::Result<()> {
    // Built before, so that the time limit holds for running and not for compiling.
    Step::cargo("build --all-features --examples").run()?;
    for name in example_names(Path::new("examples")).context("cannot list the examples")? {
        Step::cargo(format!("run --quiet --all-features --example {name}")).within(EXAMPLE_TIME_MAX).run()?;
    }
    Ok(())
}

/// The names of the examples in this folder, by cargo's own rule: `name.rs` or `name/main.rs`.
fn example_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let is_example = path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").is_file();
        if let (true, Some(stem)) = (is_example, path.file_stem()) {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort_unstable(); // A folder has no order of its own, and all runs should print alike.
    Ok(names)
}

/// The crates that are not published.
const UNPUBLISHED: &str = "--exclude xtask --exclude meshwork-benches --exclude meshwork-instructions --exclude meshwork-example-orders";

/// Builds the library without features, with each alone, and with all: a feature adds, and needs no other one.
fn features() -> anyhow::Result<()> {
    if !cargo_has("hack") {
        eprintln!("\ncargo-hack is missing. Building it takes a minute, once.");
        Step::cargo("install cargo-hack --locked --version 0.6.46").run()?;
    }
    Step::cargo(
        "hack clippy --package meshwork --package meshwork-actors --lib --each-feature -- -D warnings",
    )
    .run()
}

/// What cargo-deny looks at: every crate but the bench. Nobody builds the bench but to measure, and the dependencies of its peers are theirs.
const DENY: &str = "deny --workspace --exclude meshwork-benches --all-features";

/// Checks licences, sources and advisories of all dependencies, as `deny.toml` asks.
fn dependencies() -> anyhow::Result<()> {
    if !cargo_has("deny") {
        eprintln!("\ncargo-deny is missing. Building it takes some minutes, once.");
        Step::cargo("install cargo-deny --locked --version 0.20.2").run()?;
    }
    Step::cargo(format!("{DENY} check licenses bans sources")).run()?;
    // Fetching is a step of its own, so that a lost network is never mistaken for an advisory.
    match Step::cargo(format!("{DENY} fetch db")).within(ADVISORIES_FETCH_TIME_MAX).run() {
        Ok(()) => Step::cargo(format!("{DENY} --offline check advisories")).run(),
        Err(error) => {
            eprintln!("\n!!! SKIPPED: the advisory database cannot be reached, as the lines above say, so");
            eprintln!("!!! the dependencies were NOT checked for known holes. {error}");
            Ok(())
        }
    }
}

/// All unit and integration tests of all crates. Doc tests have run before: nextest does not know them.
fn suite(has_nextest: bool) -> Step {
    let runner = if has_nextest { "nextest run" } else { "test" };
    // Benches stay out: run as tests they would take their time and measure nothing.
    Step::cargo(format!("{runner} --workspace --all-features --lib --bins --tests --no-fail-fast"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_this_project_are_forgotten_and_all_others_kept() {
        let folder = std::env::temp_dir().join(format!("meshwork-forgotten-{}", std::process::id()));
        let (gone, kept) = (["meshwork-0.1.0", "meshwork-wire-0.1.0"], ["serde-1.0.0", "a-meshwork-1.0.0"]);
        for name in gone.iter().chain(&kept) {
            std::fs::create_dir_all(folder.join(name).join("src")).expect("a folder");
        }
        forget_crates(&folder).expect("removed");
        assert!(gone.iter().all(|name| !folder.join(name).exists()));
        assert!(kept.iter().all(|name| folder.join(name).exists()));
        std::fs::remove_dir_all(&folder).expect("removed");
        forget_crates(&folder).expect("there is nothing to forget");
    }

    #[test]
    fn the_suite_falls_back_to_what_cargo_brings() {
        assert!(suite(true).to_string().starts_with("cargo nextest run --workspace"));
        assert!(suite(false).to_string().starts_with("cargo test --workspace"));
    }

    #[test]
    fn both_kinds_of_example_are_found_in_order() {
        let folder = std::env::temp_dir().join(format!("meshwork-xtask-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("chat")).unwrap();
        std::fs::create_dir_all(folder.join("pictures")).unwrap();
        for file in ["hello.rs", "chat/main.rs", "chat/room.rs", "adder.rs", "README.md", "pictures/a.svg"] {
            std::fs::write(folder.join(file), "").unwrap();
        }
        assert_eq!(example_names(&folder).unwrap(), ["adder", "chat", "hello"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

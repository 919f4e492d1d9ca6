//! A step: one command line, announced, run, timed. Which command lines make a task is decided elsewhere.
//!
//! [`Step::run`] prints the command line as you would type it, so that a step that failed can be repeated by hand.

use std::fmt;
use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use wait_timeout::ChildExt as _;

/// A cargo command with its environment and, perhaps, a time limit.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    env: Vec<(&'static str, String)>,
    args: Vec<String>,
    limit: Option<Duration>,
}

impl Step {
    /// `cargo` with these arguments, which are separated by spaces and hold none themselves.
    pub(crate) fn cargo(args: impl AsRef<str>) -> Self {
        let args = args.as_ref().split_whitespace().map(str::to_owned).collect();
        Self { env: Vec::new(), args, limit: None }
    }

    /// Sets an environment variable for this command only.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Kills the command when it takes longer than this, and counts that as a failure. Default: no limit.
    ///
    /// Only the command itself is killed. That is enough for `cargo run` and for cargo's plug-ins, since cargo becomes
    /// the program that it starts.
    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Announces the step on stderr, runs it, and says how long it took.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        self.run_last()?;
        eprintln!("    took {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    }

    /// As [`Step::run`], but prints nothing after the last line of the command.
    pub(crate) fn run_last(&self) -> anyhow::Result<()> {
        eprintln!("\n==> {self}");
        let status = self.status().with_context(|| format!("cannot run {self}"))?;
        let why = match status {
            Some(status) if status.success() => return Ok(()),
            Some(status) => status.to_string(),
            None => format!("still running after {:?}", self.limit.unwrap_or_default()),
        };
        bail!("{why}; repeat this step by hand with\n\n    {self}\n")
    }

    /// Runs the command and gives its stdout; an error if the command fails.
    pub(crate) fn output(&self) -> anyhow::Result<String> {
        let output = self.command().output().with_context(|| format!("cannot run {self}"))?;
        ensure!(
            output.status.success(),
            "{self}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the command to its end, or to its time limit; then there is no status.
    fn status(&self) -> io::Result<Option<ExitStatus>> {
        // Without a terminal to read from, a program that asks a question fails at once and does not wait.
        let mut child = self.command().stdin(Stdio::null()).spawn()?;
        let Some(limit) = self.limit else { return child.wait().map(Some) };
        let status = child.wait_timeout(limit)?;
        if status.is_none() {
            child.kill()?;
            child.wait()?;
        }
        Ok(status)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("cargo");
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The step as a line for a shell.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}=\"{value}\" ")?;
        }
        write!(f, "cargo {}", self.args.join(" "))
    }
}

/// Whether cargo has this command, built in or installed.
pub(crate) fn cargo_has(subcommand: &str) -> bool {
    Step::cargo(format!("{subcommand} --version")).output().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_reads_as_a_line_for_a_shell() {
        let step = Step::cargo("doc  --no-deps").env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(step.to_string(), "RUSTDOCFLAGS=\"-D warnings\" cargo doc --no-deps");
    }

    #[test]
    fn a_failed_step_names_the_command_to_repeat() {
        let error = Step::cargo("no-such-command").run().expect_err("cargo has no such command");
        assert!(error.to_string().contains("by hand with\n\n    cargo no-such-command\n"), "{error}");
    }

    #[test]
    fn a_step_that_takes_too_long_is_a_failure() {
        // No program starts, says its version and ends within no time at all.
        let error = Step::cargo("--version").within(Duration::ZERO).run().expect_err("no time was given");
        assert!(error.to_string().starts_with("still running"), "{error}");
    }

    #[test]
    fn cargo_has_what_it_brings_and_not_what_nobody_wrote() {
        assert!(cargo_has("fmt"));
        assert!(!cargo_has("no-such-command"));
    }
}

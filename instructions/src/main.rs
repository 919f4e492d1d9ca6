//! Counts the instructions of the benchmarks in `benches/counted` and compares the counts with `limits.toml`, or records them.
//!
//! `cargo xtask instructions` calls this program, after it has installed valgrind and the runner of gungraun. [`limits`] judges the
//! counts; this file runs the benchmarks, reads the counts and prints the findings.

mod limits;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use limits::{Counts, Finding, Limits, RECORD};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

/// The file of the limits, from the folder of the project: `cargo xtask` runs everything there.
const LIMITS: &str = "instructions/limits.toml";

/// The place of the count in a summary of gungraun, in version 7 of its format.
const COUNT: &str = "/profiles/0/data/total/metrics/Ir/values/new";

/// The command line.
#[derive(Parser)]
#[command(about = "Counts instructions and holds them against the limits.")]
struct Arguments {
    /// Record the counts as the new limits.
    #[arg(long)]
    record: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse().record) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(record: bool) -> anyhow::Result<()> {
    let before = Path::new(LIMITS)
        .exists()
        .then(|| fs::read_to_string(LIMITS).context(LIMITS).and_then(|text| Limits::read(&text)))
        .transpose()?;
    let (counts, compiler) = (counts()?, compiler()?);
    if record {
        let limits = Limits::recorded(before.as_ref(), counts, compiler);
        fs::write(LIMITS, limits.write()).context(LIMITS)?;
        println!("recorded in {LIMITS}");
        return Ok(());
    }
    let limits = before.with_context(|| format!("there is no {LIMITS}: record with `{RECORD}`"))?;
    let mut broken = 0;
    for finding in limits.judge(&counts, &compiler) {
        match finding {
            Finding::Kept(text) => println!("ok    {text}"),
            Finding::Loose(text) => println!("WARN  {text}"),
            Finding::Broken(text) => {
                broken += 1;
                println!("FAIL  {text}");
            }
        }
    }
    ensure!(broken == 0, "{broken} of the counts above must not stay so");
    Ok(())
}

/// Runs the benchmarks, which takes some seconds when they are built.
fn counts() -> anyhow::Result<Counts> {
    let bench = "bench --quiet --package meshwork-instructions --bench counted -- --output-format=json";
    let mut counts = Counts::new();
    for line in output("CARGO", "cargo", bench)?.lines().filter(|line| line.starts_with('{')) {
        let summary: Value = serde_json::from_str(line).context("gungraun writes no JSON")?;
        let (name, count) = read(&summary)?;
        if counts.insert(name.clone(), count).is_some() {
            bail!("two benchmarks are called {name}: a limit could not tell them apart");
        }
    }
    ensure!(!counts.is_empty(), "gungraun has counted nothing");
    Ok(counts)
}

/// The name of a benchmark and its count.
fn read(summary: &Value) -> anyhow::Result<(String, u64)> {
    let name = summary.get("function_name").and_then(Value::as_str).context("a summary without a name")?;
    let count = summary.pointer(COUNT).and_then(Value::as_u64).with_context(|| {
        format!("the summary of {name} has no count at {COUNT}: has gungraun changed its form?")
    })?;
    Ok((name.to_owned(), count))
}

fn compiler() -> anyhow::Result<String> {
    Ok(output("RUSTC", "rustc", "--version")?.trim().to_owned())
}

/// The stdout of a tool with these arguments, which are separated by spaces and hold none themselves. cargo names the tool in an
/// environment variable when it runs this program.
fn output(variable: &str, tool: &str, arguments: &str) -> anyhow::Result<String> {
    let output = Command::new(env::var_os(variable).unwrap_or_else(|| tool.into()))
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {tool} {arguments}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{tool} {arguments}: {}\n{text}", output.status);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read() {
        let text = r#"{"function_name":"relay","profiles":[{"data":{"total":{"metrics":{"Ir":{"values":{"new":7,"old":8}}}}}}]}"#;
        assert_eq!(read(&serde_json::from_str(text).unwrap()).unwrap(), ("relay".to_owned(), 7));
    }

    #[test]
    fn a_summary_of_another_form_is_no_count_of_zero() {
        let error = read(&serde_json::from_str(r#"{"function_name":"relay"}"#).unwrap()).unwrap_err();
        assert!(error.to_string().contains("relay"), "{error}");
    }
}

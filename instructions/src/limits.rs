//! The limits of the benchmarks, as they stand in `limits.toml`, and the comparison of counts with limits. Pure.

use anyhow::Context as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How many instructions each benchmark took.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The command that records today's counts as the limits.
pub(crate) const RECORD: &str = "cargo xtask instructions --record";

/// The tolerance above a limit, in percent, when there is no file yet. Two runs of one binary differ by 0.5 % at most: the seeds of
/// hash maps come from addresses. The rest is for other processors, on which memcpy takes other instructions.
const TOLERANCE_PERCENT: u64 = 3;

/// The file, `instructions/limits.toml`.
#[derive(Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// How far a count may be from its limit.
    tolerance_percent: u64,
    /// The compiler that the limits were recorded with. Another compiler makes other code.
    compiler: String,
    instructions: Counts,
}

/// The result of comparing a count with its limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Finding {
    /// The count is at its limit, within the tolerance.
    Kept(String),
    /// The count is below its limit by more than the tolerance: until the limit is lowered, the gain can be lost again unseen.
    Loose(String),
    /// The count is above its limit, or there is no limit: the check fails.
    Broken(String),
}

impl Limits {
    pub(crate) fn read(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).context("the limits cannot be read")
    }

    /// Limits that are equal to these counts. The tolerance of the limits before is kept: a person has chosen it.
    pub(crate) fn recorded(before: Option<&Self>, counts: Counts, compiler: String) -> Self {
        let tolerance_percent = before.map_or(TOLERANCE_PERCENT, |before| before.tolerance_percent);
        Self { tolerance_percent, compiler, instructions: counts }
    }

    pub(crate) fn write(&self) -> String {
        let mut text = format!(
            "# How many instructions each benchmark takes, as callgrind counts them. A count that is above its limit by more\n\
             # than the tolerance fails; one that is as far below it asks for a lower limit.\n\
             #\n\
             # Written by `{RECORD}`. The tolerance is yours to change: two runs of one binary\n\
             # differ by 0.5 % at most, another processor by what its memcpy takes more or less.\n\
             tolerance_percent = {}\n\
             compiler = {:?}\n\
             \n\
             [instructions]\n",
            self.tolerance_percent, self.compiler
        );
        for (name, count) in &self.instructions {
            // Writing into a text does not fail.
            let _ = writeln!(text, "{name} = {count}");
        }
        text
    }

    /// Compares the counts with the limits, benchmark by benchmark.
    pub(crate) fn judge(&self, counts: &Counts, compiler: &str) -> Vec<Finding> {
        let counted = counts.iter().map(|(name, count)| self.judge_one(name, *count, compiler));
        let left_over = self.instructions.keys().filter(|name| !counts.contains_key(*name));
        let left_over = left_over.map(|name| {
            Finding::Broken(format!("{name} has a limit and is not counted: record with `{RECORD}`"))
        });
        counted.chain(left_over).collect()
    }

    fn judge_one(&self, name: &str, count: u64, compiler: &str) -> Finding {
        let Some(&limit) = self.instructions.get(name) else {
            return Finding::Broken(format!(
                "{name} takes {count} instructions and has no limit: record with `{RECORD}`"
            ));
        };
        let tolerance = self.tolerance_percent;
        let change = (count as f64 / limit as f64 - 1.0) * 100.0;
        let figures = format!("{name} takes {count} instructions, its limit is {limit} ({change:+.2} %)");
        if count * 100 > limit * (100 + tolerance) {
            let other = if compiler == self.compiler {
                String::new()
            } else {
                format!(" The limit is of {}, and this is {compiler}.", self.compiler)
            };
            Finding::Broken(format!(
                "{figures}, and {tolerance} % are tolerated.{other} Find what it does more than before; if that is worth it, \
                 record with `{RECORD}` and say why in the commit"
            ))
        } else if count * 100 < limit * 100_u64.saturating_sub(tolerance) {
            Finding::Loose(format!("{figures}. ratchet: lower the limit with `{RECORD}`"))
        } else {
            Finding::Kept(figures)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let counts = Counts::from([("relay".to_owned(), 1_000), ("resolve".to_owned(), 2_000)]);
        Limits { tolerance_percent: 5, compiler: "rustc 1".to_owned(), instructions: counts }
    }

    fn judged(relay: u64) -> Finding {
        limits().judge_one("relay", relay, "rustc 1")
    }

    #[test]
    fn what_was_written_is_read_again() {
        assert_eq!(Limits::read(&limits().write()).unwrap(), limits());
    }

    #[test]
    fn a_count_within_the_tolerance_is_kept() {
        for count in [950, 1_000, 1_050] {
            assert!(matches!(judged(count), Finding::Kept(_)), "{count}");
        }
    }

    #[test]
    fn a_count_above_the_tolerance_names_all_that_is_needed() {
        let Finding::Broken(why) = judged(1_051) else { panic!("it is above") };
        for part in ["relay", "1051", "1000", "5 %", RECORD] {
            assert!(why.contains(part), "{why}");
        }
        assert!(!why.contains("rustc"), "{why}");
        let Finding::Broken(why) = limits().judge_one("relay", 1_051, "rustc 2") else {
            panic!("it is above")
        };
        assert!(why.contains("rustc 1, and this is rustc 2"), "{why}");
    }

    #[test]
    fn a_count_far_below_asks_for_a_lower_limit() {
        let Finding::Loose(why) = judged(949) else { panic!("it is below") };
        assert!(why.contains("ratchet: lower the limit"), "{why}");
    }

    #[test]
    fn a_benchmark_without_a_limit_and_a_limit_without_a_benchmark_are_broken() {
        let counts = Counts::from([("relay".to_owned(), 1_000), ("new".to_owned(), 1)]);
        let found = limits().judge(&counts, "rustc 1");
        let broken: Vec<_> = found.iter().filter(|it| matches!(it, Finding::Broken(_))).collect();
        assert_eq!((found.len(), broken.len()), (3, 2), "{found:?}");
    }

    #[test]
    fn recording_keeps_the_tolerance() {
        let counts = Counts::from([("relay".to_owned(), 1)]);
        let recorded = Limits::recorded(Some(&limits()), counts.clone(), "rustc 2".to_owned());
        let expected = Limits { tolerance_percent: 5, compiler: "rustc 2".to_owned(), instructions: counts };
        assert_eq!(recorded, expected);
    }
}

//! The budgets, each a ratio of medians of one run, and whether they were met.

use crate::job::Candidate::{self, Meshwork, Nats, Raw, Rawtask, Redis, Tarpc, Tonic};
use crate::job::{Ends, Form, Job, Route, Work};
use crate::table::{Row, find, short};
use serde::Serialize;

/// What is promised of the ratio between two measurements of one run.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    work: String,
    ours: (Job, Candidate),
    theirs: (Job, Candidate),
    at_least: f64,
}

/// A budget, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) work: String,
    pub(crate) against: String,
    pub(crate) at_least: f64,
    /// None when one of the two was not measured.
    pub(crate) ratio: Option<f64>,
    pub(crate) met: bool,
}

/// Every budget of a rate.
pub(crate) fn budgets() -> Vec<Budget> {
    let mut budgets = Vec::new();
    let mut against = |job: Job, others: &[(Candidate, f64)]| {
        for (other, at_least) in others {
            budgets.push(Budget {
                work: job.to_string(),
                ours: (job, Meshwork),
                theirs: (job, *other),
                at_least: *at_least,
            });
        }
    };
    let direct = |work, in_flight| Job::call(work, Route::Direct, in_flight);
    against(direct(Work::Add, 1), &[(Raw, 0.85), (Tarpc, 1.15)]);
    against(direct(Work::Add, 64), &[(Rawtask, 0.55), (Tarpc, 3.5), (Tonic, 20.0)]);
    against(direct(Work::Add, 1024), &[(Rawtask, 0.45), (Tarpc, 4.5)]);
    for (in_flight, at_least) in [(1, 1.5), (64, 4.0), (1024, 5.5)] {
        against(Job::call(Work::Add, Route::Relayed, in_flight), &[(Nats, at_least)]);
    }
    against(direct(Work::Echo1K, 64), &[(Tarpc, 4.5)]);
    against(direct(Work::Echo1K, 1024), &[(Tarpc, 4.0)]);
    against(direct(Work::Echo64K, 64), &[(Raw, 0.8)]);
    for ends in [Ends::Own, Ends::Bytes] {
        for subscribers in [1, 10, 100] {
            against(Job::Publish { subscribers, ends }, &[(Nats, 1.5), (Redis, 1.5)]);
        }
    }
    // These two are meshwork against itself.
    let of_form = |form, in_flight| Job::Call {
        work: Work::Add,
        route: Route::Direct,
        form,
        in_flight,
        connections: 1,
        arbiters: 1,
    };
    for (form, in_flight, at_least) in [(Form::Many, 1024, 2.0), (Form::Message, 64, 0.5)] {
        let job = of_form(form, in_flight);
        let single = (direct(Work::Add, in_flight), Meshwork);
        budgets.push(Budget { work: job.to_string(), ours: (job, Meshwork), theirs: single, at_least });
    }
    budgets
}

/// Holds the rows of a run against the budgets.
pub(crate) fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    let verdict = |budget: Budget| {
        let rate = |(job, candidate)| find(rows, job, candidate).map(|row| row.rate);
        let (ours, theirs) = (rate(budget.ours), rate(budget.theirs));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        let against = if budget.ours.0 == budget.theirs.0 {
            budget.theirs.1.to_string()
        } else {
            format!("{} with single calls", budget.theirs.1)
        };
        let met = ratio.is_some_and(|ratio| ratio >= budget.at_least);
        Verdict { work: budget.work, against, at_least: budget.at_least, ratio, met }
    };
    budgets().into_iter().map(verdict).collect()
}

/// The lines for people.
pub(crate) fn lines(verdicts: &[Verdict]) -> Vec<String> {
    let line = |verdict: &Verdict| {
        let (state, ratio) = match verdict.ratio {
            None => ("not measured", String::new()),
            Some(ratio) => (if verdict.met { "met" } else { "MISSED" }, format!("{} x, ", short(ratio))),
        };
        format!(
            "{state:<12} {:<46} {ratio}asked: {} x {}",
            verdict.work,
            short(verdict.at_least),
            verdict.against
        )
    };
    verdicts.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figures;

    fn row(candidate: Candidate, rate: u64) -> Row {
        let figures = Figures {
            count: rate,
            seconds: 1.0,
            client_cpu_us: 1.0,
            server_cpu_us: 1.0,
            latencies_us: Vec::new(),
            server_memory_kib: 1,
        };
        Row::new(Job::call(Work::Add, Route::Direct, 1), candidate, &[figures])
    }

    #[test]
    fn a_budget_is_met_missed_or_not_measured() {
        let verdicts = verdicts(&[row(Meshwork, 90), row(Raw, 100), row(Tarpc, 89)]);
        assert_eq!((verdicts[0].met, verdicts[0].ratio), (true, Some(0.9)));
        assert_eq!((verdicts[1].met, verdicts[1].at_least), (false, 1.15));
        assert_eq!((verdicts[2].met, verdicts[2].ratio), (false, None));
    }

    #[test]
    fn whatever_a_budget_needs_is_in_the_quick_plan() {
        for budget in budgets() {
            for (job, candidate) in [budget.ours, budget.theirs] {
                let planned = crate::plan::cells(true)
                    .iter()
                    .any(|cell| cell.job == job && cell.candidates.contains(&candidate));
                assert!(planned, "{job}, {candidate}");
            }
        }
    }
}

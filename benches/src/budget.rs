//! The budgets, each a ratio of medians of one run, and whether they were met.
//!
//! meshwork is compared with the better set-up of a peer that has several, whichever is the better one in this run. All budgets are for
//! meshwork by default, without busy polling.

use crate::job::Candidate::{
    self, Meshwork, Nats, NatsOneThread, Raw, Rawtask, Tarpc, TarpcOneThread, Tonic, TonicOneThread,
};
use crate::job::{Ends, Form, Item, Job, Route, Work};
use crate::table::{Row, find, short};
use serde::Serialize;
use std::fmt;

/// A promise about meshwork at a job, compared with a peer, at that job or at another.
#[derive(Clone, Debug)]
struct Budget {
    job: Job,
    their_job: Job,
    /// The candidates that meshwork is compared with: with the best of them.
    theirs: &'static [Candidate],
    asked: Asked,
}

/// The bound that a budget asks for.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Asked {
    /// A rate of at least this many times the peer's.
    RateAtLeast(f64),
    /// Processor time for each call, of all processes together, of at most this many times the peer's.
    CpuAtMost(f64),
    /// Memory of at most this many KiB, whatever peers take.
    KibAtMost(f64),
}

/// A budget, and its outcome.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    work: String,
    asked: Asked,
    /// The set-up that meshwork was compared with: the best of a peer's. None for a budget without a peer.
    against: Option<String>,
    /// The measured value, in the unit of `asked`. None when meshwork or the peer was not measured.
    measured: Option<f64>,
    pub(crate) met: bool,
}

/// The set-ups of the peers that have several.
const TARPC: &[Candidate] = &[Tarpc, TarpcOneThread];
const TONIC: &[Candidate] = &[Tonic, TonicOneThread];
const NATS: &[Candidate] = &[Nats, NatsOneThread];

/// How much memory of the master an idle branch may take, in KiB, when there are 10,000.
const IDLE_BRANCH_KIB: f64 = 7.0;

fn budgets() -> Vec<Budget> {
    use Asked::{CpuAtMost, RateAtLeast};
    let mut budgets = Vec::new();
    let mut against = |job, theirs, asked| budgets.push(Budget { job, their_job: job, theirs, asked });
    let direct = |work, in_flight| Job::call(work, Route::Direct, in_flight);
    for (in_flight, theirs, at_least) in [
        (1, &[Raw][..], 0.92),
        (1, TARPC, 1.1),
        (64, &[Rawtask], 1.2),
        (64, TARPC, 4.0),
        (1024, &[Rawtask], 0.65),
        (1024, TARPC, 5.5),
    ] {
        against(direct(Work::Add, in_flight), theirs, RateAtLeast(at_least));
    }
    for (in_flight, at_least) in [(1, 1.4), (64, 3.0), (1024, 6.0)] {
        against(Job::call(Work::Add, Route::Relayed, in_flight), NATS, RateAtLeast(at_least));
    }
    for in_flight in [64, 1024] {
        against(direct(Work::Echo1K, in_flight), TARPC, RateAtLeast(3.5));
    }
    against(direct(Work::Echo64K, 64), &[Raw], RateAtLeast(0.9));
    for (subscribers, at_least) in [(1, 1.8), (10, 3.0), (100, 3.5)] {
        against(Job::Publish { subscribers, ends: Ends::Own }, NATS, RateAtLeast(at_least));
    }
    against(Job::Open { rate_per_second: 20_000, route: Route::Direct }, &[Raw], CpuAtMost(1.25));
    // The raw socket has a relay in the middle too.
    let stream = |item, route| Job::Stream { item, route };
    against(stream(Item::Piece64K, Route::Relayed), &[Raw], RateAtLeast(0.6));
    // tonic has no relay, so a stream that meshwork relays is compared with one that comes straight from its producer.
    budgets.push(Budget {
        job: stream(Item::Bytes128, Route::Relayed),
        their_job: stream(Item::Bytes128, Route::Direct),
        theirs: TONIC,
        asked: RateAtLeast(5.0),
    });
    // No peer has these forms of calls, so they are compared with single calls.
    for (form, at_least) in [(Form::Message, 0.4), (Form::Many, 1.2)] {
        budgets.push(Budget {
            job: Job::add_in_form(form, 1024),
            their_job: direct(Work::Add, 1024),
            theirs: &[Rawtask],
            asked: RateAtLeast(at_least),
        });
    }
    budgets
}

/// The candidates that must be measured at each job, so that every budget has its peer.
pub(crate) fn needed() -> Vec<(Job, Candidate)> {
    let mut needed = Vec::new();
    for budget in budgets() {
        let theirs = budget.theirs.iter().map(|candidate| (budget.their_job, *candidate));
        for one in theirs.chain([(budget.job, Meshwork)]) {
            if !needed.contains(&one) {
                needed.push(one);
            }
        }
    }
    needed
}

/// Compares the rows of a run with the budgets.
pub(crate) fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    budgets().iter().map(|budget| verdict(budget, rows)).collect()
}

fn verdict(budget: &Budget, rows: &[Row]) -> Verdict {
    let asked = budget.asked;
    // The more the better, so that the best is the largest.
    let measure = |row: &Row| match asked {
        Asked::RateAtLeast(_) => row.rate,
        Asked::CpuAtMost(_) | Asked::KibAtMost(_) => -row.cpu_us(),
    };
    let ours = find(rows, budget.job, Meshwork).map(measure);
    let set_ups: Option<Vec<_>> = (budget.theirs.iter())
        .map(|candidate| Some((*candidate, measure(find(rows, budget.their_job, *candidate)?))))
        .collect();
    let best = set_ups.and_then(|set_ups| set_ups.into_iter().max_by(|one, other| one.1.total_cmp(&other.1)));
    let against = best.map_or(budget.theirs[0], |(candidate, _)| candidate).to_string();
    let against = match budget.their_job {
        same if same == budget.job => against,
        Job::Stream { route, .. } => format!("{against}, {route}"),
        _ => format!("{against} with single calls"),
    };
    let measured = ours.zip(best).map(|(ours, (_, theirs))| ours / theirs);
    Verdict::new(budget.job.to_string(), asked, Some(against), measured)
}

/// Compares the memory of one idle branch of 10,000 with its budget.
pub(crate) fn idle_branch(kib: f64) -> Verdict {
    let work = "idle branch, of 10,000".to_owned();
    Verdict::new(work, Asked::KibAtMost(IDLE_BRANCH_KIB), None, Some(kib))
}

impl Verdict {
    fn new(work: String, asked: Asked, against: Option<String>, measured: Option<f64>) -> Self {
        let met = measured.is_some_and(|measured| match asked {
            Asked::RateAtLeast(least) => measured >= least,
            Asked::CpuAtMost(most) | Asked::KibAtMost(most) => measured <= most,
        });
        Self { work, asked, against, measured, met }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::RateAtLeast(least) => write!(f, "at least {} x", short(*least)),
            Asked::CpuAtMost(most) => write!(f, "at most {} x the processor time of", short(*most)),
            Asked::KibAtMost(most) => write!(f, "at most {} KiB", short(*most)),
        }
    }
}

/// The line for people.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.measured {
            None => "not measured",
            Some(_) if self.met => "met",
            Some(_) => "MISSED",
        };
        let unit = if matches!(self.asked, Asked::KibAtMost(_)) { "KiB" } else { "x" };
        let measured = self.measured.map_or_else(String::new, |it| format!("{} {unit}, ", short(it)));
        write!(f, "{state:<12} {:<46} {measured}asked: {}", self.work, self.asked)?;
        self.against.as_ref().map_or(Ok(()), |against| write!(f, " {against}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figures;

    fn row(job: Job, candidate: Candidate, rate: u64, cpu_us: f64) -> Row {
        let figures = Figures {
            count: rate,
            seconds: 1.0,
            client_cpu_us: cpu_us / 2.0,
            server_cpu_us: cpu_us / 2.0,
            latencies_us: Vec::new(),
            server_memory_kib: 1,
        };
        Row::new(job, candidate, &[figures])
    }

    fn of<'a>(verdicts: &'a [Verdict], job: Job, against: &str) -> &'a Verdict {
        let found = verdicts.iter().find(|it| {
            it.work == job.to_string() && it.against.as_ref().is_some_and(|it| it.starts_with(against))
        });
        found.expect("there is such a budget")
    }

    #[test]
    fn a_budget_is_met_missed_or_not_measured() {
        let job = Job::call(Work::Add, Route::Direct, 1);
        let verdicts = verdicts(&[row(job, Meshwork, 90, 1.0), row(job, Raw, 100, 1.0)]);
        let raw = of(&verdicts, job, "raw echo");
        assert_eq!((raw.met, raw.measured, raw.asked), (false, Some(0.9), Asked::RateAtLeast(0.92)));
        let tarpc = of(&verdicts, job, "tarpc");
        assert_eq!((tarpc.met, tarpc.measured), (false, None));
    }

    #[test]
    fn a_peer_is_held_against_with_the_better_of_its_set_ups() {
        let job = Job::call(Work::Add, Route::Direct, 64);
        let mut rows = vec![row(job, Meshwork, 400, 1.0), row(job, Tarpc, 50, 1.0)];
        assert_eq!(of(&verdicts(&rows), job, "tarpc").measured, None, "the other one may be better");
        rows.push(row(job, TarpcOneThread, 100, 1.0));
        let verdicts = verdicts(&rows);
        let verdict = of(&verdicts, job, "tarpc (one thread)");
        assert_eq!((verdict.met, verdict.measured), (true, Some(4.0)));
    }

    #[test]
    fn processor_time_and_memory_may_be_so_much_at_most() {
        let job = Job::Open { rate_per_second: 20_000, route: Route::Direct };
        for (cpu_us, met) in [(25.0, true), (26.0, false)] {
            let verdicts = verdicts(&[row(job, Meshwork, 1, cpu_us), row(job, Raw, 1, 20.0)]);
            let verdict = of(&verdicts, job, "raw echo");
            assert_eq!((verdict.met, verdict.measured), (met, Some(cpu_us / 20.0)));
        }
        assert!(idle_branch(7.0).met && !idle_branch(7.1).met);
    }
}

//! The plan of a run: every cell of the table, and its candidates.

use crate::budget;
use crate::job::{Candidate, Ends, Form, Item, Job, RATES_PER_SECOND, Route, Work};

/// One piece of work, done by each of several candidates in turn.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) job: Job,
    pub(crate) candidates: Vec<Candidate>,
}

/// How many calls are in flight where all candidates are measured.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// How many calls are in flight besides, for `add`, direct.
const IN_FLIGHT_BETWEEN: [usize; 3] = [128, 256, 300];

/// Every cell of the full table, or only the cells and candidates that the budgets need.
pub(crate) fn cells(quick: bool) -> Vec<Cell> {
    let mut cells = all();
    if quick {
        let needed = budget::needed();
        for cell in &mut cells {
            cell.candidates.retain(|candidate| needed.contains(&(cell.job, *candidate)));
        }
        cells.retain(|cell| !cell.candidates.is_empty());
    }
    cells
}

fn all() -> Vec<Cell> {
    use Candidate::{
        Dnode, Jsonrpsee, Meshwork, MeshworkPolling, Moleculer, Nats, NatsOneThread, Raw, RawPolling,
        Rawtask, Redis, Tarpc, TarpcOneThread, Tonic, TonicOneThread, Zenoh,
    };
    let mut cells = Vec::new();
    let mut cell = |job, candidates: &[&[Candidate]]| {
        cells.push(Cell { job, candidates: candidates.concat() });
    };
    for work in [Work::Add, Work::Echo1K, Work::Echo64K] {
        for in_flight in IN_FLIGHT {
            let ours: &[_] = match (work, in_flight) {
                (Work::Add, 1 | 64) => &[Raw, RawPolling, Rawtask, Meshwork, MeshworkPolling],
                _ => &[Raw, Rawtask, Meshwork],
            };
            let peers = [Tarpc, TarpcOneThread, Tonic, TonicOneThread, Jsonrpsee, Zenoh, Dnode, Moleculer];
            cell(Job::call(work, Route::Direct, in_flight), &[ours, &peers]);
            if (work, in_flight) == (Work::Add, 64) {
                for in_flight in IN_FLIGHT_BETWEEN {
                    let candidates = [Raw, Rawtask, Meshwork, Tarpc, TarpcOneThread];
                    cell(Job::call(work, Route::Direct, in_flight), &[&candidates]);
                }
            }
        }
    }
    for work in [Work::Add, Work::Echo1K, Work::Echo64K] {
        for in_flight in IN_FLIGHT {
            let ours: &[_] = match (work, in_flight) {
                (Work::Add, 1) => &[Raw, RawPolling, Meshwork, MeshworkPolling],
                _ => &[Raw, Meshwork],
            };
            cell(Job::call(work, Route::Relayed, in_flight), &[ours, &[Nats, NatsOneThread, Zenoh]]);
        }
    }
    for rate_per_second in RATES_PER_SECOND {
        let candidates = [Raw, RawPolling, Rawtask, Meshwork, MeshworkPolling, Tarpc, TarpcOneThread];
        cell(Job::Open { rate_per_second, route: Route::Direct }, &[&candidates]);
    }
    for form in [Form::Many, Form::Message] {
        for in_flight in IN_FLIGHT {
            // A batch of one is a single call.
            if (form, in_flight) != (Form::Many, 1) {
                cell(Job::add_in_form(form, in_flight), &[&[Meshwork]]);
            }
        }
    }
    for in_flight in [1, 64] {
        let mut of_ten = |route, arbiters, candidates: &[Candidate]| {
            let (work, form) = (Work::Add, Form::Single);
            cell(Job::Call { work, route, form, in_flight, connections: 10, arbiters }, &[candidates]);
        };
        of_ten(Route::Direct, 1, &[Raw, Rawtask, Meshwork, Tarpc, Tonic]);
        of_ten(Route::Relayed, 1, &[Meshwork, Nats]);
        of_ten(Route::Direct, 2, &[Meshwork]);
        of_ten(Route::Relayed, 2, &[Meshwork]);
    }
    for subscribers in [1, 10, 100] {
        let candidates = [Meshwork, Nats, NatsOneThread, Zenoh, Redis];
        cell(Job::Publish { subscribers, ends: Ends::Own }, &[&candidates]);
    }
    for subscribers in [1, 10, 100] {
        cell(Job::Publish { subscribers, ends: Ends::Bytes }, &[&[Raw, Meshwork, Nats, Redis]]);
    }
    for item in [Item::Bytes128, Item::Piece64K] {
        cell(Job::Stream { item, route: Route::Relayed }, &[&[Raw, Meshwork, Nats, NatsOneThread]]);
        cell(Job::Stream { item, route: Route::Direct }, &[&[Raw, Meshwork, Tonic, TonicOneThread]]);
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_measures_all_that_a_budget_needs_and_nothing_else() {
        let cells = cells(true);
        let planned = || cells.iter().flat_map(|cell| cell.candidates.iter().map(|it| (cell.job, *it)));
        let needed = budget::needed();
        for (job, candidate) in &needed {
            assert!(planned().any(|planned| planned == (*job, *candidate)), "{job}, {candidate}");
        }
        assert_eq!(planned().count(), needed.len(), "each of them once");
    }

    #[test]
    fn a_candidate_that_polls_stands_beside_a_raw_echo_that_polls() {
        for cell in all() {
            let polls = |candidate| cell.candidates.contains(&candidate);
            assert_eq!(polls(Candidate::MeshworkPolling), polls(Candidate::RawPolling), "{}", cell.job);
        }
    }
}

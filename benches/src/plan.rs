//! What is measured: every cell of the table, and who takes part in it.

use crate::job::{Candidate, Ends, Form, Job, RATES_PER_SECOND, Route, Work};

/// One piece of work, done by each of several candidates in turn.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) job: Job,
    pub(crate) candidates: Vec<Candidate>,
}

const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Every cell of the full table, or only those that a budget needs.
pub(crate) fn cells(quick: bool) -> Vec<Cell> {
    use Candidate::{
        Dnode, Jsonrpsee, Meshwork, MeshworkPolling, Moleculer, Nats, NatsOneThread, Raw, RawPolling,
        Rawtask, Redis, Tarpc, TarpcOneThread, Tonic, TonicOneThread,
    };
    let mut cells = Vec::new();
    let mut cell = |job, candidates: &[Candidate]| cells.push(Cell { job, candidates: candidates.to_vec() });
    for work in [Work::Add, Work::Echo1K, Work::Echo64K] {
        for in_flight in IN_FLIGHT {
            let job = Job::call(work, Route::Direct, in_flight);
            if !quick {
                let peers = [Tarpc, TarpcOneThread, Tonic, TonicOneThread, Jsonrpsee, Dnode, Moleculer];
                let polling: &[_] =
                    if work == Work::Add && in_flight < 1024 { &[RawPolling, MeshworkPolling] } else { &[] };
                cell(job, &[&[Raw, Rawtask, Meshwork], polling, &peers].concat());
                continue;
            }
            match (work, in_flight) {
                (Work::Add, 1) => cell(job, &[Raw, Meshwork, Tarpc]),
                (Work::Add, 64) => cell(job, &[Rawtask, Meshwork, Tarpc, Tonic]),
                (Work::Add, _) => cell(job, &[Rawtask, Meshwork, Tarpc]),
                (Work::Echo1K, 64 | 1024) => cell(job, &[Meshwork, Tarpc]),
                (Work::Echo64K, 64) => cell(job, &[Raw, Meshwork]),
                _ => {}
            }
        }
    }
    for work in [Work::Add, Work::Echo1K, Work::Echo64K] {
        for in_flight in IN_FLIGHT {
            let job = Job::call(work, Route::Relayed, in_flight);
            if !quick {
                let polling: &[_] =
                    if work == Work::Add && in_flight == 1 { &[RawPolling, MeshworkPolling] } else { &[] };
                cell(job, &[&[Raw, Meshwork], polling, &[Nats, NatsOneThread]].concat());
            } else if work == Work::Add {
                cell(job, &[Meshwork, Nats]);
            }
        }
    }
    let call = |route, form, in_flight, connections, arbiters| Job::Call {
        work: Work::Add,
        route,
        form,
        in_flight,
        connections,
        arbiters,
    };
    cell(call(Route::Direct, Form::Many, 1024, 1, 1), &[Meshwork]);
    cell(call(Route::Direct, Form::Message, 64, 1, 1), &[Meshwork]);
    if !quick {
        for rate_per_second in RATES_PER_SECOND {
            let job = Job::Open { rate_per_second, route: Route::Direct };
            cell(job, &[Raw, RawPolling, Rawtask, Meshwork, MeshworkPolling, Tarpc, TarpcOneThread]);
        }
        cell(call(Route::Direct, Form::Many, 64, 1, 1), &[Meshwork]);
        cell(call(Route::Direct, Form::Message, 1, 1, 1), &[Meshwork]);
        cell(call(Route::Direct, Form::Message, 1024, 1, 1), &[Meshwork]);
        for in_flight in [1, 64] {
            cell(
                call(Route::Direct, Form::Single, in_flight, 10, 1),
                &[Raw, Rawtask, Meshwork, Tarpc, Tonic],
            );
            cell(call(Route::Relayed, Form::Single, in_flight, 10, 1), &[Meshwork, Nats]);
            cell(call(Route::Direct, Form::Single, in_flight, 10, 2), &[Meshwork]);
            cell(call(Route::Relayed, Form::Single, in_flight, 10, 2), &[Meshwork]);
        }
    }
    for ends in [Ends::Own, Ends::Bytes] {
        for subscribers in [1, 10, 100] {
            let job = Job::Publish { subscribers, ends };
            match ends {
                Ends::Own => cell(job, &[Meshwork, Nats, Redis]),
                Ends::Bytes => cell(job, &[Raw, Meshwork, Nats, Redis]),
            }
        }
    }
    cells
}

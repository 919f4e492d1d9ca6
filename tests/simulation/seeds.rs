//! Runs from seeds: a thousand in the gate, and as many as `cargo xtask simulate` is asked for. Each run has a thread of its own, whose chance is
//! seeded, and is the same each time.

use crate::agreement;
use crate::blocking;
use crate::faults::{Faults, LATENCY_MAX};
use crate::journal;
use crate::programs::{self, BRANCHES, HUB, PLANNED};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};
use turmoil::Builder;

/// What became of a run.
struct Run {
    trace: u64,
    wrong: Vec<String>,
    lines: Vec<String>,
    calls: usize,
    events: usize,
    outcomes: BTreeMap<String, usize>,
}

thread_local! {
    static IS_RUN: Cell<bool> = const { Cell::new(false) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Gathers the panics of runs, and lets those of the program pass in silence.
fn gather_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_RUN.get() {
                return hook(panic);
            }
            let is_planned = panic.payload().downcast_ref::<String>().is_some_and(|it| it == PLANNED)
                || panic.payload().downcast_ref::<&str>().is_some_and(|it| *it == PLANNED);
            if !is_planned {
                PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            }
        }));
        // The lines of the log go into the journal of the run whose thread writes them.
        if log::set_logger(&Told).is_ok() {
            log::set_max_level(log::LevelFilter::Off);
        }
    });
}

/// Writes the log into the journal.
struct Told;

impl log::Log for Told {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if IS_RUN.get() && record.target().starts_with("meshwork") {
            journal::log(format_args!("{}", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Runs the mesh of a seed; `is_told` keeps the log of all that happened.
fn run(seed: u64, is_told: bool) -> Run {
    gather_panics();
    let running = move || {
        IS_RUN.set(true);
        // All that the actors draw by chance comes from here, the order of their maps too.
        fastrand::seed(seed);
        meshwork::testing::work_in_place(Some(blocking::takes));
        let mut chance = fastrand::Rng::with_seed(seed ^ 0x5eed);
        journal::begin(is_told);
        let branches = chance.usize(2..=BRANCHES.len());
        let hosts: Vec<_> = std::iter::once(HUB).chain(BRANCHES[..branches].iter().copied()).collect();
        agreement::begin(hosts.clone());
        // In one run of eight the network works, and no fault excuses anything.
        let is_healthy = chance.u32(0..8) == 0;
        journal::set_healthy(is_healthy);
        let mut faults = if is_healthy { Faults::none() } else { Faults::draw(&mut chance, branches) };
        let mut builder = Builder::new();
        builder
            .rng_seed(seed)
            .epoch(std::time::UNIX_EPOCH)
            .simulation_duration(Duration::from_secs(60))
            .tick_duration(Duration::from_millis(*chance.choice(&[2, 5, 5, 10, 10, 10]).unwrap_or(&5)))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(LATENCY_MAX)
            .repair_rate(0.2)
            .tcp_capacity(256);
        if chance.bool() {
            builder.enable_random_order();
        }
        let mut sim = builder.build();
        let starts = Cell::new(0);
        let next_start = || {
            starts.set(starts.get() + 1);
            starts.get()
        };
        for host in hosts {
            let next_start = &next_start;
            if host == HUB {
                sim.host(host, move || programs::run_master(seed, next_start()));
            } else {
                sim.host(host, move || programs::run_branch(host, seed, next_start()));
            }
        }
        while sim.elapsed() < agreement::OVER_AT {
            faults.step(&mut sim);
            if let Err(error) = sim.step() {
                journal::wrong(format!("a host has ended: {error}"));
                break;
            }
        }
        let mut disagreed = agreement::judge();
        let mut journal = journal::take();
        let mut wrong = journal.judge();
        wrong.append(&mut disagreed);
        wrong.extend(PANICS.take().into_iter().map(|panic| format!("a panic: {panic}")));
        // What the end of the hosts tells belongs to no run.
        journal::begin(false);
        drop(sim);
        programs::forget_nodes();
        PANICS.take();
        IS_RUN.set(false);
        let (calls, events) = journal.counts();
        Run {
            trace: journal.trace(),
            wrong,
            lines: journal.lines().to_vec(),
            calls,
            events,
            outcomes: journal.outcomes(),
        }
    };
    let thread = thread::Builder::new().name(format!("seed {seed}")).stack_size(8 << 20);
    thread.spawn(running).expect("it starts").join().unwrap_or_else(|_| Run {
        trace: 0,
        wrong: vec!["the run itself panicked".to_owned()],
        lines: Vec::new(),
        calls: 0,
        events: 0,
        outcomes: BTreeMap::new(),
    })
}

/// How many lines of the log of a failed run are printed: the last ones.
const LINES_MAX: usize = 20_000;

/// Prints a seed that failed, with the log of all that happened, by running it once more.
fn print(seed: u64, first: &Run) {
    log::set_max_level(log::LevelFilter::Debug);
    let again = run(seed, true);
    let path = std::env::temp_dir().join(format!("meshwork-seed-{seed}.log"));
    let written = std::fs::write(&path, again.lines.join("\n"));
    println!("\nseed {seed} FAILED:");
    for wrong in &first.wrong {
        println!("    {wrong}");
    }
    match written {
        Ok(()) => println!("    all that happened: {}", path.display()),
        Err(_) => again.lines.iter().rev().take(LINES_MAX).rev().for_each(|line| println!("    {line}")),
    }
    if again.trace != first.trace {
        println!("    the second run went another way: {:016x}, not {:016x}", again.trace, first.trace);
    }
    println!("    run it again: cargo xtask simulate --seed {seed}");
}

/// Runs these seeds, some at once; prints those that fail, and panics if any does.
fn run_all(seeds: std::ops::Range<u64>, threads: usize) {
    let (next, failed) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let counted = Mutex::new((0, 0, BTreeMap::<String, usize>::new()));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let run = run(seed, false);
                    {
                        let mut counted = counted.lock().expect("nobody panics with it");
                        counted.0 += run.calls;
                        counted.1 += run.events;
                        for (outcome, count) in &run.outcomes {
                            *counted.2.entry(outcome.clone()).or_default() += count;
                        }
                    }
                    if !run.wrong.is_empty() {
                        print(seed, &run);
                        failed.lock().expect("nobody panics with it").push(seed);
                    }
                }
            });
        }
    });
    let (calls, events, outcomes) = counted.into_inner().expect("nobody panics with it");
    let count = seeds.end - seeds.start;
    println!("{count} seeds, {calls} calls, {events} events heard, {:.1} s", begun.elapsed().as_secs_f64());
    outcomes.iter().for_each(|(outcome, count)| println!("{count:>10} {outcome}"));
    let mut failed = failed.into_inner().expect("nobody panics with it");
    failed.sort_unstable();
    assert!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}", failed.len());
}

/// How many seeds each test of the gate runs: a thousand in all.
const SEEDS_PER_TEST: u64 = 50;

macro_rules! thousand_seeds {
    ($($name:ident $part:literal)*) => {$(
        #[test]
        fn $name() {
            run_all($part * SEEDS_PER_TEST..($part + 1) * SEEDS_PER_TEST, 1);
        }
    )*};
}

thousand_seeds! {
    every_promise_is_kept_under_faults_00 0
    every_promise_is_kept_under_faults_01 1
    every_promise_is_kept_under_faults_02 2
    every_promise_is_kept_under_faults_03 3
    every_promise_is_kept_under_faults_04 4
    every_promise_is_kept_under_faults_05 5
    every_promise_is_kept_under_faults_06 6
    every_promise_is_kept_under_faults_07 7
    every_promise_is_kept_under_faults_08 8
    every_promise_is_kept_under_faults_09 9
    every_promise_is_kept_under_faults_10 10
    every_promise_is_kept_under_faults_11 11
    every_promise_is_kept_under_faults_12 12
    every_promise_is_kept_under_faults_13 13
    every_promise_is_kept_under_faults_14 14
    every_promise_is_kept_under_faults_15 15
    every_promise_is_kept_under_faults_16 16
    every_promise_is_kept_under_faults_17 17
    every_promise_is_kept_under_faults_18 18
    every_promise_is_kept_under_faults_19 19
}

#[test]
fn a_seed_goes_the_same_way_twice() {
    for seed in [1, 2, 3, 1_000_001] {
        let (one, other) = (run(seed, true), run(seed, true));
        let differ = one.lines.iter().zip(&other.lines).position(|(one, other)| one != other);
        let at = differ.unwrap_or(one.lines.len().min(other.lines.len()));
        let around = at.saturating_sub(3)..at + 3;
        let lines =
            |run: &Run| run.lines.get(around.start..around.end.min(run.lines.len())).map(<[_]>::to_vec);
        assert_eq!(one.trace, other.trace, "seed {seed}: {:#?} and {:#?}", lines(&one), lines(&other));
    }
}

/// The seeds that `cargo xtask simulate` is asked for, as `FROM..TO` in `MESHWORK_SEEDS`.
#[test]
#[ignore = "cargo xtask simulate runs it"]
fn the_seeds_that_were_asked_for() {
    let asked = std::env::var("MESHWORK_SEEDS").expect("cargo xtask simulate sets it");
    let (from, to) = asked.split_once("..").expect("it is FROM..TO");
    let seeds = from.parse().expect("it is a number")..to.parse().expect("it is a number");
    if seeds.end - seeds.start == 1 {
        gather_panics();
        log::set_max_level(log::LevelFilter::Debug);
        let (one, other) = (run(seeds.start, true), run(seeds.start, true));
        one.lines.iter().for_each(|line| println!("{line}"));
        println!("seed {}: trace {:016x}, and again {:016x}", seeds.start, one.trace, other.trace);
        assert_eq!(one.trace, other.trace, "the second run went another way");
        assert!(one.wrong.is_empty(), "seed {} failed:\n{}", seeds.start, one.wrong.join("\n"));
        return;
    }
    run_all(seeds, thread::available_parallelism().map_or(1, usize::from));
}

//! Which provider gets a call, in meshes in memory and time that is paused: least of two beside round robin, with providers that are equal and
//! that are not; and the rest of a provider that fails in a row. Calls come by chance and take times by chance, the same ones for each balance.
//!
//! `MESHWORK_FIGURES=1 cargo test --features testing --test balance -- --nocapture least_of_two` prints the figures of all balances, of more calls.

use meshwork::prelude::*;
use meshwork::testing::{self, Mesh, Setup};
use meshwork::{Balance, Limits};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// How long a request takes at a provider of usual speed, on the average.
const USUAL: Duration = Duration::from_millis(10);

/// How many calls are made.
const CALLS: usize = 1_000;

/// How many are made for the figures.
const CALLS_FOR_FIGURES: usize = 3_000;

/// A provider.
#[derive(Clone, Copy)]
struct Worker {
    /// How many requests it works at; others wait there.
    permits: usize,
    /// How many times as long each request takes.
    slower: u32,
    /// Whether it hangs for two seconds.
    stalls: bool,
}

const USUAL_WORKER: Worker = Worker { permits: 1, slower: 1, stalls: false };

/// What callers see.
#[derive(Clone, Copy, Debug)]
struct Figures {
    median: Duration,
    /// Of a hundred calls, one takes longer.
    p99: Duration,
    /// Calls in a second, until the last one has ended.
    throughput: f64,
}

/// A number by chance whose average is 1, as waits and works have it.
fn exponential(chance: &mut fastrand::Rng) -> f64 {
    -(1.0 - chance.f64()).ln()
}

/// Lets calls come at such a part of what the workers can do together.
fn run(balance: Balance, workers: &[Worker], load: f64, count: usize) -> Figures {
    const SEED: u64 = 1;
    let mut limits = Limits::default();
    // What is measured is the balance alone.
    limits.failed_in_row_max = 0;
    let setup = Setup::new().seed(SEED);
    let setup = setup.master(move || MasterActor::new("master").balance(balance).limits(limits.clone()));
    let workers = workers.to_vec();
    setup.run(async move |mesh| {
        let mut bound = Vec::new();
        for (number, Worker { permits, slower, .. }) in workers.iter().copied().enumerate() {
            let work = move |micros: u64| async move {
                tokio::time::sleep(Duration::from_micros(micros) * slower).await;
                Ok(())
            };
            let responders =
                Responders::new().respond("work", work).permits_with_queue("work", permits, usize::MAX / 64);
            let worker = BranchActor::new(format!("worker-{number}")).respond_all(responders);
            bound.push(mesh.bind(worker).await.expect("it binds"));
        }
        let caller = mesh.bind(BranchActor::new("caller")).await.expect("it binds");
        let capacity: f64 =
            workers.iter().map(|it| it.permits as f64 / f64::from(it.slower) / USUAL.as_secs_f64()).sum();
        let mut chance = fastrand::Rng::with_seed(SEED);
        let (took, begun) = (Rc::<RefCell<Vec<Duration>>>::default(), Instant::now());
        let mut calls = Vec::new();
        for number in 0..count {
            tokio::time::sleep(Duration::from_secs_f64(exponential(&mut chance) / load / capacity)).await;
            for (number_of_worker, worker) in workers.iter().enumerate().filter(|_| number == count / 3) {
                if worker.stalls {
                    let (mesh, name) = (mesh.clone(), format!("worker-{number_of_worker}"));
                    tokio::task::spawn_local(async move {
                        mesh.stall(&name);
                        mesh.pass(Duration::from_secs(2)).await;
                        mesh.resume(&name);
                    });
                }
            }
            let micros = USUAL.as_micros() as f64 * exponential(&mut chance);
            let call = caller.call::<()>("work", micros as u64).within(Duration::MAX);
            let took = Rc::clone(&took);
            calls.push(tokio::task::spawn_local(async move {
                let made = Instant::now();
                call.await.expect("it is answered");
                took.borrow_mut().push(made.elapsed());
            }));
        }
        for call in calls {
            call.await.expect("it does not panic");
        }
        let throughput = count as f64 / begun.elapsed().as_secs_f64();
        let mut took = took.take();
        took.sort_unstable();
        Figures { median: took[count / 2], p99: took[count * 99 / 100], throughput }
    })
}

/// Workers, and the part of what they can do that they are asked for.
fn cases() -> Vec<(&'static str, Vec<Worker>, f64)> {
    let mut one_slower = vec![USUAL_WORKER; 4];
    one_slower[0].slower = 10;
    let mut one_stalls = vec![USUAL_WORKER; 4];
    one_stalls[0].stalls = true;
    let permits = [1, 2, 4, 8].map(|permits| Worker { permits, ..USUAL_WORKER }).to_vec();
    vec![
        ("4 equal, at 30 %", vec![USUAL_WORKER; 4], 0.3),
        ("4 equal, at 80 %", vec![USUAL_WORKER; 4], 0.8),
        ("16 equal, at 80 %", vec![USUAL_WORKER; 16], 0.8),
        ("1 of 4 ten times slower, at 50 %", one_slower.clone(), 0.5),
        ("1 of 4 ten times slower, at 80 %", one_slower, 0.8),
        ("1 of 4 stalls for 2 s, at 50 %", one_stalls, 0.5),
        ("1, 2, 4 and 8 permits, at 50 %", permits.clone(), 0.5),
        ("1, 2, 4 and 8 permits, at 80 %", permits, 0.8),
    ]
}

#[test]
fn least_of_two_is_no_worse_than_round_robin() {
    let of_all = std::env::var_os("MESHWORK_FIGURES").is_some();
    let count = if of_all { CALLS_FOR_FIGURES } else { CALLS };
    for (title, workers, load) in cases() {
        let figures = |balance| {
            let figures = run(balance, &workers, load, count);
            println!("{title}: {balance:?}: {figures:.1?}");
            figures
        };
        if of_all {
            for balance in [Balance::Random, Balance::LeastInFlight, Balance::LeastLatency] {
                figures(balance);
            }
        }
        let [round_robin, least_of_two] = [Balance::RoundRobin, Balance::LeastOfTwo].map(figures);
        // As far as the same chance lets them be compared.
        let is_no_worse = |one: f64, other: f64| one <= other * 1.05;
        assert!(
            is_no_worse(least_of_two.median.as_secs_f64(), round_robin.median.as_secs_f64())
                && is_no_worse(least_of_two.p99.as_secs_f64(), round_robin.p99.as_secs_f64())
                && is_no_worse(round_robin.throughput, least_of_two.throughput),
            "{title}: {least_of_two:?} is worse than {round_robin:?}"
        );
    }
}

/// How a provider answers, which the test changes.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Replies,
    Panics,
    Hangs,
    SaysNo,
    IsFull,
}

/// A provider whose mood is shared, and how many requests it got.
fn moody(name: &'static str, mood: &Arc<Mutex<Mood>>, count: &Arc<AtomicU32>) -> BranchActor {
    let (mood, count) = (Arc::clone(mood), Arc::clone(count));
    BranchActor::new(name).respond("work", move |(): ()| {
        count.fetch_add(1, Ordering::Relaxed);
        let mood = *mood.lock().expect("no test panics with it");
        async move {
            match mood {
                Mood::Replies => Ok(()),
                Mood::Panics => panic!("it is in the mood"),
                Mood::Hangs => std::future::pending().await,
                Mood::SaysNo => Err(ActionError::new("No", "it does not want to")),
                Mood::IsFull => {
                    Err(CallError::new(Code::OVERLOADED, Fate::NotSent, "it takes no more").into())
                }
            }
        }
    })
}

/// Answers with a stream that lasts for ever, and begins when so much time has passed.
fn lasting(branch: BranchActor, after: Duration, count: &Arc<AtomicU32>) -> BranchActor {
    let count = Arc::clone(count);
    branch.respond_stream("last", move |(): ()| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            tokio::time::sleep(after).await;
            Ok(Streaming::new(futures::stream::pending::<u8>()))
        }
    })
}

/// Makes calls for a while, one each 20 ms; gives how many failed.
async fn call_for(mesh: &Mesh, caller: &Branch, time: Duration) -> usize {
    let until = mesh.elapsed() + time;
    let mut failed = 0;
    while mesh.elapsed() < until {
        let call = caller.call::<()>("work", ()).within(Duration::from_millis(15));
        failed += usize::from(call.await.is_err());
        mesh.pass(Duration::from_millis(5)).await;
    }
    failed
}

async fn resting(mesh: &Mesh) -> Vec<String> {
    let snapshot = mesh.master().snapshot().await.expect("it runs");
    snapshot.sessions.iter().filter(|it| it.resting).map(|it| it.name.to_string()).collect()
}

#[test]
fn a_provider_that_fails_in_a_row_has_a_rest_and_is_tried_again() {
    for bad in [Mood::Panics, Mood::Hangs, Mood::IsFull] {
        testing::run(async |mesh| {
            let [mood, good] = [bad, Mood::Replies].map(|mood| Arc::new(Mutex::new(mood)));
            let [count, others] = <[Arc<AtomicU32>; 2]>::default();
            let _moody = mesh.bind(moody("moody", &mood, &count)).await.expect("it binds");
            let _good = mesh.bind(moody("good", &good, &others)).await.expect("it binds");
            let caller = mesh.bind(BranchActor::new("caller")).await.expect("it binds");
            call_for(&mesh, &caller, Duration::from_millis(600)).await;
            assert_eq!(resting(&mesh).await, ["moody"]);
            let before = count.load(Ordering::Relaxed);
            assert!(before >= 8, "{before}");
            // A second later one request tries it, and finds it as it was; then two seconds later.
            call_for(&mesh, &caller, Duration::from_millis(2_000)).await;
            assert_eq!(count.load(Ordering::Relaxed), before + 1);
            assert_eq!(resting(&mesh).await, ["moody"]);
            *mood.lock().expect("no test panics with it") = Mood::Replies;
            assert_eq!(call_for(&mesh, &caller, Duration::from_millis(3_000)).await, 0);
            assert!(count.load(Ordering::Relaxed) > before + 20 && resting(&mesh).await.is_empty());
        });
    }
}

#[test]
fn an_error_of_the_application_brings_no_rest() {
    testing::run(async |mesh| {
        let mood = Arc::new(Mutex::new(Mood::SaysNo));
        let [one, other] = <[Arc<AtomicU32>; 2]>::default();
        let _one = mesh.bind(moody("one", &mood, &one)).await.expect("it binds");
        let _other = mesh.bind(moody("other", &mood, &other)).await.expect("it binds");
        let caller = mesh.bind(BranchActor::new("caller")).await.expect("it binds");
        call_for(&mesh, &caller, Duration::from_secs(1)).await;
        assert!(resting(&mesh).await.is_empty());
        assert_eq!(one.load(Ordering::Relaxed), other.load(Ordering::Relaxed), "they have their turns");
    });
}

#[test]
fn providers_that_all_rest_get_requests_as_before() {
    testing::run(async |mesh| {
        let mood = Arc::new(Mutex::new(Mood::Panics));
        let [one, other] = <[Arc<AtomicU32>; 2]>::default();
        let _one = mesh.bind(moody("one", &mood, &one)).await.expect("it binds");
        let _other = mesh.bind(moody("other", &mood, &other)).await.expect("it binds");
        let caller = mesh.bind(BranchActor::new("caller")).await.expect("it binds");
        call_for(&mesh, &caller, Duration::from_secs(1)).await;
        assert_eq!(resting(&mesh).await, ["one", "other"]);
        let error = caller.call::<()>("work", ()).await.expect_err("it panics");
        assert_eq!(error.code(), Code::PANICKED, "it was asked");
        *mood.lock().expect("no test panics with it") = Mood::Replies;
        assert_eq!(caller.call::<()>("work", ()).await, Ok(()));
    });
}

#[test]
fn a_master_that_is_told_so_gives_nobody_a_rest() {
    let mut limits = Limits::default();
    limits.failed_in_row_max = 0;
    let master = move || MasterActor::new("master").limits(limits.clone());
    Setup::new().master(master).run(async |mesh| {
        let [bad, good] = [Mood::Panics, Mood::Replies].map(|mood| Arc::new(Mutex::new(mood)));
        let count = Arc::default();
        let _bad = mesh.bind(moody("bad", &bad, &count)).await.expect("it binds");
        let _good = mesh.bind(moody("good", &good, &Arc::default())).await.expect("it binds");
        let caller = mesh.bind(BranchActor::new("caller")).await.expect("it binds");
        call_for(&mesh, &caller, Duration::from_secs(1)).await;
        assert!(resting(&mesh).await.is_empty() && count.load(Ordering::Relaxed) > 50);
    });
}

#[test]
fn a_stream_that_begins_ends_the_rest_of_its_provider() {
    testing::run(async |mesh| {
        let [bad, good] = [Mood::Panics, Mood::Replies].map(|mood| Arc::new(Mutex::new(mood)));
        let count = Arc::default();
        let bad = lasting(moody("bad", &bad, &Arc::default()), Duration::ZERO, &count);
        let _bad = mesh.bind(bad).await.expect("it binds");
        let _good = mesh.bind(moody("good", &good, &Arc::default())).await.expect("it binds");
        let caller = mesh.bind(BranchActor::new("caller")).await.expect("it binds");
        call_for(&mesh, &caller, Duration::from_millis(600)).await;
        assert_eq!(resting(&mesh).await, ["bad"]);
        let lasts = caller.stream::<u8>("last", ()).on("bad").await.expect("it begins");
        assert!(resting(&mesh).await.is_empty(), "the stream has not ended, and is a reply");
        drop(lasts);
    });
}

#[test]
fn the_latency_of_a_stream_is_the_time_until_it_begins() {
    let master = || MasterActor::new("master").balance(Balance::LeastLatency);
    Setup::new().seed(1).master(master).run(async |mesh| {
        let [quick, slow] = <[Arc<AtomicU32>; 2]>::default();
        let branch = |name: &'static str| BranchActor::new(name);
        let _quick =
            mesh.bind(lasting(branch("quick"), Duration::from_millis(2), &quick)).await.expect("it binds");
        let _slow =
            mesh.bind(lasting(branch("slow"), Duration::from_millis(100), &slow)).await.expect("it binds");
        let caller = mesh.bind(BranchActor::new("caller")).await.expect("it binds");
        // Each lasts for a hundred milliseconds and more, whoever makes it.
        let mut lasting = VecDeque::new();
        for _ in 0..100 {
            lasting.push_back(caller.stream::<u8>("last", ()).await.expect("it begins"));
            lasting.drain(..lasting.len().saturating_sub(5));
            mesh.pass(Duration::from_millis(20)).await;
        }
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
        assert!(count(&quick) > 85, "{} of 100", count(&quick));
        assert_eq!(count(&quick) + count(&slow), 100);
    });
}

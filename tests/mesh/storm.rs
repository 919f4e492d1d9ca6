//! A storm: nodes of every kind are killed, drained and cut, their actors stopped, while calls and events go on. Afterwards all that was
//! asked, answered, published and heard is counted.

use crate::cut::CutDial;
use crate::in_flight::elsewhere;
use crate::links::until;
use crate::{Mesh, Stop, soon};
use meshwork::Status;
use meshwork::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// How often each numbered call ran, and how often each numbered event was heard.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<u64, u32>>>, watch::Sender<u64>);

impl Counts {
    fn count(&self, number: u64) {
        *self.0.lock().expect("no test panics in here").entry(number).or_insert(0) += 1;
        self.1.send_modify(|all| *all += 1);
    }

    /// Waits until so many more have been counted, or the storm is over.
    async fn more(&self, count: u64) {
        let until = (*self.1.borrow() + count).min(OVER);
        let _ = self.1.subscribe().wait_for(|all| *all >= until).await;
    }

    fn of(&self, number: u64) -> u32 {
        self.0.lock().expect("no test panics in here").get(&number).copied().unwrap_or_default()
    }
}

/// Random numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Runs its calls in an actor, which may be stopped.
struct Worker(Counts);

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, ActionError>")]
struct Work {
    number: u64,
}

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<Work> for Worker {
    type Result = Result<u64, ActionError>;

    fn handle(&mut self, Work { number }: Work, _: &mut Context<Self>) -> Self::Result {
        self.0.count(number);
        Ok(number)
    }
}

impl Handler<Stop> for Worker {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        actix::ActorContext::stop(context);
    }
}

/// The actions of a provider: one that takes its time, one with permits, one of an actor.
fn responders(ran: &Counts, worker: &Addr<Worker>) -> Responders {
    let (slow, few) = (ran.clone(), ran.clone());
    Responders::new()
        .respond("slow", move |Work { number }| {
            let slow = slow.clone();
            async move {
                slow.count(number);
                for _ in 0..number % 7 {
                    tokio::task::yield_now().await;
                }
                Ok(number)
            }
        })
        .respond("few", move |Work { number }| {
            let few = few.clone();
            async move {
                few.count(number);
                tokio::task::yield_now().await;
                Ok(number)
            }
        })
        .permits_with_queue("few", 3, 2)
        .respond_with("actor", worker.clone().recipient::<Work>())
}

/// Comes, works, and goes in one of several ways, until the storm is over.
async fn provider(mesh: meshwork::Address, number: u64, ran: Counts, heard: Counts, over: Arc<AtomicBool>) {
    let mut dice = Dice(number);
    let mut life = 0;
    while !over.load(Ordering::Acquire) {
        life += 1;
        let cut = CutDial::default();
        let (dial, counts, member) = (cut.clone(), ran.clone(), heard.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        let name = format!("provider {number} {life}");
        let (branch, arbiter) = elsewhere(mesh.clone(), move || {
            let worker = Worker(counts.clone()).start();
            let branch = BranchActor::new(name).dial(dial).backoff(MOMENT, 4 * MOMENT);
            let _ = tell.send(worker.clone());
            branch.respond_all(responders(&counts, &worker))
        })
        .await;
        let worker = told.await.expect("it was started");
        let kept =
            branch.subscribe_group("members", "storm/*", move |event: Event<u64>| member.count(event.value));
        let kept = kept.await;
        ran.more(50 + dice.roll(300)).await;
        match dice.roll(6) {
            0 => cut.cut(),
            1 => {
                cut.cut();
                until(&branch, |status| *status == Status::Rebinding).await;
                cut.mend();
                until(&branch, |status| *status == Status::Bound).await;
                drop(branch.drain(Duration::from_secs(5)).await);
            }
            2 => _ = worker.send(Stop).await,
            3 => {
                let _ = worker.send(Stop).await;
                ran.more(100).await;
                drop(branch.drain(Duration::from_secs(5)).await);
            }
            _ => drop(branch.drain(Duration::from_secs(5)).await),
        }
        drop(kept);
        arbiter.stop();
        let _ = arbiter.join();
    }
}

/// A short wait between binds.
const MOMENT: Duration = Duration::from_millis(1);

/// More than can be counted.
const OVER: u64 = u64::MAX / 2;

/// How many calls run in the storm.
const STORM: u64 = 20_000;

#[actix::test]
async fn after_a_storm_every_call_has_ended_once_with_a_true_fate() {
    let mesh = Mesh::of(MasterActor::new("master").arbiters(2)).await;
    let (ran, heard, over) = (Counts::default(), Counts::default(), Arc::new(AtomicBool::new(false)));
    let providers: Vec<_> = (1..=4)
        .map(|number| {
            let address = mesh.address.clone();
            actix_rt::spawn(provider(address, number, ran.clone(), heard.clone(), Arc::clone(&over)))
        })
        .collect();
    // One provider and one member stay.
    let stays =
        mesh.bind(BranchActor::new("stays").respond_all(responders(&ran, &Worker(ran.clone()).start())));
    let stays = stays.await;
    let member = heard.clone();
    let count = move |event: Event<u64>| member.count(event.value);
    stays.subscribe_group("members", "storm/*", count).await.unwrap().keep();
    let numbers = Arc::new(AtomicU64::new(1));
    let mut callers = Vec::new();
    for name in ["steady", "master", "cut"] {
        let cut = CutDial::default();
        let node = match name {
            "master" => Node::from(&mesh.master),
            name => {
                let branch = BranchActor::new(name).dial(cut.clone()).backoff(MOMENT, 4 * MOMENT);
                Node::from(mesh.bind(branch).await)
            }
        };
        let (numbers, over) = (Arc::clone(&numbers), Arc::clone(&over));
        callers.push(actix_rt::spawn(async move {
            let (mut outcomes, mut published) = (Vec::new(), Vec::new());
            let mut dice = Dice(name.len() as u64);
            while !over.load(Ordering::Acquire) {
                let mut calls = Vec::new();
                for _ in 0..dice.roll(40) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let action =
                        ["slow", "few", "actor"][usize::try_from(dice.roll(3)).expect("it is small")];
                    let call = node.call::<u64>(action, Work { number }).within(Duration::from_secs(5));
                    calls.push((number, actix_rt::spawn(call)));
                }
                for _ in 0..dice.roll(4) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    if node.publish("storm/event", &number).await.is_ok() {
                        published.push(number);
                    }
                }
                if name == "cut" && dice.roll(8) == 0 {
                    cut.cut();
                    let mut status = node.status().await.expect("it runs");
                    let rebinds = status.wait_for(|status| *status == Status::Rebinding).await;
                    rebinds.expect("it runs");
                    cut.mend();
                }
                for (number, call) in calls {
                    outcomes.push((number, soon(call).await.expect("no panic")));
                }
            }
            (name, outcomes, published)
        }));
    }
    ran.more(STORM).await;
    over.store(true, Ordering::Release);
    let mut kinds = HashMap::new();
    let mut lost = 0;
    for caller in callers {
        let (name, outcomes, published) = soon(caller).await.expect("no panic");
        for (number, outcome) in outcomes {
            let ran = ran.of(number);
            match &outcome {
                Ok(reply) => assert_eq!((*reply, ran), (number, 1), "{name}"),
                Err(error) => {
                    match error.fate() {
                        Fate::NotSent => assert_eq!(ran, 0, "{name}: {error}"),
                        Fate::Unknown => assert!(ran <= 1, "{name}: {error}"),
                        Fate::Failed => panic!("{name}: nothing fails: {error}"),
                    }
                    // A caller whose link holds notices only providers that were killed, and that all are full.
                    let excused = [Code::PROVIDER_LOST, Code::OVERLOADED];
                    assert!(name == "cut" || excused.contains(&error.code()), "{name}: {error}");
                    assert!(error.code() != Code::PROVIDER_LOST || error.fate() == Fate::Unknown, "{error}");
                }
            }
            *kinds
                .entry(outcome.map_or_else(|error| (error.code(), error.fate()), |_| (Code(0), Fate::Failed)))
                .or_insert(0) += 1;
        }
        for number in published {
            assert!(heard.of(number) <= 1, "{number} was heard twice");
            lost += u32::from(heard.of(number) == 0);
        }
    }
    // Nothing more runs that a provider could wait for.
    ran.1.send_replace(OVER);
    for provider in providers {
        soon(provider).await.expect("no panic");
    }
    println!("{kinds:?}, {lost} events lost with their links");
    let snapshot = mesh.master.snapshot().await.unwrap();
    assert_eq!((snapshot.calls_in_flight, snapshot.events_dropped), (0, 0));
    assert!(kinds.get(&(Code(0), Fate::Failed)).is_some_and(|count| *count > 1_000), "{kinds:?}");
}

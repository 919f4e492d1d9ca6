//! A master and three branches in a simulated network with simulated time: the network is cut and mended, and the registry is right
//! again. The actors are those that run over TCP; only their links are simulated.

use crate::links::{PORT, SimulatedAccept, SimulatedDial};
use meshwork::Status;
use meshwork::limits::{BACKOFF_MAX, BACKOFF_MIN};
use meshwork::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::Instant;
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};

const MASTER: &str = "master";

/// How often a branch sends a heartbeat here.
const HEARTBEAT: Duration = Duration::from_secs(1);

type Simulated = Result<(), Box<dyn std::error::Error>>;

async fn run_master() -> Simulated {
    let listener = SimulatedAccept::listen(MASTER).await?;
    let master = MasterActor::new(MASTER).heartbeat(HEARTBEAT).start();
    master.send(Listen::on(listener)).await??;
    Master::from(master).closed().await;
    Ok(())
}

async fn bind(branch: BranchActor) -> Result<Branch, meshwork::BindError> {
    // In place: the simulated time and network belong to this thread.
    branch.dial(SimulatedDial).bind(format!("{MASTER}:{PORT}")).await
}

/// A branch that answers `who-NAME` with its name, and never `stuck-NAME`.
async fn run_provider(name: &'static str) -> Simulated {
    let provider = BranchActor::new(name)
        .respond(format!("who-{name}"), move |(): ()| async move { Ok(name.to_owned()) })
        .respond(format!("stuck-{name}"), |(): ()| std::future::pending::<Result<(), ActionError>>());
    bind(provider).await?.closed().await;
    Ok(())
}

fn simulation() -> Sim<'static> {
    let mut sim = Builder::new()
        .rng_seed(7)
        .simulation_duration(Duration::from_secs(300))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .enable_tokio_io()
        .build();
    sim.host(MASTER, run_master);
    sim.host("one", || run_provider("one"));
    sim.host("two", || run_provider("two"));
    sim
}

async fn until_known(branch: &Branch, name: &'static str, known: bool) -> Result<(), CallError> {
    let (changed, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let told = move |_: &meshwork::Change| {
        // The receiver may have gone.
        let _ = changed.send(());
    };
    branch.on_change(told).await?;
    while branch.nodes().await?.iter().any(|node| node.node == name) != known {
        changes.recv().await;
    }
    Ok(())
}

#[test]
fn a_cut_network_is_noticed_and_a_mended_one_is_whole_again() {
    let mut sim = simulation();
    sim.client("three", async {
        let branch = bind(BranchActor::new("three")).await?;
        until_known(&branch, "one", true).await?;
        until_known(&branch, "two", true).await?;
        assert_eq!(branch.call::<String>("who-one", ()).await?, "one");
        assert_eq!(branch.call::<String>("who-two", ()).await?, "two");

        // The provider of a call in flight is cut off: the call ends when the master has given the silent link up.
        let start = Instant::now();
        let calling = branch.call::<()>("stuck-one", ()).within(Duration::MAX);
        let cutting = async {
            tokio::task::yield_now().await;
            // A second call, so that the call before it has arrived when its provider is cut off.
            let other = branch.call::<String>("who-one", ()).await;
            turmoil::partition("one", MASTER);
            other
        };
        let (outcome, other) = tokio::join!(calling, cutting);
        assert_eq!(other?, "one");
        let error = outcome.expect_err("its provider is cut off");
        assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
        assert!(start.elapsed() < HEARTBEAT * 6, "{:?}", start.elapsed());

        until_known(&branch, "one", false).await?;
        let gone = branch.call::<String>("who-one", ()).await.expect_err("it is out of the registry");
        assert_eq!((gone.code(), gone.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
        assert_eq!(branch.call::<String>("who-two", ()).await?, "two", "the others go on");

        turmoil::repair("one", MASTER);
        until_known(&branch, "one", true).await?;
        assert_eq!(branch.call::<String>("who-one", ()).await?, "one");
        let actions: Vec<_> =
            branch.describe("**").await?.into_iter().map(|one| one.action.to_string()).collect();
        assert_eq!(actions, ["stuck-one", "stuck-two", "who-one", "who-two"]);
        Ok(())
    });
    sim.run().expect("the simulation ends well");
}

#[test]
fn a_branch_that_is_cut_off_keeps_its_calls_until_it_is_back() {
    let mut sim = simulation();
    sim.client("three", async {
        let branch = bind(BranchActor::new("three")).await?;
        until_known(&branch, "two", true).await?;
        let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
        let handler = move |event: Event<u32>| {
            let _ = heard.send(event.value);
        };
        let _kept = branch.subscribe("news/*", handler).await?;

        turmoil::partition("three", MASTER);
        let mut status = branch.status().await?;
        status.wait_for(|status| *status == Status::Rebinding).await?;
        let waiting = branch.call::<String>("who-two", ()).within(Duration::from_secs(60));
        let too_long = branch.call::<String>("who-two", ()).within(Duration::from_secs(2));
        let mending = async {
            let start = Instant::now();
            let outcome = too_long.await;
            assert_eq!(start.elapsed().as_secs(), 2, "a deadline is kept in simulated time too");
            turmoil::repair("three", MASTER);
            outcome
        };
        let (waited, timed_out) = tokio::join!(waiting, mending);
        assert_eq!(waited?, "two");
        let error = timed_out.expect_err("the link was down all the time");
        assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::NotSent));

        // The branch that came back has its subscription again.
        let other = bind(BranchActor::new("four")).await?;
        other.publish("news/today", &7_u32).await?;
        assert_eq!(events.recv().await, Some(7));
        Ok(())
    });
    sim.run().expect("the simulation ends well");
}

#[test]
fn branches_come_back_to_a_master_that_crashed() {
    let mut sim = simulation();
    let (crash, crashed) = std::sync::mpsc::channel();
    sim.client("three", async move {
        let branch = bind(BranchActor::new("three")).await?;
        until_known(&branch, "one", true).await?;
        until_known(&branch, "two", true).await?;
        crash.send(())?;
        let mut status = branch.status().await?;
        status.wait_for(|status| *status == Status::Rebinding).await?;
        status.wait_for(|status| *status == Status::Bound).await?;
        until_known(&branch, "one", true).await?;
        until_known(&branch, "two", true).await?;
        assert_eq!(branch.call::<String>("who-one", ()).await?, "one");
        Ok(())
    });
    let mut down = false;
    while !sim.step().expect("the simulation goes on") {
        if crashed.try_recv().is_ok() {
            sim.crash(MASTER);
            down = true;
        } else if down && sim.elapsed() > Duration::from_secs(5) {
            sim.bounce(MASTER);
            down = false;
        }
    }
}

/// Relays links to the master, each for as long as `holds` says, and tells when each was dialled and lost.
async fn run_unsteady(
    holds: watch::Receiver<Duration>,
    lost: UnboundedSender<(Instant, Instant)>,
) -> Simulated {
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    loop {
        let (mut near, _) = listener.accept().await?;
        let dialled = Instant::now();
        let mut far = TcpStream::connect((MASTER, PORT)).await?;
        let held = *holds.borrow();
        let _ = tokio::time::timeout(held, tokio::io::copy_bidirectional(&mut near, &mut far)).await;
        lost.send((dialled, Instant::now()))?;
    }
}

/// Each bind made the next wait the shortest again: a link that was lost after each bind was dialled five times a second, for ever.
#[test]
fn a_link_that_is_lost_after_each_bind_is_dialled_ever_less_often_until_it_holds() {
    const SHORT: Duration = Duration::from_millis(500);
    let mut sim = simulation();
    let (holds, (losing, mut lost)) = (watch::Sender::new(SHORT), unbounded_channel());
    let held = holds.subscribe();
    sim.host("unsteady", move || run_unsteady(held.clone(), losing.clone()));
    sim.client("three", async move {
        let branch = BranchActor::new("three").dial(SimulatedDial).bind(format!("unsteady:{PORT}")).await?;
        let mut status = branch.status().await?;
        let mut last = lost.recv().await.ok_or("it runs")?.1;
        let mut waits = Vec::new();
        for round in 0..20 {
            status.wait_for(|status| *status == Status::Rebinding).await?;
            status.wait_for(|status| *status == Status::Bound).await?;
            if round == 19 {
                holds.send(BACKOFF_MAX + SHORT)?;
            }
            let (dialled, again) = lost.recv().await.ok_or("it runs")?;
            waits.push(dialled - last);
            last = again;
        }
        // Dialling and noticing the loss take some round trips of up to 40 ms.
        let trips = Duration::from_millis(200);
        assert!(waits[0] < 2 * BACKOFF_MIN + trips, "{waits:?}");
        assert!(
            waits[8..].iter().all(|wait| *wait >= BACKOFF_MAX / 2 && *wait < BACKOFF_MAX + trips),
            "{waits:?}"
        );

        let (_, held_till) = lost.recv().await.ok_or("it runs")?;
        let (dialled, _) = lost.recv().await.ok_or("it runs")?;
        assert!(dialled - held_till < 2 * BACKOFF_MIN + trips, "{:?}", dialled - held_till);
        Ok(())
    });
    sim.run().expect("the simulation ends well");
}

#[test]
fn a_deadline_fires_in_simulated_time() {
    let mut sim = simulation();
    sim.client("three", async {
        let branch = bind(BranchActor::new("three")).await?;
        until_known(&branch, "one", true).await?;
        let start = Instant::now();
        let error = branch
            .call::<()>("stuck-one", ())
            .within(Duration::from_secs(30))
            .await
            .expect_err("it is stuck");
        assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
        assert_eq!(start.elapsed().as_secs(), 30);
        Ok(())
    });
    sim.run().expect("the simulation ends well");
}

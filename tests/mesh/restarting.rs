//! Actors that are started again when they panic: each request ends once, with its true fate, and what waits goes to the next actor.

use crate::{Mesh, soon};
use actix::{ActorContext, AsyncContext, ResponseActFuture};
use meshwork::prelude::*;
use meshwork::{ActorState, Snapshot};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Semaphore, mpsc};

/// What all actors of one test share: how many were made, and which numbers they were handed.
#[derive(Default)]
struct World {
    made: AtomicU64,
    handled: AtomicU64,
    panics_at_start: AtomicU64,
}

struct Fragile {
    world: Arc<World>,
    number: u64,
}

impl Actor for Fragile {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        let left = self
            .world
            .panics_at_start
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        assert!(left.is_err(), "no start");
    }
}

/// Asks which of the actors answers.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, ActionError>")]
struct Which {}

impl Handler<Which> for Fragile {
    type Result = Result<u64, ActionError>;

    fn handle(&mut self, _: Which, _: &mut Context<Self>) -> Self::Result {
        self.world.handled.fetch_add(1, Ordering::AcqRel);
        Ok(self.number)
    }
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<(), ActionError>")]
struct Break {}

impl Handler<Break> for Fragile {
    type Result = Result<(), ActionError>;

    fn handle(&mut self, _: Break, _: &mut Context<Self>) -> Self::Result {
        panic!("broken")
    }
}

/// Never answers.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<(), ActionError>")]
struct Hang {}

impl Handler<Hang> for Fragile {
    type Result = ResponseActFuture<Self, Result<(), ActionError>>;

    fn handle(&mut self, _: Hang, _: &mut Context<Self>) -> Self::Result {
        self.world.handled.fetch_add(1, Ordering::AcqRel);
        Box::pin(actix::fut::wrap_future(std::future::pending()))
    }
}

/// Waits, and nothing else is handled meanwhile; then the actor panics.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<(), ActionError>")]
struct BreakLater {}

impl Handler<BreakLater> for Fragile {
    type Result = Result<(), ActionError>;

    fn handle(&mut self, _: BreakLater, context: &mut Context<Self>) -> Self::Result {
        let go_on = Arc::clone(&GO_ON);
        let waits =
            actix::fut::wrap_future::<_, Self>(
                async move { go_on.acquire().await.expect("it is open").forget() },
            );
        context.wait(actix::fut::ActorFutureExt::map(waits, |(), _, _| panic!("broken later")));
        Ok(())
    }
}

static GO_ON: std::sync::LazyLock<Arc<Semaphore>> = std::sync::LazyLock::new(|| Arc::new(Semaphore::new(0)));

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<(), ActionError>")]
struct End {}

impl Handler<End> for Fragile {
    type Result = Result<(), ActionError>;

    fn handle(&mut self, _: End, context: &mut Context<Self>) -> Self::Result {
        context.stop();
        Ok(())
    }
}

impl Handler<Event<u64>> for Fragile {
    type Result = ();

    fn handle(&mut self, event: Event<u64>, _: &mut Context<Self>) {
        assert_ne!(event.value, 0, "no zero");
        self.world.handled.fetch_add(event.value, Ordering::AcqRel);
    }
}

const SOON: Duration = Duration::from_millis(1);

fn quick() -> RestartPolicy {
    RestartPolicy::default().at_most(1_000, Duration::from_secs(60)).after(SOON, SOON)
}

fn fragile(world: &Arc<World>, policy: RestartPolicy) -> Restarting<Fragile> {
    let world = Arc::clone(world);
    Restarting::start_with(policy, move || {
        let number = world.made.fetch_add(1, Ordering::AcqRel) + 1;
        Fragile { world: Arc::clone(&world), number }
    })
}

fn answering(actor: &Restarting<Fragile>) -> Responders {
    Responders::new()
        .respond_restarting("which", actor.recipient::<Which>())
        .respond_restarting("break", actor.recipient::<Break>())
        .respond_restarting("break-later", actor.recipient::<BreakLater>())
        .respond_restarting("hang", actor.recipient::<Hang>())
        .respond_restarting("end", actor.recipient::<End>())
}

fn only(snapshot: &Snapshot) -> (u64, ActorState) {
    assert_eq!(snapshot.restarting.len(), 1, "one actor, whatever it answers");
    assert!(snapshot.restarting[0].actor.ends_with("Fragile"));
    (snapshot.restarting[0].restarts, snapshot.restarting[0].state)
}

async fn until(node: &Node, restarts: u64, state: ActorState) {
    soon(async { while only(&node.snapshot().await.expect("it runs")) != (restarts, state) {} }).await;
}

#[actix::test]
async fn an_actor_that_panics_is_started_again_and_says_so() {
    let mesh = Mesh::start().await;
    let world = Arc::default();
    let actor = fragile(&world, quick());
    let provider = mesh.bind(BranchActor::new("provider").respond_all(answering(&actor))).await;
    let caller = mesh.branch("caller").await;
    for number in 1..=20 {
        assert_eq!(soon(caller.call::<u64>("which", Which {})).await, Ok(number));
        let broken = soon(caller.call::<()>("break", Break {})).await.expect_err("it panics");
        assert_eq!((broken.code(), broken.fate()), (Code::PANICKED, Fate::Failed));
        assert!(broken.message().ends_with("broken"), "{broken}");
    }
    until(&provider, 20, ActorState::Running).await;
    assert_eq!(provider.snapshot().await.unwrap().actors_lost, 0);
}

/// The requests of an actor that had a mailbox ended with it, and nobody knew whether they had run.
#[actix::test]
async fn requests_that_wait_go_to_the_next_actor_and_each_ends_once_with_its_true_fate() {
    let mesh = Mesh::start().await;
    let world: Arc<World> = Arc::default();
    let actor = fragile(&world, quick());
    let _provider = mesh.bind(BranchActor::new("provider").respond_all(answering(&actor))).await;
    let caller = mesh.branch("caller").await;
    // The actor has begun this request, and will never answer it.
    let hanging = actix::spawn(caller.call::<()>("hang", Hang {}).into_future());
    soon(async {
        while world.handled.load(Ordering::Acquire) < 1 {
            tokio::task::yield_now().await
        }
    })
    .await;
    // From here on it takes nothing: these requests wait when it panics.
    assert_eq!(soon(caller.call::<()>("break-later", BreakLater {})).await, Ok(()));
    let many = caller.clone();
    let calls = actix::spawn(async move { many.call_many::<u64>("which", (0..500).map(|_| Which {})).await });
    soon(async { while caller.snapshot().await.unwrap().calls_in_flight < 501 {} }).await;
    GO_ON.add_permits(1);
    let hanging = soon(hanging).await.unwrap().expect_err("its actor panicked");
    assert_eq!((hanging.code(), hanging.fate()), (Code::PROVIDER_LOST, Fate::Unknown));
    for outcome in soon(calls).await.unwrap() {
        assert_eq!(outcome, Ok(2), "the next actor answers it");
    }
    assert_eq!(world.handled.load(Ordering::Acquire), 501, "each was handled once");
}

#[actix::test]
async fn an_actor_that_panics_too_often_is_given_up_and_its_calls_go_to_others() {
    let mesh = Mesh::start().await;
    let world = Arc::default();
    let actor =
        fragile(&world, RestartPolicy::default().at_most(2, Duration::from_secs(60)).after(SOON, SOON));
    let provider = mesh.bind(BranchActor::new("provider").respond_all(answering(&actor))).await;
    let caller = mesh.branch("caller").await;
    for _ in 0..3 {
        assert_eq!(
            soon(caller.call::<()>("break", Break {})).await.expect_err("it panics").code(),
            Code::PANICKED
        );
    }
    let error = soon(caller.call::<u64>("which", Which {})).await.expect_err("it was given up");
    assert_eq!(error.fate(), Fate::NotSent, "{error}");
    until(&provider, 2, ActorState::GivenUp).await;
    soon(async { while provider.snapshot().await.unwrap().own_actions > 0 {} }).await;
    assert_eq!(provider.snapshot().await.unwrap().actors_lost, 5, "each of its actions");
    let other = Responders::new().respond("which", |_: Which| async { Ok(7_u64) });
    let _other = mesh.bind(BranchActor::new("other").respond_all(other)).await;
    assert_eq!(soon(caller.call::<u64>("which", Which {})).await, Ok(7));
}

#[actix::test]
async fn an_actor_that_panics_when_it_starts_is_tried_again_within_the_bound() {
    let mesh = Mesh::start().await;
    let world: Arc<World> = Arc::default();
    world.panics_at_start.store(3, Ordering::Release);
    let actor = fragile(&world, quick());
    let provider = mesh.bind(BranchActor::new("provider").respond_all(answering(&actor))).await;
    assert_eq!(soon(mesh.master.call::<u64>("which", Which {})).await, Ok(4));
    until(&provider, 3, ActorState::Running).await;

    let world: Arc<World> = Arc::default();
    world.panics_at_start.store(u64::MAX, Ordering::Release);
    let actor =
        fragile(&world, RestartPolicy::default().at_most(5, Duration::from_secs(60)).after(SOON, SOON));
    let hopeless = mesh
        .bind(BranchActor::new("hopeless").respond_restarting("hopeless", actor.recipient::<Which>()))
        .await;
    until(&hopeless, 5, ActorState::GivenUp).await;
    let error = soon(mesh.master.call::<u64>("hopeless", Which {})).await.expect_err("it never starts");
    assert_eq!(error.fate(), Fate::NotSent, "{error}");
    assert_eq!(world.made.load(Ordering::Acquire), 6);
}

#[actix::test]
async fn requests_do_not_wait_for_an_actor_that_starts_late_but_go_to_another_provider() {
    let mesh = Mesh::start().await;
    let world = Arc::default();
    let hour = Duration::from_secs(3_600);
    let actor = fragile(&world, RestartPolicy::default().after(hour, hour));
    let late = mesh.bind(BranchActor::new("late").respond_all(answering(&actor))).await;
    let caller = mesh.branch("caller").await;
    assert_eq!(
        soon(caller.call::<()>("break", Break {})).await.expect_err("it panics").code(),
        Code::PANICKED
    );
    until(&late, 0, ActorState::Waiting).await;
    let error = soon(caller.call::<u64>("which", Which {})).await.expect_err("nobody answers it in time");
    assert_eq!((error.code(), error.fate()), (Code::PROVIDER_LOST, Fate::NotSent));
    let other = Responders::new().respond("which", |_: Which| async { Ok(7_u64) });
    let _other = mesh.bind(BranchActor::new("other").respond_all(other)).await;
    for _ in 0..10 {
        assert_eq!(soon(caller.call::<u64>("which", Which {})).await, Ok(7));
    }
}

#[actix::test]
async fn no_more_requests_wait_for_the_next_actor_than_the_bound() {
    let mesh = Mesh::start().await;
    let world: Arc<World> = Arc::default();
    let bound = meshwork::limits::RESTART_WAIT_MAX;
    let actor = fragile(&world, RestartPolicy::default().after(bound, bound));
    let provider = mesh.bind(BranchActor::new("provider").respond_all(answering(&actor))).await;
    let caller = mesh.branch("caller").await;
    assert_eq!(
        soon(caller.call::<()>("break", Break {})).await.expect_err("it panics").code(),
        Code::PANICKED
    );
    until(&provider, 0, ActorState::Waiting).await;
    let max = meshwork::limits::RESTART_WAITING_MAX;
    let outcomes = soon(caller.call_many::<u64>("which", (0..2 * max).map(|_| Which {}))).await;
    let (answered, declined): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((answered.len(), declined.len()), (max, max));
    let not_sent = |error: &CallError| error.fate() == Fate::NotSent;
    assert!(declined.into_iter().all(|outcome| outcome.is_err_and(|error| not_sent(&error))));
    assert_eq!(world.handled.load(Ordering::Acquire), max as u64, "what was declined did not run");
}

#[actix::test]
async fn an_actor_that_stops_by_itself_is_withdrawn() {
    let mesh = Mesh::start().await;
    let world = Arc::default();
    let actor = fragile(&world, quick());
    let master = Node::from(&mesh.master);
    master.respond(answering(&actor)).await.unwrap();
    assert_eq!(soon(master.call::<()>("end", End {})).await, Ok(()));
    until(&master, 0, ActorState::Stopped).await;
    let error = soon(master.call::<u64>("which", Which {})).await.expect_err("it has stopped");
    assert_eq!(error.fate(), Fate::NotSent, "{error}");
    assert!(actor.addr().is_none());
}

#[actix::test]
async fn a_handler_that_panics_at_an_event_is_started_again_and_gets_the_next_ones() {
    let mesh = Mesh::start().await;
    let world: Arc<World> = Arc::default();
    let actor = fragile(&world, quick());
    let branch = mesh.branch("branch").await;
    for node in [Node::from(&mesh.master), Node::from(&branch)] {
        node.subscribe("numbers", actor.recipient::<Event<u64>>()).await.unwrap().keep();
    }
    let publisher = mesh.branch("publisher").await;
    // Each of the two subscriptions gets each event.
    for (round, number) in [1_u64, 0, 2, 0, 3].into_iter().enumerate() {
        publisher.publish("numbers", &number).await.unwrap();
        let sum = [2, 2, 6, 6, 12][round];
        soon(async {
            while world.handled.load(Ordering::Acquire) < sum {
                tokio::task::yield_now().await
            }
        })
        .await;
    }
    until(&branch, 4, ActorState::Running).await;
    until(&Node::from(&mesh.master), 4, ActorState::Running).await;
}

#[actix::test]
async fn an_actor_that_nobody_has_a_handle_on_ends() {
    struct Ends(mpsc::UnboundedSender<()>);
    impl Actor for Ends {
        type Context = Context<Self>;

        fn stopped(&mut self, _: &mut Context<Self>) {
            let _ = self.0.send(());
        }
    }
    let (ended, mut ends) = mpsc::unbounded_channel();
    let actor = Restarting::start(move || Ends(ended.clone()));
    soon(async {
        while actor.addr().is_none() {
            tokio::task::yield_now().await
        }
    })
    .await;
    drop(actor);
    assert_eq!(soon(ends.recv()).await, Some(()));
    assert_eq!(soon(ends.recv()).await, None, "and no other one is made");
}

#[actix::test]
async fn a_snapshot_shows_no_more_actors_than_its_bound() {
    let mesh = Mesh::start().await;
    let max = meshwork::limits::RESTARTING_SHOWN_MAX;
    let world: Arc<World> = Arc::default();
    for _ in 0..=max {
        let actor = fragile(&world, quick());
        mesh.master.subscribe("numbers", actor.recipient::<Event<u64>>()).await.unwrap().keep();
    }
    assert_eq!(mesh.master.snapshot().await.unwrap().restarting.len(), max);
}

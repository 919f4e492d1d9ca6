//! Actors behind actions: one that has stopped is no provider any more.

use crate::{Mesh, Stop, soon};
use meshwork::prelude::*;
use meshwork::{Authenticate, Identity, Pattern, Permissions, limits::ACTIONS_PER_FRAME_MAX};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// An actor that answers with its number, and can be stopped.
struct Numbered(u32);

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u32, ActionError>")]
struct Which {}

impl Actor for Numbered {
    type Context = Context<Self>;
}

impl Handler<Which> for Numbered {
    type Result = Result<u32, ActionError>;

    fn handle(&mut self, _: Which, _: &mut Context<Self>) -> Self::Result {
        Ok(self.0)
    }
}

impl Handler<Stop> for Numbered {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        actix::ActorContext::stop(context);
    }
}

fn named(name: &'static str, actor: &Addr<Numbered>) -> BranchActor {
    BranchActor::new(name).respond_with("which", actor.clone().recipient::<Which>())
}

async fn until_offered_by(node: &Node, providers: usize) {
    soon(async {
        loop {
            let described = node.describe("which").await.expect("it runs");
            if described.first().map_or(0, |which| which.nodes.len()) == providers {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Each third call failed for ever.
#[actix::test]
async fn an_actor_that_has_stopped_is_withdrawn_and_its_calls_go_to_others() {
    let mesh = Mesh::start().await;
    let actors = [1, 2, 3].map(|number| Numbered(number).start());
    let mut branches = Vec::new();
    for (name, actor) in ["one", "two", "three"].into_iter().zip(&actors) {
        branches.push(mesh.bind(named(name, actor)).await);
    }
    let caller = mesh.branch("caller").await;
    let nodes =
        [Node::from(&mesh.master), Node::from(&caller), Node::from(&branches[1]), Node::from(&branches[0])];
    actors[1].send(Stop).await.unwrap();
    for number in 0..60 {
        let which = soon(nodes[number % 4].call::<u32>("which", Which {})).await;
        assert!(matches!(which, Ok(1 | 3)), "{which:?}");
    }
    until_offered_by(&nodes[0], 2).await;
    assert_eq!(branches[1].snapshot().await.unwrap().actors_lost, 1);
    assert_eq!(branches[1].snapshot().await.unwrap().own_actions, 0);
    for actor in [&actors[0], &actors[2]] {
        actor.send(Stop).await.unwrap();
    }
    for node in &nodes {
        let error = soon(node.call::<u32>("which", Which {})).await.expect_err("all have stopped");
        assert_eq!(error.fate(), Fate::NotSent, "{error}");
    }
    until_offered_by(&nodes[0], 0).await;
    let again = Responders::new().respond_with("which", Numbered(4).start().recipient::<Which>());
    branches[1].respond(again).await.expect("it answers it no longer");
    assert_eq!(soon(caller.call::<u32>("which", Which {})).await, Ok(4));
}

#[actix::test]
async fn an_actor_of_the_master_that_has_stopped_leaves_its_calls_to_branches() {
    let own = Numbered(1).start();
    let master = MasterActor::new("master").respond_with("which", own.clone().recipient::<Which>());
    let mesh = Mesh::of(master).await;
    let branch = mesh.branch("caller").await;
    let _other = mesh.bind(named("other", &Numbered(2).start())).await;
    let nodes = [Node::from(&mesh.master), Node::from(&branch)];
    for node in &nodes {
        assert_eq!(node.call::<u32>("which", Which {}).await, Ok(1));
    }
    own.send(Stop).await.unwrap();
    for _ in 0..10 {
        for node in &nodes {
            assert_eq!(soon(node.call::<u32>("which", Which {})).await, Ok(2));
        }
    }
    until_offered_by(&nodes[0], 1).await;
    let snapshot = mesh.master.snapshot().await.unwrap();
    assert_eq!((snapshot.actors_lost, snapshot.own_actions), (1, 0));
}

struct Guard;

impl Actor for Guard {
    type Context = Context<Self>;
}

impl Handler<Authenticate> for Guard {
    type Result = Result<Identity, String>;

    fn handle(&mut self, _: Authenticate, _: &mut Context<Self>) -> Self::Result {
        let open = Pattern::new("open/*").expect("a pattern");
        Ok(Permissions::everything().may_offer([open]).into())
    }
}

/// A thousand actions stayed registered at the master, and unanswered at the branch.
#[actix::test]
async fn a_set_of_which_one_action_is_refused_is_refused_as_a_whole() {
    let mesh = Mesh::of(MasterActor::new("master").authenticate(Guard.start().recipient())).await;
    let branch = mesh.branch("one").await;
    let caller = mesh.branch("caller").await;
    let set = |names: &[String]| {
        names.iter().fold(Responders::new(), |set, name| set.respond(name.clone(), |(): ()| async { Ok(1) }))
    };
    for refused in ["open/sub/too deep", "shut", "a first one"] {
        let mut names: Vec<_> = (0..3 * ACTIONS_PER_FRAME_MAX).map(|n| format!("open/{n}")).collect();
        names.push(refused.to_owned());
        let error = soon(branch.respond(set(&names))).await.expect_err("one is not permitted");
        assert_eq!(error.code(), Code::NOT_PERMITTED);
        assert_eq!(caller.describe("**").await.unwrap(), [], "{refused}");
        assert_eq!(branch.snapshot().await.unwrap().own_actions, 0);
        let error = caller.call::<i32>("open/7", ()).await.expect_err("nobody answers it");
        assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
        names.pop();
        soon(branch.respond(set(&names))).await.expect("all are permitted");
        assert_eq!(caller.call::<i32>("open/7", ()).await, Ok(1));
        soon(branch.withdraw(names)).await.expect("they fit into several frames");
        assert_eq!(caller.describe("**").await.unwrap(), []);
    }
}

/// A branch whose `work` takes one request at a time, until `done` is released.
fn worker(name: &'static str, queue: usize, done: &Arc<Semaphore>) -> BranchActor {
    let done = Arc::clone(done);
    let work = Responders::new().respond("work", move |(): ()| {
        let done = Arc::clone(&done);
        async move {
            done.acquire().await?.forget();
            Ok(name.to_owned())
        }
    });
    BranchActor::new(name).respond_all(work.permits_with_queue("work", 1, queue))
}

/// Round robin gave calls to a provider that was full, and failed them, though another one was idle.
#[actix::test]
async fn a_provider_without_a_permit_is_passed_over() {
    let mesh = Mesh::start().await;
    let done = Arc::new(Semaphore::new(0));
    let one = mesh.bind(worker("one", 0, &done)).await;
    let two = mesh.bind(worker("two", 0, &done)).await;
    let caller = mesh.branch("caller").await;
    for node in [Node::from(&mesh.master), Node::from(&caller), Node::from(&one)] {
        for _ in 0..5 {
            let calls = [(); 2].map(|()| actix_rt::spawn(node.call::<String>("work", ())));
            soon(async {
                for worker in [&one, &two] {
                    while worker.snapshot().await.expect("it runs").answering == 0 {}
                }
            })
            .await;
            let error = soon(node.call::<String>("work", ())).await.expect_err("both are full");
            assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent), "{error}");
            done.add_permits(2);
            let mut by = Vec::new();
            for call in calls {
                by.push(soon(call).await.unwrap().expect("one of them has a permit"));
            }
            by.sort_unstable();
            assert_eq!(by, ["one", "two"]);
        }
    }
}

#[actix::test]
async fn requests_wait_for_a_permit_in_their_order_and_within_their_deadlines() {
    let mesh = Mesh::start().await;
    let done = Arc::new(Semaphore::new(0));
    let one = mesh.bind(worker("one", 3, &done)).await;
    let caller = mesh.branch("caller").await;
    for node in [Node::from(&caller), Node::from(&one)] {
        let first = actix_rt::spawn(node.call::<String>("work", ()));
        let late = node.call::<String>("work", ()).within(Duration::from_millis(30));
        let late = actix_rt::spawn(late);
        let waiting = [(); 2].map(|()| actix_rt::spawn(node.call::<String>("work", ())));
        let error = soon(late).await.unwrap().expect_err("it waits in vain");
        assert_eq!(error.code(), Code::REQUEST_TIMEOUT);
        // Its place is free again.
        let third = actix_rt::spawn(node.call::<String>("work", ()));
        soon(async { while one.snapshot().await.expect("it runs").answering < 4 {} }).await;
        let error = soon(node.call::<String>("work", ())).await.expect_err("no place is free");
        assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent), "{error}");
        for call in [first].into_iter().chain(waiting).chain([third]) {
            done.add_permits(1);
            assert_eq!(soon(call).await.unwrap().as_deref(), Ok("one"));
        }
    }
}

/// The loads were those of the last block: a block of calls went to one provider.
#[actix::test]
async fn least_in_flight_counts_the_calls_of_the_block_it_decides_about() {
    let mesh = Mesh::of(MasterActor::new("master").balance(meshwork::Balance::LeastInFlight)).await;
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let mut branches = Vec::new();
    for name in ["one", "two", "three", "four"] {
        let came = came.clone();
        let branch = BranchActor::new(name).respond("stuck", move |(): ()| {
            let _ = came.send(name);
            std::future::pending::<Result<(), ActionError>>()
        });
        branches.push(mesh.bind(branch).await);
    }
    let caller = mesh.branch("caller").await;
    for node in [Node::from(&caller), Node::from(&mesh.master)] {
        let calls: Vec<_> = (0..40).map(|_| actix_rt::spawn(node.call::<()>("stuck", ()))).collect();
        let mut counts = std::collections::HashMap::new();
        for _ in 0..40 {
            *counts.entry(soon(coming.recv()).await.unwrap()).or_insert(0) += 1;
        }
        assert!(counts.len() == 4 && counts.values().all(|count| *count == 10), "{counts:?}");
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        soon(async {
            let busy = || async { mesh.master.snapshot().await.expect("it runs").sessions };
            while busy().await.iter().any(|session| session.in_flight > 0) {}
        })
        .await;
    }
}

/// Puts its events into a channel, and can be stopped.
struct Ear(tokio::sync::mpsc::UnboundedSender<u32>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Event<u32>> for Ear {
    type Result = ();

    fn handle(&mut self, event: Event<u32>, _: &mut Context<Self>) {
        let _ = self.0.send(event.value);
    }
}

impl Handler<Stop> for Ear {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        actix::ActorContext::stop(context);
    }
}

/// Half of the events of such a group vanished.
#[actix::test]
async fn a_handler_that_has_stopped_is_unsubscribed_and_its_groups_lose_nothing() {
    for stopped in 0..3 {
        let mesh = Mesh::start().await;
        let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
        let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
        let ears = [(); 4].map(|()| Ear(heard.clone()).start());
        let nodes = [Node::from(&mesh.master), Node::from(&one), Node::from(&two), Node::from(&two)];
        for (node, ear) in nodes.iter().zip(&ears) {
            let ear = ear.clone().recipient::<Event<u32>>();
            node.subscribe_group("ears", "t/*", ear).await.unwrap().keep();
        }
        // A plain subscription of the same actor goes with it, and a broadcast.
        nodes[stopped]
            .subscribe("t/*", ears[stopped].clone().recipient::<Event<u32>>())
            .await
            .unwrap()
            .keep();
        nodes[stopped]
            .on_broadcast("t/*", ears[stopped].clone().recipient::<Event<u32>>())
            .await
            .unwrap()
            .keep();
        ears[stopped].send(Stop).await.unwrap();
        for (number, node) in (0..60).zip(nodes.iter().cycle()) {
            node.publish("t/a", &number).await.unwrap();
        }
        let mut numbers = Vec::new();
        while numbers.len() < 60 {
            numbers.push(soon(hearing.recv()).await.unwrap());
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..60).collect::<Vec<_>>(), "with {stopped}");
        soon(async { while nodes[stopped].snapshot().await.expect("it runs").actors_lost < 3 {} }).await;
        soon(async { while mesh.master.snapshot().await.expect("it runs").subscriptions > 3 {} }).await;
        assert!(hearing.try_recv().is_err());
    }
}

/// A branch gives back what it never got: it once would have spoken for another node.
#[actix::test]
async fn an_event_that_a_group_did_not_get_is_not_given_to_another_member() {
    let mesh = Mesh::start().await;
    let (handler, mut heard) = crate::ear::<u32>();
    let member = mesh.branch("member").await;
    let _kept = member.subscribe_group("ears", "t", handler).await.unwrap();
    crate::raw::gives_back_what_it_did_not_get(&mesh, "t", "ears").await;
    mesh.master.publish("t", &7).await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(("t".to_owned(), 7)));
}

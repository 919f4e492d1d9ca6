//! Actors behind actions: one that has stopped is no provider any more.

use crate::{Mesh, soon};
use meshwork::prelude::*;
use meshwork::{Authenticate, Pattern, Permissions, limits::ACTIONS_PER_FRAME_MAX};

/// An actor that answers with its number, and can be stopped.
struct Numbered(u32);

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u32, ActionError>")]
struct Which {}

#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

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
            let described = node.describe("which").await.unwrap();
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
    type Result = Result<Permissions, String>;

    fn handle(&mut self, _: Authenticate, _: &mut Context<Self>) -> Self::Result {
        let respond = Some(vec![Pattern::new("open/*").expect("a pattern")]);
        Ok(Permissions { respond, ..Permissions::default() })
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

//! Calls: the choice of the provider, and both ends from one trait.

use crate::{Mesh, soon, until_known};
use meshwork::prelude::*;

fn answering(name: &'static str, actions: &[&'static str]) -> BranchActor {
    actions.iter().fold(BranchActor::new(name), |branch, action| {
        branch.respond(*action, move |(): ()| async move { Ok(name.to_owned()) })
    })
}

#[actix::test]
async fn master_and_branches_call_each_other_and_themselves() {
    let master = MasterActor::new("master").respond("of-master", |(): ()| async { Ok("master".to_owned()) });
    let mesh = Mesh::of(master).await;
    let one = mesh.bind(answering("one", &["of-one"])).await;
    let two = mesh.bind(answering("two", &["of-two"])).await;
    for node in [Node::from(&mesh.master), Node::from(&one), Node::from(&two)] {
        for (action, who) in [("of-master", "master"), ("of-one", "one"), ("of-two", "two")] {
            assert_eq!(node.call::<String>(action, ()).await.as_deref(), Ok(who));
        }
    }
}

#[actix::test]
async fn the_own_action_wins_and_then_the_masters_own() {
    let master = MasterActor::new("master").respond("x", |(): ()| async { Ok("master".to_owned()) });
    let mesh = Mesh::of(master).await;
    let one = mesh.bind(answering("one", &["x"])).await;
    let _two = mesh.bind(answering("two", &["x"])).await;
    let three = mesh.branch("three").await;
    assert_eq!(one.call::<String>("x", ()).await.as_deref(), Ok("one"));
    for _ in 0..5 {
        assert_eq!(three.call::<String>("x", ()).await.as_deref(), Ok("master"));
        assert_eq!(mesh.master.call::<String>("x", ()).await.as_deref(), Ok("master"));
    }
    assert_eq!(three.call::<String>("x", ()).on("two").await.as_deref(), Ok("two"));
    assert_eq!(one.call::<String>("x", ()).on("two").await.as_deref(), Ok("two"));
}

#[actix::test]
async fn a_branch_calls_itself_without_its_link() {
    let cut = crate::cut::CutDial::default();
    let mesh = Mesh::start().await;
    let branch = mesh.bind(answering("one", &["x"]).dial(cut.clone())).await;
    cut.silence();
    assert_eq!(branch.call::<String>("x", ()).await.as_deref(), Ok("one"));
}

#[actix::test]
async fn an_action_that_nobody_offers_fails_at_once() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    for node in [Node::from(&mesh.master), Node::from(&branch)] {
        let error =
            crate::soon(node.call::<()>("nobody", ()).within(Duration::MAX)).await.expect_err("nobody");
        assert_eq!((error.code(), error.fate()), (Code::ACTION_NOT_FOUND, Fate::NotSent));
    }
}

#[actix::test]
async fn an_action_is_callable_as_soon_as_its_branch_is_bound_though_the_news_come_later() {
    let mesh = Mesh::start().await;
    let caller = mesh.branch("caller").await;
    for round in 0..20 {
        assert!(caller.call::<String>("x", ()).await.is_err(), "round {round}");
        let branch = mesh.bind(answering("one", &["x"])).await;
        assert_eq!(caller.call::<String>("x", ()).await.as_deref(), Ok("one"), "round {round}");
        branch.drain(Duration::from_secs(1)).await.unwrap();
        until_known(&mesh.master, "one", false).await;
    }
}

#[actix::test]
async fn actions_may_come_and_go_while_the_node_runs() {
    let mesh = Mesh::start().await;
    let (one, two) = (mesh.branch("one").await, mesh.branch("two").await);
    for node in [Node::from(&one), Node::from(&mesh.master)] {
        node.respond(Responders::new().respond("late", |(): ()| async { Ok(7) })).await.unwrap();
        assert_eq!(two.call::<i32>("late", ()).await, Ok(7));
        let again = Responders::new().respond("late", |(): ()| async { Ok(8) });
        assert_eq!(node.respond(again).await.expect_err("it is there").code(), Code::BAD_NAME);
        node.withdraw(["late"]).await.unwrap();
        assert_eq!(two.call::<i32>("late", ()).await.expect_err("gone").code(), Code::ACTION_NOT_FOUND);
    }
}

/// The branch once kept such actions: it answered them for its own calls, no other node knew them, and they could not be added again.
#[actix::test]
async fn actions_that_the_master_could_not_be_told_of_may_be_added_again() {
    let mesh = Mesh::start().await;
    let (branch, mut coming) = crate::ends::stuck("one");
    let branch = mesh.bind(branch.in_flight_max(1)).await;
    let calling = actix_rt::spawn(branch.call::<()>("stuck", ()).within(Duration::MAX));
    let dropped = crate::soon(coming.recv()).await.expect("it ran");
    let late = Responders::new().respond("late", |(): ()| async { Ok(7) });
    let error = branch.respond(late.clone()).await.expect_err("there is no room to say it");
    assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent));
    calling.abort();
    crate::soon(dropped).await.expect("there is room again");
    branch.respond(late).await.unwrap();
    assert_eq!(mesh.master.call::<i32>("late", ()).await, Ok(7));
}

#[actix::test]
async fn calls_and_events_are_messages_to_the_actors_too() {
    let mesh = Mesh::of(MasterActor::new("master").respond("m", |n: i64| async move { Ok(n + 1) })).await;
    let branch = mesh.bind(BranchActor::new("one").respond("b", |n: i64| async move { Ok(n + 2) })).await;
    let of_master: i64 = branch.addr().send(Call::new("m", 1)).await.unwrap().unwrap();
    let of_branch: i64 = mesh.master.addr().send(Call::new("b", 1)).await.unwrap().unwrap();
    assert_eq!((of_master, of_branch), (2, 3));
    let (handler, mut events) = crate::ear::<i64>();
    let kept = branch.addr().send(Subscribe::new("t/*", handler)).await.unwrap().unwrap();
    mesh.master.addr().send(Publish::new("t/x", &5_i64)).await.unwrap().unwrap();
    assert_eq!(crate::soon(events.recv()).await, Some(("t/x".to_owned(), 5)));
    branch.addr().send(Broadcast::new("t/x", &5_i64)).await.unwrap().unwrap();
    drop(kept);
}

#[actix::test]
async fn both_actors_take_the_same_messages() {
    let mesh = Mesh::start().await;
    let branch = mesh.branch("one").await;
    let (master, one) = (mesh.master.addr(), branch.addr());
    let (of_master, mut at_master) = crate::ear::<i32>();
    let (of_one, mut at_one) = crate::ear::<i32>();
    let _kept = (
        master.send(Subscribe::new("t", of_master.clone())).await.unwrap().unwrap(),
        one.send(Subscribe::new("t", of_one.clone())).await.unwrap().unwrap(),
        mesh.master.on_broadcast("all", of_master).await.unwrap(),
        branch.on_broadcast("all", of_one).await.unwrap(),
    );
    let heard = |topic: &str, value| Some((topic.to_owned(), value));
    one.send(Publish::new("t", &1)).await.unwrap().unwrap();
    master.send(Broadcast::new("all", &2)).await.unwrap().unwrap();
    assert_eq!(crate::soon(at_one.recv()).await, heard("t", 1));
    assert_eq!(crate::soon(at_one.recv()).await, heard("all", 2));
    assert_eq!(crate::soon(at_master.recv()).await, heard("t", 1));
    master.send(Publish::new("t", &3)).await.unwrap().unwrap();
    assert_eq!(crate::soon(at_one.recv()).await, heard("t", 3));
    assert_eq!(crate::soon(at_master.recv()).await, heard("t", 3));
    one.send(Broadcast::new("all", &4)).await.unwrap().unwrap();
    assert_eq!(crate::soon(at_master.recv()).await, heard("all", 4));
    assert!(at_one.try_recv().is_err(), "no broadcast comes back to its sender");
    let call = Call::<()>::new("nobody", ()).within(Duration::MAX).on("one");
    assert_eq!(master.send(call).await.unwrap().expect_err("nobody").code(), Code::ACTION_NOT_FOUND);
    let call = Call::<()>::new("nobody", ()).fail_when_down();
    assert_eq!(one.send(call).await.unwrap().expect_err("nobody").code(), Code::ACTION_NOT_FOUND);
}

#[actix::test]
async fn many_calls_at_once_have_each_their_own_outcome() {
    let mesh = Mesh::of(MasterActor::new("master").respond("half", |n: u32| async move {
        if n.is_multiple_of(2) { Ok(n / 2) } else { Err(ActionError::new("Odd", n.to_string())) }
    }))
    .await;
    let branch = mesh.branch("one").await;
    let outcomes: Vec<Result<u32, CallError>> = branch.call_many("half", 0..1000_u32).await;
    assert_eq!(outcomes.len(), 1000);
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(half) => assert_eq!(half as usize * 2, n),
            Err(error) => assert_eq!((error.name(), error.message()), ("Odd", &*n.to_string())),
        }
    }
}

/// Bytes that are encoded as they are; an empty value cannot be encoded.
struct Maybe(usize);

impl Serialize for Maybe {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => Err(serde::ser::Error::custom("nothing there")),
            len => serializer.serialize_bytes(&vec![7; len]),
        }
    }
}

#[actix::test]
async fn many_calls_at_once_may_be_of_any_length_and_some_of_none() {
    let master = MasterActor::new("master")
        .frame_len_max(100_000)
        .respond("len", |bytes: meshwork::ByteBuf| async move { Ok(bytes.len()) });
    let mesh = Mesh::of(master).await;
    let branch = mesh.branch("one").await;
    // Payloads that are gathered, copied, shared, refused by the link, and refused by the encoding.
    let lengths = [5, 64, 65, 16_000, 20_000, 90_000, 100_000, 0, 1, 0, 7].repeat(100);
    for (node, over_a_link) in [(Node::from(&mesh.master), false), (Node::from(&branch), true)] {
        let outcomes: Vec<Result<usize, CallError>> =
            soon(node.call_many("len", lengths.iter().map(|len| Maybe(*len)))).await;
        assert_eq!(outcomes.len(), lengths.len());
        for (outcome, len) in outcomes.into_iter().zip(&lengths) {
            match outcome {
                Err(error) if *len == 0 => {
                    assert_eq!((error.code(), error.fate()), (Code::CANNOT_ENCODE, Fate::NotSent));
                }
                Err(error) if *len == 100_000 && over_a_link => {
                    assert_eq!((error.code(), error.fate()), (Code::FRAME_TOO_LARGE, Fate::NotSent));
                }
                outcome => assert_eq!(outcome, Ok(*len)),
            }
        }
    }
    // Even a short frame may be too long for a link.
    let mesh = Mesh::of(
        MasterActor::new("master")
            .frame_len_max(100)
            .respond("twice", |text: String| async move { Ok(text.repeat(2)) }),
    )
    .await;
    let branch = mesh.branch("one").await;
    let texts = ["a", &"b".repeat(90), "c"];
    let codes = soon(branch.call_many::<String>("twice", texts)).await;
    let codes = codes.into_iter().map(|outcome| outcome.map_err(|error| error.code()));
    let expected = [Ok("aa".to_owned()), Err(Code::FRAME_TOO_LARGE), Ok("cc".to_owned())];
    assert_eq!(codes.collect::<Vec<_>>(), expected);
}

#[actix::test]
async fn as_many_calls_of_many_go_as_there_are_places() {
    let mesh = Mesh::of(MasterActor::new("master").respond("twice", |n: u32| async move {
        // No call is answered before all requests have come.
        tokio::task::yield_now().await;
        Ok(n * 2)
    }))
    .await;
    let branch = mesh.bind(BranchActor::new("one").in_flight_max(100)).await;
    let outcomes = soon(branch.call_many::<u32>("twice", vec![21_u32; 90])).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Ok(42)), "there is room for all");
    let stuck = [(); 2].map(|()| branch.call_many::<u32>("twice", vec![21_u32; 150]));
    let [one, other] = stuck;
    for outcomes in <[_; 2]>::from(soon(futures::future::join(one, other)).await) {
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert!((1..150).contains(&refused), "{refused} of 150");
        for outcome in outcomes {
            match outcome {
                Ok(twice) => assert_eq!(twice, 42),
                Err(error) => assert_eq!((error.code(), error.fate()), (Code::OVERLOADED, Fate::NotSent)),
            }
        }
    }
    assert_eq!(branch.snapshot().await.unwrap().calls_in_flight, 0);
}

#[derive(Serialize, Deserialize)]
struct Add {
    a: i64,
    b: i64,
}

#[meshwork::actions(prefix = "math")]
trait Math {
    async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError>;
    async fn caller(&self, context: CallContext) -> Result<String, ActionError>;
}

struct Calculator;

impl Math for Calculator {
    async fn add(&self, a: i64, b: i64) -> Result<i64, ActionError> {
        Ok(a + b)
    }

    async fn caller(&self, context: CallContext) -> Result<String, ActionError> {
        Ok(context.caller().to_owned())
    }
}

#[actix::test]
async fn a_whole_set_is_registered_at_once_and_called_by_a_typed_requester() {
    let mesh = Mesh::start().await;
    let _math = mesh.bind(BranchActor::new("math").respond_all(Calculator.into_responders())).await;
    let branch = mesh.branch("one").await;
    let math = MathRequester::new(&branch);
    assert_eq!(math.add(2, 3).await, Ok(5));
    assert_eq!(math.caller().await.as_deref(), Ok("one"));
    assert_eq!(MathRequester::new(&mesh.master).caller().await.as_deref(), Ok("master"));
    // A struct with these fields is read from the arguments, in every encoding.
    assert_eq!(branch.call::<i64>("math/add", Add { a: 4, b: 5 }).await, Ok(9));
    let described = branch.describe("math/**").await.unwrap();
    let names: Vec<_> = described.iter().map(|one| &*one.action).collect();
    assert_eq!(names, ["math/add", "math/caller"]);
    assert_eq!(described[0].nodes, ["math"]);
    let shape = described[0].shape.as_ref().expect("integers tell their shape");
    assert!(shape.arguments.contains("integer") && shape.reply.contains("integer"), "{shape:?}");
}

#[actix::test]
async fn describe_names_everyone_who_offers_an_action() {
    let master = MasterActor::new("master").respond_all(
        Responders::new()
            .respond("x", |Add { a, b }| async move { Ok(a + b) })
            .respond("y", |(): ()| async { Ok(()) }),
    );
    let mesh = Mesh::of(master).await;
    let _one = mesh.bind(answering("one", &["x"])).await;
    for node in [Node::from(&mesh.master), Node::from(mesh.branch("two").await)] {
        let described = node.describe("*").await.unwrap();
        assert_eq!(described.len(), 2);
        assert_eq!(described[0].nodes, ["master", "one"]);
    }
}

struct Counter(u64);

#[derive(Message, Deserialize)]
#[rtype(result = "Result<u64, ActionError>")]
struct Increment {
    by: u64,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Increment> for Counter {
    type Result = Result<u64, ActionError>;

    fn handle(&mut self, Increment { by }: Increment, _: &mut Context<Self>) -> Self::Result {
        self.0 += by;
        Ok(self.0)
    }
}

#[actix::test]
async fn an_actor_answers_an_action() {
    let counter = Counter(0).start();
    let mesh = Mesh::start().await;
    let branch = BranchActor::new("one").respond_with("count", counter.recipient::<Increment>());
    let _one = mesh.bind(branch).await;
    assert_eq!(mesh.master.call::<u64>("count", (2_u64,)).await, Ok(2));
    assert_eq!(mesh.master.call::<u64>("count", (3_u64,)).await, Ok(5));
}

#[actix::test]
async fn an_action_may_stand_for_everything_below_a_name() {
    let which = |node: &'static str| {
        move |_: (), context: CallContext| async move { Ok(format!("{node}: {}", context.action())) }
    };
    let mesh = Mesh::of(MasterActor::new("master").respond("own/**", which("master"))).await;
    let files = mesh.bind(BranchActor::new("files").respond("files/**", which("files"))).await;
    let deep = mesh.bind(BranchActor::new("deep").respond("files/deep/**", which("deep"))).await;
    let named = mesh.bind(BranchActor::new("named").respond("files/a", which("named"))).await;
    for caller in [&files as &Node, &deep, &named, &mesh.master] {
        for (action, expected) in [
            ("files/a", "named"),
            ("files/b", "files"),
            ("files/b/c", "files"),
            ("files/deep/d", "deep"),
            ("own/x", "master"),
        ] {
            assert_eq!(soon(caller.call::<String>(action, ())).await, Ok(format!("{expected}: {action}")));
        }
        let none = soon(caller.call::<String>("files", ())).await.unwrap_err();
        assert_eq!(none.code(), Code::ACTION_NOT_FOUND);
    }
}

/// All actions after the first 10,000 were left out, without a word.
#[actix::test]
async fn all_actions_are_described_however_many_there_are() {
    let mesh = Mesh::start().await;
    let name = |number: usize| format!("many/{number:05}");
    let count = 2 * meshwork::limits::DESCRIBED_MAX + 1;
    let many = (0..count).fold(Responders::new(), |responders, number| {
        responders.respond(name(number), |(): ()| async { Ok(()) })
    });
    let many = mesh.bind(BranchActor::new("many").respond_all(many)).await;
    let other = mesh.bind(BranchActor::new("other").respond("few", |(): ()| async { Ok(()) })).await;
    for node in [Node::from(&mesh.master), Node::from(&many), Node::from(&other)] {
        let described = soon(node.describe("many/*")).await.expect("the master answers");
        assert!(described.iter().map(|one| &*one.action).eq((0..count).map(name)));
        assert!(described.iter().all(|one| one.nodes == ["many"]));
        assert_eq!(soon(node.describe("**")).await.expect("the master answers").len(), count + 1);
        assert_eq!(soon(node.describe("many/00001")).await.expect("the master answers").len(), 1);
    }
}

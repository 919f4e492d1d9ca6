//! Identities: who binds under which name, what each may do, and what becomes of bound branches when the identities change.

use crate::{Mesh, ear, soon, until_known};
use meshwork::prelude::*;
use meshwork::{
    Authenticate, BindError, Identities, Identity, OnNameTaken, Pattern, Permissions, Status, TokenError,
    token_digest,
};

/// An identity whose token is its name and ` token`.
fn entry(name: &str, more: &str) -> String {
    format!("[identities.{name}]\ntokens = [\"{}\"]\n{more}\n", token_digest(&format!("{name} token")))
}

fn identities(entries: &[String]) -> Identities {
    Identities::from_toml(&entries.concat()).expect("they are right")
}

/// A branch that shows the token of an identity.
fn of(identity: &str, name: &'static str) -> BranchActor {
    BranchActor::new(name).token(format!("{identity} token"))
}

fn everything(name: &str) -> String {
    let verbs = ["bind", "offer", "call", "publish", "subscribe", "describe"];
    entry(name, &verbs.map(|verb| format!("{verb} = [\"**\"]\n")).concat())
}

async fn mesh(entries: &[String]) -> Mesh {
    Mesh::of(MasterActor::new("master").identities(identities(entries))).await
}

fn adds(branch: BranchActor, action: &'static str) -> BranchActor {
    branch.respond(action, |(a, b): (i64, i64)| async move { Ok(a + b) })
}

fn denied(error: &CallError) -> bool {
    (error.code(), error.fate()) == (Code::NOT_PERMITTED, Fate::NotSent)
}

#[actix::test]
async fn a_branch_is_known_by_its_token_and_a_wrong_token_is_refused_in_the_same_words_whatever_the_name() {
    let mesh = mesh(&[entry("orders", ""), entry("stock", "")]).await;
    let _orders = mesh.bind(of("orders", "orders")).await;
    let _one = mesh.bind(of("orders", "orders/1")).await;
    let sessions = mesh.master.snapshot().await.unwrap().sessions;
    assert!(sessions.iter().all(|session| session.identity == "orders") && sessions.len() == 2);
    let mut said = Vec::new();
    for name in ["orders", "stock", "nobody", "master"] {
        let error = of("guess", name).bind(&mesh.address).await.expect_err("a wrong token");
        assert!(!error.may_return() && error.code() == Code::BIND_ERROR, "{error}");
        said.push(error.to_string());
    }
    said.dedup();
    assert!(matches!(&said[..], [one] if one.contains("the token is wrong")), "{said:?}");
    let none = BranchActor::new("orders").bind(&mesh.address).await.expect_err("no token");
    assert!(none.to_string().contains("a token is needed"), "{none}");
    assert_eq!(mesh.master.snapshot().await.unwrap().denied.bind, 5);
}

#[actix::test]
async fn nobody_binds_under_the_name_of_another_identity() {
    for on_taken in [OnNameTaken::Replace, OnNameTaken::Share, OnNameTaken::Refuse] {
        let all = [entry("orders", ""), everything("other"), entry("guest", "bind = [\"*\"]")];
        let master = MasterActor::new("master").identities(identities(&all)).on_name_taken(on_taken);
        let mesh = Mesh::of(master).await;
        let theirs = [("orders", "belongs to another identity"), ("orders/1", "belongs to another identity")];
        for (name, why) in theirs.into_iter().chain([("master", "the name of the master")]) {
            for branch in [of("other", name), of("other", name).replace()] {
                let error = branch.bind(&mesh.address).await.expect_err("it is not its name");
                assert!(!error.may_return() && error.to_string().contains(why), "{error}");
            }
        }
        let first = mesh.bind(of("guest", "free")).await;
        for branch in [of("other", "free"), of("other", "free").replace()] {
            let error = branch.bind(&mesh.address).await.expect_err("another identity has it");
            assert!(error.code() == Code::NOT_PERMITTED && error.may_return(), "{error}");
        }
        assert!(first.describe("**").await.is_err_and(|error| denied(&error)), "it is still bound");
        let error = of("guest", "a/b").bind(&mesh.address).await.expect_err("`*` is one segment");
        assert!(error.to_string().contains("it may bind under *, guest, guest/**"), "{error}");
        first.drain(Duration::ZERO).await.unwrap();
        soon(async { while of("other", "free").bind(&mesh.address).await.is_err() {} }).await;
    }
}

#[actix::test]
async fn what_is_not_permitted_is_denied_at_once_at_the_one_who_asks_and_counted() {
    let guest = entry(
        "guest",
        "call = [\"open/*\"]\noffer = [\"guest/**\"]\npublish = [\"open/*\"]\nsubscribe = [\"open/**\"]\n",
    );
    let mesh = mesh(&[everything("service"), guest]).await;
    let _service = mesh.bind(adds(adds(of("service", "service"), "open/add"), "shut/add")).await;
    let guest = mesh.bind(of("guest", "guest")).await;
    for _ in 0..2 {
        // The second call finds the route in the cache of the session.
        assert_eq!(guest.call::<i64>("open/add", (1, 2)).await, Ok(3));
        for action in ["shut/add", "none"] {
            let error = guest.call::<i64>(action, (1, 2)).await.expect_err("not permitted");
            assert!(denied(&error), "whether it is there or not: {error}");
            assert!(error.message().contains("it may call open/*"), "{error}");
        }
    }
    for pattern in ["**", "*", "*/a", "shut/a"] {
        let error = guest.subscribe(pattern, |_: Event<i32>| {}).await.expect_err("not permitted");
        assert!(error.code() == Code::NOT_PERMITTED && error.message().ends_with("open/**"), "{error}");
    }
    drop(guest.subscribe("open/*/x", |_: Event<i32>| {}).await.expect("it is covered"));
    for topic in ["shut/a", "open/a/b"] {
        assert!(denied(&guest.publish(topic, &1).await.expect_err("not permitted")));
        assert!(denied(&guest.broadcast(topic, &1).await.expect_err("not permitted")));
    }
    for action in ["other", "**/x", "guest"] {
        let offer = Responders::new().respond(action, |(): ()| async { Ok(()) });
        let error = guest.respond(offer).await.expect_err("not permitted");
        assert_eq!(error.code(), Code::NOT_PERMITTED, "{error}");
    }
    assert!(denied(&guest.describe("**").await.expect_err("nothing may be described")));
    let counted = mesh.master.snapshot().await.unwrap().denied;
    assert_eq!((counted.call, counted.subscribe, counted.offer, counted.describe), (4, 4, 3, 1));
    assert_eq!(guest.call::<i64>("open/add", (1, 2)).await, Ok(3), "and it goes on");
}

#[actix::test]
async fn a_bind_with_an_offer_or_a_subscription_that_is_not_permitted_is_refused() {
    let mesh = mesh(&[entry("guest", "offer = [\"files/*\"]")]).await;
    for action in ["other", "files/**"] {
        let error = adds(of("guest", "guest"), action).bind(&mesh.address).await.expect_err("not permitted");
        assert!(error.code() == Code::NOT_PERMITTED && !error.may_return(), "{error}");
        assert!(error.to_string().contains("it may offer files/*"), "{error}");
    }
    mesh.bind(adds(of("guest", "guest"), "files/a")).await;
}

#[actix::test]
async fn a_function_may_be_called_by_its_holder_without_a_permission() {
    let mesh = mesh(&[everything("service"), entry("guest", "call = [\"with\"]")]).await;
    let service = of("service", "service").respond("with", |(back,): (Callback<i64, i64>,)| async move {
        back.call(20).await.or_action_error()
    });
    let _service = mesh.bind(service).await;
    let guest = mesh.bind(of("guest", "guest")).await;
    let back = Callback::new(|number: i64| number + 1);
    assert_eq!(guest.call::<i64>("with", (back,)).await, Ok(21));
}

#[actix::test]
async fn a_branch_sees_and_hears_of_no_more_than_it_may_describe() {
    let guest = entry("guest", "describe = [\"open/**\"]\n");
    let mesh = mesh(&[everything("service"), everything("hidden"), guest]).await;
    let _service = mesh.bind(adds(adds(of("service", "service"), "open/add"), "shut/add")).await;
    let guest = mesh.bind(of("guest", "guest")).await;
    let names = |nodes: Vec<meshwork::NodeNews>| {
        nodes.into_iter().map(|node| node.node.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(guest.nodes().await.unwrap()), ["service"]);
    let described = guest.describe("**").await.unwrap();
    assert!(described.iter().map(|one| &*one.action).eq(["open/add"]), "{described:?}");
    assert_eq!(guest.describe("*/add").await.unwrap().len(), 1);
    assert!(denied(&guest.describe("shut/*").await.expect_err("nothing of it may be described")));
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let writes = std::sync::Arc::clone(&heard);
    guest.on_change(move |change| writes.lock().unwrap().push(change.news().clone())).await.unwrap();
    let hidden = mesh.bind(adds(of("hidden", "hidden"), "shut/more")).await;
    let shown = mesh.bind(adds(adds(of("service", "service/2"), "open/more"), "shut/more")).await;
    until_known(&guest, "service/2", true).await;
    for branch in [hidden, shown] {
        branch.drain(Duration::ZERO).await.unwrap();
    }
    until_known(&guest, "service/2", false).await;
    let heard = heard.lock().unwrap();
    assert!(heard.iter().all(|news| news.node == "service/2"), "{heard:?}");
    assert!(
        heard.iter().flat_map(|news| &news.actions).all(|(action, _)| action == "open/more"),
        "{heard:?}"
    );
}

#[actix::test]
async fn a_broadcast_reaches_who_may_subscribe_to_its_topic() {
    let deaf = entry("deaf", "publish = [\"**\"]");
    let mesh = mesh(&[everything("service"), entry("guest", "subscribe = [\"open/*\"]"), deaf]).await;
    let service = mesh.bind(of("service", "service")).await;
    let (guest, deaf) = (mesh.bind(of("guest", "guest")).await, mesh.bind(of("deaf", "deaf")).await);
    let (handler, mut events) = ear::<i32>();
    let (no_handler, mut no_events) = ear::<i32>();
    let _kept = (
        guest.on_broadcast("**", handler).await.unwrap(),
        deaf.on_broadcast("**", no_handler).await.unwrap(),
    );
    service.broadcast("shut/a", &1).await.unwrap();
    service.broadcast("open/a", &2).await.unwrap();
    assert_eq!(soon(events.recv()).await, Some(("open/a".to_owned(), 2)));
    // What was written to the link of `deaf` before this reply has arrived.
    let _ = deaf.describe("**").await;
    assert!(no_events.try_recv().is_err());
}

#[actix::test]
async fn new_permissions_count_at_once_for_branches_that_are_bound() {
    let with = |call: &str| {
        [everything("service"), entry("guest", &format!("call = [\"{call}\"]\noffer = [\"g\"]"))]
    };
    let mesh = mesh(&with("a")).await;
    let _service = mesh.bind(adds(adds(of("service", "service"), "a"), "b")).await;
    let guest = mesh.bind(adds(of("guest", "guest"), "g")).await;
    let session = mesh.master.snapshot().await.unwrap().sessions[0].session;
    for (call, other) in [("a", "b"), ("b", "a"), ("a", "b")] {
        mesh.master.set_identities(identities(&with(call))).await.unwrap();
        assert_eq!(guest.call::<i64>(call, (1, 2)).await, Ok(3));
        assert!(denied(&guest.call::<i64>(other, (1, 2)).await.expect_err("not permitted")));
        let offer = Responders::new().respond("h", |(): ()| async { Ok(()) });
        assert_eq!(guest.respond(offer).await.expect_err("not permitted").code(), Code::NOT_PERMITTED);
    }
    assert_eq!(mesh.master.snapshot().await.unwrap().sessions[0].session, session, "the link stays");
    assert_eq!(mesh.master.call::<i64>("g", (1, 2)).await, Ok(3));
}

#[actix::test]
async fn a_bound_branch_that_may_no_longer_be_what_it_is_ends_with_the_reason() {
    let guest = |more: &str| {
        entry("guest", &format!("bind = [\"own\"]\noffer = [\"a\"]\nsubscribe = [\"t/*\"]\n{more}"))
    };
    let without = |what: &str| guest("").replace(what, "");
    for (now, why) in [
        (without("offer = [\"a\"]"), "may not offer \"a\""),
        (without("subscribe = [\"t/*\"]"), "may not subscribe to \"t/x\""),
        (without("bind = [\"own\"]"), "may not bind under \"own\""),
        (
            guest("").replace("guest]", "else]").replace(&token_digest("guest token"), &token_digest("new")),
            "the token is wrong",
        ),
    ] {
        let mesh = mesh(&[guest("")]).await;
        let branch = mesh.bind(adds(of("guest", "own"), "a")).await;
        let _kept = branch.subscribe("t/x", |_: Event<i32>| {}).await.unwrap();
        mesh.master.set_identities(identities(&[now])).await.unwrap();
        let ended = soon(branch.closed()).await;
        assert_eq!(ended.code(), Code::NOT_PERMITTED, "{ended}");
        assert!(ended.message().contains(why), "{why}: {ended}");
        let error = mesh.master.call::<i64>("a", (1, 2)).await.expect_err("it has gone");
        assert_eq!(error.code(), Code::ACTION_NOT_FOUND);
    }
}

#[actix::test]
async fn a_branch_that_may_publish_or_describe_something_else_binds_again_and_knows_it() {
    let with = |publish: &str| [entry("guest", &format!("publish = [\"{publish}\"]")), entry("other", "")];
    let mesh = mesh(&with("a")).await;
    let backoff = Duration::from_millis(1);
    let guest = mesh.bind(of("guest", "guest").backoff(backoff, backoff)).await;
    let other = mesh.bind(of("other", "other")).await;
    let mut status = other.status().await.unwrap();
    assert!(denied(&guest.publish("b", &1).await.expect_err("not permitted")));
    mesh.master.set_identities(identities(&with("b"))).await.unwrap();
    let publishing = async {
        while guest.publish("b", &1).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(publishing).await;
    assert!(denied(&guest.publish("a", &1).await.expect_err("not permitted")));
    assert!(
        *status.borrow_and_update() == Status::Bound && !status.has_changed().unwrap(),
        "nothing changed for it"
    );
}

#[actix::test]
async fn a_master_that_gets_its_first_identities_asks_who_its_branches_are() {
    let mesh = Mesh::start().await;
    let backoff = Duration::from_millis(1);
    let known = mesh.bind(of("known", "known").backoff(backoff, backoff)).await;
    let unknown = mesh.bind(BranchActor::new("unknown").backoff(backoff, backoff)).await;
    mesh.master.set_identities(identities(&[entry("known", "call = [\"x\"]")])).await.unwrap();
    let ended = soon(unknown.closed()).await;
    assert_eq!(ended.code(), Code::BIND_ERROR);
    let error = soon(known.call::<i64>("y", ())).await.expect_err("it waits for the link, and is denied");
    assert_eq!(error.code(), Code::NOT_PERMITTED, "{error}");
}

struct Guard;

impl Actor for Guard {
    type Context = Context<Self>;
}

impl Handler<Authenticate> for Guard {
    type Result = Result<Identity, String>;

    fn handle(&mut self, asked: Authenticate, _: &mut Context<Self>) -> Self::Result {
        let shown = asked.credentials.ok_or("no credentials")?;
        let named = Identity::new(shown);
        Ok(named.with(Permissions::everything().may_bind([Pattern::new("team/*").expect("a pattern")])))
    }
}

#[actix::test]
async fn the_identities_of_a_recipient_have_their_names_too() {
    let master = MasterActor::new("master")
        .authenticate(Guard.start().recipient())
        .on_name_taken(OnNameTaken::Replace);
    let mesh = Mesh::of(master).await;
    let bind = |identity: &'static str, name| BranchActor::new(name).token(identity).bind(&mesh.address);
    let _first = bind("one", "team/a").await.expect("it binds");
    let error = bind("two", "team/a").await.expect_err("it is the name of another identity");
    assert_eq!((error.code(), error.may_return()), (Code::NOT_PERMITTED, true), "{error}");
    let error = bind("two", "other").await.expect_err("no such name is permitted");
    assert!(error.to_string().contains("it may bind under team/*"), "{error}");
    bind("one", "team/a").await.expect("the same identity replaces its branch");
}

#[actix::test]
async fn a_token_that_is_none_is_an_error_before_it_is_sent() {
    let mesh = Mesh::start().await;
    let long = "x".repeat(meshwork::limits::CREDENTIALS_LEN_MAX + 1);
    for (token, why) in [
        ("", TokenError::Empty),
        ("secret\n", TokenError::LineBreak),
        ("a\0b", TokenError::Control),
        (&long, TokenError::TooLong(long.len())),
    ] {
        // This master would let in everybody.
        let error =
            BranchActor::new("a").token(token.to_owned()).bind(&mesh.address).await.expect_err("no token");
        assert!(matches!(&error, BindError::Token(said) if *said == why), "{error}");
        let master = Master::from(MasterActor::new("master").token(token.to_owned()).start());
        let error = master.listen(Listen::tcp("127.0.0.1:0")).await.expect_err("no token");
        assert!(error.to_string().contains(&why.to_string()), "{error}");
    }
}

#[actix::test]
async fn clients_without_authentication_have_the_identity_of_their_gateway() {
    let service = everything("service");
    let legacy = "[identities.legacy]\ncall = [\"old/*\"]\ndescribe = [\"old/*\"]\n".to_owned();
    let mesh = mesh(&[service, legacy]).await;
    let _service = mesh.bind(adds(adds(of("service", "service"), "old/add"), "new/add")).await;
    for (identity, legal) in [("legacy", true), ("anonymous", false)] {
        let gateway = mesh.master.listen(Listen::light_rpc("127.0.0.1:0").identity(identity)).await.unwrap();
        let bridge = meshwork::Bridge::light_rpc(gateway.as_str()).name("bridge").prefix("far");
        // The bridge takes the functions that the gateway shows into a mesh without identities.
        let far = Mesh::start().await;
        let bridging = actix_rt::spawn(bridge.run(&far.address));
        if legal {
            soon(async { while far.master.call::<i64>("far/old/add", (1, 2)).await != Ok(3) {} }).await;
            let error = far.master.call::<i64>("far/new/add", (1, 2)).await.expect_err("it is not shown");
            assert_eq!(error.code(), Code::ACTION_NOT_FOUND);
        } else {
            soon(async { while mesh.master.snapshot().await.unwrap().denied.bind == 0 {} }).await;
        }
        bridging.abort();
    }
}

#[actix::test]
async fn a_branch_of_node_mesh_is_its_identity_and_replaces_no_other() {
    let mesh = mesh(&[everything("one"), everything("two"), entry("guest", "call = [\"x\"]")]).await;
    let gateway = mesh.master.listen(Listen::node_mesh("127.0.0.1:0")).await.unwrap();
    let native = mesh.bind(of("one", "free")).await;
    let join = |identity, name| of(identity, name).dialect(Dialect::NodeMesh).bind(&gateway);
    for (identity, name) in
        [("two", "free"), ("two", "one"), ("two", "one/x"), ("guess", "two"), ("two", "master")]
    {
        let refused = join(identity, name).await.expect_err("it is not its name");
        assert!(matches!(refused, BindError::Refused { .. }), "{refused}");
    }
    assert_eq!(native.call::<i64>("none", ()).await.expect_err("nobody").code(), Code::ACTION_NOT_FOUND);
    let guest = join("guest", "guest").await.expect("it binds");
    // node-mesh does not tell a branch what it may publish to: the master drops the event, and counts it.
    guest.publish("orders/new", &1).await.expect("it leaves");
    soon(async { while mesh.master.snapshot().await.unwrap().denied.publish == 0 {} }).await;
    let _again = join("one", "free").await.expect("its own identity replaces it, as in node-mesh");
    assert_eq!(soon(native.closed()).await.code(), Code::BIND_ERROR);
}

#[actix::test]
async fn a_branch_that_may_not_call_an_action_is_not_told_who_provides_it() {
    let callers = entry("caller", "call = [\"add\"]");
    let mesh = mesh(&[everything("provider"), callers]).await;
    let _provider = mesh.bind(adds(adds(of("provider", "provider"), "add"), "other")).await;
    let caller = mesh.bind(of("caller", "caller")).await;
    let mut all = caller.call_all::<i64>("add", (2, 3));
    let answered = soon(all.next()).await.expect("it is called");
    assert_eq!((&*answered.node, answered.outcome), ("provider", Ok(5)));
    let refused = soon(caller.call_all::<i64>("other", (2, 3)).next()).await.expect("it is refused");
    assert!(refused.node.is_empty() && denied(&refused.outcome.expect_err("it may not")));
}

//! Which provider gets a call: by key, by label, by weight; and calls of all providers of an action.

use crate::raw::{RawBranch, bind, bound_branch, request};
use crate::{Mesh, soon, until_known};
use futures::{FutureExt, StreamExt};
use meshwork::limits::{KEY_LEN_MAX, LABELS_MAX};
use meshwork::prelude::*;
use meshwork::{Answered, Balance, CallingAll, Encoding, Headers, Payload};
use meshwork_wire::{
    CallbackId, ExtendedBind, Features, FindProviders, Frame, Label, Labels, Register, Request, Response,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A branch whose action `who` answers with its name.
fn who(name: &'static str) -> BranchActor {
    BranchActor::new(name).respond("who", move |(): ()| async move { Ok(name.to_owned()) })
}

/// The provider of each of a hundred keys.
async fn owners(node: &Node) -> BTreeMap<usize, String> {
    let calls = (0..100).map(|key| node.call::<String>("who", ()).key(key));
    let owners = soon(futures::future::try_join_all(calls)).await.expect("each is answered");
    owners.into_iter().enumerate().collect()
}

/// How often each provider answers so many calls.
async fn shares(node: &Node, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(soon(node.call::<String>("who", ())).await.expect("it is answered")).or_default() += 1;
    }
    shares
}

fn not_sent(error: &CallError) -> (Code, Fate) {
    assert_eq!(error.fate(), Fate::NotSent, "{error}");
    (error.code(), error.fate())
}

#[actix::test]
async fn calls_of_a_key_have_one_provider_whoever_makes_them() {
    let mesh = Mesh::start().await;
    let (a, _b, _c) = (mesh.bind(who("a")).await, mesh.bind(who("b")).await, mesh.bind(who("c")).await);
    let caller = mesh.branch("caller").await;
    let of_branch = owners(&caller).await;
    assert_eq!(of_branch.values().collect::<BTreeSet<_>>().len(), 3, "each has some");
    assert_eq!(owners(&caller).await, of_branch);
    assert_eq!(owners(&mesh.master).await, of_branch, "the master's own calls");
    assert_eq!(owners(&a).await, of_branch, "and those of a node that answers the action itself");

    let (customer, number) = (String::from("ann"), 17_u64);
    let by_text = soon(caller.call::<String>("who", ()).key(&customer)).await.unwrap();
    assert_eq!(soon(mesh.master.call::<String>("who", ()).key("ann")).await, Ok(by_text));
    let by_number = soon(caller.call::<String>("who", ()).key(number)).await.unwrap();
    let by_message = soon(caller.addr().send(Call::<String>::new("who", ()).key("17"))).await;
    assert_eq!(by_message.expect("it runs"), Ok(by_number));
}

#[actix::test]
async fn only_the_keys_of_a_provider_that_goes_move_and_they_return_with_it() {
    let mesh = Mesh::start().await;
    let (_a, b, _c) = (mesh.bind(who("a")).await, mesh.bind(who("b")).await, mesh.bind(who("c")).await);
    let caller = mesh.branch("caller").await;
    let before = owners(&caller).await;
    b.drain(Duration::from_secs(5)).await.expect("it runs");
    until_known(&caller, "b", false).await;
    let without = owners(&caller).await;
    for (key, owner) in &before {
        match &**owner {
            "b" => assert_ne!(without[key], "b"),
            other => assert_eq!(without[key], other, "its provider is there"),
        }
    }
    let _b = mesh.bind(who("b")).await;
    assert_eq!(owners(&caller).await, before);
}

#[actix::test]
async fn the_keys_of_a_provider_that_rests_go_to_one_stand_in_and_return() {
    let mut limits = meshwork::Limits::default();
    limits.failed_in_row_max = 1;
    limits.rest_min = Duration::from_secs(3_600);
    limits.rest_max = Duration::from_secs(3_600);
    let mesh = Mesh::of(MasterActor::new("master").limits(limits)).await;
    let _nodes = [mesh.bind(who("a")).await, mesh.bind(who("b")).await];
    let panics = |(): ()| async move { if true { panic!("it does") } else { Ok(()) } };
    let _bad = mesh.bind(who("c").respond("panic", panics)).await;
    let caller = mesh.branch("caller").await;
    let before = owners(&caller).await;
    let resting =
        async || mesh.master.snapshot().await.expect("it runs").sessions.iter().any(|it| it.resting);
    soon(async {
        while !resting().await {
            caller.call::<()>("panic", ()).await.expect_err("it panics");
        }
    })
    .await;
    let meanwhile = owners(&caller).await;
    for (key, owner) in &before {
        assert_ne!(meanwhile[key], "c");
        assert!(owner == "c" || *owner == meanwhile[key], "the keys of others stay");
    }
    let named = caller.call::<String>("who", ()).key(1).on("c");
    assert_eq!(soon(named).await, Ok("c".to_owned()), "no other node has the name; and it works again");
    assert_eq!(owners(&caller).await, before);
}

#[actix::test]
async fn a_key_is_refused_for_want_of_room_and_goes_to_no_other_provider() {
    let mesh = Mesh::start().await;
    let (came, mut coming) = mpsc::unbounded_channel();
    let busy = |name: &'static str| {
        let came = came.clone();
        let responders = Responders::new()
            .respond("wait", move |(): ()| {
                let _ = came.send(name);
                std::future::pending::<Result<(), ActionError>>()
            })
            .permits_with_queue("wait", 1, 0);
        BranchActor::new(name).respond_all(responders)
    };
    let _nodes = [mesh.bind(busy("a")).await, mesh.bind(busy("b")).await];
    let caller = mesh.branch("caller").await;
    let waits = actix_rt::spawn(caller.call::<()>("wait", ()).key("ann").within(Duration::MAX));
    let owner = soon(coming.recv()).await.expect("it is asked");
    let error = soon(caller.call::<()>("wait", ()).key("ann")).await.expect_err("its provider is full");
    assert_eq!(not_sent(&error).0, Code::OVERLOADED);
    let other = actix_rt::spawn(caller.call::<()>("wait", ()).within(Duration::MAX));
    assert_ne!(soon(coming.recv()).await, Some(owner), "a call without a key finds the other one");
    waits.abort();
    other.abort();
}

#[actix::test]
async fn a_key_chooses_among_the_branches_of_a_name_and_below_a_wide_offer() {
    let mesh = Mesh::of(MasterActor::new("master").on_name_taken(meshwork::OnNameTaken::Share)).await;
    let twin = |mark: u32| {
        BranchActor::new("twin")
            .respond("files/**", move |(): ()| async move { Ok(mark) })
            .bind(&mesh.address)
    };
    let _twins = [twin(1).await.expect("it binds"), twin(2).await.expect("it binds")];
    let _third =
        mesh.bind(BranchActor::new("other").respond("files/**", |(): ()| async move { Ok(3) })).await;
    let caller = mesh.branch("caller").await;
    let mut seen = BTreeSet::new();
    for key in 0..60 {
        let call = || caller.call::<u32>("files/a/b", ()).key(key);
        let named = soon(call().on("twin")).await.expect("it is answered");
        assert_eq!(soon(call().on("twin")).await, Ok(named));
        seen.insert(named);
        let owner = soon(call()).await.expect("it is answered");
        assert_eq!(soon(call()).await, Ok(owner));
        assert!(owner == 3 || owner == named);
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[actix::test]
async fn a_call_with_labels_goes_to_a_provider_that_has_them_all() {
    let mesh = Mesh::start().await;
    let old = mesh.bind(who("old").label("version", "1").label("region", "eu")).await;
    let _new = mesh.bind(who("new").label("version", "2").label("region", "eu")).await;
    let _plain = mesh.bind(who("plain")).await;
    let caller = mesh.branch("caller").await;
    for node in [&*caller, &mesh.master, &old] {
        for _ in 0..10 {
            let call = || node.call::<String>("who", ());
            assert_eq!(soon(call().label("version", "2")).await, Ok("new".to_owned()));
            assert_eq!(soon(call().label("region", "eu").label("version", "1")).await, Ok("old".to_owned()));
            let keyed = soon(call().label("region", "eu").key("ann")).await.expect("it is answered");
            assert_eq!(soon(call().label("region", "eu").key("ann")).await, Ok(keyed.clone()));
            assert_ne!(keyed, "plain");
        }
    }
    let by_message = Call::<String>::new("who", ()).label("version", "2");
    assert_eq!(soon(caller.addr().send(by_message)).await.expect("it runs"), Ok("new".to_owned()));
}

#[actix::test]
async fn a_call_that_finds_no_label_is_not_sent_and_is_told_the_labels_that_there_are() {
    let mesh =
        Mesh::of(MasterActor::new("master").label("version", "0").respond("own", |(): ()| async { Ok(()) }))
            .await;
    let plain = mesh.bind(who("plain")).await;
    let caller = mesh.branch("caller").await;
    let call = |action: &'static str| caller.call::<String>(action, ()).label("version", "3");
    let error = soon(call("who")).await.expect_err("nobody has it");
    assert_eq!(not_sent(&error).0, Code::ACTION_NOT_FOUND);
    let what = "nobody offers \"who\" with the label version=3: its providers have no labels";
    assert_eq!(error.message(), what);
    let _two = [
        mesh.bind(who("one").label("version", "1")).await,
        mesh.bind(who("two").label("version", "2").label("region", "eu")).await,
    ];
    let error = soon(call("who").label("region", "us")).await.expect_err("nobody has it");
    let there = "with the label version=3 and region=us: its providers have region=eu, version=1, version=2";
    assert!(error.message().ends_with(there), "{error}");
    let error = soon(call("own")).await.expect_err("nobody has it");
    assert!(error.message().ends_with("its providers have version=0"), "{error}");
    let error = soon(plain.call::<String>("who", ()).on("plain").label("version", "1")).await;
    assert_eq!(error.expect_err("it has not the label").code(), Code::ACTION_NOT_FOUND);
}

#[actix::test]
async fn a_master_answers_a_call_with_labels_if_it_has_them_and_any_key() {
    let own = |(): ()| async { Ok("master".to_owned()) };
    let mesh = Mesh::of(MasterActor::new("master").label("version", "1").respond("who", own)).await;
    let branch = mesh.bind(who("branch").label("version", "2")).await;
    mesh.master.respond(Responders::new().respond("later", own)).await.expect("it runs");
    let caller = mesh.branch("caller").await;
    for node in [&*caller, &mesh.master] {
        let call = || node.call::<String>("who", ());
        assert_eq!(soon(call().label("version", "1")).await, Ok("master".to_owned()));
        assert_eq!(soon(call().label("version", "2")).await, Ok("branch".to_owned()));
        assert_eq!(soon(call().key("ann")).await, Ok("master".to_owned()));
        let later = node.call::<String>("later", ()).label("version", "1");
        assert_eq!(soon(later).await, Ok("master".to_owned()), "an action that it answers since");
    }
    assert_eq!(soon(branch.call::<String>("who", ()).key("ann")).await, Ok("master".to_owned()));
}

#[actix::test]
async fn requests_are_shared_by_weight_and_one_without_weight_is_asked_by_name_or_label_alone() {
    let mesh = Mesh::of(MasterActor::new("master").balance(Balance::RoundRobin)).await;
    let _nodes = [
        mesh.bind(who("stable").weight(9)).await,
        mesh.bind(who("canary").weight(1).label("version", "2")).await,
        mesh.bind(who("none").weight(0).label("version", "3")).await,
    ];
    let caller = mesh.branch("caller").await;
    let shares = shares(&caller, 2_000).await;
    assert_eq!(shares.get("none"), None);
    assert!(shares["canary"].abs_diff(200) < 80, "{shares:?}");
    for call in [caller.call::<String>("who", ()).on("none"), caller.call("who", ()).label("version", "3")] {
        assert_eq!(soon(call).await, Ok("none".to_owned()));
    }
    let by_key = owners(&caller).await;
    assert!(by_key.values().filter(|owner| *owner == "canary").count() < 40, "keys go by weight too");
    assert!(by_key.values().all(|owner| owner != "none"));
    let sessions = mesh.master.snapshot().await.expect("it runs").sessions;
    let canary = sessions.iter().find(|session| session.name == "canary").expect("it is bound");
    assert_eq!((canary.weight, &canary.labels[..]), (1, &["version=2".to_owned()][..]));
    assert_eq!(sessions.iter().find(|session| session.name == "caller").map(|it| it.weight), Some(100));
}

#[test]
fn a_branch_with_labels_has_them_again_after_its_link_was_lost() {
    meshwork::testing::run(async |mesh| {
        let new = who("new").label("version", "2").weight(1);
        let _provider = mesh.bind(new).await.expect("it binds");
        let caller = mesh.bind(BranchActor::new("caller")).await.expect("it binds");
        let call = || caller.call::<String>("who", ()).label("version", "2");
        assert_eq!(call().await, Ok("new".to_owned()));
        mesh.reset("new");
        caller.wait_for("who", Duration::from_secs(60)).await.expect("it binds again");
        assert_eq!(call().await, Ok("new".to_owned()));
    });
}

#[meshwork::actions(prefix = "cart")]
trait Cart {
    async fn owner(&self, item: String) -> Result<String, ActionError>;
}

struct Owner(&'static str);

impl Cart for Owner {
    async fn owner(&self, item: String) -> Result<String, ActionError> {
        Ok(format!("{item} at {}", self.0))
    }
}

#[actix::test]
async fn a_method_is_called_by_key_and_label_as_any_action() {
    let mesh = Mesh::start().await;
    let cart = |name: &'static str| who(name).respond_all(Owner(name).into_responders());
    let _nodes = [mesh.bind(cart("a").label("version", "1")).await, mesh.bind(cart("b")).await];
    let caller = mesh.branch("caller").await;
    caller.wait_for("cart/owner", Duration::from_secs(5)).await.expect("it is there");
    let cart = CartRequester::new(&caller);
    for key in 0..20 {
        let owner = soon(caller.call::<String>("who", ()).key(key)).await.expect("it is answered");
        let item = || "lamp".to_owned();
        assert_eq!(soon(cart.owner(item()).key(key)).await, Ok(format!("lamp at {owner}")));
        let labelled = cart.owner(item()).label("version", "1").idempotent();
        assert_eq!(soon(labelled).await, Ok("lamp at a".to_owned()));
    }
}

#[actix::test]
async fn a_stream_is_opened_at_the_provider_of_its_key_or_label() {
    let mesh = Mesh::start().await;
    let names = |name: &'static str| {
        let stream =
            move |(): ()| async move { Ok(Streaming::new(futures::stream::iter([name.to_owned()]))) };
        who(name).respond_stream("names", stream)
    };
    let _nodes = [mesh.bind(names("a").label("version", "1")).await, mesh.bind(names("b")).await];
    let caller = mesh.branch("caller").await;
    for key in 0..20 {
        let mut stream =
            soon(caller.stream::<String>("names", ()).key(key).into_future()).await.expect("it begins");
        let owner = soon(caller.call::<String>("who", ()).key(key)).await.expect("it is answered");
        assert_eq!(soon(stream.next()).await, Some(Ok(owner)));
    }
    let mut stream = soon(caller.stream::<String>("names", ()).label("version", "1").into_future())
        .await
        .expect("it begins");
    assert_eq!(soon(stream.next()).await, Some(Ok("a".to_owned())));
}

#[actix::test]
async fn what_is_no_key_or_label_fails_the_call_and_nothing_is_sent() {
    let mesh = Mesh::start().await;
    let _who = mesh.bind(who("a")).await;
    let caller = mesh.branch("caller").await;
    let call = || caller.call::<String>("who", ());
    let mut many = call();
    for number in 0..=LABELS_MAX {
        many = many.label(format!("n{number}"), "1");
    }
    for call in [
        call().key(""),
        call().key("k".repeat(KEY_LEN_MAX + 1)),
        call().label("", "2"),
        call().label("a b", "2"),
        many,
    ] {
        let error = soon(call).await.expect_err("it is not allowed");
        assert_eq!(not_sent(&error).0, Code::BAD_NAME, "{error}");
    }
    let error = soon(call().header("mesh-key", "a")).await.expect_err("it is a name of meshwork");
    assert_eq!(not_sent(&error).0, Code::BAD_NAME);
}

#[actix::test]
async fn keys_and_labels_that_the_master_does_not_know_are_refused_by_the_branch() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    let branch = who("new").label("version", "2").bind(address);
    let (mut link, branch) = tokio::join!(
        async {
            let mut link = bound_branch(&listener).await;
            // The offers of a branch with labels follow the bind, also where the labels do not.
            let Some(Frame::Register(Register { callback_id, .. })) = link.hear_answer().await else {
                panic!("the offers follow")
            };
            link.say(&Frame::Response(Response { callback_id, outcome: Ok(Payload::default()) })).await;
            link
        },
        branch
    );
    let branch = branch.expect("it is bound");
    for call in [branch.call::<String>("who", ()).key("ann"), branch.call("other", ()).label("version", "1")]
    {
        let error = soon(call).await.expect_err("the master is of an earlier version");
        assert_eq!(not_sent(&error).0, Code::CANNOT_ENCODE);
        assert!(error.message().contains("earlier version"), "{error}");
    }
    let all: Vec<_> = soon(branch.call_all::<String>("who", ()).collect()).await;
    let [Answered { node, outcome: Err(error), .. }] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&**node, not_sent(error).0), ("", Code::CANNOT_ENCODE));
    // Nothing of that has left.
    let call = actix_rt::spawn(branch.call::<String>("other", ()).within(Duration::from_millis(50)));
    assert_eq!(link.hear_request().await.action, "other");
    soon(call).await.unwrap().expect_err("nobody answers");

    let mesh = Mesh::start().await;
    let gateway = mesh.master.listen(Listen::node_mesh("127.0.0.1:0")).await.expect("it listens");
    let foreign =
        BranchActor::new("foreign").dialect(Dialect::NodeMesh).bind(gateway).await.expect("it binds");
    let error = soon(foreign.call::<String>("who", ()).key("ann")).await.expect_err("node-mesh has no keys");
    assert_eq!(not_sent(&error).0, Code::CANNOT_ENCODE);
}

/// A branch that is bound, knows all features, and offers nothing.
async fn raw(mesh: &Mesh, name: &'static str) -> RawBranch {
    let Frame::Bind(bind) = bind(name, &[]) else { unreachable!("it is one") };
    let mut branch = RawBranch::connect(mesh).await;
    let features = Features::ALL;
    branch.say(&Frame::ExtendedBind(ExtendedBind { bind, features, incarnation: 0, replaces: false })).await;
    while !matches!(branch.hear().await.expect("it is bound"), Frame::ExtendedBound(_)) {}
    branch
}

fn labels(list: &str, weight: u32) -> Frame {
    Frame::Labels(Labels { labels: Label::read_list(list).expect("they are labels"), weight })
}

/// Routes note the weight of a provider when it offers an action: a weight that changed behind that would break their order.
#[actix::test]
async fn labels_are_told_once_and_before_the_first_offer() {
    let mesh = Mesh::start().await;
    let (_kept, other) = (mesh.bind(who("kept")).await, mesh.branch("other").await);
    let offer = || {
        let Frame::Bind(bind) = bind("x", &["who"]) else { unreachable!("it is one") };
        Frame::Register(Register { callback_id: CallbackId(1), offers: bind.offers })
    };
    let bad = |name: &'static str| {
        Frame::Labels(Labels { labels: vec![Label { name: name.into(), value: "2".into() }], weight: 1 })
    };
    let too_heavy = Frame::Labels(Labels { labels: Vec::new(), weight: u32::MAX });
    let many = Frame::Labels(Labels {
        labels: vec![Label { name: "a".into(), value: "2".into() }; 5_000],
        weight: 1,
    });
    for frames in [
        vec![labels("a=1", 1), labels("a=1", 1)],
        vec![offer(), labels("a=1", 1)],
        vec![bad("a b")],
        vec![bad("")],
        vec![too_heavy],
        vec![many],
    ] {
        let mut branch = raw(&mesh, "bad").await;
        for frame in &frames {
            branch.say(frame).await;
        }
        let refused = loop {
            match branch.hear_answer().await {
                Some(Frame::Refused(refused)) => break refused,
                Some(_) => {}
                None => panic!("it says why"),
            }
        };
        assert_eq!((refused.code, refused.may_return), (Code::BIND_ERROR, false), "{refused:?}");
        until_known(&other, "bad", false).await;
    }
    // The offers of the bind are offers too.
    let Frame::Bind(offering) = bind("bad", &["who"]) else { unreachable!("it is one") };
    let mut branch = RawBranch::connect(&mesh).await;
    let extended = ExtendedBind { bind: offering, features: Features::ALL, incarnation: 0, replaces: false };
    branch.say(&Frame::ExtendedBind(extended)).await;
    while !matches!(branch.hear().await.expect("it is bound"), Frame::ExtendedBound(_)) {}
    branch.say(&labels("a=1", 1)).await;
    assert_eq!(branch.is_refused().await.code, Code::BIND_ERROR);
}

#[actix::test]
async fn headers_from_outside_that_choose_no_provider_are_refused() {
    let mesh = Mesh::start().await;
    let _who = mesh.bind(who("a")).await;
    let mut branch = raw(&mesh, "raw").await;
    let ask = |id: u64, name: &'static str, value: &str| {
        let mut headers = Headers::none();
        headers.insert_own(name, value).expect("it is a header");
        let Frame::Request(request) = request(id, "who") else { unreachable!("it is one") };
        Frame::Request(Request { headers, ..request })
    };
    let bad = [(Headers::KEY, ""), (Headers::LABEL, "version"), (Headers::SESSION, "x")];
    for (id, (name, value)) in (1..).zip(bad) {
        branch.say(&ask(id, name, value)).await;
        let Some(Frame::Response(Response { outcome: Err(error), .. })) = branch.hear_answer().await else {
            panic!("it is refused")
        };
        assert_eq!(not_sent(&error).0, Code::BAD_NAME, "{name}: {value}");
    }
    // No provider has the session.
    branch.say(&ask(9, Headers::SESSION, "77777")).await;
    let Some(Frame::Response(Response { outcome: Err(error), .. })) = branch.hear_answer().await else {
        panic!("it is refused")
    };
    assert_eq!(not_sent(&error).0, Code::ACTION_NOT_FOUND);
    for (action, labels) in [("", Vec::new()), ("who", vec![Label { name: "".into(), value: "".into() }])] {
        let find = FindProviders { callback_id: CallbackId(20), action: action.into(), labels };
        branch.say(&Frame::FindProviders(find)).await;
        let Some(Frame::Response(Response { outcome: Err(error), .. })) = branch.hear_answer().await else {
            panic!("it is refused")
        };
        assert_eq!(not_sent(&error).0, Code::BAD_NAME);
    }
}

/// The outcomes of a call of all, by node.
async fn all<R: Send + 'static>(calling: CallingAll<R>) -> Vec<(String, Result<R, CallError>)> {
    let mut all: Vec<_> = soon(calling.map(|it| (it.node.to_string(), it.outcome)).collect()).await;
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

#[actix::test]
async fn every_provider_is_asked_and_each_outcome_has_its_node() {
    let own = |(): ()| async { Ok("master".to_owned()) };
    let fails = |(): ()| async { Err::<String, _>(ActionError::new("Closed", "it is closed")) };
    let mesh = Mesh::of(MasterActor::new("master").respond("who", own)).await;
    let a = mesh.bind(who("a").label("version", "2")).await;
    let _b = mesh.bind(who("b").weight(0)).await;
    let _c = mesh.bind(BranchActor::new("c").respond("who", fails)).await;
    let _other = mesh.bind(BranchActor::new("d").respond("other", own)).await;
    let caller = mesh.branch("caller").await;
    for node in [&*caller, &a, &mesh.master] {
        let all = all(node.call_all::<String>("who", ())).await;
        let names: Vec<_> = all.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a", "b", "c", "master"]);
        for (name, outcome) in &all {
            match (&**name, outcome) {
                ("c", Err(error)) => assert_eq!((error.name(), error.fate()), ("Closed", Fate::Failed)),
                (name, outcome) => assert_eq!(outcome.as_deref(), Ok(name)),
            }
        }
        let labelled = self::all(node.call_all::<String>("who", ()).label("version", "2")).await;
        assert_eq!(labelled, [("a".to_owned(), Ok("a".to_owned()))]);
    }
    let mut raw = caller.call_all_raw("who", Payload::encode(Encoding::Json, &()).unwrap());
    let mut count = 0;
    while let Some(answered) = soon(raw.next()).await {
        count += usize::from(answered.outcome.is_ok_and(|payload| payload.encoding == Encoding::Json));
    }
    assert_eq!(count, 3);
    // The first call of a handle that was made from an address.
    let first = all(Master::from(mesh.master.addr()).call_all::<String>("who", ())).await;
    assert_eq!(first.len(), 4);
}

#[actix::test]
async fn branches_of_one_name_are_asked_each_and_below_a_wide_offer_too() {
    let mesh = Mesh::of(MasterActor::new("master").on_name_taken(meshwork::OnNameTaken::Share)).await;
    let twin = |mark: u32| {
        BranchActor::new("twin")
            .respond("files/**", move |(): ()| async move { Ok(mark) })
            .bind(&mesh.address)
    };
    let twins = [
        twin(1).await.expect("it binds"),
        twin(2).await.expect("it binds"),
        twin(3).await.expect("it binds"),
    ];
    for node in [&*twins[0], &mesh.master] {
        let mut all: Vec<_> = all(node.call_all::<u32>("files/a", ()))
            .await
            .into_iter()
            .map(|(name, it)| (name, it.ok()))
            .collect();
        all.sort();
        assert_eq!(all, [1, 2, 3].map(|mark| ("twin".to_owned(), Some(mark))));
    }
}

#[actix::test]
async fn a_provider_that_has_not_answered_at_the_deadline_times_out_alone() {
    let mesh = Mesh::start().await;
    let _quick = mesh.bind(who("quick")).await;
    let waits = |(): ()| std::future::pending::<Result<String, ActionError>>();
    let _slow = [
        mesh.bind(BranchActor::new("slow/1").respond("who", waits)).await,
        mesh.bind(BranchActor::new("slow/2").respond("who", waits)).await,
    ];
    let caller = mesh.branch("caller").await;
    let mut answers = caller.call_all::<String>("who", ()).within(Duration::from_millis(100));
    let first = soon(answers.next()).await.expect("the quick one answers first");
    assert_eq!((&*first.node, first.outcome.as_deref()), ("quick", Ok("quick")));
    for (name, outcome) in all(answers).await {
        let error = outcome.expect_err("it waits for ever");
        assert!(name.starts_with("slow/") && error.code() == Code::REQUEST_TIMEOUT, "{name}: {error}");
        assert_eq!(error.fate(), Fate::Unknown);
    }
}

#[actix::test]
async fn dropping_a_call_of_all_cancels_what_has_no_outcome() {
    let mesh = Mesh::start().await;
    let (told, mut dropped) = mpsc::unbounded_channel();
    let waits = |name: &'static str| {
        let told = told.clone();
        BranchActor::new(name).respond("wait", move |(): ()| {
            let told = told.clone();
            async move {
                let _told = Told(told, name);
                std::future::pending::<Result<(), ActionError>>().await
            }
        })
    };
    let _nodes = [mesh.bind(waits("a")).await, mesh.bind(waits("b")).await];
    let caller = mesh.branch("caller").await;
    let mut answers = caller.call_all::<()>("wait", ()).within(Duration::MAX);
    let in_flight = async || {
        let sessions = mesh.master.snapshot().await.expect("it runs").sessions;
        sessions.iter().map(|session| session.in_flight).sum::<usize>()
    };
    soon(async {
        while in_flight().await < 2 {
            assert!(answers.next().now_or_never().is_none(), "nobody answers");
        }
    })
    .await;
    drop(answers);
    let mut both = [soon(dropped.recv()).await, soon(dropped.recv()).await];
    both.sort_unstable();
    assert_eq!(both, [Some("a"), Some("b")]);
}

/// Says its name when it is dropped.
struct Told(mpsc::UnboundedSender<&'static str>, &'static str);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

#[actix::test]
async fn a_provider_that_goes_meanwhile_is_an_error_and_one_that_comes_is_not_asked() {
    let mesh = Mesh::start().await;
    let mut both =
        [RawBranch::bound(&mesh, "one", &["who"]).await, RawBranch::bound(&mesh, "two", &["who"]).await];
    let caller = mesh.branch("caller").await;
    let answers = actix_rt::spawn(all(caller.call_all::<String>("who", ()).within(Duration::MAX)));
    for asked in &mut both {
        asked.hear_request().await;
    }
    let _late = mesh.bind(who("late")).await;
    drop(both);
    let outcomes = soon(answers).await.expect("it does not panic");
    let lost = |(name, outcome): &(String, Result<String, CallError>)| {
        let error = outcome.as_ref().expect_err("it is gone");
        (name.clone(), error.code(), error.fate())
    };
    let error = |name: &str| (name.to_owned(), Code::PROVIDER_LOST, Fate::Unknown);
    assert_eq!(outcomes.iter().map(lost).collect::<Vec<_>>(), [error("one"), error("two")]);
}

#[actix::test]
async fn where_nobody_can_be_asked_that_is_the_only_outcome() {
    let mesh = Mesh::start().await;
    let _who = mesh.bind(who("a").label("version", "1")).await;
    let caller = mesh.branch("caller").await;
    for node in [&*caller, &mesh.master] {
        let none = |calling| all::<String>(calling);
        for (calling, code, why) in [
            (node.call_all("nothing", ()), Code::ACTION_NOT_FOUND, "nobody offers \"nothing\""),
            (node.call_all("", ()), Code::BAD_NAME, ""),
            (
                node.call_all("who", ()).label("version", "2"),
                Code::ACTION_NOT_FOUND,
                "its providers have version=1",
            ),
            (node.call_all("who", ()).header("mesh-key", "a"), Code::BAD_NAME, "mesh-"),
        ] {
            let outcomes = none(calling).await;
            let [(name, Err(error))] = &outcomes[..] else { panic!("{outcomes:?}") };
            assert_eq!((&**name, not_sent(error).0), ("", code));
            assert!(error.message().contains(why), "{error}");
        }
    }
}

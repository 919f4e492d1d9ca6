//! Binding: which branches are let in, under which names, and with which permissions.

use crate::{Mesh, soon, until_known};
use meshwork::prelude::*;
use meshwork::{Authenticate, BindError, Identity, OnNameTaken, Pattern, Permissions, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[actix::test]
async fn the_right_token_is_let_in_and_any_other_is_refused() {
    let mesh = Mesh::of(MasterActor::new("master").token("secret")).await;
    mesh.bind(BranchActor::new("right").token("secret")).await;
    for wrong in [BranchActor::new("wrong").token("guess"), BranchActor::new("none")] {
        let error = wrong.bind(&mesh.address).await.expect_err("it is refused");
        assert_eq!(error.code(), Code::BIND_ERROR);
        assert_eq!(error.code().0, 3);
        assert!(!error.may_return());
    }
}

#[actix::test]
async fn a_connection_that_does_not_bind_in_time_is_told_and_closed() {
    let mesh = Mesh::of(MasterActor::new("master").bind_within(Duration::from_millis(50))).await;
    let mut link = TcpStream::connect(mesh.address.as_str()).await.unwrap();
    let mut said = Vec::new();
    soon(link.read_to_end(&mut said)).await.unwrap();
    let text = String::from_utf8_lossy(&said).into_owned();
    assert!(text.contains("did not bind in time"), "{text:?}");
}

#[actix::test]
async fn a_frame_before_the_bind_runs_nothing_and_closes() {
    let (ran, mut runs) = tokio::sync::mpsc::unbounded_channel();
    let master = MasterActor::new("master").respond("run", move |(): ()| {
        let ran = ran.clone();
        async move {
            let _ = ran.send(());
            Ok(())
        }
    });
    let mesh = Mesh::of(master).await;
    let mut link = TcpStream::connect(mesh.address.as_str()).await.unwrap();
    // A request for `run` with callback id 1: length, variant 9, id, three names, no deadline, bincode, no callbacks.
    let request = [&[11, 0, 0, 0, 9, 1, 3][..], b"run", &[0, 0, 0, 0, 0]].concat();
    link.write_all(&request).await.unwrap();
    let mut said = Vec::new();
    soon(link.read_to_end(&mut said)).await.unwrap();
    assert!(String::from_utf8_lossy(&said).contains("the first frame must be a bind"), "{said:?}");
    assert!(runs.try_recv().is_err());
    assert!(mesh.master.snapshot().await.unwrap().sessions.is_empty());
}

#[actix::test]
async fn noise_half_frames_and_other_protocols_hurt_nobody() {
    let mesh =
        Mesh::of(MasterActor::new("master").respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) }))
            .await;
    let branch = mesh.branch("good").await;
    let noise: Vec<u8> = (0..1_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for bytes in
        [&noise[..], b"GET / HTTP/1.1\r\n\r\n", &[40, 0, 0, 0, 0, 1], &[0, 0, 0, 0], &[1, 0, 0, 0, 99]]
    {
        let mut link = TcpStream::connect(mesh.address.as_str()).await.unwrap();
        // The master may close the link before all bytes are written.
        let _ = link.write_all(bytes).await;
        let _ = link.shutdown().await;
        let mut said = Vec::new();
        let _ = soon(link.read_to_end(&mut said)).await;
    }
    assert_eq!(branch.call::<i64>("add", (2, 3)).await, Ok(5));
}

#[actix::test]
async fn a_master_of_another_protocol_is_named_in_the_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    actix_rt::spawn(async move {
        let (mut link, _) = listener.accept().await.unwrap();
        let _ = link.write_all(b"220 mail.example ESMTP\r\n").await;
        // The link stays open until the branch has given it up.
        let _ = link.read_to_end(&mut Vec::new()).await;
    });
    let error = soon(BranchActor::new("lost").bind(address)).await.expect_err("no master");
    assert!(matches!(error, BindError::NoMaster { .. }), "{error}");
}

#[actix::test]
async fn a_master_that_does_not_answer_is_waited_for_as_long_as_was_said() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let branch = BranchActor::new("patient").bind_within(Duration::from_millis(50));
    let error = soon(branch.bind(address)).await.expect_err("nobody answers");
    assert_eq!((error.code(), error.may_return()), (Code::BIND_TIMEOUT, true));
}

#[actix::test]
async fn where_no_master_listens_a_bind_fails_and_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = soon(BranchActor::new("lost").bind(address)).await.expect_err("nobody is there");
    assert!(matches!(error, BindError::Unreachable { .. }) && error.may_return(), "{error}");
}

/// A check of binds that never ends.
struct Ponderer;

impl Actor for Ponderer {
    type Context = Context<Self>;
}

impl Handler<Authenticate> for Ponderer {
    type Result = actix::ResponseFuture<Result<Identity, String>>;

    fn handle(&mut self, _: Authenticate, _: &mut Context<Self>) -> Self::Result {
        Box::pin(std::future::pending())
    }
}

#[actix::test]
async fn a_bind_that_is_checked_for_too_long_is_refused_and_never_was() {
    let master = MasterActor::new("master")
        .bind_within(Duration::from_millis(50))
        .authenticate(Ponderer.start().recipient());
    let mesh = Mesh::of(master).await;
    let error = soon(who("early", 1).bind(&mesh.address)).await.expect_err("it is not checked in time");
    assert!(matches!(&error, BindError::Refused { code: Code::BIND_TIMEOUT, .. }), "{error}");
    assert!(error.may_return());
    assert_eq!(mesh.master.call::<i32>("who", ()).await.expect_err("no").code(), Code::ACTION_NOT_FOUND);
}

struct Guard;

impl Actor for Guard {
    type Context = Context<Self>;
}

impl Handler<Authenticate> for Guard {
    type Result = Result<Identity, String>;

    fn handle(&mut self, asked: Authenticate, _: &mut Context<Self>) -> Self::Result {
        if asked.name != "guest" {
            return Err(format!("{} is not on the list", asked.name));
        }
        let only = |pattern| [Pattern::new(pattern).expect("a pattern")];
        let permissions = Permissions::everything()
            .may_call(only("open/*"))
            .may_offer(only("guest/*"))
            .may_publish(only("open/*"))
            .may_subscribe(only("open/*"));
        Ok(Identity::new("guest").with(permissions))
    }
}

#[actix::test]
async fn a_recipient_decides_who_is_let_in_and_what_it_may_do() {
    let master = MasterActor::new("master")
        .authenticate(Guard.start().recipient())
        .respond("open/door", |(): ()| async { Ok(1) })
        .respond("shut/door", |(): ()| async { Ok(2) });
    let mesh = Mesh::of(master).await;
    let refused = BranchActor::new("stranger").bind(&mesh.address).await.expect_err("it is refused");
    assert!(refused.to_string().contains("stranger is not on the list"), "{refused}");
    let guest = mesh.branch("guest").await;
    assert_eq!(guest.call::<i32>("open/door", ()).await, Ok(1));
    let error = guest.call::<i32>("shut/door", ()).await.expect_err("not permitted");
    assert_eq!((error.code(), error.fate()), (Code::NOT_PERMITTED, Fate::NotSent));
    let error = guest.subscribe("shut/*", |_: Event<i32>| {}).await.expect_err("not permitted");
    assert_eq!(error.code(), Code::NOT_PERMITTED);
    let (heard, mut publishers) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |event: Event<i32>| {
        let _ = heard.send(event.topic.to_string());
    };
    let _kept = (
        mesh.master.subscribe("**", handler.clone()).await.unwrap(),
        mesh.master.on_broadcast("**", handler).await.unwrap(),
    );
    for said in [guest.publish("shut/door", &1).await, guest.broadcast("shut/door", &1).await] {
        let error = said.expect_err("not permitted");
        assert_eq!((error.code(), error.fate()), (Code::NOT_PERMITTED, Fate::NotSent));
    }
    guest.publish("open/door", &1).await.unwrap();
    assert_eq!(soon(publishers.recv()).await.as_deref(), Some("open/door"), "and nothing before it");
    let allowed = Responders::new().respond("guest/book", |(): ()| async { Ok(3) });
    guest.respond(allowed).await.unwrap();
    assert_eq!(mesh.master.call::<i32>("guest/book", ()).await, Ok(3));
    let responders = Responders::new().respond("master/key", |(): ()| async { Ok(()) });
    assert_eq!(guest.respond(responders).await.expect_err("not permitted").code(), Code::NOT_PERMITTED);
    let offering = BranchActor::new("guest").respond("master/key", |(): ()| async { Ok(()) });
    assert_eq!(offering.bind(&mesh.address).await.expect_err("not permitted").code(), Code::NOT_PERMITTED);
}

fn who(name: &'static str, number: i32) -> BranchActor {
    BranchActor::new(name).respond("who", move |(): ()| async move { Ok(number) })
}

#[actix::test]
async fn a_branch_that_is_replaced_is_told_and_stays_away() {
    let mesh = Mesh::start().await;
    let old = mesh.bind(who("twin", 1)).await;
    let new = mesh.bind(who("twin", 2).replace()).await;
    let why = soon(old.closed()).await;
    assert_eq!(why.code(), Code::BIND_ERROR);
    assert!(matches!(*old.status().await.unwrap().borrow(), Status::Closed(_)));
    assert_eq!(mesh.master.call::<i32>("who", ()).await, Ok(2));
    assert_eq!(mesh.master.snapshot().await.unwrap().sessions.len(), 1);
    assert!(old.call::<i32>("other", ()).await.is_err());
    drop(new);
}

#[actix::test]
async fn a_name_that_is_taken_is_refused_by_default() {
    let mesh = Mesh::start().await;
    let _old = mesh.bind(who("twin", 1)).await;
    let error = who("twin", 2).bind(&mesh.address).await.expect_err("it is refused");
    assert_eq!(error.code(), Code::BIND_ERROR);
    assert_eq!(mesh.master.call::<i32>("who", ()).await, Ok(1));
}

#[actix::test]
async fn nobody_binds_under_the_name_of_the_master() {
    for policy in [OnNameTaken::Refuse, OnNameTaken::Replace, OnNameTaken::Share] {
        let mesh = Mesh::of(MasterActor::new("master").on_name_taken(policy)).await;
        for named in [BranchActor::new("master"), BranchActor::new("master").replace()] {
            let error = named.bind(&mesh.address).await.expect_err("it is refused");
            assert!(!error.may_return() && error.to_string().contains("the name of the master"), "{error}");
        }
    }
}

/// The master does not know yet that the earlier link is lost: it once refused the branch until it did.
#[actix::test]
async fn a_branch_that_binds_again_needs_no_leave_to_take_its_own_name() {
    for policy in [OnNameTaken::Refuse, OnNameTaken::Share] {
        let mesh = Mesh::of(MasterActor::new("master").on_name_taken(policy)).await;
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy.local_addr().unwrap();
        let mut branch: Option<Branch> = None;
        let mut kept = Vec::new();
        for _ in 0..3 {
            let bound = async {
                match &branch {
                    None => branch = Some(who("one", 1).backoff(MOMENT, MOMENT).bind(address).await.unwrap()),
                    Some(branch) => {
                        let mut status = branch.status().await.unwrap();
                        status.wait_for(|status| *status == Status::Rebinding).await.unwrap();
                        status.wait_for(|status| *status == Status::Bound).await.unwrap();
                    }
                }
            };
            let mut far = TcpStream::connect(mesh.address.as_str()).await.unwrap();
            let relaying = async {
                let (mut near, _) = proxy.accept().await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            };
            tokio::select! {
                () = relaying => panic!("nobody closes it"),
                () = soon(bound) => {}
            }
            // The branch loses its link, and the master does not hear of it.
            kept.push(far);
        }
        assert_eq!(mesh.master.snapshot().await.unwrap().sessions.len(), 1);
    }
}

/// A short wait between binds.
const MOMENT: Duration = Duration::from_millis(1);

#[actix::test]
async fn a_name_bound_twice_may_be_shared_and_both_are_called() {
    let mesh = Mesh::of(MasterActor::new("master").on_name_taken(OnNameTaken::Share)).await;
    let (_one, _two) = (mesh.bind(who("twin", 1)).await, mesh.bind(who("twin", 2)).await);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10 {
        seen.insert(mesh.master.call::<i32>("who", ()).await.unwrap());
    }
    assert_eq!(seen.len(), 2);
}

#[actix::test]
async fn the_others_are_told_who_comes_and_goes() {
    let mesh = Mesh::start().await;
    let watching = mesh.branch("watching").await;
    let coming = mesh.bind(who("coming", 1)).await;
    until_known(&watching, "coming", true).await;
    let nodes = watching.nodes().await.unwrap();
    let known = nodes.iter().find(|node| node.node == "coming").unwrap();
    assert_eq!(known.actions[0].0, "who");
    coming.drain(Duration::from_secs(1)).await.unwrap();
    until_known(&watching, "coming", false).await;
    assert_eq!(mesh.master.call::<i32>("who", ()).await.expect_err("gone").code(), Code::ACTION_NOT_FOUND);
}

#[actix::test]
async fn a_branch_that_waits_for_its_master_binds_when_the_master_is_up() {
    // Nobody listens on a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let wait = Duration::from_millis(1);
    let early = BranchActor::new("early").backoff(wait, wait).wait_for_master(Duration::MAX).bind(free);
    let (early, master) = tokio::join!(early, async {
        let error = BranchActor::new("other").bind(free).await.expect_err("nobody listens yet");
        assert!(matches!(error, BindError::Unreachable { .. }), "{error}");
        let master = Master::from(MasterActor::new("master").start());
        master.listen(Listen::tcp(free)).await.expect("it listens");
        master
    });
    let early = early.expect("it binds");
    assert_eq!(master.snapshot().await.unwrap().sessions.len(), 1);
    early.drain(Duration::ZERO).await.unwrap();
}

#[actix::test]
async fn a_branch_that_waits_for_its_master_does_not_wait_for_a_master_that_refuses_it() {
    let mesh = Mesh::of(MasterActor::new("master").token("secret")).await;
    let wait = Duration::from_millis(1);
    let patient =
        |name: &'static str| BranchActor::new(name).backoff(wait, wait).wait_for_master(Duration::MAX);
    let wrong =
        soon(patient("wrong").token("guess").bind(&mesh.address)).await.expect_err("its token is wrong");
    assert!(!wrong.may_return());
    let first = mesh.bind(BranchActor::new("one").token("secret")).await;
    let second = soon(patient("one").token("secret").bind(&mesh.address)).await.expect_err("it is taken");
    assert!(second.may_return() && second.to_string().contains("already"), "{second}");
    first.drain(Duration::ZERO).await.unwrap();
    until_known(&mesh.master, "one", false).await;
    soon(patient("one").token("secret").bind(&mesh.address)).await.expect("the name is free");
}

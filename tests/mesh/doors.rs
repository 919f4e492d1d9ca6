//! The door of a master: connections that have not bound hold little, are counted until they are closed, and keep nobody out.

use crate::raw::{RawBranch, bind};
use crate::{Mesh, soon};
use bytes::BytesMut;
use meshwork::Limits;
use meshwork::limits::{
    BIND_FRAME_LEN_MAX, FIRST_FRAME_LEN_MAX, LINGER, LONG_BINDS_LEN_MAX, UNBOUND_KEPT_FOR,
};
use meshwork::prelude::*;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

async fn master_with(set: impl FnOnce(&mut Limits)) -> Mesh {
    Mesh::of(MasterActor::new("master").token("secret").limits(limits(set))).await
}

fn claim(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("it fits").to_le_bytes()
}

/// Connections that say `words` and nothing more, each opened again as soon as it is closed, as long as this is kept.
struct Crowd(tokio::task::JoinSet<()>);

impl Crowd {
    fn of(count: usize, mesh: &Mesh, words: &[u8]) -> Self {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            let (address, words) = (mesh.address.clone(), words.to_vec());
            tasks.spawn_local(async move {
                loop {
                    if let Ok(mut link) = TcpStream::connect(address.as_str()).await {
                        let _ = link.write_all(&words).await;
                        let _ = link.read_to_end(&mut Vec::new()).await;
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        Self(tasks)
    }
}

/// 1,024 idle connections once shut out everyone else for seconds.
#[actix::test]
async fn a_branch_binds_within_its_time_while_silent_connections_take_and_renew_every_place() {
    for words in [&[][..], &[200, 1, 0, 0, 7], &claim(BIND_FRAME_LEN_MAX)] {
        let mesh = master_with(|limits| limits.unbound_sessions_max = 24).await;
        let crowd = Crowd::of(80, &mesh, words);
        for name in ["one", "two", "three", "four"] {
            mesh.bind(BranchActor::new(name).token("secret")).await;
        }
        assert_eq!(crowd.0.len(), 80, "it is there to the end");
    }
}

/// Two thirds of 3,000 once failed, with a misleading message.
#[actix::test]
async fn many_branches_that_start_at_once_all_bind_through_a_narrow_door() {
    let mesh = master_with(|limits| limits.unbound_sessions_max = 8).await;
    let binding = (0..120).map(|number| {
        let branch = BranchActor::new(format!("branch-{number}")).token("secret").bind_within(LONG);
        branch.bind(&mesh.address)
    });
    let bound = futures::future::join_all(binding).await;
    for branch in &bound {
        assert!(branch.is_ok(), "{:?}", branch.as_ref().err());
    }
    assert_eq!(mesh.master.snapshot().await.unwrap().sessions.len(), 120);
}

/// Such a connection was no longer counted, and could stay as long as it liked.
#[actix::test]
async fn a_refused_connection_counts_until_it_is_closed_and_is_closed_soon_whatever_it_does() {
    let mesh = master_with(|limits| limits.connections_max = 3).await;
    let mut refused = Vec::new();
    for _ in 0..3 {
        let mut link = RawBranch::connect(&mesh).await;
        link.say(&bind("without-a-token", &[])).await;
        assert!(matches!(link.hear_answer().await, Some(frame) if format!("{frame:?}").contains("token")));
        refused.push(link);
    }
    let begun = Instant::now();
    let turned_away = RawBranch::connect(&mesh).await.is_refused().await;
    assert_eq!((turned_away.code, turned_away.may_return), (Code::OVERLOADED, true));
    assert!(turned_away.message.contains("it has 3 connections"), "{turned_away:?}");
    for link in &mut refused {
        // It goes on writing, and never closes.
        while link.0.write_all(&[0; 512]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
    assert!(begun.elapsed() < LINGER * 3, "{:?}", begun.elapsed());
    mesh.bind(BranchActor::new("one").token("secret")).await;
}

#[actix::test]
async fn a_refused_connection_makes_room_at_once() {
    let mesh = master_with(|limits| limits.unbound_sessions_max = 1).await;
    let begun = Instant::now();
    for _ in 0..5 {
        let mut link = RawBranch::connect(&mesh).await;
        link.say(&bind("without-a-token", &[])).await;
        assert!(link.hear_answer().await.is_some());
        mesh.bind(BranchActor::new("one").token("secret")).await.drain(Duration::ZERO).await.unwrap();
    }
    assert!(begun.elapsed() < LINGER, "{:?}", begun.elapsed());
}

#[actix::test]
async fn a_connection_that_makes_room_is_told_so() {
    let mesh = master_with(|limits| limits.unbound_sessions_max = 2).await;
    let mut oldest = RawBranch::connect(&mesh).await;
    let _other = RawBranch::connect(&mesh).await;
    let begun = Instant::now();
    mesh.bind(BranchActor::new("one").token("secret")).await;
    let refused = oldest.is_refused().await;
    assert_eq!((refused.code, refused.may_return), (Code::OVERLOADED, true));
    assert!(begun.elapsed() >= UNBOUND_KEPT_FOR / 2, "it had its time");
}

#[actix::test]
async fn a_branch_for_which_there_is_no_room_is_told_why() {
    let mesh = master_with(|limits| limits.connections_per_address_max = 1).await;
    let first = mesh.bind(BranchActor::new("one").token("secret")).await;
    let waiting = BranchActor::new("two").token("secret").bind(&mesh.address);
    let told = tokio::time::timeout(Duration::from_millis(300), waiting).await;
    assert!(told.is_err(), "it tries again for a while");
    // The same over a raw link, whose bind the master does not read.
    let mut link = RawBranch::connect(&mesh).await;
    link.say(&bind("two", &[])).await;
    let refused = link.is_refused().await;
    assert!(refused.message.contains("for this address, which has 1 connections"), "{refused:?}");
    let waiting = BranchActor::new("two").token("secret").bind(&mesh.address);
    let (second, ()) = tokio::join!(soon(waiting), async {
        first.drain(Duration::ZERO).await.unwrap();
    });
    second.expect("there is room again");
}

/// The actions of a branch of before stand in its bind.
#[actix::test]
async fn a_long_bind_of_before_is_let_in_and_so_many_at_a_time() {
    let mesh = Mesh::of(MasterActor::new("master")).await;
    let names: Vec<&'static str> = (0..1_000).map(|n| &*format!("{n:0>200}").leak()).collect();
    let mut bytes = BytesMut::new();
    bind("before", &names).encode(&mut bytes);
    assert!(bytes.len() > 9 * FIRST_FRAME_LEN_MAX);
    RawBranch::bound(&mesh, "before", &names).await;
    let mut long = Vec::new();
    for _ in 0..LONG_BINDS_LEN_MAX / BIND_FRAME_LEN_MAX {
        let mut link = RawBranch::connect(&mesh).await;
        link.write(&claim(BIND_FRAME_LEN_MAX)).await;
        // The master has read it when it has answered another one.
        mesh.branch("short").await.drain(Duration::ZERO).await.unwrap();
        long.push(link);
    }
    let mut link = RawBranch::connect(&mesh).await;
    link.say(&bind("another", &names)).await;
    let refused = link.is_refused().await;
    assert_eq!((refused.code, refused.may_return), (Code::OVERLOADED, true));
    drop(long);
    soon(async {
        loop {
            let mut link = RawBranch::connect(&mesh).await;
            link.say(&bind("another", &names)).await;
            if !matches!(link.hear_answer().await, Some(meshwork_wire::Frame::Refused(_))) {
                break;
            }
        }
    })
    .await;
}

#[actix::test]
async fn a_branch_with_more_actions_than_its_first_frame_holds_has_them_all_when_it_is_bound() {
    let mesh = Mesh::of(MasterActor::new("master").frame_len_max(100_000)).await;
    let mut branch = BranchActor::new("rich");
    for number in 0..2_500 {
        let name = format!("{}/{number}", "long".repeat(20));
        branch = branch.respond(name, move |(): ()| async move { Ok(number) });
    }
    let _branch = mesh.bind(branch).await;
    for number in [0, 100, 1_111, 2_499] {
        let name = format!("{}/{number}", "long".repeat(20));
        assert_eq!(mesh.master.call::<i32>(name, ()).await, Ok(number));
    }
}

#[actix::test]
async fn a_connection_that_says_a_byte_at_a_time_is_closed_at_its_deadline() {
    let master = MasterActor::new("master").heartbeat(LONG).bind_within(Duration::from_millis(200));
    let mesh = Mesh::of(master).await;
    let mut link = RawBranch::connect(&mesh).await;
    link.write(&claim(FIRST_FRAME_LEN_MAX)).await;
    let (mut read, mut write) = link.0.split();
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let dripping = async {
        loop {
            ticks.tick().await;
            if write.write_all(&[0]).await.is_err() {
                break std::future::pending::<()>().await;
            }
        }
    };
    let mut said = Vec::new();
    tokio::select! {
        () = dripping => {}
        read = soon(read.read_to_end(&mut said)) => {
            read.expect("the master closes");
        }
    }
    assert!(String::from_utf8_lossy(&said).contains("did not bind in time"), "{said:?}");
    assert!(begun.elapsed() < Duration::from_millis(200) + LINGER * 2);
}

/// The address of a gateway of a master with these limits.
async fn gateway(listen: Listen, set: impl FnOnce(&mut Limits)) -> (Mesh, String) {
    let mesh = master_with(set).await;
    let address = mesh.master.listen(listen).await.expect("it listens");
    (mesh, address.to_string())
}

fn gateways() -> [Listen; 3] {
    [Listen::light_rpc("127.0.0.1:0"), Listen::dnode("127.0.0.1:0"), Listen::node_mesh("127.0.0.1:0")]
}

#[actix::test]
async fn a_program_that_says_nothing_to_a_gateway_is_closed_at_the_deadline() {
    for listen in gateways() {
        let (_mesh, address) =
            gateway(listen, |limits| limits.bind_within = Duration::from_millis(100)).await;
        let mut link = TcpStream::connect(&address).await.unwrap();
        soon(link.read_to_end(&mut Vec::new())).await.unwrap();
    }
}

#[actix::test]
async fn a_program_that_has_said_something_to_a_gateway_stays() {
    let within = Duration::from_millis(100);
    for (listen, words) in [
        (Listen::light_rpc("127.0.0.1:0"), &b"22\n{\"command\":\"describe\"}"[..]),
        (Listen::dnode("127.0.0.1:0"), b"{\"method\":\"methods\",\"arguments\":[{}],\"callbacks\":{}}\n"),
    ] {
        let (_mesh, address) = gateway(listen, |limits| limits.bind_within = within).await;
        let mut link = TcpStream::connect(&address).await.unwrap();
        link.write_all(words).await.unwrap();
        let closed = tokio::time::timeout(within * 5, link.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_err(), "{closed:?}");
    }
}

#[actix::test]
async fn programs_that_say_nothing_to_a_gateway_keep_no_branch_out() {
    for listen in gateways() {
        let (mesh, address) = gateway(listen, |limits| {
            limits.unbound_sessions_max = 4;
            limits.bind_within = LONG;
        })
        .await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(&address).await.unwrap());
        }
        soon(mesh.bind(BranchActor::new("one").token("secret"))).await;
        soon(silent[0].read_to_end(&mut Vec::new())).await.unwrap();
    }
}

#[actix::test]
async fn connections_of_gateways_count_by_address_and_in_all() {
    let words = b"{\"method\":\"methods\",\"arguments\":[{}],\"callbacks\":{}}\n";
    for set in [(|limits: &mut Limits| limits.gateway_connections_max = 3) as fn(&mut Limits), |limits| {
        limits.gateway_connections_per_address_max = 3
    }] {
        let (mesh, address) = gateway(Listen::dnode("127.0.0.1:0"), set).await;
        let mut idle = Vec::new();
        for _ in 0..3 {
            let mut link = TcpStream::connect(&address).await.unwrap();
            link.write_all(words).await.unwrap();
            // What the master offers.
            soon(link.read_u8()).await.unwrap();
            idle.push(link);
        }
        let mut link = TcpStream::connect(&address).await.unwrap();
        let mut heard = Vec::new();
        // It may be closed with a reset.
        let _ = soon(link.read_to_end(&mut heard)).await;
        assert_eq!(heard, b"", "there is no place for it");
        mesh.bind(BranchActor::new("one").token("secret")).await;
        drop(idle);
        soon(async {
            loop {
                let mut link = TcpStream::connect(&address).await.unwrap();
                let _ = link.write_all(words).await;
                if link.read_u8().await.is_ok() {
                    break;
                }
            }
        })
        .await;
    }
}

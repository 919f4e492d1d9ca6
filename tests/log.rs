//! The lines of the log: a peer, or a condition that lasts, cannot fill a disk with them. A logger of the whole process keeps the
//! lines at `info` and above, so each test looks for names of its own.

use futures::StreamExt;
use futures::future::BoxFuture;
use log::{Level, LevelFilter, Log, Metadata, Record};
use meshwork::limits::LOG_EVERY;
use meshwork::link::{Accept, Accepted};
use meshwork::prelude::*;
use meshwork::{Address, BindError, Change, Identities};
use std::io;
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The lines of the process at `info` and above.
struct Kept(Mutex<Vec<String>>);

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

impl Log for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn keep_the_log() {
    // Another test of the process may have set the logger.
    if log::set_logger(&KEPT).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// How often a peer provokes each line.
const OFTEN: usize = 5_000;

/// What lines of one kind may take in all, in bytes, however often a peer provokes them: a test runs for less than a minute.
const KIND_LEN_MAX: usize = 32 * 1024;

/// How many bytes all lines of the process have.
fn bytes() -> usize {
    KEPT.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(String::len).sum()
}

/// Keeps panics, which their tests cause on purpose, from the output of the test.
fn panics_are_quiet() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// Does this for each number, some at once.
async fn often<F: Future<Output = ()>>(each: impl Fn(usize) -> F) {
    times(OFTEN, each).await;
}

async fn times<F: Future<Output = ()>>(count: usize, each: impl Fn(usize) -> F) {
    futures::stream::iter(0..count).for_each_concurrent(16, each).await;
}

/// The lines that contain this text.
fn kept(text: &str) -> Vec<String> {
    let lines = KEPT.0.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|line| line.contains(text)).cloned().collect()
}

/// A listener that fails so many times, takes one connection in, and fails once more.
struct OutOfDescriptors {
    failures_left: u32,
    done: mpsc::UnboundedSender<()>,
}

impl Accept for OutOfDescriptors {
    fn address(&self) -> Address {
        Address::from("a-full-table")
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            if self.failures_left > 0 {
                self.failures_left -= 1;
                return Err(io::Error::other("too many open files"));
            }
            // The test may have ended.
            let _ = self.done.send(());
            let (near, _) = tokio::io::duplex(1024);
            self.failures_left = u32::MAX;
            Ok(Accepted::new(Box::new(near), "a peer"))
        })
    }
}

/// It wrote 45 lines a second, as long as there was no file descriptor left.
#[actix::test]
async fn a_listener_that_takes_nothing_in_says_so_once_in_a_while_and_when_it_is_over() {
    keep_the_log();
    tokio::time::pause();
    let (done, mut doing) = mpsc::unbounded_channel();
    let start = Instant::now();
    let master = MasterActor::new("master").start();
    master.send(Listen::on(OutOfDescriptors { failures_left: 1_250, done })).await.unwrap().unwrap();
    doing.recv().await.expect("it goes on");
    let lasted = start.elapsed();
    // The next connection, so that the line about the last one is written.
    while kept("taken in again").is_empty() {
        tokio::task::yield_now().await;
    }
    let mut lines = kept("a-full-table");
    lines.retain(|line| !line.contains("listens on"));
    let most = 1 + lasted.as_secs() / LOG_EVERY.as_secs();
    let (again, failing): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| line.contains("are taken in again"));
    assert_eq!((failing.len() as u64, again.len()), (most, 1), "{failing:?} {again:?} in {lasted:?}");
    assert!(most >= 3 && failing[1].contains("lines left out: "), "{failing:?}");
}

#[actix::test]
async fn refused_binds_are_told_of_once_and_then_counted() {
    keep_the_log();
    let master = MasterActor::new("master").token("right").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await.unwrap().unwrap();
    for _ in 0..20 {
        let refused = BranchActor::new("an-impostor").token("wrong").bind(&address).await;
        assert!(matches!(refused, Err(BindError::Refused { .. })));
    }
    let lines = kept("an-impostor");
    assert!(lines.len() <= 2, "one, and one more on a machine that took ten seconds: {lines:?}");
}

#[actix::test]
async fn what_is_denied_is_told_of_once_for_each_verb_and_then_counted() {
    keep_the_log();
    let known = Identities::from_toml("[anonymous]\nbind = [\"a-curious-one\"]\n").expect("it is right");
    let master = Master::from(MasterActor::new("master").identities(known).start());
    let address = master.listen(Listen::tcp("127.0.0.1:0")).await.unwrap();
    let curious = BranchActor::new("a-curious-one").bind(&address).await.expect("it binds");
    for _ in 0..50 {
        curious.call::<()>("any", ()).await.expect_err("nothing is permitted");
        curious.describe("**").await.expect_err("nothing is permitted");
    }
    let denials = kept("a-curious-one").into_iter().filter(|line| line.contains("is denied"));
    let (calls, others): (Vec<_>, Vec<_>) = denials.partition(|line| line.contains("may not call"));
    assert!((1..=2).contains(&calls.len()) && (1..=2).contains(&others.len()), "{calls:?} {others:?}");
    let denied = master.snapshot().await.unwrap().denied;
    assert_eq!((denied.call, denied.describe), (50, 50));
}

#[actix::test]
async fn a_handler_that_panics_at_each_event_is_told_of_once_and_so_is_a_second_one() {
    keep_the_log();
    panics_are_quiet();
    let master = Master::from(MasterActor::new("master").start());
    let (heard, mut events) = mpsc::unbounded_channel();
    let _kept = (
        master
            .subscribe("panics/one", |event: Event<u32>| assert_eq!(event.value, u32::MAX, "boom"))
            .await
            .unwrap(),
        master
            .subscribe("panics/two", |event: Event<u32>| assert_eq!(event.value, u32::MAX, "boom"))
            .await
            .unwrap(),
        master
            .subscribe("panics/*", move |event: Event<u32>| {
                let _ = heard.send(event.value);
            })
            .await
            .unwrap(),
    );
    for number in 0..OFTEN as u32 {
        master.publish("panics/one", &number).await.unwrap();
        master.publish("panics/two", &number).await.unwrap();
    }
    for _ in 0..2 * OFTEN {
        events.recv().await.expect("it runs");
    }
    for topic in ["panics/one", "panics/two"] {
        let lines = kept(topic);
        assert!((1..=2).contains(&lines.len()), "{lines:?}");
    }
}

/// Such an event vanished with a line in the debug log.
#[actix::test]
async fn an_event_that_cannot_be_decoded_is_told_of_with_topic_publisher_and_reason() {
    keep_the_log();
    let master = Master::from(MasterActor::new("a-publisher").start());
    let (heard, mut events) = mpsc::unbounded_channel();
    let _kept = (
        master.subscribe("undecodable", |_: Event<u32>| {}).await.unwrap(),
        master
            .subscribe("undecodable", move |event: Event<String>| {
                let _ = heard.send(event.value);
            })
            .await
            .unwrap(),
    );
    for _ in 0..50 {
        master.publish("undecodable", "no number").await.unwrap();
    }
    for _ in 0..50 {
        events.recv().await.expect("it runs");
    }
    let lines = kept("undecodable");
    assert!((1..=2).contains(&lines.len()), "{lines:?}");
    assert!(lines[0].contains("a-publisher") && lines[0].contains("u32"), "{lines:?}");
    assert_eq!(master.snapshot().await.unwrap().events_undecodable, 50);
}

#[actix::test]
async fn responders_and_watchers_that_panic_each_time_are_told_of_once() {
    keep_the_log();
    let master = MasterActor::new("master")
        .respond("always-panics", |(): ()| async { panic!("boom") as Result<(), ActionError> });
    let actor = master.start();
    let address = actor.send(Listen::tcp("127.0.0.1:0")).await.unwrap().unwrap();
    let master = Master::from(actor);
    master.on_change(|_: &Change| panic!("boom")).await.unwrap();
    for _ in 0..20 {
        let branch = BranchActor::new("comes").bind(&address).await.unwrap();
        assert_eq!(
            branch.call::<()>("always-panics", ()).await.expect_err("it panics").code(),
            Code::PANICKED
        );
        branch.drain(Duration::from_secs(1)).await.unwrap();
    }
    for text in ["always-panics panicked", "told of every change panicked"] {
        let lines = kept(text);
        assert!((1..=2).contains(&lines.len()), "{lines:?}");
    }
}

/// 5,000 of them wrote 1.8 MB.
#[actix::test]
async fn wrong_tokens_fill_no_disk() {
    keep_the_log();
    let before = bytes();
    let master = MasterActor::new("master").token("right").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await.unwrap().unwrap();
    often(|_| async {
        let refused = BranchActor::new("a-guesser").token("wrong").bind(&address).await;
        assert!(matches!(refused, Err(BindError::Refused { .. })));
    })
    .await;
    assert!(!kept("a-guesser").is_empty());
    assert!(bytes() - before < KIND_LEN_MAX, "{}", bytes() - before);
}

/// Each bind and each end wrote a line.
#[actix::test]
async fn branches_that_come_and_go_fill_no_disk() {
    keep_the_log();
    let before = bytes();
    let master = MasterActor::new("master").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await.unwrap().unwrap();
    // Without the bound, these many would write five times as much as a kind may. Each costs a bind and a drain.
    times(1_500, |number| {
        let address = &address;
        async move {
            let branch = BranchActor::new(format!("passer-by-{number}")).bind(address).await.unwrap();
            branch.drain(Duration::from_secs(1)).await.unwrap();
        }
    })
    .await;
    assert!(kept("passer-by-0 ").iter().any(|line| line.contains("online")), "the first ones are told");
    // The branches are of this process too, and each tells that it is bound and has ended.
    let own = |line: &String| line.contains("is bound to") || line.contains("has ended");
    let own: usize = kept("passer-by").iter().filter(|line| own(line)).map(String::len).sum();
    assert!(bytes() - before - own < KIND_LEN_MAX, "{}", bytes() - before - own);
}

#[actix::test]
async fn bytes_that_are_no_frames_fill_no_disk() {
    keep_the_log();
    let before = bytes();
    let master = MasterActor::new("master").start();
    let mut addresses = vec![master.send(Listen::tcp("127.0.0.1:0")).await.unwrap().unwrap()];
    for gateway in
        [Listen::light_rpc("127.0.0.1:0"), Listen::dnode("127.0.0.1:0"), Listen::node_mesh("127.0.0.1:0")]
    {
        addresses.push(master.send(gateway).await.unwrap().unwrap());
    }
    often(|number| {
        let address = &addresses[number % addresses.len()];
        async move {
            let mut stream = TcpStream::connect(address.as_str()).await.unwrap();
            // A length without an end, or text with colours for a terminal and lines of its own.
            let bytes: &[u8] =
                if number % 8 < 4 { &[0xff; 64] } else { b"{\x1b[31m\r\n2026 ERROR a-forged-line\n}\n" };
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    assert!(bytes() - before < KIND_LEN_MAX, "{}", bytes() - before);
    let forged = kept("").into_iter().filter(|line| line.chars().any(char::is_control));
    assert_eq!(forged.collect::<Vec<_>>(), Vec::<String>::new());
}

#[actix::test]
async fn calls_that_fail_in_every_way_fill_no_disk() {
    keep_the_log();
    panics_are_quiet();
    let before = bytes();
    let master = MasterActor::new("master")
        .respond("panics-with", |text: String| async move { panic!("{text}") as Result<(), ActionError> })
        .respond("takes-a-number", |_: u64| async { Ok(()) });
    let actor = master.start();
    let address = actor.send(Listen::tcp("127.0.0.1:0")).await.unwrap().unwrap();
    let branch = BranchActor::new("a-caller").bind(&address).await.unwrap();
    let long = "\x1b[31m\na-forged-line ".repeat(100);
    often(|number| {
        let (branch, long) = (&branch, long.as_str());
        async move {
            let (action, code) = match number % 3 {
                0 => ("panics-with", Code::PANICKED),
                1 => ("takes-a-number", Code::CANNOT_DECODE),
                _ => ("nobody-offers-it", Code::ACTION_NOT_FOUND),
            };
            assert_eq!(branch.call::<()>(action, long).await.expect_err("it fails").code(), code);
        }
    })
    .await;
    assert!(bytes() - before < KIND_LEN_MAX, "{}", bytes() - before);
    let forged = kept("").into_iter().filter(|line| line.chars().any(char::is_control));
    assert_eq!(forged.collect::<Vec<_>>(), Vec::<String>::new());
}

//! Real faults on real processes: each kind of node is killed, or stopped and let go on, in the middle of thousands of calls. Every call ends once,
//! within the bound of the heartbeat, with its true fate: the provider writes down what it ran.

use super::*;
use meshwork::CallError;
use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How often branches say that they are there. A link is given up after three of these.
const HEARTBEAT: &str = "300ms";

/// Calls that are made at once.
const WAVE: u64 = 2_000;

/// The variables of a node in a process of its own: its part, the address of its master, and the file of what it ran.
const PART: &str = "MESHWORK_TEST_PART";
const ADDRESS: &str = "MESHWORK_TEST_ADDRESS";
const FILE: &str = "MESHWORK_TEST_FILE";

/// A node of another test, in this program once more. It does nothing by itself.
#[test]
fn a_node_that_another_test_starts() {
    let Ok(part) = std::env::var(PART) else { return };
    let address = std::env::var(ADDRESS).unwrap();
    waits(async {
        let mut actor = BranchActor::new(part.clone()).wait_for_master(SOON);
        if part == "provider" {
            let file = OpenOptions::new().append(true).open(std::env::var(FILE).unwrap()).unwrap();
            let file = Arc::new(file);
            actor = actor.respond("run", move |number: u64| {
                // In one piece: the process may be killed at any moment.
                (&*file).write_all(format!("{number}\n").as_bytes()).unwrap();
                async move { Ok(number) }
            });
        }
        let branch = actor.bind(address.as_str()).await.unwrap();
        eprintln!("is there");
        if part == "caller" {
            drop(branch.call_many::<()>("hang", 0..WAVE).await);
        }
        branch.closed().await;
    });
}

fn node(part: &str, address: &str, file: &str) -> Running {
    let mut command = Command::new(std::env::current_exe().expect("it starts"));
    command.args(["--exact", "--nocapture", "faults::a_node_that_another_test_starts"]);
    command.env(PART, part).env(ADDRESS, address).env(FILE, file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running::of(command.spawn().expect("it starts"));
    running.until_said("is there");
    running
}

/// What the provider ran, in order.
struct Ran(Written);

impl Ran {
    fn new() -> Self {
        Self(Written::new(""))
    }

    fn numbers(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.0.path()).expect("there is such a file");
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn until(&self, count: usize) {
        let start = Instant::now();
        while self.numbers().len() < count {
            assert!(start.elapsed() < SOON, "{} ran", self.numbers().len());
            thread::yield_now();
        }
    }
}

/// The calls of one test, each with a number of its own.
struct Calls {
    caller: Branch,
    action: &'static str,
    outcomes: Vec<Result<u64, CallError>>,
}

impl Calls {
    fn new(caller: Branch, action: &'static str) -> Self {
        Self { caller, action, outcomes: Vec::new() }
    }

    /// Makes calls, thousands at a time, until some fail; gives how long the last of them took.
    fn until_some_fail(&mut self) -> Duration {
        let start = Instant::now();
        loop {
            let (first, asked) = (self.outcomes.len() as u64, Instant::now());
            let outcomes = waits(self.caller.call_many::<u64>(self.action, first..first + WAVE));
            let has_failed = outcomes.iter().any(Result::is_err);
            self.outcomes.extend(outcomes);
            if has_failed {
                return asked.elapsed();
            }
            assert!(start.elapsed() < 2 * SOON, "nothing fails");
        }
    }

    /// Makes calls, thousands at a time, until this is told.
    fn until_told<T>(&mut self, told: &mpsc::Receiver<T>) -> T {
        let start = Instant::now();
        loop {
            let (first, asked) = (self.outcomes.len() as u64, Instant::now());
            self.outcomes.extend(waits(self.caller.call_many::<u64>(self.action, first..first + WAVE)));
            assert!(asked.elapsed() < ENDS_WITHIN, "{:?}", asked.elapsed());
            if let Ok(told) = told.try_recv() {
                return told;
            }
            assert!(start.elapsed() < 2 * SOON, "nothing is told");
        }
    }

    /// Makes calls until one succeeds.
    fn until_one_succeeds(&mut self) {
        let start = Instant::now();
        loop {
            let number = self.outcomes.len() as u64;
            let outcome = waits(self.caller.call::<u64>(self.action, number));
            self.outcomes.push(outcome);
            if self.outcomes.last().is_some_and(Result::is_ok) {
                return;
            }
            assert!(start.elapsed() < SOON, "{:?}", self.outcomes.last());
        }
    }

    /// Every call has its true fate.
    fn check(&self, ran: &Ran) {
        let mut times = HashMap::new();
        for number in ran.numbers() {
            *times.entry(number).or_insert(0) += 1;
        }
        for (number, outcome) in self.outcomes.iter().enumerate() {
            let times = times.get(&(number as u64)).copied().unwrap_or(0);
            match outcome {
                Ok(reply) => assert_eq!((*reply, times), (number as u64, 1), "what was replied ran once"),
                Err(error) => {
                    assert_ne!(error.code(), Code::REQUEST_TIMEOUT, "{number} hung: {error}");
                    match error.fate() {
                        Fate::NotSent => assert_eq!(times, 0, "{number} was not sent, and ran: {error}"),
                        Fate::Unknown => assert!(times <= 1, "{number} ran {times} times"),
                        Fate::Failed => panic!("{number}: the action never fails: {error}"),
                    }
                }
            }
        }
    }
}

/// Sends a signal when the provider has run so many calls.
fn signal_after(ran: &Ran, count: usize, process: u32, signal: &str) {
    ran.until(count);
    let done = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(done.expect("there is a kill").success());
}

/// How long calls may take that were in flight when a node was stopped: three heartbeats, and what a busy machine needs.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

fn beating_master() -> Master {
    Master::listen("127.0.0.1:0", &["--heartbeat", HEARTBEAT])
}

#[test]
fn calls_to_a_provider_that_is_killed_end_at_once_with_their_true_fates() {
    let (master, ran) = (beating_master(), Ran::new());
    let provider = node("provider", &master.address, ran.0.path());
    let mut calls = Calls::new(bound(BranchActor::new("tester"), &master), "run");
    let process = provider.child.id();
    thread::scope(|scope| {
        scope.spawn(|| signal_after(&ran, 5_000, process, "-KILL"));
        assert!(calls.until_some_fail() < ENDS_WITHIN);
    });
    let _next = node("provider", &master.address, ran.0.path());
    calls.until_one_succeeds();
    calls.check(&ran);
}

#[test]
fn calls_to_a_provider_that_is_stopped_end_with_the_heartbeat_and_it_comes_back() {
    let (master, ran) = (beating_master(), Ran::new());
    let provider = node("provider", &master.address, ran.0.path());
    let mut calls = Calls::new(bound(BranchActor::new("tester"), &master), "run");
    let process = provider.child.id();
    thread::scope(|scope| {
        scope.spawn(|| signal_after(&ran, 5_000, process, "-STOP"));
        assert!(calls.until_some_fail() < ENDS_WITHIN);
    });
    provider.signal("-CONT");
    // It runs what it had read, and binds again.
    calls.until_one_succeeds();
    calls.check(&ran);
}

#[test]
fn calls_over_a_master_that_is_killed_end_at_once_with_their_true_fates() {
    let (master, ran) = (beating_master(), Ran::new());
    let _provider = node("provider", &master.address, ran.0.path());
    let mut calls = Calls::new(bound(BranchActor::new("tester"), &master), "run");
    let (process, address) = (master.running.child.id(), master.address.as_str());
    let (ran_here, (starts, started)) = (&ran, mpsc::channel());
    thread::scope(|scope| {
        scope.spawn(move || {
            signal_after(ran_here, 5_000, process, "-KILL");
            // A process that is killed listens on for a moment.
            while TcpStream::connect(address).is_ok() {}
            // At once: calls that are made without a link wait for the next one.
            starts.send(Master::listen(address, &["--heartbeat", HEARTBEAT])).unwrap();
        });
        let again = calls.until_told(&started);
        calls.until_one_succeeds();
        calls.check(&ran);
        drop(again);
    });
}

#[test]
fn calls_over_a_master_that_is_stopped_end_with_the_heartbeat_and_it_comes_back() {
    let (master, ran) = (beating_master(), Ran::new());
    let _provider = node("provider", &master.address, ran.0.path());
    let mut calls = Calls::new(bound(BranchActor::new("tester"), &master), "run");
    let process = master.running.child.id();
    thread::scope(|scope| {
        scope.spawn(|| signal_after(&ran, 5_000, process, "-STOP"));
        assert!(calls.until_some_fail() < ENDS_WITHIN);
    });
    master.running.signal("-CONT");
    calls.until_one_succeeds();
    calls.check(&ran);
}

#[test]
fn calls_through_a_bridge_that_is_killed_or_stopped_end_with_their_true_fates() {
    for signal in ["-KILL", "-STOP"] {
        let old = Master::listen("127.0.0.1:0", &["--gateway", "light-rpc=127.0.0.1:0"]);
        let (new, ran) = (beating_master(), Ran::new());
        let _provider = node("provider", &old.address, ran.0.path());
        let server = format!("light-rpc={}", old.gateway());
        let bridge = || Running::of(new.command(&["bridge", &server, "--prefix", "old"]).spawn().unwrap());
        let first = bridge();
        let caller = bound(BranchActor::new("tester"), &new);
        waits(caller.wait_for("old/run", SOON)).unwrap();
        let mut calls = Calls::new(caller, "old/run");
        let process = first.child.id();
        thread::scope(|scope| {
            scope.spawn(|| signal_after(&ran, 2_000, process, signal));
            assert!(calls.until_some_fail() < ENDS_WITHIN);
        });
        let _second = (signal == "-KILL").then(bridge);
        if signal == "-STOP" {
            first.signal("-CONT");
        }
        calls.until_one_succeeds();
        calls.check(&ran);
    }
}

/// A caller that is stopped is a peer that never reads.
#[test]
fn a_caller_that_is_killed_or_stopped_leaves_nothing_running_and_holds_nobody_up() {
    let master = beating_master();
    let running = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&running);
    let provider = BranchActor::new("answers")
        .respond("hang", move |_: u64| {
            let one = One::new(&counted);
            async move {
                let _one = one;
                std::future::pending::<Result<(), ActionError>>().await
            }
        })
        .respond("echo", |number: u64| async move { Ok(number) });
    let _provider = bound(provider, &master);
    let healthy = bound(BranchActor::new("healthy"), &master);
    let until = |count: usize| {
        let start = Instant::now();
        while running.load(Ordering::Acquire) != count {
            let asked = Instant::now();
            assert_eq!(waits(healthy.call::<u64>("echo", 7_u64)), Ok(7));
            assert!(asked.elapsed() < ENDS_WITHIN, "a healthy caller waits for no other one");
            assert!(start.elapsed() < SOON, "{} run", running.load(Ordering::Acquire));
        }
    };
    for signal in ["-KILL", "-STOP"] {
        let caller = node("caller", &master.address, "");
        until(usize::try_from(WAVE).unwrap());
        caller.signal(signal);
        until(0);
    }
}

/// Counts as one as long as it is there.
struct One(Arc<AtomicUsize>);

impl One {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes connections, and passes each byte on by itself, both ways; gives its address.
fn byte_by_byte(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("a port is free").to_string();
    let pass_on = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let mut read = [0; 1024];
            while let Ok(len @ 1..) = from.read(&mut read) {
                if read[..len].iter().any(|byte| to.write_all(&[*byte]).is_err()) {
                    break;
                }
            }
            // The other end may have gone.
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    };
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(&to).expect("it listens");
            near.set_nodelay(true).expect("it is open");
            far.set_nodelay(true).expect("it is open");
            pass_on(near.try_clone().expect("it is open"), far.try_clone().expect("it is open"));
            pass_on(far, near);
        }
    });
    address
}

#[test]
fn a_link_that_gives_one_byte_at_a_time_carries_everything() {
    let master = Master::listen("127.0.0.1:0", &["--gateway", "light-rpc=127.0.0.1:0"]);
    let slow = byte_by_byte(master.address.clone());
    let slow_gateway = byte_by_byte(master.gateway());
    let echo = BranchActor::new("echo").respond("echo", |text: String| async move { Ok(text) });
    let echo = waits(echo.bind(slow.as_str())).unwrap();
    let (heard, events) = mpsc::channel();
    let subscription = echo.subscribe("texts", move |event: Event<String>| heard.send(event.value).unwrap());
    let _subscription = waits(subscription).unwrap();
    let caller = waits(BranchActor::new("caller").bind(slow.as_str())).unwrap();
    let text = "größe ".repeat(500);
    for outcome in waits(caller.call_many::<String>("echo", (0..50).map(|_| text.as_str()))) {
        assert_eq!(outcome.as_ref(), Ok(&text));
    }
    waits(caller.publish("texts", &text)).unwrap();
    assert_eq!(events.recv_timeout(SOON).unwrap(), text);
    let server = format!("light-rpc={slow_gateway}");
    let other = Master::start(&[]);
    let _bridge = Running::of(other.command(&["bridge", &server, "--prefix", "old"]).spawn().unwrap());
    let far = bound(BranchActor::new("far"), &other);
    waits(far.wait_for("old/echo", SOON)).unwrap();
    assert_eq!(waits(far.call::<String>("old/echo", &text)).as_ref(), Ok(&text));
}

//! The reader of a log, or of what a command prints, holds up no node: not when it reads nothing, not when its disk is full.

use super::*;
use std::time::Instant;

/// A pipe that is full, and that nobody reads as long as its first end is kept; who writes to the other end waits.
fn full_pipe() -> (File, File) {
    let folder = tempfile::tempdir().expect("there is room");
    let path = make_pipe(folder.path().join("full"));
    let reader = OpenOptions::new().read(true).write(true).open(&path).expect("there is such a file");
    let mut filler = Command::new("dd");
    filler.args(["if=/dev/zero", "bs=512", "oflag=nonblock", &format!("of={}", path.display())]);
    // It fails when the pipe is full.
    let filled = filler.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(!filled.expect("there is a dd").success());
    (reader, OpenOptions::new().write(true).open(&path).expect("there is such a file"))
}

/// A master whose lines go to these places, at this address.
fn master_into(address: &str, stdout: Stdio, stderr: Stdio) -> Running {
    let mut command = meshwork(&["master", "--listen", address, "--name", "quiet", "-v"]);
    let child = command.stdout(stdout).stderr(stderr).spawn().expect("it starts");
    let (_, said) = mpsc::channel();
    Running { child, said }
}

/// An address where nobody listens, a moment ago.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port is free")
        .local_addr()
        .expect("a port is free")
        .to_string()
}

/// Binds as soon as the master is there.
fn bound_when_up(name: &str, address: &str) -> Branch {
    waits(BranchActor::new(name.to_owned()).wait_for_master(SOON).bind(address)).expect("it binds")
}

/// A master that wrote its log into a pipe stopped when the pipe was full.
#[test]
fn a_master_whose_log_is_read_by_nobody_serves_on_and_ends() {
    let (_reader, writer) = full_pipe();
    let address = free_address();
    let (reader, out) = full_pipe();
    let master = master_into(&address, Stdio::from(out), Stdio::from(writer));
    let provider = waits(
        BranchActor::new("provider")
            .wait_for_master(SOON)
            .respond("double", |number: u64| async move { Ok(number * 2) })
            .bind(address.as_str()),
    )
    .unwrap();
    for round in 0..200 {
        let branch = bound_when_up("comes-and-goes", &address);
        let asked = Instant::now();
        assert_eq!(waits(branch.call::<u64>("double", round)).unwrap(), round * 2);
        assert!(asked.elapsed() < SOON / 4);
        waits(branch.drain(SOON)).unwrap();
    }
    drop(provider);
    master.signal("-TERM");
    assert_eq!(master.end(), Some(0), "its end waits for no reader either");
    drop(reader);
}

#[test]
fn a_master_whose_disk_is_full_serves_on() {
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let address = free_address();
    let master = master_into(&address, full(), full());
    for _ in 0..20 {
        let branch = bound_when_up("comes-and-goes", &address);
        assert_eq!(
            waits(branch.call::<()>("nobody", ())).expect_err("nobody answers").code(),
            Code::ACTION_NOT_FOUND
        );
        waits(branch.drain(SOON)).unwrap();
    }
    master.signal("-TERM");
    assert_eq!(master.end(), Some(0));
}

/// The link of a subscriber was lost after three heartbeats, and with it what came meanwhile.
#[test]
fn a_subscriber_whose_output_is_read_by_nobody_stays_bound_and_ends_when_asked() {
    let master = Master::listen("127.0.0.1:0", &["--heartbeat", "100ms"]);
    let (reader, writer) = full_pipe();
    let child = master.command(&["subscribe", "many", "--name", "stuck"]).stdout(writer).spawn();
    let mut subscriber = Running::of(child.unwrap());
    subscriber.until_said("subscribed to ");
    let branch = bound(BranchActor::new("publisher"), &master);
    waits(async {
        for number in 0..1_000 {
            branch.publish("many", &number).await.unwrap();
        }
        // Longer than three heartbeats.
        let mut beats = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..6 {
            beats.tick().await;
        }
    });
    assert!(stdout(&master.run(&["branches"])).contains("stuck"));
    subscriber.signal("-TERM");
    assert_eq!(subscriber.end(), Some(0));
    drop(reader);
}

/// What was said last is what a reader wants most.
#[test]
fn the_last_line_is_written_before_a_command_ends() {
    let master = Master::start(&[]);
    for _ in 0..20 {
        let output = master.run(&["call", "nobody"]);
        assert!(one_line(&output).starts_with("ACTION_NOT_FOUND"));
    }
}

#[test]
fn lines_of_the_log_that_a_peer_provokes_are_counted() {
    let file = Written::new("right");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let child = meshwork(&["master", "--listen", "127.0.0.1:0", "--token-file", file.path()])
        .stderr(File::create(&log).unwrap())
        .spawn();
    let mut child = child.unwrap();
    let printed = lines_of(child.stdout.take().unwrap());
    let line: Value = serde_json::from_str(&printed.recv_timeout(SOON).unwrap()).unwrap();
    let address = line["listening"].as_str().unwrap().to_owned();
    waits(async {
        for _ in 0..300 {
            let refused = BranchActor::new("guesser").token("wrong").bind(address.as_str()).await;
            assert!(refused.is_err());
        }
    });
    // It may have ended.
    let _ = child.kill();
    let _ = child.wait();
    let log = fs::read_to_string(log).unwrap();
    assert!((1..4_096).contains(&log.len()), "{log}");
}

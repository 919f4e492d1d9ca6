//! The binary, as scripts use it. Every process is started with port 0 and waited for by what it says, never by the clock.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

fn meshwork(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwork"));
    command.args(arguments).env_remove("MESHWORK_MASTER").env_remove("MESHWORK_TOKEN").env_remove("RUST_LOG");
    command
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, signal: &str) {
        let done =
            Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("there is a kill");
        assert!(done.success());
    }

    fn end(mut self) -> (i32, String) {
        let status = self.0.wait().expect("it ends");
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut said).expect("it is text");
        }
        (status.code().unwrap_or(-1), said)
    }
}

struct Master {
    running: Running,
    address: String,
}

impl Master {
    fn start(more: &[&str]) -> Self {
        let mut arguments = vec!["master", "--listen", "127.0.0.1:0"];
        arguments.extend(more);
        let child = meshwork(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("it starts");
        let line = first_line(child.stdout.take().expect("it is piped")).0;
        let told: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        Self { running: Running(child), address: told["listening"].as_str().expect("an address").to_owned() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = meshwork(arguments);
        command.env("MESHWORK_MASTER", &self.address);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("it runs")
    }

    /// A responder that is bound.
    fn respond(&self, action: &str, command: &str, more: &[&str]) -> Running {
        let mut arguments = vec!["respond", action, "--command", command];
        arguments.extend(more);
        let child = self.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("it starts");
        let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it is text");
        assert!(line.starts_with("bound to "), "{line}");
        // What it says later must find a reader.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        Running(child)
    }

    fn call(&self, arguments: &[&str]) -> Child {
        let mut all = vec!["call"];
        all.extend(arguments);
        self.command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    }
}

fn first_line(stdout: ChildStdout) -> (String, BufReader<ChildStdout>) {
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    reader.read_line(&mut line).expect("it is text");
    (line, reader)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it said on stderr, which must be one line.
fn one_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}

/// A place where commands say that they run, and wait until they may go on. Both ends stay open, so nobody waits to open one.
struct Gate {
    folder: tempfile::TempDir,
    came: BufReader<File>,
    open: File,
}

impl Gate {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let [came, open] = ["came", "open"].map(|fifo| {
            let path = folder.path().join(fifo);
            let made = Command::new("mkfifo").arg(&path).status().expect("there is a mkfifo");
            assert!(made.success());
            File::options().read(true).write(true).open(path).expect("it is there")
        });
        Self { folder, came: BufReader::new(came), open }
    }

    /// A command that says that it runs, then waits, then replies 1.
    fn command(&self) -> String {
        let folder = self.folder.path().display();
        format!("echo x > {folder}/came; read line < {folder}/open; echo 1")
    }

    fn until_came(&mut self) {
        self.came.read_line(&mut String::new()).expect("it comes");
    }

    fn open(&mut self) {
        self.open.write_all(b"x\n").expect("it waits");
    }
}

#[test]
fn a_command_answers_a_call() {
    let master = Master::start(&[]);
    let _responder = master.respond("echo", "cat", &[]);
    for arguments in ["[2,3]", r#"{"a":[1.5,null,"ü"]}"#, "-7", "null", "12345678901234567890"] {
        let output = master.run(&["call", "echo", arguments]);
        assert_eq!((stdout(&output).trim_end(), output.status.code()), (arguments, Some(0)));
    }
    assert_eq!(stdout(&master.run(&["call", "echo"])).trim_end(), "null");
}

#[test]
fn arguments_come_from_stdin_or_a_file_too() {
    let master = Master::start(&[]);
    let _responder = master.respond("echo", "cat", &[]);
    let mut child = master.command(&["call", "echo", "-"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"[1, 2]\n").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()).trim_end(), "[1,2]");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("arguments.json");
    std::fs::write(&file, "[3]").unwrap();
    assert_eq!(stdout(&master.run(&["call", "echo", &format!("@{}", file.display())])).trim_end(), "[3]");
}

#[test]
fn a_command_that_fails_is_the_error_of_its_call() {
    let master = Master::start(&[]);
    let _failing = master.respond("fail", "echo out of paper >&2; exit 3", &["--name", "failing"]);
    let output = master.run(&["call", "fail"]);
    assert_eq!(output.status.code(), Some(1));
    let line = one_line(&output);
    assert!(line.contains("COMMAND_FAILED (failed)") && line.contains("out of paper"), "{line}");
    let _noise = master.respond("noise", "echo this is no json", &["--name", "noise"]);
    assert!(one_line(&master.run(&["call", "noise"])).contains("not JSON"));
    let output = master.run(&["call", "fail", "--json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["name"], "COMMAND_FAILED");
}

#[test]
fn an_action_that_nobody_offers_is_a_failed_call() {
    let master = Master::start(&[]);
    let output = master.run(&["call", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("ACTION_NOT_FOUND (not sent)"));
}

#[test]
fn wrong_use_ends_with_2_and_one_line_that_says_what_is_wrong() {
    let cases = [
        (&["call", "add", "[2,"][..], "is not JSON"),
        (&["call", "add", "--master", "nowhere"], "HOST:PORT"),
        (&["call", "add", "--token-file", "/does/not/exist"], "/does/not/exist"),
        (&["call", "add", "@/does/not/exist"], "/does/not/exist"),
        (&["master", "--listen", "nowhere"], "HOST:PORT"),
    ];
    for (arguments, what) in cases {
        let output = meshwork(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(one_line(&output).contains(what), "{arguments:?}: {}", one_line(&output));
    }
    let master = Master::start(&[]);
    for (arguments, what) in
        [(&["publish", "a/*", "1"][..], "pattern"), (&["subscribe", "a**"], "whole segment")]
    {
        let output = master.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(what), "{arguments:?}");
    }
}

#[test]
fn what_cannot_bind_ends_with_3_and_one_line_that_says_why() {
    // Nobody listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = meshwork(&["call", "add", "--master", &free]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(one_line(&output).contains("meshwork master"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "secret\n").unwrap();
    let file = file.display().to_string();
    let master = Master::start(&["--token-file", &file]);
    let output = master.run(&["call", "add"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(one_line(&output).contains("token"));
    let output = master.command(&["call", "add"]).env("MESHWORK_TOKEN", "guess").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    // With the right one the call is made, and fails for its own reason.
    assert_eq!(master.run(&["call", "add", "--token-file", &file]).status.code(), Some(1));
    assert_eq!(
        master.command(&["call", "add"]).env("MESHWORK_TOKEN", "secret").output().unwrap().status.code(),
        Some(1)
    );
}

#[test]
fn events_are_published_and_printed() {
    let master = Master::start(&[]);
    let child = master
        .command(&["subscribe", "sub/*", "--count", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    assert!(master.run(&["publish", "sub/test", "\"sub\"", "--name", "me"]).status.success());
    assert!(master.run(&["publish", "unheard", "1"]).status.success());
    assert!(master.run(&["publish", "sub/other", "{\"a\":1}"]).status.success());
    assert!(master.run(&["broadcast", "config/reloaded"]).status.success());
    let output = child.wait_with_output().unwrap();
    let printed = stdout(&output);
    let events: Vec<serde_json::Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0], serde_json::json!({"topic": "sub/test", "publisher": "me", "value": "sub"}));
    assert_eq!(
        (&events[1]["topic"], &events[1]["value"]),
        (&"sub/other".into(), &serde_json::json!({"a": 1}))
    );
    assert_eq!(events.len(), 2);
}

#[test]
fn actions_and_branches_are_listed() {
    let master = Master::start(&[]);
    let _responder = master.respond("math/add", "cat", &["--name", "adder"]);
    let listed: serde_json::Value = serde_json::from_str(&stdout(&master.run(&["actions"]))).unwrap();
    assert_eq!((&listed["action"], &listed["nodes"]), (&"math/add".into(), &serde_json::json!(["adder"])));
    assert_eq!(stdout(&master.run(&["actions", "other/*"])), "");
    let listed: serde_json::Value = serde_json::from_str(&stdout(&master.run(&["branches"]))).unwrap();
    assert_eq!((&listed["branch"], &listed["actions"]), (&"adder".into(), &serde_json::json!(["math/add"])));
}

#[test]
fn a_master_that_is_asked_to_end_lets_a_command_finish() {
    let master = Master::start(&[]);
    let mut gate = Gate::new();
    let _responder = master.respond("slow", &gate.command(), &[]);
    let call = master.call(&["slow"]);
    gate.until_came();
    master.running.signal("-TERM");
    gate.open();
    let output = call.wait_with_output().unwrap();
    assert_eq!((stdout(&output).trim_end(), output.status.code()), ("1", Some(0)));
    assert_eq!(master.running.end().0, 0);
}

#[test]
fn a_responder_that_is_killed_in_the_middle_of_a_call_ends_it_at_once() {
    let master = Master::start(&[]);
    let mut gate = Gate::new();
    let responder = master.respond("slow", &gate.command(), &[]);
    let call = master.call(&["slow", "--within", "10m"]);
    gate.until_came();
    responder.signal("-KILL");
    let output = call.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("PROVIDER_LOST (may have run)"));
    // The command itself outlived its killed parent.
    gate.open();
}

#[test]
fn commands_run_in_parallel_up_to_the_number_of_jobs() {
    let master = Master::start(&[]);
    let mut gate = Gate::new();
    let _responder = master.respond("slow", &gate.command(), &["--jobs", "2"]);
    let calls = [master.call(&["slow"]), master.call(&["slow"])];
    // Both run at once: neither waits for the other.
    gate.until_came();
    gate.until_came();
    let third = master.call(&["slow", "--within", "300ms"]);
    let output = third.wait_with_output().unwrap();
    assert!(one_line(&output).contains("REQUEST_TIMEOUT"));
    for _ in &calls {
        gate.open();
    }
    for call in calls {
        assert_eq!(stdout(&call.wait_with_output().unwrap()).trim_end(), "1");
    }
}

#[test]
fn a_responder_comes_back_to_a_master_that_was_killed_and_started_again() {
    let master = Master::start(&[]);
    let _responder = master.respond("echo", "cat", &[]);
    let address = master.address.clone();
    master.running.signal("-KILL");
    drop(master);
    let child =
        meshwork(&["master", "--listen", &address]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let _again = Running(child);
    let mut lines = log.lines();
    // Its log says when the responder is back.
    assert!(lines.any(|line| line.unwrap().contains("with 1 actions")));
    std::thread::spawn(move || lines.count());
    let output = meshwork(&["call", "echo", "[1]", "--master", &address]).output().unwrap();
    assert_eq!(stdout(&output).trim_end(), "[1]");
}

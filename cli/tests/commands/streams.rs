//! Streams on the command line: `meshwork respond --stream` and `meshwork call --stream`.

use super::*;

impl Master {
    /// A call whose lines are read as they come.
    fn reads(&self, arguments: &[&str]) -> (Running, mpsc::Receiver<String>) {
        let child = self.command(&["call", "--stream"]).args(arguments).spawn();
        let mut running = Running::of(child.expect("it starts"));
        let printed = lines_of(running.child.stdout.take().expect("it is piped"));
        (running, printed)
    }
}

impl Running {
    /// The most memory that the process has had, in KiB.
    fn highest(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let highest = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is told");
        highest.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

#[test]
fn the_lines_of_a_command_are_items_that_are_printed_as_they_come() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let command =
        format!("read arguments; echo \"$arguments\"; {}; echo; printf '{{ \"b\": 2 }}'", gate.command());
    let _responder = master.respond("log/tail", &command, &["--stream"]);
    let (call, printed) = master.reads(&["log/tail", "[\"ü\"]"]);
    assert_eq!(printed.recv_timeout(SOON).unwrap(), "[\"ü\"]");
    gate.until_came();
    gate.open();
    // A line of nothing is no item, and the last line needs no end.
    assert_eq!(printed.iter().collect::<Vec<_>>(), ["1", "{\"b\":2}"]);
    assert_eq!(call.end(), Some(0));
}

#[test]
fn a_command_that_fails_ends_its_stream_behind_its_lines() {
    let master = Master::start(&[]);
    let _responder = master.respond("fail", "echo 1; echo 2; echo no ink >&2; exit 3", &["--stream"]);
    let output = master.run(&["call", "--stream", "fail"]);
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("1\n2\n", Some(1)));
    let line = one_line(&output);
    assert!(line.starts_with("COMMAND_FAILED (failed): exit status: 3: no ink"), "{line}");
    let output = master.run(&["call", "--stream", "fail", "--json"]);
    let error: Value = serde_json::from_str(&one_line(&output)).unwrap();
    assert_eq!(error["error"]["name"], json!("COMMAND_FAILED"));
}

#[test]
fn a_line_that_is_not_json_ends_the_stream_unless_lines_are_texts() {
    let master = Master::start(&[]);
    let command = "echo 1; echo 'no json'; printf '\\n3\\r\\n'";
    let _json = master.respond("json", command, &["--stream"]);
    let _text = master.respond("text", command, &["--stream", "--text"]);
    let output = master.run(&["call", "--stream", "json"]);
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("1\n", Some(1)));
    assert!(one_line(&output).contains("is not JSON"), "{output:?}");
    let output = master.run(&["call", "--stream", "text"]);
    let printed = "\"1\"\n\"no json\"\n\"\"\n\"3\"\n";
    assert_eq!((stdout(&output).as_str(), output.status.code()), (printed, Some(0)));
}

#[test]
fn a_stream_that_is_called_and_a_call_that_is_streamed_are_told_apart() {
    let master = Master::start(&[]);
    let _stream = master.respond("stream", "echo 1", &["--stream"]);
    let _value = master.respond("value", "echo 1", &[]);
    for (arguments, why) in [
        (&["call", "stream"][..], "answers with a stream"),
        (&["call", "value", "--stream"], "answers with one value"),
    ] {
        let output = master.run(arguments);
        assert_eq!((stdout(&output).as_str(), output.status.code()), ("", Some(1)));
        let line = one_line(&output);
        assert!(line.starts_with("CANNOT_DECODE (not sent): ") && line.contains(why), "{line}");
    }
    let output = run(&mut meshwork(&["respond", "a", "--command", "cat", "--text"]));
    assert_eq!(output.status.code(), Some(2), "only lines are texts");
}

#[test]
fn a_command_ends_with_the_reader_of_its_stream() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let folder = gate.folder.path().display();
    let silent = format!("exec 9> {folder}/alive; echo 1; sleep 600");
    let talks = format!("exec 9> {folder}/alive; while :; do echo 1; done");
    let _silent = master.respond("silent", &silent, &["--stream"]);
    let _talks = master.respond("talks", &talks, &["--stream"]);

    let alive = gate.alive();
    let (call, printed) = master.reads(&["silent"]);
    assert_eq!(printed.recv_timeout(SOON).unwrap(), "1");
    call.signal("-INT");
    alive.recv_timeout(SOON).expect("nothing that the command started is left");
    assert_eq!(call.end(), None, "a signal has ended it");

    fs::remove_file(gate.folder.path().join("alive")).unwrap();
    let alive = gate.alive();
    let mut call = master.command(&["call", "talks", "--stream"]).spawn().unwrap();
    let mut printed = BufReader::new(call.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    drop(printed);
    alive.recv_timeout(SOON).expect("nothing that the command started is left");
    let output = output_of(call);
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)), "nobody reads any more");
}

#[test]
fn a_command_waits_while_nobody_reads_what_it_prints() {
    const LINE_LEN: usize = 16_000;
    const LINES: usize = 2_500;
    let master = Master::start(&[]);
    let gate = Gate::new();
    let line = format!("$(head -c {LINE_LEN} /dev/zero | tr '\\0' x)");
    let came = gate.folder.path().join("came");
    let command = format!("yes \"{line}\" | head -n {LINES}; echo x > {}", came.display());
    let responder = master.respond("much", &command, &["--stream", "--text"]);
    let mut call = master.command(&["call", "much", "--stream"]).spawn().unwrap();
    let mut printed = BufReader::new(call.stdout.take().unwrap());
    let call = Running::of(call);
    let mut first = String::new();
    printed.read_line(&mut first).unwrap();
    assert!(gate.came.recv_timeout(Duration::from_millis(500)).is_err(), "the command has not got far");
    let mut count = 1;
    for line in printed.lines().map_while(Result::ok) {
        assert_eq!(line.len(), LINE_LEN + 2);
        count += 1;
        // The last line is printed before the process ends.
        if count == LINES / 2 {
            for process in [&master.running, &responder, &call] {
                assert!(process.highest() < 32 * 1024, "{} KiB", process.highest());
            }
        }
    }
    assert_eq!(count, LINES);
    gate.until_came();
    assert_eq!(call.end(), Some(0));
}

#[test]
fn rust_reads_the_lines_of_a_command_and_a_shell_the_items_of_rust() {
    let master = Master::start(&[]);
    let branch = BranchActor::new("rust").respond_stream("letters", |word: String| async move {
        let letters: Vec<_> = word.chars().map(Ok).chain([Err(ActionError::new("END", "no more"))]).collect();
        Ok(Streaming::of_results(futures::stream::iter(letters)))
    });
    let branch = bound(branch, &master);
    let output = master.run(&["call", "letters", "\"äb\"", "--stream"]);
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("\"ä\"\n\"b\"\n", Some(1)));
    assert!(one_line(&output).starts_with("END (failed): no more"), "{output:?}");

    let _responder = master.respond("count", "seq 1 5000", &["--stream"]);
    waits(async {
        branch.wait_for("count", SOON).await.unwrap();
        let mut numbers = branch.stream::<u32>("count", ()).await.unwrap();
        let mut next = 1;
        while let Some(number) = numbers.next().await {
            assert_eq!(number.unwrap(), next);
            next += 1;
        }
        assert_eq!(next, 5001);
    });
}

#[test]
fn a_stream_that_waits_for_its_command_begins_within_its_deadline_or_fails() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let _responder = master.respond("slow", &gate.command(), &["--stream", "--jobs", "1"]);
    let (first, printed) = master.reads(&["slow"]);
    gate.until_came();
    let output = master.run(&["call", "slow", "--stream", "--within", "200ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).starts_with("REQUEST_TIMEOUT "), "{output:?}");
    gate.open();
    assert_eq!(printed.recv_timeout(SOON).unwrap(), "1");
    assert_eq!(first.end(), Some(0));
}

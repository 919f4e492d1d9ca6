//! A command of `meshwork respond` is contained: it ends with its request and with its parent, with all that it started, and has no secret.

use super::*;

impl Gate {
    /// A command whose processes leave it in every way, and that waits for the last of them: a child, a process in a session of its own, an
    /// orphan, and an orphan in a session of its own. Each holds the pipe that [`Gate::alive`] reads, and says that it runs.
    fn command_that_scatters(&self) -> String {
        let folder = self.folder.path().display();
        let wait = format!("echo x > {folder}/came; dd bs=1 count=1 < {folder}/open > /dev/null 2>&1");
        let wait = format!("trap \"\" TERM HUP INT; {wait}");
        format!(
            "exec 9> {folder}/alive; ({wait}) & setsid sh -c '{wait}' & (({wait}) &); (setsid sh -c '{wait}' &); {wait}; echo 1"
        )
    }

    fn until_scattered(&self) {
        (0..5).for_each(|_| self.until_came());
    }
}

/// Only the process group of the command ended: whatever had left it went on.
#[test]
fn a_cancel_ends_all_that_a_command_started_also_in_sessions_of_their_own() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let alive = gate.alive();
    let _responder = master.respond("slow", &gate.command_that_scatters(), &[]);
    let mut call = master.command(&["call", "slow", "--within", "10m"]).spawn().unwrap();
    gate.until_scattered();
    call.kill().unwrap();
    alive.recv_timeout(SOON).expect("nothing that the command started is left");
    call.wait().unwrap();
}

/// The command outlived its parent.
#[test]
fn a_responder_that_is_killed_takes_all_that_its_command_started_along() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let alive = gate.alive();
    let responder = master.respond("slow", &gate.command_that_scatters(), &[]);
    let call = master.command(&["call", "slow", "--within", "10m"]).spawn().unwrap();
    gate.until_scattered();
    responder.signal("-KILL");
    alive.recv_timeout(SOON).expect("nothing that the command started is left");
    assert!(one_line(&output_of(call)).starts_with("PROVIDER_LOST (may have run): "));
}

/// The keeper is a process of the same user.
#[test]
fn a_command_that_kills_its_keeper_does_not_get_away() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let alive = gate.alive();
    let folder = gate.folder.path().display();
    let wait = format!("echo x > {folder}/came; exec cat {folder}/open");
    let command = format!(
        "exec 9> {folder}/alive; (setsid sh -c '{wait}' &); ({wait}) & read word; kill -KILL $PPID; {wait}"
    );
    let _responder = master.respond("unkept", &command, &["--jobs", "1"]);
    let _other = master.respond("kept", "cat", &[]);
    let line = one_line(&master.run(&["call", "unkept"]));
    assert!(line.contains("the process that keeps the command was killed"), "{line}");
    alive.recv_timeout(SOON).expect("nothing that the command started is left");
    assert_eq!(stdout(&master.run(&["call", "kept", "1"])), "1\n");
}

#[test]
fn what_a_command_leaves_behind_ends_with_it() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let alive = gate.alive();
    let folder = gate.folder.path().display();
    let command = format!(
        "exec 9> {folder}/alive; (setsid sh -c 'echo x > {folder}/came; exec cat {folder}/open' &); echo 1"
    );
    let _responder = master.respond("leave", &command, &[]);
    assert_eq!(stdout(&master.run(&["call", "leave"])), "1\n");
    alive.recv_timeout(SOON).expect("nothing that the command started is left");
}

/// Many scripts end their own group, which is theirs alone.
#[test]
fn a_command_that_ends_its_group_ends_itself_only() {
    let master = Master::start(&[]);
    let _responder = master.respond("suicidal", "echo no way >&2; kill -KILL 0", &[]);
    for _ in 0..2 {
        let line = one_line(&master.run(&["call", "suicidal"]));
        assert!(line.contains("signal: 9") && line.contains("no way"), "{line}");
    }
}

/// Without a cgroup the processes are found one by one.
#[test]
fn a_command_that_starts_processes_without_an_end_is_ended() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let alive = gate.alive();
    let folder = gate.folder.path().display();
    // Each generation starts the next one, and ends.
    let command = format!("exec 9> {folder}/alive; echo x > {folder}/came; f() {{ f & }}; f; sleep 600");
    let _responder = master.respond("chain", &command, &[]);
    let mut call = master.command(&["call", "chain", "--within", "10m"]).spawn().unwrap();
    gate.until_came();
    call.kill().unwrap();
    alive.recv_timeout(SOON).expect("nothing that the command started is left");
    call.wait().unwrap();
}

#[test]
fn a_command_finds_no_secret_of_the_mesh() {
    let token = "a-secret-that-nobody-tells";
    let file = Written::new(token);
    let master = Master::start(&["--token-file", file.path()]);
    // The processes around it are asked too: those of root would answer another user's questions to root.
    let command = "env; echo; for near in $PPID $(cut -d ' ' -f 4 /proc/$PPID/stat); do tr '\\0' '\\n' < /proc/$near/environ; done 2> /dev/null";
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let command = if is_root { "env; tr '\\0' '\\n' < /proc/$PPID/environ" } else { command };
    let command = format!(
        "{{ {command}; }} | sed 's/[\"\\\\]//g; s/^/\"/; s/$/\",/' | tr -d '\\n' | sed 's/^/[/; s/,$/]/'"
    );
    let child = master
        .command(&["respond", "env", "--command", &command])
        .env("MESHWORK_TOKEN", token)
        .env("MESHWORK_A_SECRET_TO_COME", token)
        .spawn();
    let mut responder = Running::of(child.unwrap());
    responder.until_said("bound to ");
    let output = master.run(&["call", "env", "--token-file", file.path()]);
    let printed = stdout(&output);
    assert!(printed.contains("PATH=") && printed.contains("MESHWORK_MASTER="), "{output:?}");
    assert!(!printed.contains(token), "{printed}");
}

#[test]
fn a_command_gets_its_three_descriptors_and_no_other() {
    let master = Master::start(&[]);
    // Seven and eight were open for who started the responder.
    let mut command = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_meshwork");
    let listing = "ls /proc/self/fd | tr \"\\n\" , | sed \"s/^/[/; s/$/null]/\"";
    let script = format!("exec 7< /dev/null 8> /dev/null; exec {binary} respond open --command '{listing}'");
    command.args(["-c", &script]).env("MESHWORK_MASTER", &master.address);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut responder = Running::of(command.spawn().unwrap());
    responder.until_said("bound to ");
    let output = master.run(&["call", "open"]);
    let open: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{output:?}"));
    // The three, and the folder that `ls` lists.
    assert_eq!(open, json!([0, 1, 2, 3, null]));
}

/// Each request was decoded as it came: 2.5 GB for what was 300 MB on the wire.
#[test]
fn requests_that_wait_for_a_place_are_not_decoded() {
    const COUNT: usize = 20;
    let master = Master::start(&[]);
    let gate = Gate::new();
    let responder = master.respond("slow", &gate.command(), &["--jobs", "1"]);
    let branch = bound(BranchActor::new("caller"), &master);
    // A list of so many elements takes as many bytes here, and sixteen megabytes where it is decoded.
    let arguments = vec![1_u8; 250_000];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let calls = (0..COUNT).map(|_| branch.call::<i64>("slow", &arguments).within(SOON * 3));
        let calls = futures_of(calls.collect());
        let watch = async {
            // The last call is there when all have been written and another one has come back.
            while branch.snapshot().await.unwrap().calls_in_flight < COUNT {
                tokio::task::yield_now().await;
            }
            gate.until_came();
            for _ in 0..COUNT {
                gate.open();
            }
        };
        let (replies, ()) = tokio::join!(calls, watch);
        assert!(replies.into_iter().all(|reply| reply.is_ok_and(|reply| reply == 1)));
    });
    let status = fs::read_to_string(format!("/proc/{}/status", responder.child.id())).unwrap();
    let highest = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let highest: u64 = highest.trim_end_matches(" kB").parse().unwrap();
    assert!(highest < 160 * 1024, "{highest} kB");
}

#[test]
fn requests_above_those_that_may_wait_are_refused_as_not_sent() {
    let master = Master::start(&[]);
    let gate = Gate::new();
    let _responder = master.respond("slow", &gate.command(), &["--jobs", "1", "--waiting", "1"]);
    let runs = master.command(&["call", "slow"]).spawn().unwrap();
    gate.until_came();
    let (ended, outputs) = mpsc::channel();
    for _ in 0..3 {
        let (call, ended) = (master.command(&["call", "slow"]).spawn().unwrap(), ended.clone());
        thread::spawn(move || ended.send(call.wait_with_output().unwrap()));
    }
    // One of the three waits, whichever came first.
    for _ in 0..2 {
        let line = one_line(&outputs.recv_timeout(SOON).unwrap());
        assert!(line.starts_with("OVERLOADED (not sent)"), "{line}");
    }
    gate.open();
    gate.until_came();
    gate.open();
    for output in [output_of(runs), outputs.recv_timeout(SOON).unwrap()] {
        assert_eq!(stdout(&output), "1\n");
    }
}

/// Awaits all, without a crate for it.
async fn futures_of<T>(calls: Vec<impl Future<Output = T> + 'static>) -> Vec<T>
where
    T: 'static,
{
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = calls.into_iter().map(|call| local.spawn_local(call)).collect();
    local
        .run_until(async {
            let mut outcomes = Vec::new();
            for task in tasks {
                outcomes.push(task.await.expect("it does not panic"));
            }
            outcomes
        })
        .await
}

//! TLS as scripts use it: the certificates of docs/tls.md, made by openssl; openssl and Node.js as ends that are not ours; and certificates
//! that are read again at SIGHUP. Every wait ends by what a process says, never by the clock.
#![cfg(unix)]

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Nothing here takes longer.
const SOON: Duration = Duration::from_secs(20);

/// The folder of the project.
const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A folder with the certificates that docs/tls.md makes.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        let guide = fs::read_to_string(format!("{PROJECT}/docs/tls.md")).expect("it is there");
        let (_, commands) = guide.split_once("```sh\n").expect("it has commands");
        let (commands, _) = commands.split_once("```").expect("they end");
        let this = Self(tempfile::tempdir().expect("there is room"));
        this.sh(commands);
        this
    }

    fn sh(&self, commands: &str) {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", commands]).current_dir(self.0.path()).stdin(Stdio::null());
        let output = shell.output().expect("there is a shell");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes all certificates anew, with a new CA.
    fn renew(&self) {
        let new = Self::new();
        for file in ["ca.pem", "ca.key", "master.pem", "master.key", "shop.pem", "shop.key"] {
            fs::copy(new.0.path().join(file), self.path(file)).expect("it is there");
        }
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).to_str().expect("its path is text").to_owned()
    }
}

/// A command that finds its files in the folder of the certificates.
fn meshwork(certificates: &Certificates, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwork"));
    command.args(arguments).current_dir(certificates.0.path());
    for variable in ["MESHWORK_MASTER", "MESHWORK_TOKEN", "MESHWORK_CA", "MESHWORK_TLS_CERT", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for what could take for ever.
fn soon<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(what()));
    is_done.recv_timeout(SOON).expect("it happens soon")
}

fn run(mut command: Command) -> Output {
    let child = command.spawn().expect("it starts");
    soon(move || child.wait_with_output().expect("it ends"))
}

fn lines_of(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (heard, lines) = mpsc::channel();
    thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).for_each(|line| drop(heard.send(line)));
    });
    lines
}

/// A process that is ended with the test.
struct Running {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("it starts");
        let said = lines_of(child.stderr.take().expect("it is piped"));
        Self { child, said }
    }

    fn until_said(&self, what: &str) {
        self.lines_until(what);
    }

    /// What it says, as far as the line that contains this.
    fn lines_until(&self, what: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(what)) {
            let line = self.said.recv_timeout(SOON);
            lines.push(line.unwrap_or_else(|_| panic!("it never says {what:?}, but {lines:?}")));
        }
        lines
    }

    fn hang_up(&self) {
        let done = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status();
        assert!(done.expect("there is a kill").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A master with TLS, a plain listener and a gateway; each with its address.
struct Master {
    running: Running,
    secure: String,
    plain: String,
    gateway: String,
}

impl Master {
    fn start(certificates: &Certificates, more: &[&str]) -> Self {
        let mut command =
            meshwork(certificates, &["master", "--tls-cert", "master.pem", "--tls-key", "master.key"]);
        command.args(["--listen", "127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"]);
        // Lines that repeat are in the log of `-v`.
        command.args(["--gateway", "light-rpc=127.0.0.1:0", "-v"]).args(more);
        let mut running = Running::start(command);
        let printed = lines_of(running.child.stdout.take().expect("it is piped"));
        let next = |tls: bool| {
            let line = printed.recv_timeout(SOON).expect("it listens");
            let told: Value = serde_json::from_str(&line).expect("a line of JSON");
            assert_eq!(told["tls"], tls, "{line}");
            told["listening"].as_str().expect("an address").to_owned()
        };
        let (secure, plain, gateway) = (next(true), next(false), next(true));
        Self { running, secure, plain, gateway }
    }
}

#[test]
fn the_certificates_of_a_master_may_stand_in_its_configuration_file() {
    let certificates = Certificates::new();
    let config = "listen = [\"127.0.0.1:0\"]\ntls_cert = \"master.pem\"\ntls_key = \"master.key\"\ntls_client_ca = \"ca.pem\"\n";
    fs::write(certificates.path("meshwork.toml"), config).expect("the folder is there");
    // A flag takes the place of its own key, and of no other: clients show certificates in both cases.
    for flags in [&[][..], &["--tls-cert", "master.pem", "--tls-key", "master.key"]] {
        let mut command = meshwork(&certificates, &["master", "--config", "meshwork.toml", "-v"]);
        command.args(flags);
        let mut running = Running::start(command);
        let printed = lines_of(running.child.stdout.take().expect("it is piped"));
        let told: Value =
            serde_json::from_str(&printed.recv_timeout(SOON).expect("it listens")).expect("a line of JSON");
        assert_eq!(told["tls"], true, "{told}");
        let address = told["listening"].as_str().expect("an address");
        let _responder = responder(&certificates, address);
        answers(&call(&certificates, address, &SHOP));
        let without = call(&certificates, address, &["--ca", "ca.pem"]);
        assert_eq!(without.status.code(), Some(3), "{}", said(&without));
    }
}

/// The flags of a branch with the certificate of the shop.
const SHOP: [&str; 6] = ["--ca", "ca.pem", "--tls-cert", "shop.pem", "--tls-key", "shop.key"];

fn call(certificates: &Certificates, address: &str, more: &[&str]) -> Output {
    let mut command = meshwork(certificates, &["call", "echo", "[1]", "--master", address]);
    command.args(more);
    run(command)
}

fn responder(certificates: &Certificates, address: &str) -> Running {
    let mut command = meshwork(certificates, &["respond", "echo", "--command", "cat", "--master", address]);
    command.args(SHOP);
    let running = Running::start(command);
    running.until_said("bound to ");
    running
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[track_caller]
fn answers(output: &Output) {
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"[1]\n"[..]), "{}", said(output));
}

#[track_caller]
fn fails(output: &Output, code: i32, what: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).lines().count() == 1 && said(output).contains(what), "{}", said(output));
}

#[test]
fn commands_speak_tls_by_flags_or_environment_and_say_what_is_wrong() {
    let (certificates, other) = (Certificates::new(), Certificates::new());
    let master = Master::start(&certificates, &["--tls-client-ca", "ca.pem"]);
    let _responder = responder(&certificates, &master.secure);
    answers(&call(&certificates, &master.secure, &SHOP));
    answers(&call(&certificates, &format!("tls://{}", master.secure), &SHOP));
    answers(&call(&certificates, &master.plain, &[]));
    answers(&call(&certificates, &format!("tcp://{}", master.plain), &SHOP));
    let mut by_environment = meshwork(&certificates, &["call", "echo", "[1]"]);
    by_environment.env("MESHWORK_MASTER", &master.secure).env("MESHWORK_CA", "ca.pem");
    by_environment.env("MESHWORK_TLS_CERT", "shop.pem").env("MESHWORK_TLS_KEY", "shop.key");
    answers(&run(by_environment));

    fails(&call(&certificates, &master.secure, &[]), 3, "this address takes TLS only");
    master.running.until_said("it does not speak TLS; it looks like the native protocol of meshwork");
    let wanting = format!("tls://{}", master.secure);
    fails(&call(&certificates, &wanting, &[]), 3, "name it with --ca or MESHWORK_CA");
    let ca = other.path("ca.pem");
    let unknown = ["--ca", &ca, "--tls-cert", "shop.pem", "--tls-key", "shop.key"];
    fails(
        &call(&certificates, &master.secure, &unknown),
        3,
        "signed by no CA that is trusted here; name the CA",
    );
    master.running.until_said("does not trust the CA that has signed it");
    fails(
        &call(&certificates, &master.secure, &["--ca", "ca.pem"]),
        3,
        "it demands a certificate, and none is shown here; show one",
    );
    let (certificate, key) = (other.path("shop.pem"), other.path("shop.key"));
    let strange = ["--ca", "ca.pem", "--tls-cert", &certificate, "--tls-key", &key];
    fails(
        &call(&certificates, &master.secure, &strange),
        3,
        "it does not trust the CA that has signed it; show one",
    );
    let named = [&SHOP[..], &["--tls-name", "mesh.example"]].concat();
    fails(
        &call(&certificates, &master.secure, &named),
        3,
        "is not for mesh.example, but for localhost, 127.0.0.1; dial",
    );
    fails(
        &call(&certificates, &master.plain, &SHOP),
        3,
        "it looks like the native protocol of meshwork without TLS; leave",
    );
    // A command that waits for its master does not wait for a certificate.
    let waiting = meshwork(&certificates, &["subscribe", "**", "--ca", &ca, "--master", &master.secure]);
    fails(&run(waiting), 3, "signed by no CA that is trusted here");
}

#[test]
fn flags_and_files_that_are_wrong_are_told_at_the_start() {
    let (certificates, other) = (Certificates::new(), Certificates::new());
    certificates.sh("cp master.key open.key; chmod 644 open.key; : > empty.pem");
    let key = other.path("master.key");
    let dialling = ["call", "echo", "--master", "127.0.0.1:0"];
    let listening = ["master", "--listen", "127.0.0.1:0"];
    for (command, flags, what) in [
        (
            &dialling[..],
            &["--tls-cert", "shop.pem"][..],
            "no CA is named: name the one that the other end is checked against with --ca",
        ),
        (
            &dialling,
            &["--ca", "ca.pem", "--tls-cert", "shop.pem"],
            "--tls-cert and --tls-key belong together",
        ),
        (&dialling, &["--ca", "nothing.pem"], "nothing.pem cannot be read: "),
        (&dialling, &["--ca", "empty.pem"], "there is no `-----BEGIN CERTIFICATE-----` in it"),
        (&listening, &["--tls-cert", "master.pem"], "--tls-cert and --tls-key belong together"),
        (&listening, &["--tls-client-ca", "ca.pem"], "--tls-client-ca is for TLS"),
        (
            &listening,
            &["--tls-cert", "master.pem", "--tls-key", &key],
            "does not belong to the first certificate in master.pem",
        ),
        (
            &["master", "--listen", "tls://127.0.0.1:0"],
            &[],
            "no certificate is given for it: name one, with its key, with --tls-cert and --tls-key",
        ),
    ] {
        let mut command = meshwork(&certificates, command);
        command.args(flags);
        fails(&run(command), 2, what);
    }
    let flags = ["--tls-cert", "master.pem", "--tls-key", "open.key"];
    let mut command = meshwork(&certificates, &listening);
    command.args(flags);
    let master = Running::start(command);
    master.until_said("everyone on this machine may read the private key in open.key");
}

#[test]
fn a_master_that_strangers_reach_warns_once_unless_something_keeps_them_out() {
    let certificates = Certificates::new();
    let certificate = ["--tls-cert", "master.pem", "--tls-key", "master.key"];
    let mutual = [&certificate[..], &["--tls-client-ca", "ca.pem"]].concat();
    let (open, plain) = ("may bind: the master needs a token", "and speaks without TLS");
    for (listen, flags, token, warns) in [
        ("0.0.0.0:0", &[][..], false, Some(plain)),
        ("0.0.0.0:0", &certificate, false, Some(open)),
        ("0.0.0.0:0", &mutual, false, None),
        ("0.0.0.0:0", &[], true, None),
        ("127.0.0.1:0", &[], false, None),
    ] {
        let mut command = meshwork(&certificates, &["master", "--listen", listen]);
        command.args(flags);
        if token {
            command.env("MESHWORK_TOKEN", "secret");
        }
        let master = Running::start(command);
        // The warning comes before the line that says that it listens.
        let lines = master.lines_until(" listens on ");
        let warned = lines.iter().filter(|line| line.contains("WARN")).collect::<Vec<_>>();
        match warns {
            Some(what) => {
                assert!(warned.len() == 1 && warned[0].contains(what), "{listen} {flags:?}: {lines:?}")
            }
            None => assert!(warned.is_empty(), "{listen} {flags:?}: {lines:?}"),
        }
    }
}

#[test]
fn certificates_are_read_again_at_sighup_and_no_link_is_lost() {
    let certificates = Certificates::new();
    let master = Master::start(&certificates, &["--tls-client-ca", "ca.pem"]);
    let responder = responder(&certificates, &master.secure);

    certificates.sh("cp master.pem good.pem; echo broken > master.pem");
    master.running.hang_up();
    master.running.until_said("the certificates stay as before: master.pem holds no certificate");
    answers(&call(&certificates, &master.secure, &SHOP));

    certificates.sh("mkdir old; cp ca.pem shop.pem shop.key old");
    certificates.renew();
    master.running.hang_up();
    master.running.until_said("the certificates were read again");
    responder.hang_up();
    responder.until_said("the certificates were read again");
    let before = ["--ca", "old/ca.pem", "--tls-cert", "old/shop.pem", "--tls-key", "old/shop.key"];
    fails(&call(&certificates, &master.secure, &before), 3, "signed by no CA that is trusted here");
    // The responder bound with certificates of before, and its link stands.
    answers(&call(&certificates, &master.secure, &SHOP));
    assert!(responder.said.try_iter().all(|line| !line.contains("lost")), "its link is the first one");
}

/// A program with its stdin, whose stdout is read as packets of light_rpc.
struct Packets {
    stdin: ChildStdin,
    packets: mpsc::Receiver<Value>,
}

impl Packets {
    fn of(running: &mut Running) -> Self {
        let stdout = running.child.stdout.take().expect("it is piped");
        Self::read(running, BufReader::new(stdout))
    }

    /// What is no packet between two packets is left out.
    fn read(running: &mut Running, mut reader: BufReader<ChildStdout>) -> Self {
        let stdin = running.child.stdin.take().expect("it is piped");
        let (heard, packets) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 0 {
                if let Ok(len) = line.trim().parse() {
                    let mut json = vec![0; len];
                    reader.read_exact(&mut json).expect("a whole packet");
                    drop(heard.send(serde_json::from_slice(&json).expect("JSON")));
                }
                line.clear();
            }
        });
        Self { stdin, packets }
    }

    fn say(&mut self, packet: &Value) {
        let json = packet.to_string();
        self.stdin.write_all(format!("{}\n{json}", json.len()).as_bytes()).expect("it reads");
    }

    fn hear(&self) -> Value {
        self.packets.recv_timeout(SOON).expect("it says something")
    }
}

fn openssl(certificates: &Certificates, arguments: &[&str]) -> Running {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(certificates.0.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command)
}

#[test]
fn openssl_calls_through_a_gateway_with_each_version_of_tls_and_is_refused_without_a_certificate() {
    let certificates = Certificates::new();
    let master = Master::start(&certificates, &["--tls-client-ca", "ca.pem"]);
    let _responder = responder(&certificates, &master.secure);
    let dial =
        ["s_client", "-quiet", "-connect", &master.gateway, "-CAfile", "ca.pem", "-verify_return_error"];
    let dial = [&dial[..], &["-verify_hostname", "localhost"]].concat();
    for version in ["-tls1_2", "-tls1_3"] {
        let own = [&dial[..], &["-cert", "shop.pem", "-key", "shop.key", version]].concat();
        let mut client = openssl(&certificates, &own);
        let mut packets = Packets::of(&mut client);
        packets.say(&json!({ "command": "__D" }));
        assert!(packets.hear()["data"]["echo"].is_object(), "{version}");
        packets.say(&json!({ "command": "echo", "data": { "id": "1", "args": ["é"] } }));
        assert_eq!(packets.hear()["data"]["args"][0], json!(["é"]), "{version}");

        let client = openssl(&certificates, &[&dial[..], &[version]].concat());
        client.until_said("alert");
    }
    master.running.until_said("it shows no certificate, and one is demanded here");
    // Another CA than the one that signed the certificate of the master.
    let other = Certificates::new();
    let client = openssl(&other, &dial);
    client.until_said("verify error");
}

#[test]
fn a_program_of_node_calls_through_a_gateway_over_tls() {
    let certificates = Certificates::new();
    let master = Master::start(&certificates, &["--tls-client-ca", "ca.pem"]);
    let _responder = responder(&certificates, &master.secure);
    let port = master.gateway.rsplit_once(':').expect("a port").1;
    let script = format!("{PROJECT}/tests/node/tls.js");
    assert!(Path::new(&script).is_file());
    let node = |own: &[&str]| {
        let mut command = Command::new("node");
        command.arg(&script).args([port, "ca.pem"]).args(own).current_dir(certificates.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = run(command);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{printed}{}", said(&output));
        printed.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>()
    };
    let found = node(&["shop.pem", "shop.key"]);
    assert_eq!(found, [json!(["authorized", true]), json!(["functions", ["echo"]]), json!(["echo", true])]);
    let found = node(&[]);
    let code = found.last().expect("an error")[1].as_str().expect("a code").to_owned();
    assert!(code.contains("CERTIFICATE_REQUIRED"), "{found:?}");
}

/// A server of openssl, which says `ACCEPT` and its address.
fn server(certificates: &Certificates) -> (Running, String, BufReader<ChildStdout>) {
    let arguments = ["s_server", "-accept", "127.0.0.1:0", "-cert", "master.pem", "-key", "master.key"];
    let mut running = openssl(certificates, &arguments);
    let mut stdout = BufReader::new(running.child.stdout.take().expect("it is piped"));
    let (stdout, address) = soon(move || {
        let mut line = String::new();
        while !line.starts_with("ACCEPT ") {
            line.clear();
            assert!(stdout.read_line(&mut line).expect("text") > 0, "it listens");
        }
        (stdout, line.trim().trim_start_matches("ACCEPT ").to_owned())
    });
    (running, address, stdout)
}

#[test]
fn a_bridge_accepts_a_server_of_openssl_by_its_certificate_and_refuses_another() {
    let (certificates, other) = (Certificates::new(), Certificates::new());
    let master = Master::start(&certificates, &[]);
    let (mut server, address, stdout) = server(&other);
    let mut packets = Packets::read(&mut server, stdout);
    let at = format!("light-rpc={address}");
    let bridge = |flags: &[&str]| {
        let mut command =
            meshwork(&certificates, &["bridge", &at, "--master", &master.secure, "--ca", "ca.pem"]);
        command.args(flags);
        command
    };
    let ca = other.path("ca.pem");
    for (flags, what) in [
        (
            &["--server-ca", "ca.pem"][..],
            "signed by no CA that is trusted here; name the CA of the other end with --server-ca",
        ),
        (
            &["--server-ca", &ca, "--server-tls-name", "elsewhere"],
            "or say with --server-tls-name which one it must be for",
        ),
    ] {
        let refused = run(bridge(flags));
        assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
        assert!(said(&refused).contains(what), "{}", said(&refused));
    }

    let _accepted = Running::start(bridge(&["--server-ca", &ca, "--prefix", "old"]));
    assert_eq!(packets.hear()["command"], "__D");
    packets.say(&json!({ "command": "__D", "data": { "add": {} } }));
    // The bridge binds when it has heard that.
    let calling = || {
        let mut command =
            meshwork(&certificates, &["call", "old/add", "[20,22]", "--master", &master.secure]);
        command.args(["--ca", "ca.pem"]);
        run(command)
    };
    let answered = thread::scope(|scope| {
        let calling = scope.spawn(|| {
            let mut output = calling();
            while said(&output).contains("NO_SUCH_ACTION") {
                output = calling();
            }
            output
        });
        let asked = packets.hear();
        assert_eq!(asked["data"]["args"], json!([20, 22]));
        packets.say(&json!({ "command": "__R", "data": { "id": asked["data"]["id"], "args": [42] } }));
        calling.join().expect("it has not panicked")
    });
    assert_eq!((answered.status.code(), &*answered.stdout), (Some(0), &b"42\n"[..]), "{}", said(&answered));
}

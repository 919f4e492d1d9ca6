//! The processes of a measurement, seen from both sides: each is started, says `ready ADDRESS`, and ends when its stdin does.
//! No process outlives its handle.

use anyhow::{Context as _, bail, ensure};
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// How long a process may take until it is ready: one that opens ten thousand links takes some seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A process that runs beside this one.
pub(crate) struct Process {
    child: Child,
    name: String,
    /// The address that the process listens on, or is connected to.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts a process that says where it is ready.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let name = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut process = Self { child, name, address: SocketAddr::from(([0; 4], 0)) };
        // Read on a thread of its own: a process that says nothing must not block the run.
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let mut stdout = BufReader::new(stdout);
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });
        let line = receiver.recv_timeout(READY_WITHIN).unwrap_or_default();
        let address = line.trim().strip_prefix("ready ").and_then(|address| address.parse().ok());
        process.address =
            address.with_context(|| format!("{}: not ready, it said {line:?}", process.name))?;
        Ok(process)
    }

    /// Starts a server that is told its port and says nothing. The server is ready when a connection can be opened.
    pub(crate) fn start_on_free_port(command: impl Fn(u16) -> Command) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = command(address.port());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let name = format!("{command:?}");
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let process = Self { child, name, address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(started.elapsed() < READY_WITHIN, "{}: nobody listens on {address}", process.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a process to its end, no longer than this, and gives what it printed.
pub(crate) fn output(mut command: Command, within: Duration) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut stdout = child.stdout.take().context("stdout is piped")?;
    let mut stderr = child.stderr.take().context("stderr is piped")?;
    let printed = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let complained = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > within {
            child.kill()?;
            child.wait()?;
            bail!("{name}: still running after {within:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let complained = complained.join().unwrap_or_else(|_| Ok(String::new()))?;
    ensure!(status.success(), "{name}: {status}: {}", complained.trim());
    Ok(printed.join().unwrap_or_else(|_| Ok(String::new()))?)
}

/// An address on which no process listens, for a server that cannot say where it listens.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").context("no free port")?.local_addr()?)
}

/// Tells the process that started this one that it is ready, and where.
pub(crate) fn ready(address: impl fmt::Display) {
    println!("ready {address}");
}

/// Waits until the process that started this one lets go of it.
pub(crate) async fn until_stdin_ends() -> anyhow::Result<()> {
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    Ok(())
}

/// This program, as another of its parts.
pub(crate) fn myself() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe().context("this program has no path")?))
}

/// A script of the Node.js peers.
pub(crate) fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/node")).join(script));
    command
}

//! `meshwork respond`: a branch whose action runs a shell command. The cancel of a request ends its command.

use crate::failure::{Done, Failure};
use crate::input::check;
use crate::mesh::Mesh;
use crate::output::say;
use crate::signals::{Signals, drain};
use clap::Args;
use meshwork::limits::{DRAIN_WITHIN, FRAME_LEN_MAX, IN_FLIGHT_MAX};
use meshwork::prelude::*;
use meshwork::{Encoding, Payload, Value};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdout, Command};

#[derive(Args)]
pub(super) struct Options {
    /// The name of the action.
    action: String,
    /// The command that `sh -c` runs for each request. It reads the arguments as JSON from stdin and prints the reply as JSON.
    #[arg(long, value_name = "CMD")]
    command: String,
    /// How many commands run at once; further requests wait. Default: the number of processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    jobs: Option<u32>,
    #[command(flatten)]
    mesh: Mesh,
}

/// How much of the stderr of a command is kept for the error, in bytes: the end of it, where the reason stands.
const STDERR_LEN_MAX: usize = 2 * 1024;

pub(super) async fn run(options: Options) -> Done {
    let Options { action, command, jobs, mesh } = options;
    let jobs = jobs
        .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |jobs| jobs as usize);
    let command: Arc<str> = command.into();
    check(meshwork::check_action(&action))?;
    if command.trim().is_empty() {
        return Err(Failure::Use(
            "the command is empty: write a command of the shell, as in --command 'jq add'".to_owned(),
        ));
    }
    let responders = Responders::new()
        .respond_self_describing(action.as_str(), move |arguments: Value| {
            let command = Arc::clone(&command);
            async move { run_command(&command, &arguments).await }
        })
        // Requests wait as they came, and are read when they have a place.
        .permits_with_queue(&action, jobs, IN_FLIGHT_MAX);
    let mut signals = Signals::new()?;
    let binding = mesh.bind_when_up(|branch| branch.respond_all(responders));
    let branch = tokio::select! {
        bound = binding => bound?,
        () = signals.next() => return Ok(()),
    };
    say(format_args!("bound to {}; answering {action} with up to {jobs} commands at once", mesh.master));
    tokio::select! {
        why = branch.closed() => return Err(Failure::Bind(why.message().to_owned())),
        () = signals.next() => {}
    }
    drain(&branch, DRAIN_WITHIN, &mut signals).await
}

async fn run_command(command: &str, arguments: &Value) -> Result<Value, ActionError> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A cancel drops this future, and must end the command and all processes that the command started.
    shell.kill_on_drop(true);
    #[cfg(unix)]
    shell.process_group(0);
    let input = Payload::encode(Encoding::Json, arguments)
        .map_err(|error| failed(format!("the arguments have no form in JSON: {}", error.reason)))?;
    let mut child = shell.spawn()?;
    let mut group = Group(child.id());
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) = pipes else {
        return Err(failed("the command has no pipes"));
    };
    let write = async move {
        // A command may close the pipe without reading its arguments.
        let _ = stdin.write_all(&input.bytes).await;
        drop(stdin);
    };
    let (mut printed, mut said) = (Printed::default(), Said::default());
    // A process that the command leaves behind holds the pipes open: the command is done when it ends itself.
    let ended = {
        let talk = async { tokio::join!(write, printed.read(&mut stdout), said.read(&mut stderr)).1 };
        tokio::select! {
            ended = child.wait() => Some(ended?),
            fits = talk => {
                fits?;
                None
            }
        }
    };
    let status = match ended {
        Some(status) => {
            printed.read_rest(&mut stdout).await?;
            said.read_rest(&mut stderr).await;
            status
        }
        None => child.wait().await?,
    };
    group.0 = None;
    if !status.success() {
        let said = String::from_utf8_lossy(&said.0).trim().to_owned();
        let message = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
        return Err(failed(message));
    }
    if printed.0.trim_ascii().is_empty() {
        return Ok(Value::Nil);
    }
    Payload::new(Encoding::Json, printed.0).decode().map_err(|error| {
        failed(format!("what the command printed is not JSON that can be sent: {}", error.reason))
    })
}

fn failed(why: impl Into<String>) -> ActionError {
    ActionError::new("COMMAND_FAILED", why.into())
}

/// The process group of one command. If this is dropped before the command has ended, the whole group is killed.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(leader) =
            self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            // An error says that the group has ended meanwhile, as it should.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

/// The whole stdout of a command.
#[derive(Default)]
struct Printed(Vec<u8>);

impl Printed {
    /// Reads to the end. What has been read is kept when this is dropped before.
    async fn read(&mut self, pipe: &mut (impl AsyncRead + Unpin)) -> Result<(), ActionError> {
        while pipe.read_buf(&mut self.0).await? > 0 {
            self.check()?;
        }
        Ok(())
    }

    /// Reads what the command has written before it ended.
    async fn read_rest(&mut self, pipe: &mut ChildStdout) -> Result<(), ActionError> {
        #[cfg(unix)]
        return read_now(pipe, |chunk| {
            self.0.extend_from_slice(chunk);
            self.check()
        });
        #[cfg(not(unix))]
        self.read(pipe).await
    }

    /// The reply must fit into a frame.
    fn check(&self) -> Result<(), ActionError> {
        if self.0.len() > FRAME_LEN_MAX {
            return Err(failed(format!("the command prints more than {FRAME_LEN_MAX} bytes")));
        }
        Ok(())
    }
}

/// The end of the stderr of a command.
#[derive(Default)]
struct Said(Vec<u8>);

impl Said {
    /// Reads all of it, so that the command never waits for a reader.
    async fn read(&mut self, pipe: &mut (impl AsyncRead + Unpin)) {
        let mut chunk = [0; CHUNK_LEN];
        while let Ok(len @ 1..) = pipe.read(&mut chunk).await {
            self.keep(&chunk[..len]);
        }
    }

    /// Reads what the command has written before it ended.
    async fn read_rest(&mut self, pipe: &mut ChildStderr) {
        #[cfg(unix)]
        // What cannot be read is no reason to fail.
        let _ = read_now(pipe, |chunk| {
            self.keep(chunk);
            Ok(())
        });
        #[cfg(not(unix))]
        self.read(pipe).await;
    }

    fn keep(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(chunk);
        let excess = self.0.len().saturating_sub(STDERR_LEN_MAX);
        self.0.drain(..excess);
    }
}

/// How much of a pipe is read at once, in bytes.
const CHUNK_LEN: usize = 1024;

/// How much of a pipe is read after its command has ended, in bytes: as much as a pipe holds at most by default. A process that is left
/// behind may go on writing for ever.
#[cfg(unix)]
const REST_LEN_MAX: usize = 1024 * 1024;

/// Reads what stands in a pipe, and does not wait for more.
#[cfg(unix)]
fn read_now(
    pipe: impl std::os::fd::AsFd,
    mut take: impl FnMut(&[u8]) -> Result<(), ActionError>,
) -> Result<(), ActionError> {
    let (mut chunk, mut len) = ([0; CHUNK_LEN], 0);
    while len < REST_LEN_MAX {
        // The pipe is one that does not block.
        match rustix::io::read(&pipe, &mut chunk) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
            Ok(read) => {
                len += read;
                take(&chunk[..read])?;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(format!("what the command printed cannot be read: {error}"))),
        }
    }
    Ok(())
}

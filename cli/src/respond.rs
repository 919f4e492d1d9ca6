//! `meshwork respond`: a branch whose action runs a shell command. The cancel of a request ends its command.

use crate::failure::{Done, Failure};
use crate::input::check;
use crate::mesh::Mesh;
use crate::output::say;
use crate::signals::{Signals, drain};
use clap::Args;
use meshwork::limits::{DRAIN_WITHIN, FRAME_LEN_MAX};
use meshwork::prelude::*;
use serde_json::Value;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

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
    let permits = Arc::new(Semaphore::new(jobs));
    let command: Arc<str> = command.into();
    check(meshwork::check_action(&action))?;
    let responders = Responders::new().respond_self_describing(action.as_str(), move |arguments: Value| {
        let (permits, command) = (Arc::clone(&permits), Arc::clone(&command));
        async move {
            let _permit = permits.acquire_owned().await?;
            run_command(&command, &arguments).await
        }
    });
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
    let mut child = shell.spawn()?;
    let mut group = Group(child.id());
    let input = serde_json::to_vec(arguments)?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(ActionError::new("COMMAND_FAILED", "the command has no pipes"));
    };
    let write = async move {
        // A command may close the pipe without reading its arguments.
        let _ = stdin.write_all(&input).await;
        drop(stdin);
    };
    let ((), stdout, stderr) = tokio::join!(write, read_start(stdout), read_end(stderr));
    let stdout = stdout?;
    let status = child.wait().await?;
    group.0 = None;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr).trim().to_owned();
        let message = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
        return Err(ActionError::new("COMMAND_FAILED", message));
    }
    if stdout.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&stdout).map_err(|error| {
        ActionError::new("COMMAND_FAILED", format!("what the command printed is not JSON: {error}"))
    })
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

/// The whole stdout of a command; an error if it does not fit into a frame.
async fn read_start(pipe: impl AsyncRead + Unpin) -> Result<Vec<u8>, ActionError> {
    let mut printed = Vec::new();
    pipe.take(FRAME_LEN_MAX as u64 + 1).read_to_end(&mut printed).await?;
    if printed.len() > FRAME_LEN_MAX {
        return Err(ActionError::new(
            "COMMAND_FAILED",
            format!("the command prints more than {FRAME_LEN_MAX} bytes"),
        ));
    }
    Ok(printed)
}

/// The end of the stderr of a command. All of it is read, so that the command never waits for a reader.
async fn read_end(mut pipe: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(len @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..len]);
        let excess = kept.len().saturating_sub(STDERR_LEN_MAX);
        kept.drain(..excess);
    }
    kept
}

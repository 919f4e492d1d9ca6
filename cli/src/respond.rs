//! `meshwork respond`: a branch whose action runs a shell command. A command ends with its request, with all that it started.

use crate::contained::{self, failed};
use crate::failure::{Done, Failure};
use crate::input::check;
use crate::mesh::Mesh;
use crate::output::say;
use crate::signals::{Signals, drain};
use clap::Args;
use meshwork::limits::{DRAIN_WITHIN, JOBS_WAITING_MAX};
use meshwork::prelude::*;
use meshwork::{Encoding, Payload, Value};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Args)]
pub(super) struct Options {
    /// The name of the action.
    action: String,
    /// The command that `sh -c` runs for each request. It reads the arguments as JSON from stdin and prints the reply as JSON. All that it
    /// started ends with it. It finds no token in its environment: to call back, it names a token file.
    #[arg(long, value_name = "CMD")]
    command: String,
    /// How many commands run at once; further requests wait. Default: the number of processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    jobs: Option<u32>,
    /// How many requests wait for a command of others to end. Further ones go to another provider, or fail with OVERLOADED.
    #[arg(long, value_name = "N", default_value_t = JOBS_WAITING_MAX)]
    waiting: usize,
    #[command(flatten)]
    mesh: Mesh,
}

pub(super) async fn run(options: Options) -> Done {
    let Options { action, command, jobs, waiting, mesh } = options;
    let jobs = jobs
        .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |jobs| jobs as usize);
    let permits = Arc::new(Semaphore::new(jobs));
    let command: Arc<str> = command.into();
    check(meshwork::check_action(&action))?;
    if command.trim().is_empty() {
        return Err(Failure::Use(
            "the command is empty: write a command of the shell, as in --command 'jq add'".to_owned(),
        ));
    }
    contained::prepare();
    let answer = move |arguments: Value| {
        let (permits, command) = (Arc::clone(&permits), Arc::clone(&command));
        async move {
            // The processes of a request that was cancelled may have to be waited for.
            let permit = permits.acquire_owned().await?;
            run_command(&command, &arguments, permit).await
        }
    };
    // Requests that wait stay bytes: only those that run are decoded.
    let responders = Responders::new()
        .respond_self_describing(action.as_str(), answer)
        .permits_with_queue(&action, jobs, waiting);
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

async fn run_command(
    command: &str,
    arguments: &Value,
    permit: OwnedSemaphorePermit,
) -> Result<Value, ActionError> {
    let input = Payload::encode(Encoding::Json, arguments)
        .map_err(|error| failed(format!("the arguments have no form in JSON: {}", error.reason)))?;
    let ended = contained::run(command, &input.bytes, permit).await?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.said).trim().to_owned();
        let status = ended.status;
        let message = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
        return Err(failed(message));
    }
    if ended.printed.trim_ascii().is_empty() {
        return Ok(Value::Nil);
    }
    Payload::new(Encoding::Json, ended.printed).decode().map_err(|error| {
        failed(format!("what the command printed is not JSON that can be sent: {}", error.reason))
    })
}

//! `meshwork respond`: a branch whose action runs a shell command. A command ends with its request, with all that it started. With `--stream` the
//! lines that it prints are the items of a stream.

use crate::contained::{self, Lines, check_status, failed};
use crate::failure::{Done, Failure};
use crate::headers::variables;
use crate::input::{check, read_label};
use crate::mesh::Mesh;
use crate::output::say;
use crate::signals::{Signals, drain};
use clap::Args;
use futures::stream::{Stream, try_unfold};
use meshwork::limits::{DRAIN_WITHIN, JOBS_WAITING_MAX, LABELS_MAX, WEIGHT_DEFAULT, WEIGHT_MAX};
use meshwork::prelude::*;
use meshwork::{Encoding, Label, Payload, Value};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Args)]
pub(super) struct Options {
    /// The name of the action.
    action: String,
    /// The command that `sh -c` runs for each request. It reads the arguments as JSON from stdin and prints the reply as JSON. All that it
    /// started ends with it. It finds no token in its environment: to call back, it names a token file. The headers of the request are variables:
    /// `tenant` is MESHWORK_HEADER_TENANT.
    #[arg(long, value_name = "CMD")]
    command: String,
    /// Answers with a stream: each line of JSON that the command prints is an item. The command waits in its writes while nobody reads the
    /// stream, and is killed when its reader goes. Callers read it with `meshwork call --stream`.
    #[arg(long)]
    stream: bool,
    /// With --stream: each line is an item that is a text, whatever stands in it.
    #[arg(long, requires = "stream")]
    text: bool,
    /// How many commands run at once; further requests wait. Default: the number of processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    jobs: Option<u32>,
    /// How many requests wait for a command of others to end. Further ones go to another provider, or fail with OVERLOADED.
    #[arg(long, value_name = "N", default_value_t = JOBS_WAITING_MAX)]
    waiting: usize,
    /// A label of this node, for calls that ask for it; may be given more than once.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = read_label)]
    labels: Vec<Label>,
    /// How much of the requests the node gets, beside the weights of the other providers; 0: what is asked of it by name or label, and what no other
    /// provider takes.
    #[arg(long, value_name = "N", default_value_t = WEIGHT_DEFAULT, value_parser = clap::value_parser!(u32).range(..=i64::from(WEIGHT_MAX)))]
    weight: u32,
    #[command(flatten)]
    mesh: Mesh,
}

pub(super) async fn run(options: Options) -> Done {
    let Options { action, command, stream, text, jobs, waiting, labels, weight, mesh } = options;
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
    check_labels(&labels)?;
    contained::prepare();
    // Requests that wait stay bytes: only those that run are decoded.
    let responders = if stream {
        let as_item = if text { text_item } else { json_item };
        Responders::new().respond_stream(action.as_str(), move |arguments: Value, context: CallContext| {
            let (permits, command) = (Arc::clone(&permits), Arc::clone(&command));
            async move {
                let permit = permits.acquire_owned().await?;
                stream_command(&command, &arguments, &variables(context.headers()), permit, as_item)
            }
        })
    } else {
        Responders::new().respond_self_describing(
            action.as_str(),
            move |arguments: Value, context: CallContext| {
                let (permits, command) = (Arc::clone(&permits), Arc::clone(&command));
                async move {
                    // The processes of a request that was cancelled may have to be waited for.
                    let permit = permits.acquire_owned().await?;
                    run_command(&command, &arguments, &variables(context.headers()), permit).await
                }
            },
        )
    };
    let responders = responders.permits_with_queue(&action, jobs, waiting);
    let mut signals = Signals::new()?;
    let binding = mesh.bind_when_up(|branch| {
        let branch = if weight == WEIGHT_DEFAULT { branch } else { branch.weight(weight) };
        let labelled = |branch: BranchActor, label: Label| branch.label(label.name, label.value);
        labels.into_iter().fold(branch, labelled).respond_all(responders)
    });
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

/// Whether one node may have all of these labels.
fn check_labels(labels: &[Label]) -> Done {
    if labels.len() > LABELS_MAX {
        return Err(Failure::Use(format!("a node has {LABELS_MAX} labels at most")));
    }
    let twice = |(at, label): &(usize, &Label)| labels[..*at].iter().any(|before| before.name == label.name);
    match labels.iter().enumerate().find(twice) {
        None => Ok(()),
        Some((_, label)) => Err(Failure::Use(format!("the label {} is given twice", label.name))),
    }
}

async fn run_command(
    command: &str,
    arguments: &Value,
    variables: &[(String, String)],
    permit: OwnedSemaphorePermit,
) -> Result<Value, ActionError> {
    let ended = contained::run(command, input_of(arguments)?, variables, permit).await?;
    check_status(ended.status, &ended.said)?;
    if ended.printed.trim_ascii().is_empty() {
        return Ok(Value::Nil);
    }
    Payload::new(Encoding::Json, ended.printed).decode().map_err(|error| {
        failed(format!("what the command printed is not JSON that can be sent: {}", error.reason))
    })
}

/// The items of a command: what `as_item` makes of its lines, up to the end of the command, or an error.
fn stream_command(
    command: &str,
    arguments: &Value,
    variables: &[(String, String)],
    permit: OwnedSemaphorePermit,
    as_item: AsItem,
) -> Result<impl Stream<Item = Result<Value, ActionError>> + use<>, ActionError> {
    let lines = Lines::start(command, input_of(arguments)?, variables, permit)?;
    Ok(try_unfold(lines, move |mut lines| async move {
        while let Some(line) = lines.next().await? {
            if let Some(item) = as_item(line)? {
                return Ok(Some((item, lines)));
            }
        }
        Ok(None)
    }))
}

/// Makes an item of a line, which stands without its end; none of a line that is left out.
type AsItem = fn(Vec<u8>) -> Result<Option<Value>, ActionError>;

fn json_item(line: Vec<u8>) -> Result<Option<Value>, ActionError> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    Payload::new(Encoding::Json, line).decode().map(Some).map_err(|error| {
        let why = error.reason;
        failed(format!(
            "a line that the command printed is not JSON that can be sent: {why}; with --text lines are sent as they are"
        ))
    })
}

fn text_item(mut line: Vec<u8>) -> Result<Option<Value>, ActionError> {
    line.pop_if(|last| *last == b'\r');
    let text = String::from_utf8(line);
    text.map(|text| Some(Value::Text(text)))
        .map_err(|_| failed("a line that the command printed is no text in UTF-8"))
}

/// What a command reads from its stdin.
fn input_of(arguments: &Value) -> Result<Vec<u8>, ActionError> {
    let input = Payload::encode(Encoding::Json, arguments)
        .map_err(|error| failed(format!("the arguments have no form in JSON: {}", error.reason)))?;
    Ok(input.bytes.into())
}

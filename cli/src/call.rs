//! `meshwork call`: one call, its reply on stdout; or a stream, its items on stdout as they come; or a call of every provider, a line for each.

use crate::failure::{Done, Failure};
use crate::headers::HeaderFlags;
use crate::input::{check, read_duration, read_json, read_label};
use crate::mesh::Mesh;
use crate::outlet::Printer;
use crate::output::{Output, PRINTED_LEN, error_in_words, error_of_node_as_json, json, object, one_line};
use crate::output::{received, text, unprinted};
use clap::Args;
use futures::FutureExt as _;
use meshwork::{CallError, CallingAll, Fate, Label, Payload, Streaming, check_action, check_node};
use std::time::Duration;

#[derive(Args)]
pub(super) struct Options {
    /// The name of the action.
    action: String,
    /// The arguments as JSON: an object by their names, `{"a":2,"b":3}`, a list in their order, `[2,3]`, or the only argument itself,
    /// `2`; `-` reads stdin, `@file` reads a file. Default: `null`.
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    arguments: Option<String>,
    /// Reads the stream that the action answers with, and prints its items as they come, one on a line, to its end.
    #[arg(long)]
    stream: bool,
    /// The deadline: how long to wait for the reply, or with --stream for the stream to begin.
    #[arg(long, value_parser = read_duration, default_value = "10s")]
    within: Duration,
    /// The name of the node that is to answer. Default: any provider of the action.
    #[arg(long, value_name = "NODE")]
    on: Option<String>,
    /// A key: all calls of one key go to one provider, as long as it is there.
    #[arg(long)]
    key: Option<String>,
    /// A label that the provider must have; may be given more than once.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = read_label)]
    labels: Vec<Label>,
    /// Calls every provider. Prints a line for each outcome, as they come, with the name of its node.
    #[arg(long, conflicts_with_all = ["on", "key", "stream"])]
    all: bool,
    #[command(flatten)]
    headers: HeaderFlags,
    #[command(flatten)]
    mesh: Mesh,
}

pub(super) async fn run(options: Options, output: &Output) -> Done {
    check(check_action(&options.action))?;
    options.on.as_deref().map_or(Ok(()), |node| check(check_node(node)))?;
    let headers = options.headers.read()?;
    let arguments = read_json(options.arguments.as_deref())?;
    let branch = options.mesh.bind(|branch| branch).await?;
    if options.stream {
        let mut opening =
            branch.stream_raw(options.action, arguments).within(options.within).fail_when_down();
        if let Some(node) = options.on {
            opening = opening.on(node);
        }
        for (name, value) in headers.iter() {
            opening = opening.header(name, value);
        }
        if let Some(key) = options.key {
            opening = opening.key(key);
        }
        for Label { name, value } in options.labels {
            opening = opening.label(name, value);
        }
        return print_items(opening.await?).await;
    }
    if options.all {
        let mut calling = branch.call_all_raw(options.action, arguments).within(options.within);
        for (name, value) in headers.iter() {
            calling = calling.header(name, value);
        }
        let labelled = |calling: CallingAll<Payload>, label: Label| calling.label(label.name, label.value);
        return print_all(options.labels.into_iter().fold(calling, labelled), output).await;
    }
    let mut call = branch.call_raw(options.action, arguments).within(options.within).fail_when_down();
    if let Some(node) = options.on {
        call = call.on(node);
    }
    if let Some(key) = options.key {
        call = call.key(key);
    }
    for Label { name, value } in options.labels {
        call = call.label(name, value);
    }
    for (name, value) in headers.iter() {
        call = call.header(name, value);
    }
    output.line(&received(&call.await?)?)
}

/// Prints the items of a stream to its end. Nothing is read while stdout takes nothing, so that the producer waits for the reader of stdout.
async fn print_items(mut items: Streaming<Payload>) -> Done {
    let printer = Printer::start().map_err(unprinted)?;
    let mut next = items.next().await;
    loop {
        // The items that have come meanwhile are printed in one go; behind them, how the stream ended.
        let mut lines = String::new();
        let end = loop {
            match line_of(next) {
                Ok(Some(line)) => lines.push_str(&line),
                Ok(None) => break Some(Ok(())),
                Err(error) => break Some(Err(Failure::from(error))),
            }
            if lines.len() >= PRINTED_LEN {
                break None;
            }
            match items.next().now_or_never() {
                Some(item) => next = item,
                None => break None,
            }
        };
        if !lines.is_empty() {
            printer.print(lines).await.map_err(unprinted)?;
        }
        if let Some(end) = end {
            return end;
        }
        next = items.next().await;
    }
}

/// The line of an item, with its end; none behind the last one.
fn line_of(item: Option<Result<Payload, CallError>>) -> Result<Option<String>, CallError> {
    let Some(item) = item else { return Ok(None) };
    let mut line = received(&item?)?;
    line.push('\n');
    Ok(Some(line))
}

/// Prints the outcomes. A call of all has failed if one of them has.
async fn print_all(mut answers: CallingAll<Payload>, output: &Output) -> Done {
    let (mut count, mut failed, mut first) = (0, 0, None);
    while let Some(answered) = answers.next().await {
        if answered.node.is_empty() {
            // Nobody was called.
            return answered.outcome.map(drop).map_err(Into::into);
        }
        count += 1;
        let node = &*answered.node;
        let line = match answered.outcome.and_then(|reply| reply_line(node, &reply, output)) {
            Ok(line) => line,
            Err(error) => {
                let line = if output.json {
                    error_of_node_as_json(Some(node), &error)
                } else {
                    one_line(format_args!("{node}: {}", error_in_words(&error)))
                };
                failed += 1;
                let (code, fate) = first.unwrap_or((error.code(), error.fate()));
                // One fate is said of all of them only if all have it.
                first = Some((code, if fate == error.fate() { fate } else { Fate::Unknown }));
                line
            }
        };
        output.line(&line)?;
    }
    match first {
        None => Ok(()),
        Some((code, fate)) => {
            let what = format!("{failed} of {count} providers did not reply as they should");
            // The action has run where there was a reply.
            let fate = if failed == count { fate } else { Fate::Unknown };
            Err(CallError::new(code, fate, what).into())
        }
    }
}

fn reply_line(node: &str, reply: &Payload, output: &Output) -> Result<String, CallError> {
    if output.json {
        return Ok(json(&object([("node", text(node)), ("reply", reply.decode()?)]))?);
    }
    Ok(format!("{}: {}", one_line(node), received(reply)?))
}

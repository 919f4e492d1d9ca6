//! `meshwork publish`, `subscribe` and `broadcast`.

use crate::failure::{Done, Failure};
use crate::headers::HeaderFlags;
use crate::input::{check, read_count, read_json};
use crate::mesh::Mesh;
use crate::outlet::Printer;
use crate::output::{Output, PRINTED_LEN, json, object, say, text, unprinted};
use crate::signals::Signals;
use clap::Args;
use meshwork::limits::{DRAIN_WITHIN, EVENTS_PENDING_MAX};
use meshwork::prelude::*;
use meshwork::repeated::Repeated;
use meshwork::{Headers, Pattern, Publishing, Value, check_topic, log_line};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::mpsc;

#[derive(Args)]
pub(super) struct PublishOptions {
    /// The topic, as in `orders/created`.
    topic: String,
    /// The value of the event as JSON: `-` reads stdin, `@file` reads a file. Default: `null`.
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    event: Option<String>,
    /// Lets the master keep the value as the last of its topic: those that subscribe later hear it first.
    #[arg(long)]
    last: bool,
    /// Takes the last value of the topic away, and publishes nothing.
    #[arg(long, conflicts_with_all = ["last", "event"])]
    forget: bool,
    #[command(flatten)]
    headers: HeaderFlags,
    #[command(flatten)]
    mesh: Mesh,
}

#[derive(Args)]
pub(super) struct BroadcastOptions {
    /// The topic, as in `orders/created`.
    topic: String,
    /// The value of the event as JSON: `-` reads stdin, `@file` reads a file. Default: `null`.
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    event: Option<String>,
    #[command(flatten)]
    headers: HeaderFlags,
    #[command(flatten)]
    mesh: Mesh,
}

#[derive(Args)]
pub(super) struct SubscribeOptions {
    /// The topics: `orders/created` itself, `orders/*` one segment more, `orders/**` one or more segments.
    pattern: String,
    /// Ends after this number of events. Default: runs until Ctrl-C or SIGTERM.
    #[arg(long, value_name = "N", value_parser = read_count, allow_negative_numbers = true)]
    count: Option<u64>,
    /// Joins a group of subscribers: each event goes to one member of the group only.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Prints the headers of each event too: an object before the value, or under `headers` in JSON.
    #[arg(long)]
    headers: bool,
    #[command(flatten)]
    mesh: Mesh,
}

pub(super) async fn publish(options: PublishOptions) -> Done {
    check(check_topic(&options.topic))?;
    let headers = options.headers.read()?;
    let event = if options.forget { None } else { Some(read_json(options.event.as_deref())?) };
    let branch = options.mesh.bind(|branch| branch).await?;
    match event {
        None => branch.forget_last(options.topic).await?,
        Some(value) if options.last => with(&headers, branch.publish_last_raw(options.topic, value)).await?,
        Some(event) => with(&headers, branch.publish_raw(options.topic, event)).await?,
    }
    // The event has left when the drain is through.
    branch.drain(DRAIN_WITHIN).await?;
    Ok(())
}

pub(super) async fn broadcast(options: BroadcastOptions) -> Done {
    check(check_topic(&options.topic))?;
    let headers = options.headers.read()?;
    let event = read_json(options.event.as_deref())?;
    let branch = options.mesh.bind(|branch| branch).await?;
    with(&headers, branch.broadcast_raw(options.topic, event)).await?;
    branch.drain(DRAIN_WITHIN).await?;
    Ok(())
}

fn with(headers: &Headers, publishing: Publishing) -> Publishing {
    headers.iter().fold(publishing, |publishing, (name, value)| publishing.header(name, value))
}

pub(super) async fn subscribe(options: SubscribeOptions, output: &Output) -> Done {
    // Before the command waits for the master.
    Pattern::new(options.pattern.as_str()).map_err(|error| Failure::Use(error.to_string()))?;
    let mut signals = Signals::new()?;
    let printer = Printer::start().map_err(unprinted)?;
    let branch = tokio::select! {
        bound = options.mesh.bind_when_up(|branch| branch) => bound?,
        () = signals.next() => return Ok(()),
    };
    let (heard, mut events) = mpsc::channel(EVENTS_PENDING_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    let (slow, shows_headers) = (Repeated::new(), options.headers);
    let handler = move |event: Event<Result<Value, EventError>>| {
        let is_last = event.is_last_value();
        let headers = if shows_headers { event.headers } else { Headers::none() };
        let full = heard.try_send((event.topic, event.publisher, event.value, is_last, headers)).is_err();
        // The first one is told at once, and their number when stdout has caught up.
        if full && counted.fetch_add(1, Ordering::Relaxed) == 0 {
            log_line!(
                slow.warn(Instant::now()),
                "events are dropped: stdout takes them more slowly than they come"
            );
        }
    };
    let subscription = match options.group {
        Some(group) => branch.subscribe_group(group, &options.pattern, handler).await?,
        None => branch.subscribe(&options.pattern, handler).await?,
    };
    say(format_args!("subscribed to {} at {}", options.pattern, options.mesh.master));
    let (mut left, unshown, caught_up) =
        (options.count.unwrap_or(u64::MAX), Repeated::new(), Repeated::new());
    while left > 0 {
        let mut event = tokio::select! {
            event @ Some(_) = events.recv() => event,
            why = branch.closed() => return Err(Failure::Bind(why.message().to_owned())),
            () = signals.next() => break,
        };
        // The events that have come meanwhile are printed in one go.
        let mut text = String::new();
        while let Some((topic, publisher, value, is_last, headers)) = event {
            match line_of(output, &topic, &publisher, value, is_last, &headers) {
                Ok(line) => {
                    text.push_str(&line);
                    text.push('\n');
                    left -= 1;
                }
                Err(why) => {
                    let line = unshown.warn(Instant::now());
                    log_line!(line, "an event of {topic} that {publisher} published cannot be shown: {why}");
                }
            }
            let has_room = left > 0 && text.len() < PRINTED_LEN;
            event = has_room.then(|| events.try_recv().ok()).flatten();
        }
        // The node lives on while the reader of stdout takes its time.
        tokio::select! {
            printed = printer.print(text) => printed.map_err(unprinted)?,
            why = branch.closed() => return Err(Failure::Bind(why.message().to_owned())),
            () = signals.next() => break,
        }
        if events.is_empty() {
            say_dropped(&dropped, &caught_up);
        }
    }
    drop(subscription);
    say_dropped(&dropped, &caught_up);
    Ok(())
}

/// The line of an event, or why there is none.
fn line_of(
    output: &Output,
    topic: &str,
    publisher: &str,
    value: Result<Value, EventError>,
    is_last: bool,
    headers: &Headers,
) -> Result<String, String> {
    let value = value.map_err(|error| error.reason.to_string())?;
    let headers = (!headers.is_empty())
        .then(|| Value::Map(headers.iter().map(|(name, value)| (text(name), text(value))).collect()));
    let line = if output.json {
        let mut entries = vec![("topic", text(topic)), ("publisher", text(publisher)), ("value", value)];
        entries.extend(is_last.then_some(("last", Value::Bool(true))));
        entries.extend(headers.map(|headers| ("headers", headers)));
        json(&object(entries))
    } else {
        // A person that reads along sees what was published before.
        let mark = if is_last { " (last value)" } else { "" };
        headers.map(|headers| json(&headers).map(|headers| format!(" {headers}"))).transpose().and_then(
            |headers| {
                json(&value).map(|value| format!("{topic}{mark}{}: {value}", headers.unwrap_or_default()))
            },
        )
    };
    line.map_err(|error| error.to_string())
}

fn say_dropped(dropped: &AtomicU64, caught_up: &Repeated) {
    let dropped = dropped.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        let line = caught_up.warn(Instant::now());
        log_line!(line, "{dropped} events were dropped: stdout took them more slowly than they came");
    }
}

//! Streams in a simulated mesh: replies of many items, and feeds among the arguments, whose ends are slow, stop early, fail, panic and are cut off.
//! The journal has the ends of all streams, as those of calls: each ends once, with its end, an error, or a true fate. Here stands what is true of
//! streams alone: their items come in order and without a gap, nothing is made beyond what was granted, and nothing is held in the end.

use crate::journal::{self, Finish, Life};
use crate::programs::{Living, PLANNED};
use futures::stream::{self, Stream, StreamExt as _};
use meshwork::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// How a stream is to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    call: u64,
    begins_after_ms: u64,
    /// How many items come; none: without an end.
    count: Option<u64>,
    /// How many letters each item has.
    len: usize,
    /// How long the producer waits before every tenth item: a while, since no simulated time passes without a wait.
    pause_ms: u64,
    ends: Ends,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Ends {
    Well,
    WithError,
    WithPanic,
}

/// An item: its stream, its number from 0 on, and letters.
type Item = (u64, u64, String);

/// What was made and taken of a stream, in letters.
#[derive(Default)]
struct Flow {
    window: usize,
    made: usize,
    taken: usize,
}

thread_local! {
    static FLOWS: RefCell<BTreeMap<u64, Flow>> = const { RefCell::new(BTreeMap::new()) };
}

/// The items of a plan. The call is noted as finished when the last one was made.
fn items(plan: Plan) -> impl Stream<Item = Result<Item, ActionError>> {
    // It goes with the stream: see `Journal::judge`.
    let token = journal::function(plan.call);
    let numbers = match plan.count {
        Some(count) => stream::iter(0..count).left_stream(),
        None => stream::iter(0..).right_stream(),
    };
    let Plan { call, len, pause_ms, ends, .. } = plan;
    let made = numbers.then(move |number| {
        let held = token.clone();
        async move {
            if number % 10 == 9 {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            let _held = held;
            FLOWS.with_borrow_mut(|flows| {
                let Flow { window, made, taken } = flows.entry(call).or_default();
                *made += len;
                // At most the window and one item are on their way.
                if *made > *taken + *window + len {
                    journal::wrong(format!(
                        "stream {call} has made {made}, and {taken} were taken of {window}"
                    ));
                }
            });
            Ok((call, number, "x".repeat(len)))
        }
    });
    made.chain(stream::once(async move { ends }).filter_map(move |ends| async move {
        let finish = if let Ends::Well = ends { Finish::Replied } else { Finish::Failed };
        journal::finished(call, finish);
        match ends {
            Ends::Well => None,
            Ends::WithError => Some(Err(ActionError::new("Planned", "the stream asked for it"))),
            Ends::WithPanic => panic!("{PLANNED}"),
        }
    }))
}

/// The responders of a life that answer with streams, and that read them.
pub(crate) fn responders(responders: Responders, life: Life, name: &str, feed: &str) -> Responders {
    let answer = move |plan: Plan, context: CallContext| async move {
        journal::ran(plan.call, life);
        journal::came(plan.call, context.caller(), context.time_left());
        tokio::time::sleep(Duration::from_millis(plan.begins_after_ms)).await;
        Ok(items(plan).boxed_local())
    };
    responders.respond_stream(name, answer).respond(
        feed,
        move |(call, mut feed): (u64, Feed<Item>)| async move {
            journal::ran(call, life);
            let mut next = 0;
            let outcome = loop {
                match feed.next().await {
                    Some(Ok(item)) => taken(call, item, &mut next),
                    Some(Err(error)) => break Err(ActionError::from(error)),
                    None => break Ok(journal::reply_to(call)),
                }
            };
            journal::finished(call, if outcome.is_ok() { Finish::Replied } else { Finish::Failed });
            outcome
        },
    )
}

/// Notes an item that was taken of a stream.
fn taken(call: u64, (of, number, letters): Item, next: &mut u64) {
    if (of, number) != (call, *next) {
        journal::wrong(format!("item {number} of stream {of} came as item {next} of stream {call}"));
    }
    *next += 1;
    FLOWS.with_borrow_mut(|flows| flows.entry(call).or_default().taken += letters.len());
}

/// Reads a stream to its end, or to an item. `true` if it was read to its end.
async fn consume(
    call: u64,
    opening: meshwork::Opening<Item>,
    pause: Duration,
    up_to: u64,
) -> Option<Result<u64, CallError>> {
    let mut items = match opening.await {
        Ok(items) => items,
        Err(error) => return Some(Err(error)),
    };
    let mut next = 0;
    while next < up_to {
        match items.next().await {
            Some(Ok(item)) => taken(call, item, &mut next),
            Some(Err(error)) => {
                if items.next().await.is_some() {
                    journal::wrong(format!("stream {call} goes on behind its error"));
                }
                return Some(Err(error));
            }
            None => return Some(Ok(journal::reply_to(call))),
        }
        if next % 16 == 0 {
            tokio::time::sleep(pause).await;
        }
    }
    None
}

/// Asks for the stream of a host, or of any, and reads it: slowly, or not to its end, perhaps.
pub(crate) fn read(living: &Living, host: &str, chance: &mut fastrand::Rng) {
    let action = if chance.bool() { "stream".to_owned() } else { format!("stream-{host}") };
    let within = Duration::from_millis(chance.u64(20..700));
    let up_to = if chance.u32(0..4) == 0 { chance.u64(0..60) } else { u64::MAX };
    let ends =
        *chance.choice(&[Ends::Well, Ends::Well, Ends::WithError, Ends::WithPanic]).unwrap_or(&Ends::Well);
    let is_endless = chance.u32(0..6) == 0;
    // Some would take longer than the run.
    let whole_within = Duration::from_millis(chance.u64(10..900));
    let plan = Plan {
        call: journal::asked(living.life, format_args!("{action}, read up to {up_to}"), Duration::MAX),
        begins_after_ms: if chance.bool() { chance.u64(0..60) } else { 0 },
        count: (!is_endless).then(|| chance.u64(0..200)),
        len: *chance.choice(&[1, 50, 700, 5_000]).unwrap_or(&1),
        pause_ms: chance.u64(1..20),
        ends,
    };
    let (call, pause) = (plan.call, Duration::from_millis(chance.u64(0..20)));
    let window = *chance.choice(&[1_000, 10_000, 32_000]).unwrap_or(&1_000);
    note_window(call, window);
    let opening = living.node.stream::<Item>(action, plan).within(within).whole_within(whole_within);
    let mut opening = opening.window(window);
    if chance.u32(0..8) == 0 {
        opening = opening.on(host);
    }
    let drops_after = (chance.u32(0..5) == 0).then(|| Duration::from_millis(chance.u64(0..200)));
    actix_rt::spawn(async move {
        let consuming = consume(call, opening, pause, up_to);
        let outcome = match drops_after {
            None => consuming.await,
            Some(after) => tokio::time::timeout(after, consuming).await.unwrap_or(None),
        };
        match outcome {
            Some(outcome) => journal::ended(call, outcome),
            None => journal::dropped(call),
        }
    });
}

/// Calls with a feed among the arguments.
pub(crate) fn feed(living: &Living, host: &str, chance: &mut fastrand::Rng) {
    let action = if chance.bool() { "feed".to_owned() } else { format!("feed-{host}") };
    let within = Duration::from_millis(chance.u64(50..900));
    let call = journal::asked(living.life, format_args!("{action} with a feed"), within);
    let (count, len) = (chance.u64(0..150), *chance.choice(&[1, 400, 3_000]).unwrap_or(&1));
    let pause_ms = chance.u64(0..20);
    let token = journal::function(call);
    let numbers = stream::iter(0..count).then(move |number| {
        let held = token.clone();
        async move {
            if number % 10 == 9 {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            let _held = held;
            (call, number, "x".repeat(len))
        }
    });
    let calling = living.node.call::<u64>(action, (call, Feed::new(numbers))).within(within);
    let drops_after = (chance.u32(0..6) == 0).then(|| Duration::from_millis(chance.u64(0..100)));
    actix_rt::spawn(async move {
        let Some(after) = drops_after else { return journal::ended(call, calling.await) };
        match tokio::time::timeout(after, calling).await {
            Ok(outcome) => journal::ended(call, outcome),
            Err(_) => journal::dropped(call),
        }
    });
}

/// A stream that ends well, which every node reads of every other one in the end.
pub(crate) async fn in_the_end(living: &Living, host: &str) {
    let action = format!("stream-{host}");
    let call = journal::asked(living.life, format_args!("{action}, in the end"), Duration::MAX);
    let plan = Plan { call, begins_after_ms: 0, count: Some(40), len: 100, pause_ms: 0, ends: Ends::Well };
    note_window(call, 1_000);
    let opening =
        living.node.stream::<Item>(action.as_str(), plan).within(Duration::from_millis(500)).window(1_000);
    if let Some(outcome) = consume(call, opening, Duration::ZERO, u64::MAX).await {
        if let Err(error) = &outcome {
            journal::wrong(format!("{action} does not end well in the end: {error}"));
        }
        journal::ended(call, outcome);
    }
}

fn note_window(call: u64, window: u32) {
    FLOWS.with_borrow_mut(|flows| flows.entry(call).or_default().window = window as usize);
}

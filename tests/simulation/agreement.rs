//! What is true in the end: the faults are over, nobody begins anything, and all nodes have had their time. Every node must then know every
//! other one with all its actions, hear everybody's news, and keep nothing of what is gone.

use crate::journal::{self, Life};
use crate::last;
use crate::programs::{HUB, Living, QUIET_FROM, Role, function, lock, plain_task};
use crate::streams;
use meshwork::Snapshot;
use meshwork::prelude::*;
use meshwork::testing::{Census, TakeCensus};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// When every node calls every other one: each deadline, each silent link and each backoff is over long before.
const CALLS_AT: Duration = QUIET_FROM.saturating_add(Duration::from_millis(10));

/// When every node tells what it has: its calls have ended.
const TELLS_AT: Duration = CALLS_AT.saturating_add(Duration::from_millis(600));

/// When the run is over.
pub(crate) const OVER_AT: Duration = TELLS_AT.saturating_add(Duration::from_millis(250));

/// How much news every node publishes in the end.
const NEWS_IN_THE_END: usize = 10;

/// What a node knows and has, in the end.
struct Told {
    life: Life,
    ear: u32,
    notes: u32,
    shouts: u32,
    /// The nodes that came and did not go, as the node was told, those that share a name each.
    told: Vec<String>,
    nodes: BTreeMap<String, BTreeSet<String>>,
    /// How many nodes these are, those that share a name counted each.
    count: usize,
    described: BTreeMap<String, BTreeSet<String>>,
    snapshot: Snapshot,
    census: Census,
    /// The last values that a handler hears that comes now, and those that one has heard that was there before.
    fresh: last::Values,
    heard: last::Values,
    own_last: last::Own,
}

thread_local! {
    static TOLD: RefCell<BTreeMap<&'static str, Told>> = const { RefCell::new(BTreeMap::new()) };
    static HOSTS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Begins a run with these hosts.
pub(crate) fn begin(hosts: Vec<&'static str>) {
    HOSTS.set(hosts);
    TOLD.take();
}

async fn until(moment: Duration) {
    if let Some(now) = turmoil::sim_elapsed() {
        tokio::time::sleep(moment.saturating_sub(now)).await;
    }
}

/// Lets a node take part in what every node does in the end. It stays as long as the run.
pub(crate) async fn of_node(mut living: Living) -> ! {
    until(CALLS_AT).await;
    let within = Duration::from_millis(500);
    let calls = HOSTS.with_borrow(Clone::clone).into_iter().flat_map(|host| {
        let actions =
            [format!("who-{host}"), format!("work-{host}"), format!("back-{host}"), "work".to_owned()];
        actions.map(|action| {
            let call = journal::asked(living.life, format_args!("{action}, in the end"), within);
            let calling = match &*action {
                who if who.starts_with("who") => living.node.call::<u64>(who, call),
                work if work.starts_with("work") => living.node.call(work, plain_task(call)),
                back => living.node.call(back, (plain_task(call), function(living.life, call))),
            };
            let calling = calling.within(within);
            async move {
                let outcome = calling.await;
                // Some providers of `work` have a bound.
                if let Err(error) = &outcome
                    && error.code() != Code::OVERLOADED
                {
                    journal::wrong(format!("{action} is not answered in the end: {error}"));
                }
                journal::ended(call, outcome);
            }
        })
    });
    let hosts = HOSTS.with_borrow(Clone::clone);
    let streams = hosts.into_iter().map(|host| streams::in_the_end(&living, host));
    let (calls, streams) = (futures::future::join_all(calls), futures::future::join_all(streams));
    futures::join!(calls, streams, asks_all(&living.node, within));
    for _ in 0..NEWS_IN_THE_END {
        living.publish_news("news/a").await;
        living.shout_one().await;
    }
    for _ in 0..NEWS_IN_THE_END {
        living.publish_note().await;
    }
    living.keep_last("last/end", false).await;
    until(TELLS_AT).await;
    match tell(&living).await {
        Ok(told) => {
            TOLD.with_borrow_mut(|all| all.insert(living.host, told));
        }
        Err(error) => journal::wrong(format!("{} tells nothing in the end: {error}", living.host)),
    }
    loop {
        std::future::pending::<()>().await;
    }
}

/// Asks every node whether it is here: each answers once, under its name.
async fn asks_all(node: &Node, within: Duration) {
    let (mut here, mut answers) = (Vec::new(), node.call_all::<String>("here", ()).within(within));
    while let Some(answered) = answers.next().await {
        match answered.outcome {
            Ok(host) if host == *answered.node => here.push(host),
            outcome => journal::wrong(format!("{:?} answers all in the end: {outcome:?}", answered.node)),
        }
    }
    here.sort();
    let mut hosts = HOSTS.with_borrow(Clone::clone);
    hosts.sort_unstable();
    if here != hosts {
        journal::wrong(format!("a call of all has asked {here:?} in the end, not {hosts:?}"));
    }
}

async fn tell(living: &Living) -> Result<Told, Box<dyn std::error::Error>> {
    let node = &living.node;
    let nodes = node.nodes().await?;
    let count = nodes.len();
    let nodes = nodes.into_iter().map(|news| {
        (news.node.to_string(), news.actions.iter().map(|(action, _)| action.to_string()).collect())
    });
    let described =
        node.describe("**").await?.into_iter().map(|action| {
            (action.action.to_string(), action.nodes.iter().map(ToString::to_string).collect())
        });
    let fresh = last::fresh(node).await?;
    let heard = lock(&living.last).clone();
    Ok(Told {
        life: living.life,
        ear: living.ear,
        notes: living.notes,
        shouts: living.shouts,
        told: {
            let mut told: Vec<_> = lock(&living.told).values().cloned().collect();
            told.sort();
            told
        },
        nodes: nodes.collect(),
        count,
        described: described.collect(),
        fresh,
        heard,
        own_last: living.own_last,
        snapshot: node.snapshot().await?,
        census: match &living.role {
            Role::Master(master) => master.send(TakeCensus).await?,
            Role::Branch(branch) => branch.addr().send(TakeCensus).await?,
        },
    })
}

/// All that the nodes do not agree on, and all that they have and should not.
pub(crate) fn judge() -> Vec<String> {
    let told = TOLD.take();
    let hosts: BTreeSet<&str> = HOSTS.take().into_iter().collect();
    let mut wrong = Vec::new();
    for host in &hosts {
        if !told.contains_key(host) {
            wrong.push(format!("{host} told nothing in the end"));
        }
    }
    let Some(hub) = told.get(HUB).filter(|_| wrong.is_empty()) else {
        return wrong;
    };
    if !hub.fresh.contains_key("last/end") {
        wrong.push(format!("nobody hears what all have published last: {:?}", hub.fresh));
    }
    for (host, of_host) in &told {
        let mut differ = |what: &str, one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
            let (one, other) = (format!("{one:?}"), format!("{other:?}"));
            if one != other {
                wrong.push(format!("{host}: {what}: {one}, not {other}"));
            }
        };
        let others: BTreeSet<&str> = of_host.nodes.keys().map(String::as_str).collect();
        let expected: BTreeSet<&str> = hosts.iter().copied().filter(|other| other != host).collect();
        differ("the nodes that it knows", &others, &expected);
        differ("how many nodes it knows", &of_host.count, &expected.len());
        differ("the nodes that it was told of", &of_host.told, &expected.iter().collect::<Vec<_>>());
        differ("the actions that it describes", &of_host.described, &hub.described);
        for (other, actions) in &of_host.nodes {
            let described: BTreeSet<_> =
                hub.described.iter().filter(|it| it.1.contains(other)).map(|it| it.0.clone()).collect();
            differ(&format!("the actions of {other} that it knows"), actions, &described);
        }
        if let Some(disagreed) = last::judge_own(host, of_host.life, of_host.own_last, &hub.fresh) {
            differ("its own last value", &disagreed, &"");
        }
        for disagreed in last::judge(host, &of_host.fresh, &of_host.heard, &hub.fresh) {
            differ("last values", &disagreed, &"");
        }
        let own = hub.described.values().filter(|nodes| nodes.contains(*host)).count();
        differ("its own actions", &of_host.snapshot.own_actions, &own);
        let Snapshot {
            calls_in_flight, calls_waiting, answering, callbacks_lent, callbacks_borrowed, ..
        } = of_host.snapshot;
        let left = [calls_in_flight, calls_waiting, answering, callbacks_lent, callbacks_borrowed];
        differ("calls in flight, waiting, being answered, functions lent, borrowed", &left, &[0; 5]);
        differ("what it has at rest", &of_host.census.passing, &BTreeMap::<String, usize>::new());
        for (other, of_other) in &told {
            let heard = journal::heard_late(of_host.ear, "news", of_other.life);
            if heard != NEWS_IN_THE_END {
                wrong.push(format!("{host} has heard {heard} news of {other} in the end"));
            }
            let heard = journal::heard_late(of_host.notes, "note", of_other.life);
            if heard != NEWS_IN_THE_END {
                wrong.push(format!("{host} has heard {heard} notes of {other} in the end"));
            }
            let heard = journal::heard_late(of_host.shouts, "shout", of_other.life);
            if heard != if host == other { 0 } else { NEWS_IN_THE_END } {
                wrong.push(format!("{host} has heard {heard} broadcasts of {other} in the end"));
            }
        }
        let heard = journal::heard_late_by("readers", of_host.life);
        if heard != NEWS_IN_THE_END {
            wrong.push(format!("the group of the readers has heard {heard} news of {host} in the end"));
        }
    }
    let branches: BTreeSet<&str> = hosts.iter().copied().filter(|host| *host != HUB).collect();
    let sessions: Vec<&str> = hub.snapshot.sessions.iter().map(|session| &*session.name).collect();
    let mut differ = |what: &str, one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
        let (one, other) = (format!("{one:?}"), format!("{other:?}"));
        if one != other {
            wrong.push(format!("{HUB}: {what}: {one}, not {other}"));
        }
    };
    differ("its sessions", &sessions, &branches.iter().copied().collect::<Vec<_>>());
    for session in &hub.snapshot.sessions {
        let own = told.get(&*session.name).map_or(0, |told| told.snapshot.own_actions);
        differ(&format!("the actions of {}", session.name), &session.actions, &own);
        differ(&format!("whether {} drains", session.name), &session.draining, &false);
    }
    let lasting = |host: &str, table: &str| {
        told.get(host).and_then(|told| told.census.lasting.get(table)).copied().unwrap_or_default()
    };
    // What every node knows of the others, and not what the registry describes.
    let offered: BTreeMap<&String, &BTreeSet<String>> = told.values().flat_map(|told| &told.nodes).collect();
    let actions: BTreeSet<&String> = offered.values().copied().flatten().collect();
    let providers: usize =
        branches.iter().filter_map(|branch| told.get(branch)).map(|told| told.snapshot.own_actions).sum();
    let of_branches: usize = branches.iter().map(|branch| lasting(branch, "subscription keys")).sum();
    let expected = [
        ("sessions", branches.len()),
        ("registry: nodes", branches.len()),
        ("registry: names", branches.len()),
        ("registry: actions", actions.len()),
        ("registry: providers", providers),
        ("router: branches", branches.len()),
        ("router: subscriptions of branches", of_branches),
        ("router: subscriptions in all", of_branches + lasting(HUB, "router: keys of the master")),
    ];
    for (table, count) in expected {
        differ(table, &lasting(HUB, table), &count);
    }
    wrong
}

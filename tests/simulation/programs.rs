//! What the nodes of a simulated mesh do until the faults end: they bind, call, read streams, pass functions, publish, subscribe, offer more and less, drain
//! and come back. Each decision is drawn from the chance of the host, which follows from the seed. After the faults every host stays as it
//! is, and `agreement.rs` looks at it.

use crate::agreement;
use crate::blocking;
use crate::journal::{self, FUNCTION, Finish, Life, is_healthy};
use crate::last;
use crate::layers;
use crate::links::{PORT, SimulatedAccept, SimulatedDial};
use crate::streams;
use meshwork::limits::IN_FLIGHT_MAX;
use meshwork::prelude::*;
use meshwork::{Balance, Change, Headers, OnNameTaken};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The host of the master.
pub(crate) const HUB: &str = "hub";

/// The hosts of the branches, of which a seed takes the first few.
pub(crate) const BRANCHES: [&str; 5] = ["ant", "bee", "cat", "dog", "elk"];

/// When the faults end, and the nodes begin nothing new.
pub(crate) const FAULTS_UNTIL: Duration = Duration::from_millis(2500);

/// From then on the nodes do what they do in the end: nothing that was begun before is still going on.
pub(crate) const QUIET_FROM: Duration = FAULTS_UNTIL.saturating_add(Duration::from_millis(1900));

/// How often a branch sends a heartbeat: a link is given up after three times as long.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// How long a drain may take where nothing is lost: longer than any call.
const DRAINS_WITHIN: Duration = Duration::from_secs(5);

/// How many requests may be in flight on one connection, in some runs: more than every node makes in the end.
const FEW_IN_FLIGHT: usize = 40;

/// What the panics of responders and handlers say that are part of the program.
pub(crate) const PLANNED: &str = "a panic that the simulation asked for";

type Simulated = Result<(), Box<dyn std::error::Error>>;

/// The arguments of a call: its number, and what its responder does.
#[derive(Clone, Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, ActionError>")]
pub(crate) struct Task {
    call: u64,
    does: Does,
    /// Makes some frames long: as many letters as `filled` says.
    filling: String,
    filled: usize,
}

impl Task {
    pub(crate) fn call(&self) -> u64 {
        self.call
    }

    /// Whether its responder is to fail.
    pub(crate) fn fails(&self) -> bool {
        matches!(self.does, Does::Fail | Does::FailAfter(_))
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Does {
    Reply,
    ReplyAfter(u64),
    Fail,
    FailAfter(u64),
    Panic,
    PanicAfter(u64),
    Never,
    /// Calls `work` itself before it replies.
    CallOn,
}

/// An event: the life of its publisher, and its number among the events of that life.
type News = (Life, u64);

thread_local! {
    /// The nodes by their lives, for responders that call.
    static NODES: RefCell<BTreeMap<Life, Node>> = const { RefCell::new(BTreeMap::new()) };
}

/// Forgets the nodes of a run.
pub(crate) fn forget_nodes() {
    NODES.take();
}

/// A set of methods, which travel by position between equal ends.
#[meshwork::actions(prefix = "typed")]
pub(crate) trait Typed {
    async fn typed(&self, task: Task, context: CallContext) -> Result<u64, ActionError>;
}

struct TypedResponder(Life);

impl Typed for TypedResponder {
    async fn typed(&self, task: Task, context: CallContext) -> Result<u64, ActionError> {
        respond(self.0, task, context).await
    }
}

/// The label of a host.
fn version_of(host: &str) -> &'static str {
    match host {
        "bee" | "dog" => "2",
        _ => "1",
    }
}

/// Answers a call, in this life.
async fn respond(life: Life, task: Task, context: CallContext) -> Result<u64, ActionError> {
    let Task { call, does, filling, filled } = task;
    journal::ran(call, life);
    journal::came(call, context.caller(), context.time_left());
    if let Some(label) = context.headers().get(Headers::LABEL) {
        let host = journal::host_of(life);
        if label != format!("version={}", version_of(host)) {
            journal::wrong(format!("call {call}, for a node with {label}, ran at {host}"));
        }
    }
    if filling.len() != filled || filling.bytes().any(|letter| letter != b'x') {
        journal::wrong(format!("the arguments of call {call} are not what was passed"));
    }
    let fail = || {
        journal::finished(call, Finish::Failed);
        Err(ActionError::new("Planned", "the call asked for it"))
    };
    match does {
        Does::Reply => {}
        Does::ReplyAfter(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Does::Fail => return fail(),
        Does::FailAfter(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            return fail();
        }
        Does::Panic => {
            journal::finished(call, Finish::Failed);
            panic!("{PLANNED}");
        }
        Does::PanicAfter(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            journal::finished(call, Finish::Failed);
            panic!("{PLANNED}");
        }
        Does::Never => std::future::pending().await,
        Does::CallOn => {
            let node = NODES.with_borrow(|nodes| nodes.get(&life).cloned());
            if let Some(node) = node {
                let within = Duration::from_millis(400);
                let further = journal::asked(life, "work, for another call", within);
                let task = Task { call: further, does: Does::Reply, filling: String::new(), filled: 0 };
                let ends = EndsOrDrops(further);
                journal::ended(further, node.call("work", task).within(within).await);
                std::mem::forget(ends);
            }
        }
    }
    journal::finished(call, Finish::Replied);
    Ok(journal::reply_to(call))
}

/// Notes that a call was dropped, unless it is forgotten before.
struct EndsOrDrops(u64);

impl Drop for EndsOrDrops {
    fn drop(&mut self) {
        journal::dropped(self.0);
    }
}

/// A function of this life, for the arguments of a call.
pub(crate) fn function(life: Life, call: u64) -> Callback<u64, u64> {
    let token = journal::function(call);
    Callback::new(move |invoked: u64| {
        let _held = &token;
        journal::ran(invoked, life);
        journal::finished(invoked, Finish::Replied);
        journal::reply_to(invoked)
    })
}

/// The arguments of a call that replies at once, after a call of its function if it has one.
pub(crate) fn plain_task(call: u64) -> Task {
    Task { call, does: Does::Reply, filling: String::new(), filled: 0 }
}

/// Answers a call by calling the function that came with it.
async fn call_back(life: Life, task: Task, function: Callback<u64, u64>) -> Result<u64, ActionError> {
    let call = task.call;
    journal::ran(call, life);
    let (times, holds) = match task.does {
        Does::ReplyAfter(ms) => (1 + ms % 4, ms),
        _ => (1, 0),
    };
    for _ in 0..times {
        invoke(life, call, &function).await;
    }
    if holds > 20 {
        // The function lives on behind the reply.
        actix_rt::spawn(async move {
            tokio::time::sleep(Duration::from_millis(holds)).await;
            invoke(life, call, &function).await;
        });
    }
    journal::finished(call, Finish::Replied);
    Ok(journal::reply_to(call))
}

/// Calls a function once: that is a call of its own.
async fn invoke(life: Life, call: u64, function: &Callback<u64, u64>) {
    let within = Duration::from_millis(300);
    let invoked = journal::asked(life, format_args!("{FUNCTION} {call}"), within);
    let ends = EndsOrDrops(invoked);
    journal::ended(invoked, function.call(invoked).within(within).await);
    std::mem::forget(ends);
}

/// An actor that answers calls and hears events until it is asked to panic.
struct Moody {
    life: Life,
    handler: u32,
}

impl Actor for Moody {
    type Context = Context<Self>;
}

impl Handler<Task> for Moody {
    type Result = Result<u64, ActionError>;

    fn handle(&mut self, task: Task, _: &mut Context<Self>) -> Self::Result {
        journal::ran(task.call, self.life);
        match task.does {
            Does::Fail | Does::FailAfter(_) => {
                journal::finished(task.call, Finish::Failed);
                Err(ActionError::new("Planned", "the call asked for it"))
            }
            Does::Panic | Does::PanicAfter(_) => {
                journal::finished(task.call, Finish::Failed);
                panic!("{PLANNED}");
            }
            _ => {
                journal::finished(task.call, Finish::Replied);
                Ok(journal::reply_to(task.call))
            }
        }
    }
}

impl Handler<Event<News>> for Moody {
    type Result = ();

    fn handle(&mut self, event: Event<News>, _: &mut Context<Self>) {
        journal::heard(self.handler, Some("moods"), "news", &event.publisher, event.value);
        let is_late = turmoil::sim_elapsed().is_none_or(|now| now >= FAULTS_UNTIL);
        if event.value.1 % 97 == 96 && !is_late {
            panic!("{PLANNED}");
        }
    }
}

/// The responders of a node that answer from its start.
fn responders(host: &'static str, life: Life) -> Responders {
    let mut responders = Responders::new()
        .respond(format!("who-{host}"), move |call: u64| async move {
            journal::ran(call, life);
            journal::finished(call, Finish::Replied);
            Ok(journal::reply_to(call))
        })
        .respond("here", move |(): ()| async move { Ok(host.to_owned()) })
        .respond(format!("work-{host}"), move |task: Task, context: CallContext| respond(life, task, context))
        .respond(format!("back-{host}"), move |(task, function): (Task, Callback<u64, u64>)| {
            call_back(life, task, function)
        })
        .respond_blocking(format!("block-{host}"), blocking::work(life));
    responders = streams::responders(responders, life, &format!("stream-{host}"), &format!("feed-{host}"));
    // The master would answer these alone, since its own actions come first.
    if host != HUB {
        responders = responders
            .respond("work", move |task: Task, context: CallContext| respond(life, task, context))
            .respond("back", move |(task, function): (Task, Callback<u64, u64>)| {
                call_back(life, task, function)
            })
            .respond_blocking("block", blocking::work(life));
        responders = streams::responders(responders, life, "stream", "feed");
    }
    if host == "bee" || host == "cat" {
        responders = responders.permits_with_queue("work", 2, 1);
    }
    responders
}

/// A handler of events, with its number.
fn ear(
    group: Option<&'static str>,
    kind: &'static str,
) -> (u32, impl Fn(Event<News>) + Send + Sync + 'static) {
    let handler = journal::handler();
    (handler, move |event: Event<News>| journal::heard(handler, group, kind, &event.publisher, event.value))
}

/// Follows the nodes that come and go.
fn follow(told: &Mutex<BTreeMap<u64, String>>, change: &Change) {
    let news = change.news();
    match change {
        Change::Online(_) if news.whole => drop(lock(told).insert(news.session.0, news.node.to_string())),
        Change::Offline(_) if news.whole => drop(lock(told).remove(&news.session.0)),
        _ => {}
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a node is in its mesh.
pub(crate) enum Role {
    Master(Addr<MasterActor>),
    Branch(Branch),
}

/// A node that lives, and what it has done so far.
pub(crate) struct Living {
    pub(crate) host: &'static str,
    pub(crate) life: Life,
    pub(crate) node: Node,
    pub(crate) role: Role,
    published: u64,
    noted: u64,
    shouted: u64,
    /// How many last values it has published or forgotten.
    pub(crate) kept_last: u64,
    pub(crate) own_last: last::Own,
    /// The last values that it has heard.
    pub(crate) last: Arc<Mutex<last::Values>>,
    /// The handler of all news, which stays.
    pub(crate) ear: u32,
    /// The handler of all notes, and the handler of all broadcasts.
    pub(crate) notes: u32,
    pub(crate) shouts: u32,
    /// The other nodes, as the node was told of them.
    pub(crate) told: Arc<Mutex<BTreeMap<u64, String>>>,
    kept: Vec<Subscription>,
    subscriptions: Vec<Subscription>,
    extra: u32,
}

/// How a node goes on when it has no more to do.
enum Course {
    /// The faults have ended.
    Stays,
    /// The node has ended.
    Ended,
}

impl Living {
    async fn begin(host: &'static str, life: Life, node: Node, role: Role) -> Result<Self, CallError> {
        NODES.with_borrow_mut(|nodes| nodes.insert(life, node.clone()));
        let (ear, handler) = ear(None, "news");
        let mut living = Self {
            host,
            life,
            node,
            role,
            published: 0,
            noted: 0,
            shouted: 0,
            kept_last: 0,
            own_last: last::Own::default(),
            last: Arc::default(),
            ear,
            notes: 0,
            shouts: 0,
            told: Arc::default(),
            kept: Vec::new(),
            subscriptions: Vec::new(),
            extra: 0,
        };
        living.kept.push(living.node.subscribe("news/*", handler).await?);
        let told = Arc::clone(&living.told);
        living.node.on_change(move |change| follow(&told, change)).await?;
        for news in living.node.nodes().await? {
            lock(&living.told).insert(news.session.0, news.node.to_string());
        }
        let (shouts, handler) = self::ear(None, "shout");
        living.shouts = shouts;
        living.kept.push(living.node.on_broadcast("shout/**", handler).await?);
        let (notes, handler) = self::ear(None, "note");
        living.notes = notes;
        living.kept.push(living.node.subscribe("notes", handler).await?);
        let last = last::ear(&living.last);
        living.kept.push(living.node.subscribe(last::TOPICS, last).await?);
        let (_, handler) = self::ear(Some("readers"), "news");
        living.kept.push(living.node.subscribe_group("readers", "news/*", handler).await?);
        let moody = Moody { life, handler: journal::handler() }.start();
        let answers =
            Responders::new().respond_with(format!("moody-{host}"), moody.clone().recipient::<Task>());
        living.node.respond(answers).await?;
        if host != HUB {
            let answers = Responders::new().respond_with("moody", moody.clone().recipient::<Task>());
            living.node.respond(answers).await?;
        }
        let moods = moody.recipient::<Event<News>>();
        living.kept.push(living.node.subscribe_group("moods", "news/*", moods).await?);
        Ok(living)
    }

    /// Does one thing after another until the faults end, or the node does.
    async fn act(&mut self, chance: &mut fastrand::Rng) -> Course {
        loop {
            if turmoil::sim_elapsed().is_none_or(|now| now >= FAULTS_UNTIL) {
                return Course::Stays;
            }
            tokio::time::sleep(Duration::from_millis(chance.u64(0..50))).await;
            match chance.u32(0..100) {
                0..=41 => self.call(chance),
                42..=46 => streams::read(self, chance.choice(&ALL).unwrap_or(&HUB), chance),
                47..=49 => streams::feed(self, chance.choice(&ALL).unwrap_or(&HUB), chance),
                50..=56 => self.call_many(chance),
                57..=66 => self.pass_function(chance),
                67..=80 => self.publish(chance).await,
                81..=84 => self.shout(chance).await,
                85..=88 => self.subscribe(chance).await,
                89..=91 => drop((!self.subscriptions.is_empty()).then(|| self.subscriptions.swap_remove(0))),
                92..=94 => self.offer(chance).await,
                95..=96 => self.look(chance).await,
                97 if chance.u32(0..3) == 0 => {
                    let within =
                        if is_healthy() { DRAINS_WITHIN } else { Duration::from_millis(chance.u64(0..500)) };
                    journal::note(format_args!("life {} drains within {within:?}", self.life));
                    let status = self.node.status().await.map(|status| status.borrow().clone());
                    if matches!(status, Ok(meshwork::Status::Rebinding)) {
                        journal::note_unbound_end();
                    }
                    let drained = self.node.drain(within).await;
                    journal::note(format_args!("life {} has drained: {drained:?}", self.life));
                    return Course::Ended;
                }
                98 => self.keep_own_last().await,
                99 => {
                    let topic = *chance.choice(&["last/a", "last/b", "last/c"]).unwrap_or(&"last/a");
                    self.keep_last(topic, chance.u32(0..4) == 0).await;
                }
                _ => {}
            }
            let is_closed = match self.node.status().await {
                Ok(status) => matches!(*status.borrow(), meshwork::Status::Closed(_)),
                Err(_) => true,
            };
            if is_closed {
                return Course::Ended;
            }
        }
    }

    fn task(&self, chance: &mut fastrand::Rng, call: u64, does: Does) -> Task {
        let len = if chance.u32(0..20) == 0 { chance.usize(0..60_000) } else { 0 };
        Task { call, does, filling: "x".repeat(len), filled: len }
    }

    /// Makes a call, and drops it perhaps before it has ended.
    fn call(&self, chance: &mut fastrand::Rng) {
        let host = *chance.choice(&ALL).unwrap_or(&HUB);
        let action = match chance.u32(0..23) {
            0..=7 => "work".to_owned(),
            8..=12 => format!("work-{host}"),
            13 => format!("work-{}", self.host),
            14..=15 => format!("moody-{host}"),
            16 => "moody".to_owned(),
            17 => format!("extra-{host}-{}", chance.u32(0..3)),
            18 => "typed/typed".to_owned(),
            19..=20 => "block".to_owned(),
            21 => format!("block-{host}"),
            _ => "nobody".to_owned(),
        };
        let ms = chance.u64(0..300);
        let does = match chance.u32(0..20) {
            0..=6 => Does::Reply,
            7..=11 => Does::ReplyAfter(ms),
            12 => Does::Fail,
            13..=14 => Does::FailAfter(ms),
            15 => Does::Panic,
            16 => Does::PanicAfter(ms),
            17 => Does::Never,
            _ => Does::CallOn,
        };
        let within = match chance.u32(0..6) {
            // Nothing but its reply, or the end of a link or a node, ends this call.
            0..=1 if !matches!(does, Does::Never) => Duration::MAX,
            0..=3 => Duration::from_millis(chance.u64(1..200)),
            _ => Duration::from_millis(chance.u64(200..900)),
        };
        let call = journal::asked(self.life, format_args!("{action} {does:?}"), within);
        let task = self.task(chance, call, does);
        let drops_after = (chance.u32(0..5) == 0).then(|| Duration::from_millis(chance.u64(0..200)));
        let calling: futures::future::LocalBoxFuture<'static, Result<u64, CallError>> = match &self.role {
            Role::Branch(branch) if chance.u32(0..8) == 0 => {
                let sent = branch.addr().send(Call::<u64>::new(action, task).within(within));
                Box::pin(async move {
                    sent.await
                        .unwrap_or_else(|_| Err(CallError::new(Code::LINK_LOST, Fate::NotSent, "ended")))
                })
            }
            _ if action == "typed/typed" => {
                let typed = TypedRequester::new(&self.node);
                Box::pin(async move { typed.typed(task).within(within).await })
            }
            _ => {
                let mut calling = self.node.call::<u64>(action, task).within(within);
                if chance.u32(0..10) == 0 {
                    calling = calling.on(host);
                }
                if chance.u32(0..10) == 0 {
                    calling = calling.fail_when_down();
                }
                if chance.u32(0..6) == 0 {
                    calling = calling.key(chance.u32(0..10));
                }
                if chance.u32(0..8) == 0 {
                    calling = calling.label("version", *chance.choice(&["1", "2", "3"]).unwrap_or(&"1"));
                }
                Box::pin(calling)
            }
        };
        actix_rt::spawn(async move {
            let Some(after) = drops_after else { return journal::ended(call, calling.await) };
            tokio::select! {
                biased;
                outcome = calling => journal::ended(call, outcome),
                () = tokio::time::sleep(after) => journal::dropped(call),
            }
        });
    }

    fn call_many(&self, chance: &mut fastrand::Rng) {
        let within = Duration::from_secs(10);
        let tasks: Vec<_> = (0..chance.usize(1..30))
            .map(|_| {
                let ms = chance.u64(0..100);
                let does = if chance.u32(0..4) == 0 { Does::ReplyAfter(ms) } else { Does::Reply };
                let call = journal::asked(self.life, format_args!("one of many {does:?}"), within);
                self.task(chance, call, does)
            })
            .collect();
        let node = self.node.clone();
        let is_dropped = chance.u32(0..6) == 0;
        let after = Duration::from_millis(chance.u64(0..100));
        let calls: Vec<_> = tasks.iter().map(|task| task.call).collect();
        actix_rt::spawn(async move {
            let calling = node.call_many::<u64>("work", tasks);
            if is_dropped {
                tokio::select! {
                    biased;
                    outcomes = calling => calls.iter().zip(outcomes).for_each(|(call, it)| journal::ended(*call, it)),
                    () = tokio::time::sleep(after) => calls.iter().for_each(|call| journal::dropped(*call)),
                }
            } else {
                calls.iter().zip(calling.await).for_each(|(call, it)| journal::ended(*call, it));
            }
        });
    }

    /// Calls with a function as an argument.
    fn pass_function(&self, chance: &mut fastrand::Rng) {
        let host = *chance.choice(&ALL).unwrap_or(&HUB);
        let action = if chance.bool() { "back".to_owned() } else { format!("back-{host}") };
        let does = Does::ReplyAfter(chance.u64(0..120));
        let within = if chance.bool() { Duration::MAX } else { Duration::from_millis(chance.u64(50..900)) };
        let call = journal::asked(self.life, format_args!("{action} with a function"), within);
        let function = function(self.life, call);
        let task = self.task(chance, call, does);
        let calling = self.node.call::<u64>(action, (task, function)).within(within);
        let drops_after = (chance.u32(0..6) == 0).then(|| Duration::from_millis(chance.u64(0..100)));
        actix_rt::spawn(async move {
            let Some(after) = drops_after else { return journal::ended(call, calling.await) };
            tokio::select! {
                biased;
                outcome = calling => journal::ended(call, outcome),
                () = tokio::time::sleep(after) => journal::dropped(call),
            }
        });
    }

    /// Publishes some news, or notes, in a row.
    async fn publish(&mut self, chance: &mut fastrand::Rng) {
        let are_notes = chance.bool();
        for _ in 0..chance.u32(1..20) {
            match are_notes {
                true => self.publish_note().await,
                false => self.publish_news(if chance.bool() { "news/a" } else { "news/b" }).await,
            }
        }
    }

    /// Publishes one piece of news, which plain subscribers hear, and groups.
    pub(crate) async fn publish_news(&mut self, topic: &'static str) {
        self.published += 1;
        let (life, number) = (self.life, self.published);
        match self.node.publish(topic, &(life, number)).await {
            Ok(()) => journal::note(format_args!("life {life} publishes {number}")),
            Err(error) => journal::unsent("news", life, number, &error),
        }
    }

    /// Publishes one note, which only plain subscribers hear: the notes of a block travel as one.
    pub(crate) async fn publish_note(&mut self) {
        self.noted += 1;
        let (life, number) = (self.life, self.noted);
        match self.node.publish("notes", &(life, number)).await {
            Ok(()) => journal::note(format_args!("life {life} publishes note {number}")),
            Err(error) => journal::unsent("note", life, number, &error),
        }
    }

    async fn shout(&mut self, chance: &mut fastrand::Rng) {
        for _ in 0..chance.u32(1..4) {
            self.shout_one().await;
        }
    }

    /// Broadcasts once.
    pub(crate) async fn shout_one(&mut self) {
        self.shouted += 1;
        let (life, number) = (self.life, self.shouted);
        match self.node.broadcast("shout/all", &(life, number)).await {
            Ok(()) => journal::note(format_args!("life {life} shouts {number}")),
            Err(error) => journal::unsent("shout", life, number, &error),
        }
    }

    async fn subscribe(&mut self, chance: &mut fastrand::Rng) {
        let soon = Duration::from_millis(300);
        let (pattern, group) = *chance
            .choice(&[
                ("news/a", None),
                ("news/**", None),
                ("news/*", Some("readers")),
                ("news/b", Some("others")),
                ("news/**", Some("others")),
            ])
            .unwrap_or(&("news/a", None));
        let (_, handler) = ear(group, "news");
        let node = self.node.clone();
        let subscribing = async move {
            match group {
                Some(group) => node.subscribe_group(group, pattern, handler).await,
                None => node.subscribe(pattern, handler).await,
            }
        };
        if let Ok(Ok(subscription)) = tokio::time::timeout(soon, subscribing).await {
            self.subscriptions.push(subscription);
        }
    }

    /// Offers one action more, or one less.
    async fn offer(&mut self, chance: &mut fastrand::Rng) {
        let (life, host) = (self.life, self.host);
        let soon = Duration::from_millis(300);
        let number = chance.u32(0..3);
        let action = format!("extra-{host}-{number}");
        if self.extra & 1 << number == 0 {
            let answers = Responders::new()
                .respond(action, move |task: Task, context: CallContext| respond(life, task, context));
            let offering = tokio::time::timeout(soon, self.node.respond(answers)).await;
            journal::note(format_args!("life {life} offers extra {number}: {offering:?}"));
        } else {
            let withdrawing = tokio::time::timeout(soon, self.node.withdraw([action])).await;
            journal::note(format_args!("life {life} withdraws extra {number}: {withdrawing:?}"));
        }
        self.extra ^= 1 << number;
    }

    /// Asks what there is.
    async fn look(&mut self, chance: &mut fastrand::Rng) {
        let soon = Duration::from_millis(200);
        match chance.u32(0..4) {
            0 => drop(tokio::time::timeout(soon, self.node.describe("**")).await),
            1 => drop(tokio::time::timeout(soon, self.node.snapshot()).await),
            2 => drop(self.node.wait_for("who-bee", soon).await),
            _ => drop(self.node.nodes().await),
        }
    }
}

/// All hosts.
const ALL: [&str; 6] = [HUB, "ant", "bee", "cat", "dog", "elk"];

/// The chance of a host in its `start`th start.
fn chance_of(seed: u64, host: &'static str, start: u32) -> fastrand::Rng {
    let host = ALL.iter().position(|it| *it == host).unwrap_or_default() as u64;
    fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(start) * 101 + host))
}

/// The program of the host of the master: a master after the other.
pub(crate) async fn run_master(seed: u64, start: u32) -> Simulated {
    let mut chance = chance_of(seed, HUB, start);
    loop {
        let listener = SimulatedAccept::listen(HUB).await?;
        let life = journal::live(HUB);
        let balances = [Balance::RoundRobin, Balance::Random, Balance::LeastInFlight];
        let taken = [OnNameTaken::Refuse, OnNameTaken::Replace, OnNameTaken::Share];
        let now = turmoil::sim_elapsed().unwrap_or_default().as_micros() as u64;
        let master = MasterActor::new(HUB)
            .era(now)
            .heartbeat(HEARTBEAT)
            .balance(*chance.choice(&balances).unwrap_or(&Balance::RoundRobin))
            .on_name_taken(*chance.choice(&taken).unwrap_or(&OnNameTaken::Refuse))
            .limits(blocking::limits(2))
            .in_flight_max(if chance.u32(0..4) == 0 { FEW_IN_FLIGHT } else { IN_FLIGHT_MAX })
            .label("version", version_of(HUB))
            .bind_within(Duration::from_millis(400))
            .respond_all(responders(HUB, life));
        let master =
            if chance.u32(0..3) == 0 { layers::around_requests(master, &mut chance) } else { master };
        let master = master.start();
        let node = Node::from(Master::from(&master));
        let mut living = Living::begin(HUB, life, node, Role::Master(master.clone())).await?;
        master.send(Listen::on(listener)).await??;
        match living.act(&mut chance).await {
            Course::Ended => tokio::time::sleep(Duration::from_millis(chance.u64(1..300))).await,
            Course::Stays => agreement::of_node(living).await,
        }
    }
}

/// The program of the host of a branch: a branch after the other.
pub(crate) async fn run_branch(host: &'static str, seed: u64, start: u32) -> Simulated {
    let mut chance = chance_of(seed, host, start);
    loop {
        let life = journal::live(host);
        let mut branch = BranchActor::new(host)
            .dial(SimulatedDial)
            .limits(blocking::limits(1))
            .bind_within(Duration::from_millis(400))
            .backoff(Duration::from_millis(20), Duration::from_millis(200))
            .wait_for_master(Duration::MAX)
            .respond_all(responders(host, life));
        if host == "ant" || host == "bee" {
            branch = branch.respond_all(TypedResponder(life).into_responders());
        }
        if chance.bool() {
            branch = branch.replace();
        }
        if chance.u32(0..3) > 0 {
            branch = branch.label("version", version_of(host));
        }
        if chance.u32(0..3) == 0 {
            branch = branch.weight(*chance.choice(&[0, 10, 1_000]).unwrap_or(&0));
        }
        if chance.u32(0..3) == 0 {
            branch = layers::around_calls(branch, &mut chance);
        }
        let branch = match branch.bind(format!("{HUB}:{PORT}")).await {
            Ok(branch) => branch,
            Err(error) => {
                journal::note(format_args!("life {life} cannot bind: {error}"));
                tokio::time::sleep(Duration::from_millis(chance.u64(1..200))).await;
                continue;
            }
        };
        journal::note(format_args!("life {life} is bound"));
        let node = Node::from(&branch);
        let mut living = match Living::begin(host, life, node, Role::Branch(branch)).await {
            Ok(living) => living,
            Err(error) => {
                journal::note(format_args!("life {life} has ended at its begin: {error}"));
                continue;
            }
        };
        match living.act(&mut chance).await {
            Course::Ended => tokio::time::sleep(Duration::from_millis(chance.u64(1..300))).await,
            Course::Stays => agreement::of_node(living).await,
        }
    }
}

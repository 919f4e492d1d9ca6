//! Blocking work: what responders do that block their thread or take long to compute. It runs on threads of its own, so that the arbiter of the
//! node goes on with heartbeats, replies and all other requests. How much runs at once, and how much waits, is bounded for each node.
//!
//! The threads are those of the runtime, which keeps them for the next work for a while. Work that has begun cannot be stopped: its caller may
//! go, but the work keeps its place, and a drain waits for it. Work whose caller has gone before it began never runs.

use super::action::{NoPermit, Permit, Permits};
use super::hops::{self, Answered};
use super::outlet::Outlet;
use super::responder::{Answer, CallContext, ContextRef, Replier, Responder, Work, claimed};
use futures::future::LocalBoxFuture;
use meshwork_wire::limits::{BLOCKING_MAX_MIN, BLOCKING_WAITING_MAX};
use meshwork_wire::{CallError, CallbackId, Code, Fate, Outcome, Payload};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Weak};
use std::thread::available_parallelism;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The blocking work of a node.
pub(crate) struct Blocking {
    turns: Arc<Permits>,
    /// How many pieces of work are running, those included whose callers have gone.
    running: watch::Sender<usize>,
}

/// A piece of work that is running: it counts until this is dropped.
struct Running(Arc<Blocking>);

impl Running {
    fn new(blocking: &Arc<Blocking>) -> Self {
        blocking.running.send_modify(|running| *running += 1);
        Self(Arc::clone(blocking))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

/// Takes back work that has not begun on its thread yet, when the future that waits for it is dropped.
struct TakenBack(AbortHandle);

impl Drop for TakenBack {
    fn drop(&mut self) {
        self.0.abort();
    }
}

thread_local! {
    /// The nodes whose requests are answered on this thread, by their numbers. Those that are gone are taken out when there are twice as many as
    /// there were nodes then.
    static NODES: RefCell<(BTreeMap<u64, Weak<Blocking>>, usize)> = const { RefCell::new((BTreeMap::new(), 8)) };
}

/// The blocking work of what answers no request of a node that is known here, such as a responder behind a buffer of tower, which calls it in a task
/// of its own: bounded as that of a node by default.
static ELSEWHERE: LazyLock<Arc<Blocking>> = LazyLock::new(|| {
    let max = available_parallelism().map_or(BLOCKING_MAX_MIN, |count| count.get().max(BLOCKING_MAX_MIN));
    Blocking::new(max, BLOCKING_WAITING_MAX)
});

/// Asks a responder whose reply is not gathered with others.
pub fn ask(
    responder: &dyn Responder,
    arguments: &Payload,
    context: &ContextRef<'_>,
) -> LocalBoxFuture<'static, Outcome> {
    let said = Cell::new(false);
    // Nothing is gathered here, so the number is not used, and no reply can be said.
    let reply = Replier::new(CallbackId(0), &said, None);
    outcome_of(responder.respond(arguments.into(), context, reply), context)
}

/// Asks a responder for a stream; the outcome is its end.
pub fn ask_for_stream(
    responder: &dyn Responder,
    arguments: &Payload,
    context: &ContextRef<'_>,
    outlet: Outlet,
) -> LocalBoxFuture<'static, Outcome> {
    outcome_of(responder.stream(arguments.into(), context, outlet), context)
}

fn outcome_of(answer: Answer, context: &CallContext) -> LocalBoxFuture<'static, Outcome> {
    match answer {
        Answer::Now(outcome) => Box::pin(std::future::ready(outcome)),
        Answer::Later(answer) => answer,
        Answer::Blocking(work) => {
            let answered = hops::now();
            let of_node =
                |node| NODES.try_with(|nodes| nodes.borrow().0.get(&node).and_then(Weak::upgrade)).ok();
            let of_node = answered.and_then(|answered| of_node(answered.node).flatten());
            let blocking = of_node.unwrap_or_else(|| Arc::clone(&ELSEWHERE));
            Box::pin(blocking.outcome(work, context.clone(), answered, Permit::unbounded()))
        }
        Answer::Said => Box::pin(std::future::ready(Err(claimed()))),
    }
}

impl Blocking {
    /// Lets [`ask`] and [`ask_for_stream`] find the blocking work of a node on this thread.
    pub(super) fn is_of(self: &Arc<Self>, node: u64) {
        let _ = NODES.try_with(|nodes| {
            let (by_node, most) = &mut *nodes.borrow_mut();
            by_node.insert(node, Arc::downgrade(self));
            if by_node.len() > *most {
                by_node.retain(|_, blocking| blocking.strong_count() > 0);
                *most = 2 * by_node.len().max(4);
            }
        });
    }

    /// Runs up to `max` pieces of work at once, at least one, and lets up to `waiting_max` wait.
    pub(crate) fn new(max: usize, waiting_max: usize) -> Arc<Self> {
        Arc::new(Self { turns: Permits::new(max.max(1), waiting_max), running: watch::Sender::new(0) })
    }

    /// How many pieces of work are running.
    pub(crate) fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Waits until no work is running.
    pub(crate) async fn idle(&self) {
        // The sender lives as long as this borrow.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Does the work of a request when it is the turn of its caller. The permit of the action is held until the work has ended, whether its
    /// caller has gone or not.
    pub(super) async fn outcome(
        self: Arc<Self>,
        work: Work,
        context: CallContext,
        answered: Option<Answered>,
        permit: Permit,
    ) -> Outcome {
        let turn = match self.turns.take(context.caller()) {
            Ok(turn) => turn,
            Err(NoPermit::Waits(waits)) => waits.permit().await,
            Err(NoPermit::Refused) => {
                let running = self.running();
                let what = format!("{running} pieces of blocking work are running, and as many wait as may");
                return Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what));
            }
        };
        #[cfg(feature = "testing")]
        let in_place = simulated::takes().await;
        if context.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            let what = "the deadline passed before the blocking work began";
            return Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::NotSent, what));
        }
        drop(context);
        let held = (Running::new(&self), turn, permit);
        let work = move || {
            let _held = held;
            match answered {
                Some(answered) => answered.during(work),
                None => work(),
            }
        };
        #[cfg(feature = "testing")]
        if in_place {
            return work();
        }
        let task = tokio::task::spawn_blocking(work);
        let _taken_back = TakenBack(task.abort_handle());
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                // The task that awaits this future makes the error of a panic.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(CallError::new(
                    Code::PROVIDER_LOST,
                    Fate::NotSent,
                    "the provider ends, and starts no work",
                )),
            },
        }
    }
}

/// Work in a simulation, where it runs on the thread of the simulation: when a thread of its own would end it does not follow from the seed.
#[cfg(feature = "testing")]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        static TAKES: Cell<Option<fn() -> Duration>> = const { Cell::new(None) };
    }

    /// Runs the blocking work of the nodes of this thread in place from now on, each piece when it has taken such a time; `None`: on threads of its
    /// own, as outside of a simulation.
    pub fn work_in_place(takes: Option<fn() -> Duration>) {
        TAKES.set(takes);
    }

    /// Waits as long as a piece of work takes; whether it runs in place.
    pub(super) async fn takes() -> bool {
        let Some(takes) = TAKES.get() else { return false };
        let takes = takes();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use meshwork_wire::{ByteString, Headers};
    use std::sync::mpsc;
    use std::time::Duration;

    fn from(caller: &'static str) -> CallContext {
        CallContext::new("a".into(), ByteString::from_static(caller), None, 0, Headers::none())
    }

    fn nothing() -> Work {
        Box::new(|| Ok(Payload::default()))
    }

    /// Work that says when it has begun, and goes on when it is told.
    fn held() -> (Work, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((begin, begun), (tell, told)) = (mpsc::channel(), mpsc::channel());
        let work = move || {
            begin.send(()).expect("the test waits");
            told.recv().expect("the test tells");
            Ok(Payload::default())
        };
        (Box::new(work), begun, tell)
    }

    fn start(blocking: &Arc<Blocking>, work: Work, context: CallContext) -> tokio::task::JoinHandle<Outcome> {
        actix_rt::spawn(Arc::clone(blocking).outcome(work, context, None, Permit::unbounded()))
    }

    #[actix_rt::test]
    async fn work_above_the_bound_waits_and_work_above_that_is_refused() {
        let blocking = Blocking::new(1, 2);
        let (work, begun, tell) = held();
        let first = start(&blocking, work, from("a"));
        tokio::task::yield_now().await;
        begun.recv().expect("it begins");
        let mut waiting: Vec<_> = (0..2).map(|_| start(&blocking, nothing(), from("b"))).collect();
        tokio::task::yield_now().await;
        let refused = start(&blocking, nothing(), from("c")).await.expect("no panic").expect_err("no room");
        assert_eq!((refused.code(), refused.fate()), (Code::OVERLOADED, Fate::NotSent));
        assert!(waiting.iter_mut().all(|task| task.now_or_never().is_none()) && blocking.running() == 1);
        tell.send(()).expect("it waits");
        assert!(first.await.expect("no panic").is_ok());
        for task in waiting {
            assert!(task.await.expect("no panic").is_ok());
        }
        blocking.idle().await;
    }

    #[actix_rt::test]
    async fn work_that_has_begun_keeps_its_place_when_its_caller_goes() {
        let blocking = Blocking::new(1, 8);
        let (work, begun, tell) = held();
        let first = start(&blocking, work, from("a"));
        tokio::task::yield_now().await;
        begun.recv().expect("it begins");
        first.abort();
        assert!(first.await.expect_err("it was cancelled").is_cancelled());
        let mut next = start(&blocking, nothing(), from("a"));
        tokio::task::yield_now().await;
        assert!((&mut next).now_or_never().is_none() && blocking.idle().now_or_never().is_none());
        tell.send(()).expect("it waits");
        assert!(next.await.expect("no panic").is_ok());
        blocking.idle().await;
    }

    #[actix_rt::test]
    async fn work_whose_caller_went_before_it_began_never_runs() {
        let blocking = Blocking::new(1, 8);
        let (work, begun, tell) = held();
        let first = start(&blocking, work, from("a"));
        tokio::task::yield_now().await;
        begun.recv().expect("it begins");
        let (run, ran) = mpsc::channel();
        let cancelled = start(
            &blocking,
            Box::new(move || {
                run.send(()).expect("the test looks");
                Ok(Payload::default())
            }),
            from("b"),
        );
        tokio::task::yield_now().await;
        cancelled.abort();
        tell.send(()).expect("it waits");
        assert!(first.await.expect("no panic").is_ok());
        assert!(start(&blocking, nothing(), from("c")).await.expect("no panic").is_ok());
        assert!(cancelled.await.is_err() && ran.recv().is_err());
    }

    #[actix_rt::test]
    async fn work_whose_deadline_has_passed_is_not_sent() {
        let blocking = Blocking::new(1, 8);
        let deadline = Some(Instant::now() - Duration::from_millis(1));
        let late = CallContext::new("a".into(), ByteString::new(), deadline, 0, Headers::none());
        let error = start(&blocking, nothing(), late).await.expect("no panic").expect_err("it is late");
        assert_eq!((error.code(), error.fate()), (Code::REQUEST_TIMEOUT, Fate::NotSent));
    }

    #[actix_rt::test]
    async fn a_panic_of_work_gives_its_place_back() {
        let blocking = Blocking::new(1, 8);
        for _ in 0..3 {
            let work = start(&blocking, Box::new(|| panic!("no")), from("a"));
            assert!(work.await.expect_err("it panics").is_panic());
        }
        assert!(start(&blocking, nothing(), from("a")).await.expect("no panic").is_ok());
        blocking.idle().await;
    }
}

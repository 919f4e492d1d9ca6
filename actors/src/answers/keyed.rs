//! Requests with an idempotency key, as they are answered: the first one runs, and the others get its outcome. `doubles.rs` decides.
//!
//! A run belongs to no link: it goes on when its caller gives up or its link is lost, since the caller may make the call again, and ends with the
//! node, or when an outcome would be forgotten.

use super::doubles::{Doubles, DoublesBounds, Seen, Ticket, Waits};
use super::reply_to::panicked;
use crate::hashed::HashMap;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use meshwork_wire::{CallError, Code, Fate, Outcome};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The requests with a key that a node runs, or whose outcomes it remembers. All links of the node share them.
pub(crate) struct Keyed {
    table: Mutex<Table>,
}

struct Table {
    doubles: Doubles<Waiter>,
    within: Duration,
    /// The tasks of the calls that run, by their numbers.
    runs: HashMap<u64, AbortHandle>,
}

/// A request that waits for the outcome of another one.
pub(crate) struct Waiter(oneshot::Sender<Outcome>);

impl Waits for Waiter {
    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// What becomes of a request with a key.
pub(crate) enum Asked {
    /// It is the first: it is to run.
    Runs(Run),
    /// It has this outcome.
    Had(Outcome),
    /// It gets the outcome of the one that runs.
    Waits(oneshot::Receiver<Outcome>),
    /// There is no room for one more that runs.
    Refused(CallError),
}

/// A call that is to run. Dropped before its outcome is told, it may have run in part, and that is what its doubles get.
pub(crate) struct Run {
    keyed: Weak<Keyed>,
    ticket: Ticket,
    within: Duration,
    is_told: bool,
    own: Option<oneshot::Sender<Outcome>>,
}

impl Keyed {
    pub(crate) fn new(bounds: DoublesBounds) -> Arc<Self> {
        let table = Table { doubles: Doubles::new(bounds), within: bounds.within, runs: HashMap::default() };
        Arc::new(Self { table: Mutex::new(table) })
    }

    /// Sets other bounds, before the node starts.
    pub(crate) fn set_bounds(&self, bounds: DoublesBounds) {
        let mut table = self.lock();
        (table.doubles, table.within) = (Doubles::new(bounds), bounds.within);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here leaves the table half-changed when it panics.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request with a key.
    pub(crate) fn ask(self: &Arc<Self>, caller: &str, action: &str, key: &str) -> Asked {
        let (tell, told) = oneshot::channel();
        let mut tell = Some(tell);
        let mut table = self.lock();
        let now = Instant::now().into_std();
        let waiter = || Waiter(tell.take().unwrap_or_else(|| oneshot::channel().0));
        match table.doubles.begin(caller, action, key, now, waiter) {
            Seen::First(ticket) => {
                let (keyed, within) = (Arc::downgrade(self), table.within);
                Asked::Runs(Run { keyed, ticket, within, is_told: false, own: None })
            }
            Seen::Waits => Asked::Waits(told),
            Seen::Had(outcome) => Asked::Had(outcome),
            Seen::Full => {
                let what = "as many calls with keys are running as may: others are to find room, too";
                Asked::Refused(CallError::new(Code::OVERLOADED, Fate::NotSent, what))
            }
        }
    }

    /// Ends all calls that run: the node ends.
    pub(crate) fn end(&self) {
        let runs = std::mem::take(&mut self.lock().runs);
        runs.values().for_each(AbortHandle::abort);
    }
}

impl Run {
    /// Runs the call as a task of its own; gives the way to its outcome. What `held` holds is given back with the end of the run.
    pub(crate) fn start(
        mut self,
        answer: LocalBoxFuture<'static, Outcome>,
        held: impl Sized + 'static,
    ) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        self.own = Some(tell);
        let (keyed, number, within) = (self.keyed.clone(), self.ticket.number(), self.within);
        let task = actix_rt::spawn(async move {
            let ran = tokio::time::timeout(within, AssertUnwindSafe(answer).catch_unwind()).await;
            drop(held);
            self.tell(match ran {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => Err(panicked("the action", &*panic)),
                Err(_) => {
                    let why = "the call ran for longer than its key is remembered, and was ended";
                    Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, why))
                }
            });
        });
        // A task begins when this one has its turn over, so it has not ended yet.
        if let Some(keyed) = keyed.upgrade() {
            keyed.lock().runs.insert(number, task.abort_handle());
        }
        told
    }

    /// Ends the call before it runs.
    pub(crate) fn refuse(mut self, error: CallError) {
        self.tell(Err(error));
    }

    fn tell(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let waiting = self.keyed.upgrade().map(|keyed| {
            let mut table = keyed.lock();
            table.runs.remove(&self.ticket.number());
            table.doubles.finish(&self.ticket, &outcome, Instant::now().into_std())
        });
        for Waiter(waiting) in waiting.unwrap_or_default() {
            // Its caller may have given up.
            let _ = waiting.send(outcome.clone());
        }
        if let Some(own) = self.own.take() {
            let _ = own.send(outcome);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.tell(Err(ended()));
    }
}

/// The outcome of a run that was dropped: its node, or the thread that it ran on, has ended.
fn ended() -> CallError {
    CallError::new(Code::PROVIDER_LOST, Fate::Unknown, "the node ended before the call did")
}

/// The outcome of a request that waits for the run of another one.
pub(crate) async fn outcome(told: oneshot::Receiver<Outcome>) -> Outcome {
    told.await.unwrap_or_else(|_| Err(ended()))
}

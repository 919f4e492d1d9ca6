//! The deadlines of calls that their node may be too busy to end: a thread of this process looks at a node when a deadline has passed. Calls
//! whose caller lives on the thread of the node need none of this, since there the caller is held up too. The thread is started by the
//! first call of another thread, sleeps until the earliest deadline, and looks at each node at most every [`LOOKED_AT_EVERY`].

use crate::log_line;
use crate::repeated::Line;
use log::Level;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A node whose calls may be overdue.
pub(crate) trait Overdue: Send + Sync {
    /// Ends the calls whose deadlines have passed; gives the next deadline.
    fn end_overdue(&self, now: Instant) -> Option<Instant>;

    /// When the thread will look at the node.
    fn watch(&self) -> &Watch;
}

/// When the thread will look at a node, and the thread that the node lives on.
pub(crate) struct Watch {
    /// In microseconds after [`BEGIN`]; [`NEVER`] if no call asked for it.
    looks_at: AtomicU64,
    /// The number of the thread of the node, 0 before the node has started.
    home: AtomicU64,
    /// The moment of its entry among those that wait, and its number there: 0 before the first. Both are changed under the lock of these alone.
    queued_at: AtomicU64,
    number: AtomicU64,
}

/// How much later than a deadline the thread looks: a node that is not busy has ended the call by then.
const GRACE: Duration = Duration::from_millis(10);

/// How often a node is looked at, at most: a look costs a step for each call in flight.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(10);

const NEVER: u64 = u64::MAX;

/// The moment from which microseconds are counted.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The nodes to look at, by the moment and the number of the node: one entry for each node.
static DUE: LazyLock<Due> = LazyLock::new(|| {
    let named = std::thread::Builder::new().name("meshwork-deadlines".to_owned());
    if let Err(error) = named.spawn(look) {
        log_line!(
            Line::own(Level::Error),
            "calls of busy nodes may end late: no thread can be started: {error}"
        );
    }
    Due::default()
});

#[derive(Default)]
struct Due {
    nodes: Mutex<BTreeMap<(u64, u64), Weak<dyn Overdue>>>,
    changed: Condvar,
}

thread_local! {
    static HERE: Cell<u64> = const { Cell::new(0) };
}

/// The number of this thread.
#[inline]
fn here() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    HERE.with(|here| {
        if here.get() == 0 {
            here.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        here.get()
    })
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            looks_at: AtomicU64::new(NEVER),
            home: AtomicU64::new(0),
            queued_at: AtomicU64::new(NEVER),
            number: AtomicU64::new(0),
        }
    }
}

impl Watch {
    /// Notes that the node lives on this thread.
    pub(crate) fn set_home(&self) {
        self.home.store(here(), Ordering::Relaxed);
    }

    /// Has the node looked at behind this deadline of a call, if the caller is on another thread than the node.
    #[inline]
    pub(crate) fn keep(&self, deadline: Option<Instant>, node: impl FnOnce() -> Weak<dyn Overdue>) {
        let Some(deadline) = deadline else {
            return;
        };
        let home = self.home.load(Ordering::Relaxed);
        if home != here() && home != 0 {
            let at = micros(later(deadline));
            // Most deadlines are later than the one that is waited for.
            if at < self.looks_at.load(Ordering::Acquire) {
                self.bring_forward(at, node());
            }
        }
    }

    #[cold]
    fn bring_forward(&self, at: u64, node: Weak<dyn Overdue>) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut nodes = DUE.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if at >= self.looks_at.load(Ordering::Acquire) {
            return;
        }
        self.looks_at.store(at, Ordering::Release);
        // One entry for each node: the moment that was waited for before is waited for no longer.
        let number = self.number.load(Ordering::Relaxed);
        let number = if number == 0 { NEXT.fetch_add(1, Ordering::Relaxed) } else { number };
        self.number.store(number, Ordering::Relaxed);
        nodes.remove(&(self.queued_at.swap(at, Ordering::Relaxed), number));
        let is_first = nodes.first_key_value().is_none_or(|((first, _), _)| at < *first);
        nodes.insert((at, number), node);
        drop(nodes);
        if is_first {
            DUE.changed.notify_one();
        }
    }
}

/// When the thread looks for a call of this deadline. The last moments that there are have none behind them.
fn later(deadline: Instant) -> Instant {
    deadline.checked_add(GRACE).unwrap_or(deadline)
}

fn micros(moment: Instant) -> u64 {
    u64::try_from(moment.saturating_duration_since(*BEGIN).as_micros()).unwrap_or(NEVER - 1).min(NEVER - 1)
}

/// Ends the calls of a node that are overdue, and has it looked at again, unless the moment has been brought forward since.
fn look_at(at: u64, node: Weak<dyn Overdue>) {
    let Some(there) = node.upgrade() else {
        return;
    };
    let looks_at = &there.watch().looks_at;
    if looks_at.compare_exchange(at, NEVER, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        let now = Instant::now();
        // Calls that are opened from here on ask again.
        if let Some(next) = there.end_overdue(now) {
            there.watch().bring_forward(micros(later(next).max(now + LOOKED_AT_EVERY)), node);
        }
    }
}

/// The thread.
fn look() {
    let mut nodes = DUE.nodes.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let now = micros(Instant::now());
        match nodes.first_entry() {
            None => nodes = DUE.changed.wait(nodes).unwrap_or_else(PoisonError::into_inner),
            Some(first) if first.key().0 > now => {
                let wait = Duration::from_micros(first.key().0 - now);
                nodes = DUE.changed.wait_timeout(nodes, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
            Some(first) => {
                let ((at, _), node) = first.remove_entry();
                drop(nodes);
                // Wakers and the last handle on a node run code of users: its panic is the end of no other deadline.
                if catch_unwind(AssertUnwindSafe(|| look_at(at, node))).is_err() {
                    log_line!(
                        Line::own(Level::Error),
                        "a caller panicked when its call had ended at its deadline"
                    );
                }
                nodes = DUE.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

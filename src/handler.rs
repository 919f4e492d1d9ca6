//! The closures that handle events: those that handle each event at once, and those that are async, which handle some at a time while the
//! others wait in a queue. Which events wait is the business of `event_queue.rs`, how a handler is subscribed that of `subscribe.rs`.

use crate::event::{Delivered, left_out};
use crate::event_queue::{EventQueue, Pushed, QueueBounds};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use meshwork_actors::events::{Deliver, Dropped, Event, EventRef, HandlerCounts};
use meshwork_actors::log_line;
use meshwork_actors::repeated::Repeated;
use meshwork_wire::limits::EVENTS_IN_A_ROW_MAX;
use meshwork_wire::{ByteString, Payload};
use std::fmt::Display;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How a handler is to work: the settings of a [`Subscribing`](crate::Subscribing).
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct HandlerOptions {
    pub(crate) at_once: usize,
    pub(crate) queue: QueueBounds,
}

impl Default for HandlerOptions {
    fn default() -> Self {
        Self { at_once: 1, queue: QueueBounds::default() }
    }
}

/// What a closure that handles events may return: nothing, a `Result<(), E>` whose error can be shown, or a future of one of these. An error is
/// written to the log, each handler at most one line in 10 s, and counts in [`Snapshot::events_failed`](crate::Snapshot::events_failed). `When`
/// tells closures that are async from others; it is inferred.
#[diagnostic::on_unimplemented(
    message = "a handler of events cannot return `{Self}`",
    label = "this handler",
    note = "a handler returns nothing, a `Result<(), E>` whose error can be shown, or a future of one of these, as an `async move` block is"
)]
pub trait HandlerReturn<When>: Sized + 'static {
    /// The handler of a closure.
    #[doc(hidden)]
    fn handler<D, Kind>(
        closure: impl Fn(D) -> Self + Send + Sync + 'static,
        options: HandlerOptions,
    ) -> Arc<dyn Deliver>
    where
        D: Delivered<Kind> + 'static,
        Kind: 'static;
}

/// The mark of closures that handle an event at once, on the node's arbiter.
pub struct Immediate(());

/// The mark of closures that are async.
pub struct InTurn(());

/// How the handling of an event ended: `()` or `Result<(), E>`.
#[diagnostic::on_unimplemented(
    message = "a handler of events cannot end with `{Self}`",
    note = "it ends with nothing, or with a `Result<(), E>` whose error can be shown"
)]
pub trait Handled: 'static {
    /// Why the event was not handled.
    #[doc(hidden)]
    fn failure(self) -> Option<String>;
}

impl Handled for () {
    #[inline]
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display + 'static> Handled for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

impl HandlerReturn<Immediate> for () {
    fn handler<D, Kind>(
        closure: impl Fn(D) -> Self + Send + Sync + 'static,
        _: HandlerOptions,
    ) -> Arc<dyn Deliver>
    where
        D: Delivered<Kind> + 'static,
        Kind: 'static,
    {
        Arc::new(ToClosure::new(closure))
    }
}

impl<E: Display + 'static> HandlerReturn<Immediate> for Result<(), E> {
    fn handler<D, Kind>(
        closure: impl Fn(D) -> Self + Send + Sync + 'static,
        _: HandlerOptions,
    ) -> Arc<dyn Deliver>
    where
        D: Delivered<Kind> + 'static,
        Kind: 'static,
    {
        Arc::new(ToClosure::new(closure))
    }
}

impl<R> HandlerReturn<InTurn> for R
where
    R: Future + 'static,
    R::Output: Handled,
{
    fn handler<D, Kind>(
        closure: impl Fn(D) -> Self + Send + Sync + 'static,
        options: HandlerOptions,
    ) -> Arc<dyn Deliver>
    where
        D: Delivered<Kind> + 'static,
        Kind: 'static,
    {
        Arc::new(ToAsync(Arc::new(InTurns {
            closure,
            at_once: options.at_once.max(1),
            state: Mutex::new(State { queue: EventQueue::new(options.queue), running: 0 }),
            full: Repeated::new(),
            failures: Failures::default(),
            idle: Notify::new(),
            form: PhantomData,
        })))
    }
}

/// The events that one handler failed to handle, and the lines of the log about them.
#[derive(Default)]
struct Failures {
    undecodable: Repeated,
    failed: Repeated,
    count: AtomicU64,
    undecodable_count: AtomicU64,
}

impl Failures {
    /// Takes the end of the handling of an event: an error or a panic is counted, and told.
    #[inline]
    fn take<R: Handled>(&self, topic: &str, handled: std::thread::Result<R>) {
        match handled.map(Handled::failure) {
            Ok(None) => {}
            Ok(Some(error)) => self.note(topic, &format!("failed: {error}")),
            Err(_) => self.note(topic, "panicked"),
        }
    }

    #[cold]
    fn note(&self, topic: &str, what: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let line = self.failed.error(Instant::now().into_std());
        log_line!(line, "the handler of {topic} {what}");
    }

    fn counts(&self) -> HandlerCounts {
        HandlerCounts {
            failed: self.count.load(Ordering::Relaxed),
            undecodable: self.undecodable_count.load(Ordering::Relaxed),
        }
    }
}

/// A closure that handles each event at once.
struct ToClosure<F, D, Kind> {
    closure: F,
    failures: Failures,
    form: PhantomData<fn(D) -> Kind>,
}

impl<F, D, Kind> ToClosure<F, D, Kind> {
    fn new(closure: F) -> Self {
        Self { closure, failures: Failures::default(), form: PhantomData }
    }
}

impl<F, D, R, Kind> Deliver for ToClosure<F, D, Kind>
where
    F: Fn(D) -> R + Send + Sync + 'static,
    D: Delivered<Kind> + 'static,
    R: Handled,
    Kind: 'static,
{
    fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped> {
        let decoded = D::read(event, None).map_err(|error| left_out(error, &self.failures.undecodable))?;
        // A panic in a handler must not end the node.
        let handled = catch_unwind(AssertUnwindSafe(|| (self.closure)(decoded)));
        self.failures.take(event.topic, handled);
        Ok(())
    }

    fn counts(&self) -> HandlerCounts {
        self.failures.counts()
    }
}

/// A closure that is async. Dropping it, when its subscription ends, drops the events that wait; those that are being handled are finished.
struct ToAsync<F, D, Kind>(Arc<InTurns<F, D, Kind>>);

struct InTurns<F, D, Kind> {
    closure: F,
    /// How many events are handled at once.
    at_once: usize,
    state: Mutex<State>,
    full: Repeated,
    failures: Failures,
    /// Notified when no event waits and none is being handled.
    idle: Notify,
    form: PhantomData<fn(D) -> Kind>,
}

/// An event that waits for its handler.
struct Waiting {
    event: Event,
    is_last_value: bool,
}

struct State {
    queue: EventQueue<Waiting>,
    /// How many tasks handle events. Each goes on as long as events wait, so none waits while there are fewer than `at_once`.
    running: usize,
}

impl<F, D, R, Kind> Deliver for ToAsync<F, D, Kind>
where
    F: Fn(D) -> R + Send + Sync + 'static,
    D: Delivered<Kind> + 'static,
    R: Future + 'static,
    R::Output: Handled,
    Kind: 'static,
{
    fn deliver(&self, event: EventRef<'_>) -> Result<(), Dropped> {
        let Self(this) = self;
        let mut state = this.lock();
        if state.running < this.at_once {
            drop(state);
            let decoded =
                D::read(event, None).map_err(|error| left_out(error, &this.failures.undecodable))?;
            this.lock().running += 1;
            actix::spawn(Arc::clone(this).handle_all(event.topic.clone(), decoded));
            return Ok(());
        }
        // A payload that waits would keep the whole block that brought it, however little of it counts.
        let kept = || {
            let (topic, publisher) = (event.topic.clone(), event.publisher.clone());
            let headers = event.headers.clone();
            let payload = Payload::new(event.payload.encoding, event.payload.bytes.to_vec());
            let is_last_value = event.is_last_value;
            Waiting { event: Event { topic, publisher, headers, payload }, is_last_value }
        };
        let len = event.headers.len() + event.payload.bytes.len();
        let pushed = state.queue.push(event.topic, len, kept);
        drop(state);
        match pushed {
            Pushed::Waits { superseded: 0, dropped: 0 } => Ok(()),
            Pushed::Waits { superseded, dropped } => {
                if dropped > 0 {
                    this.tell_full(event.topic);
                }
                Err(Dropped::Earlier { superseded, dropped })
            }
            Pushed::Refused => {
                this.tell_full(event.topic);
                Err(Dropped::Full)
            }
        }
    }

    fn counts(&self) -> HandlerCounts {
        self.0.failures.counts()
    }

    fn idle(&self) -> Option<LocalBoxFuture<'static, ()>> {
        let this = Arc::clone(&self.0);
        if this.lock().running == 0 {
            return None;
        }
        Some(Box::pin(async move {
            loop {
                let idle = this.idle.notified();
                if this.lock().running == 0 {
                    return;
                }
                idle.await;
            }
        }))
    }
}

impl<F, D, Kind> Drop for ToAsync<F, D, Kind> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let waiting = std::mem::replace(&mut state.queue, EventQueue::new(QueueBounds::default()));
        drop(state);
        drop(waiting);
    }
}

impl<F, D, Kind> InTurns<F, D, Kind> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here leaves the state half-changed when it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn tell_full(&self, topic: &str) {
        let line = self.full.warn(Instant::now().into_std());
        log_line!(line, "the queue of the handler of {topic} is full: events are dropped");
    }

    /// The event that is handled next; none ends the task.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.lock();
        let next = state.queue.pop();
        if next.is_none() {
            state.running -= 1;
            if state.running == 0 {
                drop(state);
                self.idle.notify_waiters();
            }
        }
        next
    }
}

impl<F, D, R, Kind> InTurns<F, D, Kind>
where
    F: Fn(D) -> R,
    D: Delivered<Kind>,
    R: Future,
    R::Output: Handled,
{
    /// Handles an event, and those that wait behind it.
    async fn handle_all(self: Arc<Self>, topic: ByteString, first: D) {
        self.handle(&topic, first).await;
        let mut in_a_row = 1;
        while let Some(Waiting { event, is_last_value }) = self.next() {
            if in_a_row == EVENTS_IN_A_ROW_MAX {
                in_a_row = 0;
                // Handlers that are never pending would keep the other tasks of the arbiter from their turns.
                tokio::task::yield_now().await;
            }
            in_a_row += 1;
            match D::read(EventRef { is_last_value, ..(&event).into() }, None) {
                Ok(decoded) => self.handle(&event.topic, decoded).await,
                Err(error) => {
                    left_out(error, &self.failures.undecodable);
                    self.failures.undecodable_count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    async fn handle(&self, topic: &str, event: D) {
        // A panic in a handler must not end the node.
        let handling = async { (self.closure)(event).await };
        self.failures.take(topic, AssertUnwindSafe(handling).catch_unwind().await);
    }
}

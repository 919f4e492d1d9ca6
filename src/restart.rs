//! Actors that are started again when they panic. Their messages wait here, not in the mailbox of the actor, so that a panic loses only the message
//! that was being handled, and each request ends with its true fate. `respond.rs` and `subscribe.rs` hand the messages in;
//! `actors/src/answers/restarts.rs` decides when the actor is started again.

use actix::dev::{MessageResponse, OneshotSender};
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorState as Phase, Addr, AsyncContext, Context, Handler, Message};
use futures::FutureExt;
use log::Level;
use meshwork_actors::answers::{ActorState, AfterPanic, RestartPolicy, Restarted, Restarts};
use meshwork_actors::log_line;
use meshwork_actors::repeated::{Line, Repeated};
use meshwork_wire::limits::{BLOCK_FRAMES_MAX, RESTART_WAIT_MAX, RESTART_WAITING_MAX};
use meshwork_wire::{CallError, Code, Fate};
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// An actor that is started again when it panics, and its handle. Its messages come through [`Restarting::recipient`]: those that wait survive
/// the panic, and the next actor gets them.
///
/// `respond_with` or `respond_restarting`? An actor that stops is withdrawn: its state is gone, and other nodes go on. Restart it if it can begin
/// anew, as one that keeps its state in a database can.
///
/// A request that is being handled when the actor panics fails with [`Code::PANICKED`]; requests that the actor had begun and not finished
/// fail with [`Code::PROVIDER_LOST`] and may have run. Requests that wait are answered by the next actor if it starts within a second;
/// otherwise they are declined as not sent, so that another provider runs them. An actor that panics too often is given up: its actions are
/// withdrawn, its handlers unsubscribed. One that stops by itself is not started again. [`Snapshot::restarting`](crate::Snapshot::restarting)
/// tells all this, and so does the log.
///
/// ```
/// # use meshwork::prelude::*;
/// #[derive(Default)]
/// struct Stock(u64);
///
/// impl Actor for Stock {
///     type Context = Context<Self>;
/// }
///
/// #[derive(Deserialize, Message)]
/// #[rtype(result = "Result<u64, ActionError>")]
/// struct Take { count: u64 }
///
/// impl Handler<Take> for Stock {
///     type Result = Result<u64, ActionError>;
///
///     fn handle(&mut self, Take { count }: Take, _: &mut Context<Self>) -> Self::Result {
///         self.0 -= count; // Panics below zero.
///         Ok(self.0)
///     }
/// }
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stock = Restarting::start(|| Stock(10));
/// let master = Master::from(MasterActor::new("shop").respond_restarting("take", stock.recipient::<Take>()).start());
/// # #[derive(Serialize)] struct Args { count: u64 }
/// # std::panic::set_hook(Box::new(|_| {}));
/// assert_eq!(master.call::<u64>("take", Args { count: 3 }).await?, 7);
/// assert_eq!(master.call::<u64>("take", Args { count: 8 }).await.unwrap_err().code(), Code::PANICKED);
/// assert_eq!(master.call::<u64>("take", Args { count: 1 }).await?, 9);
/// # Ok(())
/// # }
/// ```
pub struct Restarting<A: Actor<Context = Context<A>>>(Arc<Shared<A>>);

/// The messages of one kind to an actor that is started again when it panics: for [`Respond::respond_restarting`](crate::Respond), and, of
/// an [`Event`](crate::Event), for [`Node::subscribe`](crate::Node::subscribe).
pub struct RestartingRecipient<M>(Arc<dyn Take<M>>)
where
    M: Message + Send,
    M::Result: Send;

impl<A: Actor<Context = Context<A>>> Restarting<A> {
    /// Starts an actor on the current arbiter, and starts it again when it panics, as [`RestartPolicy::default`] says.
    ///
    /// # Panics
    ///
    /// Outside of an actix system, as [`Actor::start`] does.
    pub fn start(make: impl Fn() -> A + 'static) -> Self {
        Self::start_with(RestartPolicy::default(), make)
    }

    /// Starts an actor on the current arbiter, and starts it again when it panics, as the policy says. `make` makes each of the actors; when it
    /// panics, that counts as a panic of the actor.
    ///
    /// # Panics
    ///
    /// As [`Restarting::start`].
    pub fn start_with(policy: RestartPolicy, make: impl Fn() -> A + 'static) -> Self {
        let shared = Arc::new(Shared {
            locked: Mutex::new(Locked { waiting: VecDeque::new(), starts: None, actor: None, waker: None }),
            restarted: Arc::new(Restarted::new(std::any::type_name::<A>())),
        });
        actix::spawn(keep_running(Arc::downgrade(&shared), Restarts::new(policy), make));
        Self(shared)
    }

    /// The messages of one kind to the actor.
    #[must_use]
    pub fn recipient<M>(&self) -> RestartingRecipient<M>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        RestartingRecipient(Arc::<Shared<A>>::clone(&self.0))
    }

    /// The address of the actor that runs at the moment; none while it waits to be started again, and when it has stopped. Messages that go
    /// there are lost when the actor panics.
    #[must_use]
    pub fn addr(&self) -> Option<Addr<A>> {
        self.0.lock().actor.clone()
    }
}

impl<A: Actor<Context = Context<A>>> Clone for Restarting<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Actor<Context = Context<A>>> fmt::Debug for Restarting<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Restarting").field(&self.0.restarted.snapshot()).finish()
    }
}

impl<M> Clone for RestartingRecipient<M>
where
    M: Message + Send,
    M::Result: Send,
{
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> fmt::Debug for RestartingRecipient<M>
where
    M: Message + Send,
    M::Result: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RestartingRecipient").field(&self.0.restarted().snapshot()).finish()
    }
}

impl<M> RestartingRecipient<M>
where
    M: Message + Send,
    M::Result: Send,
{
    /// Hands a message to the actor. The future gives its result, or the error of a request that the actor did not answer.
    pub(crate) fn ask(&self, message: M) -> impl Future<Output = Result<M::Result, CallError>> + use<M> {
        let (tell, told) = oneshot::channel();
        let fate = Arc::new(Mutex::new(Progress::Waits));
        let is_taken = self.0.take(message, tell, Arc::clone(&fate));
        async move {
            // An item that is not taken, or dropped, drops its sender.
            let _ = is_taken;
            told.await.map_err(|_| fate.lock().unwrap_or_else(PoisonError::into_inner).error())
        }
    }

    /// Hands a message to the actor, whose result nobody waits for. `false` if there is no room for it.
    pub(crate) fn tell(&self, message: M) -> bool {
        let (tell, _told) = oneshot::channel();
        self.0.take_quietly(message, tell)
    }

    /// Whether the actor runs, or will run.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.0.restarted().state(), ActorState::Running | ActorState::Waiting)
    }

    pub(crate) fn restarted(&self) -> &Arc<Restarted> {
        self.0.restarted()
    }
}

/// How far a request has come, for the error of its caller when its actor panics.
enum Progress {
    Waits,
    Begun,
    Panicked(String),
}

impl Progress {
    fn error(&self) -> CallError {
        match self {
            Progress::Waits => declined(),
            Progress::Begun => {
                let what =
                    "the actor that answers the action panicked or stopped while it was at the request";
                CallError::new(Code::PROVIDER_LOST, Fate::Unknown, what)
            }
            Progress::Panicked(reason) => CallError::new(
                Code::PANICKED,
                Fate::Failed,
                format!("the actor that answers panicked: {reason}"),
            ),
        }
    }
}

/// The error of a request that the actor has not seen: another provider may run it.
fn declined() -> CallError {
    let what = "the actor that answers the action has panicked, and was not started again in time";
    CallError::new(Code::PROVIDER_LOST, Fate::NotSent, what)
}

/// Takes messages of one kind for an actor.
trait Take<M: Message>: Send + Sync {
    fn take(&self, message: M, tell: OneshotSender<M::Result>, progress: Arc<Mutex<Progress>>) -> bool;

    /// Takes a message of which nobody waits for the result.
    fn take_quietly(&self, message: M, tell: OneshotSender<M::Result>) -> bool;

    fn restarted(&self) -> &Arc<Restarted>;
}

/// A message on its way to an actor.
trait Item<A: Actor>: Send {
    fn handle(self: Box<Self>, actor: &mut A, context: &mut A::Context);

    /// Whether nobody waits for the result any more.
    fn is_forgotten(&self) -> bool;
}

struct Asked<M: Message> {
    message: M,
    tell: OneshotSender<M::Result>,
    /// None of a message that nobody waits for.
    progress: Option<Arc<Mutex<Progress>>>,
}

impl<A, M> Item<A> for Asked<M>
where
    A: Handler<M>,
    M: Message + Send,
    M::Result: Send,
{
    fn handle(self: Box<Self>, actor: &mut A, context: &mut A::Context) {
        let Self { message, tell, progress } = *self;
        let set = |now: Progress| {
            if let Some(progress) = &progress {
                *progress.lock().unwrap_or_else(PoisonError::into_inner) = now;
            }
        };
        set(Progress::Begun);
        // The sender outlives the panic: the caller must not be told before the reason stands there.
        match catch_unwind(AssertUnwindSafe(|| actor.handle(message, context))) {
            Ok(response) => response.handle(context, Some(tell)),
            Err(panic) => {
                set(Progress::Panicked(reason_of(&*panic).to_owned()));
                drop(tell);
                resume_unwind(panic);
            }
        }
    }

    fn is_forgotten(&self) -> bool {
        self.progress.is_some() && self.tell.is_closed()
    }
}

fn reason_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

/// The actor and the messages that wait for it.
struct Shared<A: Actor<Context = Context<A>>> {
    locked: Mutex<Locked<A>>,
    restarted: Arc<Restarted>,
}

struct Locked<A: Actor<Context = Context<A>>> {
    /// While the actor runs, bounded as its mailbox would be, by the requests in flight on each connection and by the events that are
    /// pending; while it waits to be started again, by [`RESTART_WAITING_MAX`].
    waiting: VecDeque<Box<dyn Item<A>>>,
    /// When the actor is started again; none while it runs.
    starts: Option<Instant>,
    actor: Option<Addr<A>>,
    /// Wakes the actor when a message has come.
    waker: Option<Waker>,
}

impl<A: Actor<Context = Context<A>>> Shared<A> {
    fn lock(&self) -> MutexGuard<'_, Locked<A>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` if the item is refused, and dropped.
    fn put(&self, item: Box<dyn Item<A>>) -> bool {
        let mut locked = self.lock();
        // Under the lock, so that no message comes after the last ones were declined.
        if matches!(self.restarted.state(), ActorState::Stopped | ActorState::GivenUp) {
            return false;
        }
        if let Some(starts) = locked.starts {
            if locked.waiting.len() >= RESTART_WAITING_MAX {
                locked.waiting.retain(|item| !item.is_forgotten());
            }
            let is_soon = starts.saturating_duration_since(Instant::now()) <= RESTART_WAIT_MAX;
            if !is_soon || locked.waiting.len() >= RESTART_WAITING_MAX {
                return false;
            }
        }
        locked.waiting.push_back(item);
        let waker = locked.waker.take();
        drop(locked);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Notes that there is no actor, and that the next one starts after this time; none if there is no next one. The messages that wait are
    /// kept for it if it starts soon, else they are dropped, and their callers told.
    fn ended(&self, state: ActorState, starts_after: Option<Duration>) {
        let mut locked = self.lock();
        self.restarted.set(state);
        let actor = locked.actor.take();
        // A century is as long as for ever, and a moment that every clock can tell.
        let longest = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        locked.starts = starts_after.map(|after| Instant::now() + after.min(longest));
        let waits = starts_after.is_some_and(|after| after <= RESTART_WAIT_MAX);
        let kept = if waits { locked.waiting.len().min(RESTART_WAITING_MAX) } else { 0 };
        let declined = locked.waiting.split_off(kept);
        // Their ends may run code of users, which may come back here.
        drop(locked);
        drop((actor, declined));
    }
}

impl<A, M> Take<M> for Shared<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn take(&self, message: M, tell: OneshotSender<M::Result>, progress: Arc<Mutex<Progress>>) -> bool {
        self.put(Box::new(Asked { message, tell, progress: Some(progress) }))
    }

    fn take_quietly(&self, message: M, tell: OneshotSender<M::Result>) -> bool {
        self.put(Box::new(Asked { message, tell, progress: None }))
    }

    fn restarted(&self) -> &Arc<Restarted> {
        &self.restarted
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Shared<A> {
    fn drop(&mut self) {
        let locked = self.locked.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The actor ends if nobody else has its address.
        if let Some(waker) = locked.waker.take() {
            waker.wake();
        }
    }
}

/// Runs an actor, and the next one after each panic.
async fn keep_running<A: Actor<Context = Context<A>>>(
    shared: Weak<Shared<A>>,
    mut restarts: Restarts,
    make: impl Fn() -> A,
) {
    static PANICKED: Repeated = Repeated::news();
    loop {
        let run = async {
            let mut context = Context::new();
            context.spawn(HandOver(Weak::clone(&shared)));
            let running = context.into_future(make());
            if let Some(shared) = shared.upgrade() {
                let mut locked = shared.lock();
                (locked.actor, locked.starts) = (Some(running.address()), None);
                drop(locked);
                shared.restarted.set(ActorState::Running);
            }
            let mut running = Box::pin(AssertUnwindSafe(running).catch_unwind());
            let ended = running.as_mut().await;
            // The actor is told that it stops, and may panic again.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(running)));
            if let Err(panic) = ended {
                resume_unwind(panic);
            }
        };
        let ended = AssertUnwindSafe(run).catch_unwind().await;
        let Some(there) = shared.upgrade() else { return };
        let Err(panic) = ended else {
            return there.ended(ActorState::Stopped, None);
        };
        let (actor, reason) = (there.restarted.actor(), reason_of(&*panic));
        match restarts.panicked(Instant::now().into_std()) {
            AfterPanic::GiveUp => {
                log_line!(
                    Line::own(Level::Error),
                    "{actor} panicked too often, and is not started again: {reason}"
                );
                return there.ended(ActorState::GivenUp, None);
            }
            AfterPanic::StartAfter(after) => {
                let line = PANICKED.error(Instant::now().into_std());
                log_line!(line, "{actor} panicked, and is started again in {after:?}: {reason}");
                there.ended(ActorState::Waiting, Some(after));
                drop(there);
                tokio::time::sleep(after).await;
            }
        }
    }
}

/// Hands the messages that wait to their actor, inside its context, one after the other, as its mailbox would.
struct HandOver<A: Actor<Context = Context<A>>>(Weak<Shared<A>>);

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for HandOver<A> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut Context<A>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        for _ in 0..BLOCK_FRAMES_MAX {
            let Some(shared) = self.0.upgrade() else { return Poll::Ready(()) };
            // An actor that waits for a future of its own takes nothing meanwhile. It polls this again afterwards.
            if context.waiting() || !matches!(context.state(), Phase::Started | Phase::Running) {
                return Poll::Pending;
            }
            let mut locked = shared.lock();
            let Some(item) = locked.waiting.pop_front() else {
                locked.waker = Some(task.waker().clone());
                return Poll::Pending;
            };
            drop(locked);
            drop(shared);
            if !item.is_forgotten() {
                item.handle(actor, context);
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

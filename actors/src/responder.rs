//! What answers requests at a node, and the requests that it is answering. A responder is user code: it may take its time,
//! fail, or panic, and none of that may reach the actor that runs it.

use crate::outbox::{Gathered, Outbox};
use crate::response::Requests;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use hashbrown::HashMap;
use meshwork_wire::limits::ACTIONS_PER_NODE_MAX;
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, EncodeError, Encoding, Fate, Function, Invocation, NameError,
    Offer, Payload, PayloadRef, Response, check_action, everything_above,
};
use serde::Serialize;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// What became of a call: its reply, or why there is none.
pub type Outcome = Result<Payload, CallError>;

/// Answers the requests for one action. It is asked on the arbiter of the session or branch that the request came in on, and
/// its future stays there; so it is `Send + Sync` and its future need not be `Send`.
pub trait Responder: Send + Sync + 'static {
    /// Answers one request: at once, or with a future, which is dropped when the caller gives up. [`poll_once`] tells the one from the
    /// other.
    fn respond(&self, arguments: PayloadRef<'_>, context: &Context, reply: Reply<'_>) -> Answer;
}

/// How a responder answers.
pub enum Answer {
    /// With what it said through [`Reply::say`].
    Said,
    /// At once.
    Now(Outcome),
    /// When this is ready.
    Later(LocalBoxFuture<'static, Outcome>),
}

/// Where a responder that answers at once may say so.
#[derive(Clone, Copy)]
pub struct Reply<'a> {
    callback_id: CallbackId,
    /// None where replies are not gathered.
    gathered: Option<&'a Gathered>,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(callback_id: CallbackId, gathered: Option<&'a Gathered>) -> Self {
        Self { callback_id, gathered }
    }

    /// Answers with this value. Where small replies of a turn are gathered this costs no allocation.
    #[inline]
    pub fn say<T: Serialize + ?Sized>(self, encoding: Encoding, value: &T) -> Answer {
        let written = match self.gathered {
            Some(gathered) => Payload::encode_unless_small(encoding, value, |bytes| {
                gathered.push_small(self.callback_id, encoding, bytes);
            }),
            None => Payload::encode(encoding, value).map(Some),
        };
        match written {
            Ok(None) => Answer::Said,
            Ok(Some(payload)) => Answer::Now(Ok(payload)),
            Err(error) => Answer::Now(Err(not_written(error))),
        }
    }
}

/// The action ran, so the error must not say that it was not sent.
fn not_written(error: EncodeError) -> CallError {
    CallError::from(error).with_fate(Fate::Failed)
}

/// A reply that is written as a payload.
///
/// # Errors
///
/// When the encoding has no form for the value.
pub fn reply<T: Serialize + ?Sized>(encoding: Encoding, value: &T) -> Outcome {
    Payload::encode(encoding, value).map_err(not_written)
}

/// Polls a future once, and gives what it is ready with; else the future of what `outcome` makes of that. The task that awaits this
/// polls it again, with a waker of its own. A future that is ready costs no allocation: one is kept on each thread for the next
/// future of the same type.
///
/// # Errors
///
/// The future, when it is not ready.
#[inline]
pub fn poll_once<F, M>(future: F, outcome: M) -> Result<F::Output, LocalBoxFuture<'static, Outcome>>
where
    F: Future + 'static,
    M: FnOnce(F::Output) -> Outcome + 'static,
{
    /// Of a future that was ready, if it is of the type.
    type Spare<F, M> = Option<Pin<Box<Polled<F, M>>>>;
    // Taken, not borrowed: a future may itself ask a responder. Whoever says goodbye when the thread ends finds nothing.
    let mut spare = SPARE.try_with(Cell::take).ok().flatten();
    let kept =
        spare.as_deref_mut().and_then(|spare| spare.downcast_mut::<Spare<F, M>>()).and_then(Option::take);
    let mut polled = kept.unwrap_or_else(|| Box::pin(Polled { future: None, outcome: None }));
    polled.as_mut().project().future.set(Some(future));
    let ready = match polled.as_mut().project().future.as_pin_mut() {
        Some(future) => future.poll(&mut std::task::Context::from_waker(Waker::noop())),
        None => Poll::Pending,
    };
    let Poll::Ready(ready) = ready else {
        *polled.as_mut().project().outcome = Some(outcome);
        return Err(polled);
    };
    polled.as_mut().project().future.set(None);
    if size_of::<Polled<F, M>>() <= SPARE_LEN_MAX {
        match spare.as_deref_mut().and_then(|spare| spare.downcast_mut::<Spare<F, M>>()) {
            Some(spare) => *spare = Some(polled),
            None => spare = Some(Box::new(Some(polled) as Spare<F, M>)),
        }
        let _ = SPARE.try_with(|place| place.set(spare));
    }
    Ok(ready)
}

/// A future that is larger than this is not kept room for.
const SPARE_LEN_MAX: usize = 4096;

thread_local! {
    static SPARE: Cell<Option<Box<dyn Any>>> = const { Cell::new(None) };
}

pin_project_lite::pin_project! {
    /// A future that was polled, and what its outcome is made with.
    struct Polled<F, M> {
        #[pin]
        future: Option<F>,
        outcome: Option<M>,
    }
}

impl<F: Future, M: FnOnce(F::Output) -> Outcome> Future for Polled<F, M> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        match this.future.as_pin_mut().map(|future| future.poll(context)) {
            Some(Poll::Ready(ready)) => match this.outcome.take() {
                Some(outcome) => Poll::Ready(outcome(ready)),
                None => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    }
}

/// What a responder may know of a request besides its arguments.
#[derive(Clone, Debug)]
pub struct Context {
    action: ByteString,
    caller: ByteString,
    deadline: Option<Instant>,
}

impl Context {
    pub(crate) fn new(action: ByteString, caller: ByteString, deadline: Option<Instant>) -> Self {
        Self { action, caller, deadline }
    }

    /// The action that was asked for.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The name of the node that asks.
    #[must_use]
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// The moment when the caller stops waiting; `None` if it never does.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller still waits: pass it on to calls that are made on its behalf. `None` if it waits for ever.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// An action that a node answers, and how many of it at once.
#[derive(Clone)]
pub struct Action {
    /// What the others are told.
    pub offer: Offer,
    /// Who answers.
    pub responder: Arc<dyn Responder>,
    permits: Option<Arc<Permits>>,
}

struct Permits {
    left: AtomicUsize,
    max: usize,
}

/// One request of an action that is being answered; its end gives the permit back.
struct Permit(Option<Arc<Permits>>);

impl Action {
    /// An action that may be answered any number of times at once, within what the connection allows.
    pub fn new(offer: Offer, responder: Arc<dyn Responder>) -> Self {
        Self { offer, responder, permits: None }
    }

    /// Answers at most so many requests at once; the next one is refused with [`Code::OVERLOADED`].
    #[must_use]
    pub fn with_permits(mut self, max: usize) -> Self {
        self.permits = Some(Arc::new(Permits { left: AtomicUsize::new(max), max }));
        self
    }

    fn permit(&self) -> Result<Permit, CallError> {
        let Some(permits) = &self.permits else {
            return Ok(Permit(None));
        };
        let taken =
            permits.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        match taken {
            Ok(_) => Ok(Permit(Some(Arc::clone(permits)))),
            Err(_) => Err(CallError::new(
                Code::OVERLOADED,
                Fate::NotSent,
                format!("{} has {} permits, and all are taken", self.offer.action, permits.max),
            )),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = &self.0 {
            permits.left.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// The actions that a node answers, by name.
#[derive(Clone, Default)]
pub struct Actions(HashMap<ByteString, Action>);

/// Why an action cannot be added.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ActionRefused {
    /// Its name is none.
    #[error("an action cannot be named so: {0}")]
    Name(#[from] NameError),
    /// The node answers it already. Withdraw the old one first.
    #[error("this node answers {0:?} already")]
    Twice(ByteString),
    /// The node answers [`ACTIONS_PER_NODE_MAX`] actions already.
    #[error("a node answers at most {ACTIONS_PER_NODE_MAX} actions")]
    TooMany,
}

impl Actions {
    /// Adds an action.
    ///
    /// # Errors
    ///
    /// When its name is none or is taken, or there are too many.
    pub fn insert(&mut self, action: Action) -> Result<(), ActionRefused> {
        check_action(&action.offer.action)?;
        if self.0.contains_key(&action.offer.action) {
            return Err(ActionRefused::Twice(action.offer.action));
        }
        if self.0.len() >= ACTIONS_PER_NODE_MAX {
            return Err(ActionRefused::TooMany);
        }
        self.0.insert(action.offer.action.clone(), action);
        Ok(())
    }

    /// Adds all of them, or none.
    ///
    /// # Errors
    ///
    /// When one of them cannot be added.
    pub fn extend(&mut self, others: Actions) -> Result<(), ActionRefused> {
        if let Some(twice) = others.0.keys().find(|action| self.0.contains_key(*action)) {
            return Err(ActionRefused::Twice(twice.clone()));
        }
        if self.0.len() + others.0.len() > ACTIONS_PER_NODE_MAX {
            return Err(ActionRefused::TooMany);
        }
        self.0.extend(others.0);
        Ok(())
    }

    /// Takes an action out.
    pub fn remove(&mut self, action: &str) -> Option<Action> {
        self.0.remove(action)
    }

    /// The action of that name.
    #[must_use]
    pub fn get(&self, action: &str) -> Option<&Action> {
        self.0.get(action)
    }

    /// The action of that name, or else the one that answers everything below a part of it.
    #[must_use]
    pub fn find(&self, action: &str) -> Option<&Action> {
        self.get(action).or_else(|| everything_above(action).find_map(|above| self.get(&above)))
    }

    /// What the others are told, sorted by name.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        let mut offers: Vec<_> = self.0.values().map(|action| action.offer.clone()).collect();
        offers.sort_unstable_by(|one, other| one.action.cmp(&other.action));
        offers
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<ActionRefused> for CallError {
    fn from(refused: ActionRefused) -> Self {
        CallError::new(Code::BAD_NAME, Fate::NotSent, refused.to_string())
    }
}

impl IntoIterator for Actions {
    type Item = Action;
    type IntoIter = hashbrown::hash_map::IntoValues<ByteString, Action>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values()
    }
}

/// Where the replies to requests go: over a link, or to calls of this node's own.
pub(crate) trait ReplyTo {
    /// Where those go that do not come at once.
    type Later: ReplyTo + 'static;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome);

    /// What small replies are gathered in, if they are.
    fn gathered(&self) -> Option<&Gathered> {
        None
    }

    fn later(&self) -> Self::Later;
}

impl ReplyTo for Outbox {
    type Later = Self;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        self.push_response(&Response { callback_id, outcome });
    }

    fn later(&self) -> Self {
        self.clone()
    }
}

/// Nobody waits for it.
struct Nobody;

impl ReplyTo for Nobody {
    type Later = Self;

    fn reply(&self, _: CallbackId, outcome: Outcome) {
        if let Err(error) = outcome {
            log::debug!("a callback failed, and nobody waited for it: {error}");
        }
    }

    fn later(&self) -> Self {
        Self
    }
}

impl ReplyTo for Rc<RefCell<Requests>> {
    type Later = Self;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        self.borrow_mut().resolve(callback_id, outcome);
    }

    fn later(&self) -> Self {
        Rc::clone(self)
    }
}

/// The requests that a node is answering and that were not answered at once. Dropping it drops their futures.
pub(crate) struct Answering(Rc<Running>);

struct Running {
    tasks: RefCell<HashMap<CallbackId, AbortHandle>>,
    finished: std::cell::Cell<u64>,
    /// How many were started that nobody waits for.
    quiet: std::cell::Cell<u64>,
    /// Told whenever the last one ended, for whoever drains.
    idle: tokio::sync::Notify,
}

impl Answering {
    pub(crate) fn new() -> Self {
        Self(Rc::new(Running {
            tasks: RefCell::default(),
            finished: std::cell::Cell::new(0),
            quiet: std::cell::Cell::new(0),
            idle: tokio::sync::Notify::new(),
        }))
    }

    /// Answers a request: at once if its future is ready, else as a task of its own until [`Answering::cancel`].
    pub(crate) fn start(
        &self,
        action: &Action,
        arguments: PayloadRef<'_>,
        context: &Context,
        callback_id: CallbackId,
        reply_to: &impl ReplyTo,
    ) {
        let permit = match action.permit() {
            Ok(permit) => permit,
            Err(error) => return reply_to.reply(callback_id, Err(error)),
        };
        let reply = Reply::new(callback_id, reply_to.gathered());
        let respond = || action.responder.respond(arguments, context, reply);
        self.run(respond, &action.offer.action, callback_id, reply_to, permit);
    }

    /// Calls a function that was lent, as [`Answering::start`] answers a request. Without a callback id nobody waits.
    pub(crate) fn invoke(
        &self,
        function: &Function,
        invocation: Invocation,
        callback_id: Option<CallbackId>,
        reply_to: &Outbox,
    ) {
        let invoke = || {
            let mut answer: LocalBoxFuture<'static, Outcome> = function.invoke(invocation);
            match answer.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Answer::Now(outcome),
                Poll::Pending => Answer::Later(answer),
            }
        };
        match callback_id {
            Some(callback_id) => self.run(invoke, "a callback", callback_id, reply_to, Permit(None)),
            None => {
                // Ids are drawn from zero on, so nobody else has this one.
                let quiet = self.0.quiet.get() + 1;
                self.0.quiet.set(quiet);
                self.run(invoke, "a callback", CallbackId(u64::MAX - quiet), &Nobody, Permit(None));
            }
        }
    }

    #[inline]
    fn run(
        &self,
        respond: impl FnOnce() -> Answer,
        what: &str,
        callback_id: CallbackId,
        reply_to: &impl ReplyTo,
        permit: Permit,
    ) {
        match catch_unwind(AssertUnwindSafe(respond)) {
            Ok(Answer::Said) => {}
            Ok(Answer::Now(outcome)) => reply_to.reply(callback_id, outcome),
            Ok(Answer::Later(answer)) => self.spawn(answer, callback_id, reply_to.later(), permit),
            Err(panic) => reply_to.reply(callback_id, Err(panicked(what, &*panic))),
        }
    }

    fn spawn(
        &self,
        answer: LocalBoxFuture<'static, Outcome>,
        callback_id: CallbackId,
        reply_to: impl ReplyTo + 'static,
        permit: Permit,
    ) {
        let running = Rc::downgrade(&self.0);
        let task = actix_rt::spawn(async move {
            let outcome = AssertUnwindSafe(answer).catch_unwind().await;
            drop(permit);
            let outcome = outcome.unwrap_or_else(|panic| Err(panicked("the action", &*panic)));
            if let Some(running) = running.upgrade() {
                running.ended(callback_id);
            }
            reply_to.reply(callback_id, outcome);
        });
        self.0.tasks.borrow_mut().insert(callback_id, task.abort_handle());
    }

    /// Drops the future of a request whose caller gave up.
    pub(crate) fn cancel(&self, callback_id: CallbackId) -> bool {
        let task = self.0.tasks.borrow_mut().remove(&callback_id);
        if let Some(task) = &task {
            task.abort();
            self.0.tell_if_idle();
        }
        task.is_some()
    }

    pub(crate) fn contains(&self, callback_id: CallbackId) -> bool {
        self.0.tasks.borrow().contains_key(&callback_id)
    }

    /// How many are being answered.
    pub(crate) fn len(&self) -> usize {
        self.0.tasks.borrow().len()
    }

    /// How many were not answered at once and have ended.
    pub(crate) fn finished(&self) -> u64 {
        self.0.finished.get()
    }

    /// Waits until none is being answered.
    pub(crate) fn idle(&self) -> impl Future<Output = ()> + use<> {
        let running = Rc::clone(&self.0);
        async move {
            loop {
                let notified = running.idle.notified();
                if running.tasks.borrow().is_empty() {
                    return;
                }
                notified.await;
            }
        }
    }

    /// Drops the futures of all of them.
    pub(crate) fn cancel_all(&self) {
        for (_, task) in self.0.tasks.borrow_mut().drain() {
            task.abort();
        }
        self.0.tell_if_idle();
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.cancel_all();
    }
}

impl Running {
    fn ended(&self, callback_id: CallbackId) {
        self.tasks.borrow_mut().remove(&callback_id);
        self.finished.set(self.finished.get() + 1);
        self.tell_if_idle();
    }

    fn tell_if_idle(&self) {
        if self.tasks.borrow().is_empty() {
            self.idle.notify_waiters();
        }
    }
}

fn panicked(action: &str, panic: &(dyn Any + Send)) -> CallError {
    let reason = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given");
    log::error!("the responder of {action} panicked: {reason}");
    CallError::new(Code::PANICKED, Fate::Failed, format!("the responder panicked: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn none(_: u32) -> Outcome {
        Ok(Payload::default())
    }

    /// Where the future stood that was ready last on this thread.
    fn spare() -> Option<*const ()> {
        let spare = SPARE.take();
        let at = spare.as_deref().map(|spare| std::ptr::from_ref(spare).cast());
        SPARE.set(spare);
        at
    }

    #[test]
    fn room_is_kept_for_the_next_future_of_the_type() {
        assert_eq!(poll_once(ready(1), none).ok(), Some(1));
        let first = spare();
        assert!(first.is_some());
        assert_eq!(poll_once(ready(2), none).ok(), Some(2));
        assert_eq!(spare(), first);
        assert_eq!(
            poll_once(async { 3 }, |_| Ok(Payload::default())).ok(),
            Some(3),
            "and another type has its own"
        );
        let large = [0_u8; SPARE_LEN_MAX];
        let later = async move {
            std::future::ready(()).await;
            large.len()
        };
        assert_eq!(poll_once(later, |_| Ok(Payload::default())).ok(), Some(SPARE_LEN_MAX));
        assert_eq!(spare(), None, "a large one keeps nothing");
    }

    #[test]
    fn a_future_that_asks_a_responder_itself_finds_room_of_its_own() {
        let inner = || poll_once(ready(1), none).ok();
        assert_eq!(poll_once(async move { inner() }, |_| Ok(Payload::default())).ok(), Some(Some(1)));
        assert_eq!(inner(), Some(1));
    }

    #[actix_rt::test]
    async fn a_future_that_is_not_ready_goes_on_where_it_was() {
        let (tell, told) = tokio::sync::oneshot::channel::<u32>();
        let future = async move { told.await.unwrap_or_default() };
        let Err(later) =
            poll_once(future, |number| Payload::encode(Encoding::Json, &number).map_err(not_written))
        else {
            panic!("nobody has told it yet");
        };
        let meanwhile = poll_once(ready(1), none);
        assert!(meanwhile.is_ok());
        tell.send(7).expect("it waits");
        assert_eq!(later.await.expect("a number").decode::<u32>(), Ok(7));
    }

    #[test]
    fn a_future_that_panics_is_dropped_and_so_is_one_that_nobody_awaits() {
        let held = Rc::new(());
        let panics = |held: Rc<()>| async move {
            let _held = held;
            panic!("no");
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            poll_once(panics(Rc::clone(&held)), |(): ()| Ok(Payload::default())).is_ok()
        }));
        assert!(polled.is_err());
        let waits = |held: Rc<()>| async move {
            let _held = held;
            pending::<u32>().await
        };
        drop(poll_once(waits(Rc::clone(&held)), none));
        assert_eq!(Rc::strong_count(&held), 1);
    }
}

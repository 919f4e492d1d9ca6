//! What answers requests at a node, and the requests that it is answering. A responder is user code: it may take its time,
//! fail, or panic, and none of that may reach the actor that runs it.

use crate::outbox::Outbox;
use crate::response::Requests;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use hashbrown::HashMap;
use meshwork_wire::limits::ACTIONS_PER_NODE_MAX;
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Fate, Function, Invocation, NameError, Offer, Payload, Response,
    check_action, everything_above,
};
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    /// Answers one request. The future is dropped when the caller gives up.
    fn respond(&self, arguments: Payload, context: Context) -> LocalBoxFuture<'static, Outcome>;
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
        arguments: Payload,
        context: Context,
        callback_id: CallbackId,
        reply_to: &impl ReplyTo,
    ) {
        let permit = match action.permit() {
            Ok(permit) => permit,
            Err(error) => return reply_to.reply(callback_id, Err(error)),
        };
        let respond = || action.responder.respond(arguments, context);
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
        let invoke = || -> LocalBoxFuture<'static, Outcome> { function.invoke(invocation) };
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

    fn run(
        &self,
        respond: impl FnOnce() -> LocalBoxFuture<'static, Outcome>,
        what: &str,
        callback_id: CallbackId,
        reply_to: &impl ReplyTo,
        permit: Permit,
    ) {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let mut answer = respond();
            // Most are ready at once, so no task is made before it is needed. The task polls again with a waker of its own.
            match answer.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Ok(outcome),
                Poll::Pending => Err(answer),
            }
        }));
        match polled {
            Ok(Ok(outcome)) => reply_to.reply(callback_id, outcome),
            Ok(Err(answer)) => self.spawn(answer, callback_id, reply_to.later(), permit),
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

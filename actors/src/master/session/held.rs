//! The requests of one branch that are in the layers of the master: each has a task, in which the layers decide. The [`Relay`](super::relay::Relay)
//! holds the requests themselves; the session lets them pass, and tells their layers the outcome.

use crate::answers::outlet::To;
use crate::answers::reply_to::ReplyTo;
use crate::hashed::HashMap;
use crate::link::outbox::Outbox;
use crate::master::passing::{Gate, PassThrough, Passed, PassingRequest};
use actix::{Message, Recipient};
use futures::FutureExt as _;
use meshwork_wire::{ByteString, CallError, CallbackId, Code, Fate, Outcome, Payload, Request};
use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The layers have let a request pass: it goes on. Sent by the innermost layer.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LetPass(pub(super) Visit);

/// The layers are done with a request. Sent by its task.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LeaveLayers {
    pub(super) visit: Visit,
    pub(super) ended: Result<Passed, CallError>,
}

/// One request in the layers. Its callback id may be used again when the request has its outcome; the number is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Visit {
    pub(super) callback_id: CallbackId,
    number: u64,
}

/// The requests of one branch that are in the layers.
#[derive(Default)]
pub(super) struct InLayers {
    by_id: HashMap<CallbackId, Visiting>,
    next: u64,
    /// How many tasks there are: at most the requests that may be in flight. Layers may be busy with a request after its outcome.
    tasks: Rc<Cell<usize>>,
}

struct Visiting {
    number: u64,
    task: AbortHandle,
    told: Rc<RefCell<Told>>,
}

/// The way to tell the layers the outcome of a request; none when they have been told.
type Told = Option<oneshot::Sender<Result<Passed, CallError>>>;

impl Drop for Visiting {
    fn drop(&mut self) {
        // Layers that have been told the outcome may still have work with it.
        if self.told.borrow().is_some() {
            self.task.abort();
        }
    }
}

/// A task of the layers, counted until it ends.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl InLayers {
    /// Whether the layers take one more request, of `max`.
    pub(super) fn has_room(&self, max: usize) -> bool {
        self.tasks.get() < max
    }

    /// Lets the layers decide about a request.
    pub(super) fn enter(
        &mut self,
        layers: Arc<dyn PassThrough>,
        request: &Request,
        (caller, identity): (ByteString, Option<ByteString>),
        deadline: Option<Instant>,
        (let_pass, leave): (Recipient<LetPass>, Recipient<LeaveLayers>),
    ) {
        self.next += 1;
        let visit = Visit { callback_id: request.callback_id, number: self.next };
        #[expect(clippy::disallowed_methods, reason = "bounded by the requests in flight: one message each")]
        let (gate, told) = Gate::new(move || let_pass.do_send(LetPass(visit)));
        let passing = PassingRequest {
            // Names from a frame share the buffer of its block, which a layer that keeps the request would keep.
            action: ByteString::from(&*request.action),
            node: ByteString::from(&*request.node),
            caller,
            identity,
            deadline,
            headers: request.headers.clone(),
            payload_len: request.payload.len(),
            gate,
        };
        self.tasks.set(self.tasks.get() + 1);
        let counted = Counted(Rc::clone(&self.tasks));
        let task = actix_rt::spawn(async move {
            let ended = AssertUnwindSafe(decide(layers, passing, deadline)).catch_unwind().await;
            let ended = ended.unwrap_or_else(|_| {
                Err(CallError::new(Code::PANICKED, Fate::Unknown, "a layer of the master panicked"))
            });
            drop(counted);
            #[expect(clippy::disallowed_methods, reason = "bounded by the tasks: one message each")]
            leave.do_send(LeaveLayers { visit, ended });
        });
        let told = Rc::new(RefCell::new(Some(told)));
        let visiting = Visiting { number: visit.number, task: task.abort_handle(), told };
        self.by_id.insert(visit.callback_id, visiting);
    }

    /// Whether the request is still the one that this visit is of.
    pub(super) fn has(&self, visit: Visit) -> bool {
        self.by_id.get(&visit.callback_id).is_some_and(|visiting| visiting.number == visit.number)
    }

    /// Forgets a request: its layers are done with it, or its caller waits no longer. Layers that have not been told an outcome are dropped.
    pub(super) fn remove(&mut self, callback_id: CallbackId) {
        self.by_id.remove(&callback_id);
    }

    /// Tells the layers of a request its outcome.
    pub(super) fn tell(
        &self,
        callback_id: CallbackId,
        outcome: &Outcome,
        provider: impl FnOnce() -> ByteString,
    ) {
        if let Some(visiting) = self.by_id.get(&callback_id) {
            tell(&visiting.told, outcome, provider);
        }
    }

    /// Tells the layers of a request that its stream begins, and lets go of it: the layers see a stream as long as a call would take.
    pub(super) fn stream_begins(&mut self, callback_id: CallbackId, provider: impl FnOnce() -> ByteString) {
        self.tell(callback_id, &Ok(Payload::default()), provider);
        self.remove(callback_id);
    }

    /// The receiver of the reply of a responder of the master, which tells the layers.
    pub(super) fn reply_to(&self, callback_id: CallbackId, outbox: &Outbox, master: &ByteString) -> Telling {
        let told = self.by_id.get(&callback_id).map(|visiting| Rc::clone(&visiting.told)).unwrap_or_default();
        Telling { told, outbox: outbox.clone(), master: master.clone() }
    }

    /// How many requests are in the layers, or have left them with their outcome just now.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.tasks.get()
    }
}

fn tell(told: &RefCell<Told>, outcome: &Outcome, provider: impl FnOnce() -> ByteString) {
    if let Some(tell) = told.borrow_mut().take() {
        let told = match outcome {
            Ok(payload) => Ok(Passed { provider: provider(), payload_len: payload.len() }),
            Err(error) => Err(error.clone()),
        };
        // The layers may have ended before.
        let _ = tell.send(told);
    }
}

/// Waits for the layers, and no longer than the caller does if they hold the request that long.
async fn decide(
    layers: Arc<dyn PassThrough>,
    request: PassingRequest,
    deadline: Option<Instant>,
) -> Result<Passed, CallError> {
    let seen = request.clone();
    let mut ended = layers.pass(request);
    if let Some(deadline) = deadline
        && let Ok(ended) = tokio::time::timeout_at(deadline, &mut ended).await
    {
        return ended;
    }
    if deadline.is_some() && !seen.has_passed() {
        let why = "the deadline passed in the layers of the master";
        return Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::NotSent, why));
    }
    ended.await
}

/// The receiver of the reply of a responder of the master to a request that passed the layers.
#[derive(Clone)]
pub(super) struct Telling {
    told: Rc<RefCell<Told>>,
    outbox: Outbox,
    master: ByteString,
}

impl ReplyTo for Telling {
    type Later = Self;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        tell(&self.told, &outcome, || self.master.clone());
        self.outbox.reply(callback_id, outcome);
    }

    fn later(&self) -> Self {
        self.clone()
    }

    fn to(&self, _: CallbackId) -> Option<To> {
        Some(To::Link(self.outbox.clone()))
    }
}

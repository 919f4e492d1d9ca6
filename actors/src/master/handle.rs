//! A session as the others see it: the registry, the router, the master and the other sessions hold a [`SessionHandle`], and send
//! these messages. The handle holds recipients and not the actor's address, so whoever holds it needs to know no session actor.

use super::registry::route::Provider;
use crate::link::outbox::{Kind, Outbox};
use crate::node::mailboxes::Drained;
use actix::{Actor, Addr, Handler, Message, Recipient};
use meshwork_wire::{ByteString, CallError, CallbackId, Code, Fate, Invocation, Outcome, Payload, SessionId};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A session as the others see it. Clones share it.
#[derive(Clone)]
pub(crate) struct SessionHandle(Arc<Shared>);

struct Shared {
    id: SessionId,
    name: OnceLock<ByteString>,
    peer: String,
    mailboxes: SessionMailboxes,
    outbox: Outbox,
    next_id: AtomicU64,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    /// How many calls of functions of the branch are in the mailbox.
    invoking: AtomicUsize,
    taking: AtomicBool,
    gone: AtomicBool,
}

/// What a session takes.
pub(crate) struct SessionMailboxes {
    pub(crate) forward: Recipient<Forward>,
    pub(crate) replies: Recipient<Replies>,
    pub(crate) cancel: Recipient<Cancel>,
    pub(crate) invoke: Recipient<Invoke>,
    pub(crate) release: Recipient<Release>,
    pub(crate) evict: Recipient<Evict>,
    pub(crate) drain: Recipient<Drain>,
    pub(crate) close: Recipient<Close>,
}

/// Who made a request that a session relays: another session, or the master.
#[derive(Clone)]
pub(crate) struct Asker {
    /// The session, or [`MASTER`](super::MASTER).
    pub(crate) id: SessionId,
    /// The name of the node.
    pub(crate) name: ByteString,
    pub(crate) replies: Recipient<Replies>,
}

/// Requests for the branch of the receiver. Sent by the session, or master, that they came in at: one message a block. A request that
/// the receiver does not live to handle answers itself: not sent.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Forward {
    pub(crate) asker: Asker,
    pub(crate) requests: Vec<Forwarded>,
}

/// One relayed request.
pub(crate) struct Forwarded {
    /// The id that the asker knows it by.
    pub(crate) asked_as: CallbackId,
    /// The id that was drawn at the receiver.
    pub(crate) callback_id: CallbackId,
    pub(crate) action: ByteString,
    pub(crate) deadline: Option<Instant>,
    pub(crate) payload: Payload,
}

/// The outcomes of requests that were forwarded, by the ids that their asker knows them by. Sent by the session that relayed them, one
/// message a block.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Replies(pub(crate) Vec<(CallbackId, Outcome)>);

/// Cancels requests whose callers dropped the call, by the ids that were drawn at the receiver. Sent by the session or master that
/// forwarded them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Cancel(pub(crate) Vec<CallbackId>);

/// Calls a function of the branch. Sent by a handle on the function; answered through `reply`, if there is one.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Invoke {
    pub(crate) function: CallbackId,
    /// Drawn at the receiver.
    pub(crate) callback_id: CallbackId,
    pub(crate) invocation: Invocation,
    pub(crate) reply: Option<oneshot::Sender<Outcome>>,
}

/// A function of the branch is needed no more. Sent by its last handle.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Release(pub(crate) CallbackId);

/// Another branch has taken the name over. Sent by the registry, which has forgotten this session already.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Evict;

/// The drain is over: the callers of what is still in flight are told so, and the link closes. Sent by the master, when every session has
/// had its time: one that closed earlier would end what others wait for.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close;

/// Takes no more and finishes what is in flight. Sent by the master.
#[derive(Message)]
#[rtype(result = "Drained")]
pub(crate) struct Drain {
    pub(crate) within: Duration,
}

impl SessionMailboxes {
    pub(crate) fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Actor<Context = actix::Context<A>>
            + Handler<Forward>
            + Handler<Replies>
            + Handler<Cancel>
            + Handler<Invoke>
            + Handler<Release>
            + Handler<Evict>
            + Handler<Drain>
            + Handler<Close>,
    {
        Self {
            forward: actor.clone().recipient(),
            replies: actor.clone().recipient(),
            cancel: actor.clone().recipient(),
            invoke: actor.clone().recipient(),
            release: actor.clone().recipient(),
            evict: actor.clone().recipient(),
            drain: actor.clone().recipient(),
            close: actor.clone().recipient(),
        }
    }
}

impl SessionHandle {
    pub(crate) fn new(
        id: SessionId,
        peer: String,
        mailboxes: SessionMailboxes,
        outbox: Outbox,
        in_flight_max: usize,
    ) -> Self {
        Self(Arc::new(Shared {
            id,
            name: OnceLock::new(),
            peer,
            mailboxes,
            outbox,
            next_id: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            in_flight_max,
            invoking: AtomicUsize::new(0),
            taking: AtomicBool::new(true),
            gone: AtomicBool::new(false),
        }))
    }

    pub(crate) fn id(&self) -> SessionId {
        self.0.id
    }

    pub(crate) fn peer(&self) -> &str {
        &self.0.peer
    }

    pub(crate) fn mailboxes(&self) -> &SessionMailboxes {
        &self.0.mailboxes
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// The session as the asker of requests that it forwards.
    pub(crate) fn asker(&self) -> Asker {
        let name = self.0.name.get().cloned().unwrap_or_default();
        Asker { id: self.0.id, name, replies: self.0.mailboxes.replies.clone() }
    }

    /// Names the branch, once: when its bind is checked.
    pub(crate) fn set_name(&self, name: ByteString) {
        let _ = self.0.name.set(name);
    }

    /// Draws an id for a request to this session, never twice.
    pub(crate) fn next_id(&self) -> CallbackId {
        CallbackId(self.0.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes the place of one call of a function in the mailbox; [`SessionHandle::end_invoke`] gives it back.
    pub(crate) fn begin_invoke(&self) -> Result<(), CallError> {
        let max = self.0.in_flight_max;
        if self.0.invoking.fetch_add(1, Ordering::Relaxed) < max {
            return Ok(());
        }
        self.end_invoke();
        let what = format!("{max} calls of callbacks are before it already");
        Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what))
    }

    /// A call of a function has been taken out of the mailbox.
    pub(crate) fn end_invoke(&self) {
        self.0.invoking.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many requests to the branch are in flight now.
    pub(crate) fn set_in_flight(&self, in_flight: usize) {
        self.0.in_flight.store(in_flight, Ordering::Relaxed);
    }

    /// The branch takes no more requests.
    pub(crate) fn stop_taking(&self) {
        self.0.taking.store(false, Ordering::Release);
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Acquire)
    }

    /// The session has ended; `true` the first time.
    pub(crate) fn set_gone(&self) -> bool {
        self.stop_taking();
        !self.0.gone.swap(true, Ordering::AcqRel)
    }
}

impl Provider for SessionHandle {
    fn id(&self) -> SessionId {
        self.0.id
    }

    fn name(&self) -> &str {
        self.0.name.get().map_or("", |name| name)
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    fn is_taking(&self) -> bool {
        !self.is_gone() && self.0.taking.load(Ordering::Acquire)
    }

    fn has_room(&self) -> bool {
        self.in_flight() < self.0.in_flight_max && self.0.outbox.has_room(Kind::Request)
    }

    fn is_leaving(&self) -> bool {
        !self.0.outbox.is_open()
    }
}

impl Asker {
    /// Tells the asker the outcomes of its requests. If it is gone, nobody waits.
    #[expect(clippy::disallowed_methods, reason = "bounded by the requests that the asker has in flight")]
    pub(crate) fn tell(&self, replies: Vec<(CallbackId, Outcome)>) {
        self.replies.do_send(Replies(replies));
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let gone =
            CallError::new(Code::PROVIDER_LOST, Fate::NotSent, "the node went away before it was asked");
        self.asker
            .tell(self.requests.drain(..).map(|request| (request.asked_as, Err(gone.clone()))).collect());
    }
}

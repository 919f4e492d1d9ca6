//! Functions that are passed as arguments. A node *lends* a function over a link: it draws a number for it, which travels with
//! the payload, and calls it when the other end sends an `Invoke` of that number, until that end sends a `Release`. What came
//! with a number is *borrowed*: it can be called, kept, and lent on over other links, and its last handle sends the `Release`.
//! So a master relays functions without knowing what they are: what one session borrows, another one lends.
//!
//! Both end with the link. Nothing is counted up: what is lent twice has two numbers.

use crate::node::Node;
use crate::outbox::Outbox;
use crate::responder::{Answering, Outcome};
use crate::session::{self, SessionHandle};
use hashbrown::HashMap;
use meshwork_wire::limits::CALLBACKS_PER_CONNECTION_MAX;
use meshwork_wire::{
    CallError, Callable, CallbackId, Callbacks, Code, Encoding, Fate, Frame, Function, Invocation, Invoke,
    Invoked, Passed, Payload, Wants,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// What is lent over one link, and how much is borrowed over it.
#[derive(Default)]
pub(crate) struct Lent {
    table: Mutex<Table>,
    borrowed: AtomicUsize,
}

#[derive(Default)]
struct Table {
    functions: HashMap<CallbackId, Function>,
    next_id: u64,
}

/// As much is lent over the link as may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooMuchLent;

impl Lent {
    /// Draws numbers for those that are at hand.
    pub(crate) fn lend(&self, callbacks: &Callbacks) -> Result<Callbacks, TooMuchLent> {
        let mut table = self.lock();
        if table.functions.len() + callbacks.len() > CALLBACKS_PER_CONNECTION_MAX {
            return Err(TooMuchLent);
        }
        Ok(Callbacks::new(callbacks.iter().map(|passed| match passed {
            Passed::Here(function) => {
                let id = CallbackId(table.next_id);
                table.next_id += 1;
                table.functions.insert(id, function.clone());
                Passed::Lent(id)
            }
            Passed::Lent(id) => Passed::Lent(*id),
        })))
    }

    /// Those were lent by a frame that did not leave.
    pub(crate) fn take_back(&self, callbacks: &Callbacks) {
        for id in callbacks.ids() {
            self.release(id);
        }
    }

    /// What is lent under this number.
    pub(crate) fn get(&self, id: CallbackId) -> Option<Function> {
        self.lock().functions.get(&id).cloned()
    }

    /// The other end needs it no more.
    pub(crate) fn release(&self, id: CallbackId) {
        // Dropped when the lock is free: what a closure holds may do anything then.
        let released = self.lock().functions.remove(&id);
        drop(released);
    }

    /// The link is gone.
    pub(crate) fn release_all(&self) {
        let released = std::mem::take(&mut self.lock().functions);
        drop(released);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().functions.len()
    }

    pub(crate) fn borrowed(&self) -> usize {
        self.borrowed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here leaves the table half-changed when it panics.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Over which link something is borrowed.
#[derive(Clone)]
pub(crate) enum Lender {
    /// The master, over the link that was the branch's at that time.
    Master { node: Arc<Node>, epoch: u64 },
    /// The branch of a session.
    Branch(SessionHandle),
}

/// A function at the other end of a link.
struct Borrowed {
    id: CallbackId,
    encoding: Encoding,
    lender: Lender,
    /// Where it is counted.
    outbox: Outbox,
}

/// Makes the functions of a payload that came over a link ones that can be called.
pub(crate) fn borrow(
    payload: &mut Payload,
    outbox: &Outbox,
    lender: impl Fn() -> Lender,
) -> Result<(), CallError> {
    if payload.callbacks.is_empty() {
        return Ok(());
    }
    let count = payload.callbacks.len();
    let callbacks = std::mem::take(&mut payload.callbacks);
    let borrowed = &outbox.lent().borrowed;
    if borrowed.fetch_add(count, Ordering::Relaxed) + count > CALLBACKS_PER_CONNECTION_MAX {
        borrowed.fetch_sub(count, Ordering::Relaxed);
        for id in callbacks.ids() {
            outbox.push_always(&Frame::Release(id));
        }
        return Err(CallError::new(
            Code::OVERLOADED,
            Fate::NotSent,
            format!("{CALLBACKS_PER_CONNECTION_MAX} callbacks of this connection are held already"),
        ));
    }
    let encoding = payload.encoding;
    payload.callbacks = Callbacks::new(callbacks.ids().into_iter().map(|id| {
        let (lender, outbox) = (lender(), outbox.clone());
        Passed::Here(Function::new(Borrowed { id, encoding, lender, outbox }))
    }));
    Ok(())
}

/// The other end calls what was lent to it.
pub(crate) fn invoked(
    invoke: Invoke,
    outbox: &Outbox,
    lender: impl Fn() -> Lender,
    answering: &Answering,
    in_flight_max: usize,
) {
    let Invoke { function, callback_id, time_left, wants, mut payload } = invoke;
    // Also when it is refused: what came with it is given back.
    let borrowed = borrow(&mut payload, outbox, lender);
    let refuse = |error| {
        if let Some(callback_id) = callback_id {
            outbox
                .push_always(&Frame::Response(meshwork_wire::Response { callback_id, outcome: Err(error) }));
        }
    };
    if let Err(error) = borrowed {
        return refuse(error);
    }
    let Some(function) = outbox.lent().get(function) else {
        return refuse(gone("it is not lent, or not any more"));
    };
    if answering.len() >= in_flight_max {
        let what = format!("{in_flight_max} requests and callbacks are being answered already");
        return refuse(CallError::new(Code::OVERLOADED, Fate::NotSent, what));
    }
    answering.invoke(
        &function,
        Invocation { arguments: payload, within: time_left, wants },
        callback_id,
        outbox,
    );
}

/// Why a function cannot be called.
pub(crate) fn gone(why: &str) -> CallError {
    CallError::new(Code::CALLBACK_GONE, Fate::NotSent, format!("the callback is gone: {why}"))
}

impl Callable for Borrowed {
    fn invoke(&self, invocation: Invocation) -> Invoked {
        match &self.lender {
            Lender::Master { node, epoch } => {
                let asked = node.invoke(*epoch, self.id, invocation);
                Box::pin(async move {
                    match asked? {
                        Some(asked) => asked.await,
                        None => Ok(Payload::default()),
                    }
                })
            }
            Lender::Branch(session) => invoke_at(session, self.id, invocation),
        }
    }

    fn encoding(&self) -> Encoding {
        self.encoding
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.outbox.lent().borrowed.fetch_sub(1, Ordering::Relaxed);
        match &self.lender {
            Lender::Master { node, epoch } => node.release(*epoch, self.id),
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded by the callbacks that are borrowed: one each"
            )]
            Lender::Branch(session) => session.addr().do_send(session::Release(self.id)),
        }
    }
}

fn invoke_at(session: &SessionHandle, function: CallbackId, invocation: Invocation) -> Invoked {
    let (within, wants) = (invocation.within, invocation.wants);
    if session.is_gone() {
        return Box::pin(async { Err(gone("the branch that lent it went away")) });
    }
    if let Err(error) = session.begin_invoke() {
        return Box::pin(async { Err(error) });
    }
    let (reply, outcome) = oneshot::channel();
    let callback_id = session.next_id();
    let reply = (wants != Wants::Nothing).then_some(reply);
    #[expect(clippy::disallowed_methods, reason = "bounded by `begin_invoke`")]
    session.addr().do_send(session::Invoke { function, callback_id, invocation, reply });
    if wants == Wants::Nothing {
        return Box::pin(async { Ok(Payload::default()) });
    }
    let mut waiting = Waiting { session: session.clone(), callback_id, settled: false };
    Box::pin(async move {
        // From here on it is part of the future, and dropped with it.
        let waiting = &mut waiting;
        let outcome = match within {
            Some(within) => tokio::time::timeout(within, outcome).await.map_err(|_| {
                CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, "no reply came before the deadline")
            })?,
            None => outcome.await,
        };
        waiting.settle();
        // A session tells whoever waits when it ends; one that could not does not know how far it came.
        outcome.unwrap_or_else(|_| Err(gone("the branch that lent it went away").with_fate(Fate::Unknown)))
    })
}

/// Somebody waits for a function; when that ends before the function does, its lender is told.
struct Waiting {
    session: SessionHandle,
    callback_id: CallbackId,
    settled: bool,
}

impl Waiting {
    fn settle(&mut self) {
        self.settled = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.settled {
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded by the callbacks that are called: one each"
            )]
            self.session.addr().do_send(session::Cancel(vec![self.callback_id]));
        }
    }
}

/// The outcome of a reply that came over a link, with its functions at hand.
pub(crate) fn borrow_outcome(outcome: Outcome, outbox: &Outbox, lender: impl Fn() -> Lender) -> Outcome {
    let mut payload = outcome?;
    borrow(&mut payload, outbox, lender).map_err(|error| error.with_fate(Fate::Failed))?;
    Ok(payload)
}

//! The actors that resolve callback ids, as light_rpc looks a response up in its callback table. The calls of one departure share a
//! response actor; a call that leaves alone has one of its own. The actors come from a pool, so a call costs no actor, and a row of
//! replies costs one message.

use super::in_flight::{InFlight, Wake};
use super::reply::Reply;
use crate::streams::Inbox as Streamed;
use actix::dev::ContextFut;
use actix::{Actor, AsyncContext, Context, StreamHandler};
use futures::{FutureExt, Stream};
use meshwork_wire::CallbackId;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};

/// The lock of the node whose calls are in flight.
pub(crate) trait Calls: Send + Sync {
    /// Changes the calls of the node, under its lock.
    fn with(&self, change: &mut dyn FnMut(&mut InFlight));

    /// The inbox of a call whose reply is a stream.
    fn inbox(&self, callback_id: CallbackId) -> Option<Arc<Streamed>> {
        let _ = callback_id;
        None
    }
}

/// Hands the replies to requests to their callers. It lives on the arbiter of the branch or master that made the requests, and that actor
/// gives it its turn, right after each row of replies. As a task of its own it would go through the queue of the arbiter, which costs
/// more than all that the response actor does.
pub struct ResponseActor {
    calls: Arc<dyn Calls>,
    inbox: Inbox,
    /// The callers to wake when the lock has been let go.
    wakes: Vec<Wake>,
    resolved: u64,
}

/// A row of replies to calls of one departure. Put by the branch or master that made the calls into the stream of the response actor that
/// is bound to them. The response actor settles each call that is not settled yet, and wakes its caller.
pub struct Resolve {
    row: Vec<(CallbackId, Reply)>,
}

/// A response actor of the pool. It moves between the pool and its bindings, so it is a pointer.
pub(crate) struct Pooled(Box<PooledParts>);

/// A response actor in its context, and the inbox to it.
struct PooledParts {
    inbox: Inbox,
    actor: ContextFut<ResponseActor, Context<ResponseActor>>,
}

/// The stream of a response actor, which takes one row at a time. Only the owner of the actor sends to it, so no mailbox is needed.
#[derive(Clone, Default)]
struct Inbox(Rc<InboxState>);

/// The state that a response actor shares with its owner.
#[derive(Default)]
struct InboxState {
    told: Cell<Option<Resolve>>,
    /// The row that was resolved last, empty again.
    row: RefCell<Vec<(CallbackId, Reply)>>,
    /// How many calls that row settled.
    settled: Cell<usize>,
}

impl Actor for ResponseActor {
    type Context = Context<Self>;
}

impl StreamHandler<Resolve> for ResponseActor {
    fn handle(&mut self, Resolve { mut row }: Resolve, _: &mut Context<Self>) {
        let settled = settle(&*self.calls, &mut row, &mut self.wakes);
        self.resolved += settled as u64;
        self.inbox.0.settled.set(settled);
        self.inbox.0.row.replace(row);
    }
}

/// Settles the calls of a row under one lock, and wakes their callers when the lock has been let go; gives how many calls this settled.
fn settle(calls: &dyn Calls, row: &mut Vec<(CallbackId, Reply)>, wakes: &mut Vec<Wake>) -> usize {
    let mut settled = 0;
    calls.with(&mut |in_flight| {
        for (id, reply) in row.drain(..) {
            match in_flight.settle(id, reply) {
                late @ Wake::Late(_) => {
                    log::debug!("a reply to {id} came too late");
                    // Dropped when the lock is let go: it may have the last handle on a function, whose end may take the lock.
                    wakes.push(late);
                }
                Wake::Nobody => settled += 1,
                wake @ (Wake::Task(_) | Wake::Hook(..) | Wake::Unheard(_)) => {
                    settled += 1;
                    wakes.push(wake);
                }
            }
        }
    });
    wakes.drain(..).for_each(Wake::wake);
    settled
}

impl Pooled {
    pub(crate) fn new(calls: Arc<dyn Calls>) -> Self {
        let inbox = Inbox::default();
        let mut context = Context::new();
        context.add_stream(inbox.clone());
        let actor = ResponseActor { calls, inbox: inbox.clone(), wakes: Vec::new(), resolved: 0 };
        Self(Box::new(PooledParts { inbox, actor: context.into_future(actor) }))
    }

    /// Sends the actor a row of replies, and gives it its turn; gives how many calls this settled. Empties the row.
    pub(crate) fn resolve(&mut self, calls: &dyn Calls, row: &mut Vec<(CallbackId, Reply)>) -> usize {
        let shared = &self.0.inbox.0;
        shared.told.set(Some(Resolve { row: std::mem::take(row) }));
        // The actor waits for rows only, so its waker is never used.
        let _ = self.0.actor.poll_unpin(&mut task::Context::from_waker(task::Waker::noop()));
        if let Some(Resolve { row: mut unhandled }) = shared.told.take() {
            // An actor does not end before its stream. If one did, the callers would still be told.
            let settled = settle(calls, &mut unhandled, &mut Vec::new());
            *row = unhandled;
            return settled;
        }
        *row = shared.row.take();
        shared.settled.take()
    }

    #[cfg(test)]
    fn terminate(&mut self) {
        use actix::ActorContext;
        self.0.actor.ctx().terminate();
    }
}

impl Stream for Inbox {
    type Item = Resolve;

    fn poll_next(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<Resolve>> {
        self.0.told.take().map_or(Poll::Pending, |resolve| Poll::Ready(Some(resolve)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::in_flight::Waiter;
    use meshwork_wire::Payload;
    use std::sync::Mutex;

    struct Lock(Mutex<InFlight>);

    impl Calls for Lock {
        fn with(&self, change: &mut dyn FnMut(&mut InFlight)) {
            change(&mut self.0.lock().unwrap());
        }
    }

    #[actix_rt::test]
    async fn a_caller_hears_at_once_and_even_of_an_actor_that_has_ended() {
        let lock = Arc::new(Lock(Mutex::new(InFlight::new())));
        let mut pooled = Pooled::new(Arc::clone(&lock) as Arc<dyn Calls>);
        let resolved = |pooled: &mut Pooled| {
            let (tell, told) = std::sync::mpsc::channel();
            let waiter = Waiter::Hook(Box::new(move |_| tell.send(()).unwrap()));
            let Ok(id) = lock.0.lock().unwrap().open(None, waiter) else { panic!("there is room") };
            let mut row = vec![(id, Reply::from(Ok(Payload::default())))];
            assert_eq!(pooled.resolve(&*lock, &mut row), 1);
            told.try_recv().is_ok()
        };
        for _ in 0..40 {
            assert!(resolved(&mut pooled));
        }
        pooled.terminate();
        assert!(resolved(&mut pooled));
    }
}

//! Functions that the branch of a session lent: how their holders call them and give them back.

use crate::link::borrowed::Lender;
use crate::link::refusal::gone;
use crate::master::handle::{Cancel, Invoke, Release, SessionHandle};
use meshwork_wire::{CallError, CallbackId, Code, Fate, Invocation, Invoked, Payload, Wants};
use tokio::sync::oneshot;

/// The branch of a session, as functions that it lent know it.
pub(crate) struct BranchLender(pub(crate) SessionHandle);

impl Lender for BranchLender {
    fn invoke(&self, function: CallbackId, invocation: Invocation) -> Invoked {
        let session = &self.0;
        let (within, wants) = (invocation.within, invocation.wants);
        if session.is_gone() {
            return Box::pin(async { Err(gone("the node that lent it went away")) });
        }
        if let Err(error) = session.begin_invoke() {
            return Box::pin(async { Err(error) });
        }
        let (reply, outcome) = oneshot::channel();
        let callback_id = session.next_id();
        let reply = (wants != Wants::Nothing).then_some(reply);
        #[expect(clippy::disallowed_methods, reason = "bounded by `begin_invoke`")]
        session.mailboxes().invoke.do_send(Invoke { function, callback_id, invocation, reply });
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
            waiting.settled = true;
            // A session tells its callers when it ends; one that could not does not know how far it came.
            outcome.unwrap_or_else(|_| Err(gone("the node that lent it went away").with_fate(Fate::Unknown)))
        })
    }

    fn release(&self, function: CallbackId) {
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by the callbacks that are borrowed: one each"
        )]
        self.0.mailboxes().release.do_send(Release(function));
    }
}

/// The caller of a function. When it gives up before the function ends, the branch is told.
struct Waiting {
    session: SessionHandle,
    callback_id: CallbackId,
    settled: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.settled {
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded by the callbacks that are called: one each"
            )]
            self.session.mailboxes().cancel.do_send(Cancel(vec![self.callback_id]));
        }
    }
}

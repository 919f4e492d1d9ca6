//! Requests of a branch that registry and router answer: the answer goes straight into the outbox, past the session.

use crate::link::outbox::{Kind, Outbox};
use crate::link::refusal::Receiver;
use crate::turns::credit::Charge;
use meshwork_wire::{
    ActionDescription, CallError, CallbackId, Code, Described, Fate, Frame, Outcome, Payload,
};
use std::cell::Cell;
use std::rc::Rc;

/// How many requests of one branch to registry and router may be unanswered at once.
const PENDING_MAX: usize = 1024;

/// The requests of one branch to registry and router that are not answered yet: at most [`PENDING_MAX`].
#[derive(Default)]
pub(super) struct Pending(Rc<Cell<usize>>);

impl Pending {
    /// Answers a request of the branch when registry or router has answered; `asked` is an error if they must not be asked. Until then the branch
    /// is charged for the request.
    pub(super) fn answer<F, T, E>(
        &self,
        outbox: &Outbox,
        callback_id: CallbackId,
        asked: Result<F, CallError>,
        charge: Charge,
        answer: impl FnOnce(T) -> Result<(), CallError> + 'static,
    ) where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        self.spawn(outbox, callback_id, asked, charge, move |outbox, answered| {
            let outcome = match answered {
                Ok(answered) => answer(answered).map(|()| Payload::default()),
                Err(_) => Err(master_ends()),
            };
            outbox.respond(callback_id, outcome);
        });
    }

    /// Tells the branch which actions there are when the registry has answered.
    pub(super) fn describe<E>(
        &self,
        outbox: &Outbox,
        callback_id: CallbackId,
        asked: impl Future<Output = Result<Vec<ActionDescription>, E>> + 'static,
        charge: Charge,
    ) {
        self.spawn(outbox, callback_id, Ok(asked), charge, move |outbox, answered| {
            let Ok(actions) = answered else {
                return outbox.respond(callback_id, Err(master_ends()));
            };
            let described = Frame::Described(Described { callback_id, actions });
            if let Err(refusal) = outbox.push(&described, Kind::Request) {
                outbox.respond(callback_id, Err(refusal.into_error(Receiver::Caller)));
            }
        });
    }

    fn spawn<F: Future + 'static>(
        &self,
        outbox: &Outbox,
        callback_id: CallbackId,
        asked: Result<F, CallError>,
        charge: Charge,
        say: impl FnOnce(&Outbox, F::Output) + 'static,
    ) {
        let asked = asked.and_then(|asked| Ok((asked, self.count_request()?)));
        let (asked, guard) = match asked {
            Ok(asked) => asked,
            Err(error) => return outbox.respond(callback_id, Outcome::Err(error)),
        };
        let outbox = outbox.clone();
        actix_rt::spawn(async move {
            say(&outbox, asked.await);
            drop((guard, charge));
        });
    }

    /// Counts one more unanswered request, until the guard is dropped.
    fn count_request(&self) -> Result<PendingGuard, CallError> {
        if self.0.get() >= PENDING_MAX {
            let why = format!("{PENDING_MAX} requests to the registry are unanswered");
            return Err(CallError::new(Code::OVERLOADED, Fate::NotSent, why));
        }
        self.0.set(self.0.get() + 1);
        Ok(PendingGuard(Rc::clone(&self.0)))
    }
}

/// Counts one unanswered request as long as it lives.
struct PendingGuard(Rc<Cell<usize>>);

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The error of a question that registry or router did not answer, since they have ended.
fn master_ends() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::Unknown, "the master ends")
}

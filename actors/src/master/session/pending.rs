//! Requests of a branch that registry and router answer: the answer goes straight into the outbox, past the session.

use crate::link::outbox::Outbox;
use crate::link::refusal::Receiver;
use crate::master::registry::{Answer, Describe, FindProviders, RegistryActor};
use crate::turns::credit::Charge;
use actix::Addr;
use meshwork_wire::limits::{
    DESCRIBED_LEN_MAX, DESCRIBED_MAX, DESCRIBED_PART_ELEMENTS_MAX, DESCRIBED_PART_LEN_MAX,
    DESCRIBED_PART_MAX, HEAD_ELEMENTS_MAX,
};
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, DescribedPart, Encoding, Fate, Features, Outcome, Payload,
};
use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::Semaphore;

/// How many requests of one branch to registry and router may be unanswered at once.
const PENDING_MAX: usize = 1024;

/// The requests of one branch to registry and router that are not answered yet.
#[derive(Default)]
pub(super) struct Pending(Rc<Unanswered>);

struct Unanswered {
    /// At most [`PENDING_MAX`].
    count: Cell<usize>,
    /// The permit to describe, or to name providers: the answers to one branch are made one after the other, each when the branch has read those
    /// before.
    describing: Semaphore,
}

impl Default for Unanswered {
    fn default() -> Self {
        Self { count: Cell::new(0), describing: Semaphore::new(1) }
    }
}

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
        self.spawn(outbox, callback_id, asked, Some(charge), move |outbox, answered| {
            let outcome = match answered {
                Ok(answered) => answer(answered).map(|()| Payload::default()),
                Err(_) => Err(master_ends()),
            };
            outbox.respond(callback_id, outcome);
        });
    }

    /// Tells the branch who provides an action, when the answers before have left and the registry has answered: as with [`Pending::describe`], a
    /// short question may have a long answer. `find` is an error if the registry must not be asked.
    pub(super) fn provide(
        &self,
        outbox: &Outbox,
        callback_id: CallbackId,
        registry: &Addr<RegistryActor>,
        find: Result<FindProviders, CallError>,
    ) {
        let (this, registry, room) = (Rc::clone(&self.0), registry.clone(), outbox.clone());
        let asked = find.map(|find| async move {
            // The semaphore is never closed.
            let _permit = this.describing.acquire().await.ok();
            room.room().await;
            if !room.is_open() {
                return None;
            }
            Some(registry.send(find).await.unwrap_or_else(|_| Err(master_ends())))
        });
        self.spawn(outbox, callback_id, asked, None, move |outbox, found| {
            let encoded = |found| Ok(Payload::encode(Encoding::MessagePack, &found)?);
            if let Some(found) = found {
                outbox.respond(callback_id, found.and_then(encoded));
            }
        });
    }

    /// Tells the branch which actions there are, when the answers before have left and the registry has answered. A branch that does not read
    /// costs no work.
    pub(super) fn describe(
        &self,
        outbox: &Outbox,
        callback_id: CallbackId,
        registry: &Addr<RegistryActor>,
        describe: Describe,
    ) {
        let (this, registry, room) = (Rc::clone(&self.0), registry.clone(), outbox.clone());
        // It waits for its own branch, so it keeps nothing of its block: it is bounded by the requests that may be unanswered.
        let Describe { pattern, after, standing } = describe;
        let describe = Describe { pattern: pattern.copied(), after: ByteString::from(&*after), standing };
        let asking = async move {
            // The semaphore is never closed.
            let _permit = this.describing.acquire().await.ok();
            room.room().await;
            if !room.is_open() {
                return None;
            }
            let asked = if room.features().contains(Features::DESCRIBE_AFTER) {
                ask(&registry, describe).await.map(|part| vec![part])
            } else {
                ask_for_all(&registry, describe).await
            };
            Some(asked)
        };
        self.spawn(outbox, callback_id, Ok(asking), None, move |outbox, answered| match answered {
            None => {}
            Some(Err(error)) => outbox.respond(callback_id, Err(error)),
            Some(Ok(parts)) => {
                let head = DescribedPart::head(callback_id, &parts);
                let told = outbox.hold().push_in_pieces(&head, parts.iter().map(DescribedPart::bytes));
                if let Err(refusal) = told {
                    outbox.respond(callback_id, Err(refusal.into_error(Receiver::Caller)));
                }
            }
        });
    }

    /// How many requests are not answered yet.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.0.count.get()
    }

    fn spawn<F: Future + 'static>(
        &self,
        outbox: &Outbox,
        callback_id: CallbackId,
        asked: Result<F, CallError>,
        charge: Option<Charge>,
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
        let count = &self.0.count;
        if count.get() >= PENDING_MAX {
            let why = format!("{PENDING_MAX} requests to the registry are unanswered");
            return Err(CallError::new(Code::OVERLOADED, Fate::NotSent, why));
        }
        count.set(count.get() + 1);
        Ok(PendingGuard(Rc::clone(&self.0)))
    }
}

/// Counts one unanswered request as long as it lives.
struct PendingGuard(Rc<Unanswered>);

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}

/// Asks the registry for the next part, step by step: it takes other messages in between.
async fn ask(registry: &Addr<RegistryActor>, describe: Describe) -> Result<DescribedPart, CallError> {
    let Describe { pattern, mut after, standing } = describe;
    loop {
        match registry.send(Describe { pattern: pattern.clone(), after, standing: standing.clone() }).await {
            Ok(Answer::Part(part)) => return Ok(part),
            Ok(Answer::NoneUntil(last)) => after = last,
            Err(_) => return Err(master_ends()),
        }
    }
}

/// Asks for as many parts as fit into one answer, for a branch of before, which knows no further answers.
async fn ask_for_all(
    registry: &Addr<RegistryActor>,
    describe: Describe,
) -> Result<Vec<DescribedPart>, CallError> {
    let Describe { pattern, mut after, standing } = describe;
    let (mut parts, mut count, mut elements, mut len) = (Vec::new(), 0, 0, 0);
    while count + DESCRIBED_PART_MAX <= DESCRIBED_MAX
        && elements + DESCRIBED_PART_ELEMENTS_MAX <= HEAD_ELEMENTS_MAX
        && len + DESCRIBED_PART_LEN_MAX <= DESCRIBED_LEN_MAX
    {
        let part =
            ask(registry, Describe { pattern: pattern.clone(), after, standing: standing.clone() }).await?;
        let Some(last) = part.read().ok().and_then(|mut actions| actions.pop()) else {
            break;
        };
        after = last.action;
        (count, elements, len) = (count + part.count(), elements + part.elements(), len + part.bytes().len());
        parts.push(part);
    }
    Ok(parts)
}

/// The error of a question that registry or router did not answer, since they have ended.
fn master_ends() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::Unknown, "the master ends")
}

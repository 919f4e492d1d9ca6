//! The requests that a node is answering.

use super::action::{Action, NoPermit, Permit, WaitsForPermit};
use super::blocking::Blocking;
use super::cause::Cancels;
use super::hops::{self, Answered};
use super::keyed::{self, Asked, Keyed};
use super::outlet::{Grants, Outlet, Source};
use super::reply_to::{Nobody, ReplyTo, panicked};
use super::responder::{Answer, CallContext, ContextRef, NodeHandle, Replier, Work, claimed};
use crate::hashed::{Entry, HashMap};
use crate::link::lanes::fits_share;
use crate::log_line;
use crate::repeated::Repeated;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Fate, Function, Grant, Invocation, Outcome, Payload, PayloadRef,
};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The requests that a node is answering and that were not answered at once. Dropping it drops their futures.
pub(crate) struct Answering(Rc<Tasks>);

/// How many requests a node answers at once, and how many bytes their arguments may have, of those that came over one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnsweringBounds {
    pub(crate) count_max: usize,
    pub(crate) len_max: usize,
}

impl AnsweringBounds {
    /// The bounds of the node's own calls, which other bounds hold down.
    pub(crate) const OWN: Self = Self { count_max: usize::MAX, len_max: usize::MAX };
}

/// The tasks that await the futures of responders, by the callback ids of the requests.
struct Tasks {
    /// The number of the node.
    number: u64,
    /// The node, for its responders.
    node: NodeHandle,
    bounds: AnsweringBounds,
    /// The blocking work of the node.
    blocking: Arc<Blocking>,
    /// How many bytes the arguments of the requests have that are being answered, as far as they count: see [`COUNTED_LEN_MIN`].
    len: Cell<usize>,
    /// The same for each caller that has some.
    len_by_caller: RefCell<HashMap<ByteString, usize>>,
    by_id: RefCell<HashMap<CallbackId, AbortHandle>>,
    /// Where the grants of streams go, by the ids of the requests in `by_id` that they answer.
    streams: RefCell<HashMap<CallbackId, Arc<Grants>>>,
    /// How many requests were not answered at once and have ended.
    finished: Cell<u64>,
    /// How many calls of functions were started whose callers wait for no outcome.
    quiet: Cell<u64>,
    /// Notified whenever the last task has ended, for the drain of the node.
    idle: Notify,
    /// The requests with keys, of all links.
    keyed: Arc<Keyed>,
}

/// Shorter arguments do not count: the bound on the requests bounds them too.
const COUNTED_LEN_MIN: usize = 1024;

/// The arguments of a request that is being answered: how many bytes of whose share they take until this is dropped. None if they are short.
struct Held(Option<(Rc<Tasks>, ByteString, usize)>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((tasks, caller, len)) = self.0.take() {
            tasks.len.set(tasks.len.get() - len);
            if let Entry::Occupied(mut mine) = tasks.len_by_caller.borrow_mut().entry(caller) {
                *mine.get_mut() -= len;
                if *mine.get() == 0 {
                    mine.remove();
                }
            }
        }
    }
}

impl Answering {
    pub(crate) fn new(
        (number, node): (u64, NodeHandle),
        bounds: AnsweringBounds,
        blocking: Arc<Blocking>,
        keyed: &Arc<Keyed>,
    ) -> Self {
        blocking.is_of(number);
        Self(Rc::new(Tasks {
            number,
            node,
            bounds,
            blocking,
            len: Cell::new(0),
            len_by_caller: RefCell::default(),
            by_id: RefCell::default(),
            streams: RefCell::default(),
            finished: Cell::new(0),
            quiet: Cell::new(0),
            idle: Notify::new(),
            keyed: Arc::clone(keyed),
        }))
    }

    /// Answers a request: at once if its future is ready, else by a task of its own, which [`Answering::cancel`] ends.
    pub(crate) fn start(
        &self,
        action: &Action,
        arguments: PayloadRef<'_>,
        context: &CallContext,
        callback_id: CallbackId,
        reply_to: &impl ReplyTo,
    ) {
        let len = arguments.bytes.len() + context.headers().len();
        if let Err(error) = self.admit(context.caller_name(), len) {
            return reply_to.reply(callback_id, Err(error));
        }
        if !context.headers().is_empty() && context.idempotency_key().is_some() {
            return self.start_keyed(action, arguments, context, callback_id, reply_to);
        }
        let permit = match action.permit(context.caller()) {
            Ok(permit) => permit,
            Err(NoPermit::Refused) => return reply_to.reply(callback_id, Err(action.no_permit())),
            Err(NoPermit::Waits(waits)) => {
                return self.start_later(waits, action, arguments, context, (callback_id, None), reply_to);
            }
        };
        let said = Cell::new(false);
        let reply = Replier::new(callback_id, &said, reply_to.gathered());
        let answered = self.answered(context);
        let given = ContextRef::new(context, &self.0.node, answered, false);
        let respond = || answered.during(|| action.responder.respond(arguments, &given, reply));
        let weight = (context.caller_name(), len);
        let of = Some((&given, answered));
        self.run(respond, &said, &action.offer.action, callback_id, reply_to, permit, of, weight);
    }

    /// Answers a request for a stream, whose consumer has granted so much at first.
    pub(crate) fn stream(
        &self,
        action: &Action,
        arguments: PayloadRef<'_>,
        context: &CallContext,
        (callback_id, grant): (CallbackId, Grant),
        reply_to: &impl ReplyTo,
    ) {
        let len = arguments.bytes.len() + context.headers().len();
        if let Err(error) = self.admit(context.caller_name(), len) {
            return reply_to.reply(callback_id, Err(error));
        }
        let Some(outlet) = self.outlet(callback_id, grant, reply_to) else {
            return reply_to.reply(callback_id, Err(nobody_reads()));
        };
        match action.permit(context.caller()) {
            Ok(permit) => {
                let answered = self.answered(context);
                let given = ContextRef::new(context, &self.0.node, answered, true);
                let respond = || answered.during(|| action.responder.stream(arguments, &given, outlet));
                let (said, of) = (Cell::new(false), Some((&given, answered)));
                let weight = (context.caller_name(), len);
                let what = &action.offer.action;
                self.run(respond, &said, what, callback_id, reply_to, permit, of, weight);
            }
            Err(NoPermit::Refused) => reply_to.reply(callback_id, Err(action.no_permit())),
            Err(NoPermit::Waits(waits)) => {
                self.start_later(waits, action, arguments, context, (callback_id, Some(outlet)), reply_to);
            }
        }
        self.forget_unless_answering(callback_id);
    }

    /// The outlet of a stream that is being answered; none if nobody reads it any more.
    fn outlet(&self, callback_id: CallbackId, grant: Grant, reply_to: &impl ReplyTo) -> Option<Outlet> {
        let outlet = Outlet::new(callback_id, reply_to.to(callback_id)?, grant);
        self.0.streams.borrow_mut().insert(callback_id, Arc::clone(outlet.grants()));
        Some(outlet)
    }

    /// Forgets a stream that ended at once.
    fn forget_unless_answering(&self, callback_id: CallbackId) {
        if !self.contains(callback_id) {
            self.0.streams.borrow_mut().remove(&callback_id);
        }
    }

    /// Takes what the consumer of a stream grants more. A stream that has ended needs it no more.
    pub(crate) fn grant(&self, callback_id: CallbackId, grant: Grant) {
        if let Some(grants) = self.0.streams.borrow().get(&callback_id) {
            grants.add(grant);
        }
    }

    /// How many streams are being answered.
    #[cfg(feature = "testing")]
    pub(crate) fn streams(&self) -> usize {
        self.0.streams.borrow().len()
    }

    /// Whether a request may be answered: whether there is room for it, and its caller has not its share already.
    #[inline]
    pub(crate) fn admit(&self, caller: &ByteString, len: usize) -> Result<(), CallError> {
        let Tasks { bounds, by_id, len: held, .. } = &*self.0;
        let has_place = by_id.borrow().len() < bounds.count_max;
        // Most of the time so much is free that no share needs to be looked up.
        if has_place && held.get() + len <= bounds.len_max / 2 {
            Ok(())
        } else {
            self.admit_share(caller, len)
        }
    }

    #[cold]
    fn admit_share(&self, caller: &ByteString, len: usize) -> Result<(), CallError> {
        let Tasks { bounds: AnsweringBounds { count_max, len_max }, by_id, len: held, .. } = &*self.0;
        let refuse = |what| Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what));
        if by_id.borrow().len() >= *count_max {
            return refuse(format!("{count_max} requests are being answered already"));
        }
        let mine = self.0.len_by_caller.borrow().get(caller).copied().unwrap_or_default();
        if len >= COUNTED_LEN_MIN && !fits_share(mine, len, held.get(), *len_max) {
            return refuse(format!(
                "requests with {} bytes of arguments are being answered, {mine} of this caller: there is no room for {len} more",
                held.get()
            ));
        }
        Ok(())
    }

    /// Counts the arguments of a request as long as it is being answered.
    #[inline]
    fn hold(&self, (caller, len): (&ByteString, usize)) -> Held {
        if len < COUNTED_LEN_MIN || self.0.bounds.len_max == usize::MAX {
            return Held(None);
        }
        self.0.len.set(self.0.len.get() + len);
        *self.0.len_by_caller.borrow_mut().entry(caller.clone()).or_default() += len;
        Held(Some((Rc::clone(&self.0), caller.clone(), len)))
    }

    fn answered(&self, context: &CallContext) -> Answered {
        Answered { node: self.0.number, hops: context.hops() }
    }

    /// Answers a request with a key: it runs if it is the first with its key, else it gets the outcome of that.
    #[cold]
    fn start_keyed(
        &self,
        action: &Action,
        arguments: PayloadRef<'_>,
        context: &CallContext,
        callback_id: CallbackId,
        reply_to: &impl ReplyTo,
    ) {
        let key = context.idempotency_key().unwrap_or_default();
        let run = match self.0.keyed.ask(context.caller(), context.action(), key) {
            Asked::Runs(run) => run,
            Asked::Had(outcome) => return reply_to.reply(callback_id, outcome),
            Asked::Refused(error) => return reply_to.reply(callback_id, Err(error)),
            Asked::Waits(told) => return self.wait_keyed(told, callback_id, reply_to),
        };
        let permit = match action.permit(context.caller()) {
            Ok(permit) => Ok(permit),
            Err(NoPermit::Waits(waits)) => Err(waits),
            Err(NoPermit::Refused) => {
                let error = action.no_permit();
                run.refuse(error.clone());
                return reply_to.reply(callback_id, Err(error));
            }
        };
        let PayloadRef { encoding, bytes, callbacks } = arguments;
        let arguments = Payload { callbacks: callbacks.clone(), ..Payload::new(encoding, bytes.to_vec()) };
        let held = self.hold((context.caller_name(), bytes.len() + context.headers().len()));
        let (answered, responder, context) =
            (self.answered(context), Arc::clone(&action.responder), context.clone());
        let (blocking, node) = (Arc::clone(&self.0.blocking), Arc::clone(&self.0.node));
        let answer = Box::pin(async move {
            let permit = match permit {
                Ok(permit) => permit,
                Err(waits) => waits.permit().await,
            };
            let said = Cell::new(false);
            let reply = Replier::new(callback_id, &said, None);
            // The run goes on when its caller gives up, and so does what it calls.
            let given = ContextRef::new(&context, &node, answered, false);
            match responder.respond((&arguments).into(), &given, reply) {
                Answer::Now(outcome) => outcome,
                Answer::Later(answer) => answer.await,
                Answer::Blocking(work) => blocking.outcome(work, context, Some(answered), permit).await,
                // Nothing is gathered here, so no reply can be said.
                Answer::Said => Err(claimed()),
            }
        });
        let told = run.start(Box::pin(hops::Answer { answered, outcome: answer }), held);
        self.wait_keyed(told, callback_id, reply_to);
    }

    /// Answers a request when the run of its key has its outcome. A cancel ends the wait, and not the run.
    fn wait_keyed(&self, told: oneshot::Receiver<Outcome>, callback_id: CallbackId, reply_to: &impl ReplyTo) {
        let answer = Box::pin(keyed::outcome(told));
        self.spawn(
            answer,
            callback_id,
            reply_to.later(),
            Permit::unbounded(),
            (None, Cancels::of(None)),
            Held(None),
        );
    }

    /// Answers a request when it has a permit.
    fn start_later(
        &self,
        waits: WaitsForPermit,
        action: &Action,
        arguments: PayloadRef<'_>,
        context: &CallContext,
        (callback_id, outlet): (CallbackId, Option<Outlet>),
        reply_to: &impl ReplyTo,
    ) {
        let PayloadRef { encoding, bytes, callbacks } = arguments;
        let arguments = Payload { callbacks: callbacks.clone(), ..Payload::new(encoding, bytes.to_vec()) };
        let answered = self.answered(context);
        let (context_of, len) = (context, bytes.len() + context.headers().len());
        let (responder, context) = (Arc::clone(&action.responder), context.clone());
        let (blocking, node) = (Arc::clone(&self.0.blocking), Arc::clone(&self.0.node));
        let answer = async move {
            let permit = waits.permit().await;
            let said = Cell::new(false);
            let (answer, cancels) = {
                let given = ContextRef::new(&context, &node, answered, outlet.is_some());
                let reply = Replier::new(callback_id, &said, None);
                let answer = match outlet {
                    Some(outlet) => responder.stream((&arguments).into(), &given, outlet),
                    None => responder.respond((&arguments).into(), &given, reply),
                };
                (answer, given.cancels())
            };
            let outcome = match answer {
                Answer::Now(outcome) => outcome,
                Answer::Later(answer) => answer.await,
                Answer::Blocking(work) => blocking.outcome(work, context, Some(answered), permit).await,
                // Nothing is gathered here, so no reply can be said.
                Answer::Said => Err(claimed()),
            };
            cancels.disarm();
            outcome
        };
        let held = self.hold((context_of.caller_name(), len));
        self.spawn(
            Box::pin(answer),
            callback_id,
            reply_to.later(),
            Permit::unbounded(),
            (Some(answered), Cancels::of(None)),
            held,
        );
    }

    /// Opens a function that was lent and is a stream, whose consumer has granted so much at first.
    pub(crate) fn open(
        &self,
        function: &Function,
        arguments_len: usize,
        (callback_id, grant): (CallbackId, Grant),
        reply_to: &impl ReplyTo,
    ) {
        let Some(outlet) = self.outlet(callback_id, grant, reply_to) else {
            return reply_to.reply(callback_id, Err(nobody_reads()));
        };
        let open = || match Source::open(function, outlet) {
            Ok(producing) => Answer::Later(producing),
            Err(error) => Answer::Now(Err(error)),
        };
        let (nobody, said, permit) = (ByteString::new(), Cell::new(false), Permit::unbounded());
        let weight = (&nobody, arguments_len);
        self.run(open, &said, "a stream", callback_id, reply_to, permit, None, weight);
        self.forget_unless_answering(callback_id);
    }

    /// Calls a function that was lent: at once if its future is ready, else by a task of its own. Without a callback id the caller waits for no
    /// outcome.
    pub(crate) fn invoke(
        &self,
        function: &Function,
        invocation: Invocation,
        callback_id: Option<CallbackId>,
        reply_to: &impl ReplyTo,
    ) {
        let (nobody, len) = (ByteString::new(), invocation.arguments.len());
        let invoke = || {
            let mut answer: LocalBoxFuture<'static, Outcome> = function.invoke(invocation);
            match answer.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Answer::Now(outcome),
                Poll::Pending => Answer::Later(answer),
            }
        };
        let (said, permit) = (Cell::new(false), Permit::unbounded());
        match callback_id {
            Some(callback_id) => {
                self.run(invoke, &said, "a callback", callback_id, reply_to, permit, None, (&nobody, len));
            }
            None => {
                // Callback ids are drawn from zero up, so no request has an id counted from the top.
                let quiet = self.0.quiet.get() + 1;
                self.0.quiet.set(quiet);
                let callback_id = CallbackId(u64::MAX - quiet);
                self.run(invoke, &said, "a callback", callback_id, &Nobody, permit, None, (&nobody, len));
            }
        }
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "these are the parts of a request")]
    fn run(
        &self,
        respond: impl FnOnce() -> Answer,
        said: &Cell<bool>,
        what: &str,
        callback_id: CallbackId,
        reply_to: &impl ReplyTo,
        permit: Permit,
        request: Option<(&ContextRef<'_>, Answered)>,
        weight: (&ByteString, usize),
    ) {
        match catch_unwind(AssertUnwindSafe(respond)) {
            Ok(Answer::Said) if said.get() => {}
            _ if said.get() => {
                static TWICE: Repeated = Repeated::new();
                let line = TWICE.error(Instant::now().into_std());
                log_line!(line, "the responder of {what} answered twice: its second answer is dropped");
            }
            Ok(Answer::Said) => {
                reply_to.reply(callback_id, Err(claimed()));
            }
            Ok(Answer::Now(outcome)) => reply_to.reply(callback_id, outcome),
            Ok(Answer::Later(answer)) => {
                let of = match request {
                    Some((given, answered)) => (Some(answered), given.cancels()),
                    None => (None, Cancels::of(None)),
                };
                self.spawn(answer, callback_id, reply_to.later(), permit, of, self.hold(weight));
            }
            Ok(Answer::Blocking(work)) => match request {
                Some(request) => self.block(work, request, callback_id, reply_to, permit, self.hold(weight)),
                // Only the responders of requests answer so.
                None => reply_to.reply(callback_id, Err(claimed())),
            },
            Err(panic) => reply_to.reply(callback_id, Err(panicked(what, &*panic))),
        }
    }

    /// Answers a request by work on a thread of its own.
    #[cold]
    fn block(
        &self,
        work: Work,
        (given, answered): (&ContextRef<'_>, Answered),
        callback_id: CallbackId,
        reply_to: &impl ReplyTo,
        permit: Permit,
        held: Held,
    ) {
        let context = CallContext::clone(given);
        let outcome = Arc::clone(&self.0.blocking).outcome(work, context, Some(answered), permit);
        let of = (None, given.cancels());
        self.spawn(Box::pin(outcome), callback_id, reply_to.later(), Permit::unbounded(), of, held);
    }

    fn spawn(
        &self,
        answer: LocalBoxFuture<'static, Outcome>,
        callback_id: CallbackId,
        reply_to: impl ReplyTo + 'static,
        permit: Permit,
        (answered, cancels): (Option<Answered>, Cancels),
        held: Held,
    ) {
        let answer = async move {
            match answered {
                Some(answered) => hops::Answer { answered, outcome: answer }.await,
                None => answer.await,
            }
        };
        let tasks = Rc::downgrade(&self.0);
        let task = actix_rt::spawn(async move {
            let outcome = AssertUnwindSafe(answer).catch_unwind().await;
            cancels.disarm();
            drop((permit, held));
            let outcome = outcome.unwrap_or_else(|panic| Err(panicked("the action", &*panic)));
            if let Some(tasks) = tasks.upgrade() {
                tasks.ended(callback_id);
            }
            reply_to.reply(callback_id, outcome);
        });
        let before = self.0.by_id.borrow_mut().insert(callback_id, task.abort_handle());
        // A peer that uses an id again would have more requests answered than are counted.
        if let Some(before) = before {
            before.abort();
        }
    }

    /// Drops the future of a request whose caller gave up.
    pub(crate) fn cancel(&self, callback_id: CallbackId) -> bool {
        let task = self.0.by_id.borrow_mut().remove(&callback_id);
        if let Some(task) = &task {
            task.abort();
            self.0.forget_stream(callback_id);
            self.0.tell_if_idle();
        }
        task.is_some()
    }

    pub(crate) fn contains(&self, callback_id: CallbackId) -> bool {
        self.0.by_id.borrow().contains_key(&callback_id)
    }

    /// The ids of the requests that are being answered and whose callers wait for an outcome, in no order.
    pub(crate) fn ids(&self) -> Vec<CallbackId> {
        let last = u64::MAX - self.0.quiet.get();
        self.0.by_id.borrow().keys().copied().filter(|id| id.0 < last).collect()
    }

    /// How many requests are being answered.
    pub(crate) fn len(&self) -> usize {
        self.0.by_id.borrow().len()
    }

    /// How many requests were not answered at once and have ended.
    pub(crate) fn finished(&self) -> u64 {
        self.0.finished.get()
    }

    /// Waits until no request is being answered.
    pub(crate) fn idle(&self) -> impl Future<Output = ()> + use<> {
        let tasks = Rc::clone(&self.0);
        async move {
            loop {
                let notified = tasks.idle.notified();
                if tasks.by_id.borrow().is_empty() {
                    return;
                }
                notified.await;
            }
        }
    }

    /// Drops the futures of all requests.
    pub(crate) fn cancel_all(&self) {
        for (_, task) in self.0.by_id.borrow_mut().drain() {
            task.abort();
        }
        self.0.streams.borrow_mut().clear();
        self.0.tell_if_idle();
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.cancel_all();
    }
}

impl Tasks {
    fn ended(&self, callback_id: CallbackId) {
        self.by_id.borrow_mut().remove(&callback_id);
        self.forget_stream(callback_id);
        self.finished.set(self.finished.get() + 1);
        self.tell_if_idle();
    }

    fn forget_stream(&self, callback_id: CallbackId) {
        let mut streams = self.streams.borrow_mut();
        if !streams.is_empty() {
            streams.remove(&callback_id);
        }
    }

    fn tell_if_idle(&self) {
        if self.by_id.borrow().is_empty() {
            self.idle.notify_waiters();
        }
    }
}

/// The error of a stream whose consumer has gone.
fn nobody_reads() -> CallError {
    CallError::new(Code::CANCELLED, Fate::NotSent, "nobody waits for the stream any more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::doubles::DoublesBounds;
    use crate::answers::outlet::To;
    use crate::answers::responder::Responder;
    use crate::link::gathered::GatheredReplies;
    use meshwork_wire::{ByteString, Encoding, Headers, Offer};

    /// Says a reply, and answers in this way after it; or claims to have said one.
    struct Twice(fn() -> Answer, bool);

    impl Responder for Twice {
        fn respond(&self, _: PayloadRef<'_>, _: &ContextRef<'_>, reply: Replier<'_>) -> Answer {
            if self.1 {
                reply.say(Encoding::Json, &1);
            }
            (self.0)()
        }
    }

    /// Counts the replies.
    #[derive(Clone, Default)]
    struct Heard(Rc<RefCell<Vec<Outcome>>>, Rc<GatheredReplies>);

    impl ReplyTo for Heard {
        fn to(&self, _: CallbackId) -> Option<To> {
            None
        }

        type Later = Self;

        fn reply(&self, _: CallbackId, outcome: Outcome) {
            self.0.borrow_mut().push(outcome);
        }

        fn gathered(&self) -> Option<&GatheredReplies> {
            Some(&self.1)
        }

        fn later(&self) -> Self {
            self.clone()
        }
    }

    /// Such a responder once answered its request twice.
    #[actix_rt::test]
    async fn a_request_is_answered_once_whatever_its_responder_does() {
        let ways: [fn() -> Answer; 4] = [
            || Answer::Now(Ok(Payload::default())),
            || Answer::Later(Box::pin(async { Ok(Payload::default()) })),
            || panic!("no"),
            || Answer::Said,
        ];
        for (way, says) in ways.into_iter().flat_map(|way| [(way, true), (way, false)]) {
            let heard = Heard::default();
            let offer =
                Offer { action: "a".into(), accepts: meshwork_wire::Accepts::MessagePack, shape: None };
            let action = Action::new(offer, Arc::new(Twice(way, says)));
            let context = CallContext::new("a".into(), ByteString::new(), None, 0, Headers::none());
            let (blocking, keyed) = (Blocking::new(1, 0), Keyed::new(DoublesBounds::DEFAULT));
            let answering = Answering::new((0, Arc::new(())), AnsweringBounds::OWN, blocking, &keyed);
            answering.start(&action, (&Payload::default()).into(), &context, CallbackId(1), &heard);
            answering.idle().await;
            tokio::task::yield_now().await;
            let said = usize::from(!heard.1.is_empty());
            assert_eq!((said, said + heard.0.borrow().len()), (usize::from(says), 1));
        }
    }
}

//! The calls that the master itself makes: of its own actions, of actions that branches offer, and of functions that branches lent. A
//! value with methods; `master.rs` hands it the submissions of the handles and the replies of the sessions.

use super::bundles::push_to;
use super::dispatch::{Dispatch, Kept, KeptLen, Routed, Waiting, WaitsAt};
use super::forwarded::{Beside, Flowing, Forwarded, MASTER, Outgoing, Part, Replied, Target};
use super::handle::{ForwardingCaller, Release, ReplyMailbox, SessionHandle};
use super::registry::Found;
use super::registry::route::{Provider as _, no_provider};
use super::surroundings::MasterShared;
use super::wishes::Wishes;
use crate::answers::CallContext;
use crate::answers::answering::{Answering, AnsweringBounds};
use crate::calls::in_flight::Departure;
use crate::calls::requests::Requests;
use crate::calls::response::Calls;
use crate::hashed::HashMap;
use crate::link::refusal::gone;
#[cfg(feature = "testing")]
use crate::node::census::Census;
use crate::node::submission::{Ask, Invoking};
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Fate, Granted, Invocation, Payload, Request, SessionId,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The calls of a master.
pub(super) struct MasterCalls {
    shared: Arc<MasterShared>,
    me: Arc<ForwardingCaller>,
    requests: Rc<RefCell<Requests<Destination>>>,
    dispatch: Dispatch<SessionHandle>,
    /// The calls whose actions the registry is asked about. Bounded by the calls in flight.
    waiting: HashMap<CallbackId, WaitsAt>,
    /// Calls that were forwarded, kept in case that their providers do not run them. Bounded by the calls in flight.
    kept: HashMap<CallbackId, Kept>,
    kept_len: KeptLen,
    /// Calls of the master that it answers itself and did not answer at once.
    answering: Answering,
    outgoing: Outgoing<SessionHandle, ReplyMailbox>,
    /// Functions that the master has released. Sent last, so that no release overtakes a call of its function.
    releases: Vec<(SessionHandle, CallbackId)>,
    draining: bool,
}

/// The destination of a call of the master; a call that still waits for the registry has none.
enum Destination {
    /// A responder of the master.
    OwnResponder,
    /// The branch of a session, by the id that was drawn there.
    Session(SessionHandle, CallbackId),
}

impl MasterCalls {
    pub(super) fn new(shared: Arc<MasterShared>, replies: ReplyMailbox) -> Self {
        let me = ForwardingCaller { id: MASTER, name: shared.name.clone(), mailbox: replies };
        Self {
            me: Arc::new(me),
            requests: Rc::new(RefCell::new(Requests::new(Arc::clone(&shared.node) as Arc<dyn Calls>))),
            dispatch: Dispatch::new(&shared.name, shared.config.balance),
            waiting: HashMap::default(),
            kept: HashMap::default(),
            kept_len: KeptLen::new(shared.limits.kept_len_max, Arc::clone(&shared.kept_pool)),
            answering: Answering::new(
                shared.node.handle(),
                AnsweringBounds::OWN,
                Arc::clone(&shared.blocking),
                shared.node.keyed(),
            ),
            outgoing: Outgoing::default(),
            releases: Vec::new(),
            draining: false,
            shared,
        }
    }

    /// Binds a response actor to the calls of a departure, which leave now.
    pub(super) fn bind(&self, departure: Option<Departure>) {
        if let Some(departure) = departure {
            self.requests.borrow_mut().bind(departure);
        }
    }

    /// Answers a call, forwards it, or lets it wait for the registry.
    pub(super) fn ask(&mut self, ask: Ask) {
        let Ask { request, deadline, grant, .. } = ask;
        let callback_id = request.callback_id;
        if self.draining {
            let error = CallError::new(Code::DRAINING, Fate::NotSent, "the master is draining");
            return self.refuse(callback_id, error);
        }
        match Wishes::of(&request.headers) {
            Ok(wishes) => {
                self.send_or_wait(Waiting { request, grant, deadline, wishes, tried: Vec::new() }, None);
            }
            Err(error) => self.refuse(callback_id, error),
        }
    }

    /// Answers or forwards a call, or lets it wait for the registry; refuses it if no provider is left, with the error of the last provider that
    /// did not run it.
    fn send_or_wait(&mut self, waiting: Waiting, error: Option<CallError>) {
        let Self { dispatch, outgoing, kept, kept_len, .. } = self;
        let (callback_id, request) = (waiting.request.callback_id, &waiting.request);
        match (dispatch.route(&request.action, waiting.asked()), error) {
            (Some(Routed::Nowhere(..)), Some(error)) => self.refuse(callback_id, error),
            (Some(routed), _) => {
                let sending = Sending {
                    requests: &self.requests,
                    answering: &self.answering,
                    outgoing,
                    kept,
                    kept_len,
                    me: &self.shared.name,
                };
                sending.send(routed, waiting);
            }
            (None, _) => {
                let at = dispatch.wait(waiting);
                self.requests.borrow_mut().clear_destination(callback_id);
                self.waiting.insert(callback_id, at);
            }
        }
    }

    /// Calls a function that the branch of a session lent.
    pub(super) fn invoke(&mut self, invoking: Invoking) {
        let Invoking { link, function, callback_id, deadline, invocation } = invoking;
        let Invocation { arguments, wants, .. } = invocation;
        let Some(to) = self.shared.session(SessionId(link)) else {
            if let Some(callback_id) = callback_id {
                self.refuse(callback_id, gone("the node that lent it went away"));
            }
            return;
        };
        let id_at_provider = to.next_id();
        let id_at_caller = match callback_id {
            Some(callback_id) => {
                let destination = Destination::Session(to.clone(), id_at_provider);
                self.requests.borrow_mut().set_destination(callback_id, destination);
                callback_id
            }
            None if to.begin_notification() => id_at_provider,
            None => {
                log::debug!("too many calls of functions are on their way to {}: one is dropped", to.name());
                return;
            }
        };
        let target = Target::Function(function, wants);
        let (beside, payload) = (Beside::none(), arguments);
        let forwarded = Forwarded { id_at_caller, id_at_provider, target, deadline, beside, payload };
        let is = |other: &SessionHandle| other.id() == to.id();
        push_to(&mut self.outgoing.forwards, is, || Rc::new(to.clone()), forwarded, 0);
    }

    /// Releases a function of the branch of a session, unless the session has ended.
    pub(super) fn release(&mut self, session: u64, function: CallbackId) {
        self.releases.extend(self.shared.session(SessionId(session)).map(|session| (session, function)));
    }

    /// Cancels a call that its caller dropped.
    pub(super) fn cancel(&mut self, callback_id: CallbackId) {
        let destination = self.requests.borrow_mut().cancel(callback_id);
        self.stop(callback_id, destination);
    }

    /// Takes the answer to a call that another actor of the master gives.
    pub(super) fn answer(&self, callback_id: CallbackId) -> impl FnOnce(Result<(), CallError>) + use<> {
        let requests = Rc::clone(&self.requests);
        move |answer| requests.borrow_mut().resolve(callback_id, answer.map(|()| Payload::default()))
    }

    fn refuse(&self, callback_id: CallbackId, error: CallError) {
        self.requests.borrow_mut().resolve(callback_id, Err(error));
    }

    /// Takes the answers of the registry: the calls that waited for the actions are answered, forwarded or refused.
    pub(super) fn looked_up(&mut self, actions: Vec<ByteString>, found: Vec<Found>) {
        let found = found.into_iter().chain(std::iter::repeat(Found::Nowhere));
        for (action, found) in actions.into_iter().zip(found) {
            let mut found = self.dispatch.looked_up(action, found);
            for waited in std::mem::take(&mut found.requests).into_iter().flatten() {
                self.waiting.remove(&waited.request.callback_id);
                let routed = self.dispatch.route_found(&found, waited.asked());
                let Self { requests, answering, outgoing, kept, kept_len, .. } = self;
                let me = &self.shared.name;
                let sending = Sending { requests, answering, outgoing, kept, kept_len, me };
                sending.send(routed, *waited);
            }
        }
    }

    /// Takes the outcomes of calls that were forwarded. `true` if calls are sent to other providers, and messages with them.
    pub(super) fn replied(&mut self, from: SessionId, replies: Vec<Replied>) -> bool {
        let mut elsewhere = Vec::new();
        let mut requests = self.requests.borrow_mut();
        for Replied { id_at_caller, outcome, .. } in replies {
            let kept = if self.kept.is_empty() { None } else { self.kept.remove(&id_at_caller) };
            match (kept, outcome) {
                (Some(kept), outcome) if !self.draining && kept.may_go_elsewhere(&outcome) => {
                    let waiting = self.kept_len.release(kept, from);
                    elsewhere.extend(outcome.err().map(|error| (waiting, error)));
                }
                (kept, outcome) => {
                    kept.iter().for_each(|kept| self.kept_len.forget(kept));
                    requests.resolve_in_row(id_at_caller, outcome.into());
                }
            }
        }
        requests.end_row();
        drop(requests);
        let is_sending = !elsewhere.is_empty();
        for (waiting, error) in elsewhere {
            self.send_or_wait(waiting, Some(error));
        }
        is_sending
    }

    /// Takes parts of streams that answer calls of the master.
    pub(super) fn flow(&mut self, parts: Vec<Flowing>) {
        for Flowing { id_at_caller, part, .. } in parts {
            let requests = self.requests.borrow();
            match part {
                Part::Start => {
                    // Its provider runs it, so no other one is to run it.
                    self.kept.remove(&id_at_caller).iter().for_each(|kept| self.kept_len.forget(kept));
                    requests.started(id_at_caller);
                }
                Part::Item(payload) => {
                    let inbox = requests.inbox(id_at_caller);
                    drop(requests);
                    if let Some(inbox) = inbox {
                        inbox.push((&payload).into(), || payload.clone());
                    }
                }
            }
        }
    }

    /// Grants more items of a stream that answers a call.
    pub(super) fn grant(&mut self, granted: Granted) {
        let requests = self.requests.borrow();
        match requests.destination(granted.callback_id) {
            Some(Destination::OwnResponder) => self.answering.grant(granted.callback_id, granted.grant),
            Some(Destination::Session(session, id_at_provider)) => {
                let streams = self.outgoing.streams.get_or_insert_default();
                let granted = Granted { callback_id: *id_at_provider, ..granted };
                let is = |other: &SessionHandle| other.id() == session.id();
                push_to(&mut streams.grants, is, || Rc::new(session.clone()), granted, 0);
            }
            None => {}
        }
    }

    /// Ends the calls whose deadlines have passed.
    pub(super) fn expire(&mut self, now: Instant) {
        let no_reply = |destination: Option<&Destination>| {
            // A call without a destination still waits for the registry.
            let fate = if destination.is_some() { Fate::Unknown } else { Fate::NotSent };
            CallError::new(Code::REQUEST_TIMEOUT, fate, "no reply came before the deadline")
        };
        let expired = self.requests.borrow_mut().expire(now, no_reply);
        for (callback_id, destination) in expired {
            self.stop(callback_id, destination);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.borrow_mut().next_deadline()
    }

    /// Takes the actions that the registry is to be asked about.
    pub(super) fn take_lookups(&mut self) -> Vec<ByteString> {
        self.dispatch.take_lookups()
    }

    /// Sends the messages that the calls have made: one for each session, and one for each release.
    pub(super) fn send(&mut self) {
        self.dispatch.end_message();
        // The calls of the master's own code came over no connection.
        self.outgoing.send(MASTER, Some(&self.me), || None);
        for (session, function) in self.releases.drain(..) {
            #[expect(
                clippy::disallowed_methods,
                reason = "bounded by the functions that are borrowed: one message each"
            )]
            session.mailboxes().release().do_send(Release(function));
        }
    }

    /// Refuses all further calls.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends every call with this error; gives how many. Calls that still wait for the registry were not sent.
    pub(super) fn fail_all(&mut self, error: &CallError) -> usize {
        let mut requests = self.requests.borrow_mut();
        let not_sent = error.clone().with_fate(Fate::NotSent);
        let routing = requests.fail_if(|destination| destination.is_none(), &not_sent);
        routing + requests.fail_if(|_| true, error)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.requests.borrow().len()
    }

    /// How many entries the tables have.
    #[cfg(feature = "testing")]
    pub(super) fn census(&self) -> Census {
        Census::of(
            &[
                ("that have left", self.in_flight()),
                ("with a destination", self.requests.borrow().with_destination()),
                ("that wait for the registry", self.waiting.len() + self.dispatch.waiting()),
                ("kept", self.kept.len()),
                ("bytes of calls that are kept", self.kept_len.len(self.shared.limits.kept_len_max)),
                ("that the master answers itself", self.answering.len()),
                ("functions to release", self.releases.len()),
                ("streams that the master produces for itself", self.answering.streams()),
            ],
            &[],
        )
    }

    /// How many calls the master is answering itself.
    pub(super) fn answering(&self) -> usize {
        self.answering.len()
    }

    /// Stops the work on a call whose caller waits no longer: the node that answers it is told.
    fn stop(&mut self, callback_id: CallbackId, destination: Option<Destination>) {
        self.kept.remove(&callback_id).iter().for_each(|kept| self.kept_len.forget(kept));
        match destination {
            Some(Destination::OwnResponder) => {
                self.answering.cancel(callback_id);
            }
            Some(Destination::Session(session, id_at_provider)) => {
                let is = |other: &SessionHandle| other.id() == session.id();
                let share = || Rc::new(session.clone());
                push_to(&mut self.outgoing.cancels, is, share, id_at_provider, 0);
            }
            None => {
                if let Some(at) = self.waiting.remove(&callback_id) {
                    self.dispatch.cancel(&at);
                }
            }
        }
    }
}

/// The parts of the calls of a master that change when a call is sent.
struct Sending<'a> {
    requests: &'a Rc<RefCell<Requests<Destination>>>,
    answering: &'a Answering,
    outgoing: &'a mut Outgoing<SessionHandle, ReplyMailbox>,
    kept: &'a mut HashMap<CallbackId, Kept>,
    kept_len: &'a mut KeptLen,
    /// The name of the master.
    me: &'a ByteString,
}

impl Sending<'_> {
    /// Answers, forwards or refuses a call that was routed.
    fn send(self, routed: Routed<'_, SessionHandle>, waiting: Waiting) {
        let callback_id = waiting.request.callback_id;
        if let Routed::Nowhere(reason, there) = routed {
            let error = no_provider(reason, &waiting.request.action, waiting.asked(), there);
            return self.requests.borrow_mut().resolve(callback_id, Err(error));
        }
        let Waiting { request, grant, deadline, wishes, tried } = waiting;
        match routed {
            Routed::Own(own) => {
                self.requests.borrow_mut().set_destination(callback_id, Destination::OwnResponder);
                let deadline = deadline.map(tokio::time::Instant::from_std);
                let Request { action, hops, headers, payload, .. } = request;
                let context = CallContext::new(action, self.me.clone(), deadline, hops, headers);
                let arguments = (&payload).into();
                match grant {
                    None => self.answering.start(own, arguments, &context, callback_id, self.requests),
                    Some(grant) => {
                        let id = (callback_id, grant);
                        self.answering.stream(own, arguments, &context, id, self.requests);
                    }
                }
            }
            Routed::Provider(session, has_others) => {
                let kept = (wishes, tried);
                if has_others && let Some(kept) = self.kept_len.keep(&request, grant, deadline, kept) {
                    self.kept.insert(callback_id, kept);
                }
                session.begin_request();
                let id_at_provider = session.next_id();
                self.requests
                    .borrow_mut()
                    .set_destination(callback_id, Destination::Session(session.clone(), id_at_provider));
                let target = Target::Action(request.action);
                let Request { hops, headers, payload, .. } = request;
                let beside = Beside::new(hops, headers, grant);
                let id_at_caller = callback_id;
                let forwarded = Forwarded { id_at_caller, id_at_provider, target, deadline, beside, payload };
                let is = |to: &SessionHandle| to.id() == session.id();
                push_to(&mut self.outgoing.forwards, is, || Rc::new(session.clone()), forwarded, 0);
            }
            Routed::Nowhere(..) => {}
        }
    }
}

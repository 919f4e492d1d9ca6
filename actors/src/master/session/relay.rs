//! The relay of a session, as a value: requests of its branch that other nodes answer, and requests of other nodes that its branch
//! answers. Frames, messages and moments come in. Frames for the branch go out through closures and [`Decision`]s; messages to other
//! sessions gather in [`Outgoing`]. The session actor carries out decisions and sends messages, and decides nothing.
//!
//! Each request is answered once, and truly: one that was never written to its provider is *not sent*, one that was written and not
//! answered is *unknown*. An entry ends with the answer, the cancel, the deadline or the link.

#![expect(
    clippy::result_large_err,
    reason = "a decision about a request is carried out where it is made, and moved once"
)]

use super::state::{Legality, Phase};
use super::streams::{Passes, Streams};
use crate::answers::Action;
use crate::calls::slots::Slots;
use crate::hashed::{HashMap, HashSet};
use crate::link::lanes::fits_share;
use crate::link::refusal::gone;
use crate::master::bundles::push_to;
use crate::master::dispatch::{Dispatch, Kept, KeptLen, Routed, Waiting, WaitsAt};
use crate::master::forwarded::{
    Beside, Caller, CallerHere, Flowing, Forwarded, Outgoing, Part, Replied, SharedCaller, Target,
};
use crate::master::registry::route::{Balance, Found, Provider, no_provider};
use crate::master::wishes::{Sought, Wishes};
use meshwork_wire::limits::CANCELLED_AS_LATE;
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Fate, Frame, Grant, Granted, Headers, Outcome, Payload, Request,
    SessionId, Wants, check_action,
};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The relay of one session. `P` is the session of a provider, `M` the mailbox of a caller.
pub(crate) struct Relay<P, M> {
    phase: Phase,
    /// Whether the branch has said that it drains.
    branch_drains: bool,
    /// The name of the branch.
    pub(crate) name: ByteString,
    in_flight_max: u32,
    dispatch: Dispatch<P>,
    /// Requests of this branch that another node answers, by the ids that the branch gave them.
    requested: Slots<Requested<P>>,
    aside: Box<Aside<M>>,
    /// Requests of other nodes that this branch answers, by the ids that were drawn here.
    serving: Slots<Serving<M>>,
    /// The callers of these requests. None if there are none, as at most sessions.
    callers: Option<Box<Callers<M>>>,
    /// The messages that leave when the block, or the message, has been taken.
    pub(crate) outgoing: Outgoing<P, M>,
    /// How many frames of the block are not taken yet: the most items that a bundle may still grow by.
    pub(crate) may_follow: u16,
    /// How many bytes that block has; 0 while another message is taken.
    pub(crate) block_len: u32,
}

/// What few frames ask for. Apart, since a session is to be small.
struct Aside<M> {
    /// How many bytes of the requests of the branch are kept, since another provider may have to run them.
    kept: KeptLen,
    /// How many bytes of its requests the layers of the master have not let pass yet.
    held: KeptLen,
    /// Requests of other nodes that came between the registration and the end of the bind. Ids are drawn in the order in which a caller
    /// forwards, so this keeps that order. None if no request came so early.
    early: Option<Box<Early<M>>>,
    /// The streams that pass; none if none does, as at most sessions.
    streams: Option<Box<Streams<M>>>,
}

/// The callers that have requests in flight to this branch, or had some since the last heartbeat.
struct Callers<M> {
    /// The caller of the last requests: it most likely is the caller of the next ones.
    last: SharedCaller<M>,
    by_id: HashMap<SessionId, SharedCaller<M>>,
}

/// The place of a request among those in flight to this branch; dropping it gives the place back to the share of the caller.
struct Place<M>(SharedCaller<M>);

impl<M> Place<M> {
    #[inline]
    fn take(caller: &SharedCaller<M>) -> Self {
        caller.in_flight.set(caller.in_flight.get() + 1);
        Self(Rc::clone(caller))
    }
}

impl<M> Drop for Place<M> {
    #[inline]
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// Requests of other nodes, by the ids that were drawn here.
type Early<M> = BTreeMap<CallbackId, (SharedCaller<M>, Forwarded)>;

/// A request of this branch.
enum Requested<P> {
    /// The layers of the master have not let it pass yet.
    Held(Box<Kept>),
    /// The registry is asked for its route.
    Waits(Box<WaitsAt>),
    /// The request was forwarded, under the id that was drawn at the session of the provider.
    Forwarded(ForwardedTo<P>),
    /// The request was forwarded, and is kept in case that its provider does not run it.
    Kept(Box<(ForwardedTo<P>, Kept)>),
}

/// The receiver of a request that was forwarded.
struct ForwardedTo<P> {
    to: Rc<P>,
    id_at_provider: CallbackId,
}

/// What a session does with the outcome of a request that was forwarded.
pub(crate) enum Heard {
    /// Nothing: the branch does not wait for it any more.
    Late,
    /// The branch is told the outcome.
    Outcome,
    /// The branch is told the outcome, behind the items of the stream that it ends.
    End,
    /// The request is sent to another provider: see [`Relay::send_elsewhere`].
    Elsewhere(Box<Waiting>),
}

/// A request that was written to this branch.
struct Serving<M> {
    place: Place<M>,
    id_at_caller: CallbackId,
    deadline: Option<Instant>,
}

/// A request to this branch that was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cancelled {
    /// It was not written to the branch, or has been answered: the branch need not be told.
    Unknown,
    /// Its caller has dropped the call.
    InTime,
    /// Its deadline has passed.
    Late,
}

/// How a session goes on with a request of its branch.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Nothing is to be done now: the request was forwarded, or waits for the registry.
    Relay,
    /// The master itself answers the request, with [`Relay::own`].
    Answer(OwnRequest),
    /// The master itself answers the request, for a stream of which the branch grants so much at first.
    AnswerStream(Box<(OwnRequest, Grant)>),
    /// The branch is told this error; without an id it waits for no outcome.
    Refuse(Option<CallbackId>, CallError),
    /// The branch broke the protocol: the link is closed.
    Close(&'static str),
}

/// Why a request of the branch is not taken.
pub(crate) enum Unfit {
    /// Its callback id is that of another request in flight.
    UsedTwice,
    /// The branch is told this error.
    Refused(CallError),
}

impl Unfit {
    pub(crate) fn decide(self, callback_id: CallbackId) -> Decision {
        match self {
            Unfit::UsedTwice => USED_TWICE,
            Unfit::Refused(error) => Decision::Refuse(Some(callback_id), error),
        }
    }
}

/// A request that the master itself answers.
#[derive(Debug)]
pub(crate) struct OwnRequest {
    pub(crate) callback_id: CallbackId,
    pub(crate) action: ByteString,
    pub(crate) deadline: Option<Instant>,
    pub(crate) hops: u8,
    pub(crate) headers: Headers,
    pub(crate) payload: Payload,
}

/// A call of a function that was lent to this branch, and that the branch of another session lent first.
pub(crate) struct Invoking<'a, P> {
    /// None if the branch waits for nothing.
    pub(crate) callback_id: Option<CallbackId>,
    pub(crate) to: &'a P,
    /// The number of the function, drawn by the branch of `to`.
    pub(crate) function: CallbackId,
    pub(crate) wants: Wants,
    pub(crate) deadline: Option<Instant>,
    pub(crate) payload: Payload,
}

/// The requests of the branch that the master itself is answering: they are in flight, and their ids are in use.
pub(crate) trait InUse {
    fn contains(&self, callback_id: CallbackId) -> bool;
    fn len(&self) -> usize;
}

impl<P: Provider, M> Relay<P, M> {
    pub(crate) fn new(
        master: &str,
        balance: Balance,
        in_flight_max: usize,
        kept_len: KeptLen,
        held_len: KeptLen,
    ) -> Self {
        Self {
            phase: Phase::Unbound,
            branch_drains: false,
            name: ByteString::new(),
            in_flight_max: u32::try_from(in_flight_max).unwrap_or(u32::MAX),
            dispatch: Dispatch::new(master, balance),
            requested: Slots::new(),
            aside: Box::new(Aside { kept: kept_len, held: held_len, early: None, streams: None }),
            serving: Slots::new(),
            callers: None,
            outgoing: Outgoing::default(),
            may_follow: 0,
            block_len: 0,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a frame of the branch is legal now.
    pub(crate) fn judge(&self, frame: &Frame) -> Legality {
        self.phase.judge(frame)
    }

    /// How many requests are in flight, of the branch and to it, without the requests that the master itself answers.
    pub(crate) fn in_flight(&self) -> usize {
        self.requested.len() + self.to_branch()
    }

    /// How many requests to the branch are in flight.
    pub(crate) fn to_branch(&self) -> usize {
        self.serving.len() + self.aside.early.as_ref().map_or(0, |early| early.len())
    }

    /// How many requests of the branch are in flight, without the requests that the master itself answers.
    pub(crate) fn of_branch(&self) -> usize {
        self.requested.len()
    }

    // The bind.

    /// Notes that the bind of the branch is being checked.
    pub(crate) fn bind(&mut self, name: ByteString) {
        self.phase = Phase::Binding;
        self.name = name;
    }

    /// Notes that the branch is bound, and writes the requests that came for it meanwhile.
    pub(crate) fn bound(
        &mut self,
        now: Instant,
        mut write: impl FnMut(&Caller<M>, Forwarded, Option<Duration>) -> Result<(), CallError>,
    ) {
        self.phase = Phase::Bound;
        for (_, (caller, forwarded)) in self.take_early() {
            self.forwarded(&caller, forwarded, now, &mut write);
        }
    }

    // Requests of this branch.

    /// Takes a request of the branch out of its place; `allowed` is an error if the branch has no permission for it. A request that is not refused is
    /// forwarded, or waits for the registry, or is answered by the master.
    #[inline]
    pub(crate) fn request(
        &mut self,
        request: &mut Request,
        deadline: Option<Instant>,
        allowed: Result<(), CallError>,
        in_use: &impl InUse,
    ) -> Decision {
        match self.check(request.callback_id, allowed, in_use) {
            Ok(()) => self.send_on(request, None, deadline),
            Err(unfit) => unfit.decide(request.callback_id),
        }
    }

    /// Takes a request of the branch for a stream, of which it grants so much at first: see [`Relay::request`].
    pub(crate) fn open_stream(
        &mut self,
        (request, grant): (&mut Request, Grant),
        deadline: Option<Instant>,
        allowed: Result<(), CallError>,
        in_use: &impl InUse,
    ) -> Decision {
        match self.check(request.callback_id, allowed, in_use) {
            Ok(()) => self.send_on(request, Some(grant), deadline),
            Err(unfit) => unfit.decide(request.callback_id),
        }
    }

    /// Takes a request of the branch as [`Relay::request`] does, which the layers of the master hold until they let it pass.
    pub(crate) fn hold(
        &mut self,
        (request, grant): (&Request, Option<Grant>),
        deadline: Option<Instant>,
        allowed: Result<(), CallError>,
        in_use: &impl InUse,
    ) -> Result<(), Unfit> {
        self.check(request.callback_id, allowed, in_use)?;
        check_action(&request.action).map_err(|error| Unfit::Refused(error.into()))?;
        let Some(held) = self.aside.held.keep(request, grant, deadline, (None, Vec::new())) else {
            let what = "the layers of the master hold as many bytes of this branch as they may";
            return Err(Unfit::Refused(CallError::new(Code::OVERLOADED, Fate::NotSent, what)));
        };
        self.requested.insert(request.callback_id, Requested::Held(Box::new(held)));
        Ok(())
    }

    /// Sends a request on that the layers of the master have let pass. None if they do not hold it any more.
    pub(crate) fn pass(&mut self, callback_id: CallbackId) -> Option<Decision> {
        let is_held = |requested: &Requested<P>| matches!(requested, Requested::Held(_));
        let Some(Requested::Held(held)) = self.requested.remove_if(callback_id, is_held) else {
            return None;
        };
        let Waiting { mut request, grant, deadline, .. } = self.aside.held.take(*held);
        Some(self.send_on(&mut request, grant, deadline))
    }

    /// Whether the layers of the master hold a request.
    pub(crate) fn is_held(&self, callback_id: CallbackId) -> bool {
        matches!(self.requested.get(callback_id), Some(Requested::Held(_)))
    }

    #[inline(always)]
    fn check(
        &self,
        callback_id: CallbackId,
        allowed: Result<(), CallError>,
        in_use: &impl InUse,
    ) -> Result<(), Unfit> {
        if self.is_used(callback_id, in_use) {
            return Err(Unfit::UsedTwice);
        }
        allowed.map_err(Unfit::Refused)?;
        if self.phase != Phase::Bound && self.phase != Phase::BranchDrains {
            let error = CallError::new(Code::DRAINING, Fate::NotSent, "the master is draining");
            return Err(Unfit::Refused(error));
        }
        self.check_room(in_use).map_err(Unfit::Refused)
    }

    /// Forwards a request, or lets it wait for the registry, or the master answers it.
    #[inline(always)]
    fn send_on(
        &mut self,
        request: &mut Request,
        grant: Option<Grant>,
        deadline: Option<Instant>,
    ) -> Decision {
        let wishes = match Wishes::of(&request.headers) {
            Ok(wishes) => wishes,
            Err(error) => return Decision::Refuse(Some(request.callback_id), error),
        };
        let asked = Sought { node: &request.node, wishes: wishes.as_deref(), tried: &[] };
        let Some(routed) = self.dispatch.route(&request.action, asked) else {
            // An action that is known has a name, so only others are looked at.
            if let Err(error) = check_action(&request.action) {
                return Decision::Refuse(Some(request.callback_id), error.into());
            }
            let request = std::mem::take(request);
            return self.wait(Waiting { request, grant, deadline, wishes, tried: Vec::new() });
        };
        let Self { requested, outgoing, may_follow, aside, .. } = self;
        let kept_len = &mut aside.kept;
        let sent = Sent { requested, outgoing, kept_len, may_follow: usize::from(*may_follow) };
        sent.forward(routed, request, grant, deadline, (wishes, Vec::new()))
    }

    /// Lets a request wait for the registry.
    fn wait(&mut self, waiting: Waiting) -> Decision {
        let callback_id = waiting.request.callback_id;
        let at = self.dispatch.wait(waiting);
        self.requested.insert(callback_id, Requested::Waits(Box::new(at)));
        Decision::Relay
    }

    /// Sends a request that its provider did not run, with this error, to another provider; if there is none, the branch is told the error.
    pub(crate) fn send_elsewhere(&mut self, waiting: Waiting, error: CallError) -> Decision {
        let Some(routed) = self.dispatch.route(&waiting.request.action, waiting.asked()) else {
            return self.wait(waiting);
        };
        if let Routed::Nowhere(..) = routed {
            return Decision::Refuse(Some(waiting.request.callback_id), error);
        }
        let Self { requested, outgoing, aside, .. } = self;
        let sent = Sent { requested, outgoing, kept_len: &mut aside.kept, may_follow: 0 };
        let Waiting { mut request, grant, deadline, wishes, tried } = waiting;
        sent.forward(routed, &mut request, grant, deadline, (wishes, tried))
    }

    /// Whether the master may answer a further request of a run, or a call of its function. The permission was checked with the first request of
    /// the run.
    #[inline]
    pub(crate) fn continue_run(&self, callback_id: CallbackId, in_use: &impl InUse) -> Result<(), Decision> {
        if self.is_used(callback_id, in_use) {
            return Err(USED_TWICE);
        }
        self.check_room(in_use).map_err(|error| Decision::Refuse(Some(callback_id), error))
    }

    /// The action of the master that answers the last request of this block.
    pub(crate) fn own(&self) -> Option<&Action> {
        self.dispatch.own()
    }

    /// Takes a call of a function that the branch of another session lent, and that was lent on to this branch.
    pub(crate) fn invoke(&mut self, invoking: Invoking<'_, P>, in_use: &impl InUse) -> Decision {
        let Invoking { callback_id, to, function, wants, deadline, payload } = invoking;
        if let Some(callback_id) = callback_id {
            if self.is_used(callback_id, in_use) {
                return USED_TWICE;
            }
            if let Err(error) = self.check_room(in_use) {
                return Decision::Refuse(Some(callback_id), error);
            }
        } else if !to.begin_notification() {
            let why = format!("{} calls of functions are on their way to {}", self.in_flight_max, to.name());
            return Decision::Refuse(None, CallError::new(Code::OVERLOADED, Fate::NotSent, why));
        }
        let id_at_provider = to.next_id();
        let forwarded = Forwarded {
            id_at_caller: callback_id.unwrap_or(id_at_provider),
            id_at_provider,
            target: Target::Function(function, wants),
            deadline,
            beside: Beside::none(),
            payload,
        };
        let is = |other: &P| other.id() == to.id();
        let share = || Rc::new(to.clone());
        let to = push_to(&mut self.outgoing.forwards, is, share, forwarded, self.may_follow.into());
        if let Some(callback_id) = callback_id {
            let forwarded_to = ForwardedTo { to: Rc::clone(to), id_at_provider };
            self.requested.insert(callback_id, Requested::Forwarded(forwarded_to));
        }
        Decision::Relay
    }

    /// Takes the actions that the registry is to be asked about, at the end of a block.
    pub(crate) fn take_lookups(&mut self) -> Vec<ByteString> {
        self.dispatch.take_lookups()
    }

    /// Takes the answer of the registry for an action. The requests that waited for it are decided in the order in which they came, before any
    /// request that comes later. Each decision is handed out with the action of the master, if that answers.
    pub(crate) fn looked_up(
        &mut self,
        action: ByteString,
        found: Found<P>,
        mut carry_out: impl FnMut(Decision, Option<&Action>),
    ) {
        let mut found = self.dispatch.looked_up(action, found);
        for waiting in std::mem::take(&mut found.requests).into_iter().flatten() {
            let callback_id = waiting.request.callback_id;
            self.requested.remove(callback_id);
            let routed = self.dispatch.route_found(&found, waiting.asked());
            let own = if let Routed::Own(own) = &routed { Some(*own) } else { None };
            let Self { requested, outgoing, aside, .. } = self;
            let sent = Sent { requested, outgoing, kept_len: &mut aside.kept, may_follow: 0 };
            let Waiting { mut request, grant, deadline, wishes, tried } = *waiting;
            carry_out(sent.forward(routed, &mut request, grant, deadline, (wishes, tried)), own);
        }
    }

    /// Cancels a request of the branch. `false` if it is not relayed: then the master may be answering it.
    pub(crate) fn cancel(&mut self, callback_id: CallbackId) -> bool {
        self.ends_read(callback_id);
        match self.requested.remove(callback_id) {
            Some(Requested::Forwarded(forwarded_to)) => cancel_at(&mut self.outgoing, forwarded_to),
            Some(Requested::Kept(kept)) => {
                let (forwarded_to, kept) = *kept;
                self.aside.kept.forget(&kept);
                cancel_at(&mut self.outgoing, forwarded_to);
            }
            Some(Requested::Waits(at)) => self.dispatch.cancel(&at),
            Some(Requested::Held(held)) => self.aside.held.forget(&held),
            None => return false,
        }
        true
    }

    /// Takes the outcome of a request that was forwarded.
    #[inline]
    pub(crate) fn replied(
        &mut self,
        from: SessionId,
        id_at_caller: CallbackId,
        id: CallbackId,
        outcome: &Outcome,
    ) -> Heard {
        let is_from =
            |forwarded_to: &ForwardedTo<P>| forwarded_to.id_at_provider == id && forwarded_to.to.id() == from;
        let is = |requested: &Requested<P>| match requested {
            Requested::Forwarded(forwarded_to) => is_from(forwarded_to),
            Requested::Kept(kept) => is_from(&kept.0),
            Requested::Waits(_) | Requested::Held(_) => false,
        };
        match self.requested.remove_if(id_at_caller, is) {
            Some(Requested::Forwarded(_)) if self.ends_read(id_at_caller) => Heard::End,
            Some(Requested::Forwarded(_)) => Heard::Outcome,
            Some(Requested::Kept(kept)) => self.replied_to_kept(from, kept.1, outcome),
            Some(Requested::Waits(_) | Requested::Held(_)) | None => Heard::Late,
        }
    }

    fn replied_to_kept(&mut self, from: SessionId, kept: Kept, outcome: &Outcome) -> Heard {
        let relays = matches!(self.phase, Phase::Bound | Phase::BranchDrains);
        if relays && kept.may_go_elsewhere(outcome) {
            return Heard::Elsewhere(Box::new(self.aside.kept.release(kept, from)));
        }
        self.aside.kept.forget(&kept);
        Heard::Outcome
    }

    #[inline]
    fn is_used(&self, callback_id: CallbackId, in_use: &impl InUse) -> bool {
        self.requested.contains(callback_id) || in_use.contains(callback_id)
    }

    #[inline]
    fn check_room(&self, in_use: &impl InUse) -> Result<(), CallError> {
        let max = self.in_flight_max as usize;
        if self.requested.len() + self.dispatch.cancelled() + in_use.len() < max {
            return Ok(());
        }
        let why = format!("{max} requests of this branch are in flight already");
        Err(CallError::new(Code::OVERLOADED, Fate::NotSent, why))
    }

    // Requests of other nodes.

    /// The caller of requests that are forwarded to the branch, with its requests that are in flight.
    #[inline]
    pub(crate) fn caller(&mut self, caller: &Arc<Caller<M>>) -> SharedCaller<M> {
        match &self.callers {
            Some(callers) if callers.last.id == caller.id => Rc::clone(&callers.last),
            _ => self.find_caller(caller),
        }
    }

    fn find_caller(&mut self, caller: &Arc<Caller<M>>) -> SharedCaller<M> {
        let new = || Rc::new(CallerHere { caller: Arc::clone(caller), in_flight: Cell::new(0) });
        let callers =
            self.callers.get_or_insert_with(|| Box::new(Callers { last: new(), by_id: HashMap::default() }));
        let found = match callers.by_id.get(&caller.id) {
            Some(there) => Rc::clone(there),
            None if callers.last.id == caller.id => Rc::clone(&callers.last),
            None => new(),
        };
        callers.by_id.insert(caller.id, Rc::clone(&found));
        callers.last = Rc::clone(&found);
        found
    }

    /// Forgets the callers that have no request in flight: they may have gone.
    fn forget_callers(&mut self) {
        let Some(callers) = &mut self.callers else {
            return;
        };
        callers.by_id.retain(|_, caller| caller.in_flight.get() > 0);
        match callers.by_id.values().next() {
            Some(any) => callers.last = Rc::clone(any),
            None => self.callers = None,
        }
    }

    /// Takes a request that was forwarded to the branch: writes it, with the time that its caller still waits, or refuses it.
    #[inline]
    pub(crate) fn forwarded(
        &mut self,
        caller: &SharedCaller<M>,
        forwarded: Forwarded,
        now: Instant,
        write: impl FnOnce(&Caller<M>, Forwarded, Option<Duration>) -> Result<(), CallError>,
    ) {
        let Forwarded { id_at_caller, id_at_provider, deadline, .. } = forwarded;
        let (quiet, grant) = (forwarded.is_notification(), forwarded.grant());
        let time_left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let written = match self.check_forwarded(caller, &forwarded, time_left) {
            Ok(()) if self.phase == Phase::Binding => {
                let early = self.aside.early.get_or_insert_default();
                early.insert(id_at_provider, (Rc::clone(caller), forwarded));
                return;
            }
            Ok(()) => write(caller, forwarded, time_left),
            Err(error) => Err(error),
        };
        match written {
            Ok(()) if quiet => {}
            Ok(()) => {
                let serving = Serving { place: Place::take(caller), id_at_caller, deadline };
                self.serving.insert(id_at_provider, serving);
                if let Some(grant) = grant {
                    let streams = self.aside.streams.get_or_insert_default();
                    streams.asked(id_at_provider, Rc::clone(caller), id_at_caller, grant);
                }
            }
            Err(error) if quiet => log::debug!("a function of {} was not called: {error}", self.name),
            Err(error) => {
                let replied = Replied { id_at_caller, id_at_provider, outcome: Err(error) };
                reply_to(&mut self.outgoing, caller, replied, 0);
            }
        }
    }

    #[inline(always)]
    fn check_forwarded(
        &self,
        caller: &CallerHere<M>,
        forwarded: &Forwarded,
        time_left: Option<Duration>,
    ) -> Result<(), CallError> {
        let refuse = |code, why: String| Err(CallError::new(code, Fate::NotSent, why));
        match (self.phase, &forwarded.target) {
            (Phase::Binding | Phase::Bound, _) => {}
            // A request in flight may call the functions that came with it until it is finished.
            (Phase::BranchDrains | Phase::Draining, Target::Function(..)) => {}
            (Phase::BranchDrains | Phase::Draining, Target::Action(_)) => {
                return refuse(Code::DRAINING, format!("{} is draining", self.name));
            }
            (Phase::Unbound | Phase::Closing, Target::Action(_)) => {
                return refuse(Code::PROVIDER_LOST, format!("{} went away", self.name));
            }
            (Phase::Unbound | Phase::Closing, Target::Function(..)) => {
                return Err(gone("the node that lent it went away"));
            }
        }
        if time_left.is_some_and(|time_left| time_left.is_zero()) {
            return refuse(Code::REQUEST_TIMEOUT, "the deadline passed on the way".to_owned());
        }
        // The caller has checked for room, but so have other callers, whose requests came at the same time.
        let (total, max) = (self.to_branch(), self.in_flight_max as usize);
        // While half of the places are free, each caller has fewer than its share.
        if 2 * total < max { Ok(()) } else { self.check_share(caller, total, max) }
    }

    #[cold]
    fn check_share(&self, caller: &CallerHere<M>, total: usize, max: usize) -> Result<(), CallError> {
        let mine = caller.in_flight.get();
        let what = if total >= max {
            format!("{max} requests to {} are in flight already", self.name)
        } else if !fits_share(mine, 1, total, max) {
            format!(
                "{mine} requests of this caller to {} are in flight: others are to find room, too",
                self.name
            )
        } else {
            return Ok(());
        };
        Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what))
    }

    /// Takes the outcome of a request that the branch has answered. `false` if its caller does not wait any more.
    #[inline]
    pub(crate) fn response(&mut self, callback_id: CallbackId, outcome: Outcome) -> bool {
        let Some(Serving { place, id_at_caller, .. }) = self.serving.remove(callback_id) else {
            return false;
        };
        self.ends_produced(callback_id);
        let replied = Replied { id_at_caller, id_at_provider: callback_id, outcome };
        reply_to(&mut self.outgoing, &place.0, replied, self.may_follow.into());
        true
    }

    /// Takes the cancel of a request to the branch.
    pub(crate) fn cancelled(&mut self, callback_id: CallbackId, now: Instant) -> Cancelled {
        self.ends_produced(callback_id);
        let Some(Serving { deadline, .. }) = self.serving.remove(callback_id) else {
            self.aside.early.as_mut().and_then(|early| early.remove(&callback_id));
            return Cancelled::Unknown;
        };
        match deadline {
            Some(deadline) if deadline <= now + CANCELLED_AS_LATE => Cancelled::Late,
            _ => Cancelled::InTime,
        }
    }

    // Streams.

    /// Takes the start of a stream that the branch produces. Its request has no deadline any more.
    pub(crate) fn started(&mut self, callback_id: CallbackId) {
        let Some(streams) = &mut self.aside.streams else { return };
        if let Passes::On { to, id_at_caller, .. } = streams.starts(callback_id) {
            self.start_on(&to, id_at_caller, callback_id);
        }
    }

    /// Takes an item of a stream that the branch produces; an error if it could not be taken over. `true` if this ends the stream, and the branch is to
    /// be told so.
    pub(crate) fn item(&mut self, callback_id: CallbackId, item: Result<Payload, CallError>) -> bool {
        let passes = match (&mut self.aside.streams, &item) {
            (Some(streams), Ok(payload)) => streams.item(callback_id, payload.len(), &self.name),
            (Some(_), Err(error)) => Passes::Ends(error.clone()),
            (None, _) => Passes::Unknown,
        };
        match (passes, item) {
            (Passes::On { to, id_at_caller, begins }, Ok(payload)) => {
                if begins {
                    // A producer may leave the start away, when its first item says as much.
                    self.start_on(&to, id_at_caller, callback_id);
                }
                let part = Part::Item(payload);
                self.flow_on(&to, Flowing { id_at_caller, id_at_provider: callback_id, part });
                false
            }
            (Passes::Ends(error), _) => self.response(callback_id, Err(error)),
            (Passes::On { .. } | Passes::Unknown, _) if self.serving.contains(callback_id) => {
                let why = format!("{} sent an item of a stream, and was asked for one value", self.name);
                self.response(callback_id, Err(CallError::new(Code::UNKNOWN, Fate::Unknown, why)))
            }
            // The consumer has dropped the stream.
            (Passes::On { .. } | Passes::Unknown, _) => false,
        }
    }

    /// Tells the consumer that a stream begins.
    fn start_on(&mut self, to: &SharedCaller<M>, id_at_caller: CallbackId, id_at_provider: CallbackId) {
        if let Some(serving) = self.serving.get_mut(id_at_provider) {
            serving.deadline = None;
        }
        self.flow_on(to, Flowing { id_at_caller, id_at_provider, part: Part::Start });
    }

    fn flow_on(&mut self, to: &SharedCaller<M>, flowing: Flowing) {
        let streams = self.outgoing.streams.get_or_insert_default();
        let is = |other: &CallerHere<M>| other.id == to.id;
        push_to(&mut streams.parts, is, || Rc::clone(to), flowing, self.may_follow.into());
    }

    /// Takes a grant of the branch for a stream that it reads. `false` if the stream is not relayed: then the master may be producing it.
    pub(crate) fn grant(&mut self, granted: Granted) -> bool {
        match self.requested.get(granted.callback_id) {
            Some(Requested::Forwarded(ForwardedTo { to, id_at_provider })) => {
                let streams = self.outgoing.streams.get_or_insert_default();
                let granted = Granted { callback_id: *id_at_provider, ..granted };
                let is = |other: &P| other.id() == to.id();
                push_to(&mut streams.grants, is, || Rc::clone(to), granted, 0);
                true
            }
            // It has not begun, so nothing of it was taken.
            Some(Requested::Kept(_) | Requested::Waits(_) | Requested::Held(_)) => true,
            None => false,
        }
    }

    /// Takes a grant for a stream that the branch produces, and writes it. `true` if this ends the stream, and the branch is to be told so.
    pub(crate) fn granted(
        &mut self,
        granted: Granted,
        write: impl FnOnce(Granted) -> Result<(), CallError>,
    ) -> bool {
        let Some(streams) = &mut self.aside.streams else { return false };
        let written = match streams.granted(granted.callback_id, granted.grant) {
            Ok(true) => write(granted),
            Ok(false) => return false,
            Err(error) => Err(error),
        };
        written.is_err_and(|error| self.response(granted.callback_id, Err(error)))
    }

    /// Takes a part of a stream that the branch reads. `true` if it is to be written to the branch.
    pub(crate) fn flows(&mut self, from: SessionId, flowing: &Flowing) -> bool {
        let Flowing { id_at_caller, id_at_provider, part } = flowing;
        let is_from = |it: &ForwardedTo<P>| it.id_at_provider == *id_at_provider && it.to.id() == from;
        match self.requested.get(*id_at_caller) {
            Some(Requested::Forwarded(forwarded_to)) if is_from(forwarded_to) => {}
            Some(Requested::Kept(kept)) if is_from(&kept.0) => {
                // It runs, so no other provider is to run it.
                if let Some(Requested::Kept(kept)) = self.requested.remove(*id_at_caller) {
                    let (forwarded_to, kept) = *kept;
                    self.aside.kept.forget(&kept);
                    self.requested.insert(*id_at_caller, Requested::Forwarded(forwarded_to));
                }
            }
            _ => return false,
        }
        if let Part::Start = part {
            self.aside.streams.get_or_insert_default().reads(*id_at_caller);
        }
        true
    }

    /// Forgets a stream that the branch read. `true` if it had begun.
    #[inline]
    fn ends_read(&mut self, callback_id: CallbackId) -> bool {
        let Some(streams) = &mut self.aside.streams else { return false };
        let had_begun = streams.read_ends(callback_id);
        self.forget_streams();
        had_begun
    }

    #[inline]
    fn ends_produced(&mut self, callback_id: CallbackId) {
        if let Some(streams) = &mut self.aside.streams {
            streams.produced_ends(callback_id);
            self.forget_streams();
        }
    }

    #[inline(never)]
    fn forget_streams(&mut self) {
        if self.aside.streams.as_ref().is_some_and(|streams| streams.is_empty()) {
            self.aside.streams = None;
        }
    }

    /// How many streams of the branch have begun. They are in flight, and their consumers do not wait for their beginning any more.
    pub(crate) fn begun(&self) -> usize {
        self.aside.streams.as_ref().map_or(0, |streams| streams.begun())
    }

    /// Whether the branch has begun the stream that answers this request.
    pub(crate) fn has_begun(&self, callback_id: CallbackId) -> bool {
        self.aside.streams.as_ref().is_some_and(|streams| streams.has_begun(callback_id))
    }

    /// Whether the branch has begun this stream since this was asked last.
    pub(crate) fn begins(&mut self, callback_id: CallbackId) -> bool {
        self.aside.streams.as_mut().is_some_and(|streams| streams.begins(callback_id))
    }

    /// How many streams pass.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(crate) fn streams(&self) -> usize {
        self.aside.streams.as_ref().map_or(0, |streams| streams.len())
    }

    fn take_early(&mut self) -> Early<M> {
        self.aside.early.take().map(|early| *early).unwrap_or_default()
    }

    /// Ends the requests to the branch whose deadlines have passed. Most of their callers have cancelled them before. Gives the ids that are to
    /// be cancelled at the branch. `withdraw` takes a request out of the outbox; `false` if it has left.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        mut withdraw: impl FnMut(CallbackId) -> bool,
    ) -> Vec<CallbackId> {
        self.forget_callers();
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        for (id, (caller, forwarded)) in self.take_early() {
            if passed(forwarded.deadline) {
                let why = "the deadline passed before the branch was bound";
                let error = CallError::new(Code::REQUEST_TIMEOUT, Fate::NotSent, why);
                refuse_early(&mut self.outgoing, &caller, &forwarded, error);
            } else {
                self.aside.early.get_or_insert_default().insert(id, (caller, forwarded));
            }
        }
        let expired = self.serving.take_if(|serving| passed(serving.deadline));
        let mut ids = Vec::with_capacity(expired.len());
        for (id_at_provider, Serving { place, id_at_caller, .. }) in expired {
            self.ends_produced(id_at_provider);
            let (fate, why) = if withdraw(id_at_provider) {
                (Fate::NotSent, "the deadline passed before the request was written")
            } else {
                ids.push(id_at_provider);
                (Fate::Unknown, "no reply came before the deadline")
            };
            let outcome = Err(CallError::new(Code::REQUEST_TIMEOUT, fate, why));
            reply_to(&mut self.outgoing, &place.0, Replied { id_at_caller, id_at_provider, outcome }, 0);
        }
        ids
    }

    // The end.

    /// Notes that the branch takes no more requests. The requests that were written to it stay in flight. `true` the first time.
    pub(crate) fn branch_drains(&mut self) -> bool {
        if self.phase == Phase::Bound {
            self.phase = Phase::BranchDrains;
        }
        !std::mem::replace(&mut self.branch_drains, true)
    }

    /// Notes that the master takes no more requests. `true` if the branch is to be told.
    pub(crate) fn drain(&mut self) -> bool {
        let drains = matches!(self.phase, Phase::Bound | Phase::BranchDrains);
        if drains {
            self.phase = Phase::Draining;
        }
        drains
    }

    /// Ends the requests of the branch in flight with an error, when the time of a drain is over. [`Relay::leave`] follows.
    pub(crate) fn abandon(&mut self, mut respond: impl FnMut(CallbackId, CallError)) {
        self.aside.streams = None;
        for (callback_id, requested) in self.requested.take_all() {
            let fate = match requested {
                Requested::Waits(at) => {
                    self.dispatch.cancel(&at);
                    Fate::NotSent
                }
                Requested::Held(held) => {
                    self.aside.held.forget(&held);
                    Fate::NotSent
                }
                Requested::Forwarded(forwarded_to) => {
                    cancel_at(&mut self.outgoing, forwarded_to);
                    Fate::Unknown
                }
                Requested::Kept(kept) => {
                    let (forwarded_to, kept) = *kept;
                    self.aside.kept.forget(&kept);
                    cancel_at(&mut self.outgoing, forwarded_to);
                    Fate::Unknown
                }
            };
            respond(
                callback_id,
                CallError::new(Code::DRAINING, fate, "the master ended before the reply came"),
            );
        }
    }

    /// Ends all requests at the end of the link: requests of the branch are cancelled at their providers, and requests to the branch end with an
    /// error, *unknown* if they were written, else *not sent*. `unsent` are those that were still in the outbox.
    pub(crate) fn leave(&mut self, unsent: &HashSet<CallbackId>) {
        self.phase = Phase::Closing;
        self.dispatch.clear();
        self.aside.streams = None;
        self.outgoing.streams = None;
        // The branch has gone, so its requests of the current block need not leave.
        for (to, requests) in self.outgoing.forwards.drain(..) {
            requests.iter().filter(|request| request.is_notification()).for_each(|_| to.end_notification());
            let is_action = |request: &&Forwarded| !matches!(request.target, Target::Function(..));
            to.end_requests(requests.iter().filter(is_action).count());
        }
        for (_, requested) in self.requested.take_all() {
            match requested {
                Requested::Forwarded(forwarded_to) => cancel_at(&mut self.outgoing, forwarded_to),
                Requested::Kept(kept) => {
                    let (forwarded_to, kept) = *kept;
                    self.aside.kept.forget(&kept);
                    cancel_at(&mut self.outgoing, forwarded_to);
                }
                Requested::Waits(_) => {}
                Requested::Held(held) => self.aside.held.forget(&held),
            }
        }
        for (_, (caller, forwarded)) in self.take_early() {
            let error = forwarded.target.lost();
            refuse_early(&mut self.outgoing, &caller, &forwarded, error);
        }
        let why = format!("{} went away before it replied", self.name);
        let lost = CallError::new(Code::PROVIDER_LOST, Fate::Unknown, why);
        for (id_at_provider, Serving { place, id_at_caller, .. }) in self.serving.take_all() {
            let never_left = !unsent.is_empty() && unsent.contains(&id_at_provider);
            let fate = if never_left { Fate::NotSent } else { Fate::Unknown };
            let outcome = Err(lost.clone().with_fate(fate));
            reply_to(&mut self.outgoing, &place.0, Replied { id_at_caller, id_at_provider, outcome }, 0);
        }
        self.callers = None;
    }

    /// Whether no request is in flight or waits, and no message is left to send.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_empty(&self) -> bool {
        let waits = self.dispatch.waiting() + self.dispatch.cancelled() + self.streams();
        self.in_flight() + waits + self.outgoing.forwards.len() == 0
            && self.aside.kept.is_empty(meshwork_wire::limits::KEPT_LEN_MAX)
            && self.aside.held.is_empty(meshwork_wire::limits::HELD_LEN_MAX)
            && self
                .callers
                .iter()
                .flat_map(|callers| callers.by_id.values())
                .all(|it| it.in_flight.get() == 0)
    }

    /// How many bytes of requests are kept.
    #[cfg(feature = "testing")]
    pub(crate) fn kept_len(&self, len_max: usize) -> usize {
        self.aside.kept.len(len_max)
    }

    /// How many bundles have not left.
    #[cfg(feature = "testing")]
    pub(crate) fn bundled(&self) -> usize {
        self.outgoing.forwards.len() + self.outgoing.replies.len() + self.outgoing.cancels.len()
    }

    /// How many requests wait for the registry, the cancelled ones included.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(crate) fn waiting(&self) -> usize {
        self.dispatch.waiting()
    }

    /// Ends the handling of a block, or another message.
    pub(crate) fn end_message(&mut self) {
        self.dispatch.end_message();
        self.may_follow = 0;
    }
}

const USED_TWICE: Decision = Decision::Close("a callback id was used twice");

/// The parts of a relay that change when it forwards a request of its branch.
struct Sent<'a, P, M> {
    requested: &'a mut Slots<Requested<P>>,
    outgoing: &'a mut Outgoing<P, M>,
    kept_len: &'a mut KeptLen,
    may_follow: usize,
}

impl<P: Provider, M> Sent<'_, P, M> {
    /// Decides about a request of the branch that was routed, and forwards it if another branch answers.
    #[inline(always)]
    fn forward(
        self,
        routed: Routed<'_, P>,
        request: &mut Request,
        grant: Option<Grant>,
        deadline: Option<Instant>,
        (wishes, tried): (Option<Box<Wishes>>, Vec<SessionId>),
    ) -> Decision {
        let (provider, has_others) = match routed {
            Routed::Provider(provider, has_others) => (provider, has_others),
            Routed::Own(_) => {
                let Request { callback_id, action, hops, headers, payload, .. } = std::mem::take(request);
                let own = OwnRequest { callback_id, action, deadline, hops, headers, payload };
                return match grant {
                    None => Decision::Answer(own),
                    Some(grant) => Decision::AnswerStream(Box::new((own, grant))),
                };
            }
            Routed::Nowhere(reason, there) => {
                let asked = Sought { node: &request.node, wishes: wishes.as_deref(), tried: &tried };
                let error = no_provider(reason, &request.action, asked, there);
                return Decision::Refuse(Some(request.callback_id), error);
            }
        };
        let keep = |kept_len: &mut KeptLen| kept_len.keep(request, grant, deadline, (wishes, tried));
        let kept = if has_others { keep(self.kept_len) } else { None };
        let callback_id = request.callback_id;
        let (action, payload) = (std::mem::take(&mut request.action), std::mem::take(&mut request.payload));
        let beside = Beside::new(request.hops, std::mem::take(&mut request.headers), grant);
        provider.begin_request();
        let id_at_provider = provider.next_id();
        let target = Target::Action(action);
        let id_at_caller = callback_id;
        let forwarded = Forwarded { id_at_caller, id_at_provider, target, deadline, beside, payload };
        let is = |to: &P| to.id() == provider.id();
        let share = || Rc::new(provider.clone());
        let to = push_to(&mut self.outgoing.forwards, is, share, forwarded, self.may_follow);
        let forwarded_to = ForwardedTo { to: Rc::clone(to), id_at_provider };
        let requested = match kept {
            None => Requested::Forwarded(forwarded_to),
            Some(kept) => Requested::Kept(Box::new((forwarded_to, kept))),
        };
        self.requested.insert(callback_id, requested);
        Decision::Relay
    }
}

#[inline]
fn reply_to<P, M>(
    outgoing: &mut Outgoing<P, M>,
    caller: &SharedCaller<M>,
    replied: Replied,
    may_follow: usize,
) {
    let is = |other: &CallerHere<M>| other.id == caller.id;
    push_to(&mut outgoing.replies, is, || Rc::clone(caller), replied, may_follow);
}

fn refuse_early<P, M>(
    outgoing: &mut Outgoing<P, M>,
    caller: &SharedCaller<M>,
    forwarded: &Forwarded,
    error: CallError,
) {
    let Forwarded { id_at_caller, id_at_provider, .. } = *forwarded;
    if !forwarded.is_notification() {
        reply_to(outgoing, caller, Replied { id_at_caller, id_at_provider, outcome: Err(error) }, 0);
    }
}

fn cancel_at<P: Provider, M>(outgoing: &mut Outgoing<P, M>, forwarded_to: ForwardedTo<P>) {
    let ForwardedTo { to, id_at_provider } = forwarded_to;
    let is = |other: &P| other.id() == to.id();
    push_to(&mut outgoing.cancels, is, || Rc::clone(&to), id_at_provider, 0);
}

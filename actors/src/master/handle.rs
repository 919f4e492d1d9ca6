//! A session as other actors see it: the registry, the router, the master and other sessions hold a [`SessionHandle`], and send these
//! messages. The handle holds recipients and not the address of the actor, so its holders need not know the session actor.

use super::forwarded::{Caller, Flowing, Forwarded, Outgoing, Replied};
use super::permissions::Permissions;
use super::registry::latency::Latency;
use super::registry::rendezvous::hash_of;
use super::registry::route::{Balance, Provider, Rest};
use super::rest::{RestBounds, Row};
use super::standing::Standing;
use crate::link::outbox::{Kind, Outbox};
#[cfg(feature = "testing")]
use crate::node::census::TakeCensus;
use crate::node::census::TellsCensus;
use crate::node::mailboxes::Drained;
use crate::turns::credit::{Charge, Credit};
use actix::{Actor, Addr, Handler, Message, Recipient};
use arc_swap::ArcSwapOption;
use meshwork_wire::limits::REST_MIN;
use meshwork_wire::{ByteString, CallbackId, Granted, Labels, SessionId};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A handle on a session, for the other actors. Clones share the state.
#[derive(Clone)]
pub(crate) struct SessionHandle(Arc<Shared>);

/// The state of a session that its handles share.
struct Shared {
    id: SessionId,
    /// The session as the caller of forwarded requests. Set when the bind is checked.
    caller: OnceLock<Arc<ForwardingCaller>>,
    /// The number of the name of the branch, for the ranks of keys.
    name_number: AtomicU64,
    /// The identity of the branch; none where the master tells branches apart by nothing, or before the bind is checked.
    standing: ArcSwapOption<Standing>,
    peer: String,
    mailboxes: Arc<dyn SessionMailboxes>,
    outbox: Outbox,
    /// How many bytes of what the branch has sent other actors may hold.
    credit: Credit,
    /// The next id of a request to the branch.
    next_id: AtomicU64,
    /// How many requests to the branch are in flight.
    in_flight: AtomicUsize,
    in_flight_max: usize,
    /// How many requests are on their way here.
    coming: AtomicUsize,
    /// The labels and the weight of the branch; none inside if it offered an action and had told none.
    labels: OnceLock<Option<Box<Labels>>>,
    health: Health,
    /// How long the branch takes for a request; none where nobody asks for it.
    latency: Option<Box<Measured>>,
    /// How many notifications are on their way here: calls of functions of the branch whose callers wait for no outcome.
    notifications: AtomicUsize,
    /// Whether the branch takes requests.
    taking: AtomicBool,
    /// Whether the session has ended.
    gone: AtomicBool,
}

/// Whether the branch of a session fails, and has a rest. Its session notes the outcomes, and those that pick a provider ask.
struct Health {
    row: Mutex<Row>,
    /// Whether the branch has failed since its last reply.
    ails: AtomicBool,
    /// When the session began, from which `until` is counted.
    begun: Instant,
    /// The moment when the rest is over, in microseconds; 0 if there is none.
    until: AtomicU64,
}

/// The latency of a branch.
struct Measured {
    latency: Mutex<Latency>,
    /// How many requests were answered since the last look.
    answered: AtomicUsize,
    /// The latency in microseconds, by the last look; [`UNMEASURED`] before there is one.
    micros: AtomicU64,
}

const UNMEASURED: u64 = u64::MAX;

/// How the health of a branch has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turned {
    /// It has a rest of so long.
    Rests(Duration),
    /// It works again.
    Works,
}

/// The session, or the master, that forwards requests and takes their outcomes.
pub(crate) type ForwardingCaller = Caller<ReplyMailbox>;

/// The mailbox of a caller. A session has it in common with its handle.
pub(crate) type ReplyMailbox = Arc<dyn TakeReplies>;

/// The address of an actor that forwards requests, and takes their outcomes.
pub(crate) trait TakeReplies: Send + Sync {
    fn take(&self, replies: Replies);
    fn flow(&self, flow: Flow);
}

/// The mailboxes of a session, one for each message. The address of the session implements it, whose type the holders of a handle need
/// not know. A recipient takes about 100 bytes, so there is none for the messages of each block, and the others are made when they
/// are used.
pub(crate) trait SessionMailboxes: TakeReplies {
    fn forward(&self, forward: Forward);
    fn cancel(&self) -> Recipient<Cancel>;
    fn grants(&self, grants: Grants);
    fn release(&self) -> Recipient<Release>;
    fn evict(&self) -> Recipient<Evict>;
    fn reconsider(&self) -> Recipient<Reconsider>;
    fn drain(&self) -> Recipient<Drain>;
    #[cfg(feature = "testing")]
    fn census(&self) -> Recipient<TakeCensus>;
    fn close(&self) -> Recipient<Close>;
}

/// Forwards requests to the branch of the receiver. Sent by the session of their caller, or by the master, one message for each block. Requests
/// of a message that is dropped unhandled are answered with the fate *not sent*.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Forward {
    pub(crate) caller: Arc<ForwardingCaller>,
    /// The session that receives the requests.
    pub(crate) to: SessionId,
    pub(crate) requests: Vec<Forwarded>,
    /// Charges the caller for the block that the requests stand in, until they are handled; none if they came of no block.
    #[expect(dead_code, reason = "it is held")]
    pub(crate) charge: Option<Charge>,
}

/// Brings the outcomes of forwarded requests to their caller. Sent by the session of the provider, one message for each block.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Replies {
    pub(crate) from: SessionId,
    pub(crate) replies: Vec<Replied>,
    /// Charges the provider for the block that the replies stand in, until they are handled.
    pub(crate) charge: Option<Charge>,
}

/// Brings parts of streams to their consumer, before the [`Replies`] of the same block. Sent by the session of the producer, one message for each
/// block.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Flow {
    pub(crate) from: SessionId,
    pub(crate) parts: Vec<Flowing>,
    /// Charges the provider for the block that the parts stand in, until they are handled.
    pub(crate) charge: Option<Charge>,
}

/// Grants more items of streams, by the ids that were drawn at the receiver. Sent by the session, or the master, of their consumer, one message for
/// each block.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Grants {
    pub(crate) granted: Vec<Granted>,
    /// Charges the consumer for the block that the grants stand in, until they are handled.
    #[expect(dead_code, reason = "it is held")]
    pub(crate) charge: Option<Charge>,
}

/// Cancels requests whose callers dropped the call, by the ids that were drawn at the receiver. Sent by the session or master that
/// forwarded them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Cancel(pub(crate) Vec<CallbackId>);

/// Releases a function that the branch lent. Sent by the master when the last handle on the function was dropped.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Release(pub(crate) CallbackId);

/// Ends the session, since another branch has taken its name over. Sent by the registry, which has taken the session out already.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Evict;

/// Lets a session look at the identity of its branch again, since the identities of the master have changed. Sent by the master.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Reconsider;

/// Ends the drain of a session: its requests in flight end with an error, and the link closes. Sent by the master when every session has had
/// its time, since a session that closed earlier would end requests of other branches.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close;

/// Drains a session: it takes no more requests and finishes those in flight. Sent by the master.
#[derive(Message)]
#[rtype(result = "Drained")]
pub(crate) struct Drain {
    pub(crate) within: Duration,
}

impl<A: Actor<Context = actix::Context<A>> + Handler<Replies> + Handler<Flow>> TakeReplies for Addr<A> {
    #[expect(clippy::disallowed_methods, reason = "bounded by the requests that the caller has in flight")]
    fn take(&self, replies: Replies) {
        self.do_send(replies);
    }

    #[expect(clippy::disallowed_methods, reason = "bounded by the credit of the producer's connection")]
    fn flow(&self, flow: Flow) {
        self.do_send(flow);
    }
}

impl<A> SessionMailboxes for Addr<A>
where
    A: Actor<Context = actix::Context<A>>
        + Handler<Forward>
        + Handler<Replies>
        + Handler<Flow>
        + Handler<Grants>
        + Handler<Cancel>
        + Handler<Release>
        + Handler<Evict>
        + Handler<Reconsider>
        + Handler<Drain>
        + Handler<Close>
        + TellsCensus,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by what is in flight: one message a block and receiver"
    )]
    fn forward(&self, forward: Forward) {
        self.do_send(forward);
    }

    fn cancel(&self) -> Recipient<Cancel> {
        self.clone().recipient()
    }

    #[expect(clippy::disallowed_methods, reason = "bounded by the credit of the consumer's connection")]
    fn grants(&self, grants: Grants) {
        self.do_send(grants);
    }

    fn release(&self) -> Recipient<Release> {
        self.clone().recipient()
    }

    fn evict(&self) -> Recipient<Evict> {
        self.clone().recipient()
    }

    fn reconsider(&self) -> Recipient<Reconsider> {
        self.clone().recipient()
    }

    fn drain(&self) -> Recipient<Drain> {
        self.clone().recipient()
    }

    #[cfg(feature = "testing")]
    fn census(&self) -> Recipient<TakeCensus> {
        self.clone().recipient()
    }

    fn close(&self) -> Recipient<Close> {
        self.clone().recipient()
    }
}

impl SessionHandle {
    pub(crate) fn new(
        id: SessionId,
        peer: String,
        mailboxes: impl SessionMailboxes + 'static,
        outbox: Outbox,
        credit: Credit,
        in_flight_max: usize,
        balance: Balance,
    ) -> Self {
        Self(Arc::new(Shared {
            id,
            caller: OnceLock::new(),
            name_number: AtomicU64::new(0),
            standing: ArcSwapOption::const_empty(),
            peer,
            mailboxes: Arc::new(mailboxes),
            outbox,
            credit,
            next_id: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            in_flight_max,
            coming: AtomicUsize::new(0),
            labels: OnceLock::new(),
            health: Health {
                row: Mutex::default(),
                ails: AtomicBool::new(false),
                begun: Instant::now(),
                until: AtomicU64::new(0),
            },
            latency: (balance == Balance::LeastLatency).then(|| Box::new(Measured::new())),
            notifications: AtomicUsize::new(0),
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

    pub(crate) fn mailboxes(&self) -> &dyn SessionMailboxes {
        &*self.0.mailboxes
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    pub(crate) fn credit(&self) -> &Credit {
        &self.0.credit
    }

    /// The session as the caller of requests that it forwards; none before its bind is checked.
    pub(crate) fn caller(&self) -> Option<&Arc<ForwardingCaller>> {
        self.0.caller.get()
    }

    /// Sets the name of the branch, once: when its bind is checked.
    pub(crate) fn set_name(&self, name: ByteString) {
        self.0.name_number.store(hash_of(name.as_bytes()), Ordering::Relaxed);
        let mailbox = Arc::clone(&self.0.mailboxes) as ReplyMailbox;
        let _ = self.0.caller.set(Arc::new(Caller { id: self.0.id, name, mailbox }));
    }

    /// Sets the labels and the weight of the branch; `false` if that was done before, or the branch offers an action: routes have its weight.
    pub(crate) fn set_labels(&self, labels: Labels) -> bool {
        self.0.labels.set(Some(Box::new(labels))).is_ok()
    }

    /// Notes that the branch offers actions: from now on its labels stay as they are.
    pub(crate) fn offers(&self) {
        let _ = self.0.labels.set(None);
    }

    /// Sets the identity of the branch: when its bind has been checked, and when the identities of the master have changed.
    pub(crate) fn set_standing(&self, standing: Option<Arc<Standing>>) {
        self.0.standing.store(standing);
    }

    /// The identity of the branch; none where the master tells branches apart by nothing, or before the bind is checked.
    pub(crate) fn standing(&self) -> Option<Arc<Standing>> {
        self.0.standing.load_full()
    }

    /// Whether the branch may do something, as far as its identity goes.
    pub(crate) fn may(&self, may: impl FnOnce(&Permissions) -> bool) -> bool {
        self.0.standing.load().as_ref().is_none_or(|standing| may(&standing.identity.permissions))
    }

    /// Sets how many requests to the branch are in flight, and how many of these are streams that have begun: for their length nobody waits, so that
    /// it is no latency.
    pub(crate) fn set_in_flight(&self, in_flight: usize, begun: impl FnOnce() -> usize) {
        self.0.in_flight.store(in_flight, Ordering::Relaxed);
        if let Some(measured) = &self.0.latency {
            measured.look(in_flight - begun());
        }
    }

    /// Notes that the branch has answered a request, if its latency is measured.
    pub(crate) fn answered(&self) {
        if let Some(measured) = &self.0.latency {
            measured.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether each reply of the branch is to be noted: its latency is measured, or it has failed since its last reply.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.0.latency.is_some() || self.ails()
    }

    /// Whether the branch has failed since its last reply.
    #[inline]
    pub(crate) fn ails(&self) -> bool {
        self.0.health.ails.load(Ordering::Relaxed)
    }

    /// Notes that the branch has failed to answer a request, or has answered one.
    pub(crate) fn note(&self, works: bool, bounds: RestBounds) -> Option<Turned> {
        let health = &self.0.health;
        let mut row = health.row.lock().unwrap_or_else(PoisonError::into_inner);
        let turned = if works {
            let had_rests = row.replied();
            health.until.store(0, Ordering::Relaxed);
            had_rests.then_some(Turned::Works)
        } else {
            let rest = row.failed(bounds, Instant::now().into_std());
            if let Some(rest) = rest {
                health.until.store(health.micros_until(rest), Ordering::Relaxed);
            }
            rest.map(Turned::Rests)
        };
        health.ails.store(!row.is_empty(), Ordering::Relaxed);
        turned
    }

    /// Notes that the branch takes no more requests.
    pub(crate) fn stop_taking(&self) {
        self.0.taking.store(false, Ordering::Release);
    }

    /// Whether the session has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Acquire)
    }

    /// Notes that the session has ended; `true` the first time.
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
        self.0.caller.get().map_or("", |caller| &caller.name)
    }

    fn name_number(&self) -> u64 {
        self.0.name_number.load(Ordering::Relaxed)
    }

    fn labels(&self) -> Option<&Labels> {
        self.0.labels.get()?.as_deref()
    }

    fn latency(&self) -> Option<Duration> {
        let micros = self.0.latency.as_ref()?.micros.load(Ordering::Relaxed);
        (micros != UNMEASURED).then(|| Duration::from_micros(micros))
    }

    fn next_id(&self) -> CallbackId {
        CallbackId(self.0.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn begin_notification(&self) -> bool {
        let fits = self.0.notifications.fetch_add(1, Ordering::Relaxed) < self.0.in_flight_max;
        if !fits {
            self.end_notification();
        }
        fits
    }

    fn end_notification(&self) {
        self.0.notifications.fetch_sub(1, Ordering::Relaxed);
    }

    fn begin_request(&self) {
        self.0.coming.fetch_add(1, Ordering::Relaxed);
    }

    fn end_requests(&self, count: usize) {
        self.0.coming.fetch_sub(count, Ordering::Relaxed);
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed) + self.0.coming.load(Ordering::Relaxed)
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

    #[inline]
    fn rest(&self) -> Rest {
        match self.0.health.until.load(Ordering::Relaxed) {
            0 => Rest::No,
            until => self.0.health.rest(until),
        }
    }

    fn is_resting(&self) -> bool {
        self.0.health.until.load(Ordering::Relaxed) > self.0.health.micros_until(Duration::ZERO)
    }
}

impl Health {
    #[cold]
    fn rest(&self, until: u64) -> Rest {
        if self.micros_until(Duration::ZERO) < until {
            return Rest::Rests;
        }
        // One request at a time tries the branch: the next one after another short rest, if no outcome came.
        let further = self.micros_until(REST_MIN);
        match self.until.compare_exchange(until, further, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Rest::IsOver,
            Err(_) => Rest::Rests,
        }
    }

    /// The moment after a time from now on, in microseconds since the session began: more than 0.
    fn micros_until(&self, time: Duration) -> u64 {
        let micros = self.begun.elapsed().saturating_add(time).as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl Measured {
    fn new() -> Self {
        Self {
            latency: Mutex::new(Latency::new(Instant::now().into_std())),
            answered: AtomicUsize::new(0),
            micros: AtomicU64::new(UNMEASURED),
        }
    }

    fn look(&self, in_flight: usize) {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = self.answered.swap(0, Ordering::Relaxed);
        if let Some(latency) = latency.look(Instant::now().into_std(), answered, in_flight) {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(UNMEASURED - 1);
            self.micros.store(micros, Ordering::Relaxed);
        }
    }
}

impl ForwardingCaller {
    /// Tells the caller the outcomes of its requests. A caller that has ended waits for none.
    pub(crate) fn tell(&self, from: SessionId, replies: Vec<Replied>, charge: Option<Charge>) {
        self.mailbox.take(Replies { from, replies, charge });
    }
}

impl Outgoing<SessionHandle, ReplyMailbox> {
    /// Sends all bundles: one message for each receiver, with a charge for what it holds of the block that it came of. Each may hold the whole block.
    /// Cancels go last, so that no cancel overtakes its request.
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by what is in flight: one message a block and receiver"
    )]
    pub(crate) fn send(
        &mut self,
        from: SessionId,
        caller: Option<&Arc<ForwardingCaller>>,
        charge: impl Fn() -> Option<Charge>,
    ) {
        for (to, requests) in self.forwards.drain(..) {
            if let Some(caller) = caller {
                let forward = Forward { caller: Arc::clone(caller), to: to.id(), requests, charge: charge() };
                to.mailboxes().forward(forward);
            }
        }
        if let Some(streams) = self.streams.take() {
            for (to, parts) in streams.parts {
                to.mailbox.flow(Flow { from, parts, charge: charge() });
            }
            for (to, granted) in streams.grants {
                to.mailboxes().grants(Grants { granted, charge: charge() });
            }
        }
        for (to, replies) in self.replies.drain(..) {
            to.tell(from, replies, charge());
        }
        for (to, cancelled) in self.cancels.drain(..) {
            to.mailboxes().cancel().do_send(Cancel(cancelled));
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let replies = self.requests.drain(..).filter(|request| !request.is_notification());
        let replies = replies.map(|request| {
            let Forwarded { id_at_caller, id_at_provider, .. } = request;
            Replied { id_at_caller, id_at_provider, outcome: Err(request.target.lost()) }
        });
        self.caller.tell(self.to, replies.collect(), None);
    }
}

//! Routes requests: to the master itself if it answers the action, else to one of the branches that offer it. A session uses this for the
//! requests of its branch, the master for its own calls. A route that was looked up is kept; a request for an action without a route waits
//! here until the registry has been asked, once for all actions of a block. It decides; the actor that owns it asks the registry.

use super::registry::route::{Balance, Found, NoProvider, Provider, Providers, Route};
use super::wishes::{Sought, Wishes};
use crate::answers::Action;
use crate::hashed::HashMap;
use crate::link::outbox::{POOL_STEP, Pool};
use meshwork_wire::limits::ROUTE_CACHE_MAX;
use meshwork_wire::{ByteString, CallError, Code, Fate, Grant, Outcome, Payload, Request, SessionId};
use std::sync::Arc;
use std::time::Instant;

/// The routes that a session, or the master, knows, and the requests that wait for one.
pub(crate) struct Dispatch<P> {
    /// The name of the master: no more than its text, since a session is to be small.
    master: Box<str>,
    balance: Balance,
    /// At most [`ROUTE_CACHE_MAX`].
    routes: HashMap<ByteString, Arc<Route<P>>>,
    /// The route of the last request of this message: most requests of a block are for one action.
    last: Option<(ByteString, arc_swap::Guard<Arc<Providers<P>>>)>,
    /// None if no request waits: most sessions are idle, and then this is nearly half of their memory here.
    asked: Option<Box<Asked>>,
}

/// The actions that the registry is asked about, and their requests.
#[derive(Default)]
struct Asked {
    /// The requests that wait, by the actions that the registry is asked about, in the order in which they came; none instead of a request that
    /// was cancelled. Bounded by the requests that the owner may have in flight, among which it counts `cancelled`.
    waiting: HashMap<ByteString, Vec<Option<Box<Waiting>>>>,
    /// How many entries of `waiting` are of cancelled requests.
    cancelled: usize,
    /// The actions in `waiting` that the registry has not been asked about yet.
    lookups: Vec<ByteString>,
}

/// A request that waits for its route.
pub(crate) struct Waiting {
    pub(crate) request: Request,
    /// What its caller grants at first, if the request is for a stream.
    pub(crate) grant: Option<Grant>,
    pub(crate) deadline: Option<Instant>,
    /// What the request asks of its provider.
    pub(crate) wishes: Option<Box<Wishes>>,
    /// The sessions of the providers that did not run the request.
    pub(crate) tried: Vec<SessionId>,
}

impl Waiting {
    /// Which provider the request may get.
    pub(crate) fn asked(&self) -> Sought<'_> {
        Sought { node: &self.request.node, wishes: self.wishes.as_deref(), tried: &self.tried }
    }
}

/// A request that was forwarded while there were other providers, kept until its outcome comes: if its provider did not run it, another one may.
pub(crate) struct Kept {
    request: Request,
    grant: Option<Grant>,
    deadline: Option<Instant>,
    wishes: Option<Box<Wishes>>,
    /// The sessions of the providers that did not run the request.
    tried: Vec<SessionId>,
}

impl Kept {
    /// Whether another provider may run the request after this outcome: see [`may_go_elsewhere`]. A provider without room keeps its keys.
    pub(crate) fn may_go_elsewhere(&self, outcome: &Outcome) -> bool {
        let stays = |error: &CallError| error.code() == Code::OVERLOADED;
        may_go_elsewhere(outcome)
            && !(self.wishes.as_ref().is_some_and(|wishes| wishes.key.is_some())
                && outcome.as_ref().is_err_and(stays))
    }
}

/// The bytes of requests that are kept: at most so many, and no more than the other sessions leave of their pool.
pub(crate) struct KeptLen {
    /// How many bytes more may be kept.
    left: u32,
    len_max: u32,
    /// How many steps of the pool are taken.
    pooled: u32,
    pool: Arc<Pool>,
}

/// The step in which the pool counts.
#[expect(clippy::cast_possible_truncation, reason = "it is far below that")]
const STEP: u32 = POOL_STEP as u32;

/// How many bytes a request that is kept takes besides its headers and its payload.
const KEPT_LEN: usize = 256;

impl KeptLen {
    pub(crate) fn new(len_max: usize, pool: Arc<Pool>) -> Self {
        let len_max = u32::try_from(len_max).unwrap_or(u32::MAX);
        Self { left: len_max, len_max, pooled: 0, pool }
    }

    /// How many bytes are kept of the most that may be.
    #[cfg(feature = "testing")]
    pub(crate) fn len(&self, len_max: usize) -> usize {
        len_max.saturating_sub(self.left as usize)
    }

    /// Keeps a request that is about to be forwarded, if there is room. It is copied, so that it does not keep the block that brought it.
    pub(crate) fn keep(
        &mut self,
        request: &Request,
        grant: Option<Grant>,
        deadline: Option<Instant>,
        (wishes, tried): (Option<Box<Wishes>>, Vec<SessionId>),
    ) -> Option<Kept> {
        let Payload { encoding, bytes, callbacks } = &request.payload;
        let left = self.left.checked_sub(kept_len(request)?)?;
        self.set_left(left)?;
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let request = Request {
            callback_id: request.callback_id,
            action: ByteString::from(&*request.action),
            node: ByteString::from(&*request.node),
            caller: ByteString::new(),
            time_left: None,
            hops: request.hops,
            headers: request.headers.clone(),
            payload: Payload { encoding: *encoding, bytes, callbacks: callbacks.clone() },
        };
        Some(Kept { request, grant, deadline, wishes, tried })
    }

    /// Lets a request go; gives it as it is to be sent to another provider than that of the session `from`.
    pub(crate) fn release(&mut self, kept: Kept, from: SessionId) -> Waiting {
        self.forget(&kept);
        let Kept { request, grant, deadline, wishes, mut tried } = kept;
        tried.push(from);
        Waiting { request, grant, deadline, wishes, tried }
    }

    /// Takes a request back that was kept.
    pub(crate) fn take(&mut self, kept: Kept) -> Waiting {
        self.forget(&kept);
        let Kept { request, grant, deadline, wishes, tried } = kept;
        Waiting { request, grant, deadline, wishes, tried }
    }

    /// Drops a request whose outcome has come, or whose caller waits no longer.
    pub(crate) fn forget(&mut self, kept: &Kept) {
        // It was added when the request was kept, so it fits.
        let left = self.left + kept_len(&kept.request).unwrap_or_default();
        // To keep less is always possible.
        let _ = self.set_left(left);
    }

    /// Keeps all but so many bytes, if the pool has room for that.
    #[inline]
    fn set_left(&mut self, left: u32) -> Option<()> {
        // A session that keeps little tells the pool nothing.
        let steps = (self.len_max - left) / STEP;
        if steps != self.pooled {
            self.tell_pool(steps)?;
        }
        self.left = left;
        Some(())
    }

    #[cold]
    fn tell_pool(&mut self, steps: u32) -> Option<()> {
        let more = steps.saturating_sub(self.pooled) as usize * POOL_STEP;
        if more > 0 && more + self.pooled as usize * POOL_STEP > self.pool.left() {
            return None;
        }
        self.pool.note(self.pooled as usize, steps as usize);
        self.pooled = steps;
        Some(())
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_empty(&self, len_max: usize) -> bool {
        self.left as usize == len_max
    }
}

impl Drop for KeptLen {
    fn drop(&mut self) {
        self.pool.note(self.pooled as usize, 0);
    }
}

/// How many bytes a request takes while it is kept.
fn kept_len(request: &Request) -> Option<u32> {
    u32::try_from(KEPT_LEN + request.headers.len() + request.payload.len()).ok()
}

/// Whether another provider may run a request that had this outcome: its provider did not run it, for a reason of its own.
fn may_go_elsewhere(outcome: &Outcome) -> bool {
    const OF_THE_PROVIDER: [Code; 6] = [
        Code::DRAINING,
        Code::OVERLOADED,
        Code::PROVIDER_LOST,
        Code::ACTION_NOT_FOUND,
        // The provider has another signature, or is of another version.
        Code::CANNOT_DECODE,
        Code::CANNOT_ENCODE,
    ];
    outcome
        .as_ref()
        .is_err_and(|error| error.fate() == Fate::NotSent && OF_THE_PROVIDER.contains(&error.code()))
}

/// The key of a waiting request: kept by the owner, so that a cancel finds the request.
pub(crate) struct WaitsAt {
    action: ByteString,
    index: usize,
}

/// The receiver of a request.
pub(crate) enum Routed<'a, P> {
    /// The master itself.
    Own(&'a Action),
    /// A branch; and whether there are other branches, which may run the request if this one does not.
    Provider(&'a P, bool),
    /// None: the request is refused for this reason. If no provider has the labels that it asks for, with the labels that there are.
    Nowhere(NoProvider, Option<Box<str>>),
}

/// The answer of the registry for one action, with the requests that waited for it.
pub(crate) struct LookedUp<P> {
    providers: Option<arc_swap::Guard<Arc<Providers<P>>>>,
    /// The requests that waited; none instead of a request that was cancelled.
    pub(crate) requests: Vec<Option<Box<Waiting>>>,
}

impl<P: Provider> Dispatch<P> {
    pub(crate) fn new(master: &str, balance: Balance) -> Self {
        Self { master: master.into(), balance, routes: HashMap::default(), last: None, asked: None }
    }

    /// Chooses the receiver of a request. None if the registry must be asked first: then the request is to [`Dispatch::wait`].
    #[inline]
    pub(crate) fn route(&mut self, action: &ByteString, asked: Sought<'_>) -> Option<Routed<'_, P>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != action) {
            // A request does not overtake earlier requests for its action.
            if self.asked.as_ref().is_some_and(|asked| asked.waiting.contains_key(action)) {
                return None;
            }
            let (action, route) = self.routes.get_key_value(action)?;
            self.last = Some((action.clone(), route.now()));
        }
        let (_, providers) = self.last.as_ref()?;
        (!providers.is_empty()).then(|| choose(providers, &self.master, self.balance, asked))
    }

    /// The action of the master that answers the request that was routed last.
    pub(crate) fn own(&self) -> Option<&Action> {
        self.last.as_ref().and_then(|(_, providers)| providers.own())
    }

    /// Keeps a request until its action has been looked up.
    pub(crate) fn wait(&mut self, waiting: Waiting) -> WaitsAt {
        let (asked, request) = (self.asked.get_or_insert_default(), &waiting.request);
        // A name from a frame shares the buffer of its block, which the route cache would keep.
        let action = match asked.waiting.get_key_value(&request.action) {
            Some((action, _)) => action.clone(),
            None => {
                let action = ByteString::from(&*request.action);
                asked.lookups.push(action.clone());
                action
            }
        };
        let others = asked.waiting.entry(action.clone()).or_default();
        others.push(Some(Box::new(waiting)));
        WaitsAt { action, index: others.len() - 1 }
    }

    /// Drops a request that waits.
    pub(crate) fn cancel(&mut self, at: &WaitsAt) {
        let Some(asked) = &mut self.asked else {
            return;
        };
        let waiting = asked.waiting.get_mut(&at.action).and_then(|waiting| waiting.get_mut(at.index));
        if waiting.and_then(Option::take).is_some() {
            asked.cancelled += 1;
        }
    }

    /// How many cancelled requests still take room among the waiting ones, until the registry has answered for their actions.
    pub(crate) fn cancelled(&self) -> usize {
        self.asked.as_ref().map_or(0, |asked| asked.cancelled)
    }

    /// Takes the actions that the registry is to be asked about now.
    pub(crate) fn take_lookups(&mut self) -> Vec<ByteString> {
        self.asked.as_mut().map(|asked| std::mem::take(&mut asked.lookups)).unwrap_or_default()
    }

    /// Takes the answer of the registry for one action; gives the requests that waited for it.
    pub(crate) fn looked_up(&mut self, action: ByteString, found: Found<P>) -> LookedUp<P> {
        let mut requests = Vec::new();
        if let Some(asked) = &mut self.asked {
            requests = asked.waiting.remove(&action).unwrap_or_default();
            asked.cancelled -= requests.iter().filter(|request| request.is_none()).count();
            // So that a session which has found its routes reads no counts behind a pointer.
            if asked.waiting.is_empty() {
                self.asked = None;
            }
        }
        let providers = found.route().map(|route| route.now());
        if let Found::Named(route) = found {
            if self.routes.len() >= ROUTE_CACHE_MAX {
                self.routes.clear();
            }
            self.routes.insert(action, route);
        }
        LookedUp { providers, requests }
    }

    /// Chooses the receiver of a request whose action was looked up.
    pub(crate) fn route_found<'a>(&self, found: &'a LookedUp<P>, asked: Sought<'_>) -> Routed<'a, P> {
        match &found.providers {
            Some(providers) => choose(providers, &self.master, self.balance, asked),
            None => Routed::Nowhere(NoProvider::None, None),
        }
    }

    /// Ends the handling of a block, or another message: while the next one is handled, each route is looked at anew.
    pub(crate) fn end_message(&mut self) {
        self.last = None;
    }

    /// Drops the requests that wait.
    pub(crate) fn clear(&mut self) {
        self.asked = None;
        self.last = None;
    }

    /// How many requests wait, the cancelled ones included.
    #[cfg(any(test, fuzzing, feature = "testing"))]
    pub(crate) fn waiting(&self) -> usize {
        self.asked.iter().flat_map(|asked| asked.waiting.values()).map(Vec::len).sum()
    }
}

#[inline(always)]
fn choose<'a, P: Provider>(
    providers: &'a Providers<P>,
    master: &str,
    balance: Balance,
    asked: Sought<'_>,
) -> Routed<'a, P> {
    if (asked.node.is_empty() || asked.node == master)
        && let Some(own) = providers.own()
        && !own.has_stopped()
        && asked.wishes.is_none_or(|wishes| wishes.fit_own(own.labels()))
        // While all permits of the master are taken, a branch answers, if there is one that may.
        && (own.has_room() || providers.branches().is_empty() || asked.is_bound())
    {
        return Routed::Own(own);
    }
    match providers.pick(balance, asked) {
        Ok(provider) => Routed::Provider(provider, providers.has_others(provider, asked.tried)),
        Err(reason) => Routed::Nowhere(reason, providers.labels_there(reason, asked)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::{CallbackId, Encoding, Headers};

    fn request(len: usize) -> Request {
        Request {
            callback_id: CallbackId(1),
            action: "a".into(),
            node: ByteString::new(),
            caller: ByteString::new(),
            time_left: None,
            hops: 0,
            headers: Headers::none(),
            payload: Payload::new(Encoding::Json, vec![b'1'; len]),
        }
    }

    /// Each session once had a bound of its own, and all of them together none.
    #[test]
    fn sessions_keep_no_more_together_than_their_pool_has() {
        let pool = Pool::new(8 * POOL_STEP);
        let mut sessions: Vec<_> = (0..8).map(|_| KeptLen::new(16 * POOL_STEP, Arc::clone(&pool))).collect();
        let request = request(POOL_STEP / 2);
        let mut kept: Vec<Vec<Kept>> = Vec::new();
        for session in &mut sessions {
            kept.push(
                std::iter::from_fn(|| session.keep(&request, None, None, (None, Vec::new()))).collect(),
            );
        }
        let counts: Vec<_> = kept.iter().map(Vec::len).collect();
        assert!(counts[0] >= 7 && counts.iter().all(|count| *count > 0), "each keeps a little: {counts:?}");
        assert!(
            counts.iter().sum::<usize>() <= 2 * 8 + 8,
            "less than a step each besides the pool: {counts:?}"
        );
        for (session, kept) in sessions.iter_mut().zip(&kept) {
            kept.iter().for_each(|kept| session.forget(kept));
        }
        assert_eq!(pool.left(), 8 * POOL_STEP);
        let _kept: Vec<_> =
            std::iter::from_fn(|| sessions[0].keep(&request, None, None, (None, Vec::new()))).collect();
        sessions.clear();
        assert_eq!(pool.left(), 8 * POOL_STEP, "a session that ends leaves the pool");
    }
}

//! The route of one action: its providers, and which of them gets a request. The registry changes a route in place, and every session
//! that keeps it sees the change with its next request. So no request for a known action needs a message to the registry, and no
//! provider that has left is chosen again.

use crate::answers::Action;
use arc_swap::ArcSwap;
use meshwork_wire::limits::PROVIDERS_TRIED_MAX;
use meshwork_wire::{CallError, CallbackId, Code, Fate, SessionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which of several providers of an action gets a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Balance {
    /// Each provider after the other.
    #[default]
    RoundRobin,
    /// The provider with the fewest requests in flight.
    LeastInFlight,
    /// A provider by chance.
    Random,
}

/// The session of a branch, as routes and the sessions that forward requests to it see it.
pub(crate) trait Provider: Clone {
    fn id(&self) -> SessionId;
    fn name(&self) -> &str;
    /// Draws an id for a request to the branch, never twice.
    fn next_id(&self) -> CallbackId;
    /// Counts a notification: a call of a function of the branch whose caller waits for no outcome. `false` if too many are on their way to the
    /// session.
    fn begin_notification(&self) -> bool;
    /// Uncounts a notification that has reached the session, or was dropped before.
    fn end_notification(&self);
    /// Counts a request on its way to the session, where requests are given to the provider with the fewest: the session itself counts its requests
    /// once for each message.
    fn begin_request(&self);
    /// Uncounts requests that have reached the session, or were dropped before.
    fn end_requests(&self, count: usize);
    /// How many requests to the branch are in flight, and on their way to the session.
    fn in_flight(&self) -> usize;
    /// Whether the branch takes requests at all: a draining branch does not.
    fn is_taking(&self) -> bool;
    /// Whether there is room for one more request.
    fn has_room(&self) -> bool;
    /// Whether the link of the branch is closing: then there is no room, and the session is about to leave the registry.
    fn is_leaving(&self) -> bool;
}

/// The answer of the registry to a lookup of an action.
#[derive(Clone)]
pub(crate) enum Found<S> {
    /// The route to the providers that offer the action by name. It stays true by itself, so it may be kept.
    Named(Arc<Route<S>>),
    /// The route to the providers that answer everything below a part of the name. It must not be kept, since a provider may offer the action
    /// by name later.
    Wide(Arc<Route<S>>),
    /// No provider answers the action.
    Nowhere,
}

/// The route of one action: its providers, which may change at any time.
pub(crate) struct Route<S>(ArcSwap<Providers<S>>);

/// The providers of one action at one moment.
pub(crate) struct Providers<S> {
    /// The action of the master, if it answers the action itself.
    own: Option<Action>,
    branches: Vec<S>,
    /// Counts up: chooses the branch that round robin gives the next request.
    next: AtomicUsize,
}

/// Why no provider was chosen. Nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoProvider {
    /// No provider offers the action, or the named node does not.
    None,
    /// Every provider is draining.
    Draining,
    /// No provider has room.
    Overloaded,
}

impl<S> Found<S> {
    pub(crate) fn route(&self) -> Option<&Arc<Route<S>>> {
        match self {
            Found::Named(route) | Found::Wide(route) => Some(route),
            Found::Nowhere => None,
        }
    }
}

impl<S: Provider> Route<S> {
    pub(crate) fn new() -> Self {
        Self(ArcSwap::from_pointee(Providers { own: None, branches: Vec::new(), next: AtomicUsize::new(0) }))
    }

    /// The providers at this moment.
    pub(crate) fn now(&self) -> arc_swap::Guard<Arc<Providers<S>>> {
        self.0.load()
    }

    pub(crate) fn set_own(&self, action: Option<Action>) {
        self.change(|providers| providers.own = action);
    }

    pub(crate) fn has_providers(&self) -> bool {
        !self.now().branches.is_empty()
    }

    pub(crate) fn add(&self, session: S) {
        self.change(|providers| providers.branches.push(session));
    }

    pub(crate) fn remove(&self, id: SessionId) {
        self.change(|providers| providers.branches.retain(|session| session.id() != id));
    }

    /// Changes the providers. Called by the registry only, so two changes never run at once.
    fn change(&self, change: impl FnOnce(&mut Providers<S>)) {
        let now = self.now();
        let next = AtomicUsize::new(now.next.load(Ordering::Relaxed));
        let mut providers = Providers { own: now.own.clone(), branches: now.branches.clone(), next };
        change(&mut providers);
        self.0.store(Arc::new(providers));
    }
}

impl<S: Provider> Providers<S> {
    /// The action of the master, which answers before any branch.
    pub(crate) fn own(&self) -> Option<&Action> {
        self.own.as_ref()
    }

    pub(crate) fn branches(&self) -> &[S] {
        &self.branches
    }

    /// Whether a further provider may be tried: one beside this one and those that were tried, which may have gone meanwhile.
    #[inline]
    pub(crate) fn has_others(&self, chosen: &S, tried: &[SessionId]) -> bool {
        if tried.len() + 1 >= PROVIDERS_TRIED_MAX {
            return false;
        }
        let is_other = |other: &S| other.id() != chosen.id() && !tried.contains(&other.id());
        self.branches.len() > 1 && (tried.is_empty() || self.branches.iter().any(is_other))
    }

    /// Whether no provider is left: then a session that kept the route looks the action up again.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_none() && self.branches.is_empty()
    }

    /// Chooses a provider: of this node, if `node` is not empty, and none of those that were `tried`. Costs a step for each provider.
    pub(crate) fn pick(&self, balance: Balance, node: &str, tried: &[SessionId]) -> Result<&S, NoProvider> {
        let branches = &self.branches;
        if let ([only], true, []) = (&branches[..], node.is_empty(), tried) {
            return fit(only);
        }
        let count = branches.len();
        let start = match balance {
            _ if count == 0 => return Err(NoProvider::None),
            Balance::RoundRobin => self.next.fetch_add(1, Ordering::Relaxed) % count,
            Balance::LeastInFlight | Balance::Random => fastrand::usize(..count),
        };
        let mut reason = NoProvider::None;
        let mut best: Option<&S> = None;
        for session in branches[start..].iter().chain(&branches[..start]) {
            if (!node.is_empty() && session.name() != node) || tried.contains(&session.id()) {
                continue;
            }
            match fit(session) {
                Err(no) => {
                    // Overloaded tells the caller more than draining: a later call may find room.
                    if reason != NoProvider::Overloaded {
                        reason = no;
                    }
                }
                Ok(session) if balance == Balance::LeastInFlight => {
                    if best.is_none_or(|best| session.in_flight() < best.in_flight()) {
                        best = Some(session);
                    }
                }
                Ok(session) => return Ok(session),
            }
        }
        best.ok_or(reason)
    }
}

/// Gives a provider that can take a request, or the reason why it cannot.
fn fit<S: Provider>(session: &S) -> Result<&S, NoProvider> {
    if !session.is_taking() {
        Err(NoProvider::Draining)
    } else if !session.has_room() {
        Err(if session.is_leaving() { NoProvider::Draining } else { NoProvider::Overloaded })
    } else {
        Ok(session)
    }
}

/// The error of a request that no provider gets.
pub(crate) fn no_provider(reason: NoProvider, action: &str, node: &str) -> CallError {
    let whose = if node.is_empty() { String::new() } else { format!(" at {node:?}") };
    match reason {
        NoProvider::None => {
            CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, format!("nobody offers {action:?}{whose}"))
        }
        NoProvider::Draining => CallError::new(
            Code::DRAINING,
            Fate::NotSent,
            format!("every provider of {action:?}{whose} is draining"),
        ),
        NoProvider::Overloaded => {
            let what = format!("no provider of {action:?}{whose} has room for another request");
            CallError::new(Code::OVERLOADED, Fate::NotSent, what)
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::HashMap;

    #[derive(Clone, Debug, PartialEq)]
    pub(in super::super) struct Fake {
        id: u64,
        name: &'static str,
        in_flight: usize,
        taking: bool,
        room: bool,
    }

    impl Fake {
        pub(in super::super) fn new(id: u64, name: &'static str) -> Self {
            Self { id, name, in_flight: 0, taking: true, room: true }
        }
    }

    impl Provider for Fake {
        fn id(&self) -> SessionId {
            SessionId(self.id)
        }
        fn name(&self) -> &str {
            self.name
        }
        fn next_id(&self) -> CallbackId {
            CallbackId(0)
        }
        fn begin_notification(&self) -> bool {
            true
        }
        fn end_notification(&self) {}
        fn begin_request(&self) {}
        fn end_requests(&self, _: usize) {}
        fn in_flight(&self) -> usize {
            self.in_flight
        }
        fn is_taking(&self) -> bool {
            self.taking
        }
        fn has_room(&self) -> bool {
            self.room
        }
        fn is_leaving(&self) -> bool {
            false
        }
    }

    fn route(providers: Vec<Fake>) -> Route<Fake> {
        let route = Route::new();
        for provider in providers {
            route.add(provider);
        }
        route
    }

    #[test]
    fn round_robin_reaches_each_provider_and_skips_those_that_do_not_take() {
        let mut second = Fake::new(2, "b");
        second.taking = false;
        let route = route(vec![Fake::new(1, "a"), second, Fake::new(3, "c")]);
        let mut counts = HashMap::new();
        for _ in 0..300 {
            *counts.entry(route.now().pick(Balance::RoundRobin, "", &[]).unwrap().id).or_insert(0) += 1;
        }
        assert_eq!(counts.get(&2), None);
        assert!(counts[&1] >= 100 && counts[&3] >= 100);
    }

    #[test]
    fn least_in_flight_takes_the_idlest() {
        let mut busy = Fake::new(1, "a");
        busy.in_flight = 5;
        let route = route(vec![busy, Fake::new(2, "b")]);
        for _ in 0..20 {
            assert_eq!(route.now().pick(Balance::LeastInFlight, "", &[]).unwrap().id, 2);
        }
    }

    #[test]
    fn random_reaches_every_provider() {
        let route = route(vec![Fake::new(1, "a"), Fake::new(2, "b")]);
        let seen: std::collections::HashSet<_> =
            (0..200).map(|_| route.now().pick(Balance::Random, "", &[]).unwrap().id).collect();
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_named_node_is_the_only_choice() {
        let route = route(vec![Fake::new(1, "a"), Fake::new(2, "b")]);
        for _ in 0..5 {
            assert_eq!(route.now().pick(Balance::RoundRobin, "b", &[]).unwrap().id, 2);
        }
        assert_eq!(route.now().pick(Balance::RoundRobin, "c", &[]), Err(NoProvider::None));
    }

    /// Those that were tried were counted, and not looked for: one that had gone meanwhile hid one that was left.
    #[test]
    fn a_provider_that_was_not_tried_is_left_whoever_has_gone() {
        let route = route(vec![Fake::new(2, "b"), Fake::new(3, "c")]);
        let tried = [SessionId(1)];
        let providers = route.now();
        let chosen = providers.pick(Balance::RoundRobin, "", &tried).unwrap();
        assert!(providers.has_others(chosen, &tried));
        let tried = [SessionId(1), chosen.id()];
        let last = providers.pick(Balance::RoundRobin, "", &tried).unwrap();
        assert!(last.id != chosen.id && !providers.has_others(last, &tried));
        let tried = [tried[0], tried[1], last.id()];
        assert_eq!(providers.pick(Balance::LeastInFlight, "", &tried), Err(NoProvider::None));
    }

    /// Providers that refuse whatever they get took a request through all of them, each time with a search among those before.
    #[test]
    fn a_request_is_not_tried_without_an_end() {
        let route = route((0..1_000).map(|id| Fake::new(id, "a")).collect());
        let mut tried = Vec::new();
        loop {
            let providers = route.now();
            let chosen = providers.pick(Balance::RoundRobin, "", &tried).unwrap();
            let goes_on = providers.has_others(chosen, &tried);
            tried.push(chosen.id());
            if !goes_on {
                break;
            }
        }
        assert_eq!(tried.len(), PROVIDERS_TRIED_MAX);
    }

    #[test]
    fn the_reason_says_why_no_provider_was_chosen() {
        let mut draining = Fake::new(1, "a");
        draining.taking = false;
        let mut full = Fake::new(2, "b");
        full.room = false;
        assert_eq!(route(vec![]).now().pick(Balance::Random, "", &[]), Err(NoProvider::None));
        assert_eq!(
            route(vec![draining.clone()]).now().pick(Balance::Random, "", &[]),
            Err(NoProvider::Draining)
        );
        assert_eq!(
            route(vec![full.clone()]).now().pick(Balance::RoundRobin, "b", &[]),
            Err(NoProvider::Overloaded)
        );
        assert_eq!(
            route(vec![draining, full]).now().pick(Balance::LeastInFlight, "", &[]),
            Err(NoProvider::Overloaded)
        );
    }
}

//! Who answers one action. The registry changes it in place, and every session that kept it sees the change
//! with its next request: no request needs a message to the registry, and nobody who left is chosen again.

use crate::answers::Action;
use arc_swap::ArcSwap;
use meshwork_wire::{CallError, CallbackId, Code, Fate, SessionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which of several providers of an action gets a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Balance {
    /// Each in its turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastInFlight,
    /// Any, by chance.
    Random,
}

/// The session of a branch, as routes and the sessions that forward requests to it see it.
pub(crate) trait Provider: Clone {
    fn id(&self) -> SessionId;
    fn name(&self) -> &str;
    /// Draws an id for a request to the branch, never twice.
    fn next_id(&self) -> CallbackId;
    /// Counts a notification, a call of a function of the branch that nobody waits for; `false` if too many are on their way to the session.
    fn begin_notification(&self) -> bool;
    /// A notification has reached the session, or was dropped before.
    fn end_notification(&self);
    /// How many requests it has in flight.
    fn in_flight(&self) -> usize;
    /// Whether it takes requests at all: one that drains does not.
    fn is_taking(&self) -> bool;
    /// Whether there is room for one more.
    fn has_room(&self) -> bool;
    /// Whether there is no room because its link has just ended, which it will say itself.
    fn is_leaving(&self) -> bool;
}

/// Where requests for an action go.
#[derive(Clone)]
pub(crate) enum Found<S> {
    /// To the branches that offer it by name. The route stays true by itself, so it may be kept.
    Named(Arc<Route<S>>),
    /// To the branches that answer everything below a part of its name, as long as nobody offers it by name.
    Wide(Arc<Route<S>>),
    /// Nowhere.
    Nowhere,
}

/// Who answers one action.
pub(crate) struct Route<S>(ArcSwap<Providers<S>>);

/// Who answers one action at the moment.
pub(crate) struct Providers<S> {
    own: Option<Action>,
    branches: Vec<S>,
    turn: AtomicUsize,
}

/// Why nobody was chosen. Nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoProvider {
    /// Nobody offers it, or not the node that was named.
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
        Self(ArcSwap::from_pointee(Providers { own: None, branches: Vec::new(), turn: AtomicUsize::new(0) }))
    }

    /// Who answers now. It is looked at once a request.
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

    /// Called by the registry only, so two changes never meet.
    fn change(&self, change: impl FnOnce(&mut Providers<S>)) {
        let now = self.now();
        let turn = AtomicUsize::new(now.turn.load(Ordering::Relaxed));
        let mut providers = Providers { own: now.own.clone(), branches: now.branches.clone(), turn };
        change(&mut providers);
        self.0.store(Arc::new(providers));
    }
}

impl<S: Provider> Providers<S> {
    /// The master's own answer, which wins over the branches.
    pub(crate) fn own(&self) -> Option<&Action> {
        self.own.as_ref()
    }

    pub(crate) fn branches(&self) -> &[S] {
        &self.branches
    }

    /// Whether nobody answers any more: a session that kept the route looks the action up again.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_none() && self.branches.is_empty()
    }

    /// Chooses a provider; `node` names the one that it must be, if it is not empty. Costs a step per provider.
    pub(crate) fn pick(&self, balance: Balance, node: &str) -> Result<&S, NoProvider> {
        let branches = &self.branches;
        if let ([only], true) = (&branches[..], node.is_empty()) {
            return fit(only);
        }
        let count = branches.len();
        let start = match balance {
            _ if count == 0 => return Err(NoProvider::None),
            Balance::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed) % count,
            Balance::LeastInFlight | Balance::Random => fastrand::usize(..count),
        };
        let mut reason = NoProvider::None;
        let mut best: Option<&S> = None;
        for session in branches[start..].iter().chain(&branches[..start]) {
            if !node.is_empty() && session.name() != node {
                continue;
            }
            match fit(session) {
                Err(no) => {
                    // Overloaded is the better news: it may be worth waiting for.
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

fn fit<S: Provider>(session: &S) -> Result<&S, NoProvider> {
    if !session.is_taking() {
        Err(NoProvider::Draining)
    } else if !session.has_room() {
        Err(if session.is_leaving() { NoProvider::Draining } else { NoProvider::Overloaded })
    } else {
        Ok(session)
    }
}

/// Why nobody answers, as the caller is told.
pub(crate) fn no_provider(reason: NoProvider, action: &str, node: &str) -> CallError {
    let whose = if node.is_empty() { String::new() } else { format!(" at {node:?}") };
    match reason {
        NoProvider::None => {
            CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, format!("nobody offers {action:?}{whose}"))
        }
        NoProvider::Draining => CallError::new(
            Code::DRAINING,
            Fate::NotSent,
            format!("whoever offers {action:?}{whose} is draining"),
        ),
        NoProvider::Overloaded => {
            let what = format!("whoever offers {action:?}{whose} has no room for another request");
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
    fn round_robin_gives_each_its_turn_and_skips_those_that_do_not_take() {
        let mut second = Fake::new(2, "b");
        second.taking = false;
        let route = route(vec![Fake::new(1, "a"), second, Fake::new(3, "c")]);
        let mut counts = HashMap::new();
        for _ in 0..300 {
            *counts.entry(route.now().pick(Balance::RoundRobin, "").unwrap().id).or_insert(0) += 1;
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
            assert_eq!(route.now().pick(Balance::LeastInFlight, "").unwrap().id, 2);
        }
    }

    #[test]
    fn random_reaches_everyone() {
        let route = route(vec![Fake::new(1, "a"), Fake::new(2, "b")]);
        let seen: std::collections::HashSet<_> =
            (0..200).map(|_| route.now().pick(Balance::Random, "").unwrap().id).collect();
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_named_node_is_the_only_choice() {
        let route = route(vec![Fake::new(1, "a"), Fake::new(2, "b")]);
        for _ in 0..5 {
            assert_eq!(route.now().pick(Balance::RoundRobin, "b").unwrap().id, 2);
        }
        assert_eq!(route.now().pick(Balance::RoundRobin, "c"), Err(NoProvider::None));
    }

    #[test]
    fn the_reason_says_why_nobody_was_chosen() {
        let mut draining = Fake::new(1, "a");
        draining.taking = false;
        let mut full = Fake::new(2, "b");
        full.room = false;
        assert_eq!(route(vec![]).now().pick(Balance::Random, ""), Err(NoProvider::None));
        assert_eq!(route(vec![draining.clone()]).now().pick(Balance::Random, ""), Err(NoProvider::Draining));
        assert_eq!(
            route(vec![full.clone()]).now().pick(Balance::RoundRobin, "b"),
            Err(NoProvider::Overloaded)
        );
        assert_eq!(
            route(vec![draining, full]).now().pick(Balance::LeastInFlight, ""),
            Err(NoProvider::Overloaded)
        );
    }
}

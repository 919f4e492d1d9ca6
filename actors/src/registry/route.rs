//! The way to those who answer one action. The registry changes it in place, and every session that kept it sees the change
//! with its next request: no request needs a message to the registry, and nobody who left is chosen again.

use crate::responder::Action;
use arc_swap::{ArcSwap, ArcSwapOption};
use meshwork_wire::SessionId;
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

/// What a route asks of a session.
pub(crate) trait Provider: Clone {
    fn id(&self) -> SessionId;
    fn name(&self) -> &str;
    /// How many requests it has in flight.
    fn in_flight(&self) -> usize;
    /// Whether it takes requests at all: one that drains does not.
    fn is_taking(&self) -> bool;
    /// Whether there is room for one more.
    fn has_room(&self) -> bool;
    /// Whether there is no room because its link has just ended, which it will say itself.
    fn is_leaving(&self) -> bool;
}

/// Who answers one action.
pub(crate) struct Route<S> {
    own: ArcSwapOption<Action>,
    providers: ArcSwap<Vec<S>>,
    turn: AtomicUsize,
}

/// Why nobody was chosen. Nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoProvider {
    /// Nobody offers it, or not the node that was named.
    None,
    /// Those who do are draining.
    Draining,
    /// Those who do have no room.
    Overloaded,
}

impl<S: Provider> Route<S> {
    pub(crate) fn new() -> Self {
        Self { own: ArcSwapOption::empty(), providers: ArcSwap::default(), turn: AtomicUsize::new(0) }
    }

    /// The master's own answer, which wins over those of branches.
    pub(crate) fn own(&self) -> arc_swap::Guard<Option<Arc<Action>>> {
        self.own.load()
    }

    pub(crate) fn set_own(&self, action: Option<Action>) {
        self.own.store(action.map(Arc::new));
    }

    /// Whether nobody answers any more: whoever kept it looks the action up again.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.load().is_none() && self.providers.load().is_empty()
    }

    pub(crate) fn providers(&self) -> Arc<Vec<S>> {
        self.providers.load_full()
    }

    /// Called by the registry only, so two changes never meet.
    pub(crate) fn add(&self, session: S) {
        let mut providers = Vec::clone(&self.providers.load());
        providers.push(session);
        self.providers.store(Arc::new(providers));
    }

    /// Called by the registry only.
    pub(crate) fn remove(&self, id: SessionId) {
        let mut providers = Vec::clone(&self.providers.load());
        providers.retain(|session| session.id() != id);
        self.providers.store(Arc::new(providers));
    }

    /// Chooses a provider; `node` names the one that it must be, if it is not empty. Costs a step per provider.
    pub(crate) fn pick(&self, balance: Balance, node: &str) -> Result<S, NoProvider> {
        let providers = self.providers.load();
        if let ([only], true) = (&providers[..], node.is_empty()) {
            return fit(only).cloned();
        }
        let count = providers.len();
        let start = match balance {
            _ if count == 0 => return Err(NoProvider::None),
            Balance::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed) % count,
            Balance::LeastInFlight | Balance::Random => fastrand::usize(..count),
        };
        let mut reason = NoProvider::None;
        let mut best: Option<&S> = None;
        for session in providers[start..].iter().chain(&providers[..start]) {
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
                Ok(session) => return Ok(session.clone()),
            }
        }
        best.cloned().ok_or(reason)
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
            *counts.entry(route.pick(Balance::RoundRobin, "").unwrap().id).or_insert(0) += 1;
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
            assert_eq!(route.pick(Balance::LeastInFlight, "").unwrap().id, 2);
        }
    }

    #[test]
    fn random_reaches_everyone() {
        let route = route(vec![Fake::new(1, "a"), Fake::new(2, "b")]);
        let seen: std::collections::HashSet<_> =
            (0..200).map(|_| route.pick(Balance::Random, "").unwrap().id).collect();
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_named_node_is_the_only_choice() {
        let route = route(vec![Fake::new(1, "a"), Fake::new(2, "b")]);
        for _ in 0..5 {
            assert_eq!(route.pick(Balance::RoundRobin, "b").unwrap().id, 2);
        }
        assert_eq!(route.pick(Balance::RoundRobin, "c"), Err(NoProvider::None));
    }

    #[test]
    fn the_reason_says_why_nobody_was_chosen() {
        let mut draining = Fake::new(1, "a");
        draining.taking = false;
        let mut full = Fake::new(2, "b");
        full.room = false;
        assert_eq!(route(vec![]).pick(Balance::Random, ""), Err(NoProvider::None));
        assert_eq!(route(vec![draining.clone()]).pick(Balance::Random, ""), Err(NoProvider::Draining));
        assert_eq!(route(vec![full.clone()]).pick(Balance::RoundRobin, "b"), Err(NoProvider::Overloaded));
        assert_eq!(route(vec![draining, full]).pick(Balance::LeastInFlight, ""), Err(NoProvider::Overloaded));
    }
}

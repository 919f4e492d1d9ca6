//! The route of one action: its providers, and which of them gets a request. The registry changes a route in place, and every session
//! that keeps it sees the change with its next request. So no request for a known action needs a message to the registry, and no
//! provider that has left is chosen again.

use super::rendezvous::Rank;
use crate::answers::Action;
use crate::master::wishes::Sought;
use arc_swap::ArcSwap;
use meshwork_wire::limits::{LABELS_TOLD_MAX, PROVIDERS_TRIED_MAX, WEIGHT_DEFAULT};
use meshwork_wire::{CallError, CallbackId, Code, Fate, Labels, SessionId};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Which of several providers of an action gets a request that asks for none of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Balance {
    /// Each provider after the other.
    RoundRobin,
    /// The next provider in turn, or another one by chance if that has fewer requests in flight: providers that are equal share as by round
    /// robin, and one that is slower, stalls or has fewer permits gets fewer requests. Costs the same however many providers there are.
    #[default]
    LeastOfTwo,
    /// The provider with the fewest requests in flight. Costs a step for each provider.
    LeastInFlight,
    /// As [`Balance::LeastOfTwo`], but by the time that a request would take: the latency of the provider over the last seconds, times its
    /// requests in flight. For providers whose machines or networks differ, and whose requests are of about one size. The latency is that of all
    /// actions of the provider; failures do not make it look fast.
    LeastLatency,
    /// A provider by chance.
    Random,
}

/// The session of a branch, as routes and the sessions that forward requests to it see it.
pub(crate) trait Provider: Clone {
    fn id(&self) -> SessionId;
    fn name(&self) -> &str;
    /// The number of the name, for the ranks of keys.
    fn name_number(&self) -> u64;
    /// The labels and the weight of the branch; none if it was given none.
    fn labels(&self) -> Option<&Labels>;
    /// Draws an id for a request to the branch, never twice.
    fn next_id(&self) -> CallbackId;
    /// Counts a notification: a call of a function of the branch whose caller waits for no outcome. `false` if too many are on their way to the
    /// session.
    fn begin_notification(&self) -> bool;
    /// Uncounts a notification that has reached the session, or was dropped before.
    fn end_notification(&self);
    /// Counts a request on its way to the session: the session itself counts its requests once for each message.
    fn begin_request(&self);
    /// Uncounts requests that have reached the session, or were dropped before.
    fn end_requests(&self, count: usize);
    /// How many requests to the branch are in flight, and on their way to the session.
    fn in_flight(&self) -> usize;
    /// How long the branch takes for a request; none if that is not measured.
    fn latency(&self) -> Option<Duration>;
    /// Whether the branch takes requests at all: a draining branch does not.
    fn is_taking(&self) -> bool;
    /// Whether there is room for one more request.
    fn has_room(&self) -> bool;
    /// Whether the link of the branch is closing: then there is no room, and the session is about to leave the registry.
    fn is_leaving(&self) -> bool;
    /// Whether the branch has a rest, since it failed in a row. When the rest is over, one request is told to try the branch.
    fn rest(&self) -> Rest;
    /// Whether the branch has a rest now. Nobody is told to try the branch.
    fn is_resting(&self) -> bool;

    fn weight(&self) -> u32 {
        self.labels().map_or(WEIGHT_DEFAULT, |labels| labels.weight)
    }
}

/// Whether a provider has a rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    /// It has none.
    No,
    /// It has one.
    Rests,
    /// Its rest is over, and the request of the asker is to try it. It counts as resting for others meanwhile.
    IsOver,
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
    /// Sorted by weight, where the weights differ.
    branches: Vec<S>,
    /// The weights of the branches, where they differ.
    weights: Option<Weights>,
    /// Counts up: chooses the branch whose turn it is.
    next: AtomicUsize,
}

/// The branches of each weight. Weights are drawn, since a share is to hold for few requests as for many.
struct Weights {
    /// The weights of all branches, added up.
    total: u64,
    classes: Vec<Class>,
}

/// The branches of one weight.
struct Class {
    branches: Range<usize>,
    /// Their weights, added up.
    total: u64,
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
        let next = AtomicUsize::new(0);
        Self(ArcSwap::from_pointee(Providers { own: None, branches: Vec::new(), weights: None, next }))
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
        let (own, branches) = (now.own.clone(), now.branches.clone());
        let mut providers = Providers { own, branches, weights: None, next };
        change(&mut providers);
        providers.weights = Weights::of(&mut providers.branches);
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

    /// The branches that a request asks for and that take requests now, with room or without.
    pub(crate) fn taking<'s>(&'s self, asked: Sought<'_>) -> impl Iterator<Item = &'s S> {
        let takes = |session: &&S| session.is_taking() && !session.is_leaving();
        self.branches.iter().filter(move |session| is_asked(*session, asked)).filter(takes)
    }

    /// Why none of the branches that a request asks for takes requests.
    pub(crate) fn why_none(&self, asked: Sought<'_>) -> NoProvider {
        let is_there = self.branches.iter().any(|session| is_asked(session, asked));
        if is_there { NoProvider::Draining } else { NoProvider::None }
    }

    /// The labels that the providers have, for the error of a request that found none with its labels: each once, and the first few.
    #[cold]
    pub(crate) fn labels_there(&self, reason: NoProvider, asked: Sought<'_>) -> Option<Box<str>> {
        if asked.labels().is_empty() || reason != NoProvider::None {
            return None;
        }
        let of_own = self.own.as_ref().and_then(Action::labels);
        let of_all = self.branches.iter().filter_map(Provider::labels).chain(of_own);
        let mut there = BTreeSet::new();
        for label in of_all.flat_map(|labels| &labels.labels) {
            there.insert(label);
            if there.len() > LABELS_TOLD_MAX {
                break;
            }
        }
        let mut told: Vec<_> = there.iter().take(LABELS_TOLD_MAX).map(ToString::to_string).collect();
        if there.len() > LABELS_TOLD_MAX {
            told.push("others".to_owned());
        }
        Some(told.join(", ").into())
    }

    /// Chooses a provider. Costs the same however many providers there are, or a step for each if the request asks for some of them, if those
    /// that were looked at take no requests, or for [`Balance::LeastInFlight`].
    #[inline]
    pub(crate) fn pick(&self, balance: Balance, asked: Sought<'_>) -> Result<&S, NoProvider> {
        if asked.is_any() {
            match &self.branches[..] {
                [] => return Err(NoProvider::None),
                [only] => return fit(only),
                _ => {}
            }
            if let Some(session) = self.pick_next(balance) {
                return Ok(session);
            }
        }
        self.pick_among(balance, asked)
    }

    /// Chooses one of two providers at most; none if these take no requests now.
    fn pick_next(&self, balance: Balance) -> Option<&S> {
        let branches = match &self.weights {
            None => &self.branches[..],
            Some(weights) => &self.branches[weights.draw()],
        };
        let count = branches.len();
        let at = match balance {
            Balance::LeastInFlight => return None,
            Balance::Random => fastrand::usize(..count),
            Balance::RoundRobin | Balance::LeastOfTwo | Balance::LeastLatency => self.turn() % count,
        };
        let first = Ready::of(&branches[at]);
        if count == 1 || !matches!(balance, Balance::LeastOfTwo | Balance::LeastLatency) {
            return first.session();
        }
        let Ready::Yes(first) = first else {
            return first.session().or_else(|| Ready::of(other(branches, at)).session());
        };
        match Ready::of(other(branches, at)) {
            Ready::Yes(second) if !is_idler(balance, second, first) => Some(first),
            Ready::No => Some(first),
            second => second.session(),
        }
    }

    fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Chooses among the providers that the request asks for. Providers that have a rest get it only if no other one takes it.
    #[inline(never)]
    fn pick_among(&self, balance: Balance, asked: Sought<'_>) -> Result<&S, NoProvider> {
        if self.branches.is_empty() {
            return Err(NoProvider::None);
        }
        if let Some(key) = asked.key() {
            return self.pick_by_key(key, asked);
        }
        let start = match balance {
            // The turn was taken before.
            Balance::RoundRobin | Balance::LeastOfTwo | Balance::LeastLatency if asked.is_any() => {
                self.next.load(Ordering::Relaxed)
            }
            Balance::RoundRobin | Balance::LeastOfTwo | Balance::LeastLatency => self.turn(),
            Balance::LeastInFlight | Balance::Random => fastrand::usize(..),
        };
        let mut met_rest = false;
        let picked = self.scan(balance, asked, start, |session| {
            let rest = session.rest();
            met_rest |= rest == Rest::Rests;
            rest
        });
        if picked.is_err() && met_rest {
            return self.scan(balance, asked, start, |_| Rest::No);
        }
        picked
    }

    /// Looks at all providers that the request asks for. `rest` says which of them have a rest.
    fn scan(
        &self,
        balance: Balance,
        asked: Sought<'_>,
        start: usize,
        mut rest: impl FnMut(&S) -> Rest,
    ) -> Result<&S, NoProvider> {
        let (before, behind) = self.branches.split_at(start % self.branches.len());
        let (mut reason, mut best, mut total) = (NoProvider::None, None, 0_u64);
        for session in behind.iter().chain(before).filter(|session| is_asked(*session, asked)) {
            match fit(session).map(|session| (session, rest(session))) {
                // Overloaded tells the caller more than draining: a later call may find room.
                Err(NoProvider::Overloaded) => reason = NoProvider::Overloaded,
                Err(no) if reason == NoProvider::None => reason = no,
                Err(_) | Ok((_, Rest::Rests)) => {}
                Ok((session, Rest::IsOver)) => return Ok(session),
                Ok((session, Rest::No)) if self.weights.is_some() => {
                    // Each in proportion to its weight among all that were seen so far.
                    let weight = u64::from(session.weight());
                    total += weight;
                    if best.is_none() || (weight > 0 && fastrand::u64(..total) < weight) {
                        best = Some(session);
                    }
                }
                Ok((session, Rest::No)) => match (balance, best) {
                    (Balance::RoundRobin | Balance::Random, _) => return Ok(session),
                    (_, Some(best)) if !is_idler(balance, session, best) => {}
                    _ => best = Some(session),
                },
            }
        }
        best.ok_or(reason)
    }

    /// The provider of the highest rank for a key. While it has a rest, the one behind it that has none stands in for it. A provider without room
    /// keeps its keys: others do not know what it knows of them.
    fn pick_by_key(&self, key: u64, asked: Sought<'_>) -> Result<&S, NoProvider> {
        let rank = |session: &&S| {
            let rank = Rank::new(key, session.name_number(), session.id().0);
            if self.weights.is_some() { rank.weighted(session.weight()) } else { rank }
        };
        match self.taking(asked).max_by_key(rank) {
            Some(first) if first.rest() == Rest::Rests => {
                let works = |session: &&S| !session.is_resting();
                fit(self.taking(asked).filter(works).max_by_key(rank).unwrap_or(first))
            }
            Some(first) => fit(first),
            None => Err(self.why_none(asked)),
        }
    }
}

/// A provider other than that at an index, by chance. There are two at least.
fn other<S>(branches: &[S], at: usize) -> &S {
    let other = at + 1 + fastrand::usize(..branches.len() - 1);
    &branches[if other < branches.len() { other } else { other - branches.len() }]
}

/// Whether a request is better given to one provider than to another one.
fn is_idler<S: Provider>(balance: Balance, one: &S, other: &S) -> bool {
    let (of_one, of_other) = (one.in_flight(), other.in_flight());
    match (one.latency(), other.latency()) {
        (Some(one), Some(other)) if balance == Balance::LeastLatency => {
            // The request itself counts. One that takes no time at all takes some.
            let time = |latency: Duration, count: usize| {
                latency.as_micros().max(1).saturating_mul(count as u128 + 1)
            };
            time(one, of_one) < time(other, of_other)
        }
        _ => of_one < of_other,
    }
}

/// Whether a provider is among those that a request asks for.
fn is_asked<S: Provider>(session: &S, asked: Sought<'_>) -> bool {
    (asked.node.is_empty() || session.name() == asked.node)
        && !asked.tried.contains(&session.id())
        && asked.session().is_none_or(|id| id == session.id())
        && (asked.labels().is_empty() || session.labels().is_some_and(|it| it.has_all(asked.labels())))
}

/// Whether a provider gets the next request.
enum Ready<'a, S> {
    /// It takes none now.
    No,
    Yes(&'a S),
    /// It does in any case: the request tries whether it works again.
    InAnyCase(&'a S),
}

impl<'a, S: Provider> Ready<'a, S> {
    #[inline]
    fn of(session: &'a S) -> Self {
        if fit(session).is_err() {
            return Ready::No;
        }
        match session.rest() {
            Rest::No => Ready::Yes(session),
            Rest::IsOver => Ready::InAnyCase(session),
            Rest::Rests => Ready::No,
        }
    }

    fn session(self) -> Option<&'a S> {
        match self {
            Ready::No => None,
            Ready::Yes(session) | Ready::InAnyCase(session) => Some(session),
        }
    }
}

impl Weights {
    /// The weights of branches, which are sorted by them; none if all are equal.
    fn of<S: Provider>(branches: &mut [S]) -> Option<Self> {
        let first = branches.first()?.weight();
        if branches.iter().all(|session| session.weight() == first) {
            return None;
        }
        branches.sort_by_key(Provider::weight);
        let (mut classes, mut start) = (Vec::new(), 0);
        for class in branches.chunk_by(|one, other| one.weight() == other.weight()) {
            let range = start..start + class.len();
            start = range.end;
            let total = class.iter().map(|session| u64::from(session.weight())).sum();
            classes.push(Class { branches: range, total });
        }
        Some(Self { total: classes.iter().map(|class| class.total).sum(), classes })
    }

    /// Draws the branches of one weight, each in proportion to what they have together. Costs a step for each weight.
    fn draw(&self) -> Range<usize> {
        // Weights that differ are not all zero.
        let mut drawn = fastrand::u64(..self.total);
        for class in &self.classes {
            match drawn.checked_sub(class.total) {
                Some(left) => drawn = left,
                None => return class.branches.clone(),
            }
        }
        // Not reached: what was drawn is less than all together.
        self.classes.last().map_or(0..1, |class| class.branches.clone())
    }
}

/// Gives a provider that can take a request, or the reason why it cannot.
#[inline]
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
pub(crate) fn no_provider(
    reason: NoProvider,
    action: &str,
    asked: Sought<'_>,
    labels_there: Option<Box<str>>,
) -> CallError {
    let whose = asked.place();
    match reason {
        NoProvider::None => {
            let there = match labels_there.as_deref() {
                None => String::new(),
                Some("") => ": its providers have no labels".to_owned(),
                Some(there) => format!(": its providers have {there}"),
            };
            let what = format!("nobody offers {action:?}{whose}{there}");
            CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, what)
        }
        NoProvider::Draining => CallError::new(
            Code::DRAINING,
            Fate::NotSent,
            format!("every provider of {action:?}{whose} is draining"),
        ),
        NoProvider::Overloaded if asked.key().is_some() => {
            let what = format!(
                "the provider of {action:?}{whose} that has the key of the call has no room for another request"
            );
            CallError::new(Code::OVERLOADED, Fate::NotSent, what)
        }
        NoProvider::Overloaded => {
            let what = format!("no provider of {action:?}{whose} has room for another request");
            CallError::new(Code::OVERLOADED, Fate::NotSent, what)
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::rendezvous::hash_of;
    use super::*;
    use crate::master::wishes::Wishes;
    use meshwork_wire::Label;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Clone, Debug, PartialEq)]
    pub(in super::super) struct Fake {
        id: u64,
        name: &'static str,
        in_flight: usize,
        taking: bool,
        room: bool,
        rest: Option<Rest>,
        latency: Option<Duration>,
        labels: Option<Labels>,
    }

    impl Fake {
        pub(in super::super) fn new(id: u64, name: &'static str) -> Self {
            let (rest, latency, labels) = (None, None, None);
            Self { id, name, in_flight: 0, taking: true, room: true, rest, latency, labels }
        }

        fn weighing(id: u64, weight: u32) -> Self {
            Self { labels: Some(Labels { labels: Vec::new(), weight }), ..Self::new(id, "a") }
        }

        fn labelled(id: u64, label: &str) -> Self {
            let labels = vec![meshwork_wire::Label::read(label).expect("it is one")];
            Self { labels: Some(Labels { labels, weight: WEIGHT_DEFAULT }), ..Self::new(id, "a") }
        }
    }

    impl Provider for Fake {
        fn id(&self) -> SessionId {
            SessionId(self.id)
        }
        fn name(&self) -> &str {
            self.name
        }
        fn name_number(&self) -> u64 {
            hash_of(self.name.as_bytes())
        }
        fn labels(&self) -> Option<&Labels> {
            self.labels.as_ref()
        }
        fn latency(&self) -> Option<Duration> {
            self.latency
        }
        fn rest(&self) -> Rest {
            self.rest.unwrap_or(Rest::No)
        }
        fn is_resting(&self) -> bool {
            self.rest == Some(Rest::Rests)
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
            *counts
                .entry(route.now().pick(Balance::RoundRobin, Sought::of("", &[])).unwrap().id)
                .or_insert(0) += 1;
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
            assert_eq!(route.now().pick(Balance::LeastInFlight, Sought::of("", &[])).unwrap().id, 2);
        }
    }

    #[test]
    fn random_reaches_every_provider() {
        let route = route(vec![Fake::new(1, "a"), Fake::new(2, "b")]);
        let seen: std::collections::HashSet<_> =
            (0..200).map(|_| route.now().pick(Balance::Random, Sought::of("", &[])).unwrap().id).collect();
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_named_node_is_the_only_choice() {
        let route = route(vec![Fake::new(1, "a"), Fake::new(2, "b")]);
        for _ in 0..5 {
            assert_eq!(route.now().pick(Balance::RoundRobin, Sought::of("b", &[])).unwrap().id, 2);
        }
        assert_eq!(route.now().pick(Balance::RoundRobin, Sought::of("c", &[])), Err(NoProvider::None));
    }

    /// Those that were tried were counted, and not looked for: one that had gone meanwhile hid one that was left.
    #[test]
    fn a_provider_that_was_not_tried_is_left_whoever_has_gone() {
        let route = route(vec![Fake::new(2, "b"), Fake::new(3, "c")]);
        let tried = [SessionId(1)];
        let providers = route.now();
        let chosen = providers.pick(Balance::RoundRobin, Sought::of("", &tried)).unwrap();
        assert!(providers.has_others(chosen, &tried));
        let tried = [SessionId(1), chosen.id()];
        let last = providers.pick(Balance::RoundRobin, Sought::of("", &tried)).unwrap();
        assert!(last.id != chosen.id && !providers.has_others(last, &tried));
        let tried = [tried[0], tried[1], last.id()];
        assert_eq!(providers.pick(Balance::LeastInFlight, Sought::of("", &tried)), Err(NoProvider::None));
    }

    /// Providers that refuse whatever they get took a request through all of them, each time with a search among those before.
    #[test]
    fn a_request_is_not_tried_without_an_end() {
        let route = route((0..1_000).map(|id| Fake::new(id, "a")).collect());
        let mut tried = Vec::new();
        loop {
            let providers = route.now();
            let chosen = providers.pick(Balance::RoundRobin, Sought::of("", &tried)).unwrap();
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
        assert_eq!(route(vec![]).now().pick(Balance::Random, Sought::of("", &[])), Err(NoProvider::None));
        assert_eq!(
            route(vec![draining.clone()]).now().pick(Balance::Random, Sought::of("", &[])),
            Err(NoProvider::Draining)
        );
        assert_eq!(
            route(vec![full.clone()]).now().pick(Balance::RoundRobin, Sought::of("b", &[])),
            Err(NoProvider::Overloaded)
        );
        assert_eq!(
            route(vec![draining, full]).now().pick(Balance::LeastInFlight, Sought::of("", &[])),
            Err(NoProvider::Overloaded)
        );
    }

    /// How often each provider is picked in so many picks of a request that asks for any.
    fn shares(route: &Route<Fake>, balance: Balance, count: usize) -> HashMap<u64, usize> {
        let mut shares = HashMap::new();
        for _ in 0..count {
            let picked = route.now().pick(balance, Sought::default()).expect("one takes it").id;
            *shares.entry(picked).or_default() += 1;
        }
        shares
    }

    const ALL: [Balance; 5] = [
        Balance::RoundRobin,
        Balance::LeastOfTwo,
        Balance::LeastInFlight,
        Balance::LeastLatency,
        Balance::Random,
    ];

    #[test]
    fn providers_that_are_equal_have_their_turns_with_least_of_two() {
        let route = route((0..5).map(|id| Fake::new(id, "a")).collect());
        assert_eq!(shares(&route, Balance::LeastOfTwo, 500), (0..5).map(|id| (id, 100)).collect());
    }

    #[test]
    fn the_busiest_of_all_gets_nothing_with_least_of_two() {
        let mut busy = Fake::new(1, "a");
        busy.in_flight = 9;
        let route = route(vec![busy, Fake::new(2, "a"), Fake::new(3, "a")]);
        for balance in [Balance::LeastOfTwo, Balance::LeastLatency] {
            assert_eq!(shares(&route, balance, 300).get(&1), None);
        }
    }

    #[test]
    fn a_slow_provider_gets_a_request_when_it_would_be_done_sooner() {
        let fake = |id, latency, in_flight| Fake {
            latency: Some(Duration::from_millis(latency)),
            in_flight,
            ..Fake::new(id, "a")
        };
        let near = |in_flight| route(vec![fake(1, 10, in_flight), fake(2, 100, 0)]);
        assert_eq!(shares(&near(8), Balance::LeastLatency, 100), HashMap::from([(1, 100)]));
        assert_eq!(shares(&near(10), Balance::LeastLatency, 100), HashMap::from([(2, 100)]));
        let unmeasured = route(vec![fake(1, 10, 1), Fake::new(2, "a")]);
        assert_eq!(shares(&unmeasured, Balance::LeastLatency, 100), HashMap::from([(2, 100)]));
    }

    #[test]
    fn requests_are_shared_by_weight_however_they_are_balanced() {
        let weighing =
            [Fake::weighing(1, 100), Fake::weighing(2, 10), Fake::new(3, "a"), Fake::weighing(4, 0)];
        for balance in ALL {
            let mut busy = weighing.clone();
            // The weights hold whatever the load: these two are of one weight.
            (busy[0].in_flight, busy[2].in_flight) = (30, 30);
            let shares = shares(&route(busy.to_vec()), balance, 21_000);
            assert_eq!(shares.get(&4), None, "{balance:?}");
            for (id, fair) in [(1, 10_000), (2, 1_000), (3, 10_000_usize)] {
                assert!(shares[&id].abs_diff(fair) < fair / 5, "{balance:?}: {shares:?}");
            }
        }
    }

    #[test]
    fn a_provider_without_weight_gets_what_nobody_else_takes() {
        let mut full = Fake::new(1, "a");
        full.room = false;
        let route = route(vec![Fake::weighing(2, 0), full, Fake::weighing(3, 0)]);
        for balance in ALL {
            assert!(!shares(&route, balance, 100).contains_key(&1));
        }
    }

    #[test]
    fn only_providers_with_the_labels_are_picked() {
        let route =
            route(vec![Fake::new(1, "a"), Fake::labelled(2, "version=2"), Fake::labelled(3, "version=3")]);
        let mut wishes =
            Wishes { labels: meshwork_wire::Label::read_list("version=2").unwrap(), ..Wishes::default() };
        for balance in ALL {
            let asked = Sought { wishes: Some(&wishes), ..Sought::default() };
            assert!((0..20).all(|_| route.now().pick(balance, asked).unwrap().id == 2));
        }
        wishes.labels = meshwork_wire::Label::read_list("version=2,region=eu").unwrap();
        let asked = Sought { wishes: Some(&wishes), ..Sought::default() };
        let now = route.now();
        let reason = now.pick(Balance::LeastOfTwo, asked).unwrap_err();
        let error = no_provider(reason, "pay", asked, now.labels_there(reason, asked));
        let message = "nobody offers \"pay\" with the label version=2 and region=eu: its providers have version=2, version=3";
        assert_eq!(error.message(), message);
    }

    #[test]
    fn one_session_among_those_of_a_name_is_picked() {
        let route = route((1..5).map(|id| Fake::new(id, "a")).collect());
        let wishes = Wishes { session: Some(SessionId(3)), ..Wishes::default() };
        let asked = Sought { node: "a", wishes: Some(&wishes), ..Sought::default() };
        assert!(ALL.iter().all(|balance| route.now().pick(*balance, asked).unwrap().id == 3));
        let other = Sought { node: "b", ..asked };
        assert_eq!(route.now().pick(Balance::Random, other), Err(NoProvider::None));
    }

    #[test]
    fn a_key_stays_with_its_provider_until_that_goes() {
        let names = ["a", "b", "c", "d"];
        let fakes: Vec<_> = (1..5).map(|id| Fake::new(id, names[id as usize - 1])).collect();
        let route = route(fakes.clone());
        let owner = |route: &Route<Fake>, key| {
            let wishes = Wishes { key: Some(key), ..Wishes::default() };
            let asked = Sought { wishes: Some(&wishes), ..Sought::default() };
            route.now().pick(Balance::LeastOfTwo, asked).map(|fake| fake.id)
        };
        for key in (0..100).map(|key: u64| hash_of(&key.to_le_bytes())) {
            let first = owner(&route, key).unwrap();
            let change = |change: &dyn Fn(&mut Fake)| {
                let mut changed = fakes.clone();
                changed.iter_mut().filter(|fake| fake.id == first).for_each(change);
                self::route(changed)
            };
            assert!((0..5).all(|_| owner(&route, key) == Ok(first)));
            // While it has a rest, the one that would have the key without it stands in; when the rest is over, the key tries it.
            let stand_in = owner(&change(&|it| it.rest = Some(Rest::Rests)), key).unwrap();
            assert_eq!(owner(&change(&|it| it.rest = Some(Rest::IsOver)), key), Ok(first));
            let all_rest = fakes.iter().cloned().map(|it| Fake { rest: Some(Rest::Rests), ..it }).collect();
            assert_eq!(owner(&self::route(all_rest), key), Ok(first));
            assert_eq!(owner(&change(&|it| it.in_flight = 1_000), key), Ok(first));
            assert_eq!(owner(&change(&|it| it.room = false), key), Err(NoProvider::Overloaded));
            let next = owner(&change(&|it| it.taking = false), key).unwrap();
            route.remove(SessionId(first));
            assert_eq!(owner(&route, key), Ok(next), "draining or gone, the next is the same");
            assert_eq!(stand_in, next, "and with a rest");
            // It comes back in another place, as another session.
            route.add(Fake { id: first + 10, ..fakes[first as usize - 1].clone() });
            assert_eq!(owner(&route, key), Ok(first + 10));
            route.remove(SessionId(first + 10));
            route.add(fakes[first as usize - 1].clone());
        }
    }

    #[test]
    fn a_provider_that_rests_gets_nothing_until_all_rest() {
        let resting = |id| Fake { rest: Some(Rest::Rests), ..Fake::new(id, "a") };
        for balance in ALL {
            let some = route(vec![resting(1), Fake::new(2, "a"), resting(3), Fake::new(4, "a")]);
            let shares = shares(&some, balance, 400);
            assert!(shares.len() == 2 && shares.contains_key(&2), "{balance:?}: {shares:?}");
            let all = route(vec![resting(1), resting(2)]);
            assert_eq!(self::shares(&all, balance, 200).len(), 2, "{balance:?}");
            let named = all.now().pick(balance, Sought::of("a", &[SessionId(1)])).map(|fake| fake.id);
            assert_eq!(named, Ok(2));
        }
        assert_eq!(route(vec![resting(1)]).now().pick(Balance::default(), Sought::default()).unwrap().id, 1);
    }

    #[test]
    fn the_provider_whose_rest_is_over_is_tried_at_once() {
        let over = Fake { rest: Some(Rest::IsOver), in_flight: 50, ..Fake::new(1, "a") };
        let route = route(vec![Fake::new(2, "a"), over]);
        assert!((0..10).all(|_| route.now().pick(Balance::LeastOfTwo, Sought::default()).unwrap().id == 1));
    }

    /// Providers as they may be: of a few names, with and without labels, weights, rests, drains and room.
    fn any_providers() -> impl Strategy<Value = Vec<Fake>> {
        let name = prop::sample::select(vec!["a", "b", "c", "d", "e"]);
        let weight = prop::sample::select(vec![0, 1, WEIGHT_DEFAULT, 1_000]);
        let labels = (prop::option::of(0..3_u8), prop::option::of(0..2_u8), weight);
        let rest = prop::sample::select(vec![Rest::No, Rest::No, Rest::Rests]);
        let state = (any::<bool>(), any::<bool>(), rest, 0..5_usize);
        let one = (name, prop::option::of(labels), state).prop_map(|(name, labels, state)| {
            let labels = labels.map(|(version, region, weight)| {
                let label = |name: &str, value: u8| Label::new(name, value.to_string()).expect("it is one");
                let version = version.map(|it| label("version", it));
                let region = region.map(|it| label("region", it));
                Labels { labels: version.into_iter().chain(region).collect(), weight }
            });
            let (drains, is_full, rest, in_flight) = state;
            let (taking, room) = (!drains, !is_full);
            Fake { labels, taking, room, rest: Some(rest), in_flight, ..Fake::new(0, name) }
        });
        prop::collection::vec(one, 0..12)
            .prop_map(|all| (1..).zip(all).map(|(id, fake)| Fake { id, ..fake }).collect())
    }

    fn any_wishes() -> impl Strategy<Value = Wishes> {
        let label =
            |name: &'static str| move |value: u8| Label::new(name, value.to_string()).expect("it is one");
        let version = prop::option::of((0..3_u8).prop_map(label("version")));
        let region = prop::option::of((0..2_u8).prop_map(label("region")));
        (prop::option::of(any::<u64>()), version, region).prop_map(|(key, version, region)| Wishes {
            key,
            labels: version.into_iter().chain(region).collect(),
            session: None,
        })
    }

    proptest! {
        #[test]
        fn a_request_gets_a_provider_that_it_asks_for_or_none_is_there(
            providers in any_providers(),
            wishes in any_wishes(),
            node in prop::sample::select(vec!["", "", "a", "b"]),
            balance in prop::sample::select(ALL.to_vec()),
        ) {
            let asked = Sought { node, wishes: Some(&wishes), tried: &[] };
            let fits = |it: &Fake| {
                (node.is_empty() || it.name == node)
                    && wishes.labels.iter().all(|label| it.labels.as_ref().is_some_and(|its| its.labels.contains(label)))
            };
            let route = route(providers.clone());
            match route.now().pick(balance, asked) {
                Ok(picked) => prop_assert!(fits(picked) && picked.taking && picked.room),
                Err(NoProvider::None) => prop_assert!(!providers.iter().any(fits)),
                Err(NoProvider::Draining) => prop_assert!(!providers.iter().any(|it| fits(it) && it.taking)),
                Err(NoProvider::Overloaded) if wishes.key.is_none() => {
                    prop_assert!(!providers.iter().any(|it| fits(it) && it.taking && it.room));
                }
                Err(NoProvider::Overloaded) => {
                    prop_assert!(providers.iter().any(|it| fits(it) && it.taking && !it.room));
                }
            };
        }

        #[test]
        fn a_key_moves_only_from_a_provider_that_goes(
            providers in any_providers(),
            keys in prop::collection::vec(any::<u64>(), 1..20),
            labels in any_wishes(),
            goes in any::<prop::sample::Index>(),
        ) {
            // A stand-in for one that rests, and a key that is refused for want of room, are looked at above.
            let mut providers = providers;
            providers.iter_mut().for_each(|it| (it.rest, it.room) = (None, true));
            prop_assume!(!providers.is_empty());
            let goes = goes.get(&providers).id;
            let (before, after) = (route(providers.clone()), route(providers));
            after.remove(SessionId(goes));
            for key in keys {
                let wishes = Wishes { key: Some(key), ..labels.clone() };
                let asked = Sought { wishes: Some(&wishes), ..Sought::default() };
                let owner = |route: &Route<Fake>| route.now().pick(Balance::default(), asked).ok().map(|it| it.id);
                let (before, after) = (owner(&before), owner(&after));
                prop_assert!(before == after || before == Some(goes), "{before:?} {after:?}");
                prop_assert!(after != Some(goes));
            }
        }
    }
}

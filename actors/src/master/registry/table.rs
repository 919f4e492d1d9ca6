//! The table of the registry: which branch is bound under which name, and which actions it offers. It decides; `registry.rs` receives and
//! sends. It needs no actor, so it is generic over the handle of a session.

use super::route::{Provider, Route};
use crate::hashed::{HashMap, HashSet};
use meshwork_wire::limits::{ACTIONS_PER_NODE_MAX, DESCRIBED_LEN_MAX, DESCRIBED_MAX, HEAD_ELEMENTS_MAX};
use meshwork_wire::{
    Accepts, ActionDescription, ByteString, Offer, Pattern, SessionId, Shape, everything_above,
    is_everything_below, literal_action,
};
use std::sync::Arc;

/// What happens when a branch binds under a name that is bound already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnNameTaken {
    /// The branch that is bound is told, its session closes, and it does not bind again. node-mesh does so, too.
    Replace,
    /// The branch that binds is refused, unless it asks to replace the branch that is bound.
    #[default]
    Refuse,
    /// Both branches stay bound: several instances under one name, which share the calls of their actions.
    Share,
}

/// The bound branches and the actions of one mesh.
pub(crate) struct Table<S> {
    nodes: HashMap<SessionId, Member<S>>,
    names: HashMap<ByteString, Vec<SessionId>>,
    actions: HashMap<ByteString, Listed<S>>,
    /// How many actions are wide: they stand for everything below a name.
    wide: usize,
}

/// A branch that is bound.
struct Member<S> {
    name: ByteString,
    session: S,
    /// The incarnation of the branch; none if it told none.
    incarnation: Option<u64>,
    actions: HashMap<ByteString, Accepts>,
}

/// An action that a branch or the master offers.
struct Listed<S> {
    route: Arc<Route<S>>,
    /// The shape that the first provider with a shape gave.
    shape: Option<Shape>,
    /// What the first provider accepts.
    accepts: Accepts,
    /// The name of the master, if it answers this action.
    own: Option<ByteString>,
}

/// A session that was taken out of the registry.
pub(crate) struct Removed<S> {
    pub(crate) id: SessionId,
    pub(crate) name: ByteString,
    pub(crate) session: S,
}

/// Why the registry did not take in a session or its actions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Denied {
    /// A branch is bound under the name, and the policy is [`OnNameTaken::Refuse`].
    #[error(
        "a branch is bound under the name {0:?} already; take another name, or ask to replace that branch"
    )]
    NameTaken(ByteString),
    /// The session has ended meanwhile.
    #[error("the session is gone")]
    Gone,
    /// The node would offer more than [`ACTIONS_PER_NODE_MAX`] actions.
    #[error("a node offers at most {ACTIONS_PER_NODE_MAX} actions")]
    TooMany,
}

impl<S: Provider> Table<S> {
    pub(crate) fn new() -> Self {
        Self { nodes: HashMap::default(), names: HashMap::default(), actions: HashMap::default(), wide: 0 }
    }

    /// How many nodes, names, actions and providers of actions there are.
    #[cfg(feature = "testing")]
    pub(crate) fn census(&self) -> [usize; 4] {
        let names = self.names.values().map(Vec::len).sum();
        let providers = self.actions.values().map(|listed| listed.route.now().branches().len()).sum();
        [self.nodes.len(), names, self.actions.len(), providers]
    }

    /// Takes a session in; gives the sessions that it replaces, which are taken out. Whatever the policy, a branch replaces its own earlier
    /// session, whose link is lost: `incarnation` tells that it is the same branch.
    pub(crate) fn bind(
        &mut self,
        id: SessionId,
        name: &ByteString,
        session: S,
        on_taken: OnNameTaken,
        incarnation: Option<u64>,
    ) -> Result<Vec<Removed<S>>, Denied> {
        let there = self.names.get(name).map_or(&[][..], |there| there);
        let is_earlier = |old: &SessionId| {
            incarnation.is_some() && self.nodes.get(old).is_some_and(|old| old.incarnation == incarnation)
        };
        let (earlier, others): (Vec<_>, Vec<_>) = there.iter().copied().partition(is_earlier);
        let replaced = match on_taken {
            OnNameTaken::Refuse if !others.is_empty() => return Err(Denied::NameTaken(name.clone())),
            OnNameTaken::Replace => [earlier, others].concat(),
            OnNameTaken::Refuse | OnNameTaken::Share => earlier,
        };
        let replaced = replaced.into_iter().filter_map(|old| self.leave(old)).collect();
        self.names.entry(name.clone()).or_default().push(id);
        let member = Member { name: name.clone(), session, incarnation, actions: HashMap::default() };
        self.nodes.insert(id, member);
        Ok(replaced)
    }

    /// Adds actions to a session; gives the actions that it did not offer before.
    pub(crate) fn offer(
        &mut self,
        id: SessionId,
        offers: Vec<Offer>,
    ) -> Result<Vec<(ByteString, Accepts)>, Denied> {
        let member = self.nodes.get_mut(&id).ok_or(Denied::Gone)?;
        if member.actions.len() + offers.len() > ACTIONS_PER_NODE_MAX {
            return Err(Denied::TooMany);
        }
        let mut new = Vec::with_capacity(offers.len());
        for Offer { action, accepts, shape } in offers {
            let before = member.actions.insert(action.clone(), accepts);
            if before.is_none() {
                let listed = list(&mut self.actions, &mut self.wide, &action, accepts);
                listed.shape = listed.shape.take().or(shape);
                listed.route.add(member.session.clone());
            }
            if before != Some(accepts) {
                new.push((action, accepts));
            }
        }
        Ok(new)
    }

    /// Takes actions from a session; gives the actions that it had offered.
    pub(crate) fn withdraw(&mut self, id: SessionId, actions: &[ByteString]) -> Vec<(ByteString, Accepts)> {
        let Some(member) = self.nodes.get_mut(&id) else {
            return Vec::new();
        };
        let gone: Vec<_> = actions.iter().filter_map(|action| member.actions.remove_entry(action)).collect();
        for (action, _) in &gone {
            unlist(&mut self.actions, &mut self.wide, action, id);
        }
        gone
    }

    /// Takes a session out, with all its actions.
    pub(crate) fn leave(&mut self, id: SessionId) -> Option<Removed<S>> {
        let member = self.nodes.remove(&id)?;
        for action in member.actions.keys() {
            unlist(&mut self.actions, &mut self.wide, action, id);
        }
        if let Some(ids) = self.names.get_mut(&member.name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.names.remove(&member.name);
            }
        }
        Some(Removed { id, name: member.name, session: member.session })
    }

    /// Adds an action that the master answers itself, before any branch that offers it too.
    pub(crate) fn offer_own(&mut self, master: &ByteString, offer: &Offer) -> Arc<Route<S>> {
        let listed = list(&mut self.actions, &mut self.wide, &offer.action, offer.accepts);
        listed.shape = offer.shape.clone().or(listed.shape.take());
        listed.own = Some(master.clone());
        Arc::clone(&listed.route)
    }

    /// Takes out an action that the master answers no longer.
    pub(crate) fn withdraw_own(&mut self, action: &ByteString) {
        if let Some(listed) = self.actions.get_mut(action) {
            listed.own = None;
            if !listed.route.has_providers() {
                self.actions.remove(action);
                self.wide -= usize::from(is_everything_below(action));
            }
        }
    }

    /// Whether callers must be told of this offer before they make another call: what they write may not be what this provider accepts.
    pub(crate) fn is_pressing(&self, action: &str, accepts: Accepts) -> bool {
        let differs = self.actions.get(action).is_some_and(|listed| listed.accepts != accepts);
        differs || accepts == Accepts::List || accepts.is_of_before()
    }

    /// The route of an action that is offered by name. It stays true by itself as providers come and go, so it may be kept.
    pub(crate) fn route(&self, action: &str) -> Option<Arc<Route<S>>> {
        self.actions.get(action).map(|listed| Arc::clone(&listed.route))
    }

    /// The route of an action that no provider offers by its name: to the providers that answer everything below a part of the name. It must not
    /// be kept, since a provider may offer the action by its name later.
    pub(crate) fn wide_route(&self, action: &str) -> Option<Arc<Route<S>>> {
        // A program of another protocol may have an action whose name looks like such an offer, and is none.
        if is_everything_below(action)
            && let Some(route) = self.route(&literal_action(action))
        {
            return Some(route);
        }
        if self.wide == 0 {
            return None;
        }
        everything_above(action).find_map(|above| self.route(&above))
    }

    /// Describes the actions whose names match and sort after a name, sorted by name: at most [`DESCRIBED_MAX`], and as many as fit into a
    /// frame; one at least, if there is one.
    pub(crate) fn describe(&self, pattern: &Pattern, after: &str) -> Vec<ActionDescription> {
        let mut names: Vec<_> = if pattern.is_literal() {
            self.actions.get_key_value(pattern.as_str()).into_iter().collect()
        } else {
            self.actions.iter().filter(|(name, _)| pattern.matches(name)).collect()
        };
        names.retain(|(name, _)| &***name > after);
        names.sort_unstable_by_key(|(name, _)| *name);
        // A frame carries at most `HEAD_ELEMENTS_MAX` list elements, the nodes of each action among them.
        let (mut elements, mut len) = (0, 0);
        let described =
            names.into_iter().take(DESCRIBED_MAX).map(|(name, listed)| self.description(name, listed));
        let fitting = described.take_while(|one| {
            let is_first = elements == 0;
            elements += 1 + one.nodes.len();
            len += one.action.len() + one.nodes.iter().map(|node| node.len()).sum::<usize>();
            len += one.shape.as_ref().map_or(0, |shape| shape.arguments.len() + shape.reply.len());
            is_first || (elements <= HEAD_ELEMENTS_MAX && len <= DESCRIBED_LEN_MAX)
        });
        fitting.collect()
    }

    fn description(&self, action: &ByteString, listed: &Listed<S>) -> ActionDescription {
        let providers = listed.route.now();
        let of_branches = providers.branches();
        let named: HashSet<_> = of_branches
            .iter()
            .filter_map(|session| self.nodes.get(&session.id()))
            .map(|member| member.name.clone())
            .chain(listed.own.clone())
            .collect();
        let mut nodes: Vec<_> = named.into_iter().collect();
        nodes.sort_unstable();
        nodes.truncate(HEAD_ELEMENTS_MAX - 1);
        ActionDescription { action: action.clone(), nodes, shape: listed.shape.clone() }
    }

    /// All bound sessions: id, name, handle and actions of each.
    pub(crate) fn members(
        &self,
    ) -> impl Iterator<Item = (SessionId, &ByteString, &S, &HashMap<ByteString, Accepts>)> {
        self.nodes.iter().map(|(id, member)| (*id, &member.name, &member.session, &member.actions))
    }

    /// How many sessions are bound.
    pub(crate) fn member_count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn name(&self, id: SessionId) -> Option<&ByteString> {
        self.nodes.get(&id).map(|member| &member.name)
    }

    /// How many actions there are.
    pub(crate) fn action_count(&self) -> usize {
        self.actions.len()
    }
}

impl<S: Provider> Listed<S> {
    fn new(accepts: Accepts) -> Self {
        Self { route: Arc::new(Route::new()), shape: None, accepts, own: None }
    }
}

/// The entry of an action, made if there is none.
fn list<'a, S: Provider>(
    actions: &'a mut HashMap<ByteString, Listed<S>>,
    wide: &mut usize,
    action: &ByteString,
    accepts: Accepts,
) -> &'a mut Listed<S> {
    actions.entry(action.clone()).or_insert_with(|| {
        *wide += usize::from(is_everything_below(action));
        Listed::new(accepts)
    })
}

/// Takes a session from the route of an action, and the action out if no provider is left.
fn unlist<S: Provider>(
    actions: &mut HashMap<ByteString, Listed<S>>,
    wide: &mut usize,
    action: &ByteString,
    id: SessionId,
) {
    if let Some(listed) = actions.get_mut(action) {
        listed.route.remove(id);
        if listed.own.is_none() && !listed.route.has_providers() {
            actions.remove(action);
            *wide -= usize::from(is_everything_below(action));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::{Balance, NoProvider, tests::Fake};
    use super::*;

    fn offer(action: &'static str) -> Offer {
        Offer { action: ByteString::from_static(action), accepts: Accepts::MessagePack, shape: None }
    }

    fn bind(
        table: &mut Table<Fake>,
        id: u64,
        name: &'static str,
        on_taken: OnNameTaken,
    ) -> Result<Vec<u64>, Denied> {
        let replaced =
            table.bind(SessionId(id), &ByteString::from_static(name), Fake::new(id, name), on_taken, None)?;
        Ok(replaced.into_iter().map(|removed| removed.id.0).collect())
    }

    #[test]
    fn a_branch_that_binds_again_replaces_its_earlier_session_and_no_other() {
        let mut table = Table::new();
        let mut bind = |id, on_taken, incarnation| {
            let replaced =
                table.bind(SessionId(id), &"a".into(), Fake::new(id, "a"), on_taken, incarnation)?;
            Ok(replaced.into_iter().map(|removed| removed.id.0).collect::<Vec<_>>())
        };
        assert_eq!(bind(1, OnNameTaken::Refuse, Some(7)), Ok(vec![]));
        assert_eq!(bind(2, OnNameTaken::Refuse, Some(8)), Err(Denied::NameTaken("a".into())));
        assert_eq!(bind(2, OnNameTaken::Refuse, None), Err(Denied::NameTaken("a".into())));
        assert_eq!(bind(3, OnNameTaken::Refuse, Some(7)), Ok(vec![1]));
        assert_eq!(bind(4, OnNameTaken::Share, Some(9)), Ok(vec![]));
        assert_eq!(bind(5, OnNameTaken::Refuse, Some(7)), Err(Denied::NameTaken("a".into())));
        assert_eq!(bind(6, OnNameTaken::Share, Some(7)), Ok(vec![3]));
        assert_eq!(bind(7, OnNameTaken::Share, None), Ok(vec![]));
        assert_eq!(bind(8, OnNameTaken::Share, None), Ok(vec![]), "no incarnation is like no other");
        assert_eq!(bind(9, OnNameTaken::Replace, Some(7)).map(|replaced| replaced.len()), Ok(4));
    }

    #[test]
    fn a_name_bound_twice_replaces_refuses_or_shares() {
        let mut table = Table::new();
        assert_eq!(bind(&mut table, 1, "a", OnNameTaken::Replace), Ok(vec![]));
        table.offer(SessionId(1), vec![offer("add")]).unwrap();
        assert_eq!(bind(&mut table, 2, "a", OnNameTaken::Refuse), Err(Denied::NameTaken("a".into())));
        assert_eq!(bind(&mut table, 3, "a", OnNameTaken::Share), Ok(vec![]));
        assert_eq!(table.members().count(), 2);
        let mut replaced = bind(&mut table, 4, "a", OnNameTaken::Replace).unwrap();
        replaced.sort_unstable();
        assert_eq!(replaced, [1, 3]);
        assert!(table.route("add").is_none(), "what the replaced one offered is gone");
    }

    #[test]
    fn a_session_that_leaves_is_out_of_every_route_at_once() {
        let mut table = Table::new();
        bind(&mut table, 1, "a", OnNameTaken::Replace).unwrap();
        bind(&mut table, 2, "b", OnNameTaken::Replace).unwrap();
        table.offer(SessionId(1), vec![offer("add"), offer("sub")]).unwrap();
        table.offer(SessionId(2), vec![offer("add")]).unwrap();
        let kept = table.route("add").unwrap();
        let removed = table.leave(SessionId(1)).unwrap();
        assert_eq!(removed.name, "a");
        assert!(table.route("sub").is_none());
        for _ in 0..4 {
            assert_eq!(kept.now().pick(Balance::RoundRobin, "", &[]).unwrap().id(), SessionId(2));
        }
        table.leave(SessionId(2)).unwrap();
        assert!(matches!(kept.now().pick(Balance::RoundRobin, "", &[]), Err(NoProvider::None)));
        assert!(table.leave(SessionId(2)).is_none());
        assert_eq!(table.action_count(), 0);
    }

    #[test]
    fn an_action_offered_twice_by_one_session_is_news_once() {
        let mut table = Table::new();
        bind(&mut table, 1, "a", OnNameTaken::Replace).unwrap();
        assert_eq!(table.offer(SessionId(1), vec![offer("add"), offer("add")]).unwrap().len(), 1);
        assert_eq!(table.offer(SessionId(1), vec![offer("add")]).unwrap().len(), 0);
        assert_eq!(table.withdraw(SessionId(1), &["add".into(), "none".into()]).len(), 1);
        assert!(table.route("add").is_none());
        assert_eq!(table.offer(SessionId(9), vec![offer("add")]), Err(Denied::Gone));
    }

    #[test]
    fn describe_lists_by_name_who_offers_what() {
        let mut table = Table::new();
        bind(&mut table, 1, "b", OnNameTaken::Share).unwrap();
        bind(&mut table, 2, "a", OnNameTaken::Share).unwrap();
        bind(&mut table, 3, "a", OnNameTaken::Share).unwrap();
        for id in 1..=3 {
            table.offer(SessionId(id), vec![offer("math/add")]).unwrap();
        }
        table.offer(SessionId(1), vec![offer("math/deep/sub"), offer("other")]).unwrap();
        table.offer_own(&"m".into(), &offer("math/add"));
        let described = table.describe(&Pattern::new("math/**").unwrap(), "");
        let names: Vec<_> = described.iter().map(|one| &*one.action).collect();
        assert_eq!(names, ["math/add", "math/deep/sub"]);
        assert_eq!(described[0].nodes, ["a", "b", "m"]);
        assert_eq!(table.describe(&Pattern::new("other").unwrap(), "").len(), 1);
        assert_eq!(table.describe(&Pattern::new("none").unwrap(), "").len(), 0);
        assert_eq!(table.describe(&Pattern::new("**").unwrap(), "").len(), 3);
    }

    #[test]
    fn the_parts_of_a_long_list_are_the_whole_list() {
        let mut table = Table::new();
        bind(&mut table, 1, "a", OnNameTaken::Share).unwrap();
        let name = |number: usize| ByteString::from(format!("many/{number:06}"));
        let count = 2 * DESCRIBED_MAX + 1;
        let offers = (0..count).map(|number| Offer { action: name(number), ..offer("x") }).collect();
        table.offer(SessionId(1), offers).unwrap();
        table.offer(SessionId(1), vec![offer("other")]).unwrap();
        let pattern = Pattern::new("many/*").unwrap();
        let (mut described, mut lens) = (Vec::<ActionDescription>::new(), Vec::new());
        loop {
            let after = described.last().map(|last| last.action.clone()).unwrap_or_default();
            let part = table.describe(&pattern, &after);
            lens.push(part.len());
            if part.is_empty() {
                break;
            }
            described.extend(part);
        }
        assert_eq!(lens, [DESCRIBED_MAX, DESCRIBED_MAX, 1, 0]);
        assert!(described.into_iter().map(|one| one.action).eq((0..count).map(name)));
    }

    /// The answer did not fit into a frame, so that there was none.
    #[test]
    fn long_shapes_make_short_parts() {
        let mut table = Table::new();
        bind(&mut table, 1, "a", OnNameTaken::Share).unwrap();
        let shape = |len| Some(Shape { arguments: "x".repeat(len).into(), reply: ByteString::new() });
        for (action, len) in
            [("a", 2 * DESCRIBED_LEN_MAX), ("b", DESCRIBED_LEN_MAX / 2), ("c", DESCRIBED_LEN_MAX / 2)]
        {
            table.offer(SessionId(1), vec![Offer { shape: shape(len), ..offer(action) }]).unwrap();
        }
        let part =
            |after| table.describe(&Pattern::new("**").unwrap(), after).into_iter().map(|one| one.action);
        assert!(part("").eq(["a"]) && part("a").eq(["b"]) && part("b").eq(["c"]) && part("c").eq([""; 0]));
    }

    #[test]
    fn a_wide_action_answers_those_below_it_that_nobody_offers_by_name() {
        let mut table = Table::new();
        assert!(table.wide_route("a/b").is_none());
        bind(&mut table, 1, "one", OnNameTaken::Share).unwrap();
        bind(&mut table, 2, "two", OnNameTaken::Share).unwrap();
        table.offer(SessionId(1), vec![offer("a/**"), offer("a/b")]).unwrap();
        table.offer(SessionId(2), vec![offer("a/b/**")]).unwrap();
        table.offer_own(&"m".into(), &offer("own/**"));
        let who = |table: &Table<Fake>, action: &str| {
            let route = table.wide_route(action)?;
            route.now().pick(Balance::RoundRobin, "", &[]).ok().map(|provider| provider.id().0)
        };
        assert_eq!(who(&table, "a/x"), Some(1));
        assert_eq!(who(&table, "a/b/c/d"), Some(2), "the nearest");
        assert_eq!(who(&table, "a"), None);
        assert!(table.wide_route("own/x").is_some());
        table.leave(SessionId(2)).unwrap();
        assert_eq!(who(&table, "a/b/c/d"), Some(1));
        table.withdraw(SessionId(1), &["a/**".into()]);
        table.withdraw_own(&"own/**".into());
        assert!(who(&table, "a/x").is_none() && table.wide == 0 && table.route("a/b").is_some());
    }

    #[test]
    fn an_action_of_the_master_outlives_its_branches() {
        let mut table = Table::new();
        table.offer_own(&"m".into(), &offer("add"));
        bind(&mut table, 1, "a", OnNameTaken::Share).unwrap();
        table.offer(SessionId(1), vec![offer("add")]).unwrap();
        table.leave(SessionId(1)).unwrap();
        assert!(table.route("add").is_some());
        table.withdraw_own(&"add".into());
        assert!(table.route("add").is_none());
    }
}

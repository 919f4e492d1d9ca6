//! The table of the registry: which branch is bound under which name, and which actions it offers. It decides; `registry.rs` receives and
//! sends. It needs no actor, so it is generic over the handle of a session.

use super::catalogue::{Catalogue, Listed, Part};
use super::route::{Provider, Route};
use crate::hashed::{HashMap, HashSet};
use crate::master::in_all::{InAll, NoRoom};
use meshwork_wire::limits::ACTIONS_PER_NODE_MAX;
use meshwork_wire::{Accepts, ByteString, Offer, Pattern, SessionId, Shape};
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
    catalogue: Catalogue<S>,
    /// The bytes that the offers of all branches take.
    offered: InAll,
}

/// A branch that is bound.
struct Member<S> {
    name: ByteString,
    /// The name of its identity: no other identity may have the name of the branch meanwhile.
    identity: ByteString,
    session: S,
    /// The incarnation of the branch; none if it told none.
    incarnation: Option<u64>,
    actions: HashMap<ByteString, Offered>,
    /// How many bytes its offers take.
    offered_len: usize,
}

/// An action that a branch offers.
pub(crate) struct Offered {
    pub(crate) accepts: Accepts,
    /// Providers of equal shapes share one.
    shape: Option<Arc<Shape>>,
}

/// How many bytes an offer takes beside its texts: the entries of the action in the maps of the registry, and its route.
const OFFER_LEN: usize = 640;

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
    /// A branch of another identity is bound under the name.
    #[error("a branch of another identity is bound under the name {0:?}; take another name")]
    OfAnother(ByteString),
    /// The session has ended meanwhile.
    #[error("the session is gone")]
    Gone,
    /// The node would offer more than [`ACTIONS_PER_NODE_MAX`] actions.
    #[error("a node offers at most {ACTIONS_PER_NODE_MAX} actions")]
    TooMany,
    /// The actions and shapes of the node would take more bytes than this.
    #[error("the actions and shapes of a node {0}: offer shorter shapes or fewer actions")]
    TooLong(#[from] NoRoom),
}

impl<S: Provider> Table<S> {
    pub(crate) fn new(offered: InAll) -> Self {
        let catalogue = Catalogue::new();
        Self { nodes: HashMap::default(), names: HashMap::default(), catalogue, offered }
    }

    /// How many nodes, names, actions and providers of actions there are.
    #[cfg(feature = "testing")]
    pub(crate) fn census(&self) -> [usize; 4] {
        let names = self.names.values().map(Vec::len).sum();
        [self.nodes.len(), names, self.catalogue.len(), self.catalogue.provider_count()]
    }

    /// Takes a session in; gives the sessions that it replaces, which are taken out. Whatever the policy, a branch replaces its own earlier
    /// session, whose link is lost: `incarnation` tells that it is the same branch. Whatever the policy, it takes the name of no branch of
    /// another identity.
    pub(crate) fn bind(
        &mut self,
        id: SessionId,
        (name, identity): (&ByteString, &ByteString),
        session: S,
        on_taken: OnNameTaken,
        incarnation: Option<u64>,
    ) -> Result<Vec<Removed<S>>, Denied> {
        let there = self.names.get(name).map_or(&[][..], |there| there);
        if there.iter().any(|old| self.nodes.get(old).is_some_and(|old| old.identity != *identity)) {
            return Err(Denied::OfAnother(name.clone()));
        }
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
        let (name, identity) = (name.clone(), identity.clone());
        let member =
            Member { name, identity, session, incarnation, actions: HashMap::default(), offered_len: 0 };
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
        let len_before = |action| member.actions.get(action).map_or(0, |before| before.len(action));
        let more = offers.iter().map(|offer| len_of(&offer.action, offer.shape.as_ref()));
        // An action that comes twice takes the place of its earlier offer once.
        let mut seen = HashSet::default();
        let offered_anew = offers.iter().filter(|offer| seen.insert(&offer.action));
        let less: usize = offered_anew.map(|offer| len_before(&offer.action)).sum();
        drop(seen);
        let len_before = member.offered_len;
        self.offered.check(len_before, (len_before + more.sum::<usize>()).saturating_sub(less))?;
        let (mut new, mut reshaped) = (Vec::with_capacity(offers.len()), Vec::new());
        for Offer { action, accepts, shape } in offers {
            let listed = self.catalogue.list(&action, accepts);
            let shape = shape.map(|shape| listed.share(shape));
            let before = member.actions.insert(action.clone(), Offered { accepts, shape });
            match &before {
                None => listed.route.add(member.session.clone()),
                Some(before) => {
                    member.offered_len -= before.len(&action);
                    reshaped.extend(before.shape.is_some().then(|| action.clone()));
                }
            }
            member.offered_len += member.actions.get(&action).map_or(0, |offered| offered.len(&action));
            if before.is_none_or(|before| before.accepts != accepts) {
                new.push((action, accepts));
            }
        }
        self.offered.note(len_before, member.offered_len);
        for action in reshaped {
            let nodes = &self.nodes;
            self.catalogue.unlist(&action, |listed| listed.forget_shape(nodes, &action));
        }
        Ok(new)
    }

    /// Takes actions from a session; gives the actions that it had offered.
    pub(crate) fn withdraw(&mut self, id: SessionId, actions: &[ByteString]) -> Vec<(ByteString, Accepts)> {
        let Some(member) = self.nodes.get_mut(&id) else {
            return Vec::new();
        };
        let gone: Vec<_> = actions.iter().filter_map(|action| member.actions.remove_entry(action)).collect();
        let len_before = member.offered_len;
        for (action, offered) in &gone {
            member.offered_len -= offered.len(action);
        }
        self.offered.note(len_before, member.offered_len);
        let accepted = |(action, offered): (ByteString, Offered)| {
            self.unlist(&action, id, offered.shape);
            (action, offered.accepts)
        };
        gone.into_iter().map(accepted).collect()
    }

    /// Takes a session out, with all its actions.
    pub(crate) fn leave(&mut self, id: SessionId) -> Option<Removed<S>> {
        let member = self.nodes.remove(&id)?;
        self.offered.note(member.offered_len, 0);
        for (action, offered) in member.actions {
            self.unlist(&action, id, offered.shape);
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
        let listed = self.catalogue.list(&offer.action, offer.accepts);
        listed.own_shape = offer.shape.clone().map(Arc::new);
        listed.shape = listed.own_shape.clone().or(listed.shape.take());
        listed.own = Some(master.clone());
        Arc::clone(&listed.route)
    }

    /// Takes out an action that the master answers no longer.
    pub(crate) fn withdraw_own(&mut self, action: &ByteString) {
        let nodes = &self.nodes;
        self.catalogue.unlist(action, |listed| {
            (listed.own, listed.own_shape) = (None, None);
            listed.forget_shape(nodes, action);
        });
    }

    /// Takes a session, which offered the action with this shape, from the route of the action.
    fn unlist(&mut self, action: &ByteString, id: SessionId, shape: Option<Arc<Shape>>) {
        let nodes = &self.nodes;
        self.catalogue.unlist(action, |listed| {
            listed.route.remove(id);
            drop(shape);
            listed.forget_shape(nodes, action);
        });
    }

    /// Whether callers must be told of this offer before they make another call: what they write may not be what this provider accepts.
    pub(crate) fn is_pressing(&self, action: &str, accepts: Accepts) -> bool {
        let differs = self.catalogue.get(action).is_some_and(|listed| listed.accepts != accepts);
        differs || accepts == Accepts::List || accepts.is_of_before()
    }

    /// The route of an action that is offered by name. It stays true by itself as providers come and go, so it may be kept.
    pub(crate) fn route(&self, action: &str) -> Option<Arc<Route<S>>> {
        self.catalogue.route(action)
    }

    /// The route of an action that no provider offers by its name: to the providers that answer everything below a part of the name. It must not
    /// be kept, since a provider may offer the action by its name later.
    pub(crate) fn wide_route(&self, action: &str) -> Option<Arc<Route<S>>> {
        self.catalogue.wide_route(action)
    }

    /// Describes the next actions whose names match, which may be seen, and which sort after a name: see [`Part`].
    pub(crate) fn describe(&self, pattern: &Pattern, after: &str, may_see: impl Fn(&str) -> bool) -> Part {
        let node = |session: &S| self.nodes.get(&session.id()).map(|member| &member.name);
        self.catalogue.describe(pattern, after, may_see, node)
    }

    /// Counts up with every change of what [`Table::describe`] may say.
    pub(crate) fn changes(&self) -> u64 {
        self.catalogue.changes()
    }

    /// An action of a session that is not allowed, if there is one.
    pub(crate) fn find_offer(
        &self,
        id: SessionId,
        mut allows: impl FnMut(&str) -> bool,
    ) -> Option<&ByteString> {
        self.nodes.get(&id)?.actions.keys().find(|action| !allows(action))
    }

    /// All bound sessions: id, name, handle and actions of each.
    pub(crate) fn members(
        &self,
    ) -> impl Iterator<Item = (SessionId, &ByteString, &S, &HashMap<ByteString, Offered>)> {
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
        self.catalogue.len()
    }
}

impl<S: Provider> Listed<S> {
    /// The shape that other providers have too, if it is equal to this one; else this one, which is told from now on if there was none.
    fn share(&mut self, shape: Shape) -> Arc<Shape> {
        match &self.shape {
            Some(told) if **told == shape => Arc::clone(told),
            Some(_) => Arc::new(shape),
            None => Arc::clone(self.shape.insert(Arc::new(shape))),
        }
    }

    /// Forgets the shape that is told if no provider has it any more, and tells that of another provider from now on.
    fn forget_shape(&mut self, nodes: &HashMap<SessionId, Member<S>>, action: &ByteString) {
        // Each provider that has the shape holds it, beside this entry.
        if self.shape.as_ref().is_none_or(|told| Arc::strong_count(told) > 1) {
            return;
        }
        let providers = self.route.now();
        let of_branch = |session: &S| nodes.get(&session.id())?.actions.get(action)?.shape.clone();
        self.shape = self.own_shape.clone().or_else(|| providers.branches().iter().find_map(of_branch));
    }
}

impl Offered {
    fn len(&self, action: &str) -> usize {
        len_of(action, self.shape.as_deref())
    }
}

/// How many bytes an offer takes.
fn len_of(action: &str, shape: Option<&Shape>) -> usize {
    OFFER_LEN + 2 * action.len() + shape.map_or(0, Shape::len)
}

#[cfg(test)]
mod tests {
    use super::super::route::{Balance, NoProvider, tests::Fake};
    use super::*;
    use crate::master::wishes::Sought;
    use meshwork_wire::ActionDescription;
    use meshwork_wire::limits::{
        DESCRIBED_PART_LEN_MAX, DESCRIBED_PART_MAX, DESCRIBED_STEPS_MAX, OFFERED_LEN_MAX, SHAPE_LEN_MAX,
    };

    /// The next part that has actions, and is the end if it has none.
    fn describe(table: &Table<Fake>, pattern: &str, after: &str) -> Vec<ActionDescription> {
        let (pattern, mut after) = (Pattern::new(pattern).unwrap(), ByteString::from(after));
        loop {
            match table.describe(&pattern, &after, |_| true) {
                Part::Described(actions) => return actions,
                Part::NoneUntil(last) => {
                    assert!(last > after);
                    after = last;
                }
            }
        }
    }

    fn offer(action: &'static str) -> Offer {
        Offer { action: ByteString::from_static(action), accepts: Accepts::MessagePack, shape: None }
    }

    fn bind(
        table: &mut Table<Fake>,
        id: u64,
        name: &'static str,
        on_taken: OnNameTaken,
    ) -> Result<Vec<u64>, Denied> {
        let replaced = table.bind(
            SessionId(id),
            (&ByteString::from_static(name), &ByteString::new()),
            Fake::new(id, name),
            on_taken,
            None,
        )?;
        Ok(replaced.into_iter().map(|removed| removed.id.0).collect())
    }

    #[test]
    fn no_bind_takes_the_name_of_a_branch_of_another_identity() {
        for on_taken in [OnNameTaken::Replace, OnNameTaken::Refuse, OnNameTaken::Share] {
            let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
            let mut bind = |id, identity: &'static str, incarnation| {
                let (name, identity) = (ByteString::from("a"), ByteString::from(identity));
                let bound =
                    table.bind(SessionId(id), (&name, &identity), Fake::new(id, "a"), on_taken, incarnation);
                bound.map(|replaced| replaced.len())
            };
            assert_eq!(bind(1, "one", Some(7)), Ok(0));
            // Whoever knows the incarnation of a branch is not that branch.
            for incarnation in [None, Some(7), Some(8)] {
                assert_eq!(bind(2, "two", incarnation), Err(Denied::OfAnother("a".into())));
            }
            assert_eq!(bind(3, "one", Some(7)), Ok(1), "its own earlier session");
        }
    }

    #[test]
    fn a_branch_that_binds_again_replaces_its_earlier_session_and_no_other() {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        let mut bind = |id, on_taken, incarnation| {
            let replaced = table.bind(
                SessionId(id),
                (&"a".into(), &ByteString::new()),
                Fake::new(id, "a"),
                on_taken,
                incarnation,
            )?;
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
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
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
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        bind(&mut table, 1, "a", OnNameTaken::Replace).unwrap();
        bind(&mut table, 2, "b", OnNameTaken::Replace).unwrap();
        table.offer(SessionId(1), vec![offer("add"), offer("sub")]).unwrap();
        table.offer(SessionId(2), vec![offer("add")]).unwrap();
        let kept = table.route("add").unwrap();
        let removed = table.leave(SessionId(1)).unwrap();
        assert_eq!(removed.name, "a");
        assert!(table.route("sub").is_none());
        for _ in 0..4 {
            assert_eq!(kept.now().pick(Balance::RoundRobin, Sought::of("", &[])).unwrap().id(), SessionId(2));
        }
        table.leave(SessionId(2)).unwrap();
        assert!(matches!(kept.now().pick(Balance::RoundRobin, Sought::of("", &[])), Err(NoProvider::None)));
        assert!(table.leave(SessionId(2)).is_none());
        assert_eq!(table.action_count(), 0);
    }

    #[test]
    fn an_action_offered_twice_by_one_session_is_news_once() {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        bind(&mut table, 1, "a", OnNameTaken::Replace).unwrap();
        assert_eq!(table.offer(SessionId(1), vec![offer("add"), offer("add")]).unwrap().len(), 1);
        assert_eq!(table.offer(SessionId(1), vec![offer("add")]).unwrap().len(), 0);
        assert_eq!(table.withdraw(SessionId(1), &["add".into(), "none".into()]).len(), 1);
        assert!(table.route("add").is_none());
        assert_eq!(table.offer(SessionId(9), vec![offer("add")]), Err(Denied::Gone));
    }

    #[test]
    fn describe_lists_by_name_who_offers_what() {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        bind(&mut table, 1, "b", OnNameTaken::Share).unwrap();
        bind(&mut table, 2, "a", OnNameTaken::Share).unwrap();
        bind(&mut table, 3, "a", OnNameTaken::Share).unwrap();
        for id in 1..=3 {
            table.offer(SessionId(id), vec![offer("math/add")]).unwrap();
        }
        table.offer(SessionId(1), vec![offer("math/deep/sub"), offer("other")]).unwrap();
        table.offer_own(&"m".into(), &offer("math/add"));
        let described = describe(&table, "math/**", "");
        let names: Vec<_> = described.iter().map(|one| &*one.action).collect();
        assert_eq!(names, ["math/add", "math/deep/sub"]);
        assert_eq!(described[0].nodes, ["a", "b", "m"]);
        assert_eq!(describe(&table, "other", "").len(), 1);
        assert_eq!(describe(&table, "none", "").len(), 0);
        assert_eq!(describe(&table, "**", "").len(), 3);
    }

    #[test]
    fn the_parts_of_a_long_list_are_the_whole_list() {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        bind(&mut table, 1, "a", OnNameTaken::Share).unwrap();
        let name = |number: usize| ByteString::from(format!("many/{number:06}"));
        let count = 2 * DESCRIBED_PART_MAX + 1;
        let offers = (0..count).map(|number| Offer { action: name(number), ..offer("x") }).collect();
        table.offer(SessionId(1), offers).unwrap();
        table.offer(SessionId(1), vec![offer("many/more/than"), offer("a"), offer("other")]).unwrap();
        for pattern in ["many/*", "*/*"] {
            let (mut described, mut lens) = (Vec::<ActionDescription>::new(), Vec::new());
            loop {
                let after = described.last().map(|last| last.action.clone()).unwrap_or_default();
                let part = describe(&table, pattern, &after);
                lens.push(part.len());
                if part.is_empty() {
                    break;
                }
                described.extend(part);
            }
            assert_eq!(lens, [DESCRIBED_PART_MAX, DESCRIBED_PART_MAX, 1, 0]);
            assert!(described.into_iter().map(|one| one.action).eq((0..count).map(name)));
        }
    }

    /// A question that matched nothing cost a step for each action of the mesh, in one go.
    #[test]
    fn a_part_looks_at_no_more_names_than_it_may() {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        bind(&mut table, 1, "a", OnNameTaken::Share).unwrap();
        let count = 3 * DESCRIBED_STEPS_MAX;
        let offers = (0..count)
            .map(|number| Offer { action: ByteString::from(format!("many/{number:06}")), ..offer("x") });
        table.offer(SessionId(1), offers.collect()).unwrap();
        table.offer(SessionId(1), vec![offer("z/last")]).unwrap();
        let pattern = Pattern::new("*/last").unwrap();
        let Part::NoneUntil(last) = table.describe(&pattern, "", |_| true) else {
            panic!("none matches so far")
        };
        assert_eq!(last, format!("many/{:06}", DESCRIBED_STEPS_MAX - 1));
        assert_eq!(describe(&table, "*/last", "").len(), 1, "part by part, it is found");
        let literal = Pattern::new("z/*").unwrap();
        assert!(
            matches!(table.describe(&literal, "", |_| true), Part::Described(found) if found.len() == 1),
            "at once"
        );
    }

    /// The answer did not fit into a frame, so that there was none.
    #[test]
    fn long_shapes_make_short_parts() {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        bind(&mut table, 1, "a", OnNameTaken::Share).unwrap();
        let shape = |len| Some(Shape { arguments: "x".repeat(len).into(), reply: ByteString::new() });
        for (action, len) in [
            ("a", 2 * DESCRIBED_PART_LEN_MAX),
            ("b", DESCRIBED_PART_LEN_MAX / 2),
            ("c", DESCRIBED_PART_LEN_MAX / 2),
        ] {
            table.offer(SessionId(1), vec![Offer { shape: shape(len), ..offer(action) }]).unwrap();
        }
        let part = |after| describe(&table, "**", after).into_iter().map(|one| one.action);
        assert!(part("").eq(["a"]) && part("a").eq(["b"]) && part("b").eq(["c"]) && part("c").eq([""; 0]));
    }

    /// 64 frames of a shape of 15 MB each took 1 GB.
    #[test]
    fn the_offers_of_a_branch_are_counted_in_bytes() {
        let mut table = Table::new(InAll::of_each(1_000_000));
        bind(&mut table, 1, "a", OnNameTaken::Share).unwrap();
        bind(&mut table, 2, "b", OnNameTaken::Share).unwrap();
        let long = |number: usize| Offer {
            action: ByteString::from(format!("long/{number}")),
            shape: Some(Shape { arguments: "x".repeat(SHAPE_LEN_MAX).into(), reply: "y".into() }),
            ..offer("x")
        };
        let fitting = 1_000_000 / (SHAPE_LEN_MAX + OFFER_LEN + 100);
        for number in 0..fitting {
            table.offer(SessionId(1), vec![long(number)]).unwrap();
            table.offer(SessionId(1), vec![long(number)]).unwrap();
        }
        let refused = table.offer(SessionId(1), vec![long(fitting)]);
        assert_eq!(
            refused,
            Err(Denied::TooLong(NoRoom::Own(1_000_000))),
            "an offer that is repeated counts once"
        );
        table.offer(SessionId(2), vec![long(fitting)]).expect("another branch has a count of its own");
        table.withdraw(SessionId(1), &["long/0".into()]);
        table.offer(SessionId(1), vec![long(fitting)]).expect("there is room again");
        let gone: Vec<_> = (0..=fitting).map(|number| long(number).action).collect();
        table.withdraw(SessionId(1), &gone);
        assert_eq!(table.nodes[&SessionId(1)].offered_len, 0);
    }

    #[test]
    fn an_action_that_comes_twice_in_a_frame_makes_room_once() {
        let mut table = Table::new(InAll::of_each(2 * SHAPE_LEN_MAX));
        bind(&mut table, 1, "a", OnNameTaken::Share).unwrap();
        let shape = || Some(Shape { arguments: "x".repeat(SHAPE_LEN_MAX - 1).into(), reply: "y".into() });
        let long = |action: &'static str| Offer { shape: shape(), ..offer(action) };
        table.offer(SessionId(1), vec![long("x")]).unwrap();
        let offers = [offer("x"), offer("x"), offer("x"), long("y"), long("z")];
        assert_eq!(
            table.offer(SessionId(1), offers.to_vec()),
            Err(Denied::TooLong(NoRoom::Own(2 * SHAPE_LEN_MAX)))
        );
    }

    /// The shape of a provider that had left was kept, and counted to nobody.
    #[test]
    fn a_shape_is_told_as_long_as_a_provider_has_it() {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        let shaped = |text: &'static str| Offer {
            shape: Some(Shape { arguments: text.into(), reply: ByteString::new() }),
            ..offer("add")
        };
        for (id, offered) in [(1, shaped("one")), (2, shaped("one")), (3, offer("add")), (4, shaped("two"))] {
            bind(&mut table, id, "a", OnNameTaken::Share).unwrap();
            table.offer(SessionId(id), vec![offered]).unwrap();
        }
        let told = |table: &Table<Fake>| {
            let described = describe(table, "add", "");
            described[0].shape.as_ref().map(|shape| shape.arguments.to_string())
        };
        assert_eq!(told(&table).as_deref(), Some("one"));
        table.leave(SessionId(1)).unwrap();
        assert_eq!(told(&table).as_deref(), Some("one"), "another provider has it too");
        table.withdraw(SessionId(2), &["add".into()]);
        assert_eq!(told(&table).as_deref(), Some("two"));
        table.offer_own(&"m".into(), &shaped("own"));
        assert_eq!(told(&table).as_deref(), Some("own"));
        table.withdraw_own(&"add".into());
        assert_eq!(told(&table).as_deref(), Some("two"));
        table.leave(SessionId(4)).unwrap();
        assert_eq!(told(&table), None, "only a provider without a shape is left");
    }

    #[test]
    fn a_wide_action_answers_those_below_it_that_nobody_offers_by_name() {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        assert!(table.wide_route("a/b").is_none());
        bind(&mut table, 1, "one", OnNameTaken::Share).unwrap();
        bind(&mut table, 2, "two", OnNameTaken::Share).unwrap();
        table.offer(SessionId(1), vec![offer("a/**"), offer("a/b")]).unwrap();
        table.offer(SessionId(2), vec![offer("a/b/**")]).unwrap();
        table.offer_own(&"m".into(), &offer("own/**"));
        let who = |table: &Table<Fake>, action: &str| {
            let route = table.wide_route(action)?;
            route.now().pick(Balance::RoundRobin, Sought::of("", &[])).ok().map(|provider| provider.id().0)
        };
        assert_eq!(who(&table, "a/x"), Some(1));
        assert_eq!(who(&table, "a/b/c/d"), Some(2), "the nearest");
        assert_eq!(who(&table, "a"), None);
        assert!(table.wide_route("own/x").is_some());
        table.leave(SessionId(2)).unwrap();
        assert_eq!(who(&table, "a/b/c/d"), Some(1));
        table.withdraw(SessionId(1), &["a/**".into()]);
        table.withdraw_own(&"own/**".into());
        assert!(who(&table, "a/x").is_none() && table.route("a/b").is_some());
    }

    #[test]
    fn an_action_of_the_master_outlives_its_branches() {
        let mut table = Table::new(InAll::of_each(OFFERED_LEN_MAX));
        table.offer_own(&"m".into(), &offer("add"));
        bind(&mut table, 1, "a", OnNameTaken::Share).unwrap();
        table.offer(SessionId(1), vec![offer("add")]).unwrap();
        table.leave(SessionId(1)).unwrap();
        assert!(table.route("add").is_some());
        table.withdraw_own(&"add".into());
        assert!(table.route("add").is_none());
    }
}

//! The actions of one mesh, by name and in order: who provides each, its shape, and the descriptions of those that match a pattern, in
//! parts that take a bounded time. It needs no actor, so it is generic over the handle of a session.

use super::route::{Provider, Route};
use crate::hashed::Entry;
use crate::hashed::HashMap;
use meshwork_wire::limits::{
    DESCRIBED_PART_ELEMENTS_MAX, DESCRIBED_PART_LEN_MAX, DESCRIBED_PART_MAX, DESCRIBED_STEPS_MAX,
    HEAD_ELEMENTS_MAX,
};
use meshwork_wire::{
    Accepts, ActionDescription, ByteString, Pattern, Shape, everything_above, is_everything_below,
    literal_action,
};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// The actions of one mesh.
pub(super) struct Catalogue<S> {
    actions: HashMap<ByteString, Listed<S>>,
    /// The names of all actions.
    sorted: BTreeSet<ByteString>,
    /// How many actions are wide: they stand for everything below a name.
    wide: usize,
    /// Counts the changes: a description that was made at another count may be out of date.
    changes: u64,
}

/// An action that a branch or the master offers.
pub(super) struct Listed<S> {
    pub(super) route: Arc<Route<S>>,
    /// The shape of one of its providers, as long as that provider is there.
    pub(super) shape: Option<Arc<Shape>>,
    /// What the first provider accepts.
    pub(super) accepts: Accepts,
    /// The name of the master, if it answers this action.
    pub(super) own: Option<ByteString>,
    /// The shape that the master gave.
    pub(super) own_shape: Option<Arc<Shape>>,
}

/// A part of the descriptions of the actions that match a pattern.
#[derive(PartialEq, Debug)]
pub(crate) enum Part {
    /// The next actions, sorted by name; none at the end.
    Described(Vec<ActionDescription>),
    /// Of so many names none has matched, the last one being this: the next part begins behind it.
    NoneUntil(ByteString),
}

impl<S: Provider> Catalogue<S> {
    pub(super) fn new() -> Self {
        Self { actions: HashMap::default(), sorted: BTreeSet::new(), wide: 0, changes: 0 }
    }

    /// The action of this name, made if there is none, to be changed.
    pub(super) fn list(&mut self, action: &ByteString, accepts: Accepts) -> &mut Listed<S> {
        self.changes += 1;
        let Self { actions, sorted, wide, .. } = self;
        actions.entry(action.clone()).or_insert_with(|| {
            *wide += usize::from(is_everything_below(action));
            sorted.insert(action.clone());
            Listed { route: Arc::new(Route::new()), shape: None, accepts, own: None, own_shape: None }
        })
    }

    /// Changes the action of this name, and takes it out if no provider is left.
    pub(super) fn unlist(&mut self, action: &ByteString, change: impl FnOnce(&mut Listed<S>)) {
        let Entry::Occupied(mut there) = self.actions.entry(action.clone()) else {
            return;
        };
        self.changes += 1;
        change(there.get_mut());
        if there.get().own.is_none() && !there.get().route.has_providers() {
            there.remove();
            self.sorted.remove(action);
            self.wide -= usize::from(is_everything_below(action));
        }
    }

    pub(super) fn get(&self, action: &str) -> Option<&Listed<S>> {
        self.actions.get(action)
    }

    /// How many providers all actions have together.
    #[cfg(feature = "testing")]
    pub(super) fn provider_count(&self) -> usize {
        self.actions.values().map(|listed| listed.route.now().branches().len()).sum()
    }

    /// How many actions there are.
    pub(super) fn len(&self) -> usize {
        self.actions.len()
    }

    /// Counts up with every change.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The route of an action that is offered by name.
    pub(super) fn route(&self, action: &str) -> Option<Arc<Route<S>>> {
        self.get(action).map(|listed| Arc::clone(&listed.route))
    }

    /// The route of an action that no provider offers by its name: to the providers that answer everything below a part of the name.
    pub(super) fn wide_route(&self, action: &str) -> Option<Arc<Route<S>>> {
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

    /// Describes the next actions whose names match and sort after a name, sorted by name: as many as one part may have, and one at least, if
    /// there is one among the names that a part may look at. Only of those that `may_see` says. `node` gives the name of the branch of a session.
    pub(super) fn describe<'n>(
        &self,
        pattern: &Pattern,
        after: &str,
        may_see: impl Fn(&str) -> bool,
        node: impl Fn(&S) -> Option<&'n ByteString>,
    ) -> Part {
        let (mut described, mut elements, mut len) = (Vec::new(), 0, 0);
        if pattern.is_literal() {
            let there = self
                .actions
                .get_key_value(pattern.as_str())
                .filter(|(name, _)| &***name > after && may_see(name));
            described.extend(there.map(|(name, listed)| description(name, listed, &node)));
            return Part::Described(described);
        }
        // All names that match begin with the segments before the first star, and so stand together.
        let beginning = pattern.as_str().split('*').next().unwrap_or_default();
        let start = if after < beginning { Bound::Included(beginning) } else { Bound::Excluded(after) };
        let mut last = None;
        for (steps, name) in self.sorted.range::<str, _>((start, Bound::Unbounded)).enumerate() {
            if !name.starts_with(beginning) {
                break;
            }
            if steps >= DESCRIBED_STEPS_MAX {
                if described.is_empty()
                    && let Some(last) = last
                {
                    return Part::NoneUntil(ByteString::clone(last));
                }
                break;
            }
            last = Some(name);
            let Some(listed) = self.actions.get(name).filter(|_| pattern.matches(name) && may_see(name))
            else {
                continue;
            };
            let one = description(name, listed, &node);
            elements += 1 + one.nodes.len();
            len += len_of(&one);
            let fits = described.len() < DESCRIBED_PART_MAX
                && elements <= DESCRIBED_PART_ELEMENTS_MAX
                && len <= DESCRIBED_PART_LEN_MAX;
            if !fits && !described.is_empty() {
                break;
            }
            described.push(one);
        }
        Part::Described(described)
    }
}

fn description<'n, S: Provider>(
    action: &ByteString,
    listed: &Listed<S>,
    node: impl Fn(&S) -> Option<&'n ByteString>,
) -> ActionDescription {
    let providers = listed.route.now();
    let of_branches = providers.branches().iter().filter_map(|session| node(session).cloned());
    let mut nodes: Vec<_> = of_branches.chain(listed.own.clone()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.truncate(HEAD_ELEMENTS_MAX - 1);
    let shape = listed.shape.as_deref().cloned();
    ActionDescription { action: action.clone(), nodes, shape }
}

/// About how many bytes a description takes.
fn len_of(one: &ActionDescription) -> usize {
    let nodes: usize = one.nodes.iter().map(|node| node.len() + 2).sum();
    let shape = one.shape.as_ref().map_or(0, |shape| shape.len() + 10);
    one.action.len() + nodes + shape + 8
}

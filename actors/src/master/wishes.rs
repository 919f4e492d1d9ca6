//! What a call asks of its provider besides its action and the name of a node: the provider of a key, one with labels, or one session.

use super::forwarded::MASTER;
use meshwork_wire::{Label, Labels, SessionId};

/// What a request asks of its provider. Most ask for nothing, and have none.
#[derive(Clone, Default, Debug)]
pub(crate) struct Wishes {
    /// The number of its key: requests of one key get one provider, as long as it is there.
    pub(crate) key: Option<u64>,
    /// The labels that the provider must have.
    pub(crate) labels: Vec<Label>,
    /// The session that must answer: several branches may have one name.
    pub(crate) session: Option<SessionId>,
}

/// Which provider a request may get.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sought<'a> {
    /// The name of the node; empty for any.
    pub(crate) node: &'a str,
    /// None if it asks for nothing.
    pub(crate) wishes: Option<&'a Wishes>,
    /// The sessions of the providers that did not run the request.
    pub(crate) tried: &'a [SessionId],
}

impl Wishes {
    /// Whether the master, with these labels, may answer by an action of its own.
    pub(crate) fn fit_own(&self, own: Option<&Labels>) -> bool {
        let has_labels = self.labels.is_empty() || own.is_some_and(|own| own.has_all(&self.labels));
        has_labels && self.session.is_none_or(|session| session == MASTER)
    }
}

impl<'a> Sought<'a> {
    /// Whether any provider may answer.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.node.is_empty() && self.wishes.is_none() && self.tried.is_empty()
    }

    /// Any provider but those that were tried, of this node if it is not empty.
    #[cfg(test)]
    pub(crate) fn of(node: &'a str, tried: &'a [SessionId]) -> Self {
        Self { node, wishes: None, tried }
    }

    /// Whether no other provider may answer if the one that is asked for has no room.
    pub(crate) fn is_bound(&self) -> bool {
        self.wishes.is_some_and(|wishes| wishes.key.is_some() || wishes.session.is_some())
    }

    pub(crate) fn key(&self) -> Option<u64> {
        self.wishes.and_then(|wishes| wishes.key)
    }

    pub(crate) fn labels(&self) -> &'a [Label] {
        self.wishes.map_or(&[], |wishes| &wishes.labels)
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.wishes.and_then(|wishes| wishes.session)
    }

    /// Where the provider is looked for, for an error: ` at "node" with version=2`.
    pub(crate) fn place(&self) -> String {
        let mut place = if self.node.is_empty() { String::new() } else { format!(" at {:?}", self.node) };
        for (at, label) in self.labels().iter().enumerate() {
            place += if at == 0 { " with the label " } else { " and " };
            place += &label.to_string();
        }
        place
    }
}

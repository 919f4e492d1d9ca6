//! The permissions of an identity, and the question whether a branch may bind.

use crate::link::Certificate;
use crate::link::refusal::{may_not, not_permitted};
use actix::Message;
use meshwork_wire::{ByteString, CallError, Pattern};

/// Asks whether this branch may bind. Sent to the recipient that the master was given, which answers with the identity of the branch: an
/// [`Identity`], or [`Permissions`] where all branches are one identity.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Identity, String>")]
#[non_exhaustive]
pub struct Authenticate {
    /// The name that the branch binds under.
    pub name: ByteString,
    /// The credentials that the branch shows.
    pub credentials: Option<ByteString>,
    /// The name of the identity that the [identities](super::Identities) of the master know the branch as, if the master has any.
    pub identity: Option<ByteString>,
    /// The address that the branch comes from.
    pub peer: String,
    /// The certificate that the branch has shown, checked against the CA of the listener. None over a link without TLS, or at a listener that
    /// asks for no certificates.
    pub certificate: Option<Certificate>,
}

/// An identity: who binds, and what it may do. A name that a branch of one identity is bound under is refused to every other identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub(super) name: ByteString,
    pub(super) permissions: Permissions,
}

impl Identity {
    /// The identity of this name, which may do everything.
    #[must_use]
    pub fn new(name: impl Into<ByteString>) -> Self {
        Self { name: name.into(), permissions: Permissions::everything() }
    }

    /// The identity of all branches where the master tells them apart by nothing, which may do everything.
    pub(super) fn everyone() -> Self {
        Self::from(Permissions::EVERYTHING)
    }

    /// With these permissions.
    #[must_use]
    pub fn with(mut self, permissions: Permissions) -> Self {
        self.permissions = permissions;
        self
    }

    /// The name of the identity.
    #[must_use]
    pub fn name(&self) -> &ByteString {
        &self.name
    }

    /// What the identity may do.
    #[must_use]
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }
}

/// The identity of all branches of a master that tells them apart by nothing: they share their names, as the master says.
impl From<Permissions> for Identity {
    fn from(permissions: Permissions) -> Self {
        Self { name: ByteString::new(), permissions }
    }
}

/// What a permission is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Bind under a name.
    Bind,
    /// Offer an action.
    Offer,
    /// Call an action.
    Call,
    /// Publish to a topic, and broadcast to it.
    Publish,
    /// Subscribe to a pattern, and hear the broadcasts to its topics.
    Subscribe,
    /// See an action, in answers to `describe` and in the news of nodes.
    Describe,
}

impl Verb {
    /// All verbs, in their order.
    pub const ALL: [Self; 6] =
        [Self::Bind, Self::Offer, Self::Call, Self::Publish, Self::Subscribe, Self::Describe];

    /// The verb before a name, in a sentence.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Verb::Bind => "bind under",
            Verb::Offer => "offer",
            Verb::Call => "call",
            Verb::Publish => "publish to",
            Verb::Subscribe => "subscribe to",
            Verb::Describe => "describe",
        }
    }
}

/// What an identity may do: for each verb the patterns of the names that it is permitted for; `None` permits all names, an empty list none.
/// The default permits everything.
///
/// ```
/// # use meshwork_actors::master::Permissions;
/// # fn main() -> Result<(), meshwork_wire::PatternError> {
/// let permissions = Permissions::nothing().may_call(["stock/**".parse()?]).may_publish(["orders/*".parse()?]);
/// assert!(permissions.offer == Some(Vec::new()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Permissions {
    /// The names that branches may bind under.
    pub bind: Option<Vec<Pattern>>,
    /// The actions that branches may offer. An offer of everything below a name, such as `files/**`, needs a pattern that covers it.
    pub offer: Option<Vec<Pattern>>,
    /// The actions that branches may call. A function that was passed to a branch may be called without a permission.
    pub call: Option<Vec<Pattern>>,
    /// The topics that branches may publish and broadcast to.
    pub publish: Option<Vec<Pattern>>,
    /// The patterns that branches may subscribe to: each must be covered by one of these. A broadcast reaches the branches that may subscribe to
    /// its topic.
    pub subscribe: Option<Vec<Pattern>>,
    /// The actions that branches see: in the answer to a `describe`, and in the news of nodes. A node that offers none of them is not seen.
    pub describe: Option<Vec<Pattern>>,
}

impl Permissions {
    /// Everything is permitted.
    pub(super) const EVERYTHING: Self =
        Self { bind: None, offer: None, call: None, publish: None, subscribe: None, describe: None };

    /// Everything is permitted.
    #[must_use]
    pub fn everything() -> Self {
        Self::EVERYTHING
    }

    /// Nothing is permitted.
    #[must_use]
    pub fn nothing() -> Self {
        let [bind, offer, call, publish, subscribe, describe] = [const { Some(Vec::new()) }; 6];
        Self { bind, offer, call, publish, subscribe, describe }
    }

    /// Permits to bind under these names, and no other ones.
    #[must_use]
    pub fn may_bind(mut self, names: impl IntoIterator<Item = Pattern>) -> Self {
        self.bind = Some(names.into_iter().collect());
        self
    }

    /// Permits to offer these actions, and no other ones.
    #[must_use]
    pub fn may_offer(mut self, actions: impl IntoIterator<Item = Pattern>) -> Self {
        self.offer = Some(actions.into_iter().collect());
        self
    }

    /// Permits to call these actions, and no other ones.
    #[must_use]
    pub fn may_call(mut self, actions: impl IntoIterator<Item = Pattern>) -> Self {
        self.call = Some(actions.into_iter().collect());
        self
    }

    /// Permits to publish and broadcast to these topics, and no other ones.
    #[must_use]
    pub fn may_publish(mut self, topics: impl IntoIterator<Item = Pattern>) -> Self {
        self.publish = Some(topics.into_iter().collect());
        self
    }

    /// Permits to subscribe to these topics, and no other ones.
    #[must_use]
    pub fn may_subscribe(mut self, topics: impl IntoIterator<Item = Pattern>) -> Self {
        self.subscribe = Some(topics.into_iter().collect());
        self
    }

    /// Permits to see these actions, and no other ones.
    #[must_use]
    pub fn may_describe(mut self, actions: impl IntoIterator<Item = Pattern>) -> Self {
        self.describe = Some(actions.into_iter().collect());
        self
    }

    /// The patterns that a verb is permitted for; none if it is permitted for all names.
    #[must_use]
    pub fn patterns(&self, verb: Verb) -> Option<&[Pattern]> {
        match verb {
            Verb::Bind => self.bind.as_deref(),
            Verb::Offer => self.offer.as_deref(),
            Verb::Call => self.call.as_deref(),
            Verb::Publish => self.publish.as_deref(),
            Verb::Subscribe => self.subscribe.as_deref(),
            Verb::Describe => self.describe.as_deref(),
        }
    }

    /// Whether a verb is permitted for this name: the name of a node, of an action or of a topic; the pattern of a subscription; the name of
    /// an offer.
    #[must_use]
    pub fn allows(&self, verb: Verb, name: &str) -> bool {
        let Some(patterns) = self.patterns(verb) else {
            return true;
        };
        match verb {
            Verb::Offer => patterns.iter().any(|pattern| pattern.covers_action(name)),
            // A topic is a pattern that covers itself alone.
            Verb::Subscribe if !name.contains('*') => patterns.iter().any(|pattern| pattern.matches(name)),
            Verb::Subscribe => {
                Pattern::new(name).is_ok_and(|name| patterns.iter().any(|pattern| pattern.covers(&name)))
            }
            Verb::Bind | Verb::Call | Verb::Publish | Verb::Describe => {
                patterns.iter().any(|pattern| pattern.matches(name))
            }
        }
    }

    /// Whether a subscription to this pattern is permitted.
    pub(super) fn allows_subscription(&self, key: &Pattern) -> bool {
        let Some(patterns) = &self.subscribe else {
            return true;
        };
        patterns.iter().any(|pattern| pattern.covers(key))
    }

    /// Whether all actions may be seen.
    pub(super) fn sees_everything(&self) -> bool {
        self.describe.is_none()
    }

    /// Whether some action that this pattern matches may be seen.
    pub(super) fn allows_some_description(&self, asked: &Pattern) -> bool {
        self.describe.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.meets(asked)))
    }

    /// The error of a branch for which a verb is not permitted.
    #[cold]
    pub(super) fn denial(&self, verb: Verb, name: &str) -> CallError {
        not_permitted(verb.in_words(), name, self.patterns(verb).unwrap_or_default())
    }

    /// The reason why a verb is not permitted, in words.
    #[cold]
    pub(super) fn reason(&self, verb: Verb, name: &str) -> String {
        may_not(verb.in_words(), name, self.patterns(verb).unwrap_or_default())
    }
}

/// How a listener lets its clients in.
#[derive(Clone)]
pub(crate) enum LetsIn {
    /// The bind of each client is checked.
    Checked,
    /// The bind is checked, and the client replaces the branch that has its name, as in node-mesh.
    CheckedAndReplacing,
    /// Every client binds: as this identity where the master has identities, else with these permissions.
    Everyone { permissions: Permissions, identity: ByteString },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&'static str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::new(*text).expect("a pattern")).collect()
    }

    #[test]
    fn everything_is_permitted_by_default_and_nothing_by_nothing() {
        for verb in Verb::ALL {
            for name in ["a", "a/b", "a/**"] {
                assert!(Permissions::default().allows(verb, name));
                assert!(!Permissions::nothing().allows(verb, name));
            }
        }
        assert_eq!(Permissions::default(), Permissions::EVERYTHING);
    }

    #[test]
    fn a_subscription_is_permitted_if_a_pattern_covers_it() {
        let permissions = Permissions::nothing().may_subscribe(patterns(&["a/**", "b"]));
        for (pattern, allowed) in [
            ("a/x", true),
            ("a/*/c", true),
            ("a/**", true),
            ("b", true),
            ("**", false),
            ("*", false),
            ("a", false),
        ] {
            assert_eq!(permissions.allows(Verb::Subscribe, pattern), allowed, "{pattern}");
        }
        let said = permissions.denial(Verb::Subscribe, "**");
        assert_eq!(said.message(), "this branch may not subscribe to \"**\": it may subscribe to a/**, b");
    }

    #[test]
    fn an_offer_of_everything_below_needs_a_pattern_for_all_of_it() {
        let permissions = Permissions::nothing().may_offer(patterns(&["files/*"]));
        assert!(permissions.allows(Verb::Offer, "files/a"));
        assert!(!permissions.allows(Verb::Offer, "files/**"));
    }

    #[test]
    fn an_error_names_few_of_many_patterns() {
        let many = (0..1_000).map(|number| Pattern::new(format!("topic/{number}")).expect("a pattern"));
        let said = Permissions::nothing().may_call(many).reason(Verb::Call, "x");
        assert!(said.ends_with("topic/7 and 992 more"), "{said}");
        assert!(Permissions::nothing().reason(Verb::Call, "x").ends_with("it may call nothing"));
    }
}

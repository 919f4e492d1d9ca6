//! The permissions of a branch, and the question whether it may bind.

use crate::link::Certificate;
use actix::Message;
use meshwork_wire::{ByteString, Offer, Pattern, SubscriptionKey};

/// Asks whether this branch may bind. Sent to the recipient that the master was given, which answers with the permissions of the branch.
#[derive(Message, Clone)]
#[rtype(result = "Result<Permissions, String>")]
#[non_exhaustive]
pub struct Authenticate {
    /// The name that the branch binds under.
    pub name: ByteString,
    /// The credentials that the branch shows.
    pub credentials: Option<ByteString>,
    /// The address that the branch comes from.
    pub peer: String,
    /// The certificate that the branch has shown, checked against the CA of the listener. None over a link without TLS, or at a listener that
    /// asks for no certificates.
    pub certificate: Option<Certificate>,
}

/// The permissions of a branch. `None` allows everything; it is the default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Permissions {
    /// The actions that the branch may call.
    pub call: Option<Vec<Pattern>>,
    /// The actions that the branch may offer.
    pub respond: Option<Vec<Pattern>>,
    /// The topics that the branch may publish and broadcast to.
    pub publish: Option<Vec<Pattern>>,
    /// The patterns that the branch may subscribe to, each exactly as it is written.
    pub subscribe: Option<Vec<Pattern>>,
}

/// How a listener lets its clients in.
#[derive(Clone)]
pub(crate) enum LetsIn {
    /// The bind of each client is checked.
    Checked,
    /// The bind is checked, and the client replaces the branch that has its name, as in node-mesh.
    CheckedAndReplacing,
    /// Every client binds, with these permissions.
    Everyone(Permissions),
}

impl Permissions {
    /// Everything is allowed.
    pub(super) const ALL: Self = Self { call: None, respond: None, publish: None, subscribe: None };
}

pub(super) fn allows(patterns: Option<&[Pattern]>, name: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(name)))
}

pub(super) fn check_permissions(
    permissions: &Permissions,
    offers: &[Offer],
    subscriptions: &[SubscriptionKey],
) -> Result<(), String> {
    for offer in offers {
        if !allows(permissions.respond.as_deref(), &offer.action) {
            return Err(format!("it may not offer {:?}", offer.action));
        }
    }
    if let Some(allowed) = &permissions.subscribe
        && let Some(key) = subscriptions.iter().find(|key| !allowed.contains(&key.pattern))
    {
        return Err(format!("it may not subscribe to {:?}", key.pattern.as_str()));
    }
    Ok(())
}

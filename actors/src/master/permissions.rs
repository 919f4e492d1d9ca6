//! What a branch may do, and the question whether it may bind.

use actix::Message;
use meshwork_wire::{ByteString, CallError, Code, Fate, Offer, Pattern, SubscriptionKey};

/// May this branch bind? Sent to the recipient that the master was given; its answer says what the branch may do.
#[derive(Message, Clone)]
#[rtype(result = "Result<Permissions, String>")]
pub struct Authenticate {
    /// The name that the branch wants.
    pub name: ByteString,
    /// What it shows.
    pub credentials: Option<ByteString>,
    /// Where it comes from.
    pub peer: String,
}

/// What a branch may do. `None` is everything, the default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Permissions {
    /// The actions that it may call.
    pub call: Option<Vec<Pattern>>,
    /// The actions that it may offer.
    pub respond: Option<Vec<Pattern>>,
    /// The topics that it may publish and broadcast to.
    pub publish: Option<Vec<Pattern>>,
    /// The patterns that it may subscribe to, each as it is written.
    pub subscribe: Option<Vec<Pattern>>,
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

pub(super) fn not_permitted(what: &str, name: &str) -> CallError {
    CallError::new(Code::NOT_PERMITTED, Fate::NotSent, format!("this branch may not {what} {name:?}"))
}

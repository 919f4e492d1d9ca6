//! The identity of a bound branch, and what becomes of the branch when the identities of its master change: it stays as what it is, binds
//! again, or is refused. It decides; `session.rs` acts.

use super::identities::{Identities, Shown};
use super::permissions::{Identity, Verb};
use std::sync::Arc;

/// The identity of a branch, and how the master found it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Standing {
    pub(crate) identity: Arc<Identity>,
    /// What the identities of the master were asked with; none if there were no identities.
    pub(crate) shown: Option<Shown>,
    /// Whether the recipient that checks binds has had the last word on the permissions.
    pub(crate) is_answered: bool,
}

/// Why a branch that is bound may not stay.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Unsettled {
    pub(crate) why: String,
    /// Whether the branch may bind again, as what it is now.
    pub(crate) may_return: bool,
}

/// Looks at a bound branch again, whose master has new identities. Gives its new standing, under which its offers and subscriptions are to be
/// checked; none if nothing has changed for it.
///
/// A branch is told when it binds which topics it may publish to and which nodes there are, so that one for which this changes must bind
/// again.
pub(crate) fn reconsider(
    standing: Option<&Standing>,
    identities: &Identities,
    name: &str,
) -> Result<Option<Standing>, Unsettled> {
    let again = |why: String| Unsettled { why, may_return: true };
    let Some(Standing { identity: before, shown: Some(shown), is_answered }) = standing else {
        return Err(again("the master has identities from now on: bind again".to_owned()));
    };
    let refused = |why: String| Unsettled { why, may_return: false };
    let identity =
        identities.find(shown).map_err(|why| refused(format!("the identities have changed: {why}")))?;
    if identity.name != before.name {
        return Err(again(format!(
            "the branch is of the identity {:?} from now on: bind again",
            identity.name
        )));
    }
    identities.check_name(&identity, name, shown.gateway.is_some()).map_err(refused)?;
    if *is_answered || identity == *before {
        return Ok(None);
    }
    for verb in [Verb::Publish, Verb::Describe] {
        if identity.permissions.patterns(verb) != before.permissions.patterns(verb) {
            let what = verb.in_words();
            return Err(again(format!("what {:?} may {what} has changed: bind again", identity.name)));
        }
    }
    Ok(Some(Standing { identity, shown: Some(shown.clone()), is_answered: false }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::identities::token_digest;

    fn identities(text: &str) -> Identities {
        Identities::from_toml(text).expect("it is right")
    }

    fn entry(name: &str, token: &str, more: &str) -> String {
        format!("[identities.{name}]\ntokens = [\"{}\"]\n{more}\n", token_digest(token))
    }

    fn standing(text: &str) -> Standing {
        let shown = Shown::by_branch(Some("token"), None);
        Standing {
            identity: identities(text).find(&shown).expect("known"),
            shown: Some(shown),
            is_answered: false,
        }
    }

    #[test]
    fn a_branch_stays_while_its_identity_permits_what_it_was_told() {
        let before = standing(&entry("a", "token", "call = [\"x\"]\npublish = [\"t\"]"));
        let now = identities(&entry("a", "token", "call = [\"y\"]\noffer = [\"z\"]\npublish = [\"t\"]"));
        let after = reconsider(Some(&before), &now, "a/1").expect("it stays").expect("it has changed");
        assert!(after.identity.permissions.allows(Verb::Call, "y"));
        assert!(!after.identity.permissions.allows(Verb::Call, "x"));
        assert_eq!(reconsider(Some(&after), &now, "a/1"), Ok(None), "nothing has changed any more");
    }

    #[test]
    fn a_branch_whose_identity_is_gone_or_has_lost_its_name_is_refused() {
        let text = entry("a", "token", "bind = [\"other\"]");
        let before = standing(&text);
        for (now, name, why) in [
            (entry("a", "new token", "bind = [\"other\"]"), "a", "the token is wrong"),
            (String::new(), "a", "the token is wrong"),
            (entry("a", "token", ""), "other", "may not bind under \"other\""),
            (text + &entry("other", "its", ""), "other/x", "belongs to another identity"),
        ] {
            let unsettled = reconsider(Some(&before), &identities(&now), name).expect_err(why);
            assert!(!unsettled.may_return && unsettled.why.contains(why), "{unsettled:?}");
        }
    }

    #[test]
    fn a_branch_binds_again_to_be_told_what_has_changed() {
        let before = standing(&entry("a", "token", ""));
        for (standing, now) in [
            (Some(&before), entry("a", "token", "publish = [\"t\"]")),
            (Some(&before), entry("a", "token", "describe = [\"t\"]")),
            (Some(&before), entry("b", "token", "bind = [\"a\"]")),
            (None, entry("a", "token", "")),
        ] {
            let unsettled = reconsider(standing, &identities(&now), "a").expect_err(&now);
            assert!(unsettled.may_return, "{unsettled:?}");
        }
    }
}

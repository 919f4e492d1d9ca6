//! Whether a branch may bind: the master finds its identity by its token or certificate, then asks the recipient that checks identities.

use super::identities::{ANONYMOUS, Shown};
use super::permissions::{Authenticate, Identity};
use super::standing::Standing;
use super::surroundings::MasterShared;
use crate::link::door::Place;
use futures::future::{BoxFuture, LocalBoxFuture};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Checks whether a branch may bind; gives its identity, or the reason why it may not, which is the same whatever names and identities there
/// are. A branch whose token or certificate is right has a place apart from connections of which nothing is known. No identity where the master tells branches apart by nothing.
pub(crate) fn authenticate(
    master: &MasterShared,
    mut asked: Authenticate,
    place: &Place,
) -> LocalBoxFuture<'static, Result<Option<Arc<Standing>>, String>> {
    let refused = |why: &str| -> BoxFuture<'static, _> {
        let why = why.to_owned();
        Box::pin(async move { Err(why) })
    };
    let standing = match master.identities() {
        Some(identities) => {
            let shown = Shown::by_branch(asked.credentials.as_deref(), asked.certificate.as_ref());
            match identities.find(&shown) {
                Ok(identity) => {
                    if *identity.name() != *ANONYMOUS {
                        place.known();
                    }
                    Some(Standing { identity, shown: Some(shown), is_answered: false })
                }
                Err(why) => return refused(why),
            }
        }
        None => None,
    };
    // Where there are identities, each has tokens of its own.
    if let (Some(token), None) = (&master.config.token, &standing) {
        let shown = asked.credentials.as_deref().unwrap_or_default();
        if !bool::from(shown.as_bytes().ct_eq(token.as_bytes())) {
            return refused(match asked.credentials {
                Some(_) => "the token is wrong",
                None => "a token is needed, and the branch shows none",
            });
        }
        place.known();
    }
    if asked.certificate.is_some() && standing.is_none() {
        // Its CA is the one that the listener trusts.
        place.known();
    }
    let Some(recipient) = &master.config.authenticate else {
        return Box::pin(async { Ok(standing.map(Arc::new)) });
    };
    asked.identity = standing.as_ref().map(|standing| standing.identity.name().clone());
    let asking = recipient.send(asked);
    Box::pin(async move {
        let mut identity = asking.await.unwrap_or_else(|_| Err("nobody checks binds any more".to_owned()))?;
        let (known, shown) = standing.map_or((None, None), |known| (Some(known.identity), known.shown));
        if let (true, Some(known)) = (identity.name.is_empty(), known) {
            // The recipient has only permissions to add.
            identity.name = known.name.clone();
        }
        if shown.is_none() && identity == Identity::everyone() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Standing { identity: Arc::new(identity), shown, is_answered: true })))
    })
}

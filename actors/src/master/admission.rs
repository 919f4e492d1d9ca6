//! Whether a branch may bind: the master checks the token first, then asks the recipient that checks identities.

use super::permissions::{Authenticate, Permissions};
use super::surroundings::Config;
use crate::link::door::Place;
use futures::future::LocalBoxFuture;
use subtle::ConstantTimeEq;

/// Checks whether a branch may bind; gives its permissions, or the reason why it may not. A branch whose token is right has a place apart from
/// connections of which nothing is known.
pub(crate) fn authenticate(
    config: &Config,
    asked: Authenticate,
    place: &Place,
) -> LocalBoxFuture<'static, Result<Permissions, String>> {
    if let Some(token) = &config.token {
        let shown = asked.credentials.as_deref().unwrap_or_default();
        if !bool::from(shown.as_bytes().ct_eq(token.as_bytes())) {
            let why = match asked.credentials {
                Some(_) => "the token is wrong",
                None => "a token is needed, and the branch shows none",
            };
            return Box::pin(async move { Err(why.to_owned()) });
        }
        place.known();
    }
    match &config.authenticate {
        Some(recipient) => {
            let asking = recipient.send(asked);
            Box::pin(async move {
                asking.await.unwrap_or_else(|_| Err("nobody checks binds any more".to_owned()))
            })
        }
        None => Box::pin(async { Ok(Permissions::default()) }),
    }
}

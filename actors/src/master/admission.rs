//! Whether a branch may bind: the token is checked first, then the recipient that checks identities is asked.

use super::permissions::{Authenticate, Permissions};
use super::surroundings::Config;
use futures::future::LocalBoxFuture;
use subtle::ConstantTimeEq;

/// Whether a branch may bind, and what it may do then.
pub(crate) fn authenticate(
    config: &Config,
    asked: Authenticate,
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

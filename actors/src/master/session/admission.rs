//! Whether a branch may bind, and which actions and subscriptions it may have; and the bind itself, which registers and subscribes it.

use crate::link::Handshake;
use crate::link::door::Place;
use crate::link::outbox::Outbox;
use crate::master::admission::authenticate;
use crate::master::handle::SessionHandle;
use crate::master::identities::Shown;
use crate::master::permissions::{Authenticate, Identity, LetsIn, Permissions, Verb};
use crate::master::registry::table::OnNameTaken;
use crate::master::standing::Standing;
use crate::master::surroundings::MasterShared;
use crate::master::{registry, router};
use meshwork_wire::limits::{ACTIONS_PER_FRAME_MAX, CREDENTIALS_LEN_MAX, PROTOCOL_VERSION, SHAPE_LEN_MAX};
use meshwork_wire::{
    Bind, Bound, ByteString, CallError, Code, ExtendedBound, Fate, Features, Frame, Offer, Pattern, Shape,
    SubscriptionKey, check_action, check_group, check_node,
};
use std::sync::Arc;

/// Why a branch may not bind.
pub(super) struct BindRefused {
    pub(super) code: Code,
    pub(super) why: String,
    /// Whether the branch may bind again later.
    pub(super) may_return: bool,
    /// Whether the token is wrong, or a permission is missing.
    pub(super) denied: bool,
}

impl BindRefused {
    fn for_good(why: impl Into<String>) -> Self {
        Self { code: Code::BIND_ERROR, why: why.into(), may_return: false, denied: false }
    }

    fn name_taken(why: impl Into<String>) -> Self {
        Self { may_return: true, ..Self::for_good(why) }
    }

    fn unknown(why: String) -> Self {
        Self { denied: true, ..Self::for_good(why) }
    }

    fn not_permitted(why: String) -> Self {
        Self { code: Code::NOT_PERMITTED, why, may_return: false, denied: true }
    }

    fn master_ends() -> Self {
        Self { code: Code::DRAINING, why: "the master ends".to_owned(), may_return: true, denied: false }
    }
}

/// What an extended bind says beside the bind; nothing in the bind of a branch of before.
#[derive(Default)]
pub(super) struct Extension {
    /// The features that the branch knows; none if its bind is not extended.
    pub(super) features: Option<Features>,
    pub(super) incarnation: Option<u64>,
    pub(super) replaces: bool,
}

/// Checks a bind as far as no other actor is needed.
pub(super) fn check_bind(bind: &Bind) -> Result<(), BindRefused> {
    if bind.version != PROTOCOL_VERSION {
        return Err(BindRefused::for_good(format!(
            "this master speaks version {PROTOCOL_VERSION} of the protocol, the branch version {}",
            bind.version
        )));
    }
    check_node(&bind.name)
        .map_err(|error| BindRefused::for_good(format!("a node cannot be named so: {error}")))?;
    if bind.credentials.as_ref().is_some_and(|credentials| credentials.len() > CREDENTIALS_LEN_MAX) {
        return Err(BindRefused::for_good(format!("credentials may have {CREDENTIALS_LEN_MAX} bytes")));
    }
    if bind.offers.len() > ACTIONS_PER_FRAME_MAX {
        return Err(BindRefused::for_good(format!(
            "a bind carries at most {ACTIONS_PER_FRAME_MAX} actions; register the others"
        )));
    }
    let checked = bind.offers.iter().try_for_each(check_offer);
    let checked = checked.and_then(|()| bind.subscriptions.iter().try_for_each(check_key));
    checked.map_err(|error| BindRefused::for_good(error.message()))
}

/// Binds a branch: finds its identity, checks its name and permissions, registers it, subscribes it. Requests for the branch may come in as soon
/// as it is registered, before this ends. The identity stands in the handle of the session before anybody else has it.
pub(super) async fn admit(
    master: Arc<MasterShared>,
    session: SessionHandle,
    name: ByteString,
    (bind, extension): (Bind, Extension),
    lets_in: LetsIn,
    (place, handshake): (Arc<Place>, Option<Arc<Handshake>>),
) -> Result<Option<Arc<Standing>>, BindRefused> {
    let Bind { credentials, offers, subscriptions, .. } = bind;
    let replaces = extension.replaces || matches!(lets_in, LetsIn::CheckedAndReplacing);
    let identities = master.identities();
    // The bind has come through the link, so its handshake is done.
    let certificate = handshake.and_then(|handshake| handshake.certificate().cloned());
    let standing = match lets_in {
        LetsIn::Everyone { permissions, identity } => match &identities {
            Some(identities) => {
                let shown = Shown::by_gateway(&identity, certificate.as_ref());
                let identity = identities.find(&shown).map_err(|why| BindRefused::unknown(why.to_owned()))?;
                Some(Arc::new(Standing { identity, shown: Some(shown), is_answered: false }))
            }
            None => {
                let identity = Arc::new(Identity::from(permissions));
                Some(Arc::new(Standing { identity, shown: None, is_answered: false }))
            }
        },
        LetsIn::Checked | LetsIn::CheckedAndReplacing => {
            let (peer, identity) = (session.peer().to_owned(), None);
            let asked = Authenticate { name: name.clone(), credentials, certificate, identity, peer };
            authenticate(&master, asked, &place).await.map_err(BindRefused::unknown)?
        }
    };
    if let Some(standing) = &standing {
        check_name(&master, standing, &name).map_err(BindRefused::not_permitted)?;
        check_permissions(standing.identity.permissions(), &offers, &subscriptions)?;
    }
    if name == master.name {
        return Err(BindRefused::for_good(format!("{name:?} is the name of the master; take another name")));
    }
    session.set_standing(standing.clone());
    let incarnation = extension.incarnation;
    let on_taken = if replaces { OnNameTaken::Replace } else { master.config.on_taken };
    let register = registry::Register { session: session.clone(), name, offers, on_taken, incarnation };
    match master.registry.send(register).await {
        Ok(Ok(())) => {}
        // The link of the session that has the name may be dead already, which shows after some heartbeats: then a later bind succeeds.
        Ok(Err(denied @ registry::table::Denied::NameTaken(_))) => {
            return Err(BindRefused::name_taken(denied.to_string()));
        }
        Ok(Err(denied @ registry::table::Denied::OfAnother(_))) => {
            let denied = BindRefused::not_permitted(denied.to_string());
            return Err(BindRefused { may_return: true, ..denied });
        }
        Ok(Err(denied)) => return Err(BindRefused::for_good(denied.to_string())),
        Err(_) => return Err(BindRefused::master_ends()),
    }
    // The router takes other messages in between. It knows a branch without subscriptions too, which gets broadcasts.
    let parts = subscriptions.chunks(ACTIONS_PER_FRAME_MAX);
    for keys in parts.chain(subscriptions.is_empty().then_some(&[][..])) {
        let (session, keys) = (session.clone(), keys.to_vec());
        let subscribe = router::Subscribe { session, keys, hearer: None, is_bound: false };
        match master.router.send(subscribe).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(BindRefused::for_good(error.message().to_owned())),
            Err(_) => return Err(BindRefused::master_ends()),
        }
    }
    Ok(standing)
}

/// Tells the branch that it is bound, with the bounds of this master; and, if its bind was extended, with its permission to publish.
pub(super) fn say_bound(
    master: &MasterShared,
    session: &SessionHandle,
    is_extended: bool,
    publish: Option<Vec<Pattern>>,
    outbox: &Outbox,
) {
    let config = &master.config;
    let bound = Bound {
        session: session.id(),
        master: master.name.clone(),
        heartbeat_ms: u64::try_from(config.heartbeat.as_millis()).unwrap_or(u64::MAX),
        frame_len_max: config.frame_len_max as u64,
        in_flight_max: master.limits.in_flight_max as u64,
    };
    outbox.say(&if is_extended {
        Frame::ExtendedBound(ExtendedBound { bound, features: Features::ALL, publish })
    } else {
        Frame::Bound(bound)
    });
}

/// Whether the identity of a branch may have this name.
fn check_name(master: &MasterShared, standing: &Standing, name: &str) -> Result<(), String> {
    let permissions = standing.identity.permissions();
    match (master.identities(), &standing.shown) {
        (Some(identities), Some(shown)) => {
            identities.check_name(&standing.identity, name, shown.gateway.is_some())
        }
        _ if permissions.allows(Verb::Bind, name) => Ok(()),
        _ => Err(permissions.reason(Verb::Bind, name)),
    }
}

fn check_permissions(
    permissions: &Permissions,
    offers: &[Offer],
    subscriptions: &[SubscriptionKey],
) -> Result<(), BindRefused> {
    let denied = |verb, name: &str| BindRefused::not_permitted(permissions.reason(verb, name));
    if let Some(offer) = offers.iter().find(|offer| !permissions.allows(Verb::Offer, &offer.action)) {
        return Err(denied(Verb::Offer, &offer.action));
    }
    if let Some(key) = subscriptions.iter().find(|key| !permissions.allows_subscription(&key.pattern)) {
        return Err(denied(Verb::Subscribe, key.pattern.as_str()));
    }
    Ok(())
}

/// Whether one frame may carry so many actions: the registry takes each frame in one go.
pub(super) fn check_count(actions: usize) -> Result<(), CallError> {
    if actions <= ACTIONS_PER_FRAME_MAX {
        return Ok(());
    }
    let what = format!("a frame carries at most {ACTIONS_PER_FRAME_MAX} actions, and this one {actions}");
    Err(CallError::new(Code::FRAME_TOO_LARGE, Fate::NotSent, what))
}

/// Whether the names and shapes of these offers are valid.
pub(super) fn check_offers(offers: &[Offer]) -> Result<(), CallError> {
    check_count(offers.len())?;
    offers.iter().try_for_each(check_offer)
}

/// Whether an offer has a name, and a shape that is not too long.
fn check_offer(offer: &Offer) -> Result<(), CallError> {
    check_action(&offer.action)?;
    let len = offer.shape.as_ref().map_or(0, Shape::len);
    if len <= SHAPE_LEN_MAX {
        return Ok(());
    }
    let what = format!("the shape of {:?} has {len} bytes, and {SHAPE_LEN_MAX} is the most", offer.action);
    Err(CallError::new(Code::FRAME_TOO_LARGE, Fate::NotSent, what))
}

/// Whether the group of a subscription has a name. A pattern that is none was no frame.
pub(super) fn check_key(key: &SubscriptionKey) -> Result<(), CallError> {
    key.group.as_ref().map_or(Ok(()), |group| Ok(check_group(group)?))
}

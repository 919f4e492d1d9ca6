//! Whether a branch may bind, and which actions and subscriptions it may have; and the bind itself, which registers and subscribes it.

use crate::link::outbox::Outbox;
use crate::link::refusal::not_permitted;
use crate::master::admission::authenticate;
use crate::master::handle::SessionHandle;
use crate::master::permissions::{Authenticate, LetsIn, Permissions, allows, check_permissions};
use crate::master::registry::table::OnNameTaken;
use crate::master::surroundings::MasterShared;
use crate::master::{registry, router};
use meshwork_wire::limits::{ACTIONS_PER_FRAME_MAX, CREDENTIALS_LEN_MAX, PROTOCOL_VERSION, SHAPE_LEN_MAX};
use meshwork_wire::{
    Bind, Bound, ByteString, CallError, Code, ExtendedBound, Fate, Features, Frame, Offer, Shape,
    SubscriptionKey, check_action, check_group, check_node,
};
use std::sync::Arc;

/// Why a branch may not bind.
pub(super) struct BindRefused {
    pub(super) code: Code,
    pub(super) why: String,
    /// Whether the branch may bind again later.
    pub(super) may_return: bool,
}

impl BindRefused {
    fn for_good(why: impl Into<String>) -> Self {
        Self { code: Code::BIND_ERROR, why: why.into(), may_return: false }
    }

    fn name_taken(why: impl Into<String>) -> Self {
        Self { code: Code::BIND_ERROR, why: why.into(), may_return: true }
    }

    fn master_ends() -> Self {
        Self { code: Code::DRAINING, why: "the master ends".to_owned(), may_return: true }
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

/// Binds a branch: checks its identity and permissions, registers it, subscribes it. Requests for the branch may come in as soon as it is registered, before this ends.
pub(super) async fn admit(
    master: Arc<MasterShared>,
    session: SessionHandle,
    name: ByteString,
    (bind, extension): (Bind, Extension),
    peer: String,
    lets_in: LetsIn,
) -> Result<Permissions, BindRefused> {
    let Bind { credentials, offers, subscriptions, .. } = bind;
    let replaces = extension.replaces || matches!(lets_in, LetsIn::CheckedAndReplacing);
    let permissions = match lets_in {
        LetsIn::Everyone(permissions) => permissions,
        LetsIn::Checked | LetsIn::CheckedAndReplacing => {
            authenticate(&master.config, Authenticate { name: name.clone(), credentials, peer })
                .await
                .map_err(BindRefused::for_good)?
        }
    };
    check_permissions(&permissions, &offers, &subscriptions).map_err(BindRefused::for_good)?;
    if name == master.name {
        return Err(BindRefused::for_good(format!("{name:?} is the name of the master; take another name")));
    }
    let incarnation = extension.incarnation;
    let on_taken = if replaces { OnNameTaken::Replace } else { master.config.on_taken };
    let register = registry::Register { session: session.clone(), name, offers, on_taken, incarnation };
    match master.registry.send(register).await {
        Ok(Ok(())) => {}
        // The link of the session that has the name may be dead already, which shows after some heartbeats: then a later bind succeeds.
        Ok(Err(denied @ registry::table::Denied::NameTaken(_))) => {
            return Err(BindRefused::name_taken(denied.to_string()));
        }
        Ok(Err(denied)) => return Err(BindRefused::for_good(denied.to_string())),
        Err(_) => return Err(BindRefused::master_ends()),
    }
    // The router takes other messages in between. It knows a branch without subscriptions too, which gets broadcasts.
    let parts = subscriptions.chunks(ACTIONS_PER_FRAME_MAX);
    for keys in parts.chain(subscriptions.is_empty().then_some(&[][..])) {
        let subscribe = router::Subscribe { session: session.clone(), keys: keys.to_vec() };
        match master.router.send(subscribe).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(BindRefused::for_good(error.message().to_owned())),
            Err(_) => return Err(BindRefused::master_ends()),
        }
    }
    Ok(permissions)
}

/// Tells the branch that it is bound, with the bounds of this master; and, if its bind was extended, with its permission to publish.
pub(super) fn say_bound(
    master: &MasterShared,
    session: &SessionHandle,
    is_extended: bool,
    permissions: &Permissions,
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
        let publish = permissions.publish.clone();
        Frame::ExtendedBound(ExtendedBound { bound, features: Features::ALL, publish })
    } else {
        Frame::Bound(bound)
    });
}

/// Whether a bound branch may offer these actions too.
pub(super) fn check_offers(permissions: &Permissions, offers: &[Offer]) -> Result<(), CallError> {
    check_count(offers.len())?;
    for offer in offers {
        check_offer(offer)?;
        if !allows(permissions.respond.as_deref(), &offer.action) {
            return Err(not_permitted("offer", &offer.action));
        }
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
fn check_key(key: &SubscriptionKey) -> Result<(), CallError> {
    key.group.as_ref().map_or(Ok(()), |group| Ok(check_group(group)?))
}

/// Whether a bound branch may have this subscription.
pub(super) fn may_subscribe(permissions: &Permissions, key: &SubscriptionKey) -> Result<(), CallError> {
    check_key(key)?;
    let pattern = &key.pattern;
    match &permissions.subscribe {
        Some(allowed) if !allowed.contains(pattern) => Err(not_permitted("subscribe to", pattern.as_str())),
        _ => Ok(()),
    }
}

//! The connections of a listener of a foreign protocol become links that carry frames.

use super::dialect_link::DialectLink;
use crate::link::Accepted;
use crate::link::door::Place;
use std::sync::Arc;
use std::time::Duration;

/// Makes the dialect of a connection, from the address of its peer.
pub(crate) type MakeDialect = Box<dyn Fn(&str) -> Box<dyn meshwork_wire::Dialect> + Send>;

/// Speaks a dialect over a connection that a gateway has accepted. Its peer has so long to say its first message.
pub(crate) fn accepted(
    accepted: Accepted,
    dialect: Box<dyn meshwork_wire::Dialect>,
    place: &Arc<Place>,
    first_within: Duration,
) -> Accepted {
    let Accepted { link, peer, handshake } = accepted;
    let link = DialectLink::accepted(
        link,
        dialect,
        peer.clone(),
        handshake.clone(),
        (Arc::clone(place), first_within),
    );
    Accepted { link: Box::new(link), peer, handshake }
}

//! The connections of a listener of a foreign protocol become links that carry frames.

use super::dialect_link::DialectLink;
use crate::link::Link;
use crate::link::door::Place;
use std::sync::Arc;
use std::time::Duration;

/// Makes the dialect of a connection, from the address of its peer.
pub(crate) type MakeDialect = Box<dyn Fn(&str) -> Box<dyn meshwork_wire::Dialect> + Send>;

/// Speaks a dialect over a connection that a gateway has accepted. Its peer has so long to say its first message.
pub(crate) fn accepted(
    link: Box<dyn Link>,
    dialect: Box<dyn meshwork_wire::Dialect>,
    peer: &str,
    place: &Arc<Place>,
    first_within: Duration,
) -> Box<dyn Link> {
    Box::new(DialectLink::accepted(link, dialect, peer.to_owned(), Arc::clone(place), first_within))
}

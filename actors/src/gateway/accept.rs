//! A listener of a foreign protocol: the connections that it accepts become links that carry frames.

use super::dialect_link::DialectLink;
use crate::link::{Accept, Accepted, Address};
use futures::future::BoxFuture;
use std::io;

/// Makes the dialect of a connection, from the address of its peer.
pub(crate) type MakeDialect = Box<dyn Fn(&str) -> Box<dyn meshwork_wire::Dialect> + Send>;

/// Accepts connections of a foreign protocol.
pub(crate) struct GatewayAccept {
    pub(crate) accept: Box<dyn Accept>,
    pub(crate) dialect: MakeDialect,
}

impl Accept for GatewayAccept {
    fn address(&self) -> Address {
        self.accept.address()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let accepted = self.accept.accept().await?;
            let dialect = (self.dialect)(&accepted.peer);
            let link = DialectLink::accepted(
                accepted.link,
                dialect,
                accepted.peer.clone(),
                accepted.handshake.clone(),
            );
            Ok(Accepted { link: Box::new(link), ..accepted })
        })
    }
}

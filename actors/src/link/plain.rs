//! Dialling without TLS: an address that demands TLS is never spoken to in the clear.

use super::address::{Address, Transport};
use super::dial::{Dial, Link};
use super::fault::TlsFault;
use futures::future::BoxFuture;
use std::io;
use std::sync::Arc;

/// Puts TLS over what another [`Dial`] opens: a function, since a node that is built without TLS has no type for it.
pub(crate) type Over = Arc<dyn Fn(Arc<dyn Dial>) -> Arc<dyn Dial> + Send + Sync>;

/// The dial of a node: with TLS if there is something to put over it, else without.
pub(crate) fn secured(dial: Arc<dyn Dial>, over: Option<&Over>) -> Arc<dyn Dial> {
    match over {
        Some(over) => over(dial),
        None => Arc::new(PlainDial(dial)),
    }
}

struct PlainDial(Arc<dyn Dial>);

impl Dial for PlainDial {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        match address.transport() {
            Transport::Unsaid => self.0.dial(address),
            Transport::Plain => Box::pin(async move { self.0.dial(&address.bare()).await }),
            Transport::Tls => Box::pin(async { Err(TlsFault::NoCa.into_io()) }),
        }
    }
}

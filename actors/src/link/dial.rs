//! The byte stream between two nodes, and how it is opened: a branch holds a [`Dial`], a master an [`Accept`].

use super::address::Address;
use futures::future::BoxFuture;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream between two nodes.
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for T {}

/// Opens links. A branch dials again whenever it has lost its link.
pub trait Dial: Send + Sync + 'static {
    /// Opens a link to an address.
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>>;
}

/// Accepts links at an address. A master holds one for each address that it listens on.
pub trait Accept: Send + 'static {
    /// The address that is listened on.
    fn address(&self) -> Address;

    /// Waits for the next link; gives the link and the address of its other end.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Link>, String)>>;

    /// Closes the connection that has waited longest to be accepted, after these words: no descriptor is left for it. Asked for when
    /// [`Accept::accept`] has failed with that error. `false` if no connection waits. Does nothing by default: then the connection waits until a
    /// descriptor is free.
    fn turn_away(&mut self, words: &[u8]) -> bool {
        let _ = words;
        false
    }
}

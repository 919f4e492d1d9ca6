//! The byte stream between two nodes, and where it comes from: a branch holds a [`Dial`], a master an [`Accept`].

use super::address::Address;
use futures::future::BoxFuture;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream that a node can be reached over.
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for T {}

/// Opens links. A branch holds one and dials again whenever it lost its link.
pub trait Dial: Send + Sync + 'static {
    /// Opens a link to an address.
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>>;
}

/// Takes links in.
pub trait Accept: Send + 'static {
    /// Where it listens.
    fn address(&self) -> Address;

    /// Waits for the next link; gives it and who is at its other end.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Link>, String)>>;
}

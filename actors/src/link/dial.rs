//! The byte stream between two nodes, and how it is opened: a branch holds a [`Dial`], a master an [`Accept`].

use super::address::Address;
use futures::future::BoxFuture;
use meshwork_wire::ByteString;
use std::io;
use std::sync::{Arc, OnceLock};
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

    /// Waits for the next link. It does not wait for the handshake of a link: a peer that stalls in it would keep the next peer waiting.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>>;

    /// Closes the connection that has waited longest to be accepted, after these words: no descriptor is left for it. Asked for when
    /// [`Accept::accept`] has failed with that error. `false` if no connection waits. Does nothing by default: then the connection waits until a
    /// descriptor is free.
    fn turn_away(&mut self, words: &[u8]) -> bool {
        let _ = words;
        false
    }
}

/// A link that was accepted, and what is known of its other end.
#[non_exhaustive]
pub struct Accepted {
    /// The link.
    pub link: Box<dyn Link>,
    /// The address of the other end, as text.
    pub peer: String,
    /// The handshake of the link, which its reader drives; none if the link needs none.
    pub handshake: Option<Arc<Handshake>>,
}

impl Accepted {
    /// A link without a handshake.
    #[must_use]
    pub fn new(link: Box<dyn Link>, peer: impl Into<String>) -> Self {
        Self { link, peer: peer.into(), handshake: None }
    }

    /// The link with its handshake.
    #[must_use]
    pub fn with_handshake(mut self, handshake: Arc<Handshake>) -> Self {
        self.handshake = Some(handshake);
        self
    }
}

/// The handshake of a link: begun when the link is accepted, done by the reads of the link.
#[derive(Default, Debug)]
pub struct Handshake(OnceLock<Option<Certificate>>);

impl Handshake {
    /// Notes that the handshake is done, with the certificate of the other end, which was checked. Only the first note counts.
    pub fn done(&self, certificate: Option<Certificate>) {
        // A second handshake of one link does not exist, and would change nothing.
        let _ = self.0.set(certificate);
    }

    /// Whether the handshake is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.get().is_some()
    }

    /// The certificate of the other end, if it has shown one. None before the handshake is done.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.0.get()?.as_ref()
    }
}

/// The certificate that the other end of a link has shown: signed by a CA that the listener trusts, and valid.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Certificate {
    /// The names that the certificate is for, in their order: the DNS names and URIs of its subject alternative name; if it has none of
    /// these, the common name of its subject. May be empty.
    pub names: Vec<ByteString>,
}

impl Certificate {
    /// A certificate for these names.
    #[must_use]
    pub fn of(names: impl IntoIterator<Item = ByteString>) -> Self {
        Self { names: names.into_iter().collect() }
    }
}

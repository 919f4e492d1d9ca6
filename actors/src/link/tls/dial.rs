//! TLS over links that are dialled: the certificate of the other end is checked against a CA and the name that was dialled.

use super::explain::explained;
use super::pem::{Pem, TlsError, not_together};
use super::stream::{Below, TlsLink};
use crate::link::address::{Address, Transport};
use crate::link::dial::{Dial, Link};
use crate::link::fault::TlsFault;
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use meshwork_wire::limits::TLS_HANDSHAKE_WITHIN;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// The CA that the certificate of the other end is checked against; and the own certificate, for an end that asks for one. Clones share what
/// was read: a program keeps one, and [reloads](Self::reload) it when the files have changed.
///
/// The certificate must be for the host of the address that is dialled, or for the [name](Self::name) that is given. The authorities of the
/// operating system are not trusted by themselves, since the CA of a mesh is mostly its own: to trust them, name their file, such as
/// `/etc/ssl/certs/ca-certificates.crt`.
#[derive(Clone)]
pub struct DialTls {
    shared: Arc<Shared>,
    name: Option<Arc<str>>,
}

struct Shared {
    ca: Pem,
    /// The own certificate and its key.
    own: Option<(Pem, Pem)>,
    config: ArcSwap<ClientConfig>,
}

impl DialTls {
    /// Trusts ends whose certificate this CA has signed; several may stand in the file. Shows no certificate.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or used.
    pub fn new(ca: impl Into<Pem>) -> Result<Self, TlsError> {
        Self::read(ca.into(), None)
    }

    /// As [`DialTls::new`], and shows this certificate to an end that asks for one: mutual TLS. The certificates between it and its CA stand
    /// behind it in the same file.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used; when the certificate has expired, is not valid yet, or is not that of the key.
    pub fn mutual(
        ca: impl Into<Pem>,
        certificate: impl Into<Pem>,
        key: impl Into<Pem>,
    ) -> Result<Self, TlsError> {
        Self::read(ca.into(), Some((certificate.into(), key.into())))
    }

    /// The name that the certificate of the other end must be for. Default: the host of the address that is dialled.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Reads the files again: links that are dialled from now on use them, and those that stand stay. The files are read in this call.
    ///
    /// # Errors
    ///
    /// As for [`DialTls::mutual`]; then the certificates of before stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Shared { ca, own, config } = &*self.shared;
        config.store(Arc::new(configured(ca, own.as_ref())?));
        Ok(())
    }

    /// Puts TLS over the links that another [`Dial`] opens.
    #[must_use]
    pub fn over(&self, dial: Arc<dyn Dial>) -> Arc<dyn Dial> {
        Arc::new(TlsDial { dial, tls: self.clone() })
    }

    fn read(ca: Pem, own: Option<(Pem, Pem)>) -> Result<Self, TlsError> {
        let config = ArcSwap::from_pointee(configured(&ca, own.as_ref())?);
        Ok(Self { shared: Arc::new(Shared { ca, own, config }), name: None })
    }

    /// The name that the certificate must be for.
    fn expected(&self, address: &Address) -> Result<ServerName<'static>, TlsFault> {
        let name = self.name.as_deref().unwrap_or_else(|| address.host());
        ServerName::try_from(name.to_owned()).map_err(|_| TlsFault::NoName(name.to_owned()))
    }

    /// Does the handshake, and checks the certificate of the other end.
    async fn shake(&self, link: Box<dyn Link>, name: ServerName<'static>) -> io::Result<Box<dyn Link>> {
        let connector = TlsConnector::from(self.shared.config.load_full());
        let shaking = connector.connect(name, Below::new(link)).into_fallible();
        match tokio::time::timeout(TLS_HANDSHAKE_WITHIN, shaking).await {
            Ok(Ok(stream)) => Ok(Box::new(TlsLink::new(stream))),
            Ok(Err((error, below))) => {
                let error = explained(error, below.first());
                if TlsFault::of(&error).is_some() {
                    // The other end is to hear why.
                    below.leave(Vec::new()).await;
                } else if below.first().is_empty() {
                    // A program of another protocol hangs up; a master that ends does, too.
                    let what = format!(
                        "the connection was closed in the TLS handshake; does it speak TLS? ({error})"
                    );
                    return Err(io::Error::new(error.kind(), what));
                }
                Err(error)
            }
            Err(_) => {
                let what = format!(
                    "the TLS handshake took longer than {TLS_HANDSHAKE_WITHIN:?}; does it speak TLS?"
                );
                Err(io::Error::new(io::ErrorKind::TimedOut, what))
            }
        }
    }
}

fn configured(ca: &Pem, own: Option<&(Pem, Pem)>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ca.unusable(&error))?
        .with_root_certificates(ca.roots()?);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificate.chain()?, key.key()?)
            .map_err(|error| not_together(certificate, key, &error))?,
    };
    // Links are long-lived, and a link that is dialled anew checks the certificate anew.
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl fmt::Debug for DialTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { ca, own, .. } = &*self.shared;
        f.debug_struct("DialTls").field("ca", ca).field("own", own).field("name", &self.name).finish()
    }
}

/// Dials, and speaks TLS over the link.
struct TlsDial {
    dial: Arc<dyn Dial>,
    tls: DialTls,
}

impl Dial for TlsDial {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            if address.transport() == Transport::Plain {
                return Err(TlsFault::NotWanted.into_io());
            }
            let name = self.tls.expected(address).map_err(TlsFault::into_io)?;
            let link = self.dial.dial(&address.bare()).await?;
            self.tls.shake(link, name).await
        })
    }
}

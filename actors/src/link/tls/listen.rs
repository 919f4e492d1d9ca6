//! The certificates of a listener, which may be read again while it listens.

use super::accepted::AcceptedTls;
use super::pem::{Pem, TlsError, not_together};
use crate::link::address::Address;
use crate::link::dial::{Accept, Accepted, Handshake};
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use std::fmt;
use std::io;
use std::sync::Arc;

/// The certificate of a listener and its key; and the CA that signs the certificates of clients, if clients must show one. Clones share what
/// was read: a program gives one to each of its listeners, keeps one, and [reloads](Self::reload) it when the files have changed.
///
/// TLS 1.3 and 1.2 are spoken. No session is resumed: each connection shows its certificates anew, so a client whose certificate has expired,
/// or whose CA is trusted no more, makes no new connection. Lists of revoked certificates are not read: certificates that live for a short
/// time, or a new CA, do their work.
#[derive(Clone)]
pub struct ListenTls(Arc<Shared>);

struct Shared {
    certificate: Pem,
    key: Pem,
    client_ca: Option<Pem>,
    config: Arc<ArcSwap<ServerConfig>>,
}

impl ListenTls {
    /// Shows this certificate, with those between it and its CA behind it in the same file, to all clients; asks clients for none.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used; when the certificate has expired, is not valid yet, or is not that of the key.
    pub fn new(certificate: impl Into<Pem>, key: impl Into<Pem>) -> Result<Self, TlsError> {
        Self::read(certificate.into(), key.into(), None)
    }

    /// As [`ListenTls::new`], and refuses clients that show no certificate which this CA has signed: mutual TLS. The names in the certificate
    /// of a client are told to the check of its bind ([`Authenticate`](crate::master::Authenticate)).
    ///
    /// # Errors
    ///
    /// As for [`ListenTls::new`].
    pub fn mutual(
        certificate: impl Into<Pem>,
        key: impl Into<Pem>,
        client_ca: impl Into<Pem>,
    ) -> Result<Self, TlsError> {
        Self::read(certificate.into(), key.into(), Some(client_ca.into()))
    }

    /// Reads the files again: connections that come from now on see the new certificates, and those that stand stay. The files are read in
    /// this call.
    ///
    /// # Errors
    ///
    /// As for [`ListenTls::new`]; then the certificates of before stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Shared { certificate, key, client_ca, config } = &*self.0;
        config.store(Arc::new(configured(certificate, key, client_ca.as_ref())?));
        Ok(())
    }

    /// Whether clients must show a certificate.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.0.client_ca.is_some()
    }

    /// Puts TLS over the links that another [`Accept`] accepts.
    #[must_use]
    pub fn over(&self, accept: Box<dyn Accept>) -> Box<dyn Accept> {
        Box::new(TlsAccept { accept, tls: self.clone() })
    }

    fn read(certificate: Pem, key: Pem, client_ca: Option<Pem>) -> Result<Self, TlsError> {
        let config = Arc::new(ArcSwap::from_pointee(configured(&certificate, &key, client_ca.as_ref())?));
        Ok(Self(Arc::new(Shared { certificate, key, client_ca, config })))
    }
}

fn configured(certificate: &Pem, key: &Pem, client_ca: Option<&Pem>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate.unusable(&error))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()?), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| ca.unusable(&error))?)
        }
    };
    let mut config = builder
        .with_single_cert(certificate.chain()?, key.key()?)
        .map_err(|error| not_together(certificate, key, &error))?;
    // A session that is resumed shows no certificate, and its state would be memory that clients take.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

impl fmt::Debug for ListenTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { certificate, key, client_ca, .. } = &*self.0;
        f.debug_struct("ListenTls")
            .field("certificate", certificate)
            .field("key", key)
            .field("client_ca", client_ca)
            .finish()
    }
}

/// Accepts links, each with a handshake that its reader drives.
struct TlsAccept {
    accept: Box<dyn Accept>,
    tls: ListenTls,
}

impl Accept for TlsAccept {
    fn address(&self) -> Address {
        self.accept.address()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let Accepted { link, peer, .. } = self.accept.accept().await?;
            let handshake = Arc::<Handshake>::default();
            let link = AcceptedTls::new(link, Arc::clone(&self.tls.0.config), Arc::clone(&handshake));
            Ok(Accepted::new(Box::new(link), peer).with_handshake(handshake))
        })
    }

    /// There is no time for a handshake, and without one no words.
    fn turn_away(&mut self, _: &[u8]) -> bool {
        self.accept.turn_away(&[])
    }
}

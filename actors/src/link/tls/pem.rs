//! Certificates and keys in PEM, from files or from memory, with errors that name the file and what would be right.

use crate::log_line;
use crate::repeated::Line;
use log::Level;
use meshwork_wire::limits::TLS_FILE_LEN_MAX;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use webpki::{EndEntityCert, KeyUsage};

/// Certificates or a key in PEM. A path is the usual thing: `"ca.pem".into()`.
#[derive(Clone)]
pub enum Pem {
    /// A file, read when it is needed first, and at each reload.
    File(PathBuf),
    /// The text itself. A reload finds the same text again.
    Text(Vec<u8>),
}

/// Why certificates or a key cannot be used. The message names the file and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{file} cannot be read: {source}; name a file with a {wanted} in PEM")]
    Unreadable {
        /// The file.
        file: String,
        /// What the file should hold.
        wanted: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{file} holds no {wanted}: {reason}")]
    Wrong {
        /// The file.
        file: String,
        /// What the file should hold.
        wanted: &'static str,
        /// What it holds instead, and what would be right.
        reason: String,
    },
    /// The key is not the one of the certificate.
    #[error(
        "the key in {key} does not belong to the first certificate in {certificate}: name the key that it was made for"
    )]
    OtherKey {
        /// The file of the certificate.
        certificate: String,
        /// The file of the key.
        key: String,
    },
    /// The certificate has expired, or is not valid yet.
    #[error("the certificate in {file} {}: name one that is valid now", if *.is_over { "has expired" } else { "is not valid yet" })]
    NotValidNow {
        /// The file.
        file: String,
        /// Whether it has expired.
        is_over: bool,
    },
    /// The certificate, the key or the CA cannot be used, for another reason.
    #[error("{file} cannot be used: {reason}")]
    Unusable {
        /// The file.
        file: String,
        /// The reason.
        reason: String,
    },
}

pub(super) const CERTIFICATE: &str = "certificate";
const KEY: &str = "private key";
const CA: &str = "certificate of a CA";

impl Pem {
    /// The certificates, the one of the node itself first; it must be valid now.
    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let chain = self.certificates(CERTIFICATE)?;
        let own = &chain[0];
        let certificate = EndEntityCert::try_from(own).map_err(|error| self.unusable(&error))?;
        // Without a CA the answer is never yes; the time is looked at before the CA, which `a_certificate_that_is_not_valid_now_is_refused`
        // holds.
        let checked =
            certificate.verify_for_usage(&[], &[], &[], UnixTime::now(), KeyUsage::server_auth(), None, None);
        let is_over = match checked.err() {
            Some(webpki::Error::CertExpired { .. }) => true,
            Some(webpki::Error::CertNotValidYet { .. }) => false,
            _ => return Ok(chain),
        };
        Err(TlsError::NotValidNow { file: self.to_string(), is_over })
    }

    /// The certificates of CAs.
    pub(super) fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(CA)? {
            roots.add(certificate).map_err(|error| self.unusable(&error))?;
        }
        Ok(roots)
    }

    fn certificates(&self, wanted: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let text = self.read(wanted)?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let certificates = read.map_err(|error| self.wrong(wanted, error.to_string()))?;
        if certificates.is_empty() {
            let reason = "there is no `-----BEGIN CERTIFICATE-----` in it; write it in PEM";
            return Err(self.wrong(wanted, reason.to_owned()));
        }
        Ok(certificates)
    }

    /// The private key. A file that everyone on the machine may read is warned of.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let text = self.read(KEY)?;
        if let Pem::File(path) = self
            && is_open_to_all(path)
        {
            log_line!(
                Line::own(Level::Warn),
                "everyone on this machine may read the private key in {self}: `chmod 600 {self}` keeps it"
            );
        }
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
            let is_encrypted = text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED);
            let reason = match error {
                _ if is_encrypted => {
                    "it is encrypted with a passphrase; write it without, as `openssl pkey` does"
                }
                rustls::pki_types::pem::Error::NoItemsFound => {
                    "there is no `-----BEGIN PRIVATE KEY-----` in it; write it in PEM"
                }
                error => return self.wrong(KEY, error.to_string()),
            };
            self.wrong(KEY, reason.to_owned())
        })
    }

    fn read(&self, wanted: &'static str) -> Result<Vec<u8>, TlsError> {
        let path = match self {
            Pem::Text(text) => return Ok(text.clone()),
            Pem::File(path) => path,
        };
        let read = || {
            let mut text = Vec::new();
            let max = TLS_FILE_LEN_MAX as u64;
            std::fs::File::open(path)?.take(max + 1).read_to_end(&mut text)?;
            if text.len() > TLS_FILE_LEN_MAX {
                return Err(io::Error::other(format!("it has more than {TLS_FILE_LEN_MAX} bytes")));
            }
            Ok(text)
        };
        read().map_err(|source| TlsError::Unreadable { file: self.to_string(), wanted, source })
    }

    fn wrong(&self, wanted: &'static str, reason: String) -> TlsError {
        TlsError::Wrong { file: self.to_string(), wanted, reason }
    }

    pub(super) fn unusable(&self, error: &dyn fmt::Display) -> TlsError {
        TlsError::Unusable { file: self.to_string(), reason: error.to_string() }
    }
}

/// The error of a certificate and a key that rustls does not take together.
pub(super) fn not_together(certificate: &Pem, key: &Pem, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::OtherKey { certificate: certificate.to_string(), key: key.to_string() }
        }
        error => key.unusable(error),
    }
}

/// A key that is encrypted begins with this, in either of two forms.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

#[cfg(unix)]
fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
}

/// Elsewhere than on Unix the permissions of a file are not looked at.
#[cfg(not(unix))]
fn is_open_to_all(_: &Path) -> bool {
    false
}

impl From<&str> for Pem {
    fn from(path: &str) -> Self {
        Pem::File(path.into())
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Self {
        Pem::File(path.into())
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Pem::File(path)
    }
}

/// The path of the file.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "{}", path.display()),
            Pem::Text(_) => f.write_str("the PEM in memory"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key must not find its way into a log.
        write!(f, "Pem({self})")
    }
}

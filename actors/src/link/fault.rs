//! Why two ends do not come to speak TLS, in words for the people at both ends. No TLS here: the words are needed where a program is built
//! without it, too.

use std::io;

/// Why a link has no TLS. The sentences speak of the other end as *it*.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// The address demands TLS, and the node was given no CA. Nothing was dialled.
    #[error("the address asks for TLS, and no CA is named that its certificate is checked against")]
    NoCa,
    /// The address demands plain TCP, and the node was given certificates for TLS. Nothing was dialled.
    #[error("the address begins with tcp://, which asks for no TLS, and certificates for TLS are given")]
    NotWanted,
    /// The host of the address is neither a DNS name nor an IP address, so no certificate can be for it.
    #[error("no certificate can be for {0:?}, which is neither a DNS name nor an IP address")]
    NoName(String),
    /// The other end does not speak TLS. If its first bytes tell what it speaks, they are named.
    #[error("it does not speak TLS{}", spoken_instead(*(.0)))]
    NotSpoken(Option<&'static str>),
    /// The certificate of the other end is signed by no CA that is trusted here.
    #[error("its certificate is signed by no CA that is trusted here")]
    UnknownCa,
    /// The certificate of the other end has expired.
    #[error("its certificate has expired")]
    Expired,
    /// The certificate of the other end is not valid yet: either it is new, or a clock is wrong.
    #[error("its certificate is not valid yet; are the clocks of both ends right?")]
    NotValidYet,
    /// The certificate of the other end is for other names.
    #[error("its certificate is not for {expected}, but for {}", listed(.names))]
    WrongName {
        /// The name that was dialled.
        expected: String,
        /// The names in the certificate.
        names: Vec<String>,
    },
    /// The certificate of the other end may not be used at that end of a connection: its extended key usage names another purpose.
    #[error("its certificate is for another purpose: {0}")]
    WrongPurpose(String),
    /// The other end has shown no certificate, and one is demanded.
    #[error("it shows no certificate, and one is demanded here")]
    NoCertificate,
    /// The certificate of the other end cannot be checked.
    #[error("its certificate cannot be accepted: {0}")]
    BadCertificate(String),
    /// The other end demands a certificate, and this end has shown none.
    #[error("it demands a certificate, and none is shown here")]
    Demanded,
    /// The other end does not accept the certificate that this end has shown, for this reason.
    #[error("it refuses the certificate that is shown here: {0}")]
    Refused(&'static str),
    /// The handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Failed(String),
}

impl TlsFault {
    /// The fault that an I/O error was made of.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The fault as the error of a byte stream.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, self)
    }
}

fn spoken_instead(spoken: Option<&str>) -> String {
    spoken.map(|spoken| format!("; it looks like {spoken} without TLS")).unwrap_or_default()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
}

//! The faults of handshakes in words: from the errors of rustls, and from what the other end says before it closes. Pure.

use crate::link::fault::TlsFault;
use meshwork_wire::spoken;
use rustls::{AlertDescription, CertificateError, Error};
use std::io;

/// The error of a byte stream over TLS, with the fault behind it if there is one. `first` are the first bytes that came from the other end, if
/// they are known still.
pub(super) fn explained(error: io::Error, first: &[u8]) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => fault(inner, first).into_io(),
        None => error,
    }
}

fn fault(error: &Error, first: &[u8]) -> TlsFault {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::NoCertificatesPresented => TlsFault::NoCertificate,
        Error::AlertReceived(alert) => of_alert(*alert),
        // The first bytes of TLS are of an alert or of a handshake.
        Error::InvalidMessage(_) if !matches!(first, [] | [0x15 | 0x16, ..]) => {
            TlsFault::NotSpoken(spoken(first))
        }
        error => TlsFault::Failed(error.to_string()),
    }
}

fn of_certificate(error: &CertificateError) -> TlsFault {
    match error {
        // A CA that was made anew under its old name has the name of the one that is trusted, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFault::UnknownCa,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFault::NotValidYet,
        CertificateError::NotValidForNameContext { expected, presented } => TlsFault::WrongName {
            expected: expected.to_str().into_owned(),
            names: presented.iter().map(|name| bare(name).to_owned()).collect(),
        },
        error @ CertificateError::InvalidPurposeContext { .. } => TlsFault::WrongPurpose(error.to_string()),
        error => TlsFault::BadCertificate(error.to_string()),
    }
}

/// The name in the text that rustls makes of a name: `DnsName("localhost")`, `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner.trim_end_matches(')'));
    inner.trim_matches('"')
}

fn of_alert(alert: AlertDescription) -> TlsFault {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => TlsFault::Demanded,
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            TlsFault::Refused("it does not trust the CA that has signed it")
        }
        AlertDescription::CertificateExpired => TlsFault::Refused("it has expired, or is not valid yet"),
        AlertDescription::CertificateRevoked => TlsFault::Refused("it was revoked"),
        AlertDescription::UnsupportedCertificate => TlsFault::Refused("it is for another purpose"),
        AlertDescription::BadCertificate => TlsFault::Refused("it is for another name, or not well-formed"),
        AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
            TlsFault::Refused("it is not accepted")
        }
        AlertDescription::HandshakeFailure => TlsFault::Failed(
            "the other end finds no common ground; does it demand a certificate, or other ciphers?"
                .to_owned(),
        ),
        AlertDescription::ProtocolVersion => TlsFault::Failed(
            "the other end speaks other versions of TLS; here there are TLS 1.2 and TLS 1.3".to_owned(),
        ),
        alert => TlsFault::Failed(format!("the other end says {alert:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::InvalidMessage;

    #[test]
    fn a_program_without_tls_is_named() {
        let error = || io::Error::other(Error::InvalidMessage(InvalidMessage::InvalidContentType));
        for (first, named) in [
            (&b"\x21\x00\x00\x00\x00\x01"[..], "it looks like the native protocol of meshwork without TLS"),
            (b"HTTP/1.1 400 Bad Request", "it looks like HTTP without TLS"),
            (b"?", "it does not speak TLS"),
            (b"\x16\x03\x01", "the TLS handshake failed"),
        ] {
            let said = explained(error(), first).to_string();
            assert!(said.contains(named), "{said}");
        }
    }

    #[test]
    fn the_names_in_a_certificate_are_told_as_they_are() {
        assert_eq!(bare("DnsName(\"localhost\")"), "localhost");
        assert_eq!(bare("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(bare("something else"), "something else");
    }

    #[test]
    fn an_error_of_the_socket_stays_what_it_is() {
        let error = explained(io::ErrorKind::ConnectionReset.into(), b"");
        assert_eq!((error.kind(), TlsFault::of(&error)), (io::ErrorKind::ConnectionReset, None));
    }
}

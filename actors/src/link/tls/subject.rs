//! The names that a certificate is for. The certificate was checked before: it is well-formed, and a trusted CA has signed it. Pure.

use crate::link::dial::Certificate;
use meshwork_wire::limits::CERTIFICATE_NAMES_MAX;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The names in a certificate, [`CERTIFICATE_NAMES_MAX`] at most: the DNS names and URIs of its subject alternative name; without these, the
/// common name of its subject, as old tools write certificates.
pub(super) fn named(certificate: &CertificateDer<'_>) -> Certificate {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else {
        return Certificate::of([]);
    };
    let names = certificate.valid_dns_names().chain(certificate.valid_uri_names());
    let mut names: Vec<_> = names.take(CERTIFICATE_NAMES_MAX).map(Into::into).collect();
    if names.is_empty() {
        names.extend(common_name(certificate.subject()).map(Into::into));
    }
    Certificate::of(names)
}

/// The tags of DER that a subject is made of.
const SET: u8 = 0x31;
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// The object identifier of a common name, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The last common name of a subject, the most specific one; if it is text in ASCII or UTF-8.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    let mut found = None;
    while let Some((SET, mut set)) = next(&mut subject) {
        while let Some((SEQUENCE, mut attribute)) = next(&mut set) {
            let kind = next(&mut attribute);
            if kind != Some((OBJECT_IDENTIFIER, COMMON_NAME)) {
                continue;
            }
            if let Some((UTF8_STRING | PRINTABLE_STRING | IA5_STRING, text)) = next(&mut attribute) {
                found = std::str::from_utf8(text).ok().filter(|text| !text.is_empty()).or(found);
            }
        }
    }
    found
}

/// Takes the next element of DER: its tag and its content. None at the end, or where the bytes are no element.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81 => {
            let (&[len], rest) = rest.split_first_chunk()?;
            (usize::from(len), rest)
        }
        0x82 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        // No certificate is as long as that: its handshake message has 64 KiB at most.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some((tag, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match content.len() {
            len @ 0..=0x7F => bytes.push(u8::try_from(len).expect("it is short")),
            len => {
                bytes.push(0x82);
                bytes.extend(u16::try_from(len).expect("it is short").to_be_bytes());
            }
        }
        bytes.extend(content);
        bytes
    }

    fn attribute(kind: &[u8], tag: u8, text: &[u8]) -> Vec<u8> {
        let parts = [element(OBJECT_IDENTIFIER, kind), element(tag, text)].concat();
        element(SET, &element(SEQUENCE, &parts))
    }

    #[test]
    fn the_last_common_name_of_a_subject_is_its_name() {
        let organisation = attribute(&[0x55, 0x04, 0x0A], UTF8_STRING, b"org");
        let common = |text: &[u8]| attribute(COMMON_NAME, UTF8_STRING, text);
        assert_eq!(common_name(&organisation), None);
        assert_eq!(common_name(&[organisation.clone(), common(b"one")].concat()), Some("one"));
        assert_eq!(common_name(&[common(b"one"), organisation, common(b"two")].concat()), Some("two"));
        assert_eq!(common_name(&common(b"\xFF")), None, "it is no text");
        let long = vec![b'x'; 300];
        assert_eq!(common_name(&common(&long)).map(str::len), Some(300));
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_subject_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = common_name(&bytes);
        }

        #[test]
        fn a_subject_that_is_cut_panics_nowhere(text in "[a-z]{0,200}", cut in 0..250_usize) {
            let subject = attribute(COMMON_NAME, PRINTABLE_STRING, text.as_bytes());
            let _ = common_name(&subject[..cut.min(subject.len())]);
        }
    }
}

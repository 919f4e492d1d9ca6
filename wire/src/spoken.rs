//! The protocol that a program speaks, by its first bytes: for the message of an error, where a program has dialled, or listens on, the port
//! of another protocol.

/// The protocol that these bytes begin, if they look like a known one. The first four bytes tell in most cases.
#[must_use]
pub fn spoken(bytes: &[u8]) -> Option<&'static str> {
    const WORDS: &[&str] = &["GET ", "POST", "HEAD", "PUT ", "DELE", "OPTI", "PATC", "CONN", "PRI ", "HTTP"];
    let begins = |start: &[u8]| bytes.starts_with(start);
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match bytes {
        _ if WORDS.iter().any(|word| begins(word.as_bytes())) => Some("HTTP"),
        _ if is_tls(bytes) => Some("TLS"),
        _ if begins(b"SSH-") => Some("SSH"),
        // A line of dnode begins with its method, or with another of its parts.
        _ if begins(b"{\"me") || begins(b"{\"ar") || begins(b"{\"ca") => Some("dnode"),
        // Binary data of more than 64 KiB in MessagePack.
        [0xC6, 0, 1..=0xFF, ..] => Some("node-mesh"),
        _ if is_native(bytes) => Some(NATIVE),
        [b'1'..=b'9', ..] if bytes.get(digits) == Some(&b'\n') => Some("light_rpc"),
        // Shorter binary data, with a list in it.
        [0xC4, _, 0x90..=0x9F | 0xDC | 0xDD, ..] | [0xC5, _, _, 0x90..=0x9F | 0xDC | 0xDD, ..] => {
            Some("node-mesh")
        }
        _ => None,
    }
}

/// Whether these bytes begin a TLS handshake. A frame of meshwork that begins so would be one of a kind that opens no link: the length of a
/// `ClientHello` stands where its kind would.
#[must_use]
pub fn is_tls(bytes: &[u8]) -> bool {
    match bytes {
        [0x16, 3, 1..=4] | [0x16, 3, 1..=4, _] => true,
        [0x16, 3, 1..=4, high, low, ..] => *high > 0 || *low >= KINDS_MAX,
        _ => false,
    }
}

/// The name of the protocol of meshwork, for people.
const NATIVE: &str = "the native protocol of meshwork";

/// More kinds of frames than there are.
const KINDS_MAX: u8 = 64;

/// Whether these bytes look like the beginning of a frame of meshwork: a length, and a kind.
#[must_use]
pub fn is_native(bytes: &[u8]) -> bool {
    matches!(bytes, [low, middle, high, 0, kind, ..] if *kind < KINDS_MAX && (*low, *middle, *high) != (0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_of_a_program_tell_its_protocol() {
        for (bytes, protocol) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some("HTTP")),
            (b"HTTP/1.1 400", Some("HTTP")),
            (b"\x16\x03\x01\x02\x00\x01", Some("TLS")),
            (b"SSH-2.0-", Some("SSH")),
            (b"{\"method\":\"methods\"", Some("dnode")),
            (b"17\n{\"command\":\"__D\"}", Some("light_rpc")),
            (b"17\n{", Some("light_rpc")),
            (b"\xc4\x20\x91\x84", Some("node-mesh")),
            (b"\xc5\x01\x20\x91", Some("node-mesh")),
            (b"\xc6\x00\x01\x20\x91\x84", Some("node-mesh")),
            (b"\xc6\x00\x00\x00\x00\x01", Some(NATIVE)),
            (b"\x31\x0a\x00\x00\x17", Some(NATIVE)),
            (b"\x16\x03\x00\x00\x17", Some(NATIVE)),
            (b"\x16\x03\x01\x00\x17\x00", Some(NATIVE)),
            (b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4", Some("TLS")),
            (b"\x21\x00\x00\x00\x00\x01", Some(NATIVE)),
            (b"", None),
            (b"x", None),
            (b"\x00\x00\x00\x00\x00", None),
            (b"hello", None),
        ] {
            assert_eq!(spoken(bytes), protocol, "{bytes:?}");
            assert_eq!(is_native(bytes), protocol == Some(NATIVE), "{bytes:?}");
        }
    }
}

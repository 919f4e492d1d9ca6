//! Copies of many bytes, in pieces: around a fault of glibc before 2.40 on AMD's Zen 3 and Zen 4.
//!
//! `memcpy` of glibc takes `rep movsb` for more than 2,112 bytes where the processor calls that fast (FSRM). On these processors it is
//! ten times slower where source and destination lie a few bytes apart within their pages of 4 KiB, as payloads that are written one
//! behind the other may all day: 64 KiB took 22 us instead of 2 (AMD EPYC, glibc 2.36). This is
//! [glibc bug 30994](https://sourceware.org/bugzilla/show_bug.cgi?id=30994) and
//! [Ubuntu bug 2030515](https://bugs.launchpad.net/ubuntu/+source/glibc/+bug/2030515). Since 2.40 glibc leaves `rep movsb` alone on
//! all processors of AMD.
//!
//! This file may go when no supported system has an older glibc; Debian 12 has 2.36, Ubuntu 24.04 has 2.39.

use bytes::BytesMut;

/// The longest piece, in bytes: below the threshold of `rep movsb`.
const PIECE_LEN_MAX: usize = 2048;

/// Appends the bytes to the buffer: as `extend_from_slice` does, in pieces.
#[inline]
pub fn append(buffer: &mut BytesMut, bytes: &[u8]) {
    if bytes.len() <= PIECE_LEN_MAX {
        return buffer.extend_from_slice(bytes);
    }
    buffer.reserve(bytes.len());
    for piece in bytes.chunks(PIECE_LEN_MAX) {
        buffer.extend_from_slice(piece);
    }
}

/// A copy of the bytes: as `to_vec` gives, in pieces.
#[inline]
pub(crate) fn copy_of(bytes: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(bytes.len());
    for piece in bytes.chunks(PIECE_LEN_MAX) {
        copy.extend_from_slice(piece);
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_in_pieces_has_every_byte() {
        for len in [0, 1, PIECE_LEN_MAX, PIECE_LEN_MAX + 1, 3 * PIECE_LEN_MAX - 1, 100_000] {
            let bytes: Vec<u8> = (0..len).map(|number| (number % 251) as u8).collect();
            let mut buffer = BytesMut::from(&b"before"[..]);
            append(&mut buffer, &bytes);
            assert_eq!((&buffer[..6], &buffer[6..]), (&b"before"[..], &bytes[..]));
            assert_eq!(copy_of(&bytes), bytes);
        }
    }
}

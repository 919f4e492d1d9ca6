//! Copies of many bytes, which take as long wherever they go.

use bytes::BytesMut;

/// More bytes are copied in pieces of so many. The C library copies longer ones with one instruction, `rep movsb`, and where the two ends lie
/// a few bytes apart within a page of 4 KiB, as those of one payload after the other may all day, that takes ten times as long: 64 KiB
/// 22 us instead of 2 (AMD EPYC, glibc 2.36).
const PIECE_LEN_MAX: usize = 2048;

/// Appends these bytes.
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

/// A copy of these bytes.
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
    fn they_are_the_same_bytes() {
        for len in [0, 1, PIECE_LEN_MAX, PIECE_LEN_MAX + 1, 3 * PIECE_LEN_MAX - 1, 100_000] {
            let bytes: Vec<u8> = (0..len).map(|number| (number % 251) as u8).collect();
            let mut buffer = BytesMut::from(&b"before"[..]);
            append(&mut buffer, &bytes);
            assert_eq!((&buffer[..6], &buffer[6..]), (&b"before"[..], &bytes[..]));
            assert_eq!(copy_of(&bytes), bytes);
        }
    }
}

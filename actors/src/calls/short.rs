//! A short payload without functions, held where it stands: most arguments and replies need no allocation, and keep nothing of the
//! block that brought them.

use meshwork_wire::{Callbacks, Encoding, Payload, PayloadRef};

/// A payload is short when it has at most so many bytes: a slot of a call has room for them.
const LEN_MAX: usize = 32;

/// No functions.
static NO_CALLBACKS: Callbacks = Callbacks::none();

#[derive(Clone, Copy, Debug)]
pub(crate) struct ShortPayload {
    encoding: Encoding,
    len: u8,
    bytes: [u8; LEN_MAX],
}

impl ShortPayload {
    /// The payload, if it is short and passes no functions.
    #[inline]
    pub(crate) fn of(payload: PayloadRef<'_>) -> Option<Self> {
        if payload.bytes.len() > LEN_MAX || !payload.callbacks.is_empty() {
            return None;
        }
        let mut bytes = [0; LEN_MAX];
        bytes[..payload.bytes.len()].copy_from_slice(payload.bytes);
        Some(Self::new(payload.encoding, payload.bytes.len(), bytes))
    }

    /// The payload of the first `len` bytes of a room that may be longer, if it is short: a copy of a fixed number of bytes.
    #[inline]
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    #[inline]
    pub(crate) fn in_room(encoding: Encoding, room: &[u8], len: usize) -> Option<Self> {
        let bytes = room.first_chunk::<LEN_MAX>().filter(|_| len <= LEN_MAX)?;
        Some(Self::new(encoding, len, *bytes))
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "it is at most LEN_MAX")]
    fn new(encoding: Encoding, len: usize, bytes: [u8; LEN_MAX]) -> Self {
        Self { encoding, len: len as u8, bytes }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[inline]
    pub(crate) fn by_ref(&self) -> PayloadRef<'_> {
        PayloadRef { encoding: self.encoding, bytes: self.bytes(), callbacks: &NO_CALLBACKS }
    }
}

impl From<ShortPayload> for Payload {
    fn from(short: ShortPayload) -> Self {
        Payload::new(short.encoding, short.bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_short_up_to_its_bound() {
        for len in [0, 1, LEN_MAX, LEN_MAX + 1] {
            let payload = Payload::new(Encoding::MessagePack, vec![7; len]);
            let room = [7; LEN_MAX + 8];
            let both = [
                ShortPayload::of((&payload).into()),
                ShortPayload::in_room(Encoding::MessagePack, &room, len),
            ];
            for short in both {
                assert_eq!(short.map(Payload::from), (len <= LEN_MAX).then(|| payload.clone()));
            }
        }
        assert!(
            ShortPayload::in_room(Encoding::Json, &[1; LEN_MAX - 1], 1).is_none(),
            "the room is too short"
        );
    }
}

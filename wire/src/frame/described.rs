//! A part of the answer to a describe, written once for all who ask: the descriptions without the number of the question. The head in
//! front of it, which differs for each answer, is a few bytes.

use super::error::FrameError;
use super::kinds::{ActionDescription, Described, Frame};
use crate::id::CallbackId;
use crate::limits::LENGTH_PREFIX_LEN;
use crate::value::write_head;
use bytes::{Bytes, BytesMut};

/// Descriptions of actions, encoded as they stand in a [`Frame::Described`]. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DescribedPart {
    count: usize,
    elements: usize,
    bytes: Bytes,
}

impl DescribedPart {
    /// Encodes descriptions.
    #[must_use]
    pub fn new(actions: &[ActionDescription]) -> Self {
        let mut bytes = BytesMut::new();
        actions.iter().for_each(|action| write_head(action, &mut bytes));
        let elements = actions.iter().map(|action| 1 + action.nodes.len()).sum();
        Self { count: actions.len(), elements, bytes: bytes.freeze() }
    }

    /// How many actions are described.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many list elements the descriptions have in a head: see [`HEAD_ELEMENTS_MAX`](crate::limits::HEAD_ELEMENTS_MAX).
    #[must_use]
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The encoded descriptions.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The frame of an answer that consists of these parts, up to the first description: the bytes of the parts follow.
    #[must_use]
    pub fn head(callback_id: CallbackId, parts: &[DescribedPart]) -> BytesMut {
        let mut head = BytesMut::new();
        Frame::Described(Described { callback_id, actions: Vec::new() }).encode(&mut head);
        // The last byte says that there are no descriptions; the count of those that follow takes its place.
        head.truncate(head.len() - 1);
        let count: usize = parts.iter().map(|part| part.count).sum();
        write_head(&(count as u64), &mut head);
        let len = head.len() - LENGTH_PREFIX_LEN + parts.iter().map(|part| part.bytes.len()).sum::<usize>();
        let prefix = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        head[..LENGTH_PREFIX_LEN].copy_from_slice(&prefix);
        head
    }

    /// Reads the descriptions.
    ///
    /// # Errors
    ///
    /// Never for a part that [`DescribedPart::new`] made within the bounds of a frame.
    pub fn read(&self) -> Result<Vec<ActionDescription>, FrameError> {
        let mut frame = Self::head(CallbackId(0), std::slice::from_ref(self));
        frame.extend_from_slice(&self.bytes);
        match Frame::decode(&frame.freeze().slice(LENGTH_PREFIX_LEN..))? {
            Frame::Described(described) => Ok(described.actions),
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    fn description(number: usize) -> ActionDescription {
        let shape = number
            .is_multiple_of(3)
            .then(|| Shape { arguments: "x".repeat(number % 300).into(), reply: "größe".into() });
        let nodes = (0..number % 3).map(|node| format!("node-{node}").into()).collect();
        ActionDescription { action: format!("action/{number}").into(), nodes, shape }
    }

    #[test]
    fn an_answer_in_parts_is_the_frame_of_all_of_them() {
        for (counts, id) in
            [(&[0][..], 0), (&[1], 7), (&[3, 0, 4], 250), (&[250, 1], 251), (&[60_000, 2], 1 << 40)]
        {
            let mut numbers = 0..;
            let lists: Vec<Vec<_>> =
                counts.iter().map(|count| numbers.by_ref().take(*count).map(description).collect()).collect();
            let parts: Vec<_> = lists.iter().map(|list| DescribedPart::new(list)).collect();
            let callback_id = CallbackId(id);
            let mut written = DescribedPart::head(callback_id, &parts);
            parts.iter().for_each(|part| written.extend_from_slice(part.bytes()));
            let mut whole = BytesMut::new();
            Frame::Described(Described { callback_id, actions: lists.concat() }).encode(&mut whole);
            assert!(written == whole, "{counts:?}");
            for (part, list) in parts.iter().zip(lists) {
                assert_eq!(part.elements(), list.iter().map(|one| 1 + one.nodes.len()).sum::<usize>());
                assert_eq!((part.count(), part.read().unwrap()), (list.len(), list));
            }
        }
    }
}

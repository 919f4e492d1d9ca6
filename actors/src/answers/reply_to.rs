//! Where the replies to requests go: over a link, or to calls of the node itself.

use crate::link::gathered::{GATHERED_FRAME_LEN_MAX, GATHERED_LEN_MAX, Gathered};
use crate::link::outbox::Outbox;
use meshwork_wire::{CallbackId, Outcome, Response};

/// Takes the replies to requests.
pub(crate) trait ReplyTo {
    /// Where the replies go that are not there at once.
    type Later: ReplyTo + 'static;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome);

    /// The buffer that small replies are gathered in, if they are.
    fn gathered(&self) -> Option<&Gathered> {
        None
    }

    fn later(&self) -> Self::Later;
}

/// The replies to the requests of one block: small ones are gathered, and leave in one go when the block has been read.
pub(crate) struct Replies<'a> {
    outbox: &'a Outbox,
    gathered: Option<&'a Gathered>,
}

impl<'a> Replies<'a> {
    /// For a request of a block that has so many frames left. A block of one frame gathers nothing.
    pub(crate) fn new(outbox: &'a Outbox, gathered: &'a Gathered, left: usize) -> Self {
        let many = left > 0 || !gathered.is_empty();
        let fits = outbox.frame_len_max() >= GATHERED_FRAME_LEN_MAX;
        Self { outbox, gathered: (many && fits).then_some(gathered) }
    }
}

impl ReplyTo for Replies<'_> {
    type Later = Outbox;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        match (self.gathered, &outcome) {
            (Some(gathered), Ok(payload))
                if payload.len() <= GATHERED_LEN_MAX && payload.callbacks.is_empty() =>
            {
                gathered.push(&Response { callback_id, outcome });
            }
            _ => self.outbox.respond(callback_id, outcome),
        }
    }

    fn gathered(&self) -> Option<&Gathered> {
        self.gathered
    }

    fn later(&self) -> Outbox {
        self.outbox.clone()
    }
}

impl ReplyTo for Outbox {
    type Later = Self;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        self.respond(callback_id, outcome);
    }

    fn later(&self) -> Self {
        self.clone()
    }
}

/// Where the outcome of a function goes whose caller does not wait for it.
pub(super) struct Nobody;

impl ReplyTo for Nobody {
    type Later = Self;

    fn reply(&self, _: CallbackId, outcome: Outcome) {
        if let Err(error) = outcome {
            log::debug!("a callback failed, and nobody waited for it: {error}");
        }
    }

    fn later(&self) -> Self {
        Self
    }
}

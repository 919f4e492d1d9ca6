//! The receivers of replies to requests: an outbox, or the calls of the node itself.

use super::outlet::To;
use crate::link::gathered::{GATHERED_FRAME_LEN_MAX, GATHERED_LEN_MAX, GatheredReplies};
use crate::link::outbox::Outbox;
use crate::log_line;
use crate::repeated::Repeated;
use meshwork_wire::{CallError, CallbackId, Code, Fate, Outcome, Response};
use std::any::Any;
use tokio::time::Instant;

/// Takes the replies to requests.
pub(crate) trait ReplyTo {
    /// The receiver of replies that do not come at once, and outlive the block of their requests.
    type Later: ReplyTo + 'static;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome);

    /// The buffer that small replies are gathered in; none where they are not gathered.
    fn gathered(&self) -> Option<&GatheredReplies> {
        None
    }

    fn later(&self) -> Self::Later;

    /// The receiver of the items of a stream; none where nobody waits for any.
    fn to(&self, callback_id: CallbackId) -> Option<To>;
}

/// The receiver of replies to the requests of one block. Small replies are gathered, without an allocation each, and leave in one go when
/// the block has been read; other replies leave at once.
pub(crate) struct BlockReplies<'a> {
    outbox: &'a Outbox,
    lane: Option<u64>,
    gathered: Option<&'a GatheredReplies>,
}

impl<'a> BlockReplies<'a> {
    pub(crate) fn new(outbox: &'a Outbox, gathered: &'a GatheredReplies) -> Self {
        let fits = outbox.frame_len_max() >= GATHERED_FRAME_LEN_MAX;
        Self { outbox, lane: None, gathered: fits.then_some(gathered) }
    }

    /// For requests of many callers: replies that are not small wait in the lane of their caller, where many bytes stand in the outbox.
    pub(crate) fn in_lane(self, lane: u64) -> Self {
        Self { lane: Some(lane), ..self }
    }
}

impl ReplyTo for BlockReplies<'_> {
    type Later = LaterReply;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        match (self.gathered, &outcome) {
            (Some(gathered), Ok(payload))
                if payload.len() <= GATHERED_LEN_MAX && payload.callbacks.is_empty() =>
            {
                gathered.push(&Response { callback_id, outcome });
            }
            _ => respond(self.outbox, self.lane, callback_id, outcome),
        }
    }

    fn gathered(&self) -> Option<&GatheredReplies> {
        self.gathered
    }

    fn later(&self) -> LaterReply {
        LaterReply { outbox: self.outbox.clone(), lane: self.lane }
    }

    fn to(&self, _: CallbackId) -> Option<To> {
        Some(To::Link(self.outbox.clone()))
    }
}

/// The receiver of the reply to a request that was not answered at once.
pub(crate) struct LaterReply {
    outbox: Outbox,
    lane: Option<u64>,
}

impl ReplyTo for LaterReply {
    type Later = Self;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        respond(&self.outbox, self.lane, callback_id, outcome);
    }

    fn later(&self) -> Self {
        Self { outbox: self.outbox.clone(), lane: self.lane }
    }

    fn to(&self, _: CallbackId) -> Option<To> {
        Some(To::Link(self.outbox.clone()))
    }
}

fn respond(outbox: &Outbox, lane: Option<u64>, callback_id: CallbackId, outcome: Outcome) {
    match lane {
        Some(lane) => outbox.respond_in_turn(lane, callback_id, outcome),
        None => outbox.respond(callback_id, outcome),
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

    fn to(&self, _: CallbackId) -> Option<To> {
        Some(To::Link(self.clone()))
    }
}

/// The receiver of the outcome of a function whose caller does not wait for it: a failure is logged.
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

    fn to(&self, _: CallbackId) -> Option<To> {
        None
    }
}

/// Tells the log that a function of the program, which takes the reply to a call, panicked.
#[cold]
pub(crate) fn waiter_panicked() {
    static PANICKED: Repeated = Repeated::new();
    let line = PANICKED.error(Instant::now().into_std());
    log_line!(line, "a function that is told of the reply to a call panicked");
}

/// The error of a request whose responder panicked.
pub(super) fn panicked(action: &str, panic: &(dyn Any + Send)) -> CallError {
    static PANICKED: Repeated = Repeated::new();
    let reason = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given");
    let line = PANICKED.error(Instant::now().into_std());
    log_line!(line, "the responder of {action} panicked: {reason}");
    CallError::new(Code::PANICKED, Fate::Failed, format!("the responder panicked: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::limits::FRAME_LEN_MAX;
    use meshwork_wire::{Encoding, Payload};

    #[test]
    fn small_replies_of_a_block_are_gathered_and_the_others_leave_at_once() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let gathered = GatheredReplies::default();
        let say = |outbox: &Outbox, id, len| {
            let payload = Payload::new(Encoding::Json, vec![b'1'; len]);
            BlockReplies::new(outbox, &gathered).reply(CallbackId(id), Ok(payload));
        };
        say(&outbox, 1, 10);
        assert_eq!((outbox.len(), gathered.is_empty()), (0, false));
        say(&outbox, 2, GATHERED_LEN_MAX + 1);
        assert!(outbox.len() > GATHERED_LEN_MAX);
        outbox.push_gathered(&gathered);
        assert!(gathered.is_empty());
        let narrow = Outbox::new(GATHERED_FRAME_LEN_MAX - 1);
        say(&narrow, 3, 10);
        assert!(
            gathered.is_empty(),
            "the length of each reply is checked for a link that reads short frames only"
        );
        let len = outbox.len();
        say(&outbox, 4, 10);
        outbox.close();
        outbox.push_gathered(&gathered);
        assert_eq!((outbox.len(), gathered.is_empty()), (len, true), "a closed link takes no reply");
    }
}

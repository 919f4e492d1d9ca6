//! The parts that usual heads have in common, as bytes and in memory.

use crate::encoding::Encoding;
use crate::frame::kinds::{Publish, Request};
use crate::headers::Headers;
use crate::id::CallbackId;
use crate::payload::Payload;
use bytestring::ByteString;
use std::time::Duration;

/// The places of variants in the heads of `heads.rs`. `tests/golden.rs` freezes them.
pub(super) const REQUEST: u8 = 9;
pub(super) const RESPONSE: u8 = 10;
pub(crate) const PUBLISH: u8 = 16;
pub(super) const ITEM: u8 = 39;
pub(super) const REPLY: u8 = 0;

/// The markers of integers in bincode's standard configuration: an integer below the first marker takes one byte, a larger integer one
/// marker and two, four or eight bytes.
pub(super) const TWO_BYTES: u8 = 251;
pub(super) const FOUR_BYTES: u8 = 252;
pub(super) const EIGHT_BYTES: u8 = 253;

/// The most bytes of a number.
pub(super) const NUMBER_LEN_MAX: usize = 9;

/// The head of a request, but for its id: equal in all requests of a run. A request with hops or headers is in no run.
#[derive(Debug)]
pub(super) struct RequestParts {
    action: ByteString,
    node: ByteString,
    caller: ByteString,
    time_left: Option<Duration>,
    pub(super) encoding: Encoding,
}

/// The head of an event that is for no groups and has no headers: equal in all events of a run.
#[derive(Debug)]
pub(super) struct EventParts {
    topic: ByteString,
    publisher: ByteString,
    for_all: bool,
    pub(super) encoding: Encoding,
}

impl RequestParts {
    pub(super) fn of(request: &Request) -> Self {
        let Request { action, node, caller, time_left, payload, .. } = request;
        let (action, node, caller) = (action.clone(), node.clone(), caller.clone());
        Self { action, node, caller, time_left: *time_left, encoding: payload.encoding }
    }

    pub(super) fn is_of(&self, request: &Request) -> bool {
        self.action == request.action
            && self.time_left == request.time_left
            && self.encoding == request.payload.encoding
            && request.hops == 0
            && request.headers.is_empty()
            && is_equal(&self.node, &request.node)
            && is_equal(&self.caller, &request.caller)
    }

    pub(super) fn with(&self, callback_id: CallbackId, payload: Payload) -> Request {
        let (action, node, caller) = (self.action.clone(), self.node.clone(), self.caller.clone());
        Request {
            callback_id,
            action,
            node,
            caller,
            time_left: self.time_left,
            hops: 0,
            headers: Headers::none(),
            payload,
        }
    }
}

impl EventParts {
    pub(super) fn of(event: &Publish) -> Self {
        let (topic, publisher) = (event.topic.clone(), event.publisher.clone());
        Self { topic, publisher, for_all: event.for_all, encoding: event.payload.encoding }
    }

    pub(super) fn with(&self, payload: Payload) -> Publish {
        let (topic, publisher) = (self.topic.clone(), self.publisher.clone());
        let (for_all, headers) = (self.for_all, Headers::none());
        Publish { topic, publisher, for_all, groups: Vec::new(), headers, payload }
    }
}

/// Compares two names, quickly where both are empty, as most are.
#[inline]
fn is_equal(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

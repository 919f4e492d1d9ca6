//! Submissions: calls, events, cancels and releases of the handles of a node, in the queue to its actor.

use crate::answers::Cause;
use crate::calls::short::ShortPayload;
use crate::hashed::HashSet;
use bytes::BytesMut;
use meshwork_wire::limits::{CALL_WITHIN, LENGTH_PREFIX_LEN, PAYLOAD_SHARED_LEN_MIN};
use meshwork_wire::{
    Block, ByteString, CallbackId, EncodeError, Encoding, Form, Frame, FrameCodec, Grant, Granted, Headers,
    Invocation, Payload, Request, SMALL_VALUE_LEN_MAX,
};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::codec::Decoder;

/// About how many bytes an event takes besides its topic and its value.
const EVENT_LEN_MIN: usize = 64;

/// An entry of the queue from the handles of a node to its actor.
pub(crate) enum Submission {
    /// Calls whose frames their callers have written.
    Frames(Frames),
    /// A call that the actor writes, or answers itself.
    Ask(Box<Ask>),
    /// A call that its caller dropped.
    Cancel(CallbackId),
    /// More items of the stream that answers a call.
    Grant(Granted),
    /// A call of a function that came over a link.
    Invoke(Box<Invoking>),
    /// The release of a function that came over the link of this number: no handle on it is left.
    Release {
        link: u64,
        function: CallbackId,
    },
    Publish(NewEvent),
    /// An event whose value is to be the last of its topic.
    KeepLast(Box<Keeping>),
    Broadcast(NewEvent),
}

/// An event of this node, to be published or broadcast.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The topic of the event.
    pub topic: ByteString,
    /// What travels beside the value.
    pub headers: Headers,
    /// The value of the event.
    pub payload: Payload,
}

impl NewEvent {
    /// An event without headers.
    #[must_use]
    pub fn new(topic: impl Into<ByteString>, payload: Payload) -> Self {
        Self { topic: topic.into(), headers: Headers::none(), payload }
    }
}

/// The frames of calls, in the order of their ids.
#[derive(Default)]
pub(crate) struct Frames {
    pub(crate) bytes: BytesMut,
    pub(crate) count: usize,
    /// How many bytes the longest frame has, its length prefix not counted.
    pub(crate) longest: usize,
}

/// A call that the actor writes, or answers itself.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The request as it is sent, except for its `time_left`, which is still the whole time that the caller waits.
    pub(crate) request: Request,
    pub(crate) deadline: Option<Instant>,
    pub(crate) when_down: WhenDown,
    /// What its caller grants at first, if the call is answered with a stream.
    pub(crate) grant: Option<Grant>,
}

impl Ask {
    /// The submission of the call under this id.
    pub(crate) fn submission(mut self, callback_id: CallbackId) -> Submission {
        self.request.callback_id = callback_id;
        Submission::Ask(Box::new(self))
    }
}

/// A call of a function that came over a link.
pub(crate) struct Invoking {
    /// The number of the link: a branch counts its links, a master numbers its sessions.
    pub(crate) link: u64,
    pub(crate) function: CallbackId,
    /// None when the caller waits for no outcome.
    pub(crate) callback_id: Option<CallbackId>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) invocation: Invocation,
}

/// A value that is to be the last of its topic.
pub(crate) struct Keeping {
    pub(crate) callback_id: CallbackId,
    pub(crate) event: NewEvent,
    /// Whether the topic is to have none.
    pub(crate) forgets: bool,
}

/// A call of an action, with its arguments, deadline, node and headers.
#[derive(Clone, Debug)]
pub struct Call {
    /// The action.
    pub action: ByteString,
    /// The node that is to answer the call; empty for any.
    pub node: ByteString,
    /// The arguments.
    pub arguments: Payload,
    /// How long the caller waits; `None` for ever.
    pub within: Option<Duration>,
    /// The moment when the call ends at the latest, however long its caller waits; `None`: none.
    pub until: Option<Instant>,
    /// What travels beside the arguments.
    pub headers: Headers,
    /// The behaviour of the call while the link is down.
    pub when_down: WhenDown,
    /// The request that the call is made for: [`Node::layered`](super::Node::layered) ends the call when that is cancelled.
    pub cause: Option<Arc<Cause>>,
}

/// The behaviour of a call while the link is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenDown {
    /// The call waits for the link, within its deadline.
    #[default]
    Wait,
    /// The call fails at once.
    Fail,
}

impl Call {
    /// A call of any provider of an action, with the default deadline.
    #[must_use]
    pub fn new(action: impl Into<ByteString>, arguments: Payload) -> Self {
        Self {
            action: action.into(),
            node: ByteString::new(),
            arguments,
            within: Some(CALL_WITHIN),
            until: None,
            headers: Headers::none(),
            when_down: WhenDown::Wait,
            cause: None,
        }
    }

    /// Draws a key for [`Headers::IDEMPOTENCY_KEY`]: of 128 bits, so that no two calls of a caller have one.
    #[must_use]
    pub fn draw_key() -> String {
        format!("{:032x}", fastrand::u128(..))
    }
}

/// Whether arguments are copied behind the head of their request: they pass no functions, and are shorter than [`PAYLOAD_SHARED_LEN_MIN`].
pub(crate) fn is_copied(arguments: &Payload) -> bool {
    arguments.callbacks.is_empty() && arguments.len() < PAYLOAD_SHARED_LEN_MIN
}

/// The arguments of a call, written.
#[derive(Clone, Debug)]
pub struct Arguments(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// These stand in the call itself until it is polled.
    Short(ShortPayload),
    Payload(Payload),
}

impl Arguments {
    /// Writes the arguments of a call.
    ///
    /// # Errors
    ///
    /// When the encoding has no form for the arguments.
    #[inline(always)]
    pub fn encode<T: Serialize + ?Sized>(form: impl Into<Form>, value: &T) -> Result<Self, EncodeError> {
        let form = form.into();
        let encoding = form.encoding();
        let short = |room: &[u8; SMALL_VALUE_LEN_MAX], len: usize| {
            ShortPayload::in_room(encoding, room, len)
                .map_or_else(|| Kind::Payload(Payload::new(encoding, room[..len].to_vec())), Kind::Short)
        };
        Payload::encode_in_room(form, value, short, Kind::Payload).map(Self)
    }

    /// The bytes that are copied behind the head of a request; none for arguments that pass functions or are too long to copy.
    #[inline]
    pub(crate) fn inline(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Short(payload) => Some(payload.bytes()),
            Kind::Payload(payload) => is_copied(payload).then_some(&payload.bytes),
        }
    }

    /// How the arguments are written.
    #[inline]
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Kind::Short(payload) => payload.encoding(),
            Kind::Payload(payload) => payload.encoding,
        }
    }

    /// Whether the arguments are written in bincode, in so many bytes at most.
    #[inline]
    #[must_use]
    pub fn is_bincode_within(&self, len_max: usize) -> bool {
        match &self.0 {
            Kind::Short(payload) => payload.encoding() == Encoding::Bincode,
            Kind::Payload(payload) => payload.encoding == Encoding::Bincode && payload.len() <= len_max,
        }
    }

    /// The arguments as a payload.
    #[must_use]
    pub fn into_payload(self) -> Payload {
        match self.0 {
            Kind::Short(payload) => payload.into(),
            Kind::Payload(payload) => payload,
        }
    }
}

impl From<Payload> for Arguments {
    fn from(payload: Payload) -> Self {
        Self(Kind::Payload(payload))
    }
}

impl Submission {
    /// Whether the submission is a call of an action.
    pub(crate) fn is_call(&self) -> bool {
        matches!(self, Submission::Frames(_) | Submission::Ask(_))
    }

    /// How many bytes an event takes, or a call of a function that nobody waits for; 0 for other submissions, which are bounded by the calls in
    /// flight.
    pub(crate) fn event_len(&self) -> usize {
        match self {
            Submission::Publish(event) | Submission::Broadcast(event) => {
                EVENT_LEN_MIN + event.topic.len() + event.headers.len() + event.payload.len()
            }
            Submission::Invoke(invoking) if invoking.callback_id.is_none() => {
                EVENT_LEN_MIN + invoking.invocation.arguments.len()
            }
            _ => 0,
        }
    }

    /// The verb of the permission that an event needs.
    pub(crate) fn verb(&self) -> &'static str {
        if let Submission::Broadcast(_) = self { "broadcast" } else { "publish to" }
    }

    /// Whether the submission asks for a reply.
    pub(crate) fn asks(&self) -> bool {
        match self {
            Submission::Frames(_) | Submission::Ask(_) | Submission::KeepLast(_) => true,
            Submission::Invoke(invoking) => invoking.callback_id.is_some(),
            Submission::Cancel(_)
            | Submission::Release { .. }
            | Submission::Grant(_)
            | Submission::Publish(_)
            | Submission::Broadcast(_) => false,
        }
    }
}

impl Frames {
    /// The same calls without these.
    pub(crate) fn without(self, withdrawn: &HashSet<CallbackId>) -> Self {
        let mut rest = Self::default();
        for request in self.into_requests() {
            if !withdrawn.contains(&request.callback_id) {
                let start = rest.bytes.len();
                Frame::Request(request).encode(&mut rest.bytes);
                rest.count += 1;
                rest.longest = rest.longest.max(rest.bytes.len() - start - LENGTH_PREFIX_LEN);
            }
        }
        rest
    }

    /// The calls one by one, for calls that do not all leave over the link at once. Costs a read of each frame.
    pub(crate) fn into_requests(mut self) -> Vec<Request> {
        let mut requests = Vec::with_capacity(self.count);
        let mut codec = FrameCodec::new(usize::MAX);
        // The frames were written by this process, so they can be read.
        while let Ok(Some(block)) = codec.decode(&mut self.bytes) {
            let frames = Block::frames(block).filter_map(|frame| match frame {
                Ok(Frame::Request(request)) => Some(request),
                _ => None,
            });
            requests.extend(frames);
        }
        requests
    }
}

//! The frames of the native dialect and their bytes: `u32` length (little endian), head (bincode), payload as it is.
//!
//! The order of the variants of [`Frame`] and of their fields is the protocol: variants are only ever added at the end, and
//! `tests/golden.rs` freezes the bytes of each. The frames that a relay handles (requests, responses, events) are read
//! without copying: names and payloads are slices of the buffer that the frame came in.

mod swift;

pub use swift::{HeadTemplate, RequestRun, SMALL_REPLY_LEN_MAX, write_small_reply};
pub(crate) use swift::{KeptHead, PUBLISH, read_next};

use crate::limits::{CALLBACKS_PER_REQUEST_MAX, LENGTH_PREFIX_LEN};
use crate::value::{read_bounded, read_head, write_head};
use crate::{
    CallError, CallbackId, Code, Encoding, Fate, FrameError, Pattern, Payload, SessionId, Wants, append,
};
use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, ops::Range, time::Duration};

/// The unit on a link.
#[derive(Clone, PartialEq, Debug)]
pub enum Frame {
    /// Branch to master, first of all: let me in.
    Bind(Bind),
    /// Master to branch: you are in.
    Bound(Bound),
    /// Master to branch: you are not, or no longer, in. The link closes behind it.
    Refused(Refused),
    /// Branch to master: I offer these too. Answered by a response without a value.
    Register(Register),
    /// Branch to master: I offer these no longer. Answered by a response without a value.
    Unregister(Unregister),
    /// Master to branch: a node came, or offers more.
    Online(NodeNews),
    /// Master to branch: a node went, or offers less.
    Offline(NodeNews),
    /// Branch to master: which actions are there?
    Describe(Describe),
    /// The answer.
    Described(Described),
    /// Run this action.
    Request(Request),
    /// The outcome of a request, a register, an unregister, a subscribe or an invoke.
    Response(Response),
    /// The caller of a request dropped the call: no response is expected any more.
    Cancel(CallbackId),
    /// Call a function that was passed as an argument.
    Invoke(Invoke),
    /// The last holder of a function that was passed as an argument let it go.
    Release(CallbackId),
    /// Branch to master: send me the events that match. Answered by a response without a value.
    Subscribe(Subscribe),
    /// Branch to master: no longer. Not answered.
    Unsubscribe(SubscriptionKey),
    /// An event for the subscribers of its topic.
    Publish(Publish),
    /// An event for every node.
    Broadcast(Broadcast),
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// I finish the requests in flight and take no more.
    Drain,
}

/// The first frame of a branch.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Bind {
    /// [`PROTOCOL_VERSION`](crate::limits::PROTOCOL_VERSION) of the branch.
    pub version: u16,
    /// The name of the branch.
    pub name: ByteString,
    /// A token, or another text that the master's check understands.
    pub credentials: Option<ByteString>,
    /// The actions that it answers. More than [`ACTIONS_PER_FRAME_MAX`](crate::limits::ACTIONS_PER_FRAME_MAX) follow in `Register`s.
    pub offers: Vec<Offer>,
    /// Its subscriptions.
    pub subscriptions: Vec<SubscriptionKey>,
}

/// An action that a node answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub action: ByteString,
    /// The encoding that its node reads best. A call in bincode goes only to a node that says so.
    pub encoding: Encoding,
    /// Its arguments and its reply, where they are known.
    pub shape: Option<Shape>,
}

/// The arguments and the reply of an action, each as the text of a JSON Schema.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// The schema of the arguments.
    pub arguments: ByteString,
    /// The schema of the reply.
    pub reply: ByteString,
}

/// The master's yes to a bind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bound {
    /// The session of this link.
    pub session: SessionId,
    /// The name of the master.
    pub master: ByteString,
    /// How often the branch must say something, in milliseconds.
    pub heartbeat_ms: u64,
    /// The longest frame that the master reads, in bytes without the length prefix.
    pub frame_len_max: u64,
    /// How many requests the branch may have in flight.
    pub in_flight_max: u64,
}

/// The master's no to a bind, or the end of one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// Why, as a number.
    pub code: Code,
    /// Why, as a sentence.
    pub message: ByteString,
    /// Whether the branch may come back: a name taken over by another one is lost for good.
    pub may_return: bool,
}

/// More actions of a bound branch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Register {
    /// Where the response goes.
    pub callback_id: CallbackId,
    /// The actions that it offers from now on, too.
    pub offers: Vec<Offer>,
}

/// Fewer actions of a bound branch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unregister {
    /// Where the response goes.
    pub callback_id: CallbackId,
    /// The actions that it offers no longer.
    pub actions: Vec<ByteString>,
}

/// A node that came or went, with its actions. It feeds the action cache of the other nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeNews {
    /// The name of the node.
    pub node: ByteString,
    /// Its session: several nodes may share one name.
    pub session: SessionId,
    /// Whether the node itself came or went, and not only some of its actions.
    pub whole: bool,
    /// The actions that came, with the encoding that each wants. When the node itself goes, they all go, listed or not.
    pub actions: Vec<(ByteString, Encoding)>,
}

/// A question for the actions of the mesh.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Describe {
    /// Where the answer goes.
    pub callback_id: CallbackId,
    /// Which actions: their names are matched as topics are.
    pub pattern: Pattern,
}

/// The answer to a [`Describe`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Described {
    /// Whose question it answers.
    pub callback_id: CallbackId,
    /// The actions, sorted by name: at most [`DESCRIBED_MAX`](crate::limits::DESCRIBED_MAX).
    pub actions: Vec<ActionDescription>,
}

/// An action of the mesh, as seen from outside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActionDescription {
    /// Its name.
    pub action: ByteString,
    /// The nodes that offer it.
    pub nodes: Vec<ByteString>,
    /// Its arguments and its reply, where they are known.
    pub shape: Option<Shape>,
}

/// A request to run an action.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// Where the response goes.
    pub callback_id: CallbackId,
    /// Which action.
    pub action: ByteString,
    /// The node that is to run it; empty for any.
    pub node: ByteString,
    /// The node that asks; a branch leaves it empty and the master writes the name that is bound.
    pub caller: ByteString,
    /// How long the caller still waits. It goes down at each hop.
    pub time_left: Option<Duration>,
    /// The arguments.
    pub payload: Payload,
}

/// What became of a request: its reply, or why there is none.
pub type Outcome = Result<Payload, CallError>;

/// The outcome of a request.
#[derive(Clone, PartialEq, Debug)]
pub struct Response {
    /// Which request.
    pub callback_id: CallbackId,
    /// Its reply, or why there is none.
    pub outcome: Result<Payload, CallError>,
}

/// A call of a function that was passed as an argument.
#[derive(Clone, PartialEq, Debug)]
pub struct Invoke {
    /// Which function, by the id that its owner drew.
    pub function: CallbackId,
    /// Where the response goes, if one is wanted.
    pub callback_id: Option<CallbackId>,
    /// How long the caller still waits.
    pub time_left: Option<Duration>,
    /// The part of the outcome that the caller waits for: nothing if there is no callback id.
    pub wants: Wants,
    /// The arguments.
    pub payload: Payload,
}

/// A new subscription.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subscribe {
    /// Where the response goes.
    pub callback_id: CallbackId,
    /// The key of the subscription.
    pub key: SubscriptionKey,
}

/// The pattern and the group of a subscription. A node is sent an event once for a key, however many of its own handlers share it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SubscriptionKey {
    /// Which topics.
    pub pattern: Pattern,
    /// The group whose members share the events, each event going to one of them.
    pub group: Option<ByteString>,
}

/// An event for the subscribers of its topic.
#[derive(Clone, PartialEq, Debug)]
pub struct Publish {
    /// Its topic.
    pub topic: ByteString,
    /// The node that published it; a branch leaves it empty and the master writes the name that is bound.
    pub publisher: ByteString,
    /// Whether it is for the subscribers that are in no group.
    pub for_all: bool,
    /// The groups that it is for.
    pub groups: Vec<ByteString>,
    /// The value that it carries.
    pub payload: Payload,
}

/// An event for every node.
#[derive(Clone, PartialEq, Debug)]
pub struct Broadcast {
    /// Its topic.
    pub topic: ByteString,
    /// The node that sent it; a branch leaves it empty and the master writes the name that is bound.
    pub publisher: ByteString,
    /// The value that it carries.
    pub payload: Payload,
}

impl fmt::Debug for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token must not find its way into a log.
        f.debug_struct("Bind")
            .field("version", &self.version)
            .field("name", &self.name)
            .field("credentials", &self.credentials.as_ref().map(|_| "(kept back)"))
            .field("offers", &self.offers.len())
            .field("subscriptions", &self.subscriptions)
            .finish()
    }
}

/// A frame without its payload, as it stands in the bytes. The order of variants and fields is the protocol.
#[derive(Serialize, Deserialize)]
enum Head<'a> {
    #[serde(deserialize_with = "read_bounded")]
    Bind(Cow<'a, Bind>),
    #[serde(deserialize_with = "read_bounded")]
    Bound(Cow<'a, Bound>),
    #[serde(deserialize_with = "read_bounded")]
    Refused(Cow<'a, Refused>),
    #[serde(deserialize_with = "read_bounded")]
    Register(Cow<'a, Register>),
    #[serde(deserialize_with = "read_bounded")]
    Unregister(Cow<'a, Unregister>),
    #[serde(deserialize_with = "read_bounded")]
    Online(Cow<'a, NodeNews>),
    #[serde(deserialize_with = "read_bounded")]
    Offline(Cow<'a, NodeNews>),
    #[serde(deserialize_with = "read_bounded")]
    Describe(Cow<'a, Describe>),
    #[serde(deserialize_with = "read_bounded")]
    Described(Cow<'a, Described>),
    #[serde(borrow)]
    Request(RequestHead<'a>),
    #[serde(borrow)]
    Response(ResponseHead<'a>),
    Cancel(CallbackId),
    Invoke(InvokeHead<'a>),
    Release(CallbackId),
    #[serde(deserialize_with = "read_bounded")]
    Subscribe(Cow<'a, Subscribe>),
    #[serde(deserialize_with = "read_bounded")]
    Unsubscribe(Cow<'a, SubscriptionKey>),
    #[serde(borrow)]
    Publish(PublishHead<'a>),
    #[serde(borrow)]
    Broadcast(BroadcastHead<'a>),
    Ping,
    Pong,
    Drain,
    /// An invoke whose caller wants only its end.
    InvokeForEnd(InvokeHead<'a>),
}

#[derive(Serialize, Deserialize)]
struct PayloadHead<'a> {
    encoding: Encoding,
    #[serde(deserialize_with = "read_bounded")]
    callbacks: Cow<'a, [CallbackId]>,
}

#[derive(Serialize, Deserialize)]
struct RequestHead<'a> {
    callback_id: CallbackId,
    action: &'a str,
    node: &'a str,
    caller: &'a str,
    time_left_us: Option<u64>,
    payload: PayloadHead<'a>,
}

#[derive(Serialize, Deserialize)]
struct ResponseHead<'a> {
    callback_id: CallbackId,
    #[serde(borrow)]
    outcome: OutcomeHead<'a>,
}

#[derive(Serialize, Deserialize)]
enum OutcomeHead<'a> {
    Reply(PayloadHead<'a>),
    Error { code: Code, fate: Fate, name: &'a str, message: &'a str, data: Option<PayloadHead<'a>> },
}

#[derive(Serialize, Deserialize)]
struct InvokeHead<'a> {
    function: CallbackId,
    callback_id: Option<CallbackId>,
    time_left_us: Option<u64>,
    payload: PayloadHead<'a>,
}

#[derive(Serialize, Deserialize)]
struct PublishHead<'a> {
    topic: &'a str,
    publisher: &'a str,
    for_all: bool,
    #[serde(deserialize_with = "read_bounded")]
    groups: Cow<'a, [ByteString]>,
    payload: PayloadHead<'a>,
}

#[derive(Serialize, Deserialize)]
struct BroadcastHead<'a> {
    topic: &'a str,
    publisher: &'a str,
    payload: PayloadHead<'a>,
}

impl Frame {
    /// Appends the whole frame: length, head, payload.
    pub fn encode(&self, buffer: &mut BytesMut) {
        FrameRef::from(self).encode(buffer);
    }

    /// The bytes that follow the head, for the frames that carry a user's value.
    #[must_use]
    pub fn payload(&self) -> Option<&Payload> {
        FrameRef::from(self).payload()
    }

    /// The payload, to be changed; none for an error.
    pub fn payload_mut(&mut self) -> Option<&mut Payload> {
        match self {
            Frame::Request(Request { payload, .. })
            | Frame::Response(Response { outcome: Ok(payload), .. })
            | Frame::Invoke(Invoke { payload, .. })
            | Frame::Publish(Publish { payload, .. })
            | Frame::Broadcast(Broadcast { payload, .. }) => Some(payload),
            _ => None,
        }
    }

    /// Reads a frame from its bytes, the length prefix taken off. Names and payload share the bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are not a frame of this protocol. No text is allocated that is longer than the bytes themselves, and
    /// no list that is longer than [`HEAD_ELEMENTS_MAX`](crate::limits::HEAD_ELEMENTS_MAX).
    pub fn decode(bytes: &Bytes) -> Result<Frame, FrameError> {
        match swift::read(bytes, 0..bytes.len()) {
            Some(frame) => Ok(frame),
            None => Self::decode_unusual(bytes, 0..bytes.len()),
        }
    }

    /// Reads the frame in this part of a block, which must lie within it: any frame, at the cost of any.
    pub(crate) fn decode_unusual(block: &Bytes, part: Range<usize>) -> Result<Frame, FrameError> {
        let bytes = &block.slice(part);
        let (head, head_len) = read_head::<Head<'_>>(bytes).map_err(FrameError::Malformed)?;
        let rest = || bytes.slice(head_len..);
        let text = |text: &str| shared_text(bytes, text);
        let frame = match head {
            Head::Request(head) => Frame::Request(Request {
                callback_id: head.callback_id,
                action: text(head.action)?,
                node: text(head.node)?,
                caller: text(head.caller)?,
                time_left: head.time_left_us.map(Duration::from_micros),
                payload: head.payload.with(rest())?,
            }),
            Head::Response(ResponseHead { callback_id, outcome }) => {
                let outcome = match outcome {
                    OutcomeHead::Reply(payload) => Ok(payload.with(rest())?),
                    OutcomeHead::Error { code, fate, name, message, data } => {
                        // Errors outlive the buffer that they came in, in logs and in hands: their texts are copied.
                        let error =
                            CallError::named(code, fate, ByteString::from(name), ByteString::from(message));
                        Err(match data {
                            Some(data) => error.with_data(data.with(rest())?),
                            None => {
                                no_rest(bytes, head_len)?;
                                error
                            }
                        })
                    }
                };
                Frame::Response(Response { callback_id, outcome })
            }
            Head::Invoke(head) => {
                let wants = if head.callback_id.is_some() { Wants::Result } else { Wants::Nothing };
                Frame::Invoke(head.with(wants, rest())?)
            }
            Head::InvokeForEnd(head) => Frame::Invoke(head.with(Wants::End, rest())?),
            Head::Publish(head) => Frame::Publish(Publish {
                topic: text(head.topic)?,
                publisher: text(head.publisher)?,
                for_all: head.for_all,
                groups: head.groups.into_owned(),
                payload: head.payload.with(rest())?,
            }),
            Head::Broadcast(head) => Frame::Broadcast(Broadcast {
                topic: text(head.topic)?,
                publisher: text(head.publisher)?,
                payload: head.payload.with(rest())?,
            }),
            head => {
                no_rest(bytes, head_len)?;
                head.into_frame_without_payload()
            }
        };
        Ok(frame)
    }
}

/// A frame to be written, borrowed: a request, a response or an event is written without making a [`Frame`] of it.
#[derive(Clone, Copy, Debug)]
pub struct FrameRef<'a>(Borrowed<'a>);

#[derive(Clone, Copy, Debug)]
enum Borrowed<'a> {
    Request(&'a Request),
    Response(&'a Response),
    Publish(&'a Publish),
    Other(&'a Frame),
}

impl<'a> From<&'a Frame> for FrameRef<'a> {
    fn from(frame: &'a Frame) -> Self {
        match frame {
            Frame::Request(request) => request.into(),
            Frame::Response(response) => response.into(),
            Frame::Publish(publish) => publish.into(),
            other => Self(Borrowed::Other(other)),
        }
    }
}

impl<'a> From<&'a Request> for FrameRef<'a> {
    fn from(request: &'a Request) -> Self {
        Self(Borrowed::Request(request))
    }
}

impl<'a> From<&'a Response> for FrameRef<'a> {
    fn from(response: &'a Response) -> Self {
        Self(Borrowed::Response(response))
    }
}

impl<'a> From<&'a Publish> for FrameRef<'a> {
    fn from(publish: &'a Publish) -> Self {
        Self(Borrowed::Publish(publish))
    }
}

impl<'a> FrameRef<'a> {
    /// Appends the whole frame: length, head, payload.
    pub fn encode(self, buffer: &mut BytesMut) {
        self.write(self.payload().map_or(&[][..], |payload| &payload.bytes), buffer);
    }

    /// As [`FrameRef::encode`]; from its third request on, a run takes two thirds of the instructions.
    pub fn encode_in_run(self, run: &mut RequestRun, buffer: &mut BytesMut) {
        match self.0 {
            Borrowed::Request(request) if run.write(request, buffer) => {}
            _ => self.encode(buffer),
        }
    }

    /// Appends length and head only: the payload, of [`FrameRef::payload`], must follow.
    pub fn encode_without_payload(self, buffer: &mut BytesMut) {
        self.write(&[], buffer);
    }

    /// The bytes that follow the head, for the frames that carry a user's value.
    #[must_use]
    pub fn payload(self) -> Option<&'a Payload> {
        match self.0 {
            Borrowed::Request(Request { payload, .. })
            | Borrowed::Response(Response { outcome: Ok(payload), .. })
            | Borrowed::Publish(Publish { payload, .. })
            | Borrowed::Other(
                Frame::Invoke(Invoke { payload, .. }) | Frame::Broadcast(Broadcast { payload, .. }),
            ) => Some(payload),
            Borrowed::Response(Response { outcome: Err(error), .. }) => error.data(),
            Borrowed::Other(_) => None,
        }
    }

    /// The request that it answers, if it is a response.
    #[must_use]
    pub fn callback_id_of_response(self) -> Option<CallbackId> {
        match self.0 {
            Borrowed::Response(response) => Some(response.callback_id),
            Borrowed::Request(_) | Borrowed::Publish(_) | Borrowed::Other(_) => None,
        }
    }

    /// The frame itself. Copies names and shares the payload.
    #[must_use]
    pub fn to_frame(self) -> Frame {
        match self.0 {
            Borrowed::Request(request) => Frame::Request(request.clone()),
            Borrowed::Response(response) => Frame::Response(response.clone()),
            Borrowed::Publish(publish) => Frame::Publish(publish.clone()),
            Borrowed::Other(frame) => frame.clone(),
        }
    }

    /// Appends the head and these bytes behind it: the payload, or none of it.
    fn write(self, behind: &[u8], buffer: &mut BytesMut) {
        if swift::write(self.0, behind, buffer) {
            return;
        }
        let payload_len = self.payload().map_or(0, Payload::len);
        let start = buffer.len();
        buffer.put_u32_le(0);
        write_head(&self.head(), buffer);
        let len = buffer.len() - start - LENGTH_PREFIX_LEN + payload_len;
        // The maker of a frame checks it against the frame limit, which the limits assert to fit.
        let prefix = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        buffer[start..start + LENGTH_PREFIX_LEN].copy_from_slice(&prefix);
        append(buffer, behind);
    }

    fn head(self) -> Head<'a> {
        match self.0 {
            Borrowed::Request(request) => Head::of_request(request),
            Borrowed::Response(response) => Head::of_response(response),
            Borrowed::Publish(publish) => Head::of_publish(publish),
            Borrowed::Other(frame) => Head::of(frame),
        }
    }
}

impl<'a> Head<'a> {
    fn of(frame: &'a Frame) -> Self {
        match frame {
            Frame::Bind(bind) => Head::Bind(Cow::Borrowed(bind)),
            Frame::Bound(bound) => Head::Bound(Cow::Borrowed(bound)),
            Frame::Refused(refused) => Head::Refused(Cow::Borrowed(refused)),
            Frame::Register(register) => Head::Register(Cow::Borrowed(register)),
            Frame::Unregister(unregister) => Head::Unregister(Cow::Borrowed(unregister)),
            Frame::Online(news) => Head::Online(Cow::Borrowed(news)),
            Frame::Offline(news) => Head::Offline(Cow::Borrowed(news)),
            Frame::Describe(describe) => Head::Describe(Cow::Borrowed(describe)),
            Frame::Described(described) => Head::Described(Cow::Borrowed(described)),
            Frame::Request(request) => Self::of_request(request),
            Frame::Response(response) => Self::of_response(response),
            Frame::Cancel(callback_id) => Head::Cancel(*callback_id),
            Frame::Invoke(invoke) => {
                let head = InvokeHead {
                    function: invoke.function,
                    callback_id: invoke.callback_id,
                    time_left_us: invoke.time_left.map(as_micros),
                    payload: PayloadHead::of(&invoke.payload),
                };
                match invoke.wants {
                    Wants::End => Head::InvokeForEnd(head),
                    Wants::Result | Wants::Nothing => Head::Invoke(head),
                }
            }
            Frame::Release(function) => Head::Release(*function),
            Frame::Subscribe(subscribe) => Head::Subscribe(Cow::Borrowed(subscribe)),
            Frame::Unsubscribe(key) => Head::Unsubscribe(Cow::Borrowed(key)),
            Frame::Publish(publish) => Self::of_publish(publish),
            Frame::Broadcast(broadcast) => Head::Broadcast(BroadcastHead {
                topic: &broadcast.topic,
                publisher: &broadcast.publisher,
                payload: PayloadHead::of(&broadcast.payload),
            }),
            Frame::Ping => Head::Ping,
            Frame::Pong => Head::Pong,
            Frame::Drain => Head::Drain,
        }
    }

    fn of_request(request: &'a Request) -> Self {
        Head::Request(RequestHead {
            callback_id: request.callback_id,
            action: &request.action,
            node: &request.node,
            caller: &request.caller,
            time_left_us: request.time_left.map(as_micros),
            payload: PayloadHead::of(&request.payload),
        })
    }

    fn of_publish(publish: &'a Publish) -> Self {
        Head::Publish(PublishHead {
            topic: &publish.topic,
            publisher: &publish.publisher,
            for_all: publish.for_all,
            groups: Cow::Borrowed(&publish.groups),
            payload: PayloadHead::of(&publish.payload),
        })
    }

    fn of_response(response: &'a Response) -> Self {
        Head::Response(ResponseHead {
            callback_id: response.callback_id,
            outcome: match &response.outcome {
                Ok(payload) => OutcomeHead::Reply(PayloadHead::of(payload)),
                Err(error) => OutcomeHead::Error {
                    code: error.code(),
                    fate: error.fate(),
                    name: error.name(),
                    message: error.message(),
                    data: error.data().map(PayloadHead::of),
                },
            },
        })
    }

    fn into_frame_without_payload(self) -> Frame {
        match self {
            Head::Bind(bind) => Frame::Bind(bind.into_owned()),
            Head::Bound(bound) => Frame::Bound(bound.into_owned()),
            Head::Refused(refused) => Frame::Refused(refused.into_owned()),
            Head::Register(register) => Frame::Register(register.into_owned()),
            Head::Unregister(unregister) => Frame::Unregister(unregister.into_owned()),
            Head::Online(news) => Frame::Online(news.into_owned()),
            Head::Offline(news) => Frame::Offline(news.into_owned()),
            Head::Describe(describe) => Frame::Describe(describe.into_owned()),
            Head::Described(described) => Frame::Described(described.into_owned()),
            Head::Cancel(callback_id) => Frame::Cancel(callback_id),
            Head::Release(function) => Frame::Release(function),
            Head::Subscribe(subscribe) => Frame::Subscribe(subscribe.into_owned()),
            Head::Unsubscribe(key) => Frame::Unsubscribe(key.into_owned()),
            Head::Ping => Frame::Ping,
            Head::Pong => Frame::Pong,
            Head::Drain => Frame::Drain,
            Head::Request(_)
            | Head::Response(_)
            | Head::Invoke(_)
            | Head::InvokeForEnd(_)
            | Head::Publish(_)
            | Head::Broadcast(_) => {
                unreachable!("`Frame::decode` has read the heads that a payload follows")
            }
        }
    }
}

impl InvokeHead<'_> {
    fn with(self, wants: Wants, bytes: Bytes) -> Result<Invoke, FrameError> {
        Ok(Invoke {
            function: self.function,
            callback_id: self.callback_id,
            time_left: self.time_left_us.map(Duration::from_micros),
            wants,
            payload: self.payload.with(bytes)?,
        })
    }
}

impl PayloadHead<'_> {
    fn of(payload: &Payload) -> Self {
        let callbacks = if payload.callbacks.is_empty() { Vec::new() } else { payload.callbacks.ids() };
        Self { encoding: payload.encoding, callbacks: Cow::Owned(callbacks) }
    }

    fn with(self, bytes: Bytes) -> Result<Payload, FrameError> {
        if self.callbacks.len() > CALLBACKS_PER_REQUEST_MAX {
            return Err(FrameError::TooManyCallbacks(self.callbacks.len()));
        }
        let callbacks = self.callbacks.iter().copied().collect();
        Ok(Payload { encoding: self.encoding, bytes, callbacks })
    }
}

/// Microseconds, as a deadline travels. A wait longer than 500,000 years is cut to that.
fn as_micros(time_left: Duration) -> u64 {
    time_left.as_secs().saturating_mul(1_000_000).saturating_add(time_left.subsec_micros().into())
}

fn shared_text(bytes: &Bytes, text: &str) -> Result<ByteString, FrameError> {
    if text.is_empty() {
        return Ok(ByteString::new());
    }
    ByteString::try_from(bytes.slice_ref(text.as_bytes()))
        .map_err(|error| FrameError::Malformed(error.to_string()))
}

fn no_rest(bytes: &Bytes, head_len: usize) -> Result<(), FrameError> {
    match bytes.len() - head_len {
        0 => Ok(()),
        rest => Err(FrameError::Malformed(format!("{rest} bytes are left over behind the head"))),
    }
}

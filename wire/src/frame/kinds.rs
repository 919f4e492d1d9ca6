//! The frames of the native dialect, and the meaning of each. The order of the variants of [`Frame`] and of the fields of their structs is the
//! protocol: variants are only ever added at the end, and `tests/golden.rs` freezes the bytes of each. The bytes are the business of
//! `heads.rs` and `swift.rs`.

use crate::accepts::Accepts;
use crate::error::Code;
use crate::headers::Headers;
use crate::id::{CallbackId, SessionId};
use crate::label::{Label, Labels};
use crate::limits::{FRAME_LEN_MAX, HEAD_ELEMENTS_MAX};
use crate::pattern::Pattern;
use crate::payload::{CallError, Grant, Payload, Wants};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// The unit on a link.
#[derive(Clone, PartialEq, Debug)]
pub enum Frame {
    /// Branch to master, the first frame of a link: asks to bind.
    Bind(Bind),
    /// Master to branch: the branch is bound.
    Bound(Bound),
    /// Master to branch: the bind is refused, or has ended. The link closes behind this frame.
    Refused(Refused),
    /// Branch to master: the branch offers more actions. Answered by a response without a value.
    Register(Register),
    /// Branch to master: the branch withdraws actions. Answered by a response without a value.
    Unregister(Unregister),
    /// Master to branch: a node came, or offers more actions.
    Online(NodeNews),
    /// Master to branch: a node went, or offers fewer actions.
    Offline(NodeNews),
    /// Branch to master: asks for the actions of the mesh.
    Describe(Describe),
    /// Master to branch: the answer to a describe.
    Described(Described),
    /// Asks the receiver to run an action.
    Request(Request),
    /// The outcome of a request, a register, an unregister, a subscribe or an invoke.
    Response(Response),
    /// The caller of a request dropped the call: no response is expected any more.
    Cancel(CallbackId),
    /// Calls a function that was passed as an argument.
    Invoke(Invoke),
    /// The last holder of a function that was passed as an argument let it go.
    Release(CallbackId),
    /// Branch to master: subscribes to the topics that match. Answered by a response without a value.
    Subscribe(Subscribe),
    /// Branch to master: ends a subscription. Not answered.
    Unsubscribe(SubscriptionKey),
    /// An event for the subscribers of its topic.
    Publish(Publish),
    /// An event for every node.
    Broadcast(Broadcast),
    /// A heartbeat. Answered by a pong.
    Ping,
    /// The answer to a ping.
    Pong,
    /// The sender finishes the requests in flight and takes no more.
    Drain,
    /// Branch to master: a [`Bind`](Frame::Bind) with what later versions added. A master of before refuses it.
    ExtendedBind(ExtendedBind),
    /// Master to branch: the answer to an extended bind.
    ExtendedBound(ExtendedBound),
    /// The answer to a drain: the sender sends no more requests and events.
    Drained,
    /// Branch to master: gives an event of one group back, which no handler of the branch in this group takes any more. The master gives it to
    /// another member.
    GiveBack(Publish),
    /// Branch to master: asks for the actions of the mesh behind those that an earlier answer had. Answered as a describe.
    DescribeAfter(DescribeAfter),
    /// Branch to master: publishes an event whose value the master keeps as the last of its topic, or takes the last value of a topic away.
    /// Answered by a [`Kept`], or by the error of a response.
    KeepLast(KeepLast),
    /// Master to branch: the answer to a [`KeepLast`] and to an [`AskEra`](Frame::AskEra).
    Kept(Kept),
    /// Branch to master: asks for the era of the master, in which it draws the numbers of last values. Answered by a [`Kept`].
    AskEra(CallbackId),
    /// Branch to master: a [`Subscribe`](Frame::Subscribe) that hears the last values of the topics that match, first.
    SubscribeToLast(SubscribeToLast),
    /// Master to branch: the last value of a topic, for a subscription that has not heard it.
    LastValue(LastValue),
    /// Asks the receiver to run an action that answers with a stream.
    OpenStream(OpenStream),
    /// The request, or the call of a function, of this id is answered with a stream, which begins. Its items follow, and a [`Response`] ends it:
    /// one without a value, or an error.
    Started(CallbackId),
    /// An item of a stream.
    Item(Item),
    /// The consumer of a stream takes more items. Sent after [`Frame::Started`].
    Granted(Granted),
    /// Branch to master, once and before its first offer: the labels and the weight of the branch. Not answered.
    Labels(Labels),
    /// Branch to master: asks for the providers of an action. Answered by a response whose value is a list of sessions and names.
    FindProviders(FindProviders),
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
    /// The actions that the branch answers. Offers above [`ACTIONS_PER_FRAME_MAX`](crate::limits::ACTIONS_PER_FRAME_MAX) follow in
    /// `Register`s.
    pub offers: Vec<Offer>,
    /// The subscriptions of the branch.
    pub subscriptions: Vec<SubscriptionKey>,
}

/// A bind, with what later versions of the protocol added.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ExtendedBind {
    /// The bind as it was before.
    pub bind: Bind,
    /// The features that the branch knows.
    pub features: Features,
    /// A number that the branch draws by chance, once in its life, and tells no one but its master. A bind with the incarnation of the branch that
    /// is bound under the name is of that branch, whose earlier link is lost. Zero: none, as for programs of other protocols.
    pub incarnation: u64,
    /// Whether the bind is to replace another branch that is bound under the name.
    pub replaces: bool,
}

/// A set of features of the protocol, one bit each. A node uses a feature on a link only if both ends know it; a bit that a node does not
/// know is ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Features(pub u64);

impl Features {
    /// A [`Drain`](Frame::Drain) is answered with [`Drained`](Frame::Drained).
    pub const DRAINED: Features = Features(1);
    /// A branch may send [`GiveBack`](Frame::GiveBack).
    pub const GIVE_BACK: Features = Features(2);
    /// A master answers a [`DescribeAfter`](Frame::DescribeAfter).
    pub const DESCRIBE_AFTER: Features = Features(4);
    /// [`Encoding::MessagePack`](crate::Encoding::MessagePack), [`Encoding::Bincode`](crate::Encoding::Bincode), and the variants of [`Accepts`]
    /// that go with them.
    pub const VALUES: Features = Features(8);
    /// A [`Response`] may carry an error with any code of its application, and all that a program of another language threw.
    pub const APPLICATION_CODES: Features = Features(16);
    /// A request says over how many hops it came, if it came over any.
    pub const HOPS: Features = Features(32);
    /// A request, an event and a broadcast may carry [`Headers`].
    pub const HEADERS: Features = Features(64);
    /// A request, or a call of a function, may be answered with a stream: [`OpenStream`](Frame::OpenStream), [`Started`](Frame::Started),
    /// [`Item`](Frame::Item), [`Granted`](Frame::Granted), and an [`Invoke`] that [`Wants::Stream`].
    pub const STREAMS: Features = Features(128);
    /// A master keeps last values ([`KeepLast`](Frame::KeepLast), [`AskEra`](Frame::AskEra)) and tells them to a branch that subscribes
    /// ([`SubscribeToLast`](Frame::SubscribeToLast), [`LastValue`](Frame::LastValue)).
    pub const LAST: Features = Features(256);
    /// A branch may send [`Labels`](Frame::Labels) and [`FindProviders`](Frame::FindProviders), and the master reads [`Headers::KEY`],
    /// [`Headers::LABEL`] and [`Headers::SESSION`].
    pub const LABELS: Features = Features(512);
    /// The features that change the form of frames: what says the same in an older form where the other end does not know them.
    pub const FORMS: Features =
        Features(Self::VALUES.0 | Self::APPLICATION_CODES.0 | Self::HOPS.0 | Self::HEADERS.0);
    /// All features that this version knows.
    pub const ALL: Features = Features(
        Self::DRAINED.0
            | Self::GIVE_BACK.0
            | Self::DESCRIBE_AFTER.0
            | Self::STREAMS.0
            | Self::LAST.0
            | Self::LABELS.0
            | Self::FORMS.0,
    );

    /// Whether all features of `other` are in this set.
    #[must_use]
    pub fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

/// An action that a node answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// The name of the action.
    pub action: ByteString,
    /// What the provider reads.
    pub accepts: Accepts,
    /// The schemas of the arguments and the reply, where they are known.
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

/// The master's consent to a bind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bound {
    /// The session of this link.
    pub session: SessionId,
    /// The name of the master.
    pub master: ByteString,
    /// How often the branch sends a ping, in milliseconds.
    pub heartbeat_ms: u64,
    /// The longest frame that the master reads, in bytes without the length prefix.
    pub frame_len_max: u64,
    /// How many requests the branch may have in flight.
    pub in_flight_max: u64,
}

/// The master's consent to an extended bind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExtendedBound {
    /// The consent as it was before.
    pub bound: Bound,
    /// The features that the master knows.
    pub features: Features,
    /// The topics that the branch may publish and broadcast to; none: all topics.
    pub publish: Option<Vec<Pattern>>,
}

/// The master refuses a bind, or ends it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// The reason, as a number.
    pub code: Code,
    /// The reason, as a sentence.
    pub message: ByteString,
    /// Whether the branch may bind again: a name that another branch took over is lost for good.
    pub may_return: bool,
}

/// More actions of a bound branch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Register {
    /// Where the response goes.
    pub callback_id: CallbackId,
    /// The actions that the branch offers besides those of before.
    pub offers: Vec<Offer>,
}

/// Fewer actions of a bound branch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unregister {
    /// Where the response goes.
    pub callback_id: CallbackId,
    /// The actions that the branch offers no longer.
    pub actions: Vec<ByteString>,
}

/// A node that came or went, with its actions. Other nodes keep their action caches by this news.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeNews {
    /// The name of the node.
    pub node: ByteString,
    /// The session of the node: several nodes may share one name.
    pub session: SessionId,
    /// Whether the node itself came or went, and not only some of its actions.
    pub whole: bool,
    /// The actions that came or went, with what the node reads for each. When the node itself goes, all its actions go, listed or not.
    pub actions: Vec<(ByteString, Accepts)>,
}

/// A question for the actions of the mesh.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Describe {
    /// Where the answer goes.
    pub callback_id: CallbackId,
    /// Which actions: their names are matched as topics are.
    pub pattern: Pattern,
}

/// A question for the actions of the mesh behind a name: the actions of a large mesh do not fit into one answer. A part without an action
/// is the last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DescribeAfter {
    /// Where the answer goes.
    pub callback_id: CallbackId,
    /// Which actions: their names are matched as topics are.
    pub pattern: Pattern,
    /// Only actions whose names sort after this name, byte by byte.
    pub after: ByteString,
}

/// A question for the providers of an action that take requests: the sessions of branches, and the master, if it answers the action itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FindProviders {
    /// Where the answer goes.
    pub callback_id: CallbackId,
    /// The action.
    pub action: ByteString,
    /// The labels that the providers must have.
    pub labels: Vec<Label>,
}

/// The answer to a [`Describe`] or a [`DescribeAfter`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Described {
    /// The describe that this answers.
    pub callback_id: CallbackId,
    /// The actions, sorted by name: at most [`DESCRIBED_MAX`](crate::limits::DESCRIBED_MAX), and as many as fit into a frame.
    pub actions: Vec<ActionDescription>,
}

/// An action of the mesh, as seen from outside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActionDescription {
    /// The name of the action.
    pub action: ByteString,
    /// The nodes that offer the action.
    pub nodes: Vec<ByteString>,
    /// The schemas of the arguments and the reply, where they are known.
    pub shape: Option<Shape>,
}

const _: () = assert!(
    HEAD_ELEMENTS_MAX * size_of::<ActionDescription>() <= FRAME_LEN_MAX,
    "the lists of a head must not take more than a frame, even those of the largest elements",
);
const _: () = assert!(size_of::<Offer>() <= size_of::<ActionDescription>());
const _: () = assert!(size_of::<Label>() <= size_of::<ActionDescription>());

/// A request to run an action.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Request {
    /// Where the response goes.
    pub callback_id: CallbackId,
    /// The action to run.
    pub action: ByteString,
    /// The node that is to run the action; empty for any provider.
    pub node: ByteString,
    /// The calling node. A branch leaves this empty, and the master writes the name that the branch is bound under.
    pub caller: ByteString,
    /// How long the caller still waits, less at each hop; none: for ever.
    pub time_left: Option<Duration>,
    /// How often the request was relayed from one mesh to another: at most [`HOPS_MAX`](crate::limits::HOPS_MAX). It travels only over links
    /// whose two ends know [`Features::HOPS`].
    pub hops: u8,
    /// What travels beside the arguments. Like the hops, over links whose two ends know [`Features::HEADERS`].
    pub headers: Headers,
    /// The arguments.
    pub payload: Payload,
}

/// The outcome of a request: its reply, or why there is none.
pub type Outcome = Result<Payload, CallError>;

/// The outcome of a request.
#[derive(Clone, PartialEq, Debug)]
pub struct Response {
    /// The request that this answers.
    pub callback_id: CallbackId,
    /// The reply, or why there is none.
    pub outcome: Result<Payload, CallError>,
}

/// A call of a function that was passed as an argument.
#[derive(Clone, PartialEq, Debug)]
pub struct Invoke {
    /// The function, by the id that its lender drew.
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

/// A request whose answer is a stream.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenStream {
    /// How much of the stream may come at first.
    pub grant: Grant,
    /// The request. Its `time_left` is the time until the stream begins.
    pub request: Request,
}

/// An item of a stream.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// The request, or the call of a function, that the stream answers.
    pub callback_id: CallbackId,
    /// The value.
    pub payload: Payload,
}

/// The consumer of a stream takes more items.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    /// The request, or the call of a function, that the stream answers.
    pub callback_id: CallbackId,
    /// How much more may come.
    pub grant: Grant,
}

/// A new subscription.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subscribe {
    /// Where the response goes.
    pub callback_id: CallbackId,
    /// The key of the subscription.
    pub key: SubscriptionKey,
}

/// The pattern and the group of a subscription. A node gets each event once for a key, however many of its handlers share the key.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SubscriptionKey {
    /// The topics.
    pub pattern: Pattern,
    /// The group whose members share the events, each event going to one of them.
    pub group: Option<ByteString>,
}

/// An event for the subscribers of its topic.
#[derive(Clone, PartialEq, Debug)]
pub struct Publish {
    /// The topic of the event.
    pub topic: ByteString,
    /// The publishing node. A branch leaves this empty, and the master writes the name that the branch is bound under.
    pub publisher: ByteString,
    /// Whether the event is for the subscribers that are in no group.
    pub for_all: bool,
    /// The groups that get the event.
    pub groups: Vec<ByteString>,
    /// What travels beside the value, over links whose two ends know [`Features::HEADERS`].
    pub headers: Headers,
    /// The value of the event.
    pub payload: Payload,
}

/// An event whose value becomes the last of its topic.
#[derive(Clone, PartialEq, Debug)]
pub struct KeepLast {
    /// Where the answer goes.
    pub callback_id: CallbackId,
    /// The number under which an earlier master kept the value, which is said again to a master that has been started since; none for a value
    /// that is published now.
    pub number: Option<u64>,
    /// Whether the topic is to have no last value any more. The event says the topic then, and nobody gets it.
    pub forgets: bool,
    /// The event.
    pub event: Publish,
}

/// The master keeps a last value, or has forgotten it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// The question that this answers.
    pub callback_id: CallbackId,
    /// The number of the value: it rises with each value that a master keeps, and from one start of a master to the next. To an
    /// [`AskEra`](Frame::AskEra), the number with which this master began.
    pub number: u64,
}

/// A new subscription of a handler that hears the last values first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubscribeToLast {
    /// The subscription.
    pub subscribe: Subscribe,
    /// The number of the handler at its node, which comes back in [`LastValue::handler`].
    pub handler: u64,
}

/// The last value of a topic, as it was published before the subscription.
#[derive(Clone, PartialEq, Debug)]
pub struct LastValue {
    /// The handler that hears it; none: every handler of the topic that is in no group, since the branch has bound again.
    pub handler: Option<u64>,
    /// The event.
    pub event: Publish,
}

/// An event for every node.
#[derive(Clone, PartialEq, Debug)]
pub struct Broadcast {
    /// The topic of the event.
    pub topic: ByteString,
    /// The publishing node. A branch leaves this empty, and the master writes the name that the branch is bound under.
    pub publisher: ByteString,
    /// What travels beside the value, over links whose two ends know [`Features::HEADERS`].
    pub headers: Headers,
    /// The value of the event.
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

impl fmt::Debug for ExtendedBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With the incarnation, which is left out, another branch could take the name over.
        f.debug_struct("ExtendedBind")
            .field("bind", &self.bind)
            .field("features", &self.features)
            .field("replaces", &self.replaces)
            .finish_non_exhaustive()
    }
}

impl Shape {
    /// How many bytes the two schemas have.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arguments.len() + self.reply.len()
    }

    /// Whether both schemas are empty texts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame {
    /// The bytes that follow the head, for the frames that carry a user's value.
    #[must_use]
    pub fn payload(&self) -> Option<&Payload> {
        FrameRef::from(self).payload()
    }

    /// The error of a response, to be changed.
    pub(crate) fn error_mut(&mut self) -> Option<&mut CallError> {
        match self {
            Frame::Response(Response { outcome: Err(error), .. }) => Some(error),
            _ => None,
        }
    }

    /// The headers, to be changed, of the frames that may have some.
    pub(crate) fn headers_mut(&mut self) -> Option<&mut Headers> {
        match self {
            Frame::Request(Request { headers, .. })
            | Frame::Publish(Publish { headers, .. })
            | Frame::Broadcast(Broadcast { headers, .. })
            | Frame::GiveBack(Publish { headers, .. })
            | Frame::KeepLast(KeepLast { event: Publish { headers, .. }, .. })
            | Frame::LastValue(LastValue { event: Publish { headers, .. }, .. })
            | Frame::OpenStream(OpenStream { request: Request { headers, .. }, .. }) => Some(headers),
            _ => None,
        }
    }

    /// The payload, to be changed; none for an error.
    pub fn payload_mut(&mut self) -> Option<&mut Payload> {
        match self {
            Frame::Request(Request { payload, .. })
            | Frame::Response(Response { outcome: Ok(payload), .. })
            | Frame::Invoke(Invoke { payload, .. })
            | Frame::Publish(Publish { payload, .. })
            | Frame::Broadcast(Broadcast { payload, .. })
            | Frame::GiveBack(Publish { payload, .. })
            | Frame::KeepLast(KeepLast { event: Publish { payload, .. }, .. })
            | Frame::LastValue(LastValue { event: Publish { payload, .. }, .. })
            | Frame::OpenStream(OpenStream { request: Request { payload, .. }, .. })
            | Frame::Item(Item { payload, .. }) => Some(payload),
            _ => None,
        }
    }
}

/// A frame to be written, borrowed: a request, a response or an event is written without making a [`Frame`] of it.
#[derive(Clone, Copy, Debug)]
pub struct FrameRef<'a>(pub(super) Borrowed<'a>);

#[derive(Clone, Copy, Debug)]
pub(super) enum Borrowed<'a> {
    Request(&'a Request),
    Response(&'a Response),
    Publish(&'a Publish),
    Item(&'a Item),
    OpenStream(&'a OpenStream),
    Other(&'a Frame),
}

impl<'a> From<&'a Frame> for FrameRef<'a> {
    fn from(frame: &'a Frame) -> Self {
        match frame {
            Frame::Request(request) => request.into(),
            Frame::Response(response) => response.into(),
            Frame::Publish(publish) => publish.into(),
            Frame::Item(item) => item.into(),
            Frame::OpenStream(open) => open.into(),
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

impl<'a> From<&'a Item> for FrameRef<'a> {
    fn from(item: &'a Item) -> Self {
        Self(Borrowed::Item(item))
    }
}

impl<'a> From<&'a OpenStream> for FrameRef<'a> {
    fn from(open: &'a OpenStream) -> Self {
        Self(Borrowed::OpenStream(open))
    }
}

impl<'a> FrameRef<'a> {
    /// The bytes that follow the head, for the frames that carry a user's value.
    #[must_use]
    pub fn payload(self) -> Option<&'a Payload> {
        match self.0 {
            Borrowed::Request(Request { payload, .. })
            | Borrowed::Response(Response { outcome: Ok(payload), .. })
            | Borrowed::Publish(Publish { payload, .. })
            | Borrowed::Item(Item { payload, .. })
            | Borrowed::OpenStream(OpenStream { request: Request { payload, .. }, .. })
            | Borrowed::Other(
                Frame::Invoke(Invoke { payload, .. })
                | Frame::Broadcast(Broadcast { payload, .. })
                | Frame::GiveBack(Publish { payload, .. })
                | Frame::KeepLast(KeepLast { event: Publish { payload, .. }, .. })
                | Frame::LastValue(LastValue { event: Publish { payload, .. }, .. }),
            ) => Some(payload),
            Borrowed::Response(Response { outcome: Err(error), .. }) => error.held(),
            Borrowed::Other(_) => None,
        }
    }

    /// The request that this frame answers, if it is a response.
    #[must_use]
    pub fn callback_id_of_response(self) -> Option<CallbackId> {
        match self.0 {
            Borrowed::Response(response) => Some(response.callback_id),
            Borrowed::Request(_)
            | Borrowed::Publish(_)
            | Borrowed::Item(_)
            | Borrowed::OpenStream(_)
            | Borrowed::Other(_) => None,
        }
    }

    /// The frame in the form that an end without [`Features::APPLICATION_CODES`] reads; none if it reads this one.
    #[must_use]
    #[inline]
    pub fn without_application_codes(self) -> Option<Frame> {
        let Borrowed::Response(Response { callback_id, outcome: Err(error) }) = self.0 else { return None };
        let outcome = Err(error.for_earlier_version()?);
        Some(Frame::Response(Response { callback_id: *callback_id, outcome }))
    }

    /// The frame itself. Copies names and shares the payload.
    #[must_use]
    pub fn to_frame(self) -> Frame {
        match self.0 {
            Borrowed::Request(request) => Frame::Request(request.clone()),
            Borrowed::Response(response) => Frame::Response(response.clone()),
            Borrowed::Publish(publish) => Frame::Publish(publish.clone()),
            Borrowed::Item(item) => Frame::Item(item.clone()),
            Borrowed::OpenStream(open) => Frame::OpenStream(open.clone()),
            Borrowed::Other(frame) => frame.clone(),
        }
    }
}

/// Microseconds, as a deadline travels. A wait longer than 500,000 years is cut to that.
pub(super) fn as_micros(time_left: Duration) -> u64 {
    time_left.as_secs().saturating_mul(1_000_000).saturating_add(time_left.subsec_micros().into())
}

//! The heads of all frames as bincode has them, through serde: the order of variants and fields is the protocol. Frames are written
//! and read here; usual requests, replies and events through `swift.rs`.

use super::error::FrameError;
use super::kinds::{
    Bind, Borrowed, Bound, Broadcast, Describe, DescribeAfter, Described, ExtendedBind, ExtendedBound,
    FindProviders, Frame, FrameRef, Granted, Invoke, Item, KeepLast, Kept, LastValue, NodeNews, OpenStream,
    Publish, Refused, Register, Request, Response, Subscribe, SubscribeToLast, SubscriptionKey, Unregister,
    as_micros,
};
use super::swift::{self, RequestRun};
use crate::copy::append;
use crate::encoding::Encoding;
use crate::error::{ApplicationCode, Code, Fate};
use crate::headers::Headers;
use crate::id::CallbackId;
use crate::label::Labels;
use crate::limits::{CALLBACKS_PER_REQUEST_MAX, LENGTH_PREFIX_LEN};
use crate::payload::{CallError, Grant, Payload, Wants};
use crate::value::{read_bounded, read_head, write_head};
use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, ops::Range, time::Duration};

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
    /// An invoke whose caller waits only for the end of the function.
    InvokeForEnd(InvokeHead<'a>),
    #[serde(deserialize_with = "read_bounded")]
    ExtendedBind(Cow<'a, ExtendedBind>),
    #[serde(deserialize_with = "read_bounded")]
    ExtendedBound(Cow<'a, ExtendedBound>),
    Drained,
    #[serde(borrow)]
    GiveBack(PublishHead<'a>),
    #[serde(deserialize_with = "read_bounded")]
    DescribeAfter(Cow<'a, DescribeAfter>),
    /// A request that was relayed from one mesh to another, with how often it was.
    #[serde(borrow)]
    RequestWithHops(RequestWithHopsHead<'a>),
    /// A request with headers.
    #[serde(borrow)]
    RequestWithHeaders(RequestWithHeadersHead<'a>),
    /// An event with headers.
    #[serde(borrow)]
    PublishWithHeaders(WithHeaders<'a, PublishHead<'a>>),
    /// A broadcast with headers.
    #[serde(borrow)]
    BroadcastWithHeaders(WithHeaders<'a, BroadcastHead<'a>>),
    /// An event with headers that comes back.
    #[serde(borrow)]
    GiveBackWithHeaders(WithHeaders<'a, PublishHead<'a>>),
    #[serde(borrow)]
    KeepLast(KeepLastHead<'a>),
    Kept(Kept),
    AskEra(CallbackId),
    #[serde(deserialize_with = "read_bounded")]
    SubscribeToLast(Cow<'a, SubscribeToLast>),
    #[serde(borrow)]
    LastValue(LastValueHead<'a>),
    /// A request for a stream.
    #[serde(borrow)]
    OpenStream(OpenStreamHead<'a>),
    Started(CallbackId),
    #[serde(borrow)]
    Item(ItemHead<'a>),
    Granted(CallbackId, Grant),
    /// An invoke whose caller wants a stream.
    InvokeForStream(InvokeHead<'a>, Grant),
    #[serde(deserialize_with = "read_bounded")]
    Labels(Cow<'a, Labels>),
    #[serde(deserialize_with = "read_bounded")]
    FindProviders(Cow<'a, FindProviders>),
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
struct RequestWithHopsHead<'a> {
    #[serde(borrow)]
    request: RequestHead<'a>,
    hops: u8,
}

#[derive(Serialize, Deserialize)]
struct RequestWithHeadersHead<'a> {
    #[serde(borrow)]
    request: RequestHead<'a>,
    hops: u8,
    headers: &'a str,
}

/// A head, and [`Headers`] as a list.
#[derive(Serialize, Deserialize)]
struct WithHeaders<'a, H> {
    head: H,
    headers: &'a str,
}

#[derive(Serialize, Deserialize)]
struct OpenStreamHead<'a> {
    grant: Grant,
    /// Without hops or headers too.
    #[serde(borrow)]
    request: RequestWithHeadersHead<'a>,
}

#[derive(Serialize, Deserialize)]
struct ItemHead<'a> {
    callback_id: CallbackId,
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
    Error {
        code: Code,
        fate: Fate,
        name: &'a str,
        message: &'a str,
        data: Option<PayloadHead<'a>>,
    },
    /// An error that `Error` has no form for: it goes only over links whose two ends know
    /// [`Features::APPLICATION_CODES`](super::kinds::Features::APPLICATION_CODES).
    ApplicationError {
        code: Code,
        application_code: Option<CodeHead<'a>>,
        fate: Fate,
        name: &'a str,
        message: &'a str,
        /// Whether the payload is all that a program threw, and not the data alone.
        is_thrown: bool,
        payload: Option<PayloadHead<'a>>,
    },
}

/// An [`ApplicationCode`].
#[derive(Serialize, Deserialize)]
enum CodeHead<'a> {
    Integer(i128),
    Float(f64),
    Text(&'a str),
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
struct KeepLastHead<'a> {
    callback_id: CallbackId,
    number: Option<u64>,
    forgets: bool,
    #[serde(borrow)]
    event: PublishHead<'a>,
    /// [`Headers`] as a list; empty if there are none.
    headers: &'a str,
}

#[derive(Serialize, Deserialize)]
struct LastValueHead<'a> {
    handler: Option<u64>,
    #[serde(borrow)]
    event: PublishHead<'a>,
    /// [`Headers`] as a list; empty if there are none.
    headers: &'a str,
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

    /// Reads any frame through serde, at `part` of a block, which must lie within the block.
    pub(crate) fn decode_unusual(block: &Bytes, part: Range<usize>) -> Result<Frame, FrameError> {
        let bytes = &block.slice(part);
        let (head, head_len) = read_head::<Head<'_>>(bytes).map_err(FrameError::Malformed)?;
        let rest = || bytes.slice(head_len..);
        let frame = match head {
            Head::Request(head) => Frame::Request(head.with(bytes, 0, Headers::none(), rest())?),
            // A request with this head has at least one hop, so that it has one form only.
            Head::RequestWithHops(RequestWithHopsHead { request, hops }) => {
                Frame::Request(request.with(bytes, hops.max(1), Headers::none(), rest())?)
            }
            Head::RequestWithHeaders(RequestWithHeadersHead { request, hops, headers }) => {
                Frame::Request(request.with(bytes, hops, read_headers(headers)?, rest())?)
            }
            Head::Response(ResponseHead { callback_id, outcome }) => {
                let outcome = match outcome {
                    OutcomeHead::Reply(payload) => Ok(payload.with(rest())?),
                    OutcomeHead::Error { code, fate, name, message, data } => {
                        let mut error = CallError::of_texts(code, fate, name, message);
                        error.hold(behind_error(data, bytes, head_len)?, false);
                        Err(error)
                    }
                    OutcomeHead::ApplicationError {
                        code,
                        application_code,
                        fate,
                        name,
                        message,
                        is_thrown,
                        payload,
                    } => {
                        let mut error = CallError::of_texts(code, fate, name, message);
                        if let Some(code) = application_code {
                            error.set_application_code(Some(code.into()));
                        }
                        let held = behind_error(payload, bytes, head_len)?;
                        let is_thrown = is_thrown && held.is_some();
                        error.hold(held, is_thrown);
                        Err(error)
                    }
                };
                Frame::Response(Response { callback_id, outcome })
            }
            Head::Invoke(head) => {
                let wants = if head.callback_id.is_some() { Wants::Result } else { Wants::Nothing };
                Frame::Invoke(head.with(wants, rest())?)
            }
            Head::InvokeForEnd(head) => Frame::Invoke(head.with(Wants::End, rest())?),
            Head::InvokeForStream(InvokeHead { callback_id: None, .. }, _) => {
                let why = "a stream is asked for without an id that its items would have";
                return Err(FrameError::Malformed(why.to_owned()));
            }
            Head::InvokeForStream(head, grant) => Frame::Invoke(head.with(Wants::Stream(grant), rest())?),
            Head::OpenStream(OpenStreamHead { grant, request }) => {
                let RequestWithHeadersHead { request, hops, headers } = request;
                let request = request.with(bytes, hops, read_headers_if_any(headers)?, rest())?;
                Frame::OpenStream(OpenStream { grant, request })
            }
            Head::Item(ItemHead { callback_id, payload }) => {
                Frame::Item(Item { callback_id, payload: payload.with(rest())? })
            }
            Head::Publish(head) => Frame::Publish(head.with(bytes, Headers::none(), rest())?),
            Head::PublishWithHeaders(WithHeaders { head, headers }) => {
                Frame::Publish(head.with(bytes, read_headers(headers)?, rest())?)
            }
            Head::GiveBack(head) => Frame::GiveBack(head.with(bytes, Headers::none(), rest())?),
            Head::GiveBackWithHeaders(WithHeaders { head, headers }) => {
                Frame::GiveBack(head.with(bytes, read_headers(headers)?, rest())?)
            }
            Head::Broadcast(head) => Frame::Broadcast(head.with(bytes, Headers::none(), rest())?),
            Head::BroadcastWithHeaders(WithHeaders { head, headers }) => {
                Frame::Broadcast(head.with(bytes, read_headers(headers)?, rest())?)
            }
            Head::KeepLast(KeepLastHead { callback_id, number, forgets, event, headers }) => {
                let event = event.with(bytes, read_headers_if_any(headers)?, rest())?;
                Frame::KeepLast(KeepLast { callback_id, number, forgets, event })
            }
            Head::LastValue(LastValueHead { handler, event, headers }) => {
                let event = event.with(bytes, read_headers_if_any(headers)?, rest())?;
                Frame::LastValue(LastValue { handler, event })
            }
            head => {
                no_rest(bytes, head_len)?;
                head.into_frame_without_payload()
            }
        };
        Ok(frame)
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

    /// Appends the head, and `behind` after it: the whole payload or nothing.
    fn write(self, behind: &[u8], buffer: &mut BytesMut) {
        if !swift::write(self.0, behind, buffer) {
            self.write_unusual(behind, buffer);
        }
    }

    /// As `write`, for any frame, through serde.
    pub(super) fn write_unusual(self, behind: &[u8], buffer: &mut BytesMut) {
        let payload_len = self.payload().map_or(0, Payload::len);
        let start = buffer.len();
        buffer.put_u32_le(0);
        write_head(&self.head(), buffer);
        let len = buffer.len() - start - LENGTH_PREFIX_LEN + payload_len;
        // The sender has checked the frame against the frame limit, which fits into a prefix: `limits.rs` asserts so.
        let prefix = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        buffer[start..start + LENGTH_PREFIX_LEN].copy_from_slice(&prefix);
        append(buffer, behind);
    }

    fn head(self) -> Head<'a> {
        match self.0 {
            Borrowed::Request(request) => Head::of_request(request),
            Borrowed::Response(response) => Head::of_response(response),
            Borrowed::Publish(publish) => Head::of_publish(publish),
            Borrowed::Item(item) => Head::of_item(item),
            Borrowed::OpenStream(open) => Head::of_open_stream(open),
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
                    Wants::Stream(grant) => Head::InvokeForStream(head, grant),
                    Wants::Result | Wants::Nothing => Head::Invoke(head),
                }
            }
            Frame::Release(function) => Head::Release(*function),
            Frame::Subscribe(subscribe) => Head::Subscribe(Cow::Borrowed(subscribe)),
            Frame::Unsubscribe(key) => Head::Unsubscribe(Cow::Borrowed(key)),
            Frame::Publish(publish) => Self::of_publish(publish),
            Frame::Broadcast(broadcast) => {
                let head = BroadcastHead {
                    topic: &broadcast.topic,
                    publisher: &broadcast.publisher,
                    payload: PayloadHead::of(&broadcast.payload),
                };
                with_headers(head, &broadcast.headers, Head::Broadcast, Head::BroadcastWithHeaders)
            }
            Frame::Ping => Head::Ping,
            Frame::Pong => Head::Pong,
            Frame::Drain => Head::Drain,
            Frame::ExtendedBind(bind) => Head::ExtendedBind(Cow::Borrowed(bind)),
            Frame::ExtendedBound(bound) => Head::ExtendedBound(Cow::Borrowed(bound)),
            Frame::Drained => Head::Drained,
            Frame::GiveBack(publish) => {
                let head = PublishHead::of(publish);
                with_headers(head, &publish.headers, Head::GiveBack, Head::GiveBackWithHeaders)
            }
            Frame::DescribeAfter(describe) => Head::DescribeAfter(Cow::Borrowed(describe)),
            Frame::KeepLast(KeepLast { callback_id, number, forgets, event }) => {
                let (callback_id, number, forgets) = (*callback_id, *number, *forgets);
                let (event, headers) = (PublishHead::of(event), event.headers.text());
                Head::KeepLast(KeepLastHead { callback_id, number, forgets, event, headers })
            }
            Frame::Kept(kept) => Head::Kept(*kept),
            Frame::AskEra(callback_id) => Head::AskEra(*callback_id),
            Frame::SubscribeToLast(subscribe) => Head::SubscribeToLast(Cow::Borrowed(subscribe)),
            Frame::LastValue(LastValue { handler, event }) => {
                let (event, headers) = (PublishHead::of(event), event.headers.text());
                Head::LastValue(LastValueHead { handler: *handler, event, headers })
            }
            Frame::OpenStream(open) => Self::of_open_stream(open),
            Frame::Started(callback_id) => Head::Started(*callback_id),
            Frame::Item(item) => Self::of_item(item),
            Frame::Granted(Granted { callback_id, grant }) => Head::Granted(*callback_id, *grant),
            Frame::Labels(labels) => Head::Labels(Cow::Borrowed(labels)),
            Frame::FindProviders(find) => Head::FindProviders(Cow::Borrowed(find)),
        }
    }

    fn of_open_stream(OpenStream { grant, request }: &'a OpenStream) -> Self {
        let (head, hops, headers) = (RequestHead::of(request), request.hops, request.headers.text());
        let request = RequestWithHeadersHead { request: head, hops, headers };
        Head::OpenStream(OpenStreamHead { grant: *grant, request })
    }

    fn of_item(Item { callback_id, payload }: &'a Item) -> Self {
        Head::Item(ItemHead { callback_id: *callback_id, payload: PayloadHead::of(payload) })
    }

    fn of_request(request: &'a Request) -> Self {
        let head = RequestHead::of(request);
        match (request.hops, &request.headers) {
            (0, headers) if headers.is_empty() => Head::Request(head),
            (hops, headers) if headers.is_empty() => {
                Head::RequestWithHops(RequestWithHopsHead { request: head, hops })
            }
            (hops, headers) => {
                let headers = headers.text();
                Head::RequestWithHeaders(RequestWithHeadersHead { request: head, hops, headers })
            }
        }
    }

    fn of_publish(publish: &'a Publish) -> Self {
        with_headers(PublishHead::of(publish), &publish.headers, Head::Publish, Head::PublishWithHeaders)
    }

    fn of_response(response: &'a Response) -> Self {
        Head::Response(ResponseHead {
            callback_id: response.callback_id,
            outcome: match &response.outcome {
                Ok(payload) => OutcomeHead::Reply(PayloadHead::of(payload)),
                Err(error) => OutcomeHead::of_error(error),
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
            Head::ExtendedBind(bind) => Frame::ExtendedBind(bind.into_owned()),
            Head::ExtendedBound(bound) => Frame::ExtendedBound(bound.into_owned()),
            Head::Drained => Frame::Drained,
            Head::DescribeAfter(describe) => Frame::DescribeAfter(describe.into_owned()),
            Head::Kept(kept) => Frame::Kept(kept),
            Head::AskEra(callback_id) => Frame::AskEra(callback_id),
            Head::SubscribeToLast(subscribe) => Frame::SubscribeToLast(subscribe.into_owned()),
            Head::Started(callback_id) => Frame::Started(callback_id),
            Head::Granted(callback_id, grant) => Frame::Granted(Granted { callback_id, grant }),
            Head::Labels(labels) => Frame::Labels(labels.into_owned()),
            Head::FindProviders(find) => Frame::FindProviders(find.into_owned()),
            Head::KeepLast(_)
            | Head::LastValue(_)
            | Head::OpenStream(_)
            | Head::Item(_)
            | Head::InvokeForStream(..)
            | Head::Request(_)
            | Head::RequestWithHops(_)
            | Head::RequestWithHeaders(_)
            | Head::Response(_)
            | Head::Invoke(_)
            | Head::InvokeForEnd(_)
            | Head::Publish(_)
            | Head::PublishWithHeaders(_)
            | Head::Broadcast(_)
            | Head::BroadcastWithHeaders(_)
            | Head::GiveBack(_)
            | Head::GiveBackWithHeaders(_) => {
                unreachable!("`Frame::decode` has read the heads that a payload follows")
            }
        }
    }
}

impl<'a> OutcomeHead<'a> {
    fn of_error(error: &'a CallError) -> Self {
        let (fate, name, message) = (error.fate(), error.name(), error.message());
        let payload = error.held().map(PayloadHead::of);
        match error.earlier_code() {
            Some(code) => Self::Error { code, fate, name, message, data: payload },
            None => Self::ApplicationError {
                code: error.code(),
                application_code: error.application_code().map(CodeHead::of),
                fate,
                name,
                message,
                is_thrown: error.is_thrown(),
                payload,
            },
        }
    }
}

impl<'a> CodeHead<'a> {
    fn of(code: &'a ApplicationCode) -> Self {
        match code {
            ApplicationCode::Integer(number) => Self::Integer(*number),
            ApplicationCode::Float(number) => Self::Float(*number),
            ApplicationCode::Text(text) => Self::Text(text),
        }
    }
}

impl From<CodeHead<'_>> for ApplicationCode {
    fn from(head: CodeHead<'_>) -> Self {
        match head {
            CodeHead::Integer(number) => Self::Integer(number),
            CodeHead::Float(number) => Self::Float(number),
            CodeHead::Text(text) => Self::Text(text.into()),
        }
    }
}

impl<'a> RequestHead<'a> {
    fn of(request: &'a Request) -> Self {
        Self {
            callback_id: request.callback_id,
            action: &request.action,
            node: &request.node,
            caller: &request.caller,
            time_left_us: request.time_left.map(as_micros),
            payload: PayloadHead::of(&request.payload),
        }
    }
}

impl RequestHead<'_> {
    /// The request of this head in the bytes of its frame, with the rest of them as its arguments.
    fn with(self, bytes: &Bytes, hops: u8, headers: Headers, rest: Bytes) -> Result<Request, FrameError> {
        Ok(Request {
            callback_id: self.callback_id,
            action: shared_text(bytes, self.action)?,
            node: shared_text(bytes, self.node)?,
            caller: shared_text(bytes, self.caller)?,
            time_left: self.time_left_us.map(Duration::from_micros),
            hops,
            headers,
            payload: self.payload.with(rest)?,
        })
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

impl<'a> PublishHead<'a> {
    fn of(publish: &'a Publish) -> Self {
        Self {
            topic: &publish.topic,
            publisher: &publish.publisher,
            for_all: publish.for_all,
            groups: Cow::Borrowed(&publish.groups),
            payload: PayloadHead::of(&publish.payload),
        }
    }

    /// The event of this head in the bytes of its frame, with the rest of them as its value.
    fn with(self, bytes: &Bytes, headers: Headers, rest: Bytes) -> Result<Publish, FrameError> {
        Ok(Publish {
            topic: shared_text(bytes, self.topic)?,
            publisher: shared_text(bytes, self.publisher)?,
            for_all: self.for_all,
            groups: self.groups.into_owned(),
            headers,
            payload: self.payload.with(rest)?,
        })
    }
}

impl BroadcastHead<'_> {
    /// The event of this head in the bytes of its frame, with the rest of them as its value.
    fn with(self, bytes: &Bytes, headers: Headers, rest: Bytes) -> Result<Broadcast, FrameError> {
        Ok(Broadcast {
            topic: shared_text(bytes, self.topic)?,
            publisher: shared_text(bytes, self.publisher)?,
            headers,
            payload: self.payload.with(rest)?,
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

/// The head of a frame that may have headers, in one of its two forms.
fn with_headers<'a, H>(
    head: H,
    headers: &'a Headers,
    plain: fn(H) -> Head<'a>,
    with: fn(WithHeaders<'a, H>) -> Head<'a>,
) -> Head<'a> {
    if headers.is_empty() { plain(head) } else { with(WithHeaders { head, headers: headers.text() }) }
}

/// The headers of a head that has a list in any case, which may be empty.
fn read_headers_if_any(text: &str) -> Result<Headers, FrameError> {
    if text.is_empty() { Ok(Headers::none()) } else { read_headers(text) }
}

fn read_headers(text: &str) -> Result<Headers, FrameError> {
    Headers::read(text).map_err(|error| FrameError::Malformed(error.to_string()))
}

fn shared_text(bytes: &Bytes, text: &str) -> Result<ByteString, FrameError> {
    if text.is_empty() {
        return Ok(ByteString::new());
    }
    ByteString::try_from(bytes.slice_ref(text.as_bytes()))
        .map_err(|error| FrameError::Malformed(error.to_string()))
}

/// The payload that the head of an error claims, behind it.
fn behind_error(
    head: Option<PayloadHead<'_>>,
    bytes: &Bytes,
    head_len: usize,
) -> Result<Option<Payload>, FrameError> {
    match head {
        Some(head) => head.with(bytes.slice(head_len..)).map(Some),
        None => no_rest(bytes, head_len).map(|()| None),
    }
}

fn no_rest(bytes: &Bytes, head_len: usize) -> Result<(), FrameError> {
    match bytes.len() - head_len {
        0 => Ok(()),
        rest => Err(FrameError::Malformed(format!("{rest} bytes are left over behind the head"))),
    }
}

//! Streams as replies: a responder answers with a [`Streaming`], and a caller reads one. [`Feed`](crate::Feed) is a stream that goes the other way.

use crate::action_error::ActionError;
use crate::choosing::{add_label, set_key};
use crate::handle::Node;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt};
use meshwork_actors::answers::Outlet;
use meshwork_actors::node::{Call as ActorCall, Node as ActorNode, Reading, Wanted, WhenDown};
use meshwork_wire::limits::{ARGUMENTS_KEPT_LEN_MAX, STREAM_WINDOW_LEN_MAX};
use meshwork_wire::{
    ByteString, CallError, Code, Encoding, Fate, Form, Headers, Outcome, Payload, PayloadRef,
};
use serde::Serialize;
use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::Sleep;

/// A stream that an action answers with. A responder makes one of any [`Stream`]; its caller reads the items as they come, in order.
///
/// Nothing comes faster than it is read: the producer waits when the window of the caller is full, which is small at first and grows while the
/// stream flows, to 4 MiB unless [`Opening::window`] says otherwise. Nodes on the way hold nothing. Dropping the `Streaming` drops the stream
/// of the responder; a responder whose stream is dropped in any other way ends it for its caller too.
///
/// A stream ends once: with `None` behind its last item, or with an error, behind which nothing comes. An error of the responder has the fate
/// [`Fate::Failed`]; one of a lost link, or of a provider that died, [`Fate::Unknown`]. As long as it lives, a stream is a request in flight:
/// it counts in all bounds and permits as one, and a drain of either end waits for it, no longer than the drain may take.
///
/// ```
/// use futures::stream;
/// use meshwork::prelude::*;
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let master = MasterActor::new("master").start();
/// let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
/// let counter = BranchActor::new("counter")
///     .respond_stream("count", |to: u32| async move { Ok(Streaming::new(stream::iter(1..=to))) })
///     .bind(&address)
///     .await?;
/// let branch = BranchActor::new("branch").bind(address).await?;
///
/// let mut numbers = branch.stream::<u32>("count", 3).await?;
/// while let Some(number) = numbers.next().await {
///     println!("{}", number?);
/// }
/// # drop(counter);
/// # Ok(())
/// # }
/// ```
pub struct Streaming<T>(Kind<T>);

enum Kind<T> {
    /// Made in this process.
    Made(BoxStream<'static, Result<T, CallError>>),
    /// Read from a producer.
    Read(Box<Read<T>>),
    Ended,
}

/// A stream that is read from its producer.
struct Read<T> {
    reading: Reading,
    form: Option<Form>,
    decode: Decode<T>,
    /// The deadline of the whole stream, if it has one.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Ready when the request is cancelled that the stream is read for, if it is read for one.
    cancelled: Option<BoxFuture<'static, ()>>,
}

/// Writes arguments that were written in bincode as providers want them that have not the signature of the caller; none if that cannot be done.
pub(crate) type ByName = fn(Wanted, Payload) -> Option<Payload>;

/// Whether the arguments of a method are kept, to be written by name if their provider has other types.
pub(crate) fn is_kept(arguments: &Payload) -> bool {
    arguments.encoding == Encoding::Bincode && arguments.len() <= ARGUMENTS_KEPT_LEN_MAX
}

/// Reads an item; one of a method of a trait has a form.
type Decode<T> = fn(PayloadRef<'_>, Option<Form>) -> Result<T, CallError>;

impl<T: 'static> Streaming<T> {
    /// A stream of these items. It is polled when its caller has room for an item, and dropped when the caller reads no further.
    pub fn new(items: impl Stream<Item = T> + Send + 'static) -> Self {
        Self(Kind::Made(items.map(Ok).boxed()))
    }

    /// A stream that may fail: the first error ends it.
    pub fn of_results<E: Into<ActionError>>(
        items: impl Stream<Item = Result<T, E>> + Send + 'static,
    ) -> Self {
        let items = items.map(|item| item.map_err(|error| CallError::from(error.into())));
        Self(Kind::Made(items.boxed()))
    }

    /// A stream of the items that are sent to it, which holds up to `waiting_max` that are not read yet, one at least.
    #[must_use]
    pub fn channel(waiting_max: usize) -> (ItemSender<T>, Self)
    where
        T: Send,
    {
        let (sender, items) = ItemSender::channel(waiting_max);
        (sender, Self::of_results(items))
    }
}

impl<T> Streaming<T> {
    /// The next item; none behind the last one, or behind an error. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<T, CallError>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        let item = match &mut self.0 {
            Kind::Made(items) => ready!(items.poll_next_unpin(context)),
            Kind::Read(read) => ready!(read.poll_item(context)),
            Kind::Ended => None,
        };
        if !matches!(item, Some(Ok(_))) {
            // The producer hears at once that nobody reads what may follow an error.
            self.0 = Kind::Ended;
        }
        Poll::Ready(item)
    }
}

impl<T> Read<T> {
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        let Self { reading, form, decode, alarm, cancelled } = self;
        if let Some(cancelled) = cancelled
            && cancelled.as_mut().poll(context).is_ready()
        {
            let what = "the request for which the stream is read was cancelled";
            return Poll::Ready(Some(Err(CallError::new(Code::CANCELLED, Fate::Unknown, what))));
        }
        if let Some(alarm) = alarm
            && alarm.as_mut().poll(context).is_ready()
        {
            let what = "the stream did not end before its deadline";
            return Poll::Ready(Some(Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, what))));
        }
        let item = ready!(reading.poll_next(context, |payload| decode(payload, *form)));
        Poll::Ready(item.map(|item| item.and_then(|item| item)))
    }
}

impl<T> Stream for Streaming<T> {
    type Item = Result<T, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(context)
    }
}

impl<T> Unpin for Streaming<T> {}

impl<T> fmt::Debug for Streaming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streaming")
    }
}

/// Writes the items of a stream as its reader takes them. The outcome is the end of the stream.
pub(crate) async fn produce<T, E>(
    items: impl Stream<Item = Result<T, E>>,
    form: Form,
    mut outlet: Outlet,
) -> Outcome
where
    T: Serialize,
    E: Into<ActionError>,
{
    outlet.start();
    let mut items = pin!(items);
    let ended = poll_fn(|context| {
        loop {
            ready!(outlet.poll_ready(context))?;
            match items.as_mut().poll_next(context) {
                Poll::Ready(Some(Ok(item))) => outlet.write(form, &item)?,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(CallError::from(error.into()))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    outlet.pause()?;
                    return Poll::Pending;
                }
            }
        }
    })
    .await;
    // What was made before the end leaves before it.
    let sent = outlet.flush();
    ended.and(sent).map(|()| Payload::default())
}

/// The sending half of a stream: see [`Streaming::channel`] and [`Feed::channel`](crate::Feed::channel). The stream ends when all clones are
/// dropped.
pub struct ItemSender<T>(mpsc::Sender<Result<T, ActionError>>);

/// An item that nobody will read: the reader has dropped the stream, or its link is lost. Gives the item back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NobodyReads<T>(pub T);

impl<T> ItemSender<T> {
    pub(crate) fn channel(
        waiting_max: usize,
    ) -> (Self, impl Stream<Item = Result<T, ActionError>> + Send + 'static)
    where
        T: Send + 'static,
    {
        // A longer channel than a machine holds makes no sense, and is refused by tokio.
        let (sender, mut items) = mpsc::channel(waiting_max.clamp(1, usize::MAX >> 4));
        (Self(sender), futures::stream::poll_fn(move |context| items.poll_recv(context)))
    }

    /// Sends an item; waits until there is room for it.
    ///
    /// # Errors
    ///
    /// When nobody reads the stream any more: the item comes back.
    pub async fn send(&self, item: T) -> Result<(), NobodyReads<T>> {
        self.0.send(Ok(item)).await.map_err(|unsent| match unsent.0 {
            Ok(item) => NobodyReads(item),
            Err(_) => unreachable!("an item was sent"),
        })
    }

    /// Ends the stream with an error, behind the items that were sent. Waits until there is room for it.
    pub async fn fail(self, error: impl Into<ActionError>) {
        // Who reads no further needs no error.
        let _ = self.0.send(Err(error.into())).await;
    }

    /// Waits until nobody reads the stream any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl<T> Clone for ItemSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for ItemSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ItemSender")
    }
}

impl<T> fmt::Debug for NobodyReads<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NobodyReads")
    }
}

impl<T> fmt::Display for NobodyReads<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the stream any more")
    }
}

impl<T> std::error::Error for NobodyReads<T> {}

/// A stream that is asked for, made by [`Node::stream`](crate::Node::stream): await it. The request is sent then; it is ready when the responder
/// has begun to answer, and fails as a call does when it does not. Dropping it meanwhile cancels the request.
#[must_use = "a stream is not asked for before it is awaited"]
pub struct Opening<T, E = CallError> {
    node: Node,
    call: Result<ActorCall, CallError>,
    form: Option<Form>,
    decode: Decode<T>,
    /// Writes the arguments of a method by name, once.
    by_name: Option<ByName>,
    window_len_max: u32,
    whole_within: Option<Duration>,
    fails_as: PhantomData<fn() -> E>,
}

impl<T> Opening<T> {
    pub(crate) fn new(
        node: &Node,
        action: ByteString,
        arguments: Result<Payload, CallError>,
        decode: Decode<T>,
    ) -> Self {
        Self {
            node: node.clone(),
            call: arguments.map(|arguments| node.adopt(ActorCall::new(action, arguments))),
            form: None,
            decode,
            by_name: None,
            window_len_max: STREAM_WINDOW_LEN_MAX,
            whole_within: None,
            fails_as: PhantomData,
        }
    }

    pub(crate) fn typed(self, form: Option<Form>, by_name: ByName) -> Self {
        Self { form, by_name: Some(by_name), ..self }
    }
}

impl<T, E> Opening<T, E> {
    /// Sets the deadline of the start: how long the responder may take until it begins to answer. The stream itself may last for ever.
    /// Default: 10 s; `Duration::MAX`: for ever.
    pub fn within(mut self, within: Duration) -> Self {
        let within = (within != Duration::MAX).then_some(within);
        self.change(|call| call.within = within);
        self
    }

    /// Sets a deadline of the whole stream, counted from now on: when it has passed, the stream ends with `REQUEST_TIMEOUT`. Default: none.
    pub fn whole_within(mut self, within: Duration) -> Self {
        self.whole_within = (within != Duration::MAX).then_some(within);
        self
    }

    /// Sends the request to the node of this name and to no other provider of the action.
    pub fn on(mut self, node: impl Into<ByteString>) -> Self {
        let named = node.into();
        self.change(|call| call.node = named);
        self
    }

    /// Sets a header of the request: see [`Calling::header`](crate::Calling::header).
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with_headers(|headers| Ok(headers.insert(name.as_ref(), value.as_ref())?))
    }

    /// Asks the provider of this key: see [`Calling::key`](crate::Calling::key).
    pub fn key(self, key: impl fmt::Display) -> Self {
        self.with_headers(|headers| set_key(headers, key))
    }

    /// Asks a provider with this label: see [`Calling::label`](crate::Calling::label).
    pub fn label(self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        self.with_headers(|headers| add_label(headers, name, value))
    }

    fn with_headers(mut self, change: impl FnOnce(&mut Headers) -> Result<(), CallError>) -> Self {
        if let Ok(call) = &mut self.call
            && let Err(error) = change(&mut call.headers)
        {
            self.call = Err(error);
        }
        self
    }

    /// Fails at once when the link to the master is down. By default the request waits for the link, within its deadline.
    pub fn fail_when_down(mut self) -> Self {
        self.change(|call| call.when_down = WhenDown::Fail);
        self
    }

    /// Sets how many bytes of items may be on their way, or wait to be read, and one item more: the memory that the stream may take here. The
    /// window begins with 32 KiB, or with less, and doubles while the stream flows. Default: 4 MiB; at most 512 MiB.
    pub fn window(self, len_max: u32) -> Self {
        Self { window_len_max: len_max, ..self }
    }

    /// Makes the error of the start an error of this type: see [`Calling::failing_as`](crate::Calling::failing_as).
    pub fn failing_as<F: std::convert::From<CallError>>(self) -> Opening<T, F> {
        let Self { node, call, form, decode, by_name, window_len_max, whole_within, .. } = self;
        Opening { node, call, form, decode, by_name, window_len_max, whole_within, fails_as: PhantomData }
    }

    fn change(&mut self, change: impl FnOnce(&mut ActorCall)) {
        if let Ok(call) = &mut self.call {
            change(call);
        }
    }

    async fn open(self) -> Result<Streaming<T>, CallError> {
        let alarm = self.whole_within.map(|within| Box::pin(tokio::time::sleep(within)));
        let node = self.node.attach().await?;
        let call = self.call?;
        let cause = call.cause.clone();
        let begun = Instant::now();
        let kept = self.by_name.filter(|_| is_kept(&call.arguments)).map(|by_name| (by_name, call.clone()));
        let opening = async {
            match Reading::open_layered(&node, call, self.window_len_max).await {
                Ok(reading) => Ok(reading),
                Err(error) => match kept.and_then(|kept| again(&node, kept, begun, &error)) {
                    Some(call) => Reading::open_layered(&node, call, self.window_len_max).await,
                    None => Err(error),
                },
            }
        };
        let reading = match &cause {
            Some(cause) => cause.unless_cancelled(Fate::Unknown, opening).await?,
            None => opening.await?,
        };
        let cancelled = cause.map(|cause| async move { cause.cancelled().await }.boxed());
        let Self { form, decode, .. } = self;
        Ok(Streaming(Kind::Read(Box::new(Read { reading, form, decode, alarm, cancelled }))))
    }
}

/// The same request by name, if its provider refused the bincode and has run nothing: a provider of another version may have come before the news of
/// it. It has the time that is left.
fn again(
    node: &ActorNode,
    (by_name, mut call): (ByName, ActorCall),
    begun: Instant,
    error: &CallError,
) -> Option<ActorCall> {
    if error.code() != Code::CANNOT_DECODE || error.fate() != Fate::NotSent {
        return None;
    }
    call.within = call.within.map(|within| within.saturating_sub(begun.elapsed()));
    call.arguments = by_name(node.wanted(&call.action, None), call.arguments)?;
    Some(call)
}

impl<T: 'static, E: std::convert::From<CallError> + 'static> IntoFuture for Opening<T, E> {
    type Output = Result<Streaming<T>, E>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.open().await.map_err(E::from) })
    }
}

impl<T, E> fmt::Debug for Opening<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("call", &self.call).finish_non_exhaustive()
    }
}

/// Reads an item by name.
pub(crate) fn decode_item<T: serde::de::DeserializeOwned>(
    payload: PayloadRef<'_>,
    form: Option<Form>,
) -> Result<T, CallError> {
    Ok(match form {
        Some(form) => payload.decode_with(form)?,
        None => payload.decode()?,
    })
}

/// Copies an item for a reader that knows no types.
pub(crate) fn raw_item(payload: PayloadRef<'_>, _: Option<Form>) -> Result<Payload, CallError> {
    let PayloadRef { encoding, bytes, callbacks } = payload;
    Ok(Payload { callbacks: callbacks.clone(), ..Payload::new(encoding, bytes.to_vec()) })
}

/// The form of items that no signature proves.
pub(crate) fn form_by_name(encoding: Encoding) -> Form {
    match encoding {
        Encoding::Bincode | Encoding::PlainBincode => Encoding::MessagePack.into(),
        other => other.into(),
    }
}

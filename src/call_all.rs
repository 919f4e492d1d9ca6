//! Calls of all providers of an action: [`CallingAll`], made by [`Node::call_all`](crate::Node::call_all).

use crate::call::Calling;
use crate::choosing::add_label;
use crate::handle::Node;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use meshwork_actors::calls::Reply;
use meshwork_actors::node::{Call as ActorCall, Node as ActorNode, Provided};
use meshwork_wire::limits::CALL_WITHIN;
use meshwork_wire::{ByteString, CallError, Encoding, Headers, Label, Payload};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The outcomes of a call of all providers of an action: a [`Stream`] that ends when each has one. See
/// [`Node::call_all`](crate::Node::call_all).
///
/// Dropping it cancels the calls that have no outcome yet.
#[must_use = "nobody is called before the stream is polled"]
pub struct CallingAll<R> {
    stage: Stage<R>,
    headers: Result<Headers, CallError>,
    within: Option<Duration>,
    decode: Decode<R>,
}

type Decode<R> = fn(Reply) -> Result<R, CallError>;

/// The outcome of one provider.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Answered<R> {
    /// The name of the provider; empty if nobody could be called.
    pub node: ByteString,
    /// Its reply, or why there is none.
    pub outcome: Result<R, CallError>,
}

enum Stage<R> {
    /// Not polled yet.
    Written(Box<Written>),
    /// The master is asked for the providers.
    Finding(BoxFuture<'static, Result<Found, CallError>>),
    /// The providers are called.
    Called(FuturesUnordered<BoxFuture<'static, Answered<R>>>),
    Done,
}

/// What the providers are to be called with.
struct Written {
    node: Node,
    action: ByteString,
    arguments: Result<Payload, CallError>,
}

/// The providers of an action, and what they are called with.
struct Found {
    /// The handle that was asked: what is called through the context of a request is called for it.
    handle: Node,
    node: Arc<ActorNode>,
    providers: Vec<Provided>,
    action: ByteString,
    arguments: Payload,
    headers: Headers,
    /// None: for ever.
    until: Option<Instant>,
}

impl<R> CallingAll<R> {
    pub(crate) fn new<A: Serialize>(node: &Node, action: ByteString, arguments: &A) -> Self
    where
        R: DeserializeOwned,
    {
        let form = node.attached().map_or(Encoding::MessagePack.into(), |it| it.wanted(&action, None).form);
        let arguments = Payload::encode(form, arguments).map_err(CallError::from);
        Self::written(node, action, arguments, Reply::decode)
    }

    fn written(
        node: &Node,
        action: ByteString,
        arguments: Result<Payload, CallError>,
        decode: Decode<R>,
    ) -> Self {
        let written = Written { node: node.clone(), action, arguments };
        let stage = Stage::Written(Box::new(written));
        Self { stage, headers: Ok(Headers::none()), within: Some(CALL_WITHIN), decode }
    }

    /// Sets the deadline of all calls together, from the first poll on. Default: 10 s; `Duration::MAX`: for ever. A provider that has not answered
    /// then has the outcome `REQUEST_TIMEOUT`.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = (within != Duration::MAX).then_some(within);
        self
    }

    /// Sets a header of all calls: see [`Calling::header`](crate::Calling::header).
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with_headers(|headers| Ok(headers.insert(name.as_ref(), value.as_ref())?))
    }

    /// Calls only the providers with this label: see [`Calling::label`](crate::Calling::label).
    pub fn label(self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        self.with_headers(|headers| add_label(headers, name, value))
    }

    fn with_headers(mut self, change: impl FnOnce(&mut Headers) -> Result<(), CallError>) -> Self {
        self.headers = self.headers.and_then(|mut headers| change(&mut headers).map(|()| headers));
        self
    }
}

impl CallingAll<Payload> {
    /// Calls whose arguments are written already, and whose replies are not read: for tools that know no types.
    pub(crate) fn raw(node: &Node, action: ByteString, arguments: Payload) -> Self {
        Self::written(node, action, Ok(arguments), Reply::into_outcome)
    }
}

impl<R: Send + 'static> CallingAll<R> {
    /// The next outcome, in the order in which they come; none when each provider has one.
    pub async fn next(&mut self) -> Option<Answered<R>> {
        StreamExt::next(self).await
    }
}

async fn find(
    written: Written,
    headers: Result<Headers, CallError>,
    within: Option<Duration>,
) -> Result<Found, CallError> {
    let Written { node: handle, action, arguments } = written;
    let (own, arguments) = (headers?, arguments?);
    let mut headers = handle.trace();
    headers.extend(&own)?;
    let labels = headers.get(Headers::LABEL).map_or(Ok(Vec::new()), Label::read_list)?;
    let until = within.and_then(|within| Instant::now().checked_add(within));
    let node = handle.attach().await?;
    let providers = node.find_providers(&action, &labels, within.unwrap_or(CALL_WITHIN)).await?;
    Ok(Found { handle, node, providers, action, arguments, headers, until })
}

/// The calls of all these providers, of which none is sent yet.
fn calls<R: Send + 'static>(
    found: Found,
    decode: Decode<R>,
) -> FuturesUnordered<BoxFuture<'static, Answered<R>>> {
    let Found { handle, node, providers, action, arguments, mut headers, until } = found;
    let within = until.map(|until| until.saturating_duration_since(Instant::now()));
    // The providers have the labels, and are named.
    headers.remove(Headers::LABEL);
    let call = |Provided { node: name, session }: Provided| {
        let mut headers = headers.clone();
        let named = match session {
            Some(session) => headers.insert_own(Headers::SESSION, &session.0.to_string()),
            None => Ok(()),
        };
        let call = handle.adopt(ActorCall::new(action.clone(), arguments.clone()));
        let call = ActorCall { within, node: name.clone(), headers, ..call };
        let calling = named.map(|()| Calling::written(&node, call, decode));
        let answered = async move {
            let outcome = match calling {
                Ok(calling) => calling.await,
                Err(error) => Err(error.into()),
            };
            Answered { node: name, outcome }
        };
        answered.boxed()
    };
    providers.into_iter().map(call).collect()
}

impl<R: Send + 'static> Stream for CallingAll<R> {
    type Item = Answered<R>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match std::mem::replace(&mut this.stage, Stage::Done) {
                Stage::Written(written) => {
                    let headers = std::mem::replace(&mut this.headers, Ok(Headers::none()));
                    this.stage = Stage::Finding(find(*written, headers, this.within).boxed());
                }
                Stage::Finding(mut finding) => match finding.poll_unpin(context) {
                    Poll::Pending => {
                        this.stage = Stage::Finding(finding);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(found)) => this.stage = Stage::Called(calls(found, this.decode)),
                    Poll::Ready(Err(error)) => {
                        let nobody = Answered { node: ByteString::new(), outcome: Err(error) };
                        return Poll::Ready(Some(nobody));
                    }
                },
                Stage::Called(mut called) => {
                    let answered = called.poll_next_unpin(context);
                    if !matches!(answered, Poll::Ready(None)) {
                        this.stage = Stage::Called(called);
                    }
                    return answered;
                }
                Stage::Done => return Poll::Ready(None),
            }
        }
    }
}

impl<R> fmt::Debug for CallingAll<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallingAll").field("within", &self.within).finish_non_exhaustive()
    }
}

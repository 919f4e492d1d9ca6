//! Streams as arguments: a [`Feed`] stands anywhere in the arguments of a call, or in its reply, and the node that it reaches reads it.

use crate::action_error::ActionError;
use crate::streaming::{ItemSender, decode_item, produce};
use futures::stream::{Stream, StreamExt};
use meshwork_actors::answers::Source;
use meshwork_actors::node::Reading;
use meshwork_wire::limits::STREAM_WINDOW_LEN_MAX;
use meshwork_wire::{CallError, Encoding, Function};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A stream that is passed to another node, as a [`Callback`](crate::Callback) is: as an argument, in a reply, at any depth of either. The receiver
/// reads it, at the pace that it takes items at, or passes it on unread to a third node. It can be read once.
///
/// The receiver opens the stream when it first asks for an item, and from then on all that is said at [`Streaming`](crate::Streaming) holds:
/// nothing comes faster than it is read, and dropping either end ends the other. A feed that its receiver drops unread, as a responder
/// does that returns first, drops the stream. Items travel by name.
///
/// ```
/// use futures::stream;
/// use meshwork::prelude::*;
///
/// #[derive(Serialize, Deserialize)]
/// struct Upload { name: String, lines: Feed<String> }
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let master = MasterActor::new("master").start();
/// let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
/// let files = BranchActor::new("files")
///     .respond("files/upload", |mut upload: Upload| async move {
///         let mut len = 0;
///         while let Some(line) = upload.lines.next().await {
///             len += line?.len();
///         }
///         Ok(len)
///     })
///     .bind(&address)
///     .await?;
/// let branch = BranchActor::new("branch").bind(address).await?;
///
/// let lines = Feed::new(stream::iter(["one", "two"].map(String::from)));
/// let len: usize = branch.call("files/upload", Upload { name: "a".into(), lines }).await?;
/// assert_eq!(len, 6);
/// # drop(files);
/// # Ok(())
/// # }
/// ```
pub struct Feed<T> {
    state: State,
    items: PhantomData<fn() -> T>,
}

enum State {
    /// It has not been read from.
    Passed(Function),
    Read(Box<Reading>),
    Ended,
}

impl<T: Serialize + 'static> Feed<T> {
    /// A stream of these items. It is polled when its reader has room for an item, on the arbiter of the branch, or of the session at a master, that
    /// passed it.
    pub fn new(items: impl Stream<Item = T> + Send + 'static) -> Self {
        Self::of_results(items.map(Ok::<_, ActionError>))
    }

    /// A stream that may fail: the first error ends it.
    pub fn of_results<E: Into<ActionError> + 'static>(
        items: impl Stream<Item = Result<T, E>> + Send + 'static,
    ) -> Self {
        let function =
            Source::function(move |outlet| Box::pin(produce(items, Encoding::MessagePack.into(), outlet)));
        Self { state: State::Passed(function), items: PhantomData }
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

impl<T: DeserializeOwned> Feed<T> {
    /// The next item; none behind the last one, or behind an error. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<T, CallError>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        if let State::Passed(function) = &self.state {
            match Reading::open_function(function, STREAM_WINDOW_LEN_MAX) {
                Ok(reading) => self.state = State::Read(Box::new(reading)),
                Err(error) => {
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let State::Read(reading) = &mut self.state else {
            return Poll::Ready(None);
        };
        let item = ready!(reading.poll_next(context, |payload| decode_item(payload, None)));
        let item = item.map(|item| item.and_then(|item| item));
        if !matches!(item, Some(Ok(_))) {
            self.state = State::Ended;
        }
        Poll::Ready(item)
    }
}

impl<T: DeserializeOwned> Stream for Feed<T> {
    type Item = Result<T, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(context)
    }
}

impl<T> Serialize for Feed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.state {
            State::Passed(function) => function.serialize(serializer),
            State::Read(_) | State::Ended => Err(serde::ser::Error::custom(
                "a stream that has been read from is not passed on: make another `Feed` of its items",
            )),
        }
    }
}

impl<'de, T> Deserialize<'de> for Feed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { state: State::Passed(Function::deserialize(deserializer)?), items: PhantomData })
    }
}

#[cfg(feature = "schema")]
impl<T> schemars::JsonSchema for Feed<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Feed".into()
    }

    /// The schema of the placeholder that is written where a stream stands.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "a stream that is passed",
            "type": "object",
            "properties": { "$callback": { "type": "integer" } },
            "required": ["$callback"],
        })
    }
}

impl<T> Unpin for Feed<T> {}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

//! What handlers and responders are handed, made by hand.

use crate::context::CallContext;
use crate::event::Event;
use crate::handle::Node;
use meshwork_actors::answers::CallContext as ActorContext;
use meshwork_wire::{ByteString, Headers};
use std::time::Duration;

/// An event, for a test that calls its handler itself: published by a node named `publisher`.
///
/// ```
/// # use meshwork::prelude::*;
/// # use meshwork::testing;
/// fn note(event: Event<u64>) -> String {
///     format!("{} {}", event.topic, event.value)
/// }
///
/// assert_eq!(note(testing::event("orders/created", 7)), "orders/created 7");
/// ```
pub fn event<T>(topic: impl Into<ByteString>, value: T) -> Event<T> {
    event_from("publisher", topic, value)
}

/// An event of this publisher.
pub fn event_from<T>(publisher: impl Into<ByteString>, topic: impl Into<ByteString>, value: T) -> Event<T> {
    Event::by_hand(topic.into(), publisher.into(), value)
}

/// The context of a call, for a test that calls its responder itself: made by a node named `caller`, which waits for ever. It has no node: a
/// call through it fails, not sent. [`Request`] makes one that has.
///
/// ```
/// # use meshwork::prelude::*;
/// # use meshwork::testing;
/// fn greet(context: &CallContext) -> String {
///     format!("hello, {}", context.caller())
/// }
///
/// assert_eq!(greet(&testing::context("greet")), "hello, caller");
/// ```
pub fn context(action: impl Into<ByteString>) -> CallContext {
    Request::new(action).context()
}

/// The context of a call that this node made, and whose deadline is so far away.
pub fn context_from(
    caller: impl Into<ByteString>,
    action: impl Into<ByteString>,
    within: Duration,
) -> CallContext {
    Request::new(action).caller(caller).within(within).context()
}

/// A request, for a test that calls its responder itself.
///
/// ```
/// use meshwork::prelude::*;
/// use meshwork::testing;
///
/// async fn total(cents: u64, context: CallContext) -> Result<u64, ActionError> {
///     let taxes: u64 = context.call("taxes", cents).await?;
///     Ok(cents + taxes)
/// }
///
/// testing::run(async |mesh| {
///     let taxes = BranchActor::new("taxes").respond("taxes", |cents: u64| async move { Ok(cents / 10) });
///     let branch = mesh.bind(taxes).await.unwrap();
///     let request = testing::Request::new("total").header("tenant", "a").at(&branch);
///     assert_eq!(total(100, request.context()).await.unwrap(), 110);
/// });
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Request {
    action: ByteString,
    caller: ByteString,
    within: Option<Duration>,
    headers: Headers,
    node: Option<Node>,
}

impl Request {
    /// A request for this action, of a node named `caller`, which waits for ever. It has no headers, and is answered by no node.
    pub fn new(action: impl Into<ByteString>) -> Self {
        let (action, caller) = (action.into(), "caller".into());
        Self { action, caller, within: None, headers: Headers::none(), node: None }
    }

    /// Sets the name of the node that makes the call.
    pub fn caller(self, caller: impl Into<ByteString>) -> Self {
        Self { caller: caller.into(), ..self }
    }

    /// Sets how long the caller waits, from [`Request::context`] on.
    pub fn within(self, within: Duration) -> Self {
        Self { within: Some(within), ..self }
    }

    /// Sets a header.
    ///
    /// # Panics
    ///
    /// When the name or the value cannot be one of a header, or there are too many headers: a mistake in the test.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        if let Err(error) = self.headers.insert(name.as_ref(), value.as_ref()) {
            panic!("{error}");
        }
        self
    }

    /// Lets this node answer the request: what is called through the context is called through the node.
    pub fn at(self, node: impl Into<Node>) -> Self {
        Self { node: Some(node.into()), ..self }
    }

    /// The context of the request.
    #[must_use]
    pub fn context(self) -> CallContext {
        let Self { action, caller, within, headers, node } = self;
        CallContext::by_hand(ActorContext::by_hand(action, caller, within, headers), node)
    }
}

/// Cancels a request that was made by hand, as its caller does when it drops the call: the calls that are made through its context end.
pub fn cancel(context: &CallContext) {
    context.cancel();
}

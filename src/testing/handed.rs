//! What handlers and responders are handed, made by hand.

use crate::event::Event;
use meshwork_actors::answers::CallContext;
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

/// The context of a call, for a test that calls its responder itself: made by a node named `caller`, which waits for ever.
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
    CallContext::by_hand(action.into(), "caller".into(), None, Headers::none())
}

/// The context of a call that this node made, and whose deadline is so far away.
pub fn context_from(
    caller: impl Into<ByteString>,
    action: impl Into<ByteString>,
    within: Duration,
) -> CallContext {
    CallContext::by_hand(action.into(), caller.into(), Some(within), Headers::none())
}

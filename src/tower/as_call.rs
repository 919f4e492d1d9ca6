//! What a layer sees of a call: the arguments of one action that is called through a service, or a call of any action on its way out of a node.

use super::boxed::Read;
use meshwork_actors::node::{Attempts, Call, LayeredCall};
use meshwork_wire::{ByteString, CallError, Fate, HeaderError, Headers, Payload};
use serde::Serialize;
use std::time::{Duration, Instant};

/// A call as the layers of this module see it: [`RetryNotSent`](super::RetryNotSent) and [`CircuitBreaker`](super::CircuitBreaker) stand around
/// the service of one action, whose requests are its arguments, and around all calls of a node. What the arguments of one action do not tell is
/// empty: there a layer knows one action only.
pub trait AsCall {
    /// The action; empty for the arguments of an action.
    fn action(&self) -> &str {
        ""
    }

    /// The node that is to answer; empty for any.
    fn node(&self) -> &str {
        ""
    }

    /// Whether the call may be made again though it may have run: its provider runs it once.
    fn is_idempotent(&self) -> bool {
        false
    }

    /// When the caller stops waiting; `None` where the layer does not know.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// The arguments of one action.
impl<A: Serialize> AsCall for A {}

/// A call on its way out of its node, as the layers around the calls of the node see it: see [`LayerCalls`](super::LayerCalls). A clone is another
/// attempt at the same call.
#[derive(Clone, Debug)]
pub struct OutgoingCall(pub(crate) LayeredCall);

impl OutgoingCall {
    /// The action.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.0.call.action
    }

    /// The node that is to answer; empty for any.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.0.call.node
    }

    /// The arguments, as they travel.
    #[must_use]
    pub fn arguments(&self) -> &Payload {
        &self.0.call.arguments
    }

    /// Whether the call opens a stream. Then its outcome is there when the stream begins, and has no value: how the stream goes on, no layer sees.
    #[must_use]
    pub fn opens_stream(&self) -> bool {
        self.0.opens_stream()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.0.call.headers
    }

    /// The value of a header, if the call has it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.call.headers.get(name)
    }

    /// Sets a header, in the place of an earlier one of this name.
    ///
    /// # Errors
    ///
    /// When it cannot be a header, or there are too many: see [`Headers::insert`].
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        self.0.call.headers.insert(name, value)
    }

    /// How long the caller still waits; `None` for ever.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let now = tokio::time::Instant::now();
        self.0.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// Lets this attempt wait no longer than this, and no longer than the caller does. The call itself goes on when the attempt has ended so.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        if let Some(deadline) = tokio::time::Instant::now().checked_add(within) {
            self.0.deadline = Some(self.0.deadline.map_or(deadline, |of_caller| of_caller.min(deadline)));
        }
        self
    }

    /// Whether an attempt at this call may have run: one has left, and has not ended as not sent.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        self.0.attempts.may_have_run()
    }

    /// The error of a layer as that of this call, with the fate that is true of its attempts.
    pub(crate) fn settle(attempts: &Attempts, error: Read) -> CallError {
        match error {
            Read::Call(error) => error,
            // The layer does not know: what has left may have run.
            Read::Layer(error) => attempts.judge(error.with_fate(Fate::Unknown)),
        }
    }
}

impl AsCall for OutgoingCall {
    fn action(&self) -> &str {
        self.action()
    }

    fn node(&self) -> &str {
        self.node()
    }

    fn is_idempotent(&self) -> bool {
        self.header(Headers::IDEMPOTENCY_KEY).is_some()
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.deadline.map(tokio::time::Instant::into_std)
    }
}

/// The arguments of one action that is [idempotent](crate::Calling::idempotent), as a request of its service: attempts at it have one key.
///
/// ```
/// # use meshwork::prelude::*;
/// use meshwork::tower::{Idempotent, RetryNotSent};
/// use tower::{Service, ServiceBuilder, ServiceExt};
///
/// # async fn example(branch: Branch) -> Result<(), CallError> {
/// let mut charge = ServiceBuilder::new()
///     .layer(RetryNotSent::budget(0.2))
///     .timeout(Duration::from_secs(1))
///     .service(branch.service("payments/charge"));
/// let receipt: String = charge.ready().await?.call(Idempotent::new(("order 17", 4_200))).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Idempotent<A> {
    key: ByteString,
    arguments: A,
}

impl<A> Idempotent<A> {
    /// A call with these arguments, with a key that is drawn by chance.
    pub fn new(arguments: A) -> Self {
        Self { key: Call::draw_key().into(), arguments }
    }

    /// A call with these arguments and a key of the application: see [`Calling::idempotency_key`](crate::Calling::idempotency_key).
    pub fn with_key(key: impl Into<ByteString>, arguments: A) -> Self {
        Self { key: key.into(), arguments }
    }
}

impl<A> AsCall for Idempotent<A> {
    fn is_idempotent(&self) -> bool {
        true
    }
}

/// The request of an [`ActionService`](super::ActionService): arguments, or [`Idempotent`] ones.
pub trait ActionArguments: AsCall {
    /// The type of the arguments.
    type Value: Serialize;

    /// The arguments.
    fn value(&self) -> &Self::Value;

    /// The idempotency key, if the call has one.
    fn key(&self) -> Option<&str> {
        None
    }
}

impl<A: Serialize> ActionArguments for A {
    type Value = A;

    fn value(&self) -> &A {
        self
    }
}

impl<A: Serialize> ActionArguments for Idempotent<A> {
    type Value = A;

    fn value(&self) -> &A {
        &self.arguments
    }

    fn key(&self) -> Option<&str> {
        Some(&self.key)
    }
}

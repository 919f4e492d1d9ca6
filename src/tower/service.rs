//! An action as a [`tower::Service`]: a request is the arguments of a call, a response is its reply.

use super::as_call::ActionArguments;
use crate::call::Calling;
use crate::handle::Node;
use meshwork_wire::{ByteString, CallError};
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::Service;

/// An action as a [`tower::Service`], made by [`Node::service`]. The request is the arguments, one serde value; the future is the
/// [`Calling`] that [`Node::call`] makes of them, without a box. Dropping it cancels the call.
///
/// It is always ready: the bounds of the node refuse a call as they refuse any. It needs no `Buffer` to be cloned, since a clone is as good as the
/// original.
pub struct ActionService<A, R> {
    node: Node,
    action: ByteString,
    within: Option<Duration>,
    on: Option<ByteString>,
    fails_when_down: bool,
    types: PhantomData<fn(A) -> R>,
}

impl<A, R> ActionService<A, R> {
    /// How long each call waits: see [`Calling::within`]. Default: 10 s.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within: Some(within), ..self }
    }

    /// Sends the requests to the node of this name: see [`Calling::on`].
    #[must_use]
    pub fn on(self, node: impl Into<ByteString>) -> Self {
        Self { on: Some(node.into()), ..self }
    }

    /// Fails at once when the link is down: see [`Calling::fail_when_down`].
    #[must_use]
    pub fn fail_when_down(self) -> Self {
        Self { fails_when_down: true, ..self }
    }
}

impl Node {
    /// An action as a [`tower::Service`], for the layers of tower and those of [`meshwork::tower`](crate::tower).
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// use meshwork::tower::RetryNotSent;
    /// use tower::{Service, ServiceBuilder, ServiceExt};
    ///
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// // Each attempt may take a second; a call that was not sent is made again.
    /// let mut charge = ServiceBuilder::new()
    ///     .layer(RetryNotSent::budget(0.2))
    ///     .timeout(Duration::from_secs(1))
    ///     .service(branch.service("payments/charge"));
    /// let receipt: String = charge.ready().await?.call(("order 17", 4_200)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A method of a typed requester is a service by `tower::service_fn(move |(a, b)| math.add(a, b))`.
    #[must_use]
    pub fn service<A, R>(&self, action: impl Into<ByteString>) -> ActionService<A, R>
    where
        A: ActionArguments,
        R: DeserializeOwned,
    {
        ActionService {
            node: self.clone(),
            action: action.into(),
            within: None,
            on: None,
            fails_when_down: false,
            types: PhantomData,
        }
    }
}

impl<A: ActionArguments, R: DeserializeOwned> Service<A> for ActionService<A, R> {
    type Response = R;
    type Error = CallError;
    type Future = Calling<R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, arguments: A) -> Calling<R> {
        let mut calling = Calling::new(&self.node, self.action.clone(), arguments.value());
        if let Some(key) = arguments.key() {
            calling = calling.idempotency_key(key);
        }
        if let Some(within) = self.within {
            calling = calling.within(within);
        }
        if let Some(node) = &self.on {
            calling = calling.on(node.clone());
        }
        if self.fails_when_down {
            calling = calling.fail_when_down();
        }
        calling
    }
}

impl<A, R> Clone for ActionService<A, R> {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            action: self.action.clone(),
            within: self.within,
            on: self.on.clone(),
            fails_when_down: self.fails_when_down,
            types: PhantomData,
        }
    }
}

impl<A, R> fmt::Debug for ActionService<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionService").field("action", &self.action).finish_non_exhaustive()
    }
}

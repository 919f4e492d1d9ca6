//! Calling actions. [`Calling`] is a call on its way, made by [`Node::call`](crate::Node::call); [`Call`] is the same as a
//! message to an actor. Which one? The handle's is cheaper and cancels when it is dropped; the message fits where everything
//! else is a message.

use crate::{CallError, Code, Encoding, Fate, Node, Payload};
use actix::{Handler, Message, ResponseFuture};
use futures::FutureExt;
use futures::future::BoxFuture;
use meshwork_actors::branch::BranchActor;
use meshwork_actors::master::MasterActor;
use meshwork_actors::node::{Asked, Call as ActorCall, Node as ActorNode, Prepared, WhenDown};
use meshwork_wire::ByteString;
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A call: nothing is sent before it is first polled, and dropping it cancels the call, at the far end too.
///
/// It resolves to the reply or to a [`CallError`], whose [`Fate`] says whether the action may have run. It ends in any case:
/// by default after 10 s.
#[must_use = "a call is not made before it is awaited"]
pub struct Calling<R> {
    state: State,
    decode: fn(Payload) -> Result<R, CallError>,
}

enum State {
    New {
        node: Node,
        call: Prepared,
        /// The arguments in the other encoding, while it is not known which one is wanted.
        instead: Option<Box<Payload>>,
    },
    /// The arguments cannot be written.
    Failed(CallError),
    /// The handle of a master is used for the first time: the master is asked for what they share.
    Attaching(BoxFuture<'static, Result<Asked, CallError>>),
    Asked(Asked),
    Done,
}

impl<R> Calling<R> {
    pub(crate) fn new<A: Serialize>(node: Node, action: ByteString, arguments: &A) -> Self
    where
        R: DeserializeOwned,
    {
        let (encoding, instead) = match node.attached() {
            Some(attached) => (attached.encoding_for(&action), None),
            // Which of the two is wanted shows when the handle is attached.
            None => (Encoding::Bincode, Payload::encode(Encoding::MessagePack, arguments).ok().map(Box::new)),
        };
        let state = match Payload::encode(encoding, arguments) {
            Ok(arguments) => {
                State::New { node, call: Prepared::new(ActorCall::new(action, arguments)), instead }
            }
            Err(error) => State::Failed(error.into()),
        };
        Self { state, decode: |payload| Ok(payload.decode()?) }
    }

    /// Waits at most so long; `Duration::MAX` for ever. Default: 10 s. The responder is told how long is left.
    pub fn within(self, within: Duration) -> Self {
        self.with(|call| call.set_within((within != Duration::MAX).then_some(within)))
    }

    /// Asks this node and no other, whoever else offers the action.
    pub fn on(self, node: impl Into<ByteString>) -> Self {
        let node = node.into();
        self.with(|call| call.set_node(node))
    }

    /// Fails at once, instead of waiting for it, when the link to the master is down.
    pub fn fail_when_down(self) -> Self {
        self.with(|call| call.set_when_down(WhenDown::Fail))
    }

    fn with(mut self, change: impl FnOnce(&mut Prepared)) -> Self {
        if let State::New { call, .. } = &mut self.state {
            change(call);
        }
        self
    }

    /// Sends it.
    fn submit(&mut self) -> Result<(), CallError> {
        if !matches!(self.state, State::New { .. } | State::Failed(_)) {
            return Ok(());
        }
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::New { node, call, instead } => match node.into_attached() {
                Ok(attached) => State::Asked(attached.ask(call)?),
                Err(node) => State::Attaching(Box::pin(async move {
                    let attached = node.attach().await?;
                    let call = in_wanted_encoding(&attached, call, instead);
                    attached.ask(call)
                })),
            },
            State::Failed(error) => return Err(error),
            state => state,
        };
        Ok(())
    }
}

impl Calling<Payload> {
    /// A call whose arguments are written already, and whose reply is not read: for tools that know no types.
    pub(crate) fn raw(node: Node, action: ByteString, arguments: Payload) -> Self {
        let call = Prepared::new(ActorCall::new(action, arguments));
        Self { state: State::New { node, call, instead: None }, decode: Ok }
    }
}

fn in_wanted_encoding(node: &ActorNode, mut call: Prepared, instead: Option<Box<Payload>>) -> Prepared {
    if let Some(arguments) = instead
        && node.encoding_for(call.action()).is_self_describing()
    {
        call.set_arguments(*arguments);
    }
    call
}

impl<R> Future for Calling<R> {
    type Output = Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.submit()?;
        loop {
            let outcome = match &mut this.state {
                State::Attaching(attaching) => match attaching.poll_unpin(context) {
                    Poll::Ready(Ok(asked)) => {
                        this.state = State::Asked(asked);
                        continue;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
                State::Asked(asked) => asked.poll_unpin(context),
                State::New { .. } | State::Failed(_) | State::Done => {
                    let again = CallError::new(Code::CANCELLED, Fate::Unknown, "a call was awaited twice");
                    Poll::Ready(Err(again))
                }
            };
            let Poll::Ready(outcome) = outcome else {
                return Poll::Pending;
            };
            this.state = State::Done;
            return Poll::Ready(outcome.and_then(this.decode));
        }
    }
}

/// A call as a message to an `Addr<BranchActor>` or `Addr<MasterActor>`. Its result is the reply, or why there is none.
///
/// Dropping the `send()` does not cancel it: it ends with its reply or its deadline.
pub struct Call<R> {
    action: ByteString,
    arguments: Result<(Payload, Option<Payload>), CallError>,
    within: Option<Duration>,
    node: ByteString,
    when_down: WhenDown,
    reply: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    /// A call of an action. Its arguments are written now.
    pub fn new(action: impl Into<ByteString>, arguments: impl Serialize) -> Self {
        let both = Payload::encode(Encoding::Bincode, &arguments).map(|arguments_of_ours| {
            (arguments_of_ours, Payload::encode(Encoding::MessagePack, &arguments).ok())
        });
        Self {
            action: action.into(),
            arguments: both.map_err(CallError::from),
            within: Some(crate::limits::CALL_WITHIN),
            node: ByteString::new(),
            when_down: WhenDown::Wait,
            reply: PhantomData,
        }
    }

    /// See [`Calling::within`].
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = (within != Duration::MAX).then_some(within);
        self
    }

    /// See [`Calling::on`].
    #[must_use]
    pub fn on(mut self, node: impl Into<ByteString>) -> Self {
        self.node = node.into();
        self
    }

    /// See [`Calling::fail_when_down`].
    #[must_use]
    pub fn fail_when_down(mut self) -> Self {
        self.when_down = WhenDown::Fail;
        self
    }

    fn ask(self, node: &Arc<ActorNode>) -> ResponseFuture<Result<R, CallError>>
    where
        R: DeserializeOwned + 'static,
    {
        let Self { action, arguments, within, node: named, when_down, .. } = self;
        let asked = arguments.and_then(|(arguments, instead)| {
            let call = Prepared::new(ActorCall { action, node: named, arguments, within, when_down });
            Arc::clone(node).ask(in_wanted_encoding(node, call, instead.map(Box::new)))
        });
        Box::pin(async move { Ok(asked?.await?.decode()?) })
    }
}

impl<R: 'static> Message for Call<R> {
    type Result = Result<R, CallError>;
}

impl<R: DeserializeOwned + 'static> Handler<Call<R>> for BranchActor {
    type Result = ResponseFuture<Result<R, CallError>>;

    fn handle(&mut self, call: Call<R>, _: &mut actix::Context<Self>) -> Self::Result {
        call.ask(self.node())
    }
}

impl<R: DeserializeOwned + 'static> Handler<Call<R>> for MasterActor {
    type Result = ResponseFuture<Result<R, CallError>>;

    fn handle(&mut self, call: Call<R>, _: &mut actix::Context<Self>) -> Self::Result {
        call.ask(self.node())
    }
}

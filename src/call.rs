//! Calling actions. [`Calling`] is a call on its way, made by [`Node::call`](crate::Node::call); [`Call`] is the same as a
//! message to an actor. Which one? The handle's is cheaper and cancels when it is dropped; the message fits where everything
//! else is a message.

use crate::handle::Node;
use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Handler, Message};
use futures::FutureExt;
use futures::future::BoxFuture;
use meshwork_actors::branch::BranchActor;
use meshwork_actors::calls::Reply;
use meshwork_actors::master::MasterActor;
use meshwork_actors::node::{Arguments, Call as ActorCall, Head, Node as ActorNode, WhenDown};
use meshwork_wire::limits::CALL_WITHIN;
use meshwork_wire::{ByteString, CallError, CallbackId, Code, EncodeError, Encoding, Fate, Payload};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A call: nothing is sent before it is first polled, and dropping it cancels the call, at the far end too.
///
/// It resolves to the reply or to a [`CallError`], whose [`Fate`] says whether the action may have run. It ends in any case:
/// by default after 10 s.
#[must_use = "a call is not made before it is awaited"]
pub struct Calling<R> {
    /// None before the handle of a master is used for the first time, and when the arguments cannot be written.
    node: Option<Arc<ActorNode>>,
    stage: Stage,
    decode: fn(Reply) -> Result<R, CallError>,
}

enum Stage {
    /// Not polled yet, and written by the task that polls it.
    Written {
        head: Head,
        arguments: Arguments,
    },
    /// Not polled yet, and written by the actor of the node, or answered by it.
    Unwritten(Box<ActorCall>),
    /// Something that is done before the call can be submitted.
    Before(Box<Before>),
    /// Submitted.
    InFlight(CallbackId),
    Done,
}

enum Before {
    /// The arguments cannot be written.
    Failed(Option<CallError>),
    /// Not polled yet: the handle of a master is used for the first time. The arguments are there in the other encoding too, since it is
    /// not known which one is wanted.
    Unattached { node: Node, call: ActorCall, instead: Option<Payload> },
    /// The master is asked for what the handle shares with it.
    Attaching(BoxFuture<'static, Result<(Arc<ActorNode>, ActorCall), CallError>>),
}

impl<R> Calling<R> {
    #[inline]
    pub(crate) fn new<A: Serialize>(
        node: &Node,
        action: impl AsRef<str> + Into<ByteString>,
        arguments: &A,
    ) -> Self
    where
        R: DeserializeOwned,
    {
        let attached = node.attached();
        let stage = match attached.and_then(|attached| attached.head(action.as_ref())) {
            Some(head) => Arguments::encode(head.encoding(), arguments)
                .map(|arguments| Stage::Written { head, arguments }),
            None => Stage::unwritten(node, action.into(), arguments),
        };
        let stage = stage.unwrap_or_else(|error| Stage::failed(error.into()));
        Self { node: attached.cloned(), stage, decode: Reply::decode }
    }

    /// Waits at most so long; `Duration::MAX` for ever. Default: 10 s. The responder is told how long is left.
    pub fn within(self, within: Duration) -> Self {
        let within = (within != Duration::MAX).then_some(within);
        self.with(|node, head| node.other_head(head, Some(within), None), |call| call.within = within)
    }

    /// Asks this node and no other, whichever others offer the action.
    pub fn on(self, node: impl Into<ByteString>) -> Self {
        let named = node.into();
        self.with(|node, head| node.other_head(head, None, Some(&named)), |call| call.node.clone_from(&named))
    }

    /// Fails at once, instead of waiting for it, when the link to the master is down.
    pub fn fail_when_down(self) -> Self {
        self.with(|_, _| None, |call| call.when_down = WhenDown::Fail)
    }

    /// Another head, if there is one that says it, else the change is made to the call.
    fn with(
        mut self,
        other_head: impl FnOnce(&ActorNode, Head) -> Option<Head>,
        change: impl FnOnce(&mut ActorCall),
    ) -> Self {
        match (&mut self.stage, &self.node) {
            (Stage::Written { head, arguments }, Some(node)) => match other_head(node, *head) {
                Some(other) => *head = other,
                None => {
                    if let Some(mut call) = node.call_of(*head, arguments.clone()) {
                        change(&mut call);
                        self.stage = Stage::Unwritten(Box::new(call));
                    }
                }
            },
            (Stage::Unwritten(call), _) => change(call),
            (Stage::Before(before), _) => {
                if let Before::Unattached { call, .. } = &mut **before {
                    change(call);
                }
            }
            (Stage::Written { .. } | Stage::InFlight(_) | Stage::Done, _) => {}
        }
        self
    }

    /// Polls what is done before the call can be submitted; the call is there then.
    fn poll_before(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        let Stage::Before(before) = &mut self.stage else {
            return Poll::Ready(Ok(()));
        };
        if let Before::Unattached { node, call, instead } = &mut **before {
            let (node, call, instead) = (node.clone(), call.clone(), instead.take());
            **before = Before::Attaching(Box::pin(async move {
                let attached = node.attach().await?;
                let call = in_wanted_encoding(&attached, call, instead);
                Ok((attached, call))
            }));
        }
        let attached = match &mut **before {
            Before::Failed(error) => Err(error.take().unwrap_or_else(again)),
            Before::Attaching(attaching) => ready!(attaching.poll_unpin(context)),
            Before::Unattached { .. } => return Poll::Pending,
        };
        Poll::Ready(attached.map(|(node, call)| {
            self.node = Some(node);
            self.stage = Stage::Unwritten(Box::new(call));
        }))
    }
}

impl Stage {
    #[cold]
    fn unwritten<A: Serialize>(node: &Node, action: ByteString, arguments: &A) -> Result<Self, EncodeError> {
        if let Some(attached) = node.attached() {
            let arguments = Payload::encode(attached.encoding_for(&action), arguments)?;
            return Ok(Stage::Unwritten(Box::new(ActorCall::new(action, arguments))));
        }
        // Which of the two is wanted shows when the handle is attached.
        let instead = Payload::encode(Encoding::MessagePack, arguments).ok();
        let call = ActorCall::new(action, Payload::encode(Encoding::Bincode, arguments)?);
        Ok(Stage::Before(Box::new(Before::Unattached { node: node.clone(), call, instead })))
    }

    fn failed(error: CallError) -> Self {
        Stage::Before(Box::new(Before::Failed(Some(error))))
    }
}

impl Calling<Payload> {
    /// A call whose arguments are written already, and whose reply is not read: for tools that know no types.
    pub(crate) fn raw(node: &Node, action: ByteString, arguments: Payload) -> Self {
        let call = ActorCall::new(action, arguments);
        let stage = match node.attached() {
            Some(_) => Stage::Unwritten(Box::new(call)),
            None => Stage::Before(Box::new(Before::Unattached { node: node.clone(), call, instead: None })),
        };
        Self { node: node.attached().cloned(), stage, decode: Reply::into_outcome }
    }
}

fn in_wanted_encoding(node: &ActorNode, mut call: ActorCall, instead: Option<Payload>) -> ActorCall {
    if let Some(arguments) = instead
        && node.encoding_for(&call.action).is_self_describing()
    {
        call.arguments = arguments;
    }
    call
}

fn again() -> CallError {
    CallError::new(Code::CANCELLED, Fate::Unknown, "a call was awaited twice")
}

impl<R> Future for Calling<R> {
    type Output = Result<R, CallError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Stage::Before(_) = &this.stage
            && let Err(error) = ready!(this.poll_before(context))
        {
            this.stage = Stage::Done;
            return Poll::Ready(Err(error));
        }
        let Some(node) = &this.node else {
            return Poll::Ready(Err(again()));
        };
        let submitted = match &mut this.stage {
            Stage::InFlight(callback_id) => {
                let reply = ready!(node.poll_reply(*callback_id, context.waker()));
                this.stage = Stage::Done;
                return Poll::Ready((this.decode)(reply));
            }
            Stage::Written { head, arguments } => node.call(*head, arguments, context.waker()),
            Stage::Unwritten(_) | Stage::Before(_) | Stage::Done => {
                match std::mem::replace(&mut this.stage, Stage::Done) {
                    Stage::Unwritten(call) => node.ask(*call, context.waker()),
                    _ => Err(again()),
                }
            }
        };
        match submitted {
            // The task of this waker is woken for the reply.
            Ok(callback_id) => {
                this.stage = Stage::InFlight(callback_id);
                Poll::Pending
            }
            Err(error) => {
                this.stage = Stage::Done;
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<R> Drop for Calling<R> {
    #[inline]
    fn drop(&mut self) {
        if let (Stage::InFlight(callback_id), Some(node)) = (&self.stage, &self.node) {
            node.forget(*callback_id);
        }
    }
}

/// A call as a message to an `Addr<BranchActor>` or `Addr<MasterActor>`. Its result is the reply, or why there is none.
///
/// Dropping the `send()` does not cancel it: it ends with its reply or its deadline.
pub struct Call<R> {
    action: ByteString,
    arguments: Result<(Arguments, Option<Arguments>), CallError>,
    within: Option<Duration>,
    node: ByteString,
    when_down: WhenDown,
    reply: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    /// A call of an action. Its arguments are written now.
    pub fn new(action: impl Into<ByteString>, arguments: impl Serialize) -> Self {
        let both = Arguments::encode(Encoding::Bincode, &arguments).map(|arguments_of_ours| {
            (arguments_of_ours, Arguments::encode(Encoding::MessagePack, &arguments).ok())
        });
        Self {
            action: action.into(),
            arguments: both.map_err(CallError::from),
            within: Some(CALL_WITHIN),
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

    /// Submits it; `told` is called with what comes of it.
    fn submit(self, node: &ActorNode, told: impl FnOnce(Result<R, CallError>) + Send + 'static)
    where
        R: DeserializeOwned + 'static,
    {
        let Self { action, arguments, within, node: named, when_down, .. } = self;
        let (arguments, instead) = match arguments {
            Ok(written) => written,
            Err(error) => return told(Err(error)),
        };
        let told = move |reply: Reply| told(reply.decode());
        let usual = named.is_empty() && when_down == WhenDown::Wait;
        let head = node.head(&action).filter(|_| usual).and_then(|head| match within {
            Some(CALL_WITHIN) => Some(head),
            _ => node.other_head(head, Some(within), None),
        });
        match head {
            Some(head) if head.encoding() == Encoding::Bincode => node.call_with(head, &arguments, told),
            Some(head) if head.encoding() == Encoding::MessagePack && instead.is_some() => {
                node.call_with(head, &instead.unwrap_or(arguments), told);
            }
            _ => {
                let arguments = arguments.into_payload();
                let call = ActorCall { action, node: named, arguments, within, when_down };
                node.ask_with(in_wanted_encoding(node, call, instead.map(Arguments::into_payload)), told);
            }
        }
    }
}

impl<R: 'static> Message for Call<R> {
    type Result = Result<R, CallError>;
}

/// A [`Call`] that its actor submits. Its sender is told by the response actor, without a task of its own.
pub struct Submitted<R> {
    node: Arc<ActorNode>,
    call: Call<R>,
}

impl<A: Actor, R: DeserializeOwned + Send + 'static> MessageResponse<A, Call<R>> for Submitted<R> {
    fn handle(self, _: &mut A::Context, sender: Option<OneshotSender<Result<R, CallError>>>) {
        self.call.submit(&self.node, move |result| {
            // A sender that does not wait has dropped its end.
            if let Some(sender) = sender {
                let _ = sender.send(result);
            }
        });
    }
}

impl<R: DeserializeOwned + Send + 'static> Handler<Call<R>> for BranchActor {
    type Result = Submitted<R>;

    fn handle(&mut self, call: Call<R>, _: &mut actix::Context<Self>) -> Self::Result {
        Submitted { node: Arc::clone(self.node()), call }
    }
}

impl<R: DeserializeOwned + Send + 'static> Handler<Call<R>> for MasterActor {
    type Result = Submitted<R>;

    fn handle(&mut self, call: Call<R>, _: &mut actix::Context<Self>) -> Self::Result {
        Submitted { node: Arc::clone(self.node()), call }
    }
}

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
use meshwork_actors::node::{Arguments, Call as ActorCall, Head, Node as ActorNode, PendingCall, WhenDown};
use meshwork_wire::limits::CALL_WITHIN;
use meshwork_wire::{ByteString, CallError, Code, EncodeError, Encoding, Fate, Payload};
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
    decode: fn(Reply) -> Result<R, CallError>,
}

enum State {
    /// Not polled yet, and written here when it is.
    Ready {
        node: Arc<ActorNode>,
        head: Head,
        arguments: Arguments,
    },
    /// Not polled yet, and written by the actor of the node, or answered by it.
    Asked(Box<Asked>),
    /// The arguments cannot be written.
    Failed(CallError),
    /// The handle of a master is used for the first time: the master is asked for what they share.
    Attaching(BoxFuture<'static, Result<(Arc<ActorNode>, ActorCall), CallError>>),
    Pending(PendingCall),
    Done,
}

/// A call that the actor of the node writes, or answers itself.
struct Asked {
    node: Node,
    call: ActorCall,
    /// The arguments in the other encoding, while it is not known which one is wanted.
    instead: Option<Payload>,
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
        let state = match node.attached() {
            Some(attached) => match attached.head(action.as_ref()) {
                Some(head) => match Arguments::encode(head.encoding(), arguments) {
                    Ok(arguments) => State::Ready { node: Arc::clone(attached), head, arguments },
                    Err(error) => State::Failed(error.into()),
                },
                None => {
                    let action = action.into();
                    let encoding = attached.encoding_for(&action);
                    State::asked(node, action, Payload::encode(encoding, arguments), None)
                }
            },
            // Which of the two is wanted shows when the handle is attached.
            None => {
                let instead = Payload::encode(Encoding::MessagePack, arguments).ok();
                State::asked(node, action.into(), Payload::encode(Encoding::Bincode, arguments), instead)
            }
        };
        Self { state, decode: Reply::decode }
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
        head: impl FnOnce(&ActorNode, Head) -> Option<Head>,
        change: impl FnOnce(&mut ActorCall),
    ) -> Self {
        match &mut self.state {
            State::Ready { node, head: now, arguments } => match head(node, *now) {
                Some(other) => *now = other,
                None => {
                    if let Some(mut call) = node.call_of(*now, arguments.clone()) {
                        change(&mut call);
                        let node = Node::of_branch(Arc::clone(node));
                        self.state = State::Asked(Box::new(Asked { node, call, instead: None }));
                    }
                }
            },
            State::Asked(asked) => change(&mut asked.call),
            State::Failed(_) | State::Attaching(_) | State::Pending(_) | State::Done => {}
        }
        self
    }
}

impl State {
    fn asked(
        node: &Node,
        action: ByteString,
        arguments: Result<Payload, EncodeError>,
        instead: Option<Payload>,
    ) -> Self {
        match arguments {
            Ok(arguments) => {
                let call = ActorCall::new(action, arguments);
                State::Asked(Box::new(Asked { node: node.clone(), call, instead }))
            }
            Err(error) => State::Failed(error.into()),
        }
    }

    /// Submits it, if it is polled for the first time.
    #[inline]
    fn submit(&mut self, context: &mut Context<'_>) -> Result<(), CallError> {
        match self {
            State::Ready { .. } | State::Asked(_) | State::Failed(_) | State::Attaching(_) => {}
            State::Pending(_) | State::Done => return Ok(()),
        }
        *self = match std::mem::replace(self, State::Done) {
            State::Ready { node, head, arguments } => {
                State::Pending(PendingCall::submit(node, head, &arguments, context)?)
            }
            state => return self.submit_slowly(state, context),
        };
        Ok(())
    }

    fn submit_slowly(&mut self, state: State, context: &mut Context<'_>) -> Result<(), CallError> {
        let attaching = match state {
            State::Asked(asked) => {
                let Asked { node, call, instead } = *asked;
                match node.into_attached() {
                    Ok(attached) => {
                        *self = State::Pending(PendingCall::ask(attached, call, context)?);
                        return Ok(());
                    }
                    Err(node) => async move {
                        let attached = node.attach().await?;
                        let call = in_wanted_encoding(&attached, call, instead);
                        Ok((attached, call))
                    }
                    .boxed(),
                }
            }
            State::Failed(error) => return Err(error),
            State::Attaching(attaching) => attaching,
            State::Ready { .. } | State::Pending(_) | State::Done => return Ok(()),
        };
        let mut attaching = attaching;
        *self = match attaching.poll_unpin(context) {
            Poll::Ready(attached) => {
                let (node, call) = attached?;
                State::Pending(PendingCall::ask(node, call, context)?)
            }
            Poll::Pending => State::Attaching(attaching),
        };
        Ok(())
    }
}

impl Calling<Payload> {
    /// A call whose arguments are written already, and whose reply is not read: for tools that know no types.
    pub(crate) fn raw(node: &Node, action: ByteString, arguments: Payload) -> Self {
        Self { state: State::asked(node, action, Ok(arguments), None), decode: Reply::into_outcome }
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

impl<R> Future for Calling<R> {
    type Output = Result<R, CallError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.state.submit(context)?;
        let reply = match &mut this.state {
            State::Pending(pending) => pending.poll(context),
            State::Attaching(_) => Poll::Pending,
            State::Ready { .. } | State::Asked(_) | State::Failed(_) | State::Done => {
                let again = CallError::new(Code::CANCELLED, Fate::Unknown, "a call was awaited twice");
                return Poll::Ready(Err(again));
            }
        };
        let Poll::Ready(reply) = reply else {
            return Poll::Pending;
        };
        this.state = State::Done;
        Poll::Ready((this.decode)(reply))
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

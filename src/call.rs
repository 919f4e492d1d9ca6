//! Calling actions. [`Calling`] is the future of a call, made by [`Node::call`](crate::Node::call); [`Call`] is a call as a
//! message to an actor. Which one? [`Calling`] is cheaper, and cancels the call when it is dropped; [`Call`] fits where
//! everything else is a message.

use crate::choosing::{add_label, set_key};
use crate::handle::Node;
use crate::record::{AsList, Method, Record};
use crate::streaming::{ByName, Opening, decode_item, is_kept};
use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Handler, Message};
use futures::FutureExt;
use futures::future::BoxFuture;
use meshwork_actors::branch::BranchActor;
use meshwork_actors::calls::Reply;
use meshwork_actors::master::MasterActor;
use meshwork_actors::node::{
    Arguments, Call as ActorCall, Head, HeadIndex, Node as ActorNode, Wanted, WhenDown,
};
use meshwork_wire::limits::{ARGUMENTS_KEPT_LEN_MAX, CALL_WITHIN};
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, EncodeError, Encoding, Fate, Form, Headers, Outcome, Payload,
    PayloadRef,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// The future of a call. The request is sent when the future is first polled; dropping the future cancels the call, at the
/// responder too.
///
/// It resolves to the reply or to a [`CallError`], whose [`Fate`] says whether the action may have run. Every call ends, at the
/// latest with its deadline: by default after 10 s.
///
/// The error is a `CallError`, unless [`Calling::failing_as`] names another type that is made of one.
#[must_use = "a call is not made before it is awaited"]
pub struct Calling<R, E = CallError> {
    /// None before the handle of a master is attached, which its first call does.
    node: Option<Arc<ActorNode>>,
    stage: Stage,
    decode: fn(Reply) -> Result<R, CallError>,
    /// Writes the arguments of a method by name, once.
    by_name: Option<ByName>,
    fails_as: PhantomData<fn() -> E>,
}

enum Stage {
    /// The task that polls the call writes its frame. A call in bincode keeps its arguments when it is submitted: a provider that came with
    /// other types may refuse them. They stay where they are, since each move of them costs as much as writing two integers.
    Written {
        sent: Sent,
        arguments: Arguments,
    },
    /// Not polled yet. The actor of the node writes the request, or answers it.
    Unwritten(Box<ActorCall>),
    /// The call cannot be submitted yet.
    Preparing(Box<Preparing>),
    /// Submitted, and its arguments are kept, of a call that the actor wrote.
    Asked(CallbackId, Box<ActorCall>),
    /// On its way through the layers of the node, or made for a request whose cancel ends it.
    Layered(Box<Layered>),
    /// Submitted; the reply resolves this callback id.
    InFlight(CallbackId),
    Done,
}

/// Whether a call has been submitted.
#[derive(Clone, Copy)]
enum Sent {
    /// Not polled yet.
    NotYet(Head),
    /// Submitted; the reply resolves this callback id.
    As(CallbackId, HeadIndex),
}

/// A call on its way through the layers of its node, or for a request.
struct Layered {
    outcome: BoxFuture<'static, Outcome>,
    /// The call, if its arguments may have to be written by name.
    kept: Option<Box<ActorCall>>,
    deadline: Option<Instant>,
}

/// The state that a master shares with its handles, and the call that asked for it.
type Attached = (Arc<ActorNode>, Box<ActorCall>);

enum Preparing {
    /// The arguments cannot be written.
    Failed(Option<CallError>),
    /// Not polled yet, and the handle of the master is not attached. `call` has a record of arguments, `as_list` has them as a list: only an
    /// attached handle knows what the provider takes.
    Unattached { node: Node, call: Box<ActorCall>, as_list: Option<Payload> },
    /// The master is asked for the state that it shares with its handles.
    Attaching(BoxFuture<'static, Result<Attached, CallError>>),
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
        let direct = node.direct();
        let (attached, stage) = match direct.and_then(|direct| direct.head(action.as_ref())) {
            // No `map`: each would move the whole stage.
            Some((head, wanted)) => match Arguments::encode(wanted.form, arguments) {
                Ok(arguments) => (direct, Stage::Written { sent: Sent::NotYet(head), arguments }),
                Err(error) => (direct, Stage::failed(error.into())),
            },
            None => (node.attached(), Stage::unwritten(node, action.into(), arguments)),
        };
        Self { node: attached.cloned(), stage, decode: Reply::decode, by_name: None, fails_as: PhantomData }
    }

    /// A call of a method of a trait, with its arguments as a record.
    #[inline]
    pub(crate) fn typed<A: Record<Reply = R>>(node: &Node, arguments: &A) -> Self
    where
        R: DeserializeOwned,
    {
        let method = A::method();
        let direct = node.direct();
        let head = direct.and_then(|direct| direct.head_of_method(method.action(), method.signature()));
        let (attached, stage) = match head {
            Some((head, wanted)) => match write_record(wanted, arguments) {
                Ok(arguments) if arguments.encoding() == wanted.form.encoding() => {
                    (direct, Stage::Written { sent: Sent::NotYet(head), arguments })
                }
                // Bincode has no form for these arguments, so the head of calls in bincode is not theirs.
                other => (direct, Stage::of_record(node, method, other)),
            },
            None => (node.attached(), Stage::unwritten_record(node, method, arguments)),
        };
        let (decode, by_name) = (decode_typed::<A>, Some(by_name::<A> as ByName));
        Self { node: attached.cloned(), stage, decode, by_name, fails_as: PhantomData }
    }
}

impl<R, E> Calling<R, E> {
    /// Sets the deadline: how long the call waits for its reply. Default: 10 s; `Duration::MAX`: for ever. The responder is told
    /// how much of the time is left. When it has passed, the call ends with `REQUEST_TIMEOUT`.
    pub fn within(self, within: Duration) -> Self {
        let within = (within != Duration::MAX).then_some(within);
        self.with(|node, head| node.other_head(head, Some(within), None), |call| call.within = within)
    }

    /// Sends the request to the node of this name and to no other provider of the action.
    pub fn on(self, node: impl Into<ByteString>) -> Self {
        let named = node.into();
        self.with(|node, head| node.other_head(head, None, Some(&named)), |call| call.node.clone_from(&named))
    }

    /// Sets a header, which travels beside the arguments to the responder: see [`Headers`] for names and values. The responder reads it from its
    /// [`CallContext`](crate::CallContext). A provider of a version without headers answers without them.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// let sum: i64 = branch.call("add", (22, 22)).header("tenant", "a").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A name or a value that cannot be one of a header, and more headers than there may be, fail the call: not sent.
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with_headers(|headers| headers.insert(name.as_ref(), value.as_ref()))
    }

    /// Marks the call as one that may be made again: its requests carry a key, drawn by chance, by which the provider runs it once. A request with
    /// the key that comes again gets the outcome of the first, or waits for it while the first still runs. So a layer that retries
    /// (`meshwork::tower::RetryNotSent`, behind the feature `tower`) makes the call again also when it may have run, as when a link was lost.
    ///
    /// A provider remembers the outcome for two minutes by default, and shorter when many come ([`Limits::doubles_max`](crate::Limits)). It
    /// runs the call to its end, though the caller gives up. It knows its own calls only: a retry that another provider gets, or the same one
    /// after a restart, runs there. Name a node ([`Calling::on`]) where that must not be.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// let receipt: String = branch.call("payments/charge", ("order 17", 4_200)).idempotent().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn idempotent(self) -> Self {
        let key = ActorCall::draw_key();
        self.with_headers(|headers| headers.insert_own(Headers::IDEMPOTENCY_KEY, &key))
    }

    /// As [`Calling::idempotent`], with a key of the application, such as the number of an order: calls of the action with this key, of this node,
    /// are one call, whatever their arguments, also those that the program makes itself. A key is a header: up to 4 KiB of text.
    pub fn idempotency_key(self, key: impl AsRef<str>) -> Self {
        self.with_headers(|headers| headers.insert_own(Headers::IDEMPOTENCY_KEY, key.as_ref()))
    }

    /// Sets these headers too.
    pub(crate) fn headers(self, headers: &Headers) -> Self {
        if headers.is_empty() { self } else { self.with_headers(|there| there.extend(headers)) }
    }

    /// Sends all calls of one key to one provider of the action, as long as it is there and takes requests, whoever makes the call: for what a
    /// provider keeps of a customer, a room, a document. The key is the text of the value, of 1 to 255 bytes without control characters; it
    /// travels as the header `mesh-key`. Text has the same bytes in every version and on every machine, which a hash of Rust has not.
    ///
    /// - When a provider comes, goes or drains, only its own keys move: one that comes takes about its part of them from all others, in proportion
    ///   to its [weight](crate::ConfigureNode::weight). Providers are told apart by name, so one that comes back has its keys again; several
    ///   branches of one name share the keys of the name.
    /// - While a provider has a rest, since it failed in a row, its keys go to the provider that would have them without it. One that has no room
    ///   keeps them: the call fails with `OVERLOADED`, not sent.
    /// - With [`Calling::on`], the key chooses among the branches of that name, with [`Calling::label`] among the providers with the label.
    /// - The master decides, also where this node answers the action itself. A master that answers the action itself answers all calls.
    ///
    /// Finding the provider costs the master a step for each. The call fails, not sent, with `BAD_NAME` if the key is empty or too long, and with
    /// `CANNOT_ENCODE` if the master is of an earlier version or of another protocol, which knows no keys.
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch, customer: String) -> Result<(), CallError> {
    /// let total: u64 = branch.call("cart/total", ()).key(&customer).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn key(self, key: impl fmt::Display) -> Self {
        self.with_headers(|headers| set_key(headers, key))
    }

    /// Sends the call only to a provider with this [label](crate::ConfigureNode::label), and with all others that are asked for: at most 8.
    /// A call that finds none fails with `ACTION_NOT_FOUND`, not sent; the message names the labels that there are. Labels travel as the header
    /// `mesh-label`. The master decides, also where this node answers the action itself; one that knows no labels is as with [`Calling::key`].
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// # async fn example(branch: Branch) -> Result<(), CallError> {
    /// let price: u64 = branch.call("price", "a7").label("version", "2").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What is no label fails the call with `BAD_NAME`: not sent.
    pub fn label(self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        self.with_headers(|headers| add_label(headers, name, value))
    }

    /// Changes the headers. The actor writes a call that has some.
    fn with_headers<F: Into<CallError>>(self, change: impl FnOnce(&mut Headers) -> Result<(), F>) -> Self {
        let mut changed = Ok(());
        let mut this = self.with(|_, _| None, |call| changed = change(&mut call.headers));
        if let Err(error) = changed {
            this.stage = Stage::failed(error.into());
        }
        this
    }

    /// Fails at once when the link to the master is down. By default the call waits for the link, within its deadline.
    pub fn fail_when_down(self) -> Self {
        self.with(|_, _| None, |call| call.when_down = WhenDown::Fail)
    }

    /// Makes the error of the call an error of this type, such as that of the action:
    ///
    /// ```
    /// # use meshwork::prelude::*;
    /// enum StockError {
    ///     OutOfStock,
    ///     Call(CallError),
    /// }
    ///
    /// impl From<CallError> for StockError {
    ///     fn from(error: CallError) -> Self {
    ///         if error.name() == "OutOfStock" { StockError::OutOfStock } else { StockError::Call(error) }
    ///     }
    /// }
    ///
    /// async fn take(branch: &Branch) -> Result<u32, StockError> {
    ///     branch.call("stock/take", "a7").failing_as().await
    /// }
    /// ```
    pub fn failing_as<F: From<CallError>>(self) -> Calling<R, F> {
        let mut this = self;
        let stage = std::mem::replace(&mut this.stage, Stage::Done);
        let (decode, by_name) = (this.decode, this.by_name);
        Calling { node: this.node.take(), stage, decode, by_name, fails_as: PhantomData }
    }

    /// Takes another head where the node can write one, else changes the call, which the actor then writes.
    fn with(
        mut self,
        other_head: impl FnOnce(&ActorNode, Head) -> Option<Head>,
        change: impl FnOnce(&mut ActorCall),
    ) -> Self {
        match (&mut self.stage, &self.node) {
            (Stage::Written { sent: Sent::NotYet(head), arguments }, Some(node)) => {
                match other_head(node, *head) {
                    Some(other) => *head = other,
                    None => {
                        if let Some(mut call) = node.call_of(head.index(), arguments.clone()) {
                            change(&mut call);
                            self.stage = Stage::Unwritten(Box::new(call));
                        }
                    }
                }
            }
            (Stage::Unwritten(call), _) => change(call),
            (Stage::Preparing(preparing), _) => {
                if let Preparing::Unattached { call, .. } = &mut **preparing {
                    change(call);
                }
            }
            (
                Stage::Written { .. }
                | Stage::Asked(..)
                | Stage::Layered(_)
                | Stage::InFlight(_)
                | Stage::Done,
                _,
            ) => {}
        }
        self
    }

    /// Attaches the handle of a master. The call is [`Stage::Unwritten`] when this is ready.
    fn poll_preparing(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        let Stage::Preparing(preparing) = &mut self.stage else {
            return Poll::Ready(Ok(()));
        };
        if let Preparing::Unattached { node, call, as_list } = &mut **preparing {
            let (node, mut call, as_list) = (node.clone(), call.clone(), as_list.take());
            **preparing = Preparing::Attaching(Box::pin(async move {
                let attached = node.attach().await?;
                if let Some(list) = as_list.filter(|_| attached.wanted(&call.action, None).as_list) {
                    call.arguments = list;
                }
                Ok((attached, call))
            }));
        }
        let attached = match &mut **preparing {
            Preparing::Failed(error) => Err(error.take().unwrap_or_else(awaited_twice)),
            Preparing::Attaching(attaching) => ready!(attaching.poll_unpin(context)),
            Preparing::Unattached { .. } => return Poll::Pending,
        };
        Poll::Ready(attached.map(|(node, call)| {
            self.node = Some(node);
            self.stage = Stage::Unwritten(call);
        }))
    }
}

impl Stage {
    #[cold]
    fn unwritten<A: Serialize>(node: &Node, action: ByteString, arguments: &A) -> Self {
        if let Some(attached) = node.attached() {
            return match Payload::encode(attached.wanted(&action, None).form, arguments) {
                Ok(arguments) => Stage::of_call(node, action, arguments),
                Err(error) => Stage::failed(error.into()),
            };
        }
        match Payload::encode(Encoding::MessagePack, arguments) {
            Ok(arguments) => Stage::unattached(node, action, arguments, None),
            Err(error) => Stage::failed(error.into()),
        }
    }

    #[cold]
    fn unwritten_record<A: Record>(node: &Node, method: &Method, arguments: &A) -> Self {
        if let Some(attached) = node.attached() {
            let wanted = attached.wanted(method.action(), method.signature());
            return Stage::of_record(node, method, write_record(wanted, arguments));
        }
        // Whether a provider takes lists is known when the handle is attached.
        let as_list = Payload::encode(Encoding::MessagePack, &AsList(arguments)).ok();
        match Payload::encode(Encoding::MessagePack, arguments) {
            Ok(arguments) => {
                Stage::unattached(node, ByteString::from_static(method.action()), arguments, as_list)
            }
            Err(error) => Stage::failed(error.into()),
        }
    }

    fn unattached(node: &Node, action: ByteString, arguments: Payload, as_list: Option<Payload>) -> Self {
        let call = Box::new(node.adopt(ActorCall::new(action, arguments)));
        Stage::Preparing(Box::new(Preparing::Unattached { node: node.clone(), call, as_list }))
    }

    #[cold]
    fn of_record(node: &Node, method: &Method, arguments: Result<Arguments, EncodeError>) -> Self {
        match arguments {
            Ok(arguments) => {
                Stage::of_call(node, ByteString::from_static(method.action()), arguments.into_payload())
            }
            Err(error) => Stage::failed(error.into()),
        }
    }

    fn of_call(node: &Node, action: ByteString, arguments: Payload) -> Self {
        Stage::Unwritten(Box::new(node.adopt(ActorCall::new(action, arguments))))
    }

    fn failed(error: CallError) -> Self {
        Stage::Preparing(Box::new(Preparing::Failed(Some(error))))
    }
}

impl<R> Calling<R> {
    /// A call whose arguments are written already, of a handle that is attached.
    pub(crate) fn written(
        node: &Arc<ActorNode>,
        call: ActorCall,
        decode: fn(Reply) -> Result<R, CallError>,
    ) -> Self {
        let (node, stage) = (Some(Arc::clone(node)), Stage::Unwritten(Box::new(call)));
        Self { node, stage, decode, by_name: None, fails_as: PhantomData }
    }
}

impl Calling<Payload> {
    /// A call whose arguments are written already, and whose reply is not read: for tools that know no types.
    pub(crate) fn raw(node: &Node, action: ByteString, arguments: Payload) -> Self {
        let call = Box::new(node.adopt(ActorCall::new(action, arguments)));
        let stage = match node.attached() {
            Some(_) => Stage::Unwritten(call),
            None => {
                Stage::Preparing(Box::new(Preparing::Unattached { node: node.clone(), call, as_list: None }))
            }
        };
        let node = node.attached().cloned();
        Self { node, stage, decode: Reply::into_outcome, by_name: None, fails_as: PhantomData }
    }
}

/// Writes the arguments of a method as its providers want them; in MessagePack if bincode has no form for them.
#[inline(always)]
fn write_record<A: Record>(wanted: Wanted, arguments: &A) -> Result<Arguments, EncodeError> {
    if wanted.as_list {
        return write_list(wanted, arguments);
    }
    match Arguments::encode(wanted.form, arguments) {
        Err(_) if wanted.form.encoding() == Encoding::Bincode => write_by_name(arguments),
        written => written,
    }
}

#[inline(never)]
fn write_list<A: Record>(wanted: Wanted, arguments: &A) -> Result<Arguments, EncodeError> {
    Arguments::encode(wanted.form, &AsList(arguments))
}

#[cold]
#[inline(never)]
fn write_by_name<A: Record>(arguments: &A) -> Result<Arguments, EncodeError> {
    Arguments::encode(Encoding::MessagePack, arguments)
}

/// A call of a method of a trait.
#[inline]
pub fn call_typed<A: Record>(node: &Node, arguments: &A) -> Calling<A::Reply> {
    Calling::typed(node, arguments)
}

/// A stream that a method of a trait answers with.
pub fn stream_typed<A: Record>(node: &Node, arguments: &A) -> Opening<A::Reply> {
    let method = A::method();
    let written = match node.attached() {
        Some(attached) => write_record(attached.wanted(method.action(), method.signature()), arguments),
        None => write_by_name(arguments),
    };
    let (action, form) = (ByteString::from_static(method.action()), method.signature().map(Form::reply));
    let written = written.map(Arguments::into_payload).map_err(CallError::from);
    Opening::new(node, action, written, decode_item).typed(form, by_name::<A>)
}

/// Reads the reply to a call of a method.
#[inline]
fn decode_typed<A: Record<Reply: DeserializeOwned>>(reply: Reply) -> Result<A::Reply, CallError> {
    match A::method().signature() {
        Some(signature) => reply.decode_with(Form::reply(signature)),
        None => reply.decode(),
    }
}

/// Writes the arguments of a method that were written in bincode.
#[cold]
fn by_name<A: Record>(wanted: Wanted, arguments: Payload) -> Option<Payload> {
    let form = Form::arguments(A::method().signature()?);
    let arguments: A = PayloadRef::from(&arguments).decode_with(form).ok()?;
    Some(write_record(wanted, &arguments).ok()?.into_payload())
}

fn awaited_twice() -> CallError {
    CallError::new(Code::CANCELLED, Fate::Unknown, "a call was awaited twice")
}

impl<R, E: From<CallError>> Future for Calling<R, E> {
    type Output = Result<R, E>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_outcome(context).map(|outcome| outcome.map_err(E::from))
    }
}

impl<R, E> Calling<R, E> {
    #[inline]
    fn poll_outcome(&mut self, context: &mut Context<'_>) -> Poll<Result<R, CallError>> {
        let Some(node) = &self.node else {
            return self.poll_rarer(context);
        };
        let callback_id = match &mut self.stage {
            Stage::InFlight(callback_id)
            | Stage::Written { sent: Sent::As(callback_id, _), .. }
            | Stage::Asked(callback_id, _) => *callback_id,
            Stage::Written { sent, arguments } => {
                let Sent::NotYet(head) = *sent else { return self.poll_rarer(context) };
                return match node.call(head, arguments, context.waker()) {
                    // The node keeps the waker, and wakes this task for the reply.
                    Ok(callback_id) => {
                        if self.by_name.is_some() && arguments.is_bincode_within(ARGUMENTS_KEPT_LEN_MAX) {
                            *sent = Sent::As(callback_id, head.index());
                        } else {
                            self.stage = Stage::InFlight(callback_id);
                        }
                        Poll::Pending
                    }
                    Err(error) => {
                        self.stage = Stage::Done;
                        Poll::Ready(Err(error))
                    }
                };
            }
            _ => return self.poll_rarer(context),
        };
        let outcome = (self.decode)(ready!(node.poll_reply(callback_id, context.waker())));
        if let Err(error) = &outcome
            && let Some(call) = self.again(callback_id, error)
        {
            self.stage = Stage::Unwritten(call);
            return self.poll_rarer(context);
        }
        self.stage = Stage::Done;
        Poll::Ready(outcome)
    }

    /// Polls a call that the actor of the node writes, or that goes through layers. One that the actor writes is pending when this has submitted
    /// it, else it has failed.
    #[inline(never)]
    fn poll_rarer(&mut self, context: &mut Context<'_>) -> Poll<Result<R, CallError>> {
        if let Stage::Layered(_) = &self.stage {
            return self.poll_layered(context);
        }
        if let Stage::Preparing(_) = &self.stage
            && let Err(error) = ready!(self.poll_preparing(context))
        {
            self.stage = Stage::Done;
            return Poll::Ready(Err(error));
        }
        let (Some(node), Stage::Unwritten(call)) =
            (&self.node, std::mem::replace(&mut self.stage, Stage::Done))
        else {
            return Poll::Ready(Err(awaited_twice()));
        };
        if node.has_layers() || call.cause.is_some() {
            self.stage = Stage::Layered(Box::new(Layered::new(node, *call, self.by_name.is_some())));
            return self.poll_layered(context);
        }
        let kept = (self.by_name.is_some() && is_kept(&call.arguments)).then(|| call.clone());
        match node.ask(*call, context.waker()) {
            Ok(callback_id) => {
                self.stage = match kept {
                    Some(call) => Stage::Asked(callback_id, call),
                    None => Stage::InFlight(callback_id),
                };
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    #[cold]
    fn poll_layered(&mut self, context: &mut Context<'_>) -> Poll<Result<R, CallError>> {
        while let Stage::Layered(layered) = &mut self.stage {
            let outcome = (self.decode)(ready!(layered.outcome.as_mut().poll(context)).into());
            let refused = outcome.as_ref().err().filter(|error| has_other_types(error));
            let again = match (&self.node, refused.and_then(|_| self.by_name.take())) {
                (Some(node), Some(by_name)) => layered.again(node, by_name),
                _ => None,
            };
            match again {
                Some(again) => self.stage = Stage::Layered(Box::new(again)),
                None => {
                    self.stage = Stage::Done;
                    return Poll::Ready(outcome);
                }
            }
        }
        Poll::Ready(Err(awaited_twice()))
    }

    /// The same call by name, if its provider refused the bincode and has run nothing: a provider of another version may have come before the news
    /// of it. It has the time that is left.
    #[cold]
    fn again(&mut self, callback_id: CallbackId, error: &CallError) -> Option<Box<ActorCall>> {
        if !has_other_types(error) {
            return None;
        }
        let (node, by_name) = (self.node.as_ref()?, self.by_name.take()?);
        let mut call = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Written { sent: Sent::As(_, head), arguments } => Box::new(node.call_of(head, arguments)?),
            Stage::Asked(_, call) => call,
            _ => return None,
        };
        call.within = node.time_left(callback_id)?;
        call.arguments = by_name(node.wanted(&call.action, None), call.arguments)?;
        Some(call)
    }
}

impl Layered {
    fn new(node: &ActorNode, call: ActorCall, may_be_by_name: bool) -> Self {
        let kept = (may_be_by_name && is_kept(&call.arguments)).then(|| Box::new(call.clone()));
        let deadline = call.within.and_then(|within| Instant::now().checked_add(within));
        Self { outcome: node.layered(call), kept, deadline }
    }

    /// The same call by name, with the time that is left: see [`Calling::again`].
    fn again(&mut self, node: &ActorNode, by_name: ByName) -> Option<Self> {
        let mut call = *self.kept.take()?;
        if let Some(deadline) = self.deadline {
            call.within = Some(deadline.checked_duration_since(Instant::now())?);
        }
        call.arguments = by_name(node.wanted(&call.action, None), call.arguments)?;
        Some(Self::new(node, call, false))
    }
}

/// Whether a provider refused the arguments since it has other types, and has run nothing.
fn has_other_types(error: &CallError) -> bool {
    error.code() == Code::CANNOT_DECODE && error.fate() == Fate::NotSent
}

impl<R, E> Drop for Calling<R, E> {
    #[inline]
    fn drop(&mut self) {
        let (Stage::InFlight(callback_id)
        | Stage::Asked(callback_id, _)
        | Stage::Written { sent: Sent::As(callback_id, _), .. }) = &self.stage
        else {
            return;
        };
        if let Some(node) = &self.node {
            node.forget(*callback_id);
        }
    }
}

/// A call as a message to an `Addr<BranchActor>` or `Addr<MasterActor>`. Its result is the reply, or the [`CallError`] that
/// says why there is none.
///
/// Dropping the `send()` does not cancel the call: it ends with its reply or its deadline.
pub struct Call<R> {
    action: ByteString,
    arguments: Result<Arguments, CallError>,
    within: Option<Duration>,
    node: ByteString,
    headers: Result<Headers, CallError>,
    when_down: WhenDown,
    reply: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    /// A call of an action. The arguments are written now.
    pub fn new(action: impl Into<ByteString>, arguments: impl Serialize) -> Self {
        Self {
            action: action.into(),
            arguments: Arguments::encode(Encoding::MessagePack, &arguments).map_err(CallError::from),
            within: Some(CALL_WITHIN),
            node: ByteString::new(),
            headers: Ok(Headers::none()),
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

    /// See [`Calling::header`].
    #[must_use]
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with_headers(|headers| Ok(headers.insert(name.as_ref(), value.as_ref())?))
    }

    /// See [`Calling::key`].
    #[must_use]
    pub fn key(self, key: impl fmt::Display) -> Self {
        self.with_headers(|headers| set_key(headers, key))
    }

    /// See [`Calling::label`].
    #[must_use]
    pub fn label(self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        self.with_headers(|headers| add_label(headers, name, value))
    }

    fn with_headers(mut self, change: impl FnOnce(&mut Headers) -> Result<(), CallError>) -> Self {
        self.headers = self.headers.and_then(|mut headers| change(&mut headers).map(|()| headers));
        self
    }

    /// See [`Calling::fail_when_down`].
    #[must_use]
    pub fn fail_when_down(mut self) -> Self {
        self.when_down = WhenDown::Fail;
        self
    }

    /// Submits the call; `on_outcome` is called with its reply or its error.
    fn submit(self, node: &ActorNode, on_outcome: impl FnOnce(Result<R, CallError>) + Send + 'static)
    where
        R: DeserializeOwned + 'static,
    {
        let Self { action, arguments, within, node: named, headers, when_down, .. } = self;
        let written = headers.and_then(|headers| Ok((arguments?, headers)));
        let (arguments, headers) = match written {
            Ok(written) => written,
            Err(error) => return on_outcome(Err(error)),
        };
        let on_outcome = move |reply: Reply| on_outcome(reply.decode());
        let usual = named.is_empty() && when_down == WhenDown::Wait && headers.is_empty();
        let found =
            node.head(&action).filter(|(_, wanted)| usual && wanted.form.encoding() == arguments.encoding());
        let head = found.and_then(|(head, _)| match within {
            Some(CALL_WITHIN) => Some(head),
            _ => node.other_head(head, Some(within), None),
        });
        match head {
            Some(head) => {
                node.call_with(head, &arguments, on_outcome);
            }
            _ => {
                let call = ActorCall::new(action, arguments.into_payload());
                let call = ActorCall { node: named, within, headers, when_down, ..call };
                if node.has_layers() {
                    // On the arbiter of the node, whose actor handles the message.
                    actix::spawn(node.layered(call).map(|outcome| on_outcome(outcome.into())));
                } else {
                    node.ask_with(call, on_outcome);
                }
            }
        }
    }
}

impl<R: 'static> Message for Call<R> {
    type Result = Result<R, CallError>;
}

/// The result of handling a [`Call`]: the call is submitted, and the response actor sends its outcome straight to the sender of
/// the message, without a task in between.
pub struct Submitted<R> {
    node: Arc<ActorNode>,
    call: Call<R>,
}

impl<A: Actor, R: DeserializeOwned + Send + 'static> MessageResponse<A, Call<R>> for Submitted<R> {
    fn handle(self, _: &mut A::Context, sender: Option<OneshotSender<Result<R, CallError>>>) {
        self.call.submit(&self.node, move |result| {
            // A sender that does not wait has dropped the receiving end.
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

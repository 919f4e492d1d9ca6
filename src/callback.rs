//! Functions as arguments: a [`Callback`] stands anywhere in the arguments of a call, or in its reply, and the node that it
//! reaches can call it.

use crate::action_error::ActionError;
use actix::{Message, Recipient};
use futures::FutureExt;
use futures::stream::{Stream, StreamExt, TryStreamExt};
use meshwork_wire::limits::{CALL_WITHIN, IN_FLIGHT_MAX};
use meshwork_wire::{
    CallError, Callable, Code, Encoding, Fate, Function, Invocation, Invoked, Payload, Wants,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;

/// A function that can be passed to another node: as an argument, in a reply, or as an argument of another callback; at any depth,
/// in a `Vec`, an `Option`, an enum. The receiver calls it any number of times, at once or later, or passes it on to a third
/// node.
///
/// `Args` is one serde value, a tuple for several arguments; `Ret` is the reply. A call of a callback that returns `()` is done
/// when the function has run.
///
/// A function lives as long as any handle on it, at any node; clones are handles on one function. A responder that keeps no
/// handle gives the function back when its request ends. A link that is lost ends all callbacks that were passed over it; a call
/// of such a callback fails at once with [`Code::CALLBACK_GONE`], not sent.
///
/// Callbacks are passed in calls, in their replies, and in calls of callbacks; events refuse them. One call passes at most
/// [`CALLBACKS_PER_REQUEST_MAX`](crate::limits::CALLBACKS_PER_REQUEST_MAX) of them, and one connection holds at most
/// [`CALLBACKS_PER_CONNECTION_MAX`](crate::limits::CALLBACKS_PER_CONNECTION_MAX) in each direction.
///
/// ```
/// use meshwork::prelude::*;
///
/// #[derive(Serialize, Deserialize)]
/// struct Import { path: String, progress: Callback<u8, ()> }
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let master = MasterActor::new("master").start();
/// let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
/// let files = BranchActor::new("files")
///     .respond("files/import", |import: Import| async move {
///         for percent in [0, 50, 100] {
///             import.progress.call(percent).await?;
///         }
///         Ok(import.path.len())
///     })
///     .bind(&address)
///     .await?;
/// let branch = BranchActor::new("branch").bind(address).await?;
///
/// let progress = Callback::new(|percent: u8| println!("{percent} %"));
/// let rows: usize = branch.call("files/import", Import { path: "a.csv".into(), progress }).await?;
/// # assert_eq!(rows, 5);
/// # drop(files);
/// # Ok(())
/// # }
/// ```
pub struct Callback<Args, Ret> {
    function: Function,
    types: PhantomData<fn(Args) -> Ret>,
}

impl<Args, Ret> Callback<Args, Ret>
where
    Args: DeserializeOwned + 'static,
    Ret: Serialize + 'static,
{
    /// A closure. It runs on the arbiter of the branch, or of the session at a master, that passed it, so it must be quick. A
    /// panic in the closure fails that call only.
    pub fn new(function: impl Fn(Args) -> Ret + Send + Sync + 'static) -> Self {
        Self::of(Local::new(move |arguments: Payload| {
            let encoding = arguments.encoding;
            let returned = arguments.decode_arguments().map(&function);
            std::future::ready(returned.map_err(CallError::from).and_then(|value| written(encoding, &value)))
        }))
    }

    /// An async closure, which may fail. Its future is dropped when the caller drops its call or the deadline passes.
    pub fn new_async<Fut>(function: impl Fn(Args) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<Ret, ActionError>> + Send + 'static,
    {
        Self::of(Local::new(move |arguments: Payload| {
            let encoding = arguments.encoding;
            let returned = arguments.decode_arguments().map(&function);
            async move { written(encoding, &returned?.await?) }
        }))
    }

    /// An actor that handles a message whose result is a `Result<_, ActionError>`.
    pub fn to_actor(recipient: Recipient<Args>) -> Self
    where
        Args: Message<Result = Result<Ret, ActionError>> + Send,
        Ret: Send,
    {
        Self::new_async(move |message: Args| {
            let sent = recipient.connected().then(|| recipient.send(message));
            async move {
                match sent {
                    Some(sent) => {
                        sent.await.unwrap_or_else(|_| Err(ActionError::callback_stopped(Fate::Unknown)))
                    }
                    None => Err(ActionError::callback_stopped(Fate::NotSent)),
                }
            }
        })
    }

    fn of(callable: impl Callable) -> Self {
        Self { function: Function::new(callable), types: PhantomData }
    }
}

impl<Args: Serialize, Ret: DeserializeOwned + 'static> Callback<Args, Ret> {
    /// Calls the function. The call is sent when it is first awaited, and waits at most 10 s unless [`Invoking::within`] says
    /// otherwise. Dropping the future while it waits cancels the call.
    ///
    /// # Errors
    ///
    /// `CALLBACK_GONE` when the node that passed the function, or the link to it, is gone; the error of the function itself; and
    /// the errors of any call.
    pub fn call(&self, arguments: Args) -> Invoking<Ret> {
        let arguments = Payload::encode(self.function.encoding(), &arguments).map_err(CallError::from);
        Invoking {
            function: self.function.clone(),
            arguments: Some(arguments),
            within: Some(CALL_WITHIN),
            invoked: None,
            reply: PhantomData,
        }
    }

    /// Calls the function and waits for nothing: neither for its end nor for whether it ran. Later calls of this callback reach
    /// the function after this one.
    ///
    /// # Errors
    ///
    /// When the arguments cannot be written, or the outbox of the link is full; for a function of this process, when
    /// [`IN_FLIGHT_MAX`] of its notifications are still running.
    pub async fn notify(&self, arguments: Args) -> Result<(), CallError> {
        let arguments = Payload::encode(self.function.encoding(), &arguments)?;
        self.function.invoke(Invocation { arguments, within: None, wants: Wants::Nothing }).await.map(drop)
    }

    /// Calls the function with each item of a stream, in order, with at most `at_once` calls in flight: a stream of any length
    /// goes as fast as the receiver takes it. Returns the number of items.
    ///
    /// # Errors
    ///
    /// The first call that fails ends the stream, with the error of that call.
    pub async fn feed(&self, items: impl Stream<Item = Args>, at_once: usize) -> Result<u64, CallError> {
        let calls = items.map(|item| self.call(item)).buffered(at_once.max(1));
        calls.try_fold(0, |count, _| std::future::ready(Ok(count + 1))).await
    }
}

/// A call of a [`Callback`], to be awaited.
#[must_use = "a call is sent when it is awaited"]
pub struct Invoking<Ret> {
    function: Function,
    arguments: Option<Result<Payload, CallError>>,
    within: Option<Duration>,
    invoked: Option<Invoked>,
    reply: PhantomData<fn() -> Ret>,
}

impl<Ret> Invoking<Ret> {
    /// Sets the deadline of the call. Default: 10 s; `Duration::MAX`: for ever.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = (within != Duration::MAX).then_some(within);
        self
    }
}

impl<Ret: DeserializeOwned + 'static> Future for Invoking<Ret> {
    type Output = Result<Ret, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(arguments) = this.arguments.take() {
            // A caller that expects `()` waits for the end of the function and needs no value from it.
            let wants = if TypeId::of::<Ret>() == TypeId::of::<()>() { Wants::End } else { Wants::Result };
            let invocation = Invocation { arguments: arguments?, within: this.within, wants };
            this.invoked = Some(this.function.invoke(invocation));
        }
        let Some(invoked) = &mut this.invoked else {
            let again = CallError::new(Code::CANCELLED, Fate::Unknown, "a call was awaited twice");
            return Poll::Ready(Err(again));
        };
        let outcome = std::task::ready!(invoked.as_mut().poll(context));
        this.invoked = None;
        Poll::Ready(outcome.and_then(|reply| Ok(reply.decode()?)))
    }
}

impl<Ret> Unpin for Invoking<Ret> {}

/// A function of this process.
struct Local<F> {
    function: F,
    /// How many notifications of this function are running: calls whose end no caller awaits.
    notifications: Arc<AtomicUsize>,
}

impl<F> Local<F> {
    fn new(function: F) -> Self {
        Self { function, notifications: Arc::default() }
    }
}

/// Counts one running notification, until it is dropped.
struct RunningNotification(Arc<AtomicUsize>);

impl RunningNotification {
    fn begin(notifications: &Arc<AtomicUsize>) -> Result<Self, CallError> {
        // Counts first: where that is one too many, dropping `this` takes it back.
        let this = Self(Arc::clone(notifications));
        if this.0.fetch_add(1, Ordering::Relaxed) < IN_FLIGHT_MAX {
            return Ok(this);
        }
        let what = format!("{IN_FLIGHT_MAX} calls of this callback are not done");
        Err(CallError::new(Code::OVERLOADED, Fate::NotSent, what))
    }
}

impl Drop for RunningNotification {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<F, Fut> Callable for Local<F>
where
    F: Fn(Payload) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Payload, CallError>> + Send + 'static,
{
    fn invoke(&self, Invocation { arguments, within, wants }: Invocation) -> Invoked {
        let encoding = arguments.encoding;
        let mut running = None;
        if wants == Wants::Nothing {
            match RunningNotification::begin(&self.notifications) {
                Ok(begun) => running = Some(begun),
                Err(error) => return Box::pin(std::future::ready(Err(error))),
            }
        }
        let returned = match catch_unwind(AssertUnwindSafe(|| (self.function)(arguments))) {
            Ok(returned) => AssertUnwindSafe(returned).catch_unwind(),
            Err(_) => return Box::pin(std::future::ready(Err(panicked()))),
        };
        let mut returned = Box::pin(returned);
        Box::pin(async move {
            // Most functions are ready at the first poll and need no timer.
            let outcome = match (futures::poll!(returned.as_mut()), wants, within) {
                (Poll::Ready(outcome), ..) => outcome,
                (Poll::Pending, Wants::Nothing, _) if Handle::try_current().is_ok() => {
                    // The notification runs to its end in a task of its own, and its outcome is dropped.
                    tokio::spawn(async move {
                        let _running = running;
                        let _ = returned.await;
                    });
                    return Ok(Payload::default());
                }
                (Poll::Pending, _, None) => returned.await,
                (Poll::Pending, _, Some(within)) => match tokio::time::timeout(within, returned).await {
                    Ok(outcome) => outcome,
                    Err(_) => Ok(Err(CallError::new(
                        Code::REQUEST_TIMEOUT,
                        Fate::Unknown,
                        "the callback did not end before the deadline",
                    ))),
                },
            };
            let returned = outcome.unwrap_or_else(|_| Err(panicked()))?;
            if wants == Wants::Result { Ok(returned) } else { written(encoding, &()) }
        })
    }
}

fn written<Ret: Serialize>(encoding: Encoding, value: &Ret) -> Result<Payload, CallError> {
    // The function ran, so the fate of this error must not be `NotSent`.
    Payload::encode(encoding, value).map_err(|error| CallError::from(error).with_fate(Fate::Failed))
}

fn panicked() -> CallError {
    CallError::new(Code::PANICKED, Fate::Failed, "the callback panicked")
}

impl<Args, Ret> Clone for Callback<Args, Ret> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), types: PhantomData }
    }
}

impl<Args, Ret> PartialEq for Callback<Args, Ret> {
    /// Whether both are handles on one function, as far as this process can tell.
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
    }
}

impl<Args, Ret> Serialize for Callback<Args, Ret> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.function.serialize(serializer)
    }
}

impl<'de, Args, Ret> Deserialize<'de> for Callback<Args, Ret> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { function: Function::deserialize(deserializer)?, types: PhantomData })
    }
}

#[cfg(feature = "schema")]
impl<Args, Ret> schemars::JsonSchema for Callback<Args, Ret> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Callback".into()
    }

    /// The schema of the placeholder that is written where a function stands.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "a function that is passed",
            "type": "object",
            "properties": { "$callback": { "type": "integer" } },
            "required": ["$callback"],
        })
    }
}

impl<Args, Ret> fmt::Debug for Callback<Args, Ret> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

impl<Ret> fmt::Debug for Invoking<Ret> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invoking").field("within", &self.within).finish_non_exhaustive()
    }
}

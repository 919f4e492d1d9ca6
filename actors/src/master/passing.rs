//! Layers around the requests that pass a master, as values: what a layer sees of a request, and the gate through which the request goes on when
//! every layer has let it pass. What the layers do is the program's business; the session of the caller holds the request meanwhile.

use futures::future::BoxFuture;
use meshwork_wire::{ByteString, CallError, Code, Fate, Headers};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What the requests that pass a master go through: its layers, or the way to the provider behind them.
pub trait PassThrough: Send + Sync + 'static {
    /// Lets a request pass, or refuses it; ready when the request has its outcome.
    fn pass(&self, request: PassingRequest) -> BoxFuture<'static, Result<Passed, CallError>>;
}

/// Puts a layer around what requests go through.
pub type PassLayer = Box<dyn FnOnce(Arc<dyn PassThrough>) -> Arc<dyn PassThrough> + Send>;

/// A request that passes a master, as layers see it. Its payload stays in the session of the caller, and is opened by nobody here.
#[derive(Clone, Debug)]
pub struct PassingRequest {
    pub(crate) action: ByteString,
    pub(crate) node: ByteString,
    pub(crate) caller: ByteString,
    pub(crate) identity: Option<ByteString>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) headers: Headers,
    pub(crate) payload_len: usize,
    pub(crate) gate: Gate,
}

impl PassingRequest {
    /// The action.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The node that is to answer; empty for any.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The name of the branch that made the call.
    #[must_use]
    pub fn caller(&self) -> &str {
        &self.caller
    }

    /// The identity of that branch; `None` where the master tells branches apart by nothing.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// When the caller stops waiting; `None` for never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The headers that the caller set.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The value of a header, if the caller set it. Upper and lower case of the name are one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// How many bytes the payload has.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Whether the request has gone on to its provider.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.gate.0.has_passed.load(Ordering::Acquire)
    }
}

/// A request that passed and had a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passed {
    pub(crate) provider: ByteString,
    pub(crate) payload_len: usize,
}

impl Passed {
    /// The node that answered; empty if it has gone since.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// How many bytes the reply has.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }
}

/// The gate of one request; clones are the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Shared>);

struct Shared {
    has_passed: AtomicBool,
    way: Mutex<Option<Way>>,
}

/// The way on of a request that has not passed.
struct Way {
    go: Box<dyn FnOnce() + Send>,
    outcome: oneshot::Receiver<Result<Passed, CallError>>,
}

impl Gate {
    /// A gate that tells `go` when its request is to go on; gives the sender of the outcome.
    pub(crate) fn new(
        go: impl FnOnce() + Send + 'static,
    ) -> (Self, oneshot::Sender<Result<Passed, CallError>>) {
        let (tell, outcome) = oneshot::channel();
        let way = Mutex::new(Some(Way { go: Box::new(go), outcome }));
        (Self(Arc::new(Shared { has_passed: AtomicBool::new(false), way })), tell)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.0.has_passed).finish()
    }
}

/// The way to the provider, behind all layers.
struct Innermost;

impl PassThrough for Innermost {
    fn pass(&self, request: PassingRequest) -> BoxFuture<'static, Result<Passed, CallError>> {
        let Shared { has_passed, way } = &*request.gate.0;
        let way = way.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Way { go, outcome }) = way else {
            let why = "a layer of the master lets a request pass twice: a request passes once";
            let error = CallError::new(Code::UNKNOWN, Fate::Unknown, why);
            return Box::pin(std::future::ready(Err(error)));
        };
        has_passed.store(true, Ordering::Release);
        go();
        Box::pin(async move {
            outcome.await.unwrap_or_else(|_| {
                Err(CallError::new(Code::CANCELLED, Fate::Unknown, "the caller waits no longer"))
            })
        })
    }
}

/// Composes layers, the first one outermost. None if there are none.
pub(crate) fn compose(layers: Vec<PassLayer>) -> Option<Arc<dyn PassThrough>> {
    if layers.is_empty() {
        return None;
    }
    let innermost: Arc<dyn PassThrough> = Arc::new(Innermost);
    Some(layers.into_iter().rev().fold(innermost, |inner, layer| layer(inner)))
}

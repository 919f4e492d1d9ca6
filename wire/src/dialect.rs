//! Other protocols. A dialect is a state machine without a socket: it hears foreign bytes and says frames of ours, and the other
//! way round, so that a foreign program looks like a branch, or like a master. It stands between a foreign socket and an
//! actor that knows nothing of it.

mod dnode;
mod light_rpc;
mod node_mesh;

pub use dnode::{Dnode, ResultStyle};
pub use light_rpc::{LightRpcClient, LightRpcServer};
pub use node_mesh::{NodeMeshClient, NodeMeshServer};

use crate::limits::{
    ACTIONS_PER_FRAME_MAX, FOREIGN_BUFFER_LEN_MAX, FOREIGN_CALL_WITHIN, NAME_LEN_MAX, PROTOCOL_VERSION,
};
use crate::{
    Bind, ByteString, CallError, CallbackId, Code, Fate, Frame, Invoke, NodeNews, Offer, Passed, Pattern,
    Payload, Refused, Register, Request, Response, SessionId, SubscriptionKey, is_everything_below,
};
use bytes::BytesMut;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// A protocol of others, at one connection.
pub trait Dialect: Send + 'static {
    /// Says the first messages and frames of a connection that is open.
    fn begin(&mut self, now: Instant, said: &mut Said);

    /// Takes as many messages as it can from the bytes that came, unless it has so much to say that this should leave first.
    ///
    /// # Errors
    ///
    /// When the bytes are not of this protocol. All that was said before still leaves; then the connection is closed.
    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError>;

    /// Takes a frame of ours.
    ///
    /// # Errors
    ///
    /// When the connection is over, as after a refused bind.
    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) -> Result<(), DialectError>;

    /// Ends the calls whose deadlines have passed. Called about once a second.
    fn expire(&mut self, now: Instant, said: &mut Said);
}

/// The words of a dialect, in both directions, until they leave.
#[derive(Default, Debug)]
pub struct Said {
    /// To ours.
    pub frames: Vec<Frame>,
    /// To the outside.
    pub bytes: BytesMut,
    /// Whether more was heard than has been understood: so much has to be said first.
    pub enough: bool,
}

impl Said {
    /// Whether hearing should stop: the bytes that are said must leave before there are more of them.
    pub(crate) fn is_enough(&mut self) -> bool {
        self.enough = self.bytes.len() > FOREIGN_BUFFER_LEN_MAX;
        self.enough
    }

    /// Answers a request of ours.
    pub(crate) fn answer(&mut self, callback_id: CallbackId, outcome: Result<Payload, CallError>) {
        self.frames.push(Frame::Response(Response { callback_id, outcome }));
    }

    /// Gives back the functions of a payload.
    pub(crate) fn give_back(&mut self, payload: &Payload) {
        for passed in &payload.callbacks {
            if let Passed::Lent(id) = passed {
                self.frames.push(Frame::Release(*id));
            }
        }
    }

    /// For protocols that have no form for functions: gives them back, and refuses the payload that passes some.
    pub(crate) fn without_functions(&mut self, payload: &Payload, dialect: &str) -> Result<(), CallError> {
        if payload.callbacks.is_empty() {
            return Ok(());
        }
        self.give_back(payload);
        let what = format!("{dialect} passes no functions, and these arguments hold some");
        Err(CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, what))
    }

    /// An outcome for a protocol that has no form for functions.
    pub(crate) fn plain(
        &mut self,
        outcome: Result<Payload, CallError>,
        dialect: &str,
    ) -> Result<Payload, CallError> {
        let payload = outcome?;
        self.without_functions(&payload, dialect).map_err(|_| {
            let what = format!("{dialect} passes no functions, and the reply holds some");
            CallError::new(Code::CANNOT_ENCODE, Fate::Failed, what)
        })?;
        Ok(payload)
    }

    /// For protocols that have no form for functions: refuses the call of one, which was never lent.
    pub(crate) fn nobody_lent(&mut self, invoke: &Invoke, dialect: &str) {
        self.give_back(&invoke.payload);
        if let Some(callback_id) = invoke.callback_id {
            let what = format!("{dialect} passes no functions");
            self.answer(callback_id, Err(CallError::new(Code::CALLBACK_GONE, Fate::NotSent, what)));
        }
    }
}

/// Why a foreign connection is closed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum DialectError {
    /// A message claims, or has, more bytes than are allowed.
    #[error("a message of {claimed} bytes, and {max} are allowed; does the other end speak {dialect}?")]
    TooLong {
        /// Which protocol it should be.
        dialect: &'static str,
        /// How long it would be.
        claimed: usize,
        /// How long it may be.
        max: usize,
    },
    /// The bytes are none of its messages.
    #[error("this is not {dialect}: {what}")]
    Malformed {
        /// Which protocol it should be.
        dialect: &'static str,
        /// The fault.
        what: String,
    },
    /// Our end closes it, and it may come back.
    #[error("the connection is closed: {0}")]
    Closed(CallError),
    /// Our end wants it no more.
    #[error("the connection is refused: {0}")]
    Refused(CallError),
}

impl From<Refused> for DialectError {
    fn from(Refused { code, message, may_return }: Refused) -> Self {
        let error = CallError::new(code, Fate::NotSent, message);
        if may_return { Self::Closed(error) } else { Self::Refused(error) }
    }
}

/// The actions that a foreign connection may call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allowed(Option<Vec<Pattern>>);

/// The actions that a foreign connection may see, as nodes come and go.
#[derive(Default, Debug)]
pub(crate) struct Visible {
    allowed: Allowed,
    /// By action: how many nodes offer it.
    actions: BTreeMap<ByteString, usize>,
    nodes: HashMap<SessionId, HashSet<ByteString>>,
}

/// Calls of a foreign connection that are in flight: each with the key that its protocol knows it by, and its deadline.
#[derive(Debug)]
pub(crate) struct Calls<T> {
    waiting: HashMap<CallbackId, T>,
    deadlines: VecDeque<(Instant, CallbackId)>,
    next_id: u64,
    within: Duration,
}

impl Allowed {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// The actions that match one of these.
    pub fn only(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        Self(Some(patterns.into_iter().collect()))
    }

    /// The patterns, unless it is everything.
    #[must_use]
    pub fn patterns(&self) -> Option<&[Pattern]> {
        self.0.as_deref()
    }

    /// Whether this action is among them.
    #[must_use]
    pub fn allows(&self, action: &str) -> bool {
        self.0.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(action)))
    }
}

impl Visible {
    pub(crate) fn new(allowed: Allowed) -> Self {
        Self { allowed, ..Self::default() }
    }

    pub(crate) fn allows(&self, action: &str) -> bool {
        self.allowed.allows(action)
    }

    pub(crate) fn online(&mut self, news: NodeNews) {
        if news.whole {
            self.forget(news.session);
        }
        let offered = self.nodes.entry(news.session).or_default();
        for (action, _) in news.actions {
            // An action that stands for others has no name to be called by.
            if !self.allowed.allows(&action) || is_everything_below(&action) {
                continue;
            }
            // Names from a frame share its buffer, which the name that is kept must not keep.
            let action = ByteString::from(&*action);
            if offered.insert(action.clone()) {
                *self.actions.entry(action).or_default() += 1;
            }
        }
    }

    pub(crate) fn offline(&mut self, news: &NodeNews) {
        if news.whole {
            return self.forget(news.session);
        }
        let Some(offered) = self.nodes.get_mut(&news.session) else {
            return;
        };
        for (action, _) in &news.actions {
            if offered.remove(action) {
                one_less(&mut self.actions, action);
            }
        }
    }

    /// By name.
    pub(crate) fn actions(&self) -> impl Iterator<Item = &ByteString> {
        self.actions.keys()
    }

    fn forget(&mut self, session: SessionId) {
        for action in self.nodes.remove(&session).unwrap_or_default() {
            one_less(&mut self.actions, &action);
        }
    }
}

fn one_less(actions: &mut BTreeMap<ByteString, usize>, action: &ByteString) {
    if let Some(count) = actions.get_mut(action) {
        *count -= 1;
        if *count == 0 {
            actions.remove(action);
        }
    }
}

impl<T> Calls<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: HashMap::new(), deadlines: VecDeque::new(), next_id: 0, within: FOREIGN_CALL_WITHIN }
    }

    /// A call begins, as the request that is made of it.
    pub(crate) fn request(&mut self, waiter: T, action: ByteString, payload: Payload, now: Instant) -> Frame {
        Frame::Request(Request {
            callback_id: self.open(waiter, now),
            action,
            node: ByteString::new(),
            caller: ByteString::new(),
            time_left: Some(self.within),
            payload,
        })
    }

    /// How long one may take.
    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    /// A call begins.
    pub(crate) fn open(&mut self, waiter: T, now: Instant) -> CallbackId {
        let id = CallbackId(self.next_id);
        self.next_id += 1;
        self.waiting.insert(id, waiter);
        if let Some(deadline) = now.checked_add(self.within) {
            self.deadlines.push_back((deadline, id));
        }
        id
    }

    /// Its end has come.
    pub(crate) fn settle(&mut self, id: CallbackId) -> Option<T> {
        let waiter = self.waiting.remove(&id);
        while self.deadlines.front().is_some_and(|(_, first)| !self.waiting.contains_key(first)) {
            self.deadlines.pop_front();
        }
        waiter
    }

    /// The next one that has taken too long.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(CallbackId, T)> {
        loop {
            let (_, id) = *self.deadlines.front().filter(|(deadline, _)| *deadline <= now)?;
            self.deadlines.pop_front();
            if let Some(waiter) = self.waiting.remove(&id) {
                return Some((id, waiter));
            }
        }
    }
}

/// The bind of one that looks like a branch, and the offers that it has no room for: they are [registered](registers) when it is bound.
pub(crate) fn bind(
    name: ByteString,
    credentials: Option<ByteString>,
    mut offers: Vec<Offer>,
    subscriptions: Vec<SubscriptionKey>,
) -> (Frame, Vec<Offer>) {
    let more = offers.split_off(offers.len().min(ACTIONS_PER_FRAME_MAX));
    (Frame::Bind(Bind { version: PROTOCOL_VERSION, name, credentials, offers, subscriptions }), more)
}

/// Offers, as many in each frame as it carries.
pub(crate) fn registers(
    offers: Vec<Offer>,
    mut draw: impl FnMut(&[Offer]) -> CallbackId,
) -> impl Iterator<Item = Frame> {
    let mut offers = offers.into_iter();
    std::iter::from_fn(move || {
        let offers: Vec<_> = offers.by_ref().take(ACTIONS_PER_FRAME_MAX).collect();
        let callback_id = (!offers.is_empty()).then(|| draw(&offers))?;
        Some(Frame::Register(Register { callback_id, offers }))
    })
}

/// No reply came in time, from a protocol that knows no deadlines.
pub(crate) fn too_late(within: Duration) -> CallError {
    CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, format!("no reply came within {within:?}"))
}

/// A name for a foreign connection: nodes have one, and many protocols do not.
#[must_use]
pub fn foreign_name(dialect: &str, peer: &str) -> ByteString {
    let mut name = format!("{dialect}/{peer}");
    name.retain(|c| !c.is_control());
    while name.len() > NAME_LEN_MAX {
        name.pop();
    }
    name.into()
}

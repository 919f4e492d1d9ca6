//! The state that dialects keep of a foreign program: the actions that it may see and call, its calls in flight, its bind as a
//! branch, and its name in the mesh.

use crate::error::{Code, Fate};
use crate::frame::{Bind, Frame, NodeNews, Offer, Register, Request, SubscriptionKey};
use crate::headers::Headers;
use crate::id::{CallbackId, SessionId};
use crate::limits::{ACTIONS_PER_FRAME_MAX, FOREIGN_CALL_WITHIN, NAME_LEN_MAX, PROTOCOL_VERSION};
use crate::name::is_everything_below;
use crate::name::is_unseen;
use crate::pattern::Pattern;
use crate::payload::{CallError, Payload};
use bytestring::ByteString;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// The actions that a foreign program may call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allowed(Option<Vec<Pattern>>);

/// The actions that a foreign program may see, as nodes come and go.
#[derive(Default, Debug)]
pub(crate) struct Visible {
    allowed: Allowed,
    /// How many nodes offer each action.
    actions: BTreeMap<ByteString, usize>,
    nodes: HashMap<SessionId, HashSet<ByteString>>,
}

/// The calls of a foreign program that are in flight, with their deadlines. `T` is the key of a call in the foreign protocol.
#[derive(Debug)]
pub(crate) struct Calls<T> {
    waiting: HashMap<CallbackId, T>,
    deadlines: VecDeque<(Instant, CallbackId)>,
    next_id: u64,
    within: Duration,
}

impl Allowed {
    /// All actions.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// The actions that match one of these patterns.
    pub fn only(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        Self(Some(patterns.into_iter().collect()))
    }

    /// The patterns; `None` if all actions are allowed.
    #[must_use]
    pub fn patterns(&self) -> Option<&[Pattern]> {
        self.0.as_deref()
    }

    /// Whether the foreign program may call this action.
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
            // An offer of everything below a prefix is no name that a program could call.
            if !self.allowed.allows(&action) || is_everything_below(&action) {
                continue;
            }
            // A name from a frame shares the buffer of the frame; a copy does not keep that buffer alive.
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

    /// The actions that the foreign program may see, sorted by name.
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

    /// Begins a call that came over so many hops and with these headers, and gives its request.
    pub(crate) fn request(
        &mut self,
        waiter: T,
        action: ByteString,
        (hops, headers): (u8, Headers),
        payload: Payload,
        now: Instant,
    ) -> Frame {
        Frame::Request(Request {
            callback_id: self.open(waiter, now),
            action,
            node: ByteString::new(),
            caller: ByteString::new(),
            time_left: Some(self.within),
            hops,
            headers,
            payload,
        })
    }

    /// How long a call may take.
    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    /// Begins a call, under an id that is new on this connection.
    pub(crate) fn open(&mut self, waiter: T, now: Instant) -> CallbackId {
        let id = CallbackId(self.next_id);
        self.next_id += 1;
        self.waiting.insert(id, waiter);
        if let Some(deadline) = now.checked_add(self.within) {
            self.deadlines.push_back((deadline, id));
        }
        id
    }

    /// Ends a call that was answered. None if it has ended before.
    pub(crate) fn settle(&mut self, id: CallbackId) -> Option<T> {
        let waiter = self.waiting.remove(&id);
        while self.deadlines.front().is_some_and(|(_, first)| !self.waiting.contains_key(first)) {
            self.deadlines.pop_front();
        }
        waiter
    }

    /// Ends the next call whose deadline has passed.
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

/// The bind of a foreign program that looks like a branch, and the offers for which the frame has no room: they are
/// [registered](registers) when the branch is bound.
pub(crate) fn bind(
    name: ByteString,
    credentials: Option<ByteString>,
    mut offers: Vec<Offer>,
    subscriptions: Vec<SubscriptionKey>,
) -> (Frame, Vec<Offer>) {
    let more = offers.split_off(offers.len().min(ACTIONS_PER_FRAME_MAX));
    (Frame::Bind(Bind { version: PROTOCOL_VERSION, name, credentials, offers, subscriptions }), more)
}

/// The frames that register offers, at most [`ACTIONS_PER_FRAME_MAX`] in each.
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

/// The error of a call that has passed its deadline, for a protocol that knows no deadlines.
pub(crate) fn too_late(within: Duration) -> CallError {
    CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, format!("no reply came within {within:?}"))
}

/// The name of a foreign program in the mesh, made from its dialect and address: many protocols have no names.
#[must_use]
pub fn foreign_name(dialect: &str, peer: &str) -> ByteString {
    let mut name = format!("{dialect}/{peer}");
    name.retain(|character| !is_unseen(character));
    while name.len() > NAME_LEN_MAX {
        name.pop();
    }
    name.into()
}

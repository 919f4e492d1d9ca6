//! The actions that a node answers, by name, and how many requests for each at once.

use super::responder::Responder;
use super::restarts::Restarted;
use crate::hashed::{HashMap, Hashing};
use crate::link::lanes::{ITEM_LEN, Lanes, TURN_LEN};
use meshwork_wire::limits::{ACTIONS_PER_NODE_MAX, SHAPE_LEN_MAX};
use meshwork_wire::{
    ByteString, CallError, CallbackId, Code, Fate, Labels, NameError, Offer, Shape, check_action,
    everything_above,
};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// An action that a node answers, and how many requests for it at once.
#[derive(Clone)]
pub struct Action {
    /// The offer of the action, as other nodes are told.
    pub offer: Offer,
    /// The responder that answers the requests.
    pub responder: Arc<dyn Responder>,
    permits: Option<Arc<Permits>>,
    /// The labels of the node, if it is a master that was given some: those of a branch are kept by its session.
    labels: Option<Arc<Labels>>,
    /// Whether an actor answers.
    has_actor: bool,
}

/// The permits of an action: each request holds one while it is answered.
pub(super) struct Permits {
    turns: Mutex<Turns>,
    max: usize,
    waiting_max: usize,
    /// Makes a number of the name of a caller.
    callers: Hashing,
}

/// The permits that are free, and the requests that wait for one.
struct Turns {
    free: usize,
    /// Callers take turns: a caller that makes many requests takes no permit from one that makes few.
    waiting: Lanes<oneshot::Sender<()>>,
    waiting_count: usize,
    next: u64,
}

/// The permit of a request that is being answered; dropping it gives the permit back. None if the action has no bound.
pub(super) struct Permit(Option<Arc<Permits>>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = &self.0 {
            permits.give_back();
        }
    }
}

impl Permits {
    pub(super) fn new(max: usize, waiting_max: usize) -> Arc<Self> {
        let turns = Turns { free: max, waiting: Lanes::new(), waiting_count: 0, next: 0 };
        Arc::new(Self { turns: Mutex::new(turns), max, waiting_max, callers: Hashing::default() })
    }

    /// Takes a permit for one request of this caller.
    pub(super) fn take(self: &Arc<Self>, caller: &str) -> Result<Permit, NoPermit> {
        let mut turns = self.lock();
        if turns.free > 0 {
            turns.free -= 1;
            return Ok(Permit(Some(Arc::clone(self))));
        }
        let (number, (tell, turn)) = (CallbackId(turns.next), oneshot::channel());
        let (caller, turn_max) = (self.callers.hash_one(caller), self.waiting_max.saturating_mul(TURN_LEN));
        // Each takes a whole turn, so that callers get one permit after the other.
        if turns.waiting.push(caller, Some(number), TURN_LEN - ITEM_LEN, turn_max, tell).is_ok() {
            (turns.next, turns.waiting_count) = (turns.next + 1, turns.waiting_count + 1);
            return Err(NoPermit::Waits(WaitsForPermit { permits: Some(Arc::clone(self)), number, turn }));
        }
        Err(NoPermit::Refused)
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        // Nothing in here leaves the turns half-changed when it panics.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a permit to the request whose turn it is, or to none.
    fn give_back(&self) {
        let mut turns = self.lock();
        let next = turns.waiting.pop();
        match next {
            Some(_) => turns.waiting_count -= 1,
            None => turns.free += 1,
        }
        drop(turns);
        if let Some(next) = next {
            // A request that does not wait any more gives the permit back itself: see the drop of `WaitsForPermit`.
            let _ = next.send(());
        }
    }
}

/// Why a request has no permit.
pub(super) enum NoPermit {
    /// All are taken, and as many requests wait as may.
    Refused,
    /// It waits for one.
    Waits(WaitsForPermit),
}

/// A request among those that wait for a permit; dropping it makes room for another one.
pub(super) struct WaitsForPermit {
    /// None when the permit has been taken.
    permits: Option<Arc<Permits>>,
    number: CallbackId,
    turn: oneshot::Receiver<()>,
}

impl WaitsForPermit {
    /// The permit, when it is this request's turn: requests of a caller get permits in the order in which they came.
    pub(super) async fn permit(mut self) -> Permit {
        // The sender is dropped by this request alone.
        let _ = (&mut self.turn).await;
        Permit(self.permits.take())
    }
}

impl Drop for WaitsForPermit {
    fn drop(&mut self) {
        let Some(permits) = self.permits.take() else {
            return;
        };
        let mut turns = permits.lock();
        let waited = turns.waiting.withdraw(self.number).is_some();
        turns.waiting_count -= usize::from(waited);
        drop(turns);
        if !waited {
            permits.give_back();
        }
    }
}

impl Action {
    /// An action without a bound of its own: the connection bounds how many requests for it are answered at once.
    pub fn new(offer: Offer, responder: Arc<dyn Responder>) -> Self {
        let has_actor = responder.is_running().is_some();
        Self { offer, responder, permits: None, labels: None, has_actor }
    }

    pub(crate) fn labels(&self) -> Option<&Labels> {
        self.labels.as_deref()
    }

    /// Answers at most `max` requests at once. Up to `waiting_max` further requests wait for a permit, of one caller eight ninths of them; one
    /// above that is refused with [`Code::OVERLOADED`].
    #[must_use]
    pub fn with_permits(mut self, max: usize, waiting_max: usize) -> Self {
        self.permits = Some(Permits::new(max, waiting_max));
        self
    }

    /// Whether the actor that answers has stopped.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.has_actor && self.responder.is_running() == Some(false)
    }

    /// The name that was called, without the buffer that it was read from: the name of this action, or one below it.
    pub(crate) fn called(&self, action: &ByteString) -> ByteString {
        if *action == self.offer.action { self.offer.action.clone() } else { ByteString::from(&**action) }
    }

    /// Whether a request would find a permit, or room to wait for one.
    pub(crate) fn has_room(&self) -> bool {
        self.permits.as_ref().is_none_or(|permits| {
            let turns = permits.lock();
            turns.free > 0 || turns.waiting_count < permits.waiting_max
        })
    }

    /// Takes a permit for one request.
    pub(super) fn permit(&self, caller: &str) -> Result<Permit, NoPermit> {
        self.permits.as_ref().map_or(Ok(Permit::unbounded()), |permits| permits.take(caller))
    }

    /// The error of a request without a permit.
    pub(super) fn no_permit(&self) -> CallError {
        let max = self.permits.as_ref().map_or(0, |permits| permits.max);
        let what = format!("{} has {max} permits, and all are taken", self.offer.action);
        CallError::new(Code::OVERLOADED, Fate::NotSent, what)
    }
}

impl Permit {
    /// The permit of a request for an action without a bound.
    pub(super) fn unbounded() -> Self {
        Self(None)
    }
}

/// The actions that a node answers, by name.
#[derive(Clone, Default)]
pub struct Actions(HashMap<ByteString, Action>);

/// Why an action cannot be added.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ActionRefused {
    /// The name of the action is not valid.
    #[error("an action cannot be named so: {0}")]
    Name(#[from] NameError),
    /// The node answers an action of this name already. Withdraw that action first.
    #[error("this node answers {0:?} already")]
    Twice(ByteString),
    /// The node answers [`ACTIONS_PER_NODE_MAX`] actions already.
    #[error("a node answers at most {ACTIONS_PER_NODE_MAX} actions")]
    TooMany,
    /// The shape of the action is longer than [`SHAPE_LEN_MAX`].
    #[error("the shape of an action may have {SHAPE_LEN_MAX} bytes, and this one has {0}")]
    LongShape(usize),
}

impl Actions {
    /// Adds an action.
    ///
    /// # Errors
    ///
    /// When its name is not valid or taken, or the node answers [`ACTIONS_PER_NODE_MAX`] actions already.
    pub fn insert(&mut self, action: Action) -> Result<(), ActionRefused> {
        check_action(&action.offer.action)?;
        let shape_len = action.offer.shape.as_ref().map_or(0, Shape::len);
        if shape_len > SHAPE_LEN_MAX {
            return Err(ActionRefused::LongShape(shape_len));
        }
        if self.0.contains_key(&action.offer.action) {
            return Err(ActionRefused::Twice(action.offer.action));
        }
        if self.0.len() >= ACTIONS_PER_NODE_MAX {
            return Err(ActionRefused::TooMany);
        }
        self.0.insert(action.offer.action.clone(), action);
        Ok(())
    }

    /// Adds all these actions, or none.
    ///
    /// # Errors
    ///
    /// When one of the actions cannot be added.
    pub fn extend(&mut self, others: Actions) -> Result<(), ActionRefused> {
        if let Some(twice) = others.0.keys().find(|action| self.0.contains_key(*action)) {
            return Err(ActionRefused::Twice(twice.clone()));
        }
        if self.0.len() + others.0.len() > ACTIONS_PER_NODE_MAX {
            return Err(ActionRefused::TooMany);
        }
        self.0.extend(others.0);
        Ok(())
    }

    /// The same actions of a master with these labels.
    pub(crate) fn with_labels(mut self, labels: &Arc<Labels>) -> Self {
        self.0.values_mut().for_each(|action| action.labels = Some(Arc::clone(labels)));
        self
    }

    /// Takes an action out.
    pub fn remove(&mut self, action: &str) -> Option<Action> {
        self.0.remove(action)
    }

    /// The action of this name.
    #[must_use]
    pub fn get(&self, action: &str) -> Option<&Action> {
        self.0.get(action)
    }

    /// The action of this name, or else the action that answers everything below a part of the name.
    #[must_use]
    pub fn find(&self, action: &str) -> Option<&Action> {
        self.get(action).or_else(|| everything_above(action).find_map(|above| self.get(&above)))
    }

    /// The offers of all actions, sorted by name.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        let mut offers: Vec<_> = self.0.values().map(|action| action.offer.clone()).collect();
        offers.sort_unstable_by(|one, other| one.action.cmp(&other.action));
        offers
    }

    /// The names of all actions, in no order.
    pub fn names(&self) -> impl Iterator<Item = &ByteString> {
        self.0.keys()
    }

    /// The names of the actions whose actors have stopped.
    pub(crate) fn stopped(&self) -> Vec<ByteString> {
        self.0
            .values()
            .filter(|action| action.has_stopped())
            .map(|action| action.offer.action.clone())
            .collect()
    }

    /// The actors that are started again when they panic.
    pub(crate) fn restarted(&self) -> impl Iterator<Item = &Arc<Restarted>> {
        self.0.values().filter(|action| action.has_actor).filter_map(|action| action.responder.restarted())
    }

    /// Whether an actor answers one of the actions.
    pub(crate) fn need_actors(&self) -> bool {
        self.0.values().any(|action| action.has_actor)
    }

    /// How many actions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no action.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<ActionRefused> for CallError {
    fn from(refused: ActionRefused) -> Self {
        CallError::new(Code::BAD_NAME, Fate::NotSent, refused.to_string())
    }
}

impl IntoIterator for Actions {
    type Item = Action;
    type IntoIter = crate::hashed::IntoValues<ByteString, Action>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::responder::{Answer, ContextRef, Replier};
    use futures::FutureExt;
    use meshwork_wire::{Accepts, PayloadRef};

    struct Silent;

    impl Responder for Silent {
        fn respond(&self, _: PayloadRef<'_>, _: &ContextRef<'_>, _: Replier<'_>) -> Answer {
            Answer::Said
        }
    }

    fn action(max: usize, waiting_max: usize) -> Action {
        let offer = Offer { action: "a".into(), accepts: Accepts::MessagePack, shape: None };
        Action::new(offer, Arc::new(Silent)).with_permits(max, waiting_max)
    }

    fn waits(action: &Action, caller: &str) -> Option<WaitsForPermit> {
        match action.permit(caller) {
            Err(NoPermit::Waits(waits)) => Some(waits),
            _ => None,
        }
    }

    /// All requests of a caller that made many stood before the request of one that made a single one.
    #[test]
    fn callers_get_permits_in_turn_and_leave_room_to_wait_for_each_other() {
        let action = action(1, 90);
        let Ok(mut permit) = action.permit("hog") else { panic!("one is free") };
        let mut of_hog: Vec<_> =
            std::iter::from_fn(|| waits(&action, "hog").map(WaitsForPermit::permit).map(Box::pin)).collect();
        assert_eq!(of_hog.len(), 80, "eight ninths");
        let mut single = Box::pin(waits(&action, "other").expect("there is room").permit());
        assert!(action.has_room() && single.as_mut().now_or_never().is_none());
        drop(permit);
        permit = of_hog.remove(0).now_or_never().expect("it came first");
        assert!(single.as_mut().now_or_never().is_none());
        drop(permit);
        single.now_or_never().expect("it is its turn");
        // One that was dropped with its permit, and those that waited, give them back.
        drop(of_hog);
        assert!(action.permit("other").is_ok_and(|permit| permit.0.is_some()));
    }

    #[test]
    fn every_permit_comes_back_whoever_waits_no_longer() {
        let action = action(3, 8);
        let held: Vec<_> = (0..3).map_while(|_| action.permit("a").ok()).collect();
        assert_eq!(held.len(), 3);
        let mut waiting: Vec<_> = (0..8).map_while(|_| waits(&action, "a")).collect();
        assert_eq!(waiting.len(), 8);
        assert!(!action.has_room() && matches!(action.permit("a"), Err(NoPermit::Refused)));
        waiting.truncate(5);
        drop(held);
        drop(waiting);
        let held: Vec<_> = (0..3).map_while(|_| action.permit("a").ok()).collect();
        assert_eq!(held.len(), 3);
        assert!(waits(&action, "b").is_some());
    }
}

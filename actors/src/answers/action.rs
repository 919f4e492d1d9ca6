//! The actions that a node answers, by name, and how many requests for each at once.

use super::responder::Responder;
use super::restarts::Restarted;
use crate::hashed::HashMap;
use meshwork_wire::limits::{ACTIONS_PER_NODE_MAX, SHAPE_LEN_MAX};
use meshwork_wire::{
    ByteString, CallError, Code, Fate, NameError, Offer, Shape, check_action, everything_above,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An action that a node answers, and how many requests for it at once.
#[derive(Clone)]
pub struct Action {
    /// The offer of the action, as other nodes are told.
    pub offer: Offer,
    /// The responder that answers the requests.
    pub responder: Arc<dyn Responder>,
    permits: Option<Arc<Permits>>,
    /// Whether an actor answers.
    has_actor: bool,
}

/// The permits of an action: each request holds one while it is answered.
struct Permits {
    free: Arc<Semaphore>,
    max: usize,
    /// How many requests wait for a permit.
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// The permit of a request that is being answered; dropping it gives the permit back. None if the action has no bound.
pub(super) struct Permit(#[expect(dead_code, reason = "it is held")] Option<OwnedSemaphorePermit>);

/// Why a request has no permit.
pub(super) enum NoPermit {
    /// It is refused.
    Refused(CallError),
    /// It waits for one.
    Waits(WaitsForPermit),
}

/// A request among those that wait for a permit; dropping it makes room for another one.
pub(super) struct WaitsForPermit(Arc<Permits>);

impl WaitsForPermit {
    /// The permit, when it is this request's turn: requests get permits in the order in which they came.
    pub(super) async fn permit(self) -> Permit {
        // The semaphore is never closed.
        Permit(Arc::clone(&self.0.free).acquire_owned().await.ok())
    }
}

impl Drop for WaitsForPermit {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Action {
    /// An action without a bound of its own: the connection bounds how many requests for it are answered at once.
    pub fn new(offer: Offer, responder: Arc<dyn Responder>) -> Self {
        let has_actor = responder.is_running().is_some();
        Self { offer, responder, permits: None, has_actor }
    }

    /// Answers at most `max` requests at once. Up to `waiting_max` further requests wait for a permit; one above that is refused with
    /// [`Code::OVERLOADED`].
    #[must_use]
    pub fn with_permits(mut self, max: usize, waiting_max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        let free = Arc::new(Semaphore::new(max));
        self.permits = Some(Arc::new(Permits { free, max, waiting: AtomicUsize::new(0), waiting_max }));
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
            permits.free.available_permits() > 0
                || permits.waiting.load(Ordering::Acquire) < permits.waiting_max
        })
    }

    /// Takes a permit for one request.
    pub(super) fn permit(&self) -> Result<Permit, NoPermit> {
        let Some(permits) = &self.permits else {
            return Ok(Permit(None));
        };
        if let Ok(permit) = Arc::clone(&permits.free).try_acquire_owned() {
            return Ok(Permit(Some(permit)));
        }
        if permits.waiting.fetch_add(1, Ordering::AcqRel) < permits.waiting_max {
            return Err(NoPermit::Waits(WaitsForPermit(Arc::clone(permits))));
        }
        permits.waiting.fetch_sub(1, Ordering::AcqRel);
        let what = format!("{} has {} permits, and all are taken", self.offer.action, permits.max);
        Err(NoPermit::Refused(CallError::new(Code::OVERLOADED, Fate::NotSent, what)))
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

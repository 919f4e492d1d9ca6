//! The door of a master: each connection gets a [`Place`] when it is accepted, and gives it back when its descriptor is closed. `places.rs`
//! decides who comes in and who makes room; connections wait here.

use super::places::{Answer, Bounds, Full, Origin, Places, Via};
use meshwork_wire::limits::{DOOR_WITHIN, UNBOUND_KEPT_FOR};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// The door that all listeners of a master share.
pub(crate) struct Door {
    places: Mutex<Places<oneshot::Sender<()>>>,
    /// Notified when a descriptor is closed.
    freed: Notify,
}

/// The place of a connection. The reader and the writer of the connection share it, so it is given back when both halves of the link are
/// dropped, which closes the descriptor.
pub(crate) struct Place {
    door: Arc<Door>,
    number: u64,
    origin: Origin,
    via: Via,
}

/// A connection that has a place.
pub(crate) struct Entered {
    pub(crate) place: Arc<Place>,
    /// Resolves when the connection must make room for another one. Its sender is dropped when the connection is bound.
    pub(crate) makes_room: oneshot::Receiver<()>,
}

impl Door {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { places: Mutex::new(Places::new(bounds)), freed: Notify::new() })
    }

    /// How many connections have not bound yet, those that were refused among them.
    #[cfg(feature = "testing")]
    pub(crate) fn unbound(&self) -> usize {
        self.places().unbound()
    }

    /// Gives a connection a place, as soon as there is one. Waits no longer than [`DOOR_WITHIN`].
    pub(crate) async fn enter(self: &Arc<Self>, peer: &str, via: Via) -> Result<Entered, Full> {
        let origin = Origin::of(peer);
        let last = Instant::now() + DOOR_WITHIN;
        loop {
            // Before the question, so that a place that is freed after it is not missed.
            let freed = self.freed.notified();
            let now = Instant::now();
            let (told, until) = {
                let mut places = self.places();
                match places.enter(now.into_std(), &origin, via) {
                    Answer::Enters(number, told) => {
                        let (tells, makes_room) = oneshot::channel();
                        places.set_tell(number, tells);
                        drop(places);
                        tell(told);
                        let place = Place { door: Arc::clone(self), number, origin, via };
                        return Ok(Entered { place: Arc::new(place), makes_room });
                    }
                    Answer::Full(full) => return Err(full),
                    Answer::Waits(..) if now >= last => return Err(places.full_of_unbound()),
                    Answer::Waits(told, until) => (told, Instant::from_std(until)),
                }
            };
            tell(told);
            // A place that is not freed in this time is asked for again.
            let _ = timeout_at(until.min(last), freed).await;
        }
    }

    /// Tells some connections that have not bound to make room, since no descriptors are left, and waits for a moment until one is closed.
    /// `false` if there are no such connections.
    pub(crate) async fn make_room(&self) -> bool {
        let freed = self.freed.notified();
        let told = self.places().make_room();
        if told.is_empty() {
            return false;
        }
        tell(told);
        timeout(UNBOUND_KEPT_FOR, freed).await.is_ok()
    }

    fn places(&self) -> MutexGuard<'_, Places<oneshot::Sender<()>>> {
        // Nothing in there leaves the places half-changed when it panics.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(told: impl IntoIterator<Item = oneshot::Sender<()>>) {
    for told in told {
        // A connection that has ended has made room already.
        let _ = told.send(());
    }
}

impl Place {
    /// Notes that the bind of the connection is being checked.
    pub(crate) fn checked(&self) {
        self.door.places().checked(self.number);
    }

    /// Notes that the token of the connection, or its certificate, is that of a branch which may bind: it has a place apart, and does not make
    /// room for connections of which nothing is known.
    pub(crate) fn known(&self) {
        self.door.places().known(self.number);
    }

    /// Notes that the connection is refused: it makes room for the next one.
    pub(crate) fn refused(&self) {
        self.door.places().refused(self.number);
    }

    /// Notes that the connection is bound.
    pub(crate) fn bound(&self) {
        self.door.places().bound(self.number);
        self.door.freed.notify_waiters();
    }

    /// Whether the connection has not bound yet.
    pub(crate) fn is_unbound(&self) -> bool {
        self.door.places().is_unbound(self.number)
    }

    /// Whether the first frame may have so many bytes, more than others.
    pub(crate) fn lengthen(&self, len: usize) -> bool {
        self.door.places().lengthen(self.number, len)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.places().leave(self.number, &self.origin, self.via);
        self.door.freed.notify_waiters();
    }
}

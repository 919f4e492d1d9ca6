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
                    Answer::Waits(told, until) => (told, Instant::from_std(until)),
                }
            };
            // Also where this connection waits no longer: it has been chosen to make room.
            tell(told);
            if now >= last {
                return Err(self.places().full_of_unbound());
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn door(unbound_max: usize) -> Arc<Door> {
        let max = 1_000;
        Door::new(Bounds {
            unbound_max,
            connections_max: max,
            per_address_max: max,
            gateway_max: max,
            gateway_per_address_max: max,
        })
    }

    async fn enters(door: &Arc<Door>) -> Entered {
        door.enter("10.0.0.1:1", Via::Native).await.unwrap_or_else(|full| panic!("{full}"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_until_the_oldest_one_is_closed() {
        let door = door(1);
        let Entered { place, makes_room } = enters(&door).await;
        let closing = async {
            makes_room.await.expect("it is told");
            drop(place);
        };
        tokio::join!(enters(&door), closing);
    }

    /// The one that was chosen to make room was not told of it when the one that waited gave up, and kept its place for ever.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_waits_no_longer_has_told_another_one_to_make_room() {
        let door = door(1);
        let Entered { place, makes_room } = enters(&door).await;
        let patient = door.enter("10.0.0.1:2", Via::Native);
        let mut patient = Box::pin(patient);
        assert!(futures::poll!(&mut patient).is_pending());
        // The thread is late.
        tokio::time::advance(DOOR_WITHIN + Duration::from_millis(1)).await;
        assert!(matches!(patient.await, Err(Full::Unbound(1))));
        makes_room.await.expect("it is told");
        drop(place);
        enters(&door).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_not_given_back_keeps_the_next_one_waiting_for_a_moment_only() {
        let door = door(1);
        let _kept = enters(&door).await;
        let begun = Instant::now();
        let full = door.enter("10.0.0.1:2", Via::Native).await;
        assert!(matches!(full, Err(Full::Unbound(1))));
        assert!(begun.elapsed() <= DOOR_WITHIN + UNBOUND_KEPT_FOR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_connection_is_not_told_to_make_room() {
        let door = door(1);
        let Entered { place, makes_room } = enters(&door).await;
        place.bound();
        assert!(!place.is_unbound());
        enters(&door).await;
        makes_room.await.expect_err("its sender is dropped");
    }
}

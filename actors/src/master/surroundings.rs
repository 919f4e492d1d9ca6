//! What the sessions of a master share: its configuration, its registry and its router.

use super::permissions::Authenticate;
use super::registry::RegistryActor;
use super::registry::route::Balance;
use super::registry::table::OnNameTaken;
use super::router::RouterActor;
use crate::turns::busy_poll::BusyPoll;
use actix::{Addr, Recipient};
use meshwork_wire::{ByteString, SessionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What a master was told when it was built.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) heartbeat: Duration,
    pub(crate) bind_within: Duration,
    pub(crate) frame_len_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) on_taken: OnNameTaken,
    pub(crate) balance: Balance,
    pub(crate) busy_poll: BusyPoll,
    pub(crate) token: Option<ByteString>,
    pub(crate) authenticate: Option<Recipient<Authenticate>>,
    pub(crate) spawner: Option<Arc<dyn SessionSpawner>>,
}

/// What the sessions of a master share.
pub(crate) struct MasterShared {
    pub(crate) name: ByteString,
    pub(crate) config: Config,
    pub(crate) registry: Addr<RegistryActor>,
    pub(crate) router: Addr<RouterActor>,
    /// How many connections have not bound yet.
    pub(crate) unbound: AtomicUsize,
    pub(crate) sessions: AtomicU64,
}

/// Where the sessions of a master live. Threads are the business of the program that starts the master, so they are handed in.
pub trait SessionSpawner: Send + Sync + 'static {
    /// Runs this on the arbiter that the next session is to live on.
    fn spawn(&self, start: Box<dyn FnOnce() + Send>);
}

impl MasterShared {
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}

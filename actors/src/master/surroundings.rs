//! The surroundings that all sessions of a master share: its configuration, registry, router and node, and each other.

use super::denials::Denials;
use super::forwarded::MASTER;
use super::handle::SessionHandle;
use super::identities::Identities;
use super::passing::PassThrough;
use super::permissions::Authenticate;
use super::registry::RegistryActor;
use super::registry::route::Balance;
use super::registry::table::OnNameTaken;
use super::router::RouterActor;
use crate::answers::blocking::Blocking;
use crate::hashed::HashMap;
use crate::link::door::Door;
use crate::link::outbox::Pool;
use crate::link::places::Bounds;
use crate::node::lender::NodeLender;
use crate::node::limits::Limits;
use crate::node::shared::Node;
use crate::repeated::Repeated;
use crate::turns::busy_poll::BusyPoll;
use actix::{Addr, Recipient};
use arc_swap::ArcSwapOption;
use meshwork_wire::{ByteString, SessionId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The configuration of a master.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) heartbeat: Duration,
    pub(crate) frame_len_max: usize,
    pub(crate) on_taken: OnNameTaken,
    pub(crate) balance: Balance,
    pub(crate) token: Option<ByteString>,
    /// The identities that the master starts with.
    pub(crate) identities: Option<Arc<Identities>>,
    pub(crate) authenticate: Option<Recipient<Authenticate>>,
    pub(crate) spawner: Option<Arc<dyn SessionSpawner>>,
    /// The number with which the numbers of last values begin; none: that of the clock.
    pub(crate) era: Option<u64>,
}

/// The state that a master and its sessions share.
pub(crate) struct MasterShared {
    pub(crate) name: ByteString,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    /// How long the threads of the sessions stay awake for the next frame.
    pub(crate) busy_poll: BusyPoll,
    pub(crate) registry: Addr<RegistryActor>,
    pub(crate) router: Addr<RouterActor>,
    /// The number with which the router began: see [`meshwork_wire::Kept`].
    pub(crate) era: u64,
    /// The node of the master. A function that came over a session is called and released through the queue of this node.
    pub(crate) node: Arc<Node>,
    /// The door of the connections, which have a place each.
    pub(crate) door: Arc<Door>,
    /// The bytes in the outboxes of all sessions.
    pub(crate) pool: Arc<Pool>,
    /// The bytes of the requests that all sessions keep.
    pub(crate) kept_pool: Arc<Pool>,
    /// The blocking work of the master's own responders.
    pub(crate) blocking: Arc<Blocking>,
    pub(crate) warnings: SessionWarnings,
    pub(crate) denials: Denials,
    /// The layers around the requests that pass; none at most masters.
    pub(crate) layers: Option<Arc<dyn PassThrough>>,
    /// The identities of the mesh; none where a token, or nothing, lets branches in.
    identities: ArcSwapOption<Identities>,
    last_session: AtomicU64,
    /// The sessions that have not ended, bound or not. Bounded by the connections.
    sessions: RwLock<Sessions>,
}

/// The sessions of a master.
#[derive(Default)]
struct Sessions {
    by_id: HashMap<SessionId, SessionHandle>,
    /// Whether the master drains: a session that starts later is refused.
    draining: bool,
}

/// The warnings of all sessions of a master. Their peers choose how often they have a reason.
#[derive(Default)]
pub(crate) struct SessionWarnings {
    /// A connection is refused.
    pub(crate) refused: Repeated,
    /// A connection that has said nothing makes room for another one.
    pub(crate) makes_room: Repeated,
    /// The TLS handshake of a connection fails.
    pub(crate) insecure: Repeated,
    /// A branch is silent for three heartbeats.
    pub(crate) silent: Repeated,
    /// A branch sends requests and does not read the replies.
    pub(crate) unread: Repeated,
    /// A branch fails in a row, and has a rest.
    pub(crate) rests: Repeated,
    /// A branch that had a rest works again.
    pub(crate) works_again: Repeated,
}

/// Starts sessions on the arbiters that they are to live on. Threads are the business of the program that starts the master, so that program
/// hands a spawner in.
pub trait SessionSpawner: Send + Sync + 'static {
    /// Calls `start` on the arbiter that the next session is to live on.
    fn spawn(&self, start: Box<dyn FnOnce() + Send>);
}

impl MasterShared {
    pub(crate) fn new(
        node: Arc<Node>,
        config: Config,
        limits: Limits,
        busy_poll: BusyPoll,
        (registry, router): (Addr<RegistryActor>, Addr<RouterActor>),
        era: u64,
        layers: Option<Arc<dyn PassThrough>>,
    ) -> Self {
        let door = Door::new(Bounds {
            unbound_max: limits.unbound_sessions_max,
            connections_max: limits.connections_max,
            per_address_max: limits.connections_per_address_max,
            gateway_max: limits.gateway_connections_max,
            gateway_per_address_max: limits.gateway_connections_per_address_max,
        });
        Self {
            name: node.name().clone(),
            denials: Denials::default(),
            layers,
            identities: ArcSwapOption::from(config.identities.clone()),
            pool: Pool::new(limits.outboxes_len_max),
            kept_pool: Pool::new(limits.kept_in_all_len_max),
            blocking: limits.blocking(),
            config,
            limits,
            busy_poll,
            registry,
            router,
            era,
            node,
            door,
            warnings: SessionWarnings::default(),
            last_session: AtomicU64::new(MASTER.0),
            sessions: RwLock::default(),
        }
    }

    /// Draws the id of a session, never twice.
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.last_session.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Adds a session that has started. `false` if the master drains: its sessions have been told, and this one has not.
    #[must_use]
    pub(crate) fn session_started(&self, session: SessionHandle) -> bool {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sessions.by_id.insert(session.id(), session);
        !sessions.draining
    }

    /// The identities of the mesh, as they are now.
    pub(crate) fn identities(&self) -> Option<Arc<Identities>> {
        self.identities.load_full()
    }

    /// Sets other identities; gives the sessions that are to look at theirs again. A session that starts later, or is binding, finds the new ones.
    pub(crate) fn set_identities(&self, identities: Arc<Identities>) -> Vec<SessionHandle> {
        self.identities.store(Some(identities));
        self.sessions()
    }

    /// Notes that the master drains; gives all sessions that have not ended, in the order in which they started.
    pub(crate) fn drain(&self) -> Vec<SessionHandle> {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).draining = true;
        self.sessions()
    }

    /// Whether the master drains.
    pub(crate) fn is_draining(&self) -> bool {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).draining
    }

    /// Takes out a session that has ended.
    pub(crate) fn session_ended(&self, id: SessionId) {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).by_id.remove(&id);
    }

    /// The session of this id, unless it has ended.
    pub(crate) fn session(&self, id: SessionId) -> Option<SessionHandle> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).cloned()
    }

    /// All sessions that have not ended, in the order in which they started.
    pub(super) fn sessions(&self) -> Vec<SessionHandle> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let mut sessions: Vec<_> = sessions.by_id.values().cloned().collect();
        sessions.sort_unstable_by_key(SessionHandle::id);
        sessions
    }

    /// The branch of a session, as the functions that it lends know it.
    pub(crate) fn lender(&self, session: SessionId) -> NodeLender {
        NodeLender { node: Arc::clone(&self.node), link: session.0 }
    }
}

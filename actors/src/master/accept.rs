//! A listener of a master: it accepts connections, and starts a session for each.

use super::permissions::LetsIn;
use super::session::SessionActor;
use super::surroundings::MasterShared;
use crate::link::{Accept, Accepted};
use crate::repeated::Repeated;
use actix::Actor;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Accepts connections without an end, and starts a session for each.
pub(super) async fn accept(mut acceptor: Box<dyn Accept>, master: Arc<MasterShared>, lets_in: LetsIn) {
    let (failing, full) = (Repeated::new(), Repeated::new());
    loop {
        match acceptor.accept().await {
            Ok(accepted) => {
                if let Some(line) = failing.over() {
                    log::log!(line.level, "connections are taken in again at {}{line}", acceptor.address());
                }
                if master.unbound.load(Ordering::Relaxed) >= master.limits.unbound_sessions_max {
                    let line = full.warn(Instant::now().into_std());
                    log::log!(
                        line.level,
                        "{} is turned away: {} connections have not bound yet{line}",
                        accepted.peer,
                        master.limits.unbound_sessions_max
                    );
                    continue;
                }
                start_session(&master, accepted, lets_in.clone());
            }
            Err(error) => {
                // There is no file descriptor left, or the peer has gone before it was accepted: neither ends the listener.
                let line = failing.warn(Instant::now().into_std());
                let address = acceptor.address();
                log::log!(line.level, "a connection could not be taken in at {address}: {error}{line}");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// How long a listener rests after it could not accept a connection: long enough not to spin, short enough to go unnoticed.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(20);

fn start_session(master: &Arc<MasterShared>, accepted: Accepted, lets_in: LetsIn) {
    let shared = Arc::clone(master);
    let start = move || {
        SessionActor::new(shared, accepted, lets_in).start();
    };
    match &master.config.spawner {
        Some(spawner) => spawner.spawn(Box::new(start)),
        None => start(),
    }
}

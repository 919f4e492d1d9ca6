//! A listener of a master: it accepts connections, gives each a place, and starts a session for it. A connection for which there is no place is
//! told so, and closed.

use super::listen::Listening;
use super::permissions::LetsIn;
use super::session::SessionActor;
use super::surroundings::MasterShared;
use crate::link::door::Entered;
use crate::link::{Accepted, Link, are_descriptors_gone};
use crate::log_line;
use crate::repeated::Repeated;
use actix::Actor;
use meshwork_wire::limits::{ACCEPTED_IN_A_ROW_MAX, PARTING_WITHIN, TURNED_AWAY_MAX};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Accepts connections without an end, and starts a session for each.
pub(super) async fn accept(mut listening: Listening, master: Arc<MasterShared>, lets_in: LetsIn) {
    let (failing, full) = (Repeated::new(), Repeated::new());
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let mut in_a_row = 0;
    loop {
        match listening.accept.accept().await {
            Ok(accepted) => {
                if let Some(line) = failing.over() {
                    let address = listening.accept.address();
                    log_line!(line, "connections are taken in again at {address}");
                }
                match master.door.enter(&accepted.peer, listening.via()).await {
                    Ok(entered) => {
                        let accepted = listening.speak(accepted, &entered.place, master.limits.bind_within);
                        start_session(&master, accepted, entered, lets_in.clone());
                    }
                    Err(reason) => {
                        let line = full.warn(Instant::now().into_std());
                        log_line!(line, "{} is turned away: {reason}", accepted.peer);
                        if let Ok(permit) = Arc::clone(&turned_away).try_acquire_owned() {
                            let words = listening.parting_words(&reason.to_string());
                            actix_rt::spawn(async move {
                                turn_away(accepted.link, &words).await;
                                drop(permit);
                            });
                        }
                    }
                }
                in_a_row += 1;
                if in_a_row == ACCEPTED_IN_A_ROW_MAX {
                    in_a_row = 0;
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                // There is no file descriptor left, or the peer has gone before it was accepted: neither ends the listener.
                let line = failing.warn(Instant::now().into_std());
                let address = listening.accept.address();
                log_line!(line, "a connection could not be taken in at {address}: {error}");
                // Connections that have said nothing give their descriptors to those that come.
                if are_descriptors_gone(&error) {
                    if master.door.make_room().await {
                        continue;
                    }
                    let words = listening.parting_words("the master has no descriptors left");
                    for _ in 0..TURNED_AWAY_MAX {
                        if !listening.accept.turn_away(&words) {
                            break;
                        }
                    }
                }
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// How long a listener rests after it could not accept a connection: long enough not to spin, short enough to go unnoticed.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Tells a connection why it is closed, and hears it for a moment: a connection that is closed with unread bytes loses the words, too.
async fn turn_away(mut link: Box<dyn Link>, words: &[u8]) {
    let parting = async {
        link.write_all(words).await?;
        link.shutdown().await?;
        let mut unread = [0; 512];
        while link.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whether the words have arrived, nobody is told.
    let _ = tokio::time::timeout(PARTING_WITHIN, parting).await;
}

fn start_session(master: &Arc<MasterShared>, accepted: Accepted, entered: Entered, lets_in: LetsIn) {
    let shared = Arc::clone(master);
    let start = move || {
        SessionActor::new(shared, accepted, entered, lets_in).start();
    };
    match &master.config.spawner {
        Some(spawner) => spawner.spawn(Box::new(start)),
        None => start(),
    }
}

//! The signals that ask a command to end, and the drain that it ends with.

use crate::failure::{Done, Failure};
use crate::output::say;
use meshwork::{Drained, Node, Status};
use std::io;
use std::pin::pin;
use std::time::Duration;

/// Ctrl-C and SIGTERM. A signal that comes after this was made is not lost, even if the command does not wait for it yet.
pub(super) struct Signals {
    #[cfg(unix)]
    interrupted: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminated: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupted: tokio::signal::windows::CtrlC,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        Self::listen().map_err(|error| Failure::Use(format!("signals cannot be listened for: {error}")))
    }

    #[cfg(unix)]
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(windows)]
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupted: tokio::signal::windows::ctrl_c()? })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
        #[cfg(windows)]
        self.interrupted.recv().await;
    }
}

/// SIGHUP, which only Unix has. As long as nobody listens, it ends the process.
pub(super) struct Hangups {
    #[cfg(unix)]
    hung_up: tokio::signal::unix::Signal,
}

impl Hangups {
    pub(super) fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            let kind = tokio::signal::unix::SignalKind::hangup();
            let hung_up = tokio::signal::unix::signal(kind);
            hung_up
                .map(|hung_up| Self { hung_up })
                .map_err(|error| Failure::Use(format!("SIGHUP cannot be listened for: {error}")))
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        self.hung_up.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}

/// Drains a node that was asked to end, and says how many requests finished. One more signal ends the drain at once.
pub(super) async fn drain(node: &Node, within: Duration, signals: &mut Signals) -> Done {
    let mut status = node.status().await?;
    // Said when the drain has begun, not when it was asked for: scripts rely on the line.
    let mut begun = pin!(async {
        let _ = status.wait_for(|status| matches!(status, Status::Draining | Status::Closed(_))).await;
    });
    let mut draining = pin!(node.drain(within));
    let mut is_said = false;
    loop {
        tokio::select! {
            biased;
            () = &mut begun, if !is_said => {
                say("draining; once more ends at once");
                is_said = true;
            }
            drained = &mut draining => {
                let Drained { finished, abandoned } = drained?;
                say(format_args!("drained: {finished} finished, {abandoned} abandoned"));
                return Ok(());
            }
            () = signals.next() => {
                say("ended at once");
                return Ok(());
            }
        }
    }
}

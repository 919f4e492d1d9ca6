//! The signals that ask a command to end, and the drain that it ends with; and SIGHUP, which asks it to read its files again.

use crate::failure::{Done, Failure};
use crate::output::say;
use meshwork::{Drained, Node, Status};
use std::io;
use std::pin::{Pin, pin};
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
struct Hangups {
    #[cfg(unix)]
    hung_up: tokio::signal::unix::Signal,
}

impl Hangups {
    fn new() -> Result<Self, Failure> {
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
    async fn next(&mut self) {
        #[cfg(unix)]
        self.hung_up.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}

/// The files that are read again on SIGHUP. Each stands for itself: one that cannot be taken leaves what was read before, and the log says so.
#[derive(Default)]
pub(super) struct Reload {
    files: Vec<(String, ReadAgain)>,
}

/// Reads a file again and takes it; the error says what is wrong with it.
type ReadAgain = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = Result<(), String>>>>>;

impl Reload {
    /// Adds a file, under the words that the log calls it by.
    pub(super) fn add<F>(&mut self, what: impl Into<String>, mut read: impl FnMut() -> F + 'static)
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        self.files.push((what.into(), Box::new(move || Box::pin(read()))));
    }

    /// Reads the files again at each SIGHUP from now on, until the command ends. Without files, SIGHUP ends the command as it ends any other.
    pub(super) fn start(self) -> Done {
        let mut files = self.files;
        if files.is_empty() {
            return Ok(());
        }
        let mut hangups = Hangups::new()?;
        actix::spawn(async move {
            loop {
                hangups.next().await;
                for (what, read) in &mut files {
                    match read().await {
                        Ok(()) => say(format_args!("{what} were read again")),
                        Err(why) => {
                            say(format_args!("{what} stay as before: {why}"));
                        }
                    }
                }
            }
        });
        Ok(())
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

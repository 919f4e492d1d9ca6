//! What was denied for want of a permission, counted by verb, and told in the log once in a while.

use super::permissions::Verb;
use crate::log_line;
use crate::node::snapshot::Denied;
use crate::repeated::Repeated;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a master has denied since it started.
#[derive(Default)]
pub(crate) struct Denials {
    counts: [AtomicU64; Verb::ALL.len()],
    /// The peers choose how often they are denied.
    lines: [Repeated; Verb::ALL.len()],
}

impl Denials {
    /// Counts a denial, and tells it in the log if none of its verb was told lately.
    #[cold]
    pub(crate) fn add(&self, verb: Verb, who: impl Display, why: impl Display, now: Instant) {
        self.counts[verb as usize].fetch_add(1, Ordering::Relaxed);
        let line = self.lines[verb as usize].warn(now);
        log_line!(line, "{who} is denied: {why}");
    }

    /// Counts a bind that is refused, which the log tells as a refusal.
    pub(crate) fn add_bind(&self) {
        self.counts[Verb::Bind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often each verb was denied.
    pub(crate) fn snapshot(&self) -> Denied {
        let count = |verb: Verb| self.counts[verb as usize].load(Ordering::Relaxed);
        Denied {
            bind: count(Verb::Bind),
            offer: count(Verb::Offer),
            call: count(Verb::Call),
            publish: count(Verb::Publish),
            subscribe: count(Verb::Subscribe),
            describe: count(Verb::Describe),
        }
    }
}

//! Where the link of a branch stands, and what may be done in each place. It decides; `branch.rs` dials, writes and waits. No runtime, no clock, no
//! socket: moments come in.
//!
//! ```text
//!            bound                       lost
//!   New ──────────────▶  Bound  ──────────────────▶  Rebinding
//!                          │  ◀────────────────────    │    │ refused for good
//!              drain, lost │         bound again       │    ▼
//!                          ▼                     drain │  Closed
//!                        Leaving ◀─────────────────────┘    ▲
//!                          └────────────────────────────────┘ drained
//! ```

use meshwork_wire::limits::HEARTBEATS_MISSED_MAX;
use meshwork_wire::{CallError, Code, Fate, Frame};
use std::time::{Duration, Instant};

/// Where the link of a branch stands.
pub(super) struct LinkState {
    place: Place,
    /// Which link it is: what a lost one still brings is not heard.
    epoch: u64,
}

enum Place {
    /// Not bound yet.
    New,
    /// On the way back. What changed since the bind was written is said when it is answered.
    Rebinding {
        unsaid: Vec<Frame>,
    },
    Bound(Bound),
    /// Drained without a link: the calls of the branch to itself are finished, and it does not bind again.
    Leaving,
    /// Ended: drained, or refused for good.
    Closed,
}

struct Bound {
    heard: Instant,
    heartbeat: Duration,
    /// The master takes no more: calls wait for the next link.
    master_drains: bool,
    /// The branch takes no more.
    draining: bool,
}

/// What becomes of a call of the branch that somebody else answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Course {
    /// It leaves over the link.
    Leaves,
    /// It waits for the next link.
    Waits,
    /// It is refused: the branch drains.
    Draining,
    /// It is refused: the branch has ended.
    Ended,
}

/// What a heartbeat finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// It was of another link.
    Stale,
    /// The master is asked whether it is there.
    Ping,
    /// The master was silent for too long: the link is lost.
    GiveUp,
}

/// What follows when a link is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    /// Nothing: it was lost before, or there was none.
    Nothing,
    /// The branch binds again.
    Rebinds,
    /// The branch drains, and ends when that has been said.
    Leaves,
}

/// How something is said that the master answers.
#[derive(PartialEq, Debug)]
pub(super) enum Say {
    /// Over the link.
    Now(Frame),
    /// With the next bind: it is kept.
    WithTheNextBind,
    /// Not at all: the branch has ended.
    Never,
}

impl LinkState {
    pub(super) fn new() -> Self {
        Self { place: Place::New, epoch: 0 }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn is_new(&self) -> bool {
        matches!(self.place, Place::New)
    }

    pub(super) fn is_bound(&self) -> bool {
        matches!(self.place, Place::Bound(_))
    }

    pub(super) fn is_rebinding(&self) -> bool {
        matches!(self.place, Place::Rebinding { .. })
    }

    /// Whether it is bound, or on its way back.
    pub(super) fn may_return(&self) -> bool {
        self.is_bound() || self.is_rebinding()
    }

    /// Whether requests of the master are refused.
    pub(super) fn is_draining(&self) -> bool {
        matches!(&self.place, Place::Bound(Bound { draining: true, .. }) | Place::Leaving)
    }

    /// Whether the link of that number is there.
    pub(super) fn is_link(&self, epoch: u64) -> bool {
        self.is_bound() && epoch == self.epoch
    }

    /// What becomes of a call that somebody else answers.
    pub(super) fn course(&self) -> Course {
        match &self.place {
            Place::Bound(Bound { draining: true, .. }) | Place::Leaving => Course::Draining,
            Place::Bound(Bound { master_drains: false, .. }) => Course::Leaves,
            Place::Bound(_) | Place::New | Place::Rebinding { .. } => Course::Waits,
            Place::Closed => Course::Ended,
        }
    }

    /// The branch is bound over a new link; gives what is to be said first. The epoch rises.
    pub(super) fn bound(&mut self, now: Instant, heartbeat: Duration) -> Vec<Frame> {
        self.epoch += 1;
        let bound = Bound { heard: now, heartbeat, master_drains: false, draining: false };
        match std::mem::replace(&mut self.place, Place::Bound(bound)) {
            Place::Rebinding { unsaid } => unsaid,
            _ => Vec::new(),
        }
    }

    /// The link brought something.
    pub(super) fn heard(&mut self, now: Instant) {
        if let Place::Bound(bound) = &mut self.place {
            bound.heard = now;
        }
    }

    /// A heartbeat of the link of that number.
    pub(super) fn beat(&self, epoch: u64, now: Instant) -> Beat {
        match &self.place {
            Place::Bound(bound) if epoch == self.epoch => {
                let silent = now.saturating_duration_since(bound.heard);
                if silent >= bound.heartbeat.saturating_mul(HEARTBEATS_MISSED_MAX) {
                    Beat::GiveUp
                } else {
                    Beat::Ping
                }
            }
            _ => Beat::Stale,
        }
    }

    /// The master takes no more.
    pub(super) fn master_drains(&mut self) {
        if let Place::Bound(bound) = &mut self.place {
            bound.master_drains = true;
        }
    }

    /// The link is lost.
    pub(super) fn lost(&mut self) -> Lost {
        match &self.place {
            Place::Bound(Bound { draining: true, .. }) => {
                self.place = Place::Leaving;
                Lost::Leaves
            }
            Place::Bound(_) => {
                self.place = Place::Rebinding { unsaid: Vec::new() };
                Lost::Rebinds
            }
            Place::New | Place::Rebinding { .. } | Place::Leaving | Place::Closed => Lost::Nothing,
        }
    }

    /// A bind is about to be written: it says all that there is to say now. `false` if the branch does not bind again.
    pub(super) fn rebinds(&mut self) -> bool {
        match &mut self.place {
            Place::Rebinding { unsaid } => {
                unsaid.clear();
                true
            }
            _ => false,
        }
    }

    /// The branch takes no more; `true` if the master is there to be told.
    pub(super) fn drain(&mut self) -> bool {
        match &mut self.place {
            Place::Bound(bound) => {
                bound.draining = true;
                true
            }
            Place::Rebinding { .. } => {
                self.place = Place::Leaving;
                false
            }
            Place::New | Place::Leaving | Place::Closed => false,
        }
    }

    /// Something that the master should know. While the branch is on its way back it is kept: bounded by the actions and patterns that a node may have.
    pub(super) fn say(&mut self, frame: Frame) -> Say {
        match &mut self.place {
            Place::Bound(_) => Say::Now(frame),
            Place::Rebinding { unsaid } => {
                unsaid.push(frame);
                Say::WithTheNextBind
            }
            Place::New | Place::Leaving | Place::Closed => Say::Never,
        }
    }

    /// The branch has ended; `false` if it had before.
    pub(super) fn close(&mut self) -> bool {
        !matches!(std::mem::replace(&mut self.place, Place::Closed), Place::Closed)
    }
}

/// Why a call of a branch that drains is refused.
pub(super) fn draining() -> CallError {
    CallError::new(Code::DRAINING, Fate::NotSent, "this branch is draining")
}

/// Why a branch that has ended does nothing more.
pub(super) fn ended() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::NotSent, "the branch has ended")
}

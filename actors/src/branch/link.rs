//! Where the link of a branch stands, and what may be done in each place. It decides; `branch.rs` dials, writes and waits. No runtime, no clock, no
//! socket: moments come in.
//!
//! ```text
//!            bound                       lost
//!   New ──────────────▶  Bound  ──────────────────▶  Rebinding
//!                          │  ◀────────────────────    │
//!              drain, lost │         bound again       │ drain
//!                          ▼                           │
//!                        Leaving ◀─────────────────────┘
//!
//!   Each of them ──▶ Closed: drained, refused for good, or its actor has stopped. Nothing leads back.
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

    /// The branch is bound over a new link; gives what is to be said first. The epoch rises. None if it does not bind any more, or is
    /// bound.
    pub(super) fn bound(&mut self, now: Instant, heartbeat: Duration) -> Option<Vec<Frame>> {
        let unsaid = match &mut self.place {
            Place::New => Vec::new(),
            Place::Rebinding { unsaid } => std::mem::take(unsaid),
            Place::Bound(_) | Place::Leaving | Place::Closed => return None,
        };
        self.epoch += 1;
        self.place = Place::Bound(Bound { heard: now, heartbeat, master_drains: false, draining: false });
        Some(unsaid)
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

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::CallbackId;
    use proptest::prelude::*;

    const HEARTBEAT: Duration = Duration::from_millis(100);

    #[derive(Clone, Debug)]
    enum Step {
        Bound,
        Heard,
        /// A heartbeat of the link so many links ago.
        Beat(u64),
        Wait(u64),
        MasterDrains,
        Lost,
        Rebinds,
        Drain,
        Say,
        Close,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => Just(Step::Bound),
            4 => Just(Step::Heard),
            4 => (0..3_u64).prop_map(Step::Beat),
            4 => (0..400_u64).prop_map(Step::Wait),
            2 => Just(Step::MasterDrains),
            6 => Just(Step::Lost),
            4 => Just(Step::Rebinds),
            2 => Just(Step::Drain),
            8 => Just(Step::Say),
            1 => Just(Step::Close),
        ];
        proptest::collection::vec(step, 0..100)
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum At {
        New,
        Rebinding,
        Bound,
        Leaving,
        Closed,
    }

    fn at(link: &LinkState) -> At {
        match &link.place {
            Place::New => At::New,
            Place::Rebinding { .. } => At::Rebinding,
            Place::Bound(_) => At::Bound,
            Place::Leaving => At::Leaving,
            Place::Closed => At::Closed,
        }
    }

    struct Model {
        link: LinkState,
        now: Instant,
        heard: Instant,
        epoch: u64,
        draining: bool,
        master_drains: bool,
        unsaid: Vec<u64>,
        said: u64,
    }

    impl Model {
        fn step(&mut self, step: &Step) {
            let before = at(&self.link);
            match step {
                Step::Bound => {
                    let said = self.link.bound(self.now, HEARTBEAT);
                    assert_eq!(said.is_some(), matches!(before, At::New | At::Rebinding));
                    if let Some(said) = said {
                        let unsaid = std::mem::take(&mut self.unsaid).into_iter();
                        let unsaid: Vec<_> = unsaid.map(|said| Frame::Cancel(CallbackId(said))).collect();
                        assert_eq!(said, unsaid, "it is said once and in order");
                        self.epoch += 1;
                        (self.heard, self.draining, self.master_drains) = (self.now, false, false);
                    }
                }
                Step::Heard => {
                    self.link.heard(self.now);
                    self.heard = self.now;
                }
                Step::Beat(ago) => {
                    let beat = self.link.beat(self.epoch.wrapping_sub(*ago), self.now);
                    let is_silent = self.now - self.heard >= HEARTBEAT * HEARTBEATS_MISSED_MAX;
                    assert_eq!(
                        beat,
                        match (before, ago, is_silent) {
                            (At::Bound, 0, true) => Beat::GiveUp,
                            (At::Bound, 0, false) => Beat::Ping,
                            _ => Beat::Stale,
                        }
                    );
                }
                Step::Wait(ms) => self.now += Duration::from_millis(*ms),
                Step::MasterDrains => {
                    self.link.master_drains();
                    self.master_drains |= before == At::Bound;
                }
                Step::Lost => assert_eq!(
                    self.link.lost(),
                    match (before, self.draining) {
                        (At::Bound, true) => Lost::Leaves,
                        (At::Bound, false) => Lost::Rebinds,
                        _ => Lost::Nothing,
                    }
                ),
                Step::Rebinds => {
                    assert_eq!(self.link.rebinds(), before == At::Rebinding);
                    // The bind says it.
                    self.unsaid.clear();
                }
                Step::Drain => {
                    assert_eq!(self.link.drain(), before == At::Bound);
                    self.draining |= before == At::Bound;
                }
                Step::Say => {
                    self.said += 1;
                    let frame = || Frame::Cancel(CallbackId(self.said));
                    assert_eq!(
                        self.link.say(frame()),
                        match before {
                            At::Bound => Say::Now(frame()),
                            At::Rebinding => Say::WithTheNextBind,
                            At::New | At::Leaving | At::Closed => Say::Never,
                        }
                    );
                    if before == At::Rebinding {
                        self.unsaid.push(self.said);
                    }
                }
                Step::Close => assert_eq!(self.link.close(), before != At::Closed),
            }
            self.check(step, before);
        }

        fn check(&self, step: &Step, before: At) {
            let (link, now) = (&self.link, at(&self.link));
            let is_drawn = match (before, now) {
                (At::New | At::Rebinding, At::Bound) => matches!(step, Step::Bound),
                (At::Bound, At::Rebinding | At::Leaving) => matches!(step, Step::Lost),
                (At::Rebinding, At::Leaving) => matches!(step, Step::Drain),
                (At::New | At::Bound | At::Rebinding | At::Leaving, At::Closed) => {
                    matches!(step, Step::Close)
                }
                (before, now) => before == now,
            };
            assert!(is_drawn, "{before:?} to {now:?} by {step:?}");
            assert_eq!(link.epoch(), self.epoch);
            let is = |it: At| now == it;
            assert_eq!((link.is_new(), link.is_bound()), (is(At::New), is(At::Bound)));
            assert_eq!(
                (link.is_rebinding(), matches!(link.place, Place::Closed)),
                (is(At::Rebinding), is(At::Closed))
            );
            assert_eq!(link.may_return(), is(At::Bound) || is(At::Rebinding));
            assert_eq!(link.is_link(self.epoch), is(At::Bound));
            assert!(!link.is_link(self.epoch + 1) && (self.epoch == 0 || !link.is_link(self.epoch - 1)));
            assert_eq!(link.is_draining(), is(At::Leaving) || is(At::Bound) && self.draining);
            assert_eq!(
                link.course(),
                match now {
                    At::Bound if self.draining => Course::Draining,
                    At::Bound if !self.master_drains => Course::Leaves,
                    At::Bound | At::New | At::Rebinding => Course::Waits,
                    At::Leaving => Course::Draining,
                    At::Closed => Course::Ended,
                }
            );
        }
    }

    proptest! {
        #[test]
        fn a_link_goes_from_place_to_place_as_it_is_drawn(steps in steps()) {
            let now = Instant::now();
            let mut model = Model {
                link: LinkState::new(),
                now,
                heard: now,
                epoch: 0,
                draining: false,
                master_drains: false,
                unsaid: Vec::new(),
                said: 0,
            };
            for step in &steps {
                model.step(step);
            }
        }
    }

    #[test]
    fn a_branch_that_leaves_or_has_ended_is_not_bound_again() {
        let now = Instant::now();
        let mut link = LinkState::new();
        assert_eq!(link.bound(now, HEARTBEAT), Some(Vec::new()));
        assert!(link.drain());
        assert_eq!(link.lost(), Lost::Leaves);
        assert!(!link.rebinds());
        assert_eq!((link.bound(now, HEARTBEAT), link.course()), (None, Course::Draining));
        assert!(link.close());
        assert_eq!((link.bound(now, HEARTBEAT), link.course(), link.epoch()), (None, Course::Ended, 1));
    }
}

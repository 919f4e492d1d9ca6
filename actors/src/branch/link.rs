//! The phase of the link of a branch, and what may be done in each phase. It decides; `branch.rs` dials, writes and waits. No runtime, no
//! clock, no socket: moments come in.
//!
//! ```text
//!            bound                       lost
//!   New ──────────────▶  Bound  ──────────────────▶  Rebinding
//!                          │  ◀────────────────────    │
//!              drain, lost │         bound again       │ drain
//!                          ▼                           │
//!                        Leaving ◀─────────────────────┘
//!
//!   Each phase ──▶ Closed: drained, refused for good, or the actor has stopped. Nothing leads back.
//! ```

use meshwork_wire::limits::HEARTBEATS_MISSED_MAX;
use meshwork_wire::{CallError, Code, Fate, Frame};
use std::time::{Duration, Instant};

/// The phase of the link of a branch, and the number of the link.
pub(super) struct LinkState {
    phase: Phase,
    /// The number of the link: frames and heartbeats of an earlier link are ignored.
    epoch: u64,
}

/// The phase of a link.
enum Phase {
    /// The branch is not bound yet.
    New,
    /// The link is lost, and the branch binds again. Changes since the bind was written are sent as these frames when it is answered.
    Rebinding {
        unsaid: Vec<Frame>,
    },
    Bound(Bound),
    /// The branch drains without a link: it finishes the calls that it answers itself, and does not bind again.
    Leaving,
    /// The branch has ended: drained, refused for good, or its actor has stopped.
    Closed,
}

/// The state of a bound link.
struct Bound {
    since: Instant,
    /// When the link last brought a block, or another sign of life.
    heard: Instant,
    heartbeat: Duration,
    /// The master takes no more requests: calls wait for the next link.
    master_drains: bool,
    draining: Draining,
}

/// How far the drain of a branch over its link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Draining {
    /// The branch does not drain.
    No,
    /// The master was told, and may still send requests, which are answered.
    Told,
    /// The master sends no more requests; one that comes all the same is refused.
    Confirmed,
}

/// The course of a call of the branch that another node answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Course {
    /// The call leaves over the link.
    Leaves,
    /// The call waits for the next link.
    Waits,
    /// The call is refused: the branch drains.
    Draining,
    /// The call is refused: the branch has ended.
    Ended,
}

/// The step that the branch takes at a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// Nothing: it is the heartbeat of an earlier link, or the link is not bound.
    Stale,
    /// The master is sent a ping.
    Ping,
    /// The master was silent for too long: the link is lost.
    GiveUp,
}

/// The step that the branch takes when its link is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    /// Nothing: the link was not bound.
    Nothing,
    /// The branch binds again. The link had been bound for so long.
    Rebinds { held: Duration },
    /// The branch drains: it ends when the drain has been answered.
    Leaves,
}

/// How a change of the actions or subscriptions reaches the master.
#[derive(PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made, and moved once")]
pub(super) enum Say {
    /// This frame is sent over the link.
    Now(Frame),
    /// The next bind has the change in it; or, if that is written already, the frame is sent when the bind is answered.
    WithTheNextBind,
    /// The change does not reach the master: the branch has ended, or is not bound yet.
    Never,
}

impl LinkState {
    pub(super) fn new() -> Self {
        Self { phase: Phase::New, epoch: 0 }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn is_new(&self) -> bool {
        matches!(self.phase, Phase::New)
    }

    pub(super) fn is_bound(&self) -> bool {
        matches!(self.phase, Phase::Bound(_))
    }

    pub(super) fn is_rebinding(&self) -> bool {
        matches!(self.phase, Phase::Rebinding { .. })
    }

    /// Whether the branch is bound, or binds again.
    pub(super) fn may_return(&self) -> bool {
        self.is_bound() || self.is_rebinding()
    }

    /// Whether requests of the master are refused.
    pub(super) fn is_refusing(&self) -> bool {
        matches!(&self.phase, Phase::Bound(Bound { draining: Draining::Confirmed, .. }) | Phase::Leaving)
    }

    /// Whether the link of this number is bound.
    pub(super) fn is_link(&self, epoch: u64) -> bool {
        self.is_bound() && epoch == self.epoch
    }

    /// The course of a call that another node answers.
    pub(super) fn course(&self) -> Course {
        match &self.phase {
            Phase::Bound(Bound { draining: Draining::Told | Draining::Confirmed, .. }) | Phase::Leaving => {
                Course::Draining
            }
            Phase::Bound(Bound { master_drains: false, .. }) => Course::Leaves,
            Phase::Bound(_) | Phase::New | Phase::Rebinding { .. } => Course::Waits,
            Phase::Closed => Course::Ended,
        }
    }

    /// Notes that the branch is bound over a new link, which raises the epoch; gives the frames that are to be sent first. None if the branch is
    /// bound already or does not bind any more.
    pub(super) fn bound(&mut self, now: Instant, heartbeat: Duration) -> Option<Vec<Frame>> {
        let unsaid = match &mut self.phase {
            Phase::New => Vec::new(),
            Phase::Rebinding { unsaid } => std::mem::take(unsaid),
            Phase::Bound(_) | Phase::Leaving | Phase::Closed => return None,
        };
        self.epoch += 1;
        let draining = Draining::No;
        self.phase =
            Phase::Bound(Bound { since: now, heard: now, heartbeat, master_drains: false, draining });
        Some(unsaid)
    }

    /// Notes that the link brought a block, or another sign of life.
    pub(super) fn heard(&mut self, now: Instant) {
        if let Phase::Bound(bound) = &mut self.phase {
            bound.heard = now;
        }
    }

    /// The step at a heartbeat of the link of this number.
    pub(super) fn beat(&self, epoch: u64, now: Instant) -> Beat {
        match &self.phase {
            Phase::Bound(bound) if epoch == self.epoch => {
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

    /// Notes that the master takes no more requests.
    pub(super) fn master_drains(&mut self) {
        if let Phase::Bound(bound) = &mut self.phase {
            bound.master_drains = true;
        }
    }

    /// Notes that the link is lost.
    pub(super) fn lost(&mut self, now: Instant) -> Lost {
        match &self.phase {
            Phase::Bound(Bound { draining: Draining::Told | Draining::Confirmed, .. }) => {
                self.phase = Phase::Leaving;
                Lost::Leaves
            }
            Phase::Bound(Bound { since, .. }) => {
                let held = now.saturating_duration_since(*since);
                self.phase = Phase::Rebinding { unsaid: Vec::new() };
                Lost::Rebinds { held }
            }
            Phase::New | Phase::Rebinding { .. } | Phase::Leaving | Phase::Closed => Lost::Nothing,
        }
    }

    /// Notes that a bind is about to be written, with all changes so far. `false` if the branch does not bind again.
    pub(super) fn rebinds(&mut self) -> bool {
        match &mut self.phase {
            Phase::Rebinding { unsaid } => {
                unsaid.clear();
                true
            }
            _ => false,
        }
    }

    /// Notes that the branch drains. If the master answers the drain, the branch refuses requests only from then on: see [`LinkState::drained`].
    pub(super) fn drain(&mut self, is_answered: bool) {
        match &mut self.phase {
            Phase::Bound(bound) if is_answered && bound.draining == Draining::No => {
                bound.draining = Draining::Told;
            }
            Phase::Bound(Bound { draining: Draining::Told, .. }) if is_answered => {}
            Phase::Bound(bound) => bound.draining = Draining::Confirmed,
            Phase::Rebinding { .. } => self.phase = Phase::Leaving,
            Phase::New | Phase::Leaving | Phase::Closed => {}
        }
    }

    /// Notes that the master has answered the drain: it sends no more requests and events.
    pub(super) fn drained(&mut self) {
        if let Phase::Bound(Bound { draining: draining @ Draining::Told, .. }) = &mut self.phase {
            *draining = Draining::Confirmed;
        }
    }

    /// Takes a frame about a change that the master must know. While the branch binds again the frame is kept: bounded by the actions and
    /// patterns that a node may have.
    pub(super) fn say(&mut self, frame: Frame) -> Say {
        match &mut self.phase {
            Phase::Bound(_) => Say::Now(frame),
            Phase::Rebinding { unsaid } => {
                unsaid.push(frame);
                Say::WithTheNextBind
            }
            Phase::New | Phase::Leaving | Phase::Closed => Say::Never,
        }
    }

    /// What the errors of several registers of one set come to: the refusal of the master, if it refused one; else the error of a register that
    /// was not answered. A register that was lost with its link is neither: the next bind carries the actions.
    pub(super) fn refusal_of(&self, errors: Vec<CallError>) -> (Option<CallError>, Option<CallError>) {
        let returns = |error: &CallError| error.code() == Code::LINK_LOST && self.may_return();
        let (silences, refusals): (Vec<_>, Vec<_>) = errors
            .into_iter()
            .filter(|error| !returns(error))
            .partition(|error| [Code::REQUEST_TIMEOUT, Code::LINK_LOST].contains(&error.code()));
        (refusals.into_iter().next(), silences.into_iter().next())
    }

    /// Notes that the branch has ended; `false` if it had ended before.
    pub(super) fn close(&mut self) -> bool {
        !matches!(std::mem::replace(&mut self.phase, Phase::Closed), Phase::Closed)
    }
}

/// The error of a call that a draining branch refuses.
pub(super) fn draining() -> CallError {
    CallError::new(Code::DRAINING, Fate::NotSent, "this branch is draining")
}

/// The error of everything that a branch is asked for after its end.
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
        /// A heartbeat of the link that was bound so many links before this one.
        Beat(u64),
        Wait(u64),
        MasterDrains,
        Lost,
        Rebinds,
        /// With a master that answers, or not.
        Drain(bool),
        Drained,
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
            2 => any::<bool>().prop_map(Step::Drain),
            2 => Just(Step::Drained),
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
        match &link.phase {
            Phase::New => At::New,
            Phase::Rebinding { .. } => At::Rebinding,
            Phase::Bound(_) => At::Bound,
            Phase::Leaving => At::Leaving,
            Phase::Closed => At::Closed,
        }
    }

    struct Model {
        link: LinkState,
        now: Instant,
        bound: Instant,
        heard: Instant,
        epoch: u64,
        draining: Draining,
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
                        (self.bound, self.heard) = (self.now, self.now);
                        (self.draining, self.master_drains) = (Draining::No, false);
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
                    self.link.lost(self.now),
                    match (before, self.draining) {
                        (At::Bound, Draining::No) => Lost::Rebinds { held: self.now - self.bound },
                        (At::Bound, _) => Lost::Leaves,
                        _ => Lost::Nothing,
                    }
                ),
                Step::Rebinds => {
                    assert_eq!(self.link.rebinds(), before == At::Rebinding);
                    // The bind contains the changes.
                    self.unsaid.clear();
                }
                Step::Drain(is_answered) => {
                    self.link.drain(*is_answered);
                    if before == At::Bound {
                        self.draining = match (self.draining, is_answered) {
                            (Draining::No | Draining::Told, true) => Draining::Told,
                            _ => Draining::Confirmed,
                        };
                    }
                }
                Step::Drained => {
                    self.link.drained();
                    if before == At::Bound && self.draining == Draining::Told {
                        self.draining = Draining::Confirmed;
                    }
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
                (At::Rebinding, At::Leaving) => matches!(step, Step::Drain(_)),
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
                (link.is_rebinding(), matches!(link.phase, Phase::Closed)),
                (is(At::Rebinding), is(At::Closed))
            );
            assert_eq!(link.may_return(), is(At::Bound) || is(At::Rebinding));
            assert_eq!(link.is_link(self.epoch), is(At::Bound));
            assert!(!link.is_link(self.epoch + 1) && (self.epoch == 0 || !link.is_link(self.epoch - 1)));
            let confirmed = self.draining == Draining::Confirmed;
            assert_eq!(link.is_refusing(), is(At::Leaving) || is(At::Bound) && confirmed);
            assert_eq!(
                link.course(),
                match now {
                    At::Bound if self.draining != Draining::No => Course::Draining,
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
        fn a_link_goes_from_phase_to_phase_as_it_is_drawn(steps in steps()) {
            let now = Instant::now();
            let mut model = Model {
                link: LinkState::new(),
                now,
                bound: now,
                heard: now,
                epoch: 0,
                draining: Draining::No,
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
        link.drain(true);
        assert_eq!(link.lost(now), Lost::Leaves);
        assert!(!link.rebinds());
        assert_eq!((link.bound(now, HEARTBEAT), link.course()), (None, Course::Draining));
        assert!(link.close());
        assert_eq!((link.bound(now, HEARTBEAT), link.course(), link.epoch()), (None, Course::Ended, 1));
    }
}

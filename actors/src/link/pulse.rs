//! The signs of life of a link, from the tasks that read and write it to the actor that judges it at each heartbeat. Bytes count, and not
//! whole frames: a frame of 16 MiB takes longer than three heartbeats over a slow link that is well, and a heartbeat that stands behind it
//! cannot come in time. No runtime, no clock.

use std::cell::Cell;
use std::rc::Rc;

/// The signs of life of one link. Its reader, its writer and its actor, which live on one arbiter, have clones that share the signs.
#[derive(Clone, Default)]
pub(crate) struct Pulse(Rc<Cell<Signs>>);

/// The signs of life since the last heartbeat.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Signs {
    /// Bytes of a frame came that is not whole yet. Whole frames are seen by the actor itself.
    pub(crate) read: bool,
    /// The far end took bytes that had to wait for room.
    pub(crate) taken: bool,
    /// This end does not read: it would not hear the far end, and the far end gets no answer to its heartbeats.
    pub(crate) paused: bool,
}

impl Pulse {
    /// Notes that bytes of a frame came.
    pub(crate) fn read(&self) {
        self.0.set(Signs { read: true, ..self.0.get() });
    }

    /// Notes that the far end took bytes after it had taken none. Bytes that the operating system takes at once say nothing about the far end.
    pub(crate) fn taken(&self) {
        self.0.set(Signs { taken: true, ..self.0.get() });
    }

    /// Notes whether the reader pauses. A link whose reader pauses never counts as silent.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.0.set(Signs { paused, ..self.0.get() });
    }

    /// The signs since the last time. A pause lasts until its end is noted.
    pub(crate) fn take(&self) -> Signs {
        let signs = self.0.get();
        self.0.set(Signs { paused: signs.paused, ..Signs::default() });
        signs
    }
}

impl Signs {
    /// Whether the link counts as heard.
    pub(crate) fn any(self) -> bool {
        self.read || self.taken || self.paused
    }

    /// Whether the far end is told that this end lives, though it has not asked: its heartbeat stands behind a long frame, or is not read.
    pub(crate) fn are_answered(self) -> bool {
        self.read || self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_counts_for_one_heartbeat_and_a_pause_for_as_long_as_it_lasts() {
        let pulse = Pulse::default();
        assert!(!pulse.take().any());
        pulse.read();
        pulse.taken();
        let signs = pulse.take();
        assert_eq!(signs, Signs { read: true, taken: true, paused: false });
        assert!(signs.any() && signs.are_answered());
        assert!(!pulse.take().any(), "they were taken");
        pulse.taken();
        assert!(!pulse.take().are_answered(), "the far end reads, and is asked nothing");
        pulse.set_paused(true);
        for _ in 0..3 {
            let signs = pulse.take();
            assert!(signs.any() && signs.are_answered());
        }
        pulse.set_paused(false);
        assert!(!pulse.take().any());
    }
}

//! Whether a block of frames is taken at once or in parts. Taken at once, all its requests are answered in one go, and the other end may
//! sleep until the answers come; taken in parts, the other end is woken early and works on the first answers while the rest are made.
//! Parts gain much where the other end sleeps and has a processor of its own, and cost as much where that end, or its processor, is busy.
//! Neither can be seen from here, but the effect can: the time that passes for each frame from one block to the next. So both ways are
//! tried alternately, for blocks of each size, and the faster one is kept. No runtime, no clock: moments come in.

use std::time::{Duration, Instant};

/// Whether blocks of one link are taken at once or in parts.
#[derive(Default)]
pub(crate) struct Parts {
    /// One trial for each size of blocks; each size has twice as many frames as the size before it.
    sizes: [Trial; SIZES],
    /// The last block: when it came, how many frames it had, and the index of its size.
    last: Option<(Instant, usize, usize)>,
}

/// The trial of both ways for blocks of one size.
#[derive(Clone, Copy, Default)]
struct Trial {
    stage: Stage,
    /// The time and the frames of the blocks that were counted in this stage, and the number of these blocks.
    time: Duration,
    frames: u32,
    counted: u32,
    /// Whether parts were better when both ways were tried last, and for how many times the length of a trial this is kept.
    in_parts: bool,
    kept_for: u32,
}

#[derive(Clone, Copy, Default)]
enum Stage {
    /// Blocks are taken at once.
    #[default]
    TryWhole,
    /// Blocks are taken in parts; taken at once, a frame took `whole` picoseconds.
    TryInParts { whole: u64 },
    /// The better way is kept.
    Keep,
}

/// A block of so many frames or fewer is always taken at once: to wake the other end costs as much as to answer them.
pub(super) const WHOLE_MAX: usize = 16;

/// A block is taken in at most so many parts; no part but the last has fewer than [`WHOLE_MAX`] frames.
const PARTS: usize = 4;

/// The sizes of blocks: 17 to 32 frames, 33 to 64, and so on; the last size is more than 256 frames.
const SIZES: usize = 5;

/// Each way is tried for so many blocks.
const TRIAL_BLOCKS: u32 = 24;

/// The better way is kept for so many times [`TRIAL_BLOCKS`] at first, and twice as long each time that it is better again.
const KEPT_MIN: u32 = 8;
const KEPT_MAX: u32 = 512;

/// A longer pause between two blocks has other reasons, and is not counted.
const PAUSE_MAX: Duration = Duration::from_millis(2);

impl Parts {
    /// How many frames of this block are taken at once.
    #[inline]
    pub(crate) fn part_len(&mut self, count: usize, now: impl FnOnce() -> Instant) -> usize {
        if count <= WHOLE_MAX {
            self.last = None;
            return count;
        }
        self.judge(count, now())
    }

    fn judge(&mut self, count: usize, now: Instant) -> usize {
        let size = ((count - 1) / WHOLE_MAX).ilog2() as usize;
        let size = size.min(SIZES - 1);
        if let Some((before, frames, size_before)) = self.last.replace((now, count, size)) {
            let pause = now.saturating_duration_since(before);
            if pause <= PAUSE_MAX {
                self.sizes[size_before].count(pause, frames);
            }
        }
        if self.sizes[size].in_parts() { count.div_ceil(PARTS).max(WHOLE_MAX) } else { count }
    }
}

impl Trial {
    fn in_parts(&self) -> bool {
        match self.stage {
            Stage::TryWhole => false,
            Stage::TryInParts { .. } => true,
            Stage::Keep => self.in_parts,
        }
    }

    /// Counts a block of `frames` frames, which the next block followed after `pause`.
    fn count(&mut self, pause: Duration, frames: usize) {
        self.time += pause;
        self.frames = self.frames.saturating_add(u32::try_from(frames).unwrap_or(u32::MAX));
        self.counted += 1;
        let is_over = match self.stage {
            Stage::TryWhole | Stage::TryInParts { .. } => self.counted >= TRIAL_BLOCKS,
            Stage::Keep => self.counted >= TRIAL_BLOCKS * self.kept_for,
        };
        if !is_over {
            return;
        }
        let picoseconds = self.time.as_nanos().saturating_mul(1_000) / u128::from(self.frames.max(1));
        let a_frame = u64::try_from(picoseconds).unwrap_or(u64::MAX);
        (self.counted, self.time, self.frames) = (0, Duration::ZERO, 0);
        self.stage = match self.stage {
            Stage::TryWhole => Stage::TryInParts { whole: a_frame },
            Stage::TryInParts { whole } => {
                let in_parts = a_frame < whole;
                let again = in_parts == self.in_parts && self.kept_for > 0;
                self.kept_for = if again { (self.kept_for * 2).min(KEPT_MAX) } else { KEPT_MIN };
                self.in_parts = in_parts;
                Stage::Keep
            }
            Stage::Keep => Stage::TryWhole,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `blocks` blocks are taken in parts, if a block takes `whole_us` at once and `in_parts_us` in parts.
    fn taken_in_parts(
        parts: &mut Parts,
        blocks: usize,
        count: usize,
        whole_us: u64,
        in_parts_us: u64,
    ) -> usize {
        let mut now = Instant::now();
        let mut taken = 0;
        for _ in 0..blocks {
            let len = parts.part_len(count, || now);
            assert!((1..=count).contains(&len));
            let in_parts = len < count;
            taken += usize::from(in_parts);
            now += Duration::from_micros(if in_parts { in_parts_us } else { whole_us });
        }
        taken
    }

    #[test]
    fn the_faster_way_is_kept_and_the_slower_one_tried_again_now_and_then() {
        for count in [17, 64, 128, 256, 257, 300, 512] {
            let mut parts = Parts::default();
            let taken = taken_in_parts(&mut parts, 10_000, count, 100, 60);
            assert!(taken > 9_500, "{count}: {taken}");
            let taken = taken_in_parts(&mut Parts::default(), 10_000, count, 60, 100);
            assert!((24..500).contains(&taken), "{count}: {taken}");
        }
    }

    #[test]
    fn the_kept_way_changes_when_the_faster_one_does() {
        let mut parts = Parts::default();
        taken_in_parts(&mut parts, 100_000, 64, 100, 60);
        let taken = taken_in_parts(&mut parts, 100_000, 64, 60, 100);
        assert!(taken < 20_000, "{taken}");
    }

    #[test]
    fn few_frames_are_taken_at_once() {
        assert_eq!(taken_in_parts(&mut Parts::default(), 1_000, 16, 100, 1), 0);
    }

    #[test]
    fn a_pause_says_nothing_of_the_way_before_it() {
        let mut parts = Parts::default();
        assert_eq!(taken_in_parts(&mut parts, 10_000, 64, 5_000, 1), 0, "no trial has ended");
    }

    #[test]
    fn each_size_has_its_own_trial() {
        let mut parts = Parts::default();
        taken_in_parts(&mut parts, 10_000, 64, 100, 60);
        taken_in_parts(&mut parts, 10_000, 300, 60, 100);
        assert!(taken_in_parts(&mut parts, 100, 64, 100, 60) > 50);
    }
}

//! Lines of the log that a peer, or a condition that lasts, can cause at will: the first line of a kind is written at once, then at most
//! one each [`LOG_EVERY`], with the number of lines that were left out. Pure: the caller brings the time, and writes the line.

use log::Level;
use meshwork_wire::limits::LOG_EVERY;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The lines of one kind. It stands where their cause is: a static, or a field of the listener, handler or master that the lines are about.
///
/// ```
/// use meshwork_actors::repeated::Repeated;
/// static REFUSED: Repeated = Repeated::new();
/// let line = REFUSED.warn(std::time::Instant::now());
/// log::log!(line.level, "a peer is refused{line}");
/// ```
#[derive(Debug)]
pub struct Repeated(Mutex<Lines>);

#[derive(Debug)]
struct Lines {
    /// When the last line was written.
    written: Option<Instant>,
    /// How many lines were left out since.
    left_out: u64,
    /// Whether a line was written since the condition was over.
    lasts: bool,
}

/// How the next line is written: a line that is left out goes to the debug log. Its text, for the end of the line, tells how many lines
/// were left out before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// The level of the line.
    pub level: Level,
    left_out: u64,
}

impl Line {
    /// A line that says nothing that a person must know.
    pub(crate) const DEBUG: Self = Self { level: Level::Debug, left_out: 0 };
}

impl Repeated {
    /// No line has been written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Lines { written: None, left_out: 0, lasts: false }))
    }

    /// The next line is a warning, or left out.
    pub fn warn(&self, now: Instant) -> Line {
        self.next(Level::Warn, now)
    }

    /// The next line is an error, or left out.
    pub fn error(&self, now: Instant) -> Line {
        self.next(Level::Error, now)
    }

    /// Notes that the condition is over; gives the line that says so, a warning, if a line has said that the condition is there. A condition
    /// that comes and goes is told of no more often than one that stays.
    pub(crate) fn over(&self) -> Option<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = lines.left_out;
        std::mem::take(&mut lines.lasts).then(|| {
            lines.left_out = 0;
            Line { level: Level::Warn, left_out }
        })
    }

    fn next(&self, level: Level, now: Instant) -> Line {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.written.is_some_and(|written| now.saturating_duration_since(written) < LOG_EVERY) {
            lines.left_out += 1;
            return Line::DEBUG;
        }
        let left_out = std::mem::take(&mut lines.left_out);
        (lines.written, lines.lasts) = (Some(now), true);
        Line { level, left_out }
    }
}

impl Default for Repeated {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.left_out {
            0 => Ok(()),
            left_out => write!(f, " (lines left out: {left_out})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_line_is_written_at_once_and_the_next_with_the_number_of_those_left_out() {
        let (lines, start) = (Repeated::new(), Instant::now());
        let first = lines.warn(start);
        assert_eq!((first.level, first.to_string()), (Level::Warn, String::new()));
        for step in 0..45 {
            assert_eq!(lines.warn(start + MOMENT * step).level, Level::Debug);
        }
        assert_eq!(lines.warn(start + LOG_EVERY - MOMENT).level, Level::Debug);
        let next = lines.error(start + LOG_EVERY);
        assert_eq!(next.level, Level::Error);
        assert_eq!(next.to_string(), " (lines left out: 46)");
        assert_eq!(lines.warn(start + LOG_EVERY + MOMENT).level, Level::Debug);
        assert_eq!(lines.warn(start + 2 * LOG_EVERY).to_string(), " (lines left out: 1)");
    }

    #[test]
    fn the_end_of_a_condition_is_told_once_and_only_if_the_condition_was() {
        let (lines, start) = (Repeated::new(), Instant::now());
        assert_eq!(lines.over(), None);
        lines.warn(start);
        lines.warn(start);
        assert_eq!(lines.over().map(|line| line.left_out), Some(1));
        assert_eq!(lines.over(), None);
    }

    #[test]
    fn a_condition_that_comes_and_goes_writes_two_lines_at_a_time() {
        let (lines, start) = (Repeated::new(), Instant::now());
        let (mut written, mut over) = (0, 0);
        for step in 0..1_000 {
            let line = lines.warn(start + LOG_EVERY * step / 100);
            written += u32::from(line.level == Level::Warn);
            over += u32::from(lines.over().is_some());
        }
        assert_eq!((written, over), (10, 10));
    }
}

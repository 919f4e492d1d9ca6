//! Lines of the log that a peer, or a condition that lasts, can cause at will: the first line of a kind is written at once, then at most
//! one each [`LOG_EVERY`], with the number of lines that were left out. Every line at `info` and above is written by [`log_line!`](crate::log_line), which
//! escapes what a terminal would obey, and cuts what is long. Pure: the caller brings the time.

use log::Level;
use meshwork_wire::limits::{LOG_EVERY, LOG_LINE_LEN_MAX, LOG_NEWS_AT_ONCE_MAX, LOG_NEWS_EVERY};
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The lines of one kind. It stands where their cause is: a static, or a field of the listener, handler or master that the lines are about.
///
/// ```
/// use meshwork_actors::{log_line, repeated::Repeated};
/// static REFUSED: Repeated = Repeated::new();
/// log_line!(REFUSED.warn(std::time::Instant::now()), "a peer is refused");
/// ```
#[derive(Debug)]
pub struct Repeated {
    lines: Mutex<Lines>,
    /// How many lines may be written at once.
    at_once: u32,
    /// The shortest time between two lines, once so many were written.
    every: Duration,
}

#[derive(Debug)]
struct Lines {
    /// When as many lines may be written at once as before the first.
    rested: Option<Instant>,
    /// How many lines were left out since one was written.
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
    /// Lines of one kind: one each [`LOG_EVERY`]. No line has been written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self::with(1, LOG_EVERY)
    }

    /// Lines that each tell something else, such as the nodes that come and go: [`LOG_NEWS_AT_ONCE_MAX`] at once, then one each
    /// [`LOG_NEWS_EVERY`].
    #[must_use]
    pub const fn news() -> Self {
        Self::with(LOG_NEWS_AT_ONCE_MAX, LOG_NEWS_EVERY)
    }

    const fn with(at_once: u32, every: Duration) -> Self {
        Self { lines: Mutex::new(Lines { rested: None, left_out: 0, lasts: false }), at_once, every }
    }

    /// The next line is an information, or left out.
    pub fn info(&self, now: Instant) -> Line {
        self.next(Level::Info, now)
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
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = lines.left_out;
        std::mem::take(&mut lines.lasts).then(|| {
            lines.left_out = 0;
            Line { level: Level::Warn, left_out }
        })
    }

    fn next(&self, level: Level, now: Instant) -> Line {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let rested = lines.rested.map_or(now, |rested| rested.max(now));
        if rested.saturating_duration_since(now) > self.every * (self.at_once - 1) {
            lines.left_out += 1;
            return Line::DEBUG;
        }
        let left_out = std::mem::take(&mut lines.left_out);
        (lines.rested, lines.lasts) = (Some(rested + self.every), true);
        Line { level, left_out }
    }
}

impl Default for Repeated {
    fn default() -> Self {
        Self::new()
    }
}

impl Line {
    /// A line that is always written, since the program itself is its cause, and no peer and no condition repeats it.
    #[must_use]
    pub const fn own(level: Level) -> Self {
        Self { level, left_out: 0 }
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

/// Writes a line of the log: `log_line!(line, "format", ..)`. The line says at which level, and how many lines were left out before. A peer
/// may have chosen any part of the text: see [`OneLine`](crate::repeated::OneLine).
#[macro_export]
macro_rules! log_line {
    ($line:expr, $($text:tt)+) => {{
        let line: $crate::repeated::Line = $line;
        ::log::log!(line.level, "{}{line}", $crate::repeated::OneLine(&::std::format_args!($($text)+)));
    }};
}

/// A text of at most [`LOG_LINE_LEN_MAX`] bytes in one line: the rest is cut, and characters that a terminal would obey, or that hide or turn the
/// text around them, are escaped.
#[derive(Debug)]
pub struct OneLine<T>(pub T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = Bounded { to: f, left: LOG_LINE_LEN_MAX, failed: false };
        match write!(written, "{}", self.0) {
            Ok(()) => Ok(()),
            Err(_) if written.failed => Err(fmt::Error),
            // The text was cut, or its own `Display` failed: what there is of it is written.
            Err(_) => f.write_str(".."),
        }
    }
}

/// Writes at most so many bytes, then refuses the rest.
struct Bounded<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    left: usize,
    failed: bool,
}

impl Write for Bounded<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if is_hidden(c) {
                c.escape_default().try_for_each(|c| self.write_plain(c))?;
            } else {
                self.write_plain(c)?;
            }
        }
        Ok(())
    }
}

impl Bounded<'_, '_> {
    fn write_plain(&mut self, c: char) -> fmt::Result {
        self.left = self.left.checked_sub(c.len_utf8()).ok_or(fmt::Error)?;
        self.to.write_char(c).inspect_err(|_| self.failed = true)
    }
}

/// Control characters, ends of lines, marks of the direction of text, and characters without a width.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
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

    #[test]
    fn news_are_told_at_once_until_there_are_too_many_then_one_in_a_while() {
        let (lines, start) = (Repeated::news(), Instant::now());
        let mut written = (0..5_000).filter(|_| lines.info(start).level == Level::Info).count() as u32;
        assert_eq!(written, LOG_NEWS_AT_ONCE_MAX);
        let later = start + LOG_NEWS_EVERY;
        let line = lines.info(later);
        assert_eq!(line.to_string(), format!(" (lines left out: {})", 5_000 - LOG_NEWS_AT_ONCE_MAX));
        assert_eq!(lines.info(later).level, Level::Debug);
        let rested = later + LOG_NEWS_EVERY * LOG_NEWS_AT_ONCE_MAX;
        written = (0..5_000).filter(|_| lines.info(rested).level == Level::Info).count() as u32;
        assert_eq!(written, LOG_NEWS_AT_ONCE_MAX);
    }

    #[test]
    fn a_line_is_one_line_of_a_bounded_length_whatever_a_peer_wrote() {
        assert_eq!(
            OneLine("a\nb\u{1b}[31m\u{202e}\u{200b}größe").to_string(),
            "a\\nb\\u{1b}[31m\\u{202e}\\u{200b}größe"
        );
        for long in ["x", "ß", "\n", "\u{202e}"] {
            let line = OneLine(long.repeat(1_000_000)).to_string();
            assert!(
                line.len() <= LOG_LINE_LEN_MAX + 2 && line.len() > LOG_LINE_LEN_MAX - 10,
                "{}",
                line.len()
            );
            assert!(line.ends_with(".."));
        }
    }
}

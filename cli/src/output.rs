//! The output of commands: data on stdout, everything else on stderr, and no control characters for a terminal to obey.

use crate::failure::{Done, Failure};
use meshwork::CallError;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{self, Write};

/// The form of the data on stdout.
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints a line to stdout, and flushes.
    pub(super) fn line(&self, line: &str) -> Done {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::Use(format!("stdout cannot be written: {error}")),
        })
    }
}

pub(super) fn error_as_json(error: &CallError) -> Value {
    let data = error.data().and_then(|data| data.decode::<Value>().ok());
    json!({ "error": {
        "code": error.code().0,
        "name": error.name(),
        "fate": error.fate().to_string(),
        "message": error.message(),
        "data": data,
    }})
}

/// Prints a message to stderr.
pub(super) fn say(message: impl Display) {
    // The reader of stderr may have gone, which is no reason to fail.
    let _ = writeln!(io::stderr(), "{message}");
}

/// A text in one line. Another node may have written it, so control characters are escaped: a terminal must not obey them.
pub(super) fn one_line(text: impl Display) -> String {
    let mut line = String::new();
    for c in text.to_string().trim_end().chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_in_its_line() {
        assert_eq!(one_line("größe\n\u{1b}[31m\u{9b}x\n"), "größe\\n\\u{1b}[31m\\u{9b}x");
    }
}

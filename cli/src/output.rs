//! What a command says: data on stdout, everything else on stderr, and nothing that a terminal would obey.

use crate::failure::{Done, Failure};
use meshwork::CallError;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{self, Write};

/// Where data go.
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints a line, now.
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

/// Says something on stderr.
pub(super) fn say(what: impl Display) {
    // Whoever reads stderr may have gone, and that is no reason to fail.
    let _ = writeln!(io::stderr(), "{what}");
}

/// A text in one line. Others may have written it, so what is not text is escaped: it must not tell a terminal anything.
pub(super) fn one_line(what: impl Display) -> String {
    let mut line = String::new();
    for c in what.to_string().trim_end().chars() {
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

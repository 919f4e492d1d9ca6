//! The output of commands: data on stdout, everything else on stderr, and no control characters for a terminal to obey.

use crate::failure::{Done, Failure};
use meshwork::{CallError, EncodeError, Encoding, Fate, Payload, Value};
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

/// A value as JSON in one line.
pub(super) fn json(value: &Value) -> Result<String, EncodeError> {
    Payload::encode(Encoding::Json, value).map(|json| String::from_utf8_lossy(&json.bytes).into_owned())
}

/// A value that another node sent, as JSON in one line.
pub(super) fn received(payload: &Payload) -> Result<String, CallError> {
    // JSON is read too: the program that wrote it may have written it in several lines.
    json(&payload.decode()?).map_err(|error| CallError::from(error).with_fate(Fate::Failed))
}

/// An object of JSON, with its keys in this order.
pub(super) fn object<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (text(key), value)).collect())
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(super) fn error_as_json(error: &CallError) -> String {
    let with = |data: Value| {
        let error = object([
            ("code", Value::Unsigned(error.code().0.into())),
            ("name", text(error.name())),
            ("fate", text(&error.fate().to_string())),
            ("message", text(error.message())),
            ("data", data),
        ]);
        json(&object([("error", error)]))
    };
    let data = error.data().and_then(|data| data.decode().ok());
    // Data that JSON has no form for are left out: the error itself must be told.
    with(data.unwrap_or(Value::Nil)).or_else(|_| with(Value::Nil)).unwrap_or_default()
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

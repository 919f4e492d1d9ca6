//! The output of commands: data on stdout, everything else on stderr, and no control characters for a terminal to obey.

use crate::failure::{Done, Failure};
use crate::outlet::say_line;
use meshwork::{CallError, Code, EncodeError, Encoding, Fate, Payload, Value, escape_unseen};
use std::fmt::Display;
use std::io::{self, Write};

/// The form of the data on stdout.
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints a line to stdout, and flushes: for commands that have nothing else to do. Others have a [`Printer`](crate::outlet::Printer).
    pub(super) fn line(&self, line: &str) -> Done {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(unprinted)
    }
}

/// How many bytes of lines are printed in one go, if so many events or items have come.
pub(super) const PRINTED_LEN: usize = 64 * 1024;

/// The failure of a command that cannot print.
pub(super) fn unprinted(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
        _ => Failure::Use(format!("stdout cannot be written: {error}")),
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
pub(super) fn object<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (text(key), value)).collect())
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// An error as JSON. Its code is that of the application, a number or a text, or else that of meshwork; `from` says which of the two made
/// the error, since their numbers are not told apart otherwise.
pub(super) fn error_as_json(error: &CallError) -> String {
    error_of_node_as_json(None, error)
}

/// As [`error_as_json`], with the node that it is of.
pub(super) fn error_of_node_as_json(node: Option<&str>, error: &CallError) -> String {
    let of_meshwork = || Value::Unsigned(error.code().0.into());
    let from = if error.code() == Code::UNKNOWN { "application" } else { "meshwork" };
    let with = |data: Value| {
        let error = object([
            ("code", code_of(error).unwrap_or_else(of_meshwork)),
            ("from", text(from)),
            ("name", text(error.name())),
            ("fate", text(&error.fate().to_string())),
            ("message", text(error.message())),
            ("data", data),
        ]);
        let node = node.map(|node| (text("node"), text(node)));
        json(&Value::Map(node.into_iter().chain([(text("error"), error)]).collect()))
    };
    // Data that JSON has no form for are left out: the error itself must be told.
    with(data_of(error).unwrap_or(Value::Nil)).or_else(|_| with(Value::Nil)).unwrap_or_default()
}

/// An error in words: name, fate and message, and the code and data of the application, if there are any.
pub(super) fn error_in_words(error: &CallError) -> String {
    let shown = |value: Value| json(&value).ok();
    let code = code_of(error).and_then(shown).map(|code| format!("code {code}"));
    let data = data_of(error).and_then(shown).map(|data| {
        let mut data = format!("data {data}");
        if data.len() > DATA_SHOWN_LEN_MAX {
            let cut = (0..=DATA_SHOWN_LEN_MAX).rev().find(|at| data.is_char_boundary(*at));
            data.truncate(cut.unwrap_or(0));
            data.push_str("...");
        }
        data
    });
    match [code, data].into_iter().flatten().collect::<Vec<_>>().join(", ") {
        more if more.is_empty() => error.to_string(),
        more => format!("{error} [{more}]"),
    }
}

/// How much of the data of an error is shown to people, in bytes; `--json` prints all.
const DATA_SHOWN_LEN_MAX: usize = 1_000;

fn code_of(error: &CallError) -> Option<Value> {
    let code = error.application_code()?;
    let written = Payload::encode(Encoding::MessagePack, code).ok();
    Some(written.and_then(|code| code.decode().ok()).unwrap_or_else(|| text(&code.to_string())))
}

fn data_of(error: &CallError) -> Option<Value> {
    error.data().and_then(|data| data.decode().ok())
}

/// Prints a message to stderr, and does not wait for its reader, which may be slow or gone.
pub(super) fn say(message: impl Display) {
    say_line(format!("{message}\n").as_bytes());
}

/// A text in one line. Another node may have written it, so characters that a terminal would obey, or that nobody could see, are escaped.
pub(super) fn one_line(text: impl Display) -> String {
    escape_unseen(text.to_string().trim_end()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_code_and_data_of_its_application() {
        let error = meshwork::ActionError::new("OutOfStock", "none left").with_code("E_STOCK");
        let error = CallError::from(error.with_data(&[0]));
        let words = r#"OutOfStock (failed): none left [code "E_STOCK", data [0]]"#;
        assert_eq!(error_in_words(&error), words);
        let said = r#"{"error":{"code":"E_STOCK","from":"application","name":"OutOfStock","fate":"failed","message":"none left","data":[0]}}"#;
        assert_eq!(error_as_json(&error), said);
        assert_eq!(error_of_node_as_json(Some("a"), &error), said.replacen('{', r#"{"node":"a","#, 1));
    }

    #[test]
    fn a_number_of_an_application_is_told_from_that_of_meshwork() {
        let ours = CallError::new(Code::REQUEST_TIMEOUT, meshwork::Fate::Unknown, "too late");
        let theirs = CallError::from(meshwork::ActionError::new("REQUEST_TIMEOUT", "too late").with_code(2));
        assert_eq!(error_in_words(&ours), "REQUEST_TIMEOUT (may have run): too late");
        assert!(error_as_json(&ours).starts_with(r#"{"error":{"code":2,"from":"meshwork","#));
        assert!(error_as_json(&theirs).starts_with(r#"{"error":{"code":2,"from":"application","#));
    }

    #[test]
    fn what_others_wrote_stays_in_its_line() {
        assert_eq!(one_line("größe\n\u{1b}[31m\u{9b}x\n"), "größe\\n\\u{1b}[31m\\u{9b}x");
        assert_eq!(one_line("a\u{202e}b\u{200b}"), "a\\u{202e}b\\u{200b}");
    }
}

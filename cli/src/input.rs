//! The input of commands: JSON, durations, names and tokens. An error says what would be right.

use crate::failure::{Done, Failure};
use meshwork::{Encoding, NameError, Payload, Value};
use std::env::VarError;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// How much of a text that is not JSON an error shows, in characters.
const JSON_SHOWN_MAX: usize = 60;

/// Reads JSON: the text itself, `-` for stdin, `@file` for a file; `None` is `null`.
pub(super) fn read_json(text: Option<&str>) -> Result<Payload, Failure> {
    let (json, source) = match text {
        None => (b"null".to_vec(), "nothing".to_owned()),
        Some("-") => {
            let mut read = Vec::new();
            io::stdin()
                .read_to_end(&mut read)
                .map_err(|error| Failure::Use(format!("stdin cannot be read: {error}")))?;
            (read, "stdin".to_owned())
        }
        Some(text) => match text.strip_prefix('@') {
            Some("") => {
                let right = "write @FILE for the JSON in a file, or - for stdin";
                return Err(Failure::Use(format!("`@` names no file: {right}")));
            }
            Some(file) => {
                let read = std::fs::read(file).map_err(|error| {
                    Failure::Use(format!("{file} cannot be read: {error}; name a file that holds JSON"))
                })?;
                (read, file.to_owned())
            }
            None => (text.as_bytes().to_vec(), shown(text)),
        },
    };
    let json = without_byte_order_mark(json);
    if json.trim_ascii().is_empty() {
        let source = if source.is_empty() { "the JSON" } else { &source };
        let right = "write null for nothing, and '\"\"' for a text without characters";
        return Err(Failure::Use(format!("{source} is empty: {right}")));
    }
    let value: Value = Payload::new(Encoding::Json, json).decode().map_err(|error| {
        let reason = error.reason;
        // A word without quotes, or whose quotes the shell has taken.
        let hint = if reason.contains("quotes") { "; text needs quotes, as in '\"text\"'" } else { "" };
        Failure::Use(format!("{source} is not JSON that can be sent: {reason}{hint}"))
    })?;
    Payload::encode(Encoding::Json, &value).map_err(|error| Failure::Use(error.to_string()))
}

/// The start of a text, if it is long.
fn shown(text: &str) -> String {
    let mut start: String = text.trim().chars().take(JSON_SHOWN_MAX).collect();
    if start.len() < text.trim().len() {
        start.push_str("..");
    }
    start
}

/// Some editors write this mark, which is no part of JSON, at the start of a file.
fn without_byte_order_mark(mut text: Vec<u8>) -> Vec<u8> {
    if text.starts_with(b"\xEF\xBB\xBF") {
        text.drain(..3);
    }
    text
}

/// Checks a name before anything is sent.
pub(super) fn check(name: Result<(), NameError>) -> Done {
    name.map_err(|error| Failure::Use(error.to_string()))
}

pub(super) fn read_count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number: write how many, as in 10"))
}

pub(super) fn read_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 100us, 500ms, 10s or 2m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match &text[digits.len()..] {
        "us" => number / 1_000_000.0,
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

pub(super) fn read_token(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(file) = file else {
        // A variable that is set and empty is a mistake in a script, and must not make a master let every branch in.
        return match std::env::var("MESHWORK_TOKEN") {
            Ok(token) if token.is_empty() => {
                Err(Failure::Use("MESHWORK_TOKEN is empty: set it to the token, or unset it".to_owned()))
            }
            Ok(token) => Ok(Some(token)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => {
                Err(Failure::Use("MESHWORK_TOKEN is no text: set it to a token in UTF-8".to_owned()))
            }
        };
    };
    let shown = file.display();
    let token = std::fs::read_to_string(file).map_err(|error| {
        Failure::Use(format!(
            "the token file {shown} cannot be read: {error}; name one that holds the token and nothing else"
        ))
    })?;
    let token = token.trim_end_matches(['\r', '\n']);
    if token.is_empty() {
        return Err(Failure::Use(format!("the token file {shown} is empty: write the token into it")));
    }
    Ok(Some(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(read_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(read_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "-1s", "5h", "1e400s"] {
            assert!(read_duration(wrong).is_err(), "{wrong}");
        }
    }
}

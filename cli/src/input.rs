//! The input of commands: JSON, durations, names and tokens. An error says what would be right.

use crate::failure::{Done, Failure};
use meshwork::{Encoding, NameError, Payload};
use serde_json::Value;
use std::env::VarError;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// How much of a text that is not JSON an error shows, in characters.
const JSON_SHOWN_MAX: usize = 60;

/// Reads JSON: the text itself, `-` for stdin, `@file` for a file; `None` is `null`.
pub(super) fn read_json(text: Option<&str>) -> Result<Payload, Failure> {
    let (text, source) = match text {
        None => ("null".to_owned(), "nothing".to_owned()),
        Some("-") => {
            let mut read = String::new();
            io::stdin()
                .read_to_string(&mut read)
                .map_err(|error| Failure::Use(format!("stdin cannot be read: {error}")))?;
            (read, "stdin".to_owned())
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => {
                let read = std::fs::read_to_string(file)
                    .map_err(|error| Failure::Use(format!("{file} cannot be read: {error}")))?;
                (read, file.to_owned())
            }
            None => (text.to_owned(), text.chars().take(JSON_SHOWN_MAX).collect()),
        },
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::Use(format!("{source} is not JSON: {error}; text needs quotes, as in '\"text\"'"))
    })?;
    Payload::encode(Encoding::Json, &value).map_err(|error| Failure::Use(error.to_string()))
}

/// Checks a name before anything is sent.
pub(super) fn check(name: Result<(), NameError>) -> Done {
    name.map_err(|error| Failure::Use(error.to_string()))
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

//! The input of commands: JSON, durations, names and tokens. An error says what would be right.

use crate::failure::{Done, Failure};
use log::Level;
use meshwork::repeated::Line;
use meshwork::{Encoding, Identities, Label, NameError, Payload, Value, check_token, log_line};
use std::env::VarError;
use std::fs::File;
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

pub(super) fn read_label(text: &str) -> Result<Label, String> {
    Label::read(text).map_err(|error| error.to_string())
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

/// The variable that holds the token for a master.
pub(super) const TOKEN: &str = "MESHWORK_TOKEN";

/// The variable that holds the token for the server of a bridge. A token for one side is never shown to the other.
pub(super) const SERVER_TOKEN: &str = "MESHWORK_SERVER_TOKEN";

/// Reads a token from a file, or else from this variable of the environment.
pub(super) fn read_token(file: Option<&Path>, variable: &str) -> Result<Option<String>, Failure> {
    if let Some(file) = file {
        return read_token_file(file).map(Some);
    }
    // A variable that is set and empty is a mistake in a script, and must not make a master let every branch in.
    match std::env::var(variable) {
        Ok(token) if token.is_empty() => {
            Err(Failure::Use(format!("{variable} is empty: set it to the token, or unset it")))
        }
        Ok(token) => match check_token(&token) {
            Ok(()) => Ok(Some(token)),
            Err(error) => Err(Failure::Use(format!("{variable}: {error}"))),
        },
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Failure::Use(format!("{variable} is no text: set it to a token in UTF-8")))
        }
    }
}

/// Reads a file that holds a token and nothing else.
pub(super) fn read_token_file(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let token = read_text(file, "the token file")?;
    let token = token.trim_end_matches(['\r', '\n']);
    if token.is_empty() {
        return Err(Failure::Use(format!("the token file {shown} is empty: write the token into it")));
    }
    check_token(token).map_err(|error| Failure::Use(format!("the token file {shown}: {error}")))?;
    if others_may(file, 0o004) {
        log_line!(
            Line::own(Level::Warn),
            "every user of this machine may read the token file {shown}: chmod 600 it"
        );
    }
    Ok(token.to_owned())
}

/// Reads the identities of a mesh.
pub(super) fn read_identities(file: &Path) -> Result<Identities, Failure> {
    let shown = file.display();
    let text = read_text(file, "the identities file")?;
    let identities = Identities::from_toml(&text);
    let identities =
        identities.map_err(|error| Failure::Use(format!("the identities file {shown}: {error}")))?;
    // Digests of random tokens are no secret, so that all may read them.
    if others_may(file, 0o002) {
        log_line!(
            Line::own(Level::Warn),
            "every user of this machine may write to the identities file {shown}: chmod o-w it"
        );
    }
    Ok(identities)
}

/// How long a file of a user may be, in bytes: far longer than any that people write, and a device that never ends is no file.
const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;

/// Reads a text file.
pub(super) fn read_text(file: &Path, what: &str) -> Result<String, Failure> {
    let shown = file.display();
    let mut text = Vec::new();
    let read = File::open(file).and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_end(&mut text));
    read.map_err(|error| Failure::Use(format!("{what} {shown} cannot be read: {error}")))?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(Failure::Use(format!("{what} {shown} is longer than {FILE_LEN_MAX} bytes")));
    }
    String::from_utf8(without_byte_order_mark(text))
        .map_err(|_| Failure::Use(format!("{what} {shown} is no text in UTF-8")))
}

/// Whether other users than the owner of the file, and those of its group, have this right. A pipe has no other readers.
#[cfg(unix)]
fn others_may(file: &Path, right: u32) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & right != 0)
}

/// The rights of a file are not asked for on this system.
#[cfg(not(unix))]
fn others_may(_: &Path, _: u32) -> bool {
    false
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

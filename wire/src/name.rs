//! Names of actions, topics and nodes. Patterns have their own file, since they are more than a name.

use crate::limits::{NAME_LEN_MAX, SEGMENTS_MAX};
use bytestring::ByteString;

/// Why a text is no name. The message describes a name that would be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`NAME_LEN_MAX`] bytes.
    #[error("a name of {0} bytes is too long: {NAME_LEN_MAX} is the most")]
    TooLong(usize),
    /// The text holds a control character, which no terminal or log could show.
    #[error("{0:?} holds a control character")]
    Control(String),
    /// The text has an empty segment: it begins or ends with `/`, or has `//` in it.
    #[error("{0:?} has an empty segment: write a/b, without a slash at either end")]
    EmptySegment(String),
    /// The text has more than [`SEGMENTS_MAX`] segments.
    #[error("{0:?} has more than {SEGMENTS_MAX} segments")]
    TooManySegments(String),
    /// The text holds a `*`, which only patterns may.
    #[error("{0:?} holds a *: only a pattern may")]
    Wildcard(String),
}

/// Checks the name of an action: 1 to 255 bytes, no control characters.
///
/// # Errors
///
/// When the text is no such name.
pub fn check_action(name: &str) -> Result<(), NameError> {
    check_text(name)
}

/// Checks the name of a node: 1 to 255 bytes, no control characters.
///
/// # Errors
///
/// When the text is no such name.
pub fn check_node(name: &str) -> Result<(), NameError> {
    check_text(name)
}

/// Checks the name of a topic: 1 to 255 bytes, no control characters, no `*`, segments parted by `/` and none of them empty.
///
/// # Errors
///
/// When the text is no such name.
pub fn check_topic(name: &str) -> Result<(), NameError> {
    check_text(name)?;
    check_segments(name)?;
    if name.contains('*') { Err(NameError::Wildcard(name.to_owned())) } else { Ok(()) }
}

/// The end of the name of an action that stands for everything below: an offer of `files/**` answers `files/a` and `files/a/b`, unless
/// a node offers these by name.
const EVERYTHING_BELOW: &str = "/**";

/// The action that stands for everything below a name.
#[must_use]
pub fn everything_below(name: &str) -> ByteString {
    format!("{name}{EVERYTHING_BELOW}").into()
}

/// Whether an action stands for everything below a name.
#[must_use]
pub fn is_everything_below(action: &str) -> bool {
    action.ends_with(EVERYTHING_BELOW)
}

/// The escapes of the last segment `**`, which would make a name stand for everything below it, and of the escapes themselves.
const ESCAPED: &str = "%2A%2A";
const ESCAPE_OF_ESCAPE: &str = "25";

/// The name in the mesh of an action of another protocol, where no name is a pattern: a name that would stand for everything below it has its
/// last segment escaped.
#[must_use]
pub fn literal_action(theirs: &str) -> ByteString {
    let (above, last) = theirs.rsplit_once('/').unwrap_or_default();
    match unescaped(last) {
        _ if is_everything_below(theirs) => format!("{above}/{ESCAPED}").into(),
        Some(rest) => format!("{above}/%{ESCAPE_OF_ESCAPE}{rest}").into(),
        None => theirs.into(),
    }
}

/// The name in another protocol of an action of the mesh, with the escape of [`literal_action`] undone.
#[must_use]
pub fn meant_action(ours: &str) -> ByteString {
    let (above, last) = ours.rsplit_once('/').unwrap_or_default();
    match unescaped(last) {
        Some(rest) if rest == &ESCAPED[1..] => everything_below(above),
        Some(rest) => format!("{above}/%{}", &rest[ESCAPE_OF_ESCAPE.len()..]).into(),
        None => ours.into(),
    }
}

/// The part behind the `%` of a segment that is the escape of `**`, or an escape of that.
fn unescaped(segment: &str) -> Option<&str> {
    let rest = segment.strip_prefix('%')?;
    (rest.trim_start_matches(ESCAPE_OF_ESCAPE) == &ESCAPED[1..]).then_some(rest)
}

/// The actions that stand for everything below some prefix of this action: the longest prefix first.
pub fn everything_above(action: &str) -> impl Iterator<Item = ByteString> {
    action.rmatch_indices('/').map(|(at, _)| everything_below(&action[..at]))
}

pub(crate) fn check_text(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control(name.to_owned()));
    }
    Ok(())
}

pub(crate) fn check_segments(name: &str) -> Result<(), NameError> {
    let mut segments = 0;
    for segment in name.split('/') {
        segments += 1;
        if segment.is_empty() {
            return Err(NameError::EmptySegment(name.to_owned()));
        }
    }
    if segments > SEGMENTS_MAX { Err(NameError::TooManySegments(name.to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_may_hold_anything_that_can_be_shown() {
        for name in ["add", "math/add", "action:add", "größe", "a b", "*"] {
            assert_eq!(check_action(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_shown_or_held_is_no_name() {
        assert_eq!(check_action(""), Err(NameError::Empty));
        assert_eq!(check_action(&"x".repeat(255)), Ok(()));
        assert_eq!(check_action(&"x".repeat(256)), Err(NameError::TooLong(256)));
        assert!(matches!(check_node("a\nb"), Err(NameError::Control(_))));
    }

    #[test]
    fn a_name_of_another_protocol_is_no_pattern_and_finds_its_way_back() {
        for (theirs, ours) in [
            ("all/**", "all/%2A%2A"),
            ("/**", "/%2A%2A"),
            ("a/b/**", "a/b/%2A%2A"),
            ("all/%2A%2A", "all/%252A%2A"),
            ("all/%252A%2A", "all/%25252A%2A"),
            ("**", "**"),
            ("%2A%2A", "%2A%2A"),
            ("all/*", "all/*"),
            ("all/**/", "all/**/"),
            ("all/%2A", "all/%2A"),
            ("a/25", "a/25"),
            ("", ""),
        ] {
            assert_eq!(literal_action(theirs), ours);
            assert!(!is_everything_below(ours));
            assert_eq!(meant_action(ours), theirs, "{ours}");
        }
    }

    #[test]
    fn an_action_has_those_above_it_that_stand_for_it() {
        let above: Vec<_> = everything_above("a/b/c").collect();
        assert_eq!(above, ["a/b/**", "a/**"]);
        assert!(above.iter().all(|action| is_everything_below(action)) && !is_everything_below("a/b"));
        assert_eq!(everything_above("a").count(), 0);
    }

    #[test]
    fn a_topic_has_whole_segments_and_no_wildcard() {
        assert_eq!(check_topic("sub/test"), Ok(()));
        for name in ["/a", "a/", "a//b"] {
            assert!(matches!(check_topic(name), Err(NameError::EmptySegment(_))), "{name}");
        }
        assert!(matches!(check_topic("a/*"), Err(NameError::Wildcard(_))));
        assert!(matches!(check_topic(&vec!["a"; 33].join("/")), Err(NameError::TooManySegments(_))));
    }
}

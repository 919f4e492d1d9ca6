//! Names of actions, topics, groups and nodes. Patterns have their own file, since they are more than a name. What a name may be is decided
//! here alone; the frames, the dialects, the builders and the command line ask.

use crate::limits::{NAME_LEN_MAX, SEGMENTS_MAX};
use bytestring::ByteString;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Why a text is no name. The message describes a name that would be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`NAME_LEN_MAX`] bytes.
    #[error("a name of {0} bytes is too long: {NAME_LEN_MAX} is the most")]
    TooLong(usize),
    /// The text, here with escapes, holds a character that cannot be seen: see [`is_unseen`].
    #[error("\"{0}\" holds {character}, which cannot be seen: write a name of visible characters", character = .1.escape_unicode())]
    Unseen(String, char),
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

/// Checks the name of an action: 1 to 255 bytes, at most 32 segments parted by `/`, and no [unseen](is_unseen) characters.
///
/// # Errors
///
/// When the text is no such name.
#[inline]
pub fn check_action(name: &str) -> Result<(), NameError> {
    check_text(name)?;
    if count_segments(name) > SEGMENTS_MAX {
        Err(NameError::TooManySegments(name.to_owned()))
    } else {
        Ok(())
    }
}

/// Checks the name of a node: 1 to 255 bytes, no [unseen](is_unseen) characters.
///
/// # Errors
///
/// When the text is no such name.
pub fn check_node(name: &str) -> Result<(), NameError> {
    check_text(name)
}

/// Checks the name of a group of subscribers, by the rules of [`check_topic`].
///
/// # Errors
///
/// When the text is no such name.
pub fn check_group(name: &str) -> Result<(), NameError> {
    check_topic(name)
}

/// Checks the name of a topic: 1 to 255 bytes, no [unseen](is_unseen) characters, no `*`, at most 32 segments parted by `/` and none of
/// them empty.
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

/// The actions that stand for everything below some prefix of this action: the longest prefix first. Only names that
/// [`check_action`] accepts have any, so there are few.
pub fn everything_above(action: &str) -> impl Iterator<Item = ByteString> {
    let action = if count_segments(action) <= SEGMENTS_MAX { action } else { "" };
    action.rmatch_indices('/').map(|(at, _)| everything_below(&action[..at]))
}

/// Whether a character cannot be seen, or changes what is seen: control characters, those that set the direction of the text, those without
/// width or ink, separators of lines, spaces other than the plain one, and code points that are unassigned or for private use. A name with
/// such a character could look like another name in a log or a list.
#[must_use]
pub fn is_unseen(character: char) -> bool {
    /// A blank that Unicode counts among the symbols.
    const BLANK_BRAILLE: char = '\u{2800}';
    if matches!(character, ' '..='~') {
        return false;
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(character);
    matches!(
        category,
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::SpaceSeparator
            | GeneralCategory::Surrogate
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
    ) || character == BLANK_BRAILLE
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
}

/// A text as it may be shown, whoever wrote it: [unseen](is_unseen) characters are written as escapes.
#[must_use]
pub fn escape_unseen(text: &str) -> Cow<'_, str> {
    if find_unseen(text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        // Writing to a text never fails.
        let _ = match character {
            '\n' | '\r' | '\t' => write!(escaped, "{}", character.escape_default()),
            unseen if is_unseen(unseen) => write!(escaped, "{}", unseen.escape_unicode()),
            seen => escaped.write_char(seen),
        };
    }
    Cow::Owned(escaped)
}

#[inline]
fn find_unseen(text: &str) -> Option<char> {
    // Nearly every name is of plain characters only.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    text.chars().find(|character| is_unseen(*character))
}

#[inline]
pub(crate) fn check_text(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    match find_unseen(name) {
        Some(character) => Err(NameError::Unseen(escape_unseen(name).into_owned(), character)),
        None => Ok(()),
    }
}

#[inline]
fn count_segments(name: &str) -> usize {
    1 + name.bytes().filter(|byte| *byte == b'/').count()
}

pub(crate) fn check_segments(name: &str) -> Result<(), NameError> {
    if count_segments(name) > SEGMENTS_MAX {
        return Err(NameError::TooManySegments(name.to_owned()));
    }
    if name.split('/').any(str::is_empty) { Err(NameError::EmptySegment(name.to_owned())) } else { Ok(()) }
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
        assert_eq!(check_node("a\nb"), Err(NameError::Unseen("a\\nb".to_owned(), '\n')));
        assert_eq!(check_action(&vec!["a"; 32].join("/")), Ok(()));
        for many in [vec!["a"; 33].join("/"), "/".repeat(32), "/".repeat(255)] {
            assert!(matches!(check_action(&many), Err(NameError::TooManySegments(_))), "{many}");
        }
    }

    #[test]
    fn a_name_that_could_look_like_another_is_refused_by_the_name_of_its_character() {
        // A control character, an escape, a soft hyphen, a mark that joins, a filler, the four kinds without width, marks and isolates of
        // direction, separators of lines and paragraphs, a wide space, a variation, a tag, private use, unassigned, a blank.
        for character in "\u{7}\u{1b}\u{7f}\u{85}\u{ad}\u{34f}\u{61c}\u{115f}\u{180e}\u{200b}\u{200d}\u{200e}\u{202e}\u{2028}\u{2029}\
             \u{2060}\u{2066}\u{2069}\u{a0}\u{3000}\u{3164}\u{fe0f}\u{feff}\u{fff9}\u{e000}\u{e0041}\u{e0100}\u{10ffff}\u{378}\u{2800}"
            .chars()
        {
            let name = format!("pay{character}ments");
            let escape = character.escape_unicode().to_string();
            for refused in [
                check_action(&name),
                check_node(&name),
                check_topic(&name),
                check_group(&name),
                crate::Pattern::new(&*name).map(drop).map_err(|error| match error {
                    crate::PatternError::Name(error) => error,
                    other => panic!("{other}"),
                }),
            ] {
                let said = refused.expect_err("it is unseen").to_string();
                assert!(said.contains(&escape) && !said.contains(character), "{said}");
            }
            assert!(!escape_unseen(&name).contains(character));
        }
        assert_eq!(escape_unseen("größe\n\u{202e}x"), "größe\\n\\u{202e}x");
    }

    #[test]
    fn a_name_may_be_of_any_script() {
        for name in
            ["größe", "платежи", "支払い", "भुगतान", "الدفع", "תשלום", "결제", "e\u{301}", "🦀", "a b", "±½"]
        {
            assert_eq!(check_topic(name), Ok(()), "{name}");
            assert!(matches!(escape_unseen(name), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn the_names_above_a_name_are_no_more_than_its_segments() {
        assert_eq!(everything_above(&vec!["a"; 32].join("/")).count(), 31);
        assert_eq!(everything_above(&"/".repeat(1_000_000)).count(), 0, "no name");
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

//! The topics that a subscription matches: `sub/test` itself, `sub/*` one segment more, `sub/**` one or more.

use crate::name::{NameError, check_segments, check_text};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A topic pattern. `*` stands for exactly one segment, `**` at the end for one or more; anything else stands for itself.
///
/// | pattern | matches | does not match |
/// | --- | --- | --- |
/// | `sub/test` | `sub/test` | `sub/other` |
/// | `sub/*` | `sub/test` | `sub`, `sub/a/b` |
/// | `*/test` | `sub/test` | `test` |
/// | `sub/**` | `sub/a`, `sub/a/b` | `sub` |
/// | `**` | every topic | |
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "ByteString", into = "ByteString")]
pub struct Pattern(ByteString);

/// Why a text is no pattern. The message describes a pattern that would be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PatternError {
    /// The text breaks a rule of every name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A `*` is only a part of a segment.
    #[error("{0:?}: a * must be a whole segment, as in sub/*")]
    PartOfSegment(String),
    /// A `**` stands before the end.
    #[error("{0:?}: ** may only be the last segment, as in sub/**")]
    RestNotLast(String),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// When the text is no pattern.
    pub fn new(pattern: impl Into<ByteString>) -> Result<Self, PatternError> {
        let pattern = pattern.into();
        check_text(&pattern)?;
        check_segments(&pattern)?;
        let mut segments = pattern.split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment == "**" && segments.peek().is_some() {
                return Err(PatternError::RestNotLast(pattern.to_string()));
            }
            if segment.contains('*') && segment != "*" && segment != "**" {
                return Err(PatternError::PartOfSegment(pattern.to_string()));
            }
        }
        Ok(Self(pattern))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pattern as a shared text.
    #[must_use]
    pub fn name(&self) -> &ByteString {
        &self.0
    }

    /// A copy that shares nothing with the frame that brought the pattern.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self(ByteString::from(&*self.0))
    }

    /// The segments, from the left.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether the pattern stands for one topic only.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether the pattern matches a topic. The cost grows with the number of segments; nothing is allocated.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        let mut topic = topic.split('/');
        for segment in self.segments() {
            match (segment, topic.next()) {
                ("**", Some(_)) => return true,
                ("*", Some(_)) => {}
                (literal, Some(there)) if literal == there => {}
                _ => return false,
            }
        }
        topic.next().is_none()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(pattern: &str) -> Result<Self, PatternError> {
        Self::new(pattern)
    }
}

impl TryFrom<ByteString> for Pattern {
    type Error = PatternError;

    fn try_from(pattern: ByteString) -> Result<Self, PatternError> {
        Self::new(pattern)
    }
}

impl TryFrom<&str> for Pattern {
    type Error = PatternError;

    fn try_from(pattern: &str) -> Result<Self, PatternError> {
        Self::new(pattern)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(pattern: String) -> Result<Self, PatternError> {
        Self::new(pattern)
    }
}

impl From<Pattern> for ByteString {
    fn from(pattern: Pattern) -> ByteString {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        Pattern::new(pattern).expect("a pattern").matches(topic)
    }

    #[test]
    fn a_star_matches_exactly_one_segment() {
        assert!(matches("sub/*", "sub/test"));
        assert!(matches("*/test", "sub/test"));
        assert!(matches("*", "sub"));
        assert!(!matches("sub/*", "sub"));
        assert!(!matches("sub/*", "sub/a/b"));
        assert!(!matches("*/test", "test"));
    }

    #[test]
    fn two_stars_match_the_rest_and_at_least_one_segment() {
        assert!(matches("sub/**", "sub/a"));
        assert!(matches("sub/**", "sub/a/b"));
        assert!(matches("**", "anything/at/all"));
        assert!(!matches("sub/**", "sub"));
        assert!(!matches("sub/**", "other/a"));
        assert!(matches("*/b/**", "a/b/c"));
    }

    #[test]
    fn a_literal_matches_itself_only() {
        assert!(matches("sub/test", "sub/test"));
        assert!(!matches("sub/test", "sub/test/more"));
        assert!(!matches("sub/test", "sub"));
        assert!(!matches("sub/test", "sub/tes"));
    }

    #[test]
    fn a_wrong_pattern_is_refused_with_what_is_wrong() {
        assert!(matches!(Pattern::new("a*"), Err(PatternError::PartOfSegment(_))));
        assert!(matches!(Pattern::new("**/a"), Err(PatternError::RestNotLast(_))));
        assert!(matches!(Pattern::new("***"), Err(PatternError::PartOfSegment(_))));
        assert!(matches!(Pattern::new(""), Err(PatternError::Name(NameError::Empty))));
        assert!(matches!(Pattern::new("a//b"), Err(PatternError::Name(NameError::EmptySegment(_)))));
    }
}

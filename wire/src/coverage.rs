//! Whether one pattern stands for all that another one stands for, or for some of it: how a permission for a pattern answers a question for
//! a pattern. Pure, and linear in the segments.

use crate::name::is_everything_below;
use crate::pattern::Pattern;

impl Pattern {
    /// Whether this pattern matches every topic that the other one matches: `a/**` covers `a/*/c`, and `a/*` does not cover `a/**`.
    #[must_use]
    pub fn covers(&self, other: &Pattern) -> bool {
        covers(self.segments(), other.segments().map(Segment::of_pattern))
    }

    /// Whether this pattern matches every action that an offer of this name answers: an offer of `files/**` answers all that is below
    /// `files`, any other only the action of its name.
    #[must_use]
    pub fn covers_action(&self, action: &str) -> bool {
        if !is_everything_below(action) {
            return self.matches(action);
        }
        let above = action.rsplit_once('/').map_or(action, |(above, _)| above);
        // No other segment of an action is a wildcard.
        let segments = above.split('/').map(Segment::Literal).chain(std::iter::once(Segment::Rest));
        covers(self.segments(), segments)
    }

    /// Whether there is a topic that both patterns match.
    #[must_use]
    pub fn meets(&self, other: &Pattern) -> bool {
        let (mut one, mut two) = (self.segments(), other.segments());
        loop {
            match (one.next(), two.next()) {
                (None, None) | (Some("**"), Some(_)) | (Some(_), Some("**")) => return true,
                (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
                (Some(literal), Some(other)) if literal == other => {}
                _ => return false,
            }
        }
    }
}

/// A segment of what a pattern may cover.
#[derive(Clone, Copy)]
enum Segment<'a> {
    Literal(&'a str),
    /// Any one segment.
    One,
    /// One or more segments of any kind.
    Rest,
}

impl<'a> Segment<'a> {
    fn of_pattern(segment: &'a str) -> Self {
        match segment {
            "**" => Segment::Rest,
            "*" => Segment::One,
            literal => Segment::Literal(literal),
        }
    }
}

fn covers<'a>(
    pattern: impl Iterator<Item = &'a str>,
    mut covered: impl Iterator<Item = Segment<'a>>,
) -> bool {
    for segment in pattern {
        match (segment, covered.next()) {
            ("**", Some(_)) => return true,
            ("*", Some(Segment::One | Segment::Literal(_))) => {}
            (literal, Some(Segment::Literal(there))) if literal == there => {}
            _ => return false,
        }
    }
    covered.next().is_none()
}

//! A pattern covers another one if it matches every topic that the other one matches, and meets it if a topic matches both: held against
//! topics.

use meshwork_wire::{Pattern, everything_below};
use proptest::prelude::*;

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a pattern")
}

#[test]
fn a_pattern_covers_what_it_matches_whole() {
    for (wide, narrow) in [
        ("**", "**"),
        ("**", "a/**"),
        ("**", "*"),
        ("a/**", "a/b"),
        ("a/**", "a/*/c"),
        ("a/**", "a/*/**"),
        ("a/*", "a/b"),
        ("*/b", "a/b"),
        ("*/**", "a/b/**"),
        ("a/b", "a/b"),
    ] {
        assert!(pattern(wide).covers(&pattern(narrow)), "{wide} covers {narrow}");
        assert!(pattern(wide).meets(&pattern(narrow)) && pattern(narrow).meets(&pattern(wide)));
    }
    for (narrow, wide) in [
        ("a/**", "**"),
        ("*", "**"),
        ("*/**", "**"),
        ("a/**", "a"),
        ("a/*", "a/**"),
        ("a/b", "a/*"),
        ("a", "b"),
    ] {
        assert!(!pattern(narrow).covers(&pattern(wide)), "{narrow} does not cover {wide}");
    }
}

#[test]
fn an_offer_of_everything_below_is_covered_only_by_what_covers_all_of_it() {
    for (covering, action) in [
        ("files/**", "files/**"),
        ("**", "files/**"),
        ("files/**", "files/a/**"),
        ("*/**", "files/**"),
        ("a/*", "a/b"),
    ] {
        assert!(pattern(covering).covers_action(action), "{covering} covers {action}");
    }
    // `files/*` matches the text `files/**`, and not what an offer of it answers.
    for (other, action) in [
        ("files/*", "files/**"),
        ("files/a/**", "files/**"),
        ("*", "files/**"),
        ("a/*/**", "a/**"),
        ("a/b", "a/*"),
    ] {
        assert!(!pattern(other).covers_action(action), "{other} does not cover {action}");
    }
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof!["a", "b"].prop_map(String::from)
}

fn any_pattern() -> impl Strategy<Value = Pattern> {
    let segments = prop::collection::vec(prop_oneof![2 => segment(), 1 => Just("*".to_owned())], 0..4);
    (segments, any::<bool>()).prop_map(|(mut segments, rest)| {
        if rest || segments.is_empty() {
            segments.push("**".to_owned());
        }
        pattern(&segments.join("/"))
    })
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(segment(), 1..6).prop_map(|segments| segments.join("/"))
}

/// Topics of a pattern such that a pattern which matches all of them matches every topic of it: wildcards stand for segments that no
/// pattern names.
fn witnesses(pattern: &Pattern) -> [String; 2] {
    ["new", "new/newer"].map(|rest| {
        let segments = pattern.segments().map(|segment| match segment {
            "**" => rest,
            "*" => "new",
            literal => literal,
        });
        segments.collect::<Vec<_>>().join("/")
    })
}

proptest! {
    #[test]
    fn what_a_covered_pattern_matches_is_matched_by_the_pattern_that_covers_it(
        one in any_pattern(), other in any_pattern(), topics in prop::collection::vec(topic(), 20),
    ) {
        if one.covers(&other) {
            for topic in topics {
                prop_assert!(!other.matches(&topic) || one.matches(&topic), "{one} {other} {topic}");
            }
            prop_assert!(one.meets(&other));
        }
    }

    #[test]
    fn a_pattern_that_is_not_covered_matches_a_topic_that_is_not_matched(one in any_pattern(), other in any_pattern()) {
        let matches_all = witnesses(&other).iter().all(|topic| one.matches(topic));
        prop_assert_eq!(one.covers(&other), matches_all, "{} {}", one, other);
    }

    #[test]
    fn patterns_that_match_one_topic_meet(one in any_pattern(), other in any_pattern(), topic in topic()) {
        prop_assert_eq!(one.meets(&other), other.meets(&one));
        if one.matches(&topic) && other.matches(&topic) {
            prop_assert!(one.meets(&other), "{one} {other} {topic}");
        }
    }

    #[test]
    fn an_offer_is_covered_as_the_actions_that_it_answers(one in any_pattern(), above in topic(), below in topic()) {
        if one.covers_action(&everything_below(&above)) {
            let action = format!("{above}/{below}");
            prop_assert!(one.matches(&action), "{one} {action}");
        }
    }
}

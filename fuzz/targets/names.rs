//! Any text as a name, a pattern or a token: what is one is shown as it is, and a pattern matches and covers what its words say.

use meshwork_wire::{
    Pattern, check_action, check_group, check_node, check_token, check_topic, escape_unseen, literal_action,
    meant_action,
};

/// Reads the text as each kind of name, and its lines as patterns and topics for each other.
pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let is_token = check_token(&text).is_ok();
    let names = [check_action(&text), check_node(&text), check_group(&text), check_topic(&text)];
    if names.iter().any(Result::is_ok) {
        assert_eq!(escape_unseen(&text), text, "a name is shown as it is");
        assert!(is_token, "a name has no character that a token may not have");
    }
    assert_eq!(meant_action(&literal_action(&text)), *text, "an escaped action is meant as it was");
    let lines: Vec<_> = text.lines().take(8).collect();
    let patterns: Vec<_> = lines.iter().filter_map(|line| Pattern::new((*line).to_owned()).ok()).collect();
    for pattern in &patterns {
        assert!(pattern.covers(pattern), "{pattern:?} covers itself");
        for topic in lines.iter().filter(|line| check_topic(line).is_ok()) {
            let matches = pattern.matches(topic);
            for other in patterns.iter().filter(|other| other.covers(pattern)) {
                assert!(!matches || other.matches(topic), "{other:?} covers {pattern:?}, and not {topic:?}");
            }
        }
    }
}

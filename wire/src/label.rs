//! Labels: what a node says of itself, such as `version=2` or `region=eu`, and what a call asks of the node that answers it. What a label may
//! be, and the key of a call, is decided here alone.

use crate::limits::{KEY_LEN_MAX, LABEL_LEN_MAX, LABELS_MAX, WEIGHT_MAX};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A label of a node: a name and a value.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Label {
    /// The name, such as `version`.
    pub name: ByteString,
    /// The value, such as `2`.
    pub value: ByteString,
}

/// Why a text is no label, or why some are too many.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LabelError {
    /// The name or the value is empty.
    #[error("a label has a name and a value, as in version=2")]
    Empty,
    /// The name or the value has so many bytes.
    #[error("a name or a value of a label has {LABEL_LEN_MAX} bytes at most, and this one {0}")]
    TooLong(usize),
    /// The name or the value holds this character.
    #[error("a label holds letters of ASCII, digits and -_./:+ only, and not {0:?}")]
    Character(char),
    /// Two labels of a node have this name.
    #[error("the label {0:?} is given twice")]
    Twice(ByteString),
    /// There are more than [`LABELS_MAX`] labels.
    #[error("a node has {LABELS_MAX} labels at most")]
    TooMany,
    /// The weight is above [`WEIGHT_MAX`].
    #[error("a weight is {WEIGHT_MAX} at most, and this one {0}")]
    Weight(u32),
    /// The key of a call is empty, or has so many bytes, above [`KEY_LEN_MAX`].
    #[error("the key of a call has 1 to {KEY_LEN_MAX} bytes, and this one {0}")]
    Key(usize),
}

/// Whether a text may be the key of a call, by which its provider is chosen.
///
/// # Errors
///
/// When it is empty or too long.
pub fn check_key(key: &str) -> Result<(), LabelError> {
    if key.is_empty() || key.len() > KEY_LEN_MAX { Err(LabelError::Key(key.len())) } else { Ok(()) }
}

impl Label {
    /// A label.
    ///
    /// # Errors
    ///
    /// When the name or the value is empty, is longer than 63 bytes, or holds a character besides ASCII letters, digits and `-_./:+`.
    pub fn new(name: impl Into<ByteString>, value: impl Into<ByteString>) -> Result<Self, LabelError> {
        let label = Self { name: name.into(), value: value.into() };
        label.check()?;
        Ok(label)
    }

    /// Reads a label such as `version=2`.
    ///
    /// # Errors
    ///
    /// As [`Label::new`], and when there is no `=`.
    pub fn read(text: &str) -> Result<Self, LabelError> {
        let (name, value) = text.split_once('=').ok_or(LabelError::Empty)?;
        Self::new(ByteString::from(name), ByteString::from(value))
    }

    /// Reads labels such as `version=2,region=eu`: at most [`LABELS_MAX`].
    ///
    /// # Errors
    ///
    /// As [`Label::read`], and when there are too many.
    pub fn read_list(text: &str) -> Result<Vec<Self>, LabelError> {
        // The parts are counted first, so that no long text is read in vain.
        if text.bytes().filter(|byte| *byte == b',').count() >= LABELS_MAX {
            return Err(LabelError::TooMany);
        }
        text.split(',').map(Self::read).collect()
    }

    fn check(&self) -> Result<(), LabelError> {
        for part in [&self.name, &self.value] {
            if part.is_empty() {
                return Err(LabelError::Empty);
            }
            if part.len() > LABEL_LEN_MAX {
                return Err(LabelError::TooLong(part.len()));
            }
            let is_allowed = |it: char| it.is_ascii_alphanumeric() || "-_./:+".contains(it);
            if let Some(other) = part.chars().find(|it| !is_allowed(*it)) {
                return Err(LabelError::Character(other));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// Whether these are labels, and at most [`LABELS_MAX`].
///
/// # Errors
///
/// When one is none, or they are too many.
pub fn check_labels(labels: &[Label]) -> Result<(), LabelError> {
    if labels.len() > LABELS_MAX {
        Err(LabelError::TooMany)
    } else {
        labels.iter().try_for_each(Label::check)
    }
}

/// Branch to master, once and before its first offer: the labels and the weight of the branch. They count for all of its actions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Labels {
    /// The labels: one for a name.
    pub labels: Vec<Label>,
    /// How much of the requests the branch gets, beside the weights of the other providers of an action; without a label,
    /// [`WEIGHT_DEFAULT`](crate::limits::WEIGHT_DEFAULT).
    pub weight: u32,
}

impl Labels {
    /// Checks the labels: each, how many there are, that no name comes twice; and the weight.
    ///
    /// # Errors
    ///
    /// When they break one of these rules.
    pub fn check(&self) -> Result<(), LabelError> {
        check_labels(&self.labels)?;
        for (at, label) in self.labels.iter().enumerate() {
            if self.labels[..at].iter().any(|before| before.name == label.name) {
                return Err(LabelError::Twice(label.name.clone()));
            }
        }
        if self.weight > WEIGHT_MAX { Err(LabelError::Weight(self.weight)) } else { Ok(()) }
    }

    /// Whether the node has all of these labels.
    #[must_use]
    pub fn has_all(&self, asked: &[Label]) -> bool {
        asked.iter().all(|label| self.labels.contains(label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WEIGHT_DEFAULT;

    #[test]
    fn a_label_is_read_as_it_is_written() {
        let label = Label::new("app.kubernetes.io/version", "v2.1-rc+3").expect("both are allowed");
        assert_eq!(Label::read(&label.to_string()), Ok(label));
        let list = Label::read_list("version=2,region=eu").expect("two labels");
        assert_eq!(list.iter().map(ToString::to_string).collect::<Vec<_>>(), ["version=2", "region=eu"]);
    }

    #[test]
    fn what_is_no_label_is_refused_with_what_would_be_right() {
        for text in ["", "version", "=2", "version=", "a=1,"] {
            assert!(Label::read_list(text).is_err_and(|it| it.to_string().contains("version=2")), "{text}");
        }
        assert_eq!(Label::read("a=b=c"), Err(LabelError::Character('=')));
        assert_eq!(Label::new("größe", "2"), Err(LabelError::Character('ö')));
        assert_eq!(Label::new("a", "x".repeat(64)), Err(LabelError::TooLong(64)));
        assert!(Label::new("x".repeat(63), "x".repeat(63)).is_ok());
        assert_eq!(Label::read_list(&"a=1,".repeat(1_000_000)), Err(LabelError::TooMany));
    }

    #[test]
    fn the_labels_of_a_node_are_bounded_and_differ() {
        let label = |name: usize| Label { name: format!("n{name}").into(), value: "1".into() };
        let mut labels = Labels { labels: (0..LABELS_MAX).map(label).collect(), weight: WEIGHT_DEFAULT };
        assert_eq!(labels.check(), Ok(()));
        assert!(labels.has_all(&[label(1), label(3)]) && !labels.has_all(&[label(1), label(99)]));
        labels.labels.push(label(99));
        assert_eq!(labels.check(), Err(LabelError::TooMany));
        labels.labels.truncate(2);
        labels.labels[1] = label(0);
        assert_eq!(labels.check(), Err(LabelError::Twice("n0".into())));
        labels.labels.clear();
        labels.weight = WEIGHT_MAX + 1;
        assert_eq!(labels.check(), Err(LabelError::Weight(WEIGHT_MAX + 1)));
    }
}

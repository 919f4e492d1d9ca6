//! A mistake in a file that an operator wrote.

/// A mistake in a TOML file that an operator wrote: its line, and what would be right. It shows no text that may be a secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct FileError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub why: String,
}

impl FileError {
    /// A mistake at this byte of the text.
    #[must_use]
    pub fn at(text: &str, byte: usize, why: impl Into<String>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        Self { line: 1 + before.matches('\n').count(), why: why.into() }
    }

    /// What the reader of TOML says about this text.
    #[must_use]
    pub fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let byte = error.span().map_or(text.len(), |span| span.start);
        Self::at(text, byte, error.message().trim_end().replace('\n', ": "))
    }
}

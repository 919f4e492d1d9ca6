//! The rules for a token, the usual credentials of a bind. They hold where a token is set, at either end: a token that breaks one would be
//! refused later, without a word on why.

use crate::limits::CREDENTIALS_LEN_MAX;

/// Why a text is no token. The message says what would be one, and never shows the text, which may be a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// The text is empty.
    #[error("the token is empty: a token has a character at least, and `meshwork token` makes one")]
    Empty,
    /// The text is longer than [`CREDENTIALS_LEN_MAX`] bytes.
    #[error("the token has {0} bytes: a bind carries at most {CREDENTIALS_LEN_MAX}")]
    TooLong(usize),
    /// The text ends with a line break, as the text of a file does that was not trimmed.
    #[error("the token ends with a line break: take it off, it is no part of the token")]
    LineBreak,
    /// The text holds a control character.
    #[error("the token holds a control character: write it in one line, of characters that can be shown")]
    Control,
}

/// Checks a token: 1 to 16,384 bytes, no control characters.
///
/// # Errors
///
/// When the text is no token.
pub fn check_token(token: &str) -> Result<(), TokenError> {
    if token.is_empty() {
        return Err(TokenError::Empty);
    }
    if token.len() > CREDENTIALS_LEN_MAX {
        return Err(TokenError::TooLong(token.len()));
    }
    if token.ends_with(['\n', '\r']) {
        return Err(TokenError::LineBreak);
    }
    if token.chars().any(char::is_control) {
        return Err(TokenError::Control);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_line_that_fits_into_a_bind() {
        assert_eq!(check_token("secret"), Ok(()));
        assert_eq!(check_token("größer und länger"), Ok(()));
        assert_eq!(check_token(&"x".repeat(CREDENTIALS_LEN_MAX)), Ok(()));
        for (wrong, why) in [
            ("", TokenError::Empty),
            ("secret\n", TokenError::LineBreak),
            ("secret\r\n", TokenError::LineBreak),
            ("\0secret", TokenError::Control),
            ("sec\tret", TokenError::Control),
            (&"x".repeat(CREDENTIALS_LEN_MAX + 1), TokenError::TooLong(CREDENTIALS_LEN_MAX + 1)),
        ] {
            assert_eq!(check_token(wrong), Err(why));
            assert!(!why.to_string().contains("secret"), "a secret is never shown");
        }
    }
}

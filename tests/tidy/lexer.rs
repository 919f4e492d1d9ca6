//! Just enough of a lexer to tell code from comments, strings and unit tests. Stripped text is replaced by blanks, so line numbers
//! stay. The rules about code are elsewhere.

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Keep {
    Code,
    CodeAndStrings,
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Code,
    String,
    Comment,
}

pub(crate) fn stripped(text: &str, keep: Keep) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (token, len) = first_token(rest);
        let (piece, after) = rest.split_at(len);
        if token == Token::Code || token == Token::String && keep == Keep::CodeAndStrings {
            kept.push_str(piece);
        } else {
            kept.push_str(&blank(piece));
        }
        rest = after;
    }
    kept
}

fn first_token(text: &str) -> (Token, usize) {
    let until =
        |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    let first = text.chars().next().unwrap_or_default();
    if text.starts_with("//") {
        return (Token::Comment, text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return (Token::Comment, block_comment_len(text));
    }
    if is_word(first) {
        let word = text.find(|it| !is_word(it)).unwrap_or(text.len());
        let hashes = text[word..].len() - text[word..].trim_start_matches('#').len();
        let is_raw = ["r", "br", "cr"].contains(&&text[..word]) && text[word + hashes..].starts_with('"');
        if is_raw {
            return (Token::String, until(&format!("\"{}", "#".repeat(hashes)), word + hashes + 1));
        }
        return (Token::Code, word);
    }
    if first == '"' {
        return (Token::String, escaped_len(text, '"'));
    }
    if first == '\'' {
        let mut after = text[1..].chars();
        let (content, end) = (after.next(), after.next());
        // Otherwise it is a lifetime: a quote that nothing closes.
        if content == Some('\\') || end == Some('\'') {
            return (Token::String, escaped_len(text, '\''));
        }
    }
    (Token::Code, first.len_utf8())
}

/// Block comments nest.
fn block_comment_len(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    loop {
        let rest = &text[at..];
        match rest.chars().next() {
            None => return at,
            Some(_) if rest.starts_with("/*") => (at, depth) = (at + 2, depth + 1),
            Some(_) if rest.starts_with("*/") => (at, depth) = (at + 2, depth - 1),
            Some(other) => at += other.len_utf8(),
        }
        if depth == 0 {
            return at;
        }
    }
}

/// How long a literal is that begins with this quote and ends with the next one that no backslash escapes.
fn escaped_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, it) in text.char_indices().skip(1) {
        if it == quote && !escaped {
            return at + it.len_utf8();
        }
        escaped = it == '\\' && !escaped;
    }
    text.len()
}

/// Blanks the modules of unit tests. Strings and comments are gone already, so braces can be counted.
pub(crate) fn without_tests(mut code: String) -> String {
    let marker = "#[cfg(test)]";
    let mut from = 0;
    while let Some(at) = code[from..].find(marker).map(|at| from + at) {
        from = at + marker.len();
        let item = code[from..].trim_start();
        let named = item.strip_prefix("pub").unwrap_or(item);
        let named = named.strip_prefix('(').and_then(|it| it.split_once(')')).map_or(named, |it| it.1);
        if !named.trim_start().starts_with("mod ") {
            continue;
        }
        let mut depth = 0;
        let len = item.find(|it| {
            depth += i32::from(it == '{') - i32::from(it == '}');
            depth == 0 && matches!(it, ';' | '}')
        });
        let start = code.len() - item.len();
        let end = len.map_or(code.len(), |len| start + len + 1);
        let blanked = blank(&code[start..end]);
        code.replace_range(start..end, &blanked);
    }
    code
}

fn blank(text: &str) -> String {
    text.chars().map(|it| if it == '\n' { '\n' } else { ' ' }).collect()
}

pub(crate) struct Word<'a> {
    pub(crate) line: usize,
    pub(crate) text: &'a str,
    /// The rest of the line.
    pub(crate) after: &'a str,
}

pub(crate) fn words(code: &str) -> impl Iterator<Item = Word<'_>> {
    code.lines().enumerate().flat_map(|(index, line)| {
        let mut rest = line;
        std::iter::from_fn(move || {
            let word = &rest[rest.find(is_word)?..];
            let (text, after) = word.split_at(word.find(|it| !is_word(it)).unwrap_or(word.len()));
            rest = after;
            Some(Word { line: index + 1, text, after })
        })
    })
}

pub(crate) fn is_word(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

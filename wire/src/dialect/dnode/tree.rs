//! The arguments of a line as a tree, where functions or links stand in them: the places of a path, and the placeholders of functions.
//! Texts and numbers stay as they were written, and keys in their order. Lines without functions become no tree.

use crate::dialect::json::end_of_text;
use crate::limits::DEPTH_MAX;
use serde_json::json;
use std::borrow::Cow;

/// How many steps the paths of one line may take: each key of an object that is looked through is one.
const STEPS_MAX: usize = 16 * 1024 * 1024;

/// The text that stands in a line in place of a function.
pub(super) const FUNCTION: &str = r#""[Function]""#;

/// A value of JSON.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Tree<'a> {
    /// A text, a number, true, false or null, as JSON.
    Leaf(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    /// Keys, as JSON, and values.
    Map(Vec<(Cow<'a, str>, Tree<'a>)>),
}

/// The work that paths may still cause.
pub(super) struct Steps(usize);

/// The paths of one line would take too many steps, or its values stand too deep in each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TooMuch {
    Steps,
    Depth,
}

/// The size of a value and of all values within it.
#[derive(Default)]
pub(super) struct Size {
    /// An estimate: the bytes of all texts, and 32 for each value.
    pub(super) bytes: usize,
    pub(super) depth: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Self(STEPS_MAX)
    }
}

impl Steps {
    fn take(&mut self, steps: usize) -> Result<(), TooMuch> {
        self.0 = self.0.checked_sub(steps).ok_or(TooMuch::Steps)?;
        Ok(())
    }
}

impl<'a> Tree<'a> {
    /// Reads JSON that has been checked.
    pub(super) fn read(json: &'a str) -> Result<Self, TooMuch> {
        let mut reader = Reader { json, at: 0 };
        reader.value(0)
    }

    pub(super) fn null() -> Self {
        Tree::Leaf(Cow::Borrowed("null"))
    }

    /// The placeholder of a function, by which a payload knows it.
    pub(super) fn placeholder(index: usize) -> Self {
        let index = Tree::Leaf(Cow::Owned(index.to_string()));
        Tree::Map(vec![(Cow::Borrowed(r#""$callback""#), index)])
    }

    /// Appends the value as JSON.
    pub(super) fn write(&self, json: &mut String) {
        match self {
            Tree::Leaf(leaf) => json.push_str(leaf),
            Tree::List(values) => {
                json.push('[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        json.push(',');
                    }
                    value.write(json);
                }
                json.push(']');
            }
            Tree::Map(entries) => {
                json.push('{');
                for (at, (key, value)) in entries.iter().enumerate() {
                    if at > 0 {
                        json.push(',');
                    }
                    json.push_str(key);
                    json.push(':');
                    value.write(json);
                }
                json.push('}');
            }
        }
    }

    pub(super) fn size(&self) -> Size {
        const EACH: usize = 32;
        let add = |sum: Size, (key, value): (usize, &Tree<'_>)| {
            let Size { bytes, depth } = value.size();
            Size { bytes: sum.bytes + key + bytes, depth: sum.depth.max(depth + 1) }
        };
        let within = match self {
            Tree::Leaf(leaf) => Size { bytes: leaf.len(), depth: 0 },
            Tree::List(values) => values.iter().map(|value| (0, value)).fold(Size::default(), add),
            Tree::Map(entries) => {
                entries.iter().map(|(key, value)| (key.len(), value)).fold(Size::default(), add)
            }
        };
        Size { bytes: within.bytes + EACH, ..within }
    }

    /// The index of a function, if the value is the placeholder of one.
    fn function(&self) -> Option<usize> {
        match self {
            Tree::Map(entries) => match &entries[..] {
                [(key, Tree::Leaf(index))] if is_key(key, "$callback") => index.parse().ok(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Shows each placeholder of a function, with its index and its path; it is replaced by the value that is given for it.
    pub(super) fn functions(
        &mut self,
        path: &mut Vec<String>,
        replace: &mut impl FnMut(usize, &[String]) -> Option<Tree<'a>>,
    ) {
        if let Some(index) = self.function() {
            if let Some(other) = replace(index, path) {
                *self = other;
            }
            return;
        }
        match self {
            Tree::List(values) => {
                for (at, value) in values.iter_mut().enumerate() {
                    path.push(at.to_string());
                    value.functions(path, replace);
                    path.pop();
                }
            }
            Tree::Map(entries) => {
                for (key, value) in entries {
                    if matches!(value, Tree::Leaf(_)) {
                        continue;
                    }
                    path.push(key_of(key).into_owned());
                    value.functions(path, replace);
                    path.pop();
                }
            }
            Tree::Leaf(_) => {}
        }
    }
}

/// The value that a path leads to, if there is one.
pub(super) fn at<'t, 'a>(
    arguments: &'t mut [Tree<'a>],
    path: &[String],
    steps: &mut Steps,
) -> Result<Option<&'t mut Tree<'a>>, TooMuch> {
    let Some((first, rest)) = path.split_first() else { return Ok(None) };
    let mut found = first.parse::<usize>().ok().and_then(|first| arguments.get_mut(first));
    for step in rest {
        found = match found {
            Some(Tree::List(values)) => step.parse::<usize>().ok().and_then(|at| values.get_mut(at)),
            Some(Tree::Map(entries)) => {
                steps.take(entries.len())?;
                // The last one of several counts, as in JavaScript.
                entries.iter_mut().rev().find(|(key, _)| is_key(key, step)).map(|(_, value)| value)
            }
            _ => None,
        };
    }
    steps.take(path.len())?;
    Ok(found)
}

/// Replaces the value that a path leads to; whether there is one.
pub(super) fn put<'a>(
    arguments: &mut [Tree<'a>],
    path: &[String],
    value: Tree<'a>,
    steps: &mut Steps,
) -> Result<bool, TooMuch> {
    let place = at(arguments, path, steps)?;
    Ok(place.map(|place| *place = value).is_some())
}

/// Replaces the value that a path leads to. The last step of the path may be a key that its object has not yet.
pub(super) fn put_or_add<'a>(
    arguments: &mut [Tree<'a>],
    path: &[String],
    value: Tree<'a>,
    steps: &mut Steps,
) -> Result<(), TooMuch> {
    match path.split_last() {
        Some((last, parent)) if !parent.is_empty() => {
            if let Some(Tree::Map(entries)) = at(arguments, parent, steps)? {
                steps.take(entries.len())?;
                match entries.iter_mut().rev().find(|(key, _)| is_key(key, last)) {
                    Some((_, place)) => *place = value,
                    None => entries.push((Cow::Owned(json!(last).to_string()), value)),
                }
                return Ok(());
            }
            put(arguments, path, value, steps).map(drop)
        }
        _ => put(arguments, path, value, steps).map(drop),
    }
}

/// Whether a key, as JSON, is this one.
fn is_key(json: &str, key: &str) -> bool {
    key_of(json) == key
}

fn key_of(json: &str) -> Cow<'_, str> {
    if json.contains('\\') {
        return Cow::Owned(serde_json::from_str(json).unwrap_or_default());
    }
    Cow::Borrowed(json.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or_default())
}

/// Reads JSON that has been checked. Other text is read to its end, and as some value.
struct Reader<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next byte that is no space between values.
    fn next(&mut self) -> Option<u8> {
        let bytes = self.json.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// The text that stands here, with its quotes.
    fn text(&mut self) -> Cow<'a, str> {
        let start = self.at;
        self.at = end_of_text(self.json.as_bytes(), start);
        Cow::Borrowed(self.json.get(start..self.at).unwrap_or_default())
    }

    fn value(&mut self, depth: usize) -> Result<Tree<'a>, TooMuch> {
        if depth > DEPTH_MAX {
            return Err(TooMuch::Depth);
        }
        match self.next() {
            Some(b'[') => {
                self.at += 1;
                let mut values = Vec::new();
                loop {
                    match self.next() {
                        Some(b']') => {
                            self.at += 1;
                            return Ok(Tree::List(values));
                        }
                        Some(b',') => self.at += 1,
                        Some(_) => values.push(self.value(depth + 1)?),
                        None => return Ok(Tree::List(values)),
                    }
                }
            }
            Some(b'{') => {
                self.at += 1;
                let mut entries = Vec::new();
                loop {
                    match self.next() {
                        Some(b'}') => {
                            self.at += 1;
                            return Ok(Tree::Map(entries));
                        }
                        Some(b'"') => {
                            let key = self.text();
                            if self.next() == Some(b':') {
                                self.at += 1;
                            }
                            entries.push((key, self.value(depth + 1)?));
                        }
                        Some(_) => self.at += 1,
                        None => return Ok(Tree::Map(entries)),
                    }
                }
            }
            Some(b'"') => Ok(Tree::Leaf(self.text())),
            Some(_) => {
                let rest = self.json.get(self.at..).unwrap_or_default();
                let is_end = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}');
                // At least one byte, so that no text is read for ever.
                let len = rest.bytes().position(is_end).unwrap_or(rest.len()).max(1);
                self.at += len;
                Ok(Tree::Leaf(Cow::Borrowed(rest.get(..len).unwrap_or_default())))
            }
            None => Ok(Tree::null()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(tree: &Tree<'_>) -> String {
        let mut json = String::new();
        tree.write(&mut json);
        json
    }

    #[test]
    fn what_is_read_and_written_is_the_same() {
        for json in [
            r#"[1,-2.50,18446744073709551617,"a\"]\u00e9",{"b":1,"a":{"":[]}},[],{},true,null,"é😀"]"#,
            "7",
            r#""[""#,
        ] {
            assert_eq!(written(&Tree::read(json).unwrap()), json);
        }
        assert_eq!(written(&Tree::read(" [ 1 , { \"a\" : [ ] } ] ").unwrap()), r#"[1,{"a":[]}]"#);
        let deep = "[".repeat(300) + &"]".repeat(300);
        assert_eq!(Tree::read(&deep), Err(TooMuch::Depth));
    }

    #[test]
    fn text_that_is_no_json_is_read_to_its_end() {
        for text in ["", "[", "{", "[1", r#"{"a"#, r#"{"a"}"#, "]", "}", ",", r#"["\"#, "é", "{1:2}", "[}]"]
        {
            _ = Tree::read(text);
        }
    }

    #[test]
    fn a_path_leads_to_one_place() {
        let json = r#"[{"a\u0062":[1,2],"x":{}}]"#;
        let Ok(Tree::List(mut arguments)) = Tree::read(json) else { panic!("a list") };
        let path = |path: &[&str]| path.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let steps = &mut Steps::default();
        assert_eq!(put(&mut arguments, &path(&["0", "ab", "1"]), Tree::placeholder(3), steps), Ok(true));
        for nowhere in [&["1"][..], &["0", "no"], &["0", "ab", "2"], &["x"], &[]] {
            assert_eq!(put(&mut arguments, &path(nowhere), Tree::null(), steps), Ok(false));
        }
        put_or_add(&mut arguments, &path(&["0", "x", "é"]), Tree::null(), steps).unwrap();
        let mut seen = Vec::new();
        let mut all = Tree::List(arguments);
        all.functions(&mut Vec::new(), &mut |index, path| {
            seen.push((index, path.join("/")));
            Some(Tree::Leaf(Cow::Borrowed(FUNCTION)))
        });
        assert_eq!(seen, [(3, "0/ab/1".to_owned())]);
        assert_eq!(written(&all), r#"[{"a\u0062":[1,"[Function]"],"x":{"é":null}}]"#);
    }
}

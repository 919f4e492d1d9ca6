//! JSON as text, for dialects that pass values on and do not open them: the digits of its numbers and the order of its keys stay. The
//! texts of all functions here but [`Skim`] have been checked to be JSON.

use crate::encoding::Encoding;
use crate::error::{Code, Fate};
use crate::payload::{CallError, Payload};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The integers below this one and above its negative are floats of JavaScript without loss.
const SAFE: f64 = 9_007_199_254_740_992.0;

/// From this integer on, JavaScript writes numbers with an exponent.
const WITH_EXPONENT: f64 = 1e21;

/// How many digits an integer has at least that JavaScript may write with other digits than its own.
const DIGITS_MIN: usize = 16;

/// How much of a value [`Skim`] keeps, in bytes: the paths of all functions that one request may pass fit.
const TAKEN_LEN_MAX: usize = 64 * 1024;

/// How much of a key [`Skim`] keeps, in bytes: longer than every key that is looked for.
const KEY_LEN_MAX: usize = 16;

/// The JSON of a payload whose encoding describes itself.
pub(super) fn as_json(payload: &Payload) -> Result<Cow<'_, str>, CallError> {
    let wrong = |why: String| CallError::new(Code::CANNOT_DECODE, Fate::Failed, why);
    match payload.encoding {
        Encoding::Json => {
            let text = std::str::from_utf8(&payload.bytes).map_err(|error| wrong(error.to_string()))?;
            let checked: &RawValue = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
            Ok(Cow::Borrowed(checked.get()))
        }
        _ if payload.is_empty() => Ok(Cow::Borrowed("null")),
        _ => {
            let json = payload.transcode(Encoding::Json)?;
            let text = std::str::from_utf8(&json.bytes).map_err(|error| wrong(error.to_string()))?;
            Ok(Cow::Owned(text.to_owned()))
        }
    }
}

/// An error as an object with its name, message and code, and the fields of its data, as JSON; or just what another program threw, as it was
/// written: nothing rounds a number or sorts the keys.
pub(super) fn failure(error: &CallError) -> Cow<'_, str> {
    // Null would be no error.
    if let Some(thrown) = error.thrown().and_then(|thrown| as_json(thrown).ok())
        && thrown != "null"
    {
        return thrown;
    }
    let written = Payload::encode(Encoding::Json, &error.to_thrown_with_numbers()).ok();
    let written = written.and_then(|json| String::from_utf8(json.bytes.to_vec()).ok());
    Cow::Owned(written.unwrap_or_else(|| {
        serde_json::json!({ "name": error.name(), "message": error.message() }).to_string()
    }))
}

/// Gives each integer that JavaScript wrote its own digits. JavaScript writes only as many digits as tell a number from its neighbours,
/// and zeros behind them: it writes 2 to the power of 60 as `1152921504606847000`, and that is 24 more.
pub(super) fn exact_numbers(json: &str) -> Cow<'_, str> {
    each_long_number(json, |number| {
        let whole = number.strip_suffix("e0").filter(|digits| is_integer(digits));
        whole.map(str::to_owned).or_else(|| rounded(number))
    })
}

/// Marks each integer that [`exact_numbers`] at another end would take for another one, since JavaScript would write that one with the
/// same digits. To JavaScript, the mark changes nothing.
pub(super) fn marked_numbers(json: &str) -> Cow<'_, str> {
    each_long_number(json, |number| rounded(number).map(|_| format!("{number}e0")))
}

/// The digits of the number that JavaScript writes like this integer, if they are others.
fn rounded(number: &str) -> Option<String> {
    if !is_integer(number) {
        return None;
    }
    let float: f64 = number.parse().ok()?;
    if !(SAFE..WITH_EXPONENT).contains(&float.abs()) || float.to_string() != number {
        return None;
    }
    Some(format!("{float:.0}")).filter(|exact| exact != number)
}

fn is_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.len() >= DIGITS_MIN && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Replaces numbers of many digits.
fn each_long_number(json: &str, replacement: impl Fn(&str) -> Option<String>) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let (mut at, mut copied, mut out) = (0, 0, String::new());
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_text(bytes, at),
            b'-' | b'0'..=b'9' => {
                let start = at;
                while bytes
                    .get(at)
                    .is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
                {
                    at += 1;
                }
                if at - start >= DIGITS_MIN
                    && let Some(other) = replacement(&json[start..at])
                {
                    out.push_str(&json[copied..start]);
                    out.push_str(&other);
                    copied = at;
                }
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

/// The place behind the text that begins at `at`.
pub(super) fn end_of_text(json: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    json.len()
}

/// How many lists and objects stand in each other at most.
pub(super) fn depth(json: &str) -> usize {
    let bytes = json.as_bytes();
    let (mut at, mut open, mut deepest) = (0_usize, 0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = end_of_text(bytes, at);
                continue;
            }
            b'[' | b'{' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Finds values in an object that is too long to be kept, while its bytes pass by. Any bytes may pass.
#[derive(Debug)]
pub(super) struct Skim {
    /// The paths of the wanted values, of one key or two.
    wanted: &'static [&'static [&'static str]],
    found: Vec<Option<Vec<u8>>>,
    /// How many lists and objects are open.
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The two outermost objects that are open.
    levels: [Level; 2],
    /// The wanted value that passes now, and the number of objects that it stands in.
    taking: Option<(usize, usize)>,
}

#[derive(Default, Debug)]
struct Level {
    /// Whether a list is open here, and no object.
    is_list: bool,
    /// The key that was read last.
    key: Vec<u8>,
    /// Whether the colon behind the key has passed.
    in_value: bool,
}

impl Skim {
    pub(super) fn new(wanted: &'static [&'static [&'static str]]) -> Self {
        Self {
            wanted,
            found: vec![None; wanted.len()],
            depth: 0,
            in_text: false,
            escaped: false,
            levels: Default::default(),
            taking: None,
        }
    }

    /// Lets bytes pass.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.pass_one(*byte));
    }

    /// The value at the path of this number, if it has passed and is short.
    pub(super) fn found(&self, wanted: usize) -> Option<&str> {
        let is_open = self.taking.is_some_and(|(taken, _)| taken == wanted);
        let found = self.found.get(wanted)?.as_deref().filter(|_| !is_open)?;
        std::str::from_utf8(found).ok().map(str::trim)
    }

    /// The object at this depth whose keys matter.
    fn level(&mut self) -> Option<&mut Level> {
        let at = self.depth.checked_sub(1)?;
        self.levels.get_mut(at).filter(|level| !level.is_list)
    }

    fn pass_one(&mut self, byte: u8) {
        if self.in_text {
            self.take(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_text = false;
                    return;
                }
                _ => {}
            }
            if let Some(level) =
                self.level().filter(|level| !level.in_value && level.key.len() <= KEY_LEN_MAX)
            {
                level.key.push(byte);
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_text = true;
                if let Some(level) = self.level().filter(|level| !level.in_value) {
                    level.key.clear();
                }
            }
            b'{' | b'[' => {
                self.take(byte);
                self.depth += 1;
                if let Some(level) = self.levels.get_mut(self.depth - 1) {
                    *level = Level { is_list: byte == b'[', ..Level::default() };
                }
                return;
            }
            b'}' | b']' => {
                self.end_value();
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => {
                self.end_value();
                if let Some(level) = self.level() {
                    level.in_value = false;
                }
            }
            b':' => {
                if let Some(level) = self.level().filter(|level| !level.in_value) {
                    level.in_value = true;
                    if self.taking.is_none() {
                        // The colon is no part of the value that may begin here.
                        return self.begin_value();
                    }
                }
            }
            _ => {}
        }
        self.take(byte);
    }

    /// Begins to keep the value behind a key, if it is wanted.
    fn begin_value(&mut self) {
        let keys = self.levels[..self.depth].iter().map(|level| &level.key[..]);
        let is_here = |path: &&[&str]| path.iter().map(|key| key.as_bytes()).eq(keys.clone());
        if let Some(wanted) = self.wanted.iter().position(is_here) {
            self.taking = Some((wanted, self.depth));
            self.found[wanted] = Some(Vec::new());
        }
    }

    /// Ends the value that passes, at the end of its entry.
    fn end_value(&mut self) {
        if self.taking.is_some_and(|(_, depth)| depth == self.depth) {
            self.taking = None;
        }
    }

    fn take(&mut self, byte: u8) {
        let Some((wanted, _)) = self.taking else { return };
        match &mut self.found[wanted] {
            Some(found) if found.len() < TAKEN_LEN_MAX => found.push(byte),
            too_long => {
                *too_long = None;
                self.taking = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_javascript_are_the_numbers_that_it_meant() {
        for (written, meant) in [
            ("[1152921504606847000]", "[1152921504606846976]"),
            ("-9223372036854776000", "-9223372036854775808"),
            ("18446744073709552000", "18446744073709551616"),
            // An integer that JavaScript would write otherwise was not written by it.
            ("9007199254740993", "9007199254740993"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("18446744073709551615", "18446744073709551615"),
            // Exact, short, or no integers.
            (
                "[10000000000000000,9007199254740991,9007199254740994]",
                "[10000000000000000,9007199254740991,9007199254740994]",
            ),
            (
                "[1.152921504606847e18,1e+21,-0.0,1e400,0.1152921504606847000]",
                "[1.152921504606847e18,1e+21,-0.0,1e400,0.1152921504606847000]",
            ),
            (
                r#"{"1152921504606847000":"\"1152921504606847000"}"#,
                r#"{"1152921504606847000":"\"1152921504606847000"}"#,
            ),
        ] {
            assert_eq!(exact_numbers(written), meant);
        }
    }

    #[test]
    fn integers_of_ours_come_back_as_they_were() {
        for json in [
            "[1152921504606847000,1152921504606846976,-1152921504606847000]",
            "18446744073709552000",
            "9223372036854775807",
            r#"["1152921504606847000",1700000000123456000]"#,
        ] {
            assert_eq!(exact_numbers(&marked_numbers(json)), json);
        }
        assert_eq!(marked_numbers("[1152921504606847000,7]"), "[1152921504606847000e0,7]");
    }

    const WANTED: &[&[&str]] = &[&["command"], &["data", "id"]];

    fn skimmed(json: &str) -> (Option<String>, Option<String>) {
        let mut skim = Skim::new(WANTED);
        skim.pass(json.as_bytes());
        (skim.found(0).map(str::to_owned), skim.found(1).map(str::to_owned))
    }

    #[test]
    fn the_wanted_values_are_found_wherever_they_stand() {
        let found = (Some(r#""add""#.to_owned()), Some(r#""i\"d""#.to_owned()));
        for json in [
            r#"{"command":"add","data":{"id":"i\"d","args":[1,{"id":2,"command":3}]}}"#,
            r#"{ "data" : { "args" : [[{"id":7}],"]}"], "id" : "i\"d" } , "command" : "add" }"#,
            r#"{"other":{"id":1},"data":{"x":{"id":3},"id":"i\"d"},"command":"add"}"#,
        ] {
            assert_eq!(skimmed(json), found, "{json}");
        }
        assert_eq!(skimmed(r#"{"data":{"id":[1,{"a":[]}]}}"#).1.as_deref(), Some(r#"[1,{"a":[]}]"#));
        assert_eq!(skimmed(r#"{"command":{"a":{"b":1}}}"#).0.as_deref(), Some(r#"{"a":{"b":1}}"#));
        let long = format!(r#"{{"command":"{}","data":{{"id":1}}}}"#, "x".repeat(TAKEN_LEN_MAX));
        assert_eq!(skimmed(&long), (None, Some("1".to_owned())));
        assert_eq!(skimmed(r#"{"command":"add"#), (None, None), "it has not passed");
        assert_eq!(skimmed(r#"[{"command":1}]]]}}}:,"#), (None, None));
    }
}

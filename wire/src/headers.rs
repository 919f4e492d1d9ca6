//! Headers: names and values beside the payload of a request or an event, for code that looks at no payload. A relay hands them on unread.
//!
//! On the wire they are one text: a line `name:value` for each header, by rising names, each name once. So one list has one form, and the check of
//! a list that comes from outside is one walk over its bytes.

use crate::limits::{HEADER_NAME_LEN_MAX, HEADER_VALUE_LEN_MAX, HEADERS_LEN_MAX, HEADERS_MAX};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The headers of a call or an event. Clones share them; a list takes eight bytes where it stands, and nothing else if it is empty.
///
/// - A **name** has 1 to 64 letters, digits and ``!#$%&'*+-.^_`|~``, as that of an HTTP header. Upper case means lower case. Names that begin with
///   `mesh-` belong to meshwork.
/// - A **value** is a text of up to 4 KiB without control characters, apart from tabs. Bytes travel as base64 or the like.
/// - Each name has one value. A call has up to 32 headers, and 8 KiB of names and values, two bytes for each header counted.
///
/// ```
/// use meshwork_wire::Headers;
///
/// let mut headers = Headers::none();
/// headers.insert("Tenant", "a")?;
/// assert_eq!((headers.get("tenant"), headers.get("TENANT"), headers.get("user")), (Some("a"), Some("a"), None));
/// assert!(headers.insert("mesh-key", "7").is_err() && headers.insert("a b", "7").is_err());
/// # Ok::<(), meshwork_wire::HeaderError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Headers(Option<Arc<Box<str>>>);

/// Why a text is no header, or headers are too many. The message says what would be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// The name is empty, or has a character that names of headers have not.
    #[error("{0:?} is no name of a header: write letters, digits and -, such as tenant or x-request-id")]
    Name(String),
    /// The name has more than [`HEADER_NAME_LEN_MAX`] bytes.
    #[error("the name of a header has {0} bytes, and {HEADER_NAME_LEN_MAX} is the most")]
    NameTooLong(usize),
    /// The name begins with `mesh-`.
    #[error("{0:?} is a header of meshwork itself: choose a name that does not begin with {RESERVED}")]
    Reserved(String),
    /// The value has a control character.
    #[error("the value of {0:?} holds {character}: a header holds text without line breaks and other control characters", character = .1.escape_unicode())]
    Value(String, char),
    /// The value has more than [`HEADER_VALUE_LEN_MAX`] bytes.
    #[error(
        "the value of {0:?} has {1} bytes, and {HEADER_VALUE_LEN_MAX} is the most: pass it as an argument"
    )]
    ValueTooLong(String, usize),
    /// There are more than [`HEADERS_MAX`] headers.
    #[error("there are more than {HEADERS_MAX} headers")]
    TooMany,
    /// The headers have more than [`HEADERS_LEN_MAX`] bytes together.
    #[error("the headers have {0} bytes together, and {HEADERS_LEN_MAX} is the most")]
    TooLong(usize),
    /// The text from a frame is no list of headers.
    #[error("the list of headers is malformed: {0}")]
    Malformed(&'static str),
}

/// The beginning of the names that belong to meshwork.
const RESERVED: &str = "mesh-";

impl Headers {
    /// Calls with the same value of this header go to the same provider, as long as it is there.
    pub const KEY: &str = "mesh-key";
    /// `name=value`, or several of them with commas between: the call goes to providers with these labels.
    pub const LABEL: &str = "mesh-label";
    /// The number of a session: the call goes to its branch, one of several that may have a name, or to the master.
    pub const SESSION: &str = "mesh-session";
    /// Tells the provider's side that two requests are one call, made again: it runs once.
    pub const IDEMPOTENCY_KEY: &str = "mesh-idempotency-key";
    /// The place of a call in a trace, as W3C Trace Context has it.
    pub const TRACEPARENT: &str = "traceparent";
    /// What tracing systems add to [`Headers::TRACEPARENT`].
    pub const TRACESTATE: &str = "tracestate";

    /// No headers. Costs nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The headers of these pairs. Costs two allocations, however many there are.
    ///
    /// # Errors
    ///
    /// When one of them is no header, a name is there twice or belongs to meshwork, or they are too many.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, HeaderError> {
        let mut list = Vec::new();
        for (name, value) in pairs {
            let name = checked_name(name)?;
            check_free(&name)?;
            check_value(&name, value)?;
            if list.len() == HEADERS_MAX {
                return Err(HeaderError::TooMany);
            }
            list.push((name, value));
        }
        list.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if list.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(HeaderError::Malformed("a name is there twice"));
        }
        Self::written(list.iter().map(|(name, value)| (&**name, *value)))
    }

    /// Reads a list as it stands in a frame. Takes time in proportion to its length, and memory of its length.
    ///
    /// # Errors
    ///
    /// When it is no list of headers. A list without headers is none: it is left out.
    pub fn read(text: &str) -> Result<Self, HeaderError> {
        check(text)?;
        Ok(Self(Some(Arc::new(text.into()))))
    }

    /// The list as it stands in a frame; empty if there are no headers.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.as_ref().map_or("", |text| text)
    }

    /// Sets a header, in the place of an earlier one of this name.
    ///
    /// # Errors
    ///
    /// When the name or the value cannot be one of a header, the name belongs to meshwork, or there would be too many headers: they stay
    /// as they were.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        let name = checked_name(name)?;
        check_free(&name)?;
        self.put(&name, value)
    }

    /// As [`Headers::insert`], of a header of meshwork itself, or any other.
    ///
    /// # Errors
    ///
    /// As [`Headers::insert`].
    pub fn insert_own(&mut self, name: &'static str, value: &str) -> Result<(), HeaderError> {
        self.put(&checked_name(name)?, value)
    }

    /// Sets all headers of another list, in the place of earlier ones of their names.
    ///
    /// # Errors
    ///
    /// When there would be too many headers: they stay as they were.
    pub fn extend(&mut self, others: &Self) -> Result<(), HeaderError> {
        if self.is_empty() {
            self.clone_from(others);
            return Ok(());
        }
        let mut extended = self.clone();
        others.iter().try_for_each(|(name, value)| extended.put(name, value))?;
        *self = extended;
        Ok(())
    }

    fn put(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        check_value(name, value)?;
        let before = self.iter().take_while(|(there, _)| *there < name);
        let after = self.iter().skip_while(|(there, _)| *there <= name);
        let len = before.clone().count() + 1 + after.clone().count();
        if len > HEADERS_MAX {
            return Err(HeaderError::TooMany);
        }
        *self = Self::written(before.chain([(name, value)]).chain(after))?;
        Ok(())
    }

    /// Takes a header out.
    pub fn remove(&mut self, name: &str) {
        if self.get(name).is_some() {
            let others = self.iter().filter(|(there, _)| !there.eq_ignore_ascii_case(name));
            // A part of a list that was within the bounds is within them.
            *self = Self::written(others).unwrap_or_default();
        }
    }

    /// The value of a header. Upper and lower case of the name are one. Costs a walk over the headers.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(there, _)| there.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The headers with their values, by rising names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        // Each line was checked.
        self.text().split_terminator('\n').filter_map(|line| line.split_once(':'))
    }

    /// The value of [`Headers::TRACEPARENT`], if it has the shape that W3C Trace Context asks for; a malformed one is as none.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.get(Self::TRACEPARENT).filter(|value| is_traceparent(value))
    }

    /// The headers of the trace alone, as a call passes them on that is made for this one: `traceparent`, and `tracestate` beside it. None
    /// without a `traceparent`, or with a malformed one.
    #[must_use]
    pub fn trace(&self) -> Self {
        if self.is_empty() || self.traceparent().is_none() {
            return Self::none();
        }
        let trace = self.iter().filter(|(name, _)| [Self::TRACEPARENT, Self::TRACESTATE].contains(name));
        // A part of a list that was within the bounds is within them.
        Self::written(trace).unwrap_or_default()
    }

    /// The headers that the application has set, by rising names: those of meshwork itself mean something to this mesh only.
    pub fn of_application(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.iter().filter(|(name, _)| !name.starts_with(RESERVED))
    }

    /// Whether they say which provider gets the call: [`Headers::KEY`], [`Headers::LABEL`] or [`Headers::SESSION`]. Costs nothing if there are no
    /// headers, else a walk over them.
    #[must_use]
    #[inline]
    pub fn choose_provider(&self) -> bool {
        !self.is_empty()
            && self.iter().any(|(name, _)| matches!(name, Self::KEY | Self::LABEL | Self::SESSION))
    }

    /// How many headers there are. Costs a walk over them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// How many bytes the headers take in a frame.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.text().len()
    }

    /// Whether there are no headers.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The list of these headers, which are checked and in order.
    fn written<'a>(headers: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Result<Self, HeaderError> {
        let len = headers.clone().map(|(name, value)| name.len() + value.len() + 2).sum();
        if len > HEADERS_LEN_MAX {
            return Err(HeaderError::TooLong(len));
        }
        let mut text = String::with_capacity(len);
        for (name, value) in headers {
            text.extend([name, ":", value, "\n"]);
        }
        Ok(Self((len > 0).then(|| Arc::new(text.into()))))
    }
}

/// Whether a text is a `traceparent`: version, trace id, parent id and flags in lower-case hexadecimal digits, `00-<32>-<16>-<2>`, with ids that are
/// not zero. Of a later version more may follow behind a `-`.
fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((first, rest)) = bytes.split_at_checked(55) else { return false };
    let digits = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &[u8]| digits(part) && part.iter().any(|byte| *byte != b'0');
    let version = &first[..2];
    digits(version)
        && version != b"ff"
        && (rest.is_empty() || (version != b"00" && rest[0] == b'-'))
        && (first[2], first[35], first[52]) == (b'-', b'-', b'-')
        && is_id(&first[3..35])
        && is_id(&first[36..52])
        && digits(&first[53..])
}

/// Values may be secrets, so that only names are shown.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// Checks a list as it stands in a frame.
fn check(text: &str) -> Result<(), HeaderError> {
    if text.len() > HEADERS_LEN_MAX {
        return Err(HeaderError::TooLong(text.len()));
    }
    let Some(lines) = text.strip_suffix('\n') else {
        return Err(HeaderError::Malformed("a line has no end"));
    };
    let (mut before, mut count) = ("", 0);
    for line in lines.split('\n') {
        let (name, value) =
            line.split_once(':').ok_or(HeaderError::Malformed("a line has no name and value"))?;
        if checked_name(name)? != name {
            return Err(HeaderError::Malformed("a name has an upper-case letter"));
        }
        if name <= before {
            return Err(HeaderError::Malformed("the names do not rise"));
        }
        check_value(name, value)?;
        count += 1;
        if count > HEADERS_MAX {
            return Err(HeaderError::TooMany);
        }
        before = name;
    }
    Ok(())
}

/// The name in lower case, if it is one.
fn checked_name(name: &str) -> Result<Cow<'_, str>, HeaderError> {
    if name.len() > HEADER_NAME_LEN_MAX {
        return Err(HeaderError::NameTooLong(name.len()));
    }
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_of_name) {
        return Err(HeaderError::Name(name.to_owned()));
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(name.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(name))
}

fn check_free(name: &str) -> Result<(), HeaderError> {
    if name.starts_with(RESERVED) { Err(HeaderError::Reserved(name.to_owned())) } else { Ok(()) }
}

fn check_value(name: &str, value: &str) -> Result<(), HeaderError> {
    if value.len() > HEADER_VALUE_LEN_MAX {
        return Err(HeaderError::ValueTooLong(name.to_owned(), value.len()));
    }
    // Control characters of ASCII, each of which is one byte.
    match value.bytes().find(|byte| byte.is_ascii_control() && *byte != b'\t') {
        Some(control) => Err(HeaderError::Value(name.to_owned(), control.into())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(pairs: &[(&str, &str)]) -> Headers {
        Headers::of(pairs.iter().copied()).expect("they are headers")
    }

    #[test]
    fn a_name_has_one_value_and_upper_case_means_lower_case() {
        let mut headers = list(&[("b", "1"), ("Tenant", "x")]);
        headers.insert("TENANT", "y").unwrap();
        headers.insert("a", "").unwrap();
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", ""), ("b", "1"), ("tenant", "y")]);
        assert_eq!((headers.get("Tenant"), headers.text()), (Some("y"), "a:\nb:1\ntenant:y\n"));
        headers.remove("B");
        headers.remove("none");
        assert_eq!((headers.count(), headers.len()), (2, "a:\ntenant:y\n".len()));
        headers.remove("a");
        headers.remove("tenant");
        assert!(headers.is_empty() && headers == Headers::none());
    }

    #[test]
    fn a_trace_is_passed_on_if_its_parent_has_the_shape_of_one() {
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace =
            |parent: &str| list(&[("tenant", "a"), ("traceparent", parent), ("tracestate", "x=1")]).trace();
        assert_eq!(trace(GOOD), list(&[("traceparent", GOOD), ("tracestate", "x=1")]));
        let later = format!("cc{}-what-comes-later", &GOOD[2..]);
        assert_eq!(trace(&later).traceparent(), Some(&*later));
        let bad = [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-more"),
            format!("cc{}more", &GOOD[2..]),
            format!("ff{}", &GOOD[2..]),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("-01", "-0g"),
            "é".repeat(28),
        ];
        for bad in bad {
            assert_eq!(trace(&bad), Headers::none(), "{bad:?}");
        }
        assert_eq!(list(&[("tracestate", "x=1"), ("tenant", "a")]).trace(), Headers::none());
    }

    #[test]
    fn a_list_is_extended_by_all_of_another_one_or_stays() {
        let mut headers = list(&[("a", "1"), ("b", "2")]);
        headers.extend(&list(&[("b", "3"), ("c", "4")])).unwrap();
        assert_eq!(headers, list(&[("a", "1"), ("b", "3"), ("c", "4")]));
        let mut none = Headers::none();
        none.extend(&headers).unwrap();
        assert_eq!(none, headers);
        let names: Vec<_> = (0..HEADERS_MAX).map(|number| format!("n{number}")).collect();
        let full = Headers::of(names.iter().map(|name| (&**name, ""))).unwrap();
        assert!(headers.extend(&full).is_err());
        assert_eq!(none, headers, "they are as they were");
    }

    #[test]
    fn names_of_meshwork_are_for_meshwork_alone() {
        let mut headers = Headers::none();
        assert_eq!(headers.insert("Mesh-Key", "a"), Err(HeaderError::Reserved("mesh-key".into())));
        assert_eq!(Headers::of([("mesh-any", "a")]), Err(HeaderError::Reserved("mesh-any".into())));
        headers.insert_own(Headers::KEY, "a").unwrap();
        // They come from outside as any other: a node that is newer may know more of them.
        assert_eq!(Headers::read(headers.text()), Ok(headers));
    }

    #[test]
    fn what_is_no_header_is_refused_and_says_why() {
        let mut headers = list(&[("a", "1")]);
        for name in ["", "a b", "a:b", "ä", "a\n", "a=b", "a\0"] {
            assert_eq!(headers.insert(name, "x"), Err(HeaderError::Name(name.into())));
        }
        for value in ["\n", "a\r\nb:c", "\0", "\u{7f}"] {
            assert!(matches!(headers.insert("x", value), Err(HeaderError::Value(..))), "{value:?}");
        }
        headers.insert("x", "\tgrün: 100 % ☃ ").unwrap();
        assert_eq!(headers.get("x"), Some("\tgrün: 100 % ☃ "));
        let twice = Headers::of([("a", "1"), ("A", "2")]);
        assert!(twice.unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn the_bounds_of_headers_hold() {
        let (longest_name, longest_value) =
            ("n".repeat(HEADER_NAME_LEN_MAX), "v".repeat(HEADER_VALUE_LEN_MAX));
        let mut headers = list(&[(&longest_name, &longest_value)]);
        assert_eq!(
            headers.insert(&format!("{longest_name}n"), ""),
            Err(HeaderError::NameTooLong(HEADER_NAME_LEN_MAX + 1))
        );
        let too_long = headers.insert("a", &format!("{longest_value}v"));
        assert_eq!(too_long, Err(HeaderError::ValueTooLong("a".into(), HEADER_VALUE_LEN_MAX + 1)));
        let rest = HEADERS_LEN_MAX - headers.len() - "a:\n".len();
        let too_long = headers.insert("a", &"v".repeat(rest + 1));
        assert_eq!(too_long, Err(HeaderError::TooLong(HEADERS_LEN_MAX + 1)));
        headers.insert("a", &"v".repeat(rest)).unwrap();
        assert_eq!(headers.len(), HEADERS_LEN_MAX);
        assert_eq!(Headers::read(headers.text()), Ok(headers.clone()));
        let longer = format!("{}z:\n", headers.text());
        assert_eq!(Headers::read(&longer), Err(HeaderError::TooLong(HEADERS_LEN_MAX + 3)));

        let names: Vec<_> = (0..=HEADERS_MAX).map(|number| format!("n{number:02}")).collect();
        let pairs = |count| names.iter().take(count).map(|name| (&**name, "1"));
        let mut most = Headers::of(pairs(HEADERS_MAX)).unwrap();
        assert_eq!(Headers::of(pairs(HEADERS_MAX + 1)), Err(HeaderError::TooMany));
        assert_eq!(most.insert("z", ""), Err(HeaderError::TooMany));
        most.insert("n00", "another").unwrap();
        assert_eq!(most.count(), HEADERS_MAX);
        assert_eq!(Headers::read(&format!("{}z:\n", most.text())), Err(HeaderError::TooMany));
    }

    #[test]
    fn a_list_from_outside_has_one_form() {
        for text in ["", "a", "a:1", "\n", ":1\n", "a\n", "b:\na:\n", "a:\na:\n", "A:\n", "a:\n\n", "a:\r\n"]
        {
            assert!(Headers::read(text).is_err(), "{text:?}");
        }
        assert_eq!(Headers::read("a::\nb:\n").unwrap().iter().collect::<Vec<_>>(), [("a", ":"), ("b", "")]);
    }

    #[test]
    fn values_stay_out_of_logs() {
        let shown = format!("{:?}", list(&[("authorization", "secret")]));
        assert!(shown.contains("authorization") && !shown.contains("secret"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_that_is_written_as_it_was_read_or_an_error(text in "[a-c:\n\t]{0,20}|\\PC{0,20}") {
            if let Ok(headers) = Headers::read(&text) {
                let pairs: Vec<_> = headers.iter().collect();
                prop_assert_eq!(headers.text(), text.as_str());
                prop_assert_eq!(Headers::of(pairs), Ok(headers.clone()));
            }
        }

        #[test]
        fn headers_are_those_that_were_inserted(pairs in proptest::collection::vec(("[a-e]{1,2}", "[a-z: ]{0,9}"), 0..20)) {
            let (mut headers, mut model) = (Headers::none(), std::collections::BTreeMap::new());
            for (name, value) in &pairs {
                headers.insert(name, value).unwrap();
                model.insert(name.as_str(), value.as_str());
            }
            prop_assert!(headers.iter().eq(model.iter().map(|(name, value)| (*name, *value))));
            prop_assert!(headers.is_empty() || Headers::read(headers.text()) == Ok(headers.clone()));
        }
    }
}

//! [`Payload`], [`Function`] and [`CallError`], in one file since each is part of the others: a payload is a user's bytes with the
//! functions that travel beside them, a call of a function takes a payload and ends with a payload or an error, and an error may hold
//! a payload.
//!
//! Bytes are written and read in `value.rs`; `function.rs` takes functions out of a value that is written, and puts them into a value
//! that is read. Whether a function is a closure or calls over a link is the business of `meshwork` and `meshwork-actors`.

use crate::encoding::Encoding;
use crate::error::{ApplicationCode, Code, FIRST_OF_APPLICATIONS, Fate, cut_at};
use crate::headers::HeaderError;
use crate::id::CallbackId;
use crate::label::LabelError;
use crate::limits::{ERROR_MESSAGE_LEN_MAX, ERROR_NAME_LEN_MAX};
use crate::name::NameError;
use crate::pattern::PatternError;
use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A user's value as bytes, with the encoding that they were written in. A relay does not open it. Cloning it
/// shares the bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Payload {
    /// How the bytes were written.
    pub encoding: Encoding,
    /// The bytes.
    pub bytes: Bytes,
    /// The functions in the value: the bytes hold indexes into this list, so a relay can rewrite ids unopened.
    pub callbacks: Callbacks,
}

/// A borrowed [`Payload`], read without a copy.
#[derive(Clone, Copy, Debug)]
pub struct PayloadRef<'a> {
    /// How the bytes were written.
    pub encoding: Encoding,
    /// The bytes.
    pub bytes: &'a [u8],
    /// The functions in the value.
    pub callbacks: &'a Callbacks,
}

/// The functions of a payload, in the order of their indexes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Callbacks(Option<Arc<[Passed]>>);

/// A function in a payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Passed {
    /// A function that this process can call.
    Here(Function),
    /// A function as it stands in a frame: the number that its lender drew.
    Lent(CallbackId),
}

/// A handle on a function. Clones are handles on one function; it ends with its last handle.
#[derive(Clone)]
pub struct Function(Arc<dyn Callable>);

/// The body of a function. It may be called from any thread, any number of times, and several times at once.
pub trait Callable: Send + Sync + 'static {
    /// Calls the function. The caller drops the future when it waits no more, which may be at any time.
    fn invoke(&self, invocation: Invocation) -> Invoked;

    /// The encoding for the arguments of a call: the encoding that the lender reads.
    fn encoding(&self) -> Encoding {
        Encoding::MessagePack
    }

    /// The body itself, for a node that lends the function on: it can tell a function that came over a link. Default: none.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// A call of a function.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The arguments.
    pub arguments: Payload,
    /// How long the caller waits; `None` for ever.
    pub within: Option<Duration>,
    /// The part of the outcome that the caller waits for.
    pub wants: Wants,
}

/// The part of the outcome that the caller of a function waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Wants {
    /// The result.
    #[default]
    Result,
    /// Only the end: the result is `()`. The call of a function in a protocol that tells no result ends when it has been sent.
    End,
    /// Nothing: not even whether the function was called.
    Nothing,
    /// The items of a stream, of which so many may come at first, and its end.
    Stream(Grant),
}

/// How many items of a stream its consumer takes more, and how many bytes of items. An item may leave while something of both is left,
/// however long it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Grant {
    /// How many items.
    pub items: u32,
    /// How many bytes of their payloads.
    pub bytes: u32,
}

/// The outcome of a call of a function, to be awaited.
pub type Invoked = Pin<Box<dyn Future<Output = Result<Payload, CallError>> + Send>>;

/// Why a call failed. One pointer wide, so that a `Result` with this error stays small.
///
/// An error of meshwork has a [`code`](CallError::code) and a sentence. An error of an application has the code [`Code::UNKNOWN`], and a name,
/// a message, a code ([`application_code`](CallError::application_code)) and data of the application, which are kept on the whole way.
#[derive(Clone, Debug)]
pub struct CallError(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    /// [`Code::UNKNOWN`] if there is an application code.
    code: Code,
    fate: Fate,
    application_code: Option<ApplicationCode>,
    name: ByteString,
    message: ByteString,
    /// The data of the application; or all that a program of another language threw.
    held: Option<Payload>,
    is_thrown: bool,
    /// The data in a value that was thrown, once they have been asked for.
    found: OnceLock<Option<Payload>>,
}

impl CallError {
    /// What the error of a call says of an action or a function that answers with a stream.
    const ANSWERS_WITH_STREAM: &str = "answers with a stream: read it with `stream`";

    /// The error of a call of what answers with a stream. Nothing was run.
    #[doc(hidden)]
    #[cold]
    pub fn answers_with_stream(what: &dyn fmt::Display) -> Self {
        Self::new(Code::CANNOT_DECODE, Fate::NotSent, format!("{what} {}", Self::ANSWERS_WITH_STREAM))
    }

    /// Whether nothing was run, since what was called answers with a stream.
    pub(crate) fn is_of_stream(&self) -> bool {
        self.code() == Code::CANNOT_DECODE
            && self.fate() == Fate::NotSent
            && self.message().ends_with(Self::ANSWERS_WITH_STREAM)
    }
}

impl Payload {
    /// A payload of bytes that are encoded already, without functions.
    #[must_use]
    pub fn new(encoding: Encoding, bytes: impl Into<Bytes>) -> Self {
        Self { encoding, bytes: bytes.into(), callbacks: Callbacks::none() }
    }

    /// How many bytes the payload takes in a frame, the head not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the payload has no bytes, as a `()` in bincode.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<'a> From<&'a Payload> for PayloadRef<'a> {
    #[inline]
    fn from(Payload { encoding, bytes, callbacks }: &'a Payload) -> Self {
        Self { encoding: *encoding, bytes, callbacks }
    }
}

impl Callbacks {
    /// No functions. Costs nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The functions of a payload, in the order of their indexes.
    #[doc(hidden)]
    pub fn new(passed: impl IntoIterator<Item = Passed>) -> Self {
        let passed: Arc<[_]> = passed.into_iter().collect();
        Self((!passed.is_empty()).then_some(passed))
    }

    /// The functions, in the order of their indexes.
    #[doc(hidden)]
    pub fn iter(&self) -> std::slice::Iter<'_, Passed> {
        self.0.as_deref().unwrap_or_default().iter()
    }

    /// How many functions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_deref().map_or(0, <[_]>::len)
    }

    /// Whether there are no functions.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The numbers under which the functions are lent, as a frame carries them. A function that is not lent has a number that is
    /// never drawn, so that a call of it fails.
    #[doc(hidden)]
    #[must_use]
    pub fn ids(&self) -> Vec<CallbackId> {
        let id = |passed: &Passed| match passed {
            Passed::Lent(id) => *id,
            Passed::Here(_) => CallbackId(u64::MAX),
        };
        self.iter().map(id).collect()
    }
}

impl FromIterator<CallbackId> for Callbacks {
    fn from_iter<T: IntoIterator<Item = CallbackId>>(ids: T) -> Self {
        Self::new(ids.into_iter().map(Passed::Lent))
    }
}

impl<'a> IntoIterator for &'a Callbacks {
    type Item = &'a Passed;
    type IntoIter = std::slice::Iter<'a, Passed>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl Function {
    /// A function with this body.
    pub fn new(callable: impl Callable) -> Self {
        Self(Arc::new(callable))
    }

    /// Calls the function.
    pub fn invoke(&self, invocation: Invocation) -> Invoked {
        self.0.invoke(invocation)
    }

    /// The encoding for the arguments of a call.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.0.encoding()
    }

    /// The body of the function, if it shows itself: see [`Callable::as_any`].
    #[must_use]
    pub fn as_any(&self) -> Option<&dyn Any> {
        self.0.as_any()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Function {}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

impl CallError {
    /// An error of meshwork itself, with the name of its code. A message longer than
    /// [`ERROR_MESSAGE_LEN_MAX`](crate::limits::ERROR_MESSAGE_LEN_MAX) is cut.
    #[must_use]
    pub fn new(code: Code, fate: Fate, message: impl Into<ByteString>) -> Self {
        let name = code.name().map_or_else(ByteString::new, ByteString::from_static);
        Self::named(code, fate, name, message)
    }

    /// An error with a name of the application. The name is cut to [`ERROR_NAME_LEN_MAX`](crate::limits::ERROR_NAME_LEN_MAX), the message
    /// to [`ERROR_MESSAGE_LEN_MAX`](crate::limits::ERROR_MESSAGE_LEN_MAX).
    ///
    /// A `code` from 1,000 on is an [`ApplicationCode`], as earlier versions have it.
    #[must_use]
    pub fn named(
        code: Code,
        fate: Fate,
        name: impl Into<ByteString>,
        message: impl Into<ByteString>,
    ) -> Self {
        let (code, application_code) = match code {
            Code(number @ FIRST_OF_APPLICATIONS..) => (Code::UNKNOWN, Some(number.into())),
            code => (code, None),
        };
        let (name, message) =
            (cut(name.into(), ERROR_NAME_LEN_MAX), cut(message.into(), ERROR_MESSAGE_LEN_MAX));
        let (held, is_thrown, found) = (None, false, OnceLock::new());
        Self(Box::new(Parts { code, fate, application_code, name, message, held, is_thrown, found }))
    }

    /// [`CallError::named`] with copies of these texts: an error may be kept for long, and does not keep the buffer of its frame alive.
    pub(crate) fn of_texts(code: Code, fate: Fate, name: &str, message: &str) -> Self {
        // A text is cut before it is copied, however long it is.
        let name = &name[..cut_at(name, ERROR_NAME_LEN_MAX)];
        let message = &message[..cut_at(message, ERROR_MESSAGE_LEN_MAX)];
        Self::named(code, fate, name.to_owned(), message.to_owned())
    }

    /// Sets data of the application.
    #[must_use]
    pub fn with_data(mut self, data: Payload) -> Self {
        self.hold(Some(data), false);
        self
    }

    /// Changes the data of the application.
    pub(crate) fn change_data(&mut self, change: impl FnOnce(&mut Payload)) {
        if let Some(data) = &mut self.0.held {
            change(data);
        }
    }

    /// Sets another fate, where the error of one call becomes the outcome of another call.
    #[must_use]
    pub fn with_fate(mut self, fate: Fate) -> Self {
        self.0.fate = fate;
        self
    }

    /// The number of the error, if it is one of meshwork; [`Code::UNKNOWN`] if it is one of an application.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The code that the application gave its error. It is never one of meshwork, even if its number is.
    #[must_use]
    pub fn application_code(&self) -> Option<&ApplicationCode> {
        self.0.application_code.as_ref()
    }

    /// What became of the action.
    #[must_use]
    pub fn fate(&self) -> Fate {
        self.0.fate
    }

    /// The name of the code, or a name of the application.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The sentence for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The payload that travels with the error: the data of the application, or all that was thrown.
    pub(crate) fn held(&self) -> Option<&Payload> {
        self.0.held.as_ref()
    }

    /// Whether the payload is all that a program of another language threw.
    pub(crate) fn is_thrown(&self) -> bool {
        self.0.is_thrown
    }

    pub(crate) fn hold(&mut self, held: Option<Payload>, is_thrown: bool) {
        let parts = &mut *self.0;
        (parts.held, parts.is_thrown, parts.found) = (held, is_thrown, OnceLock::new());
    }

    /// Makes the error one of an application, with this code or none.
    pub(crate) fn set_application_code(&mut self, code: Option<ApplicationCode>) {
        (self.0.code, self.0.application_code) = (Code::UNKNOWN, code.map(ApplicationCode::in_one_form));
    }

    /// The data in what was thrown; `find` is asked once.
    pub(crate) fn found(&self, find: impl FnOnce() -> Option<Payload>) -> Option<&Payload> {
        self.0.found.get_or_init(find).as_ref()
    }

    /// The number that stands for this error where codes of applications are not known; none if the error has no such form.
    pub(crate) fn earlier_code(&self) -> Option<Code> {
        let Parts { code, application_code, is_thrown, .. } = &*self.0;
        match application_code {
            _ if *is_thrown => None,
            None => Some(*code),
            Some(ApplicationCode::Integer(number)) => {
                u32::try_from(*number).ok().filter(|number| *number >= FIRST_OF_APPLICATIONS).map(Code)
            }
            Some(_) => None,
        }
    }

    /// The nearest error that a node of an earlier version understands; none if it understands this one. A code that is no number from
    /// 1,000 on is left out there, and a text stands as the name where the error has no name of its own.
    #[must_use]
    pub fn for_earlier_version(&self) -> Option<Self> {
        if self.earlier_code().is_some() {
            return None;
        }
        let mut earlier = self.clone();
        let parts = &mut *earlier.0;
        parts.is_thrown = false;
        match parts.application_code.take() {
            Some(ApplicationCode::Text(code)) if ["", "Error"].contains(&&*parts.name) => parts.name = code,
            code => {
                parts.application_code = code;
                if earlier.earlier_code().is_none() {
                    earlier.0.application_code = None;
                }
            }
        }
        Some(earlier)
    }
}

impl PartialEq for CallError {
    fn eq(&self, other: &Self) -> bool {
        // What was found in a thrown value follows from the value.
        let Parts { code, fate, application_code, name, message, held, is_thrown, found: _ } = &*self.0;
        (*code, *fate, *is_thrown) == (other.0.code, other.0.fate, other.0.is_thrown)
            && (name, message) == (&other.0.name, &other.0.message)
            && (application_code, held) == (&other.0.application_code, &other.0.held)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { code, fate, name, message, .. } = &*self.0;
        if name.is_empty() {
            write!(f, "{code}")?
        } else {
            f.write_str(name)?
        }
        write!(f, " ({fate}): {message}")
    }
}

impl std::error::Error for CallError {}

fn cut(text: ByteString, len_max: usize) -> ByteString {
    match cut_at(&text, len_max) {
        len if len < text.len() => ByteString::from(&text[..len]),
        _ => text,
    }
}

impl From<HeaderError> for CallError {
    fn from(error: HeaderError) -> Self {
        let code = match error {
            HeaderError::Name(_) | HeaderError::NameTooLong(_) | HeaderError::Reserved(_) => Code::BAD_NAME,
            _ => Code::CANNOT_ENCODE,
        };
        CallError::new(code, Fate::NotSent, error.to_string())
    }
}

impl From<LabelError> for CallError {
    fn from(error: LabelError) -> Self {
        CallError::new(Code::BAD_NAME, Fate::NotSent, error.to_string())
    }
}

impl From<NameError> for CallError {
    fn from(error: NameError) -> Self {
        CallError::new(Code::BAD_NAME, Fate::NotSent, error.to_string())
    }
}

impl From<PatternError> for CallError {
    fn from(error: PatternError) -> Self {
        CallError::new(Code::BAD_NAME, Fate::NotSent, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_name_its_fate_and_its_message() {
        let error = CallError::new(Code::OVERLOADED, Fate::NotSent, "65536 calls are in flight");
        assert_eq!(error.to_string(), "OVERLOADED (not sent): 65536 calls are in flight");
        let error = CallError::named(Code(1200), Fate::Failed, "OutOfStock", "none left");
        assert_eq!(error.to_string(), "OutOfStock (failed): none left");
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let error = CallError::new(Code::UNKNOWN, Fate::Failed, "ü".repeat(ERROR_MESSAGE_LEN_MAX));
        assert_eq!(error.message().len(), ERROR_MESSAGE_LEN_MAX);
        let error =
            CallError::new(Code::UNKNOWN, Fate::Failed, format!("x{}", "ü".repeat(ERROR_MESSAGE_LEN_MAX)));
        assert_eq!(error.message().len(), ERROR_MESSAGE_LEN_MAX - 1);
    }

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Result<(), CallError>>(), size_of::<usize>());
    }
}

//! [`ActionError`], the error of an action, and what becomes one by `?`.
//!
//! There is no conversion from every `std::error::Error`: it would forbid a program to say itself what becomes of its own error types. The
//! errors of the standard library, of tokio, actix and serde_json become action errors by `?`; [`OrActionError`] is for all others.

use meshwork_actors::branch::BindError;
use meshwork_actors::gateway::bridge::BridgeError;
use meshwork_actors::link::AddressError;
use meshwork_actors::log_line;
use meshwork_actors::master::ListenError;
use meshwork_actors::repeated::Repeated;
use meshwork_wire::{
    ApplicationCode, ByteString, CallError, Code, DecodeError, EncodeError, Encoding, Fate, NameError,
    PatternError, Payload,
};
use serde::{Serialize, de::DeserializeOwned};
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use tokio::time::Instant;

/// The error of an action, made by its responder. The caller gets a [`CallError`] with [`Fate::Failed`] and with the code, name,
/// message and data of this error, in whichever language the caller is written.
///
/// ```
/// use meshwork::{ActionError, CallError};
///
/// let error = ActionError::new("OutOfStock", "none left").with_code("E_STOCK").with_data(&["blue", "red"]);
/// assert_eq!(error.code(), Some(&"E_STOCK".into()));
/// assert_eq!(ActionError::new("OutOfStock", "none left").with_code(-7).code(), Some(&(-7).into()));
///
/// let caught = CallError::from(error); // as the caller has it
/// assert_eq!((caught.name(), caught.message()), ("OutOfStock", "none left"));
/// assert_eq!(caught.application_code(), Some(&"E_STOCK".into()));
/// assert_eq!(caught.data_as::<Vec<String>>().unwrap(), ["blue", "red"]);
/// ```
///
/// `?` turns the errors of the standard library, of tokio, actix and serde_json into an `ActionError` whose message is the text of the error.
/// It has no code. With the feature `anyhow`, an `anyhow::Error` too. For the errors of other crates there is [`OrActionError`].
///
/// ```
/// # use meshwork::ActionError;
/// fn parse(text: &str) -> Result<u8, ActionError> {
///     Ok(text.parse()?)
/// }
/// assert_eq!(parse("x").unwrap_err().message(), "invalid digit found in string");
/// ```
///
/// A [`CallError`] of a call that the responder made itself keeps its code, name, message and data by `?`.
///
/// # An error type of your own
///
/// An enum becomes one by `#[derive(MeshError)]`: see [`macro@crate::MeshError`]. By hand: say with `From` what becomes of it, and with another
/// `From` what a caller makes of the error of a call; then `?` works at both ends.
///
/// ```
/// use meshwork::prelude::*;
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Missing { sku: String, left: u32 }
///
/// #[derive(Debug)]
/// enum StockError {
///     Missing(Missing),
///     /// The call failed in another way.
///     Call(CallError),
/// }
///
/// impl From<StockError> for ActionError {
///     fn from(error: StockError) -> Self {
///         match error {
///             StockError::Missing(missing) => {
///                 let message = format!("{} of {} are left", missing.left, missing.sku);
///                 ActionError::new("OutOfStock", message).with_code(2).with_data(&missing)
///             }
///             StockError::Call(error) => error.into(),
///         }
///     }
/// }
///
/// impl From<CallError> for StockError {
///     fn from(error: CallError) -> Self {
///         match error.data_as() {
///             Ok(missing) if error.name() == "OutOfStock" => StockError::Missing(missing),
///             _ => StockError::Call(error),
///         }
///     }
/// }
///
/// // It may be an `Error` as well.
/// impl std::error::Error for StockError {}
/// impl std::fmt::Display for StockError {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, "{self:?}")
///     }
/// }
///
/// fn take(left: u32) -> Result<u32, StockError> {
///     left.checked_sub(5).ok_or_else(|| StockError::Missing(Missing { sku: "a7".into(), left }))
/// }
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let master = MasterActor::new("master").start();
/// let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
/// let stock = BranchActor::new("stock")
///     .respond("take", |left: u32| async move { Ok(take(left)?) })
///     .bind(&address)
///     .await?;
/// let branch = BranchActor::new("branch").bind(address).await?;
///
/// let error = branch.call::<u32>("take", 3_u32).failing_as::<StockError>().await.unwrap_err();
/// assert!(matches!(error, StockError::Missing(missing) if missing == Missing { sku: "a7".into(), left: 3 }));
/// # drop(stock);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct ActionError(pub(crate) CallError);

impl ActionError {
    /// An error with a name for programs and a message for people, without a code. The name is cut at 4 KiB, the message at 32 KiB.
    #[must_use]
    pub fn new(name: impl Into<ByteString>, message: impl Into<ByteString>) -> Self {
        Self(CallError::named(Code::UNKNOWN, Fate::Failed, name, message))
    }

    /// An error with the text of another one as its message. A [`CallError`] and an `ActionError` stay what they are.
    #[must_use]
    pub fn from_error(error: impl Error + 'static) -> Self {
        of_boxed(&error)
    }

    /// Sets the code of the application: any number, or a text. It never means anything to meshwork.
    #[must_use]
    pub fn with_code(self, code: impl Into<ApplicationCode>) -> Self {
        Self(self.0.with_application_code(code))
    }

    /// Adds data, which travel as MessagePack so that every caller can read them. A program of another language gets the fields of the data
    /// beside name, message and code; data that are no object, or that have fields of these names, as the field `data`. Data that cannot be
    /// encoded, or that hold a `Callback`, are left out, with a warning in the log.
    #[must_use]
    pub fn with_data<T: Serialize + ?Sized>(self, data: &T) -> Self {
        let why = match Payload::encode(Encoding::MessagePack, data) {
            Ok(data) if data.callbacks.is_empty() => return Self(self.0.with_data(data)),
            Ok(_) => "an error passes no callbacks".to_owned(),
            Err(error) => error.to_string(),
        };
        static LEFT_OUT: Repeated = Repeated::new();
        let line = LEFT_OUT.warn(Instant::now().into_std());
        log_line!(line, "the data of an error are left out: {why}");
        self
    }

    /// The code of the application, if it gave one.
    #[must_use]
    pub fn code(&self) -> Option<&ApplicationCode> {
        self.0.application_code()
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        self.0.message()
    }

    /// The data, if there are any: see [`CallError::data`].
    #[must_use]
    pub fn data(&self) -> Option<&Payload> {
        self.0.data()
    }

    /// The data as a value of this type.
    ///
    /// # Errors
    ///
    /// When the data are no `T`, or there are none and a `T` is not read from nothing, as an `Option` is.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.0.data_as()
    }
}

impl From<CallError> for ActionError {
    fn from(error: CallError) -> Self {
        Self(error.with_fate(Fate::Failed))
    }
}

impl From<ActionError> for CallError {
    fn from(ActionError(error): ActionError) -> Self {
        error
    }
}

impl AsRef<CallError> for ActionError {
    fn as_ref(&self) -> &CallError {
        &self.0
    }
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ActionError {}

/// Turns the errors of any crate into an [`ActionError`] in a responder.
///
/// ```
/// use meshwork::{ActionError, OrActionError};
/// # mod ink { #[derive(Debug)] pub struct OutOfInk;
/// #   impl std::fmt::Display for OutOfInk { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("out of ink") } }
/// #   impl std::error::Error for OutOfInk {}
/// #   pub fn print() -> Result<(), OutOfInk> { Err(OutOfInk) } }
///
/// fn print() -> Result<(), ActionError> {
///     ink::print().or_action_error()?;
///     Ok(())
/// }
/// assert_eq!(print().unwrap_err().message(), "out of ink");
/// ```
pub trait OrActionError<T> {
    /// The value, or an [`ActionError`] with the text of the error as its message: see [`ActionError::from_error`].
    ///
    /// # Errors
    ///
    /// The error of this result.
    fn or_action_error(self) -> Result<T, ActionError>;
}

impl<T, E: Error + 'static> OrActionError<T> for Result<T, E> {
    fn or_action_error(self) -> Result<T, ActionError> {
        self.map_err(ActionError::from_error)
    }
}

/// An error with nothing but a text.
fn of_text(text: impl Into<ByteString>) -> ActionError {
    ActionError(CallError::new(Code::UNKNOWN, Fate::Failed, text))
}

fn of_boxed(error: &(dyn Error + 'static)) -> ActionError {
    if let Some(error) = error.downcast_ref::<CallError>() {
        error.clone().into()
    } else if let Some(error) = error.downcast_ref::<ActionError>() {
        error.clone()
    } else {
        of_text(error.to_string())
    }
}

macro_rules! errors_become_action_errors {
    ($($({$T:ident})? $error:ty;)*) => {
        $(impl $(<$T>)? From<$error> for ActionError {
            fn from(error: $error) -> Self {
                of_text(error.to_string())
            }
        })*
    };
}

errors_become_action_errors! {
    String;
    &str;
    Cow<'_, str>;
    ByteString;

    std::io::Error;
    fmt::Error;
    std::alloc::LayoutError;
    std::array::TryFromSliceError;
    std::cell::BorrowError;
    std::cell::BorrowMutError;
    std::char::CharTryFromError;
    std::char::DecodeUtf16Error;
    std::char::ParseCharError;
    std::char::TryFromCharError;
    std::collections::TryReserveError;
    std::convert::Infallible;
    std::env::JoinPathsError;
    std::env::VarError;
    std::ffi::FromBytesUntilNulError;
    std::ffi::FromBytesWithNulError;
    std::ffi::IntoStringError;
    std::ffi::NulError;
    std::net::AddrParseError;
    std::num::ParseFloatError;
    std::num::ParseIntError;
    std::num::TryFromIntError;
    std::path::StripPrefixError;
    std::str::ParseBoolError;
    std::str::Utf8Error;
    std::string::FromUtf16Error;
    std::string::FromUtf8Error;
    std::sync::mpsc::RecvError;
    std::sync::mpsc::RecvTimeoutError;
    std::sync::mpsc::TryRecvError;
    {T} std::sync::mpsc::SendError<T>;
    {T} std::sync::mpsc::TrySendError<T>;
    {T} std::sync::PoisonError<T>;
    {T} std::sync::TryLockError<T>;
    std::thread::AccessError;
    std::time::SystemTimeError;
    std::time::TryFromFloatSecsError;

    tokio::sync::AcquireError;
    tokio::sync::TryAcquireError;
    tokio::sync::TryLockError;
    {T} tokio::sync::SetError<T>;
    tokio::sync::broadcast::error::RecvError;
    tokio::sync::broadcast::error::TryRecvError;
    {T} tokio::sync::broadcast::error::SendError<T>;
    tokio::sync::mpsc::error::TryRecvError;
    {T} tokio::sync::mpsc::error::SendError<T>;
    {T} tokio::sync::mpsc::error::TrySendError<T>;
    tokio::sync::oneshot::error::RecvError;
    tokio::sync::oneshot::error::TryRecvError;
    tokio::sync::watch::error::RecvError;
    {T} tokio::sync::watch::error::SendError<T>;
    tokio::task::JoinError;
    tokio::time::error::Elapsed;

    actix::MailboxError;
    {T} actix::dev::SendError<T>;

    serde_json::Error;

    AddressError;
    BindError;
    BridgeError;
    DecodeError;
    EncodeError;
    ListenError;
    NameError;
    PatternError;
}

impl From<Box<dyn Error + Send + Sync>> for ActionError {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        of_boxed(&*error)
    }
}

impl From<Box<dyn Error + Send>> for ActionError {
    fn from(error: Box<dyn Error + Send>) -> Self {
        of_boxed(&*error)
    }
}

impl From<Box<dyn Error>> for ActionError {
    fn from(error: Box<dyn Error>) -> Self {
        of_boxed(&*error)
    }
}

/// The message is that of the error and of its causes, in one line. A [`CallError`] or an [`ActionError`] in it stays what it is.
#[cfg(feature = "anyhow")]
impl From<anyhow::Error> for ActionError {
    fn from(error: anyhow::Error) -> Self {
        if let Some(error) = error.downcast_ref::<CallError>() {
            error.clone().into()
        } else if let Some(error) = error.downcast_ref::<ActionError>() {
            error.clone()
        } else {
            of_text(format!("{error:#}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// An error type of a program, which is an `Error` too: with a conversion from every `Error`, its own one would not compile.
    #[derive(Debug)]
    struct Mine(u8);

    impl fmt::Display for Mine {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "mine is {}", self.0)
        }
    }

    impl Error for Mine {}

    impl From<Mine> for ActionError {
        fn from(mine: Mine) -> Self {
            ActionError::new("Mine", mine.to_string()).with_code(mine.0).with_data(&[mine.0])
        }
    }

    /// What `?` makes of an error in a responder.
    fn failed<E>(error: E) -> ActionError
    where
        ActionError: From<E>,
    {
        let respond = |outcome: Result<(), E>| -> Result<(), ActionError> {
            outcome?;
            Ok(())
        };
        respond(Err(error)).unwrap_err()
    }

    #[test]
    fn an_error_type_of_a_program_becomes_what_the_program_says() {
        let error = failed(Mine(2));
        assert_eq!((error.name(), error.message(), error.code()), ("Mine", "mine is 2", Some(&2.into())));
        assert_eq!(error.data_as::<Vec<u8>>(), Ok(vec![2]));
        // It is its text where it says no more than any error.
        let plain = Err::<(), _>(Mine(3)).or_action_error().unwrap_err();
        assert_eq!((plain.message(), plain.code(), plain.data()), ("mine is 3", None, None));
    }

    /// They arrived as an object that stood in the place of a function, and of which no caller could make one.
    #[test]
    fn data_with_a_callback_are_left_out() {
        let callback = crate::Callback::new(|number: u64| number);
        let error = ActionError::new("Mine", "it is").with_data(&[1]).with_data(&(callback, 2));
        assert_eq!(error.data_as::<Vec<u8>>(), Ok(vec![1]));
    }

    #[test]
    fn the_errors_in_common_use_become_their_texts() {
        let io = std::io::Error::other("no disk");
        let parsed = "x".parse::<u8>().unwrap_err();
        let (_, receiver) = std::sync::mpsc::channel::<()>();
        let utf8 = String::from_utf8(vec![0xFF]).unwrap_err();
        let json = serde_json::from_str::<u8>("x").unwrap_err();
        for (error, text) in [
            (failed("a text"), "a text"),
            (failed("a text".to_owned()), "a text"),
            (failed(io), "no disk"),
            (failed(parsed), "invalid digit found in string"),
            (failed(u8::try_from(300).unwrap_err()), "out of range integral type conversion attempted"),
            (failed(receiver.recv().unwrap_err()), "receiving on a closed channel"),
            (failed(utf8.clone()), &utf8.to_string()),
            (failed(utf8.utf8_error()), &utf8.to_string()),
            (failed(actix::MailboxError::Timeout), "Message delivery timed out"),
            (failed(Box::<dyn Error>::from("boxed")), "boxed"),
            (failed(Box::<dyn Error + Send + Sync>::from("boxed")), "boxed"),
            (
                failed(Duration::try_from_secs_f64(-1.0).unwrap_err()),
                "cannot convert float seconds to Duration: value is negative",
            ),
            (failed(json), "expected value at line 1 column 1"),
        ] {
            assert_eq!((error.message(), error.name(), error.code()), (text, "UNKNOWN", None));
        }
    }

    fn of_a_call() -> CallError {
        CallError::from(ActionError::new("Theirs", "no").with_code("E_NO").with_data("why"))
            .with_fate(Fate::Unknown)
    }

    /// In a responder, the error of a call is that of the action: it failed, whatever became of the call.
    #[test]
    fn the_error_of_a_call_keeps_all_but_its_fate_on_every_way() {
        let expected = of_a_call().with_fate(Fate::Failed);
        let boxed: Box<dyn Error + Send + Sync> = Box::new(of_a_call());
        for error in [
            failed(of_a_call()),
            failed(boxed),
            Err::<(), _>(of_a_call()).or_action_error().unwrap_err(),
            Err::<(), _>(failed(of_a_call())).or_action_error().unwrap_err(),
            failed(Box::<dyn Error>::from(failed(of_a_call()))),
        ] {
            assert_eq!(CallError::from(error), expected);
        }
        let late = CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, "late");
        assert_eq!(failed(late).as_ref().code(), Code::REQUEST_TIMEOUT, "an error of meshwork stays one");
    }

    #[cfg(feature = "anyhow")]
    #[test]
    fn an_error_of_anyhow_tells_its_causes_and_keeps_the_error_of_a_call() {
        use anyhow::Context;

        let read = || "x".parse::<u8>().context("the count");
        let respond = || -> Result<u8, ActionError> { Ok(read()?) };
        assert_eq!(respond().unwrap_err().message(), "the count: invalid digit found in string");
        let call = || -> anyhow::Result<()> { Err(of_a_call()).context("asking the other") };
        let respond = || -> Result<(), ActionError> { Ok(call()?) };
        assert_eq!(CallError::from(respond().unwrap_err()), of_a_call().with_fate(Fate::Failed));
        let error = anyhow::Error::from(ActionError::new("Mine", "m").with_code(7));
        assert_eq!(failed(error).code(), Some(&7.into()));
    }

    #[test]
    fn data_that_are_not_there_are_nothing() {
        let error = ActionError::new("Bare", "nothing more");
        assert_eq!((error.data(), error.data_as::<Option<u8>>()), (None, Ok(None)));
        assert!(error.data_as::<u8>().is_err());
    }
}

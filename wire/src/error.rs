//! The numbers of a failed call: a stable [`Code`] of meshwork, the [`Fate`] of the action, and the [`ApplicationCode`] of an error that an
//! application made. `CallError`, which carries them, may hold a payload, so it is in `payload.rs`.

use crate::limits::ERROR_CODE_LEN_MAX;
use bytestring::ByteString;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// What happened to the action of a call that failed. It decides whether the call may be made again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Fate {
    /// The action did not run and will not: calling again is safe.
    NotSent,
    /// The request was sent, and its answer did not come: the action may have run, or may still run.
    Unknown,
    /// The action ran and failed, or its provider refused the call and says so. Calling again is a second call.
    Failed,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::NotSent => "not sent",
            Fate::Unknown => "may have run",
            Fate::Failed => "failed",
        })
    }
}

/// The number of an error of meshwork; 0 to 3 are those of node-mesh. The errors of applications have codes of their own, in a space of
/// their own: see [`ApplicationCode`]. Their `Code` is [`Code::UNKNOWN`].
///
/// On the wire, earlier versions write the number of an application, if it is 1,000 or more, in the place of this number; it is read as an
/// `ApplicationCode`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Code = Code($number);)*

            /// The stable upper-case name, for the codes of meshwork.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Success. No error has this code.
    SUCCESS = 0;
    /// The action failed and gave no code of its own.
    UNKNOWN = 1;
    /// The deadline passed before the reply came.
    REQUEST_TIMEOUT = 2;
    /// The bind was refused: wrong credentials, a name that is taken, another version.
    BIND_ERROR = 3;
    /// The connection did not bind, or its bind was not answered, within the bind deadline.
    BIND_TIMEOUT = 4;
    /// No node offers the action.
    ACTION_NOT_FOUND = 5;
    /// There is no room: too much in flight, a full outbox, no permit left.
    OVERLOADED = 6;
    /// The caller dropped the call.
    CANCELLED = 7;
    /// The provider went away before it answered.
    PROVIDER_LOST = 8;
    /// The caller's own link went away.
    LINK_LOST = 9;
    /// The permit of the caller does not cover this.
    NOT_PERMITTED = 10;
    /// The arguments or the reply are not of the expected shape.
    CANNOT_DECODE = 11;
    /// The arguments or the reply cannot be written in the encoding.
    CANNOT_ENCODE = 12;
    /// The responder panicked.
    PANICKED = 13;
    /// The node finishes the requests in flight and takes no more.
    DRAINING = 14;
    /// The arguments or the reply do not fit into a frame.
    FRAME_TOO_LARGE = 15;
    /// The name of an action, a topic, a pattern or a node is not one.
    BAD_NAME = 16;
    /// The callback that was called is gone.
    CALLBACK_GONE = 17;
    /// The request was relayed between meshes too often: it goes round.
    TOO_MANY_HOPS = 18;
    /// The circuit of the action is open: too many of its last calls failed, so this one was not made.
    CIRCUIT_OPEN = 19;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// The first number that earlier versions take for one of an application, in the place of a [`Code`].
pub(crate) const FIRST_OF_APPLICATIONS: u32 = 1_000;

/// The code that an application gave its error: a number or a text, as programs of other languages have it. It never means anything to
/// meshwork, whatever its value.
///
/// ```
/// use meshwork_wire::ApplicationCode;
///
/// let (number, text) = (ApplicationCode::from(-2), ApplicationCode::from("ENOENT"));
/// assert_eq!((number.as_integer(), text.as_text()), (Some(-2), Some("ENOENT")));
/// assert_eq!((number.to_string(), text.to_string()), ("-2".to_owned(), "ENOENT".to_owned()));
/// ```
#[derive(Clone, Debug)]
pub enum ApplicationCode {
    /// An integer. All integers of 64 bits keep their value in every dialect that has them.
    Integer(i128),
    /// A number that is no integer of at most 2^53. Smaller ones are an [`Integer`](Self::Integer) whichever way their programs write them:
    /// JavaScript has one kind of number.
    Float(f64),
    /// A text. Longer than [`ERROR_CODE_LEN_MAX`] it does not travel whole.
    Text(ByteString),
}

/// A code equals itself, also the one that is not a number: it says which error it was.
impl PartialEq for ApplicationCode {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(mine), Self::Integer(theirs)) => mine == theirs,
            (Self::Float(mine), Self::Float(theirs)) => mine == theirs || (mine.is_nan() && theirs.is_nan()),
            (Self::Text(mine), Self::Text(theirs)) => mine == theirs,
            (Self::Integer(_) | Self::Float(_) | Self::Text(_), _) => false,
        }
    }
}

impl Eq for ApplicationCode {}

impl ApplicationCode {
    /// The integer, if the code is one.
    #[must_use]
    pub fn as_integer(&self) -> Option<i128> {
        match self {
            Self::Integer(integer) => Some(*integer),
            Self::Float(_) | Self::Text(_) => None,
        }
    }

    /// The text, if the code is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Integer(_) | Self::Float(_) => None,
        }
    }

    /// The code in the one form that it has: a whole number as an integer, a text cut to the bound.
    pub(crate) fn in_one_form(self) -> Self {
        match self {
            Self::Float(number) => number.into(),
            Self::Text(text) => match cut_at(&text, ERROR_CODE_LEN_MAX) {
                len if len < text.len() => Self::Text(ByteString::from(&text[..len])),
                _ => Self::Text(text),
            },
            Self::Integer(number) => Self::Integer(number),
        }
    }
}

impl From<f64> for ApplicationCode {
    fn from(number: f64) -> Self {
        let is_negative_zero = number == 0.0 && number.is_sign_negative();
        if number.fract() == 0.0 && number.abs() <= INTEGER_OF_FLOAT_MAX && !is_negative_zero {
            // The cast of such a number is exact.
            Self::Integer(number as i128)
        } else {
            Self::Float(number)
        }
    }
}

impl From<f32> for ApplicationCode {
    fn from(number: f32) -> Self {
        f64::from(number).into()
    }
}

/// Up to here, each integer has a float of its own.
const INTEGER_OF_FLOAT_MAX: f64 = (1_u64 << 53) as f64;

impl fmt::Display for ApplicationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => integer.fmt(f),
            Self::Float(float) => float.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A number or a text, as its program wrote it.
impl Serialize for ApplicationCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Integer(integer) => match (u64::try_from(*integer), i64::try_from(*integer)) {
                (Ok(integer), _) => serializer.serialize_u64(integer),
                (_, Ok(integer)) => serializer.serialize_i64(integer),
                _ => serializer.serialize_i128(*integer),
            },
            Self::Float(float) => serializer.serialize_f64(*float),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

macro_rules! codes_from_integers {
    ($($number:ty)*) => {
        $(impl From<$number> for ApplicationCode {
            fn from(number: $number) -> Self {
                Self::Integer(number.into())
            }
        })*
    };
}

codes_from_integers! { i8 i16 i32 i64 i128 u8 u16 u32 u64 }

macro_rules! codes_from_sizes {
    ($($number:ty)*) => {
        $(impl From<$number> for ApplicationCode {
            fn from(number: $number) -> Self {
                // No size has more than 64 bits.
                Self::Integer(number as i128)
            }
        })*
    };
}

codes_from_sizes! { isize usize }

macro_rules! codes_from_texts {
    ($($text:ty)*) => {
        $(impl From<$text> for ApplicationCode {
            fn from(text: $text) -> Self {
                Self::Text(text.into())
            }
        })*
    };
}

codes_from_texts! { &str String ByteString }

impl From<&String> for ApplicationCode {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

/// How much of a text fits into so many bytes: whole characters only.
pub(crate) fn cut_at(text: &str, len_max: usize) -> usize {
    let mut len = text.len().min(len_max);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_one_number_however_it_is_written() {
        for (number, integer) in
            [(2.0, 2_i64), (-7.0, -7), (5e9, 5_000_000_000), (9_007_199_254_740_992.0, 1 << 53)]
        {
            assert_eq!(ApplicationCode::from(number), ApplicationCode::from(integer));
            assert_eq!(
                ApplicationCode::Float(number).in_one_form(),
                ApplicationCode::Integer(integer.into())
            );
        }
        for number in [0.5, -1e-300, 1e21, f64::MAX, f64::INFINITY] {
            assert_eq!(ApplicationCode::from(number), ApplicationCode::Float(number));
        }
        assert_eq!(ApplicationCode::from(-0.0).to_string(), "-0");
    }

    /// A frame with such a code was once unequal to itself.
    #[test]
    fn a_code_that_is_not_a_number_equals_itself() {
        assert_eq!(ApplicationCode::from(f64::NAN), ApplicationCode::Float(-f64::NAN));
        assert_ne!(ApplicationCode::from(f64::NAN), ApplicationCode::from(0.5));
        assert_ne!(ApplicationCode::from(0.5), ApplicationCode::from("0.5"));
    }

    #[test]
    fn the_numbers_of_the_seed_are_kept() {
        assert_eq!(Code::SUCCESS.0, 0);
        assert_eq!(Code::UNKNOWN.0, 1);
        assert_eq!(Code::REQUEST_TIMEOUT.0, 2);
        assert_eq!(Code::BIND_ERROR.0, 3);
    }
}

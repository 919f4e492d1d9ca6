//! Why an outbox refused a frame, and the error that the sender of the frame gets. This is the one place that makes an error of a
//! refusal.

use meshwork_wire::limits::{CALLBACKS_PER_CONNECTION_MAX, HOPS_MAX, PATTERNS_SHOWN_MAX};
use meshwork_wire::{CallError, Code, Fate, Pattern};
use std::fmt::Write;

/// Why an outbox did not take a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The outbox is full.
    Full,
    /// The link is closed or closing.
    Closed,
    /// The frame has `len` bytes, and the other end reads frames of at most `max` bytes.
    TooLong { len: usize, max: usize },
    /// The frame passes functions, and [`CALLBACKS_PER_CONNECTION_MAX`] functions are lent over the link already.
    TooMuchLent,
    /// The other end is of an earlier version, and does not read bincode with a check.
    OtherVersion,
    /// The other end is of an earlier version, and knows no streams.
    NoStreams,
    /// The master is of an earlier version or of another protocol, and gives a request to any provider.
    NoChoice,
}

/// The receiver of the frame that was refused: it decides the code, the fate and the words of the error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Receiver<'a> {
    /// The master, of a request of its branch.
    Master,
    /// The branch of this name, of a request that a master relays to it.
    Provider(&'a str),
    /// The node that lent a function, of a call of that function.
    Lender,
    /// The caller of an action, of the reply: the action ran.
    Caller,
    /// The consumer of a stream, of an item.
    Reader,
}

impl Refusal {
    /// The error that the sender of the frame gets.
    pub(crate) fn into_error(self, receiver: Receiver<'_>) -> CallError {
        let fate = match receiver {
            Receiver::Caller => Fate::Failed,
            // Its producer has begun, and is told to stop.
            Receiver::Reader => Fate::Unknown,
            Receiver::Master | Receiver::Provider(_) | Receiver::Lender => Fate::NotSent,
        };
        let (code, what) = match (self, receiver) {
            (Refusal::Full, Receiver::Caller) => {
                (Code::OVERLOADED, "the reply found no room: its caller does not read".to_owned())
            }
            (Refusal::Full, Receiver::Reader) => {
                (Code::OVERLOADED, "the stream is ended: what was sent of it is not read".to_owned())
            }
            (Refusal::Full, Receiver::Provider(name)) => {
                (Code::OVERLOADED, format!("the outbox of {name} is full"))
            }
            (Refusal::Full, Receiver::Master | Receiver::Lender) => {
                (Code::OVERLOADED, "the outbox is full".to_owned())
            }
            (Refusal::Closed, Receiver::Provider(name)) => (Code::PROVIDER_LOST, format!("{name} went away")),
            (Refusal::Closed, Receiver::Lender) => return gone("the node that lent it went away"),
            (Refusal::Closed, Receiver::Master | Receiver::Caller | Receiver::Reader) => {
                (Code::LINK_LOST, "the link is closing".to_owned())
            }
            (Refusal::TooMuchLent, _) => (
                Code::OVERLOADED,
                format!("{CALLBACKS_PER_CONNECTION_MAX} callbacks are lent over this link already"),
            ),
            (Refusal::OtherVersion, _) => (
                Code::CANNOT_ENCODE,
                "the provider is of an earlier version, and reads no bincode with a check: call again"
                    .to_owned(),
            ),
            (Refusal::NoStreams, Receiver::Provider(name)) => {
                (Code::CANNOT_ENCODE, format!("{name} is of an earlier version, which knows no streams"))
            }
            (Refusal::NoStreams, _) => (
                Code::CANNOT_ENCODE,
                "the other end of the link is of an earlier version, which knows no streams".to_owned(),
            ),
            (Refusal::NoChoice, _) => (
                Code::CANNOT_ENCODE,
                "the master is of an earlier version or of another protocol, and chooses no provider by key or label"
                    .to_owned(),
            ),
            (Refusal::TooLong { len, max }, Receiver::Reader) => (
                Code::FRAME_TOO_LARGE,
                format!("an item takes a frame of {len} bytes, and the link of its reader allows {max}"),
            ),
            (Refusal::TooLong { len, max }, Receiver::Caller) => (
                Code::FRAME_TOO_LARGE,
                format!("the reply takes a frame of {len} bytes, and the caller's link allows {max}"),
            ),
            (Refusal::TooLong { len, max }, _) => (Code::FRAME_TOO_LARGE, too_long(len, max)),
        };
        CallError::new(code, fate, what)
    }
}

/// The error of a branch that has no permission for what it asks: to call, offer, publish to or subscribe to a name.
#[cold]
pub(crate) fn not_permitted(what: &str, name: &str, allowed: &[Pattern]) -> CallError {
    CallError::new(Code::NOT_PERMITTED, Fate::NotSent, may_not(what, name, allowed))
}

/// Says that a branch may not do this, and for which names it may.
#[cold]
pub(crate) fn may_not(what: &str, name: &str, allowed: &[Pattern]) -> String {
    let mut said = format!("this branch may not {what} {name:?}: it may {what} ");
    if allowed.is_empty() {
        said.push_str("nothing");
    }
    for (at, pattern) in allowed.iter().take(PATTERNS_SHOWN_MAX).enumerate() {
        said.push_str(if at == 0 { "" } else { ", " });
        said.push_str(pattern.as_str());
    }
    if allowed.len() > PATTERNS_SHOWN_MAX {
        let _ = write!(said, " and {} more", allowed.len() - PATTERNS_SHOWN_MAX);
    }
    said
}

/// The error of a request that has come over too many hops.
#[cold]
pub(crate) fn too_many_hops(action: &str) -> CallError {
    let what = format!("the request for {action:?} goes round: {HOPS_MAX} hops between meshes lie behind it");
    CallError::new(Code::TOO_MANY_HOPS, Fate::NotSent, what)
}

/// The message of the error of a request that is too long.
pub(crate) fn too_long(len: usize, max: usize) -> String {
    format!("the request takes a frame of {len} bytes, and the link allows {max}")
}

/// The error of a request or an event that a link to the master would carry, while there is none.
pub(crate) fn link_down() -> CallError {
    CallError::new(Code::LINK_LOST, Fate::NotSent, "the link to the master is down")
}

/// The error of a call of a function that was passed as an argument and cannot be called any more.
pub(crate) fn gone(why: &str) -> CallError {
    CallError::new(Code::CALLBACK_GONE, Fate::NotSent, format!("the callback is gone: {why}"))
}

//! What every dialect is: it hears foreign bytes and takes frames of ours, and what it says in either direction is gathered until it leaves.

use crate::error::{Code, Fate};
use crate::frame::{Frame, Invoke, Refused, Response};
use crate::id::CallbackId;
use crate::limits::FOREIGN_BUFFER_LEN_MAX;
use crate::payload::{CallError, Passed, Payload};
use bytes::BytesMut;
use std::time::Instant;

/// A protocol of others, at one connection.
pub trait Dialect: Send + 'static {
    /// Says the first messages and frames of a connection that is open.
    fn begin(&mut self, now: Instant, said: &mut Said);

    /// Takes as many messages as it can from the bytes that came, unless it has so much to say that this should leave first.
    ///
    /// # Errors
    ///
    /// When the bytes are not of this protocol. All that was said before still leaves; then the connection is closed.
    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError>;

    /// Takes a frame of ours.
    ///
    /// # Errors
    ///
    /// When the connection is over, as after a refused bind.
    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) -> Result<(), DialectError>;

    /// Ends the calls whose deadlines have passed. Called about once a second.
    fn expire(&mut self, now: Instant, said: &mut Said);
}

/// The words of a dialect, in both directions, until they leave.
#[derive(Default, Debug)]
pub struct Said {
    /// To ours.
    pub frames: Vec<Frame>,
    /// To the outside.
    pub bytes: BytesMut,
    /// Whether more was heard than has been understood: so much has to be said first.
    pub enough: bool,
}

impl Said {
    /// Whether hearing should stop: the bytes that are said must leave before there are more of them.
    pub(crate) fn is_enough(&mut self) -> bool {
        self.enough = self.bytes.len() > FOREIGN_BUFFER_LEN_MAX;
        self.enough
    }

    /// Answers a request of ours.
    pub(crate) fn answer(&mut self, callback_id: CallbackId, outcome: Result<Payload, CallError>) {
        self.frames.push(Frame::Response(Response { callback_id, outcome }));
    }

    /// Gives back the functions of a payload.
    pub(crate) fn give_back(&mut self, payload: &Payload) {
        for passed in &payload.callbacks {
            if let Passed::Lent(id) = passed {
                self.frames.push(Frame::Release(*id));
            }
        }
    }

    /// For protocols that have no form for functions: gives them back, and refuses the payload that passes some.
    pub(crate) fn without_functions(&mut self, payload: &Payload, dialect: &str) -> Result<(), CallError> {
        if payload.callbacks.is_empty() {
            return Ok(());
        }
        self.give_back(payload);
        let what = format!("{dialect} passes no functions, and these arguments hold some");
        Err(CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, what))
    }

    /// An outcome for a protocol that has no form for functions.
    pub(crate) fn plain(
        &mut self,
        outcome: Result<Payload, CallError>,
        dialect: &str,
    ) -> Result<Payload, CallError> {
        let payload = outcome?;
        self.without_functions(&payload, dialect).map_err(|_| {
            let what = format!("{dialect} passes no functions, and the reply holds some");
            CallError::new(Code::CANNOT_ENCODE, Fate::Failed, what)
        })?;
        Ok(payload)
    }

    /// For protocols that have no form for functions: refuses the call of one, which was never lent.
    pub(crate) fn nobody_lent(&mut self, invoke: &Invoke, dialect: &str) {
        self.give_back(&invoke.payload);
        if let Some(callback_id) = invoke.callback_id {
            let what = format!("{dialect} passes no functions");
            self.answer(callback_id, Err(CallError::new(Code::CALLBACK_GONE, Fate::NotSent, what)));
        }
    }
}

/// Why a foreign connection is closed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum DialectError {
    /// A message claims, or has, more bytes than are allowed.
    #[error("a message of {claimed} bytes, and {max} are allowed; does the other end speak {dialect}?")]
    TooLong {
        /// Which protocol it should be.
        dialect: &'static str,
        /// How long it would be.
        claimed: usize,
        /// How long it may be.
        max: usize,
    },
    /// The bytes are none of its messages.
    #[error("this is not {dialect}: {what}")]
    Malformed {
        /// Which protocol it should be.
        dialect: &'static str,
        /// The fault.
        what: String,
    },
    /// Our end closes it, and it may come back.
    #[error("the connection is closed: {0}")]
    Closed(CallError),
    /// Our end wants it no more.
    #[error("the connection is refused: {0}")]
    Refused(CallError),
}

impl From<Refused> for DialectError {
    fn from(Refused { code, message, may_return }: Refused) -> Self {
        let error = CallError::new(code, Fate::NotSent, message);
        if may_return { Self::Closed(error) } else { Self::Refused(error) }
    }
}

//! [`Dialect`], the trait of all dialects: a dialect hears foreign bytes and takes frames. Its output in both directions is
//! gathered in a [`Said`] until it leaves.

use crate::error::{Code, Fate};
use crate::frame::{Features, Frame, Invoke, Refused, Response};
use crate::id::CallbackId;
use crate::limits::{FOREIGN_BUFFER_LEN_MAX, FOREIGN_NOTES_MAX};
use crate::payload::{CallError, Passed, Payload};
use bytes::BytesMut;
use std::time::Instant;

/// Another protocol, at one connection with a foreign program.
pub trait Dialect: Send + 'static {
    /// Says the first messages and frames, when the connection is open.
    fn begin(&mut self, now: Instant, said: &mut Said);

    /// Takes as many messages as it can from the received bytes. Stops early, with [`Said::enough`], when so many bytes are to
    /// be written that they should leave first.
    ///
    /// # Errors
    ///
    /// When the bytes are not of this protocol. The output gathered before still leaves; then the connection is closed.
    fn hear(&mut self, bytes: &mut BytesMut, now: Instant, said: &mut Said) -> Result<(), DialectError>;

    /// Takes a frame for the foreign program.
    ///
    /// # Errors
    ///
    /// When the connection is over, as after a refused bind.
    fn say(&mut self, frame: Frame, now: Instant, said: &mut Said) -> Result<(), DialectError>;

    /// What this dialect knows of the protocol, beside its forms: what the near end may say to it.
    fn features(&self) -> Features {
        Features::default()
    }

    /// Told what the near end knows of the protocol.
    fn near_knows(&mut self, features: Features) {
        let _ = features;
    }

    /// Told each time that all bytes that it has said have left, into the socket.
    fn left(&mut self, said: &mut Said) {
        let _ = said;
    }

    /// Ends the calls whose deadlines have passed. Called about once a second.
    fn expire(&mut self, now: Instant, said: &mut Said);
}

/// The output of a dialect, in both directions, until it leaves.
#[derive(Default, Debug)]
pub struct Said {
    /// Frames for the session or the branch at this end.
    pub frames: Vec<Frame>,
    /// Bytes for the foreign program.
    pub bytes: BytesMut,
    /// Sentences for the log of this end, at most [`FOREIGN_NOTES_MAX`].
    pub notes: Vec<String>,
    /// Whether messages were left unread, because `bytes` must be written first.
    pub enough: bool,
}

impl Said {
    /// Whether [`Dialect::hear`] should stop: more than [`FOREIGN_BUFFER_LEN_MAX`] bytes wait to be written.
    pub(crate) fn is_enough(&mut self) -> bool {
        self.enough = self.bytes.len() > FOREIGN_BUFFER_LEN_MAX;
        self.enough
    }

    /// Notes a sentence for the log of this end.
    pub(crate) fn note(&mut self, note: impl FnOnce() -> String) {
        if self.notes.len() < FOREIGN_NOTES_MAX {
            self.notes.push(note());
        }
    }

    /// Answers a request that came from the mesh.
    pub(crate) fn answer(&mut self, callback_id: CallbackId, outcome: Result<Payload, CallError>) {
        self.frames.push(Frame::Response(Response { callback_id, outcome }));
    }

    /// Releases the functions that a payload lends.
    pub(crate) fn give_back(&mut self, payload: &Payload) {
        for passed in &payload.callbacks {
            if let Passed::Lent(id) = passed {
                self.frames.push(Frame::Release(*id));
            }
        }
    }

    /// For protocols that have no form for functions: refuses a payload that passes functions, and releases them.
    pub(crate) fn without_functions(&mut self, payload: &Payload, dialect: &str) -> Result<(), CallError> {
        if payload.callbacks.is_empty() {
            return Ok(());
        }
        self.give_back(payload);
        let what = format!("{dialect} passes no functions, and these arguments hold some");
        Err(CallError::new(Code::CANNOT_ENCODE, Fate::NotSent, what))
    }

    /// For protocols that have no form for functions: the outcome of a call, an error if its reply passes functions.
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

    /// For protocols that have no form for functions: refuses the call of a function, since none was ever lent.
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
    /// A message claims, or has, more bytes than the protocol's bound.
    #[error("a message of {claimed} bytes, and {max} are allowed; does the other end speak {dialect}?")]
    TooLong {
        /// The protocol of the connection.
        dialect: &'static str,
        /// The claimed length, in bytes.
        claimed: usize,
        /// The longest message, in bytes.
        max: usize,
    },
    /// The bytes are no message of the protocol.
    #[error("this is not {dialect}: {what}")]
    Malformed {
        /// The protocol of the connection.
        dialect: &'static str,
        /// The fault.
        what: String,
    },
    /// The session at this end closed the connection; the foreign program may connect again.
    #[error("the connection is closed: {0}")]
    Closed(CallError),
    /// The session at this end refused the foreign program for good.
    #[error("the connection is refused: {0}")]
    Refused(CallError),
}

impl From<Refused> for DialectError {
    fn from(Refused { code, message, may_return }: Refused) -> Self {
        let error = CallError::new(code, Fate::NotSent, message);
        if may_return { Self::Closed(error) } else { Self::Refused(error) }
    }
}

//! The outcome of a request, on its way to the caller: it stands in the slot of the call until the caller takes it.

use super::short::ShortPayload;
use meshwork_wire::{ActionDescription, CallError, Code, Fate, Form, Outcome, Payload, PayloadRef};
use serde::de::DeserializeOwned;

/// The outcome of a request, on its way to the caller.
#[derive(Debug)]
pub struct Reply(Kind);

#[derive(Debug)]
enum Kind {
    Short(ShortPayload),
    Payload(Payload),
    Failed(CallError),
    /// The answer to a `Describe`.
    Described(Vec<ActionDescription>),
    /// The answer to a question about last values: a number.
    Kept(u64),
}

impl Reply {
    /// Makes a reply of a payload that is read where it stands; `share` makes a payload that outlives the block, for a reply that is not short.
    #[inline]
    pub(crate) fn read(payload: PayloadRef<'_>, share: impl FnOnce() -> Payload) -> Self {
        Self(ShortPayload::of(payload).map_or_else(|| Kind::Payload(share()), Kind::Short))
    }

    pub(crate) fn failed(error: CallError) -> Self {
        Self(Kind::Failed(error))
    }

    pub(crate) fn described(actions: Vec<ActionDescription>) -> Self {
        Self(Kind::Described(actions))
    }

    pub(crate) fn kept(number: u64) -> Self {
        Self(Kind::Kept(number))
    }

    /// Reads the value.
    ///
    /// # Errors
    ///
    /// The error of the request, or why its value is not a `T`.
    #[inline]
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, CallError> {
        match self.0 {
            Kind::Short(payload) => Ok(payload.by_ref().decode()?),
            Kind::Payload(payload) => Ok(payload.decode()?),
            Kind::Failed(error) => Err(error),
            Kind::Described(_) | Kind::Kept(_) => Ok(Payload::default().decode()?),
        }
    }

    /// The value; one in bincode has the check of this form.
    ///
    /// # Errors
    ///
    /// As [`Reply::decode`].
    #[inline]
    pub fn decode_with<T: DeserializeOwned>(self, form: Form) -> Result<T, CallError> {
        match &self.0 {
            Kind::Short(payload) => Ok(payload.by_ref().decode_with(form)?),
            Kind::Payload(payload) => Ok(PayloadRef::from(payload).decode_with(form)?),
            Kind::Failed(_) | Kind::Described(_) | Kind::Kept(_) => self.decode(),
        }
    }

    /// The value as a payload.
    ///
    /// # Errors
    ///
    /// The error of the request.
    pub fn into_outcome(self) -> Outcome {
        match self.0 {
            Kind::Short(payload) => Ok(payload.into()),
            Kind::Payload(payload) => Ok(payload),
            Kind::Failed(error) => Err(error),
            Kind::Described(_) | Kind::Kept(_) => Ok(Payload::default()),
        }
    }

    /// The number of the answer to a question about last values; none from a master of this process.
    pub(crate) fn into_kept(self) -> Result<Option<u64>, CallError> {
        match self.0 {
            Kind::Kept(number) => Ok(Some(number)),
            other => Self(other).into_outcome().map(|_| None),
        }
    }

    /// The end of the stream that this is the response of.
    pub(crate) fn into_end(self) -> Result<(), CallError> {
        let payload = self.into_outcome()?;
        if payload.is_empty() {
            return Ok(());
        }
        let what = "the action answered with one value, and not with a stream: call it";
        Err(CallError::new(Code::CANNOT_DECODE, Fate::Failed, what))
    }

    /// The actions of the answer to a `Describe`.
    pub(crate) fn into_described(self) -> Result<Vec<ActionDescription>, CallError> {
        match self.0 {
            Kind::Described(actions) => Ok(actions),
            other => Self(other).into_outcome().map(|_| Vec::new()),
        }
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(payload) => Self::read((&payload).into(), || payload.clone()),
            Err(error) => Self::failed(error),
        }
    }
}

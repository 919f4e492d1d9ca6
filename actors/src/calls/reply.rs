//! The outcome of a request, on its way to the caller: it stands in the slot of the call until the caller takes it.

use meshwork_wire::{ActionDescription, CallError, Callbacks, Encoding, Outcome, Payload, PayloadRef};
use serde::de::DeserializeOwned;

/// A reply of at most so many bytes is copied into its slot, so that it keeps nothing of the block that brought it.
const SMALL_LEN_MAX: usize = 32;

/// No functions.
static NO_CALLBACKS: Callbacks = Callbacks::none();

/// The outcome of a request, on its way to the caller.
#[derive(Debug)]
pub struct Reply(Kind);

#[derive(Debug)]
enum Kind {
    /// A short value without functions.
    Small {
        encoding: Encoding,
        len: u8,
        bytes: [u8; SMALL_LEN_MAX],
    },
    Payload(Payload),
    Failed(CallError),
    /// The answer to a `Describe`.
    Described(Vec<ActionDescription>),
}

impl Reply {
    /// Makes a reply of a payload that is read where it stands; `share` makes a payload that outlives the block, for a reply that is not small.
    #[inline]
    pub(crate) fn read(payload: PayloadRef<'_>, share: impl FnOnce() -> Payload) -> Self {
        if payload.bytes.len() <= SMALL_LEN_MAX && payload.callbacks.is_empty() {
            let mut bytes = [0; SMALL_LEN_MAX];
            bytes[..payload.bytes.len()].copy_from_slice(payload.bytes);
            #[expect(clippy::cast_possible_truncation, reason = "it is at most SMALL_LEN_MAX")]
            let len = payload.bytes.len() as u8;
            return Self(Kind::Small { encoding: payload.encoding, len, bytes });
        }
        Self(Kind::Payload(share()))
    }

    pub(crate) fn failed(error: CallError) -> Self {
        Self(Kind::Failed(error))
    }

    pub(crate) fn described(actions: Vec<ActionDescription>) -> Self {
        Self(Kind::Described(actions))
    }

    /// Reads the value.
    ///
    /// # Errors
    ///
    /// The error of the request, or why its value is not a `T`.
    #[inline]
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, CallError> {
        match self.0 {
            Kind::Small { encoding, len, bytes } => {
                let bytes = &bytes[..usize::from(len)];
                Ok(PayloadRef { encoding, bytes, callbacks: &NO_CALLBACKS }.decode()?)
            }
            Kind::Payload(payload) => Ok(payload.decode()?),
            Kind::Failed(error) => Err(error),
            Kind::Described(_) => Ok(Payload::default().decode()?),
        }
    }

    /// The value as a payload.
    ///
    /// # Errors
    ///
    /// The error of the request.
    pub fn into_outcome(self) -> Outcome {
        match self.0 {
            Kind::Small { encoding, len, bytes } => {
                Ok(Payload::new(encoding, bytes[..usize::from(len)].to_vec()))
            }
            Kind::Payload(payload) => Ok(payload),
            Kind::Failed(error) => Err(error),
            Kind::Described(_) => Ok(Payload::default()),
        }
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

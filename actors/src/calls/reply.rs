//! What became of a request, as it stands in the slot of its call until the caller takes it.

use meshwork_wire::{ActionDescription, CallError, Callbacks, Encoding, Outcome, Payload, PayloadRef};
use serde::de::DeserializeOwned;

/// A reply of so many bytes stands in its slot, and keeps nothing of the block that brought it.
const SMALL_LEN_MAX: usize = 32;

/// No functions.
static NO_CALLBACKS: Callbacks = Callbacks::none();

/// What became of a request.
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
    /// A reply that is read where it stands; `share` makes a payload of it that lives on.
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
    /// Why there is none, or why it is not a `T`.
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

    /// The reply as a payload, or why there is none.
    ///
    /// # Errors
    ///
    /// Why there is none.
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

    /// The answer to a `Describe`.
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

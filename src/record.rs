//! The arguments of a method of a trait, as a record: its fields are the parameters. [`macro@crate::actions`] writes the records; this
//! file says how they are read, and which signature a method has.

use log::Level;
use meshwork_actors::log_line;
use meshwork_actors::repeated::Line;
use meshwork_wire::{DecodeError, PayloadRef, Signature, Untraceable, trace, try_sample};
use serde::{Serialize, Serializer, de::DeserializeOwned};
use std::any::type_name;
use std::sync::OnceLock;

/// The arguments of one method. Written by `#[meshwork::actions]`.
pub trait Record: Serialize + DeserializeOwned + 'static {
    /// The value that the method replies with.
    type Reply: Serialize + DeserializeOwned + 'static;

    /// The method.
    fn method() -> &'static Method;

    /// Writes the values without their names, in the order of the parameters, for programs that take lists.
    ///
    /// # Errors
    ///
    /// When one of the values cannot be written.
    fn serialize_list<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// Reads a value that stands alone as the only argument, or nothing where the method takes none. None for a method that takes more.
    fn read_bare(payload: PayloadRef<'_>) -> Option<Result<Self, DecodeError>>;
}

/// A method of a trait: its action, and the signature that callers and providers prove to each other.
pub struct Method {
    action: &'static str,
    sign: fn(&'static str) -> Option<Signature>,
    signature: OnceLock<Option<Signature>>,
}

impl Method {
    /// A method whose signature is made of these arguments when it is first asked for.
    #[must_use]
    pub const fn new<A: Record>(action: &'static str) -> Self {
        Self { action, sign: sign::<A>, signature: OnceLock::new() }
    }

    /// A method that answers with a stream of its replies. Its signature is another one than that of a method that answers with one of them.
    #[must_use]
    pub const fn streaming<A: Record>(action: &'static str) -> Self {
        Self { action, sign: sign_streaming::<A>, signature: OnceLock::new() }
    }

    /// The name of the action.
    #[inline]
    #[must_use]
    pub fn action(&self) -> &'static str {
        self.action
    }

    /// The signature; none if the types have no shape, or their two derives disagree. The first time it costs a microsecond for each type of
    /// a few fields.
    #[inline]
    #[must_use]
    pub fn signature(&self) -> Option<Signature> {
        *self.signature.get_or_init(|| (self.sign)(self.action))
    }
}

/// The signature of a method with these arguments.
#[cold]
fn sign<A: Record>(action: &'static str) -> Option<Signature> {
    sign_as::<A>(action, false)
}

/// The signature of a method with these arguments that answers with a stream.
#[cold]
fn sign_streaming<A: Record>(action: &'static str) -> Option<Signature> {
    sign_as::<A>(action, true)
}

fn sign_as<A: Record>(action: &'static str, is_streaming: bool) -> Option<Signature> {
    let traced = || -> Result<Option<Signature>, Untraceable> {
        let (arguments, reply) = (trace::<A>()?, trace::<A::Reply>()?);
        for (of, shape) in [("arguments", &arguments.shape), ("reply", &reply.shape)] {
            if let Some(place) = shape.some_of_nothing() {
                let at = if place.is_empty() { String::new() } else { format!(" at `{place}`") };
                log_line!(
                    Line::own(Level::Warn),
                    "{action}: there is an Option of something that may be nothing in the {of}{at}: its `Some` of nothing is an error where the \
                     action is called by name, or by programs of other protocols"
                );
            }
        }
        let signature = match is_streaming {
            false => Signature::of(&[&arguments.shape, &reply.shape]),
            // No method with one reply has three shapes.
            true => Signature::of(&[&arguments.shape, &reply.shape, &reply.shape]),
        };
        let agree = try_samples(action, &arguments.samples) & try_samples(action, &reply.samples);
        Ok(agree.then_some(signature))
    };
    traced().inspect_err(|why| log::debug!("{action} travels as MessagePack: {why}")).ok().flatten()
}

/// Writes and reads samples of a type, with a warning if what is read in bincode is not what was written; `true` if it is.
fn try_samples<T: Serialize + DeserializeOwned>(action: &str, samples: &[T]) -> bool {
    let refused = samples.iter().find_map(|sample| try_sample(sample).err());
    if let Some(reason) = &refused {
        let of = type_name::<T>();
        log_line!(
            Line::own(Level::Warn),
            "{action} travels as MessagePack: the Serialize and the Deserialize of {of} disagree: {reason}"
        );
    }
    refused.is_none()
}

/// The arguments without their names.
pub(crate) struct AsList<'a, A>(pub(crate) &'a A);

impl<A: Record> Serialize for AsList<'_, A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_list(serializer)
    }
}

/// Reads the arguments of a method: a map by the names of the parameters, a list, or the only argument by itself.
pub(crate) fn read_record<A: Record>(payload: PayloadRef<'_>) -> Result<A, DecodeError> {
    payload.decode().or_else(|error| match A::read_bare(payload) {
        Some(Ok(bare)) => Ok(bare),
        Some(Err(bare)) => Err(likelier(error, bare)),
        None => Err(error),
    })
}

/// The error of arguments that are neither a record nor the only argument: the error that lies deeper in the value, or else both.
#[cold]
fn likelier(record: DecodeError, bare: DecodeError) -> DecodeError {
    let has_place = |error: &DecodeError| error.reason.contains(" at `");
    match (has_place(&record), has_place(&bare)) {
        (false, true) => bare,
        (false, false) => {
            let reason = format!("{}; and as the only argument: {}", record.reason, bare.reason);
            DecodeError { reason, ..record }
        }
        (true, _) => record,
    }
}

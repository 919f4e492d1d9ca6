//! The errors of layers as errors of calls. Layers of tower give boxed errors: in one there is the [`CallError`] of the call, or the layer's own
//! reason to refuse it, or to give it up.

use crate::action_error::ActionError;
use meshwork_wire::{CallError, Code, Fate};
use std::error::Error;
use tower::BoxError;

/// An error of tower layers becomes a [`CallError`].
///
/// | the error | becomes |
/// | --- | --- |
/// | a `CallError`, or an [`ActionError`], however many layers have wrapped it | itself, with its fate |
/// | `tower::timeout::error::Elapsed` | [`Code::REQUEST_TIMEOUT`], [`Fate::Unknown`]: the call was given up, and its action may have run |
/// | `tower::load_shed::error::Overloaded` | [`Code::OVERLOADED`], [`Fate::NotSent`] |
/// | any other | [`Code::UNKNOWN`], [`Fate::Unknown`], with the text of the error |
///
/// ```
/// # use meshwork::prelude::*;
/// use meshwork::tower::{BoxError, IntoCallError};
/// use tower::{Service, ServiceExt, timeout::TimeoutLayer, Layer};
///
/// async fn charge(branch: &Branch, amount: u32) -> Result<String, CallError> {
///     let mut charge = TimeoutLayer::new(Duration::from_secs(1)).layer(branch.service::<u32, String>("payments/charge"));
///     let outcome: Result<String, BoxError> = charge.ready().await.map_err(BoxError::into_call_error)?.call(amount).await;
///     outcome.map_err(BoxError::into_call_error)
/// }
/// ```
pub trait IntoCallError {
    /// The error as that of a call.
    fn into_call_error(self) -> CallError;
}

impl<E: Into<BoxError>> IntoCallError for E {
    fn into_call_error(self) -> CallError {
        match read(self.into()) {
            Read::Call(error) => error,
            Read::Layer(error) => error,
        }
    }
}

/// An error of layers, read.
pub(crate) enum Read {
    /// The error of a call, or one that a layer made as such.
    Call(CallError),
    /// A layer's own error, which tells nothing of the fate.
    Layer(CallError),
}

/// How deep the causes of an error are followed: deeper than layers stand, and a cause that is its own ends.
const CAUSES_MAX: usize = 64;

/// Reads an error of layers: the first of its causes that is known.
pub(crate) fn read(error: BoxError) -> Read {
    let outermost: &(dyn Error + 'static) = &*error;
    let mut next = Some(outermost);
    let causes = std::iter::from_fn(|| {
        let cause = next?;
        next = cause.source();
        Some(cause)
    });
    let known = causes.take(CAUSES_MAX).find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<CallError>() {
            return Some(Read::Call(error.clone()));
        }
        if let Some(error) = cause.downcast_ref::<ActionError>() {
            return Some(Read::Call(error.clone().into()));
        }
        let (code, fate, why) = if cause.is::<tower::timeout::error::Elapsed>() {
            (Code::REQUEST_TIMEOUT, Fate::Unknown, "a layer has given the call up after its time")
        } else if cause.is::<tower::load_shed::error::Overloaded>() {
            (Code::OVERLOADED, Fate::NotSent, "a layer sheds load: the service behind it was not ready")
        } else {
            return None;
        };
        Some(Read::Layer(CallError::new(code, fate, why)))
    });
    known.unwrap_or_else(|| Read::Layer(CallError::new(Code::UNKNOWN, Fate::Unknown, error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    #[derive(Debug)]
    struct Wrapped(BoxError);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn the_error_of_a_call_is_found_however_it_is_wrapped() {
        let error = CallError::new(Code::DRAINING, Fate::NotSent, "it drains");
        assert_eq!(error.clone().into_call_error(), error);
        assert_eq!(BoxError::from(error.clone()).into_call_error(), error);
        assert_eq!(Wrapped(Wrapped(error.clone().into()).into()).into_call_error(), error);
        let error = ActionError::new("OutOfStock", "none left");
        assert_eq!(Wrapped(error.clone().into()).into_call_error(), error.into());
        let elapsed = Wrapped(tower::timeout::error::Elapsed::new().into()).into_call_error();
        assert_eq!(elapsed.code(), Code::REQUEST_TIMEOUT);
    }

    #[test]
    fn an_error_of_a_layer_says_what_the_layer_did() {
        let elapsed = tower::timeout::error::Elapsed::new().into_call_error();
        assert_eq!((elapsed.code(), elapsed.fate()), (Code::REQUEST_TIMEOUT, Fate::Unknown));
        let shed = tower::load_shed::error::Overloaded::new().into_call_error();
        assert_eq!((shed.code(), shed.fate()), (Code::OVERLOADED, Fate::NotSent));
        let other = BoxError::from("no").into_call_error();
        assert_eq!((other.code(), other.fate(), other.message()), (Code::UNKNOWN, Fate::Unknown, "no"));
    }
}

//! Functions that are passed as arguments. A node *lends* a function over a link: it draws a number, which travels with the payload, and
//! calls the function when the other end sends an `Invoke` of that number, until that end sends a `Release`. A function that came as a
//! number is *borrowed*: it can be called, kept, and lent on over other links, and its last handle sends the `Release`. So a master
//! relays functions of any type: it lends over one session a function that it borrows over another session.
//!
//! Lent and borrowed functions end with the link. A function that is lent twice has two numbers, and no reference count.

use super::outbox::{Kind, Outbox};
use meshwork_wire::limits::CALLBACKS_PER_CONNECTION_MAX;
use meshwork_wire::{
    CallError, Callable, CallbackId, Callbacks, Code, Encoding, Fate, Frame, Function, Invocation, Invoked,
    Outcome, Passed, Payload,
};
use std::any::Any;
use std::sync::Arc;

/// The other end of a link, as the functions that it lent over the link know it.
pub(crate) trait Lender: Send + Sync + 'static {
    /// Calls a function that the other end lent.
    fn invoke(&self, function: CallbackId, invocation: Invocation) -> Invoked;

    /// Tells the other end that no handle on a function that it lent is left.
    fn release(&self, function: CallbackId);

    /// The lender itself, for a session that relays a call of the function instead of making it.
    fn as_any(&self) -> &dyn Any;
}

/// A function at the other end of a link.
struct Borrowed {
    id: CallbackId,
    encoding: Encoding,
    lender: Arc<dyn Lender>,
    /// The outbox of the link, which counts the borrowed functions.
    outbox: Outbox,
}

/// Borrows the functions of a payload that came over a link, so that they can be called.
///
/// # Errors
///
/// When this end would hold more than [`CALLBACKS_PER_CONNECTION_MAX`] functions of the link. All functions of the payload are released
/// then.
#[inline(always)]
pub(crate) fn borrow<L: Lender>(
    payload: &mut Payload,
    outbox: &Outbox,
    lender: impl FnOnce() -> L,
) -> Result<(), CallError> {
    if payload.callbacks.is_empty() { Ok(()) } else { borrow_some(payload, outbox, lender) }
}

#[inline(never)]
fn borrow_some<L: Lender>(
    payload: &mut Payload,
    outbox: &Outbox,
    lender: impl FnOnce() -> L,
) -> Result<(), CallError> {
    let callbacks = std::mem::take(&mut payload.callbacks);
    if !outbox.lent().borrow(callbacks.len()) {
        for id in callbacks.ids() {
            let _ = outbox.push(&Frame::Release(id), Kind::Protocol);
        }
        return Err(CallError::new(
            Code::OVERLOADED,
            Fate::NotSent,
            format!("{CALLBACKS_PER_CONNECTION_MAX} callbacks of this connection are held already"),
        ));
    }
    // Calls of functions go by name: what a function takes is not part of the signature of an action.
    let encoding = match payload.encoding {
        Encoding::Bincode => Encoding::MessagePack,
        Encoding::PlainBincode => Encoding::CompactMessagePack,
        other => other,
    };
    let lender: Arc<dyn Lender> = Arc::new(lender());
    payload.callbacks = Callbacks::new(callbacks.ids().into_iter().map(|id| {
        let (lender, outbox) = (Arc::clone(&lender), outbox.clone());
        Passed::Here(Function::new(Borrowed { id, encoding, lender, outbox }))
    }));
    Ok(())
}

/// Borrows the functions of a reply that came over a link.
pub(crate) fn borrow_outcome<L: Lender>(
    outcome: Outcome,
    outbox: &Outbox,
    lender: impl FnOnce() -> L,
) -> Outcome {
    let mut payload = outcome?;
    borrow(&mut payload, outbox, lender).map_err(|error| error.with_fate(Fate::Failed))?;
    Ok(payload)
}

/// The other end of the link that a function was borrowed over, and the number of the function there; none for a function of this process.
pub(crate) fn borrowed_over(function: &Function) -> Option<(&dyn Lender, CallbackId)> {
    let borrowed = function.as_any()?.downcast_ref::<Borrowed>()?;
    Some((&*borrowed.lender, borrowed.id))
}

impl Callable for Borrowed {
    fn invoke(&self, invocation: Invocation) -> Invoked {
        self.lender.invoke(self.id, invocation)
    }

    fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.outbox.lent().give_back(1);
        self.lender.release(self.id);
    }
}

//! The hops of the calls that are made while a request is being answered. A responder that calls a node of another mesh, or the same mesh
//! through another node of its process, relays its request there; such calls may go round, as those of gateways and bridges may, and end
//! when they have come over too many hops. Calls through the node that answers are not counted: an action may call itself as deep as it likes.
//!
//! The request is known while its future is polled. Calls of a task that a responder starts, and calls in the handlers of an actor that answers,
//! begin anew.

use crate::link::refusal::too_many_hops;
use futures::future::LocalBoxFuture;
use meshwork_wire::limits::HOPS_MAX;
use meshwork_wire::{CallError, Outcome};
use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A request that is being answered: the number of the node that answers it, and its hops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answered {
    pub(crate) node: u64,
    pub(crate) hops: u8,
}

thread_local! {
    /// The request whose responder runs on this thread now.
    static ANSWERED: Cell<Option<Answered>> = const { Cell::new(None) };
}

impl Answered {
    /// Runs a part of the work on this request.
    #[inline]
    pub(crate) fn during<T>(self, work: impl FnOnce() -> T) -> T {
        /// Goes back to the request that was being answered around this one, also after a panic.
        struct Around(Option<Answered>);

        impl Drop for Around {
            fn drop(&mut self) {
                // A thread that ends answers nothing.
                let _ = ANSWERED.try_with(|answered| answered.set(self.0));
            }
        }

        let _around = Around(ANSWERED.try_with(|answered| answered.replace(Some(self))).ok().flatten());
        work()
    }
}

/// The request whose responder runs on this thread now.
pub(super) fn now() -> Option<Answered> {
    ANSWERED.try_with(Cell::get).ok().flatten()
}

/// The hops of a call that is made now, through the node of this number.
#[inline]
pub(crate) fn of_call(node: u64) -> u8 {
    match ANSWERED.try_with(Cell::get) {
        Ok(Some(answered)) if answered.node == node => answered.hops,
        Ok(Some(answered)) => answered.hops.saturating_add(1),
        _ => 0,
    }
}

/// Refuses a call that has come over too many hops.
///
/// # Errors
///
/// Not sent.
#[inline]
pub(crate) fn check(hops: u8, action: &str) -> Result<(), CallError> {
    if hops <= HOPS_MAX { Ok(()) } else { Err(too_many_hops(action)) }
}

/// The future of a responder, which is polled as work on its request.
pub(crate) struct Answer {
    pub(crate) answered: Answered,
    pub(crate) outcome: LocalBoxFuture<'static, Outcome>,
}

impl Future for Answer {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let answered = self.answered;
        answered.during(|| self.outcome.as_mut().poll(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_through_another_node_is_one_hop_more() {
        assert_eq!(of_call(1), 0, "nothing is being answered");
        let answered = Answered { node: 1, hops: 3 };
        answered.during(|| {
            assert_eq!((of_call(1), of_call(2)), (3, 4));
            let _ = std::panic::catch_unwind(|| Answered { node: 2, hops: 9 }.during(|| panic!("no")));
            assert_eq!(of_call(2), 4, "a request within has ended");
        });
        assert_eq!(of_call(2), 0);
        Answered { node: 1, hops: u8::MAX }.during(|| assert_eq!(of_call(2), u8::MAX));
        assert!(check(HOPS_MAX, "a").is_ok() && check(HOPS_MAX + 1, "a").is_err());
    }
}

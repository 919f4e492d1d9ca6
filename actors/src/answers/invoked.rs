//! Calls of functions that were lent: the other end of the link calls one.

use super::answering::Answering;
use crate::link::borrowed::{Lender, borrow};
use crate::link::outbox::Outbox;
use crate::link::refusal::gone;
use meshwork_wire::{CallError, Code, Fate, Invocation, Invoke};

/// Calls the function that the other end asks for, if it is lent and not too much is being answered.
pub(crate) fn invoked<L: Lender>(
    invoke: Invoke,
    outbox: &Outbox,
    lender: impl FnOnce() -> L,
    answering: &Answering,
    in_flight_max: usize,
) {
    let Invoke { function, callback_id, time_left, wants, mut payload } = invoke;
    // Also when it is refused: the functions that came with it are given back.
    let borrowed = borrow(&mut payload, outbox, lender);
    let refuse = |error| {
        if let Some(callback_id) = callback_id {
            outbox.respond(callback_id, Err(error));
        }
    };
    if let Err(error) = borrowed {
        return refuse(error);
    }
    let Some(function) = outbox.lent().get(function) else {
        return refuse(gone("it is not lent, or not any more"));
    };
    if answering.len() >= in_flight_max {
        let what = format!("{in_flight_max} requests and callbacks are being answered already");
        return refuse(CallError::new(Code::OVERLOADED, Fate::NotSent, what));
    }
    let invocation = Invocation { arguments: payload, within: time_left, wants };
    answering.invoke(&function, invocation, callback_id, outbox);
}

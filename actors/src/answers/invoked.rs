//! Calls of functions that were lent over a link, by the other end of the link.

use super::answering::Answering;
use crate::link::borrowed::{Lender, borrow};
use crate::link::outbox::Outbox;
use crate::link::refusal::gone;
use meshwork_wire::{ByteString, CallError, CallbackId, Code, Fate, Function, Invocation, Invoke, Wants};

/// A call of a lent function by the other end of a link.
pub(crate) struct LentCall {
    pub(crate) function: Function,
    /// None if the other end waits for no outcome.
    pub(crate) callback_id: Option<CallbackId>,
    pub(crate) invocation: Invocation,
}

/// Calls the function that the other end asks for, if it is lent and fewer than `in_flight_max` requests are being answered. `source_of` makes one that
/// is a stream of this process of one that comes over another link.
pub(crate) fn invoked<L: Lender>(
    invoke: Invoke,
    outbox: &Outbox,
    lender: impl FnOnce() -> L,
    answering: &Answering,
    (in_flight_max, source_of): (usize, fn(Function) -> Function),
) {
    let callback_id = invoke.callback_id;
    match find_lent(invoke, outbox, lender) {
        Ok(mut call) if matches!(call.invocation.wants, Wants::Stream(_)) => {
            call.function = source_of(call.function);
            answer_call(call, outbox, answering, in_flight_max);
        }
        Ok(call) => answer_call(call, outbox, answering, in_flight_max),
        Err(error) => refuse(outbox, callback_id, error),
    }
}

/// Finds the function that the other end calls, and borrows the functions that it passes as arguments.
pub(crate) fn find_lent<L: Lender>(
    invoke: Invoke,
    outbox: &Outbox,
    lender: impl FnOnce() -> L,
) -> Result<LentCall, CallError> {
    let Invoke { function, callback_id, time_left, wants, mut payload } = invoke;
    // Before the call may be refused: then the functions that came with it are dropped, which releases them.
    borrow(&mut payload, outbox, lender)?;
    let function = outbox.lent().get(function).ok_or_else(|| gone("it is not lent, or not any more"))?;
    let invocation = Invocation { arguments: payload, within: time_left, wants };
    Ok(LentCall { function, callback_id, invocation })
}

/// Calls a function of this process, if fewer than `in_flight_max` requests and callbacks are being answered.
pub(crate) fn answer_call(call: LentCall, outbox: &Outbox, answering: &Answering, in_flight_max: usize) {
    let LentCall { function, callback_id, invocation } = call;
    if answering.len() >= in_flight_max {
        let what = format!("{in_flight_max} requests and callbacks are being answered already");
        return refuse(outbox, callback_id, CallError::new(Code::OVERLOADED, Fate::NotSent, what));
    }
    if let Err(error) = answering.admit(&ByteString::new(), invocation.arguments.len()) {
        return refuse(outbox, callback_id, error);
    }
    match (invocation.wants, callback_id) {
        (Wants::Stream(grant), Some(callback_id)) => {
            answering.open(&function, invocation.arguments.len(), (callback_id, grant), outbox);
        }
        _ => answering.invoke(&function, invocation, callback_id, outbox),
    }
}

fn refuse(outbox: &Outbox, callback_id: Option<CallbackId>, error: CallError) {
    if let Some(callback_id) = callback_id {
        outbox.respond(callback_id, Err(error));
    }
}

//! When an actor is polled: only when something woke it, with turns for the other tasks of its arbiter in between, and on a thread
//! that may stay awake.

pub(crate) mod alarm;
pub(crate) mod busy_poll;
pub(crate) mod credit;
pub(crate) mod on_wake;
pub(crate) mod paced;
mod parts;

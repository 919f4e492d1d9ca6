//! When an actor is polled: only when something woke it, with turns for others in between, and with a thread that may stay awake.

pub(crate) mod alarm;
pub(crate) mod busy_poll;
pub(crate) mod on_wake;
pub(crate) mod paced;
mod parts;

//! Blocking work in a simulated mesh. It runs in place, so that the run follows from its seed, each piece after the time that it waits for its
//! thread. The journal has the fates, as those of all calls; here stands what is true of blocking work alone.

use crate::journal::{self, Finish, Life};
use crate::programs::Task;
use meshwork::Limits;
use meshwork::prelude::*;

/// How long a piece of work waits for its thread: longer than some deadlines.
pub(crate) fn takes() -> Duration {
    Duration::from_millis(fastrand::u64(0..40))
}

/// Little work at once, so that some waits and some is refused.
pub(crate) fn limits(max: usize) -> Limits {
    let mut limits = Limits::default();
    (limits.blocking_max, limits.blocking_waiting_max) = (max, 3);
    limits
}

/// The responder of a life that blocks: none of its work begins when its caller waits no longer.
pub(crate) fn work(
    life: Life,
) -> impl Fn(Task, CallContext) -> Result<u64, ActionError> + Send + Sync + 'static {
    move |task, context| {
        let call = task.call();
        journal::ran(call, life);
        if context.time_left().is_some_and(|left| left.is_zero()) {
            journal::wrong(format!("the blocking work of call {call} began after its deadline"));
        }
        if task.fails() {
            journal::finished(call, Finish::Failed);
            return Err(ActionError::new("Planned", "the call asked for it"));
        }
        journal::finished(call, Finish::Replied);
        Ok(journal::reply_to(call))
    }
}

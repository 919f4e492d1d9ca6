//! One timer for all deadlines of an actor. It is set for the first deadline; after it has rung, for the next one.

use super::on_wake::run_later;
use actix::{Actor, AsyncContext, Context, SpawnHandle};
use tokio::time::Instant;

/// The timer of an actor's next deadline.
#[derive(Default)]
pub(crate) struct Alarm {
    set: Option<(Instant, SpawnHandle)>,
}

impl Alarm {
    /// Calls `ring` at the moment `next`, unless the alarm is set for an earlier moment. `ring` must call [`Alarm::rang`] first.
    pub(crate) fn set<A: Actor<Context = Context<A>>>(
        &mut self,
        next: Instant,
        context: &mut Context<A>,
        ring: impl FnOnce(&mut A, &mut Context<A>) + 'static,
    ) {
        if let Some((set_for, alarm)) = &self.set {
            if *set_for <= next {
                return;
            }
            context.cancel_future(*alarm);
        }
        let after = next.saturating_duration_since(Instant::now());
        self.set = Some((next, run_later(context, after, ring)));
    }

    /// Notes that the alarm has rung: it may be set again.
    pub(crate) fn rang(&mut self) {
        self.set = None;
    }
}

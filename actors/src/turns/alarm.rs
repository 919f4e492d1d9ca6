//! One timer for all deadlines of an actor: it is set for the first, and for the next one when it has rung.

use super::on_wake::run_later;
use actix::{Actor, AsyncContext, Context, SpawnHandle};
use tokio::time::Instant;

/// The timer of an actor's next deadline.
#[derive(Default)]
pub(crate) struct Alarm {
    set: Option<(Instant, SpawnHandle)>,
}

impl Alarm {
    /// Lets `ring` be called at this moment, unless it is set for an earlier one already. `ring` must call [`Alarm::rang`] first.
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

    /// It has rung, and may be set again.
    pub(crate) fn rang(&mut self) {
        self.set = None;
    }
}

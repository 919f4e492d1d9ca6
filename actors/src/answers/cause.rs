//! The request that a call is made for: what its responder calls and publishes through the context of the request. Such a call ends when the
//! request is cancelled, and counts on the hops of the request, on whichever thread and in whichever task it is made.

use super::hops::{self, Answered};
use meshwork_wire::{CallError, Code, Fate};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A request that is being answered, or was, as its context and the calls that are made for it see it.
#[derive(Debug)]
pub struct Cause {
    /// None of a request that came over no link and to no node.
    answered: Option<Answered>,
    until: Option<Instant>,
    is_cancelled: AtomicBool,
    cancelled: Notify,
}

impl Cause {
    pub(crate) fn new(answered: Option<Answered>, until: Option<Instant>) -> Arc<Self> {
        let (is_cancelled, cancelled) = (AtomicBool::new(false), Notify::new());
        Arc::new(Self { answered, until, is_cancelled, cancelled })
    }

    /// That of a request that came over no link.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    #[must_use]
    pub fn by_hand(until: Option<Instant>) -> Arc<Self> {
        Self::new(None, until)
    }

    /// When calls that are made for the request end at the latest; none if its caller waits for ever, or reads a stream.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the request was cancelled before it had its outcome.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// Waits until the request is cancelled: for ever if it has had its outcome.
    pub async fn cancelled(&self) {
        let mut cancelled = pin!(self.cancelled.notified());
        // Before the question, so that no cancel is missed.
        cancelled.as_mut().enable();
        if !self.is_cancelled() {
            cancelled.await;
        }
    }

    /// Does some work for the request, unless that is cancelled before the work is done. `fate` is the fate of work that had begun.
    ///
    /// # Errors
    ///
    /// That of the work; [`Code::CANCELLED`] when the request is cancelled, *not sent* if that was before the work began.
    pub async fn unless_cancelled<T>(
        &self,
        fate: Fate,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if self.is_cancelled() {
            return Err(cancelled(Fate::NotSent));
        }
        tokio::select! {
            biased;
            () = self.cancelled() => Err(cancelled(fate)),
            outcome = work => outcome,
        }
    }

    /// Cancels what is called for the request.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
        self.cancelled.notify_waiters();
    }

    /// The hops of a call that is made for the request through the node of this number.
    pub(crate) fn hops(&self, node: u64) -> u8 {
        self.answered.map_or(0, |answered| answered.during(|| hops::of_call(node)))
    }
}

/// The error of what was done for a request that was cancelled.
fn cancelled(fate: Fate) -> CallError {
    CallError::new(Code::CANCELLED, fate, "the request for which this was done was cancelled")
}

/// Cancels what is called for a request when this is dropped: with the future of its responder, before the request has its outcome.
pub(crate) struct Cancels(Option<Arc<Cause>>);

impl Cancels {
    /// None where no call can be made for the request: its responder has taken no context.
    pub(crate) fn of(cause: Option<Arc<Cause>>) -> Self {
        Self(cause)
    }

    /// The request has its outcome: what goes on behind it is not cancelled.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Cancels {
    fn drop(&mut self) {
        if let Some(cause) = &self.0 {
            cause.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_cancel_is_heard_by_those_that_wait_and_by_those_that_ask_later() {
        let cause = Cause::new(None, None);
        let cancels = Cancels::of(Some(Arc::clone(&cause)));
        let mut waits = [Box::pin(cause.cancelled()), Box::pin(cause.cancelled())];
        assert!(waits.iter_mut().all(|wait| wait.now_or_never().is_none()) && !cause.is_cancelled());
        drop(cancels);
        assert!(waits.into_iter().all(|wait| wait.now_or_never().is_some()));
        assert!(cause.is_cancelled() && cause.cancelled().now_or_never().is_some());
    }

    #[test]
    fn an_outcome_cancels_nothing() {
        let cause = Cause::new(None, None);
        Cancels::of(Some(Arc::clone(&cause))).disarm();
        assert!(!cause.is_cancelled() && cause.cancelled().now_or_never().is_none());
    }

    #[test]
    fn a_call_counts_on_the_hops_of_its_request_wherever_it_is_made() {
        let cause = Cause::new(Some(Answered { node: 1, hops: 3 }), None);
        let elsewhere = Answered { node: 2, hops: 9 };
        assert_eq!(elsewhere.during(|| (cause.hops(1), cause.hops(2))), (3, 4));
        assert_eq!(Cause::new(None, None).hops(1), 0);
    }
}

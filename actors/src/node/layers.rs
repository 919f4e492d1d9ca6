//! Layers around the calls of a node: what a program puts between its calls and the node, such as retries. A node without layers has none of
//! this: its callers write their frames themselves. What the layers do is the program's business; here stands how a call gets through them, ends
//! at its deadline wherever it is, and has a true fate whatever they say.

use super::submission::Call;
use futures::future::BoxFuture;
use meshwork_wire::{CallError, Code, Fate, Outcome};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::Instant;

/// What a call goes through: the layers of its node, or the node itself behind them.
pub trait CallThrough: Send + Sync + 'static {
    /// Makes a call. Dropping the future cancels it.
    fn call(&self, call: LayeredCall) -> BoxFuture<'static, Outcome>;
}

/// Puts a layer around what a call goes through.
pub type CallLayer = Box<dyn FnOnce(Arc<dyn CallThrough>) -> Arc<dyn CallThrough> + Send>;

/// Makes an attempt at a call that opens a stream, behind the layers. The outcome is there when the stream begins, and has no value.
pub(super) type OpensStream = Arc<dyn Fn(LayeredCall) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// A call on its way through the layers of its node. A clone is another attempt at the same call.
#[derive(Clone)]
pub struct LayeredCall {
    /// The call. How long it waits follows from `deadline` when it leaves.
    pub call: Call,
    /// When the caller stops waiting; none for never.
    pub deadline: Option<Instant>,
    /// The attempts at this call.
    pub attempts: Attempts,
    /// None if one value is asked for.
    pub(super) opens_stream: Option<OpensStream>,
}

impl LayeredCall {
    /// Whether the call opens a stream: its outcome has no value then.
    #[must_use]
    pub fn opens_stream(&self) -> bool {
        self.opens_stream.is_some()
    }
}

impl fmt::Debug for LayeredCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, deadline, attempts, .. } = self;
        let mut shown = f.debug_struct("LayeredCall");
        shown.field("call", call).field("deadline", deadline).field("attempts", attempts);
        shown.field("opens_stream", &self.opens_stream()).finish()
    }
}

/// How many attempts at one call may have run: those that have left and have not ended as not sent.
#[derive(Clone, Default, Debug)]
pub struct Attempts(Arc<AtomicUsize>);

impl Attempts {
    /// Whether an attempt may have run.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    /// Notes an attempt that leaves.
    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that an attempt has ended as not sent.
    pub(super) fn was_not_sent(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// The error of the call with a fate that is true of all attempts.
    #[must_use]
    pub fn judge(&self, error: CallError) -> CallError {
        match (error.fate(), self.may_have_run()) {
            (Fate::NotSent, true) => error.with_fate(Fate::Unknown),
            (Fate::Unknown, false) => error.with_fate(Fate::NotSent),
            _ => error,
        }
    }
}

/// Makes a call through layers, and ends it at its deadline.
pub(super) fn call_through(
    through: &dyn CallThrough,
    call: Call,
    opens_stream: Option<OpensStream>,
) -> BoxFuture<'static, Outcome> {
    let of_caller = call.within.and_then(|within| Instant::now().checked_add(within));
    // A call on behalf of another one ends with that.
    let deadline = [of_caller, call.until.map(Instant::from_std)].into_iter().flatten().min();
    let (attempts, cause) = (Attempts::default(), call.cause.clone());
    let layered = through.call(LayeredCall { call, deadline, attempts: attempts.clone(), opens_stream });
    let outcome = async move {
        match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, layered).await.unwrap_or_else(|_| {
                let why = "the deadline passed in the layers of the caller";
                Err(CallError::new(Code::REQUEST_TIMEOUT, Fate::Unknown, why))
            }),
            None => layered.await,
        }
    };
    Box::pin(async move {
        let outcome = match cause {
            Some(cause) => cause.unless_cancelled(Fate::Unknown, outcome).await,
            None => outcome.await,
        };
        outcome.map_err(|error| attempts.judge(error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fate_of_a_call_is_true_of_all_its_attempts() {
        let error = |fate| CallError::new(Code::OVERLOADED, fate, "no");
        let attempts = Attempts::default();
        assert_eq!(attempts.judge(error(Fate::Unknown)).fate(), Fate::NotSent, "nothing has left");
        assert_eq!(attempts.judge(error(Fate::Failed)).fate(), Fate::Failed);
        attempts.begin();
        assert_eq!(attempts.judge(error(Fate::NotSent)).fate(), Fate::Unknown, "the first may have run");
        assert_eq!(attempts.judge(error(Fate::Failed)).fate(), Fate::Failed);
        attempts.was_not_sent();
        assert_eq!(attempts.judge(error(Fate::NotSent)).fate(), Fate::NotSent);
    }
}

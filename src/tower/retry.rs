//! Calls that are made again. `budget.rs` decides how many.

use super::as_call::AsCall;
use super::boxed::IntoCallError;
use super::budget::Budget;
use meshwork_actors::link::Backoff;
use meshwork_wire::limits::{CALL_WITHIN, RETRIES_MAX, RETRY_AFTER_MAX, RETRY_AFTER_MIN};
use meshwork_wire::{CallError, Code, Fate};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{BoxError, Layer, Service};

/// Makes calls again that were not sent: the layer for calls whose provider drains, restarts or has no room.
///
/// A call is made again when it ended as *not sent* for a reason that passes: no provider or no room ([`Code::ACTION_NOT_FOUND`],
/// [`Code::OVERLOADED`]), a provider or a link that goes ([`Code::PROVIDER_LOST`], [`Code::LINK_LOST`], [`Code::DRAINING`]), an attempt whose time
/// was over before it left ([`Code::REQUEST_TIMEOUT`]). It is made again after a wait that doubles, by chance, from 10 ms to 1 s; 5 times at most;
/// and not when the wait would pass its deadline, or the budget is spent. Then it ends with its last error, whose fate is *unknown* if any
/// attempt may have run.
///
/// A call that is [idempotent](crate::Calling::idempotent), which its provider runs once, is made again also when it may have run.
///
/// The budget is shared by all calls through this layer, its clones too: each call pays a part of a retry in, each retry takes one out. So
/// when everything fails, calls grow by that part and not by the number of retries: `budget(0.2)` adds a fifth. 10 retries a second are free, and
/// a burst has 100.
///
/// It wraps the service of one action ([`Node::service`](crate::Node::service)), or all calls of a node
/// ([`LayerCalls`](super::LayerCalls)). Timeouts of single attempts stand inside it.
#[derive(Clone, Debug)]
pub struct RetryNotSent {
    budget: Arc<Mutex<Budget>>,
    rules: Rules,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    retries_max: u32,
    after_min: Duration,
    after_max: Duration,
    within: Duration,
}

impl RetryNotSent {
    /// Retries for this part of the calls, such as 0.2 for a fifth of them.
    ///
    /// # Panics
    ///
    /// When the part is negative or not finite: a mistake in the program.
    #[must_use]
    pub fn budget(part: f64) -> Self {
        let rules = Rules {
            retries_max: RETRIES_MAX,
            after_min: RETRY_AFTER_MIN,
            after_max: RETRY_AFTER_MAX,
            within: CALL_WITHIN,
        };
        Self { budget: Arc::new(Mutex::new(Budget::new(part))), rules }
    }

    /// How many retries a second the budget gives in any case. Default: 10, so that a caller which calls seldom may retry at all.
    #[must_use]
    pub fn at_least(self, per_second: u32) -> Self {
        let budget = self.lock().clone().at_least(per_second);
        Self { budget: Arc::new(Mutex::new(budget)), ..self }
    }

    /// How many times one call is made again at most. Default: 5.
    #[must_use]
    pub fn at_most(mut self, retries: u32) -> Self {
        self.rules.retries_max = retries;
        self
    }

    /// The shortest wait before a call is made again, and the longest; each wait is up to twice as long as the one before, by chance. Default:
    /// from 10 ms to 1 s. At least 1 ms.
    #[must_use]
    pub fn after(mut self, shortest: Duration, longest: Duration) -> Self {
        (self.rules.after_min, self.rules.after_max) = (shortest, longest.max(shortest));
        self
    }

    /// How long all attempts at one call may take together, where the layer wraps the service of one action. Default: 10 s. Around the calls of a
    /// node, each call has its own deadline.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.rules.within = within;
        self
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Budget> {
        // Nothing in here leaves the budget half-changed when it panics.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Layer<S> for RetryNotSent {
    type Service = Retrying<S>;

    fn layer(&self, inner: S) -> Retrying<S> {
        Retrying { inner, retry: self.clone() }
    }
}

/// A service whose calls are made again: see [`RetryNotSent`].
#[derive(Clone, Debug)]
pub struct Retrying<S> {
    inner: S,
    retry: RetryNotSent,
}

impl<S, Q> Service<Q> for Retrying<S>
where
    S: Service<Q> + Clone,
    S::Error: Into<BoxError>,
    Q: AsCall + Clone,
{
    type Response = S::Response;
    type Error = CallError;
    type Future = RetryFuture<S, Q>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(context).map_err(IntoCallError::into_call_error)
    }

    fn call(&mut self, request: Q) -> RetryFuture<S, Q> {
        self.retry.lock().call();
        let rules = self.retry.rules;
        let deadline = match request.deadline() {
            Some(deadline) => Some(Instant::from_std(deadline)),
            None => Instant::now().checked_add(rules.within),
        };
        let again = request.clone();
        let future = self.inner.call(request);
        RetryFuture {
            request: again,
            service: self.inner.clone(),
            retry: self.retry.clone(),
            backoff: Backoff::new(rules.after_min, rules.after_max),
            deadline,
            retries: 0,
            may_have_run: false,
            state: State::Calling { future },
        }
    }
}

pin_project! {
    /// The future of a call through [`Retrying`].
    pub struct RetryFuture<S, Q>
    where
        S: Service<Q>,
    {
        request: Q,
        service: S,
        retry: RetryNotSent,
        backoff: Backoff,
        deadline: Option<Instant>,
        retries: u32,
        // Whether an attempt may have run.
        may_have_run: bool,
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Calling { #[pin] future: F },
        Waiting { #[pin] sleep: Sleep },
        // The service is not ready yet.
        Readying,
    }
}

impl<S, Q> Future for RetryFuture<S, Q>
where
    S: Service<Q>,
    S::Error: Into<BoxError>,
    Q: AsCall + Clone,
{
    type Output = Result<S::Response, CallError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let error = match this.state.as_mut().project() {
                StateProjection::Calling { future } => match ready!(future.poll(context)) {
                    Ok(response) => return Poll::Ready(Ok(response)),
                    Err(error) => error.into_call_error(),
                },
                StateProjection::Waiting { sleep } => {
                    ready!(sleep.poll(context));
                    this.state.set(State::Readying);
                    continue;
                }
                StateProjection::Readying => match ready!(this.service.poll_ready(context)) {
                    Ok(()) => {
                        let future = this.service.call(this.request.clone());
                        this.state.set(State::Calling { future });
                        continue;
                    }
                    Err(error) => error.into_call_error(),
                },
            };
            *this.may_have_run |= error.fate() != Fate::NotSent;
            let wait = this.backoff.next();
            let now = Instant::now();
            let next =
                now.checked_add(wait).filter(|next| this.deadline.is_none_or(|deadline| *next < deadline));
            match next {
                Some(next)
                    if (passes(&error)
                        || (error.fate() == Fate::Unknown && this.request.is_idempotent()))
                        && *this.retries < this.retry.rules.retries_max
                        && this.retry.lock().retry(now.into_std()) =>
                {
                    *this.retries += 1;
                    this.state.set(State::Waiting { sleep: sleep_until(next) });
                }
                _ => {
                    let fate = if *this.may_have_run && error.fate() == Fate::NotSent {
                        Fate::Unknown
                    } else {
                        error.fate()
                    };
                    return Poll::Ready(Err(error.with_fate(fate)));
                }
            }
        }
    }
}

/// Whether the reason of an error passes, and the call was not sent.
fn passes(error: &CallError) -> bool {
    const PASSING: [Code; 6] = [
        Code::ACTION_NOT_FOUND,
        Code::OVERLOADED,
        Code::PROVIDER_LOST,
        Code::LINK_LOST,
        Code::DRAINING,
        Code::REQUEST_TIMEOUT,
    ];
    error.fate() == Fate::NotSent && PASSING.contains(&error.code())
}

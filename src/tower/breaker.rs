//! Circuit breakers around calls. `circuit.rs` decides; here the outcomes of calls are told to the circuits of their actions.

use super::as_call::AsCall;
use super::boxed::IntoCallError;
use super::circuit::{Circuit, Ended, Pass, Rules, Window};
use meshwork_actors::log_line;
use meshwork_actors::repeated::Repeated;
use meshwork_wire::limits::{CIRCUIT_CALLS_MAX, CIRCUITS_MAX};
use meshwork_wire::{CallError, Code, Fate};
use pin_project_lite::pin_project;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// Refuses calls of an action for a while when too many of its last calls failed, so that callers do not wait for a provider that cannot answer,
/// and the provider has a rest. A refused call ends at once with [`Code::CIRCUIT_OPEN`], not sent.
///
/// Around the calls of a node ([`LayerCalls`](super::LayerCalls)) each action has a circuit, and each node that calls are sent to by
/// [`on`](crate::Calling::on) has one of its own for each action. Calls of any provider count for the action as a whole, since the master
/// chooses who answers. Around the service of one action there is one circuit.
///
/// By default a circuit opens when half of its last 20 calls failed, 10 at least; rests for 5 s; and then lets one call try. What counts as
/// failed is that there was no answer: [`Code::REQUEST_TIMEOUT`], [`Code::OVERLOADED`], [`Code::PROVIDER_LOST`], [`Code::LINK_LOST`],
/// [`Code::DRAINING`], [`Code::ACTION_NOT_FOUND`], [`Code::PANICKED`]. The error of an application is an answer.
///
/// Costs a lock and a look into a map for each call, and memory for the last calls of up to 4,096 circuits.
///
/// ```
/// # use meshwork::prelude::*;
/// use meshwork::tower::{CircuitBreaker, LayerCalls};
///
/// let breaker = CircuitBreaker::new().open_at(0.5).of_time(Duration::from_secs(10)).rest(Duration::from_secs(2)).trials(3);
/// let branch = BranchActor::new("orders").layer_calls(breaker);
/// ```
#[derive(Clone)]
pub struct CircuitBreaker {
    rules: Rules,
    has_failed: Arc<dyn Fn(&CallError) -> bool + Send + Sync>,
}

impl CircuitBreaker {
    /// A breaker with the defaults.
    #[must_use]
    pub fn new() -> Self {
        let rules = Rules {
            window: Window::Calls(20),
            failed: 0.5,
            calls_min: 10,
            rest: Duration::from_secs(5),
            trials: 1,
        };
        Self { rules, has_failed: Arc::new(had_no_answer) }
    }

    /// The part of the calls in the window that must have failed for the circuit to open. Default: 0.5, half of them.
    ///
    /// # Panics
    ///
    /// When the part is no number between 0 and 1: a mistake in the program.
    #[must_use]
    pub fn open_at(mut self, part: f64) -> Self {
        assert!(
            (0.0..=1.0).contains(&part),
            "a circuit opens at a part of its calls, such as 0.5, and not at {part}"
        );
        self.rules.failed = part;
        self
    }

    /// Looks at the last so many calls. Default: 20; 65,536 at most.
    #[must_use]
    pub fn of_calls(mut self, calls: usize) -> Self {
        let calls = calls.clamp(1, CIRCUIT_CALLS_MAX);
        self.rules.window = Window::Calls(calls);
        // A window that is never so full would never be looked at.
        self.rules.calls_min = self.rules.calls_min.min(u32::try_from(calls).unwrap_or(u32::MAX));
        self
    }

    /// Looks at the calls that ended in the last so long, to a tenth of it.
    #[must_use]
    pub fn of_time(mut self, within: Duration) -> Self {
        self.rules.window = Window::Time(within);
        self
    }

    /// How many calls the window must have before the circuit may open. Default: 10.
    #[must_use]
    pub fn calls_min(mut self, calls: u32) -> Self {
        self.rules.calls_min = calls;
        if let Window::Calls(max) = self.rules.window {
            self.rules.window = Window::Calls(max.max(calls as usize).min(CIRCUIT_CALLS_MAX));
        }
        self
    }

    /// How long an open circuit rests before it lets calls try. Default: 5 s.
    #[must_use]
    pub fn rest(mut self, rest: Duration) -> Self {
        self.rules.rest = rest;
        self
    }

    /// How many calls are made as trials after the rest: when all of them succeed the circuit closes, when one fails it opens again. Default: 1;
    /// at least 1.
    #[must_use]
    pub fn trials(mut self, trials: u32) -> Self {
        self.rules.trials = trials.max(1);
        self
    }

    /// What counts as failed, in place of the default.
    #[must_use]
    pub fn failing_if(mut self, has_failed: impl Fn(&CallError) -> bool + Send + Sync + 'static) -> Self {
        self.has_failed = Arc::new(has_failed);
        self
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Whether a call had no answer, for a reason of its providers or of the way to them.
fn had_no_answer(error: &CallError) -> bool {
    const NO_ANSWER: [Code; 7] = [
        Code::REQUEST_TIMEOUT,
        Code::OVERLOADED,
        Code::PROVIDER_LOST,
        Code::LINK_LOST,
        Code::DRAINING,
        Code::ACTION_NOT_FOUND,
        Code::PANICKED,
    ];
    NO_ANSWER.contains(&error.code())
}

impl<S> Layer<S> for CircuitBreaker {
    type Service = Breaking<S>;

    fn layer(&self, inner: S) -> Breaking<S> {
        let circuits =
            Circuits { breaker: self.clone(), by_name: Mutex::default(), changed: Repeated::new() };
        Breaking { inner, circuits: Arc::new(circuits) }
    }
}

/// A service with circuits: see [`CircuitBreaker`]. Clones share them.
#[derive(Clone, Debug)]
pub struct Breaking<S> {
    inner: S,
    circuits: Arc<Circuits>,
}

struct Circuits {
    breaker: CircuitBreaker,
    by_name: Mutex<ByName>,
    /// The lines of the log about circuits that open and close.
    changed: Repeated,
}

#[derive(Default)]
struct ByName {
    /// At most [`CIRCUITS_MAX`]. Named by the action; by the action and the node behind a line break, which no name has, if calls are sent to it.
    circuits: BTreeMap<String, Arc<Mutex<Circuit>>>,
    /// When circuits that tell nothing were last looked for, since there was no room.
    swept: Option<std::time::Instant>,
}

impl fmt::Debug for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuits").field("breaker", &self.breaker).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here leaves a circuit half-changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often circuits that tell nothing are looked for, while there is no room for more.
const SWEPT_EVERY: Duration = Duration::from_secs(1);

impl Circuits {
    /// The circuit of these calls; none if there is no room for one more.
    fn find(&self, action: &str, node: &str, now: std::time::Instant) -> Option<Arc<Mutex<Circuit>>> {
        let name =
            if node.is_empty() { Cow::Borrowed(action) } else { Cow::Owned(format!("{action}\n{node}")) };
        let mut by_name = lock(&self.by_name);
        let ByName { circuits, swept } = &mut *by_name;
        if let Some(circuit) = circuits.get(&*name) {
            return Some(Arc::clone(circuit));
        }
        let rules = &self.breaker.rules;
        let may_sweep = swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEPT_EVERY);
        if circuits.len() >= CIRCUITS_MAX && may_sweep {
            *swept = Some(now);
            circuits
                .retain(|_, circuit| Arc::strong_count(circuit) > 1 || !lock(circuit).is_idle(rules, now));
        }
        if circuits.len() >= CIRCUITS_MAX {
            return None;
        }
        let circuit = Arc::new(Mutex::new(Circuit::new(rules, now)));
        circuits.insert(name.into_owned(), Arc::clone(&circuit));
        Some(circuit)
    }
}

/// A call that its circuit let pass; dropped before its end is told, it tells nothing.
struct Watched {
    circuits: Arc<Circuits>,
    circuit: Arc<Mutex<Circuit>>,
    pass: Pass,
    title: String,
    is_told: bool,
}

impl Watched {
    fn tell(&mut self, ended: Ended) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let now = Instant::now().into_std();
        let changed = lock(&self.circuit).ended(&self.circuits.breaker.rules, self.pass, ended, now);
        if let Some(state) = changed {
            log_line!(self.circuits.changed.warn(now), "the circuit of {} is {state}", self.title);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tell(Ended::Untold);
    }
}

fn title(action: &str, node: &str) -> String {
    match (action, node) {
        ("", _) => "an action".to_owned(),
        (action, "") => format!("{action:?}"),
        (action, node) => format!("{action:?} at {node:?}"),
    }
}

impl<S, Q> Service<Q> for Breaking<S>
where
    S: Service<Q>,
    S::Error: Into<BoxError>,
    Q: AsCall,
{
    type Response = S::Response;
    type Error = CallError;
    type Future = BreakerFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(context).map_err(IntoCallError::into_call_error)
    }

    fn call(&mut self, request: Q) -> BreakerFuture<S::Future> {
        let now = Instant::now().into_std();
        let (action, node) = (request.action(), request.node());
        let Some(circuit) = self.circuits.find(action, node, now) else {
            return BreakerFuture {
                state: State::Calling { future: self.inner.call(request), watched: None },
            };
        };
        let asked = lock(&circuit).ask(&self.circuits.breaker.rules, now);
        match asked {
            Ok(pass) => {
                let circuits = Arc::clone(&self.circuits);
                let watched = Watched { circuits, circuit, pass, title: title(action, node), is_told: false };
                let future = self.inner.call(request);
                BreakerFuture { state: State::Calling { future, watched: Some(watched) } }
            }
            Err(rest) => {
                let when = if rest.is_zero() {
                    "other calls are trying it".to_owned()
                } else {
                    format!("a call tries it again in {rest:?}")
                };
                let what = format!("too many of the last calls of {} failed: {when}", title(action, node));
                let error = CallError::new(Code::CIRCUIT_OPEN, Fate::NotSent, what);
                BreakerFuture { state: State::Refused { error: Some(error) } }
            }
        }
    }
}

pin_project! {
    /// The future of a call through [`Breaking`].
    pub struct BreakerFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Calling { #[pin] future: F, watched: Option<Watched> },
        Refused { error: Option<CallError> },
    }
}

impl<F, R, E> Future for BreakerFuture<F>
where
    F: Future<Output = Result<R, E>>,
    E: Into<BoxError>,
{
    type Output = Result<R, CallError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Calling { future, watched } => {
                let outcome = ready!(future.poll(context)).map_err(IntoCallError::into_call_error);
                if let Some(watched) = watched {
                    let has_failed = &watched.circuits.breaker.has_failed;
                    let ended = match &outcome {
                        Ok(_) => Ended::Succeeded,
                        Err(error) if has_failed(error) => Ended::Failed,
                        // The answer of an application.
                        Err(error) if error.code() == Code::UNKNOWN => Ended::Succeeded,
                        Err(_) => Ended::Untold,
                    };
                    watched.tell(ended);
                }
                Poll::Ready(outcome)
            }
            StateProjection::Refused { error } => {
                let again = || CallError::new(Code::CANCELLED, Fate::NotSent, "a call was awaited twice");
                Poll::Ready(Err(error.take().unwrap_or_else(again)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service of another action would have had no circuit, or taken that of another.
    #[test]
    fn circuits_have_a_bound_above_which_calls_pass_without_one() {
        let layered = CircuitBreaker::new().layer(());
        let now = std::time::Instant::now();
        let rules = &layered.circuits.breaker.rules;
        for number in 0..CIRCUITS_MAX {
            let circuit = layered.circuits.find(&number.to_string(), "", now).expect("there is room");
            // One call that failed: the circuit tells something.
            let mut circuit = lock(&circuit);
            let pass = circuit.ask(rules, now).expect("it is closed");
            circuit.ended(rules, pass, if number == 7 { Ended::Succeeded } else { Ended::Failed }, now);
        }
        assert!(layered.circuits.find("one more", "", now).is_some(), "the one that told nothing is gone");
        assert!(layered.circuits.find("and one more", "", now).is_none());
        assert!(layered.circuits.find("7", "there", now).is_none(), "and a node is a circuit of its own");
        assert!(layered.circuits.find("8", "", now).is_some());
    }
}

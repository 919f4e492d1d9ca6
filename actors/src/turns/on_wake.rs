//! Timers and readers of an actor, each polled only when it has woken the actor itself. A context polls all its futures and streams
//! whenever one of them, or a message, has woken it; with one call in flight, timers and a socket that were silent took a twentieth
//! of the caller's instructions, and a tenth of the instructions of a master that relays.

use actix::utils::{IntervalFunc, TimerFunc};
use actix::{Actor, ActorFuture, ActorStreamExt, AsyncContext, SpawnHandle};
use futures::Stream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Longer than any process runs.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A stream or a future of an actor that is polled only when it has woken its task since it was pending.
pub(crate) struct OnWake<T> {
    inner: T,
    bell: Arc<Bell>,
    /// The bell, as the waker that `inner` is polled with.
    rings: Waker,
    /// The task of the actor, which the bell wakes.
    task: Waker,
    /// Whether `inner` was pending when it was polled last.
    pending: bool,
}

/// A waker that notes that it was rung, and wakes the task of the actor.
struct Bell {
    rung: AtomicBool,
    task: Mutex<Waker>,
}

impl<T> OnWake<T> {
    pub(crate) fn new(inner: T) -> Self {
        let task = Waker::noop().clone();
        let bell = Arc::new(Bell { rung: AtomicBool::new(false), task: Mutex::new(task.clone()) });
        Self { inner, rings: Waker::from(Arc::clone(&bell)), bell, task, pending: false }
    }

    fn poll_with<R>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(&mut T, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        if !self.task.will_wake(context.waker()) {
            self.task.clone_from(context.waker());
            self.bell.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(context.waker());
        }
        if self.pending && !self.bell.has_rung() {
            return Poll::Pending;
        }
        let polled = poll(&mut self.inner, &mut Context::from_waker(&self.rings));
        self.pending = polled.is_pending();
        polled
    }
}

impl Bell {
    /// Whether the bell has rung since the last time this was asked.
    fn has_rung(&self) -> bool {
        // A load is cheaper than a swap, and most of the time the bell has not rung.
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::Acquire)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

impl<S: Stream + Unpin> Stream for OnWake<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.poll_with(context, |stream, context| Pin::new(stream).poll_next(context))
    }
}

impl<A: Actor, F: ActorFuture<A> + Unpin> ActorFuture<A> for OnWake<F> {
    type Output = F::Output;

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut A::Context,
        task: &mut Context<'_>,
    ) -> Poll<F::Output> {
        self.poll_with(task, |future, task| Pin::new(future).poll(actor, context, task))
    }
}

/// [`AsyncContext::run_later`] with a timer that is polled only when it rings.
pub(crate) fn run_later<A: Actor<Context = actix::Context<A>>>(
    context: &mut actix::Context<A>,
    after: Duration,
    run: impl FnOnce(&mut A, &mut actix::Context<A>) + 'static,
) -> SpawnHandle {
    context.spawn(OnWake::new(Box::pin(TimerFunc::new(after, run))))
}

/// [`AsyncContext::run_interval`] with a timer that is polled only when it rings.
pub(crate) fn run_interval<A: Actor<Context = actix::Context<A>>>(
    context: &mut actix::Context<A>,
    every: Duration,
    run: impl FnMut(&mut A, &mut actix::Context<A>) + 'static,
) -> SpawnHandle {
    // actix adds the time to a moment, and panics where there is none so far away.
    let every = every.min(NEVER);
    context.spawn(OnWake::new(Box::pin(IntervalFunc::new(every, run).finish())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker_ref;
    use futures::{FutureExt, StreamExt, channel::mpsc, poll};
    use std::cell::Cell;
    use std::rc::Rc;

    /// A stream, and the count of its polls.
    fn counted<S: Stream + Unpin>(mut stream: S) -> (impl Stream<Item = S::Item> + Unpin, Rc<Cell<usize>>) {
        let polls = Rc::new(Cell::new(0));
        let counter = Rc::clone(&polls);
        let stream = futures::stream::poll_fn(move |context| {
            counter.set(counter.get() + 1);
            stream.poll_next_unpin(context)
        });
        (stream, polls)
    }

    #[actix_rt::test]
    async fn a_stream_is_polled_again_only_when_it_has_woken() {
        let (mut say, said) = mpsc::channel(4);
        let (said, polls) = counted(said);
        let mut said = OnWake::new(said);
        for _ in 0..3 {
            assert!(poll!(said.next()).is_pending());
        }
        assert_eq!(polls.get(), 1);
        say.try_send(1).expect("room");
        say.try_send(2).expect("room");
        assert_eq!(poll!(said.next()), Poll::Ready(Some(1)));
        assert_eq!(poll!(said.next()), Poll::Ready(Some(2)), "the stream was not pending in between");
        assert!(poll!(said.next()).is_pending());
        drop(say);
        assert_eq!(said.next().await, None, "the end wakes, too");
    }

    #[actix_rt::test]
    async fn the_task_that_polled_last_is_woken() {
        let (mut say, said) = mpsc::channel(1);
        let mut said = OnWake::new(said);
        assert!(said.next().poll_unpin(&mut Context::from_waker(noop_waker_ref())).is_pending());
        let hear = said.next();
        let (heard, ()) = futures::join!(hear, async { say.try_send(1).expect("room") });
        assert_eq!(heard, Some(1));
    }

    struct Clock(Vec<&'static str>);

    impl Actor for Clock {
        type Context = actix::Context<Self>;

        fn started(&mut self, context: &mut Self::Context) {
            run_interval(context, Duration::from_millis(10), |this: &mut Self, _| this.0.push("tick"));
            let late =
                run_later(context, Duration::from_millis(15), |this: &mut Self, _| this.0.push("late"));
            run_later(context, Duration::from_millis(5), move |this: &mut Self, context| {
                this.0.push("soon");
                context.cancel_future(late);
            });
        }
    }

    #[derive(actix::Message)]
    #[rtype(result = "Vec<&'static str>")]
    struct Tell;

    impl actix::Handler<Tell> for Clock {
        type Result = actix::MessageResult<Tell>;

        fn handle(&mut self, _: Tell, _: &mut Self::Context) -> Self::Result {
            actix::MessageResult(self.0.clone())
        }
    }

    #[actix_rt::test]
    async fn timers_ring_on_time_and_can_be_cancelled() {
        // Paused time goes on by itself whenever all tasks sleep.
        tokio::time::pause();
        let clock = Clock(Vec::new()).start();
        assert_eq!(clock.send(Tell).await, Ok(vec![]));
        tokio::time::sleep(Duration::from_millis(6)).await;
        assert_eq!(clock.send(Tell).await, Ok(vec!["soon"]));
        tokio::time::sleep(Duration::from_millis(18)).await;
        assert_eq!(clock.send(Tell).await, Ok(vec!["soon", "tick", "tick"]));
    }
}

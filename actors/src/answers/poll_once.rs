//! Polls the future of a responder once: a future that is ready at its first poll costs no allocation.

use futures::future::LocalBoxFuture;
use meshwork_wire::Outcome;
use std::any::Any;
use std::cell::Cell;
use std::pin::Pin;
use std::task::{Poll, Waker};

/// Polls a future once and gives its output. A future that is not ready is given back, boxed, as a future whose output is made by
/// `outcome`; the task that awaits it polls it again, with a waker of its own. A future that is ready costs no allocation: each thread
/// keeps the box of the last one for the next future of its type.
///
/// # Errors
///
/// The future, when it is not ready.
#[inline]
pub fn poll_once<F, M>(future: F, outcome: M) -> Result<F::Output, LocalBoxFuture<'static, Outcome>>
where
    F: Future + 'static,
    M: FnOnce(F::Output) -> Outcome + 'static,
{
    /// The box of the last future that was ready, if it was of this type.
    type Spare<F, M> = Option<Pin<Box<Polled<F, M>>>>;
    // Taken, not borrowed: a future may itself call `poll_once`. A thread that ends has no spare box any more.
    let mut spare = SPARE.try_with(Cell::take).ok().flatten();
    let kept =
        spare.as_deref_mut().and_then(|spare| spare.downcast_mut::<Spare<F, M>>()).and_then(Option::take);
    let mut polled = kept.unwrap_or_else(|| Box::pin(Polled { future: None, outcome: None }));
    polled.as_mut().project().future.set(Some(future));
    let ready = match polled.as_mut().project().future.as_pin_mut() {
        Some(future) => future.poll(&mut std::task::Context::from_waker(Waker::noop())),
        None => Poll::Pending,
    };
    let Poll::Ready(ready) = ready else {
        *polled.as_mut().project().outcome = Some(outcome);
        return Err(polled);
    };
    polled.as_mut().project().future.set(None);
    if size_of::<Polled<F, M>>() <= SPARE_LEN_MAX {
        match spare.as_deref_mut().and_then(|spare| spare.downcast_mut::<Spare<F, M>>()) {
            Some(spare) => *spare = Some(polled),
            None => spare = Some(Box::new(Some(polled) as Spare<F, M>)),
        }
        let _ = SPARE.try_with(|kept| kept.set(spare));
    }
    Ok(ready)
}

/// The box of a larger future is not kept.
const SPARE_LEN_MAX: usize = 4096;

thread_local! {
    static SPARE: Cell<Option<Box<dyn Any>>> = const { Cell::new(None) };
}

pin_project_lite::pin_project! {
    /// A future that was polled, and the function that makes its outcome.
    struct Polled<F, M> {
        #[pin]
        future: Option<F>,
        outcome: Option<M>,
    }
}

impl<F: Future, M: FnOnce(F::Output) -> Outcome> Future for Polled<F, M> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        match this.future.as_pin_mut().map(|future| future.poll(context)) {
            Some(Poll::Ready(ready)) => match this.outcome.take() {
                Some(outcome) => Poll::Ready(outcome(ready)),
                None => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::responder::reply;
    use meshwork_wire::{Encoding, Payload};
    use std::future::{pending, ready};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    fn none(_: u32) -> Outcome {
        Ok(Payload::default())
    }

    /// The address of the box that this thread keeps.
    fn spare() -> Option<*const ()> {
        let spare = SPARE.take();
        let at = spare.as_deref().map(|spare| std::ptr::from_ref(spare).cast());
        SPARE.set(spare);
        at
    }

    #[test]
    fn a_box_is_kept_for_the_next_future_of_the_type() {
        assert_eq!(poll_once(ready(1), none).ok(), Some(1));
        let first = spare();
        assert!(first.is_some());
        assert_eq!(poll_once(ready(2), none).ok(), Some(2));
        assert_eq!(spare(), first);
        assert_eq!(
            poll_once(async { 3 }, |_| Ok(Payload::default())).ok(),
            Some(3),
            "and another type has a box of its own"
        );
        let large = [0_u8; SPARE_LEN_MAX];
        let later = async move {
            std::future::ready(()).await;
            large.len()
        };
        assert_eq!(poll_once(later, |_| Ok(Payload::default())).ok(), Some(SPARE_LEN_MAX));
        assert_eq!(spare(), None, "a large one keeps nothing");
    }

    #[test]
    fn a_future_that_asks_a_responder_itself_finds_a_box_of_its_own() {
        let inner = || poll_once(ready(1), none).ok();
        assert_eq!(poll_once(async move { inner() }, |_| Ok(Payload::default())).ok(), Some(Some(1)));
        assert_eq!(inner(), Some(1));
    }

    #[actix_rt::test]
    async fn a_future_that_is_not_ready_goes_on_where_it_was() {
        let (tell, told) = tokio::sync::oneshot::channel::<u32>();
        let future = async move { told.await.unwrap_or_default() };
        let Err(later) = poll_once(future, |number| reply(Encoding::Json, &number)) else {
            panic!("nobody has told it yet");
        };
        let meanwhile = poll_once(ready(1), none);
        assert!(meanwhile.is_ok());
        tell.send(7).expect("it waits");
        assert_eq!(later.await.expect("a number").decode::<u32>(), Ok(7));
    }

    #[test]
    fn a_future_that_panics_is_dropped_and_so_is_one_that_nobody_awaits() {
        let held = Rc::new(());
        let panics = |held: Rc<()>| async move {
            let _held = held;
            panic!("no");
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            poll_once(panics(Rc::clone(&held)), |(): ()| Ok(Payload::default())).is_ok()
        }));
        assert!(polled.is_err());
        let waits = |held: Rc<()>| async move {
            let _held = held;
            pending::<u32>().await
        };
        drop(poll_once(waits(Rc::clone(&held)), none));
        assert_eq!(Rc::strong_count(&held), 1);
    }
}

//! The credit of a connection: how many bytes other actors may hold for it. A [`Charge`] is taken when a block is read, goes with each message
//! that comes of the block, and is given back when the message has been handled. While the credit is spent, the reader of the connection
//! stops. Messages are handled whatever any peer does, so a reader that has stopped goes on, and no two readers wait for each other.

use futures::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// The credit of one connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Credit(Arc<Shared>);

struct Shared {
    /// How many bytes others hold.
    held: AtomicUsize,
    held_max: usize,
    /// The reader, while it has stopped.
    reader: AtomicWaker,
}

/// Bytes that another actor holds for a connection; dropping it gives them back.
pub(crate) struct Charge {
    credit: Credit,
    len: usize,
}

impl Credit {
    /// A credit of so many bytes. One block is read whatever its length, so that a frame longer than the credit gets through.
    pub(crate) fn new(held_max: usize) -> Self {
        Self(Arc::new(Shared { held: AtomicUsize::new(0), held_max, reader: AtomicWaker::new() }))
    }

    /// Charges the connection for so many bytes.
    #[inline]
    pub(crate) fn charge(&self, len: usize) -> Charge {
        self.0.held.fetch_add(len, Ordering::Relaxed);
        Charge { credit: self.clone(), len }
    }

    /// Whether more bytes are held than the connection has credit for.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.0.held.load(Ordering::Acquire) > self.0.held_max
    }

    /// Ready while the credit is not spent; else the task is woken when it is not spent any more.
    #[inline]
    pub(crate) fn poll_unspent(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_spent() { self.wait(context) } else { Poll::Ready(()) }
    }

    #[cold]
    fn wait(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.reader.register(context.waker());
        // The last charge may have been given back before the waker was there.
        if self.is_spent() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Charge {
    #[inline]
    fn drop(&mut self) {
        let Shared { held, held_max, reader } = &*self.credit.0;
        // Ordered with the load behind the registration of the waker: one of the two sees the other.
        let before = held.fetch_sub(self.len, Ordering::AcqRel);
        if before > *held_max && before - self.len <= *held_max {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker_ref;
    use std::sync::atomic::AtomicBool;
    use std::task::{Wake, Waker};

    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_reader_stops_while_the_credit_is_spent_and_is_woken_when_it_is_given_back() {
        let credit = Credit::new(100);
        let bell = Arc::new(Bell(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&bell));
        let poll = || credit.poll_unspent(&mut Context::from_waker(&waker)).is_ready();
        let first = credit.charge(100);
        assert!(poll(), "not more than it has");
        let (second, third) = (credit.charge(1), credit.charge(50));
        assert!(!poll());
        drop(second);
        assert!(!bell.0.load(Ordering::SeqCst) && !poll(), "50 are missing");
        drop(first);
        assert!(bell.0.load(Ordering::SeqCst) && poll());
        drop(third);
        assert_eq!(credit.0.held.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn charges_that_other_threads_give_back_leave_no_reader_stopped() {
        for _ in 0..200 {
            let credit = Credit::new(10);
            let charges: Vec<_> = (0..8).map(|_| credit.charge(8)).collect();
            let woken = Arc::new(Bell(AtomicBool::new(false)));
            let waker = Waker::from(Arc::clone(&woken));
            std::thread::scope(|scope| {
                charges.into_iter().for_each(|charge| _ = scope.spawn(move || drop(charge)));
                if credit.poll_unspent(&mut Context::from_waker(&waker)).is_pending() {
                    while !woken.0.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                }
            });
            assert!(credit.poll_unspent(&mut Context::from_waker(noop_waker_ref())).is_ready());
        }
    }
}

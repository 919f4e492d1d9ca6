//! The inbox of a stream at its consumer: the items that have come and were not taken yet. The actor of the node puts them in, the task that
//! reads the stream takes all that are there at once. The window of the stream bounds them.

use super::window::{Allowance, Ungranted};
use crate::hashed::HashMap;
use bytes::BytesMut;
use meshwork_wire::limits::PAYLOAD_SHARED_LEN_MIN;
use meshwork_wire::{
    CallError, CallbackId, Callbacks, Code, Encoding, Fate, Grant, Payload, PayloadRef, append,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The items of one stream that have come to its consumer.
#[derive(Debug)]
pub struct Inbox(Mutex<State>);

#[derive(Debug)]
struct State {
    batch: Batch,
    /// How much the producer may still send.
    allowance: Allowance,
    has_started: bool,
    /// The end of the stream; none as long as more may come.
    end: Option<Result<(), CallError>>,
    /// The task that waits for items.
    waker: Option<Waker>,
}

/// Items that came one behind the other. Short ones are copied into one buffer, so that they cost no allocation each and keep no block of their link
/// alive.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: BytesMut,
    /// How many of these bytes have been taken.
    taken: usize,
    items: VecDeque<Entry>,
}

#[derive(Debug)]
enum Entry {
    Short { encoding: Encoding, len: usize },
    Long(Payload),
}

/// A buffer longer than this is given back when it is empty: the items of one burst made it long, and thousands of streams have two each.
const BUFFER_LEN_MAX: usize = 4 * 1024;

/// A list with room for more entries is given back when it is empty.
const ENTRIES_MAX: usize = 64;

/// The functions of an item that passes none.
static NO_CALLBACKS: Callbacks = Callbacks::none();

impl Batch {
    /// Whether no item is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn push(&mut self, payload: PayloadRef<'_>, share: impl FnOnce() -> Payload) {
        let PayloadRef { encoding, bytes, callbacks } = payload;
        if bytes.len() < PAYLOAD_SHARED_LEN_MIN && callbacks.is_empty() {
            append(&mut self.bytes, bytes);
            self.items.push_back(Entry::Short { encoding, len: bytes.len() });
        } else {
            self.items.push_back(Entry::Long(share()));
        }
    }

    /// Takes the next item, and reads it.
    #[inline]
    pub fn next<T>(&mut self, read: impl FnOnce(PayloadRef<'_>) -> T) -> Option<T> {
        match self.items.pop_front()? {
            Entry::Short { encoding, len } => {
                let start = self.taken;
                self.taken += len;
                let bytes = &self.bytes[start..self.taken];
                let item = read(PayloadRef { encoding, bytes, callbacks: &NO_CALLBACKS });
                self.clear_if_empty();
                Some(item)
            }
            Entry::Long(payload) => {
                self.clear_if_empty();
                Some(read((&payload).into()))
            }
        }
    }

    fn clear_if_empty(&mut self) {
        if !self.items.is_empty() {
            return;
        }
        self.taken = 0;
        self.bytes.clear();
        if self.bytes.capacity() > BUFFER_LEN_MAX {
            self.bytes = BytesMut::new();
        }
        if self.items.capacity() > ENTRIES_MAX {
            self.items = VecDeque::new();
        }
    }
}

impl Inbox {
    /// An empty inbox, whose consumer has granted so much.
    #[must_use]
    pub fn new(first: Grant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            batch: Batch::default(),
            allowance: Allowance::new(first),
            has_started: false,
            end: None,
            waker: None,
        })))
    }

    /// Notes that the stream has begun.
    pub fn start(&self) {
        let mut state = self.lock();
        state.has_started = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Puts an item in; `share` makes a payload of it that may be kept. An item that was not granted ends the stream, and so no peer fills the
    /// memory of a consumer. What comes behind the end is dropped.
    pub fn push(&self, payload: PayloadRef<'_>, share: impl FnOnce() -> Payload) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        state.has_started = true;
        match state.allowance.take(payload.bytes.len()) {
            Ok(()) => state.batch.push(payload, share),
            Err(Ungranted) => state.end = Some(Err(ungranted("the other end of the link"))),
        }
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Ends the stream, behind the items that are there. The first end counts.
    pub fn end(&self, end: Result<(), CallError>) {
        let mut state = self.lock();
        // Dropped when the lock is let go: an error may hold the last handle on a function.
        let unused = match &mut state.end {
            Some(_) => Some(end),
            there => {
                *there = Some(end);
                None
            }
        };
        let waker = state.waker.take();
        drop(state);
        drop(unused);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Notes that the consumer has granted more.
    pub fn grant(&self, grant: Grant) {
        // The window of the consumer is within the bound.
        let _ = self.lock().allowance.grant(grant);
    }

    /// Waits until the stream has begun, or has ended without: then this is its end.
    pub fn poll_started(&self, waker: &Waker) -> Poll<Result<(), CallError>> {
        let mut state = self.lock();
        if state.has_started {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = state.end.take() {
            // The consumer learns it here, or from the empty stream.
            state.end = Some(Ok(()));
            return Poll::Ready(end);
        }
        state.wait(waker);
        Poll::Pending
    }

    /// Takes all items that are there into an empty batch, or the end behind the last item; none: the stream has ended, and its end was taken.
    pub fn poll_take(&self, batch: &mut Batch, waker: &Waker) -> Poll<Option<Result<(), CallError>>> {
        let mut state = self.lock();
        if !state.batch.is_empty() {
            std::mem::swap(&mut state.batch, batch);
            return Poll::Ready(Some(Ok(())));
        }
        match &mut state.end {
            None => {
                state.wait(waker);
                Poll::Pending
            }
            Some(end) => match std::mem::replace(end, Ok(())) {
                Ok(()) => Poll::Ready(None),
                Err(error) => Poll::Ready(Some(Err(error))),
            },
        }
    }

    /// Whether no item waits to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().batch.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here leaves the state half-changed when it panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(kept) => kept.clone_from(waker),
            kept => *kept = Some(waker.clone()),
        }
    }
}

/// The inboxes of the streams that a node reads, by the ids of their requests. Bounded by the calls in flight.
#[derive(Debug, Default)]
pub(crate) struct Inboxes(Mutex<HashMap<CallbackId, Arc<Inbox>>>);

impl Inboxes {
    pub(crate) fn insert(&self, callback_id: CallbackId, inbox: Arc<Inbox>) {
        self.lock().insert(callback_id, inbox);
    }

    /// Takes an inbox out, and gives it back, to be dropped when no lock is held.
    pub(crate) fn remove(&self, callback_id: CallbackId) -> Option<Arc<Inbox>> {
        self.lock().remove(&callback_id)
    }

    pub(crate) fn find(&self, callback_id: CallbackId) -> Option<Arc<Inbox>> {
        self.lock().get(&callback_id).cloned()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallbackId, Arc<Inbox>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of a stream whose producer, of this name, sent more than was granted.
#[cold]
pub(crate) fn ungranted(producer: &str) -> CallError {
    let what = format!("{producer} sent more items than were granted: the stream is ended");
    CallError::new(Code::OVERLOADED, Fate::Unknown, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    const FIRST: Grant = Grant { items: 3, bytes: 100_000 };

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn push(inbox: &Inbox, bytes: Vec<u8>) {
        let payload = Payload::new(Encoding::Json, bytes);
        inbox.push((&payload).into(), || payload.clone());
    }

    fn take(inbox: &Inbox, batch: &mut Batch) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        while let Poll::Ready(Some(Ok(()))) = inbox.poll_take(batch, Waker::noop()) {
            taken.extend(std::iter::from_fn(|| batch.next(|item| item.bytes.to_vec())));
        }
        taken
    }

    #[test]
    fn items_come_out_as_they_came_in_and_the_end_behind_them() {
        let (inbox, mut batch) = (Inbox::new(FIRST), Batch::default());
        let items = [vec![], vec![1; 10], vec![2; PAYLOAD_SHARED_LEN_MIN]];
        for item in &items {
            push(&inbox, item.clone());
        }
        let error = CallError::new(Code::LINK_LOST, Fate::Unknown, "cut");
        inbox.end(Err(error));
        inbox.end(Ok(()));
        push(&inbox, vec![3]);
        assert_eq!(take(&inbox, &mut batch), items);
        let mut next = || inbox.poll_take(&mut batch, Waker::noop());
        assert_eq!(next(), Poll::Ready(None), "the error was taken once, in `take`");
        assert_eq!(inbox.poll_started(Waker::noop()), Poll::Ready(Ok(())));
    }

    #[test]
    fn an_item_that_was_not_granted_ends_the_stream() {
        let (inbox, mut batch) = (Inbox::new(FIRST), Batch::default());
        (0..9).for_each(|number| push(&inbox, vec![number]));
        assert!(matches!(inbox.poll_take(&mut batch, Waker::noop()), Poll::Ready(Some(Ok(())))));
        assert_eq!(std::iter::from_fn(|| batch.next(|item| item.bytes[0])).collect::<Vec<_>>(), [0, 1, 2]);
        let end = inbox.poll_take(&mut batch, Waker::noop());
        assert!(matches!(end, Poll::Ready(Some(Err(error))) if error.code() == Code::OVERLOADED));
    }

    #[test]
    fn a_reader_is_woken_once_for_all_that_comes_before_it_looks() {
        let (inbox, mut batch) = (Inbox::new(FIRST), Batch::default());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(inbox.poll_take(&mut batch, &waker).is_pending());
        (0..3).for_each(|number| push(&inbox, vec![number]));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(take(&inbox, &mut batch).len(), 3);
    }

    #[test]
    fn a_stream_that_fails_before_it_begins_says_so_once() {
        let (inbox, mut batch) = (Inbox::new(FIRST), Batch::default());
        assert!(inbox.poll_started(Waker::noop()).is_pending());
        inbox.end(Err(CallError::new(Code::ACTION_NOT_FOUND, Fate::NotSent, "nobody")));
        assert!(matches!(inbox.poll_started(Waker::noop()), Poll::Ready(Err(_))));
        assert_eq!(inbox.poll_take(&mut batch, Waker::noop()), Poll::Ready(None));
    }

    #[test]
    fn the_buffer_of_a_burst_is_given_back() {
        let (inbox, mut batch) = (Inbox::new(Grant { items: 100, bytes: u32::MAX }), Batch::default());
        (0..10).for_each(|_| push(&inbox, vec![0; PAYLOAD_SHARED_LEN_MIN - 1]));
        assert_eq!(take(&inbox, &mut batch).len(), 10);
        assert!(batch.bytes.capacity() <= BUFFER_LEN_MAX);
    }
}

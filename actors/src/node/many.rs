//! A batch: many calls that are awaited as one. Each call has a slot, a deadline and a reply of its own; the replies gather in the batch,
//! and its task is woken once for all replies that came together.

use super::known::Wanted;
use super::shared::{Head, Node};
use super::submission::{Call, is_copied};
use crate::calls::in_flight::{BatchId, Waiter, Wake};
use crate::calls::reply::Reply;
use bytes::BytesMut;
use meshwork_wire::limits::{CALL_WITHIN, IN_FLIGHT_MAX};
use meshwork_wire::{ByteString, CallbackId, Headers, Payload};
use serde::Serialize;
use std::sync::Arc;
use tokio::time::Instant;

/// A batch of calls of one action, awaited as one. [`ManyCalls::add`] adds a call, [`ManyCalls::submit`] submits the calls a part at a time,
/// and [`ManyCalls::next`] gives their replies as they come. Dropping the batch cancels the calls that have no reply yet.
pub struct ManyCalls {
    node: Arc<Node>,
    batch: BatchId,
    action: ByteString,
    head: Option<Head>,
    wanted: Wanted,
    headers: Headers,
    /// The arguments of the calls that are not submitted yet, one behind the other.
    bytes: BytesMut,
    unsent: Vec<Unsent>,
    /// The ids of the calls that were submitted: the first and the last id of each part.
    id_ranges: Vec<(CallbackId, CallbackId)>,
    /// How many calls were submitted.
    count: usize,
    /// How many calls were submitted whose replies [`ManyCalls::next`] has not given yet.
    awaited: usize,
}

/// The arguments of a call that is not submitted yet.
enum Unsent {
    /// The next so many bytes of `bytes`.
    Bytes(usize),
    /// Long arguments, or arguments that pass functions.
    Payload(Payload),
    /// The arguments could not be written: this is the reply to the call.
    Reply(Reply),
}

/// How many calls are submitted together at most: enough for the far end to work at while the next part is written.
const CALLS_PER_PART_MAX: usize = 320;

/// A part is submitted as soon as its arguments have so many bytes.
const PART_LEN_MAX: usize = 64 * 1024;

impl ManyCalls {
    /// A batch without calls. All its calls will be of this action, with these headers and the default deadline.
    #[must_use]
    pub fn new(node: &Arc<Node>, action: impl Into<ByteString>, headers: Headers) -> Self {
        let action = action.into();
        let head = node.head(&action);
        let wanted = head.map_or_else(|| node.wanted(&action, None), |(_, wanted)| wanted);
        // The actor writes calls with headers.
        let head = head.map(|(head, _)| head).filter(|_| headers.is_empty());
        Self {
            batch: node.begin_batch(),
            node: Arc::clone(node),
            action,
            head,
            wanted,
            headers,
            bytes: BytesMut::new(),
            unsent: Vec::new(),
            id_ranges: Vec::new(),
            count: 0,
            awaited: 0,
        }
    }

    /// Adds a call with these arguments. A call whose arguments cannot be written gets that error as its reply. Submits the calls before this
    /// one if they are a full part.
    #[inline]
    pub fn add<T: Serialize + ?Sized>(&mut self, arguments: &T) {
        if self.is_full() {
            self.submit();
        }
        let bytes = &mut self.bytes;
        let start = bytes.len();
        let written =
            Payload::encode_unless_small(self.wanted.form, arguments, |small| bytes.extend_from_slice(small));
        self.unsent.push(match written {
            Ok(None) => Unsent::Bytes(bytes.len() - start),
            Ok(Some(payload)) => Unsent::Payload(payload),
            Err(error) => Unsent::Reply(Reply::failed(error.into())),
        });
    }

    /// How many calls were added and not submitted yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Whether the calls that were added and not submitted yet are a full part: 320 calls, or 64 KiB of arguments.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.unsent.len() >= CALLS_PER_PART_MAX || self.bytes.len() >= PART_LEN_MAX
    }

    /// Submits the calls that were added.
    pub fn submit(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let deadline = Instant::now().checked_add(CALL_WITHIN).map(Instant::into_std);
        self.node.keep(deadline);
        let Self { node, batch, action, head, wanted, headers, bytes, unsent, id_ranges, count, awaited } =
            self;
        let batch = *batch;
        let mut wakes = Vec::new();
        // Dropped when the lock is let go: the end of a function in the arguments may take the lock.
        let mut refused = Vec::new();
        let submitted = node.with_queue(|queue| {
            let mut rest = &bytes[..];
            // The action may have become the node's own, or the link may be lost, since the head was found.
            let head = head.filter(|head| queue.takes(*head));
            let mut part = None;
            for unsent in unsent.drain(..) {
                let number = u32::try_from(*count).unwrap_or(u32::MAX);
                (*count, *awaited) = (*count + 1, *awaited + 1);
                let waiter = Waiter::Batch { batch, number };
                let opened = match (unsent, head) {
                    (Unsent::Bytes(len), Some(head)) => {
                        let (arguments, others) = rest.split_at(len);
                        rest = others;
                        queue.write(head, deadline, arguments, waiter)
                    }
                    (Unsent::Payload(payload), Some(head)) if is_copied(&payload) => {
                        queue.write(head, deadline, &payload.bytes, waiter)
                    }
                    (Unsent::Reply(reply), _) => {
                        wakes.push(queue.in_flight().tell_batch(batch, number, reply));
                        continue;
                    }
                    (unsent, _) => {
                        let arguments = match unsent {
                            Unsent::Bytes(len) => {
                                let (arguments, others) = rest.split_at(len);
                                rest = others;
                                Payload::new(wanted.form.encoding(), arguments.to_vec())
                            }
                            Unsent::Payload(payload) => payload,
                            Unsent::Reply(_) => continue,
                        };
                        let mut call = Call::new(action.clone(), arguments);
                        call.headers = headers.clone();
                        let opened = queue.ask(&mut call, deadline, waiter);
                        if opened.is_err() {
                            refused.push(call);
                        }
                        opened
                    }
                };
                match opened {
                    Ok(id) => part = Some(part.map_or((id, id), |(first, _)| (first, id))),
                    Err(error) => {
                        wakes.push(queue.in_flight().tell_batch(batch, number, Reply::failed(error)));
                    }
                }
            }
            id_ranges.extend(part);
        });
        if let Err(ended) = submitted {
            let numbers = *count..*count + unsent.len();
            (*count, *awaited) = (*count + unsent.len(), *awaited + unsent.len());
            unsent.clear();
            node.tell_batch(batch, numbers, &ended);
        }
        bytes.clear();
        wakes.into_iter().for_each(Wake::wake);
    }

    /// How many calls were added.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count + self.unsent.len()
    }

    /// Waits for replies to calls that were submitted; gives each with the number of its call, in the order in which the calls were added. None
    /// when the replies to all submitted calls have been given.
    pub async fn next(&mut self) -> Option<Vec<(u32, Reply)>> {
        if self.awaited == 0 {
            return None;
        }
        let replies = std::future::poll_fn(|context| self.node.poll_batch(self.batch, context.waker())).await;
        self.awaited = self.awaited.saturating_sub(replies.len());
        Some(replies)
    }
}

impl Drop for ManyCalls {
    fn drop(&mut self) {
        let id_ranges = if self.awaited > 0 { std::mem::take(&mut self.id_ranges) } else { Vec::new() };
        self.node.end_batch(self.batch, &id_ranges);
    }
}

const _: () = assert!(IN_FLIGHT_MAX <= u32::MAX as usize, "a call of a batch has a number");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::response::Calls;
    use crate::node::pending::PendingCall;
    use meshwork_wire::{Callable, Callbacks, Code, Encoding, Function, Invocation, Invoked, Passed};
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    /// How many functions and wakers were dropped, and how many of them under the lock of the node.
    #[derive(Default)]
    struct Ended {
        all: AtomicUsize,
        in_lock: AtomicUsize,
    }

    /// Counts its own drop.
    struct Ends(Arc<Node>, Arc<Ended>);

    impl Drop for Ends {
        fn drop(&mut self) {
            self.1.all.fetch_add(1, Ordering::Relaxed);
            self.1.in_lock.fetch_add(usize::from(self.0.is_locked()), Ordering::Relaxed);
        }
    }

    impl Callable for Ends {
        fn invoke(&self, _: Invocation) -> Invoked {
            Box::pin(async { Ok(Payload::default()) })
        }

        fn encoding(&self) -> Encoding {
            Encoding::MessagePack
        }
    }

    impl std::task::Wake for Ends {
        fn wake(self: Arc<Self>) {}
    }

    struct World {
        node: Arc<Node>,
        ended: Arc<Ended>,
    }

    impl World {
        fn new() -> Self {
            Self { node: Node::new("one".into()), ended: Arc::default() }
        }

        fn ends(&self) -> Ends {
            Ends(Arc::clone(&self.node), Arc::clone(&self.ended))
        }

        fn with_function(&self) -> Payload {
            let mut payload = Payload::new(Encoding::MessagePack, vec![0]);
            payload.callbacks = Callbacks::new([Passed::Here(Function::new(self.ends()))]);
            payload
        }

        fn waker(&self) -> Waker {
            Waker::from(Arc::new(self.ends()))
        }

        /// Settles every call with a reply that passes a function.
        fn settle_all(&self) {
            let mut wakes = Vec::new();
            let reply = || Reply::from(Ok(self.with_function()));
            self.node.with(&mut |in_flight| in_flight.settle_all(reply, &mut wakes));
            wakes.into_iter().for_each(crate::calls::in_flight::Wake::wake);
        }

        /// Checks that `count` functions and wakers were dropped since the last check, none of them under the lock.
        #[track_caller]
        fn ended(&self, count: usize) {
            assert_eq!(self.ended.all.swap(0, Ordering::Relaxed), count);
            assert_eq!(self.ended.in_lock.load(Ordering::Relaxed), 0);
        }

        fn call(&self, waker: &Waker) -> PendingCall {
            let call = Call::new("x", Payload::default());
            let callback_id = self.node.ask(call, waker).expect("there is room");
            PendingCall::new(Arc::clone(&self.node), callback_id)
        }
    }

    /// A function or a task that was dropped under the lock of its node took the lock again, and the thread stood for ever.
    #[test]
    fn wakers_and_functions_of_callers_end_when_the_lock_of_their_node_is_free() {
        let world = World::new();

        // The waker of a task, dropped with the call.
        let pending = world.call(&world.waker());
        drop(pending);
        world.ended(1);

        // The waker of a task that another task takes the call from.
        let mut pending = world.call(&world.waker());
        assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        world.ended(1);

        // A reply that the caller does not take.
        world.settle_all();
        drop(pending);
        world.ended(1);

        // Replies to a batch that its caller does not take, with the waker of the task that polled for them.
        let mut calls = ManyCalls::new(&world.node, "x", Headers::none());
        calls.add(&1);
        calls.add(&2);
        calls.submit();
        let waker = world.waker();
        {
            let mut next = std::pin::pin!(calls.next());
            assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            world.ended(0);
            // Another task polls from now on.
            assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            world.ended(1);
        }
        world.settle_all();
        drop(calls);
        world.ended(2);
    }

    #[test]
    fn the_functions_of_refused_calls_end_when_the_lock_of_their_node_is_free() {
        let world = World::new();
        world.node.set_in_flight_max(1);
        let mut calls = ManyCalls::new(&world.node, "x", Headers::none());
        for _ in 0..3 {
            calls.add(&Function::new(world.ends()));
        }
        calls.submit();
        // One of the three calls is in flight.
        world.ended(2);
        let replies = std::pin::pin!(calls.next()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(replies)) = replies else {
            panic!("two have been refused");
        };
        for (number, reply) in replies {
            assert!(number > 0);
            assert_eq!(reply.into_outcome().expect_err("it is refused").code(), Code::OVERLOADED);
        }
        drop(calls);
        let mut taken = Vec::new();
        world.node.take_submissions(&mut taken);
        assert_eq!(taken.len(), 2, "the call in flight, and its cancel");
        drop(taken);
        world.ended(1);
    }
}

//! Many calls that are awaited as one. Each has a slot of its own, its own deadline and its own reply; their replies gather in one place,
//! and one task is woken for all that came together.

use super::shared::{Head, Node};
use super::submission::{Call, WhenDown, is_copied};
use crate::calls::in_flight::{BatchId, Waiter, Wake};
use crate::calls::reply::Reply;
use bytes::BytesMut;
use meshwork_wire::limits::{CALL_WITHIN, IN_FLIGHT_MAX};
use meshwork_wire::{ByteString, CallbackId, Encoding, Payload};
use serde::Serialize;
use std::sync::Arc;
use tokio::time::Instant;

/// Many calls of one action that are awaited as one: [`ManyCalls::add`] them, [`ManyCalls::submit`] them a part at a time, then take their
/// replies as they come with [`ManyCalls::next`]. Dropping it cancels those that have no reply yet.
pub struct ManyCalls {
    node: Arc<Node>,
    batch: BatchId,
    action: ByteString,
    head: Option<Head>,
    encoding: Encoding,
    /// The arguments of those that are not submitted yet.
    bytes: BytesMut,
    unsent: Vec<Unsent>,
    /// The ids of those that were submitted: the first and the last of each part.
    parts: Vec<(CallbackId, CallbackId)>,
    count: usize,
    /// How many of those that were submitted have not been given their replies.
    left: usize,
}

/// The arguments of a call that is not submitted yet.
enum Unsent {
    /// So many of the bytes that were written.
    Bytes(usize),
    /// Long ones, or some that pass functions.
    Payload(Payload),
    /// They could not be written: this is the reply.
    Reply(Reply),
}

/// How many calls are submitted together at most: enough for the far end to work at while the next ones are written.
const CALLS_PER_PART_MAX: usize = 320;

/// A part with as many bytes of arguments is submitted as it is.
const PART_LEN_MAX: usize = 64 * 1024;

impl ManyCalls {
    /// No calls yet; all are of this action, with the default deadline.
    #[must_use]
    pub fn new(node: &Arc<Node>, action: impl Into<ByteString>) -> Self {
        let action = action.into();
        let head = node.head(&action);
        let encoding = head.map_or_else(|| node.encoding_for(&action), |head| head.encoding());
        Self {
            batch: node.begin_batch(),
            node: Arc::clone(node),
            action,
            head,
            encoding,
            bytes: BytesMut::new(),
            unsent: Vec::new(),
            parts: Vec::new(),
            count: 0,
            left: 0,
        }
    }

    /// Adds a call with these arguments. One whose arguments cannot be written has that as its reply. Submits those before it if they are as many
    /// as go together.
    #[inline]
    pub fn add<T: Serialize + ?Sized>(&mut self, arguments: &T) {
        if self.is_full() {
            self.submit();
        }
        let bytes = &mut self.bytes;
        let start = bytes.len();
        let written =
            Payload::encode_unless_small(self.encoding, arguments, |small| bytes.extend_from_slice(small));
        self.unsent.push(match written {
            Ok(None) => Unsent::Bytes(bytes.len() - start),
            Ok(Some(payload)) => Unsent::Payload(payload),
            Err(error) => Unsent::Reply(Reply::failed(error.into())),
        });
    }

    /// How many were added and not submitted yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Whether the calls that were added and not submitted yet are as many as go together.
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
        let Self { node, batch, action, head, encoding, bytes, unsent, parts, count, left } = self;
        let batch = *batch;
        let mut wakes = Vec::new();
        let submitted = node.with_queue(|queue| {
            let mut rest = &bytes[..];
            // The action may have become the node's own, or the link may be lost, since the head was found.
            let head = head.filter(|head| queue.takes(*head));
            let mut part = None;
            for unsent in unsent.drain(..) {
                let number = u32::try_from(*count).unwrap_or(u32::MAX);
                (*count, *left) = (*count + 1, *left + 1);
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
                                Payload::new(*encoding, arguments.to_vec())
                            }
                            Unsent::Payload(payload) => payload,
                            Unsent::Reply(_) => continue,
                        };
                        let (action, node) = (action.clone(), ByteString::new());
                        let (within, when_down) = (Some(CALL_WITHIN), WhenDown::Wait);
                        queue.ask(Call { action, node, arguments, within, when_down }, deadline, waiter)
                    }
                };
                match opened {
                    Ok(id) => part = Some(part.map_or((id, id), |(first, _)| (first, id))),
                    Err(error) => {
                        wakes.push(queue.in_flight().tell_batch(batch, number, Reply::failed(error)));
                    }
                }
            }
            parts.extend(part);
        });
        if let Err(ended) = submitted {
            let numbers = *count..*count + unsent.len();
            (*count, *left) = (*count + unsent.len(), *left + unsent.len());
            unsent.clear();
            node.tell_batch(batch, numbers, &ended);
        }
        bytes.clear();
        wakes.into_iter().for_each(Wake::wake);
    }

    /// How many were added.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count + self.unsent.len()
    }

    /// Waits for some of those that were submitted; gives their replies, each with the number of its call in the order in which they were added. None
    /// when all have been given.
    pub async fn next(&mut self) -> Option<Vec<(u32, Reply)>> {
        if self.left == 0 {
            return None;
        }
        let replies = std::future::poll_fn(|context| self.node.poll_batch(self.batch, context.waker())).await;
        self.left = self.left.saturating_sub(replies.len());
        Some(replies)
    }
}

impl Drop for ManyCalls {
    fn drop(&mut self) {
        let parts = if self.left > 0 { std::mem::take(&mut self.parts) } else { Vec::new() };
        self.node.end_batch(self.batch, &parts);
    }
}

const _: () = assert!(IN_FLIGHT_MAX <= u32::MAX as usize, "a call of a batch has a number");

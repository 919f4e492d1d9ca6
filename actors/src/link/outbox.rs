//! The outbox of a link, which bounds the bytes that wait to be written. Any actor appends frames for the other end here; one task writes
//! all gathered frames when the actors have had their turns (`writer.rs`), so many frames cost one system call. The bound for a frame
//! depends on its [`Kind`].
//!
//! Frames keep the order in which they came. Where many bytes stand already, requests and replies wait in [`Lanes`] behind them, one lane for
//! each caller, and the writer takes them in turn: so a caller waits for its own bytes, and for little of what others have sent.

use super::gathered::GatheredReplies;
use super::lanes::Lanes;
use super::lent::{Lent, TooMuchLent};
use super::refusal::{Receiver, Refusal};
use bytes::{Bytes, BytesMut};
use futures::task::AtomicWaker;
use meshwork_wire::limits::{
    FRAME_LEN_MAX, IN_FLIGHT_MAX, LENGTH_PREFIX_LEN, OUTBOX_ERROR_LEN_MAX, OUTBOX_EVENTS_LEN_MIN,
    OUTBOX_IN_ORDER_LEN_MAX, OUTBOX_LEN_MAX, OUTBOX_REPLY_LEN_MAX, OUTBOX_REQUEST_LEN_MAX,
    PAYLOAD_SHARED_LEN_MIN, READ_BUFFER_LEN_MAX, STREAM_OUTBOX_LEN_MAX, STREAMS_WOKEN_AT_ONCE,
};
use meshwork_wire::{
    CallError, CallbackId, Callbacks, Encoding, Features, Frame, FrameRef, Payload, RequestRun, Response,
    append,
};
use std::collections::VecDeque;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicBool, atomic::AtomicU64, atomic::AtomicUsize,
    atomic::Ordering,
};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// A handle on the outbox of one link. Clones share the outbox.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Shared>);

/// The kind of a frame: it decides how many bytes may stand in the outbox before the frame is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A request, or another frame whose sender can be told that it was refused: [`OutboxBounds::requests_len_max`].
    Request,
    /// An event: `OUTBOX_LEN_MAX`, and what the other outboxes of the pool leave. A refused event is counted.
    Event,
    /// An event of this node itself: its publisher has waited for room, so it is refused only by a link that closes.
    OwnEvent,
    /// A frame that the protocol cannot do without: [`OutboxBounds::replies_len_max`]. A refused response is replaced by an error of a few
    /// bytes.
    Protocol,
    /// An item of a stream of this node itself: its producer has waited for room, so it is refused only by a link that closes.
    Item,
    /// Replies that are no longer than the errors which would replace them. They are bounded by the requests in flight, and by
    /// [`OutboxBounds::errors_len_max`].
    SmallReply,
}

/// The lane of a request or a reply, where it cannot leave at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// The caller, by a number that no other caller has on this link.
    pub(crate) caller: u64,
    /// The id by which [`Outbox::withdraw`] finds a request.
    pub(crate) id: Option<CallbackId>,
}

/// How many bytes of requests, and of replies, may stand in an outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboxBounds {
    pub(crate) requests_len_max: usize,
    pub(crate) replies_len_max: usize,
    /// How many bytes of the errors that replace replies may stand there besides, before the link is given up.
    pub(crate) errors_len_max: usize,
}

impl Default for OutboxBounds {
    fn default() -> Self {
        Self {
            requests_len_max: OUTBOX_REQUEST_LEN_MAX,
            replies_len_max: OUTBOX_REPLY_LEN_MAX,
            errors_len_max: IN_FLIGHT_MAX * OUTBOX_ERROR_LEN_MAX,
        }
    }
}

/// The bytes that stand in all outboxes of a master, or that all its sessions keep, counted in steps of [`POOL_STEP`].
pub(crate) struct Pool {
    held: AtomicUsize,
    held_max: usize,
}

/// In steps of so many bytes outboxes tell the pool what stands in them: most never tell it anything.
pub(crate) const POOL_STEP: usize = OUTBOX_EVENTS_LEN_MIN;

/// The pool is not asked for room for requests before so many bytes stand in their outbox.
const REQUESTS_POOLED_LEN_MIN: usize = 1024 * 1024;

impl Pool {
    pub(crate) fn new(held_max: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), held_max })
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many bytes may stand in one outbox before a frame of this kind is refused: as much as is left for others, and in any case the longest
    /// frame, or a few events.
    fn share(&self, kind: Kind) -> usize {
        self.left().max(if kind == Kind::Event {
            OUTBOX_EVENTS_LEN_MIN
        } else {
            FRAME_LEN_MAX + LENGTH_PREFIX_LEN
        })
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.held_max.saturating_sub(self.held.load(Ordering::Relaxed))
    }

    /// Notes that one of those that share the pool holds `now` steps, and no longer `before`.
    pub(crate) fn note(&self, before: usize, now: usize) {
        self.held.fetch_add(now * POOL_STEP, Ordering::Relaxed);
        self.held.fetch_sub(before * POOL_STEP, Ordering::Relaxed);
    }
}

/// A frame in a lane: its head, with a payload that is short, and a longer payload.
struct InLane {
    head: Bytes,
    payload: Bytes,
    /// The functions that the frame lends, taken back if it never leaves.
    lent: Callbacks,
}

/// Frames that are encoded already: an outbox takes all of them or none.
#[derive(Debug)]
pub(crate) struct Encoded<'a> {
    bytes: EncodedBytes<'a>,
    /// How many frames there are.
    count: usize,
    /// How many bytes the longest frame has, its length prefix not counted.
    longest: usize,
}

/// How the bytes of encoded frames get into the outbox.
#[derive(Debug)]
enum EncodedBytes<'a> {
    /// They are copied.
    Copied(&'a [u8]),
    /// The buffer is taken, and an empty one given in exchange, if no small frame stands in the outbox; else they are copied.
    Taken(&'a mut BytesMut),
    /// The buffer is shared if it has at least so many bytes; else they are copied.
    Shared(&'a Bytes, usize),
}

/// Holds the lock of an outbox while several frames are appended in one go. Nothing but appending may be done meanwhile. Dropping it wakes the
/// writer.
pub(crate) struct OutboxGuard<'a> {
    outbox: &'a Outbox,
    queue: MutexGuard<'a, Queue>,
    /// The run of requests that the last appended frame belongs to.
    run: RequestRun,
    /// The last field: it is dropped when the lock has been let go.
    wake: WakeWriter<'a>,
}

/// Wakes the writer of an outbox when dropped, if the writer waits.
struct WakeWriter<'a> {
    writer: &'a AtomicWaker,
    waits: bool,
}

impl Drop for WakeWriter<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.writer.wake();
        }
    }
}

/// The outbox that its handles share.
struct Shared {
    frame_len_max: usize,
    bounds: OutboxBounds,
    /// None at a branch, which has one outbox.
    pool: Option<Arc<Pool>>,
    queue: Mutex<Queue>,
    /// How many bytes stand in the queue, for readers that do not take the lock; [`NOT_OPEN`] when the outbox takes no frames.
    standing: AtomicUsize,
    /// How many bytes the frames in the lanes cost, for readers that do not take the lock.
    in_lanes: AtomicUsize,
    /// The task that writes the frames.
    writer: AtomicWaker,
    /// How many events were refused.
    dropped: AtomicU64,
    /// Notified when there is room for events again.
    room: Notify,
    /// Whether a publisher has waited for room in vain, and half of it has not been free since.
    slow: AtomicBool,
    /// The features that the other end knows, as their number.
    features: AtomicU64,
    lent: Lent,
}

/// The bytes that wait for the writer.
#[derive(Default)]
struct Queue {
    /// The bytes before `small`, in order. Large payloads stand here as they are, without a copy.
    ready: VecDeque<Bytes>,
    /// Frames that were appended last, one behind the other.
    small: BytesMut,
    /// The frames that wait behind those; none while no frame does.
    lanes: Option<Box<Lanes<InLane>>>,
    /// The requests that stood in the lanes when the outbox was closed: they were never sent.
    unsent: Vec<CallbackId>,
    /// How many bytes stand in the outbox in order, or are being written; the lanes do not count.
    len: usize,
    /// How many steps of the pool this outbox has taken.
    pooled: usize,
    /// Whether the writer waits to be woken.
    writer_waits: bool,
    /// Whether a publisher waits for room.
    room_wanted: bool,
    /// The producers of streams that wait for room; none if none does.
    producers: Option<Box<Producers>>,
    /// Whether `small` was long when the link was last idle.
    was_long: bool,
    /// The most bytes that left at once since the last heartbeat.
    taken_max: usize,
    state: State,
}

/// The producers of streams that wait for room in one outbox, in the order in which they came. Those that have ended are swept out, so the list is at
/// most twice as long as there are streams.
#[derive(Default)]
struct Producers {
    waiting: VecDeque<Weak<AwaitsRoom>>,
    sweep_at: usize,
}

/// The producer of a stream, as an outbox knows it while the producer waits for room.
#[derive(Debug, Default)]
pub(crate) struct AwaitsRoom {
    waker: AtomicWaker,
    /// Whether it stands in the list of an outbox.
    is_listed: AtomicBool,
}

/// A list of producers is swept when it is longer than this, and twice as long as it was after the last sweep.
const SWEEP_AT_MIN: usize = 64;

/// Whether an outbox takes frames, and whether they are written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum State {
    #[default]
    Open,
    /// The frames in the outbox are still written, then the link is shut down.
    Closing,
    Closed,
}

/// A buffer that one burst made longer than this is given back as soon as the link is idle. A shorter buffer, and a long one that the next
/// burst needs again, is given back after a heartbeat in which little was written.
const IDLE_BUFFER_LEN_MAX: usize = 128 * 1024;

/// A list of pieces with room for more than this is given back when the link is idle.
const IDLE_PIECES_MAX: usize = 8;

/// Frames for many links are shared from so many bytes on: a copy for each link would cost more than a further piece to write.
const CROWD_SHARED_LEN_MIN: usize = 256;

/// A buffer of up to four times this length is kept, however few bytes were written.
const BUFFER_LEN_MIN: usize = 64;

/// The value of [`Shared::standing`] for an outbox that takes no frames.
const NOT_OPEN: usize = usize::MAX;

impl OutboxBounds {
    /// How many bytes may stand in an outbox before a frame of this kind is refused.
    fn len_max(&self, kind: Kind) -> usize {
        match kind {
            Kind::Request => self.requests_len_max,
            Kind::Event => OUTBOX_LEN_MAX,
            Kind::Protocol => self.replies_len_max,
            Kind::OwnEvent | Kind::Item | Kind::SmallReply => usize::MAX,
        }
    }
}

impl<'a> Encoded<'a> {
    /// Frames for this link alone; `longest` is the length of the longest frame, its prefix not counted.
    pub(crate) fn copied(bytes: &'a [u8], count: usize, longest: usize) -> Self {
        Self { bytes: EncodedBytes::Copied(bytes), count, longest }
    }

    /// Frames for this link alone, in a buffer that is empty when the outbox has taken them.
    pub(crate) fn taken(bytes: &'a mut BytesMut, count: usize, longest: usize) -> Self {
        Self { bytes: EncodedBytes::Taken(bytes), count, longest }
    }

    /// Frames that one or two links get.
    pub(crate) fn shared(bytes: &'a Bytes, count: usize, longest: usize) -> Self {
        Self { bytes: EncodedBytes::Shared(bytes, PAYLOAD_SHARED_LEN_MIN), count, longest }
    }

    /// Frames that many links get.
    pub(crate) fn for_crowd(bytes: &'a Bytes, count: usize, longest: usize) -> Self {
        Self { bytes: EncodedBytes::Shared(bytes, CROWD_SHARED_LEN_MIN), count, longest }
    }
}

impl Outbox {
    /// An outbox to an end that reads frames of at most `frame_len_max` bytes, their prefix not counted.
    #[cfg(test)]
    pub(crate) fn new(frame_len_max: usize) -> Self {
        Self::with_bounds(frame_len_max, OutboxBounds::default())
    }

    /// An outbox to an end that reads frames of at most `frame_len_max` bytes, their prefix not counted.
    pub(crate) fn with_bounds(frame_len_max: usize, bounds: OutboxBounds) -> Self {
        Self::with_pool(frame_len_max, bounds, None)
    }

    /// [`Outbox::with_bounds`], with a share of the bytes of a pool.
    pub(crate) fn with_pool(frame_len_max: usize, bounds: OutboxBounds, pool: Option<Arc<Pool>>) -> Self {
        Self(Arc::new(Shared {
            frame_len_max,
            bounds,
            pool,
            queue: Mutex::default(),
            standing: AtomicUsize::new(0),
            in_lanes: AtomicUsize::new(0),
            writer: AtomicWaker::new(),
            dropped: AtomicU64::new(0),
            room: Notify::new(),
            slow: AtomicBool::new(false),
            features: AtomicU64::new(Features::ALL.0),
            lent: Lent::default(),
        }))
    }

    /// Appends one frame.
    pub(crate) fn push<'a>(&self, frame: impl Into<FrameRef<'a>>, kind: Kind) -> Result<(), Refusal> {
        self.hold().push(frame, kind)
    }

    /// Appends a frame that the protocol cannot do without. If the outbox is full or closed the frame is lost, since no one can be told.
    pub(crate) fn say(&self, frame: &Frame) {
        let _ = self.push(frame, Kind::Protocol);
    }

    /// Appends the response to a request, or an error of a few bytes in its place.
    pub(crate) fn respond(&self, callback_id: CallbackId, outcome: Result<Payload, CallError>) {
        let _ = self.push(&Response { callback_id, outcome }, Kind::Protocol);
    }

    /// [`Outbox::respond`] in the turn of a caller.
    pub(crate) fn respond_in_turn(
        &self,
        caller: u64,
        callback_id: CallbackId,
        outcome: Result<Payload, CallError>,
    ) {
        let turn = Turn { caller, id: None };
        let _ = self.hold().push_in_turn(turn, &Response { callback_id, outcome }, Kind::Protocol);
    }

    /// Takes a request out of its lane before it has left. `false` if it stands in no lane: then it has left, or leaves in its order.
    pub(crate) fn withdraw(&self, id: CallbackId) -> bool {
        if self.0.in_lanes.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut queue = self.lock();
        // Dropped when the lock is let go.
        let withdrawn = queue.lanes.as_mut().and_then(|lanes| lanes.withdraw(id));
        self.note(&mut queue);
        self.note_lanes(&queue);
        drop(queue);
        if let Some(withdrawn) = &withdrawn {
            self.0.lent.take_back(&withdrawn.lent);
        }
        withdrawn.is_some()
    }

    /// Drops the requests and replies that stand in lanes. Gives the ids of the requests that were never sent, also if the outbox has been closed
    /// before.
    pub(crate) fn close_lanes(&self) -> Vec<CallbackId> {
        let mut queue = self.lock();
        let lanes = queue.lanes.take();
        let mut unsent = std::mem::take(&mut queue.unsent);
        self.note(&mut queue);
        self.note_lanes(&queue);
        drop(queue);
        for (id, item) in lanes.into_iter().flat_map(|lanes| lanes.into_items()) {
            self.0.lent.take_back(&item.lent);
            unsent.extend(id);
        }
        unsent
    }

    /// Appends frames that are encoded already: all of them, or none.
    pub(crate) fn push_encoded(&self, frames: Encoded<'_>, kind: Kind) -> Result<(), Refusal> {
        self.hold().push_encoded(frames, kind)
    }

    /// Appends the small replies to the requests of a block.
    pub(crate) fn push_gathered(&self, gathered: &GatheredReplies) {
        if gathered.is_empty() {
            return;
        }
        let bytes = gathered.take();
        // A closed link has no reader for the replies. Their lengths were checked before they were gathered.
        let _ = self.push_encoded(Encoded::copied(&bytes, 1, 0), Kind::SmallReply);
        GatheredReplies::give_back(bytes);
    }

    /// Holds the lock of the outbox, to append several frames.
    pub(crate) fn hold(&self) -> OutboxGuard<'_> {
        let wake = WakeWriter { writer: &self.0.writer, waits: false };
        OutboxGuard { outbox: self, queue: self.lock(), run: RequestRun::default(), wake }
    }

    /// Sets the features that the other end knows. Until then it counts as an end of this version, to which only a bind and its refusal are
    /// said.
    pub(crate) fn set_features(&self, features: Features) {
        self.0.features.store(features.0, Ordering::Relaxed);
    }

    /// The features that the other end knows.
    pub(crate) fn features(&self) -> Features {
        Features(self.0.features.load(Ordering::Relaxed))
    }

    /// The functions that are lent to the other end.
    pub(crate) fn lent(&self) -> &Lent {
        &self.0.lent
    }

    /// The longest frame that the other end reads, prefix not counted.
    pub(crate) fn frame_len_max(&self) -> usize {
        self.0.frame_len_max
    }

    /// Whether a frame of this kind would find room.
    pub(crate) fn has_room(&self, kind: Kind) -> bool {
        let standing = self.standing();
        standing < self.0.bounds.len_max(kind)
            && (kind != Kind::Event || self.0.has_room_for_events(standing))
            && (kind != Kind::Request
                || self.0.in_lanes.load(Ordering::Acquire) < self.0.bounds.requests_len_max)
    }

    /// Whether more bytes wait than a peer that reads at all would leave there. The link is given up then.
    pub(crate) fn is_overfull(&self) -> bool {
        let bounds = &self.0.bounds;
        self.is_open() && self.standing() > bounds.replies_len_max.saturating_add(bounds.errors_len_max)
    }

    /// Whether the outbox is neither closing nor closed.
    pub(crate) fn is_open(&self) -> bool {
        self.standing() != NOT_OPEN
    }

    /// Waits until half of [`OUTBOX_LEN_MAX`] is free, or the outbox is closed.
    pub(crate) async fn room(&self) {
        self.room_for(0).await;
    }

    /// [`Outbox::room`], and room for an event of this length.
    pub(crate) async fn room_for(&self, len: usize) {
        let most = OUTBOX_LEN_MAX.saturating_sub(len).min(OUTBOX_LEN_MAX / 2);
        self.room_above(|| most).await;
    }

    /// Waits until half of the room that the pool leaves for events is free, or the outbox is closed.
    pub(crate) async fn room_for_events(&self) {
        self.room_above(|| self.0.len_max(Kind::Event) / 2).await;
    }

    /// Waits until no more bytes stand in the outbox than this, or the outbox is closed.
    async fn room_above(&self, most: impl Fn() -> usize) {
        loop {
            let notified = self.0.room.notified();
            {
                let mut queue = self.lock();
                if queue.state != State::Open || queue.len <= most() {
                    return;
                }
                queue.room_wanted = true;
            }
            notified.await;
        }
    }

    /// Whether less than half of the room for events is free, and a publisher may wait for it: see [`Outbox::room_within`].
    pub(crate) fn is_worth_waiting_for(&self) -> bool {
        let standing = self.standing();
        standing > OUTBOX_EVENTS_LEN_MIN / 2
            && standing != NOT_OPEN
            && standing > self.0.len_max(Kind::Event) / 2
            && !self.0.slow.load(Ordering::Relaxed)
    }

    /// Whether half of the room that the pool leaves for events is free.
    pub(crate) fn is_half_free_for_events(&self) -> bool {
        let standing = self.standing();
        standing <= OUTBOX_EVENTS_LEN_MIN / 2 || standing <= self.0.len_max(Kind::Event) / 2
    }

    /// Waits until a producer of this node may append items. An outbox that is closed takes none, and lets no producer wait.
    pub(crate) fn poll_room_for_items(&self, producer: &Arc<AwaitsRoom>, waker: &Waker) -> Poll<()> {
        if self.standing() <= STREAM_OUTBOX_LEN_MAX {
            return Poll::Ready(());
        }
        producer.waker.register(waker);
        let mut queue = self.lock();
        if queue.state != State::Open || queue.len <= STREAM_OUTBOX_LEN_MAX {
            return Poll::Ready(());
        }
        if !producer.is_listed.swap(true, Ordering::Relaxed) {
            queue.producers.get_or_insert_default().push(Arc::downgrade(producer));
        }
        Poll::Pending
    }

    /// [`Outbox::room_for_events`], for so long. An outbox in which no room was made in this time is not waited for again before half of its room
    /// is free.
    pub(crate) async fn room_within(&self, within: Duration) {
        if tokio::time::timeout(within, self.room_for_events()).await.is_err() {
            self.0.slow.store(true, Ordering::Relaxed);
        }
    }

    /// Closes the outbox: no more frames are taken, the frames in it are written, then the link is shut down.
    pub(crate) fn close(&self) {
        let mut guard = self.hold();
        if guard.queue.state == State::Open {
            guard.queue.state = State::Closing;
        }
        let producers = guard.queue.producers.take();
        drop(guard);
        producers.into_iter().for_each(|mut producers| producers.wake(usize::MAX));
    }

    /// Closes the outbox and drops the frames in it. The functions that were lent over the link are released.
    pub(crate) fn close_now(&self) {
        let mut guard = self.hold();
        guard.queue.state = State::Closed;
        guard.queue.ready.clear();
        guard.queue.small = BytesMut::new();
        guard.queue.len = 0;
        let lanes = guard.queue.lanes.take();
        if let Some(lanes) = lanes {
            guard.queue.unsent = lanes.into_ids();
        }
        let producers = guard.queue.producers.take();
        self.note_lanes(&guard.queue);
        drop(guard);
        producers.into_iter().for_each(|mut producers| producers.wake(usize::MAX));
        self.0.room.notify_waiters();
        self.0.lent.release_all();
    }

    /// Gives back the list of pieces, and a buffer that is more than four times as long as the most bytes that left at once since the
    /// last heartbeat.
    pub(crate) fn shrink(&self) {
        let mut queue = self.lock();
        let needed = std::mem::take(&mut queue.taken_max).max(BUFFER_LEN_MIN);
        if queue.small.is_empty() && queue.small.capacity() > 4 * needed {
            queue.small = BytesMut::new();
        }
        if queue.ready.is_empty() {
            queue.ready = VecDeque::new();
        }
    }

    /// How many bytes stand in the outbox and its lanes, or are being written.
    pub(crate) fn len(&self) -> usize {
        let queue = self.lock();
        queue.len + queue.lanes.as_ref().map_or(0, |lanes| lanes.cost())
    }

    /// How many events the outbox had no room for.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here leaves the queue half-changed when it panics.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes stand in the outbox in order, or are being written, without the lock; the largest number if it takes no frames.
    pub(crate) fn standing(&self) -> usize {
        self.0.standing.load(Ordering::Acquire)
    }

    /// Publishes the length of the queue to readers that do not take the lock, and to the pool. To be called before the lock is let go, whenever
    /// the queue has changed.
    #[inline]
    fn note(&self, queue: &mut Queue) {
        let in_lanes = queue.lanes.as_ref().map_or(0, |lanes| lanes.cost());
        let steps = (queue.len + in_lanes) / POOL_STEP;
        if steps != queue.pooled {
            self.0.tell_pool(queue, steps);
        }
        let standing = if queue.state == State::Open { queue.len } else { NOT_OPEN };
        self.0.standing.store(standing, Ordering::Release);
    }

    /// Publishes the cost of the lanes to readers that do not take the lock.
    fn note_lanes(&self, queue: &Queue) {
        self.0.in_lanes.store(queue.lanes.as_ref().map_or(0, |lanes| lanes.cost()), Ordering::Release);
    }

    /// Takes all bytes of the outbox that stand in order, and frames of the lanes behind them, for its writer. `pieces` and `small` must be empty: their room is used for the next frames.
    pub(super) fn poll_take(
        &self,
        context: &mut Context<'_>,
        pieces: &mut VecDeque<Bytes>,
        small: &mut BytesMut,
    ) -> Poll<(usize, State)> {
        self.0.writer.register(context.waker());
        let mut queue = self.lock();
        let mut len = queue.small.len() + queue.ready.iter().map(Bytes::len).sum::<usize>();
        if queue.lanes.is_some() {
            // Something of the lanes leaves each time, however much stands in order.
            len += queue
                .take_turns(OUTBOX_IN_ORDER_LEN_MAX.saturating_sub(len).max(OUTBOX_IN_ORDER_LEN_MAX / 4));
            self.note(&mut queue);
            self.note_lanes(&queue);
        }
        if len == 0 && queue.state == State::Open {
            queue.writer_waits = true;
            // One buffer is enough for a link that keeps up: the writer has written its buffer before the next frames come. So is one list.
            if queue.small.capacity() < small.capacity() {
                std::mem::swap(&mut queue.small, small);
            }
            *small = BytesMut::new();
            if queue.ready.capacity() < pieces.capacity() {
                std::mem::swap(&mut queue.ready, pieces);
            }
            *pieces = VecDeque::new();
            let is_long = queue.small.capacity() > IDLE_BUFFER_LEN_MAX;
            if is_long && !queue.was_long {
                queue.small = BytesMut::new();
            }
            queue.was_long = is_long;
            if queue.ready.capacity() > IDLE_PIECES_MAX {
                queue.ready = VecDeque::new();
            }
            return Poll::Pending;
        }
        queue.taken_max = queue.taken_max.max(len);
        std::mem::swap(&mut queue.ready, pieces);
        std::mem::swap(&mut queue.small, small);
        Poll::Ready((len, queue.state))
    }

    /// Notes that `len` bytes have been written, which makes room for as many.
    pub(super) fn written(&self, len: usize) {
        let mut queue = self.lock();
        queue.len = queue.len.saturating_sub(len);
        self.note(&mut queue);
        let is_half_free = queue.len <= OUTBOX_LEN_MAX / 2;
        let there_is_room = is_half_free && std::mem::take(&mut queue.room_wanted);
        let is_slow = self.0.slow.load(Ordering::Relaxed);
        let catches_up = is_slow && queue.len <= self.0.len_max(Kind::Event) / 2;
        let producers = if queue.producers.is_some() { queue.producers_to_wake() } else { Vec::new() };
        drop(queue);
        producers.iter().for_each(AwaitsRoom::wake);
        if catches_up {
            self.0.slow.store(false, Ordering::Relaxed);
        }
        if there_is_room {
            self.0.room.notify_waiters();
        }
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.lock().writer_waits
    }

    #[cfg(test)]
    pub(super) fn small_capacity(&self) -> usize {
        self.lock().small.capacity()
    }
}

impl OutboxGuard<'_> {
    /// The features that the other end knows.
    pub(crate) fn features(&self) -> Features {
        self.outbox.features()
    }

    /// Appends one frame.
    pub(crate) fn push<'f>(&mut self, frame: impl Into<FrameRef<'f>>, kind: Kind) -> Result<(), Refusal> {
        self.push_as(frame.into(), kind, None)
    }

    /// Appends a request or a reply in the turn of its caller.
    pub(crate) fn push_in_turn<'f>(
        &mut self,
        turn: Turn,
        frame: impl Into<FrameRef<'f>>,
        kind: Kind,
    ) -> Result<(), Refusal> {
        // Most of the time no frame waits in a lane.
        let waits = self.queue.len > OUTBOX_IN_ORDER_LEN_MAX || self.queue.lanes.is_some();
        self.push_as(frame.into(), kind, waits.then_some(&turn))
    }

    #[inline]
    fn push_as(&mut self, frame: FrameRef<'_>, kind: Kind, turn: Option<&Turn>) -> Result<(), Refusal> {
        let refused = match self.append(frame, kind, turn) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        match (kind, frame.callback_id_of_response()) {
            (Kind::Event | Kind::OwnEvent, _) => self.count_drops(1),
            (Kind::Protocol, Some(callback_id)) if refused != Refusal::Closed => {
                let outcome = Err(refused.into_error(Receiver::Caller));
                return self.append((&Response { callback_id, outcome }).into(), Kind::SmallReply, None);
            }
            _ => {}
        }
        Err(refused)
    }

    /// Appends frames that are encoded already: all of them, or none.
    pub(crate) fn push_encoded(&mut self, frames: Encoded<'_>, kind: Kind) -> Result<(), Refusal> {
        let Encoded { bytes, count, longest } = frames;
        let admitted = self.queue.admit(kind, &self.outbox.0.bounds).and_then(|()| {
            if kind == Kind::Event && !self.outbox.0.has_room_for_events(self.queue.len) {
                return Err(Refusal::Full);
            }
            self.outbox.check_len(longest)
        });
        if let Err(refused) = admitted {
            if kind == Kind::Event {
                self.count_drops(count);
            }
            return Err(refused);
        }
        match bytes {
            EncodedBytes::Shared(bytes, shared_len_min) if bytes.len() >= shared_len_min => {
                self.queue.len += bytes.len();
                self.queue.set_small_aside();
                self.queue.push_piece(bytes.clone());
            }
            EncodedBytes::Shared(bytes, _) => self.queue.copy_in(bytes),
            EncodedBytes::Copied(bytes) => self.queue.copy_in(bytes),
            EncodedBytes::Taken(bytes) if self.queue.small.is_empty() => {
                self.queue.len += bytes.len();
                std::mem::swap(&mut self.queue.small, bytes);
            }
            EncodedBytes::Taken(bytes) => {
                self.queue.copy_in(bytes);
                bytes.clear();
            }
        }
        Ok(())
    }

    /// Appends one frame, whose head is given, and the bytes behind it in pieces that many links get.
    pub(crate) fn push_in_pieces<'p>(
        &mut self,
        head: &[u8],
        pieces: impl Iterator<Item = &'p Bytes> + Clone,
    ) -> Result<(), Refusal> {
        let len = head.len() + pieces.clone().map(Bytes::len).sum::<usize>();
        self.queue.admit(Kind::Request, &self.outbox.0.bounds)?;
        self.outbox.check_len(len - LENGTH_PREFIX_LEN)?;
        self.queue.copy_in(head);
        for piece in pieces {
            if piece.len() >= CROWD_SHARED_LEN_MIN {
                self.queue.len += piece.len();
                self.queue.set_small_aside();
                self.queue.push_piece(piece.clone());
            } else {
                self.queue.copy_in(piece);
            }
        }
        Ok(())
    }

    /// Appends a frame if it is admitted, and lends the functions that it passes.
    fn append(&mut self, frame: FrameRef<'_>, kind: Kind, turn: Option<&Turn>) -> Result<(), Refusal> {
        // A frame in a lane has a bound of its own.
        let admitted_as = if turn.is_some() { Kind::SmallReply } else { kind };
        self.queue.admit(admitted_as, &self.outbox.0.bounds)?;
        // What all outboxes of a master hold together is bounded too; few requests stand in an outbox that is read.
        if kind == Kind::Request
            && turn.is_none()
            && self.queue.len > REQUESTS_POOLED_LEN_MIN
            && self.queue.len >= self.outbox.0.len_max(kind)
        {
            return Err(Refusal::Full);
        }
        if kind == Kind::Event && !self.outbox.0.has_room_for_events(self.queue.len) {
            return Err(Refusal::Full);
        }
        if kind == Kind::Request
            && frame.payload().is_some_and(|payload| payload.encoding == Encoding::Bincode)
            && !self.outbox.features().contains(Features::VALUES)
        {
            return Err(Refusal::OtherVersion);
        }
        if frame.payload().is_none_or(|payload| payload.callbacks.is_empty()) {
            return self.append_admitted(frame, kind, turn);
        }
        // The frame passes functions: they are lent from now on, unless the frame is refused.
        let mut lending = frame.to_frame();
        let Some(payload) = lending.payload_mut() else {
            return self.append_admitted(frame, kind, turn);
        };
        let lent = self.outbox.lent();
        payload.callbacks = lent.lend(&payload.callbacks).map_err(|TooMuchLent| Refusal::TooMuchLent)?;
        let callbacks = payload.callbacks.clone();
        self.append_admitted((&lending).into(), kind, turn).inspect_err(|_| lent.take_back(&callbacks))
    }

    #[inline]
    fn append_admitted(
        &mut self,
        frame: FrameRef<'_>,
        kind: Kind,
        turn: Option<&Turn>,
    ) -> Result<(), Refusal> {
        if let Some(turn) = turn {
            return self.append_to_lane(frame, kind, turn);
        }
        let queue = &mut *self.queue;
        let start = queue.small.len();
        let aside = frame.payload().filter(|payload| payload.len() >= PAYLOAD_SHARED_LEN_MIN);
        match aside {
            Some(_) => frame.encode_without_payload(&mut queue.small),
            None => frame.encode_in_run(&mut self.run, &mut queue.small),
        }
        let len = queue.small.len() - start + aside.map_or(0, Payload::len);
        if let Err(too_long) = self.outbox.check_len(len - LENGTH_PREFIX_LEN) {
            queue.small.truncate(start);
            return Err(too_long);
        }
        // The errors that replace replies are told from long replies by this: only they may go on when there is no room.
        if kind == Kind::Protocol
            && queue.len + len > FRAME_LEN_MAX
            && queue.len + len > self.outbox.0.len_max(kind)
        {
            queue.small.truncate(start);
            return Err(Refusal::Full);
        }
        queue.len += len;
        if let Some(payload) = aside {
            queue.set_small_aside();
            queue.push_piece(payload.bytes.clone());
        }
        Ok(())
    }

    /// Puts a frame into the lane of its caller.
    #[cold]
    fn append_to_lane(&mut self, frame: FrameRef<'_>, kind: Kind, turn: &Turn) -> Result<(), Refusal> {
        let mut head = BytesMut::new();
        let aside = frame.payload().filter(|payload| payload.len() >= PAYLOAD_SHARED_LEN_MIN);
        match aside {
            Some(_) => frame.encode_without_payload(&mut head),
            None => frame.encode(&mut head),
        }
        // A slice that stays here for long would keep the whole buffer that brought it, however little of it counts.
        let payload = aside.map_or_else(Bytes::new, |payload| match payload.bytes.len() {
            ..READ_BUFFER_LEN_MAX => Bytes::copy_from_slice(&payload.bytes),
            _ => payload.bytes.clone(),
        });
        let lent = frame.payload().map_or_else(Callbacks::none, |payload| payload.callbacks.clone());
        let len = head.len() + payload.len();
        self.outbox.check_len(len - LENGTH_PREFIX_LEN)?;
        let in_lane = InLane { head: head.freeze(), payload, lent };
        let lanes = self.queue.lanes.get_or_insert_with(|| Box::new(Lanes::new()));
        let len_max = self.outbox.0.len_max(kind);
        lanes.push(turn.caller, turn.id, len, len_max, in_lane).map_err(|_| Refusal::Full)?;
        self.outbox.note_lanes(&self.queue);
        Ok(())
    }

    fn count_drops(&self, count: usize) {
        self.outbox.0.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Outbox {
    fn check_len(&self, len: usize) -> Result<(), Refusal> {
        let max = self.0.frame_len_max;
        if len > max { Err(Refusal::TooLong { len, max }) } else { Ok(()) }
    }
}

impl Shared {
    /// Whether the other outboxes of the pool leave room for one more event behind so many bytes.
    #[inline]
    fn has_room_for_events(&self, standing: usize) -> bool {
        standing < OUTBOX_EVENTS_LEN_MIN || standing < self.len_max(Kind::Event)
    }

    /// How many bytes may stand in the outbox before a frame of this kind is refused, with what the others of its pool hold.
    #[cold]
    fn len_max(&self, kind: Kind) -> usize {
        let share = self.pool.as_ref().map_or(usize::MAX, |pool| pool.share(kind));
        self.bounds.len_max(kind).min(share)
    }

    #[cold]
    fn tell_pool(&self, queue: &mut Queue, steps: usize) {
        if let Some(pool) = &self.pool {
            pool.note(queue.pooled, steps);
        }
        queue.pooled = steps;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            let queue = self.queue.get_mut().unwrap_or_else(PoisonError::into_inner);
            pool.note(queue.pooled, 0);
        }
    }
}

impl Producers {
    fn push(&mut self, producer: Weak<AwaitsRoom>) {
        if self.waiting.len() >= self.sweep_at.max(SWEEP_AT_MIN) {
            self.waiting.retain(|producer| producer.strong_count() > 0);
            self.sweep_at = 2 * self.waiting.len();
        }
        self.waiting.push_back(producer);
    }

    fn take(&mut self, count: usize) -> Vec<Weak<AwaitsRoom>> {
        self.waiting.drain(..count.min(self.waiting.len())).collect()
    }

    fn wake(&mut self, count: usize) {
        self.take(count).iter().for_each(AwaitsRoom::wake);
    }
}

impl AwaitsRoom {
    fn wake(this: &Weak<Self>) {
        if let Some(this) = this.upgrade() {
            // Before it is woken: it may wait again at once.
            this.is_listed.store(false, Ordering::Relaxed);
            this.waker.wake();
        }
    }
}

impl Drop for OutboxGuard<'_> {
    fn drop(&mut self) {
        self.outbox.note(&mut self.queue);
        self.wake.waits = std::mem::take(&mut self.queue.writer_waits);
    }
}

impl Queue {
    fn admit(&self, kind: Kind, bounds: &OutboxBounds) -> Result<(), Refusal> {
        match self.state {
            State::Open if self.len < bounds.len_max(kind) => Ok(()),
            State::Open => Err(Refusal::Full),
            State::Closing | State::Closed => Err(Refusal::Closed),
        }
    }

    /// Moves frames from the lanes, until so many bytes stand in order behind those before; gives how many.
    #[cold]
    fn take_turns(&mut self, room: usize) -> usize {
        let mut taken = 0;
        while taken < room {
            let next = self.lanes.as_mut().and_then(|lanes| lanes.pop());
            let Some(InLane { head, payload, .. }) = next else {
                break;
            };
            taken += head.len() + payload.len();
            self.copy_in(&head);
            if !payload.is_empty() {
                self.len += payload.len();
                self.set_small_aside();
                self.push_piece(payload);
            }
        }
        if self.lanes.as_ref().is_some_and(|lanes| lanes.is_empty()) {
            self.lanes = None;
        }
        taken
    }

    /// Takes the producers of streams that there is room for now. A producer may have ended meanwhile, so all are woken when nothing is left to be
    /// written, which would wake others.
    #[cold]
    fn producers_to_wake(&mut self) -> Vec<Weak<AwaitsRoom>> {
        if self.len > STREAM_OUTBOX_LEN_MAX {
            return Vec::new();
        }
        let Some(producers) = &mut self.producers else {
            return Vec::new();
        };
        let count = if self.len == 0 { usize::MAX } else { STREAMS_WOKEN_AT_ONCE };
        let woken = producers.take(count);
        if producers.waiting.is_empty() {
            self.producers = None;
        }
        woken
    }

    fn copy_in(&mut self, frames: &[u8]) {
        append(&mut self.small, frames);
        self.len += frames.len();
    }

    fn set_small_aside(&mut self) {
        if !self.small.is_empty() {
            let small = self.small.split().freeze();
            self.push_piece(small);
        }
    }

    fn push_piece(&mut self, piece: Bytes) {
        if self.ready.capacity() == 0 {
            // News, which every link gets, are one piece. A list takes room for four at first, which is much for many idle links.
            self.ready.reserve_exact(1);
        }
        self.ready.push_back(piece);
    }
}

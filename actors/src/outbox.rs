//! A link's bounded way out. Whoever has something to say appends it; one task writes what has gathered when the turn of the
//! actors ends, so many frames cost one system call. Its bounds: see `OUTBOX_LEN_MAX`, `OUTBOX_REQUEST_LEN_MAX`,
//! `OUTBOX_REPLY_LEN_MAX` and `OUTBOX_OVERFULL_LEN`.

use crate::functions::{Lent, TooMuchLent};
use crate::responder::{Outcome, ReplyTo};
use bytes::{Bytes, BytesMut};
use futures::task::AtomicWaker;
use meshwork_wire::limits::{
    CALLBACKS_PER_CONNECTION_MAX, LENGTH_PREFIX_LEN, LINGER, OUTBOX_LEN_MAX, OUTBOX_OVERFULL_LEN,
    OUTBOX_REPLY_LEN_MAX, OUTBOX_REQUEST_LEN_MAX, PAYLOAD_SHARED_LEN_MIN,
};
use meshwork_wire::{
    CallError, CallbackId, Code, Encoding, Fate, Frame, FrameRef, Payload, RequestRun, Response,
    SMALL_REPLY_LEN_MAX, append, write_small_reply,
};
use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64, atomic::AtomicUsize, atomic::Ordering,
};
use std::task::{Context, Poll};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// A handle on the way out of one link. Clones share it.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Shared>);

/// An outbox to which several frames are appended in one go; its writer is woken when this is dropped.
pub(crate) struct Held<'a> {
    outbox: &'a Outbox,
    queue: MutexGuard<'a, Queue>,
    before: RequestRun,
}

/// Small replies of one turn, which leave in one go. The outbox is not held for them: responders run meanwhile, and may have
/// something to say themselves.
#[derive(Default)]
pub(crate) struct Gathered(RefCell<BytesMut>);

/// Where the replies of one turn go.
pub(crate) struct InTurn<'a> {
    outbox: &'a Outbox,
    gathered: Option<&'a Gathered>,
}

/// Why something did not go in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// It is full.
    Full,
    /// The link is gone, or going.
    Closed,
    /// It is a frame that the other end does not read: so many bytes of so many.
    TooLong { len: usize, max: usize },
    /// It passes functions, and as many are lent over the link as may be.
    TooMuchLent,
}

struct Shared {
    frame_len_max: usize,
    queue: Mutex<Queue>,
    /// How many bytes stand in the queue, for whoever only looks; [`NOT_OPEN`] when it takes nothing.
    standing: AtomicUsize,
    writer: AtomicWaker,
    dropped: AtomicU64,
    room: Notify,
    lent: Lent,
}

#[derive(Default)]
struct Queue {
    /// What was said before `small`, in order: large payloads stand here as they are.
    ready: VecDeque<Bytes>,
    /// Small frames, one behind the other.
    small: BytesMut,
    /// How many bytes stand in here or are just being written.
    len: usize,
    /// Whether the writer waits to be woken.
    writer_waits: bool,
    /// Whether someone waits for room.
    room_wanted: bool,
    /// Whether `small` was long when the link was last idle.
    was_long: bool,
    /// The most bytes that left at once since the last heartbeat.
    taken_max: usize,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum State {
    #[default]
    Open,
    /// What stands in here is still written, then the link is shut down.
    Closing,
    Closed,
}

/// A buffer that one burst made longer than this is given back as soon as the link is idle; a shorter one, and one that is needed
/// again and again, after a heartbeat that did without.
const IDLE_BUFFER_LEN_MAX: usize = 128 * 1024;

/// The same for the lists of large pieces.
const IDLE_PIECES_MAX: usize = 8;

/// Frames for everyone are shared from so many bytes on.
const FOR_ALL_SHARED_LEN_MIN: usize = 256;

/// A buffer of this length or a little more is kept, whatever left.
const BUFFER_LEN_MIN: usize = 64;

/// A reply of so many bytes is small: about as long as the error that would replace it if there were no room.
const GATHERED_LEN_MAX: usize = SMALL_REPLY_LEN_MAX;

/// How long a frame of that may be. Links that allow less have each of them checked.
const GATHERED_FRAME_LEN_MAX: usize = 128;

thread_local! {
    /// What replies are gathered in: a turn takes it, and gives it back.
    static GATHERED: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// See [`Shared::standing`].
const NOT_OPEN: usize = usize::MAX;

/// How many pieces one system call takes at most.
const PIECES_MAX: usize = 64;

impl Outbox {
    /// The way out to an end that reads frames of at most so many bytes, prefix not counted.
    pub(crate) fn new(frame_len_max: usize) -> Self {
        Self(Arc::new(Shared {
            frame_len_max,
            queue: Mutex::default(),
            standing: AtomicUsize::new(0),
            writer: AtomicWaker::new(),
            dropped: AtomicU64::new(0),
            room: Notify::new(),
            lent: Lent::default(),
        }))
    }

    /// Appends a request, or anything else that may be refused.
    pub(crate) fn push<'a>(&self, frame: impl Into<FrameRef<'a>>) -> Result<(), Refusal> {
        self.append(frame.into(), OUTBOX_REQUEST_LEN_MAX)
    }

    /// Appends an event; one that finds no room is counted.
    pub(crate) fn push_event<'a>(&self, frame: impl Into<FrameRef<'a>>) -> Result<(), Refusal> {
        self.append(frame.into(), OUTBOX_LEN_MAX).inspect_err(|_| self.count_drop())
    }

    /// Appends so many events that were encoded once for all who get them. They find room together, or none does and all are
    /// counted.
    pub(crate) fn push_encoded(&self, frames: &Bytes, count: usize) -> Result<(), Refusal> {
        self.append_encoded(frames, count, OUTBOX_LEN_MAX, PAYLOAD_SHARED_LEN_MIN)
    }

    /// Appends so many frames that were encoded once for everyone, if so many bytes do not stand in it yet. A crowd shares
    /// them: a copy for each would cost more than one more piece to write.
    pub(crate) fn push_for_all(&self, frames: &Bytes, count: usize, len_max: usize) -> Result<(), Refusal> {
        self.append_encoded(frames, count, len_max, FOR_ALL_SHARED_LEN_MIN)
    }

    fn append_encoded(
        &self,
        frames: &Bytes,
        count: usize,
        len_max: usize,
        shared_len_min: usize,
    ) -> Result<(), Refusal> {
        let mut held = self.hold();
        let queue = &mut *held.queue;
        if let Err(refusal) = queue.admit(len_max) {
            self.0.dropped.fetch_add(count as u64, Ordering::Relaxed);
            return Err(refusal);
        }
        queue.len += frames.len();
        if frames.len() < shared_len_min {
            append(&mut queue.small, frames);
        } else {
            queue.set_small_aside();
            queue.ready.push_back(frames.clone());
        }
        Ok(())
    }

    /// Appends what the protocol cannot do without: the other end has room for it, since it asked. What is in flight bounds
    /// it; where even that is too much for a peer that never reads, a reply becomes an error of a few bytes.
    pub(crate) fn push_always(&self, frame: &Frame) {
        match frame {
            Frame::Response(response) => self.push_response(response),
            // Nobody waits for what a link that is full does not take.
            frame => drop(self.append(frame.into(), OUTBOX_REPLY_LEN_MAX)),
        }
    }

    /// The same for a response.
    pub(crate) fn push_response(&self, response: &Response) {
        self.hold().push_response(response);
    }

    /// Holds it while several frames are appended: nobody else gets a word in, so nothing but appending may be done meanwhile.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held { outbox: self, queue: self.lock(), before: RequestRun::default() }
    }

    fn append(&self, frame: FrameRef<'_>, len_max: usize) -> Result<(), Refusal> {
        self.hold().append(frame, len_max)
    }

    fn append_locked(
        &self,
        queue: &mut Queue,
        frame: FrameRef<'_>,
        before: &mut RequestRun,
        len_max: usize,
    ) -> Result<(), Refusal> {
        queue.admit(len_max)?;
        if frame.payload().is_none_or(|payload| payload.callbacks.is_empty()) {
            return self.append_admitted(queue, frame, before);
        }
        // It passes functions: they are lent from now on, unless it does not leave.
        let mut lending = frame.to_frame();
        let Some(payload) = lending.payload_mut() else {
            return self.append_admitted(queue, frame, before);
        };
        payload.callbacks =
            self.0.lent.lend(&payload.callbacks).map_err(|TooMuchLent| Refusal::TooMuchLent)?;
        let lent = payload.callbacks.clone();
        self.append_admitted(queue, (&lending).into(), before).inspect_err(|_| self.0.lent.take_back(&lent))
    }

    fn append_admitted(
        &self,
        queue: &mut Queue,
        frame: FrameRef<'_>,
        before: &mut RequestRun,
    ) -> Result<(), Refusal> {
        let start = queue.small.len();
        let aside = frame.payload().filter(|payload| payload.len() >= PAYLOAD_SHARED_LEN_MIN);
        match aside {
            Some(_) => frame.encode_without_payload(&mut queue.small),
            None => frame.encode_in_run(before, &mut queue.small),
        }
        let len = queue.small.len() - start + aside.map_or(0, Payload::len);
        if len - LENGTH_PREFIX_LEN > self.0.frame_len_max {
            queue.small.truncate(start);
            return Err(Refusal::TooLong { len: len - LENGTH_PREFIX_LEN, max: self.0.frame_len_max });
        }
        queue.len += len;
        if let Some(payload) = aside {
            queue.set_small_aside();
            queue.ready.push_back(payload.bytes.clone());
        }
        Ok(())
    }

    /// What is lent to the other end.
    pub(crate) fn lent(&self) -> &Lent {
        &self.0.lent
    }

    /// The longest frame that the other end reads, prefix not counted.
    pub(crate) fn frame_len_max(&self) -> usize {
        self.0.frame_len_max
    }

    /// Whether an event would find room.
    pub(crate) fn has_room(&self) -> bool {
        self.standing() < OUTBOX_LEN_MAX
    }

    /// Whether more stands in it than a peer that reads at all would leave there. Its link is given up then.
    pub(crate) fn is_overfull(&self) -> bool {
        self.is_open() && self.standing() > OUTBOX_OVERFULL_LEN
    }

    /// Whether it takes anything at all.
    pub(crate) fn is_open(&self) -> bool {
        self.standing() != NOT_OPEN
    }

    /// Whether a request would find room.
    pub(crate) fn has_room_for_requests(&self) -> bool {
        self.standing() < OUTBOX_REQUEST_LEN_MAX
    }

    /// Waits until half of it is free, or it is closed.
    pub(crate) async fn room(&self) {
        loop {
            let notified = self.0.room.notified();
            {
                let mut queue = self.lock();
                if queue.state != State::Open || queue.len <= OUTBOX_LEN_MAX / 2 {
                    return;
                }
                queue.room_wanted = true;
            }
            notified.await;
        }
    }

    /// Takes nothing more, writes what stands in it, then shuts the link down.
    pub(crate) fn close(&self) {
        let mut held = self.hold();
        if held.queue.state == State::Open {
            held.queue.state = State::Closing;
        }
    }

    /// Takes nothing more and forgets what stands in it.
    pub(crate) fn close_now(&self) {
        let mut held = self.hold();
        held.queue.state = State::Closed;
        held.queue.ready.clear();
        held.queue.small = BytesMut::new();
        held.queue.len = 0;
        drop(held);
        self.0.room.notify_waiters();
        self.0.lent.release_all();
    }

    /// Gives back a buffer that is much longer than what left at once since the last heartbeat.
    pub(crate) fn shrink(&self) {
        let mut queue = self.lock();
        let needed = std::mem::take(&mut queue.taken_max).max(BUFFER_LEN_MIN);
        if queue.small.is_empty() && queue.small.capacity() > 4 * needed {
            queue.small = BytesMut::new();
        }
    }

    /// How many bytes stand in it.
    pub(crate) fn len(&self) -> usize {
        self.lock().len
    }

    /// How many events it had no room for.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn count_drop(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here leaves the queue half-changed when it panics.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> usize {
        self.0.standing.load(Ordering::Acquire)
    }

    /// Tells those who only look. To be called before the queue is let go whenever it has changed.
    fn note(&self, queue: &Queue) {
        let standing = if queue.state == State::Open { queue.len } else { NOT_OPEN };
        self.0.standing.store(standing, Ordering::Release);
    }

    /// Writes until the link fails or is closed. Ends with the reason.
    pub(crate) async fn write_to<W: AsyncWrite + Unpin>(self, mut link: W) -> io::Result<()> {
        let written = self.write_all(&mut link).await;
        self.close_now();
        written
    }

    async fn write_all<W: AsyncWrite + Unpin>(&self, link: &mut W) -> io::Result<()> {
        let mut pieces = VecDeque::new();
        let mut small = BytesMut::new();
        loop {
            let (len, state) = poll_fn(|context| self.poll_take(context, &mut pieces, &mut small)).await;
            if len == 0 {
                // Closing: a peer that does not let us finish is not waited for.
                if state == State::Closing {
                    let _ = tokio::time::timeout(LINGER, link.shutdown()).await;
                }
                return Ok(());
            }
            let writing = write_pieces(link, &mut pieces, &small);
            if state == State::Closing {
                match tokio::time::timeout(LINGER, writing).await {
                    Ok(written) => written?,
                    Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                }
            } else {
                writing.await?;
            }
            small.clear();
            let mut queue = self.lock();
            queue.len = queue.len.saturating_sub(len);
            self.note(&queue);
            let there_is_room = queue.len <= OUTBOX_LEN_MAX / 2 && std::mem::take(&mut queue.room_wanted);
            drop(queue);
            if there_is_room {
                self.0.room.notify_waiters();
            }
        }
    }

    /// Takes all there is. `small` must be empty, its capacity is used for what comes next.
    fn poll_take(
        &self,
        context: &mut Context<'_>,
        pieces: &mut VecDeque<Bytes>,
        small: &mut BytesMut,
    ) -> Poll<(usize, State)> {
        self.0.writer.register(context.waker());
        let mut queue = self.lock();
        let len = queue.small.len() + queue.ready.iter().map(Bytes::len).sum::<usize>();
        if len == 0 && queue.state == State::Open {
            queue.writer_waits = true;
            // One buffer is enough for a link that keeps up: the writer is done with its own before the next is begun.
            if queue.small.capacity() < small.capacity() {
                std::mem::swap(&mut queue.small, small);
            }
            *small = BytesMut::new();
            let is_long = queue.small.capacity() > IDLE_BUFFER_LEN_MAX;
            if is_long && !queue.was_long {
                queue.small = BytesMut::new();
            }
            queue.was_long = is_long;
            for pieces in [&mut queue.ready, pieces] {
                if pieces.capacity() > IDLE_PIECES_MAX {
                    *pieces = VecDeque::new();
                }
            }
            return Poll::Pending;
        }
        queue.taken_max = queue.taken_max.max(len);
        std::mem::swap(&mut queue.ready, pieces);
        std::mem::swap(&mut queue.small, small);
        Poll::Ready((len, queue.state))
    }
}

impl Gathered {
    /// The way out for a reply of a turn that has so many frames left. A turn of one frame gathers nothing.
    pub(crate) fn to<'a>(&'a self, outbox: &'a Outbox, left: usize) -> InTurn<'a> {
        let many = left > 0 || !self.0.borrow().is_empty();
        let fits = outbox.frame_len_max() >= GATHERED_FRAME_LEN_MAX;
        InTurn { outbox, gathered: (many && fits).then_some(self) }
    }

    fn push(&self, response: &Response) {
        FrameRef::from(response).encode(&mut self.begun());
    }

    /// Adds a reply of at most [`GATHERED_LEN_MAX`] bytes.
    #[inline]
    pub(crate) fn push_small(&self, callback_id: CallbackId, encoding: Encoding, bytes: &[u8]) {
        write_small_reply(callback_id, encoding, bytes, &mut self.begun());
    }

    #[inline]
    fn begun(&self) -> RefMut<'_, BytesMut> {
        let mut bytes = self.0.borrow_mut();
        if bytes.capacity() == 0 {
            // It is gone when the thread ends.
            *bytes = GATHERED.try_with(Cell::take).unwrap_or_default();
        }
        bytes
    }

    /// Appends what has been gathered.
    pub(crate) fn leave(&self, outbox: &Outbox) {
        if self.0.borrow().is_empty() {
            return;
        }
        let mut bytes = self.0.take();
        let mut held = outbox.hold();
        if held.queue.admit(usize::MAX).is_ok() {
            append(&mut held.queue.small, &bytes);
            held.queue.len += bytes.len();
        }
        drop(held);
        bytes.clear();
        if bytes.capacity() <= IDLE_BUFFER_LEN_MAX {
            _ = GATHERED.try_with(|gathered| gathered.set(bytes));
        }
    }
}

impl ReplyTo for InTurn<'_> {
    type Later = Outbox;

    fn reply(&self, callback_id: CallbackId, outcome: Outcome) {
        let response = Response { callback_id, outcome };
        match (self.gathered, &response.outcome) {
            (Some(gathered), Ok(payload))
                if payload.len() <= GATHERED_LEN_MAX && payload.callbacks.is_empty() =>
            {
                gathered.push(&response);
            }
            _ => self.outbox.push_response(&response),
        }
    }

    fn gathered(&self) -> Option<&Gathered> {
        self.gathered
    }

    fn later(&self) -> Outbox {
        self.outbox.clone()
    }
}

impl Held<'_> {
    /// As [`Outbox::push`].
    pub(crate) fn push<'f>(&mut self, frame: impl Into<FrameRef<'f>>) -> Result<(), Refusal> {
        self.append(frame.into(), OUTBOX_REQUEST_LEN_MAX)
    }

    /// Appends requests that were encoded together: all of them, or none.
    pub(crate) fn push_requests(&mut self, frames: &[u8]) -> Result<(), Refusal> {
        self.queue.admit(OUTBOX_REQUEST_LEN_MAX)?;
        append(&mut self.queue.small, frames);
        self.queue.len += frames.len();
        Ok(())
    }

    /// As [`Outbox::push_response`].
    pub(crate) fn push_response(&mut self, response: &Response) {
        if let Err(refusal) = self.append(response.into(), OUTBOX_REPLY_LEN_MAX)
            && let Some(error) = refused_response(refusal)
        {
            let instead = Response { callback_id: response.callback_id, outcome: Err(error) };
            // Bounded by what is in flight, and by `OUTBOX_OVERFULL_LEN`.
            let _ = self.append((&instead).into(), usize::MAX);
        }
    }

    fn append(&mut self, frame: FrameRef<'_>, len_max: usize) -> Result<(), Refusal> {
        self.outbox.append_locked(&mut self.queue, frame, &mut self.before, len_max)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.outbox.note(&self.queue);
        if std::mem::take(&mut self.queue.writer_waits) {
            self.outbox.0.writer.wake();
        }
    }
}

/// What is said instead of a response that was refused.
fn refused_response(refusal: Refusal) -> Option<CallError> {
    let (code, what) = match refusal {
        Refusal::Closed => return None,
        Refusal::Full => (Code::OVERLOADED, "the reply found no room: its caller does not read".to_owned()),
        Refusal::TooMuchLent => (Code::OVERLOADED, too_much_lent()),
        Refusal::TooLong { len, max } => (
            Code::FRAME_TOO_LARGE,
            format!("the reply takes a frame of {len} bytes, and the caller's link allows {max}"),
        ),
    };
    Some(CallError::new(code, Fate::Failed, what))
}

/// Why functions are not passed, as whoever passes them is told.
pub(crate) fn too_much_lent() -> String {
    format!("{CALLBACKS_PER_CONNECTION_MAX} callbacks are lent over this link already")
}

impl Queue {
    fn admit(&self, len_max: usize) -> Result<(), Refusal> {
        match self.state {
            State::Open if self.len < len_max => Ok(()),
            State::Open => Err(Refusal::Full),
            State::Closing | State::Closed => Err(Refusal::Closed),
        }
    }

    fn set_small_aside(&mut self) {
        if !self.small.is_empty() {
            let small = self.small.split().freeze();
            self.ready.push_back(small);
        }
    }
}

/// Writes the pieces, then the rest.
async fn write_pieces<W: AsyncWrite + Unpin>(
    link: &mut W,
    pieces: &mut VecDeque<Bytes>,
    rest: &BytesMut,
) -> io::Result<()> {
    if pieces.is_empty() {
        return link.write_all(rest).await;
    }
    if !rest.is_empty() {
        pieces.push_back(Bytes::copy_from_slice(rest));
    }
    while !pieces.is_empty() {
        // The list of slices is made anew for each attempt: kept across a wait it would be most of what an idle link takes.
        let written = poll_fn(|context| {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            Pin::new(&mut *link).poll_write_vectored(context, &slices[..count])
        });
        let mut written = written.await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(piece) = pieces.front_mut() {
            if written < piece.len() {
                let _ = piece.split_to(written);
                break;
            }
            written -= piece.len();
            pieces.pop_front();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork_wire::limits::FRAME_LEN_MAX;
    use meshwork_wire::{Encoding, FrameCodec};
    use tokio_util::codec::FramedRead;

    fn reply(id: u64, payload_len: usize) -> Frame {
        let payload = Payload::new(Encoding::Json, vec![b'x'; payload_len]);
        Frame::Response(Response { callback_id: CallbackId(id), outcome: Ok(payload) })
    }

    async fn read_all(link: tokio::io::DuplexStream) -> Vec<Frame> {
        use futures::StreamExt;
        let blocks: Vec<_> = FramedRead::new(link, FrameCodec::new(1 << 20)).collect().await;
        blocks
            .into_iter()
            .flat_map(|block| block.expect("a block").frames())
            .map(|frame| frame.expect("a frame"))
            .collect()
    }

    #[actix_rt::test]
    async fn frames_leave_in_order_whether_small_or_large() {
        let (near, far) = tokio::io::duplex(1024);
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let frames: Vec<_> = [10, 40_000, 20, 30, 16_384, 16_383, 5]
            .into_iter()
            .enumerate()
            .map(|(id, len)| reply(id as u64, len))
            .collect();
        for frame in &frames {
            outbox.push_always(frame);
        }
        outbox.close();
        let (written, read) = futures::join!(outbox.write_to(near), read_all(far));
        written.expect("written");
        assert_eq!(read, frames);
    }

    #[actix_rt::test]
    async fn a_long_buffer_is_kept_by_a_link_that_needs_it_again() {
        let (near, far) = tokio::io::duplex(IDLE_BUFFER_LEN_MAX * 4);
        let outbox = Outbox::new(FRAME_LEN_MAX);
        actix_rt::spawn(outbox.clone().write_to(near));
        let capacity = async |len: usize| {
            (0..len.div_ceil(1000)).for_each(|id| outbox.push_always(&reply(id as u64, 1000)));
            while !outbox.lock().writer_waits {
                tokio::task::yield_now().await;
            }
            outbox.lock().small.capacity()
        };
        let burst = IDLE_BUFFER_LEN_MAX + 10_000;
        assert!(capacity(1).await <= IDLE_BUFFER_LEN_MAX);
        assert_eq!(capacity(burst).await, 0, "one burst is given back");
        assert!(capacity(burst).await > IDLE_BUFFER_LEN_MAX, "and not the next one");
        outbox.shrink();
        assert!(outbox.lock().small.capacity() > IDLE_BUFFER_LEN_MAX);
        outbox.shrink();
        assert_eq!(outbox.lock().small.capacity(), 0, "a heartbeat did without it");
        drop(far);
    }

    #[actix_rt::test]
    async fn a_full_outbox_refuses_requests_drops_events_and_takes_replies() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let large = reply(1, 9 * 1024 * 1024);
        outbox.push(&large).expect("room");
        outbox.push(&large).expect("room for a request");
        assert_eq!(outbox.push_event(&Frame::Ping), Err(Refusal::Full), "and none for an event");
        while outbox.len() < OUTBOX_REQUEST_LEN_MAX {
            outbox.push(&large).expect("room until it is full");
        }
        assert_eq!(outbox.push(&Frame::Ping), Err(Refusal::Full));
        assert_eq!(outbox.dropped(), 1);
        let before = outbox.len();
        outbox.push_always(&reply(2, 10));
        assert!(outbox.len() > before);
    }

    #[actix_rt::test]
    async fn a_reply_to_a_peer_that_never_reads_becomes_a_small_error() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let large = reply(1, 16 * 1024 * 1024 - 100);
        for _ in 0..17 {
            outbox.push_always(&large);
        }
        let before = outbox.len();
        assert!(before >= OUTBOX_REPLY_LEN_MAX);
        outbox.push_always(&large);
        assert!((1..1000).contains(&(outbox.len() - before)));
    }

    #[actix_rt::test]
    async fn a_frame_that_the_other_end_does_not_read_is_refused_and_a_reply_says_so() {
        let (near, far) = tokio::io::duplex(1024);
        let outbox = Outbox::new(50_000);
        for len in [50_000, 49_999] {
            assert!(matches!(outbox.push(&reply(1, len)), Err(Refusal::TooLong { max: 50_000, .. })));
        }
        outbox.push_always(&reply(1, 60_000));
        outbox.close();
        let (written, read) = futures::join!(outbox.write_to(near), read_all(far));
        written.expect("written");
        let [Frame::Response(Response { outcome: Err(error), .. })] = &read[..] else {
            panic!("one error: {read:?}");
        };
        assert_eq!(error.code(), Code::FRAME_TOO_LARGE);
    }

    #[actix_rt::test]
    async fn small_replies_of_a_turn_leave_together_and_the_others_at_once() {
        let (near, far) = tokio::io::duplex(1024);
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let gathered = Gathered::default();
        let say = |id, len, left| {
            let Frame::Response(Response { callback_id, outcome }) = reply(id, len) else {
                unreachable!("it is a response")
            };
            gathered.to(&outbox, left).reply(callback_id, outcome);
        };
        say(1, 10, 2);
        say(2, GATHERED_LEN_MAX + 1, 1);
        say(3, GATHERED_LEN_MAX, 0);
        gathered.leave(&outbox);
        say(4, 10, 0);
        assert!(gathered.0.borrow().is_empty(), "a turn of one gathers nothing");
        let len = outbox.len();
        outbox.close();
        say(5, 10, 1);
        gathered.leave(&outbox);
        assert_eq!((outbox.len(), gathered.0.borrow().len()), (len, 0), "nobody waits for it any more");
        let (written, read) = futures::join!(outbox.write_to(near), read_all(far));
        written.expect("written");
        assert_eq!(read, [reply(2, 65), reply(1, 10), reply(3, 64), reply(4, 10)]);
    }

    #[actix_rt::test]
    async fn a_closed_outbox_takes_nothing() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        outbox.close_now();
        assert_eq!(outbox.push(&Frame::Ping), Err(Refusal::Closed));
        assert_eq!(outbox.len(), 0);
        assert!(!outbox.has_room());
    }
}

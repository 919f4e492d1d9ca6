//! The task that writes the frames of an outbox to its link.

use super::outbox::{Outbox, State};
use super::pulse::Pulse;
use super::refusal::{Receiver, Refusal};
use bytes::{Bytes, BytesMut};
use futures::ready;
use meshwork_wire::limits::{LENGTH_PREFIX_LEN, LINGER, WRITTEN_IN_TURN_LEN_MAX};
use meshwork_wire::{Features, Frame, FrameCodec, Response};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tokio::time::Sleep;
use tokio_util::codec::Decoder;

/// How many pieces of bytes one system call writes at most.
const PIECES_MAX: usize = 64;

/// Writes the frames of an outbox until the link fails or the outbox is closed. Gives the error of a link that failed.
pub(crate) fn write_all<W: AsyncWrite + Unpin>(outbox: Outbox, link: W, pulse: Pulse) -> Writing<W> {
    Writing {
        outbox,
        link,
        pulse,
        waited: false,
        pieces: VecDeque::new(),
        small: BytesMut::new(),
        small_written: 0,
        taken: 0,
        unsaid: None,
        state: State::Open,
        linger: None,
    }
}

/// The future of [`write_all`], made by hand: an `async` function keeps room for each of its waits, which doubled the memory of an idle
/// link's writer.
pub(crate) struct Writing<W> {
    outbox: Outbox,
    link: W,
    pulse: Pulse,
    /// Whether bytes of those that were taken had to wait for room.
    waited: bool,
    /// The bytes that were taken from the outbox and are not written yet: the pieces, then those of `small`.
    pieces: VecDeque<Bytes>,
    small: BytesMut,
    /// How many bytes of `small` are written.
    small_written: usize,
    /// How many bytes were taken from the outbox; zero when all of them are written.
    taken: usize,
    /// Frames of those that were taken which are to be said in an older form, behind the bytes of `small`. None unless the far end is of an
    /// earlier version.
    unsaid: Option<Box<Unsaid>>,
    /// The state of the outbox when the bytes were taken.
    state: State,
    /// How long a link that closes may still take. Set at the first wait.
    linger: Option<Pin<Box<Sleep>>>,
}

/// Whole frames that an end of an earlier version is to read.
struct Unsaid {
    features: Features,
    pieces: VecDeque<Bytes>,
    /// The beginning of a frame whose other bytes are in the pieces.
    partial: BytesMut,
    codec: FrameCodec,
}

impl<W: AsyncWrite + Unpin> Future for Writing<W> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = ready!(self.poll_until_closed(context));
        self.outbox.close_now();
        Poll::Ready(written)
    }
}

impl<W: AsyncWrite + Unpin> Writing<W> {
    fn poll_until_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut left = WRITTEN_IN_TURN_LEN_MAX;
        loop {
            if self.taken == 0 {
                // With a time set, the last bytes are written and the shutdown waits.
                if self.linger.is_none() {
                    let taking = self.outbox.poll_take(context, &mut self.pieces, &mut self.small);
                    (self.taken, self.state) = ready!(taking);
                }
                if self.taken == 0 {
                    // A peer that does not let the shutdown finish is waited for no longer than `LINGER`.
                    if self.state == State::Closing
                        && Pin::new(&mut self.link).poll_shutdown(context).is_pending()
                    {
                        ready!(self.poll_linger(context));
                    }
                    return Poll::Ready(Ok(()));
                }
                let features = self.outbox.features();
                if !features.contains(Features::FORMS) {
                    self.pieces.push_back(self.small.split().freeze());
                    let (pieces, partial) = (std::mem::take(&mut self.pieces), BytesMut::new());
                    let codec = FrameCodec::new(usize::MAX);
                    self.unsaid = Some(Box::new(Unsaid { features, pieces, partial, codec }));
                } else if !self.pieces.is_empty() && !self.small.is_empty() {
                    self.pieces.push_back(Bytes::copy_from_slice(&self.small));
                    self.small.clear();
                }
            }
            match self.poll_write(context, &mut left) {
                Poll::Ready(written) => written?,
                Poll::Pending if left > 0 && self.state == State::Closing => {
                    ready!(self.poll_linger(context));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending => return Poll::Pending,
            }
            self.linger = None;
            self.waited = false;
            self.small.clear();
            self.small_written = 0;
            self.outbox.written(std::mem::take(&mut self.taken));
        }
    }

    /// Writes a part of the frames that were taken anew, for an end of an earlier version. Gives how many bytes were taken for it. A part, so
    /// that neither the time of a turn nor the memory beside the outbox grows with what waits.
    #[cold]
    fn say_as_before(&mut self, unsaid: &mut Unsaid) -> io::Result<usize> {
        let Unsaid { features, pieces, partial, codec } = unsaid;
        let mut taken = 0;
        while taken < WRITTEN_IN_TURN_LEN_MAX
            && let Some(piece) = pieces.front_mut()
        {
            let some = piece.split_to(piece.len().min(WRITTEN_IN_TURN_LEN_MAX - taken));
            taken += some.len();
            partial.extend_from_slice(&some);
            if piece.is_empty() {
                pieces.pop_front();
            }
        }
        while let Some(block) = codec.decode(partial).map_err(io::Error::other)? {
            for frame in block.frames() {
                let frame = frame.map_err(io::Error::other)?.for_features(*features);
                let start = self.small.len();
                frame.encode(&mut self.small);
                let (len, max) = (self.small.len() - start - LENGTH_PREFIX_LEN, self.outbox.frame_len_max());
                if len > max {
                    // The older form is longer, and would cut the link.
                    self.small.truncate(start);
                    if let Frame::Response(Response { callback_id, .. }) = frame {
                        let outcome = Err(Refusal::TooLong { len, max }.into_error(Receiver::Caller));
                        Frame::Response(Response { callback_id, outcome }).encode(&mut self.small);
                    }
                }
            }
        }
        Ok(taken)
    }

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        linger.as_mut().poll(context)
    }

    /// Writes what was taken; not more than `left`, which is what this turn may still write.
    fn poll_write(&mut self, context: &mut Context<'_>, left: &mut usize) -> Poll<io::Result<()>> {
        ready!(self.poll_write_said(context, left))?;
        while let Some(mut unsaid) = self.unsaid.take() {
            self.small.clear();
            self.small_written = 0;
            *left = left.saturating_sub(self.say_as_before(&mut unsaid)?);
            if !unsaid.pieces.is_empty() {
                self.unsaid = Some(unsaid);
            }
            ready!(self.poll_write_said(context, left))?;
            if self.unsaid.is_some() {
                ready!(turn_goes_on(*left, context));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the pieces, then the bytes of `small`.
    fn poll_write_said(&mut self, context: &mut Context<'_>, left: &mut usize) -> Poll<io::Result<()>> {
        while !self.pieces.is_empty() {
            ready!(turn_goes_on(*left, context));
            // The list of slices is made anew for each attempt: kept across a wait, it would be most of the memory of an idle link.
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let (mut count, mut fits) = (0, *left);
            for (slice, piece) in slices.iter_mut().zip(self.pieces.iter()) {
                if fits == 0 {
                    break;
                }
                let offered = &piece[..piece.len().min(fits)];
                fits -= offered.len();
                *slice = IoSlice::new(offered);
                count += 1;
            }
            let written = Pin::new(&mut self.link).poll_write_vectored(context, &slices[..count]);
            let mut written = ready!(noted(&mut self.waited, &self.pulse, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *left -= written;
            while let Some(piece) = self.pieces.front_mut() {
                if written < piece.len() {
                    let _ = piece.split_to(written);
                    break;
                }
                written -= piece.len();
                self.pieces.pop_front();
            }
        }
        while let Some(rest @ [_, ..]) = self.small.get(self.small_written..) {
            ready!(turn_goes_on(*left, context));
            let offered = &rest[..rest.len().min(*left)];
            let written = Pin::new(&mut self.link).poll_write(context, offered);
            let written = ready!(noted(&mut self.waited, &self.pulse, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.small_written += written;
            *left -= written;
        }
        Poll::Ready(Ok(()))
    }
}

/// Waits for the next turn if this one may write no more. Others of the thread have theirs first: a socket may take megabytes at once.
fn turn_goes_on(left: usize, context: &mut Context<'_>) -> Poll<()> {
    if left > 0 {
        return Poll::Ready(());
    }
    context.waker().wake_by_ref();
    Poll::Pending
}

/// Notes that a write has to wait, or that it went on after it had waited: then the far end has taken bytes.
fn noted(waited: &mut bool, pulse: &Pulse, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    match &written {
        Poll::Pending => *waited = true,
        Poll::Ready(Ok(1..)) if *waited => pulse.taken(),
        Poll::Ready(_) => {}
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::outbox::{Kind, OutboxBounds, Pool, Turn};
    use meshwork_wire::limits::{
        FRAME_LEN_MAX, OUTBOX_EVENTS_LEN_MIN, OUTBOX_REPLY_LEN_MAX, OUTBOX_REQUEST_LEN_MAX,
    };
    use meshwork_wire::{
        Callable, CallbackId, Callbacks, Code, Encoding, Function, Headers, Invocation, Invoked, Passed,
        Payload, Request,
    };
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use tokio_util::codec::FramedRead;

    /// A longer buffer is given back as soon as the link is idle.
    const BURST_LEN: usize = 128 * 1024;

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
            outbox.say(frame);
        }
        outbox.close();
        let (written, read) =
            futures::join!(write_all(outbox.clone(), near, Pulse::default()), read_all(far));
        written.expect("written");
        assert_eq!(read, frames);
    }

    /// A link that takes all that is offered, and notes how much.
    #[derive(Default)]
    struct TakesAll(usize);

    impl AsyncWrite for TakesAll {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            offered: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0 += offered.len();
            Poll::Ready(Ok(offered.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            offered: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let len = offered.iter().map(|slice| slice.len()).sum();
            self.0 += len;
            Poll::Ready(Ok(len))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// How often a further turn was asked for.
    #[derive(Default)]
    struct Asked(AtomicUsize);

    impl Wake for Asked {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Two hundred links that each took megabytes in one turn held up all others for seconds.
    #[actix_rt::test]
    async fn a_link_that_takes_all_takes_a_bounded_share_of_each_turn() {
        for features in [Features::ALL, Features::default()] {
            for payload_len in [100, 20_000, 3_000_000] {
                let outbox = Outbox::new(FRAME_LEN_MAX);
                outbox.set_features(features);
                (0..6_000_000_u64 / payload_len).for_each(|id| outbox.say(&reply(id, payload_len as usize)));
                outbox.close();
                let in_all = outbox.len();
                let mut writing = write_all(outbox, TakesAll::default(), Pulse::default());
                let asked = Arc::new(Asked::default());
                let waker = Waker::from(Arc::clone(&asked));
                let mut context = Context::from_waker(&waker);
                let (mut turns, mut before) = (0, 0);
                while Pin::new(&mut writing).poll(&mut context).is_pending() {
                    turns += 1;
                    assert_eq!(
                        asked.0.load(Ordering::Relaxed),
                        turns,
                        "a turn that ends early asks for the next"
                    );
                    assert!(writing.link.0 - before <= WRITTEN_IN_TURN_LEN_MAX);
                    before = writing.link.0;
                }
                assert_eq!(writing.link.0, in_all, "{features:?}, {payload_len}");
                assert!((1..=3 * in_all / WRITTEN_IN_TURN_LEN_MAX).contains(&turns), "{turns} turns");
            }
        }
    }

    #[actix_rt::test]
    async fn a_long_buffer_is_kept_by_a_link_that_needs_it_again() {
        let (near, far) = tokio::io::duplex(BURST_LEN * 4);
        let outbox = Outbox::new(FRAME_LEN_MAX);
        actix_rt::spawn(write_all(outbox.clone(), near, Pulse::default()));
        let capacity = async |len: usize| {
            (0..len.div_ceil(1000)).for_each(|id| outbox.say(&reply(id as u64, 1000)));
            while !outbox.is_idle() {
                tokio::task::yield_now().await;
            }
            outbox.small_capacity()
        };
        let burst = BURST_LEN + 10_000;
        assert!(capacity(1).await <= BURST_LEN);
        assert_eq!(capacity(burst).await, 0, "one burst is given back");
        assert!(capacity(burst).await > BURST_LEN, "and not the next one");
        outbox.shrink();
        assert!(outbox.small_capacity() > BURST_LEN);
        outbox.shrink();
        assert_eq!(outbox.small_capacity(), 0, "a heartbeat did without it");
        drop(far);
    }

    #[actix_rt::test]
    async fn a_full_outbox_refuses_requests_drops_events_and_takes_replies() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let large = reply(1, 9 * 1024 * 1024);
        outbox.push(&large, Kind::Request).expect("room");
        outbox.push(&large, Kind::Request).expect("room for a request");
        assert_eq!(outbox.push(&Frame::Ping, Kind::Event), Err(Refusal::Full), "and none for an event");
        while outbox.len() < OUTBOX_REQUEST_LEN_MAX {
            outbox.push(&large, Kind::Request).expect("room until it is full");
        }
        assert_eq!(outbox.push(&Frame::Ping, Kind::Request), Err(Refusal::Full));
        assert_eq!(outbox.dropped(), 1);
        let before = outbox.len();
        outbox.say(&reply(2, 10));
        assert!(outbox.len() > before);
    }

    #[actix_rt::test]
    async fn a_reply_to_a_peer_that_never_reads_becomes_a_small_error() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let large = reply(1, 16 * 1024 * 1024 - 100);
        for _ in 0..16 {
            outbox.say(&large);
        }
        let before = outbox.len();
        assert!(before > OUTBOX_REPLY_LEN_MAX - 16 * 1024 && before <= OUTBOX_REPLY_LEN_MAX);
        outbox.say(&large);
        assert!((1..1000).contains(&(outbox.len() - before)));
    }

    #[actix_rt::test]
    async fn outboxes_of_one_master_share_what_one_may_hold_alone() {
        let pool = Pool::new(256 * 1024 * 1024);
        let outboxes: Vec<_> = (0..12)
            .map(|_| {
                let outbox =
                    Outbox::with_pool(FRAME_LEN_MAX, OutboxBounds::default(), Some(Arc::clone(&pool)));
                (0..100).for_each(|id| outbox.say(&reply(id, 4 * 1024 * 1024)));
                outbox
            })
            .collect();
        let held: Vec<_> = outboxes.iter().map(|outbox| outbox.len() >> 20).collect();
        assert!((120..=128).contains(&held[0]), "one leaves as much as it holds: {held:?}");
        assert!(held.iter().all(|held| *held >= 12), "the longest frame fits in any case: {held:?}");
        assert!(held.iter().sum::<usize>() <= 256 + 12 * 16, "{held:?}");
        outboxes[0].close_now();
        drop(outboxes);
        let again = Outbox::with_pool(FRAME_LEN_MAX, OutboxBounds::default(), Some(pool));
        (0..100).for_each(|id| again.say(&reply(id, 4 * 1024 * 1024)));
        assert!((120..=128).contains(&(again.len() >> 20)), "what is closed, or dropped, has left the pool");
    }

    /// Each outbox took 16 MiB of events, however many there were.
    #[actix_rt::test]
    async fn events_share_what_one_may_hold_alone_and_those_that_read_lose_none() {
        let pool = Pool::new(32 * 1024 * 1024);
        let pooled = || Outbox::with_pool(FRAME_LEN_MAX, OutboxBounds::default(), Some(Arc::clone(&pool)));
        let event = reply(1, 10 * 1024);
        let outboxes: Vec<_> = (0..200).map(|_| pooled()).collect();
        for _ in 0..200 {
            // In turn, as one publisher fills them.
            outboxes.iter().for_each(|outbox| _ = outbox.push(&event, Kind::Event));
        }
        let held: Vec<_> = outboxes.iter().map(Outbox::len).collect();
        let least = OUTBOX_EVENTS_LEN_MIN;
        assert!(held.iter().all(|held| (least..=4 * least).contains(held)), "all the same: {held:?}");
        assert!(held.iter().sum::<usize>() <= (32 << 20) + 200 * 2 * least, "{held:?}");
        assert!(outboxes.iter().all(|outbox| outbox.dropped() > 0 && !outbox.has_room(Kind::Event)));
        let reads = pooled();
        for _ in 0..50 {
            reads.push(&event, Kind::Event).expect("there is room for a few events in any case");
            reads.written(reads.len());
        }
        assert_eq!(reads.dropped(), 0);
        outboxes.iter().for_each(|outbox| outbox.written(outbox.len()));
        assert_eq!(pool.held(), 0);
    }

    struct Nothing;

    impl Callable for Nothing {
        fn invoke(&self, _: Invocation) -> Invoked {
            Box::pin(async { Ok(Payload::default()) })
        }
    }

    fn request(id: u64, payload_len: usize) -> Request {
        let callbacks = Callbacks::new([Passed::Here(Function::new(Nothing))]);
        Request {
            callback_id: CallbackId(id),
            action: "a".into(),
            node: "".into(),
            caller: "".into(),
            time_left: None,
            hops: 0,
            headers: Headers::none(),
            payload: Payload { callbacks, ..Payload::new(Encoding::Json, vec![b'x'; payload_len]) },
        }
    }

    /// Functions of requests that never left stayed lent, and lanes counted in no pool.
    #[actix_rt::test]
    async fn requests_in_lanes_count_in_the_pool_and_give_back_what_they_lend() {
        let pool = Pool::new(64 * 1024 * 1024);
        let outbox = Outbox::with_pool(FRAME_LEN_MAX, OutboxBounds::default(), Some(Arc::clone(&pool)));
        outbox.say(&reply(0, 5 * 1024 * 1024));
        let mut count = 0;
        let turn = |id| Turn { caller: 1, id: Some(CallbackId(id)) };
        while outbox.hold().push_in_turn(turn(count), &request(count, 1024 * 1024), Kind::Request).is_ok() {
            count += 1;
        }
        assert!((8..=64).contains(&count), "{count} requests of one MiB found room");
        assert_eq!(outbox.lent().len() as u64, count);
        (0..count / 2).for_each(|id| assert!(outbox.withdraw(CallbackId(id)), "{id}"));
        assert_eq!(outbox.lent().len() as u64, count - count / 2);
        let other = Outbox::with_pool(FRAME_LEN_MAX, OutboxBounds::default(), Some(pool));
        (0..100).for_each(|id| other.say(&reply(id, 1024 * 1024)));
        assert!(other.len() < 64 << 20, "{} besides the lanes of the other", other.len());
        assert_eq!(outbox.close_lanes().len() as u64, count - count / 2);
        assert_eq!(outbox.lent().len(), 0);
    }

    #[actix_rt::test]
    async fn a_frame_that_the_other_end_does_not_read_is_refused_and_a_reply_says_so() {
        let (near, far) = tokio::io::duplex(1024);
        let outbox = Outbox::new(50_000);
        for len in [50_000, 49_999] {
            assert!(matches!(
                outbox.push(&reply(1, len), Kind::Request),
                Err(Refusal::TooLong { max: 50_000, .. })
            ));
        }
        outbox.say(&reply(1, 60_000));
        outbox.close();
        let (written, read) =
            futures::join!(write_all(outbox.clone(), near, Pulse::default()), read_all(far));
        written.expect("written");
        let [Frame::Response(Response { outcome: Err(error), .. })] = &read[..] else {
            panic!("one error: {read:?}");
        };
        assert_eq!(error.code(), Code::FRAME_TOO_LARGE);
    }

    #[actix_rt::test]
    async fn a_closed_outbox_takes_nothing() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        outbox.close_now();
        assert_eq!(outbox.push(&Frame::Ping, Kind::Request), Err(Refusal::Closed));
        assert_eq!(outbox.len(), 0);
        assert!(!outbox.has_room(Kind::Event));
    }
}

//! A link that speaks another protocol at its far end. It stands between a foreign socket and a session or a master,
//! which read and write frames of ours and notice nothing. What is said in which protocol is the business of the dialects in
//! `meshwork-wire`.

use crate::link::Link;
use crate::link::refusal::too_long;
use bytes::{Buf, BytesMut};
use meshwork_wire::limits::{
    BIND_FRAME_LEN_MAX, CALLBACKS_PER_REQUEST_MAX, FOREIGN_BUFFER_LEN_MAX, FOREIGN_OUT_LEN_MAX,
    FRAME_LEN_MAX, HEAD_RESERVE_LEN, HEARTBEAT_EVERY_MIN, READ_BUFFER_LEN_START,
};
use meshwork_wire::{
    Bound, CallError, Callbacks, Code, DialectError, Fate, Frame, FrameCodec, Invoke, Request, Response, Said,
};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Interval;
use tokio_util::codec::Decoder;

/// How often a foreign connection says that it is still there, or more often if it must, and looks for calls that have taken too long.
const BEAT: Duration = Duration::from_secs(1);

/// Frames of ours at one end, another protocol at the other.
pub(crate) struct DialectLink {
    link: Box<dyn Link>,
    dialect: Box<dyn meshwork_wire::Dialect>,
    peer: String,
    /// What came from outside and is not understood yet.
    heard: BytesMut,
    /// What goes out.
    out: BytesMut,
    /// Frames for our end.
    frames: BytesMut,
    /// What our end wrote and is no whole frame yet.
    written: BytesMut,
    codec: FrameCodec,
    said: Said,
    beat: Interval,
    /// Whether it was dialled. Whoever came in is not heard while it does not read; whoever was dialled always is, since it may do the same.
    dialled: bool,
    bind: Bind,
    /// The longest frame that our end reads.
    frame_len_max: usize,
    state: State,
    /// Why our end wants it no more.
    pub(crate) refused: Option<CallError>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How far the bind is: nothing else may be said before it is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bind {
    No,
    Asked,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more is heard; our end reads what there is, then the end.
    Ended,
}

impl DialectLink {
    /// Speaks a dialect over a link that came from there.
    pub(crate) fn accepted(
        link: Box<dyn Link>,
        dialect: Box<dyn meshwork_wire::Dialect>,
        peer: String,
    ) -> Self {
        Self::new(link, dialect, peer, false)
    }

    /// Speaks a dialect over a link that goes there.
    pub(crate) fn dialled(
        link: Box<dyn Link>,
        dialect: Box<dyn meshwork_wire::Dialect>,
        peer: String,
    ) -> Self {
        Self::new(link, dialect, peer, true)
    }

    fn new(
        link: Box<dyn Link>,
        mut dialect: Box<dyn meshwork_wire::Dialect>,
        peer: String,
        dialled: bool,
    ) -> Self {
        let mut said = Said::default();
        dialect.begin(Instant::now(), &mut said);
        let mut this = Self {
            link,
            dialect,
            peer,
            heard: BytesMut::new(),
            out: BytesMut::new(),
            frames: BytesMut::new(),
            written: BytesMut::new(),
            codec: FrameCodec::new(FRAME_LEN_MAX),
            said,
            beat: every(BEAT),
            dialled,
            bind: Bind::No,
            frame_len_max: FRAME_LEN_MAX,
            state: State::Open,
            refused: None,
            reader: None,
            writer: None,
        };
        this.pass_on();
        this
    }

    /// What the dialect said goes where it belongs.
    fn pass_on(&mut self) {
        while !self.said.frames.is_empty() {
            for frame in std::mem::take(&mut self.said.frames) {
                match &frame {
                    Frame::Bind(_) => self.bind = Bind::Asked,
                    Frame::Bound(bound) => self.let_in(bound),
                    _ => {}
                }
                match self.unfit(&frame) {
                    Some(error) => self.refuse(frame, error),
                    None => frame.encode(&mut self.frames),
                }
            }
        }
        self.out.unsplit(self.said.bytes.split());
        if !self.frames.is_empty()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// The bind is done.
    fn let_in(&mut self, bound: &Bound) {
        self.bind = Bind::Done;
        self.frame_len_max = usize::try_from(bound.frame_len_max).unwrap_or(FRAME_LEN_MAX).min(FRAME_LEN_MAX);
        self.beat = every(BEAT.min(Duration::from_millis(bound.heartbeat_ms)).max(HEARTBEAT_EVERY_MIN));
    }

    /// Why our end would give the link up if it read this.
    fn unfit(&self, frame: &Frame) -> Option<CallError> {
        let payload = frame.payload()?;
        let (len, max) = (payload.len() + HEAD_RESERVE_LEN, self.frame_len_max);
        let (code, what) = if payload.callbacks.len() > CALLBACKS_PER_REQUEST_MAX {
            (Code::OVERLOADED, format!("at most {CALLBACKS_PER_REQUEST_MAX} functions are passed at once"))
        } else if len > max {
            (Code::FRAME_TOO_LARGE, too_long(len, max))
        } else {
            return None;
        };
        Some(CallError::new(code, Fate::NotSent, what))
    }

    /// Does not say this, and tells whoever waits for what becomes of it.
    fn refuse(&mut self, frame: Frame, error: CallError) {
        let callbacks = frame.payload().map_or_else(Callbacks::none, |payload| payload.callbacks.clone());
        let asked = match frame {
            Frame::Request(Request { callback_id, .. }) => Some(callback_id),
            Frame::Invoke(Invoke { callback_id, .. }) => callback_id,
            Frame::Response(Response { callback_id, .. }) => {
                let outcome = Err(error.clone().with_fate(Fate::Failed));
                Frame::Response(Response { callback_id, outcome }).encode(&mut self.frames);
                None
            }
            _ => {
                log::warn!("{}: an event is dropped: {error}", self.peer);
                None
            }
        };
        let released = callbacks.ids().into_iter().map(Frame::Release);
        let answered =
            asked.map(|callback_id| Frame::Response(Response { callback_id, outcome: Err(error) }));
        for frame in released.chain(answered) {
            if let Err(error) = self.dialect.say(frame, Instant::now(), &mut self.said) {
                self.end(&error);
            }
        }
    }

    fn end(&mut self, error: &DialectError) {
        log::warn!("{}: {error}", self.peer);
        if let DialectError::Refused(refused) = error {
            self.refused = Some(refused.clone());
        }
        self.state = State::Ended;
        self.pass_on();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Writes what goes out, as far as the socket takes it.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.link).poll_write(context, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        // The socket knows one of the two that may wait for it.
        for waiting in [self.writer.take(), self.reader.take()].into_iter().flatten() {
            waiting.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// Makes frames of what comes from outside, until there are some.
    fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.beat.poll_tick(context).is_ready() {
                self.dialect.expire(Instant::now(), &mut self.said);
                if self.bind == Bind::Done {
                    // Its other end knows no heartbeat of ours; while the socket is open, it is there.
                    self.said.frames.push(Frame::Ping);
                }
                self.pass_on();
            }
            // Whoever asks and does not read is not heard until it does.
            let unread = self.poll_out(context)?.is_pending();
            let blocked = unread && !self.dialled && self.out.len() > FOREIGN_BUFFER_LEN_MAX;
            if unread && self.out.len() > FOREIGN_OUT_LEN_MAX {
                let what = format!("{} bytes wait for it, and it reads none", self.out.len());
                self.end(&DialectError::Closed(CallError::new(Code::OVERLOADED, Fate::Unknown, what)));
            }
            if self.state == State::Open && !blocked {
                self.said.enough = false;
                if let Err(error) = self.dialect.hear(&mut self.heard, Instant::now(), &mut self.said) {
                    self.end(&error);
                }
                self.pass_on();
            }
            if !self.frames.is_empty() || self.state == State::Ended {
                // What was said on the way leaves, as far as the socket takes it.
                _ = self.poll_out(context)?;
                return Poll::Ready(Ok(()));
            }
            if blocked {
                return Poll::Pending;
            }
            if self.said.enough {
                continue;
            }
            if self.poll_out(context)?.is_pending()
                && self.out.len() > FOREIGN_BUFFER_LEN_MAX
                && !self.dialled
            {
                return Poll::Pending;
            }
            // A whole message of theirs must fit; of whoever has not been checked, no more than a bind takes.
            let is_known = self.bind == Bind::Done || self.dialled;
            let (claimed, max) =
                (self.heard.len(), if is_known { FRAME_LEN_MAX } else { BIND_FRAME_LEN_MAX });
            if claimed > max {
                // What comes behind a bind waits for it.
                if self.bind != Bind::No {
                    return Poll::Pending;
                }
                let dialect = "the protocol that is listened for";
                self.end(&DialectError::TooLong { dialect, claimed, max });
                continue;
            }
            self.heard.reserve(READ_BUFFER_LEN_START);
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.link), context, &mut self.heard);
            if ready!(read)? == 0 {
                self.state = State::Ended;
            }
        }
    }

    /// Takes the frames that our end has written.
    fn take_written(&mut self) -> io::Result<()> {
        while let Some(block) = self.codec.decode(&mut self.written).map_err(io::Error::other)? {
            let now = Instant::now();
            for frame in block.frames() {
                let frame = frame.map_err(io::Error::other)?;
                if let Frame::Bound(bound) = &frame {
                    self.let_in(bound);
                }
                if let Err(error) = self.dialect.say(frame, now, &mut self.said) {
                    self.end(&error);
                }
            }
            self.pass_on();
        }
        // What it waited for may be there now: a bind that is done, a function that was called.
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Ok(())
    }
}

impl AsyncRead for DialectLink {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.poll_frames(context) {
            Poll::Pending => {
                this.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(outcome) => outcome?,
        }
        // None at the end of the link.
        let len = this.frames.len().min(buffer.remaining());
        buffer.put_slice(&this.frames.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DialectLink {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.poll_out(context)?.is_pending() && this.out.len() > FOREIGN_BUFFER_LEN_MAX {
            this.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        this.written.extend_from_slice(bytes);
        this.take_written()?;
        // What does not leave now leaves when the socket takes it: whoever reads or writes next sees to that.
        if this.poll_out(context)?.is_pending() {
            this.writer = Some(context.waker().clone());
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_out(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(context))?;
        // Whoever says nothing more hears nothing more.
        this.state = State::Ended;
        if let Some(reader) = this.reader.take() {
            reader.wake();
        }
        Pin::new(&mut this.link).poll_shutdown(context)
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Says a MiB for each byte that it hears.
    struct Verbose;

    impl meshwork_wire::Dialect for Verbose {
        fn begin(&mut self, _: Instant, _: &mut Said) {}

        fn hear(&mut self, bytes: &mut BytesMut, _: Instant, said: &mut Said) -> Result<(), DialectError> {
            said.bytes.resize(said.bytes.len() + bytes.len() * 1024 * 1024, b'.');
            bytes.clear();
            Ok(())
        }

        fn say(&mut self, _: Frame, _: Instant, _: &mut Said) -> Result<(), DialectError> {
            Ok(())
        }

        fn expire(&mut self, _: Instant, _: &mut Said) {}
    }

    #[actix_rt::test]
    async fn whoever_was_dialled_and_reads_nothing_is_given_up() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut link = DialectLink::dialled(Box::new(near), Box::new(Verbose), "far".to_owned());
        let asking = async {
            let mut asked = 0;
            // It ends with the link.
            while far.write_all(b"?").await.is_ok() {
                asked += 1;
                tokio::task::yield_now().await;
            }
            asked
        };
        let hearing = async {
            let ended = link.read(&mut [0; 8]).await.expect("it is no failure of the socket");
            drop(link);
            ended
        };
        let (asked, ended) = futures::join!(asking, hearing);
        assert_eq!(ended, 0);
        // The last ones, 1,024 at most, stood in the socket.
        let limit = FOREIGN_OUT_LEN_MAX / (1024 * 1024);
        assert!((limit..limit + 1_030).contains(&asked), "{asked} MiB");
    }
}

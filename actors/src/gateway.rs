//! Gateways: a link that speaks another protocol at its far end. It stands between a foreign socket and a session or a master,
//! which read and write frames of ours and notice nothing. What is said in which protocol is the business of the dialects in
//! `meshwork-wire`.

pub mod bridge;
mod dialled;

pub use dialled::Dialect;
pub(crate) use dialled::DialectDial;

use crate::link::{Accept, Address, Link};
use bytes::{Buf, BytesMut};
use futures::future::BoxFuture;
use meshwork_wire::limits::{
    BIND_FRAME_LEN_MAX, FOREIGN_BUFFER_LEN_MAX, FRAME_LEN_MAX, READ_BUFFER_LEN_START,
};
use meshwork_wire::{CallError, DialectError, Frame, FrameCodec, Said};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Interval;
use tokio_util::codec::Decoder;

/// How often a foreign connection says that it is still there, and looks for calls that have taken too long.
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
    /// Whether our end has heard, or said, that the bind is done: nothing else may be said before.
    bound: bool,
    state: State,
    /// Why our end wants it no more.
    pub(crate) refused: Option<CallError>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more is heard; our end reads what there is, then the end.
    Ended,
}

impl DialectLink {
    /// Speaks a dialect over a link that comes from, or goes to, there.
    pub(crate) fn new(
        link: Box<dyn Link>,
        mut dialect: Box<dyn meshwork_wire::Dialect>,
        peer: String,
    ) -> Self {
        let mut said = Said::default();
        dialect.begin(Instant::now(), &mut said);
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
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
            beat,
            bound: false,
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
        for frame in self.said.frames.drain(..) {
            self.bound |= matches!(frame, Frame::Bound(_));
            frame.encode(&mut self.frames);
        }
        self.out.unsplit(self.said.bytes.split());
        if !self.frames.is_empty()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
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
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.link).poll_write(context, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// Makes frames of what comes from outside, until there are some.
    fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.beat.poll_tick(context).is_ready() {
                self.dialect.expire(Instant::now(), &mut self.said);
                if self.bound {
                    // Its other end knows no heartbeat of ours; while the socket is open, it is there.
                    self.said.frames.push(Frame::Ping);
                }
                self.pass_on();
            }
            if self.state == State::Open {
                if let Err(error) = self.dialect.hear(&mut self.heard, Instant::now(), &mut self.said) {
                    self.end(&error);
                }
                self.pass_on();
            }
            // Whoever asks and does not read is not heard until it does.
            let blocked = self.poll_out(context)?.is_pending() && self.out.len() > FOREIGN_BUFFER_LEN_MAX;
            if !self.frames.is_empty() || self.state == State::Ended {
                return Poll::Ready(Ok(()));
            }
            // A whole message of theirs must fit; of whoever has not been checked, no more than a bind takes.
            let heard_max = if self.bound { FRAME_LEN_MAX } else { BIND_FRAME_LEN_MAX };
            if blocked || self.heard.len() > heard_max {
                return Poll::Pending;
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
            for frame in block.frames() {
                let frame = frame.map_err(io::Error::other)?;
                self.bound |= matches!(frame, Frame::Bound(_));
                if let Err(error) = self.dialect.say(frame, Instant::now(), &mut self.said) {
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

/// Makes a dialect for a connection that came from there.
pub(crate) type MakeDialect = Box<dyn Fn(&str) -> Box<dyn meshwork_wire::Dialect> + Send>;

/// Takes foreign connections in.
pub(crate) struct GatewayAccept {
    pub(crate) accept: Box<dyn Accept>,
    pub(crate) dialect: MakeDialect,
}

impl Accept for GatewayAccept {
    fn address(&self) -> Address {
        self.accept.address()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Link>, String)>> {
        Box::pin(async move {
            let (link, peer) = self.accept.accept().await?;
            let dialect = (self.dialect)(&peer);
            let link: Box<dyn Link> = Box::new(DialectLink::new(link, dialect, peer.clone()));
            Ok((link, peer))
        })
    }
}

//! A link that was accepted at a listener with TLS. Its handshake is driven by the reads of the link, in the task of its session: the listener
//! never waits for it, and an idle connection has no TLS in memory before its first byte.

use super::explain::explained;
use super::stream::{Below, TlsLink};
use super::subject::named;
use crate::link::dial::{Handshake, Link};
use crate::link::fault::TlsFault;
use arc_swap::ArcSwap;
use bytes::BytesMut;
use futures::future::BoxFuture;
use meshwork_wire::{Code, Frame, Refused, is_native, is_tls, spoken};
use rustls::ServerConfig;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::FallibleAccept;

/// A link that was accepted.
pub(super) struct AcceptedTls {
    state: State,
    handshake: Arc<Handshake>,
    /// The writer of the link, which waits for the handshake.
    writer: Option<Waker>,
}

/// ```text
///   Arrived ──▶ Shaking ──▶ Open
///      │           │
///      └─────┬─────┘
///            ▼
///         Leaving ──▶ Over
/// ```
enum State {
    /// The first bytes, which tell whether the peer speaks TLS, have not come yet.
    Arrived(Below, Arc<ArcSwap<ServerConfig>>),
    Shaking(Box<FallibleAccept<Below>>),
    Open(Box<TlsLink>),
    /// The peer is told why it is refused; then the fault is the error of the read.
    Leaving(BoxFuture<'static, ()>, TlsFault),
    Over,
}

/// How many bytes tell a handshake of TLS from a frame. Every protocol begins with more.
const TELLING_LEN: usize = 5;

/// The alert for a peer that does not speak TLS: `unexpected_message`, fatal.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];

impl AcceptedTls {
    pub(super) fn new(
        link: Box<dyn Link>,
        config: Arc<ArcSwap<ServerConfig>>,
        handshake: Arc<Handshake>,
    ) -> Self {
        Self { state: State::Arrived(Below::bounded(link), config), handshake, writer: None }
    }

    /// Goes on with the handshake; gives the open link.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsLink>>> {
        loop {
            match &mut self.state {
                State::Open(_) => break,
                State::Arrived(below, _) => {
                    let come = ready!(below.poll_first(context))?;
                    if come == 0 {
                        self.end();
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    self.judge_first();
                }
                State::Shaking(shaking) => match ready!(Pin::new(&mut **shaking).poll(context)) {
                    Ok(mut stream) => {
                        stream.get_mut().0.lift_bound();
                        let shown = stream.get_ref().1.peer_certificates();
                        self.handshake.done(shown.and_then(<[_]>::first).map(named));
                        self.state = State::Open(Box::new(TlsLink::new(stream)));
                        self.wake_writer();
                    }
                    Err((error, below)) => {
                        let error = explained(error, below.first());
                        match TlsFault::of(&error).cloned() {
                            Some(fault) => self.leave(below, Vec::new(), fault),
                            None => {
                                self.end();
                                return Poll::Ready(Err(error));
                            }
                        }
                    }
                },
                State::Leaving(leaving, fault) => {
                    ready!(leaving.as_mut().poll(context));
                    let fault = fault.clone();
                    self.end();
                    return Poll::Ready(Err(fault.into_io()));
                }
                State::Over => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
        }
        match &mut self.state {
            State::Open(link) => Poll::Ready(Ok(Pin::new(link))),
            _ => unreachable!("the loop ends with an open link"),
        }
    }

    /// Begins the handshake if the first bytes are of TLS; refuses a peer whose first bytes are not.
    fn judge_first(&mut self) {
        let State::Arrived(below, config) = &self.state else {
            return;
        };
        let first = below.first();
        if first.len() < TELLING_LEN {
            return;
        }
        if is_tls(first) {
            // With the certificates as they are now.
            let acceptor = TlsAcceptor::from(config.load_full());
            if let State::Arrived(below, _) = std::mem::replace(&mut self.state, State::Over) {
                self.state = State::Shaking(Box::new(acceptor.accept(below).into_fallible()));
            }
            return;
        }
        let fault = TlsFault::NotSpoken(spoken(first));
        let last = if is_native(first) { refusal() } else { ALERT.to_vec() };
        if let State::Arrived(below, _) = std::mem::replace(&mut self.state, State::Over) {
            self.leave(below, last, fault);
        }
    }

    fn leave(&mut self, below: Below, last: Vec<u8>, fault: TlsFault) {
        self.state = State::Leaving(Box::pin(below.leave(last)), fault);
        self.wake_writer();
    }

    fn end(&mut self) {
        self.state = State::Over;
        self.wake_writer();
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// The open link, for its writer, which waits for the handshake and does not drive it.
    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsLink>>> {
        match &mut self.state {
            State::Open(link) => Poll::Ready(Ok(Pin::new(link))),
            State::Arrived(..) | State::Shaking(_) => {
                self.writer = Some(context.waker().clone());
                Poll::Pending
            }
            State::Leaving(..) | State::Over => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// What a node of meshwork that speaks without TLS is told, in a frame that it reads.
fn refusal() -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let message =
        "this address takes TLS only: name the CA of its certificate, with --ca or `DialTls`".into();
    Frame::Refused(Refused { code: Code::BIND_ERROR, message, may_return: false }).encode(&mut bytes);
    bytes.to_vec()
}

impl AsyncRead for AcceptedTls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for AcceptedTls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_writable(context))?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_writable(context))?.poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_writable(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(link) => Pin::new(link).poll_shutdown(context),
            // Nothing was said that could be lost.
            _ => Poll::Ready(Ok(())),
        }
    }
}

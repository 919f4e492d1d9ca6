//! The byte stream of a link over TLS, when its handshake is done; and the bytes below it.

use super::explain::explained;
use crate::link::dial::Link;
use crate::link::fault::TlsFault;
use meshwork_wire::limits::{LINGER, TLS_HANDSHAKE_LEN_MAX, TLS_REFUSED_LEN_MAX};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_rustls::TlsStream;

/// How many of the first bytes of the other end are kept: they tell the protocol that it speaks.
pub(super) const FIRST_LEN: usize = 16;

/// A link over TLS whose handshake is done.
pub(super) struct TlsLink {
    stream: TlsStream<Below>,
    /// How many bytes of the last write have been encrypted and have not all left. The writer of a link never flushes: a write is not done
    /// before its bytes have left, so that no byte is left behind.
    owed: usize,
}

impl TlsLink {
    pub(super) fn new(stream: impl Into<TlsStream<Below>>) -> Self {
        Self { stream: stream.into(), owed: 0 }
    }

    /// Lets the bytes of the last write leave.
    fn poll_owed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Poll::Ready(Ok(std::mem::take(&mut self.owed)))
    }
}

impl AsyncRead for TlsLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_read(context, buffer)) {
            // A process that dies says no farewell. The frames tell whether the stream was cut.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read.map_err(|error| explained(error, &[]))),
        }
    }
}

impl AsyncWrite for TlsLink {
    /// A write that is pending is asked for again with the same bytes, and perhaps more behind them.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.owed == 0 {
            self.owed = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        }
        self.poll_owed(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.owed == 0 {
            self.owed = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        }
        self.poll_owed(context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The bytes below TLS. Keeps the first bytes that came, since they tell which protocol the other end speaks if it is not TLS.
pub(super) struct Below {
    link: Box<dyn Link>,
    first: [u8; FIRST_LEN],
    /// How many bytes of `first` have come.
    come: usize,
    /// How many of the bytes that have come are to be read again.
    again: usize,
    /// How many bytes the handshake may still take; none if there is no bound, or the handshake is done.
    left: Option<usize>,
}

impl Below {
    pub(super) fn new(link: Box<dyn Link>) -> Self {
        Self { link, first: [0; FIRST_LEN], come: 0, again: 0, left: None }
    }

    /// For a peer that has not been checked: its handshake may take [`TLS_HANDSHAKE_LEN_MAX`] bytes.
    pub(super) fn bounded(link: Box<dyn Link>) -> Self {
        Self { left: Some(TLS_HANDSHAKE_LEN_MAX), ..Self::new(link) }
    }

    /// Notes that the handshake is done.
    pub(super) fn lift_bound(&mut self) {
        self.left = None;
    }

    /// The first bytes that have come.
    pub(super) fn first(&self) -> &[u8] {
        &self.first[..self.come]
    }

    /// Reads more of the first bytes, which the next reads give again; zero at the end of the stream.
    pub(super) fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.first[self.come..]);
        ready!(Pin::new(&mut self.link).poll_read(context, &mut buffer))?;
        let len = buffer.filled().len();
        (self.come, self.again) = (self.come + len, self.again + len);
        Poll::Ready(Ok(len))
    }

    /// Says the last bytes, and gives the peer the time to read why its handshake failed: the connection is closed when the peer has closed
    /// it, has sent [`TLS_REFUSED_LEN_MAX`] bytes more, or [`LINGER`] is over.
    pub(super) async fn leave(mut self, last: Vec<u8>) {
        let leaving = async {
            self.link.write_all(&last).await?;
            self.link.shutdown().await?;
            let mut rest = self.link.take(TLS_REFUSED_LEN_MAX as u64);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // The peer is refused whether it listens or not.
        let _ = tokio::time::timeout(LINGER, leaving).await;
    }
}

impl AsyncRead for Below {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.again > 0 {
            let len = self.again.min(buffer.remaining());
            let start = self.come - self.again;
            buffer.put_slice(&self.first[start..start + len]);
            self.again -= len;
            return Poll::Ready(Ok(()));
        }
        if self.left == Some(0) {
            let what = format!("it takes more than {TLS_HANDSHAKE_LEN_MAX} bytes");
            return Poll::Ready(Err(TlsFault::Failed(what).into_io()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.link).poll_read(context, buffer))?;
        let come = &buffer.filled()[before..];
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(come.len());
        }
        if self.come < FIRST_LEN {
            let len = come.len().min(FIRST_LEN - self.come);
            let start = self.come;
            self.first[start..start + len].copy_from_slice(&come[..len]);
            self.come += len;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Below {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(context)
    }
}

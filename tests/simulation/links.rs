//! Links over the simulated network of turmoil. All bytes of a link are part of the trace of a run.

use crate::journal;
use futures::future::BoxFuture;
use meshwork::Address;
use meshwork::link::{Accept, Accepted, Dial, Link};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// The port that a simulated master listens on: each simulated host has ports of its own.
pub(crate) const PORT: u16 = 3010;

/// Dials over the simulated network.
pub(crate) struct SimulatedDial;

impl Dial for SimulatedDial {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address.as_str()).await?;
            Ok(Box::new(Traced(stream)) as Box<dyn Link>)
        })
    }
}

/// Accepts what is dialled over the simulated network.
pub(crate) struct SimulatedAccept {
    host: &'static str,
    listener: TcpListener,
}

impl SimulatedAccept {
    /// Listens at a host, which must be the one that polls this.
    pub(crate) async fn listen(host: &'static str) -> io::Result<Self> {
        let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?;
        Ok(Self { host, listener })
    }
}

impl Accept for SimulatedAccept {
    fn address(&self) -> Address {
        Address::from(format!("{}:{PORT}", self.host))
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            Ok(Accepted::new(Box::new(Traced(stream)), peer.to_string()))
        })
    }
}

/// A stream whose bytes are noted in the trace of the run.
struct Traced(TcpStream);

impl AsyncRead for Traced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(context, into);
        if polled.is_ready() {
            journal::trace(&into.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Traced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.0).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = polled {
            journal::trace(&bytes[..count]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

//! The byte stream between two nodes, and where it comes from. The actors know nothing of TCP: they are handed a [`Dial`] or
//! an [`Accept`], so a simulated network is as good.

use futures::Stream;
use futures::future::BoxFuture;
use meshwork_wire::limits::{KEEPALIVE_AFTER, KEEPALIVE_EVERY};
use socket2::{SockRef, TcpKeepalive};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io, io::IoSlice, net::SocketAddr, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, lookup_host};

/// A byte stream that a node can be reached over.
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for T {}

/// Opens links. A branch holds one and dials again whenever it lost its link.
pub trait Dial: Send + Sync + 'static {
    /// Opens a link to an address.
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>>;
}

/// Takes links in.
pub trait Accept: Send + 'static {
    /// Where it listens.
    fn address(&self) -> Address;

    /// Waits for the next link; gives it and who is at its other end.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Link>, String)>>;
}

/// Lets the other tasks of the arbiter have their turns after each item: what one block of frames made others say leaves, and
/// is worked on at the far end, while the next block is read. Whoever holds a part of the block lets go of it meanwhile, so
/// that its buffer is read into again: making a new one for each read took more than half of what a call of 1 KiB cost.
pub(crate) struct Paced<S> {
    stream: S,
    turns: u8,
    left: u8,
}

impl<S> Paced<S> {
    /// With so many turns for the others after each item.
    pub(crate) fn new(stream: S, turns: u8) -> Self {
        Self { stream, turns, left: 0 }
    }
}

impl<S: Stream + Unpin> Stream for Paced<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.left > 0 {
            self.left -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let item = Pin::new(&mut self.stream).poll_next(context);
        if item.is_ready() {
            self.left = self.turns;
        }
        item
    }
}

/// Where a master listens: `host:port`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address(Arc<str>);

/// A text is no address. The message says what would be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no address: write HOST:PORT, as in 127.0.0.1:3010 or [::1]:3010")]
pub struct AddressError(String);

impl Address {
    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.0.parse::<SocketAddr>() {
            Ok(address) => address.ip().is_loopback(),
            Err(_) => self.0.starts_with("localhost:"),
        }
    }

    /// Checks the form: a host and a port. Whether the host exists shows when it is dialled.
    ///
    /// # Errors
    ///
    /// When it is not of the form `host:port`.
    pub fn check(&self) -> Result<(), AddressError> {
        let wrong = || AddressError(self.0.to_string());
        let (host, port) = self.0.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let host_is_good = !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c == '/')
            && (bracketed || !host.contains(':'));
        if host_is_good && port.parse::<u16>().is_ok() { Ok(()) } else { Err(wrong()) }
    }
}

impl From<&str> for Address {
    fn from(address: &str) -> Self {
        Self(address.into())
    }
}

impl From<String> for Address {
    fn from(address: String) -> Self {
        Self(address.into())
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// TCP, as the operating system offers it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address.as_str()).await?;
            // Frames are small and someone waits for each.
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
            Ok(Box::new(stream) as Box<dyn Link>)
        })
    }
}

/// A TCP port that is listened on.
#[derive(Debug)]
pub struct TcpAccept {
    listener: TcpListener,
    address: SocketAddr,
}

/// How many connections the operating system may hold before they are accepted: a mesh that comes back all at once must not
/// be turned away.
const TCP_BACKLOG: i32 = 4096;

impl TcpAccept {
    /// Listens on an address; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        address.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
        for socket_address in lookup_host(address.as_str()).await? {
            match listen(socket_address) {
                Ok(listener) => {
                    let address = listener.local_addr()?;
                    return Ok(Self { listener, address });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    // On Windows this would let two processes share the port; elsewhere it lets a master come back at once on its own.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // What it accepts is kept alive as it is.
    socket.set_tcp_keepalive(&keepalive())?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Other protocols have no heartbeat, or a slow one: then the operating system finds out that the other end is gone.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY)
}

impl Accept for TcpAccept {
    fn address(&self) -> Address {
        self.address.into()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Link>, String)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            let link = Accepted { stream: None, fresh: Some(stream.into_std()?) };
            Ok((Box::new(link) as Box<dyn Link>, peer.to_string()))
        })
    }
}

/// A connection that was taken in. It belongs to the arbiter that first reads or writes it, which need not be the listener's:
/// the arbiter whose reactor it is registered with is woken for it.
struct Accepted {
    stream: Option<TcpStream>,
    fresh: Option<std::net::TcpStream>,
}

impl Accepted {
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Some(fresh) = self.fresh.take() {
            self.stream = Some(TcpStream::from_std(fresh)?);
        }
        // Gone when it could not be registered: that has been said to whoever asked first.
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["127.0.0.1:3010", "[::1]:3010", "localhost:0", "mesh.example:65535"] {
            assert_eq!(Address::from(good).check(), Ok(()), "{good}");
        }
        for bad in
            ["", "localhost", ":3010", "::1:3010", "localhost:", "localhost:99999", "tcp://a:1", "a b:1"]
        {
            assert!(Address::from(bad).check().is_err(), "{bad}");
        }
    }
}

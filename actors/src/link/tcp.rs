//! Links over TCP.

use super::address::Address;
use super::dial::{Accept, Accepted, Dial, Link};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use meshwork_wire::limits::{KEEPALIVE_AFTER, KEEPALIVE_EVERY};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, lookup_host};

/// TCP links of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address.host_and_port()).await?;
            // Frames are small, and the other end waits for each.
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
            Ok(Box::new(stream) as Box<dyn Link>)
        })
    }
}

/// A listener on a TCP port.
#[derive(Debug)]
pub struct TcpAccept {
    listener: TcpListener,
    address: SocketAddr,
    /// A descriptor that is given up for a moment when there are no others, to turn connections away.
    spare: Option<socket2::Socket>,
}

/// How many connections the operating system may hold before they are accepted: branches that all come back at once must not be turned
/// away.
const TCP_BACKLOG: i32 = 4096;

impl TcpAccept {
    /// Listens on an address; port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// When the address is not valid, or the operating system refuses to listen on it.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        address.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
        for socket_address in lookup_host(address.host_and_port()).await? {
            match listen(socket_address) {
                Ok(listener) => {
                    let address = listener.local_addr()?;
                    return Ok(Self { listener, address, spare: spare() });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn spare() -> Option<socket2::Socket> {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()
}

/// Whether an error says that the process, or the system, has no descriptors left.
pub(crate) fn are_descriptors_gone(error: &io::Error) -> bool {
    // ENFILE and EMFILE, which have these numbers on every Unix, and EMFILE of Windows.
    matches!(error.raw_os_error(), Some(23 | 24 | 10_024))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    // On Windows this would let two processes share the port; elsewhere it lets a restarted master listen on its port at once.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Connections that it accepts inherit this.
    socket.set_tcp_keepalive(&keepalive())?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The keepalive of a connection. Foreign protocols have no heartbeat, or a slow one: there only the operating system finds out that the
/// other end is gone.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY)
}

impl Accept for TcpAccept {
    fn address(&self) -> Address {
        self.address.into()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            let link = Arriving { stream: None, fresh: Some(stream.into_std()?) };
            Ok(Accepted::new(Box::new(link), peer.to_string()))
        })
    }

    fn turn_away(&mut self, words: &[u8]) -> bool {
        self.spare = None;
        let accepted = self.listener.accept().now_or_never();
        let is_there = matches!(accepted, Some(Ok(_)));
        if let Some(Ok((stream, _))) = accepted
            && let Ok(mut stream) = stream.into_std()
        {
            // The words fit into the buffer of the socket. A connection that is closed with unread bytes loses them, so its bind is read.
            let _ = stream.write(words);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 4096]);
        }
        self.spare = spare();
        is_there
    }
}

/// A connection that was accepted. It belongs to the arbiter that first reads or writes it, which need not be the arbiter of the listener:
/// the connection is registered with the reactor of that arbiter, which is woken for it.
struct Arriving {
    /// The registered connection, after the first read or write.
    stream: Option<TcpStream>,
    /// The connection before the first read or write.
    fresh: Option<std::net::TcpStream>,
}

impl Arriving {
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Some(fresh) = self.fresh.take() {
            self.stream = Some(TcpStream::from_std(fresh)?);
        }
        // None when the connection could not be registered: the first read or write has failed with that error.
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Arriving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Arriving {
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

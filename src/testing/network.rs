//! The network of a mesh in memory: the links between each branch and the master, with their cuts and delays. Its time is that of tokio.

use futures::future::BoxFuture;
use meshwork_actors::link::{Accept, Accepted, Address, Dial, Link};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

/// How many bytes one direction of a link holds that the far end has not read, as the buffers of two sockets would.
const PIPE_LEN_MAX: usize = 256 * 1024;

/// How many dialled links may wait for the master to accept them, as in the backlog of a socket.
const BACKLOG_MAX: usize = 128;

/// A network in memory.
#[derive(Clone, Default)]
pub(super) struct Network(Arc<Mutex<Branches>>);

/// The branches by their names, and the door of the master; none while it is down.
#[derive(Default)]
struct Branches {
    by_name: BTreeMap<String, Ways>,
    master: Option<mpsc::Sender<(MemoryLink, String)>>,
}

/// Both ways between one branch and the master.
#[derive(Default)]
struct Ways {
    to_master: Arc<Way>,
    from_master: Arc<Way>,
}

/// A direction between one branch and the master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    ToMaster,
    FromMaster,
}

/// One way.
#[derive(Default)]
struct Way(Mutex<WayState>);

#[derive(Default)]
struct WayState {
    is_cut: bool,
    delay: Duration,
    pipes: Vec<Weak<Pipe>>,
    /// The dials that wait for the way to be mended.
    dialling: Vec<Waker>,
}

/// One direction of one link.
struct Pipe {
    way: Arc<Way>,
    state: Mutex<PipeState>,
}

#[derive(Default)]
struct PipeState {
    /// Bytes on their way, each with the moment when it arrives.
    moving: VecDeque<(Instant, Vec<u8>)>,
    /// How many bytes of the first are read already.
    read: usize,
    len: usize,
    /// The writer has closed its end: after the bytes on their way nothing comes.
    is_ended: bool,
    /// The reader has closed its end.
    is_unread: bool,
    /// The connection was reset.
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end of a link.
pub(super) struct MemoryLink {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    arrival: Option<Pin<Box<Sleep>>>,
}

/// Dials the master of a mesh in memory, from this branch.
pub(super) struct MemoryDial {
    pub(super) network: Network,
    pub(super) branch: String,
}

/// Accepts the links that are dialled to the master.
pub(super) struct MemoryAccept {
    address: Address,
    dialled: mpsc::Receiver<(MemoryLink, String)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    /// Lets the master accept links, until the acceptor is dropped.
    pub(super) fn listen(&self, address: Address) -> MemoryAccept {
        let (door, dialled) = mpsc::channel(BACKLOG_MAX);
        lock(&self.0).master = Some(door);
        MemoryAccept { address, dialled }
    }

    fn way(&self, branch: &str, direction: Direction) -> Arc<Way> {
        let mut branches = lock(&self.0);
        let ways = branches.by_name.entry(branch.to_owned()).or_default();
        Arc::clone(match direction {
            Direction::ToMaster => &ways.to_master,
            Direction::FromMaster => &ways.from_master,
        })
    }

    /// Cuts one way, or mends it.
    pub(super) fn set_cut(&self, branch: &str, direction: Direction, is_cut: bool) {
        self.way(branch, direction).change(|way| way.is_cut = is_cut);
    }

    /// Sets how long bytes take on one way from now on.
    pub(super) fn set_delay(&self, branch: &str, direction: Direction, delay: Duration) {
        self.way(branch, direction).change(|way| way.delay = delay);
    }

    /// Resets all links of a branch: each end is told as soon as its way is open.
    pub(super) fn reset(&self, branch: &str) {
        for direction in [Direction::ToMaster, Direction::FromMaster] {
            let way = self.way(branch, direction);
            let pipes: Vec<_> = lock(&way.0).pipes.iter().filter_map(Weak::upgrade).collect();
            pipes.iter().for_each(|pipe| pipe.change(|pipe| pipe.is_reset = true));
        }
    }

    /// Resets all links, and listens no more: the master has crashed.
    pub(super) fn reset_all(&self) {
        lock(&self.0).master = None;
        let branches: Vec<_> = lock(&self.0).by_name.keys().cloned().collect();
        branches.iter().for_each(|branch| self.reset(branch));
    }
}

impl Way {
    /// Changes the way, and wakes all that may wait for the change.
    fn change(&self, change: impl FnOnce(&mut WayState)) {
        let (pipes, dialling) = {
            let mut way = lock(&self.0);
            change(&mut way);
            way.pipes.retain(|pipe| pipe.strong_count() > 0);
            (way.pipes.clone(), std::mem::take(&mut way.dialling))
        };
        pipes.iter().filter_map(Weak::upgrade).for_each(|pipe| pipe.change(|_| {}));
        dialling.into_iter().for_each(Waker::wake);
    }

    /// How long bytes take on the way; none while it is cut.
    fn delay(&self) -> Option<Duration> {
        let way = lock(&self.0);
        (!way.is_cut).then_some(way.delay)
    }

    /// Waits until the way is open.
    async fn opened(&self) -> Duration {
        poll_fn(|context| {
            let mut way = lock(&self.0);
            if way.is_cut {
                way.dialling.push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(way.delay)
        })
        .await
    }

    fn pipe(self: &Arc<Self>) -> Arc<Pipe> {
        let pipe = Arc::new(Pipe { way: Arc::clone(self), state: Mutex::default() });
        lock(&self.0).pipes.push(Arc::downgrade(&pipe));
        pipe
    }
}

impl Pipe {
    /// Changes the pipe, and wakes both of its ends.
    fn change(&self, change: impl FnOnce(&mut PipeState)) {
        let (reader, writer) = {
            let mut pipe = lock(&self.state);
            change(&mut pipe);
            (pipe.reader.take(), pipe.writer.take())
        };
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }
}

impl Dial for MemoryDial {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let (to, from) = (
                self.network.way(&self.branch, Direction::ToMaster),
                self.network.way(&self.branch, Direction::FromMaster),
            );
            let there = to.opened().await;
            tokio::time::sleep(there).await;
            let back = from.opened().await;
            let (up, down) = (to.pipe(), from.pipe());
            let near = MemoryLink { incoming: Arc::clone(&down), outgoing: Arc::clone(&up), arrival: None };
            let far = MemoryLink { incoming: up, outgoing: down, arrival: None };
            let door = lock(&self.network.0).master.clone();
            let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, address.to_string());
            door.ok_or_else(refused)?.try_send((far, self.branch.clone())).map_err(|_| refused())?;
            tokio::time::sleep(back).await;
            Ok(Box::new(near) as Box<dyn Link>)
        })
    }
}

impl Accept for MemoryAccept {
    fn address(&self) -> Address {
        self.address.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            match self.dialled.recv().await {
                Some((link, branch)) => Ok(Accepted::new(Box::new(link), branch)),
                // The network has another master now, or none: nobody dials this one any more.
                None => std::future::pending().await,
            }
        })
    }
}

impl AsyncRead for MemoryLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut pipe = lock(&this.incoming.state);
        pipe.reader = Some(context.waker().clone());
        if this.incoming.way.delay().is_none() {
            return Poll::Pending;
        }
        if pipe.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some((arrives, bytes)) = pipe.moving.front() else {
            return if pipe.is_ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        if *arrives > Instant::now() {
            let arrives = *arrives;
            let sleep = this.arrival.get_or_insert_with(|| Box::pin(sleep_until(arrives)));
            if sleep.deadline() != arrives {
                sleep.as_mut().reset(arrives);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        let unread = &bytes[pipe.read..];
        let count = unread.len().min(into.remaining());
        into.put_slice(&unread[..count]);
        let is_whole = count == unread.len();
        pipe.len -= count;
        pipe.read += count;
        if is_whole {
            pipe.read = 0;
            pipe.moving.pop_front();
        }
        let writer = pipe.writer.take();
        drop(pipe);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryLink {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let delay = self.outgoing.way.delay();
        let mut pipe = lock(&self.outgoing.state);
        if pipe.is_ended || (delay.is_some() && (pipe.is_reset || pipe.is_unread)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(PIPE_LEN_MAX - pipe.len);
        if count == 0 && !bytes.is_empty() {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Bytes that are written while the way is cut arrive when it is mended.
        let arrives = Instant::now() + delay.unwrap_or_default();
        // Nothing overtakes what was written before.
        let arrives = pipe.moving.back().map_or(arrives, |(last, _)| arrives.max(*last));
        pipe.moving.push_back((arrives, bytes[..count].to_vec()));
        pipe.len += count;
        let reader = pipe.reader.take();
        drop(pipe);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.change(|pipe| pipe.is_ended = true);
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.outgoing.change(|pipe| pipe.is_ended = true);
        self.incoming.change(|pipe| pipe.is_unread = true);
    }
}

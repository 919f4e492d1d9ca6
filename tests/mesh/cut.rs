//! Links to the master that a test can cut, silence and mend.

use futures::future::BoxFuture;
use meshwork::Address;
use meshwork::link::{Dial, Link, Tcp};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The condition of the links to the master.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Condition {
    #[default]
    Open,
    /// Links are broken, and no new one is opened.
    Cut,
    /// Links carry nothing and do not end.
    Silent,
}

/// Dials links to the master, whose condition its clones share.
#[derive(Clone, Default)]
pub(crate) struct CutDial(Arc<Mutex<(Condition, Vec<Waker>)>>);

impl CutDial {
    pub(crate) fn cut(&self) {
        self.set(Condition::Cut);
    }

    pub(crate) fn silence(&self) {
        self.set(Condition::Silent);
    }

    pub(crate) fn mend(&self) {
        self.set(Condition::Open);
    }

    fn set(&self, condition: Condition) {
        let mut there = self.0.lock().expect("no test panics in here");
        there.0 = condition;
        there.1.drain(..).for_each(Waker::wake);
    }

    fn condition(&self, context: &mut Context<'_>) -> Condition {
        let mut there = self.0.lock().expect("no test panics in here");
        there.1.push(context.waker().clone());
        there.0
    }
}

impl Dial for CutDial {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            if self.0.lock().expect("no test panics in here").0 == Condition::Cut {
                return Err(io::ErrorKind::NetworkUnreachable.into());
            }
            let link = Tcp.dial(address).await?;
            Ok(Box::new(CutLink { link: Some(link), dial: self.clone() }) as Box<dyn Link>)
        })
    }
}

struct CutLink {
    link: Option<Box<dyn Link>>,
    dial: CutDial,
}

impl CutLink {
    fn open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut Box<dyn Link>>> {
        match self.dial.condition(context) {
            Condition::Open => {}
            Condition::Silent => return Poll::Pending,
            Condition::Cut => self.link = None,
        }
        Poll::Ready(self.link.as_mut().ok_or_else(|| io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncRead for CutLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.open(context) {
            Poll::Ready(link) => Pin::new(link?).poll_read(context, buffer),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for CutLink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.open(context) {
            Poll::Ready(link) => Pin::new(link?).poll_write(context, bytes),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.open(context) {
            Poll::Ready(link) => Pin::new(link?).poll_flush(context),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.open(context) {
            Poll::Ready(link) => Pin::new(link?).poll_shutdown(context),
            Poll::Pending => Poll::Pending,
        }
    }
}

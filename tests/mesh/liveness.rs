//! A link that is slow and well is kept: bytes are signs of life, not only whole frames.

use crate::raw::{RawBranch, bind, request_with};
use crate::{Mesh, soon, until_known};
use bytes::BytesMut;
use futures::future::BoxFuture;
use meshwork::link::{Dial, Link, Tcp};
use meshwork::prelude::*;
use meshwork::{Address, ByteBuf, Status};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Interval;

/// How many bytes a slow link passes on in a tick, each way.
const PART_LEN: usize = 1_024;
/// How long a tick of a slow link is: it passes on some 200 KiB a second.
const TICK: Duration = Duration::from_millis(5);
/// Long enough for a busy machine, and a small part of the time that a long frame takes.
const HEARTBEAT: Duration = Duration::from_millis(150);
/// Takes some 2 s, which is more than four times the longest silence.
const LONG_LEN: usize = 400 * 1024;

/// Dials links that pass on little at a time.
#[derive(Clone)]
struct SlowDial;

impl Dial for SlowDial {
    fn dial<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let link = Tcp.dial(address).await?;
            let ticks = || tokio::time::interval(TICK);
            Ok(Box::new(SlowLink { link, reads: ticks(), writes: ticks() }) as Box<dyn Link>)
        })
    }
}

struct SlowLink {
    link: Box<dyn Link>,
    reads: Interval,
    writes: Interval,
}

impl AsyncRead for SlowLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.reads.poll_tick(context));
        let mut part = [0; PART_LEN];
        let len = buffer.remaining().min(PART_LEN);
        let mut part = ReadBuf::new(&mut part[..len]);
        ready!(Pin::new(&mut self.link).poll_read(context, &mut part))?;
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SlowLink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.writes.poll_tick(context));
        Pin::new(&mut self.link).poll_write(context, &bytes[..bytes.len().min(PART_LEN)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(context)
    }
}

fn echoing() -> MasterActor {
    MasterActor::new("master")
        .heartbeat(HEARTBEAT)
        .respond("echo", |(bytes,): (ByteBuf,)| async { Ok(bytes) })
}

/// 16 MB over a link of a few MB a second once ended it as silent.
#[actix::test]
async fn a_long_frame_over_a_slow_link_ends_no_link_either_way() {
    let mesh = Mesh::of(echoing()).await;
    let slow =
        BranchActor::new("slow").dial(SlowDial).respond("back", |(bytes,): (ByteBuf,)| async { Ok(bytes) });
    let slow = mesh.bind(slow).await;
    let mut status = slow.status().await.unwrap();
    status.mark_unchanged();
    let bytes = ByteBuf::from(vec![7; LONG_LEN]);
    // There and back; the second one the other way round.
    let echoed = slow.call::<ByteBuf>("echo", (&bytes,)).within(Duration::from_secs(60)).await;
    assert_eq!(echoed.map(|bytes| bytes.len()), Ok(LONG_LEN));
    let echoed = mesh.master.call::<ByteBuf>("back", (&bytes,)).within(Duration::from_secs(60)).await;
    assert_eq!(echoed.map(|bytes| bytes.len()), Ok(LONG_LEN));
    assert!(!status.has_changed().unwrap() && *status.borrow() == Status::Bound);
}

#[actix::test]
async fn a_bound_branch_that_says_a_byte_at_a_time_is_alive_and_is_told_that_its_master_is() {
    let mesh = Mesh::of(echoing()).await;
    let mut link = RawBranch::bound(&mesh, "dripping", &[]).await;
    let mut bytes = BytesMut::new();
    request_with(1, "echo", &(ByteBuf::from(vec![7; 200]),)).encode(&mut bytes);
    let mut ticks = tokio::time::interval(HEARTBEAT / 20);
    for byte in &bytes[..bytes.len() - 1] {
        ticks.tick().await;
        link.write(&[*byte]).await;
    }
    let mut pongs = 0;
    let finishing = async {
        link.write(&bytes[bytes.len() - 1..]).await;
        loop {
            match link.hear().await.expect("the link is kept") {
                meshwork_wire::Frame::Pong => pongs += 1,
                meshwork_wire::Frame::Response(_) => break,
                _ => {}
            }
        }
    };
    soon(finishing).await;
    assert!(pongs >= 3, "{pongs}");
}

#[actix::test]
async fn a_branch_that_stops_in_the_middle_of_a_frame_is_given_up() {
    let mesh = Mesh::of(echoing()).await;
    let mut link = RawBranch::connect(&mesh).await;
    link.say(&bind("stuck", &[])).await;
    until_known(&mesh.master, "stuck", true).await;
    link.write(&[200, 0, 0, 0, 1, 2, 3]).await;
    until_known(&mesh.master, "stuck", false).await;
}

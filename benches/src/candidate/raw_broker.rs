//! The raw broker: a fan-out of events and a relay of calls over plain tokio, which pass bytes on without reading them: the rate that
//! the sockets of the machine allow a process in the middle.

use crate::candidate::raw_frame::{HEAD_LEN, PREFIX_LEN, READ_LEN, polled, put};
use crate::events::{Counted, CountedLink, EVENT_LEN, WrittenLink};
use crate::process::{ready, until_stdin_ends};
use anyhow::{Context as _, bail, ensure};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// The first byte of a connection to the broker: its part.
const SUBSCRIBE: u8 = b's';
const PUBLISH: u8 = b'p';
const PROVIDE: u8 = b'r';
const CALL: u8 = b'c';

/// The bytes that wait for a subscriber, and the bell that wakes its writer.
#[derive(Default)]
struct Subscriber {
    out: Mutex<BytesMut>,
    bell: Notify,
}

/// Copies the bytes of publishers to every subscriber, and the bytes of a caller to the provider and back: the least work that a broker
/// can do. A provider serves one caller, the next that comes.
pub(crate) async fn serve(busy_poll: Duration) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready(listener.local_addr()?);
    let subscribers = Arc::new(Mutex::new(Vec::<Arc<Subscriber>>::new()));
    let mut provider = None;
    let accept = async {
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            match stream.read_u8().await? {
                PUBLISH => {
                    tokio::spawn(copy_to_all(stream, subscribers.clone()));
                }
                SUBSCRIBE => {
                    let subscriber = Arc::new(Subscriber::default());
                    subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber.clone());
                    stream.write_u8(SUBSCRIBE).await?;
                    tokio::spawn(write_out(stream, subscriber));
                }
                PROVIDE => provider = Some(stream),
                CALL => {
                    let (from_caller, to_caller) = stream.into_split();
                    let provider = provider.take().context("there is no provider for another caller")?;
                    let (from_provider, to_provider) = provider.into_split();
                    tokio::spawn(pass_on(from_caller, to_provider, busy_poll));
                    tokio::spawn(pass_on(from_provider, to_caller, busy_poll));
                }
                other => bail!("nobody begins with {other}"),
            }
        }
    };
    tokio::select! { ended = accept => ended, ended = until_stdin_ends() => ended }
}

/// Passes the bytes of one link on to another link. Each direction has a task of its own: a link that takes no bytes for a while must not
/// hold up the opposite direction, for whose bytes its far end may wait.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, busy_poll: Duration) -> anyhow::Result<()> {
    let mut read = BytesMut::new();
    loop {
        read.reserve(READ_LEN);
        if polled(busy_poll, from.read_buf(&mut read)).await? == 0 {
            return Ok(());
        }
        to.write_all_buf(&mut read).await?;
    }
}

async fn copy_to_all(
    mut stream: TcpStream,
    subscribers: Arc<Mutex<Vec<Arc<Subscriber>>>>,
) -> anyhow::Result<()> {
    let mut read = BytesMut::new();
    loop {
        read.reserve(READ_LEN);
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        let frame_len = HEAD_LEN + PREFIX_LEN + EVENT_LEN;
        let whole = read.split_to(read.len() / frame_len * frame_len);
        for subscriber in subscribers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            subscriber.out.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&whole);
            subscriber.bell.notify_one();
        }
    }
}

async fn write_out(mut stream: TcpStream, subscriber: Arc<Subscriber>) -> anyhow::Result<()> {
    let mut out = BytesMut::new();
    loop {
        subscriber.bell.notified().await;
        std::mem::swap(&mut out, &mut subscriber.out.lock().unwrap_or_else(PoisonError::into_inner));
        stream.write_all(&out).await?;
        out.clear();
    }
}

/// A connection to the broker that begins with this byte.
async fn link(at: SocketAddr, part: u8) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    stream.write_u8(part).await?;
    Ok(stream)
}

/// The link of a provider, on which the calls of one caller come.
pub(crate) async fn provider_link(at: SocketAddr) -> anyhow::Result<TcpStream> {
    link(at, PROVIDE).await
}

/// The link of a caller, whose calls go to the provider that came last.
pub(crate) async fn caller_link(at: SocketAddr) -> anyhow::Result<TcpStream> {
    link(at, CALL).await
}

/// The link of a subscriber.
pub(crate) async fn counted_link(at: SocketAddr) -> anyhow::Result<CountedLink> {
    let mut stream = link(at, SUBSCRIBE).await?;
    ensure!(stream.read_u8().await? == SUBSCRIBE, "not this broker");
    Ok(CountedLink { stream, event: Counted::Bytes(PREFIX_LEN + HEAD_LEN + EVENT_LEN) })
}

/// The link of a publisher.
pub(crate) async fn written_link(at: SocketAddr) -> anyhow::Result<WrittenLink> {
    let stream = link(at, PUBLISH).await?;
    let mut event = BytesMut::new();
    put(&mut event, 0, 0, &[b'e'; EVENT_LEN]);
    Ok(WrittenLink { stream, event: event.freeze() })
}

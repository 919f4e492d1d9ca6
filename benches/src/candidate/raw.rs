//! Frames over plain tokio, all of them in one task at each end. No runtime of calls: what is left is the machine.
//!
//! A frame: its length in four bytes, the number of the call in eight, one byte for the work, then the arguments.

use crate::client;
use crate::events::{Counted, CountedLink, EVENT_LEN, WrittenLink};
use crate::job::Work;
use crate::load::{Load, Phase, nanoseconds};
use crate::measure::Figures;
use crate::process::{ready, until_stdin_ends};
use anyhow::ensure;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const PREFIX_LEN: usize = 4;
const HEAD_LEN: usize = 9;
const READ_LEN: usize = 64 * 1024;

/// Takes the next whole frame out of what was read: the number of its call, its work, its bytes.
pub(crate) fn take(read: &mut BytesMut) -> Option<(u64, u8, Bytes)> {
    let len = u32::from_le_bytes(read.get(..PREFIX_LEN)?.try_into().ok()?) as usize;
    if read.len() < PREFIX_LEN + len {
        return None;
    }
    read.advance(PREFIX_LEN);
    let mut frame = read.split_to(len).freeze();
    let (number, work) = (frame.get_u64_le(), frame.get_u8());
    Some((number, work, frame))
}

/// Appends a frame.
pub(crate) fn put(out: &mut BytesMut, number: u64, work: u8, bytes: &[u8]) {
    out.put_u32_le((HEAD_LEN + bytes.len()) as u32);
    out.put_u64_le(number);
    out.put_u8(work);
    out.put_slice(bytes);
}

/// The arguments of a call.
pub(crate) fn arguments(work: Work, number: i32, bytes: &Bytes) -> (u8, Bytes) {
    match work {
        Work::Add => {
            let mut numbers = BytesMut::with_capacity(8);
            numbers.put_i32_le(number);
            numbers.put_i32_le(1);
            (0, numbers.freeze())
        }
        Work::Echo1K | Work::Echo64K => (1, bytes.clone()),
    }
}

/// Answers what was read in one go with one write.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready(listener.local_addr()?);
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer(stream));
        }
    };
    tokio::select! { ended = accept => ended, ended = until_stdin_ends() => ended }
}

async fn answer(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        read.reserve(READ_LEN);
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        while let Some((number, work, mut bytes)) = take(&mut read) {
            if work == 0 && bytes.len() == 8 {
                let sum = bytes.get_i32_le().wrapping_add(bytes.get_i32_le());
                put(&mut out, number, work, &sum.to_le_bytes());
            } else {
                put(&mut out, number, work, &bytes);
            }
        }
        stream.write_all_buf(&mut out).await?;
    }
}

/// Keeps so many calls in flight, from one task.
pub(crate) async fn drive(load: &Load) -> anyhow::Result<Figures> {
    let phase = Phase::default();
    let mut tasks = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.at).await?;
        tasks.push(tokio::spawn(keep_in_flight(stream, load.work, load.in_flight, phase.clone())));
    }
    let spent = phase.lead(load).await;
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    ensure!(!latencies.is_empty(), "no call ended");
    Ok(spent.on_calls(latencies))
}

async fn keep_in_flight(
    mut stream: TcpStream,
    work: Work,
    in_flight: usize,
    phase: Phase,
) -> anyhow::Result<Vec<u32>> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.split();
    let (mut read, mut out) = (BytesMut::new(), BytesMut::new());
    let bytes = client::bytes(work);
    let expected = if work == Work::Add { 4 } else { bytes.len() };
    let mut started = vec![Instant::now(); in_flight];
    let mut latencies = Vec::new();
    for number in 0..in_flight {
        let (tag, arguments) = arguments(work, number as i32, &bytes);
        put(&mut out, number as u64, tag, &arguments);
    }
    while !phase.is_over() {
        read.reserve(READ_LEN);
        tokio::select! {
            biased;
            written = writer.write_buf(&mut out), if !out.is_empty() => {
                ensure!(written? > 0, "the server is gone");
                continue;
            }
            count = reader.read_buf(&mut read) => ensure!(count? > 0, "the server is gone"),
        }
        let now = Instant::now();
        while let Some((number, _, answer)) = take(&mut read) {
            ensure!(answer.len() == expected, "an answer of {} bytes", answer.len());
            let start = std::mem::replace(&mut started[number as usize], now);
            if phase.is_counting() {
                latencies.push(nanoseconds(now - start));
            }
            let (tag, arguments) = arguments(work, number as i32, &bytes);
            put(&mut out, number, tag, &arguments);
        }
    }
    Ok(latencies)
}

/// What a fresh connection to the fan-out says first.
const SUBSCRIBE: u8 = b's';
const PUBLISH: u8 = b'p';

/// One subscriber's way out: what gathers for it, and its writer's bell.
#[derive(Default)]
struct Way {
    out: Mutex<BytesMut>,
    bell: Notify,
}

/// Copies whatever publishers write to every subscriber: the least that a broker can do.
pub(crate) async fn fan_out() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready(listener.local_addr()?);
    let ways = Arc::new(Mutex::new(Vec::<Arc<Way>>::new()));
    let accept = async {
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            if stream.read_u8().await? == PUBLISH {
                tokio::spawn(copy_to_all(stream, ways.clone()));
            } else {
                let way = Arc::new(Way::default());
                ways.lock().unwrap_or_else(PoisonError::into_inner).push(way.clone());
                stream.write_u8(SUBSCRIBE).await?;
                tokio::spawn(write_out(stream, way));
            }
        }
    };
    tokio::select! { ended = accept => ended, ended = until_stdin_ends() => ended }
}

async fn copy_to_all(mut stream: TcpStream, ways: Arc<Mutex<Vec<Arc<Way>>>>) -> anyhow::Result<()> {
    let mut read = BytesMut::new();
    loop {
        read.reserve(READ_LEN);
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        let frame_len = HEAD_LEN + PREFIX_LEN + EVENT_LEN;
        let whole = read.split_to(read.len() / frame_len * frame_len);
        for way in ways.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            way.out.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&whole);
            way.bell.notify_one();
        }
    }
}

async fn write_out(mut stream: TcpStream, way: Arc<Way>) -> anyhow::Result<()> {
    let mut out = BytesMut::new();
    loop {
        way.bell.notified().await;
        std::mem::swap(&mut out, &mut way.out.lock().unwrap_or_else(PoisonError::into_inner));
        stream.write_all(&out).await?;
        out.clear();
    }
}

/// A subscriber of the fan-out.
pub(crate) async fn counted_link(at: SocketAddr) -> anyhow::Result<CountedLink> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_u8(SUBSCRIBE).await?;
    ensure!(stream.read_u8().await? == SUBSCRIBE, "not a fan-out");
    Ok(CountedLink { stream, event: Counted::Bytes(PREFIX_LEN + HEAD_LEN + EVENT_LEN) })
}

/// A publisher of the fan-out.
pub(crate) async fn written_link(at: SocketAddr) -> anyhow::Result<WrittenLink> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    stream.write_u8(PUBLISH).await?;
    let mut event = BytesMut::new();
    put(&mut event, 0, 0, &[b'e'; EVENT_LEN]);
    Ok(WrittenLink { stream, event: event.freeze() })
}

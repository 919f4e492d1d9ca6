//! The raw echo: frames over plain tokio, all frames in one task at each end. It has no runtime for calls, so it shows the rate that the
//! machine allows.

use crate::candidate::raw_broker;
use crate::candidate::raw_frame::{READ_LEN, arguments, polled, put, take};
use crate::client::{bytes, different_bytes};
use crate::items::{Consume, Consumer, consume_through};
use crate::job::{Route, Work};
use crate::load::{Load, Phase, nanoseconds};
use crate::measure::Figures;
use crate::open_loop::Arrivals;
use crate::process::{ready, until_stdin_ends};
use crate::runtime::Tokio;
use anyhow::{Context as _, ensure};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The work of a frame that asks for a stream; its number is the length of an item. What comes behind it are the bytes of items, no frames.
const STREAM: u8 = 2;

/// Answers all calls of one read with one write.
pub(crate) async fn serve(busy_poll: Duration) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready(listener.local_addr()?);
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer(stream, busy_poll));
        }
    };
    tokio::select! { ended = accept => ended, ended = until_stdin_ends() => ended }
}

/// Answers the calls that a broker passes on, until stdin ends.
pub(crate) async fn provide(at: SocketAddr, busy_poll: Duration) -> anyhow::Result<()> {
    let stream = raw_broker::provider_link(at).await?;
    ready(at);
    tokio::select! { ended = answer(stream, busy_poll) => ended, ended = until_stdin_ends() => ended }
}

/// Answers the calls of a connection until the connection ends.
async fn answer(mut stream: TcpStream, busy_poll: Duration) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        read.reserve(READ_LEN);
        if polled(busy_poll, stream.read_buf(&mut read)).await? == 0 {
            return Ok(());
        }
        while let Some((number, work, mut bytes)) = take(&mut read) {
            if work == STREAM {
                return produce(stream, number as usize).await;
            }
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

/// Writes items until the connection ends, many small ones at once.
async fn produce(mut stream: TcpStream, item_len: usize) -> anyhow::Result<()> {
    let items = different_bytes(item_len as u32).repeat(READ_LEN / item_len);
    loop {
        stream.write_all(&items).await?;
    }
}

/// The consumer of a stream, which reads bytes and counts the items that are whole.
struct Items {
    stream: TcpStream,
    read: Box<[u8]>,
    item_len: usize,
    /// Bytes of an item that is not whole yet.
    begun_len: usize,
}

impl Consumer for Items {
    async fn read(&mut self) -> anyhow::Result<u64> {
        let count = self.stream.read(&mut self.read).await?;
        ensure!(count > 0, "the producer is gone");
        let len = self.begun_len + count;
        self.begun_len = len % self.item_len;
        Ok((len / self.item_len) as u64)
    }
}

/// Reads a stream.
pub(crate) async fn consume(options: &Consume) -> anyhow::Result<Figures> {
    let mut stream = connect(&options.load).await?;
    let item_len = options.item.len();
    let mut asked = BytesMut::new();
    put(&mut asked, u64::from(item_len), STREAM, &[]);
    stream.write_all(&asked).await?;
    let read = vec![0; READ_LEN].into();
    let items = Items { stream, read, item_len: item_len as usize, begun_len: 0 };
    consume_through::<_, Tokio>(items, &options.load).await
}

/// Connects the client's end of one connection.
async fn connect(load: &Load) -> anyhow::Result<TcpStream> {
    match load.route {
        Route::Direct => {
            let stream = TcpStream::connect(load.at).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        Route::Relayed => raw_broker::caller_link(load.at).await,
    }
}

/// Keeps a number of calls in flight on each connection, or calls by chance. One task makes all calls of a connection.
pub(crate) async fn drive(load: &Load) -> anyhow::Result<Figures> {
    let phase = Phase::default();
    let mut tasks = Vec::new();
    for _ in 0..load.connections {
        let stream = connect(load).await?;
        tasks.push(match load.rate_per_second {
            None => tokio::spawn(keep_in_flight(stream, load.clone(), phase.clone())),
            Some(rate) => {
                tokio::spawn(call_by_chance(stream, Arrivals::new(rate)?, load.clone(), phase.clone()))
            }
        });
    }
    let spent = phase.lead(load).await;
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    ensure!(!latencies.is_empty(), "no call ended");
    Ok(spent.on_calls(latencies))
}

async fn keep_in_flight(mut stream: TcpStream, load: Load, phase: Phase) -> anyhow::Result<Vec<u32>> {
    let (mut reader, mut writer) = stream.split();
    let (mut read, mut out) = (BytesMut::new(), BytesMut::new());
    let (work, busy_poll) = (load.work, load.candidate.busy_poll());
    let bytes = bytes(work);
    let expected = answer_len(work, &bytes);
    let mut started = vec![Instant::now(); load.in_flight];
    let mut latencies = Vec::new();
    for number in 0..load.in_flight {
        let (tag, arguments) = arguments(work, number as i32, &bytes);
        put(&mut out, number as u64, tag, &arguments);
    }
    while !phase.is_over() {
        read.reserve(READ_LEN);
        let turn = async {
            tokio::select! {
                biased;
                written = writer.write_buf(&mut out), if !out.is_empty() => written,
                count = reader.read_buf(&mut read) => count,
            }
        };
        ensure!(polled(busy_poll, turn).await? > 0, "the server is gone");
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

/// Calls when a call is due. The answers come in the order of the calls, since one task at the far end gives all answers.
async fn call_by_chance(
    mut stream: TcpStream,
    mut arrivals: Arrivals,
    load: Load,
    phase: Phase,
) -> anyhow::Result<Vec<u32>> {
    let (mut reader, mut writer) = stream.split();
    let (mut read, mut out) = (BytesMut::new(), BytesMut::new());
    let (work, busy_poll) = (load.work, load.candidate.busy_poll());
    let bytes = bytes(work);
    let expected = answer_len(work, &bytes);
    // When each call in flight was due, and whether it counts.
    let mut in_flight = VecDeque::new();
    let mut latencies = Vec::new();
    let (mut asked, mut answered) = (0u64, 0u64);
    while !phase.is_over() || !in_flight.is_empty() {
        read.reserve(READ_LEN);
        let turn = async {
            tokio::select! {
                biased;
                written = writer.write_buf(&mut out), if !out.is_empty() => {
                    ensure!(written? > 0, "the server is gone");
                }
                count = reader.read_buf(&mut read) => ensure!(count? > 0, "the server is gone"),
                waited = arrivals.wait(), if !phase.is_over() => waited?,
            }
            Ok(())
        };
        polled(busy_poll, turn).await?;
        let now = Instant::now();
        while let Some((number, _, answer)) = take(&mut read) {
            ensure!(answer.len() == expected, "an answer of {} bytes", answer.len());
            ensure!(number == answered, "the answer to call {number} came instead of that to {answered}");
            answered += 1;
            let (due, counts): (Instant, bool) = in_flight.pop_front().context("nothing was asked")?;
            if counts {
                latencies.push(nanoseconds(now - due));
            }
        }
        while !phase.is_over()
            && let Some(due) = arrivals.due(now)
        {
            let (tag, arguments) = arguments(work, asked as i32, &bytes);
            put(&mut out, asked, tag, &arguments);
            in_flight.push_back((due, phase.is_counting()));
            asked += 1;
        }
    }
    Ok(latencies)
}

/// How many bytes the answer to a call has.
fn answer_len(work: Work, bytes: &Bytes) -> usize {
    if work == Work::Add { 4 } else { bytes.len() }
}

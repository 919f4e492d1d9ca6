//! The parts that the raw echo, the raw broker and rawtask have in common: their frames, and busy polling.
//!
//! A frame: its length in four bytes, the number of the call in eight, one byte for the work, then the arguments.

use crate::job::Work;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How many bytes the length of a frame takes, and then the rest of its head.
pub(crate) const PREFIX_LEN: usize = 4;
pub(crate) const HEAD_LEN: usize = 9;

/// How many bytes are read at once.
pub(crate) const READ_LEN: usize = 64 * 1024;

/// Takes the next whole frame out of the bytes that were read: the number of its call, its work, its arguments.
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

/// Awaits a future, and polls it for `busy_poll` before the thread may sleep. As in a meshwork node that polls, all tasks of the thread
/// have their turns in between, and so has any process that wants the processor; but here nothing judges whether polling is worth it.
pub(crate) async fn polled<F: Future>(within: Duration, future: F) -> F::Output {
    let mut future = pin!(future);
    if !within.is_zero() {
        let began = Instant::now();
        while began.elapsed() < within {
            if let Poll::Ready(output) = futures::poll!(future.as_mut()) {
                return output;
            }
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
    }
    future.await
}

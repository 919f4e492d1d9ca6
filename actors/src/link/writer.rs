//! The task that writes the frames of an outbox to its link.

use super::outbox::{Outbox, State};
use bytes::{Bytes, BytesMut};
use meshwork_wire::limits::LINGER;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// How many pieces of bytes one system call writes at most.
const PIECES_MAX: usize = 64;

/// Writes the frames of an outbox until the link fails or the outbox is closed. Gives the error of a link that failed.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(outbox: Outbox, mut link: W) -> io::Result<()> {
    let written = write_until_closed(&outbox, &mut link).await;
    outbox.close_now();
    written
}

async fn write_until_closed<W: AsyncWrite + Unpin>(outbox: &Outbox, link: &mut W) -> io::Result<()> {
    let mut pieces = VecDeque::new();
    let mut small = BytesMut::new();
    loop {
        let (len, state) = poll_fn(|context| outbox.poll_take(context, &mut pieces, &mut small)).await;
        if len == 0 {
            // A peer that does not let the shutdown finish is waited for no longer than `LINGER`.
            if state == State::Closing {
                let _ = tokio::time::timeout(LINGER, link.shutdown()).await;
            }
            return Ok(());
        }
        let writing = write_pieces(link, &mut pieces, &small);
        if state == State::Closing {
            match tokio::time::timeout(LINGER, writing).await {
                Ok(written) => written?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        } else {
            writing.await?;
        }
        small.clear();
        outbox.written(len);
    }
}

/// Writes the pieces, then the bytes of `rest`.
async fn write_pieces<W: AsyncWrite + Unpin>(
    link: &mut W,
    pieces: &mut VecDeque<Bytes>,
    rest: &BytesMut,
) -> io::Result<()> {
    if pieces.is_empty() {
        return link.write_all(rest).await;
    }
    if !rest.is_empty() {
        pieces.push_back(Bytes::copy_from_slice(rest));
    }
    while !pieces.is_empty() {
        // The list of slices is made anew for each attempt: kept across a wait, it would be most of the memory of an idle link.
        let written = poll_fn(|context| {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            Pin::new(&mut *link).poll_write_vectored(context, &slices[..count])
        });
        let mut written = written.await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(piece) = pieces.front_mut() {
            if written < piece.len() {
                let _ = piece.split_to(written);
                break;
            }
            written -= piece.len();
            pieces.pop_front();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::outbox::Kind;
    use crate::link::refusal::Refusal;
    use meshwork_wire::limits::{FRAME_LEN_MAX, OUTBOX_REPLY_LEN_MAX, OUTBOX_REQUEST_LEN_MAX};
    use meshwork_wire::{CallbackId, Code, Encoding, Frame, FrameCodec, Payload, Response};
    use tokio_util::codec::FramedRead;

    /// A longer buffer is given back as soon as the link is idle.
    const BURST_LEN: usize = 128 * 1024;

    fn reply(id: u64, payload_len: usize) -> Frame {
        let payload = Payload::new(Encoding::Json, vec![b'x'; payload_len]);
        Frame::Response(Response { callback_id: CallbackId(id), outcome: Ok(payload) })
    }

    async fn read_all(link: tokio::io::DuplexStream) -> Vec<Frame> {
        use futures::StreamExt;
        let blocks: Vec<_> = FramedRead::new(link, FrameCodec::new(1 << 20)).collect().await;
        blocks
            .into_iter()
            .flat_map(|block| block.expect("a block").frames())
            .map(|frame| frame.expect("a frame"))
            .collect()
    }

    #[actix_rt::test]
    async fn frames_leave_in_order_whether_small_or_large() {
        let (near, far) = tokio::io::duplex(1024);
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let frames: Vec<_> = [10, 40_000, 20, 30, 16_384, 16_383, 5]
            .into_iter()
            .enumerate()
            .map(|(id, len)| reply(id as u64, len))
            .collect();
        for frame in &frames {
            outbox.say(frame);
        }
        outbox.close();
        let (written, read) = futures::join!(write_all(outbox.clone(), near), read_all(far));
        written.expect("written");
        assert_eq!(read, frames);
    }

    #[actix_rt::test]
    async fn a_long_buffer_is_kept_by_a_link_that_needs_it_again() {
        let (near, far) = tokio::io::duplex(BURST_LEN * 4);
        let outbox = Outbox::new(FRAME_LEN_MAX);
        actix_rt::spawn(write_all(outbox.clone(), near));
        let capacity = async |len: usize| {
            (0..len.div_ceil(1000)).for_each(|id| outbox.say(&reply(id as u64, 1000)));
            while !outbox.is_idle() {
                tokio::task::yield_now().await;
            }
            outbox.small_capacity()
        };
        let burst = BURST_LEN + 10_000;
        assert!(capacity(1).await <= BURST_LEN);
        assert_eq!(capacity(burst).await, 0, "one burst is given back");
        assert!(capacity(burst).await > BURST_LEN, "and not the next one");
        outbox.shrink();
        assert!(outbox.small_capacity() > BURST_LEN);
        outbox.shrink();
        assert_eq!(outbox.small_capacity(), 0, "a heartbeat did without it");
        drop(far);
    }

    #[actix_rt::test]
    async fn a_full_outbox_refuses_requests_drops_events_and_takes_replies() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let large = reply(1, 9 * 1024 * 1024);
        outbox.push(&large, Kind::Request).expect("room");
        outbox.push(&large, Kind::Request).expect("room for a request");
        assert_eq!(outbox.push(&Frame::Ping, Kind::Event), Err(Refusal::Full), "and none for an event");
        while outbox.len() < OUTBOX_REQUEST_LEN_MAX {
            outbox.push(&large, Kind::Request).expect("room until it is full");
        }
        assert_eq!(outbox.push(&Frame::Ping, Kind::Request), Err(Refusal::Full));
        assert_eq!(outbox.dropped(), 1);
        let before = outbox.len();
        outbox.say(&reply(2, 10));
        assert!(outbox.len() > before);
    }

    #[actix_rt::test]
    async fn a_reply_to_a_peer_that_never_reads_becomes_a_small_error() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        let large = reply(1, 16 * 1024 * 1024 - 100);
        for _ in 0..17 {
            outbox.say(&large);
        }
        let before = outbox.len();
        assert!(before >= OUTBOX_REPLY_LEN_MAX);
        outbox.say(&large);
        assert!((1..1000).contains(&(outbox.len() - before)));
    }

    #[actix_rt::test]
    async fn a_frame_that_the_other_end_does_not_read_is_refused_and_a_reply_says_so() {
        let (near, far) = tokio::io::duplex(1024);
        let outbox = Outbox::new(50_000);
        for len in [50_000, 49_999] {
            assert!(matches!(
                outbox.push(&reply(1, len), Kind::Request),
                Err(Refusal::TooLong { max: 50_000, .. })
            ));
        }
        outbox.say(&reply(1, 60_000));
        outbox.close();
        let (written, read) = futures::join!(write_all(outbox.clone(), near), read_all(far));
        written.expect("written");
        let [Frame::Response(Response { outcome: Err(error), .. })] = &read[..] else {
            panic!("one error: {read:?}");
        };
        assert_eq!(error.code(), Code::FRAME_TOO_LARGE);
    }

    #[actix_rt::test]
    async fn a_closed_outbox_takes_nothing() {
        let outbox = Outbox::new(FRAME_LEN_MAX);
        outbox.close_now();
        assert_eq!(outbox.push(&Frame::Ping, Kind::Request), Err(Refusal::Closed));
        assert_eq!(outbox.len(), 0);
        assert!(!outbox.has_room(Kind::Event));
    }
}

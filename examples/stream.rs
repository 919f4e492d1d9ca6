//! A result that is larger than memory, sent piece by piece through a callback. The provider sends no more than a few pieces that
//! the caller has not taken yet, so the stream goes as fast as the caller takes it.
//!
//! Run it: `cargo run --example stream`. It prints how many pieces came, and how many were on their way at most.

use futures::stream;
use meshwork::ByteBuf;
use meshwork::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PIECE_LEN: usize = 64 * 1024;
const PIECES: u64 = 500;

/// How many pieces may be on their way.
const AT_ONCE: usize = 8;

#[derive(Serialize, Deserialize)]
struct Download {
    name: String,
    piece: Callback<ByteBuf, ()>,
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let master = MasterActor::new("master").start();
    let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
    let made = Arc::new(AtomicU64::new(0));
    let making = Arc::clone(&made);
    let _store = BranchActor::new("store")
        .respond("store/download", move |download: Download| {
            let making = Arc::clone(&making);
            async move {
                // Each piece is made when there is room for it, not before.
                let pieces = stream::iter((0..PIECES).map(move |number| {
                    making.fetch_add(1, Ordering::Relaxed);
                    ByteBuf::from(vec![number as u8; PIECE_LEN])
                }));
                Ok(download.piece.feed(pieces, AT_ONCE).await?)
            }
        })
        .bind(&address)
        .await?;
    let reader = BranchActor::new("reader").bind(&address).await?;

    let taken = Arc::new(AtomicU64::new(0));
    let ahead = Arc::new(AtomicU64::new(0));
    let (taking, highest) = (Arc::clone(&taken), Arc::clone(&ahead));
    let piece = Callback::new_async(move |piece: ByteBuf| {
        let (made, taking, highest) = (Arc::clone(&made), Arc::clone(&taking), Arc::clone(&highest));
        async move {
            // A slow caller.
            tokio::task::yield_now().await;
            let taken = taking.fetch_add(1, Ordering::Relaxed);
            highest.fetch_max(made.load(Ordering::Relaxed) - taken, Ordering::Relaxed);
            if piece.len() == PIECE_LEN {
                Ok(())
            } else {
                Err(ActionError::new("Short", "a piece is missing"))
            }
        }
    });
    let name = "film".to_owned();
    let pieces: u64 =
        reader.call("store/download", Download { name, piece }).within(Duration::from_secs(60)).await?;
    let (taken, ahead) = (taken.load(Ordering::Relaxed), ahead.load(Ordering::Relaxed));
    println!("{pieces} pieces of {PIECE_LEN} bytes; at most {ahead} of them were made and not taken");
    assert_eq!((pieces, taken), (PIECES, PIECES));
    assert!(ahead <= AT_ONCE as u64 + 1, "{ahead}");
    Ok(())
}

//! Links in memory, and a raw end of a link: a branch that writes prepared frames. It costs next to nothing, so the instructions
//! that are counted are those of the master.

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use meshwork::link::{Accept, Accepted, Dial, Link};
use meshwork::prelude::*;
use meshwork::{Address, Pattern};
use meshwork_wire::limits::{LENGTH_PREFIX_LEN, PROTOCOL_VERSION};
use meshwork_wire::{Accepts, Bind, ExtendedBind, ExtendedBound, Features, Frame, Offer, SubscriptionKey};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// The room of a link, in bytes: more than is ever on its way at once, so that no write waits.
const LINK_LEN: usize = 1024 * 1024;

/// Longer than any benchmark: under callgrind everything takes fifty times as long, and no heartbeat may fall into a count.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// The name that every link in memory is dialled by.
pub(crate) const ADDRESS: &str = "memory:0";

/// Opens links to one master. Clones open links to that master too.
#[derive(Clone)]
pub(crate) struct Memory(mpsc::UnboundedSender<DuplexStream>);

struct MemoryAccept(mpsc::UnboundedReceiver<DuplexStream>);

impl Memory {
    /// Starts the master and listens.
    pub(crate) async fn listen(master: MasterActor) -> Self {
        let (links, taken) = mpsc::unbounded_channel();
        let master = master.heartbeat(NEVER).bind_within(NEVER).start();
        master.send(Listen::on(MemoryAccept(taken))).await.expect("it runs").expect("it listens");
        Self(links)
    }

    pub(crate) async fn bind(&self, branch: BranchActor) -> Branch {
        branch.bind_within(NEVER).dial(self.clone()).bind(ADDRESS).await.expect("it binds")
    }

    fn open(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(LINK_LEN);
        self.0.send(far).expect("the master listens");
        near
    }
}

impl Dial for Memory {
    fn dial<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move { Ok(Box::new(self.open()) as Box<dyn Link>) })
    }
}

impl Accept for MemoryAccept {
    fn address(&self) -> Address {
        Address::from(ADDRESS)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            match self.0.recv().await {
                Some(link) => Ok(Accepted::new(Box::new(link), "memory")),
                None => std::future::pending().await,
            }
        })
    }
}

/// A branch that writes frames which were prepared for it.
pub(crate) struct RawEnd {
    link: DuplexStream,
    heard: Vec<u8>,
}

impl RawEnd {
    pub(crate) async fn bound(
        memory: &Memory,
        name: &'static str,
        actions: &[&'static str],
        patterns: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut end = Self { link: memory.open(), heard: Vec::with_capacity(LINK_LEN) };
        let offer = |action: &&'static str| Offer {
            action: (*action).into(),
            accepts: Accepts::MessagePack,
            shape: None,
        };
        let key =
            |pattern| SubscriptionKey { pattern: Pattern::new(pattern).expect("a pattern"), group: None };
        let bind = Bind {
            version: PROTOCOL_VERSION,
            name: name.into(),
            credentials: None,
            offers: actions.iter().map(offer).collect(),
            subscriptions: patterns.into_iter().map(key).collect(),
        };
        let features = Features::FORMS;
        let bind = Frame::ExtendedBind(ExtendedBind { bind, features, incarnation: 0, replaces: false });
        end.say(&written([bind])).await;
        // News of other nodes come before the `ExtendedBound`. Only the variant of this frame matters: it tells the kind to wait for.
        let bound = meshwork_wire::Bound {
            session: meshwork_wire::SessionId(0),
            master: "".into(),
            heartbeat_ms: 0,
            frame_len_max: 0,
            in_flight_max: 0,
        };
        let bound = Frame::ExtendedBound(ExtendedBound { bound, features, publish: None });
        end.hear(1, kind_of(&written([bound]))).await;
        end
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.link.write_all(bytes).await.expect("the master reads");
    }

    /// Reads until so many frames of this kind have come.
    pub(crate) async fn hear(&mut self, mut count: usize, kind: u8) {
        self.heard.clear();
        let mut at = 0;
        while count > 0 {
            let rest = &self.heard[at..];
            match rest.first_chunk().map(|prefix| LENGTH_PREFIX_LEN + u32::from_le_bytes(*prefix) as usize) {
                Some(len) if rest.len() >= len => {
                    count -= usize::from(kind_of(rest) == kind);
                    at += len;
                }
                _ => {
                    let read = self.link.read_buf(&mut self.heard).await.expect("the master says something");
                    assert!(read > 0, "the master must not close");
                }
            }
        }
    }
}

/// The bytes of these frames.
pub(crate) fn written(frames: impl IntoIterator<Item = Frame>) -> Bytes {
    let mut bytes = BytesMut::new();
    frames.into_iter().for_each(|frame| frame.encode(&mut bytes));
    bytes.freeze()
}

/// A head begins with the number of its variant, whatever the frame.
pub(crate) fn kind_of(frame: &[u8]) -> u8 {
    frame[LENGTH_PREFIX_LEN]
}

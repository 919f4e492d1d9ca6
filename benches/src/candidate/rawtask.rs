//! The ceiling of any `call().await`: the frames of the raw echo over plain tokio, with a task, a oneshot and a slab entry for each call.
//! No actors, no deadlines, no bounds, no errors.

use crate::candidate::raw_frame::{arguments, put, take};
use crate::client::Client;
use crate::drive::figures;
use crate::job::Work;
use crate::load::Load;
use crate::measure::Figures;
use crate::runtime::Tokio;
use anyhow::{Context as _, ensure};
use bytes::{Buf, Bytes, BytesMut};
use slab::Slab;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    written: Notify,
}

#[derive(Default)]
struct State {
    calls: Slab<oneshot::Sender<Bytes>>,
    out: BytesMut,
}

#[derive(Clone)]
struct RawTask(Arc<Shared>);

impl RawTask {
    async fn call(&self, work: Work, number: i32, bytes: &Bytes) -> anyhow::Result<Bytes> {
        let (tag, arguments) = arguments(work, number, bytes);
        let (caller, answer) = oneshot::channel();
        let was_empty = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            let was_empty = state.out.is_empty();
            let call = state.calls.insert(caller) as u64;
            put(&mut state.out, call, tag, &arguments);
            was_empty
        };
        if was_empty {
            self.0.written.notify_one();
        }
        answer.await.context("the server is gone")
    }
}

impl Client for RawTask {
    async fn add(&self, a: i32, _: i32) -> anyhow::Result<i32> {
        let mut answer = self.call(Work::Add, a, &Bytes::new()).await?;
        ensure!(answer.len() == 4, "a sum has four bytes");
        Ok(answer.get_i32_le())
    }

    async fn echo(&self, bytes: Bytes) -> anyhow::Result<usize> {
        Ok(self.call(Work::Echo1K, 0, &bytes).await?.len())
    }
}

async fn read(mut link: OwnedReadHalf, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut read = BytesMut::new();
    loop {
        read.reserve(64 * 1024);
        ensure!(link.read_buf(&mut read).await? > 0, "the server is gone");
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((call, _, answer)) = take(&mut read) {
            let _ = state.calls.remove(call as usize).send(answer);
        }
    }
}

async fn write(mut link: OwnedWriteHalf, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut out = BytesMut::new();
    loop {
        shared.written.notified().await;
        std::mem::swap(&mut out, &mut shared.state.lock().unwrap_or_else(PoisonError::into_inner).out);
        link.write_all(&out).await?;
        out.clear();
    }
}

/// Drives the task-a-call client.
pub(crate) async fn drive(load: &Load) -> anyhow::Result<Figures> {
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.at).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let shared = Arc::<Shared>::default();
        tokio::spawn(read(reader, shared.clone()));
        tokio::spawn(write(writer, shared.clone()));
        clients.push(RawTask(shared));
    }
    figures::<_, Tokio>(clients, load).await
}

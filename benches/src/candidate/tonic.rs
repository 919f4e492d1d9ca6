//! tonic: gRPC over HTTP/2. The windows are wide enough for everything in flight, so that flow control costs nothing.

use crate::client::{Client, different_bytes};
use crate::drive::figures;
use crate::items::{Consume, Consumer, consume_through};
use crate::load::Load;
use crate::measure::Figures;
use crate::process::{ready, until_stdin_ends};
use crate::runtime::Tokio;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::net::SocketAddr;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

#[expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "tonic writes it"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/bench.Bench.rs"));
}

use generated::bench_client::BenchClient;
use generated::bench_server::{Bench, BenchServer};

/// The two numbers to add.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Numbers {
    #[prost(int32, tag = "1")]
    a: i32,
    #[prost(int32, tag = "2")]
    b: i32,
}

/// The sum.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Sum {
    #[prost(int32, tag = "1")]
    sum: i32,
}

/// Bytes, there and back.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Blob {
    #[prost(bytes = "bytes", tag = "1")]
    bytes: Bytes,
}

/// How many bytes each item of a stream has.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Len {
    #[prost(uint32, tag = "1")]
    len: u32,
}

/// For a connection: 1,024 echoes of 64 KiB fit. For a stream: one does, and 16 pieces.
const CONNECTION_WINDOW: u32 = 128 * 1024 * 1024;
const STREAM_WINDOW: u32 = 1024 * 1024;

/// More calls than are ever in flight here.
const STREAMS: u32 = 4096;

struct Answers;

#[tonic::async_trait]
impl Bench for Answers {
    async fn add(&self, numbers: Request<Numbers>) -> Result<Response<Sum>, Status> {
        let Numbers { a, b } = numbers.into_inner();
        Ok(Response::new(Sum { sum: a.wrapping_add(b) }))
    }

    async fn echo(&self, blob: Request<Blob>) -> Result<Response<Blob>, Status> {
        Ok(Response::new(blob.into_inner()))
    }

    type StreamStream = BoxStream<'static, Result<Blob, Status>>;

    async fn stream(&self, len: Request<Len>) -> Result<Response<Self::StreamStream>, Status> {
        let blob = Blob { bytes: different_bytes(len.into_inner().len) };
        Ok(Response::new(stream::repeat(blob).map(Ok).boxed()))
    }
}

#[derive(Clone)]
struct TonicClient(BenchClient<Channel>);

impl Client for TonicClient {
    async fn add(&self, a: i32, b: i32) -> anyhow::Result<i32> {
        // A clone is tonic's way of several calls at once on one connection.
        Ok(self.0.clone().add(Numbers { a, b }).await?.into_inner().sum)
    }

    async fn echo(&self, bytes: Bytes) -> anyhow::Result<usize> {
        Ok(self.0.clone().echo(Blob { bytes }).await?.into_inner().bytes.len())
    }
}

/// Runs the server.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
    ready(incoming.local_addr()?);
    let serving = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .add_service(BenchServer::new(Answers))
        .serve_with_incoming(incoming);
    tokio::select! { ended = serving => Ok(ended?), ended = until_stdin_ends() => ended }
}

/// Drives the generated client.
pub(crate) async fn drive(load: &Load) -> anyhow::Result<Figures> {
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        clients.push(TonicClient(connect(load.at).await?));
    }
    figures::<_, Tokio>(clients, load).await
}

async fn connect(at: SocketAddr) -> anyhow::Result<BenchClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{at}"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    Ok(BenchClient::new(endpoint.connect().await?))
}

/// The consumer of a stream.
struct Items {
    items: Streaming<Blob>,
    item_len: usize,
}

impl Consumer for Items {
    async fn read(&mut self) -> anyhow::Result<u64> {
        let item = self.items.message().await?.context("the stream ended")?;
        ensure!(item.bytes.len() == self.item_len, "an item of {} bytes", item.bytes.len());
        Ok(1)
    }
}

/// Reads a stream.
pub(crate) async fn consume(options: &Consume) -> anyhow::Result<Figures> {
    let len = options.item.len();
    let items = connect(options.load.at).await?.stream(Len { len }).await?.into_inner();
    consume_through::<_, Tokio>(Items { items, item_len: len as usize }, &options.load).await
}

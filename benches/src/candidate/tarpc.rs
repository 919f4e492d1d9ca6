//! tarpc with bincode over TCP, as its README sets it up.

use crate::client::Client;
use crate::drive::figures;
use crate::load::Load;
use crate::measure::Figures;
use crate::process::{ready, until_stdin_ends};
use crate::runtime::Tokio;
use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt;
use serde_bytes::ByteBuf;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport, server};

#[tarpc::service]
trait Bench {
    async fn add(a: i32, b: i32) -> i32;
    async fn echo(bytes: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Server;

impl Bench for Server {
    async fn add(self, _: context::Context, a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }

    async fn echo(self, _: context::Context, bytes: ByteBuf) -> ByteBuf {
        bytes
    }
}

#[derive(Clone)]
struct TarpcClient(BenchClient);

impl Client for TarpcClient {
    async fn add(&self, a: i32, b: i32) -> anyhow::Result<i32> {
        Ok(self.0.add(context::current(), a, b).await?)
    }

    async fn echo(&self, bytes: Bytes) -> anyhow::Result<usize> {
        Ok(self.0.echo(context::current(), ByteBuf::from(bytes)).await?.len())
    }
}

/// Runs the server: a task for each request, as in the README.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let mut listener = serde_transport::tcp::listen("127.0.0.1:0", Bincode::default).await?;
    listener.config_mut().max_frame_length(usize::MAX);
    ready(listener.local_addr());
    let accept = async {
        while let Some(transport) = listener.next().await {
            let transport = transport?;
            transport.get_ref().set_nodelay(true)?;
            let config = server::Config { pending_response_buffer: 1024 };
            let channel = BaseChannel::new(config, transport);
            tokio::spawn(channel.execute(Server.serve()).for_each(|response| async move {
                tokio::spawn(response);
            }));
        }
        Ok(())
    };
    tokio::select! { ended = accept => ended, ended = until_stdin_ends() => ended }
}

/// Drives the generated client.
pub(crate) async fn drive(load: &Load) -> anyhow::Result<Figures> {
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        let mut connecting = serde_transport::tcp::connect(load.at, Bincode::default);
        connecting.config_mut().max_frame_length(usize::MAX);
        let transport = connecting.await.context("no connection")?;
        transport.get_ref().set_nodelay(true)?;
        // The default refuses to have more than 1,000 in flight, and buffers 100 that are not sent.
        let mut config = client::Config::default();
        config.max_in_flight_requests = 4096;
        config.pending_request_buffer = 1024;
        clients.push(TarpcClient(BenchClient::new(config, transport).spawn()));
    }
    figures::<_, Tokio>(clients, load).await
}

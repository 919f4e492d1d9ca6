//! jsonrpsee: JSON-RPC over WebSocket. JSON has no bytes, so the echo is of a text of the same length.

use crate::client::Client;
use crate::drive::figures;
use crate::load::Load;
use crate::measure::Figures;
use crate::process::{ready, until_stdin_ends};
use crate::runtime::Tokio;
use bytes::Bytes;
use jsonrpsee::core::async_trait;
use jsonrpsee::proc_macros::rpc;
use jsonrpsee::server::{ServerBuilder, ServerConfig};
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use std::sync::Arc;

#[rpc(client, server)]
trait Bench {
    #[method(name = "add")]
    async fn add(&self, a: i32, b: i32) -> Result<i32, ErrorObjectOwned>;

    #[method(name = "echo")]
    async fn echo(&self, text: String) -> Result<String, ErrorObjectOwned>;
}

/// More calls than are ever in flight here.
const IN_FLIGHT: usize = 4096;

/// More bytes than a message ever has here.
const MESSAGE_LEN: u32 = 16 * 1024 * 1024;

struct Answers;

#[async_trait]
impl BenchServer for Answers {
    async fn add(&self, a: i32, b: i32) -> Result<i32, ErrorObjectOwned> {
        Ok(a.wrapping_add(b))
    }

    async fn echo(&self, text: String) -> Result<String, ErrorObjectOwned> {
        Ok(text)
    }
}

#[derive(Clone)]
struct JsonClient(Arc<WsClient>);

impl Client for JsonClient {
    async fn add(&self, a: i32, b: i32) -> anyhow::Result<i32> {
        Ok(BenchClient::add(&*self.0, a, b).await?)
    }

    async fn echo(&self, bytes: Bytes) -> anyhow::Result<usize> {
        let text = bytes.iter().map(|byte| char::from((byte & 0x3F) + 0x30)).collect();
        Ok(BenchClient::echo(&*self.0, text).await?.len())
    }
}

/// Runs the server.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let config = ServerConfig::builder()
        .ws_only()
        .set_tcp_no_delay(true)
        .max_request_body_size(MESSAGE_LEN)
        .max_response_body_size(MESSAGE_LEN)
        .set_message_buffer_capacity(IN_FLIGHT as u32)
        .build();
    let server = ServerBuilder::with_config(config).build("127.0.0.1:0").await?;
    ready(server.local_addr()?);
    let running = server.start(Answers.into_rpc());
    until_stdin_ends().await?;
    Ok(running.stop()?)
}

/// Drives the generated client.
pub(crate) async fn drive(load: &Load) -> anyhow::Result<Figures> {
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        let client = WsClientBuilder::default()
            .max_concurrent_requests(IN_FLIGHT)
            .max_request_size(MESSAGE_LEN)
            .max_response_size(MESSAGE_LEN)
            .set_tcp_no_delay(true)
            .build(format!("ws://{}", load.at))
            .await?;
        clients.push(JsonClient(Arc::new(client)));
    }
    figures::<_, Tokio>(clients, load).await
}

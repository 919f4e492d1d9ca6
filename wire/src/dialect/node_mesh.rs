//! node-mesh, as the npm package `node-mesh` 2.0 speaks it: MessagePack `bin` values one behind the other, each of which holds an array of
//! messages. A message is a map: `id`, `type` (request, callback, publish, notification), `source` (custom, system), `fromId`, `fromName`,
//! `targetId`, `time`, `content` (`action`, `params`) and `data` (`body`, `error`).
//!
//! `node_mesh/server.rs` is a master's end of it, `node_mesh/client.rs` a branch's. Common to both are the messages and the
//! talk once the bind is done, in `node_mesh/talk.rs`. The lists of arguments of requests, events and broadcasts are the values of ours.

mod batch;
mod client;
mod server;
mod talk;
mod values;

pub use client::NodeMeshClient;
pub use server::NodeMeshServer;

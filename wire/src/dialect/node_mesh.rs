//! node-mesh, as the npm package `node-mesh` 2.0 speaks it: MessagePack `bin` values one after another, each of which holds an array of
//! messages. A message is a map: `id`, `type` (request, callback, publish, notification), `source` (custom, system), `fromId`, `fromName`,
//! `targetId`, `time`, `content` (`action`, `params`) and `data` (`body`, `error`).
//!
//! `node_mesh/server.rs` is the master's end of a connection, `node_mesh/client.rs` the branch's. Common to both ends are the messages
//! and the talk after the bind, in `node_mesh/talk.rs`. A request, event or broadcast of node-mesh has a list of arguments; that list is
//! one value in the mesh, unless an event has one argument: then the argument is the value.

mod batch;
mod client;
mod server;
mod talk;
mod values;

pub use client::NodeMeshClient;
pub use server::NodeMeshServer;

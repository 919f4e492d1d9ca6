//! Other protocols. A dialect is a state machine without a socket: it turns the bytes of a foreign program into frames, and
//! frames into such bytes, so that the foreign program looks like a branch, or like a master. It stands between a foreign
//! socket and an actor that knows frames only.

mod dnode;
mod json;
mod light_rpc;
mod node_mesh;
mod peer;
mod said;

pub use dnode::{Dnode, LentFunctions, ResultStyle};
pub use light_rpc::{LightRpcClient, LightRpcServer};
pub use node_mesh::{NodeMeshClient, NodeMeshServer};
pub use peer::{Allowed, foreign_name};
pub use said::{Dialect, DialectError, Said};

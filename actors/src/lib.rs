//! The actors of meshwork: who decides, who waits, and what happens when someone dies.
//!
//! They relay [`Payload`](meshwork_wire::Payload)s and cannot open one: what a user's types are is the business of the
//! `meshwork` crate. Sockets come in as [`link::Link`]s, time is tokio's, and nothing in here calls `System`, `Arbiter` or a
//! global registry; so the same actors run over TCP and in a simulated network with simulated time.
//!
//! ```text
//! MasterActor ──┬── RegistryActor      who offers what
//!               ├── RouterActor        who listens to what
//!               └── SessionActor       one per branch connection
//! BranchActor                          the other end of a session
//! ResponseActor                        one per request in flight, at the caller
//! ```
#![deny(missing_docs)]

pub mod answers;
pub mod branch;
pub mod calls;
pub mod events;
pub mod gateway;
pub mod link;
pub mod master;
pub mod node;
mod turns;

pub use meshwork_wire as wire;

//! The actors of meshwork: which actor decides, which waits for which, and what happens when a node dies.
//!
//! The actors relay [`Payload`](meshwork_wire::Payload)s and cannot open one: a user's types are the business of the `meshwork` crate.
//! Sockets come in as [`link::Link`]s, time is tokio's, and nothing in here calls `System`, `Arbiter` or a global registry; so these actors
//! run over TCP, and in a simulated network with simulated time.
//!
//! ```text
//! MasterActor ──┬── RegistryActor      the actions, and the branches that offer each
//!               ├── RouterActor        the topics, and the nodes that subscribe to each
//!               └── SessionActor       one per branch connection
//! BranchActor                          the other end of a session
//! ResponseActor                        bound to the calls of one departure: they leave their node together
//! ```
//!
//! # The life of a call
//!
//! A branch calls `add`, and another branch answers. In this order the call goes through these rooms:
//!
//! 1. **[`node`]**. The first poll of the call, in the task of its caller, takes the lock of its `Node` once: it opens a slot, which draws
//!    the callback id and keeps waker and deadline, and appends the frame of the request to the queue, by a head that is kept (`Heads`).
//!    The first submission in an empty queue sends the actor a [`Flush`](node::Flush).
//! 2. **[`calls`]**. The slots are in `InFlight`, which needs no runtime. [`BranchActor`](branch::BranchActor) takes the queue, and binds a
//!    [`ResponseActor`](calls::ResponseActor) of the pool to the calls that leave now, a `Departure` (`Bindings`).
//! 3. **[`branch`]**. An action of the branch itself answers the call. Else `LinkState` says whether the call leaves, waits for the next
//!    link or is refused, and `BranchCalls` hands the frames over.
//! 4. **[`link`]**. The `Outbox` takes the frames if there is room, and its writer writes all frames that have gathered. From here on the fate of
//!    the call is *unknown* until its reply comes; before, it was *not sent*.
//! 5. **[`turns`]**. At the master the [`SessionActor`](master::SessionActor) of the caller is polled for a block of frames, or a part of one.
//! 6. **[`master`]**. Its `Relay` finds the route of `add`, asks the [`RegistryActor`](master::RegistryActor) if it has not seen the action,
//!    picks a provider, draws an id at its session, and notes both under the id of the request. One `Forward` takes all requests of the
//!    block to the session of the provider, whose relay notes the caller, and which writes the requests into its outbox.
//! 7. **[`answers`]**. The provider's `BranchActor` reads the block. `Answering` polls the responder: at once if it is ready, else as a task
//!    until it is, or until a cancel drops it. Small replies gather and leave in one go.
//! 8. **[`master`]** again. The relay of the provider's session finds the caller of each reply; one `Replies` takes all outcomes of the block back,
//!    and the caller's session writes them.
//! 9. **[`calls`]** again. The caller's `BranchActor` gathers the replies of the block into rows, one for each response actor. The response
//!    actor gets the row as one [`Resolve`](calls::Resolve), settles the slots under one lock, and wakes the tasks when it has let the lock go.
//! 10. **[`node`]** again. The task of the caller takes the reply out of its slot, which is free then.
//!
//! If the provider dies, its session ends (`SessionActor::leave`): it leaves the registry and the router, and its relay (`Relay::leave`)
//! answers all requests that were forwarded to it: *not sent* those that had not been written, *unknown* the others. If the caller drops the call, or its deadline passes, a cancel goes the way
//! of the request.
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod answers;
pub mod branch;
pub mod calls;
pub mod events;
pub mod gateway;
mod hashed;
pub mod link;
pub mod master;
pub mod node;
pub mod repeated;
pub mod streams;
mod turns;

pub use meshwork_wire as wire;

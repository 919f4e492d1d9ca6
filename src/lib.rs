//! **meshwork** is an actor-model microservice runtime on [actix]: processes that are spread over machines call each other's
//! actions and publish to each other's topics as if they were actors in one system.
//!
//! One process runs a [`MasterActor`]; the others run a [`BranchActor`] each and bind to it. From then on they are all nodes
//! of one mesh: an action that one node offers can be called by all of them.
//!
//! ```
//! use meshwork::prelude::*;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Add { a: i64, b: i64 }
//!
//! # #[actix::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A master is an ordinary actor of an actix system.
//! let master: Addr<MasterActor> = MasterActor::new("master1")
//!     .respond("add2", |(a, b): (i64, i64)| async move { Ok(a + b + 1) })
//!     .start();
//! let address = master.send(Listen::tcp("127.0.0.1:0")).await??;
//!
//! // A branch: respond, then bind. `Branch` is a cheap handle, `Clone` and `Send`.
//! let branch: Branch = BranchActor::new("branch1")
//!     .respond("add", |Add { a, b }| async move { Ok(a + b) })
//!     .bind(address)
//!     .await?;
//!
//! // A call is a message to an actor...
//! let actor: Addr<BranchActor> = branch.addr();
//! let sum: i64 = actor.send(Call::new("add2", (22, 22)).within(Duration::from_secs(1))).await??;
//! assert_eq!(sum, 45);
//! // ...and has a short form on the handle, which is also faster.
//! let sum: i64 = branch.call("add2", (22, 22)).await?;
//! assert_eq!(sum, 45);
//! // A master calls as a branch does: `Master` is its handle.
//! let sum: i64 = Master::from(master).call("add", (33, 33)).await?;
//! assert_eq!(sum, 66);
//! # Ok(())
//! # }
//! ```
//!
//! The [`guide`] begins with a first mesh and ends in production. This table is for those who look for something:
//!
//! | you want to | look at |
//! | --- | --- |
//! | answer an action with a closure or an actor, or a set of actions at once | [`Respond`], [`Responders`], [`actions`] |
//! | start an actor again when it panics | [`Restarting`], [`RestartPolicy`] |
//! | call an action | [`Branch`] and [`Master`], both a [`Node`]: [`Node::call`]; or send a [`Call`] |
//! | call and publish for a request that is being answered, with its deadline, trace and cancel | [`CallContext`] |
//! | choose the provider of a call: by name, key, label or weight | [`Calling::on`], [`Calling::key`], [`Calling::label`], [`ConfigureNode::weight`] |
//! | call every provider of an action | [`Node::call_all`] |
//! | know why a call failed, and whether its action may have run | [`CallError`], [`Fate`], [`Code`] |
//! | say in a responder why an action failed | [`ActionError`], [`ApplicationCode`], [`OrActionError`] |
//! | let an action fail with an enum of your own, which callers get back | [`MeshError`](macro@MeshError) |
//! | compute for long, or block the thread, in a responder | [`Respond::respond_blocking`] |
//! | pass a function, see progress | [`Callback`] |
//! | answer with a stream, read one, pass one as an argument | [`Node::stream`], [`Streaming`], [`Feed`] |
//! | send events to many nodes | [`Node::publish`], [`Node::subscribe`], [`Node::broadcast`] |
//! | handle events with async code, some at once, in a queue | [`Subscribing`], [`WhenFull`] |
//! | keep the last value of a topic for those that subscribe later | [`Node::publish_last`] |
//! | wait until an action has a provider | [`Node::wait_for`] |
//! | see the actions, the nodes, the work of one node | [`Node::describe`], [`Node::nodes`], [`Node::snapshot`] |
//! | stop a node without losing requests | [`Node::drain`] |
//! | put layers of tower around calls, responders and what passes a master: retries, circuit breakers, limits | `tower`, behind the feature `tower` |
//! | test a service, without sockets and without waiting | `testing`, behind the feature `testing` |
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod action_error;
mod branch;
mod call;
mod call_all;
mod callback;
mod choosing;
mod context;
mod event;
mod event_queue;
mod feed;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handle;
mod handler;
mod host;
mod master;
mod node;
mod own_error;
mod publishing;
mod record;
mod respond;
mod restart;
mod shape;
mod streaming;
mod subscribe;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tower")]
pub mod tower;

#[doc(hidden)]
pub mod __private;

pub use action_error::{ActionError, OrActionError};
pub use branch::{BindBranch, Branch};
pub use call::{Call, Calling};
pub use call_all::{Answered, CallingAll};
pub use callback::{Callback, Invoking};
pub use context::CallContext;
pub use event::{Delivered, Event, EventError};
pub use event_queue::WhenFull;
pub use feed::Feed;
pub use handle::Node;
pub use handler::{Handled, HandlerReturn, Immediate, InTurn};
pub use master::{Master, RunMaster, SpreadMaster};
pub use meshwork_actors::answers::{ActorSnapshot, ActorState, RestartPolicy};
pub use meshwork_actors::branch::{BindError, BranchActor, BranchSettings};
pub use meshwork_actors::gateway::Dialect;
pub use meshwork_actors::gateway::bridge::{Bridge, BridgeError};
pub use meshwork_actors::link::{self, Address, AddressError, TlsFault};
#[cfg(feature = "tls")]
pub use meshwork_actors::link::{DialTls, ListenTls, Pem, TlsError};
pub use meshwork_actors::master::{
    Authenticate, Balance, FileError, Identities, Identity, Listen, ListenError, MasterActor, MasterSettings,
    OnNameTaken, Permissions, SessionSpawner, SetIdentities, Verb, token_digest,
};
pub use meshwork_actors::node::{
    Change, ConfigureNode, Denied, Describe, Drain, Drained, Limits, SessionSnapshot, Snapshot, Status,
    TakeSnapshot,
};
pub use meshwork_actors::{log_line, repeated};
/// Makes an enum the error of actions, which callers get back as the enum.
pub use meshwork_macros::MeshError;
/// Both ends of a set of actions from one trait: its responders and its requester.
pub use meshwork_macros::actions;
pub use meshwork_wire::{
    Accepts, ActionDescription, Allowed, ApplicationCode, ByteString, CallError, Callbacks, Code,
    DecodeError, EncodeError, Encoding, Fate, Form, HeaderError, Headers, Label, LabelError, NameError,
    NodeNews, Pattern, PatternError, Payload, PayloadRef, ResultStyle, SessionId, Shape, Signature,
    TokenError, Value, check_action, check_group, check_node, check_token, check_topic, escape_unseen,
    limits,
};
pub use publishing::Publishing;
pub use respond::{IntoBlockingResponder, IntoResponder, IntoStreamResponder, Respond, Responders};
pub use restart::{Restarting, RestartingRecipient};
pub use serde_bytes::{ByteBuf, Bytes};
pub use streaming::{ItemSender, NobodyReads, Opening, Streaming};
pub use subscribe::{Broadcast, HasQueue, IntoSubscriber, Publish, Subscribe, Subscribing, Subscription};

/// The names that most programs need: `use meshwork::prelude::*`.
pub mod prelude {
    pub use crate::{
        ActionError, ApplicationCode, BindBranch, Branch, BranchActor, Broadcast, Call, CallContext,
        CallError, Callback, Code, ConfigureNode, Dialect, Event, EventError, Fate, Feed, Listen, Master,
        MasterActor, MeshError, Node, OrActionError, Publish, Respond, Responders, RestartPolicy, Restarting,
        RunMaster, SpreadMaster, Streaming, Subscribe, Subscription, WhenFull,
    };
    pub use actix::prelude::{Actor, Addr, Context, Handler, Message, Recipient};
    pub use serde::{Deserialize, Serialize};
    pub use std::time::Duration;
}

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

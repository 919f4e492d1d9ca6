//! Tests of services, without sockets and without waiting: a [`Mesh`] in memory, in time that is paused, whose links and nodes suffer what the
//! test asks for; and what handlers are handed, made by hand. `docs/testing.md` is the guide.
//!
//! Behind the feature `testing`, which a program enables for its tests only:
//!
//! ```toml
//! [dev-dependencies]
//! meshwork = { version = "0.1", features = ["testing"] }
//! ```
//!
//! ```
//! use meshwork::prelude::*;
//! use meshwork::testing;
//!
//! testing::run(async |mesh| {
//!     let adder = BranchActor::new("adder").respond("add", |(a, b): (i64, i64)| async move { Ok(a + b) });
//!     let adder = mesh.bind(adder).await.unwrap();
//!     let caller = mesh.bind(BranchActor::new("caller")).await.unwrap();
//!     assert_eq!(caller.call::<i64>("add", (2, 3)).await.unwrap(), 5);
//!
//!     mesh.crash("adder").await;
//!     let error = caller.call::<i64>("add", (2, 3)).await.unwrap_err();
//!     assert_eq!(error.fate(), Fate::NotSent);
//!     # drop(adder);
//! });
//! ```

mod handed;
mod mesh;
mod network;

pub use handed::{Request, cancel, context, context_from, event, event_from};
pub use mesh::{Mesh, Setup, run};
/// For a simulation of your own; a [`Mesh`] does it by itself.
pub use meshwork_actors::answers::work_in_place;
#[doc(hidden)]
pub use meshwork_actors::node::{Census, TakeCensus};

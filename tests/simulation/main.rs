//! The simulation: whole meshes in a simulated network, in simulated time. The actors are those that run over TCP; only their links are
//! simulated, by turmoil.
//!
//! `seeds.rs` runs a thousand meshes under faults, each of which follows from its seed alone: what the nodes do (`programs.rs`), what the
//! network and the processes suffer (`faults.rs`), and what is true in the end (`journal.rs`, `agreement.rs`, `last.rs`). `cargo xtask simulate --seeds 10000
//! --from 5000` runs more; `cargo xtask simulate --seed 17` runs one, twice, and prints what happened. `network.rs` has the promises of a link
//! that is cut and mended, one test for each.

mod agreement;
mod blocking;
mod faults;
mod journal;
mod last;
mod layers;
mod links;
mod network;
mod programs;
mod seeds;
mod streams;

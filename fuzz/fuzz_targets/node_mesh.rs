//! `cargo fuzz run node_mesh`: see [`node_mesh`].
#![no_main]

#[path = "../targets/node_mesh.rs"]
mod node_mesh;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| node_mesh::run(bytes));

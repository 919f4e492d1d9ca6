//! `cargo fuzz run light_rpc`: see [`light_rpc`].
#![no_main]

#[path = "../targets/light_rpc.rs"]
mod light_rpc;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| light_rpc::run(bytes));

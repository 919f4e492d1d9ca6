//! `cargo fuzz run session`: see [`session`].
#![no_main]

#[path = "../targets/session.rs"]
mod session;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| session::run(bytes));

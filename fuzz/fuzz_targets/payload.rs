//! `cargo fuzz run payload`: see [`payload`].
#![no_main]

#[path = "../targets/payload.rs"]
mod payload;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| payload::run(bytes));

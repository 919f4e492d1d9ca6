//! `cargo fuzz run frames`: see [`frames`].
#![no_main]

#[path = "../targets/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| frames::run(bytes));

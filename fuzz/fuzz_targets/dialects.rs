//! `cargo fuzz run dialects`: see [`dialects`].
#![no_main]

#[path = "../targets/dialects.rs"]
mod dialects;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dialects::run(bytes));

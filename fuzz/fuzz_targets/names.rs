//! `cargo fuzz run names`: see [`names`].
#![no_main]

#[path = "../targets/names.rs"]
mod names;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| names::run(bytes));

//! `cargo fuzz run operator`: see [`operator`].
#![no_main]

#[path = "../targets/operator.rs"]
mod operator;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| operator::run(bytes));

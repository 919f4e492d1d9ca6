//! `cargo fuzz run dnode`: see [`dnode`].
#![no_main]

#[path = "../targets/dnode.rs"]
mod dnode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dnode::run(bytes));

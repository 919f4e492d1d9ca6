//! The command line, `meshwork`: the facade's first user. Everything it does is in `cli.rs` and below.

mod cli;

/// 10 to 25 % of a caller's processor time is allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}

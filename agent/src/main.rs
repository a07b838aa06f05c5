//! `custody-agent`: see `custody-agent --help`.

use std::process::ExitCode;

/// Gives freed memory back to the system soon; the C library's allocator keeps what a burst needed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    custody_agent::cli::main()
}

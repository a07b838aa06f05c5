//! `custody-agent`: see `custody-agent --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    custody_agent::cli::main()
}

//! `custody-collector`: see `custody-collector --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    custody_collector::cli::main()
}

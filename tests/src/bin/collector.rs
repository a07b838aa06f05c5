//! The collector as the suite runs it: the shipped program, that ends with whoever started it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match custody_tests::process::end_with_parent() {
        Ok(()) => custody_collector::cli::main(),
        Err(_) => ExitCode::FAILURE,
    }
}

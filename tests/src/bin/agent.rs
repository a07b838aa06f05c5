//! The agent as the suite runs it: the shipped program, that ends with whoever started it.
//!
//! `CUSTODY_TEST_SECONDS_AHEAD=3600`: its clock is an hour ahead.

use std::process::ExitCode;
use std::sync::Arc;

use custody_tests::clock::Ahead;

fn main() -> ExitCode {
    match custody_tests::process::end_with_parent() {
        Ok(()) => custody_agent::cli::main_at(Arc::new(Ahead::from_env())),
        Err(_) => ExitCode::FAILURE,
    }
}

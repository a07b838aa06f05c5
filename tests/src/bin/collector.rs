//! The collector as the suite runs it: the shipped program, that ends with whoever started it.
//!
//! `CUSTODY_TEST_DAYS_AHEAD=91`: its clock is so many days ahead, so that what is kept for months
//! goes in a test.

use std::process::ExitCode;
use std::sync::Arc;

use custody_tests::clock::Ahead;

fn main() -> ExitCode {
    match custody_tests::process::end_with_parent() {
        Ok(()) => custody_collector::cli::main_at(Arc::new(Ahead::from_env())),
        Err(_) => ExitCode::FAILURE,
    }
}

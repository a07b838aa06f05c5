//! The collector as the suite runs it: the shipped program, that ends with whoever started it.
//!
//! `CUSTODY_TEST_DAYS_AHEAD=91`: its clock is so many days ahead, so that what is kept for months
//! goes in a test.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use custody_event::{Clock, SystemClock, Timestamp};
use custody_tests::collector::DAYS_AHEAD;

struct Ahead {
    clock: SystemClock,
    micros: i64,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.clock.now().plus_micros(self.micros)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

fn main() -> ExitCode {
    if custody_tests::process::end_with_parent().is_err() {
        return ExitCode::FAILURE;
    }
    let days: i64 =
        std::env::var(DAYS_AHEAD).ok().and_then(|days| days.parse().ok()).unwrap_or_default();
    let clock = Ahead { clock: SystemClock::new(), micros: days * 86_400_000_000 };
    custody_collector::cli::main_at(Arc::new(clock))
}

//! A clock that is ahead of the system's, for the programs under test.

use std::time::Duration;

use custody_event::{Clock, SystemClock, Timestamp};

/// The variable that sets a program's clock ahead, by days.
pub const DAYS_AHEAD: &str = "CUSTODY_TEST_DAYS_AHEAD";
/// The same, by seconds.
pub const SECONDS_AHEAD: &str = "CUSTODY_TEST_SECONDS_AHEAD";

/// Ahead by so much; its steps are the system's.
#[derive(Debug)]
pub struct Ahead {
    clock: SystemClock,
    micros: i64,
}

impl Ahead {
    /// As the two variables say; without them it is the system's clock.
    #[must_use]
    pub fn from_env() -> Self {
        let number = |name: &str| -> i64 {
            std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        let seconds = number(DAYS_AHEAD) * 86_400 + number(SECONDS_AHEAD);
        Self { clock: SystemClock::new(), micros: seconds * 1_000_000 }
    }
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.clock.now().plus_micros(self.micros)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

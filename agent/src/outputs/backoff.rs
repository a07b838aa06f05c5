//! Exponential back-off with full jitter, for ever.
//!
//! The wait is drawn evenly from zero to the bound, and the bound doubles with each failure: many
//! agents that lost the same collector do not come back in step.

use std::time::Duration;

/// The first bound.
const BASE: Duration = Duration::from_millis(100);

/// How long to wait after failures in a row.
#[derive(Debug, Clone)]
pub struct Backoff {
    max: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// With bounds up to `max`; `seed` is any number.
    #[must_use]
    pub fn new(max: Duration, seed: u64) -> Self {
        Self { max, failures: 0, random: seed | 1 }
    }

    /// It worked: the next failure starts small again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let bound = BASE.saturating_mul(1_u32 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        self.below(bound)
    }

    /// A wait from zero to `bound`.
    pub fn below(&mut self, bound: Duration) -> Duration {
        let bound_us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.next_random() % bound_us)
    }

    /// xorshift64: enough to spread agents out; nothing secret depends on it.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_under_the_bound_and_are_spread() {
        let max = Duration::from_secs(5);
        let mut backoff = Backoff::new(max, 42);
        let first: Vec<Duration> = (0..3).map(|_| backoff.next_wait()).collect();
        assert!(first[0] <= BASE && first[1] <= BASE * 2 && first[2] <= BASE * 4);
        let later: Vec<Duration> = (0..200).map(|_| backoff.next_wait()).collect();
        assert!(later.iter().all(|wait| *wait <= max));
        assert!(
            later.iter().any(|wait| *wait < max / 4) && later.iter().any(|wait| *wait > max / 2)
        );
        backoff.reset();
        assert!(backoff.next_wait() <= BASE);
    }
}

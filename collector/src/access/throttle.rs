//! Slows down those who show tokens that are not known. Good tokens are never slowed, even from
//! an address where others fail: agents share addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Addresses remembered; beyond, the oldest are forgotten.
const MAX_PEERS: usize = 4096;
/// After this long without a failure a peer starts afresh.
const FORGET: Duration = Duration::from_secs(60);
/// Failures in a row that are only delayed; more are told to come back later.
const MAX_DELAYED: u32 = 20;

/// Failed attempts by address.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<IpAddr, Failures>>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
}

/// What a failed attempt gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// "Unauthorized", after this delay; `log` says whether it is worth a line in the log.
    Refuse { delay: Duration, log: bool },
    /// "Too many".
    TooMany,
}

impl Throttle {
    /// Notes a failure at this (monotonic) time.
    pub(crate) fn failed(&self, peer: IpAddr, now: Duration) -> Verdict {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            peers.retain(|_, failures| now.saturating_sub(failures.last) < FORGET);
            if peers.len() >= MAX_PEERS {
                return Verdict::TooMany;
            }
        }
        let failures = peers.entry(peer).or_insert(Failures { count: 0, last: now });
        if now.saturating_sub(failures.last) >= FORGET {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        if failures.count > MAX_DELAYED {
            return Verdict::TooMany;
        }
        let delay = Duration::from_millis(u64::from(failures.count.min(10)) * 50);
        Verdict::Refuse { delay, log: failures.count.is_power_of_two() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_grow_slower_and_are_forgotten_after_a_quiet_minute() {
        let throttle = Throttle::default();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let start = Duration::from_secs(1);
        let first = throttle.failed(peer, start);
        assert_eq!(first, Verdict::Refuse { delay: Duration::from_millis(50), log: true });
        for _ in 0..MAX_DELAYED {
            throttle.failed(peer, start);
        }
        assert_eq!(throttle.failed(peer, start), Verdict::TooMany);
        assert_ne!(throttle.failed(IpAddr::from([127, 0, 0, 2]), start), Verdict::TooMany);
        assert_eq!(throttle.failed(peer, start + FORGET), first);
    }
}

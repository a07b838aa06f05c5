//! How many requests an account may make in a minute (`limits.requests_per_minute`): one that is good and
//! asks too much is told when to come back, so that one program in a loop does not take the collector from all
//! others. A user and each of their tokens are accounts of their own. Minutes are counted from an account's first request on; at the border of two an account
//! may make twice as many in a row.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SPAN: Duration = Duration::from_secs(60);

/// See the module. There are as many entries as accounts.
#[derive(Debug)]
pub(super) struct Pace {
    per_minute: u32,
    accounts: Mutex<HashMap<String, Minute>>,
}

#[derive(Debug, Clone, Copy)]
struct Minute {
    began: Duration,
    requests: u32,
}

/// An account has made too many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// How many it may make in a minute.
    pub per_minute: u32,
    /// When to come back.
    pub retry_after_s: u32,
    /// Is it the first that is refused in this minute? The others are not worth a record each.
    pub first: bool,
}

impl Pace {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, accounts: Mutex::default() }
    }

    /// Counts a request of this account at this (monotonic) time.
    pub(super) fn spend(&self, account: &str, now: Duration) -> Result<(), TooMany> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Minute { began: now, requests: 0 };
        let minute = match accounts.get_mut(account) {
            Some(minute) => minute,
            None => accounts.entry(account.to_owned()).or_insert(fresh),
        };
        if now.saturating_sub(minute.began) >= SPAN {
            *minute = fresh;
        }
        minute.requests = minute.requests.saturating_add(1);
        if minute.requests <= self.per_minute {
            return Ok(());
        }
        let rest = SPAN.saturating_sub(now.saturating_sub(minute.began));
        Err(TooMany {
            per_minute: self.per_minute,
            retry_after_s: u32::try_from(rest.as_secs()).unwrap_or(60) + 1,
            first: minute.requests == self.per_minute.saturating_add(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_too_much_waits_and_nobody_else_does() {
        let pace = Pace::new(3);
        let start = Duration::from_secs(7);
        for _ in 0..3 {
            pace.spend("ann", start).unwrap();
        }
        let refused = pace.spend("ann", start + Duration::from_secs(20)).unwrap_err();
        assert_eq!(refused, TooMany { per_minute: 3, retry_after_s: 41, first: true });
        assert!(!pace.spend("ann", start).unwrap_err().first, "told once");
        pace.spend("bert", start).unwrap();
        pace.spend("ann", start + SPAN).unwrap();
    }
}

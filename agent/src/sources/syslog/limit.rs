//! What one peer may do: connections at once, and bytes a second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// A peer may send so many seconds' worth at once.
const BURST_SECONDS: u64 = 2;

/// Bytes a second of one peer.
#[derive(Debug, Clone)]
pub(crate) struct Rate {
    bytes_per_second: u64,
    left_bytes: u64,
    at: Duration,
}

impl Rate {
    /// `bytes_per_second` 0: no limit. `now` is a monotonic time.
    pub(crate) fn new(bytes_per_second: u64, now: Duration) -> Self {
        let left_bytes = bytes_per_second.saturating_mul(BURST_SECONDS);
        Self { bytes_per_second, left_bytes, at: now }
    }

    fn refill(&mut self, now: Duration) {
        let passed = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX);
        let more = passed.saturating_mul(self.bytes_per_second) / 1000;
        if more > 0 {
            let most = self.bytes_per_second.saturating_mul(BURST_SECONDS);
            self.left_bytes = self.left_bytes.saturating_add(more).min(most);
            self.at = now;
        }
    }

    /// Takes the bytes if they are within the limit.
    pub(crate) fn allows(&mut self, bytes: usize, now: Duration) -> bool {
        if self.bytes_per_second == 0 {
            return true;
        }
        self.refill(now);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let allowed = bytes <= self.left_bytes;
        if allowed {
            self.left_bytes -= bytes;
        }
        allowed
    }

    /// Takes the bytes, which were read already; says how long to read nothing more.
    pub(crate) fn pause(&mut self, bytes: usize, now: Duration) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        self.refill(now);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let over = bytes.saturating_sub(self.left_bytes);
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        if over > 0 {
            // What is over is paid for by the pause.
            self.at =
                now + Duration::from_millis(over.saturating_mul(1000) / self.bytes_per_second);
        }
        self.at.saturating_sub(now)
    }
}

/// Connections at once.
#[derive(Debug)]
pub(crate) struct Connections {
    max: u32,
    max_per_peer: u32,
    all: u32,
    by_peer: HashMap<IpAddr, u32>,
}

impl Connections {
    pub(crate) fn new(max: u32, max_per_peer: u32) -> Self {
        Self { max, max_per_peer, all: 0, by_peer: HashMap::new() }
    }

    /// Takes a place if there is one.
    pub(crate) fn enter(&mut self, peer: IpAddr) -> bool {
        let held = self.by_peer.get(&peer).copied().unwrap_or(0);
        if self.all >= self.max || held >= self.max_per_peer {
            return false;
        }
        self.all += 1;
        self.by_peer.insert(peer, held + 1);
        true
    }

    pub(crate) fn leave(&mut self, peer: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(held) = self.by_peer.get_mut(&peer) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.by_peer.remove(&peer);
            }
        }
    }

    pub(crate) fn all(&self) -> u32 {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_gets_its_rate_on_the_average_and_no_more() {
        let second = Duration::from_secs;
        let mut rate = Rate::new(100, second(0));
        assert!(rate.allows(200, second(0)));
        assert!(!rate.allows(1, second(0)));
        assert!(rate.allows(100, second(1)));
        let mut rate = Rate::new(100, second(0));
        assert_eq!(rate.pause(200, second(0)), Duration::ZERO);
        assert_eq!(rate.pause(300, second(0)), second(3));
        assert_eq!(rate.pause(100, second(3)), second(1));
        assert_eq!(Rate::new(0, second(0)).pause(usize::MAX, second(0)), Duration::ZERO);
    }

    #[test]
    fn one_peer_cannot_take_all_places() {
        let mut places = Connections::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert!(places.enter(a) && places.enter(a) && !places.enter(a));
        assert!(places.enter(b) && !places.enter(b));
        places.leave(a);
        assert!(places.enter(b));
        assert_eq!(places.all(), 3);
    }
}

//! Locks names and addresses that fail to log in again and again.
//!
//! [`NAME_FAILURES`] failures of a name, or [`PEER_FAILURES`] from an address (of IPv6: its /64),
//! lock it for [`FIRST_LOCK`]; each further failure doubles that, up to [`LONGEST_LOCK`]. After
//! [`FORGET`] without a failure, or a good login, it starts afresh. A name is treated alike whether or
//! not there is such a user. An attempt counts when it begins, so that many at once gain nothing.
//!
//! At most [`MAX_KEPT`] of each are remembered, names as hashes; beyond, the one that ends its lock
//! first is forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use custody_event::Digest;

/// Failures of a name that are free.
const NAME_FAILURES: u32 = 5;
/// Failures from an address that are free: people share addresses.
const PEER_FAILURES: u32 = 20;
const FIRST_LOCK: Duration = Duration::from_secs(60);
const LONGEST_LOCK: Duration = Duration::from_secs(15 * 60);
const FORGET: Duration = Duration::from_secs(3_600);
const MAX_KEPT: usize = 4_096;

#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    count: u32,
    last: Duration,
    until: Duration,
}

impl Failures {
    /// Counts one at `now`; says whether a lock begins.
    fn add(&mut self, free: u32, now: Duration) -> bool {
        if now.saturating_sub(self.last) >= FORGET {
            *self = Self::default();
        }
        self.count = self.count.saturating_add(1);
        self.last = now;
        if self.count < free {
            return false;
        }
        let doubled = FIRST_LOCK.saturating_mul(1 << (self.count - free).min(4));
        self.until = now.saturating_add(doubled.min(LONGEST_LOCK));
        true
    }
}

type Kept<K> = HashMap<K, Failures>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lockout(Mutex<(Kept<[u8; 16]>, Kept<IpAddr>)>);

/// An attempt that may go on; it counts as failed until it is [`Lockout::cleared`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    name: [u8; 16],
    peer: IpAddr,
    /// If it fails, the name is locked.
    pub(crate) locks_name: bool,
    /// If it fails, the address is locked.
    pub(crate) locks_peer: bool,
}

impl Lockout {
    fn kept(&self) -> MutexGuard<'_, (Kept<[u8; 16]>, Kept<IpAddr>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt begins.
    ///
    /// # Errors
    /// How long the name or the address is still locked.
    pub(crate) fn attempt(
        &self,
        name: &str,
        peer: IpAddr,
        now: Duration,
    ) -> Result<Attempt, Duration> {
        let (name, peer) = (name_key(name), network(peer));
        let mut kept = self.kept();
        let until = |failures: Option<&Failures>| failures.map_or(Duration::ZERO, |one| one.until);
        let locked = until(kept.0.get(&name)).max(until(kept.1.get(&peer)));
        if locked > now {
            return Err(locked.saturating_sub(now));
        }
        let locks_name = entry(&mut kept.0, name).add(NAME_FAILURES, now);
        let locks_peer = entry(&mut kept.1, peer).add(PEER_FAILURES, now);
        Ok(Attempt { name, peer, locks_name, locks_peer })
    }

    /// The attempt was a good one. What others fail to do from this address stays counted.
    pub(crate) fn cleared(&self, attempt: &Attempt) {
        let mut kept = self.kept();
        kept.0.remove(&attempt.name);
        if let Some(peer) = kept.1.get_mut(&attempt.peer) {
            peer.count = peer.count.saturating_sub(1);
            if attempt.locks_peer {
                peer.until = Duration::ZERO;
            }
        }
    }
}

/// The entry of `key`, made where there is none.
fn entry<K: Copy + Eq + std::hash::Hash>(kept: &mut Kept<K>, key: K) -> &mut Failures {
    if kept.len() >= MAX_KEPT
        && !kept.contains_key(&key)
        && let Some(first) =
            kept.iter().min_by_key(|(_, one)| (one.until, one.last)).map(|(key, _)| *key)
    {
        kept.remove(&first);
    }
    kept.entry(key).or_default()
}

fn name_key(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&Digest::of(name.to_ascii_lowercase().as_bytes()).0[..16]);
    key
}

/// One line of IPv6 has 2^64 addresses: they are one.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10);

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_name_is_locked_longer_and_longer_from_whichever_address() {
        let lockout = Lockout::default();
        for number in 1..=5 {
            let attempt = lockout.attempt("ann", peer(number), NOW).unwrap();
            assert_eq!(attempt.locks_name, number == 5);
        }
        assert_eq!(lockout.attempt("Ann", peer(9), NOW), Err(FIRST_LOCK));
        assert!(lockout.attempt("bob", peer(9), NOW).is_ok(), "another name goes on");
        let later = NOW + FIRST_LOCK;
        assert!(lockout.attempt("ann", peer(9), later).is_ok());
        assert_eq!(lockout.attempt("ann", peer(9), later), Err(FIRST_LOCK * 2));
        let quiet = later + FORGET;
        assert!(!lockout.attempt("ann", peer(9), quiet).unwrap().locks_name);
    }

    #[test]
    fn an_address_is_locked_for_all_names_and_a_line_of_ipv6_is_one_address() {
        let lockout = Lockout::default();
        for number in 0..20_u16 {
            let address = IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, number]);
            lockout.attempt(&format!("user{number}"), address, NOW).unwrap();
        }
        let address = IpAddr::from([0x2001, 0xdb8, 0, 7, 1, 2, 3, 4]);
        assert_eq!(lockout.attempt("new", address, NOW), Err(FIRST_LOCK));
        let other = IpAddr::from([0x2001, 0xdb8, 0, 8, 1, 2, 3, 4]);
        assert!(lockout.attempt("new", other, NOW).is_ok());
    }

    #[test]
    fn a_good_login_clears_the_name_but_not_what_others_do_from_there() {
        let lockout = Lockout::default();
        for number in 0..19 {
            lockout.attempt(&format!("user{number}"), peer(1), NOW).unwrap();
        }
        for _ in 0..10 {
            let good = lockout.attempt("ann", peer(1), NOW).unwrap();
            lockout.cleared(&good);
        }
        lockout.attempt("bob", peer(1), NOW).unwrap();
        assert!(lockout.attempt("ann", peer(1), NOW).is_err());
    }

    #[test]
    fn no_number_of_names_takes_more_memory_than_it_may_or_frees_a_locked_one() {
        let lockout = Lockout::default();
        for number in 0..5 {
            lockout.attempt("ann", peer(number), NOW).unwrap();
        }
        for number in 0..10_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            lockout.attempt(&format!("user{number}"), address, NOW).unwrap();
        }
        let kept = lockout.kept();
        assert!(kept.0.len() <= MAX_KEPT && kept.1.len() <= MAX_KEPT);
        drop(kept);
        assert!(lockout.attempt("ann", peer(77), NOW).is_err());
    }
}

//! A bound in bytes over everything that is on its way from a source to the disk.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Counts bytes in; blocks at the limit; counts them out when they are durable.
#[derive(Debug)]
pub struct Gate {
    limit_bytes: usize,
    held_bytes: Mutex<usize>,
    freed: Condvar,
}

impl Gate {
    /// A gate for this many bytes.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, held_bytes: Mutex::new(0), freed: Condvar::new() }
    }

    /// Takes `bytes` if there is room, waiting at most `wait`. An empty gate lets anything pass,
    /// so that one item longer than the limit does not wait for ever.
    #[must_use]
    pub fn enter(&self, bytes: usize, wait: Duration) -> bool {
        let held = self.held_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let has_no_room =
            |held: &mut usize| *held > 0 && held.saturating_add(bytes) > self.limit_bytes;
        let (mut held, _) = self
            .freed
            .wait_timeout_while(held, wait, has_no_room)
            .unwrap_or_else(PoisonError::into_inner);
        if has_no_room(&mut held) {
            return false;
        }
        *held = held.saturating_add(bytes);
        true
    }

    /// Gives `bytes` back.
    pub fn leave(&self, bytes: usize) {
        let mut held = self.held_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *held = held.saturating_sub(bytes);
        drop(held);
        self.freed.notify_all();
    }

    /// Bytes held now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        *self.held_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_holds_back_until_bytes_are_given_back() {
        let gate = Gate::new(10);
        assert!(gate.enter(8, Duration::ZERO));
        assert!(!gate.enter(3, Duration::from_millis(1)));
        assert!(gate.enter(2, Duration::ZERO));
        gate.leave(8);
        assert!(gate.enter(3, Duration::ZERO));
        assert_eq!(gate.held_bytes(), 5);
    }

    #[test]
    fn one_item_longer_than_the_limit_passes_an_empty_gate() {
        let gate = Gate::new(10);
        assert!(gate.enter(100, Duration::ZERO));
        assert!(!gate.enter(1, Duration::ZERO));
        gate.leave(100);
        assert!(gate.enter(1, Duration::ZERO));
    }
}

//! A lock that is had in the order in which it was asked for.
//!
//! The worker takes it again and again, segment after segment. The standard mutex is not fair:
//! somebody who makes a hold meanwhile might wait until the last segment is done, which is too late.
//! So whoever wants the lock stands in a queue for it, which is a lock too.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turn {
    queue: Mutex<()>,
    own: Mutex<()>,
}

impl Turn {
    /// Waits for its turn. Blocks.
    pub(super) fn take(&self) -> MutexGuard<'_, ()> {
        let _next = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does somebody stand in the queue?
    #[cfg(test)]
    pub(super) fn is_waited_for(&self) -> bool {
        self.queue.try_lock().is_err()
    }
}

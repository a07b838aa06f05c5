//! Rebuilding a store that has grown: sled's file does not shrink by itself. And reopening one that has
//! cached too much: sled's cache has 256 shards that each keep at least one leaf and count only every
//! 64th access, so that with a long backlog all of it stays in memory, whatever the cache's capacity says.
//!
//! The new folder is complete and durable before `current` names it; a crash before leaves the old
//! store in use and the new folder to be removed, a crash after the other way round.

use std::sync::atomic::Ordering;

use super::handle::{locked, millis};
use super::owner::Core;
use super::recover::{copy_all, discard, guarded, remove_if_there};
use super::types::{Store, StoreError};

impl Core {
    /// Reopens the store when enough has gone through it to fill the memory, and enough is held that
    /// could be cached.
    pub(crate) fn refresh_if_due(&mut self) -> Result<(), StoreError> {
        let cached = self.store.as_deref().map_or(0, Store::cached_bytes);
        if cached.min(self.index.bytes) < self.shared.options.refresh_bytes {
            return Ok(());
        }
        self.sync()?;
        self.shared.busy_since_ms.store(millis(self.now()) + 1, Ordering::Relaxed);
        if let Some(store) = self.store.take() {
            discard(store);
        }
        let path = self.context.store_path(self.number);
        let opened = self.context.open_plain(&path);
        self.shared.busy_since_ms.store(0, Ordering::Relaxed);
        self.store = Some(opened?);
        locked(&self.shared.stats).refreshed += 1;
        Ok(())
    }

    /// Copies what is held into a fresh store and switches to it.
    pub(crate) fn recreate(&mut self) -> Result<(), StoreError> {
        let number = self.number + 1;
        let path = self.context.store_path(number);
        let old_path = self.context.store_path(self.number);
        let io = |error: std::io::Error| StoreError::Io(error.to_string());
        remove_if_there(&path).map_err(io)?;
        let mut fresh = self.context.open_plain(&path)?;
        let (live, step_bytes) = (self.index.generation, self.shared.options.group_max_bytes);
        let copied = self.call(|old| copy_all(old, &mut *fresh, live, step_bytes));
        if let Err(error) = copied {
            discard(fresh);
            remove_if_there(&path).map_err(io)?;
            return Err(error);
        }
        guarded(|| fresh.sync())?;
        self.context.point_to(number).map_err(io)?;
        if let Some(old) = self.store.replace(fresh) {
            discard(old);
        }
        self.number = number;
        (self.unsynced_bytes, self.unsynced_since) = (0, None);
        self.write_ledger(true);
        remove_if_there(&old_path).map_err(io)?;
        locked(&self.shared.stats).recreated += 1;
        Ok(())
    }
}

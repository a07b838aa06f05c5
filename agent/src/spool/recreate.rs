//! Rebuilding a store that has grown: sled's file does not shrink by itself.
//!
//! The new folder is complete and durable before `current` names it; a crash before leaves the old
//! store in use and the new folder to be removed, a crash after the other way round.

use super::handle::locked;
use super::owner::Core;
use super::recover::{copy_all, discard, guarded, remove_if_there};
use super::types::StoreError;

impl Core {
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

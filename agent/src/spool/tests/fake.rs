//! A store in memory that fails where it is told, and forgets what was not synced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::super::{Change, Large, Slot, SpoolKey, Store, StoreError, StoreFactory};

#[derive(Clone, Default)]
struct Content {
    large: BTreeMap<Slot, Bytes>,
    small: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// How a chosen call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Before anything is done.
    Error,
    /// After it is done, so that the caller cannot know.
    ErrorAfter,
    Panic,
    /// At the next open only what was synced is there.
    PowerCut,
    Full,
}

#[derive(Default)]
pub(super) struct Disk {
    durable: Content,
    volatile: Content,
    calls: u64,
    /// Faults by the number of the call.
    pub(super) faults: BTreeMap<u64, Fault>,
    /// As long as this is set, reserving fails.
    pub(super) full: bool,
    /// As long as this is set, opening fails.
    pub(super) closed: Option<StoreError>,
    pub(super) opens: u64,
}

pub(super) type SharedDisk = Arc<Mutex<Disk>>;

pub(super) struct FakeFactory(pub(super) SharedDisk);

struct FakeStore(SharedDisk);

impl Disk {
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    fn call<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Result<T, StoreError> {
        let fault = self.faults.get(&self.calls).copied();
        self.calls += 1;
        match fault {
            None => Ok(work(self)),
            Some(Fault::ErrorAfter) => {
                work(self);
                Err(StoreError::Io("after".to_owned()))
            }
            Some(Fault::Error) => Err(StoreError::Io("before".to_owned())),
            Some(Fault::Full) => Err(StoreError::Full("injected".to_owned())),
            Some(Fault::Panic) => panic!("injected panic"),
            Some(Fault::PowerCut) => {
                self.volatile = self.durable.clone();
                Err(StoreError::Io("power".to_owned()))
            }
        }
    }

    /// What a power cut at this moment would leave.
    pub(super) fn cut_power(&mut self) {
        self.volatile = self.durable.clone();
    }

    /// The same content for another process; the old one keeps writing to its own.
    pub(super) fn image(&self) -> SharedDisk {
        let (durable, volatile) = (self.durable.clone(), self.volatile.clone());
        SharedDisk::new(Mutex::new(Self {
            durable,
            volatile,
            calls: self.calls,
            ..Self::default()
        }))
    }

    pub(super) fn corrupt(&mut self, slot: Slot) {
        let mut bytes = self.volatile.large[&slot].to_vec();
        bytes[0] ^= 1;
        self.volatile.large.insert(slot, bytes.into());
        self.durable.large.insert(slot, self.volatile.large[&slot].clone());
    }
}

fn locked(disk: &SharedDisk) -> std::sync::MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl StoreFactory for FakeFactory {
    fn open(&mut self, dir: &Path) -> Result<Box<dyn Store>, StoreError> {
        // A fresh folder is a fresh store: the second one of a quarantine starts empty.
        let fresh = !dir.try_exists().unwrap();
        std::fs::create_dir_all(dir).unwrap();
        let disk = if fresh && !dir.ends_with("store-1") {
            SharedDisk::default()
        } else {
            Arc::clone(&self.0)
        };
        if let Some(error) = locked(&disk).closed.clone() {
            return Err(error);
        }
        locked(&disk).opens += 1;
        Ok(Box::new(FakeStore(disk)))
    }

    fn forget_derived(&mut self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
}

impl Store for FakeStore {
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        locked(&self.0).call(|disk| {
            for change in changes {
                for (slot, len) in &change.drops {
                    let gone = disk.volatile.large.remove(slot);
                    assert!(
                        gone.is_none_or(|gone| gone.len() == usize::try_from(*len).unwrap()),
                        "dropped with a wrong length"
                    );
                }
                for key in &change.deletes {
                    disk.volatile.small.remove(key);
                }
                disk.volatile.large.extend(change.stores.iter().cloned());
                disk.volatile.small.extend(change.puts.iter().cloned());
            }
        })
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        locked(&self.0).call(|disk| disk.durable = disk.volatile.clone())
    }

    fn reserve(&mut self, _: u64) -> Result<(), StoreError> {
        if locked(&self.0).full { Err(StoreError::Full("no space".to_owned())) } else { Ok(()) }
    }

    fn read(&mut self, slot: Slot) -> Result<Option<Bytes>, StoreError> {
        locked(&self.0).call(|disk| disk.volatile.large.get(&slot).cloned())
    }

    fn visit_large(
        &mut self,
        from: Option<Slot>,
        _: u64,
        visit: &mut dyn FnMut(Large),
    ) -> Result<Option<Slot>, StoreError> {
        // Never fails: a store that cannot be walked is damage, and damage has its own tests.
        let large = locked(&self.0).volatile.large.clone();
        let wanted = |slot: &Slot| from.is_none_or(|from| *slot >= from);
        large
            .into_iter()
            .filter(|(slot, _)| wanted(slot))
            .for_each(|(slot, bytes)| visit((slot, Ok(bytes))));
        Ok(None)
    }

    fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(locked(&self.0).volatile.small.get(key).cloned())
    }

    fn scan_prefix(&mut self, prefix: &[u8]) -> Result<Vec<(SpoolKey, Vec<u8>)>, StoreError> {
        let disk = locked(&self.0);
        let found = disk.volatile.small.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn cached_bytes(&self) -> u64 {
        0
    }

    fn size_on_disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

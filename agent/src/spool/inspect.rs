//! Looking into a spool while the agent is not running, for the command line.
//!
//! Takes the same lock as the agent. Never repairs and never puts anything aside; sled itself may
//! write to its files when it opens them.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::ledger::Ledger;
use super::ownerops::dead_letters_of;
use super::recover::{Loaded, guarded, load};
use super::sled_store::SledFactory;
use super::types::{
    Check, DeadLetter, OpenError, Options, Slot, SpoolKey, Store, StoreError, StoreFactory,
};

const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The folder's lock, held as long as this lives.
pub(crate) struct Lock {
    _file: File,
}

/// Takes the spool's lock and writes our pid into it.
pub(crate) fn take_lock(dir: &Path) -> Result<Lock, OpenError> {
    let fail = |what| move |error| OpenError::Io { path: dir.to_path_buf(), what, error };
    fs::create_dir_all(dir).map_err(fail("making the folder"))?;
    let path = dir.join("lock");
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.map_err(fail("opening the lock file"))?;
    // A child process that was just forked holds a copy until it executes: look twice.
    let mut locked = file.try_lock();
    for _ in 0..LOCK_TRIES {
        if matches!(locked, Err(TryLockError::WouldBlock)) {
            std::thread::sleep(LOCK_PAUSE);
            locked = file.try_lock();
        }
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = Read::by_ref(&mut file).take(32).read_to_string(&mut pid);
            let pid = if read.is_ok() { pid.trim().to_owned() } else { "unknown".to_owned() };
            return Err(OpenError::InUse { path, pid });
        }
        Err(TryLockError::Error(error)) => return Err(fail("locking")(error)),
    }
    let text = format!("{}\n", std::process::id());
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    written.map_err(fail("writing the lock file"))?;
    Ok(Lock { _file: file })
}

/// One block of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockEntry {
    /// Its number.
    pub seq: u64,
    /// Its length in bytes; 0 if it cannot be read.
    pub len: u32,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// What [`Inspector::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Whole blocks.
    pub sound: u64,
    /// Damaged blocks, missing ones, and anything else; empty if all is well.
    pub problems: Vec<String>,
}

/// A spool that is open for looking.
pub struct Inspector {
    store: Box<dyn Store>,
    generation: u32,
    check: Check,
    ledger_next: Option<(u32, u64)>,
    _lock: Lock,
}

/// Opens the spool in `dir` for looking.
///
/// # Errors
/// [`OpenError::InUse`] while an agent runs; what the system or the store says otherwise.
pub fn inspect(dir: &Path, check: Check) -> Result<Inspector, OpenError> {
    let fail = |what| move |error| OpenError::Io { path: dir.to_path_buf(), what, error };
    let current =
        fs::read_to_string(dir.join("current")).map_err(fail("reading which store is live"))?;
    let lock = take_lock(dir)?;
    let ledger = Ledger::open(&dir.join("ledger")).map_err(fail("opening the ledger"))?;
    let path = dir.join(current.trim());
    if !path.join("db").try_exists().map_err(fail("looking for the store"))? {
        return Err(fail("looking for the store")(io::Error::new(
            io::ErrorKind::NotFound,
            "there is no store",
        )));
    }
    let mut store = guarded(|| SledFactory::default().open(&path))
        .map_err(|error| OpenError::Store { path: path.clone(), error })?;
    let generation = guarded(|| store.value(super::keys::GENERATION))
        .map_err(|error| OpenError::Store { path, error })?;
    let generation =
        generation.and_then(|value| value.try_into().ok()).map_or(0, u32::from_be_bytes);
    let ledger_next = ledger.last().map(|entry| (entry.generation, entry.next_seq));
    Ok(Inspector { store, generation, check, ledger_next, _lock: lock })
}

impl Inspector {
    /// All blocks of the live stream, in order.
    ///
    /// # Errors
    /// When the store cannot be walked.
    pub fn blocks(&mut self) -> Result<Vec<BlockEntry>, StoreError> {
        let (live, check) = (self.generation, self.check);
        let mut entries = Vec::new();
        guarded(|| {
            self.store.visit_large(None, u64::MAX, &mut |(slot, bytes)| {
                let Slot::Block { generation, seq } = slot else { return };
                if generation != live {
                    return;
                }
                let len = bytes
                    .as_ref()
                    .map_or(0, |bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                let error = bytes.and_then(|bytes| check(&bytes)).err();
                entries.push(BlockEntry { seq, len, error });
            })
        })?;
        Ok(entries)
    }

    /// One block's bytes.
    ///
    /// # Errors
    /// When it is damaged or the store cannot be read.
    pub fn read(&mut self, seq: u64) -> Result<Option<Bytes>, StoreError> {
        let slot = Slot::Block { generation: self.generation, seq };
        let bytes = guarded(|| self.store.read(slot))?;
        if let Some(bytes) = &bytes {
            (self.check)(bytes).map_err(StoreError::Corrupt)?;
        }
        Ok(bytes)
    }

    /// One block's bytes, whatever they are worth.
    ///
    /// # Errors
    /// When parts of it are missing or the store cannot be read.
    pub fn read_unchecked(&mut self, seq: u64) -> Result<Option<Bytes>, StoreError> {
        let slot = Slot::Block { generation: self.generation, seq };
        guarded(|| self.store.read(slot))
    }

    /// The number of the next block: as the store says, or the ledger, whichever knows of more.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn next_seq(&mut self) -> Result<u64, StoreError> {
        let said = self.value(super::keys::NEXT_SEQ)?.and_then(|value| value.try_into().ok());
        let known = self.ledger_next.filter(|(generation, _)| *generation == self.generation);
        Ok(said.map_or(0, u64::from_be_bytes).max(known.map_or(0, |(_, next)| next)))
    }

    /// One small value.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| self.store.value(key))
    }

    /// All small values under a prefix.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn scan_prefix(&mut self, prefix: &[u8]) -> Result<Vec<(SpoolKey, Vec<u8>)>, StoreError> {
        guarded(|| self.store.scan_prefix(prefix))
    }

    /// All dead letters.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        guarded(|| dead_letters_of(&mut *self.store))
    }

    /// A dead letter's bytes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn read_dead_letter(&mut self, id: u64) -> Result<Option<Bytes>, StoreError> {
        guarded(|| self.store.read(Slot::Dead(id)))
    }

    /// Reads everything and says what is wrong.
    ///
    /// # Errors
    /// When the store cannot be walked to its end.
    pub fn verify(&mut self) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        for entry in self.blocks()? {
            match entry.error {
                None => report.sound += 1,
                Some(error) => report.problems.push(format!("block {}: {error}", entry.seq)),
            }
        }
        let options = Options { check: self.check, ..Options::for_max_bytes(0) };
        match guarded(|| load(&mut *self.store, &options)) {
            Ok(Loaded { needs_restream: Some(reason), .. }) => {
                report.problems.push(format!("waits for a new stream: {reason}"))
            }
            Ok(loaded) if self.ledger_next > Some((loaded.generation, loaded.next_seq)) => {
                let (_, known) = self.ledger_next.unwrap_or_default();
                report.problems.push(format!(
                    "ends before block {}, the ledger knows {known} durable",
                    loaded.next_seq
                ));
            }
            Ok(_) => {}
            Err(error) if report.problems.is_empty() => report.problems.push(error.to_string()),
            Err(_) => {}
        }
        Ok(report)
    }
}

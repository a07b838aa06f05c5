//! What the spool's parts say to each other and to the rest of the agent.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

/// A key, namespaced by the caller: `pos/…`, `book/…`, `meta/…`.
pub type SpoolKey = Vec<u8>;

/// Says whether a block's bytes are whole; the text says what is wrong.
pub type Check = fn(&[u8]) -> Result<(), String>;

/// How a block hangs together with the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The hash that it names of the block before.
    pub before: [u8; 32],
    /// Its own.
    pub this: [u8; 32],
}

/// Knows of blocks what the spool does not: how they hang together, and whether they are what was
/// put in. A checksum finds damage; only this finds somebody who has made the checksums anew.
pub trait Judge: Send + Sync + std::fmt::Debug {
    /// How the block of this number hangs together with the one before; cheap, asked of each block
    /// at opening.
    ///
    /// # Errors
    /// It is no block, or not of this number.
    fn link(&self, seq: u64, bytes: &[u8]) -> Result<Link, String>;
    /// Is it, to its last byte, what this agent has signed? Asked of the last block, which names
    /// all before it, and of each where something is wrong.
    ///
    /// # Errors
    /// Says what is not.
    fn sealed(&self, bytes: &[u8]) -> Result<(), String>;
}

/// Time as the spool needs it; the agent's clock is wrapped in one, tests set their own.
pub trait SpoolClock: Send + Sync {
    /// Wall-clock time in milliseconds since 1970, UTC.
    fn unix_ms(&self) -> u64;
    /// Time since some fixed instant; never goes back.
    fn monotonic(&self) -> Duration;
}

/// One encoded block with its number.
#[derive(Debug, Clone)]
pub struct SpooledBlock {
    /// The block's number in its stream.
    pub seq: u64,
    /// The encoded block; opaque here but for its checksum.
    pub bytes: Bytes,
}

/// What one append changes, atomically.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// At most one block, whose seq follows the last one appended.
    pub block: Option<SpooledBlock>,
    /// Positions, books, meta.
    pub puts: Vec<(SpoolKey, Vec<u8>)>,
    /// Keys to remove.
    pub deletes: Vec<SpoolKey>,
}

/// Where a large value (one that is stored in parts) lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// A block of one generation (a generation is one stream's life in this spool).
    Block {
        /// Counts the streams that this spool has had.
        generation: u32,
        /// The block's number in its stream.
        seq: u64,
    },
    /// A dead letter, by its own running number.
    Dead(u64),
}

/// What a store applies in one atomic step: first the drops, then the rest.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Large values to remove, each with its length in bytes (so that no read is needed).
    pub drops: Vec<(Slot, u32)>,
    /// Large values to write.
    pub stores: Vec<(Slot, Bytes)>,
    /// Small values to remove.
    pub deletes: Vec<SpoolKey>,
    /// Small values to write.
    pub puts: Vec<(SpoolKey, Vec<u8>)>,
}

impl Change {
    /// The bytes that applying this writes, roughly.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let large: usize = self.stores.iter().map(|(_, bytes)| bytes.len() + 64).sum();
        let small: usize = self.puts.iter().map(|(key, value)| key.len() + value.len() + 32).sum();
        let gone: usize =
            self.drops.iter().map(|(_, len)| 64 + usize::try_from(*len).unwrap_or(0) / 1024).sum();
        u64::try_from(large + small + gone + self.deletes.len() * 64).unwrap_or(u64::MAX)
    }
}

/// A large value found by [`Store::visit_large`]: its slot, and its bytes or what is wrong with it.
pub type Large = (Slot, Result<Bytes, String>);

/// What the owner thread needs of a database. Calls may panic: the owner catches that and reopens.
pub trait Store: Send {
    /// What was found to be damaged when the store was opened, and would only be missed later.
    fn check(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Applies all changes, in order, in ONE atomic step. Not durable yet.
    ///
    /// # Errors
    /// Any error ends the use of this handle.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;
    /// Everything committed so far survives a power cut when this returns.
    ///
    /// # Errors
    /// Any error ends the use of this handle.
    fn sync(&mut self) -> Result<(), StoreError>;
    /// Makes sure that `bytes` more can be written without the disk becoming full, where the file
    /// system can promise that.
    ///
    /// # Errors
    /// [`StoreError::Full`] leaves the handle usable; any other error ends its use.
    fn reserve(&mut self, bytes: u64) -> Result<(), StoreError>;
    /// Reads one large value.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if parts are missing.
    fn read(&mut self, slot: Slot) -> Result<Option<Bytes>, StoreError>;
    /// Shows large values in the order of the slots, from `from` on, until more than `budget_bytes` have
    /// been read; returns where to go on, `None` at the end.
    ///
    /// # Errors
    /// When the store cannot be walked on.
    fn visit_large(
        &mut self,
        from: Option<Slot>,
        budget_bytes: u64,
        visit: &mut dyn FnMut(Large),
    ) -> Result<Option<Slot>, StoreError>;
    /// Reads one small value.
    ///
    /// # Errors
    /// As any read.
    fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// All small values whose key begins with `prefix`, in the order of the keys.
    ///
    /// # Errors
    /// As any read.
    fn scan_prefix(&mut self, prefix: &[u8]) -> Result<Vec<(SpoolKey, Vec<u8>)>, StoreError>;
    /// Bytes that the store has read and written since it was opened and may keep in memory: what
    /// reopening it would free.
    fn cached_bytes(&self) -> u64;
    /// What the store takes on disk, without what the next sync removes.
    ///
    /// # Errors
    /// When the files cannot be asked.
    fn size_on_disk_bytes(&self) -> Result<u64, StoreError>;
}

/// Opens stores: sled's in the agent, a faulty one in tests.
pub trait StoreFactory: Send {
    /// Opens the store in `dir`, making it where there is none.
    ///
    /// # Errors
    /// [`StoreError::is_environment`] tells a full disk or a missing permission from damage.
    fn open(&mut self, dir: &Path) -> Result<Box<dyn Store>, StoreError>;
    /// Puts aside what in `dir` can be rebuilt from the rest, before a last try to read a damaged store.
    ///
    /// # Errors
    /// As renaming files.
    fn forget_derived(&mut self, dir: &Path) -> io::Result<()>;
}

/// A store call that did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// No space; nothing else is wrong.
    #[error("no disk space: {0}")]
    Full(String),
    /// Somebody else holds the store's own lock.
    #[error("store locked: {0}")]
    Locked(String),
    /// The operating system says no (permission, read-only, too many files).
    #[error("store refused by the system: {0}")]
    Refused(String),
    /// An input or output error.
    #[error("store I/O: {0}")]
    Io(String),
    /// What is on disk is not what was written.
    #[error("store damaged: {0}")]
    Corrupt(String),
    /// The store's code panicked.
    #[error("store panicked: {0}")]
    Panicked(String),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full(error.to_string())
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Refused(error.to_string())
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                Self::Corrupt(error.to_string())
            }
            // EMFILE, ENFILE, ENOMEM: a lack of the moment, no reason to put data aside.
            _ if matches!(error.raw_os_error(), Some(12 | 23 | 24)) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Io(error.to_string()),
        }
    }
}

impl StoreError {
    /// True where the data is not at fault, so that putting it aside would help nobody.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Locked(_) | Self::Refused(_))
    }
}

/// Why the spool did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpoolError {
    /// The spool is closing or closed; what was not yet durable may be missing.
    #[error("the spool is closed")]
    Closed,
    /// A block's number does not follow the last one appended.
    #[error("block {got} does not follow: the spool expects block {expected}")]
    OutOfOrder {
        /// What must come next.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// The spool lost or may have lost blocks: the stream must be begun anew.
    #[error("the spool needs a new stream before it takes anything: {0}; call restream")]
    NeedsRestream(String),
    /// Too large a block, value or key.
    #[error("{what} has {len} bytes, the limit is {limit}")]
    TooLarge {
        /// Block, value or key.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The key belongs to the spool itself.
    #[error(
        "key {0:?} is reserved for the spool itself (keys beginning with . | ~ cursor/ dead/ refused/)"
    )]
    ReservedKey(String),
    /// The bytes do not pass the block check.
    #[error("not a whole block: {0}")]
    BadBlock(String),
    /// There is no such block, or it is acknowledged already.
    #[error("no block {0} in the spool")]
    NoSuchBlock(u64),
    /// An acknowledgement for what was never made durable.
    #[error(
        "output {output} acknowledges up to block {next_seq}, but only {durable_next_seq} are durable"
    )]
    AckBeyondEnd {
        /// Who acknowledged.
        output: String,
        /// Up to where.
        next_seq: u64,
        /// What there is.
        durable_next_seq: u64,
    },
    /// An acknowledgement for a stream that is over.
    #[error("this acknowledges stream generation {got}, the spool is at {generation}")]
    OldStream {
        /// The generation it was for.
        got: u32,
        /// The live one.
        generation: u32,
    },
    /// The output was not named in `register_outputs`.
    #[error("output {0} is not registered with the spool")]
    UnknownOutput(String),
    /// The caller's own function failed.
    #[error("restream stopped: {0}")]
    Restream(String),
    /// Too many questions wait for the owner.
    #[error("the spool's owner has {0} questions waiting")]
    Busy(usize),
}

/// Why there is no spool.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another custody-agent uses this spool, pid {pid} ({path}); stop it first", path = path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as it wrote itself down.
        pid: String,
    },
    /// The system says no.
    #[error("spool {path}: {what}: {error}", path = path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The store says no, for a reason outside the data.
    #[error("spool {path}: {error}", path = path.display())]
    Store {
        /// The store's folder.
        path: PathBuf,
        /// The reason.
        error: StoreError,
    },
}

/// How far the spool is durable; outputs see nothing beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durable {
    /// Changes when the stream is begun anew.
    pub generation: u32,
    /// The first block number that is not durable yet.
    pub next_seq: u64,
}

/// A damaged store that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it is now.
    pub path: PathBuf,
    /// What was wrong with it.
    pub reason: String,
    /// The blocks that the ledger knew to be in it, as far as it knew.
    pub ledger_seqs: Range<u64>,
    /// Blocks copied into the fresh store.
    pub salvaged_blocks: u64,
    /// Values (positions, books, meta, cursors) copied into the fresh store.
    pub salvaged_values: u64,
    /// Blocks that the ledger or their neighbours say existed and that could not be read.
    pub lost_seqs: Vec<Range<u64>>,
}

/// A store older than what was once durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// What the ledger knew.
    pub ledger_next_seq: u64,
    /// What the store has.
    pub store_next_seq: u64,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// There was no spool here before.
    pub created: bool,
    /// The stream's generation.
    pub generation: u32,
    /// The first block held.
    pub first_seq: u64,
    /// The number that the next appended block must have.
    pub next_seq: u64,
    /// Set: the caller must begin a new stream with [`super::SpoolHandle::restream`] before it appends.
    pub needs_restream: Option<String>,
    /// A damaged store was put aside.
    pub quarantined: Option<Quarantined>,
    /// The store is older than the ledger.
    pub rolled_back: Option<RolledBack>,
}

/// Something that happened while running and that the books must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incident {
    /// As at opening.
    Quarantined(Quarantined),
    /// As at opening.
    RolledBack(RolledBack),
}

/// Where an output stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputCursor {
    /// The output's id.
    pub output: String,
    /// The next block that it has to send.
    pub next_seq: u64,
    /// Blocks that were deleted while it was not configured.
    pub skipped: u64,
    /// Blocks before it that it has refused ([`super::SpoolHandle::set_aside`]), ascending.
    pub refused: Vec<u64>,
}

/// A block body that an output refused, kept for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its own number.
    pub id: u64,
    /// The block's number in its stream.
    pub seq: u64,
    /// The stream's generation.
    pub generation: u32,
    /// When it was set aside.
    pub unix_ms: u64,
    /// Its length in bytes.
    pub len: u32,
    /// Why.
    pub reason: String,
}

/// What becomes of a block in a restream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// It goes on as this.
    To(Vec<u8>),
    /// It does not go on, for this reason: it is kept as a dead letter.
    Aside(String),
}

impl From<Vec<u8>> for Moved {
    fn from(bytes: Vec<u8>) -> Self {
        Self::To(bytes)
    }
}

/// What a restream did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restreamed {
    /// The new generation.
    pub generation: u32,
    /// Blocks rewritten; the next block must have this number.
    pub next_seq: u64,
}

/// The spool's settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// Logical bytes of blocks held at most.
    pub max_bytes: u64,
    /// Free space of the file system below which nothing is appended.
    pub min_free_bytes: u64,
    /// Bytes of batches that may wait in memory.
    pub queue_max_bytes: u64,
    /// Bytes of the newest durable blocks kept in memory for live outputs.
    pub ring_max_bytes: u64,
    /// Bytes applied between two syncs at most: what one power cut may take back is kept short, so that
    /// the store has little occasion to use again what it freed in between.
    pub group_max_bytes: u64,
    /// How long a cursor may wait for an append to be made durable with.
    pub ack_delay: Duration,
    /// How long between two tries after an error or on a full disk.
    pub retry_every: Duration,
    /// How long a store call may take before it is called stuck.
    pub stuck_after: Duration,
    /// How long between two writes of the ledger.
    pub ledger_every: Duration,
    /// Bytes that a store may keep in memory ([`Store::cached_bytes`]) before it is reopened, while at
    /// least as much is held.
    pub refresh_bytes: u64,
    /// Below this size on disk a store is never recreated.
    pub recreate_min_bytes: u64,
    /// Damaged stores kept.
    pub keep_quarantined: usize,
    /// Is a block whole? Asked on append, open, read and verify.
    pub check: Check,
    /// Who knows whether blocks are what was put in; without one, checksums are believed.
    pub judge: Option<Arc<dyn Judge>>,
}

impl Options {
    /// Settings for a spool of `max_bytes`.
    #[must_use]
    pub fn for_max_bytes(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            min_free_bytes: (max_bytes / 20).max(64 * 1024 * 1024),
            queue_max_bytes: 8 * 1024 * 1024,
            ring_max_bytes: 4 * 1024 * 1024,
            group_max_bytes: 2 * 1024 * 1024,
            ack_delay: Duration::from_secs(1),
            retry_every: Duration::from_secs(1),
            stuck_after: Duration::from_secs(30),
            ledger_every: Duration::from_secs(1),
            refresh_bytes: 8 * 1024 * 1024,
            recreate_min_bytes: 256 * 1024 * 1024,
            keep_quarantined: 4,
            check: trailing_crc,
            judge: None,
        }
    }
}

/// The check that every encoded block passes: the last four bytes are the CRC32 (IEEE), little
/// endian, of all the bytes before.
///
/// # Errors
/// Says both checksums.
pub fn trailing_crc(bytes: &[u8]) -> Result<(), String> {
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(format!("only {} bytes, shorter than a checksum", bytes.len()));
    };
    let (said, is) = (u32::from_le_bytes(*crc), crc32fast::hash(body));
    if said == is {
        return Ok(());
    }
    Err(format!("checksum is {is:08x}, the block says {said:08x} ({} bytes)", bytes.len()))
}

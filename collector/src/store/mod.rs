//! The store: where blocks are kept, and what is derived from them.
//!
//! The evidence log is the truth: append-only segments of whole blocks, each with the receipt
//! that was made when it came in. Everything else (the index, the counts) is derived from it by
//! reading it from a [`LogCursor`] on, and can be thrown away and made again.

pub mod evidence;

use custody_event::{Block, Timestamp};
use serde::{Deserialize, Serialize};

/// A frame's place in the evidence log; later frames compare greater.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct LogCursor {
    /// The segment's number, from 0, over all days.
    pub segment: u64,
    /// The frame's first byte in the segment.
    pub offset: u64,
}

/// What the collector noted when it took a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Ranges of indices (first and last, both included) whose records an older stream of the
    /// same host has delivered: kept as evidence, left out of search and counts.
    pub held: Vec<(u32, u32)>,
    /// When it was taken.
    pub received: Timestamp,
}

impl Receipt {
    /// Is the event at this index already held from an older stream?
    #[must_use]
    pub fn is_held(&self, index: u32) -> bool {
        self.held.iter().any(|(first, last)| (*first..=*last).contains(&index))
    }
}

/// A block as the evidence log keeps it.
#[derive(Debug, Clone)]
pub struct StoredBlock {
    /// Where it stands.
    pub at: LogCursor,
    /// Where the next frame will stand (a reader goes on from here).
    pub next: LogCursor,
    /// The block; its sections are well formed and its checksum holds.
    pub block: Block,
    /// What was noted.
    pub receipt: Receipt,
}

/// Why the store cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Evidence is damaged.
    #[error("{path}: damaged at byte {offset}: {reason}")]
    Damaged {
        /// The segment.
        path: std::path::PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The transparency log.
    #[error(transparent)]
    Tlog(#[from] Box<crate::tlog::TlogError>),
}

impl From<crate::tlog::TlogError> for StoreError {
    fn from(error: crate::tlog::TlogError) -> Self {
        Self::Tlog(Box::new(error))
    }
}

/// Reads the evidence log. Only what is durable is ever shown.
pub trait BlockSource: Send + Sync + 'static {
    /// The block whose frame begins at `at`.
    ///
    /// # Errors
    /// There is none there, or it cannot be read.
    fn read_at(&self, at: LogCursor) -> Result<StoredBlock, StoreError>;

    /// The first block at or after `from`; `None` at the durable end. Crosses segments.
    ///
    /// # Errors
    /// It cannot be read.
    fn next_from(&self, from: LogCursor) -> Result<Option<StoredBlock>, StoreError>;

    /// Follows the durable end: changes whenever blocks have become durable.
    fn durable_end(&self) -> tokio::sync::watch::Receiver<LogCursor>;
}

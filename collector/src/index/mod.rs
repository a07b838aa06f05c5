//! The index: finds events in the evidence log. Derived from it, rebuildable, never the truth.
//!
//! # Layout
//! `<data_dir>/index/<day>/` is one tantivy index for each day of receipt. A document has no
//! stored part: postings of terms ([`terms`]) and four columns ([`schema`]), one of them the
//! block's place in the evidence log, where the event itself is read. Segments are slices of the
//! log: only neighbours are merged, and none beyond [`merge::MAX_DOCS`], so a segment's times
//! are close together and a search can go from the newest to the oldest and stop.
//!
//! # Life of a block
//! The [`runner`] reads the log from the cursor in the newest commit's payload on, leaves out
//! bare leaves and events already held ([`crate::store::Receipt::is_held`]), adds a document for
//! each event, and commits by time: soon after the first event when little comes, rarely when
//! much does. The payload (`from`, `next`) says which stretch of the log a partition holds; it is
//! written with the documents in one atomic rename, so after a crash at any instant the index
//! goes on where it stood, and no event is in it twice.
//!
//! # Failures
//! A partition that cannot be opened, of another format, or damaged is set aside
//! (`<day>.damaged`, the last one only) and its stretch of the log is read again. An event that
//! cannot be read is counted, warned of, and skipped. A full disk or an I/O error makes the runner
//! wait and begin again from the last commit. The evidence log is only ever read.
//!
//! # Removal
//! Events that have expired or were erased leave bare leaves in the log. Their days are then made
//! anew from the log beside those that are searched, and put in their place whole ([`remake`]):
//! no term of an event that is gone stays on the disk.
//!
//! # Budgets
//! Every question has a time ([`IndexOptions::search_limit_ms`], less if the question says so) and
//! bytes ([`IndexOptions::page_bytes`]). When its time is up it ends between two segments and
//! says what it has looked at ([`Cut`]); it never answers a part as if it were the whole. A page
//! that is full of bytes is merely shorter.
//!
//! # Order
//! Newest first by (time, place in the log, index in the block), all descending: total and
//! stable, so a page's cursor is the last hit's key and new events do not move what comes after.

use custody_event::{EventId, Timestamp};

use crate::query::filter::Filter;
use crate::store::{LogCursor, StoreError};

mod blocks;
mod embedded;
mod handle;
mod looking;
mod lower;
pub mod memory;
pub mod merge;
mod partition;
mod remake;
pub mod runner;
pub mod schema;
mod segments;
mod stats;
pub mod terms;
#[cfg(test)]
pub(crate) mod tests;

pub use blocks::OpenBlock;
pub use embedded::EmbeddedStore;
pub use handle::RunnerHandle;
pub(crate) use partition::has_term;
pub use runner::{Indexer, Progress};

/// Where an event is, and its place in the order of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HitKey {
    /// The event's time.
    pub time: Timestamp,
    /// Its block.
    pub at: LogCursor,
    /// Its index in the block.
    pub index: u32,
}

impl HitKey {
    /// As an opaque cursor for a query string.
    #[must_use]
    pub fn to_cursor(&self) -> String {
        format!("1.{}.{}.{}.{}", self.time.micros(), self.at.segment, self.at.offset, self.index)
    }

    /// Reads a cursor.
    #[must_use]
    pub fn from_cursor(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        if parts.next() != Some("1") {
            return None;
        }
        let key = Self {
            time: Timestamp::from_micros(parts.next()?.parse().ok()?),
            at: LogCursor {
                segment: parts.next()?.parse().ok()?,
                offset: parts.next()?.parse().ok()?,
            },
            index: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(key)
    }
}

/// Which way a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the newest event on.
    #[default]
    NewestFirst,
    /// From the oldest event on.
    OldestFirst,
}

/// A page that is asked for.
#[derive(Debug, Clone, Default)]
pub struct SearchRequest {
    /// What.
    pub filter: Filter,
    /// Events, at most; 1 to [`MAX_LIMIT`].
    pub limit: usize,
    /// Only what comes after this in the order.
    pub after: Option<HitKey>,
    /// Which way.
    pub direction: Direction,
    /// Is the total wanted?
    pub total: bool,
    /// Milliseconds that this search may take, if less than the usual.
    pub budget_ms: Option<u64>,
}

/// Where a question ended because its time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The time that it had.
    pub after_ms: u64,
    /// Which way it went.
    pub direction: Direction,
    /// Newest first: every event from this time on has been looked at. Oldest first: every event
    /// before this time.
    pub searched: Timestamp,
}

/// Events in a page, at most.
pub const MAX_LIMIT: usize = 1_000;

/// An event that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Where.
    pub key: HitKey,
    /// Its canonical JSON, byte for byte, unless redacted.
    pub event: Vec<u8>,
    /// Is it without parts that the one who asks may not see?
    pub redacted: bool,
}

/// How many there are in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Total {
    /// Events; at least so many, if not exact.
    pub value: u64,
    /// Have all been counted?
    pub exact: bool,
}

/// A page of events.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In order.
    pub hits: Vec<Hit>,
    /// Where to go on; `None` where there is nothing more.
    pub next: Option<HitKey>,
    /// How many in all, if asked for.
    pub total: Total,
    /// Where the search had to end; [`Self::next`] goes on there.
    pub cut: Option<Cut>,
}

/// What is counted apart: the values under a tag, or at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facet {
    /// Under a tag.
    Tag(terms::Tag),
    /// At a path, as in `details.provider`; folded.
    Field(String),
}

/// By what events are counted.
#[derive(Debug, Clone, Default)]
pub struct StatsRequest {
    /// Which events.
    pub filter: Filter,
    /// Counts by the values of this tag.
    pub group_by: Option<terms::Tag>,
    /// Counts by spans of this many microseconds.
    pub interval_micros: Option<i64>,
    /// Counts by the values of each of these, each apart.
    pub facets: Vec<Facet>,
    /// Milliseconds that counting may take, if less than the usual.
    pub budget_ms: Option<u64>,
}

/// Values with their counts, the most frequent first.
pub type Counts = Vec<(String, u64)>;

/// Counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events in all.
    pub total: u64,
    /// Value and count, the most frequent first, at most 1,000.
    pub groups: Vec<(String, u64)>,
    /// Start of the span and count, in order of time, spans without events left out.
    pub spans: Vec<(Timestamp, u64)>,
    /// For each facet that was asked for: values and counts, at most 1,000.
    pub facets: Vec<Counts>,
    /// A facet has more values than are told.
    pub more_values: bool,
    /// Where counting had to end: what is older is counted in part or not at all.
    pub cut: Option<Cut>,
}

/// Values that are asked for by their beginning.
#[derive(Debug, Clone, Default)]
pub struct SuggestRequest {
    /// Of which events.
    pub filter: Filter,
    /// Where the values stand; any of them.
    pub facets: Vec<Facet>,
    /// How they begin; folded.
    pub prefix: String,
    /// Values, at most; 1 to 100.
    pub limit: usize,
}

/// Values that begin as was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suggested {
    /// The most frequent first; folded.
    pub values: Counts,
    /// There are more, or there may be.
    pub more: bool,
}

/// Why the index cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// tantivy failed.
    #[error("the index: {0}")]
    Engine(#[from] tantivy::TantivyError),
    /// A file or folder of the index.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The evidence log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A block that the index names cannot be unpacked.
    #[error("evidence segment {segment}, block at byte {offset}: {reason}")]
    Block {
        /// Segment.
        segment: u64,
        /// Offset.
        offset: u64,
        /// Why.
        reason: String,
    },
    /// The search took too long.
    #[error("the search took longer than {limit_ms} ms; narrow the time range or add a filter")]
    TooLong {
        /// The limit.
        limit_ms: u64,
    },
    /// The request cannot be answered by an index.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A place beyond what the index can say.
    #[error("evidence segment {segment} at byte {offset} is beyond what the index can name")]
    Beyond {
        /// Segment.
        segment: u64,
        /// Offset.
        offset: u64,
    },
    /// Another process has the index.
    #[error("{path} is in use by another process; stop the collector first")]
    Busy {
        /// The lock.
        path: std::path::PathBuf,
    },
    /// The runner has ended, or could not do what it was asked to do.
    #[error("the index is not running, or an error in its log kept it from doing this; try again")]
    Stopped,
    /// The runner's thread could not be started.
    #[error("the index thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// Finds events. Blocking: call it where blocking is allowed.
///
/// Embedded now; a database server can stand behind the same questions.
pub trait EventStore: Send + Sync + 'static {
    /// A page of events.
    ///
    /// # Errors
    /// The index or the evidence log cannot be read, or the search takes too long.
    fn search(&self, request: &SearchRequest) -> Result<Page, IndexError>;

    /// The first event of this id that `sees` lets through, with its block: two tenants may have the
    /// same id.
    ///
    /// # Errors
    /// As for [`Self::search`].
    fn find(
        &self,
        id: EventId,
        sees: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Option<(Hit, OpenBlock)>, IndexError>;

    /// Counts.
    ///
    /// # Errors
    /// As for [`Self::search`]. Conditions that need the text (phrases) are counted by looking at
    /// each candidate.
    fn stats(&self, request: &StatsRequest) -> Result<Stats, IndexError>;

    /// Values that begin so, from the dictionaries of terms.
    ///
    /// # Errors
    /// As for [`Self::search`]; the filter may not need the text.
    fn suggest(&self, request: &SuggestRequest) -> Result<Suggested, IndexError>;

    /// Paths of fields that begin so (`details.`), at most `limit`.
    ///
    /// # Errors
    /// As for [`Self::search`].
    fn paths(&self, prefix: &str, limit: usize) -> Result<Vec<String>, IndexError>;

    /// How far into the evidence log events can be found: changes when more can.
    fn searchable(&self) -> tokio::sync::watch::Receiver<LogCursor>;
}

/// The index's bounds.
#[derive(Debug, Clone)]
pub struct IndexOptions {
    /// The folder `index` in the data directory.
    pub dir: std::path::PathBuf,
    /// Memory in which a segment is put together.
    pub arena_bytes: usize,
    /// Unpacked frames of blocks, kept for the next search.
    pub cache_bytes: usize,
    /// The latest that events become searchable after they came in, when little comes.
    pub commit_after_ms: u64,
    /// What fails (a full disk) is tried again after this; then after twice as long, and so on, up to
    /// half a minute.
    pub retry_after_ms: u64,
    /// A question ends after this, and says so.
    pub search_limit_ms: u64,
    /// Bytes of events in a page.
    pub page_bytes: usize,
}

impl IndexOptions {
    /// The usual bounds for an index in this folder.
    #[must_use]
    pub fn new(dir: impl Into<std::path::PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            arena_bytes: 64 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            commit_after_ms: 300,
            retry_after_ms: 1_000,
            search_limit_ms: 5_000,
            page_bytes: 16 * 1024 * 1024,
        }
    }
}

#[cfg(test)]
mod key_tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_others_are_refused() {
        let key = HitKey {
            time: Timestamp::from_micros(-5),
            at: LogCursor { segment: 3, offset: 77 },
            index: 12,
        };
        assert_eq!(HitKey::from_cursor(&key.to_cursor()), Some(key));
        for bad in ["", "1", "2.1.1.1.1", "1.1.1.1", "1.1.1.1.1.1", "1.x.1.1.1", "1.1.-1.1.1"] {
            assert_eq!(HitKey::from_cursor(bad), None, "{bad}");
        }
    }
}

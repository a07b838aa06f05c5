//! What the agent shows of itself: counters that any thread may read, and the answer of `status`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use custody_event::{SourceBook, Timestamp};
use serde::{Deserialize, Serialize};

/// Counts of one source since the agent started.
#[derive(Debug, Default)]
pub struct SourceCounters {
    read: AtomicU64,
    stored: AtomicU64,
    filtered: AtomicU64,
    unmatched: AtomicU64,
    gaps: AtomicU64,
    book: Mutex<SourceBook>,
}

impl SourceCounters {
    /// How the source's book stands in the newest batch.
    pub fn set_book(&self, book: SourceBook) {
        *self.book.lock().unwrap_or_else(PoisonError::into_inner) = book;
    }

    /// The book.
    #[must_use]
    pub fn book(&self) -> SourceBook {
        *self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a chunk counted.
    pub fn count(&self, book: &SourceBook, unmatched: u64) {
        self.read.fetch_add(book.read, Ordering::Relaxed);
        self.stored.fetch_add(book.stored, Ordering::Relaxed);
        self.filtered.fetch_add(book.filtered, Ordering::Relaxed);
        self.unmatched.fetch_add(unmatched, Ordering::Relaxed);
    }

    /// One more gap.
    pub fn count_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    #[must_use]
    pub fn snapshot(&self) -> SourceCounts {
        SourceCounts {
            read: self.read.load(Ordering::Relaxed),
            stored: self.stored.load(Ordering::Relaxed),
            filtered: self.filtered.load(Ordering::Relaxed),
            unmatched: self.unmatched.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
        }
    }
}

/// Counts of one source since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// Records read.
    pub read: u64,
    /// Events made of them.
    pub stored: u64,
    /// Records filtered by a named rule.
    pub filtered: u64,
    /// Events that no rule knew.
    pub unmatched: u64,
    /// Gap events.
    pub gaps: u64,
}

/// How an output is.
#[derive(Debug, Default)]
pub struct OutputState {
    inner: Mutex<OutputStatus>,
}

/// How an output is, as shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputStatus {
    /// The output's id.
    pub id: String,
    /// `connecting`, `delivering`, `waiting`; `refused` where the collector's history does not
    /// continue what it had shown: then nothing is sent until somebody decides.
    pub state: String,
    /// The endpoint in use.
    pub endpoint: String,
    /// Blocks before this one are acknowledged.
    pub next_seq: u64,
    /// Durable blocks that are not acknowledged.
    pub lag_blocks: u64,
    /// When the last block was acknowledged.
    pub last_ack: Option<Timestamp>,
    /// The newest trouble since then.
    pub trouble: Option<String>,
    /// When the next attempt will be made.
    pub retry_at: Option<Timestamp>,
    /// Attempts that failed since the agent started.
    pub failures: u64,
    /// This host's clock and the collector's are apart: how far, and what mends it.
    #[serde(default)]
    pub clock: Option<String>,
    /// Entries of the collector's log that have been shown and checked.
    #[serde(default)]
    pub log_size: u64,
}

impl OutputState {
    /// Of one output.
    #[must_use]
    pub fn new(id: &str, next_seq: u64) -> Arc<Self> {
        let status = OutputStatus {
            id: id.to_owned(),
            state: "connecting".into(),
            next_seq,
            ..OutputStatus::default()
        };
        Arc::new(Self { inner: Mutex::new(status) })
    }

    fn change(&self, change: impl FnOnce(&mut OutputStatus)) {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Blocks below `next_seq` are acknowledged.
    pub fn acknowledged(&self, next_seq: u64, endpoint: &str, at: Timestamp) {
        self.change(|status| {
            status.state = "delivering".into();
            status.next_seq = next_seq;
            status.last_ack = Some(at);
            status.trouble = None;
            status.retry_at = None;
            if status.endpoint != endpoint {
                status.endpoint = endpoint.to_owned();
            }
        });
    }

    /// An attempt failed.
    pub fn failed(&self, trouble: &str, endpoint: &str, _at: Timestamp) {
        self.change(|status| {
            if status.state == "refused" {
                // What keeps it from going on is what was said first.
                status.failures += 1;
                return;
            }
            status.state = "waiting".into();
            status.trouble = Some(trouble.to_owned());
            status.endpoint = endpoint.to_owned();
            status.failures += 1;
        });
    }

    /// The collector's log has shown so many entries.
    pub fn witnessed(&self, size: u64) {
        self.change(|status| status.log_size = size);
    }

    /// What is wrong with the clocks.
    pub fn clock(&self, trouble: Option<String>) {
        self.change(|status| status.clock = trouble);
    }

    /// The collector's history does not continue: nothing is sent.
    pub fn refused(&self, why: &str, endpoint: &str) {
        self.change(|status| {
            status.state = "refused".into();
            status.trouble = Some(why.to_owned());
            status.endpoint = endpoint.to_owned();
            status.retry_at = None;
        });
    }

    /// It is no longer refused.
    pub fn goes_on(&self) {
        self.change(|status| {
            status.state = "connecting".into();
            status.trouble = None;
        });
    }

    /// The next attempt comes after `wait`.
    pub fn waits_until(&self, now: Timestamp, wait: Duration) {
        let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        self.change(|status| status.retry_at = Some(now.plus_micros(micros)));
    }

    /// How it is now, seen from the durable end of the spool.
    #[must_use]
    pub fn snapshot(&self, durable_next_seq: u64) -> OutputStatus {
        let mut status = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.lag_blocks = durable_next_seq.saturating_sub(status.next_seq);
        status
    }
}

/// One source, as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The source's id.
    pub id: String,
    /// `file` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Counts since the agent started.
    pub since_start: SourceCounts,
    /// The books since the agent began to keep them.
    pub book: SourceBook,
    /// Files held open.
    pub files: u64,
    /// Bytes on disk that have not been read yet.
    pub behind_bytes: u64,
    /// The newest trouble, with its remedy.
    pub trouble: Option<String>,
}

/// The spool, as shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Blocks held.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bound.
    pub max_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// The next block that will be durable.
    pub durable_next_seq: u64,
    /// Since when the oldest block waits, milliseconds since the epoch.
    pub oldest_unsent_since_unix_ms: Option<u64>,
    /// Since when the spool is full.
    pub full_since_unix_ms: Option<u64>,
    /// Why nothing is appended now.
    pub waiting: Option<String>,
    /// The newest error.
    pub last_error: Option<String>,
    /// Times that the store was reopened after an error.
    pub reopened: u64,
    /// Damaged stores put aside.
    pub quarantined: u64,
    /// Bodies that a collector refused.
    pub dead_letters: u64,
}

/// The answer of `custody-agent status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The agent's id.
    pub agent: String,
    /// The host's name.
    pub host: String,
    /// The host's durable id.
    pub host_id: String,
    /// The stream.
    pub stream: String,
    /// Process id.
    pub pid: u32,
    /// When the agent started.
    pub started: Timestamp,
    /// When this was said.
    pub now: Timestamp,
    /// `running`, `draining`.
    pub state: String,
    /// The configuration file's path.
    pub config_path: String,
    /// SHA-256 of the configuration file.
    pub config_sha256: String,
    /// Configurations loaded at a reload since the start.
    #[serde(default)]
    pub config_loads: u64,
    /// Configurations refused at a reload since the start.
    #[serde(default)]
    pub config_refusals: u64,
    /// Why the newest reload was refused, while the file is not the one in force.
    #[serde(default)]
    pub config_trouble: Option<String>,
    /// Bytes of records on their way from a source to the disk.
    pub in_flight_bytes: u64,
    /// Sources.
    pub sources: Vec<SourceStatus>,
    /// The spool.
    pub spool: SpoolStatus,
    /// Outputs.
    pub outputs: Vec<OutputStatus>,
}

impl SpoolStatus {
    /// From the spool's own numbers.
    #[must_use]
    pub fn from_stats(stats: crate::spool::SpoolStats) -> Self {
        Self {
            blocks: stats.blocks,
            bytes: stats.bytes,
            max_bytes: stats.max_bytes,
            disk_bytes: stats.disk_bytes,
            free_bytes: stats.free_bytes,
            durable_next_seq: stats.durable_next_seq,
            oldest_unsent_since_unix_ms: stats.oldest_unsent_since_unix_ms,
            full_since_unix_ms: stats.full_since_unix_ms,
            waiting: stats.waiting,
            last_error: stats.last_error,
            reopened: stats.reopened,
            quarantined: stats.quarantined,
            dead_letters: stats.dead_letters,
        }
    }
}

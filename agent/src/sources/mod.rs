//! Sources: where records come from.
//!
//! A source runs on a thread of its own, reads whole records, and hands them on as [`Chunk`]s
//! together with the position that each chunk advances to. It knows nothing of rules, blocks or
//! the network. What it has handed on is durable only when the pipeline has committed it; after a
//! restart it is given the positions that were committed ([`Saved`]) and goes on from there.
//!
//! **Limits.** A chunk holds at most [`MAX_CHUNK_BYTES`] and [`MAX_CHUNK_RECORDS`]; the channel to
//! the pipeline is bounded in bytes by [`Outlet`], which blocks: that is the back-pressure.
//!
//! **Failures.** What a source cannot read it says, as a [`Notice`]: lost bytes are a gap event
//! in the stream, in order with the records around them.

pub mod batch;
pub mod encoding;
pub mod file;
pub mod journal;
pub(crate) mod refusals;
pub mod syslog;
pub mod tls;
pub mod webhook;

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use custody_event::{FileIdentity, Offset, Timestamp};
use serde::{Deserialize, Serialize};

pub use encoding::Encoding;

pub use batch::{Kept, Known, Mark, Place, Promise, RecordBatch, SaidBy, SavedMarks, Way};

/// Bytes of records in one chunk, at most.
pub const MAX_CHUNK_BYTES: usize = 256 * 1024;
/// Records in one chunk, at most: a chunk never needs more than one block.
pub const MAX_CHUNK_RECORDS: usize = 1_000;
/// Bytes before an offset whose hash is kept with it: an offset is never trusted without them.
pub const TAIL_BYTES: usize = 256;

/// A source's number in the running configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceIndex(pub u16);

/// How a chunk's bytes are cut into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Every record ends with `\n` (a `\r` before it belongs to the ending).
    Lines,
    /// The records stand where [`Chunk::spans`] says.
    Spans,
    /// The whole chunk is one piece of a line that is longer than the limit; pieces are numbered
    /// from 0, and the last one has lost its line end.
    Segment {
        /// Number of the piece.
        number: u32,
    },
    /// The last line of a file that will not grow any more and has no `\n` at its end.
    Unterminated,
}

/// Where one record stands in its chunk, which holds the records one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub begin: usize,
    /// One beyond its last byte: line ends within it belong to it, the one behind it does not.
    pub text_end: usize,
    /// Where the next record may begin.
    pub end: usize,
}

/// A file as the records' envelope shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    /// Which generation of which file.
    pub identity: FileIdentity,
    /// Where it stood when it was opened.
    pub path: String,
}

/// A run of whole records of one source.
#[derive(Debug)]
pub struct Chunk {
    /// Whose.
    pub source: SourceIndex,
    /// From where.
    pub file: Arc<FileRef>,
    /// Logical offset of `bytes[0]`.
    pub from: Offset,
    /// The records with their line ends.
    pub bytes: Vec<u8>,
    /// How the bytes are cut into records.
    pub framing: Framing,
    /// For [`Framing::Spans`], else empty: the last one ends with the bytes.
    pub spans: Vec<Span>,
    /// How the bytes are text.
    pub encoding: Encoding,
    /// When they were read.
    pub observed: Timestamp,
    /// Where the file stands after them.
    pub after: FilePosition,
}

/// Where a file source stands in one generation of one file: the durable position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePosition {
    /// Which generation of which file.
    pub identity: FileIdentity,
    /// Next byte to read.
    pub offset: Offset,
    /// Number of the next piece, if the offset stands within an over-long line.
    pub segment: u32,
    /// Path at the last look (a hint for people and for the search after a rename).
    pub path: String,
    /// Fingerprint of the up to [`TAIL_BYTES`] bytes before the offset.
    pub tail: custody_event::position::Fingerprint,
    /// Modification time at the last read, nanoseconds since the epoch.
    pub modified_ns: i64,
}

/// What goes through the outlet, in order.
#[derive(Debug)]
pub enum Item {
    /// Lines of a file.
    Records(Chunk),
    /// Records that are not lines of a file.
    Batch(RecordBatch),
    /// What a source remembers, without records.
    Marks {
        /// Whose.
        source: SourceIndex,
        /// The marks.
        marks: Vec<Mark>,
    },
    /// A file is gone and read to its end: its position may be forgotten.
    Forget {
        /// Whose.
        source: SourceIndex,
        /// Which position.
        identity: FileIdentity,
    },
    /// A position without records (a new file seen, a file renamed).
    Moved {
        /// Whose.
        source: SourceIndex,
        /// The new position.
        position: FilePosition,
    },
    /// Something was lost or could not be read: becomes a gap event.
    Gap(Notice),
    /// Somebody was turned away: becomes a security event.
    Refused(Refused),
}

/// Senders were turned away, so many since the last time that it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Whose.
    pub source: SourceIndex,
    /// `bad_signature`, `too_many_connections` …: lower case, stable, for machines.
    pub code: &'static str,
    /// One sentence for people.
    pub text: String,
    /// Where: the endpoint's path, or the address that is listened on.
    pub endpoint: String,
    /// The newest of them.
    pub peer: Option<std::net::SocketAddr>,
    /// How many.
    pub count: u64,
    /// When it was noticed.
    pub observed: Timestamp,
}

/// Something was lost or could not be read: this much, for this reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whose.
    pub source: SourceIndex,
    /// `file_lost`, `truncated_unread`, `unreadable` …: lower case, stable, for machines.
    pub code: &'static str,
    /// One sentence for people.
    pub text: String,
    /// The file, if there is one.
    pub path: Option<String>,
    /// First byte lost, where it is known.
    pub from: Option<Offset>,
    /// Bytes lost, where it is known.
    pub bytes: Option<u64>,
    /// Records lost, where it is known: they count in the source's book, as read and as gap.
    pub records: Option<u64>,
    /// When it was noticed.
    pub observed: Timestamp,
    /// The position after it, where the file goes on.
    pub after: Option<FilePosition>,
    /// What the source remembers with it: the position after it, where there is no file.
    pub marks: Vec<Mark>,
}

impl Notice {
    /// Something of this source; how much, and where, is not known.
    #[must_use]
    pub fn new(source: SourceIndex, code: &'static str, text: String, observed: Timestamp) -> Self {
        Self {
            source,
            code,
            text,
            path: None,
            from: None,
            bytes: None,
            records: None,
            observed,
            after: None,
            marks: Vec::new(),
        }
    }
}

/// A committed position, given back to a source at its start.
pub type Saved = Vec<FilePosition>;

/// The pipeline stopped taking items: the source should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has stopped")]
pub struct Stopped;

/// Where a source puts what it has read. Blocks while the pipeline is full.
pub trait Outlet: Send {
    /// Hands one item on, waiting for room.
    ///
    /// # Errors
    /// The pipeline has stopped.
    fn put(&mut self, item: Item) -> Result<(), Stopped>;
    /// Should the source end?
    fn is_stopped(&self) -> bool;
    /// Waits for a wake-up (something changed on disk) or until the time is over; true if the
    /// source should end.
    fn is_stopped_after(&self, wait: std::time::Duration) -> bool;
}

/// Why an item was not taken.
#[derive(Debug)]
pub enum NotTaken {
    /// There is no room now.
    Full(Box<Item>),
    /// The pipeline has stopped.
    Stopped,
}

/// Where a source puts what it has read if it cannot wait: whoever sent it waits for an answer.
pub trait Hatch: Send + Sync {
    /// Hands one item on, or gives it back.
    ///
    /// # Errors
    /// There is no room, or the pipeline has stopped.
    fn offer(&self, item: Item) -> Result<(), NotTaken>;
    /// Does the spool take nothing at the moment?
    fn is_full(&self) -> bool;
}

/// Where a running source leaves its [`SourceState`].
pub type SharedSourceState = std::sync::Mutex<SourceState>;

/// What a source shows of itself, readable from any thread.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct SourceState {
    /// Files held open.
    pub files: u64,
    /// Bytes on disk that have not been read yet, over all files.
    pub behind_bytes: u64,
    /// The newest trouble, with its remedy.
    pub trouble: Option<String>,
    /// How large each file was at the last look, where it stood.
    #[serde(skip)]
    pub sizes: Vec<SeenSize>,
}

/// A file at the last look. A source that waits for a full spool does not look; whoever asks for
/// its state does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSize {
    /// Where it stood.
    pub path: std::path::PathBuf,
    /// Its inode's number: another file may stand there now.
    pub ino: u64,
    /// In bytes.
    pub size: u64,
}

impl SourceState {
    /// Adds to `behind_bytes` what the files have grown by since the last look.
    #[must_use]
    pub fn looked_at_now(mut self) -> Self {
        for seen in &self.sizes {
            let now = std::fs::metadata(&seen.path);
            if let Ok(now) = now.as_ref()
                && now.ino() == seen.ino
            {
                let grown = now.len().saturating_sub(seen.size);
                self.behind_bytes = self.behind_bytes.saturating_add(grown);
            }
        }
        self
    }
}

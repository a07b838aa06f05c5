//! Exports: what a search finds, as a file, made in the background.
//!
//! # Life of an export
//! [`api`] takes a request, holds it against the quotas and writes it down as *queued*. A worker
//! ([`work`]) takes the oldest one, notes the end of the evidence log as its bound, waits until
//! the index has come so far, and pages through what the search finds below the bound, oldest
//! first ([`job`]). The rows go through a [`Form`] into `<data_dir>/exports/<id>.<ext>.part`
//! ([`part`]), which is renamed when it is whole. A bundle goes through the transparency log
//! instead, entry by entry ([`bundle`]). After `exports.keep` the file goes; the entry in the
//! history stays.
//!
//! # Resuming
//! Every [`PAUSE_EVERY`] the part is synced, and then cursor, length, hashes and the form's own
//! state are written into `collector.db`. After a crash at any instant the part is cut to that
//! length and the export goes on there. Neither the bound nor anything else that is written
//! depends on when that was, so the file is the same byte for byte.
//!
//! # Limits
//! A page of the search, a form's buffer (at most 16 MiB and one event), the frames that
//! the index keeps. `exports.max_bytes` for a file, `exports.max_total_bytes` for all of them, space that is
//! left to the evidence ([`room`]): what would be archived or refused for want of it comes first.
//! [`MAX_WAITING`] exports that wait, [`MAX_HISTORY`] entries in the history.
//!
//! # Failures
//! A search that fails is asked again a few times; then the export has *failed*, and says why. A
//! full disk fails the export before it touches what the evidence needs.

mod api;
mod ask;
mod bundle;
mod cells;
mod csv;
mod download;
mod job;
mod json;
mod parquet;
mod part;
mod pdf;
mod proof;
mod room;
mod schedule;
mod table;
#[cfg(test)]
mod tests;
mod work;

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use custody_event::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::Scope;
use crate::index::IndexError;
use crate::store::{LogCursor, StoreError};
use crate::tlog::TlogError;

pub use api::router;
pub use room::Room;
pub use work::{Exports, Options, Source};

use part::Part;

/// How often progress is written down.
const PAUSE_EVERY: Duration = Duration::from_secs(2);
/// Exports that wait, over all who ask.
const MAX_WAITING: u64 = 200;
/// Finished exports that are remembered.
const MAX_HISTORY: u64 = 10_000;

/// What the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// RFC 4180.
    Csv,
    /// One array.
    Json,
    /// The canonical bytes, a line each.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// For people.
    Pdf,
    /// For `custody-verify`.
    Bundle,
}

impl Format {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Csv, Self::Json, Self::Ndjson, Self::Parquet, Self::Pdf, Self::Bundle];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Pdf => "pdf",
            Self::Bundle => "bundle",
        }
    }

    /// From its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The end of the file's name.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Bundle => "custody",
            other => other.name(),
        }
    }

    /// The type that the download says.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Pdf => "application/pdf",
            Self::Bundle => "application/octet-stream",
        }
    }
}

/// In whose words the events stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Words {
    /// Our own: the canonical event.
    #[default]
    Custody,
    /// The Open Cybersecurity Schema Framework's.
    Ocsf,
    /// The Elastic Common Schema's.
    Ecs,
}

impl Words {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Custody, Self::Ocsf, Self::Ecs];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Custody => "custody",
            Self::Ocsf => "ocsf",
            Self::Ecs => "ecs",
        }
    }

    /// Is there such a file?
    #[must_use]
    pub const fn fits(self, format: Format) -> bool {
        match self {
            Self::Custody => true,
            Self::Ocsf => matches!(format, Format::Json | Format::Ndjson | Format::Parquet),
            Self::Ecs => matches!(format, Format::Json | Format::Ndjson),
        }
    }

    /// The canonical event in these words, as JSON.
    fn of(self, event: &[u8]) -> Result<Cow<'_, [u8]>, ExportError> {
        let form = match self {
            Self::Custody => return Ok(event.into()),
            Self::Ocsf => custody_event::ocsf::form(event),
            Self::Ecs => custody_event::ecs::form(event),
        };
        let form = form.map_err(|error| ExportError::Event(error.to_string()))?;
        Ok(form.to_string().into_bytes().into())
    }
}

/// How it stands with an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It waits.
    Queued,
    /// It is being made.
    Running,
    /// The file is there.
    Completed,
    /// It could not be made.
    Failed,
    /// The file was there.
    Expired,
}

impl Status {
    const ALL: [Self; 5] =
        [Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Expired];

    const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// What was asked for; never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Spec {
    name: String,
    format: Format,
    /// The search line.
    q: String,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// CSV: begin with a byte order mark.
    bom: bool,
    /// In whose words.
    #[serde(default, rename = "form")]
    words: Words,
    /// What its maker may see: an event must be within all of these.
    #[serde(default)]
    scopes: Vec<Scope>,
    /// The schedule that it is a run of.
    #[serde(default)]
    schedule: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
    expires: Option<Timestamp>,
    rows: u64,
    rows_total: Option<u64>,
    bytes: u64,
    sha256: Option<String>,
    error: Option<String>,
    /// Only blocks before this place of the evidence log.
    bound: Option<LogCursor>,
    /// The signed checkpoint of the log when it began.
    checkpoint: Option<String>,
    /// The signed proof.
    proof: Option<String>,
}

/// An export.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    id: String,
    created: Timestamp,
    created_by: String,
    status: Status,
    spec: Spec,
    told: Told,
}

/// Where an export that is being made can be taken up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// The last row's place in the order, or the next entry of the log.
    after: String,
    /// Rows so far.
    rows: u64,
    /// The part as it was synced.
    part: part::Mark,
    /// The hash over the canonical events so far.
    content: String,
    /// The form's own.
    state: serde_json::Value,
}

/// What a file is made for and from: a PDF says it on its pages.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heading {
    name: String,
    query: String,
    from: String,
    to: String,
    created_by: String,
    created: Timestamp,
    /// The log's name.
    origin: String,
    checkpoint: String,
}

/// What is known at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Totals {
    rows: u64,
    /// SHA-256 over the canonical events, each with its line end, in whosever words the file is: an
    /// NDJSON export's in our own.
    content_sha256: String,
}

/// Turns events into a file, in their order and in bounded memory. What it writes depends on the
/// events alone, never on where it was paused.
trait Form: Send {
    /// What stands before the first row.
    fn begin(&mut self, out: &mut Part) -> Result<(), ExportError>;
    /// One event's canonical bytes.
    fn row(&mut self, event: &[u8], out: &mut Part) -> Result<(), ExportError>;
    /// What [`Self::resume`] needs beside the file as it is now; `None` where it cannot be left
    /// just here.
    fn pause(&self) -> Option<serde_json::Value> {
        Some(serde_json::Value::Null)
    }
    /// Goes on where another stood.
    fn resume(&mut self, _state: serde_json::Value) -> Result<(), ExportError> {
        Ok(())
    }
    /// What stands behind the last row.
    fn end(&mut self, _totals: &Totals, _out: &mut Part) -> Result<(), ExportError> {
        Ok(())
    }
}

fn form(spec: &Spec, heading: Heading, group_rows: u32) -> Result<Box<dyn Form>, ExportError> {
    Ok(match spec.format {
        Format::Csv => Box::new(csv::Csv::new(spec.bom)),
        Format::Json => Box::new(json::Json::new(spec.words)),
        Format::Ndjson => Box::new(json::Ndjson(spec.words)),
        Format::Parquet => Box::new(parquet::Parquet::new(&heading, spec.words, group_rows)),
        Format::Pdf => Box::new(pdf::Pdf::new(heading)?),
        Format::Bundle => return Err(ExportError::Unavailable("a bundle is made of the log")),
    })
}

/// Why an export cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite.
    #[error("{path}: {source}")]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The evidence log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transparency log.
    #[error(transparent)]
    Tlog(#[from] TlogError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] custody_evidence::bundle::BundleError),
    /// The file would be too long.
    #[error(
        "the file would be longer than {max_bytes} bytes (`exports.max_bytes`); ask for a shorter \
         time or less of it"
    )]
    TooLong {
        /// The bound.
        max_bytes: u64,
    },
    /// The disk is nearly full.
    #[error(
        "the disk of the data directory has only {free_bytes} bytes left; exports leave \
         {min_free_bytes} to the evidence"
    )]
    NoRoom {
        /// What is left.
        free_bytes: u64,
        /// What must be left.
        min_free_bytes: u64,
    },
    /// Exports take all that they may.
    #[error(
        "all exports together take {max_total_bytes} bytes, which is all that they may \
         (`exports.max_total_bytes`); delete some, or wait until they expire"
    )]
    Full {
        /// The bound.
        max_total_bytes: u64,
    },
    /// An event cannot be written in this format.
    #[error("an event cannot be written: {0}")]
    Event(String),
    /// What is written down of an export cannot be read.
    #[error("what is known of the export cannot be read: {0}")]
    Table(String),
    /// This collector cannot make it.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The collector ends; the export goes on at the next start.
    #[error("the collector ends")]
    Stopped,
    /// Somebody has deleted it.
    #[error("it was deleted")]
    Deleted,
}

impl ExportError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// A count of bytes or rows as the wide number that it is.
fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

//! The file source: follows growing files through every kind of rotation, and loses nothing.
//!
//! **What is true.** A scan once a second (patterns → directories → `statx`) is the truth; the
//! kernel's notifications only wake the reader sooner. Files are held open and read with `pread`
//! at byte offsets; lines are cut here. A line without its end is not consumed.
//!
//! **Identity.** A content is named by inode, birth time, the fingerprint of its first record and
//! a generation (see [`custody_event::position`]). It has no name, and nothing is read of it,
//! before its first record is complete (or 1,024 bytes of it are there).
//!
//! **An offset is never trusted.** Each batch is read together with the up to 256 bytes before
//! it; if those or the first record are not what they were, the content was replaced: the old one
//! is searched for beside the path, by inode and by its bytes (also in gzip and zstd files), and
//! read to its end under its own identity; then the new one is begun, as a new generation.
//!
//! **Life of a content.** new → named → read → moved (renamed, deleted, copied away) → quiet →
//! *finished*: its position stays, marked, as long as any form of it exists, so that no copy of
//! it is ever read again; then it is forgotten. What was read on is `Records`; choices that must
//! be durable without records (a start at the end, an end) are `Moved`.
//!
//! **Marks in positions.** `segment` is [`u32::MAX`] for a finished content, one less where the
//! rest of a line is to be left out. A position without inode and path says only that the source
//! has been started before.
//!
//! **Limits.** A chunk: 256 KiB, 1,000 records. A line: `max_line_bytes`, longer ones in numbered
//! pieces. Open files: `max_open_files`, plus those that have been moved and are still read.
//! One read buffer of 256 KiB in all. Finished contents: 64 a path.
//!
//! **Failures.** What cannot be opened or read is said as trouble, with the remedy, and tried
//! again; nothing is skipped for it. What is gone for good is a gap. What cannot be known: bytes
//! written and truncated away between two looks; and a file that is emptied and rewritten between
//! two looks with the same first record and the same 256 bytes before our offset looks unchanged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use custody_event::Clock;

use super::{Encoding, MAX_CHUNK_BYTES, Outlet, Saved, SharedSourceState, SourceIndex, Stopped};

use cut::Cutter;

mod content;
mod copies;
mod cut;
mod multiline;
mod names;
mod read;
mod reader;
mod retire;
mod scan;
mod search;
mod stat;
mod tailer;
mod wake;
mod walk;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

pub use multiline::{Multiline, MultilineRule};
/// Looks which files patterns mean now, and what cannot be looked at.
///
/// # Errors
/// A pattern is none.
pub(crate) fn look(paths: &[String], exclude: &[String]) -> Result<walk::Found, globset::Error> {
    Ok(walk::Walk::new(paths, exclude)?.look())
}

pub use tailer::{Progress, Tailer};
pub use wake::Waker;

/// Shortest line limit: the first record's fingerprint is taken over so many bytes.
const MIN_LINE_BYTES: usize = custody_event::position::FINGERPRINT_BYTES;
/// Between two rounds that a notification asked for: bounds the rounds while a writer is busy.
const ROUND_PAUSE: Duration = Duration::from_millis(3);
/// Between two scans that notifications asked for, at least (four times as long as a scan takes, if
/// that is more): a busy directory must not keep us looking at it.
const SCAN_SPACING: Duration = Duration::from_millis(10);
/// A scan of many files that only makes sure takes at most one part in so many of the time.
const IDLE_SCAN_SHARE: u32 = 200;
/// Time between two scans that only make sure, at most: of so many files that one takes longer than 0.3 s.
const MAX_IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// Between two times that the source's state is shown, at least, while it only reads many files.
const SHOW_PAUSE: Duration = Duration::from_millis(200);
/// How long a request to stop may go unnoticed while nothing happens.
const STOP_CHECK: Duration = Duration::from_millis(200);

/// Where the first start of a source begins in the files that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With what is there.
    #[default]
    Beginning,
    /// With what comes.
    End,
}

/// How the files' bytes are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileEncoding {
    /// One for all files.
    Fixed(Encoding),
    /// UTF-16 whose byte order each file's first two bytes say; without them, the lower byte first.
    Utf16,
}

impl Default for FileEncoding {
    fn default() -> Self {
        Self::Fixed(Encoding::Utf8)
    }
}

/// What to read, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// Patterns: `*` and `?` within a directory, `**` over directories, `{a,b}`, `[a-z]`.
    /// Relative ones are meant from the working directory.
    pub paths: Vec<String>,
    /// Patterns of what is left out; one without a slash is meant for the name.
    pub exclude: Vec<String>,
    /// For files that are there at the very first start. Files that appear later are read whole.
    pub start: Start,
    /// A longer line comes in pieces of this many bytes: 1,024 to 256 KiB, default 16 KiB.
    pub max_line_bytes: usize,
    /// Time between two scans, default 1 s. On file systems without notifications (NFS) it is
    /// the delay after which a line is seen.
    pub scan_interval: Duration,
    /// Files held open while nothing happens in them, default 512.
    pub max_open_files: usize,
    /// Listen to the kernel's notifications (default); otherwise scan only.
    pub notifications: bool,
    /// How the bytes are text.
    pub encoding: FileEncoding,
    /// Records of several lines; `None`: every line is a record.
    pub multiline: Option<Multiline>,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            exclude: Vec::new(),
            start: Start::Beginning,
            max_line_bytes: 16 * 1024,
            scan_interval: Duration::from_secs(1),
            max_open_files: 512,
            notifications: true,
            encoding: FileEncoding::default(),
            multiline: None,
        }
    }
}

impl FileOptions {
    fn cutter(&self) -> Result<Cutter, SourceError> {
        let Some(multiline) = &self.multiline else {
            return Ok(Cutter { max: self.max_line_bytes, rule: None });
        };
        let rule = multiline::Rule::of(&multiline.rule)
            .map_err(|error| SourceError::Rule { text: error.to_string() })?;
        Ok(Cutter { max: multiline.max_bytes, rule: Some(rule) })
    }

    fn checked(mut self) -> Result<Self, SourceError> {
        if !(MIN_LINE_BYTES..=MAX_CHUNK_BYTES - 1).contains(&self.max_line_bytes) {
            return Err(SourceError::LineLimit { found: self.max_line_bytes });
        }
        if let Some(multiline) = &self.multiline
            && !(MIN_LINE_BYTES..=MAX_CHUNK_BYTES / 2).contains(&multiline.max_bytes)
        {
            return Err(SourceError::RecordLimit { found: multiline.max_bytes });
        }
        for path in &mut self.paths {
            let absolute = std::path::absolute(Path::new(path.as_str()))
                .map_err(|error| SourceError::Pattern { text: format!("{path:?}: {error}") })?;
            let text = absolute.into_os_string().into_string();
            *path = text.map_err(|_| SourceError::Pattern { text: format!("{path:?}: the working directory's name is not UTF-8; write the pattern with its whole path") })?;
        }
        Ok(self)
    }
}

/// Why a file source cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A pattern is none.
    #[error("bad path pattern: {text}")]
    Pattern {
        /// What is wrong with it.
        text: String,
    },
    /// The line limit is out of range.
    #[error("max_line_bytes is {found}; it must be 1024 to {}", MAX_CHUNK_BYTES - 1)]
    LineLimit {
        /// The value.
        found: usize,
    },
    /// The limit of records of several lines is out of range.
    #[error("multiline.max_bytes is {found}; it must be 1024 to {}", MAX_CHUNK_BYTES / 2)]
    RecordLimit {
        /// The value.
        found: usize,
    },
    /// The pattern of records of several lines is none.
    #[error("bad pattern of multiline: {text}")]
    Rule {
        /// What is wrong with it.
        text: String,
    },
}

/// A file source, ready to run.
pub struct FileSource {
    options: FileOptions,
    source: SourceIndex,
    clock: Arc<dyn Clock>,
    waker: Waker,
    bell: wake::Bell,
}

impl FileSource {
    /// A source that reads what `options` say.
    ///
    /// # Errors
    /// A pattern or a limit is wrong.
    pub fn new(
        options: FileOptions,
        source: SourceIndex,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SourceError> {
        walk::Walk::new(&options.paths, &options.exclude)
            .map_err(|error| SourceError::Pattern { text: error.to_string() })?;
        options.clone().checked()?.cutter()?;
        let (waker, bell) = wake::bell();
        Ok(Self { options, source, clock, waker, bell })
    }

    /// Wakes the running source from any thread, for instance so that it sees at once that it is
    /// to stop.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Reads until the pipeline stops. Blocks: belongs on a thread of its own.
    ///
    /// # Errors
    /// A pattern or a limit is wrong.
    pub fn run(
        self,
        saved: Saved,
        outlet: &mut dyn Outlet,
        state: &SharedSourceState,
    ) -> Result<(), SourceError> {
        let interval = self.options.scan_interval;
        let notifications = self.options.notifications;
        let mut tailer = Tailer::new(self.options, self.source, Arc::clone(&self.clock), saved)?;
        let mut watch = wake::Watch::new(&self.waker, notifications);
        let Err(Stopped) = follow(
            &mut tailer,
            &mut watch,
            &self.bell,
            self.clock.as_ref(),
            interval,
            outlet,
            state,
        );
        Ok(())
    }
}

fn follow(
    tailer: &mut Tailer,
    watch: &mut wake::Watch,
    bell: &wake::Bell,
    clock: &dyn Clock,
    interval: Duration,
    outlet: &mut dyn Outlet,
    state: &SharedSourceState,
) -> Result<std::convert::Infallible, Stopped> {
    let mut scans = Scans { interval, next: Duration::ZERO, soonest: Duration::ZERO };
    let mut shown = Shown { at: Duration::ZERO, is_stale: false };
    loop {
        if bell.take_structure() {
            scans.hurry();
        }
        let touched = bell.take_touched();
        let now = clock.monotonic();
        let progress = if now >= scans.next {
            let progress = tailer.step(outlet)?;
            watch.follow(tailer.watched_dirs());
            scans.done(now, clock.monotonic(), watch.is_whole() && tailer.is_settled());
            shown.is_stale = true;
            shown.at = Duration::ZERO;
            progress
        } else if touched.all {
            tailer.read(outlet)?
        } else {
            let (progress, all_known) = tailer.read_touched(&touched.paths, outlet)?;
            if !all_known {
                scans.not_later_than(now.saturating_add(interval));
            }
            progress
        };
        shown.is_stale |= progress != Progress::default();
        if shown.is_stale && now >= shown.at {
            publish(tailer, watch, state);
            // A reader that then waits for room stays as it was shown: of few files, as they are.
            let pause = if tailer.is_small() { Duration::ZERO } else { SHOW_PAUSE };
            shown = Shown { at: now.saturating_add(pause), is_stale: false };
        }
        if progress.rescan {
            scans.hurry();
        }
        if !progress.more {
            let mut next = scans.next;
            next = tailer.next_flush().map_or(next, |flush| next.min(flush));
            next = if shown.is_stale { next.min(shown.at) } else { next };
            rest(bell, clock, next, outlet)?;
        }
    }
}

/// When what is shown was last brought up to date.
struct Shown {
    /// Not again before.
    at: Duration,
    is_stale: bool,
}

/// When to scan.
struct Scans {
    interval: Duration,
    next: Duration,
    /// Not before, whatever notifications say.
    soonest: Duration,
}

impl Scans {
    fn hurry(&mut self) {
        self.next = self.next.min(self.soonest);
    }

    fn not_later_than(&mut self, at: Duration) {
        self.next = self.next.min(at.max(self.soonest));
    }

    /// A scan took from `began` to `ended`. Where it would find nothing that no notification has
    /// told, it may come later: it must not cost more than a small share of the time.
    fn done(&mut self, began: Duration, ended: Duration, is_told: bool) {
        let cost = ended.saturating_sub(began);
        self.soonest = ended.saturating_add(SCAN_SPACING.max(cost * 4));
        let idle = (cost * IDLE_SCAN_SHARE).min(MAX_IDLE_INTERVAL);
        let interval = if is_told { self.interval.max(idle) } else { self.interval };
        self.next = ended.saturating_add(interval);
    }
}

/// Waits for a notification or the time of the next look; at least a short pause, so that a busy writer makes
/// batches and not rounds.
fn rest(
    bell: &wake::Bell,
    clock: &dyn Clock,
    next_look: Duration,
    outlet: &dyn Outlet,
) -> Result<(), Stopped> {
    if outlet.is_stopped_after(ROUND_PAUSE) {
        return Err(Stopped);
    }
    loop {
        let left = next_look.saturating_sub(clock.monotonic());
        let rung = bell.wait(left.min(STOP_CHECK));
        if outlet.is_stopped() {
            return Err(Stopped);
        }
        if rung || clock.monotonic() >= next_look {
            return Ok(());
        }
    }
}

fn publish(tailer: &Tailer, watch: &wake::Watch, state: &SharedSourceState) {
    let mut now = tailer.state();
    if now.trouble.is_none() {
        now.trouble = watch.trouble();
    }
    let mut shown = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *shown != now {
        *shown = now;
    }
}

/// One sentence for people: what cannot be read, why, and what helps.
fn trouble(path: &Path, error: &std::io::Error) -> String {
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "let the agent's user read it (for instance by its group, or setfacl -m u:custody-agent:r); it is tried again at every scan and nothing is skipped"
        }
        _ if error.raw_os_error() == Some(24) || error.raw_os_error() == Some(23) => {
            "raise the limit of open files (LimitNOFILE) or lower max_open_files"
        }
        _ => "check the disk or the mount; it is tried again and nothing is skipped",
    };
    format!("{}: {error}: {remedy}", path.display())
}

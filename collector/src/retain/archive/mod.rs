//! Copies of closed segments outside the data directory, and the way back.
//!
//! # Where
//! On a shelf ([`Shelf`]): a directory ([`dir`]) or a bucket of S3 ([`s3`]). Each keeps for every
//! segment one copy, with its length and its SHA-256.
//!
//! # What it holds
//! A segment is copied before it loses anything, so the copy has all that the log ever had of it,
//! but for what is erased: erasure reaches the archive. Restored segments take the place of the ones
//! that have expired, are found by searches, and do not expire again until they are released.

mod dir;
mod s3;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use custody_config::collector::ArchiveConfig;
use custody_event::{Clock, Digest, Timestamp};
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(super) use dir::digest_of;
pub use s3::S3Error;

use super::holds::Holds;
use super::scan::{Going, Seen, each_event};
use super::tries::Tries;
use super::{Retain, RetainError};
use crate::own::RetainAct;
use crate::store::evidence::{Segment, begun_of, make_sparse};

/// A segment in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// Its number.
    pub segment: u64,
    /// Its file in the day's folder, or its object's name.
    pub file: String,
    /// The file's length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// When it was copied.
    pub archived: String,
    /// How often the copy's segment had been written anew; manifests of before do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The day on which it was begun.
    #[serde(default)]
    pub day: String,
    /// Is it in search again?
    #[serde(default)]
    pub restored: bool,
}

/// What a restoration did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Segments that are in search again.
    pub segments: Vec<u64>,
}

/// A copy as a file here. One that was fetched is removed when this is dropped.
pub(super) struct Copied {
    path: PathBuf,
    is_ours: bool,
}

impl Copied {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if self.is_ours {
            for path in [self.path.clone(), self.path.with_extension("idx")] {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        log::warn!(path:% = path.display(), error:% = error;
                            "a fetched copy cannot be removed; the next start does it");
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Where copies stand, one for each segment.
pub(super) trait Shelf: Send + Sync {
    /// What stands there, in any order.
    fn list(&self) -> Result<Vec<Archived>, RetainError>;
    /// The copy of this segment, as far as the shelf's own books say; they may be wrong.
    fn find(&self, segment: &Segment) -> Result<Option<Archived>, RetainError>;
    /// Copies the segment, which has no copy yet, durably.
    fn put(&self, segment: &Segment) -> Result<Archived, RetainError>;
    /// Reads the copy: it must have the checksum that is known of it, and be one of this segment.
    fn check(&self, known: &Archived, segment: &Segment) -> Result<(), RetainError>;
    /// The copy of this segment, compared with its checksum.
    fn fetch(&self, known: &Archived, segment: &Segment) -> Result<Copied, RetainError>;
    /// The copy to be counted in: what its checksum says of it may be late by an erasure.
    fn peek(&self, known: &Archived) -> Result<Copied, RetainError>;
    /// The copy with its sidecar, to be written anew where it stands; compared with its checksum.
    fn open(&self, known: &Archived) -> Result<Copied, RetainError>;
    /// What was opened has been written anew: that is the copy from now on, and the one before goes.
    fn replace(&self, known: &Archived, copy: &Copied) -> Result<(), RetainError>;
    /// Removes what a crash left: copies that nobody knows, halves, and copies in whose place there is
    /// another; ends what it broke off. `live` are the closed segments of the log. Gives how many copies
    /// stay because they are locked.
    fn tidy(&self, live: &[Segment]) -> Result<u64, RetainError>;
}

/// What a shelf is given.
pub(super) struct Around<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) clock: Arc<dyn Clock>,
    /// Ends transfers.
    pub(super) stopping: Arc<AtomicBool>,
}

/// The shelf that the configuration names.
pub(super) fn shelf(
    config: &ArchiveConfig,
    around: Around<'_>,
) -> Result<Box<dyn Shelf>, RetainError> {
    Ok(match config {
        ArchiveConfig::Dir { path, .. } => Box::new(dir::Folders::new(path.get().clone(), around)),
        ArchiveConfig::S3(config) => Box::new(s3::Bucket::open(config, around)?),
    })
}

fn different(path: &Path, found: Digest, expected: Digest) -> RetainError {
    let (found, expected) = (found.to_hex(), expected.to_hex());
    RetainError::Checksum { path: path.to_owned(), found, expected }
}

fn day_of(path: &Path) -> &str {
    path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
}

impl Retain {
    /// Copies the segment, if there is an archive and it is not there; says whether it did.
    pub(super) fn archive_segment(&self, segment: &Segment) -> Result<bool, RetainError> {
        let Some(shelf) = &self.shelf else { return Ok(false) };
        if shelf.find(segment)?.is_some() {
            return Ok(false);
        }
        let archived = shelf.put(segment)?;
        log::info!(segment = segment.number, bytes = archived.bytes; "a segment was archived");
        Ok(true)
    }

    /// Sees to it that the archive, if there is one, has this segment before it loses events. The copy
    /// is read, also one that was made just now: the word of its books alone is not enough to take
    /// anything away.
    pub(super) fn see_archived(&self, segment: &Segment) -> Result<(), RetainError> {
        let Some(shelf) = &self.shelf else { return Ok(()) };
        self.archive_segment(segment)?;
        match shelf.find(segment)? {
            Some(known) => shelf.check(&known, segment),
            None => Err(RetainError::Conflict(format!(
                "the archive does not have segment {}, which was copied there; nothing is taken away",
                segment.number
            ))),
        }
    }

    /// Copies every closed segment that has the configured age.
    pub(super) fn archive_due(&self) -> Result<u64, RetainError> {
        let Some(shelf) = &self.shelf else { return Ok(0) };
        let after = i64::try_from(self.archive_after.millis()).unwrap_or(i64::MAX);
        let after = after.saturating_mul(1_000);
        let now = self.clock.now();
        let _one = self.work();
        let (mut count, mut tries) = (0, Tries::new("the archive"));
        let closed = self.log.closed_segments();
        tries.one(shelf.tidy(&closed))?;
        for segment in closed {
            self.go_on()?;
            let begun = begun_of(&segment).map_err(RetainError::from);
            let is_old = tries.one(begun)?.is_some_and(|begun| begun.plus_micros(after) <= now);
            if is_old && tries.one(self.archive_segment(&segment))? == Some(true) {
                count += 1;
            }
        }
        if count > 0 {
            let message = format!("{count} segments were archived.");
            let mut act = RetainAct::new("archive.write", "other", message);
            act.target = ("log", "evidence".to_owned());
            act.count("segments", count);
            self.tell(act)?;
        }
        tries.end().map(|()| count)
    }

    /// What is in the archive, by number.
    ///
    /// # Errors
    /// A manifest cannot be read, or the bucket cannot be listed.
    pub fn archived(&self) -> Result<Vec<Archived>, RetainError> {
        let restored = self.table.restored()?;
        let mut all = self.shelf.as_ref().map_or(Ok(Vec::new()), |shelf| shelf.list())?;
        for archived in &mut all {
            archived.restored = restored.contains(&archived.segment);
        }
        all.sort_by_key(|archived| archived.segment);
        Ok(all)
    }

    /// Puts the segments of these days into search again. Blocks until they can be found.
    ///
    /// # Errors
    /// A copy is not what the manifest says, or a file cannot be read or written.
    pub fn restore_archived(
        &self,
        from: Timestamp,
        to: Timestamp,
        by: &str,
    ) -> Result<Restored, RetainError> {
        let Some(shelf) = &self.shelf else {
            return Err(RetainError::NotFound("no archive is configured (`archive`)"));
        };
        let day = |time: Timestamp| time.to_string()[..10].to_owned();
        let days = day(from)..=day(to);
        let _one = self.work();
        self.clean()?;
        let live = self.log.closed_segments();
        let mut done = Restored::default();
        for archived in self.archived()?.into_iter().filter(|one| days.contains(&one.day)) {
            self.go_on()?;
            let Some(segment) = live.iter().find(|one| one.number == archived.segment) else {
                continue;
            };
            let copy = shelf.fetch(&archived, segment)?;
            self.table.set_restored(segment.number, self.clock.now())?;
            self.table.set_dirty(segment.number)?;
            self.log.put_back(segment, copy.path())?;
            done.segments.push(segment.number);
        }
        self.clean()?;
        let message = format!("{by} put {} segments back into search.", done.segments.len());
        let mut act = RetainAct::new("archive.restore", "other", message).by(by);
        act.target = ("log", format!("{} to {}", day(from), day(to)));
        act.count("segments", u64::try_from(done.segments.len()).unwrap_or(u64::MAX));
        self.tell(act)?;
        Ok(done)
    }

    /// What was restored may expire again; the next sweep takes it away.
    ///
    /// # Errors
    /// The database.
    pub fn release_restored(&self, by: &str) -> Result<usize, RetainError> {
        let count = self.table.release_restored()?;
        let message = format!("{by} released {count} restored segments.");
        let mut act = RetainAct::new("archive.release", "other", message).by(by);
        act.target = ("log", "evidence".to_owned());
        self.tell(act)?;
        Ok(count)
    }

    /// Counts in the archive.
    pub(super) fn count_in_archive(
        &self,
        is_counted: &mut dyn FnMut(&Seen<'_>) -> bool,
    ) -> Result<u64, RetainError> {
        let Some(shelf) = &self.shelf else { return Ok(0) };
        let mut count = 0;
        for archived in self.archived()? {
            self.go_on()?;
            each_event(shelf.peek(&archived)?.path(), &mut |seen| {
                count += u64::from(is_counted(seen));
                Ok(())
            })?;
        }
        Ok(count)
    }

    /// Takes what erasure `id` seeks out of the archive; gives how many copies of segments should be
    /// gone, and are under a lock that nobody lifts.
    pub(super) fn erase_in_archive(
        &self,
        id: i64,
        is_sought: &dyn Fn(&Seen<'_>) -> bool,
    ) -> Result<u64, RetainError> {
        let Some(shelf) = &self.shelf else { return Ok(0) };
        let (live, mut tries) =
            (self.log.closed_segments(), Tries::new("an erasure in the archive"));
        tries.one(shelf.tidy(&live))?;
        for known in self.archived()? {
            self.go_on()?;
            tries.one(self.erase_archived(id, &**shelf, &known, is_sought))?;
        }
        // What failed is left as a crash would leave it, for the next try.
        tries.end()?;
        shelf.tidy(&live)
    }

    fn erase_archived(
        &self,
        id: i64,
        shelf: &dyn Shelf,
        known: &Archived,
        is_sought: &dyn Fn(&Seen<'_>) -> bool,
    ) -> Result<(), RetainError> {
        // Before anybody waits for it: it may come from far away.
        let copy = shelf.open(known)?;
        let _deciding = self.deciding.take();
        let holds = Holds::of(&self.table.holds()?)?;
        let mut going = Going::default();
        each_event(copy.path(), &mut |seen| {
            if is_sought(seen) {
                holds.refuse(seen.event)?;
                going.put(seen);
            }
            Ok(())
        })?;
        self.table.erases_archived(id, known.segment, going.count)?;
        if going.count > 0 {
            make_sparse(copy.path(), &going.gone, &*self.hooks.on_step)?;
            shelf.replace(known, &copy)?;
            self.table.erases_archived(id, known.segment, 0)?;
        }
        Ok(())
    }
}

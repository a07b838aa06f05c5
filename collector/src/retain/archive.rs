//! Copies of closed segments outside the data directory, and the way back.
//!
//! # Layout
//! `<path>/<day>/0000000007.seg` and `.idx`, as in the evidence log, and for each day a
//! `manifest.json` that names each segment with its length and SHA-256. A copy is synced, read back
//! and compared before the manifest names it. What a crash left without a name in the manifest, or
//! half written, is removed before the next copy and before an erasure, which must reach it too. A
//! copy that an erasure had written anew when a crash came gets its place in the manifest and its
//! sidecar at the next start, and in any case before it is used.
//!
//! # What it holds
//! A segment is copied before it loses anything, so the copy has all that the log ever had of it,
//! but for what is erased: erasure reaches the archive. Restored segments take the place of the ones
//! that have expired, are found by searches, and do not expire again until they are released.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use custody_config::collector::ArchiveConfig;
use custody_event::{Digest, Timestamp};
use custody_evidence::whole::{PUBLIC, write_whole};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::holds::Holds;
use super::scan::{Going, Seen, each_event};
use super::tries::Tries;
use super::{Retain, RetainError, io};
use crate::own::RetainAct;
use crate::store::StoreError;
use crate::store::evidence::{
    Segment, begun_of, check_copy, generation_of, is_rewritten_whole, make_sparse, mend_sidecar,
};

/// A segment in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// Its number.
    pub segment: u64,
    /// Its file in the day's folder.
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

#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    v: u32,
    segments: Vec<Archived>,
}

/// What a restoration did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Segments that are in search again.
    pub segments: Vec<u64>,
}

fn manifest_in(folder: &Path) -> Result<Manifest, RetainError> {
    let path = folder.join("manifest.json");
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| io(&path)(std::io::Error::other(error.to_string()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Manifest { v: 1, segments: Vec::new() })
        }
        Err(error) => Err(io(&path)(error)),
    }
}

fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), RetainError> {
    let path = folder.join("manifest.json");
    let bytes = serde_json::to_vec_pretty(manifest)
        .map_err(|error| io(&path)(std::io::Error::other(error.to_string())))?;
    write_whole(&path, &bytes, PUBLIC).map_err(io(&path))
}

/// SHA-256 and length of a file, as the disk gives it back.
pub(super) fn digest_of(path: &Path) -> Result<(Digest, u64), RetainError> {
    let mut file = File::open(path).map_err(io(path))?;
    let (mut hash, mut len, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(io(path))?;
        if read == 0 {
            return Ok((Digest(hash.finalize().into()), len));
        }
        hash.update(&buffer[..read]);
        len += u64::try_from(read).unwrap_or(u64::MAX);
    }
}

/// Copies a file durably under a temporary name, gives it its name, and compares what was written.
fn copy(from: &Path, to: &Path) -> Result<(Digest, u64), RetainError> {
    let part = to.with_extension("part");
    let (mut source, mut hash, mut buffer) =
        (File::open(from).map_err(io(from))?, Sha256::new(), vec![0; 1 << 20]);
    let mut target = File::create(&part).map_err(io(&part))?;
    loop {
        let read = source.read(&mut buffer).map_err(io(from))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        target.write_all(&buffer[..read]).map_err(io(&part))?;
    }
    target.sync_all().map_err(io(&part))?;
    let expected = Digest(hash.finalize().into());
    let (found, len) = digest_of(&part)?;
    if found != expected {
        return Err(different(&part, found, expected));
    }
    std::fs::rename(&part, to).map_err(io(to))?;
    let folder = to.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))?;
    Ok((found, len))
}

fn different(path: &Path, found: Digest, expected: Digest) -> RetainError {
    let (found, expected) = (found.to_hex(), expected.to_hex());
    RetainError::Checksum { path: path.to_owned(), found, expected }
}

/// What is in a folder, in order; nothing where there is none.
fn folder(path: &Path) -> Result<Vec<PathBuf>, RetainError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(path)(error)),
    };
    let paths: Result<Vec<PathBuf>, RetainError> =
        entries.map(|entry| Ok(entry.map_err(io(path))?.path())).collect();
    let mut paths = paths?;
    paths.sort();
    Ok(paths)
}

fn day_of(path: &Path) -> &str {
    path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
}

impl Retain {
    fn archive_folder(&self) -> Option<&Path> {
        self.archive.as_ref().map(|ArchiveConfig::Dir { path, .. }| path.get().as_path())
    }

    /// Copies the segment, if there is an archive and it is not there; says whether it did.
    pub(super) fn archive_segment(&self, segment: &Segment) -> Result<bool, RetainError> {
        let Some(root) = self.archive_folder() else { return Ok(false) };
        let day = day_of(&segment.path);
        let folder = root.join(day);
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let mut manifest = manifest_in(&folder)?;
        if manifest.segments.iter().any(|known| known.segment == segment.number) {
            return Ok(false);
        }
        let file = format!("{:010}.seg", segment.number);
        let target = folder.join(&file);
        let sidecar = segment.path.with_extension("idx");
        copy(&sidecar, &target.with_extension("idx"))?;
        let (sha256, bytes) = copy(&segment.path, &target)?;
        manifest.segments.push(Archived {
            segment: segment.number,
            file,
            bytes,
            sha256,
            archived: self.clock.now().to_string(),
            generation: Some(generation_of(&target)?),
            day: day.to_owned(),
            restored: false,
        });
        write_manifest(&folder, &manifest)?;
        log::info!(segment = segment.number, bytes = bytes; "a segment was archived");
        Ok(true)
    }

    /// Removes what a crash left in the archive: copies that no manifest names, and halves.
    pub(super) fn tidy_archive(&self) -> Result<(), RetainError> {
        let Some(root) = self.archive_folder() else { return Ok(()) };
        for day in folder(root)?.into_iter().filter(|path| path.is_dir()) {
            let named: Vec<String> =
                manifest_in(&day)?.segments.into_iter().map(|archived| archived.file).collect();
            for path in folder(&day)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let (stem, ending) = name.split_once('.').unwrap_or_default();
                let is_named = named.iter().any(|file| file.strip_suffix(".seg") == Some(stem));
                let is_ours = stem == "manifest" || stem.bytes().all(|byte| byte.is_ascii_digit());
                let is_whole = matches!(ending, "seg" | "idx") && is_named
                    || (stem, ending) == ("manifest", "json");
                if is_ours && !is_whole {
                    std::fs::remove_file(&path).map_err(io(&path))?;
                    log::warn!(path:% = path.display(); "an unfinished copy in the archive was removed");
                }
            }
        }
        self.mend_archive()
    }

    /// Ends what a crash broke off while copies were written anew.
    fn mend_archive(&self) -> Result<(), RetainError> {
        let live = self.log.closed_segments();
        let mut tries = Tries::new("mending the archive");
        for folder in self.archive_days()? {
            let mut manifest = manifest_in(&folder)?;
            for at in 0..manifest.segments.len() {
                self.go_on()?;
                let number = manifest.segments[at].segment;
                if let Some(segment) = live.iter().find(|segment| segment.number == number) {
                    tries.one(mend(&folder, &mut manifest, at, segment))?;
                }
            }
        }
        tries.end()
    }

    /// Sees to it that the archive, if there is one, has this segment before it loses events. A copy
    /// that was made before is read: the manifest's word alone is not enough to take anything away.
    pub(super) fn see_archived(&self, segment: &Segment) -> Result<(), RetainError> {
        let Some(root) = self.archive_folder() else { return Ok(()) };
        if self.archive_segment(segment)? {
            return Ok(());
        }
        let folder = root.join(day_of(&segment.path));
        match copy_of(&folder, segment)? {
            Some(copy) => Ok(check_copy(&segment.path, &copy)?),
            None => Ok(()),
        }
    }

    /// Copies every closed segment that has the configured age.
    pub(super) fn archive_due(&self) -> Result<u64, RetainError> {
        let Some(ArchiveConfig::Dir { after, .. }) = &self.archive else { return Ok(0) };
        let after = i64::try_from(after.millis()).unwrap_or(i64::MAX).saturating_mul(1_000);
        let now = self.clock.now();
        let _one = self.work();
        let (mut count, mut tries) = (0, Tries::new("the archive"));
        tries.one(self.tidy_archive())?;
        for segment in self.log.closed_segments() {
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
    /// A manifest cannot be read.
    pub fn archived(&self) -> Result<Vec<Archived>, RetainError> {
        let restored = self.table.restored()?;
        let mut all = Vec::new();
        for folder in self.archive_days()? {
            for mut archived in manifest_in(&folder)?.segments {
                archived.restored = restored.contains(&archived.segment);
                all.push(archived);
            }
        }
        all.sort_by_key(|archived| archived.segment);
        Ok(all)
    }

    fn archive_days(&self) -> Result<Vec<PathBuf>, RetainError> {
        let Some(root) = self.archive_folder() else { return Ok(Vec::new()) };
        let days = folder(root)?.into_iter();
        Ok(days.filter(|day| day.join("manifest.json").is_file()).collect())
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
        let Some(root) = self.archive_folder() else {
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
            let copy = copy_of(&root.join(&archived.day), segment)?;
            let Some(copy) = copy else { continue };
            self.table.set_restored(segment.number, self.clock.now())?;
            self.table.set_dirty(segment.number)?;
            self.log.put_back(segment, &copy)?;
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
        let mut count = 0;
        for folder in self.archive_days()? {
            for archived in manifest_in(&folder)?.segments {
                self.go_on()?;
                each_event(&folder.join(&archived.file), &mut |seen| {
                    count += u64::from(is_counted(seen));
                    Ok(())
                })?;
            }
        }
        Ok(count)
    }

    /// Takes what erasure `id` seeks out of the archive.
    pub(super) fn erase_in_archive(
        &self,
        id: i64,
        is_sought: &dyn Fn(&Seen<'_>) -> bool,
    ) -> Result<(), RetainError> {
        let mut tries = Tries::new("an erasure in the archive");
        tries.one(self.tidy_archive())?;
        for folder in self.archive_days()? {
            let mut manifest = manifest_in(&folder)?;
            for at in 0..manifest.segments.len() {
                self.go_on()?;
                tries.one(self.erase_archived(id, (&folder, &mut manifest, at), is_sought))?;
            }
        }
        tries.end()
    }

    fn erase_archived(
        &self,
        id: i64,
        (folder, manifest, at): (&Path, &mut Manifest, usize),
        is_sought: &dyn Fn(&Seen<'_>) -> bool,
    ) -> Result<(), RetainError> {
        let _deciding = self.deciding.take();
        let path = checked(folder, &manifest.segments[at])?;
        let holds = Holds::of(&self.table.holds()?)?;
        let mut going = Going::default();
        each_event(&path, &mut |seen| {
            if is_sought(seen) {
                holds.refuse(seen.event)?;
                going.put(seen);
            }
            Ok(())
        })?;
        let segment = manifest.segments[at].segment;
        self.table.erases_archived(id, segment, going.count)?;
        if going.count > 0 {
            make_sparse(&path, &going.gone, &*self.hooks.on_step)?;
            note(folder, manifest, at, digest_of(&path)?)?;
            self.table.erases_archived(id, segment, 0)?;
        }
        Ok(())
    }
}

/// Ends what a crash broke off in writing this copy of the segment anew: the manifest's word of it,
/// and its sidecar. A copy that is damaged, or not there, is for whoever uses it to refuse.
fn mend(
    folder: &Path,
    manifest: &mut Manifest,
    at: usize,
    segment: &Segment,
) -> Result<(), RetainError> {
    let known = &manifest.segments[at];
    let path = folder.join(&known.file);
    let generation = match generation_of(&path) {
        Ok(generation) => generation,
        Err(StoreError::Damaged { .. }) => return Ok(()),
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let is_next = match known.generation {
        Some(before) => generation == before + 1,
        None => generation > 0 && digest_of(&path)?.0 != known.sha256,
    };
    if is_next && is_rewritten_whole(&path, Some(generation))? {
        let found = digest_of(&path)?;
        note(folder, manifest, at, found)?;
        log::warn!(path:% = path.display(); "a copy in the archive that a crash had caught is in the manifest now");
    }
    let known = &manifest.segments[at];
    let is_whole = known.generation == Some(generation)
        && std::fs::metadata(&path).map_err(io(&path))?.len() == known.bytes;
    if is_whole && mend_sidecar(&segment.path, &path)? {
        log::warn!(path:% = path.display(); "the sidecar of a copy in the archive was made again");
    }
    Ok(())
}

/// The path of the segment's copy, after what a crash broke off was ended; none where there is none.
fn copy_of(folder: &Path, segment: &Segment) -> Result<Option<PathBuf>, RetainError> {
    let mut manifest = manifest_in(folder)?;
    let at = manifest.segments.iter().position(|known| known.segment == segment.number);
    let Some(at) = at else { return Ok(None) };
    mend(folder, &mut manifest, at, segment)?;
    checked(folder, &manifest.segments[at]).map(Some)
}

/// The path of a copy that is what the manifest says.
fn checked(folder: &Path, known: &Archived) -> Result<PathBuf, RetainError> {
    let path = folder.join(&known.file);
    let (found, _) = digest_of(&path)?;
    if found == known.sha256 { Ok(path) } else { Err(different(&path, found, known.sha256)) }
}

/// Writes down what the copy is now.
fn note(
    folder: &Path,
    manifest: &mut Manifest,
    at: usize,
    (sha256, bytes): (Digest, u64),
) -> Result<(), RetainError> {
    let known = &mut manifest.segments[at];
    known.generation = Some(generation_of(&folder.join(&known.file))?);
    (known.sha256, known.bytes) = (sha256, bytes);
    write_manifest(folder, manifest)
}

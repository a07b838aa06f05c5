//! Copies in a directory.
//!
//! `<path>/<day>/0000000007.seg` and `.idx`, as in the evidence log, and for each day a
//! `manifest.json` that names each segment with its length and SHA-256. A copy is synced, read back
//! and compared before the manifest names it. What a crash left without a name in the manifest, or
//! half written, is removed before the next copy and before an erasure, which must reach it too. A
//! copy that an erasure had written anew when a crash came gets its place in the manifest and its
//! sidecar at the next start, and in any case before it is used.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use custody_event::{Clock, Digest};
use custody_evidence::whole::{PUBLIC, write_whole};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::tries::Tries;
use super::super::{RetainError, io};
use super::{Archived, Around, Copied, Shelf, day_of, different};
use crate::store::StoreError;
use crate::store::evidence::{
    Segment, check_copy, generation_of, is_rewritten_whole, mend_sidecar,
};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    v: u32,
    segments: Vec<Archived>,
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
pub(in crate::retain) fn digest_of(path: &Path) -> Result<(Digest, u64), RetainError> {
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

/// See the module.
pub(super) struct Folders {
    root: PathBuf,
    clock: Arc<dyn Clock>,
    stopping: Arc<AtomicBool>,
}

impl Folders {
    pub(super) fn new(root: PathBuf, around: Around<'_>) -> Self {
        Self { root, clock: around.clock, stopping: around.stopping }
    }

    fn days(&self) -> Result<Vec<PathBuf>, RetainError> {
        Ok(folder(&self.root)?.into_iter().filter(|path| path.is_dir()).collect())
    }

    fn path_of(&self, known: &Archived) -> PathBuf {
        self.root.join(&known.day).join(&known.file)
    }

    /// The segment's copy, after what a crash broke off was ended.
    fn copy_of(&self, known: &Archived, segment: &Segment) -> Result<PathBuf, RetainError> {
        let copy = copy_of(&self.root.join(&known.day), segment)?;
        copy.ok_or(RetainError::NotFound("the copy is in no manifest of the archive"))
    }

    /// Ends what a crash broke off while copies were written anew.
    fn mend(&self, live: &[Segment]) -> Result<(), RetainError> {
        let mut tries = Tries::new("mending the archive");
        for folder in self.days()? {
            let mut manifest = manifest_in(&folder)?;
            for at in 0..manifest.segments.len() {
                if self.stopping.load(Ordering::Relaxed) {
                    return Err(RetainError::Stopping);
                }
                let number = manifest.segments[at].segment;
                if let Some(segment) = live.iter().find(|segment| segment.number == number) {
                    tries.one(mend(&folder, &mut manifest, at, segment))?;
                }
            }
        }
        tries.end()
    }
}

impl Shelf for Folders {
    fn list(&self) -> Result<Vec<Archived>, RetainError> {
        let mut all = Vec::new();
        for folder in self.days()? {
            let day = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            for mut archived in manifest_in(&folder)?.segments {
                // The folder is where it is found, whatever an older manifest leaves out.
                archived.day = day.to_owned();
                all.push(archived);
            }
        }
        Ok(all)
    }

    fn find(&self, segment: &Segment) -> Result<Option<Archived>, RetainError> {
        let day = day_of(&segment.path);
        let known = manifest_in(&self.root.join(day))?.segments.into_iter();
        let mut found = known.filter(|known| known.segment == segment.number);
        Ok(found.next().map(|known| Archived { day: day.to_owned(), ..known }))
    }

    fn put(&self, segment: &Segment) -> Result<Archived, RetainError> {
        let day = day_of(&segment.path);
        let folder = self.root.join(day);
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let mut manifest = manifest_in(&folder)?;
        let file = format!("{:010}.seg", segment.number);
        let target = folder.join(&file);
        copy(&segment.path.with_extension("idx"), &target.with_extension("idx"))?;
        let (sha256, bytes) = copy(&segment.path, &target)?;
        let archived = Archived {
            segment: segment.number,
            file,
            bytes,
            sha256,
            archived: self.clock.now().to_string(),
            generation: Some(generation_of(&target)?),
            day: day.to_owned(),
            restored: false,
        };
        manifest.segments.push(archived.clone());
        write_manifest(&folder, &manifest)?;
        Ok(archived)
    }

    fn check(&self, known: &Archived, segment: &Segment) -> Result<(), RetainError> {
        Ok(check_copy(&segment.path, &self.copy_of(known, segment)?)?)
    }

    fn fetch(&self, known: &Archived, segment: &Segment) -> Result<Copied, RetainError> {
        Ok(Copied { path: self.copy_of(known, segment)?, is_ours: false })
    }

    fn peek(&self, known: &Archived) -> Result<Copied, RetainError> {
        Ok(Copied { path: self.path_of(known), is_ours: false })
    }

    fn open(&self, known: &Archived) -> Result<Copied, RetainError> {
        Ok(Copied { path: checked(&self.root.join(&known.day), known)?, is_ours: false })
    }

    fn replace(&self, known: &Archived, copy: &Copied) -> Result<(), RetainError> {
        let folder = self.root.join(&known.day);
        let mut manifest = manifest_in(&folder)?;
        let at = manifest.segments.iter().position(|other| other.segment == known.segment);
        let missing = || RetainError::NotFound("the copy is in no manifest of the archive");
        note(&folder, &mut manifest, at.ok_or_else(missing)?, digest_of(copy.path())?)
    }

    fn tidy(&self, live: &[Segment]) -> Result<u64, RetainError> {
        for day in self.days()? {
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
        self.mend(live).map(|()| 0)
    }
}
